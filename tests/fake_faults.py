"""The faults a test can order: what goes wrong, for which requests, how often."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from fake_matching import ERRORS, Row
from fake_wire import Reply

if TYPE_CHECKING:
    from fake_rest import Call

KINDS = {
    "delay": "wait `seconds` before the order reaches the engine, or (executed) before the reply leaves",
    "stall": "never answer",
    "reset": "RST in place of an answer",
    "reset_unread": "RST before even reading the next request, whatever it is",
    "close": "a clean FIN in place of an answer",
    "half_header": "part of the header, then FIN (or silence, with then='stall')",
    "half_body": "the header and part of the body, then FIN (or silence, with then='stall')",
    "drip": "the answer byte by byte, one every `seconds`",
    "status": "this HTTP status, with `body`, a JSON error or (html) a page",
    "error": "this Binance error code, with `message` or its usual text",
    "ban": "429 or 418 with Retry-After; every request is refused until it is over",
    "garbage": "200 with `body` as it is",
    "truncated": "200 with the first half of the JSON, the length being right",
    "other_symbol": "200 with an order of another symbol",
    "late": "the connection is lost now (then: reset, close, stall), the order executes `seconds` later",
}

HTML = "<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>"

# HTTP statuses that come with a code when they are not 400.
STATUS_OF_CODE = {-1000: 500, -1001: 503, -1002: 401, -1003: 429, -1006: 500, -1007: 504, -1008: 503, -1015: 429,
                  -1016: 503, -2014: 401, -2015: 401}  # fmt: skip
TITLES = {403: "403 Forbidden", 500: "500 Internal Server Error", 502: "502 Bad Gateway",
          503: "503 Service Unavailable", 504: "504 Gateway Time-out"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of trouble for the next `times` requests that fit `where` ("METHOD path", * is a wildcard).

    `executed` tells whether the request had its effect before the trouble showed: an order with executed=True
    is in the engine although its sender will not learn it.
    """

    kind: str
    where: str = "POST /api/v3/order"
    times: int = 1
    executed: bool = False
    seconds: float = 0.0
    status: int = 0
    code: int = 0
    message: str = ""
    body: str | None = None
    html: bool = False
    retry_after: int = 1
    then: str = "close"
    when: Callable[[Call], bool] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault of kind {self.kind!r}, there are: {', '.join(KINDS)}")
        if self.where != "*" and " " not in self.where:
            raise ValueError(f'where must be "METHOD path" or "*", was {self.where!r}')
        if (self.kind == "status" and not self.status) or (self.kind == "error" and not self.code):
            raise ValueError("a fault of kind status needs status=, one of kind error needs code=")
        if self.then not in ("close", "reset", "stall"):
            raise ValueError(f"then must be close, reset or stall, was {self.then!r}")

    def fits(self, call: Call) -> bool:
        """Is this one of the requests it is meant for?"""
        return fnmatchcase(f"{call.method} {call.path}", self.where) and (self.when is None or self.when(call))


class FaultQueue:
    """Faults waiting for their requests; the oldest that fits is used first. The owner holds the lock."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Fault, int]] = []

    def add(self, fault: Fault) -> None:
        self.waiting.append((fault, fault.times))

    def take(self, fits: Callable[[Fault], bool]) -> Fault | None:
        for index, (fault, left) in enumerate(self.waiting):
            if fits(fault):
                self.waiting[index : index + 1] = [(fault, left - 1)] if left > 1 else []
                return fault
        return None

    @property
    def left(self) -> int:
        """How many requests will still go wrong."""
        return sum(left for _, left in self.waiting)


def error_body(code: int, message: str) -> bytes:
    return json.dumps({"code": code, "msg": message}, separators=(",", ":")).encode()


def default_text(code: int, table: Row = ERRORS) -> str:
    """The documented text of a code."""
    messages: list[str] = table["codes"].get(str(code), {}).get("messages", [f"Error {code}."])
    return messages[0]


def other_symbol(reply: Reply | None) -> Reply:
    """The answer to somebody else's order."""
    content = json.loads(reply.body) if reply else {"symbol": "", "orderId": 7, "orderListId": -1, "clientOrderId": "x",
                                                    "status": "FILLED", "executedQty": "1.00000000"}  # fmt: skip
    if isinstance(content, dict):
        content["symbol"] = "LTCBTC"
    return Reply(200, json.dumps(content).encode())


def made_up_reply(fault: Fault) -> Reply:
    """What a broken line carries a part of when nothing was executed: a success that is none, where it stays cut."""
    return other_symbol(None) if fault.kind != "drip" else Reply(502, error_body(-1000, default_text(-1000)))


def reply_for(fault: Fault, real: Reply | None, table: Row = ERRORS) -> Reply | None:
    """The reply that takes the place of the real one; None when this fault is not about the reply's content."""
    if fault.kind == "status":
        return _status_reply(fault, table)
    if fault.kind == "error":
        status = fault.status or STATUS_OF_CODE.get(fault.code, 400)
        return Reply(status, error_body(fault.code, fault.message or default_text(fault.code, table)))
    if fault.kind == "garbage":
        text = HTML.format(title="Welcome") if fault.body is None else fault.body
        return Reply(200, text.encode(), content_type="text/html" if text.startswith("<") else "application/json")
    if fault.kind == "truncated":
        whole = real or other_symbol(None)
        return Reply(200, whole.body[: len(whole.body) // 2])
    if fault.kind == "other_symbol":
        return other_symbol(real)
    return None


def _status_reply(fault: Fault, table: Row) -> Reply:
    if fault.html:
        title = TITLES.get(fault.status, str(fault.status))
        return Reply(fault.status, (fault.body or HTML.format(title=title)).encode(), content_type="text/html")
    body = (
        fault.body.encode() if fault.body is not None else error_body(fault.code or -1000, default_text(-1000, table))
    )
    return Reply(fault.status, body)
