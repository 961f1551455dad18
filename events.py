"""What goes on the record: each is a value that is written once and never changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from models import DecisionRecord, Market, Order, Signal

# By so much what is held may differ from what the strategy counts, and be meant: by fees, and by rounding to steps.
FEES_MAKE_UP = Decimal("0.005")
STEPS_MAKE_UP = Decimal("0.1")


@dataclass(frozen=True, slots=True)
class Decided:
    """An alert was judged; when accepted, the intent of its order (of a reversal: both) is part of the same record."""

    record: DecisionRecord

    @property
    def at(self) -> datetime:
        return self.record.decided_at


@dataclass(frozen=True, slots=True)
class OrderChanged:
    """An order's next chapter: the whole new value."""

    order: Order
    at: datetime


@dataclass(frozen=True, slots=True)
class Switched:
    """The owner paused or resumed trading."""

    paused: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """A setting's new text, as `.env` would have it: empty = off, or all of a list; None = back to the default."""

    name: str
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Preferred:
    """The owner changed settings while it runs. `by`: from where, and how he showed that he may."""

    changes: tuple[Change, ...]
    at: datetime
    by: str = ""


@dataclass(frozen=True, slots=True)
class Missed:
    """When an alert came, its strategy had been `said` (long, short, flat) and `held` was something else.

    Sizes in base units, signed, where they are known. `followed`: the alert that came led to an order.
    """

    held: str
    said: str
    at: datetime
    followed: bool = True
    held_size: Decimal | None = None
    said_size: Decimal | None = None
    fired_at: datetime | None = None  # the alert that came

    def is_it(self, signal: Signal) -> bool:
        """Whether it is the alert that was missing: from what was held to what the strategy had."""
        if self.fired_at is not None and signal.fired_at is not None and signal.fired_at > self.fired_at:
            return False  # both say when they fired, and it came after
        before, after = signal.size_before, signal.size_after
        if before is None or after is None or self.held_size is None or self.said_size is None:
            words = (signal.prev_market_position, signal.market_position)
            return self.held != self.said and words == (self.held, self.said)
        # What is held is rounded to the exchange's step, what the strategy says is not.
        return is_near(before, self.held_size, STEPS_MAKE_UP) and is_near(after, self.said_size)


@dataclass(frozen=True, slots=True)
class Overtook:
    """An alert had nothing to do, as another one should have come before it: should that one come now, it is late."""

    broker: str
    market: Market
    symbol: str
    missed: Missed

    @property
    def at(self) -> datetime:
        return self.missed.at


@dataclass(frozen=True, slots=True)
class Worth:
    """What one account was worth, in `asset`, and what was free of it. `realized_total`: by all its orders so far."""

    broker: str
    market: Market
    asset: str
    equity: Decimal
    free: Decimal
    realized_total: Decimal


@dataclass(frozen=True, slots=True)
class Valued:
    """A look at what accounts were worth. Nothing happened: the books do not change."""

    worths: tuple[Worth, ...]
    at: datetime


Event = Decided | OrderChanged | Switched | Preferred | Overtook | Valued


def is_near(one: Decimal, other: Decimal, share: Decimal = FEES_MAKE_UP) -> bool:
    """Apart by no more than this share of them."""
    return abs(one - other) <= max(abs(one), abs(other)) * share
