"""What every broker keeps, whichever it is: the same sentences over paper, Binance, BingX and FlatTrade.

Told over HTTP to the real daemon, with the fake exchanges behind it. Where a sentence cannot be told of a broker, the
table `NOT_OF` says why. An entry is `quantity` of one symbol, and `price` is what it costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from http.client import HTTPException
from typing import Any

import pytest
from fake_binance import FakeBinance
from fake_bingx import FakeBingx
from fake_flattrade import FakeFlatTrade
from harness import (
    API_KEY,
    API_SECRET,
    Daemon,
    Reply,
    assert_csvs_equal_journal,
    binance,
    bingx,
    eventually,
    flattrade,
    futures,
    log_in_at_flattrade,
)

D = Decimal
Make = Callable[..., Daemon]
QUICK = {"follow": 0.05, "first_look": 0.03, "longest_look": 0.1, "slack": 0.2, "late": [0.2], "resend": 0.3}
GENEROUS = {"cooldown_seconds": 0, "max_risk_per_trade": 1000, "test_patience": QUICK, "test_absence_seconds": 0.4}


# Its limits have tests of their own; here a process would wait for those that the one before it may have used up.
UNHURRIED = {"bingx_link.PACE_SECONDS": 0.0}


class Stage:
    """One broker, its fake exchange and the daemon that trades there; this one is paper."""

    broker, symbol, price, quantity = "PAPER", "BTCUSDT", D(40000), D("0.01")
    fake: Any

    def __init__(self, make: Make) -> None:
        self.open()
        self.daemon = make(**self.settings() | GENEROUS)
        self.before_start()
        self.daemon.start()
        self.after_start()

    def open(self) -> None:
        """Starts the fake exchange."""

    def close(self) -> None:
        """Ends it."""

    def before_start(self) -> None:
        """What the daemon needs, apart from settings."""

    def after_start(self) -> None:
        self.move(self.price)

    def settings(self) -> dict[str, object]:
        return {"paper_balance_usdt": 10_000}

    def post(self, side: str, **alert: object) -> Reply:
        said: dict[str, Any] = {"broker": self.broker, "symbol": self.symbol, "side": side}
        return self.daemon.post(**said | {"quantity": str(self.quantity), "price": str(self.price)} | alert)

    def limit(self, price: Decimal) -> Reply:
        return self.post("buy", type="limit", price=str(price))

    def move(self, price: Decimal) -> None:
        """On paper a price is what an alert tells, also one that is refused."""
        self.price = price
        assert self.post("buy", confidence=1)["check"] == "confidence"

    def meanwhile(self, happens: Callable[[], None]) -> None:
        """While the daemon is away; on paper nothing happens without it."""
        self.daemon.restart()
        happens()

    def sent(self) -> int:
        """Orders that the exchange has taken."""
        return len(self.daemon.trades())

    def statuses(self) -> list[str]:
        return [row["Status"] for row in self.daemon.trades()]

    def held(self) -> Decimal:
        return sum((D(str(p["quantity"])) for p in self.daemon.owner_get("/status")["positions"]), D(0))

    def wait_for(self, status: str) -> None:
        eventually(lambda: self.statuses()[-1:] == [status], 10, lambda: f"{self.statuses()}\n{self.daemon.log()}")

    def lose(self, *, executed: bool) -> None:
        """The next order's reply does not come."""
        raise NotImplementedError

    def refuse(self) -> None:
        """The next order is not taken."""
        raise NotImplementedError

    def delay(self) -> None:
        """The next order is taken, and answered a moment later."""
        raise NotImplementedError

    def thin(self, quantity: Decimal) -> None:
        """So much is for sale, and no more."""
        raise NotImplementedError

    def go_offline(self) -> None:
        raise NotImplementedError


class Exchange(Stage):
    """With a server of its own."""

    def after_start(self) -> None:
        """Its price is there."""

    def meanwhile(self, happens: Callable[[], None]) -> None:
        self.daemon.kill()
        happens()
        self.daemon.start()

    def close(self) -> None:
        self.fake.stop()

    def sent(self) -> int:
        return len(self.fake.orders)

    def go_offline(self) -> None:
        self.fake.stop_listening()


class Binance(Exchange):
    broker, place = "BINANCE", "POST /api/v3/order"

    def open(self) -> None:
        self.fake = FakeBinance(API_KEY, API_SECRET).start()
        self.fake.set_price(self.symbol, self.price)

    def settings(self) -> dict[str, object]:
        return binance(self.fake)

    def move(self, price: Decimal) -> None:
        self.fake.set_price(self.symbol, price)

    def lose(self, *, executed: bool) -> None:
        self.fake.fail_next("close", self.place, executed=executed)

    def refuse(self) -> None:
        self.fake.fail_next("error", self.place, code=-2010)

    def delay(self) -> None:
        self.fake.fail_next("delay", self.place, executed=True, seconds=0.3)

    def thin(self, quantity: Decimal) -> None:
        self.fake.set_book(self.symbol, asks=[(self.price, quantity)], bids=[(self.price - 1, 1)])

    def go_offline(self) -> None:
        self.fake.go_offline()


