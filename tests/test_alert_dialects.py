"""What alerts of further bots mean, and that no field which changes the order is passed over. The alerts themselves are
in tests/data/more_alerts.jsonl, and test_signals.py goes over them."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from harness import SECRET, Daemon

from alert_words import entry_advice
from models import Action, Market, OrderType, Signal
from plan import Held, Plan, plan
from signals import AlertError, claimed_secrets, parse_alert
from sizing import Wish

FLAT, LONG, SHORT = Held(Decimal(0), 0, False), Held(Decimal(1), 1, False), Held(Decimal(-1), -1, False)


def said(**fields: Any) -> Signal:
    """A buy of BTCUSDT that also says this; None takes a field away."""
    return parse_alert(json.dumps({"symbol": "BTCUSDT", "action": "buy"} | fields).encode())


def refused(**fields: Any) -> AlertError:
    with pytest.raises(AlertError) as error:
        said(**fields)
    return error.value


def on_futures(held: Held, **fields: Any) -> Plan:
    return plan(said(**fields), Market.FUTURES, held, Wish(amount=Decimal(10)))


def nothing_opens(held: Held, **fields: Any) -> bool:
    found = on_futures(held, **fields)
    return found.nothing is not None or all(leg.is_exit for leg in found.legs)


# --- positions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["posSide", "pos_side", "holdSide"])
def test_the_side_of_the_position_is_read_under_the_names_that_exchanges_give_it(field: str) -> None:
    assert said(action="sell", **{field: "long"}).intent == "close_long"
    assert nothing_opens(FLAT, action="sell", quantity=1, **{field: "long"})


@pytest.mark.parametrize("word", ["BOTH", "net"])
def test_one_way_mode_as_position_side_says_nothing(word: str) -> None:
    assert said(positionSide=word) == said()


def test_bybits_index_of_a_hedge_position_is_refused_by_name() -> None:
    assert refused(action="sell", positionIdx=1).field == "positionIdx"
    assert said(positionIdx=0) == said()


@pytest.mark.parametrize("field", ["mar_pos", "current_position"])
def test_a_closing_sell_opens_no_short_where_the_flat_position_has_another_name(field: str) -> None:
    assert said(action="sell", **{field: "flat"}).market_position == "flat"
    assert nothing_opens(FLAT, action="sell", quantity="0.5", **{field: "flat"})


def test_a_reversal_is_one_where_both_positions_have_other_names() -> None:
    order = {"action": "buy", "contracts": 2}
    alert = {"action": None, "strategy": {"order": order, "current_position": "long", "prev_position": "short"}}
    assert said(**alert).intent == "reverse_long"
    assert on_futures(SHORT, **alert).is_reversal


def test_a_target_position_is_the_size_to_end_with() -> None:
    assert said(action="sell", target_position="-0.3", quantity="0.6").position_size == Decimal("-0.3")


# --- what is to be done ------------------------------------------------------------------------------------------


def test_a_command_is_an_action() -> None:
    assert said(action="sell", command="EXIT", quantity=1).intent == "close_long"
    assert said(action=None, command="CLOSEPOSITION").action is Action.CLOSE
    assert said(command="PLACE") == said()
    for other in ("REVERSE", "CANCELORDERS", "CANCELREPLACE"):
        assert refused(command=other).field == "command"
    assert refused(action=None, command="PLACE").field == "action"


@pytest.mark.parametrize("field", ["intent", "position_effect", "type_of_signal"])
def test_a_word_for_closing_counts_beside_a_side(field: str) -> None:
    assert said(action="sell", **{field: "close"}).intent == "close_long"
    assert said(action="sell", **{field: "as the plan says"}) == said(action="sell")


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("order_comment", "Close entry(s) order Long"),
        ("comment", "Close position order"),
        ("comment", "Exit Long"),
        ("order_id", "closeLong"),
        ("order_id", "Long Exit"),
    ],
)
def test_a_sell_whose_comment_or_id_says_that_it_closes_opens_no_short(field: str, text: str) -> None:
    for held in (FLAT, LONG, SHORT):
        assert nothing_opens(held, action="sell", quantity="0.5", **{field: text})
    assert on_futures(LONG, action="sell", quantity="0.5", **{field: text}).nothing is None


def test_a_buy_that_closes_a_short_buys_nothing_on_spot() -> None:
    cover = said(action="buy", comment="Close entry(s) order Short")
    assert plan(cover, Market.SPOT, FLAT, Wish(amount=Decimal(10))).nothing


@pytest.mark.parametrize("text", ["Long", "Short", "Exit Short", "RSI crossed 30", "Closed above the band", ""])
def test_any_other_comment_says_nothing(text: str) -> None:
    assert said(action="sell", comment=text, order_id="Long").intent is None


def test_a_sell_on_spot_whose_comment_closes_may_still_sell_what_was_held_before() -> None:
    (way_out,) = plan(said(action="sell", quantity=2, comment="Exit"), Market.SPOT, FLAT, Wish()).legs
    assert way_out.wish == Wish(quantity=Decimal(2))


def test_a_reversal_that_is_stated_is_one_whatever_its_comment() -> None:
    assert on_futures(LONG, action="sell", reverse=True, comment="Exit Long").is_reversal


def test_a_stated_position_counts_more_than_a_comment() -> None:
    alert = said(action="sell", market_position="short", prev_market_position="long", comment="Close Long")
    assert alert.intent == "reverse_short"


@pytest.mark.parametrize("flag", ["is_exit", "isClose", "closeAll", "reduce", "is_reduce_only", "exit_only"])
def test_a_flag_that_closes_opens_nothing_whatever_it_is_called(flag: str) -> None:
    assert nothing_opens(FLAT, action="sell", quantity=1, **{flag: True})
    assert on_futures(LONG, action="sell", quantity=1, **{flag: "true"}).nothing is None
    assert said(action="sell", **{flag: False}) == said(action="sell")
    assert refused(action="sell", **{flag: "perhaps"}).field == flag


def test_one_of_two_flags_that_close_is_enough() -> None:
    assert said(action="sell", reduceOnly="true", closePosition="false").reduce_only
    assert not said(action="sell", reduceOnly=False, closePosition=False).reduce_only


# --- how much ----------------------------------------------------------------------------------------------------


def test_a_half_is_sold_where_the_alert_says_a_half() -> None:
    half = on_futures(LONG, action="sell", reduceOnly=True, qtyPct=50)
    assert half.legs[0].wish == Wish(percent=Decimal(50), reduce_only=True)
    assert said(action="close", close_pct=50).intent == "reduce"


@pytest.mark.parametrize("field", ["qty_mode", "size_unit", "quantity_unit", "sizing_type", "unit"])
def test_ten_percent_are_not_ten_coins_whatever_the_unit_field_is_called(field: str) -> None:
    assert said(qty="10", **{field: "percent"}).percent == 10
    assert said(qty="10", **{field: "percent"}).quantity is None
    assert said(qty="10", **{field: "USDT"}).amount == 10
    assert refused(qty="10", **{field: "lots"}).field == field


@pytest.mark.parametrize(
    ("fields", "quantity", "amount", "percent"),
    [
        ({"orderQty": "0.5"}, "0.5", None, None),
        ({"cantidad": "0.5"}, "0.5", None, None),
        ({"notional": 50}, None, 50, None),
        ({"size_usdt": 50}, None, 50, None),
        ({"size_pct": 5}, None, None, 5),
        ({"size_type": "percent", "size_value": 100}, None, None, 100),
        ({"amountPerTradeType": "quote", "amountPerTrade": 50}, None, 50, None),
        ({"amountPerTradeType": "percents", "amountPerTrade": "1.0"}, None, None, 1),
    ],
)
def test_a_size_counts_under_its_other_names(fields: dict[str, Any], quantity: Any, amount: Any, percent: Any) -> None:
    signal = said(**fields)
    meant = [None if value is None else Decimal(value) for value in (quantity, amount, percent)]
    assert [signal.quantity, signal.amount, signal.percent] == meant


@pytest.mark.parametrize("field", ["lot", "vol_lots", "sz", "percent", "percentage", "trade_amount", "capital"])
def test_a_size_whose_unit_is_not_known_is_refused_by_name(field: str) -> None:
    assert refused(**{field: "0.1"}).field == field
    assert refused(action="close", **{field: "0.1"}).field == field


# --- at what price -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["ordType", "entry_type", "execution"])
def test_a_limit_order_is_none_at_market_whatever_the_type_is_called(field: str) -> None:
    signal = said(price=66000, **{field: "limit"})
    assert (signal.type, signal.price) == (OrderType.LIMIT, Decimal(66000))
    assert refused(**{field: "limit"}).field == "price"
    assert refused(type="market", price=66000, **{field: "limit"}).field in (f"type, {field}", f"{field}, type")


def test_the_names_of_an_exchanges_own_interface_are_read() -> None:
    signal = said(symbol=None, instId="BTC-USDT-SWAP", side="buy", ordType="limit", px="66000", posSide="long")
    assert (signal.type, signal.price, signal.intent) == (OrderType.LIMIT, Decimal(66000), "open_long")
    assert refused(ordType="post_only").field == "ordType"


def test_another_kind_of_entry_is_no_order_type() -> None:
    assert said(entry_type="breakout") == said()


# --- what would change an entry, and nobody reads -------------------------------------------------------------------

LEVELS = {"entry": 67000, "stop_loss": 66000, "take_profit": 69000}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"levels": LEVELS}, "levels.stop_loss"),
        ({"strategy": {"name": "s", "long": {"stopLoss": "1.5"}}}, "strategy.long.stopLoss"),
        ({"trade": {"side": "buy", "quantity": "0.5"}}, "trade.quantity"),
        ({"sizing": {"qty_pct": 5}}, "sizing.qty_pct"),
        ({"legs_to_take": [{"price": 1}, {"tp_percent": 2}]}, "legs_to_take.tp_percent"),
        ({"dca_orders": [{"price_percentage": 2}]}, "dca_orders"),
        ({"stop": 66000}, "stop"),
        ({"target": "69000"}, "target"),
        ({"t1": 2520}, "t1"),
        ({"stopLossDistance": 100}, "stopLossDistance"),
        ({"sl_ticks": 20}, "sl_ticks"),
        ({"sl1": 66000}, "sl1"),
        ({"dollar_sl": 100}, "dollar_sl"),
        ({"tsl_dist": 100}, "tsl_dist"),
        ({"tp1_qty": 50}, "tp1_qty"),
        ({"break_even": True}, "break_even"),
        ({"trail": 50}, "trail"),
        ({"activationPrice": 70000, "callbackRate": 1}, "activationPrice"),
        ({"delay": 5}, "delay"),
        ({"cancelAfter": 60, "type": "limit", "price": 66000}, "cancelAfter"),
        ({"cancel": True}, "cancel"),
        ({"limit": 66000}, "limit"),
        ({"postOnly": "true"}, "postOnly"),
        ({"hedge": True}, "hedge"),
        ({"risk": "1%"}, "risk"),
    ],
)
def test_a_field_that_would_change_the_entry_is_told_and_not_passed_over(fields: dict[str, Any], named: str) -> None:
    assert said(**fields).unread[0].startswith((f"{named} (use ", f"{named} (leave it out: "))


@pytest.mark.parametrize(
    "fields",
    [
        {"stopLossDistance": 0, "dollar_sl": "0.0", "trail": False, "break_even": "", "targets": [], "delay": "0"},
        {"risk": "high", "target": "the moon", "stop_loss_kind": "swing low", "setup_strength": "strong"},
        {"bar": {"time": "x", "close": 1, "stop": 2}, "extras": {"stop_loss": 1}, "metadata": {"sl": 1, "qty": 2}},
        {"rsi": 28.4, "atr": "12", "ema_200": 66000, "volume_ratio": 1.5, "sl_hit": False, "tp_count": 3},
        {"profile": {"levels": [1, 2, 3], "name": "x"}, "ohlc": [1, 2, 3, 4], "opposite": 1, "zone_id": 5},
    ],
)
def test_what_is_off_or_only_describes_keeps_nobody_from_trading(fields: dict[str, Any]) -> None:
    assert said(**fields) == said()


def test_a_field_that_nobody_reads_is_not_shown_with_what_it_says() -> None:
    assert "Horse" not in str(said(levels={"sl": "1-Horse"}).unread)
    assert said(**{"x" * 500: {"sl": 1}}).unread == ("a field with a long name (use sl beside the symbol)",)


def test_an_option_is_not_bought_as_the_share_below_it() -> None:
    assert refused(symbol="NIFTY", option_type="CE", strike=22000).field == "option_type"
    assert refused(symbol="NIFTY", options_mode=True).field == "options_mode"


def test_no_entry_is_made_with_a_stop_that_is_not_understood_but_every_way_out_is(paper: Daemon) -> None:
    alert: dict[str, Any] = {"symbol": "BTCUSDT", "price": 43000}
    refusal = paper.post(action="buy", **alert, levels={"stop_loss": 42000}).body
    assert (refusal["decision"], refusal["check"]) == ("REJECTED", "field")
    assert "levels.stop_loss (use stop_loss beside the symbol)" in refusal["reason"]
    assert paper.post(action="buy", **alert).body["status"] == "FILLED"
    assert paper.post(action="sell", **alert, levels={"stop_loss": 42000}, delay=5).body["status"] == "FILLED"
    assert [row["Check"] for row in paper.signals()] == ["field", "", ""]


# --- where -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["is_test_net", "testnet", "sandbox", "demo", "paper", "paperTrading"])
def test_an_alert_for_play_money_is_not_traded_with_real_money(flag: str) -> None:
    assert refused(**{flag: True}).field == flag
    assert said(**{flag: False}) == said()


def test_an_alert_in_paper_mode_goes_to_paper() -> None:
    assert said(mode="paper").broker == "PAPER"
    assert said(mode="simulation", broker="paper").broker == "PAPER"
    assert refused(mode="paper", broker="BINANCE").field == "mode"
    assert refused(environment="testnet").field == "environment"
    assert said(mode="STRATEGY", environment="production") == said()


@pytest.mark.parametrize("flag", ["test_mode", "testOrder", "ping", "simulate"])
def test_a_test_does_not_trade_whatever_it_is_called(flag: str) -> None:
    assert refused(**{flag: True}).field == flag


@pytest.mark.parametrize(
    ("field", "word", "market"),
    [
        ("productType", "USDT-FUTURES", Market.FUTURES),
        ("instType", "SWAP", Market.FUTURES),
        ("contractType", "PERPETUAL", Market.FUTURES),
        ("asset_class", "spot", Market.SPOT),
        ("tdMode", "cash", Market.SPOT),
        ("tdMode", "isolated", None),
        ("product", "MIS", None),
        ("asset_type", "crypto", None),
    ],
)
def test_a_perpetual_is_not_bought_as_the_coin_whatever_says_that_it_is_one(
    field: str, word: str, market: Market | None
) -> None:
    assert said(**{field: word}).market is market


def test_what_is_neither_spot_nor_a_perpetual_is_refused_and_a_product_of_a_broker_is_not() -> None:
    assert refused(asset_class="option").field == "asset_class"
    assert refused(market="spot", instType="SWAP").field == "market, instType"
    assert said(product_type="margin").market is None


# --- when --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["trigger_time", "fire_time"])
def test_the_firing_time_is_judged_under_its_other_names(field: str) -> None:
    """Delta Exchange's own template has {{timenow}} as trigger_time."""
    assert said(**{field: "2026-01-02T03:04:05Z"}).fired_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert said(max_lag=20, **{field: "2026-01-02T03:04:05Z"}).max_age_seconds == 20


