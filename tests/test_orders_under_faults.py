"""What an exchange can do to an order, and what the daemon makes of it.

At most one order per alert, a true answer in time, and in the end one story everywhere: reply, journal, CSV, exchange.
The sender repeats every alert, byte for byte, as TradingView does after a 5xx; only the pauses are shorter.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest
from fake_binance import FakeBinance
from fake_faults import default_text
from fake_matching import Order, Trade
from fake_rest import Call
from fake_wire import RawRequest
from fake_wire import Reply as WireReply
from harness import (
    API_KEY,
    API_SECRET,
    EAGER,
    REPLY_SECONDS,
    Daemon,
    Nursery,
    Reply,
    assert_csvs_equal_journal,
    binance,
    eventually,
)

from binance_link import KEY_ADVICE

POST = "POST /api/v3/order"
LOOK_UP = "GET /api/v3/order"
TRADES = "GET /api/v3/myTrades"

SENDINGS = 4  # the alert and three repeats
NEVER = 1_000_000  # times that a fault happens: until it is cleared

Details = Mapping[str, Any]


# --- many troubles, each on a market of its own, against one daemon ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happens to one POST, and whether the order is at the exchange all the same."""

    name: str
    placed: bool
    kind: str
    details: Details = field(default_factory=dict)


GARBAGE = {
    "a page": None,
    "nothing": "",
    "null": "null",
    "a number": "7",
    "a text": '"ok"',
    "a list": "[]",
    "an empty object": "{}",
    "an error that is none": '{"code":-2010,"msg":"Account has insufficient balance for requested action."}',
    "half a brace": "{",
    "not a number": "NaN",
    "an order without an id": '{"symbol":"%s","status":"FILLED","executedQty":"1","cummulativeQuoteQty":"1"}',
    "another client id": '{"symbol":"%s","clientOrderId":"x","orderId":7,"status":"FILLED","executedQty":"1",'
    '"cummulativeQuoteQty":"100","fills":[]}',
}
LOST_REPLIES: tuple[tuple[str, Details], ...] = (
    ("reset", {}),
    ("close", {}),
    ("stall", {}),
    ("half_header", {}),
    ("half_header", {"then": "stall"}),
    ("half_body", {}),
    ("half_body", {"then": "stall"}),
    ("drip", {"seconds": 0.05}),
    ("truncated", {}),
    ("other_symbol", {}),
)
SERVER_ERRORS = (500, 502, 503, 504)
UNKNOWN_CODES = (-1006, -1007, -1000, -1001, -1008, -9999)


def after(placed: bool) -> str:
    return "after the order was executed" if placed else "and no order was placed"


def every_trouble() -> Iterator[Trouble]:
    for placed in (True, False):
        for status in SERVER_ERRORS:
            for html in (False, True):
                what = f"{status} {'page' if html else 'JSON'}, {after(placed)}"
                yield Trouble(what, placed, "status", {"status": status, "html": html})
        for code in UNKNOWN_CODES:
            yield Trouble(f"error {code}, {after(placed)}", placed, "error", {"code": code})
        yield Trouble(f"403 page, {after(placed)}", placed, "status", {"status": 403, "html": True})
    for kind, details in LOST_REPLIES:
        yield Trouble(f"{kind} {details.get('then', '')}, {after(True)}", True, kind, details)
    for kind in ("reset", "close", "half_body"):
        yield Trouble(f"{kind}, {after(False)}", False, kind)
    yield Trouble(f"a page as 200, {after(False)}", False, "garbage")
    for name, body in GARBAGE.items():
        yield Trouble(f"200 with {name}, {after(True)}", True, "garbage", {"body": body})
    for then in ("close", "reset", "stall"):
        yield Trouble(f"{then}, the order executes a second later", True, "late", {"then": then, "seconds": 0.8})
    for code in (-1013, -2010, -2015):
        yield Trouble(f"refused with {code}", False, "error", {"code": code})
    yield Trouble("'Duplicate order sent.' although it is there", True, "error",
                  {"code": -2010, "message": "Duplicate order sent."})  # fmt: skip
    yield Trouble("no trouble", True, "delay", {"executed": True})
    yield Trouble("a slow engine", True, "delay", {"seconds": 1.0})
    yield Trouble("a reply that comes after the sender's patience", True, "delay", {"seconds": 2.8, "executed": True})


TROUBLES = {f"{side} {trouble.name}": (side, trouble) for side in ("BUY", "SELL") for trouble in every_trouble()}


@dataclass(slots=True)
class Story:
    """One alert, sent four times into one trouble, and what came of it."""

    side: str
    trouble: Trouble
    symbol: str
    replies: list[Reply] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    trades: list[Trade] = field(default_factory=list)
    posts: list[Call] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    signals: list[dict[str, str]] = field(default_factory=list)
    position: dict[str, Any] | None = None

    @property
    def is_refused(self) -> bool:
        return self.trouble.name.startswith("refused")

    @property
    def is_placed(self) -> bool:
        """An exit that was proven never placed is tried again: the way out is found in the end."""
        return self.trouble.placed or (self.side == "SELL" and not self.is_refused)


