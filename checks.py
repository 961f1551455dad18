"""The rules. Pure functions: no clock, no lock, no log, no network. CHECKS, at the end, is the whole policy in order.

Every check answers with a verdict, so that a dry run can show all of them; the first refusal decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cached_property

import sizing
from books import Books
from models import ZERO, Action, Market, OrderType, Signal, SymbolRules, Verdict, plain, round_down
from sizing import Size, View, Wish

# Limits are in USDT. A pair quoted in one of these is counted one to one; any other quote currency cannot be judged.
DOLLARS = frozenset({"USDT", "USDC", "FDUSD", "TUSD", "BUSD", "USD"})

# TradingView stamps whole seconds and clocks differ a little; more than this in the future is not a firing time.
MAX_CLOCK_LEAD_SECONDS = Decimal(10)


@dataclass(frozen=True, slots=True)
class Limits:
    """The owner's limits, as the settings name them. Money in USDT, `None` = off, empty = all."""

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


@dataclass(frozen=True)
class Case:
    """Everything that the checks look at. `broker_problem` and `halted` say why a broker, or nothing, can be used."""

    signal: Signal
    broker: str
    view: View
    books: Books
    limits: Limits
    now: datetime
    broker_problem: str = ""
    halted: str = ""
    by_owner: bool = False  # ordered on the control routes, not by a strategy

    @cached_property
    def is_exit(self) -> bool:
        """It can only reduce what is held: on spot every sell does, and a target of flat whichever way it points."""
        signal = self.signal
        return signal.action in (Action.SELL, Action.CLOSE) or signal.goes_flat or self.covers_short

    @cached_property
    def covers_short(self) -> bool:
        """Buys back a short: nothing that spot could hold."""
        signal = self.signal
        if signal.action is not Action.BUY or signal.goes_flat:
            return False
        return signal.reduce_only or signal.intent in ("close_short", "reduce") or signal.market_position == "short"

    @cached_property
    def wants_short(self) -> bool:
        signal = self.signal
        return signal.intent in ("open_short", "reverse_short") or signal.market_position == "short"

    @cached_property
    def waits(self) -> bool:
        """An exit waits until it is known what is held and nothing else of ours touches the symbol."""
        if not self.is_exit or self.covers_short:
            return False
        unsettled = self.books.unsettled(self.broker, self.signal.symbol)
        resting = self.books.resting(self.broker, self.signal.symbol) if self.wish.is_everything else ()
        unpriced = self.wish.amount is not None and self.view.price is None and self.signal.type is OrderType.MARKET
        return bool(unsettled or resting or (unpriced and not self.view.price_is_needed))

    @cached_property
    def rules(self) -> SymbolRules | None:
        """The exchange's rules; of a symbol that is held, the rules it was bought under do for a way out."""
        position = self.books.position(self.broker, self.signal.symbol)
        if self.view.rules or not self.is_exit:
            return self.view.rules
        under_way = self.books.on_symbol(self.broker, self.signal.symbol)
        return position.rules if position else next((order.rules for order in under_way), None)

    @cached_property
    def wish(self) -> Wish:
        if self.is_exit:
            return sizing.exit_wish(self.signal)
        limits = self.limits
        return sizing.entry_wish(self.signal, limits.capital_allocation_percent, limits.trade_amount_usdt)

    @cached_property
    def available(self) -> Decimal | None:
        """Free quote currency after everything that is already spoken for."""
        view = self.view
        if view.free_quote is None or view.balance_asked_at is None or view.rules is None:
            return None
        set_aside = self.books.quote_set_aside(self.broker, view.rules.quote_asset, view.balance_asked_at)
        # What has left but is not settled yet may already be gone from the balance: counted twice, never too little.
        return max(ZERO, view.free_quote - set_aside)

    @cached_property
    def sellable(self) -> Decimal:
        return ZERO if self.covers_short else self.books.sellable(self.broker, self.signal.symbol)

    @cached_property
    def size(self) -> Size:
        if self.rules is None:
            return Size()
        signal, price = self.signal, self.view.price
        if self.is_exit:
            return sizing.exit_size(self.wish, self.rules, self.sellable, price, signal.type, signal.price)
        return sizing.entry_size(self.wish, signal, self.rules, price, self.available)


Check = Callable[[Case], Verdict]


