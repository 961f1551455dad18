"""Filters, tables, fields and figures of the pages: what was asked for, and what the templates need. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple, get_args
from urllib.parse import urlencode

from config import Settings
from history import Wanted
from models import Decision, OrderStatus
from preferences import GROUPS, LISTS, WORDS, InForce, preferences_view

View = dict[str, Any]
PAGE_ROWS = 50

# --- signals and trades -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Table:
    """A page of rows: its address, its name, the template of its rows, and the filter of its own."""

    path: str
    heading: str
    file: str
    template: str
    own: str
    choices: tuple[str, ...]


SIGNALS_TABLE = Table(
    "/ui/signals", "Signals", "signals", "_decision_table.html", "decision", tuple(d.value for d in Decision)
)
TRADES_TABLE = Table(
    "/ui/trades", "Trades", "trades", "_trade_table.html", "status", tuple(s.value for s in OrderStatus)
)


@dataclass(frozen=True, slots=True)
class Filter:
    """What was asked for. `since` and `until` as they were typed, both days included; `problem`: not understood."""

    wanted: Wanted = field(default_factory=Wanted)
    before: int | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def query(self) -> dict[str, str]:
        """The same, as the downloads take it: the last moment is not wanted any more."""
        asked = dict(self.fields)
        if self.wanted.until is not None:
            asked["until"] = f"{self.wanted.until:%Y-%m-%d}"
        return asked


class Records(NamedTuple):
    """Rows for the template, and the number before which the next page begins."""

    rows: Sequence[View]
    older: int | None


def read_filter(query: Mapping[str, str]) -> Filter:
    names = ("symbol", "strategy", "decision", "status", "since", "until")
    fields = {name: query[name] for name in names if query.get(name, "").strip()}
    try:
        wanted = Wanted(
            symbol=fields.get("symbol"),
            strategy=fields.get("strategy"),
            decision=_one_of(Decision, "decision", fields),
            status=_one_of(OrderStatus, "status", fields),
            since=_day("since", fields),
            until=_day("until", fields),
        )
        before = _before(query.get("before"))
    except ValueError as exc:
        return Filter(fields=fields, problem=str(exc))
    if wanted.until is not None:
        wanted = replace(wanted, until=wanted.until + timedelta(days=1))
    return Filter(wanted, before, fields)


def _one_of(kind: Any, name: str, fields: Mapping[str, str]) -> Any:
    if name not in fields:
        return None
    try:
        return kind(fields[name])
    except ValueError:
        raise ValueError(f"{name} must be one of {', '.join(kind)}") from None


def _day(name: str, fields: Mapping[str, str]) -> datetime | None:
    if name not in fields:
        return None
    try:
        found = date.fromisoformat(fields[name])
        if not 2000 <= found.year <= 2999:
            raise ValueError
    except ValueError:
        raise ValueError(f"{name} must be a day such as 2026-01-31") from None
    return datetime(found.year, found.month, found.day, tzinfo=UTC)


def _before(text: str | None) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise ValueError("before must be a row's number")
    return int(text)


def rows_view(
    table: Table, asked: Filter, found: Records, symbols: Sequence[str], strategies: Sequence[str]
) -> dict[str, Any]:
    download = f"?{urlencode(asked.query)}" if asked.query else ""
    older = dict(asked.fields) | {"before": str(found.older)} if found.older is not None else None
    return {
        "heading": table.heading,
        "filters": [
            _choice("symbol", symbols, asked.fields),
            _choice("strategy", strategies, asked.fields),
            _choice(table.own, table.choices, asked.fields),
            _day_field("since", "From", asked.fields),
            _day_field("until", "To", asked.fields),
        ],
        "filtered": bool(asked.fields),
        "problem": asked.problem,
        "table": table.template,
        "rows": found.rows,
        "s": {"decisions": found.rows if table is SIGNALS_TABLE else []},
        "csv": f"/logs/{table.file}.csv{download}",
        "xlsx": f"/logs/{table.file}.xlsx{download}",
        "older": f"{table.path}?{urlencode(older)}" if older else None,
        "newest": f"{table.path}?{urlencode(asked.fields)}" if asked.before is not None else None,
    }


def _choice(name: str, known: Sequence[str], fields: Mapping[str, str]) -> View:
    value = fields.get(name, "")
    choices = list(known) if not value or value in known else [value, *known]
    return {"name": name, "label": name.capitalize(), "choices": choices, "value": value}


def _day_field(name: str, label: str, fields: Mapping[str, str]) -> View:
    return {"name": name, "label": label, "choices": None, "value": fields.get(name, "")}


# --- the test alert ---------------------------------------------------------------------------------------------------


def _field(
    name: str, label: str, value: str = "", hint: str = "", choices: Sequence[str] = (), is_number: bool = True
) -> View:
    return {
        "name": name,
        "label": label,
        "value": value,
        "hint": hint,
        "choices": choices,
        "is_number": is_number and not choices,
    }


TEST_FIELDS = (
    _field("symbol", "Symbol", "BTCUSDT", is_number=False),
    _field("action", "Action", choices=("buy", "sell", "close")),
    _field("price", "Price", hint="market's"),
    _field("quantity", "Quantity", hint="coins"),
    _field("amount_usdt", "Amount", hint="USDT"),
    _field("type", "Type", choices=("", "MARKET", "LIMIT")),
    _field("stop_loss", "Stop-loss", hint="42000 or 2%", is_number=False),
    _field("take_profit", "Take-profit", hint="50000 or 5%", is_number=False),
    _field("leverage", "Leverage"),
    _field("confidence", "Confidence", hint="0 to 100"),
    _field("strategy", "Strategy", "test", is_number=False),
    _field("broker", "Broker", hint="default", is_number=False),
)

# --- settings ---------------------------------------------------------------------------------------------------------


def settings_view(found: InForce, notifications: Mapping[str, Any] | None) -> dict[str, Any]:
    """`notifications`: what became of the messages so far; None where there are none to be sent."""
    groups, shown = [], set[str]()
    for group, names in GROUPS.items():
        # One setting may be changed under two names; on the page it stands once.
        views = preferences_view([name for name in names if name not in shown], found)
        groups.append({"name": group, "preferences": [_preference(name, view) for name, view in views.items()]})
        shown |= views.keys()
    return {"groups": groups, "warnings": found.warnings, "notifications": notifications or {}}


def _preference(name: str, view: View) -> View:
    field = Settings.model_fields[name]
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
    return view | {
        "name": name,
        "help": field.description,
        "choices": choices,
        "text": _text(name, view["value"]),
        "default_text": _text(name, view["default"]),
        "ignored": view.get("ignored", ""),
        "changed_by": view.get("changed_by", ""),
    }


def _text(name: str, value: Any) -> str:
    """As it can be typed."""
    if name in LISTS and value != WORDS[name]:
        return ", ".join(value)
    return str(value)
