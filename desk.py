"""The desk: where alerts become decisions and leave as orders, on worker threads.

One alert alone goes all its way on one thread: decided, on the record, handed over, settled. Alerts that come while
others are being decided wait and are decided together next: one lock, one transaction, and a thread each to leave on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from broker import Broker, Done, Outcome, Refused, Unknown
from csv_logger import CsvFile
from models import Account, DecisionRecord, Execution, Order, OrderStatus, SymbolRules
from risk import Alert, Request, RiskEngine
from sizing import View

log = logging.getLogger("gatehouse.desk")

Clock = Callable[[], datetime]


class Claim:
    """First come, only served: of two that want the same thing, exactly one gets it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def take(self) -> bool:
        return self._lock.acquire(blocking=False)


@dataclass(slots=True, eq=False)
class Case:
    """One alert at the desk. Written by its worker, read by the event loop, which is told through `done`.

    `decide`, `send` and `tell` are taken by who decides, who hands the order over, and who says what became of it: the
    worker, or the one who stops waiting for him.
    """

    alert: Alert
    view: View
    decide: Claim
    done: asyncio.Future[None]
    send: Claim = field(default_factory=Claim)
    tell: Claim = field(default_factory=Claim)
    record: DecisionRecord | None = None  # on the record from here on
    error: Exception | None = None  # then nothing was decided and nothing left
    outcome: Outcome | None = None
    settled: Order | None = None  # the outcome is on the record, too

    @property
    def order(self) -> Order | None:
        """The order that may leave at once: of a reversal, its first half."""
        order = (self.record.exit_first or self.record.order) if self.record else None
        return order if order is not None and order.status is OrderStatus.SENT else None


class Desk:
    """`bring` is called on the event loop; everything else here runs on the workers and blocks as it likes."""

    def __init__(
        self,
        engine: RiskEngine,
        brokers: Mapping[Account, Broker],
        signals_csv: CsvFile,
        trades_csv: CsvFile,
        clock: Clock,
        threads: ThreadPoolExecutor,
        answered: Callable[[Account, float], None] = lambda account, seconds: None,
    ) -> None:
        """`answered` is told how long each order was on its way, in seconds."""
        self._engine = engine
        self._brokers = brokers
        self._signals_csv = signals_csv
        self._trades_csv = trades_csv
        self._clock = clock
        self._threads = threads
        self._answered = answered
        self._lock = threading.Lock()
        self._waiting: list[Case] = []
        self._deciding = False

    def bring(self, case: Case) -> None:
        """Its `done` is set when it is decided, and where an order left at once, when that has an outcome."""
        with self._lock:
            self._waiting.append(case)
            if self._deciding:
                return
            self._deciding = True
        self._threads.submit(self._serve)

    def hand_over(self, order: Order, claim: Claim) -> Outcome:
        """At most once per claim."""
        if not claim.take():
            return Refused("given up before it was sent", never_left=True)
        left_at = time.perf_counter()
        try:
            return self._brokers[order.account].place(order)
        except Exception as exc:
            # A broker that fails in a way nobody foresaw may have sent the order all the same.
            log.exception("placing %s failed", order.client_order_id)
            return Unknown(f"{type(exc).__name__} while placing")
        finally:
            self._answered(order.account, time.perf_counter() - left_at)

    def protect(self, orders: Sequence[Order]) -> Sequence[Outcome]:
        """An outcome for each, whatever happens."""
        try:
            return self._brokers[orders[0].account].protect(orders)
        except Exception as exc:
            log.exception("protecting %s failed", orders[0].instrument)
            return [Unknown(f"{type(exc).__name__} while placing") for _ in orders]

    def settle(self, order: Order, execution: Execution, never_left: bool = False) -> Order:
        """Raises ValueError and JournalError, as the engine does."""
        settled = self._engine.settle(order, execution, self._clock(), never_left)
        self._trades_csv.follow()
        if settled.status is not order.status:
            log.info("order %s is %s %s", settled.client_order_id, settled.status, settled.note)
        return settled

    def release(self, order: Order, view: View) -> Order:
        """Raises JournalError."""
        released = self._engine.release(order, view, self._clock())
        self._trades_csv.follow()
        return released

    def try_again(self, order: Order, rules: SymbolRules, there: Decimal | None) -> Order | None:
        """Raises JournalError."""
        again = self._engine.try_again(order, rules, there, self._clock())
        self._trades_csv.follow()
        return again

    def write_signals(self) -> None:
        self._signals_csv.follow()

    # --- deciding -------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        with self._lock:
            cases, self._waiting = self._waiting, []
        try:
            self._decide(cases)
        finally:
            self._let_the_next_in()
        if len(cases) == 1:
            self._finish(cases[0])
            return
        for case in cases:
            if case.order is not None:
                self._threads.submit(self._finish, case)
        rest = [case for case in cases if case.order is None]
        if rest:
            self.write_signals()
            _tell(rest)

    def _decide(self, cases: Sequence[Case]) -> None:
        requests = [Request(case.alert, case.view, case.decide.take) for case in cases]
        try:
            answers = self._engine.decide(requests, self._clock)
        except Exception as exc:
            answers = [exc] * len(cases)
        for case, answer in zip(cases, answers, strict=True):
            if isinstance(answer, Exception):
                case.error = answer
            else:
                case.record = answer

    def _let_the_next_in(self) -> None:
        with self._lock:
            self._deciding = bool(self._waiting)
            if not self._deciding:
                return
        self._threads.submit(self._serve)

    # --- leaving --------------------------------------------------------------------------------------------------

    def _finish(self, case: Case) -> None:
        outcome = self.hand_over(case.order, case.send) if case.order else None
        # For people: the order did not wait for this row, the reply does.
        self.write_signals()
        if case.order and outcome:
            if not case.tell.take():
                return
            case.outcome, case.settled = outcome, self._settled(case.order, outcome)
        _tell([case])

    def _settled(self, order: Order, outcome: Outcome) -> Order | None:
        """None when it takes more than one try, to send it or to write it down: that is for who waits for it."""
        if isinstance(outcome, Refused) and outcome.never_left:
            return None
        try:
            return self.settle(order, execution_of(outcome))
        except Exception:
            return None


def _tell(cases: Sequence[Case]) -> None:
    cases[0].done.get_loop().call_soon_threadsafe(_set_done, cases)


def _set_done(cases: Sequence[Case]) -> None:
    for case in cases:
        if not case.done.done():
            case.done.set_result(None)


def execution_of(outcome: Outcome) -> Execution:
    """What an outcome says of its order."""
    if isinstance(outcome, Done):
        return outcome.execution
    if isinstance(outcome, Unknown):
        return Execution(OrderStatus.UNKNOWN, note=outcome.reason)
    status = OrderStatus.NOT_PLACED if outcome.never_left else OrderStatus.REJECTED
    return Execution(status, note=outcome.reason)
