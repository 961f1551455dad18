"""What an alert asks to be done, and how much of it: positions, verb, intent and size."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple, TypeVar

import alert_values as values
from alert_fields import NOTHING, Found, Said, agreed, agreed_value, contradiction, disagree
from alert_values import AlertError, Value
from alert_words import (
    CLOSING_COMMENTS,
    INTENTS,
    NO_POSITION_SIDE,
    ORDER_SIDE,
    ORDER_SIDE_FIELDS,
    PERCENT_OF,
    POSITIONS,
    SIZE_MEANINGS,
    UNIT_OF_FIELD,
    UNIT_SIGNS,
    UNITS,
    UNITS_WANTED,
    VERBS,
    VERBS_WANTED,
    Verb,
    squeeze,
)
from models import Action

T = TypeVar("T")

# --- positions ---------------------------------------------------------------------------------------------------


class Positions(NamedTuple):
    """Before and after the order, as the strategy sees them; None = not stated. `size` is signed and after."""

    before: str | None
    after: str | None
    after_field: str
    size: Decimal | None

    @property
    def heading(self) -> str | None:
        """Long, short or flat after the order: by word, else by size."""
        return self.after if self.after is not None or self.size is None else _heading(self.size)


def _heading(size: Decimal) -> str:
    return "flat" if size == 0 else "long" if size > 0 else "short"


def read_positions(found: Found, from_type: list[Said]) -> Positions:
    """`from_type`: fields called `type` that turned out to hold a market position."""
    stated = [*from_type, *found.get("market_position", NOTHING), *_flat_by_verb(found)]
    after = agreed_value(stated, _position) if stated else None
    after_field = stated[0].path if stated else "market_position"
    before = agreed(found, "prev_market_position", _position)
    return Positions(before, after, after_field, _position_size(found, after, after_field))


def _flat_by_verb(found: Found) -> list[Said]:
    """`action: flat` carries {{strategy.market_position}}, and so does Finandy's `positionSide: flat`."""
    said = found.get("action", NOTHING) + found.get("position_side", NOTHING)
    return [one for one in said if isinstance(one.value, str) and one.value.strip().lower() == "flat"]


def _position(field: str, raw: Value) -> str:
    word = raw.strip().lower() if isinstance(raw, str) else ""
    if word in POSITIONS:
        return POSITIONS[word]
    raise AlertError(field, "long, short or flat", raw)


def _position_size(found: Found, after: str | None, after_field: str) -> Decimal | None:
    """Signed. TradingView's market_position_size has no sign of its own: the word gives it."""
    if "position_size" not in found and "market_position_size" not in found:
        return None
    sizes = [(said.path, values.number(said.path, said.value)) for said in found.get("position_size", NOTHING)]
    for said in found.get("market_position_size", NOTHING):
        absolute = values.number(said.path, said.value)
        if absolute < 0:
            raise AlertError(said.path, "a size without a sign", said.value)
        if after is not None:
            sizes.append((said.path, absolute.copy_negate() if after == "short" else absolute))
    for field, size in sizes:
        if size != sizes[0][1]:
            raise contradiction(sizes[0][0], str(sizes[0][1]), field, str(size))
        if after is not None and _heading(size) != after:
            raise contradiction(field, str(size), after_field, after)
    return sizes[0][1] if sizes else None  # a market_position_size without a position says nothing


# --- the order ---------------------------------------------------------------------------------------------------


class Order(NamedTuple):
    action: Action
    intent: str | None  # None: to be told from the positions
    closes: bool


class Claims(NamedTuple):
    """What all verbs of the alert say together, each part with the field that says it."""

    stage: tuple[str, Said] | None
    side: tuple[Action, Said] | None
    position: tuple[str, Said] | None


def read_order(found: Found, positions: Positions) -> Order:
    """The side of the order, as far as the alert states one; nothing is assumed."""
    stage, side, position = _with_position_side(found, _claims(found))
    if stage is not None and stage[0] == "cancel":
        return Order(Action.CANCEL, "cancel", False)
    if stage is not None and stage[0] == "target":
        return _target(stage[1], side or position, positions)
    closes = stage is not None and stage[0] == "close"
    if position is not None:
        return _order_on_position(position, side, closes, positions)
    if side is not None:
        if stage is None and positions.heading is None and _closes_by_name(found, side[0]):
            # An intent, and no reduce-only: on spot, a sell may still sell what the account held before.
            return Order(side[0], "close_long" if side[0] is Action.SELL else "close_short", False)
        return _order_by_side(side, stage, closes)
    if closes:
        return Order(Action.CLOSE, "close", True)
    if stage is not None:
        raise AlertError(stage[1].path, "buy, sell, long or short as well (no side is assumed)", stage[1].value)
    raise AlertError("action", f"one of {VERBS_WANTED}")


