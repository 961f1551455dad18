"""The risk engine: one lock around deciding, recording and remembering. Never held over a network call.

Deciding and recording are one step: between them, a second alert could be approved against the same last bit of
allowance. What is reserved here counts at once; every reservation ends in `settle`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import sizing
from books import Books, Change, Decided, Event, OrderChanged, Preferred, Switched, advanced, fold
from checks import Case, Limits, judge, judge_all, missed_alert
from journal import Journal
from ledger import Ledger, Step
from models import (
    RESTING,
    UNSETTLED,
    ZERO,
    Action,
    Decision,
    DecisionRecord,
    Execution,
    Market,
    Order,
    OrderStatus,
    OrderType,
    Side,
    Signal,
    Verdict,
    plain,
)
from preferences import InForce, Under
from sizing import Size, View

# An alert that says when it fired can be told from its twin, so it is remembered much longer.
REMEMBER_FIRED_ALERTS = timedelta(days=7)

# An exit that was proven never placed is tried again while somebody may still be waiting for it.
MAX_EXIT_ATTEMPTS = 3
EXIT_IS_WANTED_FOR = timedelta(minutes=5)

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Alert:
    """An authenticated alert, understood. `key` tells it from others; `broker` is where it goes."""

    signal: Signal
    key: str
    broker: str
    received_at: datetime
    broker_problem: str = ""
    by_owner: bool = False


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


def new_id(prefix: str, now: datetime) -> str:
    """`[a-z0-9_]`, starts with a letter, at most 24 characters. Time and chance: unique even if the journal is lost."""
    return f"{prefix}{_base36(int(now.timestamp() * 1000))}_{_base36(secrets.randbits(50)):0>10}"


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text


class RiskEngine:
    """The one owner of what is shared between threads. `books` is an immutable value and may be read at any time."""

    def __init__(self, journal: Journal, limits: Limits, under: Under | None = None) -> None:
        """`under` lays the owner's preferences over the limits; without it they are only remembered."""
        self._journal = journal
        self._ledger = Ledger(journal)
        self._under = under or (lambda preferences: InForce(limits, limits, preferences))
        self.halted = ""

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
            return [Decided(record)], record

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
        accepted = all(verdict.passed for verdict in verdicts)
        return Preview(verdicts, _order(case, alert, "", now) if accepted else None)

    def first_outcome(self, record: DecisionRecord) -> Order | None:
        """The order of a decision, or of the decision it repeats, as it stands now."""
        return self._journal.last_order(record.duplicate_of or record.signal_id)

    def settle(self, order: Order, execution: Execution, now: datetime, never_left: bool = False) -> Order:
        """Puts on the record what became of an order. Saying the same again changes nothing.

        An exit that was proven never placed and is still wanted gets its next attempt in the same transaction.
        Raises ValueError when the change is not legal, JournalError when it cannot be written (say it again then).
        """

        def step(books: Books) -> tuple[Sequence[Event], Order]:
            current = _latest(books, order)
            if _says_nothing_new(current, execution):
                return (), current
            changed = replace(advanced(books.as_of(now), current, execution, now), never_left=never_left)
            events = [OrderChanged(changed, now)]
            if _still_wanted(changed, fold(books, events[0]), now):
                events.append(OrderChanged(_next_attempt(changed, now), now))
            return events, changed

        return self._ledger.run(step)

    def next_attempt(self, order: Order) -> Order | None:
        """The intent that took the place of an exit, if there is one."""
        orders = self.books.orders.values()
        return next((o for o in orders if o.signal_id == order.signal_id and o.attempt > order.attempt), None)

    def blockers(self, order: Order) -> tuple[Order, ...]:
        """What an exit waits for: orders of its symbol without an outcome, and for a full exit those that rest."""
        others = self.books.on_symbol(order.broker, order.symbol)
        return tuple(o for o in others if o.client_order_id != order.client_order_id and _comes_before(o, order))

    def release(self, order: Order, view: View, now: datetime) -> Order:
        """Lets an exit go that had to wait: sized by what is held now, on the record as sent, or ended for nothing."""

        def step(books: Books) -> tuple[Sequence[Event], Order]:
            current = books.orders.get(order.client_order_id, order)
            if current.status is not OrderStatus.INTENT:
                return (), current
            rules = view.rules or current.rules
            sellable = books.sellable(current.broker, current.symbol)
            wish = sizing.waiting_wish(current)
            size = sizing.exit_size(wish, rules, sellable, view.price, current.type, current.price)
            changed = _released(current, size, now)
            return [OrderChanged(changed, now)], changed

        return self._ledger.run(step)

    def switch(self, paused: bool, now: datetime) -> None:
        """Pause or resume entries; on the record, so that a restart remembers it."""
        self._ledger.run(lambda books: ([Switched(paused, now)], None))

    def prefer(self, changes: Mapping[str, str | None], now: datetime) -> None:
        """Changes settings, all of these or none; None = back to the default. Holds from the very next decision on.

        Raises PreferenceError where they are not fit to be in force, JournalError when they cannot be written.
        """

        def step(books: Books) -> tuple[Sequence[Event], None]:
            event = Preferred(tuple(Change(name, text) for name, text in changes.items()), now)
            self._under(fold(books, event).preferences).refuse_ignored(changes)
            return [event], None

        self._ledger.run(step)

    def probe(self) -> None:
        """Raises JournalError while the journal cannot be written."""
        self._ledger.probe()

    def save_books(self) -> None:
        """Now and then, so that the next start need not fold the whole history. Raises JournalError."""
        self._ledger.save()

    def _duplicate(self, books: Books, alert: Alert, now: datetime) -> DecisionRecord | None:
        first = self._journal.seen(alert.key)
        if first is None or not self._is_repeat(books, alert.signal, now - first.decided_at):
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

    def _is_repeat(self, books: Books, signal: Signal, age: timedelta) -> bool:
        """After the clock stepped back, the first of two seems to lie ahead: an entry is still a repeat then.

        A way out must not stay shut until the clock is there again, and a second one finds nothing left to sell.
        """
        window = timedelta(seconds=float(self._under(books.preferences).limits.dedupe_seconds))
        window = max(window, REMEMBER_FIRED_ALERTS) if signal.fired_at else window
        return age <= window and (age >= -window or signal.action is Action.BUY)

    def _judged(self, books: Books, alert: Alert, view: View, now: datetime) -> DecisionRecord:
        case = self._case(books, alert, view, now)
        refusal = judge(case)
        signal_id = new_id("s", now)
        order = None if refusal else _order(case, alert, signal_id, now)
        reason = refusal.reason if refusal else _accepted_reason(case)
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
        )

    def _case(self, books: Books, alert: Alert, view: View, now: datetime) -> Case:
        # Of these very books, which a change may have just become part of, and not of those on the disk.
        in_force = self._under(books.preferences)
        return Case(
            alert.signal,
            alert.broker,
            view,
            books.as_of(now),
            in_force.limits,
            now,
            broker_problem=alert.broker_problem,
            halted=self.halted or in_force.problem,
            by_owner=alert.by_owner,
        )


