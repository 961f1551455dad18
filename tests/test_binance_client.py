"""The Binance client against the fake exchange: which answer means what, what is sent, and the same cases on paper."""

from __future__ import annotations

import http.server
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fake_binance import FakeBinance
from fake_matching import Trade
from harness import API_KEY, API_SECRET, eventually
from hypothesis import given, settings
from hypothesis import strategies as st

from binance_client import BinanceClient, _order_parameters, _rules
from broker import Balance, Broker, BrokerError, Done, Found, NoAnswer, NotFound, Refused, Unknown, UnknownSymbol
from intents import new_id
from models import ZERO, Account, Fee, Market, Order, OrderStatus, OrderType, RestsThere, Side, SymbolRules
from paper_client import PaperClient

D = Decimal
S = OrderStatus
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DATA = Path(__file__).parent / "data"
ERRORS = json.loads((DATA / "binance_errors.json").read_text("utf-8"))
SYMBOLS = {row["symbol"]: row for row in json.loads((DATA / "binance_symbols.json").read_text("utf-8"))["symbols"]}
RULES = SymbolRules("BTCUSDT", "BTC", "USDT", D("0.00001"), D("0.00001"), price_tick=D("0.01"), min_notional=D(5))
ORDER = "POST /api/v3/order"


def a_client(exchange: FakeBinance, seconds: float = 3.0) -> BinanceClient:
    """A client of the fake that waits so long for an answer."""
    client = BinanceClient("BINANCE", API_KEY, API_SECRET, testnet=True, api_url=exchange.api_url)
    client._client._requests_params["timeout"] = (1, seconds)
    return client


@pytest.fixture
def client(exchange: FakeBinance) -> BinanceClient:
    return a_client(exchange)


@pytest.fixture(scope="module")
def refusing() -> Iterator[FakeBinance]:
    """One exchange for the many cases in which no order comes of it."""
    with FakeBinance(API_KEY, API_SECRET, engine_seconds=0) as fake:
        yield fake


def an_order(**changes: Any) -> Order:
    """A market buy of 0.001 BTC."""
    order = Order(
        new_id("gh", NOW), "s1", "BINANCE", Market.SPOT, "BTCUSDT", Side.BUY, OrderType.MARKET, True, RULES, NOW, NOW,
        quantity=D("0.001"), reference_price=D(43000),
    )  # fmt: skip
    return replace(order, **changes)


def a_limit(price: str, **changes: Any) -> Order:
    return an_order(type=OrderType.LIMIT, price=D(price), **changes)


def placed(broker: Broker, order: Order) -> Done:
    outcome = broker.place(order)
    assert isinstance(outcome, Done), outcome
    return outcome


def found(broker: Broker, order: Order) -> Found:
    answer = broker.look_up(order)
    assert isinstance(answer, Found), answer
    return answer


def seen(*values: object) -> tuple[object, ...]:
    return values


def show_no_secret(*values: object) -> None:
    text = " ".join(f"{value!r} {value}" for value in values)
    for secret in (API_KEY, API_SECRET, "signature="):
        assert secret not in text


# --- endings: what each answer means ------------------------------------------------------------------------------

NEVER_LEFT = {-1003, -1015, -1021}
REFUSED = {
    -1002, -1013, -1014, -1020, -1022, -1100, -1101, -1102, -1103, -1104, -1105, -1106, -1108, -1111, -1112, -1114,
    -1115, -1116, -1117, -1118, -1119, -1121, -1128, -1130, -2010, -2014, -2015, -2016, -1016,
}  # fmt: skip
CODES = sorted(map(int, ERRORS["codes"]), reverse=True)


def test_the_codes_that_are_judged_exist() -> None:
    assert set(CODES) >= NEVER_LEFT | REFUSED
    assert len(CODES) > 90


@pytest.mark.parametrize("code", CODES)
def test_only_listed_codes_are_refusals_and_all_others_are_unknown(refusing: FakeBinance, code: int) -> None:
    client = a_client(refusing)
    refusing.clear_log()
    refusing.fail_next("error", code=code, status=400)
    outcome = client.place(an_order())
    if code in NEVER_LEFT:
        assert isinstance(outcome, Refused)
        assert (outcome.never_left, outcome.code) == (True, str(code))
    elif code in REFUSED:
        assert isinstance(outcome, Refused)
        assert (outcome.never_left, outcome.code) == (False, str(code))
        assert outcome.reason.startswith("BINANCE refused: ")
    else:
        assert isinstance(outcome, Unknown)
    assert len(refusing.calls(ORDER)) == 1
    show_no_secret(outcome)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("code", [-1013, -2010, -1003, -1015, -1021, -1121])
def test_whatever_the_code_a_5xx_is_unknown(refusing: FakeBinance, code: int, status: int) -> None:
    refusing.fail_next("error", code=code, status=status)
    assert isinstance(a_client(refusing).place(an_order()), Unknown)


@pytest.mark.parametrize("message", ERRORS["engine_messages"] + ERRORS["filter_failures"])
def test_every_refusal_of_the_engine_is_one_except_that_the_order_is_there_already(
    refusing: FakeBinance, message: str
) -> None:
    code = -1013 if message.startswith("Filter") else -2010
    refusing.fail_next("error", code=code, message=message)
    outcome = a_client(refusing).place(an_order())
    if message == "Duplicate order sent.":
        assert isinstance(outcome, Unknown)
    else:
        assert outcome == Refused(f"BINANCE refused: {message} ({code})", str(code))


LOST: list[dict[str, Any]] = [
    {"kind": "stall"},
    {"kind": "reset"},
    {"kind": "close"},
    {"kind": "half_header"},
    {"kind": "half_body"},
    {"kind": "half_body", "then": "stall"},
    {"kind": "half_body", "then": "reset"},
    {"kind": "garbage"},
    {"kind": "garbage", "body": ""},
    {"kind": "garbage", "body": "[]"},
    {"kind": "garbage", "body": "[1]"},
    {"kind": "garbage", "body": "null"},
    {"kind": "garbage", "body": "{}"},
    {"kind": "garbage", "body": "5"},
    {"kind": "garbage", "body": '"FILLED"'},
    {"kind": "garbage", "body": '{"code":-2010,"msg":"Account has insufficient balance for requested action."}'},
    {"kind": "truncated"},
    {"kind": "other_symbol"},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 502, "html": True},
    {"kind": "status", "status": 503, "body": "[]"},
    {"kind": "status", "status": 504, "body": ""},
    {"kind": "status", "status": 403, "html": True},
    {"kind": "status", "status": 400, "body": ""},
    {"kind": "status", "status": 400, "body": "[]"},
    {"kind": "status", "status": 400, "html": True},
    {"kind": "status", "status": 408, "html": True},
    {"kind": "status", "status": 302, "body": ""},
    {"kind": "error", "code": -1006},
    {"kind": "error", "code": -1007},
    {"kind": "error", "code": -2010, "message": "Duplicate order sent."},
]


