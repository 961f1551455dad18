"""The disk fails the running daemon, call by call: the kernel itself says no, by way of strace.

Every call of the journal in turn with `make disk-faults`; a handful of them otherwise.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_binance import FakeBinance
from harness import REPLY_SECONDS, Daemon, Reply, assert_csvs_equal_journal, binance, eventually, locked

STRACE = shutil.which("strace") or ""
needs_strace = pytest.mark.skipif(not STRACE, reason="no strace here (Debian, Ubuntu: apt-get install strace)")

EVERY = "EVERY_FAULT" in os.environ
HEALED_SECONDS = 6.0
WAL, SIGNALS, TRADES = "journal.db-wal", "signals.csv", "trades.csv"
ORDERS = "POST /api/v3/order"

# So many calls are the two commits of an accepted alert, of the decision and of the outcome.
COMMITS = {"pwrite64": range(1, 22) if EVERY else (1, 12), "fdatasync": range(1, 5) if EVERY else (1, 2)}
JOURNAL_FAULTS = [(call, number) for call, numbers in COMMITS.items() for number in numbers]


@contextmanager
def faults(daemon: Daemon, call: str, what: str, *names: str) -> Iterator[None]:
    """While it lasts, these calls of the daemon on these files of its folder end as strace is told."""
    paths = [argument for name in names for argument in ("-P", str(daemon.folder / "logs" / name))]
    tracer = subprocess.Popen(
        [STRACE, "-f", "-p", str(daemon.pid), "-o", os.devnull, *paths, "-e", f"inject={call}:{what}"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr
    said = tracer.stderr.readline()
    if "attached" not in said:
        tracer.wait()
        pytest.skip(f"strace may not look into other processes here: {said.strip()}")
    try:
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=10)


def buy(daemon: Daemon, number: object) -> Reply:
    return daemon.post(symbol="BTCUSDT", side="BUY", amount_usdt=10, price=43000, comment=number)


@pytest.fixture
def rich(daemon_with: Callable[..., Daemon], exchange: FakeBinance) -> Daemon:
    exchange.set_balance("USDT", 100_000)
    return daemon_with(
        **binance(exchange, cooldown_seconds=0, max_open_trades=1000, max_trades_per_day=1000, dedupe_seconds=600)
    ).start()


# --- the journal ------------------------------------------------------------------------------------------------------


@needs_strace
def test_whichever_call_on_the_journal_fails_no_order_is_lost_doubled_or_unrecorded(
    rich: Daemon, exchange: FakeBinance
) -> None:
    refused = 0
    for number, (call, which) in enumerate(JOURNAL_FAULTS):
        before = len(exchange.calls(ORDERS))
        with faults(rich, call, f"error=EIO:when={which}", WAL):
            reply = buy(rich, number)
        sent = len(exchange.calls(ORDERS)) - before
        assert reply.seconds < REPLY_SECONDS
        assert (reply.status, sent) in ((503, 0), (200, 1), (202, 1)), (call, which, reply.body)
        refused += reply.status == 503
        eventually(rich.is_healthy, HEALED_SECONDS, lambda: "it does not heal")
        rich.wait_until_settled()
        again = buy(rich, number)
        assert (again["decision"], again["status"]) == ("ACCEPTED" if reply.status == 503 else "DUPLICATE", "FILLED")
        assert len(exchange.calls(ORDERS)) == before + 1, (call, which)
    assert 0 < refused < len(JOURNAL_FAULTS), "before the order left, and after"
    assert_csvs_equal_journal(rich)
    trades = rich.trades()
    assert len(trades) == len(JOURNAL_FAULTS)
    rich.restart()
    assert rich.owner_get("/status")["open_trades"] == len(JOURNAL_FAULTS)
    assert rich.trades() == trades


@needs_strace
@pytest.mark.parametrize(("call", "error"), [("pwrite64", "ENOSPC"), ("pwrite64", "EIO"), ("fdatasync", "EIO")])
def test_while_every_call_on_the_journal_fails_nothing_leaves_and_killed_then_nothing_appears(
    call: str, error: str, rich: Daemon, exchange: FakeBinance
) -> None:
    """What was written but could not be brought to the disk may still be read by the next start: it never trades."""
    with faults(rich, call, f"error={error}", WAL):
        for number in range(3):
            reply = buy(rich, number)
            assert (reply.status, reply["error"]) == (503, "the journal cannot be written; nothing was placed")
            assert reply.seconds < REPLY_SECONDS
        assert rich.get("/health").status == 503
        rich.kill()
    rich.start()
    rich.wait_until_settled()
    assert exchange.calls(ORDERS) == []
    assert buy(rich, "afterwards")["status"] == "FILLED"
    assert len(exchange.calls(ORDERS)) == 1
    assert rich.owner_get("/status")["open_trades"] == 1
    assert_csvs_equal_journal(rich)


@needs_strace
def test_on_a_slow_disk_the_answers_still_come_in_time(rich: Daemon, exchange: FakeBinance) -> None:
    with faults(rich, "fdatasync", "delay_enter=300000", WAL), ThreadPoolExecutor(4) as senders:
        started = time.monotonic()
        replies = list(senders.map(lambda number: buy(rich, number), range(4)))
        assert time.monotonic() - started > 0.3, "the disk was slow"
        assert [(reply.status in (200, 202), reply["decision"]) for reply in replies] == [(True, "ACCEPTED")] * 4
        assert max(reply.seconds for reply in replies) < REPLY_SECONDS
    rich.wait_until_settled()
    assert len(exchange.calls(ORDERS)) == 4
    assert_csvs_equal_journal(rich)


# A commit that takes longer than the sender's patience, and then fails or not.
SLOW = "delay_enter=2400000"
FAILS, WORKS = f"{SLOW}:error=EIO", SLOW


@needs_strace
@pytest.mark.parametrize("what", [FAILS, WORKS])
def test_an_entry_that_the_disk_holds_up_is_answered_503_and_does_not_leave_later(
    what: str, rich: Daemon, exchange: FakeBinance
) -> None:
    with faults(rich, "fdatasync", what, WAL):
        reply = buy(rich, "held up")
        assert (reply.status, reply["error"]) == (503, "no time to decide; send it again")
        assert 2.0 < reply.seconds < REPLY_SECONDS
        time.sleep(0.6)
    eventually(rich.is_healthy, HEALED_SECONDS, lambda: "it does not heal")
    rich.wait_until_settled()
    assert exchange.calls(ORDERS) == []
    on_record = [] if what == FAILS else ["the disk was too slow, the sender was told to send it again"]
    eventually(lambda: [row["Note"] for row in rich.trades()] == on_record, 5, lambda: str(rich.trades()))
    told = [notice["text"] for notice in rich.owner_get("/status")["notices"]]
    assert len([text for text in told if "told to send it again" in text]) == len(on_record)
    assert rich.owner_get("/status")["trades_today"] == 0
    again = buy(rich, "held up")
    assert (again["decision"], again["status"]) == ("ACCEPTED", "FILLED")
    assert buy(rich, "held up")["decision"] == "DUPLICATE"
    assert len(exchange.calls(ORDERS)) == 1
    assert_csvs_equal_journal(rich)


def sell(daemon: Daemon) -> Reply:
    return daemon.post(symbol="BTCUSDT", side="SELL")


@needs_strace
@pytest.mark.parametrize("what", [FAILS, WORKS])
def test_a_way_out_that_the_disk_holds_up_is_pending_and_leaves_once_it_is_on_the_record(
    what: str, rich: Daemon, exchange: FakeBinance
) -> None:
    assert buy(rich, "before")["status"] == "FILLED"
    with faults(rich, "fdatasync", what, WAL):
        reply = sell(rich)
        assert (reply.status, reply["status"], reply["success"]) == (202, "PENDING", False)
        assert reply.seconds < REPLY_SECONDS
        time.sleep(0.6)
    eventually(lambda: len(exchange.calls(ORDERS)) == 2, HEALED_SECONDS, lambda: "it does not leave")
    eventually(lambda: rich.owner_get("/status")["open_trades"] == 0, 5, lambda: "it is not on the record")
    assert [row["Decision"] for row in rich.signals()] == ["ACCEPTED", "ACCEPTED"]
    assert sell(rich)["decision"] == "DUPLICATE"
    assert len(exchange.calls(ORDERS)) == 2
    assert_csvs_equal_journal(rich)


@needs_strace
def test_of_a_way_out_that_never_came_on_the_record_the_owner_is_told(rich: Daemon, exchange: FakeBinance) -> None:
    assert buy(rich, "before")["status"] == "FILLED"
    with faults(rich, "fdatasync", FAILS, WAL):
        assert sell(rich).status == 202
        rich.move_clock(301)
        eventually(lambda: "answered PENDING, and nothing was recorded" in notices(rich), 5, lambda: notices(rich))
    assert "cannot write the journal" in notices(rich)
    eventually(rich.is_healthy, HEALED_SECONDS, lambda: "it does not heal")
    assert len(exchange.calls(ORDERS)) == 1


def notices(daemon: Daemon) -> str:
    return "\n".join(notice["text"] for notice in daemon.owner_get("/status")["notices"])


def test_a_repeat_of_what_is_held_up_is_not_told_that_the_first_one_is_under_way(
    rich: Daemon, exchange: FakeBinance
) -> None:
    """It waits for the first one's ending: nothing was placed, and who sends it once more trades."""
    for name in ("twice", "twice again", "and again"):
        placed = len(exchange.calls(ORDERS))
        reply = _repeat_of_what_is_held_up(rich, name)
        if reply["decision"] == "DUPLICATE":
            break
        # The first one had its ending before the second was decided: that one is a new try. Seldom; so once more.
        assert (reply["decision"], reply["status"]) == ("ACCEPTED", "FILLED"), reply.body
        assert len(exchange.calls(ORDERS)) == placed + 1
    assert (reply["decision"], reply["success"]) == ("DUPLICATE", False), reply.body
    assert "told to send it again" in reply["reason"]
    assert len(exchange.calls(ORDERS)) == placed
    assert buy(rich, name)["status"] == "FILLED"
    assert len(exchange.calls(ORDERS)) == placed + 1


