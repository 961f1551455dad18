"""The books beside the accounts: what differs is shown; what the owner closed by hand is taken over into the books.

Nothing is taken over on suspicion: the exchange's own list of trades must show who closed it, and at what price.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

from broker import Balance, Broker, BrokerError
from fees import total_in
from journal import JournalError
from models import (
    RESTING,
    ZERO,
    Account,
    HeldThere,
    Instrument,
    Market,
    Order,
    RestsThere,
    Side,
    TradedThere,
    plain,
)
from portfolio import Position
from risk import RiskEngine

log = logging.getLogger("gatehouse.reconcile")

OUR_IDS = "gh"
# Coins that went without a trade stay missing: who closed them is asked less and less often, and not all over again.
FIRST_SEARCH_PAUSE = timedelta(minutes=1)
LONGEST_SEARCH_PAUSE = timedelta(minutes=30)
SLIVER = Decimal("0.01")
TRADES_LAG = timedelta(minutes=1)  # the exchange may list a trade so much later

Row = dict[str, str]


class Hands(Protocol):
    """What the comparison needs done."""

    async def ask(self, question: Callable[..., Any], *args: object) -> Any:
        """Raises BrokerError."""

    async def catch_up(self, order: Order) -> bool:
        """Whether the exchange told how it stands, so that the books know it."""

    def run(self, call: Callable[..., Any], *args: object) -> Awaitable[Any]: ...
    def tell_owner(self, text: str) -> None: ...
    def note(self, text: str) -> None: ...
    def changed(self, instrument: Instrument) -> None: ...


@dataclass(frozen=True, slots=True)
class _Search:
    """A search for who closed so much, in vain: until when trades were read, and when to read on."""

    missing: Decimal
    read_until: datetime
    next_at: datetime
    pause: timedelta


class Reconciler:
    """`drift`: the rows for /status. One comparison at a time, on the event loop; who comes meanwhile waits."""

    def __init__(
        self,
        engine: RiskEngine,
        brokers: Mapping[Account, Broker],
        hands: Hands,
        clock: Callable[[], datetime],
        second_look_seconds: float,
    ) -> None:
        self.drift: list[Row] = []
        self._engine = engine
        self._brokers = brokers
        self._hands = hands
        self._clock = clock
        self._second_look_seconds = second_look_seconds
        self._strays: set[tuple[Account, str]] = set()
        self._searches: dict[Instrument, _Search] = {}
        self._lock = asyncio.Lock()

    async def take_over_missing(self, account: Account) -> None:
        """What somebody closed at the exchange is closed in the books; what cannot be told now waits."""
        broker = self._brokers[account]
        if broker.is_local:
            return
        async with self._lock:
            try:
                await self._take_over_missing(account, broker)
            except (BrokerError, JournalError) as exc:
                log.warning("the positions were not compared with %s: %s", account, exc)

    async def clear(self, instrument: Instrument) -> bool:
        """Cancels what rests there although the books know it as ended; whether there was any."""
        broker = self._brokers[instrument.account]
        if broker.is_local:
            return False
        async with self._lock:
            try:
                found = [one for one in await self._strays_of(broker) if one.symbol == instrument.symbol]
                return any([await self._is_cancelled(one, instrument.account, broker) for one in found])
            except (BrokerError, JournalError) as exc:
                log.warning("nothing was cancelled at %s: %s", instrument.account, exc)
                return False

    async def compare(self) -> None:
        async with self._lock:
            await self._compare_all()

    async def _compare_all(self) -> None:
        drift: list[Row] = []
        for account, broker in self._brokers.items():
            if broker.is_local:
                continue
            try:
                drift += await self._compare(account, broker)
            except (BrokerError, JournalError) as exc:
                log.warning("the books were not compared with %s: %s", account, exc)
                drift += [row for row in self.drift if (row["broker"], row["market"]) == account]
        for row in drift:
            if row not in self.drift:
                self._hands.note(f"drift: {row}")
        self.drift = drift

    async def _compare(self, account: Account, broker: Broker) -> list[Row]:
        await self._take_over_missing(account, broker)
        return await self._rows(account, broker) + await self._strays_at(account, broker)

    async def _take_over_missing(self, account: Account, broker: Broker) -> None:
        missing = await self._missing(account, broker)
        if not missing:
            return
        await asyncio.sleep(self._second_look_seconds)
        # A stop that was triggered a moment ago is no work of the owner's: first every order of ours has its say.
        heard = [instrument for instrument in missing if await self._has_heard(instrument)]
        again = await self._missing(account, broker)
        for instrument in heard:
            if again.get(instrument) == missing[instrument]:
                await self._take_over(instrument, broker, missing[instrument])

    async def _has_heard(self, instrument: Instrument) -> bool:
        return all([await self._hands.catch_up(order) for order in self._engine.books.resting(instrument)])

    # --- positions ------------------------------------------------------------------------------------------------

    async def _missing(self, account: Account, broker: Broker) -> dict[Instrument, Decimal]:
        """Base units that the books hold and the account does not."""
        there = await self._there(account, broker, dust=True)
        pairs = ((p.instrument, p.quantity - there.get(p.instrument, ZERO)) for p in self._quiet(account, dust=True))
        return {instrument: quantity for instrument, quantity in pairs if quantity > 0}

    def _quiet(self, account: Account, *, dust: bool = False) -> list[Position]:
        """While an order of the symbol is under way, what is held is in doubt itself. Dust comes last."""
        books = self._engine.books
        ours = [p for p in books.positions.values() if p.instrument.account == account]
        busy = {order.instrument for order in books.orders.values() if order.status not in RESTING}
        quiet = [p for p in ours if p.quantity > 0 and p.instrument not in busy]
        return [p for p in quiet if p.is_open] + [p for p in quiet if dust and not p.is_open]

    async def _there(self, account: Account, broker: Broker, *, dust: bool = False) -> dict[Instrument, Decimal]:
        """What the account holds of each position, in the position's direction; nothing negative."""
        if account.market is Market.FUTURES:
            return self._by_side(account, await self._hands.ask(broker.positions))
        positions = self._quiet(account, dust=dust)
        if not positions:
            return {}
        balances: Mapping[str, Balance] = await self._hands.ask(broker.balances)
        return _shared_out(positions, balances)

    def _by_side(self, account: Account, held: Sequence[HeldThere]) -> dict[Instrument, Decimal]:
        sides = {(one.symbol, one.side): one.quantity for one in held}
        return {p.instrument: sides.get((p.symbol, p.side), ZERO) for p in self._quiet(account)}

    async def _rows(self, account: Account, broker: Broker) -> list[Row]:
        """Everything that still differs: on spot only what is missing, as the rest of the account is the owner's."""
        held_there: Sequence[HeldThere] = ()
        asked_by = self._engine.books
        if account.market is Market.FUTURES:
            # One look for both: what of ours differs, and what is not ours.
            held_there = await self._hands.ask(broker.positions)
            there = self._by_side(account, held_there)
        else:
            there = await self._there(account, broker)
        books, before = self._engine.books, self._engine.foreign
        # What we traded while the answer was on its way is not in it: of that, what was known before counts on.
        moved = {i for i, position in books.positions.items() if asked_by.position(i) != position}
        rows, foreign = [], {i: text for i, text in before.items() if i.account != account or i in moved}
        for position in self._quiet(account):
            instrument, held = position.instrument, there.get(position.instrument, ZERO)
            if instrument in moved:
                continue
            if held < position.quantity or (account.market is Market.FUTURES and held != position.quantity):
                more = held - position.quantity - _under_way(books.on(instrument), position.side)
                if more > 0:
                    foreign[instrument] = f"{plain(more)} {position.side}"
                rows.append(_row(account, position.symbol, position.side, position.quantity, held))
        rows += self._foreign(
            account, [one for one in held_there if Instrument(*account, one.symbol) not in moved], foreign
        )
        self._engine.foreign = foreign
        return rows

    def _foreign(self, account: Account, held: Sequence[HeldThere], foreign: dict[Instrument, str]) -> list[Row]:
        """Adds to `foreign` what entries have to keep away from."""
        before = self._engine.foreign
        books = self._engine.books
        rows = []
        for one in held:
            instrument = Instrument(*account, one.symbol)
            position = books.position(instrument)
            if position is not None and position.is_open and position.side == one.side:
                continue
            more = one.quantity - _under_way(books.on(instrument), one.side)
            if more > 0:
                foreign[instrument] = f"{plain(more)} {one.side}"
                rows.append(_row(account, one.symbol, one.side, ZERO, one.quantity))
            elif instrument in before:
                foreign[instrument] = before[instrument]
        return rows

    # --- by hand --------------------------------------------------------------------------------------------------

    async def _take_over(self, instrument: Instrument, broker: Broker, missing: Decimal) -> None:
        position = self._engine.books.position(instrument)
        if position is None:
            return
        now = self._clock()
        if not position.is_open:
            # Nobody asks who swept it; but the next entry would be held for larger than it is.
            await self._take_off(position, missing, now)
            return
        last = self._searches.get(instrument)
        again = last if last and last.missing == missing else None
        if position.opened_at is None or (again and now < again.next_at):
            return
        closes = Side.BUY if position.is_short else Side.SELL
        # From when the position began: before that, the owner's trades were his own.
        since = again.read_until if again else position.opened_at
        listed_there = await self._hands.ask(broker.trades_since, instrument.symbol, since)
        # Only now: an order of ours that traded in between is on the record, and shows that something is under way.
        on_record: list[Order] = await self._hands.run(self._engine.on_record, instrument, since)
        if any(order.status not in RESTING for order in self._engine.books.on(instrument)):
            return
        wanted = missing
        for listed in listed_there:
            trade = _not_booked(listed, on_record, since)
            if missing <= 0 or trade is None or trade.side is not closes:
                continue
            if trade.position_side not in ("", position.side):
                continue
            taken = await self._hands.run(self._engine.take_over, instrument, trade, missing, self._clock())
            missing -= taken.executed_quantity
            what = f"{plain(taken.executed_quantity)} {instrument} at {instrument.broker}"
            self._hands.tell_owner(f"closed at the exchange by somebody else, taken over into the books: {what}")
        if missing == wanted and again and _is_a_sliver(position, missing):
            await self._take_off(position, missing, now)
        elif missing == wanted:
            pause = min(again.pause * 5, LONGEST_SEARCH_PAUSE) if again else FIRST_SEARCH_PAUSE
            self._searches[instrument] = _Search(missing, now - TRADES_LAG, now + pause, pause)
            return
        self._searches.pop(instrument, None)
        self._hands.changed(instrument)

    async def _take_off(self, position: Position, missing: Decimal, now: datetime) -> None:
        instrument, closes = position.instrument, Side.BUY if position.is_short else Side.SELL
        gone = TradedThere(position.symbol, "", closes, "", missing, ZERO, (), now)
        await self._hands.run(self._engine.take_over, instrument, gone, missing, now)
        self._hands.tell_owner(f"{plain(missing)} {instrument} left {instrument.broker} without a trade: taken off")

    # --- orders that the books do not know as live ------------------------------------------------------------------

    async def _strays_at(self, account: Account, broker: Broker) -> list[Row]:
        strays = await self._strays_of(broker)
        seen, self._strays = (
            self._strays,
            {(account, one.client_order_id) for one in strays} | {key for key in self._strays if key[0] != account},
        )
        rows = []
        for one in strays:
            if (account, one.client_order_id) not in seen:
                continue  # it may have been cancelled a moment ago
            if not await self._is_cancelled(one, account, broker):
                rows.append(_row(account, one.symbol, "", ZERO, ZERO) | {"order": one.client_order_id})
        return rows

    async def _strays_of(self, broker: Broker) -> list[RestsThere]:
        waiting: Sequence[RestsThere] = await self._hands.ask(broker.open_orders)
        live = self._engine.books.orders
        return [one for one in waiting if one.client_order_id.startswith(OUR_IDS) and one.client_order_id not in live]

    async def _is_cancelled(self, one: RestsThere, account: Account, broker: Broker) -> bool:
        """What is on no record of ours is somebody else's, whatever its id looks like."""
        if not await self._hands.run(self._engine.has_ended, one.symbol, one.client_order_id):
            return False
        await self._hands.ask(broker.cancel_stray, one)
        self._hands.tell_owner(f"{one.client_order_id} ({one.symbol}) was left over at {account}: cancelled")
        return True


