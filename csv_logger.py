"""signals.csv and trades.csv for people with Excel: keeps the files equal to the journal's rows, whatever happens."""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

Row = tuple[int, str]

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
