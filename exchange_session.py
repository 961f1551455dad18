"""The HTTP session under an exchange's client: urllib3's connections and TLS, in the shape that python-binance expects.

`requests` works out settings, environment, cookies, proxies and redirects anew for every request; here none of them
exists. What that saves is in docs/performance.md. The exceptions stay those of `requests`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import certifi
import requests
import urllib3
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError

CONNECTIONS = 64


class ExchangeSession(requests.Session):
    """Follows no redirect, keeps no cookie, asks no proxy and no .netrc, and sends nothing twice."""

    def __init__(self, headers: Mapping[str, Any]) -> None:
        super().__init__()
        self.headers.update(headers)
        self._own_headers: dict[str, Any] = dict(self.headers)
        self._key = str(headers.get("X-MBX-APIKEY", "")).encode()
        # Not from the environment: a proxy has no business between an owner and an exchange.
        self._pools = urllib3.PoolManager(
            maxsize=CONNECTIONS, retries=False, cert_reqs="CERT_REQUIRED", ca_certs=certifi.where()
        )

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
        """The reply, read to its end. Raises ConnectTimeout when the request certainly never left, and otherwise
        another of requests' exceptions; none of them repeats the request, which is signed."""
        target = f"{url}?{params}" if params else url
        body = data if isinstance(data, str) or data is None else urlencode(data)
        connect, read = timeout
        limits = urllib3.Timeout(connect=connect, read=read)
        try:
            reply = self._pools.connection_from_url(url).urlopen(
                method.upper(),
                target[target.index("/", 8) :],
                body=body,
                headers=self._own_headers | (headers or {}),
                timeout=limits,
                retries=False,
                redirect=False,
            )
        except (ConnectTimeoutError, NewConnectionError) as exc:
            raise requests.ConnectTimeout(type(exc).__name__) from None
        except ReadTimeoutError:
            raise requests.ReadTimeout("no answer in time") from None
        except urllib3.exceptions.SSLError as exc:
            raise requests.exceptions.SSLError(type(exc).__name__) from None
        except (HTTPError, OSError, ValueError) as exc:
            raise requests.ConnectionError(type(exc).__name__) from None
        return _response(reply, self._key)


def _response(reply: urllib3.BaseHTTPResponse, key: bytes) -> requests.Response:
    response = requests.Response()
    response.status_code = reply.status
    response.headers = CaseInsensitiveDict(reply.headers)
    response.encoding = "utf-8"
    # An error's text goes to the records and to who sent the alert; one that echoes the request must not show the key.
    response._content = reply.data.replace(key, b"***") if key else reply.data
    return response
