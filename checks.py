"""The rules. Pure functions: no clock, no lock, no log, no network. CHECKS, at the end, is the whole policy in order.

Every check answers with a verdict, so that a dry run can show all of them; the first refusal decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal

import protection
import sizing
from case import Case, Limits
from models import DOLLARS, USDT, ZERO, Action, Order, OrderType, Side, Verdict, plain, round_down
from plan import wants_short
from sizing import ONE

__all__ = ["CHECKS", "Case", "Limits", "judge", "judge_all", "missed_alert"]

# TradingView stamps whole seconds and clocks differ a little; more than this in the future is not a firing time.
MAX_CLOCK_LEAD_SECONDS = Decimal(10)
TIMES_IN_FORCE = (None, "GTC", "IOC", "FOK")
FUTURES_TIMES_IN_FORCE = (*TIMES_IN_FORCE, "GTX")  # only as a maker
DELIVERY = ("CNC", "C", "DELIVERY", "CASH")  # what Indian brokers call shares that are paid in full and kept
# TradingView sends an alert that was not answered again, three times, 5 s apart; by then later ones may have passed it.
OVERTAKEN_SECONDS = 30


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


def market_is_on(case: Case) -> Verdict:
    if case.market_problem:
        return _refused("market", f"Market not available: {case.market_problem}")
    return _passed("market", lambda: f"{case.instrument.market} is on")


def this_version_can_do_it(case: Case) -> Verdict:
    """What is understood but not yet built is refused by name: ignoring it would be worse than no trade."""
    for check, what in _beyond_this_version(case):
        return _refused(check, f"Not available in this version: {what}")
    return _passed("supported", "Market or limit order")


def _beyond_this_version(case: Case) -> Iterator[tuple[str, str]]:
    signal = case.signal
    if signal.action is Action.CANCEL:
        yield "cancel", "an alert that cancels orders"
    if signal.type not in (OrderType.MARKET, OrderType.LIMIT):
        yield "type", f"order type {signal.type}"
    known = TIMES_IN_FORCE if case.is_spot else FUTURES_TIMES_IN_FORCE
    if signal.time_in_force not in known and signal.type is OrderType.LIMIT:
        times = ", ".join(sorted(time for time in known if time))
        yield "time_in_force", f"time in force {signal.time_in_force} on {case.instrument.market}; there are {times}"
    yield from _exit_beyond(case) if case.is_exit else _entry_beyond(case)


def _exit_beyond(case: Case) -> Iterator[tuple[str, str]]:
    if case.plan.nothing:
        return  # there is no order, and its own reason says why
    stays = {Side.SELL: "long", Side.BUY: "short"}[case.side] == case.signal.market_position
    if stays and case.wish.is_everything and case.wish.percent is None:
        word = case.signal.market_position
        yield "target", f"an order that reduces and yet stays {word} without a quantity; add quantity"


def _entry_beyond(case: Case) -> Iterator[tuple[str, str]]:
    signal = case.signal
    if signal.unread:
        yield "field", f"an entry with {', '.join(signal.unread)}"
    if case.broker == "FLATTRADE" and (signal.product or "CNC").upper() not in DELIVERY:
        yield "product", f"product {signal.product}; FLATTRADE buys shares for delivery (CNC)"
    if len(signal.take_profits) > 1:
        yield "protection", "more than one take-profit"
    if case.is_spot and signal.leverage not in (None, ONE):
        yield "leverage", f"leverage {_shown(signal.leverage)}; spot has none"
    if case.is_spot and signal.amount_is_margin:
        yield "size", "a size given as margin on spot; use amount_usdt"
    if signal.percent_of == "risk":
        yield "size", "a size given as risk percent; use amount_usdt"
    if signal.percent_of == "position" and case.wish.percent is not None:
        yield "size", "an entry sized in percent of the position; use amount_usdt, or percent of the balance"
    opposite = {Side.BUY: "short", Side.SELL: "long"}[case.side]
    counts_the_close = signal.prev_market_position == opposite and signal.quantity is not None and not case.behind
    if counts_the_close and signal.position_size is None:
        yield "target", f"a reversal whose quantity counts the closed {opposite} too; add position_size"


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
    unresolved = _unknown_behind(case) if case.behind else case.books.unresolved(case.instrument)
    if unresolved:
        ids = ", ".join(order.client_order_id for order in unresolved)
        return _refused("unresolved", f"Trading is halted on {case.signal.symbol}: outcome of {ids} is not known yet")
    return _passed("paused", "Trading is active")


def _unknown_behind(case: Case) -> list[Order]:
    """What the entry of a reversal cannot be sized before: its quantity counts what is closed, and that may be more."""
    if case.signal.quantity is None or case.signal.position_size is not None:
        return []
    return [order for order in case.books.unsettled(case.instrument) if not order.is_protection]


def strategy_is_allowed(case: Case) -> Verdict:
    strategy, allowed = case.signal.strategy or "", case.limits.allowed_strategies
    if case.by_owner or not allowed or strategy in allowed:
        return _passed("strategy", lambda: f"Strategy allowed: {strategy or 'none named'}")
    return _refused("strategy", f"Strategy not allowed: {strategy or 'none named'}; allowed: {', '.join(allowed)}")


def symbol_is_allowed(case: Case) -> Verdict:
    if case.is_exit:
        return _not_for_exits("symbol")
    symbol, allowed = case.signal.symbol, case.limits.allowed_symbols
    # Settings know no hyphens: BAJAJ-AUTO is BAJAJAUTO there.
    if not allowed or symbol.replace("-", "") in allowed:
        return _passed("symbol", lambda: f"Symbol allowed: {symbol}")
    return _refused("symbol", f"Symbol not allowed: {symbol}; allowed: {', '.join(allowed)}")


def direction_is_allowed(case: Case) -> Verdict:
    if case.is_exit:
        # A reversal to short is a way out first; with nothing to get out of, only the short would be left.
        if case.is_spot and wants_short(case.signal) and not case.closable and not case.waits:
            return _refused("direction", "Direction not allowed: short; spot holds no shorts and no long is held")
        return _not_for_exits("direction")
    word, allowed = "long" if case.side is Side.BUY else "short", case.limits.direction
    if allowed not in (word, "both"):
        return _refused("direction", f"Direction not allowed: {word}; DIRECTION is {allowed}")
    return _passed("direction", lambda: f"Direction allowed: {word} ({allowed})")


def leverage_is_allowed(case: Case) -> Verdict:
    if case.is_exit:
        return _not_for_exits("leverage")
    leverage, limit = case.leverage, case.limits.max_leverage
    if case.is_spot:
        return _passed("leverage", "Spot has no leverage")
    if leverage > limit:
        return _refused("leverage", f"Leverage above maximum: {plain(leverage)}, maximum is {limit}")
    if case.bound_leverage not in (None, leverage):
        bound = _shown(case.bound_leverage)
        return _refused("leverage", f"Leverage of {case.signal.symbol} is {bound} while something is held or waits")
    if leverage < ONE or leverage % ONE:
        return _refused("leverage", f"Leverage must be a whole number from 1 to {limit}, was {plain(leverage)}")
    return _passed("leverage", lambda: f"Leverage {plain(leverage)}, maximum is {limit}")


def nothing_foreign_is_held(case: Case) -> Verdict:
    """The exchange keeps one position per symbol: an order of ours would close, or its stop sell, the owner's."""
    if case.is_exit:
        return _not_for_exits("foreign_position")
    if case.foreign_position:
        seen = f"the account holds {case.foreign_position} of {case.signal.symbol} that this program did not open"
        return _refused("foreign_position", f"Foreign position: {seen}; close it, or trade on an account of its own")
    return _passed("foreign_position", "Nothing is held that this program did not open")


