"""FlatTrade's account beside the books: what the owner does in its app, what is left over, what went elsewhere.

The stories of test_reconcile.py that can be told of shares. There is no leverage, no other side and no protection at
FlatTrade: those of hedge mode, of shorts and of triggered stops are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_flattrade import NO_DATA, FakeFlatTrade
from harness import Daemon, Reply, eventually, flattrade, log_in_at_flattrade

OFTEN = {"follow": 0.1, "first_look": 0.05, "longest_look": 0.1, "slack": 0.2, "late": [], "compare": 0.2,
         "second_look": 0.1}  # fmt: skip
UNHURRIED = {
    "flattrade_client.BOOK_SECONDS": 0.0,
    "flattrade_client.HOLDINGS_SECONDS": 0.0,
    "flattrade_client.LOOKS_AFTER_PLACING": [0.02, 0.05, 0.1],
    "flattrade_link.QUESTIONS_AT_MOST": [[10_000, 1.0], [10_000, 60.0]],
}


class There:
    """A daemon that is logged in, and its account, where it bought ten shares at 1500.1."""

    def __init__(self, make: Callable[..., Daemon], fake: FakeFlatTrade, **settings: object) -> None:
        self.fake = fake
        settings = {"cooldown_seconds": 0, "test_patience": OFTEN, "test_waits": UNHURRIED} | settings
        self.daemon = make(**flattrade(fake) | settings)
        log_in_at_flattrade(self.daemon, fake)
        self.daemon.start()

    def post(self, side: str, **alert: Any) -> Reply:
        return self.daemon.post(**{"broker": "FLATTRADE", "symbol": "CIPLA", "side": side} | alert)

    def enter(self) -> None:
        assert self.post("buy", quantity=10)["status"] == "FILLED"

    def status(self) -> dict[str, Any]:
        return self.daemon.owner_get("/status")

    def held(self) -> int:
        return sum(int(p["quantity"]) for p in self.status()["positions"])

    def taken_over(self) -> list[dict[str, str]]:
        return [row for row in self.daemon.trades() if not row["SignalID"]]

    def notices(self) -> str:
        return "\n".join(notice["text"] for notice in self.status()["notices"])

    def wait_for_drift(self, **columns: str) -> None:
        def is_there() -> bool:
            return any(columns.items() <= row.items() for row in self.status()["drift"])

        eventually(is_there, 5, lambda: f"{self.status()['drift']} {self.daemon.log()[-2000:]}")

    def let_it_compare(self) -> None:
        before = len(self.fake.asked("OrderBook"))
        eventually(lambda: len(self.fake.asked("OrderBook")) >= before + 4, 5, self.daemon.log)


@pytest.fixture
def there(daemon_with: Callable[..., Daemon]) -> Iterator[There]:
    with FakeFlatTrade(question_limits=(10**6, 10**6)) as fake:
        yield There(daemon_with, fake)


@pytest.mark.parametrize("down", [False, True], ids=["running", "down"])
def test_a_position_closed_by_hand_is_taken_over_at_the_exchanges_price(there: There, down: bool) -> None:
    there.enter()
    if down:
        there.daemon.kill()
    there.fake.set_price("CIPLA-EQ", "1600.00")
    number = there.fake.by_hand("S", 10)
    if down:
        there.daemon.start()
    eventually(lambda: not there.held(), 5, there.daemon.log)
    (row,) = there.taken_over()
    assert (row["OrderID"], row["Status"], row["Action"], row["Price"]) == (number, "FILLED", "SELL", "1599.9")
    assert row["RealizedPnL"] == "998"
    assert (there.status()["drift"], there.status()["open_trades"]) == ([], 0)


def test_a_part_closed_by_hand_leaves_the_rest_and_is_taken_over_once_also_after_a_restart(there: There) -> None:
    there.enter()
    there.fake.by_hand("S", 4)
    eventually(lambda: there.held() == 6, 5, there.daemon.log)
    there.daemon.restart()
    there.let_it_compare()
    assert (there.held(), len(there.taken_over())) == (6, 1)
    assert there.post("sell")["quantity"] == 6


def test_what_the_owner_bought_himself_is_neither_shown_nor_touched(there: There) -> None:
    there.fake.holdings["CIPLA-EQ"] = 20
    there.fake.by_hand("B", 7)
    there.enter()
    there.fake.by_hand("S", 5)
    there.let_it_compare()
    assert (there.held(), there.taken_over(), there.status()["drift"]) == (10, [], [])


def test_shares_of_yesterday_lie_in_the_depository_and_are_still_ours_to_sell(there: There) -> None:
    there.enter()
    there.fake.new_day()
    there.let_it_compare()
    assert (there.held(), there.status()["drift"]) == (10, [])
    assert there.post("sell")["status"] == "FILLED"


def test_shares_that_went_elsewhere_are_shown_and_not_sold_in_the_books(there: There) -> None:
    there.enter()
    there.fake.new_day()
    there.fake.holdings["CIPLA-EQ"] = 2
    there.wait_for_drift(books="10", account="2")
    there.let_it_compare()
    assert (there.held(), there.taken_over()) == (10, [])
    there.fake.holdings["CIPLA-EQ"] = 10
    eventually(lambda: not there.status()["drift"], 5, there.daemon.log)


def test_an_order_that_the_books_know_as_ended_is_cancelled_when_it_is_left_over(there: There) -> None:
    """FlatTrade said over and over that it is not there; then it is."""
    for _ in range(200):
        there.fake.fail_next("not_ok", "OrderBook", text=NO_DATA)
    there.fake.fail_next("close", executed=True)
    assert there.post("buy", quantity=10, type="limit", price=1400)["decision"] == "ACCEPTED"
    there.daemon.wait_until_settled()
    assert there.daemon.trades()[-1]["Status"] == "NOT_PLACED"
    stays = there.fake.by_hand("B", 10, "1400.00")
    there.fake._faults.clear()
    eventually(lambda: "was left over" in there.notices(), 5, there.daemon.log)
    assert [order.status for order in there.fake._placed] == ["CANCELED", "OPEN"]
    assert there.fake.status_of(stays) == "OPEN"


def test_an_order_like_ours_that_is_on_no_record_is_shown_and_left_alone(there: There) -> None:
    there.fake.by_hand("B", 10, "1400.00", "gh_of_another_folder")
    there.fake.by_hand("B", 10, "1400.00", "of_the_owner")
    there.wait_for_drift(symbol="CIPLA", order="gh_of_another_folder")
    there.let_it_compare()
    assert [order.status for order in there.fake._placed] == ["OPEN", "OPEN"]


def test_an_account_that_does_not_answer_leaves_the_drift_as_it_was(there: There) -> None:
    there.enter()
    there.fake.new_day()
    there.fake.holdings["CIPLA-EQ"] = 2
    there.wait_for_drift(books="10", account="2")
    for _ in range(30):
        there.fake.fail_next("garbage", "PositionBook", text=json.dumps({"stat": "Not_Ok", "emsg": "busy"}))
    before = len(there.fake._faults)
    eventually(lambda: len(there.fake._faults) <= before - 4, 5, there.daemon.log)
    assert [row["account"] for row in there.status()["drift"]] == ["2"]
