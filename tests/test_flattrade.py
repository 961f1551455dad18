"""The daemon at FlatTrade, as a process: alerts become orders of shares, limits are rupees, the owner logs in daily."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from browser import PASSWORD, Browser
from builders import D, an_order
from fake_flattrade import APP_KEY, APP_SECRET, UID, FakeFlatTrade
from harness import ROOT, SECRET, Daemon, Reply, eventually, flattrade, log_in_at_flattrade
from webhook_server import WebhookServer

from door import at_flattrade
from models import Action, OrderStatus, Signal
from outcomes import NoWord, Word, execution_by

Make = Callable[..., Daemon]
ALERT = '{"broker":"FLATTRADE","symbol":"CIPLA","side":"buy","quantity":10,"type":"MARKET"}'


@pytest.fixture
def fake() -> Iterator[FakeFlatTrade]:
    with FakeFlatTrade() as one:
        yield one


@pytest.fixture
def make(daemon_with: Make, fake: FakeFlatTrade) -> Make:
    page = {"cooldown_seconds": 0, "dashboard_password": PASSWORD, "trusted_proxy_hops": 1}
    return lambda **more: daemon_with(**flattrade(fake) | page | more)


def log_in(daemon: Daemon, fake: FakeFlatTrade, name: str = "code") -> Browser:
    """The whole way of the owner: our page, FlatTrade's, back with a code, one more click."""
    owner = Browser(daemon).log_in()
    away = owner.get("/flattrade/login")
    assert (away.status, away.headers["location"]) == (303, f"{fake.auth_url}/?app_key={APP_KEY}")
    code = fake.log_in()
    # FlatTrade's page sends the browser here: a strict cookie is not shown then.
    back = Browser(daemon).open(f"/flattrade/callback?{urlencode({name: code, 'client': UID})}")
    (told,) = re.findall(r'name="code" value="(\w+)"', back)
    assert told == code
    assert SECRET not in back
    assert owner.submit("/flattrade/callback", code=told).status == 303
    eventually(lambda: bool(at_flattrades(daemon)["connected"]), 10, lambda: str(at_flattrades(daemon)))
    return owner


