"""The futures client against the fake exchange: which answer means what, what is sent, and how an order stands."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fake_binance import FakeBinance
from fake_futures import OVERLOADS, START_PRICES
from fake_futures_matching import FuturesTrade
from harness import API_KEY, API_SECRET, eventually
from hypothesis import given
from hypothesis import strategies as st

from binance_futures import BinanceFutures
from binance_futures_orders import conditional_parameters, on_grid, order_parameters, rules_in, status_in
from broker import Balance, Broker, BrokerError, Done, Found, NoAnswer, NotFound, Refused, Unknown, UnknownSymbol
from intents import new_id
from models import (
    PROTECTIVE,
    ZERO,
    Account,
    Fee,
    HeldThere,
    Market,
    Order,
    OrderStatus,
    OrderType,
    RestsThere,
    Side,
    SymbolRules,
)

D = Decimal
S = OrderStatus
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DATA = Path(__file__).parent / "data"
CODES = sorted(map(int, json.loads((DATA / "binance_futures_errors.json").read_text("utf-8"))["codes"]), reverse=True)
SYMBOLS = {row["symbol"]: row for row in json.loads((DATA / "binance_futures_symbols.json").read_text())["symbols"]}
RULES = rules_in(SYMBOLS["BTCUSDT"])
ORDER = "POST /fapi/v1/order"
ALGO = "POST /fapi/v1/algoOrder"
STOP, PROFIT, TRAIL = OrderType.STOP, OrderType.TAKE_PROFIT, OrderType.TRAILING_STOP


def a_client(exchange: FakeBinance, seconds: float = 3.0, **choices: Any) -> BinanceFutures:
    """A client of the fake that waits so long for an answer."""
    client = BinanceFutures("BINANCE", API_KEY, API_SECRET, testnet=True, api_url=exchange.fapi_url, **choices)
    client._client._requests_params["timeout"] = (1, seconds)
    return client


@pytest.fixture
def client(exchange: FakeBinance) -> BinanceFutures:
    """BTCUSDT is at 60000, 10000 USDT are in the account."""
    return a_client(exchange)


@pytest.fixture(scope="module")
def refusing() -> Iterator[FakeBinance]:
    """One exchange for the many cases in which no order comes of it."""
    with FakeBinance(API_KEY, API_SECRET, engine_seconds=0) as fake:
        fake.futures.set_options(weight_limit=10**9)
        yield fake


def an_order(**changes: Any) -> Order:
    """A market buy of 0.01 BTC with leverage 5, which opens a long position."""
    order = Order(
        new_id("gh", NOW), "s1", "BINANCE", Market.FUTURES, "BTCUSDT", Side.BUY, OrderType.MARKET, True, RULES, NOW,
        NOW, quantity=D("0.01"), leverage=D(5),
    )  # fmt: skip
    return replace(order, **changes)


def a_limit(price: str, **changes: Any) -> Order:
    return an_order(type=OrderType.LIMIT, price=D(price), **changes)


def an_exit(**changes: Any) -> Order:
    """A market sale that closes 0.01 BTC of a long position."""
    return an_order(**{"side": Side.SELL, "is_entry": False} | changes)


def a_guard(kind: OrderType, price: str | None = None, **changes: Any) -> Order:
    """Protection of all of a long position; a trailing stop follows at 1 % with 0.01 BTC."""
    defaults: dict[str, Any] = {"type": kind, "quantity": None, "stop_price": D(price) if price else None}
    if kind is TRAIL:
        defaults |= {"quantity": D("0.01"), "trailing_percent": D(1)}
    return an_exit(**defaults | changes)


def placed(broker: Broker, order: Order) -> Done:
    outcome = broker.place(order)
    assert isinstance(outcome, Done), outcome
    return outcome


def found(broker: Broker, order: Order) -> Found:
    answer = broker.look_up(order)
    assert isinstance(answer, Found), answer
    return answer


def refused(outcome: object) -> Refused:
    assert isinstance(outcome, Refused), outcome
    return outcome


def sent(exchange: FakeBinance, endpoint: str) -> dict[str, str]:
    """The parameters of the one request to it, without those that all have."""
    (call,) = exchange.calls(endpoint)
    return {name: value for name, value in call.params.items() if name not in ("timestamp", "recvWindow")}


def show_no_secret(*values: object) -> None:
    text = " ".join(f"{value!r} {value}" for value in values)
    for secret in (API_KEY, API_SECRET, "signature="):
        assert secret not in text


def way_in_or_guard(where: str) -> Order:
    """An order that goes to this endpoint, and of which nothing has to be held."""
    return an_order() if where == ORDER else a_guard(STOP, "57000", quantity=D("0.01"))


# --- endings: what each answer means ------------------------------------------------------------------------------

NEVER_LEFT = {-1003, -1015, -1021, -5028}
REFUSED = {
    -1002, -1014, -1016, -1020, -1022, -1100, -1101, -1102, -1103, -1104, -1105, -1106, -1108, -1111, -1112, -1114,
    -1115, -1116, -1117, -1118, -1119, -1121, -1128, -1130, -1136, -2007, -2010, -2014, -2015, -2016, -2017, -2018,
    -2019, -2020, -2021, -2022, -2023, -2024, -2025, -2026, -2027, -2028, -4001, -4002, -4003, -4004, -4005, -4006,
    -4007, -4013, -4014, -4015, -4016, -4020, -4023, -4024, -4031, -4045, -4060, -4062, -4087, -4088, -4105, -4106,
    -4107, -4109, -4118, -4120, -4130, -4131, -4135, -4137, -4138, -4139, -4140, -4141, -4142, -4144, -4164, -4183,
    -4184, -4189, -4192, -4210, -4211, -4400, -4401, -4402, -4509, -5021, -5022, -5037, -5038, -5039, -5040, -5041,
}  # fmt: skip


def test_the_codes_that_are_judged_exist() -> None:
    assert set(CODES) >= NEVER_LEFT | REFUSED | {-4061, -4116}
    assert len(CODES) > 200


@pytest.mark.parametrize("code", [code for code in CODES if code not in (-4061, -4509)])
def test_only_listed_codes_are_refusals_and_all_others_are_unknown(refusing: FakeBinance, code: int) -> None:
    client = a_client(refusing)
    client.prepare("BTCUSDT", D(5))
    refusing.clear_log()
    refusing.fail_next("error", where=ORDER, code=code, status=400)
    outcome = client.place(an_order())
    if code in NEVER_LEFT | REFUSED:
        assert (refused(outcome).never_left, refused(outcome).code) == (code in NEVER_LEFT, str(code))
    else:
        assert isinstance(outcome, Unknown)
    assert len(refusing.calls(ORDER)) == 1
    show_no_secret(outcome)


@pytest.mark.parametrize("where", [ORDER, ALGO])
@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("code", [-1000, -1003, -1007, -1008, -1021, -2019, -2022, -4061])
def test_whatever_the_code_a_5xx_is_unknown(refusing: FakeBinance, code: int, status: int, where: str) -> None:
    refusing.fail_next("error", where=where, code=code, status=status)
    assert isinstance(a_client(refusing).place(way_in_or_guard(where)), Unknown)


@pytest.mark.parametrize("where", [ORDER, ALGO])
@pytest.mark.parametrize("meaning", sorted(set(OVERLOADS) - {"unknown"}))
def test_a_503_that_promises_that_nothing_was_placed_may_be_sent_again(
    exchange: FakeBinance, client: BinanceFutures, meaning: str, where: str
) -> None:
    exchange.overload(meaning, where)
    order = way_in_or_guard(where)
    outcome = refused(client.place(order))
    assert (outcome.never_left, outcome.code) == (True, str(OVERLOADS[meaning][0]))
    assert client.look_up(order) == NotFound()
    placed(client, order)


@pytest.mark.parametrize("where", [ORDER, ALGO])
@pytest.mark.parametrize("executed", [True, False], ids=["executed", "not executed"])
def test_the_503_that_does_not_know_is_unknown_and_the_look_up_tells(
    exchange: FakeBinance, client: BinanceFutures, executed: bool, where: str
) -> None:
    exchange.overload("unknown", where, executed=executed)
    order = way_in_or_guard(where)
    assert isinstance(client.place(order), Unknown)
    assert isinstance(client.look_up(order), Found if executed else NotFound)


@pytest.mark.parametrize(
    "fault",
    [{"kind": "error", "code": -1000, "message": "Service Unavailable."}, {"kind": "error", "code": -1008}],
    ids=str,
)
@pytest.mark.parametrize("status", [500, 502, 504])
def test_the_same_words_with_another_status_promise_nothing(
    refusing: FakeBinance, fault: dict[str, Any], status: int
) -> None:
    refusing.fail_next(where=ORDER, status=status, **fault)
    assert isinstance(a_client(refusing).place(an_order()), Unknown)


def test_a_page_that_says_service_unavailable_is_not_binances_word(refusing: FakeBinance) -> None:
    refusing.fail_next("status", where=ORDER, status=503, html=True)
    assert isinstance(a_client(refusing).place(an_order()), Unknown)
    refusing.fail_next("status", where=ORDER, status=503, body="Service Unavailable.")
    assert isinstance(a_client(refusing).place(an_order()), Unknown)


LOST: list[dict[str, Any]] = [
    {"kind": "stall"},
    {"kind": "reset"},
    {"kind": "close"},
    {"kind": "half_header"},
    {"kind": "half_body"},
    {"kind": "half_body", "then": "stall"},
    {"kind": "garbage"},
    {"kind": "garbage", "body": ""},
    {"kind": "garbage", "body": "[]"},
    {"kind": "garbage", "body": "null"},
    {"kind": "garbage", "body": "{}"},
    {"kind": "garbage", "body": '"FILLED"'},
    {"kind": "garbage", "body": '{"code":-2019,"msg":"Margin is insufficient."}'},
    {"kind": "truncated"},
    {"kind": "other_symbol"},
    {"kind": "status", "status": 502, "html": True},
    {"kind": "status", "status": 503, "body": "[]"},
    {"kind": "status", "status": 403, "html": True},
    {"kind": "status", "status": 400, "body": ""},
    {"kind": "status", "status": 408, "html": True},
    {"kind": "status", "status": 302, "body": ""},
    {"kind": "error", "code": -1006},
    {"kind": "error", "code": -1007},
    {"kind": "error", "code": -4116},
]


@pytest.mark.parametrize("where", [ORDER, ALGO])
@pytest.mark.parametrize("executed", [True, False], ids=["executed", "not executed"])
@pytest.mark.parametrize("fault", LOST, ids=lambda fault: " ".join(map(str, fault.values())) or "empty")
def test_an_answer_that_says_nothing_is_unknown_and_the_look_up_tells(
    exchange: FakeBinance, fault: dict[str, Any], executed: bool, where: str
) -> None:
    client, order = a_client(exchange, 0.3), way_in_or_guard(where)
    exchange.fail_next(where=where, executed=executed, **fault)
    outcome = client.place(order)
    assert isinstance(outcome, Unknown), outcome
    show_no_secret(outcome)
    posts = exchange.futures_posts_by_client_id if where == ORDER else exchange.algo_posts_by_client_id
    assert posts == {order.client_order_id: 1}
    answer = client.look_up(order)
    if executed:
        assert isinstance(answer, Found)
        assert answer.execution.status is (S.FILLED if where == ORDER else S.NEW)
    else:
        assert answer == NotFound()


REPLY = {"symbol": "BTCUSDT", "orderId": 1, "clientOrderId": "?", "status": "NEW", "executedQty": "0.000"}


@pytest.mark.parametrize(
    "wrong",
    [{"clientOrderId": "another"}, {"symbol": "ETHUSDT"}, {"status": "DONE"}, {"status": None}, {"executedQty": "NaN"},
     {"executedQty": "-1"}, {"executedQty": None}, {"executedQty": "x"}, {"orderId": None}],
    ids=str,
)  # fmt: skip
def test_a_reply_that_is_not_a_plain_account_of_this_order_is_unknown(
    refusing: FakeBinance, wrong: dict[str, Any]
) -> None:
    order, client = a_limit("59000"), a_client(refusing)
    right = REPLY | {"clientOrderId": order.client_order_id}
    refusing.fail_next("garbage", where=ORDER, body=json.dumps(right))
    assert isinstance(client.place(order), Done)
    refusing.fail_next("garbage", where=ORDER, body=json.dumps(right | wrong))
    assert isinstance(client.place(order), Unknown)


def test_an_order_that_has_traded_is_no_new_one() -> None:
    assert status_in(REPLY | {"executedQty": "0.004"}) is S.PARTIALLY_FILLED


@pytest.mark.parametrize("wrong", [{"clientAlgoId": "another"}, {"symbol": "ETHUSDT"}, {"algoId": None}], ids=str)
def test_so_is_one_about_another_conditional_order(refusing: FakeBinance, wrong: dict[str, Any]) -> None:
    order, client = a_guard(STOP, "57000"), a_client(refusing)
    right = {"symbol": "BTCUSDT", "clientAlgoId": order.client_order_id, "algoId": 7}
    refusing.fail_next("garbage", where=ALGO, body=json.dumps(right))
    assert placed(client, order).execution.exchange_order_id == "algo-7"
    refusing.fail_next("garbage", where=ALGO, body=json.dumps(right | wrong))
    assert isinstance(client.place(order), Unknown)


def test_a_market_order_that_is_said_to_wait_is_looked_up(refusing: FakeBinance) -> None:
    order = an_order()
    refusing.fail_next("garbage", where=ORDER, body=json.dumps(REPLY | {"clientOrderId": order.client_order_id}))
    assert isinstance(a_client(refusing).place(order), Unknown)


def test_without_a_connection_nothing_has_left(exchange: FakeBinance, client: BinanceFutures) -> None:
    client.prepare("BTCUSDT", D(5))
    for known in (True, False):
        exchange.go_offline()
        for order in (an_order(), an_exit(), a_guard(STOP, "57000")):
            assert refused((client if known else a_client(exchange)).place(order)).never_left
        exchange.come_online()
    assert exchange.futures.orders == []
    placed(client, an_order())


def test_a_connection_that_dies_unread_may_have_carried_the_order(
    exchange: FakeBinance, client: BinanceFutures
) -> None:
    client.connect()
    client.prepare("BTCUSDT", D(5))
    exchange.fail_next("reset_unread", where="*")
    assert isinstance(client.place(an_order()), Unknown)


@pytest.mark.parametrize("status", [429, 418])
def test_who_asks_to_be_left_alone_is_left_alone(exchange: FakeBinance, client: BinanceFutures, status: int) -> None:
    client.prepare("BTCUSDT", D(5))
    exchange.fail_next("ban", where=ORDER, status=status, retry_after=1)
    outcome = refused(client.place(an_order()))
    assert (outcome.never_left, outcome.retry_after_seconds) == (True, 1)
    exchange.clear_log()
    again = refused(client.place(an_order()))
    assert again.never_left
    assert again.retry_after_seconds is not None
    assert 0 < again.retry_after_seconds <= 1
    assert isinstance(client.look_up(an_order()), NoAnswer)
    assert exchange.requests == []
    eventually(lambda: isinstance(client.place(an_order()), Done), 3, lambda: "the pause does not end")


@pytest.mark.parametrize("code", [-1021, -5028])
def test_a_wrong_clock_is_measured_anew_and_the_next_try_is_right(
    exchange: FakeBinance, client: BinanceFutures, code: int
) -> None:
    client.connect()
    client.prepare("BTCUSDT", D(5))
    real = exchange.clock
    exchange.clock = lambda: real() + 60.0
    exchange.fail_next("error", where=ORDER, code=code, status=400)
    outcome = refused(client.place(an_order()))
    assert (outcome.never_left, outcome.code, outcome.retry_after_seconds) == (True, str(code), 0)
    assert abs(client._client.timestamp_offset - 60_000) < 1_000
    placed(client, an_order())


def test_each_market_has_a_clock_of_its_own(exchange: FakeBinance, client: BinanceFutures) -> None:
    client.connect()
    client.keep_warm()
    assert len(exchange.calls("GET /fapi/v1/time")) == 2
    assert exchange.calls("GET /api/v3/time") == []


def test_an_exit_that_finds_nothing_to_close_says_where_to_look(client: BinanceFutures) -> None:
    outcome = refused(client.place(an_exit()))
    assert (outcome.never_left, outcome.code) == (False, "-2022")
    assert "look at the position" in outcome.reason


def test_an_order_beyond_the_margin_is_refused_and_certainly_not_placed(client: BinanceFutures) -> None:
    order = an_order(quantity=D(2))
    assert refused(client.place(order)) == Refused("BINANCE refused: Margin is insufficient. (-2019)", "-2019")
    assert client.look_up(order) == NotFound()


# --- what is sent -------------------------------------------------------------------------------------------------


def test_what_an_entry_sends(exchange: FakeBinance, client: BinanceFutures) -> None:
    order = an_order(quantity=D("1.0E-2"))
    placed(client, order)
    assert sent(exchange, ORDER) == {
        "symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01",
        "newClientOrderId": order.client_order_id, "newOrderRespType": "RESULT",
    }  # fmt: skip
    assert exchange.calls(ORDER)[0].params["recvWindow"] == "3000"


def test_an_exit_only_reduces(exchange: FakeBinance, client: BinanceFutures) -> None:
    placed(client, an_order())
    placed(client, an_exit(quantity=D("0.05")))
    assert exchange.calls(ORDER)[1].params["reduceOnly"] == "true"
    assert exchange.futures.positions == []


def test_in_hedge_mode_the_side_of_the_position_says_it(exchange: FakeBinance, client: BinanceFutures) -> None:
    exchange.futures.set_options(hedge_mode=True)
    placed(client, an_order())
    placed(client, an_order(side=Side.SELL))
    assert client.positions() == [
        HeldThere("BTCUSDT", "LONG", D("0.01"), D(60000)),
        HeldThere("BTCUSDT", "SHORT", D("0.01"), D(60000)),
    ]
    placed(client, an_exit())
    placed(client, an_exit(side=Side.BUY, quantity=D("0.004")))
    assert client.positions() == [HeldThere("BTCUSDT", "SHORT", D("0.006"), D(60000))]
    sides = [(call.params["side"], call.params["positionSide"]) for call in exchange.calls(ORDER)]
    assert sides == [("BUY", "LONG"), ("SELL", "SHORT"), ("SELL", "LONG"), ("BUY", "SHORT")]
    assert not any("reduceOnly" in call.params for call in exchange.calls(ORDER))


def test_what_a_limit_order_sends(exchange: FakeBinance, client: BinanceFutures) -> None:
    execution = placed(client, a_limit("59000.50")).execution
    assert (execution.status, execution.executed_quantity) == (S.NEW, ZERO)
    wanted = {"type": "LIMIT", "price": "59000.5", "timeInForce": "GTC", "quantity": "0.01"}
    assert wanted.items() <= sent(exchange, ORDER).items()
    placed(client, a_limit("59000", time_in_force="GTX"))
    assert exchange.calls(ORDER)[1].params["timeInForce"] == "GTX"


def test_what_protection_sends(exchange: FakeBinance, client: BinanceFutures) -> None:
    placed(client, an_order())
    stop = a_guard(STOP, "57000.50")
    placed(client, stop)
    common = {"algoType": "CONDITIONAL", "symbol": "BTCUSDT", "side": "SELL", "workingType": "MARK_PRICE"}
    assert sent(exchange, ALGO) == common | {
        "type": "STOP_MARKET", "triggerPrice": "57000.5", "closePosition": "true", "clientAlgoId": stop.client_order_id,
    }  # fmt: skip
    exchange.clear_log()
    profit = a_guard(PROFIT, "63000", quantity=D("0.005"))
    placed(client, profit)
    assert sent(exchange, ALGO) == common | {
        "type": "TAKE_PROFIT_MARKET", "triggerPrice": "63000", "quantity": "0.005", "reduceOnly": "true",
        "clientAlgoId": profit.client_order_id,
    }  # fmt: skip
    exchange.clear_log()
    trailing = a_guard(TRAIL, trailing_percent=D("1.27"))
    placed(client, trailing)
    assert sent(exchange, ALGO) == common | {
        "type": "TRAILING_STOP_MARKET", "callbackRate": "1.2", "quantity": "0.01", "reduceOnly": "true",
        "clientAlgoId": trailing.client_order_id,
    }  # fmt: skip


def test_what_protection_sends_in_hedge_mode(exchange: FakeBinance, client: BinanceFutures) -> None:
    exchange.futures.set_options(hedge_mode=True)
    placed(client, an_order(side=Side.SELL))
    for guard in (
        a_guard(STOP, "63000", side=Side.BUY),
        a_guard(PROFIT, "57000", side=Side.BUY, quantity=D("0.01")),
        a_guard(TRAIL, side=Side.BUY),
    ):
        placed(client, guard)
    assert [call.params["positionSide"] for call in exchange.calls(ALGO)] == ["SHORT"] * 3
    assert not any("reduceOnly" in call.params for call in exchange.calls(ALGO))


@pytest.mark.parametrize("percent", ["0.1", "20"])
def test_a_trailing_stop_may_be_so_near_or_far(client: BinanceFutures, percent: str) -> None:
    placed(client, an_order())
    placed(client, a_guard(TRAIL, trailing_percent=D(percent)))


@pytest.mark.parametrize("percent", ["0.09", "20.1"])
def test_and_not_nearer_or_farther(client: BinanceFutures, percent: str) -> None:
    placed(client, an_order())
    assert refused(client.place(a_guard(TRAIL, trailing_percent=D(percent)))).code == "-2007"


@pytest.mark.parametrize(
    "order",
    [an_order(quantity=None, amount=D(600)), a_guard(STOP), a_guard(TRAIL, trailing_percent=None),
     a_guard(TRAIL, quantity=None), an_order(type=OrderType.LIMIT), an_order(type=OrderType.STOP_LIMIT),
     a_guard(STOP, "63000", is_entry=True, side=Side.BUY), an_order(leverage=D("2.5")), an_order(leverage=ZERO)],
    ids=["amount", "stop without a price", "trailing stop without a distance", "trailing stop without a quantity",
         "limit without a price", "stop limit", "entry without a quantity", "half leverage", "no leverage"],
)  # fmt: skip
def test_an_order_that_futures_do_not_have_is_not_sent(
    exchange: FakeBinance, client: BinanceFutures, order: Order
) -> None:
    outcome = refused(client.place(order))
    assert (outcome.never_left, outcome.reason.startswith("not sent to BINANCE: ")) == (False, True)
    assert exchange.calls(ORDER) == exchange.calls(ALGO) == []


@given(st.decimals("1E-18", "1E15", places=18), st.sampled_from(["quantity", "price"]))
def test_numbers_leave_as_plain_decimals_that_lose_nothing(value: Decimal, field: str) -> None:
    rules = replace(RULES, price_tick=ZERO)
    order = an_order(**{"type": OrderType.LIMIT, "price": D(1), "rules": rules} | {field: value})
    text = order_parameters(order, hedge_mode=False)[field]
    assert "E" not in text
    assert D(text) == value


@given(
    st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(["0.1", "0.01", "0.5", "3"]), st.sampled_from(Side)
)
def test_a_price_is_put_on_the_grid_that_starts_at_the_smallest_price(
    cents: int, least: int, tick: str, side: Side
) -> None:
    rules = replace(RULES, min_price=D(least) / 100, price_tick=D(tick))
    price = rules.min_price + D(cents) / 100
    fitted = on_grid(price, side, rules)
    assert (fitted - rules.min_price) % rules.price_tick == 0
    assert 0 <= (price - fitted if side is Side.BUY else fitted - price) < rules.price_tick
    assert on_grid(rules.min_price - 1, side, rules) == rules.min_price - 1, "that is for Binance to refuse"


def test_an_odd_smallest_price_does_not_keep_orders_out(exchange: FakeBinance, client: BinanceFutures) -> None:
    exchange.futures.set_filters("BTCUSDT", PRICE_FILTER={"minPrice": "556.85"})
    rules = client.symbol_rules("BTCUSDT")
    placed(client, an_order(rules=rules))
    placed(client, a_limit("59000", rules=rules))
    placed(client, a_guard(STOP, "57000", rules=rules))
    placed(client, a_guard(PROFIT, "63000", rules=rules))
    assert exchange.calls(ORDER)[1].params["price"] == "58999.95"
    assert [call.params["triggerPrice"] for call in exchange.calls(ALGO)] == ["57000.05", "63000.05"]


def test_secrets_are_in_no_text_the_client_makes(exchange: FakeBinance, client: BinanceFutures) -> None:
    show_no_secret(client)
    texts: list[object] = []
    for kind in ("reset", "garbage", "close"):
        for ask in (client.balances, client.connect, lambda: client.symbol_rules("BTCUSDT"), client.positions):
            exchange.fail_next(kind, where="GET /fapi/*")
            with pytest.raises(BrokerError) as told:
                ask()
            texts.append(told.value)
        exchange.fail_next(kind, where="GET *")
        texts.append(client.look_up(an_order()))
        exchange.fail_next(kind, where="POST *")
        texts.append(client.place(an_order()))
    exchange.go_offline()
    texts += [client.place(an_order()), client.look_up(an_order())]
    show_no_secret(*texts)


# --- leverage and margin ------------------------------------------------------------------------------------------

SETTINGS = ("GET /fapi/v1/symbolConfig", "POST /fapi/v1/marginType", "POST /fapi/v1/leverage")


def settings_asked(exchange: FakeBinance) -> list[int]:
    return [len(exchange.calls(endpoint)) for endpoint in SETTINGS]


def test_leverage_and_margin_are_set_once_before_the_first_entry(exchange: FakeBinance, client: BinanceFutures) -> None:
    client.prepare("BTCUSDT", D(5))
    assert settings_asked(exchange) == [1, 1, 1]
    market = exchange.futures.engine.market("BTCUSDT")
    assert (market.leverage, market.isolated) == (5, True)
    client.prepare("BTCUSDT", D(5))
    placed(client, an_order())
    assert settings_asked(exchange) == [1, 1, 1]
    placed(client, an_order(leverage=D(7)))
    assert settings_asked(exchange) == [1, 1, 2]
    assert exchange.futures.engine.market("BTCUSDT").leverage == 7


@pytest.mark.parametrize("order", [an_order(), a_limit("59000")], ids=["a position", "an order"])
def test_nothing_is_prepared_where_there_is_a_position_or_an_order(
    exchange: FakeBinance, client: BinanceFutures, order: Order
) -> None:
    placed(client, order)
    with pytest.raises(BrokerError, match="has a position or orders there"):
        client.prepare("BTCUSDT", D(7))
    assert exchange.futures.engine.market("BTCUSDT").leverage == 5
    client.prepare("ETHUSDT", D(7))
    assert exchange.futures.engine.market("ETHUSDT").leverage == 7


def test_an_entry_that_was_not_prepared_prepares_itself(exchange: FakeBinance, client: BinanceFutures) -> None:
    placed(client, an_order())
    assert settings_asked(exchange) == [1, 1, 1]
    assert exchange.futures.engine.market("BTCUSDT").leverage == 5
    assert exchange.futures.wallet() - exchange.futures.available() == 120, "isolated, a fifth of 600"


def test_what_is_right_already_is_not_set(exchange: FakeBinance) -> None:
    client = a_client(exchange, margin_type="CROSSED")
    client.prepare("BTCUSDT", D(20))
    assert settings_asked(exchange) == [1, 0, 0]


def test_an_entry_whose_preparation_takes_too_long_is_not_sent_any_more(
    exchange: FakeBinance, client: BinanceFutures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waited for it may have given it up, and have proven that it is not there."""
    monkeypatch.setattr("binance_futures.READY_WITHIN_SECONDS", 0.3, raising=False)
    for where in SETTINGS:
        exchange.fail_next("delay", where=where, seconds=0.15, executed=True)
    assert refused(client.place(an_order())).never_left
    assert not exchange.calls(ORDER)
    assert placed(client, an_order()).execution.status is S.FILLED


