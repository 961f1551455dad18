"""What Binance's spot and futures servers have in common: session, clock, pauses, and how their errors are told.

One link is one python-binance Client on one server. Which codes mean what differs, and is in binance_client.py and
binance_futures.py. https://developers.binance.com/docs/binance-spot-api-docs/rest-api/general-api-information
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar, TypedDict

import requests
from binance.client import Client
from binance.exceptions import BinanceAPIException, BinanceRequestException

from broker import BrokerError, Outcome, Refused, Unknown, UnknownSymbol
from clocks import compare_clocks
from exchange_session import ExchangeSession
from models import ZERO, Account, Fee, Market, OrderStatus, Side, TradedThere
from reply_values import BadReply, signed, total

# A small window bounds how long a delayed order may still be accepted; Binance checks it at receipt and again before
# the matching engine: https://developers.binance.com/docs/binance-spot-api-docs/rest-api/endpoint-security-type
RECV_WINDOW_MS = 3_000
# Binance itself gives up waiting for its engine after 10 s (error -1007); 2 s for its records to catch up.
ENGINE_TIMEOUT_SECONDS = 10
RECORDS_LAG_SECONDS = 2

CONNECT_TIMEOUT_SECONDS = 3.05
READ_TIMEOUT_SECONDS = 10

TIMESTAMP_CODE = -1021
RATE_LIMIT_CODES = frozenset({-1003, -1015})
NO_SUCH_ORDER_CODES = frozenset({-2013, -2011})
BAD_SYMBOL_CODES = frozenset({-1121, -1100})
# The key may not see the account's trades: asking again will not help.
NO_PERMISSION_CODES = frozenset({-1002, -2015})
# What its owner can do about a key that is refused: https://developers.binance.com/docs/binance-spot-api-docs/errors
KEY_ADVICE = {
    -1022: ": does the API secret belong to the key?",
    -2014: ": is the API key what Binance gave?",
    -2015: ": look at the key, what it may do, the addresses it is good for, and whether it is the testnet's",
}
# Refused because it is there already: that is a reason to look, not a refusal.
DUPLICATE_TEXT = "duplicate order"

MOST_TRADES_LISTED = 1000
DAY_MS = 86_400_000
# Futures do not tell of older trades, and nobody needs older ones of spot.
HISTORY_MS = 180 * DAY_MS

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


class CannotSend(Exception):
    """Binance has no such order; the text says what is wrong with it."""


class BinanceLink:
    """One account on one Binance server. Safe to use from several threads; never sends an order twice."""

    is_local = False
    absence_is_proven_after_seconds: float = RECV_WINDOW_MS / 1000 + ENGINE_TIMEOUT_SECONDS + RECORDS_LAG_SECONDS

    market: ClassVar[Market]
    # The order was judged and refused before it could reach the engine. A code that is not listed is unknown.
    refused_codes: ClassVar[frozenset[int]]
    clock_codes: ClassVar[frozenset[int]] = frozenset({TIMESTAMP_CODE})

    def __init__(self, name: str, api_key: str, api_secret: str, *, testnet: bool) -> None:
        self.name = name
        self._client = Client(
            api_key,
            api_secret,
            testnet=testnet,
            requests_params={"timeout": (CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)},
            ping=False,
        )
        # The library overwrites a recvWindow= given with a call; only this attribute counts.
        self._client.REQUEST_RECVWINDOW = RECV_WINDOW_MS
        self._client.session = ExchangeSession(self._client.session.headers)
        self._quiet_until = 0.0
        self.on_pause: Callable[[float], None] = lambda seconds: None
        self._clock_lock = threading.Lock()
        self.clock_problem = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    @property
    def account(self) -> Account:
        return Account(self.name, self.market)

    # --- asking ---------------------------------------------------------------------------------------------------

    def _ask(self, call: Callable[..., Any], *args: object, **parameters: object) -> Any:
        """A request that trades nothing. Raises BinanceAPIException for Binance's errors, BrokerError for the rest."""
        wait = self.pause_seconds
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

    def _question(self, call: Callable[..., Any], *args: object, **parameters: object) -> Any:
        """The same, with Binance's errors told as BrokerError, too."""
        try:
            return self._ask(call, *args, **parameters)
        except BinanceAPIException as exc:
            if exc.code in BAD_SYMBOL_CODES:
                raise UnknownSymbol(f"{self.name}: {error_text(exc)}") from exc
            raise BrokerError(f"{self.name}: {error_text(exc)}") from exc

    def _every_trade(
        self, call: Callable[..., Any], symbol: str, since: datetime, longest_ms: int
    ) -> list[Mapping[str, Any]]:
        """All trades from then on, each once, oldest first, in the spans and pages that Binance allows."""
        now_ms = self._now_ms()
        # A moment that Binance's clock has not reached yet is asked for all the same: clocks differ a little.
        start = min(max(int(since.timestamp() * 1000), now_ms - HISTORY_MS), now_ms)
        found: dict[int, Mapping[str, Any]] = {}
        while start <= now_ms:
            end = start + longest_ms
            asked = {"startTime": start, "endTime": end}
            while asked:
                rows = listed(self._question(call, symbol=symbol, limit=MOST_TRADES_LISTED, **asked))
                page = {int(row["id"]): row for row in rows}
                if "fromId" in asked and rows and page.keys() <= found.keys():
                    raise BadReply("the same trades again")
                found |= page
                # A millisecond can hold more trades than an answer: the next page goes by number, not by time.
                is_full = len(rows) == MOST_TRADES_LISTED and int(page[max(page)]["time"]) <= end
                asked = {"fromId": max(page) + 1} if is_full else {}
            start = end + 1
        return [found[number] for number in sorted(found)]

    # --- endings --------------------------------------------------------------------------------------------------

    def _ending(self, exc: Exception) -> Refused | Unknown:
        if isinstance(exc, BinanceAPIException):
            return self._api_ending(exc)
        if isinstance(exc, requests.ConnectTimeout):
            return Refused(f"no connection to {self.name}: {type(exc).__name__}", never_left=True)
        # "No answer" is not "no order". The exception's text may hold the signed request: only its kind is told.
        return Unknown(f"{self.name} gave no usable answer: {type(exc).__name__}")

    def _api_ending(self, exc: BinanceAPIException) -> Refused | Unknown:
        text = error_text(exc)
        if exc.status_code in (418, 429) or (exc.code in RATE_LIMIT_CODES and exc.status_code < 500):
            return Refused(text, str(exc.code), never_left=True, retry_after_seconds=self._heed(exc))
        if not 400 <= exc.status_code < 500:
            return self._server_failed(exc)
        if exc.code in self.clock_codes:
            return self._clock_was_wrong(exc)
        if exc.code in self.refused_codes and DUPLICATE_TEXT not in text.lower():
            return Refused(f"{self.name} refused: {text}", str(exc.code))
        return Unknown(f"{self.name} answered HTTP {exc.status_code}: {text}")

    def _server_failed(self, exc: BinanceAPIException) -> Refused | Unknown:
        return Unknown(f"{self.name} answered HTTP {exc.status_code}: {error_text(exc)}")

    def _clock_was_wrong(self, exc: BinanceAPIException) -> Refused:
        try:
            self._synchronise_clock()
        except BrokerError:
            pass
        return Refused(error_text(exc), str(exc.code), never_left=True, retry_after_seconds=0)

    def _not_this_order(self, exc: Exception) -> Unknown:
        return Unknown(f"{self.name} answered with something that is not this order: {exc}")

    # --- pauses and the clock -------------------------------------------------------------------------------------

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
        self.leave_alone_for(seconds)
        self.on_pause(self.pause_seconds)
        return seconds

    def leave_alone_for(self, seconds: float) -> None:
        """Nothing is sent for so long, neither questions nor orders."""
        self._quiet_until = max(self._quiet_until, time.monotonic() + seconds)

    @property
    def pause_seconds(self) -> float:
        return max(0.0, self._quiet_until - time.monotonic())

    def _paused(self) -> Outcome | None:
        wait = self.pause_seconds
        return Refused(f"{self.name} asked for a pause", never_left=True, retry_after_seconds=wait) if wait else None

    def _now_ms(self) -> int:
        return int(time.time() * 1000 + self._client.timestamp_offset)

    def _server_time(self) -> Any:
        """The reply of this server's own clock: spot and futures do not share one."""
        raise NotImplementedError

    def _synchronise_clock(self) -> None:
        with self._clock_lock:
            compared = compare_clocks(self.name, self._server_time)
            self.clock_problem = compared.problem
            self._client.timestamp_offset = round(compared.offset_seconds * 1000)