def _passed(check: str, reason: str | Callable[[], str]) -> Verdict:
    # Twenty checks pass for every order that leaves, and only a dry run reads what they say.
    return Verdict(check, True, reason)


def _refused(check: str, reason: str) -> Verdict:
    return Verdict(check, False, reason)


def _with(problem: str, reason: str) -> str:
    return f"{reason}; {problem}" if problem else reason


def _not_for_exits(check: str) -> Verdict:
    return _passed(check, "A way out is not limited by this")


def broker_is_configured(case: Case) -> Verdict:
    if case.broker_problem:
        return _refused("broker", case.broker_problem)
    return _passed("broker", lambda: f"{case.broker} is configured")


def this_version_can_do_it(case: Case) -> Verdict:
    """What is understood but not yet built is refused by name: ignoring a stop-loss would be worse than no trade."""
    for check, what in _beyond_this_version(case):
        return _refused(check, f"Not available in this version: {what}")
    return _passed("supported", "Spot market or limit order")


def _beyond_this_version(case: Case) -> list[tuple[str, str]]:
    signal, found = case.signal, []
    if signal.market is Market.FUTURES:
        found.append(("market", f"{signal.symbol} is a perpetual (futures); only spot is traded"))
    if signal.action is Action.CANCEL:
        found.append(("cancel", "an alert that cancels orders"))
    if signal.action is Action.TARGET and not signal.goes_flat:
        found.append(("target", f"position target {_shown(signal.position_size)}"))
    if signal.type not in (OrderType.MARKET, OrderType.LIMIT):
        found.append(("type", f"order type {signal.type}"))
    if signal.time_in_force not in (None, "GTC") and signal.type is OrderType.LIMIT:
        found.append(("time_in_force", f"time in force {signal.time_in_force}; resting orders are good till cancelled"))
    return found + (_exit_beyond(signal) if case.is_exit else _entry_beyond(signal))


def _exit_beyond(signal: Signal) -> list[tuple[str, str]]:
    if signal.market_position == "long" and signal.quantity is None and signal.percent is None:
        return [("target", "a sell that stays long without a quantity; add quantity")]
    return []


def _entry_beyond(signal: Signal) -> list[tuple[str, str]]:
    found = []
    named = {
        "stop_loss": signal.stop_loss or signal.stop_loss_percent or signal.stop_loss_offset,
        "take_profit": signal.take_profits or signal.take_profit_percent or signal.take_profit_offset,
        "trailing stop": signal.trailing_percent,
    }
    protection = [name for name, value in named.items() if value]
    if protection:
        found.append(("protection", f"{' and '.join(protection)}; take it out of the alert to trade without"))
    if signal.leverage is not None and signal.leverage != 1:
        found.append(("leverage", f"leverage {plain(signal.leverage)}; spot has none"))
    if signal.amount_is_margin:
        found.append(("size", "a size given as margin; use amount_usdt"))
    if signal.percent_of == "risk":
        found.append(("size", "a size given as risk percent; use amount_usdt"))
    if signal.position_size is not None and signal.market_position is None and signal.quantity is None:
        found.append(("target", f"position target {_shown(signal.position_size)}; use quantity"))
    if signal.prev_market_position == "short" and signal.quantity is not None and signal.position_size is None:
        found.append(("target", "a reversal whose quantity counts the closed short too; add position_size"))
    return found


def _shown(value: Decimal | None) -> str:
    return plain(value) if value is not None else "unknown"


def trading_is_active(case: Case) -> Verdict:
    if case.is_exit:
        return _passed(
            "paused", lambda: "Exits pass" + (" once the orders under way are settled" if case.waits else "")
        )
    if case.halted:
        return _refused("halted", f"Trading is halted: {case.halted}")
    if case.books.paused:
        return _refused("paused", "Trading is paused by the owner; POST /resume to go on")
    unresolved = case.books.unresolved(case.broker, case.signal.symbol)
    if unresolved:
        ids = ", ".join(order.client_order_id for order in unresolved)
        return _refused("unresolved", f"Trading is halted on {case.signal.symbol}: outcome of {ids} is not known yet")
    return _passed("paused", "Trading is active")


