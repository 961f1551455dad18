"""One alert's way through the chain, recovery at start, and what goes on in the background.

Runs on the event loop; everything that blocks (disk, exchange) runs on worker threads. The sender's patience and the
order's life (orders.py) are two things: a reply may say "pending" while the order is seen through to its end.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import protection
from broker import Broker, Found, Outcome, Unknown
from csv_logger import CsvFile
from desk import Case, Claim, Desk, execution_of
from guardian import Guardian, Waits
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
from orders import Orders, Patience, Ticket
from paper_client import PaperClient
from plan import may_enter
from protection import Guard
from reconcile import Reconciler
from risk import Alert, Preview, RiskEngine
from sizing import View
from workers import Workers, is_done, within

log = logging.getLogger("gatehouse.trader")

Clock = Callable[[], datetime]


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
        tell: Callable[[str], None] = lambda text: None,
        answered: Callable[[Account, float], None] = lambda account, seconds: None,
    ) -> None:
        """`tell` brings a message to the owner, `answered` times an order's way; both return at once."""
        self.engine = engine
        self.brokers = brokers
        self.patience = patience or Patience()
        self.ready = asyncio.Event()
        self.stopping = False
        self._dropped: dict[str, Ticket] = {}  # by the alert's key, as long as they may still get on the record
        self._compared = asyncio.Event()  # once, at the start
        self._compare_soon = asyncio.Event()
        self._signals_csv = signals_csv
        self._trades_csv = trades_csv
        self._clock = clock
        self._tell = tell
        self._workers = workers = Workers(self.patience.ask)
        self._desk = desk = Desk(engine, brokers, signals_csv, trades_csv, clock, workers.threads, answered)
        self.market = market = MarketData(brokers, workers.ask, clock, lambda: Decimal(engine.limits.leverage))
        engine.price_of = market.price
        self._orders = Orders(
            engine, brokers, desk, market, workers, clock, self.patience, self._order_changed, self.tell_owner
        )
        self.notices: deque[tuple[datetime, str]] = deque(maxlen=100)
        waits = Waits(give_up=self.patience.guard_give_up, again=self.patience.guard_again)
        hands = _Hands(self)
        self._reconciler = Reconciler(engine, brokers, hands, clock, self.patience.second_look)
        self._guardian = Guardian(hands, workers.spawn, waits)
        self._lost_protection = Counter[Account]()  # whose end nobody has looked into yet

    # --- alerts ---------------------------------------------------------------------------------------------------

    async def handle(self, alert: Alert, budget_seconds: float) -> Answer:
        """The chain, for one alert. Answers within the budget; what is under way by then goes on alone."""
        if self.stopping:
            return Answer(None, None, problem="stopping; send it again")
        ticket = Ticket()
        self._workers.spawn_life(self._life(alert, ticket))
        if await is_done(ticket.told, budget_seconds):
            return Answer(ticket.record, ticket.order, problem=ticket.problem, closed=ticket.closed)
        # Nobody decides any more once the sender was told that nobody did. What the disk is busy with already may get
        # on the record yet: an entry is kept back then; a way out goes on, there may be no repeat when it is possible.
        if ticket.record is None and ticket.drop(once_decided=may_enter(alert.signal, alert.account.market)):
            if ticket.dropped:
                self._dropped[alert.key] = ticket
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
        return await self._workers.on_thread(self._record_invalid, key, reason, field_name, received_at)

    async def switch(self, paused: bool) -> None:
        """Raises JournalError."""
        await self._workers.on_thread(self.engine.switch, paused, self._clock())

    def asked_of_owner(self, client_order_id: str) -> Order | None:
        """An order of which only he knows any more what became of it."""
        is_asked = client_order_id in self._orders.only_owner_knows
        return self.engine.books.orders.get(client_order_id) if is_asked else None

    async def take_word(self, order: Order, execution: Execution, budget_seconds: float) -> Order | None:
        """The order as it stands after it; None when that takes longer: then the next look for it goes by that word."""
        settled = self._orders.take_word(order.client_order_id, execution)
        return settled.result() if await is_done(settled, budget_seconds) else None

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
        self.note(text)
        self._tell(text)

    def note(self, text: str) -> None:
        """As `tell_owner`, of what is shown as long as it lasts."""
        log.warning("%s", text)
        self.notices.append((self._clock(), text))

    @property
    def latencies_ms(self) -> Sequence[float]:
        """Of the last hundred orders: from the alert's receipt to the outcome."""
        return self._orders.latencies_ms

    def _order_changed(self, order: Order) -> None:
        if order.is_protection and order.has_ended and order.status is not OrderStatus.FILLED:
            self._lost_protection[order.account] += 1
            self._workers.spawn(self._after_lost_protection(order))
            return
        self._guardian.look_soon(order.instrument)
        if order.status is OrderStatus.REJECTED and not order.is_entry:
            # Perhaps it was closed by hand: then the books should know, not in a minute.
            self._compare_soon.set()

    async def _after_lost_protection(self, order: Order) -> None:
        """It may have ended because somebody closed the position: then there is nothing to protect any more."""
        try:
            await self._reconciler.take_over_missing(order.account)
        finally:
            self._lost_protection[order.account] -= 1
        self._guardian.look_soon(order.instrument)

    async def _life(self, alert: Alert, ticket: Ticket) -> None:
        try:
            await self._live(alert, ticket)
        finally:
            ticket.over.set()
            if self._dropped.get(alert.key) is ticket:
                del self._dropped[alert.key]

    async def _live(self, alert: Alert, ticket: Ticket) -> None:
        await self._until_ready(alert, ticket)
        if not await self._may_be_called(alert, ticket):
            return
        await self._until_still(alert)
        await self._until_dropped(alert)
        case = await self._decide(alert, ticket)
        while case.error is not None and await self._is_still_wanted(alert, ticket, case.error):
            case = await self._decide(alert, ticket)
        record = case.record
        if record is None:
            return
        self.engine.journal_problem = ""
        log.info("%s %s %s: %s", record.decision, record.signal_id, alert.signal.symbol, record.reason)
        if record.missed:
            self.tell_owner(f"{alert.instrument} at {alert.broker}: {record.missed} ({record.signal_id})")
        if record.order is None:
            ticket.tell(await self._first_outcome(alert, record) if record.duplicate_of else None)
            return
        if ticket.dropped:
            await self._drop(record)
            return
        if record.exit_first is None:
            await self._orders.see_through(record.order, ticket, case)
        else:
            await self._reverse(record.exit_first, record.order, ticket, case)

    async def _decide(self, alert: Alert, ticket: Ticket) -> Case:
        """Deciding and recording are one step: when it fails, nothing is on the record and nothing leaves."""
        view = await self._view_for(alert)
        self._note_price(alert)
        case = ticket.case = Case(alert, view, ticket.claim, asyncio.get_running_loop().create_future())
        self._desk.bring(case)
        if not await is_done(case.done, self.patience.row):
            await self._slow(case)
        if case.error is not None:
            self._could_not_decide(case.error, ticket)
        return case

    async def _is_still_wanted(self, alert: Alert, ticket: Ticket, exc: Exception) -> bool:
        """A way out whose sender was told "pending" is decided anew when the disk works again: nobody else will."""
        if not ticket.left:
            return False
        too_old = self._clock() - alert.received_at > EXIT_IS_WANTED_FOR
        if too_old or self.stopping or not isinstance(exc, JournalError):
            what = "a way out was answered PENDING, and nothing was recorded"
            self.tell_owner(f"{alert.instrument} at {alert.broker}: {what}: {exc}")
            return False
        await asyncio.sleep(self.patience.disk)
        ticket.claim = Claim()
        return True

    async def _drop(self, record: DecisionRecord) -> None:
        """On the record after its sender was told to send it again: that one is a new try, this one never leaves."""
        never = Execution(OrderStatus.NOT_PLACED, note="the disk was too slow, the sender was told to send it again")
        for order in filter(None, (record.exit_first, record.order)):
            settled = await self._orders.settle(order, never, never_left=True)
            self.tell_owner(f"{settled.instrument} at {settled.broker}: {settled.note} ({record.signal_id})")

    async def _until_dropped(self, alert: Alert) -> None:
        """A repeat is judged when the one that it repeats has its ending."""
        ticket = self._dropped.get(alert.key)
        if ticket is not None:
            await ticket.over.wait()

    async def _first_outcome(self, alert: Alert, record: DecisionRecord) -> Order | None:
        await self._until_dropped(alert)
        return await self._workers.on_thread(self.engine.first_outcome, record)

    async def _reverse(self, exit_first: Order, entry: Order, ticket: Ticket, case: Case) -> None:
        """Out, then in. What never left at all is a new try when the sender sends it again."""
        await self._orders.see_through(exit_first, ticket, case)
        if ticket.closed is not None and ticket.closed.never_left:
            never = Execution(OrderStatus.NOT_PLACED, note=f"not opened: the way out failed: {ticket.closed.note}")
            ticket.tell(await self._orders.settle(entry, never, never_left=True))
            return
        await self._orders.see_through(entry, ticket)

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
        while case.record is None and not await is_done(case.done, self.patience.row):
            pass
        if case.order is None:
            await case.done
            return
        self._workers.on_thread(self._desk.write_signals)
        if not await is_done(case.done, self.patience.order) and case.tell.take():
            case.outcome = self._orders.given_up(case.order, case.send)
            return
        await case.done

    def _could_not_decide(self, exc: Exception, ticket: Ticket) -> None:
        if isinstance(exc, JournalError):
            self.engine.journal_problem = str(exc)
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

    async def _may_be_called(self, alert: Alert, ticket: Ticket) -> bool:
        """An exchange that asked for a pause tells nothing to decide by: a short one is waited for, else 503.

        Before a restart and after it alike. A way out is decided without such facts, and its order waits by itself.
        """
        broker = self.brokers.get(alert.account)
        if broker is None or not may_enter(alert.signal, alert.account.market):
            return True
        pause = broker.pause_seconds
        if pause <= self.patience.resend:
            await asyncio.sleep(pause)
            return True
        ticket.problem = f"{alert.account} asked for a pause of {pause:.0f} s more; nothing was placed; send it again"
        log.warning("not decided, %s: %s", alert.instrument, ticket.problem)
        ticket.tell(None)
        return False

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

    # --- start and stop -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begins the background work and recovery; `ready` is set when recovery is done."""
        for account, broker in self.brokers.items():
            if isinstance(broker, PaperClient):
                self._restore_paper(account, broker)
        for work in self.market.tasks(self._watched, lambda: self.engine.limits.allowed_symbols):
            self._workers.spawn(work)
        self._workers.spawn(self._keep_csvs())
        self._workers.spawn(self._watch_clocks())
        self._workers.spawn(self._recover())

    def beside(self, work: Callable[[Callable[..., Awaitable[Any]]], Coroutine[Any, Any, None]]) -> None:
        """Endless work that has nothing to do with orders; it is given what runs a call on a worker thread."""
        self._workers.spawn(work(self._workers.on_thread))

    async def stop(self, seconds: float) -> None:
        """No new alerts; orders under way get so long to end. What is left is recovered at the next start."""
        self.stopping = True
        if self._workers.lives:
            await asyncio.wait(set(self._workers.lives), timeout=seconds)
        await asyncio.wait({self._workers.on_thread(self._put_away)}, timeout=1)
        await self._workers.stop()

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
                self._workers.spawn(self._orders.see_through(order, None))
        resting = (self._orders.catch_up_resting(order) for order in orders if order.status in RESTING)
        await asyncio.gather(*(self._orders.recover(order) for order in unsettled), *resting)
        self._workers.spawn(self._keep_comparing())
        # An exchange that does not answer must not keep exits, and what is on paper, from being traded.
        await asyncio.gather(within(self.patience.facts, self._compared), self.market.first_look(self.patience.facts))
        # Only now: what somebody closed meanwhile needs no protection.
        for instrument in self._to_guard():
            self._guardian.look_soon(instrument)
        self.ready.set()
        log.info("recovery done")

    async def _keep_comparing(self) -> None:
        while True:
            try:
                await self._reconciler.compare()
            except Exception:
                log.exception("the books were not compared with the accounts")
            self._compared.set()
            self._compare_soon.clear()
            await within(self.patience.compare, self._compare_soon)
            for instrument in self._to_guard():
                self._guardian.look_soon(instrument)

    async def _watch_clocks(self) -> None:
        """The owner is told once that a clock is wrong, and once that it is right again."""
        wrong: set[Account] = set()
        while True:
            for account, broker in self.brokers.items():
                if bool(broker.clock_problem) != (account in wrong):
                    wrong ^= {account}
                    is_right = "the clocks agree again, entries are taken"
                    self.tell_owner(f"{account}: {broker.clock_problem or is_right}")
            await asyncio.sleep(1)

    async def _keep_csvs(self) -> None:
        """A file that was locked or full is caught up within seconds of being writable again."""
        while True:
            await asyncio.sleep(2)
            await self._workers.on_thread(self._signals_csv.catch_up)
            await self._workers.on_thread(self._trades_csv.catch_up)
            await self._workers.on_thread(self._keep_books)

    def _put_away(self) -> None:
        try:
            self.engine.put_away()
        except JournalError as exc:
            log.warning("%s", exc)

    def _keep_books(self) -> None:
        try:
            if self.engine.journal_problem:
                self.engine.probe()
                self.engine.journal_problem = ""
            self.engine.save_books()
        except JournalError as exc:
            self.engine.journal_problem = str(exc)

    def _watched(self, account: Account) -> list[str]:
        """Symbols that are held, or have orders under way."""
        books = self.engine.books
        held = [instrument for instrument, position in books.positions.items() if position.is_open]
        busy = [order.instrument for order in books.orders.values()]
        return [instrument.symbol for instrument in (*held, *busy) if instrument.account == account]

    def _to_guard(self) -> set[Instrument]:
        """Positions, and protection that may be left over."""
        books = self.engine.books
        held = {instrument for instrument, position in books.positions.items() if position.is_open}
        return held | {order.instrument for order in books.orders.values() if order.is_protection}

    # --- threads and tasks ----------------------------------------------------------------------------------------


