"""What the outside may ask and what it is told: secrets, limits of a request, replies, refusals, the owner's routes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fake_binance import FakeBinance
from harness import SECRET, Daemon, Nursery, Reply, assert_csvs_equal_journal, binance, eventually

from checks import CHECKS

DATA = Path(__file__).parent / "data"
FILES = ("alerts.jsonl", "more_alerts.jsonl")
CORPUS = [json.loads(line) for file in FILES for line in (DATA / file).read_text("utf-8").splitlines()]
REPLY_KEYS = {"success", "decision", "signal_id", "check", "reason", "error", "orderId", "status", "client_order_id",
              "quantity", "price", "broker"}  # fmt: skip
DRY = "/webhook?dry_run=true"
BUY: dict[str, Any] = {"symbol": "BTCUSDT", "side": "buy", "price": 100}


def with_bearer(daemon: Daemon, body: str | bytes, path: str = DRY) -> Reply:
    data = body.encode() if isinstance(body, str) else body
    return daemon.request("POST", path, data, Authorization=f"Bearer {SECRET}")


def raw_reply(daemon: Daemon, *parts: bytes, seconds: float = 6) -> bytes:
    """Everything that comes back for these bytes, until the daemon closes; the Date line is taken out."""
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=seconds) as connection:
        for part in parts:
            connection.sendall(part)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return b"\r\n".join(line for line in received.split(b"\r\n") if not line.lower().startswith(b"date:"))


def request_bytes(path: str, body: bytes, *headers: bytes) -> bytes:
    lines = [f"POST {path} HTTP/1.1".encode(), b"Host: x", b"Connection: close", *headers]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


def status_of(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1])


def alert_text(**fields: object) -> bytes:
    return json.dumps({"secret": SECRET, **BUY, **fields}).encode()


@pytest.fixture(scope="module")
def door(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all the tests that leave nothing behind; it holds a position."""
    daemon = Daemon(nursery, tmp_path_factory.mktemp("door"), cooldown_seconds=0).start()
    daemon.post(**BUY)
    yield daemon
    daemon.kill()


# --- the secret ---------------------------------------------------------------------------------------------------

RIGHT: dict[str, tuple[str, bytes, list[bytes]]] = {
    "bearer": (DRY, json.dumps(BUY).encode(), [f"Authorization: Bearer {SECRET}".encode()]),
    "bearer in lower case": (DRY, json.dumps(BUY).encode(), [f"authorization: bearer {SECRET}".encode()]),
    "path": (f"/webhook/{SECRET}?dry_run=true", json.dumps(BUY).encode(), []),
    "key=value text": (DRY, f"symbol=BTCUSDT side=buy price=100 secret={SECRET}".encode(), []),
    "nested": (DRY, json.dumps(BUY | {"data": {"token": SECRET}}).encode(), []),
    "bearer next to a wrong field": (
        DRY, json.dumps(BUY | {"secret": "wrong"}).encode(), [f"Authorization: Bearer {SECRET}".encode()]
    ),
} | {
    f"field {name}": (DRY, json.dumps(BUY | {name: SECRET}).encode(), [])
    for name in ("secret", "passphrase", "key", "token", "password", "webhook_secret", "SECRET")
}  # fmt: skip

WRONG: dict[str, tuple[str, bytes, list[bytes]]] = {
    "none": ("/webhook", json.dumps(BUY).encode(), []),
    "no body": ("/webhook", b"", []),
    "wrong bearer": ("/webhook", json.dumps(BUY).encode(), [b"Authorization: Bearer wrong"]),
    "empty bearer": ("/webhook", json.dumps(BUY).encode(), [b"Authorization: Bearer "]),
    "bearer alone": ("/webhook", json.dumps(BUY).encode(), [b"Authorization: Bearer"]),
    "another scheme": ("/webhook", json.dumps(BUY).encode(), [f"Authorization: Basic {SECRET}".encode()]),
    "non-ASCII bearer": ("/webhook", json.dumps(BUY).encode(), [b"Authorization: Bearer \xfc\xff\x80"]),
    "empty field": ("/webhook", alert_text(secret=""), []),
    "null field": ("/webhook", alert_text(secret=None), []),
    "number": ("/webhook", alert_text(secret=5), []),
    "list": ("/webhook", alert_text(secret=[SECRET]), []),
    "non-ASCII field": ("/webhook", alert_text(secret="ключ-ключ-ключ-ключ"), []),
    "half a character": ("/webhook", alert_text(secret="\ud800" * 20), []),
    "its beginning": ("/webhook", alert_text(secret=SECRET[:-1]), []),
    "one character more": ("/webhook", alert_text(secret=SECRET + "x"), []),
    "as long": ("/webhook", alert_text(secret="x" * len(SECRET)), []),
    "its beginning, as bearer": (
        "/webhook",
        json.dumps(BUY).encode(),
        [f"Authorization: Bearer {SECRET[:-1]}".encode()],
    ),
    "all but its last character, as bearer": (
        "/webhook",
        json.dumps(BUY).encode(),
        [f"Authorization: Bearer {SECRET[:-1]}x".encode()],
    ),
    "its beginning, in the path": (f"/webhook/{SECRET[:-1]}", json.dumps(BUY).encode(), []),
    "all but its last character, in the path": (f"/webhook/{SECRET[:-1]}x", json.dumps(BUY).encode(), []),
    "half in the path, half in the body": (f"/webhook/{SECRET[:9]}", alert_text(secret=SECRET[9:]), []),
    "upper case": ("/webhook", alert_text(secret=SECRET.upper()), []),
    "very long": ("/webhook", alert_text(secret="x" * 9_000), []),
    "in a field of no secret": ("/webhook", alert_text(secret="wrong", comment=SECRET), []),
    "wrong path": ("/webhook/wrong", json.dumps(BUY).encode(), []),
    "path that is not text": ("/webhook/%ff%fe", json.dumps(BUY).encode(), []),
    "in the query": (f"/webhook?secret={SECRET}", json.dumps(BUY).encode(), []),
    "wrong in key=value text": ("/webhook", b"symbol=BTCUSDT side=buy secret=wrong", []),
    "not JSON": ("/webhook", b'{"symbol": BTCUSDT, "secret": "wrong"', []),
    "not text": ("/webhook", b"\xff\xfe\x00\x01", []),
}


