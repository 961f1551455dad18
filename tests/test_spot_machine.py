"""On spot, too, everybody does what he likes, in any order: strategy, market, owner, network and power supply.

As test_futures_machine.py, with what is different here: coins that a fee or protection takes from the balance, orders
that rest and fill bit by bit, and alerts that come together. The account holds no other coins: what there is, is ours.
"""

from __future__ import annotations

import tempfile
import threading
from collections import Counter, defaultdict
from decimal import Decimal
from http.client import HTTPException
from pathlib import Path
from typing import Any

from binance import Client
from fake_binance import FakeBinance
from fake_matching import Order
from harness import API_KEY, API_SECRET, EAGER, Daemon, Nursery, assert_csvs_equal_journal, binance, eventually
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from stories import stories

D = Decimal
ZERO = D(0)
SYMBOL = "BTCUSDT"
STEP = D("0.00001")
LOWEST, HIGHEST = D(40000), D(60000)
TOO_LITTLE = D(6)  # in USDT: near the smallest notional, 5, a rest may be neither sold nor protected
LEGS = {"stop_loss": "stop_loss", "take_profit": "take_profit", "trailing_percent": "trailing_stop"}
MOST_OPEN = 3

STORIES = stories(6, steps=14)
QUICK = {"follow": 0.05, "longest_look": 0.1, "first_look": 0.05, "slack": 0.1, "late": [0.2, 0.5],
         "compare": 0.3, "second_look": 0.1, "guard_again": 0.5, "guard_give_up": 1.0}  # fmt: skip

ORDER, PAIR, CANCEL = "POST /api/v3/order", "POST /api/v3/orderList/oco", "DELETE /api/v3/order"
TROUBLES: dict[str, dict[str, Any]] = {
    "none": {},
    "the reply is lost": {"kind": "reset", "where": ORDER, "executed": True},
    "lost on the way": {"kind": "status", "where": ORDER, "status": 502},
    "refused": {"kind": "error", "where": ORDER, "code": -2010, "message": "Market is closed."},
    "told to wait": {"kind": "ban", "where": ORDER, "status": 429, "retry_after": 1},
    "the pair's reply is lost": {"kind": "reset", "where": PAIR, "executed": True},
    "the pair is lost on the way": {"kind": "reset", "where": PAIR},
    "the cancelling is lost": {"kind": "status", "where": CANCEL, "status": 502},
    "the cancelling's reply is lost": {"kind": "reset", "where": CANCEL, "executed": True},
}
CRASHES = (
    "after the decision's commit",
    "while the order is under way",
    "after the broker's answer",
    "inside the outcome's transaction",
    "before protection leaves",
    "after protection was taken",
    "after the protection is cancelled",
    "before a waiting order is released",
    "after a waiting order was released",
)
PROTECTIONS: list[dict[str, str]] = [
    {},
    {"stop_loss_percent": "2"},
    {"take_profit_percent": "3"},
    {"stop_loss_percent": "3", "take_profit_percent": "4"},
    {"trailing_percent": "2", "take_profit_percent": "5"},
]

troubles = st.sampled_from([*["none"] * 6, *TROUBLES, *["crash"] * 2])
crashes = st.sampled_from(CRASHES)
coins = st.integers(2, 12).map(lambda n: str(D(n) / 1000))
protections = st.sampled_from(PROTECTIONS)
entries = st.one_of(
    st.builds(lambda quantity, asked: {"action": "buy", "quantity": quantity} | asked, coins, protections),
    st.builds(
        lambda amount, asked: {"action": "buy", "amount_usdt": amount} | asked,
        st.sampled_from(["7", "55.5", "300"]),
        protections,
    ),
)
ways_out = st.one_of(
    st.sampled_from([{"action": "sell"}, {"action": "close"}, {"action": "sell", "market_position": "flat"}]),
    st.builds(lambda quantity: {"action": "close", "quantity": quantity}, coins),
    st.builds(lambda percent: {"action": "close", "close_percent": percent}, st.sampled_from([10, 50, 90])),
)
# Above or below the market by so much: it rests.
off = st.sampled_from([D("0.5"), D(2)])
offers = st.builds(
    lambda quantity, percent, asked: (
        {"action": "buy", "type": "limit", "quantity": quantity, "percent off": percent} | asked
    ),
    coins,
    off,
    protections,
)
closing_offers = st.builds(
    lambda quantity, percent: {"action": "close", "type": "limit", "quantity": quantity, "percent off": percent},
    coins,
    off,
)
targets = st.builds(lambda quantity, asked: {"action": "pos", "position_size": quantity} | asked, coins, protections)
alerts = st.one_of(entries, ways_out, offers, closing_offers, targets)