def _claims(found: Found) -> Claims:
    stage: tuple[str, Said] | None = None
    side: tuple[Action, Said] | None = None
    position: tuple[str, Said] | None = None
    for said, verb in _verbs(found):
        stage = _merged(stage, verb.stage, said)
        side = _merged(side, verb.side, said)
        position = _merged(position, verb.position, said)
    return Claims(stage, side, position)


def _merged(known: tuple[T, Said] | None, value: T | None, said: Said) -> tuple[T, Said] | None:
    if value is None:
        return known
    if known is not None and known[0] != value:
        raise disagree(known[1], said)
    return known or (value, said)


def _verbs(found: Found) -> list[tuple[Said, Verb]]:
    verbs = [(said, _verb(said)) for said in found.get("action", NOTHING)]
    for said in found.get("alert", NOTHING):
        if isinstance(said.value, str) and (known := VERBS.get(squeeze(said.value.strip()))):
            verbs.append((said, known))
    for said in found.get("is_buy", NOTHING):
        verbs.append((said, Verb(side=Action.BUY if values.flag(said.path, said.value) else Action.SELL)))
    return verbs


def _verb(said: Said) -> Verb:
    known = VERBS.get(squeeze(said.value.strip())) if isinstance(said.value, str) else None
    if known is None:
        raise AlertError(said.path, f"one of {VERBS_WANTED}", said.value)
    return known


def _with_position_side(found: Found, claims: Claims) -> Claims:
    """Hedge mode's `positionSide`: sell on LONG closes, buy on LONG opens."""
    sides = [said for said in found.get("position_side", NOTHING) if not _is_one_way(said.value)]
    stated = agreed_value(sides, _position) if sides else None
    if stated is None or stated == "flat":
        return claims
    by = sides[0]
    stage = claims.stage
    if stage is None and claims.side is not None:
        stage = ("open" if ORDER_SIDE[stated, False] is claims.side[0] else "close", by)
    return Claims(stage, claims.side, _merged(claims.position, stated, by))


def _is_one_way(value: Value) -> bool:
    return isinstance(value, str) and value.strip().lower() in NO_POSITION_SIDE


def _order_on_position(
    position: tuple[str, Said], side: tuple[Action, Said] | None, closes: bool, positions: Positions
) -> Order:
    """Open or close a stated position; a side that is stated as well must be the one that does it."""
    held, by = position
    action = ORDER_SIDE[held, closes]
    if side is not None and side[0] is not action:
        raise disagree(by, side[1])
    if not closes and positions.after == "flat":
        raise contradiction(by.path, by.value, positions.after_field, "flat")
    return Order(action, f"{'close' if closes else 'open'}_{held}", closes)


def _order_by_side(side: tuple[Action, Said], stage: tuple[str, Said] | None, closes: bool) -> Order:
    action, by = side
    if closes and by.name not in ORDER_SIDE_FIELDS:
        # The side of the order, or of the position to close? Either way it may only close.
        return Order(Action.CLOSE, "close", True)
    if stage is None:
        return Order(action, None, False)
    held = "long" if (action is Action.BUY) is not closes else "short"
    return Order(action, f"{stage[0]}_{held}", closes)


def _closes_by_name(found: Found, action: Action) -> bool:
    """Whether the order's comment or id says that it closes, where nothing else tells what its side is for."""
    if agreed(found, "reverse", values.flag):
        return False
    names = found.get("comment", NOTHING) + found.get("order_id", NOTHING)
    return any(_is_close(said.value, action) for said in names if isinstance(said.value, str))


def _is_close(name: str, action: Action) -> bool:
    """The order's id may as well be that of the entry, and its comment anything: what does not fit says nothing."""
    if name.strip().lower().startswith(CLOSING_COMMENTS):
        return True
    verb = VERBS.get(squeeze(name.strip()), Verb())
    return verb.stage == "close" and (verb.position is None or ORDER_SIDE[verb.position, True] is action)


def _target(by: Said, other: tuple[object, Said] | None, positions: Positions) -> Order:
    if other is not None:
        raise disagree(by, other[1])
    if positions.size is None:
        raise AlertError("position_size", "the position to hold, negative for short")
    return Order(Action.TARGET, "set_position", False)


# --- the size ----------------------------------------------------------------------------------------------------


class Size(NamedTuple):
    """As in `Signal`; all None when the alert leaves the size to the settings."""

    quantity: Decimal | None = None
    amount: Decimal | None = None
    amount_is_margin: bool = False
    percent: Decimal | None = None
    percent_of: str | None = None
    unit: str | None = None

    @property
    def is_stated(self) -> bool:
        return self.unit is not None


