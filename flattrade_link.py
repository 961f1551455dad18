"""What everything that is asked of FlatTrade has in common: the token, its limits, and how a request ended.

What its words mean for an order is in flattrade_orders.py, and what orders become of them in flattrade_client.py.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from broker import BrokerError
from broker_http import Answered, Http, NeverSent
from flattrade_orders import Meaning, Row, meaning_of
from flattrade_token import FlatTradeLogin

NAME = "FLATTRADE"
URL = "https://piconnect.flattrade.in/PiConnectAPI"
SECONDS = 10.0

# Orders: 10 a second and 40 a minute, and by SEBI's rules fewer than 10 a second. Questions: 40 a second and 200 a
# minute by https://pi.flattrade.in/docs, 120 a minute where others were cut off. What leaves in time may arrive
# together, so a bit below; of a second's questions half: a new share and the account need some ten in one moment.
ORDERS_AT_MOST = ((9, 1.0), (39, 60.0))
QUESTIONS_AT_MOST = ((20, 1.0), (115, 60.0))


class NeverLeft(BrokerError):
    """The request was certainly not sent, or not judged; `wait`: seconds after which it may be."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


class Silent(BrokerError):
    """No usable answer came: what was asked may have been heard."""


class NotOk(BrokerError):
    """FlatTrade's own words, and what they mean."""

    def __init__(self, emsg: str) -> None:
        super().__init__(f"{NAME} answered: {emsg[:200] or 'Not_Ok, without a reason'}")
        self.meaning = meaning_of(emsg)


class Pace:
    """Never more requests within a time than FlatTrade allows: what is over would be refused, and counted as well."""

    def __init__(self, *windows: tuple[int, float]) -> None:
        """`windows`: how many, in how many seconds."""
        self._windows = windows
        self._times: deque[float] = deque()
        self._lock = threading.Lock()

    def take(self, kept: int = 0) -> float:
        """Seconds to wait before one may leave; 0: it may, and is counted. `kept`: so many of the last window stay."""
        with self._lock:
            now = time.monotonic()
            longest = max(seconds for _, seconds in self._windows)
            while self._times and now - self._times[0] >= longest:
                self._times.popleft()
            wait = max(self._wait(most - (kept if s == longest else 0), s, now) for most, s in self._windows)
            if not wait:
                self._times.append(now)
            return wait

    def _wait(self, most: int, seconds: float, now: float) -> float:
        if len(self._times) < most:
            return 0.0
        return max(0.0, self._times[-most] + seconds - now)


class FlatTradeLink:
    """One account's way to FlatTrade. Safe to use from several threads; sends nothing twice."""

    seconds = SECONDS  # for one request, from its first byte to its reply's last

    def __init__(self, login: FlatTradeLogin, client_id: str, api_url: str = "") -> None:
        self.login = login
        self._client_id = client_id
        self._url = api_url or URL
        self._http: tuple[str, Http] = ("", Http(self._url))
        self._orders, self._questions = Pace(*ORDERS_AT_MOST), Pace(*QUESTIONS_AT_MOST)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({NAME})"

    def _ask(self, endpoint: str, data: Mapping[str, str], kept: int = 0) -> Any:
        """A question. Raises BrokerError; a share's name may be asked for many times, so it waits for its turn."""
        return self._request(endpoint, data, self._questions, kept=kept, patience=1.0)

    def _list(self, endpoint: str, data: Mapping[str, str], kept: int = 0) -> Sequence[Row]:
        """ "No data" is an empty list; any other refusal is none. Raises BrokerError."""
        try:
            rows = self._ask(endpoint, data, kept)
        except NotOk as exc:
            if exc.meaning is Meaning.EMPTY:
                return ()
            raise
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise BrokerError(f"{NAME} answered {endpoint} with something else than a list")
        return _without_refusals(rows, endpoint)

    def _request(
        self,
        endpoint: str,
        data: Mapping[str, str],
        pace: Pace,
        *,
        kept: int = 0,
        patience: float = 0.0,
        seconds: float | None = None,
    ) -> Any:
        """Sent at most once. Raises SessionOver, NeverLeft, NotOk, and BrokerError when nobody knows what it did."""
        token = self.login.token()
        _wait_for_turn(pace, kept, patience)
        body = f"jData={json.dumps(data, separators=(',', ':'))}&jKey={token}".encode()
        headers = {"Content-Type": "application/json"}
        total = self.seconds if seconds is None else seconds
        reply = self._http_with(token).ask("POST", f"/{endpoint}", seconds=total, body=body, headers=headers)
        if isinstance(reply, NeverSent):
            raise NeverLeft(f"no connection to {NAME}: {reply.reason}")
        if not isinstance(reply, Answered):
            raise Silent(f"{NAME} gave no usable answer: {reply.reason}")
        return self._read(reply, token)

    def _read(self, reply: Answered, token: str) -> Any:
        """What it says counts, at whatever HTTP status it says so."""
        try:
            said = json.loads(reply.body)
        except (ValueError, RecursionError) as exc:
            raise BrokerError(f"{NAME} answered HTTP {reply.status} without JSON") from exc
        if isinstance(said, dict) and said.get("stat") != "Ok":
            self._refused(said, token)
        if reply.status != 200:
            raise BrokerError(f"{NAME} answered HTTP {reply.status}")
        return said

    def _refused(self, said: Mapping[str, Any], token: str) -> NoReturn:
        if said.get("stat") != "Not_Ok" or not isinstance(said.get("emsg"), str):
            raise BrokerError(f"{NAME} answered with neither Ok nor a refusal")
        refused = NotOk(said["emsg"])
        if refused.meaning is Meaning.EXPIRED:
            self.login.died(token)
            self.login.token()
        raise refused

    def _http_with(self, token: str) -> Http:
        """Replies that echo the token are blotted, so every token has connections of its own."""
        known, http = self._http
        if known != token:
            http.close()
            http = Http(self._url, hidden=(token,))
            self._http = (token, http)
        return http


def _without_refusals(rows: Sequence[Row], endpoint: str) -> Sequence[Row]:
    """A refusal inside of a list is none of its rows: an order book that says "timeout" is not an empty one."""
    refusals = [str(row.get("emsg")) for row in rows if row.get("stat", "Ok") != "Ok"]
    if refusals and (len(rows) > 1 or meaning_of(refusals[0]) is not Meaning.EMPTY):
        raise BrokerError(f"{NAME} answered {endpoint}: {refusals[0][:200]}")
    return () if refusals else rows


@contextmanager
def one_asks(lock: threading.Lock, seconds: float) -> Iterator[None]:
    """The others wait for his answer, but not for ever: one after the other they would take up all threads.

    Raises NeverLeft.
    """
    if not lock.acquire(timeout=seconds):
        raise NeverLeft(f"{NAME} has not answered the same question yet")
    try:
        yield
    finally:
        lock.release()


def _wait_for_turn(pace: Pace, kept: int, patience: float) -> None:
    """Raises NeverLeft when its turn does not come within `patience` seconds."""
    until = time.monotonic() + patience
    while wait := pace.take(kept):
        if time.monotonic() + wait > until:
            raise NeverLeft(f"{NAME} takes no more requests for {wait:.1f} s", wait)
        time.sleep(wait)
