"""Small ready-made values for the tests that need no exchange: rules, limits, orders, decisions, an engine's answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from case import Limits
from events import Decided
from models import (
    ZERO,
    Account,
    Decision,
    DecisionRecord,
    Execution,
    Fee,
    Instrument,
    Market,
    Order,
    OrderStatus,
    OrderType,
    Side,
    Signal,
    SymbolRules,
)
from risk import Alert, Request, RiskEngine
from sizing import View

D = Decimal
S = OrderStatus
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULES = SymbolRules("BTCUSDT", "BTC", "USDT", quantity_step=D("0.001"), min_quantity=D("0.001"), min_notional=D(5))
LIMITS = Limits(
    min_confidence=D(50), default_confidence=D(100), min_balance_usdt=D(10), max_risk_per_trade=D(1000),
    trade_amount_usdt=D(100), max_open_trades=3, max_trades_per_day=5, cooldown_seconds=ZERO, max_daily_loss_usdt=None,
    max_signal_age_seconds=D(60), dedupe_seconds=D(60), allowed_symbols=(), allowed_strategies=(), direction="both",
    capital_allocation_percent=None, leverage=1, max_leverage=10, stop_loss_percent=None, take_profit_percent=None,
    trailing_stop_percent=None, flattrade_min_balance=D(1000), flattrade_max_risk_per_trade=D(1000),
    flattrade_trade_amount=D(1000),
)  # fmt: skip


BINANCE = Account("BINANCE", Market.SPOT)


def at(symbol: str, market: Market = Market.SPOT) -> Instrument:
    return Instrument("BINANCE", market, symbol)


def an_order(status: OrderStatus = S.SENT, **changes: Any) -> Order:
    order = Order(
        "gh1", "s1", "BINANCE", Market.SPOT, "BTCUSDT", Side.BUY, OrderType.MARKET, True, RULES, NOW, NOW,
        amount=D(100), status=status, sent_at=NOW, reserved_quote=D(100),
    )  # fmt: skip
    return replace(order, **changes)


def an_exit(**changes: Any) -> Order:
    exit_: dict[str, Any] = {
        "client_order_id": "gh2", "signal_id": "s2", "side": Side.SELL, "is_entry": False, "quantity": D(1),
        "amount": None, "reserved_quote": ZERO, "reserved_base": D(1),
    }  # fmt: skip
    return an_order(**(exit_ | changes))


def decided(order: Order | None, at: datetime = NOW, decision: Decision = Decision.ACCEPTED) -> Decided:
    signal_id = order.signal_id if order else "s0"
    return Decided(DecisionRecord(signal_id, "key", at, at, decision, "", "why", None, "BINANCE", order))


def done(quantity: str, price: str, *fees: tuple[str, str], status: OrderStatus = S.FILLED) -> Execution:
    paid = tuple(Fee(asset, D(amount)) for asset, amount in fees)
    return Execution(status, "77", D(quantity), D(quantity) * D(price), paid)


def view_at(now: datetime) -> View:
    return View(RULES, D(100), D(10_000), ZERO, now)


def decide(engine: RiskEngine, signal: Signal, now: datetime = NOW, key: str = "") -> DecisionRecord:
    rules = replace(RULES, symbol=signal.symbol, base_asset=signal.symbol.removesuffix("USDT"))
    alert = Alert(signal, key or f"key {len(engine.books.orders)} {now} {signal}", BINANCE, now)
    (record,) = engine.decide([Request(alert, replace(view_at(now), rules=rules), lambda: True)], lambda: now)
    assert isinstance(record, DecisionRecord), record
    return record
