"""kill -9 at every step of an order's life, during recovery too, with replies lost at the same time.

Two lanes run side by side, each with its own exchange and its own daemon. Every round has a symbol of its own, so that
what the exchange has of one alert can be counted. What counts is always what the exchange did, never what we believe.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from fake_binance import FakeBinance
from fake_matching import Order
from global_counts import ENDINGS, Sent, assert_global_counts, assert_records_are_whole
from harness import (
    API_KEY,
    API_SECRET,
    Daemon,
    Nursery,
    Reply,
    assert_csvs_equal_journal,
    binance,
    can_connect,
    eventually,
)
from run_daemon import PROTECTION_STEPS, STEPS
from scenes import Scene

Alert = dict[str, Any]

PRICE = Decimal(100)

# The absence of an order is proven so soon after it left; an exchange that is late is less late than that.
ABSENCE_SECONDS, SLACK_SECONDS, LATE_SECONDS = 0.5, 0.2, 0.15

AT_ANY_TIME = "at any time after the start"
NOT_ON_RECORD_YET = {"before the decision", "inside the decision's transaction"}
ON_RECORD_BUT_NOT_SENT = {"after the decision's commit", "before the order leaves"}
PERHAPS_SENT = {"while the order is under way", AT_ANY_TIME}
IN_RECOVERY = ("inside the outcome's transaction", "after the outcome's commit", "inside the trades row", AT_ANY_TIME)

EVERY = "EVERY_FAULT" in os.environ
kills: Counter[str] = Counter()
counting = threading.Lock()


@dataclass
class Lane:
    """One exchange, one data folder, and everything that was sent there and answered."""

    exchange: FakeBinance
    daemon: Daemon
    name: str
    sent: Sent = field(default_factory=Sent)
    rounds: int = 0
    kills_in_recovery: Iterator[str] = field(default_factory=lambda: itertools.cycle(IN_RECOVERY))

    def new_symbol(self) -> str:
        self.rounds += 1
        base = f"{self.name}{self.rounds}"
        self.exchange.add_symbol(f"{base}USDT", base, "USDT", PRICE)
        return f"{base}USDT"

    def start(self, crash_at: str = "") -> None:
        self.daemon.start(wait=False, crash_at=crash_at)

    def start_and_stay(self) -> None:
        self.start()
        self.daemon.wait_until_ready()

    def kill(self, step: str) -> None:
        self.daemon.kill()
        count_kill(step)

    def post(self, alert: Alert) -> Reply | None:
        """None when the process died before it could answer."""
        return self.sent.post(self.daemon, **alert)

    def post_until_dead(self, alert: Alert, step: str) -> None:
        """The alert that the process dies of."""
        eventually(
            lambda: can_connect(self.daemon.port) or not self.daemon.is_alive(), 10, lambda: self.daemon.log()[-2000:]
        )
        while self.daemon.is_alive():
            self.post(alert)
            if step != AT_ANY_TIME:
                self.daemon.wait_until_dead(5)
        count_kill(step)

    def close(self) -> None:
        self.daemon.kill()
        self.exchange.stop()

    def orders_of(self, symbol: str, side: str) -> list[Order]:
        return [order for order in self.exchange.orders if (order.symbol, order.side) == (symbol, side)]


def count_kill(step: str) -> None:
    with counting:
        kills[step] += 1


@pytest.fixture
def lane(nursery: Nursery, tmp_path: Path) -> Iterator[Callable[..., Lane]]:
    lanes: list[Lane] = []

    def make(name: str, **settings: object) -> Lane:
        lanes.append(new_lane(nursery, tmp_path, name, **settings))
        return lanes[-1]

    yield make
    for made in lanes:
        made.close()


def new_lane(nursery: Nursery, parent: Path, name: str, **settings: object) -> Lane:
    exchange = FakeBinance(API_KEY, API_SECRET, balances={"USDT": 1_000_000}, weight_limit=10**9).start()
    exchange.order_limit = 10**6
    folder = parent / name
    folder.mkdir()
    generous = {"max_trades_per_day": 10**6, "max_open_trades": 10**6, "max_risk_per_trade": 1000}
    quick = {"follow": 0.1, "longest_look": 0.1, "first_look": 0.05, "slack": SLACK_SECONDS, "late": [0.3]}
    quick["compare"] = 3.0
    waits = {"test_absence_seconds": ABSENCE_SECONDS, "test_patience": quick}
    made = Lane(exchange, Daemon(nursery, folder, **binance(exchange, cooldown_seconds=0, **generous)), name)
    made.daemon.set(**waits | settings)
    made.daemon.move_clock(seconds_to_noon())
    return made


def seconds_to_noon() -> float:
    """Counts of a day are compared: no midnight may come in between."""
    now = datetime.now(UTC)
    return (now.replace(hour=12, minute=0, second=0) + timedelta(days=1) - now).total_seconds()


# --- one round --------------------------------------------------------------------------------------------------------


def entry(symbol: str, type_: str) -> Alert:
    if type_ == "LIMIT":
        return {"symbol": symbol, "side": "BUY", "type": "LIMIT", "quantity": 0.5, "price": 90}
    return {"symbol": symbol, "side": "BUY", "amount_usdt": 50}


def exit_of(symbol: str, type_: str) -> Alert:
    if type_ == "LIMIT":
        return {"symbol": symbol, "side": "SELL", "type": "LIMIT", "quantity": 0.4, "price": 110}
    return {"symbol": symbol, "side": "SELL"}


# The exchange has the order, or will have it in a moment; the daemon does not hear of it.
LOST_REPLIES: dict[str, dict[str, Any]] = {
    "reply lost": {"kind": "reset", "executed": True},
    "late": {"kind": "late", "seconds": LATE_SECONDS, "then": "reset"},
    "closed": {"kind": "close", "executed": True},
    "half a body": {"kind": "half_body", "executed": True},
    "a page": {"kind": "garbage", "executed": True},
    "a bad gateway": {"kind": "status", "status": 502, "html": True, "executed": True},
    "timed out there": {"kind": "error", "code": -1007, "executed": True},
    "another order": {"kind": "other_symbol", "executed": True},
}


def lose_a_reply(lane: Lane, fault: str) -> None:
    if fault:
        lane.exchange.fail_next(**LOST_REPLIES[fault])


def kill_and_check(lane: Lane, step: str, side: str, type_: str, fault: str) -> None:
    symbol = lane.new_symbol()
    alert = entry(symbol, type_) if side == "BUY" else exit_of(symbol, type_)
    if side == "SELL":
        bought = lane.post(entry(symbol, "MARKET"))
        assert bought is not None
        assert bought["status"] == "FILLED"
    lane.kill("idle")
    lose_a_reply(lane, fault)
    lane.start(crash_at=step)
    lane.post_until_dead(alert, step)
    lane.exchange.clear_faults()
    kill_in_recovery(lane)
    if type_ == "LIMIT" and fault:
        let_it_fill(lane, symbol, side)  # while nobody is looking
    lane.start()
    send_four_times(lane, alert)
    if type_ == "LIMIT":
        let_it_fill(lane, symbol, side)
    wait_for_endings(lane)
    assert_one_order_at_most(lane, symbol, side, step)
    assert_global_counts(lane.daemon, lane.exchange, lane.sent)


def kill_in_recovery(lane: Lane) -> None:
    """Recovery dies at a step of its own; where it has nothing to do at that step, it is killed when done."""
    step = next(lane.kills_in_recovery)
    lane.start(crash_at=step)
    eventually(
        lambda: not lane.daemon.is_alive() or (step != AT_ANY_TIME and has_nothing_left_to_do(lane)),
        10,
        lambda: f"neither dead nor done: {lane.daemon.log()[-3000:]}",
    )
    lane.kill(f"recovery: {step}")


def is_ready(lane: Lane) -> bool:
    """It may die in the middle of its answer."""
    try:
        return lane.daemon.is_healthy()
    except HTTPException:
        return False


def has_nothing_left_to_do(lane: Lane) -> bool:
    try:
        return is_ready(lane) and not lane.daemon.owner_get("/status")["unresolved_orders"]
    except (OSError, HTTPException):
        return False


def send_four_times(lane: Lane, alert: Alert) -> None:
    """As TradingView does that got no answer: two of them at the same moment, while recovery is still looking."""
    lane.daemon.wait_until_listening()
    with ThreadPoolExecutor(2) as senders:
        twins = list(senders.map(lane.post, [alert, alert]))
    lane.daemon.wait_until_settled()
    replies = [*twins, lane.post(alert), lane.post(alert)]
    assert all(reply is not None and reply.status in (200, 202) for reply in replies), replies
    decisions = Counter(reply["decision"] for reply in replies if reply)
    assert decisions["DUPLICATE"] >= 3, replies
    assert decisions["DUPLICATE"] + decisions["ACCEPTED"] == 4, replies


def let_it_fill(lane: Lane, symbol: str, side: str) -> None:
    lane.exchange.set_price(symbol, 90 if side == "BUY" else 110)


def wait_for_endings(lane: Lane) -> None:
    left = lane.daemon.orders_without_ending
    eventually(lambda: not left(), 10, lambda: f"without ending: {left()}")


# --- what must hold ---------------------------------------------------------------------------------------------------


def assert_one_order_at_most(lane: Lane, symbol: str, side: str, step: str) -> None:
    there = lane.orders_of(symbol, side)
    assert len(there) <= 1, f"{len(there)} orders for one alert"
    assert set(lane.exchange.posts_by_client_id.values()) <= {1}
    assert set(lane.exchange.orders_by_client_id.values()) <= {1}
    if side == "BUY" and step in ON_RECORD_BUT_NOT_SENT:
        assert not there, "an entry is not sent after the restart"
    elif side == "SELL" or step not in PERHAPS_SENT:
        # An exit that was proven never placed is still wanted; what was never decided is decided anew.
        assert len(there) == 1, f"lost: {side} {symbol}"


def assert_exact_at_the_limit(lane: Lane, limit: str, count: str, reason: str) -> None:
    """After all that, exactly one more passes."""
    now = lane.daemon.owner_get("/status")[count]
    lane.kill("idle")
    lane.daemon.set(**{limit: now + 1})
    lane.start_and_stay()
    one_more, one_too_many = (lane.post(entry(lane.new_symbol(), "MARKET")) for _ in range(2))
    assert one_more is not None
    assert (one_more["decision"], one_more["status"]) == ("ACCEPTED", "FILLED")
    assert one_too_many is not None
    assert one_too_many["decision"] == "REJECTED"
    assert one_too_many["reason"].startswith(f"{reason}: {now + 1} ")


# --- the tests --------------------------------------------------------------------------------------------------------


def deaths(fault: str) -> Iterable[tuple[str, str]]:
    """With the fault and without it, on both sides; `make faults` does each with each."""
    return itertools.product(("BUY", "SELL"), ("", fault)) if EVERY else (("BUY", fault), ("SELL", ""))


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_it_neither_doubles_nor_loses_an_order(step: str, lane: Callable[..., Lane]) -> None:
    market, limit = lane("M"), lane("L")

    def run_market() -> None:
        market.start_and_stay()
        for side, fault in deaths("reply lost"):
            kill_and_check(market, step, side, "MARKET", fault)
        assert_exact_at_the_limit(market, "max_trades_per_day", "trades_today", "Daily limit reached")

    def run_limit() -> None:
        limit.start_and_stay()
        for side, fault in deaths("late"):
            kill_and_check(limit, step, side, "LIMIT", fault)
        assert_exact_at_the_limit(limit, "max_open_trades", "open_trades", "Open trades limit reached")

    with ThreadPoolExecutor(2) as lanes:
        for running in [lanes.submit(run_market), lanes.submit(run_limit)]:
            running.result()


# The steps that differ where there is no exchange; `make faults` dies at every one.
PAPER_STEPS = (
    "inside the decision's transaction", "after the decision's commit", "after the broker's answer",
    "inside the outcome's transaction", "inside the trades row", "at any time after the start",
)  # fmt: skip


@pytest.mark.parametrize("step", STEPS if EVERY else PAPER_STEPS)
def test_killed_at_any_step_paper_trades_once_and_its_balance_is_right(step: str, lane: Callable[..., Lane]) -> None:
    """Paper has no exchange to ask: what was not on the record when it died never happened."""
    paper = lane("P", binance_api_key=None, binance_api_secret=None, binance_api_url=None, paper_balance_usdt=1000)
    for side in ("BUY", "SELL"):
        paper.start_and_stay()
        bought = paper.post(paper_alert("BUY", 43000))
        assert bought is not None
        assert bought["status"] == "FILLED"
        paper.kill("idle")
        paper.start(crash_at=step)
        paper.post_until_dead(paper_alert(side, 44000), step)
        kill_in_recovery(paper)
        paper.start()
        send_four_times(paper, paper_alert(side, 44000))
        wait_for_endings(paper)
        assert_records_are_whole(paper.daemon, paper.sent)
        assert_paper_balance_is_its_trades(paper)
        if side == "SELL":
            assert paper.daemon.owner_get("/status")["open_trades"] == 0, "an exit is still wanted after the restart"
        paper.kill("idle")


def paper_alert(side: str, price: int) -> Alert:
    size = {"amount_usdt": 50} if side == "BUY" else {}
    return {"symbol": "BTCUSDT", "side": side, "price": price} | size


def assert_paper_balance_is_its_trades(paper: Lane) -> None:
    expected = {"USDT": Decimal(1000), "BTC": Decimal(0)}
    filled = [row for row in paper.daemon.trades() if row["Status"] == "FILLED"]
    for row in filled:
        sign = 1 if row["Action"] == "BUY" else -1
        expected["BTC"] += sign * Decimal(row["Quantity"])
        expected["USDT"] -= sign * Decimal(row["TradeAmount"])
        expected[row["FeeAsset"]] -= Decimal(row["Fee"])
    status = paper.daemon.owner_get("/status")
    for asset, amount in expected.items():
        free = status["balances"]["PAPER"].get(asset, {"free": 0})["free"]
        assert Decimal(str(free)) == pytest.approx(amount, abs=Decimal("0.000001"))
    assert status["trades_today"] == sum(1 for row in filled if row["Action"] == "BUY")


def test_killed_again_and_again_while_it_recovers_it_finds_the_one_order(lane: Callable[..., Lane]) -> None:
    """The reply was lost, and the exchange does not find the order for a while: every start begins to look anew."""
    there = lane("R")
    symbol = there.new_symbol()
    there.exchange.lookup_lag_seconds = 1.5
    there.daemon.set(test_absence_seconds=3)
    there.start_and_stay()
    there.exchange.fail_next("stall", executed=True)
    first = there.post(entry(symbol, "MARKET"))
    assert first is not None
    assert (first.status, first["status"]) == (202, "PENDING")
    for number in range(12):
        there.kill(f"recovery {number}")
        there.start(crash_at=AT_ANY_TIME)
        there.daemon.wait_until_dead()
        count_kill(f"recovery {number}")
        there.start(crash_at=next(there.kills_in_recovery))
        if number % 3 == 0:
            eventually(lambda: not there.daemon.is_alive() or is_ready(there), 10, there.daemon.log)
    there.kill("recovery")
    there.start_and_stay()
    there.daemon.wait_until_settled()
    assert [order.status for order in there.orders_of(symbol, "BUY")] == ["FILLED"]
    assert_one_order_at_most(there, symbol, "BUY", "after the broker's answer")
    assert_global_counts(there.daemon, there.exchange, there.sent)


STOP_AND_PROFIT: Alert = {"stop_loss": 39200, "take_profit": 41600}
WITH_A_LOST_REPLY = [("while the protection is under way", True), ("after the protection is cancelled", True)]
PROTECTION_POSTS = {"spot": "POST /api/v3/orderList/oco", "futures": "POST /fapi/v1/algoOrder"}
PROTECTION_DELETES = {"spot": "DELETE /api/v3/order", "futures": "DELETE /fapi/v1/algoOrder"}


@pytest.mark.parametrize(("step", "lost"), [*((step, False) for step in PROTECTION_STEPS), *WITH_A_LOST_REPLY])
def test_killed_around_its_protection_a_position_has_exactly_one_set_or_is_closed(
    step: str, lost: bool, scene: Callable[..., Scene]
) -> None:
    cancelling = step.endswith("cancelled")
    waits = {"slack": SLACK_SECONDS}
    scenes = [scene(kind, waits, test_absence_seconds=ABSENCE_SECONDS) for kind in PROTECTION_POSTS]
    with ThreadPoolExecutor(2) as both:
        for running in [both.submit(kill_around_protection, there, step, cancelling, lost) for there in scenes]:
            running.result()


def kill_around_protection(there: Scene, step: str, cancelling: bool, lost: bool) -> None:
    entry: Alert = {"action": "buy", "quantity": "0.01", **STOP_AND_PROFIT}
    alert: Alert = {"action": "close"} if cancelling else entry
    if cancelling:
        there.enter(**STOP_AND_PROFIT)
        there.wait_for(*there.protected(**STOP_AND_PROFIT))
    there.daemon.kill()
    there.daemon.start(crash_at=step)
    if lost:
        where = PROTECTION_DELETES if cancelling else PROTECTION_POSTS
        there.fake.fail_next("reset", where[there.kind], executed=True)
    try:
        there.post(**alert)
    except (OSError, HTTPException, ValueError):
        pass
    there.daemon.wait_until_dead(5)
    count_kill(step)
    there.fake.clear_faults()
    there.daemon.start()
    assert there.post(**alert)["decision"] == "DUPLICATE"
    if cancelling:
        there.wait_until_flat()
    else:
        there.wait_for(*there.protected(**STOP_AND_PROFIT))
        there.move(39100)
        there.wait_until_flat()
    assert_sold_once(there)


def assert_sold_once(there: Scene) -> None:
    sides = Counter(order.side for order in there.orders() if order.executed)
    assert sides == {"BUY": 1, "SELL": 1}
    assert set(there.fake.algo_posts_by_client_id.values()) <= {1}
    rows = there.rows()
    endings = Counter(row["ClientOrderID"] for row in rows if row["Status"] in ENDINGS)
    assert endings == dict.fromkeys((row["ClientOrderID"] for row in rows), 1), "an intent without its one ending"
    assert_csvs_equal_journal(there.daemon)
    status = there.status()
    assert (status["drift"], status["halted"], status["notices"]) == ([], "", [])


def test_there_were_at_least_fifty_kills_and_a_hundred_where_all_is_tried() -> None:
    if not kills.keys() >= STEPS.keys():
        pytest.skip("only some of the steps were run")
    at_steps = sum(kills[step] for step in STEPS)
    recovering = sum(count for step, count in kills.items() if step.startswith("recovery"))
    print(f"\n{sum(kills.values())} kills: {at_steps} at the steps of an order's life, {recovering} in recovery")
    assert min(at_steps, recovering) >= (100 if EVERY else 50)
