"""The ledger: the books in memory and the journal on the disk, kept equal behind one lock.

Whatever changes the books is a step: it sees the books, says what happened and what it answers. Steps that wait for
the lock together are written together: one transaction, one fsync, and each still sees what those before it did.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from books import Books, fold
from events import Event
from journal import Journal, JournalError
from saved_books import read_books, write_books

log = logging.getLogger("gatehouse.ledger")

T = TypeVar("T")
Step = Callable[[Books], tuple[Sequence[Event], T]]
OnWritten = Callable[[Sequence[Event]], None]

# Beyond these, a restart would have to fold more than it takes to write the sum of it now.
SAVE_AFTER_EVENTS = 2_000
MAX_TOGETHER = 64


class _Turn(Generic[T]):
    """One caller's step on its way through the ledger. Two with the same key are never written together."""

    def __init__(self, step: Step[T], key: str) -> None:
        self.key = key
        self.done = False
        self._step = step
        self._answer: T | None = None
        self._error: Exception | None = None

    def run(self, books: Books) -> tuple[Books, Sequence[Event]]:
        """The books after this step; a step that fails changes nothing and is done."""
        after = books
        try:
            events, self._answer = self._step(books)
            # What cannot be folded is not written.
            for event in events:
                after = fold(after, event)
        except Exception as error:
            self.fail(error)
            return books, ()
        return after, events

    def fail(self, error: Exception) -> None:
        self._error, self.done = error, True

    def answer(self) -> T | Exception:
        return self._error or self._answer  # type: ignore[return-value]  # a T, once the step has run


class Ledger:
    """`books` is an immutable value and may be read at any time; it holds only what is on the disk."""

    def __init__(self, journal: Journal, on_written: OnWritten = lambda events: None) -> None:
        """`on_written` is told of all events, once each, when they are on the disk; it must be quick, orders wait."""
        self._journal = journal
        self._on_written = on_written
        self._lock = threading.Lock()
        self._waiting: deque[_Turn[Any]] = deque()
        self._books, self._saved_at = self._restored()

    @property
    def books(self) -> Books:
        return self._books

    def run(self, step: Step[T], key: str = "") -> T:
        """The step's answer, once what it says happened is on the disk. A step may run twice; only one run counts.

        Raises JournalError when it cannot be written, and whatever the step raises; then nothing happened.
        """
        (answer,) = self.run_all([(step, key)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def run_all(self, steps: Sequence[tuple[Step[T], str]]) -> list[T | Exception]:
        """As `run`, for several steps with their keys, in one go; what one raises is its answer."""
        turns = [_Turn(step, key) for step, key in steps]
        self._waiting.extend(turns)
        with self._lock:
            # Whoever had the lock may have seen to these turns with his own.
            while not all(turn.done for turn in turns):
                self._serve(self._those_that_wait())
        return [turn.answer() for turn in turns]

    def probe(self) -> None:
        """Raises JournalError while the journal cannot be written."""
        with self._lock:
            self._journal.probe()

    def save(self) -> None:
        """Keeps the sum of all events so far, so that a start folds only what came after. Raises JournalError."""
        with self._lock:
            books, number = self._books, self._journal.last_event
        if number - self._saved_at < SAVE_AFTER_EVENTS:
            return
        text = write_books(books)
        with self._lock:
            self._journal.save(number, text)
        self._saved_at = number

    def put_away(self) -> None:
        """For a stop. Raises JournalError."""
        with self._lock:
            self._journal.put_away()

    def _tell(self, written: Sequence[Event]) -> None:
        try:
            self._on_written(written)
        except Exception:
            # What is on the disk happened, whoever chokes on the news of it.
            log.exception("news of the record were lost")

    def _restored(self) -> tuple[Books, int]:
        number, text = self._journal.saved()
        books = read_books(text)
        if books is None:
            books, number = Books(), 0
        for event in self._journal.replay(number):
            books = fold(books, event)
        return books, number

    def _those_that_wait(self) -> Iterator[_Turn[Any]]:
        """In the order of their coming, up to one whose twin must be on the disk before it can be judged."""
        keys: set[str] = set()
        for _ in range(MAX_TOGETHER):
            if not self._waiting or self._waiting[0].key in keys:
                return
            turn = self._waiting.popleft()
            if turn.key:
                keys.add(turn.key)
            yield turn

    def _serve(self, turns: Iterator[_Turn[Any]]) -> None:
        books, written, served = self._books, list[Event](), list[_Turn[Any]]()
        for turn in turns:
            books, events = turn.run(books)
            written += events
            served.append(turn)
        open_turns = [turn for turn in served if not turn.done]
        try:
            # Disk first, memory second: what cannot be written did not happen.
            if written:
                self._journal.append(written)
            self._books = books
            self._tell(written)
        except JournalError as error:
            for turn in open_turns:
                turn.fail(error)
        except Exception as error:
            # One of them has something that cannot be written: the others must not suffer for it.
            if len(open_turns) == 1:
                open_turns[0].fail(error)
            for turn in open_turns:
                if not turn.done:
                    self._serve(iter([turn]))
        for turn in open_turns:
            turn.done = True
