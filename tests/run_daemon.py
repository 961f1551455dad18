"""Starts the daemon with what only tests need: a clock that can be moved, shorter waits, and death at a chosen step.

`python run_daemon.py` runs one daemon with the environment it is given. `python run_daemon.py --nursery` imports
everything once and then forks one daemon for every line of JSON on its input: a start takes milliseconds.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import uvicorn

import app
import bingx_client
import bingx_link
import bingx_spot
import csv_logger
import desk
import door
import journal
import market_data
import orders
import paper_client
import risk
import sizing
import wiring
from config import Settings
from setting_sources import load_settings

try:
    import binance_client
    import binance_futures
    import binance_link
except ImportError:  # the paper tests do without
    binance_client = None  # type: ignore[assignment]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def clock() -> datetime:
    """The time, moved by the seconds that the file TEST_CLOCK names holds; it can be changed while the daemon runs."""
    path = os.environ.get("TEST_CLOCK")
    seconds = float(Path(path).read_text() or 0) if path and Path(path).exists() else 0.0
    return datetime.now(UTC) + timedelta(seconds=seconds)


def before(owner: Any, name: str, act: Callable[[], None]) -> None:
    original = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        act()
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def after(owner: Any, name: str, act: Callable[[], None]) -> None:
    original = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        act()
        return result

    setattr(owner, name, wrapped)


def tear_row() -> None:
    """The next CSV row is written to the middle only, then comes the end."""

    def half(fd: int, data: bytes) -> None:
        os.write(fd, data[: max(1, len(data) // 2)])
        die()

    csv_logger._write_all = half


def when_placing(seconds: float) -> Callable[[], None]:
    return lambda: threading.Timer(seconds, die).start()


def broker_classes() -> list[Any]:
    remote = [binance_client.BinanceClient, binance_futures.BinanceFutures] if binance_client else []
    if os.environ.get("FLATTRADE_API_KEY"):
        import flattrade_client

        remote.append(flattrade_client.FlatTradeClient)
    return [paper_client.PaperClient, bingx_client.BingxSwap, bingx_spot.BingxSpot, *remote]


def each_broker(wrap: Callable[..., None], name: str, act: Callable[[], None]) -> None:
    for owner in broker_classes():
        wrap(owner, name, act)


# Every step of an order's life, in order. A step is where the process dies when CRASH_AT names it.
STEPS: dict[str, Callable[[], None]] = {
    "before the decision": lambda: before(risk.RiskEngine, "decide", die),
    "inside the decision's transaction": lambda: after(journal.Journal, "_insert", die),
    "after the decision's commit": lambda: after(risk.RiskEngine, "decide", die),
    "before the order leaves": lambda: each_broker(before, "place", die),
    "while the order is under way": lambda: each_broker(before, "place", when_placing(0.02)),
    "after the broker's answer": lambda: each_broker(after, "place", die),
    "inside the signals row": lambda: before(desk.Desk, "write_signals", tear_row),
    "after the signals row": lambda: after(desk.Desk, "write_signals", die),
    "inside the outcome's transaction": lambda: before(
        risk.RiskEngine, "settle", lambda: after(journal.Journal, "_insert", die)
    ),
    "after the outcome's commit": lambda: after(risk.RiskEngine, "settle", die),
    "inside the trades row": lambda: after(risk.RiskEngine, "settle", tear_row),
    "after the trades row": lambda: after(desk.Desk, "settle", die),
    "at any time after the start": lambda: threading.Timer(random.uniform(0.0, 0.3), die).start(),
}

# The steps of what keeps a position protected: an order's life has none of them where no protection is asked for.
PROTECTION_STEPS: dict[str, Callable[[], None]] = {
    "after the fill": lambda: before(risk.RiskEngine, "guard", die),
    "inside the protection's intent": lambda: before(
        risk.RiskEngine, "guard", lambda: after(journal.Journal, "_insert", die)
    ),
    "before the protection leaves": lambda: each_broker(before, "protect", die),
    "while the protection is under way": lambda: each_broker(before, "protect", when_placing(0.01)),
    "after the protection's answer": lambda: each_broker(after, "protect", die),
    "between the protection's outcomes": lambda: each_broker(
        after, "protect", lambda: after(risk.RiskEngine, "settle", die)
    ),
    "before the protection is cancelled": lambda: each_broker(before, "cancel", die),
    "while the protection is cancelled": lambda: each_broker(before, "cancel", when_placing(0.005)),
    "after the protection is cancelled": lambda: each_broker(after, "cancel", die),
}

# Steps that only some orders come to: those with protection, and those that have to wait, as the halves of a reversal.
MORE_STEPS: dict[str, Callable[[], None]] = {
    "before protection is on the record": lambda: before(risk.RiskEngine, "guard", die),
    "before protection leaves": lambda: before(desk.Desk, "protect", die),
    "after protection was taken": lambda: after(desk.Desk, "protect", die),
    "before a waiting order is released": lambda: before(risk.RiskEngine, "release", die),
    "after a waiting order was released": lambda: after(risk.RiskEngine, "release", die),
}


def go_wrong() -> None:
    """An error that nobody foresaw, as long as there is a file called `trouble`; it says what stands in there."""
    if Path("trouble").exists():
        raise ArithmeticError(f"unforeseen {Path('trouble').read_text()}")


# Where something unforeseen goes wrong when TEST_TROUBLE_IN names it.
TROUBLES: dict[str, Callable[[], None]] = {
    "the reading": lambda: before(door, "parse_alert", go_wrong),
    "the checks": lambda: before(risk, "judge", go_wrong),
    "the sizing": lambda: before(sizing, "entry_size", go_wrong),
    "the journal's memory": lambda: before(journal.Journal, "seen", go_wrong),
    "the journal's own row": lambda: before(journal, "signal_row", go_wrong),
    "the placing": lambda: each_broker(after, "place", go_wrong),
    "the settling": lambda: before(risk.RiskEngine, "settle", go_wrong),
}


def tell_everything() -> None:
    """Also what is usually too small a matter for the log."""
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger("gatehouse").debug("everything is told")


def prepare() -> orders.Patience:
    """Applies what TEST_... in the environment says, apart from the clock."""
    if os.environ.get("TEST_LOG_LEVEL") == "DEBUG":
        after(app, "set_up_logging", tell_everything)
    step = os.environ.get("TEST_CRASH_AT")
    if step:
        (STEPS | PROTECTION_STEPS | MORE_STEPS)[step]()
    place = os.environ.get("TEST_TROUBLE_IN")
    if place:
        TROUBLES[place]()
    for name, seconds in json.loads(os.environ.get("TEST_MARKET", "{}")).items():
        is_age = isinstance(getattr(market_data, name), timedelta)
        setattr(market_data, name, timedelta(seconds=seconds) if is_age else seconds)
    absence = os.environ.get("TEST_ABSENCE_SECONDS")
    if absence:
        bingx_link.BingxLink.absence_is_proven_after_seconds = float(absence)
    if absence and binance_client:
        binance_link.BinanceLink.absence_is_proven_after_seconds = float(absence)
    if absence and os.environ.get("FLATTRADE_API_KEY"):
        import flattrade_client

        flattrade_client.FlatTradeClient.absence_is_proven_after_seconds = float(absence)
    for name, seconds in json.loads(os.environ.get("TEST_WAITS", "{}")).items():
        module, _, constant = name.partition(".")
        owner = importlib.import_module(module)
        assert hasattr(owner, constant), name
        setattr(owner, constant, seconds)
    # Looks at what the accounts are worth would come between the writes that tests count: only where a test is of them.
    return orders.Patience(**{"worth_first": 1e6} | json.loads(os.environ.get("TEST_PATIENCE", "{}")))


def run() -> None:
    patience = prepare()

    def opened(settings: Settings) -> wiring.Gatehouse:
        return wiring.open_gatehouse(settings, clock, patience)

    app.open_gatehouse = opened  # type: ignore
    code = app.main()
    sys.stdout.flush()
    os._exit(code)


def warm_up() -> None:
    """What every start imports late and works out anew, done once: a third of a daemon's start."""
    environment = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LOG_DIR"] = folder
        gate = wiring.open_gatehouse(load_settings())
        config = uvicorn.Config(app.create_app(gate).app, loop="uvloop", log_config=None)
        config.load()
        config.get_loop_factory()
        gate.journal.close()
    os.environ.clear()
    os.environ.update(environment)


def nursery() -> None:
    """Forks a daemon per line `{"env": {…}, "cwd": …, "log": …}` and answers with its pid."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    warm_up()
    # What is frozen here no daemon looks through, and no memory is copied for that.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.environ.clear()
            os.environ.update(order["env"])
            os.chdir(order["cwd"])
            log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            null = os.open(os.devnull, os.O_RDONLY)
            for target, source in ((0, null), (1, log), (2, log)):
                os.dup2(source, target)
            random.seed(time.monotonic_ns())
            run()
        print(pid, flush=True)


if __name__ == "__main__":
    nursery() if "--nursery" in sys.argv else run()
