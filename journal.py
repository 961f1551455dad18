"""The durable record. What is not in here did not happen; what is, survives kill -9 and power loss.

SQLite in WAL mode with `synchronous=FULL`: a committed transaction is on the disk (https://sqlite.org/pragma.html).
Append-only: events, and the CSV rows that they stand for, in the same transaction.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

from codec import to_text
from csv_rows import signal_row, trade_row
from events import Decided, Event, OrderChanged, Overtook, Preferred, Switched, Valued
from history import Execution, History, Wanted
from models import UNSETTLED, Decision, DecisionRecord, Order, OrderStatus
from seals import DamagedRecord, JournalError, opened, sealed

__all__ = ["SIGNALS", "TRADES", "DamagedRecord", "Journal", "JournalError"]

SIGNALS = "signals"
TRADES = "trades"
BATCH = 5_000
LOG_PAGES = 250  # of 4 KiB: so long is the write-ahead log, from the start on
MAX_KEYS = 50_000  # up to so many alerts all keys are in memory, as nearly always nobody sent the alert before
KEY_COLUMN = 4  # of what `append` inserts
FRESH = 256  # rows kept in memory for the CSV files, which nearly always want the last few

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, decision TEXT, alert_key TEXT, signal_id TEXT,
    symbol TEXT, strategy TEXT, check_code TEXT, broker TEXT, status TEXT, body TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS events_by_alert ON events (alert_key) WHERE alert_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_by_signal ON events (signal_id);
CREATE TABLE IF NOT EXISTS csv_rows (
    file TEXT NOT NULL, number INTEGER NOT NULL, line TEXT NOT NULL, PRIMARY KEY (file, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS accounts (broker TEXT PRIMARY KEY, mode TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS probes (number INTEGER) STRICT;
CREATE TABLE IF NOT EXISTS room (bytes BLOB) STRICT;
CREATE TABLE IF NOT EXISTS saved (
    one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, body TEXT NOT NULL
) STRICT;
"""


# What earlier versions did not write beside the body; of their rows it is empty. No index: each one slows a commit.
LATER_COLUMNS = ("check_code", "broker", "status")


@dataclass(frozen=True, slots=True)
class Day:
    """One UTC day on the record: decisions of each kind, and each order that changed, before the day and after it."""

    date: date
    decisions: Mapping[str, int]
    orders: Sequence[tuple[Order | None, Order]]


