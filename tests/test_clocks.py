"""The machine's clock beside the exchange's: far off, no entries; ways out are open, and it clears by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import LIMITS, NOW, S, an_order, view_at
from fake_binance import FakeBinance
from harness import EAGER, Daemon, binance, eventually
from scenes import Scene

from broker import BrokerError
from clocks import MAX_CLOCK_SKEW_SECONDS, clock_problem, compare_clocks
from journal import Journal
from models import OrderStatus
from risk import RiskEngine

MakeDaemon = Callable[..., Daemon]
MakeScene = Callable[..., Scene]


def move_exchange(fake: FakeBinance, seconds: float) -> None:
    fake.clock = lambda: time.time() + seconds


def problem(daemon: Daemon) -> str:
    (broker,) = (state for name, state in daemon.owner_get("/status")["brokers"].items() if name.startswith("BINANCE"))
    return str(broker["clock_problem"])


def told(daemon: Daemon) -> list[str]:
    return [notice["text"] for notice in daemon.owner_get("/status")["notices"] if "clock" in notice["text"]]


@pytest.mark.parametrize("sign", [1, -1])
def test_at_the_limit_the_clocks_may_still_be_the_same_and_beyond_it_both_are_told(sign: int) -> None:
    now, limit = 1_790_000_000.0, MAX_CLOCK_SKEW_SECONDS
    assert clock_problem("BINANCE", now, now + sign * limit, 0.0) == ""
    found = clock_problem("BINANCE", now, now + sign * (limit + 1), 0.0)
    theirs = "2026-09-21 14:13:25" if sign > 0 else "2026-09-21 14:13:15"
    assert found.startswith("the machine's clock shows 2026-09-21 14:13:20 UTC")
    assert f"BINANCE's {theirs} UTC: 5.0 s apart, limit is 4 s; set the machine's clock" in found


def test_an_answer_that_took_long_proves_no_difference_that_it_could_have_made_itself() -> None:
    now, off = 1_790_000_000.0, MAX_CLOCK_SKEW_SECONDS + 2
    assert clock_problem("BINANCE", now, now + off, unsure=2.0) == ""
    assert clock_problem("BINANCE", now, now + off, unsure=1.9) != ""


@pytest.mark.parametrize(
    "reply", [{}, {"serverTime": "soon"}, {"serverTime": None}, {"serverTime": 10**400}, {"serverTime": 10**18}, []]
)
def test_a_time_that_is_none_says_so_and_is_not_believed(reply: Any) -> None:
    with pytest.raises(BrokerError, match="BINGX sent no usable time"):
        compare_clocks("BINGX", lambda: reply)


@pytest.mark.parametrize("kind", ["spot", "futures"])
def test_while_the_clocks_are_far_apart_nothing_enters_everything_leaves_and_it_clears_by_itself(
    scene: MakeScene, kind: str
) -> None:
    there = scene(kind, cooldown_seconds=0, test_market=EAGER)
    daemon, fake = there.daemon, there.fake
    there.enter()
    move_exchange(fake, -3600)
    eventually(lambda: problem(daemon) != "", 10, lambda: "nobody compares the clocks")
    orders = len(there.orders())
    refused = there.post("buy", quantity="0.01", comment="far off")
    assert (refused["decision"], refused["check"]) == ("REJECTED", "halted")
    assert problem(daemon) in refused["reason"]
    assert "3600.0 s apart" in refused["reason"]
    assert len(there.orders()) == orders
    assert there.post("close")["status"] == "FILLED"
    eventually(lambda: len(told(daemon)) == 1, 3, lambda: "the owner is not told")
    move_exchange(fake, 0)
    eventually(lambda: problem(daemon) == "", 10, lambda: "it does not clear")
    assert there.post("buy", quantity="0.01", comment="right again")["status"] == "FILLED"
    eventually(lambda: len(told(daemon)) == 2, 3, lambda: str(told(daemon)))
    first, last = told(daemon)
    assert "3600.0 s apart" in first
    assert last.endswith("the clocks agree again, entries are taken")


def test_a_clock_that_is_wrong_at_the_start_is_known_before_the_first_alert(
    daemon_with: MakeDaemon, exchange: FakeBinance
) -> None:
    move_exchange(exchange, MAX_CLOCK_SKEW_SECONDS + 1)
    daemon = daemon_with(**binance(exchange, cooldown_seconds=0, test_market=EAGER)).start()
    assert daemon.post(symbol="BTCUSDT", action="buy")["check"] == "halted"
    assert exchange.orders == []
    paper = daemon.post(symbol="BTCUSDT", action="buy", broker="PAPER", price=43000)
    assert paper["check"] != "halted", "another broker has a clock of its own"


def test_the_entry_of_a_reversal_is_not_opened_by_a_wrong_clock(scene: MakeScene) -> None:
    there = scene("futures", cooldown_seconds=0, test_market=EAGER)
    there.enter()
    move_exchange(there.fake, 3600)
    eventually(lambda: problem(there.daemon) != "", 10, lambda: "nobody compares the clocks")
    reply = there.post("sell", market_position="short", quantity="0.01")
    assert reply["status"] == "FILLED"
    assert "no entry after it (halted)" in there.daemon.signals()[-1]["Reason"]
    there.wait_until_flat()


@pytest.mark.parametrize(("problem", "becomes"), [("", S.SENT), ("the clocks are 9 s apart", S.NOT_PLACED)])
def test_an_entry_that_waited_for_its_way_out_asks_the_clock_once_more(
    tmp_path: Path, problem: str, becomes: OrderStatus
) -> None:
    engine = RiskEngine(Journal(tmp_path / "journal.db"), LIMITS)
    engine.clock_problem = lambda account: problem
    released = engine.release(an_order(S.INTENT), view_at(NOW), NOW)
    assert (released.status, released.note) == (becomes, problem and f"not opened: {problem}")


def test_clocks_that_differ_a_little_stop_nothing(daemon_with: MakeDaemon, exchange: FakeBinance) -> None:
    move_exchange(exchange, MAX_CLOCK_SKEW_SECONDS - 0.5)
    daemon = daemon_with(**binance(exchange, cooldown_seconds=0, test_market=EAGER)).start()
    assert daemon.post(symbol="BTCUSDT", action="buy")["status"] == "FILLED"
    assert (problem(daemon), told(daemon)) == ("", [])
