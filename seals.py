"""Records of the journal as sealed text, so that a single changed character is noticed by whoever reads it."""

from __future__ import annotations

import zlib
from typing import TypeVar

from codec import from_text

T = TypeVar("T")


class JournalError(Exception):
    """The record cannot be written or read; nothing may be decided until it can."""


class DamagedRecord(JournalError, ValueError):
    """A record is not what was written."""


def sealed(body: str) -> str:
    """SQLite notices pages that make no sense, not a digit that changed within one."""
    return f"{body}#{zlib.crc32(body.encode()):08x}"


def opened(kind: type[T], body: str) -> T:
    """Raises DamagedRecord when it is not what was written."""
    # Records of the first journals have no seal; they end with their own brace.
    text = body if body.endswith("}") else body.rpartition("#")[0]
    if body not in (text, sealed(text)):
        raise DamagedRecord("a record of the journal is damaged: restore it from a backup")
    return from_text(kind, text)
