"""One API of the exchange (spot, futures): its endpoints, its words, and how much of its limits is used.

Spot and futures are two hosts at Binance, so each counts its own weight and bans on its own. No sockets, no lock:
the owner holds it. Rules: https://developers.binance.com/docs/binance-spot-api-docs/rest-api/limits and
https://developers.binance.com/docs/derivatives/usds-margined-futures/general-info#limits
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fake_faults import error_body
from fake_matching import ApiError, Row, error
from fake_rest import Call, Route
from fake_wire import Reply

MINUTE_MS = 60_000


class Served(Protocol):
    """What the endpoints tell about the orders that count."""

    rate_limits: list[Row]

    def order_usage(self) -> list[Row]: ...


@dataclass(frozen=True, slots=True)
class Ban:
    """Requests are refused with this status until then."""

    status: int = 0
    until_ms: int = 0


@dataclass(slots=True)
class Api:
    """What is served under one prefix."""

    prefix: str
    rest: Served
    routes: Mapping[str, Route[Any]]
    legal: Mapping[str, str]
    table: Row  # codes and texts
    now_ms: Callable[[], int]
    weight_limit: int
    ban: Ban = Ban()
    _weight: tuple[int, int] = (0, 0)  # minute, used

    @property
    def used_weight(self) -> int:
        minute, used = self._weight
        return used if minute == self.now_ms() // MINUTE_MS else 0

    def use_weight(self, weight: int) -> None:
        self._weight = (self.now_ms() // MINUTE_MS, self.used_weight + weight)

    def check_weight(self, weight: int) -> None:
        if self.used_weight + weight > self.weight_limit:
            raise self._too_many_requests(status=429)

    def check_order_limits(self) -> None:
        """No more new orders in an interval than allowed."""
        for limit in self.rest.order_usage():
            if limit["count"] >= limit["limit"]:
                interval = f"{limit['intervalNum']} {limit['interval']}"
                raise error(-1015, limit["limit"], interval, status=429, table=self.table)

    def retry_after(self, problem: ApiError) -> tuple[tuple[str, str], ...]:
        if problem.status != 429:
            return ()
        interval_ms = 10_000 if "10 SECOND" in problem.message else MINUTE_MS
        return seconds_header(interval_ms - self.now_ms() % interval_ms)

    def counts(self, call: Call) -> list[tuple[str, str]]:
        """The headers that tell how much of the limits is used."""
        headers = [("X-MBX-USED-WEIGHT", str(self.used_weight)), ("X-MBX-USED-WEIGHT-1M", str(self.used_weight))]
        if call.executed and call.status == 200:
            headers += [
                (f"X-MBX-ORDER-COUNT-{each['intervalNum']}{each['interval'][0]}", str(each["count"]))
                for each in self.rest.order_usage()
            ]
        return headers

    def refuse_banned(self, call: Call) -> Reply | None:
        """The refusal while a ban is on; the log marks such calls, a good client makes none."""
        now_ms = self.now_ms()
        if now_ms >= self.ban.until_ms:
            return None
        call.status, call.code, call.banned = self.ban.status, -1003, call.fault is None
        problem = self._banned() if self.ban.status == 418 else self._too_many_requests()
        return Reply(self.ban.status, error_body(-1003, problem.message), seconds_header(self.ban.until_ms - now_ms))

    def _too_many_requests(self, status: int = 400) -> ApiError:
        return self._say("current limit is", self.weight_limit, "1 MINUTE", status=status)

    def _banned(self) -> ApiError:
        return self._say("banned until", self.ban.until_ms)

    def _say(self, words: str, *values: object, status: int = 400) -> ApiError:
        """The text of -1003 with these words in it; spot's and futures' differ."""
        texts: list[str] = self.table["codes"]["-1003"]["messages"]
        index = next(number for number, text in enumerate(texts) if words in text)
        return error(-1003, *values, text=index, status=status, table=self.table)


def seconds_header(milliseconds: int) -> tuple[tuple[str, str], ...]:
    return (("Retry-After", str(math.ceil(milliseconds / 1000))),)
