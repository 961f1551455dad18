"""The fields of an alert by what they mean, and the rule that two which mean the same must say the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import alert_values as values
from alert_values import AlertError, Value
from alert_words import (
    ADVICE,
    BATCH_FIELDS,
    CHANGES_AN_ENTRY,
    CONTAINERS,
    DESCRIPTIVE,
    FIELDS,
    PROTECTION_CONTAINERS,
    SECRET_FIELDS,
    entry_advice,
    squeeze,
)

T = TypeVar("T")


class Said(NamedTuple):
    """One field of the alert: where it stood, its bare name and place in the table of names, and what it says."""

    path: str
    name: str
    rank: int
    value: Value


Found = dict[str, list[Said]]  # by meaning; only what is there and not empty
NOTHING: list[Said] = []
SWITCHED_OFF = (False, "false", "0")
UNREAD = "unread"  # among the meanings: what would change an entry; `Said.name` is then what to say instead


def gather(fields: dict[str, Value]) -> Found:
    """Fields that no table knows are left out: indicator values and the like. What would change an entry is noted."""
    found: Found = {}
    _gather_into(found, fields, ())
    return found


def _gather_into(found: Found, fields: dict[str, Value], outer: tuple[str, ...]) -> None:
    for field, value in fields.items():
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        name = squeeze(field)
        if isinstance(value, (dict, list)):
            _gather_nested(found, (*outer, field), name, value)
        elif outer:
            _note(found, (*outer, field), _known_name(outer, name), value)
        elif (known := FIELDS.get(name)) is not None:  # in most alerts, all fields end here
            found.setdefault(known.meaning, []).append(Said(field, name, known.rank, value))
        else:
            _note(found, (field,), name, value)


def _known_name(outer: tuple[str, ...], name: str) -> str:
    """The longest known name: `order_price` before `price` for {"order": {"price": …}}."""
    for start in range(len(outer)):
        longer = squeeze("".join(outer[start:])) + name
        if longer in FIELDS or longer in ADVICE:
            return longer
    return name


def _note(found: Found, path: tuple[str, ...], name: str, value: Value) -> None:
    if (known := FIELDS.get(name)) is not None:
        found.setdefault(known.meaning, []).append(Said(".".join(path), name, known.rank, value))
    elif name in ADVICE and value not in SWITCHED_OFF:
        raise AlertError(".".join(path), f"{ADVICE[name]} instead: this field is not supported", value)
    elif _is_part_of_protection(path) and name not in SECRET_FIELDS:
        raise AlertError(".".join(path), "price, percent or amount: this part is not supported", value)
    elif name not in SECRET_FIELDS:
        _note_unread(found, path, entry_advice(name), value)


def _note_unread(found: Found, path: tuple[str, ...], instead: str | None, value: Value) -> None:
    if instead is not None and _says_something(value):
        found.setdefault(UNREAD, []).append(Said(".".join(path), instead, 0, value))


def _says_something(value: Value) -> bool:
    """A number that is not 0, or a switch that is on; words alone only describe (`risk: high`)."""
    if not isinstance(value, str):
        return bool(value)
    word = value.strip().lower()
    return word in ("true", "yes", "on") or any(char in "123456789" for char in word)


def _look_inside(found: Found, path: tuple[str, ...], value: Value) -> None:
    """In objects that nobody knows: what would change an entry there is not read, and must not be passed over."""
    if isinstance(value, list):
        for one in value:
            _look_inside(found, path, one)
    elif isinstance(value, dict):
        for field, inner in value.items():
            name, inside = squeeze(field), (*path, field)
            if name in FIELDS and not isinstance(inner, dict):
                matters = FIELDS[name].meaning in CHANGES_AN_ENTRY
                _note_unread(found, inside, f"use {field} beside the symbol" if matters else None, inner)
            elif name not in DESCRIPTIVE and name not in SECRET_FIELDS:
                _note_unread(found, inside, f"use {ADVICE[name]}" if name in ADVICE else entry_advice(name), inner)
                _look_inside(found, inside, inner)


def _is_part_of_protection(path: tuple[str, ...]) -> bool:
    return len(path) > 1 and squeeze(path[-2]) in PROTECTION_CONTAINERS


def _gather_nested(found: Found, path: tuple[str, ...], name: str, value: dict[str, Value] | list[Value]) -> None:
    if isinstance(value, dict) and name in CONTAINERS:
        _gather_into(found, value, path)
    elif isinstance(value, dict) and name in PROTECTION_CONTAINERS:
        if _is_enabled(value, path):
            before = _levels_told(found)
            _gather_into(found, value, path)
            if (not value or "enabled" in value) and _levels_told(found) == before:
                # Named or switched on, and no level: it would trade without the stop that was asked for.
                raise AlertError(".".join(path), "a price or a percentage", value)
    elif isinstance(value, list) and (name in BATCH_FIELDS or name in CONTAINERS):
        raise AlertError(".".join(path), "one alert, not a batch: send one order per alert", value)
    elif isinstance(value, list) and name in FIELDS and FIELDS[name].meaning == "take_profit":
        for level in value:
            if level not in (None, ""):
                _note(found, path, name, level)
    elif name in FIELDS and FIELDS[name].meaning == "comment":
        pass  # it only describes, also as an object
    elif name in FIELDS or name in ADVICE or _is_part_of_protection(path):
        raise AlertError(".".join(path), "a single value", value)
    elif name not in DESCRIPTIVE:
        _note_unread(found, path, entry_advice(name), value)
        _look_inside(found, path, value)


def _levels_told(found: Found) -> int:
    return sum(
        len(said) for meaning, said in found.items() if meaning.startswith(("stop_loss", "take_profit", "trail"))
    )


def _is_enabled(protection: dict[str, Value], path: tuple[str, ...]) -> bool:
    """3Commas sends `take_profit: {"enabled": false, …}` for none."""
    said = protection.get("enabled")
    return said is None or values.flag(".".join((*path, "enabled")), said)


def agreed(found: Found, meaning: str, read: Callable[[str, Value], T]) -> T | None:
    """The value, when every field of this meaning says the same; None when there is no such field."""
    said = found.get(meaning)
    return None if said is None else agreed_value(said, read)


def agreed_value(said: list[Said], read: Callable[[str, Value], T]) -> T:
    first = read(said[0].path, said[0].value)
    for other in said[1:]:
        if read(other.path, other.value) != first:
            raise disagree(said[0], other)
    return first


def first_text(found: Found, meaning: str) -> str | None:
    said = found.get(meaning)
    return None if said is None else text_of_first(said)


def text_of_first(said: list[Said]) -> str:
    """The text of the field that comes first in the table of names: for what only describes."""
    best = said[0] if len(said) == 1 else min(said, key=lambda one: one.rank)
    return values.text(best.path, best.value)


def disagree(one: Said, other: Said) -> AlertError:
    return contradiction(one.path, one.value, other.path, other.value)


def contradiction(field: str, value: Value, other_field: str, other_value: Value) -> AlertError:
    """Each value shown is short; what is too long or not text is cut by the error itself."""
    return AlertError(f"{field}, {other_field}", "the same from both, or one of them alone", f"{value} / {other_value}")
