"""One alert's way through the chain, the life of its order, and recovery at start.

Runs on the event loop; everything that blocks (disk, exchange) runs on worker threads. The sender's patience and the
order's life are two things: a reply may say "pending" while the order is seen through to its end.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

import protection
from broker import Broker, BrokerError, Found, LookUp, NoAnswer, NotFound, Outcome, Refused, Unknown
from csv_logger import CsvFile
from desk import Case, Claim, Desk, execution_of
from guardian import Guardian, Pauses
from intents import EXIT_IS_WANTED_FOR, new_id
from journal import JournalError
from market_data import MarketData
from models import (
    RESTING,
    Account,
    Action,
    DecisionRecord,
    Execution,
    Instrument,
    Market,
    Order,
    OrderStatus,
    OrderType,
    Signal,
)
from paper_client import PaperClient
from plan import may_enter
from protection import Guard
from reconcile import Reconciler
from risk import Alert, Preview, RiskEngine
from sizing import View

log = logging.getLogger("gatehouse.trader")

T = TypeVar("T")
Clock = Callable[[], datetime]

THREADS = 64


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited for what, in seconds."""

    view: float = 0.8  # for facts that a decision lacks; leaves time to decide and place within the reply's budget
    facts: float = 3.0  # at start, for the first balances and rules; without them the first alert asks itself
    resend: float = 1.2  # an order that certainly never left may be sent again for so long
    row: float = 0.3  # for the order's reply before the decision's CSV row is written beside it
    order: float = 12.0  # total, for one order's reply; Binance itself answers within 10
    ask: float = 12.0  # total, for one look-up
    first_look: float = 0.2  # before the first look-up of an unknown order, and growing from there
    longest_look: float = 2.0
    follow: float = 2.0  # between two look-ups of a resting order
    turn: float = 0.05  # between two looks whether a waiting exit may go
    disk: float = 1.0  # before an outcome that could not be written is written again
    still: float = 0.8  # for orders under way on futures, as what a decision means depends on what is held
    slack: float = 5.0  # a recovered order may have left so much later than its record says
    forgotten: float = 60.0  # a resting order that the exchange does not know any more has ended there
    compare: float = 60.0  # between two comparisons of the books with the accounts
    late: tuple[float, ...] = (30.0, 60.0, 300.0, 900.0)  # after "not placed", still look whether it turns up
    second_look: float = 2.0  # before what the accounts lack is believed
    guard_give_up: float = 10.0  # so long a position may lack the protection it asked for, then it is closed
    guard_again: float = 30.0  # when that failed, too


NOT_FOUND_IN_A_ROW = 3
FORGOTTEN_AFTER = 10  # "no such order" in a row, of an order that the exchange had taken


