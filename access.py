"""Who may: the secret, the addresses, the login of the page; and what happens to those who may not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NoReturn

from fastapi import Request, Response

from guard import Brake, SecretGuard, address_is_allowed, client_address
from login import Login
from signals import claimed_secrets
from web import BadRequest, bearer, error_body, json_reply, read_body
from wiring import Gatehouse

log_of_strangers = logging.getLogger("gatehouse.strangers")

SLOWED_SECONDS = 1.0
MAX_SLOWED = 100
# Behind a proxy it may be anything that the sender wrote; it is remembered and told.
LONGEST_ADDRESS = 64


class Access:
    """Alerts need the secret; what is the owner's needs the secret or a login."""

    def __init__(self, gate: Gatehouse, show_link: Callable[[str], None]) -> None:
        """`show_link` gets the token of the next one-time login link, where there is no password."""
        self.login = Login(gate.settings, gate.sessions, self.address, show_link, gate.metrics.refused)
        self._settings = gate.settings
        self._refused = gate.metrics.refused
        self._secret = SecretGuard(gate.secret)
        self._brake = Brake()
        self._slowed = 0

    def may_alert(self, request: Request, body: bytes, fields: Any) -> bool:
        allowed = self._settings.allowed_ips
        if allowed and not address_is_allowed(self.address(request), allowed):
            return False
        if self._secret.accepts([*bearer(request), request.path_params.get("path_secret", "")]):
            return True
        return self._secret.accepts(claimed_secrets(body, fields))

    async def unauthorised(self, request: Request) -> Response:
        """One answer for every failure; who keeps guessing waits for it, as long as that costs us nothing."""
        self._refused()
        address = self.address(request)[:LONGEST_ADDRESS]
        failures = self._brake.failed(address)
        if failures == 1 or failures % 1000 == 0:
            log_of_strangers.warning("wrong secret or address: %s, %d in this minute", address, failures)
        if self._brake.is_on(failures) and self._slowed < MAX_SLOWED:
            self._slowed += 1
            try:
                await asyncio.sleep(SLOWED_SECONDS)
            finally:
                self._slowed -= 1
        return json_reply(401, error_body("unauthorised: send the webhook secret"))

    def address(self, request: Request) -> str:
        peer = request.client.host if request.client else ""
        # A proxy may add a line of its own below the one that the sender wrote.
        forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
        return client_address(peer, forwarded, self._settings.trusted_proxy_hops)

    def who(self, request: Request) -> str:
        """Of one who may: how he showed it, and from where."""
        shown = "login" if self.login.may_change(request) else "secret"
        return f"{shown} from {self.address(request)[:LONGEST_ADDRESS]}"

    def may_look(self, request: Request) -> bool:
        return self._knows_secret(request) or self.login.may_look(request)

    def _knows_secret(self, request: Request) -> bool:
        return self._secret.accepts(bearer(request))

    async def owner_only(self, request: Request) -> None:
        if self._knows_secret(request):
            return
        if request.method == "POST":
            await self.owners_body(request)
        elif not self.login.may_look(request):
            await self._refuse(request)

    async def owners_body(self, request: Request) -> bytes:
        """With the owner's secret in it, or in the header, or from the page of whoever is logged in."""
        body = await read_body(request)
        with_secret = self._knows_secret(request) or self._secret.accepts(claimed_secrets(body))
        if not with_secret and not self.login.may_change(request):
            await self._refuse(request)
        return body

    async def _refuse(self, request: Request) -> NoReturn:
        await self.unauthorised(request)
        raise BadRequest(401, "unauthorised: send the webhook secret")
