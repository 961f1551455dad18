"""The desk: an order is handed over once, by a worker whom somebody still waits for, and settled by one of the two."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from builders import LIMITS, D
from harness import eventually

from broker import Found, NotFound, Refused
from csv_logger import CsvFile
from csv_rows import SIGNALS_COLUMNS, TRADES_COLUMNS
from desk import Case, Claim, Desk
from journal import SIGNALS, TRADES, Journal
from models import Action, Order, OrderStatus, Signal
from paper_client import PaperClient
from risk import Alert, RiskEngine
from sizing import View


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Office:
    """A desk with one paper account behind it."""

    desk: Desk
    engine: RiskEngine
    paper: PaperClient
    loop: asyncio.AbstractEventLoop
    number: int = 0

    def case(self) -> Case:
        self.number += 1
        alert = Alert(Signal(Action.BUY, "BTCUSDT", price=D(100)), f"key {self.number}", self.paper.account, now())
        view = View(self.paper.symbol_rules("BTCUSDT"), D(100), D(10_000), D(0), now(), price_is_needed=True)
        return Case(alert, view, Claim(), self.loop.create_future())

    def done(self, case: Case) -> None:
        self.desk.bring(case)
        self.loop.run_until_complete(asyncio.wait_for(case.done, 5))

    def order(self, case: Case) -> Order:
        eventually(lambda: case.order is not None, 5, lambda: "nothing was decided")
        assert case.order is not None
        return case.order


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    journal = Journal(tmp_path / "journal.db")

    def csv(file: str, columns: tuple[str, ...]) -> CsvFile:
        path = tmp_path / f"{file}.csv"
        return CsvFile(path, columns, lambda n: journal.rows_after(file, n), now, lambda: journal.last_number(file))

    paper, engine, loop = PaperClient(D(1000)), RiskEngine(journal, LIMITS), asyncio.new_event_loop()
    paper.saw_price("BTCUSDT", D(100))
    with ThreadPoolExecutor(4) as threads:
        files = csv(SIGNALS, SIGNALS_COLUMNS), csv(TRADES, TRADES_COLUMNS)
        yield Office(Desk(engine, {paper.account: paper}, *files, now, threads), engine, paper, loop)
    loop.close()


def test_an_alert_is_decided_placed_and_settled_before_anybody_hears_of_it(office: Office) -> None:
    case = office.case()
    office.done(case)
    assert case.settled is not None
    assert case.settled.status is OrderStatus.FILLED
    assert isinstance(office.paper.look_up(case.settled), Found)


def test_who_was_given_up_before_it_was_sent_is_not_sent(office: Office) -> None:
    case = office.case()
    assert case.send.take()
    office.done(case)
    assert isinstance(case.outcome, Refused)
    assert case.outcome.never_left
    assert isinstance(office.paper.look_up(office.order(case)), NotFound)


def test_what_a_worker_says_after_he_was_given_up_settles_nothing(office: Office) -> None:
    case = office.case()
    assert case.tell.take()
    office.desk.bring(case)
    order = office.order(case)
    eventually(lambda: isinstance(office.paper.look_up(order), Found), 5, lambda: "it was not sent")
    time.sleep(0.2)
    assert (case.outcome, case.settled, case.done.done()) == (None, None, False)
    assert office.engine.books.orders[order.client_order_id].status is OrderStatus.SENT


def test_alerts_that_nobody_waits_for_any_more_are_not_decided(office: Office) -> None:
    case = office.case()
    assert case.decide.take()
    office.done(case)
    assert (case.record, case.error, office.engine.books.orders) == (None, None, {})


def test_what_cannot_be_decided_is_an_error_of_that_alert_alone(office: Office) -> None:
    wrong, right = office.case(), office.case()
    object.__setattr__(wrong.alert, "signal", None)
    for case in (wrong, right):
        office.done(case)
    assert isinstance(wrong.error, Exception)
    assert right.settled is not None
