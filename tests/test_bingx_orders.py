"""BingX's parameters, signatures, replies and codes, by cases that nobody on this project wrote (tests/data)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from builders import NOW, an_order

import bingx_client
import bingx_orders
import bingx_spot
from bingx_client import BingxSwap
from bingx_link import BingxLink, is_no_such_order
from bingx_orders import BingxError, CannotSend, data_of, query_of
from bingx_spot import BingxSpot
from broker import BrokerError, Refused, Unknown
from broker_http import NeverSent
from intents import new_id
from models import Fee, Market, Order, OrderStatus, OrderType, RestsThere, Side
from reply_values import BadReply, unsigned

CASES = json.loads((Path(__file__).parent / "data" / "bingx_cases.json").read_text())
SIGNED = [case for case in CASES["signed_vectors"] if case["signature"]]
PUBLIC = [case for case in CASES["signed_vectors"] if not case["signature"]]
D = Decimal


def order(kind: str = "MARKET", side: str = "BUY", market: Market = Market.FUTURES, **more: Any) -> Order:
    made = an_order(
        broker="BINGX", market=market, type=OrderType(kind), side=Side(side), amount=None, client_order_id="myorder1"
    )
    return replace(made, **more)


def spot(kind: str = "MARKET", side: str = "BUY", **more: Any) -> Order:
    return order(kind, side, Market.SPOT, **more)


# ---- requests


@pytest.mark.parametrize("case", SIGNED, ids=lambda case: case["description"])
def test_a_signed_request_is_the_same_byte_for_byte(case: dict[str, Any]) -> None:
    assert query_of(case["params"], "test-secret") == case["url"].partition("?")[2]


@pytest.mark.parametrize("case", PUBLIC, ids=lambda case: case["description"])
def test_a_public_request_is_the_same_byte_for_byte(case: dict[str, Any]) -> None:
    assert query_of(case["params"]) == case["url"].partition("?")[2]


@pytest.mark.parametrize("case", CASES["doc_signatures"], ids=lambda case: case["string_signed"])
def test_the_documents_own_samples_are_signed_as_openssl_does_it(case: dict[str, Any]) -> None:
    parameters = dict(parse_qsl(case["string_signed"]))
    assert query_of(parameters, case["secret"]).endswith(f"&signature={case['openssl_signature']}")


@pytest.mark.parametrize("case", CASES["fixtures"], ids=lambda case: f"{case['ccxt_method']} {case['description']}")
def test_every_recorded_request_is_encoded_the_same(case: dict[str, Any]) -> None:
    sent = [part for part in urlsplit(case["fixture_url"]).query.split("&") if part]
    told = dict(parse_qsl("&".join(sent), keep_blank_values=True))
    told.pop("signature", None)
    wanted = sorted(part for part in sent if not part.startswith(("signature=", "timestamp=")))
    told.pop("timestamp", None)
    assert query_of(told).split("&") == (wanted or [""])


class Recorder:
    """In place of the network: keeps what would have been sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, dict[str, str]]] = []

    def ask(self, method: str, target: str, **more: object) -> NeverSent:
        path, _, query = target.partition("?")
        parameters = dict(parse_qsl(query))
        for name in ("timestamp", "signature"):
            parameters.pop(name, None)
        self.sent.append((method, path, parameters))
        return NeverSent("a recording")


def recorded(market: type[BingxLink], act: Callable[[Any], object], *, hedge_mode: bool = False) -> Any:
    """The first request that `act` would send."""
    broker = market("key", "secret", demo=False)
    broker._http = recorder = Recorder()  # type: ignore[assignment]
    if isinstance(broker, BingxSwap):
        broker._hedge_mode = hedge_mode
        broker._leverages = {"LTCUSDT": 1, "BTCUSDT": 1}
    try:
        act(broker)
    except (BrokerError, BingxError):
        pass
    return recorder.sent[0]


def placed(made: Order) -> Any:
    market = BingxSpot if made.market is Market.SPOT else BingxSwap
    return recorded(market, lambda broker: broker.place(made))


