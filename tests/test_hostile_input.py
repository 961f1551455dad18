"""What strangers and broken senders can do to the real daemon over HTTP: it stays small, quick, and healthy.

No 5xx, no order, one row in signals.csv for each alert that carried the secret and none for others.
`GATEHOUSE_EXAMPLES=2000 make test ARGS="-k hostile"` tries many more.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from harness import SECRET, Daemon, Nursery, assert_csvs_equal_journal, eventually
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from outcomes import Word
from preferences import TARGETS

EXAMPLES = int(os.environ.get("GATEHOUSE_EXAMPLES", "60"))
BUY: dict[str, Any] = {"symbol": "BTCUSDT", "side": "buy", "price": 100}
OWNER = f"Authorization: Bearer {SECRET}".encode()
MEGABYTES = 60
USUAL_FILES = 1024


@pytest.fixture(scope="module")
def target(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all, with as many files as a process may usually open; every test leaves it healthy."""
    daemon = Daemon(nursery, tmp_path_factory.mktemp("target"), cooldown_seconds=0, trusted_proxy_hops=1).start()
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (USUAL_FILES, USUAL_FILES))
    yield daemon
    assert daemon.is_healthy()
    assert "Traceback" not in daemon.log()
    assert_csvs_equal_journal(daemon)
    daemon.kill()


class Sender:
    """One connection that is kept, for many requests in a row."""

    def __init__(self, daemon: Daemon) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10)

    def __call__(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, Any]]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, body, named)
        response = self._connection.getresponse()
        content = response.read()
        is_json = "json" in response.headers.get("content-type", "")
        return response.status, json.loads(content) if is_json else {"raw": content}

    def alert(self, body: bytes) -> tuple[int, dict[str, Any]]:
        return self("POST", "/webhook", body, Authorization=f"Bearer {SECRET}")

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def sender(target: Daemon) -> Iterator[Sender]:
    sender = Sender(target)
    yield sender
    sender.close()


def received(daemon: Daemon, *parts: bytes, seconds: float = 6.0) -> bytes:
    """What comes back until the daemon closes; an end by force, in the middle of the sending too, is an end."""
    back = b""
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=seconds) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:
            pass
        try:
            while chunk := connection.recv(65536):
                back += chunk
        except ConnectionError:
            pass
    return back


