"""Binance spot, through python-binance: the one place that knows which of its spot answers mean what.

Rules of the answers: https://developers.binance.com/docs/binance-spot-api-docs/rest-api/general-api-information
("HTTP 5XX … the execution status is UNKNOWN") and https://developers.binance.com/docs/binance-spot-api-docs/errors
What spot shares with futures is in binance_link.py.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypedDict, Unpack
from urllib.parse import quote

from binance.exceptions import BinanceAPIException

from binance_link import (
    DAY_MS,
    MOST_TRADES_LISTED,
    NO_PERMISSION_CODES,
    NO_SUCH_ORDER_CODES,
    STATUSES,
    BinanceLink,
    CannotSend,
    by_order,
    error_text,
    fees_in,
    listed,
    lots_in,
    number_in,
)
from broker import Balance, BrokerError, Done, Found, LookUp, NoAnswer, NotFound, Outcome, Refused
from models import (
    ZERO,
    Execution,
    Fee,
    HeldThere,
    Market,
    Order,
    OrderStatus,
    OrderType,
    RestsThere,
    Side,
    SymbolRules,
    TradedThere,
    plain,
    round_down,
)
from reply_values import UNUSABLE, BadReply, total, unsigned

REFUSED_CODES = frozenset(
    {-1002, -1013, -1014, -1016, -1020, -1022, -1108, -1111, -1112, -1121, -1128, -1130, -2010, -2014, -2015, -2016}
    | set(range(-1106, -1099))
    | set(range(-1119, -1113))
)
NO_SUCH_ORDER_CODE = -2013
BIPS_IN_A_PERCENT = 100
STOPS = (OrderType.STOP, OrderType.TRAILING_STOP)

log = logging.getLogger("gatehouse.binance")


class OrderSize(TypedDict, total=False):
    """`quantity` in base units or `amount` in quote currency; with `price` it is a LIMIT order."""

    quantity: Decimal
    amount: Decimal
    price: Decimal


class BinanceClient(BinanceLink):
    """One spot account on one Binance server."""

    market = Market.SPOT
    refused_codes = REFUSED_CODES

    def __init__(self, name: str, api_key: str, api_secret: str, *, testnet: bool, api_url: str = "") -> None:
        """`api_url` replaces Binance's own server, e.g. `http://127.0.0.1:9000/api`."""
        super().__init__(name, api_key, api_secret, testnet=testnet and not api_url)
        if api_url:
            self._client.API_URL = api_url.rstrip("/")

    # --- the Broker protocol ------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Measures the server's clock, without which no signed request is accepted, and checks the keys."""
        self._synchronise_clock()
        self.balances()

    def keep_warm(self) -> None:
        self._synchronise_clock()

    def prepare(self, symbol: str, leverage: Decimal) -> None:
        """Spot has no leverage to set."""

    def place(self, order: Order) -> Outcome:
        paused = self._paused()
        if paused:
            return paused
        try:
            raw = self._client.create_order(**_order_parameters(order))
        except CannotSend as exc:
            return Refused(str(exc))
        except Exception as exc:
            return self._ending(exc)
        try:
            return Done(_execution(order, raw, _fees_of_reply(raw)))
        except UNUSABLE as exc:
            return self._not_this_order(exc)

    def protect(self, orders: Sequence[Order]) -> Sequence[Outcome]:
        """One order stands alone; a stop and a take-profit share one balance, so they are one order list (OCO).

        https://developers.binance.com/docs/binance-spot-api-docs/rest-api/trading-endpoints#new-order-list---oco-trade
        """
        if len(orders) == 1:
            return [self.place(orders[0])]
        try:
            parameters = _pair_parameters(orders)
        except CannotSend as exc:
            return [Refused(str(exc)) for _ in orders]
        return self._place_pair(orders, parameters)

    def _place_pair(self, orders: Sequence[Order], parameters: Mapping[str, str]) -> Sequence[Outcome]:
        paused = self._paused()
        if paused:
            return [paused for _ in orders]
        try:
            raw = self._client.create_oco_order(**parameters)
        except Exception as exc:
            ending = self._ending(exc)
            return [ending for _ in orders]
        try:
            return [Done(_report_on(order, raw)) for order in orders]
        except UNUSABLE as exc:
            return [self._not_this_order(exc) for _ in orders]

    def look_up(self, order: Order) -> LookUp:
        try:
            raw = self._ask(self._client.get_order, symbol=order.symbol, origClientOrderId=order.client_order_id)
            return Found(_execution(order, raw, self._fees_of(order, raw)))
        except BinanceAPIException as exc:
            if exc.code == NO_SUCH_ORDER_CODE:
                return NotFound()
            return NoAnswer(f"{self.name}: {error_text(exc)}")
        except (BrokerError, *UNUSABLE) as exc:
            return NoAnswer(str(exc))

    def cancel(self, order: Order) -> LookUp:
        """Cancelling one order of a pair cancels both."""
        try:
            self._ask(self._client.cancel_order, symbol=order.symbol, origClientOrderId=order.client_order_id)
        except (BinanceAPIException, BrokerError):
            # It may have filled in the meantime, or the reply was lost: how it stands now is what counts.
            pass
        return self.look_up(order)

    def symbol_rules(self, symbol: str) -> SymbolRules:
        info = self._public("exchangeInfo", symbol=symbol)
        try:
            return _rules(next(row for row in info["symbols"] if row["symbol"] == symbol))
        except (StopIteration, *UNUSABLE) as exc:
            raise BrokerError(f"{self.name} sent no usable rules for {symbol}: {exc!r}") from exc

    def current_price(self, symbol: str) -> Decimal:
        try:
            return unsigned(self._public("ticker/price", symbol=symbol), "price")
        except BadReply as exc:
            raise BrokerError(f"{self.name} sent no usable price of {symbol}: {exc}") from exc

    def current_prices(self, symbols: Sequence[str]) -> Mapping[str, Decimal]:
        """https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints#symbol-price-ticker"""
        listed = quote(json.dumps(list(symbols), separators=(",", ":")))
        try:
            prices = {row["symbol"]: unsigned(row, "price") for row in self._public("ticker/price", symbols=listed)}
            if prices.keys() != set(symbols):
                raise BadReply("other symbols than those asked for")
            return prices
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable prices: {exc}") from exc

    def balances(self) -> Mapping[str, Balance]:
        try:
            account = self._ask(self._client.get_account, omitZeroBalances="true")
            return {
                row["asset"]: Balance(unsigned(row, "free"), unsigned(row, "locked")) for row in account["balances"]
            }
        except BinanceAPIException as exc:
            raise BrokerError(f"{self.name} refused the account: {error_text(exc)}") from exc
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable balances: {exc!r}") from exc

    def positions(self) -> Sequence[HeldThere]:
        """Spot holds balances, no positions."""
        return ()

    def trades_since(self, symbol: str, since: datetime) -> Sequence[TradedThere]:
        """Of at most 24 hours at once, or the newest ones, whenever they were: for most that is one question.

        Day by day, half a year would be 180 questions, and more than anybody waits for.
        """
        ask, start = self._client.get_my_trades, min(int(since.timestamp() * 1000), self._now_ms())
        try:
            newest = listed(self._question(ask, symbol=symbol, limit=MOST_TRADES_LISTED))
            if len(newest) < MOST_TRADES_LISTED or min(int(row["time"]) for row in newest) < start:
                return by_order(symbol, [row for row in newest if int(row["time"]) >= start])
            return by_order(symbol, self._every_trade(ask, symbol, since, DAY_MS))
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable trades of {symbol}: {exc!r}") from exc

    def open_orders(self) -> Sequence[RestsThere]:
        rows = self._question(self._client.get_open_orders)
        try:
            return [RestsThere(str(row["symbol"]), str(row["clientOrderId"]), False) for row in listed(rows)]
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable list of open orders: {exc!r}") from exc

    def cancel_stray(self, stray: RestsThere) -> None:
        try:
            self._ask(self._client.cancel_order, symbol=stray.symbol, origClientOrderId=stray.client_order_id)
        except BinanceAPIException as exc:
            if exc.code not in NO_SUCH_ORDER_CODES:
                raise BrokerError(f"{self.name} did not cancel {stray.client_order_id}: {error_text(exc)}") from exc

    # --- as users of Binance clients know them ------------------------------------------------------------------

    def get_account_balance(self, asset: str = "USDT") -> Decimal:
        """Free balance of one asset."""
        return self.balances().get(asset, Balance()).free

    def get_current_price(self, symbol: str) -> Decimal:
        return self.current_price(symbol)

    def calculate_buy_quantity(self, symbol: str, usdt_amount: Decimal) -> Decimal:
        """Base units that `usdt_amount` buys at the current price, on the exchange's step, rounded down."""
        rules = self.symbol_rules(symbol)
        step = max(rules.quantity_step, rules.market_quantity_step)
        return round_down(usdt_amount / self.current_price(symbol), step)

    def place_buy_order(self, symbol: str, client_order_id: str, **size: Unpack[OrderSize]) -> Outcome:
        """`quantity=` (base units) or `amount=` (quote currency), and `price=` for a LIMIT order.

        The id is the caller's: one that is on no record could not be looked up when the reply is lost.
        """
        return self.place(self._order(Side.BUY, symbol, client_order_id, **size))

    def place_sell_order(self, symbol: str, client_order_id: str, **size: Unpack[OrderSize]) -> Outcome:
        """As `place_buy_order`."""
        return self.place(self._order(Side.SELL, symbol, client_order_id, **size))

    def get_order_status(self, symbol: str, client_order_id: str) -> LookUp:
        return self.look_up(self._order(Side.BUY, symbol, client_order_id))

    def cancel_order(self, symbol: str, client_order_id: str) -> LookUp:
        """How the order stands after the attempt to cancel it."""
        return self.cancel(self._order(Side.BUY, symbol, client_order_id))

    def _order(self, side: Side, symbol: str, client_order_id: str, **size: Unpack[OrderSize]) -> Order:
        now = datetime.now(UTC)
        return Order(
            client_order_id=client_order_id,
            signal_id="",
            broker=self.name,
            market=Market.SPOT,
            symbol=symbol,
            side=side,
            type=OrderType.LIMIT if "price" in size else OrderType.MARKET,
            is_entry=side is Side.BUY,
            rules=SymbolRules(symbol, "", "", ZERO, ZERO),
            received_at=now,
            created_at=now,
            **size,
        )

    # --- asking ---------------------------------------------------------------------------------------------------

    def _public(self, path: str, **parameters: str) -> Any:
        return self._question(self._client._get, path, data=parameters)

    def _server_time(self) -> Any:
        return self._public("time")

    def _fees_of(self, order: Order, raw: Mapping[str, Any]) -> tuple[Fee, ...]:
        """A looked-up order does not name its fees; its trades do."""
        executed = unsigned(raw, "executedQty")
        if not executed:
            return ()
        if executed == order.executed_quantity and order.fees:
            return order.fees
        try:
            # Not told otherwise, Binance lists 500; an order whose trades are never complete would never be settled.
            trades = self._ask(self._client.get_my_trades, symbol=order.symbol, orderId=raw.get("orderId"), limit=1000)
        except BinanceAPIException as exc:
            if exc.status_code != 404 and exc.code not in NO_PERMISSION_CODES:
                raise
            # The fees will never be told; that the order was executed is known, and matters more.
            log.warning("%s does not list the trades of %s: %s", self.name, order.client_order_id, error_text(exc))
            return ()
        if total(trades, "qty") != executed:
            raise BadReply(f"{self.name} does not list all trades of {order.client_order_id} yet")
        return fees_in(trades)