def test_a_way_out_needs_no_leverage(exchange: FakeBinance, client: BinanceFutures) -> None:
    placed(client, an_order())
    other = a_client(exchange)
    exchange.clear_log()
    placed(other, an_exit(leverage=D(99)))
    assert settings_asked(exchange) == [0, 0, 0]


def test_a_margin_type_that_is_there_already_is_fine(exchange: FakeBinance, client: BinanceFutures) -> None:
    exchange.fail_next("error", where="POST /fapi/v1/marginType", code=-4046)
    client.prepare("BTCUSDT", D(5))
    assert settings_asked(exchange) == [1, 1, 1]


@pytest.mark.parametrize("code", [-4047, -4048, -4168])
def test_a_margin_type_that_cannot_be_changed_is_told_and_nothing_is_placed(
    exchange: FakeBinance, client: BinanceFutures, code: int
) -> None:
    exchange.fail_next("error", where="POST /fapi/v1/marginType", code=code, times=2)
    with pytest.raises(BrokerError, match=rf"BINANCE cannot trade BTCUSDT with ISOLATED margin.*\({code}\)"):
        client.prepare("BTCUSDT", D(5))
    outcome = refused(client.place(an_order()))
    assert (outcome.never_left, outcome.code) == (False, str(code))
    assert "cannot trade BTCUSDT with ISOLATED margin and leverage 5" in outcome.reason
    assert exchange.calls(ORDER) == []
    placed(client, an_order())


