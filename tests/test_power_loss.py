"""The power goes after any call on the disk: what a sender was told is still on the record.

strace writes down every write, cut and sync of the running daemon, and every answer it sends. From that the folder is
made as it may be found after a cut at any moment, and recovery has to make sense of it. After kill -9 everything that
was written is there; after a power cut only what was synced is for certain, and of the rest any part may be.
The method is that of https://research.cs.wisc.edu/wind/Publications/alice-osdi14.html, with three states per moment.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from harness import Daemon

from csv_logger import CsvFile
from csv_rows import SIGNALS_COLUMNS, TRADES_COLUMNS
from journal import SIGNALS, TRADES, Journal
from ledger import Ledger

STRACE = shutil.which("strace") or ""
pytestmark = pytest.mark.skipif(not STRACE, reason="no strace here (Debian, Ubuntu: apt-get install strace)")

EVERY = "EVERY_FAULT" in os.environ
ALERTS = 40 if EVERY else 3  # 40 also make the journal move its log into the database
STEP = 1 if EVERY else 8
FILES = ("journal.db", "journal.db-wal", "signals.csv", "trades.csv")
CALLS = "write,pwrite64,fsync,fdatasync,ftruncate,sendto,writev"
COLUMNS = {SIGNALS: SIGNALS_COLUMNS, TRADES: TRADES_COLUMNS}

Contents = dict[str, bytearray]


@dataclass(frozen=True)
class Op:
    """One call; `file` is empty for an answer to a sender."""

    file: str
    call: str = ""
    data: bytes = b""
    place: int = 0


@dataclass
class Disk:
    """What is written, and how much of it is certain to be there when the power comes back."""

    written: Contents
    synced: Contents
    open_ops: list[Op] = field(default_factory=list)

    def take(self, op: Op) -> None:
        if op.call in ("fsync", "fdatasync"):
            self.synced[op.file] = bytearray(self.written[op.file])
            self.open_ops = [other for other in self.open_ops if other.file != op.file]
            return
        put(self.written, op)
        self.open_ops.append(op)

    def after_a_cut(self) -> Iterator[tuple[str, Contents]]:
        yield "killed", self.written
        yield "only what was synced", self.synced
        torn = {name: bytearray(content) for name, content in self.synced.items()}
        for op in self.open_ops[::-2]:
            put(torn, Op(op.file, op.call, op.data[: (len(op.data) + 1) // 2], op.place))
        yield "every other call, half of it", torn


def put(files: Contents, op: Op) -> None:
    content = files[op.file]
    if op.call == "ftruncate":
        del content[op.place :]
        content.extend(bytes(op.place - len(content)))
        return
    place = len(content) if op.call == "write" else op.place
    content.extend(bytes(max(0, place - len(content))))
    content[place : place + len(op.data)] = op.data


# --- what strace wrote down -------------------------------------------------------------------------------------------

LINE = re.compile(r"(?P<pid>\d+) +(?P<text>.*)")
CALL = re.compile(r'(?P<call>\w+)\(\d+<(?P<file>[^>]*)>(?:, (?:"(?P<data>[^"]*)"|(?P<size>\d+)))?(?P<rest>.*)')
PLACE = re.compile(r", \d+, (\d+)\) += \d+")


def read_trace(path: Path) -> list[Op]:
    ops, begun = list[Op](), dict[str, str]()
    for line in path.read_text("ascii").splitlines():
        found = LINE.fullmatch(line)
        assert found, line[:200]
        pid, text = found["pid"], found["text"]
        if text.endswith("<unfinished ...>"):
            begun[pid] = text.removesuffix("<unfinished ...>").rstrip()
            continue
        if text.startswith("<... "):
            text = begun.pop(pid, "") + text.partition("resumed>")[2]
        ops += [op for op in (read_call(text),) if op]
    return ops


def read_call(text: str) -> Op | None:
    found = CALL.fullmatch(text)
    if found is None:
        return None
    file = Path(unescaped(found["file"]).decode()).name
    data = unescaped(found["data"] or "")
    if data.startswith(b"HTTP/1.1 200"):
        return Op("")
    if file not in FILES:
        return None
    assert "= -1" not in found["rest"], text[:200]
    place = PLACE.search(found["rest"]) if found["call"] == "pwrite64" else None
    return Op(file, found["call"], data, int(place[1]) if place else int(found["size"] or 0))


def unescaped(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()


# --- the test ---------------------------------------------------------------------------------------------------------


def buy(daemon: Daemon, number: int) -> None:
    reply = daemon.post(symbol="BTCUSDT", side="BUY", amount_usdt=10, price=43000, comment=number)
    assert (reply.status, reply["status"]) == (200, "FILLED")


def contents_of(logs: Path) -> Contents:
    return {name: bytearray((logs / name).read_bytes()) for name in FILES}


def recorded(daemon: Daemon) -> tuple[Contents, list[Op]]:
    """The folder before the alerts, and everything that happened on them."""
    trace = daemon.folder / "trace"
    tracer = subprocess.Popen(
        [STRACE, "-f", "-y", "-xx", "-s", "100000", "-e", f"trace={CALLS}", "-o", str(trace), "-p", str(daemon.pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr
    said = tracer.stderr.readline()
    if "attached" not in said:
        pytest.skip(f"strace may not look into other processes here: {said.strip()}")
    before = contents_of(daemon.folder / "logs")
    for number in range(ALERTS):
        buy(daemon, number + 1)
    tracer.send_signal(signal.SIGTERM)
    tracer.communicate(timeout=20)
    return before, read_trace(trace)


def recovered(folder: Path, files: Contents) -> tuple[int, int]:
    """How many decisions and outcomes a start finds; it must find the folder in order, and leave it so."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    journal = Journal(folder / "journal.db")
    try:
        held = len(Ledger(journal).books.positions)
        assert held == 1
        for name, columns in COLUMNS.items():
            file = CsvFile(
                folder / f"{name}.csv", columns, lambda n, name=name: journal.rows_after(name, n),  # type: ignore[misc]
                lambda: datetime.now(UTC), lambda name=name: journal.last_number(name),  # type: ignore[misc]
            )  # fmt: skip
            file.open()
            assert (file.lag, file.problem) == (0, "")
            lines = [line for _, line in journal.rows_after(name, 0)]
            text = (folder / f"{name}.csv").read_bytes().decode("utf-8-sig")
            assert text.splitlines(keepends=True)[1:] == lines
        return journal.last_number(SIGNALS), journal.last_number(TRADES)
    finally:
        journal.close()


