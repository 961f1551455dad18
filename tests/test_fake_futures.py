"""The futures side of the fake keeps Binance's rules: each is tried over HTTP, at its last good and first bad value."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from fake_algo import AlgoDesk, NewAlgo
from fake_binance import FakeBinance
from fake_futures import OVERLOADS
from fake_futures_matching import FuturesEngine
from fake_futures_replies import java_double
from fake_futures_rest import FUTURES_ROUTES
from fake_futures_rules import NewFuturesOrder
from fake_matching import ApiError, load
from fake_rest import PARAMETERS, sign
from harness import examples
from hypothesis import given, settings
from hypothesis import strategies as st

BUY = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.010"}
SELL = {**BUY, "side": "SELL"}
LIMIT_BUY = {**BUY, "type": "LIMIT", "timeInForce": "GTC", "price": "59000"}
LIMIT_SELL = {**LIMIT_BUY, "side": "SELL", "price": "61000"}
CLOSE = {**SELL, "reduceOnly": "true"}
STOP = {"algoType": "CONDITIONAL", "symbol": "BTCUSDT", "side": "SELL", "type": "STOP_MARKET", "triggerPrice": "58000",
        "quantity": "0.010"}  # fmt: skip
STOP_ALL = {**STOP, "quantity": None, "closePosition": "true"}
TRAIL = {**STOP, "type": "TRAILING_STOP_MARKET", "triggerPrice": None, "callbackRate": "1"}


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

    def send(self, method: str, path: str, *, extra: str = "", key: str | None = None, **params: Any
             ) -> requests.Response:  # fmt: skip
        wanted = {name: value for name, value in params.items() if value is not None}
        query = urlencode({"timestamp": self.fake.now_ms(), **wanted})
        url = f"{self.fake.fapi_url}/{path}?{query}&signature={sign(self.fake.api_secret, query)}{extra}"
        return self.session.request(method, url, headers={"X-MBX-APIKEY": key or self.fake.api_key}, timeout=5)

    def get(self, path: str, **params: Any) -> Any:
        return self.send("GET", path, **params).json()

    def public(self, path: str, **params: Any) -> Any:
        return self.session.get(f"{self.fake.fapi_url}/{path}", params=params, timeout=5).json()

    def post(self, path: str, **params: Any) -> Any:
        return self.send("POST", path, **params).json()

    def delete(self, path: str, **params: Any) -> Any:
        return self.send("DELETE", path, **params).json()

    def order(self, order: dict[str, Any], **changes: Any) -> Any:
        return self.post("v1/order", **{**order, **changes})

    def algo(self, algo: dict[str, Any], **changes: Any) -> Any:
        return self.post("v1/algoOrder", **{**algo, **changes})

    def status_of(self, client_algo_id: str) -> str:
        return str(self.get("v1/algoOrder", clientAlgoId=client_algo_id)["algoStatus"])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fake(clock: Clock) -> Iterator[FakeBinance]:
    with FakeBinance(clock=clock, engine_seconds=0) as exchange:
        yield exchange


@pytest.fixture
def client(fake: FakeBinance) -> Client:
    return Client(fake)


@pytest.fixture
def hedger(client: Client) -> Client:
    """The client of an account in hedge mode."""
    assert client.post("v1/positionSide/dual", dualSidePosition="true") == {"code": 200, "msg": "success"}
    return client


def refusal(reply: Any) -> tuple[int, str]:
    return reply["code"], reply["msg"]


def code(reply: Any) -> int | None:
    """The refusal's code, None when it is no refusal."""
    return None if "orderId" in reply or "algoId" in reply else int(reply["code"])


# --- the door: the same rules as for spot, the words of futures ---------------------------------------------------


def test_spot_and_futures_have_wallets_of_their_own(client: Client) -> None:
    client.fake.set_balance("USDT", 0)
    assert client.order(BUY)["status"] == "NEW"
    assert client.fake.orders == []
    assert client.fake.futures.wallet() == Decimal("9999.70"), "10000 less a fee of 0.05 %"