LTC: dict[str, Any] = {"symbol": "LTCUSDT"}
STRAY = RestsThere("LTCUSDT", "myorder2", False)
# What we send for the cases that we have a use for, by their description.
OURS: dict[str, Callable[[], Any]] = {
    "Spot market buy (quote cost)": lambda: placed(spot(amount=D(5), **LTC)),
    "Spot limit buy order": lambda: placed(spot("LIMIT", quantity=D("0.0002"), price=D(25000))),
    "spot market sell using base amount": lambda: placed(spot(side="SELL", quantity=D("0.1"), **LTC)),
    "spot market buy using base amount": lambda: placed(spot(quantity=D("0.1"), **LTC)),
    "spot order with clientOrderId": lambda: placed(spot("LIMIT", quantity=D("0.1"), price=D(50), **LTC)),
    "spot market buy for 10 quote units": lambda: placed(spot(amount=D(10))),
    "Swap market buy order": lambda: placed(order(quantity=D("0.1"), **LTC)),
    "Swap limit buy order": lambda: placed(order("LIMIT", quantity=D("0.0001"), price=D(25000))),
    "swap order with clientOrderId": lambda: placed(order("LIMIT", quantity=D("0.1"), price=D(50), **LTC)),
    "swap create IOC order": lambda: placed(
        order("LIMIT", quantity=D("0.1"), price=D(50), time_in_force="IOC", **LTC)
    ),
    "swap create PO order": lambda: placed(order("LIMIT", quantity=D("0.1"), price=D(50), time_in_force="GTX", **LTC)),
    "swap reduceOnly order": lambda: placed(order(side="SELL", quantity=D("0.1"), is_entry=False, **LTC)),
    "Spot cancel order": lambda: recorded(
        BingxSpot, lambda broker: broker.cancel(spot(exchange_order_id="1720645449355886592"))
    ),
    "Swap cancel order": lambda: recorded(
        BingxSwap, lambda broker: broker.cancel(order(exchange_order_id="1720647776204967936"))
    ),
    "Spot cancel order with clientOrderId": lambda: recorded(BingxSpot, lambda broker: broker.cancel_stray(STRAY)),
    "Swap cancel order with clientOrderId": lambda: recorded(BingxSwap, lambda broker: broker.cancel_stray(STRAY)),
    "fetchOrder swap": lambda: recorded(
        BingxSwap, lambda broker: broker.look_up(order(exchange_order_id="1755604122901639168", **LTC))
    ),
    "fetchOrder spot": lambda: recorded(
        BingxSpot, lambda broker: broker.look_up(spot(exchange_order_id="1755603500760301568", **LTC))
    ),
    "fetchBalance spot": lambda: recorded(BingxSpot, lambda broker: broker.balances()),
    "fetchBalance swap": lambda: recorded(BingxSwap, lambda broker: broker.balances()),
    "fetchPosition": lambda: recorded(BingxSwap, lambda broker: broker.prepare("LTCUSDT", D(1))),
    "fetchPositionMode": lambda: recorded(BingxSwap, lambda broker: broker._read_position_mode()),
    "fetchLeverage": lambda: recorded(
        BingxSwap, lambda broker: broker._ask("GET", bingx_client.LEVERAGE_PATH, symbol="BTC-USDT")
    ),
    "setLeverage": lambda: recorded(
        BingxSwap,
        lambda broker: broker._ask("POST", bingx_client.LEVERAGE_PATH, symbol="BTC-USDT", side="BOTH", leverage="10"),
    ),
    "setMarginMode": lambda: recorded(
        BingxSwap,
        lambda broker: broker._ask("POST", bingx_client.MARGIN_PATH, symbol="BTC-USDT", marginType="ISOLATED"),
    ),
    "fetchTime": lambda: recorded(BingxSwap, lambda broker: broker.keep_warm()),
    "Swap open orders": lambda: recorded(
        BingxSwap, lambda broker: broker.look_up(order("STOP", "SELL", is_entry=False, stop_price=D(50), **LTC))
    ),
    "Linear swap fetch closed orders": lambda: recorded(
        BingxSwap, lambda broker: broker.trades_since("LTCUSDT", datetime.now(UTC))
    ),
    "Swap attach a take profit market order to an existing long position": lambda: placed(
        order("TAKE_PROFIT", "SELL", is_entry=False, stop_price=D(40000))
    ),
    "Swap attach a stop loss market order to an existing long position": lambda: placed(
        order("STOP", "SELL", is_entry=False, stop_price=D(30000))
    ),
}  # fmt: skip
# What we never send, and why.
NOT_OURS = {
    "Swap order with attached tp and sl": "an entry's protection is placed after its fill, from the price that it got",
    "Swap send test order": "keys are tested by reading the position mode and the balance, not with orders",
    "Swap ticker (public, unsigned)": "prices are asked for at ticker/price, which has nothing else in it",
}
# What ours say besides, or in another way: of a list its span, of an order its id, of protection that it closes all.
SPAN = {"startTime", "endTime", "limit"}
OURS_SAY = {
    "Linear swap fetch closed orders": (SPAN, set()),
    **{
        f"Swap attach a {kind} market order to an existing long position": (
            {"closePosition", "workingType"},
            {"quantity"},
        )
        for kind in ("take profit", "stop loss")
    },
}
# Which fixture a key of OURS is about, where the descriptions alone do not tell.
BY_PATH = {
    "fetchOrder swap": ("fetchOrder", "swap"), "fetchOrder spot": ("fetchOrder", "spot"),
    "fetchBalance spot": ("fetchBalance", "spot"), "fetchBalance swap": ("fetchBalance", "swap"),
    "fetchPosition": ("fetchPosition", "swap"), "fetchPositionMode": ("fetchPositionMode", "swap"),
    "fetchLeverage": ("fetchLeverage", "swap"), "setLeverage": ("setLeverage", "swap"),
    "setMarginMode": ("setMarginMode", "swap"), "fetchTime": ("fetchTime", "swap"),
}  # fmt: skip


