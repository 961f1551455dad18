"""BingX spot: market and limit orders. Stops and targets are not offered here: BingX has no demo to try them on.

https://bingx-api.github.io/docs-v3 Spot. Parameters, replies and codes are in bingx_orders.py, what is shared with the
swap in bingx_link.py. Our ids are known there for two hours only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from bingx_link import DAY_MS, FILL_SECONDS, BingxLink, Ended, either_id, is_no_such_order, is_over
from bingx_orders import (
    BingxError,
    CannotSend,
    check_is_ours,
    client_id_in,
    order_in,
    orders_in,
    rests_in,
    rows_in,
    spot_balances,
    spot_execution,
    spot_parameters,
    spot_price,
    spot_rules,
    spot_traded_in,
    status_in,
    there,
)
from broker import Balance, BrokerError, Done, Found, LookUp, NoAnswer, NotFound, Outcome, Refused, UnknownSymbol
from models import (
    RESTING,
    Execution,
    HeldThere,
    Market,
    Order,
    OrderStatus,
    OrderType,
    RestsThere,
    SymbolRules,
    TradedThere,
)
from reply_values import UNUSABLE, BadReply, unsigned

ORDER_PATH = "/openApi/spot/v1/trade/order"
QUERY_PATH = "/openApi/spot/v1/trade/query"
CANCEL_PATH = "/openApi/spot/v1/trade/cancel"
OPEN_PATH = "/openApi/spot/v1/trade/openOrders"
HISTORY_PATH = "/openApi/spot/v1/trade/historyOrders"
TRADES_PATH = "/openApi/spot/v1/trade/myTrades"
BALANCE_PATH = "/openApi/spot/v1/account/balance"
SYMBOLS_PATH = "/openApi/spot/v1/common/symbols"
PRICE_PATH = "/openApi/spot/v1/ticker/price"

FILL_PAUSES = (0.05, 0.2, 0.3, 0.4)
MOST_TRADES_LISTED = 500
MOST_ORDERS_LISTED = 100
# "Only supports a query range of 2 hours": a little before that, no order is "not found" any more for want of its id.
IDS_ARE_KNOWN_SECONDS = 2 * 3600 - 300
TRADES_ARE_LISTED_MS = 7 * DAY_MS - 60_000
SENT_WITHIN_MS = 60_000


class BingxSpot(BingxLink):
    """One spot account."""

    market = Market.SPOT
    order_path = ORDER_PATH

    def connect(self) -> None:
        """Measures the server's clock, without which no signed request is accepted, and checks the keys."""
        self._synchronise_clock()
        self.balances()

    def prepare(self, symbol: str, leverage: Decimal) -> None:
        """Spot has no leverage to set."""

    # --- placing --------------------------------------------------------------------------------------------------

    def place(self, order: Order) -> Outcome:
        refused = self._paused() or self._without_our_ids(order)
        if refused:
            return refused
        try:
            parameters = spot_parameters(order)
        except CannotSend as exc:
            return Refused(f"not sent to {self.name}: {exc}")
        try:
            row = order_in(self._hand_over(order, parameters))
            check_is_ours(order, row)
        except Ended as exc:
            return exc.outcome
        except UNUSABLE as exc:
            return self._not_this_order(exc)
        return Done(self._what_came_of(order, str(row["orderId"])))

    def protect(self, orders: Sequence[Order]) -> Sequence[Outcome]:
        return [Refused(f"{self.name} spot takes no {order.type.value} orders") for order in orders]

    def _what_came_of(self, order: Order, order_id: str) -> Execution:
        """The reply names no fees, and they may be taken in coins; they are listed with its trades, a moment later.

        Asked for by our own id, so that we know that it is kept; in the end by BingX's.
        """
        known, is_known_by_our_id = Execution(OrderStatus.NEW, order_id), True
        until = time.monotonic() + FILL_SECONDS
        for pause in FILL_PAUSES:
            time.sleep(pause)
            if time.monotonic() > until:
                return known
            try:
                known = self._as_it_stands(order, clientOrderID=order.client_order_id)
            except (BingxError, BrokerError, *UNUSABLE) as exc:
                is_known_by_our_id = not (isinstance(exc, BingxError) and is_no_such_order(exc))
                continue
            if order.type is OrderType.LIMIT or known.status not in RESTING:
                return known
        try:
            known = self._as_it_stands(order, orderId=order_id)
        except (BingxError, BrokerError, *UNUSABLE):
            return known  # it is followed by BingX's own id
        if not is_known_by_our_id:
            self._did_not_keep(order)
        return known

    # --- how an order stands --------------------------------------------------------------------------------------

    def _standing(self, order: Order) -> LookUp:
        if order.exchange_order_id:
            return Found(self._as_it_stands(order, orderId=order.exchange_order_id))
        if self._age_seconds(order) > IDS_ARE_KNOWN_SECONDS:
            return self._looked_for(order)
        return Found(self._as_it_stands(order, clientOrderID=order.client_order_id))

    def _sent_ms(self, order: Order) -> int:
        return int((order.sent_at or order.created_at).timestamp() * 1000 + self._offset_ms)

    def _age_seconds(self, order: Order) -> float:
        return (self._now_ms() - self._sent_ms(order)) / 1000

    def _as_it_stands(self, order: Order, **by: str) -> Execution:
        row = order_in(self._ask("GET", QUERY_PATH, symbol=there(order.symbol), **by))
        check_is_ours(order, row)
        if "orderId" in by and str(row["orderId"]) != by["orderId"]:
            raise BadReply("order id differs")
        return self._with_fees(order, row)

    def _with_fees(self, order: Order, row: Mapping[str, Any]) -> Execution:
        executed = unsigned(row, "executedQty")
        if executed and executed == order.executed_quantity and order.fees:
            known = (order.executed_quote, order.fees)
            return Execution(status_in(row), str(row["orderId"]), executed, *known)
        if not executed:
            return spot_execution(row, [])
        start = max(int(row.get("time") or 0), self._now_ms() - TRADES_ARE_LISTED_MS)
        asked = {"orderId": str(row["orderId"]), "startTime": str(start - 1000), "endTime": str(self._now_ms() + 1000)}
        data = self._ask("GET", TRADES_PATH, symbol=there(order.symbol), limit=str(MOST_TRADES_LISTED), **asked)
        return spot_execution(row, rows_in(data["fills"]))

    def _looked_for(self, order: Order) -> LookUp:
        """An order that nobody can ask for by our id any more: among what was made when it was sent.

        Nothing like it proves that there is none; something like it without an id proves nothing.
        """
        symbol, sent_ms = there(order.symbol), self._sent_ms(order)
        span = {"startTime": str(sent_ms - 1000), "endTime": str(sent_ms + SENT_WITHIN_MS)}
        page = {"pageIndex": "1", "pageSize": str(MOST_ORDERS_LISTED)}
        past = self._ask("GET", HISTORY_PATH, symbol=symbol, **page, **span)
        rows = [*orders_in(self._ask("GET", OPEN_PATH, symbol=symbol)), *orders_in(past)]
        if len(rows) >= MOST_ORDERS_LISTED:
            return NoAnswer(f"{self.name} made too many orders then to tell which is {order.client_order_id}")
        then = [row for row in rows if sent_ms - 1000 <= int(row["time"]) <= sent_ms + SENT_WITHIN_MS]
        alike = [row for row in then if (row["side"], row["type"]) == (order.side.value, order.type.value)]
        for row in alike:
            if client_id_in(row).lower() == order.client_order_id.lower():
                return Found(self._with_fees(order, row))
        if any(not client_id_in(row) or "*" in client_id_in(row) for row in alike):
            return NoAnswer(f"{self.name} does not tell which of its orders was {order.client_order_id}; look there")
        return NotFound()

    def cancel(self, order: Order) -> LookUp:
        """How it stands afterwards is what counts: it may have filled in the meantime, or the reply was lost."""
        try:
            self._ask("POST", CANCEL_PATH, symbol=there(order.symbol), **either_id(order))
        except (BingxError, BrokerError, CannotSend):
            pass
        return self.look_up(order)

    # --- market ---------------------------------------------------------------------------------------------------

    def symbol_rules(self, symbol: str) -> SymbolRules:
        name = self._there(symbol)
        try:
            rows = rows_in(self._public(SYMBOLS_PATH, symbol=name)["symbols"])
            return spot_rules(next(row for row in rows if row["symbol"] == name))
        except StopIteration:
            raise UnknownSymbol(f"{self.name} does not trade {name}") from None
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable rules for {symbol}: {exc!r}") from exc

    def current_price(self, symbol: str) -> Decimal:
        name = self._there(symbol)
        try:
            return spot_price(self._public(PRICE_PATH, symbol=name.replace("-", "_")), name)
        except (StopIteration, *UNUSABLE) as exc:
            raise BrokerError(f"{self.name} sent no usable price of {symbol}: {exc!r}") from exc

    def current_prices(self, symbols: Sequence[str]) -> Mapping[str, Decimal]:
        """One question each: BingX has no other here."""
        return {symbol: self.current_price(symbol) for symbol in symbols}

    # --- account --------------------------------------------------------------------------------------------------

    def balances(self) -> Mapping[str, Balance]:
        try:
            return spot_balances(self._question(BALANCE_PATH))
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable balances: {exc!r}") from exc

    def positions(self) -> Sequence[HeldThere]:
        """Spot holds balances, no positions."""
        return ()

    def trades_since(self, symbol: str, since: datetime) -> Sequence[TradedThere]:
        """Of the last seven days: BingX tells of no more, a day at a time."""
        name, now_ms = self._there(symbol), self._now_ms()

        def ask(start: int, end: int) -> list[Mapping[str, Any]]:
            span = {"startTime": str(start), "endTime": str(end), "limit": str(MOST_TRADES_LISTED)}
            return rows_in(self._question(TRADES_PATH, symbol=name, **span)["fills"])

        orders: dict[str, dict[str, Mapping[str, Any]]] = {}
        start = max(int(since.timestamp() * 1000), now_ms - TRADES_ARE_LISTED_MS)
        try:
            while start <= now_ms:
                for trade in self._every_row(ask, start, start + DAY_MS - 1, MOST_TRADES_LISTED):
                    orders.setdefault(str(trade["orderId"]), {})[str(trade["id"])] = trade
                start += DAY_MS
            traded = [spot_traded_in(symbol, list(trades.values())) for trades in orders.values()]
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable trades of {symbol}: {exc!r}") from exc
        return sorted(traded, key=lambda each: each.last_at)

    def open_orders(self) -> Sequence[RestsThere]:
        try:
            return [rests_in(row) for row in orders_in(self._question(OPEN_PATH))]
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable list of open orders: {exc!r}") from exc

    def cancel_stray(self, stray: RestsThere) -> None:
        try:
            self._ask("POST", CANCEL_PATH, symbol=self._there(stray.symbol), clientOrderID=stray.client_order_id)
        except BingxError as exc:
            if not is_over(exc):
                raise BrokerError(f"{self.name} did not cancel {stray.client_order_id}: {exc}") from exc
