"""Settings that change while it runs: what may be asked for, what holds from then on, and what survives."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from builders import LIMITS, NOW, decide
from harness import SECRET, Daemon, Nursery, Reply, eventually, full_disk
from pydantic import ValidationError

from books import Preference
from config import Settings
from events import Change, Event, Preferred
from journal import Journal, JournalError
from models import Action, Signal
from preferences import GROUPS, InForce, LimitsInForce, PreferenceError
from risk import RiskEngine

Make = Callable[..., Daemon]
BUY: dict[str, Any] = {"symbol": "BTCUSDT", "side": "buy", "price": 100}
NUMBERS = {
    "min_confidence", "default_confidence", "min_balance_usdt", "max_risk_per_trade", "trade_amount_usdt",
    "max_open_trades", "max_trades_per_day", "cooldown_seconds", "max_daily_loss_usdt", "max_signal_age_seconds",
    "dedupe_seconds", "flattrade_min_balance", "flattrade_max_risk_per_trade", "flattrade_trade_amount",
}  # fmt: skip
PERCENTS = {"stop_loss_percent", "take_profit_percent", "trailing_stop_percent"}
NAMES = NUMBERS | PERCENTS | {
    "allowed_symbols", "allowed_strategies", "direction", "leverage", "max_leverage", "capital_allocation_percent"
}  # fmt: skip


def change(daemon: Daemon, target: str, body: Any = None, **settings: Any) -> Reply:
    """As the owner, with the secret in the header."""
    text = json.dumps(settings) if body is None else body
    data = text.encode() if isinstance(text, str) else text
    return daemon.request("POST", f"/preferences/{target}", data, Authorization=f"Bearer {SECRET}")


def current(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.owner_get("/preferences/current")["preferences"]
    return found


def values(daemon: Daemon) -> dict[str, Any]:
    return {name: shown["value"] for name, shown in current(daemon).items()}


def changed(daemon: Daemon) -> dict[str, Any]:
    return {name: shown["value"] for name, shown in current(daemon).items() if shown["changed"]}


def buy(daemon: Daemon, number: Any = 100, **more: Any) -> Reply:
    return daemon.post(**(BUY | {"price": number} | more))


@pytest.fixture(scope="module")
def door(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the tests that change nothing for good."""
    daemon = Daemon(nursery, tmp_path_factory.mktemp("door"), cooldown_seconds=0).start()
    yield daemon
    daemon.kill()


@pytest.fixture
def fresh(door: Daemon) -> Iterator[Daemon]:
    """The same one, as it started."""
    yield door
    assert change(door, "reset").status == 200


# --- looking ----------------------------------------------------------------------------------------------------------


def test_every_preference_is_shown_with_its_value_its_default_and_that_nobody_changed_it(daemon_with: Make) -> None:
    daemon = daemon_with(max_open_trades=7, allowed_symbols="BTC/USDT, ethusdt", max_daily_loss_usdt="12.5").start()
    reply = daemon.get("/preferences/current", secret=SECRET)
    assert reply.status == 200
    assert reply.body.keys() == {"preferences", "warnings", "groups"}
    shown = reply["preferences"]
    assert shown.keys() == NAMES
    for name, preference in shown.items():
        assert preference.keys() == {"value", "default", "changed", "changed_at", "changed_by"}, name
        assert preference["value"] == preference["default"], name
        assert (preference["changed"], preference["changed_at"], preference["changed_by"]) == (False, None, None), name
    names = ("max_open_trades", "allowed_symbols", "max_daily_loss_usdt", "allowed_strategies", "stop_loss_percent")
    assert [shown[name]["value"] for name in names] == [7, ["BTCUSDT", "ETHUSDT"], 12.5, "all", "off"]


def test_the_groups_are_told_and_hold_every_preference(door: Daemon) -> None:
    groups = door.owner_get("/preferences/current")["groups"]
    assert set(groups["limits"]) == NUMBERS
    assert set(groups["protection"]) == PERCENTS
    assert {name for group in groups.values() for name in group} == NAMES
    assert set(groups) == {"symbols", "strategies", "direction", "leverage", "capital", "limits", "protection"}


def test_a_change_is_shown_with_its_time_and_the_default_that_it_replaces(fresh: Daemon) -> None:
    before = datetime.now(UTC)
    reply = change(fresh, "max_open_trades", value=5)
    (shown,) = reply["preferences"].values()
    assert (shown["value"], shown["default"], shown["changed"]) == (5, 3, True)
    assert shown["changed_by"] == "secret from 127.0.0.1"
    assert shown["changed_at"].endswith("Z")
    since = datetime.fromisoformat(shown["changed_at"])
    assert abs((since - before).total_seconds()) < 10
    assert current(fresh)["max_open_trades"] == shown