def fixture(name: str) -> dict[str, Any]:
    method, market = BY_PATH.get(name, ("", ""))
    for case in CASES["fixtures"]:
        if case["description"] == name or (case["ccxt_method"] == method and f"/{market}/" in case["path"]):
            return dict(case)
    raise LookupError(name)


@pytest.mark.parametrize("name", OURS)
def test_what_we_send_is_what_was_recorded(name: str) -> None:
    case = fixture(name)
    method, path, parameters = OURS[name]()
    for id_name in ("clientOrderID", "newClientOrderId"):
        if id_name not in case["params"]:
            parameters.pop(id_name, None)  # ours always carry an id
    more, less = OURS_SAY.get(name, (set(), set()))
    assert more <= parameters.keys()
    said = {key: value for key, value in parameters.items() if key not in more}
    wanted = {key: value for key, value in case["params"].items() if key not in less}
    assert (method, path, said) == (case["http_method"], case["path"], wanted)


def test_no_recorded_request_is_left_out() -> None:
    known = [fixture(name) for name in OURS] + [fixture(name) for name in NOT_OURS]
    assert [case["description"] for case in CASES["fixtures"] if case not in known] == []
    assert len(OURS) + len(NOT_OURS) == len(CASES["fixtures"])


def test_in_hedge_mode_the_side_of_the_position_says_what_an_order_closes() -> None:
    closing = order(side="SELL", quantity=D("0.001"), is_entry=False)
    sent = recorded(BingxSwap, lambda broker: broker.place(closing), hedge_mode=True)[2]
    assert (sent["side"], sent["positionSide"], "reduceOnly" in sent) == ("SELL", "LONG", False)
    opening = replace(closing, is_entry=True)
    assert recorded(BingxSwap, lambda broker: broker.place(opening), hedge_mode=True)[2]["positionSide"] == "SHORT"


@pytest.mark.parametrize(("kind", "there"), [("STOP", "STOP_MARKET"), ("TAKE_PROFIT", "TAKE_PROFIT_MARKET")])
@pytest.mark.parametrize(("hedge_mode", "position_side"), [(False, "BOTH"), (True, "LONG")])
def test_protection_closes_the_whole_position_and_carries_no_id(
    kind: str, there: str, hedge_mode: bool, position_side: str
) -> None:
    made = order(kind, "SELL", is_entry=False, stop_price=D("40000.50"))
    assert recorded(BingxSwap, lambda broker: broker.place(made), hedge_mode=hedge_mode)[2] == {
        "symbol": "BTC-USDT", "side": "SELL", "positionSide": position_side, "type": there, "stopPrice": "40000.5",
        "closePosition": "true", "workingType": "MARK_PRICE",
    }  # fmt: skip