def at_flattrades(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.owner_get("/status")["brokers"]["FLATTRADE"]
    return found


@pytest.fixture
def daemon(make: Make, fake: FakeFlatTrade) -> Daemon:
    return logged_in(make(), fake)


def logged_in(daemon: Daemon, fake: FakeFlatTrade) -> Daemon:
    """As if the owner had been here this morning."""
    log_in_at_flattrade(daemon, fake)
    return daemon.start()


def post(daemon: Daemon, **alert: Any) -> Reply:
    return daemon.post(**{"broker": "FLATTRADE", "symbol": "CIPLA"} | alert)


# --- orders -----------------------------------------------------------------------------------------------------------


def test_the_alert_of_the_specification_buys_ten_shares_and_a_sell_sells_them(
    daemon: Daemon, fake: FakeFlatTrade
) -> None:
    reply = daemon.post_raw(json.dumps({"secret": SECRET, **json.loads(ALERT)}).encode())
    assert (reply["success"], reply["status"], reply["quantity"]) == (True, "FILLED", 10), reply.body
    assert (reply["price"], reply["broker"]) == (1500.1, "FLATTRADE")
    sold = post(daemon, side="sell")
    assert (sold["success"], sold["status"], sold["quantity"]) == (True, "FILLED", 10), sold.body
    assert [(order["trantype"], order["tsym"], order["qty"], order["prctyp"]) for order in fake.orders] == [
        ("B", "CIPLA-EQ", "10", "LMT"),
        ("S", "CIPLA-EQ", "10", "LMT"),
    ]
    assert [(row["Status"], row["RealizedPnL"]) for row in daemon.trades()] == [("FILLED", ""), ("FILLED", "-2")]
    status = daemon.owner_get("/status")
    assert (status["realized_pnl_today"], status["trades_today"], status["drift"]) == (0, 1, [])


def test_the_same_alert_twice_is_one_order(daemon: Daemon, fake: FakeFlatTrade) -> None:
    body = json.dumps({"secret": SECRET, **json.loads(ALERT)}).encode()
    assert daemon.post_raw(body)["decision"] == "ACCEPTED"
    assert daemon.post_raw(body)["decision"] == "DUPLICATE"
    assert len(fake.orders) == 1


@pytest.mark.parametrize("executed", [True, False])
@pytest.mark.parametrize("kind", ["close", "reset", "html", "not_ok"])
def test_an_order_whose_reply_is_lost_is_found_by_its_tag_or_proven_absent_and_never_sent_again(
    daemon: Daemon, fake: FakeFlatTrade, kind: str, executed: bool
) -> None:
    fake.fail_next(kind, executed=executed, text="Server Timeout :  ")
    reply = post(daemon, side="buy", quantity=10)
    assert reply["status"] in ("FILLED", "NEW", "PENDING", "NOT_PLACED"), reply.body
    daemon.wait_until_settled()
    ending = "FILLED" if executed else "NOT_PLACED"
    eventually(lambda: daemon.trades()[-1]["Status"] == ending, 5, lambda: str(daemon.trades()))
    assert len(fake.orders) == int(executed)


def test_what_the_exchange_refuses_after_ok_is_told_as_refused(daemon: Daemon, fake: FakeFlatTrade) -> None:
    fake.reject_next("EXCHANGE: price band")
    reply = post(daemon, side="buy", quantity=10)
    assert (reply["success"], reply["status"], reply["reason"]) == (False, "REJECTED", "EXCHANGE: price band")


def test_an_exchange_that_is_slow_to_refuse_is_followed_until_it_has(daemon: Daemon, fake: FakeFlatTrade) -> None:
    fake.exchange_seconds = 1
    fake.reject_next("EXCHANGE: price band")
    assert post(daemon, side="buy", quantity=10)["status"] in ("NEW", "PENDING")
    eventually(lambda: daemon.trades()[-1]["Status"] == "REJECTED", 10, lambda: str(daemon.trades()))
    assert len(fake.orders) == 1


def die_with_an_order_under_way(daemon: Daemon, fake: FakeFlatTrade) -> None:
    fake.fail_next("stall", executed=True)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, daemon, side="buy", quantity=10)
        eventually(lambda: len(fake.orders) == 1, 5, daemon.log)
        daemon.kill()
        with pytest.raises((OSError, HTTPException)):
            answer.result()


def test_a_crash_with_an_order_under_way_is_recovered(daemon: Daemon, fake: FakeFlatTrade) -> None:
    die_with_an_order_under_way(daemon, fake)
    daemon.start()
    daemon.wait_until_settled()
    assert daemon.trades()[-1]["Status"] == "FILLED"
    assert len(fake.orders) == 1


def test_a_chart_of_bse_is_traded_on_bse_and_no_other_prefix_routes(daemon: Daemon, fake: FakeFlatTrade) -> None:
    assert post(daemon, symbol="BSE:CIPLA", side="buy", quantity=1)["status"] == "FILLED"
    reply = post(daemon, symbol="NSE:CIPLA-EQ", side="buy", quantity=1)
    assert reply["status"] == "FILLED", reply["reason"]
    assert [(order["exch"], order["tsym"]) for order in fake.orders] == [("BSE", "CIPLA"), ("NSE", "CIPLA-EQ")]
    assert [p["symbol"] for p in daemon.owner_get("/positions")["positions"]] == ["BSE:CIPLA", "CIPLA"]
    assert post(daemon, symbol="BSE:CIPLA", side="sell")["status"] == "FILLED"
    assert fake.orders[-1]["exch"] == "BSE"