# --- orders as parameters -------------------------------------------------------------------------------------------


def _order_parameters(order: Order) -> dict[str, str]:
    """https://developers.binance.com/docs/binance-spot-api-docs/rest-api/trading-endpoints#new-order-trade

    Numbers as plain text: the library would send `1E-7` for a small Decimal, which Binance refuses.
    """
    parameters = {
        "symbol": order.symbol,
        "side": order.side.value,
        "newClientOrderId": order.client_order_id,
        "newOrderRespType": "FULL",
    }
    if order.amount is not None:
        parameters["quoteOrderQty"] = plain(order.amount)
    if order.quantity is not None:
        parameters["quantity"] = plain(order.quantity)
    return parameters | _type_parameters(order)


def _type_parameters(order: Order) -> dict[str, str]:
    """A take-profit alone is a limit order that waits in the book."""
    if order.type in STOPS:
        return {"type": "STOP_LOSS", **_trigger_parameters(order)}
    if order.type is OrderType.TAKE_PROFIT:
        return {"type": "LIMIT", "price": _trigger_price(order), "timeInForce": "GTC"}
    if order.type is OrderType.LIMIT and order.price is not None:
        return {"type": "LIMIT", "price": plain(order.price), "timeInForce": order.time_in_force or "GTC"}
    return {"type": order.type.value}


