"""What the page shows, from what `/status` and the records say: values for templates. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from history import Stages, stages
from models import ZERO, DecisionRecord, Order, plain
from replies import order_view

View = dict[str, Any]
MANY_COINS = 8
NEAR_PERCENT = 75
MEANINGS = {
    "PAPER": "play money: nothing leaves this machine",
    "TESTNET": "the exchange's play money",
    "LIVE": "real money",
}
LEGS = {"stop_loss": "stop", "take_profit": "target", "trailing_stop": "trailing"}


class Mode(NamedTuple):
    """The most serious one of all brokers that are on, and what it means."""

    name: str
    meaning: str


def mode_of(modes: Mapping[str, str]) -> Mode:
    """`modes`: PAPER, TESTNET or LIVE of each broker. Paper is always there, and says nothing beside a real one."""
    worst = max(modes.values(), key=list(MEANINGS).index, default="PAPER")
    brokers = [name for name, mode in modes.items() if mode == worst and name != worst]
    return Mode(worst, ": ".join([*([", ".join(brokers)] if brokers else []), MEANINGS[worst]]))


def overview(state: Mapping[str, Any], decisions: Sequence[View]) -> View:
    """For the templates; `state` is what `/status` tells the owner, with `accounts` and `problems`."""
    unresolved, resting = state["unresolved_orders"], state["resting_orders"]
    return {
        "paused": state["paused"],
        "alarms": alarms(state),
        "bars": bars(state),
        "positions": [_position(position, resting) for position in state["positions"]],
        "accounts": [_account(account, state) for account in state["accounts"]],
        "orders": [_order(order, True) for order in unresolved] + [_order(order, False) for order in resting],
        "decisions": decisions,
        "journal_problem": state["journal_problem"],
        "csv_lag": state["csv_lag"],
        "csv_problems": state["csv_problems"],
        "latencies_ms": state["latencies_ms"],
        "drift": state["drift"],
        "notices": list(state["notices"])[::-1][:20],
    }


def alarms(state: Mapping[str, Any]) -> list[View]:
    """What somebody should look at, the worst first."""
    asked = sum(_is_asked(order) for order in state["unresolved_orders"])
    unresolved = len(state["unresolved_orders"]) - asked
    bad = [
        *state["problems"],
        *([f"Trading is halted: {state['halted']}"] if state["halted"] else []),
        *(f"{name} cannot be reached: {b['problem'] or 'no answer yet'}" for name, b in _unwell(state["brokers"])),
    ]
    odd = [
        *([f"{unresolved} orders with an unknown outcome: they are being looked up"] if unresolved else []),
        *([f"{asked} orders of which only you can find out what became: say so below"] if asked else []),
        *(["Books and accounts differ: see Drift below"] if state["drift"] else []),
        *state["warnings"],
    ]
    return [{"tone": "danger", "text": text} for text in dict.fromkeys(bad)] + [
        {"tone": "warning", "text": text} for text in dict.fromkeys(odd)
    ]


def _unwell(brokers: Mapping[str, View]) -> Iterable[tuple[str, View]]:
    return ((name, broker) for name, broker in brokers.items() if not broker["connected"])


def bars(state: Mapping[str, Any]) -> list[View]:
    """Today's counters beside their limits."""
    loss = max(ZERO, -state["realized_pnl_today"])
    most_loss = state["max_daily_loss_usdt"]
    rows = [
        _bar("Trades", Decimal(state["trades_today"]), Decimal(state["max_trades_per_day"])),
        _bar("Open trades", Decimal(state["open_trades"]), Decimal(state["max_open_trades"])),
    ]
    if most_loss is not None:
        rows.append(_bar("Realised loss", loss, most_loss, " USDT"))
    return [*rows, {"name": "Realised P&L", "text": f"{_cents(state['realized_pnl_today'])} USDT", "share": None}]


def _bar(name: str, value: Decimal, limit: Decimal, unit: str = "") -> View:
    share = min(100, int(100 * value / limit)) if limit else 100
    tone = "full" if value >= limit else "near" if share >= NEAR_PERCENT else "fine"
    return {"name": name, "text": f"{_cents(value)} of {_cents(limit)}{unit}", "share": share, "tone": tone}


