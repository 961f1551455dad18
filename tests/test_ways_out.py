"""Ways out that were once shut, sold too much, or sold from the wrong account: each a story with the exchange."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from fake_binance import FakeBinance
from harness import SECRET, Daemon, binance, eventually
from scenes import SYMBOL, Scene

MakeScene = Callable[..., Scene]
Make = Callable[..., Daemon]
HELD = Decimal("0.00022977")  # of a buy of 10 USDT at 43000: 0.00023 less the fee
ALWAYS = 10**6


def buy(daemon: Daemon, **more: object) -> str:
    return str(daemon.post("/webhook", 10, symbol="BTCUSDT", action="buy", **more)["status"])


def sold(exchange: FakeBinance) -> list[Decimal]:
    return [order.executed for order in exchange.orders if order.side == "SELL"]


def wait_until_sold(exchange: FakeBinance, quantity: str) -> None:
    eventually(lambda: sold(exchange) == [Decimal(quantity)], 15, lambda: f"sold: {sold(exchange)}")


def test_the_quantity_that_was_bought_can_be_sold_although_the_fee_took_its_part(
    live: Daemon, exchange: FakeBinance
) -> None:
    assert buy(live, quantity="0.0002") == "FILLED"
    assert live.post(symbol="BTCUSDT", action="sell", quantity="0.0002")["status"] == "FILLED"
    assert sold(exchange) == [Decimal("0.00019")]  # 0.0001998 on the step


def test_the_quantity_that_was_bought_can_be_sold_by_an_exit_that_had_to_wait(
    live: Daemon, exchange: FakeBinance
) -> None:
    exchange.fail_next("reset", executed=True)
    exchange.fail_next("error", where="GET /api/v3/order", code=-1000, times=8)
    buy(live, quantity="0.0002")
    live.post(symbol="BTCUSDT", action="sell", quantity="0.0002")
    wait_until_sold(exchange, "0.00019")


@pytest.mark.parametrize("of_the_owner", [0, 1])
def test_a_reversal_sells_what_is_held_and_nothing_of_the_owners(
    live: Daemon, exchange: FakeBinance, of_the_owner: int
) -> None:
    exchange.set_balance("BTC", of_the_owner)
    assert buy(live, quantity="0.0002") == "FILLED"
    reversal = {"market_position": "short", "prev_market_position": "long", "position_size": "-0.0002"}
    answer = live.post("/webhook", 10, symbol="BTCUSDT", action="sell", quantity="0.0004", **reversal)
    assert (answer["decision"], answer["status"]) == ("ACCEPTED", "FILLED")
    assert sold(exchange) == [Decimal("0.00019")]


@pytest.mark.parametrize(
    "way_out",
    [
        {"action": "sell", "market_position": "flat", "quantity": "0.000200001"},
        {"action": "close", "quantity": "0.000200001"},
        {"action": "sell", "reduce_only": True, "quantity": "0.000199800001"},
    ],
)
def test_a_quantity_that_is_too_fine_to_be_ordered_does_not_keep_what_is_held_from_being_closed(
    live: Daemon, exchange: FakeBinance, way_out: dict[str, object]
) -> None:
    assert buy(live, quantity="0.0002") == "FILLED"
    assert live.post("/webhook", 10, symbol="BTCUSDT", **way_out)["status"] == "FILLED"
    assert sold(exchange) == [Decimal("0.00019")]


def test_an_exit_by_amount_that_had_to_wait_is_sized_by_the_price_of_then(live: Daemon, exchange: FakeBinance) -> None:
    exchange.fail_next("reset", executed=True)
    exchange.fail_next("error", where="GET /api/v3/order", code=-1000, times=8)
    buy(live)
    exchange.fail_next("error", where="GET /api/v3/ticker/price", code=-1000)
    live.post(symbol="BTCUSDT", action="sell", amount_usdt=6)
    wait_until_sold(exchange, "0.00013")


def test_an_exit_by_amount_waits_for_a_price_instead_of_being_refused(live: Daemon, exchange: FakeBinance) -> None:
    assert buy(live) == "FILLED"
    live.restart()
    exchange.fail_next("error", where="GET /api/v3/ticker/price", code=-1000, times=ALWAYS)
    live.restart()
    assert live.post(symbol="BTCUSDT", action="sell", amount_usdt=6)["status"] == "PENDING"
    exchange.clear_faults()
    wait_until_sold(exchange, "0.00013")


def test_an_exit_after_a_restart_waits_for_its_entry_although_no_rules_can_be_had(
    live: Daemon, exchange: FakeBinance
) -> None:
    exchange.fail_next("stall", executed=True)
    exchange.fail_next("error", where="GET /api/v3/order", code=-1000, times=ALWAYS)
    buy(live)
    live.kill()
    exchange.fail_next("error", where="GET /api/v3/exchangeInfo", code=-1000, times=ALWAYS)
    live.start(wait=False).wait_until_listening()
    assert live.post(symbol="BTCUSDT", action="sell")["status"] == "PENDING"
    exchange.release()
    exchange.clear_faults()
    wait_until_sold(exchange, "0.00022")


def test_a_resting_order_that_the_exchange_forgot_does_not_shut_its_symbol(
    daemon_with: Make, exchange: FakeBinance
) -> None:
    settings = binance(exchange, cooldown_seconds=0)
    settings["test_patience"] = {"follow": 0.05, "forgotten": 0.5}
    daemon = daemon_with(**settings).start()
    assert buy(daemon) == "FILLED"
    assert daemon.post(symbol="BTCUSDT", action="buy", type="LIMIT", price=40000)["status"] == "NEW"
    exchange.fail_next("error", where="GET /api/v3/order", code=-2013, times=ALWAYS)
    exchange.fail_next("error", where="DELETE /api/v3/order", code=-2011, times=ALWAYS)
    assert daemon.post(symbol="BTCUSDT", action="sell")["decision"] == "ACCEPTED"
    wait_until_sold(exchange, "0.00022")


def test_what_rests_is_not_counted_twice_against_what_the_account_holds(live: Daemon, exchange: FakeBinance) -> None:
    exchange.set_balance("BTC", "0.001")
    eventually(lambda: free_btc(live) == 0.001, 5, lambda: str(free_btc(live)))
    resting = {"symbol": "BTCUSDT", "action": "sell", "type": "LIMIT", "price": 50000, "quantity": "0.0006"}
    assert live.post("/webhook", 10, **resting)["status"] == "NEW"
    eventually(lambda: free_btc(live) == 0.0004, 5, lambda: str(free_btc(live)))
    assert live.post(symbol="BTCUSDT", action="sell", quantity="0.0003")["status"] == "FILLED"
    refused = live.post(symbol="BTCUSDT", action="sell", quantity="0.0002")
    assert refused["check"] == "insufficient_balance"


def free_btc(daemon: Daemon) -> float:
    return float(daemon.owner_get("/status")["balances"]["BINANCE"].get("BTC", {"free": 0})["free"])


def set_status(there: Scene, status: str) -> None:
    if there.is_spot:
        there.fake.set_symbol(SYMBOL, status=status)
    else:
        there.fake.futures.set_symbol(SYMBOL, status=status)


@pytest.mark.parametrize("kind", ["spot", "futures"])
def test_a_symbol_that_was_closed_at_the_start_is_open_as_soon_as_the_exchange_opens_it(
    scene: MakeScene, kind: str
) -> None:
    there = scene(kind)
    there.enter()
    set_status(there, "BREAK")
    there.daemon.restart()
    assert "not open for trading" in there.post("close")["reason"]
    set_status(there, "TRADING")
    eventually(lambda: there.post("close", comment=str(time.monotonic()))["status"] == "FILLED", 5, there.daemon.log)
    there.wait_until_flat()


def set_step(there: Scene, step: str) -> None:
    market = there.fake if there.is_spot else there.fake.futures
    lots: dict[str, Any] = {"stepSize": step, "minQty": step}
    market.set_filters(SYMBOL, LOT_SIZE=lots, MARKET_LOT_SIZE=lots)


@pytest.mark.parametrize("kind", ["spot", "futures"])
def test_a_step_that_the_exchange_has_changed_does_not_keep_what_is_held_from_being_closed(
    scene: MakeScene, kind: str
) -> None:
    there = scene(kind)
    there.enter(quantity="0.018")
    set_step(there, "0.00500000")
    reply = there.post("close")
    assert (reply["status"], reply["quantity"]) == ("FILLED", 0.015)
    (refused,) = there.rows(Status="REJECTED")
    assert ("LOT_SIZE" in refused["Note"]) or ("step size" in refused["Note"])
    assert there.post("buy", quantity="0.012")["quantity"] == 0.01


@pytest.mark.parametrize("kind", ["spot", "hedge"])
def test_a_way_out_closes_what_is_there_when_its_owner_closed_a_part_a_moment_ago(scene: MakeScene, kind: str) -> None:
    there = scene(kind)
    there.enter(stop_loss=39200) if kind == "hedge" else there.enter()
    there.close_by_hand("0.004")
    reply = there.post("close")
    assert (reply["status"], reply["quantity"]) == ("FILLED", 0.00599 if there.is_spot else 0.006)
    there.wait_until_flat()
    assert len(there.rows(Note="done at the exchange by hand")) == 1


def test_dust_that_was_swept_from_the_account_does_not_shut_the_way_out_of_what_is_bought_later(
    scene: MakeScene,
) -> None:
    there = scene("spot")
    there.enter()
    assert there.post("sell", quantity="0.00994")["status"] == "FILLED"  # 2 USDT are left, too little to be sold
    there.fake.set_balance("BTC", 0)
    there.enter(comment="again")
    reply = there.post("sell", comment="again")
    assert (reply["status"], reply["quantity"]) == ("FILLED", 0.00999)
    there.wait_until_flat()


def test_a_way_out_that_is_refused_for_another_reason_is_not_sent_again(scene: MakeScene) -> None:
    there = scene("spot")
    there.enter()
    there.fake.fail_next("error", code=-2010, message="Market is closed.")
    assert there.post("sell")["status"] == "REJECTED"
    assert len(there.fake.calls("POST /api/v3/order")) == 2
    assert there.held() == Decimal("0.00999")


def test_what_was_bought_on_the_testnet_is_not_sold_from_the_real_account(live: Daemon, exchange: FakeBinance) -> None:
    assert buy(live) == "FILLED"
    live.kill()
    live.set(binance_testnet=False)
    live.start(wait=False)
    live.wait_until_dead()
    assert "BINANCE is LIVE now" in live.log()
    live.set(binance_testnet=True)
    live.start()
    assert live.post(symbol="BTCUSDT", action="sell")["status"] == "FILLED"
    live.kill()
    live.set(binance_testnet=False)
    live.start()


def test_the_keys_cannot_be_taken_away_from_an_order_that_has_not_ended(live: Daemon, exchange: FakeBinance) -> None:
    assert live.post(symbol="BTCUSDT", action="buy", type="LIMIT", price=40000)["status"] == "NEW"
    keys = {name: live.env[name.upper()] for name in ("binance_api_key", "binance_api_secret", "binance_api_url")}
    live.kill()
    live.set(**dict.fromkeys(keys))
    live.start(wait=False)
    live.wait_until_dead()
    assert "BINANCE has no keys any more, but its order" in live.log()
    live.set(**keys)
    live.start()
    assert live.post(symbol="BTCUSDT", action="sell")["decision"] == "ACCEPTED"  # and cancels what rests


def test_an_entry_that_becomes_unknown_later_does_not_shorten_the_cooldown_of_a_newer_one(
    daemon_with: Make, exchange: FakeBinance
) -> None:
    settings = binance(exchange, cooldown_seconds=10)
    settings["test_patience"] = {"order": 3.0, "first_look": 0.05, "longest_look": 0.1}
    daemon = daemon_with(**settings).start()
    exchange.fail_next("stall", executed=True)
    assert buy(daemon) == "PENDING"  # for three seconds, then it is looked up and found
    daemon.move_clock(10)
    assert buy(daemon, comment="second") == "FILLED"
    daemon.wait_until_settled()
    assert daemon.post(symbol="BTCUSDT", action="buy", comment="third")["check"] == "cooldown"


def test_a_secret_in_a_damaged_field_is_never_shown(paper: Daemon) -> None:
    body = b'\x01{\n\t"p{{assphrase": ' + json.dumps(SECRET).encode() + b',"symbol":"BTCUSDT"}'
    answer = paper.post_raw(body, f"/webhook/{SECRET}")
    assert answer.status == 400
    assert SECRET not in json.dumps(answer.body)
    assert SECRET not in (paper.folder / "logs" / "signals.csv").read_text()
