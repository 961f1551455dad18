"""Protection when something goes wrong: the position is protected by exactly one set in the end, or closed.

0.01 BTC are bought at 40000, of which spot keeps 0.00999. What counts is what the exchange did.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from fake_faults import Fault
from harness import eventually
from scenes import PRICE, SYMBOL, Scene

MakeScene = Callable[..., Scene]

EXCHANGES = ("spot", "futures", "hedge")
BOTH: dict[str, Any] = {"stop_loss": 39200, "take_profit": 41600}
STOP: dict[str, Any] = {"stop_loss": 39200}
PAIR, ALGO, ORDER = "POST /api/v3/orderList/oco", "POST /fapi/v1/algoOrder", "POST /api/v3/order"
POST = {"spot": PAIR, "futures": ALGO, "hedge": ALGO}
CLOSE = {"spot": ORDER, "futures": "POST /fapi/v1/order", "hedge": "POST /fapi/v1/order"}
WAY_OUT = {"when": lambda call: call.params.get("side") == "SELL"}
QUICK_TO_GIVE_UP = {"guard_give_up": 1.0, "guard_again": 1.0}
LOOK = {"spot": "GET /api/v3/order", "futures": "GET /fapi/v1/algoOrder", "hedge": "GET /fapi/v1/algoOrder"}


def assert_one_set(there: Scene, legs: int = 2) -> None:
    """No id was sent twice, and it stays so: what turned up late would be seen by now."""
    time.sleep(0.3)
    assert len(there.waiting()) == legs
    assert set(there.fake.algo_posts_by_client_id.values()) <= {1}
    assert set(there.fake.posts_by_client_id.values()) <= {1}
    assert there.status()["halted"] == ""


def sales(there: Scene) -> list[dict[str, str]]:
    return [row for row in there.rows(Status="FILLED") if row["Action"] == "SELL"]


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EXCHANGES)
def test_a_position_whose_protection_is_refused_is_closed_and_the_owner_is_told(scene: MakeScene, kind: str) -> None:
    there = scene(kind)
    code = -2010 if kind == "spot" else -2021
    there.fake.fail_next("error", POST[kind], code=code, message="Order would immediately trigger.")
    there.enter(**BOTH)
    there.wait_until_flat()
    (sale,) = sales(there)
    assert sale["Strategy"] == "unprotected"
    told = f"{SYMBOL}{'' if kind == 'spot' else '.P'} at BINANCE is closed, as it cannot be protected: stop_loss: "
    assert told in there.notices()
    assert "Order would immediately trigger." in there.notices()
    assert told in there.daemon.log()


@pytest.mark.parametrize("kind", EXCHANGES)
def test_a_price_beyond_the_stop_before_it_could_be_placed_closes_the_position(scene: MakeScene, kind: str) -> None:
    there = scene(kind)

    def falls(call: object) -> bool:
        """Asked by the exchange when the protection arrives: the price fell a moment before."""
        there.fake.set_price(SYMBOL, 39000)
        there.fake.futures.set_price(SYMBOL, 39000)
        return False

    there.fake.inject(Fault("stall", POST[kind], when=falls))
    there.enter(**BOTH)
    there.wait_until_flat()
    (sale,) = sales(there)
    assert Decimal(sale["Price"]) == 39000
    assert "cannot be protected" in there.notices()


@pytest.mark.parametrize("kind", ["futures", "hedge"])
def test_when_only_the_second_of_two_is_refused_the_first_goes_with_the_position(scene: MakeScene, kind: str) -> None:
    there = scene(kind)
    profit = {"when": lambda call: call.params["type"] == "TAKE_PROFIT_MARKET"}
    there.fake.fail_next("error", ALGO, code=-4045, **profit)
    there.enter(**BOTH)
    there.wait_until_flat()
    assert len(sales(there)) == 1


def test_what_is_left_and_too_little_to_be_sold_is_said_once_and_protected_when_it_is_worth_more(
    scene: MakeScene,
) -> None:
    """Ten USDT are bought, as by default, and a part of it is sold: nobody could sell the rest of four."""
    there = scene("spot", QUICK_TO_GIVE_UP | {"compare": 0.3}, stop_loss_percent=2)
    assert there.post("buy", amount_usdt=10)["status"] == "FILLED"
    assert there.post("close", close_percent=60)["status"] == "FILLED"
    eventually(lambda: "too little" in there.notices(), 5, there.daemon.log)
    time.sleep(2.5)
    assert there.notices().count("too little") == 1
    assert "cannot be protected" not in there.notices()
    assert len(there.daemon.signals()) == 2
    there.move(52000)
    there.wait_for(*there.protected("0.0001", stop_loss=39200))


@pytest.mark.parametrize("kind", ["futures"])
def test_a_position_that_the_exchange_does_not_know_yet_is_protected_a_moment_later(
    scene: MakeScene, kind: str
) -> None:
    there = scene(kind)
    there.fake.futures.set_options(position_lag_seconds=0.25)
    there.enter(**BOTH)
    there.wait_for(*there.protected(**BOTH))
    assert there.notices() == ""


@pytest.mark.parametrize("kind", ["spot", "futures"])
def test_the_next_entry_after_such_a_close_is_protected_at_once(scene: MakeScene, kind: str) -> None:
    there = scene(kind)
    there.fake.fail_next("error", POST[kind], code=-2010 if kind == "spot" else -2021)
    there.enter(**BOTH)
    there.wait_until_flat()
    there.enter(**BOTH, comment="the next one")
    there.wait_for(*there.protected(**BOTH))
    assert_one_set(there)


@pytest.mark.parametrize("kind", ["spot", "futures"])
def test_a_close_that_fails_too_is_tried_again_only_after_a_pause(scene: MakeScene, kind: str) -> None:
    there = scene(kind, {"guard_again": 1.5})
    there.fake.fail_next("error", POST[kind], code=-2010 if kind == "spot" else -2021, times=2)
    there.fake.fail_next("error", CLOSE[kind], code=-2010 if kind == "spot" else -2019, **WAY_OUT)
    there.enter(**BOTH)
    eventually(lambda: "cannot be protected" in there.notices(), 5, there.daemon.log)
    time.sleep(0.7)
    assert len(there.fake.calls(POST[kind])) == 1
    assert there.held() > 0
    there.wait_until_flat()
    assert len(there.fake.calls(POST[kind])) == 2
    assert there.notices().count("cannot be protected") == 2


# --- the reply is lost ------------------------------------------------------------------------------------------------

LOST: dict[str, dict[str, Any]] = {
    "reset": {"kind": "reset"},
    "half a reply": {"kind": "half_body"},
    "server error": {"kind": "status", "status": 502, "html": True},
}


@pytest.mark.parametrize("executed", [True, False], ids=["executed", "not executed"])
@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize("kind", ["spot", "futures"])
def test_protection_whose_reply_is_lost_is_found_or_placed_again_and_never_doubled(
    scene: MakeScene, kind: str, fault: str, executed: bool
) -> None:
    there = scene(kind, test_absence_seconds=0.6)
    there.fake.fail_next(where=POST[kind], executed=executed, **LOST[fault])
    there.enter(**BOTH)
    there.wait_for(*there.protected(**BOTH))
    assert_one_set(there)
    sent = len(there.fake.calls(POST[kind]))
    pieces = 1 if kind == "spot" else 2
    assert sent == pieces if executed else pieces < sent <= 2 * pieces
    assert there.notices() == ""


def test_that_several_orders_never_arrived_takes_no_longer_to_prove_than_of_one(scene: MakeScene) -> None:
    """Until it is proven, the position has no protection, and a way out waits."""
    there = scene("futures", test_absence_seconds=1.5)
    there.fake.fail_next("status", ALGO, status=502, html=True, times=3)
    there.enter(**BOTH, trailing_percent=3)
    there.wait_for(*there.protected(**BOTH, trailing_stop=3))
    sent = [call.arrived_ns / 1e9 for call in there.fake.calls(ALGO)]
    assert len(sent) == 6
    assert 1.5 < sent[3] - sent[2] < 4.0


@pytest.mark.parametrize("kind", ["spot", "hedge"])
def test_a_single_stop_whose_reply_is_lost_is_found(scene: MakeScene, kind: str) -> None:
    there = scene(kind)
    stop = {"when": lambda call: call.params["type"] != "MARKET"}
    there.fake.fail_next("reset", ORDER if kind == "spot" else ALGO, executed=True, **stop)
    there.enter(**STOP)
    there.wait_for(*there.protected(**STOP))
    assert_one_set(there, 1)


@pytest.mark.parametrize("kind", ["spot", "futures"])
def test_protection_that_is_not_listed_yet_is_not_placed_again(scene: MakeScene, kind: str) -> None:
    there = scene(kind)
    there.fake.lookup_lag_seconds = 0.8
    there.fake.fail_next("reset", POST[kind], executed=True)
    there.enter(**BOTH)
    there.wait_for(*there.protected(**BOTH))
    assert_one_set(there)
    assert len(there.fake.calls(POST[kind])) == (1 if kind == "spot" else 2)
    assert there.notices() == ""


@pytest.mark.parametrize("kind", ["spot", "futures"])
def test_while_an_exit_waits_its_turn_nothing_is_protected_anew(scene: MakeScene, kind: str) -> None:
    """Somebody looks all the time; what the exit has cancelled must stay so until it is gone."""
    there = scene(kind, {"compare": 0.02, "turn": 0.4})
    there.enter(**BOTH)
    there.wait_for(*there.protected(**BOTH))
    sent = len(there.fake.calls(POST[kind]))
    assert there.post("close")["status"] == "FILLED"
    there.wait_until_flat()
    assert len(there.fake.calls(POST[kind])) == sent


@pytest.mark.parametrize("kind", ["spot", "futures"])
def test_protection_that_turns_up_after_it_was_given_up_leaves_one_set(scene: MakeScene, kind: str) -> None:
    there = scene(kind, {"late": [0.3, 0.3, 0.3, 0.3]}, test_absence_seconds=0.3)
    there.fake.fail_next("late", POST[kind], seconds=2.0, then="reset")
    began = time.monotonic()
    there.enter(**STOP if kind == "futures" else BOTH)
    levels = STOP if kind == "futures" else BOTH
    eventually(lambda: len(there.waiting()) > 0, 5, there.daemon.log)
    assert time.monotonic() - began < 2.0, "the machine was too slow: what comes late came first"
    time.sleep(2.5 - (time.monotonic() - began))
    there.wait_for(*there.protected(**levels))
    assert there.held_there() == there.held()
    assert_one_set(there, len(levels))


@pytest.mark.parametrize("kind", EXCHANGES)
def test_protection_that_keeps_the_next_one_out_is_taken_away_and_the_position_stays(
    scene: MakeScene, kind: str
) -> None:
    """It was given up, as no look-up knew it; the exchange has it, and refuses another one beside it."""
    there = scene(kind, test_absence_seconds=0.3)

    pieces = 1 if kind == "spot" else 2

    def unheard_of(call: object) -> bool:
        """Until the next ones come."""
        is_first = len(there.fake.calls(POST[kind])) <= pieces
        there.fake.lookup_lag_seconds = 20.0 if is_first else 0.0
        return is_first

    there.fake.inject(Fault("reset", POST[kind], executed=True, times=pieces + 1, when=unheard_of))
    there.enter(**BOTH)
    eventually(lambda: "was left over at BINANCE" in there.notices(), 10, there.daemon.log)
    there.wait_for(*there.protected(**BOTH))
    assert_one_set(there)
    assert there.held_there() == there.held() > 0
    assert "cannot be protected" not in there.notices()


@pytest.mark.parametrize("kind", ["spot", "futures"])
def test_an_exit_whose_cancelling_of_the_protection_has_no_reply_looks_before_it_goes(
    scene: MakeScene, kind: str
) -> None:
    there = scene(kind)
    there.enter(**BOTH)
    there.wait_for(*there.protected(**BOTH))
    where = "DELETE /api/v3/order" if kind == "spot" else "DELETE /fapi/v1/algoOrder"
    there.fake.fail_next("reset", where, executed=True)
    assert there.post("close")["status"] == "FILLED"
    there.wait_until_flat()


# --- out of reach -----------------------------------------------------------------------------------------------------


def refused_for(there: Scene, kind: str, seconds: float) -> None:
    """Every request after the entry gets no connection, for so long."""

    def gone(call: object) -> bool:
        there.fake.go_offline()
        return True

    there.fake.inject(Fault("reset", POST[kind], when=gone))
    there.enter(**BOTH)
    time.sleep(seconds)
    there.fake.come_online()


@pytest.mark.parametrize("kind", ["spot", "futures"])
def test_protection_is_placed_when_the_exchange_is_back(scene: MakeScene, kind: str) -> None:
    there = scene(kind, test_absence_seconds=0.5)
    refused_for(there, kind, 1.5)
    there.wait_for(*there.protected(**BOTH))
    assert_one_set(there)


@pytest.mark.parametrize("kind", ["spot", "futures"])
def test_protection_that_cannot_be_sent_for_too_long_ends_in_a_close(scene: MakeScene, kind: str) -> None:
    there = scene(kind, QUICK_TO_GIVE_UP)
    there.fake.fail_next("error", POST[kind], code=-1003, status=429, times=50)
    there.enter(**BOTH)
    there.wait_until_flat()
    assert len(sales(there)) == 1
    assert "cannot be protected" in there.notices()


# --- changed by hand --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EXCHANGES)
def test_protection_cancelled_by_hand_while_nobody_looked_is_placed_again(scene: MakeScene, kind: str) -> None:
    there = scene(kind)
    there.enter(**BOTH)
    there.wait_for(*there.protected(**BOTH))
    there.daemon.kill()
    there.cancel_by_hand()
    assert there.waiting() == []
    there.daemon.start()
    there.wait_for(*there.protected(**BOTH))
    assert_one_set(there)


@pytest.mark.parametrize("kind", ["futures"])
def test_one_of_two_cancelled_by_hand_is_replaced(scene: MakeScene, kind: str) -> None:
    there = scene(kind)
    there.enter(**BOTH)
    there.wait_for(*there.protected(**BOTH))
    there.owner.futures_cancel_order(clientAlgoId=there.fake.futures.algos[0].client_id)
    eventually(lambda: len(there.fake.calls(ALGO)) > 2, 5, there.daemon.log)
    there.wait_for(*there.protected(**BOTH))
    assert_one_set(there)


# --- refused before anything is placed --------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "stop above a long": ({"stop_loss": 40000}, "stop_loss 40000 must be below the price 40000"),
    "take-profit below a long": ({"take_profit": 39999}, "take_profit 39999 must be above the price 40000"),
    "several take-profits": ({"tp1": 41000, "tp2": 42000}, "more than one take-profit"),
    "trailing too near": ({"trailing_percent": "0.09"}, "trailing 0.09 %, must be from 0.1 to 20"),
    "trailing too far": ({"trailing_percent": "20.1"}, "trailing 20.1 %, must be from 0.1 to 20"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", ["spot", "paper futures"])
def test_wrong_protection_is_refused_before_anything_is_placed(scene: MakeScene, kind: str, wrong: str) -> None:
    there = scene(kind)
    asked, reason = WRONG[wrong]
    reply = there.post("buy", quantity="0.01", **asked)
    assert (reply["decision"], reply["check"]) == ("REJECTED", "protection")
    assert reason in reply["reason"]
    assert there.orders() == []


def test_wrong_protection_of_a_short_is_refused(scene: MakeScene) -> None:
    there = scene("futures")
    for wrong in ({"stop_loss": 40000}, {"take_profit": 40000}):
        assert there.post("sell", quantity="0.01", **wrong)["check"] == "protection"
    there.enter("sell", stop_loss="40000.1", take_profit="39999.9")
    there.wait_for(*there.protected(stop_loss="40000.1", take_profit="39999.9"))


def test_on_spot_what_could_not_be_sold_at_its_stop_is_not_bought(scene: MakeScene) -> None:
    """Less the fee, and at the stop's price, it is worth less than the smallest order."""
    there = scene("spot")
    reply = there.post("buy", quantity="0.00013", stop_loss=36000)
    assert (reply["decision"], reply["check"]) == ("REJECTED", "protection"), reply.body
    assert "smallest is 5" in reply["reason"]
    assert there.fake.orders == []
    there.enter(quantity="0.00014", stop_loss=39000)
    there.wait_for(*there.protected("0.00013", stop_loss=39000))


