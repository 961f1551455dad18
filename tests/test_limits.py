"""The limits, exact to the unit: under many alerts at once, with a slow or silent exchange, over days and restarts."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from fake_binance import FakeBinance
from harness import EAGER, REPLY_SECONDS, Daemon, Reply, assert_csvs_equal_journal, binance, eventually

Make = Callable[..., Daemon]
Alert = dict[str, Any]

CONNECTIONS = 16
NO_LIMIT = {"cooldown_seconds": 0, "max_trades_per_day": 1000, "max_open_trades": 1000, "min_balance_usdt": 0}


def at_once(daemon: Daemon, alerts: list[Alert]) -> list[Reply]:
    """All senders wait for each other before the first alert leaves."""
    together = threading.Barrier(min(CONNECTIONS, len(alerts)))

    def send(numbered: tuple[int, Alert]) -> Reply:
        number, alert = numbered
        if number < together.parties:
            together.wait(10)
        return daemon.post(**alert)

    with ThreadPoolExecutor(together.parties) as senders:
        return list(senders.map(send, enumerate(alerts)))


def buys(count: int, *, one_symbol: bool = False, amount: float = 10) -> list[Alert]:
    """Different alerts, on one symbol or on one each."""
    symbols = ["BTCUSDT"] * count if one_symbol else [f"N{number}USDT" for number in range(count)]
    return [{"symbol": symbol, "side": "BUY", "amount_usdt": amount, "comment": n} for n, symbol in enumerate(symbols)]


def with_symbols(exchange: FakeBinance, count: int) -> FakeBinance:
    for number in range(count):
        exchange.add_symbol(f"N{number}USDT", f"N{number}", "USDT", 100)
    return exchange


def decisions(replies: list[Reply]) -> Counter[str]:
    return Counter(reply["decision"] for reply in replies)


def wait_for_orders(exchange: FakeBinance, count: int) -> None:
    exchange.wait_for(lambda fake: len(fake.orders) == count, 5)


# --- exact under load -------------------------------------------------------------------------------------------------

LIMITS = {
    # what limits: (settings, USDT in the account, how many entries of 10 USDT fit, how a refusal begins)
    "the day": ({"max_trades_per_day": 7}, 10_000, 7, ("Daily limit reached: 7 trades today",)),
    "open trades": ({"max_open_trades": 5}, 10_000, 5, ("Open trades limit reached: 5 open, limit is 5",)),
    # The account may show an order as spent that is still under way: then too much is set aside, never too little.
    "the balance": ({}, 65, 6, ("Insufficient balance: 10 needed, ", "Balance below minimum: -")),
    "the smallest balance": ({"min_balance_usdt": 20}, 65, 5, ("Balance below minimum: ",)),
}
EXCHANGES: dict[str, dict[str, Any]] = {
    "quick": {},
    "slow": {"kind": "delay", "seconds": 1.0, "executed": True},
    "silent": {"kind": "stall", "executed": True},
}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("behaviour", EXCHANGES)
@pytest.mark.parametrize("one_symbol", [True, False], ids=["one symbol", "many symbols"])
def test_of_fifty_alerts_at_once_exactly_as_many_pass_as_the_limit_allows(
    one_symbol: bool, behaviour: str, limit: str, daemon_with: Make, exchange: FakeBinance
) -> None:
    if one_symbol and behaviour == "silent":
        pytest.skip("the symbol makes no difference to an exchange that does not answer")
    settings, balance, fits, reason = LIMITS[limit]
    with_symbols(exchange, 0 if one_symbol else 50).set_balance("USDT", balance)
    daemon = daemon_with(**binance(exchange, **NO_LIMIT | settings)).start()
    if EXCHANGES[behaviour]:
        exchange.fail_next(times=50, **EXCHANGES[behaviour])
    replies = at_once(daemon, buys(50, one_symbol=one_symbol))
    assert decisions(replies) == {"ACCEPTED": fits, "REJECTED": 50 - fits}
    reasons = {reply["reason"] for reply in replies if reply["decision"] == "REJECTED"}
    assert {text for text in reasons if not text.startswith(reason)} == set()
    assert max(reply.seconds for reply in replies) < REPLY_SECONDS
    assert {r.status for r in replies if r["decision"] == "ACCEPTED"} == {202 if behaviour == "silent" else 200}
    assert len(exchange.orders) == fits
    assert len(exchange.calls("POST /api/v3/order")) == fits, "nothing was left for the exchange to refuse"
    status = daemon.owner_get("/status")
    assert status["trades_today"] == fits
    assert status["open_trades"] == fits
    assert Counter(row["Decision"] for row in daemon.signals()) == decisions(replies)
    assert_csvs_equal_journal(daemon)


def test_one_after_the_other_the_whole_balance_can_be_spent(daemon_with: Make, exchange: FakeBinance) -> None:
    """What an order set aside is set aside no longer once the account itself shows it as spent."""
    with_symbols(exchange, 10).set_balance("USDT", 100)
    daemon = daemon_with(**binance(exchange, **NO_LIMIT, test_market=EAGER)).start()
    for number, alert in enumerate(buys(10), 1):
        assert daemon.post(**alert)["status"] == "FILLED"
        eventually(lambda left=100 - 10 * number: free_usdt(daemon) == left, 5, lambda: "no new balance")  # type: ignore[misc]
    refused = daemon.post(symbol="N0USDT", side="BUY", amount_usdt=6)
    assert refused["reason"].startswith("Insufficient balance: 6 needed, 0 free")


def free_usdt(daemon: Daemon) -> Any:
    return daemon.owner_get("/status")["balances"]["BINANCE"].get("USDT", {"free": 0})["free"]


def test_what_sells_at_the_same_time_does_not_loosen_a_limit(daemon_with: Make, exchange: FakeBinance) -> None:
    """Entries and exits mixed: every exit passes, and entries are at no moment more than allowed."""
    with_symbols(exchange, 20)
    daemon = daemon_with(**binance(exchange, **NO_LIMIT | {"max_open_trades": 5, "max_trades_per_day": 25})).start()
    assert decisions(at_once(daemon, buys(5))) == {"ACCEPTED": 5}
    exits: list[Alert] = [{"symbol": f"N{number}USDT", "side": "SELL"} for number in range(5)]
    mixed = [alert for pair in zip(exits, buys(20)[5:10], buys(20)[10:15], strict=True) for alert in pair]
    replies = at_once(daemon, mixed)
    assert [reply["status"] for reply in replies[::3]] == ["FILLED"] * 5
    bought = sum(1 for order in exchange.orders if order.side == "BUY")
    status = daemon.owner_get("/status")
    assert status["trades_today"] == bought
    assert status["open_trades"] == bought - 5 <= 5


def test_an_alert_sent_four_times_at_the_same_moment_is_one_order_and_three_duplicates(
    live: Daemon, exchange: FakeBinance
) -> None:
    for number in range(10):
        alert: Alert = {"symbol": "BTCUSDT", "side": "BUY", "amount_usdt": 10, "comment": number}
        live.owner_post("/close-all")
        replies = at_once(live, [alert] * 4)
        assert decisions(replies) == {"ACCEPTED": 1, "DUPLICATE": 3}
        first = next(reply for reply in replies if reply["decision"] == "ACCEPTED")
        assert {r["duplicate_of"] for r in replies if r["decision"] == "DUPLICATE"} == {first["signal_id"]}
        assert {reply["client_order_id"] for reply in replies} == {first["client_order_id"]}
    assert sum(1 for order in exchange.orders if order.side == "BUY") == 10
    assert len(live.signals()) == 40 + 9, "one row for every alert and every sale in between"


@pytest.mark.parametrize("symbols", [("BTCUSDT", "ETHUSDT"), ("BTCUSDT", "BTCUSDT")])
def test_two_good_alerts_at_once_both_pass(symbols: tuple[str, str], live: Daemon, exchange: FakeBinance) -> None:
    alerts: list[Alert] = [
        {"symbol": symbol, "side": "BUY", "amount_usdt": 10, "comment": n} for n, symbol in enumerate(symbols)
    ]
    assert [reply["status"] for reply in at_once(live, alerts)] == ["FILLED", "FILLED"]
    assert len(exchange.orders) == 2


def test_twenty_alerts_do_not_wait_for_each_others_orders(daemon_with: Make, exchange: FakeBinance) -> None:
    """With the lock held over the network they would take 20 times 200 ms."""
    with_symbols(exchange, 20)
    daemon = daemon_with(**binance(exchange, **NO_LIMIT)).start()
    for alert in buys(20, amount=6):
        assert daemon.post(**alert)["status"] == "FILLED"  # now the symbols' rules are known
    exchange.engine_seconds = 0.2
    started = time.monotonic()
    with ThreadPoolExecutor(20) as senders:
        replies = list(senders.map(lambda alert: daemon.post(**alert), buys(20)))
    assert time.monotonic() - started < 2.0
    assert [reply["status"] for reply in replies] == ["FILLED"] * 20
    assert min(reply.seconds for reply in replies) >= 0.2


# --- the worked examples ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["paper", "exchange"])
def with_100_usdt(request: pytest.FixtureRequest, daemon_with: Make, exchange: FakeBinance) -> Callable[..., Daemon]:
    """A daemon with 100 USDT (or so many as named) on paper, or on the exchange."""

    def make(usdt: int = 100, **settings: object) -> Daemon:
        exchange.set_balance("USDT", usdt)
        if request.param == "paper":
            return daemon_with(paper_balance_usdt=usdt, **settings).start()
        return daemon_with(**binance(exchange, **settings)).start()

    return make


def test_a_buy_with_confidence_75_is_accepted_and_filled_and_is_one_row_in_each_file(with_100_usdt: Make) -> None:
    daemon = with_100_usdt()
    reply = daemon.post(symbol="BTCUSDT", side="BUY", confidence=75, price=43000, strategy="trend", timeframe="1h")
    assert (reply.status, reply["success"], reply["decision"], reply["status"]) == (200, True, "ACCEPTED", "FILLED")
    [signal], [trade] = daemon.signals(), daemon.trades()
    assert (signal["TradingPair"], signal["Action"], signal["Confidence"]) == ("BTCUSDT", "BUY", "75")
    assert (signal["Strategy"], signal["TimeFrame"], signal["Decision"]) == ("trend", "1h", "ACCEPTED")
    assert (trade["Status"], trade["Price"], trade["SignalID"]) == ("FILLED", "43000", signal["SignalID"])
    assert Decimal("9.5") < Decimal(trade["TradeAmount"]) <= 10


def test_the_eleventh_trade_of_the_day_is_refused(with_100_usdt: Make) -> None:
    daemon = with_100_usdt(1000, cooldown_seconds=0, max_open_trades=20)
    replies = [daemon.post(symbol="BTCUSDT", side="BUY", price=43000 + n) for n in range(11)]
    assert [reply["decision"] for reply in replies] == ["ACCEPTED"] * 10 + ["REJECTED"]
    assert replies[10]["check"] == "daily_limit"
    assert replies[10]["reason"].startswith("Daily limit reached: 10 trades today (UTC), limit is 10")
    assert len(daemon.trades()) == 10


def test_a_sell_with_confidence_25_is_refused(with_100_usdt: Make) -> None:
    daemon = with_100_usdt()
    reply = daemon.post(symbol="BNBUSDT", side="SELL", confidence=25, price=600)
    assert (reply.status, reply["success"], reply["decision"]) == (200, False, "REJECTED")
    assert reply["reason"].startswith("Confidence below minimum: 25, minimum is 50")
    assert reply["error"] == reply["reason"]
    assert [row["Decision"] for row in daemon.signals()] == ["REJECTED"]
    assert daemon.trades() == []


# --- days -------------------------------------------------------------------------------------------------------------


def coming_midnight() -> datetime:
    return (datetime.now(UTC) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)


def seconds_until_midnight() -> float:
    return (coming_midnight() - datetime.now(UTC)).total_seconds()


def a_buy(number: object, **more: object) -> Alert:
    return {"symbol": "BTCUSDT", "side": "BUY", "price": 43000, "comment": number} | more


@pytest.fixture
def on_day(daemon_with: Make) -> Callable[..., tuple[Daemon, Callable[..., None]]]:
    """A daemon on paper whose clock is set with `at(hours)`: hours after the coming midnight, negative ones before."""

    def make(**settings: object) -> tuple[Daemon, Callable[..., None]]:
        midnight = coming_midnight()
        daemon = daemon_with(**NO_LIMIT | {"paper_balance_usdt": 100_000} | settings)

        def at(hours: float, seconds: float = 0) -> None:
            daemon.move_clock((midnight - datetime.now(UTC)).total_seconds() + hours * 3600 + seconds)

        return daemon, at

    return make


def count_buys(daemon: Daemon, names: range) -> int:
    return sum(daemon.post(**a_buy(name))["decision"] == "ACCEPTED" for name in names)


OnDay = Callable[..., tuple[Daemon, Callable[..., None]]]


def test_at_midnight_utc_under_load_every_trade_counts_to_exactly_one_day(on_day: OnDay) -> None:
    daemon, at = on_day(max_trades_per_day=40)
    at(-1)
    daemon.start()
    alerts = [a_buy(number) for number in range(40)]
    assert decisions(at_once(daemon, alerts[:30])) == {"ACCEPTED": 30}
    at(0, seconds=-0.3)
    began = time.monotonic()
    replies: list[Reply] = []

    def keep_sending(sender: int) -> None:
        """Until the new day's limit is reached, too, however busy the machine is."""
        for number in range(1_000):
            sent_at = time.monotonic() - began
            replies.append(daemon.post(**a_buy(f"{sender}/{number}")))
            if (sent_at > 1 and replies[-1]["check"] == "daily_limit") or sent_at > 15:
                return

    with ThreadPoolExecutor(8) as senders:
        list(senders.map(keep_sending, range(8)))
    rows = [row for row in daemon.signals() if row["Decision"] == "ACCEPTED"]
    per_day = Counter(row["DateTime"][:10] for row in rows)
    assert sorted(per_day.values()) == [40, 40], "each day its own limit, to the unit"
    assert daemon.owner_get("/status")["trades_today"] == 40
    assert {r["check"] for r in replies if r["decision"] == "REJECTED"} == {"daily_limit"}
    assert len(rows) == 30 + decisions(replies)["ACCEPTED"] == 80