def statuses(back: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", back)]


SENDERS = itertools.count()


def another_sender() -> bytes:
    """So that no wrong secret has to wait for its answer."""
    return b"X-Forwarded-For: 10.9.%d.%d" % divmod(next(SENDERS), 250)


def head(*lines: bytes, first: bytes = b"POST /webhook HTTP/1.1") -> bytes:
    return b"\r\n".join([first, b"Host: x", another_sender(), *lines, b"", b""])


def whole(body: bytes, *lines: bytes, path: bytes = b"/webhook") -> bytes:
    return head(b"Content-Length: %d" % len(body), *lines, first=b"POST %s HTTP/1.1" % path) + body


def alert(**fields: object) -> bytes:
    return json.dumps({"secret": SECRET, **BUY, **fields}).encode()


def ids(daemon: Daemon) -> list[str]:
    return [row["SignalID"] for row in daemon.signals()]


def memory_kb(daemon: Daemon, name: str = "VmRSS") -> int:
    with open(f"/proc/{daemon.pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name + ":"))


@contextmanager
def quick_meanwhile(daemon: Daemon, most_seconds: float = 1.0) -> Iterator[None]:
    """An honest alert and a look at the daemon's health are answered in time, over and over."""
    done = threading.Event()
    waits: list[float] = []
    wrong: list[object] = []

    def ask() -> None:
        for number in itertools.count():
            try:
                for reply in (daemon.post(**BUY | {"side": "sell"}, comment=f"{number}"), daemon.get("/health")):
                    waits.append(reply.seconds)
                    wrong.extend([] if reply.status == 200 else [(reply.status, reply.body)])
            except OSError as exc:
                wrong.append(exc)
            if number and done.wait(0.02):
                return

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        done.set()
        asking.join()
    assert wrong == []
    assert len(waits) >= 4
    assert max(waits) < most_seconds


# --- bodies -----------------------------------------------------------------------------------------------------------

WRONG_TYPES = [
    "[]",
    "{}",
    "[1]",
    '{"a":1}',
    "true",
    '"\\u0000"',
    '"\\ud800"',
    "NaN",
    "-Infinity",
    "1e999",
    "9" * 5_000,
    '"-"',
]
READ_FIELDS = [
    "symbol",
    "side",
    "quantity",
    "price",
    "confidence",
    "type",
    "leverage",
    "timenow",
    "market_position",
    "stop_loss",
]
HOSTILE: dict[str, bytes] = {
    f"{name} = {value[:12]}": b'{"symbol":"BTCUSDT","side":"buy","price":100,"%s":%s}' % (name.encode(), value.encode())
    for name in READ_FIELDS
    for value in WRONG_TYPES
    if name not in ("symbol", "side", "price") and (name, value) != ("stop_loss", "{}")  # an empty one is none
} | {
    f"{name} = {value[:12]}": (
        json.dumps({key: text for key, text in BUY.items() if key != name}).encode()[:-1]
        + b', "%s": %s}' % (name.encode(), value.encode())
    )
    for name in ("symbol", "side", "price")
    for value in WRONG_TYPES
} | {
    "minus zero": b'{"symbol":"BTCUSDT","side":"buy","quantity":-0}',
    "minus zero and a bit": b'{"symbol":"BTCUSDT","side":"buy","quantity":-0.0e0}',
    "the secret twice": b'{"secret":"%s","secret":"%s","symbol":"BTCUSDT","side":"buy"}' % ((SECRET.encode(),) * 2),
    "a right and a wrong secret": b'{"secret":"%s","secret":"x","symbol":"BTCUSDT","side":"buy"}' % SECRET.encode(),
    "an escaped name twice": b'{"symbol":"BTCUSDT","side":"buy","s\\u0069de":"sell"}',
    "5,000 deep, closed": b'{"symbol":"BTCUSDT","side":"buy","a":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "5,000 deep, open": b"[" * 5_000,
    "5,000 deep, behind a string": b'{"a":"\\"[","b":' + b'{"c":' * 2_500 + b"1" + b"}" * 2_500 + b"}",
    "5,000 minus signs": b'{"symbol":"BTCUSDT","side":"buy","quantity":' + b"-" * 5_000 + b"1}",
    "NUL between": b'{"symbol":"BTC\0USDT","side":"buy"}',
    "NUL alone": b"\0",
    "control characters": b'{"symbol":"BTCUSDT","side":"buy","strategy":"\x01\x1b[2J\x7f"}',
    "raw line ends in a string": b'{"symbol":"BTCUSDT","side":"buy","strategy":"a\r\nb"}',
    "UTF-16": json.dumps(BUY).encode("utf-16"),
    "overlong UTF-8": b'{"symbol":"BTCUSDT","side":"buy","strategy":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"symbol":"BTCUSDT","side":"buy","strategy":"\xed\xa0\x80"}',
    "two marks of order": b"\xef\xbb\xbf\xef\xbb\xbf" + json.dumps(BUY).encode(),
    "two documents": json.dumps(BUY).encode() * 2,
    "a list of alerts": json.dumps([BUY, BUY]).encode(),
    "a string that holds one": json.dumps(json.dumps(BUY)).encode(),
    "Python's own": repr(BUY).encode(),
    "a form": b"symbol=BTCUSDT&side=buy&symbol=ETHUSDT",
    "blanks": b" " * 16_000,
    "commas": b"," * 16_000,
    "equal signs": b"a=" * 8_000,
    "quotes": b'"' * 16_000,
    "backslashes": b'{"symbol":"' + b"\\" * 16_000,
}  # fmt: skip


def test_hostile_bodies_with_the_secret_are_a_400_that_names_a_field_and_one_row_each(
    target: Daemon, sender: Sender
) -> None:
    before, trades = ids(target), target.trades()
    answers = {name: sender.alert(body) for name, body in HOSTILE.items()}
    unexpected = {
        name: (status, reply.get("reason", reply))
        for name, (status, reply) in answers.items()
        if (status, reply.get("decision")) != (400, "INVALID") or not reply["field"]
    }
    assert unexpected == {}
    assert ids(target)[len(before) :] == [reply["signal_id"] for _, reply in answers.values()]
    assert target.trades() == trades


def test_hostile_bodies_without_the_secret_are_all_the_same_401_and_leave_no_row(
    target: Daemon, sender: Sender
) -> None:
    before = ids(target)
    strangers = [body.replace(SECRET.encode(), b"guess") for body in list(HOSTILE.values())[::14]]
    answers = [sender("POST", "/webhook", body, X_Forwarded_For=f"10.8.0.{n}") for n, body in enumerate(strangers)]
    assert [answer for answer in answers if answer != (401, answers[0][1])] == []
    assert ids(target) == before


SCALARS: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["NaN", "-0", "buy", "BTCUSDT", "{{close}}", "=1+1", "\0", "\ud800", "1e999", "٣", SECRET])
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [*READ_FIELDS, "secret", "action", "amount", "strategy", "comment", "time_in_force", "reverse"]
) | st.text(max_size=6)
DOCUMENTS = st.dictionaries(NAMES, JSON, max_size=8).map(lambda fields: json.dumps(BUY | fields).encode())


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    body = bytearray(draw(DOCUMENTS))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(body)))
        body[start : start + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(body)


def test_whatever_bytes_come_with_the_secret_are_answered_and_on_the_record_once(
    target: Daemon, sender: Sender
) -> None:
    """Paused, as some of them are good alerts."""
    assert target.owner_post("/pause").status == 200
    before, trades, told = ids(target), target.trades(), []

    @given(DOCUMENTS | damaged() | st.binary(max_size=300))
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    def send(body: bytes) -> None:
        status, reply = sender.alert(body)
        assert status in (200, 400), (status, reply)
        assert (reply["decision"] == "INVALID") == (status == 400)
        assert SECRET not in json.dumps(reply)
        told.append(reply["signal_id"])

    send()
    assert target.owner_post("/resume").status == 200
    assert ids(target)[len(before) :] == told
    assert target.trades() == trades


# --- requests that are none -------------------------------------------------------------------------------------------

CHUNKED = b"Transfer-Encoding: chunked"
CLOSE = b"Connection: close"
GOOD = alert(side="sell")
# Each with the statuses that may come back, at most one of them a 200, and the rows that are left.
RAW: dict[str, tuple[bytes, list[int], int]] = {
    "both lengths": (
        head(CHUNKED, b"Content-Length: %d" % len(GOOD)) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD), [400], 0
    ),
    "two different lengths": (head(b"Content-Length: 1", b"Content-Length: %d" % len(GOOD)) + GOOD, [400], 0),
    "a negative length": (head(b"Content-Length: -1") + GOOD, [400], 0),
    "a length with a sign": (head(b"Content-Length: +5") + GOOD, [400], 0),
    "a length that is no number": (head(b"Content-Length: 0x10") + GOOD, [400], 0),
    "a length beyond 64 bits": (head(b"Content-Length: " + b"9" * 30) + GOOD, [400], 0),
    "a coding nobody knows": (head(b"Transfer-Encoding: gzip") + GOOD, [400], 0),
    "chunked and something": (head(b"Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n", [400], 0),
    "a chunk that is no number": (head(CHUNKED) + b"zz\r\nab\r\n", [400], 0),
    "a negative chunk": (head(CHUNKED) + b"-1\r\nab\r\n", [400], 0),
    "a folded header": (head(b"A: b\r\n c", CLOSE, b"Content-Length: 0"), [400], 0),
    "a blank before the colon": (head(b"Content-Length : 5") + b"hello", [400], 0),
    "NUL in a header": (head(b"A: \0"), [400], 0),
    "no version": (b"POST /webhook\r\n\r\n", [400, 401], 0),
    "a version of its own": (head(first=b"POST /webhook HTTP/9.9"), [400], 0),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), [400], 0),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", [400], 0),
    "HTTP/2 at once": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400], 0),
    "a head of 33 KB": (head(b"A: " + b"a" * 33_000, CLOSE), [400], 0),
    "a head of many lines": (head(*[b"A%d: b" % number for number in range(9_000)], CLOSE), [400], 0),
    "a path of 40 KB": (head(CLOSE, first=b"GET /" + b"a" * 40_000 + b" HTTP/1.1") + b" " * 40_000, [400], 0),
    "a head that never ends": (b"POST /webhook HTTP/1.1\r\n" + b"A: b\r\n" * 300_000, [400], 0),
    "an upgrade": (whole(GOOD, CLOSE + b", Upgrade", b"Upgrade: websocket"), [401, 200], 0),
    "100-continue": (whole(alert(side="sell", comment="100"), CLOSE, b"Expect: 100-continue"), [100, 200], 1),
    "another expectation": (whole(alert(side="sell", comment="exp"), CLOSE, b"Expect: 418-teapot"), [200], 1),
    "HTTP/1.0": (b"POST /webhook HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD), [200], 1),
    "too long a body": (whole(b" " * 20_000, CLOSE, OWNER), [413], 0),
}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_what_is_no_proper_request_is_refused_and_no_alert_hides_in_it(target: Daemon, name: str) -> None:
    request, allowed, rows = RAW[name]
    before = ids(target)
    back = received(target, request)
    assert set(statuses(back)) <= set(allowed), back
    assert len(ids(target)) == len(before) + rows
    if statuses(back) == [400]:
        assert b"x-content-type-options: nosniff" in back.lower()
        assert json.loads(back.split(b"\r\n\r\n", 1)[1])["success"] is False


