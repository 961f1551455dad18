"""Settings that the owner changes while it runs: their names, what a request asks for, and the limits that follow.

Pure. What was changed is in the books; whether a value is fit is for `config.py` to say, as at start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from alert_text import read_fields
from alert_values import AlertError, JsonNumber, Value
from alert_words import SECRET_FIELDS, squeeze
from books import Preference
from case import Limits
from config import Mistake, Settings
from setting_sources import judge_changes

NAMES = tuple(Limits.__dataclass_fields__)
LISTS = frozenset(name for name in NAMES if Settings.model_fields[name].default == ())
MAY_BE_OFF = frozenset(name for name in NAMES if Settings.model_fields[name].default is None)
# What an empty setting means has a word here: an empty list or text may as well be a slip, and would allow everything.
WORDS = dict.fromkeys(LISTS, "all") | dict.fromkeys(MAY_BE_OFF, "off")

SYMBOLS, STRATEGIES = ("allowed_symbols",), ("allowed_strategies",)
LEVERAGE = ("leverage", "max_leverage")
CAPITAL = ("capital_allocation_percent", "trade_amount_usdt")
PROTECTION = ("stop_loss_percent", "take_profit_percent", "trailing_stop_percent")
ELSEWHERE = {*SYMBOLS, *STRATEGIES, "direction", *LEVERAGE, "capital_allocation_percent", *PROTECTION}
GROUPS: Mapping[str, tuple[str, ...]] = {
    "symbols": SYMBOLS,
    "strategies": STRATEGIES,
    "direction": ("direction",),
    "leverage": LEVERAGE,
    "capital": CAPITAL,
    "limits": tuple(name for name in NAMES if name not in ELSEWHERE),
    "protection": PROTECTION,
}
# Under which name which settings can be changed; all but two know what a bare "value" is: their first.
TARGETS: Mapping[str, tuple[str, ...]] = {name: (name,) for name in NAMES} | dict(GROUPS)
WITHOUT_VALUE = ("limits", "protection")

Changes: TypeAlias = "dict[str, str | None]"  # setting -> text as in `.env`, empty = off or all; None = the default


class PreferenceError(ValueError):
    """Not fit to be in force. Says which setting, what was seen and what was wanted; never a secret."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


# --- what holds -------------------------------------------------------------------------------------------------------


def limits_of(settings: Settings) -> Limits:
    return Limits(**{name: getattr(settings, name) for name in NAMES})


