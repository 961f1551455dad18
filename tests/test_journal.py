"""The durable record: all or nothing, numbered without gaps, read back as it was, and loud when it is damaged."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import journal as journal_module
from events import Change, Decided, Event, OrderChanged, Preferred, Switched
from journal import SIGNALS, TRADES, Journal, JournalError
from models import (
    Action,
    Decision,
    DecisionRecord,
    Market,
    Order,
    OrderStatus,
    OrderType,
    Side,
    Signal,
    SymbolRules,
)

D = Decimal
S = OrderStatus
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULES = SymbolRules("BTCUSDT", "BTC", "USDT", D("0.001"), D("0.001"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    opened = Journal(path)
    yield opened
    opened.close()


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def an_order(number: int = 1, status: OrderStatus = S.FILLED, **changes: Any) -> Order:
    order = Order(
        f"gh{number}", f"s{number}", "PAPER", Market.SPOT, "BTCUSDT", Side.BUY, OrderType.MARKET, True, RULES, NOW, NOW,
        amount=D(10), status=status, strategy="trend",
    )  # fmt: skip
    return replace(order, **changes)


def decided(number: int = 1, decision: Decision = Decision.ACCEPTED, key: str = "key", at: datetime = NOW) -> Decided:
    order = an_order(number, S.SENT) if decision is Decision.ACCEPTED else None
    signal = None if decision is Decision.INVALID else Signal(Action.BUY, "BTCUSDT", strategy="trend")
    return Decided(DecisionRecord(f"s{number}", key, at, at, decision, "", "why", signal, "PAPER", order))


def changed(number: int = 1, status: OrderStatus = S.FILLED, at: datetime = NOW, **changes: Any) -> OrderChanged:
    return OrderChanged(an_order(number, status, **changes), at)


def rows(journal: Journal, file: str) -> list[int]:
    return [number for number, _ in journal.rows_after(file, 0)]


def stored(path: Path) -> tuple[int, int]:
    """How many events and CSV rows another connection sees."""
    with sqlite3.connect(path) as connection:
        (events,) = connection.execute("SELECT COUNT(*) FROM events").fetchone()
        (lines,) = connection.execute("SELECT COUNT(*) FROM csv_rows").fetchone()
        return events, lines


# --- writing ------------------------------------------------------------------------------------------------------


def test_a_commit_is_on_the_disk_and_the_file_is_the_owners_alone(journal: Journal, path: Path) -> None:
    for connection in (journal._writer, journal._reader):
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert journal._writer.execute("PRAGMA synchronous").fetchone() == (2,), "2 is FULL"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_what_was_appended_is_seen_by_others_at_once_and_replayed_in_order(journal: Journal, path: Path) -> None:
    events: list[Event] = [decided(1), changed(1), Switched(True, NOW), decided(2, key="other"), Switched(False, NOW)]
    events.append(Preferred((Change("max_open_trades", "5"), Change("direction"), Change("leverage", "")), NOW))
    journal.append(events[:2])
    assert stored(path) == (2, 2)
    journal.append(events[2:])
    assert list(journal.replay()) == events
    again = Journal(path)
    assert list(again.replay()) == events
    again.close()


def test_refusals_repeats_and_nonsense_are_kept_but_not_replayed(journal: Journal, path: Path) -> None:
    journal.append([decided(number, decision) for number, decision in enumerate(Decision)])
    assert [event.record.decision for event in journal.replay() if isinstance(event, Decided)] == ["ACCEPTED"]
    assert stored(path) == (4, 4)
    assert rows(journal, SIGNALS) == [1, 2, 3, 4]


def test_rows_are_numbered_per_file_without_gaps_over_restarts(journal: Journal, path: Path) -> None:
    for number in range(3):
        journal.append([decided(number, key=str(number)), changed(number)])
    journal.close()
    reopened = Journal(path)
    reopened.append([changed(9), changed(9, S.CANCELED)])
    assert rows(reopened, SIGNALS) == [1, 2, 3]
    assert rows(reopened, TRADES) == [1, 2, 3, 4, 5]
    assert (reopened.last_number(SIGNALS), reopened.last_number(TRADES)) == (3, 5)
    assert [number for number, _ in reopened.rows_after(TRADES, 3)] == [4, 5]
    reopened.close()


@pytest.mark.parametrize("status", S)
def test_only_news_of_an_order_become_a_row(journal: Journal, status: OrderStatus) -> None:
    journal.append([changed(1, status)])
    assert len(rows(journal, TRADES)) == (0 if status in (S.INTENT, S.SENT) else 1)


def test_of_a_bad_event_and_its_good_neighbours_nothing_is_kept(journal: Journal, path: Path) -> None:
    """The third cannot be turned into a row: no part of its transaction may stay, and no number may be used up."""
    journal.append([decided(1)])
    hopeless = replace(decided(3), record=replace(decided(3).record, reason=5))  # type: ignore[arg-type]
    with pytest.raises((TypeError, AttributeError)):
        journal.append([decided(2, key="2"), changed(2), hopeless])
    assert stored(path) == (1, 1)
    assert (journal.last_number(SIGNALS), journal.last_number(TRADES)) == (1, 0)
    journal.append([decided(2, key="2"), changed(2)])
    assert (rows(journal, SIGNALS), rows(journal, TRADES)) == ([1, 2], [1])


def fail_the_next_commits(journal: Journal) -> None:
    """A constraint that is judged at COMMIT, and fails there."""
    journal._writer.executescript(
        "PRAGMA foreign_keys = ON;"
        "CREATE TABLE parent (id INTEGER PRIMARY KEY);"
        "CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED);"
        "CREATE TRIGGER orphan AFTER INSERT ON events BEGIN INSERT INTO child VALUES (1); END;"
        "CREATE TRIGGER orphan_too AFTER INSERT ON probes BEGIN INSERT INTO child VALUES (1); END;"
    )


def test_a_commit_that_fails_leaves_nothing_and_the_next_one_works(journal: Journal, path: Path) -> None:
    journal.append([decided(1)])
    fail_the_next_commits(journal)
    with pytest.raises(JournalError, match=r"cannot write the journal: FOREIGN KEY .*; check the disk of LOG_DIR"):
        journal.append([decided(2, key="2"), changed(2)])
    with pytest.raises(JournalError, match="cannot write the journal"):
        journal.probe()
    assert stored(path) == (1, 1)
    assert (journal.last_number(SIGNALS), journal.last_number(TRADES)) == (1, 0)
    assert journal.seen("2") is None
    journal._writer.executescript("DROP TRIGGER orphan; DROP TRIGGER orphan_too;")
    journal.probe()
    journal.append([decided(2, key="2"), changed(2)])
    assert (rows(journal, SIGNALS), rows(journal, TRADES)) == ([1, 2], [1])
    assert stored(path) == (3, 3)


def test_a_full_disk_is_an_error_that_goes_away_with_its_cause(journal: Journal, path: Path) -> None:
    journal.append([decided(1)])
    (pages,) = journal._writer.execute("PRAGMA page_count").fetchone()
    journal._writer.execute(f"PRAGMA max_page_count = {pages}")
    refused = None
    kept = 1
    for number in range(2, 300):
        try:
            journal.append([decided(number, key=str(number))])
            kept += 1
        except JournalError as exc:
            refused = exc
            break
    assert "full" in str(refused)
    assert stored(path) == (kept, kept)
    journal._writer.execute("PRAGMA max_page_count = 1000000")
    journal.append([decided(999, key="999")])
    assert rows(journal, SIGNALS) == list(range(1, kept + 2))


def test_the_log_is_as_long_as_it_will_be_before_the_first_commit(path: Path) -> None:
    journal = Journal(path)
    journal.make_room()
    log = path.with_name("journal.db-wal")
    before = log.stat().st_size
    for number in range(40):
        journal.append([decided(number, key=str(number))])
    assert log.stat().st_size == before > 1_000_000


def test_another_writer_is_waited_for_and_then_told_of(journal: Journal, path: Path) -> None:
    journal._writer.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match="locked"):
        journal.append([decided(1)])
    other.execute("ROLLBACK")
    other.close()
    journal.append([decided(1)])
    assert rows(journal, SIGNALS) == [1]


def test_a_probe_writes_nothing_that_counts(journal: Journal, path: Path) -> None:
    journal.probe()
    assert stored(path) == (0, 0)
    assert journal._writer.execute("SELECT COUNT(*) FROM probes").fetchone() == (0,)


# --- looking ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decision", [Decision.ACCEPTED, Decision.REJECTED])
def test_a_decision_is_remembered_by_its_alert(journal: Journal, decision: Decision) -> None:
    journal.append([decided(1, decision)])
    assert journal.seen("key") == decided(1, decision).record
    assert journal.seen("another") is None


def test_repeats_and_nonsense_do_not_hide_or_replace_the_decision(journal: Journal) -> None:
    assert journal.seen("key") is None
    journal.append([decided(1, Decision.INVALID), decided(2, Decision.DUPLICATE)])
    assert journal.seen("key") is None
    journal.append([decided(3), decided(4, Decision.DUPLICATE, at=after(1)), decided(5, Decision.INVALID, at=after(2))])
    seen = journal.seen("key")
    assert seen is not None
    assert seen.signal_id == "s3"
    journal.append([decided(6, Decision.REJECTED, at=after(90))])
    newest = journal.seen("key")
    assert newest is not None
    assert newest.signal_id == "s6"


def test_the_last_state_of_a_signals_order_is_the_one_that_counts(journal: Journal) -> None:
    assert journal.last_order("s1") is None
    journal.append([decided(1), decided(2, Decision.REJECTED)])
    assert journal.last_order("s1") == an_order(1, S.SENT)
    journal.append([changed(1, S.UNKNOWN)])
    journal.append([changed(1, S.NOT_PLACED), changed(1, S.INTENT, client_order_id="gh1b", attempt=2)])
    last = journal.last_order("s1")
    assert last is not None
    assert (last.client_order_id, last.status) == ("gh1b", S.INTENT)
    assert journal.last_order("s2") is None


def test_executions_come_newest_first_each_order_once_and_as_chosen(journal: Journal) -> None:
    journal.append([decided(1), changed(1, S.NEW, after(1))])
    journal.append([changed(2, S.FILLED, after(2), symbol="ETHUSDT", strategy="swing")])
    journal.append([changed(3, S.REJECTED, after(3))])
    journal.append([changed(1, S.FILLED, after(4))])

    def found(limit: int = 100, **chosen: Any) -> list[tuple[str, str]]:
        return [(e.order.signal_id, e.order.status.value) for e in journal.executions(limit, **chosen)]

    assert found() == [("s1", "FILLED"), ("s3", "REJECTED"), ("s2", "FILLED")]
    assert journal.executions(1)[0].at == after(4)
    assert found(limit=2) == [("s1", "FILLED"), ("s3", "REJECTED")]
    assert found(symbol="ETHUSDT") == [("s2", "FILLED")]
    assert found(strategy="trend") == [("s1", "FILLED"), ("s3", "REJECTED")]
    assert found(strategy="trend", limit=1) == [("s1", "FILLED")]
    assert found(symbol="ETHUSDT", strategy="trend") == []
    assert found(since=after(3)) == [("s1", "FILLED"), ("s3", "REJECTED")]
    assert found(since=after(3.000001)) == [("s1", "FILLED")]
    assert found(since=after(5)) == []


def test_a_day_is_what_it_changed_and_no_second_more(journal: Journal) -> None:
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    events: list[Event] = [
        decided(1),
        OrderChanged(an_order(1, S.PARTIALLY_FILLED, executed_quantity=D(1)), midnight - timedelta(seconds=1)),
        OrderChanged(an_order(1, S.PARTIALLY_FILLED, executed_quantity=D(2)), midnight),
        OrderChanged(an_order(1, executed_quantity=D(3)), midnight + timedelta(hours=24, microseconds=-1)),
        OrderChanged(an_order(2), midnight + timedelta(hours=24)),
    ]  # fmt: skip
    for event in events:
        journal.append([event])
    day = journal.day(midnight.date())
    assert (day.date, day.decisions) == (midnight.date(), {})
    ((before, after),) = day.orders
    assert (before and before.executed_quantity, after.executed_quantity) == (D(1), D(3))
    assert journal.day(NOW.date()).decisions == {"ACCEPTED": 1}
    assert [order.client_order_id for _, order in journal.day(midnight.date() + timedelta(days=1)).orders] == ["gh2"]
    assert journal.day(midnight.date() + timedelta(days=2)).orders == journal.day(date(2020, 1, 1)).orders == []


def test_times_with_and_without_fractions_are_compared_as_times(journal: Journal) -> None:
    journal.append([changed(1, at=NOW), changed(2, at=NOW + timedelta(microseconds=1))])
    assert len(journal.executions(9, since=NOW)) == 2
    assert len(journal.executions(9, since=NOW + timedelta(microseconds=1))) == 1


def test_an_alert_is_known_again_from_memory_and_where_there_are_too_many_from_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "MAX_KEYS", 4)
    journal = Journal(path)
    for number in range(8):
        again = Journal(path)
        for one in (journal, again):
            assert [one.seen(str(known)) is not None for known in range(8)] == [known < number for known in range(8)]
            assert (one._keys is None) is (number > 4)
        again.close()
        journal.append([decided(number, key=str(number))])


def test_rows_come_in_batches(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "BATCH", 2)
    journal.append([changed(number) for number in range(5)])
    first = journal.rows_after(TRADES, 0)
    assert [number for number, _ in first] == [1, 2]
    assert [number for number, _ in journal.rows_after(TRADES, 4)] == [5]
    assert journal.rows_after(TRADES, 5) == []


def test_rows_that_are_still_in_memory_are_those_on_the_disk(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "FRESH", 3)
    for number in range(10):
        journal.append([changed(number), changed(number + 100)])
    on_disk = Journal(path).rows_after(TRADES, 0)
    assert len(on_disk) == 20
    for number in range(21):
        assert journal.rows_after(TRADES, number) == on_disk[number:]
        assert journal.rows_after(SIGNALS, number) == []


# --- damage -------------------------------------------------------------------------------------------------------


def test_text_in_place_of_a_journal_is_refused_by_name(path: Path) -> None:
    path.write_text("this was once a journal")
    with pytest.raises(JournalError, match=r"cannot open the journal journal\.db: file is not a database"):
        Journal(path)
    assert path.read_text() == "this was once a journal"


def test_a_journal_that_could_only_be_read_is_made_writable_before_it_is_opened(path: Path) -> None:
    """As a backup may be that was put in its place. (Root may write to it anyway.)"""
    Journal(path).close()
    path.chmod(0o400)
    journal = Journal(path)
    journal.append([decided()])
    journal.close()


def test_a_journal_of_another_user_is_refused_by_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a backup is that root put in its place."""
    Journal(path).close()

    def not_ours(self: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", not_ours)
    with pytest.raises(JournalError, match=r"journal.db: Operation not permitted; it must belong to the user"):
        Journal(path)


def test_a_folder_in_place_of_a_journal_is_refused_by_name(path: Path) -> None:
    path.mkdir()
    with pytest.raises(JournalError, match=r"cannot open the journal journal\.db"):
        Journal(path)


def test_a_journal_with_broken_pages_is_refused(path: Path) -> None:
    filled = Journal(path)
    filled.append([decided(number, key=str(number)) for number in range(300)])
    filled._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    filled.close()
    good = path.read_bytes()
    noticed = 0
    for position in range(4_096, len(good), 4_096 * 3):
        path.write_bytes(good[:position] + b"\xa5" * 4_096 + good[position + 4_096 :])
        try:
            damaged = Journal(path)
        except JournalError as exc:
            assert "journal.db" in str(exc)  # noqa: PT017
            noticed += 1
        else:
            damaged.close()
    assert noticed == len(range(4_096, len(good), 4_096 * 3))


def test_a_record_that_cannot_be_read_stops_the_replay(journal: Journal) -> None:
    journal.append([decided(1), changed(1)])
    journal._writer.execute("UPDATE events SET body = replace(body, 'FILLED', 'EATEN') WHERE kind = 'order'")
    with pytest.raises(JournalError, match=r"the journal journal\.db cannot be read"):
        list(journal.replay())
    journal._writer.execute("UPDATE events SET body = '{}'")
    with pytest.raises(JournalError, match="cannot be read"):
        list(journal.replay())


def test_a_single_changed_digit_is_noticed_by_whoever_reads_it(journal: Journal) -> None:
    """SQLite's own check looks at pages; a 6 in place of a 1 makes sense to it, and would be sold one day."""
    journal.append([decided(1), changed(1, executed_quantity=D("0.1"))])
    (whole,) = journal._read("SELECT body FROM events WHERE kind = 'order'", ())[0]
    assert '"0.1"' in whole
    for damaged in (whole.replace('"0.1"', '"0.6"'), whole[:-1] + "~", whole[:-3]):
        journal._writer.execute("UPDATE events SET body = ? WHERE kind = 'order'", (damaged,))
        for read in (lambda: list(journal.replay()), lambda: journal.last_order("s1"), lambda: journal.executions(1)):
            with pytest.raises(JournalError, match="damaged"):
                read()


def test_a_key_that_changed_anywhere_is_noticed_before_its_alert_could_trade_again(path: Path) -> None:
    """In the index alone, where the pages still make sense, it would make a repeat a new alert."""
    filled, key = Journal(path), "d557e4038463a2d13f2ae7b8db355e69"
    filled.append([decided(1, key=key)])
    filled._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    filled.close()
    whole, changed_places = path.read_bytes(), 0
    while (place := whole.find(key.encode(), changed_places)) >= 0:
        path.write_bytes(whole[: place + 5] + b"f" + whole[place + 6 :])
        with pytest.raises(JournalError, match=r"damaged|cannot be read"):
            list(Journal(path).replay())
        changed_places = place + 1
    assert whole.count(key.encode()) == 3, "column, index and record"


def test_records_without_a_seal_are_read_as_before(journal: Journal) -> None:
    events: list[Event] = [decided(1), changed(1)]
    journal.append(events)
    journal._writer.execute("UPDATE events SET body = substr(body, 1, length(body) - 9)")
    assert list(journal.replay()) == events


def test_a_journal_that_is_not_in_wal_mode_is_not_used() -> None:
    """SQLite answers a refused switch with the mode that stays in force, and with no error."""
    with pytest.raises(JournalError, match="WAL mode refused, got memory"):
        Journal(Path(":memory:"))


def test_a_journal_that_another_program_holds_is_not_used(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (x)")
        other.commit()
        other.execute("BEGIN")
        other.execute("SELECT * FROM t").fetchall()
        with pytest.raises(JournalError, match=r"cannot open the journal journal\.db"):
            _open_impatiently(path)


def _open_impatiently(path: Path) -> Journal:
    original = journal_module._connect
    journal_module._connect = lambda path: sqlite3.connect(path, isolation_level=None, timeout=0.05)
    try:
        return Journal(path)
    finally:
        journal_module._connect = original


def test_a_journal_that_was_moved_away_takes_nothing_more_until_it_is_back(journal: Journal, path: Path) -> None:
    """What is written to it then would be gone with the process."""
    journal.append([decided(1)])
    away = path.with_name("away.db")
    path.rename(away)
    with pytest.raises(JournalError, match=r"journal\.db was moved or deleted; stop, put it back"):
        journal.append([decided(2, key="other")])
    path.write_bytes(b"")
    with pytest.raises(JournalError, match="was moved or deleted"):
        journal.probe()
    away.replace(path)
    journal.probe()
    journal.append([decided(2, key="other")])
    assert journal.last_event == 2
