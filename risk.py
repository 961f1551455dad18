"""The risk engine: one lock around deciding, recording and remembering. Never held over a network call.

Deciding and recording are one step: between them, a second alert could be approved against the same last bit of
allowance. What is reserved here counts at once; every reservation ends in `settle`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

import intents
import protection
from books import Books, advanced, fold, missed_before
from case import Case, Limits
from checks import judge, judge_all, missed_alert
from events import Change, Decided, Event, OrderChanged, Overtook, Preferred, Switched, Valued, Worth
from fees import PriceOf, valued
from intents import new_id
from journal import Journal
from ledger import Ledger, OnWritten, Step
from models import (
    Account,
    Decision,
    DecisionRecord,
    Execution,
    Instrument,
    Order,
    OrderStatus,
    Signal,
    SymbolRules,
    TradedThere,
    Verdict,
)
from plan import may_enter
from preferences import InForce, Under
from protection import Guard
from sizing import View

# An alert that says when it fired can be told from its twin, so it is remembered much longer.
REMEMBER_FIRED_ALERTS = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Alert:
    """An authenticated alert, understood. `key` tells it from others; `account` is where it goes."""

    signal: Signal
    key: str
    account: Account
    received_at: datetime
    broker_problem: str = ""
    market_problem: str = ""
    by_owner: bool = False

    @property
    def broker(self) -> str:
        return self.account.broker

    @property
    def instrument(self) -> Instrument:
        return Instrument(*self.account, self.signal.symbol)


@dataclass(frozen=True, slots=True)
class Request:
    """An alert that wants a decision, with what is known of its market; `claim` says whether it still does."""

    alert: Alert
    view: View
    claim: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a decision would be, had it been made."""

    verdicts: Sequence[Verdict]
    order: Order | None
    note: str = ""