def test_a_position_with_the_other_margin_type_keeps_entries_out(exchange: FakeBinance, client: BinanceFutures) -> None:
    placed(a_client(exchange, margin_type="CROSSED"), an_order())
    outcome = refused(client.place(an_order()))
    assert (outcome.never_left, outcome.code) == (False, "-4048")
    placed(client, an_exit())
    placed(client, an_order())


@pytest.mark.parametrize("leverage", ["126", "1000"])
def test_a_leverage_beyond_what_is_allowed_is_refused(
    exchange: FakeBinance, client: BinanceFutures, leverage: str
) -> None:
    placed(client, an_order(leverage=D(125), quantity=D("0.002")))
    outcome = refused(client.place(an_order(leverage=D(leverage))))
    assert (outcome.never_left, outcome.code) == (False, "-4028")


@pytest.mark.parametrize("where", SETTINGS)
@pytest.mark.parametrize(
    "fault",
    [{"kind": "stall"}, {"kind": "reset"}, {"kind": "garbage"}, {"kind": "status", "status": 502, "html": True},
     {"kind": "error", "code": -1021}, {"kind": "error", "code": -1003, "status": 400},
     {"kind": "error", "code": -1007}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("executed", [True, False], ids=["executed", "not executed"])
def test_trouble_with_the_settings_leaves_nothing_and_the_next_try_reads_them_again(
    exchange: FakeBinance, where: str, fault: dict[str, Any], executed: bool
) -> None:
    client, order = a_client(exchange, 0.3), an_order()
    exchange.fail_next(where=where, executed=executed, **fault)
    assert refused(client.place(order)).never_left
    assert exchange.calls(ORDER) == []
    placed(client, order)
    market = exchange.futures.engine.market("BTCUSDT")
    assert (market.leverage, market.isolated) == (5, True)


def test_a_leverage_whose_change_got_lost_is_not_believed(exchange: FakeBinance) -> None:
    client = a_client(exchange, 0.3)
    client.prepare("BTCUSDT", D(5))
    exchange.fail_next("stall", where=SETTINGS[2], executed=True)
    with pytest.raises(BrokerError):
        client.prepare("BTCUSDT", D(7))
    client.prepare("BTCUSDT", D(5))
    assert exchange.futures.engine.market("BTCUSDT").leverage == 5


def test_connecting_again_forgets_what_was_set(exchange: FakeBinance, client: BinanceFutures) -> None:
    client.prepare("BTCUSDT", D(5))
    exchange.futures.engine.set_leverage("BTCUSDT", 50)
    client.connect()
    placed(client, an_order())
    assert exchange.futures.engine.market("BTCUSDT").leverage == 5


# --- one-way and hedge mode ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("hedge_mode", [True, False])
@pytest.mark.parametrize("order", [an_order(), a_guard(STOP, "57000"), an_exit()], ids=["entry", "stop", "exit"])
def test_a_mode_that_was_switched_is_read_again_and_the_next_try_fits_it(
    exchange: FakeBinance, client: BinanceFutures, order: Order, hedge_mode: bool
) -> None:
    exchange.futures.set_options(hedge_mode=not hedge_mode)
    client.connect()
    client.prepare("BTCUSDT", D(5))
    exchange.futures.set_options(hedge_mode=hedge_mode)
    placed(a_client(exchange), an_order())
    outcome = refused(client.place(order))
    assert (outcome.never_left, outcome.retry_after_seconds) == (True, 0)
    assert outcome.code in ("-4061", "-1106")
    placed(client, order)


@pytest.mark.parametrize(
    ("parameter", "is_about_the_mode"),
    [("reduceonly", True), ("reduceOnly", True), ("positionSide", True), ("price", False)],
)
def test_a_parameter_that_only_the_other_mode_has_makes_the_mode_be_read_again(
    exchange: FakeBinance, client: BinanceFutures, parameter: str, is_about_the_mode: bool
) -> None:
    client.connect()
    placed(client, an_order())
    text = f"Parameter '{parameter}' sent when not required."
    exchange.fail_next("error", where=ORDER, code=-1106, message=text)
    outcome = refused(client.place(an_exit()))
    assert outcome.never_left is is_about_the_mode
    assert len(exchange.calls("GET /fapi/v1/positionSide/dual")) == (2 if is_about_the_mode else 1)


def test_a_mode_that_cannot_be_read_is_never_guessed(exchange: FakeBinance, client: BinanceFutures) -> None:
    for body in ("{}", "[]", "null", '{"dualSidePosition":"false"}'):
        exchange.fail_next("garbage", where="GET /fapi/v1/positionSide/dual", body=body)
        assert refused(client.place(an_order())).never_left
        exchange.fail_next("garbage", where="GET /fapi/v1/positionSide/dual", body=body)
        with pytest.raises(BrokerError, match="hedge mode"):
            client.connect()
    assert exchange.calls(ORDER) == []


def test_a_mode_that_could_not_be_read_again_is_read_before_the_next_order(
    exchange: FakeBinance, client: BinanceFutures
) -> None:
    client.connect()
    client.prepare("BTCUSDT", D(5))
    exchange.futures.set_options(hedge_mode=True)
    exchange.fail_next("status", where="GET /fapi/v1/positionSide/dual", status=502)
    assert refused(client.place(an_order())).never_left
    placed(client, an_order())


def test_the_mode_costs_no_question_once_it_is_known(exchange: FakeBinance, client: BinanceFutures) -> None:
    client.connect()
    placed(client, an_order())
    placed(client, an_exit())
    assert len(exchange.calls("GET /fapi/v1/positionSide/dual")) == 1


# --- what was executed --------------------------------------------------------------------------------------------


def test_price_and_fees_come_from_the_trades(exchange: FakeBinance, client: BinanceFutures) -> None:
    exchange.futures.set_book("BTCUSDT", asks=[("60000", "0.004"), ("60001", "0.006")])
    order = an_order()
    execution = placed(client, order).execution
    assert (execution.status, execution.executed_quantity) == (S.FILLED, D("0.01"))
    assert execution.executed_quote == D("600.006")
    assert execution.fees == (Fee("USDT", D("0.300003")),)
    assert found(client, order).execution == execution


def test_fees_in_another_coin_are_told(exchange: FakeBinance, client: BinanceFutures) -> None:
    exchange.futures.set_balance("BNB", 1)
    exchange.futures.set_options(fees_in_bnb=True)
    (fee,) = placed(client, an_order()).execution.fees
    assert (fee.asset, fee.amount > 0) == ("BNB", True)


def test_trades_that_are_listed_late_are_waited_for(exchange: FakeBinance, client: BinanceFutures) -> None:
    exchange.lookup_lag_seconds = 0.3
    assert placed(client, an_order()).execution.executed_quote == 600
    assert len(exchange.calls("GET /fapi/v1/userTrades")) > 1


@pytest.mark.parametrize("body", ["{}", "null", "[1]", "[{}]", '[{"qty":"0.009","quoteQty":"540","commission":"0"}]'])
def test_trades_that_make_no_sense_are_asked_for_again(
    exchange: FakeBinance, client: BinanceFutures, body: str
) -> None:
    exchange.fail_next("garbage", where="GET /fapi/v1/userTrades", body=body)
    assert placed(client, an_order()).execution.executed_quote == 600


def test_without_its_trades_an_order_is_filled_at_an_unknown_price(
    exchange: FakeBinance, client: BinanceFutures
) -> None:
    client.prepare("BTCUSDT", D(5))
    exchange.lookup_lag_seconds = 2
    order, began = an_order(), time.monotonic()
    outcome = client.place(order)
    assert isinstance(outcome, Unknown)
    assert outcome.reason.startswith("filled, but ")
    assert 0.9 < time.monotonic() - began < 1.8
    exchange.lookup_lag_seconds = 0
    assert found(client, order).execution.executed_quote == 600


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 503}, {"kind": "garbage", "body": "[]"}], ids=str)
def test_an_order_whose_trades_are_never_listed_counts_by_its_own_sum_after_a_while(
    exchange: FakeBinance, client: BinanceFutures, fault: dict[str, Any]
) -> None:
    exchange.fail_next(where="GET /fapi/v1/userTrades", times=10**6, **fault)
    order = an_order()
    assert isinstance(client.place(order), Unknown)
    assert isinstance(client.look_up(order), NoAnswer)
    real = exchange.clock
    exchange.clock = lambda: real() + 10
    client.keep_warm()
    execution = found(client, order).execution
    assert (execution.status, execution.executed_quantity, execution.executed_quote) == (S.FILLED, D("0.01"), D(600))
    assert (execution.fees, execution.note) == ((), "its trades are not listed: fees unknown")
    client.place(an_exit(reduce_only=True))
    assert exchange.futures.amount("BTCUSDT") == 0


