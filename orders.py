"""The life of an order: handed over, settled, looked up when its reply was lost, followed while it rests, recovered.

Runs on the event loop. Every order gets exactly one ending, whoever waits for it or not.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

from broker import Balance, Broker, BrokerError, Found, LookUp, NoAnswer, NotFound, Outcome, Refused, Unknown
from desk import Case, Claim, Desk, execution_of
from intents import EXIT_IS_WANTED_FOR
from journal import JournalError
from market_data import MarketData
from models import RESTING, ZERO, Account, DecisionRecord, Execution, Market, Order, OrderStatus, OrderType
from risk import RiskEngine
from sizing import View
from workers import Workers, is_done

log = logging.getLogger("gatehouse.orders")

T = TypeVar("T")
Clock = Callable[[], datetime]


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
    price: float = 5.0  # for the price that an exit by amount needs; then the last one that was seen has to do
    turn: float = 0.05  # between two looks whether a waiting exit may go
    disk: float = 1.0  # before an outcome that could not be written is written again
    still: float = 0.8  # for orders under way on futures, as what a decision means depends on what is held
    slack: float = 5.0  # a recovered order may have left so much later than its record says
    forgotten: float = 60.0  # a resting order that the exchange does not know any more has ended there
    compare: float = 60.0  # between two comparisons of the books with the accounts
    late: tuple[float, ...] = (30.0, 60.0, 300.0, 900.0)  # after "not placed", still look whether it turns up
    worth_first: float = 0.0  # after recovery, before the first look at what the accounts are worth
    worth_gap: float = 60.0  # between two such looks, however much is traded
    worth_every: float = 3600.0  # when nothing is traded
    worth_sure: float = 5.0  # so long nothing must turn out to have been executed meanwhile
    second_look: float = 2.0  # before what the accounts lack is believed
    guard_give_up: float = 10.0  # so long a position may lack the protection it asked for, then it is closed
    guard_again: float = 30.0  # when that failed, too


NOT_FOUND_IN_A_ROW = 3
ASK_OWNER = "; look there, and say what became of it on the page, or with POST /orders/outcome"
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
    dropped: bool = False  # the sender was told that nothing is placed: nothing may be, though it was being decided
    closed: Order | None = None  # the first half of a reversal
    over: asyncio.Event = field(default_factory=asyncio.Event)  # nothing is done for it any more

    @property
    def record(self) -> DecisionRecord | None:
        return self.case.record if self.case else None

    def drop(self, *, once_decided: bool) -> bool:
        """Whether nothing leaves from here on: nobody decided yet, or (`once_decided`) nobody handed the order over."""
        if self.claim.take():
            return True
        self.dropped = once_decided and self.case is not None and self.case.send.take()
        return self.dropped

    def tell(self, order: Order | None) -> None:
        if order is not None and order.leg == "exit":
            self.closed = order
            return
        self.order = order
        if not self.told.done():
            self.told.set_result(None)


class Orders:
    """What became of each order goes on the record before anybody is told."""

    def __init__(
        self,
        engine: RiskEngine,
        brokers: Mapping[Account, Broker],
        desk: Desk,
        market: MarketData,
        workers: Workers,
        clock: Clock,
        patience: Patience,
        on_change: Callable[[Order], None],
        tell_owner: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`on_change` is told of every order that has come to rest or to its end, and of every further fill.

        `tell_owner` of what nobody but him can find out.
        """
        self.latencies_ms: deque[float] = deque(maxlen=100)
        # By client id: what only the owner knows any more, and what he said of it.
        self.only_owner_knows: set[str] = set()
        self._words: dict[str, tuple[Execution, asyncio.Future[Order]]] = {}
        self._engine = engine
        self._brokers = brokers
        self._desk = desk
        self._market = market
        self._workers = workers
        self._clock = clock
        self._patience = patience
        self._on_change = on_change
        self._tell_owner = tell_owner

    async def see_through(self, order: Order, ticket: Ticket | None, case: Case | None = None) -> None:
        """From its intent to its ending, whoever waits for it or not. With a case it may have left the desk already."""
        try:
            await self._live(order, ticket, case)
        except Exception:
            # Nobody knows any more what became of this order: no new risk until somebody has looked.
            self._engine.halted = f"unforeseen error around order {order.client_order_id}; see the log, then restart"
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
            order = await self.resolve(order)
        self._market.refresh_soon(order.account)
        again = await self._next_attempt(order)
        if again is not None:
            await self.see_through(again, ticket)
            if order.status is OrderStatus.REJECTED:
                self._on_change(order)
            return
        if ticket:
            self.latencies_ms.append((self._clock() - order.received_at).total_seconds() * 1000)
            ticket.tell(order)
        if order.status in RESTING:
            self._workers.spawn(self.follow(order))
        self._on_change(order)

    async def _next_attempt(self, order: Order) -> Order | None:
        """Of an exit: on the record already where it never arrived; where it was refused, if anything is new by now."""
        if order.status is OrderStatus.NOT_PLACED:
            return self._engine.next_attempt(order)
        if order.status is not OrderStatus.REJECTED:
            return None
        self._market.doubt_rules(order.instrument)
        if order.is_entry:
            return None
        view = await self._market.view(order.instrument, None, wants_price=False, patience_seconds=self._patience.view)
        rules, there = view.rules or order.rules, await self._there(order)
        return await self._written(lambda: self._desk.try_again(order, rules, there))

    async def _there(self, order: Order) -> Decimal | None:
        """Base units that the account itself has for an exit; None where it does not tell."""
        broker = self._brokers[order.account]
        try:
            if order.market is Market.FUTURES:
                held = await self._workers.ask(broker.positions)
                same = (one for one in held if (one.symbol, one.side) == (order.symbol, order.position_side))
                return sum((one.quantity for one in same), ZERO)
            balances = await self._workers.ask(broker.balances)
            return balances.get(order.rules.base_asset, Balance()).free
        except BrokerError as exc:
            log.warning("%s was refused, and what the account holds is not told: %s", order.client_order_id, exc)
            return None

    async def _wait_for_turn(self, order: Order) -> Order:
        """It goes when nothing of its symbol is in doubt any more; only then what rests, and protects, is cancelled."""
        loop = asyncio.get_running_loop()
        pause, since = self._patience.turn, loop.time()
        while True:
            blockers = self._engine.blockers(order)
            view = None
            if all(other.status in RESTING for other in blockers):
                view = await self._view_to_leave(order, waited_seconds=loop.time() - since)
            if view is not None and not blockers:
                break
            if view is not None:
                for other in blockers:
                    await self.cancel(other)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, self._patience.longest_look)
        released = await self._written(lambda: self._desk.release(order, view))
        self._market.refresh_soon(order.account)
        return released

    async def _view_to_leave(self, order: Order, waited_seconds: float) -> View | None:
        """None while a price is missing that may still come: without it, nobody knows how much an amount is."""
        by_amount = order.amount is not None and order.type is OrderType.MARKET and not order.is_entry
        view = await self._market.view(
            order.instrument, None, wants_price=by_amount, patience_seconds=self._patience.view
        )
        if not by_amount or view.price is not None or view.price_is_needed:
            return view
        if waited_seconds < self._patience.price:
            return None
        position = self._engine.books.position(order.instrument)
        return replace(view, price=order.reference_price or (position.last_price if position else None))

    async def _place(self, order: Order, ticket: Ticket | None, outcome: Outcome | None) -> Order:
        """One order, handed over once; again only when it certainly never left, and only for a moment.

        An exit whose sender was told "pending" goes on trying: nobody else will.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._patience.resend
        while True:
            outcome = outcome or await self._hand_over(order)
            if not isinstance(outcome, Refused) or not outcome.never_left:
                break
            pause = max(0.1, outcome.retry_after_seconds or 0.0)
            alone = not order.is_entry and (ticket is None or ticket.left)
            if loop.time() + pause >= give_up_at:
                if not alone or self._clock() - order.received_at > EXIT_IS_WANTED_FOR:
                    break
                pause = max(pause, self._patience.longest_look)
            await asyncio.sleep(pause)
            outcome = None
        # Once the first half of a reversal is done, the alert is no new try any more.
        never_left = isinstance(outcome, Refused) and outcome.never_left and not order.after_exit
        return await self.settle(order, execution_of(outcome), never_left=never_left)

    async def _hand_over(self, order: Order) -> Outcome:
        claim = Claim()
        job = self._workers.on_thread(self._desk.hand_over, order, claim)
        return job.result() if await is_done(job, self._patience.order) else self.given_up(order, claim)

    def given_up(self, order: Order, claim: Claim) -> Outcome:
        """After the total deadline: it never left, or nobody knows."""
        if claim.take():
            return Refused("no worker was free to send it in time", never_left=True)
        return Unknown(f"{order.broker} did not answer within {self._patience.order:g} s")

    async def resolve(self, order: Order, left_at_least_seconds_ago: float = 0.0) -> Order:
        """Looks until the order is found, or until it is proven that it cannot appear any more."""
        loop = asyncio.get_running_loop()
        broker = self._brokers[order.account]
        proven_at = loop.time() + broker.absence_is_proven_after_seconds - left_at_least_seconds_ago
        not_found, pause, told = 0, self._patience.first_look, ""
        while True:
            answer = await self.look_up(order)
            if isinstance(answer, NoAnswer) and answer.for_long and answer.reason not in told:
                told = answer.reason + (ASK_OWNER if answer.for_good else "")
                self._tell_owner(f"{order.client_order_id} ({order.side} {order.instrument}) stays unknown: {told}")
            word = self._word_for(order, answer)
            if word is not None:
                execution, settled = word
                order = await self.settle(order, execution)
                settled.set_result(order)
                if order.status is not OrderStatus.UNKNOWN:
                    return order
            if isinstance(answer, Found):
                return await self.settle(order, answer.execution)
            not_found = not_found + 1 if isinstance(answer, NotFound) else 0
            if not_found >= NOT_FOUND_IN_A_ROW and loop.time() >= proven_at:
                return await self._declare_absent(order)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, self._patience.longest_look)

    def take_word(self, client_order_id: str, execution: Execution) -> asyncio.Future[Order]:
        """How an order ended that `only_owner_knows`; the next look for it goes by that.

        The order as it stands then: still unknown where the word contradicts what is on the record.
        """
        settled: asyncio.Future[Order] = asyncio.get_running_loop().create_future()
        self._words[client_order_id] = execution, settled
        return settled

    def _word_for(self, order: Order, answer: LookUp) -> tuple[Execution, asyncio.Future[Order]] | None:
        """What the owner said counts where its broker has just said again that it does not know any more."""
        name = order.client_order_id
        if not isinstance(answer, NoAnswer) or not answer.for_good:
            self.only_owner_knows.discard(name)
            self._words.pop(name, None)
            return None
        self.only_owner_knows.add(name)
        word = self._words.pop(name, None)
        if word is not None:
            self.only_owner_knows.discard(name)
        return word

    async def _declare_absent(self, order: Order) -> Order:
        note = f"{order.broker} does not know it, {NOT_FOUND_IN_A_ROW} times in a row and long enough after sending"
        settled = await self.settle(order, Execution(OrderStatus.NOT_PLACED, note=note))
        self._workers.spawn(self._watch_for_late(settled))
        return settled

    async def _watch_for_late(self, order: Order) -> None:
        """Absence was proven by the exchange's own time limits; should they lie, the books still learn the truth."""
        for pause in self._patience.late:
            await asyncio.sleep(pause)
            answer = await self.look_up(order)
            if isinstance(answer, Found):
                log.error("%s turned up after it was declared not placed", order.client_order_id)
                await self._see_to_the_end(await self.settle(order, answer.execution), None)
                return

    async def follow(self, order: Order) -> None:
        """A resting order, until it ends."""
        loop = asyncio.get_running_loop()
        known_at, not_found = loop.time(), 0
        while order.status in RESTING:
            await asyncio.sleep(self._patience.follow)
            current = self._engine.books.orders.get(order.client_order_id)
            if current is None:
                return
            answer = await self.look_up(current)
            if isinstance(answer, Found):
                known_at, not_found = loop.time(), 0
                order = await self.settle(current, answer.execution)
                if order.executed_quantity != current.executed_quantity:
                    self._on_change(order)
            elif isinstance(answer, NotFound):
                not_found += 1
                if not_found >= FORGOTTEN_AFTER and loop.time() - known_at >= self._patience.forgotten:
                    order = await self.settle(current, _forgotten(current))
        self._market.refresh_soon(order.account)
        self._on_change(order)

    async def cancel(self, order: Order) -> None:
        answer = await self._question(self._brokers[order.account].cancel, order)
        if isinstance(answer, Found):
            await self.settle(order, answer.execution)

    async def look_up(self, order: Order) -> LookUp:
        broker = self._brokers.get(order.account)
        if broker is None:
            return NoAnswer(f"{order.broker} is not configured any more")
        return await self._question(broker.look_up, order)

    async def _question(self, question: Callable[[Order], LookUp], order: Order) -> LookUp:
        try:
            return await asyncio.wait_for(self._workers.on_thread(question, order), self._patience.ask)
        except TimeoutError:
            return NoAnswer("no answer in time")
        except Exception as exc:
            log.exception("looking up %s failed", order.client_order_id)
            return NoAnswer(type(exc).__name__)

    async def settle(self, order: Order, execution: Execution, never_left: bool = False) -> Order:
        try:
            settled = await self._written(lambda: self._desk.settle(order, execution, never_left))
            if settled.status is OrderStatus.REJECTED:
                self._market.doubt_rules(settled.instrument)
            return settled
        except ValueError as exc:
            # The exchange's records lag behind what it told before; the next look-up will know better.
            log.warning("ignored: %s", exc)
            return self._engine.books.orders.get(order.client_order_id, order)

    async def _written(self, write: Callable[[], T]) -> T:
        """An outcome is written until it is written: it happened, whatever the disk says."""
        while True:
            try:
                written = await self._workers.on_thread(write)
                self._engine.journal_problem = ""
                return written
            except JournalError as exc:
                self._engine.journal_problem = str(exc)
                log.error("an outcome is not on the record yet: %s", exc)
                await asyncio.sleep(self._patience.disk)

    async def recover(self, order: Order) -> None:
        """One answer from the exchange is enough to become ready: in doubt, the symbol stays closed for entries.

        Where only the owner can bring one about, the others are not kept waiting for it.
        """
        answer = await self.look_up(order)
        while isinstance(answer, NoAnswer) and not answer.for_long:
            log.warning("recovery of %s: %s", order.client_order_id, answer.reason)
            await asyncio.sleep(self._patience.longest_look)
            answer = await self.look_up(order)
        if isinstance(answer, Found):
            order = await self.settle(order, answer.execution)
        elif order.status is OrderStatus.SENT:
            note = "the program stopped before the outcome was known"
            order = await self.settle(order, Execution(OrderStatus.UNKNOWN, note=note))
        self._workers.spawn(self._finish_recovered(order))

    async def catch_up_resting(self, order: Order) -> None:
        """It may have filled meanwhile: books that do not know it would differ from the account."""
        answer = await self.look_up(order)
        if isinstance(answer, Found):
            order = await self.settle(order, answer.execution)
        self._workers.spawn(self.follow(order))

    async def _finish_recovered(self, order: Order) -> None:
        if order.status is OrderStatus.UNKNOWN:
            order = await self.resolve(order, self._left_at_least_seconds_ago(order))
        await self._see_to_the_end(order, None)

    def _left_at_least_seconds_ago(self, order: Order) -> float:
        """An exit may have been sent again up to the crash itself, so its time starts anew."""
        if not order.is_entry:
            return 0.0
        since_sent = (self._clock() - (order.sent_at or order.created_at)).total_seconds()
        return max(0.0, since_sent - self._patience.slack)


def _forgotten(order: Order) -> Execution:
    """Binance wipes its testnet about once a month; what was executed before stays as it was told."""
    note = f"{order.broker} does not know it any more; was the testnet reset?"
    told = (order.exchange_order_id, order.executed_quantity, order.executed_quote, order.fees)
    return Execution(OrderStatus.CANCELED, *told, note)
