"""The words of the trade: signals, orders, fills, decisions. Values only; imports nothing of ours.

Money and quantities are `Decimal` made from text, times are aware UTC datetimes, nothing here changes once made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

ZERO = Decimal(0)

USDT = "USDT"
# One of these is counted as one USDT; an amount in any other currency can neither be added nor compared with them.
# VST is what BingX's demo trades in place of USDT; its client shows none in a real account.
DOLLARS = frozenset({"USDT", "USDC", "FDUSD", "TUSD", "BUSD", "USD", "VST"})
# Brokers whose accounts are in another currency, and their limits with them.
CURRENCIES = {"FLATTRADE": "INR"}
# The coin that fees are taken in from who holds it, whatever is traded: https://www.binance.com/en/fee/schedule
FEE_COINS = {"BINANCE": "BNB", "BINANCE_REAL": "BNB"}


class Action(StrEnum):
    """What the alert asks for. TARGET (hold exactly this position) and CANCEL are understood, but not yet acted on."""

    BUY = "BUY"
    SELL = "SELL"
    CLOSE = "CLOSE"
    CANCEL = "CANCEL"
    TARGET = "TARGET"


class Side(StrEnum):
    """The side of an order at the exchange."""

    BUY = "BUY"
    SELL = "SELL"


class Market(StrEnum):
    SPOT = "spot"
    FUTURES = "futures"


class OrderType(StrEnum):
    """STOP, TAKE_PROFIT and TRAILING_STOP wait for a price, and are market orders once it is there."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"
    STOP = "STOP"
    STOP_LIMIT = "STOP_LIMIT"
    TAKE_PROFIT = "TAKE_PROFIT"
    TRAILING_STOP = "TRAILING_STOP"


PROTECTIVE = frozenset({OrderType.STOP, OrderType.TAKE_PROFIT, OrderType.TRAILING_STOP})


class Account(NamedTuple):
    """One wallet at one broker: what an order is paid from."""

    broker: str
    market: Market

    def __str__(self) -> str:
        return f"{self.broker} futures" if self.market is Market.FUTURES else self.broker


class Instrument(NamedTuple):
    """What is traded, and where: the same letters name another thing on spot and on futures."""

    broker: str
    market: Market
    symbol: str

    @property
    def account(self) -> Account:
        return Account(self.broker, self.market)

    def __str__(self) -> str:
        return f"{self.symbol}.P" if self.market is Market.FUTURES else self.symbol


class Decision(StrEnum):
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    DUPLICATE = "DUPLICATE"
    INVALID = "INVALID"


class OrderStatus(StrEnum):
    """INTENT: on the record, must not leave yet. SENT: on the record, may have left from here on."""

    INTENT = "INTENT"
    SENT = "SENT"
    UNKNOWN = "UNKNOWN"
    NEW = "NEW"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"
    NOT_PLACED = "NOT_PLACED"


_S = OrderStatus
ENDINGS = frozenset({_S.FILLED, _S.CANCELED, _S.EXPIRED, _S.REJECTED, _S.NOT_PLACED})
RESTING = frozenset({_S.NEW, _S.PARTIALLY_FILLED})
UNSETTLED = frozenset({_S.INTENT, _S.SENT, _S.UNKNOWN})

# Which change of an order's status may happen; anything else is a bug or a lie and is refused by the engine.
# A partly filled order may be reported again with more executed, so PARTIALLY_FILLED follows itself.
LEGAL_CHANGES: Mapping[OrderStatus, frozenset[OrderStatus]] = {
    _S.INTENT: frozenset({_S.SENT, _S.NOT_PLACED}),
    _S.SENT: frozenset({_S.UNKNOWN}) | RESTING | ENDINGS,
    _S.UNKNOWN: RESTING | ENDINGS,
    _S.NEW: frozenset({_S.PARTIALLY_FILLED, _S.FILLED, _S.CANCELED, _S.EXPIRED, _S.REJECTED}),
    _S.PARTIALLY_FILLED: frozenset({_S.PARTIALLY_FILLED, _S.FILLED, _S.CANCELED, _S.EXPIRED}),
    _S.FILLED: frozenset(),
    _S.CANCELED: frozenset(),
    _S.EXPIRED: frozenset(),
    _S.REJECTED: frozenset(),
    # The order was looked for until its absence was proven. Should it turn up all the same, the truth wins.
    _S.NOT_PLACED: RESTING | ENDINGS,
}


