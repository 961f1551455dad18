"""What the words of alerts mean: tables, and nothing that acts on them.

Sources: TradingView's placeholders <https://www.tradingview.com/support/solutions/43000531021/>, the documentation of
TradersPost, 3Commas, OKX, tickerly, tv-hub, OpenAlgo, Alertatron, PineConnector and whook, and some forty public bots;
tests/data/alerts.jsonl and more_alerts.jsonl have a sample of each with what it means.

Names are compared without case, `-`, `_`, `.` and spaces: `order_action`, `orderAction` and `ORDER-ACTION` are one.
A field inside a known object is looked up with the object's name first: `strategy: {"order": {"action": …}}` is
`strategy_order_action`, then `order_action`, then `action`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from models import Action, Market, OrderType

_SQUEEZE = str.maketrans("", "", "-_. ")


def squeeze(name: str) -> str:
    name = name.lower()
    return name if name.isalnum() else name.translate(_SQUEEZE)


def _squeezed(names: str) -> frozenset[str]:
    return frozenset(squeeze(name) for name in names.split())


# --- fields ------------------------------------------------------------------------------------------------------

# Meaning -> the field names that carry it. Two fields of one line must agree, except where signals.py takes the
# first of the line because the value only describes.
_FIELD_NAMES = {
    # what to do
    "action": "action side order signal direction accion order_action strategy_order_action strategy_action "
    "trade_action order_side signal_side event alert_type command",
    # A verb in some dialects, free text or a uuid in others: counts when it is a verb.
    "alert": "alert signal_type type_of_signal intent order_intent position_action position_effect",
    "is_buy": "is_buy",
    "position_side": "position_side pos_side hold_side",
    "market_position": "market_position position strategy_market_position sentiment current_position mar_pos",
    "prev_market_position": "prev_market_position prev_position previous_market_position previous_position "
    "strategy_prev_market_position pre_mar_pos",
    "position_size": "position_size strategy_position_size target_position",
    "market_position_size": "market_position_size strategy_market_position_size mar_pos_size",
    "reduce_only": "reduce_only close_only",
    # Each a switch of its own (Binance has reduceOnly and closePosition): one that is on is enough.
    "closing": "close_position close_all close_all_positions close_trade exit_only is_exit is_close is_reduce "
    "is_reduce_only reduce reduce_position flatten",
    "reverse": "reverse",
    # what to trade, and where
    "symbol": "symbol ticker pair instrument asset tv_instrument trading_pair trading_symbol currency_pair inst_id",
    "first_coin": "coin_one",
    "second_coin": "coin_two",
    "market": "market market_type",
    "category": "category inst_type contract_type asset_class asset_type instrument_type security_type sec_type "
    "trading_type td_mode segment",
    "broker": "broker",
    "exchange": "exchange tv_exchange",
    "account": "account",
    "product": "product product_type",
    # how much
    "quantity": "quantity qty contracts order_contracts strategy_order_contracts size order_size amount units "
    "no_of_contracts order_qty order_quantity trade_qty trade_quantity base_qty base_quantity base_amount "
    "num_contracts amount_per_trade size_value qty_value cantidad quantidade",
    "unit": "quantity_type qty_type currency_type investment_type units_type amount_type size_type "
    "amount_per_trade_type quantity_mode qty_mode size_mode amount_mode sizing_mode sizing_type quantity_unit qty_unit "
    "size_unit amount_unit unit",
    "quote_amount": "amount_usdt usdt_amount quote_order_qty quote_amount quote_qty usdt usd balance stake_amount "
    "notional notional_usdt notional_usd amount_usd usd_amount quantity_usdt qty_usdt usdt_qty size_usdt size_usd "
    "quote_size quote_quantity trade_amount_usdt dollar_amount position_size_usdt position_size_usd",
    "margin": "margin",
    "equity_percent": "position_size_percent equity_percent balance_percent quantity_percent qty_percent "
    "position_size_pct equity_pct balance_pct quantity_pct qty_pct size_percent size_pct amount_percent amount_pct "
    "percent_of_equity percent_of_balance",
    "position_percent": "position_percent close_percent close_pct close_percentage exit_percent exit_pct "
    "reduce_percent reduce_pct",
    "risk_percent": "risk_percent risk_pct",
    "buy_rate": "bid_rate",
    "sell_rate": "ask_rate",
    "volume": "volume",  # the bar's, except in AlgoWay's dialect, which has a trade_type
    "trade_type": "trade_type",
    "leverage": "leverage lev apalancamiento",
    # at what price
    "type": "type order_type price_type ord_type",
    # Anybody's word ("breakout"), but an order type where it is one.
    "type_hint": "entry_type entry_order_type exec_type execution_type execution order_kind",
    "subtype": "order_subtype",
    "is_market": "is_market",
    "limit_price": "limit_price",
    "price": "price order_price strategy_order_price px precio",
    "entry_price": "entry_price entry",
    "exit_price": "exit_price",
    "chart_price": "current_price close signal_price last_price",
    "trigger_price": "trigger_price",
    "stop_price": "stop_price",
    "time_in_force": "time_in_force tif",
    # protection
    "stop_loss": "stop_loss sl stop_loss_price sl_price stop_loss_stop_price",
    "stop_loss_percent": "stop_loss_percent sl_percent stop_loss_pct sl_pct stop_loss_percentage sl_percentage "
    "stop_loss_perc sl_perc",
    "stop_loss_offset": "stop_loss_offset sl_offset sl_pip sl_pips stop_loss_amount",
    "take_profit": "take_profit take_profits tp take_profit_price tp_price take_profit_limit_price "
    "tp1 tp2 tp3 tp4 tp5 take_profit_1 take_profit_2 take_profit_3 take_profit_4 take_profit_5",
    "take_profit_percent": "take_profit_percent tp_percent take_profit_pct tp_pct take_profit_percentage tp_percentage "
    "take_profit_perc tp_perc",
    "take_profit_offset": "take_profit_offset tp_offset tp_pip tp_pips take_profit_amount",
    "trailing_percent": "trailing trailing_percent trail_percent trailing_stop_percent stop_loss_trail_percent "
    "callback_rate trailing_stop_pct trailing_stop_percentage trailing_pct trailing_percentage trail_pct "
    "trail_percentage",
    # when
    "fired_at": "timenow sent_at fired_at alert_timestamp trigger_time fire_time",
    "max_lag": "max_lag",
    "timestamp": "timestamp",
    "time": "bar_time time candle_time",
    # what it was about
    "confidence": "confidence",
    "strategy": "strategy strategy_name estrategia",
    "strategy_alias": "strategy_id pattern",
    "timeframe": "timeframe interval tf frame",
    "order_id": "order_id strategy_order_id position_id alert_id id",
    "comment": "comment order_comment strategy_order_comment text entry_tag alert_message alert_msg "
    "order_alert_message label",
    "heartbeat": "heartbeat test is_test dry_run dry_run_mode test_mode is_test_mode test_order test_signal "
    "is_test_signal ping simulate validate_only",
    # Anybody's word ("STRATEGY"), but play money where it says so.
    "mode": "mode environment env trading_mode trade_mode account_mode",
    # understood as saying nothing
    "nothing": "stop_loss_type stop_loss_enabled take_profit_enabled",
}

# Fields that would change the order if they were understood. Ignoring one could trade more than was meant, or
# without the protection that was asked for.
_ADVICE = {
    "lots lot lot_size volume_lots vol_lots sz": "quantity in base units",
    "percent percentage": "quantity with its %, or close_percent",
    "trade_amount invest investment capital": "quantity, or amount_usdt",
    "trailing_stop trail_amount trail_price trail_offset stop_loss_trail_amount": "trailing_percent",
    "position_idx": "positionSide",
    "testnet test_net is_testnet is_test_net use_testnet sandbox is_sandbox demo is_demo demo_mode paper is_paper "
    "paper_trade paper_trading paper_mode": "broker, the name of one of yours",
    "option_type options_mode option_moneyness strike strike_price put_call": "a symbol traded here (no options)",
}
# Fields that would change an entry, and what to say instead: with one of them no entry is made. On a way out they mean
# nothing, so it is taken.
_ENTRY_ADVICE = {
    "stop": "use stop_loss for protection; type stop and stop_price for an entry that waits",
    "target targets target_price target_1 target_2 target_3 t1 t2 t3 profit_target": "use take_profit",
    "activation_price activate_price": "use trailing_percent alone",
    "limit": "use type limit and limit_price",
    "price_offset order_price_offset limit_offset entry_offset": "use price, the limit itself",
    "stops stop_targets": "use stop_loss",
    "post_only": "use time_in_force GTX",
    "cancel_after limit_cancel_time good_till_date gtd expire_seconds expiration expiry": "use time_in_force",
    "delay delay_seconds delay_ms": "leave it out: an order leaves at once",
    "cancel cancel_all cancel_orders cancel_open_orders cancel_pending": "leave it out: an entry cancels no orders",
    "hedge hedge_mode": "use positionSide",
    "close_opposite close_first flatten_first close_existing reverse_order_close": "use reverse",
    "risk risk_percentage risk_per_trade risk_amount risk_usd dollar_risk": "use quantity or amount_usdt",
    "dca dca_orders safety_orders": "use one order per alert",
}
# Stop-loss, take-profit and trailing stop by any other name: stopLossDistance, sl_ticks, dollar_tp, tp1_qty ...
_PROTECTION_NAME = re.compile(
    r".*(?:stoploss|takeprofit|trail|breakeven).*"
    r"|(?:sl|tp|tsl)[0-9]*(?:price|level|pct|perc|percent|percentage|dist|distance|points?|pips?|ticks?|offset|usdt?|value"
    r"|amount|atr|ratio|roi|qty|quantity|size|sell|close|closepct|closepercent)?[0-9]*"
    r"|(?:price|percentage|percent|dollar|initial|new|hard)(?:sl|tp|stop)"
    r"|stop(?:pct|perc|percent|percentage|dist|distance|points?|pips?|ticks?|offset|level|atr)"
)
PROTECTION_ADVICE = "use stop_loss, take_profit or trailing_percent, as a price or with %"

SECRET_FIELDS = _squeezed(
    "secret secret_key webhook_secret webhook_key webhook_token passphrase pass password passwd key token auth "
    "auth_token access_token api_key api_token api_secret signal_token email_token pointer identity license "
    "license_id t secret_token tv_secret relay_secret connector_secret webhook_password webhook_passphrase passphase "
    "bot_token auth_key clave"
)

CONTAINERS = _squeezed("strategy order data strategy_info params signal alert payload")
# Objects that must be understood whole: a stop loss of which only half is understood is none.
PROTECTION_CONTAINERS = _squeezed("stop_loss take_profit")
BATCH_FIELDS = _squeezed("actions orders signals alerts trades batch legs")

# `action` and its kin hold {{strategy.order.action}}, the side of the order. Next to "close", a buy or sell anywhere
# else may as well be the side of the position that is to be closed.
ORDER_SIDE_FIELDS = _squeezed("action accion order order_action order_side strategy_order_action strategy_action")


LONGEST_NAME = 40


class Name(NamedTuple):
    meaning: str
    rank: int  # place in its line of the table


def _by_name() -> dict[str, Name]:
    names: dict[str, Name] = {}
    for meaning, line in _FIELD_NAMES.items():
        for rank, name in enumerate(line.split()):
            if squeeze(name) in names:
                raise ValueError(f"field {name} has two meanings")
            names[squeeze(name)] = Name(meaning, rank)
    return names


FIELDS = _by_name()
ADVICE = {name: wanted for line, wanted in _ADVICE.items() for name in _squeezed(line)}
ENTRY_ADVICE = {name: wanted for line, wanted in _ENTRY_ADVICE.items() for name in _squeezed(line)}
# In an object that nobody knows, these are the order's all the same; in one that describes, they are not.
_ORDER_LINES = """
    stop_loss stop_loss_percent stop_loss_offset take_profit take_profit_percent take_profit_offset trailing_percent
    quantity equity_percent position_percent risk_percent leverage limit_price stop_price reduce_only closing
    reverse position_side
