"""The log: one line per event on stderr, in UTC, with every secret's value taken out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

STRANGERS_LINES_PER_MINUTE = 20


class Redacted(logging.Formatter):
    """Takes out the values of all secrets, also from tracebacks, and keeps one event on one line per line of text."""

    converter = staticmethod(time.gmtime)

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self._secrets = tuple(secret for secret in secrets if secret)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return text.replace("\r", "\\r")


class Sparing(logging.Filter):
    """Lets only so many warnings of a minute through: strangers cause them, as many as they like, and disks are finite.

    The first one of a later minute says how many were left out. Errors always pass.
    """

    def __init__(self, most: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most = most
        self._monotonic = monotonic
        self._since, self._shown, self._left_out = monotonic(), 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        if self._monotonic() - self._since > 60:
            self._since, self._shown = self._monotonic(), 0
        if self._shown >= self._most:
            self._left_out += 1
            return False
        if self._left_out:
            record.msg = f"{record.msg} ({self._left_out} like this were left out)"
        self._shown, self._left_out = self._shown + 1, 0
        return True


def set_up_logging(secrets: Iterable[str], level: int = logging.INFO) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(Redacted(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Nothing of this is shown, and to find it out costs half of a line's time:
    # https://docs.python.org/3/howto/logging.html#optimization
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    # These write whole URLs, signed queries included, at DEBUG.
    for noisy in ("urllib3", "binance", "asyncio", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # What strangers can write to: wrong secrets, and requests that are none.
    for name in ("gatehouse.strangers", "uvicorn.error"):
        logging.getLogger(name).filters[:] = [Sparing(STRANGERS_LINES_PER_MINUTE)]