def test_a_share_has_one_name() -> None:
    names = [("CIPLA", None), ("CIPLA-EQ", None), ("CIPLA", "NSE"), ("CIPLA", "BINANCE"), ("CIPLA", "BSE")]
    signals = [replace(Signal(Action.BUY, symbol), exchange=exchange) for symbol, exchange in names]
    assert [at_flattrade(signal).symbol for signal in signals] == ["CIPLA"] * 4 + ["BSE:CIPLA"]


def test_an_ampersand_and_a_hyphen_arrive(daemon: Daemon, fake: FakeFlatTrade) -> None:
    assert post(daemon, symbol="M&M", side="buy", quantity=1)["status"] == "FILLED"
    assert post(daemon, symbol="BAJAJ-AUTO-EQ", side="buy", quantity=1)["status"] == "FILLED"
    assert [order["tsym"] for order in fake.orders] == ["M&M-EQ", "BAJAJ-AUTO-EQ"]


# --- limits -----------------------------------------------------------------------------------------------------------


def test_rupees_are_limited_by_rupees_and_the_reason_says_so(make: Make, fake: FakeFlatTrade) -> None:
    daemon = logged_in(make(flattrade_max_risk_per_trade=5000, flattrade_trade_amount=3100), fake)
    reply = post(daemon, side="buy", quantity=4)
    assert reply["check"] == "size"
    assert reply["reason"].startswith("Trade size above maximum: 6000 INR, maximum is 5000 INR")
    assert post(daemon, side="buy")["quantity"] == 2, "3100 INR are two shares"
    fake.cash = Decimal(900)
    eventually(lambda: daemon.owner_get("/status")["balances"]["FLATTRADE"]["INR"]["free"] == 900, 10, lambda: "")
    reply = post(daemon, side="buy", quantity=1)
    assert reply["reason"].startswith("Balance below minimum: 900 INR free, minimum is 1000 INR")
    (account,) = (a for a in daemon.owner_get("/account/summary")["accounts"] if a["broker"] == "FLATTRADE")
    assert account["equity_usdt"] is None
    assert len(fake.orders) == 1


def test_the_first_alert_for_a_share_knows_its_price_where_it_names_no_size(make: Make, fake: FakeFlatTrade) -> None:
    daemon = logged_in(make(flattrade_trade_amount=4600), fake)
    reply = post(daemon, side="buy")
    assert reply["quantity"] == 3, reply["reason"]
    assert fake.orders[0]["qty"] == "3"


def test_counts_go_over_all_brokers(make: Make, fake: FakeFlatTrade) -> None:
    daemon = logged_in(make(max_trades_per_day=1), fake)
    assert daemon.post(broker="PAPER", symbol="BTCUSDT", side="buy", price=100)["status"] == "FILLED"
    assert post(daemon, side="buy", quantity=1)["check"] == "daily_limit"


@pytest.mark.parametrize("wish", [{"stop_loss": 1400}, {"sl": "2%"}, {"take_profit": 1600}, {"trailing_percent": 1}])
def test_an_entry_that_asks_for_protection_is_refused_by_name(
    daemon: Daemon, fake: FakeFlatTrade, wish: dict[str, Any]
) -> None:
    reply = post(daemon, side="buy", quantity=1, **wish)
    assert (reply["check"], fake.orders) == ("protection", [])
    assert "CIPLA takes no" in reply["reason"]


def test_a_perpetual_is_no_share(daemon: Daemon) -> None:
    assert "trades shares only" in post(daemon, symbol="CIPLA.P", side="buy", quantity=1)["reason"]


# --- the login of the day ---------------------------------------------------------------------------------------------


def test_before_a_login_alerts_are_refused_and_say_where_to_log_in(make: Make, fake: FakeFlatTrade) -> None:
    daemon = make().start()
    reply = post(daemon, side="buy", quantity=1)
    assert (reply.status, reply["decision"]) == (200, "REJECTED")
    assert "GET /flattrade/login" in reply["reason"]
    assert "GET /flattrade/login" in str(at_flattrades(daemon)["problem"])
    notices = [notice["text"] for notice in daemon.owner_get("/status")["notices"]]
    assert len([text for text in notices if "nobody is logged in" in text]) == 1
    assert daemon.get("/health").status == 200
    assert daemon.post(broker="PAPER", symbol="BTCUSDT", side="buy", price=100)["status"] == "FILLED"
    log_in(daemon, fake, "request_code")
    assert fake.orders == [], "an alert was kept for later"
    assert post(daemon, side="buy", quantity=2)["status"] == "FILLED"