@dataclass(slots=True)
class Stage:
    """One daemon and one exchange, all stories told."""

    daemon: Daemon
    exchange: FakeBinance
    stories: dict[str, Story]


@pytest.fixture(scope="module")
def stage(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory, long_wait: LongWait) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    with FakeBinance(API_KEY, API_SECRET, balances={"USDT": 100_000}, weight_limit=1_000_000) as exchange:
        exchange.order_limit = 1_000_000
        settings = binance(exchange, cooldown_seconds=0, max_open_trades=1000, max_trades_per_day=1000)
        settings["test_patience"] = settings["test_patience"] | {"order": 3.0}  # type: ignore[operator]
        daemon = Daemon(nursery, folder, **settings).start()
        try:
            yield Stage(daemon, exchange, tell_all(daemon, exchange))
        finally:
            daemon.kill()


def tell_all(daemon: Daemon, exchange: FakeBinance) -> dict[str, Story]:
    stories = {
        name: Story(side, trouble, f"C{number}USDT")
        for number, (name, (side, trouble)) in enumerate(TROUBLES.items(), 100)
    }
    for story in stories.values():
        exchange.add_symbol(story.symbol, story.symbol.removesuffix("USDT"), "USDT", 100)
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda story: tell(daemon, exchange, story), stories.values()))
    daemon.wait_until_settled(30)
    executions = daemon.owner_get("/executions?limit=1000")["executions"]
    positions = {position["symbol"]: position for position in daemon.owner_get("/positions")["positions"]}
    rows, signals = daemon.trades(), daemon.signals()
    for story in stories.values():
        mine = [order for order in exchange.orders if order.symbol == story.symbol and order.side == story.side]
        ids = {order.order_id for order in mine}
        story.orders, story.trades = mine, [trade for trade in exchange.trades if trade.order_id in ids]
        story.posts = [call for call in exchange.calls(POST) if is_for(story)(call)]
        story.records = [e for e in executions if (e["symbol"], e["side"]) == (story.symbol, story.side)]
        story.rows = [row for row in rows if (row["TradingPair"], row["Action"]) == (story.symbol, story.side)]
        story.signals = [row for row in signals if (row["TradingPair"], row["Action"]) == (story.symbol, story.side)]
        story.position = positions.get(story.symbol)
    return stories


def tell(daemon: Daemon, exchange: FakeBinance, story: Story) -> None:
    if story.side == "SELL":
        assert daemon.post(symbol=story.symbol, action="buy")["status"] == "FILLED"
    details = dict(story.trouble.details)
    body = details.get("body")
    if body:
        details["body"] = body.replace("%s", story.symbol)
    exchange.fail_next(story.trouble.kind, executed=details.pop("executed", executes_at_once(story)), **details,
                       when=is_for(story))  # fmt: skip
    for _ in range(SENDINGS):
        story.replies.append(daemon.post(symbol=story.symbol, action=story.side.lower(), strategy="faults"))
        time.sleep(0.05)


def executes_at_once(story: Story) -> bool:
    return story.trouble.placed and story.trouble.kind not in ("late", "delay")


def is_for(story: Story) -> Callable[[Call], bool]:
    return lambda call: (call.params.get("symbol"), call.params.get("side")) == (story.symbol, story.side)


every_story = pytest.mark.parametrize("name", TROUBLES)


@every_story
def test_an_alert_sent_four_times_is_at_most_one_order_and_no_order_is_sent_twice(stage: Stage, name: str) -> None:
    story = stage.stories[name]
    assert story.posts[0].fault == story.trouble.kind
    assert len(story.orders) == int(story.is_placed)
    ids = [call.params["newClientOrderId"] for call in story.posts]
    assert len(ids) == len(set(ids))
    # An exit gets a second order, with a new id, once the first is proven never placed.
    tried_again = story.side == "SELL" and not story.trouble.placed and not story.is_refused
    assert len(ids) == (2 if tried_again else 1)


@every_story
def test_every_answer_is_true_and_in_time(stage: Stage, name: str) -> None:
    story = stage.stories[name]
    first, *repeats = story.replies
    assert max(reply.seconds for reply in story.replies) <= REPLY_SECONDS
    assert first["decision"] == "ACCEPTED"
    assert [reply["decision"] for reply in repeats] == ["DUPLICATE"] * (SENDINGS - 1)
    assert {reply["signal_id"] for reply in repeats}.isdisjoint({first["signal_id"]})
    assert {reply["duplicate_of"] for reply in repeats} == {first["signal_id"]}
    assert {reply["check"] for reply in repeats} == {"duplicate"}
    for reply in story.replies:
        assert_true(reply, story)


def assert_true(reply: Reply, story: Story) -> None:
    """What it says is what the exchange has; what it does not know yet it calls pending."""
    if reply["status"] == "PENDING":
        assert reply.status == (202 if reply["decision"] == "ACCEPTED" else 200)
        assert (reply["success"], reply["error"]) == (True, None)
        return
    assert reply.status == 200
    if not story.is_placed:
        assert reply["status"] == ("REJECTED" if story.is_refused else "NOT_PLACED")
        assert (reply["success"], reply["quantity"], reply["orderId"]) == (False, 0, None)
        assert reply["error"] == reply["reason"] != ""
        return
    (order,) = story.orders
    assert (reply["success"], reply["error"], reply["status"]) == (True, None, "FILLED")
    assert (reply["orderId"], reply["client_order_id"]) == (str(order.order_id), order.client_id)
    assert (dec(reply["quantity"]), dec(reply["price"])) == (order.executed, order.quote_executed / order.executed)


