"""FlatTrade's login of the day: the owner logs in with a browser, what comes back is exchanged for a token, kept 0600.

There is no other way: a token needs the owner's second factor, lives until five in the morning (IST) and cannot be
renewed by a machine: https://pi.flattrade.in/docs. Neither the secret nor the token is in any text that is made here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from urllib.parse import quote

from broker import BrokerError
from broker_http import Answered, Http
from flattrade_orders import IST

FILE_NAME = "flattrade_token.json"
BROWSER_URL, TOKEN_URL = "https://auth.flattrade.in", "https://authapi.flattrade.in"
# FlatTrade clears its tokens from then on, every day.
CLEARED_AT = time(5)
SECONDS = 10.0
# So long somebody may take to log in at FlatTrade; its own code lives for minutes.
LOGIN_TAKES = timedelta(minutes=15)
LOG_IN = "log in at GET /flattrade/login (the page's overview leads there)"


class SessionOver(BrokerError):
    """Nothing can be asked and nothing ordered before the owner has logged in."""


@dataclass(frozen=True, slots=True)
class Token:
    """Good from `got_at` until FlatTrade clears it."""

    text: str = field(repr=False)
    got_at: datetime

    @property
    def dies_at(self) -> datetime:
        return next_clearing(self.got_at)


def next_clearing(moment: datetime) -> datetime:
    """The first five o'clock in India after it."""
    local = moment.astimezone(IST)
    today = datetime.combine(local.date(), CLEARED_AT, IST)
    return (today if local < today else today + timedelta(days=1)).astimezone(UTC)


def hashed_secret(api_key: str, code: str, api_secret: str) -> str:
    """What shows that we know the secret, without it."""
    return hashlib.sha256(f"{api_key}{code}{api_secret}".encode()).hexdigest()


class FlatTradeLogin:
    """The token in force. Safe to use from several threads."""

    def __init__(
        self,
        api_key: str,
        api_secret: str,
        client_id: str,
        folder: Path,
        clock: Callable[[], datetime],
        auth_url: str = "",
    ) -> None:
        """`auth_url` takes the place of both of FlatTrade's login servers."""
        self._api_key, self._api_secret, self._client_id = api_key, api_secret, client_id
        self._path = folder / FILE_NAME
        self._clock = clock
        self._browser_url = auth_url or BROWSER_URL
        self._http = Http(auth_url or TOKEN_URL, hidden=(api_secret,))
        self._lock = threading.Lock()
        self._token = _read(self._path, client_id)
        self._begun_at: datetime | None = None
        self._told_over = False
        self.on_change: Callable[[str], None] = lambda text: None

    def __repr__(self) -> str:
        return "FlatTradeLogin(...)"

    # --- the token --------------------------------------------------------------------------------------------------

    def token(self) -> str:
        """Raises SessionOver. The owner is told once, not with every question that fails."""
        token, now = self._token, self._clock()
        if token is not None and now < token.dies_at:
            return token.text
        why = (
            "nobody is logged in" if token is None else f"the login of {token.got_at.astimezone(IST):%Y-%m-%d} is over"
        )
        problem = f"FLATTRADE: {why}: {LOG_IN}; until then its alerts are refused, and none is kept for later"
        with self._lock:
            is_news, self._told_over = not self._told_over, True
        if is_news:
            self.on_change(problem)
        raise SessionOver(problem)

    @property
    def until(self) -> datetime | None:
        """Until when somebody is logged in; None when nobody is."""
        token = self._token
        return token.dies_at if token is not None and self._clock() < token.dies_at else None

    def died(self, token: str) -> None:
        """FlatTrade does not know it any more, before its time. A newer one is left alone."""
        with self._lock:
            if self._token is None or self._token.text != token:
                return
            self._token = None
            self._path.unlink(missing_ok=True)

    # --- the way in -------------------------------------------------------------------------------------------------

    def begin(self) -> str:
        """Where the owner's browser has to go; what it brings back is good for one exchange, and not for long."""
        self._begun_at = self._clock()
        return f"{self._browser_url}/?app_key={quote(self._api_key, safe='')}"

    def finish(self, code: str) -> None:
        """The code that the browser brought back becomes the token; blocks. Raises BrokerError.

        A code that nobody here asked for may be somebody else's: his account would trade our alerts.
        """
        with self._lock:
            begun_at, self._begun_at = self._begun_at, None
        if begun_at is None or not timedelta(0) <= self._clock() - begun_at <= LOGIN_TAKES:
            raise BrokerError("no login was begun here: begin at GET /flattrade/login")
        if not re.fullmatch(r"[A-Za-z0-9._~=+/-]{4,512}", code):
            raise BrokerError("FlatTrade sent no usable code; begin again at GET /flattrade/login")
        token = Token(self._exchanged(code), self._clock())
        with self._lock:
            _write(self._path, token, self._client_id)
            self._token, self._told_over = token, False
        self.on_change(f"FLATTRADE: logged in until {token.dies_at.astimezone(IST):%Y-%m-%d %H:%M} IST")

    def _exchanged(self, code: str) -> str:
        asked = {
            "api_key": self._api_key,
            "request_code": code,
            "api_secret": hashed_secret(self._api_key, code, self._api_secret),
        }
        body = json.dumps(asked).encode()
        headers = {"Content-Type": "application/json"}
        reply = self._http.ask("POST", "/trade/apitoken", seconds=SECONDS, body=body, headers=headers)
        if not isinstance(reply, Answered):
            raise BrokerError(f"FlatTrade's login server did not answer: {reply.reason}")
        return self._token_in(reply)

    def _token_in(self, reply: Answered) -> str:
        """The documentation says `status`, the wire `stat`; a refusal may give no reason at all."""
        try:
            said = json.loads(reply.body)
            word, token, client = said.get("stat") or said.get("status"), said.get("token"), said.get("client")
            emsg = str(said.get("emsg") or "")[:200]
        except (ValueError, AttributeError) as exc:
            raise BrokerError(f"FlatTrade's login server answered HTTP {reply.status} without a token") from exc
        if word != "Ok" or not isinstance(token, str) or not re.fullmatch(r"[!-%'-~]{8,512}", token):
            why = emsg or "it gave no reason: this machine's address is not the registered one, or a key is wrong"
            raise BrokerError(f"FlatTrade gave no token: {why}")
        if client != self._client_id:
            raise BrokerError("FlatTrade logged in another account than FLATTRADE_CLIENT_ID; nothing was changed")
        return token


# --- the file -------------------------------------------------------------------------------------------------------


def _read(path: Path, client: str) -> Token | None:
    """A file that says nothing sensible, or of another client, is as good as none: then the owner logs in once more."""
    try:
        said = json.loads(path.read_bytes())
        if said["client"] != client:
            return None
        return Token(str(said["token"]), datetime.fromisoformat(said["got_at"]).astimezone(UTC))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(path: Path, token: Token, client: str) -> None:
    """For its owner alone, from its first byte on. Raises BrokerError: one that a restart forgets is half a login."""
    new = path.with_suffix(".new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump({"client": client, "token": token.text, "got_at": token.got_at.isoformat()}, file)
        os.replace(new, path)
    except OSError as exc:
        raise BrokerError(f"the token cannot be kept in LOG_DIR: {exc.strerror}") from exc
