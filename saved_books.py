"""The books as text and back: a shortcut for the start, never the truth. In doubt there are none, and all is folded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path

from books import Books, Preference
from codec import from_text, to_text
from events import Missed
from models import Account, Instrument, Market, Order, Side
from portfolio import Position

# Who made the books. When one of these files changes, what an older version made of the events is not believed.
MAKERS = ("models.py", "portfolio.py", "fees.py", "events.py", "books.py", "codec.py", "saved_books.py")


@dataclass(frozen=True, slots=True)
class _Flow:
    broker: str
    market: Market
    asset: str
    change: Decimal


@dataclass(frozen=True, slots=True)
class _Cooldown:
    broker: str
    market: Market
    symbol: str
    side: Side
    since: datetime


@dataclass(frozen=True, slots=True)
class _Missed:
    broker: str
    market: Market
    symbol: str
    missed: Missed


@dataclass(frozen=True, slots=True)
class _Preference:
    name: str
    preference: Preference


@dataclass(frozen=True, slots=True)
class _Saved:
    orders: tuple[Order, ...]
    recent: tuple[Order, ...]
    positions: tuple[Position, ...]
    flows: tuple[_Flow, ...]
    cooldowns: tuple[_Cooldown, ...]
    missed: tuple[_Missed, ...]
    day: str
    entries_today: int
    realized_today: Decimal
    paused: bool
    preferences: tuple[_Preference, ...]


def write_books(books: Books) -> str:
    """One line: a seal over this version's code and the text, and the text itself."""
    saved = _Saved(
        orders=tuple(books.orders.values()),
        recent=books.recent,
        positions=tuple(replace(position, counted=None) for position in books.positions.values()),
        flows=tuple(_Flow(*account, asset, change) for (account, asset), change in books.flows.items()),
        cooldowns=tuple(
            _Cooldown(*instrument, side, since) for (instrument, side), since in books.last_accepted.items()
        ),
        missed=tuple(_Missed(*instrument, missed) for instrument, missed in books.missed.items()),
        day=books.day.isoformat(),
        entries_today=books.entries_today,
        realized_today=books.realized_today,
        paused=books.paused,
        preferences=tuple(_Preference(name, preference) for name, preference in books.preferences.items()),
    )
    text = to_text(saved)
    return f"{_seal(text)} {text}"


def read_books(line: str) -> Books | None:
    """None when there are none, when another version wrote them, or when a single character is not as it was."""
    seal, _, text = line.partition(" ")
    if not text or seal != _seal(text):
        return None
    saved = from_text(_Saved, text)
    return Books(
        orders={order.client_order_id: order for order in saved.orders},
        recent=saved.recent,
        positions={position.instrument: position for position in saved.positions},
        flows={(Account(flow.broker, flow.market), flow.asset): flow.change for flow in saved.flows},
        last_accepted={
            (Instrument(one.broker, one.market, one.symbol), one.side): one.since for one in saved.cooldowns
        },
        missed={Instrument(one.broker, one.market, one.symbol): one.missed for one in saved.missed},
        day=date.fromisoformat(saved.day),
        entries_today=saved.entries_today,
        realized_today=saved.realized_today,
        paused=saved.paused,
        preferences={one.name: one.preference for one in saved.preferences},
    )


def _seal(text: str) -> str:
    return hashlib.sha256(_makers() + text.encode()).hexdigest()


@cache
def _makers() -> bytes:
    here = Path(__file__).parent
    return hashlib.sha256(b"".join((here / name).read_bytes() for name in MAKERS)).digest()