"""
CHANGES_AN_ENTRY = frozenset(_ORDER_LINES.split())
DESCRIPTIVE = _squeezed(
    "bar candle ohlc ohlcv indicators indicator plots extra extras meta metadata meta_data info context debug"
)


def entry_advice(name: str) -> str | None:
    """What to say instead of a field (squeezed) that would change an entry if it were understood; None: nothing."""
    return _entry_advice(name[:LONGEST_NAME])  # what is remembered of names is short


@lru_cache(maxsize=1024)
def _entry_advice(name: str) -> str | None:
    if name in ENTRY_ADVICE:
        return ENTRY_ADVICE[name]
    return PROTECTION_ADVICE if _PROTECTION_NAME.fullmatch(name) else None


# --- what to do --------------------------------------------------------------------------------------------------


class Verb(NamedTuple):
    """What one word says; None = nothing. `stage`: open, close, cancel, target; `position`: the one it is about."""

    stage: str | None = None
    side: Action | None = None
    position: str | None = None


_VERBS = {
    "buy comprar compra": Verb(side=Action.BUY),
    "sell vender venta": Verb(side=Action.SELL),
    "long largo bull": Verb(position="long"),
    "short corto bear": Verb(position="short"),
    "open enter entry abrir entrada": Verb("open"),
    "close exit flat flatten close_all exit_all close_position cerrar cierre salir salida": Verb("close"),
    "open_long long_open enter_long long_entry entry_long go_long long_buy buy_to_open bull_entry "
    "abrir_largo comprar_largo": Verb("open", position="long"),
    "open_short short_open enter_short short_entry entry_short go_short short_sell sell_short sell_to_open bear_entry "
    "abrir_corto vender_corto": Verb("open", position="short"),
    "close_long long_close exit_long long_exit long_sell sell_to_close bull_exit cerrar_largo": Verb(
        "close", position="long"
    ),
    "close_short short_close exit_short short_exit short_buy buy_to_close buy_to_cover cover bear_exit "
    "cerrar_corto": Verb("close", position="short"),
    "cancel cancelar cancel_all": Verb("cancel"),
    "pos target set_position": Verb("target"),
    "place": Verb(),  # CrossTrade's command: what is to be done says its action
}
VERBS = {squeeze(word): verb for words, verb in _VERBS.items() for word in words.split()}
VERBS_WANTED = "buy, sell, long, short, close, exit, flat, open_long, open_short, close_long, close_short or cancel"

# What TradingView itself writes into {{strategy.order.comment}} of strategy.close and strategy.close_all.
CLOSING_COMMENTS = ("close entry(s) order", "close position order")

POSITIONS = {
    "long": "long",
    "short": "short",
    "flat": "flat",
    "bullish": "long",
    "bearish": "short",
}

# In `positionSide`: one-way mode, which has no sides to choose between.
NO_POSITION_SIDE = frozenset({"both", "net"})

# (position, closing it?) -> the order that does it
ORDER_SIDE = {
    ("long", False): Action.BUY,
    ("long", True): Action.SELL,
    ("short", False): Action.SELL,
    ("short", True): Action.BUY,
}

# (order, position before, position after) -> intent. "" = the alert did not say.
INTENTS = {
    (Action.BUY, "", "long"): "open_long",
    (Action.BUY, "flat", ""): "open_long",
    (Action.BUY, "flat", "long"): "open_long",
    (Action.BUY, "long", "long"): "add",
    (Action.BUY, "short", "long"): "reverse_long",
    (Action.BUY, "short", "short"): "reduce",
    (Action.BUY, "short", ""): "close_short",  # tickerly's exit-short
    (Action.BUY, "short", "flat"): "close_short",
    (Action.BUY, "", "flat"): "close_short",
    (Action.SELL, "", "short"): "open_short",
    (Action.SELL, "flat", ""): "open_short",
    (Action.SELL, "flat", "short"): "open_short",
    (Action.SELL, "short", "short"): "add",
    (Action.SELL, "long", "short"): "reverse_short",
    (Action.SELL, "long", "long"): "reduce",
    (Action.SELL, "long", ""): "close_long",  # tickerly's exit-long
    (Action.SELL, "long", "flat"): "close_long",
    (Action.SELL, "", "flat"): "close_long",
    (Action.BUY, "long", "flat"): "close",
    (Action.SELL, "short", "flat"): "close",
}


# --- order types, markets ----------------------------------------------------------------------------------------

_TYPES = {
    "market mkt": OrderType.MARKET,
    "limit lmt": OrderType.LIMIT,
    "stop stop_market sl-m sl_mkt": OrderType.STOP,
    "stop_limit sl sl-l sl-lmt sl-limit": OrderType.STOP_LIMIT,
    "trailing_stop trailing_stop_market": OrderType.TRAILING_STOP,
}
TYPES = {squeeze(word): kind for words, kind in _TYPES.items() for word in words.split()}
# `order_subtype` of a bot whose entries are limit orders at entry_price.
SUBTYPES = {"primaryentry": OrderType.LIMIT}
# In `mode`: the sender means play money, which only PAPER is for certain.
PAPER_MODES = _squeezed("paper paper_trade paper_trading simulation simulated sim")
PLAY_MODES = _squeezed("demo test testnet sandbox dry_run backtest backtesting staging")
# In `type` these are the class of the message, not of the order.
MESSAGE_CLASSES = _squeezed("order alert signal strategy")
STOP_TYPES = frozenset({OrderType.STOP, OrderType.STOP_LIMIT})
PRICED_TYPES = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})
TIMES_IN_FORCE = frozenset({"GTC", "IOC", "FOK", "GTX", "DAY"})

_MARKETS = {
    "spot cash": Market.SPOT,
    "futures future perp perpetual swap linear usdm usdt_futures": Market.FUTURES,
}
MARKETS = {squeeze(word): market for words, market in _MARKETS.items() for word in words.split()}
# Known, and neither of the two: never to be traded as if it were.
OTHER_MARKETS = _squeezed("margin inverse option options coinm")


# --- sizes -------------------------------------------------------------------------------------------------------

# Word of a unit field -> unit. "percent" is of the position when closing, else of the balance.
_UNITS = {
    "base absolute fixed fixed_quantity coin coins shares units": "base",
    "quote dollar_amount dollars cash notional usdt usd $": "quote",
    "margin": "margin_quote",
    "percent percents percentage pct %": "percent",
    "percent_of_equity percent_of_balance percentage_balance margin_percent equity_percent balance_percent "
    "percent_equity percent_balance": "percent_of_equity",
    "percent_of_position percentage_position": "percent_of_position",
}
UNITS = {squeeze(word): unit for words, unit in _UNITS.items() for word in words.split()}
UNITS_WANTED = "base, quote, margin, percent, percent_of_equity or percent_of_position"
# Sign in a value -> the unit it says, then others it may stand next to.
UNIT_SIGNS = {
    "@": ("base",),
    "$": ("quote", "margin_quote"),
    "%": ("percent", "percent_of_equity", "percent_of_position", "risk_percent"),
}

# Fields whose name is the unit.
UNIT_OF_FIELD = {
    "quote_amount": "quote",
    "margin": "margin_quote",
    "equity_percent": "percent_of_equity",
    "position_percent": "percent_of_position",
    "risk_percent": "risk_percent",
}
PERCENT_OF = {"percent_of_equity": "balance", "percent_of_position": "position", "risk_percent": "risk"}
SIZE_MEANINGS = frozenset(UNIT_OF_FIELD) | {"quantity", "volume", "buy_rate", "sell_rate"}
