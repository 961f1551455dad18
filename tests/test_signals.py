"""Alerts in, signals or helpful refusals out. tests/data/alerts.jsonl and more_alerts.jsonl hold alerts of public
projects and vendors with what each of them means; `means: null` must be refused, `unread` names what keeps an entry
from being made."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from harness import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models import Action, Market, OrderType, Signal
from signals import AlertError, alert_key, claimed_secrets, json_fields, parse_alert

SECRET = "Correct-Horse.Battery_Staple"
DATA = Path(__file__).parent / "data"
FILES = ("alerts.jsonl", "more_alerts.jsonl")
CORPUS = [json.loads(line) for file in FILES for line in (DATA / file).read_text("utf-8").splitlines()]


def parse(text: str) -> Signal:
    return parse_alert(text.encode())


def said(**fields: Any) -> Signal:
    """A buy of BTCUSDT that also says this; None takes a field away."""
    return parse(json.dumps({"symbol": "BTCUSDT", "side": "buy"} | fields))


def refusal(body: str | bytes) -> AlertError:
    with pytest.raises(AlertError) as refused:
        parse_alert(body.encode() if isinstance(body, str) else body)
    return refused.value


def refused(**fields: Any) -> AlertError:
    return refusal(json.dumps({"symbol": "BTCUSDT", "side": "buy"} | fields))


# --- the corpus --------------------------------------------------------------------------------------------------


def _exact(value: Any) -> Any:
    return Decimal(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _same(field: str) -> Callable[[Signal, Any], bool]:
    return lambda signal, meant: getattr(signal, field) == _exact(meant)


def _is_market(signal: Signal, meant: str) -> bool:
    return signal.market is {"perp": Market.FUTURES, "spot": Market.SPOT}[meant]


def _is_size(signal: Signal, meant: float) -> bool:
    return _exact(meant) in (signal.quantity, signal.amount, signal.percent)


def _is_unit(signal: Signal, meant: str) -> bool:
    """Coins, shares and contracts are all base units."""
    if meant in ("base", "shares", "contracts"):
        return signal.quantity is not None and signal.quantity_unit == "base"
    if meant in ("quote", "margin_quote"):
        return signal.amount is not None and signal.amount_is_margin is (meant == "margin_quote")
    percent_of = {"percent_of_equity": "balance", "percent_of_position": "position", "risk_percent": "risk"}
    return signal.percent is not None and signal.percent_of == percent_of[meant]


def _is_time(signal: Signal, meant: str | int) -> bool:
    fired_at = signal.fired_at and signal.fired_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(meant) in (signal.bar_time, fired_at)


def _is_id(signal: Signal, meant: str) -> bool:
    """An id that is ticker-and-time is kept as the time."""
    return signal.order_id == meant or (signal.fired_at is not None and _is_time(signal, meant[-20:]))


def _is_exchange(signal: Signal, meant: str) -> bool:
    return meant in (signal.exchange or signal.broker or meant).lower()  # some bots imply theirs by the address


MEANS: dict[str, Callable[[Signal, Any], bool]] = {
    "side": lambda signal, meant: signal.action.value == meant.upper(),
    "intent": _same("intent"),
    "symbol": _same("symbol"),
    "market": _is_market,
    "exchange": _is_exchange,
    "type": lambda signal, meant: signal.type.value == meant.upper(),
    "quantity": _is_size,
    "quantity_unit": _is_unit,
    "price": _same("price"),
    "price_role": lambda signal, meant: (signal.type in (OrderType.LIMIT, OrderType.STOP_LIMIT)) is (meant == "limit"),
    "stop_price": _same("stop_price"),
    "stop_loss": _same("stop_loss"),
    "stop_loss_percent": _same("stop_loss_percent"),
    "stop_loss_offset": _same("stop_loss_offset"),
    "take_profit": lambda signal, meant: signal.take_profits == (_exact(meant),),
    "take_profits": lambda signal, meant: signal.take_profits == tuple(map(_exact, meant)),
    "take_profit_percent": _same("take_profit_percent"),
    "take_profit_offset": _same("take_profit_offset"),
    "leverage": _same("leverage"),
    "position": _same("market_position"),
    "prev_position": _same("prev_market_position"),
    "position_size": _same("position_size"),
    "reduce_only": _same("reduce_only"),
    "time_in_force": _same("time_in_force"),
    "strategy": _same("strategy"),
    "interval": _same("timeframe"),
    "account": _same("account"),
    "product": _same("product"),
    "order_id": _same("order_id"),
    "id": _is_id,
    "time": _is_time,
    "max_lag": _same("max_age_seconds"),
    "trailing_percent": _same("trailing_percent"),
    "unread": lambda signal, meant: [told.split(" (")[0] for told in signal.unread] == meant,
}
# What the sample means but its text does not say: the bot it was written for knows.
UNSAID = {
    ("artoruotsala/tradingview-binance-bot", "market"),
    ("DogMan7/TradingView-Binance-webhook-server", "market"),
    ("krygonul/binance-webhook-bot", "market"),
    ("krygonul/binance-webhook-bot", "entry_offset"),
}


def _name(line: dict[str, Any]) -> str:
    return f"{CORPUS.index(line)}-{line['source'].removeprefix('github:').split(' ')[0]}"


@pytest.mark.parametrize("line", CORPUS, ids=_name)
def test_every_alert_of_the_corpus_means_what_it_should(line: dict[str, Any]) -> None:
    if line["means"] is None:
        assert str(refusal(line["body"]))
        return
    signal = parse(line["body"])
    repository = line["source"].removeprefix("github:").split(" ")[0]
    stated = {key: meant for key, meant in line["means"].items() if (repository, key) not in UNSAID}
    wrong = {key: meant for key, meant in stated.items() if not MEANS[key](signal, meant)}
    assert not wrong, signal


@pytest.mark.parametrize("line", CORPUS, ids=_name)
def test_nothing_is_invented_that_the_corpus_does_not_mean(line: dict[str, Any]) -> None:
    if (means := line["means"]) is None:
        return
    signal = parse(line["body"])
    assert (signal.type is OrderType.MARKET) or "type" in means or means.get("price_role") == "limit"
    assert (signal.quantity, signal.amount, signal.percent) == (None,) * 3 or "quantity" in means
    assert signal.leverage is None or "leverage" in means
    assert signal.stop_loss is None or "stop_loss" in means
    assert signal.take_profits == () or {"take_profit", "take_profits"} & means.keys()
    assert signal.position_size is None or "position_size" in means
    assert signal.price is None or "price" in means
    assert signal.max_age_seconds is None or "max_lag" in means
    assert not signal.unread or "unread" in means
    assert not signal.reduce_only or "reduce_only" in means or means.get("intent", "") in (
        "close_long", "close_short", "close", "reduce"
    )  # fmt: skip


# --- the formats of the systems that this one replaces -----------------------------------------------------------


def test_format_1_signal_with_confidence() -> None:
    signal = parse('{"secret":"…","symbol":"BTCUSDT","side":"BUY","confidence":75,"strategy":"trend","timeframe":"1h"}')
    assert signal == Signal(Action.BUY, "BTCUSDT", confidence=Decimal(75), strategy="trend", timeframe="1h")


def test_format_2_bingx_amount_in_quote_currency() -> None:
    signal = parse('{"accion":"BUY","ticker":"BTC-USDT","balance":50,"broker":"BINGX"}')
    assert signal == Signal(Action.BUY, "BTCUSDT", broker="BINGX", amount=Decimal(50), quantity_unit="quote")


def test_format_3_quantity_with_a_reference_price() -> None:
    signal = parse(
        '{"action":"buy","symbol":"BTCUSDT","quantity":0.001,"price":45000,"strategy":"ALSAPRO 1",'
        '"time":"2024-01-01T12:00:00Z"}'
    )
    assert signal == Signal(
        Action.BUY,
        "BTCUSDT",
        quantity=Decimal("0.001"),
        quantity_unit="base",
        price=Decimal(45000),
        strategy="ALSAPRO 1",
        bar_time="2024-01-01T12:00:00Z",
    )


def test_format_4_market_order_at_binance() -> None:
    signal = parse('{"broker":"BINANCE","symbol":"BTCUSDT","side":"buy","quantity":0.001,"type":"MARKET"}')
    assert signal == Signal(Action.BUY, "BTCUSDT", broker="BINANCE", quantity=Decimal("0.001"), quantity_unit="base")


def test_format_5_limit_order_at_binance() -> None:
    signal = parse('{"broker":"BINANCE","symbol":"ETHUSDT","side":"sell","quantity":0.1,"type":"LIMIT","price":2500}')
    assert signal == Signal(
        Action.SELL,
        "ETHUSDT",
        broker="BINANCE",
        type=OrderType.LIMIT,
        quantity=Decimal("0.1"),
        quantity_unit="base",
        price=Decimal(2500),
    )


@pytest.mark.parametrize(
    ("broker", "symbol", "quantity"), [("BINANCE_REAL", "BTCUSDT", "0.001"), ("FLATTRADE", "CIPLA", "10")]
)
def test_formats_6_and_7_other_brokers(broker: str, symbol: str, quantity: str) -> None:
    signal = parse(f'{{"broker":"{broker}","symbol":"{symbol}","side":"buy","quantity":{quantity},"type":"MARKET"}}')
    assert signal == Signal(Action.BUY, symbol, broker=broker, quantity=Decimal(quantity), quantity_unit="base")


# --- what to do --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "action", "intent"),
    [
        ("BUY", Action.BUY, None),
        ("Sell", Action.SELL, None),
        ("comprar", Action.BUY, None),
        ("vender", Action.SELL, None),
        ("cerrar", Action.CLOSE, "close"),
        ("long", Action.BUY, "open_long"),
        ("short", Action.SELL, "open_short"),
        ("close", Action.CLOSE, "close"),
        ("EXIT", Action.CLOSE, "close"),
        ("flat", Action.CLOSE, "close"),
        ("ENTER_LONG", Action.BUY, "open_long"),
        ("enter-short", Action.SELL, "open_short"),
        ("closeLong", Action.SELL, "close_long"),
        ("exit short", Action.BUY, "close_short"),
        ("sell_short", Action.SELL, "open_short"),
        ("buy_to_cover", Action.BUY, "close_short"),
        ("cancel", Action.CANCEL, "cancel"),
    ],
)
def test_words_for_actions(word: str, action: Action, intent: str | None) -> None:
    signal = said(side=word)
    assert (signal.action, signal.intent) == (action, intent)


@pytest.mark.parametrize(
    "field", ["action", "side", "order", "signal", "direction", "accion", "order_action", "orderAction", "ORDER-ACTION"]
)
def test_the_action_has_many_names(field: str) -> None:
    assert said(**{"side": None, field: "sell"}).action is Action.SELL


@pytest.mark.parametrize("word", ["purchase", "buyy", "hold", "1", "b", "TP1_HIT", "buy sell", "büy"])
def test_an_unknown_action_is_refused_with_the_known_ones(word: str) -> None:
    error = refused(side=word)
    assert error.field == "side"
    assert repr(word) in str(error)
    assert "buy, sell, long, short, close" in str(error)


@pytest.mark.parametrize("word", [None, "", "  ", True, 1, ["buy"], {"a": 1}])
def test_no_side_is_ever_assumed(word: Any) -> None:
    assert refused(side=word).field in ("action", "side")


def test_an_entry_without_a_direction_is_refused() -> None:
    assert refused(side=None, signal="entry").field == "signal"


def test_a_position_alone_is_not_an_action() -> None:
    assert refused(side=None, market_position="long").field == "action"


@pytest.mark.parametrize("event", ["exit", "close"])
def test_a_stated_position_gives_a_close_its_side(event: str) -> None:
    assert said(side="long", event=event).action is Action.SELL
    assert said(side="short", event=event).action is Action.BUY
    assert said(side="short", event=event).intent == "close_short"


def test_a_close_with_the_side_of_an_order_has_that_side() -> None:
    signal = said(side=None, action="sell", event="EXIT")
    assert (signal.action, signal.intent, signal.reduce_only) == (Action.SELL, "close_long", True)


def test_a_close_with_a_side_that_may_be_the_positions_only_closes() -> None:
    signal = said(side="buy", action="close")
    assert (signal.action, signal.intent, signal.goes_flat) == (Action.CLOSE, "close", True)


def test_verbs_that_close_can_only_reduce() -> None:
    assert said(side="close_long").reduce_only
    assert said(side="close").reduce_only
    assert not said(side="sell").reduce_only


def test_free_text_in_alert_is_not_an_action_but_a_verb_is() -> None:
    assert said(alert="RSI crossed 30").action is Action.BUY
    assert said(side=None, alert="short_open").action is Action.SELL
    assert refused(alert="short_open").field == "alert, side"


def test_is_buy_is_a_side() -> None:
    assert said(side=None, isBuy=False).action is Action.SELL
    assert said(side=None, isBuy="True").action is Action.BUY
    assert refused(isBuy=False).field == "side, isBuy"


@pytest.mark.parametrize(
    ("side", "position_side", "action", "intent"),
    [
        ("BUY", "LONG", Action.BUY, "open_long"),
        ("SELL", "LONG", Action.SELL, "close_long"),
        ("SELL", "SHORT", Action.SELL, "open_short"),
        ("BUY", "SHORT", Action.BUY, "close_short"),
        ("sell", "flat", Action.SELL, "close_long"),
    ],
)
def test_position_side_tells_opening_from_closing(side: str, position_side: str, action: Action, intent: str) -> None:
    signal = said(side=side, positionSide=position_side)
    assert (signal.action, signal.intent) == (action, intent)


@pytest.mark.parametrize(
    ("action", "before", "after", "intent"),
    [
        ("buy", "flat", "long", "open_long"),
        ("buy", "long", "long", "add"),
        ("buy", "short", "long", "reverse_long"),
        ("buy", "short", "flat", "close_short"),
        ("buy", "short", "short", "reduce"),
        ("sell", "long", "short", "reverse_short"),
        ("sell", "long", "long", "reduce"),
        ("sell", "long", "flat", "close_long"),
    ],
)
def test_the_intent_follows_from_the_positions(action: str, before: str, after: str, intent: str) -> None:
    signal = said(side=action, prev_market_position=before, market_position=after)
    assert (signal.intent, signal.prev_market_position, signal.market_position) == (intent, before, after)
    assert signal.goes_flat is (after == "flat")


def test_the_intent_follows_from_a_signed_position_size_as_well() -> None:
    assert said(side="sell", quantity=1, position_size="-0.5", prev_market_position="flat").intent == "open_short"
    assert said(side="sell", quantity=1, position_size=0).goes_flat


def test_an_entry_that_ends_flat_is_refused() -> None:
    assert refused(side="open_long", market_position="flat").field == "side, market_position"
    assert said(side="buy", market_position="flat").goes_flat


def test_a_close_that_ends_in_a_position_needs_a_size() -> None:
    assert "market_position" in refused(side="close", market_position="long").field
    assert said(side="close", market_position="long", quantity=1).quantity == 1


def test_a_target_needs_the_position_to_hold() -> None:
    assert said(side="pos", position_size="-3").action is Action.TARGET
    assert refused(side="pos").field == "position_size"


@pytest.mark.parametrize("heartbeat", [True, "True", "true", 1])
def test_a_heartbeat_does_not_trade(heartbeat: Any) -> None:
    assert "sign of life" in str(refused(heartbeat=heartbeat))
    assert refused(data={"heartbeat": heartbeat}).field == "data.heartbeat"


def test_a_heartbeat_that_is_off_is_an_alert() -> None:
    assert said(heartbeat=False, test="false").action is Action.BUY


# --- two fields, one meaning -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"side": "buy"}, {"action": "sell"}),
        ({"side": "buy"}, {"direction": "short"}),
        ({"side": "close_long"}, {"action": "buy"}),
        ({"side": "open_long"}, {"event": "exit"}),
        ({"symbol": "BTCUSDT"}, {"ticker": "ETHUSDT"}),
        ({"quantity": 1}, {"qty": 2}),
        ({"quantity": "0.001"}, {"amount": 50}),
        ({"amount_usdt": 10}, {"margin": 10}),
        ({"percent_of_nothing": 1, "position_size_percent": 10}, {"risk_percent": 10}),
        ({"price": 1}, {"order_price": 2}),
        ({"broker": "PAPER"}, {"Broker": "BINANCE"}),
        ({"strategy": "a"}, {"strategy_name": "b"}),
        ({"confidence": 60}, {"Confidence": 70}),
        ({"leverage": 3}, {"lev": 4}),
        ({"sl": 90}, {"stop_loss": 91}),
        ({"sl": "1%"}, {"stop_loss_percent": 2}),
        ({"type": "market"}, {"order_type": "limit"}),
        ({"market": "spot"}, {"category": "linear"}),
        ({"market_position": "long"}, {"position": "short"}),
        ({"position_size": 1}, {"strategy": {"position_size": 2}}),
        ({"market_position": "short"}, {"position_size": "0.3"}),
        ({"market_position": "flat"}, {"position_size": "0.3"}),
        ({"tif": "GTC"}, {"timeInForce": "IOC"}),
        ({"timenow": "2026-01-02T03:04:05Z"}, {"sent_at": "2026-01-02T03:04:06Z"}),
        ({"reduce_only": True}, {"reduceOnly": False}),
    ],
)
def test_two_fields_that_disagree_are_refused_by_both_names(one: dict[str, Any], other: dict[str, Any]) -> None:
    error = refused(**one, **other)
    for name in (list(one)[-1], next(iter(other))):
        assert name in error.field


@pytest.mark.parametrize(
    "fields",
    [
        {"side": "buy", "action": "BUY", "direction": "long"},
        {"ticker": "BINANCE:BTCUSDT.P"},
        {"quantity": 1, "qty": "1.000", "contracts": 1.0},
        {"price": "1.50", "order_price": 1.5},
        {"timenow": "2026-01-02T03:04:05Z", "sent_at": "2026-01-02T04:04:05+01:00"},
        {"market_position": "short", "side": "sell", "position_size": "-1", "market_position_size": 1},
        {"tp": 5, "take_profit": "5.0"},
    ],
)
def test_two_fields_that_say_the_same_are_fine(fields: dict[str, Any]) -> None:
    assert said(**fields).symbol == "BTCUSDT"


def test_what_two_symbol_fields_say_is_put_together() -> None:
    signal = said(ticker="BYBIT:BTCUSDT.P")
    assert (signal.market, signal.exchange) == (Market.FUTURES, "BYBIT")


def test_a_quantity_and_an_amount_may_stand_side_by_side() -> None:
    signal = said(quantity="0.5", amount_usdt=100)
    assert (signal.quantity, signal.amount, signal.quantity_unit) == (Decimal("0.5"), Decimal(100), "base")


# --- symbols -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "symbol", "market", "exchange"),
    [
        ("btcusdt", "BTCUSDT", None, None),
        (" BTCUSDT ", "BTCUSDT", None, None),
        ("BTC/USDT", "BTCUSDT", None, None),
        ("BTC-USDT", "BTCUSDT", None, None),
        ("BTC_USDT", "BTCUSDT", None, None),
        ("BNB BUSD", "BNBBUSD", None, None),
        ("BINANCE:BTCUSDT", "BTCUSDT", None, "BINANCE"),
        ("BINANCE:BTCUSDT.P", "BTCUSDT", Market.FUTURES, "BINANCE"),
        ("BTCUSDT.P", "BTCUSDT", Market.FUTURES, None),
        ("BTCUSDTPERP", "BTCUSDT", Market.FUTURES, None),
        ("BTC-USDT-SWAP", "BTCUSDT", Market.FUTURES, None),
        ("BTC/USDT:USDT", "BTCUSDT", Market.FUTURES, None),
        ("PERPUSDT", "PERPUSDT", None, None),
        ("1000PEPEUSDT", "1000PEPEUSDT", None, None),
        ("SBIN-EQ", "SBIN-EQ", None, None),
        ("NSE:BAJAJ-AUTO-EQ", "BAJAJ-AUTO-EQ", None, "NSE"),
        ("M&M-EQ", "M&M-EQ", None, None),
        ("BRK.B", "BRK.B", None, None),
        ("BTC", "BTC", None, None),
        ("A" * 30, "A" * 30, None, None),
    ],
)
def test_symbols(written: str, symbol: str, market: Market | None, exchange: str | None) -> None:
    signal = said(symbol=written)
    assert (signal.symbol, signal.market, signal.exchange) == (symbol, market, exchange)


@pytest.mark.parametrize(
    "written",
    ["A" * 31, "BTC$USDT", "NQ1!", "BTC\nUSDT", "\u0412\u0422\u0421USDT", "ﬁUSDT", "=BTC", ".P", "/BTC", "BTC-", "-",
     "BTC/USDT:USDT-240329", "https://x.y", "A:B:C", "'BTCUSDT'", True, 5, ["BTCUSDT"], {"name": "BTCUSDT"}],
)  # fmt: skip
def test_what_is_no_symbol_is_refused(written: Any) -> None:
    assert refused(symbol=written).field == "symbol"


@pytest.mark.parametrize("written", [None, "", " "])
def test_no_symbol_is_ever_assumed(written: Any) -> None:
    error = refused(symbol=written)
    assert (error.field, str(error)) == (
        "symbol",
        "symbol: saw nothing, wanted a symbol such as BTCUSDT (none is assumed)",
    )


def test_both_coins_make_a_symbol_one_does_not() -> None:
    assert said(symbol=None, coinOne="TRX", coinTwo="USDT").symbol == "TRXUSDT"
    assert refused(symbol=None, coinOne="TRX").field == "symbol"


def test_market_is_a_market_or_a_pair() -> None:
    assert said(market="Spot").market is Market.SPOT
    assert said(category="linear").market is Market.FUTURES
    assert said(category="momentum").market is None
    assert said(symbol=None, market="ETH_USD").symbol == "ETHUSD"
    assert said(exchange="binance-futures").market is Market.FUTURES


@pytest.mark.parametrize("market", ["margin", "inverse", "option", "crypto", "ETH_USD"])
def test_other_markets_are_refused(market: str) -> None:
    assert refused(market=market).field == "market"


@pytest.mark.parametrize("category", ["inverse", "option"])
def test_other_markets_are_refused_by_category_too(category: str) -> None:
    assert refused(category=category).field == "category"


def test_a_perpetual_on_the_spot_market_is_refused() -> None:
    error = refused(symbol="BTCUSDT.P", market="spot")
    assert error.field == "symbol, market"


def test_leverage_alone_does_not_choose_a_market() -> None:
    assert said(leverage=10).market is None


def test_the_chart_s_exchange_does_not_route_but_broker_does() -> None:
    signal = said(exchange="bybit", broker="binance")
    assert (signal.exchange, signal.broker) == ("BYBIT", "BINANCE")
    assert said(exchange="BINGX").broker is None
    assert refused(broker="BINANCE; DROP").field == "broker"


# --- numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "quantity"),
    [
        ("0.001", "0.001"),
        ('"0.001"', "0.001"),
        ('" 5 "', "5"),
        ("1e-05", "0.00001"),
        ("1E+2", "100"),
        ("0.000000000000000001", "0.000000000000000001"),
        ("999999999999999.999999999999999999", "999999999999999.999999999999999999"),
        ("1800.8000000000002", "1800.8000000000002"),
    ],
)
def test_numbers_are_exact(written: str, quantity: str) -> None:
    signal = parse(f'{{"symbol":"BTCUSDT","side":"buy","quantity":{written}}}')
    assert signal.quantity is not None
    assert format(signal.quantity, "f") == quantity


@pytest.mark.parametrize(
    "written",
    ['"1,5"', '"1,000.5"', '"1e-05"', '"1."', '".5"', '"+1"', '"0x10"', '"1_000"', '"\u0661"', '"NaN"', '"Infinity"',
     '"-inf"', '"None"', '"five"', '"1 2"', "true", "1e999", "1e-999", "1e-19", "1e15", "9" * 16, "9" * 5000,
     "0." + "1" * 19, '"@$5"', '"@5$"', '"$"', '"5€"', '"50%%"', "[1]", '{"a":1}'],
)  # fmt: skip
def test_what_is_no_plain_number_is_refused(written: str) -> None:
    error = refusal(f'{{"symbol":"BTCUSDT","side":"buy","quantity":{written}}}')
    assert error.field == "quantity"
    assert len(str(error)) < 250


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("field", ["quantity", "rsi"])
def test_nan_and_infinity_are_refused_in_any_field(literal: str, field: str) -> None:
    error = refusal(f'{{"symbol":"BTCUSDT","side":"buy","x":{{"{field}":{literal}}}}}')
    assert error.field == f"x.{field}"


def test_the_word_nan_in_an_unknown_field_is_no_harm() -> None:
    assert said(rsi="NaN", comment="NaN of them").action is Action.BUY


@pytest.mark.parametrize("value", [0, "0", "0.0", -1, "-0.5", "-0"])
@pytest.mark.parametrize(
    "field", ["quantity", "amount", "amount_usdt", "margin", "position_size_percent", "leverage", "sl", "tp", "tp2",
              "sl_offset", "stop_loss_percent", "trailing"]
)  # fmt: skip
def test_zero_and_less_are_refused(field: str, value: Any) -> None:
    assert refused(**{field: value}).field == field


@pytest.mark.parametrize("value", [0, "0.0", 100, "100", 75.5])
def test_confidence_from_0_to_100(value: Any) -> None:
    assert said(confidence=value).confidence == Decimal(str(value))


@pytest.mark.parametrize("value", [-0.01, 100.01, "high", "75%", True])
def test_any_other_confidence_is_refused(value: Any) -> None:
    assert refused(confidence=value).field == "confidence"


@pytest.mark.parametrize("value", ["0.01", 100])
def test_percent_up_to_100(value: Any) -> None:
    assert said(position_size_percent=value).percent == Decimal(value)


@pytest.mark.parametrize("field", ["position_size_percent", "risk_percent", "stop_loss_percent", "trailing_percent"])
def test_percent_above_100_is_refused(field: str) -> None:
    assert refused(**{field: "100.01"}).field == field


@pytest.mark.parametrize("value", ["", " ", None])
def test_empty_and_null_are_the_same_as_absent(value: Any) -> None:
    assert said(quantity=value, price=value, sl=value, market_position=value, confidence=value) == said()


@pytest.mark.parametrize(("value", "meant"), [(True, True), ("True", True), ("false", False), (False, False)])
def test_booleans_may_be_words(value: Any, meant: bool) -> None:
    assert said(reduce_only=value).reduce_only is meant
    assert said(reverse=value).reverse is meant


@pytest.mark.parametrize("value", ["maybe", 2, "t", [True]])
def test_what_is_no_boolean_is_refused(value: Any) -> None:
    assert refused(reduce_only=value).field == "reduce_only"


# --- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field", ["quantity", "qty", "contracts", "order_contracts", "size", "amount", "Qty", "orderSize"]
)
def test_base_units(field: str) -> None:
    assert said(**{field: "0.5"}).quantity == Decimal("0.5")


@pytest.mark.parametrize("field", ["amount_usdt", "quoteOrderQty", "usdt", "balance", "USD", "stakeamount"])
def test_quote_amounts(field: str) -> None:
    signal = said(**{field: "50"})
    assert (signal.amount, signal.quantity, signal.amount_is_margin) == (Decimal(50), None, False)


@pytest.mark.parametrize("written", ["$20", "20$", "$ 20"])
def test_a_dollar_sign_means_quote_currency(written: str) -> None:
    assert said(amount=written).amount == 20


@pytest.mark.parametrize("written", ["@0.006", "0.006@"])
def test_an_at_sign_means_base_units(written: str) -> None:
    assert said(amount=written).quantity == Decimal("0.006")


@pytest.mark.parametrize("written", ["50%", "%50", "50 %"])
def test_a_percent_sign_is_of_the_balance_on_the_way_in_and_of_the_position_on_the_way_out(written: str) -> None:
    assert said(amount=written).percent == 50
    assert said(amount=written).percent_of == "balance"
    assert said(side="close_long", amount=written).percent_of == "position"
    assert said(side="sell", market_position="flat", amount=written).percent_of == "position"


def test_a_part_of_a_close_is_a_reduction() -> None:
    assert said(side="close", amount="33.33%").intent == "reduce"
    assert said(side="close", amount="100%").intent == "close"


@pytest.mark.parametrize(
    ("unit_field", "unit", "slot"),
    [
        ("currency_type", "base", "quantity"),
        ("currency_type", "quote", "amount"),
        ("investmentType", "margin", "amount"),
        ("investmentType", "percentage_balance", "percent"),
        ("quantityType", "fixed_quantity", "quantity"),
        ("quantityType", "dollar_amount", "amount"),
        ("quantityType", "percent_of_position", "percent"),
        ("unitsType", "absolute", "quantity"),
        ("unitsType", "percent", "percent"),
    ],
)
def test_a_unit_field_says_what_the_amount_is(unit_field: str, unit: str, slot: str) -> None:
    signal = said(amount="10", **{unit_field: unit})
    assert {name: getattr(signal, name) for name in ("quantity", "amount", "percent")} == dict.fromkeys(
        ("quantity", "amount", "percent")
    ) | {slot: Decimal(10)}


@pytest.mark.parametrize("unit", ["contract", "risk_dollar_amount", "percentage_investment", "lots", 1])
def test_an_unknown_unit_is_refused(unit: Any) -> None:
    assert refused(amount="10", quantityType=unit).field == "quantityType"


def test_a_sign_against_the_unit_is_refused() -> None:
    assert refused(amount="$10", currency_type="base").field == "amount"
    assert refused(amount_usdt="10%").field == "amount_usdt"
    assert said(amount="$10", currency_type="quote").amount == 10


def test_volume_is_the_bars_except_where_the_dialect_means_the_order() -> None:
    assert said(volume=125.45) == said()
    assert said(volume=0.1, trade_type="hedge").quantity == Decimal("0.1")
    assert parse("EXCHANGE=KUCOIN;SYMBOL=CRVUSDT;SIGNAL=sell;VOLUME=1.115;PRICE=0.906").quantity == Decimal("1.115")


@pytest.mark.parametrize("field", ["lots", "trailing_stop", "trailAmount"])
def test_fields_that_would_change_the_order_are_not_passed_over(field: str) -> None:
    assert refused(**{field: 1}).field == field
    assert said(**{field: False}) == said()


def test_a_position_size_alone_is_a_target() -> None:
    signal = said(position_size=100)
    assert (signal.action, signal.intent) == (Action.BUY, "set_position")
    assert (signal.position_size, signal.quantity) == (Decimal(100), None)


def test_the_size_of_a_short_position_is_negative() -> None:
    signal = said(side="sell", market_position="short", market_position_size="0.3")
    assert signal.position_size == Decimal("-0.3")
    assert refused(market_position="short", market_position_size="-0.3").field == "market_position_size"


# --- prices and types --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["price", "close", "limit_price", "currentPrice", "entry", "order_price"])
def test_a_price_is_a_reference_for_a_market_order_and_the_limit_of_a_limit_order(field: str) -> None:
    assert said(**{field: 5}).price == 5
    assert said(**{field: 5}).type is OrderType.MARKET
    limit = said(type="LIMIT", **{field: 5})
    assert (limit.type, limit.price) == (OrderType.LIMIT, Decimal(5))


def test_the_chart_s_price_gives_way_to_the_order_s() -> None:
    assert said(price=5, close=6).price == 5
    assert said(type="limit", price=5, close=6).price == 5


def test_a_limit_order_with_two_prices_is_refused() -> None:
    assert refused(type="limit", price=5, limit_price=6).field == "limit_price, price"
    assert said(type="market", price=5, limit_price=6).price == 5


@pytest.mark.parametrize("fields", [{}, {"price": 0}, {"trigger_price": 5}, {"sl": 5}])
def test_a_limit_order_without_a_price_is_refused(fields: dict[str, Any]) -> None:
    assert refused(type="LIMIT", **fields).field == "price"


def test_a_price_of_0_on_a_market_order_is_none() -> None:
    assert said(price=0, trigger_price="0").price is None


@pytest.mark.parametrize("field", ["price", "close", "limit_price"])
def test_a_negative_price_is_refused(field: str) -> None:
    assert refused(**{field: -1}).field == field


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("MARKET", OrderType.MARKET),
        ("mkt", OrderType.MARKET),
        ("Limit", OrderType.LIMIT),
        ("SL-M", OrderType.STOP),
        ("stop_limit", OrderType.STOP_LIMIT),
        ("SL-LMT", OrderType.STOP_LIMIT),
    ],
)
@pytest.mark.parametrize("field", ["type", "order_type", "orderType", "ordertype", "pricetype"])
def test_order_types(field: str, word: str, kind: OrderType) -> None:
    stop = {"trigger_price": 4} if "STOP" in kind else {}
    signal = said(price=5, **stop, **{field: word})
    assert (signal.type, signal.stop_price) == (kind, 4 if stop else None)


@pytest.mark.parametrize("word", ["iceberg", "buy", 1, True])
def test_an_unknown_order_type_is_refused(word: Any) -> None:
    assert refused(type=word).field == "type"


def test_type_may_carry_the_market_position_or_the_class_of_the_message() -> None:
    assert said(type="flat", side="sell").market_position == "flat"
    assert said(type="ORDER").type is OrderType.MARKET
    assert refused(order_type="flat").field == "order_type"


def test_is_market_is_an_order_type() -> None:
    assert said(isMarket=False, price=5).type is OrderType.LIMIT
    assert refused(isMarket=True, type="limit", price=5).field == "type, isMarket"


def test_a_stop_order_needs_its_trigger_and_no_other_order_has_one() -> None:
    assert refused(type="stop").field == "stop_price"
    assert refused(stop_price=5).field == "stop_price"
    assert refused(type="stop_limit", stop_price=5).field == "price"
    assert refused(type="trailing_stop").field == "trailing_percent"


def test_a_cancel_needs_no_price() -> None:
    assert said(side="cancel", type="limit").action is Action.CANCEL


@pytest.mark.parametrize("word", ["gtc", "IOC", "FOK", "day"])
def test_time_in_force(word: str) -> None:
    assert said(tif=word).time_in_force == word.upper()
    assert refused(tif="forever").field == "tif"


# --- protection --------------------------------------------------------------------------------------------------


def test_take_profits_keep_their_order() -> None:
    assert said(tp3=3, tp1="1", tp2=2.0).take_profits == (Decimal(1), Decimal(2), Decimal(3))
    assert said(take_profit=[1, 2]).take_profits == (Decimal(1), Decimal(2))


def test_protection_as_price_percent_or_offset() -> None:
    signal = said(sl="90", tp="5%", sl_offset=2, trailing="1.5%")
    assert (signal.stop_loss, signal.take_profit_percent) == (Decimal(90), Decimal(5))
    assert (signal.stop_loss_offset, signal.trailing_percent) == (Decimal(2), Decimal("1.5"))


def test_protection_as_an_object_is_understood_whole_or_refused() -> None:
    signal = said(takeProfit={"limitPrice": 9}, stopLoss={"type": "stop", "stopPrice": "4"})
    assert (signal.take_profits, signal.stop_loss) == ((Decimal(9),), Decimal(4))
    assert said(take_profit={"enabled": False, "steps": [1]}) == said()
    assert refused(take_profit={"enabled": True, "steps": [1]}).field == "take_profit.steps"
    assert refused(stop_loss={"enabled": True}).field == "stop_loss"
    empty = ["stop_loss", "takeProfit", "sl"]
    assert [refused(**{name: {}}).field for name in empty] == empty
    assert refused(order={"stop_loss": {}}).field == "order.stop_loss"
    assert said(stop_loss={"price": None}) == said(stop_loss="") == said(), "a field that is there and empty is none"
    assert said(stop_loss={"enabled": True, "percent": 2}).stop_loss_percent == 2
    assert refused(stop_loss={"ofs": 1}).field == "stop_loss.ofs"
    assert refused(sl={"ofs": 1}).field == "sl"


# --- times -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    ["2026-01-02T03:04:05Z", "2026-01-02T04:04:05+01:00", "2026-01-02T04:04:05+0100", "2026-01-02 03:04:05Z",
     "2026-01-02T03:04:05.000Z", "1767323045", 1767323045, "1767323045000", 1767323045000, "1767323045.0",
     "BTCUSDT-2026-01-02T03:04:05Z", "ETHUSD-BTC-2026-01-02T03:04:05Z"],
)  # fmt: skip
@pytest.mark.parametrize("field", ["timenow", "sent_at", "fired_at", "alertTimestamp"])
def test_firing_times(field: str, written: Any) -> None:
    assert said(**{field: written}).fired_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    "written",
    ["2026-01-02T03:04:05", "2026-13-02T03:04:05Z", "2026-01-02T25:04:05Z", "2026-02-30T00:00:00Z", "yesterday",
     "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "17673", "99999999999999999", -1, 1.5, True,
     "2026-01-02T03:04:05+99:99", "2026-W01-1T00:00Z"],
)  # fmt: skip
def test_a_firing_time_that_cannot_be_judged_is_refused(written: Any) -> None:
    assert refused(timenow=written).field == "timenow"


def test_time_and_a_bare_timestamp_are_the_bars_and_never_judged() -> None:
    assert said(time="yesterday").bar_time == "yesterday"
    signal = said(timestamp="2025-10-01T12:00:00Z")
    assert (signal.fired_at, signal.bar_time) == (None, "2025-10-01T12:00:00Z")


@pytest.mark.parametrize("field", ["max_lag", "maxLag"])
def test_a_timestamp_with_a_limit_on_its_age_is_the_firing_time(field: str) -> None:
    signal = said(timestamp="2026-01-02T03:04:05Z", **{field: "300"})
    assert signal.fired_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert signal.max_age_seconds == 300
    assert refused(**{field: "300"}).field == "timestamp"
    assert refused(timestamp="yesterday", **{field: "300"}).field == "timestamp"


@pytest.mark.parametrize("interval", ["5", "60", "240", "1D", "D", "1h"])
def test_time_may_carry_the_interval(interval: str) -> None:
    signal = said(time=interval)
    assert (signal.timeframe, signal.bar_time) == (interval, None)


# --- text --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["strategy", "timeframe", "comment", "order_id", "account", "exchange"])
def test_text_is_one_bounded_line(field: str) -> None:
    assert getattr(said(**{field: "a\r\n\x00b".replace("\x00", "\x07")}), field) in ("a   b", "A   B")
    assert len(getattr(said(**{field: "x" * 5000}), field)) == 200
    assert getattr(said(**{field: "a\u202eb\u2028c"}), field) in ("a b c", "A B C")


def test_numbers_do_for_text() -> None:
    signal = said(timeframe=60, strategy=7, id=12)
    assert (signal.timeframe, signal.strategy, signal.order_id) == ("60", "7", "12")


def test_a_strategy_object_is_not_a_name() -> None:
    assert said(strategy={"order_action": "buy", "name": "trend"}).strategy == "trend"
    assert said(strategy={"order": {"action": "buy", "contracts": 2, "id": "L"}}).quantity == 2
    assert refused(strategy=["trend"]).field == "strategy"


# --- broken bodies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ('{"side":"buy",}', "comma before the closing"),
        ("{“side”: “buy”}", "straight quotes"),
        ("{'side': 'buy'}", "double quotes"),
        ('{"side"="buy"}', "colon"),
        ('{"sl": 3500.25 * 0.95}', "does not calculate"),
        ('{"meta_data": , "side": "buy"}', "empty needs quotes"),
        ('{"side": buy}', "Expecting value"),
        ('{"side": "buy"} extra', "Extra data"),
        ('""side=buy""', "Extra data"),
        ('{"side": "b\nuy"}', "control character"),
        ('{"side": "buy"', "delimiter"),
        ("{", "Expecting"),
    ],
)
def test_broken_json_gets_a_hint(body: str, hint: str) -> None:
    error = refusal(body)
    assert error.field == "body"
    assert hint in str(error)


def test_json_is_json_whatever_stands_around_it() -> None:
    assert parse_alert(b'\xef\xbb\xbf \n {"symbol":"BTCUSDT","side":"buy"} \r\n') == said()


def test_duplicate_keys_are_refused() -> None:
    error = refusal('{"symbol":"BTCUSDT","side":"buy","quantity":1,"quantity":1}')
    assert (error.field, error.seen) == ("quantity", "the same field twice")
    assert refusal('{"symbol":"BTCUSDT","side":"buy","x":{"a":1,"a":1}}').field == "a"
    assert refusal("symbol=BTCUSDT side=buy Side=buy").field == "side"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"side":"buy","symbol":"BTCUSDT","note":"\\ud800"}', "note"),
        ('{"side":"buy","symbol":"BTCUSDT","note":["\\udfff"]}', "note"),
        ('{"side":"buy","symbol":"BTCUSDT","\\ud800":1}', "body"),
        ('{"side":"buy","symbol":"BTCUSDT","note":"\\u0000"}', "note"),
        ('{"side":"buy","symbol":"BTC\0USDT"}', "body"),
        ("symbol=BTCUSDT&side=buy&x=%00", "x"),
        ("side=buy symbol=BTC\0USDT", "body"),
    ],
)
def test_half_characters_and_nul_are_refused(body: str, field: str) -> None:
    assert refusal(body).field == field


def test_whole_surrogate_pairs_are_characters() -> None:
    assert parse('{"side":"buy","symbol":"BTCUSDT","comment":"\\ud83d\\ude80"}').comment == "\N{ROCKET}"


@pytest.mark.parametrize("body", [b"\xff\xfe{}", b'{"side":"\xe9"}', b"\xed\xa0\x80"])
def test_bytes_that_are_not_utf8_are_refused(body: bytes) -> None:
    assert "UTF-8" in str(refusal(body))


@pytest.mark.parametrize(("levels", "fine"), [(11, True), (12, False), (5000, False)])
def test_json_is_at_most_12_levels_deep(levels: int, fine: bool) -> None:
    body = f'{{"side":"buy","symbol":"BTCUSDT","x":{"[" * levels}{"]" * levels}}}'
    if fine:
        assert parse(body) == said()
    else:
        assert "levels" in str(refusal(body))


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert said(x=[[] for _ in range(50)], y="[[[[[[[[[[[[[[[[[[[[") == said()


def test_16_kib_are_the_most() -> None:
    body = b'{"side":"buy","symbol":"BTCUSDT"}'
    assert parse_alert(body.ljust(16 * 1024)) == said()
    assert "16384" in str(refusal(body.ljust(16 * 1024 + 1)))


@pytest.mark.parametrize(
    "body", ["", "  \n", "null", "true", "12", '"buy BTCUSDT"', "buy", "hello world", "hello big world"]
)
def test_what_is_no_alert_is_refused(body: str) -> None:
    assert refusal(body).field == "body"


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        '[{"side":"buy","symbol":"BTCUSDT"}]',
        '{"side":"buy","symbol":"BTCUSDT","orders":[{"side":"sell"}]}',
        '{"side":"buy","symbol":"BTCUSDT","order":[{"side":"sell"}]}',
        '{"symbol":"BTCUSDT","actions":["buy"]}',
        "buy BTCUSDT\nsell ETHUSDT",
    ],
)
def test_batches_are_refused(body: str) -> None:
    assert "batch" in str(refusal(body))


# --- placeholders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field", "placeholder"),
    [
        ('{"symbol":"{{ticker}}","side":"buy"}', "symbol", "{{ticker}}"),
        ('{"symbol":"BTCUSDT","side":"buy","rsi":"{{plot_0}}"}', "rsi", "{{plot_0}}"),
        ('{"symbol":"BTCUSDT","side":"buy","x":{"y":["a {{b}}"]}}', "x.y", "{{b}}"),
        ('{"symbol":"BTCUSDT","side":"buy","rsi":{{plot_0}}}', "rsi", "{{plot_0}}"),
        ('{"symbol":"BTCUSDT","side":"buy","n":"\\u007b\\u007bclose}}"}', "n", "{{close}}"),
        ('{"symbol":"BTCUSDT","side":"buy","n":"{\\u007Bclose"}', "n", "{{close"),
        ('{"symbol":"BTCUSDT","side":"buy","{{n}}":1}', "body", "{{n}}"),
        ("symbol=BTCUSDT side={{strategy.order.action}}", "side", "{{strategy.order.action}}"),
        ("symbol=BTCUSDT&side=buy&x=%7B%7Bclose%7D%7D", "x", "{{close}}"),
        ("buy BTCUSDT at {{close}}", "body", "{{close}}"),
        ("buy BTCUSDT at {{", "body", "{{"),
    ],
)
def test_a_placeholder_that_is_left_is_refused_by_its_field(body: str, field: str, placeholder: str) -> None:
    error = refusal(body)
    assert (error.field, error.seen) == (field, placeholder)


@pytest.mark.parametrize(
    "body", [f'{{"secret":"{SECRET}{{{{x}}}}","side":"buy"}}', f"secret={SECRET}{{{{x}}}} side=buy"]
)
def test_a_placeholder_in_a_secret_is_not_shown(body: str) -> None:
    error = refusal(body)
    assert (error.field, error.seen) == ("secret", "a placeholder")


# --- plain text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "symbol=BTCUSDT side=buy quantity=0.5 strategy='two words'",
        'symbol=BTCUSDT  side="buy" quantity=0.5 strategy="two words"',
        "symbol=BTCUSDT\nside=buy\r\nquantity=0.5\nstrategy=two words\n",
        "symbol = BTCUSDT; side = buy; quantity = 0.5; strategy = two words;",
        "symbol=BTCUSDT&side=buy&quantity=0.5&strategy=two+words",
        "symbol=BTCUSDT&side=buy&quantity=0%2E5&strategy=two%20words",
    ],
)
def test_key_value_text(body: str) -> None:
    signal = parse(body)
    assert signal == said(quantity="0.5", strategy="two words")


@pytest.mark.parametrize(
    "body",
    ["symbol=BTCUSDT side=buy quantity", "symbol=BTCUSDT side='buy", "symbol=BTC USDT side=buy",
     "symbol=BTCUSDT and side=buy", "=BTCUSDT side=buy"],
)  # fmt: skip
def test_broken_key_value_text_is_refused(body: str) -> None:
    assert refusal(body).field == "body"


def test_lines_that_begin_with_a_verb() -> None:
    assert parse("sell ETH/USDT") == Signal(Action.SELL, "ETHUSDT")
    assert parse("Buy BTCUSDT at 5").price == 5
    assert parse("buy BTCUSDT qty:$20 lev:3 tp:5").amount == 20
    assert refusal("buy BTCUSDT now").field == "body"
    assert refusal("buy BTCUSDT at").field == "body"
    assert refusal("buy BTCUSDT QTY:1 qty:2").field == "qty"


def test_whook_lines() -> None:
    signal = parse("mine BTC/USDT x5 sell limit:id7:100 0.5")
    assert (signal.action, signal.type, signal.price, signal.order_id) == (
        Action.SELL,
        OrderType.LIMIT,
        Decimal(100),
        "id7",
    )
    assert (signal.quantity, signal.leverage, signal.account) == (Decimal("0.5"), Decimal(5), "mine")
    assert parse("mine BTC/USDT cancel:id7").order_id == "id7"
    assert parse("mine BTC/USDT pos 0").goes_flat


@pytest.mark.parametrize(
    "body", ["mine BTC/USDT buy 1 2", "mine BTC/USDT buy sell 1", "mine BTC/USDT buy -1", "mine BTC/USDT buy 1 soon",
             "mine BTC/USDT pos", "mine BTC/USDT pos 5%", "mine BTC/USDT 5"]
)  # fmt: skip
def test_broken_whook_lines_are_refused(body: str) -> None:
    refusal(body)


def test_pineconnector_text() -> None:
    signal = parse("6012345,closelong,EURUSD")
    assert (signal.action, signal.intent, signal.symbol) == (Action.SELL, "close_long", "EURUSD")
    for body in ("6012345,buy", "6012345,buy,EURUSD,lots=1", "6012345,buy,EURUSD,sl", "6012345,buy,EURUSD,sl=1,sl=2"):
        refusal(body)


def test_alertatron_scripts() -> None:
    signal = parse("keys(BTCUSDT) { market(side=sell, amount=100%p); } #bot")
    assert (signal.action, signal.percent, signal.percent_of) == (Action.SELL, Decimal(100), "position")
    assert parse("keys(BTCUSDT) { market(side=buy, amount=0.5); }").quantity == Decimal("0.5")


@pytest.mark.parametrize(
    "commands",
    [
        "",
        "limit(side=buy, amount=1, offset=1%);",
        "market(side=buy);",
        "market(side=buy, amount=1, delay=5);",
        "market(side=buy, amount=1BTC);",
        "market(side=buy, amount=1); market(side=sell, amount=1);",
        "market(side=buy, amount=1); stopOrder(side=buy, amount=100%p, offset=1%);",
        "market(side=buy, amount=1); stopOrder(side=sell, amount=50%p, offset=1%);",
        "market(side=buy, amount=1); stopOrder(side=sell, amount=100%p, offset=1);",
        "market(side=buy, amount=1); stopOrder(side=sell, amount=100%p, offset=1%); " * 2,
        "market(side=hold, amount=1);",
        "wait(5);",
    ],
)
def test_other_alertatron_scripts_are_refused(commands: str) -> None:
    refusal(f"keys(BTCUSDT) {{ {commands} }}")


# --- errors ------------------------------------------------------------------------------------------------------


def test_an_error_says_what_was_seen_and_what_was_wanted() -> None:
    assert str(refused(quantity="1,5")) == (
        "quantity: saw '1,5', wanted a plain number such as 0.001 "
        "(no comma, no exponent, at most 15 digits before the point, 18 after)"
    )


def test_what_was_seen_is_cut_to_40_characters() -> None:
    error = refused(quantity="x" * 5000)
    assert isinstance(error.seen, str)
    assert len(error.seen) == 40
    assert len(refused(**{"symbol" + "_" * 5000: "ETHUSDT"}).field) <= 40


def test_control_characters_do_not_reach_the_message() -> None:
    assert str(refused(side="b\x1b[31m\r\nuy")).isprintable()


def test_a_secret_in_the_wrong_field_is_not_shown() -> None:
    error = refused(secret=SECRET, quantity=f"padding padding padding {SECRET}")
    assert error.seen == "padding padding padding ***"


def test_a_secret_in_a_text_is_not_shown_but_trades() -> None:
    secret = "Correct-Horse.Battery"
    body = {
        "symbol": "BTCUSDT",
        "side": "buy",
        "strategy": f"a {secret} b",
        "comment": secret * 10,
        "account": "x" * 190,
    }
    body |= {"timeframe": secret.upper(), "exchange": secret, "order_id": "x" * 190 + secret}
    signal = parse_alert(json.dumps(body).encode(), secret)
    assert (signal.action, signal.strategy, signal.timeframe, signal.exchange) == (Action.BUY, "a *** b", "***", "***")
    assert signal.comment == "***" * 10
    assert signal.order_id == "x" * 190 + "***"
    assert signal.account == "x" * 190


@pytest.mark.parametrize("symbol", ["Correct-Horse.Battery", "correcthorsebattery", "BINANCE:CORRECT_HORSE_BATTERY"])
def test_a_secret_for_a_symbol_is_refused_and_stands_nowhere(symbol: str) -> None:
    body = json.dumps({"secret": "Correct-Horse.Battery", "symbol": symbol, "side": "buy"}).encode()
    with pytest.raises(AlertError) as caught:
        parse_alert(body, "Correct-Horse.Battery")
    assert caught.value.field == "symbol"
    assert "horse" not in str(caught.value).lower()


def test_a_short_secret_that_is_part_of_a_symbol_keeps_nobody_from_trading() -> None:
    assert parse_alert(b'{"symbol":"BTCUSDT","side":"buy"}', "usdt").symbol == "BTCUSDT"


def test_the_first_error_does_not_hang_on_to_the_last() -> None:
    error = refused(secret=SECRET, side=SECRET)
    assert error.__cause__ is None
    assert error.__context__ is None
    assert SECRET not in repr(error)


# --- secrets -----------------------------------------------------------------------------------------------------


def _claimed_in_corpus() -> list[tuple[dict[str, Any], str]]:
    """Each line with a secret in its body, and the value of it."""
    pattern = r"""["“]?{}["”]?\s*[:=]\s*["“]([^"”]+)["”]"""
    found = []
    for line in CORPUS:
        field = line.get("auth", "url").removeprefix("[0].")
        if field == "text:first field":
            found.append((line, "LicenseID"))
        elif field != "url":
            value = re.search(pattern.format(re.escape(field)), line["body"])
            assert value, line
            found.append((line, value[1]))
    return found


@pytest.mark.parametrize(("line", "secret"), _claimed_in_corpus())
def test_the_secret_of_every_corpus_line_is_found_even_in_broken_ones(line: dict[str, Any], secret: str) -> None:
    assert secret in claimed_secrets(line["body"].encode())


@pytest.mark.parametrize(
    "field",
    ["secret", "passphrase", "key", "token", "password", "webhook_secret", "webhookSecret", "apikey", "api_key",
     "apiKey", "api_token", "signalToken", "Identity", "email_token", "pointer", "t", "SECRET", "tv_secret",
     "relaySecret", "secret_token", "passphase", "clave"],
)  # fmt: skip
def test_every_name_of_a_secret_in_every_kind_of_text(field: str) -> None:
    for body in (
        f'{{"{field}":"{SECRET}","side":"buy"}}',
        f'{{"a":[{{"b":{{"{field}":"{SECRET}"}}}}]}}',
        f'[{{"{field}":"{SECRET}"}}]',
        f'{{"{field}":"{SECRET}","side":buy,}}',
        f"{{“{field}”: “{SECRET}”}}",
        f"{{'{field}': '{SECRET}'}}",
        f"{field}={SECRET}",
        f"side=buy {field}={SECRET} symbol=BTCUSDT",
        f'side=buy\n{field}="{SECRET}"\nnonsense',
        f"side=buy;{field} = {SECRET};",
        f"side=buy&{field}={SECRET}&x=1",
    ):
        assert SECRET in claimed_secrets(body.encode()), body


def test_a_secret_may_be_escaped_in_json_and_encoded_in_a_url() -> None:
    secret = 'a"b\\c é&+ d%e=f\N{ROCKET}'
    assert claimed_secrets(json.dumps({"secret": secret}).encode()) == (secret,)
    assert secret in claimed_secrets(f"side=buy&secret={quote_plus(secret)}&x=1".encode())
    assert secret in claimed_secrets(f"side=buy&&&secret={quote_plus(secret)}&nonsense".encode())


def test_a_secret_with_spaces_in_key_value_lines() -> None:
    assert "correct horse battery" in claimed_secrets(b"secret=correct horse battery\nside=buy")


def test_a_number_may_be_the_secret() -> None:
    assert claimed_secrets(b'{"passphrase": 1234567890123456.50}') == ("1234567890123456.50",)


def test_the_licence_in_pineconnector_text() -> None:
    assert claimed_secrets(f"{SECRET},buy,US100,sl=10".encode()) == (SECRET,)


def test_claims_are_few_and_the_outermost_comes_first() -> None:
    inner = [{"token": f"inner-{number}"} for number in range(1000)]
    claims = claimed_secrets(json.dumps({"x": inner, "secret": SECRET}).encode())
    assert len(claims) == 8
    assert claims[0] == SECRET


@pytest.mark.parametrize("body", [b"", b"{}", b'{"secret":""}', b'{"secret":null,"key":{"a":1}}', b'{"side":"secret"}'])
def test_no_secret_is_claimed_where_there_is_none(body: bytes) -> None:
    assert claimed_secrets(body) == ()


def test_a_claim_can_always_be_encoded() -> None:
    assert claimed_secrets(b'{"secret":"\\ud800", "token":"ok"}') == ("ok",)


@pytest.mark.parametrize("line", [line for line in CORPUS if line["means"] is None])
def test_the_secret_is_never_in_the_refusal(line: dict[str, Any]) -> None:
    error = refusal(line["body"])
    for claim in claimed_secrets(line["body"].encode()):
        assert claim not in str(error)


# --- the key of an alert -----------------------------------------------------------------------------------------


def test_the_key_is_the_same_for_the_same_bytes_and_another_for_others() -> None:
    body = f'{{"secret":"{SECRET}","side":"buy","symbol":"BTCUSDT"}}'.encode()
    assert alert_key(body, SECRET) == alert_key(body, SECRET)
    assert alert_key(body, SECRET) != alert_key(body.replace(b"buy", b"sell"), SECRET)
    assert re.fullmatch("[0-9a-f]{64}", alert_key(body, SECRET))


secrets_ = st.text(st.characters(exclude_categories=["Cs"]), min_size=16, max_size=40)


@given(secrets_, secrets_)
@example('a"\\/\u2028 0000000000', "0123456789abcdef")
@example("one form is in another: %", "0123456789abcdef")
def test_the_key_does_not_depend_on_the_secret(one: str, other: str) -> None:
    writers: tuple[Callable[[str], str], ...] = (
        lambda secret: json.dumps({"secret": secret, "side": "buy"}),
        lambda secret: json.dumps({"secret": secret, "side": "buy"}, ensure_ascii=False),
        lambda secret: f"side=buy&secret={quote_plus(secret)}&x=1",
        lambda secret: f"{secret},buy,US100",
    )
    for write in writers:
        assert alert_key(write(one).encode(), one) == alert_key(write(other).encode(), other)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_different_bodies_have_different_keys(one: bytes, other: bytes) -> None:
    assert (alert_key(one, "") == alert_key(other, "")) is (one == other)


# --- any input ---------------------------------------------------------------------------------------------------


def _survives(body: bytes) -> str:
    """The refusal of it, or "". Anything but AlertError fails the test."""
    claims = claimed_secrets(body)
    assert len(claims) <= 8
    for claim in claims:
        claim.encode()
    fields = json_fields(body)
    assert claimed_secrets(body, fields) == claims
    try:
        signal = parse_alert(body, SECRET)
    except AlertError as error:
        refused = error
    else:
        _is_sane(signal)
        assert parse_alert(body, SECRET, fields) == signal
        return ""
    with pytest.raises(AlertError, match=f"^{re.escape(str(refused))}$"):
        parse_alert(body, SECRET, fields)
    assert refused.field
    assert len(str(refused)) < 400
    assert str(refused).isprintable()
    return f"{refused} {refused!r}"


def _is_sane(signal: Signal) -> None:
    for name in ("quantity", "amount", "percent", "price", "leverage", "stop_loss", "max_age_seconds"):
        value = getattr(signal, name)
        assert value is None or 0 < value < 10**15
    assert re.fullmatch(r"[A-Z0-9][A-Z0-9.&-]{0,29}", signal.symbol)
    for name in ("strategy", "timeframe", "comment", "account", "order_id", "bar_time", "exchange", "product"):
        text = getattr(signal, name)
        assert text is None or (len(text) <= 200 and text.isprintable())


@given(
    st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
)
@settings(max_examples=examples(100), deadline=None)
def test_any_bytes_give_a_signal_or_an_alert_error(body: bytes) -> None:
    _survives(body)


FIELD_NAMES = """
    action side symbol ticker quantity amount price type order strategy data sl tp timenow max_lag timestamp
    position_size market_position heartbeat secret currency_type market reduce_only take_profit x
""".split()  # noqa: SIM905 - a list of words reads better so
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10), st.decimals().map(str),
    st.sampled_from(["buy", "sell", "close", "BTCUSDT", "1", "50%", "$5", "LIMIT", "flat", "2026-01-02T03:04:05Z"]),
)  # fmt: skip
JSON_VALUES = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELD_NAMES), inner, max_size=6),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(FIELD_NAMES) | st.text(max_size=8), JSON_VALUES, max_size=10))
@settings(max_examples=examples(70), deadline=None)
def test_any_json_gives_a_signal_or_an_alert_error(document: dict[str, Any]) -> None:
    _survives(json.dumps(document).encode())
    _survives(
        json.dumps({"symbol": "BTCUSDT", "side": "buy"} | document, ensure_ascii=False).encode("utf-8", "replace")
    )