def _repeat_of_what_is_held_up(rich: Daemon, name: str) -> Reply:
    with ThreadPoolExecutor(2) as senders:
        with locked(rich.folder / "logs" / "journal.db"):
            first = senders.submit(buy, rich, name)
            time.sleep(1)
            second = senders.submit(buy, rich, name)
            assert first.result().status == 503
        return second.result()


# --- the CSV files ----------------------------------------------------------------------------------------------------


@needs_strace
@pytest.mark.parametrize(
    "call", ["write", "write,ftruncate", "openat", "%stat,fstat,newfstatat"] if EVERY else ["write,ftruncate"]
)
def test_csv_files_that_cannot_be_written_lag_say_so_and_catch_up(call: str, rich: Daemon) -> None:
    buy(rich, "before")
    with faults(rich, call, "error=EIO", SIGNALS, TRADES):
        reply = buy(rich, "meanwhile")
        assert (reply.status, reply["status"]) == (200, "FILLED")
        assert reply.seconds < REPLY_SECONDS
        status = rich.owner_get("/status")
        assert status["csv_lag"] == {"signals": 1, "trades": 1}
        for name, problem in status["csv_problems"].items():
            assert problem.startswith(f"{name}.csv cannot be written (Input/output error): check the disk")
        assert len(status["csv_problems"]) == 2
        assert rich.get("/health").status == 200, "orders do not need it"
    eventually(
        lambda: rich.owner_get("/status")["csv_lag"] == {"signals": 0, "trades": 0}, 5, lambda: "it does not catch up"
    )
    assert rich.owner_get("/status")["csv_problems"] == {}
    assert_csvs_equal_journal(rich)
    assert list(rich.folder.glob("logs/*edited*")) == []


