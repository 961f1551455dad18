"""What every route shares: reading a request within its limits, and answering in JSON with safe headers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

import replies

MAX_BODY_BYTES = 16_384
BODY_SECONDS = 2.0
# Where in a request's scope its body is, when all of it was there before anybody asked.
WHOLE_BODY = "gatehouse.body"

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


class BadRequest(Exception):
    """HTTP status and a text for the sender."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


async def read_body(request: Request) -> bytes:
    """Raises BadRequest 413 or 408, and ClientDisconnect; never holds more than the limit in memory."""
    whole: bytes | None = request.scope.get(WHOLE_BODY)
    if whole is not None:
        return _within_limit(whole)
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                body = _within_limit(body + message.get("body", b""))
                more = message.get("more_body", False)
    except TimeoutError as exc:
        raise BadRequest(408, f"the body did not arrive within {BODY_SECONDS:g} s") from exc
    return body


def _within_limit(body: bytes) -> bytes:
    if len(body) > MAX_BODY_BYTES:
        raise BadRequest(413, f"too large: at most {MAX_BODY_BYTES} bytes")
    return body


def bearer(request: Request) -> list[str]:
    for name, value in request.scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            return [token.strip()] if scheme.lower() == "bearer" else []
    return []


class _Json(Response):
    """Its headers are always the same: encoded once."""

    ALWAYS = tuple((name.lower().encode(), value.encode()) for name, value in HEADERS.items())

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        length = (b"content-length", str(len(self.body)).encode())
        self.raw_headers = [length, (b"content-type", b"application/json"), *self.ALWAYS]


def json_reply(status: int, content: Mapping[str, Any]) -> Response:
    return _Json(replies.to_json(content), status)


def error_body(text: str) -> dict[str, Any]:
    return {"success": False, "error": text}
