"""FlatTrade's words: orders as parameters, replies as values, and what each of its refusals means. Pure.

https://pi.flattrade.in/docs (V2): every value is text, only limit orders are taken, and `stat: Ok` to an order says no
more than that it was written down: whether the exchange took it stands in its history.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_CEILING, Decimal
from enum import Enum
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from models import ZERO, Execution, Order, OrderStatus, OrderType, Side, SymbolRules, TradedThere, plain, round_down
from reply_values import BadReply

INR = "INR"
IST = timezone(timedelta(hours=5, minutes=30))
DELIVERY = "C"  # CNC: shares that are paid in full and kept

Row = Mapping[str, Any]


class CannotSend(Exception):
    """FlatTrade has no such order; the text says what is wrong with it."""


# --- symbols --------------------------------------------------------------------------------------------------------


class Scrip(NamedTuple):
    """A share on one exchange, as FlatTrade names it."""

    exch: str
    tsym: str


# Series of NSE; most shares are in EQ, which alerts leave out.
_SERIES = re.compile(r".+-(BE|BZ|BL|SM|ST)")


def scrip_of(symbol: str) -> Scrip:
    """`CIPLA` -> CIPLA-EQ on NSE, `BSE:CIPLA` -> CIPLA on BSE; another series is part of the symbol."""
    if symbol.startswith("BSE:"):
        return Scrip("BSE", symbol.removeprefix("BSE:"))
    return Scrip("NSE", symbol if _SERIES.fullmatch(symbol) else f"{symbol.removesuffix('-EQ')}-EQ")


def symbol_of(row: Row) -> str:
    """The other way round, of a row that names a share."""
    tsym = unquote(str(row["tsym"]))
    return f"BSE:{tsym}" if row["exch"] == "BSE" else tsym.removesuffix("-EQ")


def share_of(symbol: str) -> str:
    """What is held, on whichever exchange it was bought."""
    return symbol.removeprefix("BSE:").removesuffix("-EQ")


# --- prices ---------------------------------------------------------------------------------------------------------

# How far a marketable limit reaches beyond the last price, as a share of it: https://flattrade.in/kosh, "API Version 2
# launch", names 2 % below 100 INR, 1 % up to 500, 0.5 % above.
CHEAP, DEAR = Decimal(100), Decimal(500)


def reach(price: Decimal) -> Decimal:
    if price < CHEAP:
        return Decimal("0.02")
    return Decimal("0.01") if price <= DEAR else Decimal("0.005")


@dataclass(frozen=True, slots=True)
class Quote:
    """In INR; 0 = there is none. `highest` and `lowest`: the day's circuit limits."""

    last: Decimal
    best_bid: Decimal
    best_ask: Decimal
    highest: Decimal
    lowest: Decimal
    tick: Decimal
    lot: Decimal


def quote_of(row: Row) -> Quote:
    """Raises what reading a reply raises. A quote without a tick would make prices that the exchange refuses."""
    tick, lot = number(row, "ti"), number(row, "ls")
    if not tick or not lot:
        raise BadReply("tick or lot size is 0")
    return Quote(
        last=_number_or_none(row, "lp"),
        best_bid=_number_or_none(row, "bp1"),
        best_ask=_number_or_none(row, "sp1"),
        highest=_number_or_none(row, "uc"),
        lowest=_number_or_none(row, "lc"),
        tick=tick,
        lot=lot,
    )


def marketable(side: Side, seen: Quote) -> Decimal:
    """The limit price that stands for a market order. Raises CannotSend without a price to begin from.

    Counted from the last price: a lone seller far above it is not what a market order means to its owner.
    """
    buys = side is Side.BUY
    start = seen.last or (seen.best_ask if buys else seen.best_bid)
    if not start:
        raise CannotSend("no price: nothing was traded today and nobody offers any")
    if buys:
        price = _up(start * (1 + reach(start)), seen.tick)
        return min(price, round_down(seen.highest, seen.tick)) if seen.highest else price
    price = round_down(start * (1 - reach(start)), seen.tick)
    return max(price, _up(seen.lowest, seen.tick))


def _up(price: Decimal, tick: Decimal) -> Decimal:
    return (price / tick).to_integral_value(rounding=ROUND_CEILING) * tick