def test_an_alert_with_garbage_behind_it_is_taken_or_not_but_never_called_both(target: Daemon) -> None:
    before = ids(target)
    back = received(target, whole(alert(side="sell", comment="garbage")) + b"\0\xff garbage\r\n\r\n")
    assert statuses(back) in ([400], [200, 400])
    assert target.post(**BUY | {"side": "sell"}, comment="the next one").status == 200
    assert len(ids(target)) - len(before) in (1, 2)


def test_who_has_said_all_and_closes_his_half_reads_what_became_of_his_alert(target: Daemon) -> None:
    with socket.create_connection(("127.0.0.1", target.port), timeout=5) as connection:
        connection.sendall(whole(alert(side="sell", comment="half closed")))
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as file:
            assert statuses(file.read()) == [200]


def test_requests_in_one_piece_are_answered_in_their_order_each_with_its_row(target: Daemon) -> None:
    before = ids(target)
    requests = [whole(alert(side="sell", comment=f"piped {number}")) for number in range(30)]
    back = received(target, b"".join(requests[:-1]) + whole(alert(side="sell", comment="last"), CLOSE))
    assert statuses(back) == [200] * 30
    assert re.findall(rb'"signal_id":\s*"([^"]+)"', back) == [new.encode() for new in ids(target)[len(before) :]]


