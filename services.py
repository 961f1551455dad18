"""The services that bring messages to the owner, by apprise: the only file that knows it.

Apprise is imported by the first function that needs it, as it costs 14 MiB and half a second: who wants no messages
pays nothing. https://github.com/caronc/apprise/wiki says what an address looks like. An address holds tokens: it is in
no name, no log line and no problem here.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from apprise import Apprise

LONGEST_MESSAGE = 1_500  # characters; the shortest common limit above that of an SMS is Discord's 2,000
SHORTEST_TOKEN = 8  # shorter parts of an address are words like "true", and hiding them would make the log unreadable


def addresses(urls: str) -> tuple[str, ...]:
    """One by one. An address may hold commas itself, so one ends only where the next one begins."""
    parts = re.split(r"[,\s]+(?=[A-Za-z][A-Za-z0-9+.-]*://)", urls)
    return tuple(dict.fromkeys(address for part in parts if (address := part.strip(", \t"))))


def tokens(address: str, shortest: int = SHORTEST_TOKEN) -> set[str]:
    """What of an address is secret: all of it but names of machines, whole and in parts, as written and as meant."""
    parts = re.split(r"[/:@?&=,;]+", address.partition("://")[2])
    long = [part for part in parts if len(part) >= shortest and not _names_a_machine(part)]
    return {address, *long, *map(unquote, long)}


def _names_a_machine(part: str) -> bool:
    return re.fullmatch(r"(\d{1,3}\.){3}\d{1,3}|localhost|([A-Za-z0-9-]+\.)+[A-Za-z]{2,12}", part) is not None


def is_understood(address: str) -> bool:
    return _opened(address) is not None


class Service:
    """One address. `number` is its place in the setting, counted from one."""

    def __init__(self, address: str, number: int) -> None:
        """Raises ValueError when apprise does not understand it."""
        opened = _opened(address)
        if opened is None:
            raise ValueError(f"address {number} is none that apprise understands")
        plugin = opened[0]
        self._apprise = opened
        self._tokens = sorted(tokens(address, shortest=4), key=len, reverse=True)
        self.name = f"{plugin.service_name} ({number})"
        self.longest = min(LONGEST_MESSAGE, int(plugin.body_maxlen))

    def __repr__(self) -> str:
        return f"Service({self.name})"

    def send(self, title: str, text: str) -> str:
        """Blocks until the service has answered. Why it did not take the message; empty when it did."""
        try:
            result = self._apprise.notify(body=text, title=title, body_format="text")
        except Exception as exc:
            # A plug-in may fail in any way, and its words may hold the address.
            return type(exc).__name__
        return "" if result else self._why(" ".join(str(entry.message) for entry in result.logs()))

    def _why(self, said: str) -> str:
        for token in self._tokens:
            said = said.replace(token, "[secret]")
        return " ".join(said.split())[:200] or "not taken"


def _opened(address: str) -> Apprise | None:
    # What it logs holds addresses and what a stranger's server answered. Without a handler of its own it would go to
    # stderr as long as nothing is set up.
    silent = logging.getLogger("apprise")
    silent.propagate = False
    if not silent.handlers:
        silent.addHandler(logging.NullHandler())
    from apprise import Apprise, AppriseAsset, PersistentStoreMode

    asset = AppriseAsset(
        app_id="Gatehouse",
        app_desc="Gatehouse",
        app_url="",
        # One service on one thread of ours; nothing of it on the disk; no text is anything but text.
        async_mode=False,
        storage_mode=PersistentStoreMode.MEMORY,
        interpret_escapes=False,
        interpret_emojis=False,
        secure_logging=True,
    )
    opened = Apprise(asset=asset)
    try:
        return opened if opened.add(address) and len(opened) == 1 else None
    except Exception:
        return None
