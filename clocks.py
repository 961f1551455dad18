"""How far the machine's clock may be from an exchange's before nothing is let in any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from broker import BrokerError

# Beyond this an uncorrected request would be refused, whichever way the clock is wrong: behind by the window, or ahead
# by the second that Binance allows. Requests are corrected; the age of an alert and the day's counts are the machine's.
MAX_CLOCK_SKEW_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Compared:
    """`offset_seconds` added to the machine's clock is the exchange's; `problem` is empty when that is little."""

    offset_seconds: float
    problem: str


def compare_clocks(name: str, ask: Callable[[], Mapping[str, Any]]) -> Compared:
    """`ask` gets {"serverTime": milliseconds} from the exchange. Raises BrokerError."""
    before = time.time()
    reply = ask()
    after = time.time()
    machine, unsure = (before + after) / 2, (after - before) / 2
    try:
        server = int(reply["serverTime"]) / 1000
        return Compared(server - machine, clock_problem(name, machine, server, unsure))
    except (KeyError, TypeError, ValueError, OverflowError, OSError) as exc:
        raise BrokerError(f"{name} sent no usable time") from exc


def clock_problem(name: str, machine: float, server: float, unsure: float) -> str:
    """Empty when they may be the same; an answer that took long proves less by `unsure` seconds."""
    apart = abs(server - machine)
    if apart - unsure <= MAX_CLOCK_SKEW_SECONDS:
        return ""
    ours, theirs = (f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}" for seconds in (machine, server))
    return (
        f"the machine's clock shows {ours} UTC, {name}'s {theirs} UTC: {apart:.1f} s apart, limit is "
        f"{MAX_CLOCK_SKEW_SECONDS:g} s; set the machine's clock (NTP), then entries are taken again by themselves"
    )