def strategy_is_allowed(case: Case) -> Verdict:
    strategy, allowed = case.signal.strategy or "", case.limits.allowed_strategies
    if case.by_owner or not allowed or strategy in allowed:
        return _passed("strategy", lambda: f"Strategy allowed: {strategy or 'none named'}")
    return _refused("strategy", f"Strategy not allowed: {strategy or 'none named'}; allowed: {', '.join(allowed)}")


def symbol_is_allowed(case: Case) -> Verdict:
    if case.is_exit:
        return _not_for_exits("symbol")
    symbol, allowed = case.signal.symbol, case.limits.allowed_symbols
    if not allowed or symbol in allowed:
        return _passed("symbol", lambda: f"Symbol allowed: {symbol}")
    return _refused("symbol", f"Symbol not allowed: {symbol}; allowed: {', '.join(allowed)}")


def direction_is_allowed(case: Case) -> Verdict:
    if case.is_exit:
        # A reversal to short is a way out first; with nothing to get out of, only the short would be left.
        if case.wants_short and not case.sellable and not case.waits:
            return _refused("direction", "Direction not allowed: short; spot holds no shorts and no long is held")
        return _not_for_exits("direction")
    if case.limits.direction == "short":
        return _refused("direction", "Direction not allowed: long; DIRECTION is short")
    return _passed("direction", lambda: f"Direction allowed: long ({case.limits.direction})")


def alert_is_fresh(case: Case) -> Verdict:
    fired_at = case.signal.fired_at
    if case.is_exit:
        return _not_for_exits("stale")
    if fired_at is None:
        return _passed("stale", "The alert does not say when it fired")
    limit = case.signal.max_age_seconds
    limit = case.limits.max_signal_age_seconds if limit is None else limit
    age = Decimal(str((case.now - fired_at).total_seconds()))
    if age < -MAX_CLOCK_LEAD_SECONDS:
        return _refused("stale", f"Alert is too old or its clock is wrong: fired {plain(-age)} s in the future")
    if age > limit:
        return _refused("stale", f"Alert is too old: fired {plain(age)} s ago, limit is {plain(limit)} s")
    return _passed("stale", lambda: f"Fired {plain(age)} s ago, limit is {plain(limit)} s")


def confidence_is_enough(case: Case) -> Verdict:
    confidence = case.signal.confidence
    confidence = case.limits.default_confidence if confidence is None else confidence
    minimum = case.limits.min_confidence
    if confidence < minimum and not case.by_owner:
        return _refused("confidence", f"Confidence below minimum: {plain(confidence)}, minimum is {plain(minimum)}")
    return _passed("confidence", lambda: f"Confidence {plain(confidence)}, minimum is {plain(minimum)}")


def symbol_is_tradable(case: Case) -> Verdict:
    symbol, rules, view = case.signal.symbol, case.rules, case.view
    if view.unknown_symbol:
        return _refused("symbol", _with(view.problem, f"Invalid symbol: {case.broker} does not trade {symbol}"))
    if rules is None:
        return _refused("symbol", _with(view.problem, f"Invalid symbol, or its rules are not known yet: {symbol}"))
    if not rules.trading:
        return _refused("symbol", f"Invalid symbol: {symbol} is not open for trading at {case.broker}")
    if not case.is_exit and rules.quote_asset not in DOLLARS:
        return _refused("symbol", f"Invalid symbol: {symbol} is quoted in {rules.quote_asset}; limits are in USDT")
    if case.signal.type.value not in rules.order_types:
        return _refused("symbol", f"Invalid symbol: {symbol} takes no {case.signal.type} orders at {case.broker}")
    return _passed("symbol", lambda: f"{symbol} is open for trading")


def price_is_known(case: Case) -> Verdict:
    """Only where orders fill at the prices that alerts carry; an exchange has its own."""
    if case.view.price_is_needed and case.view.price is None and case.signal.type is OrderType.MARKET:
        return _refused("price", f"No price to fill at: {case.view.problem}")
    return _passed("price", lambda: f"Price {_shown(case.view.price)}")


def balance_is_enough(case: Case) -> Verdict:
    if case.is_exit:
        return _not_for_exits("balance")
    minimum, available = case.limits.min_balance_usdt, case.available
    if available is None:
        unknown = "Balance below minimum cannot be ruled out: no fresh balance"
        return _refused("balance", _with(case.view.problem, unknown))
    if available < minimum:
        return _refused("balance", f"Balance below minimum: {plain(available)} free, minimum is {plain(minimum)}")
    return _passed("balance", lambda: f"Balance {plain(available)} free, minimum is {plain(minimum)}")


