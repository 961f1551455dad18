"""Stop-loss, take-profit and trailing stop: what an entry asks for, and the orders that a position needs. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Protocol

import sizing
from books import Books, levels
from models import (
    UNSETTLED,
    ZERO,
    Instrument,
    Market,
    Order,
    OrderStatus,
    OrderType,
    ProtectionWish,
    Side,
    Signal,
    SymbolRules,
    is_on_grid,
    plain,
    round_down,
)
from portfolio import Position

# callbackRate in percent: https://developers.binance.com/docs/derivatives/usds-margined-futures/trade/rest-api/
# New-Algo-Order; trailingDelta in basis points: https://developers.binance.com/docs/binance-spot-api-docs/filters
TRAILING_PERCENTS = (Decimal("0.1"), Decimal(20))
TRAILING_STEPS = {Market.SPOT: Decimal("0.01"), Market.FUTURES: Decimal("0.1")}
# What is left of a quantity once the fee is paid, with a little to spare.
AFTER_FEES = Decimal("0.998")

LEGS = {
    OrderType.STOP: "stop_loss",
    OrderType.TAKE_PROFIT: "take_profit",
    OrderType.TRAILING_STOP: "trailing_stop",
}

NOTHING_ASKED = ProtectionWish()


class Defaults(Protocol):
    """The owner's settings for alerts that name no protection; percent, None = off."""

    @property
    def stop_loss_percent(self) -> Decimal | None: ...
    @property
    def take_profit_percent(self) -> Decimal | None: ...
    @property
    def trailing_stop_percent(self) -> Decimal | None: ...


def wish(signal: Signal, defaults: Defaults) -> ProtectionWish | None:
    """What the alert says; the settings for what it leaves open. An alert's own stop replaces both of their stops."""
    own_stop = signal.stop_loss or signal.stop_loss_percent or signal.stop_loss_offset or signal.trailing_percent
    own_profit = signal.take_profits or signal.take_profit_percent or signal.take_profit_offset
    asked = ProtectionWish(
        stop_loss=signal.stop_loss,
        stop_loss_percent=signal.stop_loss_percent if own_stop else defaults.stop_loss_percent,
        stop_loss_offset=signal.stop_loss_offset,
        take_profit=signal.take_profits[0] if signal.take_profits else None,
        take_profit_percent=signal.take_profit_percent if own_profit else defaults.take_profit_percent,
        take_profit_offset=signal.take_profit_offset,
        trailing_percent=signal.trailing_percent if own_stop else defaults.trailing_stop_percent,
    )
    return None if asked == NOTHING_ASKED else asked


def problem(
    asked: ProtectionWish, side: Side, market: Market, rules: SymbolRules, price: Decimal | None, size: sizing.Size
) -> str:
    """Why an entry on that side cannot be protected so; empty when it can, as far as is known before it is filled."""
    at = levels(asked, price, side) if price is not None else None
    wanted = {
        OrderType.STOP: asked.stop_loss or asked.stop_loss_percent or asked.stop_loss_offset,
        OrderType.TAKE_PROFIT: asked.take_profit or asked.take_profit_percent or asked.take_profit_offset,
        OrderType.TRAILING_STOP: asked.trailing_percent,
    }
    for kind, value in wanted.items():
        if value and kind.value not in rules.order_types:
            return f"{rules.symbol} takes no {LEGS[kind]} orders"
    if market is Market.SPOT and wanted[OrderType.STOP] and wanted[OrderType.TRAILING_STOP]:
        return "spot takes either a stop-loss or a trailing stop, as both would sell the same coins"
    if price is None and (asked.stop_loss or asked.stop_loss_offset or asked.take_profit or asked.take_profit_offset):
        return "no price is known to judge its levels by"
    return _trailing_problem(asked.trailing_percent, market) or (
        _levels_problem(at.stop_loss, at.take_profit, side, price, rules, market, size) if at and price else ""
    )


def _trailing_problem(percent: Decimal | None, market: Market) -> str:
    low, high = TRAILING_PERCENTS
    if percent is None or (low <= percent <= high and is_on_grid(percent, TRAILING_STEPS[market])):
        return ""
    steps = plain(TRAILING_STEPS[market])
    return f"trailing {plain(percent)} %, must be from {plain(low)} to {plain(high)} in steps of {steps}"


def _levels_problem(
    stop: Decimal | None,
    profit: Decimal | None,
    side: Side,
    price: Decimal,
    rules: SymbolRules,
    market: Market,
    size: sizing.Size,
) -> str:
    long = side is Side.BUY
    if stop is not None and not (ZERO < stop < price if long else stop > price):
        return f"stop_loss {plain(stop)} must be {'below' if long else 'above'} the price {plain(price)}"
    if profit is not None and not (profit > price if long else ZERO < profit < price):
        return f"take_profit {plain(profit)} must be {'above' if long else 'below'} the price {plain(price)}"
    if market is Market.FUTURES or size.notional is None:
        return ""
    left = round_down(size.notional / price * AFTER_FEES, sizing.quantity_step(rules, OrderType.MARKET))
    for level in (stop, profit):
        if level is not None and left * level < rules.min_notional:
            return f"an exit at {plain(level)} would be {plain(left * level)}, smallest is {plain(rules.min_notional)}"
    return ""


