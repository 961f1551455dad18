"""The bytes of an alert -> what it asks for (`Signal`), or an error that names the field. No clock, no settings.

`alert_text` takes the body apart, `alert_fields` sorts the fields by meaning, `alert_orders` tells what is to be done;
here the rest is read and all of it becomes one `Signal`. What the words mean is written in `alert_words`, as tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import alert_values as values
from alert_fields import (
    NOTHING,
    UNREAD,
    Found,
    Said,
    agreed,
    agreed_value,
    contradiction,
    disagree,
    first_text,
    gather,
    text_of_first,
)
from alert_orders import Order, read_intent, read_order, read_positions, read_size
from alert_secrets import alert_key, claimed_secrets
from alert_text import json_fields, read_fields
from alert_values import AlertError, Instrument, Value
from alert_words import (
    MARKETS,
    MESSAGE_CLASSES,
    OTHER_MARKETS,
    PAPER_MODES,
    PLAY_MODES,
    POSITIONS,
    PRICED_TYPES,
    STOP_TYPES,
    SUBTYPES,
    TIMES_IN_FORCE,
    TYPES,
    squeeze,
)
from models import Action, Market, OrderType, Signal

__all__ = ["AlertError", "alert_key", "claimed_secrets", "json_fields", "parse_alert"]


def _time_in_force(field: str, raw: Value) -> str:
    word = values.text(field, raw).upper()
    if word in TIMES_IN_FORCE:
        return word
    raise AlertError(field, f"one of {', '.join(sorted(TIMES_IN_FORCE))}", raw)


# The fields of `Signal` that are one meaning, read alone: the value that all agree on, or the first that describes.
READ: dict[str, Callable[[list[Said]], Any]] = {
    "confidence": partial(agreed_value, read=values.confidence),
    "leverage": partial(agreed_value, read=values.positive),
    "time_in_force": partial(agreed_value, read=_time_in_force),
    "trailing_percent": partial(agreed_value, read=values.percent),
    "reverse": partial(agreed_value, read=values.flag),
    "account": text_of_first,
    "product": text_of_first,
    "order_id": text_of_first,
    "comment": text_of_first,
}


def parse_alert(body: bytes, secret: str = "", fields: dict[str, Value] | None = None) -> Signal:
    """One alert, understood. Raises `AlertError`, and nothing else, whatever the bytes.

    `secret`, where it is known, is never shown, also where the damage hides that it is one. `fields`: what
    `json_fields` made of the body, to spare reading it twice.
    """
    try:
        return _hiding(secret, _signal(gather(read_fields(body) if fields is None else fields)))
    except AlertError as error:
        problem = error
    # Raised out here: the first error may still carry a secret, and must not hang on to this one as its context.
    raise problem.hiding((secret, *claimed_secrets(body)))


# A symbol is recorded in capitals and without signs. What is shorter may well be a part of one: USDT.
SHORTEST_SECRET_FOR_SYMBOL = 8
# What comes from the alert as it is, and goes into the records and replies.
TEXTS = ("strategy", "comment", "timeframe", "broker", "account", "product", "order_id", "exchange", "bar_time")


def _hiding(secret: str, signal: Signal) -> Signal:
    """Who wrote the secret into a text too trades as he meant to, but nobody is shown it. It is no symbol, though."""
    if len(secret) >= SHORTEST_SECRET_FOR_SYMBOL and squeeze(secret) in squeeze(signal.symbol):
        raise AlertError("symbol", "a symbol such as BTCUSDT, and not the secret")
    shown = {name: text for name in TEXTS if (text := getattr(signal, name))}
    hidden: dict[str, Any] = {name: new for name, text in shown.items() if (new := _hidden(secret, text)) != text}
    if signal.unread:
        hidden["unread"] = tuple(_hidden(secret, text) for text in signal.unread)
    return replace(signal, **hidden) if hidden else signal


def _hidden(secret: str, text: str) -> str:
    if len(text) >= values.TEXT_CHARACTERS:  # it was cut, maybe in the middle of the secret
        beginnings = (secret[:length] for length in range(len(secret) - 1, values.SHORTEST_HIDDEN_SECRET - 1, -1))
        text = next((text[: -len(part)] + "***" for part in beginnings if text.lower().endswith(part.lower())), text)
    if len(secret) < values.SHORTEST_HIDDEN_SECRET or secret.lower() not in text.lower():
        return text
    return re.sub(re.escape(secret), "***", text, flags=re.IGNORECASE)


def _signal(found: Found) -> Signal:
    _refuse_sign_of_life(found)
    instrument = _instrument(found)
    kind, position_from_type = _type(found)
    positions = read_positions(found, position_from_type)
    order = read_order(found, positions)
    reduces = order.closes or agreed(found, "reduce_only", values.flag) is True or _is_closing(found)
    only_out = reduces or positions.heading == "flat"
    size = read_size(found, order, only_out, positions.heading == "flat")
    prices = _prices(found, kind, order)
    if only_out:
        _forget_protection(found)
    stop_loss = _protection(found, "stop_loss")
    take_profit = _protection(found, "take_profit")
    times = _times(found)
    return Signal(
        action=order.action,
        symbol=instrument.symbol,
        intent=read_intent(order, positions, size),
        market=_market(found, instrument),
        broker=_broker(found),
        type=kind,
        quantity=size.quantity,
        quantity_unit=size.unit,
        amount=size.amount,
        amount_is_margin=size.amount_is_margin,
        percent=size.percent,
        percent_of=size.percent_of,
        price=prices.price,
        stop_price=prices.stop_price,
        reduce_only=reduces,
        market_position=positions.after,
        prev_market_position=positions.before,
        position_size=positions.size,
        stop_loss=stop_loss.prices[0] if stop_loss.prices else None,
        stop_loss_percent=stop_loss.percent,
        stop_loss_offset=stop_loss.offset,
        take_profits=take_profit.prices,
        take_profit_percent=take_profit.percent,
        take_profit_offset=take_profit.offset,
        fired_at=times.fired_at,
        max_age_seconds=times.max_age_seconds,
        bar_time=times.bar_time,
        strategy=agreed(found, "strategy", values.text) or first_text(found, "strategy_alias"),
        timeframe=first_text(found, "timeframe") or times.timeframe,
        exchange=_exchange(found) or instrument.exchange,
        unread=_unread(found) if UNREAD in found else (),
        **{meaning: READ[meaning](said) for meaning, said in found.items() if meaning in READ},
    )


def _is_closing(found: Found) -> bool:
    on = [said for said in found.get("closing", NOTHING) if values.flag(said.path, said.value)]
    return bool(on)


SHOWN_UNREAD = 3  # they are told together, and each is one line of the sender's making


def _unread(found: Found) -> tuple[str, ...]:
    """Neither a refusal, as it is not known yet whether the alert is an entry, nor to be forgotten."""
    told = found[UNREAD][:SHOWN_UNREAD]
    return tuple(f"{values.shown_name(said.path)} ({said.name})" for said in told)


def _refuse_sign_of_life(found: Found) -> None:
    for said in found.get("heartbeat", NOTHING):
        if values.flag(said.path, said.value):
            raise AlertError(said.path, "an alert to trade on, not a sign of life or a test", said.value)


# --- what to trade, and where ------------------------------------------------------------------------------------


def _instrument(found: Found) -> Instrument:
    said = found.get("symbol") or _symbol_by_other_names(found)
    if not said:
        raise AlertError("symbol", "a symbol such as BTCUSDT (none is assumed)")
    read = [values.instrument(one.path, one.value) for one in said]
    if len(read) == 1:
        return read[0]
    for one, instrument in zip(said, read, strict=True):
        if instrument.symbol != read[0].symbol:
            raise disagree(said[0], one)
    # BTCUSDT in one field and BINANCE:BTCUSDT.P in another: both say the same symbol, one says more.
    market = next((one.market for one in read if one.market), None)
    return Instrument(read[0].symbol, market, next((one.exchange for one in read if one.exchange), None))


def _symbol_by_other_names(found: Found) -> list[Said]:
    return _joined_coins(found) or [said for said in found.get("market", NOTHING) if _is_pair(said.value)]


def _joined_coins(found: Found) -> list[Said]:
    """`coinOne: TRX, coinTwo: USDT`."""
    first, second = agreed(found, "first_coin", values.text), agreed(found, "second_coin", values.text)
    if first and second:
        return [Said("coinOne, coinTwo", "", 0, first + second)]
    if first or second:
        raise AlertError("symbol", "both coins of the pair", first or second)
    return NOTHING


def _is_pair(value: Value) -> bool:
    """dYdX's dialect calls the symbol `market`: ETH_USD."""
    return isinstance(value, str) and squeeze(value) not in MARKETS and any(char in value for char in "_-/")


