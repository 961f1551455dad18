"""The books beside the accounts: what the owner did by hand is taken over once, at the exchange's own numbers.

0.01 BTC are bought at 40000. The accounts are compared every half second here, and what is missing is looked at twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from harness import eventually
from scenes import SYMBOL, BingxScene, Scene, dec

MakeScene = Callable[..., Scene]

EXCHANGES = ("spot", "futures", "hedge")
BINGX = ("bingx", "bingx hedge")
OFTEN: dict[str, object] = {"compare": 0.5, "second_look": 0.2}
BY_HAND = "done at the exchange by hand"
BOTH: dict[str, Any] = {"stop_loss": 39200, "take_profit": 41600}
POSITIONS = "GET /fapi/v3/positionRisk"


def taken_over(there: Scene) -> list[dict[str, str]]:
    return there.rows(Note=BY_HAND)


def wait_for_drift(there: Scene, **books_and_account: str) -> dict[str, str]:
    """Until there is this row and no other."""

    def shown() -> bool:
        drift = there.status()["drift"]
        return len(drift) == 1 and books_and_account.items() <= drift[0].items()

    eventually(shown, 5, lambda: f"{there.status()['drift']} {there.daemon.log()[-1500:]}")
    row: dict[str, str] = there.status()["drift"][0]
    return row


def let_it_compare(there: Scene, times: int = 2) -> None:
    """Until the books were compared so often again."""
    where = "GET /api/v3/openOrders" if there.is_spot else "GET /fapi/v1/openOrders"

    def asked() -> int:
        if isinstance(there, BingxScene):
            return sum(call.path.endswith("/openOrders") for call in there.bingx.calls)
        return len(there.fake.calls(where))

    before = asked()
    eventually(lambda: asked() >= before + times, 10, there.daemon.log)


# --- closed by hand ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("down", [False, True], ids=["running", "down"])
@pytest.mark.parametrize("kind", EXCHANGES)
def test_a_position_closed_by_hand_is_taken_over_at_the_exchanges_price(
    scene: MakeScene, kind: str, down: bool
) -> None:
    there = scene(kind, OFTEN)
    entry = there.enter()
    if down:
        there.daemon.kill()
    there.move(41000)
    number = there.close_by_hand("0.00999" if there.is_spot else "0.01")
    if down:
        there.daemon.start()
    there.wait_until_flat()
    (row,) = taken_over(there)
    assert (row["OrderID"], row["Status"], row["Action"], row["Price"]) == (number, "FILLED", "SELL", "41000")
    trades: list[Any] = [*there.fake.trades, *there.fake.futures.trades]
    assert (dec(row["Fee"]), row["FeeAsset"]) == (trades[-1].commission, "USDT")
    if there.is_spot:
        expected = trades[-1].quantity * 41000 - trades[-1].commission - 400
    else:
        expected = trades[-1].realized_pnl - sum(each.commission for each in trades)
    assert dec(row["RealizedPnL"]) == pytest.approx(expected, abs=Decimal("0.00000001"))
    assert (row["SignalID"], row["ClientOrderID"] == entry["client_order_id"]) == ("", False)
    status = there.status()
    assert (status["drift"], status["halted"], status["open_trades"]) == ([], "", 0)
    assert "taken over into the books" in there.notices() or down


@pytest.mark.parametrize("kind", [*EXCHANGES, *BINGX])
def test_a_part_closed_by_hand_leaves_the_rest(scene: MakeScene, kind: str) -> None:
    there = scene(kind, OFTEN)
    there.enter()
    there.close_by_hand("0.004")
    left = Decimal("0.00599") if there.is_spot else Decimal("0.006")
    eventually(lambda: there.held() == left, 5, there.daemon.log)
    assert len(taken_over(there)) == 1
    assert there.post("close")["quantity"] == float(left)
    there.wait_until_flat()


@pytest.mark.parametrize("down", [False, True], ids=["running", "down"])
@pytest.mark.parametrize("kind", ["futures", "hedge"])
def test_a_protected_position_closed_by_hand_leaves_nothing_behind(scene: MakeScene, kind: str, down: bool) -> None:
    """Its stop ends with it at the exchange: that is no reason to place another, nor to close what is gone."""
    there = scene(kind, OFTEN)
    there.enter(**BOTH, trailing_percent=3)
    there.wait_for(*there.protected(**BOTH, trailing_stop=3))
    sent = len(there.fake.calls("POST /fapi/v1/algoOrder"))
    if down:
        there.daemon.kill()
    there.close_by_hand()
    if down:
        there.daemon.start()
    there.wait_until_flat()
    assert len(taken_over(there)) == 1
    assert "cannot be protected" not in there.notices()
    assert there.rows(Status="REJECTED") == []
    assert len(there.fake.calls("POST /fapi/v1/algoOrder")) == sent


@pytest.mark.parametrize("down", [False, True], ids=["running", "down"])
@pytest.mark.parametrize("kind", BINGX)
def test_at_bingx_a_protected_position_closed_by_hand_leaves_nothing_behind(
    scene: MakeScene, kind: str, down: bool
) -> None:
    there = scene(kind, OFTEN)
    there.enter(**BOTH)
    there.wait_for(*there.protected(**BOTH))
    assert isinstance(there, BingxScene)
    sent = len(there.bingx.order_posts)
    if down:
        there.daemon.kill()
        time.sleep(0.6)
    number = there.close_by_hand()
    if down:
        there.daemon.start()
    there.wait_until_flat()
    assert [row["OrderID"].lstrip("'") for row in taken_over(there)] == [number]
    assert "cannot be protected" not in there.notices()
    assert there.rows(Status="REJECTED") == []
    assert [call.code for call in there.bingx.order_posts[sent:] if call.code != 101205] == []


@pytest.mark.parametrize("another", [False, True])
def test_at_bingx_a_stop_that_was_triggered_is_not_taken_for_a_close_by_hand(scene: MakeScene, another: bool) -> None:
    there = scene("bingx", OFTEN | {"follow": 0.5})
    assert isinstance(there, BingxScene)
    there.bingx.set_options(triggers_another=another)
    there.enter(stop_loss=39200)
    there.wait_for(*there.protected(stop_loss=39200))
    there.move(39000)
    there.wait_until_flat()
    let_it_compare(there)
    assert taken_over(there) == []
    (sale,) = [row for row in there.rows(Status="FILLED") if row["Action"] == "SELL"]
    assert sale["Note"] == "stop_loss at 39200"
    assert dec(sale["RealizedPnL"]) < -9


@pytest.mark.parametrize("kind", ["futures", "hedge"])
def test_after_a_part_was_closed_by_hand_the_protection_fits_the_rest(scene: MakeScene, kind: str) -> None:
    there = scene(kind, OFTEN)
    there.enter(stop_loss=39200, trailing_percent=3)
    there.wait_for(*there.protected(stop_loss=39200, trailing_stop=3))
    there.close_by_hand("0.004")
    there.wait_for(*there.protected("0.006", stop_loss=39200, trailing_stop=3))


def test_in_hedge_mode_the_other_side_is_somebody_elses(scene: MakeScene) -> None:
    there = scene("hedge", OFTEN)
    there.enter()
    there.owner.futures_create_order(symbol=SYMBOL, side="SELL", positionSide="SHORT", type="MARKET", quantity="0.02")
    row = wait_for_drift(there, side="SHORT", books="0", account="0.02")
    assert (row["symbol"], there.held(), taken_over(there)) == (SYMBOL, Decimal("0.01"), [])
    number = there.close_by_hand("0.004")  # a sale, too, but of the long
    eventually(lambda: there.held() == Decimal("0.006"), 5, there.daemon.log)
    assert [row["OrderID"] for row in taken_over(there)] == [number]
    there.close_by_hand("0.02", side="BUY")
    eventually(lambda: not there.status()["drift"], 5, there.daemon.log)
    assert there.held() == Decimal("0.006")


@pytest.mark.parametrize("kind", ["futures", "hedge", *BINGX])
def test_a_short_closed_by_hand_is_taken_over(scene: MakeScene, kind: str) -> None:
    there = scene(kind, OFTEN)
    there.enter("sell")
    there.move(39000)
    there.close_by_hand(side="BUY")
    there.wait_until_flat()
    (row,) = taken_over(there)
    assert row["Action"] == "BUY"
    assert dec(row["RealizedPnL"]) == pytest.approx(10, abs=1)


# --- only what was ours, and only once --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["spot", "hedge", "bingx"])
def test_a_trade_by_hand_is_taken_over_once_also_after_a_restart(scene: MakeScene, kind: str) -> None:
    there = scene(kind, OFTEN)
    there.enter(quantity="0.02")
    there.close_by_hand("0.004")
    eventually(lambda: len(taken_over(there)) == 1, 5, there.daemon.log)
    let_it_compare(there)
    held = there.held()
    there.daemon.restart()
    let_it_compare(there)
    assert (len(taken_over(there)), there.held()) == (1, held)
    there.close_by_hand("0.004")
    eventually(lambda: len(taken_over(there)) == 2, 5, there.daemon.log)
    let_it_compare(there)
    assert (len(taken_over(there)), there.held()) == (2, held - Decimal("0.004"))


@pytest.mark.parametrize("kind", ["spot", "futures"])
def test_an_order_by_hand_that_fills_bit_by_bit_is_taken_over_bit_by_bit(scene: MakeScene, kind: str) -> None:
    there = scene(kind, OFTEN)
    there.enter(quantity="0.02")
    wanted = {"symbol": SYMBOL, "side": "SELL", "type": "LIMIT", "quantity": "0.015", "price": "41000"}
    place = there.owner.create_order if there.is_spot else there.owner.futures_create_order
    number = place(**wanted, timeInForce="GTC")["orderId"]
    before = there.held()
    fill = there.fake.fill if there.is_spot else there.fake.futures.fill
    for filled in ("0.005", "0.015"):
        fill(number, Decimal("0.005") if filled == "0.005" else None)
        eventually(lambda filled=filled: there.held() == before - dec(filled), 5, there.daemon.log)  # type: ignore[misc]
    assert sum(dec(row["Quantity"]) for row in taken_over(there)) == Decimal("0.015")
    eventually(lambda: there.status()["drift"] == [], 5, there.daemon.log)


def test_coins_that_were_withdrawn_are_shown_and_not_sold_in_the_books(scene: MakeScene) -> None:
    there = scene("spot", OFTEN)
    there.enter()
    there.fake.set_balance("BTC", "0.002")
    row = wait_for_drift(there, books="0.00999", account="0.002")
    assert (row["broker"], row["market"], row["symbol"], row["side"]) == ("BINANCE", "spot", SYMBOL, "LONG")
    let_it_compare(there)
    assert (there.held(), taken_over(there)) == (Decimal("0.00999"), [])
    assert there.notices().count("drift") == 1
    there.fake.set_balance("BTC", "0.00999")
    eventually(lambda: not there.status()["drift"], 5, there.daemon.log)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_sliver_that_went_without_a_trade_does_not_shut_the_way_out(scene: MakeScene, at_once: bool) -> None:
    """A fee or a conversion of dust took it: less is there to be sold than the books hold until they have learnt it."""
    there = scene("spot", OFTEN)
    there.enter()
    there.fake.set_balance("BTC", there.fake.free("BTC") - Decimal("0.00001"))
    if not at_once:
        wait_for_drift(there)
        there.daemon.move_clock(61)
        eventually(lambda: bool(taken_over(there)), 5, there.daemon.log)
    reply = there.post("sell")
    assert (reply["status"], reply["quantity"]) == ("FILLED", 0.00998)
    assert len(there.rows(Status="REJECTED")) == int(at_once)


def test_dust_that_was_swept_is_no_part_of_what_is_bought_later(scene: MakeScene) -> None:
    """As long as the books counted it, the exchange refused to protect what was bought, and so it was closed."""
    there = scene("spot", OFTEN)
    there.enter()
    assert there.post("sell", quantity="0.00994")["status"] == "FILLED"  # 2 USDT are left: too little to be sold
    there.fake.set_balance("BTC", 0)
    eventually(lambda: "without a trade" in there.notices(), 5, there.daemon.log)
    there.enter(comment="again", **BOTH)
    there.wait_for(*there.protected(**BOTH))
    assert there.held() == Decimal("0.00999")
    assert there.rows(Status="REJECTED") == []
    let_it_compare(there)
    assert (len(taken_over(there)), there.notices().count("taken off")) == (1, 1)


def test_on_spot_the_owners_own_coins_are_neither_shown_nor_touched(scene: MakeScene) -> None:
    there = scene("spot", OFTEN)
    there.fake.set_balance("BTC", 2)
    there.enter()
    there.close_by_hand("0.5")
    let_it_compare(there)
    assert (there.held(), taken_over(there), there.status()["drift"]) == (Decimal("0.00999"), [], [])


@pytest.mark.parametrize("kind", ["futures", "hedge"])
def test_on_futures_what_the_owner_adds_is_shown_and_not_touched(scene: MakeScene, kind: str) -> None:
    there = scene(kind, OFTEN)
    there.enter()
    side = {"positionSide": "LONG"} if kind == "hedge" else {}
    there.owner.futures_create_order(symbol=SYMBOL, side="BUY", type="MARKET", quantity="0.005", **side)
    wait_for_drift(there, side="LONG", books="0.01", account="0.015")
    there.close_by_hand("0.005")
    eventually(lambda: not there.status()["drift"], 5, there.daemon.log)
    assert (there.held(), taken_over(there)) == (Decimal("0.01"), [])


def test_of_a_sale_by_hand_only_what_is_missing_was_ours(scene: MakeScene) -> None:
    there = scene("futures", OFTEN)
    there.enter()
    there.owner.futures_create_order(symbol=SYMBOL, side="BUY", type="MARKET", quantity="0.005")
    wait_for_drift(there, account="0.015")
    there.close_by_hand("0.009")
    eventually(lambda: not there.status()["drift"] and there.held() == Decimal("0.006"), 5, there.daemon.log)
    (row,) = taken_over(there)
    assert (row["Quantity"], dec(row["Fee"])) == ("0.004", there.fake.futures.trades[-1].commission * 4 / 9)


def test_a_position_that_is_not_listed_once_is_not_believed_to_be_closed(scene: MakeScene) -> None:
    """There is a sale by hand that could be meant: of what the owner had bought himself."""
    there = scene("futures", OFTEN)
    there.enter()
    there.owner.futures_create_order(symbol=SYMBOL, side="BUY", type="MARKET", quantity="0.005")
    there.close_by_hand("0.005")
    let_it_compare(there)
    there.fake.fail_next("garbage", POSITIONS, body="[]")
    eventually(lambda: there.fake.faults_left == 0, 5, there.daemon.log)
    let_it_compare(there)
    assert (there.held(), taken_over(there), there.status()["drift"]) == (Decimal("0.01"), [], [])


# --- our own doing ----------------------------------------------------------------------------------------------------

STOP_LOOKS: dict[str, dict[str, Any]] = {
    "not looked at yet": {},
    "look-ups fail": {"kind": "status", "status": 502, "html": True, "times": 8},
}


@pytest.mark.parametrize("looks", STOP_LOOKS)
@pytest.mark.parametrize("kind", EXCHANGES)
def test_a_stop_that_was_triggered_is_not_taken_for_a_close_by_hand(scene: MakeScene, kind: str, looks: str) -> None:
    there = scene(kind, OFTEN | {"follow": 1.0 if looks == "not looked at yet" else 0.3})
    there.enter(stop_loss=39200)
    there.wait_for(*there.protected(stop_loss=39200))
    if STOP_LOOKS[looks]:
        there.fake.fail_next(
            where="GET /api/v3/order" if there.is_spot else "GET /fapi/v1/algoOrder", **STOP_LOOKS[looks]
        )
    there.move(39000)
    there.wait_until_flat()
    let_it_compare(there)
    assert taken_over(there) == []
    sales = [row for row in there.rows(Status="FILLED") if row["Action"] == "SELL"]
    assert [row["Note"] for row in sales] == ["stop_loss at 39200"]
    assert dec(sales[0]["RealizedPnL"]) < -9


@pytest.mark.parametrize("kind", ["spot", "futures"])
def test_a_stop_whose_record_trails_its_trade_is_not_taken_for_a_close_by_hand(scene: MakeScene, kind: str) -> None:
    there = scene(kind, OFTEN | {"second_look": 1.0})
    there.enter(stop_loss=39200)
    there.wait_for(*there.protected(stop_loss=39200))
    there.fake.lookup_lag_seconds = 0.8
    there.move(39000)
    there.wait_until_flat()
    let_it_compare(there)
    assert taken_over(there) == []


def test_an_order_that_the_books_know_as_ended_is_cancelled_when_it_is_left_over(scene: MakeScene) -> None:
    there = scene("futures", OFTEN)
    there.enter(trailing_percent=5)
    there.wait_for(*there.protected(trailing_stop=5))
    (algo,) = there.fake.futures.algos
    lie = {"algoId": algo.algo_id, "clientAlgoId": algo.client_id, "code": "200", "msg": "success"}
    there.fake.fail_next("garbage", "DELETE /fapi/v1/algoOrder", body=json.dumps(lie))
    assert there.post("close")["status"] == "FILLED"
    assert len(there.waiting()) == 1
    there.wait_until_flat()
    told = f"{algo.client_id} ({SYMBOL}) was left over at BINANCE futures: cancelled"
    eventually(lambda: told in there.notices(), 5, there.daemon.log)


@pytest.mark.parametrize("kind", ["spot", "futures"])
def test_an_order_like_ours_that_is_on_no_record_is_shown_and_left_alone(scene: MakeScene, kind: str) -> None:
    there = scene(kind, OFTEN)
    wanted = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "quantity": "0.01", "price": "39000"}
    place = there.owner.create_order if there.is_spot else there.owner.futures_create_order
    place(**wanted, timeInForce="GTC", newClientOrderId="gh_of_another_folder")
    place(**wanted, timeInForce="GTC", newClientOrderId="the_owners")
    row = wait_for_drift(there, order="gh_of_another_folder")
    assert row["symbol"] == SYMBOL
    let_it_compare(there)
    assert [order.is_open for order in there.orders()] == [True, True]


def test_an_exchange_that_does_not_answer_leaves_the_drift_as_it_was(scene: MakeScene) -> None:
    there = scene("futures", OFTEN)
    there.enter()
    there.owner.futures_create_order(symbol=SYMBOL, side="BUY", type="MARKET", quantity="0.005")
    wait_for_drift(there, account="0.015")
    there.fake.fail_next("status", POSITIONS, status=502, times=1000)
    there.owner.futures_create_order(symbol=SYMBOL, side="BUY", type="MARKET", quantity="0.005")
    eventually(lambda: "were not compared" in there.daemon.log(), 5, there.daemon.log)
    time.sleep(0.3)
    wait_for_drift(there, account="0.015")
    there.fake.clear_faults()
    wait_for_drift(there, account="0.02")
