"""How the trading went: profits, losses, costs and waits, from compact facts about orders. Pure arithmetic.

A *trade* is one closing order that realised a profit or a loss: all its partial fills together, at the moment of its
last change, on that moment's UTC day. Its P&L is in quote currency, after the fees of entry and exit; those in a third
coin count where its price was known. Money of different currencies is never added; dollars of every kind count as one
USDT each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from sys import intern
from typing import TypeVar

from events import Valued
from history import Wanted
from models import DOLLARS, USDT, ZERO, Fee, Order, OrderStatus, OrderType, Side

K = TypeVar("K")

DAYS_A_YEAR = 365  # crypto markets never close
FOUR_DECIMALS = Decimal("0.0001")
# What a division leaves behind is no money: it would make a loss of a trade that gained nothing, and days that are
# alike differ by so little that what is divided by it has more digits than a Decimal.
MONEY_DECIMALS = Decimal("1e-12")
_ROOMY = Context(prec=60)


@dataclass(frozen=True, slots=True)
class Paid:
    """Fees in one currency."""

    asset: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Facts:
    """What the figures need to know of one order. One of a kind per order: a later state takes the place of it."""

    at: datetime  # of its last change
    symbol: str
    strategy: str
    broker: str
    currency: str
    is_entry: bool
    executed: bool
    realized_pnl: Decimal | None = None  # None: it closed nothing
    fees: tuple[Paid, ...] = ()
    slippage_bps: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class EquityPoint:
    """What all accounts together were worth, in USDT."""

    at: datetime
    equity: Decimal


@dataclass(frozen=True, slots=True)
class Day:
    date: date
    realized_pnl: Decimal
    trades: int


@dataclass(frozen=True, slots=True)
class Slippage:
    """How much worse than the alert's price market orders were filled, in basis points; of alerts that named a price.

    (average price - alert's price) / alert's price x 10,000 for a buy, the negative of it for a sell: positive is worse
    for the owner. None without such orders.
    """

    orders: int
    median_bps: float | None
    mean_bps: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one currency. None where there is no such number."""

    currency: str
    orders: int  # that executed something
    trades: int
    wins: int  # P&L above 0
    losses: int  # P&L below 0; a trade of exactly 0 is neither
    realized_pnl: Decimal
    win_rate_percent: Decimal | None  # wins of all trades
    profit_factor: Decimal | None  # what the wins brought over what the losses took; None without losses
    average_win: Decimal | None
    average_loss: Decimal | None  # negative
    largest_win: Decimal | None
    largest_loss: Decimal | None  # negative
    max_drawdown: Decimal  # of the cumulated realised P&L from its highest point (0 at first) to a later low; positive
    sharpe: Decimal | None  # see `sharpe`
    fees: Decimal  # taken in this currency, and what those in third coins were worth
    other_fees: tuple[Paid, ...]  # the rest by asset: in the base asset (in the P&L as well), or nobody knew the price
    entry_slippage: Slippage
    exit_slippage: Slippage
    median_latency_ms: float | None  # from the alert's receipt to the exchange's first word on its order


@dataclass(frozen=True, slots=True)
class Part:
    """One strategy, symbol or broker, in one currency."""

    name: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class Performance:
    """`total` is in USDT, or where nothing was traded in it, in the first other currency; `others` are the rest."""

    total: Figures
    others: tuple[Figures, ...]
    by_strategy: tuple[Part, ...]
    by_symbol: tuple[Part, ...]
    by_broker: tuple[Part, ...]
    daily: tuple[Day, ...]  # days with trades, in the total's currency
    max_equity_drawdown_percent: Decimal | None
    equity: tuple[EquityPoint, ...]


# --- facts ------------------------------------------------------------------------------------------------------------


def facts_of(order: Order, at: datetime, alert_price: Decimal | None, before: Facts | None) -> Facts | None:
    """`before` is what was known of the order until now. None while there is nothing to tell."""
    latency_ms = before.latency_ms if before else _latency_ms(order)
    executed = order.executed_quantity > 0
    if not executed and latency_ms is None and before is None:
        return None
    return Facts(
        at=at,
        # The same few words over and over: kept once.
        symbol=intern(order.symbol),
        strategy=intern(order.strategy),
        broker=intern(order.broker),
        currency=currency_of(order.rules.quote_asset),
        is_entry=order.is_entry,
        executed=executed,
        realized_pnl=_as_money(order.realized_pnl) if executed else None,
        fees=tuple(_paid(fee, order) for fee in order.fees),
        slippage_bps=slippage_bps(order, alert_price),
        latency_ms=latency_ms,
    )


def _paid(fee: Fee, order: Order) -> Paid:
    if fee.value is not None:
        return Paid(currency_of(order.rules.quote_asset), fee.value)
    return Paid(currency_of(fee.asset), fee.amount)


def _as_money(value: Decimal | None) -> Decimal | None:
    return None if value is None else value.quantize(MONEY_DECIMALS, context=_ROOMY)


def currency_of(asset: str) -> str:
    return USDT if asset in DOLLARS else intern(asset)


def slippage_bps(order: Order, alert_price: Decimal | None) -> float | None:
    """See Slippage. Only of what an alert asked for: the price of a stop is not the alert's, a limit is a wish."""
    average = order.average_price
    if order.leg not in ("", "exit") or order.type is not OrderType.MARKET or not average or not alert_price:
        return None
    sign = 1 if order.side is Side.BUY else -1
    return float(sign * (average - alert_price) / alert_price * 10_000)


def _latency_ms(order: Order) -> float | None:
    """None until the exchange has spoken, and of orders that no alert asked for, or that never left."""
    spoke = order.settled_at is not None and order.sent_at is not None and order.status is not OrderStatus.NOT_PLACED
    if not spoke or order.leg not in ("", "exit"):
        return None
    assert order.settled_at is not None
    return (order.settled_at - order.received_at).total_seconds() * 1000


# --- figures ----------------------------------------------------------------------------------------------------------


def performance(
    facts: Iterable[Facts], equity: Sequence[EquityPoint], wanted: Wanted, brokers: Collection[str]
) -> Performance:
    """Of the orders that are wanted, by their symbol, strategy and last change; of equity, by its time.

    Only of these brokers, as play money is not to be added to real money; `by_broker` has the others, too.
    """
    everywhere = sorted((one for one in facts if _is_wanted(one, wanted)), key=lambda one: one.at)
    chosen = [one for one in everywhere if one.broker in brokers]
    points = tuple(point for point in equity if _is_in_time(point.at, wanted))
    by_currency = _grouped(chosen, lambda one: one.currency)
    main = USDT if USDT in by_currency or not by_currency else min(by_currency)
    return Performance(
        total=figures(by_currency.get(main, []), main),
        others=tuple(figures(by_currency[name], name) for name in sorted(by_currency) if name != main),
        by_strategy=_parts(chosen, lambda one: one.strategy),
        by_symbol=_parts(chosen, lambda one: one.symbol),
        by_broker=_parts(everywhere, lambda one: one.broker),
        daily=daily(by_currency.get(main, [])),
        max_equity_drawdown_percent=equity_drawdown_percent(points),
        equity=points,
    )


def figures(facts: Sequence[Facts], currency: str) -> Figures:
    """Of orders of one currency, in the order of time."""
    pnls = [one.realized_pnl for one in facts if one.realized_pnl is not None]
    wins, losses = [pnl for pnl in pnls if pnl > 0], [pnl for pnl in pnls if pnl < 0]
    own, others = _fees(facts, currency)
    return Figures(
        currency=currency,
        orders=sum(one.executed for one in facts),
        trades=len(pnls),
        wins=len(wins),
        losses=len(losses),
        realized_pnl=sum(pnls, ZERO),
        win_rate_percent=_rounded(Decimal(100 * len(wins)) / len(pnls)) if pnls else None,
        profit_factor=_rounded(sum(wins, ZERO) / -sum(losses, ZERO)) if losses else None,
        average_win=sum(wins, ZERO) / len(wins) if wins else None,
        average_loss=sum(losses, ZERO) / len(losses) if losses else None,
        largest_win=max(wins, default=None),
        largest_loss=min(losses, default=None),
        max_drawdown=max_drawdown(pnls),
        sharpe=sharpe(daily(facts)),
        fees=own,
        other_fees=others,
        entry_slippage=_slippage(one.slippage_bps for one in facts if one.is_entry),
        exit_slippage=_slippage(one.slippage_bps for one in facts if not one.is_entry),
        median_latency_ms=_median([one.latency_ms for one in facts if one.latency_ms is not None]),
    )


def equity_of(looks: Iterable[Valued], brokers: Collection[str]) -> list[EquityPoint]:
    """All accounts of these brokers together, at every look at one of them; the others as they were seen last."""
    last: dict[tuple[str, str], Decimal] = {}
    points: list[EquityPoint] = []
    for look in looks:
        seen = {(one.broker, one.market.value): one.equity for one in look.worths if one.broker in brokers}
        if seen:
            last |= seen
            points.append(EquityPoint(look.at, sum(last.values(), ZERO)))
    return points


def thinned(points: Sequence[EquityPoint], most: int) -> Sequence[EquityPoint]:
    """About `most` of them, evenly, and the last one: for a picture."""
    step = -(-len(points) // most)
    return points if step <= 1 else [*points[: len(points) - 1 : step], points[-1]]


def max_drawdown(pnls: Iterable[Decimal]) -> Decimal:
    """The deepest fall of their running sum below its highest point so far; it begins at 0."""
    total = peak = deepest = ZERO
    for pnl in pnls:
        total += pnl
        peak = max(peak, total)
        deepest = max(deepest, peak - total)
    return deepest


def equity_drawdown_percent(points: Sequence[EquityPoint]) -> Decimal | None:
    """The deepest fall of the equity below its highest point so far, in percent of that; None before two points.

    A withdrawal looks like a loss here: nobody told us.
    """
    if len(points) < 2:
        return None
    peak = deepest = ZERO
    for point in points:
        peak = max(peak, point.equity)
        if peak > 0:
            deepest = max(deepest, (peak - point.equity) / peak * 100)
    return _rounded(deepest)


def daily(facts: Iterable[Facts]) -> tuple[Day, ...]:
    """Realised P&L and trades by UTC day; days without trades are left out."""
    trades = [one for one in facts if one.realized_pnl is not None]
    days = _grouped(trades, lambda one: one.at.astimezone(UTC).date())
    return tuple(
        Day(day, sum((one.realized_pnl or ZERO for one in of_day), ZERO), len(of_day))
        for day, of_day in sorted(days.items())
    )


def sharpe(days: Sequence[Day]) -> Decimal | None:
    """Mean over standard deviation (of a sample, n - 1) of the realised P&L of each day, times the root of 365.

    Every day from the first to the last one with a trade counts, those without trades with 0. Of money, not of returns:
    what was at risk each day is not known. None for a single day, and when all days are alike.
    """
    if len(days) < 2:
        return None
    count = (days[-1].date - days[0].date) // timedelta(days=1) + 1
    mean = sum((day.realized_pnl for day in days), ZERO) / count
    squares = sum(((day.realized_pnl - mean) ** 2 for day in days), ZERO) + (count - len(days)) * mean**2
    if not squares:
        return None
    return _rounded(mean / (squares / (count - 1)).sqrt() * Decimal(DAYS_A_YEAR).sqrt())


def _fees(facts: Iterable[Facts], currency: str) -> tuple[Decimal, tuple[Paid, ...]]:
    """Those in the currency, and the others by their asset."""
    sums: dict[str, Decimal] = {}
    for one in facts:
        for fee in one.fees:
            sums[fee.asset] = sums.get(fee.asset, ZERO) + fee.amount
    own = sums.pop(currency, ZERO)
    return own, tuple(Paid(asset, amount) for asset, amount in sorted(sums.items()))


def _slippage(given: Iterable[float | None]) -> Slippage:
    known = [one for one in given if one is not None]
    return Slippage(len(known), _median(known), round(sum(known) / len(known), 4) if known else None)


def _median(values: Sequence[float]) -> float | None:
    """The middle one, or the mean of the middle two."""
    if not values:
        return None
    ordered, middle = sorted(values), len(values) // 2
    return round(ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2, 4)


def _parts(facts: Iterable[Facts], name: Callable[[Facts], str]) -> tuple[Part, ...]:
    groups = _grouped(facts, lambda one: (name(one), one.currency))
    return tuple(Part(key[0], figures(group, key[1])) for key, group in sorted(groups.items()))


def _grouped(facts: Iterable[Facts], key: Callable[[Facts], K]) -> dict[K, list[Facts]]:
    groups: dict[K, list[Facts]] = {}
    for one in facts:
        groups.setdefault(key(one), []).append(one)
    return groups


def _is_wanted(one: Facts, wanted: Wanted) -> bool:
    if wanted.symbol not in (None, one.symbol) or wanted.strategy not in (None, one.strategy):
        return False
    return _is_in_time(one.at, wanted)


def _is_in_time(at: datetime, wanted: Wanted) -> bool:
    return (wanted.since is None or at >= wanted.since) and (wanted.until is None or at < wanted.until)


def _rounded(value: Decimal) -> Decimal:
    return value.quantize(FOUR_DECIMALS)
