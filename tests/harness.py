"""The daemon as a process, seen from outside: started, spoken to over HTTP, killed, and its records read."""

from __future__ import annotations

import csv
import http.client
import json
import os
import random
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fake_bingx import API_KEY as BINGX_KEY
from fake_bingx import API_SECRET as BINGX_SECRET
from fake_flattrade import APP_KEY, APP_SECRET, UID

ROOT = Path(__file__).resolve().parent.parent
SECRET = "test-secret-0123456789"
# The promise, where a test has the machine for itself; other lanes beside it take their share, and TradingView hangs up
# after 3 s.
REPLY_SECONDS = 2.9 if "PYTEST_XDIST_WORKER" in os.environ else 2.5
API_KEY = "k" * 64
API_SECRET = "s" * 64


@dataclass(frozen=True)
class Reply:
    status: int
    body: dict[str, Any]
    seconds: float
    headers: http.client.HTTPMessage

    def __getitem__(self, name: str) -> Any:
        return self.body[name]


class Nursery:
    """Forks daemons from a process that has everything imported already."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "run_daemon.py"), "--nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, env: Mapping[str, str], cwd: Path, log: Path) -> int:
        assert self._process.stdin
        assert self._process.stdout
        with self._starting:
            self._process.stdin.write(json.dumps({"env": dict(env), "cwd": str(cwd), "log": str(log)}) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)


class Daemon:
    """One data folder and the process that works on it. Settings are given as keyword arguments in lower case."""

    def __init__(self, nursery: Nursery, folder: Path, **settings: object) -> None:
        self._nursery = nursery
        self.folder = folder
        self.port = free_port()
        self.pid = 0
        self.clock_file = folder / "clock"
        self.log_path = folder / "daemon.log"
        self.env = {
            "PATH": os.environ["PATH"],
            "WEBHOOK_SECRET_KEY": SECRET,
            "LOG_DIR": str(folder / "logs"),
            "PORT": str(self.port),
            "TEST_CLOCK": str(self.clock_file),
        }
        self.set(**settings)

    def set(self, **settings: object) -> None:
        """Environment for the next start; None takes a name out."""
        for name, value in settings.items():
            if value is None:
                self.env.pop(name.upper(), None)
            else:
                self.env[name.upper()] = value if isinstance(value, str) else json.dumps(value)

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self, *, wait: bool = True, crash_at: str = "") -> Daemon:
        self.set(test_crash_at=crash_at or None)
        self.pid = self._nursery.start(self.env, self.folder, self.log_path)
        if wait:
            self.wait_until_ready()
        return self

    def wait_until_ready(self, seconds: float = 20.0) -> None:
        eventually(lambda: self.is_healthy() or not self.is_alive(), seconds, self._why("not ready"))
        assert self.is_alive(), f"the daemon ended: {self.log()[-3000:]}"

    def wait_until_listening(self, seconds: float = 10.0) -> None:
        eventually(lambda: can_connect(self.port) or not self.is_alive(), seconds, self._why("not up"))

    def _why(self, what: str) -> Callable[[], str]:
        return lambda: f"{what}: {self.log()[-3000:]}"

    def is_healthy(self) -> bool:
        try:
            return self.get("/health", timeout=2).status == 200
        except OSError:
            return False

    def is_alive(self) -> bool:
        if not self.pid:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def wait_until_dead(self, seconds: float = 15.0) -> None:
        eventually(lambda: not self.is_alive(), seconds, self._why("still alive"))

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        if self.is_alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return  # it died by itself in this very moment
            self.wait_until_dead()

    def restart(self) -> Daemon:
        self.kill()
        return self.start()

    def move_clock(self, seconds: float) -> None:
        """The daemon's own idea of now; the exchange and the network are not moved."""
        self.clock_file.write_text(str(seconds))

    def today(self) -> str:
        """The UTC day that the daemon's clock shows."""
        moved = float(self.clock_file.read_text() or 0) if self.clock_file.exists() else 0.0
        return f"{datetime.now(UTC) + timedelta(seconds=moved):%Y-%m-%d}"

    # --- HTTP -------------------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: bytes | None = None, timeout: float = 10, **headers: str) -> Reply:
        started = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        parsed = json.loads(content) if "json" in response.headers.get("content-type", "") else {"raw": content}
        return Reply(response.status, parsed, time.monotonic() - started, response.headers)

    def get(self, path: str, *, secret: str | None = None, timeout: float = 10) -> Reply:
        if secret is None:
            return self.request("GET", path, timeout=timeout)
        return self.request("GET", path, timeout=timeout, Authorization=f"Bearer {secret}")

    def owner_get(self, path: str) -> dict[str, Any]:
        return self.get(path, secret=SECRET).body

    def owner_post(self, path: str) -> Reply:
        return self.request("POST", path, b"", Authorization=f"Bearer {SECRET}")

    def post(self, path: str = "/webhook", timeout: float = 10, **alert: object) -> Reply:
        """An alert as TradingView sends it, with the secret in the body."""
        return self.post_raw(json.dumps({"secret": SECRET, **alert}).encode(), path, timeout)

    def post_raw(self, body: bytes, path: str = "/webhook", timeout: float = 10) -> Reply:
        return self.request("POST", path, body, timeout, Content_Type="text/plain; charset=utf-8")

    # --- records ----------------------------------------------------------------------------------------------------

    def signals(self) -> list[dict[str, str]]:
        return read_csv(self.folder / "logs" / "signals.csv")

    def trades(self) -> list[dict[str, str]]:
        return read_csv(self.folder / "logs" / "trades.csv")

    def journal_rows(self, file: str) -> list[str]:
        """The CSV lines that the journal holds, read by a connection of our own."""
        with sqlite3.connect(f"file:{self.folder / 'logs' / 'journal.db'}?mode=ro", uri=True) as connection:
            query = "SELECT line FROM csv_rows WHERE file = ? ORDER BY number"
            return [line for (line,) in connection.execute(query, (file,))]

    def csv_lines(self, file: str) -> list[str]:
        text = (self.folder / "logs" / f"{file}.csv").read_bytes().decode("utf-8-sig")
        return text.splitlines(keepends=True)[1:]

    def orders_without_ending(self) -> list[dict[str, Any]]:
        status = self.owner_get("/status")
        return [*status["unresolved_orders"], *status["resting_orders"]]

    def wait_until_settled(self, seconds: float = 20.0) -> None:
        """Until no order's outcome is in doubt any more."""
        eventually(
            lambda: not self.owner_get("/status")["unresolved_orders"],
            seconds,
            lambda: f"unresolved: {self.owner_get('/status')['unresolved_orders']}",
        )

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


