"""Rows 29 to 34 and 48 to 56: what comes in at the door."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from fault_stage import ORDER, Stage, timed
from harness import REPLY_SECONDS, SECRET, Reply, eventually, locked

HEALTH_SECONDS = 0.5


def sent_four_times(stage: Stage) -> None:
    stage.start()
    stage.faults += 3
    replies = [stage.buy("resent") for _ in range(4)]
    assert [reply["decision"] for reply in replies] == ["ACCEPTED"] + ["DUPLICATE"] * 3
    stage.assert_counts(1)


def four_at_once(stage: Stage) -> None:
    stage.start()
    rounds = stage.times(5, 100)
    for number in range(rounds):
        stage.faults += 1
        replies = stage.at_once([partial(stage.buy, number)] * 4)
        assert Counter(reply["decision"] for reply in replies) == {"ACCEPTED": 1, "DUPLICATE": 3}
    stage.assert_counts(rounds)


def storm(stage: Stage) -> None:
    """200 posts of 50 alerts on 16 connections, 20 of which may trade."""
    stage.start(max_trades_per_day=20)
    stage.faults += 1
    with ThreadPoolExecutor(16) as senders:
        replies = list(senders.map(stage.buy, [number % 50 for number in range(200)]))
    counts = Counter(reply["decision"] for reply in replies)
    assert counts["ACCEPTED"] == 20
    assert sum(counts.values()) == 200
    stage.assert_counts(20)


def two_for_the_last_slot(stage: Stage) -> None:
    stage.start(max_open_trades=1)
    rounds = stage.times(50, 1000)
    for number in range(rounds):
        stage.faults += 1
        pair = [partial(stage.buy, f"{number} {name}", symbol=f"{name}USDT") for name in ("BTC", "ETH")]
        decided = {reply["decision"]: reply["check"] for reply in stage.at_once(pair)}
        assert decided == {"ACCEPTED": None, "REJECTED": "open_trades"}
        (held,) = stage.daemon.owner_get("/positions")["positions"]
        assert stage.sell(number, symbol=held["symbol"])["status"] == "FILLED"
    stage.assert_counts(2 * rounds)


def old_body(stage: Stage) -> None:
    """Captured, and sent again: within the week it is a repeat, after it too old; after a restart, too."""
    stage.start()
    fired = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    assert stage.buy("captured", timenow=fired)["status"] == "FILLED"
    for days, decision in ((1, "DUPLICATE"), (6, "DUPLICATE"), (8, "REJECTED")):
        stage.faults += 1
        stage.daemon.move_clock(timedelta(days=days).total_seconds())
        stage.restart()
        assert stage.buy("captured", timenow=fired)["decision"] == decision
    assert stage.daemon.signals()[-1]["Check"] == "stale"
    stage.assert_counts(1)


def same_id_other_size(stage: Stage) -> None:
    """Fields called id are often constants: only the very same body is a repeat. Another size is another alert, which
    the limits judge; the cooldown stops what a strategy fires twice."""
    stage.start(cooldown_seconds=60)
    stage.faults += 1
    first, second, third = (stage.buy("x", id="7", amount_usdt=amount) for amount in (10, 20, 10))
    assert first["status"] == "FILLED"
    assert (second["decision"], second["check"]) == ("REJECTED", "cooldown")
    assert (third["decision"], third["duplicate_of"]) == ("DUPLICATE", first["signal_id"])
    stage.assert_counts(1)


BAD_BODIES = (
    b"{", b"[]", b'{"side":"BUY"}', b'{"symbol":"BTCUSDT","side":"BUY","quantity":NaN}',
    b'{"symbol":"BTCUSDT","side":"BUY","quantity":1e999}', b'{"symbol":"BTCUSDT","side":"BUY","side":"SELL"}',
    b'{"symbol":"BTCUSDT\\ud800","side":"BUY"}', b'{"a":' * 2000 + b"1" + b"}" * 2000,
    b'{"symbol":"BTC\\u0000USDT","side":"BUY"}', b'{"symbol":"BTCUSDT","side":"BUY","quantity":' + b"9" * 4301 + b"}",
    b'{"symbol":["BTCUSDT"],"side":"BUY"}', b'{"symbol":"BTCUSDT","side":"BUY","quantity":-1}',
    b'{"symbol":"BTCUSDT","side":"BUY","quantity":0}', b'{"symbol":"BTCUSDT","side":true}', b"\xff\xfe\x00",
    b'{"symbol":"BTCUSDT","side":"BUY","quantity":Infinity}',
)  # fmt: skip


def bad_input(stage: Stage) -> None:
    stage.start()
    for body in BAD_BODIES:
        stage.faults += 1
        reply = stage.sent.post_raw(stage.daemon, body, f"/webhook/{SECRET}")
        assert reply is not None
        assert reply.status == 400, body[:80]
    assert [row["Decision"] for row in stage.daemon.signals()] == ["INVALID"] * len(BAD_BODIES)
    huge = stage.buy("huge", quantity="999999999999", amount_usdt=None)
    assert huge["decision"] == "REJECTED"
    stage.assert_counts(0)


def memory_mb(stage: Stage) -> float:
    status = Path(f"/proc/{stage.daemon.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def huge_body(stage: Stage) -> None:
    """60 MB, with the length said and without."""
    stage.start()
    before = memory_mb(stage)
    for head in (b"Content-Length: 62914560", b"Transfer-Encoding: chunked"):
        stage.faults += 1
        with socket.create_connection(("127.0.0.1", stage.daemon.port), 5) as connection:
            connection.sendall(b"POST /webhook HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
            piece = (b"10000\r\n" if b"chunked" in head else b"") + b"x" * 65536 + b"\r\n"
            try:
                for _ in range(960):
                    connection.sendall(piece)
            except OSError:
                continue  # it hung up on us, as it should
    assert memory_mb(stage) - before < 10
    assert stage.buy("honest")["status"] == "FILLED"


def slow_loris(stage: Stage) -> None:
    """Hundreds of connections that never finish their headers, or their bodies, drop by drop."""
    stage.start()
    count = stage.times(300, 500)
    stage.faults += count
    begin = (b"POST /webhook HTTP/1.1\r\nHost: x\r\nX-Slow: ",
             b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{")  # fmt: skip
    with ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", stage.daemon.port), 5)) for _ in range(count)
        ]
        for number, connection in enumerate(slow):
            connection.sendall(begin[number % 2])
        seconds = []
        for number in range(stage.times(20, 60)):
            for connection in slow:
                drip(connection)
            seconds.append(stage.buy(number).seconds)
            time.sleep(0.03)
        assert max(seconds) < 0.5, "an honest alert does not wait for the slow ones"
        assert stage.daemon.get("/health").seconds < HEALTH_SECONDS


def drip(connection: socket.socket) -> None:
    try:
        connection.send(b"a")
    except OSError:
        pass  # given up by the daemon, which is fine


def brute_force(stage: Stage) -> None:
    stage.start()
    log_before, count = len(stage.daemon.log()), stage.times(100, 400)
    stage.faults += count
    with ThreadPoolExecutor(16) as guessers:
        guesses = guessers.map(
            lambda number: stage.daemon.request(
                "POST", f"/webhook/guess-{number:020d}", b"{}", X_Forwarded_For=f"10.0.{number % 250}.{number // 250}"
            ),
            range(count),
        )
        honest = [stage.buy(number) for number in range(5)]
        assert {reply.status for reply in guesses} == {401}
    assert [reply["status"] for reply in honest] == ["FILLED"] * 5
    assert max(reply.seconds for reply in honest) < 1.0
    assert len(stage.daemon.log()) - log_before < 20_000, "whoever guesses does not fill the disk"
    assert len(stage.daemon.signals()) == 5


def spoofed_address(stage: Stage) -> None:
    stage.start(allowed_ips="52.89.214.238")
    stage.faults += 2
    alert = json.dumps({"secret": SECRET, "symbol": "BTCUSDT", "side": "BUY"}).encode()
    for name in ("X_Forwarded_For", "X_Real_IP"):
        assert stage.daemon.request("POST", "/webhook", alert, 10, **{name: "52.89.214.238"}).status == 401
    stage.assert_counts(0)


HOSTILE = ("=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "|cmd", "a;=1+1", "'=1", "%=1", "\uff1d1+1",
           "line\r\nbreak 2026 INFO order filled", "\u202ereversed", '"quoted","cells"')  # fmt: skip


def injected_text(stage: Stage) -> None:
    """No cell of any row begins a formula, no text makes a line of its own, in the files or in the log."""
    stage.start()
    for text in HOSTILE:
        stage.faults += 1
        stage.buy(text, strategy=text, timeframe=text[:12])
        stage.buy(text, symbol=text)
    rows = [*stage.daemon.signals(), *stage.daemon.trades()]
    numbers = {"RealizedPnL", "Quantity", "Amount", "Price", "TradeAmount", "Fee"}
    cells = [cell for row in rows for name, cell in row.items() if name not in numbers and cell]
    assert [cell for cell in cells if cell[0] in "=+-@|%\t" or ";" in cell] == []
    assert len(stage.daemon.csv_lines("signals")) == 2 * len(HOSTILE)
    assert not [line for line in stage.daemon.log().splitlines() if line.startswith("break")]


def sender_hangs_up(stage: Stage) -> None:
    """The order is seen through without him, and his repeat is one."""
    stage.start()
    for number, wait in enumerate((0.1, 0.0), 1):
        alert = json.dumps({"secret": SECRET, "symbol": "BTCUSDT", "side": "BUY", "comment": number}).encode()
        stage.break_next("delay", seconds=0.4, executed=True)
        with socket.create_connection(("127.0.0.1", stage.daemon.port), 5) as connection:
            head = f"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: {len(alert)}\r\n\r\n"
            connection.sendall(head.encode() + alert)
            if wait:
                time.sleep(wait)
            else:
                stage.is_sent(number)
        stage.sent.give_up(alert)
        stage.is_sent(number)
        again = stage.sent.post_raw(stage.daemon, alert)
        assert again is not None
        assert again["decision"] == "DUPLICATE"
    stage.daemon.wait_until_settled()
    assert [row["Status"] for row in stage.daemon.trades()] == ["FILLED"] * 2


def all_hooks_blocked(stage: Stage) -> None:
    """The exchange is silent, the disk does not answer, more alerts wait than there are threads: /health does not."""
    stage.start(test_patience={"order": 1.5, "first_look": 0.05, "longest_look": 0.1})
    assert stage.buy("before")["status"] == "FILLED"
    count = 90
    stage.break_next("delay", times=count, executed=True, seconds=3.0)
    with ThreadPoolExecutor(count) as senders:
        answers = [senders.submit(stage.buy, number) for number in range(count)]
        eventually(lambda: len(stage.fake.orders) > 20, 5, lambda: "nothing is under way")
        with locked(stage.daemon.folder / "logs" / "journal.db"):
            slowest = max(timed(partial(stage.daemon.get, "/health", timeout=5)) for _ in range(20))
        assert slowest < HEALTH_SECONDS
        replies: list[Reply] = [answer.result() for answer in answers]
    slow = max(reply.seconds for reply in replies)
    # The senders and the exchange share a process here; the promised 2.5 s are measured in test_limits.py.
    assert slow < 2 * REPLY_SECONDS, slow
    stage.fake.clear_faults()
    stage.fake.release()
    stage.daemon.wait_until_settled(30)


def unforeseen_error(stage: Stage) -> None:
    places = ("the checks", "the journal's memory", "the journal's own row", "the sizing")
    for number, place in enumerate(places):
        stage.faults += 1
        stage.start(test_trouble_in=place)
        trouble = stage.daemon.folder / "trouble"
        trouble.touch()
        reply = stage.buy(place)
        assert (reply.status, reply["success"]) == (503, False)
        assert len(stage.fake.calls(ORDER)) == number
        trouble.unlink()
        assert stage.buy(place)["status"] == "FILLED"
        stage.kill()
    stage.daemon.set(test_trouble_in=None)
