"""The official futures SDK and python-binance talk to the fake futures and find every reply in the shape they know."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from binance import Client
from binance.exceptions import BinanceAPIException
from binance_common.configuration import ConfigurationRestAPI
from binance_common.errors import BadRequestError, ServerError, TooManyRequestsError
from fake_binance import FakeBinance

BUY = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": 0.01}
SELL = {**BUY, "side": "SELL"}
REST = {**BUY, "type": "LIMIT", "time_in_force": "GTC", "price": 59000}
STOP = {"algo_type": "CONDITIONAL", "symbol": "BTCUSDT", "side": "SELL", "type": "STOP_MARKET", "trigger_price": 58000}


@pytest.fixture
def fake() -> Iterator[FakeBinance]:
    with FakeBinance(engine_seconds=0) as exchange:
        yield exchange


@dataclass
class Sdk:
    """The SDK's client, and a look at what it made of a reply."""

    rest: Any
    bodies: list[Any] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rest, name)

    def known(self, reply: Any, *unknown_fields: str) -> Any:
        """The reply's data, after a look that its models have all of the fields that came, except these."""
        data = reply.data()
        assert lost(self.bodies[-1], data) == set(unknown_fields)
        return data


def lost(body: Any, data: Any) -> set[str]:
    """Names of fields that came and that no model has, at any depth."""
    data = getattr(data, "actual_instance", data)
    if isinstance(body, list):
        return set().union(*(lost(*pair) for pair in zip(body, data, strict=True)))
    if not isinstance(body, dict):
        return set()
    names = {info.alias or name: name for name, info in type(data).model_fields.items()}
    return {key for key in body if key not in names}.union(
        *(lost(value, getattr(data, names[key])) for key, value in body.items() if key in names)
    )


@pytest.fixture
def api(fake: FakeBinance, caplog: pytest.LogCaptureFixture) -> Iterator[Sdk]:
    """The SDK's client; whatever it warns of fails the test."""
    # Every lane of a run reads every test file: what takes so long to import is left to the one that uses it.
    from binance_sdk_derivatives_trading_usds_futures.derivatives_trading_usds_futures import (
        DerivativesTradingUsdsFutures,
    )

    configuration = ConfigurationRestAPI(
        api_key=fake.api_key, api_secret=fake.api_secret, base_path=fake.base_url, retries=0, timeout=3000
    )
    sdk = Sdk(DerivativesTradingUsdsFutures(config_rest_api=configuration).rest_api)
    sdk.rest._session.hooks["response"].append(lambda response, **_: sdk.bodies.append(response.json()))
    with caplog.at_level(logging.WARNING):
        yield sdk
    assert [record.getMessage() for record in caplog.records] == []


def test_the_public_endpoints_parse(api: Sdk, fake: FakeBinance) -> None:
    assert api.test_connectivity().status == 200
    assert abs(api.known(api.check_server_time()).server_time - fake.now_ms()) < 1000
    price = api.known(api.symbol_price_ticker(symbol="BTCUSDT")).actual_instance
    assert (price.price, api.known(api.symbol_price_ticker_v2(symbol="BTCUSDT")).actual_instance.price) == (
        "60000.00", "60000.00",
    )  # fmt: skip
    assert api.known(api.mark_price(symbol="BTCUSDT")).actual_instance.mark_price == "60000.00000000"
    assert len(api.known(api.mark_price()).actual_instance) == 7
    assert len(api.known(api.order_book(symbol="BTCUSDT", limit=5)).bids) == 5
    assert api.known(api.symbol_order_book_ticker(symbol="BTCUSDT")).actual_instance.ask_price == "60000.00"


def test_exchange_info_parses_with_what_live_replies_have_beyond_the_models(api: Sdk) -> None:
    beyond = ("futuresType", "maxMoveOrderLimit", "permissionSets", "positionControlSide")
    info = api.known(api.exchange_information(), *beyond)
    assert [row.symbol for row in info.symbols][:2] == ["BTCUSDT", "ETHUSDT"]


