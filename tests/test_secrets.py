"""No secret shows: every setting that is one has a value that stands nowhere else, and then all is searched for it."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from fake_binance import FakeBinance
from fake_bingx import FakeBingx
from harness import Daemon, Nursery, binance, eventually
from test_hostile_input import received

from setting_sources import load_settings
from wiring import open_gatehouse

WEBHOOK = 'Canary&webhook 3f9a"1c+5D%'
CANARIES = {
    "WEBHOOK_SECRET_KEY": WEBHOOK,
    "BINANCE_API_KEY": "canaryTestKey7d2e" + "k" * 47,
    "BINANCE_API_SECRET": "canaryTestSecret5b8f" + "s" * 44,
    "BINANCE_REAL_API_KEY": "canaryRealKey91c4" + "r" * 47,
    "BINANCE_REAL_API_SECRET": "canaryRealSecret0e6a" + "t" * 44,
    "BINGX_API_KEY": "canaryBingKey44f1aa",
    "BINGX_SECRET_KEY": "canaryBingSecret82d0",
    "FLATTRADE_API_KEY": "canaryFlatKey6b6b31",
    "FLATTRADE_API_SECRET": "canaryFlatSecret19f3",
    "DASHBOARD_PASSWORD": "canary dashboard §7",
    "SESSION_SECRET": "canarySession5a5a5a5a5a5a5a5a",
    "NOTIFY_URLS": "json://me:canaryMail55@127.0.0.1:9/x,json://127.0.0.1:9/canaryTelegram77/1",
}
PAGES = ("/ui", "/ui/signals", "/ui/trades", "/ui/performance", "/ui/settings", "/test")
PARTS = {"NOTIFY_URLS 1": "canaryMail55", "NOTIFY_URLS 2": "canaryTelegram77"}
LATER = {"flattrade_client_id": "FT0001"}


def forms(value: str) -> set[bytes]:
    """As it may stand in a file: as it is, in JSON, in a CSV cell, in a URL, in a header; and a good part of it."""
    texts = {
        value, value[:16], value[-16:], quote(value), quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1], value.replace('"', '""'), repr(value)[1:-1], ascii(value)[1:-1],
    }  # fmt: skip
    return {text.encode() for text in texts} | {base64.b64encode(value.encode()).rstrip(b"=")[:-1]}


FORMS = {name: forms(value) for name, value in (CANARIES | PARTS).items()}


def shown_in(places: dict[str, bytes]) -> set[tuple[str, str]]:
    return {
        (place, name)
        for place, content in places.items()
        for name, texts in FORMS.items()
        if any(text in content for text in texts)
    }


def files_of(daemon: Daemon) -> dict[str, bytes]:
    return {f"file {path.name}": path.read_bytes() for path in (daemon.folder / "logs").iterdir()}


@pytest.fixture
def fakes() -> Iterator[tuple[FakeBinance, FakeBinance]]:
    keys = [CANARIES[name] for name in CANARIES if name.startswith("BINANCE")]
    with (
        FakeBinance(*keys[:2], balances={"USDT": 1000}) as test,
        FakeBinance(*keys[2:], balances={"USDT": 1000}) as real,
    ):
        yield test, real


@pytest.fixture
def bingx() -> Iterator[FakeBingx]:
    with FakeBingx(CANARIES["BINGX_API_KEY"], CANARIES["BINGX_SECRET_KEY"]) as fake:
        yield fake


class Speaker:
    """Sends to the daemon and keeps every byte that comes back."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.heard: dict[str, bytes] = {}

    def say(self, method: str, path: str, body: bytes = b"", *headers: bytes) -> bytes:
        lines = [b"%s %s HTTP/1.1" % (method.encode(), path.encode()), b"Host: x", b"Connection: close", *headers]
        # Another sender each time, so that no wrong secret has to wait for its answer.
        lines.append(b"X-Forwarded-For: 10.0.%d.%d" % divmod(len(self.heard), 250))
        back = received(self.daemon, b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body]), seconds=15)
        self.heard[f"reply {len(self.heard)} {path.split(quote(WEBHOOK))[0]}"] = back
        return back

    def own(self, method: str, path: str, body: bytes = b"") -> bytes:
        return self.say(method, path, body, f"Authorization: Bearer {WEBHOOK}".encode())

    def settle(self) -> None:
        def unresolved() -> bool:
            back = self.own("GET", "/status")
            return bool(json.loads(back.split(b"\r\n\r\n", 1)[1])["unresolved_orders"])

        eventually(lambda: not unresolved(), 15, lambda: self.daemon.log()[-3000:])


BUY: dict[str, Any] = {"symbol": "BTCUSDT", "side": "buy"}