class Journal:
    """One file, one writer. Reads have a connection of their own and see what is committed.

    `history` is for people who look through the records, on one more connection.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _take_over(path)
        _read_ahead(path)
        try:
            self._writer = _connect(path)
            self._prepare()
            self._reader = _connect(path)
            self.history = History(_connect(path))
            self._last = {file: self._count(file) for file in (SIGNALS, TRADES)}
            self.last_event = int(self._writer.execute("SELECT COALESCE(MAX(seq), 0) FROM events").fetchone()[0])
        except sqlite3.Error as exc:
            raise JournalError(f"cannot open the journal {path.name}: {exc}") from exc
        self._file = _identity(path)
        self._read_lock = threading.Lock()
        self._keys = self._all_keys()
        self._fresh: dict[str, tuple[tuple[int, str], ...]] = {SIGNALS: (), TRADES: ()}

    def _prepare(self) -> None:
        # The pragma answers with the mode that is in force; without reading it a failed switch goes unnoticed.
        (mode,) = self._writer.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise JournalError(f"cannot open the journal {self.path.name}: WAL mode refused, got {mode}")
        self._writer.execute("PRAGMA synchronous=FULL")
        # Not the quicker check: it does not see a key that changed in the index, and its alert would trade again.
        (health,) = self._writer.execute("PRAGMA integrity_check(1)").fetchone()
        if health != "ok":
            raise JournalError(f"the journal {self.path.name} is damaged ({health}): restore it from a backup")
        self._writer.executescript(SCHEMA)
        there = {name for (name,) in self._writer.execute("SELECT name FROM pragma_table_info('events')")}
        for column in LATER_COLUMNS:
            if column not in there:
                self._writer.execute(f"ALTER TABLE events ADD COLUMN {column} TEXT")
        self.path.chmod(0o600)

    def make_room(self) -> None:
        """A log that need not grow with every commit is on the disk in two thirds of the time: docs/performance.md.

        Once the journal has been read: a damaged one is left as it is.
        """
        self._writer.execute(f"PRAGMA wal_autocheckpoint={LOG_PAGES}")
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.execute("INSERT INTO room VALUES (zeroblob(?))", (LOG_PAGES * 4096,))
            self._writer.execute("DELETE FROM room")
            self._writer.execute("COMMIT")
            # From here on the log is written from its beginning again, over what is there.
            self._writer.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        except sqlite3.Error:
            # A full disk: then there is no room, and the first decision will say so.
            self._roll_back()

    def _count(self, file: str) -> int:
        query = "SELECT COALESCE(MAX(number), 0) FROM csv_rows WHERE file = ?"
        (last,) = self._writer.execute(query, (file,)).fetchone()
        return int(last)

    def _all_keys(self) -> set[int] | None:
        """Of every alert on the record, shortened to a number; None when there are too many to keep."""
        found = self._read("SELECT alert_key FROM events WHERE alert_key IS NOT NULL LIMIT ?", (MAX_KEYS + 1,))
        return {hash(key) for (key,) in found} if len(found) <= MAX_KEYS else None

    def append(self, events: Sequence[Event]) -> None:
        """All of the events, or none. Raises JournalError; then nothing was recorded."""
        self._refuse_a_lost_file()
        last, first = dict(self._last), self.last_event + 1
        columns = [(number, *_columns(event)) for number, event in enumerate(events, first)]
        rows: list[tuple[str, int, str]] = []
        for file, line in filter(None, map(_csv_row, events)):
            last[file] += 1
            rows.append((file, last[file], line))
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            self._insert(columns, rows)
            self._writer.execute("COMMIT")
        except sqlite3.Error as exc:
            self._roll_back()
            raise JournalError(f"cannot write the journal: {exc}; check the disk of LOG_DIR") from exc
        except BaseException:
            self._roll_back()
            raise
        # In this order: who sees the new number finds the new rows.
        for file in {row[0] for row in rows}:
            new = tuple((number, line) for of, number, line in rows if of == file)
            self._fresh[file] = (*self._fresh[file], *new)[-FRESH:]
        self._last, self.last_event = last, self.last_event + len(columns)
        if self._keys is not None:
            self._keys.update(hash(key) for key in (row[KEY_COLUMN] for row in columns) if key is not None)
            if len(self._keys) > MAX_KEYS:
                self._keys = None

    def probe(self) -> None:
        """Writes nothing that counts. Raises JournalError while the disk does not take it."""
        self._refuse_a_lost_file()
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.execute("INSERT INTO probes VALUES (1)")
            self._writer.execute("DELETE FROM probes")
            self._writer.execute("COMMIT")
        except sqlite3.Error as exc:
            self._roll_back()
            raise JournalError(f"cannot write the journal: {exc}; check the disk of LOG_DIR") from exc

    def _refuse_a_lost_file(self) -> None:
        """What is written to a file that was deleted or moved away is gone with the process. Raises JournalError."""
        if _identity(self.path) != self._file:
            raise JournalError(
                f"cannot write the journal: {self.path.name} was moved or deleted; stop, put it back with its -wal "
                "(or restore a backup), and start again"
            )

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def _insert(self, columns: Sequence[tuple[object, ...]], rows: Sequence[tuple[str, int, str]]) -> None:
        self._writer.executemany(
            "INSERT INTO events (seq, at, kind, decision, alert_key, signal_id, symbol, strategy, check_code, broker,"
            " status, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            columns,
        )
        self._writer.executemany("INSERT INTO csv_rows VALUES (?, ?, ?)", rows)

    def save(self, number: int, text: str) -> None:
        """Keeps the sum of all events up to this number, in place of an older one. Raises JournalError."""
        try:
            self._writer.execute("INSERT OR REPLACE INTO saved VALUES (1, ?, ?)", (number, text))
        except sqlite3.Error as exc:
            raise JournalError(f"cannot write the journal: {exc}; check the disk of LOG_DIR") from exc

    def put_away(self) -> None:
        """All of it into its one file, for whoever copies that one alone. Raises JournalError."""
        try:
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as exc:
            raise JournalError(f"cannot write the journal: {exc}; check the disk of LOG_DIR") from exc

    def saved(self) -> tuple[int, str]:
        """What was kept last, and the number of the last event in it; 0 and nothing when there is none."""
        found = self._read("SELECT seq, body FROM saved", ())
        return found[0] if found else (0, "")

    def replay(self, after: int = 0) -> Iterator[Event]:
        """Every event after that number which changes the books, in order: no refusals, no repeats, no looks."""
        rows = self._writer.execute(
            "SELECT kind, body FROM events WHERE seq > ? AND kind != 'valued' AND (kind != 'decided'"
            " OR decision = 'ACCEPTED') ORDER BY seq",
            (after,),
        )
        try:
            for kind, body in rows:
                yield _event(kind, body)
        except (sqlite3.Error, ValueError, KeyError, TypeError) as exc:
            raise JournalError(f"the journal {self.path.name} cannot be read: {exc!r}") from exc

    def seen(self, alert_key: str) -> DecisionRecord | None:
        """The last decision about the very same alert, duplicates apart."""
        if self._keys is not None and hash(alert_key) not in self._keys:
            return None
        found = self._read(
            "SELECT body FROM events WHERE alert_key = ? AND kind = 'decided' ORDER BY seq DESC LIMIT 1", (alert_key,)
        )
        return opened(Decided, found[0][0]).record if found else None

    def last_order(self, signal_id: str) -> Order | None:
        """The order of a signal as it stands now."""
        found = self._read(
            "SELECT kind, body FROM events WHERE signal_id = ? AND (kind = 'order' OR decision = 'ACCEPTED')"
            " ORDER BY seq DESC LIMIT 1",
            (signal_id,),
        )
        if not found:
            return None
        event = _event(*found[0])
        return event.order if isinstance(event, OrderChanged) else cast(Decided, event).record.order

    def knows(self, signal_id: str) -> bool:
        return bool(self._read("SELECT 1 FROM events WHERE signal_id = ? LIMIT 1", (signal_id,)))

    def order(self, symbol: str, client_order_id: str) -> Order | None:
        """As it stands now. Reads through the symbol's orders: for what is rare."""
        found = self._read(
            "SELECT body FROM events WHERE kind = 'order' AND symbol = ? AND instr(body, ?) ORDER BY seq DESC LIMIT 1",
            (symbol, f'"{client_order_id}"'),
        )
        return opened(OrderChanged, found[0][0]).order if found else None

    def orders_changed(self, symbol: str, since: datetime) -> list[Order]:
        """Every order's states since then, oldest first."""
        found = self._read(
            "SELECT body FROM events WHERE kind = 'order' AND symbol = ? AND at >= ?",
            (symbol, since.astimezone(UTC).isoformat()),
        )
        return [opened(OrderChanged, body).order for (body,) in found]

    def executions(
        self, limit: int, symbol: str | None = None, strategy: str | None = None, since: datetime | None = None
    ) -> list[Execution]:
        """Orders, newest change first, each once with its newest state."""
        found = self.history.orders(Wanted(symbol=symbol, strategy=strategy, since=since), limit)
        return [one.value for one in found]

    def day(self, day: date) -> Day:
        """What is on the record of a UTC day. Raises JournalError."""
        first, end = self._first_of(day), self._first_of(day + timedelta(days=1))
        decisions = self._read(
            "SELECT decision, COUNT(*) FROM events WHERE seq >= ? AND seq < ? AND kind = 'decided' GROUP BY decision",
            (first, end),
        )
        changes = self._read(
            "SELECT body FROM events WHERE seq >= ? AND seq < ? AND kind = 'order' ORDER BY seq", (first, end)
        )
        after = {order.client_order_id: order for order in (opened(OrderChanged, body).order for (body,) in changes)}
        pairs = [(self._before(order, first), order) for order in after.values()]
        return Day(day, dict(decisions), pairs)

    def _first_of(self, day: date) -> int:
        """The number of the first event of that UTC day, or of a later one. Looks only at a few: times only grow."""
        low, high = 1, self.last_event + 1
        while low < high:
            middle = (low + high) // 2
            found = self._read("SELECT at FROM events WHERE seq >= ? ORDER BY seq LIMIT 1", (middle,))
            if found and found[0][0] < day.isoformat():
                low = middle + 1
            else:
                high = middle
        return low

    def _before(self, order: Order, number: int) -> Order | None:
        """As it stood before that event."""
        found = self._read(
            "SELECT body FROM events WHERE signal_id = ? AND kind = 'order' AND seq < ? AND instr(body, ?)"
            " ORDER BY seq DESC LIMIT 1",
            (_thread(order), number, f'"{order.client_order_id}"'),
        )
        return opened(OrderChanged, found[0][0]).order if found else None

    def rows_after(self, file: str, number: int) -> list[tuple[int, str]]:
        """CSV rows with a higher number, in order, at most a batch of them."""
        fresh = self._fresh[file]
        if fresh and fresh[0][0] <= number + 1:
            return [row for row in fresh if row[0] > number][:BATCH]
        return self._read(
            "SELECT number, line FROM csv_rows WHERE file = ? AND number > ? ORDER BY number LIMIT ?",
            (file, number, BATCH),
        )

    def mode_of(self, broker: str) -> str | None:
        """TESTNET or LIVE: whose orders the records of this broker are; None before its first start."""
        found = self._read("SELECT mode FROM accounts WHERE broker = ?", (broker,))
        return found[0][0] if found else None

    def set_mode(self, broker: str, mode: str) -> None:
        """Raises JournalError."""
        try:
            self._writer.execute("INSERT OR REPLACE INTO accounts VALUES (?, ?)", (broker, mode))
        except sqlite3.Error as exc:
            raise JournalError(f"cannot write the journal: {exc}; check the disk of LOG_DIR") from exc

    def last_number(self, file: str) -> int:
        return self._last[file]

    def _read(self, query: str, values: tuple[object, ...]) -> list[Any]:
        try:
            with self._read_lock:
                return self._reader.execute(query, values).fetchall()
        except sqlite3.Error as exc:
            raise JournalError(f"cannot read the journal: {exc}") from exc

    def close(self) -> None:
        self.history.close()
        self._reader.close()
        self._writer.close()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _take_over(path: Path) -> None:
    """For its owner alone, and writable: what SQLite may only read it opens without a word. Raises JournalError."""
    try:
        if path.is_file():
            path.chmod(0o600)
    except OSError as exc:
        raise JournalError(
            f"cannot open the journal {path.name}: {exc.strerror}; it must belong to the user that the daemon runs as"
        ) from exc


