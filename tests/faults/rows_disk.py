"""Rows 35 to 47 and 58: the disk, the folder, the clock and the settings."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from builders import LIMITS
from fault_stage import Stage
from harness import REPLY_SECONDS, eventually, full_disk, locked

from journal import Journal, JournalError
from risk import RiskEngine


def logs(stage: Stage) -> Path:
    return stage.daemon.folder / "logs"


def full_for_the_journal(stage: Stage) -> None:
    daemon = stage.start()
    assert stage.buy("before")["status"] == "FILLED"
    stage.faults += 1
    with full_disk(daemon):
        for reply in (stage.buy("full"), stage.sell("full")):
            assert (reply.status, reply["success"]) == (503, False)
        stage.assert_counts(1)
    eventually(daemon.is_healthy, 5, lambda: "it does not heal")
    assert stage.buy("full")["status"] == "FILLED"
    stage.assert_counts(2)


def slow_disk(stage: Stage) -> None:
    """Nobody waits for a commit longer than a sender does; what was answered as not decided does not happen later."""
    stage.start()
    stage.buy("before")
    stage.faults += 2
    with locked(logs(stage) / "journal.db"):
        answer = stage.soon(stage.buy, "half a second")
        time.sleep(0.5)
    assert answer.result()["status"] == "FILLED"
    with locked(logs(stage) / "journal.db"):
        late = stage.buy("longer than anybody waits")
        assert late.seconds < REPLY_SECONDS
        assert (late.status, late["success"]) != (200, True)
        stage.assert_counts(2)
    stage.daemon.wait_until_settled()
    again = stage.buy("longer than anybody waits")
    assert again["success"]
    stage.daemon.wait_until_settled()
    stage.assert_counts(3)


def saved_over(stage: Stage) -> None:
    """As office programs do: renamed into place, or written in place; the owner's version is kept beside ours."""
    stage.start()
    stage.buy("before")
    signals, trades = logs(stage) / "signals.csv", logs(stage) / "trades.csv"
    stage.faults += 2
    copy = signals.with_suffix(".tmp")
    copy.write_bytes(signals.read_bytes().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n"))
    copy.replace(signals)
    trades.write_bytes(trades.read_bytes()[:-30] + b"mine\r\n")
    assert stage.buy("after")["status"] == "FILLED"
    assert {path.name.split(".")[0] for path in logs(stage).glob("*.edited-*")} == {"signals", "trades"}


def files_gone(stage: Stage) -> None:
    stage.start()
    for damage in ("gone", "a folder", "no header"):
        stage.faults += 2
        assert stage.buy(damage)["status"] == "FILLED"
        for name in ("signals.csv", "trades.csv"):
            path = logs(stage) / name
            if damage == "no header":
                path.write_bytes(path.read_bytes().split(b"\r\n", 1)[1])
                continue
            path.unlink()
            if damage == "a folder":
                path.mkdir()
        assert stage.buy(f"after {damage}")["status"] == "FILLED"


def folder_gone(stage: Stage) -> None:
    """Without its journal nothing may be decided: it would be off the record, and gone with the process."""
    daemon = stage.start()
    assert stage.buy("before")["status"] == "FILLED"
    aside = daemon.folder / "moved"
    stage.faults += 1
    logs(stage).rename(aside)
    reply = stage.buy("off the record")
    assert (reply.status, reply["success"]) == (503, False)
    assert daemon.get("/health").status == 503
    stage.assert_counts(1)
    stage.kill()
    shutil.rmtree(logs(stage), ignore_errors=True)
    aside.rename(logs(stage))
    daemon.start()
    assert stage.buy("off the record")["status"] == "FILLED"


def closed_journal(stage: Stage) -> Path:
    """Of a daemon that has traded and was ended, all in one file; nobody has it open."""
    stage.start()
    for number in range(4):
        assert stage.buy(number)["status"] == "FILLED"
    assert stage.buy(1)["decision"] == "DUPLICATE"
    stage.daemon.terminate()
    path = logs(stage) / "journal.db"
    with closing(sqlite3.connect(path)) as journal:
        journal.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return path


def corrupt_journal(stage: Stage) -> None:
    """Flipped at any place it is refused, or everything is there: nothing is traded and nothing is lost in silence."""
    path = closed_journal(stage)
    whole, kept = path.read_bytes(), stage.daemon.folder / "kept"
    shutil.copytree(logs(stage), kept)
    before = [stage.daemon.journal_rows(file) for file in ("signals", "trades")]
    in_use = [offset for offset in range(len(whole)) if whole[offset]]
    count = stage.times(20, 60)
    for number in range(count):
        offset = in_use[number * (len(in_use) - 1) // (count - 1)]
        stage.faults += 1
        damaged = bytearray(whole)
        if number % 2:
            damaged[offset] ^= 0x01  # as small as it gets: another digit
        else:
            damaged[offset : offset + 16] = bytes(byte ^ 0x55 for byte in damaged[offset : offset + 16])
        # Every place in the short form, too; there the process is only started where the journal itself lets it.
        if not stage.full and number % 5 and not can_be_read(damaged, kept, logs(stage)):
            continue
        put_back(damaged, kept, logs(stage))
        said = len(stage.daemon.log())
        stage.daemon.start(wait=False)
        eventually(lambda: not stage.daemon.is_alive() or stage.daemon.is_healthy(), 10, stage.daemon.log)
        if stage.daemon.is_alive():
            assert_all_is_there(stage, before, offset)
            stage.kill()
        else:
            assert stage.daemon.log()[said:].startswith("cannot start:\n  - "), stage.daemon.log()[said:]
        stage.assert_counts(4)
    shutil.rmtree(logs(stage))
    kept.rename(logs(stage))


def put_back(journal: bytes | bytearray, kept: Path, logs: Path) -> None:
    shutil.rmtree(logs)
    shutil.copytree(kept, logs)
    (logs / "journal.db").write_bytes(journal)


def can_be_read(journal: bytes | bytearray, kept: Path, logs: Path) -> bool:
    """As a start does it; one that does not end in a JournalError would be no refusal."""
    put_back(journal, kept, logs)
    try:
        RiskEngine(Journal(logs / "journal.db"), LIMITS)
    except JournalError:
        return False
    return True


def assert_all_is_there(stage: Stage, before: list[list[str]], offset: int) -> None:
    now = [stage.daemon.journal_rows(file) for file in ("signals", "trades")]
    assert [len(rows) for rows in now] == [len(rows) for rows in before], offset
    # A damaged row takes the place of the good one in the CSV file; the good one is kept beside it.
    files = b"".join(path.read_bytes() for path in logs(stage).glob("*.csv"))
    assert [line for rows in before for line in rows if line.encode() not in files] == [], offset
    status = stage.daemon.owner_get("/status")
    assert (status["trades_today"], status["open_trades"]) == (4, 4), offset
    for number in range(4):
        reply = stage.daemon.post(symbol="BTCUSDT", side="BUY", amount_usdt=10, comment=number)
        assert reply["decision"] in ("DUPLICATE", None), offset


def journal_gone(stage: Stage) -> None:
    path = closed_journal(stage)
    aside = path.with_suffix(".aside")
    stage.faults += 1
    path.rename(aside)
    for extra in logs(stage).glob("journal.db-*"):
        extra.unlink()
    said = len(stage.daemon.log())
    stage.daemon.start(wait=False)
    stage.daemon.wait_until_dead()
    assert "journal.db is missing" in stage.daemon.log()[said:]
    assert not path.exists()
    aside.rename(path)
    stage.daemon.start()
    assert stage.buy(1)["decision"] == "DUPLICATE"
    stage.assert_counts(4)


def second_instance(stage: Stage) -> None:
    """Started beside the first, and in the moment in which the first one dies: never do two work on one folder."""
    stage.start()
    assert stage.buy("first")["status"] == "FILLED"
    second = stage.new_daemon(log_dir=str(logs(stage)))
    second.start(wait=False)
    second.wait_until_dead()
    assert "another instance is already running" in second.log()
    for number in range(stage.times(3, 20)):
        stage.faults += 1
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(stage.kill)
            time.sleep(number % 5 * 0.002)
            second.start(wait=False)
            ended.result()
        stage.daemon.start(wait=False)
        eventually(lambda: stage.daemon.is_healthy() or second.is_healthy(), 10, second.log)
        eventually(lambda: not (stage.daemon.is_alive() and second.is_alive()), 10, second.log)
        if second.is_alive():
            reply = stage.sent.post(second, symbol="BTCUSDT", side="BUY", comment=number)
            second.kill()
            stage.daemon.start()
        else:
            reply = stage.post(symbol="BTCUSDT", side="BUY", comment=number)
        assert reply is not None
        assert reply["status"] == "FILLED"


def seconds_until(year: int, month: int, day: int) -> float:
    return (datetime(year, month, day, tzinfo=UTC) - datetime.now(UTC)).total_seconds()


def clock_jumps(stage: Stage) -> None:
    """An hour back, a day on, and back again: what was spent of a day stays spent."""
    stage.start(max_trades_per_day=2)
    day = seconds_until(2027, 5, 4)
    stage.daemon.move_clock(day + 600)
    stage.restart()
    assert stage.buy("1")["status"] == stage.buy("2")["status"] == "FILLED"
    for seconds, name in ((-3600, "an hour back"), (600, "here again")):
        stage.faults += 1
        stage.daemon.move_clock(day + seconds)
        assert stage.buy(name)["check"] == "daily_limit"
    stage.daemon.move_clock(day + 86_400 + 600)
    assert [stage.buy(f"next day {n}")["decision"] for n in range(3)] == ["ACCEPTED", "ACCEPTED", "REJECTED"]
    stage.assert_counts(4)


def clock_far_off(stage: Stage) -> None:
    """Ages and days would be wrong: no entries until the clocks agree again; a way out is open all the time."""
    stage.start()
    assert stage.buy("before")["status"] == "FILLED"
    for seconds in (-3600, 86_400)[: stage.times(1, 2)]:
        stage.faults += 1
        stage.fake.clock = lambda moved=seconds: time.time() + moved  # type: ignore[misc]
        eventually(lambda: bool(clock_problem(stage)), 10, lambda: "nobody compares the clocks")
        assert stage.buy(f"{seconds} off")["check"] == "halted"
        assert stage.sell(f"{seconds} off")["status"] == "FILLED"
        stage.fake.clock = time.time
        eventually(lambda: not clock_problem(stage), 10, lambda: "the clocks agree again, and nobody looks")
        assert stage.buy(f"after {seconds}")["status"] == "FILLED"


def clock_problem(stage: Stage) -> str:
    return str(stage.daemon.owner_get("/status")["brokers"]["BINANCE"]["clock_problem"])


def midnight(stage: Stage) -> None:
    """Of a leap day, where the machine keeps another zone's time: DateTime and the counter mean the same UTC day."""
    for number, (zone, date) in enumerate((("America/New_York", (2028, 3, 1)), ("Pacific/Auckland", (2028, 2, 29)))):
        stage.faults += 1
        seconds = seconds_until(*date) if not number else seconds_until(2028, 9, 24)
        stage.daemon.move_clock(seconds - 0.6)
        stage.start(tz=zone, max_trades_per_day=12)
        stage.daemon.move_clock(seconds_until(*date) - 0.6 if not number else seconds_until(2028, 9, 24) - 0.6)
        until = time.monotonic() + 1.2

        def storm(sender: int, until: float = until, number: int = number) -> None:
            count = 0
            while time.monotonic() < until:
                stage.buy(f"{number}/{sender}/{count}")
                count += 1

        with ThreadPoolExecutor(4) as senders:
            list(senders.map(storm, range(4)))
        stage.daemon.wait_until_settled()
        stage.kill()
    accepted = Counter(row["DateTime"][:10] for row in stage.daemon.signals() if row["Decision"] == "ACCEPTED")
    assert accepted == dict.fromkeys(("2028-02-29", "2028-03-01", "2028-09-23", "2028-09-24"), 12)
    assert stage.daemon.start().owner_get("/status")["trades_today"] == 12


def another_day(stage: Stage) -> None:
    day = seconds_until(2027, 5, 4)
    stage.daemon.move_clock(day - 600)
    stage.start(max_trades_per_day=1)
    for seconds in (-600, 60, 3 * 86_400):
        stage.faults += 1
        stage.daemon.move_clock(day + seconds)
        stage.restart()
        assert [stage.buy(f"{seconds} {n}")["decision"] for n in range(2)] == ["ACCEPTED", "REJECTED"]


WRONG_SETTINGS: tuple[dict[str, object], ...] = (
    {"webhook_secret_key": None},
    {"webhook_secret_key": "short"},
    {"binance_testnet": "perhaps"},
    {"binance_api_secret": None},
    {"max_open_trades": "many"},
    {"default_broker": "KRAKEN"},
)


def wrong_settings(stage: Stage) -> None:
    good = dict(stage.daemon.env)
    for wrong in WRONG_SETTINGS:
        stage.faults += 1
        stage.daemon.set(**wrong)
        said = len(stage.daemon.log())
        stage.daemon.start(wait=False)
        stage.daemon.wait_until_dead()
        assert stage.daemon.log()[said:].startswith("cannot start:\n  - "), wrong
        assert not logs(stage).exists()
        stage.daemon.env = dict(good)
    stage.start()
    assert stage.buy()["status"] == "FILLED"
