"""Values to JSON text and back, by their type hints: Decimal and datetime as text, nothing through a float."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

T = TypeVar("T")


_ENCODE = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, check_circular=False).encode


def to_text(value: object) -> str:
    """One line of JSON. Fields that hold their default are left out: old records stay readable as fields are added."""
    return _ENCODE(_plain(value))


def from_text(kind: type[T], text: str) -> T:
    """The value that `to_text` wrote. Raises ValueError, KeyError or TypeError when the text is not of that kind."""
    read: Callable[[Any], Any] = _reader(typing.cast(Any, kind))
    return typing.cast(T, read(json.loads(text)))


def _plain(value: Any) -> Any:
    # Looked up once per type, not decided once per value: this is on an alert's way to the exchange.
    kind: Any = type(value)
    return _writer(kind)(value)


@cache
def _writer(kind: type) -> Callable[[Any], Any]:
    if is_dataclass(kind):
        return _fields_writer(kind)
    if issubclass(kind, Enum):
        return attrgetter("value")
    if issubclass(kind, Decimal):
        return "{:f}".format
    if issubclass(kind, datetime):
        return datetime.isoformat
    if issubclass(kind, tuple | list):
        return lambda items: [_plain(item) for item in items]
    if issubclass(kind, frozenset):
        return lambda items: sorted(_plain(item) for item in items)
    return lambda itself: itself


def _fields_writer(kind: Any) -> Callable[[Any], Any]:
    names = [f.name for f in fields(kind)]
    defaults = [f.default for f in fields(kind)]
    read = attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)

    # The rules of a symbol are written with each of its orders, and are the same value each time.
    last: tuple[object, dict[str, Any]] = (None, {})

    def write(value: object) -> dict[str, Any]:
        nonlocal last
        if value is last[0]:
            return last[1]
        held = zip(names, read(value), defaults, strict=True)
        plain = {name: _plain(part) for name, part, default in held if part is not default and part != default}
        last = (value, plain)
        return plain

    return write


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _optional_reader(kind)
    if origin in (tuple, frozenset):
        item = _reader(typing.get_args(kind)[0])
        container: Callable[[Any], Any] = origin
        return lambda raw: container(item(part) for part in raw)
    if is_dataclass(kind):
        return _dataclass_reader(kind)
    if kind is Decimal or (isinstance(kind, type) and issubclass(kind, Enum)):
        return typing.cast(Callable[[Any], Any], kind)
    if kind is datetime:
        return datetime.fromisoformat
    return lambda raw: raw


def _optional_reader(kind: Any) -> Callable[[Any], Any]:
    (inner,) = (arg for arg in typing.get_args(kind) if arg is not types.NoneType)
    read = _reader(inner)
    return lambda raw: None if raw is None else read(raw)


def _dataclass_reader(kind: Any) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(kind)
    readers = {f.name: _reader(hints[f.name]) for f in fields(kind)}
    last: tuple[object, Any] = (None, None)

    def read(raw: dict[str, Any]) -> Any:
        nonlocal last
        # The rules of a symbol stand in each of its orders: the same text is the same value.
        if raw == last[0]:
            return last[1]
        # A field that a later version wrote and this one does not know is left out, not a reason to lose the record.
        value = kind(**{name: readers[name](part) for name, part in raw.items() if name in readers})
        last = (raw, value)
        return value

    return read
