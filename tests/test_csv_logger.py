"""The CSV files: every row is harmless and whole, and the file is the journal's whatever happens to it."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import shutil
import signal as signals
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from harness import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from csv_logger import CsvFile
from csv_rows import SIGNALS_COLUMNS, TRADES_COLUMNS, signal_row, trade_row
from models import (
    Action,
    Decision,
    DecisionRecord,
    Fee,
    Market,
    Order,
    OrderStatus,
    OrderType,
    Side,
    Signal,
    SymbolRules,
)

D = Decimal
ROOT = Path(__file__).resolve().parent.parent
NOON = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)
RULES = SymbolRules("BTCUSDT", "BTC", "USDT", D("0.00001"), D("0.00001"), price_tick=D("0.01"))


def a_signal(**changes: object) -> Signal:
    base = Signal(
        Action.BUY,
        "BTCUSDT",
        market=Market.SPOT,
        quantity=D("0.5"),
        price=D("60000.10"),
        confidence=D(75),
        strategy="trend",
        timeframe="1h",
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def an_order(**changes: object) -> Order:
    base = Order(
        client_order_id="gh_abc123",
        signal_id="s1",
        broker="BINANCE",
        market=Market.SPOT,
        symbol="BTCUSDT",
        side=Side.BUY,
        type=OrderType.MARKET,
        is_entry=True,
        rules=RULES,
        received_at=NOON,
        created_at=NOON,
        amount=D(10),
        strategy="trend",
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def a_record(**changes: object) -> DecisionRecord:
    base = DecisionRecord(
        signal_id="s1",
        key="k1",
        decided_at=NOON + timedelta(milliseconds=12),
        received_at=NOON,
        decision=Decision.ACCEPTED,
        check="",
        reason="All checks passed",
        signal=a_signal(),
        broker="BINANCE",
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def cells(line: str, columns: tuple[str, ...]) -> dict[str, str]:
    """Read back the way every CSV reader does."""
    assert line.endswith("\r\n")
    assert line.count("\n") == line.count("\r") == 1
    (row,) = csv.reader(io.StringIO(line, newline=""), strict=True)
    return dict(zip(columns, row, strict=True))


def signal_cells(**changes: object) -> dict[str, str]:
    return cells(signal_row(a_record(**changes)), SIGNALS_COLUMNS)


def trade_cells(**changes: object) -> dict[str, str]:
    return trade_cells_at(NOON, **changes)


def trade_cells_at(at: datetime, **changes: object) -> dict[str, str]:
    return cells(trade_row(an_order(**changes), at), TRADES_COLUMNS)


def strategy_cell(text: str) -> str:
    return signal_cells(signal=a_signal(strategy=text))["Strategy"]


# ------------------------------------------------------------------------------------------------------- rendering


def test_the_columns_are_the_promised_ones() -> None:
    assert ",".join(SIGNALS_COLUMNS) == (
        "DateTime,TradingPair,Action,Strategy,TimeFrame,Confidence,Decision,Reason,SignalID,"
        "Check,Broker,Market,OrderType,Quantity,Amount,Price,LatencyMs"
    )
    assert ",".join(TRADES_COLUMNS) == (
        "DateTime,TradingPair,Action,TradeAmount,Price,OrderID,Status,SignalID,ClientOrderID,"
        "Broker,Market,Strategy,Quantity,Fee,FeeAsset,RealizedPnL,LatencyMs,Note"
    )


def test_a_decision_without_an_order_shows_what_the_alert_said() -> None:
    assert signal_row(
        a_record(decision=Decision.REJECTED, check="cooldown", reason="Signal in cooldown, 7 s left")
    ) == (
        "2026-03-04 12:00:00,BTCUSDT,BUY,trend,1h,75,REJECTED,"
        '"Signal in cooldown, 7 s left",s1,cooldown,BINANCE,spot,MARKET,0.5,,60000.1,12\r\n'
    )


def test_a_decision_with_an_order_shows_the_order() -> None:
    order = an_order(market=Market.FUTURES, type=OrderType.LIMIT, quantity=D("0.25"), amount=None, price=D(59000))
    row = signal_cells(order=order)
    assert (row["Market"], row["OrderType"]) == ("futures", "LIMIT")
    assert (row["Quantity"], row["Amount"], row["Price"]) == ("0.25", "", "59000")


def test_a_market_order_is_shown_with_the_price_it_was_decided_at() -> None:
    row = signal_cells(order=an_order(reference_price=D("61000.5")))
    assert (row["Quantity"], row["Amount"], row["Price"]) == ("", "10", "61000.5")


def test_an_alert_that_was_not_understood_leaves_its_cells_empty() -> None:
    row = signal_cells(signal=None, decision=Decision.INVALID, reason="symbol is missing", broker="")
    filled = {name for name, value in row.items() if value}
    assert filled == {"DateTime", "Decision", "Reason", "SignalID", "LatencyMs"}


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        (NOON.replace(microsecond=999_999), "2026-03-04 12:00:00"),
        (datetime(2026, 3, 4, 1, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))), "2026-03-03 20:00:00"),
        (datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC), "2024-02-29 23:59:59"),
    ],
)
def test_times_are_utc_and_whole_seconds(at: datetime, shown: str) -> None:
    assert signal_cells(decided_at=at)["DateTime"] == shown
    assert trade_cells_at(at)["DateTime"] == shown


def test_latency_runs_from_the_alert_to_the_row_and_is_never_negative() -> None:
    assert trade_cells_at(NOON + timedelta(milliseconds=34.6))["LatencyMs"] == "35"
    assert trade_cells_at(NOON - timedelta(seconds=1))["LatencyMs"] == "0"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (D("NaN"), ""),
        (D("sNaN"), ""),
        (D("-Infinity"), ""),
        (D(0), "0"),
        (D("-0.00"), "0"),
        (D("0E+100"), "0"),
        (D("1E+3"), "1000"),
        (D("1E-8"), "0.00000001"),
        (D("0.00010000"), "0.0001"),
        (D("100"), "100"),
        (D("-12.50"), "-12.5"),
        (D("999999999999999"), "999999999999999"),
        (D("999999999999999.9999999999999999999"), "'1000000000000000"),
        (D("1234567890123456"), "'1234567890123456"),
        (D("1E-18"), "0.000000000000000001"),
        (D("1E-19"), "0"),
        (D("1E+63"), "'1" + "0" * 63),
        (D("1E+64"), ""),
        (D("1E+999999"), ""),
    ],
)
def test_numbers_are_plain_decimals(value: Decimal | None, shown: str) -> None:
    assert signal_cells(signal=a_signal(quantity=value))["Quantity"] == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ALSAPRO 1", "ALSAPRO 1"),
        ("  two   words ", "two words"),
        ("tab\tnewline\r\nend", "tab newline end"),
        ("line\u2028para\u2029nbsp\xa0end", "line para nbsp end"),
        ("bidi\u202e\u2066zero\u200b\u200d\ufeffwidth\x00\x7f\x85", "bidi zero width"),
        ("lone\ud800surrogate", "lone surrogate"),
        ('say "hi", friend', 'say "hi", friend'),
        ("a;=1+1", "a,=1+1"),
        ("a|b\uff5cc\uff1bd", "a/b/c,d"),
        ("Стратегия 戦略 مرحبا 🚀", "Стратегия 戦略 مرحبا 🚀"),
        ("=1+1", "'=1+1"),
        ("\t\u200b =1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("%x", "'%x"),
        ("|=1", "/=1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("\ufe62x", "'\ufe62x"),
        ("\u22121", "'\u22121"),
        ("'quoted", "''quoted"),
        ("\u00e9t\u00e9 = x", "\u00e9t\u00e9 = x"),
        ("123456789012345", "123456789012345"),
        ("1234567890123456", "'1234567890123456"),
        ("12e45678", "'12e45678"),
        ("1.5E+3", "'1.5E+3"),
        ("0", "0"),
        ("007", "'007"),
        ("0.5", "0.5"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 64),
        ("x" * 63 + " y", "x" * 63),
        ("", ""),
        (" \t ", ""),
    ],
)
def test_foreign_text_becomes_one_harmless_cell(text: str, shown: str) -> None:
    assert strategy_cell(text) == shown


def test_every_text_of_an_alert_goes_through_the_text_rule() -> None:
    evil = "=cmd|'/c calc'!A1"
    alert = a_signal(symbol=evil, strategy=evil, timeframe=evil)
    row = signal_cells(signal=alert, reason=evil, signal_id=evil, check=evil, broker=evil)
    guarded = {"TradingPair", "Strategy", "TimeFrame", "Reason", "SignalID", "Check", "Broker"}
    assert {name for name, value in row.items() if value.startswith("'=cmd/")} == guarded
    order = an_order(symbol=evil, signal_id=evil, client_order_id=evil, broker=evil, strategy=evil, note=evil)
    order = replace(order, exchange_order_id=evil, fees=(Fee(evil, D(1)),))
    trade = cells(trade_row(order, NOON), TRADES_COLUMNS)
    guarded = {"TradingPair", "SignalID", "ClientOrderID", "Broker", "Strategy", "Note", "OrderID", "FeeAsset"}
    assert {name for name, value in trade.items() if value.startswith("'=cmd/")} == guarded


def test_a_long_reason_and_a_long_time_frame_are_cut() -> None:
    row = signal_cells(reason="r" * 201, signal=a_signal(timeframe="1" + "d" * 12))
    assert row["Reason"] == "r" * 200
    assert row["TimeFrame"] == "1" + "d" * 11


def test_an_executed_order_shows_what_was_executed() -> None:
    row = trade_cells(
        status=OrderStatus.FILLED,
        executed_quantity=D("0.00016"),
        executed_quote=D("9.99800000"),
        exchange_order_id="123456789012345",
        fees=(Fee("BNB", D("0.001")), Fee("BNB", D("0.0005"))),
        realized_pnl=D("-1.25"),
        note="ok",
    )
    assert (row["Action"], row["Status"], row["TradeAmount"]) == ("BUY", "FILLED", "9.998")
    assert (row["Price"], row["Quantity"]) == ("62487.5", "0.00016")
    assert (row["Fee"], row["FeeAsset"], row["RealizedPnL"], row["Note"]) == ("0.0015", "BNB", "-1.25", "ok")
    assert row["OrderID"] == "123456789012345"


def test_a_partly_executed_and_ended_order_shows_the_part() -> None:
    row = trade_cells(status=OrderStatus.EXPIRED, executed_quantity=D("2"), executed_quote=D("3"), quantity=D("9"))
    assert (row["TradeAmount"], row["Price"], row["Quantity"]) == ("3", "1.5", "2")


@pytest.mark.parametrize("status", [OrderStatus.REJECTED, OrderStatus.NOT_PLACED, OrderStatus.CANCELED])
def test_an_order_that_ended_without_execution_moved_nothing(status: OrderStatus) -> None:
    row = trade_cells(status=status, quantity=D(1), price=D(5))
    assert (row["TradeAmount"], row["Price"], row["Quantity"]) == ("0", "", "0")


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"amount": D("10.50")}, ("10.5", "", "")),
        ({"amount": None, "quantity": D("0.5"), "price": D("100.10")}, ("50.05", "100.1", "0.5")),
        ({"amount": None, "quantity": D("0.5")}, ("", "", "0.5")),
        ({"amount": None}, ("", "", "")),
        ({"amount": None, "quantity": D("9E+999999"), "price": D("9E+999999")}, ("", "", "")),
    ],
)
@pytest.mark.parametrize("status", [OrderStatus.SENT, OrderStatus.UNKNOWN, OrderStatus.NEW])
def test_an_open_order_without_execution_shows_what_was_asked_for(
    status: OrderStatus, changes: dict[str, object], shown: tuple[str, str, str]
) -> None:
    row = trade_cells(status=status, **changes)
    assert (row["TradeAmount"], row["Price"], row["Quantity"]) == shown


def test_what_the_broker_did_not_say_stays_empty() -> None:
    row = trade_cells(status=OrderStatus.FILLED, executed_quantity=D(10))
    assert (row["TradeAmount"], row["Price"], row["Quantity"]) == ("", "", "10")
    assert (row["Fee"], row["FeeAsset"], row["RealizedPnL"]) == ("", "", "")


@pytest.mark.parametrize(
    ("quantity", "quote", "tick", "price"),
    [
        (D(3), D(10), "0.01", "3.33333333"),
        (D(3), D(20), "0.01", "6.66666667"),
        (D(3), D("1000000000"), "0.01", "333333333.333333"),
        (D(1), D("0.000000004"), "0.00000001", "0"),
        (D(1), D("0.000000004"), "0.0000000001", "0.000000004"),
        (D("3E+9"), D("1"), "0.000000000001", "0.000000000333"),
    ],
)
def test_a_computed_price_has_8_decimals_and_15_digits_unless_the_exchange_quotes_finer(
    quantity: Decimal, quote: Decimal, tick: str, price: str
) -> None:
    rules = replace(RULES, price_tick=D(tick))
    assert trade_cells(rules=rules, executed_quantity=quantity, executed_quote=quote)["Price"] == price


def test_fees_in_several_assets_are_spelled_out_because_they_have_no_sum() -> None:
    fees = (Fee("BNB", D("0.0010")), Fee("BTC", D("1E-7")), Fee("BNB", D("0.0010")))
    row = trade_cells(status=OrderStatus.FILLED, executed_quantity=D(1), executed_quote=D(1), fees=fees, note="late")
    assert (row["Fee"], row["FeeAsset"]) == ("", "")
    assert row["Note"] == "Fees: 0.002 BNB, 0.0000001 BTC. late"
    worth = (Fee("BNB", D("0.002"), D("1.2")), Fee("BTC", D("1E-7")))
    row = trade_cells(status=OrderStatus.FILLED, executed_quantity=D(1), executed_quote=D(1), fees=worth, note="late")
    assert row["Note"] == "Fees: 0.002 BNB (1.2 USDT), 0.0000001 BTC. late"


def test_what_a_fee_in_another_coin_was_worth_stands_in_the_note() -> None:
    worth = (Fee("BNB", D("0.002"), D("1.2")),)
    row = trade_cells(status=OrderStatus.FILLED, executed_quantity=D(1), executed_quote=D(1), fees=worth, note="late")
    assert (row["Fee"], row["FeeAsset"], row["Note"]) == ("0.002", "BNB", "fee worth 1.2 USDT, late")


@pytest.mark.parametrize(
    ("order_id", "shown"),
    [
        ("999999999999999", "999999999999999"),
        ("8389765493212345678", "'8389765493212345678"),
        ("", ""),
    ],
)
def test_long_order_ids_keep_their_digits(order_id: str, shown: str) -> None:
    assert trade_cells(exchange_order_id=order_id)["OrderID"] == shown


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=80)
NASTY = st.builds(
    "".join,
    st.lists(st.sampled_from(["=", "+1", "-", "@", "%", "|", ";", "\t", "\r\n", '"', "'", ",", "\u202e", "\u200b",
                              "\ufeff", "\ud83d", "\uff1d", "\u2028", " ", "x", "1234567890123456", "é"])),
)  # fmt: skip
TEXT = ANY_TEXT | NASTY
NUMBER = st.none() | st.decimals() | st.decimals(-(10**9), 10**9, places=8)
PLAIN_NUMBER = re.compile(r"(-?\d{1,15}(\.\d{1,18})?|'-?\d{16,64}(\.\d{1,18})?|)")


def assert_harmless(line: str, columns: tuple[str, ...], numeric: set[str]) -> None:
    row = cells(line, columns)
    assert len(line.splitlines()) == 1
    assert not set(line) & set(";|\t\x00\ufeff")
    line.encode()
    for name, cell in row.items():
        if name in numeric:
            assert PLAIN_NUMBER.fullmatch(cell), (name, cell)
        else:
            assert not cell.startswith(tuple("=+-@|%\uff1d\uff0b\uff0d\uff20 ")), (name, cell)
            assert not re.fullmatch(r"\d{16,}", cell)


@given(TEXT, TEXT, TEXT, TEXT, NUMBER, NUMBER, NUMBER)
@settings(max_examples=examples(70), deadline=None)
def test_no_alert_can_break_a_line_or_start_a_formula_in_signals(
    symbol: str, strategy: str, timeframe: str, reason: str, a: Decimal | None, b: Decimal | None, c: Decimal | None
) -> None:
    signal = a_signal(
        symbol=symbol, strategy=strategy, timeframe=timeframe, quantity=a, amount=b, price=c, confidence=a
    )
    line = signal_row(a_record(signal=signal, reason=reason, signal_id=strategy, check=symbol, broker=timeframe))
    assert_harmless(line, SIGNALS_COLUMNS, {"Quantity", "Amount", "Price", "Confidence", "LatencyMs"})


@given(TEXT, TEXT, TEXT, NUMBER, NUMBER, NUMBER, st.sampled_from(OrderStatus))
@settings(max_examples=examples(70), deadline=None)
def test_no_order_can_break_a_line_or_start_a_formula_in_trades(
    note: str, order_id: str, asset: str, a: Decimal | None, b: Decimal | None, c: Decimal | None, status: OrderStatus
) -> None:
    order = an_order(
        note=note, exchange_order_id=order_id, fees=(Fee(asset, D(1)), Fee("BNB", D(1))), status=status,
        quantity=a, amount=b, price=c, realized_pnl=a,
    )  # fmt: skip
    assert_harmless(
        trade_row(order, NOON), TRADES_COLUMNS, {"TradeAmount", "Price", "Quantity", "Fee", "RealizedPnL", "LatencyMs"}
    )


@given(TEXT.filter(lambda text: text.isprintable() and not set(text) & set(";|\uff1b\uff5c\u037e")))
@settings(max_examples=examples(70), deadline=None)
def test_the_leading_apostrophe_can_be_taken_off_again(text: str) -> None:
    clean = " ".join(text.split())[:64].rstrip()
    shown = strategy_cell(text)
    assert (shown[1:] if shown.startswith("'") else shown) == clean


# ------------------------------------------------------------------------------------------------------- the file

COLUMNS = ("DateTime", "Name")
HEADER = b"\xef\xbb\xbfDateTime,Name\r\n"


def row_text(number: int) -> str:
    return f"2026-03-04 12:00:00,row é {number}\r\n"


class Rows:
    """A journal: its rows, given out in batches."""

    def __init__(self, count: int = 0, batch: int = 3) -> None:
        self.lines = [row_text(n) for n in range(1, count + 1)]
        self.batch = batch
        self.error: Exception | None = None
        self.asked: list[int] = []

    def add(self, count: int = 1) -> None:
        self.lines += [row_text(n) for n in range(len(self.lines) + 1, len(self.lines) + count + 1)]

    def after(self, number: int) -> Sequence[tuple[int, str]]:
        self.asked.append(number)
        if self.error:
            raise self.error
        return list(enumerate(self.lines[number : number + self.batch], number + 1))

    def last(self) -> int:
        return len(self.lines)

    def content(self, first: int = 1, last: int | None = None) -> bytes:
        return HEADER + "".join(self.lines[first - 1 : last]).encode()


def a_file(path: Path, rows: Rows, max_rows: int = 1_000_000) -> CsvFile:
    return CsvFile(path, COLUMNS, rows.after, lambda: NOON, rows.last, max_rows)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def edited(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in names(folder) if ".edited-" in name]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "signals.csv"


@pytest.fixture
def rows() -> Rows:
    return Rows(7)


@pytest.fixture
def file(path: Path, rows: Rows) -> CsvFile:
    opened = a_file(path, rows)
    opened.open()
    return opened


def assert_equal(file: CsvFile, path: Path, rows: Rows) -> None:
    assert path.read_bytes() == rows.content()
    assert (file.lag, file.problem) == (0, "")


def test_a_missing_file_is_made_for_its_owner_alone(path: Path, rows: Rows) -> None:
    file = a_file(path, rows)
    assert file.lag == 7
    file.open()
    assert_equal(file, path, rows)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_new_file_without_rows_has_its_header(path: Path) -> None:
    rows = Rows()
    file = a_file(path, rows)
    file.open()
    assert_equal(file, path, rows)


def test_catching_up_appends_what_is_new_and_touches_nothing_else(file: CsvFile, path: Path, rows: Rows) -> None:
    inode = path.stat().st_ino
    rows.add(4)
    assert file.lag == 4
    file.catch_up()
    assert_equal(file, path, rows)
    assert path.stat().st_ino == inode
    assert names(path.parent) == ["signals.csv"]


def test_catching_up_works_without_having_been_opened(path: Path, rows: Rows) -> None:
    file = a_file(path, rows)
    file.catch_up()
    assert_equal(file, path, rows)


def test_new_rows_leave_in_one_write(file: CsvFile, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    real = os.write

    def watched(fd: int, data: bytes) -> int:
        writes.append(data)
        return real(fd, data)

    monkeypatch.setattr(os, "write", watched)
    rows.add(3)
    file.catch_up()
    assert writes == ["".join(rows.lines[7:]).encode()]


def test_who_follows_when_all_is_written_does_not_touch_the_file(
    file: CsvFile, path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(b"theirs")
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", None)
        file.follow()
    assert path.read_bytes() == b"theirs"
    rows.add()
    file.follow()
    assert_equal(file, path, rows)
    assert edited(path.parent) == [b"theirs"]


def test_who_follows_after_a_failed_write_tries_again(
    file: CsvFile, path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.add()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", None)
        file.follow()
    assert (file.lag, bool(file.problem)) == (1, True)
    file.follow()
    assert_equal(file, path, rows)


def test_a_file_that_is_as_it_was_left_is_not_compared_again(file: CsvFile, rows: Rows) -> None:
    rows.asked.clear()
    file.catch_up()
    assert rows.asked == [7]


@pytest.mark.parametrize("kept", range(len(Rows(3).content()) + 1))
def test_a_file_torn_at_any_byte_is_completed(tmp_path: Path, kept: int) -> None:
    path, rows = tmp_path / "signals.csv", Rows(3)
    path.write_bytes(rows.content()[:kept])
    file = a_file(path, rows)
    file.open()
    assert_equal(file, path, rows)
    assert names(tmp_path) == ["signals.csv"]


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "a changed cell": lambda b: b.replace("é 2".encode(), "é 9".encode()),
    "a changed last row": lambda b: b.replace("é 7\r".encode(), "é 8\r".encode()),
    "the byte order mark gone": lambda b: b[3:],
    "another header": lambda b: b.replace(b"Name", b"Nome"),
    "no header": lambda b: b[len(HEADER) :],
    "unix line ends": lambda b: b.replace(b"\r\n", b"\n"),
    "a row removed": lambda b: b.replace(row_text(3).encode(), b""),
    "a row doubled": lambda b: b.replace(row_text(3).encode(), row_text(3).encode() * 2),
    "the last row doubled": lambda b: b + row_text(7).encode(),
    "a note at the end": lambda b: b + b"my note",
    "zeros at the end": lambda b: b[:-5] + bytes(5),
    "something else": lambda _: b"PK\x03\x04 a workbook",
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("running", [False, True])
def test_a_changed_file_is_kept_aside_and_written_anew(
    file: CsvFile, path: Path, rows: Rows, change: Callable[[bytes], bytes], running: bool
) -> None:
    theirs = change(path.read_bytes())
    path.write_bytes(theirs)
    if running:
        os.utime(path, ns=(1, 1))  # nobody edits within the same tick of the file system's clock
        file.catch_up()
    else:
        file = a_file(path, rows)
        file.open()
    assert_equal(file, path, rows)
    assert names(path.parent) == ["signals.csv", "signals.edited-20260304T120000Z.csv"]
    assert edited(path.parent) == [theirs]


def test_a_file_saved_over_twice_keeps_both_versions_and_every_row(file: CsvFile, path: Path, rows: Rows) -> None:
    saved: list[bytes] = []
    for note in (b"first", b"second"):
        # As LibreOffice does it: read, lose the mark and the line ends, write a new file, rename it over ours.
        opened = path.read_bytes()
        rows.add()
        file.catch_up()
        saved.append(opened[3:].replace(b"\r\n", b"\n") + note)
        draft = path.with_suffix(".tmp")
        draft.write_bytes(saved[-1])
        os.replace(draft, path)
        rows.add()
        file.catch_up()
        assert_equal(file, path, rows)
    assert edited(path.parent) == [saved[1], saved[0]]  # in the order of their names: "-2" sorts before "."
    assert "signals.edited-20260304T120000Z-2.csv" in names(path.parent)


def test_a_file_that_was_only_touched_or_copied_is_not_kept_aside(file: CsvFile, path: Path, rows: Rows) -> None:
    os.utime(path)
    shutil.copy(path, path.with_suffix(".copy"))
    os.replace(path.with_suffix(".copy"), path)
    rows.add()
    file.catch_up()
    assert_equal(file, path, rows)
    assert edited(path.parent) == []


@pytest.mark.parametrize("running", [False, True])
def test_a_directory_in_the_files_place_is_moved_aside(file: CsvFile, path: Path, rows: Rows, running: bool) -> None:
    path.unlink()
    path.mkdir()
    (path / "keep me").touch()
    if not running:
        file = a_file(path, rows)
        file.open()
    file.catch_up()
    assert_equal(file, path, rows)
    assert names(path.with_name("signals.edited-20260304T120000Z.csv")) == ["keep me"]


def test_devices_and_pipes_in_the_files_place_are_moved_aside(file: CsvFile, path: Path, rows: Rows) -> None:
    path.unlink()
    path.symlink_to("/dev/full")
    file.catch_up()
    assert_equal(file, path, rows)
    path.unlink()
    os.mkfifo(path)
    file.catch_up()
    assert_equal(file, path, rows)
    assert len(names(path.parent)) == 3


def test_a_pipe_that_appears_between_the_look_and_the_write_hangs_nobody(
    file: CsvFile, path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def pipe_first(name: object, *flags: int) -> int:
        path.unlink()
        os.mkfifo(path)
        return real(path, *flags)

    rows.add()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", pipe_first)
        caller = threading.Thread(target=file.catch_up, daemon=True)
        caller.start()
        caller.join(5)
        assert not caller.is_alive()
    file.catch_up()
    assert_equal(file, path, rows)


def test_open_compares_even_a_file_that_looks_untouched(file: CsvFile, path: Path, rows: Rows) -> None:
    before = path.stat()
    theirs = path.read_bytes().replace(b"row", b"ROW")
    path.write_bytes(theirs)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    file.open()
    assert_equal(file, path, rows)
    assert edited(path.parent) == [theirs]


def test_no_file_is_left_open(file: CsvFile, path: Path, rows: Rows) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        rows.add()
        file.catch_up()
        path.write_bytes(b"theirs")
        file.catch_up()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_link_to_a_file_elsewhere_is_followed(path: Path, rows: Rows) -> None:
    path.parent.mkdir()
    path.symlink_to(path.with_name("elsewhere.csv"))
    file = a_file(path, rows)
    file.open()
    assert_equal(file, path, rows)
    assert path.is_symlink()


def test_a_deleted_file_comes_back(file: CsvFile, path: Path, rows: Rows) -> None:
    path.unlink()
    file.catch_up()
    assert_equal(file, path, rows)


def test_a_deleted_folder_comes_back(file: CsvFile, path: Path, rows: Rows) -> None:
    shutil.rmtree(path.parent)
    rows.add()
    file.catch_up()
    assert_equal(file, path, rows)


def test_a_folder_that_cannot_be_made_is_said_and_healed_later(path: Path, rows: Rows) -> None:
    path.parent.write_text("in the way")
    file = a_file(path, rows)
    file.open()
    assert file.lag == 7
    assert file.problem.startswith("signals.csv cannot be written (File exists): ")
    path.parent.unlink()
    file.catch_up()
    assert_equal(file, path, rows)


@given(st.data())
@settings(max_examples=examples(60), deadline=None)
def test_whatever_happens_to_the_file_it_ends_equal_and_nothing_of_the_owners_is_lost(data: st.DataObject) -> None:
    rows = Rows(data.draw(st.integers(0, 7)), batch=data.draw(st.integers(1, 9)))
    content = rows.content()
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    theirs = data.draw(
        st.sampled_from(
            [content[:end], content[start:], content[:start] + content[end:], content[:end] + content[start:],
             content.replace(b"\r\n", b"\n"), content + content]
        )
        | st.binary(max_size=20).map(lambda junk: content[:start] + junk + content[end:])
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "signals.csv"
        file = a_file(path, rows)
        if running := data.draw(st.booleans()):
            file.open()
        path.write_bytes(theirs)
        if running and data.draw(st.booleans()):
            rows.add(2)
        os.utime(path, ns=(1, 1))
        file.catch_up()
        assert_equal(file, path, rows)
        assert edited(path.parent) == ([] if rows.content().startswith(theirs) else [theirs])


# -------------------------------------------------------------------------------------------- disks that say no


def test_a_disk_that_writes_8_bytes_at_a_time_gets_whole_rows(
    path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:8]))
    file = a_file(path, rows)
    file.open()
    assert_equal(file, path, rows)


class FullDisk:
    """Takes `room` more bytes, then answers as /dev/full does (or with nothing written at all)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int, polite: bool = False) -> None:
        self.room, self.polite, self._write = room, polite, os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        taken = data[: self.room]
        self.room -= len(taken)
        if taken or self.polite:
            return self._write(fd, taken)
        with open("/dev/full", "wb", buffering=0) as full:
            return self._write(full.fileno(), data)


