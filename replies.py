"""What the outside is told: JSON from values. Pure; decides nothing, knows no HTTP server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from books import Books
from broker import Balance
from case import Limits
from history import Execution
from models import CURRENCIES, DOLLARS, ENDINGS, ZERO, Decision, DecisionRecord, Market, Order, OrderStatus, Signal
from performance import Part, Performance, thinned
from portfolio import Position
from risk import Preview
from trader import Answer

MAX_POINTS = 2_000  # of a curve: more than a screen is wide
PLACED = frozenset(OrderStatus) - {OrderStatus.REJECTED, OrderStatus.NOT_PLACED}


def to_json(value: Any) -> bytes:
    """Decimals become JSON numbers, times ISO text in UTC, everything else itself."""
    return _ENCODE(value).encode()


def jsonable(value: Any) -> Any:
    """As plain values, what `to_json` would write of it."""
    return json.loads(to_json(value))


def _plain(value: Any) -> Any:
    """Of what JSON does not know; the encoder asks for its parts by itself."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


_ENCODE = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=_plain).encode


def webhook_reply(answer: Answer) -> tuple[int, dict[str, Any]]:
    """HTTP status and body. 503 only when certainly nothing was placed and a repeat is welcome."""
    record, order = answer.record, answer.order
    if record is None:
        return _undecided(answer)
    if order is not None and order.never_left and record.decision is Decision.ACCEPTED:
        body = _body(record, order, False, f"Nothing was placed: {order.note}; send it again")
        return 503, body
    if record.decision is Decision.REJECTED:
        return 200, _body(record, None, False, record.reason)
    pending = answer.pending or (order is not None and order.status not in ENDINGS and not order.settled_at)
    success = order is not None and order.status in PLACED
    reason = record.reason if success or order is None else order.note or record.reason
    body = _body(record, order, success, reason)
    if answer.closed is not None:
        body["closed"] = order_view(answer.closed)
    if pending and order is not None:
        body["status"] = "PENDING"
        return (202 if record.decision is Decision.ACCEPTED else 200), body
    return 200, body


def _undecided(answer: Answer) -> tuple[int, dict[str, Any]]:
    """Nothing is on the record. Still being written: 202, an order may follow; else 503, and a repeat is welcome."""
    status = 202 if answer.pending else 503
    reason = "still deciding; look at /executions" if answer.pending else answer.problem
    body: dict[str, Any] = dict.fromkeys(BODY_KEYS)
    return status, body | {"success": False, "status": "PENDING" if answer.pending else None} | _said(reason, False)


BODY_KEYS = (
    "success",
    "decision",
    "signal_id",
    "check",
    "reason",
    "error",
    "orderId",
    "status",
    "client_order_id",
    "quantity",
    "price",
    "broker",
)


def _said(reason: str, success: bool) -> dict[str, Any]:
    return {"reason": reason, "error": None if success else reason}


def _body(record: DecisionRecord, order: Order | None, success: bool, reason: str) -> dict[str, Any]:
    body: dict[str, Any] = dict.fromkeys(BODY_KEYS)
    body |= {"success": success, "decision": record.decision, "signal_id": record.signal_id}
    body |= {"check": record.check or None, "broker": record.broker or None} | _said(reason, success)
    if record.duplicate_of:
        body["duplicate_of"] = record.duplicate_of
    if order is not None:
        body |= {
            "orderId": order.exchange_order_id or None,
            "status": order.status,
            "client_order_id": order.client_order_id,
            "quantity": order.executed_quantity if order.executed_quantity or order.has_ended else order.quantity,
            "price": order.average_price or order.price,
        }
    return body


def invalid_reply(record: DecisionRecord, field: str) -> dict[str, Any]:
    return _body(record, None, False, record.reason) | {"field": field}


def signal_view(signal: Signal, broker: str) -> dict[str, Any]:
    view: dict[str, Any] = jsonable(signal)
    view["broker"] = broker
    view["market"] = view["market"] or "spot"
    return view


def dry_run_invalid(reason: str, field: str) -> dict[str, Any]:
    """Of an alert that the owner tries, and that is not understood. It leaves nothing on the record."""
    body: dict[str, Any] = dict.fromkeys(BODY_KEYS)
    body |= {"success": False, "decision": Decision.INVALID, "check": field} | _said(reason, False)
    return body | {"dry_run": True, "field": field}


def dry_run_reply(signal: Signal, broker: str, preview: Preview) -> dict[str, Any]:
    refused = next((verdict for verdict in preview.verdicts if not verdict.passed), None)
    order = preview.order
    shown = ("side", "type", "symbol", "quantity", "amount", "price", "broker", "market", "is_entry", "exits_all")
    return {
        "dry_run": True,
        "decision": Decision.REJECTED if refused else Decision.ACCEPTED,
        "check": refused.check if refused else None,
        "reason": refused.reason if refused else preview.note or "All checks passed; nothing was placed",
        "signal": signal_view(signal, broker),
        "checks": [
            {"check": verdict.check, "passed": verdict.passed, "reason": verdict.reason} for verdict in preview.verdicts
        ],
        "order": {name: getattr(order, name) for name in shown} if order else None,
    }