class Stories(RuleBasedStateMachine):
    """No rule has a precondition: of alerts that come together, who is first is not for the story to know."""

    nursery: Nursery

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeBinance(API_KEY, API_SECRET, balances={"USDT": 10**5}, weight_limit=10**9).start()
        self.fake.order_limit = 10**6
        self.price = D(50000)
        self.fake.set_price(SYMBOL, self.price)
        self.folder = tempfile.TemporaryDirectory()
        limits = {"max_trades_per_day": 10**6, "max_open_trades": MOST_OPEN, "max_risk_per_trade": 10**5}
        waits = {"test_absence_seconds": 0.4, "test_patience": QUICK, "test_market": EAGER, "allowed_symbols": SYMBOL}
        given = binance(self.fake, cooldown_seconds=0) | limits | waits
        self.daemon = Daemon(self.nursery, Path(self.folder.name), **given)
        self.daemon.start()
        self.owner = Client(API_KEY, API_SECRET, ping=False)
        self.owner.API_URL = self.fake.api_url
        self.said = 0

    def teardown(self) -> None:
        try:
            self.everything_is_closed()
        finally:
            self.daemon.kill()
            self.fake.stop()
            self.folder.cleanup()

    # --- alerts -----------------------------------------------------------------------------------------------------

    @rule(alert=entries, trouble=troubles, crash=crashes)
    def an_entry(self, alert: dict[str, Any], trouble: str, crash: str) -> None:
        self.send(alert, trouble, crash)

    @rule(alert=ways_out, trouble=troubles, crash=crashes)
    def a_way_out(self, alert: dict[str, Any], trouble: str, crash: str) -> None:
        self.send(alert, trouble, crash)

    @rule(alert=st.one_of(offers, targets), trouble=troubles, crash=crashes)
    def an_order_that_rests_or_a_target(self, alert: dict[str, Any], trouble: str, crash: str) -> None:
        self.send(alert, trouble, crash)

    @rule(held=entries, alert=closing_offers)
    def an_offer_of_a_part_of_what_is_held(self, held: dict[str, Any], alert: dict[str, Any]) -> None:
        closed = self.closed_unprotected()
        self.send(held, "none", "")
        self.send(alert, "none", "")
        assert self.closed_unprotected() == closed, "what the offer leaves can be protected"

    @rule(
        together=st.lists(alerts, min_size=2, max_size=4), trouble=st.sampled_from(list(TROUBLES)), dies=st.booleans()
    )
    def several_alerts_at_once(self, together: list[dict[str, Any]], trouble: str, dies: bool) -> None:
        if TROUBLES[trouble]:
            self.fake.fail_next(**TROUBLES[trouble])
        senders = [threading.Thread(target=self.post, args=(self.worded(alert),)) for alert in together]
        for sender in senders:
            sender.start()
        if dies:
            self.daemon.restart()
        for sender in senders:
            sender.join()
        self.settle()

    # --- the world --------------------------------------------------------------------------------------------------

    @rule(percent=st.sampled_from([-6, -3, -1, 1, 3, 6]))
    def price_moves(self, percent: int) -> None:
        self.price = min(max(self.price + self.price * percent / 100, LOWEST), HIGHEST).quantize(D("0.01"))
        self.settle()

    @rule(share=st.sampled_from([D("0.1"), D("0.5"), D("0.97"), D(1)]))
    def somebody_trades_with_what_rests(self, share: Decimal) -> None:
        for order in self.waiting("LIMIT", "LIMIT_MAKER")[-1:]:
            self.fake.fill(order.order_id, max(STEP, order.remaining * share // STEP * STEP))
        self.settle()

    @rule()
    def the_power_fails(self) -> None:
        before = self.books()
        self.daemon.restart()
        assert self.books() == before, "a restart changes nothing"
        self.settle()

    @rule()
    def the_owner_cancels_what_waits(self) -> None:
        for order in self.waiting()[:1]:
            self.owner.cancel_order(symbol=SYMBOL, orderId=order.order_id)
        self.settle()

    @rule()
    def the_owner_sells_by_hand(self) -> None:
        if self.fake.free("BTC") >= D("0.001"):
            self.owner.create_order(symbol=SYMBOL, side="SELL", type="MARKET", quantity="0.001")
        self.settle()

    @rule()
    def everything_is_closed(self) -> None:
        self.daemon.owner_post("/close-all")
        self.settle()
        assert self.worth(self.there) < TOO_LITTLE
        assert not self.waiting()

    # --- saying it --------------------------------------------------------------------------------------------------

    def worded(self, alert: dict[str, Any]) -> dict[str, Any]:
        self.said += 1
        worded = {name: value for name, value in alert.items() if name != "percent off"}
        if "percent off" in alert:
            off = alert["percent off"] * (-1 if alert["action"] == "buy" else 1)
            worded["price"] = str((self.price * (100 + off) / 100).quantize(D("0.01")))
        return {"symbol": SYMBOL, "comment": f"alert {self.said}"} | worded

    def send(self, alert: dict[str, Any], trouble: str, crash: str) -> None:
        """Through this trouble; after a crash it comes once more."""
        alert = self.worded(alert)
        if trouble == "crash":
            self.daemon.kill()
            self.daemon.start(crash_at=crash, wait=False)
            self.daemon.wait_until_listening()
        elif TROUBLES[trouble]:
            self.fake.fail_next(**TROUBLES[trouble])
        self.post(alert)
        if trouble == "crash":
            self.daemon.restart()
            self.post(alert)
        self.settle()

    def post(self, alert: dict[str, Any]) -> None:
        """Nobody answers when the process died before it could."""
        try:
            reply = self.daemon.post(**alert)
        except (OSError, HTTPException, ValueError):
            return
        assert reply.status in (200, 202, 503), reply

    # --- what must hold ---------------------------------------------------------------------------------------------

    @property
    def there(self) -> Decimal:
        return self.fake.free("BTC") + self.fake.locked("BTC")

    def worth(self, quantity: Decimal) -> Decimal:
        return quantity * self.price

    def waiting(self, *types: str) -> list[Order]:
        return [o for o in self.fake.orders if o.is_open and (not types or (o.type in types and o.working_ms >= 0))]

    def closed_unprotected(self) -> int:
        return sum(row["Strategy"] == "unprotected" for row in self.daemon.signals())

    def books(self) -> dict[str, Any]:
        status = self.daemon.owner_get("/status")
        kept = {name: status[name] for name in ("resting_orders", "trades_today", "open_trades", "paused")}
        return kept | {"held": [(p["quantity"], p["cost"], p["stop_loss"]) for p in status["positions"]]}

    def settle(self) -> None:
        """Until nothing is under way any more; then everything must be true."""
        self.fake.clear_faults()
        self.fake.set_price(SYMBOL, self.price)
        problems: list[str] = ["never looked"]

        def is_true() -> bool:
            problems[:] = self.problems()
            return not problems

        eventually(is_true, 15, lambda: f"{problems}\n{self.daemon.trades()[-8:]}\n{self.daemon.log()[-6000:]}")
        self.check_records()

    def problems(self) -> list[str]:
        status = self.daemon.owner_get("/status")
        found = [f"unresolved: {order}" for order in status["unresolved_orders"]]
        found += [f"{name}: {status[name]}" for name in ("halted", "drift") if status[name]]
        resting = {order["client_order_id"]: order for order in status["resting_orders"]}
        waiting = {order.client_id: order for order in self.waiting()}
        if {key: D(str(each["executed_quantity"])) for key, each in resting.items()} != {
            key: order.executed for key, order in waiting.items()
        }:
            found.append(f"resting {resting}, waiting there {waiting}")
        (position,) = status["positions"] or [None]
        held = D(str(position["quantity"])) if position else ZERO
        if held != self.there if position else self.worth(self.there) >= TOO_LITTLE:
            found.append(f"books {held}, exchange {self.there}")
        return found + (self.unprotected(position, held, resting, waiting) if position else [])

    def unprotected(
        self, position: dict[str, Any], held: Decimal, resting: dict[str, Any], waiting: dict[str, Order]
    ) -> list[str]:
        """What is not being sold already is protected as the position asked for, all of it, once."""
        sells = {key: order for key, order in waiting.items() if not order.is_buy}
        protecting = {key: order for key, order in sells.items() if key in resting and resting[key]["leg"]}
        left = held - sum((order.remaining for key, order in sells.items() if key not in protecting), ZERO)
        wanted = Counter(leg for name, leg in LEGS.items() if position[name] is not None)
        if self.worth(left) < TOO_LITTLE:
            return []
        legs = Counter(resting[key]["leg"] for key in protecting)
        sizes = {order.remaining for order in protecting.values()}
        is_right = legs == wanted and sizes <= {left // STEP * STEP}
        return [] if is_right else [f"protection {legs} of {sizes}, wanted {wanted} of {left}"]

    def check_records(self) -> None:
        assert_csvs_equal_journal(self.daemon)
        assert set(self.fake.orders_by_client_id.values()) <= {1}
        assert self.daemon.owner_get("/status")["open_trades"] <= MOST_OPEN
        signal_of = {row["ClientOrderID"]: row["SignalID"] for row in self.daemon.trades()}
        protection = {
            row["ClientOrderID"] for row in self.daemon.trades() if row["Note"].startswith(tuple(LEGS.values()))
        }
        orders = defaultdict(list)
        for order in self.fake.orders:
            if order.client_id.startswith("gh") and order.client_id not in protection:
                orders[signal_of[order.client_id]].append(order.client_id)
        assert all(len(each) == 1 for each in orders.values()), "one alert, at most one order"


def test_whatever_happens_on_spot_books_and_account_agree_and_what_is_held_is_protected(nursery: Nursery) -> None:
    run_state_machine_as_test(type("Here", (Stories,), {"nursery": nursery}), settings=STORIES)
