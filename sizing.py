"""How much: from what the alert wants, what is held and what the exchange allows to the size of one order. Pure.

Sizes are rounded down to the exchange's step, never up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_DOWN, Context, Decimal

from models import ZERO, Action, Market, Order, OrderType, Side, Signal, SymbolRules, plain, round_down

# Binance carries base and quote amounts to 8 decimals (baseAssetPrecision, quoteAssetPrecision):
# https://developers.binance.com/docs/binance-spot-api-docs/rest-api/general-endpoints#exchange-information
MAX_DECIMALS = 8
QUOTE_STEP = Decimal("0.00000001")
ONE = Decimal(1)
HUNDRED = Decimal(100)
# A quotient that does not come out even must not be rounded up in its last digit either.
_DOWN = Context(prec=28, rounding=ROUND_DOWN)
CLEARLY = Decimal("0.9")
FEES_AT_MOST = Decimal("1.005")


@dataclass(frozen=True, slots=True)
class View:
    """What is known of the broker and the symbol at the moment of a decision; `None` = not known, or too old to use.

    `price` in quote currency; `free_quote` and `free_base` as the account shows them, asked for at
    `balance_asked_at`. `problem` says why something is not known.
    """

    rules: SymbolRules | None = None
    price: Decimal | None = None
    free_quote: Decimal | None = None
    free_base: Decimal | None = None
    balance_asked_at: datetime | None = None
    unknown_symbol: bool = False
    price_is_needed: bool = False  # the broker has no market of its own to fill a market order from
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Size:
    """An order's size: exactly one of `quantity` (base units) and `amount` (quote currency) for orders that may leave.

    `notional` is in quote currency and None when no price is known.
    """

    quantity: Decimal | None = None
    amount: Decimal | None = None
    limit_price: Decimal | None = None
    notional: Decimal | None = None
    everything: bool = False

    def text(self, rules: SymbolRules) -> str:
        if self.quantity is not None:
            return f"{plain(self.quantity)} {rules.base_asset}"
        return f"{plain(self.amount)} {rules.quote_asset}" if self.amount is not None else "everything held"


@dataclass(frozen=True, slots=True)
class Wish:
    """What an alert asks for; all None: no size of its own. Percent 0-100, of the free balance or of the position.

    `reduce_only`: at most what this program holds, whatever quantity the strategy's simulation names. `is_margin`: the
    amount is what is set aside for the position, which is larger by the leverage. So is a percentage of the balance.
    """

    quantity: Decimal | None = None
    amount: Decimal | None = None
    percent: Decimal | None = None
    reduce_only: bool = False
    is_margin: bool = False

    @property
    def is_everything(self) -> bool:
        return self.quantity is None and self.amount is None and self.percent in (None, HUNDRED)


def default_wish(allocation_percent: Decimal | None, trade_amount: Decimal) -> Wish:
    """Of entries whose alert names no size: the allocation of the free balance, or the fixed amount."""
    return Wish(amount=trade_amount) if allocation_percent is None else Wish(percent=allocation_percent)


def entry_wish(signal: Signal, default: Wish) -> Wish:
    """The first size that is there."""
    wish = _of_signal(signal)
    if wish.quantity is not None and signal.prev_market_position == "short" and signal.position_size is not None:
        # The order of a reversal closes the short and opens the long in one go; the target is what the long should be.
        return Wish(quantity=abs(signal.position_size))
    return wish if wish != Wish() else default


def exit_wish(signal: Signal) -> Wish:
    """An exit whose target is flat sells everything; one that closes sells what it names, but only what is held."""
    if signal.market_position in ("flat", "short") or signal.intent in ("open_short", "reverse_short"):
        # The quantity of a reversal counts the new short too: on spot only the way out is left, all that is held.
        return Wish(reduce_only=True)
    if signal.position_size is not None and signal.position_size <= 0:
        return Wish(reduce_only=True)
    return replace(_of_signal(signal), reduce_only=signal.reduce_only or signal.action is Action.CLOSE)


def closing_wish(signal: Signal) -> Wish:
    """Of a futures position: everything when the target is flat, else what the alert names."""
    if signal.market_position == "flat" or signal.position_size == ZERO:
        return Wish(reduce_only=True)
    return reducing_wish(signal)


def reducing_wish(signal: Signal) -> Wish:
    """At most what is held."""
    return replace(_of_signal(signal), reduce_only=True)


def waiting_wish(order: Order) -> Wish:
    """What an exit wanted that had to wait."""
    return Wish(order.quantity, order.amount, order.percent_of_position, order.reduce_only)


def _of_signal(signal: Signal) -> Wish:
    if signal.quantity is not None:
        return Wish(quantity=signal.quantity)
    if signal.amount is not None:
        return Wish(amount=signal.amount, is_margin=signal.amount_is_margin)
    return Wish(percent=signal.percent)


def entry_size(
    wish: Wish,
    signal: Signal,
    rules: SymbolRules,
    price: Decimal | None,
    available: Decimal | None,
    side: Side = Side.BUY,
    leverage: Decimal = ONE,
) -> Size:
    """The order's size. `available`: free quote currency. Without a price or a balance the notional stays None."""
    limit_price = on_tick(signal.price, side, rules) if signal.type is OrderType.LIMIT else None
    price = _dearest(limit_price, price, side)
    if wish.quantity is not None:
        quantity = round_down(wish.quantity, quantity_step(rules, signal.type))
        notional = quantity * price if price is not None else None
        return Size(quantity=quantity, limit_price=limit_price, notional=notional)
    amount = _quote_amount(wish, available, leverage)
    if amount is None:
        return Size(limit_price=limit_price)
    if limit_price is None and rules.quote_amount_allowed:
        return Size(amount=amount, notional=amount)
    if price is None:
        return Size(limit_price=limit_price)
    quantity = round_down(_DOWN.divide(amount, price), quantity_step(rules, signal.type))
    return Size(quantity=quantity, limit_price=limit_price, notional=quantity * price)