def something_to_sell(case: Case) -> Verdict:
    symbol = case.signal.symbol
    if not case.is_exit:
        return _passed("no_position", "An entry")
    if case.covers_short:
        return _refused("no_position", f"No position to close: {symbol} on spot is never short")
    if case.waits:
        return _passed("no_position", "Decided when the orders under way are settled")
    position = case.books.position(case.broker, symbol)
    if position is not None and position.is_open and case.sellable > 0:
        return _passed("no_position", lambda: f"{plain(case.sellable)} held")
    if case.wish.quantity is not None and not case.wish.reduce_only:
        return _passed("no_position", "Nothing bought by this program; the account's own holding is used")
    dust = f", only {plain(case.sellable)} that is too little to sell" if case.sellable else ""
    return _refused("no_position", f"No position to sell: nothing of {symbol} was bought here and is still held{dust}")


def quantity_is_precise(case: Case) -> Verdict:
    quantity = case.signal.quantity
    if quantity is not None and sizing.decimals(quantity) > sizing.MAX_DECIMALS:
        most = f"at most {sizing.MAX_DECIMALS} decimals are possible"
        return _refused("precision", f"Invalid quantity precision: {plain(quantity)}; {most}")
    return _passed("precision", "Rounded down to the exchange's step")


def size_is_within_limit(case: Case) -> Verdict:
    if case.is_exit:
        return _not_for_exits("size")
    notional, limit = case.size.notional, case.limits.max_risk_per_trade
    if notional is None:
        why = "no price is known" if case.available is not None else "no fresh balance"
        return _refused("size", _with(case.view.problem, f"Trade size above maximum cannot be ruled out: {why}"))
    if notional > limit:
        return _refused("size", f"Trade size above maximum: {plain(notional)} USDT, maximum is {plain(limit)} USDT")
    quantity = case.size.quantity
    largest = sizing.largest_quantity(case.rules, case.signal.type) if case.rules else ZERO
    if largest and quantity is not None and quantity > largest:
        numbers = f"{plain(quantity)}, at most {plain(largest)}"
        return _refused("size", f"Trade size above maximum of {case.broker}: {numbers}")
    return _passed("size", lambda: f"Trade size {plain(notional)} USDT, maximum is {plain(limit)} USDT")


def size_is_tradable(case: Case) -> Verdict:
    """The exchange's own smallest order, by quantity and by notional; it is judged again by the exchange itself."""
    if case.waits or case.rules is None:
        return _passed("min_notional", "Decided when the order may leave")
    size, rules = case.size, case.rules
    smallest = max(sizing.smallest_quantity(rules, case.signal.type), sizing.quantity_step(rules, case.signal.type))
    quantity = _quantity_of(case)
    if quantity is not None and (quantity <= 0 or quantity < smallest):
        return _refused("min_notional", f"Order size too small: {plain(quantity)}, smallest is {plain(smallest)}")
    least = sizing.smallest_notional(rules, case.signal.type, is_exit=case.is_exit)
    if size.notional is not None and size.notional < least:
        numbers = f"{plain(size.notional)} notional, smallest is {plain(rules.min_notional)}"
        return _refused("min_notional", f"Order size too small: {numbers}")
    return _passed("min_notional", lambda: f"Order size {size.text(rules)}")


def _quantity_of(case: Case) -> Decimal | None:
    if case.size.amount is None or case.view.price is None or case.rules is None:
        return case.size.quantity
    return round_down(case.size.amount / case.view.price, sizing.quantity_step(case.rules, case.signal.type))


def balance_covers_it(case: Case) -> Verdict:
    if case.is_exit:
        return _holding_covers_it(case)
    notional, available = case.size.notional, case.available
    if notional is None or available is None:
        return _refused("insufficient_balance", "Insufficient balance cannot be ruled out: size or balance not known")
    if notional > available:
        numbers = f"{plain(notional)} needed, {plain(available)} free"
        return _refused("insufficient_balance", f"Insufficient balance: {numbers}")
    return _passed("insufficient_balance", lambda: f"{plain(available)} free")


