"""What a fee in a third coin is worth in quote currency, so that P&L and the daily loss count it.

Binance takes fees in BNB from whoever holds it and wants the discount, whatever is traded:
https://www.binance.com/en/fee/schedule
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import Decimal

from models import DOLLARS, USDT, ZERO, Fee, Instrument, Market, Order

PriceOf = Callable[[Instrument], Decimal | None]


def valued(order: Order, fees: tuple[Fee, ...], price_of: PriceOf) -> tuple[Fee, ...]:
    """The order's fees so far, one for each asset, with what those in third coins are worth.

    What was valued before keeps its value. Where no price is known, or money is not dollars, a fee stays without one.
    """
    if order.rules.quote_asset not in DOLLARS:
        return fees
    return tuple(_valued(order, fee, price_of) if _is_in_a_third_coin(order, fee) else fee for fee in fees)


def total_in(asset: str, fees: Iterable[Fee]) -> Fee:
    same = [fee for fee in fees if fee.asset == asset]
    values = [fee.value for fee in same if fee.value is not None]
    return Fee(asset, sum((fee.amount for fee in same), ZERO), sum(values, ZERO) if values else None)


def _is_in_a_third_coin(order: Order, fee: Fee) -> bool:
    """In the base asset it shrinks what arrives, on spot; a futures position is as large as its trades."""
    if order.market is Market.SPOT and fee.asset == order.rules.base_asset:
        return False
    return fee.asset != order.rules.quote_asset


def _valued(order: Order, fee: Fee, price_of: PriceOf) -> Fee:
    before = total_in(fee.asset, order.fees)
    price = price_of(Instrument(*order.account, f"{fee.asset}{USDT}"))
    if price is None:
        return replace(fee, value=before.value)
    if before.value is None:
        return replace(fee, value=fee.amount * price)
    return replace(fee, value=before.value + (fee.amount - before.amount) * price)