def test_the_accounts_choices_parse(api: Sdk) -> None:
    assert api.known(api.get_current_position_mode()).dual_side_position is False
    assert api.known(api.change_position_mode(dual_side_position="true")).code == 200
    assert api.known(api.change_initial_leverage(symbol="BTCUSDT", leverage=5)).leverage == 5
    assert api.known(api.change_margin_type(symbol="BTCUSDT", margin_type="ISOLATED")).msg == "success"
    (chosen,) = api.known(api.symbol_configuration(symbol="BTCUSDT"))
    assert (chosen.margin_type, chosen.leverage) == ("ISOLATED", 5)
    assert api.known(api.futures_account_configuration()).dual_side_position is True
    assert api.known(api.get_current_multi_assets_mode()).multi_assets_margin is False
    assert api.known(api.user_commission_rate(symbol="BTCUSDT")).taker_commission_rate == "0.0005"
    assert [row.limit for row in api.known(api.query_user_rate_limit())] == [1200, 300]
    brackets = api.known(api.notional_and_leverage_brackets(symbol="BTCUSDT")).actual_instance.brackets
    assert [brackets[0].initial_leverage, brackets[1].notional_floor] == [125, 300_000]


def test_opening_turning_around_and_closing_parse(api: Sdk, fake: FakeBinance) -> None:
    opened = api.known(api.new_order(**BUY, new_client_order_id="in", new_order_resp_type="RESULT"))
    assert (opened.status, opened.executed_qty, opened.cum_qty) == ("FILLED", "0.010", "0.010")
    fake.futures.set_price("BTCUSDT", 61000)
    turned = api.known(api.new_order(**{**SELL, "quantity": 0.03}))
    assert (turned.status, turned.executed_qty) == ("NEW", "0.000"), "an ACK knows of no trade yet"
    looked_up = api.known(api.query_order(symbol="BTCUSDT", order_id=turned.order_id))
    assert (looked_up.status, looked_up.avg_price, looked_up.cum_quote) == ("FILLED", "61000.00000", "1830.00000")
    api.known(api.new_order(**{**BUY, "quantity": 0.02, "reduce_only": "true"}))
    trades = api.known(api.account_trade_list(symbol="BTCUSDT"))
    assert [trade.realized_pnl for trade in trades] == ["0.00000000", "10.00000000", "0.00000000"]
    assert [order.status for order in api.known(api.all_orders(symbol="BTCUSDT"))] == ["FILLED"] * 3
    assert fake.futures.positions == []


@pytest.mark.parametrize("hedge", [False, True], ids=["one-way", "hedge"])
@pytest.mark.parametrize("margin", ["CROSSED", "ISOLATED"])
def test_account_balances_and_positions_parse(api: Sdk, hedge: bool, margin: str) -> None:
    if hedge:
        api.change_position_mode(dual_side_position="true")
    if margin == "ISOLATED":
        api.change_margin_type(symbol="BTCUSDT", margin_type=margin)
    side = {"position_side": "LONG"} if hedge else {}
    api.new_order(**BUY, **side)
    api.new_order(**REST, **side)
    for account in (api.known(api.account_information_v2()), api.known(api.account_information_v3())):
        assert Decimal(account.available_balance) == 10_000 - Decimal("0.3") - Decimal(600) / 20 - Decimal(590) / 20
    for balances in (api.known(api.futures_account_balance_v2()), api.known(api.futures_account_balance_v3())):
        assert [row.asset for row in balances] == ["USDT", "BNB", "USDC"]
    rows = api.known(api.position_information_v2(symbol="BTCUSDT"))
    assert [row.position_amt for row in rows] == (["0.010", "0.000"] if hedge else ["0.010"])
    (row,) = api.known(api.position_information_v3())
    assert (row.entry_price, row.position_side) == ("60000", "LONG" if hedge else "BOTH")