@every_story
def test_in_the_end_journal_csv_and_exchange_tell_the_same_story(stage: Stage, name: str) -> None:
    story = stage.stories[name]
    (record,) = story.records
    if not story.is_placed:
        status = "REJECTED" if story.is_refused else "NOT_PLACED"
        assert (record["status"], record["executed_quantity"], record["fees"]) == (status, 0, [])
        assert [row["Status"] for row in story.rows if row["Status"] != "UNKNOWN"] == [status]
        assert story.rows[-1]["Quantity"] == "0"
        assert bool(story.position) == (story.side == "SELL")
        return
    (order,) = story.orders
    fee, asset = sum((trade.commission for trade in story.trades), Decimal(0)), story.trades[0].commission_asset
    assert (record["status"], record["client_order_id"]) == ("FILLED", order.client_id)
    assert dec(record["executed_quantity"]) == order.executed
    assert dec(record["average_price"]) == order.quote_executed / order.executed
    assert [(f["asset"], dec(f["amount"])) for f in record["fees"]] == [(asset, fee)]
    row = story.rows[-1]
    assert [r["Status"] for r in story.rows if r["ClientOrderID"] == order.client_id and r["Status"] != "UNKNOWN"] == [
        "FILLED"
    ]
    assert (row["OrderID"], row["ClientOrderID"]) == (str(order.order_id), order.client_id)
    assert dec(row["Quantity"]) == order.executed
    assert dec(row["TradeAmount"]) == order.quote_executed
    assert dec(row["Price"]) == order.quote_executed / order.executed
    assert (dec(row["Fee"]), row["FeeAsset"]) == (fee, asset)
    assert_position_and_profit(story, order, fee, row)


def assert_position_and_profit(story: Story, order: Order, fee: Decimal, row: Mapping[str, str]) -> None:
    """BUY: 10 USDT at 100 are 0.1, less 0.0001 fee in the base asset. SELL: all of that, fee in USDT."""
    if story.side == "BUY":
        assert story.position is not None
        assert dec(story.position["quantity"]) == order.executed - fee == Decimal("0.0999")
        assert dec(story.position["cost"]) == order.quote_executed == 10
    else:
        assert story.position is None
        assert order.executed == Decimal("0.0999")
        assert dec(row["RealizedPnL"]) == order.quote_executed - fee - 10 == Decimal("-0.01999")


@every_story
def test_every_sending_of_the_alert_is_one_signals_row(stage: Stage, name: str) -> None:
    story = stage.stories[name]
    assert [row["Decision"] for row in story.signals] == ["ACCEPTED"] + ["DUPLICATE"] * (SENDINGS - 1)
    assert [row["SignalID"] for row in story.signals] == [reply["signal_id"] for reply in story.replies]


def test_after_all_troubles_the_counts_are_those_of_the_exchange(stage: Stage) -> None:
    status = stage.daemon.owner_get("/status")
    bought = [order for order in stage.exchange.orders if order.is_buy]
    sold = {order.symbol for order in stage.exchange.orders if not order.is_buy}
    assert status["trades_today"] == len(bought)
    assert status["open_trades"] == len([order for order in bought if order.symbol not in sold])
    assert (status["unresolved_orders"], status["resting_orders"]) == ([], [])
    assert_csvs_equal_journal(stage.daemon)


@pytest.mark.parametrize("side", ["BUY", "SELL"])
@pytest.mark.parametrize("code", [-1013, -2010, -2015])
def test_refusals_are_told_in_the_words_of_the_exchange(stage: Stage, side: str, code: int) -> None:
    story = stage.stories[f"{side} refused with {code}"]
    words = f"BINANCE refused: {default_text(code)} ({code}){KEY_ADVICE.get(code, '')}"
    assert story.replies[0]["error"] == words
    assert story.rows[-1]["Note"] == words.replace(";", ",")


# --- while the outcome is unknown -------------------------------------------------------------------------------------


def test_while_an_outcome_is_unknown_its_symbol_takes_no_entry_but_accepts_an_exit_and_acts_on_it_later(
    live: Daemon, exchange: FakeBinance
) -> None:
    lose_the_reply(exchange, executed=True)
    let_look_ups_fail(exchange)
    waiting = unknown_order(live, symbol="BTCUSDT", action="buy")
    assert counts(live) == {"trades_today": 1, "open_trades": 1}

    entry = live.post(symbol="BTCUSDT", action="buy", quantity="0.0002")
    assert (entry.status, entry["decision"], entry["check"]) == (200, "REJECTED", "unresolved")
    assert live.orders_without_ending()[0]["client_order_id"] in entry["reason"]
    assert live.post(symbol="SOLUSDT", action="buy")["status"] == "FILLED"
    leave = live.post(symbol="BTCUSDT", action="sell")
    for reply in (waiting.result(), leave):
        assert (reply.status, reply["decision"], reply["status"]) == (202, "ACCEPTED", "PENDING")
        assert (reply["success"], reply["error"]) == (True, None)
    assert len(exchange.orders) == 2

    exchange.clear_faults()
    live.wait_until_settled()
    entry_order, _, exit_order = exchange.orders
    assert (exit_order.side, exit_order.executed) == ("SELL", Decimal("0.00022"))
    assert exit_order.client_id == leave["client_order_id"]
    assert statuses(live, "BTCUSDT") == {entry_order.client_id: "FILLED", exit_order.client_id: "FILLED"}
    assert set(exchange.posts_by_client_id.values()) == {1}
    assert counts(live) == {"trades_today": 2, "open_trades": 1}
    assert_csvs_equal_journal(live)