@pytest.mark.parametrize("kind", EXCHANGES)
def test_an_alert_without_a_price_has_its_stop_judged_by_the_markets(scene: MakeScene, kind: str) -> None:
    """Of a symbol that nobody asked for before: judging it later would be a trade for nothing."""
    there = scene(kind, trade_amount_usdt=500)
    reply = there.daemon.post(symbol=SYMBOL, action="buy", stop_loss=40500)
    assert (reply["decision"], reply["check"]) == ("REJECTED", "protection"), reply.body
    assert "stop_loss 40500 must be below the price 40000" in reply["reason"]
    assert there.orders() == []


def test_a_stop_that_nobody_can_judge_is_refused_and_a_percentage_needs_no_price(scene: MakeScene) -> None:
    there = scene("spot")
    there.fake.fail_next("status", "GET /api/v3/ticker/price", status=502, times=1000)
    reply = there.daemon.post(symbol=SYMBOL, action="buy", stop_loss=39200)
    assert (reply["decision"], reply["check"]) == ("REJECTED", "protection"), reply.body
    assert "no price is known" in reply["reason"]
    assert there.orders() == []
    reply = there.daemon.post(symbol=SYMBOL, action="buy", stop_loss_percent=2)
    assert reply["status"] == "FILLED", reply.body


