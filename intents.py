"""Orders to be: from an accepted alert to the intent, and from an intent that waited to one that may leave. Pure."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import sizing
from books import Books
from case import Case, Limits
from models import (
    RESTING,
    UNSETTLED,
    ZERO,
    Execution,
    Market,
    Order,
    OrderStatus,
    OrderType,
    Side,
    SymbolRules,
    TradedThere,
    plain,
    round_down,
)
from portfolio import Position
from sizing import Size, View

# An exit that was proven never placed is tried again while somebody may still be waiting for it.
MAX_EXIT_ATTEMPTS = 3
EXIT_IS_WANTED_FOR = timedelta(minutes=5)
# The entry of a reversal whose way out takes so long comes too late for the price that its strategy saw.
ENTRY_IS_WANTED_FOR = timedelta(seconds=30)

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def new_id(prefix: str, now: datetime) -> str:
    """Small letters and digits alone, which every broker takes, behind a prefix of letters; at most 24 characters.

    Time and chance: unique even if the journal is lost.
    """
    return f"{prefix}{_base36(int(now.timestamp() * 1000))}{_base36(secrets.randbits(50)):0>10}"


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text


def behind_the_exit(case: Case) -> Case:
    """The entry of a reversal, judged as if its way out were done: nothing held, and its margin free again."""
    held = case.books.position(case.instrument)
    positions = {instrument: p for instrument, p in case.books.positions.items() if instrument != case.instrument}
    freed = held.cost / held.leverage if held and case.instrument.market is Market.FUTURES else ZERO
    books = replace(case.books, positions=positions)
    return replace(case, books=books, behind=case.plan.legs[1], freed_margin=freed)


def _why_not_now(books: Books, order: Order, now: datetime, limits: Limits, halted: str) -> str:
    held = books.held(order.instrument)
    if held and (held > 0) is not (order.side is Side.BUY):
        return f"{plain(held)} is still held against it"
    if now - order.received_at > ENTRY_IS_WANTED_FOR:
        return f"the way out took more than {ENTRY_IS_WANTED_FOR.total_seconds():.0f} s"
    if books.paused or halted:
        return halted or "trading was paused meanwhile"
    if limits.max_daily_loss_usdt is not None and -books.realized_today >= limits.max_daily_loss_usdt:
        return f"Daily loss limit reached: {plain(-books.realized_today)} USDT today"
    return ""


def by_hand(position: Position, trade: TradedThere, most: Decimal, now: datetime) -> tuple[Order, Execution]:
    quantity = min(trade.quantity, most)
    share = quantity / trade.quantity
    order = Order(
        client_order_id=new_id("gh", now),
        signal_id="",
        broker=position.broker,
        market=position.market,
        symbol=position.symbol,
        side=trade.side,
        type=OrderType.MARKET,
        is_entry=False,
        rules=position.rules,
        received_at=now,
        created_at=trade.last_at,
        quantity=quantity,
        sent_at=trade.last_at,
        leg="by_hand",
        leverage=position.leverage,
    )
    fees = tuple(fee.share(share) for fee in trade.fees)
    return order, Execution(OrderStatus.FILLED, trade.exchange_order_id, quantity, trade.quote * share, fees)


def latest(books: Books, order: Order) -> Order:
    """As the books know it. Two may ask about one order at once: an ending told twice must not fill it twice."""
    ended = (o for o in reversed(books.recent) if o.client_order_id == order.client_order_id)
    return books.orders.get(order.client_order_id) or next(ended, order)


def still_wanted(order: Order, books: Books, now: datetime) -> bool:
    return order.status is OrderStatus.NOT_PLACED and not order.never_left and _is_worth_a_try(order, books, now)


def another_try(order: Order, books: Books, rules: SymbolRules, there: Decimal | None, now: datetime) -> Order | None:
    """Of a way out that was refused: of as much as the account has, by the rules of now; None where that is the same.

    The exchange may have changed its rules since they were read, and the account may hold a little less than the books,
    by a fee or by its owner's hand. `there`: base units that it can close now, where that is known.
    """
    if order.status is not OrderStatus.REJECTED or order.quantity is None or not _is_worth_a_try(order, books, now):
        return None
    quantity = order.quantity if there is None else min(order.quantity, there)
    is_less = quantity < order.quantity
    if round_down(quantity, sizing.quantity_step(rules, order.type)) <= 0 or (rules == order.rules and not is_less):
        return None
    again = replace(next_attempt(order, now), rules=rules)
    return replace(again, quantity=quantity) if is_less else again


def _is_worth_a_try(order: Order, books: Books, now: datetime) -> bool:
    if order.is_entry or order.is_protection:
        return False
    if order.attempt >= MAX_EXIT_ATTEMPTS or now - order.received_at > EXIT_IS_WANTED_FOR:
        return False
    opens_again = Side.SELL if order.side is Side.BUY else Side.BUY
    later_entry = books.last_entry_at(order.instrument, opens_again)
    if later_entry is not None and later_entry > order.received_at:
        return False
    return books.closable(order.instrument, order.side) > 0


def says_nothing_new(order: Order, execution: Execution) -> bool:
    same = (order.status, order.executed_quantity) == (execution.status, execution.executed_quantity)
    return same and len(order.fees) >= len(execution.fees)


def comes_before(other: Order, order: Order) -> bool:
    if other.status is OrderStatus.INTENT:
        return _turn(other) < _turn(order)
    if other.status in UNSETTLED:
        return True
    locks = other.is_protection and not order.is_entry and order.market is Market.SPOT
    return other.status in RESTING and (order.exits_all or locks)


def _turn(order: Order) -> tuple[datetime, bool, str]:
    """Of a reversal, the way out comes first."""
    return order.created_at, order.is_entry, order.client_order_id


def accepted_reason(case: Case) -> str:
    kind = "reversal, first the exit" if case.plan.is_reversal else "exit" if case.is_exit else "entry"
    if case.waits:
        return f"Accepted {kind}: waits for the orders of {case.signal.symbol} that are under way"
    assert case.rules is not None
    return f"Accepted {kind} on {case.signal.symbol}: {case.size.text(case.rules)}"


def order_of(case: Case, received_at: datetime, signal_id: str, now: datetime) -> Order:
    """The intent. Only called when every check passed, so the rules are known."""
    assert case.rules is not None
    signal, size, wish = case.signal, case.size, case.wish
    waits = case.waits
    return Order(
        client_order_id=new_id("gh", now) if signal_id else "",
        signal_id=signal_id,
        broker=case.broker,
        market=case.instrument.market,
        symbol=signal.symbol,
        side=case.side,
        type=case.type,
        is_entry=not case.is_exit,
        rules=case.rules,
        received_at=received_at,
        created_at=now,
        quantity=wish.quantity if waits and case.is_exit else size.quantity,
        amount=wish.amount if waits and case.is_exit else size.amount,
        price=size.limit_price,
        time_in_force=signal.time_in_force if case.type is OrderType.LIMIT else None,
        reference_price=case.view.price or signal.price,
        strategy=signal.strategy or "",
        status=OrderStatus.INTENT if waits else OrderStatus.SENT,
        sent_at=None if waits else now,
        reserved_quote=ZERO if case.is_exit else case.margin or ZERO,
        reserved_base=min(size.quantity or ZERO, case.closable) if case.is_exit and not waits else ZERO,
        reduce_only=case.is_exit and wish.reduce_only,
        exits_all=case.is_exit and wish.is_everything,
        percent_of_position=wish.percent if case.is_exit else None,
        closes_whatever=case.leg.whatever,
        after_exit=case.behind is not None,
        leverage=case.leverage,
        protection=case.protection,
    )


def next_attempt(order: Order, now: datetime) -> Order:
    """Its turn stays the first one's: the entry of a reversal waits for it, and must not be waited for by it."""
    return replace(
        order,
        client_order_id=new_id("gh", now),
        status=OrderStatus.INTENT,
        quantity=None if order.exits_all else order.quantity,
        sent_at=None,
        settled_at=None,
        reserved_base=ZERO,
        attempt=order.attempt + 1,
        note="",
    )