def test_status_shows_the_limits_in_force_and_how_many_differ_from_the_settings(fresh: Daemon) -> None:
    assert fresh.owner_get("/status")["preferences_differing"] == 0
    assert change(fresh, "limits", max_open_trades=5, max_trades_per_day=10).status == 200
    status = fresh.owner_get("/status")
    assert status["preferences_differing"] == 1, "10 is the default of the other one"
    assert (status["limits"]["max_open_trades"], status["max_open_trades"]) == (5, 5)
    assert "preferences_differing" not in fresh.get("/status").body


def test_the_warnings_are_about_what_is_in_force(fresh: Daemon) -> None:
    before = fresh.owner_get("/status")["warnings"]
    reply = change(fresh, "trade_amount_usdt", value=11)
    (warning,) = [warning for warning in reply["warnings"] if warning not in before]
    assert warning.startswith("TRADE_AMOUNT_USDT (11) is above MAX_RISK_PER_TRADE (10, the default)")
    assert (
        fresh.owner_get("/status")["warnings"]
        == fresh.owner_get("/preferences/current")["warnings"]
        == [*before, warning]
    )


# --- every name, every group ------------------------------------------------------------------------------------------

SINGLE: list[tuple[str, object, object]] = [
    ("min_confidence", 70, 70),
    ("min_confidence", 0, 0),
    ("default_confidence", "62.5", 62.5),
    ("min_balance_usdt", 0, 0),
    ("max_risk_per_trade", 0.1, 0.1),
    ("trade_amount_usdt", " 12.5 ", 12.5),
    ("max_open_trades", 5, 5),
    ("max_trades_per_day", "5", 5),
    ("cooldown_seconds", 604_800, 604_800),
    ("max_daily_loss_usdt", 20, 20),
    ("max_daily_loss_usdt", "off", "off"),
    ("max_signal_age_seconds", 1, 1),
    ("dedupe_seconds", 20, 20),
    ("allowed_symbols", ["BTC/USDT", "ethusdt"], ["BTCUSDT", "ETHUSDT"]),
    ("allowed_symbols", "BTCUSDT, ETHUSDT", ["BTCUSDT", "ETHUSDT"]),
    ("allowed_symbols", "All", "all"),
    ("allowed_strategies", ["trend", "ALSAPRO 1"], ["trend", "ALSAPRO 1"]),
    ("allowed_strategies", ["all"], ["all"]),
    ("direction", "LONG", "long"),
    ("leverage", 1, 1),
    ("max_leverage", 150, 150),
    ("capital_allocation_percent", 100, 100),
    ("capital_allocation_percent", "OFF", "off"),
    ("stop_loss_percent", "off", "off"),
    ("take_profit_percent", "off", "off"),
    ("trailing_stop_percent", "off", "off"),
    ("flattrade_min_balance", 0, 0),
    ("flattrade_max_risk_per_trade", "25000", 25_000),
    ("flattrade_trade_amount", 2500.5, 2500.5),
]


def test_every_setting_can_be_changed_by_its_name(fresh: Daemon) -> None:
    assert {name for name, _, _ in SINGLE} == NAMES
    for name, sent, shown in SINGLE:
        for field in ("value", name, name.upper()):
            reply = change(fresh, name, **{field: sent})
            assert (reply.status, reply["preferences"].keys()) == (200, {name}), (name, reply.body)
            assert reply["preferences"][name]["value"] == shown
        assert values(fresh)[name] == shown
    assert change(fresh, "MAX_OPEN_TRADES", value=4).status == 200


GROUP_BODIES: list[tuple[str, dict[str, object], dict[str, object]]] = [
    ("symbols", {"value": ["BTCUSDT"]}, {"allowed_symbols": ["BTCUSDT"]}),
    ("symbols", {"symbols": "ETHUSDT"}, {"allowed_symbols": ["ETHUSDT"]}),
    ("symbols", {"allowed_symbols": "all"}, {"allowed_symbols": "all"}),
    ("strategies", {"strategies": ["trend"]}, {"allowed_strategies": ["trend"]}),
    ("direction", {"direction": "long"}, {"direction": "long"}),
    ("leverage", {"value": 1}, {"leverage": 1}),
    ("leverage", {"leverage": 1, "max_leverage": 3}, {"leverage": 1, "max_leverage": 3}),
    ("leverage", {"max_leverage": 4}, {"max_leverage": 4}),
    ("capital", {"value": 25}, {"capital_allocation_percent": 25}),
    (
        "capital", {"capital_allocation_percent": "off", "trade_amount_usdt": 9},
        {"capital_allocation_percent": "off", "trade_amount_usdt": 9},
    ),
    ("limits", {"max_open_trades": 5, "cooldown_seconds": 0}, {"max_open_trades": 5, "cooldown_seconds": 0}),
    ("protection", dict.fromkeys(sorted(PERCENTS), "off"), dict.fromkeys(PERCENTS, "off")),
]  # fmt: skip