def test_an_alert_that_stands_in_anothers_body_is_not_taken_for_one(target: Daemon) -> None:
    before = ids(target)
    hidden = whole(json.dumps(BUY).encode(), CLOSE, OWNER)
    assert statuses(received(target, whole(hidden, CLOSE))) == [401]
    short = whole(b"", b"Content-Length: 5", CLOSE).replace(b"Content-Length: 0\r\n", b"") + b"hello" + hidden
    assert statuses(received(target, short)) == [401]
    assert ids(target) == before


METHODS = [
    b"GET",
    b"HEAD",
    b"PUT",
    b"DELETE",
    b"PATCH",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"PROPFIND",
    b"get",
    b"POSTX",
    b"\xff",
]
PATHS = [
    b"/webhook", b"/webhook/", b"/webhook//", b"/webhook/a/b", b"//webhook", b"/WEBHOOK", b"/webhook%00",
    b"/%2e%2e/webhook", b"/webhook;a", b"http://elsewhere/webhook", b"*", b"/\xff", b"/%ff%fe", b"/%",
    b"/webhook?%ff=%00&dry_run=%ff", b"//[::1", b"/\\", b"/logs/../journal.db", b"/logs/%2e%2e/journal.db",
    b"/logs/journal.db", b"/logs/webhook_secret", b"/logs//etc/passwd", b"/docs", b"/redoc", b"/openapi.json",
    b"/preferences/..%2f..", b"/" + b"a/" * 5_000,
]  # fmt: skip


def test_odd_methods_and_paths_are_4xx_in_json_with_safe_headers(target: Daemon) -> None:
    before = ids(target)
    wrong = []
    for method, path in itertools.product([*METHODS, b"POST"], PATHS):
        back = received(
            target, head(CLOSE, OWNER, b"Content-Length: 2", first=b"%s %s HTTP/1.1" % (method, path)) + b"{}"
        )
        text, _, body = back.partition(b"\r\n\r\n")
        fine = statuses(back) in ([400], [401], [404], [405]) and b"x-frame-options: deny" in text.lower()
        if not fine or not (method == b"HEAD" or json.loads(body)["error"]):
            wrong.append((method, path, back[:80]))
    assert wrong == []
    assert all(row["Decision"] == "INVALID" for row in target.signals()[len(before) :])


# --- the owner's routes -----------------------------------------------------------------------------------------------