# --- ways out ----------------------------------------------------------------------------------------------------


def test_no_quantity_beside_a_flat_position_is_everything() -> None:
    flat = said(action="sell", contracts="0", position_size="0")
    assert (flat.quantity, flat.goes_flat) == (None, True)
    assert on_futures(LONG, action="sell", contracts=0, market_position="flat").nothing is None
    assert refused(action="sell", contracts="0").field == "contracts"
    assert refused(action="sell", contracts="-1", position_size=0).field == "contracts"
    assert refused(action="sell", reduce_only=True, contracts="0").field == "contracts"


@pytest.mark.parametrize(
    "way_out",
    [{"action": "close"}, {"action": "sell", "market_position": "flat"}, {"action": "sell", "reduceOnly": True}],
)
def test_no_way_out_is_kept_shut_by_its_protection(way_out: dict[str, Any]) -> None:
    assert said(**way_out, sl=0, tp="0", trailing=0) == said(**way_out)
    assert said(**way_out, tp1=1, tp2=2, sl="somewhere", trailing_percent=0) == said(**way_out)


# --- TradingView's own message -----------------------------------------------------------------------------------


def text(body: str) -> Signal:
    return parse_alert(body.encode())


def test_the_message_that_tradingview_proposes_is_understood() -> None:
    signal = text("ALSAPRO 1 (14, 2, close): order sell @ 0.6 filled on BTCUSDT.P. New strategy position is -0.3")
    assert (signal.action, signal.symbol, signal.market) == (Action.SELL, "BTCUSDT", Market.FUTURES)
    assert (signal.quantity, signal.position_size) == (Decimal("0.6"), Decimal("-0.3"))
    assert signal.strategy == "ALSAPRO 1"
    assert plan(signal, Market.FUTURES, LONG, Wish()).is_reversal


