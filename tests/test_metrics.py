"""`GET /metrics`, parsed as Prometheus does, beside what was done over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from builders import BINANCE, NOW, D, S, an_exit, an_order, decided
from fake_binance import FakeBinance
from harness import SECRET, Daemon, binance, eventually, full_disk
from prometheus_client.parser import text_string_to_metric_families
from webhook_server import WebhookServer

import metrics as metrics_module
from events import Decided, Event, OrderChanged
from metrics import Metrics
from models import Decision

MakeDaemon = Callable[..., Daemon]
BUY: dict[str, Any] = {"symbol": "BTCUSDT", "side": "buy", "price": 100}


class Scrape:
    """The samples of one scrape, by name and labels."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self.documented = {family.name for family in families if family.documentation}
        self.names = {family.name for family in families}
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples["gatehouse_" + name, tuple(sorted(labels.items()))]

    @property
    def label_values(self) -> set[str]:
        return {value for _, labels in self.samples for _, value in labels}


def scrape(daemon: Daemon) -> Scrape:
    reply = daemon.get("/metrics", secret=SECRET)
    assert reply.status == 200
    return Scrape(reply["raw"].decode())


PAPER = {"broker": "PAPER", "market": "spot"}


# --- what was done over HTTP ------------------------------------------------------------------------------------------


def test_every_decision_and_order_is_counted_by_what_it_was(daemon_with: MakeDaemon) -> None:
    daemon = daemon_with(paper_balance_usdt=1000, cooldown_seconds=0).start()
    before = scrape(daemon)
    assert before("decisions_total", decision="ACCEPTED", check="", broker="PAPER") == 0
    assert before("orders_total", ending="FILLED", **PAPER) == 0
    for number in range(3):
        assert daemon.post(**BUY, comment=str(number))["status"] == "FILLED"
    assert daemon.post(**BUY, comment="2")["decision"] == "DUPLICATE"
    assert daemon.post(**BUY)["check"] == "open_trades"
    assert daemon.post(**BUY, confidence=1)["check"] == "confidence"
    assert daemon.post(**BUY, broker="KRAKEN")["check"] == "broker"
    assert daemon.post(symbol="BTCUSDT", side="dance").status == 400
    assert daemon.post(symbol="BTCUSDT", side="sell", price=110)["status"] == "FILLED"
    assert daemon.post("/webhook?dry_run=true", **BUY).status == 200
    now = scrape(daemon)
    counted = {labels: value for (name, labels), value in now.samples.items() if name == "gatehouse_decisions_total"}
    assert {tuple(dict(labels).values()): value for labels, value in counted.items()} == {
        ("PAPER", "", "ACCEPTED"): 4,
        ("PAPER", "duplicate", "DUPLICATE"): 1,
        ("PAPER", "open_trades", "REJECTED"): 1,
        ("PAPER", "confidence", "REJECTED"): 1,
        ("other", "broker", "REJECTED"): 1,
        ("other", "invalid", "INVALID"): 1,
    }
    assert now("orders_total", ending="FILLED", **PAPER) == 4
    assert now("orders_total", ending="REJECTED", **PAPER) == 0
    assert now("decision_seconds_count") == 9
    assert now("answer_seconds_count", **PAPER) == now("outcome_seconds_count", **PAPER) == 4
    assert now("open_trades") == now("open_positions", **PAPER) == 0
    assert now("trades_today") == 3
    assert now("realized_pnl_today") > 0
    daemon.move_clock(86_400)
    tomorrow = scrape(daemon)
    assert (tomorrow("trades_today"), tomorrow("realized_pnl_today")) == (0, 0)


def test_how_things_stand_is_read_in_the_moment_of_asking(daemon_with: MakeDaemon) -> None:
    daemon = daemon_with(paper_balance_usdt=1000, cooldown_seconds=0).start()
    daemon.post(**BUY)
    daemon.post(**BUY | {"price": 90}, type="LIMIT", comment="rests")
    now = scrape(daemon)
    assert (now("ready"), now("journal_healthy"), now("paused"), now("halted"), now("drift")) == (1, 1, 0, 0, 0)
    assert (now("open_trades"), now("open_positions", **PAPER)) == (2, 1)
    assert (now("live_orders", kind="resting"), now("live_orders", kind="unresolved")) == (1, 0)
    assert (now("balance_age_seconds", **PAPER), now("connected", **PAPER)) == (0, 1)
    assert (now("csv_lag_rows", file="signals"), now("csv_lag_rows", file="trades")) == (0, 0)
    assert 0 < now("uptime_seconds") < 60
    assert now.samples["process_resident_memory_bytes", ()] > 10_000_000
    daemon.owner_post("/pause")
    assert scrape(daemon)("paused") == 1
    with full_disk(daemon):
        assert daemon.post(**BUY, comment="no disk").status == 503
        assert scrape(daemon)("journal_healthy") == 0


def test_an_exchange_is_timed_from_the_orders_leaving_to_its_answer(
    daemon_with: MakeDaemon, exchange: FakeBinance
) -> None:
    daemon = daemon_with(**binance(exchange)).start()
    exchange.fail_next("delay", seconds=0.3)
    daemon.post(symbol="BTCUSDT", side="buy")
    now, where = scrape(daemon), {"broker": "BINANCE", "market": "spot"}
    assert now("answer_seconds_count", **where) == 1
    assert now("answer_seconds_bucket", le="0.25", **where) == 0
    assert now("answer_seconds_bucket", le="1.0", **where) == 1
    assert 0.3 <= now("answer_seconds_sum", **where) <= now("outcome_seconds_sum", **where) < 1
    assert now("decision_seconds_sum") < 0.25
    assert 0 <= now("balance_age_seconds", **where) < 10