def test_an_unknown_entry_that_was_never_placed_gives_its_place_back_and_leaves_its_exit_nothing_to_sell(
    live: Daemon, exchange: FakeBinance
) -> None:
    lose_the_reply(exchange, executed=False)
    let_look_ups_fail(exchange)
    waiting = unknown_order(live, symbol="BTCUSDT", action="buy")
    leave, unknown = live.post(symbol="BTCUSDT", action="sell"), waiting.result()
    assert (unknown["status"], leave["status"]) == ("PENDING", "PENDING")
    exchange.clear_faults()
    live.wait_until_settled()
    assert exchange.orders == []
    assert statuses(live) == {unknown["client_order_id"]: "NOT_PLACED", leave["client_order_id"]: "NOT_PLACED"}
    assert "nothing left to sell" in live.trades()[-1]["Note"]
    assert counts(live) == {"trades_today": 0, "open_trades": 0}
    assert live.post(symbol="BTCUSDT", action="buy", strategy="again")["status"] == "FILLED"


def test_a_second_exit_does_not_sell_what_an_unknown_exit_may_have_sold(live: Daemon, exchange: FakeBinance) -> None:
    exchange.set_balance("BTC", 1)
    live.post(symbol="BTCUSDT", action="buy")
    lose_the_reply(exchange, executed=True)
    let_look_ups_fail(exchange)
    waiting = unknown_order(live, symbol="BTCUSDT", action="sell")
    second, first = live.post(symbol="BTCUSDT", action="sell", strategy="stop"), waiting.result()
    assert (first["status"], second["status"]) == ("PENDING", "PENDING")
    exchange.clear_faults()
    live.wait_until_settled()
    assert [order.side for order in exchange.orders] == ["BUY", "SELL"]
    assert statuses(live)[second["client_order_id"]] == "NOT_PLACED"
    assert counts(live) == {"trades_today": 1, "open_trades": 0}


def test_a_look_up_that_lags_behind_the_engine_is_not_taken_for_absence(live: Daemon, exchange: FakeBinance) -> None:
    exchange.lookup_lag_seconds = 1.0
    lose_the_reply(exchange, executed=True)
    replies = [live.post(symbol="BTCUSDT", action="buy") for _ in range(SENDINGS)]
    live.wait_until_settled()
    assert len([call for call in exchange.calls(LOOK_UP) if call.code == -2013]) >= 3
    (order,) = exchange.orders
    assert statuses(live) == {order.client_id: "FILLED"}
    assert {reply["status"] for reply in replies} <= {"PENDING", "FILLED"}
    assert [row["Status"] for row in live.trades()] == ["UNKNOWN", "FILLED"]


@pytest.mark.parametrize(
    ("kind", "details"),
    [
        ("status", {"status": 503, "html": True}),
        ("error", {"code": -1003, "status": 429}),
        ("error", {"code": -9999}),
        ("reset", {}),
        ("garbage", {"body": "{}"}),
        ("other_symbol", {"executed": True}),
    ],
)
def test_a_look_up_that_fails_decides_nothing(
    daemon_with: Callable[..., Daemon], exchange: FakeBinance, kind: str, details: Details
) -> None:
    daemon = daemon_with(**binance(exchange, test_absence_seconds=0)).start()
    lose_the_reply(exchange, executed=True)
    exchange.fail_next(kind, where=LOOK_UP, times=2, **details)
    daemon.post(symbol="BTCUSDT", action="buy")
    daemon.wait_until_settled()
    assert len(exchange.calls(LOOK_UP)) == 3
    (order,) = exchange.orders
    assert statuses(daemon) == {order.client_id: "FILLED"}


def test_absence_needs_three_not_founds_in_a_row(daemon_with: Callable[..., Daemon], exchange: FakeBinance) -> None:
    daemon = daemon_with(**binance(exchange, test_absence_seconds=0)).start()
    lose_the_reply(exchange, executed=False)
    asked: list[Call] = []

    def is_the_third(call: Call) -> bool:
        asked.append(call)
        return len(asked) == 3

    exchange.fail_next("status", where=LOOK_UP, status=503, when=is_the_third)
    assert daemon.post(symbol="BTCUSDT", action="buy")["status"] == "NOT_PLACED"
    assert [call.code == -2013 for call in exchange.calls(LOOK_UP)] == [True, True, False, True, True, True]


