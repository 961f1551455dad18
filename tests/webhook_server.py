"""A service that takes messages, on loopback: it may hang, cut connections or answer errors; it keeps what it took."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WebhookServer:
    """`mode` is ok, hang, reset, or a status to answer with. Its address is for NOTIFY_URLS."""

    def __init__(self, mode: str = "ok") -> None:
        self.mode = mode
        self.messages: list[dict[str, Any]] = []
        self.requests = 0
        self._go_on = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"json://127.0.0.1:{self._server.server_port}/token-of-mine"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> WebhookServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._go_on.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def text(self) -> str:
        """Everything that it took."""
        return "\n".join(message["message"] for message in self.messages)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"]))
        self.requests += 1
        if self.mode == "hang":
            # Longer than apprise waits, as long as the test takes: every few seconds a byte, so that it waits on.
            while not self._go_on.wait(1.0):
                request.wfile.write(b"H")
            return
        if self.mode == "reset":
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            request.connection.close()
            return
        if self.mode == "ok":
            self.messages.append(json.loads(body))
        request.send_response(200 if self.mode == "ok" else int(self.mode))
        request.send_header("Content-Length", "0")
        request.end_headers()