def alerts(secret: str) -> list[bytes]:
    """Good, bad and hostile, with the secret in every place."""
    good = BUY | {"secret": secret}
    documents: list[Any] = [
        good,
        good,
        good | {"confidence": 1},
        *(good | {name: secret} for name in ("symbol", "side", "strategy", "comment", "timeframe", "quantity", "type",
                                             "timenow", "broker", "market", "order_id", "account", "stop_loss")),
        good | {"strategy": f"a{secret}b", "comment": secret * 20},
        good | {secret: "x"},
        good | {secret: {secret: [secret]}},
        BUY | {"data": {"order": {"token": secret, "price": secret}}},
        BUY | {"secret": [secret]},
        BUY | {"secret": {"secret": secret, "side": secret}},
        [good, good],
        secret,
        BUY | {"secret": "wrong" + secret},
        BUY | {"secret": secret[:-1]},
    ]  # fmt: skip
    texts = [
        json.dumps(good).replace("}", ",}"),
        json.dumps(good)[:-1],
        json.dumps(good).replace('"', "'"),
        json.dumps(good)[:-1] + f', "secret": "{secret}"}}',
        json.dumps(good | {"price": "{{close}} " + secret}),
        f'symbol=BTCUSDT side=buy secret="{secret}" nonsense="{secret}"',
        f"symbol=BTCUSDT&side={quote(secret)}&secret={quote(secret)}",
        f"buy BTCUSDT QTY:{secret}",
        f"{secret},buy,BTCUSDT,risk={secret}",
        f"{secret}(BTCUSDT) {{ market(side={secret}); }} #bot",
        secret,
        secret + "\0",
        "[" * 5_000 + secret,
    ]
    return [json.dumps(document).encode() for document in documents] + [text.encode() for text in texts]


def test_no_secret_shows_in_the_log_in_files_or_in_replies_whatever_happens(
    daemon_with: Callable[..., Daemon], fakes: tuple[FakeBinance, FakeBinance], bingx: FakeBingx
) -> None:
    test, real = fakes
    patience = {"follow": 0.05, "longest_look": 0.2, "slack": 0.1, "late": [0.2]}
    daemon = daemon_with(
        **binance(test, cooldown_seconds=0, max_open_trades=50, max_trades_per_day=50, test_log_level="DEBUG"),
        **LATER,
        binance_real_api_url=real.api_url,
        bingx_api_url=bingx.url,
        test_trouble_in="the placing",
        trusted_proxy_hops=1,
    )
    daemon.set(**CANARIES, test_patience=patience, test_absence_seconds=0.3)
    daemon.start()
    speaker = Speaker(daemon)
    _alerts_of_all_kinds(speaker)
    _errors_that_echo_the_request(speaker, fakes)
    _lost_replies(speaker, test)
    _unforeseen_exceptions(speaker)
    _the_owners_requests(speaker)
    _the_page(speaker)
    daemon.terminate()
    daemon.set(test_trouble_in="the journal's memory")
    daemon.start()
    _unforeseen_exceptions(speaker)
    for name in ("place", "in doubt"):
        echo = f"{name}: who is {CANARIES['BINGX_API_KEY']} with {CANARIES['BINGX_SECRET_KEY']}?"
        bingx.fail_next("code", "*", code=31337 if name == "place" else 80012, msg=echo, times=5)
        speaker.say("POST", "/webhook", json.dumps(BUY | {"secret": WEBHOOK, "broker": "BINGX"}).encode())
    speaker.own("POST", "/close-all")
    speaker.own("POST", "/preferences/reset")
    daemon.kill()
    daemon.start()
    speaker.own("GET", "/status")
    places = files_of(daemon) | speaker.heard | {"log": daemon.log().encode()}
    daemon.terminate()
    places |= {f"{name} at the end": content for name, content in files_of(daemon).items()}
    assert {"file signals.csv", "file trades.csv", "file journal.db", "file journal.db-wal"} <= places.keys()
    assert b" DEBUG " in places["log"]
    assert b"Traceback" in places["log"]
    assert b"with [secret] and [secret]" in places["log"]
    assert b"[secret]" not in b"".join(speaker.heard.values()), "nothing of a reply comes from the log"
    assert sum(b'"decision":"ACCEPTED"' in back.replace(b" ", b"") for back in speaker.heard.values()) >= 8
    assert sorted(shown_in(places)) == []


