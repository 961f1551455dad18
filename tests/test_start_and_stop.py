"""Start, stop, and everything that can be wrong with the folder, the disk and the settings in between."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_binance import FakeBinance
from harness import (
    REPLY_SECONDS,
    ROOT,
    SECRET,
    Daemon,
    Reply,
    assert_csvs_equal_journal,
    binance,
    can_connect,
    eventually,
    free_port,
    full_disk,
    read_csv,
)

Make = Callable[..., Daemon]

LOOK_UP = "GET /api/v3/order"
ALWAYS = 10**6
STOP_SECONDS = 10.0


def buy(daemon: Daemon, number: object = 0, symbol: str = "BTCUSDT", **more: Any) -> Reply:
    return daemon.post(symbol=symbol, side="BUY", amount_usdt=10, price=43000, comment=number, **more)


def sell(daemon: Daemon, symbol: str = "BTCUSDT", **more: Any) -> Reply:
    return daemon.post(symbol=symbol, side="SELL", price=43000, **more)


@contextmanager
def meanwhile(call: Callable[[], Reply]) -> Iterator[Future[Reply]]:
    """A sender who waits for its answer while the test goes on."""
    with ThreadPoolExecutor(1) as sender:
        yield sender.submit(call)


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- the program itself -----------------------------------------------------------------------------------------------


class Program:
    """`python app.py` as its owner starts it, in a folder of its own."""

    def __init__(self, folder: Path, **env: object) -> None:
        self.folder, self.port = folder, free_port()
        named = {name.upper(): str(value) for name, value in env.items()}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py")],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "PORT": str(self.port)} | named,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_up(self) -> None:
        eventually(lambda: can_connect(self.port) or self.process.poll() is not None, 10, lambda: "not up")
        assert self.process.poll() is None, self.process.communicate()

    def end(self) -> tuple[int, str, str]:
        """Exit code, output, errors; within the time that a service manager gives."""
        out, errors = self.process.communicate(timeout=STOP_SECONDS)
        return self.process.returncode, out, errors

    def terminate(self) -> tuple[int, str, str]:
        self.process.send_signal(signal.SIGTERM)
        return self.end()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(**env: object) -> Program:
        started.append(Program(tmp_path, **env))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def test_without_any_settings_it_trades_on_paper_and_the_printed_line_works_when_pasted(
    program: Callable[..., Program],
) -> None:
    daemon = program()
    daemon.wait_until_up()
    logs = daemon.folder / "logs"
    assert logs.stat().st_mode & 0o777 == 0o700
    line = next(text for text in read_until(daemon, "curl") if "curl" in text)
    pasted = subprocess.run(["bash", "-c", line.strip()], capture_output=True, text=True, timeout=10)
    reply = json.loads(pasted.stdout)
    assert (reply["success"], reply["decision"], reply["status"]) == (True, "ACCEPTED", "FILLED")
    assert [row["Status"] for row in read_csv(logs / "trades.csv")] == ["FILLED"]
    modes = {path.name: path.stat().st_mode & 0o777 for path in logs.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert {"journal.db", "signals.csv", "trades.csv", "webhook_secret"} <= modes.keys()
    started = time.monotonic()
    code, _, _ = daemon.terminate()
    assert code == 0
    assert time.monotonic() - started < 2, "nothing was under way"


def read_until(daemon: Program, word: str) -> list[str]:
    assert daemon.process.stdout
    lines: list[str] = []
    while not lines or word not in lines[-1]:
        lines.append(daemon.process.stdout.readline())
        assert lines[-1], f"it ended before it said {word}: {lines}"
    return lines


def test_all_mistakes_in_the_settings_are_one_message_and_nothing_is_started(program: Callable[..., Program]) -> None:
    mistakes = {"max_open_trades": "many", "cooldown_seconds": "-1", "default_broker": "KRAKEN", "binance_api_key": "k"}
    daemon = program(**mistakes)
    code, out, errors = daemon.end()
    assert (code, out) == (2, "")
    assert errors.startswith("cannot start:\n  - ")
    assert "Traceback" not in errors
    for name in ("MAX_OPEN_TRADES", "COOLDOWN_SECONDS", "DEFAULT_BROKER", "BINANCE_API_SECRET", "WEBHOOK_SECRET_KEY"):
        assert name in errors
    assert list(daemon.folder.iterdir()) == []


def test_a_second_instance_says_so_and_touches_nothing(paper: Daemon, program: Callable[..., Program]) -> None:
    assert buy(paper)["status"] == "FILLED"
    before = content_of(paper.folder / "logs")
    code, out, errors = program(log_dir=paper.folder / "logs").end()
    assert (code, out) == (2, "")
    assert errors.startswith(f"cannot start:\n  - another instance is already running on LOG_DIR {paper.folder}/logs")
    assert content_of(paper.folder / "logs") == before
    assert buy(paper, 1)["status"] == "FILLED"


def test_a_port_that_is_taken_ends_it_with_an_error(paper: Daemon, program: Callable[..., Program]) -> None:
    code, output, errors = program(port=paper.port).end()
    assert (code, output) == (2, "")
    assert f"PORT {paper.port} cannot be listened on: Address already in use; choose another PORT" in errors
    assert paper.is_healthy()


def test_told_to_stop_with_an_order_in_flight_it_exits_in_time_and_finds_the_order_at_the_next_start(
    program: Callable[..., Program], daemon_with: Make, exchange: FakeBinance
) -> None:
    settings = binance(exchange, cooldown_seconds=0)
    first = program(webhook_secret_key=SECRET, **{k: v for k, v in settings.items() if not k.startswith("test_")})
    first.wait_until_up()
    second = daemon_with(**settings, log_dir=str(first.folder / "logs"))
    second.port, port = first.port, second.port  # speak to the first
    eventually(second.is_healthy, 10, lambda: "not ready")
    exchange.fail_next("stall", executed=True)
    with meanwhile(lambda: buy(second)) as answer:
        exchange.wait_for(lambda fake: len(fake.orders) == 1)
        started = time.monotonic()
        code, _, _ = first.terminate()
        assert time.monotonic() - started < STOP_SECONDS
        assert code == 0
        reply = answer.result()
    assert (reply.status, reply["decision"], reply["status"]) == (202, "ACCEPTED", "PENDING")
    second.port = port
    second.start()
    second.wait_until_settled()
    rows = read_csv(first.folder / "logs" / "trades.csv")
    assert [row["Status"] for row in rows][-1] == "FILLED"
    assert Counter(exchange.posts_by_client_id.values()) == {1: 1}
    assert second.owner_get("/status")["open_trades"] == 1


def test_told_to_stop_it_waits_for_an_order_that_ends_in_time(live: Daemon, exchange: FakeBinance) -> None:
    exchange.fail_next("delay", seconds=3.0, executed=True)
    assert buy(live)["status"] == "PENDING"
    live.terminate()
    assert [row["Status"] for row in live.trades()] == ["FILLED"]
    assert live.journal_rows("trades") == live.csv_lines("trades")


def test_when_its_terminal_is_closed_it_ends_as_when_told_to_stop(live: Daemon, exchange: FakeBinance) -> None:
    exchange.fail_next("delay", seconds=3.0, executed=True)
    assert buy(live)["status"] == "PENDING"
    os.kill(live.pid, signal.SIGHUP)
    live.wait_until_dead()
    assert [row["Status"] for row in live.trades()] == ["FILLED"]


def test_under_nohup_a_closed_terminal_is_nothing_to_it(program: Callable[..., Program]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does, for what is started
    try:
        daemon = program()
    finally:
        signal.signal(signal.SIGHUP, before)
    daemon.wait_until_up()
    daemon.process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert daemon.process.poll() is None
    assert daemon.terminate()[0] == 0


@pytest.mark.parametrize("milliseconds", [0, 4, 8])
def test_told_to_stop_in_the_moment_of_its_start_it_stops(milliseconds: int, program: Callable[..., Program]) -> None:
    """The first lines are out, and the server does not listen for signals yet."""
    daemon = program()
    read_until(daemon, "curl")
    time.sleep(milliseconds / 1000)
    code, _, _ = daemon.terminate()
    assert code == 0


def test_who_does_not_read_the_log_keeps_neither_alerts_waiting_nor_the_stop(
    program: Callable[..., Program], daemon_with: Make
) -> None:
    """`make run | less`, a terminal stopped with Ctrl-S, a connection to it that hangs."""
    first = program(webhook_secret_key=SECRET, cooldown_seconds=0, max_open_trades=100, max_trades_per_day=100)
    assert first.process.stderr
    fcntl.fcntl(first.process.stderr, fcntl.F_SETPIPE_SZ, 4096)
    first.wait_until_up()
    speaker = daemon_with()
    speaker.port = first.port
    for number in range(40):
        assert buy(speaker, number)["status"] == "FILLED"
    assert speaker.is_healthy()
    first.process.terminate()
    assert first.process.wait(10) == 0


# --- the folder -------------------------------------------------------------------------------------------------------


def assert_refuses_to_start(daemon: Daemon, *words: str) -> None:
    before = daemon.log()
    daemon.start(wait=False)
    daemon.wait_until_dead()
    said = daemon.log().removeprefix(before)
    assert said.startswith("cannot start:\n  - "), said
    assert "Traceback" not in said
    assert "listens on" not in said
    for word in words:
        assert word in said


@pytest.fixture
def traded(paper: Daemon) -> Daemon:
    """A daemon that has traded, and was ended."""
    for number in range(3):
        assert buy(paper, number)["status"] == "FILLED"
    paper.terminate()
    return paper


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def checkpoint(journal: Path) -> None:
    """All of the journal into its one file, so that there is something to damage."""
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone()"
    subprocess.run([sys.executable, "-c", code, str(journal)], check=True)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "another file": lambda journal: overwrite(journal, 0, b"this is no journal" * 1000),
    "its first page": lambda journal: overwrite(journal, 100, b"\xff" * 500),
    "its schema": lambda journal: overwrite(journal, 3000, b"\xff" * 1000),
    "a page in the middle": lambda journal: overwrite(journal, 4096, b"\xff" * 4096),
    "cut in half": lambda journal: os.truncate(journal, journal.stat().st_size // 2),
    "an event that is none": lambda journal: overwrite(
        journal, journal.read_bytes().index(b'"client_order_id"'), b'"client_order_ix"'
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_journal_is_refused_and_left_as_it_is(damage: str, traded: Daemon) -> None:
    journal = traded.folder / "logs" / "journal.db"
    checkpoint(journal)
    DAMAGES[damage](journal)
    before = journal.read_bytes()
    files = {name: (traded.folder / "logs" / name).read_bytes() for name in ("signals.csv", "trades.csv")}
    assert_refuses_to_start(traded, "journal.db")
    assert journal.read_bytes() == before
    assert {name: (traded.folder / "logs" / name).read_bytes() for name in files} == files


def test_a_journal_that_is_gone_is_not_begun_anew_beside_its_csv_files(traded: Daemon) -> None:
    logs = traded.folder / "logs"
    for path in logs.glob("journal.db*"):
        path.unlink()
    assert_refuses_to_start(traded, "journal.db is missing", "signals.csv and trades.csv", "restore", "backup")
    assert not (logs / "journal.db").exists()
    (logs / "signals.csv").unlink()
    assert_refuses_to_start(traded, "trades.csv is there")
    (logs / "trades.csv").rename(traded.folder / "old.csv")
    traded.start()
    assert traded.owner_get("/status")["trades_today"] == 0


def test_after_a_stop_the_journal_is_its_one_file(traded: Daemon) -> None:
    """Who copies `journal.db` alone then has all of it, and a `-wal` that stays behind does nothing to a backup."""
    logs = traded.folder / "logs"
    assert [path.stat().st_size for path in logs.glob("journal.db-wal")] in ([], [0])
    for path in logs.glob("journal.db-*"):
        path.unlink()
    traded.start()
    assert traded.owner_get("/status")["trades_today"] == 3
    assert buy(traded, 0)["decision"] == "DUPLICATE"
    assert list(logs.glob("*.edited-*")) == []


def test_a_journal_without_its_latest_part_is_as_good_as_missing(paper: Daemon) -> None:
    """`journal.db` alone, copied or moved after a crash without its `-wal`, remembers nothing of what it traded."""
    assert buy(paper)["status"] == "FILLED"
    paper.kill()
    traded = paper
    for path in traded.folder.glob("logs/journal.db-*"):
        path.unlink()
    assert_refuses_to_start(traded, "journal.db is empty", "signals.csv and trades.csv has rows", "journal.db-wal back")
    assert list(traded.folder.glob("logs/*.edited-*")) == []


@pytest.mark.parametrize(
    "content", [None, b"\xef\xbb\xbfsecret-of-mine-0123456789"], ids=["a folder", "a byte order mark"]
)
def test_a_secret_that_cannot_be_read_is_named(content: bytes | None, daemon_with: Make) -> None:
    daemon = daemon_with(webhook_secret_key=None)
    path = daemon.folder / "logs" / "webhook_secret"
    path.parent.mkdir()
    path.mkdir() if content is None else path.write_bytes(content)
    assert_refuses_to_start(daemon, str(path), "cannot be read", "move it away")


def test_of_a_journal_that_is_older_than_its_csv_files_the_owner_is_told(paper: Daemon) -> None:
    """A restored backup, or a journal that was moved after a crash without its latest part."""
    journal, backup = paper.folder / "logs" / "journal.db", paper.folder / "backup.db"
    assert buy(paper)["status"] == "FILLED"
    with closing(sqlite3.connect(journal)) as source, closing(sqlite3.connect(backup)) as copy:
        source.backup(copy)
    assert not paper.restart().owner_get("/status")["notices"], "nothing is missing yet"
    newest = buy(paper, 1)["signal_id"]
    paper.terminate()
    backup.replace(journal)
    paper.start()
    (notice,) = paper.owner_get("/status")["notices"]
    assert notice["text"].startswith(f"the journal is older than signals.csv, which ends with {newest}: ")
    assert not paper.restart().owner_get("/status")["notices"], "it is told once: the files are equal now"


def test_a_folder_that_cannot_be_used_is_named(daemon_with: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_refuses_to_start(daemon_with(log_dir=str(tmp_path / "file")), "LOG_DIR", "cannot be used", "choose")


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_while_the_journal_cannot_be_written_nothing_leaves_and_everybody_is_told(
    live: Daemon, exchange: FakeBinance
) -> None:
    assert buy(live)["status"] == "FILLED"
    with full_disk(live):
        first = buy(live, 1)
        assert live.get("/health").status == 503
        for reply in (first, sell(live), live.post(symbol="BTCUSDT", side="sideways")):
            assert (reply.status, reply["error"]) == (503, "the journal cannot be written; nothing was placed")
            assert reply.seconds < REPLY_SECONDS
        assert live.owner_post("/pause").status == 503
        health = live.get("/health")
        assert health.status == 503
        assert [problem.startswith("cannot write the journal: ") for problem in health["problems"]] == [True]
        assert live.owner_get("/status")["status"] == "unavailable"
        assert len(exchange.calls("POST /api/v3/order")) == 1
    eventually(live.is_healthy, 5, lambda: "it does not heal")
    assert not live.owner_get("/status")["paused"]
    assert buy(live, 1)["decision"] == "ACCEPTED", "the resend is a new try"
    assert sell(live)["status"] == "FILLED"
    assert [order.side for order in exchange.orders] == ["BUY", "BUY", "SELL"]
    assert_csvs_equal_journal(live)
    live.restart()
    assert live.owner_get("/status")["open_trades"] == 0


@pytest.mark.parametrize("killed", [False, True], ids=["written later", "killed meanwhile"])
def test_an_outcome_that_cannot_be_written_is_pending_and_on_the_record_in_the_end(
    killed: bool, live: Daemon, exchange: FakeBinance
) -> None:
    exchange.fail_next("delay", seconds=0.6, executed=True)
    with meanwhile(lambda: buy(live)) as answer:
        exchange.wait_for(lambda fake: len(fake.orders) == 1)
        with full_disk(live):
            reply = answer.result()
            assert (reply.status, reply["decision"], reply["status"]) == (202, "ACCEPTED", "PENDING")
            assert reply.seconds < REPLY_SECONDS
            assert live.get("/health").status == 503
            assert live.trades() == []
            if killed:
                live.kill()
        live.start() if killed else live.wait_until_ready(5)
    live.wait_until_settled()
    eventually(lambda: [row["Status"] for row in live.trades()] == ["FILLED"], 5, lambda: str(live.trades()))
    again = buy(live)
    assert (again["decision"], again["status"]) == ("DUPLICATE", "FILLED")
    assert len(exchange.orders) == 1
    assert_csvs_equal_journal(live)


# --- what nobody foresaw ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["the checks", "the sizing", "the journal's memory", "the journal's own row"])
def test_an_unforeseen_error_before_the_order_leaves_is_a_503_and_no_order(
    place: str, daemon_with: Make, exchange: FakeBinance
) -> None:
    daemon = daemon_with(**binance(exchange, cooldown_seconds=0), test_trouble_in=place).start()
    trouble = daemon.folder / "trouble"
    trouble.touch()
    reply = buy(daemon)
    assert (reply.status, reply["decision"]) == (503, None)
    assert "nothing was placed" in reply["error"]
    assert reply.seconds < 1
    assert daemon.signals() == []
    assert exchange.calls("POST /api/v3/order") == []
    trouble.unlink()
    again = buy(daemon)
    assert (again["decision"], again["status"]) == ("ACCEPTED", "FILLED")
    assert len(exchange.orders) == len(daemon.signals()) == 1


def test_an_unforeseen_error_at_the_door_is_answered_and_in_the_log(daemon_with: Make) -> None:
    daemon = daemon_with(cooldown_seconds=0, test_trouble_in="the reading").start()
    trouble = daemon.folder / "trouble"
    trouble.touch()
    reply = daemon.post(symbol="BTCUSDT", side="BUY", price=43000)
    assert (reply.status, reply["error"]) == (503, "unforeseen error; it is in the log")
    assert "Traceback" in daemon.log()
    trouble.unlink()
    assert daemon.post(symbol="BTCUSDT", side="BUY", price=43000)["decision"] == "ACCEPTED"


@pytest.mark.parametrize("place", ["the placing", "the settling"])
def test_an_unforeseen_error_after_the_order_left_is_never_called_a_failure(
    place: str, daemon_with: Make, exchange: FakeBinance
) -> None:
    daemon = daemon_with(**binance(exchange, cooldown_seconds=0), test_trouble_in=place).start()
    trouble = daemon.folder / "trouble"
    trouble.touch()
    reply = buy(daemon)
    assert reply.status in (200, 202)
    assert (reply["decision"], reply["success"]) == ("ACCEPTED", True)
    trouble.unlink()
    again = buy(daemon)
    assert (again.status, again["decision"], again["success"]) == (200, "DUPLICATE", True)
    if place == "the settling":
        refused = buy(daemon, 1)
        assert refused["check"] == "halted"
        assert refused["reason"].startswith("Trading is halted: unforeseen error around order gh")
        daemon.restart()
    daemon.wait_until_settled()
    assert buy(daemon)["status"] == "FILLED"
    assert [row["Status"] for row in daemon.trades()][-1] == "FILLED"
    assert daemon.owner_get("/status")["open_trades"] == len(exchange.orders) == 1
    assert buy(daemon, 2)["decision"] == "ACCEPTED"


# --- recovery ---------------------------------------------------------------------------------------------------------


def leave_an_order_in_doubt(daemon: Daemon, exchange: FakeBinance) -> None:
    die_of(daemon, exchange, lambda: buy(daemon, "in doubt"))


def die_of(daemon: Daemon, exchange: FakeBinance, send: Callable[[], Reply]) -> None:
    """The order is executed, its reply never comes, and the process dies before it has given up waiting."""
    there = len(exchange.orders)
    exchange.fail_next("stall", executed=True)
    with meanwhile(send) as answer:
        exchange.wait_for(lambda fake: len(fake.orders) > there)
        daemon.kill()
        with pytest.raises(ConnectionError):
            answer.result()


def test_while_the_exchange_does_not_tell_recovery_waits_and_so_do_entries_but_not_exits(
    live: Daemon, exchange: FakeBinance
) -> None:
    assert buy(live, symbol="ETHUSDT")["status"] == "FILLED"
    leave_an_order_in_doubt(live, exchange)
    exchange.fail_next("status", LOOK_UP, status=503, times=ALWAYS)
    live.start(wait=False).wait_until_listening()
    health = live.get("/health")
    assert (health.status, health["problems"]) == (503, ["recovery is not finished"])
    entry = buy(live, 1, symbol="BNBUSDT")
    assert (entry.status, entry["error"]) == (503, "recovery is not finished; send it again")
    assert entry.seconds < REPLY_SECONDS
    assert sell(live, "ETHUSDT")["status"] == "FILLED"
    waiting = sell(live)
    assert (waiting.status, waiting["decision"], waiting["status"]) == (202, "ACCEPTED", "PENDING")
    exchange.clear_faults()
    live.wait_until_ready(5)
    live.wait_until_settled()
    exchange.wait_for(lambda fake: len(fake.orders) == 4)
    assert [order.symbol for order in exchange.orders] == ["ETHUSDT", "BTCUSDT", "ETHUSDT", "BTCUSDT"]
    again = buy(live, 1, symbol="BNBUSDT")
    assert (again["decision"], again["status"]) == ("ACCEPTED", "FILLED"), "what was told 503 was not done in secret"
    assert live.owner_get("/status")["open_trades"] == 1


def test_while_the_exchange_is_down_nothing_is_promised_and_when_it_is_back_all_is_well(
    live: Daemon, exchange: FakeBinance
) -> None:
    assert buy(live, symbol="ETHUSDT")["status"] == "FILLED"
    leave_an_order_in_doubt(live, exchange)
    exchange.go_offline()
    live.start(wait=False).wait_until_listening()
    assert live.get("/health").status == 503
    for reply in (buy(live, 1, symbol="BNBUSDT"), sell(live, "ETHUSDT")):
        assert reply.status == 503
        assert reply["success"] is False
        assert reply.seconds < REPLY_SECONDS
    exchange.come_online()
    live.wait_until_ready(10)
    live.wait_until_settled()
    assert len(exchange.orders) == 2
    assert sell(live, "ETHUSDT")["status"] == "FILLED"
    assert live.owner_get("/status")["trades_today"] == 2
    assert_csvs_equal_journal(live)


def held_by_hand(daemon: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.owner_get("/status")["drift"]
    return found


def test_what_is_gone_from_the_account_is_shown_as_drift_after_a_restart(live: Daemon, exchange: FakeBinance) -> None:
    for symbol in ("BTCUSDT", "ETHUSDT"):
        assert buy(live, symbol=symbol)["status"] == "FILLED"
    exchange.set_balance("BTC", "0.0001")
    exchange.set_balance("ETH", exchange.free("ETH") + 1)  # more than the books know is the owner's own
    live.restart()
    where = {"broker": "BINANCE", "market": "spot", "symbol": "BTCUSDT", "side": "LONG"}
    assert held_by_hand(live) == [where | {"books": "0.00022977", "account": "0.0001"}]
    exchange.set_balance("BTC", 1)
    live.restart()
    assert held_by_hand(live) == []


def test_what_is_gone_from_the_account_is_noticed_while_it_runs(daemon_with: Make, exchange: FakeBinance) -> None:
    settings = binance(exchange, cooldown_seconds=0)
    settings["test_patience"] = {"compare": 0.2, "second_look": 0.1}
    daemon = daemon_with(**settings).start()
    assert buy(daemon)["status"] == "FILLED"
    exchange.set_balance("BTC", 0)
    eventually(lambda: held_by_hand(daemon) != [], 5, lambda: "no drift is shown")
    exchange.set_balance("BTC", 1)
    eventually(lambda: held_by_hand(daemon) == [], 5, lambda: "drift is still shown")


def test_what_a_resting_order_sold_while_nobody_looked_is_no_drift(live: Daemon, exchange: FakeBinance) -> None:
    assert live.post(symbol="BTCUSDT", side="BUY", quantity=0.00023)["status"] == "FILLED"
    assert live.post(symbol="BTCUSDT", side="SELL", type="LIMIT", quantity=0.00022, price=50000)["status"] == "NEW"
    live.kill()
    exchange.set_price("BTCUSDT", 51000)
    live.start()
    assert held_by_hand(live) == []
    assert [row["Status"] for row in live.trades()] == ["FILLED", "NEW", "FILLED"]


def test_what_an_exit_in_doubt_sold_is_no_drift(live: Daemon, exchange: FakeBinance) -> None:
    assert buy(live)["status"] == "FILLED"
    die_of(live, exchange, lambda: sell(live))
    exchange.lookup_lag_seconds = 60  # the account shows it already, the order's records do not
    live.start()
    assert held_by_hand(live) == []
