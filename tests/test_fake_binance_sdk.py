"""The official Binance SDK talks to the fake exchange and finds every reply in the shape it knows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from binance_common.configuration import ConfigurationRestAPI
from binance_common.errors import (
    BadRequestError,
    ForbiddenError,
    RateLimitBanError,
    ServerError,
    TooManyRequestsError,
    UnauthorizedError,
)
from fake_binance import FakeBinance

BUY = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": 0.01}
REST = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "time_in_force": "GTC", "quantity": 0.01, "price": 50000}


@pytest.fixture
def fake() -> Iterator[FakeBinance]:
    with FakeBinance(engine_seconds=0, balances={"USDT": 10_000, "BTC": 1, "BNB": 5}) as exchange:
        yield exchange


@pytest.fixture
def api(fake: FakeBinance, caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """The SDK's client; whatever it could not parse fails the test."""
    # Every lane of a run reads every test file: what takes so long to import is left to the one that uses it.
    from binance_sdk_spot.spot import Spot

    configuration = ConfigurationRestAPI(
        api_key=fake.api_key, api_secret=fake.api_secret, base_path=fake.base_url, retries=0, timeout=3000
    )
    with caplog.at_level(logging.WARNING):
        yield Spot(config_rest_api=configuration).rest_api
    unparsed = [record.getMessage() for record in caplog.records if "Failed to parse" in record.getMessage()]
    assert unparsed == []


def test_the_public_endpoints_parse(api: Any, fake: FakeBinance) -> None:
    assert api.ping().status == 200
    assert abs(api.time().data().server_time - fake.now_ms()) < 1000
    info = api.exchange_info().data()
    assert [row.symbol for row in info.symbols][:2] == ["BTCUSDT", "ETHUSDT"]
    assert api.exchange_info(symbol="TSLABUSDT").data().symbols[0].symbol == "TSLABUSDT"
    assert len(api.exchange_info(symbols=["BTCUSDT", "ETHUSDT"]).data().symbols) == 2
    assert api.ticker_price(symbol="BTCUSDT").data().actual_instance.price == "60000.00000000"
    assert len(api.ticker_price().data().actual_instance) == 6
    assert api.ticker_book_ticker(symbol="BTCUSDT").data().actual_instance.ask_price == "60000.00000000"
    assert api.avg_price(symbol="BTCUSDT").data().mins == 5
    assert len(api.depth(symbol="BTCUSDT", limit=5).data().bids) == 5


def test_the_account_parses(api: Any) -> None:
    account = api.get_account(omit_zero_balances=True).data()
    assert {row.asset: row.free for row in account.balances} == {
        "BTC": "1.00000000", "BNB": "5.00000000", "USDT": "10000.00000000",
    }  # fmt: skip
    assert api.account_commission(symbol="BTCUSDT").data().standard_commission.taker == "0.00100000"
    assert [row.interval for row in api.rate_limit_order().data()] == ["SECOND", "DAY"]


def test_a_market_order_and_its_trades_parse(api: Any, fake: FakeBinance) -> None:
    order = api.new_order(**BUY, new_client_order_id="sdk-1").data()
    assert (order.status, order.executed_qty, order.fills[0].commission_asset) == ("FILLED", "0.01000000", "BTC")
    looked_up = api.get_order(symbol="BTCUSDT", orig_client_order_id="sdk-1").data()
    assert (looked_up.order_id, looked_up.status) == (order.order_id, "FILLED")
    (trade,) = api.my_trades(symbol="BTCUSDT").data()
    assert (trade.id, trade.quote_qty, trade.is_buyer) == (order.fills[0].trade_id, "600.00000000", True)
    assert [row.order_id for row in api.all_orders(symbol="BTCUSDT").data()] == [order.order_id]
    assert fake.free("USDT") == Decimal(9_400)


def test_an_order_by_quote_amount_and_an_expired_one_parse(api: Any, fake: FakeBinance) -> None:
    order = {name: value for name, value in BUY.items() if name != "quantity"}
    assert api.new_order(**order, quote_order_qty=100).data().cummulative_quote_qty == "99.60000000"
    fake.set_book("BTCUSDT", asks=[("60000", "0.004")])
    expired = api.new_order(**BUY).data()
    assert (expired.status, expired.executed_qty) == ("EXPIRED", "0.00400000")


