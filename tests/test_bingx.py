"""BingX through the whole daemon: an alert for BINGX becomes one order at the fake exchange, whatever goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from fake_bingx import FakeBingx
from harness import REAL_PACE, SECRET, Daemon, assert_csvs_equal_journal, bingx, eventually

ROOT = Path(__file__).parent.parent
D = Decimal
PLACE = "POST /openApi/swap/v2/trade/order"
GENEROUS = {"cooldown_seconds": 0, "max_risk_per_trade": 1000, "max_trades_per_day": 100}
ALERT: dict[str, Any] = {"accion": "BUY", "ticker": "BTC-USDT", "balance": 50, "broker": "BINGX"}


@pytest.fixture
def fake() -> Iterator[FakeBingx]:
    with FakeBingx() as running:
        running.set_price("BTC-USDT", 40000)
        yield running


@pytest.fixture
def trading(daemon_with: Callable[..., Daemon], fake: FakeBingx) -> Callable[..., Daemon]:
    """Starts a daemon whose BINGX is the fake exchange."""
    return lambda **settings: daemon_with(**bingx(fake, **GENEROUS, test_absence_seconds=0.7) | settings).start()


def buy(daemon: Daemon, **more: object) -> Any:
    alert: dict[str, Any] = {"symbol": "BTCUSDT", "action": "buy", "quantity": "0.01", "broker": "BINGX"} | more
    return daemon.post(**alert)


def test_the_alert_of_the_system_before_trades_the_swap(trading: Callable[..., Daemon], fake: FakeBingx) -> None:
    daemon = trading()
    reply = daemon.post(**ALERT)
    assert (reply.status, reply["success"], reply["status"], reply["broker"]) == (200, True, "FILLED", "BINGX")
    (post,) = fake.order_posts
    sent = {name: post.params[name] for name in ("symbol", "side", "positionSide", "type", "quantity")}
    # 50 of quote currency at 40000, on a step of 0.0001.
    assert sent == {"symbol": "BTC-USDT", "side": "BUY", "positionSide": "BOTH", "type": "MARKET", "quantity": "0.0012"}
    assert fake.amount() == D("0.0012")
    (row,) = daemon.trades()
    assert (row["Broker"], row["Market"], row["Status"], row["FeeAsset"]) == ("BINGX", "futures", "FILLED", "VST")
    assert row["OrderID"].startswith("'2075327018132")
    assert_csvs_equal_journal(daemon)


def test_an_alert_that_names_no_broker_goes_to_the_default_one(trading: Callable[..., Daemon], fake: FakeBingx) -> None:
    assert buy(trading(), broker="")["broker"] == "BINGX"
    assert fake.amount() == D("0.01")


@pytest.mark.parametrize("hedge_mode", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_in_and_out_and_the_other_way_round(
    trading: Callable[..., Daemon], fake: FakeBingx, hedge_mode: bool, nested: bool
) -> None:
    fake.set_options(hedge_mode=hedge_mode, nested=nested, fill_seconds=0.02)
    daemon = trading()
    assert buy(daemon)["status"] == "FILLED"
    fake.set_price("BTC-USDT", 41000)
    reverse = {"market_position": "short", "position_size": "-0.01", "quantity": "0.02"}
    assert buy(daemon, action="sell", **reverse)["status"] == "FILLED"
    assert fake.amount() == D("-0.01")
    assert buy(daemon, action="buy", market_position="flat")["status"] == "FILLED"
    assert fake.amount() == 0
    assert next(row["RealizedPnL"] for row in daemon.trades() if row["RealizedPnL"]).startswith("9.59")
    assert daemon.owner_get("/status")["positions"] == []


@pytest.mark.parametrize("executed", [False, True])
@pytest.mark.parametrize("kind", ["reset", "close", "truncated", "status", "code"])
def test_a_lost_reply_never_makes_a_second_order(
    trading: Callable[..., Daemon], fake: FakeBingx, kind: str, executed: bool
) -> None:
    daemon = trading()
    more = {"status": 504} if kind == "status" else {"code": 80012, "msg": "busy"} if kind == "code" else {}
    fake.fail_next(kind, PLACE, executed=executed, **more)
    for _ in range(3):  # as TradingView does
        buy(daemon, comment="the same")
    daemon.wait_until_settled()
    assert set(fake.posts_by_client_id.values()) == {1}
    assert len(fake.order_posts) == 1
    assert fake.amount() == (D("0.01") if executed else 0)
    assert daemon.trades()[-1]["Status"] == ("FILLED" if executed else "NOT_PLACED")


@pytest.mark.parametrize(
    "step", ["before the order leaves", "while the order is under way", "after the broker's answer"]
)
def test_a_kill_around_the_order_doubles_and_loses_nothing(
    trading: Callable[..., Daemon], fake: FakeBingx, step: str
) -> None:
    daemon = trading()
    daemon.kill()
    fake.fail_next("delay", PLACE, executed=True, seconds=0.3)
    daemon.start(crash_at=step)
    with pytest.raises((OSError, HTTPException)):
        buy(daemon)
    daemon.wait_until_dead()
    daemon.start()
    daemon.wait_until_settled()
    assert len(fake.order_posts) in {"before": (0,), "while": (0, 1), "after": (1,)}[step.split()[0]]
    held = [D(str(position["quantity"])) for position in daemon.owner_get("/status")["positions"]]
    assert sum(held) == fake.amount()


def test_a_position_has_its_stop_and_target_which_close_it(trading: Callable[..., Daemon], fake: FakeBingx) -> None:
    daemon = trading()
    buy(daemon, stop_loss="39000", take_profit="42000")
    wait_for(fake, ("STOP_MARKET", D(39000)), ("TAKE_PROFIT_MARKET", D(42000)))
    fake.set_price("BTC-USDT", 38900)
    eventually(lambda: not daemon.owner_get("/status")["positions"], 10, daemon.log)
    assert fake.amount() == 0
    eventually(lambda: not fake.waiting and not daemon.orders_without_ending(), 10, daemon.log)


@pytest.mark.parametrize("hedge_mode", [False, True])
def test_where_a_stop_has_to_name_its_quantity_it_names_what_is_held(
    trading: Callable[..., Daemon], fake: FakeBingx, hedge_mode: bool
) -> None:
    """The documentation says that it must not; some accounts want it, and a position without a stop is closed."""
    fake.set_options(stops_need_quantity=True, hedge_mode=hedge_mode)
    daemon = trading()
    buy(daemon, stop_loss="39000", take_profit="42000")
    wait_for(fake, ("STOP_MARKET", D(39000)), ("TAKE_PROFIT_MARKET", D(42000)))
    buy(daemon, stop_loss="38000", comment="more")
    wait_for(fake, ("STOP_MARKET", D(38000)))
    (stop,) = fake.waiting
    assert (stop.quantity, stop.close_position, fake.amount()) == (D("0.02"), True, D("0.02"))
    fake.set_price("BTC-USDT", 37900)
    eventually(lambda: not daemon.owner_get("/status")["positions"], 10, daemon.log)
    assert fake.amount() == 0
    # It is said once, and remembered.
    posts = [call.code for call in fake.order_posts if "stopPrice" in call.params]
    assert posts == [109400, 0, 0, 0]


def wait_for(fake: FakeBingx, *wanted: tuple[str, Decimal]) -> None:
    eventually(
        lambda: sorted((o.type, o.stop_price) for o in fake.waiting) == sorted(wanted),
        10,
        lambda: f"wanted {wanted}: {[(o.type, o.stop_price) for o in fake.waiting]}",
    )


@pytest.mark.parametrize("executed", [False, True])
@pytest.mark.parametrize("kind", ["reset", "truncated"])
def test_a_stop_whose_reply_was_lost_is_there_once(
    trading: Callable[..., Daemon], fake: FakeBingx, kind: str, executed: bool
) -> None:
    daemon = trading(test_patience={"follow": 0.1, "longest_look": 0.3, "slack": 0.5, "late": [1.2]})
    fake.fail_next(kind, PLACE, executed=executed, order_type="STOP_MARKET")
    buy(daemon, stop_loss="39000")
    daemon.wait_until_settled()
    wait_for(fake, ("STOP_MARKET", D(39000)))
    eventually(lambda: len(daemon.owner_get("/status")["resting_orders"]) == 1, 10, daemon.log)
    if not executed:
        time.sleep(1.0)  # so late it is still looked whether the first one turned up: the second one is not it
        assert "turned up" not in daemon.log()
        assert len(daemon.owner_get("/status")["resting_orders"]) == 1
    stops = [call for call in fake.order_posts if call.params["type"] == "STOP_MARKET"]
    assert len(stops) == (1 if executed else 2)  # the first one never arrived, which was proven before the second


@pytest.mark.parametrize("step", ["before the protection leaves", "after the protection's answer"])
def test_a_kill_around_the_stop_leaves_one_stop(trading: Callable[..., Daemon], fake: FakeBingx, step: str) -> None:
    daemon = trading()
    daemon.kill()
    daemon.start(crash_at=step)
    buy(daemon, stop_loss="39000")
    daemon.wait_until_dead()
    daemon.start()
    wait_for(fake, ("STOP_MARKET", D(39000)))
    daemon.wait_until_settled()
    assert len([call for call in fake.order_posts if call.params["type"] == "STOP_MARKET"]) == 1


def test_a_position_that_cannot_be_protected_is_closed(trading: Callable[..., Daemon], fake: FakeBingx) -> None:
    fake.set_options(rejects_position_orders="The parameters submitted don't meet the requirement.")
    daemon = trading()
    buy(daemon, stop_loss="39000")
    eventually(lambda: fake.amount() == 0 and not daemon.owner_get("/status")["positions"], 10, daemon.log)
    assert any("cannot be protected" in each["text"] for each in daemon.owner_get("/status")["notices"])


def test_a_stop_of_the_owners_at_another_price_keeps_ours_away_until_the_position_is_closed(
    trading: Callable[..., Daemon], fake: FakeBingx
) -> None:
    daemon = trading(test_patience={"follow": 0.1, "longest_look": 0.3, "guard_give_up": 0.5})
    buy(daemon)
    his = {"symbol": "BTC-USDT", "side": "SELL", "positionSide": "BOTH", "type": "STOP_MARKET", "stopPrice": "38000",
           "closePosition": "true"}  # fmt: skip
    fake.place_swap(his)
    buy(daemon, stop_loss="39000", comment="more")
    eventually(lambda: not daemon.owner_get("/status")["positions"], 15, daemon.log)
    assert fake.amount() == 0
    assert any("cannot be protected" in each["text"] for each in daemon.owner_get("/status")["notices"])


def test_what_was_closed_by_hand_is_taken_over(trading: Callable[..., Daemon], fake: FakeBingx) -> None:
    patience = {"follow": 0.1, "compare": 0.3, "second_look": 0.1}
    daemon = trading(test_patience=patience)
    buy(daemon)
    fake.set_price("BTC-USDT", 42000)
    by_hand = {"symbol": "BTC-USDT", "side": "SELL", "positionSide": "BOTH", "type": "MARKET", "quantity": "0.01",
               "reduceOnly": "true"}  # fmt: skip
    fake.place_swap(by_hand)
    eventually(lambda: not daemon.owner_get("/status")["positions"], 15, daemon.log)
    eventually(lambda: daemon.trades()[-1]["Action"] == "SELL", 5, daemon.log)  # the file follows a moment later
    row = daemon.trades()[-1]
    assert (D(row["Price"]), row["Status"]) == (D(42000), "FILLED")


def test_a_position_by_hand_keeps_entries_away(trading: Callable[..., Daemon], fake: FakeBingx) -> None:
    fake.set_position("BTC-USDT", "SHORT", "0.5")
    reply = buy(trading())
    assert (reply["success"], reply["check"]) == (False, "foreign_position")
    assert fake.order_posts == []


def test_twenty_alerts_at_once_become_twenty_orders_and_close_no_endpoint(
    trading: Callable[..., Daemon], fake: FakeBingx
) -> None:
    daemon = trading(max_open_trades=50, allowed_symbols="BTCUSDT", max_risk_per_trade=1000, **REAL_PACE)
    fake.set_options(second=1.0)
    with ThreadPoolExecutor(20) as threads:
        replies = list(threads.map(lambda number: buy(daemon, comment=str(number)), range(20)))
    assert {reply.status for reply in replies} <= {200, 202, 503}
    placed = sum(1 for reply in replies if reply.status != 503)
    eventually(lambda: fake.amount() == D("0.01") * placed, 20, daemon.log)
    daemon.wait_until_settled()
    assert D(str(daemon.owner_get("/status")["positions"][0]["quantity"])) == fake.amount()
    assert placed >= 15
    assert set(fake.posts_by_client_id.values()) == {1}
    assert not any(call.banned or call.code == 100410 for call in fake.calls)


def test_a_closed_endpoint_is_left_alone_over_a_restart_and_the_rest_of_the_account_is_asked(
    trading: Callable[..., Daemon], fake: FakeBingx
) -> None:
    def sent() -> int:
        return sum(f"{call.method} {call.path}" == PLACE for call in fake.calls)

    daemon = trading()
    open_again_ms = fake.now_ms() + 4000
    fake.fail_next("code", PLACE, code=100410, msg=f"code:100410:… will be unblocked after {open_again_ms}")
    assert buy(daemon, comment="closed").status == 503
    daemon.kill()
    seen = len(fake.calls)
    daemon.start()
    assert any(call.path.endswith("/user/balance") for call in fake.calls[seen:])
    assert buy(daemon, comment="after the restart").status == 503
    assert sent() == 1
    assert fake.now_ms() < open_again_ms, "the machine was too slow: it was open again"
    time.sleep(max(0.0, (open_again_ms - fake.now_ms()) / 1000 + 0.05))
    assert buy(daemon, comment="open again")["status"] == "FILLED"


def test_play_money_counts_as_dollars_for_the_limits(trading: Callable[..., Daemon], fake: FakeBingx) -> None:
    fake.wallet = D(5)
    reply = buy(trading())
    assert (reply["success"], reply["check"]) == (False, "balance")
    assert "5 free" in reply["reason"]


def test_an_exchange_that_cannot_be_reached_gets_no_order_and_the_sender_a_true_answer(
    trading: Callable[..., Daemon], fake: FakeBingx
) -> None:
    daemon = trading()
    fake.stop_listening()
    reply = buy(daemon)
    assert reply.status == 503 or (reply["success"], reply["decision"]) == (False, "REJECTED")
    fake.listen()
    eventually(lambda: buy(daemon, comment="later")["success"], 20, daemon.log)
    assert set(fake.posts_by_client_id.values()) == {1}


def test_bingx_spot_buys_by_amount_and_sells_what_it_bought(trading: Callable[..., Daemon], fake: FakeBingx) -> None:
    daemon = trading(bingx_market="spot", bingx_demo=False)
    assert daemon.post(**ALERT)["status"] == "FILLED"
    assert fake.order_posts[0].path == "/openApi/spot/v1/trade/order"
    assert fake.order_posts[0].params["quoteOrderQty"] == "50"
    assert daemon.post(**ALERT | {"accion": "SELL"})["status"] == "FILLED"
    assert fake.order_posts[1].params["quantity"] == "0.00124"  # 0.00125 less the fee in coins, on its step
    stopped = buy(daemon, stop_loss="39000")
    assert (stopped["success"], stopped["check"]) == (False, "protection")


def test_an_alert_for_bingx_follows_its_own_market_setting(trading: Callable[..., Daemon], fake: FakeBingx) -> None:
    daemon = trading(binance_market="spot")
    assert buy(daemon, symbol="BTCUSDT.P")["status"] == "FILLED"
    reply = buy(daemon, market="spot", comment="the coin")
    assert (reply["success"], reply["check"]) == (False, "market")
    assert "BINGX_MARKET" in reply["reason"]


def test_the_status_tells_the_demo_and_connected(trading: Callable[..., Daemon]) -> None:
    status = trading().owner_get("/status")
    assert status["mode"] == "TESTNET"
    assert status["balances"]["BINGX"]["VST"]["free"] == 10000


# ---- loaded only when configured

LOOK = """
import sys, json
sys.path.insert(0, {root!r})
from pathlib import Path
from config import Settings
from pauses import Pauses
from wiring import build_brokers
import app
keys = json.loads({keys!r})
build_brokers(Settings(**keys), Pauses(Path({folder!r})))
print(json.dumps(sorted(name.partition(".")[0] for name in sys.modules)))
"""
KEYS = {"binance": {"binance_api_key": "k" * 20, "binance_api_secret": "s" * 20},
        "bingx": {"bingx_api_key": "k" * 20, "bingx_secret_key": "s" * 20}}  # fmt: skip


@pytest.mark.parametrize(
    ("configured", "loaded"),
    [
        ([], set()),
        (["bingx"], {"bingx_client", "bingx_link", "bingx_orders", "broker_http"}),
        (["binance"], {"binance", "binance_client", "binance_link", "requests"}),
    ],
)
def test_only_the_modules_of_configured_brokers_are_loaded(
    tmp_path: Path, configured: list[str], loaded: set[str]
) -> None:
    keys: dict[str, str] = {"webhook_secret_key": SECRET} if configured else {}
    for name in configured:
        keys |= KEYS[name]
    code = LOOK.format(root=str(ROOT), keys=json.dumps(keys), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    modules = {
        name for name in json.loads(done.stdout)
        if name.startswith(("bingx", "binance", "broker_http", "requests", "urllib3"))
    }  # fmt: skip
    assert loaded <= modules
    rest = {name for name in modules - loaded if not name.startswith(("binance", "urllib3")) or "binance" not in loaded}
    assert rest == set()