@pytest.mark.parametrize(
    ("changes", "status", "problem"),
    [
        ({"key": "B" * 64}, 401, (-2015, "Invalid API-key, IP, or permissions for action.")),
        ({"key": "short"}, 401, (-2014, "API-key format invalid.")),
        ({"extra": "&side=SELL"}, 400, (-1101, "Duplicate values for a parameter detected.")),
        ({"extra": "0"}, 400, (-1100, "Illegal characters found in parameter 'signature'; legal range is "
                               "'^[A-Fa-f0-9]{64}$'.")),
        ({"foo": "1"}, 400, (-1104, "Not all sent parameters were read; read '6' parameter(s) but was sent '7'.")),
        ({"symbol": None}, 400,
         (-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")),
        ({"newClientOrderId": ""}, 400, (-1105, "Parameter 'newClientOrderId' was empty.")),
        ({"symbol": "NOPEUSDT"}, 400, (-1121, "Invalid symbol.")),
    ],
)  # fmt: skip
def test_what_is_malformed_stops_at_the_door(
    client: Client, changes: dict[str, Any], status: int, problem: tuple[int, str]
) -> None:
    reply = client.send("POST", "v1/order", **{**BUY, **changes})
    assert (reply.status_code, refusal(reply.json())) == (status, problem)
    assert client.fake.futures.orders == []


@pytest.mark.parametrize(("age_ms", "passes"), [(5000, True), (5001, False), (-999, True), (-1000, False)])
def test_the_time_window(client: Client, age_ms: int, passes: bool) -> None:
    reply = client.get("v2/balance", timestamp=client.fake.now_ms() - age_ms)
    assert isinstance(reply, list) if passes else reply["code"] == -1021


def test_a_signature_over_other_bytes_is_refused(client: Client) -> None:
    query = urlencode({**BUY, "timestamp": client.fake.now_ms()})
    url = f"{client.fake.fapi_url}/v1/order?{query.replace('0.010', '0.020')}&signature="
    reply = client.session.post(
        url + sign(client.fake.api_secret, query), headers={"X-MBX-APIKEY": client.fake.api_key}
    )
    assert refusal(reply.json()) == (-1022, "Signature for this request is not valid.")


def test_every_served_endpoint_is_in_the_parameter_table() -> None:
    assert set(FUTURES_ROUTES) <= set(PARAMETERS)


def test_unknown_paths_and_methods(client: Client) -> None:
    assert client.send("GET", "v1/nothing").status_code == 404
    assert client.send("PUT", "v1/order").status_code == 405


# --- limits -------------------------------------------------------------------------------------------------------


def test_orders_weigh_nothing_but_count_and_cancels_weigh_one(client: Client) -> None:
    headers = client.send("POST", "v1/order", **LIMIT_BUY, newClientOrderId="a").headers
    assert (headers["X-MBX-USED-WEIGHT-1M"], headers["X-MBX-ORDER-COUNT-10S"]) == ("0", "1")
    assert client.send("POST", "v1/algoOrder", **STOP).headers["X-MBX-ORDER-COUNT-1M"] == "2"
    headers = client.send("DELETE", "v1/order", symbol="BTCUSDT", origClientOrderId="a").headers
    assert headers["X-MBX-USED-WEIGHT-1M"] == "1"
    assert client.send("GET", "v1/openAlgoOrders").headers["X-MBX-USED-WEIGHT-1M"] == "41"


def test_a_used_up_weight_is_429_until_the_minute_is_over_and_only_for_futures(client: Client, clock: Clock) -> None:
    client.fake.futures.set_options(weight_limit=5)
    assert client.send("GET", "v3/account").status_code == 200
    reply = client.session.get(f"{client.fake.fapi_url}/v1/ping")
    assert (reply.status_code, reply.json()["code"], reply.headers["Retry-After"]) == (429, -1003, "60")
    assert reply.json()["msg"].startswith("Too many requests; current limit is 5 requests per minute.")
    assert client.session.get(f"{client.fake.api_url}/v3/ping").status_code == 200
    clock.now += 60
    assert client.public("v1/ping") == {}


def test_too_many_orders_in_ten_seconds(client: Client, clock: Clock) -> None:
    client.fake.futures.set_options(order_limit=2)
    replies = [client.send("POST", "v1/order", **BUY) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429], "filled ones count, too"
    assert refusal(replies[2].json()) == (-1015, "Too many new orders; current limit is 2 orders per 10 SECOND.")
    clock.now += 10
    assert client.order(BUY)["status"] == "NEW"


# --- filters ------------------------------------------------------------------------------------------------------

RULES: list[tuple[dict[str, Any], int | None]] = [
    ({**BUY, "quantity": "0.002"}, None),
    ({**BUY, "quantity": "0.001"}, -4164),  # 60 USDT, least are 100
    ({**BUY, "quantity": "0.0015"}, -1111),
    ({**BUY, "quantity": "0"}, -4003),
    ({**LIMIT_BUY, "price": "59000.1"}, None),
    ({**LIMIT_BUY, "price": "59000.15"}, -4014),
    ({**LIMIT_BUY, "price": "59000.101"}, -1111),
    ({**LIMIT_BUY, "price": "63000"}, None),
    ({**LIMIT_BUY, "price": "63000.1"}, -4016),
    ({**LIMIT_BUY, "price": "556.8", "quantity": "0.180"}, None),
    ({**LIMIT_BUY, "price": "556.7", "quantity": "0.180"}, -4013),
    ({**LIMIT_BUY, "price": "4529764.1"}, -4002),
    ({**LIMIT_SELL, "price": "57000"}, None),
    ({**LIMIT_SELL, "price": "56999.9"}, -4024),
    ({**LIMIT_BUY, "price": "50000", "quantity": "0.002"}, None),
    ({**LIMIT_BUY, "price": "49999.9", "quantity": "0.002"}, -4164),
    ({**LIMIT_BUY, "symbol": "1000SATSUSDT", "price": "0.0002", "quantity": "25000"}, None),
    ({**LIMIT_BUY, "symbol": "1000SATSUSDT", "price": "0.0002", "quantity": "24999"}, -4164),
    ({**LIMIT_BUY, "symbol": "1000SATSUSDT", "price": "0.0002", "quantity": "25000.5"}, -1111),
]


@pytest.mark.parametrize(("order", "problem"), RULES)
@pytest.mark.parametrize("path", ["v1/order", "v1/order/test"])
def test_filters_at_their_limits(client: Client, path: str, order: dict[str, Any], problem: int | None) -> None:
    assert code(client.post(path, **order)) == problem


@pytest.mark.parametrize(
    ("order", "quantity", "problem"),
    [(LIMIT_BUY, "0.050", None), (LIMIT_BUY, "0.051", -4005), (LIMIT_BUY, "0.010", None), (LIMIT_BUY, "0.009", -4004),
     (BUY, "0.030", None), (BUY, "0.031", -4005), (BUY, "0.011", None), (LIMIT_BUY, "0.015", -4023)],
)  # fmt: skip
def test_the_least_and_the_largest_quantity_themselves_are_fine(
    client: Client, order: dict[str, Any], quantity: str, problem: int | None
) -> None:
    step = "0.010" if problem == -4023 else "0.001"
    client.fake.futures.set_filters("BTCUSDT", LOT_SIZE={"minQty": "0.010", "maxQty": "0.050", "stepSize": step},
                                    MARKET_LOT_SIZE={"maxQty": "0.030"})  # fmt: skip
    assert code(client.order(order, quantity=quantity)) == problem


@pytest.mark.parametrize(("price", "problem"), [("59000.25", None), ("59000.30", -4014), ("59000.35", None)])
def test_ticks_are_counted_from_the_least_price(client: Client, price: str, problem: int | None) -> None:
    client.fake.futures.set_filters("BTCUSDT", PRICE_FILTER={"minPrice": "402.05", "tickSize": "0.10"})
    assert code(client.order(LIMIT_BUY, price=price)) == problem


def test_a_market_order_is_judged_by_the_mark_price(client: Client) -> None:
    client.fake.futures.set_mark_price("BTCUSDT", "49999")
    assert refusal(client.order(BUY)) == (
        -4131, "The counterparty's best price does not meet the PERCENT_PRICE filter limit",
    )  # fmt: skip
    client.fake.futures.set_price("BTCUSDT", "51000", mark="49999")
    assert refusal(client.order(BUY, quantity="0.002")) == (
        -4164, "Order's notional must be no smaller than 100 (unless you choose reduce only).",
    )  # fmt: skip
    client.fake.futures.set_mark_price("BTCUSDT", "50000")
    assert code(client.order(BUY, quantity="0.002")) is None


def test_a_way_out_may_be_below_the_least_notional(client: Client) -> None:
    client.order(BUY, quantity="0.010")
    assert code(client.order(SELL, quantity="0.001")) == -4164
    assert code(client.order(CLOSE, quantity="0.001")) is None


def test_the_number_of_open_orders_is_limited(client: Client) -> None:
    client.fake.futures.set_filters("BTCUSDT", MAX_NUM_ORDERS={"limit": 1})
    assert code(client.order(LIMIT_BUY)) is None
    assert refusal(client.order(LIMIT_BUY)) == (-2025, "Reach max open order limit.")


@pytest.mark.parametrize(("status", "way_in", "way_out"), [("SETTLING", -4141, -4141), ("PRE_SETTLE", -4140, None)])
def test_a_symbol_that_does_not_trade(client: Client, status: str, way_in: int, way_out: int | None) -> None:
    client.order(BUY)
    client.fake.futures.set_symbol("BTCUSDT", status=status)
    assert (code(client.order(BUY)), code(client.order(CLOSE))) == (way_in, way_out)


# --- parameters of orders -----------------------------------------------------------------------------------------

BAD_ORDERS: list[tuple[dict[str, Any], tuple[int, str]]] = [
    ({"quantity": None}, (-1102, "Mandatory parameter 'quantity' was not sent, was empty/null, or malformed.")),
    ({"price": "60000"}, (-1106, "Parameter 'price' sent when not required.")),
    ({"timeInForce": "GTC"}, (-1106, "Parameter 'timeinforce' sent when not required.")),
    ({**LIMIT_BUY, "timeInForce": None},
     (-1102, "Mandatory parameter 'timeinforce' was not sent, was empty/null, or malformed.")),
    ({**LIMIT_BUY, "price": None}, (-1102, "Mandatory parameter 'price' was not sent, was empty/null, or malformed.")),
    ({**LIMIT_BUY, "timeInForce": "DAY"}, (-1115, "Invalid timeInForce.")),
    ({"side": "HOLD"}, (-1117, "Invalid side.")),
    ({"type": "MARKTE"}, (-1116, "Invalid orderType.")),
    ({"quantity": "1e-2"}, (-1100, "Illegal characters found in parameter 'quantity'; legal range is "
                            r"'^([0-9]{1,20})(\.[0-9]{1,20})?$'.")),
    ({"reduceOnly": "True"}, (-1130, "Data sent for parameter 'reduceOnly' is not valid.")),
    ({"newOrderRespType": "FULL"}, (-1136, "Invalid newOrderRespType.")),
    ({"positionSide": "UP"}, (-4060, "Invalid position side.")),
    ({"newClientOrderId": "a" * 37}, (-4015, "Client order id length should not be more than 36 chars")),
    ({"newClientOrderId": "a b"}, (-1100, "Illegal characters found in parameter 'newClientOrderId'; legal range is "
                                   r"'^[\.A-Z\:/a-z0-9_-]{1,36}$'.")),
    ({"priceMatch": "QUEUE"}, (-1106, "Parameter 'pricematch' sent when not required.")),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "problem"), BAD_ORDERS)
def test_a_malformed_order_is_refused_in_binances_words(
    client: Client, changes: dict[str, Any], problem: tuple[int, str]
) -> None:
    assert refusal(client.order(BUY, **changes)) == problem
    assert client.fake.futures.orders == []


@pytest.mark.parametrize("kind", ["STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET"])
def test_conditional_types_are_refused_at_the_old_endpoint(client: Client, kind: str) -> None:
    assert refusal(client.order(SELL, type=kind, stopPrice="58000", closePosition="true", quantity=None)) == (
        -4120, "Order type not supported for this endpoint. Please use the Algo Order API endpoints instead.",
    )  # fmt: skip


def test_a_client_id_of_36_with_all_its_letters_is_fine(client: Client) -> None:
    name = "./:_-Aa0" * 4 + "wxyz"
    assert client.order(BUY, newClientOrderId=name)["clientOrderId"] == name


def test_a_client_id_is_unique_among_open_orders_only(client: Client) -> None:
    assert client.order(LIMIT_BUY, newClientOrderId="x")["status"] == "NEW"
    assert refusal(client.order(BUY, newClientOrderId="x")) == (-4116, "ClientOrderId is duplicated.")
    client.delete("v1/order", symbol="BTCUSDT", origClientOrderId="x")
    for _ in range(2):
        client.order(BUY, newClientOrderId="x")
    assert client.fake.futures.amount("BTCUSDT") == Decimal("0.020"), "the id of a filled order buys once more"
    assert client.fake.futures_posts_by_client_id["x"] == 4
    assert client.fake.futures.orders_by_client_id["x"] == 3


# --- what replies carry -------------------------------------------------------------------------------------------


def test_an_ack_says_new_and_the_result_says_filled_but_not_at_what_price(client: Client) -> None:
    ack = client.order(BUY, newClientOrderId="a")
    assert ack == {
        "orderId": 2000001, "symbol": "BTCUSDT", "status": "NEW", "clientOrderId": "a", "price": "0.00",
        "origQty": "0.010", "executedQty": "0.000", "cumQty": "0.000", "timeInForce": "GTC", "type": "MARKET",
        "reduceOnly": False, "closePosition": False, "side": "BUY", "positionSide": "BOTH", "stopPrice": "0.00",
        "workingType": "CONTRACT_PRICE", "priceProtect": False, "origType": "MARKET", "priceMatch": "NONE",
        "selfTradePreventionMode": "EXPIRE_MAKER", "goodTillDate": 0, "updateTime": client.fake.now_ms(),
    }  # fmt: skip
    result = client.order(BUY, newOrderRespType="RESULT")
    assert (result["status"], result["executedQty"], result["cumQty"]) == ("FILLED", "0.010", "0.010")
    assert set(result) == set(ack)
    queried = client.get("v1/order", symbol="BTCUSDT", origClientOrderId="a")
    assert set(queried) == set(ack) - {"cumQty"} | {"avgPrice", "cumQuote", "time"}
    assert (queried["status"], queried["avgPrice"], queried["cumQuote"]) == ("FILLED", "60000.00000", "600.00000")


@pytest.mark.parametrize(
    ("time_in_force", "depth", "status", "executed"),
    [("GTC", "1", "NEW", "0.000"), ("IOC", "1", "FILLED", "0.010"), ("IOC", "0.004", "EXPIRED", "0.004"),
     ("FOK", "0.010", "FILLED", "0.010"), ("FOK", "0.009", -5021, None), ("GTX", "1", -5022, None)],
)  # fmt: skip
def test_times_in_force_and_what_result_tells_of_them(
    client: Client, time_in_force: str, depth: str, status: str | int, executed: str | None
) -> None:
    client.fake.futures.set_book("BTCUSDT", asks=[("60000", depth)])
    reply = client.order(LIMIT_BUY, price="60000", timeInForce=time_in_force, newOrderRespType="RESULT")
    assert (reply.get("status", reply.get("code")), reply.get("executedQty")) == (status, executed)
    if isinstance(status, int):
        assert client.get("v1/allOrders", symbol="BTCUSDT") == [], "no history records it"


def test_a_resting_gtx_is_an_order_like_any_other(client: Client) -> None:
    assert client.order(LIMIT_BUY, timeInForce="GTX")["status"] == "NEW"
    client.fake.futures.set_price("BTCUSDT", "58000")
    (trade,) = client.get("v1/userTrades", symbol="BTCUSDT")
    assert (trade["price"], trade["maker"], trade["commission"]) == ("59000.00", True, "0.11800000")


@pytest.mark.parametrize(("asks", "executed"), [([("60000", "0.004")], "0.004"), ([], "0.000")])
def test_a_market_order_that_empties_the_book_expires(client: Client, asks: list[Any], executed: str) -> None:
    client.fake.futures.set_book("BTCUSDT", asks=asks)
    reply = client.order(BUY, newOrderRespType="RESULT")
    assert (reply["status"], reply["executedQty"]) == ("EXPIRED", executed)


def test_a_market_order_takes_nothing_beyond_the_price_band(client: Client) -> None:
    client.fake.futures.set_book("BTCUSDT", asks=[("60000", "0.001"), ("63000", "0.002"), ("63000.1", "1")])
    reply = client.order(BUY, newOrderRespType="RESULT")
    assert (reply["status"], reply["executedQty"]) == ("EXPIRED", "0.003")


def test_one_order_may_be_several_trades(client: Client) -> None:
    client.fake.futures.set_book("BTCUSDT", asks=[("60000", "0.004"), ("60010", "1")])
    order = client.order(BUY)
    trades = client.get("v1/userTrades", symbol="BTCUSDT", orderId=order["orderId"])
    assert [(trade["price"], trade["qty"], trade["quoteQty"]) for trade in trades] == [
        ("60000.00", "0.004", "240.00000"), ("60010.00", "0.006", "360.06000"),
    ]  # fmt: skip
    assert client.get("v1/order", symbol="BTCUSDT", orderId=order["orderId"])["avgPrice"] == "60006.00000"


# --- positions ----------------------------------------------------------------------------------------------------

Steps = list[tuple[str, str, str]]  # side, quantity, price


@pytest.mark.parametrize(
    ("steps", "amount", "entry", "profits"),
    [
        ([("BUY", "0.010", "60000")], "0.010", "60000", ["0"]),
        ([("BUY", "0.010", "60000"), ("BUY", "0.030", "62000")], "0.040", "61500", ["0", "0"]),
        ([("BUY", "0.040", "60000"), ("SELL", "0.010", "61000")], "0.030", "60000", ["0", "10"]),
        ([("BUY", "0.010", "60000"), ("SELL", "0.010", "59000")], "0", "0", ["0", "-10"]),
        ([("BUY", "0.010", "60000"), ("SELL", "0.030", "61000")], "-0.020", "61000", ["0", "10"]),
        ([("SELL", "0.010", "60000"), ("BUY", "0.010", "59000")], "0", "0", ["0", "10"]),
        ([("SELL", "0.010", "60000"), ("BUY", "0.020", "61000")], "0.010", "61000", ["0", "-10"]),
    ],
    ids=["open", "add", "part out", "out", "turn around", "short and out", "short turned around"],
)
@pytest.mark.parametrize("margin", ["CROSSED", "ISOLATED"])
def test_a_position_in_one_way_mode(
    client: Client, margin: str, steps: Steps, amount: str, entry: str, profits: list[str]
) -> None:
    if margin == "ISOLATED":
        client.post("v1/marginType", symbol="BTCUSDT", marginType=margin)
    for side, quantity, price in steps:
        client.fake.futures.set_price("BTCUSDT", price)
        client.order(BUY, side=side, quantity=quantity)
    position = client.fake.futures.position("BTCUSDT")
    assert (position.amount, position.entry_price) == (Decimal(amount), Decimal(entry))
    assert [trade.realized_pnl for trade in client.fake.futures.trades] == [Decimal(each) for each in profits]
    fees = sum((Decimal(quantity) * Decimal(price) / 2000 for _, quantity, price in steps), Decimal(0))
    assert client.fake.futures.wallet() == 10_000 + sum(map(Decimal, profits)) - fees
    assert position.isolated_wallet == (abs(position.amount) * position.entry_price / 20 if margin == "ISOLATED" else 0)


def test_both_sides_are_held_at_once_in_hedge_mode(hedger: Client) -> None:
    hedger.order(BUY, positionSide="LONG")
    hedger.order(SELL, positionSide="SHORT", quantity="0.020")
    hedger.fake.futures.set_price("BTCUSDT", "61000")
    rows = {row["positionSide"]: row for row in hedger.get("v3/positionRisk", symbol="BTCUSDT")}
    assert (rows["LONG"]["positionAmt"], rows["LONG"]["unRealizedProfit"]) == ("0.010", "10.00000000")
    assert (rows["SHORT"]["positionAmt"], rows["SHORT"]["unRealizedProfit"]) == ("-0.020", "-20.00000000")
    hedger.order(BUY, positionSide="SHORT", quantity="0.020")
    assert hedger.fake.futures.trades[-1].realized_pnl == -20
    assert [position.side for position in hedger.fake.futures.positions] == ["LONG"]
    assert hedger.get("v1/userTrades", symbol="BTCUSDT")[-1]["positionSide"] == "SHORT"


@pytest.mark.parametrize(
    ("hedge", "params", "problem"),
    [
        (False, {}, None), (False, {"positionSide": "BOTH"}, None),
        (False, {"positionSide": "LONG"}, (-4061, "Order's position side does not match user's setting.")),
        (True, {"positionSide": "LONG"}, None),
        (True, {}, (-4061, "Order's position side does not match user's setting.")),
        (True, {"positionSide": "BOTH"}, (-4061, "Order's position side does not match user's setting.")),
        (True, {"positionSide": "LONG", "reduceOnly": "false"},
         (-1106, "Parameter 'reduceonly' sent when not required.")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["v1/order", "v1/algoOrder"])
def test_the_position_side_must_fit_the_mode(
    client: Client, path: str, hedge: bool, params: dict[str, str], problem: tuple[int, str] | None
) -> None:
    client.fake.futures.set_options(hedge_mode=hedge)
    order = BUY if path == "v1/order" else {**STOP, "side": "BUY", "triggerPrice": "62000"}
    reply = client.post(path, **{**order, **params})
    assert (None if code(reply) is None else refusal(reply)) == problem


@pytest.mark.parametrize(("quantity", "problem"), [("0.010", None), ("0.011", -2022)])
def test_in_hedge_mode_a_closing_side_never_turns_around(hedger: Client, quantity: str, problem: int | None) -> None:
    assert code(hedger.order(SELL, positionSide="LONG")) == -2022, "nothing to close"
    hedger.order(BUY, positionSide="LONG")
    reply = hedger.order(SELL, positionSide="LONG", quantity=quantity)
    assert code(reply) == problem
    assert reply.get("reduceOnly", True) is True


def test_the_mode_changes_only_without_orders_and_positions(client: Client) -> None:
    def change(on: str) -> Any:
        return client.post("v1/positionSide/dual", dualSidePosition=on)

    assert refusal(change("false")) == (-4059, "No need to change position side.")
    client.order(LIMIT_BUY)
    assert refusal(change("true")) == (-4067, "Position side cannot be changed if there exists open orders.")
    client.fake.futures.set_price("BTCUSDT", "59000")
    assert refusal(change("true")) == (-4068, "Position side cannot be changed if there exists position.")
    client.order(CLOSE)
    assert client.get("v1/positionSide/dual") == {"dualSidePosition": False}
    assert change("true")["code"] == 200
    assert client.get("v1/positionSide/dual") == {"dualSidePosition": True}


# --- reduce-only --------------------------------------------------------------------------------------------------


def test_reduce_only_without_a_position_or_with_its_direction_is_refused(client: Client) -> None:
    assert refusal(client.order(CLOSE)) == (-2022, "ReduceOnly Order is rejected.")
    client.order(BUY)
    assert code(client.order(CLOSE, side="BUY")) == -2022


def test_a_test_order_does_not_look_at_positions_and_margin(client: Client) -> None:
    client.fake.futures.set_balance("USDT", 0)
    assert client.post("v1/order/test", **CLOSE)["status"] == "NEW"
    assert client.post("v1/order/test", **BUY)["status"] == "NEW"
    assert client.fake.futures.orders == []


def test_reduce_only_is_cut_down_to_the_position(client: Client) -> None:
    client.order(BUY)
    reply = client.order(CLOSE, quantity="0.025", newOrderRespType="RESULT")
    assert (reply["status"], reply["origQty"], reply["executedQty"]) == ("FILLED", "0.010", "0.010")
    assert client.fake.futures.positions == []


@pytest.mark.parametrize(
    ("claimed", "conflict", "answer"), [("0.009", -2022, "0.001"), ("0.010", -2022, -2022), ("0.010", -4118, -4118)]
)
def test_a_resting_reduce_only_order_claims_its_part_of_the_position(
    client: Client, claimed: str, conflict: int, answer: str | int
) -> None:
    client.fake.futures.set_options(conflict_code=conflict)
    client.order(BUY)
    client.order({**LIMIT_SELL, "reduceOnly": "true", "quantity": claimed})
    reply = client.order(CLOSE)
    assert reply.get("code", reply.get("origQty")) == answer
    client.delete("v1/allOpenOrders", symbol="BTCUSDT")
    assert client.fake.futures.amount("BTCUSDT") == Decimal("0.010" if isinstance(answer, int) else "0.009")
    assert code(client.order(CLOSE)) is None, "once the other is canceled, all can go"
    assert client.fake.futures.positions == []


def test_resting_reduce_only_orders_shrink_with_the_position_and_expire_with_it(client: Client) -> None:
    client.order(BUY)
    client.order({**LIMIT_SELL, "reduceOnly": "true", "newClientOrderId": "take"})
    client.order(SELL, quantity="0.004")
    assert client.get("v1/order", symbol="BTCUSDT", origClientOrderId="take")["origQty"] == "0.006"
    client.order(SELL, quantity="0.006")
    assert client.get("v1/order", symbol="BTCUSDT", origClientOrderId="take")["status"] == "EXPIRED"


# --- margin -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "leverage", "good", "bad"),
    [(BUY, 1, "0.016", "0.017"), (BUY, 20, "0.333", "0.334"), (SELL, 20, "0.333", "0.334"),
     (LIMIT_BUY, 10, "0.169", "0.170"), (LIMIT_SELL, 10, "0.163", "0.164")],
)  # fmt: skip
def test_the_available_balance_must_cover_the_initial_margin(
    client: Client, order: dict[str, Any], leverage: int, good: str, bad: str
) -> None:
    client.fake.futures.set_balance("USDT", 1000)
    assert client.post("v1/leverage", symbol="BTCUSDT", leverage=leverage) == {
        "leverage": leverage, "maxNotionalValue": {1: "1800000000", 10: "230000000", 20: "100000000"}[leverage],
        "symbol": "BTCUSDT",
    }  # fmt: skip
    assert refusal(client.order(order, quantity=bad)) == (-2019, "Margin is insufficient.")
    assert code(client.order(order, quantity=good)) is None


def test_a_position_that_would_open_at_a_loss_needs_that_too(client: Client) -> None:
    client.fake.futures.set_balance("USDT", "60")
    client.fake.futures.set_price("BTCUSDT", "60000", mark="57500")
    assert code(client.order(BUY, quantity="0.011")) == -2019, "33 of margin and 27.50 of loss"
    assert code(client.order(BUY, quantity="0.010")) is None, "30 of margin and 25 of loss"


def test_positions_and_resting_orders_hold_back_margin_and_give_it_back(client: Client) -> None:
    def free() -> str:
        return str(client.get("v3/account")["availableBalance"])

    client.fake.futures.set_options(taker_rate=0)
    client.order(BUY)
    assert free() == "9970.00000000"
    order_id = client.order(LIMIT_BUY)["orderId"]
    assert free() == "9940.50000000"
    client.order(LIMIT_SELL)
    assert free() == "9940.50000000", "what would only close needs nothing"
    client.delete("v1/order", symbol="BTCUSDT", orderId=order_id)
    client.fake.futures.set_mark_price("BTCUSDT", "59000")
    assert free() == "9960.50000000", "29.5 of margin and a loss of 10"
    client.order(CLOSE)
    assert Decimal(free()) == Decimal("9969.50"), "closed at 60000; the sell of 610 at 20 still waits"


def test_an_isolated_position_takes_its_margin_along(client: Client) -> None:
    client.fake.futures.set_options(taker_rate=0)
    client.post("v1/marginType", symbol="BTCUSDT", marginType="ISOLATED")
    client.order(BUY)
    client.fake.futures.set_price("BTCUSDT", "61000")
    (row,) = client.get("v2/positionRisk", symbol="BTCUSDT")
    assert (row["marginType"], row["isolatedWallet"], row["isolatedMargin"]) == ("isolated", "30", "40.00000000")
    (usdt, *_) = client.get("v3/balance")
    assert (usdt["balance"], usdt["crossWalletBalance"]) == ("10000.00000000", "9970.00000000")
    assert usdt["availableBalance"] == "9970.00000000", "its open profit is not for others"
    client.order(CLOSE, quantity="0.005")
    assert client.fake.futures.position("BTCUSDT").isolated_wallet == 15
    assert client.fake.futures.engine.wallets["USDT"] == 9990


def test_margin_type_and_leverage_have_their_conditions(client: Client) -> None:
    def margin(kind: str) -> Any:
        return client.post("v1/marginType", symbol="BTCUSDT", marginType=kind)

    def leverage(value: int) -> Any:
        return client.post("v1/leverage", symbol="BTCUSDT", leverage=value)

    assert refusal(margin("CROSSED")) == (-4046, "No need to change margin type.")
    order_id = client.order(LIMIT_BUY)["orderId"]
    assert refusal(margin("ISOLATED")) == (-4047, "Margin type cannot be changed if there exists open orders.")
    client.delete("v1/order", symbol="BTCUSDT", orderId=order_id)
    assert margin("ISOLATED") == {"code": 200, "msg": "success"}
    client.order(BUY)
    assert refusal(margin("CROSSED")) == (-4048, "Margin type cannot be changed if there exists position.")
    assert leverage(20)["leverage"] == 20, "the same value is fine"
    assert code(leverage(19)) == -4161
    assert [code(leverage(value)) for value in (0, 126)] == [-4028, -4028]
    assert leverage(125)["maxNotionalValue"] == "300000"


@pytest.mark.parametrize(("quantity", "problem"), [("5.000", None), ("5.001", -2027)])
def test_a_leverage_has_its_largest_position(client: Client, quantity: str, problem: int | None) -> None:
    client.post("v1/leverage", symbol="BTCUSDT", leverage=125)
    assert code(client.order(BUY, quantity=quantity)) == problem


def test_accounts_list_all_symbols_or_only_those_in_use(client: Client) -> None:
    assert len(client.get("v2/account")["positions"]) == len(client.get("v2/positionRisk")) == 7
    assert client.get("v3/account")["positions"] == client.get("v3/positionRisk", symbol="BTCUSDT") == []
    client.order(LIMIT_BUY)
    assert [row["positionAmt"] for row in client.get("v3/positionRisk")] == ["0.000"], "an open order is use, too"


def test_fees_in_bnb_while_there_is_bnb(client: Client) -> None:
    client.fake.futures.set_options(fees_in_bnb=True)
    client.order(BUY)
    client.fake.futures.set_balance("BNB", 1)
    client.order(BUY)
    trades = client.get("v1/userTrades", symbol="BTCUSDT")
    assert [(trade["commission"], trade["commissionAsset"]) for trade in trades] == [
        ("0.30000000", "USDT"), ("0.00045000", "BNB"),
    ]  # fmt: skip


# --- look-ups -----------------------------------------------------------------------------------------------------


def test_orders_are_found_by_either_id_and_only_with_their_symbol(client: Client) -> None:
    order_id = client.order(LIMIT_BUY, newClientOrderId="x")["orderId"]
    client.order(LIMIT_BUY, newClientOrderId=str(order_id))
    assert client.get("v1/order", symbol="BTCUSDT", orderId=order_id)["clientOrderId"] == "x"
    assert client.get("v1/openOrder", symbol="BTCUSDT", origClientOrderId="x")["orderId"] == order_id
    assert refusal(client.get("v1/order", symbol="ETHUSDT", orderId=order_id)) == (-2013, "Order does not exist.")
    assert refusal(client.get("v1/order", symbol="BTCUSDT")) == (
        -1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!",
    )  # fmt: skip
    assert client.delete("v1/order", symbol="BTCUSDT", orderId=order_id)["status"] == "CANCELED"
    assert refusal(client.delete("v1/order", symbol="BTCUSDT", orderId=order_id)) == (-2011, "Unknown order sent.")


def test_cancel_all_is_done_even_when_there_is_nothing(client: Client) -> None:
    done = {"code": 200, "msg": "The operation of cancel all open order is done."}
    client.order(LIMIT_BUY)
    client.algo(STOP, clientAlgoId="stays")
    assert [client.delete("v1/allOpenOrders", symbol="BTCUSDT") for _ in range(2)] == [done, done]
    assert client.get("v1/openOrders") == []
    assert client.status_of("stays") == "NEW", "conditional orders have a cancel-all of their own"
    assert [client.delete("v1/algoOpenOrders", symbol="BTCUSDT") for _ in range(2)] == [done, done]
    assert client.get("v1/openAlgoOrders") == []


def test_look_ups_trail_what_happened(client: Client, clock: Clock) -> None:
    client.fake.lookup_lag_seconds = 2
    client.order(LIMIT_BUY, newClientOrderId="x")
    client.algo(STOP, clientAlgoId="s")
    assert client.get("v1/order", symbol="BTCUSDT", origClientOrderId="x")["code"] == -2013
    assert client.get("v1/algoOrder", clientAlgoId="s")["code"] == -2013
    assert client.get("v1/openOrders") == client.get("v1/openAlgoOrders") == []
    clock.now += 2
    assert client.status_of("s") == "NEW"
    client.delete("v1/algoOrder", clientAlgoId="s")
    client.delete("v1/order", symbol="BTCUSDT", origClientOrderId="x")
    clock.now += 1.9
    assert client.status_of("s") == "NEW", "the cancel is not known there yet"
    assert client.get("v1/order", symbol="BTCUSDT", origClientOrderId="x")["status"] == "NEW"
    clock.now += 0.1
    assert client.status_of("s") == "CANCELED"
    assert client.get("v1/order", symbol="BTCUSDT", origClientOrderId="x")["status"] == "CANCELED"


@pytest.mark.parametrize(("days", "canceled", "filled"), [(3, 200, 200), (3.01, 400, 200), (90.01, 400, 400)])
def test_old_orders_are_forgotten(client: Client, clock: Clock, days: float, canceled: int, filled: int) -> None:
    client.order(LIMIT_BUY, newClientOrderId="canceled")
    client.delete("v1/order", symbol="BTCUSDT", origClientOrderId="canceled")
    client.order(BUY, newClientOrderId="filled")
    clock.now += days * 86_400
    answers = [client.send("GET", "v1/order", symbol="BTCUSDT", origClientOrderId=name)
               for name in ("canceled", "filled")]  # fmt: skip
    assert [answer.status_code for answer in answers] == [canceled, filled]


def test_trades_can_be_chosen(client: Client, clock: Clock) -> None:
    first = client.order(BUY)["orderId"]
    clock.now += 10
    client.order(SELL)
    trades = client.get("v1/userTrades", symbol="BTCUSDT")
    assert [trade["side"] for trade in trades] == ["BUY", "SELL"]
    assert client.get("v1/userTrades", symbol="BTCUSDT", orderId=first) == trades[:1]
    assert client.get("v1/userTrades", symbol="BTCUSDT", fromId=trades[1]["id"]) == trades[1:]
    assert client.get("v1/userTrades", symbol="BTCUSDT", startTime=trades[1]["time"]) == trades[1:]
    assert client.get("v1/userTrades", symbol="BTCUSDT", startTime=1, endTime=7 * 86_400_000 + 2)["code"] == -4165


@pytest.mark.parametrize(("days", "listed"), [(7, 1), (8, 0)])
def test_without_a_time_the_trades_of_seven_days_are_listed(
    client: Client, clock: Clock, days: int, listed: int
) -> None:
    order_id = client.order(BUY)["orderId"]
    then = client.fake.now_ms()
    clock.now += days * 86_400
    assert len(client.get("v1/userTrades", symbol="BTCUSDT", orderId=order_id)) == listed
    assert len(client.get("v1/userTrades", symbol="BTCUSDT", startTime=then)) == 1


# --- conditional orders -------------------------------------------------------------------------------------------

# type, side, what the price must not yet have reached, what triggers it
TRIGGERS = [
    ("STOP_MARKET", "SELL", "58000.1", "58000"), ("STOP_MARKET", "BUY", "61999.9", "62000"),
    ("TAKE_PROFIT_MARKET", "SELL", "61999.9", "62000"), ("TAKE_PROFIT_MARKET", "BUY", "58000.1", "58000"),
    ("STOP", "SELL", "58000.1", "58000"), ("TAKE_PROFIT", "BUY", "58000.1", "58000"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "side", "before", "at"), TRIGGERS)
@pytest.mark.parametrize("working_type", ["MARK_PRICE", "CONTRACT_PRICE", None])
def test_a_conditional_order_triggers_at_its_price_and_not_before(
    client: Client, kind: str, side: str, before: str, at: str, working_type: str | None
) -> None:
    futures = client.fake.futures
    watched, other = (futures.set_mark_price, futures.set_last_price)
    if working_type != "MARK_PRICE":
        watched, other = other, watched
    price = {"price": at} if kind in ("STOP", "TAKE_PROFIT") else {}
    client.algo(STOP, type=kind, side=side, triggerPrice=at, workingType=working_type, clientAlgoId="c", **price)
    other("BTCUSDT", at)
    watched("BTCUSDT", before)
    assert client.status_of("c") == "NEW"
    watched("BTCUSDT", at)
    assert client.status_of("c") in ("FINISHED", "TRIGGERED")
    assert [(order.side, order.type) for order in futures.orders] == [(side, "LIMIT" if price else "MARKET")]


@pytest.mark.parametrize(
    ("kind", "side", "good", "bad"),
    [("STOP_MARKET", "SELL", "59999.9", "60000"), ("STOP_MARKET", "BUY", "60000.1", "60000"),
     ("TAKE_PROFIT_MARKET", "SELL", "60000.1", "60000"), ("TAKE_PROFIT_MARKET", "BUY", "59999.9", "60000")],
)  # fmt: skip
def test_what_would_trigger_at_once_is_refused(client: Client, kind: str, side: str, good: str, bad: str) -> None:
    assert refusal(client.algo(STOP, type=kind, side=side, triggerPrice=bad)) == (
        -2021, "Order would immediately trigger.",
    )  # fmt: skip
    assert client.algo(STOP, type=kind, side=side, triggerPrice=good)["algoStatus"] == "NEW"


@pytest.mark.parametrize(
    ("side", "activate", "path", "amount"),
    [
        ("SELL", None, ["60500", "59895.1"], "0"), ("SELL", None, ["60500", "59895"], "-0.010"),
        ("SELL", None, ["59400"], "-0.010"), ("SELL", None, ["59400.1"], "0"),
        ("SELL", "61000", ["60900", "60000"], "0"), ("SELL", "61000", ["61000", "60390"], "-0.010"),
        ("BUY", None, ["59000", "59589.9"], "0"), ("BUY", None, ["59000", "59590"], "0.010"),
        ("BUY", "59000", ["59100", "60000"], "0"), ("BUY", "59000", ["59000", "59590"], "0.010"),
    ],
)  # fmt: skip
def test_a_trailing_stop_follows_the_price_and_triggers_on_the_way_back(
    client: Client, side: str, activate: str | None, path: list[str], amount: str
) -> None:
    client.algo(TRAIL, side=side, activatePrice=activate)
    for price in path:
        client.fake.futures.set_price("BTCUSDT", price)
    assert client.fake.futures.amount("BTCUSDT") == Decimal(amount)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"callbackRate": "0.1"}, None), ({"callbackRate": "0.09"}, -2007), ({"callbackRate": "20"}, None),
     ({"callbackRate": "20.1"}, -2007), ({"activatePrice": "60000.1"}, None), ({"activatePrice": "60000"}, -2021),
     ({"side": "BUY", "activatePrice": "59999.9"}, None), ({"side": "BUY", "activatePrice": "60000"}, -2021)],
)  # fmt: skip
def test_a_trailing_stop_has_its_range(client: Client, changes: dict[str, str], problem: int | None) -> None:
    assert code(client.algo(TRAIL, **changes)) == problem