@pytest.mark.parametrize(
    "fault", [{"kind": "stall"}, {"kind": "error", "code": -1003}, {"kind": "status", "status": 503}], ids=str
)
def test_trades_that_cannot_be_asked_for_are_not_waited_for(exchange: FakeBinance, fault: dict[str, Any]) -> None:
    client, order = a_client(exchange, 0.3), an_order()
    exchange.fail_next(where="GET /fapi/v1/userTrades", **fault)
    outcome = client.place(order)
    assert isinstance(outcome, Unknown)
    assert outcome.reason.startswith("filled, but ")
    assert len(exchange.calls("GET /fapi/v1/userTrades")) == 1
    show_no_secret(outcome)


def test_a_market_order_on_a_thin_book_ends_expired_with_what_it_got(
    exchange: FakeBinance, client: BinanceFutures
) -> None:
    exchange.futures.set_book("BTCUSDT", asks=[("60000", "0.004")])
    order = an_order()
    execution = placed(client, order).execution
    assert (execution.status, execution.executed_quantity) == (S.EXPIRED, D("0.004"))
    assert execution.note == "0.004 executed before it ended"
    assert found(client, order).execution == execution


def test_a_limit_order_rests_fills_in_parts_and_is_cancelled(exchange: FakeBinance, client: BinanceFutures) -> None:
    order = a_limit("59000")
    placed(client, order)
    assert found(client, order).execution.status is S.NEW
    exchange.futures.fill(exchange.futures.orders[0].order_id, "0.004")
    execution = found(client, order).execution
    assert (execution.status, execution.executed_quantity, execution.executed_quote) == (
        S.PARTIALLY_FILLED, D("0.004"), D(236),
    )  # fmt: skip
    for _ in range(2):
        cancelled = client.cancel(order)
        assert isinstance(cancelled, Found)
        assert (cancelled.execution.status, cancelled.execution.executed_quantity) == (S.CANCELED, D("0.004"))
        assert cancelled.execution.executed_quote == 236