@dataclass(frozen=True, slots=True)
class Signal:
    """One alert, understood. `None` means that the alert did not say.

    Sizes: `quantity` in base units (coins, shares, contracts), `amount` in quote currency (`amount_is_margin`: the
    margin of a leveraged position), `percent` 0-100 of what `percent_of` names (balance, position, risk).
    `price` is the limit price of a LIMIT order, else a reference. `position_size` is a signed target.
    """

    action: Action
    symbol: str
    intent: str | None = None  # open_long, close_short, reverse_long, close, reduce, set_position, cancel ...
    broker: str | None = None
    market: Market | None = None
    type: OrderType = OrderType.MARKET
    quantity: Decimal | None = None
    quantity_unit: str | None = None  # as the alert means it: base, quote, contracts, shares, percent_of_equity ...
    amount: Decimal | None = None
    amount_is_margin: bool = False
    percent: Decimal | None = None
    percent_of: str | None = None
    price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: str | None = None
    confidence: Decimal | None = None
    strategy: str | None = None
    timeframe: str | None = None
    leverage: Decimal | None = None
    reduce_only: bool = False
    reverse: bool = False
    market_position: str | None = None
    prev_market_position: str | None = None
    position_size: Decimal | None = None
    stop_loss: Decimal | None = None
    stop_loss_percent: Decimal | None = None
    stop_loss_offset: Decimal | None = None
    take_profits: tuple[Decimal, ...] = ()
    take_profit_percent: Decimal | None = None
    take_profit_offset: Decimal | None = None
    trailing_percent: Decimal | None = None
    fired_at: datetime | None = None  # the alert's firing time: judged for freshness
    max_age_seconds: Decimal | None = None  # the alert's own limit, in place of MAX_SIGNAL_AGE_SECONDS
    bar_time: str | None = None  # recorded as written, never judged
    exchange: str | None = None  # where the chart comes from; it never routes
    account: str | None = None
    product: str | None = None
    order_id: str | None = None
    comment: str | None = None
    unread: tuple[str, ...] = ()  # fields that would change an entry, and what to say instead: none is made with them

    @property
    def goes_flat(self) -> bool:
        """The alert's stated target is to hold nothing."""
        return self.action is Action.CLOSE or self.market_position == "flat" or self.position_size == ZERO

    @property
    def size_after(self) -> Decimal | None:
        """The strategy's position after the order, signed, where the alert tells."""
        return ZERO if self.market_position == "flat" else self.position_size

    @property
    def size_before(self) -> Decimal | None:
        """The strategy's position before the order, signed, where the alert tells what both became of."""
        way = {Action.BUY: 1, Action.SELL: -1}.get(self.action)
        if self.size_after is None or self.quantity is None or way is None:
            return None
        return self.size_after - way * self.quantity


@dataclass(frozen=True, slots=True)
class SymbolRules:
    """What the exchange demands of an order. Steps and limits in base units, notionals in quote currency; 0 = none."""

    symbol: str
    base_asset: str
    quote_asset: str
    quantity_step: Decimal
    min_quantity: Decimal
    max_quantity: Decimal = ZERO
    market_quantity_step: Decimal = ZERO
    market_min_quantity: Decimal = ZERO
    market_max_quantity: Decimal = ZERO
    price_tick: Decimal = ZERO
    min_price: Decimal = ZERO
    max_price: Decimal = ZERO
    min_notional: Decimal = ZERO
    max_notional: Decimal = ZERO
    min_notional_applies_to_market: bool = True
    max_notional_applies_to_market: bool = False
    quote_amount_allowed: bool = True  # MARKET orders may name the quote amount (quoteOrderQty)
    order_types: frozenset[str] = frozenset({"MARKET", "LIMIT"})
    trading: bool = True


@dataclass(frozen=True, slots=True)
class Protection:
    """Where a position is to be closed: prices, and for a trailing stop the distance in percent of the best price.

    `signal_id` and `strategy` are those of the entry that asked for it.
    """

    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    trailing_percent: Decimal | None = None
    signal_id: str = ""
    strategy: str = ""


@dataclass(frozen=True, slots=True)
class ProtectionWish:
    """Protection as it is asked for: of the two, as a price, in percent of the entry price or as a distance from it."""

    stop_loss: Decimal | None = None
    stop_loss_percent: Decimal | None = None
    stop_loss_offset: Decimal | None = None
    take_profit: Decimal | None = None
    take_profit_percent: Decimal | None = None
    take_profit_offset: Decimal | None = None
    trailing_percent: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Fee:
    """`value`: of a fee in a coin that is neither traded nor paid with, what it was worth in quote currency."""

    asset: str
    amount: Decimal
    value: Decimal | None = None

    def share(self, part: Decimal) -> Fee:
        """The fee of a part of what was executed; `part` of 1."""
        return Fee(self.asset, self.amount * part, None if self.value is None else self.value * part)

    def less(self, other: Fee) -> Fee:
        """What is left of it beside another one in the same asset."""
        value = (self.value or ZERO) - (other.value or ZERO)
        return Fee(self.asset, self.amount - other.amount, None if self.value is None else value)