class RiskEngine:
    """The one owner of what is shared between threads. `books` is an immutable value and may be read at any time."""

    def __init__(
        self,
        journal: Journal,
        limits: Limits,
        under: Under | None = None,
        on_written: OnWritten = lambda events: None,
    ) -> None:
        """`under` lays the owner's preferences over the limits; without it they are only remembered.

        `on_written` is told what has gone on the record, while the next order waits.
        """
        self._journal = journal
        self._ledger = Ledger(journal, on_written)
        self._under = under or (lambda preferences: InForce(limits, limits, preferences))
        self.halted = ""
        self.clock_problem: Callable[[Account], str] = lambda account: ""  # why its exchange's clock forbids entries
        self.price_of: PriceOf = lambda instrument: None  # for what a fee in another coin is worth
        self.foreign: Mapping[Instrument, str] = {}  # positions that the accounts hold and the books do not
        self.journal_problem = ""  # why the last record could not be written

    @property
    def books(self) -> Books:
        return self._ledger.books

    @property
    def in_force(self) -> InForce:
        return self._under(self.books.preferences)

    @property
    def limits(self) -> Limits:
        return self.in_force.limits

    def decide(
        self, requests: Sequence[Request], clock: Callable[[], datetime]
    ) -> list[DecisionRecord | Exception | None]:
        """A decision for each, one after the other, all written in one go: on the record with its order's intent.

        None where nobody waits for it any more; an exception (JournalError when it cannot be written) where nothing
        was decided.
        """
        return self._ledger.run_all([(self._deciding(request, clock), request.alert.key) for request in requests])

    def _deciding(self, request: Request, clock: Callable[[], datetime]) -> Step[DecisionRecord | None]:
        claimed: bool | None = None

        def step(books: Books) -> tuple[Sequence[Event], DecisionRecord | None]:
            nonlocal claimed
            claimed = request.claim() if claimed is None else claimed
            if not claimed:
                return (), None
            # Looked at here and not before: around midnight, who waited for the lock must count to the day he enters.
            now = clock()
            record = self._duplicate(books, request.alert, now) or self._judged(books, request.alert, request.view, now)
            return [Decided(record), *_overtook(books, request.alert, record)], record

        return step

    def refuse_invalid(self, key: str, reason: str, check: str, received_at: datetime, now: datetime) -> DecisionRecord:
        """Puts an authenticated alert that could not be understood on the record."""
        record = DecisionRecord(
            new_id("s", now), key, now, received_at, Decision.INVALID, check, reason, signal=None, broker=""
        )
        return self._ledger.run(lambda books: ([Decided(record)], record))

    def preview(self, alert: Alert, view: View, now: datetime) -> Preview:
        """Every check's verdict and the order that would leave; changes nothing."""
        case = self._case(self.books, alert, view, now)
        verdicts = judge_all(case)
        if not all(verdict.passed for verdict in verdicts):
            return Preview(verdicts, None)
        if case.plan.is_reversal:
            behind = intents.behind_the_exit(case)
            refused = judge(behind)
            if refused is not None:
                note = f"only the way out; no entry after it ({refused.check}): {refused.reason}"
                return Preview(verdicts, intents.order_of(case, alert.received_at, "", now), note)
            return Preview([*verdicts, *judge_all(behind)], intents.order_of(behind, alert.received_at, "", now))
        return Preview(verdicts, intents.order_of(case, alert.received_at, "", now))

    def first_outcome(self, record: DecisionRecord) -> Order | None:
        """The order of a decision, or of the decision it repeats, as it stands now."""
        return self._journal.last_order(record.duplicate_of or record.signal_id)

    def settle(self, order: Order, execution: Execution, now: datetime, never_left: bool = False) -> Order:
        """Puts on the record what became of an order. Saying the same again changes nothing.

        An exit that was proven never placed and is still wanted gets its next attempt in the same transaction.
        Raises ValueError when the change is not legal, JournalError when it cannot be written (say it again then).
        """

        def step(books: Books) -> tuple[Sequence[Event], Order]:
            current = intents.latest(books, order)
            if intents.says_nothing_new(current, execution):
                return (), current
            changed = replace(self._advanced(books, current, execution, now), never_left=never_left)
            events = [OrderChanged(changed, now)]
            if intents.still_wanted(changed, fold(books, events[0]), now):
                events.append(OrderChanged(intents.next_attempt(changed, now), now))
            return events, changed

        return self._ledger.run(step)

    def _advanced(self, books: Books, order: Order, execution: Execution, now: datetime) -> Order:
        fees = valued(order, execution.fees, self.price_of)
        return advanced(books.as_of(now), order, replace(execution, fees=fees), now)

    def next_attempt(self, order: Order) -> Order | None:
        """The intent that took the place of an exit, if there is one."""
        orders = self.books.orders.values()
        same = (o for o in orders if (o.signal_id, o.leg) == (order.signal_id, order.leg))
        return next((o for o in same if o.attempt > order.attempt), None)

    def try_again(self, order: Order, rules: SymbolRules, there: Decimal | None, now: datetime) -> Order | None:
        """The intent that takes the place of a refused exit, if there is any use in one."""

        def step(books: Books) -> tuple[Sequence[Event], Order | None]:
            again = intents.another_try(intents.latest(books, order), books, rules, there, now)
            return ([OrderChanged(again, now)] if again else []), again

        return self._ledger.run(step)

    def blockers(self, order: Order) -> tuple[Order, ...]:
        """What an order waits for: those of its symbol without an outcome; a full exit also for what rests."""
        others = self.books.on(order.instrument)
        return tuple(o for o in others if o.client_order_id != order.client_order_id and intents.comes_before(o, order))

    def release(self, order: Order, view: View, now: datetime) -> Order:
        """Lets an order go that had to wait: on the record as sent, or ended where there is nothing to do any more.

        An exit is sized by what is held now. The entry of a reversal needs the way to be free.
        """

        def step(books: Books) -> tuple[Sequence[Event], Order]:
            current = books.orders.get(order.client_order_id, order)
            if current.status is not OrderStatus.INTENT:
                return (), current
            if current.is_entry:
                in_force = self._under(books.preferences)
                halted = self._halted(in_force, current.account)
                changed = intents.released_entry(current, books.as_of(now), in_force.limits, halted, now)
            else:
                changed = intents.released_exit(current, books, view, now)
            return [OrderChanged(changed, now)], changed

        return self._ledger.run(step)

    def guard(
        self, instrument: Instrument, rules: SymbolRules | None, now: datetime, price: Decimal | None = None
    ) -> Guard:
        """What the protection of a position needs next; orders to place are on the record as sent."""

        def step(books: Books) -> tuple[Sequence[Event], Guard]:
            found = protection.next_step(books, instrument, rules, now, lambda: new_id("gh", now), price)
            return [OrderChanged(order, now) for order in found.place], found

        return self._ledger.run(step)

    def take_over(self, instrument: Instrument, trade: TradedThere, most: Decimal, now: datetime) -> Order:
        """Puts on the record what somebody else closed at the exchange: `most` base units of it were ours."""

        def step(books: Books) -> tuple[Sequence[Event], Order]:
            position = books.position(instrument)
            assert position is not None
            order, execution = intents.by_hand(position, trade, min(most, position.quantity), now)
            settled = self._advanced(books, order, execution, now)
            return [OrderChanged(settled, now)], settled

        return self._ledger.run(step)

    def on_record(self, instrument: Instrument, since: datetime) -> list[Order]:
        """Our orders that changed since then, and those by hand that were taken over. Raises JournalError."""
        return [o for o in self._journal.orders_changed(instrument.symbol, since) if o.instrument == instrument]

    def has_ended(self, symbol: str, client_order_id: str) -> bool:
        """Whether it is on our record as an order that has ended. Raises JournalError."""
        order = self._journal.order(symbol, client_order_id)
        return order is not None and order.has_ended

    def switch(self, paused: bool, now: datetime) -> None:
        """Pause or resume entries; on the record, so that a restart remembers it."""
        self._ledger.run(lambda books: ([Switched(paused, now)], None))

    def prefer(self, changes: Mapping[str, str | None], now: datetime, by: str = "") -> None:
        """Changes settings, all of these or none; None = back to the default. Holds from the very next decision on.

        Raises PreferenceError where they are not fit to be in force, JournalError when they cannot be written.
        """

        def step(books: Books) -> tuple[Sequence[Event], None]:
            event = Preferred(tuple(Change(name, text) for name, text in changes.items()), now, by)
            self._under(fold(books, event).preferences).refuse_ignored(changes)
            return [event], None

        self._ledger.run(step)

    def value(self, worths: Sequence[Worth], now: datetime) -> None:
        """Puts on the record what accounts are worth. Raises JournalError."""
        self._ledger.run(lambda books: ([Valued(tuple(worths), now)], None))

    def probe(self) -> None:
        """Raises JournalError while the journal cannot be written."""
        self._ledger.probe()

    def save_books(self) -> None:
        """Now and then, so that the next start need not fold the whole history. Raises JournalError."""
        self._ledger.save()

    def put_away(self) -> None:
        """When it stops: the journal is one file then. Raises JournalError."""
        self._ledger.save()
        self._ledger.put_away()

    def _duplicate(self, books: Books, alert: Alert, now: datetime) -> DecisionRecord | None:
        first = self._journal.seen(alert.key)
        if first is None or not self._is_repeat(books, alert, now - first.decided_at):
            return None
        order = self._journal.last_order(first.signal_id)
        if order is not None and order.never_left:
            return None
        outcome = f"order {order.client_order_id} is {order.status}" if order else first.reason
        return DecisionRecord(
            signal_id=new_id("s", now),
            key=alert.key,
            decided_at=now,
            received_at=alert.received_at,
            decision=Decision.DUPLICATE,
            check="duplicate",
            reason=f"Seen before as {first.signal_id} ({first.decision}): {outcome}",
            signal=alert.signal,
            broker=alert.broker,
            duplicate_of=first.signal_id,
        )

    def _is_repeat(self, books: Books, alert: Alert, age: timedelta) -> bool:
        """After the clock stepped back, the first of two seems to lie ahead: an entry is still a repeat then.

        A way out must not stay shut until the clock is there again, and a second one finds nothing left to sell.
        """
        window = timedelta(seconds=float(self._under(books.preferences).limits.dedupe_seconds))
        window = max(window, REMEMBER_FIRED_ALERTS) if alert.signal.fired_at else window
        return age <= window and (age >= -window or may_enter(alert.signal, alert.account.market))

    def _judged(self, books: Books, alert: Alert, view: View, now: datetime) -> DecisionRecord:
        case = self._case(books, alert, view, now)
        refusal = judge(case)
        signal_id = new_id("s", now)
        order = None if refusal else intents.order_of(case, alert.received_at, signal_id, now)
        reason = refusal.reason if refusal else intents.accepted_reason(case)
        exit_first = None
        if order is not None and case.plan.is_reversal:
            behind = intents.behind_the_exit(case)
            no_entry = judge(behind)
            if no_entry is None:
                exit_first, order = (
                    replace(order, leg="exit"),
                    intents.order_of(behind, alert.received_at, signal_id, now),
                )
                reason = f"{reason}; then the entry: {behind.size.text(behind.rules or order.rules)}"
            else:
                reason = f"{reason}; no entry after it ({no_entry.check}): {no_entry.reason}"
        note = missed_alert(case)
        return DecisionRecord(
            signal_id=signal_id,
            key=alert.key,
            decided_at=now,
            received_at=alert.received_at,
            decision=Decision.REJECTED if refusal else Decision.ACCEPTED,
            check=refusal.check if refusal else "",
            reason=f"{reason}; {note}" if note else reason,
            signal=alert.signal,
            broker=alert.broker,
            order=order,
            exit_first=exit_first,
            missed=note,
        )

    def _halted(self, in_force: InForce, account: Account) -> str:
        """Why nothing may be entered there."""
        return self.halted or in_force.problem or self.clock_problem(account)

    def _case(self, books: Books, alert: Alert, view: View, now: datetime) -> Case:
        # Of these very books, which a change may have just become part of, and not of those on the disk.
        in_force = self._under(books.preferences)
        return Case(
            alert.signal,
            alert.instrument,
            view,
            books.as_of(now),
            in_force.limits,
            now,
            broker_problem=alert.broker_problem,
            market_problem=alert.market_problem,
            foreign_position=self.foreign.get(alert.instrument, ""),
            halted=self._halted(in_force, alert.account),
            by_owner=alert.by_owner,
        )


def _overtook(books: Books, alert: Alert, record: DecisionRecord) -> Sequence[Overtook]:
    """An exit before its entry has nothing to close: the entry must not open what nobody would close again."""
    if record.check not in ("no_position", "target") or alert.by_owner:
        return ()
    missed = missed_before(books, alert.instrument, alert.signal, record.decided_at, followed=False)
    return () if missed is None else (Overtook(*alert.instrument, missed),)
