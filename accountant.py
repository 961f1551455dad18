"""Looks now and then at what the accounts are worth and puts it on the record: the curve of the owner's equity.

Asks the exchange nothing: it adds up balances, positions and prices that are fresh anyway. What is known to be wrong,
or may be in a moment, is not written but looked at again. Trades nothing, and is in no order's way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from books import Books
from broker import Balance
from events import Worth
from journal import JournalError
from market_data import Dated, MarketData
from models import CURRENCIES, DOLLARS, RESTING, USDT, ZERO, Account, Market, OrderStatus
from orders import Patience
from portfolio import Position
from risk import RiskEngine

log = logging.getLogger("gatehouse.accountant")

LOOK_SECONDS = 0.5
# What left without a word since is in the balance, or is not.
UNDER_WAY = frozenset({OrderStatus.SENT, OrderStatus.UNKNOWN})

Flows = Mapping[str, Decimal]


class Accountant:
    """Lives on the event loop; what it writes, it writes on a worker thread."""

    def __init__(
        self,
        engine: RiskEngine,
        market: MarketData,
        accounts: tuple[Account, ...],
        clock: Callable[[], datetime],
        patience: Patience,
    ) -> None:
        self._engine = engine
        self._market = market
        # Worth is told in dollars; an account in another currency cannot be added to the curve.
        self._accounts = tuple(account for account in accounts if account.broker not in CURRENCIES)
        self._clock = clock
        self._patience = patience
        self._told: dict[Account, tuple[float, Flows]] = {}  # when an account was last on the record, and at what flows

    async def keep(self, ready: asyncio.Event, on_thread: Callable[..., Awaitable[Any]]) -> None:
        """Without an end."""
        await ready.wait()
        await asyncio.sleep(self._patience.worth_first)
        while True:
            try:
                await self._look(on_thread)
            except JournalError as exc:
                log.warning("what the accounts are worth is not on the record: %s", exc)
                await asyncio.sleep(self._patience.worth_gap)
            except Exception:
                log.exception("nobody looked at what the accounts are worth")
                await asyncio.sleep(self._patience.worth_gap)
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self, on_thread: Callable[..., Awaitable[Any]]) -> None:
        due = [account for account in self._accounts if self._is_due(account)]
        if due:
            await self._tell(due, on_thread)

    def _is_due(self, account: Account) -> bool:
        """At the start, after every fill, and now and then; but never twice within a minute."""
        if account not in self._told:
            return True
        waited, flows = asyncio.get_running_loop().time() - self._told[account][0], self._told[account][1]
        if waited < self._patience.worth_gap:
            return False
        return waited >= self._patience.worth_every or flows != flows_of(self._engine.books, account)

    async def _tell(self, due: list[Account], on_thread: Callable[..., Awaitable[Any]]) -> None:
        now, books = self._clock(), self._engine.books
        found = {account: self._worth(books, account) for account in due}
        flows = {account: flows_of(books, account) for account in due}
        if any(_rests(books, account) for account in due):
            # What rests may have been executed already, so that the balance has it and the books have not.
            await asyncio.sleep(self._patience.worth_sure)
        still = {account for account in due if flows_of(self._engine.books, account) == flows[account]}
        known = {account: worth for account, worth in found.items() if worth is not None and account in still}
        if not known:
            return
        await on_thread(self._engine.value, tuple(known.values()), now)
        for account in known:
            self._told[account] = (asyncio.get_running_loop().time(), flows[account])

    def _worth(self, books: Books, account: Account) -> Worth | None:
        balances = self._market.fresh_balances(account)
        if balances is None or not is_settled(books, account, balances.asked_at):
            return None
        held = [p for p in books.positions.values() if p.instrument.account == account and is_in_dollars(p)]
        prices = {p.symbol: self._market.fresh_price(p.instrument) for p in held if p.is_open}
        known = {symbol: price for symbol, price in prices.items() if price is not None}
        if len(known) < len(prices):
            return None
        return worth(account, balances, held, known)


def flows_of(books: Books, account: Account) -> Flows:
    """What fills have changed in the account so far: another one, and it is another value."""
    return {asset: change for (of, asset), change in books.flows.items() if of == account}


def is_settled(books: Books, account: Account, balance_asked_at: datetime) -> bool:
    """Whether a balance asked for at that moment shows all that the books know, and they all that it shows."""
    if any(order.account == account and order.status in UNDER_WAY for order in books.orders.values()):
        return False
    told = (order.settled_at for order in (*books.orders.values(), *books.recent) if order.account == account)
    return all(moment is None or moment < balance_asked_at for moment in told)


def is_in_dollars(position: Position) -> bool:
    """What is quoted in another currency cannot be added to dollars; it is left out."""
    return position.rules.quote_asset in DOLLARS


def worth(
    account: Account, balances: Dated[Mapping[str, Balance]], held: list[Position], prices: Mapping[str, Decimal]
) -> Worth:
    """In dollars of every kind, each one USDT; `held` are the positions of the account that are quoted in them.

    Spot: dollars, free and locked, and the coins that this program bought, at the price given: no more of them than the
    account has, as somebody may have sold some. The owner's other coins, and dust, do not count. Futures: the wallet,
    and what the price has brought or taken of each position; not its entry's fee, which has left the wallet.
    """
    dollars = [balance for asset, balance in balances.value.items() if asset in DOLLARS]
    of_positions = sum((_adds(p, prices[p.symbol], balances.value) for p in held if p.is_open), ZERO)
    return Worth(
        account.broker,
        account.market,
        USDT,
        equity=sum((balance.total for balance in dollars), ZERO) + of_positions,
        free=sum((balance.free for balance in dollars), ZERO),
        realized_total=sum((p.realized_pnl for p in held), ZERO),
    )


def _adds(position: Position, price: Decimal, balances: Mapping[str, Balance]) -> Decimal:
    if position.market is Market.FUTURES:
        return position.gain_in_price(price)
    there = balances.get(position.rules.base_asset, Balance()).total
    return min(position.quantity, there) * price


def _rests(books: Books, account: Account) -> bool:
    return any(order.account == account and order.status in RESTING for order in books.orders.values())