BAD_ALGOS: list[tuple[dict[str, Any], tuple[int, str]]] = [
    ({"triggerPrice": None},
     (-1102, "Mandatory parameter 'triggerprice' was not sent, was empty/null, or malformed.")),
    ({"quantity": None}, (-1102, "Mandatory parameter 'quantity' was not sent, was empty/null, or malformed.")),
    ({"price": "58000"}, (-1106, "Parameter 'price' sent when not required.")),
    ({"type": "STOP"}, (-1102, "Mandatory parameter 'price' was not sent, was empty/null, or malformed.")),
    ({"type": "MARKET"}, (-1116, "Invalid orderType.")),
    ({"algoType": "VP"}, (-1130, "Data sent for parameter 'algoType' is not valid.")),
    ({"stopPrice": "58000"}, (-1104, "Not all sent parameters were read; read '8' parameter(s) but was sent '9'.")),
    ({**TRAIL, "callbackRate": None},
     (-1102, "Mandatory parameter 'callbackrate' was not sent, was empty/null, or malformed.")),
    ({"callbackRate": "1"}, (-1106, "Parameter 'callbackrate' sent when not required.")),
    ({"workingType": "INDEX"}, (-4031, "Invalid parameter working type")),
    ({"triggerPrice": "58000.05"}, (-4014, "Price not increased by tick size.")),
    ({"triggerPrice": "58000.001"}, (-1111, "Precision is over the maximum defined for this asset.")),
    ({"triggerPrice": "4529764.1"}, (-4007, "Stop price greater than max price.")),
    ({"quantity": "0.0001"}, (-1111, "Precision is over the maximum defined for this asset.")),
    ({"quantity": "121.000"}, (-4005, "Quantity greater than max quantity.")),
    ({"quantity": "0.001"}, (-4164, "Order's notional must be no smaller than 100 (unless you choose reduce only).")),
    ({"clientAlgoId": "a" * 37}, (-4015, "Client order id length should not be more than 36 chars")),
    ({"closePosition": "true"}, (-4137, "Quantity must be zero with closePosition equals true")),
    ({**STOP_ALL, "reduceOnly": "true"}, (-1106, "Parameter 'reduceonly' sent when not required.")),
    ({**STOP_ALL, "reduceOnly": "false"}, (-4138, "Reduce only must be true with closePosition equals true")),
    ({**STOP_ALL, "type": "STOP", "price": "58000"}, (-1106, "Parameter 'closeposition' sent when not required.")),
    (STOP_ALL, (-4509, "Time in Force (TIF) GTE can only be used with open positions. Please ensure that positions "
                       "are available.")),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "problem"), BAD_ALGOS)
