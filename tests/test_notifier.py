"""The notifier alone, with services on loopback: bursts, full queues, dead services, restarts, the day's summary."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import NOW, D, S, an_order, decided
from harness import eventually
from webhook_server import WebhookServer

import notifier as notifier_module
from events import OrderChanged
from journal import Day, JournalError
from notifier import MAX_ARRIVED, MAX_QUEUED, Look, Notifier
from services import Service

Make = Callable[..., Notifier]
SECRET = "secret-of-the-webhook"


@pytest.fixture
def server() -> Iterator[WebhookServer]:
    with WebhookServer() as server:
        yield server


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes a notifier that looks often and has no patience."""
    monkeypatch.setattr(notifier_module, "LOOK_SECONDS", 0.05)
    made: list[Notifier] = []

    def make(*servers: WebhookServer, look: Look | None = None, **more: Any) -> Notifier:
        services = [Service(server.url, number) for number, server in enumerate(servers, 1)]
        given: dict[str, Any] = {
            "read_day": lambda day: Day(day, {}, []), "clock": lambda: NOW, "pauses": (0.01, 0.01)
        } | more  # fmt: skip
        made.append(Notifier(services, tmp_path, [SECRET], **given))
        made[-1].start(lambda: look or Look())
        return made[-1]

    yield make
    for each in made:
        each.stop(0.1)


def filled(name: str) -> OrderChanged:
    done: dict[str, Any] = {"executed_quantity": D(1), "executed_quote": D(100)}
    return OrderChanged(an_order(S.FILLED, client_order_id=name, **done), NOW)


def wait_for(server: WebhookServer, text: str) -> None:
    eventually(lambda: text in server.text, 5, lambda: f"{text!r} is not in {server.text!r}")


# --- good days --------------------------------------------------------------------------------------------------------


def test_what_comes_together_is_one_message(server: WebhookServer, make: Make) -> None:
    notifier = make(server)
    notifier.written([decided(None), filled("a"), filled("b")])
    time.sleep(0.1)
    notifier.tell("and this")
    wait_for(server, "and this")
    (message,) = server.messages
    assert message["message"].count("Bought 1 BTCUSDT at 100") == 2
    assert message["title"] == "Gatehouse"


def test_a_large_burst_is_told_in_messages_of_bounded_length(server: WebhookServer, make: Make) -> None:
    notifier = make(server)
    for number in range(40):
        notifier.tell(f"news {number:02} {'x' * 200}")
    wait_for(server, "news 39")
    assert max(len(message["message"]) for message in server.messages) <= 1500
    assert [f"news {number:02}" in server.text for number in range(40)] == [True] * 40


def test_every_service_gets_every_message(server: WebhookServer, make: Make) -> None:
    with WebhookServer() as second:
        make(server, second).tell("to both")
        wait_for(server, "to both")
        wait_for(second, "to both")


def test_no_secret_is_in_a_message(server: WebhookServer, make: Make) -> None:
    make(server).tell(f"before {SECRET} after")
    wait_for(server, "before (secret) after")


def test_the_same_state_of_an_order_is_told_once_also_after_a_restart(server: WebhookServer, make: Make) -> None:
    first = make(server)
    first.written([filled("a")])
    first.written([filled("a")])
    wait_for(server, "Bought")
    first.stop(1)
    second = make(server)
    second.written([filled("a"), filled("b")])
    wait_for(server, "Bought")
    second.tell("the end")
    wait_for(server, "the end")
    assert server.text.count("Bought") == 2


def test_that_an_outcome_was_unknown_is_remembered_over_a_restart(server: WebhookServer, make: Make) -> None:
    first = make(server)
    first.written([OrderChanged(an_order(S.UNKNOWN, client_order_id="a"), NOW)])
    wait_for(server, "Outcome unknown")
    first.stop(1)
    make(server).written([filled("a"), filled("b")])
    wait_for(server, "Now known: Bought")
    assert server.text.count("Now known") == 1


def test_a_damaged_memory_of_what_was_told_stops_nobody(server: WebhookServer, make: Make, tmp_path: Path) -> None:
    (tmp_path / "told.json").write_text('{"day": 7}')
    make(server).tell("still here")
    wait_for(server, "still here")