@pytest.mark.parametrize(
    "made",
    [
        order("STOP", "SELL", is_entry=False),
        order("STOP", "SELL", is_entry=False, stop_price=D(1), quantity=D(1)),
        order("STOP", "BUY", stop_price=D(1)),
        order("TRAILING_STOP", "SELL", is_entry=False, quantity=D(1), trailing_percent=D(1)),
        order("LIMIT", quantity=D(1)),
        order(amount=D(10)),
        order(quantity=D(1), symbol="BTCEUR"),
    ],
    ids=lambda made: f"{made.type} {made.symbol}",
)
def test_what_bingx_has_no_order_for_is_not_sent(made: Order) -> None:
    with pytest.raises(CannotSend):
        bingx_orders.swap_parameters(made, hedge_mode=False)


def test_our_ids_are_letters_and_digits_alone_as_bingx_asks_for_the_swap() -> None:
    """BingX-API/api-ai-skills, swap-trade: "Alphanumeric only, 1 to 40"; its documentation says less."""
    ids = {new_id("gh", NOW) for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch("[a-z][a-z0-9]{1,39}", each) for each in ids)


def test_a_quantity_is_never_written_with_an_exponent() -> None:
    assert bingx_orders.swap_parameters(order(quantity=D("1E-7")), hedge_mode=False)["quantity"] == "0.0000001"


@pytest.mark.parametrize(
    ("symbol", "there"), [("BTCUSDT", "BTC-USDT"), ("1000PEPEUSDC", "1000PEPE-USDC"), ("USDCUSDT", "USDC-USDT")]
)
def test_a_symbol_is_written_with_a_hyphen_there(symbol: str, there: str) -> None:
    assert bingx_orders.there(symbol) == there
    assert bingx_orders.here(there) == symbol


@pytest.mark.parametrize("symbol", ["USDT", "BTC", "BTCEUR", ""])
def test_a_symbol_in_another_currency_is_not_guessed(symbol: str) -> None:
    with pytest.raises(CannotSend):
        bingx_orders.there(symbol)


# ---- replies

RESPONSES = {case["what"]: case for case in CASES["responses"]}


def reply(what: str) -> Any:
    case = next(case for name, case in RESPONSES.items() if name.startswith(what))
    return data_of(json.dumps(case["body"]).encode(), 200)


SWAP_RULES = ("BTCUSDT", "BTC", "USDT", D("0.0001"), D("0.1"), D("0.0001"), D(2), True, False)
SPOT_RULES = ("BTCUSDT", "BTC", "USDT", D("0.00001"), D("0.01"), D(0), D(5), True, True)
S = OrderStatus
# What each recorded reply is to us.
READ: dict[str, Callable[[], tuple[object, object]]] = {
    "swap place order, current flat": lambda: (
        bingx_orders.order_in(reply("swap place order, current"))["orderId"], "2075327018132791296"),
    "swap place order, nested": lambda: (
        bingx_orders.order_in(reply("swap place order, nested"))["orderId"], "1751667285204103168"),
    "spot place order (limit)": lambda: (
        bingx_orders.spot_execution(bingx_orders.order_in(reply("spot place order (limit)")), []).status, S.NEW),
    "spot place order with newClientOrderId": lambda: (
        bingx_orders.client_id_in(bingx_orders.order_in(reply("spot place order with"))), "test4"),
    "swap cancel": lambda: (
        bingx_orders.swap_execution(bingx_orders.order_in(reply("swap cancel")), "USDT").status, S.CANCELED),
    "spot cancel": lambda: (
        bingx_orders.spot_execution(bingx_orders.order_in(reply("spot cancel")), []).status, S.CANCELED),
    "swap order query": lambda: (
        bingx_orders.swap_execution(bingx_orders.order_in(reply("swap order query")), "USDT").exchange_order_id,
        "1736012449498123500"),
    "spot order query": lambda: (
        bingx_orders.spot_execution(bingx_orders.order_in(reply("spot order query")), []).status, S.NEW),
    "spot filled market order": lambda: (
        bingx_orders.status_in(bingx_orders.orders_in(reply("spot filled market"))[0]), S.FILLED),
    "swap balance v3": lambda: (
        {a: b.free for a, b in bingx_orders.swap_balances(reply("swap balance"), demo=False).items()}, {"USDT": 300}),
    "spot balance": lambda: (
        {a: b.locked for a, b in bingx_orders.spot_balances(reply("spot balance")).items()},
        {"USDT": D("244.18616265388994")}),
    "set leverage": lambda: (reply("set leverage")["leverage"], 8),
    "position mode": lambda: (reply("position mode"), {"dualSidePosition": "true"}),
    "last swap price": lambda: (bingx_orders.swap_prices(reply("last swap"), ["TIAUSDT"]), {"TIAUSDT": D("14.0658")}),
    "swap contract rules": lambda: (_told(bingx_orders.swap_rules(reply("swap contract")[0], demo=False)), SWAP_RULES),
    "spot symbol rules": lambda: (_told(bingx_orders.spot_rules(reply("spot symbol")["symbols"][0])), SPOT_RULES),
}  # fmt: skip


