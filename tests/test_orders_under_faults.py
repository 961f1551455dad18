"""What an exchange can do to an order, and what the daemon makes of it.

At most one order per alert, a true answer in time, and in the end one story everywhere: reply, journal, CSV, exchange.
The sender repeats every alert, byte for byte, as TradingView does after a 5xx; only the pauses are shorter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from fake_binance import FakeBinance
from fake_matching import Order, Trade
from fake_rest import Call
from harness import API_KEY, API_SECRET, Daemon, Nursery, Reply, assert_csvs_equal_journal, binance, eventually

POST = "POST /api/v3/order"
LOOK_UP = "GET /api/v3/order"
TRADES = "GET /api/v3/myTrades"

SENDINGS = 4  # the alert and three repeats
LONGEST_REPLY_SECONDS = 2.5
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
    "an unknown status": '{"symbol":"%s","clientOrderId":"%c","orderId":7,"status":"DONE","executedQty":"1",'
    '"cummulativeQuoteQty":"100","fills":[]}',
    "a quantity that is none": '{"symbol":"%s","clientOrderId":"%c","orderId":7,"status":"FILLED",'
    '"executedQty":"NaN","cummulativeQuoteQty":"100","fills":[]}',
    "fills that are no list": '{"symbol":"%s","clientOrderId":"%c","orderId":7,"status":"FILLED",'
    '"executedQty":"1","cummulativeQuoteQty":"100","fills":7}',
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
def stage(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
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
    with ThreadPoolExecutor(8) as pool:
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
    assert max(reply.seconds for reply in story.replies) <= LONGEST_REPLY_SECONDS
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


def test_refusals_are_told_in_the_words_of_the_exchange(stage: Stage) -> None:
    words = {"-1013": "Filter failure", "-2010": "NEW_ORDER_REJECTED", "-2015": "Invalid API-key"}
    for side in ("BUY", "SELL"):
        for code in words:
            story = stage.stories[f"{side} refused with {code}"]
            told = [reply["reason"] for reply in story.replies[:1]] + [story.rows[-1]["Note"]]
            sent = next(call for call in story.posts)
            assert sent.fault == "error"
            for text in told:
                assert f"({code})" in text
                assert "BINANCE refused: " in text


def dec(value: object) -> Decimal:
    return Decimal(str(value))
