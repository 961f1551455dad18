"""Numbers in a broker's reply, as exact as they were sent; what is missing or no number is a bad reply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from models import ZERO


class BadReply(Exception):
    """The reply is not what was asked for."""


# What reading a reply of another shape than expected can raise.
UNUSABLE = (BadReply, AttributeError, LookupError, TypeError, ValueError, InvalidOperation)


def signed(row: Mapping[str, Any], name: str) -> Decimal:
    try:
        value = Decimal(str(row[name]))
    except (KeyError, TypeError, InvalidOperation) as exc:
        raise BadReply(f"{name} is missing or not a number") from exc
    if not value.is_finite():
        raise BadReply(f"{name} is not a plain number")
    return value


def unsigned(row: Mapping[str, Any], name: str) -> Decimal:
    value = signed(row, name)
    if value < 0:
        raise BadReply(f"{name} is not a plain number")
    return value


def total(rows: Iterable[Mapping[str, Any]], name: str) -> Decimal:
    return sum((unsigned(row, name) for row in rows), ZERO)
