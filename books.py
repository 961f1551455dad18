"""The books: everything the decisions need to know, folded from the journal's events. Pure: no clock, no lock, no disk.

The same fold runs live and at start, so that what is remembered after a crash is what was known before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import takewhile

from models import (
    ENDINGS,
    LEGAL_CHANGES,
    RESTING,
    UNSETTLED,
    ZERO,
    DecisionRecord,
    Execution,
    Fee,
    Order,
    OrderStatus,
    Side,
)
from portfolio import Position, Trade, after_trade

# Outlives any balance that decisions may still use (5 s) and any look-up that may still tell the ending again (12 s).
RECENT = timedelta(seconds=30)


NEVER_EXISTED = frozenset({OrderStatus.NOT_PLACED, OrderStatus.REJECTED})


@dataclass(frozen=True, slots=True)
class Decided:
    """An alert was judged; when accepted, its order's intent is part of the same record."""

    record: DecisionRecord

    @property
    def at(self) -> datetime:
        return self.record.decided_at


@dataclass(frozen=True, slots=True)
class OrderChanged:
    """An order's next chapter: the whole new value."""

    order: Order
    at: datetime


@dataclass(frozen=True, slots=True)
class Switched:
    """The owner paused or resumed trading."""

    paused: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """A setting's new text, as `.env` would have it: empty = off, or all of a list; None = back to the default."""

    name: str
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Preferred:
    """The owner changed settings while it runs."""

    changes: tuple[Change, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class Preference:
    """What the owner wants of a setting, whatever the environment says, and since when."""

    text: str
    since: datetime


Event = Decided | OrderChanged | Switched | Preferred

PositionKey = tuple[str, str]  # broker, symbol
CooldownKey = tuple[str, str, Side]  # broker, symbol, action of the entry


@dataclass(frozen=True, slots=True)
class Books:
    """`orders` are those without an ending, `recent` those that ended a short while ago; money in quote currency."""

    orders: Mapping[str, Order] = field(default_factory=dict)
    recent: tuple[Order, ...] = ()
    positions: Mapping[PositionKey, Position] = field(default_factory=dict)
    flows: Mapping[tuple[str, str], Decimal] = field(default_factory=dict)  # (broker, asset) -> net change by fills
    last_accepted: Mapping[CooldownKey, datetime] = field(default_factory=dict)
    day: date = date.min
    entries_today: int = 0
    realized_today: Decimal = ZERO
    paused: bool = False
    preferences: Mapping[str, Preference] = field(default_factory=dict)

    def as_of(self, now: datetime) -> Books:
        """The same books on the day of `now`, in UTC. A clock that steps back never brings a spent day back."""
        today = now.astimezone(UTC).date()
        if today <= self.day:
            return self
        return replace(self, day=today, entries_today=0, realized_today=ZERO)

    def position(self, broker: str, symbol: str) -> Position | None:
        return self.positions.get((broker, symbol))

    @property
    def open_trades(self) -> int:
        """Entries that are held, plus entries under way that hold nothing yet."""
        held = sum(position.open_trades for position in self.positions.values())
        return held + sum(1 for order in self.orders.values() if order.is_entry and not self._is_held(order))

    def _is_held(self, order: Order) -> bool:
        position = self.position(order.broker, order.symbol)
        return bool(order.executed_quantity and position and position.is_open)

    def last_entry_at(self, broker: str, symbol: str) -> datetime | None:
        """When the last entry was accepted, for the cooldown."""
        return self.last_accepted.get((broker, symbol, Side.BUY))

    def unresolved(self, broker: str, symbol: str) -> tuple[Order, ...]:
        """Orders of the symbol of which nobody knows yet what they will have done: an exit that waits, too.

        It sells what is held when its turn comes; an entry that slipped in before would be sold with the rest.
        """
        doubtful = (OrderStatus.UNKNOWN, OrderStatus.INTENT)
        return tuple(o for o in self.on_symbol(broker, symbol) if o.status in doubtful)

    def unsettled(self, broker: str, symbol: str) -> tuple[Order, ...]:
        """Orders of the symbol that have no outcome yet: waiting, under way or unresolved."""
        return tuple(o for o in self.on_symbol(broker, symbol) if o.status in UNSETTLED)

    def resting(self, broker: str, symbol: str) -> tuple[Order, ...]:
        return tuple(o for o in self.on_symbol(broker, symbol) if o.status in RESTING)

    def on_symbol(self, broker: str, symbol: str) -> tuple[Order, ...]:
        return tuple(o for o in self.orders.values() if o.broker == broker and o.symbol == symbol)

    def sellable(self, broker: str, symbol: str) -> Decimal:
        """Base units held that no order is selling already."""
        position = self.position(broker, symbol)
        held = position.quantity if position else ZERO
        return max(ZERO, held - self.base_being_sold(broker, symbol))

    def base_being_sold(self, broker: str, symbol: str) -> Decimal:
        selling = (o for o in self.on_symbol(broker, symbol) if o.side is Side.SELL)
        return sum((max(ZERO, o.reserved_base - o.executed_quantity) for o in selling), ZERO)

    def base_set_aside(self, broker: str, asset: str, balance_asked_at: datetime) -> Decimal:
        """As `quote_set_aside`, of what sells: a resting sell that the balance has seen is locked there already."""
        sells = (
            o
            for o in self._unseen_by(balance_asked_at)
            if o.broker == broker and o.side is Side.SELL and o.rules.base_asset == asset
        )
        return sum((o.executed_quantity if o.has_ended else o.reserved_base for o in sells), ZERO)

    def quote_set_aside(self, broker: str, asset: str, balance_asked_at: datetime) -> Decimal:
        """Quote currency that a balance asked for at that moment may still show as free although it is spoken for."""
        buys = (
            o
            for o in self._unseen_by(balance_asked_at)
            if o.broker == broker and o.side is Side.BUY and o.rules.quote_asset == asset
        )
        return sum((o.executed_quote if o.has_ended else o.reserved_quote for o in buys), ZERO)

    def _unseen_by(self, balance_asked_at: datetime) -> Iterator[Order]:
        """Orders that a balance asked for at that moment need not show yet."""
        for order in self.orders.values():
            if order.settled_at is None or order.settled_at >= balance_asked_at:
                yield order
        # In the order of their endings: of thirty busy seconds, only the last few are looked at.
        yield from takewhile(lambda o: o.settled_at is None or o.settled_at >= balance_asked_at, reversed(self.recent))


def fold(books: Books, event: Event) -> Books:
    """The books after one more event."""
    if isinstance(event, Switched):
        return replace(books, paused=event.paused)
    if isinstance(event, Preferred):
        return replace(books, preferences=_with_changes(books.preferences, event))
    books = books.as_of(event.at)
    if isinstance(event, Decided):
        return _with_decision(books, event.record)
    return _with_order(books, event.order, event.at)


def advanced(books: Books, order: Order, execution: Execution, at: datetime) -> Order:
    """The order with what its broker said, realised P&L included. Raises ValueError for an illegal change."""
    if execution.status not in LEGAL_CHANGES[order.status]:
        raise ValueError(f"{order.client_order_id}: {order.status} cannot become {execution.status}")
    if execution.executed_quantity < order.executed_quantity:
        raise ValueError(f"{order.client_order_id}: executed quantity cannot shrink")
    changed = replace(
        order,
        status=execution.status,
        exchange_order_id=execution.exchange_order_id or order.exchange_order_id,
        executed_quantity=execution.executed_quantity,
        executed_quote=execution.executed_quote,
        fees=execution.fees or order.fees,
        settled_at=at if execution.status not in UNSETTLED else None,
        note=execution.note,
    )
    _, realized = _executed(books, order, changed)
    if realized is None:
        return changed
    return replace(changed, realized_pnl=(order.realized_pnl or ZERO) + realized)


def _with_changes(preferences: Mapping[str, Preference], event: Preferred) -> Mapping[str, Preference]:
    texts = {change.name: change.text for change in event.changes}
    kept = {name: preference for name, preference in preferences.items() if name not in texts}
    return kept | {name: Preference(text, event.at) for name, text in texts.items() if text is not None}


def _with_decision(books: Books, record: DecisionRecord) -> Books:
    order = record.order
    if order is None:
        return books
    return replace(
        books,
        orders={**books.orders, order.client_order_id: order},
        last_accepted=_with_cooldown(books, order),
        # Whatever the clock says: after a step back to yesterday, an entry still counts against a limit.
        entries_today=books.entries_today + order.is_entry,
    )


def _with_cooldown(books: Books, order: Order) -> Mapping[CooldownKey, datetime]:
    """Entries start a cooldown; one that was proven never to exist gives it back, so that a resend is a new try."""
    key = (order.broker, order.symbol, order.side)
    if order.status in NEVER_EXISTED:
        others = books.last_accepted.items()
        return {k: at for k, at in others if k != key or at != order.created_at}
    # Only when it is decided: that it became unknown later must not put an older time over a newer entry's.
    if order.is_entry and order.status is OrderStatus.SENT:
        return {**books.last_accepted, key: order.created_at}
    return books.last_accepted


def _with_order(books: Books, order: Order, at: datetime) -> Books:
    before = books.orders.get(order.client_order_id)
    position, realized = _executed(books, before, order)
    orders = {key: other for key, other in books.orders.items() if key != order.client_order_id}
    recent = _still_recent(books.recent, at)
    if order.status in ENDINGS:
        recent = (*recent, order)
    else:
        orders[order.client_order_id] = order
    counted_before = _counts_today(books, before) if before else 0
    return replace(
        books,
        orders=orders,
        recent=recent,
        positions={**books.positions, (order.broker, order.symbol): position} if position else books.positions,
        flows=_with_flows(books, before, order),
        last_accepted=_with_cooldown(books, order),
        entries_today=books.entries_today + _counts_today(books, order) - counted_before,
        realized_today=books.realized_today + (realized or ZERO),
    )


def _still_recent(recent: tuple[Order, ...], at: datetime) -> tuple[Order, ...]:
    """In the order of their endings, so that only the oldest few need a look."""
    old = takewhile(lambda order: at - (order.settled_at or at) > RECENT, recent)
    return recent[sum(1 for _ in old) :]


def _counts_today(books: Books, order: Order) -> int:
    """An entry counts on the day it was decided, unless it is proven that nothing was placed."""
    placed = order.status not in NEVER_EXISTED
    return int(order.is_entry and placed and order.created_at.astimezone(UTC).date() == books.day)


def _executed(books: Books, before: Order | None, order: Order) -> tuple[Position | None, Decimal | None]:
    """The position after what is newly executed of the order, and the P&L which that part realised."""
    trade = _new_part(before, order)
    if trade is None:
        return None, None
    position = books.position(order.broker, order.symbol) or Position(order.broker, order.symbol, order.rules)
    return after_trade(position.under(order.rules), trade)


def _new_part(before: Order | None, order: Order) -> Trade | None:
    done_before = before.executed_quantity if before else ZERO
    quantity = order.executed_quantity - done_before
    fees = _new_fees(before, order)
    if not quantity and not fees:
        return None
    quote = order.executed_quote - (before.executed_quote if before else ZERO)
    return Trade(order.side, quantity, quote, fees, opens_lot=not done_before)


def _new_fees(before: Order | None, order: Order) -> tuple[Fee, ...]:
    old = before.fees if before else ()
    assets = dict.fromkeys(fee.asset for fee in order.fees)
    paid_before = {asset: sum((f.amount for f in old if f.asset == asset), ZERO) for asset in assets}
    new = (Fee(asset, order.fee_in(asset) - paid_before[asset]) for asset in assets)
    return tuple(fee for fee in new if fee.amount)


def _with_flows(books: Books, before: Order | None, order: Order) -> Mapping[tuple[str, str], Decimal]:
    trade = _new_part(before, order)
    if trade is None:
        return books.flows
    sign = 1 if order.side is Side.BUY else -1
    changes = [(order.rules.base_asset, sign * trade.quantity), (order.rules.quote_asset, -sign * trade.quote)]
    changes += [(fee.asset, -fee.amount) for fee in trade.fees]
    flows = dict(books.flows)
    for asset, change in changes:
        key = (order.broker, asset)
        flows[key] = flows.get(key, ZERO) + change
    return flows
