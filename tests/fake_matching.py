"""A small matching engine with Binance's spot rules: filters, balances, a book per symbol, orders and trades.

No clock, no lock, no network: the caller hands in "now" and makes sure that only one thread is inside.
Rules: https://developers.binance.com/docs/binance-spot-api-docs/filters and .../rest-api/trading-endpoints
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_DOWN, Decimal
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

DATA = Path(__file__).parent / "data"
ZERO = Decimal(0)
UNIT = Decimal("0.00000001")
OPEN = ("NEW", "PARTIALLY_FILLED")
ALGO_TYPES = ("STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT")
BNB_DISCOUNT = Decimal("0.25")

Number = Decimal | str | int | float
Row = dict[str, Any]
Level = tuple[Decimal, Decimal]  # price, quantity


def load(name: str) -> Row:
    """One of the data files next to the tests."""
    return cast(Row, json.loads((DATA / name).read_text(encoding="utf-8")))


ERRORS = load("binance_errors.json")


class ApiError(Exception):
    """A refusal in Binance's own words."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(f"{code} {message}")
        self.code, self.message, self.status = code, message, status


def error(code: int, *values: object, text: int | None = None, status: int = 400, table: Row = ERRORS) -> ApiError:
    """The refusal with this code; `values` fill the text's %s.

    Several texts may share a code: the one with as many %s as there are values, unless `text` picks one.
    """
    texts: list[str] = table["codes"][str(code)]["messages"]
    chosen = texts[text] if text is not None else next(each for each in texts if each.count("%s") == len(values))
    for value in values:
        chosen = chosen.replace("%s", str(value), 1)
    return ApiError(code, chosen, status)


