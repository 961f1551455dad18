"""A strategy, its owner, the network and the power supply do what they like, in any order; the books must stay true.

Hypothesis makes up the stories, the real daemon (a process, over HTTP) and the strict fake futures exchange play them.
What counts is always what the exchange holds. `GATEHOUSE_EXAMPLES=200 make test ARGS="-k machine"` plays many more.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from binance import Client
from fake_binance import FakeBinance
from harness import API_KEY, API_SECRET, Daemon, Nursery, Reply, assert_csvs_equal_journal, eventually, futures
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from stories import stories

D = Decimal
ZERO = D(0)
UNIT = D("0.003")  # of BTC: above the smallest notional at every price of these stories
SYMBOL = "BTCUSDT"
LOWEST, HIGHEST = D(40000), D(60000)
WORD = {0: "flat", 1: "long", -1: "short"}
CONDITIONAL = {"stop_loss_percent": "STOP_MARKET", "take_profit_percent": "TAKE_PROFIT_MARKET",
               "trailing_percent": "TRAILING_STOP_MARKET"}  # fmt: skip

STORIES = stories(7, steps=12)
QUICK = {"follow": 0.05, "longest_look": 0.1, "first_look": 0.05, "slack": 0.1, "late": [0.2, 0.5],
         "compare": 0.3, "second_look": 0.1, "guard_again": 0.5}  # fmt: skip

LOST, NEVER_ARRIVED = "the reply is lost", "lost on the way"
CRASHES = (
    "after the decision's commit",
    "while the order is under way",
    "after the broker's answer",
    "inside the outcome's transaction",
    "after the outcome's commit",
    "before protection is on the record",
    "before protection leaves",
    "after protection was taken",
    "before a waiting order is released",
    "after a waiting order was released",
)

units = st.integers(1, 4).map(lambda n: n * UNIT)
sides = st.sampled_from([1, -1])
troubles = st.sampled_from(["", "", "", "", "", LOST, NEVER_ARRIVED, "crash"])
crashes = st.sampled_from(CRASHES)
protections = st.sampled_from(
    [
        {},
        {"stop_loss_percent": "2"},
        {"stop_loss_percent": "3", "take_profit_percent": "4"},
        {"trailing_percent": "1.5"},
        {"stop_loss_percent": "2.5", "take_profit_percent": "5", "trailing_percent": "2"},
    ]
)


def sign(number: Decimal) -> int:
    return (number > 0) - (number < 0)


def word(number: Decimal) -> str:
    return WORD[sign(number)]


class Stories(RuleBasedStateMachine):
    """`strategy` is what the simulated strategy believes it holds; `asked` the protection of the present position."""

    nursery: Nursery
    hedge: bool

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeBinance(API_KEY, API_SECRET, balances={}, weight_limit=10**9).start()
        self.fake.futures.set_options(hedge_mode=self.hedge, weight_limit=10**9, order_limit=10**6)
        self.fake.futures.set_balance("USDT", 10**6)
        self.fake.futures.set_price(SYMBOL, 50000)
        self.folder = tempfile.TemporaryDirectory()
        self.daemon = Daemon(self.nursery, Path(self.folder.name), **futures(self.fake, **self.settings()))
        self.daemon.start()
        self.price = D(50000)
        self.strategy = ZERO
        self.last_alert: dict[str, Any] = {}
        self.asked: dict[str, str] = {}
        self.alerts = 0
        self.by_hand = 0

    def settings(self) -> dict[str, object]:
        generous = {"max_trades_per_day": 10**6, "max_open_trades": 10**6, "max_risk_per_trade": 10**5}
        waits = {"test_absence_seconds": 0.4, "test_patience": QUICK, "allowed_symbols": SYMBOL}
        return {"cooldown_seconds": 0, "dedupe_seconds": 60, "leverage": 3} | generous | waits

    def teardown(self) -> None:
        self.daemon.kill()
        self.fake.stop()
        self.folder.cleanup()

    # --- the strategy -----------------------------------------------------------------------------------------------

    @rule(to=st.integers(-4, 4), protection=protections, trouble=troubles, crash=crashes)
    def strategy_trades(self, to: int, protection: dict[str, str], trouble: str, crash: str) -> None:
        """Opens, adds, closes a part, closes, turns around."""
        before, target = self.strategy, to * UNIT
        if before == target:
            return
        was_in_step = before == self.held
        alert = self.strategy_alert(target) | (protection if sign(target) else {})
        self.expect(alert, {self.after_target(target, sign(target - before))}, trouble, crash, protection)
        if was_in_step and not trouble:
            assert self.held == target, "the exchange holds exactly what the strategy says"

    @rule(to=st.integers(-4, 4))
    def an_alert_of_the_strategy_is_missed(self, to: int) -> None:
        if self.strategy != to * UNIT:
            self.strategy_alert(to * UNIT)
            self.last_alert = {}

    @rule(first=st.integers(-4, 4), second=st.integers(-4, 4))
    def two_alerts_of_the_strategy_arrive_in_the_other_order(self, first: int, second: int) -> None:
        begun, middle, end = self.strategy, first * UNIT, second * UNIT
        if begun == middle or middle == end or begun != self.held:
            return
        alerts = [self.strategy_alert(target) for target in (middle, end)]
        later = self.post(alerts[1])
        assert later is not None
        followed = later["decision"] == "ACCEPTED"
        self.settle({}, begun)
        between = self.held
        self.post(alerts[0])
        self.settle({}, between)
        if followed:
            assert self.held == end, f"{begun} -> {middle} -> {end}, the later one first and followed: {self.held}"
        assert ZERO <= self.held * (sign(end) or 1) <= abs(end), f"{begun} -> {middle} -> {end}: {self.held} held"
        self.last_alert = {}

    @precondition(lambda self: self.last_alert)
    @rule(word_for_word=st.booleans())
    def the_last_alert_comes_again(self, word_for_word: bool) -> None:
        held, alert = self.held, self.last_alert
        if not word_for_word and "position_size" not in alert:
            return
        was_reached = held == D(alert.get("position_size", "0"))
        reply = self.post(alert if word_for_word else alert | {"comment": self.comment()})
        assert reply is not None
        self.settle({name: alert[name] for name in CONDITIONAL if name in alert}, held)
        if word_for_word:
            assert reply["decision"] == "DUPLICATE"
        if word_for_word or was_reached:
            assert self.held == held, "nothing happens twice"

    # --- alerts without a strategy's position -------------------------------------------------------------------------

    @rule(side=sides, quantity=units, protection=protections, trouble=troubles, crash=crashes)
    def plain_order(self, side: int, quantity: Decimal, protection: dict[str, str], trouble: str, crash: str) -> None:
        """Against what is held it only closes."""
        held = self.held
        after = held + side * quantity if sign(held) in (0, side) else self.reduced(side, quantity)
        alert = self.alert(action=self.action(side), quantity=str(quantity)) | protection
        self.expect(alert, {after}, trouble, crash, protection if sign(held) in (0, side) else None)

    @rule(verb=st.sampled_from(["close", "exit", "flat"]), trouble=troubles, crash=crashes)
    def close(self, verb: str, trouble: str, crash: str) -> None:
        self.expect(self.alert(action=verb), {ZERO}, trouble, crash)

    @rule(side=sides, trouble=troubles, crash=crashes)
    def order_to_be_flat(self, side: int, trouble: str, crash: str) -> None:
        """A strategy's closing order has a side; whichever it is, nothing is opened by it."""
        alert = self.alert(action=self.action(side), quantity="0.012", market_position="flat")
        self.expect(alert, {ZERO}, trouble, crash)

    @rule(quantity=units, trouble=troubles, crash=crashes)
    def close_a_part(self, quantity: Decimal, trouble: str, crash: str) -> None:
        after = self.reduced(-sign(self.held), quantity)
        self.expect(self.alert(action="close", quantity=str(quantity)), {after}, trouble, crash)

    @rule(side=sides, quantity=units, trouble=troubles, crash=crashes)
    def reduce_only(self, side: int, quantity: Decimal, trouble: str, crash: str) -> None:
        alert = self.alert(action=self.action(side), quantity=str(quantity), reduce_only=True)
        self.expect(alert, {self.reduced(side, quantity)}, trouble, crash)

    @rule(to=st.integers(-4, 4), protection=protections, trouble=troubles, crash=crashes)
    def target_alone(self, to: int, protection: dict[str, str], trouble: str, crash: str) -> None:
        alert = self.alert(action="pos", position_size=str(to * UNIT)) | (protection if to else {})
        self.expect(alert, {to * UNIT}, trouble, crash, protection)

    # --- the world ----------------------------------------------------------------------------------------------------

    @rule(percent=st.sampled_from([-6, -3, -1, 1, 3, 6]))
    def price_moves(self, percent: int) -> None:
        self.price = min(max(self.price + self.price * percent / 100, LOWEST), HIGHEST).quantize(D("0.1"))
        self.fake.futures.set_price(SYMBOL, self.price)
        self.settle()
        self.last_alert = {}

    @rule()
    def the_power_fails(self) -> None:
        held = self.held
        self.daemon.restart()
        self.settle()
        assert self.held == held

    @precondition(lambda self: self.held)
    @rule(quantity=units)
    def the_owner_closes_by_hand(self, quantity: Decimal) -> None:
        held = self.held
        self.by_hand += 1
        order = {"side": "SELL" if held > 0 else "BUY", "quantity": str(min(quantity, abs(held)))}
        how = {"positionSide": "LONG" if held > 0 else "SHORT"} if self.hedge else {"reduceOnly": "true"}
        client = Client(API_KEY, API_SECRET, ping=False)
        client.FUTURES_URL = self.fake.fapi_url
        client.futures_create_order(
            symbol=SYMBOL, type="MARKET", newClientOrderId=f"hand{self.by_hand}", **order, **how
        )
        self.settle()
        assert self.held == held - sign(held) * min(quantity, abs(held))
        self.last_alert = {}

    # --- saying it ----------------------------------------------------------------------------------------------------

    def comment(self) -> str:
        self.alerts += 1
        return f"alert {self.alerts}"

    def alert(self, **fields: object) -> dict[str, Any]:
        """It says when it fired: otherwise an entry soon after an exit that found nothing could be a late one."""
        now = datetime.now(UTC).isoformat()
        return {"symbol": f"{SYMBOL}.P", "comment": self.comment(), "timenow": now} | fields

    def strategy_alert(self, target: Decimal) -> dict[str, Any]:
        before, self.strategy = self.strategy, target
        change = target - before
        return self.alert(
            action=self.action(sign(change)),
            quantity=str(abs(change)),
            market_position=word(target),
            prev_market_position=word(before),
            position_size=str(target),
        )

    @staticmethod
    def action(side: int) -> str:
        return "buy" if side > 0 else "sell"

    def reduced(self, side: int, quantity: Decimal) -> Decimal:
        held = self.held
        return held + side * min(quantity, abs(held)) if sign(held) == -side else held

    def after_target(self, target: Decimal, side: int) -> Decimal:
        """What is held after an order on that side which states its target; never the wrong way."""
        held = self.held
        if not target or sign(target - held) == side:
            return target
        return held

    def post(self, alert: dict[str, Any]) -> Reply | None:
        """None when the process died before it could answer."""
        try:
            reply = self.daemon.post(**alert)
        except (OSError, HTTPException, ValueError):
            return None
        assert reply.status in (200, 202), reply
        return reply

    def expect(
        self,
        alert: dict[str, Any],
        after: set[Decimal],
        trouble: str,
        crash: str,
        protection: dict[str, str] | None = None,
    ) -> None:
        """Sends it through this trouble. What was lost with the power may be lost; nothing else may come instead.

        `protection`: of an entry; an exit has none.
        """
        before = self.held
        allowed = set(after)
        self.last_alert = alert if not trouble else {}
        if trouble in (LOST, NEVER_ARRIVED):
            self.fake.overload("unknown", executed=trouble == LOST)
        if trouble == "crash":
            self.daemon.kill()
            self.daemon.start(crash_at=crash, wait=False)
            self.daemon.wait_until_listening()
        self.post(alert)
        if trouble == "crash":
            self.daemon.restart()
            self.post(alert)
        if trouble in (NEVER_ARRIVED, "crash"):
            allowed |= {before, ZERO}
        self.settle(protection, before)
        self.fake.clear_faults()
        said = [(row["Decision"], row["Reason"]) for row in self.daemon.signals()[-2:]]
        assert self.held in allowed, f"{before} before, {self.held} held, wanted {after}: {alert}\n{said}"
        only_reduces = all(sign(each) in (0, sign(before)) and abs(each) <= abs(before) for each in after)
        assert not only_reduces or abs(self.held) <= abs(before)

    # --- what must hold -----------------------------------------------------------------------------------------------

    @property
    def held(self) -> Decimal:
        sides = ("LONG", "SHORT") if self.hedge else ("BOTH",)
        return sum((self.fake.futures.amount(SYMBOL, side) for side in sides), ZERO)

    def settle(self, protection: dict[str, str] | None = None, before: Decimal = ZERO) -> None:
        """Until nothing is under way any more; then everything must be true."""
        problems: list[str] = ["never looked"]

        def is_true() -> bool:
            problems[:] = self.problems(self.asked_now(protection, before))
            return not problems

        eventually(is_true, 15, lambda: f"{problems}\n{self.daemon.trades()[-8:]}\n{self.daemon.log()[-6000:]}")
        self.asked = self.asked_now(protection, before)
        self.check_records()

    def asked_now(self, protection: dict[str, str] | None, before: Decimal) -> dict[str, str]:
        """The protection that the position should have: the last entry's that asked for any."""
        held = self.held
        if not held:
            return {}
        kept = self.asked if sign(held) == sign(before or held) else {}
        entered = protection is not None and (abs(held) > abs(before) or sign(held) != sign(before))
        return protection if entered and protection else kept

    def problems(self, asked: dict[str, str]) -> list[str]:
        status = self.daemon.owner_get("/status")
        found = [f"unresolved: {order}" for order in status["unresolved_orders"]]
        there = {
            (each.symbol, "LONG" if each.amount > 0 else "SHORT"): abs(each.amount)
            for each in self.fake.futures.positions
        }
        books = {
            (each["symbol"], each["side"]): D(str(each["quantity"]))
            for each in self.daemon.owner_get("/positions")["positions"]
        }
        if books != there:
            found.append(f"books {books}, exchange {there}")
        live = Counter(algo.type for algo in self.fake.futures.algos if algo.status == "NEW")
        wanted = Counter(CONDITIONAL[name] for name in asked)
        if live != wanted:
            found.append(f"protection {live}, wanted {wanted}")
        trailing = [a.quantity for a in self.fake.futures.algos if a.status == "NEW" and a.trails]
        if any(quantity != abs(self.held) for quantity in trailing):
            found.append(f"trailing {trailing}, held {self.held}")
        if len(there) > 1 or status["drift"] or status["halted"]:
            found.append(f"{there}, drift {status['drift']}, halted {status['halted']}")
        return found

    def check_records(self) -> None:
        assert_csvs_equal_journal(self.daemon)
        assert set(self.fake.futures_posts_by_client_id.values()) <= {1}
        assert set(self.fake.futures.orders_by_client_id.values()) <= {1}
        signal_of = {row["ClientOrderID"]: row["SignalID"] for row in self.daemon.trades()}
        protection = {algo.client_id for algo in self.fake.futures.algos}
        orders = defaultdict(list)
        for order in self.fake.futures.orders:
            if order.client_id.startswith("gh") and order.client_id not in protection:
                orders[signal_of[order.client_id]].append(order.reduces)
        for signal_id, reduces in orders.items():
            assert sorted(reduces) in ([False], [True], [False, True]), f"{signal_id} became {len(reduces)} orders"


@pytest.mark.parametrize("hedge", [False, True], ids=["one-way", "hedge"])
def test_whatever_happens_books_and_exchange_agree_and_nothing_opens_by_mistake(nursery: Nursery, hedge: bool) -> None:
    run_state_machine_as_test(type("Here", (Stories,), {"nursery": nursery, "hedge": hedge}), settings=STORIES)