def test_a_limit_order_fills_when_the_price_comes(exchange: FakeBinance, client: BinanceFutures) -> None:
    order = a_limit("59000")
    placed(client, order)
    exchange.futures.set_price("BTCUSDT", 58900)
    execution = found(client, order).execution
    assert (execution.status, execution.executed_quote) == (S.FILLED, D(590))
    late = client.cancel(order)
    assert isinstance(late, Found)
    assert late.execution == execution


@pytest.mark.parametrize("body", ["[]", "{}", "null", "5", "[1]", "[{}]"])
def test_an_order_whose_trades_are_not_listed_yet_is_no_answer(
    exchange: FakeBinance, client: BinanceFutures, body: str
) -> None:
    order = an_order()
    placed(client, order)
    exchange.fail_next("garbage", where="GET /fapi/v1/userTrades", body=body)
    assert isinstance(client.look_up(order), NoAnswer)
    assert isinstance(client.look_up(order), Found)


def test_an_old_orders_trades_are_found_too(exchange: FakeBinance, client: BinanceFutures) -> None:
    """Not told when, Binance lists the trades of seven days."""
    order = an_order()
    execution = placed(client, order).execution
    placed(client, an_order())
    real = exchange.clock
    exchange.clock = lambda: real() + 30 * 86_400
    client.keep_warm()
    assert found(client, order).execution == execution


def test_a_slow_orders_trades_are_found_when_only_the_last_ones_are_recent(
    exchange: FakeBinance, client: BinanceFutures
) -> None:
    order, real = a_limit("59000"), exchange.clock
    placed(client, order)
    exchange.futures.fill(exchange.futures.orders[0].order_id, "0.004")
    exchange.clock = lambda: real() + 30 * 86_400
    client.keep_warm()
    exchange.futures.fill(exchange.futures.orders[0].order_id, "0.006")
    execution = found(client, order).execution
    assert (execution.status, execution.executed_quote) == (S.FILLED, D(590))


def test_an_order_of_more_trades_than_are_listed_is_settled_by_the_look_up(
    exchange: FakeBinance, client: BinanceFutures
) -> None:
    asks = [(60000 + D(level) / 10, "0.001") for level in range(1_001)]
    exchange.futures.set_book("BTCUSDT", asks=asks)
    order = an_order(quantity=D("1.001"), leverage=D(50))
    assert isinstance(client.place(order), Unknown)
    assert found(client, order).execution.executed_quote == sum(price for price, _ in asks) / 1000


def test_records_that_lag_say_not_found_first(exchange: FakeBinance, client: BinanceFutures) -> None:
    exchange.lookup_lag_seconds = 0.3
    order = a_limit("59000")
    placed(client, order)
    assert client.look_up(order) == NotFound()
    eventually(lambda: isinstance(client.look_up(order), Found), 3, lambda: "it never appears")


@pytest.mark.parametrize("kind", ["plain", "conditional"])
@pytest.mark.parametrize(
    "fault",
    [{"kind": "stall"}, {"kind": "reset"}, {"kind": "status", "status": 503}, {"kind": "error", "code": -1003},
     {"kind": "error", "code": -1021}, {"kind": "status", "status": 404, "html": True}, {"kind": "garbage"},
     {"kind": "garbage", "body": "[]"}, {"kind": "garbage", "body": "{}"}, {"kind": "other_symbol"}],
    ids=str,
)  # fmt: skip
def test_a_question_that_fails_is_never_taken_for_not_found(
    exchange: FakeBinance, fault: dict[str, Any], kind: str
) -> None:
    exchange.fail_next(where="GET /fapi/v1/*rder", **fault)
    order = an_order() if kind == "plain" else a_guard(STOP, "57000")
    assert isinstance(a_client(exchange, 0.3).look_up(order), NoAnswer)


@pytest.mark.parametrize("wrong", [{"clientOrderId": "another"}, {"symbol": "ETHUSDT"}], ids=str)
def test_a_look_up_that_tells_of_another_order_is_no_answer(refusing: FakeBinance, wrong: dict[str, Any]) -> None:
    order, client = a_limit("59000"), a_client(refusing)
    right = REPLY | {"clientOrderId": order.client_order_id}
    refusing.fail_next("garbage", where="GET /fapi/v1/order", body=json.dumps(right))
    assert isinstance(client.look_up(order), Found)
    refusing.fail_next("garbage", where="GET /fapi/v1/order", body=json.dumps(right | wrong))
    assert isinstance(client.look_up(order), NoAnswer)


