"""The paper broker: fills orders at the prices that alerts carry, in memory. No network, no real money.

Its balances are the starting balance plus the journal's fills, handed in at start: nothing of its own to lose.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from broker import Balance, BrokerError, Done, Found, LookUp, NotFound, Outcome, Refused, UnknownSymbol
from models import (
    RESTING,
    ZERO,
    Account,
    Execution,
    Fee,
    HeldThere,
    Market,
    Order,
    OrderStatus,
    OrderType,
    RestsThere,
    Side,
    SymbolRules,
    TradedThere,
    plain,
    round_down,
)
from portfolio import Position

PAPER = "PAPER"
QUOTE = "USDT"
FEE_RATE = Decimal("0.001")  # Binance's regular spot fee, https://www.binance.com/en/fee/schedule
STEP = Decimal("0.00000001")
REMEMBERED_ENDINGS = 1_000  # for look-ups that come late
MIN_NOTIONAL = Decimal(5)  # what Binance demands of most USDT pairs
ORDER_TYPES = frozenset({"MARKET", "LIMIT", "STOP", "TAKE_PROFIT", "TRAILING_STOP"})


class PaperClient:
    """A Broker. Fees are taken as Binance takes them: from what is received."""

    name = PAPER
    is_local = True
    account = Account(PAPER, Market.SPOT)
    # Orders are placed within the call, and a restart forgets those that were never recorded.
    absence_is_proven_after_seconds = 0.0
    clock_problem = ""
    pause_seconds = 0.0

    def __init__(self, balance_usdt: Decimal) -> None:
        self._lock = threading.Lock()
        self._free: dict[str, Decimal] = {QUOTE: balance_usdt}
        self._prices: dict[str, Decimal] = {}
        self._orders: dict[str, tuple[Order, Execution]] = {}
        self._best: dict[str, Decimal] = {}  # of trailing stops: the best price since they were placed

    def restore(
        self,
        flows: Mapping[str, Decimal],
        prices: Mapping[str, Decimal],
        positions: Iterable[Position],
        resting: Iterable[Order],
    ) -> None:
        """What the journal knows: net change of every asset by fills, last prices, orders that still rest."""
        with self._lock:
            for asset, change in flows.items():
                self._free[asset] = self._free.get(asset, ZERO) + change
            self._prices.update(prices)
            for order in resting:
                self._adopt(order)

    def connect(self) -> None:
        """Always there."""

    def keep_warm(self) -> None:
        """There is no connection."""

    def prepare(self, symbol: str, leverage: Decimal) -> None:
        """There is no leverage to set."""

    def saw_price(self, symbol: str, price: Decimal) -> None:
        """A market price went by: it is the last known one now, and resting orders that it crosses fill."""
        with self._lock:
            self._prices[symbol] = price
            for order, execution in list(self._orders.values()):
                if order.symbol == symbol and execution.status in RESTING and self._crosses(order, price):
                    self._fill(order, price if order.is_protection else order.price or price)

    def place(self, order: Order) -> Outcome:
        with self._lock:
            price = self._prices.get(order.symbol)
            if order.type is OrderType.MARKET:
                price = order.reference_price or price
                if price is None:
                    return Refused(_no_price(order.symbol))
            short = self._shortfall(order, price)
            if short:
                return Refused(short)
            self._forget_old_endings()
            self._orders[order.client_order_id] = (order, Execution(OrderStatus.NEW, f"paper-{order.client_order_id}"))
            taken = price is not None and (order.type is OrderType.MARKET or self._crosses(order, price))
            if order.time_in_force == ("GTX" if taken else "IOC") or (order.time_in_force == "FOK" and not taken):
                return self._expire(order)
            if taken and price is not None:
                self._fill(order, price)
            return Done(self._orders[order.client_order_id][1])

    def _expire(self, order: Order) -> Outcome:
        """An order that may not rest (IOC, FOK), or not be filled at once (GTX), ends where it would."""
        identity = self._orders[order.client_order_id][1].exchange_order_id
        note = f"{order.time_in_force}: the price is not there"
        self._orders[order.client_order_id] = (order, Execution(OrderStatus.EXPIRED, identity, note=note))
        return Done(self._orders[order.client_order_id][1])

    def protect(self, orders: Sequence[Order]) -> Sequence[Outcome]:
        return [self.place(order) for order in orders]

    def look_up(self, order: Order) -> LookUp:
        with self._lock:
            known = self._orders.get(order.client_order_id)
            return Found(known[1]) if known else NotFound()

    def cancel(self, order: Order) -> LookUp:
        with self._lock:
            known = self._orders.get(order.client_order_id)
            if known is None:
                return NotFound()
            if known[1].status in RESTING:
                self._orders[order.client_order_id] = (known[0], replace(known[1], status=OrderStatus.CANCELED))
            return Found(self._orders[order.client_order_id][1])

    def symbol_rules(self, symbol: str) -> SymbolRules:
        base = symbol.removesuffix(QUOTE)
        if base == symbol or not base:
            raise UnknownSymbol(f"the paper broker trades pairs quoted in {QUOTE}, e.g. BTC{QUOTE}")
        return SymbolRules(
            symbol,
            base,
            QUOTE,
            quantity_step=STEP,
            min_quantity=STEP,
            min_notional=MIN_NOTIONAL,
            order_types=ORDER_TYPES,
        )

    def current_price(self, symbol: str) -> Decimal:
        price = self._prices.get(symbol)
        if price is None:
            raise BrokerError(_no_price(symbol))
        return price

    def current_prices(self, symbols: Sequence[str]) -> Mapping[str, Decimal]:
        return {symbol: self.current_price(symbol) for symbol in symbols}

    def balances(self) -> Mapping[str, Balance]:
        with self._lock:
            locked = {asset: self._locked(asset) for asset in self._free}
            return {asset: Balance(total - locked[asset], locked[asset]) for asset, total in self._free.items()}

    def positions(self) -> Sequence[HeldThere]:
        return ()

    def trades_since(self, symbol: str, since: datetime) -> Sequence[TradedThere]:
        """Nobody else trades here."""
        return ()

    def open_orders(self) -> Sequence[RestsThere]:
        return ()

    def cancel_stray(self, stray: RestsThere) -> None:
        """There are none."""

    def _forget_old_endings(self) -> None:
        ended = [key for key, (_, execution) in self._orders.items() if execution.status not in RESTING]
        for key in ended[:-REMEMBERED_ENDINGS]:
            del self._orders[key]

    def _crosses(self, order: Order, price: Decimal) -> bool:
        if order.type is not OrderType.TRAILING_STOP or order.trailing_percent is None:
            return _reached(order, price)
        sells, share = order.side is Side.SELL, order.trailing_percent / 100
        best = self._best.get(order.client_order_id, price)
        best = self._best[order.client_order_id] = max(best, price) if sells else min(best, price)
        return price <= best * (1 - share) if sells else price >= best * (1 + share)

    def _adopt(self, order: Order) -> None:
        execution = Execution(order.status, order.exchange_order_id, order.executed_quantity, order.executed_quote)
        self._orders[order.client_order_id] = (order, execution)

    def _locked(self, asset: str) -> Decimal:
        # Protection locks nothing: two of them sell the same coins, and one takes the other's place.
        waiting = (o for o, execution in self._orders.values() if execution.status in RESTING)
        resting = [o for o in waiting if not o.is_protection]
        return sum((_needs(order, order.price)[1] for order in resting if _needs(order, order.price)[0] == asset), ZERO)

    def _shortfall(self, order: Order, price: Decimal | None) -> str:
        if order.is_protection:
            return ""
        asset, needed = _needs(order, order.price or price)
        free = self._free.get(asset, ZERO) - self._locked(asset)
        if needed <= free:
            return ""
        return f"Insufficient balance: {plain(needed)} {asset} needed, {plain(free)} free on paper"

    def _fill(self, order: Order, price: Decimal) -> None:
        quantity = order.quantity
        if order.is_protection and quantity is not None:
            quantity = min(quantity, self._free.get(order.rules.base_asset, ZERO))
        if quantity is None:
            quantity = round_down((order.amount or ZERO) / price, order.rules.quantity_step)
        quote = quantity * price
        fee = _fee(order, quantity, quote)
        sign = 1 if order.side is Side.BUY else -1
        self._move(order.rules.base_asset, sign * quantity)
        self._move(order.rules.quote_asset, -sign * quote)
        self._move(fee.asset, -fee.amount)
        identity = self._orders[order.client_order_id][1].exchange_order_id
        status = OrderStatus.FILLED if quantity else OrderStatus.EXPIRED
        filled = Execution(status, identity, quantity, quote, (fee,) if fee.amount else ())
        self._orders[order.client_order_id] = (order, filled)

    def _move(self, asset: str, change: Decimal) -> None:
        self._free[asset] = self._free.get(asset, ZERO) + change


def _reached(order: Order, price: Decimal) -> bool:
    """A limit or take-profit waits for a better price, a stop for a worse one."""
    level = order.price if order.stop_price is None else order.stop_price
    if level is None:
        return False
    waits_for_fall = (order.side is Side.BUY) is not (order.type is OrderType.STOP)
    return price <= level if waits_for_fall else price >= level


def _needs(order: Order, price: Decimal | None) -> tuple[str, Decimal]:
    """The asset that the order spends, and how much of it."""
    if order.side is Side.SELL:
        return order.rules.base_asset, order.quantity or ZERO
    if order.amount is not None:
        return order.rules.quote_asset, order.amount
    return order.rules.quote_asset, (order.quantity or ZERO) * (price or ZERO)


def _fee(order: Order, quantity: Decimal, quote: Decimal) -> Fee:
    if order.side is Side.BUY:
        return Fee(order.rules.base_asset, quantity * FEE_RATE)
    return Fee(order.rules.quote_asset, quote * FEE_RATE)


def _no_price(symbol: str) -> str:
    return f'no price of {symbol} is known on paper: put "price": {{{{close}}}} into the alert message'
