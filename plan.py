"""What an alert means beside what is held: a way out, an entry, or a reversal (out first, then in). Pure.

On spot a sell can only be a way out. On futures the side alone says nothing: a closing "sell" must never open a short,
and what a "sell" does depends on what is held and on the position that the alert states as its target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import NamedTuple

import sizing
from books import WORDS
from models import ZERO, Action, Market, Side, Signal, plain
from sizing import Wish

SIDE = {1: Side.BUY, -1: Side.SELL}
SIGN = {Action.BUY: 1, Action.SELL: -1, "long": 1, "short": -1, "flat": 0}
# What arrived may be less than what was ordered by the fee: so near, a target is reached.
REACHED = Decimal("0.005")
AIMS = {"open_long": 1, "reverse_long": 1, "open_short": -1, "reverse_short": -1}
CLOSES = {"close_long": 1, "close_short": -1}
OUT = frozenset({*CLOSES, "close", "reduce"})


class Held(NamedTuple):
    """`signed`: base units, negative for a short. `heading`: its sign when all that is under way has ended."""

    signed: Decimal
    heading: int
    is_moving: bool


class Leg(NamedTuple):
    """One order to be: out of what is held, or an entry on that side."""

    is_exit: bool
    side: Side
    wish: Wish
    whatever: bool = False  # out of what is held when it leaves, long or short


@dataclass(frozen=True, slots=True)
class Plan:
    """One leg; of a reversal two. `nothing`: the check's code and the reason why there is nothing to do."""

    legs: tuple[Leg, ...]
    nothing: tuple[str, str] | None = None

    @property
    def is_reversal(self) -> bool:
        return len(self.legs) == 2


def plan(signal: Signal, market: Market, held: Held, default_size: Wish) -> Plan:
    """`default_size`: of entries whose alert names none."""
    if signal.action is Action.CANCEL:
        return _not("cancel", "An alert that cancels orders")
    if market is Market.SPOT:
        return _on_spot(signal, held, default_size)
    return _on_futures(signal, held, default_size)


def may_enter(signal: Signal, market: Market) -> bool:
    """Whether it can be anything else than a way out, whatever is held."""
    if signal.action is Action.CLOSE or signal.goes_flat or signal.reduce_only:
        return False
    return market is Market.FUTURES or signal.action is not Action.SELL


# --- spot -------------------------------------------------------------------------------------------------------------


def _on_spot(signal: Signal, held: Held, default_size: Wish) -> Plan:
    target = signal.position_size
    if target is not None and target != ZERO and _is_target_alone(signal):
        # The nearest that spot can come to a short is to hold nothing.
        return _to_target(signal, held, target) if target > 0 else Plan((Leg(True, Side.SELL, Wish(reduce_only=True)),))
    if covers_short(signal):
        nothing = ("no_position", f"No position to close: {signal.symbol} on spot is never short")
        return Plan((Leg(True, Side.SELL, sizing.exit_wish(signal)),), nothing)
    if signal.action in (Action.SELL, Action.CLOSE) or signal.goes_flat:
        return Plan((Leg(True, Side.SELL, sizing.exit_wish(signal)),))
    return Plan((Leg(False, Side.BUY, sizing.entry_wish(signal, default_size)),))


def covers_short(signal: Signal) -> bool:
    """Buys back a short: nothing that spot could hold."""
    if signal.action is not Action.BUY or signal.goes_flat:
        return False
    closes = signal.reduce_only or signal.intent in ("close_short", "reduce")
    stays_short = (signal.position_size or ZERO) < ZERO and not _is_target_alone(signal)
    return closes or stays_short or signal.market_position == "short"


def wants_short(signal: Signal) -> bool:
    return signal.intent in ("open_short", "reverse_short") or signal.market_position == "short"


# --- futures ----------------------------------------------------------------------------------------------------------


def _on_futures(signal: Signal, held: Held, default_size: Wish) -> Plan:
    found = _meant(signal, held, default_size)
    only_out = signal.reduce_only or signal.intent in OUT
    return _without_entry(signal, found) if only_out else found


def _without_entry(signal: Signal, found: Plan) -> Plan:
    """An alert that says that it closes never opens, whatever else it says."""
    legs = tuple(leg for leg in found.legs if leg.is_exit)
    return replace(found, legs=legs) if legs else _not("no_position", f"No position to close: {signal.symbol} is flat")


