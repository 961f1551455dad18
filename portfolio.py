"""Positions, average cost and realised P&L: pure arithmetic from fills."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from fees import total_in
from models import ZERO, Fee, Instrument, Market, Protection, Side, SymbolRules


@dataclass(frozen=True, slots=True)
class Position:
    """What this program opened of one instrument and still holds.

    `quantity` in base units, never negative, net of fees taken in the base asset. `cost` in quote currency: what it
    cost, fees included; of a short: what it brought, less fees. `lots` are the remaining quantities of the entries,
    oldest first: the "open trades" of the limits.
    """

    broker: str
    symbol: str
    rules: SymbolRules
    quantity: Decimal = ZERO
    cost: Decimal = ZERO
    lots: tuple[Decimal, ...] = ()
    realized_pnl: Decimal = ZERO
    last_price: Decimal | None = None
    market: Market = Market.SPOT
    is_short: bool = False
    leverage: Decimal = Decimal(1)
    opened_at: datetime | None = None  # when its first entry was decided
    protection: Protection | None = None  # where it is to be closed
    # Of `cost`, what the entries of what is held paid in fees; there is no need of it to trade.
    fees_in_cost: Decimal = field(default=ZERO, compare=False, repr=False)
    # How many of the lots are more than dust; carried along, as counting them anew is too slow for an alert's way.
    counted: int | None = field(default=None, compare=False, repr=False)

    @property
    def instrument(self) -> Instrument:
        return Instrument(self.broker, self.market, self.symbol)

    @property
    def signed(self) -> Decimal:
        """Base units, negative for a short."""
        return -self.quantity if self.is_short else self.quantity

    @property
    def side(self) -> str:
        return "SHORT" if self.is_short else "LONG"

    @property
    def average_cost(self) -> Decimal | None:
        """Quote currency per base unit, entry fees included (of a short: taken off)."""
        return self.cost / self.quantity if self.quantity else None

    @property
    def is_open(self) -> bool:
        """More is held than dust.

        Dust is what the exchange would not let anybody sell: below its smallest quantity or clearly below its
        smallest notional. Judged by cost, so that a falling price alone never closes a position in the books, and
        by half of the limit, because rounding and fees take a sliver of even the smallest entry. A futures position
        has no dust: it can be closed at any size (reduce-only orders are free of the smallest notional).
        """
        if self.market is Market.FUTURES:
            return self.quantity > 0
        if self.quantity <= 0 or self.quantity < self._smallest:
            return False
        return self.cost * 2 >= self.rules.min_notional

    @property
    def _smallest(self) -> Decimal:
        return max(self.rules.min_quantity, self.rules.quantity_step)

    @property
    def open_trades(self) -> int:
        """Entries not yet sold again: each one counts against MAX_OPEN_TRADES."""
        if not self.is_open:
            return 0
        return max(1, self._lots_above_dust())

    def _lots_above_dust(self) -> int:
        if self.counted is not None:
            return self.counted
        smallest = self._smallest
        return sum(1 for lot in self.lots if lot >= smallest)

    def under(self, rules: SymbolRules) -> Position:
        """The same position under the exchange's present rules, which may call other lots dust."""
        return self if rules is self.rules or rules == self.rules else replace(self, rules=rules, counted=None)

    def gain_in_price(self, price: Decimal) -> Decimal:
        """As `unrealized_pnl`, without the fees of the entries, which the wallet has paid already."""
        return self.unrealized_pnl(price) + self.fees_in_cost

    def unrealized_pnl(self, price: Decimal) -> Decimal:
        gained = self.quantity * price - self.cost
        return -gained if self.is_short else gained


@dataclass(frozen=True, slots=True)
class Trade:
    """One order's newly executed part: totals of that part, in base units and quote currency."""

    side: Side
    quantity: Decimal
    quote: Decimal
    fees: tuple[Fee, ...] = ()
    opens_lot: bool = True  # False when the order already has a lot (a further part of the same order)
    may_open: bool = True  # an entry's; an exit only ever reduces, what is beyond the position was never ours

    def cost_in(self, quote: str) -> Decimal:
        """Fees in quote currency, with those in third coins that have a value."""
        return sum((fee.amount if fee.asset == quote else fee.value or ZERO for fee in self.fees), ZERO)


