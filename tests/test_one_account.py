"""One account for this program and its owner: what is said of an order, a position or a leverage must hold there, too.

0.01 BTC are bought at 40000, of which spot keeps 0.00999.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from builders import an_exit as an_exit_order
from builders import at
from fake_faults import Fault
from harness import eventually
from scenes import QUICK, SYMBOL, Scene, dec

from broker import Outcome, Refused
from guardian import Guardian, Waits
from models import Instrument, Order, OrderStatus, OrderType
from protection import Guard

MakeScene = Callable[..., Scene]
ORDER = "POST /fapi/v1/order"
ALWAYS = 10**6


def open_orders(there: Scene) -> list[Any]:
    return [order for order in there.orders() if order.is_open]


def owner_buys(there: Scene, quantity: str = "0.1") -> None:
    hedge = {"positionSide": "LONG"} if there.kind == "hedge" else {}
    there.owner.futures_create_order(symbol=SYMBOL, side="BUY", type="MARKET", quantity=quantity, **hedge)


def leverage_at(there: Scene, symbol: str = SYMBOL) -> int:
    return there.fake.futures.engine.market(symbol).leverage


def leverages_set(there: Scene, symbol: str) -> list[str]:
    """By the daemon or the owner; the fake keeps every request."""
    return [c.params["leverage"] for c in there.fake.calls("POST /fapi/v1/leverage") if c.params["symbol"] == symbol]


def looks_at_the_balance(there: Scene) -> int:
    return sum(call.path.endswith(("/balance", "/v3/account")) for call in there.fake.requests)


def drift(there: Scene) -> Any:
    return there.status()["drift"]


# --- a resting way out is no way out ----------------------------------------------------------------------------------


def with_a_resting_close(scene: MakeScene, kind: str) -> Scene:
    there = scene(kind)
    there.enter()
    assert there.post("close", type="limit", price="42000")["status"] == "NEW"
    return there


@pytest.mark.parametrize(
    ("kind", "way"), [("futures", "close"), ("futures", "flat"), ("futures", "close-all"), ("hedge", "flat")]
)
def test_a_limit_close_that_rests_does_not_shut_the_other_ways_out(scene: MakeScene, kind: str, way: str) -> None:
    there = with_a_resting_close(scene, kind)
    if way == "close-all":
        assert there.daemon.owner_post("/close-all")["closed"] == 1
    else:
        reply = there.post("close") if way == "close" else there.post("sell", market_position="flat")
        assert reply["decision"] == "ACCEPTED", reply.body
    there.wait_until_flat()
    assert not open_orders(there)
    assert [row["Status"] for row in there.rows(Action="SELL")].count("FILLED") == 1


@pytest.mark.parametrize("kind", ["futures", "hedge"])
def test_a_plain_sell_beside_a_limit_close_never_becomes_an_entry(scene: MakeScene, kind: str) -> None:
    there = with_a_resting_close(scene, kind)
    there.post("sell", quantity="0.01", stop_loss_percent=2)
    assert there.status()["trades_today"] == 1
    assert {p.side for p in there.fake.futures.positions if p.amount} <= {"BOTH", "LONG"}
    assert all(p.amount >= 0 for p in there.fake.futures.positions)


# --- what closes is no entry when there is nothing left to close ------------------------------------------------------


@pytest.mark.parametrize("kind", ["spot", "futures", "hedge"])
def test_a_percentage_of_the_position_is_none_of_the_balance(scene: MakeScene, kind: str) -> None:
    """It buys a short back that its stop has closed already, and must not put so much of the balance into a long."""
    there = scene(kind)
    if kind != "spot":
        there.enter("sell")
        assert there.post("buy", close_percent=100)["status"] == "FILLED"
        there.wait_until_flat()
    refused = there.post("buy", close_percent=3, comment="again")
    assert (refused["decision"], refused["check"]) == ("REJECTED", "size")
    assert not there.held_there()


def test_on_spot_what_leaves_the_strategy_short_is_no_entry(scene: MakeScene) -> None:
    """From -0.03 to -0.02: a part of its short is bought back, which spot never held."""
    there = scene("spot")
    cover = there.post("buy", quantity="0.01", position_size="-0.02")
    assert (cover["decision"], cover["check"]) == ("REJECTED", "no_position")
    assert not there.held_there()
    # Stated alone, as the position to hold, it is nothing on spot.
    there.enter()
    assert there.post("buy", position_size="-0.02")["status"] == "FILLED"
    there.wait_until_flat()


# --- protection while the way out waits -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["futures", "spot"])
def test_protection_stays_while_the_way_out_waits_for_an_order_in_doubt(scene: MakeScene, kind: str) -> None:
    there = scene(kind)
    path = "/fapi/v1/order" if kind == "futures" else "/api/v3/order"
    there.enter(stop_loss=39200)
    there.wait_for(*there.protected(stop_loss=39200))
    before, known = there.waiting(), {order.client_id for order in there.orders()}
    there.fake.inject(Fault("reset", f"POST {path}", executed=True))
    in_doubt = Fault(
        "status", f"GET {path}", times=ALWAYS, status=503, html=True,
        when=lambda call: call.params.get("origClientOrderId") not in known,
    )  # fmt: skip
    there.fake.inject(in_doubt)
    entry = threading.Thread(target=lambda: there.post("buy", quantity="0.01", comment="its reply is lost"))
    entry.start()
    time.sleep(0.3)
    assert there.post("close")["status"] == "PENDING"
    entry.join()
    assert there.waiting() == before
    there.fake.clear_faults()
    there.wait_until_flat()


# --- a way out by amount without a price ------------------------------------------------------------------------------


def test_a_way_out_by_amount_leaves_by_the_last_price_when_there_is_no_newer_one(scene: MakeScene) -> None:
    there = scene("futures", {"price": 0.5})
    there.enter(stop_loss=39200)
    there.wait_for(*there.protected(stop_loss=39200))
    there.fake.inject(Fault("status", "GET /fapi/*ticker/price", times=ALWAYS, status=503, html=True))
    there.daemon.restart()
    assert there.daemon.post(symbol=SYMBOL, action="sell", amount_usdt=160)["decision"] == "ACCEPTED"
    assert there.waiting() == there.protected(stop_loss=39200)
    eventually(lambda: there.held() == dec("0.006"), 8, lambda: there.tell("0.006"))
    assert there.waiting() == there.protected(stop_loss=39200)
    assert there.daemon.post(symbol=SYMBOL, action="close")["decision"] == "ACCEPTED"
    there.wait_until_flat()


# --- half a reversal --------------------------------------------------------------------------------------------------


def test_a_reversal_whose_entry_never_left_says_so_and_is_no_new_try(scene: MakeScene) -> None:
    there = scene("futures")
    there.enter()
    there.fake.inject(
        Fault("error", ORDER, times=ALWAYS, status=503, code=-1000, message="Service Unavailable.",
              when=lambda call: "reduceOnly" not in call.params)
    )  # fmt: skip
    reversal = {"reverse": True, "quantity": "0.02"}
    reply = there.post("sell", **reversal)
    assert (reply.status, reply["success"], reply["decision"]) == (200, False, "ACCEPTED")
    assert (reply["closed"]["status"], dec(reply["closed"]["executed_quantity"])) == ("FILLED", dec("0.01"))
    assert reply["reason"] == reply["error"]
    there.fake.clear_faults()
    assert there.post("sell", **reversal)["decision"] == "DUPLICATE"
    there.wait_until_flat()


@pytest.mark.parametrize("fails", [True, False], ids=["still long", "short by then"])
def test_a_flat_alert_behind_a_reversal_closes_what_is_held_when_it_leaves(scene: MakeScene, fails: bool) -> None:
    there = scene("futures")
    there.enter(stop_loss_percent=2)
    there.wait_for(*there.protected(stop_loss=39200))
    there.fake.inject(Fault("delay", "DELETE /fapi/v1/algoOrder", seconds=1.2, executed=True))
    if fails:
        there.fake.inject(Fault("error", ORDER, code=-4131))
    said = {"market_position": "short", "quantity": "0.02", "position_size": "-0.01"}
    reversal = threading.Thread(target=lambda: there.post("sell", **said))
    reversal.start()
    time.sleep(0.3)
    assert there.post("sell", market_position="flat", comment="the strategy's stop")["decision"] == "ACCEPTED"
    reversal.join()
    there.wait_until_flat()
    assert len(there.rows(Status="FILLED")) == (2 if fails else 4)


def test_the_dry_run_of_a_reversal_whose_entry_is_refused_shows_the_way_out(scene: MakeScene) -> None:
    there = scene("futures")
    there.enter()
    there.daemon.owner_post("/pause")
    said: dict[str, Any] = {"symbol": SYMBOL, "action": "sell", "market_position": "short", "quantity": "0.01"}
    told = there.daemon.post("/webhook?dry_run=true", **said)
    assert (told["decision"], told["check"]) == ("ACCEPTED", None)
    assert "only the way out" in told["reason"]
    assert (told["order"]["side"], told["order"]["is_entry"]) == ("SELL", False)
    there.daemon.post(**said)
    there.wait_until_flat()


# --- what the owner holds beside us -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["futures", "hedge"])
def test_no_entry_where_the_owner_holds_a_position_until_it_is_closed(scene: MakeScene, kind: str) -> None:
    there = scene(kind, {"compare": 0.3})
    owner_buys(there, "0.1")
    eventually(lambda: bool(drift(there)), 5, lambda: "no drift")
    for side in ("buy", "sell"):
        assert there.post(side, quantity="0.01", stop_loss_percent=2)["check"] == "foreign_position"
    assert not there.waiting()
    there.close_by_hand("0.1")
    eventually(lambda: not drift(there), 5, lambda: "drift stays")
    there.enter()
    assert there.post("close")["status"] == "FILLED"


def test_what_the_owner_held_before_the_start_is_respected_by_the_first_alert(scene: MakeScene) -> None:
    there = scene("futures")
    owner_buys(there, "0.1")
    there.daemon.restart()
    assert there.post("buy", quantity="0.01", stop_loss_percent=2)["check"] == "foreign_position"
    assert there.held_there() == dec("0.1")


@pytest.mark.parametrize("protected", [False, True])
def test_what_the_owner_added_to_our_position_bars_entries_and_no_way_out(scene: MakeScene, protected: bool) -> None:
    there = scene("futures", {"compare": 0.3})
    asked: dict[str, Any] = {"stop_loss_percent": 2} if protected else {}
    there.enter(**asked)
    owner_buys(there, "0.02")
    eventually(lambda: bool(drift(there)), 5, lambda: "no drift")
    assert there.post("buy", quantity="0.01", comment="more")["check"] == "foreign_position"
    assert there.post("close")["status"] == "FILLED"
    assert there.held_there() == dec("0.02")
    eventually(lambda: there.post("buy", quantity="0.01", comment=str(time.monotonic_ns()))["check"] is not None,
               3, lambda: "entered")  # fmt: skip
    assert there.held_there() == dec("0.02")


def test_a_resting_order_of_ours_does_not_hide_what_the_owner_holds(scene: MakeScene) -> None:
    there = scene("futures", {"compare": 0.3})
    assert there.post("buy", quantity="0.01", type="limit", price="39000")["status"] == "NEW"
    there.owner.futures_create_order(symbol=SYMBOL, side="SELL", type="MARKET", quantity="0.005")
    eventually(lambda: bool(drift(there)), 5, lambda: "no drift")
    assert there.post("buy", quantity="0.004")["check"] == "foreign_position"
    there.close_by_hand("0.005", side="BUY")
    eventually(lambda: not drift(there), 5, lambda: "drift stays")
    assert there.enter(comment="again")["status"] == "FILLED"


def test_in_hedge_mode_no_entry_joins_what_the_owner_holds_on_the_other_side_of_a_protected_position(
    scene: MakeScene,
) -> None:
    there = scene("hedge", {"compare": 0.3})
    there.enter(stop_loss_percent=2)
    there.wait_for(*there.protected(stop_loss=39200))
    there.owner.futures_create_order(symbol=SYMBOL, side="SELL", positionSide="SHORT", type="MARKET", quantity="0.02")
    eventually(lambda: bool(drift(there)), 5, lambda: "no drift")
    reply = there.post("sell", reverse=True, quantity="0.01", stop_loss_percent=2)
    assert (reply["status"], "no entry after it (foreign_position)" in reply["reason"]) == ("FILLED", True)
    there.wait_for()
    assert there.fake.futures.amount(SYMBOL, "SHORT") == dec("-0.02")


def test_a_position_that_was_closed_while_the_account_was_looked_at_is_not_somebody_elses(scene: MakeScene) -> None:
    there = scene("futures", {"compare": 1.0})
    there.enter()
    # The second of a comparison's two looks: what it tells is a moment old when it arrives.
    there.fake.inject(Fault("delay", "GET /fapi/v3/positionRisk", times=2, seconds=0.5, executed=True))
    eventually(lambda: there.fake.faults_left == 0, 5, lambda: "it was not looked at")
    assert there.post("close")["status"] == "FILLED"
    time.sleep(0.6)
    there.enter()
    assert drift(there) == []


# --- leverage and margin ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["position", "order"])
def test_the_background_leaves_the_leverage_alone_where_the_owner_has_something(scene: MakeScene, what: str) -> None:
    there = scene("futures", allowed_symbols="BTCUSDT,ETHUSDT", leverage=5)
    eventually(lambda: leverages_set(there, "ETHUSDT") == ["5"], 5, lambda: str(there.fake.requests[-5:]))
    there.daemon.kill()
    there.owner.futures_change_leverage(symbol=SYMBOL, leverage=20)
    if what == "position":
        owner_buys(there, "0.1")
    else:
        there.owner.futures_create_order(
            symbol=SYMBOL, side="BUY", type="LIMIT", quantity="0.1", price="39000", timeInForce="GTC"
        )
    there.owner.futures_change_leverage(symbol="ETHUSDT", leverage=20)
    told = len(leverages_set(there, "ETHUSDT"))
    there.daemon.start()
    # ETHUSDT comes after BTCUSDT, and nothing is there of it.
    eventually(lambda: len(leverages_set(there, "ETHUSDT")) > told, 5, lambda: "ETHUSDT was not prepared")
    assert (leverage_at(there), leverages_set(there, SYMBOL)[-1]) == (20, "20")


def test_the_leverage_of_a_resting_entry_stays_its_own(scene: MakeScene) -> None:
    there = scene("futures", allowed_symbols="BTCUSDT,ETHUSDT", max_risk_per_trade=5000)
    resting = there.post("buy", quantity="0.1", leverage=5, type="limit", price="39000")
    assert resting["status"] == "NEW"
    there.owner.futures_change_leverage(symbol="ETHUSDT", leverage=20)
    there.daemon.restart()
    eventually(lambda: leverage_at(there, "ETHUSDT") == 1, 5, lambda: "ETHUSDT was not prepared")
    assert leverage_at(there) == 5


def test_an_alert_that_places_nothing_changes_no_leverage(scene: MakeScene) -> None:
    there = scene("futures")
    for symbol in ("ETHUSDT", "SOLUSDT"):
        there.owner.futures_change_leverage(symbol=symbol, leverage=20)
    dry = there.daemon.post("/webhook?dry_run=true", symbol="ETHUSDT", action="buy", quantity="0.1")
    assert dry["decision"] == "ACCEPTED"
    refused = there.daemon.post(symbol="SOLUSDT", action="buy", quantity="1", confidence=1)
    assert refused["check"] == "confidence"
    there.enter()  # the account is looked at again soon after it
    looked = looks_at_the_balance(there)
    eventually(lambda: looks_at_the_balance(there) > looked + 1, 8, lambda: "no second look")
    assert (leverage_at(there, "ETHUSDT"), leverage_at(there, "SOLUSDT")) == (20, 20)
    assert {call.params["symbol"] for call in there.fake.calls("POST /fapi/v1/marginType")} == {SYMBOL}


def test_an_entry_takes_the_leverage_of_what_is_held_or_is_refused(scene: MakeScene) -> None:
    there = scene("futures")
    there.enter(leverage=10)
    assert there.post("buy", quantity="0.005", leverage=1)["check"] == "leverage"
    there.enter(quantity="0.005")
    assert leverage_at(there) == 10
    assert {position["leverage"] for position in there.status()["positions"]} == {10}


# --- fees, coins and hands --------------------------------------------------------------------------------------------


def test_a_fee_in_the_very_asset_that_is_traded_leaves_the_books_equal_to_the_account(scene: MakeScene) -> None:
    there = scene("futures", {"compare": 0.3})
    there.fake.futures.set_options(fees_in_bnb=True)
    there.fake.futures.set_balance("BNB", 5)
    bnb = {"symbol": "BNBUSDT", "quantity": "1", "price": None}
    assert there.post("buy", **bnb, stop_loss_percent=2)["status"] == "FILLED"
    (position,) = there.status()["positions"]
    assert dec(position["quantity"]) == there.fake.futures.amount("BNBUSDT") == 1
    assert there.post("close", symbol="BNBUSDT", price=None)["status"] == "FILLED"
    eventually(lambda: not there.status()["positions"] and not there.waiting(), 5, lambda: there.tell("nothing"))
    assert there.fake.futures.amount("BNBUSDT") == 0
    assert there.notices() == ""


def test_coins_that_left_the_account_are_not_searched_all_over_again(scene: MakeScene) -> None:
    there = scene("spot", {"compare": 0.3})
    there.enter()
    there.fake.set_balance("BTC", "0.005")
    eventually(lambda: bool(drift(there)), 8, lambda: "no drift")
    looked = looks_at_the_balance(there)
    eventually(lambda: looks_at_the_balance(there) > looked + 10, 10, lambda: "no comparisons")
    assert len(there.fake.calls("GET /api/v3/myTrades")) <= 2


def compared_anew(there: Scene) -> None:
    there.daemon.kill()
    there.daemon.set(test_patience=QUICK | {"compare": 0.3})
    there.daemon.start()


def test_a_close_by_hand_between_two_entries_is_found(scene: MakeScene) -> None:
    there = scene("futures")
    there.enter(stop_loss_percent=2)
    there.close_by_hand("0.01")
    there.enter(comment="before the next comparison")
    compared_anew(there)
    eventually(lambda: there.held() == there.held_there() == dec("0.01"), 8, lambda: there.tell("0.01"))
    eventually(lambda: not drift(there), 5, lambda: str(drift(there)))
    assert there.post("close")["status"] == "FILLED"
    there.wait_until_flat()


def test_the_owners_sale_from_before_the_position_is_never_taken_for_its_close(scene: MakeScene) -> None:
    there = scene("spot", {"compare": 0.3})
    there.fake.set_balance("BTC", 1)
    there.owner.create_order(symbol=SYMBOL, side="SELL", type="MARKET", quantity="0.5")
    there.enter()
    there.fake.fail_next("error", code=-2010)
    assert there.post("buy", quantity="0.01", comment="refused")["success"] is False
    there.fake.set_balance("BTC", 0)  # withdrawn: nothing was sold
    eventually(lambda: bool(drift(there)), 8, lambda: "no drift")
    looked = looks_at_the_balance(there)
    eventually(lambda: looks_at_the_balance(there) > looked + 6, 10, lambda: "no comparisons")
    assert there.held() == dec("0.00999")
    assert not there.rows(Action="SELL")


# --- a sale that costs more than its limit ----------------------------------------------------------------------------


def test_a_marketable_sell_limit_is_judged_at_the_price_that_it_gets(scene: MakeScene) -> None:
    there = scene("futures", max_risk_per_trade=390)
    sale = {"type": "limit", "price": "38500", "quantity": "0.01"}  # 385 at its limit, 400 in the market
    assert there.post("sell", **sale)["check"] == "size"
    assert there.held_there() == 0


def test_on_paper_a_sell_limit_is_judged_at_the_last_price_and_refused_without_one(scene: MakeScene) -> None:
    there = scene("paper futures")
    sale = {"type": "limit", "price": "100", "quantity": "5"}
    assert there.post("sell", **sale)["check"] == "size"
    there.enter(quantity="0.001")
    assert there.post("close")["status"] == "FILLED"
    assert there.post("sell", **sale, comment="the price is known")["check"] == "size"
    assert there.held() == 0


# --- protection that ends at once -------------------------------------------------------------------------------------

STOP = replace(an_exit_order(), type=OrderType.STOP, leg="stop_loss", stop_price=Decimal(39200))


class EndsAtOnce:
    """Every protective order is taken and has expired before anybody looks."""

    def __init__(self, is_there: bool = True) -> None:
        self.sent_at: list[float] = []
        self.closed: list[tuple[Instrument, str]] = []
        self._is_there = is_there
        self._was_asked = False

    async def look(self, instrument: Instrument) -> Guard:
        return Guard(place=(STOP,)) if self.holds(instrument) else Guard()

    async def hand_over(self, orders: Sequence[Order]) -> Sequence[Outcome]:
        self.sent_at.append(time.monotonic())
        await asyncio.sleep(0)
        return [Refused("stands for an answer") for _ in orders]

    async def settle(self, order: Order, outcome: Outcome) -> Order:
        return replace(order, status=OrderStatus.EXPIRED)

    async def resolve(self, order: Order) -> Order:
        return order

    async def cancel(self, order: Order) -> None:
        raise AssertionError("there is nothing to cancel")

    def follow(self, order: Order) -> None:
        raise AssertionError("nothing rests")

    async def close(self, instrument: Instrument, why: str) -> None:
        self.closed.append((instrument, why))

    def holds(self, instrument: Instrument) -> bool:
        return not self.closed and (self._is_there or not self._was_asked)

    def tell_owner(self, text: str) -> None:
        raise AssertionError("there is nothing to say")

    async def is_gone(self, instrument: Instrument) -> bool:
        self._was_asked = True
        return not self._is_there

    async def clear(self, instrument: Instrument) -> bool:
        raise AssertionError("nothing was in doubt")


def test_what_somebody_closed_meanwhile_is_not_closed_for_want_of_protection() -> None:
    hands = EndsAtOnce(is_there=False)

    async def guarded() -> None:
        tasks: list[asyncio.Task[None]] = []
        guardian = Guardian(
            hands, lambda work: tasks.append(asyncio.ensure_future(work)), Waits(resend=0.01, give_up=0.02)
        )
        guardian.look_soon(at(SYMBOL))
        await asyncio.wait_for(asyncio.gather(*tasks), 3)

    asyncio.run(guarded())
    assert hands.sent_at
    assert hands.closed == []


def test_protection_that_ends_at_once_is_placed_again_after_a_pause_and_then_the_position_is_closed() -> None:
    hands = EndsAtOnce()

    async def guarded() -> None:
        tasks: list[asyncio.Task[None]] = []
        guardian = Guardian(
            hands, lambda work: tasks.append(asyncio.ensure_future(work)), Waits(resend=0.1, give_up=0.25)
        )
        guardian.look_soon(at(SYMBOL))
        await asyncio.wait_for(asyncio.gather(*tasks), 3)

    asyncio.run(guarded())
    pauses = [later - earlier for earlier, later in zip(hands.sent_at, hands.sent_at[1:], strict=False)]
    assert len(pauses) >= 1
    assert min(pauses) >= 0.09
    ((instrument, why),) = hands.closed
    assert instrument == at(SYMBOL)
    assert why.startswith("stop_loss: EXPIRED")