def _told(rules: Any) -> tuple[object, ...]:
    return (rules.symbol, rules.base_asset, rules.quote_asset, rules.quantity_step, rules.price_tick,
            rules.min_quantity, rules.min_notional, rules.trading, rules.quote_amount_allowed)  # fmt: skip


@pytest.mark.parametrize("what", READ)
def test_every_recorded_reply_is_read(what: str) -> None:
    found, wanted = READ[what]()
    assert found == wanted


def test_no_recorded_reply_is_left_out() -> None:
    assert [name for name in RESPONSES if not any(name.startswith(each) for each in READ)] == []


@pytest.mark.parametrize("code", [0, "0"])
def test_a_code_may_be_a_number_or_text(code: object) -> None:
    assert data_of(json.dumps({"code": code, "msg": "", "data": 7}).encode(), 200) == 7
    with pytest.raises(BingxError, match="no"):
        data_of(json.dumps({"code": str(100001), "msg": "no"}).encode(), 200)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"msg":""}', b'{"code":"x"}', b'{"code":0', b"1",
                                  b'{"code":0,"data":NaN}', b"[" * 100_000, b"\xff"])  # fmt: skip
def test_what_is_no_reply_of_bingx_is_told_so(body: bytes) -> None:
    with pytest.raises(BadReply):
        data_of(body, 200)


def test_an_empty_list_may_be_null_and_nothing_else_is_a_list() -> None:
    assert bingx_orders.rows_in(None) == []
    others: tuple[Any, ...] = ({}, {"orders": []}, "", 0)
    for data in others:
        with pytest.raises(BadReply):
            bingx_orders.rows_in(data)


def test_code_0_with_a_failed_status_is_no_success() -> None:
    with pytest.raises(BingxError):
        data_of(b'{"code":0,"data":{}}', 504)


def test_a_number_keeps_every_digit_that_is_written() -> None:
    data = data_of(b'{"code":0,"data":{"free":0.12345678901234567891}}', 200)
    assert unsigned(data, "free") == D("0.12345678901234567891")


def test_an_order_id_of_19_digits_keeps_every_digit() -> None:
    data = data_of(b'{"code":0,"data":{"order":{"orderId":2075327018132791297}}}', 200)
    assert str(bingx_orders.order_in(data)["orderId"]) == "2075327018132791297"


ROW = {"symbol": "BTC-USDT", "orderId": 7, "side": "BUY", "status": "FILLED", "executedQty": "0.5",
       "avgPrice": "40000.5", "cumQuote": "20000", "commission": "-10.00", "clientOrderId": "myorder1"}  # fmt: skip


def test_what_was_paid_is_reckoned_by_the_average_price_and_a_negative_commission_is_a_fee() -> None:
    done = bingx_orders.swap_execution(ROW, "USDT")
    assert (done.status, done.executed_quantity, done.executed_quote) == (S.FILLED, D("0.5"), D("20000.25"))
    assert done.fees == (Fee("USDT", D(10)),)
    rebate = bingx_orders.swap_execution({**ROW, "commission": "1.5"}, "USDT")
    assert rebate.fees == (Fee("USDT", D("-1.5")),)


