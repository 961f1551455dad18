"""The records for looking at: newest first, as wanted, page by page, soon, and also those of earlier versions."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from builders import NOW, D, S, an_order

from events import Decided, Event, OrderChanged, Switched
from history import MAX_NAMES, History, Wanted, stages
from journal import Journal, JournalError
from models import Action, Decision, DecisionRecord, Order, OrderStatus, Signal

ENOUGH = 1_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    opened = Journal(path)
    yield opened
    opened.close()


@pytest.fixture(params=["this version", "an earlier version"])
def lived(request: pytest.FixtureRequest, path: Path) -> Iterator[Journal]:
    """A journal with a little of everything; once as an earlier version left it: without the later columns."""
    journal = Journal(path)
    journal.append(EVENTS)
    if request.param == "an earlier version":
        for column in ("check_code", "broker", "status"):
            journal._writer.execute(f"ALTER TABLE events DROP COLUMN {column}")
        journal.close()
        journal = Journal(path)
    yield journal
    journal.close()


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def decided(
    number: int,
    decision: Decision,
    symbol: str = "BTCUSDT",
    strategy: str | None = "trend",
    check: str = "",
    broker: str = "BINANCE",
) -> Decided:
    signal = None if decision is Decision.INVALID else Signal(Action.BUY, symbol, strategy=strategy)
    order = an_order(signal_id=f"s{number}") if decision is Decision.ACCEPTED else None
    when = at(number)
    return Decided(DecisionRecord(f"s{number}", f"k{number}", when, when, decision, check, "", signal, broker, order))


def changed(number: int, status: OrderStatus, minutes: float, **changes: Any) -> OrderChanged:
    given = {"client_order_id": f"gh{number}", "signal_id": f"s{number}", "strategy": "trend", **changes}
    return OrderChanged(an_order(status, **given), at(minutes))


EVENTS: list[Event] = [
    decided(1, Decision.ACCEPTED),
    changed(1, S.NEW, 1),
    decided(2, Decision.REJECTED, "ETHUSDT", "swing", "balance", "PAPER"),
    Switched(True, at(2)),
    decided(3, Decision.DUPLICATE, check="duplicate"),
    changed(3, S.SENT, 3, symbol="ETHUSDT", strategy="swing", broker="PAPER"),
    decided(4, Decision.INVALID, check="side", broker=""),
    changed(1, S.FILLED, 5),
    # Somebody's words that look like ours.
    decided(6, Decision.REJECTED, strategy='"broker":"PAPER"', check="cooldown"),
    changed(6, S.CANCELED, 7, note='"status":"NEW"', strategy=""),
]


def decisions(history: History, limit: int = ENOUGH, before: int | None = None, **wanted: Any) -> list[str]:
    return [found.value.signal_id for found in history.decisions(Wanted(**wanted), limit, before)]


def orders(history: History, limit: int = ENOUGH, before: int | None = None, **wanted: Any) -> list[str]:
    found = history.orders(Wanted(**wanted), limit, before)
    return [f"{one.value.order.signal_id} {one.value.order.status}" for one in found]


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_every_decision_is_there_newest_first_also_what_was_not_understood(lived: Journal) -> None:
    assert decisions(lived.history) == ["s6", "s4", "s3", "s2", "s1"]
    newest = lived.history.decisions(Wanted(), 1)[0]
    assert isinstance(EVENTS[8], Decided)
    assert (newest.number, newest.value) == (9, EVENTS[8].record)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"symbol": "ETHUSDT"}, "s2"), ({"symbol": "ETH"}, ""),
        ({"strategy": "swing"}, "s2"), ({"strategy": '"broker":"PAPER"'}, "s6"),
        ({"decision": Decision.REJECTED}, "s6 s2"), ({"decision": Decision.INVALID}, "s4"),
        ({"check": "balance"}, "s2"), ({"check": "duplicate"}, "s3"), ({"check": "bal"}, ""), ({"check": ""}, "s1"),
        ({"broker": "PAPER"}, "s2"), ({"broker": "BINANCE"}, "s6 s3 s1"), ({"broker": ""}, "s4"),
        ({"broker": 'P"'}, ""),
        ({"since": at(4)}, "s6 s4"), ({"since": at(4.001)}, "s6"), ({"until": at(3)}, "s2 s1"),
        ({"until": at(3.001)}, "s3 s2 s1"), ({"since": at(2), "until": at(4)}, "s3 s2"),
        ({"symbol": "BTCUSDT", "decision": Decision.REJECTED}, "s6"), ({"symbol": "ETHUSDT", "check": "cooldown"}, ""),
        ({"status": S.FILLED}, "s6 s4 s3 s2 s1"),
    ],
)  # fmt: skip
def test_only_the_decisions_that_are_wanted(lived: Journal, wanted: dict[str, Any], found: str) -> None:
    assert decisions(lived.history, **wanted) == found.split()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, "s6 CANCELED, s1 FILLED, s3 SENT"),
        ({"symbol": "ETHUSDT"}, "s3 SENT"), ({"strategy": "trend"}, "s1 FILLED"), ({"strategy": ""}, "s6 CANCELED"),
        ({"broker": "PAPER"}, "s3 SENT"), ({"broker": "BINANCE"}, "s6 CANCELED, s1 FILLED"),
        ({"status": S.FILLED}, "s1 FILLED"), ({"status": S.SENT}, "s3 SENT"),
        ({"status": S.CANCELED}, "s6 CANCELED"), ({"status": S.NEW}, ""),
        ({"since": at(5)}, "s6 CANCELED, s1 FILLED"), ({"until": at(5)}, "s3 SENT"),
        ({"decision": Decision.REJECTED, "check": "balance"}, "s6 CANCELED, s1 FILLED, s3 SENT"),
    ],
)  # fmt: skip
def test_each_order_is_there_once_as_it_stands_now_and_only_where_that_is_wanted(
    lived: Journal, wanted: dict[str, Any], found: str
) -> None:
    assert ", ".join(orders(lived.history, **wanted)) == found


def test_an_order_carries_the_moment_of_its_last_change_and_its_place_in_the_journal(lived: Journal) -> None:
    first, second, _ = lived.history.orders(Wanted(), ENOUGH)
    assert [(one.number, one.value.at) for one in (first, second)] == [(10, at(7)), (8, at(5))]


def test_pages_follow_each_other_without_a_gap_or_a_repeat_while_the_journal_grows(journal: Journal) -> None:
    journal.append([decided(number, Decision.REJECTED) for number in range(1, 8)])
    read: list[str] = []
    before = None
    for _ in range(3):
        page = journal.history.decisions(Wanted(symbol="BTCUSDT"), 3, before)
        read += [one.value.signal_id for one in page]
        before = page[-1].number
        journal.append([decided(99, Decision.REJECTED)])
    assert read == ["s7", "s6", "s5", "s4", "s3", "s2", "s1"]


def test_orders_come_in_pages_too(journal: Journal) -> None:
    journal.append([changed(number, S.FILLED, number) for number in range(1, 6)])
    first = journal.history.orders(Wanted(), 2)
    assert orders(journal.history, 2, first[-1].number) == ["s3 FILLED", "s2 FILLED"]


# --- names to choose from ---------------------------------------------------------------------------------------------


def test_the_names_to_choose_from_are_those_that_came_up(lived: Journal) -> None:
    assert lived.history.symbols() == ["BTCUSDT", "ETHUSDT"]
    assert lived.history.strategies() == ['"broker":"PAPER"', "swing", "trend"]
    lived.append([decided(9, Decision.REJECTED, "SOLUSDT", None)])
    assert lived.history.symbols() == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    assert len(lived.history.strategies()) == 3


def test_of_too_many_names_the_newest_are_kept(journal: Journal) -> None:
    journal.append([decided(n, Decision.REJECTED, f"C{n:03}") for n in range(MAX_NAMES)])
    assert len(journal.history.symbols()) == MAX_NAMES
    journal.append([decided(n, Decision.REJECTED, f"C{n:03}") for n in range(MAX_NAMES, MAX_NAMES + 2)])
    assert journal.history.symbols() == [f"C{n:03}" for n in range(2, MAX_NAMES + 2)]


# --- the connection ---------------------------------------------------------------------------------------------------


def test_whoever_looks_can_write_nothing(journal: Journal) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        journal.history._connection.execute("DELETE FROM events")


def test_whoever_looks_keeps_no_alert_waiting(journal: Journal) -> None:
    """Its own lock and its own connection: a long look must not stand before the question whether an alert is new."""
    assert journal.history._connection not in (journal._reader, journal._writer)
    journal.append([decided(1, Decision.REJECTED)])
    with journal.history._lock:
        assert journal.seen("k1") is not None
        journal.append([decided(2, Decision.REJECTED)])
    assert journal.seen("k2") is not None


def test_many_threads_may_look_at_once(lived: Journal) -> None:
    found: list[object] = []

    def look() -> None:
        found.extend((decisions(lived.history), orders(lived.history), lived.history.symbols()) for _ in range(20))

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 120
    assert all(one == found[0] for one in found)


def test_a_damaged_record_is_named_and_not_shown(journal: Journal) -> None:
    journal.append([decided(1, Decision.REJECTED, check="balance")])
    journal._writer.execute("UPDATE events SET body = replace(body, 'balance', 'nothing')")
    with pytest.raises(JournalError, match="damaged"):
        decisions(journal.history)


def test_a_journal_that_cannot_be_read_is_an_error_of_the_journal(journal: Journal) -> None:
    journal.close()
    for look in (journal.history.symbols, lambda: orders(journal.history)):
        with pytest.raises(JournalError, match="cannot read the journal"):
            look()


# --- stages -----------------------------------------------------------------------------------------------------------


def a_record(fired_at: datetime | None, order: Order | None = None) -> DecisionRecord:
    signal = Signal(Action.BUY, "BTCUSDT", fired_at=fired_at)
    decision = Decision.ACCEPTED if order else Decision.REJECTED
    return DecisionRecord("s1", "k", after_ms(3.25), after_ms(0), decision, "", "", signal, "PAPER", order)


def after_ms(ms: float) -> datetime:
    return NOW + timedelta(milliseconds=ms)


def test_an_alerts_way_is_told_moment_by_moment() -> None:
    order = an_order(S.FILLED, sent_at=after_ms(4), settled_at=after_ms(104.5))
    way = stages(a_record(after_ms(-1200), order), order)
    assert (way.fired_at, way.received_at, way.decided_at) == (after_ms(-1200), NOW, after_ms(3.25))
    assert (way.sent_at, way.answered_at) == (after_ms(4), after_ms(104.5))
    assert (way.fired_to_received_ms, way.received_to_decided_ms) == (1200, 3.25)
    assert (way.decided_to_sent_ms, way.sent_to_answered_ms) == (0.75, 100.5)


def test_what_was_not_reached_has_no_moment_and_no_wait() -> None:
    refused = stages(a_record(None), None)
    assert (refused.fired_at, refused.sent_at, refused.answered_at) == (None, None, None)
    assert (refused.fired_to_received_ms, refused.decided_to_sent_ms, refused.sent_to_answered_ms) == (None, None, None)
    waits = an_order(S.INTENT, sent_at=None)
    assert stages(a_record(None, waits), waits).sent_at is None
    dropped = an_order(S.NOT_PLACED, sent_at=None, settled_at=after_ms(9))
    assert stages(a_record(None, dropped), dropped).answered_at is None, "nobody was asked"


def test_an_invalid_alert_has_two_moments() -> None:
    record = replace(a_record(None), signal=None, decision=Decision.INVALID)
    assert stages(record, None).received_to_decided_ms == 3.25


# --- speed ------------------------------------------------------------------------------------------------------------

MANY = 10_000


@pytest.fixture(scope="module")
def long_history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    """Ten thousand alerts, each with an order that rested before it was filled."""
    journal = Journal(tmp_path_factory.mktemp("long") / "journal.db")
    for start in range(0, MANY, ENOUGH):
        events: list[Event] = []
        for n in range(start, start + ENOUGH):
            coin = f"C{n % 20}USDT"
            events += [decided(n, Decision.ACCEPTED, coin), changed(n, S.NEW, n, symbol=coin)]
            events += [changed(n, S.FILLED, n, symbol=coin, executed_quantity=D(1), executed_quote=D(43000))]
        journal.append(events)
    yield journal
    journal.close()


NOTHING: dict[str, Any] = {"symbol": "X", "strategy": "X", "broker": "X", "until": at(-1), "since": at(MANY)}
LOOKS: dict[str, Callable[[History], object]] = {
    "names": History.symbols,
    "decisions": lambda history: decisions(history, 100),
    "orders": lambda history: orders(history, 100),
    "far back": lambda history: orders(history, 100, before=500),
    "decisions of no check": lambda history: decisions(history, 100, check="x"),
    "decisions that were refused": lambda history: decisions(history, 100, decision=Decision.REJECTED),
    "orders that rest no more": lambda history: orders(history, 100, status=S.NEW),
}
for name, value in NOTHING.items():
    LOOKS[f"decisions of no {name}"] = partial(decisions, limit=100, **{name: value})
    LOOKS[f"orders of no {name}"] = partial(orders, limit=100, **{name: value})


@pytest.mark.parametrize("look", LOOKS)
def test_ten_thousand_records_are_looked_through_in_a_moment(long_history: Journal, look: str) -> None:
    """Measured at 5 to 35 ms. The best of three."""
    best = min(_seconds(lambda: LOOKS[look](long_history.history)) for _ in range(3))
    assert best <= 0.05, f"{best * 1000:.1f} ms"


def _seconds(act: Callable[[], object]) -> float:
    """Of this thread's own work: others compute beside it."""
    started = time.thread_time()
    act()
    return time.thread_time() - started