class _Hands:
    """What guardian and reconciler have done by the trader."""

    def __init__(self, trader: Trader) -> None:
        self._trader = trader

    async def look(self, instrument: Instrument) -> Guard:
        trader = self._trader
        if instrument.account not in trader.brokers:
            return Guard()  # its keys were taken away
        if trader._lost_protection[instrument.account]:
            return Guard(waits=True)  # until it is known whether there is still something to protect
        rules, price = trader.market.rules(instrument), trader.market.fresh_price(instrument)
        return await trader._workers.on_thread(trader.engine.guard, instrument, rules, trader._clock(), price)

    async def hand_over(self, orders: Sequence[Order]) -> Sequence[Outcome]:
        trader = self._trader
        job = trader._workers.on_thread(trader._desk.protect, orders)
        if await is_done(job, trader.patience.order):
            return job.result()
        return [Unknown("no answer in time") for _ in orders]

    async def settle(self, order: Order, outcome: Outcome) -> Order:
        return await self._trader._orders.settle(order, execution_of(outcome))

    async def resolve(self, order: Order) -> Order:
        return await self._trader._orders.resolve(order)

    async def cancel(self, order: Order) -> None:
        await self._trader._orders.cancel(order)

    def follow(self, order: Order) -> None:
        self._trader._workers.spawn(self._trader._orders.follow(order))

    async def ask(self, question: Callable[..., Any], *args: object) -> Any:
        return await self._trader._workers.ask(question, *args)

    async def catch_up(self, order: Order) -> bool:
        answer = await self._trader._orders.look_up(order)
        if isinstance(answer, Found):
            await self._trader._orders.settle(order, answer.execution)
        return isinstance(answer, Found)

    def run(self, call: Callable[..., Any], *args: object) -> Awaitable[Any]:
        return self._trader._workers.on_thread(call, *args)

    def tell_owner(self, text: str) -> None:
        self._trader.tell_owner(text)

    def note(self, text: str) -> None:
        self._trader.note(text)

    def changed(self, instrument: Instrument) -> None:
        self._trader._trades_csv.follow()
        self._trader._guardian.look_soon(instrument)
        self._trader.market.refresh_soon(instrument.account)

    def holds(self, instrument: Instrument) -> bool:
        return self._trader.engine.books.held(instrument) != 0

    async def is_gone(self, instrument: Instrument) -> bool:
        await self._trader._reconciler.take_over_missing(instrument.account)
        return not self.holds(instrument)

    async def clear(self, instrument: Instrument) -> bool:
        return await self._trader._reconciler.clear(instrument)

    async def close(self, instrument: Instrument, why: str) -> None:
        trader = self._trader
        trader.tell_owner(f"{instrument} at {instrument.broker} is closed, as it cannot be protected: {why}")
        await trader.handle(trader._close_alert(instrument, "unprotected"), trader.patience.order)