@pytest.mark.parametrize("executed", [True, False], ids=["executed", "not executed"])
@pytest.mark.parametrize("fault", LOST, ids=lambda fault: " ".join(map(str, fault.values())) or "empty")
def test_an_answer_that_says_nothing_is_unknown_and_the_look_up_tells(
    exchange: FakeBinance, fault: dict[str, Any], executed: bool
) -> None:
    client, order = a_client(exchange, 0.3), an_order()
    exchange.fail_next(executed=executed, **fault)
    outcome = client.place(order)
    assert isinstance(outcome, Unknown), outcome
    show_no_secret(outcome)
    assert exchange.posts_by_client_id == {order.client_order_id: 1}
    answer = client.look_up(order)
    if executed:
        assert isinstance(answer, Found)
        assert (answer.execution.status, answer.execution.executed_quantity) == (S.FILLED, order.quantity)
    else:
        assert answer == NotFound()


REPLY = {"symbol": "BTCUSDT", "orderId": 1, "clientOrderId": "?", "status": "FILLED", "executedQty": "0.001",
         "cummulativeQuoteQty": "43",
         "fills": [{"price": "43000", "qty": "0.001", "commission": "0.000001", "commissionAsset": "BTC"}]}  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [{"clientOrderId": "another"}, {"symbol": "ETHUSDT"}, {"status": "DONE"}, {"status": None}, {"executedQty": "NaN"},
     {"executedQty": "-1"}, {"executedQty": None}, {"executedQty": "x"}, {"cummulativeQuoteQty": "Infinity"},
     {"cummulativeQuoteQty": "-0.00000001"}, {"fills": [1]}, {"fills": [{}]}, {"fills": 5},
     {"fills": None}, {"fills": [{"qty": "0.0009", "commission": "0", "commissionAsset": "BTC"}]}],
    ids=str,
)  # fmt: skip
def test_a_reply_that_is_not_a_plain_account_of_this_order_is_unknown(
    refusing: FakeBinance, wrong: dict[str, Any]
) -> None:
    order, client = an_order(), a_client(refusing)
    right = REPLY | {"clientOrderId": order.client_order_id}
    refusing.fail_next("garbage", body=json.dumps(right))
    assert isinstance(client.place(order), Done)
    refusing.fail_next("garbage", body=json.dumps(right | wrong))
    assert isinstance(client.place(order), Unknown)


def test_without_a_connection_nothing_has_left(exchange: FakeBinance, client: BinanceClient) -> None:
    exchange.go_offline()
    outcome = client.place(an_order())
    assert isinstance(outcome, Refused)
    assert outcome.never_left
    exchange.come_online()
    assert exchange.calls(ORDER) == []
    placed(client, an_order())


def test_a_name_that_does_not_resolve_is_no_connection_either() -> None:
    client = BinanceClient("BINANCE", API_KEY, API_SECRET, testnet=True, api_url="http://nowhere.invalid/api")
    outcome = client.place(an_order())
    assert isinstance(outcome, Refused)
    assert outcome.never_left
    show_no_secret(outcome, client)


def test_a_connection_that_dies_unread_may_have_carried_the_order(exchange: FakeBinance, client: BinanceClient) -> None:
    client.connect()
    exchange.fail_next("reset_unread")
    assert isinstance(client.place(an_order()), Unknown)


def test_an_idle_connection_that_was_closed_costs_no_order_and_doubles_none(
    exchange: FakeBinance, client: BinanceClient
) -> None:
    exchange.fail_next("close", executed=True)
    first = an_order()
    assert isinstance(client.place(first), Unknown)
    placed(client, an_order())
    assert len(exchange.orders) == 2
    assert set(exchange.posts_by_client_id.values()) == {1}


