"""How things stand: what is told to anyone, what to the owner, and what he gets a message about. Asks nobody."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import replies
from models import Account, Order
from notifier import Look
from trader import Trader
from wiring import FLATTRADE, Gatehouse

# Shorter ones pass by themselves: an exchange that restarts, a network that is mended.
OUT_OF_REACH_SECONDS = 60.0


class Standing:
    """Read from memory, whatever the disk and the exchange do."""

    def __init__(self, gate: Gatehouse, trader: Trader) -> None:
        self._gate = gate
        self._trader = trader

    def problems(self) -> list[str]:
        problem = self._gate.engine.journal_problem
        recovering = [] if self._trader.ready.is_set() else ["recovery is not finished"]
        return [problem, *recovering] if problem else recovering

    def state(self) -> dict[str, Any]:
        """All that the owner is told of it, for the page."""
        more = {"accounts": self.accounts(), "problems": self.problems()}
        return self.thin() | self.details() | more

    def thin(self) -> dict[str, Any]:
        """For anyone."""
        gate, default, now = self._gate, self._gate.settings.default_broker_name, self._gate.clock()
        books = gate.engine.books.as_of(now)
        return {
            "status": "unavailable" if self.problems() else "ok",
            "mode": gate.settings.mode_of(default),
            "default_broker": default,
            "uptime_seconds": round((now - gate.started_at).total_seconds(), 1),
            "paused": books.paused,
        } | replies.counts(books, gate.engine.limits)

    def details(self) -> dict[str, Any]:
        """For the owner."""
        books = self._gate.engine.books
        unresolved = [order for order in books.orders.values() if order.status.value in ("UNKNOWN", "SENT", "INTENT")]
        return {
            "limits": self._gate.engine.limits,
            "preferences_differing": len(self._gate.engine.in_force.differing),
            "brokers": {
                self._gate.label(account): {"mode": self._gate.settings.mode_of(account.broker)}
                | state
                | self._login_at(account)
                for account, state in self._trader.market.state().items()
            },
            "balances": {self._gate.label(account): _balances(self._trader, account) for account in self._gate.brokers},
            "positions": self.positions(),
            "unresolved_orders": [self._unresolved(order) for order in unresolved],
            "resting_orders": [replies.order_view(order) for order in books.orders.values() if order not in unresolved],
            "csv_lag": {name: csv.lag for name, csv in self._gate.csvs.items()},
            "csv_problems": {name: csv.problem for name, csv in self._gate.csvs.items() if csv.problem},
            "journal_problem": self._gate.engine.journal_problem,
            "halted": self._gate.engine.halted or self._gate.engine.in_force.problem,
            "drift": self._trader.drift,
            "notices": [{"at": at, "text": text} for at, text in self._trader.notices],
            "latencies_ms": _latencies(self._trader.latencies_ms),
            "warnings": self._gate.engine.in_force.warnings,
            "notifications": self.notifications(),
        }

    def _unresolved(self, order: Order) -> dict[str, Any]:
        """With whether its broker still tells what became of it, or only the owner can."""
        is_asked = self._trader.asked_of_owner(order.client_order_id) is not None
        return replies.order_view(order) | {"asked_of_owner": is_asked}

    def _login_at(self, account: Account) -> dict[str, Any]:
        """Of a broker where the owner logs in by himself: until when; None when he has to."""
        login = self._gate.flattrade
        return {"logged_in_until": login.until} if login and account == FLATTRADE else {}

    def positions(self, symbol: str | None = None) -> list[dict[str, Any]]:
        open_ones = (p for p in self._gate.engine.books.positions.values() if p.is_open and symbol in (None, p.symbol))
        return [replies.position_view(p, self._trader.market.price(p.instrument)) for p in open_ones]

    def accounts(self) -> list[dict[str, Any]]:
        found = []
        for account in self._gate.brokers:
            dated = self._trader.market.balances(account)
            held = [p for p in self.positions() if (p["broker"], p["market"]) == account]
            mode, label = self._gate.settings.mode_of(account.broker), self._gate.label(account)
            found.append(replies.account_view(label, mode, dated.value if dated else None, held))
        return found

    def notifications(self) -> dict[str, Any] | None:
        """What became of the messages so far; None where there are none to be sent."""
        return self._gate.notifier.state if self._gate.notifier else None

    def look(self) -> Look:
        """What the owner is told of as long as it lasts, and what he holds."""
        engine = self._gate.engine
        problems = {"Halted": engine.halted or engine.in_force.problem, "Journal": engine.journal_problem}
        for account, problem in self._trader.market.failing(OUT_OF_REACH_SECONDS).items():
            # A login that is over is told by itself.
            if self._login_at(account).get("logged_in_until", "") is not None:
                problems[f"{self._gate.label(account)} is out of reach, entries are refused"] = problem
        drift = [", ".join(f"{name} {value}" for name, value in row.items() if value) for row in self._trader.drift]
        return Look(problems, drift, [position for position in engine.books.positions.values() if position.is_open])


def _balances(trader: Trader, account: Account) -> dict[str, Any] | None:
    dated = trader.market.balances(account)
    return replies.balances_view(dated.value if dated else None)


def _latencies(last: Iterable[float]) -> dict[str, Any]:
    """Of the last hundred orders: from the alert's receipt to the outcome."""
    waits = sorted(last)
    if not waits:
        return {"orders": 0}
    return {"orders": len(waits), "median": round(waits[len(waits) // 2], 1), "max": round(waits[-1], 1)}
