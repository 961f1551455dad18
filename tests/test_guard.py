"""The secret, the brake and the addresses, without a server around them."""

from __future__ import annotations

import logging
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard import FAILURES_PER_MINUTE, REMEMBERED_ADDRESSES, Brake, SecretGuard, address_is_allowed, client_address
from log_setup import Sparing

SECRET = "Correct-Horse.Battery_Staple"


# --- the secret ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claims", [[SECRET], ["wrong", SECRET], [SECRET, "wrong"], ["", SECRET, ""]])
def test_one_right_claim_is_enough_wherever_it_stands(claims: list[str]) -> None:
    assert SecretGuard(SECRET).accepts(claims)


@pytest.mark.parametrize(
    "claims",
    [[], [""], [SECRET[:-1]], [SECRET + " "], [SECRET.lower()], ["\ud800"], ["ключ"], [SECRET[:10], SECRET[10:]]],
)
def test_nothing_else_is(claims: list[str]) -> None:
    assert not SecretGuard(SECRET).accepts(claims)


def test_a_secret_may_hold_any_letters() -> None:
    assert SecretGuard("пароль-пароль-ü").accepts(["пароль-пароль-ü"])


@given(st.lists(st.text(), max_size=8))
def test_no_guess_is_right_and_none_breaks_anything(claims: list[str]) -> None:
    assert SecretGuard(SECRET).accepts(claims) is (SECRET in claims)


def test_the_guard_shows_nothing_of_the_secret() -> None:
    guard = SecretGuard(SECRET)
    assert SECRET not in repr(guard)
    assert SECRET not in str(vars(guard))


# --- the brake ----------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_the_eleventh_failure_of_a_minute_is_braked_and_no_other_address() -> None:
    brake = Brake(Clock())
    braked = [brake.is_on(brake.failed("1.1.1.1")) for _ in range(12)]
    assert braked == [False] * FAILURES_PER_MINUTE + [True, True]
    assert not brake.is_on(brake.failed("2.2.2.2"))


def test_after_a_minute_counting_begins_again() -> None:
    clock = Clock()
    brake = Brake(clock)
    for _ in range(11):
        brake.failed("1.1.1.1")
    clock.now += 60
    assert brake.failed("1.1.1.1") == 12
    clock.now += 0.1
    assert brake.failed("1.1.1.1") == 1


def test_only_so_many_addresses_are_remembered_and_the_busy_ones_stay() -> None:
    brake = Brake(Clock())
    for _ in range(11):
        brake.failed("guesser")
    for number in range(REMEMBERED_ADDRESSES - 1):
        brake.failed(f"address {number}")
    assert brake.failed("guesser") == 12
    for number in range(REMEMBERED_ADDRESSES):
        brake.failed(f"other {number}")
    assert brake.failed("guesser") == 1
    assert len(brake._failures) == REMEMBERED_ADDRESSES


# --- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forwarded_for", "hops", "address"),
    [
        ("", 0, "peer"),
        ("6.6.6.6", 0, "peer"),
        ("", 1, "peer"),
        ("1.1.1.1", 1, "1.1.1.1"),
        ("6.6.6.6, 1.1.1.1", 1, "1.1.1.1"),
        ("6.6.6.6,1.1.1.1,", 1, "1.1.1.1"),
        ("6.6.6.6, 1.1.1.1, 2.2.2.2", 2, "1.1.1.1"),
        ("1.1.1.1", 2, "peer"),
        ("1.1.1.1", -1, "peer"),
        ("::ffff:6.6.6.6, ::ffff:1.1.1.1", 1, "1.1.1.1"),
        ("::FFFF:101:101", 1, "1.1.1.1"),
        ("::ffff:1.1.1", 1, "::ffff:1.1.1"),
        ("2001:db8::ffff:1.1.1.1", 1, "2001:db8::ffff:1.1.1.1"),
    ],
)
def test_only_what_our_own_proxies_wrote_is_believed(forwarded_for: str, hops: int, address: str) -> None:
    assert client_address("peer", forwarded_for, hops) == address


@given(st.text(), st.integers(1, 3))
def test_what_the_sender_writes_further_left_changes_nothing(forged: str, hops: int) -> None:
    ours = ", ".join(f"10.0.0.{number}" for number in range(1, hops + 1))
    assert client_address("peer", f"{forged}, {ours}", hops) == "10.0.0.1"


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("52.89.214.238", True), ("10.1.2.3", True), ("11.1.2.3", False), ("2001:db8::5", True), ("2001:db9::5", False),
     ("", False), ("peer", False), ("52.89.214.238:443", False), ("10.1.2", False)],
)  # fmt: skip
def test_an_address_is_in_the_list_or_it_is_not(address: str, allowed: bool) -> None:
    networks = [ip_network("52.89.214.238"), ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]
    assert address_is_allowed(address, networks) is allowed


@pytest.mark.parametrize("address", ["52.89.214.238", "", "anything"])
def test_an_empty_list_allows_all(address: str) -> None:
    assert address_is_allowed(address, [])


# --- the log that strangers write to ------------------------------------------------------------------------------


def test_only_so_many_warnings_of_a_minute_are_written_and_the_next_one_tells_how_many_were_not() -> None:
    clock = Clock()
    sparing = Sparing(2, clock)

    def said(level: int, *args: object) -> str | None:
        record = logging.LogRecord("x", level, "", 0, "guess %s", args, None)
        return record.getMessage() if sparing.filter(record) else None

    assert [said(logging.WARNING, number) for number in range(5)] == ["guess 0", "guess 1", None, None, None]
    assert said(logging.ERROR, 5) == "guess 5"
    clock.now += 60.1
    assert said(logging.WARNING, 6) == "guess 6 (3 like this were left out)"
    assert said(logging.WARNING, 7) == "guess 7"
    assert said(logging.WARNING, 8) is None
