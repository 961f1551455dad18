"""The policy: every check's last good and first bad value, the order of the refusals, exits, and sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from builders import at
from harness import examples
from hypothesis import event, given, settings
from hypothesis import strategies as st

import checks
import sizing
from books import Books
from checks import CHECKS, Case, Limits, judge, judge_all, missed_alert
from events import Missed
from models import (
    ZERO,
    Action,
    Market,
    Order,
    OrderStatus,
    OrderType,
    Side,
    Signal,
    SymbolRules,
    is_on_grid,
    plain,
    round_down,
)
from portfolio import Position
from sizing import View

D = Decimal
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULES = SymbolRules(
    "BTCUSDT", "BTC", "USDT", quantity_step=D("0.001"), min_quantity=D("0.001"), min_notional=D(5),
    order_types=frozenset({"MARKET", "LIMIT", "STOP", "TAKE_PROFIT", "TRAILING_STOP"}),
)  # fmt: skip
LIMITS = Limits(
    min_confidence=D(50),
    default_confidence=D(100),
    min_balance_usdt=D(10),
    max_risk_per_trade=D(10),
    trade_amount_usdt=D(10),
    max_open_trades=3,
    max_trades_per_day=10,
    cooldown_seconds=D(60),
    max_daily_loss_usdt=D(10),
    max_signal_age_seconds=D(60),
    dedupe_seconds=D(60),
    allowed_symbols=(),
    allowed_strategies=(),
    direction="both",
    capital_allocation_percent=None,
    leverage=1,
    max_leverage=10,
    stop_loss_percent=None,
    take_profit_percent=None,
    trailing_stop_percent=None,
    flattrade_min_balance=D(1000),
    flattrade_max_risk_per_trade=D(5000),
    flattrade_trade_amount=D(2000),
)
VIEW = View(rules=RULES, price=D(100), free_quote=D(1000), free_base=ZERO, balance_asked_at=NOW)
PARTS: dict[str, type[Any]] = {"signal": Signal, "view": View, "books": Books, "limits": Limits, "rules": SymbolRules}
# Which part of a case a field belongs to; of fields with the same name the first counts (`price` is the alert's).
HOMES = {field.name: part for part, kind in reversed(PARTS.items()) for field in fields(kind)}
HOMES["market_price"] = "view"


def a_case(**changes: Any) -> Case:
    """A buy of BTCUSDT for 10 USDT at 100 that every check lets pass, with these fields of its parts changed."""
    parts: dict[str, Any] = {"signal": Signal(Action.BUY, "BTCUSDT"), "view": VIEW, "books": Books(day=NOW.date()),
                             "limits": LIMITS, "rules": RULES}  # fmt: skip
    parts |= {name: changes.pop(name) for name in ("view", "books") if name in changes}
    for name in HOMES.keys() & changes.keys():
        field = name.removeprefix("market_") if name == "market_price" else name
        parts[HOMES[name]] = replace(parts[HOMES[name]], **{field: changes.pop(name)})
    if parts["view"].rules is RULES:
        parts["view"] = replace(parts["view"], rules=parts["rules"])
    instrument = at(parts["signal"].symbol, changes.pop("traded_on", Market.SPOT))
    instrument = instrument._replace(broker=changes.pop("traded_at", "BINANCE"))
    return Case(parts["signal"], instrument, parts["view"], parts["books"], parts["limits"], NOW, **changes)


def an_order(status: OrderStatus = OrderStatus.UNKNOWN, **changes: Any) -> Order:
    order = Order(
        "gh1", "s1", "BINANCE", Market.SPOT, "BTCUSDT", Side.BUY, OrderType.MARKET, True, RULES, NOW, NOW, amount=D(10),
        status=status, reserved_quote=D(10),
    )  # fmt: skip
    return replace(order, **changes)


def holding(quantity: str = "1", **changes: Any) -> Books:
    held = D(quantity)
    position = Position("BINANCE", "BTCUSDT", RULES, held, held * 100, (held,))
    return replace(Books(day=NOW.date(), positions={at("BTCUSDT"): position}), **changes)


def with_orders(*orders: Order, **changes: Any) -> Books:
    return replace(Books(day=NOW.date(), orders={order.client_order_id: order for order in orders}), **changes)


def three_open_trades() -> Books:
    position = Position("BINANCE", "ETHUSDT", RULES, D(3), D(30), (D(1), D(1), D(1)))
    return Books(day=NOW.date(), positions={at("ETHUSDT"): position})


def fired(seconds_ago: float) -> datetime:
    return NOW - timedelta(seconds=seconds_ago)


def entered(seconds_ago: float) -> Books:
    return Books(day=NOW.date(), last_accepted={(at("BTCUSDT"), Side.BUY): fired(seconds_ago)})


def overtook(seconds_ago: float, **changes: Any) -> Books:
    """The alert from flat to short was followed while a long was held; the one from long to flat had not come."""
    missed = Missed("long", "flat", fired(seconds_ago))
    return Books(day=NOW.date(), missed={at("BTCUSDT"): replace(missed, **changes)})


def held_with_leverage(leverage: int) -> Books:
    position = Position("BINANCE", "BTCUSDT", RULES, D(1), D(100), (D(1),), market=Market.FUTURES, leverage=D(leverage))
    return Books(day=NOW.date(), positions={position.instrument: position})


FUTURES: dict[str, Any] = {"traded_on": Market.FUTURES}
SHORT: dict[str, Any] = FUTURES | {"action": Action.SELL}
BEHIND: dict[str, Any] = {"action": Action.SELL, "prev_market_position": "long", "market_position": "flat"}
SHARE = replace(
    RULES, quote_asset="INR", quantity_step=D(1), min_quantity=D(1), min_notional=ZERO, quote_amount_allowed=False,
    order_types=frozenset({"MARKET", "LIMIT"}),
)  # fmt: skip
INDIA: dict[str, Any] = {"traded_at": "FLATTRADE", "rules": SHARE, "free_quote": D(6000), "quantity": D(10)}
SELL: dict[str, Any] = {"action": Action.SELL, "books": holding()}
UNJUDGED = "cannot be ruled out"

# Per check: what still passes, what is the first to be refused, the refusal's code and how its reason begins.
BOUNDARIES: list[tuple[Callable[[Case], Any], dict[str, Any], dict[str, Any], str, str]] = [
    (checks.broker_is_configured, {}, {"broker_problem": "Broker not configured: BINGX"}, "broker", "Broker not conf"),
    (checks.market_is_on, {}, {"market_problem": "BTCUSDT means futures"}, "market", "Market not available: BTCUSDT"),
    (checks.this_version_can_do_it, {"leverage": D(1)}, {"leverage": D("1.5")}, "leverage", "Not available"),
    (checks.this_version_can_do_it, {"leverage": D("1.0")}, {"leverage": D("0.5")}, "leverage", "Not available"),
    (
        checks.this_version_can_do_it,
        {"take_profits": (D(110),)},
        {"take_profits": (D(110), D(120))},
        "protection",
        "Not available",
    ),
    (
        checks.this_version_can_do_it,
        INDIA | {"product": "cnc"},
        INDIA | {"product": "MIS"},
        "product",
        "Not available in this version: product MIS; FLATTRADE buys shares for delivery",
    ),
    (checks.this_version_can_do_it, {"product": "MIS"}, {"unread": ("delay (use nothing)",)}, "field", "Not available"),
    (checks.leverage_is_allowed, FUTURES | {"leverage": D(10)}, FUTURES | {"leverage": D(11)}, "leverage", "Lev"),
    (checks.leverage_is_allowed, FUTURES | {"leverage": D(1)}, FUTURES | {"leverage": D("0.5")}, "leverage", "Lev"),
    (checks.leverage_is_allowed, FUTURES | {"leverage": D(2)}, FUTURES | {"leverage": D("2.5")}, "leverage", "Lev"),
    (
        checks.nothing_foreign_is_held,
        FUTURES,
        FUTURES | {"foreign_position": "0.1 LONG"},
        "foreign_position",
        "Foreign position: the account holds 0.1 LONG of BTCUSDT",
    ),
    (checks.direction_is_allowed, SHORT | {"direction": "short"}, SHORT | {"direction": "long"}, "direction", "Dir"),
    (
        checks.overtaken,
        {"books": overtook(30.001)} | BEHIND,
        {"books": overtook(30)} | BEHIND,
        "overtaken",
        "Overtaken: the alert that came after this one (from long to flat)",
    ),
    (
        checks.overtaken,
        {"books": overtook(1)} | BEHIND | {"prev_market_position": "short"},
        {"books": overtook(1)} | BEHIND,
        "overtaken",
        "Overtaken",
    ),
    (
        checks.overtaken,
        {"books": overtook(1, fired_at=fired(3)), "fired_at": fired(2.999)} | BEHIND,
        {"books": overtook(1, fired_at=fired(3)), "fired_at": fired(3)} | BEHIND,
        "overtaken",
        "Overtaken",
    ),
    (
        checks.nothing_foreign_is_held,
        SELL | {"foreign_position": "0.1 LONG"},
        {"foreign_position": "0.1 LONG"},
        "foreign_position",
        "Foreign position: the account holds 0.1 LONG of BTCUSDT",
    ),
    (
        checks.leverage_is_allowed,
        FUTURES | {"leverage": D(5), "books": held_with_leverage(5)},
        FUTURES | {"leverage": D(4), "books": held_with_leverage(5)},
        "leverage",
        "Leverage of BTCUSDT is 5 while something is held or waits",
    ),
    (checks.protection_is_possible, {"stop_loss": D("99.9")}, {"stop_loss": D(100)}, "protection", "Protection not po"),
    (checks.protection_is_possible, SHORT | {"stop_loss": D(101)}, SHORT | {"stop_loss": D(100)}, "protection", "Prot"),
    (checks.protection_is_possible, {"take_profits": (D(101),)}, {"take_profits": (D(100),)}, "protection", "Protect"),
    (
        checks.protection_is_possible,
        SHORT | {"take_profits": (D(99),)},
        SHORT | {"take_profits": (D(100),)},
        "protection",
        "Protection not possible: take_profit 100 must be below the price 100",
    ),
    (checks.protection_is_possible, SHORT | {"take_profit_percent": D(99)}, SHORT | {"take_profit_percent": D(100)},
     "protection", "Protection not possible: take_profit 0"),
    (checks.protection_is_possible, {"stop_loss_percent": D(1)}, {"stop_loss_percent": D(100)}, "protection", "Protec"),
    (checks.protection_is_possible, {"trailing_percent": D("0.1")}, {"trailing_percent": D("0.09")}, "protection", "P"),
    (checks.protection_is_possible, {"trailing_percent": D(20)}, {"trailing_percent": D("20.1")}, "protection", "Prot"),
    (
        checks.protection_is_possible,
        {"trailing_percent": D("0.15")},
        FUTURES | {"trailing_percent": D("0.15")},
        "protection",
        "Protection not possible: trailing 0.15 %",
    ),
    (
        checks.protection_is_possible,
        FUTURES | {"trailing_percent": D(1), "stop_loss": D(90)},
        {"trailing_percent": D(1), "stop_loss": D(90)},
        "protection",
        "Protection not possible: spot takes either",
    ),
    (
        checks.protection_is_possible,
        {"stop_loss": D(90)},
        {"stop_loss": D(90), "order_types": frozenset({"MARKET", "LIMIT"})},
        "protection",
        "Protection not possible: BTCUSDT takes no stop_loss",
    ),
    (
        checks.protection_is_possible,
        {"stop_loss": D(60), "min_notional": D("5.94")},
        {"stop_loss": D(60), "min_notional": D("5.95")},
        "protection",
        "Protection not possible: an exit at 60 would be 5.94, smallest is 5.95",
    ),
    (checks.this_version_can_do_it, {"type": OrderType.LIMIT}, {"type": OrderType.STOP}, "type", "Not available"),
    (checks.this_version_can_do_it, {}, {"type": OrderType.STOP_LIMIT}, "type", "Not available"),
    (checks.this_version_can_do_it, {}, {"type": OrderType.TRAILING_STOP}, "type", "Not available"),
    (
        checks.this_version_can_do_it,
        {"type": OrderType.LIMIT, "time_in_force": "IOC"},
        {"type": OrderType.LIMIT, "time_in_force": "DAY"},
        "time_in_force",
        "Not available",
    ),
    (checks.this_version_can_do_it, {"amount": D(5)}, {"amount": D(5), "amount_is_margin": True}, "size", "Not avail"),
    (
        checks.this_version_can_do_it,
        FUTURES | {"type": OrderType.LIMIT, "time_in_force": "GTX"},
        {"type": OrderType.LIMIT, "time_in_force": "GTX"},
        "time_in_force",
        "Not available in this version: time in force GTX on spot",
    ),
    (checks.this_version_can_do_it, {"percent_of": "balance"}, {"percent_of": "risk"}, "size", "Not available"),
    (
        checks.this_version_can_do_it,
        {"percent": D(5), "percent_of": "balance"},
        {"percent": D(5), "percent_of": "position"},
        "size",
        "Not available in this version: an entry sized in percent of the position",
    ),
    (
        checks.this_version_can_do_it,
        {"quantity": D("0.1"), "percent": D(5), "percent_of": "position"},
        {"percent": D(5), "percent_of": "position"},
        "size",
        "Not available",
    ),
    (checks.this_version_can_do_it, {"action": Action.CLOSE}, {"action": Action.CANCEL}, "cancel", "Not available"),
    (
        checks.this_version_can_do_it,
        {"prev_market_position": "short", "quantity": D(2), "position_size": D(1)},
        {"prev_market_position": "short", "quantity": D(2)},
        "target",
        "Not available",
    ),
    (
        checks.this_version_can_do_it,
        SELL | {"market_position": "long", "quantity": D(1)},
        SELL | {"market_position": "long"},
        "target",
        "Not available",
    ),
    (checks.trading_is_active, {"paused": False}, {"paused": True}, "paused", "Trading is paused"),
    (checks.trading_is_active, {"halted": ""}, {"halted": "disk"}, "halted", "Trading is halted: disk"),
    (
        checks.trading_is_active,
        {"books": with_orders(an_order(OrderStatus.NEW))},
        {"books": with_orders(an_order(OrderStatus.UNKNOWN))},
        "unresolved",
        "Trading is halted on BTCUSDT: outcome of gh1",
    ),
    (
        checks.trading_is_active,
        {"books": with_orders(an_order(symbol="ETHUSDT"), an_order(broker="PAPER"))},
        {"books": with_orders(an_order())},
        "unresolved",
        "Trading is halted on BTCUSDT",
    ),
    (
        checks.strategy_is_allowed,
        {"allowed_strategies": ("trend",), "strategy": "trend"},
        {"allowed_strategies": ("trend",), "strategy": "Trend"},
        "strategy",
        "Strategy not allowed: Trend",
    ),
    (
        checks.strategy_is_allowed,
        {"allowed_strategies": ("trend",), "by_owner": True},
        {"allowed_strategies": ("trend",)},
        "strategy",
        "Strategy not allowed: none named; allowed: trend",
    ),
    (
        checks.symbol_is_allowed,
        {"allowed_symbols": ("BTCUSDT",)},
        {"allowed_symbols": ("BTCUSD", "ETHUSDT")},
        "symbol",
        "Symbol not allowed: BTCUSDT",
    ),
    (checks.direction_is_allowed, {"direction": "long"}, {"direction": "short"}, "direction", "Direction not allowed"),
    (
        checks.direction_is_allowed,
        SELL | {"market_position": "short"},
        {"action": Action.SELL, "market_position": "short"},
        "direction",
        "Direction not allowed: short",
    ),
    (checks.alert_is_fresh, {"fired_at": fired(60)}, {"fired_at": fired(60.001)}, "stale", "Alert is too old: fired"),
    (checks.alert_is_fresh, {"fired_at": fired(-10)}, {"fired_at": fired(-10.001)}, "stale", "Alert is too old or its"),
    (
        checks.alert_is_fresh,
        {"fired_at": fired(300), "max_age_seconds": D(300)},
        {"fired_at": fired(5.001), "max_age_seconds": D(5)},
        "stale",
        "Alert is too old: fired 5.001 s ago, limit is 5 s",
    ),
    (checks.confidence_is_enough, {"confidence": D(50)}, {"confidence": D("49.99")}, "confidence", "Confidence below"),
    (
        checks.confidence_is_enough,
        {"default_confidence": D(50)},
        {"default_confidence": D(49)},
        "confidence",
        "Confidence below minimum: 49, minimum is 50",
    ),
    (
        checks.confidence_is_enough,
        SELL | {"confidence": D(50)},
        SELL | {"confidence": D(49)},
        "confidence",
        "Confidence below minimum",
    ),
    (checks.confidence_is_enough, {"confidence": ZERO, "by_owner": True}, {"confidence": ZERO}, "confidence", "Conf"),
    (checks.symbol_is_tradable, {"trading": True}, {"trading": False}, "symbol", "Invalid symbol: BTCUSDT is not open"),
    (checks.symbol_is_tradable, {}, {"view": View(unknown_symbol=True)}, "symbol", "Invalid symbol: BINANCE does not"),
    (checks.symbol_is_tradable, {}, {"view": View(problem="offline")}, "symbol", "Invalid symbol"),
    (checks.symbol_is_tradable, {"quote_asset": "USDC"}, {"quote_asset": "BTC"}, "symbol", "Invalid symbol: BTCUSDT"),
    (
        checks.symbol_is_tradable,
        {"order_types": frozenset({"MARKET"})},
        {"order_types": frozenset({"LIMIT"})},
        "symbol",
        "Invalid symbol: BTCUSDT takes no MARKET orders",
    ),
    (
        checks.price_is_known,
        {"price_is_needed": True},
        {"view": View(RULES, None, D(100), None, NOW, price_is_needed=True)},
        "price",
        "No price to fill at",
    ),
    (checks.balance_is_enough, {"free_quote": D(10)}, {"free_quote": D("9.99")}, "balance", "Balance below minimum: 9"),
    (checks.balance_is_enough, {}, {"free_quote": None}, "balance", f"Balance below minimum {UNJUDGED}"),
    (
        checks.balance_is_enough,
        {"free_quote": D(20), "books": with_orders(an_order(OrderStatus.SENT))},
        {"free_quote": D("19.99"), "books": with_orders(an_order(OrderStatus.SENT))},
        "balance",
        "Balance below minimum: 9.99 free",
    ),
    (checks.something_to_do, SELL, {"action": Action.SELL}, "no_position", "No position to sell"),
    (checks.something_to_do, {}, {"reduce_only": True}, "no_position", "No position to close"),
    (checks.something_to_do, {}, {"intent": "close_short"}, "no_position", "No position to close"),
    (
        checks.something_to_do,
        {"action": Action.SELL, "quantity": D(1)},
        {"action": Action.SELL, "amount": D(1)},
        "no_position",
        "No position to sell",
    ),
    (
        checks.quantity_is_precise,
        {"quantity": D("0.12345678")},
        {"quantity": D("0.123456789")},
        "precision",
        "Invalid quantity precision: 0.123456789",
    ),
    (
        checks.quantity_is_precise,
        SELL | {"quantity": D("0.100000000")},
        SELL | {"quantity": D("0.100000001")},
        "precision",
        "Invalid quantity precision",
    ),
    (
        checks.size_is_within_limit,
        {"amount": D(10)},
        {"amount": D("10.00000001")},
        "size",
        "Trade size above maximum: 10.00000001 USDT, maximum is 10 USDT",
    ),
    (
        checks.size_is_within_limit,
        {"quantity": D("0.1009")},
        {"quantity": D("0.101")},
        "size",
        "Trade size above maximum: 10.1 USDT",
    ),
    (
        checks.size_is_within_limit,
        {"quantity": D("0.1"), "market_price": D(100)},
        {"quantity": D("0.1"), "market_price": None},
        "size",
        f"Trade size above maximum {UNJUDGED}: no price",
    ),
    (
        checks.size_is_within_limit,
        {"percent": D(1)},
        {"percent": D(1), "free_quote": None},
        "size",
        f"Trade size above maximum {UNJUDGED}: no fresh balance",
    ),
    (
        checks.size_is_within_limit,
        {"quantity": D("0.1"), "market_max_quantity": D("0.1")},
        {"quantity": D("0.1"), "market_max_quantity": D("0.099")},
        "size",
        "Trade size above maximum of BINANCE",
    ),
    (
        checks.size_is_tradable,
        {"quantity": D("0.05")},
        {"quantity": D("0.0499")},
        "min_notional",
        "Order size too small: 4.9 notional, smallest is 5",
    ),
    (checks.size_is_tradable, {"amount": D(5)}, {"amount": D("4.99")}, "min_notional", "Order size too small: 4.99"),
    (
        checks.size_is_tradable,
        {"quantity": D("0.06"), "min_quantity": D("0.06")},
        {"quantity": D("0.06"), "min_quantity": D("0.061")},
        "min_notional",
        "Order size too small: 0.06, smallest is 0.061 (6.1 USDT at 100)",
    ),
    (
        checks.size_is_tradable,
        {"amount": D(10), "quantity_step": D("0.1")},
        {"amount": D("9.99"), "quantity_step": D("0.1")},
        "min_notional",
        "Order size too small: 0, smallest is 0.1 (10 USDT at 100)",
    ),
    (
        checks.size_is_tradable,
        SELL | {"quantity": D("0.045")},
        SELL | {"quantity": D("0.044")},  # the exchange has the last word on what is only a little too small
        "min_notional",
        "Order size too small: 4.4 notional, smallest is 5",
    ),
    (
        checks.size_is_tradable,
        SELL | {"quantity": D("0.05"), "type": OrderType.LIMIT, "price": D(100)},
        SELL | {"quantity": D("0.049"), "type": OrderType.LIMIT, "price": D(100)},
        "min_notional",
        "Order size too small: 4.9 notional, smallest is 5",
    ),
    (
        checks.size_is_tradable,
        {"amount": D(4), "min_notional_applies_to_market": False},
        {"quantity": D("0.04"), "min_notional_applies_to_market": False, "type": OrderType.LIMIT, "price": D(100)},
        "min_notional",
        "Order size too small: 4 notional, smallest is 5",
    ),
    (
        checks.balance_covers_it,
        {"amount": D(10), "free_quote": D(10)},
        {"amount": D(10), "free_quote": D("9.99999999")},
        "insufficient_balance",
        "Insufficient balance: 10 needed, 9.99999999 free",
    ),
    (checks.balance_covers_it, {}, {"free_quote": None}, "insufficient_balance", f"Insufficient balance {UNJUDGED}"),
    (
        checks.balance_covers_it,
        SELL | {"quantity": D(3), "free_base": D(3)},
        SELL | {"quantity": D("3.001"), "free_base": D(3)},
        "insufficient_balance",
        "Insufficient balance: 3.001 to sell, 3 held",
    ),
    (
        checks.open_trades_below_limit,
        {"max_open_trades": 4, "books": three_open_trades()},
        {"max_open_trades": 3, "books": three_open_trades()},
        "open_trades",
        "Open trades limit reached: 3 open, limit is 3",
    ),
    (
        checks.open_trades_below_limit,
        {"max_open_trades": 1, "books": with_orders(an_order(OrderStatus.SENT, is_entry=False))},
        {"max_open_trades": 1, "books": with_orders(an_order(OrderStatus.SENT))},
        "open_trades",
        "Open trades limit reached: 1 open",
    ),
    (
        checks.trades_today_below_limit,
        {"entries_today": 9},
        {"entries_today": 10},
        "daily_limit",
        "Daily limit reached: 10 trades today (UTC), limit is 10",
    ),
    (
        checks.symbol_is_tradable,
        INDIA,
        INDIA | {"rules": RULES},
        "symbol",
        "Invalid symbol: BTCUSDT is quoted in USDT; limits are in INR",
    ),
    (checks.symbol_is_tradable, {}, {"rules": SHARE}, "symbol", "Invalid symbol: BTCUSDT is quoted in INR; limits are"),
    (
        checks.balance_is_enough,
        INDIA | {"free_quote": D(1000)},
        INDIA | {"free_quote": D("999.99")},
        "balance",
        "Balance below minimum: 999.99 INR free, minimum is 1000 INR",
    ),
    (
        checks.size_is_within_limit,
        INDIA | {"quantity": D(50)},
        INDIA | {"quantity": D(51)},
        "size",
        "Trade size above maximum: 5100 INR, maximum is 5000 INR",
    ),
    (
        checks.protection_is_possible,
        INDIA,
        INDIA | {"stop_loss": D(90)},
        "protection",
        "Protection not possible: BTCUSDT takes no stop_loss orders",
    ),
    (
        checks.loss_today_below_limit,
        {"realized_today": D("-9.99")},
        {"realized_today": D(-10)},
        "daily_loss",
        "Daily loss limit reached: 10 USDT today, limit is 10",
    ),
    (
        checks.loss_today_below_limit,
        {"realized_today": D(-99), "max_daily_loss_usdt": None},
        {"realized_today": D(-99)},
        "daily_loss",
        "Daily loss limit reached",
    ),
    (
        checks.cooldown_is_over,
        {"books": entered(60)},
        {"books": entered(59.999)},
        "cooldown",
        "Signal in cooldown: 59.999 s since the last, limit is 60 s",
    ),
    (checks.cooldown_is_over, {"books": entered(-60)}, {"books": entered(-59)}, "cooldown", "Signal in cooldown: 59 s"),
    (
        checks.cooldown_is_over,
        {"symbol": "ETHUSDT", "books": entered(1)},
        {"symbol": "BTCUSDT", "books": entered(1)},
        "cooldown",
        "Signal in cooldown: 1 s",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "good", "bad", "code", "reason"), BOUNDARIES, ids=lambda value: getattr(value, "__name__", None)
)
def test_the_last_good_value_passes_and_the_first_bad_one_is_refused(
    check: Callable[[Case], Any], good: dict[str, Any], bad: dict[str, Any], code: str, reason: str
) -> None:
    passed, refused = check(a_case(**good)), check(a_case(**bad))
    assert passed.passed, passed
    assert (refused.passed, refused.check) == (False, code)
    assert refused.reason.startswith(reason), refused.reason


def test_every_check_has_its_boundary() -> None:
    assert {check for check, *_ in BOUNDARIES} == set(CHECKS)


def test_what_nothing_speaks_against_passes_every_check() -> None:
    verdicts = judge_all(a_case())
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    assert len(verdicts) == len(CHECKS)
    assert judge(a_case()) is None


def test_the_first_refusal_wins_in_the_order_of_the_policy() -> None:
    """Everything is wrong at first; whatever is named gets mended, and the next refusal shows."""
    wrong: dict[str, Any] = {
        "broker_problem": "Broker not configured", "market_problem": "off", "type": OrderType.STOP, "paused": True,
        "allowed_strategies": ("other",),
        "allowed_symbols": ("ETHUSDT",), "direction": "short", "fired_at": fired(61), "confidence": D(1),
        "trading": False, "trailing_percent": D(50), "market_price": None, "price_is_needed": True, "free_quote": D(50),
        "min_balance_usdt": D(60),
        "quantity": D("1.000000001"), "min_notional": D(1000), "max_open_trades": 0, "entries_today": 10,
        "realized_today": D(-10), "last_accepted": {(at("BTCUSDT"), Side.BUY): NOW},
    }  # fmt: skip
    mended: list[tuple[str, dict[str, Any]]] = [
        ("broker", {"broker_problem": ""}),
        ("market", {"market_problem": ""}),
        ("type", {"type": OrderType.MARKET}),
        ("paused", {"paused": False}),
        ("strategy", {"allowed_strategies": ()}),
        ("symbol", {"allowed_symbols": ()}),
        ("direction", {"direction": "both"}),
        ("stale", {"fired_at": NOW}),
        ("confidence", {"confidence": D(50)}),
        ("symbol", {"trading": True}),
        ("price", {"market_price": D(100)}),
        ("protection", {"trailing_percent": None}),
        ("balance", {"min_balance_usdt": D(1)}),
        ("precision", {"quantity": D(1)}),
        ("size", {"max_risk_per_trade": D(100)}),
        ("min_notional", {"min_notional": D(5)}),
        ("insufficient_balance", {"free_quote": D(100)}),
        ("open_trades", {"max_open_trades": 1}),
        ("daily_limit", {"entries_today": 9}),
        ("daily_loss", {"realized_today": ZERO}),
        ("cooldown", {"last_accepted": {}}),
    ]
    refusals = []
    for _, change in mended:
        refusal = judge(a_case(**wrong))
        refusals.append(refusal.check if refusal else None)
        wrong |= change
    assert refusals == [code for code, _ in mended]
    assert judge(a_case(**wrong)) is None


# --- ways out -----------------------------------------------------------------------------------------------------

CLOSED: dict[str, Any] = {
    "halted": "disk", "allowed_symbols": ("ETHUSDT",), "direction": "short", "fired_at": fired(86_400),
    "min_balance_usdt": D(10**6), "free_quote": ZERO, "max_risk_per_trade": D("0.01"), "max_open_trades": 0,
    "max_trades_per_day": 0, "max_daily_loss_usdt": ZERO, "cooldown_seconds": D(10**6),
    "books": holding(
        paused=True, entries_today=99, realized_today=D(-999), last_accepted=entered(0).last_accepted
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "way_out",
    [
        {"action": Action.SELL},
        {"action": Action.SELL, "quantity": D("0.5")},
        {"action": Action.SELL, "amount": D(50)},
        {"action": Action.SELL, "percent": D(50)},
        {"action": Action.SELL, "market_position": "flat"},
        {"action": Action.SELL, "market_position": "short"},
        {"action": Action.BUY, "market_position": "flat"},
        {"action": Action.CLOSE},
        {"action": Action.TARGET, "position_size": ZERO},
        {"action": Action.SELL, "type": OrderType.LIMIT, "price": D(100)},
    ],
)
def test_no_limit_on_the_way_in_stands_in_a_way_out(way_out: dict[str, Any]) -> None:
    case = a_case(**CLOSED, **way_out)
    assert case.is_exit
    assert judge(case) is None
    assert case.size.quantity is not None
    assert ZERO < case.size.quantity <= 1


def test_the_same_closed_door_lets_no_entry_in() -> None:
    refused = {verdict.check for verdict in judge_all(a_case(**CLOSED)) if not verdict.passed}
    assert refused == {
        "halted", "symbol", "direction", "stale", "balance", "size", "insufficient_balance", "open_trades",
        "daily_limit", "daily_loss", "cooldown",
    }  # fmt: skip


@pytest.mark.parametrize("view", [View(), View(problem="offline"), View(RULES), View(RULES, D(100))])
def test_a_way_out_needs_no_balance_no_price_and_no_fresh_rules(view: View) -> None:
    case = a_case(action=Action.SELL, books=holding(), view=view)
    assert judge(case) is None
    assert case.size.quantity == 1


def test_a_way_out_of_a_pair_that_entries_may_not_use_is_open() -> None:
    rules = replace(RULES, quote_asset="BTC")
    assert judge(a_case(action=Action.SELL, books=holding(), view=replace(VIEW, rules=rules))) is None


@pytest.mark.parametrize("status", [OrderStatus.SENT, OrderStatus.UNKNOWN, OrderStatus.INTENT])
def test_an_exit_waits_for_orders_without_an_outcome(status: OrderStatus) -> None:
    case = a_case(action=Action.SELL, books=with_orders(an_order(status)))
    assert case.waits
    assert judge(case) is None


def test_only_an_exit_of_everything_waits_for_resting_orders() -> None:
    books = replace(holding(), orders={"gh1": an_order(OrderStatus.NEW)})
    assert a_case(action=Action.SELL, books=books).waits
    assert a_case(action=Action.SELL, quantity=D("0.5"), market_position="flat", books=books).waits
    assert not a_case(action=Action.SELL, quantity=D("0.5"), books=books).waits
    assert not a_case(books=books).waits


def test_a_way_out_is_never_too_large_for_the_exchange() -> None:
    case = a_case(action=Action.SELL, books=holding(), market_max_quantity=D("0.4"))
    assert judge(case) is None
    assert case.size.quantity == D("0.4")


def test_a_close_sells_no_more_than_is_held_and_a_plain_sell_what_it_says() -> None:
    assert a_case(action=Action.CLOSE, quantity=D(5), books=holding()).size.quantity == 1
    assert a_case(action=Action.SELL, reduce_only=True, quantity=D(5), books=holding()).size.quantity == 1
    assert a_case(action=Action.CLOSE, quantity=D("0.4"), books=holding()).size.quantity == D("0.4")
    assert a_case(action=Action.SELL, quantity=D(5), books=holding()).size.quantity == 5


def test_what_other_orders_sell_already_is_not_sold_again() -> None:
    selling = an_order(OrderStatus.NEW, side=Side.SELL, is_entry=False, reserved_base=D("0.7"), reserved_quote=ZERO)
    case = a_case(action=Action.SELL, percent=D(50), books=replace(holding(), orders={"gh1": selling}))
    assert case.closable == D("0.3")
    assert case.size.quantity == D("0.15")


# --- sizes --------------------------------------------------------------------------------------------------------

SYMBOLS = {
    row["symbol"]: row
    for row in json.loads((Path(__file__).parent / "data/binance_symbols.json").read_text("utf-8"))["symbols"]
}


@pytest.mark.parametrize(
    ("value", "step", "rounded"),
    [
        ("0.123456789", "0.00001", "0.12345"),
        ("0.00012999", "0.00001", "0.00012"),
        ("0.3", "0.1", "0.3"),
        ("1.1", "0.1", "1.1"),
        ("999.9999", "1", "999"),
        ("0.99", "1", "0"),
        ("7", "5", "5"),
        ("0.29", "0.01", "0.29"),
        ("4.35", "0.05", "4.35"),
        ("123.456", "0.00000000", "123.456"),
        ("999999999999999.99999999", "0.00000001", "999999999999999.99999999"),
    ],
)
def test_rounding_goes_down_to_the_step_exactly(value: str, step: str, rounded: str) -> None:
    assert plain(round_down(D(value), D(step))) == rounded


@pytest.mark.parametrize(
    ("symbol", "amount", "price", "quantity"),
    [("BTCUSDT", "10", "43123.45", "0.00023"), ("ETHUSDT", "10", "2500.01", "0.0039"),
     ("SOLUSDT", "10", "149.99", "0.066"), ("DOGEUSDT", "10", "0.19999", "50"), ("TSLABUSDT", "1", "400", "0.002")],
)  # fmt: skip
def test_an_amount_becomes_a_quantity_on_the_symbols_own_step(
    symbol: str, amount: str, price: str, quantity: str
) -> None:
    lot = next(f for f in SYMBOLS[symbol]["filters"] if f["filterType"] == "LOT_SIZE")
    rules = replace(RULES, quantity_step=D(lot["stepSize"]), quote_amount_allowed=False)
    signal = Signal(Action.BUY, symbol, amount=D(amount))
    size = sizing.entry_size(sizing.Wish(amount=D(amount)), signal, rules, D(price), None)
    assert (size.quantity, size.amount) == (D(quantity), None)
    assert size.notional == D(quantity) * D(price) <= D(amount)


def test_the_size_of_an_entry_is_the_first_that_is_there() -> None:
    def size(**changes: Any) -> sizing.Size:
        return a_case(capital_allocation_percent=D(2), trade_amount_usdt=D(7), **changes).size

    assert size(quantity=D("0.02"), amount=D(3), percent=D(4)).quantity == D("0.02")
    assert size(amount=D(3), percent=D(4)).amount == 3
    assert size(percent=D(4)).amount == 40
    assert size().amount == 20
    assert a_case(trade_amount_usdt=D(7)).size.amount == 7


def test_a_limit_price_is_moved_to_the_tick_and_never_to_the_worse_side() -> None:
    rules = replace(RULES, price_tick=D("0.05"))
    assert sizing.on_tick(D("100.07"), Side.BUY, rules) == D("100.05")
    assert sizing.on_tick(D("100.07"), Side.SELL, rules) == D("100.10")
    assert sizing.on_tick(D("100.05"), Side.SELL, rules) == D("100.05")


def test_a_reversal_buys_the_long_and_not_the_short_it_never_had() -> None:
    case = a_case(prev_market_position="short", quantity=D("0.3"), position_size=D("0.1"), market_position="long")
    assert case.size.quantity == D("0.1")


positive = st.decimals("0.00000001", "1000000", places=8)
steps = st.sampled_from([D(step) for step in ("0.00000001", "0.00001", "0.001", "0.05", "1", "5", "0.00000000")])


@settings(max_examples=examples(100))
@given(
    quantity=st.none() | st.decimals("0.00000001", "9", places=8),
    amount=st.none() | st.decimals("0.00000001", "999", places=8),
    percent=st.none() | st.decimals("0.01", "100", places=2),
    limit=st.booleans(),
    price=st.decimals("0.01", "99", places=8),
    free=st.decimals("0.01", "1000", places=8),
    maximum=st.decimals("0.01", "1000", places=8),
    step=steps,
    market_step=steps,
    tick=steps,
    minimum=st.decimals("0", "0.01", places=8),
    amounts=st.booleans(),
)
def test_no_accepted_entry_exceeds_a_limit_leaves_the_step_or_is_rounded_up(
    quantity: Decimal | None, amount: Decimal | None, percent: Decimal | None, limit: bool, price: Decimal,
    free: Decimal, maximum: Decimal, step: Decimal, market_step: Decimal, tick: Decimal, minimum: Decimal,
    amounts: bool,
) -> None:  # fmt: skip
    rules = replace(
        RULES, quantity_step=step, market_quantity_step=market_step, min_quantity=minimum, price_tick=tick,
        min_notional=ZERO, quote_amount_allowed=amounts,
    )  # fmt: skip
    signal = Signal(
        Action.BUY, "BTCUSDT", quantity=quantity, amount=amount, percent=percent, price=price,
        type=OrderType.LIMIT if limit else OrderType.MARKET,
    )  # fmt: skip
    limits = replace(LIMITS, max_risk_per_trade=maximum, min_balance_usdt=ZERO)
    case = Case(signal, at("BTCUSDT"), View(rules, price, free, ZERO, NOW), Books(day=NOW.date()), limits, NOW)
    size = case.size
    wanted = sizing.entry_wish(signal, sizing.default_wish(None, limits.trade_amount_usdt))
    if size.quantity is not None:
        assert is_on_grid(size.quantity, step)
        assert limit or is_on_grid(size.quantity, market_step) or market_step < step
        assert wanted.quantity is None or size.quantity <= wanted.quantity
    if size.limit_price is not None:
        assert size.limit_price <= price
    event("accepted" if judge(case) is None else "refused")
    if judge(case) is not None:
        return
    assert (size.quantity is None) is not (size.amount is None)
    cost = size.amount if size.amount is not None else (size.quantity or ZERO) * (size.limit_price or price)
    assert size.notional == cost
    assert ZERO < cost <= min(maximum, free)
    assert size.quantity is None or size.quantity >= minimum
    if wanted.amount is not None:
        assert cost <= wanted.amount
    if wanted.percent is not None:
        assert cost <= free * wanted.percent / 100


@given(
    held=positive,
    quantity=st.none() | positive,
    amount=st.none() | positive,
    percent=st.none() | st.decimals("0.01", "100", places=2),
    price=positive,
    step=steps,
    largest=st.just(ZERO) | positive,
)
def test_no_exit_sells_more_than_is_held_or_stated(
    held: Decimal, quantity: Decimal | None, amount: Decimal | None, percent: Decimal | None, price: Decimal,
    step: Decimal, largest: Decimal,
) -> None:  # fmt: skip
    rules = replace(RULES, quantity_step=step, market_max_quantity=largest)
    signal = Signal(Action.SELL, "BTCUSDT", quantity=quantity, amount=amount, percent=percent)
    size = sizing.exit_size(sizing.exit_wish(signal), rules, held, price, OrderType.MARKET, None)
    assert size.quantity is not None
    assert is_on_grid(size.quantity, step)
    assert size.quantity <= (held if quantity is None else quantity)
    assert not largest or size.quantity <= largest
    if quantity is None and amount is not None:
        assert size.quantity * price <= amount + price * D("1e-20")
    if (quantity, amount, percent) == (None, None, None):
        room = min(held, largest) if largest else held
        assert room - size.quantity < (step or D("1e-20")), "a way out leaves less than one step behind"


# --- missed alerts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "books", "note"),
    [
        (None, Books(), ""),
        ("flat", Books(), ""),
        ("long", holding(), ""),
        ("long", Books(), "the strategy was long before this alert, held is flat: an alert may have been missed"),
        ("flat", holding(), "the strategy was flat before this alert, held is long: an alert may have been missed"),
        ("flat", holding("0.0001"), ""),
    ],
)
def test_a_strategy_that_believes_in_another_position_is_told_of(said: str | None, books: Books, note: str) -> None:
    assert missed_alert(a_case(prev_market_position=said, books=books)) == note


# --- alerts that come late ----------------------------------------------------------------------------------------

# A strategy that went from 3 over 4 to nothing; the alert that closed 4 came first, while 3 were held.
LATE: dict[str, Any] = FUTURES | {"quantity": D(1), "position_size": D(4), "market_position": "long"}


def closed_first(seconds_ago: float = 1, *, followed: bool = True, held: str = "3") -> Books:
    missed = Missed("long", "long", fired(seconds_ago), followed, D(held), D(4))
    return Books(day=NOW.date(), missed={at("BTCUSDT", Market.FUTURES): missed})


@pytest.mark.parametrize(
    ("books", "alert", "is_late"),
    [
        (closed_first(), {}, True),
        (closed_first(31), {}, False),
        (closed_first(held="2.95"), {}, True),  # what is held is rounded
        (closed_first(), {"position_size": D("4.01")}, True),
        (closed_first(), {"position_size": D(5), "quantity": D(2)}, False),  # a new one, to another size
        (closed_first(), {"quantity": D(4)}, False),  # a new one, from nothing
        (closed_first(held="0"), {"quantity": D(3)}, False),  # and from a part of it
        (closed_first(followed=False), {}, True),
    ],
)
def test_a_late_alert_is_known_by_the_sizes_that_it_leads_from_and_to(
    books: Books, alert: dict[str, Any], is_late: bool
) -> None:
    assert checks.overtaken(a_case(books=books, **LATE | alert)).passed is not is_late


def test_where_the_later_alert_led_to_nothing_only_entries_are_too_late() -> None:
    books = replace(
        overtook(1),
        missed={at("BTCUSDT"): Missed("long", "flat", fired(1), followed=False)},
        positions=holding().positions,
    )
    assert checks.overtaken(a_case(books=books, **BEHIND)).passed
    books = replace(books, missed={at("BTCUSDT"): Missed("flat", "long", fired(1), followed=False)})
    late = a_case(books=books, prev_market_position="flat", market_position="long")
    assert not checks.overtaken(late).passed


# --- another currency -------------------------------------------------------------------------------------------------


def test_an_alert_without_a_size_buys_for_the_amount_of_its_brokers_currency_in_whole_shares() -> None:
    case = a_case(**INDIA | {"quantity": None, "market_price": D("150.5")})
    assert judge(case) is None
    assert (case.size.quantity, case.size.notional) == (D(13), D("1956.5"))


def test_limits_in_dollars_do_not_limit_rupees_nor_the_other_way_round() -> None:
    assert judge(a_case(**INDIA, max_risk_per_trade=D("0.1"), min_balance_usdt=D(10**9))) is None
    assert judge(a_case(flattrade_max_risk_per_trade=D("0.1"), flattrade_min_balance=D(10**9))) is None
