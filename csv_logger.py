"""signals.csv and trades.csv for people with Excel: renders their rows and keeps the files equal to the journal's."""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Context, Decimal
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from fees import total_in
from models import ZERO, DecisionRecord, Fee, Order, Signal, plain

log = logging.getLogger(__name__)

# The first columns are fixed for good; a new one goes to the end.
SIGNALS_COLUMNS = (
    "DateTime", "TradingPair", "Action", "Strategy", "TimeFrame", "Confidence", "Decision", "Reason", "SignalID",
    "Check", "Broker", "Market", "OrderType", "Quantity", "Amount", "Price", "LatencyMs",
)  # fmt: skip
TRADES_COLUMNS = (
    "DateTime", "TradingPair", "Action", "TradeAmount", "Price", "OrderID", "Status", "SignalID", "ClientOrderID",
    "Broker", "Market", "Strategy", "Quantity", "Fee", "FeeAsset", "RealizedPnL", "LatencyMs", "Note",
)  # fmt: skip

Row = tuple[int, str]

# ------------------------------------------------------------------------------------------------------- rendering

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


# ------------------------------------------------------------------------------------------------------- the file

BOM = "\ufeff"  # Excel reads a file without it as the local 8-bit alphabet

# O_NONBLOCK: somebody's FIFO in the file's place must not hang an order. O_BINARY: Windows would add a CR to each CRLF.
_FLAGS = os.O_APPEND | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class _Stamp(NamedTuple):
    """What a file looked like after our last write. Anything else means that somebody else wrote."""

    inode: int
    size: int
    mtime_ns: int


class _Match(NamedTuple):
    """How far a file equals the journal: `end` bytes, up to and including row `number`."""

    end: int
    number: int
    stamp: _Stamp | None  # None: there is no file