# --- orders as parameters -------------------------------------------------------------------------------------------

TIMES_IN_FORCE = {None: "DAY", "DAY": "DAY", "IOC": "IOC"}


def order_parameters(order: Order, client: str, price: Decimal) -> dict[str, str]:
    """https://pi.flattrade.in/docs, Place Order. `client` is the account's id. Raises CannotSend."""
    if order.quantity is None or order.quantity % 1:
        raise CannotSend("shares are bought and sold in whole numbers")
    scrip = scrip_of(order.symbol)
    return {
        "ordersource": "API",
        "uid": client,
        "actid": client,
        "exch": scrip.exch,
        # Percent-encoded inside of the JSON: the server takes the body apart at every "&" first.
        "tsym": quote(scrip.tsym, safe=""),
        "qty": plain(order.quantity),
        "prc": plain(price),
        "dscqty": "0",
        "prd": DELIVERY,
        "trantype": "B" if order.side is Side.BUY else "S",
        "prctyp": "LMT",
        "ret": _retention(order),
        "remarks": order.client_order_id,
    }


def _retention(order: Order) -> str:
    """What a market entry does not get at once it does not get: an order that nobody expects must not wait.

    A way out waits for the rest of the day all the same: what is left of it is still to be sold.
    """
    if order.type is OrderType.MARKET:
        return "IOC" if order.is_entry else "DAY"
    retention = TIMES_IN_FORCE.get(order.time_in_force)
    if retention is None:
        raise CannotSend(f"FlatTrade takes no limit orders {order.time_in_force}; there are DAY and IOC")
    return retention


# --- replies --------------------------------------------------------------------------------------------------------

_S = OrderStatus
STATUSES = {
    "OPEN": _S.NEW,
    "PENDING": _S.NEW,
    "TRIGGER_PENDING": _S.NEW,
    "NEW": _S.NEW,
    "REPLACED": _S.NEW,
    "COMPLETE": _S.FILLED,
    "REJECTED": _S.REJECTED,
    "REJECT": _S.REJECTED,
    "CANCELED": _S.CANCELED,
    "CANCELLED": _S.CANCELED,
}
UNDECIDED = ("PENDING", "NEW")
# How long a tag may be is not documented. So much of one, counted from its beginning, is no other order's: the
# millisecond of its making and five signs of chance.
SHORTEST_TAG = 16
# FlatTrade's clock beside ours.
CLOCKS_APART = timedelta(minutes=1)


def is_tag(remarks: object, client_order_id: str) -> bool:
    """Whether it is our tag, cut off and spelled as FlatTrade may do it."""
    kept = str(remarks or "").strip().lower()
    return kept == client_order_id or (len(kept) >= SHORTEST_TAG and client_order_id.startswith(kept))


def could_be(order: Order, row: Row) -> bool:
    """Whether this may be our order without its tag: then nobody can say that ours is not there."""
    kept = str(row.get("remarks") or "").strip().lower()
    same = _scrip_in(row) == scrip_of(order.symbol) and _side_fits(order, row)
    size = row.get("qty") in (None, "") or signed(row, "qty") == order.quantity
    return same and size and order.client_order_id.startswith(kept) and not _is_older(order, row)


def _is_older(order: Order, row: Row) -> bool:
    try:
        return moment(row, "norentm") < (order.sent_at or order.created_at) - CLOCKS_APART
    except BadReply:
        return False


def execution_of(order: Order, rows: Sequence[Row]) -> Execution:
    """How an order stands, from its history or from its row of the order book. Raises what reading a reply raises.

    Its rows may bear the same second: the one that says most counts, whatever their order.
    """
    for row in rows:
        _check_ours(order, row)
    status = _status_in(rows)
    fullest = max(rows, key=lambda row: _number_or_none(row, "fillshares"))
    executed = _number_or_none(fullest, "fillshares")
    if status is _S.FILLED and executed != order.quantity and executed == _number_or_none(fullest, "qty"):
        status = _S.CANCELED  # its owner made it smaller: the rest is not wanted any more
    if order.quantity is not None and (
        executed > order.quantity or (status is _S.FILLED and executed != order.quantity)
    ):
        raise BadReply(f"{plain(executed)} executed of {plain(order.quantity)}, and it is {status}")
    note = next((str(row["rejreason"]) for row in rows if row.get("rejreason")), "")[:200]
    return Execution(
        _with_fills(status, executed),
        str(rows[0]["norenordno"]),
        executed,
        executed * number(fullest, "avgprc") if executed else ZERO,
        note=note or _note(status, executed),
    )