@pytest.mark.parametrize("response_type", ["ACK", "RESULT", "FULL"])
def test_every_response_type_parses(api: Any, response_type: str) -> None:
    assert api.new_order(**REST, new_order_resp_type=response_type).data().order_list_id == -1


def test_a_resting_order_is_listed_and_canceled(api: Any) -> None:
    order_id = api.new_order(**REST, new_client_order_id="rest").data().order_id
    assert [row.order_id for row in api.get_open_orders(symbol="BTCUSDT").data()] == [order_id]
    canceled = api.delete_order(symbol="BTCUSDT", orig_client_order_id="rest").data()
    assert (canceled.status, canceled.orig_client_order_id) == ("CANCELED", "rest")
    api.new_order(**REST)
    assert len(api.delete_open_orders(symbol="BTCUSDT").data()) == 1


def test_an_oco_parses_from_its_start_to_its_end(api: Any) -> None:
    pair = api.order_list_oco(
        symbol="BTCUSDT", side="SELL", quantity=0.01, above_type="LIMIT_MAKER", above_price=66000,
        below_type="STOP_LOSS_LIMIT", below_stop_price=57000, below_price=56900, below_time_in_force="GTC",
    ).data()  # fmt: skip
    assert [report.status for report in pair.order_reports] == ["NEW", "NEW"]
    assert api.get_order_list(order_list_id=pair.order_list_id).data().list_order_status == "EXECUTING"
    assert len(api.open_order_list().data()) == 1
    done = api.delete_order_list(symbol="BTCUSDT", order_list_id=pair.order_list_id).data()
    assert [report.status for report in done.order_reports] == ["CANCELED", "CANCELED"]


def test_a_test_order_parses(api: Any) -> None:
    assert api.order_test(**BUY).status == 200
    rates = api.order_test(**BUY, compute_commission_rates=True).data()
    assert rates.standard_commission_for_order.taker == "0.00100000"


@pytest.mark.parametrize(
    ("act", "error", "code", "text"),
    [
        (lambda api: api.new_order(**{**BUY, "quantity": 0.010001}), BadRequestError, -1013,
         "Filter failure: LOT_SIZE"),
        (lambda api: api.new_order(**{**BUY, "symbol": "NOPE"}), BadRequestError, -1121, "Invalid symbol."),
        (lambda api: api.new_order(**{**BUY, "quantity": 1}), BadRequestError, -2010,
         "Account has insufficient balance for requested action."),
        (lambda api: api.get_order(symbol="BTCUSDT", order_id=1), BadRequestError, -2013, "Order does not exist."),
        (lambda api: api.delete_order(symbol="BTCUSDT", order_id=1), BadRequestError, -2011, "Unknown order sent."),
    ],
)  # fmt: skip
def test_refusals_become_the_sdks_errors(
    api: Any, act: Callable[[Any], Any], error: type[Exception], code: int, text: str
) -> None:
    with pytest.raises(error) as caught:
        act(api)
    assert (caught.value.status_code, caught.value.error_message) == (code, text)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "details", "error"),
    [
        ("ban", {"status": 429, "retry_after": 2}, TooManyRequestsError),
        ("ban", {"status": 418, "retry_after": 2}, RateLimitBanError),
        ("status", {"status": 403, "html": True}, ForbiddenError),
        ("status", {"status": 502, "html": True}, ServerError),
        ("error", {"code": -1007}, ServerError),
        ("error", {"code": -2015}, UnauthorizedError),
        ("error", {"code": -1021}, BadRequestError),
    ],
)
def test_faults_become_the_sdks_errors(
    api: Any, fake: FakeBinance, kind: str, details: dict[str, Any], error: type[Exception]
) -> None:
    fake.fail_next(kind, **details)
    with pytest.raises(error):
        api.new_order(**BUY)
    assert fake.orders == []


def test_the_sdk_reads_the_rate_limit_headers(api: Any) -> None:
    limits = {(limit.rateLimitType, limit.interval): limit.count for limit in api.new_order(**REST).rate_limits}
    assert limits[("ORDERS", "SECOND")] == 1
    assert limits[("REQUEST_WEIGHT", "MINUTE")] == 0