class CsvFile:
    """Keeps one CSV file equal to the journal's rows, whatever people and disks do to it.

    Rows are numbered from 1 without gaps. `rows_after(n)` gives those above n in order, perhaps not all at once;
    it and `last_number` are called with this object's lock held, so they must never wait for a caller of `catch_up`.
    Row n belongs to part (n-1) // max_rows; full parts become `<stem>.0001.csv` and so on (Excel ends at 1,048,576).

    Nothing here raises because of the file: what could not be written is `lag`, why is `problem`, and the next
    `catch_up` tries again. No fsync: the journal has the rows, and a torn file is repaired from it.
    """

    def __init__(
        self,
        path: Path,
        columns: tuple[str, ...],
        rows_after: Callable[[int], Sequence[Row]],
        clock: Callable[[], datetime],
        last_number: Callable[[], int],
        max_rows: int = 1_000_000,
    ) -> None:
        self._path = path
        self._header = (BOM + ",".join(columns) + "\r\n").encode()
        self._rows_after = rows_after
        self._clock = clock
        self._last_number = last_number
        self._max_rows = max_rows
        self._lock = threading.Lock()
        self._part = -1  # which part the file is; -1: not known yet
        self._written = 0  # the last row that is in the file
        self._left: _Stamp | None = None  # the file as we left it; None: not sure, compare it
        self._problem = ""

    @property
    def lag(self) -> int:
        """Rows of the journal that are not in the file yet."""
        return max(0, self._last_number() - self._written)

    @property
    def problem(self) -> str:
        """Why the file lags behind and what to do about it; empty when all is well."""
        return self._problem

    def open(self) -> None:
        """Compare the whole file with the journal, finish what a crash interrupted, and catch up."""
        with self._lock:
            self._part, self._left = -1, None
            self._attempt()

    def catch_up(self) -> None:
        """Append what is new. Every caller's rows have had their chance when its call returns."""
        with self._lock:
            self._attempt()

    def follow(self) -> None:
        """`catch_up`, unless somebody else's call has written our rows with his: then not even a look at the file."""
        if self._left is None or self._problem or self.lag:
            self.catch_up()

    def _attempt(self) -> None:
        try:
            self._make_equal()
        except OSError as error:
            self._report(self._advice(error))
        except Exception as error:  # whatever the journal's reader raises, a CSV never fails an order
            self._report(
                f"the journal's rows for {self._path.name} cannot be read ({type(error).__name__}): "
                "check the journal; the file catches up by itself"
            )
        else:
            self._report("")

    def _report(self, problem: str) -> None:
        if problem and problem != self._problem:
            log.warning("%s", problem)
        self._problem = problem

    def _advice(self, error: OSError) -> str:
        """Words for the owner. Only the error's own text: the rest of an exception may name other paths."""
        if isinstance(error, PermissionError):
            todo = "close it in the other program, or make it writable"
        elif error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            todo = "free some disk space"
        else:
            todo = "check the disk and the folder"
        why = error.strerror or type(error).__name__
        return (
            f"{self._path.name} cannot be written ({why}): {todo}; "
            "the rows are safe in the journal and follow by themselves"
        )

    # -- appending

    def _make_equal(self) -> None:
        if self._left is None or _stamp_of(self._path) != self._left:
            self._repair()
        while rows := self._rows_after(self._written):
            for part, of_part in groupby(rows, key=self._part_of):
                while self._part < part:
                    self._rotate()
                self._append_rows(list(of_part))

    def _part_of(self, row: Row) -> int:
        return (row[0] - 1) // self._max_rows

    def _append_rows(self, rows: Sequence[Row]) -> None:
        self._append("".join([line for _, line in rows]).encode("utf-8", "replace"))
        self._written = rows[-1][0]

    def _append(self, data: bytes) -> None:
        """All of `data` or nothing, in one write where the disk allows it.

        Opened by path each time: a file that was renamed away must not get the rows of the one in its place.
        """
        fd = os.open(self._path, os.O_WRONLY | _FLAGS)
        try:
            before = _stamp(os.fstat(fd))
            if before != self._left:
                raise _changed()
            self._left = None  # until we know better
            try:
                _write_all(fd, data)
            except OSError:
                os.ftruncate(fd, before.size)
                # Without its header yet, an empty file needs more than the next rows.
                self._left = _stamp(os.fstat(fd)) if before.size else None
                raise
            after = _stamp(os.fstat(fd))
            # Another size means that somebody else wrote at the same moment: compare next time.
            self._left = after if after.size == before.size + len(data) else None
        finally:
            os.close(fd)

    def _rotate(self) -> None:
        """The full file steps aside under its number. A crash in between leaves a state that `open` recognises."""
        if _stamp_of(self._path) != self._left:
            raise _changed()
        archive = self._archive(self._part + 1)
        if os.path.lexists(archive):
            self._keep_aside(archive)
        os.rename(self._path, archive)
        self._part += 1
        self._start(_Match(0, self._written, None))

    def _archive(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.stem}.{number:04d}{self._path.suffix}")

    # -- comparing and repairing

    def _repair(self) -> None:
        """Compare byte for byte; keep what somebody changed; leave whole rows that equal the journal's."""
        self._left = None
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._part < 0:
            self._part = self._part_on_disk()
        match = self._compare(self._part)
        if match is None:
            self._keep_aside(self._path)
            match = _Match(0, self._part * self._max_rows, None)
        self._start(match)

    def _start(self, match: _Match) -> None:
        """Cut the file (made if missing) after what matches and write the header if even that is gone."""
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | _FLAGS, 0o600)
        try:
            found = _stamp(os.fstat(fd))
            if found != match.stamp and (match.stamp or found.size):
                raise _changed()
            if found.size > match.end:
                os.ftruncate(fd, match.end)
            self._left = _stamp(os.fstat(fd))
        finally:
            os.close(fd)
        self._written = match.number
        if match.end == 0:
            self._append(self._header)

    def _compare(self, part: int) -> _Match | None:
        """How far the file equals the journal's part, None when it has anything else in it."""
        end, number = 0, part * self._max_rows
        try:
            if not stat.S_ISREG(os.stat(self._path).st_mode):
                return None
            file = self._path.open("rb")
        except FileNotFoundError:
            return _Match(end, number, None)
        with file:
            stamp = _stamp(os.fstat(file.fileno()))
            for batch in self._lines(part):
                expected = b"".join([line for _, line in batch])
                found = file.read(len(expected))
                if found != expected:
                    return _match_within(batch, found, end, number, stamp)
                end, number = end + len(expected), batch[-1][0]
            return None if file.read(1) else _Match(end, number, stamp)

    def _lines(self, part: int) -> Iterator[list[tuple[int, bytes]]]:
        """The part as it should be: the header (under the number of the row before it), then its rows in batches."""
        number, last = part * self._max_rows, (part + 1) * self._max_rows
        yield [(number, self._header)]
        while number < last and (rows := self._rows_after(number)):
            yield [(n, line.encode("utf-8", "replace")) for n, line in rows if n <= last]
            number = rows[-1][0]

    def _part_on_disk(self) -> int:
        """Which part the file is. Usually the newest; an older one when a rotation was interrupted or rows lagged.

        The first row tells. Where there is none to recognise, the numbered files do: the next one after them.
        """
        newest = max(0, self._last_number() - 1) // self._max_rows
        oldest = self._last_archive(newest)
        if newest > oldest:
            first_line = self._first_line()
            for part in range(newest, oldest - 1, -1):
                rows = self._rows_after(part * self._max_rows)
                if rows and rows[0][1].encode("utf-8", "replace") == first_line:
                    return part
        return oldest

    def _last_archive(self, newest: int) -> int:
        """The highest number of a full part that stepped aside. `signals.2026.csv` is somebody's copy, not a part."""
        pattern = re.compile(rf"{re.escape(self._path.stem)}\.(\d{{4,}}){re.escape(self._path.suffix)}")
        matches = (pattern.fullmatch(name) for name in os.listdir(self._path.parent))
        numbers = (int(match[1]) for match in matches if match)
        return max((number for number in numbers if number <= newest), default=0)

    def _first_line(self) -> bytes:
        try:
            if not stat.S_ISREG(os.stat(self._path).st_mode):
                return b""
            with self._path.open("rb") as file:
                file.readline(len(self._header))
                return file.readline(1 << 16)
        except FileNotFoundError:
            return b""

    def _keep_aside(self, path: Path) -> None:
        """Out of the way, and never over an earlier one."""
        time = self._clock().astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = path.with_name(f"{path.stem}.edited-{time}{path.suffix}")
        count = 1
        while os.path.lexists(aside):
            count += 1
            aside = path.with_name(f"{path.stem}.edited-{time}-{count}{path.suffix}")
        os.rename(path, aside)
        try:
            # Whoever saved it may have made it anew, with the rights that files usually have.
            if stat.S_ISREG(os.lstat(aside).st_mode):
                os.chmod(aside, 0o600)
        except OSError:
            pass  # somebody else's file
        log.warning("%s was changed by another program: that is kept as %s and written anew", path.name, aside.name)


def _match_within(
    batch: Sequence[tuple[int, bytes]], found: bytes, end: int, number: int, stamp: _Stamp
) -> _Match | None:
    """The same, inside the batch where the difference is."""
    position = 0
    for row_number, line in batch:
        if not found.startswith(line, position):
            # Half a row of ours (or nothing at all) and then the end of the file: torn. Anything else is not ours.
            return _Match(end + position, number, stamp) if line.startswith(found[position:]) else None
        position += len(line)
        number = row_number
    return None


def _stamp(status: os.stat_result) -> _Stamp:
    return _Stamp(status.st_ino, status.st_size, status.st_mtime_ns)


def _stamp_of(path: Path) -> _Stamp | None:
    try:
        return _stamp(os.stat(path))
    except FileNotFoundError:
        return None


def _write_all(fd: int, data: bytes) -> None:
    # A full disk makes a write short before it makes one fail.
    while data:
        written = os.write(fd, data)
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = data[written:]


def _changed() -> OSError:
    return OSError(errno.EAGAIN, "another program is writing it right now")