def test_a_malformed_conditional_order_is_refused(
    client: Client, changes: dict[str, Any], problem: tuple[int, str]
) -> None:
    assert refusal(client.algo(STOP, **changes)) == problem
    assert client.fake.futures.algos == []


def test_a_conditional_order_has_the_fields_of_the_recorded_replies(client: Client) -> None:
    placed = client.algo(STOP, clientAlgoId="s", workingType="MARK_PRICE")
    now_ms = client.fake.now_ms()
    assert placed == {
        "algoId": 3000000001, "clientAlgoId": "s", "algoType": "CONDITIONAL", "orderType": "STOP_MARKET",
        "symbol": "BTCUSDT", "side": "SELL", "positionSide": "BOTH", "timeInForce": "GTC", "quantity": "0.010",
        "algoStatus": "NEW", "triggerPrice": "58000.00", "price": "0.00", "icebergQuantity": None,
        "selfTradePreventionMode": "EXPIRE_MAKER", "workingType": "MARK_PRICE", "priceMatch": "NONE",
        "closePosition": False, "priceProtect": False, "reduceOnly": False, "createTime": now_ms,
        "updateTime": now_ms, "triggerTime": 0, "goodTillDate": 0,
    }  # fmt: skip
    queried = client.get("v1/algoOrder", clientAlgoId="s")
    assert queried == {**placed, "actualOrderId": "", "actualPrice": "0.00000", "tpOrderType": ""}
    (listed,) = client.get("v1/openAlgoOrders", symbol="BTCUSDT")
    assert listed == {
        **placed, "quantity": "0.01", "triggerPrice": "58000.0", "price": "0.0", "actualOrderId": "",
        "actualQty": "0.0",
    }  # fmt: skip
    assert client.get("v1/openOrders") == [], "they are not among the orders"
    assert client.get("v1/order", symbol="BTCUSDT", origClientOrderId="s")["code"] == -2013