@pytest.mark.parametrize(("row", "traded"), [({}, False), ({"executedQty": ""}, False), ({"executedQty": "0.1"}, True)])
def test_an_order_that_tells_no_quantity_does_not_hide_the_trades_of_others(row: dict[str, str], traded: bool) -> None:
    assert bingx_orders.has_traded(row) is traded


def test_executed_without_a_price_is_not_believed() -> None:
    with pytest.raises(BadReply):
        bingx_orders.swap_execution({**ROW, "avgPrice": "0.0000"}, "USDT")


@pytest.mark.parametrize(
    ("status", "executed", "means"),
    [
        ("NEW", "0", S.NEW), ("PENDING", "0", S.NEW), ("PENDING", "0.1", S.PARTIALLY_FILLED),
        ("FILLED", "1", S.FILLED), ("PARTIALLY_FILLED", "0.1", S.PARTIALLY_FILLED), ("CANCELLED", "0.1", S.CANCELED),
        ("CANCELED", "0", S.CANCELED), ("FAILED", "0", S.REJECTED), ("FAILED", "0.1", S.CANCELED),
        ("EXPIRED", "0", S.EXPIRED),
    ],
)  # fmt: skip
def test_a_status_is_one_of_ours(status: str, executed: str, means: OrderStatus) -> None:
    assert bingx_orders.status_in({"status": status, "executedQty": executed}) is means


@pytest.mark.parametrize("row", [{"status": "TRIGGERED", "executedQty": "0"}, {"executedQty": "0"}, {"status": "NEW"},
                                 {"status": "NEW", "executedQty": "-1"},
                                 {"status": "NEW", "executedQty": ""}])  # fmt: skip
def test_a_status_that_is_not_known_is_not_guessed(row: dict[str, str]) -> None:
    with pytest.raises(BadReply):
        bingx_orders.status_in(row)


@pytest.mark.parametrize("echo", ["myorder1", "MYORDER1", "m******1", ""])
def test_a_reply_about_our_order_is_ours_however_its_id_is_echoed(echo: str) -> None:
    bingx_orders.check_is_ours(order(), {**ROW, "clientOrderId": echo})


@pytest.mark.parametrize("change", [{"clientOrderId": "other"}, {"symbol": "ETH-USDT"}, {"side": "SELL"}])
def test_a_reply_about_another_order_is_not_ours(change: dict[str, str]) -> None:
    with pytest.raises(BadReply):
        bingx_orders.check_is_ours(order(), ROW | change)


FILL = {"orderId": 7, "qty": "0.1", "quoteQty": "5", "commission": -0.001, "commissionAsset": "BTC", "time": 1,
        "isBuyer": True}  # fmt: skip
SPOT_ROW = {"orderId": 7, "status": "FILLED", "executedQty": "0.2", "cummulativeQuoteQty": "10"}


def test_on_spot_the_fees_are_those_of_its_trades_once_they_add_up() -> None:
    done = bingx_orders.spot_execution(SPOT_ROW, [FILL, {**FILL, "commissionAsset": "USDT"}])
    assert done.fees == (Fee("BTC", D("0.001")), Fee("USDT", D("0.001")))
    with pytest.raises(BadReply):
        bingx_orders.spot_execution(SPOT_ROW, [FILL])


def test_play_money_counts_in_the_demo_and_nowhere_else() -> None:
    rows = [{"asset": "VST", "balance": "100", "availableMargin": "90"}]
    assert bingx_orders.swap_balances(rows, demo=True)["VST"].free == 90
    assert bingx_orders.swap_balances(rows, demo=False) == {}
    assert "VST" not in bingx_orders.spot_balances({"balances": [{"asset": "VST", "free": "9", "locked": "0"}]})
    row = reply("swap contract")[0]
    assert bingx_orders.swap_rules(row, demo=True).quote_asset == "VST"


