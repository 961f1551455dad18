"""Binance spot, through python-binance: the one place that knows which of Binance's answers mean what.

Rules of the answers: https://developers.binance.com/docs/binance-spot-api-docs/rest-api/general-api-information
("HTTP 5XX … the execution status is UNKNOWN") and https://developers.binance.com/docs/binance-spot-api-docs/errors
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TypedDict, Unpack
from urllib.parse import quote

import requests
from binance.client import Client
from binance.exceptions import BinanceAPIException, BinanceRequestException

from broker import (
    Balance,
    BrokerError,
    Done,
    Found,
    LookUp,
    NoAnswer,
    NotFound,
    Outcome,
    Refused,
    Unknown,
    UnknownSymbol,
)
from exchange_session import ExchangeSession
from models import ZERO, Execution, Fee, Market, Order, OrderStatus, OrderType, Side, SymbolRules, plain, round_down

# A small window bounds how long a delayed order may still be accepted; Binance checks it at receipt and again before
# the matching engine: https://developers.binance.com/docs/binance-spot-api-docs/rest-api/endpoint-security-type
RECV_WINDOW_MS = 3_000
# Binance itself gives up waiting for its engine after 10 s (error -1007); 2 s for its records to catch up.
ENGINE_TIMEOUT_SECONDS = 10
RECORDS_LAG_SECONDS = 2

CONNECT_TIMEOUT_SECONDS = 3.05
READ_TIMEOUT_SECONDS = 10

# The order was judged and refused before it could reach the engine. A code that is not listed is unknown, not refused.
REFUSED_CODES = frozenset(
    {-1002, -1013, -1014, -1016, -1020, -1022, -1108, -1111, -1112, -1121, -1128, -1130, -2010, -2014, -2015, -2016}
    | set(range(-1106, -1099))
    | set(range(-1119, -1113))
)
TIMESTAMP_CODE = -1021
RATE_LIMIT_CODES = frozenset({-1003, -1015})
NO_SUCH_ORDER_CODE = -2013
BAD_SYMBOL_CODES = frozenset({-1121, -1100})
# Refused because it is there already: that is a reason to look, not a refusal.
DUPLICATE_TEXT = "duplicate order"
# The key may not see the account's trades: asking again will not help.
NO_PERMISSION_CODES = frozenset({-1002, -2015})

log = logging.getLogger("gatehouse.binance")

STATUSES = {
    "NEW": OrderStatus.NEW,
    "PENDING_NEW": OrderStatus.NEW,
    "PARTIALLY_FILLED": OrderStatus.PARTIALLY_FILLED,
    "FILLED": OrderStatus.FILLED,
    "CANCELED": OrderStatus.CANCELED,
    "PENDING_CANCEL": OrderStatus.NEW,
    "REJECTED": OrderStatus.REJECTED,
    "EXPIRED": OrderStatus.EXPIRED,
    "EXPIRED_IN_MATCH": OrderStatus.EXPIRED,
}


class _BadReply(Exception):
    """The reply is not what was asked for."""


class OrderSize(TypedDict, total=False):
    """`quantity` in base units or `amount` in quote currency; with `price` it is a LIMIT order."""

    quantity: Decimal
    amount: Decimal
    price: Decimal


class BinanceClient:
    """One account on one Binance server. Safe to use from several threads; never sends an order twice."""

    is_local = False
    absence_is_proven_after_seconds: float = RECV_WINDOW_MS / 1000 + ENGINE_TIMEOUT_SECONDS + RECORDS_LAG_SECONDS

    def __init__(self, name: str, api_key: str, api_secret: str, *, testnet: bool, api_url: str = "") -> None:
        """`api_url` replaces Binance's own server, e.g. `http://127.0.0.1:9000/api`."""
        self.name = name
        self._client = Client(
            api_key,
            api_secret,
            testnet=testnet and not api_url,
            requests_params={"timeout": (CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)},
            ping=False,
        )
        if api_url:
            self._client.API_URL = api_url.rstrip("/")
        # The library overwrites a recvWindow= given with a call; only this attribute counts.
        self._client.REQUEST_RECVWINDOW = RECV_WINDOW_MS
        self._client.session = ExchangeSession(self._client.session.headers)
        self._quiet_until = 0.0
        self._clock_lock = threading.Lock()

    def __repr__(self) -> str:
        return f"BinanceClient({self.name})"

    # --- the Broker protocol ------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Measures the server's clock, without which no signed request is accepted, and checks the keys."""
        self._synchronise_clock()
        self.balances()

    def keep_warm(self) -> None:
        self._synchronise_clock()

    def place(self, order: Order) -> Outcome:
        wait = self._quiet_for()
        if wait:
            return Refused(f"{self.name} asked for a pause", never_left=True, retry_after_seconds=wait)
        try:
            raw = self._client.create_order(**_order_parameters(order))
        except Exception as exc:
            return self._ending(exc)
        try:
            return Done(_execution(order, raw, _fees_of_reply(raw)))
        except (_BadReply, AttributeError, TypeError) as exc:
            return Unknown(f"{self.name} answered with something that is not this order: {exc}")

    def look_up(self, order: Order) -> LookUp:
        try:
            raw = self._ask(self._client.get_order, symbol=order.symbol, origClientOrderId=order.client_order_id)
            return Found(_execution(order, raw, self._fees_of(order, raw)))
        except BinanceAPIException as exc:
            if exc.code == NO_SUCH_ORDER_CODE:
                return NotFound()
            return NoAnswer(f"{self.name}: {_text(exc)}")
        except (BrokerError, _BadReply, AttributeError, TypeError) as exc:
            return NoAnswer(str(exc))

    def cancel(self, order: Order) -> LookUp:
        try:
            self._ask(self._client.cancel_order, symbol=order.symbol, origClientOrderId=order.client_order_id)
        except (BinanceAPIException, BrokerError):
            # It may have filled in the meantime, or the reply was lost: how it stands now is what counts.
            pass
        return self.look_up(order)

    def symbol_rules(self, symbol: str) -> SymbolRules:
        info = self._question("exchangeInfo", symbol=symbol)
        try:
            return _rules(next(row for row in info["symbols"] if row["symbol"] == symbol))
        except (StopIteration, KeyError, TypeError, InvalidOperation) as exc:
            raise BrokerError(f"{self.name} sent no usable rules for {symbol}: {exc!r}") from exc

    def current_price(self, symbol: str) -> Decimal:
        try:
            return _decimal(self._question("ticker/price", symbol=symbol), "price")
        except _BadReply as exc:
            raise BrokerError(f"{self.name} sent no usable price of {symbol}: {exc}") from exc

    def current_prices(self, symbols: Sequence[str]) -> Mapping[str, Decimal]:
        """https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints#symbol-price-ticker"""
        listed = quote(json.dumps(list(symbols), separators=(",", ":")))
        try:
            prices = {row["symbol"]: _decimal(row, "price") for row in self._question("ticker/price", symbols=listed)}
            if prices.keys() != set(symbols):
                raise _BadReply("other symbols than those asked for")
            return prices
        except (_BadReply, KeyError, TypeError) as exc:
            raise BrokerError(f"{self.name} sent no usable prices: {exc}") from exc

    def balances(self) -> Mapping[str, Balance]:
        try:
            account = self._ask(self._client.get_account, omitZeroBalances="true")
            return {
                row["asset"]: Balance(_decimal(row, "free"), _decimal(row, "locked")) for row in account["balances"]
            }
        except BinanceAPIException as exc:
            raise BrokerError(f"{self.name} refused the account: {_text(exc)}") from exc
        except (_BadReply, KeyError, TypeError) as exc:
            raise BrokerError(f"{self.name} sent no usable balances: {exc!r}") from exc

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

    def _question(self, path: str, **parameters: str) -> Any:
        try:
            return self._ask(self._client._get, path, data=parameters)
        except BinanceAPIException as exc:
            if exc.code in BAD_SYMBOL_CODES:
                raise UnknownSymbol(f"{self.name}: {_text(exc)}") from exc
            raise BrokerError(f"{self.name}: {_text(exc)}") from exc

    def _ask(self, call: Callable[..., Any], *args: object, **parameters: object) -> Any:
        """A request that trades nothing. Raises BinanceAPIException for Binance's errors, BrokerError for the rest."""
        wait = self._quiet_for()
        if wait:
            raise BrokerError(f"{self.name} asked for a pause of {wait:.0f} s more")
        try:
            return call(*args, **parameters)
        except BinanceAPIException as exc:
            self._heed(exc)
            raise
        except (BinanceRequestException, requests.RequestException, AttributeError, ValueError) as exc:
            # The text of a connection error holds the signed request: only its kind is told.
            raise BrokerError(f"{self.name} did not answer: {type(exc).__name__}") from exc

    def _fees_of(self, order: Order, raw: Mapping[str, Any]) -> tuple[Fee, ...]:
        """A looked-up order does not name its fees; its trades do."""
        executed = _decimal(raw, "executedQty")
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
            log.warning("%s does not list the trades of %s: %s", self.name, order.client_order_id, _text(exc))
            return ()
        if sum((_decimal(trade, "qty") for trade in trades), ZERO) != executed:
            raise _BadReply(f"{self.name} does not list all trades of {order.client_order_id} yet")
        return _fees(trades)

    # --- endings --------------------------------------------------------------------------------------------------

    def _ending(self, exc: Exception) -> Outcome:
        if isinstance(exc, BinanceAPIException):
            return self._api_ending(exc)
        if isinstance(exc, requests.ConnectTimeout):
            return Refused(f"no connection to {self.name}: {type(exc).__name__}", never_left=True)
        # "No answer" is not "no order". The exception's text may hold the signed request: only its kind is told.
        return Unknown(f"{self.name} gave no usable answer: {type(exc).__name__}")

    def _api_ending(self, exc: BinanceAPIException) -> Outcome:
        text = _text(exc)
        if exc.status_code in (418, 429) or (exc.code in RATE_LIMIT_CODES and exc.status_code < 500):
            return Refused(text, str(exc.code), never_left=True, retry_after_seconds=self._heed(exc))
        if exc.status_code >= 500 or exc.status_code < 400:
            return Unknown(f"{self.name} answered HTTP {exc.status_code}: {text}")
        if exc.code == TIMESTAMP_CODE:
            return self._clock_was_wrong(text)
        if exc.code in REFUSED_CODES and DUPLICATE_TEXT not in text.lower():
            return Refused(f"{self.name} refused: {text}", str(exc.code))
        return Unknown(f"{self.name} answered HTTP {exc.status_code}: {text}")

    def _clock_was_wrong(self, text: str) -> Outcome:
        try:
            self._synchronise_clock()
        except BrokerError:
            pass
        return Refused(text, str(TIMESTAMP_CODE), never_left=True, retry_after_seconds=0)

    def _heed(self, exc: BinanceAPIException) -> float | None:
        """Remembers how long Binance wants to be left alone; calling on through a ban makes it longer.

        https://developers.binance.com/docs/binance-spot-api-docs/rest-api/limits
        """
        if exc.status_code not in (418, 429):
            return None
        try:
            seconds = float(exc.response.headers.get("Retry-After", 1))
        except ValueError:
            seconds = 60.0
        self._quiet_until = max(self._quiet_until, time.monotonic() + seconds)
        return seconds

    def _quiet_for(self) -> float:
        return max(0.0, self._quiet_until - time.monotonic())

    def _synchronise_clock(self) -> None:
        with self._clock_lock:
            before = time.time()
            reply = self._question("time")
            after = time.time()
            try:
                server_ms = int(reply["serverTime"])
            except (KeyError, TypeError, ValueError) as exc:
                raise BrokerError(f"{self.name} sent no usable time") from exc
            self._client.timestamp_offset = round(server_ms - (before + after) / 2 * 1000)