@pytest.mark.parametrize("wrong", [{"clientAlgoId": "another"}, {"symbol": "ETHUSDT"}], ids=str)
def test_so_is_one_that_tells_of_another_conditional_order(refusing: FakeBinance, wrong: dict[str, Any]) -> None:
    order, client = a_guard(STOP, "57000"), a_client(refusing)
    right = {"symbol": "BTCUSDT", "clientAlgoId": order.client_order_id, "algoId": 7, "algoStatus": "NEW"}
    refusing.fail_next("garbage", where="GET /fapi/v1/algoOrder", body=json.dumps(right))
    assert isinstance(client.look_up(order), Found)
    refusing.fail_next("garbage", where="GET /fapi/v1/algoOrder", body=json.dumps(right | wrong))
    assert isinstance(client.look_up(order), NoAnswer)


@pytest.mark.parametrize("executed", [True, False])
def test_a_cancel_whose_answer_is_lost_still_learns_how_it_stands(exchange: FakeBinance, executed: bool) -> None:
    client, order, guard = a_client(exchange, 0.3), a_limit("59000"), a_guard(STOP, "57000", quantity=D("0.01"))
    for each, path in ((order, "order"), (guard, "algoOrder")):
        placed(client, each)
        exchange.fail_next("stall", where=f"DELETE /fapi/v1/{path}", executed=executed)
        answer = client.cancel(each)
        assert isinstance(answer, Found)
        assert answer.execution.status is (S.CANCELED if executed else S.NEW)


def test_an_order_that_was_never_sent_is_not_found(client: BinanceFutures) -> None:
    for order in (an_order(), a_guard(STOP, "57000")):
        assert client.look_up(order) == NotFound()
        assert client.cancel(order) == NotFound()


# --- protection ---------------------------------------------------------------------------------------------------


def test_protection_is_placed_stop_first_and_told_in_the_order_asked_for(
    exchange: FakeBinance, client: BinanceFutures
) -> None:
    placed(client, an_order())
    orders = [a_guard(PROFIT, "63000"), a_guard(TRAIL), a_guard(STOP, "57000")]
    outcomes = client.protect(orders)
    assert [call.params["type"] for call in exchange.calls(ALGO)] == [
        "STOP_MARKET", "TRAILING_STOP_MARKET", "TAKE_PROFIT_MARKET",
    ]  # fmt: skip
    ids = {algo.client_id: f"algo-{algo.algo_id}" for algo in exchange.futures.algos}
    for order, outcome in zip(orders, outcomes, strict=True):
        assert isinstance(outcome, Done)
        assert (outcome.execution.status, outcome.execution.exchange_order_id) == (S.NEW, ids[order.client_order_id])
        assert found(client, order).execution == outcome.execution


def test_after_a_refused_stop_nothing_else_is_sent(exchange: FakeBinance, client: BinanceFutures) -> None:
    placed(client, an_order())
    profit, stop = client.protect([a_guard(PROFIT, "63000"), a_guard(STOP, "61000")])
    assert refused(stop) == Refused("BINANCE refused: Order would immediately trigger. (-2021)", "-2021")
    assert refused(profit).never_left
    assert refused(profit).reason.startswith("not sent, because BINANCE refused: Order would immediately trigger.")
    assert len(exchange.calls(ALGO)) == 1


def test_a_stop_whose_answer_is_lost_does_not_keep_the_take_profit_back(exchange: FakeBinance) -> None:
    client = a_client(exchange, 0.3)
    placed(client, an_order())
    exchange.fail_next("stall", where=ALGO, executed=True)
    stop, profit = client.protect([a_guard(STOP, "57000"), a_guard(PROFIT, "63000")])
    assert isinstance(stop, Unknown)
    assert isinstance(profit, Done)


def test_a_refused_take_profit_leaves_the_stop(exchange: FakeBinance, client: BinanceFutures) -> None:
    placed(client, an_order())
    stop, profit = client.protect([a_guard(STOP, "57000"), a_guard(PROFIT, "59000")])
    assert isinstance(stop, Done)
    assert refused(profit).code == "-2021"


def test_a_position_that_is_not_known_yet_is_waited_for(exchange: FakeBinance, client: BinanceFutures) -> None:
    exchange.futures.set_options(position_lag_seconds=0.5)
    placed(client, an_order())
    stop = a_guard(STOP, "57000")
    placed(client, stop)
    assert len(exchange.calls(ALGO)) > 1
    assert exchange.futures.algos_by_client_id == {stop.client_order_id: 1}


def test_a_position_that_is_not_there_is_not_waited_for_long(exchange: FakeBinance, client: BinanceFutures) -> None:
    began = time.monotonic()
    assert refused(client.place(a_guard(STOP, "57000"))).code == "-4509"
    assert 1.4 < time.monotonic() - began < 2.2


def test_a_second_stop_for_all_is_refused(exchange: FakeBinance, client: BinanceFutures) -> None:
    placed(client, an_order())
    placed(client, a_guard(STOP, "57000"))
    assert refused(client.place(a_guard(STOP, "58000"))).code == "-4130"
    assert len(exchange.calls(ALGO)) == 2


def test_a_triggered_stop_is_told_as_the_order_it_became(exchange: FakeBinance, client: BinanceFutures) -> None:
    placed(client, an_order())
    stop, profit = a_guard(STOP, "57000"), a_guard(PROFIT, "63000")
    client.protect([stop, profit])
    exchange.futures.set_price("BTCUSDT", 56990)
    execution = found(client, stop).execution
    assert (execution.status, execution.executed_quantity, execution.executed_quote) == (
        S.FILLED, D("0.01"), D("569.9"),
    )  # fmt: skip
    assert execution.exchange_order_id == str(exchange.futures.orders[-1].order_id)
    assert execution.fees == (Fee("USDT", D("0.28495")),)
    gone = found(client, profit).execution
    assert (gone.status, gone.executed_quantity, "position" in gone.note) == (S.EXPIRED, ZERO, True)
    late = client.cancel(stop)
    assert isinstance(late, Found)
    assert late.execution == execution


@pytest.mark.parametrize("keeps_id", [True, False])
def test_the_real_order_is_found_by_its_number_whatever_its_name(
    exchange: FakeBinance, client: BinanceFutures, keeps_id: bool
) -> None:
    exchange.futures.set_options(child_keeps_id=keeps_id)
    placed(client, an_order())
    trailing = a_guard(TRAIL)
    placed(client, trailing)
    exchange.futures.set_price("BTCUSDT", 62000)
    exchange.futures.set_price("BTCUSDT", 61300)
    execution = found(client, trailing).execution
    assert (execution.status, execution.executed_quote) == (S.FILLED, D(613))


def test_a_stop_on_its_way_is_still_waiting(exchange: FakeBinance, client: BinanceFutures) -> None:
    placed(client, an_order())
    stop = a_guard(STOP, "57000")
    placed(client, stop)
    exchange.futures.set_options(hold_triggers=True)
    exchange.futures.set_price("BTCUSDT", 56000)
    for answer in (client.look_up(stop), client.cancel(stop)):
        assert isinstance(answer, Found)
        assert answer.execution.status is S.NEW
    exchange.futures.set_options(hold_triggers=False)
    assert found(client, stop).execution.status is S.FILLED


def test_a_stop_with_a_quantity_that_finds_nothing_to_close_is_rejected(
    exchange: FakeBinance, client: BinanceFutures
) -> None:
    stop = a_guard(STOP, "57000", quantity=D("0.01"))
    placed(client, stop)
    exchange.futures.set_price("BTCUSDT", 56000)
    execution = found(client, stop).execution
    assert (execution.status, execution.executed_quantity) == (S.REJECTED, ZERO)
    assert "nothing was left to close" in execution.note


def test_a_triggered_stop_whose_order_is_not_in_the_records_yet_is_no_answer(
    exchange: FakeBinance, client: BinanceFutures
) -> None:
    placed(client, an_order())
    stop = a_guard(STOP, "57000")
    placed(client, stop)
    exchange.futures.set_price("BTCUSDT", 56000)
    exchange.fail_next("error", where="GET /fapi/v1/order", code=-2013)
    assert isinstance(client.look_up(stop), NoAnswer)
    for another in ({"orderId": 7}, {"symbol": "ETHUSDT", "orderId": exchange.futures.orders[-1].order_id}):
        exchange.fail_next("garbage", where="GET /fapi/v1/order", body=json.dumps(REPLY | another))
        assert isinstance(client.look_up(stop), NoAnswer)
    exchange.fail_next("garbage", where="GET /fapi/v1/userTrades", body="[]")
    assert isinstance(client.look_up(stop), NoAnswer)
    assert found(client, stop).execution.status is S.FILLED