@dataclass(frozen=True, slots=True)
class Order:
    """One order's whole story so far; the next chapter is a new value.

    Exactly one of `quantity` (base units) and `amount` (quote currency, MARKET only) sizes it, except an exit that
    waits (status INTENT): it learns its quantity when it may leave. Executed numbers are the exchange's own totals.
    """

    client_order_id: str
    signal_id: str
    broker: str
    market: Market
    symbol: str
    side: Side
    type: OrderType
    is_entry: bool
    rules: SymbolRules
    received_at: datetime
    created_at: datetime
    quantity: Decimal | None = None
    amount: Decimal | None = None
    price: Decimal | None = None  # limit price
    reference_price: Decimal | None = None  # what the alert or the market said when it was decided
    time_in_force: str | None = None
    strategy: str = ""
    status: OrderStatus = OrderStatus.SENT
    reserved_quote: Decimal = ZERO
    reserved_base: Decimal = ZERO  # of an exit: what it takes of the position; a sale may be of more, the owner's coins
    reduce_only: bool = False  # closes at most what this program holds
    exits_all: bool = False  # closes everything held: resting orders of the symbol are cancelled first
    percent_of_position: Decimal | None = None  # of an exit that waits
    closes_whatever: bool = False  # long or short, whatever is held when it leaves
    after_exit: bool = False  # the second half of a reversal
    # "" is the order that the alert asked for; a reversal has an "exit" before it. Others stand beside it: stop_loss,
    # take_profit, trailing_stop (protection), by_hand (what the owner did at the exchange, taken over).
    leg: str = ""
    leverage: Decimal = Decimal(1)
    protection: ProtectionWish | None = None  # of an entry: what its position is to have
    stop_price: Decimal | None = None  # of protection: the price that triggers it
    trailing_percent: Decimal | None = None
    attempt: int = 1
    sent_at: datetime | None = None
    settled_at: datetime | None = None
    exchange_order_id: str = ""
    executed_quantity: Decimal = ZERO
    executed_quote: Decimal = ZERO
    fees: tuple[Fee, ...] = ()
    realized_pnl: Decimal | None = None  # in quote currency, of exits, after fees
    never_left: bool = False  # certainly not sent: the alert's key is given back
    note: str = ""

    @property
    def account(self) -> Account:
        return Account(self.broker, self.market)

    @property
    def instrument(self) -> Instrument:
        return Instrument(self.broker, self.market, self.symbol)

    @property
    def position_side(self) -> str:
        """LONG or SHORT: the position that it opens or closes."""
        return "LONG" if (self.side is Side.BUY) is self.is_entry else "SHORT"

    @property
    def is_protection(self) -> bool:
        return self.type in PROTECTIVE and not self.is_entry

    @property
    def average_price(self) -> Decimal | None:
        return self.executed_quote / self.executed_quantity if self.executed_quantity else None

    @property
    def has_ended(self) -> bool:
        return self.status in ENDINGS


@dataclass(frozen=True, slots=True)
class Execution:
    """What a broker says of an order: its own totals, never a guess of ours."""

    status: OrderStatus
    exchange_order_id: str = ""
    executed_quantity: Decimal = ZERO
    executed_quote: Decimal = ZERO
    fees: tuple[Fee, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class HeldThere:
    """An open futures position as the exchange shows it. `quantity` is positive; `side` is LONG or SHORT."""

    symbol: str
    side: str
    quantity: Decimal
    entry_price: Decimal


@dataclass(frozen=True, slots=True)
class TradedThere:
    """What one order at the exchange executed since a moment, whoever sent it."""

    symbol: str
    exchange_order_id: str
    side: Side
    position_side: str  # LONG or SHORT in hedge mode, else ""
    quantity: Decimal
    quote: Decimal
    fees: tuple[Fee, ...]
    last_at: datetime


@dataclass(frozen=True, slots=True)
class RestsThere:
    """An order that waits at the exchange, whoever sent it."""

    symbol: str
    client_order_id: str
    is_conditional: bool  # waits for a price outside of the book (futures)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check's answer. `reason` carries the numbers whether it passed or not."""

    check: str
    passed: bool
    said: str | Callable[[], str]

    @property
    def reason(self) -> str:
        return self.said if isinstance(self.said, str) else self.said()


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """What was decided about one alert: one row of signals.csv."""

    signal_id: str
    key: str
    decided_at: datetime
    received_at: datetime
    decision: Decision
    check: str
    reason: str
    signal: Signal | None
    broker: str
    order: Order | None = None
    duplicate_of: str = ""
    exit_first: Order | None = None  # of a reversal: closes what is held before `order` opens the opposite
    missed: str = ""  # the strategy believed to hold something else than what was held

    @property
    def latency_ms(self) -> int:
        return max(0, round((self.decided_at - self.received_at).total_seconds() * 1000))


def round_down(value: Decimal, step: Decimal) -> Decimal:
    """The largest multiple of `step` that is not above `value`; a step of 0 means no grid."""
    if step <= 0:
        return value
    return value // step * step


def is_on_grid(value: Decimal, step: Decimal) -> bool:
    return step <= 0 or value % step == 0


def plain(value: Decimal) -> str:
    """Decimal text without exponent and without trailing zeros: what exchanges, spreadsheets and people read."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