def test_whenever_the_power_goes_what_was_answered_is_on_the_record(
    daemon_with: Callable[..., Daemon], tmp_path: Path
) -> None:
    generous = {"max_open_trades": 1000, "max_trades_per_day": 1000, "paper_balance_usdt": 10_000}
    daemon = daemon_with(cooldown_seconds=0, **generous).start()
    buy(daemon, 0)
    before, ops = recorded(daemon)
    disk = Disk(before, {name: bytearray(content) for name, content in before.items()})
    answered, states = 1, 0
    for moment, op in enumerate(ops):
        if op.file:
            disk.take(op)
        else:
            answered += 1
        if op.file and moment % STEP:
            continue
        for what, files in disk.after_a_cut():
            decisions, outcomes = recovered(tmp_path / "found", files)
            assert decisions >= answered, (moment, what)
            assert outcomes >= answered, (moment, what)
            assert decisions - outcomes in (0, 1), (moment, what)
            states += 1
    assert answered == 1 + ALERTS
    assert states > 3 * ALERTS
    assert disk.written == contents_of(daemon.folder / "logs"), "the trace is the whole truth"
    if EVERY:
        assert [op for op in ops if op.file == "journal.db"], "the log was moved into the database"


def test_the_folder_found_after_a_cut_is_good_for_a_start(daemon_with: Callable[..., Daemon]) -> None:
    daemon = daemon_with(cooldown_seconds=0, max_open_trades=1000, max_trades_per_day=1000).start()
    buy(daemon, 0)
    before, ops = recorded(daemon)
    disk = Disk(before, {name: bytearray(content) for name, content in before.items()})
    for op in ops[: len(ops) * 2 // 3]:
        if op.file:
            disk.take(op)
    answered = 1 + len([op for op in ops[: len(ops) * 2 // 3] if not op.file])
    for _, files in disk.after_a_cut():
        daemon.kill()
        for path in (daemon.folder / "logs").glob("journal.db*"):
            path.unlink()
        for name, content in files.items():
            (daemon.folder / "logs" / name).write_bytes(content)
        daemon.start()
        daemon.wait_until_settled()
        assert daemon.owner_get("/status")["open_trades"] >= answered
        assert daemon.csv_lines("trades") == daemon.journal_rows("trades")
