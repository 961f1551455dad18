"""The books: everything the decisions need to know, folded from the journal's events. Pure: no clock, no lock, no disk.

The same fold runs live and at start, so that what is remembered after a crash is what was known before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import takewhile

from events import Decided, Event, Missed, Overtook, Preferred, Switched, Valued, is_near
from fees import total_in
from models import (
    DOLLARS,
    ENDINGS,
    LEGAL_CHANGES,
    RESTING,
    UNSETTLED,
    ZERO,
    Account,
    DecisionRecord,
    Execution,
    Fee,
    Instrument,
    Order,
    OrderStatus,
    Protection,
    ProtectionWish,
    Side,
    Signal,
)
from portfolio import Position, Trade, after_trade

# Outlives any balance that decisions may still use (5 s) and any look-up that may still tell the ending again (12 s).
RECENT = timedelta(seconds=30)

WORDS = {1: "long", -1: "short", 0: "flat"}
NEVER_EXISTED = frozenset({OrderStatus.NOT_PLACED, OrderStatus.REJECTED})


@dataclass(frozen=True, slots=True)
class Preference:
    """What the owner wants of a setting, whatever the environment says, since when, and who said so."""

    text: str
    since: datetime
    by: str = ""


CooldownKey = tuple[Instrument, Side]  # the action of the entry


@dataclass(frozen=True, slots=True)
class Books:
    """`orders` are those without an ending, `recent` those that ended a short while ago; money in quote currency."""

    orders: Mapping[str, Order] = field(default_factory=dict)
    recent: tuple[Order, ...] = ()
    positions: Mapping[Instrument, Position] = field(default_factory=dict)
    flows: Mapping[tuple[Account, str], Decimal] = field(default_factory=dict)  # of an asset: net change by fills
    last_accepted: Mapping[CooldownKey, datetime] = field(default_factory=dict)
    missed: Mapping[Instrument, Missed] = field(default_factory=dict)  # by the last alert that was followed
    day: date = date.min
    entries_today: int = 0
    realized_today: Decimal = ZERO  # in dollars: what was realised in another currency is not added to them
    paused: bool = False
    preferences: Mapping[str, Preference] = field(default_factory=dict)

    def as_of(self, now: datetime) -> Books:
        """The same books on the day of `now`, in UTC. A clock that steps back never brings a spent day back."""
        today = now.astimezone(UTC).date()
        if today <= self.day:
            return self
        return replace(self, day=today, entries_today=0, realized_today=ZERO)

    def position(self, instrument: Instrument) -> Position | None:
        return self.positions.get(instrument)

    def held(self, instrument: Instrument) -> Decimal:
        """Base units, negative for a short; dust is nothing."""
        position = self.positions.get(instrument)
        return position.signed if position and position.is_open else ZERO

    @property
    def open_trades(self) -> int:
        """Entries that are held, plus entries under way that hold nothing yet."""
        held = sum(position.open_trades for position in self.positions.values())
        return held + sum(1 for order in self.orders.values() if order.is_entry and not self._is_held(order))

    def _is_held(self, order: Order) -> bool:
        position = self.position(order.instrument)
        return bool(order.executed_quantity and position and position.is_open)

    def last_entry_at(self, instrument: Instrument, side: Side) -> datetime | None:
        """When the last entry on that side was accepted, for the cooldown."""
        return self.last_accepted.get((instrument, side))

    def unresolved(self, instrument: Instrument) -> tuple[Order, ...]:
        """Orders of which nobody knows yet what they will have done: an exit that waits, too.

        It closes what is held when its turn comes; an entry that slipped in before would be closed with the rest.
        """
        doubtful = (OrderStatus.UNKNOWN, OrderStatus.INTENT)
        return tuple(o for o in self.on(instrument) if o.status in doubtful)

    def word(self, instrument: Instrument) -> str:
        """long, short or flat: what is held."""
        held = self.held(instrument)
        return WORDS[(held > 0) - (held < 0)]

    def disagrees(self, instrument: Instrument, said: str | None) -> bool:
        """Whether a strategy that was `said` believes in another position than is held, or will be in a moment."""
        return said is not None and said not in (self.word(instrument), WORDS[self.heading(instrument)])

    def heading(self, instrument: Instrument) -> int:
        """1 long, -1 short, 0 flat: what will be held when everything of ours has ended, as far as can be told."""
        held = self.held(instrument)
        sign = (held > 0) - (held < 0)
        for order in sorted(self.on(instrument), key=lambda o: (o.created_at, o.is_entry)):
            if order.is_entry:
                sign = 1 if order.side is Side.BUY else -1
            elif order.exits_all and order.status in UNSETTLED:
                # One that only rests may wait for ever: until then the position is there.
                sign = 0
        return sign

    def unsettled(self, instrument: Instrument) -> tuple[Order, ...]:
        """Orders that have no outcome yet: waiting, under way or unresolved."""
        return tuple(o for o in self.on(instrument) if o.status in UNSETTLED)

    def resting(self, instrument: Instrument) -> tuple[Order, ...]:
        return tuple(o for o in self.on(instrument) if o.status in RESTING)

    def protecting(self, instrument: Instrument) -> tuple[Order, ...]:
        """Stop-losses and the like that have not ended."""
        return tuple(o for o in self.on(instrument) if o.is_protection)

    def on(self, instrument: Instrument) -> tuple[Order, ...]:
        return tuple(o for o in self.orders.values() if o.symbol == instrument.symbol and o.instrument == instrument)

    def closable(self, instrument: Instrument, side: Side) -> Decimal:
        """Base units that an order on that side can close, and that no other is closing already.

        Protection does not count: it is taken away before anything else closes.
        """
        position = self.position(instrument)
        if position is None or position.is_short is not (side is Side.BUY):
            return ZERO
        held = position.quantity
        return max(ZERO, held - self.base_being_closed(instrument))

    def base_being_closed(self, instrument: Instrument) -> Decimal:
        closing = (o for o in self.on(instrument) if not o.is_entry and not o.is_protection)
        return sum((max(ZERO, o.reserved_base - o.executed_quantity) for o in closing), ZERO)

    def base_set_aside(self, account: Account, asset: str, balance_asked_at: datetime) -> Decimal:
        """As `quote_set_aside`, of what sells: a resting sell that the balance has seen is locked there already."""
        sells = (
            o
            for o in self._unseen_by(balance_asked_at)
            if o.account == account and o.side is Side.SELL and o.rules.base_asset == asset
        )
        return sum((_taken_by(o) for o in sells), ZERO)

    def quote_set_aside(self, account: Account, asset: str, balance_asked_at: datetime) -> Decimal:
        """Quote currency that a balance asked for at that moment may still show as free although it is spoken for."""
        entries = (
            o
            for o in self._unseen_by(balance_asked_at)
            if o.is_entry and o.account == account and o.rules.quote_asset == asset
        )
        return sum((o.executed_quote / o.leverage if o.has_ended else o.reserved_quote for o in entries), ZERO)

    def _unseen_by(self, balance_asked_at: datetime) -> Iterator[Order]:
        """Orders that a balance asked for at that moment need not show yet."""
        for order in self.orders.values():
            if order.settled_at is None or order.settled_at >= balance_asked_at:
                yield order
        # In the order of their endings: of thirty busy seconds, only the last few are looked at.
        yield from takewhile(lambda o: o.settled_at is None or o.settled_at >= balance_asked_at, reversed(self.recent))


def _taken_by(sell: Order) -> Decimal:
    """Base units of the account, ours or not, that a sale has taken or will take. Protection gives way to it."""
    if sell.has_ended:
        return sell.executed_quantity
    return ZERO if sell.is_protection or sell.status is OrderStatus.INTENT else sell.quantity or ZERO


def fold(books: Books, event: Event) -> Books:
    """The books after one more event."""
    if isinstance(event, Valued):
        return books
    if isinstance(event, Switched):
        return replace(books, paused=event.paused)
    if isinstance(event, Preferred):
        return replace(books, preferences=_with_changes(books.preferences, event))
    if isinstance(event, Overtook):
        return replace(
            books, missed={**books.missed, Instrument(event.broker, event.market, event.symbol): event.missed}
        )
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
    return kept | {name: Preference(text, event.at, event.by) for name, text in texts.items() if text is not None}


def _with_decision(books: Books, record: DecisionRecord) -> Books:
    if record.order is not None:
        books = replace(books, missed=_with_missed(books, record, record.order.instrument))
    for order in (record.exit_first, record.order):
        if order is not None:
            books = replace(
                books,
                orders={**books.orders, order.client_order_id: order},
                last_accepted=_with_cooldown(books, order),
                # Whatever the clock says: after a step back to yesterday, an entry still counts against a limit.
                entries_today=books.entries_today + order.is_entry,
            )
    return books


def _with_missed(books: Books, record: DecisionRecord, instrument: Instrument) -> Mapping[Instrument, Missed]:
    missed = missed_before(books, instrument, record.signal, record.decided_at) if record.signal else None
    if missed is not None:
        return {**books.missed, instrument: missed}
    return {i: missed for i, missed in books.missed.items() if i != instrument} if books.missed else books.missed


def missed_before(
    books: Books, instrument: Instrument, signal: Signal, at: datetime, *, followed: bool = True
) -> Missed | None:
    """What the strategy had before this alert, where that is not what is held."""
    size = signal.size_before
    if size is None and signal.prev_market_position is None:
        return None  # most alerts do not say
    word = books.word(instrument)
    held = None if books.unsettled(instrument) else books.held(instrument)
    said = signal.prev_market_position or (word if size is None else WORDS[(size > 0) - (size < 0)])
    if not books.disagrees(instrument, said) and (size is None or held is None or is_near(size, held)):
        return None
    return Missed(word, said, at, followed, held, size, signal.fired_at)


def _with_cooldown(books: Books, order: Order) -> Mapping[CooldownKey, datetime]:
    """Entries start a cooldown; one that was proven never to exist gives it back, so that a resend is a new try."""
    key = (order.instrument, order.side)
    if order.status in NEVER_EXISTED:
        others = books.last_accepted.items()
        return {k: at for k, at in others if k != key or at != order.created_at}
    # Only when it is decided: that it became unknown later must not put an older time over a newer entry's.
    if order.is_entry and order.status in (OrderStatus.SENT, OrderStatus.INTENT):
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
        positions={**books.positions, order.instrument: position} if position else books.positions,
        flows=_with_flows(books, before, order),
        last_accepted=_with_cooldown(books, order),
        entries_today=books.entries_today + _counts_today(books, order) - counted_before,
        realized_today=books.realized_today + (realized or ZERO if order.rules.quote_asset in DOLLARS else ZERO),
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
    position = books.position(order.instrument) or Position(
        order.broker, order.symbol, order.rules, market=order.market
    )
    after, realized = after_trade(position.under(order.rules), trade)
    if after.is_short is not position.is_short and after.protection is not None:
        after = replace(after, protection=None)  # it was meant for the other side
    return _with_protection(_dated(position, after, order), order), realized


def _dated(before: Position, after: Position, order: Order) -> Position:
    if not after.is_open:
        return replace(after, opened_at=None) if after.opened_at else after
    begins = not before.is_open or before.is_short is not after.is_short
    return replace(after, opened_at=order.created_at) if begins else after


def _with_protection(position: Position, order: Order) -> Position:
    """The last entry that asked for protection tells where the whole position is to be closed."""
    if not position.is_open:
        return replace(position, protection=None) if position.protection else position
    if not order.is_entry:
        return position
    position = replace(position, leverage=order.leverage)
    if order.protection is None or order.average_price is None:
        return position
    wanted = levels(order.protection, order.average_price, order.side)
    return replace(position, protection=replace(wanted, signal_id=order.signal_id, strategy=order.strategy))


def levels(wish: ProtectionWish, entry_price: Decimal, entry_side: Side) -> Protection:
    """Prices, from what was asked for and the price that the entry really got."""
    up = 1 if entry_side is Side.BUY else -1

    def at(price: Decimal | None, percent: Decimal | None, offset: Decimal | None, way: int) -> Decimal | None:
        if price is None and percent is not None:
            offset = entry_price * percent / 100
        return entry_price + way * offset if price is None and offset is not None else price

    return Protection(
        stop_loss=at(wish.stop_loss, wish.stop_loss_percent, wish.stop_loss_offset, -up),
        take_profit=at(wish.take_profit, wish.take_profit_percent, wish.take_profit_offset, up),
        trailing_percent=wish.trailing_percent,
    )


def _new_part(before: Order | None, order: Order) -> Trade | None:
    done_before = before.executed_quantity if before else ZERO
    quantity = order.executed_quantity - done_before
    fees = _new_fees(before, order)
    if not quantity and not fees:
        return None
    quote = order.executed_quote - (before.executed_quote if before else ZERO)
    return Trade(order.side, quantity, quote, fees, opens_lot=not done_before, may_open=order.is_entry)


def _new_fees(before: Order | None, order: Order) -> tuple[Fee, ...]:
    old = before.fees if before else ()
    assets = dict.fromkeys(fee.asset for fee in order.fees)
    new = (total_in(asset, order.fees).less(total_in(asset, old)) for asset in assets)
    return tuple(fee for fee in new if fee.amount or fee.value)


def _with_flows(books: Books, before: Order | None, order: Order) -> Mapping[tuple[Account, str], Decimal]:
    trade = _new_part(before, order)
    if trade is None:
        return books.flows
    sign = 1 if order.side is Side.BUY else -1
    changes = [(order.rules.base_asset, sign * trade.quantity), (order.rules.quote_asset, -sign * trade.quote)]
    changes += [(fee.asset, -fee.amount) for fee in trade.fees]
    flows = dict(books.flows)
    for asset, change in changes:
        key = (order.account, asset)
        flows[key] = flows.get(key, ZERO) + change
    return flows