def test_the_right_secret_opens_the_door_wherever_it_stands(door: Daemon) -> None:
    statuses = {
        name: status_of(raw_reply(door, request_bytes(path, body, *headers)))
        for name, (path, body, headers) in RIGHT.items()
    }
    assert statuses == dict.fromkeys(RIGHT, 200)


def test_a_secret_with_slashes_opens_the_door_as_a_part_of_the_address(daemon_with: Callable[..., Daemon]) -> None:
    """As `openssl rand -base64 24` makes them, and TradingView or its user may write them."""
    secret = "q7/Zk+4fWm0/x9PuLr2T=="
    daemon = daemon_with(webhook_secret_key=secret).start()
    body = json.dumps({"symbol": "BTCUSDT", "side": "sell", "price": 100}).encode()
    for path in (secret, quote(secret, safe=""), quote(secret)):
        assert daemon.post_raw(body, f"/webhook/{path}").status == 200
    assert daemon.post_raw(body, f"/webhook/{secret[:-1]}").status == 401
    assert secret not in daemon.log()


def test_every_wrong_secret_gets_the_very_same_bytes_and_leaves_no_row(paper: Daemon) -> None:
    requests = [request_bytes(path, body, *headers) for path, body, headers in WRONG.values()]
    with ThreadPoolExecutor(len(requests)) as threads:
        replies = list(threads.map(lambda request: raw_reply(paper, request), requests))
    assert {name: reply for name, reply in zip(WRONG, replies, strict=True) if reply != replies[0]} == {}
    assert status_of(replies[0]) == 401
    assert json.loads(replies[0].split(b"\r\n\r\n")[1]) == {
        "success": False,
        "error": "unauthorised: send the webhook secret",
    }
    assert paper.post(**BUY)["decision"] == "ACCEPTED"
    assert [row["Decision"] for row in paper.signals()] == ["ACCEPTED"]


GUESSES = [[], *([f"Authorization: Bearer {guess}"] for guess in (SECRET[:-1], f"{SECRET[:-1]}x", "x" * len(SECRET)))]


def test_every_door_answers_every_guess_with_the_very_same_bytes(paper: Daemon) -> None:
    """Neither the route nor how near a guess came shows: status, headers and body are those of an alert's 401."""
    doors = [(method, path, guess) for method, path in [("POST", "/webhook"), *OWNERS] for guess in GUESSES]

    def ask(door: tuple[str, str, list[str]]) -> bytes:
        method, path, guess = door
        lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", "Content-Length: 0", *guess, "", ""]
        return raw_reply(paper, "\r\n".join(lines).encode())

    with ThreadPoolExecutor(len(doors)) as threads:
        replies = list(threads.map(ask, doors))
    assert status_of(replies[0]) == 401
    assert {door: reply for door, reply in zip(map(str, doors), replies, strict=True) if reply != replies[0]} == {}


def test_who_knows_the_secret_is_never_slowed_by_those_who_guess(paper: Daemon) -> None:
    """All TradingView users share four addresses: the guesses come from the very address of the right alert."""
    with ThreadPoolExecutor(200) as threads:
        guesses = [threads.submit(paper.post, secret=f"guess-{number}", **BUY) for number in range(200)]
        eventually(lambda: sum(guess.done() for guess in guesses) >= 10, 5, lambda: "no guess was answered")
        right = [paper.post(symbol="BTCUSDT", side="buy", price=100 + number, quantity=0.05) for number in range(3)]
        answered = [guess.result() for guess in guesses]
    assert [reply["decision"] for reply in right] == ["ACCEPTED"] * 3
    assert max(reply.seconds for reply in right) < 1.0
    assert {reply.status for reply in answered} == {401}
    assert sum(reply.seconds >= 1.0 for reply in answered) >= 50, "guessing costs time"
    assert len(paper.signals()) == 3


def test_a_guesser_does_not_fill_the_log(paper: Daemon) -> None:
    before = len(paper.log().splitlines())
    with ThreadPoolExecutor(50) as threads:
        list(threads.map(lambda number: paper.post(secret=f"guess-{number}", **BUY), range(50)))
    assert len(paper.log().splitlines()) - before == 1


@pytest.mark.parametrize("path", ["/webhook", "/webhook?dry_run=true"])
def test_a_mistyped_alert_with_the_right_secret_learns_what_is_wrong(paper: Daemon, path: str) -> None:
    reply = paper.post_raw(b'{"secret": "%s", "symbol": "BTCUSDT", "side": "buy",}' % SECRET.encode(), path)
    assert (reply.status, reply["decision"], reply["check"]) == (400, "INVALID", "body")
    assert "remove the comma before the closing bracket" in reply["reason"]
    (row,) = paper.signals()
    assert (row["Decision"], row["Check"], row["SignalID"]) == ("INVALID", "body", reply["signal_id"])
    assert row["TradingPair"] == ""
    assert row["Reason"].startswith("body: saw")


def test_a_mistyped_alert_with_a_wrong_secret_learns_nothing_and_leaves_no_row(paper: Daemon) -> None:
    assert paper.post_raw(b'{"secret": "wrong-wrong-wrong", "symbol": "BTCUSDT", "side": "buy",}').status == 401
    assert paper.post(**BUY).status == 200
    assert [row["Decision"] for row in paper.signals()] == ["ACCEPTED"]


def test_an_invalid_alert_may_be_corrected_and_sent_again_at_once(paper: Daemon) -> None:
    assert paper.post(symbol="BTCUSDT", side="by", price=100).status == 400
    assert paper.post(symbol="BTCUSDT", side="buy", price=100)["decision"] == "ACCEPTED"


# --- limits of a request ------------------------------------------------------------------------------------------


def padded(size: int) -> bytes:
    text = alert_text()
    return text + b" " * (size - len(text))


def chunked(body: bytes, size: int = 1_000) -> bytes:
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    head = b"POST /webhook?dry_run=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


@pytest.mark.parametrize(("size", "status"), [(16_384, 200), (16_385, 413)])
def test_a_body_may_have_16_kib_and_not_one_byte_more(door: Daemon, size: int, status: int) -> None:
    plain = raw_reply(door, request_bytes(DRY, padded(size)))
    in_chunks = raw_reply(door, chunked(padded(size)))
    assert (status_of(plain), status_of(in_chunks)) == (status, status)
    if status == 413:
        assert json.loads(plain.split(b"\r\n\r\n")[1])["error"] == "too large: at most 16384 bytes"


