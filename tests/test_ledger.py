"""The ledger: what waits together is written together, and what is saved is what the events say."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from builders import LIMITS, NOW, D, an_order, decide, decided, done
from harness import eventually, examples
from hypothesis import given, settings
from hypothesis import strategies as st

import ledger as ledger_module
import saved_books
from books import Books
from events import Decided, Event, Switched
from journal import Journal, JournalError
from ledger import Ledger
from models import Action, Decision, OrderStatus, OrderType, Signal
from risk import RiskEngine
from saved_books import read_books, write_books


class SlowDisk:
    """Holds the first transaction back until it is let go, and counts them all."""

    def __init__(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        self.transactions: list[int] = []
        self.go = threading.Event()
        self._append = journal.append
        self._problem = ""
        monkeypatch.setattr(journal, "append", self.append)

    def append(self, events: Sequence[Event]) -> None:
        self.transactions.append(len(events))
        if len(self.transactions) == 1:
            assert self.go.wait(10)
        if self._problem:
            raise JournalError(self._problem)
        self._append(events)

    def fails(self, problem: str) -> None:
        self._problem = problem


class Crowd:
    """Callers that come to the ledger while its first transaction is on the way to the disk."""

    def __init__(self, ledger: Ledger, disk: SlowDisk) -> None:
        self.answers: dict[str, object] = {}
        self._ledger, self._disk = ledger, disk
        self._threads: list[threading.Thread] = []
        self.enter("first", lambda books: ([Switched(True, NOW)], "first"))
        eventually(lambda: disk.transactions == [1], 5, lambda: "the first is not on its way")

    def enter(self, name: str, step: Callable[[Books], tuple[Sequence[Event], object]], key: str = "") -> None:
        def call() -> None:
            try:
                self.answers[name] = self._ledger.run(step, key)
            except Exception as error:
                self.answers[name] = error

        before = len(self._ledger._waiting)
        self._threads.append(threading.Thread(target=call))
        self._threads[-1].start()
        if name != "first":
            eventually(lambda: len(self._ledger._waiting) == before + 1, 5, lambda: "nobody waits")

    def let_go(self) -> None:
        self._disk.go.set()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db")


@pytest.fixture
def ledger(journal: Journal) -> Ledger:
    return Ledger(journal)


@pytest.fixture
def crowd(ledger: Ledger, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> tuple[Crowd, SlowDisk]:
    disk = SlowDisk(journal, monkeypatch)
    return Crowd(ledger, disk), disk


def buys(number: int) -> Callable[[Books], tuple[Sequence[Event], object]]:
    """A step that enters one more order and answers how many it found before itself."""
    order = an_order(client_order_id=f"gh{number}", signal_id=f"s{number}")
    return lambda books: ([decided(order)], len(books.orders))


# --- written together ---------------------------------------------------------------------------------------------


def test_who_waits_for_the_disk_together_shares_one_transaction_and_sees_those_before(
    ledger: Ledger, crowd: tuple[Crowd, SlowDisk]
) -> None:
    callers, disk = crowd
    for number in range(5):
        callers.enter(str(number), buys(number))
    assert ledger.books == Books()  # nothing counts before it is on the disk
    callers.let_go()
    assert disk.transactions == [1, 5]
    assert [callers.answers[str(number)] for number in range(5)] == [0, 1, 2, 3, 4]
    assert (len(ledger.books.orders), ledger.books.paused) == (5, True)


def test_twins_never_share_a_transaction(crowd: tuple[Crowd, SlowDisk]) -> None:
    callers, disk = crowd
    callers.enter("a", buys(1), key="one alert")
    callers.enter("b", buys(2), key="another")
    callers.enter("twin of a", buys(3), key="one alert")
    callers.enter("c", buys(4), key="a third")
    callers.let_go()
    assert disk.transactions == [1, 2, 2]


def test_what_cannot_be_written_happened_to_nobody(ledger: Ledger, crowd: tuple[Crowd, SlowDisk]) -> None:
    callers, disk = crowd
    callers.enter("a", buys(1))
    callers.enter("b", buys(2))
    callers.enter("only looks", lambda books: ((), len(books.orders)))
    disk.fails("no space")
    callers.let_go()
    assert [type(answer) for answer in callers.answers.values()] == [JournalError] * 4
    assert ledger.books == Books()


def test_what_is_on_the_disk_is_told_once_and_what_is_not_is_not(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []
    ledger = Ledger(journal, told.extend)
    ledger.run(lambda books: ([Switched(True, NOW)], None))
    monkeypatch.setattr(journal, "append", _fails)
    with pytest.raises(JournalError):
        ledger.run(lambda books: ([Switched(False, NOW)], None))
    assert told == [Switched(True, NOW)]


def _fails(events: Sequence[Event]) -> None:
    raise JournalError("disk full")


def test_who_chokes_on_the_news_of_the_record_changes_nothing_of_it(journal: Journal) -> None:
    def chokes(events: Sequence[Event]) -> None:
        raise ArithmeticError

    ledger = Ledger(journal, chokes)
    assert ledger.run(lambda books: ([Switched(True, NOW)], "said")) == "said"
    assert ledger.books.paused
    assert list(journal.replay()) == [Switched(True, NOW)]


def test_a_step_that_fails_fails_alone(ledger: Ledger, crowd: tuple[Crowd, SlowDisk]) -> None:
    callers, disk = crowd
    callers.enter("a", buys(1))
    callers.enter("wrong", lambda books: 1 / 0)  # type: ignore[arg-type, return-value]
    callers.enter("b", buys(2))
    callers.let_go()
    assert isinstance(callers.answers["wrong"], ZeroDivisionError)
    assert (callers.answers["a"], callers.answers["b"], disk.transactions) == (0, 1, [1, 2])
    assert list(ledger.books.orders) == ["gh1", "gh2"]


def test_of_a_step_of_which_only_the_first_half_can_be_folded_nothing_is_remembered(
    ledger: Ledger, journal: Journal
) -> None:
    """The disk has nothing of it either."""
    with pytest.raises(AttributeError):
        ledger.run(lambda books: ([Switched(True, NOW), object()], None))  # type: ignore[list-item]
    assert not ledger.books.paused
    assert list(journal.replay()) == []


def test_an_event_that_cannot_be_written_spoils_nobody_elses(
    ledger: Ledger, journal: Journal, crowd: tuple[Crowd, SlowDisk]
) -> None:
    callers, _ = crowd
    record = decided(None, decision=Decision.REJECTED).record
    object.__setattr__(record, "reason", object())
    callers.enter("a", buys(1))
    callers.enter("wrong", lambda books: ([Decided(record)], None))
    callers.enter("b", buys(2))
    callers.let_go()
    assert isinstance(callers.answers["wrong"], Exception)
    assert (callers.answers["a"], callers.answers["b"]) == (0, 1)
    assert Ledger(journal).books == ledger.books
    assert list(ledger.books.orders) == ["gh1", "gh2"]


# --- saved --------------------------------------------------------------------------------------------------------

plays = st.lists(st.sampled_from(["buy", "limit", "sell", "pause", "prefer", "save", "restart"]), max_size=20)


@settings(max_examples=examples(25), deadline=None)
@given(plays)
def test_a_start_from_saved_books_knows_what_the_whole_history_says(script: list[str]) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_module, "SAVE_AFTER_EVENTS", 1)
        journal = Journal(Path(folder) / "journal.db")
        engine = RiskEngine(journal, LIMITS)
        for number, what in enumerate(script):
            if what == "restart":
                engine = RiskEngine(journal, LIMITS)
            else:
                play(engine, what, number)
        saved = RiskEngine(journal, LIMITS).books.as_of(NOW)
        journal.save(0, "")
        assert saved == engine.books.as_of(NOW) == RiskEngine(journal, LIMITS).books.as_of(NOW)


def play(engine: RiskEngine, what: str, number: int) -> None:
    if what == "save":
        engine.save_books()
    elif what == "pause":
        engine.switch(number % 2 == 0, NOW)
    elif what == "prefer":
        engine.prefer({"direction": "long", f"name {number % 3}": None if number % 2 else ""}, NOW)
    else:
        limit: dict[str, Any] = {"type": OrderType.LIMIT, "price": D(100), "quantity": D(1)}
        more = limit if what == "limit" else {}
        action = Action.SELL if what == "sell" else Action.BUY
        order = decide(engine, Signal(action, "BTCUSDT", **more), key=str(number)).order
        if order is not None and order.status is OrderStatus.SENT and what != "limit":
            engine.settle(order, done("1.00000001", "99.123456789", ("BTC", "0.0000001")), NOW)


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch, journal: Journal) -> RiskEngine:
    """An engine whose books were saved."""
    monkeypatch.setattr(ledger_module, "SAVE_AFTER_EVENTS", 1)
    engine = RiskEngine(journal, LIMITS)
    for number in range(3):
        play(engine, "buy", number)
    engine.save_books()
    return engine


def test_saved_books_spare_the_start_the_events_before_them(
    saved: RiskEngine, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(saved, "pause", 0)
    folded: list[Event] = []

    def fold(books: Books, event: Event) -> Books:
        folded.append(event)
        return saved.books

    monkeypatch.setattr(ledger_module, "fold", fold)
    assert RiskEngine(journal, LIMITS).books == saved.books
    assert folded == [Switched(True, NOW)]


def test_saved_books_of_another_version_are_not_believed(
    saved: RiskEngine, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, text = journal.saved()
    assert number == 6
    assert read_books(text) == saved.books
    monkeypatch.setattr(saved_books, "_makers", lambda: b"another version's code")
    assert read_books(text) is None
    assert RiskEngine(journal, LIMITS).books == saved.books


def test_saved_books_in_which_one_character_changed_are_not_believed(
    saved: RiskEngine, journal: Journal, tmp_path: Path
) -> None:
    number, text = journal.saved()
    wrong = text.replace("99.123456789", "98.123456789")
    assert wrong != text
    journal.save(number, wrong)
    assert RiskEngine(Journal(tmp_path / "journal.db"), LIMITS).books == saved.books


def test_few_events_are_not_worth_saving(journal: Journal) -> None:
    engine = RiskEngine(journal, LIMITS)
    play(engine, "pause", 0)
    engine.save_books()
    assert journal.saved() == (0, "")


def test_saving_keeps_one_row(saved: RiskEngine, tmp_path: Path) -> None:
    for number in range(10, 13):
        play(saved, "pause", number)
        saved.save_books()
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        assert connection.execute("SELECT COUNT(*), MAX(seq) FROM saved").fetchone() == (1, 9)


def test_empty_books_survive_the_way_to_text_and_back() -> None:
    assert read_books(write_books(Books())) == Books()
    assert read_books("") is None