def test_a_lost_reply_is_counted_and_its_outcome_once(daemon_with: MakeDaemon, exchange: FakeBinance) -> None:
    daemon = daemon_with(**binance(exchange)).start()
    where = {"broker": "BINANCE", "market": "spot"}
    exchange.fail_next("reset", executed=True)
    daemon.post(symbol="BTCUSDT", side="buy")
    daemon.wait_until_settled()
    eventually(lambda: scrape(daemon)("orders_total", ending="FILLED", **where) == 1, 5, daemon.log)
    now = scrape(daemon)
    assert (now("unknown_outcomes_total", **where), now("outcome_seconds_count", **where)) == (1, 1)


def test_messages_are_counted(daemon_with: MakeDaemon) -> None:
    with WebhookServer() as server:
        daemon = daemon_with(notify_urls=server.url).start()
        daemon.post(**BUY)
        eventually(lambda: scrape(daemon)("notifications_total", result="sent") == 1, 5, daemon.log)
    now = scrape(daemon)
    assert (now("notifications_total", result="failed"), now("notifications_total", result="dropped")) == (0, 0)
    assert now("notifications_queued") == 0


def test_only_the_owner_may_look_and_who_may_not_is_counted(paper: Daemon) -> None:
    assert paper.get("/metrics").status == 401
    assert paper.get("/metrics", secret="wrong").status == 401
    assert paper.post_raw(b'{"secret": "wrong"}').status == 401
    origin = f"http://127.0.0.1:{paper.port}"
    assert paper.request("POST", "/login", b"token=a+guess", Origin=origin).status == 401
    assert scrape(paper)("unauthorised_total") == 4


def test_the_answer_is_what_prometheus_asks_for(paper: Daemon) -> None:
    reply = paper.get("/metrics", secret=SECRET)
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    found = Scrape(reply["raw"].decode())
    assert found.names == found.documented
    ours = {name for name in found.names if not name.startswith("process_")}
    assert all(name.startswith("gatehouse_") for name in ours)
    assert not [name for name, _ in found.samples if name.endswith("_created")]


def test_nothing_that_an_alert_says_becomes_a_label(paper: Daemon) -> None:
    before = scrape(paper)
    for number in range(20):
        hostile = f'x{number}"}} 1\ngatehouse_halted 1\n'
        for field in ("strategy", "broker", "symbol", "comment", "timeframe", hostile):
            paper.post(**BUY | {field: hostile})
        paper.post(symbol="BTCUSDT", side=hostile)
    after = scrape(paper)
    assert after("halted") == 0
    assert not [value for value in after.label_values if "x1" in value]
    assert len(after.samples) - len(before.samples) < 12


# --- alone ------------------------------------------------------------------------------------------------------------


def counted(*events: Event) -> Scrape:
    metrics = Metrics([BINANCE], NOW)
    metrics.written(events)
    return Scrape(metrics.text([]).decode())


WHERE = {"broker": "BINANCE", "market": "spot"}


def test_what_rests_is_timed_when_it_rests_and_not_again_when_it_is_filled() -> None:
    later = NOW + timedelta(seconds=3)
    states = [an_order(S.NEW, settled_at=later), an_order(S.PARTIALLY_FILLED, settled_at=later),
              an_order(S.FILLED, settled_at=NOW + timedelta(hours=3))]  # fmt: skip
    found = counted(*(OrderChanged(order, later) for order in states))
    assert (found("outcome_seconds_count", **WHERE), found("outcome_seconds_sum", **WHERE)) == (1, 3)
    assert found("orders_total", ending="FILLED", **WHERE) == 1


@pytest.mark.parametrize(
    "order",
    [
        an_exit(status=S.FILLED, settled_at=NOW, leg="by_hand"),
        an_order(S.FILLED, settled_at=NOW, received_at=NOW - timedelta(seconds=1)),  # of an earlier process
        an_order(S.UNKNOWN),
        an_order(S.SENT),
    ],
)
def test_what_says_nothing_of_how_long_an_order_takes_is_not_timed(order: Any) -> None:
    assert counted(OrderChanged(order, NOW))("outcome_seconds_count", **WHERE) == 0


def test_a_check_of_which_there_are_too_many_is_counted_without_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "MOST_SERIES", 5)
    metrics = Metrics([BINANCE], NOW)
    for number in range(20):
        record = replace(decided(None, decision=Decision.REJECTED).record, check=f"check{number}")
        metrics.written([Decided(record)])
    found = Scrape(metrics.text([]).decode())
    assert found("decisions_total", decision="other", check="other", broker="other") == 17


def test_counting_costs_an_order_microseconds() -> None:
    metrics = Metrics([BINANCE], NOW)
    filled = an_order(S.FILLED, settled_at=NOW, executed_quantity=D(1))
    events: list[Event] = [decided(an_order()), OrderChanged(filled, NOW)]
    started = time.perf_counter()
    for _ in range(5_000):
        metrics.written(events)
        metrics.answered(BINANCE, 0.01)
    assert (time.perf_counter() - started) / 5_000 < 0.000_2
