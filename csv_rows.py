"""The rows of signals.csv and trades.csv, as people and spreadsheets read them. Pure."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from decimal import Context, Decimal

from fees import total_in
from models import ZERO, DecisionRecord, Fee, Order, Signal, plain

# The first columns are fixed for good; a new one goes to the end.
SIGNALS_COLUMNS = (
    "DateTime", "TradingPair", "Action", "Strategy", "TimeFrame", "Confidence", "Decision", "Reason", "SignalID",
    "Check", "Broker", "Market", "OrderType", "Quantity", "Amount", "Price", "LatencyMs",
)  # fmt: skip
TRADES_COLUMNS = (
    "DateTime", "TradingPair", "Action", "TradeAmount", "Price", "OrderID", "Status", "SignalID", "ClientOrderID",
    "Broker", "Market", "Strategy", "Quantity", "Fee", "FeeAsset", "RealizedPnL", "LatencyMs", "Note",
)  # fmt: skip

SHORT, NORMAL, LONG = 12, 64, 200  # characters kept of a time frame, of a name, of a sentence

# What a spreadsheet runs instead of showing it: https://owasp.org/www-community/attacks/CSV_Injection
# "%" and "|" are not on that list, U+2212 is a minus for LibreOffice, and a "'" of the text's own gets a second one
# so that taking one off always gives the text back.
FORMULA_STARTERS = frozenset("=+-@|%'\N{MINUS SIGN}")

# What a spreadsheet takes for a number and changes: it keeps 15 digits (https://support.microsoft.com/kb/269370),
# drops leading zeros and reads 12e45678 as an infinity.
_CHANGED_AS_NUMBER = re.compile(r"\d{16,}|0\d+|\d+(\.\d+)?[eE][+-]?\d+")

# Nearly every cell is one of these, so they pay for no more than this look.
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

# Where the list separator is ";" (most of Europe) Excel splits "a;=1+1" even inside quotes and runs the second half;
# "|" is the next most common separator. The others are what Unicode's own folding turns into these two.
_SEPARATORS = str.maketrans(
    ";|\N{FULLWIDTH SEMICOLON}\N{FULLWIDTH VERTICAL LINE}\N{GREEK QUESTION MARK}",
    ",/,/,",
)

# A row is rendered in the journal's own transaction, so arithmetic gives NaN (an empty cell) where it would raise.
_QUIET = Context(prec=100, traps=[])
MAX_DECIMALS = 18
_QUANTA = tuple(Decimal((0, (1,), -decimals)) for decimals in range(MAX_DECIMALS + 1))

QUOTE = '"'


def signal_row(record: DecisionRecord) -> str:
    """One line of signals.csv."""
    return _line(
        _time(record.decided_at),
        *_alert_cells(record.signal),
        record.decision,
        _text(record.reason, LONG),
        _text(record.signal_id),
        _text(record.check),
        _text(record.broker),
        *_order_cells(record.order or record.signal),
        str(record.latency_ms),
    )


def _alert_cells(signal: Signal | None) -> tuple[str, ...]:
    """TradingPair, Action, Strategy, TimeFrame, Confidence; empty for an alert that was not understood."""
    if signal is None:
        return ("",) * 5
    return (
        _text(signal.symbol),
        signal.action,
        _text(signal.strategy),
        _text(signal.timeframe, SHORT),
        _number(signal.confidence),
    )


def _order_cells(wanted: Order | Signal | None) -> tuple[str, ...]:
    """Market, OrderType, Quantity, Amount, Price: of the order when there is one, else as the alert said it."""
    if wanted is None:
        return ("",) * 5
    price = wanted.price
    if price is None and isinstance(wanted, Order):
        price = wanted.reference_price
    return (wanted.market or "", wanted.type, _number(wanted.quantity), _number(wanted.amount), _number(price))


def trade_row(order: Order, at: datetime) -> str:
    """One line of trades.csv: what was known about the order `at` that moment."""
    quote, price, quantity = _sizes(order)
    fee, fee_asset, note = _fees(order)
    latency_ms = max(0, round((at - order.received_at).total_seconds() * 1000))
    return _line(
        _time(at),
        _text(order.symbol),
        order.side,
        _number(quote),
        _number(price),
        _text(order.exchange_order_id),
        order.status,
        _text(order.signal_id),
        _text(order.client_order_id),
        _text(order.broker),
        order.market,
        _text(order.strategy),
        _number(quantity),
        _number(fee),
        _text(fee_asset),
        _number(_computed(order.realized_pnl)),
        str(latency_ms),
        _text(_leg_note(order, note), LONG),
    )


def _leg_note(order: Order, note: str) -> str:
    """Why there is an order that no alert asked for by itself."""
    if order.stop_price is not None:
        leg = f"{order.leg} at {_number(order.stop_price)}"
    elif order.trailing_percent is not None:
        leg = f"{order.leg} of {_number(order.trailing_percent)} %"
    else:
        leg = {"exit": "reversal: the way out", "by_hand": "done at the exchange by hand"}.get(order.leg, "")
    return "; ".join(text for text in (leg, note) if text)


def _sizes(order: Order) -> tuple[Decimal | None, Decimal | None, Decimal | None]:
    """TradeAmount, Price and Quantity: what was executed; before that what was asked for; 0 once nothing can come."""
    if order.executed_quantity > 0:
        # A broker that did not say what was paid did not say 0.
        quote, average = (order.executed_quote, order.average_price) if order.executed_quote else (None, None)
        return _computed(quote), _computed(average, order.rules.price_tick), order.executed_quantity
    if order.has_ended:
        return ZERO, None, ZERO
    asked = order.amount
    if asked is None and order.quantity is not None and order.price is not None:
        asked = _QUIET.multiply(order.quantity, order.price)
    return _computed(asked), order.price, order.quantity


def _fees(order: Order) -> tuple[Decimal | None, str, str]:
    """Fee, FeeAsset and the note. Fees in several assets have no sum, so they are spelled out in front of the note."""
    assets = list(dict.fromkeys([fee.asset for fee in order.fees]))
    if not assets:
        return None, "", order.note
    fees = [total_in(asset, order.fees) for asset in assets]
    if len(fees) == 1:
        worth = f"fee worth {_worth(order, fees[0])}" if fees[0].value is not None else ""
        return fees[0].amount, assets[0], "; ".join(text for text in (worth, order.note) if text)
    spelled = (f"{_number(fee.amount)} {fee.asset}" + _in_brackets(_worth(order, fee)) for fee in fees)
    return None, "", f"Fees: {', '.join(spelled)}. {order.note}"


def _worth(order: Order, fee: Fee) -> str:
    return "" if fee.value is None else f"{_number(_computed(fee.value))} {order.rules.quote_asset}"


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _computed(value: Decimal | None, tick: Decimal = ZERO) -> Decimal | None:
    """A computed number as people read it: 8 decimals (more only where the exchange quotes finer), 15 digits in all."""
    if value is None:
        return None
    finer = -int(tick.normalize().as_tuple().exponent) if 0 < tick < _QUANTA[8] else 8
    return _rounded(value, min(finer, max(0, 14 - value.adjusted())))


def _rounded(value: Decimal, decimals: int) -> Decimal:
    return value.quantize(_QUANTA[min(decimals, MAX_DECIMALS)], context=_QUIET)


def _number(value: Decimal | None) -> str:
    """A plain decimal. No exponent, no thousands; negative numbers stay numbers; unknown is empty."""
    if value is None or not value.is_finite():
        return ""
    if not value:
        return "0"
    if value.adjusted() > 63:  # longer than any cell: nothing that anybody traded
        return ""
    value = _rounded(value, MAX_DECIMALS)
    # With more than 15 digits before the point a spreadsheet would change it, so it is shown as text.
    return f"'{plain(value)}" if value.adjusted() > 14 else plain(value)


def _time(at: datetime) -> str:
    """The one form that every spreadsheet in every language takes for a time (UTC)."""
    return at.astimezone(UTC).isoformat(" ", "seconds")[:19]


def _text(value: str | None, limit: int = NORMAL) -> str:
    """Foreign text as one harmless cell on one physical line."""
    if not value:
        return ""
    if len(value) <= limit and _WORD.fullmatch(value):
        return value
    if not value.isprintable():
        # Control, bidi and zero-width characters, line separators, lone surrogates: none of them is printable.
        value = "".join(char if char.isprintable() else " " for char in value)
    clean = " ".join(value.translate(_SEPARATORS).split())[:limit].rstrip()
    if clean and (_first_as_ascii(clean) in FORMULA_STARTERS or _CHANGED_AS_NUMBER.fullmatch(clean)):
        return f"'{clean}"
    return clean


def _first_as_ascii(text: str) -> str:
    """Some programs fold a full-width "=" before they look, so it is judged as folded (NFKC)."""
    return text[0] if text[0].isascii() else unicodedata.normalize("NFKC", text[0])[0]


def _line(*cells: str) -> str:
    return ",".join([_quoted(cell) if "," in cell or QUOTE in cell else cell for cell in cells]) + "\r\n"


def _quoted(cell: str) -> str:
    return f"{QUOTE}{cell.replace(QUOTE, QUOTE * 2)}{QUOTE}"
