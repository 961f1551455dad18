"""Rows 12 to 28: what the exchange and the line to it can do."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from fault_stage import ALWAYS, LOOK_UP, ORDER, Stage
from harness import REPLY_SECONDS, eventually

SERVER_ERRORS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("status", {"status": 500}), ("status", {"status": 502, "html": True}), ("status", {"status": 503}),
    ("status", {"status": 504, "html": True}), ("error", {"code": -1006}), ("error", {"code": -1007}),
)  # fmt: skip


def is_unknown(stage: Stage) -> bool:
    return any(order["status"] == "UNKNOWN" for order in stage.daemon.orders_without_ending())


def reply_lost(stage: Stage, kind: str, **details: Any) -> None:
    """Whatever comes back is no answer: it is looked up, never sent again and never believed."""
    before = len(stage.fake.orders)
    stage.break_next(kind, executed=True, **details)
    reply = stage.buy(f"{kind} {details} {before}")
    assert reply["decision"] == "ACCEPTED"
    assert reply["status"] in ("PENDING", "FILLED")
    assert reply.seconds < REPLY_SECONDS
    stage.daemon.wait_until_settled()
    stage.assert_counts(before + 1)


def never_arrived(stage: Stage, kind: str, **details: Any) -> None:
    before = len(stage.fake.orders)
    stage.break_next(kind, executed=False, **details)
    reply = stage.buy(f"{kind} {details} {before} not placed")
    assert reply["decision"] == "ACCEPTED"
    assert reply["status"] in ("PENDING", "NOT_PLACED")
    stage.daemon.wait_until_settled()
    stage.assert_counts(before)
    assert stage.daemon.trades()[-1]["Status"] == "NOT_PLACED"


def read_timeout_filled(stage: Stage) -> None:
    stage.start(test_patience={"order": 1.0, "first_look": 0.05, "longest_look": 0.1})
    reply_lost(stage, "stall")


def read_timeout_not_there(stage: Stage) -> None:
    stage.start(test_patience={"order": 1.0, "first_look": 0.05, "longest_look": 0.1})
    never_arrived(stage, "stall")


def accepted_late(stage: Stage) -> None:
    """Late, but sooner than the proof of absence takes."""
    stage.start(test_absence_seconds=2.0)
    stage.break_next("late", seconds=1.2, then="reset")
    assert stage.buy()["decision"] == "ACCEPTED"
    stage.daemon.wait_until_settled()
    assert [row["Status"] for row in stage.daemon.trades()][-1] == "FILLED"
    stage.assert_counts(1)


def connection_reset(stage: Stage) -> None:
    stage.start()
    for kind in ("reset", "close"):
        reply_lost(stage, kind)
        never_arrived(stage, kind)


def broken_body(stage: Stage) -> None:
    """A body that stalls, or drips a byte now and then, is given up by the total deadline, not by each read's."""
    stage.start(test_patience={"order": 1.0, "ask": 1.0, "first_look": 0.05, "longest_look": 0.1, "late": []})
    for kind in ("half_header", "half_body"):
        for then in ("close", "stall"):
            reply_lost(stage, kind, then=then)
    # A look-up that stalls in the middle decides nothing.
    stage.break_next("half_body", LOOK_UP, then="stall")
    reply_lost(stage, "half_body", then="stall")


def byte_drip(stage: Stage) -> None:
    """One byte per 0.2 s would be minutes; each single read is quick."""
    stage.start(test_patience={"order": 1.0, "ask": 1.0, "first_look": 0.05, "longest_look": 0.1, "late": []})
    stage.break_next("drip", LOOK_UP, executed=True, seconds=0.2)
    stage.break_next("drip", executed=True, seconds=0.2)
    started = time.monotonic()
    answer = stage.soon(stage.buy)
    eventually(lambda: is_unknown(stage), 3, lambda: "no order is in doubt")
    assert time.monotonic() - started < 1.0 + 0.5, "the total deadline holds"
    assert answer.result().seconds < REPLY_SECONDS
    stage.daemon.wait_until_settled(5)
    stage.fake.release()
    stage.assert_counts(1)


def senseless_answer(stage: Stage) -> None:
    stage.start()
    for body in (None, "", "{}", '{"status":"FILLED"}'):
        reply_lost(stage, "garbage", body=body)
    reply_lost(stage, "truncated")
    reply_lost(stage, "other_symbol")
    never_arrived(stage, "garbage")


def server_errors(stage: Stage) -> None:
    stage.start()
    for kind, details in SERVER_ERRORS:
        reply_lost(stage, kind, **details)
        never_arrived(stage, kind, **details)


def told_to_wait(stage: Stage) -> None:
    stage.start()
    assert stage.buy("before")["status"] == "FILLED"
    stage.break_next("ban", status=429, retry_after=2)
    asked_at = time.monotonic()
    for _ in range(5):
        reply = stage.buy("during")
        assert (reply.status, reply["success"]) == (503, False)
    stage.daemon.owner_get("/status")
    time.sleep(max(0.0, asked_at + 1.8 - time.monotonic()))
    assert calls_during_the_ban(stage) == []
    time.sleep(0.5)
    assert stage.buy("during")["status"] == "FILLED"
    stage.assert_counts(2)