def test_an_order_that_leaves_before_midnight_and_ends_after_it_counts_to_the_day_it_left(
    daemon_with: Make, exchange: FakeBinance
) -> None:
    daemon = daemon_with(**binance(exchange, **NO_LIMIT | {"max_trades_per_day": 1}))
    midnight = seconds_until_midnight()
    daemon.move_clock(midnight - 30)
    daemon.start()
    exchange.fail_next("delay", seconds=0.5, executed=True)
    with ThreadPoolExecutor(1) as sender:
        before = sender.submit(daemon.post, **a_buy("before"))
        wait_for_orders(exchange, 1)
        daemon.move_clock(midnight + 1)
        assert before.result()["status"] == "FILLED"
    assert daemon.owner_get("/status")["trades_today"] == 0
    assert daemon.post(**a_buy("after"))["decision"] == "ACCEPTED"
    assert daemon.post(**a_buy("too many"))["check"] == "daily_limit"
    daemon.restart()
    assert daemon.owner_get("/status")["trades_today"] == 1


@pytest.mark.parametrize("hours", [1 / 3600, 72], ids=["just after midnight", "after three days"])
def test_a_restart_on_another_day_begins_with_a_new_count(hours: float, on_day: OnDay) -> None:
    daemon, at = on_day(max_trades_per_day=3)
    at(-1)
    daemon.start()
    assert count_buys(daemon, range(5)) == 3
    daemon.restart()
    assert daemon.post(**a_buy("same day"))["reason"].startswith("Daily limit reached: 3 trades today")
    daemon.kill()
    at(hours)
    daemon.start()
    assert daemon.owner_get("/status")["trades_today"] == 0
    assert count_buys(daemon, range(10, 15)) == 3


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_a_clock_that_steps_back_an_hour_never_gives_a_spent_day_back(restarted: bool, on_day: OnDay) -> None:
    daemon, at = on_day(max_trades_per_day=3)
    at(-0.1)
    daemon.start()
    assert count_buys(daemon, range(2)) == 2
    at(0.5)
    assert count_buys(daemon, range(2, 4)) == 2
    at(-0.5)  # yesterday again, of whose limit one was left
    if restarted:
        daemon.restart()
    assert daemon.owner_get("/status")["trades_today"] == 2
    assert count_buys(daemon, range(4, 8)) == 1, "what passes while the clock is wrong counts as well"
    at(0.5)
    if restarted:
        daemon.restart()
    assert daemon.post(**a_buy("back again"))["reason"].startswith("Daily limit reached: 3 trades today")
    at(24.5)
    assert count_buys(daemon, range(10, 15)) == 3