def test_every_group_takes_its_settings_by_name(fresh: Daemon) -> None:
    assert {group for group, _, _ in GROUP_BODIES} == set(GROUPS)
    for group, sent, shown in GROUP_BODIES:
        reply = change(fresh, group, **sent)
        assert reply.status == 200, (group, reply.body)
        assert {name: preference["value"] for name, preference in reply["preferences"].items()} == shown
        assert values(fresh).items() >= shown.items()


def test_all_the_numeric_limits_fit_in_one_body(fresh: Daemon) -> None:
    numbers: dict[str, object] = {name: sent for name, sent, _ in SINGLE if name in NUMBERS}
    assert change(fresh, "limits", **numbers)["preferences"].keys() == NUMBERS


def test_a_value_can_be_sent_back_as_it_is_shown(fresh: Daemon) -> None:
    assert change(fresh, "capital", capital_allocation_percent=12.5, trade_amount_usdt=0.3).status == 200
    before = values(fresh)
    for name, value in before.items():
        assert change(fresh, name, value=value).status == 200, name
    assert values(fresh) == before


def test_numbers_never_pass_through_a_float(paper: Daemon) -> None:
    assert change(paper, "max_risk_per_trade", '{"value": 12.000000000000001}').status == 200
    with sqlite3.connect(f"file:{paper.folder / 'logs' / 'journal.db'}?mode=ro", uri=True) as connection:
        ((body,),) = connection.execute("SELECT body FROM events WHERE kind = 'preferred'").fetchall()
    assert json.loads(body.rpartition("#")[0])["changes"] == [
        {"name": "max_risk_per_trade", "text": "12.000000000000001"}
    ]
    paper.restart()
    refused = buy(paper, quantity="0.12000000000000002")
    assert (refused["check"], buy(paper, quantity="0.12")["decision"]) == ("precision", "ACCEPTED")


# --- the next alert obeys ---------------------------------------------------------------------------------------------

OBEYED: list[tuple[str, dict[str, object], dict[str, object], str]] = [
    ("symbols", {"value": ["ETHUSDT"]}, {}, "symbol"),
    ("strategies", {"value": "swing"}, {"strategy": "trend"}, "strategy"),
    ("direction", {"value": "short"}, {}, "direction"),
    ("min_confidence", {"value": 90}, {"confidence": 89}, "confidence"),
    ("default_confidence", {"value": 49}, {}, "confidence"),
    ("min_balance_usdt", {"value": 101}, {}, "balance"),
    ("max_risk_per_trade", {"value": 9}, {}, "size"),
    ("trade_amount_usdt", {"value": 11}, {}, "size"),
    ("capital", {"value": 11}, {}, "size"),
    ("max_signal_age_seconds", {"value": 1}, {"timenow": "2026-01-02T03:04:05Z"}, "stale"),
]


@pytest.mark.parametrize(("target", "body", "alert", "check"), OBEYED, ids=[row[0] for row in OBEYED])
def test_the_very_next_alert_obeys(
    paper: Daemon, target: str, body: dict[str, object], alert: dict[str, object], check: str
) -> None:
    assert change(paper, target, **body).status == 200
    assert buy(paper, **alert)["check"] == check
    assert buy(paper, 99, **alert)["check"] == check
    assert change(paper, "reset").status == 200
    assert "timenow" in alert or buy(paper, 98, **alert)["decision"] == "ACCEPTED"


def test_counts_that_are_used_up_are_judged_by_the_new_limit(paper: Daemon) -> None:
    assert buy(paper)["decision"] == "ACCEPTED"
    assert change(paper, "limits", max_open_trades=1).status == 200
    assert buy(paper, 101)["check"] == "open_trades"
    assert change(paper, "limits", max_open_trades=2, max_trades_per_day=1).status == 200
    assert buy(paper, 102)["check"] == "daily_limit"
    assert change(paper, "limits", max_trades_per_day=2, cooldown_seconds=60).status == 200
    assert buy(paper, 103)["check"] == "cooldown"
    assert change(paper, "limits", cooldown_seconds=0).status == 200
    assert buy(paper, 104)["decision"] == "ACCEPTED"


