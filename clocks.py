"""How far the machine's clock may be from an exchange's before nothing is let in any more."""

from __future__ import annotations

from datetime import UTC, datetime

# Beyond this an uncorrected request would be refused, whichever way the clock is wrong: behind by the window, or ahead
# by the second that Binance allows. Requests are corrected; the age of an alert and the day's counts are the machine's.
MAX_CLOCK_SKEW_SECONDS = 4.0


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
