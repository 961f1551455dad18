"""What must hold after every fault, whatever it was: counted at the exchange, in the files and in the replies.

Never what the daemon believes of itself is counted, but what is there: orders, rows, bytes.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from http.client import HTTPException
from typing import Any

from fake_binance import FakeBinance
from fake_rest import Call
from harness import API_KEY, API_SECRET, SECRET, Daemon, Reply, assert_csvs_equal_journal, eventually

ENDINGS = {"FILLED", "CANCELED", "EXPIRED", "REJECTED", "NOT_PLACED"}
STEP = Decimal("0.00001")  # of BTCUSDT, whose rules the made-up symbols have
STEPS = {"ETHUSDT": Decimal("0.0001")}
PLACES = {"POST /api/v3/order", "POST /fapi/v1/order", "POST /fapi/v1/algoOrder", "POST /api/v3/orderList/oco"}
CLOCK_WAS_WRONG = -1021


@dataclass
class Sent:
    """Every request that was sent to one data folder's daemons: with its answer, or cut off without one."""

    answered: list[tuple[bytes, Reply]] = field(default_factory=list)
    unanswered: list[bytes] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def post(self, daemon: Daemon, path: str = "/webhook", timeout: float = 10, **alert: object) -> Reply | None:
        return self.post_raw(daemon, json.dumps({"secret": SECRET, **alert}).encode(), path, timeout)

    def post_raw(self, daemon: Daemon, body: bytes, path: str = "/webhook", timeout: float = 10) -> Reply | None:
        """None when the process, or the connection, ended before there was an answer."""
        try:
            reply = daemon.post_raw(body, path, timeout)
        except (OSError, HTTPException, ValueError):
            self.give_up(body)
            return None
        with self._lock:
            self.answered.append((body, reply))
        return reply

    def give_up(self, body: bytes) -> None:
        """It was sent, and nobody heard what became of it."""
        with self._lock:
            self.unanswered.append(body)

    @property
    def replies(self) -> list[Reply]:
        return [reply for _, reply in self.answered]


def assert_global_counts(daemon: Daemon, fake: FakeBinance, sent: Sent) -> None:
    """I1 to I8, of a daemon that is up again and has no order left whose outcome it does not know."""
    assert_one_order_per_intent(daemon, fake, sent)  # I1, I2
    assert_records_are_whole(daemon, sent)  # I3, I4, I5
    assert_only_what_was_approved_left(daemon, fake)  # I6
    assert_no_secret_is_anywhere(daemon, sent)  # I7
    assert_books_equal_the_exchange(daemon, fake)  # I8


def assert_one_order_per_intent(daemon: Daemon, fake: FakeBinance, sent: Sent) -> None:
    assert doubled(daemon, fake, sent) == []
    posts = Counter(call.client_id for call in posted(fake) if may_have_arrived(call))
    assert {client_id: count for client_id, count in posts.items() if count > 1} == {}, "sent twice"


def doubled(daemon: Daemon, fake: FakeBinance, sent: Sent) -> list[str]:
    """Intents, decisions and alerts that became more than one order."""
    intents = [str(each) for each, count in fake.orders_by_client_id.items() if count > 1]
    signal_of = {row["ClientOrderID"]: row["SignalID"] for row in daemon.trades()}
    there = Counter(signal_of.get(order.client_id, "") for order in fake.orders)
    signals = [signal for signal, count in there.items() if signal and count > 1]
    accepted = {(body, reply["signal_id"]) for body, reply in sent.answered if reply.body.get("decision") == "ACCEPTED"}
    bodies = Counter(body for body, signal in accepted if there[signal])
    return intents + signals + [str(body) for body, count in bodies.items() if count > 1]


def posted(fake: FakeBinance) -> list[Call]:
    return [call for call in fake.requests if f"{call.method} {call.path}" in PLACES]


def may_have_arrived(call: Call) -> bool:
    """Not what the exchange certainly turned away at the door: told to wait, or signed by a wrong clock."""
    return call.status not in (418, 429) and call.code != CLOCK_WAS_WRONG


def is_too_early(reply: Reply) -> bool:
    return reply.status == 202 or reply.body["error"] == "no time to decide; send it again"


def assert_records_are_whole(daemon: Daemon, sent: Sent) -> None:
    """Every answered request has its one row, every intent its one ending, and both files are the journal."""
    assert_csvs_equal_journal(daemon)
    assert_no_number_is_missing(daemon)
    signals, trades = daemon.signals(), daemon.trades()
    rows = Counter(row["SignalID"] for row in signals)
    assert set(rows.values()) <= {1}
    answered = signals_answered(sent)
    assert set(answered.values()) <= {1}
    assert rows_lost(daemon, sent) == [], "an answered request has no row"
    owners = sum(row["Strategy"] == "close-all" for row in signals)
    # Who was answered before the disk had taken the decision was not told its id.
    nameless = sum(not r.body.get("signal_id") and is_too_early(r) for r in sent.replies)
    assert len(rows) - len(answered) - owners <= len(sent.unanswered) + nameless, "a row that nobody asked for"
    accepted = {row["SignalID"] for row in signals if row["Decision"] == "ACCEPTED"}
    assert accepted == {row["SignalID"] for row in trades}
    endings = Counter(row["ClientOrderID"] for row in trades if row["Status"] in ENDINGS)
    assert endings == dict.fromkeys((row["ClientOrderID"] for row in trades), 1), "an intent without its one ending"
    for table in (signals, trades):
        assert all(row.keys() == table[0].keys() and None not in row.values() for row in table)


