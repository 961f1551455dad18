"""Orders of shares, and a client that is logged in at the fake FlatTrade."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from fake_flattrade import APP_KEY, APP_SECRET, UID, FakeFlatTrade

from broker import Done, Outcome, Refused
from flattrade_client import FlatTradeClient
from flattrade_token import FlatTradeLogin
from intents import new_id
from models import Market, Order, OrderType, Side, SymbolRules

D = Decimal
RULES = SymbolRules("CIPLA", "CIPLA", "INR", D(1), D(1), price_tick=D("0.10"), quote_amount_allowed=False)


def now() -> datetime:
    return datetime.now(UTC)


def a_client(fake: FakeFlatTrade, folder: Path, clock: Any = now) -> FlatTradeClient:
    """Logged in, by the fake's own login."""
    login = FlatTradeLogin(APP_KEY, APP_SECRET, UID, folder, clock, fake.auth_url)
    login.begin()
    login.finish(fake.log_in())
    return FlatTradeClient(login, UID, clock, fake.api_url)


def an_order(**changes: Any) -> Order:
    """A market buy of 10 CIPLA."""
    at = now()
    order = Order(
        new_id("gh", at), "s1", "FLATTRADE", Market.SPOT, "CIPLA", Side.BUY, OrderType.MARKET, True, RULES, at, at,
        quantity=D(10), sent_at=at,
    )  # fmt: skip
    return replace(order, **changes)


def a_limit(price: str, **changes: Any) -> Order:
    return an_order(type=OrderType.LIMIT, price=D(price), **changes)


def a_sale(**changes: Any) -> Order:
    return an_order(side=Side.SELL, is_entry=False, **changes)


def done(outcome: Outcome) -> Done:
    assert isinstance(outcome, Done), outcome
    return outcome


def refused(outcome: Outcome) -> Refused:
    assert isinstance(outcome, Refused), outcome
    return outcome