def _status_in(rows: Sequence[Row]) -> OrderStatus:
    """A word that is not listed must not be taken for "it waits"; beside an end it does not matter."""
    words = [_word(row) for row in rows]
    ends = [STATUSES[word] for word in words if STATUSES.get(word, _S.NEW) is not _S.NEW]
    unknown = [word for word in words if word not in STATUSES]
    if unknown and not ends:
        raise BadReply(f"status {unknown[0][:40]!r}")
    return _S.FILLED if _S.FILLED in ends else ends[0] if ends else _S.NEW


def _with_fills(status: OrderStatus, executed: Decimal) -> OrderStatus:
    if not executed:
        return status
    return {_S.NEW: _S.PARTIALLY_FILLED, _S.REJECTED: _S.CANCELED}.get(status, status)


def _note(status: OrderStatus, executed: Decimal) -> str:
    return f"{plain(executed)} executed before it ended" if status is _S.CANCELED else ""


def is_undecided(rows: Sequence[Row]) -> bool:
    """The exchange has not spoken yet: it may still refuse."""
    return all(_word(row) in UNDECIDED for row in rows)


def _word(row: Row) -> str:
    """How it stands. That a change or a cancel was refused is told in a row of its own, and ends nothing."""
    word, report = (str(row.get(name) or "").strip().upper() for name in ("status", "rpt"))
    change_was_refused = report.endswith("REJECTED") and report != "REJECTED"
    return "OPEN" if change_was_refused and STATUSES.get(word) is _S.REJECTED else word


def _check_ours(order: Order, row: Row) -> None:
    same = _scrip_in(row) == scrip_of(order.symbol) and row.get("norenordno")
    tagged = row.get("remarks") in (None, "") or is_tag(row["remarks"], order.client_order_id)
    if not (same and tagged and _side_fits(order, row)):
        raise BadReply("it is not this order")


def _scrip_in(row: Row) -> tuple[object, str]:
    return row.get("exch"), unquote(str(row.get("tsym")))


def _side_fits(order: Order, row: Row) -> bool:
    return row.get("trantype") in (None, "B" if order.side is Side.BUY else "S")


def of_another_day(order: Order, day: str) -> Execution:
    """Orders are good for a day: that one does not wait any more. What it executed unseen nobody tells here."""
    told = (order.exchange_order_id, order.executed_quantity, order.executed_quote, order.fees)
    note = f"FLATTRADE lists no orders of {day} any more: what it executed after it was last seen is in its reports"
    return Execution(OrderStatus.CANCELED, *told, note)


def rules_of(symbol: str, seen: Quote) -> SymbolRules:
    return SymbolRules(
        symbol=symbol,
        base_asset=share_of(symbol),
        quote_asset=INR,
        quantity_step=seen.lot,
        min_quantity=seen.lot,
        price_tick=seen.tick,
        quote_amount_allowed=False,
        # Stop orders are not offered in this version: what is not in here is refused by name.
        order_types=frozenset({"MARKET", "LIMIT"}),
    )


def free_money(row: Row) -> Decimal:
    """Cash and what was paid in today, less what orders and positions hold; collateral is no money."""
    used = signed(row, "marginused") if row.get("marginused") else ZERO
    # Who owes money has less than none; a margin below none is no money.
    return max(ZERO, signed(row, "cash") + _number_or_none(row, "payin") - max(ZERO, used))