class BinanceFutures(Binance):
    place = "POST /fapi/v1/order"

    def open(self) -> None:
        super().open()
        self.fake.futures.set_price(self.symbol, self.price)

    def settings(self) -> dict[str, object]:
        return futures(self.fake)

    def move(self, price: Decimal) -> None:
        self.fake.futures.set_price(self.symbol, price)

    def sent(self) -> int:
        return len(self.fake.futures.orders)

    def refuse(self) -> None:
        self.fake.fail_next("error", self.place, code=-2019)

    def thin(self, quantity: Decimal) -> None:
        self.fake.futures.set_book(self.symbol, asks=[(self.price, quantity)], bids=[(self.price - 1, 1)])


class Bingx(Exchange):
    broker, there = "BINGX", "BTC-USDT"

    def open(self) -> None:
        self.fake = FakeBingx().start()
        self.fake.set_options(limits=False)
        self.fake.set_price(self.there, self.price)

    def settings(self) -> dict[str, object]:
        return bingx(self.fake, test_waits=UNHURRIED)

    def move(self, price: Decimal) -> None:
        self.fake.set_price(self.there, price)

    def lose(self, *, executed: bool) -> None:
        self.fake.fail_next("close", executed=executed)

    def refuse(self) -> None:
        self.fake.fail_next("code", code=101204, msg="not enough")

    def delay(self) -> None:
        self.fake.fail_next("delay", executed=True, seconds=0.3)


class BingxSpot(Bingx):
    def settings(self) -> dict[str, object]:
        return super().settings() | {"bingx_market": "spot", "bingx_demo": False}


class FlatTrade(Exchange):
    broker, symbol, price, quantity = "FLATTRADE", "CIPLA", D(1500), D(10)

    def open(self) -> None:
        self.fake = FakeFlatTrade().start()

    def settings(self) -> dict[str, object]:
        return flattrade(self.fake)

    def before_start(self) -> None:
        log_in_at_flattrade(self.daemon, self.fake)

    def move(self, price: Decimal) -> None:
        self.fake.set_price("CIPLA-EQ", str(price))

    def lose(self, *, executed: bool) -> None:
        self.fake.fail_next("close", executed=executed)

    def refuse(self) -> None:
        self.fake.reject_next("RED:Margin Shortfall")

    def delay(self) -> None:
        self.fake.fail_next("delay", executed=True, seconds=0.3)

    def thin(self, quantity: Decimal) -> None:
        self.fake.set_price("CIPLA-EQ", "1500.00", depth=str(quantity))


STAGES: dict[str, type[Stage]] = {
    "paper": Stage, "binance spot": Binance, "binance futures": BinanceFutures, "bingx swap": Bingx,
    "bingx spot": BingxSpot, "flattrade": FlatTrade,
}  # fmt: skip
NOT_OF = {
    "a line": {"paper": "it is asked in memory: no reply can be lost, and nobody refuses"},
    "a book": {"paper": "it has no depth", **dict.fromkeys(("bingx swap", "bingx spot"), "their fake has no depth")},
    "a clock": {"paper": "it has none of its own", "flattrade": "its requests carry no time and it tells none"},
}


def of(*, but: str = "") -> pytest.MarkDecorator:
    """Every broker, `but` those that lack it."""
    return pytest.mark.parametrize("stage", [name for name in STAGES if name not in NOT_OF.get(but, {})], indirect=True)


@pytest.fixture
def stage(request: pytest.FixtureRequest, daemon_with: Make) -> Iterator[Stage]:
    made = STAGES[request.param](daemon_with)
    yield made
    made.daemon.kill()
    made.close()


def assert_nothing_is_left(stage: Stage) -> None:
    assert stage.held() == 0
    assert stage.daemon.orders_without_ending() == []


def quantity_of(reply: Reply) -> Decimal:
    return D(str(reply["quantity"]))


@of()
def test_what_is_bought_is_held_and_what_is_sold_is_not(stage: Stage) -> None:
    bought = stage.post("buy")
    assert (bought["success"], bought["status"], bought["broker"]) == (True, "FILLED", stage.broker), bought.body
    assert quantity_of(bought) == stage.quantity
    assert 0 < stage.held() <= stage.quantity  # on spot the fee may be taken in what is bought
    sold = stage.post("sell", quantity="", market_position="flat")
    assert (sold["success"], sold["status"]) == (True, "FILLED"), sold.body
    assert stage.held() < stage.quantity / 100
    assert stage.sent() == 2
    assert stage.daemon.owner_get("/status")["drift"] == []
    assert_csvs_equal_journal(stage.daemon)