def _alerts_of_all_kinds(speaker: Speaker) -> None:
    in_path = f"/webhook/{quote(WEBHOOK, safe='')}"
    for body in alerts(WEBHOOK):
        speaker.say("POST", "/webhook?dry_run=1", body)
        speaker.own("POST", "/webhook", body)
    for number, body in enumerate((json.dumps(BUY | {"amount_usdt": 11}).encode(), b"nonsense", b"", b"\xff\xfe")):
        speaker.say("POST", in_path, body)
        speaker.say("POST", f"{in_path}?secret={quote(WEBHOOK)}&n={number}", body)
    for path in (f"/nothing/{quote(WEBHOOK)}", f"{in_path}/more", f"/{quote(WEBHOOK)}?{quote(WEBHOOK)}"):
        for method in ("POST", "GET", "PUT"):
            speaker.say(method, path, b"x", f"Authorization: Basic {WEBHOOK}".encode(), f"X: {WEBHOOK}".encode())
    speaker.say(WEBHOOK.replace(" ", ""), "/")
    speaker.say("GET", in_path, b"", b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip


def _errors_that_echo_the_request(speaker: Speaker, fakes: tuple[FakeBinance, FakeBinance]) -> None:
    for broker, fake in zip(("BINANCE", "BINANCE_REAL"), fakes, strict=True):
        echo = f"bad request: X-MBX-APIKEY={fake.api_key} key '{fake.api_key}' POST /api/v3/order"
        faults: list[dict[str, Any]] = [
            {"kind": "error", "code": -2010, "message": echo},
            {"kind": "error", "code": -1013, "message": echo},
            {"kind": "error", "code": -4242, "message": echo},
            {"kind": "error", "code": -1121, "message": echo, "where": "GET *"},
            {"kind": "status", "status": 403, "html": True, "body": f"<html>{echo}</html>"},
            {"kind": "status", "status": 500, "body": json.dumps({"code": -1000, "msg": echo})},
            {"kind": "garbage", "body": echo},
            {"kind": "garbage", "body": json.dumps({"symbol": fake.api_key, "orderId": echo, "status": fake.api_key})},
        ]
        # Both brokers are one class: the few kinds that are told to the sender do for the second.
        for number, fault in enumerate(faults if broker == "BINANCE" else faults[:2]):
            fake.fail_next(**fault)
            alert = BUY | {"broker": broker, "amount_usdt": f"{6 + number / 10}"}
            speaker.own("POST", "/webhook", json.dumps(alert).encode())
            speaker.settle()
            fake.clear_faults()


def _lost_replies(speaker: Speaker, fake: FakeBinance) -> None:
    for number, kind in enumerate(("reset", "half_body", "close", "truncated")):
        fake.fail_next(kind, executed=True)
        fake.fail_next("reset", where="GET /api/v3/order")
        speaker.own("POST", "/webhook", json.dumps(BUY | {"amount_usdt": 9 + number / 10}).encode())
        speaker.settle()


def _unforeseen_exceptions(speaker: Speaker) -> None:
    trouble = speaker.daemon.folder / "trouble"
    trouble.write_text("with " + " and ".join(CANARIES.values()))
    for number in range(2):
        alert = BUY | {"secret": WEBHOOK, "amount_usdt": 7, "comment": f"{WEBHOOK} {number}", "strategy": WEBHOOK}
        speaker.say("POST", "/webhook", json.dumps(alert).encode())
        speaker.own("POST", f"/webhook/{quote(WEBHOOK, safe='')}", json.dumps(alert | {"amount_usdt": 8}).encode())
    trouble.unlink()
    speaker.settle()


def _the_owners_requests(speaker: Speaker) -> None:
    for name in ("limits", "allowed_strategies", "leverage", "nothing", quote(WEBHOOK, safe="")):
        documents = ({"value": WEBHOOK}, {"value": [WEBHOOK]}, {WEBHOOK: 1}, {"secret": WEBHOOK}, WEBHOOK)
        for body in (json.dumps(document) for document in documents):
            speaker.own("POST", f"/preferences/{name}", body.encode())
            speaker.say("POST", f"/preferences/{name}", body.encode())
    query = f"limit={quote(WEBHOOK)}&since={quote(WEBHOOK)}&symbol={quote(WEBHOOK)}"
    for path in ("/status", "/executions", "/positions", "/account/summary", "/preferences/current", "/health", "/docs",
                 "/performance", "/metrics", "/logs/signals.csv", "/logs/trades.csv", "/login", *PAGES):  # fmt: skip
        speaker.own("GET", path)
        speaker.say("GET", path)
        speaker.own("GET", f"{path}?{query}")
        speaker.own("GET", f"{path}?since={quote(WEBHOOK)}")
    for path in ("/pause", "/resume", "/notifications/test"):
        speaker.say("POST", path, json.dumps({"secret": WEBHOOK, WEBHOOK: WEBHOOK}).encode())


def _the_page(speaker: Speaker) -> None:
    """Without a login, with a wrong one, and with the right one; a page's own requests, too."""
    password, origin = CANARIES["DASHBOARD_PASSWORD"], b"Origin: http://x"
    for guess in (password[:-1], WEBHOOK, password):
        back = speaker.say("POST", "/login", f"password={quote(guess)}&next={quote(WEBHOOK)}".encode(), origin)
    cookie = re.search(rb"(?i)set-cookie: ([^;]+)", back)
    assert cookie
    logged_in = b"Cookie: " + cookie.group(1)
    html = b"".join(
        speaker.say("GET", path, b"", logged_in) for path in (*PAGES, "/ui/signals?symbol=" + quote(WEBHOOK))
    )
    token = re.search(rb'csrf-token" content="(\w+)"', html)
    assert token
    alert = json.dumps({"alert": json.dumps(BUY | {"secret": WEBHOOK, "side": WEBHOOK})}).encode()
    for path, body in (("/test/run", alert), ("/preferences/leverage", b'{"value": "x"}'), ("/close-all", b"")):
        speaker.say("POST", path, body, logged_in, origin, b"X-CSRF-Token: " + token.group(1))


# --- a start that fails -----------------------------------------------------------------------------------------------

BAD_STARTS: dict[str, dict[str, str]] = {
    "a port that is none": {"PORT": "x"},
    "a secret beyond ASCII": {"WEBHOOK_SECRET_KEY": WEBHOOK + "ü"},
    "half of the keys": {"BINANCE_API_SECRET": "", "BINGX_SECRET_KEY": ""},
    "a key with a blank": {"BINANCE_REAL_API_SECRET": CANARIES["BINANCE_REAL_API_SECRET"] + " x"},
    "a secret in an address": {"BINANCE_API_URL": "https://canaryMail55@example.org/?key=canaryTelegram77"},
    "a secret in a wrong place": {"DEFAULT_BROKER": "canaryMail55"},
}
BROKEN_LINES = {
    "a name that is mistyped": "BINANCE_API_SECRETT={value}",
    "no name at all": "{value}",
    "a name twice": "SESSION_SECRET={value}\nSESSION_SECRET={value}x",
    "an open quote": 'SESSION_SECRET="{value}',
}


def test_a_start_that_fails_tells_no_secret(daemon_with: Callable[..., Daemon]) -> None:
    daemon = daemon_with(**LATER)
    for env in BAD_STARTS.values():
        daemon.set(**CANARIES | env)
        daemon.start(wait=False)
        daemon.wait_until_dead()
    for name in CANARIES:
        daemon.set(**{name: None})
    for line in BROKEN_LINES.values():
        (daemon.folder / ".env").write_text(line.format(value=CANARIES["SESSION_SECRET"]) + "\n")
        daemon.start(wait=False)
        daemon.wait_until_dead()
    log = daemon.log()
    assert log.count("cannot start:") == len(BAD_STARTS) + len(BROKEN_LINES)
    without_wrong_place = log.replace("was 'canaryMail55'", "").encode()
    assert shown_in({"log": without_wrong_place}) == set()


# --- in the process ---------------------------------------------------------------------------------------------------


def test_no_object_that_holds_a_secret_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (CANARIES | {"LOG_DIR": str(tmp_path / "logs"), "FLATTRADE_CLIENT_ID": "FT0001"}).items():
        monkeypatch.setenv(name, value)
    settings = load_settings(env_file=None)
    gate = open_gatehouse(settings)
    parts = {name: getattr(gate, name) for name in ("settings", "folder", "journal", "engine", "brokers", "csvs")}
    shown = {name: f"{part!r} {part!s}".encode() for name, part in (parts | {"gate": gate}).items()}
    shown["json"] = settings.model_dump_json().encode()
    gate.folder.close()
    assert shown_in(shown) == set()


# --- who may read the files -------------------------------------------------------------------------------------------


def test_only_the_owner_may_read_what_the_daemon_writes_however_open_it_was_before(
    nursery: Nursery, tmp_path: Path
) -> None:
    old = os.umask(0)
    try:
        daemon = Daemon(nursery, tmp_path, cooldown_seconds=0).start()
        logs = tmp_path / "logs"
        assert daemon.post(symbol="BTCUSDT", side="buy", price=100)["status"] == "FILLED"
        # An office program writes a file of its own, with the rights that files usually have.
        for name in ("signals.csv", "trades.csv"):
            (logs / "saved").write_text("edited;by;hand\n")
            (logs / "saved").chmod(0o644)
            (logs / "saved").replace(logs / name)
        assert daemon.post(symbol="BTCUSDT", side="sell", price=100)["status"] == "FILLED"
        eventually(lambda: len(list(logs.glob("*.edited-*"))) == 2, 10, lambda: str(list(logs.iterdir())))
        eventually(lambda: len(daemon.trades()) == 2, 5, lambda: str(daemon.trades()))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in logs.iterdir()}
        daemon.kill()
    finally:
        os.umask(old)
    assert stat.S_IMODE(logs.stat().st_mode) == 0o700
    assert {"journal.db", "journal.db-wal", "signals.csv", "trades.csv", "gatehouse.lock"} <= modes.keys()
    assert modes == dict.fromkeys(modes, 0o600)