def test_a_huge_body_is_refused_before_it_is_there(door: Daemon) -> None:
    head = b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", door.port), timeout=1) as connection:
        connection.sendall(head + padded(16_385))
        assert status_of(connection.recv(65536)) == 413


def test_a_body_that_does_not_come_is_given_up_after_two_seconds(paper: Daemon) -> None:
    """The rest of the daemon goes on meanwhile."""
    whole = request_bytes("/webhook", alert_text())
    slow = threading.Thread(target=lambda: replies.append(raw_reply(paper, whole[:-20])))
    replies: list[bytes] = []
    slow.start()
    assert paper.post(**BUY).seconds < 1
    slow.join(5)
    assert status_of(replies[0]) == 408
    assert b"did not arrive within 2 s" in replies[0]
    assert len(paper.signals()) == 1


def test_dripping_bytes_do_not_lengthen_the_two_seconds(door: Daemon) -> None:
    whole = request_bytes("/webhook", padded(4_000))
    with socket.create_connection(("127.0.0.1", door.port), timeout=6) as connection:
        connection.sendall(whole[:300])
        stop = threading.Event()

        def drip() -> None:
            for byte in whole[300:]:
                if stop.wait(0.1):
                    return
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        first = connection.recv(65536)
        stop.set()
        dripping.join()
    assert status_of(first) == 408


