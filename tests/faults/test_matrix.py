"""The fault matrix, row by row: matrix.py. The long form of every row is played by `make faults`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fault_stage import Stage
from harness import ROOT, Nursery
from matrix import ROWS, Row

FULL = os.environ.get("FAULTS") == "full"
PLAYED = [row for row in ROWS if row.play and (FULL or not row.slow)]


@pytest.mark.parametrize("row", PLAYED, ids=lambda row: f"{row.number} {row.fault}")
def test_whatever_goes_wrong_no_order_is_doubled_and_nothing_is_lost(
    row: Row, nursery: Nursery, tmp_path: Path
) -> None:
    stage = Stage(nursery, tmp_path, full=FULL)
    try:
        assert row.play
        row.play(stage)
        stage.assert_global_counts()
    finally:
        stage.close()


def test_every_row_is_played_or_says_why_not() -> None:
    assert {row.number for row in ROWS if row.number < 60} == set(range(1, 59))
    for row in ROWS:
        assert (row.play is None) == bool(row.not_here), row.number
        assert not row.slow or row.proven_in, f"row {row.number} is proven by nobody in the short form"
        assert not row.proven_in or (ROOT / "tests" / row.proven_in).exists(), row.number