def _market(found: Found, instrument: Instrument) -> Market | None:
    """What the alert says of spot or futures: by name, by the symbol or by its chart. Leverage says nothing of it."""
    stated = _stated_market(found)
    if stated is None:
        return instrument.market or _market_of_chart(found)
    if instrument.market not in (None, stated[1]):
        raise contradiction("symbol", "a perpetual", stated[0].path, stated[0].value)
    return stated[1]


MARKET_MEANINGS = ("market", "category", "product")


def _stated_market(found: Found) -> tuple[Said, Market] | None:
    stated: list[tuple[Said, Market]] = []
    for meaning in MARKET_MEANINGS:
        for said in found.get(meaning, NOTHING):
            word = squeeze(values.text(said.path, said.value))
            if word in MARKETS:
                stated.append((said, MARKETS[word]))
            elif not _may_say_something_else(found, said, meaning, word):
                raise AlertError(said.path, "spot or futures", said.value)
    for one in stated[1:]:
        if one[1] is not stated[0][1]:
            raise disagree(stated[0][0], one[0])
    return stated[0] if stated else None


def _may_say_something_else(found: Found, said: Said, meaning: str, word: str) -> bool:
    """`category` and its kin may be anybody's, `product` is the broker's, and `market` may have been the symbol."""
    if meaning == "product":
        return True
    return word not in OTHER_MARKETS and (meaning == "category" or ("symbol" not in found and _is_pair(said.value)))