@pytest.mark.parametrize("status", ["TRIGGERED", "FINISHED", "SOMETHING", None])
@pytest.mark.parametrize("number", ["", "0", None])
def test_a_state_without_an_order_is_no_answer(refusing: FakeBinance, status: str | None, number: str | None) -> None:
    order = a_guard(STOP, "57000")
    body = {"symbol": "BTCUSDT", "clientAlgoId": order.client_order_id, "algoId": 7, "algoStatus": status,
            "actualOrderId": number}  # fmt: skip
    refusing.fail_next("garbage", where="GET /fapi/v1/algoOrder", body=json.dumps(body))
    assert isinstance(a_client(refusing).look_up(order), NoAnswer)


@pytest.mark.parametrize("number", ["", "0", 0, None])
@pytest.mark.parametrize("status", ["NEW", "TRIGGERING"])
def test_whichever_way_it_says_that_there_is_no_order_yet_it_waits(
    refusing: FakeBinance, status: str, number: object
) -> None:
    order = a_guard(STOP, "57000")
    body = {"symbol": "BTCUSDT", "clientAlgoId": order.client_order_id, "algoId": 7, "algoStatus": status,
            "actualOrderId": number}  # fmt: skip
    refusing.fail_next("garbage", where="GET /fapi/v1/algoOrder", body=json.dumps(body))
    assert found(a_client(refusing), order).execution.status is S.NEW


def test_a_cancelled_stop_is_believed_although_the_records_lag(exchange: FakeBinance, client: BinanceFutures) -> None:
    placed(client, an_order())
    stop, limit = a_guard(STOP, "57000"), a_limit("59000")
    placed(client, stop)
    placed(client, limit)
    time.sleep(0.02)
    exchange.lookup_lag_seconds = 1
    eventually(lambda: isinstance(client.look_up(limit), Found), 3, lambda: "they are not in the records")
    for order in (stop, limit):
        answer = client.cancel(order)
        assert isinstance(answer, Found)
        assert answer.execution.status is S.CANCELED
        assert found(client, order).execution.status is S.NEW, "the records do lag"


@pytest.mark.parametrize(
    "wrong", [{"clientAlgoId": "another"}, {"code": "400"}, {"code": None}, {"algoId": None}], ids=str
)
def test_a_cancel_that_answers_something_else_is_not_believed(
    exchange: FakeBinance, client: BinanceFutures, wrong: dict[str, Any]
) -> None:
    stop = a_guard(STOP, "57000", quantity=D("0.01"))
    placed(client, stop)
    right = {"algoId": 1, "clientAlgoId": stop.client_order_id, "code": "200", "msg": "success"}
    exchange.fail_next("garbage", where="DELETE /fapi/v1/algoOrder", body=json.dumps(right | wrong))
    answer = client.cancel(stop)
    assert isinstance(answer, Found)
    assert answer.execution.status is S.NEW


# --- rules and prices ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", sorted(SYMBOLS))
def test_rules_are_read_as_the_exchange_publishes_them(refusing: FakeBinance, symbol: str) -> None:
    rules, row = a_client(refusing).symbol_rules(symbol), SYMBOLS[symbol]
    filters = {each["filterType"]: each for each in row["filters"]}

    def numbers(name: str, *names: str) -> tuple[Decimal, ...]:
        return tuple(D(filters[name][each]) for each in names)

    assert (rules.symbol, rules.base_asset, rules.quote_asset) == (symbol, row["baseAsset"], row["quoteAsset"])
    lot = (rules.quantity_step, rules.min_quantity, rules.max_quantity)
    assert lot == numbers("LOT_SIZE", "stepSize", "minQty", "maxQty")
    market_lot = (rules.market_quantity_step, rules.market_min_quantity, rules.market_max_quantity)
    assert market_lot == numbers("MARKET_LOT_SIZE", "stepSize", "minQty", "maxQty")
    price = (rules.price_tick, rules.min_price, rules.max_price)
    assert price == numbers("PRICE_FILTER", "tickSize", "minPrice", "maxPrice")
    assert (rules.min_notional,) == numbers("MIN_NOTIONAL", "notional")
    assert (rules.quote_amount_allowed, rules.trading) == (False, True)
    assert rules.order_types == {"MARKET", "LIMIT", "STOP", "TAKE_PROFIT", "TRAILING_STOP"}


