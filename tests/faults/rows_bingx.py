"""Rows 61 to 69: what BingX and the line to it can do; counted at the fake BingX."""

from __future__ import annotations

import time
from collections import Counter
from decimal import Decimal
from functools import partial
from typing import Any

from fake_bingx import API_KEY, API_SECRET, FakeBingx, FakeOrder
from fault_stage import ABSENCE_SECONDS, ALWAYS, GENEROUS, QUICK, Stage
from global_counts import ENDINGS, assert_records_are_whole
from harness import REPLY_SECONDS, SECRET, Reply, bingx, eventually
from run_daemon import STEPS

PLACE, LOOK_UP = "POST /openApi/swap/v2/trade/order", "GET /openApi/swap/v2/trade/order"
LOST: tuple[tuple[str, dict[str, Any]], ...] = (
    ("reset", {}), ("truncated", {}), ("code", {"code": 80012, "msg": "busy"}), ("close", {}), ("other_order", {}),
    ("status", {"status": 500}), ("status", {"status": 502}), ("status", {"status": 504}), ("status", {"status": 403}),
    ("code", {"code": 101500, "msg": "RPC timeout"}), ("code", {"code": 101204, "status": 502}),
)  # fmt: skip
AROUND_THE_ORDER = ("before the order leaves", "while the order is under way", "after the broker's answer")


class Swap:
    """The stage with BingX in place of Binance. BTC costs 60000, an alert buys 0.001 of it."""

    def __init__(self, stage: Stage, **settings: object) -> None:
        self.stage, self.fake = stage, FakeBingx().start()
        stage.fake.stop()
        self.fake.wallet = Decimal(10**9)
        alone = dict.fromkeys(("binance_api_key", "binance_api_secret", "binance_api_url"))
        waits = {"test_patience": QUICK | {"order": 1.0}, "test_absence_seconds": ABSENCE_SECONDS}
        stage.daemon = self.daemon = stage.new_daemon(**bingx(self.fake) | GENEROUS | waits | alone | settings)
        stage.count, stage.on_close = self.assert_counts, self.fake.stop
        self.daemon.start()

    def post(self, name: object, **alert: object) -> Reply:
        reply = self.try_to_post(name, **alert)
        assert reply is not None, self.daemon.log()[-2000:]
        return reply

    def try_to_post(self, name: object, **alert: object) -> Reply | None:
        said: dict[str, Any] = {"broker": "BINGX", "symbol": "BTCUSDT", "action": "buy", "quantity": "0.001"}
        return self.stage.sent.post(self.daemon, **said | {"comment": str(name)} | alert)

    def break_next(self, kind: str, where: str = PLACE, **more: Any) -> None:
        self.stage.faults += 1
        self.fake.fail_next(kind, where, **more)

    def last(self) -> str:
        self.daemon.wait_until_settled()
        return self.daemon.trades()[-1]["Status"]

    @property
    def placed(self) -> list[FakeOrder]:
        """Without the protection, which carries no id of ours."""
        return [order for order in self.fake.orders if not order.close_position]

    # --- the end ----------------------------------------------------------------------------------------------------

    def assert_counts(self) -> None:
        """As global_counts.py, of BingX: nothing doubled, nothing lost, the records whole, no secret anywhere."""
        arrived = [call for call in self.fake.order_posts if not call.was_turned_away]
        sent = Counter(call.params["clientOrderID"] for call in arrived if "clientOrderID" in call.params)
        assert max(sent.values(), default=1) == 1, "sent twice"
        rows = {row["ClientOrderID"]: row for row in self.daemon.trades() if row["Status"] in ENDINGS}
        there = Counter(rows[order.client_id]["SignalID"] for order in self.placed)
        assert max(there.values(), default=1) == 1, "two orders of one alert"
        assert_records_are_whole(self.daemon, self.stage.sent)
        ids = {row["OrderID"].lstrip("'"): row for row in rows.values() if row["OrderID"]}
        orders = {str(order.order_id): order for order in self.fake.orders}
        assert ids.keys() == orders.keys(), "lost, or nowhere but in our books"
        for number, row in ids.items():
            assert Decimal(row["Quantity"] or 0) == orders[number].executed
            assert Decimal(row["TradeAmount"] or 0) == orders[number].quote
        status = self.daemon.owner_get("/status")
        held = [Decimal(str(each["quantity"])) * (-1 if each["side"] == "SHORT" else 1) for each in status["positions"]]
        assert sum(held) == self.fake.amount()
        assert (status["drift"], status["halted"]) == ([], "")
        self._assert_no_secret_is_anywhere()

    def _assert_no_secret_is_anywhere(self) -> None:
        for path in self.daemon.folder.rglob("*"):
            for secret in (SECRET, API_KEY, API_SECRET, "signature=") if path.is_file() else ():
                assert secret.encode() not in path.read_bytes(), path


