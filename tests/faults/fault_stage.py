"""Where a row of the matrix is played: one exchange, one data folder, its daemon, and everything that was sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from fake_binance import FakeBinance
from global_counts import Sent, assert_global_counts
from harness import API_KEY, API_SECRET, Daemon, Nursery, Reply, binance, eventually

T = TypeVar("T")

ORDER = "POST /api/v3/order"
LOOK_UP = "GET /api/v3/order"
ALWAYS = 1_000_000
ABSENCE_SECONDS = 0.6
GENEROUS = {"cooldown_seconds": 0, "max_trades_per_day": 10**6, "max_open_trades": 10**6, "max_risk_per_trade": 1000}
QUICK = {"follow": 0.1, "longest_look": 0.1, "first_look": 0.05, "slack": 0.2, "late": [0.3]}


class Stage:
    """`full`: the long form of a row is wanted, as in `make faults`."""

    def __init__(self, nursery: Nursery, folder: Path, *, full: bool = False) -> None:
        self.fake = FakeBinance(API_KEY, API_SECRET, balances={"USDT": 1_000_000}, weight_limit=10**9).start()
        self.fake.order_limit = 10**6
        self.full, self.faults, self.kills, self.sent = full, 0, 0, Sent()
        self._nursery, self._folder, self._daemons = nursery, folder, list[Daemon]()
        self.daemon = self.new_daemon()
        # What must hold in the end, and what else has to be closed, where another exchange takes Binance's place.
        self.count: Callable[[], None] = lambda: assert_global_counts(self.daemon, self.fake, self.sent)
        self.on_close: Callable[[], None] = lambda: None

    def new_daemon(self, **settings: object) -> Daemon:
        """Another one, with a data folder of its own unless LOG_DIR is given."""
        folder = self._folder / f"daemon{len(self._daemons)}"
        folder.mkdir(parents=True)
        waits = {"test_absence_seconds": ABSENCE_SECONDS, "test_patience": QUICK}
        self._daemons.append(Daemon(self._nursery, folder, **binance(self.fake) | GENEROUS | waits | settings))
        return self._daemons[-1]

    def close(self) -> None:
        for daemon in self._daemons:
            daemon.kill()
        self.fake.stop()
        self.on_close()

    def start(self, **settings: object) -> Daemon:
        self.daemon.set(**settings)
        return self.daemon.start()

    def times(self, short: int, full: int) -> int:
        return full if self.full else short

    # --- alerts -----------------------------------------------------------------------------------------------------

    def post(self, **alert: Any) -> Reply:
        """Of a process that stays."""
        reply = self.try_to_post(**alert)
        assert reply is not None, self.daemon.log()[-2000:]
        return reply

    def try_to_post(self, **alert: Any) -> Reply | None:
        return self.sent.post(self.daemon, **alert)

    def buy(self, name: object = 0, **alert: object) -> Reply:
        said: dict[str, Any] = {"symbol": "BTCUSDT", "side": "BUY", "amount_usdt": 10, "comment": name} | alert
        return self.post(**said)

    def sell(self, name: object = 0, **alert: object) -> Reply:
        said: dict[str, Any] = {"symbol": "BTCUSDT", "side": "SELL", "comment": name} | alert
        return self.post(**said)

    def soon(self, call: Callable[..., T], *args: object) -> Future[T]:
        """In the background."""
        pool = ThreadPoolExecutor(1)
        answer = pool.submit(call, *args)
        pool.shutdown(wait=False)
        return answer

    def at_once(self, calls: Sequence[Callable[[], Reply]]) -> list[Reply]:
        """All of them wait for each other before the first one leaves."""
        together = threading.Barrier(len(calls))

        def run(call: Callable[[], Reply]) -> Reply:
            together.wait(10)
            return call()

        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(run, calls))

    # --- faults -----------------------------------------------------------------------------------------------------

    def break_next(self, kind: str, where: str = ORDER, **details: Any) -> None:
        """The fake exchange's next request of that kind goes wrong: fake_faults.KINDS."""
        self.faults += 1
        self.fake.fail_next(kind, where, **details)

    def kill(self) -> None:
        self.kills += 1
        self.daemon.kill()

    def restart(self) -> None:
        self.kill()
        self.daemon.start()

    def is_sent(self, orders: int) -> None:
        self.fake.wait_for(lambda fake: len(fake.orders) >= orders)

    # --- the end ----------------------------------------------------------------------------------------------------

    def assert_global_counts(self) -> None:
        if not self.daemon.is_alive():
            self.daemon.start()
        self.daemon.wait_until_ready()
        eventually(lambda: not self.daemon.orders_without_ending(), 20, lambda: self.daemon.log()[-2000:])
        self.count()

    def assert_counts(self, orders: int) -> None:
        assert len(self.fake.orders) == orders, [order.client_id for order in self.fake.orders]


def timed(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started