def test_an_order_that_turns_up_after_its_absence_was_proven_is_in_the_books_all_the_same(
    daemon_with: Callable[..., Daemon], exchange: FakeBinance
) -> None:
    daemon = daemon_with(**binance(exchange, test_absence_seconds=0.3)).start()
    exchange.fail_next("late", seconds=1.6)
    reply = daemon.post(symbol="BTCUSDT", action="buy")
    assert (reply["status"], reply["success"], exchange.orders) == ("NOT_PLACED", False, [])
    assert counts(daemon) == {"trades_today": 0, "open_trades": 0}
    eventually(lambda: counts(daemon) == {"trades_today": 1, "open_trades": 1}, 5, lambda: str(daemon.trades()))
    (order,) = exchange.orders
    assert [row["Status"] for row in daemon.trades()] == ["UNKNOWN", "NOT_PLACED", "FILLED"]
    assert {row["ClientOrderID"] for row in daemon.trades()} == {order.client_id}
    assert daemon.post(symbol="BTCUSDT", action="buy")["status"] == "FILLED"
    assert set(exchange.posts_by_client_id.values()) == {1}


def test_an_order_whose_trades_are_not_listed_yet_is_not_settled_with_fees_missing(
    live: Daemon, exchange: FakeBinance
) -> None:
    lose_the_reply(exchange, executed=True)
    exchange.fail_next("garbage", where=TRADES, body="[]", times=5)
    exchange.fail_next("status", where=TRADES, status=503, times=2)
    live.post(symbol="BTCUSDT", action="buy")
    live.wait_until_settled()
    assert len(exchange.calls(TRADES)) == 8
    (row,) = [row for row in live.trades() if row["Status"] != "UNKNOWN"]
    assert (row["Status"], row["Fee"], row["FeeAsset"]) == ("FILLED", "0.00000023", "BTC")
    sold = live.post(symbol="BTCUSDT", action="sell")
    assert (sold["status"], sold["quantity"]) == ("FILLED", 0.00022)


def test_a_list_of_trades_that_is_withheld_for_a_moment_does_not_block_the_way_out(
    live: Daemon, exchange: FakeBinance
) -> None:
    lose_the_reply(exchange, executed=True)
    exchange.fail_next("status", where=TRADES, status=403, html=True)
    live.post(symbol="BTCUSDT", action="buy")
    live.wait_until_settled()
    sold = live.post(symbol="BTCUSDT", action="sell")
    assert (sold["status"], sold["quantity"]) == ("FILLED", 0.00022)


@pytest.mark.parametrize("fills", [501, 1000])
def test_an_order_of_very_many_fills_is_found_with_all_its_fees(
    daemon_with: Callable[..., Daemon], exchange: FakeBinance, fills: int
) -> None:
    daemon = daemon_with(**binance(exchange, max_risk_per_trade=1000)).start()
    exchange.set_book("BTCUSDT", asks=[(43000 + level, "0.00001") for level in range(fills)])
    lose_the_reply(exchange, executed=True)
    assert daemon.post(symbol="BTCUSDT", action="buy", quantity=str(fills * Decimal("0.00001")))["status"] == "FILLED"
    assert len(exchange.trades) == fills
    assert dec(daemon.trades()[-1]["Fee"]) == sum(trade.commission for trade in exchange.trades)


def test_a_success_without_its_fills_is_looked_up_so_that_the_fees_are_true(
    daemon_with: Callable[..., Daemon],
) -> None:
    with Editing(API_KEY, API_SECRET) as exchange:
        exchange.edit = lambda reply: reply.pop("fills")
        daemon = daemon_with(**binance(exchange)).start()
        reply = daemon.post(symbol="BTCUSDT", action="buy")
        assert (reply["status"], len(exchange.orders)) == ("FILLED", 1)
        assert (daemon.trades()[-1]["Fee"], daemon.trades()[-1]["FeeAsset"]) == ("0.00000023", "BTC")
        exchange.edit = lambda reply: reply["fills"].clear()
        reply = daemon.post(symbol="BTCUSDT", action="sell")
        assert (reply["status"], dec(reply["quantity"]), len(exchange.orders)) == ("FILLED", Decimal("0.00022"), 2)
        assert (daemon.trades()[-1]["Fee"], daemon.trades()[-1]["FeeAsset"]) == ("0.00946", "USDT")


@pytest.mark.parametrize(
    "change",
    [
        {"status": "DONE"},
        {"status": None},
        {"executedQty": "NaN"},
        {"executedQty": "-1"},
        {"executedQty": None},
        {"cummulativeQuoteQty": "Infinity"},
        {"fills": 7},
        {"fills": [7]},
        {"fills": [{}]},
        {"clientOrderId": "somebody-else"},
        {"symbol": "ETHUSDT"},
    ],
    ids=str,
)
def test_a_success_with_a_field_that_cannot_be_is_not_believed_but_looked_up(
    daemon_with: Callable[..., Daemon], change: dict[str, object]
) -> None:
    with Editing(API_KEY, API_SECRET) as exchange:
        exchange.edit = lambda reply: reply.update(change)
        daemon = daemon_with(**binance(exchange)).start()
        reply = daemon.post(symbol="BTCUSDT", action="buy")
        (order,) = exchange.orders
        assert (reply["status"], reply["quantity"], reply["orderId"]) == ("FILLED", 0.00023, str(order.order_id))
        assert len(exchange.calls(LOOK_UP)) == 1
        assert [row["Status"] for row in daemon.trades()] == ["UNKNOWN", "FILLED"]


