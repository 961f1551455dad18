"""BingX perpetual swap (USDT-M): leverage and position mode, orders, stop and target orders, positions.

https://bingx-api.github.io/docs-v3 Swap. Parameters, replies and codes are in bingx_orders.py, what is shared with spot
in bingx_link.py. Stop and target orders take no id of ours: after a lost reply they are known by what they do.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from bingx_link import DAY_MS, FILL_SECONDS, BingxLink, Ended, either_id, is_over
from bingx_orders import (
    CONDITIONAL,
    MODE_CODE,
    MODE_TEXT,
    MOST_ORDERS_LISTED,
    NOTHING_TO_CLOSE,
    NOTHING_TO_CLOSE_CODES,
    PLAY_MONEY,
    QUANTITY_TEXT,
    BingxError,
    CannotSend,
    check_is_ours,
    has_traded,
    is_only_triggered,
    is_the_one,
    order_in,
    orders_in,
    positions_in,
    rests_in,
    rows_in,
    swap_balances,
    swap_execution,
    swap_parameters,
    swap_prices,
    swap_rules,
    there,
    traded_in,
)
from broker import (
    Balance,
    BrokerError,
    Done,
    Found,
    LookUp,
    NotFound,
    Outcome,
    Refused,
    UnknownSymbol,
    stop_first,
)
from broker_http import Answered
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
    plain,
)
from reply_values import UNUSABLE, BadReply

ORDER_PATH = "/openApi/swap/v2/trade/order"
OPEN_PATH = "/openApi/swap/v2/trade/openOrders"
HISTORY_PATH = "/openApi/swap/v2/trade/allOrders"
POSITIONS_PATH = "/openApi/swap/v2/user/positions"
MODE_PATH = "/openApi/swap/v1/positionSide/dual"
LEVERAGE_PATH = "/openApi/swap/v2/trade/leverage"
MARGIN_PATH = "/openApi/swap/v2/trade/marginType"
BALANCE_PATH = "/openApi/swap/v3/user/balance"
CONTRACTS_PATH = "/openApi/swap/v2/quote/contracts"
PRICE_PATH = "/openApi/swap/v1/ticker/price"

# The reply to an order does not say what it got; five questions a second are allowed.
FILL_PAUSES = (0.05, 0.25, 0.4, 0.6)
# Who gives up after 12 s proves its absence from then on: it must not leave much later.
READY_WITHIN_SECONDS = 2.0
# Of our own stop order, sent by our clock and dated by BingX's.
CLOCK_SLACK_MS = 500
# An order that was declared not placed is looked for 22 minutes longer; by its pace BingX takes 4300 in that time.
MOST_STOPS_KNOWN = 5_000


class KnownStops:
    """Which of BingX's numbers of stop and target orders belong to which of our ids: those that were looked at last.

    What waits there is looked at again and again, and so is what could be taken for one that is in doubt: neither goes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._ids: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._ids)

    def id_of(self, number: str) -> str | None:
        with self._lock:
            if number in self._ids:
                self._ids.move_to_end(number)
            return self._ids.get(number)

    def claim(self, number: str, client_order_id: str) -> None:
        """It stays whose it was known to be."""
        with self._lock:
            self._ids.setdefault(number, client_order_id)
            self._ids.move_to_end(number)
            if len(self._ids) > self._most:
                self._ids.popitem(last=False)


