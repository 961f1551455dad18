"""One value of an alert at a time: text in, number / flag / time / symbol out, or an `AlertError` that names the field.

Knows how a value is written, not what it is for: that is in alert_words.py and signals.py.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple, TypeAlias

from models import Market

SHOWN_CHARACTERS = 40
TEXT_CHARACTERS = 200
SHORTEST_HIDDEN_SECRET = 4  # shorter ones would blank out ordinary words; a real one has at least 16


class JsonNumber(str):
    """A number as it stood in the JSON: digits kept as text, so that money never passes through a float."""

    __slots__ = ()


Value: TypeAlias = "str | bool | list[Value] | dict[str, Value] | None"


class AlertError(ValueError):
    """The alert cannot be understood. Says which field, what was seen and what was wanted; never a secret."""

    def __init__(self, field: str, wanted: str, seen: Value = None) -> None:
        shown = seen if seen is None or isinstance(seen, str) else _kind(seen)
        field = _printable(field)
        super().__init__(field or "body", wanted, shown)
        self.field = field or "body"
        self.wanted = wanted
        self.seen = shown

    def __str__(self) -> str:
        seen = "nothing" if self.seen is None else repr(self.seen)
        return f"{self.field}: saw {seen}, wanted {self.wanted}"

    def hiding(self, secrets: tuple[str, ...]) -> AlertError:
        """The same error, fit to be shown: secrets blanked out first, then cut, so that no half of one is left."""
        seen = None if self.seen is None else _cut(_hide(self.seen, secrets))
        return AlertError(_cut(_hide(self.field, secrets)), self.wanted, seen)


LONGEST_SHOWN_NAME = 60


def shown_name(field: str) -> str:
    """The name of a field, fit to be shown; whole, as a part of it could be half a secret."""
    return _printable(field) if len(field) <= LONGEST_SHOWN_NAME else "a field with a long name"


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _kind(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "an object" if isinstance(value, dict) else "a list"


def _hide(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        if len(secret) >= SHORTEST_HIDDEN_SECRET:
            text = text.replace(secret, "***")
    return text


# --- numbers -----------------------------------------------------------------------------------------------------

_PLAIN = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,18})?")
_WITH_EXPONENT = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{1,20})?[eE][+-]?[0-9]{1,2}")
_WITH_SIGN = re.compile(r"([@$%]?) ?(-?[0-9][0-9.]*) ?([@$%]?)")
_PLAIN_WANTED = "a plain number such as 0.001 (no comma, no exponent, at most 15 digits before the point, 18 after)"


def number(field: str, raw: Value) -> Decimal:
    """Exactly what was written. `1e-05` only as a JSON number: Python and JavaScript write small floats so."""
    if isinstance(raw, str):
        text = raw.strip()
        if isinstance(raw, JsonNumber) and _WITH_EXPONENT.fullmatch(text):
            text = format(Decimal(text), "f")
        if _PLAIN.fullmatch(text):
            return Decimal(text)
    raise AlertError(field, _PLAIN_WANTED, raw)


def positive(field: str, raw: Value) -> Decimal:
    value = number(field, raw)
    if value > 0:
        return value
    raise AlertError(field, "a number above 0 (leave the field out if there is none)", raw)


def price(field: str, raw: Value) -> Decimal | None:
    """None for 0: some senders fill the price of a market order with 0."""
    value = number(field, raw)
    if value < 0:
        raise AlertError(field, "a price above 0", raw)
    return value or None


def percent(field: str, raw: Value) -> Decimal:
    """Above 0, up to 100; `2` and `2%` are the same."""
    unit, value = number_with_unit(field, raw)
    if unit in ("", "%") and 0 < value <= 100:
        return value
    raise AlertError(field, "a percentage above 0 and up to 100", raw)


def confidence(field: str, raw: Value) -> Decimal:
    value = number(field, raw)
    if 0 <= value <= 100:
        return value
    raise AlertError(field, "a number from 0 to 100", raw)


def number_with_unit(field: str, raw: Value) -> tuple[str, Decimal]:
    """`@0.006` `$20` `300$` `%100` `50%` -> (sign, number); the sign is empty when there is none."""
    signed = _WITH_SIGN.fullmatch(raw.strip()) if isinstance(raw, str) else None
    if signed is None or not (signed[1] or signed[3]):
        return "", number(field, raw)
    if signed[1] and signed[3]:
        raise AlertError(field, "one unit sign at most: @ base units, $ quote currency, % percent", raw)
    try:
        return signed[1] or signed[3], number(field, signed[2])
    except AlertError:
        raise AlertError(field, _PLAIN_WANTED, raw) from None


# --- flags, words, text ------------------------------------------------------------------------------------------

_FLAGS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


def flag(field: str, raw: Value) -> bool:
    """JSON booleans, and their names in quotes."""
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and (said := _FLAGS.get(raw.strip().lower())) is not None:
        return said
    raise AlertError(field, "true or false", raw)


def text(field: str, raw: Value) -> str:
    """One line of at most 200 printable characters; what does not fit is cut, as it only describes."""
    if not isinstance(raw, str):
        raise AlertError(field, "text", raw)
    kept = raw.strip()[:TEXT_CHARACTERS]
    if not kept.isprintable():
        kept = "".join(char if char.isprintable() else " " for char in kept).strip()
    return kept


_BROKER = re.compile(r"[A-Z0-9_-]{1,32}")


def broker(field: str, raw: Value) -> str:
    name = text(field, raw).upper()
    if _BROKER.fullmatch(name):
        return name
    raise AlertError(field, "the name of a broker such as PAPER or BINANCE", raw)


# --- symbols -----------------------------------------------------------------------------------------------------


class Instrument(NamedTuple):
    """What a symbol says: `BINANCE:BTCUSDT.P` -> BTCUSDT, FUTURES, BINANCE."""

    symbol: str
    market: Market | None
    exchange: str | None


LONGEST_SYMBOL = 30
_WHOLE = re.compile(r"[A-Z0-9](?:[A-Z0-9.&/_ -]{0,60}[A-Z0-9])?")
_EXCHANGE = re.compile(r"([A-Z0-9_]{1,20}):(.+)")
_SEPARATORS = str.maketrans("", "", "/-_ ")
# ccxt writes a linear perpetual as BASE/QUOTE:SETTLE.
_SETTLED = re.compile(r"(.+):(?:USDT|USDC|BUSD|USD)")
# TradingView's perpetuals end in .P; older feeds and other exchanges have PERP or -SWAP.
_PERPETUAL = re.compile(r"(.+?)(?:\.P|[-_./]?PERP|[-_]SWAP)")
# Indian share series: part of the name at the broker (SBIN-EQ), so their hyphen stays.
_SERIES = re.compile(r"[A-Z0-9&]+(?:-[A-Z0-9&]+)?-(?:EQ|BE|BZ|BL|SM|ST)")
_SYMBOL_WANTED = "a symbol such as BTCUSDT, BINANCE:BTCUSDT.P or SBIN-EQ"


def instrument(field: str, raw: Value) -> Instrument:
    """The exchange's own spelling. A quote currency that is not there is never added."""
    if not isinstance(raw, str) or isinstance(raw, JsonNumber) or not raw.isascii():
        raise AlertError(field, _SYMBOL_WANTED, raw)
    name, market, exchange = raw.strip().upper(), None, None
    if name.isalnum() and len(name) <= LONGEST_SYMBOL and not name.endswith("PERP"):
        return Instrument(name, None, None)  # nothing to take apart, as in most alerts
    if settled := _SETTLED.fullmatch(name):
        name, market = settled[1], Market.FUTURES
    if prefixed := _EXCHANGE.fullmatch(name):
        exchange, name = prefixed[1], prefixed[2]
    if perpetual := _PERPETUAL.fullmatch(name):
        name, market = perpetual[1], Market.FUTURES
    if _WHOLE.fullmatch(name):
        symbol = name if _SERIES.fullmatch(name) else name.translate(_SEPARATORS)
        if len(symbol) <= LONGEST_SYMBOL:
            return Instrument(symbol, market, exchange)
    raise AlertError(field, _SYMBOL_WANTED, raw)