# --- the exchange asks to be left alone -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 418])
def test_a_short_pause_is_waited_for_and_the_order_then_placed_once(
    live: Daemon, exchange: FakeBinance, status: int
) -> None:
    exchange.fail_next("ban", status=status, retry_after=1)
    reply = live.post(symbol="BTCUSDT", action="buy")
    assert (reply.status, reply["status"]) == (200, "FILLED")
    assert 1.0 <= reply.seconds <= REPLY_SECONDS
    refused, placed = exchange.calls(POST)
    assert (refused.status, placed.status, len(exchange.orders)) == (status, 200, 1)
    assert [call for call in exchange.requests if call.banned] == []


@pytest.mark.parametrize(("status", "action"), [(429, "buy"), (418, "sell")])
def test_a_long_pause_answers_503_at_once_and_the_resend_after_it_is_a_new_try(
    live: Daemon, exchange: FakeBinance, status: int, action: str
) -> None:
    if action == "sell":
        live.post(symbol="BTCUSDT", action="buy")
    already = len(exchange.orders)
    exchange.fail_next("ban", status=status, retry_after=2)
    alert: dict[str, Any] = {"symbol": "BTCUSDT", "action": action, "strategy": "banned"}
    first, second = live.post(**alert), live.post(**alert)
    # An entry that comes during the pause is not even decided.
    assert [first["status"], second["status"]] == ["NOT_PLACED", None if action == "buy" else "NOT_PLACED"]
    for reply in (first, second):
        assert (reply.status, reply["success"]) == (503, False)
        assert reply.seconds < 1
        assert "send it again" in reply["reason"]
    assert len(exchange.orders) == already
    assert counts(live)["trades_today"] == already
    eventually(lambda: exchange.now_ms() > exchange.calls(POST)[-1].time_ms + 2000, 5, lambda: "the pause never ends")
    third, fourth = live.post(**alert), live.post(**alert)
    assert (third.status, third["decision"], third["status"]) == (200, "ACCEPTED", "FILLED")
    assert (fourth["decision"], fourth["status"]) == ("DUPLICATE", "FILLED")
    assert len(exchange.orders) == already + 1
    assert [call for call in exchange.requests if call.banned] == []
    assert counts(live) == {"trades_today": 1, "open_trades": 1 - already}


def test_a_pause_that_a_question_brought_on_keeps_orders_in_too(live: Daemon, exchange: FakeBinance) -> None:
    get_to_know(live, "BTCUSDT")
    exchange.fail_next("ban", where="GET /api/v3/exchangeInfo", status=429, retry_after=3)
    assert live.post(symbol="SOLUSDT", action="buy")["check"] == "symbol"
    reply = live.post(symbol="BTCUSDT", action="buy")
    assert (reply.status, reply["decision"], exchange.calls(POST)) == (503, None, [])
    assert "BINANCE asked for a pause" in reply["reason"]
    assert live.owner_get("/status")["brokers"]["BINANCE"]["pause_seconds"] > 1
    assert [call for call in exchange.requests if call.banned] == []


@pytest.mark.parametrize("restarted", [False, True])
def test_during_a_pause_an_entry_is_answered_503_whether_the_process_is_the_one_that_was_told_or_its_successor(
    daemon_with: Callable[..., Daemon], exchange: FakeBinance, restarted: bool
) -> None:
    settings = {"cooldown_seconds": 0, "test_market": EAGER | {"BALANCE_MAX_AGE": 1.0}}
    live = daemon_with(**binance(exchange, **settings)).start()
    live.post(symbol="ETHUSDT", action="buy")
    get_to_know(live, "BTCUSDT")
    exchange.fail_next("ban", where="GET /api/v3/account", status=418, retry_after=4)
    eventually(lambda: live.owner_get("/status")["brokers"]["BINANCE"]["pause_seconds"] > 1, 5, lambda: "no ban")
    # What was on its way already when the ban was told is nobody's fault.
    began, before = time.monotonic(), len(exchange.requests)
    if restarted:
        # What a process was told in its last milliseconds, its successor cannot know.
        eventually(lambda: (live.folder / "logs" / "pauses.json").exists(), 5, lambda: "the ban is not kept")
        live.kill()
        live.start(wait=False).wait_until_listening()
        live.wait_until_ready()
    else:
        # Longer than a balance is believed: what is known of the account tells nothing any more.
        time.sleep(max(0.0, began + 1.2 - time.monotonic()))
    rows = len(live.signals())
    reply = live.post(symbol="BTCUSDT", action="buy")
    assert (reply.status, reply["decision"], reply["success"]) == (503, None, False), reply.body
    assert reply["error"].startswith("BINANCE asked for a pause of ")
    assert reply["error"].endswith("nothing was placed; send it again")
    way_out = live.post(symbol="ETHUSDT", action="sell")
    assert (way_out.status, way_out["status"]) == (503, "NOT_PLACED"), way_out.body
    assert len(live.signals()) == rows + 1, "the way out was decided"
    assert [call for call in exchange.requests[before:] if call.banned] == []
    eventually(lambda: live.owner_get("/status")["brokers"]["BINANCE"]["pause_seconds"] == 0, 8, lambda: "no end")
    assert live.post(symbol="BTCUSDT", action="buy")["status"] == "FILLED"
    assert live.post(symbol="ETHUSDT", action="sell")["status"] == "FILLED"