@pytest.mark.parametrize(
    ("number", "text"),
    [("0.0007", "7.0E-4"), ("0.00099", "9.9E-4"), ("0.001", "0.001"), ("0", "0.0"), ("74457.1", "74457.1"),
     ("9999999", "9999999.0"), ("10000000", "1.0E7"), ("12345678", "1.2345678E7")],
)  # fmt: skip
def test_lists_of_conditional_orders_write_numbers_as_java_does(number: str, text: str) -> None:
    assert java_double(Decimal(number)) == text


def test_a_triggered_one_is_linked_to_its_order(client: Client, clock: Clock) -> None:
    client.order(BUY)
    client.algo(STOP, clientAlgoId="s", reduceOnly="true")
    clock.now += 5
    client.fake.futures.set_price("BTCUSDT", "57990")
    algo = client.get("v1/algoOrder", clientAlgoId="s")
    assert (algo["algoStatus"], algo["actualPrice"], algo["actualQty"], algo["actualType"]) == (
        "FINISHED", "57990.00000", "0.010", "MARKET",
    )  # fmt: skip
    assert algo["triggerTime"] == algo["updateTime"] == client.fake.now_ms()
    order = client.get("v1/order", symbol="BTCUSDT", orderId=algo["actualOrderId"])
    assert (order["clientOrderId"], order["type"], order["reduceOnly"], order["status"]) == (
        "s", "MARKET", True, "FILLED",
    )  # fmt: skip
    (trade,) = client.get("v1/userTrades", symbol="BTCUSDT", orderId=algo["actualOrderId"])
    assert trade["realizedPnl"] == "-20.10000000"
    assert client.get("v1/openAlgoOrders") == []
    assert client.delete("v1/algoOrder", clientAlgoId="s")["code"] == -2011