@pytest.mark.parametrize("polite", [False, True])
@pytest.mark.parametrize("room", [0, 8, len(row_text(8).encode()) + 8])
def test_a_full_disk_leaves_whole_rows_and_is_caught_up_when_there_is_room(
    file: CsvFile, path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch, room: int, polite: bool
) -> None:
    before = path.read_bytes()
    disk = FullDisk(monkeypatch, room, polite)
    rows.add(2)
    file.catch_up()
    assert path.read_bytes() == before
    assert file.lag == 2
    assert file.problem == (
        "signals.csv cannot be written (No space left on device): free some disk space; "
        "the rows are safe in the journal and follow by themselves"
    )
    disk.room = 1_000_000
    file.catch_up()
    assert_equal(file, path, rows)
    assert edited(path.parent) == []


@pytest.mark.parametrize("room", range(len(HEADER) + 3))
def test_a_disk_that_was_full_at_the_first_write_still_gets_the_header(
    path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    disk = FullDisk(monkeypatch, room)
    file = a_file(path, rows)
    file.open()
    assert file.lag == 7
    assert file.problem
    disk.room = 1_000_000
    file.catch_up()
    assert_equal(file, path, rows)
    assert names(path.parent) == ["signals.csv"]


def test_when_even_the_clean_up_fails_the_torn_row_is_repaired_later(
    file: CsvFile, path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        FullDisk(patch, 8)
        patch.setattr(os, "ftruncate", broken)
        rows.add()
        file.catch_up()
        assert path.read_bytes().endswith(row_text(8).encode()[:8])
        assert "Input/output error" in file.problem
    file.catch_up()
    assert_equal(file, path, rows)
    assert edited(path.parent) == []


def test_when_the_clean_up_of_the_very_first_write_fails_the_header_is_not_forgotten(
    path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    file = a_file(path, rows)
    with monkeypatch.context() as patch:
        FullDisk(patch, 0)
        patch.setattr(os, "ftruncate", broken)
        file.open()
    file.catch_up()
    assert_equal(file, path, rows)


def child_command(body: str, folder: Path) -> list[str]:
    start = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
    return [sys.executable, "-c", start + body, str(folder)]


def test_a_file_size_limit_cuts_no_row_in_half(tmp_path: Path) -> None:
    limit = len(Rows(7).content()) + 10
    body = f"""
import resource
from pathlib import Path
from test_csv_logger import Rows, a_file
path, rows = Path(sys.argv[1]) / "signals.csv", Rows(7)
file = a_file(path, rows)
file.open()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, hard))
rows.add()
file.catch_up()
assert path.read_bytes() == rows.content(last=7)
assert (file.lag, "File too large" in file.problem) == (1, True), file.problem
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
file.catch_up()
assert path.read_bytes() == rows.content()
assert (file.lag, file.problem) == (0, "")
print("done")
"""
    child = subprocess.run(child_command(body, tmp_path), capture_output=True, text=True, timeout=30)
    assert child.stdout == "done\n", child.stderr


def test_a_file_that_another_program_locks_is_caught_up_when_it_lets_go(
    file: CsvFile, path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(name: object, *_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", "/secret/place")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", locked)
        rows.add(2)
        file.catch_up()
        assert file.lag == 2
        assert file.problem == (
            "signals.csv cannot be written (Permission denied): close it in the other program, or make it writable; "
            "the rows are safe in the journal and follow by themselves"
        )
    file.catch_up()
    assert_equal(file, path, rows)


def test_a_changed_file_that_cannot_be_moved_is_not_written_over(
    file: CsvFile, path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    path.write_bytes(b"mine")
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", locked)
        rows.add()
        file.catch_up()
        assert path.read_bytes() == b"mine"
        assert file.problem
    file.catch_up()
    assert_equal(file, path, rows)
    assert edited(path.parent) == [b"mine"]


@pytest.mark.parametrize("error", [RuntimeError("secret words"), OSError("secret words"), MemoryError()])
def test_a_journal_that_cannot_be_read_never_fails_the_caller(
    file: CsvFile, path: Path, rows: Rows, error: Exception
) -> None:
    rows.add()
    rows.error = error
    file.catch_up()
    assert type(error).__name__ in file.problem
    assert "secret" not in file.problem
    rows.error = None
    file.catch_up()
    assert_equal(file, path, rows)


def test_somebody_elses_write_at_the_very_moment_of_ours_is_noticed(
    file: CsvFile, path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def both(fd: int, data: bytes) -> int:
        real(fd, b"theirs")
        return real(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", both)
        rows.add()
        file.catch_up()
    file.catch_up()
    assert_equal(file, path, rows)
    assert len(edited(path.parent)) == 1


def test_a_file_changed_between_the_look_and_the_write_is_not_written_to(
    file: CsvFile, path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def changed_first(name: object, *flags: int) -> int:
        path.write_bytes(b"theirs")
        return real(path, *flags)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", changed_first)
        rows.add()
        file.catch_up()
        assert path.read_bytes() == b"theirs"
        assert file.lag == 1
    file.catch_up()
    assert_equal(file, path, rows)
    assert edited(path.parent) == [b"theirs"]


def test_a_torn_file_changed_between_the_look_and_the_cut_is_not_cut(
    path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir()
    path.write_bytes(rows.content()[:-5])
    theirs = rows.content() + b"a long note of the owner's"
    real = os.open

    def changed_first(name: object, *flags: int) -> int:
        monkeypatch.setattr(os, "open", real)
        path.write_bytes(theirs)
        return real(path, *flags)

    file = a_file(path, rows)
    monkeypatch.setattr(os, "open", changed_first)
    file.open()
    assert path.read_bytes() == theirs
    assert "another program is writing it right now" in file.problem
    file.catch_up()
    assert_equal(file, path, rows)
    assert edited(path.parent) == [theirs]


# ------------------------------------------------------------------------------------------------------- threads


def test_every_caller_finds_its_own_row_in_the_file_when_its_call_returns(path: Path) -> None:
    rows, lock, missing = Rows(batch=5), threading.Lock(), []
    file = a_file(path, rows, max_rows=100)
    file.open()

    def work() -> None:
        for _ in range(40):
            with lock:
                rows.add()
                own = rows.last()
            file.catch_up()
            if file._written < own:
                missing.append(own)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missing == []
    assert file.lag == 0
    assert_parts(path, rows, 100)


def test_a_slow_catch_up_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Had the second caller returned at once, nobody would write its row before the next timer."""
    rows, entered, go = Rows(), threading.Event(), threading.Event()
    file = a_file(path, rows)
    file.open()
    real = rows.after

    def slow(number: int) -> Sequence[tuple[int, str]]:
        found = real(number)
        entered.set()
        assert go.wait(5)
        return found

    monkeypatch.setattr(file, "_rows_after", slow)
    first, second = threading.Thread(target=file.catch_up), threading.Thread(target=file.catch_up)
    first.start()
    assert entered.wait(5)
    rows.add()
    second.start()
    time.sleep(0.05)
    assert second.is_alive()
    go.set()
    second.join(5)
    assert path.read_bytes() == rows.content()
    first.join(5)


# ------------------------------------------------------------------------------------------------------- rotation


def assert_parts(path: Path, rows: Rows, max_rows: int) -> None:
    """Every row exactly once, every part with its header, nothing else in the folder."""
    full = max(0, rows.last() - 1) // max_rows
    expected = {f"signals.{part + 1:04d}.csv": part for part in range(full)} | {"signals.csv": full}
    assert names(path.parent) == sorted(expected)
    for name, part in expected.items():
        content = rows.content(part * max_rows + 1, (part + 1) * max_rows)
        assert path.with_name(name).read_bytes() == content, name


@pytest.mark.parametrize("count", range(11))
@pytest.mark.parametrize("batch", [1, 3, 4, 100])
def test_a_full_file_steps_aside_when_the_next_row_comes(path: Path, count: int, batch: int) -> None:
    rows = Rows(count, batch)
    file = a_file(path, rows, max_rows=3)
    file.open()
    assert_parts(path, rows, 3)
    for _ in range(5):
        rows.add()
        file.catch_up()
        assert_parts(path, rows, 3)
    again = a_file(path, rows, max_rows=3)
    again.open()
    assert_parts(path, rows, 3)
    assert (again.lag, again.problem) == (0, "")


def test_older_parts_are_left_alone(path: Path) -> None:
    rows = Rows(8)
    a_file(path, rows, max_rows=3).open()
    path.with_name("signals.0001.csv").write_bytes(b"the owner's")
    path.with_name("signals.0002.csv").unlink()
    rows.add(3)
    file = a_file(path, rows, max_rows=3)
    file.open()
    assert path.with_name("signals.0001.csv").read_bytes() == b"the owner's"
    assert names(path.parent) == ["signals.0001.csv", "signals.0003.csv", "signals.csv"]
    assert path.read_bytes() == rows.content(10)


def test_a_file_with_more_rows_than_a_part_may_have_is_kept_aside_and_divided(path: Path) -> None:
    rows = Rows(7, batch=100)
    a_file(path, rows, max_rows=5).open()
    path.write_bytes(rows.content())
    path.with_name("signals.0001.csv").unlink()
    a_file(path, rows, max_rows=5).open()
    assert edited(path.parent) == [rows.content()]
    path.with_name("signals.edited-20260304T120000Z.csv").unlink()
    assert_parts(path, rows, 5)


def test_a_directory_in_the_place_of_a_lagging_part_is_moved_aside(path: Path) -> None:
    rows = Rows(4)
    path.mkdir(parents=True)
    a_file(path, rows, max_rows=3).open()
    path.with_name("signals.edited-20260304T120000Z.csv").rmdir()
    assert_parts(path, rows, 3)


def test_a_number_that_is_already_taken_is_moved_aside_not_written_over(path: Path) -> None:
    rows = Rows(3)
    file = a_file(path, rows, max_rows=3)
    file.open()
    path.with_name("signals.0001.csv").write_bytes(b"the owner's")
    rows.add()
    file.catch_up()
    assert path.with_name("signals.0001.csv").read_bytes() == rows.content(1, 3)
    assert path.with_name("signals.0001.edited-20260304T120000Z.csv").read_bytes() == b"the owner's"
    assert path.read_bytes() == rows.content(4)


def test_a_file_that_lags_by_several_parts_is_finished_part_by_part(path: Path) -> None:
    rows = Rows(2)
    a_file(path, rows, max_rows=3).open()
    rows.add(8)
    file = a_file(path, rows, max_rows=3)
    file.open()
    assert_parts(path, rows, 3)


def test_somebodys_copy_with_a_year_in_its_name_is_not_taken_for_a_part(path: Path) -> None:
    rows = Rows(3)
    a_file(path, rows, max_rows=3).open()
    copy = path.with_name("signals.2026.csv")
    copy.write_bytes(b"copy")
    rows.add()
    a_file(path, rows, max_rows=3).open()
    assert copy.read_bytes() == b"copy"
    copy.unlink()
    assert_parts(path, rows, 3)


def test_a_huge_file_without_line_ends_is_kept_aside_without_being_read(path: Path) -> None:
    rows = Rows(4)
    path.parent.mkdir()
    path.touch()
    os.truncate(path, 1 << 40)
    a_file(path, rows, max_rows=3).open()
    kept = path.with_name("signals.edited-20260304T120000Z.csv")
    assert kept.stat().st_size == 1 << 40
    kept.unlink()
    assert_parts(path, rows, 3)


@pytest.mark.parametrize("theirs", [b"", b"edited"])
def test_an_edited_file_of_a_lagging_part_is_rewritten_before_it_steps_aside(path: Path, theirs: bytes) -> None:
    rows = Rows(5)
    a_file(path, rows, max_rows=3).open()
    path.write_bytes(theirs)
    rows.add(3)
    a_file(path, rows, max_rows=3).open()
    kept = path.with_name("signals.edited-20260304T120000Z.csv")
    if theirs:
        assert kept.read_bytes() == theirs
        kept.unlink()
    assert_parts(path, rows, 3)


def test_a_file_edited_just_before_it_steps_aside_is_not_filed_as_ours(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Rows(3)
    file = a_file(path, rows, max_rows=3)
    file.open()
    rows.add()
    real = rows.after

    def edit_while_reading(number: int) -> Sequence[tuple[int, str]]:
        monkeypatch.setattr(file, "_rows_after", real)
        path.write_bytes(b"theirs")
        return real(number)

    monkeypatch.setattr(file, "_rows_after", edit_while_reading)
    file.catch_up()
    file.catch_up()
    assert edited(path.parent) == [b"theirs"]
    path.with_name("signals.edited-20260304T120000Z.csv").unlink()
    assert_parts(path, rows, 3)


def test_a_rotation_that_is_refused_is_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(3)
    file = a_file(path, rows, max_rows=3)
    file.open()

    def locked(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    rows.add(2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", locked)
        file.catch_up()
        assert file.lag == 2
        assert path.read_bytes() == rows.content(1, 3)
    file.catch_up()
    assert_parts(path, rows, 3)


def test_a_rotation_that_cannot_make_the_new_file_is_finished_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Rows(3)
    file = a_file(path, rows, max_rows=3)
    file.open()
    real = os.open

    def no_new_file(name: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(name, flags, mode)

    rows.add(2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", no_new_file)
        file.catch_up()
        file.catch_up()
        assert file.lag == 2
        assert names(path.parent) == ["signals.0001.csv"]
    file.catch_up()
    assert file.problem == ""
    assert_parts(path, rows, 3)


class Killed(BaseException):
    """Not an Exception, as kill -9 is not one: no handler of the program may run."""


class Reaper:
    """Lets `survive` system calls that change the disk happen, then ends it: before the call, or half through it."""

    CALLS = ("open", "write", "ftruncate", "rename", "mkdir")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, survive: int, half: bool) -> None:
        self.left, self.half, self.dead = survive, half, False
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **keywords: object) -> object:
            if self.dead or self.left == 0:
                if name == "write" and self.half and not self.dead:
                    fd, data = arguments
                    assert isinstance(data, bytes)
                    real(fd, data[: len(data) // 2])
                self.dead = True
                raise Killed
            self.left -= 1
            return real(*arguments, **keywords)

        return call


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("start", ["empty", "full", "torn", "edited"])
def test_a_crash_at_any_step_loses_and_doubles_nothing(tmp_path: Path, start: str, half: bool) -> None:
    for survive in range(100):
        path, rows = tmp_path / f"{survive}" / "signals.csv", Rows(3)
        if start != "empty":
            a_file(path, rows, max_rows=3).open()
        if start == "torn":
            path.write_bytes(path.read_bytes()[:-5])
        if start == "edited":
            path.write_bytes(b"edited")
        rows.add(5)
        with pytest.MonkeyPatch.context() as patch:
            reaper = Reaper(patch, survive, half)
            try:
                file = a_file(path, rows, max_rows=3)
                file.open()
                rows.add(2)
                file.catch_up()
            except Killed:
                pass
        rows.lines = [row_text(n) for n in range(1, 11)]
        file = a_file(path, rows, max_rows=3)
        file.open()
        assert (file.lag, file.problem) == (0, "")
        assert edited(path.parent) == ([b"edited"] if start == "edited" else [])
        for kept in path.parent.glob("*.edited-*"):
            kept.unlink()
        assert_parts(path, rows, 3)
        if not reaper.dead:
            return
    pytest.fail("the crash never stopped coming")


@pytest.mark.parametrize("milliseconds", [0, 13, 60])
def test_kill_9_at_any_moment_loses_and_doubles_nothing(tmp_path: Path, milliseconds: int) -> None:
    body = """
from pathlib import Path
from test_csv_logger import Rows, a_file
rows = Rows(250)
file = a_file(Path(sys.argv[1]) / "signals.csv", rows, max_rows=20)
file.open()
print("ready", flush=True)
while True:
    rows.add()
    file.catch_up()
"""
    with subprocess.Popen(child_command(body, tmp_path), stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(milliseconds / 1000)
        child.send_signal(signals.SIGKILL)
    reached = sum(part.read_bytes().count(b"row") for part in tmp_path.iterdir())
    rows = Rows(reached + 1)  # its journal was ahead by one row when it died
    path = tmp_path / "signals.csv"
    file = a_file(path, rows, max_rows=20)
    file.open()
    assert (file.lag, file.problem) == (0, "")
    assert_parts(path, rows, 20)


# ------------------------------------------------------------------------------------------------------- speed


def test_comparing_100_000_rows_takes_well_under_a_second(tmp_path: Path) -> None:
    rows = Rows(100_000, batch=10_000)
    path = tmp_path / "signals.csv"
    a_file(path, rows).open()
    begin = time.perf_counter()
    file = a_file(path, rows)
    file.open()
    assert time.perf_counter() - begin < 1
    assert_equal(file, path, rows)