@pytest.mark.parametrize(
    ("change", "open_for_trading"),
    [({"status": 25, "apiStateOpen": "false"}, True), ({"status": 0}, False), ({"apiStateClose": "false"}, False)],
)
def test_where_only_opening_is_off_a_way_out_is_still_open(change: dict[str, object], open_for_trading: bool) -> None:
    assert bingx_orders.swap_rules(reply("swap contract")[0] | change, demo=False).trading is open_for_trading


@pytest.mark.parametrize("decimals", [-1, "4", None, 99, D("0.5")])
def test_a_precision_that_is_no_number_of_decimals_is_refused(decimals: object) -> None:
    with pytest.raises(BadReply):
        bingx_orders.swap_rules(reply("swap contract")[0] | {"quantityPrecision": decimals}, demo=False)


def test_a_position_is_told_by_its_side_or_by_its_sign_and_parts_belong_together() -> None:
    row = {"symbol": "BTC-USDT", "positionAmt": "0.2", "positionSide": "SHORT", "avgPrice": "100"}
    both = {**row, "symbol": "ETH-USDT", "positionSide": "BOTH", "positionAmt": "-3"}
    found = bingx_orders.positions_in([row, {**row, "avgPrice": "200"}, both, {**row, "positionAmt": "0"}])
    assert [(each.symbol, each.side, each.quantity, each.entry_price) for each in found] == [
        ("BTCUSDT", "SHORT", D("0.4"), D(150)),
        ("ETHUSDT", "SHORT", D(3), D(100)),
    ]
    with pytest.raises(BadReply):
        bingx_orders.positions_in([{**row, "positionSide": ""}])


# ---- codes

NEVER_LEFT, REFUSED, UNKNOWN, GONE = "never left", "refused", "unknown", "no such order"
# By the kind that the data gives each code.
ENDINGS = {
    "auth": REFUSED, "rate": NEVER_LEFT, "funds": REFUSED, "funds (spot)": REFUSED, "order size": REFUSED,
    "position mode mismatch": NEVER_LEFT, "reduce only": REFUSED, "duplicate: the order EXISTS, look it up": UNKNOWN,
    "duplicate": UNKNOWN, "request": REFUSED, "not found": GONE, "not cancellable": UNKNOWN,
    "UNKNOWN outcome": UNKNOWN, "UNKNOWN outcome on place": UNKNOWN, "clock-or-symbol (read msg)": NEVER_LEFT,
}  # fmt: skip


def ending_of(exc: BingxError) -> str:
    broker = BingxSwap("key", "secret", demo=False)
    broker._http = Recorder()  # type: ignore[assignment]
    ending = broker._ending(exc, bingx_client.ORDER_PATH)
    if isinstance(ending, Refused):
        return NEVER_LEFT if ending.never_left else REFUSED
    assert isinstance(ending, Unknown)
    return UNKNOWN


@pytest.mark.parametrize("case", CASES["errors"], ids=lambda case: str(case["code"]))
def test_every_listed_code_has_its_ending(case: dict[str, Any]) -> None:
    code, status = (0, 504) if case["code"] == "HTTP 504" else (case["code"], 200)
    exc = BingxError(code, case["msg"], status)
    wanted = ENDINGS[case["kind"]]
    if wanted == GONE:
        assert is_no_such_order(exc)
        assert ending_of(exc) == UNKNOWN  # of an order that is being placed it says nothing
    else:
        assert ending_of(exc) == wanted
        assert not is_no_such_order(exc)


@pytest.mark.parametrize(
    ("code", "message", "status", "ending"),
    [
        (100421, "Null timestamp or timestamp mismatch", 200, NEVER_LEFT),
        (80014, "timestamp is invalid", 200, NEVER_LEFT),
        (100421, "The symbol you request is not available to place order currently", 200, REFUSED),
        (101209, "The maximum position value for this leverage is 170000 USDT.", 200, REFUSED),
        (101209, "The same order number can only be submitted once within 1 second", 200, UNKNOWN),
        (101400, "duplicate clientOrderID", 200, UNKNOWN),
        (101400, "The clientOrderID has already been used", 200, UNKNOWN),
        (101400, "The trading pair is not available for trading", 200, REFUSED),
        (109400, "timestamp is invalid", 200, NEVER_LEFT),
        (109400, "You have a copy trading signal in process, please try again later.", 200, REFUSED),
        (110406, "Position SL order already exists", 200, UNKNOWN),
        (110407, "Position TP order already exists", 200, UNKNOWN),
        (80001, "service has some errors", 200, UNKNOWN),
        (101204, "Insufficient margin", 502, UNKNOWN),
        (100410, "rate limited", 503, UNKNOWN),
        (987654, "never heard of", 200, UNKNOWN),
        (0, "", 302, UNKNOWN),
        (0, "", 429, NEVER_LEFT),
        (100001, "Signature verification failed", 401, REFUSED),
    ],
)
def test_a_code_means_what_its_text_and_status_say(code: int, message: str, status: int, ending: str) -> None:
    assert ending_of(BingxError(code, message, status)) == ending