def _read_ahead(path: Path) -> None:
    """From a cold disk, its health check would read page by page in the order of the trees: twenty times as long.

    Before it is opened: closing a second handle would take SQLite's locks away (https://sqlite.org/howtocorrupt.html).
    """
    if not path.is_file():
        return
    try:
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
    except OSError:
        pass  # whatever it is, opening the journal says it better


def _connect(path: Path) -> sqlite3.Connection:
    # Used by several threads, one at a time: the writer under the engine's lock, the reader under its own.
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)


def _columns(event: Event) -> tuple[str | None, ...]:
    at, body = event.at.isoformat(), sealed(to_text(event))
    if isinstance(event, Decided):
        record = event.record
        signal = record.signal
        symbol, strategy = (signal.symbol, signal.strategy) if signal else (None, None)
        key = record.key if record.decision in (Decision.ACCEPTED, Decision.REJECTED) else None
        check, broker = record.check, record.broker
        return at, "decided", record.decision.value, key, record.signal_id, symbol, strategy, check, broker, None, body
    if isinstance(event, OrderChanged):
        order = event.order
        broker, status = order.broker, order.status.value
        return at, "order", None, None, _thread(order), order.symbol, order.strategy, None, broker, status, body
    if isinstance(event, Overtook):
        return at, "overtook", None, None, None, event.symbol, None, None, None, None, body
    kind = "preferred" if isinstance(event, Preferred) else "valued" if isinstance(event, Valued) else "switched"
    return at, kind, *(None,) * 8, body


def _thread(order: Order) -> str:
    """What later rows take the place of: one order with its further tries. A signal's own order has its signal's id."""
    if not order.leg:
        return order.signal_id
    # A stop is placed anew when the position grows, and the owner may close twice: each one is a story of its own.
    return f"{order.signal_id}/{order.leg if order.leg == 'exit' else order.client_order_id}"


def _csv_row(event: Event) -> tuple[str, str] | None:
    if isinstance(event, Decided):
        return SIGNALS, signal_row(event.record)
    if isinstance(event, OrderChanged) and _deserves_a_row(event.order):
        return TRADES, trade_row(event.order, event.at)
    return None


def _deserves_a_row(order: Order) -> bool:
    """That an order is about to leave is not news for the owner; that nobody knows what became of it is."""
    return order.status not in UNSETTLED or order.status is OrderStatus.UNKNOWN


KINDS: Mapping[str, Callable[[str], Event]] = {
    "decided": partial(opened, Decided),
    "order": partial(opened, OrderChanged),
    "switched": partial(opened, Switched),
    "preferred": partial(opened, Preferred),
    "overtook": partial(opened, Overtook),
    "valued": partial(opened, Valued),
}


def _event(kind: str, body: str) -> Event:
    return KINDS[kind](body)