def overtaken(case: Case) -> Verdict:
    """Two alerts may arrive in the other order: the later one was followed already, the earlier one has no work left.

    A strategy went from long over flat to short. Its second alert came first and did both; should the first one, that
    closes the long, now close the short? Or an exit came first and found nothing to close: should the entry, late, open
    what nobody will close? Where the later alert led to nothing, a way out passes all the same: it may be a new one.
    """
    missed = case.books.missed.get(case.instrument)
    signal = case.signal
    if missed is None or case.by_owner or (case.now - missed.at).total_seconds() > OVERTAKEN_SECONDS:
        return _passed("overtaken", "No later alert came before this one")
    if not missed.is_it(signal):
        return _passed("overtaken", "It is not the alert that was missed before")
    if case.is_exit and not missed.followed:
        return _not_for_exits("overtaken")
    step = f"from {_told(missed.held_size, missed.held)} to {_told(missed.said_size, missed.said)}"
    did = "was already followed" if missed.followed else "was here already, and found it not done"
    return _refused("overtaken", f"Overtaken: the alert that came after this one ({step}) {did}")


def _told(size: Decimal | None, word: str) -> str:
    return word if size is None or word == "flat" else f"{word} {plain(abs(size))}"


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
    currency = case.money.currency
    if not case.is_exit and rules.quote_asset not in (DOLLARS if currency == USDT else {currency}):
        return _refused(
            "symbol", f"Invalid symbol: {symbol} is quoted in {rules.quote_asset}; limits are in {currency}"
        )
    if case.type.value not in rules.order_types:
        return _refused("symbol", f"Invalid symbol: {symbol} takes no {case.type} orders at {case.broker}")
    return _passed("symbol", lambda: f"{symbol} is open for trading")