ROUTES = [
    ("GET", "/health"), ("GET", "/status"), ("GET", "/executions"), ("GET", "/positions"), ("GET", "/account/summary"),
    ("GET", "/performance"),
    ("GET", "/preferences/current"), ("GET", "/logs/signals.csv"), ("GET", "/logs/trades.csv"), ("POST", "/pause"),
    ("POST", "/resume"), ("POST", "/close-all"), ("POST", "/preferences/reset"), ("POST", "/orders/outcome"),
    *(("POST", f"/preferences/{name}") for name in (*TARGETS, "nothing", "", "%00", "a/b", "CURRENT")),
]  # fmt: skip
HOSTILE_TEXTS = st.text(max_size=20) | st.sampled_from(
    [
        "-1",
        "0",
        "1e9",
        "NaN",
        "9" * 5_000,
        "\0",
        "' OR 1=1 --",
        "%",
        "{{x}}",
        "2026-02-30",
        "0001-01-01T00:00:00+14:00",
        "²",
    ]
)
QUERIES = st.lists(
    st.tuples(st.sampled_from(["limit", "since", "symbol", "strategy", "dry_run", "x"]), HOSTILE_TEXTS), max_size=3
).map(lambda pairs: "&".join(f"{name}={quote(value.encode('utf-8', 'surrogatepass'))}" for name, value in pairs))
WORD = [field.name for field in fields(Word)]
CHANGES = st.dictionaries(st.sampled_from([*TARGETS, *WORD, "value", "secret"]) | st.text(max_size=5), JSON, max_size=4)
BODIES = CHANGES.map(lambda fields: json.dumps(fields).encode()) | JSON.map(lambda value: json.dumps(value).encode())


def test_every_route_answers_whatever_is_asked_and_says_what_is_wrong(
    nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """There is no OpenAPI document to test against, on purpose: these are the routes, with methods, queries, bodies."""
    daemon = Daemon(nursery, tmp_path_factory.mktemp("asked"), cooldown_seconds=0).start()
    sender = Sender(daemon)
    seen: set[int] = set()

    @given(st.sampled_from(ROUTES), QUERIES, BODIES | st.binary(max_size=100), st.sampled_from([None, "GET", "PATCH"]))
    # One for each answer that is to be seen, whatever else is drawn.
    @example(("GET", "/status"), "", b"", None)
    @example(("GET", "/executions"), "limit=x", b"", None)
    @example(("POST", "/preferences/nothing"), "", b"{}", None)
    @example(("GET", "/health"), "", b"", "PATCH")
    @settings(max_examples=2 * EXAMPLES, deadline=None, database=None)
    def ask(route: tuple[str, str], query: str, body: bytes, method: str | None) -> None:
        path = f"{route[1]}?{query}" if query else route[1]
        status, reply = sender(method or route[0], path, body, Authorization=f"Bearer {SECRET}")
        seen.add(status)
        assert status in (200, 400, 404, 405), (route, query, body, reply)
        assert SECRET not in json.dumps(reply, default=repr)
        if status == 400:
            error = reply["error"]
            assert error.isprintable()
            others = ["limit", "since", "no such parameter", *WORD, "must be a JSON object"]
            named = [reply["field"]] if "field" in reply else others
            assert any(name.lower() in error.lower() for name in named), reply

    try:
        ask()
        assert seen == {200, 400, 404, 405}
        assert daemon.post(**BUY).status == 200
        assert "Traceback" not in daemon.log()
    finally:
        sender.close()
        daemon.kill()


BAD_REQUESTS: list[tuple[str, str, bytes, str]] = [
    ("GET", "/executions?limit=-0", b"", "limit"),
    ("GET", "/executions?limit=1&limit=x", b"", "limit"),
    ("GET", "/executions?limit=%00", b"", "limit"),
    ("GET", "/executions?limit=NaN", b"", "limit"),
    ("GET", "/executions?since=%ed%a0%80", b"", "since"),
    ("GET", "/executions?since=" + "9" * 4_000, b"", "since"),
    ("POST", "/preferences/max_open_trades", b'{"value": NaN}', "value"),
    ("POST", "/preferences/max_open_trades", b'{"value": 1e999}', "max_open_trades"),
    ("POST", "/preferences/max_open_trades", b'{"value": -0}', "max_open_trades"),
    ("POST", "/preferences/max_open_trades", b'{"value": %s}' % (b"9" * 5_000), "max_open_trades"),
    ("POST", "/preferences/max_open_trades", b'{"value": 1, "value": 2}', "value"),
    ("POST", "/preferences/max_open_trades", b'{"value": 1, "max_open_trades": 2}', "max_open_trades"),
    ("POST", "/preferences/max_open_trades", b'{"value": true}', "max_open_trades"),
    ("POST", "/preferences/max_open_trades", b'{"value": [3]}', "max_open_trades"),
    ("POST", "/preferences/max_open_trades", b'{"value": {"value": 3}}', "max_open_trades"),
    ("POST", "/preferences/max_risk_per_trade", b'{"value": "\\ud800"}', "value"),
    ("POST", "/preferences/max_risk_per_trade", b'{"value": "1\\u0000"}', "value"),
    ("POST", "/preferences/max_risk_per_trade", b'{"value": "Infinity"}', "max_risk_per_trade"),
    ("POST", "/preferences/limits", b'{"value": 5}', "value"),
    ("POST", "/preferences/limits", b'{"min_confidence": 50, "no_such_limit": 5}', "no_such_limit"),
    ("POST", "/preferences/limits", b"[" * 5_000, "body"),
    ("POST", "/preferences/limits", b'{"a":' * 2_000 + b"1" + b"}" * 2_000, "body"),
    ("POST", "/preferences/allowed_symbols", b'{"value": ["BTC\\nUSDT"]}', "allowed_symbols"),
    ("POST", "/preferences/allowed_symbols", b'{"value": []}', "allowed_symbols"),
    ("POST", "/preferences/leverage", b"\xff\xfe", "body"),
    ("POST", "/preferences/leverage", b"", "body"),
    ("POST", "/orders/outcome", b'{"client_order_id": ["gh1"], "executed": 1}', "client_order_id"),
    ("POST", "/orders/outcome", b'{"client_order_id": "gh1", "executed": NaN}', "executed"),
    ("POST", "/orders/outcome", b'{"client_order_id": "gh1", "executed": 1, "price": 1e999}', "price"),
]


def test_a_bad_question_is_a_400_that_names_the_field(target: Daemon, sender: Sender) -> None:
    before = target.owner_get("/preferences/current")
    wrong = []
    for method, path, body, field in BAD_REQUESTS:
        status, reply = sender(method, path, body, Authorization=f"Bearer {SECRET}")
        if status != 400 or not reply["error"].lower().startswith(field) or reply.get("field", field) != field:
            wrong.append((path[:60], body[:40], status, reply))
    assert wrong == []
    assert target.owner_get("/preferences/current") == before


# --- too much ---------------------------------------------------------------------------------------------------------

PIECE = b"a" * 1_000_000
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "a body with its length": (head(b"Content-Length: 60000000"), PIECE),
    "a body that says it is short": (head(b"Content-Length: 10"), PIECE),
    "chunks": (head(CHUNKED), b"f4240\r\n" + PIECE + b"\r\n"),
    "small chunks": (head(CHUNKED), b"1\r\na\r\n" * 150_000),
    "a chunk's extension": (head(CHUNKED) + b"5;", PIECE),
    "one header": (b"POST /webhook HTTP/1.1\r\nA: ", PIECE),
    "one header's name": (b"POST /webhook HTTP/1.1\r\n", PIECE),
    "headers": (b"POST /webhook HTTP/1.1\r\n", b"A: b\r\n" * 150_000),
    "the path": (b"POST /", PIECE),
    "the query": (b"POST /webhook?", PIECE),
    "one trailer": (head(CHUNKED) + b"0\r\nA: ", PIECE),
    "trailers": (head(CHUNKED) + b"0\r\n", b"A: b\r\n" * 150_000),
    "a body for those who do not read": (head(b"Content-Length: 60000000", first=b"GET /health HTTP/1.1"), PIECE),
}


