"""The fake exchange keeps Binance's rules: each is tried over HTTP, at its last good and its first bad value."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from fake_binance import FakeBinance
from fake_faults import KINDS, Fault
from fake_matching import ApiError, Balance, Engine, NewOrder, load
from fake_rest import PARAMETERS, ROUTES, sign
from harness import examples
from hypothesis import given, settings
from hypothesis import strategies as st

VECTORS = load("binance_signature_vectors.json")["hmac_sha256"]
INSUFFICIENT = "Account has insufficient balance for requested action."
MARKET_BUY = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"}
LIMIT_BUY = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01",
             "price": "50000"}  # fmt: skip


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Client:
    """A bare client: signs and sends, hides nothing."""

    fake: FakeBinance
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.trust_env = False

    def signed(self, params: dict[str, Any]) -> str:
        query = urlencode({"timestamp": self.fake.now_ms(), **params})
        return f"{query}&signature={sign(self.fake.api_secret, query)}"

    def send(self, method: str, path: str, query: str = "", *, body: str = "", key: str | None = None,
             timeout: float = 5) -> requests.Response:  # fmt: skip
        headers = {"X-MBX-APIKEY": self.fake.api_key if key is None else key}
        if body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        url = f"{self.fake.api_url}/v3/{path}" + (f"?{query}" if query else "")
        return self.session.request(method, url, headers=headers, data=body or None, timeout=timeout)

    def get(self, path: str, **params: Any) -> Any:
        return self.send("GET", path, self.signed(params)).json()

    def public(self, path: str, **params: Any) -> Any:
        return self.send("GET", path, urlencode(params)).json()

    def delete(self, path: str, **params: Any) -> Any:
        return self.send("DELETE", path, self.signed(params)).json()

    def order(self, order: dict[str, Any] | None = None, **changes: Any) -> Any:
        return self.post("order", order, **changes).json()

    def post(self, path: str, order: dict[str, Any] | None = None, *, timeout: float = 5, **changes: Any) -> Any:
        params = {**(MARKET_BUY if order is None else order), **changes}
        params = {name: value for name, value in params.items() if value is not None}
        return self.send("POST", path, self.signed(params), timeout=timeout)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fake(clock: Clock) -> Iterator[FakeBinance]:
    balances = {"USDT": 100_000, "BTC": 2, "DOGE": 100_000}
    with FakeBinance(clock=clock, balances=balances, engine_seconds=0) as exchange:
        yield exchange


@pytest.fixture
def client(fake: FakeBinance) -> Client:
    return Client(fake)


def held(client: Client, asset: str) -> tuple[str, str]:
    """What is free and what is locked of an asset."""
    return f"{client.fake.free(asset).normalize():f}", f"{client.fake.locked(asset).normalize():f}"


def code_and_text(reply: Any) -> tuple[int, str]:
    return reply["code"], reply["msg"]


# --- signatures, keys, time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["source"] for vector in VECTORS])
def test_the_published_signature_examples_come_out_right(vector: dict[str, str]) -> None:
    assert sign(vector["secret"], vector["payload"]) == vector["signature"]


@pytest.mark.parametrize("vector", VECTORS[:2], ids=["ascii", "percent-encoded"])
@pytest.mark.parametrize("place", ["query", "body"])
def test_the_published_requests_are_accepted_as_signed(vector: dict[str, str], place: str) -> None:
    signed_at = int(vector["payload"].rpartition("=")[2]) / 1000
    with FakeBinance(api_secret=vector["secret"], clock=lambda: signed_at) as fake:
        whole = f"{vector['payload']}&signature={vector['signature']}"
        client = Client(fake)
        reply = client.send("POST", "order", whole) if place == "query" else client.send("POST", "order", body=whole)
    assert reply.json() == {"code": -1121, "msg": "Invalid symbol."}, "signature fine, LTCBTC just is not traded here"


def test_the_signature_covers_query_and_body_put_together(client: Client) -> None:
    query, body = "symbol=BTCUSDT&side=BUY", f"type=MARKET&quantity=0.01&timestamp={client.fake.now_ms()}"
    signature = sign(client.fake.api_secret, query + body)
    assert client.send("POST", "order", query, body=f"{body}&signature={signature}").json()["status"] == "FILLED"
    glued_with_ampersand = sign(client.fake.api_secret, f"{query}&{body}")
    reply = client.send("POST", "order", query, body=f"{body}&signature={glued_with_ampersand}")
    assert code_and_text(reply.json()) == (-1022, "Signature for this request is not valid.")


def test_a_parameter_in_query_and_body_counts_as_in_the_query(client: Client) -> None:
    query, body = urlencode(MARKET_BUY), f"quantity=0.02&timestamp={client.fake.now_ms()}"
    signature = sign(client.fake.api_secret, query + body)
    reply = client.send("POST", "order", query, body=f"{body}&signature={signature}").json()
    assert reply["executedQty"] == "0.01000000"


def test_the_case_of_a_signature_does_not_matter(client: Client) -> None:
    query, _, signature = client.signed({}).partition("&signature=")
    assert client.send("GET", "account", f"{query}&signature={signature.upper()}").status_code == 200


def test_a_signature_over_other_bytes_is_refused(client: Client) -> None:
    query = client.signed(MARKET_BUY).replace("quantity=0.01", "quantity=0.02")
    reply = client.send("POST", "order", query)
    assert (reply.status_code, *code_and_text(reply.json())) == (400, -1022, "Signature for this request is not valid.")
    assert client.fake.orders == []


@pytest.mark.parametrize(
    ("key", "refusal"),
    [
        ("", (-2014, "API-key format invalid.")),
        ("short", (-2014, "API-key format invalid.")),
        ("B" * 64, (-2015, "Invalid API-key, IP, or permissions for action.")),
    ],
)
def test_a_wrong_key_is_refused_with_401(client: Client, key: str, refusal: tuple[int, str]) -> None:
    reply = client.send("GET", "account", client.signed({}), key=key)
    assert (reply.status_code, code_and_text(reply.json())) == (401, refusal)


OUTSIDE = "Timestamp for this request is outside of the recvWindow."
AHEAD = "Timestamp for this request was 1000ms ahead of the server's time."


@pytest.mark.parametrize(
    ("offset_ms", "window", "text"),
    [
        (-5000, None, None),
        (-5001, None, OUTSIDE),
        (-60_000, 60_000, None),
        (-100, 99, OUTSIDE),
        (999, None, None),
        (1000, None, AHEAD),
        (0, 60_001, "'recvWindow' contains unexpected value. Cannot be greater than 60000."),
    ],
)
def test_the_time_window(client: Client, offset_ms: int, window: int | None, text: str | None) -> None:
    params = {"timestamp": client.fake.now_ms() + offset_ms} | ({"recvWindow": window} if window else {})
    reply = client.send("GET", "account", client.signed(params))
    assert reply.status_code == (200 if text is None else 400)
    assert reply.json().get("msg") == text


def test_the_window_is_checked_again_just_before_the_engine() -> None:
    with FakeBinance(engine_seconds=0) as fake:
        fake.fail_next("delay", seconds=0.15)
        reply = Client(fake).order(recvWindow=100)
    assert code_and_text(reply) == (-1021, OUTSIDE)
    assert fake.orders == []


def test_the_engines_own_time_does_not_count_against_the_window() -> None:
    with FakeBinance(engine_seconds=0.15) as fake:
        started = time.monotonic()
        assert Client(fake).order(recvWindow=100)["status"] == "FILLED"
    assert time.monotonic() - started >= 0.15


def test_time_and_ping_need_no_key(client: Client) -> None:
    assert client.session.get(f"{client.fake.api_url}/v3/ping").json() == {}
    assert client.session.get(f"{client.fake.api_url}/v3/time").json() == {"serverTime": client.fake.now_ms()}


# --- parameters ---------------------------------------------------------------------------------------------------

QUANTITIES = r"^([0-9]{1,20})(\.[0-9]{1,20})?$"
BAD_ORDERS: list[tuple[str, dict[str, Any], int, str]] = [
    ("unknown parameter", {"foo": "1"}, -1104,
     "Not all sent parameters were read; read '6' parameter(s) but was sent '7'."),
    ("no symbol", {"symbol": None}, -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."),
    ("no side", {"side": None}, -1102, "Mandatory parameter 'side' was not sent, was empty/null, or malformed."),
    ("no type", {"type": None}, -1102, "Mandatory parameter 'type' was not sent, was empty/null, or malformed."),
    ("empty symbol", {"symbol": ""}, -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."),
    ("empty optional", {"newClientOrderId": ""}, -1105, "Parameter 'newClientOrderId' was empty."),
    ("no quantity", {"quantity": None}, -1102,
     "Param 'quantity' or 'quoteOrderQty' must be sent, but both were empty/null!"),
    ("both quantities", {"quoteOrderQty": "100"}, -1106, "Parameter 'quantity' sent when not required."),
    ("market with price", {"price": "1"}, -1106, "Parameter 'price' sent when not required."),
    ("market with time in force", {"timeInForce": "GTC"}, -1106, "Parameter 'timeInForce' sent when not required."),
    ("limit without price", {"type": "LIMIT", "timeInForce": "GTC"}, -1102,
     "Mandatory parameter 'price' was not sent, was empty/null, or malformed."),
    ("limit without time in force", {"type": "LIMIT", "price": "50000"}, -1102,
     "Mandatory parameter 'timeInForce' was not sent, was empty/null, or malformed."),
    ("limit by quote", {**LIMIT_BUY, "quoteOrderQty": "9"}, -1106, "Parameter 'quoteOrderQty' sent when not required."),
    ("lower case symbol", {"symbol": "btcusdt"}, -1100,
     r"Illegal characters found in parameter 'symbol'; legal range is '^[\w\-._&&[^a-z]]{1,50}$'."),
    ("scientific number", {"quantity": "1e-05"}, -1100,
     f"Illegal characters found in parameter 'quantity'; legal range is '{QUANTITIES}'."),
    ("negative number", {"quantity": "-1"}, -1100,
     f"Illegal characters found in parameter 'quantity'; legal range is '{QUANTITIES}'."),
    ("dot in client id", {"newClientOrderId": "a.b"}, -1100,
     "Illegal characters found in parameter 'newClientOrderId'; legal range is '^[a-zA-Z0-9-_]{1,36}$'."),
    ("client id of 37", {"newClientOrderId": "a" * 37}, -1100,
     "Illegal characters found in parameter 'newClientOrderId'; legal range is '^[a-zA-Z0-9-_]{1,36}$'."),
    ("nine decimals", {"quantity": "0.010000000"}, -1111, "Parameter 'quantity' has too much precision."),
    ("bad side", {"side": "HOLD"}, -1117, "Invalid side."),
    ("bad type", {"type": "MARKTE"}, -1116, "Invalid orderType."),
    ("bad time in force", {**LIMIT_BUY, "timeInForce": "GTX"}, -1115, "Invalid timeInForce."),
    ("bad response type", {"newOrderRespType": "ALL"}, -1130,
     "Data sent for parameter 'newOrderRespType' is not valid."),
    ("unknown symbol", {"symbol": "NOPEUSDT"}, -1121, "Invalid symbol."),
    ("trailing stop", {"trailingDelta": "10"}, -2010, "Trailing stop orders are not supported for this symbol."),
    ("reserved strategy type", {"strategyType": "999999"}, -1134, "`strategyType` was less than 1000000."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "code", "text"), [row[1:] for row in BAD_ORDERS], ids=[row[0] for row in BAD_ORDERS]
)
@pytest.mark.parametrize("path", ["order", "order/test"])
def test_a_malformed_order_is_refused_in_binances_words(
    client: Client, path: str, changes: dict[str, Any], code: int, text: str
) -> None:
    reply = client.post(path, **changes)
    assert (reply.status_code, *code_and_text(reply.json())) == (400, code, text)
    assert client.fake.orders == []


def test_the_longest_client_id_and_eight_decimals_are_fine(client: Client) -> None:
    order = client.order(newClientOrderId="a-_" * 12, quantity="0.01000000")
    assert (order["clientOrderId"], order["status"]) == ("a-_" * 12, "FILLED")


def test_a_parameter_sent_twice_is_refused(client: Client) -> None:
    reply = client.send("POST", "order", client.signed(MARKET_BUY) + "&side=SELL").json()
    assert code_and_text(reply) == (-1101, "Duplicate values for a parameter detected.")


def test_more_parameters_than_an_endpoint_has_is_refused(client: Client) -> None:
    assert code_and_text(client.public("time", foo=1)) == (-1101, "Too many parameters; expected '0' and received '1'.")


def test_every_served_endpoint_is_in_the_parameter_table() -> None:
    assert set(ROUTES) <= set(PARAMETERS)


def test_unknown_paths_and_methods(client: Client) -> None:
    assert client.send("GET", "nothing").status_code == 404
    assert client.send("PUT", "order").status_code == 405
    assert client.fake.calls("PUT /api/v3/order")[0].status == 405


# --- market data --------------------------------------------------------------------------------------------------


def test_exchange_info_by_symbol_by_symbols_and_whole(client: Client) -> None:
    one = client.public("exchangeInfo", symbol="TSLABUSDT")
    assert [row["symbol"] for row in one["symbols"]] == ["TSLABUSDT"]
    lot = next(row for row in one["symbols"][0]["filters"] if row["filterType"] == "MARKET_LOT_SIZE")
    assert lot["stepSize"] == lot["minQty"] == "0.00000000"
    two = client.public("exchangeInfo", symbols='["BTCUSDT","ETHUSDT"]')
    assert [row["symbol"] for row in two["symbols"]] == ["BTCUSDT", "ETHUSDT"]
    assert len(client.public("exchangeInfo")["symbols"]) == 6
    assert two["rateLimits"][0]["limit"] == 6000


def test_symbols_can_be_chosen_by_status(client: Client) -> None:
    client.fake.set_symbol("ETHUSDT", status="HALT")
    assert [row["symbol"] for row in client.public("exchangeInfo", symbolStatus="HALT")["symbols"]] == ["ETHUSDT"]
    assert client.public("exchangeInfo", symbol="ETHUSDT", symbolStatus="HALT")["code"] == -1128
    assert client.public("ticker/price", symbol="ETHUSDT", symbolStatus="TRADING")["code"] == -1220
    assert len(client.public("ticker/price", symbolStatus="TRADING")) == 5


def test_permission_sets_can_be_left_out(client: Client) -> None:
    (row,) = client.public("exchangeInfo", symbol="BTCUSDT", showPermissionSets="false")["symbols"]
    assert row["permissionSets"] == []


def test_bad_symbol_lists_are_refused(client: Client) -> None:
    assert client.public("exchangeInfo", symbols='["BTCUSDT","NOPE"]')["code"] == -1121
    assert client.public("exchangeInfo", symbols='["BTCUSDT","BTCUSDT"]')["code"] == -1151
    assert client.public("exchangeInfo", symbols="BTCUSDT")["code"] == -1100
    assert client.public("exchangeInfo", symbols='["BTCUSDT"]', symbol="BTCUSDT")["code"] == -1128


def test_prices_and_books_are_what_was_set(client: Client) -> None:
    client.fake.set_price("BTCUSDT", "61000", spread="0.5")
    assert client.public("ticker/price", symbol="BTCUSDT") == {"symbol": "BTCUSDT", "price": "61000.00000000"}
    best = client.public("ticker/bookTicker", symbol="BTCUSDT")
    assert (best["bidPrice"], best["askPrice"]) == ("60999.50000000", "61000.50000000")
    assert len(client.public("ticker/price")) == 6
    assert client.public("ticker/price", symbols='["BTCUSDT"]') == [{"symbol": "BTCUSDT", "price": "61000.00000000"}]
    assert client.public("avgPrice", symbol="BTCUSDT")["price"] == "61000.00000000"
    client.fake.set_book("BTCUSDT", bids=[("1", "2")], asks=[("3", "4"), ("2", "5")])
    depth = client.public("depth", symbol="BTCUSDT", limit=1)
    assert (depth["bids"], depth["asks"]) == ([["1.00000000", "2.00000000"]], [["2.00000000", "5.00000000"]])


# --- filters: last good, first bad --------------------------------------------------------------------------------

DOGE = {"symbol": "DOGEUSDT", "side": "BUY", "type": "MARKET"}
FILTER_CASES: list[tuple[dict[str, Any], str | None]] = [
    ({"price": "50000.01"}, None),
    ({"price": "50000.001"}, "PRICE_FILTER"),
    ({"price": "0"}, "PRICE_FILTER"),
    ({"price": "1000000.01"}, "PRICE_FILTER"),
    ({"price": "12000", "quantity": "0.001"}, None),
    ({"price": "11999.99", "quantity": "0.001"}, "PERCENT_PRICE_BY_SIDE"),
    ({"price": "300000", "quantity": "0.00006", "side": "SELL"}, None),
    ({"price": "300000.01", "quantity": "0.00006", "side": "SELL"}, "PERCENT_PRICE_BY_SIDE"),
    ({"quantity": "0.00011"}, None),
    ({"quantity": "0.000115"}, "LOT_SIZE"),
    ({"quantity": "0"}, "LOT_SIZE"),
    ({"quantity": "9000.00001"}, "LOT_SIZE"),
    ({"quantity": "0.00010"}, None),
    ({"quantity": "0.00009"}, "NOTIONAL"),
    ({"price": "50000.05", "quantity": "179.99982", "side": "SELL"}, None),
    ({"price": "50000.05", "quantity": "179.99983", "side": "SELL"}, "NOTIONAL"),
    ({**DOGE, "quantity": "25"}, None),
    ({**DOGE, "quantity": "24"}, "NOTIONAL"),
    ({**DOGE, "quantity": "25.5"}, "LOT_SIZE"),
    ({**MARKET_BUY, "quantity": "103.48521"}, None),
    ({**MARKET_BUY, "quantity": "103.48522"}, "MARKET_LOT_SIZE"),
    ({**MARKET_BUY, "quantity": None, "quoteOrderQty": "5"}, None),
    ({**MARKET_BUY, "quantity": None, "quoteOrderQty": "4.99999999"}, "NOTIONAL"),
]


@pytest.mark.parametrize(("changes", "filter_name"), FILTER_CASES)
def test_filters_at_their_limits(client: Client, changes: dict[str, Any], filter_name: str | None) -> None:
    base = {} if changes.get("type") else LIMIT_BUY
    reply = client.post("order/test", {**base, **changes})
    if filter_name is None:
        assert (reply.status_code, reply.json()) == (200, {})
    else:
        assert (reply.status_code, *code_and_text(reply.json())) == (400, -1013, f"Filter failure: {filter_name}")


@pytest.mark.parametrize(
    ("quantity", "passes"), [("0.01", True), ("0.00999", False), ("0.05", True), ("0.05001", False)]
)
def test_the_least_and_the_largest_quantity_themselves_are_fine(client: Client, quantity: str, passes: bool) -> None:
    client.fake.set_filters("BTCUSDT", LOT_SIZE={"minQty": "0.01", "maxQty": "0.05"})
    assert client.order(quantity=quantity).get("msg") == (None if passes else "Filter failure: LOT_SIZE")


@pytest.mark.parametrize(
    ("side", "price", "passes"),
    [
        ("BUY", "440", True), ("BUY", "440.01", False), ("BUY", "320", True), ("BUY", "319.99", False),
        ("SELL", "480", True), ("SELL", "480.01", False), ("SELL", "360", True), ("SELL", "359.99", False),
    ],
)  # fmt: skip
def test_each_side_has_its_own_price_band(client: Client, side: str, price: str, passes: bool) -> None:
    reply = client.post("order/test", LIMIT_BUY, symbol="TSLABUSDT", quantity="1", side=side, price=price).json()
    assert reply.get("msg") == (None if passes else "Filter failure: PERCENT_PRICE_BY_SIDE")


def test_a_market_order_is_judged_by_the_average_price(client: Client) -> None:
    client.fake.set_average_price("BTCUSDT", "49999")
    assert client.order(quantity="0.0001")["msg"] == "Filter failure: NOTIONAL"
    client.fake.set_average_price("BTCUSDT", "50000")
    assert client.order(quantity="0.0001")["status"] == "FILLED"


def test_min_notional_where_a_symbol_still_has_it(client: Client) -> None:
    client.fake.set_filters("BTCUSDT", MIN_NOTIONAL={"minNotional": "600", "applyToMarket": True, "avgPriceMins": 5})
    assert client.order(quantity="0.01")["status"] == "FILLED"
    assert client.order(quantity="0.00999")["msg"] == "Filter failure: MIN_NOTIONAL"


def test_a_market_lot_step_counts_when_it_is_not_zero(client: Client) -> None:
    client.fake.set_filters("BTCUSDT", MARKET_LOT_SIZE={"stepSize": "0.01"})
    assert client.order(quantity="0.02")["status"] == "FILLED"
    assert client.order(quantity="0.015")["msg"] == "Filter failure: MARKET_LOT_SIZE"


def test_the_number_of_open_orders_is_limited(client: Client) -> None:
    client.fake.set_filters("BTCUSDT", MAX_NUM_ORDERS={"maxNumOrders": 2})
    replies = [client.order(LIMIT_BUY) for _ in range(3)]
    assert [reply.get("status") for reply in replies] == ["NEW", "NEW", None]
    assert code_and_text(replies[2]) == (-1013, "Filter failure: MAX_NUM_ORDERS")


def test_max_position_counts_what_is_held_and_what_is_ordered(client: Client) -> None:
    client.fake.set_filters("BTCUSDT", MAX_POSITION={"maxPosition": "2.02"})
    assert client.order(LIMIT_BUY)["status"] == "NEW"
    assert client.order(LIMIT_BUY)["status"] == "NEW"
    assert client.order(LIMIT_BUY)["msg"] == "Filter failure: MAX_POSITION"


@pytest.mark.parametrize("status", ["HALT", "BREAK", "CANCEL_ONLY"])
def test_a_symbol_that_does_not_trade_takes_no_orders(client: Client, status: str) -> None:
    client.fake.set_symbol("BTCUSDT", status=status)
    assert code_and_text(client.order()) == (-2010, "Market is closed.")


def test_a_symbol_can_be_added_with_its_own_rules(client: Client) -> None:
    client.fake.add_symbol("PEPEUSDT", "PEPE", "USDT", "0.00001", LOT_SIZE={"minQty": "1", "stepSize": "1"},
                           PRICE_FILTER={"minPrice": "0.00000001", "tickSize": "0.00000001"})  # fmt: skip
    assert client.order(symbol="PEPEUSDT", quantity="1000000")["status"] == "FILLED"
    assert client.order(symbol="PEPEUSDT", quantity="1000000.5")["msg"] == "Filter failure: LOT_SIZE"


# --- orders and money ---------------------------------------------------------------------------------------------


def test_a_market_buy_has_all_fields_of_the_real_reply(client: Client) -> None:
    reply = client.order(newClientOrderId="abc")
    assert reply == {
        "symbol": "BTCUSDT", "orderId": 1000001, "orderListId": -1, "clientOrderId": "abc",
        "transactTime": client.fake.now_ms(), "price": "0.00000000", "origQty": "0.01000000",
        "executedQty": "0.01000000", "origQuoteOrderQty": "0.00000000", "cummulativeQuoteQty": "600.00000000",
        "status": "FILLED", "timeInForce": "GTC", "type": "MARKET", "side": "BUY",
        "workingTime": client.fake.now_ms(), "selfTradePreventionMode": "EXPIRE_MAKER",
        "fills": [{"price": "60000.00000000", "qty": "0.01000000", "commission": "0.00001000",
                   "commissionAsset": "BTC", "tradeId": 5000001}],
    }  # fmt: skip


def test_response_types(client: Client) -> None:
    ack = client.order(newOrderRespType="ACK")
    assert set(ack) == {"symbol", "orderId", "orderListId", "clientOrderId", "transactTime"}
    result = client.order(newOrderRespType="RESULT")
    assert result["status"] == "FILLED"
    assert "fills" not in result
    assert "fills" in client.order(LIMIT_BUY), "LIMIT defaults to FULL as well"
    assert "status" not in client.order(LIMIT_BUY, type="LIMIT_MAKER", timeInForce=None), "others default to ACK"


def test_a_buy_pays_quote_and_receives_base_less_the_fee(client: Client) -> None:
    client.order()
    assert (held(client, "USDT"), held(client, "BTC")) == (("99400", "0"), ("2.00999", "0"))


def test_a_sell_pays_base_and_receives_quote_less_the_fee(client: Client) -> None:
    reply = client.order(side="SELL")
    assert reply["fills"][0]["commissionAsset"] == "USDT"
    assert (held(client, "USDT"), held(client, "BTC")) == (("100599.4", "0"), ("1.99", "0"))


def test_fees_in_bnb_while_there_is_bnb(client: Client) -> None:
    client.fake.fees_in_bnb = True
    assert client.order()["fills"][0]["commissionAsset"] == "BTC", "there is no BNB to pay with"
    client.fake.set_balance("BNB", 1)
    (fill,) = client.order()["fills"]
    assert (fill["commission"], fill["commissionAsset"]) == ("0.00075000", "BNB")
    assert client.fake.free("BNB") == Decimal("0.99925")


@pytest.mark.parametrize(
    ("order", "asset", "needed"),
    [
        (MARKET_BUY, "USDT", "600"),
        ({**MARKET_BUY, "quantity": None, "quoteOrderQty": "600"}, "USDT", "600"),
        ({**MARKET_BUY, "side": "SELL"}, "BTC", "0.01"),
        (LIMIT_BUY, "USDT", "500"),
        ({**LIMIT_BUY, "side": "SELL", "price": "70000"}, "BTC", "0.01"),
    ],
)
def test_the_balance_must_cover_the_order(client: Client, order: dict[str, Any], asset: str, needed: str) -> None:
    client.fake.set_balance(asset, Decimal(needed) - Decimal("0.00000001"))
    assert code_and_text(client.order(order)) == (-2010, INSUFFICIENT)
    client.fake.set_balance(asset, needed)
    assert client.order(order)["status"] in ("FILLED", "NEW")


def test_several_levels_give_several_fills(client: Client) -> None:
    client.fake.set_book("BTCUSDT", asks=[("60000", "0.01"), ("60010", "0.02"), ("60020", "1")])
    reply = client.order(quantity="0.04")
    assert [(fill["price"][:5], fill["qty"]) for fill in reply["fills"]] == [
        ("60000", "0.01000000"), ("60010", "0.02000000"), ("60020", "0.01000000"),
    ]  # fmt: skip
    assert reply["cummulativeQuoteQty"] == "2400.40000000"
    assert client.public("depth", symbol="BTCUSDT")["asks"] == [["60020.00000000", "0.99000000"]]


def test_a_market_order_that_empties_the_book_expires_with_a_part_executed(client: Client) -> None:
    client.fake.set_book("BTCUSDT", asks=[("60000", "0.3")])
    reply = client.order(quantity="1")
    assert (reply["status"], reply["origQty"], reply["executedQty"]) == ("EXPIRED", "1.00000000", "0.30000000")
    assert reply["expiryReason"] == "INSUFFICIENT_LIQUIDITY"
    assert held(client, "USDT") == ("82000", "0")


def test_a_market_order_on_an_empty_book_expires_with_nothing(client: Client) -> None:
    client.fake.set_book("BTCUSDT")
    reply = client.order()
    assert (reply["status"], reply["executedQty"], reply["fills"]) == ("EXPIRED", "0.00000000", [])
    by_quote = client.order(quantity=None, quoteOrderQty="100")
    assert code_and_text(by_quote) == (
        -2010, "Order book liquidity is less than `LOT_SIZE` filter minimum quantity.",
    )  # fmt: skip


@pytest.mark.parametrize("side", ["BUY", "SELL"])
def test_an_amount_of_quote_is_rounded_down_to_the_lot_size(client: Client, side: str) -> None:
    reply = client.order(side=side, quantity=None, quoteOrderQty="100")
    assert (reply["status"], reply["executedQty"]) == ("FILLED", "0.00166000")
    assert (reply["origQuoteOrderQty"], reply["cummulativeQuoteQty"]) == ("100.00000000", "99.60000000")


def test_an_amount_of_quote_that_empties_the_book_expires(client: Client) -> None:
    client.fake.set_book("BTCUSDT", asks=[("60000", "0.01"), ("61000", "0.01")])
    reply = client.order(quantity=None, quoteOrderQty="5000")
    assert (reply["status"], reply["executedQty"]) == ("EXPIRED", "0.02000000")
    assert reply["cummulativeQuoteQty"] == "1210.00000000"


def test_a_resting_buy_locks_quote_and_fills_at_its_own_price(client: Client) -> None:
    order = client.order(LIMIT_BUY)
    assert (order["status"], order["executedQty"]) == ("NEW", "0.00000000")
    assert held(client, "USDT") == ("99500", "500")
    client.fake.set_price("BTCUSDT", "50000.01")
    assert client.get("order", symbol="BTCUSDT", orderId=order["orderId"])["status"] == "NEW"
    client.fake.set_price("BTCUSDT", "49000")
    filled = client.get("order", symbol="BTCUSDT", orderId=order["orderId"])
    assert (filled["status"], filled["cummulativeQuoteQty"]) == ("FILLED", "500.00000000")
    assert (held(client, "USDT"), held(client, "BTC")) == (("99500", "0"), ("2.00999", "0"))


def test_a_resting_sell_locks_base_and_gives_it_back_when_canceled(client: Client) -> None:
    order = client.order(LIMIT_BUY, side="SELL", price="70000", newClientOrderId="s1")
    assert held(client, "BTC") == ("1.99", "0.01")
    reply = client.delete("order", symbol="BTCUSDT", origClientOrderId="s1", newClientOrderId="c1")
    assert (reply["status"], reply["origClientOrderId"], reply["clientOrderId"]) == ("CANCELED", "s1", "c1")
    assert reply["orderId"] == order["orderId"]
    assert held(client, "BTC") == ("2", "0")


def test_a_resting_order_can_be_filled_in_parts_and_then_canceled(client: Client) -> None:
    order_id = client.order(LIMIT_BUY)["orderId"]
    client.fake.fill(order_id, "0.004")
    part = client.get("order", symbol="BTCUSDT", orderId=order_id)
    assert (part["status"], part["executedQty"]) == ("PARTIALLY_FILLED", "0.00400000")
    assert client.fake.locked("USDT") == Decimal(300)
    canceled = client.delete("order", symbol="BTCUSDT", orderId=order_id)
    assert (canceled["status"], canceled["executedQty"]) == ("CANCELED", "0.00400000")
    assert held(client, "USDT") == ("99800", "0")


def test_a_limit_that_crosses_takes_what_is_there_and_rests(client: Client) -> None:
    client.fake.set_book("BTCUSDT", asks=[("49000", "0.004"), ("51000", "1")])
    order = client.order(LIMIT_BUY)
    assert (order["status"], order["executedQty"]) == ("PARTIALLY_FILLED", "0.00400000")
    assert order["cummulativeQuoteQty"] == "196.00000000"
    assert client.fake.locked("USDT") == Decimal(300)
    client.fake.set_book("BTCUSDT", asks=[("50000", "0.005")])
    assert client.get("order", symbol="BTCUSDT", orderId=order["orderId"])["executedQty"] == "0.00900000"
    assert client.public("depth", symbol="BTCUSDT")["asks"] == []


def test_ioc_and_fok_never_rest(client: Client) -> None:
    client.fake.set_book("BTCUSDT", asks=[("49000", "0.004")])
    fok = client.order(LIMIT_BUY, timeInForce="FOK")
    assert (fok["status"], fok["executedQty"], fok["expiryReason"]) == (
        "EXPIRED", "0.00000000", "UNFILLED_FOK_ORDER_EXPIRED",
    )  # fmt: skip
    ioc = client.order(LIMIT_BUY, timeInForce="IOC")
    assert (ioc["status"], ioc["executedQty"]) == ("EXPIRED", "0.00400000")
    assert client.fake.locked("USDT") == 0


def test_a_limit_maker_must_not_trade_at_once(client: Client) -> None:
    maker = {**LIMIT_BUY, "type": "LIMIT_MAKER", "timeInForce": None, "newOrderRespType": "RESULT"}
    assert code_and_text(client.order(maker, price="60000")) == (-2010, "Order would immediately match and take.")
    assert client.order(maker, price="59999.99")["status"] == "NEW"


def test_stop_orders_wait_for_their_price(client: Client) -> None:
    stop = {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_LOSS", "quantity": "0.01", "newOrderRespType": "RESULT"}
    assert client.order(stop, stopPrice="60000")["msg"] == "Order would trigger immediately."
    order = client.order(stop, stopPrice="59000")
    assert (order["status"], order["workingTime"], held(client, "BTC")) == ("NEW", -1, ("1.99", "0.01"))
    client.fake.set_price("BTCUSDT", "59000.01")
    assert client.get("order", symbol="BTCUSDT", orderId=order["orderId"])["isWorking"] is False
    client.fake.set_price("BTCUSDT", "58000")
    done = client.get("order", symbol="BTCUSDT", orderId=order["orderId"])
    assert (done["status"], done["cummulativeQuoteQty"]) == ("FILLED", "580.00000000")
    assert held(client, "BTC") == ("1.99", "0")


TRAILING = {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_LOSS", "quantity": "0.01", "trailingDelta": "100"}


def test_a_trailing_stop_follows_the_best_price(client: Client) -> None:
    placed = client.order(TRAILING, newOrderRespType="RESULT")
    assert (placed["status"], placed["trailingDelta"], held(client, "BTC")) == ("NEW", 100, ("1.99", "0.01"))
    for price in ("59400.01", "62000", "61380.01"):
        client.fake.set_price("BTCUSDT", price)
    assert client.fake.orders[0].status == "NEW"
    client.fake.set_price("BTCUSDT", "61380")
    assert (client.fake.orders[0].status, client.fake.orders[0].quote_executed) == ("FILLED", Decimal("613.8"))


@pytest.mark.parametrize(("delta", "is_fine"), [("9", False), ("10", True), ("2000", True), ("2001", False)])
def test_how_far_a_trailing_stop_may_be(client: Client, delta: str, is_fine: bool) -> None:
    reply = client.order(TRAILING, trailingDelta=delta)
    assert "orderId" in reply if is_fine else reply["msg"] == "Filter failure: TRAILING_DELTA"


@pytest.mark.parametrize("changes", [{"side": "BUY"}, {"stopPrice": "59000"}, {"type": "TAKE_PROFIT"}])
def test_other_trailing_orders_are_not_served(client: Client, changes: dict[str, Any]) -> None:
    assert client.order(TRAILING, **changes)["msg"] == "Trailing stop orders are not supported for this symbol."
    client.fake.set_symbol("BTCUSDT", allowTrailingStop=False)
    assert client.order(TRAILING)["msg"] == "Trailing stop orders are not supported for this symbol."


def test_a_triggered_buy_that_the_money_no_longer_covers_expires(client: Client) -> None:
    client.fake.set_balance("USDT", 61_000)
    client.order(symbol="BTCUSDT", type="STOP_LOSS", quantity="1", stopPrice="61000")
    assert held(client, "USDT") == ("0", "61000")
    client.fake.set_price("BTCUSDT", "70000")
    assert [order.status for order in client.fake.orders] == ["EXPIRED"]
    assert held(client, "USDT") == ("61000", "0")


def test_only_an_order_in_the_book_can_be_filled_by_hand(client: Client) -> None:
    waiting = client.order(type="STOP_LOSS", stopPrice="61000")["orderId"]
    done = client.order()["orderId"]
    for order_id in (waiting, done):
        with pytest.raises(ValueError, match="not in the book"):
            client.fake.fill(order_id)


# --- one cancels the other ----------------------------------------------------------------------------------------

OCO = {"symbol": "BTCUSDT", "side": "SELL", "quantity": "0.01", "aboveType": "LIMIT_MAKER", "abovePrice": "66000",
       "belowType": "STOP_LOSS", "belowStopPrice": "57000", "listClientOrderId": "pair"}  # fmt: skip


def statuses(client: Client) -> list[str]:
    return [order.status for order in client.fake.orders]


def test_an_oco_locks_the_balance_once(client: Client) -> None:
    reply = client.post("orderList/oco", OCO).json()
    assert [report["type"] for report in reply["orderReports"]] == ["LIMIT_MAKER", "STOP_LOSS"]
    assert (reply["contingencyType"], reply["listOrderStatus"]) == ("OCO", "EXECUTING")
    assert held(client, "BTC") == ("1.99", "0.01")
    assert len(client.get("openOrders", symbol="BTCUSDT")) == 2
    assert client.get("orderList", origClientOrderId="pair")["orderListId"] == reply["orderListId"]


def test_the_stop_of_an_oco_may_trail(client: Client) -> None:
    client.post("orderList/oco", OCO, belowStopPrice=None, belowTrailingDelta="100")
    client.fake.set_price("BTCUSDT", "62000")
    assert statuses(client) == ["NEW", "NEW"]
    client.fake.set_price("BTCUSDT", "61380")
    assert sorted(statuses(client)) == ["EXPIRED", "FILLED"]


def test_ids_of_a_pair_are_refused_while_it_is_open(client: Client) -> None:
    client.post("orderList/oco", OCO, aboveClientOrderId="above")
    assert client.post("orderList/oco", OCO).json()["msg"] == "Duplicate order sent."
    again = client.post("orderList/oco", OCO, listClientOrderId="other", belowClientOrderId="above")
    assert again.json()["msg"] == "Duplicate order sent."


@pytest.mark.parametrize(("price", "ended"), [("66000", ["FILLED", "EXPIRED"]), ("57000", ["EXPIRED", "FILLED"])])
def test_when_one_order_of_an_oco_trades_the_other_expires(client: Client, price: str, ended: list[str]) -> None:
    client.post("orderList/oco", OCO)
    client.fake.set_price("BTCUSDT", price)
    assert statuses(client) == ended
    assert held(client, "BTC") == ("1.99", "0")
    assert client.get("orderList", origClientOrderId="pair")["listOrderStatus"] == "ALL_DONE"


@pytest.mark.parametrize("how", ["list", "leg", "all"])
def test_canceling_any_part_of_an_oco_cancels_all_of_it(client: Client, how: str) -> None:
    legs = client.post("orderList/oco", OCO).json()["orders"]
    if how == "list":
        client.delete("orderList", symbol="BTCUSDT", listClientOrderId="pair")
    elif how == "leg":
        client.delete("order", symbol="BTCUSDT", orderId=legs[1]["orderId"])
    else:
        client.delete("openOrders", symbol="BTCUSDT")
    assert statuses(client) == ["CANCELED", "CANCELED"]
    assert held(client, "BTC") == ("2", "0")
    assert client.delete("orderList", symbol="BTCUSDT", listClientOrderId="pair")["code"] == -2011


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"abovePrice": "60000"}, "The relationship of the prices for the orders is not correct."),
        ({"belowStopPrice": "60000"}, "The relationship of the prices for the orders is not correct."),
        ({"quantity": "2.00001"}, INSUFFICIENT),
    ],
)
def test_a_wrong_oco_is_refused(client: Client, changes: dict[str, Any], text: str) -> None:
    assert code_and_text(client.post("orderList/oco", OCO, **changes).json()) == (-2010, text)
    assert client.fake.orders == []


# --- client ids and look-ups --------------------------------------------------------------------------------------


def test_an_id_is_refused_only_while_its_order_is_open(client: Client) -> None:
    client.order(LIMIT_BUY, newClientOrderId="once")
    assert code_and_text(client.order(LIMIT_BUY, newClientOrderId="once")) == (-2010, "Duplicate order sent.")
    client.delete("order", symbol="BTCUSDT", origClientOrderId="once")
    assert client.order(LIMIT_BUY, newClientOrderId="once")["status"] == "NEW"


def test_resending_a_filled_market_order_buys_a_second_time(client: Client) -> None:
    first, second = (client.order(newClientOrderId="again") for _ in range(2))
    assert (first["status"], second["status"]) == ("FILLED", "FILLED")
    assert client.fake.orders_by_client_id["again"] == client.fake.posts_by_client_id["again"] == 2
    assert client.fake.free("USDT") == Decimal(98_800)
    newest = client.get("order", symbol="BTCUSDT", origClientOrderId="again")
    assert newest["orderId"] == second["orderId"]


def test_look_ups_that_find_nothing(client: Client) -> None:
    client.order(LIMIT_BUY, newClientOrderId="mine")
    assert code_and_text(client.get("order", symbol="BTCUSDT", origClientOrderId="other")) == (
        -2013, "Order does not exist.",
    )  # fmt: skip
    assert client.get("order", symbol="ETHUSDT", origClientOrderId="mine")["code"] == -2013
    assert client.get("order", symbol="BTCUSDT")["code"] == -1102
    assert client.get("order", symbol="BTCUSDT", orderId=1000001, origClientOrderId="other")["code"] == -2039


def test_canceling_what_is_not_open(client: Client) -> None:
    filled = client.order()["orderId"]
    unknown = (-2011, "Unknown order sent.")
    assert code_and_text(client.delete("order", symbol="BTCUSDT", orderId=filled)) == unknown
    assert code_and_text(client.delete("order", symbol="BTCUSDT", origClientOrderId="nope")) == unknown
    assert code_and_text(client.delete("openOrders", symbol="BTCUSDT")) == unknown


def test_cancel_restrictions(client: Client) -> None:
    order_id = client.order(LIMIT_BUY)["orderId"]
    refused = client.delete("order", symbol="BTCUSDT", orderId=order_id, cancelRestrictions="ONLY_PARTIALLY_FILLED")
    assert code_and_text(refused) == (-2011, "Order was not canceled due to cancel restrictions.")
    assert client.delete("order", symbol="BTCUSDT", orderId=order_id, cancelRestrictions="ONLY")["code"] == -1145
    canceled = client.delete("order", symbol="BTCUSDT", orderId=order_id, cancelRestrictions="ONLY_NEW")
    assert canceled["status"] == "CANCELED"


def test_all_open_orders_of_a_symbol_are_canceled_at_once(client: Client) -> None:
    for price in ("50000", "51000"):
        client.order(LIMIT_BUY, price=price)
    client.order(LIMIT_BUY, symbol="ETHUSDT", price="2500")
    assert len(client.get("openOrders")) == 3
    assert [row["status"] for row in client.delete("openOrders", symbol="BTCUSDT")] == ["CANCELED"] * 2
    assert [row["symbol"] for row in client.get("openOrders")] == ["ETHUSDT"]


def test_look_ups_trail_the_engine_by_the_lag(client: Client, clock: Clock) -> None:
    client.fake.lookup_lag_seconds = 2
    client.order(newClientOrderId="lag")
    resting = client.order(LIMIT_BUY)["orderId"]
    clock.now += 1.999
    assert client.get("order", symbol="BTCUSDT", origClientOrderId="lag")["code"] == -2013
    assert client.get("openOrders", symbol="BTCUSDT") == client.get("myTrades", symbol="BTCUSDT") == []
    assert client.fake.free("USDT") == Decimal(98_900), "the trade itself is done"
    clock.now += 0.001
    assert client.get("order", symbol="BTCUSDT", origClientOrderId="lag")["status"] == "FILLED"
    assert [row["orderId"] for row in client.get("openOrders")] == [resting]
    assert len(client.get("myTrades", symbol="BTCUSDT")) == 1


def test_canceling_asks_the_engine_and_so_has_no_lag(client: Client) -> None:
    client.fake.lookup_lag_seconds = 10
    client.order(LIMIT_BUY, newClientOrderId="fresh")
    assert client.delete("order", symbol="BTCUSDT", origClientOrderId="fresh")["status"] == "CANCELED"


def test_trades_and_orders_are_listed(client: Client, clock: Clock) -> None:
    first = client.order()
    clock.now += 1
    second = client.order(quantity="0.02")
    trades = client.get("myTrades", symbol="BTCUSDT")
    assert [(trade["qty"], trade["quoteQty"]) for trade in trades] == [
        ("0.01000000", "600.00000000"), ("0.02000000", "1200.00000000"),
    ]  # fmt: skip
    assert (trades[0]["isBuyer"], trades[0]["isMaker"], trades[0]["commissionAsset"]) == (True, False, "BTC")
    by_order = client.get("myTrades", symbol="BTCUSDT", orderId=second["orderId"])
    assert [trade["id"] for trade in by_order] == [trades[1]["id"]]
    orders = client.get("allOrders", symbol="BTCUSDT")
    assert [order["orderId"] for order in orders] == [first["orderId"], second["orderId"]]
    assert client.get("allOrders", symbol="BTCUSDT", orderId=second["orderId"]) == orders[1:]
    assert client.get("allOrders", symbol="BTCUSDT", limit=1) == orders[1:]
    assert client.get("allOrders", symbol="BTCUSDT", startTime=second["transactTime"]) == orders[1:]


def test_the_account(client: Client) -> None:
    client.order(LIMIT_BUY)
    account = client.get("account", omitZeroBalances="true")
    assert {row["asset"]: (row["free"], row["locked"]) for row in account["balances"]} == {
        "BTC": ("2.00000000", "0.00000000"), "DOGE": ("100000.00000000", "0.00000000"),
        "USDT": ("99500.00000000", "500.00000000"),
    }  # fmt: skip
    assert account["commissionRates"]["taker"] == "0.00100000"
    assert any(row["asset"] == "SOL" for row in client.get("account")["balances"])
    assert client.get("account/commission", symbol="BTCUSDT")["standardCommission"]["taker"] == "0.00100000"


def test_a_test_order_changes_nothing(client: Client) -> None:
    assert client.post("order/test").json() == {}
    assert client.post("order/test", computeCommissionRates="true").json()["discount"]["discountAsset"] == "BNB"
    assert client.fake.orders == []
    assert held(client, "USDT") == ("100000", "0")


# --- limits -------------------------------------------------------------------------------------------------------


def used_weight(client: Client) -> int:
    return int(client.send("GET", "ping").headers["X-MBX-USED-WEIGHT-1M"]) - 1


@pytest.mark.parametrize(
    ("request_made", "weight"),
    [
        (lambda client: client.public("exchangeInfo"), 20),
        (lambda client: client.get("account"), 20),
        (lambda client: client.public("ticker/price"), 4),
        (lambda client: client.public("ticker/price", symbol="BTCUSDT"), 2),
        (lambda client: client.public("depth", symbol="BTCUSDT", limit=101), 25),
        (lambda client: client.get("order", symbol="BTCUSDT", orderId=1), 4),
        (lambda client: client.get("openOrders"), 80),
        (lambda client: client.get("openOrders", symbol="BTCUSDT"), 6),
        (lambda client: client.order(), 0),
        (lambda client: client.order(quantity="0"), 1),
    ],
)
def test_each_request_has_its_weight(client: Client, request_made: Callable[[Client], Any], weight: int) -> None:
    request_made(client)
    assert used_weight(client) == weight


def test_beyond_the_weight_limit_requests_are_refused_until_the_minute_is_over(client: Client, clock: Clock) -> None:
    client.fake.weight_limit = 20
    assert client.send("GET", "account", client.signed({})).status_code == 200
    clock.now += 18.5
    reply = client.send("GET", "time")
    assert (reply.status_code, reply.json()["code"]) == (429, -1003)
    assert "current limit is 20 request weight per 1 MINUTE" in reply.json()["msg"]
    assert reply.headers["Retry-After"] == "42"
    clock.now += 41.5
    assert client.send("GET", "time").status_code == 200


def test_only_orders_that_did_not_trade_count_against_the_order_limit(client: Client, clock: Clock) -> None:
    client.fake.order_limit = 2
    for expected in ("0", "0"):
        assert client.post("order").headers["X-MBX-ORDER-COUNT-10S"] == expected
    for expected in ("1", "2"):
        assert client.post("order", LIMIT_BUY).headers["X-MBX-ORDER-COUNT-10S"] == expected
    reply = client.post("order")
    assert (reply.status_code, *code_and_text(reply.json())) == (
        429, -1015, "Too many new orders; current limit is 2 orders per 10 SECOND.",
    )  # fmt: skip
    assert reply.headers["Retry-After"] == "10"
    assert [row["count"] for row in client.get("rateLimit/order")] == [2, 2]
    clock.now += 10
    assert client.order()["status"] == "FILLED"


# --- faults -------------------------------------------------------------------------------------------------------


def failure(act: Callable[[], requests.Response]) -> str:
    """The way in which a request failed, or its reply."""
    try:
        reply = act()
    except requests.exceptions.ReadTimeout:
        return "timeout"
    except requests.exceptions.ChunkedEncodingError:
        return "cut"
    except requests.exceptions.ConnectionError as problem:
        return "reset" if "reset by peer" in str(problem) else "closed"
    return f"{reply.status_code} {reply.text}"


LINE_FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("stall", {}, "timeout"),
    ("reset", {}, "reset"),
    ("close", {}, "closed"),
    ("half_header", {}, "200 "),
    ("half_header", {"then": "stall"}, "timeout"),
    ("half_body", {}, "cut"),
    ("half_body", {"then": "stall"}, "closed"),
    ("status", {"status": 500}, "500 {"),
    ("status", {"status": 502, "html": True}, "502 <html>"),
    ("status", {"status": 503}, "503 {"),
    ("status", {"status": 504, "html": True}, "504 <html>"),
    ("status", {"status": 403, "html": True}, "403 <html>"),
    ("error", {"code": -1006}, '500 {"code":-1006,"msg":"An unexpected response was received'),
    ("error", {"code": -1007}, '504 {"code":-1007,"msg":"Timeout waiting for response from backend server.'),
    ("error", {"code": -1021}, '400 {"code":-1021,"msg":"Timestamp for this request is outside'),
    ("error", {"code": -9999, "message": "made up", "status": 418}, '418 {"code":-9999,"msg":"made up"}'),
    ("garbage", {}, "200 <html>"),
    ("garbage", {"body": ""}, "200 "),
    ("garbage", {"body": "[]"}, "200 []"),
    ("garbage", {"body": "null"}, "200 null"),
    ("truncated", {}, '200 {"symbol"'),
    ("other_symbol", {}, '200 {"symbol": "LTCBTC"'),
]


@pytest.mark.parametrize("executed", [False, True], ids=["not executed", "executed"])
@pytest.mark.parametrize(("kind", "details", "outcome"), LINE_FAULTS)
def test_a_fault_hides_whether_the_order_was_executed(
    client: Client, kind: str, details: dict[str, Any], outcome: str, executed: bool
) -> None:
    client.fake.fail_next(kind, executed=executed, **details)
    patience = 0.1 if kind == "stall" or details.get("then") == "stall" else 5
    # `requests` reports a stalled body as a lost connection, and a header that ends early as an empty answer.
    assert failure(lambda: client.post("order", timeout=patience)).startswith(outcome)
    client.fake.wait_for(lambda fake: len(fake.orders) == (1 if executed else 0))
    assert client.fake.requests[-1].fault == kind
    assert client.fake.faults_left == 0
    assert client.order()["status"] == "FILLED", "the fault was for one request only"


def test_truncated_json_is_truncated(client: Client) -> None:
    client.fake.fail_next("truncated", executed=True)
    with pytest.raises(requests.exceptions.JSONDecodeError):
        client.post("order").json()


@pytest.mark.parametrize("executed", [False, True], ids=["before the engine", "after it"])
def test_a_delay_before_the_engine_or_after_it(client: Client, executed: bool) -> None:
    client.fake.fail_next("delay", seconds=60, executed=executed)
    assert failure(lambda: client.post("order", timeout=0.1)) == "timeout"
    client.fake.wait_for(lambda fake: len(fake.orders) == (1 if executed else 0))
    client.fake.release()
    client.fake.wait_for(lambda fake: len(fake.orders) == 1)


def test_a_delay_holds_the_answer_for_its_time(client: Client) -> None:
    for executed in (False, True):
        client.fake.fail_next("delay", seconds=0.1, executed=executed)
        started = time.monotonic()
        assert client.order()["status"] == "FILLED"
        assert time.monotonic() - started >= 0.1


@pytest.mark.parametrize(("then", "outcome"), [("close", "closed"), ("reset", "reset"), ("stall", "timeout")])
def test_a_late_order_executes_after_its_connection_was_lost(client: Client, then: str, outcome: str) -> None:
    client.fake.fail_next("late", seconds=0.2, then=then)
    started = time.monotonic()
    assert failure(lambda: client.post("order", newClientOrderId="late", timeout=0.1)) == outcome
    assert client.get("order", symbol="BTCUSDT", origClientOrderId="late")["code"] == -2013
    client.fake.wait_for(lambda fake: bool(fake.orders))
    assert time.monotonic() - started >= 0.2
    assert client.get("order", symbol="BTCUSDT", origClientOrderId="late")["status"] == "FILLED"


def test_a_drip_sends_byte_by_byte(client: Client) -> None:
    client.fake.fail_next("drip", seconds=0.001, executed=True)
    started = time.monotonic()
    assert client.order()["status"] == "FILLED"
    assert time.monotonic() - started > 0.3


def test_a_connection_can_be_reset_before_its_request_is_read(client: Client) -> None:
    client.send("GET", "ping")
    client.fake.fail_next("reset_unread")
    assert failure(lambda: client.post("order")) in ("reset", "closed")
    assert client.fake.calls("POST /api/v3/order") == []


@pytest.mark.parametrize("status", [429, 418])
def test_during_a_ban_every_request_is_refused_and_marked(client: Client, clock: Clock, status: int) -> None:
    client.fake.fail_next("ban", status=status, retry_after=3)
    reply = client.post("order")
    assert (reply.status_code, reply.json()["code"], reply.headers["Retry-After"]) == (status, -1003, "3")
    clock.now += 2.5
    assert client.send("GET", "ping").headers["Retry-After"] == "1"
    assert [call.banned for call in client.fake.requests] == [False, True], "the first one could not know"
    clock.now += 0.5
    assert client.order()["status"] == "FILLED"


def test_faults_wait_for_the_requests_they_are_meant_for(client: Client) -> None:
    client.fake.inject(Fault("status", "GET /api/v3/order", times=2, status=503))
    client.fake.inject(Fault("error", code=-1001, when=lambda call: call.params.get("newClientOrderId") == "b"))
    assert client.order(newClientOrderId="a")["status"] == "FILLED"
    assert client.order(newClientOrderId="b")["code"] == -1001
    looked_up = [client.get("order", symbol="BTCUSDT", origClientOrderId="a") for _ in range(3)]
    assert [row.get("code") for row in looked_up] == [-1000, -1000, None]
    client.fake.inject(Fault("status", "* *", status=500))
    client.fake.clear_faults()
    assert client.public("ping") == {}


def test_every_kind_of_fault_is_tried_here() -> None:
    assert set(KINDS) == {kind for kind, _, _ in LINE_FAULTS} | {"delay", "late", "drip", "reset_unread", "ban"}


@pytest.mark.parametrize(
    ("details", "complaint"),
    [
        ({"kind": "explode"}, "no fault of kind 'explode', there are: delay"),
        ({"kind": "stall", "where": "/api/v3/order"}, 'where must be "METHOD path"'),
        ({"kind": "status"}, "needs status="),
        ({"kind": "error"}, "needs code="),
        ({"kind": "stall", "then": "sleep"}, "then must be close, reset or stall"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_at_once(details: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Fault(**details)


def test_the_exchange_can_go_offline_and_come_back_at_the_same_address(client: Client) -> None:
    client.fake.go_offline()
    assert "closed" in failure(lambda: client.send("GET", "ping")), "refused"
    client.fake.come_online()
    assert client.public("ping") == {}


def test_stopping_ends_a_stalled_connection_at_once() -> None:
    fake = FakeBinance(engine_seconds=0).start()
    fake.fail_next("stall")
    thread = threading.Thread(target=lambda: failure(lambda: Client(fake).post("order")))
    thread.start()
    fake.wait_for(lambda fake: bool(fake.requests))
    started = time.monotonic()
    fake.stop()
    thread.join()
    assert time.monotonic() - started < 1


# --- the wire, the log, other processes -------------------------------------------------------------------------------


def test_a_connection_is_kept_and_answers_come_without_a_stall(client: Client) -> None:
    started = time.monotonic()
    for _ in range(50):
        client.post("order")
    assert time.monotonic() - started < 1, "a delayed ACK would cost 40 ms each"
    assert {call.connection for call in client.fake.requests} == {1}


def test_a_request_may_come_in_pieces(client: Client) -> None:
    port = int(client.fake.base_url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as line:
        for piece in (b"GET /api/v3/pi", b"ng HTTP/1.1\r\nHost: x\r\n", b"\r\n"):
            line.sendall(piece)
            time.sleep(0.01)
        assert line.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_client_that_wants_no_second_request_is_let_go(client: Client) -> None:
    port = int(client.fake.base_url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=2) as line:
        line.sendall(b"GET /api/v3/ping HTTP/1.1\r\nConnection: close\r\n\r\n")
        received = b"".join(iter(lambda: line.recv(4096), b""))
    assert received.endswith(b"\r\n\r\n{}")


def test_waiting_in_vain_says_so(client: Client) -> None:
    with pytest.raises(AssertionError, match=r"it did not happen within 0\.01 s"):
        client.fake.wait_for(lambda fake: bool(fake.orders), seconds=0.01)


def test_numbers_may_be_floats_and_stay_what_they_look_like(client: Client) -> None:
    client.fake.set_price("DOGEUSDT", 0.1)
    client.fake.set_balance("USDT", 10.1)
    assert client.public("ticker/price", symbol="DOGEUSDT")["price"] == "0.10000000"
    assert held(client, "USDT") == ("10.1", "0")


def test_many_orders_at_once_are_all_counted(client: Client) -> None:
    def trade(index: int) -> None:
        mine = Client(client.fake)
        for turn in range(5):
            mine.order(newClientOrderId=f"t{index}-{turn}")

    threads = [threading.Thread(target=trade, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({order.order_id for order in client.fake.orders}) == 40
    assert client.fake.free("USDT") == Decimal(100_000 - 40 * 600)
    assert set(client.fake.orders_by_client_id.values()) == {1}


def test_the_log_tells_what_happened_and_keeps_no_secret(client: Client) -> None:
    client.order(newClientOrderId="one")
    client.order(newClientOrderId="two", quantity="0")
    good, bad = client.fake.calls("POST /api/v3/order")
    assert (good.executed, good.status, good.order_id) == (True, 200, client.fake.orders[0].order_id)
    assert (bad.executed, bad.status, bad.code) == (False, 400, -1013)
    assert client.fake.posts_by_client_id == {"one": 1, "two": 1}
    everything = repr(client.fake.requests) + json.dumps(client.fake.state())
    assert "signature" not in everything
    assert client.fake.api_key not in everything


def test_money_is_neither_made_nor_lost(client: Client) -> None:
    client.fake.fee_rate = "0"
    client.order(quantity="0.5")
    client.order(LIMIT_BUY, quantity="0.3")
    client.order(LIMIT_BUY, side="SELL", price="60500", quantity="0.7")
    client.fake.set_price("BTCUSDT", "49999")
    client.fake.set_price("BTCUSDT", "60500")
    client.order(quantity=None, quoteOrderQty="1234.56", side="SELL")
    traded = sum((trade.quote_quantity * (-1 if trade.is_buyer else 1) for trade in client.fake.trades), Decimal(0))
    moved = sum((trade.quantity * (1 if trade.is_buyer else -1) for trade in client.fake.trades), Decimal(0))
    assert client.fake.free("USDT") == 100_000 + traded
    assert client.fake.free("BTC") == 2 + moved
    assert client.fake.locked("USDT") == client.fake.locked("BTC") == 0


ACTIONS = st.tuples(
    st.sampled_from(["MARKET", "LIMIT", "IOC", "STOP_LOSS", "OCO", "cancel", "fill", "price", "book"]),
    st.sampled_from(["BUY", "SELL"]),
    st.integers(1, 400).map(lambda lots: Decimal(lots) / 1000),
    st.integers(90, 110).map(lambda percent: Decimal(percent * 100)),
)


def act(engine: Engine, name: str, kind: str, side: str, quantity: Decimal, price: Decimal) -> None:
    """One step of somebody who does anything in any order; refusals are fine."""
    new = NewOrder("BTCUSDT", side, kind, name, quantity=quantity, price=price)
    open_ids = [order.order_id for order in engine.open_orders() if kind == "cancel" or order.working_ms >= 0]
    if kind == "price":
        engine.set_price("BTCUSDT", price, Decimal(0), 0)
    elif kind == "book":
        engine.set_book("BTCUSDT", [(price - 1, quantity)], [(price, quantity)], 0)
    elif kind in ("cancel", "fill") and open_ids:
        order = engine.orders[open_ids[int(price) % len(open_ids)]]
        engine.cancel(order, 0) if kind == "cancel" else engine.fill(order.order_id, quantity, 0)
    elif kind == "OCO":
        above = replace(new, type="LIMIT_MAKER", side="SELL", price=Decimal(11_100))
        below = replace(
            new, type="STOP_LOSS", side="SELL", price=Decimal(0), stop_price=Decimal(9_100), client_id="b" + name
        )
        engine.place_pair(name, (above, below), 0)
    elif kind == "STOP_LOSS":
        engine.place(replace(new, price=Decimal(0), stop_price=price), 0)
    elif kind == "IOC":
        engine.place(replace(new, type="LIMIT", time_in_force="IOC"), 0)
    elif kind in ("MARKET", "LIMIT"):
        engine.place(replace(new, price=price if kind == "LIMIT" else Decimal(0)), 0)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(ACTIONS, max_size=40))
def test_whatever_happens_balances_stay_right(actions: list[tuple[str, str, Decimal, Decimal]]) -> None:
    engine = Engine(load("binance_symbols.json")["symbols"])
    engine.fee_rate = Decimal(0)
    engine.balances.update(USDT=Balance(Decimal(9_000)), BTC=Balance(Decimal(1)))
    engine.set_price("BTCUSDT", Decimal(10_000), Decimal(0), 0)
    for number, (kind, side, quantity, price) in enumerate(actions):
        with contextlib.suppress(ApiError):
            act(engine, f"n{number}", kind, side, quantity, price)
        usdt, btc = engine.balances["USDT"], engine.balances["BTC"]
        assert min(usdt.free, usdt.locked, btc.free, btc.locked) >= 0
        bought = sum((trade.quantity * (1 if trade.is_buyer else -1) for trade in engine.trades), Decimal(0))
        paid = sum((trade.quote_quantity * (1 if trade.is_buyer else -1) for trade in engine.trades), Decimal(0))
        assert (btc.free + btc.locked, usdt.free + usdt.locked) == (1 + bought, 9_000 - paid)
        held_back = [order for order in engine.open_orders() if order.holds]
        assert btc.locked == sum((order.remaining for order in held_back if not order.is_buy), Decimal(0))
        assert all(order.executed <= order.quantity for order in engine.orders.values())


def test_it_runs_alone_and_is_driven_over_its_control_api() -> None:
    script = Path(__file__).parent / "fake_binance.py"
    with subprocess.Popen([sys.executable, str(script), "--api-key", "k" * 64, "--api-secret", "s"],
                          stdout=subprocess.PIPE, text=True) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[1]
            drive_by_control_api(url)
        finally:
            process.terminate()


def drive_by_control_api(url: str) -> None:
    def control(name: str, **body: Any) -> requests.Response:
        return requests.post(f"{url}/control/{name}", json=body, timeout=5)

    def order() -> requests.Response:
        query = urlencode({**MARKET_BUY, "newClientOrderId": "c", "timestamp": int(time.time() * 1000)})
        return requests.post(
            f"{url}/api/v3/order?{query}&signature={sign('s', query)}", headers={"X-MBX-APIKEY": "k" * 64}, timeout=5
        )

    control("price", symbol="BTCUSDT", price="50000")
    control("balance", asset="USDT", free="500")
    control("options", engine_seconds=0, lookup_lag_seconds=1.5)
    control("fault", kind="status", status=503, executed=True)
    assert order().status_code == 503
    assert order().json()["msg"] == INSUFFICIENT
    state = requests.get(f"{url}/control/state", timeout=5).json()
    assert state["balances"]["USDT"] == {"free": "0.00000000", "locked": "0.00000000"}
    assert (state["postsByClientId"], state["ordersByClientId"]) == ({"c": 2}, {"c": 1})
    assert [call["fault"] for call in state["requests"]] == ["status", None]
    assert control("options", nonsense=1).status_code == 400
    assert control("fault", kind="explode").status_code == 400
    assert control("nothing").status_code == 404