def test_a_session_that_ends_refuses_ways_out_too_and_goes_on_after_the_next_login(
    daemon: Daemon, fake: FakeFlatTrade
) -> None:
    assert post(daemon, side="buy", quantity=1)["status"] == "FILLED"
    fake.expire()
    reply = post(daemon, side="sell")
    assert (reply.status, reply["success"]) == (200, False)
    assert "GET /flattrade/login" in reply["reason"]
    eventually(lambda: not at_flattrades(daemon)["connected"], 10, lambda: "still connected")
    assert "/flattrade/login" in Browser(daemon).log_in().open("/ui")
    log_in(daemon, fake)
    assert post(daemon, side="sell", comment="again")["status"] == "FILLED"
    assert len(fake.orders) == 2


def test_the_owner_gets_one_message_of_a_login_that_died_and_where_to_log_in(make: Make, fake: FakeFlatTrade) -> None:
    with WebhookServer() as server:
        daemon = logged_in(make(notify_urls=server.url), fake)
        fake.expire()
        for number in range(3):
            assert "GET /flattrade/login" in post(daemon, side="buy", quantity=1, comment=str(number))["reason"]
        eventually(lambda: "log in at GET /flattrade/login" in server.text, 10, lambda: server.text)
        log_in(daemon, fake)
        eventually(lambda: "FLATTRADE: logged in until" in server.text, 10, lambda: server.text)
        assert server.text.count("/flattrade/login") == 1


def test_a_restart_without_a_login_does_not_keep_the_other_brokers_waiting(daemon: Daemon, fake: FakeFlatTrade) -> None:
    die_with_an_order_under_way(daemon, fake)
    fake.expire()
    daemon.start()
    assert daemon.post(broker="PAPER", symbol="BTCUSDT", side="buy", price=100)["status"] == "FILLED"
    log_in(daemon, fake)
    daemon.wait_until_settled()
    assert [row["Status"] for row in daemon.trades() if row["Broker"] == "FLATTRADE"][-1] == "FILLED"
    assert len(fake.orders) == 1


@pytest.fixture
def unheard(make: Make, fake: FakeFlatTrade) -> Daemon:
    return not_heard_of_for_a_day(logged_in(make(), fake), fake)


def not_heard_of_for_a_day(daemon: Daemon, fake: FakeFlatTrade) -> Daemon:
    """An order's reply was lost, and the day with its order book went by."""
    die_with_an_order_under_way(daemon, fake)
    fake.new_day()
    daemon.move_clock(86_400)
    log_in_at_flattrade(daemon, fake, days_ahead=1)
    daemon.start()
    eventually(lambda: bool(told_unknown(daemon)), 5, daemon.log)
    return daemon


def told_unknown(daemon: Daemon) -> list[str]:
    texts = [notice["text"] for notice in daemon.owner_get("/status")["notices"]]
    return [text for text in texts if "stays unknown: FLATTRADE lists no orders of" in text]


def test_the_owner_is_told_once_of_an_order_that_only_he_can_find_out_about(
    unheard: Daemon, fake: FakeFlatTrade
) -> None:
    assert "BUY CIPLA" in told_unknown(unheard)[0]
    assert "POST /orders/outcome" in told_unknown(unheard)[0]
    time.sleep(0.5)
    assert len(told_unknown(unheard)) == 1
    assert [order["status"] for order in unheard.owner_get("/status")["unresolved_orders"]] == ["UNKNOWN"]
    assert post(unheard, side="buy", quantity=1)["check"] == "unresolved"
    assert len(fake.orders) == 1