def _trigger_parameters(order: Order) -> dict[str, str]:
    """https://developers.binance.com/docs/binance-spot-api-docs/faqs/trailing-stop-faq: whole hundredths of a percent,
    from the best price since it was placed."""
    if order.type is OrderType.STOP:
        return {"stopPrice": _trigger_price(order)}
    if order.trailing_percent is None:
        raise CannotSend("a trailing stop needs its distance in percent")
    return {"trailingDelta": str(int(order.trailing_percent * BIPS_IN_A_PERCENT))}


def _trigger_price(order: Order) -> str:
    if order.stop_price is None:
        raise CannotSend(f"{order.type.value} needs a price")
    return plain(order.stop_price)


def _pair_parameters(orders: Sequence[Order]) -> dict[str, str]:
    """Above the market waits the take-profit, in the book; below it the stop."""
    stops = [order for order in orders if order.type in STOPS]
    profits = [order for order in orders if order.type is OrderType.TAKE_PROFIT]
    if len(orders) != 2 or len(stops) != 1 or len(profits) != 1:
        raise CannotSend("on spot one stop and one take-profit can protect a position, not more")
    stop, profit = stops[0], profits[0]
    if stop.quantity is None or stop.quantity != profit.quantity or {stop.side, profit.side} != {Side.SELL}:
        raise CannotSend("a stop and a take-profit on spot sell the same quantity")
    below = {"below" + name[0].upper() + name[1:]: value for name, value in _trigger_parameters(stop).items()}
    return {
        "symbol": stop.symbol,
        "side": stop.side.value,
        "quantity": plain(stop.quantity),
        # The list has an id of its own, at most 36 characters long as all of them.
        "listClientOrderId": orders[0].client_order_id[:32] + "_oco",
        "aboveType": "LIMIT_MAKER",
        "aboveClientOrderId": profit.client_order_id,
        "abovePrice": _trigger_price(profit),
        "belowType": "STOP_LOSS",
        "belowClientOrderId": stop.client_order_id,
        "newOrderRespType": "FULL",
        **below,
    }


