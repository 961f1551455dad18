"""What the page says: numbers and times as people read them, filters as they were meant, alarms when there are some."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from config import Settings
from models import Decision, OrderStatus
from overview import alarms, bars, mode_of, overview
from page_forms import SIGNALS_TABLE, TRADES_TABLE, Records, read_filter, rows_view, settings_view
from preferences import NAMES, in_force
from templating import gain, moment, money, plain, price, render, signed, static_address, took

D = Decimal
DASH = "\N{EN DASH}"
NOW = datetime(2026, 1, 31, 12, 0, 5, tzinfo=UTC)


def state(**more: Any) -> dict[str, Any]:
    """A quiet daemon, but for what is said."""
    quiet: dict[str, Any] = {
        "paused": False,
        "problems": [],
        "halted": "",
        "warnings": [],
        "drift": [],
        "brokers": {"PAPER": {"connected": True, "problem": "", "mode": "PAPER"}},
        "unresolved_orders": [],
        "resting_orders": [],
        "positions": [],
        "accounts": [],
        "notices": [],
        "journal_problem": "",
        "csv_lag": {"signals": 0, "trades": 0},
        "csv_problems": {},
        "latencies_ms": {"orders": 0},
        "trades_today": 0,
        "max_trades_per_day": 10,
        "open_trades": 0,
        "max_open_trades": 3,
        "realized_pnl_today": D(0),
        "max_daily_loss_usdt": None,
    }
    return quiet | more


def position(**more: Any) -> dict[str, Any]:
    return {
        "broker": "PAPER",
        "market": "spot",
        "symbol": "BTCUSDT",
        "side": "LONG",
        "quantity": D("0.5"),
        "average_price": D(100),
        "cost": D(50),
        "price": D(110),
        "leverage": D(1),
        "unrealized_pnl": D(5),
        "stop_loss": None,
        "take_profit": None,
        "trailing_percent": None,
    } | more


def resting(**more: Any) -> dict[str, Any]:
    return {
        "broker": "PAPER",
        "market": "spot",
        "symbol": "BTCUSDT",
        "side": "SELL",
        "type": "STOP",
        "status": "NEW",
        "leg": "stop_loss",
        "stop_price": D(90),
        "limit_price": None,
        "client_order_id": "gh1",
        "received_at": NOW,
        "note": None,
    } | more


# --- the mode ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modes", "name", "says"),
    [
        ({"PAPER": "PAPER"}, "PAPER", "play money: nothing leaves this machine"),
        ({"PAPER": "PAPER", "BINANCE": "TESTNET"}, "TESTNET", "BINANCE: the exchange's play money"),
        ({"PAPER": "PAPER", "BINANCE": "TESTNET", "BINANCE_REAL": "LIVE"}, "LIVE", "BINANCE_REAL: real money"),
        ({"PAPER": "PAPER", "BINANCE": "LIVE", "BINANCE_REAL": "LIVE"}, "LIVE", "BINANCE, BINANCE_REAL: real money"),
    ],
)
def test_the_most_serious_mode_is_the_one_that_is_shown(modes: dict[str, str], name: str, says: str) -> None:
    assert mode_of(modes) == (name, says)


# --- alarms -----------------------------------------------------------------------------------------------------------


def test_a_quiet_daemon_has_no_alarms() -> None:
    assert alarms(state()) == []


@pytest.mark.parametrize(
    ("seen", "tone", "words"),
    [
        ({"problems": ["cannot write the journal"]}, "danger", "cannot write the journal"),
        ({"halted": "no idea"}, "danger", "Trading is halted: no idea"),
        (
            {"brokers": {"BINANCE": {"connected": False, "problem": "timed out"}}},
            "danger",
            "BINANCE cannot be reached: t",
        ),
        ({"unresolved_orders": [resting(status="UNKNOWN")]}, "warning", "1 orders with an unknown outcome"),
        (
            {"unresolved_orders": [resting(status="UNKNOWN", asked_of_owner=True)]},
            "warning",
            "1 orders of which only you",
        ),
        ({"drift": [{"asset": "BTC"}]}, "warning", "Books and accounts differ"),
        ({"warnings": ["HOST is 0.0.0.0"]}, "warning", "HOST is 0.0.0.0"),
    ],
    ids=str,
)
def test_what_somebody_should_look_at_is_said(seen: dict[str, Any], tone: str, words: str) -> None:
    (alarm,) = alarms(state(**seen))
    assert alarm["tone"] == tone
    assert alarm["text"].startswith(words)


def test_the_worst_comes_first() -> None:
    found = alarms(state(warnings=["a"], halted="b", drift=[{}]))
    assert [alarm["tone"] for alarm in found] == ["danger", "warning", "warning"]


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trades", "tone", "share"),
    [(0, "fine", 0), (7, "fine", 70), (8, "near", 80), (9, "near", 90), (10, "full", 100), (12, "full", 100)],
)
def test_a_bar_says_how_near_the_limit_is(trades: int, tone: str, share: int) -> None:
    bar = bars(state(trades_today=trades))[0]
    assert (bar["text"], bar["tone"], bar["share"]) == (f"{trades} of 10", tone, share)


def test_a_loss_counts_against_its_limit_and_a_gain_does_not() -> None:
    lost = bars(state(realized_pnl_today=D("-40"), max_daily_loss_usdt=D(50)))[2]
    assert (lost["text"], lost["tone"]) == ("40 of 50 USDT", "near")
    won = bars(state(realized_pnl_today=D("40"), max_daily_loss_usdt=D(50)))[2]
    assert won["share"] == 0


def test_a_limit_of_zero_is_reached() -> None:
    assert bars(state(max_trades_per_day=0))[0]["tone"] == "full"


# --- positions --------------------------------------------------------------------------------------------------------


def legs(resting_orders: list[dict[str, Any]], **wanted: Any) -> list[tuple[str, bool]]:
    view = overview(state(positions=[position(**wanted)], resting_orders=resting_orders), [])
    return [(leg["text"], leg["placed"]) for leg in view["positions"][0]["legs"]]


def test_protection_that_waits_at_the_exchange_is_told_from_what_is_only_wanted() -> None:
    wanted = {"stop_loss": D(90), "take_profit": D(120)}
    assert legs([resting()], **wanted) == [("stop 90", True), ("target 120", False)]


def test_protection_of_another_position_is_not_this_ones() -> None:
    for other in ({"symbol": "ETHUSDT"}, {"broker": "BINANCE"}, {"market": "futures"}, {"leg": ""}):
        assert legs([resting(**other)], stop_loss=D(90)) == [("stop 90", False)]


def test_a_position_says_its_gain_in_percent_of_its_cost() -> None:
    view = overview(state(positions=[position()]), [])["positions"][0]
    assert view["percent"] == 10
    assert overview(state(positions=[position(unrealized_pnl=None)]), [])["positions"][0]["percent"] is None


# --- numbers and times ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, DASH), (D(0), "0.00"), (D("1234567.891"), "1,234,567.89"), (D("12.5"), "12.50"),
        (D("0.000123456"), "0.0001235"), (D("-0.5"), "-0.50"), (D("1E+6"), "1,000,000.00"), (D("0.001"), "0.001"),
    ],
)  # fmt: skip
def test_money_is_written_with_cents_and_never_with_an_exponent(value: D | None, text: str) -> None:
    assert money(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, DASH), (D("43000"), "43,000.00"), (D("43044.04404404404"), "43,044.04"), (D("0.00001234"), "0.00001234"),
        (D("1.23456789"), "1.234568"), (D("2500.5"), "2,500.50"),
    ],
)  # fmt: skip
def test_prices_keep_the_digits_that_matter(value: D | None, text: str) -> None:
    assert price(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(D("12.5"), "+12.50"), (D("-12.5"), "\N{MINUS SIGN}12.50"), (D(0), "0.00"), (D("0.001"), "+0.001"), (None, DASH)],
)
def test_gains_and_losses_carry_their_sign(value: D | None, text: str) -> None:
    assert signed(value) == text


def test_a_gain_is_green_and_a_loss_is_red() -> None:
    assert 'class="gain"' in gain(D(1))
    assert 'class="loss"' in gain(D(-1))
    assert 'class="even"' in gain(D(0))
    assert 'class="even"' in gain(None)


def test_times_are_utc_whatever_zone_they_came_in() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=9)))
    assert moment(elsewhere) == moment(NOW)
    assert ">2026-01-31 12:00:05<" in moment(NOW)
    assert moment(None) == DASH


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0.04, "0.0 ms"), (9.94, "9.9 ms"), (103.4, "103 ms"), (1500, "1.5 s"), (600_000, "10 min")],
)
def test_waits_are_written_in_the_unit_that_fits(milliseconds: float, text: str) -> None:
    assert took(milliseconds) == text


def test_plain_numbers_have_no_exponent() -> None:
    assert plain(D("1E-8")) == "0.00000001"


def test_an_address_of_a_file_changes_with_its_content() -> None:
    assert static_address("page.css") != static_address("page.js").replace(".js", ".css")
    with pytest.raises(FileNotFoundError):
        static_address("no such file")


def test_text_of_others_never_becomes_part_of_the_page() -> None:
    hostile = '"><script>alert(1)</script>'
    html = render("_alarms.html", s={"alarms": [{"tone": "danger", "text": hostile}]})
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_every_setting_stands_once_on_its_page() -> None:
    settings = Settings()
    view = settings_view(in_force(settings, {}), None)
    names = [preference["name"] for group in view["groups"] for preference in group["preferences"]]
    assert sorted(names) == sorted(NAMES)
    assert all(preference["help"] for group in view["groups"] for preference in group["preferences"])


# --- filters ----------------------------------------------------------------------------------------------------------


def test_nothing_asked_for_is_everything() -> None:
    asked = read_filter({})
    assert asked.wanted == read_filter({"symbol": "", "since": " ", "other": "x"}).wanted
    assert (asked.before, asked.problem, dict(asked.fields)) == (None, "", {})


def test_a_filter_wants_both_of_its_days_whole() -> None:
    wanted = read_filter({"since": "2026-01-30", "until": "2026-01-31"}).wanted
    assert wanted.since == datetime(2026, 1, 30, tzinfo=UTC)
    assert wanted.until == datetime(2026, 2, 1, tzinfo=UTC)


def test_decision_and_status_are_words_that_there_are() -> None:
    assert read_filter({"decision": "REJECTED"}).wanted.decision is Decision.REJECTED
    assert read_filter({"status": "FILLED"}).wanted.status is OrderStatus.FILLED


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"decision": "MAYBE"}, "decision must be one of ACCEPTED, "),
        ({"status": "x"}, "status must be one of "),
        ({"since": "yesterday"}, "since must be a day such as 2026-01-31"),
        ({"until": "9999-12-31"}, "until must be a day"),
        ({"until": "2026-02-30"}, "until must be a day"),
        ({"before": "-1"}, "before must be a row's number"),
        ({"before": "1" * 20}, "before must be a row's number"),
    ],
    ids=str,
)
def test_a_filter_that_is_not_understood_says_so(query: dict[str, str], words: str) -> None:
    asked = read_filter(query)
    assert asked.problem.startswith(words)


def test_links_carry_the_filter_and_downloads_end_where_the_page_does() -> None:
    asked = read_filter({"symbol": "BTCUSDT", "until": "2026-01-31", "before": "77"})
    view = rows_view(SIGNALS_TABLE, asked, Records([{}], 12), ["BTCUSDT"], [])
    assert view["older"] == "/ui/signals?symbol=BTCUSDT&until=2026-01-31&before=12"
    assert view["newest"] == "/ui/signals?symbol=BTCUSDT&until=2026-01-31"
    assert view["csv"] == "/logs/signals.csv?symbol=BTCUSDT&until=2026-02-01"
    last = rows_view(TRADES_TABLE, read_filter({}), Records([], None), [], [])
    assert (last["older"], last["newest"], last["csv"]) == (None, None, "/logs/trades.csv")


def test_a_choice_that_is_not_known_any_more_stays_chosen() -> None:
    view = rows_view(SIGNALS_TABLE, read_filter({"symbol": "OLDUSDT"}), Records([], None), ["BTCUSDT"], [])
    assert view["filters"][0]["choices"] == ["OLDUSDT", "BTCUSDT"]


def test_a_name_is_asked_for_with_all_its_blanks() -> None:
    """What stands between the tags of an option is sent with one blank in place of several, and would find nothing."""
    common = {"here": "", "tabs": (), "token": "", "mode": mode_of({}), "started_at": None}
    view = rows_view(SIGNALS_TABLE, read_filter({"strategy": "a  b"}), Records([], None), [], ["a  b", '"'])
    view["s"] |= {"paused": False}
    page = render("rows.html", **common, **view)
    assert '<option value="a  b" selected>a  b</option><option value="&#34;">&#34;</option>' in page