def released_entry(order: Order, books: Books, limits: Limits, halted: str, now: datetime) -> Order:
    """The second half of a reversal leaves when nothing of the first is left, and while it is still wanted."""
    why_not = _why_not_now(books, order, now, limits, halted)
    if why_not:
        return replace(order, status=OrderStatus.NOT_PLACED, settled_at=now, note=f"not opened: {why_not}")
    return replace(order, status=OrderStatus.SENT, sent_at=now)


def released_exit(order: Order, books: Books, view: View, now: datetime) -> Order:
    rules = view.rules or order.rules
    order = replace(order, rules=rules)
    if order.closes_whatever and (held := books.held(order.instrument)):
        order = replace(order, side=Side.SELL if held > 0 else Side.BUY)
    closable = books.closable(order.instrument, order.side)
    price, limit = view.price, order.price
    size = sizing.exit_size(sizing.waiting_wish(order), rules, closable, price, order.type, limit, order.side)
    return _released(order, size, closable, now)


def _released(order: Order, size: Size, closable: Decimal, now: datetime) -> Order:
    quantity = size.quantity or ZERO
    smallest = max(sizing.smallest_quantity(order.rules, order.type), sizing.quantity_step(order.rules, order.type))
    least = sizing.smallest_notional(order.rules, order.type, order.market, is_exit=True)
    too_little = size.notional is not None and size.notional < least
    if quantity <= 0 or quantity < smallest or too_little:
        less = f"{plain(quantity)} held is below the exchange's smallest order"
        note = f"nothing left to sell: {less if quantity else 'nothing is held'}"
        return replace(order, status=OrderStatus.NOT_PLACED, settled_at=now, note=note)
    return replace(
        order,
        status=OrderStatus.SENT,
        quantity=quantity,
        amount=None,
        price=size.limit_price,
        sent_at=now,
        reserved_base=min(quantity, closable),
    )
