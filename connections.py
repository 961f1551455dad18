"""What a connection may cost before a whole request is there: bytes, time and places. Knows nothing of alerts.

The server's own protocol reads a head of any size, waits for the rest of it for ever, takes fields that stand behind
the body for headers, and writes a line to the log for whatever is no HTTP. What is in a hurry is answered right here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, cast

from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from web import HEADERS, WHOLE_BODY

Answer = Callable[[Request], Awaitable[Response]]

MAX_HEAD_BYTES = 32_768
# The 16 KiB of a body in small chunks, and more than that after a refusal is read by nobody.
MAX_REQUEST_BYTES = 131_072
# Together with those that are worked on fewer than the 1024 files that a process may usually open.
MAX_WAITING = 512
WAIT_SECONDS = 5.0
# A page that looks on from a phone asleep is one of these, and a slow download.
MAX_UNREAD = 64


class HeadTooLarge(ValueError):
    """Raised into the parser, which gives up; the sender gets the 400 of a request that is none."""


class Connection(HttpToolsProtocol):
    """One connection. While it has no whole request to work on it is one of those that wait, at most 512.

    Where there are more, the one that has waited longest gives way: an alert comes in one piece and hardly waits.
    So do those whose sender does not take what was answered, of which there are at most 64; they may take their time.
    """

    waiting: ClassVar[OrderedDict[Connection, float]] = OrderedDict()
    unread: ClassVar[OrderedDict[Connection, None]] = OrderedDict()
    _at_work: RequestResponseCycle | None = None
    _is_straight = False
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
            longest._give_way()

    def connection_lost(self, exc: Exception | None) -> None:
        self.waiting.pop(self, None)
        self.unread.pop(self, None)
        self._is_gone()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Who has said all that there is to say may still wait for what becomes of his alert."""
        cycle = self._at_work if self._is_straight and self._is_whole and not self.pipeline else None
        if cycle is None or cycle.response_complete:
            return False
        cycle.keep_alive = False
        return True

    def _give_way(self) -> None:
        self._is_gone()
        self.transport.abort()

    def _is_gone(self) -> None:
        """Told to what is worked on, too: the server tells only the last request of several that came in one piece.

        An answer to a connection that is not there any more is an error with all its lines in the log.
        """
        if self._at_work and not self._at_work.response_complete:
            self._at_work.disconnected = True
            self._at_work.message_event.set()

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
            self._give_way()

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
        self._wait_if_idle()

    def _wait_if_idle(self) -> None:
        """A connection that closes is open until its last bytes are taken."""
        is_idle = self.cycle.response_complete or not self._is_whole or self.transport.is_closing()
        if is_idle and not self.flow.write_paused:
            self._wait()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.waiting.pop(self, None)
        self.unread[self] = None
        if len(self.unread) > MAX_UNREAD:
            longest, _ = self.unread.popitem(last=False)
            longest._give_way()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.unread.pop(self, None)
        self._wait_if_idle()

    # --- the straight way -----------------------------------------------------------------------------------------

    def straight(self, scope: Scope) -> Answer | None:
        """Who answers this without the layers of ASGI between, and raises only ClientDisconnect; else None."""
        return None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope = cast(Scope, cycle.scope)
        answer = self.straight(scope)
        self._at_work, self._is_straight = cycle, answer is not None
        if answer is None:
            super()._start_asgi_task(cycle, app)
            return
        task = self.loop.create_task(self._go_straight(cycle, scope, answer))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    async def _go_straight(self, cycle: RequestResponseCycle, scope: Scope, answer: Answer) -> None:
        if not cycle.more_body and not cycle.waiting_for_100_continue:
            scope[WHOLE_BODY] = bytes(cycle.body)
        try:
            response = await answer(Request(scope, cast(Receive, cycle.receive)))
        except ClientDisconnect:
            return
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        if not cycle.disconnected:
            self._reply(cycle, response)

    def _reply(self, cycle: RequestResponseCycle, response: Response) -> None:
        """In one write, which wakes the receiver once; then all that the server does at the end of a response."""
        lines = [STATUS_LINE[response.status_code]]
        for name, value in (*self.server_state.default_headers, *response.raw_headers):
            lines += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        lines += (b"\r\n", bytes(response.body))
        self.transport.write(b"".join(lines))
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

    def send_400_response(self, msg: str) -> None:
        text = b'{"success":false,"error":"not a valid HTTP request"}'
        headers = {"Content-Type": "application/json", "Content-Length": str(len(text)), "Connection": "close"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers | HEADERS).items())
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + lines.encode() + b"\r\n" + text)
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Who asks for another protocol is answered in this one."""


def connection_with(straight: Callable[[Scope], Answer | None]) -> type[Connection]:
    """For a server that has requests in a hurry."""

    class Straight(Connection):
        def straight(self, scope: Scope) -> Answer | None:
            return straight(scope)

    return Straight