def price_is_known(case: Case) -> Verdict:
    """Only where orders fill at the prices that alerts carry; an exchange has its own.

    A way out that waits may find nothing to sell, but only what rests to be cancelled.
    """
    waits = case.is_exit and case.waits
    if case.view.price_is_needed and case.view.price is None and case.type is OrderType.MARKET and not waits:
        return _refused("price", f"No price to fill at: {case.view.problem}")
    return _passed("price", lambda: f"Price {_shown(case.view.price)}")


def protection_is_possible(case: Case) -> Verdict:
    asked, rules = case.protection, case.rules
    if asked is None:
        return _passed("protection", "None is asked for")
    if rules is None:
        return _refused("protection", "Protection cannot be judged: the rules of the symbol are not known yet")
    price = case.size.limit_price or case.view.price or case.signal.price
    problem = protection.problem(asked, case.side, case.instrument.market, rules, price, case.size)
    if problem:
        return _refused("protection", f"Protection not possible: {problem}")
    return _passed("protection", "Placed when the entry is filled")


def balance_is_enough(case: Case) -> Verdict:
    if case.is_exit:
        return _not_for_exits("balance")
    minimum, available, unit = case.money.min_balance, case.available, _unit(case)
    if available is None:
        unknown = "Balance below minimum cannot be ruled out: no fresh balance"
        return _refused("balance", _with(case.view.problem, unknown))
    if available < minimum:
        return _refused(
            "balance", f"Balance below minimum: {plain(available)}{unit} free, minimum is {plain(minimum)}{unit}"
        )
    return _passed("balance", lambda: f"Balance {plain(available)}{unit} free, minimum is {plain(minimum)}{unit}")


def _unit(case: Case) -> str:
    """Dollars of several kinds are one balance; any other currency is told."""
    return "" if case.money.currency == USDT else f" {case.money.currency}"


def something_to_do(case: Case) -> Verdict:
    symbol = case.signal.symbol
    if case.plan.nothing and not case.behind:
        return _refused(*case.plan.nothing)
    if not case.is_exit:
        return _passed("no_position", "An entry")
    if case.waits:
        return _passed("no_position", "Decided when the orders under way are settled")
    position = case.books.position(case.instrument)
    if position is not None and position.is_open and case.closable > 0:
        return _passed("no_position", lambda: f"{plain(case.closable)} held")
    if case.is_spot and case.wish.quantity is not None and not case.wish.reduce_only:
        return _passed("no_position", "Nothing bought by this program; the account's own holding is used")
    dust = f", only {plain(case.closable)} that is too little to sell" if case.closable else ""
    return _refused("no_position", f"No position to sell: nothing of {symbol} was bought here and is still held{dust}")


def quantity_is_precise(case: Case) -> Verdict:
    """A way out of at most what is held is rounded down whatever it says; another may sell the owner's own coins."""
    quantity, wish = case.signal.quantity, case.wish
    if case.is_exit and (wish.reduce_only or wish.quantity is None):
        return _not_for_exits("precision")
    if quantity is not None and sizing.decimals(quantity) > sizing.MAX_DECIMALS:
        most = f"at most {sizing.MAX_DECIMALS} decimals are possible"
        return _refused("precision", f"Invalid quantity precision: {plain(quantity)}; {most}")
    return _passed("precision", "Rounded down to the exchange's step")


