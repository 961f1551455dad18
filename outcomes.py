"""What the owner says became of an order that its broker tells nothing of any more. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from models import ZERO, Execution, Order, OrderStatus, plain

NOTE = "by its owner's word"
MOST = Decimal(10**12)


class NoWord(Exception):
    """It cannot be taken; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Word:
    """`executed` in base units (shares), 0 where the order was never placed; `price` is their average."""

    client_order_id: str
    executed: Decimal
    price: Decimal = ZERO


def read_word(body: bytes) -> Word:
    """Raises NoWord."""
    try:
        said = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise NoWord('must be a JSON object such as {"client_order_id": "gh…", "executed": 10, "price": 1500.1}')
    if not isinstance(said.get("client_order_id"), str):
        raise NoWord("client_order_id must be that of the order, as /status shows it")
    return Word(said["client_order_id"], _number(said, "executed"), _number(said, "price", ZERO))


def _number(said: dict[str, Any], name: str, without: Decimal | None = None) -> Decimal:
    value = said.get(name, without)
    try:
        number = Decimal(str(value)) if isinstance(value, str | int | Decimal) and value is not True else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or not 0 <= number <= MOST:
        raise NoWord(f"{name} must be a number, 0 or more")
    return number


def execution_by(word: Word, order: Order) -> Execution:
    """Raises NoWord where the order cannot have ended so."""
    known = order.executed_quantity
    if word.executed < known:
        raise NoWord(f"executed must be {plain(known)} or more: so much of it is on the record already")
    if not word.executed:
        return Execution(OrderStatus.NOT_PLACED, note=NOTE)
    if order.quantity is None or word.executed > order.quantity or word.executed % order.rules.quantity_step:
        wanted = plain(order.quantity) if order.quantity is not None else "nothing"
        raise NoWord(f"executed must be 0 to {wanted}, which the order was for, in steps of the exchange")
    if not word.price:
        raise NoWord("price must be the average price of what was executed")
    status = OrderStatus.FILLED if word.executed == order.quantity else OrderStatus.CANCELED
    return Execution(status, order.exchange_order_id, word.executed, word.executed * word.price, note=NOTE)