def counts(books: Books, limits: Limits) -> dict[str, Any]:
    return {
        "trades_today": books.entries_today,
        "max_trades_per_day": limits.max_trades_per_day,
        "open_trades": books.open_trades,
        "max_open_trades": limits.max_open_trades,
        "realized_pnl_today": books.realized_today,
        "max_daily_loss_usdt": limits.max_daily_loss_usdt,
    }


def order_view(order: Order) -> dict[str, Any]:
    return {
        "signal_id": order.signal_id,
        "client_order_id": order.client_order_id,
        "orderId": order.exchange_order_id or None,
        "broker": order.broker,
        "market": order.market,
        "symbol": order.symbol,
        "side": order.side,
        "type": order.type,
        "status": order.status,
        "quantity": order.quantity,
        "amount": order.amount,
        "limit_price": order.price,
        "stop_price": order.stop_price,
        "leg": order.leg or None,
        "executed_quantity": order.executed_quantity,
        "executed_quote": order.executed_quote,
        "average_price": order.average_price,
        "fees": [{"asset": fee.asset, "amount": fee.amount, "value": fee.value} for fee in order.fees],
        "realized_pnl": order.realized_pnl,
        "strategy": order.strategy or None,
        "received_at": order.received_at,
        "note": order.note or None,
    }


def execution_view(execution: Execution) -> dict[str, Any]:
    return order_view(execution.order) | {"at": execution.at}


def position_view(position: Position, price: Decimal | None) -> dict[str, Any]:
    seen = price if price is not None else position.last_price
    return {
        "broker": position.broker,
        "symbol": position.symbol,
        "market": position.market,
        "side": position.side,
        "quantity": position.quantity,
        "average_price": position.average_cost,
        "cost": position.cost,
        "open_trades": position.open_trades,
        "price": seen,
        "leverage": position.leverage,
        "stop_loss": position.protection and position.protection.stop_loss,
        "take_profit": position.protection and position.protection.take_profit,
        "trailing_percent": position.protection and position.protection.trailing_percent,
        "unrealized_pnl": position.unrealized_pnl(seen) if seen is not None else None,
        "realized_pnl": position.realized_pnl,
    }


def performance_view(found: Performance) -> dict[str, Any]:
    """The figures of the total stand at the top."""
    total = {f.name: getattr(found.total, f.name) for f in fields(found.total)}
    return total | {
        "max_equity_drawdown_percent": found.max_equity_drawdown_percent,
        "other_currencies": found.others,
        "by_strategy": [_part_view("strategy", part) for part in found.by_strategy],
        "by_symbol": [_part_view("symbol", part) for part in found.by_symbol],
        "by_broker": [_part_view("broker", part) for part in found.by_broker],
        "daily": [
            {"date": day.date.isoformat(), "realized_pnl": day.realized_pnl, "trades": day.trades}
            for day in found.daily
        ],
        "equity": thinned(found.equity, MAX_POINTS),
    }


def _part_view(kind: str, part: Part) -> dict[str, Any]:
    return {kind: part.name or None} | {f.name: getattr(part.figures, f.name) for f in fields(part.figures)}


def balances_view(balances: Mapping[str, Balance] | None) -> dict[str, Any] | None:
    if balances is None:
        return None
    return {asset: {"free": balance.free, "locked": balance.locked} for asset, balance in balances.items()}


def _worth(position: dict[str, Any]) -> Decimal | None:
    """What a position adds to the cash: coins their price; a futures position, whose margin is cash, what it gained."""
    if position["price"] is None:
        return None
    gained: Decimal = position["unrealized_pnl"]
    worth: Decimal = position["quantity"] * position["price"]
    return gained if position["market"] is Market.FUTURES else worth


def account_view(
    broker: str, mode: str, balances: Mapping[str, Balance] | None, positions: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """`equity_usdt`: free and locked dollars plus what is held at the last price; None while something is unknown.

    Of an account in another currency there are its balances; its positions are no dollars.
    """
    if broker in CURRENCIES:
        amounts = dict.fromkeys(("cash_usdt", "positions_usdt", "equity_usdt"))
        return {"broker": broker, "mode": mode, "balances": balances_view(balances)} | amounts
    worth = [_worth(p) for p in positions]
    cash = None if balances is None else sum((b.total for a, b in balances.items() if a in DOLLARS), ZERO)
    known = cash is not None and None not in worth
    return {
        "broker": broker,
        "mode": mode,
        "balances": balances_view(balances),
        "cash_usdt": cash,
        "positions_usdt": sum((w for w in worth if w is not None), ZERO),
        "equity_usdt": sum((w for w in worth if w is not None), ZERO) + cash if known and cash is not None else None,
    }