def size_is_within_limit(case: Case) -> Verdict:
    if case.is_exit:
        return _not_for_exits("size")
    margin, limit, currency = case.margin, case.money.max_risk_per_trade, case.money.currency
    if margin is None:
        why = "no price is known" if case.available is not None else "no fresh balance"
        return _refused("size", _with(case.view.problem, f"Trade size above maximum cannot be ruled out: {why}"))
    of_margin = "" if case.leverage == ONE else f" of margin ({plain(case.leverage)} times leverage)"
    if margin > limit:
        seen = f"{plain(margin)} {currency}{of_margin}"
        return _refused("size", f"Trade size above maximum: {seen}, maximum is {plain(limit)} {currency}")
    quantity = case.size.quantity
    largest = sizing.largest_quantity(case.rules, case.type) if case.rules else ZERO
    if largest and quantity is not None and quantity > largest:
        numbers = f"{plain(quantity)}, at most {plain(largest)}"
        return _refused("size", f"Trade size above maximum of {case.broker}: {numbers}")
    return _passed(
        "size", lambda: f"Trade size {plain(margin)} {currency}{of_margin}, maximum is {plain(limit)} {currency}"
    )


def size_is_tradable(case: Case) -> Verdict:
    """The exchange's own smallest order, by quantity and by notional; it is judged again by the exchange itself."""
    if (case.waits and not case.behind) or case.rules is None:
        return _passed("min_notional", "Decided when the order may leave")
    size, rules = case.size, case.rules
    smallest = max(sizing.smallest_quantity(rules, case.type), sizing.quantity_step(rules, case.type))
    quantity = _quantity_of(case)
    if quantity is not None and (quantity <= 0 or quantity < smallest):
        numbers, price = f"{plain(quantity)}, smallest is {plain(smallest)}", size.limit_price or case.view.price
        if price is not None:
            # Whoever gave a size in money sees what it has to be: 10 USDT are 0 of a step of 0.001 BTC.
            numbers += f" ({plain(smallest * price)} {rules.quote_asset} at {plain(price)})"
        return _refused("min_notional", f"Order size too small: {numbers}")
    least = sizing.smallest_notional(rules, case.type, case.instrument.market, is_exit=case.is_exit)
    if size.notional is not None and size.notional < least:
        numbers = f"{plain(size.notional)} notional, smallest is {plain(rules.min_notional)}"
        return _refused("min_notional", f"Order size too small: {numbers}")
    return _passed("min_notional", lambda: f"Order size {size.text(rules)}")


def _quantity_of(case: Case) -> Decimal | None:
    if case.size.amount is None or case.view.price is None or case.rules is None:
        return case.size.quantity
    return round_down(case.size.amount / case.view.price, sizing.quantity_step(case.rules, case.type))


def balance_covers_it(case: Case) -> Verdict:
    if case.is_exit:
        return _holding_covers_it(case)
    margin, available = case.margin, case.available
    if margin is None or available is None:
        return _refused("insufficient_balance", "Insufficient balance cannot be ruled out: size or balance not known")
    if margin > available:
        numbers = f"{plain(margin)} needed, {plain(available)} free"
        return _refused("insufficient_balance", f"Insufficient balance: {numbers}")
    return _passed("insufficient_balance", lambda: f"{plain(available)} free")


def _holding_covers_it(case: Case) -> Verdict:
    """Only a stated quantity can exceed what was bought here; when the account is not known, the exchange decides."""
    quantity, closable, account = case.size.quantity, case.closable, case.view.free_base
    if case.waits or quantity is None or quantity <= closable or account is None:
        return _passed("insufficient_balance", "Decided by what is held")
    assert case.rules is not None
    assert case.view.balance_asked_at is not None
    asked_at = case.view.balance_asked_at
    free = account - case.books.base_set_aside(case.instrument.account, case.rules.base_asset, asked_at)
    if quantity > max(free, closable):
        numbers = f"{plain(quantity)} to sell, {plain(max(free, closable, ZERO))} held"
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
    last = case.books.last_entry_at(case.instrument, case.side)
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
    market_is_on,
    this_version_can_do_it,
    trading_is_active,
    strategy_is_allowed,
    symbol_is_allowed,
    direction_is_allowed,
    leverage_is_allowed,
    nothing_foreign_is_held,
    overtaken,
    alert_is_fresh,
    confidence_is_enough,
    symbol_is_tradable,
    price_is_known,
    protection_is_possible,
    balance_is_enough,
    something_to_do,
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
    if not case.books.disagrees(case.instrument, said):
        return ""
    held = case.books.word(case.instrument)
    return f"the strategy was {said} before this alert, held is {held}: an alert may have been missed"
