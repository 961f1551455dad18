"""Rows 71 to 78: what FlatTrade, its login of the day and the line to it can do; counted at the fake FlatTrade."""

from __future__ import annotations

import time
from collections import Counter
from decimal import Decimal
from functools import partial
from typing import Any

from fake_flattrade import APP_SECRET, FakeFlatTrade
from fault_stage import GENEROUS, Stage
from global_counts import assert_records_are_whole
from harness import REPLY_SECONDS, SECRET, Reply, eventually, flattrade, log_in_at_flattrade
from run_daemon import STEPS

QUICK = {"follow": 0.1, "longest_look": 0.1, "first_look": 0.05, "slack": 0.2, "late": [0.3], "order": 1.0}
LOST = (("close", 0), ("reset", 0), ("html", 502), ("html", 504), ("stall", 0), ("not_ok", 0), ("garbage", 0))
AROUND_THE_ORDER = ("before the order leaves", "while the order is under way", "after the broker's answer")


class Shares:
    """The stage with FlatTrade in place of Binance. CIPLA costs 1500, an alert buys 10 of it."""

    def __init__(self, stage: Stage, **settings: object) -> None:
        # The limits of a minute are those of one process; here there are many in a minute.
        fake = FakeFlatTrade(order_limits=(10, 10**6), question_limits=(10**6, 10**6))
        self.stage, self.fake = stage, fake.start()
        stage.fake.stop()
        self.fake.cash = Decimal(10**9)
        waits = {"test_patience": QUICK, "test_absence_seconds": 0.6}
        stage.daemon = self.daemon = stage.new_daemon(**flattrade(self.fake) | GENEROUS | waits | settings)
        stage.count, stage.on_close = self.assert_counts, self.fake.stop
        log_in_at_flattrade(self.daemon, self.fake)
        self.daemon.start()

    def buy(self, name: object, **alert: object) -> Reply:
        reply = self.try_to_buy(name, **alert)
        assert reply is not None, self.daemon.log()[-2000:]
        return reply

    def try_to_buy(self, name: object, **alert: object) -> Reply | None:
        said: dict[str, Any] = {
            "broker": "FLATTRADE",
            "symbol": "CIPLA",
            "side": "buy",
            "quantity": 10,
            "comment": str(name),
        }
        return self.stage.sent.post(self.daemon, **said | alert)

    def break_next(self, kind: str, endpoint: str = "PlaceOrder", **more: object) -> None:
        self.stage.faults += 1
        self.fake.fail_next(kind, endpoint, **more)

    def log_in_again(self) -> None:
        """The owner, in the morning; the daemon starts with the token."""
        self.stage.kill()
        self.fake.new_token()
        log_in_at_flattrade(self.daemon, self.fake)
        self.daemon.start()

    def last(self) -> str:
        self.daemon.wait_until_settled()
        eventually(lambda: not self.daemon.orders_without_ending(), 10, self.daemon.log)
        return self.daemon.trades()[-1]["Status"]

    # --- the end ----------------------------------------------------------------------------------------------------

    def assert_counts(self) -> None:
        """As global_counts.py, of FlatTrade: nothing doubled, nothing lost, the records whole, no secret anywhere."""
        assert max(Counter(order["remarks"] for order in self.fake.orders).values(), default=1) == 1, "doubled"
        assert_records_are_whole(self.daemon, self.stage.sent)
        rows = {row["ClientOrderID"]: row for row in self.daemon.trades()}
        known = {tag for tag, row in rows.items() if row["Status"] != "NOT_PLACED"}
        asked = {tag for tag in known if rows[tag]["OrderID"]}
        placed = {order["remarks"] for order in self.fake.orders}
        assert asked == placed, "lost, or nowhere but in our books"
        bought = Counter[str]()
        for trade in self.fake._trades:
            bought[trade["remarks"]] += int(trade["flqty"])
        assert {tag: Decimal(rows[tag]["Quantity"]) for tag in bought} == bought
        held = self.daemon.owner_get("/status")
        assert sum(Decimal(str(position["quantity"])) for position in held["positions"]) == self.fake._held("CIPLA-EQ")
        assert held["drift"] == []
        self._assert_no_secret_is_anywhere()

    def _assert_no_secret_is_anywhere(self) -> None:
        for path in self.daemon.folder.rglob("*"):
            if path.is_file() and path.name != "flattrade_token.json":
                content = path.read_bytes()
                for secret in (SECRET, APP_SECRET, self.fake.token or APP_SECRET):
                    assert secret.encode() not in content, path