@contextmanager
def full_disk(daemon: Daemon) -> Iterator[None]:
    """No write of the daemon goes beyond a file's first byte: journal, CSV files and log alike."""
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    yield
    if daemon.is_alive():
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def locked(journal: Path) -> Iterator[None]:
    """As slow as a disk can be: nobody's commit to the journal comes back before this is over."""
    other = sqlite3.connect(journal, isolation_level=None, timeout=10)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def assert_csvs_equal_journal(daemon: Daemon) -> None:
    """Every row of the journal is in its file, once, whole, in order, and nothing else is."""
    for file in ("signals", "trades"):
        eventually(
            lambda file=file: daemon.csv_lines(file) == daemon.journal_rows(file),  # type: ignore[misc]
            5,
            lambda file=file: f"{file}.csv differs from the journal",  # type: ignore[misc]
        )


# As test_market=: the account is looked at again and again, where a test would wait for that and for nothing else.
EAGER = {"BALANCE_GAP_SECONDS": 0.1, "BALANCE_PAUSE_SECONDS": 0.3, "FAILURE_PAUSE_SECONDS": [0.3] * 5}


def binance(fake: Any, **more: object) -> dict[str, object]:
    """Settings that send BINANCE to the fake exchange."""
    return {
        "binance_api_key": API_KEY,
        "binance_api_secret": API_SECRET,
        "binance_api_url": fake.api_url,
        "test_absence_seconds": 1.5,
        "test_patience": {"follow": 0.1, "longest_look": 0.3, "slack": 0.5, "late": [0.5, 1.0, 2.0]},
    } | more


def futures(fake: Any, **more: object) -> dict[str, object]:
    """Settings that send BINANCE to the futures side of the fake exchange."""
    return binance(fake, binance_market="futures", binance_futures_api_url=fake.fapi_url) | more


SHORT_SECOND, SHORT_PACE = 0.05, 0.3
REAL_PACE: dict[str, object] = {"test_waits": None}


def bingx(fake: Any, **more: object) -> dict[str, object]:
    """Settings that send BINGX to the fake exchange; alerts that name no broker go there, too.

    Its second is shorter, and the pace of the calls with it, which every start waits for: both are as far apart as in
    earnest. REAL_PACE tells a story at the true speed.
    """
    fake.set_options(second=SHORT_SECOND)
    return {
        "bingx_api_key": BINGX_KEY,
        "bingx_secret_key": BINGX_SECRET,
        "bingx_api_url": fake.url,
        "default_broker": "BINGX",
        "test_waits": {"bingx_link.PACE_SECONDS": SHORT_PACE},
        "test_absence_seconds": 1.5,
        "test_patience": {"follow": 0.1, "longest_look": 0.3, "slack": 0.5, "late": [0.5, 1.0, 2.0]},
    } | more


def flattrade(fake: Any, **more: object) -> dict[str, object]:
    """Settings that send FLATTRADE to the fake one; its daemon needs a login, too: `log_in_at_flattrade`."""
    return {
        "flattrade_api_key": APP_KEY,
        "flattrade_api_secret": APP_SECRET,
        "flattrade_client_id": UID,
        "flattrade_api_url": fake.api_url,
        "flattrade_auth_url": fake.auth_url,
        "flattrade_max_risk_per_trade": 100_000,
        "test_absence_seconds": 0.8,
        "test_market": {"BALANCE_GAP_SECONDS": 0.05, "FAILURE_PAUSE_SECONDS": [0.2] * 5},
        "test_waits": {
            "flattrade_client.BOOK_SECONDS": 0.05,
            "flattrade_client.LOOKS_AFTER_PLACING": [0.02, 0.05, 0.1, 0.2],
        },
        "test_patience": {"follow": 0.1, "first_look": 0.05, "longest_look": 0.2, "slack": 0.3, "late": [0.3]},
    } | more


def log_in_at_flattrade(daemon: Daemon, fake: Any, *, days_ahead: int = 0) -> None:
    """Before its start: as if the owner had logged in this morning. How he does it has tests of its own."""
    folder = daemon.folder / "logs"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / "flattrade_token.json"
    said = {
        "client": UID,
        "token": fake.token or fake.new_token(),
        "got_at": (datetime.now(UTC) + timedelta(days=days_ahead)).isoformat(),
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(said))


def read_csv(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def examples(usually: int) -> int:
    """How many random cases a test tries; GATEHOUSE_EXAMPLES asks for more."""
    return int(os.environ.get("GATEHOUSE_EXAMPLES", usually))


def eventually(happened: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    give_up_at = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > give_up_at:
            raise AssertionError(otherwise())
        time.sleep(0.02)


def can_connect(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Below those that the system gives to connections: one of them would take it before the daemon listens there."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