@pytest.mark.parametrize("strategy", ["MACD(12,26,9)", "My: strategy (1) (2, 3)", "a=b", "buy BTCUSDT", ""])
def test_it_is_understood_whatever_the_strategy_is_called(strategy: str) -> None:
    start = f"{strategy}: order" if strategy else "Order"
    signal = text(f"{start} buy @ 1 filled on BTCUSDT. New strategy position is 1")
    assert (signal.action, signal.quantity, signal.position_size) == (Action.BUY, Decimal(1), Decimal(1))


def test_it_goes_flat_where_it_says_so() -> None:
    assert text("S: order sell @ 1 filled on BTCUSDT. New strategy position is 0").intent == "close_long"


@pytest.mark.parametrize(
    "body",
    [
        "S: order buy @ {{strategy.order.contracts}} filled on BTCUSDT. New strategy position is 1",
        "S: order buy @ 1 filled on BTCUSDT",
        "S: order buy @ 1 filled on BTCUSDT. New strategy position is NaN",
        "S: order buy @ 1 filled on BTC USDT. New strategy position is 1",
        "S: order buy @ 1 filled on BTCUSDT. New strategy position is 1 and more",
        "S: order buy @ 1,5 filled on BTCUSDT. New strategy position is 1",
    ],
)
def test_anything_else_of_its_kind_is_refused(body: str) -> None:
    with pytest.raises(AlertError):
        text(body)


