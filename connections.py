"""What a connection may cost before a whole request is there: bytes, time and places. Knows nothing of alerts.

The server's own protocol reads a head of any size, waits for the rest of it for ever, takes fields that stand behind
the body for headers, and writes a line to the log for whatever is no HTTP.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from web import HEADERS

MAX_HEAD_BYTES = 32_768
# The 16 KiB of a body in small chunks, and more than that after a refusal is read by nobody.
MAX_REQUEST_BYTES = 131_072
# Together with those that are worked on fewer than the 1024 files that a process may usually open.
MAX_WAITING = 512
WAIT_SECONDS = 5.0


class HeadTooLarge(ValueError):
    """Raised into the parser, which gives up; the sender gets the 400 of a request that is none."""


class Connection(HttpToolsProtocol):
    """One connection. While it has no whole request to work on it is one of those that wait, at most 512.

    Where there are more, the one that has waited longest gives way: an alert comes in one piece and hardly waits.
    """

    waiting: ClassVar[OrderedDict[Connection, float]] = OrderedDict()

    _head_bytes = 0
    _received = 0
    _in_head = False
    _is_whole = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()
        now = self.loop.time()
        while len(self.waiting) > MAX_WAITING or next(iter(self.waiting.values())) < now - WAIT_SECONDS:
            longest, _ = self.waiting.popitem(last=False)
            longest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.waiting.pop(self, None)
        super().connection_lost(exc)

    def _wait(self) -> None:
        self.waiting.pop(self, None)
        self.waiting[self] = self.loop.time()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._received = 0 if self._is_whole else self._received + len(data)
        if self._received > (MAX_HEAD_BYTES if self._in_head else MAX_REQUEST_BYTES):
            self._refuse_more()

    def _refuse_more(self) -> None:
        if self.transport.is_closing():
            return
        if self._in_head and (self.cycle is None or self.cycle.response_complete):
            self.send_400_response("Invalid HTTP request received.")
        else:
            self.transport.abort()

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._in_head, self._is_whole = True, False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: a proxy that vouches for X-Forwarded-For may pass on what the sender wrote down here
        self._head_bytes += len(name) + len(value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_bytes + len(self.url) > MAX_HEAD_BYTES:
            raise HeadTooLarge
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_whole = True
        if not self.cycle.response_complete:
            self.waiting.pop(self, None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle.response_complete or not self._is_whole):
            self._wait()

    def send_400_response(self, msg: str) -> None:
        text = b'{"success":false,"error":"not a valid HTTP request"}'
        headers = {"Content-Type": "application/json", "Content-Length": str(len(text)), "Connection": "close"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers | HEADERS).items())
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + lines.encode() + b"\r\n" + text)
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Who asks for another protocol is answered in this one."""
