"""FlatTrade: Indian shares, through PiConnectAPI. The one place that knows which of its answers mean what for an order.

https://pi.flattrade.in/docs (V2). There are no codes, no look-up by our id and no market orders: texts are read, the
order book is searched for our tag, and a market alert becomes a limit order that the market reaches.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

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
from flattrade_link import NAME, SECONDS, FlatTradeLink, NeverLeft, NotOk, Silent, one_asks
from flattrade_orders import (
    DELIVERY,
    INR,
    IST,
    STATUSES,
    CannotSend,
    Meaning,
    Quote,
    Row,
    could_be,
    execution_of,
    free_money,
    is_tag,
    is_undecided,
    marketable,
    of_another_day,
    order_parameters,
    quote_of,
    rules_of,
    scrip_of,
    shares_held,
    symbol_of,
    trades_of,
)
from flattrade_token import FlatTradeLogin, SessionOver, next_clearing
from models import (
    ENDINGS,
    RESTING,
    Account,
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
from reply_values import UNUSABLE, BadReply

# Prices that are only watched leave so many of a minute's questions to those that an order waits for.
KEPT_FOR_ORDERS = 50
# Looks at the account leave so many: a way out needs its quote, its history and its tag, and no balance.
KEPT_FOR_WAYS_OUT = 20
# The account is asked every three seconds and needs two questions each time; holdings change once a day, and by orders.
HOLDINGS_SECONDS = 60.0
# A price that was asked for so lately need not be asked for again before an order leaves.
QUOTE_SECONDS = 2.0
# Before the sender is answered, the exchange gets so many moments to say whether it takes the order.
LOOKS_AFTER_PLACING = (0.03, 0.12, 0.3, 0.5)
# Orders that wait, or are in doubt, are looked for in one list of them all: a list for each would use up a minute's
# questions. Two looks for the same order are further apart.
BOOK_SECONDS = 1.5
RATE_PAUSE_SECONDS = 1.0


class Seen(NamedTuple):
    quote: Quote
    at: float  # time.monotonic()


class FlatTradeClient(FlatTradeLink):
    """One account. Safe to use from several threads; never sends an order twice."""

    name = NAME
    account = Account(NAME, Market.SPOT)
    is_local = False
    # No window that a request carries bounds how late FlatTrade may write an order down. Our request ends after 10 s;
    # what stands between (a load balancer gives up after 60 s as a rule) may still hand it on until then. Once written
    # down it is in the order book, which is the order system's own list: 5 s for that.
    absence_is_proven_after_seconds: float = SECONDS + 60.0 + 5.0
    clock_problem = ""

    def __init__(self, login: FlatTradeLogin, client_id: str, clock: Callable[[], datetime], api_url: str = "") -> None:
        super().__init__(login, client_id, api_url)
        self._clock = clock
        self._tokens: dict[str, str] = {}  # symbol -> FlatTrade's number of it
        self._seen: dict[str, Seen] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._holdings: tuple[float, Sequence[Row]] | None = None
        self._listed: tuple[float, Sequence[Row]] | None = None
        self._list_lock = threading.Lock()

    # --- the Broker protocol ----------------------------------------------------------------------------------------

    @property
    def pause_seconds(self) -> float:
        """FlatTrade asks for none: what is over its limits is refused, and counted by `Pace` before it leaves."""
        return 0.0

    def connect(self) -> None:
        self.balances()

    def keep_warm(self) -> None:
        """The account's own questions keep connections open; each costs one of few."""

    def prepare(self, symbol: str, leverage: Decimal) -> None:
        """Shares are paid in full."""

    def place(self, order: Order) -> Outcome:
        """In one total time: who waits gives it up after that, and begins to prove that it is not there."""
        until = time.monotonic() + self.seconds
        try:
            parameters = order_parameters(order, self._client_id, self._limit_price(order))
            number = self._placed(parameters, until - time.monotonic())
        except (CannotSend, UnknownSymbol, SessionOver) as exc:
            return Refused(str(exc))
        except NeverLeft as exc:
            return Refused(str(exc), never_left=True, retry_after_seconds=exc.wait)
        except NotOk as exc:
            return _ending(exc)
        except BrokerError as exc:
            return Unknown(str(exc))
        try:
            return Done(self._followed(order, number, until))
        finally:
            self._holdings = None

    def protect(self, orders: Sequence[Order]) -> Sequence[Outcome]:
        return [Refused(f"{NAME} takes no {order.type} orders in this version") for order in orders]

    def look_up(self, order: Order) -> LookUp:
        try:
            return self._by_number(order) if order.exchange_order_id else self._by_tag(order)
        except SessionOver as exc:
            return NoAnswer(str(exc), for_long=True)
        except (BrokerError, *UNUSABLE) as exc:
            return NoAnswer(f"{NAME}: {exc}")

    def cancel(self, order: Order) -> LookUp:
        answer, number = self.look_up(order), order.exchange_order_id
        if isinstance(answer, Found):
            number = answer.execution.exchange_order_id
        if not number or (isinstance(answer, Found) and answer.execution.status in ENDINGS):
            return answer
        try:
            self._cancel(number)
        except BrokerError:
            # It may have filled in the meantime, or the reply was lost: how it stands now is what counts.
            pass
        return self.look_up(order)

    def symbol_rules(self, symbol: str) -> SymbolRules:
        return rules_of(symbol, self._quote(symbol))

    def current_price(self, symbol: str) -> Decimal:
        last = self._quote(symbol).last
        if not last:
            raise BrokerError(f"{NAME} knows no price of {symbol}: nothing was traded today")
        return last

    def current_prices(self, symbols: Sequence[str]) -> Mapping[str, Decimal]:
        """One question each: as many as there are to spare. The others are asked for when an alert needs them."""
        found: dict[str, Decimal] = {}
        for symbol in symbols:
            try:
                last = self._quote(symbol, kept=KEPT_FOR_ORDERS).last
            except (SessionOver, Silent):
                raise
            except NeverLeft:
                break
            except BrokerError:
                continue  # of this share alone there is no price
            if last:
                found[symbol] = last
        return found

    def balances(self) -> Mapping[str, Balance]:
        who = {"uid": self._client_id, "actid": self._client_id}
        try:
            money = free_money(self._ask("Limits", who, KEPT_FOR_WAYS_OUT))
            shares = shares_held(self._held_in_depository(), self._list("PositionBook", who, KEPT_FOR_WAYS_OUT))
        except UNUSABLE as exc:
            raise BrokerError(f"{NAME} sent no usable balances: {exc!r}") from exc
        return {INR: Balance(money)} | {share: Balance(quantity) for share, quantity in shares.items()}

    def positions(self) -> Sequence[HeldThere]:
        """Shares are held as balances."""
        return ()

    def trades_since(self, symbol: str, since: datetime) -> Sequence[TradedThere]:
        """FlatTrade lists the trades of its own day only."""
        try:
            who = {"uid": self._client_id, "actid": self._client_id}
            rows = self._list("TradeBook", who, KEPT_FOR_WAYS_OUT)
            return trades_of(symbol, rows, since)
        except UNUSABLE as exc:
            raise BrokerError(f"{NAME} sent no usable trades of {symbol}: {exc!r}") from exc

    def open_orders(self) -> Sequence[RestsThere]:
        try:
            return [
                RestsThere(symbol_of(row), str(row.get("remarks") or ""), False)
                for row in self._book(KEPT_FOR_WAYS_OUT)
                if STATUSES.get(str(row["status"]).upper()) is OrderStatus.NEW
            ]
        except UNUSABLE as exc:
            raise BrokerError(f"{NAME} sent no usable list of open orders: {exc!r}") from exc

    def cancel_stray(self, stray: RestsThere) -> None:
        rows = [row for row in self._book() if row.get("remarks") == stray.client_order_id]
        for row in rows:
            try:
                self._cancel(str(row["norenordno"]))
            except NotOk as exc:
                if exc.meaning is not Meaning.EMPTY:
                    raise

    # --- orders -----------------------------------------------------------------------------------------------------

    def _limit_price(self, order: Order) -> Decimal:
        """Raises CannotSend, and NeverLeft where FlatTrade did not tell a price: nothing is sent without one."""
        if order.type is OrderType.LIMIT and order.price is not None:
            return order.price
        if order.type is not OrderType.MARKET:
            raise CannotSend(f"{NAME} takes no {order.type} orders in this version")
        try:
            return marketable(order.side, self._quote(order.symbol))
        except (UnknownSymbol, SessionOver):
            raise
        except BrokerError as exc:
            wait = exc.wait if isinstance(exc, NeverLeft) else 0.0
            raise NeverLeft(f"no quote to make a limit price of: {exc}", wait) from exc

    def _placed(self, parameters: Mapping[str, str], seconds: float) -> str:
        """The order's number. Raises BrokerError."""
        if seconds <= 0:
            raise NeverLeft("the quote to make a limit price of took too long")
        try:
            reply = self._request("PlaceOrder", parameters, self._orders, seconds=seconds)
        finally:
            self._listed = None
        number = reply.get("norenordno") if isinstance(reply, dict) else None
        if not isinstance(number, str) or not re.fullmatch(r"[0-9]{1,30}", number):
            raise BrokerError(f"{NAME} took the order and told no number of it")
        return number

    def _followed(self, order: Order, number: str, until: float) -> Execution:
        """Written down is not taken: how the exchange sees it, or that it has not said so yet."""
        told = Execution(OrderStatus.NEW, number, note="the exchange has not answered yet")
        for pause in LOOKS_AFTER_PLACING:
            time.sleep(pause)
            if time.monotonic() >= until:
                break
            try:
                rows = self._history(number)
                if rows:
                    told = execution_of(order, rows)
                    # A market order ends in a moment; a limit order is where it should be as soon as it is taken.
                    if told.status in ENDINGS or (order.type is OrderType.LIMIT and not is_undecided(rows)):
                        return told
            except (BrokerError, *UNUSABLE):
                continue
        return told

    def _by_number(self, order: Order) -> LookUp:
        """Raises BrokerError, BadReply."""
        number = order.exchange_order_id
        rows = self._in_book(number, self._lately_listed()) if order.status in RESTING else ()
        # What has no history for a moment, but is in the book, has not ended.
        rows = rows or self._history(number) or self._in_book(number, self._book())
        if rows:
            return Found(execution_of(order, rows))
        return NotFound() if self._is_of_today(order) else Found(of_another_day(order, _day_of(order)))

    def _by_tag(self, order: Order) -> LookUp:
        """Raises BrokerError, BadReply. The order book is that of the day: of another one it proves nothing."""
        book = self._lately_listed()
        rows = [row for row in book if is_tag(row.get("remarks"), order.client_order_id)]
        if len({row.get("norenordno") for row in rows}) > 1:
            raise BadReply(f"several orders bear {order.client_order_id}")
        if rows:
            return Found(execution_of(order, rows))
        if not self._is_of_today(order):
            why = f"{NAME} lists no orders of {_day_of(order)} any more, only its reports tell of it"
            return NoAnswer(why, for_long=True, for_good=True)
        alike = ", ".join(str(row.get("norenordno")) for row in book if could_be(order, row))
        if alike:
            return NoAnswer(f"{NAME} lists one like it without our tag: {alike}; look there whose it is", for_long=True)
        return NotFound()

    def _in_book(self, number: str, book: Sequence[Row]) -> Sequence[Row]:
        return [row for row in book if row.get("norenordno") == number]

    def _is_of_today(self, order: Order) -> bool:
        """On the same date, and since FlatTrade cleared its lists in the morning."""
        sent_at, now = order.sent_at or order.created_at, self._clock()
        return sent_at.astimezone(IST).date() == now.astimezone(IST).date() and now < next_clearing(sent_at)

    def _lately_listed(self) -> Sequence[Row]:
        with one_asks(self._list_lock, self.seconds):
            known = self._listed
            if known is None or time.monotonic() - known[0] >= BOOK_SECONDS:
                at = time.monotonic()
                known = self._listed = (at, self._book())
            return known[1]

    def _history(self, number: str) -> Sequence[Row]:
        return self._list("SingleOrdHist", {"uid": self._client_id, "norenordno": number})

    def _book(self, kept: int = 0) -> Sequence[Row]:
        return self._list("OrderBook", {"uid": self._client_id}, kept)

    def _cancel(self, number: str) -> None:
        try:
            self._request("CancelOrder", {"uid": self._client_id, "norenordno": number}, self._orders)
        finally:
            self._listed = None

    # --- shares and prices ------------------------------------------------------------------------------------------

    def _held_in_depository(self) -> Sequence[Row]:
        known, now = self._holdings, time.monotonic()
        if known is not None and now - known[0] < HOLDINGS_SECONDS:
            return known[1]
        who = {"uid": self._client_id, "actid": self._client_id, "prd": DELIVERY}
        rows = self._list("Holdings", who, KEPT_FOR_WAYS_OUT)
        self._holdings = (now, rows)
        return rows

    def _quote(self, symbol: str, kept: int = 0) -> Quote:
        """At most two seconds old. Raises UnknownSymbol or BrokerError.

        Rules and price of a new symbol are asked for at the same moment, and both are in one answer: one asks.
        """
        with one_asks(self._locks.setdefault(symbol, threading.Lock()), self.seconds):
            known = self._seen.get(symbol)
            if known is not None and time.monotonic() - known.at < QUOTE_SECONDS:
                return known.quote
            return self._asked_quote(symbol, kept)

    def _asked_quote(self, symbol: str, kept: int) -> Quote:
        exch, tsym = scrip_of(symbol)
        token = self._tokens.get(symbol) or self._token_of(symbol)
        at = time.monotonic()
        row = self._ask("GetQuotes", {"uid": self._client_id, "exch": exch, "token": token}, kept)
        try:
            if (row["exch"], str(row["tsym"]), str(row["token"])) != (exch, tsym, token):
                self._tokens.pop(symbol, None)
                raise BadReply("it is another share's")
            quote = quote_of(row)
        except UNUSABLE as exc:
            raise BrokerError(f"{NAME} sent no usable quote of {symbol}: {exc}") from exc
        self._seen[symbol] = Seen(quote, at)
        return quote

    def _token_of(self, symbol: str) -> str:
        """The search finds whatever contains the text: only the very same name counts."""
        exch, tsym = scrip_of(symbol)
        # Encoded as in an order: a bare "&" would end the request's JSON.
        asked = {"uid": self._client_id, "stext": _encoded(tsym), "exch": exch}
        try:
            rows = self._ask("SearchScrip", asked)["values"]
            found = [str(row["token"]) for row in rows if (row["exch"], row["tsym"]) == (exch, tsym)]
        except NotOk as exc:
            if exc.meaning is not Meaning.EMPTY:
                raise
            found = []
        except UNUSABLE as exc:
            raise BrokerError(f"{NAME} sent no usable list of shares: {exc!r}") from exc
        if not found:
            series = "a hyphenated name needs its series, as in BAJAJ-AUTO-EQ"
            raise UnknownSymbol(f"{NAME} knows no {tsym} on {exch}; {series}")
        self._tokens[symbol] = found[0]
        return found[0]


def _ending(exc: NotOk) -> Outcome:
    # A token that died just when another one was given: it was not judged either.
    if exc.meaning in (Meaning.RATE, Meaning.EXPIRED):
        return Refused(str(exc), never_left=True, retry_after_seconds=RATE_PAUSE_SECONDS)
    return Refused(str(exc)) if exc.meaning is Meaning.REFUSED else Unknown(str(exc))


def _day_of(order: Order) -> str:
    return f"{(order.sent_at or order.created_at).astimezone(IST):%Y-%m-%d}"


def _encoded(tsym: str) -> str:
    return tsym.replace("&", "%26")