def _dearest(limit_price: Decimal | None, price: Decimal | None, side: Side) -> Decimal | None:
    """What a unit can come to. A sale is filled at its limit or better: far below the market, at the market's price."""
    if limit_price is None or side is Side.BUY:
        return limit_price or price
    return None if price is None else max(limit_price, price)


def _quote_amount(wish: Wish, available: Decimal | None, leverage: Decimal) -> Decimal | None:
    if wish.amount is not None:
        return round_down(wish.amount * (leverage if wish.is_margin else ONE), QUOTE_STEP)
    if wish.percent is None or available is None:
        return None
    return round_down(_DOWN.divide(available * wish.percent, HUNDRED) * leverage, QUOTE_STEP)


def exit_size(
    wish: Wish,
    rules: SymbolRules,
    sellable: Decimal,
    price: Decimal | None,
    type_: OrderType,
    limit: Decimal | None,
    side: Side = Side.SELL,
) -> Size:
    """The size of an exit. Only a stated quantity may reach beyond `sellable` (base units this program holds)."""
    limit_price = on_tick(limit, side, rules) if type_ is OrderType.LIMIT else None
    price = limit_price or price
    wanted = _exit_quantity(wish, sellable, price)
    largest = largest_quantity(rules, type_)
    # An exit never fails for being too large: the largest order that the exchange takes leaves at once.
    capped = min(wanted, largest) if largest else wanted
    quantity = round_down(capped, quantity_step(rules, type_))
    notional = quantity * price if price is not None else None
    return Size(quantity=quantity, limit_price=limit_price, notional=notional, everything=wish.is_everything)


def _exit_quantity(wish: Wish, sellable: Decimal, price: Decimal | None) -> Decimal:
    if wish.quantity is not None:
        # A strategy names what it ordered; what arrived is less by the fee, and nothing else is there to sell.
        ordered = sellable < wish.quantity <= sellable * FEES_AT_MOST
        return min(wish.quantity, sellable) if wish.reduce_only or ordered else wish.quantity
    if wish.amount is not None:
        return min(sellable, _DOWN.divide(wish.amount, price)) if price else ZERO
    return _DOWN.divide(sellable * (HUNDRED if wish.percent is None else wish.percent), HUNDRED)


def quantity_step(rules: SymbolRules, type_: OrderType) -> Decimal:
    """LOT_SIZE holds for every order, MARKET_LOT_SIZE for market orders besides; a step of 0 is no rule.

    https://developers.binance.com/docs/binance-spot-api-docs/filters#lot_size
    """
    return max(rules.quantity_step, rules.market_quantity_step) if type_ is OrderType.MARKET else rules.quantity_step


def smallest_quantity(rules: SymbolRules, type_: OrderType) -> Decimal:
    return max(rules.min_quantity, rules.market_min_quantity) if type_ is OrderType.MARKET else rules.min_quantity


def smallest_notional(rules: SymbolRules, type_: OrderType, market: Market, *, is_exit: bool) -> Decimal:
    """None for what only reduces a futures position: the exchange lets the smallest rest go (-4164).

    Binance judges a market order by its average price of some minutes, which the last price may be below.

    A way out is only refused here when it is clearly too small; the exchange has the last word.
    https://developers.binance.com/docs/binance-spot-api-docs/filters#notional
    """
    if is_exit and market is Market.FUTURES:
        return ZERO
    if type_ is not OrderType.MARKET:
        return rules.min_notional
    if not rules.min_notional_applies_to_market:
        return ZERO
    return rules.min_notional * CLEARLY if is_exit else rules.min_notional


def largest_quantity(rules: SymbolRules, type_: OrderType) -> Decimal:
    """0 is no limit. Of the two limits of a market order the smaller one holds."""
    limits = (rules.max_quantity, rules.market_max_quantity if type_ is OrderType.MARKET else ZERO)
    return min((limit for limit in limits if limit), default=ZERO)


def on_tick(price: Decimal | None, side: Side, rules: SymbolRules) -> Decimal | None:
    """The nearest price on the grid that is not worse for the owner: lower to buy, higher to sell."""
    if price is None or rules.price_tick <= 0:
        return price
    if side is Side.BUY:
        return round_down(price, rules.price_tick)
    return (price / rules.price_tick).to_integral_value(rounding=ROUND_CEILING) * rules.price_tick


def decimals(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
