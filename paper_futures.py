"""Futures on paper: longs and shorts with leverage, at the prices that alerts carry. No network, no real money.

No funding and no liquidation: what a losing position would do to a real account does not happen here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from broker import Balance
from models import RESTING, ZERO, Account, Execution, Fee, Market, Order, OrderStatus, Side, SymbolRules, plain
from paper_client import PAPER, QUOTE, PaperClient
from portfolio import Position

FEE_RATE = Decimal("0.0005")  # Binance's regular taker fee, https://www.binance.com/en/fee/futureFee


@dataclass(frozen=True, slots=True)
class _Open:
    """`signed` in base units, negative for a short; `value` is what they were worth when they were opened."""

    signed: Decimal = ZERO
    value: Decimal = ZERO
    leverage: Decimal = Decimal(1)

    @property
    def margin(self) -> Decimal:
        return self.value / self.leverage


class PaperFutures(PaperClient):
    """A Broker. The wallet changes by what is realised and by fees, which are taken in USDT."""

    account = Account(PAPER, Market.FUTURES)

    def __init__(self, balance_usdt: Decimal) -> None:
        super().__init__(balance_usdt)
        self._open: dict[str, _Open] = {}

    def restore(
        self,
        flows: Mapping[str, Decimal],
        prices: Mapping[str, Decimal],
        positions: Iterable[Position],
        resting: Iterable[Order],
    ) -> None:
        """As on spot; `positions` are those that are open."""
        with self._lock:
            self._free[QUOTE] += flows.get(QUOTE, ZERO)
            for held in positions:
                if held.is_open:
                    # Their cost holds the fee that the flows have already taken.
                    value = held.cost / (1 - FEE_RATE if held.is_short else 1 + FEE_RATE)
                    self._open[held.symbol] = _Open(held.signed, value, held.leverage)
                    self._free[QUOTE] += -value if held.is_short else value
            self._prices.update(prices)
            for order in resting:
                self._adopt(order)

    def symbol_rules(self, symbol: str) -> SymbolRules:
        return replace(super().symbol_rules(symbol), quote_amount_allowed=False)

    def balances(self) -> Mapping[str, Balance]:
        with self._lock:
            wallet, free = self._free[QUOTE], self._available()
            return {QUOTE: Balance(free, wallet - free)}

    def _available(self) -> Decimal:
        waiting = (o for o, execution in self._orders.values() if execution.status in RESTING and o.is_entry)
        resting = sum(((o.quantity or ZERO) * (o.price or ZERO) / o.leverage for o in waiting), ZERO)
        return self._free[QUOTE] - sum((held.margin for held in self._open.values()), ZERO) - resting

    def _shortfall(self, order: Order, price: Decimal | None) -> str:
        held = self._open.get(order.symbol, _Open())
        if not order.is_entry:
            closes = held.signed > 0 if order.side is Side.SELL else held.signed < 0
            return "" if closes else "ReduceOnly Order is rejected on paper: there is nothing to reduce"
        needed = (order.quantity or ZERO) * max(order.price or ZERO, price or ZERO) / order.leverage
        free = self._available()
        if needed <= free:
            return ""
        return f"Margin is insufficient: {plain(needed)} {QUOTE} needed, {plain(free)} free on paper"

    def _fill(self, order: Order, price: Decimal) -> None:
        held = self._open.get(order.symbol, _Open())
        sign = 1 if order.side is Side.BUY else -1
        most = abs(held.signed) if not order.is_entry else None
        quantity = most if order.quantity is None else order.quantity
        quantity = min(quantity or ZERO, most) if most is not None else quantity or ZERO
        fee = quantity * price * FEE_RATE
        self._free[QUOTE] -= fee
        leverage = order.leverage if order.is_entry else held.leverage
        self._open[order.symbol] = self._after(held, sign * quantity, price, leverage)
        if not self._open[order.symbol].signed:
            del self._open[order.symbol]
        identity = self._orders[order.client_order_id][1].exchange_order_id
        status = OrderStatus.FILLED if quantity else OrderStatus.EXPIRED
        filled = Execution(status, identity, quantity, quantity * price, (Fee(QUOTE, fee),) if fee else ())
        self._orders[order.client_order_id] = (order, filled)

    def _after(self, held: _Open, change: Decimal, price: Decimal, leverage: Decimal) -> _Open:
        """Closes first; what is left of the change opens. What is closed goes to the wallet."""
        closing = min(abs(change), abs(held.signed)) if held.signed * change < 0 else ZERO
        if closing:
            opened_for = held.value * closing / abs(held.signed)
            gained = closing * price - opened_for
            self._free[QUOTE] += gained if held.signed > 0 else -gained
            sign = 1 if held.signed > 0 else -1
            held = replace(held, signed=held.signed - sign * closing, value=held.value - opened_for)
            change += sign * closing
        if not change:
            return replace(held, leverage=leverage)
        return _Open(held.signed + change, held.value + abs(change) * price, leverage)