def test_who_hangs_up_in_the_middle_of_his_alert_is_nothing_to_talk_about(paper: Daemon) -> None:
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", paper.port), timeout=5) as connection:
            connection.sendall(b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf of it")
    assert paper.post(symbol="BTCUSDT", side="BUY", price=43000).body["success"]
    # Said when the task's end is found out: at its collection.
    assert [line for line in paper.log().splitlines() if " WARNING " in line or " ERROR " in line] == []
    assert len(paper.signals()) == 1


@pytest.mark.parametrize(
    "content_type",
    ["text/plain; charset=utf-8", "application/json", "application/x-www-form-urlencoded", "image/png",
     "multipart/form-data; boundary=x", "nonsense", ""],
)  # fmt: skip
def test_the_content_type_does_not_matter(door: Daemon, content_type: str) -> None:
    header = [f"Content-Type: {content_type}".encode()] if content_type else []
    assert status_of(raw_reply(door, request_bytes(DRY, alert_text(), *header))) == 200


BAD_BODIES: dict[str, tuple[str, str]] = {
    "NaN": ('{"symbol":"BTCUSDT","side":"buy","quantity":NaN}', "quantity"),
    "Infinity": ('{"symbol":"BTCUSDT","side":"buy","quantity":-Infinity}', "quantity"),
    "more than a float holds": ('{"symbol":"BTCUSDT","side":"buy","quantity":1e999}', "quantity"),
    "the same field twice": ('{"symbol":"BTCUSDT","side":"buy","side":"sell"}', "side"),
    "the same field twice, nested": ('{"symbol":"BTCUSDT","order":{"side":"buy","side":"sell"}}', "side"),
    "an integer of 4,301 digits": ('{"symbol":"BTCUSDT","side":"buy","quantity":%s}' % ("9" * 4_301), "quantity"),
    "deep lists": ("[" * 8_000, "body"),
    "deep objects": ('{"a":' * 3_000 + "1" + "}" * 1_000, "body"),
    "half a character in a value": ('{"symbol":"BTCUSDT","side":"buy","strategy":"\\ud800"}', "strategy"),
    "half a character in a name": ('{"symbol":"BTCUSDT","side":"buy","\\udc00":"x"}', "body"),
    "NUL": ('{"symbol":"BTCUSDT\\u0000","side":"buy"}', "symbol"),
    "not text": ("\xff\xfe", "body"),
    "nothing": ("", "body"),
    "a number": ("1", "body"),
    "null": ("null", "body"),
    "an empty object": ("{}", "symbol"),
    "a negative quantity": ('{"symbol":"BTCUSDT","side":"buy","quantity":-1}', "quantity"),
    "a zero quantity": ('{"symbol":"BTCUSDT","side":"buy","quantity":0}', "quantity"),
    "an unexpanded placeholder": ('{"symbol":"{{ticker}}","side":"buy"}', "symbol"),
    "an unknown action": ('{"symbol":"BTCUSDT","side":"hodl"}', "side"),
    "two actions": ('{"symbol":"BTCUSDT","side":"buy","action":"sell"}', "side, action"),
}


def test_bad_input_is_a_400_that_names_the_field_and_one_row_each(paper: Daemon) -> None:
    replies = {name: with_bearer(paper, body.encode("latin-1"), "/webhook") for name, (body, _) in BAD_BODIES.items()}
    assert {name: reply.status for name, reply in replies.items()} == dict.fromkeys(BAD_BODIES, 400)
    assert {name: reply["field"] for name, reply in replies.items()} == {
        name: field for name, (_, field) in BAD_BODIES.items()
    }
    rows = paper.signals()
    assert [row["Decision"] for row in rows] == ["INVALID"] * len(BAD_BODIES)
    assert [row["SignalID"] for row in rows] == [reply["signal_id"] for reply in replies.values()]
    assert paper.trades() == []
    assert_csvs_equal_journal(paper)


# --- addresses ----------------------------------------------------------------------------------------------------


def alert_from(daemon: Daemon, *forwarded_for: str) -> int:
    headers = [f"X-Forwarded-For: {value}".encode() for value in forwarded_for]
    return status_of(raw_reply(daemon, request_bytes(DRY, alert_text(), *headers)))


def test_without_a_proxy_only_the_connections_own_address_counts(daemon_with: Callable[..., Daemon]) -> None:
    daemon = daemon_with(allowed_ips="52.89.214.238, 34.212.75.30").start()
    assert alert_from(daemon) == 401
    assert alert_from(daemon, "52.89.214.238") == 401
    neighbours = daemon_with(allowed_ips="127.0.0.0/8").start()
    assert alert_from(neighbours) == 200
    assert alert_from(neighbours, "6.6.6.6") == 200


def test_behind_a_proxy_only_what_the_proxy_added_counts(daemon_with: Callable[..., Daemon]) -> None:
    daemon = daemon_with(allowed_ips="52.89.214.238", trusted_proxy_hops=1).start()
    assert alert_from(daemon, "52.89.214.238") == 200
    assert alert_from(daemon, "6.6.6.6, 52.89.214.238") == 200
    assert alert_from(daemon, "52.89.214.238, 6.6.6.6") == 401
    assert alert_from(daemon, "52.89.214.238", "6.6.6.6") == 401, "a proxy may add a line of its own"
    assert alert_from(daemon, "6.6.6.6", "52.89.214.238") == 200
    assert alert_from(daemon, "not an address") == 401
    assert alert_from(daemon) == 401
    assert alert_from(daemon, "::ffff:52.89.214.238") == 200, "as a proxy that listens for IPv6, too, may write it"
    assert alert_from(daemon, "::ffff:6.6.6.6") == 401


# --- dry run ------------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_every_check_and_the_order_and_changes_nothing(live: Daemon, exchange: FakeBinance) -> None:
    reply = live.post(DRY, symbol="BTCUSDT", side="buy", quantity=0.0002, strategy="trend")
    assert reply.status == 200
    assert reply.body.keys() == {"dry_run", "decision", "check", "reason", "signal", "checks", "order"}
    assert (reply["dry_run"], reply["decision"], reply["check"]) == (True, "ACCEPTED", None)
    assert reply["signal"] | {
        "action": "BUY", "symbol": "BTCUSDT", "broker": "BINANCE", "market": "spot", "quantity": 0.0002,
        "amount": None, "price": None, "type": "MARKET", "strategy": "trend",
    } == reply["signal"]  # fmt: skip
    assert len(reply["checks"]) == len(CHECKS)
    assert all(check.keys() == {"check", "passed", "reason"} and check["passed"] for check in reply["checks"])
    assert reply["order"] == {
        "side": "BUY", "type": "MARKET", "symbol": "BTCUSDT", "quantity": 0.0002, "amount": None, "price": None,
        "broker": "BINANCE", "market": "spot", "is_entry": True, "exits_all": False,
    }  # fmt: skip
    assert exchange.calls("POST /api/v3/order") == []
    assert (live.signals(), live.trades(), live.journal_rows("signals")) == ([], [], [])
    status = live.owner_get("/status")
    assert (status["trades_today"], status["open_trades"]) == (0, 0)
    assert live.post(symbol="BTCUSDT", side="buy", quantity=0.0002, strategy="trend")["decision"] == "ACCEPTED"


def test_a_dry_run_judges_the_checks_after_the_first_refusal_too(paper: Daemon) -> None:
    reply = paper.post(DRY, symbol="BTCUSDT", side="buy", price=100, confidence=1, amount_usdt=50)
    assert (reply["decision"], reply["check"], reply["order"]) == ("REJECTED", "confidence", None)
    assert len(reply["checks"]) == len(CHECKS)
    assert [check["check"] for check in reply["checks"] if not check["passed"]] == ["confidence", "size"]
    assert reply["reason"] == next(check["reason"] for check in reply["checks"] if not check["passed"])


def test_the_price_of_a_dry_run_is_not_remembered(paper: Daemon) -> None:
    assert paper.post(DRY, **BUY)["decision"] == "ACCEPTED"
    reply = paper.post(symbol="BTCUSDT", side="buy")
    assert (reply["decision"], reply["check"]) == ("REJECTED", "price")


def test_a_dry_run_is_not_a_first_alert_nor_an_entry(daemon_with: Callable[..., Daemon]) -> None:
    daemon = daemon_with(cooldown_seconds=60, max_trades_per_day=1).start()
    for _ in range(3):
        assert daemon.post(DRY, **BUY)["decision"] == "ACCEPTED"
    assert daemon.post(**BUY)["decision"] == "ACCEPTED"
    refused = daemon.post(DRY, **BUY)
    codes = [check["check"] for check in refused["checks"] if not check["passed"]]
    assert codes == ["daily_limit", "cooldown"]


@pytest.mark.parametrize(
    ("query", "is_dry"),
    [("dry_run=true", True), ("dry_run=TRUE", True), ("dry_run=1", True), ("dry_run=yes", True), ("dry_run", True),
     ("dry_run=on", True), ("dry_run=false", False), ("dry_run=0", False), ("", False)],
)  # fmt: skip
def test_in_doubt_a_dry_run_is_dry(paper: Daemon, query: str, is_dry: bool) -> None:
    reply = paper.post(f"/webhook?{query}", **BUY)
    assert ("dry_run" in reply.body) is is_dry
    assert len(paper.trades()) == (0 if is_dry else 1)


@pytest.mark.parametrize(
    "name", ["dryrun", "dry-run", "DRY_RUN", "dryRun", "dry", "test", "is_test", "simulate", "preview"]
)
@pytest.mark.parametrize("path", ["/webhook", f"/webhook/{SECRET}"])
def test_what_looks_like_dry_run_and_is_not_places_nothing_and_is_put_right_by_name(
    paper: Daemon, path: str, name: str
) -> None:
    reply = paper.post(f"{path}?{name}=true", **BUY)
    assert (reply.status, reply["decision"], reply["field"]) == (400, "INVALID", name)
    assert reply["reason"] == f"{name}: saw '{name}', wanted dry_run, the one name that keeps an alert from trading"
    assert [row["Decision"] for row in paper.signals()] == ["INVALID"]
    assert paper.trades() == []
    assert paper.post(path, **BUY)["decision"] == "ACCEPTED", "without it, it is no repeat"


def test_what_senders_and_proxies_add_to_an_alerts_address_stops_nothing(paper: Daemon) -> None:
    assert paper.post("/webhook?utm_source=tv&id=7&testament=1&_=1790000000", **BUY)["decision"] == "ACCEPTED"
    assert paper.post("/webhook?dry_run=true&test=1", **BUY)["dry_run"] is True


# --- the formats of the systems that this one replaces ------------------------------------------------------------


def test_the_seven_formats_work_as_written(daemon_with: Callable[..., Daemon], exchange: FakeBinance) -> None:
    exchange.set_balance("ETH", "0.1")
    settings = binance(exchange, cooldown_seconds=0, max_risk_per_trade=1000)
    daemon = daemon_with(**settings).start()
    formats = [
        '{"secret":"…","symbol":"BTCUSDT","side":"BUY","confidence":75,"strategy":"trend","timeframe":"1h"}',
        '{"accion":"BUY","ticker":"BTC-USDT","balance":50,"broker":"BINGX"}',
        '{"action":"buy","symbol":"BTCUSDT","quantity":0.001,"price":45000,"strategy":"ALSAPRO 1",'
        '"time":"2024-01-01T12:00:00Z"}',
        '{"broker":"BINANCE","symbol":"BTCUSDT","side":"buy","quantity":0.001,"type":"MARKET"}',
        '{"broker":"BINANCE","symbol":"ETHUSDT","side":"sell","quantity":0.1,"type":"LIMIT","price":2500}',
        '{"broker":"BINANCE_REAL","symbol":"BTCUSDT","side":"buy","quantity":0.001,"type":"MARKET"}',
        '{"broker":"FLATTRADE","symbol":"CIPLA","side":"buy","quantity":10,"type":"MARKET"}',
    ]
    bodies = [json.loads(text) | {"secret": SECRET} for text in formats]
    replies = [daemon.post_raw(json.dumps(body).encode()) for body in bodies]
    said = [(reply.status, reply["success"], reply["decision"], reply["check"], reply["broker"]) for reply in replies]
    bought = (200, True, "ACCEPTED", None, "BINANCE")
    assert said == [
        bought,
        (200, False, "REJECTED", "broker", "BINGX"),
        bought,
        bought,
        bought,
        (200, False, "REJECTED", "broker", "BINANCE_REAL"),
        (200, False, "REJECTED", "broker", "FLATTRADE"),
    ]
    assert [reply["reason"] for reply in replies if not reply["success"]] == [
        f"Broker not configured: {name}; configured: PAPER, BINANCE" for name in ("BINGX", "BINANCE_REAL", "FLATTRADE")
    ]
    sent = [
        (call.params["symbol"], call.params["side"], call.params["type"], call.params.get("quantity"))
        for call in exchange.calls("POST /api/v3/order")
    ]
    assert sent == [
        ("BTCUSDT", "BUY", "MARKET", None),
        ("BTCUSDT", "BUY", "MARKET", "0.001"),
        ("BTCUSDT", "BUY", "MARKET", "0.001"),
        ("ETHUSDT", "SELL", "LIMIT", "0.1"),
    ]


# --- replies ------------------------------------------------------------------------------------------------------


def test_the_reply_to_an_accepted_alert(paper: Daemon) -> None:
    reply = paper.post(**BUY)
    assert reply.body.keys() == REPLY_KEYS
    assert (reply.status, reply["success"], reply["decision"], reply["check"]) == (200, True, "ACCEPTED", None)
    assert (reply["error"], reply["status"], reply["broker"]) == (None, "FILLED", "PAPER")
    assert (reply["quantity"], reply["price"]) == (0.1, 100)
    (trade,) = paper.trades()
    assert trade["SignalID"] == reply["signal_id"]
    assert trade["OrderID"] == reply["orderId"]
    assert trade["ClientOrderID"] == reply["client_order_id"]


def test_the_reply_to_a_rejected_alert(paper: Daemon) -> None:
    reply = paper.post(**BUY, confidence=49)
    assert reply.body.keys() == REPLY_KEYS
    assert (reply.status, reply["success"], reply["decision"], reply["check"]) == (200, False, "REJECTED", "confidence")
    assert reply["error"] == reply["reason"] == "Confidence below minimum: 49, minimum is 50"
    assert {reply[name] for name in ("orderId", "status", "client_order_id", "quantity", "price")} == {None}
    (row,) = paper.signals()
    assert (row["SignalID"], row["Reason"]) == (reply["signal_id"], reply["reason"])


def test_the_reply_to_a_repeated_alert_tells_the_first_ones_outcome(paper: Daemon) -> None:
    first = paper.post(**BUY)
    again = paper.post(**BUY)
    assert again.body.keys() == REPLY_KEYS | {"duplicate_of"}
    assert (again.status, again["success"], again["decision"], again["check"]) == (200, True, "DUPLICATE", "duplicate")
    assert again["duplicate_of"] == first["signal_id"] != again["signal_id"]
    assert {name: again[name] for name in ("orderId", "status", "quantity", "price")} == {
        name: first[name] for name in ("orderId", "status", "quantity", "price")
    }
    assert len(paper.trades()) == 1


def test_the_reply_to_a_repeated_alert_that_was_refused_says_why_it_was(paper: Daemon) -> None:
    first = paper.post(**BUY, confidence=49)
    again = paper.post(**BUY, confidence=49)
    assert (again["success"], again["decision"], again["orderId"]) == (False, "DUPLICATE", None)
    assert first["reason"] in again["reason"]
    assert again["error"] == again["reason"]


def test_the_reply_to_an_alert_that_cannot_be_understood(paper: Daemon) -> None:
    reply = paper.post(symbol="BTCUSDT", side="hodl")
    assert reply.body.keys() == REPLY_KEYS | {"field"}
    assert (reply.status, reply["success"], reply["decision"]) == (400, False, "INVALID")
    assert reply["field"] == reply["check"] == "side"
    assert reply["error"] == reply["reason"]
    assert reply["reason"].startswith("side: saw 'hodl', wanted one of buy, sell")


def test_what_the_exchange_refuses_is_accepted_without_success(live: Daemon, exchange: FakeBinance) -> None:
    exchange.fail_next("error", code=-2010, message="Account has insufficient balance for requested action.")
    reply = live.post(symbol="BTCUSDT", side="buy")
    assert (reply.status, reply["success"], reply["decision"], reply["status"]) == (200, False, "ACCEPTED", "REJECTED")
    assert "insufficient balance" in reply["error"]
    assert reply["orderId"] is None
    assert exchange.orders == []
    assert live.owner_get("/status")["trades_today"] == 0


# --- the alerts of the world --------------------------------------------------------------------------------------


def test_all_real_alerts_are_understood_as_meant_or_refused(paper: Daemon) -> None:
    assert len(CORPUS) == 87 + 144
    wrong = []
    for line in CORPUS:
        reply = with_bearer(paper, line["body"])
        if not _is_as_meant(reply, line["means"]):
            wrong.append((line["source"], line["means"], reply.status, reply.body))
    assert wrong == []
    refused = sum(line["means"] is None for line in CORPUS)
    assert [row["Decision"] for row in paper.signals()] == ["INVALID"] * refused
    assert paper.trades() == []


def _is_as_meant(reply: Reply, means: dict[str, Any] | None) -> bool:
    if means is None:
        return reply.status == 400 and reply["decision"] == "INVALID"
    if reply.status != 200 or not reply["dry_run"]:
        return False
    signal = reply["signal"]
    sizes = [Decimal(str(signal[name])) for name in ("quantity", "amount", "percent") if signal[name] is not None]
    size = [Decimal(str(means["quantity"]))] if "quantity" in means else []
    return (signal["action"], signal["symbol"], sizes) == (means["side"].upper(), means["symbol"], size)


NOT_YET: list[tuple[dict[str, Any], str, str]] = [
    (BUY | {"tp1": 110, "tp2": 120}, "protection", "more than one take-profit"),
    (BUY | {"leverage": 10}, "leverage", "leverage 10; spot has none"),
    ({"symbol": "BTCUSDT", "action": "cancel"}, "cancel", "an alert that cancels orders"),
    (BUY | {"type": "stop", "stop_price": 110}, "type", "order type STOP"),
    (BUY | {"type": "limit", "time_in_force": "DAY"}, "time_in_force", "time in force DAY"),
]


@pytest.mark.parametrize(("alert", "check", "what"), NOT_YET)
def test_what_is_not_built_yet_is_refused_by_name(door: Daemon, alert: dict[str, Any], check: str, what: str) -> None:
    trades = door.trades()
    reply = door.post(**alert)
    assert (reply.status, reply["decision"], reply["check"]) == (200, "REJECTED", check), reply.body
    assert reply["reason"].startswith(f"Not available in this version: {what}")
    assert door.trades() == trades


@pytest.mark.parametrize(
    "perpetual", [{"symbol": "BTCUSDT.P"}, {"symbol": "BINANCE:ETHUSDTPERP"}, {"market": "futures"}]
)
def test_a_perpetual_is_refused_where_only_spot_is_on(door: Daemon, perpetual: dict[str, Any]) -> None:
    trades = door.trades()
    reply = door.post(**BUY | perpetual)
    assert (reply.status, reply["decision"], reply["check"]) == (200, "REJECTED", "market")
    symbol = "ETHUSDT" if "symbol" in perpetual and "ETH" in perpetual["symbol"] else "BTCUSDT"
    wanted = f"this alert for {symbol} means futures, which is off at PAPER; see BINANCE_MARKET"
    assert reply["reason"] == f"Market not available: {wanted}"
    assert door.trades() == trades


# --- looking ------------------------------------------------------------------------------------------------------


def test_health_says_ok_and_no_more(door: Daemon) -> None:
    reply = door.get("/health")
    assert (reply.status, reply.body) == (200, {"status": "ok"})


def test_status_tells_strangers_counts_and_limits_and_the_owner_everything(paper: Daemon) -> None:
    paper.post(**BUY)
    thin, full = paper.get("/status"), paper.get("/status", secret=SECRET)
    counts = {"trades_today", "max_trades_per_day", "open_trades", "max_open_trades", "realized_pnl_today",
              "max_daily_loss_usdt"}  # fmt: skip
    assert thin.body.keys() == {"status", "mode", "default_broker", "uptime_seconds", "paused"} | counts
    assert (thin["status"], thin["mode"], thin["paused"]) == ("ok", "PAPER", False)
    assert (thin["trades_today"], thin["open_trades"], thin["max_trades_per_day"]) == (1, 1, 10)
    assert full.body.keys() > thin.body.keys() | {"balances", "positions", "unresolved_orders", "csv_lag", "drift"}
    assert full["balances"]["PAPER"]["USDT"]["free"] == 90
    assert full["limits"]["max_risk_per_trade"] == 10
    assert full["latencies_ms"]["orders"] == 1
    wrong = paper.get("/status", secret="wrong")
    assert (wrong.status, wrong.body.keys()) == (200, thin.body.keys())


def test_positions_and_account_tell_what_is_held_and_what_it_is_worth(paper: Daemon) -> None:
    paper.post(**BUY)
    paper.post(symbol="BTCUSDT", side="buy", price=110, quantity="0.000001")  # too small; the price is seen
    (position,) = paper.owner_get("/positions")["positions"]
    assert (position["symbol"], position["quantity"]) == ("BTCUSDT", 0.0999)
    assert (position["cost"], position["price"]) == (10, 110)
    assert position["unrealized_pnl"] == pytest.approx(0.989)
    assert paper.owner_get("/positions?symbol=ETHUSDT")["positions"] == []
    (account,) = paper.owner_get("/account/summary")["accounts"]
    assert (account["broker"], account["mode"], account["cash_usdt"]) == ("PAPER", "PAPER", 90)
    assert account["equity_usdt"] == pytest.approx(90 + 0.0999 * 110)


@pytest.mark.parametrize(
    ("method", "path", "there_are"),
    [("GET", "/executions?limt=5", "there are limit, symbol, strategy, since"),
     ("GET", "/executions?limit=5&limt=5", "there are limit, symbol, strategy, since"),
     ("GET", "/performance?limt=5", "there are symbol, strategy, since, until, broker"),
     ("GET", "/positions?limt=BTCUSDT", "there are symbol"), ("POST", "/close-all?limt=BTCUSDT", "none is taken here")],
)  # fmt: skip
def test_a_parameter_that_nobody_reads_is_refused_by_name(
    paper: Daemon, method: str, path: str, there_are: str
) -> None:
    paper.post(**BUY)
    reply = paper.request(method, path, Authorization=f"Bearer {SECRET}")
    assert (reply.status, reply["error"]) == (400, f"'limt': no such parameter; {there_are}")
    assert paper.request(method, path).status == 401, "a stranger learns no names"
    assert len(paper.owner_get("/positions")["positions"]) == 1, "nothing was closed"


def test_symbols_and_brokers_are_asked_for_in_small_letters_too(paper: Daemon) -> None:
    paper.post(**BUY)
    assert len(paper.owner_get("/executions?symbol=btcusdt")["executions"]) == 1
    assert len(paper.owner_get("/positions?symbol=btcusdt")["positions"]) == 1
    found = paper.owner_get("/performance?symbol=btcusdt&broker=paper")
    assert (found["brokers"], found["orders"]) == (["PAPER"], 1)


def test_executions_are_the_newest_first_and_can_be_chosen(paper: Daemon) -> None:
    paper.post(symbol="BTCUSDT", side="buy", price=100, strategy="trend")
    paper.post(symbol="ETHUSDT", side="buy", price=10, strategy="swing")
    between = datetime.now(UTC)
    paper.post(symbol="BTCUSDT", side="sell", price=101, strategy="trend")

    def chosen(query: str) -> list[tuple[str, str]]:
        found = paper.owner_get(f"/executions?{query}")["executions"]
        return [(execution["symbol"], execution["side"]) for execution in found]

    assert chosen("") == [("BTCUSDT", "SELL"), ("ETHUSDT", "BUY"), ("BTCUSDT", "BUY")]
    assert chosen("limit=1") == [("BTCUSDT", "SELL")]
    assert chosen("symbol=ETHUSDT") == [("ETHUSDT", "BUY")]
    assert chosen("strategy=trend") == [("BTCUSDT", "SELL"), ("BTCUSDT", "BUY")]
    assert chosen("strategy=trend&symbol=ETHUSDT") == []
    assert chosen("strategy=trend&limit=1") == [("BTCUSDT", "SELL")]
    for since in (between.isoformat(), quote(between.isoformat()), between.strftime("%Y-%m-%dT%H:%M:%S.%fZ")):
        assert chosen(f"since={since}") == [("BTCUSDT", "SELL")]
    elsewhere = between.replace(tzinfo=None) + timedelta(hours=5, minutes=30)
    assert chosen(f"since={quote(elsewhere.isoformat() + '+05:30')}") == [("BTCUSDT", "SELL")]
    assert len(chosen("since=2020-01-01")) == 3


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit=", "limit=1.5", "limit=%C2%B2",
     "limit=00000000199999999999999999999999", "limit=" + "9" * 5_000,
     "since=yesterday", "since=", "since=0001-01-01T00:00:00%2B14:00",
     "since=9999-12-31T23:59:59-14:00", "since=2026-02-30"],
)  # fmt: skip
def test_a_filter_that_makes_no_sense_is_a_400(door: Daemon, query: str) -> None:
    reply = door.get(f"/executions?{query}", secret=SECRET)
    assert reply.status == 400
    assert reply["error"].startswith(query.split("=")[0] + " must be ")


