"""A browser of few words: keeps cookies, says where a request comes from, and knows the token of the page it is on."""

from __future__ import annotations

import json
import re
from urllib.parse import urlencode

from harness import Daemon, Reply

PASSWORD = "a password for the page"


class Browser:
    """One person's browser at one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.cookies: dict[str, str] = {}
        self.token = ""
        self._requests = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.daemon.port}"

    def get(self, path: str, **headers: str) -> Reply:
        return self._kept(self.daemon.request("GET", path, None, 10, **self._cookie(), **headers))

    def post(self, path: str, body: object = None, **headers: str) -> Reply:
        """As the page's own scripts do it. `headers` take the place of what a browser would send; "" leaves one out."""
        text = b"" if body is None else json.dumps(body).encode()
        usual = {"Origin": self.origin, "X_CSRF_Token": self.token, "Sec_Fetch_Site": "same-origin"} | headers
        sent = {name: value for name, value in usual.items() if value}
        return self._kept(self.daemon.request("POST", path, text, 10, **self._cookie(), **sent))

    def submit(self, path: str, /, **fields: str) -> Reply:
        """A form."""
        headers = {"Origin": self.origin, "Content_Type": "application/x-www-form-urlencoded"}
        return self._kept(
            self.daemon.request("POST", path, urlencode(fields).encode(), 10, **self._cookie(), **headers)
        )

    def log_in(self, password: str = PASSWORD) -> Browser:
        assert self.submit("/login", password=password).status == 303
        self.open("/ui")
        return self

    def open(self, path: str) -> str:
        """The page's HTML."""
        reply = self.get(path)
        assert reply.status == 200, (reply.status, reply.headers.get("location"))
        html: str = reply["raw"].decode()
        if found := re.search(r'name="csrf-token" content="(\w+)"', html):
            self.token = found.group(1)
        return html

    def _cookie(self) -> dict[str, str]:
        """With an address of its own each time: a daemon that trusts a proxy slows nobody down as a guesser."""
        self._requests += 1
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        address = {"X_Forwarded_For": f"10.{id(self) % 250}.{self._requests // 250}.{self._requests % 250}"}
        return address | ({"Cookie": cookie} if cookie else {})

    def _kept(self, reply: Reply) -> Reply:
        for line in reply.headers.get_all("set-cookie") or []:
            name, _, value = line.partition(";")[0].partition("=")
            if value.strip('"'):
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        return reply