# --- seconds ----------------------------------------------------------------------------------------------------------


def test_the_cooldown_ends_to_the_second(daemon_with: Make) -> None:
    daemon = daemon_with(cooldown_seconds=100, max_open_trades=10).start()
    assert daemon.post(**a_buy(1))["decision"] == "ACCEPTED"
    daemon.move_clock(99)
    refused = daemon.post(**a_buy(2))
    assert refused["reason"].startswith("Signal in cooldown: 99.")
    assert daemon.post(**a_buy(3, symbol="ETHUSDT", price=3000))["decision"] == "ACCEPTED", "each symbol has its own"
    daemon.restart()
    assert daemon.post(**a_buy(4))["check"] == "cooldown", "a restart does not end it, nor does a refusal begin it anew"
    daemon.move_clock(100)
    assert daemon.post(**a_buy(5))["decision"] == "ACCEPTED"
    assert daemon.post(**a_buy(6))["check"] == "cooldown"


def fired(seconds_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("seconds_ago", "reason"),
    [
        (59, "Accepted entry"),
        (60, "Alert is too old: fired 60."),
        (3600, "Alert is too old: fired 3600."),
        (-9, "Accepted entry"),
        (-11, "Alert is too old or its clock is wrong: fired 10."),
    ],
)
def test_an_entry_is_as_old_as_allowed_and_not_a_second_older(paper: Daemon, seconds_ago: float, reason: str) -> None:
    assert paper.post(**a_buy(1, timenow=fired(seconds_ago)))["reason"].startswith(reason)


