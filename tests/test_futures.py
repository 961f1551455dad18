"""Futures as their owner lives through them: each test a short story with the daemon and the fake futures exchange."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from fake_binance import FakeBinance
from fake_faults import Fault
from harness import API_KEY, API_SECRET, Daemon, Reply, assert_csvs_equal_journal, eventually, futures

Make = Callable[..., Daemon]
D = Decimal
ALWAYS = 10**6
SYMBOL = "BTCUSDT"
WORDS = {0: "flat", 1: "long", -1: "short"}


@pytest.fixture
def fake() -> Iterator[FakeBinance]:
    """BTCUSDT at 50000 on spot and on futures, 10000 USDT in each account, one-way mode."""
    with FakeBinance(API_KEY, API_SECRET) as exchange:
        set_scene(exchange)
        yield exchange


@pytest.fixture
def other_fake() -> Iterator[FakeBinance]:
    with FakeBinance(API_KEY, API_SECRET) as exchange:
        set_scene(exchange)
        yield exchange


def set_scene(exchange: FakeBinance) -> None:
    exchange.set_price(SYMBOL, 50000)
    exchange.futures.set_price(SYMBOL, 50000)
    exchange.set_balance("USDT", 10000)
    exchange.futures.set_balance("USDT", 10000)


@pytest.fixture
def trading(daemon_with: Make, fake: FakeBinance) -> Make:
    """Starts a daemon on the futures of the exchange, whose limits are not what is tested."""

    def start(**settings: object) -> Daemon:
        wide = {"cooldown_seconds": 0, "max_risk_per_trade": 5000, "max_trades_per_day": 1000, "dedupe_seconds": 20}
        return daemon_with(**futures(fake, **wide) | settings).start()

    return start


@pytest.fixture
def daemon(trading: Make) -> Daemon:
    return trading()


def send(daemon: Daemon, action: str, quantity: str | None = None, **more: object) -> Reply:
    sized = {} if quantity is None else {"quantity": quantity}
    return daemon.post("/webhook", 10, **{"symbol": f"{SYMBOL}.P", "action": action} | sized | more)


def strategy(before: str, after: str, **more: object) -> dict[str, Any]:
    """The alert of a strategy that goes from one position to another; negative is short."""
    change = D(after) - D(before)
    return {
        "symbol": f"{SYMBOL}.P",
        "action": "buy" if change > 0 else "sell",
        "quantity": str(abs(change)),
        "prev_market_position": word(before),
        "market_position": word(after),
        "position_size": after,
    } | more


def word(size: str) -> str:
    return WORDS[(D(size) > 0) - (D(size) < 0)]


def held(fake: FakeBinance) -> Decimal:
    return fake.futures.amount(SYMBOL)


def orders(fake: FakeBinance) -> list[tuple[str, str, bool]]:
    """Side, quantity and whether it may only reduce."""
    return [(order.side, f"{order.quantity.normalize():f}", order.reduce_only) for order in fake.futures.orders]


def books(daemon: Daemon) -> dict[tuple[str, str], tuple[str, float]]:
    """Side and quantity by market and symbol."""
    rows = daemon.owner_get("/positions")["positions"]
    return {(row["market"], row["symbol"]): (row["side"], row["quantity"]) for row in rows}


def wait_until_held(fake: FakeBinance, quantity: str) -> None:
    eventually(lambda: held(fake) == D(quantity), 10, lambda: f"held: {held(fake)}, orders: {orders(fake)}")


# --- a strategy and its positions -------------------------------------------------------------------------------------


def test_a_strategy_opens_adds_closes_a_part_turns_around_and_closes(daemon: Daemon, fake: FakeBinance) -> None:
    way = ["0", "0.01", "0.02", "0.006", "-0.008", "-0.012", "0.004", "0"]
    for before, after in pairwise(way):
        answer = daemon.post("/webhook", 10, **strategy(before, after))
        assert (answer["decision"], answer["status"], held(fake)) == ("ACCEPTED", "FILLED", D(after)), answer.body
        assert "missed" not in answer["reason"]
    assert orders(fake) == [
        ("BUY", "0.01", False), ("BUY", "0.01", False), ("SELL", "0.014", True),
        ("SELL", "0.006", True), ("SELL", "0.008", False), ("SELL", "0.004", False),
        ("BUY", "0.012", True), ("BUY", "0.004", False), ("SELL", "0.004", True),
    ]  # fmt: skip
    assert books(daemon) == {}
    assert_csvs_equal_journal(daemon)


@pytest.mark.parametrize("opening", ["buy", "sell"])
@pytest.mark.parametrize("closing", ["close", "exit", "flat"])
def test_a_position_is_closed_without_saying_how_much(
    daemon: Daemon, fake: FakeBinance, opening: str, closing: str
) -> None:
    send(daemon, opening, "0.01")
    assert send(daemon, closing)["status"] == "FILLED"
    assert held(fake) == 0


@pytest.mark.parametrize(
    "closing",
    [
        {"action": "sell", "market_position": "flat"},
        {"action": "sell", "reduce_only": True},
        {"action": "sell"},
        {"action": "close_long"},
        {"action": "close"},
    ],
)
def test_a_closing_sell_of_more_than_is_held_never_opens_a_short(
    daemon: Daemon, fake: FakeBinance, closing: dict[str, Any]
) -> None:
    send(daemon, "buy", "0.01")
    assert daemon.post(symbol=f"{SYMBOL}.P", quantity="0.03", **closing)["decision"] == "ACCEPTED"
    assert held(fake) == 0
    if closing != {"action": "sell"}:
        assert daemon.post(symbol=f"{SYMBOL}.P", quantity="0.04", **closing)["check"] == "no_position"
        assert held(fake) == 0


def test_an_alert_that_states_only_the_position_to_hold_leads_there(daemon: Daemon, fake: FakeBinance) -> None:
    for target in ("0.01", "0.004", "-0.006", "-0.01", "0"):
        daemon.post(symbol=f"{SYMBOL}.P", action="pos", position_size=target)
        assert held(fake) == D(target)


def test_the_same_target_again_does_nothing(daemon: Daemon, fake: FakeBinance) -> None:
    alert = strategy("0", "0.01")
    daemon.post("/webhook", 10, **alert)
    assert daemon.post("/webhook", 10, **alert)["decision"] == "DUPLICATE"
    again = daemon.post("/webhook", 10, **alert, comment="again")
    assert again["check"] == "target"
    assert again["reason"].startswith("Already at the target: 0.01 held, target is 0.01")
    assert len(fake.futures.orders) == 1


def test_a_missed_alert_is_made_up_for_and_said(daemon: Daemon, fake: FakeBinance) -> None:
    daemon.post("/webhook", 10, **strategy("0", "0.01"))
    answer = daemon.post("/webhook", 10, **strategy("-0.01", "-0.02"))
    assert "the strategy was short before this alert, held is long: an alert may have been missed" in answer["reason"]
    assert held(fake) == D("-0.02")
    assert "an alert may have been missed" in daemon.signals()[-1]["Reason"]


# --- the other order --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "end"),
    [
        (["0.01", "0", "-0.01"], "-0.01"),
        (["-0.01", "0", "0.02"], "0.02"),
        (["0", "0.01", "-0.02"], "-0.02"),
        (["0.01", "0.02", "0.03"], "0.03"),
        (["0.03", "0.02", "0"], "0"),
        (["-0.01", "-0.02", "0"], "0"),  # the late one must not open a short that nobody will close
        (["0", "0.01", "0"], "0"),
        (["0.01", "0.03", "0.01"], "0.01"),
    ],
)
def test_of_two_alerts_in_the_other_order_the_later_one_counts(
    daemon: Daemon, fake: FakeBinance, way: list[str], end: str
) -> None:
    if D(way[0]):
        daemon.post("/webhook", 10, **strategy("0", way[0]))
    daemon.post("/webhook", 10, **strategy(way[1], way[2]))
    assert daemon.post("/webhook", 10, **strategy(way[0], way[1]))["decision"] == "REJECTED"
    assert held(fake) == D(end)


def test_an_entry_that_comes_after_its_own_exit_is_still_known_to_be_late_after_a_restart(
    daemon: Daemon, fake: FakeBinance
) -> None:
    assert daemon.post("/webhook", 10, **strategy("0.01", "0"))["check"] == "no_position"
    daemon.restart()
    late = daemon.post("/webhook", 10, **strategy("0", "0.01"))
    assert (late["check"], held(fake)) == ("overtaken", D(0))
    assert late["reason"].startswith("Overtaken: the alert that came after this one")


def test_a_way_out_is_taken_although_it_may_be_the_one_that_was_missed(daemon: Daemon, fake: FakeBinance) -> None:
    """The exit was lost, the next entry found its position there already; now the strategy really goes out."""
    daemon.post("/webhook", 10, **strategy("0", "0.01"))
    assert daemon.post("/webhook", 10, **strategy("0", "0.01", comment="2"))["check"] == "target"
    assert daemon.post("/webhook", 10, **strategy("0.01", "0"))["status"] == "FILLED"
    assert held(fake) == 0


def test_an_entry_that_fired_after_an_exit_without_a_position_is_a_new_one(daemon: Daemon, fake: FakeBinance) -> None:
    now = datetime.now(UTC)
    exit_, entry = ({"timenow": (now + timedelta(seconds=after)).isoformat()} for after in (0, 1))
    assert daemon.post("/webhook", 10, **strategy("0.01", "0", **exit_))["check"] == "no_position"
    assert daemon.post("/webhook", 10, **strategy("0", "0.01", **entry))["status"] == "FILLED"


# --- leverage, margin, size -------------------------------------------------------------------------------------------


def test_leverage_is_the_alerts_or_the_settings_and_never_above_the_maximum(trading: Make, fake: FakeBinance) -> None:
    daemon = trading(leverage=2, max_leverage=5)
    send(daemon, "buy", "0.01")
    assert fake.futures.engine.market(SYMBOL).leverage == 2
    send(daemon, "close")
    send(daemon, "buy", "0.01", leverage=5)
    assert fake.futures.engine.market(SYMBOL).leverage == 5
    refused = send(daemon, "buy", "0.01", leverage=6)
    assert (refused["check"], refused["reason"]) == ("leverage", "Leverage above maximum: 6, maximum is 5")
    assert fake.futures.engine.market(SYMBOL).leverage == 5


def test_leverage_and_margin_type_are_set_once_and_before_the_first_order(daemon: Daemon, fake: FakeBinance) -> None:
    for action in ("buy", "buy", "close", "sell"):
        send(daemon, action, None if action == "close" else "0.01", comment=str(len(fake.requests)))
    settings = ["POST /fapi/v1/leverage", "POST /fapi/v1/marginType"]
    posts = [f"{call.method} {call.path}" for call in fake.requests if call.method == "POST"]
    assert sorted(posts[:2]) == settings
    assert posts[2:] == ["POST /fapi/v1/order"] * 4
    assert fake.futures.engine.market(SYMBOL).isolated


def test_an_allocation_is_margin_and_leverage_comes_on_top(trading: Make, fake: FakeBinance) -> None:
    daemon = trading(capital_allocation_percent=10, leverage=4)
    send(daemon, "buy")
    assert held(fake) == D("0.08")  # 10 % of 10000 are 1000 of margin, 4000 at 50000


def test_what_closes_by_its_margin_closes_as_much_as_that_margin_opened(trading: Make, fake: FakeBinance) -> None:
    daemon = trading(max_leverage=5)
    send(daemon, "buy", margin=200, leverage=5)
    assert held(fake) == D("0.02")
    assert send(daemon, "sell", margin=100)["status"] == "FILLED"
    assert held(fake) == D("0.01")
    fake.inject(Fault("reset", "POST /fapi/v1/order"))
    fake.inject(Fault("status", "GET /fapi/v1/order", times=ALWAYS, status=503, html=True))
    assert send(daemon, "buy", "0.01")["status"] == "PENDING"
    assert send(daemon, "close", margin=50)["status"] == "PENDING"  # its turn comes when that is settled
    fake.clear_faults()
    wait_until_held(fake, "0.005")


def test_the_size_limit_is_of_margin(trading: Make, fake: FakeBinance) -> None:
    daemon = trading(max_risk_per_trade=100, leverage=5)
    assert send(daemon, "buy", "0.01")["status"] == "FILLED"
    refused = send(daemon, "buy", "0.011")
    assert refused["check"] == "size"
    assert refused["reason"] == ("Trade size above maximum: 110 USDT of margin (5 times leverage), maximum is 100 USDT")


@pytest.mark.parametrize(("direction", "wrong", "right"), [("long", "sell", "buy"), ("short", "buy", "sell")])
def test_only_the_allowed_direction_is_opened_and_it_can_be_closed(
    trading: Make, fake: FakeBinance, direction: str, wrong: str, right: str
) -> None:
    daemon = trading(direction=direction)
    assert send(daemon, wrong, "0.01")["check"] == "direction"
    assert send(daemon, right, "0.01")["status"] == "FILLED"
    target = "-0.01" if direction == "long" else "0.01"
    turned = daemon.post("/webhook", 10, symbol=f"{SYMBOL}.P", action="pos", position_size=target)
    assert "no entry after it (direction)" in turned["reason"]
    assert held(fake) == 0


def test_margin_that_the_exchange_finds_insufficient_is_said_and_nothing_is_held(
    daemon: Daemon, fake: FakeBinance
) -> None:
    fake.fail_next("error", "POST /fapi/v1/order", code=-2019, message="Margin is insufficient.")
    answer = send(daemon, "buy", "0.01")
    assert (answer.status, answer["success"], answer["status"]) == (200, False, "REJECTED")
    assert "Margin is insufficient" in answer["error"]
    assert books(daemon) == {}
    assert daemon.owner_get("/status")["trades_today"] == 0


# --- hedge mode -------------------------------------------------------------------------------------------------------


def test_in_hedge_mode_orders_say_which_position_they_mean_and_nothing_of_reducing(
    trading: Make, fake: FakeBinance
) -> None:
    fake.futures.set_options(hedge_mode=True)
    daemon = trading()
    daemon.post("/webhook", 10, **strategy("0", "0.01", stop_loss_percent=2))
    eventually(lambda: len(fake.futures.algos) == 1, 5, lambda: "no stop")
    daemon.post("/webhook", 10, **strategy("0.01", "-0.02"))
    sent = [call.params for call in fake.requests if call.method == "POST" and "positionSide" in call.params]
    told = [(each.get("side"), each["positionSide"], "reduceOnly" in each) for each in sent]
    assert told == [
        ("BUY", "LONG", False),
        ("SELL", "LONG", False),  # the stop
        ("SELL", "LONG", False),
        ("SELL", "SHORT", False),
    ]
    amounts = [fake.futures.amount(SYMBOL, side) for side in ("LONG", "SHORT", "BOTH")]
    assert amounts == [0, D("-0.02"), 0]
    assert books(daemon) == {("futures", SYMBOL): ("SHORT", 0.02)}


# --- limit orders -----------------------------------------------------------------------------------------------------


def test_a_limit_order_rests_fills_and_is_protected_then(daemon: Daemon, fake: FakeBinance) -> None:
    resting = send(daemon, "sell", "0.01", type="LIMIT", price=51000, stop_loss_percent=2)
    assert (resting["status"], books(daemon)) == ("NEW", {})
    fake.futures.set_price(SYMBOL, 51000)
    eventually(lambda: books(daemon) == {("futures", SYMBOL): ("SHORT", 0.01)}, 5, lambda: str(books(daemon)))
    eventually(lambda: len(fake.futures.algos) == 1, 5, lambda: "no stop")
    assert fake.futures.algos[0].trigger_price == 52020


def test_a_limit_order_that_rests_is_cancelled_by_a_close(daemon: Daemon, fake: FakeBinance) -> None:
    send(daemon, "buy", "0.01")
    send(daemon, "buy", "0.01", type="LIMIT", price=49000)
    assert send(daemon, "close")["status"] == "FILLED"
    assert [order.status for order in fake.futures.orders] == ["FILLED", "CANCELED", "FILLED"]
    assert held(fake) == 0


@pytest.mark.parametrize("entry", ["rests", "is in doubt"])
def test_a_part_is_closed_on_the_way_to_a_target_whatever_else_is_under_way(
    daemon: Daemon, fake: FakeBinance, entry: str
) -> None:
    """How far it is to the target nobody knows then; that the strategy sold so much of what is held, it said."""
    daemon.post("/webhook", 10, **strategy("0", "0.02"))
    if entry == "rests":
        assert send(daemon, "buy", "0.01", type="LIMIT", price=49000)["status"] == "NEW"
    else:
        known = {order.client_id for order in fake.futures.orders}
        fake.inject(Fault("reset", "POST /fapi/v1/order"))
        fake.inject(Fault("status", "GET /fapi/v1/order", times=ALWAYS, status=503, html=True,
                          when=lambda call: call.params.get("origClientOrderId") not in known))  # fmt: skip
        assert send(daemon, "buy", "0.01")["status"] == "PENDING"
    part = daemon.post("/webhook", 10, **strategy("0.02", "0.012"))
    assert part["decision"] == "ACCEPTED", part.body
    fake.clear_faults()
    wait_until_held(fake, "0.012")
    assert ("SELL", "0.008", True) in orders(fake)


@pytest.mark.parametrize(
    ("before", "after"), [("-0.01", "0.02"), ("0.01", "0.02"), ("0.01", "0.01"), ("-0.01", "0.01")]
)
def test_a_target_after_a_slow_way_out_counts_nothing_of_what_is_being_closed(
    daemon: Daemon, fake: FakeBinance, before: str, after: str
) -> None:
    daemon.post("/webhook", 10, **strategy("0", before))
    fake.inject(Fault("delay", "POST /fapi/v1/order", seconds=1.5, executed=True))
    out = threading.Thread(target=lambda: daemon.post("/webhook", 10, **strategy(before, "0")))
    out.start()
    time.sleep(0.3)
    answer = daemon.post("/webhook", 10, **strategy("0", after, comment="in again"))
    out.join()
    assert (answer["decision"], answer["status"]) == ("ACCEPTED", "FILLED"), answer.body
    wait_until_held(fake, after)
    assert orders(fake)[-1] == ("BUY", after, False)


def test_a_reversal_whose_quantity_counts_what_nobody_knows_yet_only_closes(daemon: Daemon, fake: FakeBinance) -> None:
    """0.03 sold against 0.01 would be a short of 0.02; but the 0.01 are still being bought, and may be less."""
    fake.inject(Fault("delay", "POST /fapi/v1/order", seconds=1.5, executed=True))
    into = threading.Thread(target=lambda: send(daemon, "buy", "0.01"))
    into.start()
    time.sleep(0.3)
    answer = send(daemon, "sell", "0.03", market_position="short")
    into.join()
    assert "no entry after it (unresolved)" in answer["reason"], answer.body
    wait_until_held(fake, "0")
    daemon.wait_until_settled()
    assert orders(fake) == [("BUY", "0.01", False), ("SELL", "0.01", True)]


@pytest.mark.parametrize("closing", [{"action": "close_long"}, {"action": "sell", "reduce_only": True}])
def test_a_way_out_in_doubt_does_not_keep_one_of_the_long_alone_from_trying(
    daemon: Daemon, fake: FakeBinance, closing: dict[str, Any]
) -> None:
    send(daemon, "buy", "0.01")
    fake.inject(Fault("reset", "POST /fapi/v1/order"))
    fake.inject(Fault("status", "GET /fapi/v1/order", times=ALWAYS, status=503, html=True))
    assert send(daemon, "flat")["status"] == "PENDING"
    again = daemon.post("/webhook", 10, symbol=f"{SYMBOL}.P", **closing)
    assert (again["decision"], again["status"]) == ("ACCEPTED", "PENDING"), again.body
    fake.clear_faults()
    wait_until_held(fake, "0")
    daemon.wait_until_settled()
    assert [order for order in orders(fake) if order[0] == "SELL"] == [("SELL", "0.01", True)]


# --- reversals --------------------------------------------------------------------------------------------------------


def test_a_reversal_that_the_daily_limit_refuses_closes_and_does_not_open(trading: Make, fake: FakeBinance) -> None:
    daemon = trading(max_trades_per_day=1)
    daemon.post("/webhook", 10, **strategy("0", "0.01"))
    answer = daemon.post("/webhook", 10, **strategy("0.01", "-0.01"))
    assert (answer["decision"], answer["status"]) == ("ACCEPTED", "FILLED")
    assert "no entry after it (daily_limit): Daily limit reached: 1 trades today (UTC), limit is 1" in answer["reason"]
    assert held(fake) == 0
    assert "Daily limit reached: 1 trades today" in daemon.signals()[-1]["Reason"]


@pytest.mark.parametrize("executed", [True, False], ids=["executed", "not executed"])
def test_a_reversal_whose_way_out_has_no_answer_is_seen_through(
    daemon: Daemon, fake: FakeBinance, executed: bool
) -> None:
    """Not executed, the way out is tried again, and the entry waits for that, not the one for the other."""
    daemon.post("/webhook", 10, **strategy("0", "0.01"))
    fake.overload("unknown", executed=executed)
    daemon.post("/webhook", 10, **strategy("0.01", "-0.02"))
    wait_until_held(fake, "-0.02")
    daemon.wait_until_settled()
    assert orders(fake)[1:] == [("SELL", "0.01", True), ("SELL", "0.02", False)]
    assert books(daemon) == {("futures", SYMBOL): ("SHORT", 0.02)}


# --- several markets and accounts -------------------------------------------------------------------------------------


def test_on_both_markets_one_symbol_is_two_positions(trading: Make, fake: FakeBinance) -> None:
    daemon = trading(binance_market="both")
    assert daemon.post(symbol=SYMBOL, action="buy", quantity="0.01")["status"] == "FILLED"
    assert send(daemon, "sell", "0.02")["status"] == "FILLED"
    assert held(fake) == D("-0.02")
    assert set(books(daemon)) == {("spot", SYMBOL), ("futures", SYMBOL)}
    assert daemon.post(symbol=SYMBOL, action="close")["status"] == "FILLED"
    assert (held(fake), set(books(daemon))) == (D("-0.02"), {("futures", SYMBOL)})
    assert send(daemon, "close")["status"] == "FILLED"
    assert held(fake) == 0
    assert books(daemon) == {}


def test_two_accounts_side_by_side_and_an_alert_for_one_never_reaches_the_other(
    trading: Make, fake: FakeBinance, other_fake: FakeBinance
) -> None:
    daemon = trading(
        binance_market="both", binance_real_api_key=API_KEY, binance_real_api_secret=API_SECRET,
        binance_real_api_url=other_fake.api_url, binance_real_futures_api_url=other_fake.fapi_url,
    )  # fmt: skip
    for symbol in (SYMBOL, f"{SYMBOL}.P"):
        assert daemon.post(symbol=symbol, action="buy", quantity="0.01", broker="BINANCE_REAL")["status"] == "FILLED"
    assert (len(other_fake.orders), len(other_fake.futures.orders)) == (1, 1)
    assert (len(fake.orders), len(fake.futures.orders)) == (0, 0)
    assert send(daemon, "sell", "0.02", broker="BINANCE")["status"] == "FILLED"
    assert (held(fake), held(other_fake)) == (D("-0.02"), D("0.01"))
    assert send(daemon, "close", broker="BINANCE_REAL")["status"] == "FILLED"
    assert (held(fake), held(other_fake)) == (D("-0.02"), D(0))
