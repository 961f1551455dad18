"""Logins: a password, or a link that works once, and what a browser shows from then on. Knows no HTTP."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta

from itsdangerous import BadSignature, URLSafeSerializer

LIFE = timedelta(days=7)
MAX_LEFT = 1_000
# 16 MiB and some 50 ms for each try. It only slows down who guesses: the hash is never written anywhere, so nobody can
# try at home, for which it would have to be larger:
# https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html#scrypt
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 1


class Sessions:
    """Nothing of it is written down. A session is a signed value that the browser keeps and shows.

    The signature depends on SESSION_SECRET and on the password: another password ends all sessions. Without
    SESSION_SECRET a restart does, too. A session that was left by `leave` is refused as long as this process runs.
    """

    def __init__(self, password: str | None, session_secret: str | None, clock: Callable[[], datetime]) -> None:
        """Without a password there is a link, which lets in once; then there is another one."""
        self.has_password = password is not None
        self._clock = clock
        self._salt = secrets.token_bytes(16)
        self._hash = b"" if password is None else self._hashed(password)
        key = hashlib.sha256(f"{session_secret or secrets.token_urlsafe(32)}\0{password}".encode()).digest()
        self._signer = URLSafeSerializer(key, salt="session", signer_kwargs={"digest_method": hashlib.sha256})
        self._token_key = hashlib.sha256(key + b"token").digest()
        self._left: OrderedDict[str, None] = OrderedDict()
        self._link_token = secrets.token_urlsafe(24)

    def __repr__(self) -> str:
        return "Sessions(...)"

    @property
    def link_token(self) -> str:
        """What the next one-time link carries; empty where there is a password."""
        return "" if self.has_password else self._link_token

    def enter(self, password: str) -> str | None:
        """A new session's cookie for the right password. Slow on purpose: not on the loop."""
        if not self.has_password or not hmac.compare_digest(self._hashed(password), self._hash):
            return None
        return self._new()

    def enter_by_link(self, token: str) -> str | None:
        """A new session's cookie for the link's token, once."""
        if self.has_password or not hmac.compare_digest(_digest(token), _digest(self._link_token)):
            return None
        self._link_token = secrets.token_urlsafe(24)
        return self._new()

    def session(self, cookie: str) -> str | None:
        """The session's id, while it lasts."""
        try:
            name, until = self._signer.loads(cookie)
        except (BadSignature, ValueError, TypeError):
            return None
        return name if name not in self._left and self._clock().timestamp() < until else None

    def leave(self, session: str) -> None:
        self._left[session] = None
        while len(self._left) > MAX_LEFT:
            self._left.popitem(last=False)

    def token(self, session: str) -> str:
        """What a page of this session sends along with every change: another site cannot know it."""
        return hmac.new(self._token_key, session.encode(), hashlib.sha256).hexdigest()

    def is_token(self, session: str, token: str) -> bool:
        return hmac.compare_digest(_digest(token), _digest(self.token(session)))

    def _new(self) -> str:
        until = int((self._clock() + LIFE).timestamp())
        signed = self._signer.dumps([secrets.token_urlsafe(16), until])
        return signed if isinstance(signed, str) else signed.decode()

    def _hashed(self, password: str) -> bytes:
        text = password.encode("utf-8", "surrogatepass")
        return hashlib.scrypt(text, salt=self._salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