def test_an_exit_is_never_too_old(paper: Daemon) -> None:
    paper.post(**a_buy(1))
    assert paper.post(symbol="BTCUSDT", side="SELL", price=43000, timenow=fired(3600))["status"] == "FILLED"


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_an_alert_is_remembered_to_the_second_and_over_a_restart(daemon_with: Make, restarted: bool) -> None:
    daemon = daemon_with(cooldown_seconds=0, dedupe_seconds=100).start()

    def after(seconds: float) -> Reply:
        daemon.move_clock(seconds)
        if restarted:
            daemon.restart()
        return daemon.post(**a_buy(1))

    first = daemon.post(**a_buy(1))
    again = after(98)
    assert (again["decision"], again["duplicate_of"]) == ("DUPLICATE", first["signal_id"])
    assert after(101)["decision"] == "ACCEPTED"
    assert after(102)["decision"] == "DUPLICATE"
    assert len(daemon.trades()) == 2


def test_an_alert_with_its_firing_time_is_remembered_for_a_week(daemon_with: Make) -> None:
    """An exit, because an entry would be too old by then whether it is remembered or not."""
    daemon = daemon_with(cooldown_seconds=0).start()
    exit_: Alert = {"symbol": "BTCUSDT", "side": "SELL", "price": 43000, "timenow": fired(0)}
    daemon.post(**a_buy(1))
    assert daemon.post(**exit_)["status"] == "FILLED"
    daemon.post(**a_buy(2))
    week = 7 * 24 * 3600
    daemon.move_clock(week - 60)
    assert daemon.post(**exit_)["decision"] == "DUPLICATE"
    daemon.restart()
    assert daemon.post(**exit_)["decision"] == "DUPLICATE"
    daemon.move_clock(week + 60)
    assert daemon.post(**exit_)["status"] == "FILLED"


