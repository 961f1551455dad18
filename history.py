"""The records for looking at: decisions and orders, newest first, page by page. Reads only, never on an alert's way.

On a connection of its own: whoever looks through years of records keeps no alert waiting. Usable from any thread.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

from codec import to_text
from events import Decided, OrderChanged, Valued
from models import Decision, DecisionRecord, Order, OrderStatus
from seals import JournalError, opened

T = TypeVar("T")

MAX_NAMES = 200  # symbols, or strategies, to choose from


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records; None = whatever there is.

    `since` and `until` are aware; a record of the very moment `until` is not wanted any more. `decision` and `check`
    are said of decisions only, `status` of orders only: of the others they choose nothing.
    """

    symbol: str | None = None
    strategy: str | None = None
    decision: Decision | None = None
    check: str | None = None
    broker: str | None = None
    status: OrderStatus | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Numbered(Generic[T]):
    """A record and its place in the journal. The page after it has the records `before` that number."""

    number: int
    value: T


@dataclass(frozen=True, slots=True)
class Execution:
    """One order as it stands now, with the moment of its last change."""

    order: Order
    at: datetime


@dataclass(frozen=True, slots=True)
class Stages:
    """An alert's way, moment by moment, and the milliseconds from each to the next; None = not known, or not reached.

    `fired_at` is the sender's clock, in whole seconds: the first wait may be less than nothing. `sent_at` is when the
    order was on the record as about to leave, `answered_at` when its last outcome was.
    """

    fired_at: datetime | None
    received_at: datetime
    decided_at: datetime
    sent_at: datetime | None
    answered_at: datetime | None
    fired_to_received_ms: float | None
    received_to_decided_ms: float
    decided_to_sent_ms: float | None
    sent_to_answered_ms: float | None


def stages(record: DecisionRecord, order: Order | None) -> Stages:
    """`order` is the decision's own, as it stands now. Pure."""
    fired_at = record.signal.fired_at if record.signal else None
    sent_at = order.sent_at if order else None
    answered_at = order.settled_at if order and sent_at else None
    return Stages(
        fired_at,
        record.received_at,
        record.decided_at,
        sent_at,
        answered_at,
        _milliseconds(fired_at, record.received_at),
        _milliseconds(record.received_at, record.decided_at) or 0.0,
        _milliseconds(record.decided_at, sent_at),
        _milliseconds(sent_at, answered_at),
    )


def _milliseconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else round((end - start).total_seconds() * 1000, 3)