def _holding_covers_it(case: Case) -> Verdict:
    """Only a stated quantity can exceed what was bought here; when the account is not known, the exchange decides."""
    quantity, sellable, account = case.size.quantity, case.sellable, case.view.free_base
    if case.waits or quantity is None or quantity <= sellable or account is None:
        return _passed("insufficient_balance", "Decided by what is held")
    assert case.rules is not None
    assert case.view.balance_asked_at is not None
    free = account - case.books.base_set_aside(case.broker, case.rules.base_asset, case.view.balance_asked_at)
    if quantity > max(free, sellable):
        numbers = f"{plain(quantity)} to sell, {plain(max(free, sellable, ZERO))} held"
        return _refused("insufficient_balance", f"Insufficient balance: {numbers}")
    return _passed("insufficient_balance", lambda: f"{plain(free)} held by the account")


def open_trades_below_limit(case: Case) -> Verdict:
    if case.is_exit:
        return _not_for_exits("open_trades")
    open_now, limit = case.books.open_trades, case.limits.max_open_trades
    if open_now >= limit:
        return _refused("open_trades", f"Open trades limit reached: {open_now} open, limit is {limit}")
    return _passed("open_trades", lambda: f"{open_now} trades open, limit is {limit}")


def trades_today_below_limit(case: Case) -> Verdict:
    if case.is_exit:
        return _not_for_exits("daily_limit")
    today, limit = case.books.entries_today, case.limits.max_trades_per_day
    if today >= limit:
        return _refused("daily_limit", f"Daily limit reached: {today} trades today (UTC), limit is {limit}")
    return _passed("daily_limit", lambda: f"{today} trades today (UTC), limit is {limit}")


def loss_today_below_limit(case: Case) -> Verdict:
    limit = case.limits.max_daily_loss_usdt
    if case.is_exit:
        return _not_for_exits("daily_loss")
    if limit is None:
        return _passed("daily_loss", "No daily loss limit is set")
    loss = -case.books.realized_today
    if loss >= limit:
        return _refused("daily_loss", f"Daily loss limit reached: {plain(loss)} USDT today, limit is {plain(limit)}")
    return _passed("daily_loss", lambda: f"Realised today {plain(-loss)} USDT, loss limit is {plain(limit)}")


def cooldown_is_over(case: Case) -> Verdict:
    if case.is_exit:
        return _not_for_exits("cooldown")
    last = case.books.last_entry_at(case.broker, case.signal.symbol)
    if last is None:
        return _passed("cooldown", "No entry on this symbol before")
    # A clock that stepped back must not lengthen the wait beyond the limit itself.
    waited = Decimal(str(abs((case.now - last).total_seconds())))
    limit = case.limits.cooldown_seconds
    if waited < limit:
        return _refused("cooldown", f"Signal in cooldown: {plain(waited)} s since the last, limit is {plain(limit)} s")
    return _passed("cooldown", lambda: f"{plain(waited)} s since the last entry, limit is {plain(limit)} s")


CHECKS: tuple[Check, ...] = (
    broker_is_configured,
    this_version_can_do_it,
    trading_is_active,
    strategy_is_allowed,
    symbol_is_allowed,
    direction_is_allowed,
    alert_is_fresh,
    confidence_is_enough,
    symbol_is_tradable,
    price_is_known,
    balance_is_enough,
    something_to_sell,
    quantity_is_precise,
    size_is_within_limit,
    size_is_tradable,
    balance_covers_it,
    open_trades_below_limit,
    trades_today_below_limit,
    loss_today_below_limit,
    cooldown_is_over,
)


def judge(case: Case) -> Verdict | None:
    """The first refusal, or None when every check passed."""
    verdicts = (check(case) for check in CHECKS)
    return next((verdict for verdict in verdicts if not verdict.passed), None)


def judge_all(case: Case) -> list[Verdict]:
    return [check(case) for check in CHECKS]


def missed_alert(case: Case) -> str:
    """What to say when the strategy believes in another position than the one held; empty when they agree."""
    said = case.signal.prev_market_position
    position = case.books.position(case.broker, case.signal.symbol)
    held = "long" if position and position.is_open else "flat"
    if said is None or said == held:
        return ""
    return f"the strategy was {said} before this alert, held is {held}: an alert may have been missed"