def _latest(books: Books, order: Order) -> Order:
    """As the books know it. Two may ask about one order at once: an ending told twice must not fill it twice."""
    ended = (o for o in reversed(books.recent) if o.client_order_id == order.client_order_id)
    return books.orders.get(order.client_order_id) or next(ended, order)


def _still_wanted(order: Order, books: Books, now: datetime) -> bool:
    if order.is_entry or order.status is not OrderStatus.NOT_PLACED or order.never_left:
        return False
    if order.attempt >= MAX_EXIT_ATTEMPTS or now - order.received_at > EXIT_IS_WANTED_FOR:
        return False
    later_entry = books.last_entry_at(order.broker, order.symbol)
    if later_entry is not None and later_entry > order.received_at:
        return False
    return books.sellable(order.broker, order.symbol) > 0


def _says_nothing_new(order: Order, execution: Execution) -> bool:
    same = (order.status, order.executed_quantity) == (execution.status, execution.executed_quantity)
    return same and len(order.fees) >= len(execution.fees)


def _comes_before(other: Order, order: Order) -> bool:
    if other.status is OrderStatus.INTENT:
        return (other.created_at, other.client_order_id) < (order.created_at, order.client_order_id)
    return other.status in UNSETTLED or (order.exits_all and other.status in RESTING)


def _accepted_reason(case: Case) -> str:
    kind = "exit" if case.is_exit else "entry"
    if case.waits:
        return f"Accepted {kind}: waits for the orders of {case.signal.symbol} that are under way"
    assert case.rules is not None
    return f"Accepted {kind} on {case.signal.symbol}: {case.size.text(case.rules)}"


def _order(case: Case, alert: Alert, signal_id: str, now: datetime) -> Order:
    """The intent. Only called when every check passed, so the rules are known."""
    assert case.rules is not None
    signal, size, wish = case.signal, case.size, case.wish
    waits, limit = case.waits, signal.type is OrderType.LIMIT
    return Order(
        client_order_id=new_id("gh", now) if signal_id else "",
        signal_id=signal_id,
        broker=case.broker,
        market=Market.SPOT,
        symbol=signal.symbol,
        side=Side.SELL if case.is_exit else Side.BUY,
        type=OrderType.LIMIT if limit else OrderType.MARKET,
        is_entry=not case.is_exit,
        rules=case.rules,
        received_at=alert.received_at,
        created_at=now,
        quantity=wish.quantity if waits else size.quantity,
        amount=wish.amount if waits else size.amount,
        price=size.limit_price,
        reference_price=case.view.price or signal.price,
        strategy=signal.strategy or "",
        status=OrderStatus.INTENT if waits else OrderStatus.SENT,
        sent_at=None if waits else now,
        reserved_quote=ZERO if case.is_exit else size.notional or ZERO,
        reserved_base=size.quantity or ZERO if case.is_exit and not waits else ZERO,
        reduce_only=case.is_exit and wish.reduce_only,
        exits_all=case.is_exit and wish.is_everything,
        percent_of_position=wish.percent if case.is_exit else None,
    )


def _next_attempt(order: Order, now: datetime) -> Order:
    return replace(
        order,
        client_order_id=new_id("gh", now),
        status=OrderStatus.INTENT,
        quantity=None if order.exits_all else order.quantity,
        created_at=now,
        sent_at=None,
        settled_at=None,
        reserved_base=ZERO,
        attempt=order.attempt + 1,
        note="",
    )


def _released(order: Order, size: Size, now: datetime) -> Order:
    quantity = size.quantity or ZERO
    smallest = max(sizing.smallest_quantity(order.rules, order.type), sizing.quantity_step(order.rules, order.type))
    least = sizing.smallest_notional(order.rules, order.type, is_exit=True)
    too_little = size.notional is not None and size.notional < least
    if quantity <= 0 or quantity < smallest or too_little:
        note = f"nothing left to sell: {plain(quantity)} held is below the exchange's smallest order"
        return replace(order, status=OrderStatus.NOT_PLACED, settled_at=now, note=note)
    return replace(
        order,
        status=OrderStatus.SENT,
        quantity=quantity,
        amount=None,
        price=size.limit_price,
        sent_at=now,
        reserved_base=quantity,
    )