class Sized(NamedTuple):
    """One field's size."""

    said: Said
    unit: str
    value: Decimal


NO_SIZE = Size()
SLOTS = {"base": "quantity", "quote": "amount", "margin_quote": "amount"}  # any other unit: percent


def read_size(found: Found, order: Order, is_exit: bool, goes_flat: bool) -> Size:
    """A quantity and an amount may stand side by side; two quantities must be equal."""
    if SIZE_MEANINGS.isdisjoint(found):
        return NO_SIZE
    by_slot: dict[str, Sized] = {}
    for one in _sizes(found, order, is_exit):
        if goes_flat and one.value == 0:
            continue  # `contracts: 0, position_size: 0`: out of all that is held
        if one.value <= 0:
            raise AlertError(one.said.path, "a size above 0", one.said.value)
        other = by_slot.setdefault(SLOTS.get(one.unit, "percent"), one)
        if (other.unit, other.value) != (one.unit, one.value):
            raise disagree(other.said, one.said)
    quantity, amount, percent = (by_slot.get(slot) for slot in ("quantity", "amount", "percent"))
    return Size(
        quantity=quantity and quantity.value,
        amount=amount and amount.value,
        amount_is_margin=amount is not None and amount.unit == "margin_quote",
        percent=percent and percent.value,
        percent_of=percent and PERCENT_OF[percent.unit],
        unit=next((one.unit for one in (quantity, amount, percent) if one), None),
    )


def _sizes(found: Found, order: Order, is_exit: bool) -> list[Sized]:
    stated_unit = agreed(found, "unit", _unit)
    sizes = [_sized(said, stated_unit, is_exit) for said in _quantities(found)]
    for meaning, unit in UNIT_OF_FIELD.items():
        if is_exit and unit == "percent_of_equity":
            unit = "percent_of_position"  # of a way out there is no other: `reduceOnly: true, qtyPct: 50`
        sizes += [_sized(said, unit, is_exit) for said in found.get(meaning, NOTHING)]
    # psick22's bidRate and askRate: percent to buy with, percent to sell; only one of them is this order's.
    rate = {Action.BUY: "buy_rate", Action.SELL: "sell_rate"}.get(order.action, "")
    unit = "percent_of_equity" if rate == "buy_rate" else "percent_of_position"
    return sizes + [_sized(said, unit, is_exit) for said in found.get(rate, NOTHING)]


def _quantities(found: Found) -> list[Said]:
    """`volume` is the bar's, except in the dialect that has a trade_type (AlgoWay)."""
    quantities = found.get("quantity", NOTHING)
    return quantities + found.get("volume", NOTHING) if "trade_type" in found else quantities


def _unit(field: str, raw: Value) -> str:
    unit = UNITS.get(squeeze(raw.strip())) if isinstance(raw, str) else None
    if unit is None:
        raise AlertError(field, f"one of {UNITS_WANTED}", raw)
    return unit


def _sized(said: Said, stated_unit: str | None, is_exit: bool) -> Sized:
    """One size with its unit: from a sign in the value, the name of the field or a unit field; else base units."""
    sign, value = values.number_with_unit(said.path, said.value)
    if sign and stated_unit and stated_unit not in UNIT_SIGNS[sign]:
        raise AlertError(said.path, f"a size in one unit: the alert also says {stated_unit}", said.value)
    unit = stated_unit or (UNIT_SIGNS[sign][0] if sign else "base")
    if unit == "percent":
        unit = "percent_of_position" if is_exit else "percent_of_equity"
    if unit in PERCENT_OF:
        return Sized(said, unit, values.percent(said.path, said.value))
    return Sized(said, unit, value)


# --- all three together ------------------------------------------------------------------------------------------


def read_intent(order: Order, positions: Positions, size: Size) -> str | None:
    """What the order is for: open_long, reverse_short, reduce … None when the alert does not say."""
    _refuse_unclear_close(order, positions, size)
    if order.action is Action.CLOSE and size.percent is not None and size.percent < 100:
        return "reduce"
    if order.intent is not None:
        return order.intent
    if positions.size is not None and positions.after is None and positions.before is None and not size.is_stated:
        return "set_position"  # OpenAlgo's smart order
    return INTENTS.get((order.action, positions.before or "", positions.heading or ""))


def _refuse_unclear_close(order: Order, positions: Positions, size: Size) -> None:
    """Close, and yet hold something afterwards: a part? of what size?"""
    if order.action is Action.CLOSE and positions.heading in ("long", "short") and not size.is_stated:
        field = positions.after_field if positions.after else "position_size"
        raise contradiction("action", "close", field, positions.heading)