OWNERS = [
    ("GET", "/executions"), ("GET", "/positions"), ("GET", "/account/summary"), ("GET", "/logs/signals.csv"),
    ("GET", "/logs/trades.csv"), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/close-all"),
    ("POST", "/orders/outcome"), ("GET", "/preferences/current"), ("POST", "/preferences/limits"),
    ("POST", "/preferences/reset"),
    ("POST", "/preferences/nothing"), ("GET", "/performance"), ("GET", "/logs/signals.xlsx"),
    ("GET", "/logs/trades.xlsx"), ("GET", "/logs/signals.csv?symbol=X"),
]  # fmt: skip


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", f"Basic {SECRET}"])
def test_what_is_the_owners_needs_the_secret(daemon_with: Callable[..., Daemon], authorization: str | None) -> None:
    paper = daemon_with(cooldown_seconds=0, trusted_proxy_hops=1).start()
    paper.post(**BUY)
    headers: dict[str, Any] = {"Authorization": authorization} if authorization else {}
    for number, (method, path) in enumerate(OWNERS):
        headers["X-Forwarded-For"] = f"10.0.0.{number}"  # each from elsewhere: who guesses often is slowed
        reply = paper.request(method, path, b"" if method == "POST" else None, **headers)
        assert (reply.status, reply.body) == (401, {"success": False, "error": "unauthorised: send the webhook secret"})
    status = paper.owner_get("/status")
    assert (status["paused"], status["open_trades"]) == (False, 1)