def after_trade(position: Position, trade: Trade) -> tuple[Position, Decimal | None]:
    """The position after a trade, and what the trade realised (None when it opened), both in quote currency."""
    opposes = position.quantity > 0 and (trade.side is Side.SELL) is not position.is_short
    if not opposes:
        return (_after_opening(position, trade), None) if trade.may_open else _after_nothing(position, trade)
    if not trade.may_open or trade.quantity <= position.quantity:
        return _after_closing(position, trade)
    # An entry that turned up late, against what is held by now: the account is netted, and so are the books.
    closing, opening = _split(trade, position.quantity)
    closed, realized = _after_closing(position, closing)
    return _after_opening(closed, opening), realized


def _after_opening(position: Position, trade: Trade) -> Position:
    # A fee in the base asset shrinks what arrived; what was paid stays the same, so the average cost carries it.
    received = trade.quantity - _taken_from_base(position, trade)
    kept = position if position.is_open else replace(position, lots=(), counted=0)
    grows = not trade.opens_lot and bool(kept.lots)
    before = kept.lots[-1] if grows else ZERO
    smallest, lot = position._smallest, before + received
    is_short = trade.side is Side.SELL
    fee = trade.cost_in(position.rules.quote_asset)
    return replace(
        kept,
        is_short=is_short,
        quantity=position.quantity + received,
        cost=position.cost + trade.quote + (-fee if is_short else fee),
        fees_in_cost=position.fees_in_cost + fee,
        lots=(*kept.lots[:-1], lot) if grows else (*kept.lots, lot),
        counted=kept._lots_above_dust() + (lot >= smallest) - (grows and before >= smallest),
        last_price=_price(trade) or position.last_price,
    )


def _after_closing(position: Position, trade: Trade) -> tuple[Position, Decimal]:
    """Average-cost method. What was closed beyond the position was the owner's own and earns nothing here."""
    gone = trade.quantity + _taken_from_base(position, trade)
    ours = min(gone, position.quantity)
    cost_of_ours = position.cost * ours / position.quantity
    fee = trade.cost_in(position.rules.quote_asset)
    turned_over = trade.quote + (fee if position.is_short else -fee)
    turnover_of_ours = turned_over * ours / gone if gone else ZERO
    realized = cost_of_ours - turnover_of_ours if position.is_short else turnover_of_ours - cost_of_ours
    quantity = position.quantity - ours
    closed = replace(
        position,
        is_short=position.is_short and quantity > 0,
        quantity=quantity,
        cost=position.cost - cost_of_ours if quantity else ZERO,
        fees_in_cost=position.fees_in_cost * quantity / position.quantity,
        lots=_without_oldest(position.lots, ours) if quantity else (),
        counted=None,
        realized_pnl=position.realized_pnl + realized,
        last_price=_price(trade) or position.last_price,
    )
    return closed, realized


def _taken_from_base(position: Position, trade: Trade) -> Decimal:
    """Fees that shrink what is held: on spot only. A futures position is as large as its trades, whatever paid them."""
    return total_in(position.rules.base_asset, trade.fees).amount if position.market is Market.SPOT else ZERO


def _after_nothing(position: Position, trade: Trade) -> tuple[Position, Decimal]:
    """An exit where nothing of ours is held: the owner's own was sold."""
    return replace(position, last_price=_price(trade) or position.last_price), ZERO


def _split(trade: Trade, quantity: Decimal) -> tuple[Trade, Trade]:
    """The first `quantity` base units of a trade, and the rest."""
    share = quantity / trade.quantity
    first = replace(
        trade,
        quantity=quantity,
        quote=trade.quote * share,
        fees=tuple(fee.share(share) for fee in trade.fees),
    )
    paid = zip(trade.fees, first.fees, strict=True)
    rest = replace(
        trade,
        quantity=trade.quantity - quantity,
        quote=trade.quote - first.quote,
        fees=tuple(all_.less(part) for all_, part in paid),
    )
    return first, rest


def _without_oldest(lots: tuple[Decimal, ...], sold: Decimal) -> tuple[Decimal, ...]:
    """First in, first out."""
    remaining: list[Decimal] = []
    for lot in lots:
        taken = min(lot, sold)
        sold -= taken
        if lot > taken:
            remaining.append(lot - taken)
    return tuple(remaining)


def _price(trade: Trade) -> Decimal | None:
    return trade.quote / trade.quantity if trade.quantity else None