def _market_of_chart(found: Found) -> Market | None:
    """tv-hub: `exchange: binance-futures`."""
    return Market.FUTURES if "FUTURES" in (_exchange(found) or "") else None


def _broker(found: Found) -> str | None:
    """The broker that is named; what says that it is for paper must not trade elsewhere."""
    named = agreed(found, "broker", values.broker)
    for said in found.get("mode", NOTHING):
        word = squeeze(said.value) if isinstance(said.value, str) else ""
        if word in PLAY_MODES or (word in PAPER_MODES and named not in (None, "PAPER")):
            raise AlertError(said.path, "live or none: which broker trades play money is said by broker", said.value)
        if word in PAPER_MODES:
            named = "PAPER"
    return named


def _exchange(found: Found) -> str | None:
    said = first_text(found, "exchange")
    return said.upper() if said else None


# --- at what price -----------------------------------------------------------------------------------------------


class Prices(NamedTuple):
    price: Decimal | None
    stop_price: Decimal | None


# The price of an order: what names it, then what the chart showed.
ORDER_PRICES = ("limit_price", "price", "entry_price")
REFERENCE_PRICES = ("price", "entry_price", "exit_price", "limit_price", "chart_price", "trigger_price")
PRICE_MEANINGS = frozenset({*REFERENCE_PRICES, "stop_price"})
NO_PRICES = Prices(None, None)


def _type(found: Found) -> tuple[OrderType, list[Said]]:
    """The order type, and the fields called `type` that hold a market position instead (artoruotsala's dialect)."""
    types: list[tuple[Said, OrderType]] = []
    positions: list[Said] = []
    for said in found.get("type", NOTHING):
        word = squeeze(values.text(said.path, said.value))
        if word in TYPES:
            types.append((said, TYPES[word]))
        elif said.name == "type" and word in POSITIONS:
            positions.append(said)
        elif said.name != "type" or word not in MESSAGE_CLASSES:
            raise AlertError(said.path, "market, limit, stop, stop_limit or trailing_stop", said.value)
    for said in found.get("type_hint", NOTHING):
        if isinstance(said.value, str) and (hinted := TYPES.get(squeeze(said.value))):
            types.append((said, hinted))
    if not types:
        types = [(said, _subtype(said)) for said in found.get("subtype", NOTHING)]
    for said in found.get("is_market", NOTHING):
        types.append((said, OrderType.MARKET if values.flag(said.path, said.value) else OrderType.LIMIT))
    for said, kind in types:
        if kind is not types[0][1]:
            raise disagree(types[0][0], said)
    return types[0][1] if types else OrderType.MARKET, positions


def _subtype(said: Said) -> OrderType:
    kind = SUBTYPES.get(squeeze(said.value)) if isinstance(said.value, str) else None
    if kind is None:
        raise AlertError(said.path, "primary_entry, or an order_type", said.value)
    return kind