def lose(shares: Shares, kind: str, status: int, executed: bool) -> None:
    before = len(shares.fake.orders)
    shares.break_next(kind, executed=executed, status=status, text="Server Timeout :  ")
    reply = shares.buy(f"{kind} {status} {executed}")
    assert reply["decision"] == "ACCEPTED"
    assert reply.seconds < REPLY_SECONDS
    assert shares.last() == ("FILLED" if executed else "NOT_PLACED")
    assert len(shares.fake.orders) == before + executed


def reply_lost(stage: Stage) -> None:
    shares = Shares(stage)
    for kind, status in LOST[: stage.times(3, len(LOST))]:
        lose(shares, kind, status, executed=True)


def never_arrived(stage: Stage) -> None:
    shares = Shares(stage)
    for kind, status in LOST[: stage.times(2, len(LOST))]:
        lose(shares, kind, status, executed=False)


def refused_after_ok(stage: Stage) -> None:
    """At once, and after the sender was answered."""
    shares = Shares(stage)
    for seconds, told in ((0.0, "REJECTED"), (0.8, "NEW")):
        stage.faults += 1
        shares.fake.exchange_seconds = seconds
        shares.fake.reject_next("RED:Margin Shortfall")
        assert shares.buy(seconds)["status"] == told
        assert shares.last() == "REJECTED"
    assert shares.daemon.trades()[-1]["Note"] == "RED:Margin Shortfall"


def slow_reply(stage: Stage) -> None:
    """Longer than anybody waits: it is found by its tag while its own reply is still to come."""
    shares = Shares(stage)
    shares.break_next("delay", executed=True, seconds=1.6)
    began = time.monotonic()
    answer = stage.soon(shares.buy, "slow")
    assert answer.result().seconds < REPLY_SECONDS
    assert shares.last() == "FILLED"
    time.sleep(max(0.0, began + 1.9 - time.monotonic()))
    assert [row["Status"] for row in shares.daemon.trades()][-1] == "FILLED", "its late reply changed something"


def token_dies_in_between(stage: Stage) -> None:
    """After the order was written down, before anybody asked what became of it."""
    shares = Shares(stage)
    stage.faults += 2
    shares.break_next("delay", "SingleOrdHist", seconds=0.2)
    shares.fake.exchange_seconds = 0.05
    answer = stage.soon(shares.buy, "dying")
    eventually(lambda: len(shares.fake.orders) == 1, 5, shares.daemon.log)
    shares.fake.expire()
    assert answer.result()["status"] in ("NEW", "PENDING")
    refused = shares.buy("dead", symbol="M&M")
    assert (refused["success"], len(shares.fake.orders)) == (False, 1)
    shares.log_in_again()
    assert shares.last() == "FILLED"
    assert len(shares.fake.orders) == 1, "an alert was kept for later"


def killed_around_the_order(stage: Stage) -> None:
    shares = Shares(stage)
    shares.daemon.kill()
    for number in range(stage.times(1, 5)):
        for step in AROUND_THE_ORDER if not stage.full else STEPS:
            shares.break_next("delay", executed=True, seconds=0.1)
            shares.daemon.start(crash_at=step, wait=step in AROUND_THE_ORDER)
            shares.daemon.wait_until_listening()
            # An order of the round before that is still in doubt keeps its share closed for a moment.
            for attempt in range(200):
                if shares.try_to_buy(f"{step} {number} {attempt}") is None or not shares.daemon.is_alive():
                    break
                time.sleep(0.05)
            shares.daemon.wait_until_dead()
            stage.kills += 1
            shares.fake._faults.clear()
    shares.daemon.start()
    assert shares.last() in ("FILLED", "NOT_PLACED")


def restarted_without_login(stage: Stage) -> None:
    """An order nobody heard of, and a token that died with the process: it is found after the login."""
    shares = Shares(stage)
    shares.break_next("stall", executed=True)
    answer = stage.soon(partial(shares.try_to_buy, "unheard"))
    eventually(lambda: len(shares.fake.orders) == 1, 5, shares.daemon.log)
    stage.kill()
    assert answer.result() is None
    shares.fake.expire()
    shares.daemon.start()
    assert [o["status"] for o in shares.daemon.owner_get("/status")["unresolved_orders"]] == ["UNKNOWN"]
    assert shares.buy("meanwhile")["success"] is False
    shares.log_in_again()
    assert shares.last() == "FILLED"
    assert len(shares.fake.orders) == 1


def partly_executed(stage: Stage) -> None:
    shares = Shares(stage)
    stage.faults += 1
    shares.fake.set_price("CIPLA-EQ", "1500.00", depth="4")
    reply = shares.buy("thin")
    assert (reply["status"], reply["quantity"]) == ("CANCELED", 4)
    shares.fake.set_price("CIPLA-EQ", "1500.00")
    lose(shares, "close", 0, executed=True)