SAMPLES = [line["body"].replace(secret, SECRET) for line, secret in _claimed_in_corpus()] + [
    line["body"] for line in CORPUS
]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "swap", "repeat"]),
        st.floats(0, 1),
        st.one_of(
            st.binary(min_size=1, max_size=3), st.sampled_from([b'"', b",", b":", b"{", b"[", b"{{", b"=", b"\\u"])
        ),
    ),
    min_size=1,
    max_size=4,
)


def _edited(body: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for edit, place, data in edits:
        at = int(place * len(body))
        if edit == "insert":
            body = body[:at] + data + body[at:]
        elif edit == "delete":
            body = body[:at] + body[at + len(data) :]
        elif edit == "swap":
            body = body[:at] + data + body[at + len(data) :]
        else:
            body = body[:at] + body[max(0, at - 20) :]
    return body


@given(st.sampled_from(SAMPLES), EDITS)
@settings(max_examples=examples(250), deadline=None)
def test_a_damaged_alert_gives_a_signal_or_an_alert_error_and_never_shows_its_secret(
    sample: str, edits: list[tuple[str, float, bytes]]
) -> None:
    assert SECRET not in _survives(_edited(sample.encode(), edits))


@given(st.sampled_from([line["body"] for line in CORPUS if line["means"]]), st.data())
@settings(max_examples=examples(100), deadline=None)
def test_an_alert_with_one_other_value_never_shows_its_secret(sample: str, data: st.DataObject) -> None:
    try:
        document = json.loads(sample)
    except ValueError:
        return
    field = data.draw(st.sampled_from(sorted(document)))
    document[field] = data.draw(JSON_VALUES | st.just(SECRET) | st.just(f"{SECRET}{SECRET}"))
    document["secret"] = SECRET
    assert SECRET not in _survives(json.dumps(document).encode())


FULL = 16 * 1024
HOSTILE = """
    [ { {"a": [{" " \\" "\\ ' a a= a=1; a=1· a=1& a='· = =· ·= a, , ,,a= a( a(b){ a(){b();} t:“ t:' t=" t=1 token=
    token:\\ t· : - a- a_ 9 0. {{ {{} {·{ : :· ,·" ,} · ··a= buy· buy·BTCUSDT· x:1· é \N{ROCKET} \\u007b %7B & ; “ ”:
    x=a;x= "x":"y", "x":NaN,
""".split()  # noqa: SIM905 - a list of words reads better so


@pytest.mark.parametrize(
    "around", ["…", "x…x", '{"secret":"…', '{"a":"…"}', '{"a":…}', "buy BTCUSDT …", "a=…", "k,buy,X,…", "k(X) {…}"]
)
def test_hostile_bodies_of_16_kib_take_no_more_than_a_moment(around: str) -> None:
    for unit in HOSTILE:
        unit = unit.replace("·", " ")
        body = around.replace("…", unit * (FULL // len(unit.encode()))).encode()[:FULL]
        start = time.process_time()
        _survives(body)
        alert_key(body, SECRET)
        assert time.process_time() - start < 0.5, (around, unit)


def test_many_different_fields_take_no_more_than_a_moment() -> None:
    names = [f"f{number}" for number in range(1500)]
    for body in (
        json.dumps(dict.fromkeys(names, 1)),
        ";".join(f"{name}=1" for name in names),
        "&".join(f"{name}=1" for name in names),
    ):
        start = time.process_time()
        _survives(body.encode())
        assert time.process_time() - start < 0.5
