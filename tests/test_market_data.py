"""What is known before an alert comes: no order waits for a question, and no question is asked too often."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fake_binance import FakeBinance
from harness import Daemon, binance, eventually

MakeDaemon = Callable[..., Daemon]
ACCOUNT = "GET /api/v3/account"


@pytest.fixture
def ready(daemon_with: MakeDaemon, exchange: FakeBinance) -> Daemon:
    """A daemon that expects alerts for BTCUSDT, has held nothing yet and was sent nothing."""
    settings = {"cooldown_seconds": 0, "max_open_trades": 99, "max_trades_per_day": 99, "max_risk_per_trade": 100}
    return daemon_with(**binance(exchange, allowed_symbols="BTCUSDT,ETHUSDT,NOPEUSDT", **settings)).start()


def ask_in_vain(exchange: FakeBinance) -> None:
    """From here on no question is answered; orders are."""
    exchange.fail_next("stall", where="GET *", times=1000)


def known(daemon: Daemon) -> dict[str, float | None]:
    state: dict[str, float | None] = daemon.owner_get("/status")["brokers"]["BINANCE"]
    return state


@pytest.mark.parametrize("size", [{}, {"amount_usdt": 20}, {"quantity": "0.001"}, {"type": "LIMIT", "price": 42000}])
def test_the_first_alert_after_the_start_leaves_without_a_question(
    ready: Daemon, exchange: FakeBinance, size: dict[str, Any]
) -> None:
    ask_in_vain(exchange)
    reply = ready.post(symbol="BTCUSDT", action="buy", **size)
    assert reply["status"] == ("NEW" if "type" in size else "FILLED"), reply


def test_everything_is_there_when_it_is_ready_and_status_says_how_old_it_is(ready: Daemon) -> None:
    state = known(ready)
    assert 0 <= (state["balance_age_seconds"] or 0) < 5
    assert 0 <= (state["rules_age_seconds"] or 0) < 5
    assert isinstance(state["prices"], dict)
    assert state["prices"].keys() == {"BTCUSDT", "ETHUSDT"}
    assert 0 <= state["prices"]["BTCUSDT"] < 5


def test_an_exchange_that_is_silent_at_the_start_delays_it_by_a_few_seconds_only(
    daemon_with: MakeDaemon, exchange: FakeBinance
) -> None:
    ask_in_vain(exchange)
    started = time.monotonic()
    daemon_with(**binance(exchange) | {"test_patience": {"facts": 0.5}}).start()
    assert time.monotonic() - started < 6  # each of its questions would take ten


def test_a_symbol_with_an_alert_is_watched_from_then_on(daemon_with: MakeDaemon, exchange: FakeBinance) -> None:
    exchange.set_price("ETHUSDT", 2500)
    daemon = daemon_with(**binance(exchange, cooldown_seconds=0)).start()
    assert daemon.post(symbol="ETHUSDT", action="buy", quantity="0.004", confidence=1)["check"] == "confidence"
    first = len(exchange.calls("GET /api/v3/ticker/price"))
    eventually(
        lambda: len(exchange.calls("GET /api/v3/ticker/price")) > first, 5, lambda: "the price is not asked for again"
    )
    ask_in_vain(exchange)
    assert daemon.post(symbol="ETHUSDT", action="buy", quantity="0.004")["status"] == "FILLED"


def test_after_an_order_the_balance_is_asked_for_at_once(ready: Daemon, exchange: FakeBinance) -> None:
    asked = len(exchange.calls(ACCOUNT))
    eventually(lambda: len(exchange.calls(ACCOUNT)) > asked, 5, lambda: "the balance is not kept fresh")
    time.sleep(1.1)
    asked = len(exchange.calls(ACCOUNT))
    ready.post(symbol="BTCUSDT", action="buy")
    eventually(lambda: len(exchange.calls(ACCOUNT)) > asked, 1, lambda: "the balance is not asked for")


def test_many_orders_do_not_make_many_questions(ready: Daemon, exchange: FakeBinance) -> None:
    asked, started = len(exchange.calls(ACCOUNT)), time.monotonic()
    for number in range(20):
        assert ready.post(symbol="BTCUSDT", action="buy", comment=number)["status"] == "FILLED"
    time.sleep(1.2)
    assert len(exchange.calls(ACCOUNT)) - asked <= 2 + (time.monotonic() - started)
    eventually(lambda: ready.owner_get("/status")["balances"]["BINANCE"]["USDT"]["free"] == free_usdt(exchange), 5, str)


def free_usdt(exchange: FakeBinance) -> float:
    return float(exchange.free("USDT"))


def test_a_decision_has_its_row_while_the_exchange_takes_its_time(ready: Daemon, exchange: FakeBinance) -> None:
    exchange.fail_next("stall", executed=True)
    with ThreadPoolExecutor(1) as sender:
        reply = sender.submit(ready.post, symbol="BTCUSDT", action="buy")
        sent = time.monotonic()
        eventually(lambda: len(ready.signals()) == 1, 1.5, lambda: "no row in signals.csv")
        assert time.monotonic() - sent < 1.5
        assert not reply.done()
        assert reply.result().status == 202


def test_an_order_finds_an_open_connection_while_the_balance_is_being_asked_for(
    daemon_with: MakeDaemon, exchange: FakeBinance
) -> None:
    exchange.fail_next("delay", where=ACCOUNT, seconds=0.2, times=10)
    daemon = daemon_with(**binance(exchange, allowed_symbols="BTCUSDT")).start()
    open_before = {call.connection for call in exchange.requests}
    exchange.clear_faults()
    asked = len(exchange.calls(ACCOUNT))
    exchange.fail_next("stall", where=ACCOUNT, times=10)
    eventually(lambda: len(exchange.calls(ACCOUNT)) > asked, 5, lambda: "the balance is not asked for")
    assert daemon.post(symbol="BTCUSDT", action="buy")["status"] == "FILLED"
    (order,) = exchange.calls("POST /api/v3/order")
    assert order.connection in open_before
