"""The results page: the figures of performance.py as people read them, each with its meaning in a line. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from performance import Figures, Part, Performance, Slippage
from templating import NOTHING, gain, money, plain, signed, took

View = dict[str, Any]


class Column(NamedTuple):
    """One figure: its name, what it means, and how it is written."""

    name: str
    meaning: str
    shown: Callable[[Figures], str]


def _percent(value: Any) -> str:
    return NOTHING if value is None else f"{plain(round(value, 2))} %"


def _basis_points(slippage: Slippage) -> str:
    return NOTHING if slippage.median_bps is None else f"{signed(round(slippage.median_bps, 2))} bp"


def _fees(figures: Figures) -> str:
    others = (Markup("<br><small>{} {}</small>").format(plain(fee.amount), fee.asset) for fee in figures.other_fees)
    return Markup("").join([escape(money(figures.fees)), *others])


def _ratio(value: Decimal | None) -> str:
    return NOTHING if value is None else plain(round(value, 2))


def _milliseconds(value: float | None) -> str:
    return NOTHING if value is None else took(value)


COLUMNS = (
    Column("Realised P&L", "of all closed trades, after fees", lambda f: gain(f.realized_pnl)),
    Column("Closed trades", "orders that closed something", lambda f: str(f.trades)),
    Column("Win rate", "trades with a profit, of all", lambda f: _percent(f.win_rate_percent)),
    Column("Profit factor", "what wins brought over what losses took", lambda f: _ratio(f.profit_factor)),
    Column("Average win", "of trades with a profit", lambda f: gain(f.average_win)),
    Column("Average loss", "of trades with a loss", lambda f: gain(f.average_loss)),
    Column("Max drawdown", "deepest fall of the summed P&L below its peak", lambda f: money(f.max_drawdown)),
    Column("Sharpe", "of daily P&L in money, times √365; days without trades count 0", lambda f: _ratio(f.sharpe)),
    Column("Fees", "paid; other coins apart", _fees),
    Column("Slippage in", "median against the alert's price; + is worse", lambda f: _basis_points(f.entry_slippage)),
    Column("Slippage out", "median against the alert's price; + is worse", lambda f: _basis_points(f.exit_slippage)),
    Column("Latency", "median, from receipt to the answer", lambda f: _milliseconds(f.median_latency_ms)),
)


def results_view(found: Performance, brokers: Sequence[str]) -> View:
    """For the template. `brokers`: whose trades these are."""
    others = [Part("all", figures) for figures in found.others]
    fall = found.max_equity_drawdown_percent
    equity = [{"name": "Equity drawdown", "help": "deepest fall of all accounts, %", "text": _percent(fall)}]
    return {
        "heading": f"{found.total.currency}, {', '.join(brokers)}",
        "figures": [_figure(column, found.total) for column in COLUMNS] + equity,
        "parts": [
            _part("By strategy", "Strategy", found.by_strategy, found.total.currency),
            _part("By symbol", "Symbol", found.by_symbol, found.total.currency),
            _part("By broker", "Broker", found.by_broker, found.total.currency),
            *([_part("In other currencies", "Currency", others, found.total.currency)] if others else []),
        ],
    }


def _figure(column: Column, figures: Figures) -> View:
    return {"name": column.name, "help": column.meaning, "text": column.shown(figures)}


def _part(heading: str, what: str, parts: Sequence[Part], usual: str) -> View:
    """The currency is said where it is not the usual one."""
    rows = [
        {
            "name": (part.name or NOTHING) + ("" if part.figures.currency == usual else f" ({part.figures.currency})"),
            "cells": [column.shown(part.figures) for column in COLUMNS],
        }
        for part in parts
    ]
    return {"heading": heading, "what": what, "columns": [column.name for column in COLUMNS], "rows": rows}