# --- reading replies ------------------------------------------------------------------------------------------------


def error_text(exc: BinanceAPIException) -> str:
    """Binance's own words, cut, with what to do about a key; an HTML page is not worth repeating."""
    if exc.code == 0 or exc.message is None:
        return f"HTTP {exc.status_code} without a usable error"
    return f"{exc.message[:200]} ({json.dumps(exc.code)}){KEY_ADVICE.get(exc.code, '')}"


def number_in(row: Mapping[str, Any], name: str) -> Decimal:
    """A number of a filter; a filter that is not there is no rule."""
    return Decimal(str(row.get(name, "0")))


class Lots(TypedDict):
    """The steps and bounds that spot and futures tell alike, as SymbolRules names them."""

    quantity_step: Decimal
    min_quantity: Decimal
    max_quantity: Decimal
    market_quantity_step: Decimal
    market_min_quantity: Decimal
    market_max_quantity: Decimal
    price_tick: Decimal
    min_price: Decimal
    max_price: Decimal


def lots_in(filters: Mapping[str, Mapping[str, Any]]) -> Lots:
    """A filter that is missing is no rule."""
    lot, market_lot = filters.get("LOT_SIZE", {}), filters.get("MARKET_LOT_SIZE", {})
    price = filters.get("PRICE_FILTER", {})
    return Lots(
        quantity_step=number_in(lot, "stepSize"),
        min_quantity=number_in(lot, "minQty"),
        max_quantity=number_in(lot, "maxQty"),
        market_quantity_step=number_in(market_lot, "stepSize"),
        market_min_quantity=number_in(market_lot, "minQty"),
        market_max_quantity=number_in(market_lot, "maxQty"),
        price_tick=number_in(price, "tickSize"),
        min_price=number_in(price, "minPrice"),
        max_price=number_in(price, "maxPrice"),
    )