class Redirect(http.server.BaseHTTPRequestHandler):
    """Sends everybody on to the exchange."""

    status = 307
    target = ""
    seen: list[str] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append(self.path)
        self.send_response(self.status)
        self.send_header("Location", self.target + self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(exchange: FakeBinance, status: int) -> None:
    handler = type("To", (Redirect,), {"status": status, "target": exchange.base_url, "seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/api"
    client = BinanceClient("BINANCE", API_KEY, API_SECRET, testnet=True, api_url=url)
    order = an_order()
    assert isinstance(client.place(order), Unknown)
    assert isinstance(client.look_up(order), NoAnswer)
    with pytest.raises(BrokerError):
        client.balances()
    server.shutdown()
    server.server_close()
    assert len(handler.seen) == 3  # type: ignore[attr-defined]
    assert (exchange.requests, exchange.orders) == ([], [])


def test_an_order_is_not_told_to_a_server_whose_certificate_nobody_vouches_for() -> None:
    handler = type("To", (Redirect,), {"seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(DATA / "self_signed.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"https://127.0.0.1:{server.server_address[1]}/api"
    client = BinanceClient("BINANCE", API_KEY, API_SECRET, testnet=True, api_url=url)
    with pytest.raises(BrokerError, match="SSLError"):
        client.current_price("BTCUSDT")
    assert not isinstance(client.place(an_order()), Done)
    server.shutdown()
    server.server_close()
    assert handler.seen == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [429, 418])
def test_who_asks_to_be_left_alone_is_left_alone(exchange: FakeBinance, client: BinanceClient, status: int) -> None:
    exchange.fail_next("ban", status=status, retry_after=1)
    refused = client.place(an_order())
    assert isinstance(refused, Refused)
    assert (refused.never_left, refused.retry_after_seconds) == (True, 1)
    again = client.place(an_order())
    assert isinstance(again, Refused)
    assert again.never_left
    assert again.retry_after_seconds is not None
    assert 0 < again.retry_after_seconds <= 1
    assert isinstance(client.look_up(an_order()), NoAnswer)
    with pytest.raises(BrokerError, match="BINANCE asked for a pause of 1 s more"):
        client.balances()
    assert len(exchange.requests) == 1
    eventually(lambda: isinstance(client.place(an_order()), Done), 3, lambda: "the pause does not end")
    assert [call for call in exchange.requests if call.banned] == []


def test_a_question_that_is_told_to_slow_down_stops_orders_too(exchange: FakeBinance, client: BinanceClient) -> None:
    exchange.fail_next("ban", where="GET /api/v3/account", status=429, retry_after=1)
    with pytest.raises(BrokerError):
        client.balances()
    assert isinstance(client.place(an_order()), Refused)
    assert exchange.calls(ORDER) == []


def test_a_wrong_clock_is_measured_anew_and_the_next_try_is_right(exchange: FakeBinance, client: BinanceClient) -> None:
    offset = 60.0
    real = exchange.clock
    exchange.clock = lambda: real() + offset
    outcome = client.place(an_order())
    assert isinstance(outcome, Refused)
    assert (outcome.never_left, outcome.code, outcome.retry_after_seconds) == (True, "-1021", 0)
    assert abs(client._client.timestamp_offset - 60_000) < 1_000
    placed(client, an_order())
    assert len(exchange.orders) == 1


# --- what is sent -------------------------------------------------------------------------------------------------


def test_what_a_market_order_sends(exchange: FakeBinance, client: BinanceClient) -> None:
    order = an_order(quantity=D("1.0E-3"))
    placed(client, order)
    (call,) = exchange.calls(ORDER)
    assert call.params.pop("timestamp").isdigit()
    assert call.params == {
        "symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.001", "recvWindow": "3000",
        "newClientOrderId": order.client_order_id, "newOrderRespType": "FULL",
    }  # fmt: skip


def test_a_market_order_by_amount_lets_the_exchange_find_the_quantity(
    exchange: FakeBinance, client: BinanceClient
) -> None:
    placed(client, an_order(quantity=None, amount=D("1E+1")))
    (call,) = exchange.calls(ORDER)
    assert call.params["quoteOrderQty"] == "10"
    assert "quantity" not in call.params


def test_what_a_limit_order_sends(exchange: FakeBinance, client: BinanceClient) -> None:
    placed(client, a_limit("41000.50", side=Side.BUY))
    (call,) = exchange.calls(ORDER)
    sent = {name: call.params[name] for name in ("type", "price", "timeInForce", "quantity")}
    assert sent == {"type": "LIMIT", "price": "41000.5", "timeInForce": "GTC", "quantity": "0.001"}


@given(st.decimals("1E-18", "1E15", places=18), st.integers(-18, 12), st.sampled_from(["quantity", "amount", "price"]))
def test_numbers_leave_as_plain_decimals_that_lose_nothing(value: Decimal, exponent: int, field: str) -> None:
    number = D(1).scaleb(exponent) if exponent % 2 else value
    changes = {"quantity": None, "price": D(1)} | {field: number}
    parameters = _order_parameters(an_order(type=OrderType.LIMIT, **changes))
    sent = parameters[{"amount": "quoteOrderQty"}.get(field, field)]
    assert re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,20})?", sent)
    assert D(sent) == number


@settings(max_examples=50)
@given(st.datetimes(datetime(2001, 9, 10), datetime(2199, 1, 1), timezones=st.just(UTC)))
def test_client_order_ids_suit_every_exchange_and_are_never_the_same(now: datetime) -> None:
    ids = [new_id("gh", now) for _ in range(20)]
    assert all(re.fullmatch(r"[a-z][a-z0-9_]{1,31}", each) for each in ids)
    assert len(set(ids)) == 20


def test_the_environments_proxies_have_no_part_in_it(exchange: FakeBinance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    placed(a_client(exchange), an_order())


def test_secrets_are_in_no_text_the_client_makes(exchange: FakeBinance, client: BinanceClient) -> None:
    show_no_secret(client)
    texts: list[object] = []
    for kind in ("reset", "garbage", "close"):
        for where in ("GET /api/v3/account", "GET /api/v3/order", "GET /api/v3/exchangeInfo", "GET /api/v3/time"):
            exchange.fail_next(kind, where=where)
        for ask in (client.balances, client.connect, lambda: client.symbol_rules("BTCUSDT")):
            with pytest.raises(BrokerError) as refused:
                ask()
            texts.append(refused.value)
        texts.append(client.look_up(an_order()))
        exchange.fail_next(kind)
        texts.append(client.place(an_order()))
    exchange.go_offline()
    texts += [client.place(an_order()), client.look_up(an_order())]
    show_no_secret(*texts)


# --- questions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", sorted(SYMBOLS))
def test_rules_are_read_as_the_exchange_publishes_them(refusing: FakeBinance, symbol: str) -> None:
    rules, row = a_client(refusing).symbol_rules(symbol), SYMBOLS[symbol]
    filters = {each["filterType"]: each for each in row["filters"]}
    assert (rules.symbol, rules.base_asset, rules.quote_asset) == (symbol, row["baseAsset"], row["quoteAsset"])
    assert rules.quantity_step == D(filters["LOT_SIZE"]["stepSize"])
    assert rules.min_quantity == D(filters["LOT_SIZE"]["minQty"])
    assert rules.max_quantity == D(filters["LOT_SIZE"]["maxQty"])
    assert seen(rules.market_quantity_step, rules.market_min_quantity) == (0, 0)
    assert rules.market_max_quantity == D(filters["MARKET_LOT_SIZE"]["maxQty"])
    assert rules.price_tick == D(filters["PRICE_FILTER"]["tickSize"])
    assert (rules.min_price, rules.max_price) == tuple(D(filters["PRICE_FILTER"][n]) for n in ("minPrice", "maxPrice"))
    assert seen(rules.min_notional, rules.max_notional) == (5, 9_000_000)
    assert (rules.min_notional_applies_to_market, rules.max_notional_applies_to_market) == (True, False)
    assert rules.quote_amount_allowed
    assert rules.trading
    assert rules.order_types >= {"MARKET", "LIMIT"}


def test_rules_of_other_times_and_places_are_read_too() -> None:
    row = json.loads(json.dumps(SYMBOLS["BTCUSDT"])) | {"status": "BREAK", "quoteOrderQtyMarketAllowed": False}
    row["filters"] = [{"filterType": "MIN_NOTIONAL", "minNotional": "1.00", "applyToMarket": False}]
    rules = _rules(row)
    assert seen(rules.min_notional, rules.min_notional_applies_to_market) == (1, False)
    assert seen(rules.quantity_step, rules.price_tick, rules.max_quantity) == (0, 0, 0)
    assert (rules.trading, rules.quote_amount_allowed) == (False, False)
    row["isSpotTradingAllowed"], row["status"] = False, "TRADING"
    assert not _rules(row).trading


@pytest.mark.parametrize("symbol", ["NOPEUSDT", "btc usdt", "BTC/USDT"])
def test_a_symbol_that_is_not_there_is_told_from_a_question_that_failed(
    exchange: FakeBinance, client: BinanceClient, symbol: str
) -> None:
    for ask in (client.symbol_rules, client.current_price):
        with pytest.raises(UnknownSymbol):
            ask(symbol)
        exchange.fail_next("status", where="GET *", status=503)
        with pytest.raises(BrokerError) as failed:
            ask(symbol)
        assert not isinstance(failed.value, UnknownSymbol)


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{}", "null", "5", '{"symbols":[]}', '{"symbols":[{}]}', '{"price":"NaN"}', '{"price":null}',
     '{"balances":[{}]}', '{"balances":5}', '{"serverTime":"x"}', "<p>"],
)  # fmt: skip
def test_an_answer_without_sense_is_a_broker_error_and_nothing_else(exchange: FakeBinance, body: str) -> None:
    """Any other exception would end the background work that keeps balances and prices fresh."""
    client = a_client(exchange)
    questions: list[tuple[str, Callable[[], object]]] = [
        ("GET /api/v3/exchangeInfo", lambda: client.symbol_rules("BTCUSDT")),
        ("GET /api/v3/ticker/price", lambda: client.current_price("BTCUSDT")),
        ("GET /api/v3/ticker/price", lambda: client.current_prices(["BTCUSDT"])),
        ("GET /api/v3/time", client.keep_warm),
        ("GET /api/v3/account", client.balances),
        ("GET /api/v3/time", client.connect),
        ("GET /api/v3/myTrades", lambda: client.trades_since("BTCUSDT", datetime.now(UTC))),
        ("GET /api/v3/openOrders", client.open_orders),
    ]
    for where, ask in questions:
        if body == "[]" and where.endswith(("myTrades", "openOrders")):
            continue  # that nothing is there is an answer to these
        exchange.fail_next("garbage", where=where, body=body)
        with pytest.raises(BrokerError, match="BINANCE"):
            ask()
    exchange.fail_next("garbage", where="GET /api/v3/order", body=body)
    assert isinstance(client.look_up(an_order()), NoAnswer)


def test_several_prices_are_one_question(exchange: FakeBinance, client: BinanceClient) -> None:
    exchange.set_price("ETHUSDT", 2500)
    assert client.current_prices(["ETHUSDT", "BTCUSDT"]) == {"BTCUSDT": 43000, "ETHUSDT": 2500}
    assert len(exchange.calls("GET /api/v3/ticker/price")) == 1
    with pytest.raises(UnknownSymbol):
        client.current_prices(["BTCUSDT", "NOPEUSDT"])


def test_a_look_up_counts_the_fees_of_all_trades(exchange: FakeBinance, client: BinanceClient) -> None:
    exchange.set_book("BTCUSDT", asks=[("43000", "0.0004"), ("43001", "0.0006")])
    order = an_order()
    outcome = placed(client, order)
    assert outcome.execution.fees == (Fee("BTC", D("0.000001")),)
    assert outcome.execution.executed_quote == D("43.0006")
    assert found(client, order).execution == outcome.execution


def test_fees_in_another_coin_are_told(exchange: FakeBinance, client: BinanceClient) -> None:
    exchange.set_balance("BNB", 1)
    exchange.fees_in_bnb = True
    order = an_order()
    (fee,) = placed(client, order).execution.fees
    assert (fee.asset, fee.amount > 0) == ("BNB", True)
    assert found(client, order).execution.fees == (fee,)


@pytest.mark.parametrize("body", ["[]", "{}", "null", "5", "[1]", "[{}]"])
def test_an_order_whose_trades_are_not_listed_yet_is_no_answer(
    exchange: FakeBinance, client: BinanceClient, body: str
) -> None:
    order = an_order()
    placed(client, order)
    exchange.fail_next("garbage", where="GET /api/v3/myTrades", body=body)
    assert isinstance(client.look_up(order), NoAnswer)
    assert isinstance(client.look_up(order), Found)


def test_records_that_lag_say_not_found_first(exchange: FakeBinance, client: BinanceClient) -> None:
    exchange.lookup_lag_seconds = 0.3
    order = an_order()
    placed(client, order)
    assert client.look_up(order) == NotFound()
    eventually(lambda: isinstance(client.look_up(order), Found), 3, lambda: "it never appears")


@pytest.mark.parametrize(
    "fault",
    [{"kind": "stall"}, {"kind": "reset"}, {"kind": "status", "status": 503}, {"kind": "error", "code": -1003},
     {"kind": "error", "code": -1021}, {"kind": "error", "code": -2011},
     {"kind": "status", "status": 404, "html": True}],
    ids=str,
)  # fmt: skip
def test_a_question_that_fails_is_never_taken_for_not_found(exchange: FakeBinance, fault: dict[str, Any]) -> None:
    exchange.fail_next(where="GET /api/v3/order", **fault)
    assert isinstance(a_client(exchange, 0.3).look_up(an_order()), NoAnswer)


def test_a_market_order_on_a_thin_book_ends_expired_with_what_it_got(
    exchange: FakeBinance, client: BinanceClient
) -> None:
    exchange.set_book("BTCUSDT", asks=[("43000", "0.0004")])
    order = an_order()
    execution = placed(client, order).execution
    assert (execution.status, execution.executed_quantity) == (S.EXPIRED, D("0.0004"))
    assert execution.note == "0.0004 executed before it ended"
    assert found(client, order).execution.executed_quantity == D("0.0004")


def test_a_part_of_a_resting_order_is_told_as_a_part(exchange: FakeBinance, client: BinanceClient) -> None:
    order = a_limit("42000")
    placed(client, order)
    exchange.fill(exchange.orders[0].order_id, "0.0004")
    execution = found(client, order).execution
    assert (execution.status, execution.executed_quantity) == (S.PARTIALLY_FILLED, D("0.0004"))
    cancelled = client.cancel(order)
    assert isinstance(cancelled, Found)
    assert (cancelled.execution.status, cancelled.execution.executed_quantity) == (S.CANCELED, D("0.0004"))


def test_a_cancel_whose_answer_is_lost_still_learns_how_it_stands(exchange: FakeBinance) -> None:
    client, order = a_client(exchange, 0.3), a_limit("42000")
    placed(client, order)
    exchange.fail_next("stall", where="DELETE /api/v3/order", executed=True)
    answer = client.cancel(order)
    assert isinstance(answer, Found)
    assert answer.execution.status is S.CANCELED


def test_wrong_keys_are_told_when_connecting(exchange: FakeBinance) -> None:
    client = BinanceClient("BINANCE", "x" * 64, API_SECRET, testnet=True, api_url=exchange.api_url)
    with pytest.raises(
        BrokerError, match=r"refused the account: Invalid API-key.*-2015\): look at the key, what it may do"
    ):
        client.connect()


# --- protection: a stop and a take-profit share one balance --------------------------------------------------------

OCO = "POST /api/v3/orderList/oco"
STOP, PROFIT, TRAIL = OrderType.STOP, OrderType.TAKE_PROFIT, OrderType.TRAILING_STOP


def a_guard(kind: OrderType, price: str | None = None, **changes: Any) -> Order:
    """Sells 0.001 BTC when the price has come; a trailing stop follows at 1 %."""
    defaults: dict[str, Any] = {"type": kind, "side": Side.SELL, "is_entry": False, "reference_price": None}
    defaults |= {"trailing_percent": D(1)} if kind is TRAIL else {"stop_price": D(price) if price else None}
    return an_order(**defaults | changes)


@pytest.fixture
def holder(exchange: FakeBinance) -> BinanceClient:
    """The client of an account that holds 0.002 BTC."""
    exchange.set_balance("BTC", "0.002")
    return a_client(exchange)


def sent(exchange: FakeBinance, endpoint: str) -> dict[str, str]:
    """The parameters of the one request to it, without those that all have."""
    (call,) = exchange.calls(endpoint)
    return {name: value for name, value in call.params.items() if name not in ("timestamp", "recvWindow")}


def ids_there(exchange: FakeBinance) -> dict[str, str]:
    return {order.client_id: str(order.order_id) for order in exchange.orders}


@pytest.mark.parametrize(
    ("guard", "parameters"),
    [(a_guard(STOP, "42000.50"), {"type": "STOP_LOSS", "stopPrice": "42000.5"}),
     (a_guard(TRAIL, trailing_percent=D("1.279")), {"type": "STOP_LOSS", "trailingDelta": "127"}),
     (a_guard(PROFIT, "44000"), {"type": "LIMIT", "price": "44000", "timeInForce": "GTC"})],
    ids=["stop", "trailing stop", "take-profit"],
)  # fmt: skip
def test_protection_that_stands_alone_is_one_order(
    exchange: FakeBinance, holder: BinanceClient, guard: Order, parameters: dict[str, str]
) -> None:
    (outcome,) = holder.protect([guard])
    assert isinstance(outcome, Done)
    assert outcome.execution.status is S.NEW
    assert sent(exchange, ORDER) == parameters | {
        "symbol": "BTCUSDT", "side": "SELL", "quantity": "0.001", "newClientOrderId": guard.client_order_id,
        "newOrderRespType": "FULL",
    }  # fmt: skip
    assert found(holder, guard).execution == outcome.execution
    cancelled = holder.cancel(guard)
    assert isinstance(cancelled, Found)
    assert cancelled.execution.status is S.CANCELED


@pytest.mark.parametrize("stop", [a_guard(STOP, "42000"), a_guard(TRAIL)], ids=["stop", "trailing stop"])
@pytest.mark.parametrize("stop_first", [True, False])
def test_a_stop_and_a_take_profit_are_one_list(
    exchange: FakeBinance, holder: BinanceClient, stop: Order, stop_first: bool
) -> None:
    profit = a_guard(PROFIT, "44000")
    orders = [stop, profit] if stop_first else [profit, stop]
    outcomes = holder.protect(orders)
    below = {"belowTrailingDelta": "100"} if stop.type is TRAIL else {"belowStopPrice": "42000"}
    assert sent(exchange, OCO) == below | {
        "symbol": "BTCUSDT", "side": "SELL", "quantity": "0.001", "newOrderRespType": "FULL",
        "aboveType": "LIMIT_MAKER", "abovePrice": "44000", "aboveClientOrderId": profit.client_order_id,
        "belowType": "STOP_LOSS", "belowClientOrderId": stop.client_order_id,
        "listClientOrderId": orders[0].client_order_id + "_oco",
    }  # fmt: skip
    assert exchange.locked("BTC") == D("0.001")
    for order, outcome in zip(orders, outcomes, strict=True):
        assert isinstance(outcome, Done)
        assert outcome.execution.status is S.NEW
        assert outcome.execution.exchange_order_id == ids_there(exchange)[order.client_order_id]
        assert found(holder, order).execution == outcome.execution


@pytest.mark.parametrize(("price", "ended"), [("41990", STOP), ("44000", PROFIT)])
def test_when_one_of_the_two_is_executed_the_other_expires(
    exchange: FakeBinance, holder: BinanceClient, price: str, ended: OrderType
) -> None:
    orders = [a_guard(STOP, "42000"), a_guard(PROFIT, "44000")]
    holder.protect(orders)
    exchange.set_price("BTCUSDT", price)
    for order in orders:
        execution = found(holder, order).execution
        if order.type is ended:
            assert (execution.status, execution.executed_quote) == (S.FILLED, D(price) / 1000)
            assert execution.fees == (Fee("USDT", D(price) / 1_000_000),)
        else:
            assert (execution.status, execution.executed_quantity) == (S.EXPIRED, ZERO)


def test_cancelling_one_of_the_two_cancels_both(exchange: FakeBinance, holder: BinanceClient) -> None:
    orders = [a_guard(STOP, "42000"), a_guard(PROFIT, "44000")]
    holder.protect(orders)
    for order in orders:
        answer = holder.cancel(order)
        assert isinstance(answer, Found)
        assert answer.execution.status is S.CANCELED
    assert exchange.locked("BTC") == 0


@pytest.mark.parametrize("executed", [True, False], ids=["executed", "not executed"])
@pytest.mark.parametrize("fault", LOST, ids=lambda fault: " ".join(map(str, fault.values())) or "empty")
def test_when_the_answer_about_both_is_lost_each_is_looked_up(
    exchange: FakeBinance, fault: dict[str, Any], executed: bool
) -> None:
    exchange.set_balance("BTC", "0.002")
    client, orders = a_client(exchange, 0.3), [a_guard(STOP, "42000"), a_guard(PROFIT, "44000")]
    exchange.fail_next(where=OCO, executed=executed, **fault)
    for outcome in client.protect(orders):
        assert isinstance(outcome, Unknown), outcome
        show_no_secret(outcome)
    assert len(exchange.calls(OCO)) == 1
    for order in orders:
        assert isinstance(client.look_up(order), Found if executed else NotFound)


@pytest.mark.parametrize("wrong", [{"clientOrderId": "another"}, {"status": "DONE"}, {"executedQty": "1"}], ids=str)
def test_a_reply_that_does_not_tell_of_both_is_unknown_for_both(refusing: FakeBinance, wrong: dict[str, Any]) -> None:
    orders = [a_guard(STOP, "42000"), a_guard(PROFIT, "44000")]
    reports = [REPLY | {"clientOrderId": order.client_order_id, "status": "NEW", "executedQty": "0", "fills": []}
               for order in orders]  # fmt: skip
    refusing.fail_next("garbage", where=OCO, body=json.dumps({"symbol": "BTCUSDT", "orderReports": reports}))
    assert all(isinstance(outcome, Done) for outcome in a_client(refusing).protect(orders))
    reports[1] |= wrong
    refusing.fail_next("garbage", where=OCO, body=json.dumps({"symbol": "BTCUSDT", "orderReports": reports}))
    assert all(isinstance(outcome, Unknown) for outcome in a_client(refusing).protect(orders))


def test_a_refusal_of_the_pair_is_one_for_both(exchange: FakeBinance, holder: BinanceClient) -> None:
    orders = [a_guard(STOP, "43500"), a_guard(PROFIT, "44000")]
    reason = "BINANCE refused: The relationship of the prices for the orders is not correct. (-2010)"
    assert holder.protect(orders) == [Refused(reason, "-2010")] * 2
    exchange.fail_next("ban", where=OCO, status=429, retry_after=1)
    for outcome in (*holder.protect(orders), *holder.protect(orders)):
        assert isinstance(outcome, Refused)
        assert outcome.never_left
    assert len(exchange.calls(OCO)) == 2


def test_without_a_connection_neither_has_left(exchange: FakeBinance, holder: BinanceClient) -> None:
    exchange.go_offline()
    for outcome in holder.protect([a_guard(STOP, "42000"), a_guard(PROFIT, "44000")]):
        assert isinstance(outcome, Refused)
        assert outcome.never_left


@pytest.mark.parametrize(
    "orders",
    [[a_guard(STOP, "42000"), a_guard(TRAIL)], [a_guard(PROFIT, "44000"), a_guard(PROFIT, "45000")],
     [a_guard(STOP, "42000"), a_guard(TRAIL), a_guard(PROFIT, "44000")],
     [a_guard(STOP, "42000"), a_guard(PROFIT, "44000"), a_limit("45000", side=Side.SELL)],
     [a_guard(STOP, "42000"), a_guard(PROFIT, "44000", quantity=D("0.002"))],
     [a_guard(STOP, "42000", quantity=None), a_guard(PROFIT, "44000", quantity=None)],
     [a_guard(STOP, "44000", side=Side.BUY), a_guard(PROFIT, "42000", side=Side.BUY)],
     [a_guard(STOP), a_guard(PROFIT, "44000")], [a_guard(STOP, "42000"), a_guard(PROFIT)],
     [a_guard(TRAIL, trailing_percent=None), a_guard(PROFIT, "44000")], [a_guard(STOP)], [a_guard(PROFIT)],
     [a_guard(TRAIL, trailing_percent=None)]],
    ids=["two stops", "two take-profits", "three", "one of another kind", "two quantities", "no quantity",
         "a short position",
         "a stop without a price", "a take-profit without a price", "a trailing stop without a distance",
         "only a stop without a price", "only a take-profit without a price", "only a trailing stop with no distance"],
)  # fmt: skip
def test_protection_that_spot_does_not_have_is_not_sent(
    exchange: FakeBinance, holder: BinanceClient, orders: list[Order]
) -> None:
    for outcome in holder.protect(orders):
        assert isinstance(outcome, Refused)
        assert not outcome.never_left
    assert exchange.requests == []


def test_what_kinds_of_order_a_market_takes_is_told_in_our_words() -> None:
    row = SYMBOLS["BTCUSDT"]
    assert _rules(row).order_types == {"MARKET", "LIMIT", "STOP", "TAKE_PROFIT", "TRAILING_STOP"}
    assert _rules(row | {"allowTrailingStop": False}).order_types == {"MARKET", "LIMIT", "STOP", "TAKE_PROFIT"}
    assert _rules(row | {"orderTypes": ["LIMIT"]}).order_types == {"LIMIT", "TAKE_PROFIT"}


# --- what others did ----------------------------------------------------------------------------------------------


def test_trades_are_told_by_order_whoever_sent_it(exchange: FakeBinance, client: BinanceClient) -> None:
    since = datetime.now(UTC) - timedelta(seconds=1)
    exchange.set_book("BTCUSDT", asks=[("43000", "0.0004"), ("43001", "0.0006")], bids=[("42990", "1")])
    placed(client, an_order())
    placed(client, an_order(side=Side.SELL, quantity=D("0.0005")))
    bought, sold = client.trades_since("BTCUSDT", since)
    assert (bought.side, bought.quantity, bought.quote) == (Side.BUY, D("0.001"), D("43.0006"))
    assert (sold.side, sold.quantity, sold.quote) == (Side.SELL, D("0.0005"), D("21.495"))
    assert [bought.exchange_order_id, sold.exchange_order_id] == list(ids_there(exchange).values())
    assert (bought.fees, bought.position_side, bought.last_at.tzinfo) == ((Fee("BTC", D("0.000001")),), "", UTC)
    assert client.trades_since("BTCUSDT", sold.last_at + timedelta(milliseconds=1)) == []
    assert client.trades_since("ETHUSDT", since) == []


def past_trade(number: int, time_ms: int) -> Trade:
    return Trade(number, 7, "BTCUSDT", D(43000), D("0.001"), ZERO, "BTC", time_ms, is_buyer=True, is_maker=False)


def test_trades_of_days_are_read_day_by_day(exchange: FakeBinance, client: BinanceClient) -> None:
    now = exchange.now_ms()
    exchange._engine.trades += [past_trade(n, now - hours * 3_600_000) for n, hours in enumerate((73, 71, 25, 24, 0))]
    (order,) = client.trades_since("BTCUSDT", datetime.now(UTC) - timedelta(hours=72))
    assert order.quantity == D("0.004")
    assert len(exchange.calls("GET /api/v3/myTrades")) <= 4


def test_where_the_newest_trades_do_not_reach_back_far_enough_they_are_read_day_by_day(
    exchange: FakeBinance, client: BinanceClient
) -> None:
    now, hours = exchange.now_ms(), (73, 71, *([25] * 1_200), 24, 0)
    exchange._engine.trades += [past_trade(n, now - ago * 3_600_000) for n, ago in enumerate(hours)]
    (order,) = client.trades_since("BTCUSDT", datetime.now(UTC) - timedelta(hours=72))
    assert order.quantity == D("1.203")


def test_what_was_traded_in_half_a_year_is_one_question(exchange: FakeBinance, client: BinanceClient) -> None:
    now = exchange.now_ms()
    exchange._engine.trades += [past_trade(n, now - days * 86_400_000) for n, days in enumerate((171, 169, 90, 0))]
    (order,) = client.trades_since("BTCUSDT", datetime.now(UTC) - timedelta(days=170))
    assert order.quantity == D("0.003")
    assert len(exchange.calls("GET /api/v3/myTrades")) == 1


@pytest.mark.parametrize("in_a_millisecond", [1, 3, 700, 2_500])
def test_more_trades_than_fit_into_an_answer_are_read_page_by_page(
    exchange: FakeBinance, client: BinanceClient, in_a_millisecond: int
) -> None:
    start = exchange.now_ms() - 5_000_000
    exchange._engine.trades += [past_trade(n, start + n // in_a_millisecond) for n in range(2_500)]
    (order,) = client.trades_since("BTCUSDT", datetime.now(UTC) - timedelta(hours=2))
    assert order.quantity == D("2.5")


def test_everything_that_waits_is_told_and_can_be_cancelled(exchange: FakeBinance, holder: BinanceClient) -> None:
    limit, pair = a_limit("42000"), [a_guard(STOP, "42000"), a_guard(PROFIT, "44000")]
    placed(holder, limit)
    holder.protect(pair)
    strays = holder.open_orders()
    wanted = {RestsThere("BTCUSDT", order.client_order_id, False) for order in (limit, *pair)}
    assert (set(strays), len(strays)) == (wanted, 3)
    for stray in strays:
        holder.cancel_stray(stray)
    assert holder.open_orders() == []
    exchange.fail_next("status", where="DELETE *", status=502)
    with pytest.raises(BrokerError):
        holder.cancel_stray(strays[0])
    exchange.fail_next("stall", where="DELETE *")
    with pytest.raises(BrokerError):
        a_client(exchange, 0.3).cancel_stray(strays[0])


# --- as users of Binance clients know it --------------------------------------------------------------------------


def test_the_familiar_calls_do_what_they_say(exchange: FakeBinance, client: BinanceClient) -> None:
    assert client.get_account_balance() == 1000
    assert client.get_account_balance("BTC") == 0
    assert client.get_current_price("BTCUSDT") == 43000
    assert client.calculate_buy_quantity("BTCUSDT", D(50)) == D("0.00116")
    assert client.calculate_buy_quantity("BTCUSDT", D("0.4")) == 0
    bought = client.place_buy_order("BTCUSDT", "buy_1", amount=D(43))
    assert isinstance(bought, Done)
    assert (bought.execution.status, bought.execution.executed_quantity) == (S.FILLED, D("0.001"))
    assert client.get_account_balance("BTC") == D("0.000999")
    assert client.get_order_status("BTCUSDT", "buy_1") == Found(bought.execution)
    assert isinstance(client.place_sell_order("BTCUSDT", "sell_1", quantity=D("0.0009"), price=D(44000)), Done)
    cancelled = client.cancel_order("BTCUSDT", "sell_1")
    assert isinstance(cancelled, Found)
    assert cancelled.execution.status is S.CANCELED
    assert client.get_account_balance("BTC") == D("0.000999")
    assert [order.client_id for order in exchange.orders] == ["buy_1", "sell_1"]
    assert isinstance(client.get_order_status("BTCUSDT", "never_1"), NotFound)


# --- the same cases on paper and at the exchange ------------------------------------------------------------------


@dataclass(frozen=True)
class Desk:
    """A broker with 1000 USDT where BTCUSDT is at 43000, and a way to move the price."""

    broker: Broker
    move_price: Callable[[str], None]

    def order(self, **changes: Any) -> Order:
        return an_order(**{"rules": self.broker.symbol_rules("BTCUSDT")} | changes)

    def limit(self, price: str, **changes: Any) -> Order:
        return self.order(type=OrderType.LIMIT, price=D(price), reference_price=None, **changes)

    def balance(self, asset: str) -> Balance:
        return self.broker.balances().get(asset, Balance())


@pytest.fixture(params=["paper", "binance"])
def desk(request: pytest.FixtureRequest, exchange: FakeBinance) -> Desk:
    if request.param == "binance":
        client = a_client(exchange)
        client.connect()
        return Desk(client, lambda price: exchange.set_price("BTCUSDT", price))
    paper = PaperClient(D(1000))
    paper.saw_price("BTCUSDT", D(43000))
    return Desk(paper, lambda price: paper.saw_price("BTCUSDT", D(price)))


def test_a_market_buy_fills_at_the_price_and_costs_a_fee(desk: Desk) -> None:
    order = desk.order()
    execution = placed(desk.broker, order).execution
    assert (execution.status, execution.executed_quantity, execution.executed_quote) == (S.FILLED, D("0.001"), D(43))
    assert execution.fees == (Fee("BTC", D("0.000001")),)
    assert execution.exchange_order_id
    assert desk.balance("USDT") == Balance(D(957), ZERO)
    assert desk.balance("BTC") == Balance(D("0.000999"), ZERO)
    assert found(desk.broker, order).execution == execution


def test_a_market_buy_by_amount_never_costs_more(desk: Desk) -> None:
    execution = placed(desk.broker, desk.order(quantity=None, amount=D(50))).execution
    assert execution.status is S.FILLED
    assert D(49) < execution.executed_quote <= 50
    assert desk.balance("USDT").free == 1000 - execution.executed_quote


def test_a_market_sell_brings_the_price_less_the_fee(desk: Desk) -> None:
    placed(desk.broker, desk.order(quantity=D("0.002")))
    execution = placed(desk.broker, desk.order(side=Side.SELL)).execution
    assert seen(execution.status, execution.executed_quote) == (S.FILLED, 43)
    assert execution.fees == (Fee("USDT", D("0.043")),)
    assert desk.balance("USDT").free == D("956.957")


def test_an_order_beyond_the_balance_is_refused_and_certainly_not_placed(desk: Desk) -> None:
    for order in (desk.order(quantity=D("0.1")), desk.order(side=Side.SELL), desk.limit("42000", quantity=D("0.1"))):
        outcome = desk.broker.place(order)
        assert isinstance(outcome, Refused)
        assert not outcome.never_left
        assert "insufficient balance" in outcome.reason.lower()
        assert desk.broker.look_up(order) == NotFound()
    assert desk.balance("USDT") == Balance(D(1000), ZERO)


def test_a_limit_order_rests_locks_its_money_and_gives_it_back(desk: Desk) -> None:
    order = desk.limit("40000")
    execution = placed(desk.broker, order).execution
    assert seen(execution.status, execution.executed_quantity, execution.fees) == (S.NEW, 0, ())
    assert desk.balance("USDT") == Balance(D(960), D(40))
    assert found(desk.broker, order).execution == execution
    for _ in range(2):
        cancelled = desk.broker.cancel(order)
        assert isinstance(cancelled, Found)
        assert seen(cancelled.execution.status, cancelled.execution.executed_quantity) == (S.CANCELED, 0)
    assert desk.balance("USDT") == Balance(D(1000), ZERO)


def test_what_is_locked_cannot_be_spent_twice(desk: Desk) -> None:
    placed(desk.broker, desk.limit("40000", quantity=D("0.02")))
    assert isinstance(desk.broker.place(desk.order(quantity=D("0.005"))), Refused)
    placed(desk.broker, desk.order(quantity=D("0.004")))


def test_a_limit_order_fills_when_the_price_comes(desk: Desk) -> None:
    order = desk.limit("42000")
    placed(desk.broker, order)
    desk.move_price("42000.01")
    assert found(desk.broker, order).execution.status is S.NEW
    desk.move_price("42000")
    execution = found(desk.broker, order).execution
    assert (execution.status, execution.executed_quantity, execution.executed_quote) == (S.FILLED, D("0.001"), D(42))
    assert execution.fees == (Fee("BTC", D("0.000001")),)
    assert desk.balance("USDT") == Balance(D(958), ZERO)
    late = desk.broker.cancel(order)
    assert isinstance(late, Found)
    assert late.execution == execution


def test_a_limit_sell_locks_what_it_sells(desk: Desk) -> None:
    placed(desk.broker, desk.order(quantity=D("0.002")))
    placed(desk.broker, desk.limit("44000", side=Side.SELL))
    assert desk.balance("BTC") == Balance(D("0.000998"), D("0.001"))
    assert isinstance(desk.broker.place(desk.order(side=Side.SELL)), Refused)
    desk.move_price("44000")
    assert desk.balance("BTC") == Balance(D("0.000998"), ZERO)
    assert desk.balance("USDT").free == 1000 - 86 + 44 - D("0.044")


def test_a_limit_order_that_crosses_fills_at_once(desk: Desk) -> None:
    execution = placed(desk.broker, desk.limit("43500")).execution
    assert (execution.status, execution.executed_quantity) == (S.FILLED, D("0.001"))
    assert execution.executed_quote <= D("43.5")


def test_an_order_that_was_never_sent_is_not_found(desk: Desk) -> None:
    assert desk.broker.look_up(desk.order()) == NotFound()
    assert desk.broker.cancel(desk.order()) == NotFound()


def test_a_symbol_that_is_not_traded_is_told(desk: Desk) -> None:
    with pytest.raises(UnknownSymbol):
        desk.broker.symbol_rules("BTCEUR")


def test_a_price_is_told_or_an_error(desk: Desk) -> None:
    assert desk.broker.current_price("BTCUSDT") == 43000
    desk.move_price("42000")
    assert desk.broker.current_price("BTCUSDT") == 42000
    with pytest.raises(BrokerError):
        desk.broker.current_price("NOPEUSDT")


def test_the_broker_says_who_it_is(desk: Desk) -> None:
    assert desk.broker.name in ("PAPER", "BINANCE")
    assert desk.broker.is_local is (desk.broker.name == "PAPER")
    assert desk.broker.absence_is_proven_after_seconds == (0 if desk.broker.is_local else 15)
    assert desk.broker.account == Account(desk.broker.name, Market.SPOT)


def test_spot_has_no_positions_and_no_leverage_to_set(desk: Desk) -> None:
    desk.broker.prepare("BTCUSDT", D(1))
    assert list(desk.broker.positions()) == []


def test_where_nothing_happened_nothing_is_told(desk: Desk) -> None:
    assert list(desk.broker.open_orders()) == []
    assert list(desk.broker.trades_since("BTCUSDT", datetime.now(UTC))) == []
    desk.broker.cancel_stray(RestsThere("BTCUSDT", "never_1", False))