def test_its_order_may_have_an_id_of_its_own(client: Client) -> None:
    client.fake.futures.set_options(child_keeps_id=False)
    client.algo(STOP, clientAlgoId="s")
    client.fake.futures.set_price("BTCUSDT", "58000")
    algo = client.get("v1/algoOrder", clientAlgoId="s")
    assert client.get("v1/order", symbol="BTCUSDT", origClientOrderId="s")["code"] == -2013
    assert client.get("v1/order", symbol="BTCUSDT", orderId=algo["actualOrderId"])["status"] == "FILLED"


def test_a_triggered_limit_order_rests_and_finishes_with_its_order(client: Client) -> None:
    client.algo(STOP, type="STOP", price="58500", clientAlgoId="s")
    client.fake.futures.set_price("BTCUSDT", "58000")
    assert client.status_of("s") == "TRIGGERED"
    algo = client.get("v1/algoOrder", clientAlgoId="s")
    assert (algo["actualType"], algo["actualQty"]) == ("LIMIT", "0.000")
    client.fake.futures.fill(int(algo["actualOrderId"]), "0.004")
    assert client.status_of("s") == "TRIGGERED"
    client.delete("v1/order", symbol="BTCUSDT", orderId=algo["actualOrderId"])
    algo = client.get("v1/algoOrder", clientAlgoId="s")
    assert (algo["algoStatus"], algo["actualQty"]) == ("FINISHED", "0.004"), "finished does not mean filled"


def test_margin_is_looked_at_only_when_it_triggers(client: Client) -> None:
    client.fake.futures.set_balance("USDT", 10)
    assert client.algo(STOP, clientAlgoId="s")["algoStatus"] == "NEW"
    client.fake.futures.set_price("BTCUSDT", "58000")
    algo = client.get("v1/algoOrder", clientAlgoId="s")
    assert (algo["algoStatus"], algo["actualOrderId"]) == ("REJECTED", "")
    assert client.fake.futures.orders == []


def test_a_reduce_only_stop_outlives_its_position_and_is_rejected_when_it_triggers(client: Client) -> None:
    client.order(BUY)
    client.algo(STOP, reduceOnly="true", clientAlgoId="s")
    client.order(CLOSE)
    assert client.status_of("s") == "NEW"
    client.fake.futures.set_price("BTCUSDT", "58000")
    assert client.status_of("s") == "REJECTED"
    assert client.fake.futures.positions == []


def test_a_stop_without_reduce_only_opens_the_opposite_when_nothing_is_held(client: Client) -> None:
    client.algo(STOP)
    client.fake.futures.set_price("BTCUSDT", "58000")
    assert client.fake.futures.amount("BTCUSDT") == Decimal("-0.010")