def test_sixty_megabytes_of_anything_are_cut_off_and_take_no_room(target: Daemon) -> None:
    before, memory = ids(target), memory_kb(target)
    taken: dict[str, int] = {}
    with quick_meanwhile(target):
        for name, (start, piece) in ENDLESS.items():
            back = received(target, start, *[piece] * MEGABYTES)
            assert all(200 <= status < 500 for status in statuses(back)), (name, back[:200])
            taken[name] = memory_kb(target) - memory
    assert {name: kb for name, kb in taken.items() if kb > 15_000} == {}
    assert all(row["TradingPair"] == "BTCUSDT" for row in target.signals()[len(before) :])


@contextmanager
def many_sockets(daemon: Daemon, count: int, start: bytes) -> Iterator[list[socket.socket]]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    opened = []
    try:
        for _ in range(count):
            opened.append(socket.create_connection(("127.0.0.1", daemon.port), timeout=5))
            opened[-1].sendall(start)
        yield opened
    finally:
        for one in opened:
            one.close()


def drip(sockets: list[socket.socket], byte: bytes, seconds: float) -> int:
    """Everyone sends a byte now and then. How many are still connected."""
    alive = set(range(len(sockets)))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for number in list(alive):
            try:
                sockets[number].send(byte)
            except OSError:
                alive.discard(number)
        time.sleep(0.1)
    return len(alive)