# --- limit orders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EXCHANGES)
def test_a_limit_entry_is_protected_as_it_fills(scene: MakeScene, kind: str) -> None:
    there = scene(kind)
    asked = {"type": "limit", "quantity": "0.01", "price": "39800", "stop_loss_percent": 1}
    assert there.post("buy", **asked)["status"] == "NEW"
    time.sleep(0.2)
    assert there.waiting() == []
    (order,) = [o for o in there.orders() if o.type == "LIMIT"]
    fill = there.fake.fill if there.is_spot else there.fake.futures.fill
    fill(order.order_id, "0.004")
    there.wait_for(*there.protected("0.00399", stop_loss=39402))
    fill(order.order_id)
    eventually(lambda: there.held() == there.held_there() > Decimal("0.009"), 5, there.daemon.log)
    there.wait_for(*there.protected(stop_loss=39402))


def test_on_spot_a_part_too_small_to_be_sold_waits_for_more_and_the_entry_goes_on(scene: MakeScene) -> None:
    there = scene("spot")
    asked = {"type": "limit", "quantity": "0.01", "price": "39800", "stop_loss": 39000}
    assert there.post("buy", **asked)["status"] == "NEW"
    (order,) = there.fake.orders
    there.fake.fill(order.order_id, "0.0001")
    eventually(lambda: there.held() > 0, 5, there.daemon.log)
    time.sleep(0.5)
    assert (there.notices(), there.waiting()) == ("", [])
    there.fake.fill(order.order_id)
    there.wait_for(*there.protected(stop_loss=39000))


def test_a_paper_limit_entry_is_protected_when_it_fills(scene: MakeScene) -> None:
    there = scene("paper futures")
    there.move(PRICE)
    asked = {"type": "limit", "quantity": "0.01", "price": "39800", "stop_loss": 39000}
    assert there.post("buy", **asked)["status"] == "NEW"
    there.move(39700)
    there.wait_for(*there.protected(stop_loss=39000))
