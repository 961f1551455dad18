"""Binance USDⓈ-M futures, through python-binance: leverage and position mode, orders, conditional orders, positions.

Rules of the answers: https://developers.binance.com/docs/derivatives/usds-margined-futures/general-info (a 503 has one
of four meanings) and .../error-code. Parameters and replies are in binance_futures_orders.py, what is shared with spot
in binance_link.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from binance.exceptions import BinanceAPIException

from binance_futures_orders import (
    CLOCK_CODES,
    KINDS,
    MODE_CODE,
    MODE_WORDS,
    NOT_PLACED_TEXTS,
    NOT_REQUIRED_CODE,
    NOTHING_TO_REDUCE_CODE,
    POSITION_NOT_SEEN_YET_CODE,
    REFUSED_CODES,
    THROTTLED_CODE,
    THROTTLED_TEXT,
    balance_in,
    became,
    cancelled_untriggered,
    check_is_ours,
    conditional_parameters,
    execution,
    held_in,
    order_parameters,
    rests_in,
    rules_in,
    status_in,
    sums_of,
    untriggered,
    waiting,
)
from binance_link import (
    DAY_MS,
    MOST_TRADES_LISTED,
    NO_SUCH_ORDER_CODES,
    BinanceLink,
    CannotSend,
    by_order,
    error_text,
    listed,
)
from binance_margin import Margin
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
    stop_first,
)
from models import (
    RESTING,
    ZERO,
    Execution,
    HeldThere,
    Market,
    Order,
    OrderType,
    RestsThere,
    SymbolRules,
    TradedThere,
)
from reply_values import UNUSABLE, BadReply, total, unsigned

# The library still names the older one: https://developers.binance.com/docs/derivatives/usds-margined-futures/general-info
TESTNET_URL = "https://demo-fapi.binance.com/fapi"
RULES_ARE_GOOD_FOR_SECONDS = 60
TRADES_AT_ONCE_MS = 7 * DAY_MS
# An order's trades are listed a moment after it; an opened position is known a moment after its order.
TRADES_PAUSES = (0.05, 0.1, 0.2, 0.3, 0.4)
POSITION_PAUSES = (0.1, 0.2, 0.4, 0.8)
# Whoever waits for an order gives up after 12 s and proves its absence from then on: it must not leave much later.
READY_WITHIN_SECONDS = 5.0
# So long an order's trades are waited for before its own sums have to do, without the fees.
TRADES_WITHIN_SECONDS = 5.0


class BinanceFutures(BinanceLink):
    """One futures account on one Binance server, with one margin type for all symbols."""

    market = Market.FUTURES
    refused_codes = REFUSED_CODES
    clock_codes = CLOCK_CODES

    def __init__(
        self,
        name: str,
        api_key: str,
        api_secret: str,
        *,
        testnet: bool,
        api_url: str = "",
        margin_type: str = "ISOLATED",
    ) -> None:
        """`api_url` replaces Binance's own server, e.g. `http://127.0.0.1:9000/fapi`; margin is ISOLATED or CROSSED."""
        super().__init__(name, api_key, api_secret, testnet=testnet and not api_url)
        self._client.FUTURES_TESTNET_URL = TESTNET_URL
        if api_url:
            self._client.FUTURES_URL = api_url.rstrip("/")
        self._margin = Margin(self._client, self._ask, margin_type)
        self._hedge_mode: bool | None = None  # None: not read yet
        self._rows: Mapping[str, Mapping[str, Any]] = {}
        self._rows_until = 0.0
        self._rows_told: set[str] = set()
        self._rows_lock = threading.Lock()

    # --- connection -----------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Clock, position mode and keys; leverages are read anew, they may have been changed meanwhile."""
        self._synchronise_clock()
        self._margin.forget()
        self._question(self._read_position_mode)
        self.balances()

    def keep_warm(self) -> None:
        self._synchronise_clock()

    def _server_time(self) -> Any:
        return self._question(self._client.futures_time)

    def _read_position_mode(self) -> bool:
        """One-way or hedge mode is the account's choice, and orders look different in each."""
        reply = self._ask(self._client.futures_get_position_mode)
        hedge_mode = reply.get("dualSidePosition") if isinstance(reply, dict) else None
        if not isinstance(hedge_mode, bool):
            raise BrokerError(f"{self.name} does not say whether it is in hedge mode")
        self._hedge_mode = hedge_mode
        return hedge_mode

    # --- leverage and margin --------------------------------------------------------------------------------------

    def prepare(self, symbol: str, leverage: Decimal) -> None:
        """Only where nothing is held and nothing waits: whosever it is, its leverage is not ours to change."""
        if self._question(self._client.futures_position_information, symbol=symbol):
            raise BrokerError(f"{symbol} has a position or orders there; its leverage and margin are left as they are")
        try:
            self._margin.prepare(symbol, leverage)
        except BinanceAPIException as exc:
            raise BrokerError(self._not_set(symbol, leverage, error_text(exc))) from exc
        except CannotSend as exc:
            raise BrokerError(self._not_set(symbol, leverage, str(exc))) from exc

    def _not_set(self, symbol: str, leverage: Decimal, why: str) -> str:
        margin = self._margin.margin_type
        return f"{self.name} cannot trade {symbol} with {margin} margin and leverage {leverage:f}: {why}"

    # --- placing --------------------------------------------------------------------------------------------------

    def place(self, order: Order) -> Outcome:
        paused = self._paused()
        if paused:
            return paused
        is_conditional, began = order.type in KINDS, time.monotonic()
        try:
            hedge_mode = self._ready_for(order)
            if time.monotonic() - began > READY_WITHIN_SECONDS:
                raise BrokerError(f"{self.name} took too long to tell or set leverage and mode")
            parameters_of = conditional_parameters if is_conditional else order_parameters
            parameters = parameters_of(order, hedge_mode=hedge_mode)
        except CannotSend as exc:
            return Refused(f"not sent to {self.name}: {exc}")
        except BrokerError as exc:
            return Refused(str(exc), never_left=True)
        except BinanceAPIException as exc:
            return self._unprepared(order, exc)
        # From here on it may have left: nothing that goes wrong may be told as above.
        return (self._place_conditional if is_conditional else self._place_plain)(order, parameters)

    def protect(self, orders: Sequence[Order]) -> Sequence[Outcome]:
        return stop_first(orders, self.place)

    def _ready_for(self, order: Order) -> bool:
        """What has to be known and set before the order may leave; tells whether it is for hedge mode."""
        hedge_mode = self._hedge_mode
        if hedge_mode is None:
            hedge_mode = self._read_position_mode()
        if order.is_entry:
            self._margin.prepare(order.symbol, order.leverage)
        return hedge_mode

    def _unprepared(self, order: Order, exc: BinanceAPIException) -> Refused:
        """The order itself has not left, whatever became of the setting."""
        ending = self._ending(exc)
        if isinstance(ending, Refused) and ending.never_left:
            return ending
        reason = self._not_set(order.symbol, order.leverage, error_text(exc))
        return Refused(reason, str(exc.code), never_left=not exc.code or exc.status_code >= 500)

    def _place_plain(self, order: Order, parameters: Mapping[str, str]) -> Outcome:
        try:
            raw = self._client.futures_create_order(**parameters)
        except Exception as exc:
            return self._ending(exc)
        try:
            check_is_ours(order, raw)
            if order.type is OrderType.MARKET and status_in(raw) in RESTING:
                return Unknown(f"{self.name} took the order and does not say yet what came of it")
            if not unsigned(raw, "executedQty"):
                return Done(execution(raw, ZERO, ()))
        except UNUSABLE as exc:
            return self._not_this_order(exc)
        return self._traded(raw)

    def _traded(self, raw: Mapping[str, Any]) -> Outcome:
        """The reply names no price and no fees; they are listed with its trades, a moment later."""
        for pause in (*TRADES_PAUSES, None):
            try:
                return Done(self._facts(raw))
            except UNUSABLE as exc:
                why = str(exc)
            except (BinanceAPIException, BrokerError) as exc:
                return Unknown(f"filled, but {self._words(exc)}")
            if pause:
                time.sleep(pause)
        return Unknown(f"filled, but {self.name} does not tell at what price: {why}")

    def _place_conditional(self, order: Order, parameters: Mapping[str, str]) -> Outcome:
        """https://developers.binance.com/docs/derivatives/usds-margined-futures/trade/rest-api/New-Algo-Order

        What closes a position is refused until the position is known, which can take a moment after its order.
        """
        for pause in (*POSITION_PAUSES, None):
            try:
                raw = self._client.futures_create_algo_order(**parameters)
            except Exception as exc:
                outcome = self._ending(exc)
            else:
                return self._taken(order, raw)
            if not isinstance(outcome, Refused) or outcome.code != str(POSITION_NOT_SEEN_YET_CODE) or not pause:
                break
            time.sleep(pause)
        return outcome

    def _taken(self, order: Order, raw: Mapping[str, Any]) -> Outcome:
        try:
            check_is_ours(order, raw, "clientAlgoId")
            return Done(waiting(raw))
        except UNUSABLE as exc:
            return self._not_this_order(exc)

    # --- endings --------------------------------------------------------------------------------------------------

    def _api_ending(self, exc: BinanceAPIException) -> Refused | Unknown:
        ending = super()._api_ending(exc)
        if not isinstance(ending, Refused):
            return ending
        words = error_text(exc).lower()
        if exc.code == MODE_CODE or (exc.code == NOT_REQUIRED_CODE and any(word in words for word in MODE_WORDS)):
            return self._mode_was_wrong(ending)
        if exc.code == NOTHING_TO_REDUCE_CODE:
            return replace(ending, reason=f"{ending.reason}: look at the position, there is nothing left to close")
        return ending

    def _mode_was_wrong(self, ending: Refused) -> Refused:
        """The owner switched between one-way and hedge mode: the order sent again will fit the mode as it is now."""
        try:
            self._question(self._read_position_mode)
        except BrokerError:
            self._hedge_mode = None  # the next order reads it
        return replace(ending, never_left=True, retry_after_seconds=0)

    def _server_failed(self, exc: BinanceAPIException) -> Refused | Unknown:
        """Of the four meanings of a 503 three say that nothing was placed, and only their texts tell them apart."""
        text = str(exc.message)
        throttled = exc.code == THROTTLED_CODE and text.startswith(THROTTLED_TEXT)
        if exc.status_code == 503 and (text in NOT_PLACED_TEXTS or throttled):
            return Refused(f"{self.name}: {error_text(exc)}", str(exc.code), never_left=True)
        return super()._server_failed(exc)

    # --- how an order stands --------------------------------------------------------------------------------------

    def look_up(self, order: Order) -> LookUp:
        try:
            raw = self._record_of(order)
        except BinanceAPIException as exc:
            return NotFound() if exc.code in NO_SUCH_ORDER_CODES else NoAnswer(self._words(exc))
        except BrokerError as exc:
            return NoAnswer(str(exc))
        try:
            return Found(self._as_it_stands(order, raw))
        except (BinanceAPIException, BrokerError, *UNUSABLE) as exc:
            return NoAnswer(self._words(exc))

    def cancel(self, order: Order) -> LookUp:
        """A reply that says so is believed: the records may go on showing the order as waiting for a moment."""
        try:
            if order.type in KINDS:
                raw = self._ask(self._client.futures_cancel_order, clientAlgoId=order.client_order_id)
                return Found(cancelled_untriggered(order, raw))
            asked = {"symbol": order.symbol, "origClientOrderId": order.client_order_id}
            raw = self._ask(self._client.futures_cancel_order, **asked)
            check_is_ours(order, raw)
            return Found(self._facts(raw))
        except (BinanceAPIException, BrokerError, *UNUSABLE):
            # It may have filled in the meantime, or the reply was lost: how it stands now is what counts.
            return self.look_up(order)

    def _record_of(self, order: Order) -> Any:
        if order.type in KINDS:
            return self._ask(self._client.futures_get_order, clientAlgoId=order.client_order_id)
        return self._ask(self._client.futures_get_order, symbol=order.symbol, origClientOrderId=order.client_order_id)

    def _as_it_stands(self, order: Order, raw: Mapping[str, Any]) -> Execution:
        if order.type not in KINDS:
            check_is_ours(order, raw)
            return self._facts(raw)
        check_is_ours(order, raw, "clientAlgoId")
        order_id = became(raw)
        if not order_id:
            return untriggered(raw)
        # That this one is not found means that the records lag, not that there is no such order.
        real = self._ask(self._client.futures_get_order, symbol=order.symbol, orderId=order_id)
        if real.get("symbol") != order.symbol or str(real.get("orderId")) != order_id:
            raise BadReply("symbol or order id differs")
        return self._facts(real)

    def _facts(self, raw: Mapping[str, Any]) -> Execution:
        """What was executed, by its trades: they name quote and fees, and must add up."""
        executed = unsigned(raw, "executedQty")
        if not executed:
            return execution(raw, ZERO, ())
        try:
            return execution(raw, *sums_of(self._trades_of(raw), executed))
        except (BinanceAPIException, BrokerError, *UNUSABLE):
            quote = self._own_sum(raw)
            if quote is None:
                raise
            # What is held must be known, and protected; what it cost in fees will never be told.
            return replace(execution(raw, quote, ()), note="its trades are not listed: fees unknown")

    def _own_sum(self, raw: Mapping[str, Any]) -> Decimal | None:
        """What a looked-up order says itself that it turned over, once its trades are late."""
        age_ms = self._now_ms() - int(raw.get("updateTime") or raw.get("time") or self._now_ms())
        if "cumQuote" not in raw or age_ms < TRADES_WITHIN_SECONDS * 1000:
            return None
        return unsigned(raw, "cumQuote") or None

    def _trades_of(self, raw: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """https://developers.binance.com/docs/derivatives/usds-margined-futures/trade/rest-api/Account-Trade-List:
        at most 1000, and when no time is named those of seven days."""
        ask, symbol = self._client.futures_account_trades, raw["symbol"]
        trades = listed(self._ask(ask, symbol=symbol, orderId=raw["orderId"], limit=MOST_TRADES_LISTED))
        began_ms = int(raw.get("time", self._now_ms()))
        all_are_listed = len(trades) < MOST_TRADES_LISTED and self._now_ms() - began_ms < TRADES_AT_ONCE_MS
        if all_are_listed or total(trades, "qty") == unsigned(raw, "executedQty"):
            return trades
        since = datetime.fromtimestamp(began_ms / 1000, UTC)
        every = self._every_trade(ask, symbol, since, TRADES_AT_ONCE_MS)
        return [trade for trade in every if trade["orderId"] == raw["orderId"]]

    def _words(self, exc: Exception) -> str:
        if isinstance(exc, BinanceAPIException):
            return f"{self.name}: {error_text(exc)}"
        return str(exc) if isinstance(exc, BrokerError) else f"{self.name} sent nothing usable: {exc}"

    # --- market ---------------------------------------------------------------------------------------------------

    def symbol_rules(self, symbol: str) -> SymbolRules:
        rows = self._contracts(symbol)
        if symbol not in rows:
            raise UnknownSymbol(f"{self.name} has no futures contract {symbol}")
        try:
            return rules_in(rows[symbol])
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable rules for {symbol}: {exc!r}") from exc

    def _contracts(self, symbol: str) -> Mapping[str, Mapping[str, Any]]:
        """Binance sends all of them whatever is asked for, so one answer serves every symbol for a while.

        Each once: who asks again of the same doubts what he was told.
        """
        with self._rows_lock:
            if time.monotonic() >= self._rows_until or symbol in self._rows_told & self._rows.keys():
                info = self._question(self._client.futures_exchange_info)
                try:
                    self._rows = {row["symbol"]: row for row in listed(info["symbols"])}
                except UNUSABLE as exc:
                    raise BrokerError(f"{self.name} sent no usable list of contracts: {exc!r}") from exc
                self._rows_until, self._rows_told = time.monotonic() + RULES_ARE_GOOD_FOR_SECONDS, set()
            self._rows_told.add(symbol)
            return self._rows

    def current_price(self, symbol: str) -> Decimal:
        try:
            return unsigned(self._question(self._client.futures_symbol_ticker, symbol=symbol), "price")
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable price of {symbol}: {exc}") from exc

    def current_prices(self, symbols: Sequence[str]) -> Mapping[str, Decimal]:
        """All prices at once cost as much as two: .../market-data/rest-api/Symbol-Price-Ticker-v2"""
        rows = self._question(self._client.futures_symbol_ticker)
        try:
            prices = {row["symbol"]: unsigned(row, "price") for row in listed(rows) if row["symbol"] in symbols}
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable prices: {exc}") from exc
        missing = set(symbols) - prices.keys()
        if missing:
            raise UnknownSymbol(f"{self.name} has no futures contract {', '.join(sorted(missing))}")
        return prices

    # --- account --------------------------------------------------------------------------------------------------

    def balances(self) -> Mapping[str, Balance]:
        try:
            rows = listed(self._ask(self._client.futures_account_balance))
            held = {str(row["asset"]): balance_in(row) for row in rows}
        except BinanceAPIException as exc:
            raise BrokerError(f"{self.name} refused the account: {error_text(exc)}") from exc
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable balances: {exc!r}") from exc
        return {asset: balance for asset, balance in held.items() if balance != Balance()}

    def positions(self) -> Sequence[HeldThere]:
        rows = self._question(self._client.futures_position_information)
        try:
            return [held for held in map(held_in, listed(rows)) if held.quantity]
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable positions: {exc!r}") from exc

    def trades_since(self, symbol: str, since: datetime) -> Sequence[TradedThere]:
        """Binance tells of at most seven days at once, and of six months in all."""
        try:
            return by_order(
                symbol, self._every_trade(self._client.futures_account_trades, symbol, since, TRADES_AT_ONCE_MS)
            )
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable trades of {symbol}: {exc!r}") from exc

    def open_orders(self) -> Sequence[RestsThere]:
        plain = self._question(self._client.futures_get_open_orders)
        conditional = self._question(self._client.futures_get_open_algo_orders)
        try:
            return [rests_in(row) for row in (*listed(plain), *listed(conditional))]
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable list of open orders: {exc!r}") from exc

    def cancel_stray(self, stray: RestsThere) -> None:
        which = (
            {"clientAlgoId": stray.client_order_id}
            if stray.is_conditional
            else {"symbol": stray.symbol, "origClientOrderId": stray.client_order_id}
        )
        try:
            self._ask(self._client.futures_cancel_order, **which)
        except BinanceAPIException as exc:
            if exc.code not in NO_SUCH_ORDER_CODES:
                raise BrokerError(f"{self.name} did not cancel {stray.client_order_id}: {error_text(exc)}") from exc