def test_a_resting_order_is_listed_and_canceled(api: Sdk) -> None:
    order_id = api.known(api.new_order(**REST, new_client_order_id="rest")).order_id
    assert [row.order_id for row in api.known(api.current_all_open_orders(symbol="BTCUSDT"))] == [order_id]
    assert api.known(api.query_current_open_order(symbol="BTCUSDT", order_id=order_id)).status == "NEW"
    canceled = api.known(api.cancel_order(symbol="BTCUSDT", orig_client_order_id="rest"))
    assert (canceled.status, canceled.order_id) == ("CANCELED", order_id)
    assert api.known(api.cancel_all_open_orders(symbol="BTCUSDT")).code == 200
    assert api.known(api.test_order(**REST)).status == "NEW"


@pytest.mark.parametrize(
    "changes",
    [
        {"quantity": 0.01},
        {"close_position": "true"},
        {"type": "STOP", "price": 58100, "quantity": 0.01, "reduce_only": "true"},
        {"type": "TAKE_PROFIT_MARKET", "trigger_price": 65000, "working_type": "MARK_PRICE", "quantity": 0.01},
        {"type": "TAKE_PROFIT", "trigger_price": 62000, "price": 62000, "quantity": 0.01},
        {"type": "TRAILING_STOP_MARKET", "trigger_price": None, "callback_rate": 1, "quantity": 0.01,
         "activate_price": 61000},
    ],
    ids=lambda changes: changes.get("type", "STOP_MARKET") + (" all" if "close_position" in changes else ""),
)  # fmt: skip
def test_a_conditional_order_parses_from_its_start_to_its_end(
    api: Sdk, fake: FakeBinance, changes: dict[str, Any]
) -> None:
    api.new_order(**BUY)
    placed = api.known(api.new_algo_order(**{**STOP, **changes}, client_algo_id="cond"))
    assert (placed.algo_status, placed.client_algo_id) == ("NEW", "cond")
    (listed,) = api.known(api.current_all_algo_open_orders(symbol="BTCUSDT"), "actualQty")
    assert listed.algo_id == placed.algo_id
    assert api.known(api.query_algo_order(client_algo_id="cond")).actual_order_id == ""
    for price in (61500, 60800) if "callback_rate" in changes else (changes.get("trigger_price", 58000),):
        fake.futures.set_price("BTCUSDT", price)
    ended = api.known(api.query_algo_order(algo_id=placed.algo_id))
    assert ended.algo_status == ("TRIGGERED" if changes.get("type") == "STOP" else "FINISHED")
    order = api.known(api.query_order(symbol="BTCUSDT", order_id=int(ended.actual_order_id)))
    assert (order.type, order.side) == (ended.actual_type, "SELL")
    if ended.algo_status == "FINISHED":
        assert ended.actual_qty == "0.010"
        assert fake.futures.positions == []
    assert api.known(api.query_all_algo_orders(symbol="BTCUSDT"))[0].algo_id == placed.algo_id


def test_conditional_orders_are_canceled(api: Sdk) -> None:
    api.known(api.new_algo_order(**STOP, quantity=0.01, client_algo_id="one"))
    api.known(api.new_algo_order(**STOP, quantity=0.01, client_algo_id="two"))
    assert api.known(api.cancel_algo_order(client_algo_id="one")).code == "200", "text here, a number everywhere else"
    assert api.known(api.cancel_all_algo_open_orders(symbol="BTCUSDT")).code == 200
    assert api.known(api.query_algo_order(client_algo_id="two")).algo_status == "CANCELED"