def rejected(message: str, code: int = -2010) -> ApiError:
    """A refusal by the engine; only texts that Binance documents are possible."""
    if message not in ERRORS["engine_messages"]:
        raise ValueError(f"Binance has no such message: {message}")
    return ApiError(code, message)


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order as asked for, its parameters already well-formed."""

    symbol: str
    side: str
    type: str
    client_id: str
    quantity: Decimal = ZERO
    quote_quantity: Decimal = ZERO
    price: Decimal = ZERO
    stop_price: Decimal = ZERO
    time_in_force: str = "GTC"
    stp_mode: str = "EXPIRE_MAKER"
    labels: tuple[tuple[str, Any], ...] = ()
    list_id: int = -1
    trailing_delta: int = 0  # hundredths of a percent

    @property
    def is_buy(self) -> bool:
        return self.side == "BUY"

    @property
    def at_market(self) -> bool:
        return self.type in ("MARKET", "STOP_LOSS", "TAKE_PROFIT")


@dataclass(frozen=True, slots=True)
class Order(NewOrder):
    """An order the engine has taken."""

    order_id: int = 0
    executed: Decimal = ZERO
    quote_executed: Decimal = ZERO
    status: str = "NEW"
    time_ms: int = 0
    update_ms: int = 0
    working_ms: int = -1
    expiry_reason: str = ""
    holds: bool = True  # of two orders in a list only one locks the balance
    highest: Decimal = ZERO  # the best price since a trailing stop was placed

    @property
    def is_open(self) -> bool:
        return self.status in OPEN

    @property
    def remaining(self) -> Decimal:
        return self.quantity - self.executed


@dataclass(frozen=True, slots=True)
class Trade:
    """One fill of an order."""

    trade_id: int
    order_id: int
    symbol: str
    price: Decimal
    quantity: Decimal
    commission: Decimal
    commission_asset: str
    time_ms: int
    is_buyer: bool
    is_maker: bool
    list_id: int = -1

    @property
    def quote_quantity(self) -> Decimal:
        return self.price * self.quantity


@dataclass(frozen=True, slots=True)
class OrderList:
    """Two orders of which one cancels the other (OCO)."""

    list_id: int
    symbol: str
    client_id: str
    order_ids: tuple[int, ...]
    time_ms: int


@dataclass(frozen=True, slots=True)
class Balance:
    """What the account has of one asset."""

    free: Decimal = ZERO
    locked: Decimal = ZERO


@dataclass(slots=True)
class Market:
    """One symbol: its rules, its book and its prices."""

    row: Row
    last: Decimal = ZERO
    average: Decimal = ZERO
    bids: list[Level] = field(default_factory=list)
    asks: list[Level] = field(default_factory=list)
    refills: bool = True
    updates: int = 1

    @property
    def filters(self) -> dict[str, Row]:
        return {each["filterType"]: each for each in self.row["filters"]}

    def number(self, filter_type: str, name: str) -> Decimal:
        """A number of a filter, zero (that is, no limit) when there is no such filter."""
        return Decimal(self.filters.get(filter_type, {}).get(name, "0"))

    def opposite(self, is_buy: bool) -> list[Level]:
        """The levels such an order would trade with, best first."""
        return self.asks if is_buy else self.bids


# --- filters: each answers "may this order pass?" --------------------------------------------------------------


def on_grid(value: Decimal, low: str, high: str, step: str) -> bool:
    """Within the limits and on a step; a limit of zero is off, live rows do have a step of "0.00000000"."""
    if low and value < Decimal(low):
        return False
    if Decimal(high) and value > Decimal(high):
        return False
    return not Decimal(step) or value % Decimal(step) == 0


def price_filter(row: Row, order: NewOrder, market: Market) -> bool:
    prices = ([] if order.at_market else [order.price]) + ([order.stop_price] if order.stop_price else [])
    return all(on_grid(price, row["minPrice"], row["maxPrice"], row["tickSize"]) for price in prices)


def percent_price(row: Row, order: NewOrder, market: Market) -> bool:
    if order.at_market:
        return True
    low, high = Decimal(row["multiplierDown"]), Decimal(row["multiplierUp"])
    return market.average * low <= order.price <= market.average * high


def percent_price_by_side(row: Row, order: NewOrder, market: Market) -> bool:
    side = "bid" if order.is_buy else "ask"
    ends = {"multiplierDown": row[f"{side}MultiplierDown"], "multiplierUp": row[f"{side}MultiplierUp"]}
    return percent_price(ends, order, market)


def lot_size(row: Row, order: NewOrder, market: Market) -> bool:
    return on_grid(order.quantity, row["minQty"], row["maxQty"], row["stepSize"])


def market_lot_size(row: Row, order: NewOrder, market: Market) -> bool:
    return not order.at_market or lot_size(row, order, market)


def notional_of(order: NewOrder, market: Market) -> Decimal:
    """A market order has no price, so it is judged by the average price."""
    return order.quote_quantity or order.quantity * (market.average if order.at_market else order.price)


def min_notional(row: Row, order: NewOrder, market: Market) -> bool:
    if order.at_market and not row["applyToMarket"]:
        return True
    return notional_of(order, market) >= Decimal(row["minNotional"])


def notional(row: Row, order: NewOrder, market: Market) -> bool:
    value = notional_of(order, market)
    too_small = value < Decimal(row["minNotional"]) and (row["applyMinToMarket"] or not order.at_market)
    too_large = value > Decimal(row["maxNotional"]) and (row["applyMaxToMarket"] or not order.at_market)
    return not too_small and not too_large


def trailing_delta(row: Row, order: NewOrder, market: Market) -> bool:
    """Of stops below the market, which are all that trail here."""
    if not order.trailing_delta:
        return True
    return int(row["minTrailingBelowDelta"]) <= order.trailing_delta <= int(row["maxTrailingBelowDelta"])


# In the order in which the first failure is reported.
FILTERS: Mapping[str, Callable[[Row, NewOrder, Market], bool]] = {
    "PRICE_FILTER": price_filter,
    "PERCENT_PRICE": percent_price,
    "PERCENT_PRICE_BY_SIDE": percent_price_by_side,
    "LOT_SIZE": lot_size,
    "MIN_NOTIONAL": min_notional,
    "NOTIONAL": notional,
    "MARKET_LOT_SIZE": market_lot_size,
    "TRAILING_DELTA": trailing_delta,
}


def filter_failure(name: str) -> ApiError:
    return ApiError(-1013, f"Filter failure: {name}")


# --- the engine -------------------------------------------------------------------------------------------------


def take(levels: Iterable[Level], quantity: Decimal, worst: Callable[[Decimal], bool]) -> list[Level]:
    """What an order of this quantity would trade, level by level, as long as the price is not too bad."""
    taken: list[Level] = []
    for price, available in levels:
        if quantity <= 0 or not worst(price):
            break
        taken.append((price, min(available, quantity)))
        quantity -= available
    return taken


def trail(order: Order, last: Decimal) -> Order:
    """A trailing stop follows the best price."""
    return replace(order, highest=max(order.highest, last)) if order.trailing_delta else order


def triggers(order: Order, last: Decimal) -> bool:
    """A stop-loss that buys and a take-profit that sells wait for the price to rise, the others for it to fall."""
    if order.trailing_delta:
        return last <= order.highest * (1 - Decimal(order.trailing_delta) / 10_000)
    return touched(order, last)


def touched(order: NewOrder, last: Decimal) -> bool:
    """Has the price come to a stop price that stands still?"""
    waits_for_rise = order.type.startswith("STOP_LOSS") == order.is_buy
    return last >= order.stop_price if waits_for_rise else last <= order.stop_price


def exact(value: Number) -> Decimal:
    """0.1 is meant as 0.1, also when it comes as a float from JSON."""
    return Decimal(str(value))


def levels(pairs: Iterable[tuple[Number, Number]]) -> list[Level]:
    return [(exact(price), exact(quantity)) for price, quantity in pairs]


def total(levels: Iterable[Level]) -> Decimal:
    return sum((quantity for _, quantity in levels), ZERO)


def cost(levels: Iterable[Level]) -> Decimal:
    return sum((price * quantity for price, quantity in levels), ZERO)


def quote(market: Market, price: Decimal, spread: Decimal) -> None:
    """A deep book around this price, one that refills."""
    tick = market.number("PRICE_FILTER", "tickSize") or UNIT
    step = market.number("LOT_SIZE", "stepSize") or UNIT
    gap = max(tick, (price / 10_000).quantize(tick, ROUND_DOWN) // tick * tick)
    lot = max(step, Decimal(1_000_000) / price // step * step)
    market.last = price
    market.asks = [(price + spread + gap * depth, lot) for depth in range(10)]
    market.bids = [(price - spread - gap * depth, lot) for depth in range(10) if price - spread - gap * depth > 0]
    market.refills = True


def use_up(market: Market, is_buy: bool, quantity: Decimal) -> None:
    """Take this much off the book, unless it refills."""
    if market.refills or not quantity:
        return
    left: list[Level] = []
    for price, available in market.opposite(is_buy):
        used = min(available, quantity)
        quantity -= used
        if used:
            market.last = price
        if available > used:
            left.append((price, available - used))
    market.updates += 1
    if is_buy:
        market.asks = left
    else:
        market.bids = left


def change_filters(market: Market, filters: Mapping[str, Mapping[str, object]]) -> None:
    """Change numbers of a symbol's filters, or add a filter."""
    rows = market.row["filters"]
    for name, values in filters.items():
        row = next((each for each in rows if each["filterType"] == name), None)
        if row is None:
            rows.append(row := {"filterType": name})
        row.update(values)