# --- the hand on the switch ---------------------------------------------------------------------------------------


def test_paused_refuses_entries_lets_exits_pass_and_survives_a_restart(paper: Daemon) -> None:
    paper.post(**BUY)
    assert paper.owner_post("/pause").body == {"paused": True}
    assert paper.get("/status")["paused"] is True
    refused = paper.post(symbol="ETHUSDT", side="buy", price=10)
    assert (refused["decision"], refused["check"]) == ("REJECTED", "paused")
    assert refused["reason"].startswith("Trading is paused")
    paper.restart()
    assert paper.post(symbol="ETHUSDT", side="buy", price=11)["check"] == "paused"
    assert paper.post(symbol="BTCUSDT", side="sell", price=101)["status"] == "FILLED"
    assert paper.owner_post("/resume").body == {"paused": False}
    assert paper.post(symbol="ETHUSDT", side="buy", price=12)["decision"] == "ACCEPTED"


def test_the_switch_takes_the_secret_in_the_body_too(paper: Daemon) -> None:
    body = json.dumps({"secret": SECRET}).encode()
    assert paper.request("POST", "/pause", body).body == {"paused": True}
    assert paper.request("POST", "/resume", json.dumps({"secret": "wrong"}).encode()).status == 401
    assert paper.get("/status")["paused"] is True


