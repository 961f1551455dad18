"""How long an exchange wants to be left alone is known over a restart, and a damaged file hurts nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import Account, Market
from pauses import FILE_NAME, LONGEST_SECONDS, Pauses

SPOT, FUTURES = Account("BINANCE", Market.SPOT), Account("BINANCE", Market.FUTURES)


def test_a_pause_is_known_to_the_next_process_for_that_account_alone(tmp_path: Path) -> None:
    Pauses(tmp_path).keep(SPOT, 120)
    later = Pauses(tmp_path)
    assert 119 < later.left(SPOT) <= 120
    assert later.left(FUTURES) == 0
    later.keep(FUTURES, 60)
    assert 119 < Pauses(tmp_path).left(SPOT) <= 120, "what one is asked for does not take away the other's"


def test_of_what_is_closed_alone_the_rest_of_the_account_may_be_called(tmp_path: Path) -> None:
    Pauses(tmp_path).keep(FUTURES, 300, "/trade/order")
    later = Pauses(tmp_path)
    assert later.left(FUTURES) == 0
    assert 299 < later.left(FUTURES, "/trade/order") <= 300
    assert later.left(FUTURES, "/user/balance") == later.left(SPOT, "/trade/order") == 0
    assert (later.paths(FUTURES), later.paths(SPOT)) == (["/trade/order"], [])


def test_a_pause_that_is_over_is_none(tmp_path: Path) -> None:
    Pauses(tmp_path).keep(SPOT, -1)
    assert Pauses(tmp_path).left(SPOT) == 0


def test_no_pause_is_longer_than_the_longest_there_is(tmp_path: Path) -> None:
    Pauses(tmp_path).keep(SPOT, 10 * LONGEST_SECONDS)
    assert Pauses(tmp_path).left(SPOT) == LONGEST_SECONDS


@pytest.mark.parametrize("content", ["", "[]", "7", '{"BINANCE": "soon"}', '{"BINANCE": null}', "\x00\xff"])
def test_a_file_without_sense_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    pauses = Pauses(tmp_path)
    assert pauses.left(SPOT) == 0
    pauses.keep(SPOT, 5)
    assert Pauses(tmp_path).left(SPOT) > 4


def test_a_disk_that_does_not_take_it_is_no_reason_to_fail(tmp_path: Path) -> None:
    pauses = Pauses(tmp_path / "gone")
    pauses.keep(SPOT, 60)
    assert pauses.left(SPOT) > 59
