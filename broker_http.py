"""One request to a broker that has no library here: answered, never sent, or lost. What an answer means, others know.

Sent at most once, within a total time, over connections of its own: no redirect is followed, no proxy, cookie or .netrc
is asked, and nothing is tried again, for the next try of an order could be the second order.
"""

from __future__ import annotations

import io
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from urllib.parse import urlsplit

import certifi

from setting_values import is_loopback

# A broker's longest list (all contracts of an exchange) is below one; what is larger is not for us.
MAX_BODY_BYTES = 4 * 1024 * 1024
# Of the total time, so much for each address of the broker: the next one may answer.
CONNECT_SECONDS = 3.0
# Servers close what nobody uses; what was sent just then would be lost, and would have to be looked up.
IDLE_SECONDS = 20.0
IDLE_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole HTTP reply, whatever it says. `body` shows none of the `hidden` values; names of headers are small."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NeverSent:
    """Not one byte of the request has left: sending it again is safe."""

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The request may have arrived, and nobody will tell: look up what it did."""

    reason: str


Reply = Answered | NeverSent | Lost


class Http:
    """One broker's server. Safe to use from several threads: a connection is lent to one request at a time."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str] | None = None,
        *,
        hidden: tuple[str, ...] = (),
        ca_file: str | None = None,
    ) -> None:
        """`headers` go with every request; `hidden` (keys, tokens) are blotted out of replies that echo them.

        Raises ValueError where keys would travel in the open: plain http is for this machine only.
        """
        parts = urlsplit(base_url)
        self._host = parts.hostname or ""
        if not self._host or (parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(self._host))):
            raise ValueError("a broker's address is https://, or http:// on this machine")
        # Not the environment's certificates: who may set a variable must not be able to listen.
        self._tls = ssl.create_default_context(cafile=ca_file or certifi.where()) if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Host": parts.netloc, "Accept-Encoding": "identity", "Connection": "keep-alive"}
        self._headers |= headers or {}
        self._hidden = tuple(value.encode() for value in hidden if value)
        self._idle: list[tuple[socket.socket, float]] = []
        self._lock = threading.Lock()

    def ask(
        self,
        method: str,
        target: str,
        *,
        seconds: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """`target`: path and query, encoded already. `seconds`: from now to the reply's last byte.

        Only the look-up of the broker's name is not bounded; the request does not leave when it took too long.
        """
        until = time.monotonic() + seconds
        try:
            request = self._request(method, target, body, headers or {})
            connection = self._lend(until)
        except (OSError, ValueError) as exc:
            return NeverSent(_kind(exc))
        # From here on it may have left: nothing that goes wrong may be told as above.
        try:
            connection.settimeout(_left(until))
            connection.sendall(request)
            answered, can_go_on = _read(connection, method, until)
        except (OSError, HTTPException, ValueError) as exc:
            connection.close()
            return Lost(_kind(exc))
        self._take_back(connection, can_go_on)
        return self._blotted(answered)

    def close(self) -> None:
        """The connections that wait; one that is lent out is closed when it comes back, or by its peer."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    # --- the request ----------------------------------------------------------------------------------------------

    def _request(self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        told = {**self._headers, **headers}
        if body is not None:
            told |= {"Content-Length": str(len(body))}
        elif method not in ("GET", "DELETE"):
            told |= {"Content-Length": "0"}
        lines = [f"{method} {self._prefix}{target} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())]
        # A line break in a value would be a header, or a request, of somebody else's making.
        if any(not line.isascii() or not line.isprintable() for line in lines) or " " in target:
            raise ValueError("not one line of printable ASCII")
        return "\r\n".join([*lines, "", ""]).encode() + (body or b"")

    def _blotted(self, answered: Answered) -> Answered:
        body = answered.body
        for value in self._hidden:
            body = body.replace(value, b"***")
        return Answered(answered.status, body, answered.headers)

    # --- connections ----------------------------------------------------------------------------------------------

    def _lend(self, until: float) -> socket.socket:
        while True:
            with self._lock:
                if not self._idle:
                    break
                connection, since = self._idle.pop()
            if time.monotonic() - since < IDLE_SECONDS and not _was_hung_up(connection):
                return connection
            connection.close()
        return self._connect(until)

    def _take_back(self, connection: socket.socket, can_go_on: bool) -> None:
        with self._lock:
            if can_go_on and len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append((connection, time.monotonic()))
                return
        connection.close()

    def _connect(self, until: float) -> socket.socket:
        problem: OSError = TimeoutError()
        for family, kind, protocol, _, address in socket.getaddrinfo(self._host, self._port, 0, socket.SOCK_STREAM):
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(min(CONNECT_SECONDS, _left(until)))
                connection.connect(address)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return self._secured(connection, until)
            except OSError as exc:
                connection.close()
                problem = exc
        raise problem

    def _secured(self, connection: socket.socket, until: float) -> socket.socket:
        connection.settimeout(min(CONNECT_SECONDS, _left(until)))
        return self._tls.wrap_socket(connection, server_hostname=self._host) if self._tls else connection


class _Lifeline(io.RawIOBase):
    """What http.client reads a reply from: every read has only what is left of the total time."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._connection, self._until = connection, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        self._connection.settimeout(_left(self._until))
        return self._connection.recv_into(buffer)  # type: ignore[arg-type]

    def makefile(self, mode: str) -> io.BufferedReader:
        """The only thing that http.client asks of a socket."""
        return io.BufferedReader(self)


def _read(connection: socket.socket, method: str, until: float) -> tuple[Answered, bool]:
    """The reply to its last byte, and whether the connection is good for another. Raises what reading raises."""
    response = HTTPResponse(_Lifeline(connection, until), method=method)  # type: ignore[arg-type]
    response.begin()
    body = response.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise HTTPException("too large")
    if response.length:
        raise HTTPException("cut off")
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answered(response.status, body, headers), response.isclosed() and not response.will_close


def _left(until: float) -> float:
    """Seconds that are left. Raises TimeoutError when none are."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _was_hung_up(connection: socket.socket) -> bool:
    """Or says something that nobody asked for: then it is not known what its next answer belongs to."""
    if isinstance(connection, ssl.SSLSocket) and connection.pending():
        return True
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    return bool(waiting.poll(0))


def _kind(exc: Exception) -> str:
    """Never the text: it may hold the signed request."""
    return type(exc).__name__