# --- the clock --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-8, 8])
@pytest.mark.parametrize("action", ["buy", "sell"])
def test_when_the_clocks_drifted_apart_they_are_compared_and_the_order_is_placed_once(
    live: Daemon, exchange: FakeBinance, seconds: int, action: str
) -> None:
    if action == "sell":
        live.post(symbol="BTCUSDT", action="buy")
    get_to_know(live, "BTCUSDT")
    before = len(exchange.orders)
    exchange.clock = lambda: time.time() + seconds
    replies = [live.post(symbol="BTCUSDT", action=action, strategy="drift") for _ in range(SENDINGS)]
    assert [reply["status"] for reply in replies] == ["FILLED"] * SENDINGS
    assert [call.code for call in exchange.calls(POST)[before:]] == [-1021, None]
    assert len(exchange.orders) == before + 1


def test_an_exchange_that_never_agrees_on_the_time_is_not_flooded(live: Daemon, exchange: FakeBinance) -> None:
    exchange.fail_next("error", code=-1021, times=NEVER)
    reply = live.post(symbol="BTCUSDT", action="buy")
    assert (reply.status, reply["status"], reply["success"]) == (503, "NOT_PLACED", False)
    assert reply.seconds <= REPLY_SECONDS
    assert 2 <= len(exchange.calls(POST)) <= 20
    assert counts(live) == {"trades_today": 0, "open_trades": 0}


def test_a_clock_that_jumped_while_nothing_was_traded_is_noticed_before_the_next_alert(
    daemon_with: Callable[..., Daemon], exchange: FakeBinance
) -> None:
    daemon_with(**binance(exchange, test_market=EAGER)).start()
    exchange.clock = lambda: time.time() + 8
    asked = len(exchange.calls("GET /api/v3/account"))
    eventually(lambda: len(exchange.calls("GET /api/v3/account")) > asked, 6, lambda: "the account is not looked at")
    eventually(lambda: exchange.calls("GET /api/v3/account")[-1].status == 200, 6, lambda: "the clock is still wrong")


# --- refused, and never sent ------------------------------------------------------------------------------------------


def test_a_balance_that_went_elsewhere_is_refused_by_the_exchange_itself(live: Daemon, exchange: FakeBinance) -> None:
    live.post(symbol="ETHUSDT", action="buy")
    eventually(lambda: live.owner_get("/status")["balances"]["BINANCE"]["USDT"]["free"] < 1000, 5, lambda: "no refresh")
    exchange.set_balance("USDT", 1)
    reply = live.post(symbol="BTCUSDT", action="buy")
    assert (reply.status, reply["decision"], reply["status"], reply["success"]) == (200, "ACCEPTED", "REJECTED", False)
    assert reply["error"] == "BINANCE refused: Account has insufficient balance for requested action. (-2010)"
    assert live.trades()[-1]["Note"] == reply["error"]
    assert counts(live) == {"trades_today": 1, "open_trades": 1}
    assert live.post(symbol="BTCUSDT", action="buy")["decision"] == "DUPLICATE"
    assert len(exchange.calls(POST)) == 2


@pytest.mark.parametrize("action", ["buy", "sell"])
def test_an_exchange_that_cannot_be_reached_answers_503_and_the_resend_is_a_new_try(
    live: Daemon, exchange: FakeBinance, action: str
) -> None:
    get_to_know(live, "BTCUSDT")
    if action == "sell":
        live.post(symbol="BTCUSDT", action="buy")
    before = len(exchange.orders)
    alert: dict[str, Any] = {"symbol": "BTCUSDT", "action": action, "strategy": "offline"}
    exchange.go_offline()
    reply = live.post(**alert)
    assert (reply.status, reply["decision"]) == (503, "ACCEPTED")
    assert (reply["success"], reply["status"]) == (False, "NOT_PLACED")
    assert "no connection to BINANCE" in reply["reason"]
    assert reply.seconds <= REPLY_SECONDS
    assert counts(live) == {"trades_today": before, "open_trades": before}
    exchange.come_online()
    filled, repeated = live.post(**alert), live.post(**alert)
    assert (filled.status, filled["status"], repeated["decision"]) == (200, "FILLED", "DUPLICATE")
    assert len(exchange.orders) == before + 1
    assert set(exchange.posts_by_client_id.values()) == {1}
    told = [row["Status"] for row in live.trades()][before:]
    assert told == ["NOT_PLACED", "FILLED"]
    assert counts(live) == {"trades_today": 1, "open_trades": 1 - before}
    assert_csvs_equal_journal(live)