# BingX's own list of April 2026 has more codes than its documentation: error-codes.md of BingX-API/api-ai-skills.
JUDGED = (
    101202, 101206, 101210, 101222, 101253, 101413, 101429, 101434, 101461, 101479, 101483, 101484, 101485, 109417,
    109420, 109425, 110203, 110206, 110280, 110287, 110402, 110422, 110424, 110426, 112414, 100441, 101402,
)  # fmt: skip
# "Please retry", "refresh and try again", "canceled because": what became of the order is not said.
LEFT_OPEN = (101214, 101219, 101412, 102201, 109403, 109701, 110500)


@pytest.mark.parametrize("code", JUDGED)
def test_what_bingx_lists_as_judged_is_refused(code: int) -> None:
    assert ending_of(BingxError(code, "as listed")) == REFUSED


@pytest.mark.parametrize("code", LEFT_OPEN)
def test_what_its_list_leaves_open_is_unknown(code: int) -> None:
    assert ending_of(BingxError(code, "as listed")) == UNKNOWN


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (101205, "nothing left to close"),
        (109420, "nothing left to close"),
        (101290, "less is held there"),
        (110203, "less is held there"),
    ],
)
def test_what_cannot_be_closed_says_what_to_look_at(code: int, hint: str) -> None:
    broker = BingxSwap("key", "secret", demo=False)
    ending = broker._ending(BingxError(code, "no"), bingx_client.ORDER_PATH)
    assert hint in ending.reason


def test_how_long_to_be_quiet_is_read_from_the_text() -> None:
    for text in ("will be unblocked after 1727193814249", "can retry after time: 1727193814249"):
        assert bingx_orders.free_again_ms(f"code:100410:…{text}") == 1727193814249
    assert bingx_orders.free_again_ms("rate limited") is None


@pytest.mark.parametrize("message", ["order is already filled, The order doesn't exist", "Request failed", "busy"])
def test_only_a_plain_word_says_that_there_is_no_such_order(message: str) -> None:
    assert not is_no_such_order(BingxError(80018, message))
    assert not is_no_such_order(BingxError(100500, "order not exist"))
    assert not is_no_such_order(BingxError(80016, "order does not exist", 502))


@pytest.mark.parametrize("code", [80016, 109421])
def test_a_code_for_no_such_order_needs_no_text(code: int) -> None:
    assert is_no_such_order(BingxError(code, ""))


def rows_at(*times: int) -> Callable[[int, int], list[Any]]:
    """A list that shows two at most."""
    return lambda start, end: [{"time": time} for time in times if start <= time <= end][:2]


def test_halves_overlap_nowhere_and_leave_nothing_out() -> None:
    link = BingxSwap("key", "secret", demo=False)
    times = [0, 4, 9, 16]
    assert [row["time"] for row in link._every_row(rows_at(*times), 0, 16, 2)] == times


def test_more_in_a_moment_than_a_list_shows_is_not_taken_for_all_of_it() -> None:
    link = BingxSwap("key", "secret", demo=False)
    with pytest.raises(BadReply, match="more in a millisecond"):
        link._every_row(rows_at(4, 4, 4), 0, 9, 2)


def test_the_times_are_those_of_the_documentation() -> None:
    assert BingxSwap.absence_is_proven_after_seconds >= 5 + 10
    assert bingx_spot.IDS_ARE_KNOWN_SECONDS < 2 * 3600
    assert NOW.tzinfo is not None