def test_a_days_loss_that_is_there_already_counts(paper: Daemon) -> None:
    assert buy(paper)["decision"] == "ACCEPTED"
    assert paper.post(symbol="BTCUSDT", side="sell", price=50)["decision"] == "ACCEPTED"
    assert change(paper, "max_daily_loss_usdt", value=5).status == 200
    assert buy(paper, 51)["check"] == "daily_loss"
    assert change(paper, "max_daily_loss_usdt", value="off").status == 200
    assert buy(paper, 52)["decision"] == "ACCEPTED"


def test_how_long_a_repeat_is_remembered_can_be_changed(paper: Daemon) -> None:
    assert buy(paper)["decision"] == "ACCEPTED"
    paper.move_clock(61)
    assert change(paper, "dedupe_seconds", value=600).status == 200
    assert buy(paper)["decision"] == "DUPLICATE"
    assert change(paper, "dedupe_seconds", value=20).status == 200
    assert buy(paper)["decision"] == "ACCEPTED"


def test_a_dry_run_obeys_too(paper: Daemon) -> None:
    assert change(paper, "symbols", value="ETHUSDT").status == 200
    assert paper.post("/webhook?dry_run=true", **BUY)["check"] == "symbol"


# --- what survives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_a_restart_remembers_what_was_changed_and_when(paper: Daemon, how: str) -> None:
    assert change(paper, "symbols", value=["ETHUSDT"]).status == 200
    assert change(paper, "limits", max_open_trades=5, max_daily_loss_usdt="off", dedupe_seconds=100).status == 200
    assert change(paper, "dedupe_seconds", value=None).status == 200
    before = current(paper)
    getattr(paper, how)()
    paper.start()
    assert current(paper) == before
    assert changed(paper) == {"allowed_symbols": ["ETHUSDT"], "max_open_trades": 5, "max_daily_loss_usdt": "off"}
    assert buy(paper)["check"] == "symbol"


def test_a_change_that_died_on_its_way_to_the_disk_is_wholly_gone(daemon_with: Make) -> None:
    daemon = daemon_with().start(crash_at="inside the decision's transaction")
    with pytest.raises((OSError, EOFError)):
        change(daemon, "limits", max_open_trades=5, cooldown_seconds=0)
    daemon.wait_until_dead()
    daemon.start()
    assert changed(daemon) == {}


def test_a_preference_wins_over_new_settings_until_it_is_reset(daemon_with: Make) -> None:
    daemon = daemon_with(max_open_trades=4).start()
    assert change(daemon, "limits", max_open_trades=5).status == 200
    daemon.kill()
    daemon.set(max_open_trades=6, max_trades_per_day=7)
    daemon.start()
    shown = current(daemon)["max_open_trades"]
    assert (shown["value"], shown["default"], shown["changed"]) == (5, 6, True)
    assert values(daemon)["max_trades_per_day"] == 7
    assert change(daemon, "max_open_trades", value=None)["preferences"]["max_open_trades"]["value"] == 6
    daemon.restart()
    assert values(daemon)["max_open_trades"] == 6


def test_off_is_remembered_as_off_and_default_as_default(daemon_with: Make) -> None:
    percent = {"capital_allocation_percent": 50}
    daemon = daemon_with(max_daily_loss_usdt=5, allowed_symbols="BTCUSDT", **percent).start()
    for target, word in (("max_daily_loss_usdt", "off"), ("capital_allocation_percent", "off"), ("symbols", "all")):
        assert change(daemon, target, value=word).status == 200
    daemon.restart()
    off = {"max_daily_loss_usdt": "off", "capital_allocation_percent": "off", "allowed_symbols": "all"}
    assert changed(daemon) == off
    limits = daemon.owner_get("/status")["limits"]
    assert [limits[name] for name in off] == [None, None, []]
    assert change(daemon, "reset").status == 200
    daemon.restart()
    assert changed(daemon) == {}
    limits = daemon.owner_get("/status")["limits"]
    assert [limits[name] for name in off] == [5, 50, ["BTCUSDT"]]


def test_a_preference_that_equals_the_default_outlives_a_new_default(daemon_with: Make) -> None:
    daemon = daemon_with(max_open_trades=4).start()
    assert change(daemon, "max_open_trades", value=4).status == 200
    daemon.kill()
    daemon.set(max_open_trades=9)
    assert values(daemon.start())["max_open_trades"] == 4


# --- back to the default ----------------------------------------------------------------------------------------------