# --- replies --------------------------------------------------------------------------------------------------------


def _execution(order: Order, raw: Mapping[str, Any], fees: tuple[Fee, ...]) -> Execution:
    ours = raw.get("symbol") == order.symbol and raw.get("clientOrderId") == order.client_order_id
    if not ours and raw.get("origClientOrderId") != order.client_order_id:
        raise BadReply("symbol or client order id differs")
    status = STATUSES.get(str(raw.get("status")))
    if status is None or "orderId" not in raw:
        raise BadReply(f"status {raw.get('status')!r}")
    executed = unsigned(raw, "executedQty")
    if status is OrderStatus.NEW and executed:
        status = OrderStatus.PARTIALLY_FILLED
    note = f"{plain(executed)} executed before it ended" if status is OrderStatus.EXPIRED else ""
    return Execution(status, str(raw["orderId"]), executed, unsigned(raw, "cummulativeQuoteQty"), fees, note)


def _report_on(order: Order, raw: Mapping[str, Any]) -> Execution:
    """What the reply to a pair says of one of its orders."""
    report = next((each for each in raw["orderReports"] if each["clientOrderId"] == order.client_order_id), None)
    if report is None or raw["symbol"] != order.symbol:
        raise BadReply(f"nothing is said of {order.client_order_id}")
    return _execution(order, report, _fees_of_reply(report))


def _fees_of_reply(raw: Mapping[str, Any]) -> tuple[Fee, ...]:
    """Without the fees we would believe to hold more than there is, and the exit would be refused for it."""
    fills = raw.get("fills") or []
    if total(fills, "qty") != unsigned(raw, "executedQty"):
        raise BadReply("its fills do not add up to what was executed")
    return fees_in(fills)


def _rules(row: Mapping[str, Any]) -> SymbolRules:
    """Filters: https://developers.binance.com/docs/binance-spot-api-docs/filters. A missing filter is no rule."""
    filters: dict[str, Mapping[str, Any]] = {f["filterType"]: f for f in row["filters"]}
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or {}
    return SymbolRules(
        symbol=row["symbol"],
        base_asset=row["baseAsset"],
        quote_asset=row["quoteAsset"],
        **lots_in(filters),
        min_notional=number_in(notional, "minNotional"),
        max_notional=number_in(notional, "maxNotional"),
        min_notional_applies_to_market=bool(notional.get("applyMinToMarket", notional.get("applyToMarket", True))),
        max_notional_applies_to_market=bool(notional.get("applyMaxToMarket", False)),
        quote_amount_allowed=bool(row.get("quoteOrderQtyMarketAllowed", False)),
        order_types=_order_types(row),
        trading=row.get("status") == "TRADING" and bool(row.get("isSpotTradingAllowed", True)),
    )


def _order_types(row: Mapping[str, Any]) -> frozenset[str]:
    """In our words: a take-profit is a limit order, a trailing stop a stop-loss with a distance."""
    offered = frozenset(row.get("orderTypes", ()))
    stops = {"STOP"} if "STOP_LOSS" in offered else set()
    trailing = {"TRAILING_STOP"} if stops and row.get("allowTrailingStop") else set()
    return (offered & {"MARKET", "LIMIT"}) | {"TAKE_PROFIT"} | stops | trailing
