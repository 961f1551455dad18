"""HTTP/1.1 over plain sockets, so that a test can cut, drip or reset a reply at any byte.

It knows nothing of Binance: a handler gets each request together with its connection and says whether the
connection stays open.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

MAX_HEADER_BYTES = 65_536
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class RawRequest:
    """One request exactly as it came in; signatures are made over these bytes."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: str
    connection: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json;charset=UTF-8"

    def encode(self) -> bytes:
        """Header and body in one piece: two writes would cost a delayed ACK, 40 ms, on every call."""
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [
            f"HTTP/1.1 {self.status} {phrase}",
            f"Date: {formatdate(usegmt=True)}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            "Connection: keep-alive",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + self.body


@dataclass(slots=True)
class Connection:
    """One client's connection, with all the ways to treat it badly."""

    socket: socket.socket
    number: int
    unread: bytes = field(default=b"")

    def has_request(self) -> bool:
        """Wait for the next request without taking it off the line; False when the client has left."""
        if self.unread:
            return True
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def read_request(self) -> RawRequest | None:
        """The next request, or None when the client left or sent something that is not HTTP."""
        try:
            head = self._read_until(b"\r\n\r\n")
            if head is None:
                return None
            request_line, *lines = head.decode("latin-1").split("\r\n")
            method, target, _version = request_line.split(" ", 2)
            pairs = (line.partition(":") for line in lines)
            headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            body = self._read_exactly(int(headers.get("content-length", "0")))
        except (OSError, ValueError):
            return None
        path, _, query = target.partition("?")
        return RawRequest(method, path, query, headers, body.decode("utf-8", "replace"), self.number)

    def send(self, data: bytes) -> bool:
        """Send all of it; False when the client is no longer there."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def reset(self) -> None:
        """Tear the connection down with an RST."""
        with contextlib.suppress(OSError):
            # Lingering for zero seconds makes close() throw everything away and send RST in place of FIN.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Say goodbye with a FIN."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def wait_until_client_leaves(self, stopping: threading.Event) -> None:
        """Hold the line without a word."""
        self.socket.settimeout(POLL_SECONDS)
        while not stopping.is_set():
            try:
                if not self.socket.recv(4096):
                    return
            except TimeoutError:
                continue
            except OSError:
                return

    def _read_until(self, mark: bytes) -> bytes | None:
        while mark not in self.unread:
            if len(self.unread) > MAX_HEADER_BYTES:
                return None
            more = self.socket.recv(65_536)
            if not more:
                return None
            self.unread += more
        head, _, self.unread = self.unread.partition(mark)
        return head

    def _read_exactly(self, size: int) -> bytes:
        while len(self.unread) < size:
            more = self.socket.recv(65_536)
            if not more:
                raise ValueError("the client left in the middle of its body")
            self.unread += more
        body, self.unread = self.unread[:size], self.unread[size:]
        return body


class WireServer:
    """Accepts on loopback and gives every connection its own thread."""

    def __init__(
        self,
        handle: Callable[[RawRequest, Connection], bool],
        hang_up_unread: Callable[[], bool] = lambda: False,
        port: int = 0,
    ) -> None:
        self.port = port
        self.stopping = threading.Event()
        self._handle = handle
        self._hang_up_unread = hang_up_unread
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._open: dict[int, Connection] = {}
        self._threads: list[threading.Thread] = []
        self._accepted = 0

    def listen(self) -> None:
        """Start (or start again, on the same port) to accept connections."""
        listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self.port = listener.getsockname()[1]
        self._listener = listener
        thread = threading.Thread(target=self._accept_all, args=(listener,), name="fake-accept", daemon=True)
        thread.start()
        self._threads.append(thread)

    def stop_listening(self) -> None:
        """Refuse new connections and reset the ones there are."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # close() alone would leave accept() waiting
        listener.close()
        with self._lock:
            connections = list(self._open.values())
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)  # its own thread closes it

    def stop(self, join_seconds: float = 2.0) -> None:
        """End everything, stalled connections included."""
        self.stopping.set()
        self.stop_listening()
        for thread in self._threads:
            thread.join(join_seconds)

    def _accept_all(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._accepted += 1
                connection = Connection(client, self._accepted)
                self._open[connection.number] = connection
                self._threads = [thread for thread in self._threads if thread.is_alive()]
                thread = threading.Thread(target=self._serve, args=(connection,), name="fake-serve", daemon=True)
                self._threads.append(thread)
            thread.start()

    def _serve(self, connection: Connection) -> None:
        try:
            while not self.stopping.is_set() and connection.has_request():
                if self._hang_up_unread():
                    connection.reset()
                    return
                request = connection.read_request()
                if request is None or not self._handle(request, connection):
                    return
                if request.headers.get("connection", "").lower() == "close":
                    return
        finally:
            with self._lock:
                self._open.pop(connection.number, None)
            connection.close()
