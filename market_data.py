"""What is known of the outside before an alert comes: rules, balances, prices, and how old each of them is.

A background task keeps it fresh, so that a decision need not wait for the exchange. What is too old is asked for
once, and what cannot be had in time is left out: the checks then refuse by name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Generic, TypeVar

from broker import Balance, Broker, BrokerError, UnknownSymbol
from models import CURRENCIES, FEE_COINS, USDT, Account, Instrument, Market, SymbolRules
from sizing import View

log = logging.getLogger("gatehouse.market")

T = TypeVar("T")
Run = Callable[..., Awaitable[Any]]  # runs a blocking call on a worker thread
HeldAt = Callable[[Account], Iterable[str]]  # the symbols of an account's positions

BALANCE_MAX_AGE = timedelta(seconds=5)
PRICE_MAX_AGE = timedelta(seconds=5)
RULES_MAX_AGE = timedelta(hours=1)
CLOSED_MAX_AGE = timedelta(seconds=2)  # that a symbol is not open for trading
# Of the 6,000 weight a minute, the account (20) every 3 s is 400, all watched prices together (4) every 3 s are 80, and
# a light question every 20 s is 3: https://developers.binance.com/docs/binance-spot-api-docs/rest-api/limits
BALANCE_PAUSE_SECONDS = 3.0
# After an order it is asked for at once, but not after each of many: at most 60 a minute, 1,200 of the 6,000.
BALANCE_GAP_SECONDS = 1.0
PRICE_PAUSE_SECONDS = 3.0
WATCHED_AFTER_ALERT = timedelta(hours=1)
MAX_WATCHED = 100  # symbols in one request
# One light question (weight 1) beside the account's: no order waits because the only open connection is busy.
KEEP_WARM_SECONDS = 20.0
FAILURE_PAUSE_SECONDS = (1.0, 2.0, 5.0, 10.0, 15.0)


@dataclass(frozen=True, slots=True)
class Dated(Generic[T]):
    """A value and when it was asked for."""

    value: T
    asked_at: datetime


@dataclass(slots=True)
class _Known:
    """All that is known of one broker. Only touched on the event loop."""

    broker: Broker
    balances: Dated[Mapping[str, Balance]] | None = None
    rules: dict[str, Dated[SymbolRules]] = field(default_factory=dict)
    prices: dict[str, Dated[Decimal]] = field(default_factory=dict)
    asking: dict[object, asyncio.Task[None]] = field(default_factory=dict)
    alerted_at: dict[str, datetime] = field(default_factory=dict)  # when the last alert for a symbol came
    refresh: asyncio.Event = field(default_factory=asyncio.Event)
    # Account and rules, then prices, were asked for once, with or without an answer.
    account_looked: asyncio.Event = field(default_factory=asyncio.Event)
    looked: asyncio.Event = field(default_factory=asyncio.Event)
    not_traded: set[str] = field(default_factory=set)
    doubted: set[str] = field(default_factory=set)  # symbols whose rules may be others now
    prepared: dict[str, Decimal] = field(default_factory=dict)  # symbol -> leverage
    connected: bool = False
    problem: str = ""
    failures: int = 0
    failing_since: datetime | None = None


class MarketData:
    """`run` runs a blocking call on a worker thread; `clock` tells the time in UTC."""

    def __init__(
        self,
        brokers: Mapping[Account, Broker],
        run: Run,
        clock: Callable[[], datetime],
        leverage: Callable[[], Decimal],
    ) -> None:
        self._known = {account: _Known(broker) for account, broker in brokers.items()}
        self._run = run
        self._clock = clock
        self._leverage = leverage  # of entries whose alert names none

    async def view(
        self, instrument: Instrument, alert_price: Decimal | None, *, wants_price: bool, patience_seconds: float
    ) -> View:
        """What can be known of it within `patience_seconds`."""
        known, symbol = self._known.get(instrument.account), instrument.symbol
        if known is None:
            return View()
        now = self._clock()
        if known.broker.is_local:
            return _local_view(known.broker, symbol, alert_price, now)
        known.alerted_at[symbol] = now
        missing = self._missing(known, symbol, wants_price, now)
        if not missing:
            return self._view(known, symbol, [], now)
        tasks = [self._ask_once(known, what, question) for what, question in missing]
        done, late = await asyncio.wait(tasks, timeout=patience_seconds)
        errors = [exc for task in done if isinstance(exc := task.exception(), BrokerError)]
        if late:
            errors.append(BrokerError(f"{instrument.broker} did not answer within {patience_seconds:g} s"))
        return self._view(known, symbol, errors, self._clock())

    def refresh_soon(self, account: Account) -> None:
        """An order changed the account: look again now."""
        if account in self._known:
            self._known[account].refresh.set()

    def doubt_rules(self, instrument: Instrument) -> None:
        """An order was refused: the exchange may have other rules by now. They are asked for when they are needed."""
        if instrument.account in self._known:
            self._known[instrument.account].doubted.add(instrument.symbol)

    def price(self, instrument: Instrument) -> Decimal | None:
        """The last price seen, however old; for display and for what a fee was worth, never for a decision."""
        known = self._known.get(instrument.account)
        if known is None:
            return None
        if known.broker.is_local:
            return _price_or_none(known.broker, instrument.symbol)
        dated = known.prices.get(instrument.symbol)
        return dated.value if dated else None

    def rules(self, instrument: Instrument) -> SymbolRules | None:
        """The last rules seen, if any."""
        known = self._known.get(instrument.account)
        dated = known.rules.get(instrument.symbol) if known else None
        return dated.value if dated else None

    def takes_quote_amounts(self, instrument: Instrument) -> bool:
        """Whether a market order may name what it spends; as long as the rules are not known, spot is believed to."""
        rules = self.rules(instrument)
        return rules.quote_amount_allowed if rules else _usually_takes_amounts(instrument)

    def balances(self, account: Account) -> Dated[Mapping[str, Balance]] | None:
        """The last balances seen, however old; for display."""
        known = self._known[account]
        if known.broker.is_local:
            return Dated(known.broker.balances(), self._clock())
        return known.balances

    def fresh_balances(self, account: Account) -> Dated[Mapping[str, Balance]] | None:
        """None where a decision would not use them either."""
        dated = self.balances(account)
        return None if _is_stale(dated, self._clock(), BALANCE_MAX_AGE) else dated

    def fresh_price(self, instrument: Instrument) -> Decimal | None:
        """As `fresh_balances`. On paper the last price that an alert carried is the price there is."""
        known = self._known[instrument.account]
        if known.broker.is_local:
            return _price_or_none(known.broker, instrument.symbol)
        dated = known.prices.get(instrument.symbol)
        return None if dated is None or _is_stale(dated, self._clock(), PRICE_MAX_AGE) else dated.value

    def state(self) -> dict[Account, dict[str, object]]:
        """Per account: connected, what is wrong, its clock too, and the age of what is known, in seconds."""
        now = self._clock()
        return {account: _state(known, now) for account, known in self._known.items()}

    def failing(self, for_seconds: float) -> dict[Account, str]:
        """Accounts that nothing was heard of for so long, and why."""
        long_ago = self._clock() - timedelta(seconds=for_seconds)
        return {
            account: known.problem
            for account, known in self._known.items()
            if known.failing_since is not None and known.failing_since <= long_ago
        }

    def tasks(self, held: HeldAt, expected: Callable[[], Iterable[str]]) -> list[Coroutine[Any, Any, None]]:
        """The endless background work.

        `held(account)` names the symbols of its positions. The rules and the price of those and of the `expected` ones
        are there from the start, so that the first alert need not wait; a symbol with an alert is watched for an hour.
        """
        remote = [known for known in self._known.values() if not known.broker.is_local]
        return [self._keep_account(known, held, expected) for known in remote] + [
            self._keep_prices(known, held, expected) for known in remote
        ]

    async def first_look(self, seconds: float) -> None:
        """Returns once every broker was asked, so that the first alert need not wait; or when the time is over."""
        waits = [
            asyncio.ensure_future(known.looked.wait()) for known in self._known.values() if not known.broker.is_local
        ]
        if waits:
            _, late = await asyncio.wait(waits, timeout=seconds)
            for wait in late:
                wait.cancel()

    async def connect(self, account: Account) -> None:
        """Raises BrokerError."""
        known = self._known[account]
        await self._run(known.broker.connect)
        known.connected, known.problem, known.failures, known.failing_since = True, "", 0, None
        known.prepared.clear()  # what is set there may have been changed meanwhile

    # --- asking ---------------------------------------------------------------------------------------------------

    def _missing(
        self, known: _Known, symbol: str, wants_price: bool, now: datetime
    ) -> list[tuple[object, Callable[[], Awaitable[None]]]]:
        missing: list[tuple[object, Callable[[], Awaitable[None]]]] = []
        if _rules_are_in_doubt(known, symbol, now):
            missing.append((("rules", symbol), partial(self._ask_rules, known, symbol)))
        if _is_stale(known.balances, now, BALANCE_MAX_AGE):
            missing.append(("balances", partial(self._ask_balances, known)))
        if wants_price and _is_stale(known.prices.get(symbol), now, PRICE_MAX_AGE):
            missing.append((("price", symbol), partial(self._ask_price, known, symbol)))
        return missing

    def _ask_once(self, known: _Known, what: object, question: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Twenty alerts at once ask the exchange one question, not twenty."""
        task = known.asking.get(what)
        if task is None or task.done():
            task = asyncio.ensure_future(_as_coroutine(question()))
            # Somebody may stop waiting before the answer comes; then nobody else reads the exception.
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            known.asking[what] = task
        return task

    async def _ask_rules(self, known: _Known, symbol: str) -> None:
        asked_at = self._clock()
        known.rules[symbol] = Dated(await self._run(known.broker.symbol_rules, symbol), asked_at)
        known.doubted.discard(symbol)

    async def _ask_balances(self, known: _Known) -> None:
        asked_at = self._clock()
        known.balances = Dated(await self._run(known.broker.balances), asked_at)

    async def _ask_price(self, known: _Known, symbol: str) -> None:
        asked_at = self._clock()
        known.prices[symbol] = Dated(await self._run(known.broker.current_price, symbol), asked_at)

    def _view(self, known: _Known, symbol: str, errors: list[BrokerError], now: datetime) -> View:
        rules, price = known.rules.get(symbol), known.prices.get(symbol)
        balances = None if _is_stale(known.balances, now, BALANCE_MAX_AGE) else known.balances
        base = quote = None
        if rules is not None and balances is not None:
            base = balances.value.get(rules.value.base_asset, Balance()).free
            quote = balances.value.get(rules.value.quote_asset, Balance()).free
        return View(
            rules=rules.value if rules else None,
            price=None if price is None or _is_stale(price, now, PRICE_MAX_AGE) else price.value,
            free_quote=quote,
            free_base=base,
            balance_asked_at=balances.asked_at if balances else None,
            unknown_symbol=any(isinstance(error, UnknownSymbol) for error in errors),
            problem="; ".join(dict.fromkeys(str(error) for error in errors)),
        )

    # --- keeping fresh --------------------------------------------------------------------------------------------

    async def _keep_account(self, known: _Known, held: HeldAt, expected: Callable[[], Iterable[str]]) -> None:
        warmed_at = -KEEP_WARM_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            known.refresh.clear()
            try:
                if not known.connected:
                    await self.connect(known.broker.account)
                asked: list[Awaitable[object]] = [self._ask_once(known, "balances", partial(self._ask_balances, known))]
                if loop.time() - warmed_at >= KEEP_WARM_SECONDS:
                    warmed_at = loop.time()
                    asked.append(self._run(known.broker.keep_warm))
                await asyncio.gather(*asked)
                of_positions = set(held(known.broker.account))
                await self._learn_rules(known, {*of_positions, *expected(), *_pays_fees_in(known)})
                await self._renew_rules(known)
                await self._prepare(known, known.rules.keys() & set(expected()) - of_positions)
                known.problem, known.failures, known.failing_since = "", 0, None
            except BrokerError as exc:
                self._failed(known, exc)
            known.account_looked.set()
            await asyncio.sleep(BALANCE_GAP_SECONDS)
            pause = FAILURE_PAUSE_SECONDS[min(known.failures, 5) - 1] if known.failures else BALANCE_PAUSE_SECONDS
            await _first_of(known.refresh, pause - BALANCE_GAP_SECONDS)

    def _failed(self, known: _Known, exc: BrokerError) -> None:
        known.failures += 1
        known.failing_since = known.failing_since or self._clock()
        # The next try compares the clocks first: one that jumped (suspended, corrected) has every question refused.
        known.connected = False
        if str(exc) != known.problem:
            log.warning("%s: %s", known.broker.name, exc)
        known.problem = str(exc)

    async def _learn_rules(self, known: _Known, symbols: Iterable[str]) -> None:
        for symbol in sorted(set(symbols) - known.rules.keys() - known.not_traded):
            try:
                await self._ask_once(known, ("rules", symbol), partial(self._ask_rules, known, symbol))
            except UnknownSymbol as exc:
                known.not_traded.add(symbol)
                log.warning("%s does not trade %s: %s", known.broker.name, symbol, exc)

    async def _renew_rules(self, known: _Known) -> None:
        now = self._clock()
        old = [s for s, rules in known.rules.items() if s in known.doubted or _is_stale(rules, now, RULES_MAX_AGE)]
        for symbol in old:
            try:
                await self._ask_rules(known, symbol)
            except UnknownSymbol as exc:
                # Delisted: that must not keep the others, and the balance, from being renewed.
                del known.rules[symbol]
                known.not_traded.add(symbol)
                log.warning("%s does not trade %s any more: %s", known.broker.name, symbol, exc)

    async def _prepare(self, known: _Known, symbols: Iterable[str]) -> None:
        """Leverage and margin are set before the first entry comes: of symbols that are meant to be traded.

        Not where something is held or under way: it has its own.
        """
        leverage = self._leverage()
        for symbol in sorted(symbols):
            if known.prepared.get(symbol) == leverage:
                continue
            try:
                await self._run(known.broker.prepare, symbol, leverage)
            except BrokerError as exc:
                log.warning("%s of %s is not prepared for entries: %s", symbol, known.broker.account, exc)
            # Whatever came of it: the entry itself tries again, and then says why it cannot be.
            known.prepared[symbol] = leverage

    async def _keep_prices(self, known: _Known, held: HeldAt, expected: Callable[[], Iterable[str]]) -> None:
        await known.account_looked.wait()
        while True:
            always = {*held(known.broker.account), *expected(), *_pays_fees_in(known)}
            symbols = self._watched(known, always)
            try:
                if symbols:
                    await self._ask_once(known, "prices", partial(self._ask_prices, known, symbols))
            except BrokerError as exc:
                log.debug("%s: no prices: %s", known.broker.name, exc)
            known.looked.set()
            await asyncio.sleep(PRICE_PAUSE_SECONDS)

    def _watched(self, known: _Known, always: set[str]) -> list[str]:
        """Of a symbol without rules nobody knows that it is traded, and one that is not would spoil the question."""
        now = self._clock()
        for symbol in [s for s, at in known.alerted_at.items() if now - at > WATCHED_AFTER_ALERT]:
            del known.alerted_at[symbol]
        recent = sorted(known.alerted_at, key=known.alerted_at.__getitem__, reverse=True)
        wanted = dict.fromkeys((*sorted(always), *recent))
        return [symbol for symbol in wanted if symbol in known.rules][:MAX_WATCHED]

    async def _ask_prices(self, known: _Known, symbols: list[str]) -> None:
        asked_at = self._clock()
        prices = await self._run(known.broker.current_prices, symbols)
        known.prices |= {symbol: Dated(price, asked_at) for symbol, price in prices.items()}