def test_null_takes_one_back_and_reset_all(fresh: Daemon) -> None:
    assert change(fresh, "limits", max_open_trades=5, cooldown_seconds=9, max_trades_per_day=8).status == 200
    assert change(fresh, "limits", max_open_trades=None, cooldown_seconds=7).status == 200
    assert changed(fresh) == {"cooldown_seconds": 7, "max_trades_per_day": 8}
    reply = change(fresh, "reset", b"")
    assert (reply.status, reply["preferences"].keys()) == (200, NAMES)
    assert changed(fresh) == {}


# --- what is refused --------------------------------------------------------------------------------------------------

BAD_VALUES: list[tuple[str, object]] = [
    ("min_confidence", -1), ("min_confidence", 100.1), ("default_confidence", "much"), ("min_balance_usdt", -0.01),
    ("max_risk_per_trade", 0), ("max_risk_per_trade", "1e3"), ("trade_amount_usdt", -5), ("max_open_trades", 0),
    ("max_open_trades", 2.5), ("max_open_trades", True), ("max_open_trades", "off"), ("max_trades_per_day", "ten"),
    ("cooldown_seconds", -1), ("cooldown_seconds", 604801), ("max_daily_loss_usdt", 0), ("max_daily_loss_usdt", "no"),
    ("max_signal_age_seconds", 0), ("dedupe_seconds", 19), ("allowed_symbols", "BTC USDT"), ("allowed_symbols", []),
    ("allowed_symbols", ""), ("allowed_symbols", ","), ("allowed_symbols", ["", " "]), ("allowed_symbols", [["A"]]),
    ("allowed_symbols", [None]), ("allowed_symbols", ["BTCUSDT", 5]), ("allowed_symbols", ["BTCUSDT,ETHUSDT"]),
    ("allowed_strategies", []), ("allowed_strategies", "a\nb"), ("allowed_strategies", {"a": 1}), ("direction", "up"),
    ("direction", ["long"]), ("direction", ""), ("leverage", 0), ("leverage", 11), ("leverage", 151),
    ("max_leverage", 0), ("max_leverage", 151), ("capital_allocation_percent", 0),
    ("capital_allocation_percent", 100.1), ("stop_loss_percent", 0), ("take_profit_percent", 101),
    ("trailing_stop_percent", -1), ("max_open_trades", [5]),
]  # fmt: skip


def test_a_value_that_no_start_would_accept_is_refused_by_name_and_changes_nothing(fresh: Daemon) -> None:
    before = current(fresh)
    for name, value in BAD_VALUES:
        reply = change(fresh, name, value=value)
        assert (reply.status, reply["field"]) == (400, name), (name, value, reply.body)
        assert not reply["success"]
        assert name in reply["error"].lower()
        assert "must " in reply["error"] or "wanted " in reply["error"], reply["error"]
    assert current(fresh) == before


SAID: list[tuple[str, str, str]] = [
    ("max_open_trades", '{"value": "three"}', "MAX_OPEN_TRADES must be a whole number of 1 or more, was 'three'"),
    ("leverage", '{"value": 11}', "LEVERAGE (11) must not be above MAX_LEVERAGE (10, the default)"),
    ("symbols", '{"value": []}', "saw 'an empty list', wanted one line of printable characters, \"all\", or null for"),
    ("max_daily_loss_usdt", '{"value": ""}', 'wanted one line of printable characters, "off", or null for the default'),
    ("limits", '{"value": 5}', "value: saw 'a field that is not among them', wanted one of min_confidence, "),
    ("max_open_trades", '{"cooldown_seconds": 5}', "wanted one of value, max_open_trades"),
    ("limits", "{}", "body: saw 'none of them', wanted one of min_confidence, "),
    ("limits", "", "body: saw nothing, wanted a JSON object such as"),
    ("limits", "max_open_trades=5", "wanted a JSON object such as"),
    ("limits", "[5]", "wanted a JSON object such as"),
    ("limits", '{"max_open_trades": 5,}', "remove the comma before the closing bracket"),
    ("limits", '{"max_open_trades": 5, "max_open_trades": 6}', "wanted each field once"),
    ("limits", '{"max_open_trades": 5, "MAX_OPEN_TRADES": 6}', "wanted each setting once"),
    ("max_open_trades", '{"max_open_trades": 5, "value": 6}', "wanted each setting once"),
    ("max_risk_per_trade", '{"value": NaN}', "saw 'NaN', wanted a plain number"),
    ("max_risk_per_trade", '{"value": 1e1}', "MAX_RISK_PER_TRADE must be a number above 0, like 12.5, was '1e1'"),
    ("max_open_trades", '{"value": 5.0}', "MAX_OPEN_TRADES must be a whole number of 1 or more, was '5.0'"),
    ("strategies", '{"value": "{{strategy}}"}', "did not fill in this placeholder"),
]


