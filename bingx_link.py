"""What BingX's swap and spot have in common: signing, the clock, pauses, and how a call that could trade ended.

One link is one account on one BingX server. What the codes mean is in bingx_orders.py; the markets are in
bingx_client.py (swap) and bingx_spot.py.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from bingx_orders import (
    BUSY_CODES,
    CLOCK_CODES,
    CLOCK_TEXT,
    DUPLICATE_TEXT,
    NO_SUCH_ORDER_CODES,
    NO_SUCH_ORDER_TEXT,
    NO_SUCH_SYMBOL_TEXT,
    NOTHING_TO_CLOSE_CODES,
    OVER_TEXT,
    RATE_CODES,
    REFUSED_CODES,
    BingxError,
    CannotSend,
    data_of,
    free_again_ms,
    query_of,
    there,
)
from broker import BrokerError, LookUp, NoAnswer, NotFound, Outcome, Refused, Unknown, UnknownSymbol
from broker_http import Answered, Http, Lost, NeverSent, Reply
from clocks import compare_clocks
from models import Account, Market, Order
from reply_values import UNUSABLE, BadReply

LIVE_URL = "https://open-api.bingx.com"
DEMO_URL = "https://open-api-vst.bingx.com"
DAY_MS = 86_400_000

# A request is good for 5 s by the server's clock (recvWindow, by default). How long an order that was taken in can be
# under way inside, BingX says nowhere; its gateway gives up with a 504. So 20 s for that, and 5 s for its records.
WINDOW_SECONDS = 5
INSIDE_SECONDS = 20
RECORDS_LAG_SECONDS = 5

ASK_SECONDS = 5.0
ORDER_SECONDS = 9.0
# Whoever waits for an order gives up after 12 s: sooner than that it is told as taken, by its number, and followed.
FILL_SECONDS = 3.0
# https://bingx-api.github.io/docs-v3 Basic Information: "rate-limit the requests and restore after 5 minutes". Each
# endpoint has its limit by itself, so one that is closed does not keep orders from leaving on another.
PAUSE_SECONDS = 300.0
# What the documentation allows one account in a second, endpoint by endpoint; half a second more, as some take longer
# on their way than others: six that arrive within one second close the endpoint for five minutes.
PACE_SECONDS = 1.5
# Where its documents differ (docs-v3 and BingX-API/api-ai-skills, of April 2026), the smaller number.
PACE_SPOT, PACE_SWAP, PACE_SETTINGS = 10, 5, 2
SETTINGS_PATHS = ("/openApi/swap/v2/trade/marginType", "/openApi/swap/v1/positionSide/dual")
SLOWER_ON_SPOT = tuple(f"/openApi/spot/v1/{path}" for path in ("account/balance", "trade/cancel", "trade/myTrades"))
LONGEST_PAUSE_SECONDS = 86_400.0
LONGEST_TURN_SECONDS = 4.0
# Longer than ways in can make the queue; with the answer it is more than anybody waits, who then looks the order up.
LONGEST_TURN_OUT_SECONDS = 8.0
CLOSED_STATUSES = (418, 429)
TIME_PATH = "/openApi/swap/v2/server/time"
FILLED_OR_GONE_CODE = 80018

log = logging.getLogger("gatehouse.bingx")


class Pace:
    """At most so many calls in a second: who comes when they are used up waits for his turn.

    A burst of alerts would otherwise close the endpoint for five minutes, for the ways out, too.
    """

    def __init__(self, calls: int, began: float) -> None:
        """`began`: when this process did. The one before it, which crashed, may have used all calls but one."""
        self._times: deque[float] = deque([0.0] + [began] * (calls - 1), maxlen=calls)
        self._lock = threading.Lock()

    def wait(self, longest_seconds: float) -> bool:
        """False, at once, when the turn would come later than that."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._times[0] + PACE_SECONDS)
            if turn - now > longest_seconds:
                return False
            self._times.append(turn)
        time.sleep(turn - now)
        return True