def test_close_position_closes_all_and_the_other_one_expires(client: Client) -> None:
    client.order(BUY)
    stop = client.algo(STOP_ALL, clientAlgoId="s")
    assert (stop["timeInForce"], stop["reduceOnly"], stop["quantity"]) == ("GTE_GTC", True, "0")
    client.algo(STOP_ALL, type="TAKE_PROFIT_MARKET", triggerPrice="62000", clientAlgoId="t")
    client.order(BUY, quantity="0.015")
    client.fake.futures.set_mark_price("BTCUSDT", "57000")
    assert client.status_of("s") == "NEW", "CONTRACT_PRICE is the default"
    client.fake.futures.set_price("BTCUSDT", "57000")
    assert (client.status_of("s"), client.status_of("t")) == ("FINISHED", "EXPIRED")
    assert client.get("v1/algoOrder", clientAlgoId="s")["actualQty"] == "0.025"
    assert client.fake.futures.positions == []


def test_close_position_orders_expire_when_the_position_is_closed_or_turned_around(client: Client) -> None:
    for way_out in ({**CLOSE}, {**SELL, "quantity": "0.030"}):
        client.order(BUY)
        client.algo(STOP_ALL, clientAlgoId="s")
        client.order(way_out)
        assert client.status_of("s") == "EXPIRED"


def test_positions_may_be_known_later_than_their_trades(client: Client, clock: Clock) -> None:
    client.fake.futures.set_options(position_lag_seconds=1)
    assert client.order(BUY, newOrderRespType="RESULT")["status"] == "FILLED"
    assert client.get("v3/positionRisk") == []
    assert code(client.algo(STOP_ALL)) == -4509
    assert code(client.order(CLOSE, quantity="0.004")) is None, "the engine itself knows at once"
    clock.now += 1
    assert client.get("v3/positionRisk")[0]["positionAmt"] == "0.006"
    assert code(client.algo(STOP_ALL)) is None


def test_one_closing_stop_and_one_closing_take_profit_are_enough(client: Client) -> None:
    client.order(BUY)
    assert code(client.algo(STOP_ALL, clientAlgoId="s")) is None
    assert code(client.algo(STOP_ALL, type="TAKE_PROFIT_MARKET", triggerPrice="62000")) is None
    assert refusal(client.algo(STOP_ALL, triggerPrice="57000")) == (
        -4130, "An open stop or take profit order with GTE and closePosition in the direction is existing.",
    )  # fmt: skip
    assert code(client.algo(STOP, triggerPrice="57000", reduceOnly="true")) is None, "with a quantity it may be"
    client.delete("v1/algoOrder", clientAlgoId="s")
    assert code(client.algo(STOP_ALL, triggerPrice="57000")) is None


def test_close_position_in_hedge_mode_closes_its_side_only(hedger: Client) -> None:
    hedger.order(BUY, positionSide="LONG")
    hedger.order(SELL, positionSide="SHORT")
    assert code(hedger.algo(STOP_ALL, positionSide="SHORT")) == -1128, "that would be no way out"
    hedger.algo(STOP_ALL, positionSide="LONG", clientAlgoId="s")
    hedger.fake.futures.set_price("BTCUSDT", "58000")
    assert hedger.status_of("s") == "FINISHED"
    assert [position.side for position in hedger.fake.futures.positions] == ["SHORT"]


def test_price_protection_waits_while_mark_and_last_price_are_apart(client: Client) -> None:
    client.fake.futures.set_symbol("BTCUSDT", triggerProtect="0.0100")
    client.algo(STOP, priceProtect="TRUE", clientAlgoId="s")
    client.fake.futures.set_last_price("BTCUSDT", "58000")
    assert client.status_of("s") == "NEW"
    client.fake.futures.set_mark_price("BTCUSDT", "58500")
    assert client.status_of("s") == "FINISHED"


def test_triggering_can_be_held(client: Client) -> None:
    client.fake.futures.set_options(hold_triggers=True)
    client.algo(STOP, clientAlgoId="s")
    client.fake.futures.set_price("BTCUSDT", "58000")
    assert client.status_of("s") == "TRIGGERING"
    assert client.get("v1/algoOrder", clientAlgoId="s")["actualOrderId"] == ""
    assert client.delete("v1/algoOrder", clientAlgoId="s")["code"] == -2011, "it is on its way"
    client.fake.futures.set_options(hold_triggers=False)
    assert client.status_of("s") == "FINISHED"


def test_conditional_orders_are_found_by_either_id_without_a_symbol(client: Client) -> None:
    algo_id = client.algo(STOP, clientAlgoId="s")["algoId"]
    assert client.get("v1/algoOrder", algoId=algo_id)["clientAlgoId"] == "s"
    assert refusal(client.get("v1/algoOrder", clientAlgoId="never")) == (-2013, "Order does not exist.")
    assert refusal(client.delete("v1/algoOrder", clientAlgoId="never")) == (-2011, "Unknown order sent.")
    assert client.get("v1/algoOrder")["code"] == client.delete("v1/algoOrder")["code"] == -1102
    assert client.delete("v1/algoOrder", algoId=algo_id) == {
        "algoId": algo_id, "clientAlgoId": "s", "code": "200", "msg": "success",
    }  # fmt: skip
    (old,) = client.get("v1/allAlgoOrders", symbol="BTCUSDT", algoId=algo_id)
    assert old["algoStatus"] == "CANCELED"


def test_a_client_algo_id_is_unique_among_waiting_ones_only(client: Client) -> None:
    client.algo(STOP, clientAlgoId="s")
    assert code(client.algo(STOP, clientAlgoId="s")) == -4116
    client.delete("v1/algoOrder", clientAlgoId="s")
    assert code(client.algo(STOP, clientAlgoId="s")) is None
    assert client.fake.algo_posts_by_client_id["s"] == 3
    assert client.fake.futures.algos_by_client_id["s"] == 2


def test_two_hundred_may_wait(client: Client) -> None:
    futures = client.fake.futures
    for number in range(200):
        futures.desk.place(
            NewAlgo("BTCUSDT", "SELL", "STOP_MARKET", f"n{number}", Decimal("0.010"), trigger_price=Decimal(58000)), 0
        )
    assert refusal(client.algo(STOP)) == (-4045, "Reach max stop order limit.")
    futures.desk.cancel(futures.desk.waiting()[0], 0)
    assert code(client.algo(STOP)) is None


# --- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["v1/order", "v1/algoOrder"])
@pytest.mark.parametrize("executed", [True, False])
@pytest.mark.parametrize("kind", ["reset", "close", "half_body"])
def test_a_lost_reply_leaves_its_order_to_be_looked_up(client: Client, path: str, executed: bool, kind: str) -> None:
    client.fake.fail_next(kind, f"POST /fapi/{path}", executed=executed)
    order = {**BUY, "newClientOrderId": "x"} if path == "v1/order" else {**STOP, "clientAlgoId": "x"}
    with pytest.raises(requests.exceptions.RequestException):
        client.post(path, **order)
    where = {"symbol": "BTCUSDT", "origClientOrderId": "x"} if path == "v1/order" else {"clientAlgoId": "x"}
    assert client.get(path, **where).get("code") == (None if executed else -2013)
    (call,) = client.fake.calls(f"POST /fapi/{path}")
    assert (call.client_id, call.fault, call.executed) == ("x", kind, executed)


@pytest.mark.parametrize("meaning", OVERLOADS)
def test_a_503_has_one_of_four_meanings_told_by_its_text(client: Client, meaning: str) -> None:
    client.fake.overload(meaning)
    reply = client.send("POST", "v1/order", **BUY)
    assert (reply.status_code, refusal(reply.json())) == (503, OVERLOADS[meaning])
    assert client.fake.futures.orders == []


def test_only_the_503_of_unknown_outcome_may_have_executed(client: Client) -> None:
    client.fake.overload("unknown", executed=True)
    assert client.send("POST", "v1/order", **BUY).status_code == 503
    assert client.fake.futures.amount("BTCUSDT") == Decimal("0.010")
    for meaning in set(OVERLOADS) - {"unknown"}:
        with pytest.raises(ValueError, match="promises that nothing was executed"):
            client.fake.overload(meaning, executed=True)


@pytest.mark.parametrize("executed", [True, False])
def test_a_code_comes_with_the_text_of_futures(client: Client, executed: bool) -> None:
    client.fake.fail_next("error", "POST /fapi/v1/order", code=-5028, executed=executed)
    assert client.order(BUY)["msg"] == "Timestamp for this request is outside of the ME recvWindow."
    assert len(client.fake.futures.orders) == int(executed)
    client.fake.fail_next("status", "POST /fapi/v1/order", status=502, html=True)
    assert client.send("POST", "v1/order", **BUY).status_code == 502


@pytest.mark.parametrize("status", [429, 418])
def test_a_ban_is_for_futures_only(client: Client, clock: Clock, status: int) -> None:
    client.fake.fail_next("ban", "POST /fapi/v1/order", status=status, retry_after=3)
    assert client.send("POST", "v1/order", **BUY).headers["Retry-After"] == "3"
    reply = client.send("GET", "v1/ping")
    assert (reply.status_code, reply.json()["code"]) == (status, -1003)
    assert ("banned until" in reply.json()["msg"]) == (status == 418)
    assert client.session.get(f"{client.fake.api_url}/v3/ping").status_code == 200
    clock.now += 3
    assert code(client.order(BUY)) is None