@dataclass(slots=True)
class Ticket:
    """What the sender waits for. `told` is done when there is an outcome worth a reply."""

    claim: Claim = field(default_factory=Claim)  # taken by who decides, or by who tells the sender that nobody did
    told: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    case: Case | None = None
    order: Order | None = None
    problem: str = ""
    left: bool = False  # the sender was told "pending" and will not send again
    closed: Order | None = None  # the first half of a reversal

    @property
    def record(self) -> DecisionRecord | None:
        return self.case.record if self.case else None

    def tell(self, order: Order | None) -> None:
        if order is not None and order.leg == "exit":
            self.closed = order
            return
        self.order = order
        if not self.told.done():
            self.told.set_result(None)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sender is told. Without a record nothing was decided, and `problem` says why."""

    record: DecisionRecord | None
    order: Order | None
    problem: str = ""
    pending: bool = False
    closed: Order | None = None  # the first half of a reversal


class Trader:
    """Wires engine, brokers and records into the chain. All public coroutines run on one event loop."""

    def __init__(
        self,
        engine: RiskEngine,
        brokers: Mapping[Account, Broker],
        signals_csv: CsvFile,
        trades_csv: CsvFile,
        clock: Clock,
        patience: Patience | None = None,
    ) -> None:
        self.engine = engine
        self.brokers = brokers
        self.patience = patience or Patience()
        self.ready = asyncio.Event()
        self.stopping = False
        self.journal_problem = ""
        self.latencies_ms: deque[float] = deque(maxlen=100)
        self._signals_csv = signals_csv
        self._trades_csv = trades_csv
        self._clock = clock
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gatehouse")
        self._desk = Desk(engine, brokers, signals_csv, trades_csv, clock, self._threads)
        self.market = MarketData(brokers, self._ask, clock, lambda: Decimal(engine.limits.leverage))
        self.notices: deque[tuple[datetime, str]] = deque(maxlen=100)
        pauses = Pauses(give_up=self.patience.guard_give_up, again=self.patience.guard_again)
        hands = _Hands(self)
        self._reconciler = Reconciler(engine, brokers, hands, clock, self.patience.second_look)
        self._guardian = Guardian(hands, lambda work: self._spawn(work, self._tasks), pauses)
        self._tasks: set[asyncio.Task[None]] = set()
        self._lives: set[asyncio.Task[None]] = set()

    # --- alerts ---------------------------------------------------------------------------------------------------

    async def handle(self, alert: Alert, budget_seconds: float) -> Answer:
        """The chain, for one alert. Answers within the budget; what is under way by then goes on alone."""
        if self.stopping:
            return Answer(None, None, problem="stopping; send it again")
        ticket = Ticket()
        self._spawn(self._life(alert, ticket), self._lives)
        if await _is_done(ticket.told, budget_seconds):
            return Answer(ticket.record, ticket.order, problem=ticket.problem, closed=ticket.closed)
        # Taking the claim keeps the decision from being made once the sender was told that it was not.
        if ticket.record is None and ticket.claim.take():
            return Answer(None, None, problem=ticket.problem or "no time to decide; send it again")
        ticket.left = True
        record = ticket.record
        order = ticket.order or (record.order if record else None)
        return Answer(record, order, pending=True, closed=ticket.closed)

    async def dry_run(self, alert: Alert) -> Preview:
        view = await self._view_for(alert)
        return self.engine.preview(alert, view, self._clock())

    async def refuse_invalid(self, key: str, reason: str, field_name: str, received_at: datetime) -> DecisionRecord:
        """Puts a bad alert on the record. Raises JournalError."""
        return await self._on_thread(self._record_invalid, key, reason, field_name, received_at)

    async def switch(self, paused: bool) -> None:
        """Raises JournalError."""
        await self._on_thread(self.engine.switch, paused, self._clock())

    async def close_all(self, budget_seconds: float) -> list[Answer]:
        """Sells everything that this program holds and cancels what rests, symbol by symbol, each on the record."""
        books = self.engine.books
        held = {instrument for instrument, position in books.positions.items() if position.is_open}
        busy = {order.instrument for order in books.orders.values()}
        alerts = [self._close_alert(instrument, "close-all") for instrument in sorted(held | busy)]
        return list(await asyncio.gather(*(self.handle(alert, budget_seconds) for alert in alerts)))

    def _close_alert(self, instrument: Instrument, why: str) -> Alert:
        """An alert of our own: on the record like any other."""
        now = self._clock()
        broker, market, symbol = instrument
        signal = Signal(Action.CLOSE, symbol, intent="close", broker=broker, market=market, strategy=why)
        problem = "" if instrument.account in self.brokers else f"Broker not configured: {broker}"
        return Alert(signal, new_id("owner_", now), instrument.account, now, broker_problem=problem, by_owner=True)

    @property
    def drift(self) -> list[dict[str, str]]:
        """Where books and accounts differ."""
        return self._reconciler.drift

    def tell_owner(self, text: str) -> None:
        """Something that somebody should look at. Never in the way of an order."""
        log.warning("%s", text)
        self.notices.append((self._clock(), text))

    async def _life(self, alert: Alert, ticket: Ticket) -> None:
        await self._until_ready(alert, ticket)
        await self._until_still(alert)
        view = await self._view_for(alert)
        self._note_price(alert)
        case = ticket.case = Case(alert, view, ticket.claim, asyncio.get_running_loop().create_future())
        self._desk.bring(case)
        if not await _is_done(case.done, self.patience.row):
            await self._slow(case)
        if case.error is not None:
            # Deciding and recording are one step: when it fails, nothing is on the record and nothing leaves.
            self._could_not_decide(case.error, ticket)
            return
        record = case.record
        if record is None:
            return
        self.journal_problem = ""
        log.info("%s %s %s: %s", record.decision, record.signal_id, alert.signal.symbol, record.reason)
        if record.order is None:
            ticket.tell(await self._on_thread(self.engine.first_outcome, record) if record.duplicate_of else None)
            return
        if record.exit_first is None:
            await self._see_through(record.order, ticket, case)
        else:
            await self._reverse(record.exit_first, record.order, ticket, case)

    async def _reverse(self, exit_first: Order, entry: Order, ticket: Ticket, case: Case) -> None:
        """Out, then in. What never left at all is a new try when the sender sends it again."""
        await self._see_through(exit_first, ticket, case)
        if ticket.closed is not None and ticket.closed.never_left:
            never = Execution(OrderStatus.NOT_PLACED, note=f"not opened: the way out failed: {ticket.closed.note}")
            ticket.tell(await self._settle(entry, never, never_left=True))
            return
        await self._see_through(entry, ticket)

    async def _until_still(self, alert: Alert) -> None:
        """On futures, what an alert means depends on what is held: orders under way get a moment to end."""
        if alert.account.market is not Market.FUTURES:
            return
        loop = asyncio.get_running_loop()
        give_up_at, pause = loop.time() + self.patience.still, 0.002
        while self.engine.books.unsettled(alert.instrument) and loop.time() < give_up_at:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.05)

    async def _slow(self, case: Case) -> None:
        """The decision has its row while the exchange, or the disk, takes its time; but not for ever."""
        while case.record is None and not await _is_done(case.done, self.patience.row):
            pass
        if case.order is None:
            await case.done
            return
        self._on_thread(self._desk.write_signals)
        if not await _is_done(case.done, self.patience.order) and case.tell.take():
            case.outcome = self._given_up(case.order, case.send)
            return
        await case.done

    def _could_not_decide(self, exc: Exception, ticket: Ticket) -> None:
        if isinstance(exc, JournalError):
            self.journal_problem = str(exc)
            log.error("nothing was decided: %s", exc)
            ticket.problem = "the journal cannot be written; nothing was placed"
        else:
            log.error("nothing was decided", exc_info=exc)
            ticket.problem = "unforeseen error, it is in the log; nothing was placed"
        ticket.tell(None)

    async def _until_ready(self, alert: Alert, ticket: Ticket) -> None:
        """Entries wait for recovery, exits do not."""
        if not self.ready.is_set() and may_enter(alert.signal, alert.account.market):
            ticket.problem = "recovery is not finished; send it again"
            await self.ready.wait()
            ticket.problem = ""

    def _note_price(self, alert: Alert) -> None:
        paper, price = self.brokers.get(alert.account), alert.signal.price
        # The price of a limit order is a wish, not a market price.
        if isinstance(paper, PaperClient) and price is not None and alert.signal.type is OrderType.MARKET:
            paper.saw_price(alert.signal.symbol, price)

    async def _view_for(self, alert: Alert) -> View:
        signal = alert.signal
        # A market order sized in quote currency leaves without any price: Binance works out the quantity itself. With
        # a price its protection is judged before it leaves.
        by_quote_amount = signal.action is Action.BUY and signal.quantity is None and signal.amount is None
        protected = protection.wish(signal, self.engine.limits) is not None
        wants_price = not by_quote_amount or protected or not self.market.takes_quote_amounts(alert.instrument)
        price = signal.price if signal.type is OrderType.MARKET else None
        return await self.market.view(
            alert.instrument, price, wants_price=wants_price, patience_seconds=self.patience.view
        )

    def _record_invalid(self, key: str, reason: str, field_name: str, received_at: datetime) -> DecisionRecord:
        record = self.engine.refuse_invalid(key, reason, field_name, received_at, self._clock())
        self._desk.write_signals()
        return record

    # --- the life of an order -------------------------------------------------------------------------------------

    async def _see_through(self, order: Order, ticket: Ticket | None, case: Case | None = None) -> None:
        """From its intent to its ending, whoever waits for it or not. With a case it may have left the desk already."""
        try:
            await self._live(order, ticket, case)
        except Exception:
            # Nobody knows any more what became of this order: no new risk until somebody has looked.
            self.engine.halted = f"unforeseen error around order {order.client_order_id}; see the log, then restart"
            raise

    async def _live(self, order: Order, ticket: Ticket | None, case: Case | None) -> None:
        if ticket and order.leg != "exit":
            ticket.order = order
        if order.status is OrderStatus.INTENT:
            order = await self._wait_for_turn(order)
        if order.status is OrderStatus.SENT:
            order = (case and case.settled) or await self._place(order, ticket, case.outcome if case else None)
        await self._see_to_the_end(order, ticket)

    async def _see_to_the_end(self, order: Order, ticket: Ticket | None) -> None:
        """An order that has left."""
        if order.status is OrderStatus.UNKNOWN:
            order = await self._resolve(order)
        self.market.refresh_soon(order.account)
        again = self.engine.next_attempt(order) if order.status is OrderStatus.NOT_PLACED else None
        if again is not None:
            await self._see_through(again, ticket)
            return
        if ticket:
            self.latencies_ms.append((self._clock() - order.received_at).total_seconds() * 1000)
            ticket.tell(order)
        if order.status in RESTING:
            self._spawn(self._follow(order), self._tasks)
        self._guardian.look_soon(order.instrument)

    async def _wait_for_turn(self, order: Order) -> Order:
        """A waiting exit goes when nothing of its symbol is in doubt any more; a full exit cancels what rests."""
        pause = self.patience.turn
        while blockers := self.engine.blockers(order):
            for other in blockers:
                if other.status in RESTING:
                    await self._cancel(other)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, self.patience.longest_look)
        while True:
            by_amount = order.amount is not None and order.type is OrderType.MARKET
            view = await self.market.view(
                order.instrument, None, wants_price=by_amount, patience_seconds=self.patience.view
            )
            if not by_amount or view.price is not None or view.price_is_needed:
                break
            await asyncio.sleep(self.patience.longest_look)
        released = await self._written(lambda: self._desk.release(order, view))
        self.market.refresh_soon(order.account)
        return released

    async def _place(self, order: Order, ticket: Ticket | None, outcome: Outcome | None) -> Order:
        """One order, handed over once; again only when it certainly never left, and only for a moment.

        An exit whose sender was told "pending" goes on trying: nobody else will.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self.patience.resend
        while True:
            outcome = outcome or await self._hand_over(order)
            if not isinstance(outcome, Refused) or not outcome.never_left:
                break
            pause = max(0.1, outcome.retry_after_seconds or 0.0)
            alone = not order.is_entry and (ticket is None or ticket.left)
            if loop.time() + pause >= give_up_at:
                if not alone or self._clock() - order.received_at > EXIT_IS_WANTED_FOR:
                    break
                pause = max(pause, self.patience.longest_look)
            await asyncio.sleep(pause)
            outcome = None
        never_left = isinstance(outcome, Refused) and outcome.never_left
        return await self._settle(order, execution_of(outcome), never_left=never_left)

    async def _hand_over(self, order: Order) -> Outcome:
        claim = Claim()
        job = self._on_thread(self._desk.hand_over, order, claim)
        return job.result() if await _is_done(job, self.patience.order) else self._given_up(order, claim)

    def _given_up(self, order: Order, claim: Claim) -> Outcome:
        """After the total deadline: it never left, or nobody knows."""
        if claim.take():
            return Refused("no worker was free to send it in time", never_left=True)
        return Unknown(f"{order.broker} did not answer within {self.patience.order:g} s")

    async def _resolve(self, order: Order, left_at_least_seconds_ago: float = 0.0) -> Order:
        """Looks until the order is found, or until it is proven that it cannot appear any more."""
        loop = asyncio.get_running_loop()
        broker = self.brokers[order.account]
        proven_at = loop.time() + broker.absence_is_proven_after_seconds - left_at_least_seconds_ago
        not_found, pause = 0, self.patience.first_look
        while True:
            answer = await self._look_up(order)
            if isinstance(answer, Found):
                return await self._settle(order, answer.execution)
            not_found = not_found + 1 if isinstance(answer, NotFound) else 0
            if not_found >= NOT_FOUND_IN_A_ROW and loop.time() >= proven_at:
                return await self._declare_absent(order)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, self.patience.longest_look)

    async def _declare_absent(self, order: Order) -> Order:
        note = f"{order.broker} does not know it, {NOT_FOUND_IN_A_ROW} times in a row and long enough after sending"
        settled = await self._settle(order, Execution(OrderStatus.NOT_PLACED, note=note))
        self._spawn(self._watch_for_late(settled), self._tasks)
        return settled

    async def _watch_for_late(self, order: Order) -> None:
        """Absence was proven by the exchange's own time limits; should they lie, the books still learn the truth."""
        for pause in self.patience.late:
            await asyncio.sleep(pause)
            answer = await self._look_up(order)
            if isinstance(answer, Found):
                log.error("%s turned up after it was declared not placed", order.client_order_id)
                await self._see_to_the_end(await self._settle(order, answer.execution), None)
                return

    async def _follow(self, order: Order) -> None:
        """A resting order, until it ends."""
        loop = asyncio.get_running_loop()
        known_at, not_found = loop.time(), 0
        while order.status in RESTING:
            await asyncio.sleep(self.patience.follow)
            current = self.engine.books.orders.get(order.client_order_id)
            if current is None:
                return
            answer = await self._look_up(current)
            if isinstance(answer, Found):
                known_at, not_found = loop.time(), 0
                order = await self._settle(current, answer.execution)
                if order.executed_quantity != current.executed_quantity:
                    self._guardian.look_soon(order.instrument)
            elif isinstance(answer, NotFound):
                not_found += 1
                if not_found >= FORGOTTEN_AFTER and loop.time() - known_at >= self.patience.forgotten:
                    order = await self._settle(current, _forgotten(current))
        self.market.refresh_soon(order.account)
        if order.is_protection and order.status is not OrderStatus.FILLED:
            # It may have ended because somebody closed the position: then there is nothing to protect any more.
            await self._reconciler.take_over_missing(order.account)
        self._guardian.look_soon(order.instrument)

    async def _cancel(self, order: Order) -> None:
        answer = await self._question(self.brokers[order.account].cancel, order)
        if isinstance(answer, Found):
            await self._settle(order, answer.execution)

    async def _look_up(self, order: Order) -> LookUp:
        broker = self.brokers.get(order.account)
        if broker is None:
            return NoAnswer(f"{order.broker} is not configured any more")
        return await self._question(broker.look_up, order)

    async def _question(self, question: Callable[[Order], LookUp], order: Order) -> LookUp:
        try:
            return await asyncio.wait_for(self._on_thread(question, order), self.patience.ask)
        except TimeoutError:
            return NoAnswer("no answer in time")
        except Exception as exc:
            log.exception("looking up %s failed", order.client_order_id)
            return NoAnswer(type(exc).__name__)

    async def _settle(self, order: Order, execution: Execution, never_left: bool = False) -> Order:
        try:
            return await self._written(lambda: self._desk.settle(order, execution, never_left))
        except ValueError as exc:
            # The exchange's records lag behind what it told before; the next look-up will know better.
            log.warning("ignored: %s", exc)
            return self.engine.books.orders.get(order.client_order_id, order)

    async def _written(self, write: Callable[[], Order]) -> Order:
        """An outcome is written until it is written: it happened, whatever the disk says."""
        while True:
            try:
                order = await self._on_thread(write)
                self.journal_problem = ""
                return order
            except JournalError as exc:
                self.journal_problem = str(exc)
                log.error("an outcome is not on the record yet: %s", exc)
                await asyncio.sleep(self.patience.disk)

    # --- start and stop -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begins the background work and recovery; `ready` is set when recovery is done."""
        for account, broker in self.brokers.items():
            if isinstance(broker, PaperClient):
                self._restore_paper(account, broker)
        for work in self.market.tasks(self._watched, self.engine.limits.allowed_symbols):
            self._spawn(work, self._tasks)
        self._spawn(self._keep_csvs(), self._tasks)
        self._spawn(self._keep_comparing(), self._tasks)
        self._spawn(self._recover(), self._tasks)

    async def stop(self, seconds: float) -> None:
        """No new alerts; orders under way get so long to end. What is left is recovered at the next start."""
        self.stopping = True
        if self._lives:
            await asyncio.wait(set(self._lives), timeout=seconds)
        await asyncio.wait({self._on_thread(self._keep_books)}, timeout=1)
        left = {*self._lives, *self._tasks}
        while left:
            # asyncio.wait_for in Python 3.11 loses a cancellation that meets its result: cancel until it is heard.
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=0.1)

    def _restore_paper(self, account: Account, paper: PaperClient) -> None:
        books = self.engine.books
        flows = {asset: change for (of, asset), change in books.flows.items() if of == account}
        positions = [p for p in books.positions.values() if p.instrument.account == account]
        prices = {p.symbol: p.last_price for p in positions if p.last_price is not None}
        resting = [o for o in books.orders.values() if o.account == account and o.status in RESTING]
        paper.restore(flows, prices, positions, resting)

    async def _recover(self) -> None:
        """Every order without an ending is looked up; the books are compared with the accounts; then: ready."""
        orders = list(self.engine.books.orders.values())
        unsettled = [o for o in orders if o.status in (OrderStatus.SENT, OrderStatus.UNKNOWN)]
        log.info("recovery: %d orders without an ending", len(orders))
        for order in orders:
            if order.status is OrderStatus.INTENT:
                self._spawn(self._see_through(order, None), self._tasks)
        resting = (self._catch_up_resting(order) for order in orders if order.status in RESTING)
        await asyncio.gather(*(self._recover_order(order) for order in unsettled), *resting)
        # What somebody closed meanwhile needs no protection.
        await self._reconciler.compare()
        for instrument in self._to_guard():
            self._guardian.look_soon(instrument)
        await self.market.first_look(self.patience.facts)
        self.ready.set()
        log.info("recovery done")

    async def _recover_order(self, order: Order) -> None:
        """One answer from the exchange is enough to become ready: in doubt, the symbol stays closed for entries."""
        answer = await self._look_up(order)
        while isinstance(answer, NoAnswer):
            log.warning("recovery of %s: %s", order.client_order_id, answer.reason)
            await asyncio.sleep(self.patience.longest_look)
            answer = await self._look_up(order)
        if isinstance(answer, Found):
            order = await self._settle(order, answer.execution)
        elif order.status is OrderStatus.SENT:
            note = "the program stopped before the outcome was known"
            order = await self._settle(order, Execution(OrderStatus.UNKNOWN, note=note))
        self._spawn(self._finish_recovered(order), self._tasks)

    async def _catch_up_resting(self, order: Order) -> None:
        """It may have filled meanwhile: books that do not know it would differ from the account."""
        answer = await self._look_up(order)
        if isinstance(answer, Found):
            order = await self._settle(order, answer.execution)
        self._spawn(self._follow(order), self._tasks)

    async def _finish_recovered(self, order: Order) -> None:
        if order.status is OrderStatus.UNKNOWN:
            order = await self._resolve(order, self._left_at_least_seconds_ago(order))
        await self._see_to_the_end(order, None)

    def _left_at_least_seconds_ago(self, order: Order) -> float:
        """An exit may have been sent again up to the crash itself, so its time starts anew."""
        if not order.is_entry:
            return 0.0
        since_sent = (self._clock() - (order.sent_at or order.created_at)).total_seconds()
        return max(0.0, since_sent - self.patience.slack)

    async def _keep_comparing(self) -> None:
        while True:
            await asyncio.sleep(self.patience.compare)
            await self._reconciler.compare()
            for instrument in self._to_guard():
                self._guardian.look_soon(instrument)

    async def _keep_csvs(self) -> None:
        """A file that was locked or full is caught up within seconds of being writable again."""
        while True:
            await asyncio.sleep(2)
            await self._on_thread(self._signals_csv.catch_up)
            await self._on_thread(self._trades_csv.catch_up)
            await self._on_thread(self._keep_books)

    def _keep_books(self) -> None:
        try:
            if self.journal_problem:
                self.engine.probe()
                self.journal_problem = ""
            self.engine.save_books()
        except JournalError as exc:
            self.journal_problem = str(exc)

    def _watched(self, account: Account) -> list[str]:
        positions = self.engine.books.positions.values()
        return [p.symbol for p in positions if p.instrument.account == account and p.is_open]

    def _to_guard(self) -> set[Instrument]:
        """Positions, and protection that may be left over."""
        books = self.engine.books
        held = {instrument for instrument, position in books.positions.items() if position.is_open}
        return held | {order.instrument for order in books.orders.values() if order.is_protection}

    # --- threads and tasks ----------------------------------------------------------------------------------------

    async def _ask(self, question: Callable[..., T], *args: object) -> T:
        """A question to a broker with a total deadline. Raises BrokerError."""
        try:
            return await asyncio.wait_for(self._on_thread(question, *args), self.patience.ask)
        except TimeoutError as exc:
            raise BrokerError("no answer in time") from exc

    def _on_thread(self, call: Callable[..., T], *args: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *args))

    def _spawn(self, work: Coroutine[Any, Any, None], group: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        group.add(task)
        task.add_done_callback(partial(_ended, group))


class _Hands:
    """What guardian and reconciler have done by the trader."""

    def __init__(self, trader: Trader) -> None:
        self._trader = trader

    async def look(self, instrument: Instrument) -> Guard:
        trader = self._trader
        return await trader._on_thread(
            trader.engine.guard, instrument, trader.market.rules(instrument), trader._clock()
        )

    async def hand_over(self, orders: Sequence[Order]) -> Sequence[Outcome]:
        trader = self._trader
        job = trader._on_thread(trader._desk.protect, orders)
        if await _is_done(job, trader.patience.order):
            return job.result()
        return [Unknown("no answer in time") for _ in orders]

    async def settle(self, order: Order, outcome: Outcome) -> Order:
        return await self._trader._settle(order, execution_of(outcome))

    async def resolve(self, order: Order) -> Order:
        return await self._trader._resolve(order)

    async def cancel(self, order: Order) -> None:
        await self._trader._cancel(order)

    def follow(self, order: Order) -> None:
        self._trader._spawn(self._trader._follow(order), self._trader._tasks)

    async def ask(self, question: Callable[..., Any], *args: object) -> Any:
        return await self._trader._ask(question, *args)

    async def catch_up(self, order: Order) -> bool:
        answer = await self._trader._look_up(order)
        if isinstance(answer, Found):
            await self._trader._settle(order, answer.execution)
        return isinstance(answer, Found)

    def run(self, call: Callable[..., Any], *args: object) -> Awaitable[Any]:
        return self._trader._on_thread(call, *args)

    def tell_owner(self, text: str) -> None:
        self._trader.tell_owner(text)

    def changed(self, instrument: Instrument) -> None:
        self._trader._trades_csv.follow()
        self._trader._guardian.look_soon(instrument)
        self._trader.market.refresh_soon(instrument.account)

    def holds(self, instrument: Instrument) -> bool:
        return self._trader.engine.books.held(instrument) != 0

    async def close(self, instrument: Instrument, why: str) -> None:
        trader = self._trader
        trader.tell_owner(f"{instrument} at {instrument.broker} is closed, as it cannot be protected: {why}")
        await trader.handle(trader._close_alert(instrument, "unprotected"), trader.patience.order)


async def _is_done(future: asyncio.Future[Any], seconds: float) -> bool:
    """Whether it is done within so many seconds. As asyncio.wait, for one future, without its detours."""
    if future.done():
        return True
    loop = asyncio.get_running_loop()
    either: asyncio.Future[None] = loop.create_future()
    timer = loop.call_later(seconds, _set, either)
    future.add_done_callback(partial(_set, either))
    try:
        await either
    finally:
        timer.cancel()
    return future.done()


def _set(future: asyncio.Future[None], *_: object) -> None:
    if not future.done():
        future.set_result(None)


def _ended(group: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
    group.discard(task)
    if not task.cancelled() and task.exception() is not None:
        log.error("unforeseen", exc_info=task.exception())


def _forgotten(order: Order) -> Execution:
    """Binance wipes its testnet about once a month; what was executed before stays as it was told."""
    note = f"{order.broker} does not know it any more; was the testnet reset?"
    told = (order.exchange_order_id, order.executed_quantity, order.executed_quote, order.fees)
    return Execution(OrderStatus.CANCELED, *told, note)