@pytest.mark.parametrize(
    ("start", "byte"),
    [(b"POST /webhook HTTP/1.1\r\nHost: x\r\nA: ", b"a"), (head(b"Content-Length: 9999"), b" "), (b"\r\n", b"\r\n")],
    ids=["heads", "bodies", "nothing yet"],
)
def test_more_sockets_than_there_are_files_that_never_finish_keep_nobody_out(
    target: Daemon, start: bytes, byte: bytes
) -> None:
    memory = memory_kb(target)
    with quick_meanwhile(target), many_sockets(target, USUAL_FILES + 100, start) as sockets:
        drip(sockets, byte, 0.5)
        files = len(os.listdir(f"/proc/{target.pid}/fd"))
        taken = memory_kb(target) - memory
    assert files < 700
    assert taken < 30_000


def test_who_does_not_finish_within_five_seconds_gives_way_to_the_next(target: Daemon) -> None:
    with many_sockets(target, 3, b"POST /webhook HTTP/1.1\r\nA: ") as sockets:
        time.sleep(4.0)
        assert target.get("/health").status == 200
        assert drip(sockets, b"a", 0.1) == 3
        time.sleep(1.2)
        assert target.get("/health").status == 200
        eventually(lambda: drip(sockets, b"a", 0.1) == 0, 3, lambda: "still connected")


STYLES = head(first=b"GET /static/vendor/bootstrap/bootstrap.min.css HTTP/1.1")


def test_who_hangs_up_on_several_requests_is_nothing_to_talk_about(target: Daemon) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", target.port), timeout=5) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(STYLES * 3)
            time.sleep(0.003)
    assert target.get("/health").status == 200
    assert "Traceback" not in target.log()


SMALL_WINDOW = 2048


def test_who_takes_a_large_file_slowly_gets_all_of_it(nursery: Nursery, tmp_path: Path) -> None:
    """Others come meanwhile, and he takes longer than a request may take to be there."""
    daemon = Daemon(nursery, tmp_path, test_waits={"connections.WAIT_SECONDS": 0.2}).start()
    (tmp_path / "logs" / "signals.csv").write_bytes(b"x" * 20_000_000)
    try:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
            connection.settimeout(10)
            connection.connect(("127.0.0.1", daemon.port))
            connection.sendall(head(OWNER, first=b"GET /logs/signals.csv HTTP/1.1"))
            with connection.makefile("rb") as file:
                while (line := file.readline()) != b"\r\n":
                    assert line
                for _ in range(3):
                    time.sleep(0.3)
                    assert daemon.get("/health").status == 200
                assert len(file.read(20_000_000)) == 20_000_000
    finally:
        daemon.kill()


