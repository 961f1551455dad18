"""A small futures engine: a book per contract, positions in one-way and hedge mode, margin, profit and fees.

No clock, no lock, no network: the caller hands in "now" and makes sure that only one thread is inside. There is no
liquidation, no funding and only single-asset margin. Where the rules come from:
https://developers.binance.com/docs/derivatives/usds-margined-futures/trade/rest-api/New-Order and
https://www.binance.com/en/support/faq/how-to-calculate-cost-required-to-open-a-position-in-perpetual-futures-contracts-87fa7ee33b574f7084d42bd2ce2e463b
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, Decimal

from fake_futures_rules import FuturesMarket, NewFuturesOrder, check, check_count, most_notional, refused
from fake_matching import OPEN, UNIT, ZERO, Level, Row, cost, quote, take, total, use_up

BNB_DISCOUNT = Decimal("0.1")


@dataclass(frozen=True, slots=True)
class FuturesOrder(NewFuturesOrder):
    """An order the engine has taken."""

    order_id: int = 0
    executed: Decimal = ZERO
    quote_executed: Decimal = ZERO
    status: str = "NEW"
    time_ms: int = 0
    update_ms: int = 0

    @property
    def is_open(self) -> bool:
        return self.status in OPEN

    @property
    def remaining(self) -> Decimal:
        return self.quantity - self.executed

    @property
    def average_price(self) -> Decimal:
        return self.quote_executed / self.executed if self.executed else ZERO


@dataclass(frozen=True, slots=True)
class FuturesTrade:
    """One fill of an order, and what it earned."""

    trade_id: int
    order_id: int
    symbol: str
    side: str
    position_side: str
    price: Decimal
    quantity: Decimal
    realized_pnl: Decimal
    commission: Decimal
    commission_asset: str
    time_ms: int
    is_maker: bool

    @property
    def quote_quantity(self) -> Decimal:
        return self.price * self.quantity


@dataclass(frozen=True, slots=True)
class Position:
    """What is held of a contract on one position side; short positions have a negative amount."""

    symbol: str
    side: str
    amount: Decimal = ZERO
    entry_price: Decimal = ZERO
    isolated_wallet: Decimal = ZERO
    update_ms: int = 0

    def profit(self, price: Decimal, quantity: Decimal | None = None) -> Decimal:
        """What it would earn to close it, or this much of it, at this price."""
        closed = abs(self.amount) if quantity is None else quantity
        return (price - self.entry_price) * closed * self.direction

    @property
    def direction(self) -> int:
        return (self.amount > 0) - (self.amount < 0)


class FuturesEngine:
    """All contracts and the one account that trades them. `watchers` are told when prices or positions changed."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.markets: dict[str, FuturesMarket] = {row["symbol"]: FuturesMarket(row) for row in rows}
        self.wallets: dict[str, Decimal] = {"USDT": ZERO, "BNB": ZERO, "USDC": ZERO}  # without isolated margin
        self.positions: dict[tuple[str, str], Position] = {}
        self.orders: dict[int, FuturesOrder] = {}
        self.versions: dict[int, list[FuturesOrder]] = {}  # every state an order was in, for look-ups that lag
        self.trades: list[FuturesTrade] = []
        self.watchers: list[Callable[[str, int], None]] = []
        self.hedge_mode = False
        self.maker_rate, self.taker_rate = Decimal("0.0002"), Decimal("0.0005")
        self.fees_in_bnb = False
        self.conflict_code = -2022
        self.position_lag_seconds = 0.0  # how late closePosition and the lists of positions learn of a trade
        self._past: dict[tuple[str, str], list[Position]] = {}
        self.ids_of_client: dict[str, list[int]] = {}
        self._open: dict[int, FuturesOrder] = {}
        self._next_order_id, self._next_trade_id = 2_000_001, 6_000_001

    # what a test may set

    def set_price(self, symbol: str, price: Decimal, spread: Decimal, now_ms: int, mark: Decimal | None = None) -> None:
        """A deep, refilling book at this price; the mark price is moved along or to `mark`."""
        market = self.market(symbol)
        market.mark = price if mark is None else mark
        quote(market, price, spread)
        self._moved(market, now_ms)

    def set_mark(self, symbol: str, mark: Decimal, now_ms: int) -> None:
        self.market(symbol).mark = mark
        self._moved(self.market(symbol), now_ms)

    def set_book(self, symbol: str, bids: list[Level], asks: list[Level], now_ms: int) -> None:
        """Exactly these levels, which trades use up."""
        market = self.market(symbol)
        market.bids, market.asks, market.refills = sorted(bids, reverse=True), sorted(asks), False
        self._moved(market, now_ms)

    def fill(self, order_id: int, quantity: Decimal | None, now_ms: int) -> None:
        """Let somebody trade with a resting order: with all of it, or with this quantity."""
        order = self.orders[order_id]
        if not order.is_open:
            raise ValueError(f"order {order_id} is {order.status}, so nobody can trade with it")
        self._trade(order, order.price, min(quantity or order.remaining, order.remaining), now_ms, is_maker=True)
        self._tell(order.symbol, now_ms)

    # what is there

    def market(self, symbol: str) -> FuturesMarket:
        if symbol not in self.markets:
            raise refused(-1121)
        return self.markets[symbol]

    def position(self, symbol: str, side: str = "BOTH") -> Position:
        return self.positions.get((symbol, side), Position(symbol, side))

    def known_position(self, symbol: str, side: str, now_ms: int) -> Position:
        """The position as the account's memory has it, which may trail the trades."""
        horizon = now_ms - int(self.position_lag_seconds * 1000)
        states = self._past.get((symbol, side), [])
        return next((each for each in reversed(states) if each.update_ms <= horizon), Position(symbol, side))

    @property
    def sides(self) -> tuple[str, ...]:
        return ("LONG", "SHORT") if self.hedge_mode else ("BOTH",)

    def open_orders(self, symbol: str | None = None) -> list[FuturesOrder]:
        return [order for order in self._open.values() if symbol in (None, order.symbol)]

    def profit(self, asset: str, *, isolated: bool | None = None) -> Decimal:
        """Unrealised profit at the mark price, of all positions or only of cross or isolated ones."""
        return sum(
            (
                position.profit(self.markets[position.symbol].mark)
                for position in self.positions.values()
                if self.markets[position.symbol].asset == asset
                and isolated in (None, self.markets[position.symbol].isolated)
            ),
            ZERO,
        )

    def wallet(self, asset: str) -> Decimal:
        """What is there without counting open profit."""
        return self.wallets.get(asset, ZERO) + self.isolated_wallets(asset)

    def isolated_wallets(self, asset: str) -> Decimal:
        return sum(
            (each.isolated_wallet for each in self.positions.values() if self.markets[each.symbol].asset == asset), ZERO
        )

    def position_margin(self, position: Position) -> Decimal:
        """Initial margin at the mark price."""
        market = self.markets[position.symbol]
        return abs(position.amount) * market.mark / market.leverage

    def order_margin(self, symbol: str, side: str, extra: NewFuturesOrder | None = None, at: Decimal = ZERO) -> Decimal:
        """What the open orders (and one more, at this price) could need beyond the position's own margin.

        Only the worse of "all buys trade" and "all sells trade" counts, and what closes the position needs nothing.
        """
        market, held = self.markets[symbol], self.position(symbol, side)
        present, bids, asks = held.amount * market.mark, ZERO, ZERO
        waiting = [(order, order.remaining, order.price) for order in self.open_orders(symbol)]
        for order, quantity, price in [*waiting, *([(extra, extra.quantity, at)] if extra else [])]:
            if order.position_side == side and not order.reduces:
                bids += quantity * price if order.is_buy else ZERO
                asks += ZERO if order.is_buy else quantity * price
        worst = max(abs(present + bids), abs(present - asks))
        return max(worst - abs(present), ZERO) / market.leverage

    def available(self, asset: str) -> Decimal:
        """What new orders may use as margin."""
        free = self.wallets.get(asset, ZERO) + self.profit(asset, isolated=False)
        for market in self.markets.values():
            if market.asset == asset:
                free -= sum((self.order_margin(market.symbol, side) for side in self.sides), ZERO)
        for position in self.positions.values():
            if self.markets[position.symbol].asset == asset and not self.markets[position.symbol].isolated:
                free -= self.position_margin(position)
        return max(free, ZERO)

    # orders

    def check(self, new: NewFuturesOrder) -> None:
        """The rules that know nothing of positions and margin; a test order is judged by these alone."""
        market = self.market(new.symbol)
        check(new, market)
        check_count(len(self.open_orders(new.symbol)), market.filters)

    def place(self, new: NewFuturesOrder, now_ms: int) -> FuturesOrder:
        """Take the order, trade what can be traded at once, and let the rest wait or expire."""
        market = self.market(new.symbol)
        self._refuse_open_id(new.client_id)
        self.check(new)
        if new.reduces:
            new = self._fit_position(new)
        fills = self._matches(new, market, new.quantity)
        self._refuse_unfillable(new, market, fills)
        self._check_margin(new, market, fills)
        order = self._accept(new, now_ms)
        for price, quantity in fills:
            order = self._trade(order, price, quantity, now_ms, is_maker=False)
        use_up(market, order.is_buy, total(fills))
        if order.is_open and (order.at_market or order.time_in_force == "IOC"):
            order = self._end(order, "EXPIRED", now_ms)
        self._tell(order.symbol, now_ms)
        return self.orders[order.order_id]

    def cancel(self, order: FuturesOrder, now_ms: int) -> FuturesOrder:
        ended = self._end(order, "CANCELED", now_ms)
        self._tell(order.symbol, now_ms)
        return ended

    # the account's choices

    def set_leverage(self, symbol: str, leverage: int) -> None:
        market = self.market(symbol)
        held = [self.position(symbol, side) for side in self.sides]
        if not 1 <= leverage <= 125:
            raise refused(-4028, leverage, text=0)
        if market.isolated and leverage < market.leverage and any(each.amount for each in held):
            raise refused(-4161)
        if any(abs(each.amount) * market.mark > most_notional(leverage) for each in held):
            raise refused(-2027)
        before, market.leverage = market.leverage, leverage
        if leverage < before and not self.available(market.asset) and any(each.amount for each in held):
            market.leverage = before
            raise refused(-2028)

    def set_isolated(self, symbol: str, isolated: bool) -> None:
        market = self.market(symbol)
        if market.isolated == isolated:
            raise refused(-4046)
        if self.open_orders(symbol):
            raise refused(-4047)
        if any(self.position(symbol, side).amount for side in self.sides):
            raise refused(-4048)
        market.isolated = isolated

    def set_hedge_mode(self, on: bool, waiting: bool = False) -> None:
        if self.hedge_mode == on:
            raise refused(-4059)
        if waiting or self.open_orders():
            raise refused(-4067)
        if any(position.amount for position in self.positions.values()):
            raise refused(-4068)
        self.hedge_mode = on

    # steps of the above

    def _fit_position(self, new: NewFuturesOrder) -> NewFuturesOrder:
        """An order that may only reduce is cut down to what is left to close, or refused when nothing is.

        Other reduce-only orders that wait for the same position count as if they were done already. The docs give
        -2022 for such a conflict, in the same words as for "there is no position"; -4118 was seen live in 2026-08
        (a portfolio margin account, https://github.com/xLydianSoftware/Qubx/issues/386), and a smaller origQty than
        sent in 2026-05 (https://github.com/nautechsystems/nautilus_trader/issues/3983).
        """
        position = self.position(new.symbol, new.position_side)
        if not position.amount or (position.amount > 0) == new.is_buy:
            raise refused(-2022, text=0)
        if new.position_side != "BOTH" and new.quantity > abs(position.amount):
            raise refused(-2022, text=0)
        claimed = sum((order.remaining for order in self._reducing(new)), ZERO)
        left = abs(position.amount) - claimed
        if left <= 0:
            raise refused(self.conflict_code, text=0)
        return replace(new, quantity=min(new.quantity, left))

    def _reducing(self, new: NewFuturesOrder) -> list[FuturesOrder]:
        return [
            order
            for order in self.open_orders(new.symbol)
            if order.reduces and (order.position_side, order.side) == (new.position_side, new.side)
        ]

    def _refuse_open_id(self, client_id: str) -> None:
        """Ids are unique among open orders only: the id of a filled order buys once more."""
        if any(order.client_id == client_id for order in self._open.values()):
            raise refused(-4116, text=0)

    def _refuse_unfillable(self, new: NewFuturesOrder, market: FuturesMarket, fills: list[Level]) -> None:
        """These never become orders: the docs say of -5021 and -5022 that no history records them."""
        best = market.opposite(new.is_buy)[:1]
        if new.at_market and best and not market.band(best[0][0], is_buy=new.is_buy):
            raise refused(-4131)
        if new.time_in_force == "FOK" and total(fills) < new.quantity:
            raise refused(-5021)
        if new.time_in_force == "GTX" and fills:
            raise refused(-5022)

    def _matches(self, new: NewFuturesOrder, market: FuturesMarket, quantity: Decimal) -> list[Level]:
        def acceptable(price: Decimal) -> bool:
            if new.at_market:
                return market.band(price, is_buy=new.is_buy)
            return price <= new.price if new.is_buy else price >= new.price

        return take(market.opposite(new.is_buy), quantity, acceptable)

    def _check_margin(self, new: NewFuturesOrder, market: FuturesMarket, fills: list[Level]) -> None:
        """Initial margin for what the order adds, and the loss it would open with against the mark price."""
        if new.reduces:
            return
        at = new.price or (cost(fills) / total(fills) if fills else market.last)
        position = self.position(new.symbol, new.position_side)
        before = self.order_margin(new.symbol, new.position_side)
        added = self.order_margin(new.symbol, new.position_side, new, at) - before
        loss = (at - market.mark) * new.quantity * (1 if new.is_buy else -1)
        if added > 0 and added + max(loss, ZERO) > self.available(market.asset):
            raise refused(-2019)
        signed = new.quantity if new.is_buy else -new.quantity
        if added > 0 and abs(position.amount + signed) * market.mark > most_notional(market.leverage):
            raise refused(-2027)

    def _accept(self, new: NewFuturesOrder, now_ms: int) -> FuturesOrder:
        values = {name: getattr(new, name) for name in NewFuturesOrder.__dataclass_fields__}
        order = FuturesOrder(**values, order_id=self._next_order_id, time_ms=now_ms, update_ms=now_ms)
        self._next_order_id += 1
        self.ids_of_client.setdefault(order.client_id, []).append(order.order_id)
        return self._save(order)

    def _trade(self, order: FuturesOrder, price: Decimal, quantity: Decimal, now_ms: int, *, is_maker: bool
               ) -> FuturesOrder:  # fmt: skip
        market = self.markets[order.symbol]
        pnl = self._move_position(order, market, price, quantity, now_ms)
        commission, asset = self._commission(market, price * quantity, is_maker)
        self.wallets[asset] = self.wallets.get(asset, ZERO) - commission
        self.trades.append(
            FuturesTrade(
                self._next_trade_id, order.order_id, order.symbol, order.side, order.position_side, price, quantity,
                pnl, commission, asset, now_ms, is_maker,
            )
        )  # fmt: skip
        self._next_trade_id += 1
        executed = order.executed + quantity
        order = self._save(
            replace(
                order,
                executed=executed,
                quote_executed=order.quote_executed + price * quantity,
                status="FILLED" if executed == order.quantity else "PARTIALLY_FILLED",
                update_ms=now_ms,
            )
        )
        self._trim(order.symbol, order.position_side, now_ms)
        return order

    def _move_position(self, order: FuturesOrder, market: FuturesMarket, price: Decimal, quantity: Decimal, now_ms: int
                       ) -> Decimal:  # fmt: skip
        """The position after this trade; what was realised goes to the wallet. In one-way mode it may turn around."""
        held = self.position(order.symbol, order.position_side)
        signed = quantity if order.is_buy else -quantity
        closed = min(abs(held.amount), quantity) if held.amount * signed < 0 else ZERO
        pnl = held.profit(price, closed).quantize(UNIT)
        opened, amount = quantity - closed, held.amount + signed
        kept = abs(held.amount) - closed
        entry = (kept * held.entry_price + opened * price) / abs(amount) if amount else ZERO
        released = held.isolated_wallet * closed / abs(held.amount) if held.amount else ZERO
        added = (opened * price / market.leverage).quantize(UNIT) if market.isolated else ZERO
        self.wallets[market.asset] += pnl + released - added
        moved = replace(
            held,
            amount=amount,
            entry_price=entry,
            isolated_wallet=held.isolated_wallet - released + added,
            update_ms=now_ms,
        )
        self.positions[held.symbol, held.side] = moved
        self._past.setdefault((held.symbol, held.side), []).append(moved)
        return pnl

    def _commission(self, market: FuturesMarket, amount: Decimal, is_maker: bool) -> tuple[Decimal, str]:
        """In the margin asset; in BNB, with the discount, when that is on and there is enough of it."""
        fee = amount * (self.maker_rate if is_maker else self.taker_rate)
        bnb = self.markets.get("BNBUSDT")
        if self.fees_in_bnb and bnb and bnb.last:
            in_bnb = (fee * (1 - BNB_DISCOUNT) / bnb.last).quantize(UNIT, ROUND_DOWN)
            if self.wallets["BNB"] >= in_bnb:
                return in_bnb, "BNB"
        return fee.quantize(UNIT, ROUND_DOWN), market.asset

    def _trim(self, symbol: str, side: str, now_ms: int) -> None:
        """Resting orders that may only reduce shrink with the position and expire when it is gone."""
        position = self.position(symbol, side)
        for order in self.open_orders(symbol):
            if not order.reduces or order.position_side != side:
                continue
            closes = position.amount and (position.amount > 0) != order.is_buy
            if not closes:
                self._end(order, "EXPIRED", now_ms)
            elif order.remaining > abs(position.amount):
                self._save(replace(order, quantity=order.executed + abs(position.amount), update_ms=now_ms))

    def _moved(self, market: FuturesMarket, now_ms: int) -> None:
        market.updates += 1
        for each in self.open_orders(market.symbol):
            order = self.orders[each.order_id]  # it may have ended since, with the position it was to reduce
            quantity = total(self._matches(order, market, order.remaining)) if order.is_open else ZERO
            if quantity:
                # The one who waited gets his own price, however far the market has moved.
                self._trade(order, order.price, quantity, now_ms, is_maker=True)
                use_up(market, order.is_buy, quantity)
        self._tell(market.symbol, now_ms)

    def _tell(self, symbol: str, now_ms: int) -> None:
        for watcher in self.watchers:
            watcher(symbol, now_ms)

    def _end(self, order: FuturesOrder, status: str, now_ms: int) -> FuturesOrder:
        return self._save(replace(order, status=status, update_ms=now_ms))

    def _save(self, order: FuturesOrder) -> FuturesOrder:
        self.orders[order.order_id] = order
        self.versions.setdefault(order.order_id, []).append(order)
        if order.is_open:
            self._open[order.order_id] = order
        else:
            self._open.pop(order.order_id, None)
        return order
