"""What every test may ask for: a fake exchange, a daemon on paper, a daemon on the exchange."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_binance import FakeBinance
from fake_bingx import FakeBingx
from harness import API_KEY, API_SECRET, Daemon, Nursery, binance
from scenes import BingxScene, Scene

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# What takes longest begins first: five lanes take a file each, and the last lane to end is what everybody waits for.
LONGEST_FIRST = (
    "test_kills.py", "test_reconcile.py", "test_protection_under_faults.py", "test_orders_under_faults.py",
    "test_limits.py", "test_bingx.py", "test_matrix.py", "test_start_and_stop.py",
    "test_protection.py", "test_messages.py", "test_flattrade.py", "test_http.py", "test_one_account.py",
    "test_disk_faults.py", "test_signals.py", "test_futures_machine.py", "test_spot_machine.py",
    "test_secrets.py", "test_hostile_input.py",
    "test_ways_out.py", "test_accountant.py", "test_life_of_an_order.py", "test_binance_futures.py",
    "test_csv_logger.py", "test_bingx_client.py", "test_market_data.py", "test_exports.py", "test_notifier.py",
)  # fmt: skip


def pytest_configure() -> None:
    # Five thousand tests are made and kept: looking for garbage among them takes a sixth of what collecting takes.
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    from chromium import chromium_running  # what it needs takes a while to import, and most tests need none of it

    with chromium_running() as browser:
        yield browser


@pytest.fixture
def exchange() -> Iterator[FakeBinance]:
    """BTCUSDT at 43000, 1000 USDT in the account."""
    with FakeBinance(api_key=API_KEY, api_secret=API_SECRET) as fake:
        fake.set_price("BTCUSDT", 43000)
        for asset in list(fake.balances):
            fake.set_balance(asset, 0)
        fake.set_balance("USDT", 1000)
        yield fake


@pytest.fixture
def daemon_with(nursery: Nursery, tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Makes a daemon with the settings given; it is started and ended for the test."""
    made: list[Daemon] = []

    def make(**settings: object) -> Daemon:
        folder = tmp_path / f"daemon{len(made)}"
        folder.mkdir()
        made.append(Daemon(nursery, folder, **settings))
        return made[-1]

    yield make
    for daemon in made:
        daemon.kill()


@pytest.fixture
def paper(daemon_with: Callable[..., Daemon]) -> Daemon:
    """A daemon without keys, with 100 USDT to play with and no cooldown."""
    return daemon_with(paper_balance_usdt=100, cooldown_seconds=0).start()


@pytest.fixture
def live(daemon_with: Callable[..., Daemon], exchange: FakeBinance) -> Daemon:
    """A daemon whose BINANCE is the fake exchange, without cooldown."""
    return daemon_with(**binance(exchange, cooldown_seconds=0)).start()


@pytest.fixture
def scene(daemon_with: Callable[..., Daemon]) -> Iterator[Callable[..., Scene]]:
    """Makes a started daemon and the account it trades: spot, futures, hedge, paper, paper futures, bingx ..."""
    fakes: list[FakeBinance | FakeBingx] = []

    def make(kind: str, patience: dict[str, object] | None = None, **settings: object) -> Scene:
        made: Scene
        if kind.startswith("bingx"):
            bingx = FakeBingx().start()
            fakes.append(bingx)
            made = BingxScene(kind, daemon_with, bingx, patience or {}, **settings)
        else:
            fake = FakeBinance(API_KEY, API_SECRET).start()
            fakes.append(fake)
            made = Scene(kind, daemon_with, fake, patience or {}, **settings)
        made.daemon.start()
        return made

    yield make
    for fake in fakes:
        fake.stop()