@pytest.mark.parametrize(("target", "body", "said"), SAID, ids=range(len(SAID)))
def test_a_refusal_says_what_was_seen_and_what_was_wanted(fresh: Daemon, target: str, body: str, said: str) -> None:
    reply = change(fresh, target, body)
    assert reply.status == 400
    assert said in reply["error"]
    assert changed(fresh) == {}


def test_several_settings_in_one_body_are_all_taken_or_none(fresh: Daemon) -> None:
    reply = change(fresh, "limits", max_open_trades=5, dedupe_seconds=19, max_trades_per_day=0)
    assert (reply.status, reply["field"]) == (400, "dedupe_seconds")
    assert "DEDUPE_SECONDS" in reply["error"]
    assert "MAX_TRADES_PER_DAY" in reply["error"]
    assert change(fresh, "limits", max_open_trades=5, max_fun=9)["field"] == "max_fun"
    assert changed(fresh) == {}


@pytest.mark.parametrize(
    "name", ["max_fun", "value", "current", "webhook_secret_key", "port", "%00", "binance_testnet"]
)
def test_an_unknown_preference_is_a_404_with_the_names_that_there_are(fresh: Daemon, name: str) -> None:
    reply = change(fresh, name, value=5)
    assert reply.status == 404
    assert set(reply["names"]) == NAMES | set(GROUPS) | {"reset"}
    assert "max_open_trades" in reply["error"]


AS_AT_START: list[tuple[str, str]] = [
    (name, value)
    for name in sorted(NAMES)
    for value in (
        "0",
        "1",
        "10",
        "11",
        "19",
        "20",
        "100",
        "100.5",
        "150",
        "151",
        "-1",
        "long",
        "both",
        "BTCUSDT",
        "a b",
    )
]


def test_exactly_what_a_start_accepts_is_accepted(fresh: Daemon) -> None:
    wrong = []
    for name, value in AS_AT_START:
        try:
            Settings(**{name: value})  # type: ignore[arg-type]
            wanted = 200
        except ValidationError:
            wanted = 400
        reply = change(fresh, name, value=value)
        if reply.status != wanted:
            wrong.append((name, value, reply.body))
        assert change(fresh, name, value=None).status == 200
    assert wrong == []


# --- who may ----------------------------------------------------------------------------------------------------------


def test_without_the_secret_nothing_is_shown_and_nothing_changes(fresh: Daemon) -> None:
    for reply in (
        fresh.get("/preferences/current"),
        fresh.get("/preferences/current", secret="wrong"),
        fresh.request("POST", "/preferences/limits", b'{"max_open_trades": 5}'),
        fresh.request("POST", "/preferences/limits", b'{"max_open_trades": 5, "secret": "wrong"}'),
        fresh.request("POST", "/preferences/limits", b'{"max_open_trades": 5}', Authorization="Bearer wrong"),
        fresh.request("POST", "/preferences/max_fun", b"{}"),
        fresh.request("POST", "/preferences/reset", b""),
    ):
        assert (reply.status, reply.body) == (401, {"success": False, "error": "unauthorised: send the webhook secret"})
    assert changed(fresh) == {}


@pytest.mark.parametrize("field", ["secret", "passphrase", "token"])
def test_the_secret_may_stand_in_the_body(fresh: Daemon, field: str) -> None:
    body = json.dumps({field: SECRET, "max_open_trades": 5}).encode()
    assert fresh.request("POST", "/preferences/limits", body).status == 200
    assert changed(fresh) == {"max_open_trades": 5}
    assert fresh.request("POST", "/preferences/reset", json.dumps({field: SECRET}).encode()).status == 200
    assert changed(fresh) == {}


def test_the_secret_is_never_repeated_nor_kept_as_a_value(fresh: Daemon) -> None:
    replies = [
        change(fresh, "max_open_trades", value=SECRET),
        change(fresh, "strategies", value=[f"a {SECRET} b"]),
        change(fresh, "strategies", value=SECRET),
        change(fresh, "strategies", value="x" * 70 + SECRET),
        change(fresh, "limits", **{SECRET: 5}),
        change(fresh, SECRET, value=5),
        change(fresh, "limits", f'{{"max_open_trades": {SECRET}}}'),
    ]
    assert [reply.status for reply in replies] == [400, 400, 400, 400, 400, 404, 400]
    assert [reply.body for reply in replies if SECRET[:8] in json.dumps(reply.body)] == []
    assert SECRET[:8] not in fresh.log()
    assert changed(fresh) == {}


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_while_the_journal_cannot_be_written_nothing_changes(paper: Daemon) -> None:
    assert change(paper, "limits", max_open_trades=5).status == 200
    with full_disk(paper):
        for reply in (change(paper, "limits", max_open_trades=6), change(paper, "reset")):
            assert (reply.status, reply["error"]) == (503, "the journal cannot be written; nothing was changed")
        assert paper.get("/health").status == 503
        assert changed(paper) == {"max_open_trades": 5}
    eventually(paper.is_healthy, 5, lambda: "it does not heal")
    assert changed(paper) == {"max_open_trades": 5}
    paper.restart()
    assert changed(paper) == {"max_open_trades": 5}
    assert change(paper, "limits", max_open_trades=6).status == 200