def _is_a_sliver(position: Position, missing: Decimal) -> bool:
    """So little that a fee or a conversion of dust took it, and enough to have every sale of the rest refused."""
    return position.market is Market.SPOT and missing <= position.quantity * SLIVER


def _not_booked(trade: TradedThere, on_record: Sequence[Order], since: datetime) -> TradedThere | None:
    """Nothing of our own orders; of one by hand that was taken over before, what it traded since.

    What was traded before `since` is not listed, so what was taken over of it does not count either.
    """
    same = (o for o in on_record if o.exchange_order_id == trade.exchange_order_id)
    before = {o.client_order_id: o for o in same if o.leg != "by_hand" or o.created_at >= since}.values()
    if not before:
        return trade
    if any(order.leg != "by_hand" for order in before) or trade.last_at <= max(order.created_at for order in before):
        return None
    left = trade.quantity - sum((order.executed_quantity for order in before), ZERO)
    if left <= 0:
        return None
    paid = [fee for order in before for fee in order.fees]
    return replace(
        trade,
        quantity=left,
        quote=trade.quote - sum((order.executed_quote for order in before), ZERO),
        fees=tuple(fee.less(total_in(fee.asset, paid)) for fee in trade.fees),
    )


def _under_way(orders: Iterable[Order], side: str) -> Decimal:
    """What our entries on that side may have bought already, without our knowing it yet."""
    entries = (order for order in orders if order.is_entry and order.position_side == side)
    return sum(((order.quantity or ZERO) - order.executed_quantity for order in entries), ZERO)


def _shared_out(positions: Sequence[Position], balances: Mapping[str, Balance]) -> dict[Instrument, Decimal]:
    """Two symbols may share their coins: what the first one does not need is there for the next."""
    left = {asset: balance.free + balance.locked for asset, balance in balances.items()}
    there = {}
    for position in positions:
        asset = position.rules.base_asset
        there[position.instrument] = min(position.quantity, left.get(asset, ZERO))
        left[asset] = left.get(asset, ZERO) - there[position.instrument]
    return there


def _row(account: Account, symbol: str, side: str, books: Decimal, there: Decimal) -> Row:
    held = {"side": side, "books": plain(books), "account": plain(there)}
    return {"broker": account.broker, "market": account.market.value, "symbol": symbol} | held
