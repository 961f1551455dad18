"""What the daemon knows of any broker: a shape, and the three endings of every call that could trade.

An order that was handed to a broker is done, refused or unknown. Only the broker's own module knows which of its
codes mean which; everybody else handles exactly these three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from models import ZERO, Account, Execution, HeldThere, Order, OrderType, RestsThere, SymbolRules, TradedThere


@dataclass(frozen=True, slots=True)
class Done:
    """The broker took the order: its own numbers, which may still be zero for an order that rests."""

    execution: Execution


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was placed, certainly.

    `never_left`: the broker never judged the order (no connection, rate limit, clock), so sending it again is safe.
    `retry_after_seconds`: how long the broker asked to be left alone.
    """

    reason: str
    code: str = ""
    never_left: bool = False
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The order may or may not exist: look it up, never send it again."""

    reason: str


Outcome = Done | Refused | Unknown


@dataclass(frozen=True, slots=True)
class Found:
    """The broker knows the order."""

    execution: Execution


@dataclass(frozen=True, slots=True)
class NotFound:
    """The broker says there is no such order. Once is no proof: its records lag behind its engine."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The question itself failed; nothing was learned. `for_long`: nor will be, before somebody has done something.

    `for_good`: its broker will never tell any more; only the owner can, by looking there.
    """

    reason: str
    for_long: bool = False
    for_good: bool = False


LookUp = Found | NotFound | NoAnswer


@dataclass(frozen=True, slots=True)
class Balance:
    """One asset of an account; `locked` is set aside by resting orders.

    `wallet`, of futures: what is there without what open positions have gained or lost. `free` may count a gain.
    """

    free: Decimal = ZERO
    locked: Decimal = ZERO
    wallet: Decimal | None = field(default=None, compare=False)

    @property
    def total(self) -> Decimal:
        return self.free + self.locked if self.wallet is None else self.wallet


class BrokerError(Exception):
    """A question (rules, price, balance) was not answered; the text says what was seen and what to do."""


class UnknownSymbol(BrokerError):
    """The broker does not trade this symbol."""


PROTECTION_ORDER = {OrderType.STOP: 0, OrderType.TRAILING_STOP: 1}


def stop_first(orders: Sequence[Order], place: Callable[[Order], Outcome]) -> Sequence[Outcome]:
    """Hands over protection one by one, in the order of its weight: the stop is what must not be missing.

    What would come after a refusal is not sent.
    """
    outcomes: dict[str, Outcome] = {}
    refused: Refused | None = None
    for order in sorted(orders, key=lambda each: PROTECTION_ORDER.get(each.type, len(PROTECTION_ORDER))):
        if refused:
            outcome: Outcome = Refused(f"not sent, because {refused.reason}", refused.code, never_left=True)
        else:
            outcome = place(order)
        refused = refused or (outcome if isinstance(outcome, Refused) else None)
        outcomes[order.client_order_id] = outcome
    return [outcomes[order.client_order_id] for order in orders]


class Broker(Protocol):
    """One account at one broker. Calls block and are made from worker threads; none of them resends an order."""

    @property
    def name(self) -> str:
        """As alerts name it: PAPER, BINANCE, BINANCE_REAL."""

    @property
    def account(self) -> Account:
        """The broker's name and the market of this wallet."""

    @property
    def is_local(self) -> bool:
        """Answers from memory at once, so that nothing about it needs to be kept fresh."""

    @property
    def absence_is_proven_after_seconds(self) -> float:
        """How long after sending an order can still appear that a look-up does not find."""

    @property
    def clock_problem(self) -> str:
        """Why the machine's clock is not to be believed beside the broker's, as last compared; empty while it is."""

    @property
    def pause_seconds(self) -> float:
        """How long it asked to be left alone from now on; 0 when it may be called."""

    def connect(self) -> None:
        """Make sure that questions will be answered (clock, permissions); raises BrokerError."""

    def keep_warm(self) -> None:
        """A light question, asked beside others: keeps one more connection open. Raises BrokerError."""

    def place(self, order: Order) -> Outcome:
        """Hand the order over, once."""

    def protect(self, orders: Sequence[Order]) -> Sequence[Outcome]:
        """Hand over the protection of one position, once: an outcome for each. What belongs together ends together."""

    def prepare(self, symbol: str, leverage: Decimal) -> None:
        """Do now what the first entry on the symbol would have to wait for (leverage, margin); raises BrokerError."""

    def look_up(self, order: Order) -> LookUp:
        """Ask for the order by its client order id."""

    def cancel(self, order: Order) -> LookUp:
        """Cancel a resting order and tell how it stands afterwards."""

    def symbol_rules(self, symbol: str) -> SymbolRules:
        """Raises UnknownSymbol or BrokerError."""

    def current_price(self, symbol: str) -> Decimal:
        """Last price in quote currency; raises UnknownSymbol or BrokerError."""

    def current_prices(self, symbols: Sequence[str]) -> Mapping[str, Decimal]:
        """Several in one question, all of which the broker must trade; raises BrokerError."""

    def balances(self) -> Mapping[str, Balance]:
        """Every asset with something in it; raises BrokerError."""

    def positions(self) -> Sequence[HeldThere]:
        """Open futures positions, also those that this program knows nothing of; raises BrokerError."""

    def trades_since(self, symbol: str, since: datetime) -> Sequence[TradedThere]:
        """What was executed on the symbol, by whoever, oldest first; raises BrokerError."""

    def open_orders(self) -> Sequence[RestsThere]:
        """Everything that waits, by whoever; raises BrokerError."""

    def cancel_stray(self, stray: RestsThere) -> None:
        """Cancel an order that the books do not know as live; that it is gone already is fine. Raises BrokerError."""