def test_a_long_text_of_its_kind_takes_no_more_than_a_moment() -> None:
    started = time.perf_counter()
    hostile = ("a(: " * 4000, "order buy @ " * 1300, ": order buy @ 1" * 1000, "x: order buy @ (): " * 800)
    for body in (*hostile, "(" * 8000 + ")" * 8000 + ": order buy @ 1 x"):
        with pytest.raises(AlertError):
            text(body)
    assert time.perf_counter() - started < 1


def test_its_secret_stands_in_the_address_whatever_its_inputs_look_like(paper: Daemon) -> None:
    body = b"MACD(12,26,9): order sell @ 1 filled on BTCUSDT. New strategy position is 0"
    reply = paper.post_raw(body, f"/webhook/{SECRET}?dry_run=true")
    assert (reply.status, reply.body["signal"]["action"]) == (200, "SELL")
    assert paper.post_raw(body).status == 401


def test_spanish_names_are_read_beside_a_spanish_action() -> None:
    alert = said(action=None, accion="compra", precio="67000", estrategia="corto", apalancamiento=3)
    assert (alert.price, alert.strategy, alert.leverage) == (Decimal(67000), "corto", Decimal(3))


def test_pairs_between_commas_are_pairs() -> None:
    signal = text("signal=long,symbol=EURUSD,qty=100000, sl_price=1.08,secret=x")
    assert (signal.symbol, signal.intent, signal.stop_loss) == ("EURUSD", "open_long", Decimal("1.08"))
    assert "correct-horse" in claimed_secrets(b"signal=closelong,symbol=EURUSD,secret=correct-horse")