def test_an_exchange_that_comes_back_within_a_moment_gets_the_order(live: Daemon, exchange: FakeBinance) -> None:
    get_to_know(live, "BTCUSDT")
    exchange.go_offline()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(live.post, symbol="BTCUSDT", action="buy")
        eventually(lambda: bool(live.orders_without_ending()), 1, lambda: "no order is under way")
        exchange.come_online()
        reply = answer.result()
    assert (reply.status, reply["status"], len(exchange.orders)) == (200, "FILLED", 1)


def test_an_exit_whose_sender_was_told_pending_is_not_given_up_when_it_cannot_leave_at_once(
    live: Daemon, exchange: FakeBinance
) -> None:
    live.post(symbol="BTCUSDT", action="buy")
    lose_the_reply(exchange, executed=True)
    let_look_ups_fail(exchange)
    unknown_order(live, symbol="BTCUSDT", action="buy", strategy="second")
    leave = live.post(symbol="BTCUSDT", action="sell")
    assert (leave.status, leave["status"]) == (202, "PENDING")
    exchange.clear_faults()
    exchange.fail_next("ban", where=POST, status=429, retry_after=2)
    live.wait_until_settled()
    eventually(lambda: len(exchange.orders) == 3, 3, lambda: f"never sold: {live.trades()[-1]}")


# --- with the real constants ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class LongWait:
    daemon: Daemon
    exchange: FakeBinance
    first: Reply


@pytest.fixture(scope="module")
def long_wait(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LongWait]:
    """An order that never arrives. Its wait is the real one, so it passes while the other tests run."""
    folder = tmp_path_factory.mktemp("long_wait")
    with FakeBinance(API_KEY, API_SECRET, balances={"USDT": 1000}) as exchange:
        settings = binance(exchange) | {"test_absence_seconds": None, "test_patience": None}
        daemon = Daemon(nursery, folder, **settings).start()
        lose_the_reply(exchange, executed=False)
        try:
            yield LongWait(daemon, exchange, daemon.post(symbol="BTCUSDT", action="buy"))
        finally:
            daemon.kill()


def test_an_order_that_never_arrived_is_called_not_placed_only_when_it_cannot_arrive_any_more(
    long_wait: LongWait,
) -> None:
    daemon, exchange = long_wait.daemon, long_wait.exchange
    assert (long_wait.first.status, long_wait.first["status"]) == (202, "PENDING")
    daemon.wait_until_settled(25)
    (post,) = exchange.calls(POST)
    # Much later it looks once more whether the order turned up after all.
    looks = [call for call in exchange.calls(LOOK_UP) if call.time_ms - post.time_ms < 25_000]
    assert [call.code for call in looks[-3:]] == [-2013] * 3
    assert 15_000 <= looks[-1].time_ms - post.time_ms <= 18_000
    assert [row["Status"] for row in daemon.trades()] == ["UNKNOWN", "NOT_PLACED"]
    assert 15_000 <= int(daemon.trades()[-1]["LatencyMs"]) <= 18_000
    assert counts(daemon) == {"trades_today": 0, "open_trades": 0}


# --- helpers ----------------------------------------------------------------------------------------------------------


class Editing(FakeBinance):
    """Changes what the next order's reply says; the order itself is as it should be."""

    edit: Callable[[dict[str, Any]], object] | None = None

    def __enter__(self) -> Editing:
        self.set_price("BTCUSDT", 43000)
        super().__enter__()
        return self

    def _answer(self, request: RawRequest, call: Call, **delays: float) -> WireReply:
        reply = super()._answer(request, call, **delays)
        if self.edit is None or f"{call.method} {call.path}" != POST:
            return reply
        edit, self.edit = self.edit, None
        content = json.loads(reply.body)
        edit(content)
        return replace(reply, body=json.dumps(content).encode())


def get_to_know(daemon: Daemon, symbol: str) -> None:
    """The daemon asks for the rules of a symbol that it sees for the first time; a dry run is enough."""
    assert daemon.post("/webhook?dry_run=true", symbol=symbol, action="buy")["decision"] == "ACCEPTED"


def lose_the_reply(exchange: FakeBinance, *, executed: bool) -> None:
    exchange.fail_next("close", executed=executed)


def unknown_order(daemon: Daemon, **alert: object) -> Future[Reply]:
    """Sends the alert and comes back as soon as nobody knows what became of its order; the reply follows."""
    pool = ThreadPoolExecutor(1)
    waiting = pool.submit(lambda: daemon.post(**alert))  # type: ignore[arg-type]
    pool.shutdown(wait=False)
    eventually(
        lambda: "UNKNOWN" in [order["status"] for order in daemon.orders_without_ending()],
        2,
        lambda: "the outcome is known",
    )
    return waiting


def let_look_ups_fail(exchange: FakeBinance) -> None:
    exchange.fail_next("status", where=LOOK_UP, status=503, times=NEVER)


def counts(daemon: Daemon) -> dict[str, int]:
    status = daemon.owner_get("/status")
    return {name: status[name] for name in ("trades_today", "open_trades")}


def statuses(daemon: Daemon, symbol: str = "") -> dict[str, str]:
    """Client order id -> status, of every order."""
    found = daemon.owner_get("/executions" + (f"?symbol={symbol}" if symbol else ""))["executions"]
    return {order["client_order_id"]: order["status"] for order in found}


def dec(value: object) -> Decimal:
    return Decimal(str(value))