def _prices(found: Found, kind: OrderType, order: Order) -> Prices:
    if kind is OrderType.MARKET and PRICE_MEANINGS.isdisjoint(found):
        return NO_PRICES
    stated = {meaning: agreed(found, meaning, values.price) for meaning in REFERENCE_PRICES if meaning in found}
    stop_price = agreed(found, "stop_price", values.price)
    if kind in STOP_TYPES:
        stop_price = stop_price or stated.pop("trigger_price", None)
    elif stop_price is not None:
        said = found["stop_price"][0]
        raise AlertError(said.path, "type stop or stop_limit next to it; for protection, stop_loss", said.value)
    if order.action is not Action.CANCEL:
        _refuse_missing_price(found, kind, stop_price)
        if kind in PRICED_TYPES:
            return Prices(_limit_price(found, stated), stop_price)
    return Prices(next((price for price in stated.values() if price is not None), None), stop_price)


def _refuse_missing_price(found: Found, kind: OrderType, stop_price: Decimal | None) -> None:
    if kind in STOP_TYPES and stop_price is None:
        raise AlertError("stop_price", "the price that triggers a stop order")
    if kind is OrderType.TRAILING_STOP and "trailing_percent" not in found:
        raise AlertError("trailing_percent", "the distance of a trailing stop")


def _limit_price(found: Found, stated: dict[str, Decimal | None]) -> Decimal:
    named = [meaning for meaning in ORDER_PRICES if stated.get(meaning) is not None]
    for meaning in named[1:]:
        if stated[meaning] != stated[named[0]]:
            raise disagree(found[named[0]][0], found[meaning][0])
    price = stated[named[0]] if named else stated.get("chart_price")
    if price is None:
        raise AlertError("price", "the price of the limit order")
    return price


# --- protection --------------------------------------------------------------------------------------------------


def _forget_protection(found: Found) -> None:
    """On a way out it means nothing, and the same template may fill it with 0 there."""
    for meaning in [meaning for meaning in found if meaning.startswith(("stop_loss", "take_profit", "trailing"))]:
        del found[meaning]


class Protection(NamedTuple):
    prices: tuple[Decimal, ...]
    percent: Decimal | None
    offset: Decimal | None


NO_PROTECTION = Protection((), None, None)


def _protection(found: Found, meaning: str) -> Protection:
    """Stop loss or take profit: as prices, in percent or as an offset from the entry. `2%` for a price is a percent."""
    in_percent, offset = f"{meaning}_percent", f"{meaning}_offset"
    if meaning not in found and in_percent not in found and offset not in found:
        return NO_PROTECTION
    prices: list[Said] = []
    percents = list(found.get(in_percent, NOTHING))
    for said in found.get(meaning, NOTHING):
        (percents if isinstance(said.value, str) and "%" in said.value else prices).append(said)
    return Protection(
        _levels(prices) if meaning == "take_profit" else _one_level(prices),
        agreed_value(percents, values.percent) if percents else None,
        agreed(found, offset, values.positive),
    )


def _one_level(prices: list[Said]) -> tuple[Decimal, ...]:
    level = agreed_value(prices, values.positive) if prices else None
    return () if level is None else (level,)


def _levels(prices: list[Said]) -> tuple[Decimal, ...]:
    """tp1, tp2, tp3 in this order; one that says the same as another counts once."""
    ordered = sorted(prices, key=lambda said: said.rank)
    return tuple(dict.fromkeys(values.positive(said.path, said.value) for said in ordered))


# --- when --------------------------------------------------------------------------------------------------------


class Times(NamedTuple):
    fired_at: datetime | None = None
    max_age_seconds: Decimal | None = None
    bar_time: str | None = None
    timeframe: str | None = None


NO_TIMES = Times()
TIME_MEANINGS = frozenset({"fired_at", "max_lag", "timestamp", "time"})


def _times(found: Found) -> Times:
    """When the alert fired, how old it may be, and which bar it was about.

    A bare `timestamp` is often the bar's, hours ago; it is the firing time where the alert also limits its age.
    """
    if TIME_MEANINGS.isdisjoint(found):
        return NO_TIMES
    max_age_seconds = agreed(found, "max_lag", values.positive)
    bar_time = first_text(found, "time")
    firing = found.get("fired_at", NOTHING)
    if max_age_seconds is not None:
        firing = firing + found.get("timestamp", NOTHING)
    else:
        bar_time = bar_time or first_text(found, "timestamp")
    if max_age_seconds is not None and not firing:
        limit = found["max_lag"][0]
        raise AlertError("timestamp", f"the alert's firing time, as {limit.path} limits its age")
    fired_at = agreed_value(firing, values.moment) if firing else None
    if bar_time is not None and values.is_interval(bar_time):
        return Times(fired_at, max_age_seconds, None, bar_time)  # some fill `time` with {{interval}}
    return Times(fired_at, max_age_seconds, bar_time, None)