@pytest.mark.parametrize("body", ["signal=long,symbol=EURUSD,qty=1,5", "signal=long,,symbol=EURUSD", "side=buy,symbol"])
def test_a_comma_within_a_value_is_none_between_pairs(body: str) -> None:
    with pytest.raises(AlertError):
        text(body)


def test_a_comment_that_is_an_object_keeps_no_way_out_shut() -> None:
    """Only what is told beside it counts: a relay repeats its levels in there."""
    assert said(action="sell", reduceOnly=True, comment={"sl": 1, "tp": 2}) == said(action="sell", reduceOnly=True)
    assert said(sl=66000, comment={"entry": 67000, "sl": 66000}) == said(sl=66000)


def test_protection_in_percent_counts_under_its_longer_names() -> None:
    alert = said(stopLossPercentage="2%", take_profit_percentage=4, trailing_stop_pct=1)
    assert (alert.stop_loss_percent, alert.take_profit_percent) == (Decimal(2), Decimal(4))
    assert (alert.trailing_percent, alert.unread) == (Decimal(1), ())


def test_no_limit_order_is_placed_beside_an_offset_that_nobody_reads() -> None:
    (told,) = said(type="limit", price=100, orderPriceOffset="1").unread
    assert told == "orderPriceOffset (use price, the limit itself)"


def test_of_a_long_name_only_the_beginning_is_remembered() -> None:
    assert entry_advice("stoploss" + "x" * 10_000) == entry_advice("stoploss" + "x" * 32) != entry_advice("x" * 40)