def lose(swap: Swap, kind: str, executed: bool, **more: Any) -> None:
    before = len(swap.placed)
    swap.break_next(kind, executed=executed, **more)
    reply = swap.post(f"{kind} {more} {executed}")
    assert reply["decision"] == "ACCEPTED"
    assert reply.seconds < REPLY_SECONDS
    assert swap.last() == ("FILLED" if executed else "NOT_PLACED")
    assert len(swap.placed) == before + executed


def reply_lost(stage: Stage) -> None:
    swap = Swap(stage)
    for kind, more in LOST:
        lose(swap, kind, executed=True, **more)


def never_arrived(stage: Stage) -> None:
    swap = Swap(stage)
    for kind, more in LOST:
        lose(swap, kind, executed=False, **more)


def refused_or_not_known(stage: Stage) -> None:
    """A code that is listed is believed; of one that nobody ever heard of it is asked what became of the order."""
    swap = Swap(stage)
    swap.break_next("code", code=101204, msg="Insufficient margin")
    reply = swap.post("refused")
    assert (reply["decision"], reply["status"], reply["success"]) == ("ACCEPTED", "REJECTED", False)
    assert "(101204)" in reply["error"]
    for executed in (True, False):
        lose(swap, "code", executed, code=987654, msg="never heard of")


def slow_reply(stage: Stage) -> None:
    """Longer than anybody waits: it is found by our id while its own reply is still to come."""
    swap = Swap(stage)
    swap.break_next("delay", executed=True, seconds=1.6)
    began = time.monotonic()
    assert stage.soon(swap.post, "slow").result().seconds < REPLY_SECONDS
    assert swap.last() == "FILLED"
    time.sleep(max(0.0, began + 1.9 - time.monotonic()))
    assert swap.last() == "FILLED", "its late reply changed something"


def told_to_wait(stage: Stage) -> None:
    """A closed endpoint and a ban, the ban over a restart: nothing is sent meanwhile, and 503 says to send it again."""
    swap = Swap(stage)
    again = swap.fake.now_ms() + 1600
    swap.break_next("code", code=100410, msg=f"code:100410:… will be unblocked after {again}")
    for _ in range(3):
        assert swap.post("closed").status == 503
    time.sleep(max(0.0, (again - swap.fake.now_ms()) / 1000 + 0.05))
    assert swap.post("closed")["status"] == "FILLED"
    swap.break_next("status", status=429, headers=(("Retry-After", "2"),))
    banned_at = time.monotonic()
    assert swap.post("banned").status == 503
    calls = len(swap.fake.calls)
    stage.kill()
    swap.daemon.start(wait=False).wait_until_listening()
    assert swap.post("banned").status == 503
    time.sleep(max(0.0, banned_at + 1.9 - time.monotonic()))
    assert len(swap.fake.calls) == calls, "it was called during the ban"
    swap.daemon.wait_until_ready()
    assert swap.post("banned")["status"] == "FILLED"
    assert len(swap.fake.order_posts) == 4


