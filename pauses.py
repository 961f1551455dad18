"""How long an exchange asked to be left alone, kept over a restart: calling on through a ban makes it longer.

A file of its own beside the journal: it is written by whatever thread was told, and it is no record of what was traded.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from models import Account

log = logging.getLogger("gatehouse.pauses")

FILE_NAME = "pauses.json"
# Binance's longest ban: https://developers.binance.com/docs/binance-spot-api-docs/rest-api/limits
# What says more was written by a clock that was wrong.
LONGEST_SECONDS = 3 * 86_400.0


class Pauses:
    """When each account may be called again, by the machine's clock."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._lock = threading.Lock()
        self._until = dict(_read(self._path))

    def left(self, account: Account, path: str = "") -> float:
        """In seconds; 0 when it may be called. With a path, of what is closed alone."""
        return min(LONGEST_SECONDS, max(0.0, self._until.get(_key(account, path), 0.0) - time.time()))

    def paths(self, account: Account) -> list[str]:
        """Of which it was asked for a pause, over or not."""
        before = _key(account, "/").removesuffix("/")
        return [key.removeprefix(before) for key in list(self._until) if key.startswith(f"{before}/")]

    def keep(self, account: Account, seconds: float, path: str = "") -> None:
        with self._lock:
            self._until[_key(account, path)] = time.time() + seconds
            try:
                self._write()
            except OSError as exc:
                # This process knows it all the same.
                log.warning("%s asked for a pause; a restart will not know of it: %s", account, exc.strerror)

    def _write(self) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._until), "ascii")
        os.replace(new, self._path)


def _key(account: Account, path: str) -> str:
    return f"{account} {path}" if path else str(account)


def _read(path: Path) -> Mapping[str, float]:
    """A file that says nothing sensible is as good as none: then the exchange says it once more."""
    try:
        return {str(account): float(until) for account, until in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
