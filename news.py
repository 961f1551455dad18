"""What the owner is told, in words: from what went on the record to plain text. Pure: no clock, no queue, no network.

Names of strategies and what an exchange says are strangers' text, and some services read signs as formatting or as
links. So a message is made of letters, digits and a few signs that mean nothing to any of them, and of `TO_DO`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from journal import Day
from models import RESTING, UNSETTLED, ZERO, Decision, Order, OrderStatus, Side, plain
from portfolio import Position

LONGEST_NEWS = 300  # characters
LONGEST_NAME = 40
MOST_POSITIONS = 10  # in the daily summary
DIGITS = 8
# What the owner is to do, as it stands in our own texts: the slashes belong to it. Whoever else writes it says no more.
TO_DO = ("GET /flattrade/login", "POST /orders/outcome", "POST /preferences/reset")
_STRANGE = re.compile(rf"({'|'.join(TO_DO)})|[^\w .,:;+%()'-]|_")


@dataclass(frozen=True, slots=True)
class News:
    """One thing to tell. What has the same key is told once, also after a restart; without one, every time."""

    text: str
    key: str = ""


def may_be_news(order: Order) -> bool:
    """A first, quick look, for where an order is waiting."""
    return order.status not in (OrderStatus.INTENT, OrderStatus.SENT)


def of_order(order: Order, was_in_doubt: bool) -> News | None:
    """None for what happens all the time: orders that rest, protection that is placed and cancelled."""
    what = _what_became(order, was_in_doubt)
    if not what:
        return None
    known = "Now known: " if was_in_doubt and order.status not in UNSETTLED else ""
    return News(told(f"{known}{what}{_strategy(order)}"), f"{order.client_order_id} {order.status}")


def _what_became(order: Order, was_in_doubt: bool) -> str:
    name = f"{order.side} {order.instrument} at {order.broker}"
    because = f": {order.note}" if order.note else ""
    if order.leg == "by_hand":
        return ""  # who took it over tells it
    if order.status is OrderStatus.UNKNOWN:
        return f"Outcome unknown, it is being looked up, and entries on the symbol wait: {name}{because}"
    if order.has_ended and order.executed_quantity:
        rest = "" if order.status is OrderStatus.FILLED else f"; the rest is {order.status}"
        return f"{_filled(order)}{rest}"
    if order.status in RESTING and was_in_doubt:
        return f"{name} is at the exchange and waits"
    if order.is_protection:
        return ""  # placed again, or its position is closed, which is told
    if order.status is OrderStatus.REJECTED:
        return f"Refused by the exchange: {name}{because}"
    if order.status is OrderStatus.NOT_PLACED and (was_in_doubt or order.never_left or order.is_entry):
        return f"Not placed: {name}{because}"
    return f"{name} is {order.status}" if was_in_doubt and order.has_ended else ""


def _filled(order: Order) -> str:
    verb = "Bought" if order.side is Side.BUY else "Sold"
    leg = f"{order.leg.replace('_', '-').capitalize()}: " if order.is_protection else ""
    price, quote = order.average_price, order.rules.quote_asset
    size = f"{verb} {_short(order.executed_quantity)} {order.instrument}"
    text = f"{leg}{size} at {_short(price or ZERO)} ({_short(order.executed_quote)} {quote}), {order.account}"
    return text if order.realized_pnl is None else f"{text}; realised {_signed(order.realized_pnl)} {quote}"


def _strategy(order: Order) -> str:
    return f" (strategy {order.strategy[:LONGEST_NAME]})" if order.strategy else ""


def of_day(day: Day, positions: Iterable[Position]) -> str:
    """The daily summary; `positions` are those that are open now."""
    moved = [(before, after) for before, after in day.orders if after.executed_quantity > _executed(before)]
    entries = sum(after.is_entry for _, after in moved)
    gained: dict[str, Decimal] = {}
    for before, after in day.orders:
        change = (after.realized_pnl or ZERO) - ((before.realized_pnl if before else None) or ZERO)
        if after.realized_pnl is not None:
            gained[after.rules.quote_asset] = gained.get(after.rules.quote_asset, ZERO) + change
    lines = [
        f"Summary of {day.date} (UTC)",
        f"Trades: {len(moved)} ({entries} in, {len(moved) - entries} out)",
        f"Realised: {', '.join(f'{_signed(gain)} {quote}' for quote, gain in sorted(gained.items())) or '0'}",
        f"Alerts: {', '.join(f'{day.decisions.get(kind, 0)} {kind.lower()}' for kind in Decision)}",
        f"Open: {_open(list(positions))}",
    ]
    return "\n".join(map(told, lines))


def _open(positions: Sequence[Position]) -> str:
    shown = [
        f"{_short(p.quantity)} {p.instrument} {p.side.lower()} at {_short(p.average_cost or ZERO)} ({p.broker})"
        for p in positions[:MOST_POSITIONS]
    ]
    more = [f"and {len(positions) - MOST_POSITIONS} more"] if len(positions) > MOST_POSITIONS else []
    return ", ".join([*shown, *more]) or "nothing"


def _executed(order: Order | None) -> Decimal:
    return order.executed_quantity if order else ZERO


def joined(texts: Sequence[str], lost: int) -> str:
    """One message; `lost`: so many before these could not be told."""
    told_first = [f"({lost} earlier messages were dropped; see the log)"] if lost else []
    return "\n".join([*told_first, *texts])


def told(text: str) -> str:
    """One line of letters, digits and harmless signs, of bounded length."""
    line = _STRANGE.sub(lambda found: found[1] or " ", text[: 4 * LONGEST_NEWS])
    # No emoji by its name (":x:"), and no link: "name.tld" is one to some, "BTCUSDT.P" and "1.5" to nobody.
    line = re.sub(r":(?! )|(?<=\w)\.(?=\w*[^\W\d]\w)", " ", " ".join(line.split()))
    return line if len(line) <= LONGEST_NEWS else f"{line[: LONGEST_NEWS - 3]}..."


def _short(value: Decimal) -> str:
    """Averages have 28 digits, and nobody wants to read them."""
    return plain(round(value, max(0, DIGITS - 1 - value.adjusted()))) if value else "0"


def _signed(value: Decimal) -> str:
    return f"{'+' if value > 0 else ''}{_short(value)}"