def say(daemon: Daemon, **word: object) -> Reply:
    (order,) = daemon.owner_get("/status")["unresolved_orders"]
    return daemon.post("/orders/outcome", **{"client_order_id": order["client_order_id"]} | word)


@pytest.mark.parametrize(
    ("word", "status", "held"),
    [({"executed": 10, "price": 1500.1}, "FILLED", 10), ({"executed": "4", "price": "1500"}, "CANCELED", 4),
     ({"executed": 0}, "NOT_PLACED", 0)],
)  # fmt: skip
def test_what_the_owner_says_became_of_it_counts_and_opens_its_share_again(
    unheard: Daemon, fake: FakeFlatTrade, word: dict[str, Any], status: str, held: int
) -> None:
    fake.holdings["CIPLA-EQ"] = held
    reply = say(unheard, **word)
    assert (reply.status, reply["status"]) == (200, status), reply.body
    row = unheard.trades()[-1]
    assert (row["Status"], row["Note"]) == (status, "by its owner's word")
    assert sum(p["quantity"] for p in unheard.owner_get("/status")["positions"]) == held
    unheard.restart()
    assert unheard.owner_get("/status")["unresolved_orders"] == []
    assert post(unheard, side="sell" if held else "buy", **({} if held else {"quantity": 1}))["status"] == "FILLED"


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"executed": 11, "price": 1500}, "executed must be 0 to 10"), ({"executed": 1.5, "price": 1500}, "in steps"),
    ({"executed": -1}, "executed must be a number"), ({"executed": "NaN"}, "executed must be a number"),
    ({"executed": 10}, "price must be the average"), ({"executed": True}, "executed must be a number"),
    ({}, "executed must be a number"), ({"executed": 0, "client_order_id": 7}, "client_order_id"),
]  # fmt: skip


def test_what_cannot_have_become_of_it_is_not_taken(unheard: Daemon) -> None:
    for word, error in IMPOSSIBLE:
        reply = say(unheard, **word)
        assert (reply.status, error in reply["error"]) == (400, True), reply.body
    assert len(unheard.owner_get("/status")["unresolved_orders"]) == 1