# --- times -------------------------------------------------------------------------------------------------------

_ISO = re.compile(
    # tv-hub's alertTimestamp has the ticker in front: BTCUSDT-2026-01-02T03:04:05Z
    r"(?:[A-Za-z0-9_.:/!-]{1,60}-)?"
    r"(20[0-9]{2}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?:Z|[+-][0-9]{2}:?[0-9]{2}))"
)
_EPOCH_SECONDS = re.compile(r"[0-9]{10}(?:\.[0-9]{1,9})?")
_EPOCH_MILLISECONDS = re.compile(r"[0-9]{13}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_WANTED = "a time such as 2026-01-02T03:04:05Z (with its zone), or seconds or milliseconds since 1970"


def moment(field: str, raw: Value) -> datetime:
    """Aware UTC. A time without a zone is refused: hours of error would make an old alert look fresh."""
    written = raw.strip() if isinstance(raw, str) else ""
    try:
        if iso := _ISO.fullmatch(written):
            return datetime.fromisoformat(iso[1]).astimezone(UTC)
        if _EPOCH_MILLISECONDS.fullmatch(written):
            return _EPOCH + timedelta(milliseconds=int(written))
        if _EPOCH_SECONDS.fullmatch(written):
            return _EPOCH + timedelta(microseconds=int(Decimal(written).scaleb(6)))
    except (ValueError, OverflowError):
        pass  # the thirteenth month, the 25th hour
    raise AlertError(field, _TIME_WANTED, raw)


_INTERVAL = re.compile(r"[0-9]{1,5}|[0-9]{0,3}[SHDWM]", re.IGNORECASE)


def is_interval(written: str) -> bool:
    """`60`, `1D`: a chart's timeframe, not a time."""
    return _INTERVAL.fullmatch(written) is not None
