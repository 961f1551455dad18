"""A `requests` session for an exchange's REST API: the same transport, without what is worked out anew per request.

`requests` merges settings, environment, cookies and authentication for every request; here none of them ever changes.
Connections, TLS, time limits and the kinds of its errors stay the library's own (docs/performance.md has the figures).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

CONNECTIONS = 64


class ExchangeSession(requests.Session):
    """Follows no redirect, keeps no cookie, asks no proxy and no .netrc, and sends nothing twice."""

    def __init__(self, headers: Mapping[str, Any]) -> None:
        super().__init__()
        self.headers.update(headers)
        self._own_headers: dict[str, Any] = dict(self.headers)
        # Proxies and .netrc from the environment have no business between an owner and an exchange.
        self.trust_env = False
        self._adapter = HTTPAdapter(pool_maxsize=CONNECTIONS, max_retries=0)
        for scheme in ("https://", "http://"):
            self.mount(scheme, self._adapter)

    def request(  # type: ignore[override]  # only what an exchange's client uses; anything else is a TypeError
        self,
        method: str,
        url: str,
        *,
        params: str | None = None,
        data: str | list[tuple[str, object]] | None = None,
        json: None = None,
        headers: dict[str, str] | None = None,
        timeout: tuple[float, float],
        allow_redirects: bool = False,
    ) -> requests.Response:
        """The reply, read to its end; raises requests' own exceptions. A redirect is a reply like any other."""
        prepared = requests.PreparedRequest()
        prepared.method = method.upper()
        prepared.url = f"{url}?{params}" if params else url
        prepared.headers = CaseInsensitiveDict(self._own_headers | (headers or {}))
        prepared.body = data if isinstance(data, str) or data is None else urlencode(data)
        if prepared.body is not None:
            prepared.headers["Content-Length"] = str(len(prepared.body))
        elif prepared.method != "GET":
            prepared.headers["Content-Length"] = "0"
        response = self._adapter.send(prepared, timeout=timeout, proxies={})
        response.content  # noqa: B018  # reads it to its end, so that the connection is free for the next request
        return response
