"""Rows 1 to 11 and 57: the process ends when it must not, or starts again and again."""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path

from fault_stage import ALWAYS, LOOK_UP, Stage
from harness import Daemon, eventually

# The exchange may or may not have the order of a process that died around here.
UNDER_WAY = "while the order is under way"


def die_at(stage: Stage, step: str, orders: int) -> None:
    """It dies of an alert, starts, and gets the alert again: `orders` is what the exchange has in the end."""
    stage.daemon.start(crash_at=step)
    assert stage.try_to_post(symbol="BTCUSDT", side="BUY", comment=step) is None
    stage.daemon.wait_until_dead()
    stage.kills += 1
    stage.daemon.start()
    stage.daemon.wait_until_settled()
    for _ in range(2):
        reply = stage.post(symbol="BTCUSDT", side="BUY", comment=step)
    assert reply["decision"] == "DUPLICATE"
    stage.assert_counts(orders)


def before_the_journal(stage: Stage) -> None:
    die_at(stage, "before the decision", 1)
    assert [row["Decision"] for row in stage.daemon.signals()] == ["ACCEPTED", "DUPLICATE"]


def inside_the_transaction(stage: Stage) -> None:
    die_at(stage, "inside the decision's transaction", 1)


def after_the_intent(stage: Stage) -> None:
    for number, step in enumerate(("after the decision's commit", "before the order leaves"), 1):
        die_at(stage, step, 0)
        assert [row["Status"] for row in stage.daemon.trades()][-1] == "NOT_PLACED"
        assert len(stage.daemon.trades()) >= number, "the missed trade is reported"
        stage.kill()


def under_way(stage: Stage) -> None:
    stage.break_next("delay", seconds=0.25, executed=True)
    die_at(stage, UNDER_WAY, 1)


def after_the_answer(stage: Stage) -> None:
    die_at(stage, "after the broker's answer", 1)


def before_the_rows(stage: Stage) -> None:
    die_at(stage, "after the outcome's commit", 1)


def inside_a_row(stage: Stage) -> None:
    die_at(stage, "inside the signals row", 1)
    stage.kill()
    die_at_trades_row = "inside the trades row"
    die_at(stage, die_at_trades_row, 2)


def before_the_reply(stage: Stage) -> None:
    die_at(stage, "after the trades row", 1)
    assert [row["Decision"] for row in stage.daemon.signals()] == ["ACCEPTED", "DUPLICATE", "DUPLICATE"]


def during_recovery(stage: Stage) -> None:
    leave_in_doubt(stage)
    for _ in range(stage.times(4, 50)):
        stage.daemon.start(wait=False, crash_at="at any time after the start")
        stage.daemon.wait_until_dead()
        stage.kills += 1
    stage.daemon.start()
    stage.daemon.wait_until_settled()
    stage.assert_counts(1)


def leave_in_doubt(stage: Stage) -> None:
    """The exchange has the order, the process never heard of it."""
    stage.start()
    stage.break_next("stall", executed=True)
    answer = stage.soon(partial(stage.try_to_post, symbol="BTCUSDT", side="BUY"))
    stage.is_sent(1)
    stage.kill()
    assert answer.result() is None


def power_loss(stage: Stage) -> None:
    """The folder as it was when the exchange got the order: what came after is lost, all or torn anywhere.

    Whether the disk did what fsync asked for is between the machine and its maker; that it is asked before the order
    leaves is seen in the trace where there is `strace` (row 37).
    """
    stage.start()
    assert stage.buy("first")["status"] == "FILLED"
    snapshot = stage.daemon.folder / "as it was"
    stage.break_next("delay", seconds=0.3, executed=True)
    answer = stage.soon(stage.buy, "second")
    stage.is_sent(2)
    shutil.copytree(stage.daemon.folder / "logs", snapshot)
    assert answer.result()["status"] == "FILLED"
    stage.kill()
    later = stage.daemon.folder / "later"
    shutil.copytree(stage.daemon.folder / "logs", later)
    count = stage.times(2, 40)
    for number in range(count):
        stage.faults += 1
        put_back(stage.daemon, snapshot)
        tear(snapshot / "journal.db-wal", later / "journal.db-wal", stage.daemon.folder / "logs", number / count)
        (stage.daemon.folder / "logs" / "signals.csv").write_bytes((later / "signals.csv").read_bytes()[: 97 * number])
        stage.daemon.start()
        stage.daemon.wait_until_settled()
        assert [row["Status"] for row in stage.daemon.trades() if row["Status"] != "UNKNOWN"] == ["FILLED"] * 2
        assert stage.buy("second")["decision"] == "DUPLICATE"
        stage.sent.answered.pop()  # that row is in a folder that is thrown away
        stage.kill()
    put_back(stage.daemon, later)
    shutil.rmtree(snapshot)
    shutil.rmtree(later)


def put_back(daemon: Daemon, folder: Path) -> None:
    shutil.rmtree(daemon.folder / "logs")
    shutil.copytree(folder, daemon.folder / "logs")


def tear(before: Path, after: Path, logs: Path, share: float) -> None:
    """The log up to what was on the disk, then this share of what came later."""
    old, new = before.read_bytes(), after.read_bytes()
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(old))
    last = max((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), default=same)
    cut = same + int((last - same) * share)
    (logs / "journal.db-wal").write_bytes(new[:cut] + old[cut:])
    (logs / "journal.db-shm").unlink(missing_ok=True)


def told_to_stop(stage: Stage) -> None:
    """SIGTERM with the order under way; then SIGTERM and SIGKILL at once, as some hosts do."""
    stage.start()
    for number, patient in enumerate((True, False), 1):
        stage.break_next("delay", seconds=0.3, executed=True)
        answer = stage.soon(partial(stage.try_to_post, symbol="BTCUSDT", side="BUY", comment=number))
        stage.is_sent(number)
        started = time.monotonic()
        stage.daemon.terminate() if patient else stage.kill()
        assert time.monotonic() - started < 10
        answer.result()
        stage.daemon.start()
        stage.daemon.wait_until_settled()
        stage.assert_counts(number)


def crash_loop(stage: Stage) -> None:
    """It never gets as far as to know what became of its order: not one more order leaves, however often it starts."""
    leave_in_doubt(stage)
    stage.break_next("status", LOOK_UP, status=503, times=ALWAYS)
    for number in range(stage.times(6, 20)):
        stage.daemon.start(wait=False)
        stage.daemon.wait_until_listening()
        assert stage.daemon.get("/health").status == 503
        if number % 5 == 0:
            early = stage.soon(partial(stage.try_to_post, symbol="ETHUSDT", side="BUY", comment="early"))
            time.sleep(0.02)
        stage.kill()
        early.result()
    stage.assert_counts(1)
    stage.fake.clear_faults()
    stage.daemon.start()
    stage.daemon.wait_until_settled()
    eventually(lambda: len(stage.fake.orders) == 1, 1, lambda: "an order that nobody was told of")
