"""The log: one line per event on stderr, in UTC, with every secret's value taken out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable


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