def listed(reply: Any) -> list[Mapping[str, Any]]:
    """An empty object is no empty list: that nothing is there has to be said."""
    if not isinstance(reply, list):
        raise BadReply("no list")
    return reply


def fees_in(trades: Iterable[Mapping[str, Any]]) -> tuple[Fee, ...]:
    amounts: dict[str, Decimal] = {}
    for trade in trades:
        asset = str(trade.get("commissionAsset", ""))
        # A maker may be paid for it: a negative fee.
        amounts[asset] = amounts.get(asset, ZERO) + signed(trade, "commission")
    return tuple(Fee(asset, amount) for asset, amount in amounts.items() if amount)


def by_order(symbol: str, trades: Iterable[Mapping[str, Any]]) -> Sequence[TradedThere]:
    """Trades put together by the order that made them; the one that traded last comes last."""
    orders: dict[str, list[Mapping[str, Any]]] = {}
    for trade in trades:
        orders.setdefault(str(trade["orderId"]), []).append(trade)
    return sorted((_traded(symbol, number, rows) for number, rows in orders.items()), key=lambda each: each.last_at)


def _traded(symbol: str, order_id: str, trades: list[Mapping[str, Any]]) -> TradedThere:
    first = trades[0]
    side = str(first.get("positionSide", ""))
    return TradedThere(
        symbol=symbol,
        exchange_order_id=order_id,
        side=Side.BUY if first["buyer" if "buyer" in first else "isBuyer"] else Side.SELL,
        position_side=side if side in ("LONG", "SHORT") else "",
        quantity=total(trades, "qty"),
        quote=total(trades, "quoteQty"),
        fees=fees_in(trades),
        last_at=datetime.fromtimestamp(max(int(trade["time"]) for trade in trades) / 1000, UTC),
    )