def test_a_late_order_executes_after_its_connection_was_lost() -> None:
    with FakeBinance(engine_seconds=0) as fake:
        client = Client(fake)
        fake.fail_next("late", "POST /fapi/v1/order", seconds=0.1)
        with pytest.raises(requests.exceptions.ConnectionError):
            client.order(BUY, newClientOrderId="x")
        assert client.get("v1/order", symbol="BTCUSDT", origClientOrderId="x")["code"] == -2013
        fake.wait_for(lambda fake: bool(fake.futures.orders))
        assert client.get("v1/order", symbol="BTCUSDT", origClientOrderId="x")["status"] == "FILLED"


def test_the_window_is_checked_again_just_before_the_engine() -> None:
    with FakeBinance(engine_seconds=0) as fake:
        fake.fail_next("delay", "POST /fapi/v1/order", seconds=0.15)
        assert Client(fake).order(BUY, recvWindow=100)["code"] == -1021
        assert fake.futures.orders == []


# --- scene and control --------------------------------------------------------------------------------------------


def test_prices_and_books_are_what_was_set(client: Client) -> None:
    client.fake.futures.set_price("BTCUSDT", "61000", spread="0.5", mark="60990")
    assert client.public("v2/ticker/price", symbol="BTCUSDT")["price"] == "61000.00"
    assert client.public("v1/premiumIndex", symbol="BTCUSDT")["markPrice"] == "60990.00000000"
    best = client.public("v1/ticker/bookTicker", symbol="BTCUSDT")
    assert (best["bidPrice"], best["askPrice"]) == ("60999.50", "61000.50")
    client.fake.futures.set_last_price("BTCUSDT", "61500")
    assert client.fake.futures.engine.market("BTCUSDT").mark == 60990
    client.fake.futures.set_book("BTCUSDT", bids=[("1", "2")], asks=[("3", "4"), ("2", "5")])
    assert client.public("v1/depth", symbol="BTCUSDT", limit=5)["asks"] == [["2.00", "5.000"], ["3.00", "4.000"]]
    assert len(client.public("v1/ticker/price")) == 7


def test_a_contract_can_be_added_with_its_own_rules(client: Client) -> None:
    client.fake.futures.add_symbol("PEPEUSDT", "PEPE", "60000", MIN_NOTIONAL={"notional": "60"})
    assert code(client.order(BUY, symbol="PEPEUSDT", quantity="0.001")) is None


def test_an_unknown_option_is_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="no setting 'nonsense', there are: weight_limit"):
        client.fake.futures.set_options(nonsense=1)


def test_it_is_driven_over_the_control_api() -> None:
    script = Path(__file__).parent / "fake_binance.py"
    with subprocess.Popen([sys.executable, str(script), "--api-key", "k" * 64, "--api-secret", "s"],
                          stdout=subprocess.PIPE, text=True) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            drive_by_control_api(process.stdout.readline().split()[1])
        finally:
            process.terminate()


def drive_by_control_api(url: str) -> None:
    def control(name: str, **body: Any) -> int:
        return requests.post(f"{url}/control/{name}", json=body, timeout=5).status_code

    def send(path: str, **params: Any) -> requests.Response:
        query = urlencode({**params, "timestamp": int(time.time() * 1000)})
        return requests.post(
            f"{url}/fapi/{path}?{query}&signature={sign('s', query)}", headers={"X-MBX-APIKEY": "k" * 64}, timeout=5
        )

    assert control("futures/balance", asset="USDT", amount="500") == 200
    assert control("futures/price", symbol="BTCUSDT", price="50000") == 200
    assert control("futures/options", taker_rate="0") == 200
    assert control("overload", meaning="unknown", executed=True) == 200
    assert send("v1/order", **BUY, newClientOrderId="c").status_code == 503
    assert send("v1/algoOrder", **{**STOP, "triggerPrice": "49000", "workingType": "MARK_PRICE"}).status_code == 200
    assert control("futures/last", symbol="BTCUSDT", price="49500") == 200
    assert control("futures/mark", symbol="BTCUSDT", price="49000") == 200
    state = requests.get(f"{url}/control/state", timeout=5).json()["futures"]
    assert (state["wallets"]["USDT"], state["realizedPnl"]) == ("495.00000000", "-5.00000000")
    assert [algo["algoStatus"] for algo in state["algoOrders"]] == ["FINISHED"]
    assert (state["positions"], state["postsByClientId"]) == ([], {"c": 1})
    assert control("futures/book", symbol="BTCUSDT", bids=[["1", "2"]]) == 200
    assert control("futures/filters", symbol="BTCUSDT", MIN_NOTIONAL={"notional": "1"}) == 200
    assert control("futures/symbol", symbol="BTCUSDT", status="SETTLING") == 200
    assert control("futures/fill", order_id=7) == 400
    assert control("futures/options", nonsense=1) == 400
    assert control("overload", meaning="nonsense") == 400


# --- whatever happens ---------------------------------------------------------------------------------------------

KINDS = ("MARKET", "LIMIT", "take profit", "IOC", "close", "algo", "close all", "cancel", "fill", "price", "mark")
ACTIONS = st.tuples(
    st.sampled_from(KINDS),
    st.sampled_from(["BUY", "SELL"]),
    st.integers(10, 400).map(lambda lots: Decimal(lots) / 1000),
    st.integers(95, 105).map(lambda percent: Decimal(percent * 100)),
    st.sampled_from(["LONG", "SHORT"]),
)


def act(desk: AlgoDesk, name: str, kind: str, side: str, quantity: Decimal, price: Decimal, hand: str) -> None:
    """One step of somebody who does anything in any order; refusals are fine."""
    engine = desk.engine
    where = hand if engine.hedge_mode else "BOTH"
    new = NewFuturesOrder("BTCUSDT", side, "MARKET", name, quantity, position_side=where)
    waiting = engine.open_orders()
    if kind == "price":
        engine.set_price("BTCUSDT", price, Decimal(0), 0)
    elif kind == "mark":
        engine.set_mark("BTCUSDT", price, 0)
    elif kind in ("cancel", "fill") and waiting:
        order = waiting[int(price) % len(waiting)]
        engine.cancel(order, 0) if kind == "cancel" else engine.fill(order.order_id, quantity, 0)
    elif kind in ("algo", "close all"):
        algo = NewAlgo("BTCUSDT", side, "STOP_MARKET", name, quantity, position_side=where, trigger_price=price)
        desk.place(replace(algo, quantity=Decimal(0), close_position=True) if kind == "close all" else algo, 0)
    elif kind in ("LIMIT", "take profit", "IOC"):
        limit = replace(new, type="LIMIT", price=price, time_in_force="IOC" if kind == "IOC" else "GTC")
        engine.place(replace(limit, reduce_only=kind == "take profit" and not engine.hedge_mode), 0)
    elif kind in ("MARKET", "close"):
        engine.place(replace(new, reduce_only=kind == "close" and not engine.hedge_mode), 0)


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(ACTIONS, min_size=15, max_size=50), st.booleans(), st.booleans())
def test_whatever_happens_positions_and_money_add_up(
    actions: list[tuple[str, str, Decimal, Decimal, str]], hedge: bool, isolated: bool
) -> None:
    engine = FuturesEngine(load("binance_futures_symbols.json")["symbols"])
    desk = AlgoDesk(engine)
    engine.wallets["USDT"], engine.hedge_mode, engine.market("BTCUSDT").isolated = Decimal(3_000), hedge, isolated
    engine.set_price("BTCUSDT", Decimal(10_000), Decimal(0), 0)
    for number, action in enumerate(actions):
        with contextlib.suppress(ApiError):
            act(desk, f"n{number}", *action)
        for side in ("BOTH", "LONG", "SHORT"):
            mine = [trade for trade in engine.trades if trade.position_side == side]
            traded = sum((trade.quantity * (1 if trade.side == "BUY" else -1) for trade in mine), Decimal(0))
            assert engine.position("BTCUSDT", side).amount == traded
        assert engine.position("BTCUSDT", "LONG").amount >= 0 >= engine.position("BTCUSDT", "SHORT").amount
        earned = sum((trade.realized_pnl - trade.commission for trade in engine.trades), Decimal(0))
        assert abs(engine.wallet("USDT") - 3_000 - earned) < Decimal("0.0000001")
        for order in engine.open_orders():
            if order.reduces:
                assert order.remaining <= abs(engine.position("BTCUSDT", order.position_side).amount)
        for algo in desk.algos.values():
            assert (algo.status in ("TRIGGERED", "FINISHED")) == bool(algo.order_id)
            if algo.close_position and algo.status == "NEW":
                assert engine.position("BTCUSDT", algo.position_side).amount


def test_the_whole_state_is_json(client: Client) -> None:
    client.order(BUY)
    client.algo(STOP)
    everything = json.dumps(client.fake.state())
    assert "signature" not in everything
    assert client.fake.api_key not in everything
