"""`GET /metrics`: how things stand, as gauges. Read from memory in the moment of asking: no exchange, no disk."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from models import UNSETTLED, Account
from trader import Trader
from wiring import Gatehouse

WHERE = ("broker", "market")
NOTIFICATIONS = ("sent", "failed", "dropped")


def gauges(gate: Gatehouse, trader: Trader) -> list[Metric]:
    """Runs on the event loop, where what it looks at does not change meanwhile."""
    return [*_engine(gate, trader), *_accounts(gate, trader), *_files(gate), *_notifications(gate), _build()]


def _engine(gate: Gatehouse, trader: Trader) -> Iterable[Metric]:
    now, engine = gate.clock(), gate.engine
    books = engine.books.as_of(now)
    orders = Counter(
        "unresolved" if order.status in UNSETTLED else "protection" if order.is_protection else "resting"
        for order in books.orders.values()
    )
    yield _one("uptime_seconds", "Since the start of the process.", (now - gate.started_at).total_seconds())
    yield _one("ready", "1 once recovery is done.", trader.ready.is_set())
    yield _one("journal_healthy", "0 while the journal cannot be written.", not engine.journal_problem)
    yield _one("paused", "1 while entries are paused.", books.paused)
    yield _one(
        "halted", "1 while entries are refused until somebody looks.", bool(engine.halted or engine.in_force.problem)
    )
    yield _one("open_trades", "Entries held or under way, as MAX_OPEN_TRADES counts them.", books.open_trades)
    yield _one("trades_today", "Entries of this UTC day, as MAX_TRADES_PER_DAY counts them.", books.entries_today)
    yield _one("realized_pnl_today", "Realised on this UTC day, in quote currency.", float(books.realized_today))
    yield _one("drift", "Differences between the books and the accounts.", len(trader.drift))
    by_kind = GaugeMetricFamily("gatehouse_live_orders", "Orders without an ending.", labels=("kind",))
    for kind in ("unresolved", "resting", "protection"):
        by_kind.add_metric((kind,), orders[kind])
    yield by_kind


def _accounts(gate: Gatehouse, trader: Trader) -> Iterable[Metric]:
    state = trader.market.state()
    held = Counter(p.instrument.account for p in gate.engine.books.positions.values() if p.is_open)
    yield _each("open_positions", "Positions held.", {account: held[account] for account in gate.brokers})
    yield _each(
        "connected", "1 while the account answers.", {a: bool(found["connected"]) for a, found in state.items()}
    )
    # An account that never answered has no age: no sample is what `absent()` asks for.
    ages = {account: found["balance_age_seconds"] for account, found in state.items()}
    known = {account: float(age) for account, age in ages.items() if isinstance(age, int | float)}
    yield _each("balance_age_seconds", "Since the balance was asked for.", known)


def _files(gate: Gatehouse) -> Iterable[Metric]:
    lag = GaugeMetricFamily("gatehouse_csv_lag_rows", "Rows that a CSV file lacks.", labels=("file",))
    for name, csv in gate.csvs.items():
        lag.add_metric((name,), csv.lag)
    yield lag


def _notifications(gate: Gatehouse) -> Iterable[Metric]:
    state = gate.notifier.state if gate.notifier else {}
    told = CounterMetricFamily(
        "gatehouse_notifications", "Messages taken (sent), tries that failed, news dropped.", labels=("result",)
    )
    for result in NOTIFICATIONS:
        told.add_metric((result,), state.get(result, 0))
    yield told
    yield _one("notifications_queued", "News that wait for their service.", state.get("queued", 0))


def _build() -> Metric:
    return InfoMetricFamily("gatehouse_build", "What runs.", {"python": platform.python_version()})


def _one(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"gatehouse_{name}", about, float(value))


def _each(name: str, about: str, values: Mapping[Account, float]) -> Metric:
    family = GaugeMetricFamily(f"gatehouse_{name}", about, labels=WHERE)
    for account, value in values.items():
        family.add_metric((account.broker, account.market.value), float(value))
    return family
