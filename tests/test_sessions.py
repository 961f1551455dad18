"""Logins: who gets in, for how long, and what ends them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sessions import LIFE, Sessions

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
PASSWORD = "correct horse battery"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def entered(sessions: Sessions, password: str = PASSWORD) -> str:
    cookie = sessions.enter(password)
    assert cookie is not None
    return cookie


def test_the_password_lets_in(clock: Clock) -> None:
    sessions = Sessions(PASSWORD, None, clock)
    assert sessions.session(entered(sessions)) is not None


@pytest.mark.parametrize("wrong", ["", PASSWORD[:-1], PASSWORD + " ", PASSWORD.upper(), "\ud800", "x" * 4000])
def test_another_password_does_not(clock: Clock, wrong: str) -> None:
    assert Sessions(PASSWORD, None, clock).enter(wrong) is None


def test_without_a_password_none_lets_in(clock: Clock) -> None:
    sessions = Sessions(None, None, clock)
    assert sessions.enter("") is None
    assert sessions.enter("None") is None


def test_a_link_lets_in_once_and_the_next_one_is_another(clock: Clock) -> None:
    sessions = Sessions(None, None, clock)
    first = sessions.link_token
    cookie = sessions.enter_by_link(first)
    assert cookie is not None
    assert sessions.session(cookie)
    assert sessions.enter_by_link(first) is None
    assert sessions.enter_by_link(sessions.link_token) is not None


def test_with_a_password_no_link_lets_in(clock: Clock) -> None:
    sessions = Sessions(PASSWORD, None, clock)
    assert sessions.link_token == ""
    assert sessions.enter_by_link("") is None
    assert sessions.enter_by_link(sessions._link_token) is None


def test_a_session_lasts_a_week_and_not_a_second_longer(clock: Clock) -> None:
    sessions = Sessions(PASSWORD, None, clock)
    cookie = entered(sessions)
    clock.now = NOW + LIFE - timedelta(seconds=1)
    assert sessions.session(cookie)
    clock.now = NOW + LIFE
    assert sessions.session(cookie) is None


def test_leaving_ends_this_session_and_no_other(clock: Clock) -> None:
    sessions = Sessions(PASSWORD, None, clock)
    mine, other = entered(sessions), entered(sessions)
    session = sessions.session(mine)
    assert session
    sessions.leave(session)
    assert sessions.session(mine) is None
    assert sessions.session(other)


def test_with_a_session_secret_sessions_survive_a_restart(clock: Clock) -> None:
    cookie = entered(Sessions(PASSWORD, "signing secret", clock))
    assert Sessions(PASSWORD, "signing secret", clock).session(cookie)


@pytest.mark.parametrize(
    ("password", "secret"), [("another password", "signing secret"), (PASSWORD, "another secret"), (PASSWORD, None)]
)
def test_another_password_or_secret_ends_all_sessions(clock: Clock, password: str, secret: str | None) -> None:
    cookie = entered(Sessions(PASSWORD, "signing secret", clock))
    assert Sessions(password, secret, clock).session(cookie) is None


def test_without_a_session_secret_a_restart_ends_them(clock: Clock) -> None:
    cookie = entered(Sessions(PASSWORD, None, clock))
    assert Sessions(PASSWORD, None, clock).session(cookie) is None


def test_a_changed_cookie_is_none(clock: Clock) -> None:
    sessions = Sessions(PASSWORD, None, clock)
    cookie = entered(sessions)
    for place in range(0, len(cookie), 7):
        changed = cookie[:place] + ("A" if cookie[place] != "A" else "B") + cookie[place + 1 :]
        assert sessions.session(changed) is None, place
    for nonsense in ("", ".", "a.b", "\x00", "é", cookie + "x", cookie.split(".")[0]):
        assert sessions.session(nonsense) is None


def test_the_token_of_a_session_is_good_for_that_session_only(clock: Clock) -> None:
    sessions = Sessions(PASSWORD, None, clock)
    one, other = sessions.session(entered(sessions)), sessions.session(entered(sessions))
    assert one
    assert other
    assert one != other
    assert sessions.is_token(one, sessions.token(one))
    assert not sessions.is_token(one, sessions.token(other))
    assert not sessions.is_token(one, "")


def test_nothing_secret_is_in_its_repr(clock: Clock) -> None:
    sessions = Sessions(PASSWORD, "signing secret", clock)
    assert PASSWORD not in repr(sessions)
    assert "signing" not in repr(sessions)