# --- what does not fit any more ---------------------------------------------------------------------------------------


def leave(daemon: Daemon, **texts: str) -> None:
    """Preferences of an earlier run, when they were still good."""
    journal = Journal(daemon.folder / "logs" / "journal.db")
    journal.append([Preferred(tuple(Change(name, text) for name, text in texts.items()), NOW)])
    journal.close()


def test_a_preference_that_does_not_fit_any_more_is_ignored_loudly_and_stops_entries(paper: Daemon) -> None:
    assert buy(paper)["decision"] == "ACCEPTED"
    paper.kill()
    leave(paper, leverage="5", max_open_trades="9")
    paper.set(max_leverage=3)
    paper.start()
    status = paper.owner_get("/status")
    warning = status["warnings"][0]
    assert warning.startswith("NO ENTRIES: leverage was changed at run time and does not fit")
    assert "LEVERAGE (5) must not be above MAX_LEVERAGE (3)" in warning
    assert "NO ENTRIES" not in status["halted"]
    assert "leverage was changed at run time" in status["halted"]
    assert "ERROR" in paper.log()
    assert "leverage was changed at run time" in paper.log()
    shown = current(paper)["leverage"]
    assert (shown["value"], shown["default"], shown["changed"]) == (1, 1, True)
    assert "MAX_LEVERAGE" in shown["ignored"]
    assert values(paper)["max_open_trades"] == 9, "the others hold"
    refused = buy(paper, 101)
    assert (refused["check"], "leverage was changed at run time" in refused["reason"]) == ("halted", True)
    assert paper.post(symbol="BTCUSDT", side="sell", price=102)["status"] == "FILLED", "a way out is never blocked"
    assert change(paper, "leverage", value=None).status == 200
    assert buy(paper, 103)["decision"] == "ACCEPTED"
    assert paper.owner_get("/status")["halted"] == ""


def test_what_does_not_fit_can_be_put_right_without_it(paper: Daemon) -> None:
    paper.kill()
    leave(paper, max_open_trades="0", cooldown_seconds="many")
    paper.start()
    assert change(paper, "limits", max_trades_per_day=5).status == 200, "of others it is no hindrance"
    assert change(paper, "limits", max_open_trades=2).status == 200
    assert buy(paper)["check"] == "halted"
    assert change(paper, "limits", cooldown_seconds=0).status == 200
    assert buy(paper, 101)["decision"] == "ACCEPTED"


def test_a_preference_of_a_later_version_stops_entries_until_all_are_reset(paper: Daemon) -> None:
    paper.kill()
    leave(paper, max_fun="5")
    paper.start()
    assert "max_fun is no setting of this version" in paper.owner_get("/status")["warnings"][0]
    assert buy(paper)["check"] == "halted"
    assert change(paper, "reset").status == 200
    assert buy(paper, 101)["decision"] == "ACCEPTED"


# --- many at once -----------------------------------------------------------------------------------------------------


def test_changes_that_come_together_are_each_whole(paper: Daemon) -> None:
    def both(number: int) -> Reply:
        return change(paper, "limits", max_open_trades=number, max_trades_per_day=number)

    with ThreadPoolExecutor(12) as threads:
        asked = [threads.submit(both, number) for number in range(1, 31)]
        seen = [threads.submit(values, paper) for _ in range(30)]
    assert {one.result().status for one in asked} == {200}
    for one in seen:
        value = one.result()
        pair = value["max_open_trades"], value["max_trades_per_day"]
        assert pair == (3, 10) or pair[0] == pair[1]
    before = values(paper)
    assert before["max_open_trades"] == before["max_trades_per_day"]
    paper.restart()
    assert values(paper) == before


def test_changes_of_different_settings_at_once_are_all_kept(paper: Daemon) -> None:
    asked = {name: sent for name, sent, _ in SINGLE}
    with ThreadPoolExecutor(len(asked)) as threads:
        statuses = list(threads.map(lambda name: change(paper, name, value=asked[name]).status, asked))
    assert statuses == [200] * len(asked)
    assert changed(paper).keys() == NAMES