def test_that_it_cannot_remember_is_in_the_log_once_and_not_at_every_look(
    server: WebhookServer, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "told.json").mkdir()
    notifier = make(server)
    for word in ("first", "second", "third"):
        notifier.tell(word)
        wait_for(server, word)
    assert [message for message in caplog.messages if "told again" in message] == [
        "after a restart some news may be told again: Is a directory"
    ]


# --- what is wrong, and the day ---------------------------------------------------------------------------------------


def test_what_is_wrong_is_told_when_it_begins_and_when_it_is_over(server: WebhookServer, make: Make) -> None:
    problems = {"Journal": "disk full"}
    make(server, look=Look(problems, ("BTCUSDT 1",)))
    wait_for(server, "Drift: BTCUSDT 1")
    wait_for(server, "Journal: disk full")
    problems["Journal"] = ""
    wait_for(server, "Over: Journal: disk full")
    assert server.text.count("Drift") == 1


def test_what_is_wrong_still_after_a_restart_is_not_told_again(server: WebhookServer, make: Make) -> None:
    look = Look({"Halted": "x"}, ("BTCUSDT 1",))
    make(server, look=look).tell("first")
    wait_for(server, "Halted: x")
    again = make(server, look=look)
    time.sleep(0.3)
    again.tell("second")
    wait_for(server, "second")
    assert (server.text.count("Halted"), server.text.count("Drift")) == (1, 1)


def test_a_day_is_summed_up_once_after_its_midnight_also_over_a_restart(server: WebhookServer, make: Make) -> None:
    now = [NOW]
    asked: list[date] = []

    def read_day(day: date) -> Day:
        asked.append(day)
        if len(asked) == 1:
            raise JournalError("the disk is busy")
        return Day(day, {"REJECTED": 3}, [])

    def clock() -> datetime:
        return now[0]

    first = make(server, read_day=read_day, clock=clock)
    time.sleep(0.3)
    assert asked == []
    now[0] = NOW.replace(hour=23, minute=59, second=59)
    time.sleep(0.2)
    assert asked == []
    now[0] += timedelta(seconds=1)
    wait_for(
        server, "Summary of 2026-03-01 (UTC)\nTrades: 0 (0 in, 0 out)\nRealised: 0\nAlerts: 0 accepted, 3 rejected"
    )
    first.stop(1)
    make(server, read_day=read_day, clock=clock)
    time.sleep(0.3)
    assert asked == [date(2026, 3, 1)] * 2
    now[0] += timedelta(days=3)
    wait_for(server, "Summary of 2026-03-04")
    assert len(asked) == 3


# --- bad days ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["500", "404", "reset"])
def test_a_message_that_is_not_taken_is_tried_so_often_and_then_told_as_dropped(
    server: WebhookServer, make: Make, mode: str
) -> None:
    server.mode = mode
    notifier = make(server)
    notifier.tell("lost")
    eventually(lambda: notifier.state["dropped"] == 1, 5, lambda: str(notifier.state))
    assert server.requests == 3
    assert notifier.state | {"last_error": ""} == {"sent": 0, "failed": 3, "dropped": 1, "last_error": "", "queued": 0}
    assert notifier.state["last_error"].startswith("JSON (1): ")
    assert "token" not in notifier.state["last_error"]
    server.mode = "ok"
    notifier.tell("found")
    wait_for(server, "(1 earlier messages were dropped; see the log)\nfound")
    notifier.tell("next")
    wait_for(server, "next")
    assert server.text.count("dropped") == 1
    assert notifier.state["last_error"] is None


def test_a_message_that_is_taken_at_the_last_try_is_not_lost(server: WebhookServer, make: Make) -> None:
    server.mode = "503"
    make(server, pauses=(0.5,)).tell("late")
    eventually(lambda: server.requests == 1, 5, lambda: "no request")
    server.mode = "ok"
    wait_for(server, "late")
    assert "dropped" not in server.text


