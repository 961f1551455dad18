"""Chosen records as files: rows of signals.csv and trades.csv, as CSV or as a workbook. Blocks: for worker threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

from csv_logger import BOM, SIGNALS_COLUMNS, TRADES_COLUMNS, signal_row, trade_row
from history import Execution, History, Numbered, Wanted
from models import OrderStatus
from workbook import MAX_ROWS, workbook

T = TypeVar("T")

COLUMNS = {"signals": SIGNALS_COLUMNS, "trades": TRADES_COLUMNS}
# Some three milliseconds of work, then the alerts have the interpreter to themselves for two.
RECORDS_AT_ONCE = 50
REST_SECONDS = 0.002


def exported(history: History, name: str, wanted: Wanted) -> bytes:
    """The file of that name (signals or trades, .csv or .xlsx), oldest first. Raises JournalError.

    Of more than 50,000 the newest. An order is there once, as it stands now; one that is only about to leave is not.
    """
    kind, _, ending = name.partition(".")
    rows = signals if kind == "signals" else trades
    lines = list(islice(rows(history, wanted), MAX_ROWS))[::-1]
    if ending == "xlsx":
        return workbook(kind, COLUMNS[kind], lines, lambda: time.sleep(REST_SECONDS))
    return (BOM + ",".join(COLUMNS[kind]) + "\r\n" + "".join(lines)).encode()


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
