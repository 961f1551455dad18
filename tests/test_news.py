"""What the owner is told, in words: each thing that becomes of an order, the day, and strangers' text."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest
from builders import BINANCE, RULES, D, S, an_exit, an_order
from hypothesis import given
from hypothesis import strategies as st

import news
from journal import Day
from models import OrderType
from portfolio import Position

FILLED: dict[str, Any] = {"status": S.FILLED, "executed_quantity": D("0.002"), "executed_quote": D("86.00000002")}


def text(order: Any, was_in_doubt: bool = False) -> str:
    found = news.of_order(order, was_in_doubt)
    return found.text if found else ""


def test_a_fill_is_told_with_size_price_and_strategy() -> None:
    wanted = "Bought 0.002 BTCUSDT at 43000 (86 USDT), BINANCE (strategy trend)"
    assert text(an_order(strategy="trend", **FILLED)) == wanted


def test_an_exit_is_told_with_what_it_realised() -> None:
    assert text(an_exit(realized_pnl=D("1.50"), **FILLED)).endswith("BINANCE; realised +1.5 USDT")
    assert text(an_exit(realized_pnl=D("-0.000012345678"), **FILLED)).endswith("realised -0.000012345678 USDT")


def test_a_stop_that_was_triggered_says_that_it_was_one() -> None:
    assert text(an_exit(leg="stop_loss", type=OrderType.STOP, **FILLED)).startswith("Stop-loss: Sold 0.002 BTCUSDT")


def test_an_order_that_ended_with_a_part_done_says_what_became_of_the_rest() -> None:
    assert text(an_order(**FILLED | {"status": S.EXPIRED})).endswith("; the rest is EXPIRED")


@pytest.mark.parametrize(
    ("order", "beginning"),
    [
        (an_order(S.REJECTED, note="no money"), "Refused by the exchange: BUY BTCUSDT at BINANCE: no money"),
        (an_order(S.UNKNOWN, note="no answer"), "Outcome unknown, it is being looked up"),
        (an_order(S.NOT_PLACED, note="not opened"), "Not placed: BUY BTCUSDT at BINANCE: not opened"),
        (an_exit(status=S.NOT_PLACED, never_left=True), "Not placed: SELL BTCUSDT at BINANCE"),
    ],
)
def test_what_went_wrong_with_an_order_is_told(order: Any, beginning: str) -> None:
    assert text(order).startswith(beginning)


@pytest.mark.parametrize(
    ("order", "beginning"),
    [
        (an_order(**FILLED), "Now known: Bought 0.002"),
        (an_order(S.NEW), "Now known: BUY BTCUSDT at BINANCE is at the exchange and waits"),
        (an_order(S.NOT_PLACED), "Now known: Not placed"),
        (an_order(S.REJECTED), "Now known: Refused by the exchange"),
        (an_order(S.CANCELED), "Now known: BUY BTCUSDT at BINANCE is CANCELED"),
    ],
)
def test_whatever_an_unknown_outcome_turns_out_to_be_is_told(order: Any, beginning: str) -> None:
    assert text(order, was_in_doubt=True).startswith(beginning)


@pytest.mark.parametrize(
    "order",
    [
        an_order(S.NEW),
        an_order(S.PARTIALLY_FILLED, executed_quantity=D(1)),
        an_order(S.CANCELED),
        an_exit(status=S.NOT_PLACED),  # nothing was left to sell, or it is tried again
        an_exit(leg="stop_loss", type=OrderType.STOP, status=S.REJECTED),  # tried again, or the position is closed
        an_exit(leg="by_hand", **FILLED),  # told by who took it over
    ],
)
def test_what_happens_all_the_time_is_not_told(order: Any) -> None:
    assert text(order) == ""


def test_the_same_state_of_an_order_has_the_same_key_and_the_next_another() -> None:
    told = [news.of_order(order, True) for order in (an_order(S.UNKNOWN), an_order(**FILLED), an_order(**FILLED))]
    assert [one and one.key for one in told] == ["gh1 UNKNOWN", "gh1 FILLED", "gh1 FILLED"]


# --- the day ----------------------------------------------------------------------------------------------------------


def test_a_day_adds_up_only_what_it_changed() -> None:
    before = an_exit(status=S.PARTIALLY_FILLED, executed_quantity=D("0.001"), realized_pnl=D(1))
    after = an_exit(status=S.FILLED, executed_quantity=D("0.002"), realized_pnl=D(3))
    only_ended = an_exit(status=S.CANCELED, executed_quantity=D("0.001"), realized_pnl=D(5))
    orders = [(None, an_order(**FILLED)), (before, after), (only_ended, only_ended), (None, an_order(S.REJECTED))]
    day = Day(date(2026, 3, 1), {"ACCEPTED": 3, "REJECTED": 7}, orders)
    held = Position(*BINANCE[:1], "BTCUSDT", RULES, quantity=D("0.002"), cost=D(86))
    assert news.of_day(day, [held]).splitlines() == [
        "Summary of 2026-03-01 (UTC)",
        "Trades: 2 (1 in, 1 out)",
        "Realised: +2 USDT",
        "Alerts: 3 accepted, 7 rejected, 0 duplicate, 0 invalid",
        "Open: 0.002 BTCUSDT long at 43000 (BINANCE)",
    ]


def test_a_day_without_anything_is_told_too() -> None:
    lines = news.of_day(Day(date(2026, 3, 1), {}, []), []).splitlines()
    assert lines[1:3] == ["Trades: 0 (0 in, 0 out)", "Realised: 0"]
    assert lines[4] == "Open: nothing"


# --- strangers' text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("**bold** _it_ ~no~ `code` ||hidden||", "bold it no code hidden"),
        ("<b>x</b> &lt;script&gt;", "b x b lt;script gt;"),
        ("[click](https://evil.example/x)", "click (https: evil example x)"),
        ("@everyone <@123> #room :skull:", "everyone 123 room skull "),
        ("www.evil.com evil.io", "www evil com evil io"),
        ("a\r\nb\x00c\u202ed\u200be\ttab", "a b c d e tab"),
        ("BTCUSDT.P at 1.5, 50% (ok); it's", "BTCUSDT.P at 1.5, 50% (ok); it's"),
        ("GET /flattrade/login/x or GET /login, /close", "GET /flattrade/login x or GET login, close"),
        ("evil.io/GET /flattrade/login.evil.io", "evil io GET /flattrade/login evil io"),
        ("https://POST /orders/outcome", "https: POST /orders/outcome"),
    ],
)
def test_nothing_that_a_stranger_writes_is_formatting_or_a_link(said: str, told: str) -> None:
    assert news.told(said).split() == told.split()


@given(st.text(max_size=2000))
def test_whatever_is_written_becomes_one_short_line_of_harmless_signs(text: str) -> None:
    line = news.told(text)
    assert len(line) <= news.LONGEST_NEWS
    assert len(line.splitlines()) <= 1
    assert not re.search(r"[*_~`|<>\[\]{}@#&\\/!$\"]|://", line)


@pytest.mark.parametrize("address", news.TO_DO)
def test_what_the_owner_is_to_do_is_told_as_he_has_to_write_it(address: str) -> None:
    assert news.told(f"<b>FLATTRADE</b>: {address} (a hint)").endswith(f"FLATTRADE b : {address} (a hint)")


def test_a_hostile_name_of_a_strategy_says_nothing_of_its_own() -> None:
    hostile = "x)\n**Sold everything** [now](http://evil.example) " + "A" * 500
    found = text(an_order(strategy=hostile, **FILLED))
    assert found.count("\n") == 0
    assert "*" not in found
    assert "://" not in found
    assert len(found) < 200


def test_what_was_dropped_is_told_before_the_rest() -> None:
    assert news.joined(["a", "b"], 0) == "a\nb"
    assert news.joined(["a"], 7).splitlines()[0] == "(7 earlier messages were dropped; see the log)"