def _pays_fees_in(known: _Known) -> set[str]:
    """The symbol that tells what the account's fees are worth, where it has some of the coin that they are taken in."""
    coin = FEE_COINS.get(known.broker.name, "")
    balance = known.balances.value.get(coin) if known.balances else None
    return {f"{coin}{USDT}"} if balance and balance.total > 0 else set()


def _usually_takes_amounts(instrument: Instrument) -> bool:
    """Coins on spot; shares are ordered by number, so that a price is needed to work it out."""
    return instrument.market is Market.SPOT and instrument.broker not in CURRENCIES


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


async def _first_of(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        pass


def _rules_are_in_doubt(known: _Known, symbol: str, now: datetime) -> bool:
    """Where trading was closed it may be open again, and a way out cannot wait an hour to learn it."""
    rules = known.rules.get(symbol)
    if rules is None or symbol in known.doubted:
        return True
    return not rules.value.trading and _is_stale(rules, now, CLOSED_MAX_AGE)


def _is_stale(dated: Dated[Any] | None, now: datetime, max_age: timedelta) -> bool:
    return dated is None or now - dated.asked_at > max_age


def _local_view(broker: Broker, symbol: str, alert_price: Decimal | None, now: datetime) -> View:
    try:
        rules = broker.symbol_rules(symbol)
    except UnknownSymbol as exc:
        return View(unknown_symbol=True, problem=str(exc))
    balances = broker.balances()
    price, problem = alert_price or _price_or_none(broker, symbol), ""
    if price is None:
        problem = f'no price of {symbol} is known: put "price": {{{{close}}}} into the alert message'
    return View(
        rules=rules,
        price=price,
        free_quote=balances.get(rules.quote_asset, Balance()).free,
        free_base=balances.get(rules.base_asset, Balance()).free,
        balance_asked_at=now,
        price_is_needed=True,
        problem=problem,
    )


def _price_or_none(broker: Broker, symbol: str) -> Decimal | None:
    try:
        return broker.current_price(symbol)
    except BrokerError:
        return None


def _state(known: _Known, now: datetime) -> dict[str, object]:
    rules_ages = [(now - rules.asked_at).total_seconds() for rules in known.rules.values()]
    age = None if known.balances is None else (now - known.balances.asked_at).total_seconds()
    return {
        "connected": known.connected or known.broker.is_local,
        "problem": known.problem,
        "clock_problem": known.broker.clock_problem,
        "pause_seconds": round(known.broker.pause_seconds, 1),
        "balance_age_seconds": 0 if known.broker.is_local else age,
        "rules": len(known.rules),
        "rules_age_seconds": max(rules_ages, default=None),
        "prices": {symbol: (now - dated.asked_at).total_seconds() for symbol, dated in known.prices.items()},
    }