def _meant(signal: Signal, held: Held, default_size: Wish) -> Plan:
    side = SIGN.get(signal.action, 0)
    if signal.action is Action.CLOSE or signal.goes_flat:
        return _close(signal, held)
    target = _target_size(signal)
    if target is not None:
        return _to_target(signal, held, target)
    aim = _aim(signal, side)
    if signal.intent in CLOSES or signal.reduce_only or (aim and aim != side):
        return _reduce(signal, held, -side)
    if held.heading in (0, aim or side):
        return Plan((Leg(False, SIDE[side], sizing.entry_wish(signal, default_size)),))
    if not aim:
        return Plan((Leg(True, SIDE[side], sizing.reducing_wish(signal)),))
    return _reversal(aim, _reversed_size(signal, held, default_size))


def _aim(signal: Signal, side: int) -> int:
    """The position that the alert states as its target: 1 long, -1 short, 0 none stated."""
    if signal.market_position is not None:
        return SIGN[signal.market_position]
    return side if signal.reverse else AIMS.get(signal.intent or "", 0)


def _target_size(signal: Signal) -> Decimal | None:
    """The position's size after the order, where it is in the same units as the order: both as the strategy counts."""
    return signal.position_size if _is_target_alone(signal) or signal.quantity is not None else None


def _is_target_alone(signal: Signal) -> bool:
    return signal.action is Action.TARGET or signal.intent == "set_position"


def _close(signal: Signal, held: Held) -> Plan:
    """Whichever way its side points, and never more than is held."""
    named = CLOSES.get(signal.intent or "") if signal.market_position is None else None
    found = _out(signal, held, named or _there(held), sizing.closing_wish(signal))
    return found if named else replace(found, legs=(found.legs[0]._replace(whatever=True),))


def _reduce(signal: Signal, held: Held, position: int) -> Plan:
    return _out(signal, held, position, sizing.reducing_wish(signal))


def _there(held: Held) -> int:
    """A way out that is stuck must not keep others from trying: what is held counts, whatever is to become of it."""
    return held.heading or _sign(held.signed)


def _out(signal: Signal, held: Held, position: int, wish: Wish) -> Plan:
    """Out of a long (1) or a short (-1)."""
    nothing, there = None, _there(held)
    if not there or there != position:
        wanted = f"no {WORDS[position]} of" if position else "nothing of"
        but = f", held is {WORDS[there]}" if there else ""
        nothing = ("no_position", f"No position to close: {wanted} {signal.symbol} is held by this program{but}")
    return Plan((Leg(True, SIDE[-position or -1], wish),), nothing)


def _reversal(aim: int, size: Wish) -> Plan:
    return Plan((Leg(True, SIDE[aim], Wish(reduce_only=True)), Leg(False, SIDE[aim], size)))


def _reversed_size(signal: Signal, held: Held, default_size: Wish) -> Wish:
    """What is left of a quantity once it has closed what is held; one that only equals it names the new position."""
    if signal.quantity is None or signal.quantity <= abs(held.signed):
        return sizing.entry_wish(signal, default_size)
    return Wish(quantity=signal.quantity - abs(held.signed))


# --- both -------------------------------------------------------------------------------------------------------------


def _to_target(signal: Signal, held: Held, target: Decimal) -> Plan:
    """From what is held to what the alert states, in the direction of its side if it has one."""
    side, aim = SIGN.get(signal.action, 0), _sign(target)
    if held.is_moving and _there(held) == aim and side == -aim and signal.quantity is not None:
        # That it leads out of what is held is known all the same, and how much of it the strategy closes.
        return _reduce(signal, held, aim)
    if held.is_moving and held.heading == aim:
        return _not("unresolved", f"orders of {signal.symbol} are under way; what is missing is not known yet")
    if held.heading == -aim and held.heading and (not side or side == aim):
        return _reversal(aim, Wish(quantity=abs(target)))
    # What is being closed is none of it, or the target would be missed by so much.
    signed = held.signed if held.heading else ZERO
    missing = target - signed
    if abs(missing) <= abs(target) * REACHED:
        return _not("target", f"Already at the target: {plain(signed)} held, target is {plain(target)}")
    way = _sign(missing)
    if side and way != side:
        numbers = f"{plain(signed)} held, target is {plain(target)}"
        return _not("target", f"Already past the target: {numbers}, a {signal.action.lower()} leads away from it")
    if abs(target) > abs(signed):
        return Plan((Leg(False, SIDE[way], Wish(quantity=abs(missing))),))
    return Plan((Leg(True, SIDE[way], Wish(quantity=abs(missing), reduce_only=True)),))


def _not(check: str, reason: str) -> Plan:
    return Plan((Leg(True, Side.SELL, Wish(reduce_only=True)),), (check, reason))


def _sign(number: Decimal) -> int:
    return (number > 0) - (number < 0)