class History:
    """Every method may raise JournalError, and blocks on the disk: for worker threads."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA query_only = ON")
        self._connection = connection
        self._lock = threading.Lock()
        self._names: dict[str, list[str]] = {"symbol": [], "strategy": []}
        self._names_until = 0

    def decisions(self, wanted: Wanted, limit: int, before: int | None = None) -> list[Numbered[DecisionRecord]]:
        """Newest first; refusals, repeats and what was not understood, too."""
        chosen = [*_of_both(wanted, before), ("decision = ?", wanted.decision), _check(wanted.check)]
        found = self._newest("decided", chosen, "", limit)
        return [Numbered(number, opened(Decided, body).record) for number, body in found]

    def orders(self, wanted: Wanted, limit: int, before: int | None = None) -> list[Numbered[Execution]]:
        """Newest change first; each order once, with its newest state, which is the one that has to be as wanted."""
        # Only as far as needed: grouping would read the whole history for the last few orders.
        found = self._newest("order", [*_of_both(wanted, before), _status(wanted.status)], NOTHING_LATER, limit)
        changes = ((number, opened(OrderChanged, body)) for number, body in found)
        return [Numbered(number, Execution(change.order, change.at)) for number, change in changes]

    def order_changes(self, after: int, until: int) -> list[tuple[OrderChanged, Decimal | None]]:
        """Every change of an order after one number, until another, in order; with the price that its alert named."""
        found = self._read(CHANGES_WITH_PRICES, [after, until])
        return [(opened(OrderChanged, body), Decimal(price) if price else None) for body, price in found]

    def valuations(self, after: int, until: int) -> list[Valued]:
        """Every look at what the accounts were worth after one number, until another, in order."""
        query = "SELECT body FROM events WHERE seq > ? AND seq <= ? AND kind = 'valued' ORDER BY seq"
        return [opened(Valued, body) for (body,) in self._read(query, [after, until])]

    def last_number(self) -> int:
        """Of the newest record; 0 when there is none."""
        ((last,),) = self._read("SELECT COALESCE(MAX(seq), 0) FROM events", [])
        return int(last)

    def symbols(self) -> list[str]:
        """All that alerts and orders named, in the order of the alphabet; the newest 200 where there are more."""
        return self._names_of("symbol")

    def strategies(self) -> list[str]:
        """As `symbols`."""
        return self._names_of("strategy")

    def close(self) -> None:
        self._connection.close()

    def _newest(self, kind: str, chosen: Sequence[_Choice], further: str, limit: int) -> list[tuple[int, str]]:
        asked = [choice for choice in chosen if choice[1] is not None]
        where = " AND ".join(["kind = ?", *(condition for condition, *_ in asked)])
        values = [kind, *(value for _, *values in asked for value in values)]
        query = f"SELECT seq, body FROM events AS newest WHERE {where}{further} ORDER BY seq DESC LIMIT ?"
        return self._read(query, [*values, limit])

    def _names_of(self, column: str) -> list[str]:
        with self._lock:
            self._look_for_new_names()
            return sorted(self._names[column])

    def _look_for_new_names(self) -> None:
        """Only through what came since the last look."""
        ((last,),) = self._rows("SELECT COALESCE(MAX(seq), 0) FROM events", [])
        query = (
            "SELECT DISTINCT symbol, strategy FROM events WHERE seq > ? AND seq <= ? AND kind IN ('decided', 'order')"
        )
        for found in self._rows(query, [self._names_until, last]):
            for names, name in zip(self._names.values(), found, strict=True):
                if name and name not in names:
                    names.append(name)
                    del names[:-MAX_NAMES]
        self._names_until = last

    def _read(self, query: str, values: Sequence[object]) -> list[Any]:
        with self._lock:
            return self._rows(query, values)

    def _rows(self, query: str, values: Sequence[object]) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as exc:
            raise JournalError(f"cannot read the journal: {exc}") from exc


_Choice = tuple[Any, ...]  # a condition and the values that it asks for; None for the first: not asked

# Further tries of an order, and its further states, share its story: journal.py says which.
NOTHING_LATER = (
    " AND NOT EXISTS (SELECT 1 FROM events AS later WHERE later.signal_id = newest.signal_id"
    " AND later.kind = 'order' AND later.seq > newest.seq)"
)


# Only the price is taken out of the alert's own record: to read all of it would take as long as the order itself.
CHANGES_WITH_PRICES = """
    SELECT body, (
        SELECT json_extract(substr(body, 1, length(body) - 9 * (body NOT LIKE '%}')), '$.record.signal.price')
        FROM events AS alert WHERE kind = 'decided' AND decision = 'ACCEPTED'
        AND signal_id = substr(changed.signal_id, 1, instr(changed.signal_id || '/', '/') - 1)
    ) FROM events AS changed WHERE seq > ? AND seq <= ? AND kind = 'order' ORDER BY seq
"""


def _of_both(wanted: Wanted, before: int | None) -> list[_Choice]:
    return [
        ("seq < ?", before),
        ("symbol = ?", wanted.symbol),
        ("strategy = ?", wanted.strategy),
        _in_column("broker", "broker", wanted.broker),
        ("at >= ?", _as_recorded(wanted.since)),
        ("at < ?", _as_recorded(wanted.until)),
    ]


def _check(check: str | None) -> _Choice:
    return _in_column("check_code", "check", check)


def _status(status: OrderStatus | None) -> _Choice:
    if status is OrderStatus.SENT:
        # What holds its default is not in the text.
        return "(status = ? OR status IS NULL AND NOT instr(body, '\"status\":'))", status
    return _in_column("status", "status", status)


def _in_column(column: str, name: str, value: str | None) -> _Choice:
    """Rows of earlier versions have it in their text only, where the quote signs of what people wrote are escaped."""
    text = None if value is None else f'"{name}":{to_text(value)}'
    return f"({column} = ? OR {column} IS NULL AND instr(body, ?))", value, text


def _as_recorded(moment: datetime | None) -> str | None:
    """Text of times in UTC is in the order of the times, with or without fractions."""
    return None if moment is None else moment.astimezone(UTC).isoformat()