def test_a_full_queue_loses_the_oldest_and_the_next_message_says_how_many(server: WebhookServer, make: Make) -> None:
    server.mode = "500"
    notifier = make(server, pauses=(2.0,))
    notifier.tell("under way")
    eventually(lambda: server.requests == 1, 5, lambda: "no request")
    for number in range(MAX_QUEUED + 5):
        notifier.tell(f"news {number:03}")
    eventually(lambda: notifier.state["dropped"] == 5, 5, lambda: str(notifier.state))
    assert notifier.state["queued"] == MAX_QUEUED + 1
    server.mode = "ok"
    wait_for(server, f"news {MAX_QUEUED + 4:03}")
    assert "under way" in server.text
    assert "news 004" not in server.text
    assert "news 005" in server.text
    assert "(5 earlier messages were dropped" in server.text


def test_a_flood_takes_no_more_memory_than_the_queues_hold(server: WebhookServer, make: Make) -> None:
    server.mode = "hang"
    notifier, go_on = make(server), threading.Event()

    def slow_look() -> Look:
        go_on.wait(20)
        return Look()

    notifier._look = slow_look
    time.sleep(0.2)
    for number in range(MAX_ARRIVED + 500):
        notifier.written([filled(f"o{number}")])
    assert len(notifier._arrived) == MAX_ARRIVED
    assert notifier.state["queued"] == MAX_ARRIVED
    go_on.set()
    eventually(
        lambda: notifier.state["dropped"] >= MAX_ARRIVED + 500 - MAX_QUEUED - 20, 20, lambda: str(notifier.state)
    )
    assert notifier.state["queued"] <= MAX_QUEUED + 20
    notifier.written([filled(f"more{number}") for number in range(500)])
    eventually(lambda: notifier.state["dropped"] > MAX_ARRIVED + 500, 20, lambda: str(notifier.state))
    assert len(notifier._told._keys) == notifier_module.MAX_REMEMBERED


def test_news_cost_who_brings_them_next_to_nothing_while_the_service_hangs(server: WebhookServer, make: Make) -> None:
    server.mode = "hang"
    notifier = make(server)
    events = [[filled(f"o{number}")] for number in range(2_000)]
    started = time.perf_counter()
    for event in events:
        notifier.written(event)
    assert (time.perf_counter() - started) / len(events) < 0.000_2


def test_a_service_that_hangs_keeps_the_others_waiting_for_nothing(server: WebhookServer, make: Make) -> None:
    with WebhookServer("hang") as dead:
        notifier = make(dead, server)
        notifier.tell("one")
        wait_for(server, "one")
        notifier.tell("two")
        wait_for(server, "two")


def test_stopping_waits_no_longer_than_it_is_given(server: WebhookServer, make: Make) -> None:
    server.mode = "hang"
    notifier = make(server)
    notifier.tell("never")
    eventually(lambda: server.requests == 1, 5, lambda: "no request")
    notifier.tell("neither")
    started = time.monotonic()
    notifier.stop(1)
    assert time.monotonic() - started < 1.3


def test_what_was_told_last_still_goes_out_when_it_stops(server: WebhookServer, make: Make) -> None:
    notifier = make(server)
    notifier.tell("the last word")
    notifier.stop(1)
    assert "the last word" in server.text


def test_what_a_service_says_of_a_failure_is_told_without_the_tokens_of_its_address() -> None:
    service = Service("json://me:pass%20word@127.0.0.1:9/first-token/?+X-Key=second-token", 3)
    said = service._why("at first-token, second-token, pass%20word and pass word of 127.0.0.1")
    assert said == "at [secret], [secret], [secret] and [secret] of 127.0.0.1"
    assert "token" not in repr(service)


def test_news_that_go_wrong_take_no_others_with_them(server: WebhookServer, make: Make) -> None:
    def goes_wrong() -> Look:
        raise ArithmeticError

    notifier = make(server)
    notifier._look = goes_wrong
    broken = OrderChanged(an_order(S.FILLED, client_order_id="b", executed_quantity=D(1), realized_pnl="x"), NOW)
    notifier.written([filled("a"), broken, filled("c")])
    notifier.tell("still there")
    wait_for(server, "still there")
    assert server.text.count("Bought") == 2
