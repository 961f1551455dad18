"""What the address of a request asks for: parameters as values, or an error that names them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from fastapi import Request

from alert_words import squeeze
from history import Wanted
from models import Decision, OrderStatus
from signals import AlertError
from web import BadRequest

Word = TypeVar("Word", bound=StrEnum)

MAX_ROWS = 1_000
LONGEST_NAME = 40
# Only these: other parameters of an alert's address are let through, senders and proxies add their own.
LIKE_DRY_RUN = frozenset(
    ("dry", "dryrun", "isdryrun", "test", "istest", "testing", "testmode", "simulate", "simulation", "preview")
)


def is_dry_run(request: Request) -> bool:
    """Whoever writes dry_run means it: only a clear no places an order."""
    if not request.scope["query_string"]:
        return False
    return request.query_params.get("dry_run", "no").lower() not in ("0", "false", "no")


def looks_like_dry_run(request: Request, secret: str) -> AlertError | None:
    """Who writes one of these wants to see what would be, and must not buy."""
    if not request.scope["query_string"]:
        return None
    for name in request.query_params:
        if squeeze(name) in LIKE_DRY_RUN and name != "dry_run":
            return AlertError(name, "dry_run, the one name that keeps an alert from trading", name).hiding((secret,))
    return None


def only(request: Request, *names: str) -> None:
    """What is not read would choose nothing, in silence. Raises BadRequest."""
    for name in request.query_params:
        if name not in names:
            there_are = f"there are {', '.join(names)}" if names else "none is taken here"
            raise BadRequest(400, f"{ascii(name)[:LONGEST_NAME]}: no such parameter; {there_are}")


def limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= MAX_ROWS:
        raise BadRequest(400, f"limit must be a whole number from 1 to {MAX_ROWS}")
    return int(text)


def moment(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        # A plus sign in a query string arrives as a space.
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise BadRequest(400, f"{name} must be an ISO time, e.g. 2026-01-31T12:00:00Z") from exc


def in_capitals(text: str | None) -> str | None:
    """As symbols and brokers are written in the records."""
    return text.upper() if text else text


def wanted(query: Mapping[str, str]) -> Wanted:
    """Fields of a form that were left empty choose nothing."""
    return Wanted(
        symbol=in_capitals(query.get("symbol")) or None,
        strategy=query.get("strategy") or None,
        decision=_one_of("decision", query.get("decision"), Decision),
        check=query.get("check") or None,
        broker=in_capitals(query.get("broker")) or None,
        status=_one_of("status", query.get("status"), OrderStatus),
        since=moment("since", query.get("since") or None),
        until=moment("until", query.get("until") or None),
    )


def _one_of(name: str, text: str | None, words: type[Word]) -> Word | None:
    try:
        return words(text.upper()) if text else None
    except ValueError as exc:
        raise BadRequest(400, f"{name} must be one of {', '.join(words)}") from exc
