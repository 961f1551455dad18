"""HTML from templates: escaping always on, and how numbers, money and times are written for people."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

import models

HERE = Path(__file__).parent
STATIC = HERE / "static"
NOTHING = "\N{EN DASH}"
CENT = Decimal("0.01")

Number = Decimal | int | float


def render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = static_address
    environment.filters |= {
        "plain": plain,
        "money": money,
        "price": price,
        "signed": signed,
        "gain": gain,
        "moment": moment,
        "took": took,
    }
    return environment


@cache
def static_address(name: str) -> str:
    """Under a name that changes with the content: browsers may keep it for ever."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:10]
    return f"/static/{name}?v={digest}"


def plain(value: Number | None) -> str:
    """All its digits: quantities, percentages, limits."""
    return NOTHING if value is None else models.plain(_decimal(value))


def money(value: Number | None) -> str:
    """With thousands apart and two decimals; what is less than one keeps four digits."""
    if value is None:
        return NOTHING
    amount = _decimal(value)
    return _without_zeros(f"{_rounded(amount):,f}") if amount else "0.00"


def price(value: Number | None) -> str:
    """With thousands apart, and seven digits at least where there are some behind the point."""
    if value is None:
        return NOTHING
    exact = _decimal(value)
    decimals = max(2, 6 - exact.adjusted()) if exact else 2
    return _without_zeros(f"{exact:,.{decimals}f}")


def signed(value: Number | None) -> str:
    """Money that came or went: its sign is there in words, not only as a colour."""
    if value is None:
        return NOTHING
    rounded = _rounded(_decimal(value))
    return _without_zeros(f"{rounded:+,f}").replace("-", "\N{MINUS SIGN}") if rounded else "0.00"


def gain(value: Number | None) -> Markup:
    text = signed(value)
    kind = "gain" if text.startswith("+") else "loss" if text.startswith("\N{MINUS SIGN}") else "even"
    return Markup('<span class="{}">{}</span>').format(kind, text)


def moment(value: datetime | None) -> Markup:
    """In UTC; the day first, as the same hour of another day is easily taken for today."""
    if value is None:
        return Markup(NOTHING)
    at = value.astimezone(UTC)
    iso = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(iso, iso, escape(f"{at:%Y-%m-%d %H:%M:%S}"))


def took(milliseconds: float) -> str:
    if milliseconds < 10:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 1_000:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1_000:.1f} s" if milliseconds < 120_000 else f"{milliseconds / 60_000:.0f} min"


def _decimal(value: Any) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(str(value))


def _without_zeros(text: str) -> str:
    """Two digits stay behind the point."""
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0'):<02}"


def _rounded(amount: Decimal) -> Decimal:
    if abs(amount) >= 1 or not amount:
        return amount.quantize(CENT, ROUND_HALF_EVEN)
    return amount.quantize(Decimal(1).scaleb(max(-8, amount.adjusted() - 3)), ROUND_HALF_EVEN)
