"""Chosen records as files: rows of signals.csv and trades.csv, as CSV or as a workbook. Blocks: for worker threads."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import workbook
from csv_logger import BOM
from csv_rows import signal_row, trade_row
from history import Execution, History, Numbered, Wanted
from models import OrderStatus
from workbook import MAX_ROWS

T = TypeVar("T")

# Some three milliseconds of work, then the alerts have the interpreter to themselves for two.
RECORDS_AT_ONCE = 50
WORKBOOK_SECONDS = 300.0
REST_SECONDS = 0.002


def exported(history: History, name: str, wanted: Wanted) -> bytes:
    """The file of that name (signals or trades, .csv or .xlsx), oldest first. Raises JournalError.

    Of more than 50,000 the newest. An order is there once, as it stands now; one that is only about to leave is not.
    """
    kind, _, ending = name.partition(".")
    rows = signals if kind == "signals" else trades
    lines = list(islice(rows(history, wanted), MAX_ROWS))[::-1]
    if ending == "xlsx":
        return _made_beside(kind, lines)
    return (BOM + ",".join(workbook.COLUMNS[kind]) + "\r\n" + "".join(lines)).encode()


def _made_beside(kind: str, lines: Sequence[str]) -> bytes:
    """By a process of its own: the library needs seconds for thousands of rows, and the interpreter is the alerts'.

    Raises CalledProcessError and TimeoutExpired.
    """
    command = [sys.executable, str(Path(workbook.__file__)), kind]
    made = subprocess.run(
        command, input="".join(lines).encode(), capture_output=True, check=True, env={}, timeout=WORKBOOK_SECONDS
    )
    return made.stdout


def signals(history: History, wanted: Wanted) -> Iterator[str]:
    return map(signal_row, _bit_by_bit(lambda before: history.decisions(wanted, RECORDS_AT_ONCE, before)))


def trades(history: History, wanted: Wanted) -> Iterator[str]:
    found = _bit_by_bit(lambda before: history.orders(wanted, RECORDS_AT_ONCE, before))
    return (trade_row(execution.order, execution.at) for execution in found if _has_left(execution))


def _has_left(execution: Execution) -> bool:
    return execution.order.status not in (OrderStatus.INTENT, OrderStatus.SENT)


def _bit_by_bit(page: Callable[[int | None], list[Numbered[T]]]) -> Iterator[T]:
    """Newest first."""
    before = None
    while found := page(before):
        yield from (one.value for one in found)
        before = found[-1].number
        time.sleep(REST_SECONDS)