def _cents(value: Decimal) -> str:
    return plain(value.quantize(Decimal("0.01")))


def _position(position: View, resting: Sequence[View]) -> View:
    there = [o for o in resting if o["leg"] and all(o[k] == position[k] for k in ("broker", "market", "symbol"))]
    cost, gain = position["cost"], position["unrealized_pnl"]
    return position | {
        "where": f"{position['broker']} {position['market']}",
        "percent": round(100 * gain / cost, 2) if gain is not None and cost else None,
        "legs": _legs(position, {order["leg"] for order in there}),
    }


def _legs(position: View, placed: set[str]) -> list[View]:
    """The protection that the position is to have, and whether it waits at the exchange."""
    wanted = {
        "stop_loss": position["stop_loss"],
        "take_profit": position["take_profit"],
        "trailing_stop": position["trailing_percent"],
    }
    units = {"trailing_stop": " %"}
    return [
        {"text": f"{LEGS[leg]} {plain(level)}{units.get(leg, '')}", "placed": leg in placed}
        for leg, level in wanted.items()
        if level is not None
    ]


def _account(account: View, state: Mapping[str, Any]) -> View:
    known: View = state["brokers"].get(account["broker"], {})
    balances = sorted((account["balances"] or {}).items())
    return {
        "name": account["broker"],
        "mode": account["mode"],
        "ok": known.get("connected", False),
        "health": "connected" if known.get("connected") else "not reached",
        "problem": known.get("problem", ""),
        "logged_in_until": known.get("logged_in_until"),
        "equity": account["equity_usdt"],
        "cash": account["cash_usdt"],
        "balances": balances[:MANY_COINS],
        "more": max(0, len(balances) - MANY_COINS),
    }


def _is_asked(order: View) -> bool:
    """Whether its owner has to say what became of it."""
    return bool(order.get("asked_of_owner"))


def _order(order: View, is_unresolved: bool) -> View:
    return order | {
        "is_unresolved": is_unresolved,
        "is_asked": _is_asked(order),
        "where": f"{order['broker']} {order['market']}",
        "what": _what(order),
    }


def trade_view(order: Order, at: datetime) -> View:
    view = order_view(order)
    return view | {"at": at, "where": f"{order.broker} {order.market}", "what": _what(view)}


def _what(order: View) -> str:
    """LIMIT at 2500, STOP at 42140 (stop loss) …"""
    level = order["stop_price"] if order["stop_price"] is not None else order["limit_price"]
    leg = f" ({order['leg'].replace('_', ' ')})" if order["leg"] else ""
    return f"{order['type']}{f' at {plain(level)}' if level is not None else ''}{leg}"


def decision_view(record: DecisionRecord, order: Order | None) -> View:
    """One alert: what it said, what was decided and why, what became of it, and how long each stage took."""
    signal = record.signal
    market = record.order.market if record.order else signal.market if signal else None
    return {
        "at": record.decided_at,
        "symbol": signal.symbol if signal else "",
        "action": signal.action if signal else "not understood",
        "strategy": signal.strategy if signal else "",
        "confidence": signal.confidence if signal else None,
        "where": f"{record.broker} {market or ''}".strip(),
        "decision": record.decision.value,
        "check": record.check,
        "reason": record.reason,
        "order": _outcome(order) if order else None,
        "stages": _stages(stages(record, order)),
    }


def _outcome(order: Order) -> View:
    return {
        "status": order.status.value,
        "quantity": order.executed_quantity or None,
        "price": order.average_price,
        "realized_pnl": order.realized_pnl,
    }


def _stages(way: Stages) -> list[View]:
    rows = (
        ("fired", way.fired_at, None),
        ("received", way.received_at, way.fired_to_received_ms),
        ("decided", way.decided_at, way.received_to_decided_ms),
        ("sent", way.sent_at, way.decided_to_sent_ms),
        ("answered", way.answered_at, way.sent_to_answered_ms),
    )
    # The sender's clock counts whole seconds: an alert may seem to arrive before it was fired.
    return [{"name": name, "ms": max(0.0, ms) if ms is not None else None} for name, at, ms in rows if at is not None]