def test_close_all_sells_what_is_held_paused_or_not(paper: Daemon) -> None:
    paper.post(**BUY)
    paper.post(symbol="ETHUSDT", side="buy", price=10)
    paper.owner_post("/pause")
    reply = paper.owner_post("/close-all")
    assert (reply.status, reply["closed"]) == (200, 2)
    assert [(result["decision"], result["status"]) for result in reply["results"]] == [("ACCEPTED", "FILLED")] * 2
    assert paper.owner_get("/positions")["positions"] == []
    assert [row["Strategy"] for row in paper.signals()[2:]] == ["close-all"] * 2
    assert paper.owner_post("/close-all").body == {"closed": 0, "results": []}


def test_close_all_is_not_stopped_by_the_owners_limits_for_strategies(daemon_with: Callable[..., Daemon]) -> None:
    settings: dict[str, Any] = {"allowed_strategies": "trend", "min_confidence": 90, "default_confidence": 80}
    daemon = daemon_with(**settings).start()
    assert daemon.post(**BUY, strategy="trend", confidence=95)["status"] == "FILLED"
    (result,) = daemon.owner_post("/close-all")["results"]
    assert (result["decision"], result["status"]) == ("ACCEPTED", "FILLED")


def test_the_csv_files_can_be_fetched_as_they_are(paper: Daemon) -> None:
    paper.post(**BUY)
    for name, first in (("signals", b"DateTime,TradingPair,Action"), ("trades", b"DateTime,TradingPair,Action")):
        reply = paper.get(f"/logs/{name}.csv", secret=SECRET)
        assert (reply.status, reply.headers["content-type"]) == (200, "text/csv; charset=utf-8")
        assert reply.headers["content-disposition"] == f'attachment; filename="{name}.csv"'
        assert reply["raw"] == (paper.folder / "logs" / f"{name}.csv").read_bytes()
        assert reply["raw"].startswith(b"\xef\xbb\xbf" + first)
        assert b"BTCUSDT" in reply["raw"]