# --- losses, and the way out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "check"), [("1", "daily_loss"), ("1.01", None)])
def test_a_loss_that_reaches_the_limit_ends_the_days_entries(
    limit: str, check: str | None, daemon_with: Make, exchange: FakeBinance
) -> None:
    exchange.fee_rate = 0  # so that 43000 to 42000 on 0.001 is a loss of exactly 1
    settings = NO_LIMIT | {"max_risk_per_trade": 100, "max_daily_loss_usdt": limit}
    daemon = daemon_with(**binance(exchange, **settings)).start()
    for number in range(2):
        assert daemon.post(**a_buy(number, quantity=0.001))["status"] == "FILLED"
    exchange.set_price("BTCUSDT", 42000)
    assert daemon.post(symbol="BTCUSDT", side="SELL", quantity=0.001)["status"] == "FILLED"
    assert daemon.owner_get("/status")["realized_pnl_today"] == -1
    for _ in range(2):
        entry = daemon.post(**a_buy(fired(0), quantity=0.001, price=42000))
        assert entry["check"] == check
        daemon.restart()
    if check:
        assert entry["reason"].startswith("Daily loss limit reached: 1 USDT today, limit is 1")
    assert daemon.post(symbol="BTCUSDT", side="SELL", comment="out")["status"] == "FILLED", "exits pass"
    daemon.move_clock(seconds_until_midnight() + 60)
    daemon.restart()
    assert daemon.post(**a_buy("tomorrow", quantity=0.001, price=42000))["reason"].startswith("Accepted")