def lies_still(daemon: Daemon) -> socket.socket:
    """Asks for more than the system keeps for it, and takes nothing of it."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
    one.settimeout(10)
    one.connect(("127.0.0.1", daemon.port))
    one.sendall(STYLES * 20)
    return one


def is_answered(one: socket.socket) -> bool:
    try:
        return one.recv(1, socket.MSG_PEEK) == b"H"
    except ConnectionError:
        return False


def test_senders_that_take_no_replies_leave_the_places_to_others(nursery: Nursery, tmp_path: Path) -> None:
    daemon = Daemon(nursery, tmp_path, cooldown_seconds=0, test_waits={"connections.MAX_UNREAD": 3}).start()

    def files() -> int:
        return len(os.listdir(f"/proc/{daemon.pid}/fd"))

    before = files()
    sockets = [lies_still(daemon) for _ in range(20)]
    try:
        assert sum(map(is_answered, sockets)) >= 3
        eventually(lambda: files() <= before + 3, 10, lambda: f"{files()} files, {before} before")
        assert daemon.post(**BUY).status == 200
        assert "Traceback" not in daemon.log()
    finally:
        for one in sockets:
            one.close()
        daemon.kill()


def test_who_asks_for_style_sheets_over_and_over_opens_no_file(target: Daemon) -> None:
    """It took as many as a process may open, and each try beyond that was a traceback in the log."""
    sockets = [lies_still(target) for _ in range(5)]
    try:
        assert all(map(is_answered, sockets))
        opened = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{target.pid}/fd")]
        assert [path for path in opened if "static" in path] == []
    finally:
        for one in sockets:
            one.close()


# --- who it is --------------------------------------------------------------------------------------------------------

ALLOWED = "52.89.214.238"


@pytest.fixture(scope="module", params=[0, 1, 2])
def proxied(request: pytest.FixtureRequest, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("proxied")
    daemon = Daemon(nursery, folder, cooldown_seconds=0, allowed_ips=ALLOWED, trusted_proxy_hops=request.param).start()
    yield request.param, daemon
    daemon.kill()


def in_chunks(body: bytes, *trailers: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n" % (len(body), body) + b"".join(line + b"\r\n" for line in trailers) + b"\r\n"


def test_a_forged_sender_never_passes_the_list_of_addresses(proxied: tuple[int, Daemon]) -> None:
    """Each proxy adds the address that connected to it; the sender wrote all the rest, and has the secret even."""
    hops, daemon = proxied
    genuine = b"X-Forwarded-For: " + b", ".join([b"6.6.6.6", *[b"10.0.0.1"] * (hops - 1)]) if hops else b"A: b"
    allowed = ALLOWED.encode()
    forgeries: dict[str, bytes] = {
        "nothing": whole(GOOD, CLOSE, genuine),
        "in front": whole(GOOD, CLOSE, genuine.replace(b"6.6", allowed + b", 6.6")),
        "many in front": whole(GOOD, CLOSE, genuine.replace(b"6.6", (allowed + b", ") * 500 + b"6.6")),
        "a line before": whole(GOOD, CLOSE, b"X-Forwarded-For: " + allowed, genuine),
        "empty ones": whole(GOOD, CLOSE, b"X-Forwarded-For: " + allowed + b",,,", genuine),
        "other headers": whole(
            GOOD, CLOSE, genuine, b"X-Real-IP: " + allowed, b"Forwarded: for=" + allowed,
            b"CF-Connecting-IP: " + allowed, b"X-Client-IP: " + allowed, b"X_Forwarded_For: " + allowed,
        ),
        "a trailer": head(CLOSE, genuine, CHUNKED, b"Trailer: X-Forwarded-For")
        + in_chunks(GOOD, b"X-Forwarded-For: " + allowed, b"X-Forwarded-For: " + b", ".join([allowed] * 3), b"A: b"),
        "PROXY protocol": b"PROXY TCP4 %s 127.0.0.1 1 80\r\n" % allowed + whole(GOOD, CLOSE, genuine),
    }  # fmt: skip
    answers = {name: statuses(received(daemon, request)) for name, request in forgeries.items()}
    assert answers == {name: [400] if name == "PROXY protocol" else [401] for name in forgeries}
    assert daemon.signals() == []
    if hops:
        true = genuine.replace(b"6.6.6.6", allowed)
        assert statuses(received(daemon, whole(GOOD, CLOSE, true))) == [200]


# --- guesses ----------------------------------------------------------------------------------------------------------


def test_thousands_of_guesses_from_as_many_addresses_fill_no_disk_and_delay_no_alert(
    nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> None:
    daemon = Daemon(nursery, tmp_path_factory.mktemp("guessed"), cooldown_seconds=0, trusted_proxy_hops=1).start()
    try:
        before, memory = daemon.log_path.stat().st_size, memory_kb(daemon)
        with quick_meanwhile(daemon):
            guesses, seconds = _guess(daemon, 2.0)
        honest = len(daemon.signals())
        # Another lot, of what is no HTTP at all.
        for _ in range(200):
            received(daemon, b"nonsense\r\n\r\n")
        lines = [line for line in daemon.log().splitlines() if " WARNING " in line]
        grown = daemon.log_path.stat().st_size - before
        print(f"{guesses / seconds:.0f} guesses a second, {honest} alerts meanwhile, {grown} bytes more")
        assert guesses / seconds > 500, "the test is to be faster than this"
        assert 2 <= len(lines) <= 40
        assert max(map(len, lines)) < 200
        assert grown < 10_000 + 500 * honest
        assert len(daemon.journal_rows("signals")) == honest
        assert memory_kb(daemon) - memory < 20_000
        assert {row["Decision"] for row in daemon.signals()} <= {"REJECTED", "DUPLICATE"}
    finally:
        daemon.kill()


def _guess(daemon: Daemon, seconds: float) -> tuple[int, float]:
    """Several requests at once on each connection; a new address for each, so that the brake of one address is off."""
    counter, started = itertools.count(), time.monotonic()
    until = started + seconds
    wrong = []

    def guess() -> None:
        while time.monotonic() < until:
            numbers = [next(counter) for _ in range(20)]
            requests = [
                whole(
                    json.dumps(BUY | {"secret": f"guess-{number:08}-guess"}).encode(),
                    b"X-Forwarded-For: 10.%d.%d.%d" % (number >> 16 & 255, number >> 8 & 255, number & 255)
                    + b"x" * 500,
                    *([CLOSE] if number == numbers[-1] else []),
                )
                for number in numbers
            ]
            back = received(daemon, *requests)
            wrong.extend([] if statuses(back) == [401] * 20 else [back])

    threads = [threading.Thread(target=guess) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    return next(counter), time.monotonic() - started