def orders_for(
    position: Position, closable: Decimal, rules: SymbolRules, now: datetime, new_id: Callable[[], str]
) -> list[Order]:
    """What has to wait at the exchange for this position; nothing when it is closed or asked for no protection.

    `closable`: base units of it that protection can sell.
    Of futures, stop and take-profit close whatever is held then, and end with the position; they carry no quantity.
    """
    wanted = position.protection
    if wanted is None or not position.is_open:
        return []
    side = Side.BUY if position.is_short else Side.SELL
    quantity = round_down(closable, sizing.quantity_step(rules, OrderType.MARKET))
    if quantity < sizing.smallest_quantity(rules, OrderType.MARKET) or not quantity:
        return []
    found: list[Order] = []
    for kind, price in ((OrderType.STOP, wanted.stop_loss), (OrderType.TAKE_PROFIT, wanted.take_profit)):
        if price is not None:
            sized = None if position.market is Market.FUTURES else quantity
            order = _order(position, rules, kind, sized, now, new_id())
            found.append(replace(order, stop_price=sizing.on_tick(price, side, rules)))
    if wanted.trailing_percent is not None:
        order = _order(position, rules, OrderType.TRAILING_STOP, quantity, now, new_id())
        # Before the take-profit: of what belongs together, the stop is handed over first.
        found.insert(0, replace(order, trailing_percent=wanted.trailing_percent))
    return found


def _order(
    position: Position,
    rules: SymbolRules,
    kind: OrderType,
    quantity: Decimal | None,
    now: datetime,
    id_: str,
) -> Order:
    wanted = position.protection
    assert wanted is not None
    return Order(
        client_order_id=id_,
        signal_id=wanted.signal_id,
        broker=position.broker,
        market=position.market,
        symbol=position.symbol,
        side=Side.BUY if position.is_short else Side.SELL,
        type=kind,
        is_entry=False,
        rules=rules,
        received_at=now,
        created_at=now,
        quantity=quantity,
        strategy=wanted.strategy,
        status=OrderStatus.SENT,
        sent_at=now,
        reduce_only=True,
        leg=LEGS[kind],
        leverage=position.leverage,
    )


@dataclass(frozen=True, slots=True)
class Guard:
    """Either wait for what is under way, or cancel these, or place these; nothing of it: all is as it should be.

    `too_little`: or as it can be, as nobody could sell what is left.
    """

    waits: bool = False
    cancel: tuple[Order, ...] = ()
    place: tuple[Order, ...] = ()
    too_little: bool = False


def next_step(
    books: Books,
    instrument: Instrument,
    rules: SymbolRules | None,
    now: datetime,
    new_id: Callable[[], str],
    price: Decimal | None = None,
) -> Guard:
    """What a position needs next so that what waits at the exchange is what it asked for, at the last `price`."""
    live, position = books.protecting(instrument), books.position(instrument)
    if not live and (position is None or position.protection is None):
        return Guard()
    # While an exit or an entry is under way, what is to be protected is about to change.
    if any(order.status in UNSETTLED for order in books.on(instrument)):
        return Guard(waits=True)
    wanted: list[Order] = []
    if position is not None:
        wanted = orders_for(position, _to_protect(books, position), rules or position.rules, now, new_id)
        if any(order.is_entry for order in books.resting(instrument)) and _too_small(wanted, position):
            # More is to come; until then the exchange would take neither its protection nor a way out.
            wanted = []
    if len(live) == len(wanted) and all(any(_same(one, other) for other in live) for one in wanted):
        return Guard()
    if wanted and position is not None and _is_too_little(position, wanted[0], rules or position.rules, price):
        return Guard(too_little=True)
    return Guard(cancel=live) if live else Guard(place=tuple(wanted))


def _is_too_little(position: Position, wanted: Order, rules: SymbolRules, price: Decimal | None) -> bool:
    """Below the smallest notional the exchange takes neither its protection nor the order that would close it."""
    price = price or position.last_price
    if position.market is Market.FUTURES or wanted.quantity is None or price is None:
        return False
    return wanted.quantity * price < sizing.smallest_notional(rules, OrderType.MARKET, position.market, is_exit=False)


def _too_small(orders: list[Order], position: Position) -> bool:
    prices = [order.stop_price or position.last_price or ZERO for order in orders]
    worth = (price * order.quantity for price, order in zip(prices, orders, strict=True) if order.quantity is not None)
    return position.market is Market.SPOT and any(each < position.rules.min_notional for each in worth)


def _to_protect(books: Books, position: Position) -> Decimal:
    """On spot, an exit that rests in the book has locked what it sells. On futures all of it stays protected: whichever
    of the two comes first, nothing is left for the other."""
    if position.market is Market.FUTURES:
        return position.quantity
    return books.closable(position.instrument, Side.SELL)


def _same(live: Order, wanted: Order) -> bool:
    """Whether an order that waits does what is wanted now."""
    left = None if live.quantity is None else live.quantity - live.executed_quantity
    told = (live.type, live.side, live.stop_price, live.trailing_percent, left)
    return told == (wanted.type, wanted.side, wanted.stop_price, wanted.trailing_percent, wanted.quantity)