class Engine:
    """All markets and the one account that trades on them."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.markets: dict[str, Market] = {}
        self.balances: dict[str, Balance] = {}
        self.orders: dict[int, Order] = {}
        self.trades: list[Trade] = []
        self.lists: dict[int, OrderList] = {}
        self.untraded: dict[int, Order] = {}
        self.updated_ms = 0
        self._ids_of_client: dict[str, list[int]] = {}
        self._open: dict[int, Order] = {}
        self.fee_rate = Decimal("0.001")
        self.fees_in_bnb = False
        self._next_order_id, self._next_trade_id = 1_000_001, 5_000_001
        for row in rows:
            self.add_symbol(row)

    # what a test may set

    def add_symbol(self, row: Row) -> None:
        self.markets[row["symbol"]] = Market(row)
        for asset in (row["baseAsset"], row["quoteAsset"]):
            self.balances.setdefault(asset, Balance())

    def set_price(self, symbol: str, price: Decimal, spread: Decimal, now_ms: int) -> None:
        """A deep book around this price, one that refills; resting orders it reaches are filled.

        With a spread of zero one buys and sells at exactly this price, which keeps the sums in tests simple.
        """
        market = self.market(symbol)
        market.average = price
        quote(market, price, spread)
        self._book_changed(market, now_ms)

    def set_book(self, symbol: str, bids: list[Level], asks: list[Level], now_ms: int) -> None:
        """Exactly these levels, which trades use up."""
        market = self.market(symbol)
        market.bids, market.asks, market.refills = sorted(bids, reverse=True), sorted(asks), False
        self._book_changed(market, now_ms)

    def fill(self, order_id: int, quantity: Decimal | None, now_ms: int) -> None:
        """Let somebody trade with a resting order: with all of it, or with this quantity."""
        order = self.orders[order_id]
        if not order.is_open or order.working_ms < 0:
            raise ValueError(f"order {order_id} is {order.status} and not in the book, so nobody can trade with it")
        self._trade(order, order.price, min(quantity or order.remaining, order.remaining), now_ms, is_maker=True)

    # what the exchange does

    def market(self, symbol: str) -> Market:
        if symbol not in self.markets:
            raise error(-1121)
        return self.markets[symbol]

    def open_orders(self, symbol: str | None = None) -> list[Order]:
        return [order for order in self._open.values() if symbol in (None, order.symbol)]

    def find(self, order_id: int | None, client_id: str | None) -> list[Order]:
        """Orders with this number, or else all that had this client id, newest first."""
        ids = [order_id] if order_id is not None else reversed(self._ids_of_client.get(client_id or "", []))
        return [self.orders[each] for each in ids if each in self.orders]

    def first_fills(self, order: Order) -> list[Trade]:
        """The trades an order made when it came in, as long as it is the newest one."""
        mine = takewhile(lambda trade: trade.order_id == order.order_id, reversed(self.trades))
        return list(mine)[::-1]

    def check(self, new: NewOrder) -> NewOrder:
        """Everything that is judged before the book is touched; gives the order with its quantity known."""
        market = self.market(new.symbol)
        if market.row["status"] != "TRADING":
            raise rejected("Market is closed.")
        if new.type not in market.row["orderTypes"]:
            raise error(-1116)
        if new.quote_quantity:
            new = replace(new, quantity=self._quantity_for(new, market))
        filters = market.filters
        for name, passes in FILTERS.items():
            if name in filters and not passes(filters[name], new, market):
                raise filter_failure(name)
        self._check_counts(new, filters)
        return new

    def place(self, new: NewOrder, now_ms: int) -> Order:
        """Take the order, trade what can be traded at once, and let the rest wait or expire."""
        new = self.check(new)
        self._refuse_open_id(new.client_id)
        market = self.market(new.symbol)
        if new.type in ALGO_TYPES:
            return self._place_stop(new, market, now_ms)
        fills = self._matches(new, market, new.quantity)
        book_ran_out = new.quote_quantity > cost(market.opposite(new.is_buy))
        if new.type == "LIMIT_MAKER" and fills:
            raise rejected("Order would immediately match and take.")
        self._check_funds(*self._needs(new, fills))
        order = self._accept(new, now_ms)
        if new.time_in_force == "FOK" and total(fills) < new.quantity:
            return self._end(order, "EXPIRED", now_ms, "UNFILLED_FOK_ORDER_EXPIRED", rests=False)
        return self._run(order, market, fills, now_ms, book_ran_out=book_ran_out)

    def place_pair(self, client_id: str, legs: tuple[NewOrder, NewOrder], now_ms: int) -> OrderList:
        """Two orders for one balance: when one of them trades or is triggered, the other expires.

        The first leg is the one above the market.
        """
        above, below = (self.check(leg) for leg in legs)
        market = self.market(above.symbol)
        for taken in (above.client_id, below.client_id):
            self._refuse_open_id(taken)
        if any(each.client_id == client_id and self.is_open(each) for each in self.lists.values()):
            raise rejected("Duplicate order sent.")
        # A trailing stop has no price yet, which is below any other.
        if not (above.stop_price or above.price) > market.last > (below.stop_price or below.price):
            raise rejected("The relationship of the prices for the orders is not correct.")
        dearer, cheaper = sorted((above, below), key=lambda leg: self._needs(leg, [])[1], reverse=True)
        self._check_funds(*self._needs(dearer, []))
        list_id = len(self.lists) + 1
        first = self._accept(replace(dearer, list_id=list_id), now_ms)
        self._lock(first)
        second = self._save(replace(self._accept(replace(cheaper, list_id=list_id), now_ms), holds=False))
        pair = OrderList(list_id, above.symbol, client_id, (first.order_id, second.order_id), now_ms)
        self.lists[list_id] = pair
        return pair

    def is_open(self, pair: OrderList) -> bool:
        return any(self.orders[order_id].is_open for order_id in pair.order_ids)

    def cancel(self, order: Order, now_ms: int) -> list[Order]:
        """Give back what the order had locked; the other order of a list goes with it."""
        siblings = [each for each in self._siblings(order) if each.is_open]
        return [self._end(each, "CANCELED", now_ms) for each in (order, *siblings)]

    # steps of the above

    def _quantity_for(self, new: NewOrder, market: Market) -> Decimal:
        """As much as the quote amount pays for, level by level, rounded down to the lot size."""
        left, quantity = new.quote_quantity, ZERO
        for price, available in market.opposite(new.is_buy):
            part = min(available, left / price)
            quantity, left = quantity + part, left - part * price
        if quantity < market.number("LOT_SIZE", "minQty") and left > 0:
            raise rejected("Order book liquidity is less than `LOT_SIZE` filter minimum quantity.")
        step = market.number("LOT_SIZE", "stepSize") or UNIT
        return (quantity // step * step).quantize(UNIT)

    def _check_counts(self, new: NewOrder, filters: Mapping[str, Row]) -> None:
        on_symbol = self.open_orders(new.symbol)
        most = filters.get("MAX_NUM_ORDERS", {}).get("maxNumOrders")
        if most is not None and len(on_symbol) >= most:
            raise filter_failure("MAX_NUM_ORDERS")
        if new.type in ALGO_TYPES:
            waiting = sum(1 for order in on_symbol if order.type in ALGO_TYPES)
            if waiting >= filters.get("MAX_NUM_ALGO_ORDERS", {}).get("maxNumAlgoOrders", waiting + 1):
                raise filter_failure("MAX_NUM_ALGO_ORDERS")
        if "MAX_POSITION" in filters and new.is_buy:
            base = self.balances[self.markets[new.symbol].row["baseAsset"]]
            held = base.free + base.locked + sum((order.remaining for order in on_symbol if order.is_buy), ZERO)
            if held + new.quantity > Decimal(filters["MAX_POSITION"]["maxPosition"]):
                raise filter_failure("MAX_POSITION")

    def _matches(self, new: NewOrder, market: Market, quantity: Decimal) -> list[Level]:
        def acceptable(price: Decimal) -> bool:
            return new.at_market or (price <= new.price if new.is_buy else price >= new.price)

        return take(market.opposite(new.is_buy), quantity, acceptable)

    def _refuse_open_id(self, client_id: str) -> None:
        """Ids are unique among open orders only: the id of a filled order buys once more."""
        if any(order.client_id == client_id for order in self.open_orders()):
            raise rejected("Duplicate order sent.")

    def _place_stop(self, new: NewOrder, market: Market, now_ms: int) -> Order:
        if not new.trailing_delta and touched(new, market.last):
            raise rejected("Order would trigger immediately.")
        self._check_funds(*self._needs(new, []))
        order = self._accept(new, now_ms)
        self._lock(order)
        return order

    def _needs(self, new: NewOrder, fills: list[Level]) -> tuple[str, Decimal]:
        """The asset and how much of it must be free for this order."""
        row = self.markets[new.symbol].row
        if not new.is_buy:
            return row["baseAsset"], new.quantity
        if new.type == "MARKET":
            return row["quoteAsset"], new.quote_quantity or cost(fills)
        return row["quoteAsset"], (new.price or new.stop_price) * new.quantity

    def _check_funds(self, asset: str, needed: Decimal) -> None:
        if self.balances[asset].free < needed:
            raise rejected("Account has insufficient balance for requested action.")

    def _accept(self, new: NewOrder, now_ms: int) -> Order:
        values = {name: getattr(new, name) for name in NewOrder.__dataclass_fields__}
        working_ms = -1 if new.type in ALGO_TYPES else now_ms
        order = Order(**values, order_id=self._next_order_id, time_ms=now_ms, update_ms=now_ms, working_ms=working_ms)
        order = trail(order, self.market(new.symbol).last)
        self._next_order_id += 1
        self._ids_of_client.setdefault(order.client_id, []).append(order.order_id)
        return self._save(order)

    def _run(
        self, order: Order, market: Market, fills: list[Level], now_ms: int, *, book_ran_out: bool = False
    ) -> Order:
        for price, quantity in fills:
            order = self._trade(order, price, quantity, now_ms, is_maker=False)
        use_up(market, order.is_buy, total(fills))
        return self._rest_or_expire(order, book_ran_out, now_ms)

    def _trigger(self, order: Order, market: Market, now_ms: int) -> None:
        """A stop order becomes a market or limit order."""
        order = self._claim(order, now_ms)
        self._unlock(order)
        order = self._save(replace(order, working_ms=now_ms, update_ms=now_ms))
        fills = self._matches(order, market, order.remaining)
        asset, needed = self._needs(order, fills)
        if order.is_buy and order.at_market:
            needed = cost(fills)
        if self.balances[asset].free < needed:
            self._save(replace(order, status="EXPIRED", expiry_reason="REJECTED"))
            return
        self._run(order, market, fills, now_ms)

    def _siblings(self, order: Order) -> list[Order]:
        pair = self.lists.get(order.list_id)
        return [self.orders[each] for each in pair.order_ids if each != order.order_id] if pair else []

    def _claim(self, order: Order, now_ms: int) -> Order:
        """This order of a list goes ahead: the other one expires and its lock passes over."""
        for sibling in (each for each in self._siblings(order) if each.is_open):
            self._end(sibling, "EXPIRED", now_ms, "OCO_TRIGGER")
        if not order.holds:
            order = self._save(replace(order, holds=True))
            self._lock(order)
        return order

    def _rest_or_expire(self, order: Order, book_ran_out: bool, now_ms: int) -> Order:
        if order.remaining == 0 and not book_ran_out:
            return order
        if order.at_market:
            return self._end(order, "EXPIRED", now_ms, "INSUFFICIENT_LIQUIDITY", rests=False)
        if order.time_in_force == "IOC":
            return self._end(order, "EXPIRED", now_ms, "UNFILLED_IOC_QUANTITY_EXPIRED", rests=False)
        self._lock(order)
        return order

    def _trade(self, order: Order, price: Decimal, quantity: Decimal, now_ms: int, *, is_maker: bool) -> Order:
        order = self._claim(order, now_ms)
        row = self.markets[order.symbol].row
        base, quote, amount = row["baseAsset"], row["quoteAsset"], price * quantity
        if order.is_buy:
            self._pay(quote, amount, from_locked=is_maker)
            self._receive(base, quantity)
        else:
            self._pay(base, quantity, from_locked=is_maker)
            self._receive(quote, amount)
        received = (base, quantity) if order.is_buy else (quote, amount)
        commission, asset = self._commission(*received, amount)
        self._receive(asset, -commission)
        self.trades.append(
            Trade(
                self._next_trade_id, order.order_id, order.symbol, price, quantity, commission, asset, now_ms,
                is_buyer=order.is_buy, is_maker=is_maker, list_id=order.list_id,
            )
        )  # fmt: skip
        self._next_trade_id += 1
        executed = order.executed + quantity
        return self._save(
            replace(
                order,
                executed=executed,
                quote_executed=order.quote_executed + amount,
                status="FILLED" if executed == order.quantity else "PARTIALLY_FILLED",
                update_ms=now_ms,
            )
        )

    def _commission(self, received: str, quantity: Decimal, amount: Decimal) -> tuple[Decimal, str]:
        """In the asset received; in BNB, with the discount, when that is on and there is enough of it."""
        bnb = self.markets.get("BNBUSDT")
        if self.fees_in_bnb and bnb and bnb.last:
            fee = (amount * self.fee_rate * (1 - BNB_DISCOUNT) / bnb.last).quantize(UNIT, ROUND_DOWN)
            if self.balances["BNB"].free >= fee:
                return fee, "BNB"
        return (quantity * self.fee_rate).quantize(UNIT, ROUND_DOWN), received

    def _book_changed(self, market: Market, now_ms: int) -> None:
        market.updates += 1
        for each in self.open_orders(market.row["symbol"]):
            order = trail(self.orders[each.order_id], market.last)  # it may have ended, with the other one of its list
            if order.is_open and order.trailing_delta:
                self._save(order)
            if order.is_open and order.working_ms >= 0:
                self._fill_waiting(order, market, now_ms)
            elif order.is_open and triggers(order, market.last):
                self._trigger(order, market, now_ms)

    def _fill_waiting(self, order: Order, market: Market, now_ms: int) -> None:
        quantity = total(self._matches(order, market, order.remaining))
        if quantity:
            # The one who waited gets his own price, however far the market has moved.
            self._trade(order, order.price, quantity, now_ms, is_maker=True)
            use_up(market, order.is_buy, quantity)

    def _locked_by(self, order: Order) -> tuple[str, Decimal]:
        row = self.markets[order.symbol].row
        if order.is_buy:
            return row["quoteAsset"], (order.price or order.stop_price) * order.remaining
        return row["baseAsset"], order.remaining

    def _lock(self, order: Order) -> None:
        asset, amount = self._locked_by(order)
        balance = self.balances[asset]
        self.balances[asset] = Balance(balance.free - amount, balance.locked + amount)

    def _unlock(self, order: Order) -> None:
        asset, amount = self._locked_by(order)
        balance = self.balances[asset]
        self.balances[asset] = Balance(balance.free + amount, balance.locked - amount)

    def _pay(self, asset: str, amount: Decimal, *, from_locked: bool) -> None:
        balance = self.balances[asset]
        if from_locked:
            self.balances[asset] = replace(balance, locked=balance.locked - amount)
        else:
            self.balances[asset] = replace(balance, free=balance.free - amount)

    def _receive(self, asset: str, amount: Decimal) -> None:
        balance = self.balances[asset]
        self.balances[asset] = replace(balance, free=balance.free + amount)

    def _end(self, order: Order, status: str, now_ms: int, reason: str = "", *, rests: bool = True) -> Order:
        """The order is over; one that was resting gives back what it had locked."""
        if rests and order.holds:
            self._unlock(order)
        return self._save(replace(order, status=status, update_ms=now_ms, expiry_reason=reason))

    def _save(self, order: Order) -> Order:
        """Keep the order, and the two short lists that are asked for all the time, up to date."""
        self.orders[order.order_id] = order
        self.updated_ms = order.update_ms
        for belongs, index in ((order.is_open, self._open), (not order.executed, self.untraded)):
            if belongs:
                index[order.order_id] = order
            else:
                index.pop(order.order_id, None)
        return order