WAYS_IN_CLOSED: dict[str, dict[str, object]] = {
    "daily_limit": {"max_trades_per_day": 1},
    "open_trades": {"max_open_trades": 1},
    "balance": {"min_balance_usdt": 5000},
    "insufficient_balance": {"min_balance_usdt": 0, "max_risk_per_trade": 5000, "trade_amount_usdt": 5000},
    "size": {"max_risk_per_trade": 6, "trade_amount_usdt": 6},
    "cooldown": {"cooldown_seconds": 3600},
    "symbol": {"allowed_symbols": "ETHUSDT"},
    "direction": {"direction": "short"},
    "stale": {},
    "paused": {},
}


@pytest.mark.parametrize("check", WAYS_IN_CLOSED)
def test_a_limit_that_stops_entries_lets_exits_pass(check: str, daemon_with: Make, exchange: FakeBinance) -> None:
    daemon = daemon_with(**binance(exchange, **NO_LIMIT)).start()
    assert daemon.post(**a_buy(1))["status"] == "FILLED"
    daemon.kill()
    daemon.set(**WAYS_IN_CLOSED[check])
    daemon.start()
    if check == "paused":
        daemon.owner_post("/pause")
    age: Alert = {"timenow": fired(3600)} if check == "stale" else {}
    size = {"amount_usdt": 7} if check == "size" else {}
    assert daemon.post(**a_buy(2, **age, **size))["check"] == check
    assert daemon.post(symbol="BTCUSDT", side="SELL", **age)["status"] == "FILLED"
    assert [order.side for order in exchange.orders] == ["BUY", "SELL"]