@of()
def test_a_limit_order_rests_and_is_cancelled(stage: Stage) -> None:
    reply = stage.limit(stage.price * D("0.95"))
    assert (reply["success"], reply["status"]) == (True, "NEW"), reply.body
    (resting,) = stage.daemon.owner_get("/status")["resting_orders"]
    assert resting["symbol"] == stage.symbol
    assert stage.daemon.owner_post("/close-all").status == 200
    eventually(lambda: not stage.daemon.orders_without_ending(), 10, stage.daemon.log)
    assert "CANCELED" in stage.statuses()
    assert_nothing_is_left(stage)


@of()
def test_a_limit_order_is_filled_when_its_price_comes_also_while_the_daemon_is_away(stage: Stage) -> None:
    low = stage.price * D("0.95")
    assert stage.limit(low)["status"] == "NEW"
    stage.meanwhile(lambda: stage.move(low * D("0.99")))
    stage.wait_for("FILLED")
    assert stage.held() > stage.quantity * D("0.99")
    assert stage.daemon.orders_without_ending() == []


@of(but="a line")
def test_what_is_refused_is_told_and_holds_nothing(stage: Stage) -> None:
    stage.refuse()
    reply = stage.post("buy")
    assert (reply.status, reply["success"], reply["status"]) == (200, False, "REJECTED"), reply.body
    assert reply["reason"]
    assert_nothing_is_left(stage)
    assert stage.post("buy", comment="the next one")["status"] == "FILLED"


@of(but="a line")
@pytest.mark.parametrize("executed", [True, False])
def test_an_order_whose_reply_is_lost_is_found_or_proven_absent_and_never_sent_again(
    stage: Stage, executed: bool
) -> None:
    stage.lose(executed=executed)
    reply = stage.post("buy")
    assert reply["decision"] == "ACCEPTED", reply.body
    stage.wait_for("FILLED" if executed else "NOT_PLACED")
    assert (stage.sent(), stage.held() > 0) == (int(executed), executed)
    assert stage.daemon.orders_without_ending() == []


@of(but="a line")
def test_an_order_that_was_under_way_at_a_kill_is_found_by_its_id(stage: Stage) -> None:
    stage.delay()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(stage.post, "buy")
        eventually(lambda: stage.sent() == 1, 5, stage.daemon.log)
        stage.daemon.kill()
        with pytest.raises((OSError, HTTPException)):
            answer.result()
    stage.daemon.start()
    stage.wait_for("FILLED")
    assert (stage.sent(), stage.held() > 0) == (1, True)


@of(but="a book")
def test_a_part_that_was_executed_is_held(stage: Stage) -> None:
    stage.thin(stage.quantity / 2)
    reply = stage.post("buy")
    assert reply["status"] in ("EXPIRED", "CANCELED"), reply.body
    assert quantity_of(reply) == stage.quantity / 2
    assert D(0) < stage.held() <= stage.quantity / 2


@of()
def test_the_account_and_the_rules_are_known_before_an_order_leaves(stage: Stage) -> None:
    balances = stage.daemon.owner_get("/status")["balances"][stage.broker]
    assert any(balance["free"] for balance in balances.values())
    reply = stage.post("buy", quantity=f"{stage.quantity / 10_000:f}")
    assert (reply["success"], reply["decision"]) == (False, "REJECTED"), reply.body
    assert reply["check"] in ("precision", "min_notional"), reply.body
    assert stage.sent() == 0


@of(but="a line")
def test_what_cannot_be_reached_gets_no_order_and_the_sender_is_told_to_send_again(stage: Stage) -> None:
    assert stage.post("buy")["status"] == "FILLED"
    stage.go_offline()
    reply = stage.post("buy", comment="offline")
    assert reply.status == 503 or (reply["success"], reply["decision"]) == (False, "REJECTED"), reply.body
    assert stage.sent() == 1
    eventually(lambda: stage.statuses()[-1] in ("FILLED", "NOT_PLACED"), 5, stage.daemon.log)


@of(but="a clock")
def test_a_clock_that_is_far_from_the_exchanges_keeps_entries_out_and_no_way_out(stage: Stage) -> None:
    assert stage.post("buy")["status"] == "FILLED"
    stage.fake.clock = lambda: time.time() + 60
    stage.daemon.restart()
    reply = stage.post("buy", comment="later")
    assert (reply["success"], reply["check"]) == (False, "halted"), reply.body
    assert "clock" in reply["reason"]
    assert stage.post("sell", quantity="", market_position="flat")["status"] == "FILLED"