def clock_was_wrong(stage: Stage) -> None:
    """Told of it once, it goes by the exchange's clock; that one then jumps by more than its window allows."""
    swap = Swap(stage)
    swap.break_next("code", code=100421, msg="Null timestamp or timestamp mismatch")
    for seconds in (3.5, -3.5):
        stage.faults += 1
        swap.fake.clock = lambda moved=seconds: time.time() + moved  # type: ignore[misc]
        assert swap.post(seconds)["status"] == "FILLED"
    assert [call.was_turned_away for call in swap.fake.order_posts] == [True, False] * 2


def killed_around_the_order(stage: Stage) -> None:
    """In the long form at every step, in and out, with replies lost at the same time."""
    swap = Swap(stage)
    swap.daemon.kill()
    for step in STEPS if stage.full else AROUND_THE_ORDER:
        for side, kind in (("buy", "delay"), ("buy", "reset"), ("close", "delay"), ("close", "truncated")):
            swap.break_next(kind, executed=True, seconds=0.1)
            die(swap, f"{step} {kind}", step, side)
            swap.fake.faults.clear()
            swap.daemon.start()
            swap.daemon.wait_until_settled()
            eventually(lambda: not swap.daemon.orders_without_ending(), 10, swap.daemon.log)
            swap.assert_counts()
            swap.daemon.kill()
    swap.daemon.start()


def die(swap: Swap, name: str, step: str, side: str) -> None:
    swap.daemon.start(crash_at=step, wait=False).wait_until_listening()
    alert = {"action": side} | ({"quantity": None} if side == "close" else {})
    until, attempt = time.monotonic() + 3, 0
    # One that comes before it is ready is told so, and it does not die of it.
    while swap.daemon.is_alive() and time.monotonic() < until:
        attempt += 1
        swap.try_to_post(f"{name} {attempt}", **alert)
        time.sleep(0.05)
    swap.daemon.kill()
    swap.stage.kills += 1


def restarted_in_doubt(stage: Stage) -> None:
    """Nobody can tell what became of the order, not even after a restart: entries wait, and nothing is sent again."""
    swap = Swap(stage)
    swap.break_next("stall", executed=True)
    answer = stage.soon(partial(swap.try_to_post, "unheard"))
    eventually(lambda: len(swap.placed) == 1, 5, swap.daemon.log)
    stage.kill()
    assert answer.result() is None
    swap.break_next("code", LOOK_UP, code=100500, msg="order not exist, the system is busy", times=ALWAYS)
    for _ in range(stage.times(1, 5)):
        swap.daemon.start(wait=False).wait_until_listening()
        assert swap.daemon.get("/health").status == 503
        assert swap.post("too early").status == 503
        stage.kill()
    swap.fake.faults.clear()
    swap.daemon.start()
    assert swap.last() == "FILLED"
    assert swap.post("unheard")["decision"] == "DUPLICATE"
    assert len(swap.fake.order_posts) == 1


def stop_in_doubt(stage: Stage) -> None:
    """The reply to the stop is lost, or the process with it: in the end there is one, and it closes the position."""
    swap = Swap(stage)
    for kind, executed in (("reset", True), ("reset", False), ("status", True)):
        swap.break_next(kind, executed=executed, order_type="STOP_MARKET", status=502)
        assert swap.post(f"{kind} {executed}", stop_loss="59000")["status"] == "FILLED"
        eventually(lambda: len(swap.fake.waiting) == 1, 10, swap.daemon.log)
        eventually(lambda: len(swap.daemon.owner_get("/status")["resting_orders"]) == 1, 10, swap.daemon.log)
        stage.kill()
        swap.daemon.start()
        swap.fake.set_price("BTC-USDT", 58900)
        eventually(lambda: not swap.daemon.owner_get("/status")["positions"], 10, swap.daemon.log)
        assert swap.fake.amount() == 0
        swap.fake.set_price("BTC-USDT", 60000)
    stops = [order for order in swap.fake.orders if order.close_position]
    assert [order.status for order in stops] == ["FILLED"] * 3