def test_refusals_and_faults_become_the_sdks_errors(api: Sdk, fake: FakeBinance) -> None:
    with pytest.raises(BadRequestError) as caught:
        api.new_order(**{**SELL, "reduce_only": "true"})
    assert (caught.value.status_code, caught.value.error_message) == (-2022, "ReduceOnly Order is rejected.")
    fake.overload("unknown", executed=True)
    with pytest.raises(ServerError):
        api.new_order(**BUY, new_client_order_id="lost")
    assert api.known(api.query_order(symbol="BTCUSDT", orig_client_order_id="lost")).status == "FILLED"
    fake.fail_next("ban", "POST /fapi/v1/order", status=429, retry_after=2)
    with pytest.raises(TooManyRequestsError):
        api.new_order(**BUY)
    fake.clear_faults()
    limits = {(limit.rateLimitType, limit.interval): limit.count for limit in api.new_order(**BUY).rate_limits}
    assert limits[("ORDERS", "SECOND")] == 2
    assert limits[("ORDERS", "MINUTE")] == 2


# --- python-binance, which the daemon uses ------------------------------------------------------------------------


@pytest.fixture
def client(fake: FakeBinance) -> Client:
    client = Client(fake.api_key, fake.api_secret, ping=False)
    client.FUTURES_URL = fake.fapi_url
    client.session.trust_env = False
    return client


def test_python_binance_opens_protects_and_closes(client: Client, fake: FakeBinance) -> None:
    assert client.futures_exchange_info()["symbols"][0]["symbol"] == "BTCUSDT"
    assert client.futures_symbol_ticker(symbol="BTCUSDT")["price"] == "60000.00"
    assert client.futures_mark_price(symbol="BTCUSDT")["markPrice"] == "60000.00000000"
    assert client.futures_change_leverage(symbol="BTCUSDT", leverage=10)["leverage"] == 10
    assert client.futures_get_position_mode() == {"dualSidePosition": False}
    order = client.futures_create_order(
        symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.010", newClientOrderId="in", newOrderRespType="RESULT"
    )
    assert (order["status"], order["executedQty"]) == ("FILLED", "0.010")
    assert client.futures_get_order(symbol="BTCUSDT", origClientOrderId="in")["avgPrice"] == "60000.00000"
    assert [row["asset"] for row in client.futures_account_balance()] == ["USDT", "BNB", "USDC"]
    assert client.futures_account()["totalInitialMargin"] == "60.00000000"
    (position,) = client.futures_position_information(symbol="BTCUSDT")
    assert position["positionAmt"] == "0.010"
    stop = client.futures_create_order(
        symbol="BTCUSDT", side="SELL", type="STOP_MARKET", stopPrice="58000", closePosition="true", clientAlgoId="stop"
    )
    assert (stop["clientAlgoId"], stop["triggerPrice"]) == ("stop", "58000.00")
    assert client.futures_get_order(clientAlgoId="stop")["algoStatus"] == "NEW"
    assert len(client.futures_get_open_orders(symbol="BTCUSDT", conditional=True)) == 1
    assert client.futures_get_open_orders(symbol="BTCUSDT") == []
    assert client.futures_cancel_order(clientAlgoId="stop")["code"] == "200"
    client.futures_create_order(symbol="BTCUSDT", side="SELL", type="MARKET", quantity="0.010", reduceOnly="true")
    assert [trade["side"] for trade in client.futures_account_trades(symbol="BTCUSDT")] == ["BUY", "SELL"]
    assert client.futures_position_information(symbol="BTCUSDT") == []
    assert json.dumps(fake.state())


def test_python_binance_raises_the_codes_of_futures(client: Client) -> None:
    with pytest.raises(BinanceAPIException) as caught:
        client.futures_change_margin_type(symbol="BTCUSDT", marginType="CROSSED")
    assert (caught.value.code, caught.value.message) == (-4046, "No need to change margin type.")
    with pytest.raises(BinanceAPIException) as caught:
        client.futures_change_position_mode(dualSidePosition="false")
    assert (caught.value.code, caught.value.message) == (-4059, "No need to change position side.")
    with pytest.raises(BinanceAPIException) as caught:
        client.futures_get_order(symbol="BTCUSDT", origClientOrderId="never")
    assert (caught.value.code, caught.value.message) == (-2013, "Order does not exist.")