def calls_during_the_ban(stage: Stage) -> list[str]:
    return [f"{call.method} {call.path}" for call in stage.fake.requests if call.banned]


def waf_page(stage: Stage) -> None:
    """A page of a firewall says nothing about the order: unknown, and nothing more enters there until it is known."""
    stage.start(test_absence_seconds=1.0)
    for executed in (True, False)[: stage.times(1, 2)]:
        before = len(stage.fake.orders)
        stage.break_next("status", status=403, html=True, executed=executed)
        stage.break_next("status", LOOK_UP, status=403, html=True, times=ALWAYS)
        answer = stage.soon(stage.buy, f"executed: {executed}")
        eventually(lambda: is_unknown(stage), 3, lambda: "no order is in doubt")
        blocked = stage.buy(f"while it is unknown, {executed}")
        assert blocked["check"] == "unresolved"
        assert answer.result()["status"] == "PENDING"
        stage.fake.clear_faults()
        stage.daemon.wait_until_settled()
        stage.assert_counts(before + int(executed))


def clock_was_wrong(stage: Stage) -> None:
    stage.start()
    stage.buy("before")
    for seconds in (3.5, -3.5, 3.4):  # more than the window allows, not yet too much for entries
        stage.faults += 1
        stage.fake.clock = lambda moved=seconds: time.time() + moved  # type: ignore[misc]
        before = len(stage.fake.orders)
        assert stage.buy(seconds)["status"] == "FILLED"
        stage.assert_counts(before + 1)


def refused(stage: Stage) -> None:
    stage.start()
    for code in (-1013, -2010, -2015):
        stage.break_next("error", code=code)
        reply = stage.buy(code)
        assert (reply["decision"], reply["status"], reply["success"]) == ("ACCEPTED", "REJECTED", False)
        assert f"({code})" in reply["error"]
    stage.assert_counts(0)


def cannot_connect(stage: Stage) -> None:
    stage.start()
    assert stage.buy("before")["status"] == "FILLED"
    stage.faults += 1
    stage.fake.go_offline()
    reply = stage.buy("offline")
    assert (reply.status, reply["status"]) == (503, "NOT_PLACED")
    stage.fake.come_online()
    assert stage.buy("offline")["status"] == "FILLED"
    stage.assert_counts(2)


def recovery_without_answers(stage: Stage) -> None:
    stage.start()
    stage.break_next("stall", executed=True)
    answer = stage.soon(partial(stage.try_to_post, symbol="BTCUSDT", side="BUY"))
    stage.is_sent(1)
    stage.kill()
    assert answer.result() is None
    stage.break_next("status", LOOK_UP, status=503, times=ALWAYS)
    stage.daemon.start(wait=False).wait_until_listening()
    assert stage.daemon.get("/health").status == 503
    reply = stage.buy("too early", symbol="ETHUSDT")
    assert (reply.status, reply["success"]) == (503, False)
    stage.assert_counts(1)
    stage.fake.clear_faults()
    stage.daemon.wait_until_ready()
    assert stage.buy("too early", symbol="ETHUSDT")["status"] == "FILLED"


def found_late(stage: Stage) -> None:
    stage.start(test_absence_seconds=2.5)
    stage.faults += 1
    stage.fake.lookup_lag_seconds = 1.5
    stage.break_next("reset", executed=True)
    assert stage.buy()["decision"] == "ACCEPTED"
    stage.daemon.wait_until_settled()
    assert "NOT_PLACED" not in {row["Status"] for row in stage.daemon.trades()}


def partly_executed(stage: Stage) -> None:
    stage.start()
    stage.fake.set_book("BTCUSDT", asks=[(43000, "0.0001")], bids=[(42999, 1)])
    stage.faults += 1
    reply = stage.buy("thin", amount_usdt=100)
    assert reply["status"] == "EXPIRED"
    assert 0 < float(reply["quantity"]) <= 0.0001
    assert stage.daemon.owner_get("/status")["open_trades"] == 1


def banned_over_a_restart(stage: Stage) -> None:
    """Calling on through a ban makes it longer: a new process must know that it is to keep quiet."""
    stage.start()
    assert stage.buy("before")["status"] == "FILLED"
    stage.break_next("ban", status=418, retry_after=5)
    began = time.monotonic()
    assert stage.buy("banned").status == 503
    for number in range(2):
        stage.kill()
        stage.daemon.start(wait=False).wait_until_listening()
        assert stage.buy(number).status == 503, "certainly nothing was placed, and a repeat is welcome"
    assert time.monotonic() - began < 3.7  # a pause of a second would be waited for
    time.sleep(max(0.0, began + 5.2 - time.monotonic()))
    assert calls_during_the_ban(stage) == []
    assert len(stage.fake.calls(ORDER)) == 2, "the first order and the one that was turned away"
    stage.daemon.wait_until_ready(10)
    assert (reply := stage.buy("after it"))["status"] == "FILLED", reply.body
    stage.assert_counts(2)
