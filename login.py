"""The way into the page and out of it: cookie, origin, token, tries. Says who is logged in; shows nothing itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from fastapi import Request, Response

from config import Settings
from guard import Brake
from sessions import LIFE, Sessions
from web import BadRequest

log = logging.getLogger("gatehouse.login")
log_of_strangers = logging.getLogger("gatehouse.strangers")

TOKEN_HEADER = "x-csrf-token"
MAX_WAITING = 10
TOO_MANY = "too many tries: wait a minute"


class Login:
    """Who is logged in. A change needs the cookie, the page's own origin, and the token that the page was given."""

    def __init__(
        self,
        settings: Settings,
        sessions: Sessions,
        address: Callable[[Request], str],
        tell: Callable[[str], None],
        refused: Callable[[], None],
    ) -> None:
        """`address` says who asks; `tell` shows the owner the token of the next one-time link; `refused` counts."""
        self.sessions = sessions
        self._port = settings.port
        self._behind_proxy = settings.trusted_proxy_hops > 0
        self._address = address
        self._tell = tell
        self._refused = refused
        self._brake = Brake()
        self._waiting = 0
        self._one_at_a_time = asyncio.Lock()

    def session(self, request: Request) -> str | None:
        """Of the browser that asks, while it lasts."""
        cookie = request.cookies.get(self.cookie_name)
        return self.sessions.session(cookie) if cookie else None

    def may_look(self, request: Request) -> bool:
        return self.session(request) is not None

    def may_change(self, request: Request) -> bool:
        session = self.session(request)
        if session is None or not self.comes_from_here(request):
            return False
        return self.sessions.is_token(session, request.headers.get(TOKEN_HEADER, ""))

    def is_own_form(self, request: Request, token: str) -> bool:
        """As `may_change`, of a form, which cannot send a header: the token is one of its fields."""
        session = self.session(request)
        return session is not None and self.comes_from_here(request) and self.sessions.is_token(session, token)

    def comes_from_here(self, request: Request) -> bool:
        """Whether a page of this very address sent it. Browsers say so with every POST; who does not say is no browser.

        https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html
        """
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return False
        try:
            origin = urlsplit(request.headers.get("origin", "")).netloc.lower()
        except ValueError:
            return False
        return bool(origin) and origin in self._own_names(request)

    def _own_names(self, request: Request) -> set[str]:
        names = {request.headers.get("host", "").lower()}
        if self._behind_proxy:
            names.add(request.headers.get("x-forwarded-host", "").lower())
        return names - {""}

    # --- in and out -------------------------------------------------------------------------------------------------

    async def enter(self, request: Request, password: str, token: str) -> str:
        """A new session's cookie. Raises BadRequest: 401 when it is the wrong one, 429 after too many of those."""
        who = _network(self._address(request))
        if self._brake.is_on(self._brake.failures(who) + 1) or self._waiting >= MAX_WAITING:
            raise BadRequest(429, TOO_MANY)
        if not self.comes_from_here(request):
            raise BadRequest(403, "this did not come from the login page")
        cookie = self.sessions.enter_by_link(token) if token else await self._checked(password)
        if cookie is None:
            self._refused()
            log_of_strangers.warning("wrong password: %s, %d in this minute", who, self._brake.failed(who))
            raise BadRequest(401, "that is not the password" if self.sessions.has_password else "this link was used")
        log.info("login from %s", who)
        if not self.sessions.has_password:
            self._tell(self.sessions.link_token)
        return cookie

    async def _checked(self, password: str) -> str | None:
        """One at a time: whoever tries many at once costs one core, and others wait their turn."""
        self._waiting += 1
        try:
            async with self._one_at_a_time:
                return await asyncio.to_thread(self.sessions.enter, password)
        finally:
            self._waiting -= 1

    def keep(self, request: Request, response: Response, cookie: str) -> None:
        """Has the browser show it from now on: to this site only, to no script, and not in the clear after TLS."""
        response.set_cookie(
            self.cookie_name,
            cookie,
            max_age=int(LIFE.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=_is_encrypted(request),
        )

    def leave(self, request: Request, response: Response) -> None:
        if session := self.session(request):
            self.sessions.leave(session)
        response.delete_cookie(self.cookie_name, httponly=True, samesite="strict", secure=_is_encrypted(request))

    @property
    def cookie_name(self) -> str:
        """A browser does not tell the ports of one host apart; two daemons there must not log each other out."""
        return f"gatehouse_{self._port}"


def _is_encrypted(request: Request) -> bool:
    # Whoever forges the header keeps his own cookie from being sent in the clear.
    forwarded = request.headers.get("x-forwarded-proto", "").split(",")[-1].strip().lower()
    return "https" in (request.url.scheme, forwarded)


def _network(address: str) -> str:
    """Who tries: with IPv6, one customer has 2**64 addresses."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    return str(ip_network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else str(parsed)
