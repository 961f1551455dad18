"""A position that asked for protection has it, exactly once and of the right size, until it is closed.

0.01 BTC are bought at 40000, of which spot keeps 0.00999. What counts is what waits at the exchange.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from harness import EAGER, eventually
from scenes import PRICE, QUANTITY, Scene, dec

MakeScene = Callable[..., Scene]

ALL = ("spot", "futures", "hedge", "paper", "paper futures")
EXCHANGES = ("spot", "futures", "hedge")
FUTURES = ("futures", "hedge", "paper futures")
BINGX = ("bingx", "bingx hedge")
BOTH: dict[str, Any] = {"stop_loss": 39200, "take_profit": 41600}
PAIR, ALGO = "POST /api/v3/orderList/oco", "POST /fapi/v1/algoOrder"


# --- right after the fill ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["spot", "paper futures"])
@pytest.mark.parametrize(
    "asked",
    [
        {"stop_loss": 39200, "take_profit": 41600},
        {"stop_loss_percent": 2, "take_profit_percent": 4},
        {"stop_loss_offset": 800, "take_profit_offset": 1600},
    ],
    ids=["price", "percent", "offset"],
)
def test_an_entry_is_protected_right_after_its_fill(scene: MakeScene, kind: str, asked: dict[str, Any]) -> None:
    there = scene(kind)
    there.enter(**asked)
    there.wait_for(*there.protected(**BOTH))
    (position,) = there.status()["positions"]
    assert (position["stop_loss"], position["take_profit"]) == (39200, 41600)


@pytest.mark.parametrize("kind", [*FUTURES, *BINGX])
def test_a_short_is_protected_the_other_way_round(scene: MakeScene, kind: str) -> None:
    there = scene(kind)
    there.enter("sell", stop_loss_percent=2, take_profit_percent=4)
    there.wait_for(*there.protected(stop_loss=40800, take_profit=38400))
    there.move(40900)
    there.wait_until_flat()
    (row,) = there.rows(Status="FILLED", Note="stop_loss at 40800")
    assert row["Action"] == "BUY"
    assert dec(row["RealizedPnL"]) < -9


@pytest.mark.parametrize("kind", ["spot", "paper futures"])
@pytest.mark.parametrize(
    ("asked", "levels"),
    [
        ({}, {"stop_loss": 39200, "take_profit": 41600}),
        ({"stop_loss": 38000}, {"stop_loss": 38000, "take_profit": 41600}),
        ({"take_profit": 44000}, {"stop_loss": 39200, "take_profit": 44000}),
    ],
    ids=["the settings", "the alert's own stop", "the alert's own take-profit"],
)
def test_what_the_alert_leaves_open_is_protected_by_the_settings(
    scene: MakeScene, kind: str, asked: dict[str, Any], levels: dict[str, Any]
) -> None:
    there = scene(kind, stop_loss_percent="2", take_profit_percent="4")
    there.enter(**asked)
    there.wait_for(*there.protected(**levels))


@pytest.mark.parametrize("kind", FUTURES)
def test_a_trailing_stop_of_the_alert_replaces_the_stop_of_the_settings(scene: MakeScene, kind: str) -> None:
    there = scene(kind, stop_loss_percent="2")
    there.enter(trailing_percent=1)
    there.wait_for(*there.protected(trailing_stop=0 if there.is_paper else 1))


@pytest.mark.parametrize("leg", BOTH)
@pytest.mark.parametrize("kind", ["spot", "futures", "paper"])
def test_a_stop_or_a_take_profit_stands_alone(scene: MakeScene, kind: str, leg: str) -> None:
    there = scene(kind)
    there.enter(**{leg: BOTH[leg]})
    there.wait_for(*there.protected(**{leg: BOTH[leg]}))


def test_on_spot_both_are_one_order_list_of_what_was_really_received(scene: MakeScene) -> None:
    there = scene("spot")
    there.enter(**BOTH)
    there.wait_for(*there.protected(**BOTH))
    (post,) = there.fake.calls(PAIR)
    assert post.params["quantity"] == "0.00999"
    assert (post.params["belowType"], post.params["belowStopPrice"]) == ("STOP_LOSS", "39200")
    assert (post.params["aboveType"], post.params["abovePrice"]) == ("LIMIT_MAKER", "41600")
    assert there.fake.locked("BTC") == Decimal("0.00999")


def test_on_spot_a_fee_in_bnb_leaves_the_whole_to_be_protected(scene: MakeScene) -> None:
    there = scene("spot")
    there.fake.set_balance("BNB", 1)
    there.fake.fees_in_bnb = True
    there.enter(**BOTH)
    there.wait_for(*there.protected("0.01", **BOTH))


def test_on_spot_the_owners_own_coins_are_not_protected_with_ours(scene: MakeScene) -> None:
    there = scene("spot")
    there.fake.set_balance("BTC", 3)
    there.enter(**BOTH)
    there.wait_for(*there.protected(**BOTH))


def test_on_spot_coins_of_the_owners_that_an_alert_sells_do_not_keep_ours_from_being_protected(
    scene: MakeScene,
) -> None:
    """They rest in the book since before the entry: nothing of what it bought is sold by them."""
    there = scene("spot", test_market=EAGER)
    there.fake.set_balance("BTC", 3)
    free = there.daemon.owner_get
    eventually(lambda: free("/status")["balances"]["BINANCE"].get("BTC", {}).get("free") == 3, 5, lambda: "no balance")
    assert there.post("sell", type="limit", price="50000", quantity="1")["status"] == "NEW"
    there.enter(**BOTH)
    owners = ("take_profit", dec(50000), dec(1))
    wanted = sorted([owners, *there.protected(**BOTH)])
    eventually(lambda: there.waiting() == wanted, 5, lambda: there.tell(wanted))
    # What is left of it can be closed, in part and all of it.
    assert there.post("close", quantity="0.004")["status"] in ("FILLED", "PENDING")
    eventually(lambda: there.held() == dec("0.00599"), 5, lambda: there.tell("0.00599"))


@pytest.mark.parametrize("kind", ["futures", "hedge"])
def test_on_futures_protection_closes_the_position_and_has_ids_of_our_own(scene: MakeScene, kind: str) -> None:
    there = scene(kind)
    there.enter(**BOTH, comment="both")
    there.wait_for(*there.protected(**BOTH))
    posts = there.fake.calls(ALGO)
    ours = {order["client_order_id"] for order in there.status()["resting_orders"]}
    assert {post.params["clientAlgoId"] for post in posts} == ours
    for post in posts:
        assert (post.params["closePosition"], "quantity" in post.params) == ("true", False)
        assert post.params.get("positionSide") == ("LONG" if kind == "hedge" else None)


# --- the price comes to it --------------------------------------------------------------------------------------------

TRIGGERS: dict[str, tuple[dict[str, Any], list[str], dict[str, int]]] = {
    # leg: (what is asked for, the prices that go by, what one BTC earned before fees)
    "stop_loss": (BOTH, ["39100"], {"spot": 39100}),
    "take_profit": (BOTH, ["41700"], {"spot": 41600}),
    "trailing_stop": ({"trailing_percent": 1}, ["42000", "41500"], {}),
}


@pytest.mark.parametrize(
    ("kind", "leg"),
    [*((kind, leg) for kind in ALL for leg in TRIGGERS), *((kind, leg) for kind in BINGX for leg in BOTH)],
)
def test_protection_that_is_triggered_closes_the_position_and_takes_its_sibling_along(
    scene: MakeScene, kind: str, leg: str
) -> None:
    there = scene(kind)
    asked, prices, at = TRIGGERS[leg]
    there.enter(**asked)
    eventually(lambda: len(there.waiting()) == len(asked) and there.is_settled(), 5, lambda: there.tell(asked))
    for seen in prices:
        there.move(seen)
    there.wait_until_flat()
    (row,) = [row for row in there.rows(Status="FILLED") if row["Action"] == "SELL"]
    assert row["Note"].startswith(leg)
    price = dec(at.get(kind, prices[-1]))
    assert dec(row["Price"]) == price
    assert dec(row["RealizedPnL"]) == pytest.approx((price - PRICE) / 100, abs=1)
    assert row["SignalID"] == there.rows(Action="BUY")[0]["SignalID"]
    assert there.status()["halted"] == ""
    again = there.post("close")
    assert (again["decision"], again["check"]) == ("REJECTED", "no_position")


@pytest.mark.parametrize("kind", ["paper", "paper futures"])
def test_paper_protection_is_there_after_a_restart_and_the_balance_is_that_of_its_trades(
    scene: MakeScene, kind: str
) -> None:
    there = scene(kind)
    there.enter(**BOTH)
    there.wait_for(*there.protected(**BOTH))
    there.daemon.restart()
    there.wait_for(*there.protected(**BOTH))
    there.move(39000)
    there.wait_until_flat()
    free = there.status()["balances"]["PAPER"]["USDT"]["free"]
    rows = there.rows(Status="FILLED")
    sums = [dec(row["TradeAmount"]) * (1 if row["Action"] == "SELL" else -1) for row in rows]
    fees = [dec(row["Fee"]) for row in rows if row["FeeAsset"] == "USDT"]
    assert dec(free) == pytest.approx(10000 + sum(sums) - sum(fees), abs=Decimal("0.00001"))


# --- the way out ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "way"),
    [*((kind, "close") for kind in (*ALL, *BINGX)), ("spot", "sell"), ("spot", "close-all"), ("hedge", "close-all")],
)
def test_a_full_exit_takes_the_protection_away_and_closes_everything(scene: MakeScene, kind: str, way: str) -> None:
    there = scene(kind)
    there.enter(**BOTH)
    there.wait_for(*there.protected(**BOTH))
    if way == "close-all":
        assert there.daemon.owner_post("/close-all")["closed"] == 1
    else:
        assert there.post(way)["status"] == "FILLED"
    there.wait_until_flat()
    assert len([row for row in there.rows(Status="FILLED") if row["Action"] == "SELL"]) == 1
    assert there.notices() == ""


@pytest.mark.parametrize("kind", [*ALL, *BINGX])
def test_a_partial_exit_leaves_the_rest_protected(scene: MakeScene, kind: str) -> None:
    there = scene(kind)
    there.enter(**BOTH)
    there.wait_for(*there.protected(**BOTH))
    reply = there.post("sell", quantity="0.004")
    assert (reply["status"], reply["quantity"]) == ("FILLED", 0.004)
    there.wait_for(*there.protected("0.00599", **BOTH))
    there.move(39000)
    there.wait_until_flat()


@pytest.mark.parametrize("kind", FUTURES)
def test_a_trailing_stop_fits_what_a_partial_exit_leaves(scene: MakeScene, kind: str) -> None:
    there = scene(kind)
    there.enter(trailing_percent=2)
    level = 0 if there.is_paper else 2
    there.wait_for(*there.protected(trailing_stop=level))
    there.post("sell", quantity="0.004")
    there.wait_for(*there.protected("0.006", trailing_stop=level))


@pytest.mark.parametrize("kind", ["futures", "hedge", "paper futures", *BINGX])
def test_on_futures_a_resting_way_out_leaves_the_stop_where_it_is(scene: MakeScene, kind: str) -> None:
    """Nothing is locked there: until the limit order fills, the position is to be protected."""
    there = scene(kind)
    there.enter(stop_loss=39200)
    there.wait_for(*there.protected(stop_loss=39200))
    reply = there.post("close", type="limit", price="41000")
    assert reply["status"] == "NEW", reply.body
    there.wait_for(*there.protected(stop_loss=39200))
    there.move(41100)
    there.wait_until_flat()


@pytest.mark.parametrize("kind", [*FUTURES, *BINGX])
def test_a_reversal_ends_with_the_new_position_protected_and_not_the_old_one(scene: MakeScene, kind: str) -> None:
    there = scene(kind)
    there.enter(**BOTH)
    there.wait_for(*there.protected(**BOTH))
    reply = there.post("sell", quantity="0.01", reverse=True, stop_loss=40800)
    assert reply["status"] == "FILLED", reply.body
    there.wait_for(*there.protected(stop_loss=40800))
    assert there.held() == there.held_there() == -QUANTITY


# --- more of it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*ALL, *BINGX])
def test_what_is_added_is_protected_with_the_rest_where_the_last_entry_says(scene: MakeScene, kind: str) -> None:
    there = scene(kind)
    there.enter(**BOTH)
    there.wait_for(*there.protected(**BOTH))
    there.enter(quantity="0.02", stop_loss=39000, take_profit=42000)
    total = {"spot": "0.02997", "paper": "0.02997"}.get(kind, "0.03")
    there.wait_for(*there.protected(total, stop_loss=39000, take_profit=42000))
    there.move(38900)
    there.wait_until_flat()


@pytest.mark.parametrize("kind", ["spot", "futures"])
def test_an_addition_without_protection_is_protected_where_the_first_entry_said(scene: MakeScene, kind: str) -> None:
    there = scene(kind)
    there.enter(**BOTH)
    there.wait_for(*there.protected(**BOTH))
    there.enter(quantity="0.02", comment="no stop of its own")
    there.wait_for(*there.protected("0.02997" if kind == "spot" else "0.03", **BOTH))