class BingxSwap(BingxLink):
    """One futures account, with one margin type for all symbols."""

    market = Market.FUTURES
    order_path = ORDER_PATH

    def __init__(
        self, api_key: str, api_secret: str, *, demo: bool, api_url: str = "", margin_type: str = "ISOLATED"
    ) -> None:
        """Margin is ISOLATED or CROSSED."""
        super().__init__(api_key, api_secret, demo=demo, api_url=api_url)
        self._margin_type = margin_type
        self._hedge_mode: bool | None = None  # None: not read yet
        self._leverages: dict[str, int] = {}  # of symbols that have our margin type
        self._locks: dict[str, threading.Lock] = {}
        self._stops = KnownStops(MOST_STOPS_KNOWN)
        self._stops_name_quantity = False

    # --- connection -----------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Clock, position mode and keys; leverages are read anew, they may have been changed meanwhile."""
        self._synchronise_clock()
        self._leverages.clear()
        try:
            self._read_position_mode()
        except BingxError as exc:
            raise BrokerError(f"{self.name}: {exc}") from exc
        self.balances()

    def _read_position_mode(self) -> bool:
        """One-way or hedge mode is the account's choice, and orders look different in each. Raises BingxError, too."""
        reply = self._ask("GET", MODE_PATH)
        said = str(reply.get("dualSidePosition")).lower() if isinstance(reply, dict) else ""
        if said not in ("true", "false"):
            raise BrokerError(f"{self.name} does not say whether it is in hedge mode")
        self._hedge_mode = said == "true"
        return self._hedge_mode

    def _in_hedge_mode(self) -> bool:
        return self._read_position_mode() if self._hedge_mode is None else self._hedge_mode

    # --- leverage and margin --------------------------------------------------------------------------------------

    def prepare(self, symbol: str, leverage: Decimal) -> None:
        """Only where nothing is held: whosever it is, its leverage is not ours to change."""
        if any(held.symbol == symbol for held in self._positions(symbol=self._there(symbol))):
            raise BrokerError(f"{symbol} has a position there; its leverage and margin are left as they are")
        try:
            self._set_leverage(symbol, leverage, hedge_mode=self._in_hedge_mode())
        except (BingxError, CannotSend, *UNUSABLE) as exc:
            raise BrokerError(self._not_set(symbol, leverage, exc)) from exc

    def _set_leverage(self, symbol: str, leverage: Decimal, *, hedge_mode: bool) -> None:
        """The first order of a symbol pays for two questions, and for what has to be changed; the others nothing."""
        if leverage != int(leverage) or leverage < 1:
            raise CannotSend("leverage is a whole number from 1 on")
        with self._locks.setdefault(symbol, threading.Lock()):
            if self._leverages.pop(symbol, None) != int(leverage):
                self._change_leverage(there(symbol), int(leverage), ("LONG", "SHORT") if hedge_mode else ("BOTH",))
            # Only now: after an answer that was lost, what is set there has to be read again.
            self._leverages[symbol] = int(leverage)

    def _change_leverage(self, symbol: str, leverage: int, sides: Sequence[str]) -> None:
        if self._ask("GET", MARGIN_PATH, symbol=symbol)["marginType"] != self._margin_type:
            self._ask("POST", MARGIN_PATH, symbol=symbol, marginType=self._margin_type)
        has = self._ask("GET", LEVERAGE_PATH, symbol=symbol)
        if {int(has["longLeverage"]), int(has["shortLeverage"])} != {leverage}:
            for side in sides:
                told = self._ask("POST", LEVERAGE_PATH, symbol=symbol, side=side, leverage=str(leverage))
                if isinstance(told, dict) and int(told.get("leverage", leverage)) != leverage:
                    raise BrokerError(f"it set leverage {told['leverage']} instead")

    def _not_set(self, symbol: str, leverage: Decimal, why: object) -> str:
        return f"{self.name} cannot trade {symbol} with {self._margin_type} margin and leverage {leverage:f}: {why}"

    # --- placing --------------------------------------------------------------------------------------------------

    def place(self, order: Order) -> Outcome:
        refused = self._paused() or self._without_our_ids(order)
        if refused:
            return refused
        began = time.monotonic()
        try:
            hedge_mode = self._in_hedge_mode()
            if order.is_entry:
                self._set_leverage(order.symbol, order.leverage, hedge_mode=hedge_mode)
            if time.monotonic() - began > READY_WITHIN_SECONDS:
                raise BrokerError(f"{self.name} took too long to tell or set leverage and mode")
            parameters = swap_parameters(order, hedge_mode=hedge_mode)
        except CannotSend as exc:
            return Refused(f"not sent to {self.name}: {exc}")
        except BingxError as exc:
            return self._unprepared(order, exc)
        except (BrokerError, *UNUSABLE) as exc:
            return Refused(self._not_set(order.symbol, order.leverage, exc), never_left=True)
        # From here on it may have left: nothing that goes wrong may be told as above.
        return self._placed(order, parameters)

    def protect(self, orders: Sequence[Order]) -> Sequence[Outcome]:
        return stop_first(orders, self.place)

    def _unprepared(self, order: Order, exc: BingxError) -> Refused:
        """The order itself has not left, whatever became of the setting."""
        ending = self._ending(exc, LEVERAGE_PATH)
        if isinstance(ending, Refused) and ending.never_left:
            return ending
        reason = self._not_set(order.symbol, order.leverage, exc)
        return Refused(reason, str(exc.code), never_left=not isinstance(ending, Refused))

    def _placed(self, order: Order, parameters: Mapping[str, str]) -> Outcome:
        try:
            row = order_in(self._taken(order, parameters))
            check_is_ours(order, row)
        except Ended as exc:
            return _without_a_position(order, exc.outcome)
        except UNUSABLE as exc:
            return self._not_this_order(exc)
        taken = Execution(OrderStatus.NEW, str(row["orderId"]))
        self._is_whose(order, row)
        return Done(taken if order.type in CONDITIONAL else self._what_came_of(order, taken))

    def _taken(self, order: Order, parameters: Mapping[str, str]) -> Any:
        """As `_hand_over`. A stop that is refused for want of a quantity was not placed: it is sent again with one."""
        if order.type not in CONDITIONAL:
            return self._hand_over(order, parameters)
        if not self._stops_name_quantity:
            try:
                return self._hand_over(order, parameters)
            except Ended as exc:
                if not (isinstance(exc.outcome, Refused) and QUANTITY_TEXT.search(exc.outcome.reason)):
                    raise
                self._stops_name_quantity = True
        return self._hand_over(order, {**parameters, "quantity": self._held_by(order)})

    def _held_by(self, order: Order) -> str:
        """The quantity of the position that the order closes. Raises Ended: then nothing was placed."""
        try:
            held = self._positions(symbol=there(order.symbol))
        except BrokerError as exc:
            raise Ended(Refused(f"its position is not known: {exc}", never_left=True)) from exc
        for position in held:
            if (position.symbol, position.side) == (order.symbol, order.position_side):
                return plain(position.quantity)
        raise Ended(Refused(f"{self.name}: {NOTHING_TO_CLOSE}", never_left=True))

    def _what_came_of(self, order: Order, taken: Execution) -> Execution:
        """Asked for by our own id, so that we know that it is kept; in the end by BingX's, which we have now."""
        answer: LookUp = NotFound()
        until = time.monotonic() + FILL_SECONDS
        for pause in FILL_PAUSES:
            time.sleep(pause)
            if time.monotonic() > until:
                return taken
            answer = self.look_up(order)
            if isinstance(answer, Found) and (order.type is OrderType.LIMIT or answer.execution.status not in RESTING):
                return answer.execution
        try:
            row = self._row(order, orderId=taken.exchange_order_id)
            known = swap_execution(row, self._asset_of(order))
        except (BingxError, BrokerError, *UNUSABLE):
            return taken  # it is followed by BingX's own id
        if isinstance(answer, NotFound):
            self._did_not_keep(order)
        return known

    def _ending(self, exc: BingxError, path: str, reply: Answered | None = None) -> Any:
        ending = super()._ending(exc, path, reply)
        if isinstance(ending, Refused) and exc.code == MODE_CODE and MODE_TEXT.search(exc.message):
            return self._mode_was_wrong(ending)
        return ending

    def _mode_was_wrong(self, ending: Refused) -> Refused:
        """The owner switched between one-way and hedge mode: the order sent again will fit the mode as it is now."""
        self._leverages.clear()
        try:
            self._read_position_mode()
        except (BrokerError, BingxError):
            self._hedge_mode = None  # the next order reads it
        return Refused(ending.reason, ending.code, never_left=True, retry_after_seconds=0)

    # --- how an order stands --------------------------------------------------------------------------------------

    def _standing(self, order: Order) -> LookUp:
        if order.exchange_order_id:
            row = self._row(order, orderId=order.exchange_order_id)
            self._is_whose(order, row)
            row = self._triggered_by(row) if is_only_triggered(row) else row
        elif order.type in CONDITIONAL:
            return self._looked_for(order)
        else:
            row = self._row(order, clientOrderId=order.client_order_id)
        return Found(swap_execution(row, self._asset_of(order)))

    def _triggered_by(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The order that a stop has become, where BingX made a new one of it. Raises BadReply until it is listed.

        It was made when the stop was triggered, which may be weeks after the stop was placed.
        """
        mine, symbol = str(row["orderId"]), str(row["symbol"])
        placed, changed = int(row["time"]), int(row.get("updateTime") or 0)
        for since in dict.fromkeys((max(placed, changed - CLOCK_SLACK_MS), self._now_ms() - 7 * DAY_MS)):
            for other in self._ended(symbol, since):
                if str(other.get("triggerOrderId")) == mine != str(other["orderId"]):
                    return other
        raise BadReply("triggered, and what it did is not listed yet")

    def _asset_of(self, order: Order) -> str:
        return order.rules.quote_asset or self._margin_asset(there(order.symbol))

    def _margin_asset(self, name: str) -> str:
        return PLAY_MONEY if self.demo else name.rpartition("-")[2]

    def _row(self, order: Order, **by: str) -> Mapping[str, Any]:
        row = order_in(self._ask("GET", ORDER_PATH, symbol=there(order.symbol), **by))
        check_is_ours(order, row)
        if "orderId" in by and str(row["orderId"]) != by["orderId"]:
            raise BrokerError(f"{self.name} told of another order")
        return row

    def _looked_for(self, order: Order) -> LookUp:
        """A stop or target order whose reply was lost: among what waits, then among what ended since it was sent.

        BingX keeps at most one of a kind for a position, so one that does the same is as good as ours; unless it is
        another of ours, which was sent when this one was thought not to have arrived.
        """
        hedge_mode, symbol = self._in_hedge_mode(), there(order.symbol)

        def is_it(row: Mapping[str, Any]) -> bool:
            same = is_the_one(order, row, hedge_mode=hedge_mode)
            return same and self._stops.id_of(str(row["orderId"])) in (None, order.client_order_id)

        found = [row for row in orders_in(self._ask("GET", OPEN_PATH, symbol=symbol)) if is_it(row)]
        if not found:
            sent_at = order.sent_at or order.created_at
            since = int(sent_at.timestamp() * 1000 + self._offset_ms) - CLOCK_SLACK_MS
            ended = [row for row in self._ended(symbol, since) if int(row["time"]) >= since]
            found = [row for row in ended if is_it(row)]
        if not found:
            return NotFound()
        newest = max(found, key=lambda row: int(row["time"]))
        self._is_whose(order, newest)
        newest = self._triggered_by(newest) if is_only_triggered(newest) else newest
        return Found(swap_execution(newest, self._asset_of(order)))

    def _is_whose(self, order: Order, row: Mapping[str, Any]) -> None:
        if order.type in CONDITIONAL:
            self._stops.claim(str(row["orderId"]), order.client_order_id)

    def _ended(self, symbol: str, since_ms: int) -> list[Mapping[str, Any]]:
        """Orders of the symbol that were made in the week from then on and have ended."""

        def ask(start: int, end: int) -> list[Mapping[str, Any]]:
            span = {"startTime": str(start), "endTime": str(end), "limit": str(MOST_ORDERS_LISTED)}
            return orders_in(self._ask("GET", HISTORY_PATH, symbol=symbol, **span))

        end = min(self._now_ms(), since_ms + 7 * DAY_MS)
        return self._every_row(ask, since_ms, max(end, since_ms + 1), MOST_ORDERS_LISTED)

    def cancel(self, order: Order) -> LookUp:
        """A reply that says so is believed unless a look tells more; else how it stands now is what counts: it may have
        filled meanwhile."""
        by = either_id(order)
        if order.type in CONDITIONAL and not order.exchange_order_id:
            answer = self.look_up(order)
            if not isinstance(answer, Found) or answer.execution.status not in RESTING:
                return answer
            by = {"orderId": answer.execution.exchange_order_id}
        try:
            row = order_in(self._ask("DELETE", ORDER_PATH, symbol=there(order.symbol), **by))
            check_is_ours(order, row)
            told = Found(swap_execution(row, self._asset_of(order)))
        except (BingxError, BrokerError, CannotSend, *UNUSABLE):
            return self.look_up(order)
        # Of what fills in parts, one more may have come after that reply was made up.
        later = told if order.type in CONDITIONAL else self.look_up(order)
        return later if isinstance(later, Found) and later.execution.status not in RESTING else told

    # --- market ---------------------------------------------------------------------------------------------------

    def symbol_rules(self, symbol: str) -> SymbolRules:
        name = self._there(symbol)
        try:
            rows = rows_in(self._public(CONTRACTS_PATH, symbol=name))
            return swap_rules(next(row for row in rows if row["symbol"] == name), demo=self.demo)
        except StopIteration:
            raise UnknownSymbol(f"{self.name} has no contract {name}") from None
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable rules for {symbol}: {exc!r}") from exc

    def current_price(self, symbol: str) -> Decimal:
        return self.current_prices([symbol])[symbol]

    def current_prices(self, symbols: Sequence[str]) -> Mapping[str, Decimal]:
        """Of one symbol, or of all that there are."""
        one = {"symbol": self._there(symbols[0])} if len(symbols) == 1 else {}
        try:
            prices = swap_prices(self._public(PRICE_PATH, **one), symbols)
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable prices: {exc!r}") from exc
        missing = set(symbols) - prices.keys()
        if missing:
            raise UnknownSymbol(f"{self.name} has no contract {', '.join(sorted(missing))}")
        return {symbol: prices[symbol] for symbol in symbols}

    # --- account --------------------------------------------------------------------------------------------------

    def balances(self) -> Mapping[str, Balance]:
        try:
            return swap_balances(rows_in(self._question(BALANCE_PATH)), demo=self.demo)
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable balances: {exc!r}") from exc

    def positions(self) -> Sequence[HeldThere]:
        return self._positions()

    def _positions(self, **of: str) -> Sequence[HeldThere]:
        try:
            return positions_in(rows_in(self._question(POSITIONS_PATH, **of)))
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable positions: {exc!r}") from exc

    def trades_since(self, symbol: str, since: datetime) -> Sequence[TradedThere]:
        """By orders. Those made up to a week before are asked for, too: they may have traded only now."""
        name, now_ms = self._there(symbol), self._now_ms()
        since_ms = int(since.timestamp() * 1000)
        found: dict[str, Mapping[str, Any]] = {}
        try:
            start = since_ms - 7 * DAY_MS
            while start <= now_ms:
                found |= {str(row["orderId"]): row for row in self._ended(name, start)}
                start += 7 * DAY_MS
            traded = [traded_in(row, self._margin_asset(name)) for row in found.values() if has_traded(row)]
        except BingxError as exc:
            raise BrokerError(f"{self.name}: {exc}") from exc
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable orders of {symbol}: {exc!r}") from exc
        return sorted((each for each in traded if each.last_at >= since), key=lambda each: each.last_at)

    def open_orders(self) -> Sequence[RestsThere]:
        """Stop and target orders are listed without an id of ours, so that nobody takes them for left over."""
        try:
            return [rests_in(row) for row in orders_in(self._question(OPEN_PATH))]
        except UNUSABLE as exc:
            raise BrokerError(f"{self.name} sent no usable list of open orders: {exc!r}") from exc

    def cancel_stray(self, stray: RestsThere) -> None:
        try:
            self._ask("DELETE", ORDER_PATH, symbol=self._there(stray.symbol), clientOrderID=stray.client_order_id)
        except BingxError as exc:
            if not is_over(exc):
                raise BrokerError(f"{self.name} did not cancel {stray.client_order_id}: {exc}") from exc


def _without_a_position(order: Order, outcome: Outcome) -> Outcome:
    """A stop is refused while BingX does not see the position yet, or once somebody has closed it: no reason to close
    what is held, as for a stop that is refused for good, but to look again in a moment."""
    if order.type in CONDITIONAL and isinstance(outcome, Refused) and outcome.code in map(str, NOTHING_TO_CLOSE_CODES):
        return replace(outcome, never_left=True)
    return outcome