@needs_strace
@pytest.mark.parametrize("which", [1, 2, 3] if EVERY else [2])
def test_one_failing_write_among_many_leaves_no_torn_and_no_double_row(which: int, rich: Daemon) -> None:
    with faults(rich, "write", f"error=EIO:when={which}", SIGNALS, TRADES):
        for number in range(3):
            assert buy(rich, number)["status"] == "FILLED"
    assert ".csv cannot be written (Input/output error)" in rich.log()
    assert_csvs_equal_journal(rich)
    assert len(rich.signals()) == len(rich.trades()) == 3


# --- a disk that is full ----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MiB: its last write is a short one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "gatehouse-test", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_on_a_full_disk_the_journal_has_room_of_its_own_and_the_csv_files_catch_up_with_whole_rows(
    small_disk: Path, daemon_with: Callable[..., Daemon], exchange: FakeBinance
) -> None:
    exchange.set_balance("USDT", 100_000)
    daemon = daemon_with(**binance(exchange, cooldown_seconds=0, max_open_trades=1000, max_trades_per_day=1000))
    (daemon.folder / "logs").symlink_to(small_disk)
    daemon.start()
    assert buy(daemon, "before")["status"] == "FILLED"
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        fill_up(file.fileno())
    replies = [buy(daemon, number) for number in range(40)]
    assert {(reply.status, reply["status"]) for reply in replies} == {(200, "FILLED")}
    assert max(reply.seconds for reply in replies) < REPLY_SECONDS
    assert daemon.owner_get("/status")["csv_lag"]["signals"] > 0
    assert "signals.csv cannot be written (No space left on device): free some disk space" in daemon.log()
    ballast.unlink()
    eventually(daemon.is_healthy, HEALED_SECONDS, lambda: "it does not heal")
    daemon.wait_until_settled()
    assert buy(daemon, "afterwards")["status"] == "FILLED"
    assert len(exchange.calls(ORDERS)) == 2 + len(replies)
    assert_csvs_equal_journal(daemon)
    assert len(daemon.trades()) == 2 + len(replies)


def fill_up(fd: int) -> None:
    for size in (1 << 16, 1 << 8, 1):
        try:
            while True:
                os.write(fd, b"x" * size)
        except OSError:
            pass  # full; perhaps a smaller piece still fits
