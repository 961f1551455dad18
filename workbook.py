"""Rows of the CSV files as an Excel workbook: times are times, numbers are numbers, and text is never a formula.

`python workbook.py signals < rows > file` makes one: slow work, in a process of its own, beside the daemon.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

from csv_rows import FORMULA_STARTERS, SIGNALS_COLUMNS, TRADES_COLUMNS

MAX_ROWS = 50_000

COLUMNS = {"signals": SIGNALS_COLUMNS, "trades": TRADES_COLUMNS}

TIMES = frozenset({"DateTime"})
NUMBERS = frozenset({"Confidence", "Quantity", "Amount", "Price", "LatencyMs", "TradeAmount", "Fee", "RealizedPnL"})
WIDTHS = {"DateTime": 20, "Reason": 60, "Note": 40, "SignalID": 26, "ClientOrderID": 26, "OrderID": 20, "Strategy": 20}
USUAL_WIDTH = 13

TIME_FORMAT = "yyyy-mm-dd hh:mm:ss"
# Of its own, Excel would show 0.00001 as 1E-05.
FRACTION_FORMAT = "0.##################"


def workbook(title: str, columns: Sequence[str], lines: Sequence[str]) -> bytes:
    """One sheet: a bold header that stays in sight, with a filter, and a row for each of the CSV lines, 50,000 at most.

    Times are in UTC.
    """
    # Nobody who never downloads a workbook pays for the library.
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Font
    from openpyxl.utils import get_column_letter

    book = Workbook(write_only=True)
    sheet: Any = book.create_sheet(title)
    sheet.freeze_panes = "A2"
    for number, column in enumerate(columns, 1):
        sheet.column_dimensions[get_column_letter(number)].width = WIDTHS.get(column, USUAL_WIDTH)
    bold = Font(bold=True)
    make = partial(WriteOnlyCell, sheet)
    header = [make(column) for column in columns]
    for cell in header:
        cell.font = bold
    sheet.append(header)
    shown = lines[-MAX_ROWS:]
    for row in csv.reader(shown):
        sheet.append([_cell(make, column, text) for column, text in zip(columns, row, strict=True)])
    sheet.auto_filter.ref = f"A1:{get_column_letter(len(columns))}{len(shown) + 1}"
    written = io.BytesIO()
    book.save(written)
    return written.getvalue()


def main() -> None:
    # Whatever else the machine has to do goes first.
    os.nice(10)
    kind = sys.argv[1]
    lines = sys.stdin.buffer.read().decode().splitlines(keepends=True)
    sys.stdout.buffer.write(workbook(kind, COLUMNS[kind], lines))


def value_of(column: str, text: str) -> datetime | Decimal | str | None:
    """What a cell of a CSV row means. Its apostrophe was for spreadsheets that read text."""
    if not text:
        return None
    if column in TIMES:
        return datetime.fromisoformat(text)
    if column in NUMBERS:
        try:
            return Decimal(text)
        except InvalidOperation:
            pass  # more digits than a spreadsheet can count
    return text.removeprefix("'")


def _cell(make: Callable[[Any], Any], column: str, text: str) -> Any:
    value = value_of(column, text)
    if value is None:
        return None
    cell = make(value)
    if isinstance(value, datetime):
        cell.number_format = TIME_FORMAT
    elif isinstance(value, Decimal):
        if value % 1:
            cell.number_format = FRACTION_FORMAT
    else:
        # Whatever it looks like; the library takes "=..." for a formula and "#N/A" for an error.
        cell.data_type = "s"
        if text[0] in FORMULA_STARTERS:
            # Also when somebody edits the cell.
            cell.quotePrefix = True
    return cell


if __name__ == "__main__":
    main()
