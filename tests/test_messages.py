"""Messages of a whole daemon to a service on loopback: what is told, what is not, and that no order waits for it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fake_binance import FakeBinance
from harness import ROOT, SECRET, Daemon, binance, eventually, full_disk
from scenes import Scene
from webhook_server import WebhookServer

MakeDaemon = Callable[..., Daemon]
MakeScene = Callable[..., Scene]
GENEROUS: dict[str, Any] = {"paper_balance_usdt": 10000, "cooldown_seconds": 0, "max_risk_per_trade": 1000,
                            "max_open_trades": 50, "max_trades_per_day": 100}  # fmt: skip
BUY: dict[str, Any] = {"symbol": "BTCUSDT", "side": "buy", "price": 100, "amount_usdt": 100}


@pytest.fixture
def server() -> Iterator[WebhookServer]:
    with WebhookServer() as server:
        yield server


def wait_for(server: WebhookServer, text: str, seconds: float = 10) -> None:
    eventually(lambda: text in server.text, seconds, lambda: f"{text!r} is not in {server.text!r}")


def counts(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.owner_get("/status")["notifications"]
    return found


# --- what is told -----------------------------------------------------------------------------------------------------


def test_entry_and_exit_are_told_and_what_the_limits_refuse_only_in_the_summary_of_the_day(
    daemon_with: MakeDaemon, server: WebhookServer
) -> None:
    daemon = daemon_with(**GENEROUS, notify_urls=server.url).start()
    daemon.post(**BUY, strategy="**trend** [x](http://evil.example)")
    wait_for(server, "Bought 1 BTCUSDT at 100 (100 USDT), PAPER (strategy trend x")
    assert "evil.example" not in server.text
    assert daemon.post(**BUY, confidence=1)["check"] == "confidence"
    daemon.post(symbol="BTCUSDT", side="sell", price=110)
    wait_for(server, "Sold 0.999 BTCUSDT at 110")
    wait_for(server, "; realised +")
    assert "onfidence" not in server.text
    day = daemon.today()
    daemon.move_clock(86_400)
    wait_for(server, f"Summary of {day} (UTC)\nTrades: 2 (1 in, 1 out)\nRealised: +")
    assert "Alerts: 2 accepted, 1 rejected, 0 duplicate, 0 invalid\nOpen: nothing" in server.text
    daemon.restart()
    daemon.post(symbol="BTCUSDT", side="buy", price=120)
    wait_for(server, "at 120")
    assert server.text.count("Summary") == 1
    assert server.text.count("at 110") == 1


def test_what_the_exchange_refuses_is_told(
    daemon_with: MakeDaemon, server: WebhookServer, exchange: FakeBinance
) -> None:
    daemon = daemon_with(**binance(exchange, notify_urls=server.url)).start()
    exchange.fail_next("error", code=-2010, message="Account has insufficient balance for requested action.")
    daemon.post(symbol="BTCUSDT", side="buy")
    wait_for(server, "Refused by the exchange: BUY BTCUSDT at BINANCE: ")


def test_an_unknown_outcome_is_told_and_what_it_turned_out_to_be_also_over_a_restart(
    daemon_with: MakeDaemon, server: WebhookServer, exchange: FakeBinance
) -> None:
    daemon = daemon_with(**binance(exchange, notify_urls=server.url)).start()
    exchange.fail_next("reset", executed=True)
    exchange.fail_next("reset", where="GET /api/v3/order", times=100)
    daemon.post(symbol="BTCUSDT", side="buy")
    wait_for(server, "Outcome unknown, it is being looked up, and entries on the symbol wait: BUY BTCUSDT at BINANCE")
    daemon.kill()
    exchange.clear_faults()
    daemon.start()
    wait_for(server, "Now known: Bought ")
    assert server.text.count("Outcome unknown") == 1
    assert server.text.count("Bought") == 1


def test_a_position_that_is_closed_as_it_cannot_be_protected_is_told(scene: MakeScene, server: WebhookServer) -> None:
    there = scene("spot", notify_urls=server.url)
    there.fake.fail_next("error", "POST /api/v3/orderList/oco", code=-2010, message="no")
    there.enter(stop_loss=39200, take_profit=41600)
    wait_for(server, "BTCUSDT at BINANCE is closed, as it cannot be protected: stop loss: ")
    wait_for(server, "Sold ")


def test_a_missed_alert_is_told(scene: MakeScene, server: WebhookServer) -> None:
    there = scene("paper futures", notify_urls=server.url)
    there.enter()
    there.post("buy", quantity="0.01", market_position="long", prev_market_position="short")
    wait_for(server, "an alert may have been missed")


def test_drift_is_told_once_however_often_it_is_seen_and_started_again(scene: MakeScene, server: WebhookServer) -> None:
    there = scene("futures", {"compare": 0.3}, notify_urls=server.url)
    wanted = {"symbol": "ETHUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.1"}
    there.fake.futures.set_price("ETHUSDT", 2000)
    there.owner.futures_create_order(**wanted)
    wait_for(server, "Drift: broker BINANCE, market futures, symbol ETHUSDT, side LONG, books 0, account 0.1")
    there.daemon.restart()
    eventually(lambda: bool(there.status()["drift"]), 5, lambda: "no drift")
    time.sleep(1.5)
    there.enter()
    wait_for(server, "Bought")
    assert server.text.lower().count("drift") == 1


def test_an_exchange_out_of_reach_is_told_once_it_has_lasted_and_when_it_is_back(
    daemon_with: MakeDaemon, exchange: FakeBinance, server: WebhookServer
) -> None:
    soon = {"standing.OUT_OF_REACH_SECONDS": 2.5}
    daemon = daemon_with(**binance(exchange, notify_urls=server.url, test_waits=soon)).start()
    exchange.fail_next("error", where="GET /api/v3/account", code=-2015, times=1)
    time.sleep(2)
    exchange.fail_next("error", where="GET /api/v3/account", code=-2015, times=10**6)
    begun = "BINANCE is out of reach, entries are refused: BINANCE refused the account: Invalid API-key"
    wait_for(server, begun, 20)
    exchange.clear_faults()
    wait_for(server, f"Over: {begun}", 30)
    assert server.text.count("is out of reach") == 2
    assert daemon.get("/health").status == 200


def test_a_journal_that_cannot_be_written_is_told_and_that_it_can_again(
    daemon_with: MakeDaemon, server: WebhookServer
) -> None:
    daemon = daemon_with(**GENEROUS, notify_urls=server.url).start()
    with full_disk(daemon):
        assert daemon.post(**BUY).status == 503
        wait_for(server, "Journal: cannot write the journal")
    wait_for(server, "Over: Journal: cannot write the journal")


def test_a_halt_is_told(daemon_with: MakeDaemon, server: WebhookServer) -> None:
    daemon = daemon_with(**GENEROUS, notify_urls=server.url, test_trouble_in="the settling")
    (daemon.folder / "trouble").write_text("with it")
    daemon.start().post(**BUY, timeout=20)
    wait_for(server, "Halted: unforeseen error around order")


# --- nobody waits for it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["hang", "reset", "500"])
def test_a_service_that_is_dead_delays_no_order_and_no_stop(
    daemon_with: MakeDaemon, server: WebhookServer, mode: str
) -> None:
    server.mode = mode
    daemon = daemon_with(**GENEROUS, notify_urls=server.url).start()
    daemon.post(**BUY)
    eventually(lambda: server.requests > 0, 5, lambda: "nothing was sent")
    with ThreadPoolExecutor(10) as senders:
        replies = list(senders.map(lambda number: daemon.post(**BUY, comment=str(number)), range(30)))
    assert [reply["status"] for reply in replies] == ["FILLED"] * 30
    assert max(reply.seconds for reply in replies) < 2
    if mode != "hang":
        eventually(lambda: counts(daemon)["failed"] > 0, 5, lambda: str(counts(daemon)))
        assert counts(daemon)["last_error"].startswith("JSON (1): ")
    assert counts(daemon)["sent"] == 0
    started = time.monotonic()
    daemon.terminate()
    assert time.monotonic() - started < 3
    assert "token-of-mine" not in daemon.log()
    assert " apprise" not in daemon.log()


def test_status_counts_messages_for_the_owner_only(daemon_with: MakeDaemon, server: WebhookServer) -> None:
    daemon = daemon_with(**GENEROUS, notify_urls=server.url).start()
    daemon.post(**BUY)
    wait_for(server, "Bought")
    eventually(lambda: counts(daemon)["sent"] == 1, 5, lambda: str(counts(daemon)))
    assert counts(daemon) == {"sent": 1, "failed": 0, "dropped": 0, "last_error": None, "queued": 0}
    assert "notifications" not in daemon.get("/status").body


# --- the test message -------------------------------------------------------------------------------------------------


def test_a_test_message_says_of_each_service_whether_it_took_it(daemon_with: MakeDaemon, server: WebhookServer) -> None:
    with WebhookServer("500") as broken, WebhookServer("hang") as dead:
        urls = f"{server.url}, {broken.url}, {dead.url}"
        daemon = daemon_with(notify_urls=urls).start()
        reply = daemon.owner_post("/notifications/test")
        assert reply.status == 200
        assert 4.9 < reply.seconds < 8
        assert reply["success"] is False
        good, bad, late = reply["services"]
        assert good == {"service": "JSON (1)", "taken": True, "problem": None}
        assert (bad["service"], bad["taken"]) == ("JSON (2)", False)
        assert "500" in bad["problem"]
        assert late == {"service": "JSON (3)", "taken": False, "problem": "no answer within 5 s"}
        again = daemon.owner_post("/notifications/test")
        assert again.seconds < 4
        assert again["services"][2]["problem"] == "a test is under way already"
        assert "token-of-mine" not in json.dumps([reply.body, again.body]) + daemon.log()
    assert "test message" in server.text


def test_a_test_message_is_for_the_owner_to_send(daemon_with: MakeDaemon, server: WebhookServer) -> None:
    daemon = daemon_with(notify_urls=server.url).start()
    assert daemon.request("POST", "/notifications/test", b"").status == 401
    assert daemon.request("POST", "/notifications/test", b'{"secret": "wrong"}').status == 401
    assert daemon.request("GET", "/notifications/test").status == 405
    assert server.requests == 0
    assert daemon.request("POST", "/notifications/test", json.dumps({"secret": SECRET}).encode())["success"] is True
    assert server.requests == 1


def test_without_a_service_a_test_message_is_refused_with_what_to_do(paper: Daemon) -> None:
    reply = paper.owner_post("/notifications/test")
    assert reply.status == 400
    assert "set NOTIFY_URLS" in reply["error"]
    assert paper.owner_get("/status")["notifications"] is None


# --- what it costs who does not want it -------------------------------------------------------------------------------

IMPORTED = """
import asyncio, sys
import app, setting_sources
gate = app.open_gatehouse(setting_sources.load_settings(None))
fastapi = app.create_app(gate).app
async def run():
    async with fastapi.router.lifespan_context(fastapi):
        await asyncio.sleep(0.2)
asyncio.run(run())
print("apprise" in sys.modules)
"""


@pytest.mark.parametrize(("urls", "imported"), [("", "False"), ("json://127.0.0.1:9/", "True")])
def test_apprise_is_imported_only_when_there_is_somebody_to_tell(tmp_path: Any, urls: str, imported: str) -> None:
    env = {"LOG_DIR": str(tmp_path / "logs"), "NOTIFY_URLS": urls, "PATH": ""}
    ran = subprocess.run(
        [sys.executable, "-c", IMPORTED], cwd=ROOT, env=env, capture_output=True, text=True, timeout=30
    )
    assert ran.stdout.strip() == imported, ran.stderr