def test_two_exits_at_once_cancel_a_resting_order_once_and_what_it_filled_meanwhile_counts_once(
    live: Daemon, exchange: FakeBinance
) -> None:
    """The two exits and the one who follows the order all learn of its ending."""
    live.kill()
    live.set(max_risk_per_trade=100)
    live.start()
    assert live.post(**a_buy(1, quantity=0.001))["status"] == "FILLED"
    resting = live.post(**a_buy(2, type="LIMIT", quantity=0.001, price=40000))
    assert resting["status"] == "NEW"
    exchange.fail_next("delay", "DELETE /api/v3/order", times=2, seconds=0.3)
    with ThreadPoolExecutor(2) as senders:
        sent = [senders.submit(live.post, symbol="BTCUSDT", side="SELL", comment=n) for n in range(2)]
        exchange.wait_for(lambda fake: bool(fake.calls("DELETE /api/v3/order")))
        exchange.fill(int(resting["orderId"]), "0.0004")
        replies = [reply.result() for reply in sent]
    assert decisions(replies) == {"ACCEPTED": 2}
    eventually(lambda: not live.orders_without_ending(), 10, lambda: str(live.orders_without_ending()))
    endings = Counter(row["ClientOrderID"] for row in live.trades() if row["Status"] not in ("NEW", "PARTIALLY_FILLED"))
    assert set(endings.values()) == {1}, live.trades()
    bought = sum((order.executed for order in exchange.orders if order.side == "BUY"), Decimal(0))
    sold = sum((order.executed for order in exchange.orders if order.side == "SELL"), Decimal(0))
    assert (bought, sold) == (Decimal("0.0014"), Decimal("0.00139")), "all but the fee, which is no whole step"
    assert live.owner_get("/status")["open_trades"] == 0
    live.restart()
    assert live.owner_get("/status")["drift"] == []
    assert live.owner_get("/positions")["positions"] == []


def test_an_entry_that_comes_after_a_waiting_exit_is_not_sold_by_it(live: Daemon, exchange: FakeBinance) -> None:
    """Buy, sell, buy, while the first buy is under way: the sell takes all that is held when its turn comes."""
    exchange.fail_next("delay", seconds=0.8, executed=True)
    with ThreadPoolExecutor(2) as senders:
        first = senders.submit(live.post, **a_buy(1))
        wait_for_orders(exchange, 1)
        exit_ = senders.submit(live.post, symbol="BTCUSDT", side="SELL")
        eventually(lambda: len(live.signals()) == 2, 2, lambda: str(live.signals()))
        later = live.post(**a_buy(2))
        assert (first.result()["status"], exit_.result()["status"]) == ("FILLED", "FILLED")
    assert (later["decision"], later["check"]) == ("REJECTED", "unresolved")
    assert [order.side for order in exchange.orders] == ["BUY", "SELL"]
    assert live.owner_get("/status")["open_trades"] == 0
    assert live.post(**a_buy(3))["status"] == "FILLED"


def test_after_the_clock_stepped_back_a_resent_entry_is_a_repeat_and_a_way_out_is_open(paper: Daemon) -> None:
    paper.move_clock(3600)
    entry: Alert = {"symbol": "BTCUSDT", "side": "BUY", "price": 43000}
    way_out: Alert = {"symbol": "BTCUSDT", "side": "SELL", "price": 43000}
    assert paper.post(**entry)["decision"] == "ACCEPTED"
    assert paper.post(**way_out)["decision"] == "ACCEPTED"
    assert paper.post(**entry, comment="again")["decision"] == "ACCEPTED"
    paper.move_clock(0)
    assert paper.post(**entry)["decision"] == "DUPLICATE"
    assert paper.post(**way_out)["decision"] == "ACCEPTED"