def test_of_two_that_contradict_each_other_only_one_is_taken(tmp_path: Path) -> None:
    """Each alone is good, and both are judged at the same time."""

    def under(preferences: Mapping[str, Preference]) -> InForce:
        time.sleep(0.01)
        wrong = dict.fromkeys(preferences, "not both") if len(preferences) > 1 else {}
        return InForce(LIMITS, LIMITS, preferences, wrong)

    engine = RiskEngine(Journal(tmp_path / "journal.db"), LIMITS, under)

    def prefer(number: int) -> bool:
        try:
            engine.prefer({f"name {number}": "1"}, NOW)
        except PreferenceError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(prefer, range(8)))
    assert (sum(taken), len(engine.books.preferences)) == (1, 1)


# --- a change and a decision never mix --------------------------------------------------------------------------------


class Queue:
    """An engine whose lock is held until everybody waits for it, so that all are written together."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "journal.db")
        settings = Settings(cooldown_seconds=0, max_risk_per_trade=1000)
        self.engine = RiskEngine(self.journal, LIMITS, LimitsInForce(settings))
        self.answers: list[object] = []
        self.written: list[int] = []
        self._append = self.journal.append
        self.journal.append = self._count  # type: ignore[method-assign]
        self.broken = False

    def _count(self, events: Sequence[Event]) -> None:
        self.written.append(len(events))
        if self.broken:
            raise JournalError("no space")
        self._append(events)

    def run(self, *calls: Callable[[], object]) -> list[object]:
        ledger = self.engine._ledger
        answers: list[object] = [None] * len(calls)

        def answer(number: int) -> None:
            try:
                answers[number] = calls[number]()
            except Exception as exc:
                answers[number] = exc

        threads = [threading.Thread(target=answer, args=[number]) for number in range(len(calls))]
        with ledger._lock:
            for number, thread in enumerate(threads, 1):
                thread.start()
                eventually(lambda number=number: len(ledger._waiting) == number, 5, lambda: "it does not wait")  # type: ignore[misc]
        for thread in threads:
            thread.join(10)
        return answers

    def buys(self, symbol: str) -> Callable[[], object]:
        return lambda: decide(self.engine, Signal(Action.BUY, symbol)).check


def test_a_decision_that_is_written_with_a_change_obeys_it(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    checks = queue.run(
        queue.buys("BTCUSDT"),
        lambda: queue.engine.prefer({"allowed_symbols": "BTCUSDT"}, NOW),
        queue.buys("ETHUSDT"),
        lambda: queue.engine.prefer({"allowed_symbols": None}, NOW),
        queue.buys("SOLUSDT"),
    )
    assert checks == ["", None, "symbol", None, ""]
    assert queue.written == [5], "one transaction"


def test_a_change_that_cannot_be_written_holds_for_nobody(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    queue.broken = True
    answers = queue.run(
        lambda: queue.engine.prefer({"max_open_trades": "1"}, NOW), lambda: queue.engine.prefer({"leverage": "0"}, NOW)
    )
    assert [type(answer) for answer in answers] == [JournalError, PreferenceError]
    assert queue.engine.limits.max_open_trades == 3
    queue.broken = False
    assert [queue.buys(symbol)() for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT")] == ["", "", ""]


def test_a_start_from_saved_books_knows_the_preferences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.SAVE_AFTER_EVENTS", 1)
    settings = Settings(max_daily_loss_usdt=5)
    journal = Journal(tmp_path / "journal.db")
    engine = RiskEngine(journal, LIMITS, LimitsInForce(settings))
    engine.prefer({"max_open_trades": "9", "max_daily_loss_usdt": "", "dedupe_seconds": "30"}, NOW)
    engine.save_books()
    engine.prefer({"dedupe_seconds": None}, NOW)
    assert journal.saved()[0] == 1
    monkeypatch.setattr(Journal, "replay", _only_later(journal))
    again = RiskEngine(journal, LIMITS, LimitsInForce(settings))
    assert again.books.preferences == {
        "max_open_trades": Preference("9", NOW), "max_daily_loss_usdt": Preference("", NOW)
    }  # fmt: skip
    assert (again.limits.max_open_trades, again.limits.max_daily_loss_usdt) == (9, None)
    assert again.limits.dedupe_seconds == 60


def _only_later(journal: Journal) -> Callable[..., Iterator[Event]]:
    later = list(journal.replay(1))

    def replay(self: Journal, after: int = 0) -> Iterator[Event]:
        assert after == 1, "the saved books are not believed"
        return iter(later)

    return replay