@dataclass(frozen=True, slots=True)
class InForce:
    """The limits with the preferences over the defaults. `ignored`: those that do not fit, each with its reason."""

    limits: Limits
    defaults: Limits
    preferences: Mapping[str, Preference]
    ignored: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """Why there are no entries: without this preference, the owner's last word, the limits may be too wide."""
        if not self.ignored:
            return ""
        names = ", ".join(self.ignored)
        return (
            f"{names} was changed at run time and does not fit the settings of this start any more, so it is ignored: "
            f"{_joined(self.ignored.values())}. Set it anew or reset it (POST /preferences/reset resets all), "
            f"or change the settings and start again"
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        return (f"NO ENTRIES: {self.problem}", *self.remarks) if self.ignored else self.remarks

    @property
    def differing(self) -> tuple[str, ...]:
        return tuple(name for name in NAMES if getattr(self.limits, name) != getattr(self.defaults, name))

    def refuse_ignored(self, changes: Iterable[str]) -> None:
        """Raises PreferenceError where one of these is not in force."""
        wrong = {name: self.ignored[name] for name in changes if name in self.ignored}
        if wrong:
            raise PreferenceError(next(iter(wrong)), _joined(wrong.values()))


def in_force(settings: Settings, preferences: Mapping[str, Preference]) -> InForce:
    ignored = {name: f"{name} is no setting of this version" for name in preferences if name not in NAMES}
    texts = {name: preference.text for name, preference in preferences.items() if name in NAMES}
    defaults = limits_of(settings)
    while texts:
        found, mistakes = judge_changes(settings, texts)
        if found is not None:
            return InForce(limits_of(found), defaults, preferences, ignored, found.warnings)
        wrong = _wrong(mistakes, texts)
        ignored |= wrong
        texts = {name: text for name, text in texts.items() if name not in wrong}
    return InForce(defaults, defaults, preferences, ignored, settings.warnings)


def _wrong(mistakes: list[Mistake], names: Iterable[str]) -> dict[str, str]:
    """Which of them the mistakes are about. The settings alone are good, so in doubt it is all of them."""
    blamed = {name: _joined(mistake.text for mistake in mistakes if name in mistake.fields) for name in names}
    wrong = {name: text for name, text in blamed.items() if text}
    return wrong or dict.fromkeys(names, _joined(mistake.text for mistake in mistakes))


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


Under: TypeAlias = Callable[[Mapping[str, Preference]], InForce]


class LimitsInForce:
    """`in_force` for alerts in a hurry: worked out again only when the preferences are others than last time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._last: tuple[Mapping[str, Preference], InForce] = ({}, in_force(settings, {}))

    def __call__(self, preferences: Mapping[str, Preference]) -> InForce:
        # Read once and replaced whole: several threads may ask at once.
        known, found = self._last
        if known is not preferences and known != preferences:
            found = in_force(self._settings, preferences)
            self._last = (preferences, found)
        return found


# --- what is asked for ------------------------------------------------------------------------------------------------


def read_changes(target: str, body: bytes, secret: str) -> Changes:
    """What the body of a request to one of the `TARGETS` asks for. Raises PreferenceError."""
    try:
        return _changes(target, _fields(body), secret)
    except AlertError as exc:
        problem = exc.hiding((secret,))
    raise PreferenceError(problem.field, str(problem))


def _fields(body: bytes) -> dict[str, Value]:
    """Without those that carry a secret."""
    if not body.lstrip().startswith(b"{"):
        raise AlertError("body", 'a JSON object such as {"value": 5}', "something else" if body.strip() else None)
    return {name: value for name, value in read_fields(body).items() if squeeze(name) not in SECRET_FIELDS}


def _changes(target: str, fields: Mapping[str, Value], secret: str) -> Changes:
    changes: Changes = {}
    for said, value in fields.items():
        name = _setting(target, said)
        if name in changes:
            raise AlertError(name, "each setting once", "the same setting twice")
        changes[name] = text = _text(name, value)
        if text is not None and secret in text:
            raise AlertError(name, "a value", "a secret")
    if not changes:
        raise AlertError("body", _fields_wanted(target), "none of them")
    return changes


def _setting(target: str, said: str) -> str:
    name, settings = said.lower(), TARGETS[target]
    if name in settings:
        return name
    if name in ("value", target) and target not in WITHOUT_VALUE:
        return settings[0]
    raise AlertError(said, _fields_wanted(target), "a field that is not among them")


def _fields_wanted(target: str) -> str:
    value = () if target in WITHOUT_VALUE else ("value",)
    return f"one of {', '.join((*value, *TARGETS[target]))}"


def _text(name: str, value: Value) -> str | None:
    """As it would stand in `.env`, for `config.py` to judge."""
    if value is None:
        return None
    text = _list_text(name, value) if isinstance(value, list) else value
    if not isinstance(text, str):
        raise AlertError(name, "a number or text", value)
    text = text.strip()
    # In a list it is a name like any other.
    if isinstance(value, str) and text.lower() == WORDS.get(name):
        return ""
    if not text or not text.isprintable():
        raise AlertError(name, _value_wanted(name), "an empty list" if value == [] else text)
    return text


def _list_text(name: str, items: list[Value]) -> str:
    if name not in LISTS:
        raise AlertError(name, "a single value", items)
    for item in items:
        if not isinstance(item, str) or isinstance(item, JsonNumber) or "," in item:
            raise AlertError(name, "a list of names, in quotes and without commas", item)
    return ",".join(item for item in items if isinstance(item, str))


def _value_wanted(name: str) -> str:
    word = f', "{WORDS[name]}"' if name in WORDS else ""
    return f"one line of printable characters{word}, or null for the default"


# --- what is told -----------------------------------------------------------------------------------------------------


def preferences_view(names: Iterable[str], found: InForce) -> dict[str, Any]:
    """A value is shown as it can be sent back."""
    return {name: _view(name, found) for name in names if name in NAMES}


def _view(name: str, found: InForce) -> dict[str, Any]:
    preference = found.preferences.get(name)
    view = {
        "value": _shown(name, found.limits),
        "default": _shown(name, found.defaults),
        "changed": preference is not None,
        "changed_at": preference.since if preference else None,
        "changed_by": preference.by if preference else None,
    }
    return view | {"ignored": found.ignored[name]} if name in found.ignored else view


def _shown(name: str, limits: Limits) -> Any:
    value = getattr(limits, name)
    return WORDS[name] if value in (None, ()) else value