def shares_held(holdings: Iterable[Row], positions: Iterable[Row]) -> dict[str, Decimal]:
    """What can be sold, by share: what lies in the depository, and what was bought today.

    A sale of today out of the depository is in `usedqty` already, so a negative position is not taken off once more.
    """
    held: dict[str, Decimal] = {}
    for row in holdings:
        kinds = ("btstqty", "holdqty", "unplgdqty", "benqty")
        there = sum((_number_or_none(row, kind) for kind in kinds), ZERO) + max(
            _number_or_none(row, "npoadqty"), _number_or_none(row, "dpqty")
        )
        share = _share_in(row["exch_tsym"])
        held[share] = held.get(share, ZERO) + max(ZERO, there - _number_or_none(row, "usedqty"))
    for row in positions:
        if row.get("prd") == DELIVERY and row.get("exch") in ("NSE", "BSE"):
            share = _share_in([row])
            held[share] = held.get(share, ZERO) + max(ZERO, signed(row, "netqty"))
    return {share: quantity for share, quantity in held.items() if quantity}


def _share_in(listed: Sequence[Row]) -> str:
    """Of one share's names, the one on NSE."""
    first = min(listed, key=lambda row: str(row["exch"]) != "NSE")
    return unquote(str(first["tsym"])).removesuffix("-EQ")


def trades_of(symbol: str, rows: Iterable[Row], since: datetime) -> list[TradedThere]:
    """Put together by the order that made them; the one that traded last comes last. FlatTrade tells whole seconds."""
    since = since.replace(microsecond=0)
    scrip, orders = scrip_of(symbol), dict[str, list[Row]]()
    for row in rows:
        if _scrip_in(row) == scrip and moment(row) >= since:
            orders.setdefault(str(row["norenordno"]), []).append(row)
    found = (_traded(symbol, number_, rows) for number_, rows in orders.items())
    return sorted(found, key=lambda trade: trade.last_at)


def _traded(symbol: str, order: str, rows: Sequence[Row]) -> TradedThere:
    return TradedThere(
        symbol=symbol,
        exchange_order_id=order,
        side=Side.BUY if rows[0]["trantype"] == "B" else Side.SELL,
        position_side="",
        quantity=sum((number(row, "flqty") for row in rows), ZERO),
        quote=sum((number(row, "flqty") * number(row, "flprc") for row in rows), ZERO),
        fees=(),
        last_at=max(moment(row) for row in rows),
    )


_MOMENTS = ("%H:%M:%S %d-%m-%Y", "%d-%m-%Y %H:%M:%S")


def moment(row: Row, *names: str) -> datetime:
    """When a fill happened; the documentation writes time and date in both orders."""
    for name in names or ("fltm", "norentm"):
        for shape in _MOMENTS:
            try:
                return datetime.strptime(str(row.get(name)), shape).replace(tzinfo=IST).astimezone(UTC)
            except ValueError:
                continue
    raise BadReply("no usable time")


def signed(row: Row, name: str) -> Decimal:
    """Raises BadReply when it is missing or not a plain number."""
    text = str(row.get(name, ""))
    if not re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,9})?", text):
        raise BadReply(f"{name} is missing or not a plain number")
    return Decimal(text)


def number(row: Row, name: str) -> Decimal:
    value = signed(row, name)
    if value < 0:
        raise BadReply(f"{name} is below 0")
    return value


def _number_or_none(row: Row, name: str) -> Decimal:
    """0 where it is left out, as FlatTrade does with what is not there yet."""
    return number(row, name) if row.get(name) not in (None, "") else ZERO


# --- refusals -------------------------------------------------------------------------------------------------------


class Meaning(Enum):
    """What `stat: Not_Ok` says, by its text: there are no codes."""

    EXPIRED = "the token is dead"
    RATE = "too many requests"
    EMPTY = "nothing there"
    REFUSED = "not taken"
    UNCLEAR = "it may have been taken"


_MEANINGS = (
    (re.compile(r"session expired|invalid session", re.I), Meaning.EXPIRED),
    (re.compile(r"\bin a current \w+ exceeds limit \d+", re.I), Meaning.RATE),
    (re.compile(r"no data\b", re.I), Meaning.EMPTY),
    (re.compile(r"ora:order not found", re.I), Meaning.EMPTY),
    (re.compile(r"invalid input|invalid amo|order price cannot be zero", re.I), Meaning.REFUSED),
)


def meaning_of(emsg: str) -> Meaning:
    """A text that is not listed is unclear: an order that it answers has to be looked up."""
    return next((meaning for pattern, meaning in _MEANINGS if pattern.search(emsg)), Meaning.UNCLEAR)