class Ended(Exception):
    """The order that was handed over has an ending that is no acceptance."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome


class BingxLink:
    """Safe to use from several threads; never sends an order twice."""

    is_local = False
    absence_is_proven_after_seconds: float = WINDOW_SECONDS + INSIDE_SECONDS + RECORDS_LAG_SECONDS

    market: ClassVar[Market]
    order_path: ClassVar[str]

    def __init__(self, api_key: str, api_secret: str, *, demo: bool, api_url: str = "") -> None:
        """`api_url` replaces BingX's own server, e.g. `http://127.0.0.1:9001`."""
        self.name = "BINGX"
        self.demo = demo
        self._key, self._secret = api_key, api_secret
        self._http = Http(api_url or (DEMO_URL if demo else LIVE_URL), hidden=(api_key, api_secret))
        self._quiet_until: dict[str, float] = {}  # by path; "" is all of them
        self._paces: dict[str, Pace] = {}
        self._began = time.monotonic()
        self.on_pause: Callable[[float, str], None] = lambda seconds, path: None
        self._offset_ms = 0.0
        self.clock_problem = ""
        self._clock_lock = threading.Lock()
        self._keeps_our_ids = True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    @property
    def account(self) -> Account:
        return Account(self.name, self.market)

    def keep_warm(self) -> None:
        self._synchronise_clock()

    # --- asking ---------------------------------------------------------------------------------------------------

    def _ask(self, method: str, path: str, **parameters: str) -> Any:
        """A signed request that trades nothing. Raises BingxError for BingX's errors, BrokerError for the rest."""
        # Signed when its turn has come: what waited for it would be too old.
        return self._answer_to(method, path, lambda: self._signed(parameters))

    def _question(self, path: str, **parameters: str) -> Any:
        """A signed GET, with BingX's errors told as BrokerError, too."""
        try:
            return self._ask("GET", path, **parameters)
        except BingxError as exc:
            raise BrokerError(f"{self.name}: {exc}") from exc

    def _public(self, path: str, **parameters: str) -> Any:
        """What anyone may ask. Raises UnknownSymbol or another BrokerError."""
        try:
            return self._answer_to("GET", path, lambda: query_of(parameters))
        except BingxError as exc:
            if NO_SUCH_SYMBOL_TEXT.search(exc.message) and exc.code not in BUSY_CODES and exc.status < 500:
                raise UnknownSymbol(f"{self.name}: {exc}") from exc
            raise BrokerError(f"{self.name}: {exc}") from exc

    def _signed(self, parameters: Mapping[str, str]) -> str:
        return query_of({**parameters, "timestamp": str(self._now_ms())}, self._secret)

    def _answer_to(self, method: str, path: str, query: Callable[[], str]) -> Any:
        wait = self._quiet_for(path)
        if wait:
            raise BrokerError(f"{self.name} asked for a pause of {wait:.0f} s more")
        if not self._pace_of(method, path).wait(LONGEST_TURN_SECONDS):
            raise BrokerError(f"{self.name} is asked too much at once")
        reply = self._send(method, path, query(), ASK_SECONDS)
        if not isinstance(reply, Answered):
            raise BrokerError(f"{self.name} did not answer: {reply.reason}")
        try:
            return data_of(reply.body, reply.status)
        except BingxError as exc:
            self._heed(path, reply, exc.code, exc.message)
            raise
        except BadReply as exc:
            self._heed(path, reply)
            raise BrokerError(f"{self.name} sent nothing usable: {exc}") from exc

    def _send(self, method: str, path: str, query: str, seconds: float) -> Reply:
        target = f"{path}?{query}" if query else path
        return self._http.ask(method, target, seconds=seconds, headers={"X-BX-APIKEY": self._key})

    def _pace_of(self, method: str, path: str) -> Pace:
        is_slow = "/swap/" in path or path in SLOWER_ON_SPOT
        calls = PACE_SETTINGS if path in SETTINGS_PATHS else PACE_SWAP if is_slow else PACE_SPOT
        return self._paces.setdefault(f"{method} {path}", Pace(calls, self._began))

    def _every_row(
        self, ask: Callable[[int, int], list[Mapping[str, Any]]], start_ms: int, end_ms: int, most: int
    ) -> list[Mapping[str, Any]]:
        """All rows of a list that shows at most so many at once: a span that is full is asked for in halves."""
        rows = ask(start_ms, end_ms)
        if len(rows) < most:
            return rows
        if end_ms - start_ms < 2:
            raise BadReply("more in a millisecond than it lists")
        middle = (start_ms + end_ms) // 2
        return self._every_row(ask, start_ms, middle, most) + self._every_row(ask, middle + 1, end_ms, most)

    def _there(self, symbol: str) -> str:
        """Raises UnknownSymbol."""
        try:
            return there(symbol)
        except CannotSend as exc:
            raise UnknownSymbol(f"{self.name}: {exc}") from exc

    # --- endings --------------------------------------------------------------------------------------------------

    def _hand_over(self, order: Order, parameters: Mapping[str, str]) -> Any:
        """The order, once: what was answered when it was taken. Raises Ended, or BadReply."""
        # Protection is handed over one by one within one time, and tried again soon: it queues as ways in do.
        is_way_out = not order.is_entry and not order.is_protection
        longest = LONGEST_TURN_OUT_SECONDS if is_way_out else LONGEST_TURN_SECONDS
        if not self._pace_of("POST", self.order_path).wait(longest):
            raise Ended(Refused(f"too many orders at once for {self.name}", never_left=True, retry_after_seconds=1))
        reply = self._send("POST", self.order_path, self._signed(parameters), ORDER_SECONDS)
        if isinstance(reply, NeverSent):
            raise Ended(Refused(f"no connection to {self.name}: {reply.reason}", never_left=True))
        if isinstance(reply, Lost):
            # "No answer" is not "no order".
            raise Ended(Unknown(f"{self.name} gave no usable answer: {reply.reason}"))
        try:
            return data_of(reply.body, reply.status)
        except BingxError as exc:
            raise Ended(self._ending(exc, self.order_path, reply)) from exc
        except BadReply:
            if reply.status in CLOSED_STATUSES:
                raise Ended(self._closed(f"HTTP {reply.status}", self._heed(self.order_path, reply))) from None
            raise

    def _ending(self, exc: BingxError, path: str, reply: Answered | None = None) -> Refused | Unknown:
        """What BingX's word says about an order that it refused."""
        if exc.status in CLOSED_STATUSES or (exc.code in RATE_CODES and exc.status < 500):
            return self._closed(str(exc), self._heed(path, reply, exc.code, exc.message))
        if not 200 <= exc.status < 500:
            return Unknown(f"{self.name} answered HTTP {exc.status}: {exc}")
        if exc.code in CLOCK_CODES and CLOCK_TEXT.search(exc.message):
            return self._clock_was_wrong(exc)
        # Refused because it is there already: that is a reason to look, not a refusal.
        if exc.code in REFUSED_CODES and not DUPLICATE_TEXT.search(exc.message):
            why = NOTHING_TO_CLOSE_CODES.get(exc.code)
            hint = f": look at the position, {why}" if why else ""
            return Refused(f"{self.name} refused: {exc}{hint}", str(exc.code))
        return Unknown(f"{self.name} answered: {exc}")

    def _closed(self, text: str, seconds: float) -> Refused:
        return Refused(f"{self.name}: {text}", never_left=True, retry_after_seconds=seconds)

    def _clock_was_wrong(self, exc: BingxError) -> Refused:
        try:
            self._synchronise_clock()
        except BrokerError:
            pass
        return Refused(f"{self.name}: {exc}", str(exc.code), never_left=True, retry_after_seconds=0)

    def _not_this_order(self, exc: Exception) -> Unknown:
        return Unknown(f"{self.name} answered with something that is not this order: {exc}")

    # --- how an order stands ----------------------------------------------------------------------------------------

    def look_up(self, order: Order) -> LookUp:
        try:
            return self._standing(order)
        except BingxError as exc:
            return NotFound() if is_no_such_order(exc) else NoAnswer(f"{self.name}: {exc}")
        except (BrokerError, CannotSend) as exc:
            return NoAnswer(str(exc))
        except UNUSABLE as exc:
            return NoAnswer(f"{self.name} sent nothing usable: {exc}")

    def _standing(self, order: Order) -> LookUp:
        """By BingX's number where it is known. Raises what asking and what reading a reply raise."""
        raise NotImplementedError

    # --- our own ids ----------------------------------------------------------------------------------------------

    def _without_our_ids(self, order: Order) -> Refused | None:
        """An order that was taken without its id could not be looked up when its reply is lost."""
        if self._keeps_our_ids or not order.is_entry:
            return None
        why = "does not keep our order ids, so that a lost reply could not be looked up: no entries"
        return Refused(f"not sent: {self.name} {why}")

    def _did_not_keep(self, order: Order) -> None:
        self._keeps_our_ids = False
        log.error("%s does not know %s by our id: no more entries", self.name, order.client_order_id)

    # --- pauses and the clock -------------------------------------------------------------------------------------

    @property
    def pause_seconds(self) -> float:
        """Of all calls, and of orders."""
        now = time.monotonic()
        return max(0.0, *(self._quiet_until.get(path, 0.0) - now for path in ("", self.order_path)))

    def _heed(self, path: str, reply: Answered | None, code: int = 0, message: str = "") -> float:
        """Remembers how long BingX wants to be left alone: by all, or by this path. Calling on makes it longer."""
        status = reply.status if reply else 200
        if status not in CLOSED_STATUSES and code not in RATE_CODES:
            return 0.0
        seconds = self._asked_for(reply, message)
        closed = "" if status in CLOSED_STATUSES else path
        self.leave_alone_for(seconds, closed)
        self.on_pause(seconds, closed)
        return seconds

    def _asked_for(self, reply: Answered | None, message: str) -> float:
        again_ms = free_again_ms(message)
        if again_ms is not None:
            seconds = (again_ms - self._now_ms()) / 1000
        else:
            try:
                seconds = float(reply.headers["retry-after"] if reply else PAUSE_SECONDS)
            except (KeyError, ValueError):
                seconds = PAUSE_SECONDS
        return min(max(seconds, 1.0), LONGEST_PAUSE_SECONDS) if math.isfinite(seconds) else PAUSE_SECONDS

    def leave_alone_for(self, seconds: float, path: str = "") -> None:
        """Nothing is sent there for so long; without a path nothing at all, neither questions nor orders."""
        self._quiet_until[path] = max(self._quiet_until.get(path, 0.0), time.monotonic() + seconds)

    def _quiet_for(self, path: str) -> float:
        until = max(self._quiet_until.get("", 0.0), self._quiet_until.get(path, 0.0))
        return max(0.0, until - time.monotonic())

    def _paused(self) -> Refused | None:
        wait = self._quiet_for(self.order_path)
        return Refused(f"{self.name} asked for a pause", never_left=True, retry_after_seconds=wait) if wait else None

    def _now_ms(self) -> int:
        return int(time.time() * 1000 + self._offset_ms)

    def _synchronise_clock(self) -> None:
        with self._clock_lock:
            compared = compare_clocks(self.name, lambda: self._public(TIME_PATH))
            self.clock_problem = compared.problem
            self._offset_ms = compared.offset_seconds * 1000


def either_id(order: Order) -> dict[str, str]:
    """What names an order that is to be cancelled: BingX's number where it is known, else our own."""
    if order.exchange_order_id:
        return {"orderId": order.exchange_order_id}
    return {"clientOrderID": order.client_order_id}


def is_no_such_order(exc: BingxError) -> bool:
    """Said of a question for an order. One that "is already filled, the order doesn't exist" is another thing."""
    if not 200 <= exc.status < 500 or exc.code in BUSY_CODES or exc.code == FILLED_OR_GONE_CODE:
        return False
    return exc.code in NO_SUCH_ORDER_CODES or NO_SUCH_ORDER_TEXT.search(exc.message) is not None


def is_over(exc: BingxError) -> bool:
    """Said of an order that was to be cancelled: there is nothing left to cancel."""
    return is_no_such_order(exc) or exc.code == FILLED_OR_GONE_CODE or bool(OVER_TEXT.search(exc.message))