def _order_parameters(order: Order) -> dict[str, str]:
    """https://developers.binance.com/docs/binance-spot-api-docs/rest-api/trading-endpoints#new-order-trade

    Numbers as plain text: the library would send `1E-7` for a small Decimal, which Binance refuses.
    """
    parameters = {
        "symbol": order.symbol,
        "side": order.side.value,
        "type": order.type.value,
        "newClientOrderId": order.client_order_id,
        "newOrderRespType": "FULL",
    }
    if order.amount is not None:
        parameters["quoteOrderQty"] = plain(order.amount)
    if order.quantity is not None:
        parameters["quantity"] = plain(order.quantity)
    if order.type is OrderType.LIMIT and order.price is not None:
        parameters |= {"price": plain(order.price), "timeInForce": order.time_in_force or "GTC"}
    return parameters


def _execution(order: Order, raw: Mapping[str, Any], fees: tuple[Fee, ...]) -> Execution:
    ours = raw.get("symbol") == order.symbol and raw.get("clientOrderId") == order.client_order_id
    if not ours and raw.get("origClientOrderId") != order.client_order_id:
        raise _BadReply("symbol or client order id differs")
    status = STATUSES.get(str(raw.get("status")))
    if status is None or "orderId" not in raw:
        raise _BadReply(f"status {raw.get('status')!r}")
    executed = _decimal(raw, "executedQty")
    if status is OrderStatus.NEW and executed:
        status = OrderStatus.PARTIALLY_FILLED
    note = f"{plain(executed)} executed before it ended" if status is OrderStatus.EXPIRED else ""
    return Execution(status, str(raw["orderId"]), executed, _decimal(raw, "cummulativeQuoteQty"), fees, note)


