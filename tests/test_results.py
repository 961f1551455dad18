"""The results page: each figure as people read it, and the currency where it is not the usual one."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from history import Wanted
from performance import EquityPoint, Facts, Paid, performance
from results import results_view

D = Decimal
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
BROKERS = ("PAPER",)


def fact(pnl: str | None = None, **more: Any) -> Facts:
    known: dict[str, Any] = {
        "at": NOW,
        "symbol": "BTCUSDT",
        "strategy": "trend",
        "broker": "PAPER",
        "currency": "USDT",
        "is_entry": pnl is None,
        "executed": True,
        "realized_pnl": None if pnl is None else D(pnl),
    }
    return Facts(**known | more)


def view(*facts: Facts, equity: tuple[EquityPoint, ...] = ()) -> dict[str, Any]:
    return results_view(performance(facts, equity, Wanted(), BROKERS), BROKERS)


def figures(*facts: Facts, equity: tuple[EquityPoint, ...] = ()) -> dict[str, str]:
    return {figure["name"]: str(figure["text"]) for figure in view(*facts, equity=equity)["figures"]}


def test_before_the_first_trade_there_is_nothing_to_say() -> None:
    shown = figures()
    assert shown["Closed trades"] == "0"
    for name in ("Win rate", "Profit factor", "Average win", "Sharpe", "Slippage in", "Latency", "Equity drawdown"):
        assert "\N{EN DASH}" in shown[name], name


def test_two_wins_and_a_loss() -> None:
    # 30 + 10 won, 20 lost: 2 of 3; 40 / 20; (30 + 10) / 2; the sum falls from 30 to 10 and ends at 20.
    shown = figures(fact("30"), fact("-20"), fact("10"))
    assert "+20.00" in shown["Realised P&L"]
    assert shown["Win rate"] == "66.67 %"
    assert shown["Profit factor"] == "2"
    assert "+20.00" in shown["Average win"]
    assert "\N{MINUS SIGN}20.00" in shown["Average loss"]
    assert shown["Max drawdown"] == "20.00"


def test_fees_in_other_coins_stand_beside_the_sum_and_not_in_it() -> None:
    shown = figures(fact(fees=(Paid("USDT", D("1.5")), Paid("BNB", D("0.002")))))
    assert shown["Fees"].startswith("1.50<")
    assert "0.002 BNB" in shown["Fees"]


def test_slippage_and_latency_carry_their_units() -> None:
    shown = figures(fact(slippage_bps=2.5, latency_ms=3.84), fact("1", slippage_bps=-1.25))
    assert shown["Slippage in"] == "+2.50 bp"
    assert shown["Slippage out"] == "\N{MINUS SIGN}1.25 bp"
    assert shown["Latency"] == "3.8 ms"


def test_the_fall_of_the_equity_is_said_in_percent() -> None:
    shown = figures(equity=(EquityPoint(NOW, D(200)), EquityPoint(NOW, D(150))))
    assert shown["Equity drawdown"] == "25 %"


def test_another_currency_is_named_and_has_a_table_of_its_own() -> None:
    shown = view(fact("1"), fact("5", symbol="ETHBTC", currency="BTC"))
    assert shown["heading"] == "USDT, PAPER"
    by_symbol = shown["parts"][1]
    assert [row["name"] for row in by_symbol["rows"]] == ["BTCUSDT", "ETHBTC (BTC)"]
    assert shown["parts"][3]["rows"][0]["name"] == "all (BTC)"
    assert len(view(fact("1"))["parts"]) == 3


def test_a_trade_without_a_strategy_has_a_line_too() -> None:
    assert view(fact("1", strategy=""))["parts"][0]["rows"][0]["name"] == "\N{EN DASH}"


def test_hostile_names_of_coins_stay_text() -> None:
    assert "<b>" not in figures(fact(fees=(Paid("<b>", D(1)),)))["Fees"]