def signals_answered(sent: Sent) -> Counter[str]:
    return Counter(reply["signal_id"] for reply in sent.replies if reply.body.get("signal_id"))


def rows_lost(daemon: Daemon, sent: Sent) -> list[str]:
    """Decisions that somebody was told of and that have no row."""
    rows = {row["SignalID"] for row in daemon.signals()}
    return sorted(signals_answered(sent).keys() - rows)


def assert_no_number_is_missing(daemon: Daemon) -> None:
    with sqlite3.connect(f"file:{daemon.folder / 'logs' / 'journal.db'}?mode=ro", uri=True) as journal:
        for query in ("SELECT seq FROM events", "SELECT number FROM csv_rows WHERE file = 'signals'",
                      "SELECT number FROM csv_rows WHERE file = 'trades'"):  # fmt: skip
            numbers = sorted(number for (number,) in journal.execute(query))
            assert numbers == list(range(1, len(numbers) + 1)), query


def assert_only_what_was_approved_left(daemon: Daemon, fake: FakeBinance) -> None:
    approved = {row["SignalID"] for row in daemon.signals() if row["Decision"] == "ACCEPTED"}
    of_approved = {row["ClientOrderID"] for row in daemon.trades() if row["SignalID"] in approved}
    assert {call.client_id or "" for call in posted(fake)} <= of_approved, "sent without an approval"
    assert {order.client_id for order in fake.orders} <= of_approved, "an order without an approval"


def assert_no_secret_is_anywhere(daemon: Daemon, sent: Sent) -> None:
    texts: dict[str, bytes] = {str(path): path.read_bytes() for path in daemon.folder.rglob("*") if path.is_file()}
    said: Iterable[Any] = ({"body": str(r.body), "headers": r.headers.items()} for r in sent.replies)
    texts["a reply"] = json.dumps(list(said)).encode()
    for name, content in texts.items():
        for secret in (SECRET, API_KEY, API_SECRET, "signature="):
            assert secret.encode() not in content, f"{secret} is in {name}"


def orders_lost(daemon: Daemon, fake: FakeBinance) -> list[str]:
    """Orders that the exchange has and the record does not, or that the record has and the exchange does not."""
    rows = {row["ClientOrderID"]: row["Status"] for row in daemon.trades() if row["Status"] in ENDINGS | {"NEW"}}
    placed = {client_id for client_id, status in rows.items() if status not in ("NOT_PLACED", "REJECTED")}
    return sorted(placed ^ {order.client_id for order in fake.orders})


def assert_books_equal_the_exchange(daemon: Daemon, fake: FakeBinance) -> None:
    """What was executed, what is held, and the counts that the limits go by."""
    assert orders_lost(daemon, fake) == []
    orders = {order.client_id: order for order in fake.orders}
    rows = {row["ClientOrderID"]: row for row in daemon.trades() if row["Status"] in ENDINGS}
    for client_id, order in orders.items():
        row = rows[client_id]
        assert (row["OrderID"].lstrip("'"), row["Status"]) == (str(order.order_id), order.status)
        assert Decimal(row["Quantity"]) == order.executed
        assert Decimal(row["TradeAmount"]) == order.quote_executed
    held = {symbol: net_of_fees(fake, symbol) for symbol in {order.symbol for order in orders.values()}}
    held = {symbol: quantity for symbol, quantity in held.items() if quantity >= step(symbol)}
    positions = daemon.owner_get("/positions")["positions"]
    assert {p["symbol"]: Decimal(str(p["quantity"])) for p in positions} == held
    status = daemon.owner_get("/status")
    today, day_of = daemon.today(), {row["SignalID"]: row["DateTime"][:10] for row in daemon.signals()}
    days = [day_of[rows[order.client_id]["SignalID"]] for order in orders.values() if order.side == "BUY"]
    assert status["trades_today"] == days.count(today)
    assert status["open_trades"] == sum(open_entries(fake, symbol) for symbol in held)
    # What came later than anybody believes was there before the books knew: shown until they are compared again.
    eventually(lambda: daemon.owner_get("/status")["drift"] == [], 8, daemon.log)


def step(symbol: str) -> Decimal:
    return STEPS.get(symbol, STEP)


def open_entries(fake: FakeBinance, symbol: str) -> int:
    """Entries since the symbol was sold out."""
    net, count = Decimal(0), 0
    for order in sorted(fake.orders, key=lambda order: order.order_id):
        if order.symbol == symbol and order.executed:
            net += order.executed if order.is_buy else -order.executed
            fees = sum(t.commission for t in fake.trades if t.order_id == order.order_id and order.is_buy)
            net, count = net - fees, count + order.is_buy
            count = 0 if net < step(symbol) else count
    return count


def net_of_fees(fake: FakeBinance, symbol: str) -> Decimal:
    """What the exchange gave and took of the base asset."""
    base, net = symbol.removesuffix("USDT"), Decimal(0)
    for trade in fake.trades:
        if trade.symbol == symbol:
            net += trade.quantity if trade.is_buyer else -trade.quantity
            net -= trade.commission if trade.commission_asset == base else 0
    return net
