"""Chosen records as files: typed cell by cell, harmless whatever is in them, and the same rows as the CSV files."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import NOW, D, S, an_exit, an_order
from harness import ROOT, SECRET, Daemon, Reply
from openpyxl import load_workbook
from openpyxl.worksheet.worksheet import Worksheet

import exports
import workbook as workbook_module
from csv_rows import SIGNALS_COLUMNS, TRADES_COLUMNS
from events import Decided, Event, OrderChanged
from exports import exported
from history import History, Wanted
from journal import Journal
from models import Action, Decision, DecisionRecord, Fee, Signal
from workbook import NUMBERS, TIMES, workbook

HOSTILE = "=cmd|' /C calc'!A0"
SAYS_FORMULA = "=1+1"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.db")
    yield opened
    opened.close()


def a_signal(number: int, **changes: Any) -> Event:
    given: dict[str, Any] = {"strategy": "trend", "timeframe": "60", "confidence": D(75), "price": D("0.00001234")}
    signal = Signal(Action.BUY, "BTCUSDT", **given | changes)
    at = NOW + timedelta(minutes=number)
    return Decided(
        DecisionRecord(f"s{number}", f"k{number}", at, at, Decision.REJECTED, "balance", "", signal, "PAPER")
    )


def a_fill(number: int, **changes: Any) -> Event:
    order = an_exit(
        client_order_id=f"gh{number}", signal_id=f"s{number}", status=S.FILLED, executed_quantity=D("0.5"),
        executed_quote=D("21500.25"), fees=(Fee("USDT", D("21.5")),), realized_pnl=D("-3.25"),
        exchange_order_id="12345678901234567890", strategy="trend",
    )  # fmt: skip
    return OrderChanged(replace(order, **changes), NOW + timedelta(minutes=number, milliseconds=250))


def opened(content: bytes) -> Worksheet:
    book = load_workbook(io.BytesIO(content))
    (sheet,) = book.worksheets
    return sheet


def cells(sheet: Worksheet, row: int = 2) -> dict[str, Any]:
    """By the name of its column."""
    return {str(head.value): cell for head, cell in zip(sheet[1], sheet[row], strict=True)}


def signals_sheet(history: History, **wanted: Any) -> Worksheet:
    return opened(exported(history, "signals.xlsx", Wanted(**wanted)))


def csv_rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))


# --- types ------------------------------------------------------------------------------------------------------------


def test_every_cell_of_a_signal_has_its_type(journal: Journal) -> None:
    journal.append([a_signal(1)])
    found = cells(signals_sheet(journal.history))
    assert tuple(found) == SIGNALS_COLUMNS
    assert {name: cell.data_type for name, cell in found.items() if cell.value is not None} == {
        "DateTime": "d", "TradingPair": "s", "Action": "s", "Strategy": "s", "TimeFrame": "s", "Confidence": "n",
        "Decision": "s", "SignalID": "s", "Check": "s", "Broker": "s", "OrderType": "s", "Price": "n", "LatencyMs": "n",
    }  # fmt: skip
    assert found["DateTime"].value == datetime(2026, 3, 1, 12, 1)
    assert found["DateTime"].number_format == "yyyy-mm-dd hh:mm:ss"
    assert (found["Confidence"].value, found["Price"].value, found["TimeFrame"].value) == (75, 0.00001234, "60")
    assert found["Price"].number_format.startswith("0.###"), "not 1.234E-05"


def test_every_cell_of_a_trade_has_its_type_and_its_order_id_is_text(journal: Journal) -> None:
    journal.append([a_fill(1)])
    found = cells(opened(exported(journal.history, "trades.xlsx", Wanted())))
    assert tuple(found) == TRADES_COLUMNS
    numbers = {name: cell.value for name, cell in found.items() if cell.data_type == "n" and cell.value is not None}
    assert numbers == {
        "TradeAmount": 21500.25, "Price": 43000.5, "Quantity": 0.5, "Fee": 21.5, "RealizedPnL": -3.25,
        "LatencyMs": 60250,
    }  # fmt: skip
    assert (found["OrderID"].data_type, found["OrderID"].value) == ("s", "12345678901234567890")
    assert found["ClientOrderID"].value == "gh1"


@pytest.mark.parametrize(
    "text", [HOSTILE, SAYS_FORMULA, "+1", "-1", "@SUM(A1)", "'quoted", "#N/A", "1e5", "007", "TRUE", "2026-01-01"]
)
def test_text_is_text_whatever_it_looks_like(journal: Journal, text: str) -> None:
    journal.append([a_signal(1, strategy=text)])
    content = exported(journal.history, "signals.xlsx", Wanted())
    cell = cells(opened(content))["Strategy"]
    assert cell.data_type == "s"
    assert cell.value == text.replace("|", "/"), "as the CSV has it, without the apostrophe that protected it there"
    assert cell.quotePrefix is (text[0] in "=+-@'" or text in ("1e5", "007"))
    with zipfile.ZipFile(io.BytesIO(content)) as parts:
        assert b"<f>" not in parts.read("xl/worksheets/sheet1.xml")


def test_a_number_with_more_digits_than_a_spreadsheet_counts_is_text(journal: Journal) -> None:
    journal.append([a_signal(1, quantity=D("12345678901234567"))])
    cell = cells(signals_sheet(journal.history))["Quantity"]
    assert (cell.data_type, cell.value) == ("s", "12345678901234567")


def test_the_header_is_bold_stays_in_sight_and_has_a_filter(journal: Journal) -> None:
    journal.append([a_signal(number) for number in range(3)])
    sheet = signals_sheet(journal.history)
    assert all(cell.font.b for cell in sheet[1])
    assert not sheet["A2"].font.b
    assert (sheet.title, sheet.freeze_panes, sheet.auto_filter.ref) == ("signals", "A2", "A1:Q4")
    assert [sheet.column_dimensions[letter].width for letter in "AHC"] == [20, 60, 13], "DateTime, Reason, Action"


def test_the_types_are_of_columns_that_there_are() -> None:
    assert {*SIGNALS_COLUMNS, *TRADES_COLUMNS} >= NUMBERS | TIMES | workbook_module.WIDTHS.keys()


def test_without_records_there_is_the_header_alone(journal: Journal) -> None:
    assert signals_sheet(journal.history).max_row == 1
    assert csv_rows(exported(journal.history, "trades.csv", Wanted())) == []


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_are_in_the_order_of_time_and_only_those_wanted(journal: Journal) -> None:
    journal.append([a_signal(number, strategy=f"s{number % 2}") for number in range(130)])
    sheet = signals_sheet(journal.history, strategy="s1")
    times = [str(row[0].value) for row in sheet.iter_rows(min_row=2)]
    assert times == sorted(times)
    assert len(times) == 65
    rows = csv_rows(exported(journal.history, "signals.csv", Wanted(strategy="s1", since=NOW + timedelta(hours=2))))
    assert [row["SignalID"] for row in rows] == ["s121", "s123", "s125", "s127", "s129"]


def test_an_order_is_there_once_as_it_stands_and_not_before_it_has_left(journal: Journal) -> None:
    sent = OrderChanged(an_order(S.SENT, client_order_id="gh3", signal_id="s3"), NOW)
    journal.append([a_fill(1, status=S.PARTIALLY_FILLED), a_fill(2), a_fill(1), sent])
    rows = csv_rows(exported(journal.history, "trades.csv", Wanted()))
    assert [(row["ClientOrderID"], row["Status"]) for row in rows] == [("gh2", "FILLED"), ("gh1", "FILLED")]


def test_of_too_many_the_newest_are_taken(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "MAX_ROWS", 60)
    journal.append([a_signal(number) for number in range(100)])
    rows = csv_rows(exported(journal.history, "signals.csv", Wanted()))
    assert [rows[0]["SignalID"], rows[-1]["SignalID"], len(rows)] == ["s40", "s99", 60]


def test_a_sheet_has_no_more_rows_than_it_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook_module, "MAX_ROWS", 2)
    assert opened(workbook("t", ("Action",), ["a\r\n", "b\r\n", "c\r\n"]))["A2"].value == "b"


def test_alerts_have_the_interpreter_to_themselves_now_and_then(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(time, "sleep", rests.append)
    journal.append([a_signal(number) for number in range(100)])
    exported(journal.history, "signals.csv", Wanted())
    assert len(rests) == 2, "after each fifty"


def test_the_library_is_never_loaded_by_the_daemon_itself(journal: Journal) -> None:
    """Its slow work is done by another process."""
    code = (
        "import sys, app, exports, pathlib, journal, history;"
        f"j = journal.Journal(pathlib.Path({str(journal.path)!r}));"
        "made = exports.exported(j.history, 'signals.xlsx', history.Wanted());"
        "sys.exit('openpyxl' in sys.modules or made[:2] != b'PK')"
    )
    journal.append([a_signal(1)])
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# --- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture
def busy(daemon_with: Callable[..., Daemon]) -> Daemon:
    daemon = daemon_with(paper_balance_usdt=100, cooldown_seconds=0).start()
    daemon.post(symbol="BTCUSDT", side="buy", price=100, strategy=HOSTILE)
    daemon.post(symbol="ETHUSDT", side="buy", price=10, strategy="swing", confidence=1)
    daemon.post(symbol="BTCUSDT", side="nonsense")
    return daemon


def got(daemon: Daemon, path: str) -> Reply:
    reply = daemon.get(path, secret=SECRET)
    assert reply.status == 200, reply.body
    return reply


def test_the_workbooks_of_a_daemon_have_the_rows_of_its_csv_files(busy: Daemon) -> None:
    reply = got(busy, "/logs/signals.xlsx")
    assert reply.headers["content-disposition"] == 'attachment; filename="signals.xlsx"'
    assert reply.headers["content-type"].endswith("spreadsheetml.sheet")
    sheet = opened(reply["raw"])
    ids = [cells(sheet, row)["SignalID"].value for row in range(2, 5)]
    assert ids == [row["SignalID"] for row in busy.signals()]
    assert (cells(sheet)["Strategy"].value, cells(sheet)["Strategy"].data_type) == ("=cmd/' /C calc'!A0", "s")
    trades = opened(got(busy, "/logs/trades.xlsx")["raw"])
    assert trades.max_row == 2
    assert cells(trades)["TradeAmount"].value == 10


@pytest.mark.parametrize(
    ("query", "symbols"),
    [
        ("symbol=ETHUSDT", ["ETHUSDT"]), ("decision=REJECTED", ["ETHUSDT"]), ("decision=rejected", ["ETHUSDT"]),
        ("check=confidence", ["ETHUSDT"]), ("strategy=swing&symbol=BTCUSDT", []), ("decision=INVALID", [""]),
        ("symbol=ethusdt&broker=paper", ["ETHUSDT"]),
        ("broker=PAPER", ["BTCUSDT", "ETHUSDT"]), ("since=2999-01-01", []), ("until=2999-01-01&symbol=", None),
    ],
)  # fmt: skip
def test_a_csv_of_what_is_wanted_only(busy: Daemon, query: str, symbols: list[str] | None) -> None:
    rows = csv_rows(got(busy, f"/logs/signals.csv?{query}")["raw"])
    whole = [row for row in busy.signals() if symbols is None or row["TradingPair"] in symbols]
    assert rows == whole, "row for row as in the file itself"


def test_without_a_wish_the_file_itself_is_sent(busy: Daemon) -> None:
    file = (busy.folder / "logs" / "signals.csv").read_bytes()
    for path in ("/logs/signals.csv", "/logs/signals.csv?symbol=&decision=", "/logs/signals.csv?color=red"):
        assert got(busy, path)["raw"] == file
    (busy.folder / "logs" / "signals.csv").unlink()
    assert busy.get("/logs/signals.csv", secret=SECRET).status in (200, 503)


def test_a_long_export_does_not_keep_it_from_stopping(daemon_with: Callable[..., Daemon]) -> None:
    daemon = daemon_with(test_waits={"exports.REST_SECONDS": 30}).start()
    daemon.post(symbol="BTCUSDT", side="buy", price=100)
    with ThreadPoolExecutor(1) as owner:
        owner.submit(daemon.get, "/logs/signals.xlsx", secret=SECRET)
        time.sleep(0.5)
        started = time.monotonic()
        daemon.terminate()
        assert time.monotonic() - started < 10


def test_trades_can_be_chosen_by_their_status(busy: Daemon) -> None:
    assert len(csv_rows(got(busy, "/logs/trades.csv?status=filled")["raw"])) == 1
    assert csv_rows(got(busy, "/logs/trades.csv?status=CANCELED")["raw"]) == []


@pytest.mark.parametrize("query", ["decision=MAYBE", "status=GONE", "since=yesterday", "until=x"])
@pytest.mark.parametrize("file", ["signals.csv", "trades.xlsx"])
def test_a_wish_that_makes_no_sense_is_refused_by_name(busy: Daemon, file: str, query: str) -> None:
    reply = busy.get(f"/logs/{file}?{query}", secret=SECRET)
    assert reply.status == 400
    assert reply["error"].startswith(query.partition("=")[0] + " must be ")