def _fees_of_reply(raw: Mapping[str, Any]) -> tuple[Fee, ...]:
    """Without the fees we would believe to hold more than there is, and the exit would be refused for it."""
    fills = raw.get("fills") or []
    if sum((_decimal(fill, "qty") for fill in fills), ZERO) != _decimal(raw, "executedQty"):
        raise _BadReply("its fills do not add up to what was executed")
    return _fees(fills)


def _fees(fills: list[Mapping[str, Any]]) -> tuple[Fee, ...]:
    total: dict[str, Decimal] = {}
    for fill in fills:
        asset = str(fill.get("commissionAsset", ""))
        total[asset] = total.get(asset, ZERO) + _decimal(fill, "commission")
    return tuple(Fee(asset, amount) for asset, amount in total.items() if amount)


def _rules(row: Mapping[str, Any]) -> SymbolRules:
    """Filters: https://developers.binance.com/docs/binance-spot-api-docs/filters. A missing filter is no rule."""
    filters: dict[str, Mapping[str, Any]] = {f["filterType"]: f for f in row["filters"]}
    lot, market_lot = filters.get("LOT_SIZE", {}), filters.get("MARKET_LOT_SIZE", {})
    price = filters.get("PRICE_FILTER", {})
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or {}
    return SymbolRules(
        symbol=row["symbol"],
        base_asset=row["baseAsset"],
        quote_asset=row["quoteAsset"],
        quantity_step=_number(lot, "stepSize"),
        min_quantity=_number(lot, "minQty"),
        max_quantity=_number(lot, "maxQty"),
        market_quantity_step=_number(market_lot, "stepSize"),
        market_min_quantity=_number(market_lot, "minQty"),
        market_max_quantity=_number(market_lot, "maxQty"),
        price_tick=_number(price, "tickSize"),
        min_price=_number(price, "minPrice"),
        max_price=_number(price, "maxPrice"),
        min_notional=_number(notional, "minNotional"),
        max_notional=_number(notional, "maxNotional"),
        min_notional_applies_to_market=bool(notional.get("applyMinToMarket", notional.get("applyToMarket", True))),
        max_notional_applies_to_market=bool(notional.get("applyMaxToMarket", False)),
        quote_amount_allowed=bool(row.get("quoteOrderQtyMarketAllowed", False)),
        order_types=frozenset(row.get("orderTypes", ())),
        trading=row.get("status") == "TRADING" and bool(row.get("isSpotTradingAllowed", True)),
    )


def _number(row: Mapping[str, Any], name: str) -> Decimal:
    return Decimal(str(row.get(name, "0")))


def _decimal(row: Mapping[str, Any], name: str) -> Decimal:
    try:
        value = Decimal(str(row[name]))
    except (KeyError, TypeError, InvalidOperation) as exc:
        raise _BadReply(f"{name} is missing or not a number") from exc
    if not value.is_finite() or value < 0:
        raise _BadReply(f"{name} is not a plain number")
    return value


def _text(exc: BinanceAPIException) -> str:
    """Binance's own words, cut; an HTML page is not worth repeating."""
    if exc.code == 0 or exc.message is None:
        return f"HTTP {exc.status_code} without a usable error"
    return f"{exc.message[:200]} ({json.dumps(exc.code)})"