def test_the_page_offers_a_form_for_it_which_only_the_owners_own_page_can_send(
    unheard: Daemon, fake: FakeFlatTrade
) -> None:
    owner = Browser(unheard).log_in()
    (order,) = unheard.owner_get("/status")["unresolved_orders"]
    page = owner.open("/ui")
    assert f'data-outcome="{order["client_order_id"]}" data-order="BUY 10 CIPLA"' in page
    assert "1 orders of which only you can find out what became" in page
    assert "they are being looked up" not in page
    word, fake.holdings["CIPLA-EQ"] = {"client_order_id": order["client_order_id"], "executed": "10"}, 10
    for headers in ({"X_CSRF_Token": ""}, {"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        assert owner.post("/orders/outcome", word | {"price": "1500.1"}, **headers).status == 401
    refused = owner.post("/orders/outcome", word)
    assert (refused.status, refused["error"]) == (400, "price must be the average price of what was executed")
    taken = owner.post("/orders/outcome", word | {"price": "1500.1"})
    assert (taken.status, taken["status"]) == (200, "FILLED"), taken.body
    assert "data-outcome" not in owner.open("/ui")


def test_nobody_can_say_that_less_became_of_it_than_is_on_the_record_already() -> None:
    order = an_order(OrderStatus.UNKNOWN, quantity=D(10), executed_quantity=D(3), executed_quote=D(4500))
    with pytest.raises(NoWord, match="3 or more"):
        execution_by(Word(order.client_order_id, D(2), D(1500)), order)
    assert execution_by(Word(order.client_order_id, D(3), D(1500)), order).executed_quantity == 3


def test_of_an_order_that_can_be_looked_up_nobodys_word_is_taken(daemon: Daemon, fake: FakeFlatTrade) -> None:
    fake.fail_next("close", executed=True)
    for _ in range(20):
        fake.fail_next("close", "OrderBook")
    assert post(daemon, side="buy", quantity=10)["decision"] == "ACCEPTED"
    assert say(daemon, executed=0).status == 404
    page = Browser(daemon).log_in().open("/ui")
    assert ("they are being looked up" in page, "data-outcome" in page) == (True, False)
    fake._faults.clear()
    daemon.wait_until_settled()
    assert daemon.trades()[-1]["Status"] == "FILLED"
    assert daemon.post("/orders/outcome", client_order_id="ghnothing", executed=0).status == 404


def test_at_five_in_india_the_login_is_over(daemon: Daemon, fake: FakeFlatTrade) -> None:
    daemon.move_clock(86_400)
    reply = post(daemon, side="buy", quantity=1)
    assert "is over: log in at GET /flattrade/login" in reply["reason"]
    assert fake.orders == []


def test_the_login_needs_the_owner_his_page_and_a_login_that_was_begun(make: Make, fake: FakeFlatTrade) -> None:
    daemon = make().start()
    stranger = Browser(daemon)
    assert stranger.get("/flattrade/login").headers["location"].startswith("/login")
    assert stranger.submit("/flattrade/callback", code=fake.log_in()).status == 401
    owner = Browser(daemon).log_in()
    begun = owner.submit("/flattrade/callback", code=fake.log_in())
    assert (begun.status, b"no login was begun" in begun["raw"]) == (502, True)
    owner.get("/flattrade/login")
    body, headers = urlencode({"code": fake.log_in()}).encode(), {"Cookie": owner._cookie()["Cookie"]}
    for origin in ("https://auth.flattrade.in", "null", ""):
        sent = headers | ({"Origin": origin} if origin else {})
        assert daemon.request("POST", "/flattrade/callback", body, 10, **sent).status == 401, origin
    assert fake.asked("apitoken") == []
    refused = owner.submit("/flattrade/callback", code="not-a-code-of-ours")
    assert (refused.status, b"FlatTrade gave no token" in refused["raw"]) == (502, True)


def test_without_its_keys_there_is_no_login(paper: Daemon) -> None:
    assert paper.get("/flattrade/login").status == 303
    assert paper.get("/flattrade/callback?code=x").status == 200


def test_neither_the_token_nor_the_secret_is_shown_anywhere(daemon: Daemon, fake: FakeFlatTrade) -> None:
    fake.fail_next("not_ok", text=f"echo {fake.token}")
    post(daemon, side="buy", quantity=1)
    daemon.wait_until_settled()
    owner = Browser(daemon).log_in()
    pages = [owner.open(path) for path in ("/ui", "/ui/trades", "/ui/settings")]
    shown = "".join([daemon.log(), json.dumps(daemon.owner_get("/status")), *pages, str(daemon.trades())])
    assert fake.token not in shown
    assert APP_SECRET not in shown
    path = daemon.folder / "logs" / "flattrade_token.json"
    assert path.stat().st_mode & 0o777 == 0o600


# --- what is loaded ---------------------------------------------------------------------------------------------------

LOADED = """
import sys
from pathlib import Path
from typing import Any
from config import Settings
from wiring import open_gatehouse
given = dict(argument.split("=") for argument in sys.argv[2:])
open_gatehouse(Settings(log_dir=Path(sys.argv[1]), **given))
print(*sorted(name for name in sys.modules if name.startswith("flattrade") or name == "binance"))
"""
GIVEN = {"flattrade_api_key": "k" * 20, "flattrade_api_secret": "s" * 20, "flattrade_client_id": "FT1",
         "webhook_secret_key": SECRET}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "loaded"), [({}, ""), (GIVEN, "flattrade_client flattrade_link flattrade_orders flattrade_token")]
)
def test_it_is_loaded_only_with_its_keys(tmp_path: Path, given: dict[str, str], loaded: str) -> None:
    command = [sys.executable, "-c", LOADED, str(tmp_path), *(f"{name}={value}" for name, value in given.items())]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == loaded