# --- everything else is closed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/nothing", "/docs", "/redoc", "/openapi.json", "/logs/journal.db", "/logs/../logs/webhook_secret", "//"]
)
def test_what_is_not_there_is_a_404_in_json(door: Daemon, path: str) -> None:
    reply = door.get(path, secret=SECRET)
    assert (reply.status, reply.body) == (404, {"success": False, "error": "Not Found"})


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/webhook"), ("PUT", "/webhook"), ("OPTIONS", "/webhook"), ("GET", "/pause"), ("GET", "/close-all"),
     ("POST", "/status"), ("DELETE", "/executions")],
)  # fmt: skip
def test_the_wrong_method_is_a_405_in_json(door: Daemon, method: str, path: str) -> None:
    reply = door.request(method, path, Authorization=f"Bearer {SECRET}")
    assert (reply.status, reply.body) == (405, {"success": False, "error": "Method Not Allowed"})


def test_every_reply_keeps_browsers_from_guessing_framing_and_storing(paper: Daemon) -> None:
    wanted = {
        "cache-control": "no-store",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
    }
    replies = [
        paper.get("/health"), paper.get("/status"), paper.get("/status", secret=SECRET), paper.get("/nothing"),
        paper.get("/webhook"), paper.get("/executions"), paper.get("/executions?limit=0", secret=SECRET),
        paper.post(**BUY), paper.post(side="?"), paper.post(secret="wrong"),
        paper.get("/logs/trades.csv", secret=SECRET), paper.post_raw(padded(20_000)),
    ]  # fmt: skip
    assert [reply.status for reply in replies] == [200, 200, 200, 404, 405, 401, 400, 200, 400, 401, 200, 413]
    for reply in replies:
        assert {name: reply.headers[name] for name in wanted} == wanted
        assert "server" not in reply.headers


# --- secrets stay secret ------------------------------------------------------------------------------------------

CANARIES = {
    "WEBHOOK_SECRET_KEY": "canary-webhook-3f9a1c",
    "BINANCE_API_KEY": "canaryApiKey7d2e" + "k" * 48,
    "BINANCE_API_SECRET": "canaryApiSecret5b8f" + "s" * 45,
}


def test_no_secret_shows_in_logs_files_or_replies(daemon_with: Callable[..., Daemon]) -> None:
    secret = CANARIES["WEBHOOK_SECRET_KEY"]
    keys = CANARIES["BINANCE_API_KEY"], CANARIES["BINANCE_API_SECRET"]
    with FakeBinance(*keys, balances={"USDT": 1000}) as fake:
        daemon = daemon_with(**binance(fake, cooldown_seconds=0, max_open_trades=20, **CANARIES)).start()
        said = _everything_that_can_go_wrong(daemon, fake, secret)
        eventually(lambda: len(daemon.trades()) >= 6, 10, lambda: f"only {daemon.trades()}")
        daemon.terminate()
    shown = {f"reply {number}": reply for number, reply in enumerate(said)} | {"log": daemon.log().encode()}
    shown |= {path.name: path.read_bytes() for path in (daemon.folder / "logs").iterdir()}
    assert {"signals.csv", "trades.csv", "journal.db"} <= shown.keys()
    forms = [form.encode() for value in CANARIES.values() for form in (value, quote(value), value[:16])]
    assert {name for name, text in shown.items() if any(form in text for form in forms)} == set()
    assert {name for name, text in shown.items() if b"signature=" in text} == set()


def _everything_that_can_go_wrong(daemon: Daemon, fake: FakeBinance, secret: str) -> list[bytes]:
    buy: dict[str, object] = {"symbol": "BTCUSDT", "side": "buy"}
    bodies = [
        json.dumps(buy | {"secret": secret}),
        json.dumps(buy | {"secret": secret}),
        json.dumps(buy | {"secret": secret, "confidence": 1}),
        json.dumps({"secret": secret, "symbol": secret, "side": "buy"}),
        json.dumps({"secret": secret, "symbol": "BTCUSDT", "side": secret}),
        json.dumps({"secret": secret, "symbol": "BTCUSDT", "side": "buy", "confidence": f"x{secret}x"}),
        json.dumps({"secret": secret, secret: "x", "symbol": "BTCUSDT"}),
        json.dumps(buy | {"secret": secret}).replace("}", ",}"),
        f"symbol=BTCUSDT side=buy secret={secret} nonsense={secret}",
        f"{secret}",
        json.dumps(buy | {"secret": "wrong" + secret}),
    ]
    replies = [raw_reply(daemon, request_bytes("/webhook", body.encode())) for body in bodies]
    small = json.dumps(buy | {"quantity": 0.0001}).encode()
    replies.append(raw_reply(daemon, request_bytes(f"/webhook/{secret}", small)))
    replies.append(raw_reply(daemon, request_bytes(f"/webhook/{secret}", b"nonsense")))
    replies.append(raw_reply(daemon, request_bytes(f"/nothing/{secret}", b"nonsense")))
    header = f"Authorization: Bearer {secret}".encode()
    for number, kind in enumerate(("reset", "garbage", "half_body", "close")):
        fake.fail_next(kind, executed=True)
        fake.fail_next("reset", where="GET /api/v3/order")
        alert = json.dumps(buy | {"amount_usdt": 6 + number}).encode()
        replies.append(raw_reply(daemon, request_bytes("/webhook", alert, header)))
        daemon_is_settled(daemon, secret)
    fake.fail_next("error", where="GET /api/v3/account", code=-2015)
    get = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + header + b"\r\n\r\n"
    paths = (b"/status", b"/executions", b"/positions", b"/account/summary", b"/logs/signals.csv", b"/health")
    return replies + [raw_reply(daemon, get % path) for path in paths]


def daemon_is_settled(daemon: Daemon, secret: str) -> None:
    eventually(lambda: not daemon.get("/status", secret=secret)["unresolved_orders"], 10, lambda: "unresolved")
