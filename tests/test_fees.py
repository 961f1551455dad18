"""Fees that are taken in BNB: they cost money, so the P&L and the daily loss count them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest
from builders import RULES, D, S, an_order
from fake_binance import FakeBinance
from harness import Daemon, assert_csvs_equal_journal, binance, eventually, futures

from fees import total_in, valued
from models import Fee, Instrument, Market, Order

MakeDaemon = Callable[..., Daemon]
SPOT_BNB = Instrument("BINANCE", Market.SPOT, "BNBUSDT")


def at(price: str) -> Callable[[Instrument], Decimal | None]:
    return {SPOT_BNB: D(price)}.get


def nobody_knows(instrument: Instrument) -> None:
    return None


def bnb(amount: str, value: str | None = None) -> Fee:
    return Fee("BNB", D(amount), None if value is None else D(value))


def an_order_that_paid(*fees: Fee) -> Order:
    return an_order(S.PARTIALLY_FILLED, fees=fees)


# --- worked by hand ---------------------------------------------------------------------------------------------------


def test_a_fee_in_a_third_coin_is_worth_its_price() -> None:
    assert valued(an_order(), (bnb("0.002"),), at("600")) == (bnb("0.002", "1.2"),)


@pytest.mark.parametrize("asset", ["USDT", "BTC"])
def test_a_fee_in_base_or_quote_needs_no_value(asset: str) -> None:
    fees = (Fee(asset, D("0.5")),)
    assert valued(an_order(), fees, lambda instrument: D(600)) == fees


def test_bnb_that_is_traded_itself_shrinks_what_arrives_on_spot_and_costs_money_on_futures() -> None:
    spot = replace(an_order(), symbol="BNBUSDT", rules=replace(RULES, symbol="BNBUSDT", base_asset="BNB"))
    assert valued(spot, (bnb("0.002"),), at("600")) == (bnb("0.002"),)
    perpetual = replace(spot, market=Market.FUTURES)
    assert valued(perpetual, (bnb("0.002"),), lambda instrument: D(600)) == (bnb("0.002", "1.2"),)


def test_a_later_part_is_worth_the_price_of_its_own_moment() -> None:
    order = an_order_that_paid(bnb("0.002", "1.2"))
    assert valued(order, (bnb("0.003"),), at("700")) == (bnb("0.003", "1.9"),)
    assert valued(order, (bnb("0.002"),), at("700")) == (bnb("0.002", "1.2"),), "nothing new was paid"


def test_without_a_price_there_is_no_value_and_one_that_is_known_stays() -> None:
    assert valued(an_order(), (bnb("0.002"),), nobody_knows) == (bnb("0.002"),)
    assert valued(an_order_that_paid(bnb("0.002", "1.2")), (bnb("0.003"),), nobody_knows) == (bnb("0.003", "1.2"),)
    assert valued(an_order_that_paid(bnb("0.002")), (bnb("0.003"),), at("600")) == (bnb("0.003", "1.8"),)


def test_where_money_is_not_dollars_nothing_is_valued() -> None:
    order = replace(an_order(), rules=replace(RULES, quote_asset="EUR"))
    assert valued(order, (bnb("0.002"),), at("600")) == (bnb("0.002"),)


def test_several_fees_in_one_asset_are_one_sum() -> None:
    assert total_in("BNB", (bnb("1", "600"), Fee("BTC", D(9)), bnb("2"))) == bnb("3", "600")
    assert total_in("BNB", ()) == bnb("0")


# --- with the exchange ------------------------------------------------------------------------------------------------


def give_bnb(exchange: FakeBinance) -> None:
    exchange.set_balance("BNB", 1)
    exchange.fees_in_bnb = True


def a_round(daemon: Daemon, exchange: FakeBinance, *, bought_at: int, sold_at: int) -> None:
    """0.01 BTC in and out again."""
    exchange.set_price("BTCUSDT", bought_at)
    assert daemon.post(symbol="BTCUSDT", action="buy", quantity="0.01")["status"] == "FILLED"
    exchange.set_price("BTCUSDT", sold_at)
    assert daemon.post(symbol="BTCUSDT", action="sell", quantity="0.01")["status"] == "FILLED"


def paid_in_bnb(daemon: Daemon) -> list[Fee]:
    fees = [fee for one in daemon.owner_get("/executions")["executions"] for fee in one["fees"]]
    return [Fee(fee["asset"], D(str(fee["amount"])), fee["value"] and D(str(fee["value"]))) for fee in fees]


WIDE = {"cooldown_seconds": 0, "max_risk_per_trade": 1000, "max_trades_per_day": 100}


def test_a_round_on_spot_loses_what_it_paid_in_bnb(daemon_with: MakeDaemon, exchange: FakeBinance) -> None:
    """Bought and sold at 60,000: nothing won, and twice 0.075 % of 600 USDT paid, as 0.00075 BNB at 600."""
    give_bnb(exchange)
    daemon = daemon_with(**binance(exchange, **WIDE)).start()
    a_round(daemon, exchange, bought_at=60_000, sold_at=60_000)
    assert paid_in_bnb(daemon) == [bnb("0.00075", "0.45")] * 2
    sold = daemon.trades()[-1]
    assert (sold["Fee"], sold["FeeAsset"], sold["RealizedPnL"]) == ("0.00075", "BNB", "-0.9")
    assert sold["Note"] == "fee worth 0.45 USDT"
    assert_csvs_equal_journal(daemon)


def test_fees_in_bnb_count_against_the_daily_loss_and_are_remembered_over_a_restart(
    daemon_with: MakeDaemon, exchange: FakeBinance
) -> None:
    """The price itself loses nothing: without the fees the limit would never be reached."""
    give_bnb(exchange)
    daemon = daemon_with(**binance(exchange, max_daily_loss_usdt="0.8", **WIDE)).start()
    a_round(daemon, exchange, bought_at=60_000, sold_at=60_000)
    for process in ("the first", "its successor"):
        refused = daemon.post(symbol="BTCUSDT", action="buy", quantity="0.005", comment=process)
        assert (refused["decision"], refused["check"]) == ("REJECTED", "daily_loss"), refused.body
        daemon.kill()
        daemon.start()


def test_the_figures_have_fees_in_bnb_among_those_in_dollars(daemon_with: MakeDaemon, exchange: FakeBinance) -> None:
    give_bnb(exchange)
    daemon = daemon_with(**binance(exchange, **WIDE)).start()
    a_round(daemon, exchange, bought_at=60_000, sold_at=60_000)
    found = daemon.owner_get("/performance")
    assert (found["fees"], found["other_fees"], found["realized_pnl"]) == (0.9, [], -0.9)


def test_a_round_on_futures_loses_what_it_paid_in_bnb(daemon_with: MakeDaemon, exchange: FakeBinance) -> None:
    """0.01 BTC at 60,000 and back: twice 0.045 % of 600 USDT, which are 0.27."""
    exchange.futures.set_price("BTCUSDT", 60_000)
    exchange.futures.set_balance("BNB", 1)
    exchange.futures.set_options(fees_in_bnb=True)
    daemon = daemon_with(**futures(exchange, **WIDE)).start()
    assert daemon.post(symbol="BTCUSDT", action="buy", quantity="0.01")["status"] == "FILLED"
    assert daemon.post(symbol="BTCUSDT", action="close")["status"] == "FILLED"
    assert paid_in_bnb(daemon) == [bnb("0.00045", "0.27")] * 2
    assert daemon.trades()[-1]["RealizedPnL"] == "-0.54"


def test_a_fee_whose_price_nobody_knows_is_listed_and_not_counted(
    daemon_with: MakeDaemon, exchange: FakeBinance
) -> None:
    """The BNB arrived after the start, and no price of it has been seen yet."""
    daemon = daemon_with(**binance(exchange, **WIDE)).start()
    give_bnb(exchange)
    a_round(daemon, exchange, bought_at=60_000, sold_at=60_000)
    sold = daemon.trades()[-1]
    assert (sold["Fee"], sold["FeeAsset"], sold["RealizedPnL"], sold["Note"]) == ("0.00075", "BNB", "0", "")
    found = daemon.owner_get("/performance")
    assert (found["fees"], found["other_fees"]) == (0, [{"asset": "BNB", "amount": 0.0015}])


def watched(exchange: FakeBinance) -> set[str]:
    return {str(call.params) for call in exchange.calls("GET /api/v3/ticker/price")}


def test_the_price_of_bnb_is_only_watched_where_there_is_some(daemon_with: MakeDaemon, exchange: FakeBinance) -> None:
    daemon = daemon_with(**binance(exchange, **WIDE)).start()
    assert daemon.post(symbol="BTCUSDT", action="buy", quantity="0.001")["status"] == "FILLED"
    eventually(lambda: len(watched(exchange)) > 0, 10, lambda: "no price was asked for")
    assert not any("BNBUSDT" in params for params in watched(exchange))
    give_bnb(exchange)
    eventually(lambda: any("BNBUSDT" in params for params in watched(exchange)), 15, lambda: "not watched")