@pytest.mark.parametrize("symbol", sorted(SYMBOLS))
def test_every_symbol_takes_orders_that_keep_its_rules(exchange: FakeBinance, symbol: str) -> None:
    client, price = a_client(exchange), D(START_PRICES[symbol])
    rules = client.symbol_rules(symbol)
    quantity = (rules.min_notional * 2 / price // rules.quantity_step + 1) * rules.quantity_step
    order = an_order(symbol=symbol, rules=rules, quantity=quantity)
    assert placed(client, order).execution.executed_quantity == quantity
    below, above = (price * D(factor) // rules.price_tick * rules.price_tick for factor in ("0.97", "1.03"))
    placed(client, replace(order, client_order_id="limit", type=OrderType.LIMIT, price=below))
    for kind, at in ((STOP, below), (PROFIT, above), (TRAIL, None)):
        size = {"quantity": quantity} if kind is TRAIL else {}
        placed(client, a_guard(kind, str(at) if at else None, symbol=symbol, rules=rules, **size))


def test_rules_of_other_times_are_read_too() -> None:
    row = json.loads(json.dumps(SYMBOLS["BTCUSDT"])) | {"orderTypes": ["LIMIT", "STOP", "TAKE_PROFIT", "NEW_KIND"]}
    row["filters"] = [{"filterType": "SOMETHING_NEW", "x": "y"}]
    rules = rules_in(row)
    assert rules.order_types == {"LIMIT"}, "Binance's STOP is a limit order"
    assert (rules.quantity_step, rules.price_tick, rules.min_notional) == (ZERO, ZERO, ZERO)
    for changes in ({"status": "SETTLING"}, {"status": "PENDING_TRADING"}, {"contractType": "CURRENT_QUARTER"}):
        assert not rules_in(row | changes).trading
    assert rules_in(row | {"contractType": "TRADIFI_PERPETUAL"}).trading


def test_the_rules_of_all_symbols_are_one_question(exchange: FakeBinance, client: BinanceFutures) -> None:
    for symbol in SYMBOLS:
        client.symbol_rules(symbol)
    with pytest.raises(UnknownSymbol):
        client.symbol_rules("NOPEUSDT")
    assert len(exchange.calls("GET /fapi/v1/exchangeInfo")) == 1
    assert 50 < client._rows_until - time.monotonic() <= 60
    client._rows_until = 0.0  # a minute later
    exchange.futures.set_symbol("BTCUSDT", status="SETTLING")
    assert not client.symbol_rules("BTCUSDT").trading


def test_a_symbol_that_is_not_there_is_told_from_a_question_that_failed(
    exchange: FakeBinance, client: BinanceFutures
) -> None:
    for ask in (client.symbol_rules, client.current_price, lambda symbol: client.current_prices([symbol])):
        exchange.fail_next("status", where="GET *", status=503)
        with pytest.raises(BrokerError) as failed:
            ask("NOPEUSDT")
        assert not isinstance(failed.value, UnknownSymbol)
        with pytest.raises(UnknownSymbol):
            ask("NOPEUSDT")


def test_several_prices_are_one_question(exchange: FakeBinance, client: BinanceFutures) -> None:
    exchange.futures.set_last_price("BTCUSDT", 60100)
    assert client.current_prices(["ETHUSDT", "BTCUSDT"]) == {"BTCUSDT": 60100, "ETHUSDT": 3000}
    assert len(exchange.calls("GET /fapi/v2/ticker/price")) == 1
    assert client.current_price("BTCUSDT") == 60100


@pytest.mark.parametrize("body", ["", "[]", "{}", "null", "5", "[1]", "[{}]", '{"symbols":[{}]}', '{"price":"NaN"}',
                                  '{"symbols":5}', '{"serverTime":"x"}', "<p>"])  # fmt: skip
def test_an_answer_without_sense_is_a_broker_error_and_nothing_else(exchange: FakeBinance, body: str) -> None:
    """Any other exception would end the background work that keeps balances and prices fresh."""
    client = a_client(exchange)
    nothing = body == "[]"  # a list with nothing in it can be true
    questions: list[tuple[str, Callable[[], object], bool]] = [
        ("exchangeInfo", lambda: client.symbol_rules("BTCUSDT"), False),
        ("ticker/price", lambda: client.current_price("BTCUSDT"), False),
        ("ticker/price", lambda: client.current_prices(["BTCUSDT"]), False),
        ("time", client.keep_warm, False),
        ("time", client.connect, False),
        ("positionSide/dual", client.connect, False),
        ("symbolConfig", lambda: client.prepare("BTCUSDT", D(5)), False),
        ("balance", client.balances, nothing),
        ("positionRisk", client.positions, nothing),
        ("userTrades", lambda: client.trades_since("BTCUSDT", datetime.now(UTC)), nothing),
        ("openOrders", client.open_orders, nothing),
        ("openAlgoOrders", client.open_orders, nothing),
    ]
    for path, ask, is_fine in questions:
        exchange.fail_next("garbage", where=f"GET /fapi/*/{path}", body=body)
        if is_fine:
            ask()
            continue
        with pytest.raises(BrokerError):
            ask()
        assert exchange.faults_left == 0, path


# --- the account --------------------------------------------------------------------------------------------------


def test_balances_are_what_may_be_used_and_the_rest(exchange: FakeBinance, client: BinanceFutures) -> None:
    exchange.futures.set_balance("BNB", "0.5")
    assert client.balances() == {"USDT": Balance(D(10_000), ZERO), "BNB": Balance(D("0.5"), ZERO)}
    placed(client, an_order())
    assert client.balances()["USDT"] == Balance(D("9879.7"), D(120))
    exchange.futures.set_price("BTCUSDT", 70000)
    assert client.balances()["USDT"] == Balance(D("9879.7"), D(120))


def test_open_profit_that_may_be_used_makes_nothing_locked_negative(exchange: FakeBinance) -> None:
    client = a_client(exchange, margin_type="CROSSED")
    placed(client, an_order())
    exchange.futures.set_price("BTCUSDT", 90000)
    balance = client.balances()["USDT"]
    assert (balance.free > 10_000, balance.locked) == (True, ZERO)


def test_positions_are_told_with_their_side(exchange: FakeBinance, client: BinanceFutures) -> None:
    placed(client, a_limit("50", symbol="ETHUSDT", rules=client.symbol_rules("ETHUSDT"), quantity=D(1)))
    assert client.positions() == []
    placed(client, an_order(side=Side.SELL))
    assert client.positions() == [HeldThere("BTCUSDT", "SHORT", D("0.01"), D(60000))]


def test_trades_are_told_by_order_whoever_sent_it(exchange: FakeBinance, client: BinanceFutures) -> None:
    since = datetime.now(UTC) - timedelta(seconds=1)
    exchange.futures.set_book("BTCUSDT", asks=[("60000", "0.004"), ("60001", "0.006")], bids=[("59990", "1")])
    placed(client, an_order())
    placed(client, an_exit(quantity=D("0.004")))
    bought, sold = client.trades_since("BTCUSDT", since)
    assert (bought.side, bought.quantity, bought.quote) == (Side.BUY, D("0.01"), D("600.006"))
    assert (sold.side, sold.quantity, sold.quote) == (Side.SELL, D("0.004"), D("239.96"))
    assert [bought.exchange_order_id, sold.exchange_order_id] == [str(o.order_id) for o in exchange.futures.orders]
    assert bought.fees == (Fee("USDT", D("0.300003")),)
    assert (bought.position_side, bought.last_at.tzinfo) == ("", UTC)
    assert client.trades_since("BTCUSDT", sold.last_at + timedelta(milliseconds=1)) == []
    assert client.trades_since("ETHUSDT", since) == []


def test_the_order_that_traded_last_is_told_last(exchange: FakeBinance, client: BinanceFutures) -> None:
    placed(client, a_limit("59000"))
    slow = exchange.futures.orders[0].order_id
    exchange.futures.fill(slow, "0.004")
    placed(client, an_order())
    time.sleep(0.01)
    exchange.futures.fill(slow, "0.006")
    trades = client.trades_since("BTCUSDT", datetime.now(UTC) - timedelta(seconds=5))
    assert [trade.exchange_order_id == str(slow) for trade in trades] == [False, True]


def test_a_moment_that_the_exchanges_clock_has_not_reached_is_asked_for_all_the_same(
    exchange: FakeBinance, client: BinanceFutures
) -> None:
    assert client.trades_since("BTCUSDT", datetime.now(UTC) + timedelta(seconds=5)) == []
    assert len(exchange.calls("GET /fapi/v1/userTrades")) == 1


def test_trades_in_hedge_mode_name_the_side_of_the_position(exchange: FakeBinance, client: BinanceFutures) -> None:
    exchange.futures.set_options(hedge_mode=True)
    placed(client, an_order(side=Side.SELL))
    (trade,) = client.trades_since("BTCUSDT", datetime.now(UTC) - timedelta(seconds=5))
    assert (trade.side, trade.position_side) == (Side.SELL, "SHORT")


def past_trade(number: int, time_ms: int) -> FuturesTrade:
    return FuturesTrade(number, 7, "BTCUSDT", "BUY", "BOTH", D(60000), D("0.001"), ZERO, ZERO, "USDT", time_ms, True)


def test_trades_of_months_are_read_in_spans_and_none_from_before_the_history(
    exchange: FakeBinance, client: BinanceFutures
) -> None:
    now = exchange.now_ms()
    days = (200, 179, 30, 7, 6, 0)
    exchange.futures.engine.trades += [past_trade(n, now - day * 86_400_000) for n, day in enumerate(days, 1)]
    (order,) = client.trades_since("BTCUSDT", datetime.now(UTC) - timedelta(days=400))
    assert order.quantity == D("0.005")
    (order,) = client.trades_since("BTCUSDT", datetime.now(UTC) - timedelta(days=8))
    assert order.quantity == D("0.003")


@pytest.mark.parametrize("in_a_millisecond", [1, 3, 700, 2_500])
def test_more_trades_than_fit_into_an_answer_are_read_page_by_page(
    exchange: FakeBinance, client: BinanceFutures, in_a_millisecond: int
) -> None:
    start = exchange.now_ms() - 5_000_000
    exchange.futures.engine.trades += [past_trade(n, start + n // in_a_millisecond) for n in range(2_500)]
    (order,) = client.trades_since("BTCUSDT", datetime.now(UTC) - timedelta(hours=2))
    assert order.quantity == D("2.5")


def test_a_page_that_reaches_into_the_next_span_is_fine(exchange: FakeBinance, client: BinanceFutures) -> None:
    now = exchange.now_ms()
    days = [9] * 1_000 + [1] * 300
    exchange.futures.engine.trades += [past_trade(n, now - day * 86_400_000) for n, day in enumerate(days)]
    (order,) = client.trades_since("BTCUSDT", datetime.now(UTC) - timedelta(days=10))
    assert order.quantity == D("1.3")


def test_the_same_page_again_is_an_error_and_no_endless_loop(exchange: FakeBinance, client: BinanceFutures) -> None:
    rows = [{"id": n, "time": exchange.now_ms()} for n in range(1_000)]
    exchange.fail_next("garbage", where="GET /fapi/v1/userTrades", body=json.dumps(rows), times=2)
    with pytest.raises(BrokerError, match="the same trades again"):
        client.trades_since("BTCUSDT", datetime.now(UTC) - timedelta(hours=2))


def test_everything_that_waits_is_told_and_can_be_cancelled(exchange: FakeBinance, client: BinanceFutures) -> None:
    limit, stop = a_limit("59000"), a_guard(STOP, "57000", quantity=D("0.01"))
    placed(client, limit)
    placed(client, stop)
    strays = client.open_orders()
    assert strays == [
        RestsThere("BTCUSDT", limit.client_order_id, False), RestsThere("BTCUSDT", stop.client_order_id, True),
    ]  # fmt: skip
    for _ in range(2):
        for stray in strays:
            client.cancel_stray(stray)
    assert client.open_orders() == []
    exchange.fail_next("status", where="DELETE *", status=502, times=2)
    for stray in strays:
        with pytest.raises(BrokerError):
            client.cancel_stray(stray)


def test_wrong_keys_are_told_when_connecting(exchange: FakeBinance) -> None:
    client = BinanceFutures("BINANCE", "x" * 64, API_SECRET, testnet=True, api_url=exchange.fapi_url)
    with pytest.raises(BrokerError, match=r"Invalid API-key.*-2015\): look at the key, what it may do"):
        client.connect()


def test_the_broker_says_who_it_is(client: BinanceFutures) -> None:
    broker: Broker = client
    assert (broker.name, broker.account) == ("BINANCE", Account("BINANCE", Market.FUTURES))
    assert (broker.is_local, broker.absence_is_proven_after_seconds) == (False, 15)
    assert str(broker.account) == "BINANCE futures"


def test_the_testnet_is_the_one_that_the_docs_name() -> None:
    for testnet, url in ((True, "https://demo-fapi.binance.com/fapi/v1/time"), (False, "https://fapi.binance.com/")):
        client = BinanceFutures("BINANCE", API_KEY, API_SECRET, testnet=testnet)
        assert client._client._create_futures_api_uri("time").startswith(url)


def test_every_kind_of_protection_has_parameters() -> None:
    for kind in PROTECTIVE:
        assert conditional_parameters(a_guard(kind, "1"), hedge_mode=False)["clientAlgoId"]
    assert isinstance(RULES, SymbolRules)
