"""One alert beside everything that its decision depends on: limits, books, market. Pure values, worked out once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple

import protection
import sizing
from books import Books
from models import (
    CURRENCIES,
    USDT,
    ZERO,
    Instrument,
    Market,
    OrderType,
    ProtectionWish,
    Side,
    Signal,
    SymbolRules,
)
from plan import Held, Leg, Plan, covers_short, plan
from sizing import ONE, Size, View, Wish


class Money(NamedTuple):
    """Limits of one broker that are amounts, in `currency`."""

    currency: str
    min_balance: Decimal
    max_risk_per_trade: Decimal
    trade_amount: Decimal


@dataclass(frozen=True, slots=True)
class Limits:
    """The owner's limits, as the settings name them. Money in USDT or as its name says, `None` = off, empty = all."""

    min_confidence: Decimal
    default_confidence: Decimal
    min_balance_usdt: Decimal
    max_risk_per_trade: Decimal
    trade_amount_usdt: Decimal
    max_open_trades: int
    max_trades_per_day: int
    cooldown_seconds: Decimal
    max_daily_loss_usdt: Decimal | None
    max_signal_age_seconds: Decimal
    dedupe_seconds: Decimal
    allowed_symbols: tuple[str, ...]
    allowed_strategies: tuple[str, ...]
    direction: str
    capital_allocation_percent: Decimal | None
    leverage: int
    max_leverage: int
    stop_loss_percent: Decimal | None
    take_profit_percent: Decimal | None
    trailing_stop_percent: Decimal | None
    flattrade_min_balance: Decimal
    flattrade_max_risk_per_trade: Decimal
    flattrade_trade_amount: Decimal

    def money(self, broker: str) -> Money:
        """Those that are amounts, in the currency of the broker's accounts."""
        if broker == "FLATTRADE":
            amounts = (self.flattrade_min_balance, self.flattrade_max_risk_per_trade, self.flattrade_trade_amount)
        else:
            amounts = (self.min_balance_usdt, self.max_risk_per_trade, self.trade_amount_usdt)
        return Money(CURRENCIES.get(broker, USDT), *amounts)


@dataclass(frozen=True)
class Case:
    """Everything that the checks look at. `broker_problem` and `halted` say why a broker, or nothing, can be used.

    A reversal is two cases: the way out, and the entry behind it (`behind`), judged as if the way out were done.
    """

    signal: Signal
    instrument: Instrument
    view: View
    books: Books
    limits: Limits
    now: datetime
    broker_problem: str = ""
    market_problem: str = ""
    foreign_position: str = ""  # what the account holds there that this program did not open
    halted: str = ""
    by_owner: bool = False  # ordered on the control routes or to protect, not by a strategy
    behind: Leg | None = None
    freed_margin: Decimal = ZERO  # by the way out before it

    @property
    def broker(self) -> str:
        return self.instrument.broker

    @property
    def is_spot(self) -> bool:
        return self.instrument.market is Market.SPOT

    @cached_property
    def money(self) -> Money:
        return self.limits.money(self.broker)

    @cached_property
    def held(self) -> Held:
        return Held(
            self.books.held(self.instrument),
            self.books.heading(self.instrument),
            any(not order.is_protection for order in self.books.on(self.instrument)),
        )

    @cached_property
    def plan(self) -> Plan:
        limits = self.limits
        default = sizing.default_wish(limits.capital_allocation_percent, self.money.trade_amount)
        return plan(self.signal, self.instrument.market, self.held, default)

    @cached_property
    def leg(self) -> Leg:
        return self.behind or self.plan.legs[0]

    @property
    def is_exit(self) -> bool:
        """It can only reduce what is held: limits on the way in do not hold for it."""
        return self.leg.is_exit

    @property
    def side(self) -> Side:
        return self.leg.side

    @cached_property
    def wish(self) -> Wish:
        wish = self.leg.wish
        if not self.is_exit or wish.amount is None or not wish.is_margin:
            return wish
        # What closes by its margin closes as much as that margin has opened.
        return replace(wish, amount=wish.amount * (self.bound_leverage or ONE), is_margin=False)

    @property
    def type(self) -> OrderType:
        """The first half of a reversal does not wait for a price: the second half waits for it."""
        return OrderType.MARKET if self.is_exit and self.plan.is_reversal else self.signal.type

    @cached_property
    def covers_short(self) -> bool:
        return self.is_spot and covers_short(self.signal)

    @cached_property
    def waits(self) -> bool:
        """An exit waits until it is known what is held and nothing else of ours touches the symbol."""
        if self.behind is not None:
            return True
        if not self.is_exit or self.plan.nothing:
            return False
        everything = self.wish.is_everything
        unsettled = self.books.unsettled(self.instrument)
        resting = self.books.resting(self.instrument) if everything else ()
        # On spot, protection locks what it would sell; on futures it only has to go before the position goes.
        protecting = self.books.protecting(self.instrument) if everything or self.is_spot else ()
        unpriced = self.wish.amount is not None and self.view.price is None and self.type is OrderType.MARKET
        return bool(unsettled or resting or protecting or (unpriced and not self.view.price_is_needed))

    @cached_property
    def rules(self) -> SymbolRules | None:
        """The exchange's rules; of a symbol that is held, the rules it was bought under do for a way out."""
        position = self.books.position(self.instrument)
        if self.view.rules or not self.is_exit:
            return self.view.rules
        under_way = self.books.on(self.instrument)
        return position.rules if position else next((order.rules for order in under_way), None)

    @cached_property
    def leverage(self) -> Decimal:
        """Of an entry; on spot there is none."""
        if self.is_spot or self.is_exit:
            return ONE
        return self.signal.leverage or self.bound_leverage or Decimal(self.limits.leverage)

    @cached_property
    def bound_leverage(self) -> Decimal | None:
        """Of what is held or under way already: the exchange has one for all of it."""
        position = self.books.position(self.instrument)
        if position is not None and position.is_open:
            return position.leverage
        entries = (order.leverage for order in self.books.on(self.instrument) if order.is_entry)
        return next(entries, None)

    @cached_property
    def available(self) -> Decimal | None:
        """Free quote currency after everything that is already spoken for."""
        view = self.view
        if view.free_quote is None or view.balance_asked_at is None or view.rules is None:
            return None
        set_aside = self.books.quote_set_aside(self.instrument.account, view.rules.quote_asset, view.balance_asked_at)
        # What has left but is not settled yet may already be gone from the balance: counted twice, never too little.
        return max(ZERO, view.free_quote - set_aside) + self.freed_margin

    @cached_property
    def closable(self) -> Decimal:
        return ZERO if self.covers_short else self.books.closable(self.instrument, self.side)

    @cached_property
    def size(self) -> Size:
        if self.rules is None:
            return Size()
        signal, price, side = self.signal, self.view.price, self.side
        if self.is_exit:
            return sizing.exit_size(self.wish, self.rules, self.closable, price, self.type, signal.price, side)
        return sizing.entry_size(self.wish, signal, self.rules, price, self.available, side, self.leverage)

    @property
    def margin(self) -> Decimal | None:
        """What the entry takes from the balance, in quote currency: on spot all of it."""
        notional = self.size.notional
        return notional if notional is None or self.leverage == ONE else notional / self.leverage

    @cached_property
    def protection(self) -> ProtectionWish | None:
        """What the position of an entry is to be protected by: what the alert says, for the rest the settings."""
        return None if self.is_exit else protection.wish(self.signal, self.limits)
