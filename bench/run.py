"""`make bench`: the daemon against the fake exchange, next to a floor measured in the same run.

Three processes on one machine: the exchange, the daemon (or the floor), and this sender, which opens a new connection
for every alert as TradingView does. Times are monotonic and shared by all processes. Nothing here is asserted.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SECRET = "bench-0f9b6c1d2e3a4857"
KEY, KEY_SECRET = "k" * 64, "s" * 64
ALERTS = 400
HISTORY_ROWS = 100_000
IDLE_SECONDS = 20
SUSTAINED_SECONDS = 5
SENDERS = 16
PAGE_SIGNALS = 10_000
LOOKS = 20
PASSWORD = "bench-3c1f77a0"
PAGES = ("/ui", "/ui/signals", "/ui/signals?strategy=none", "/ui/trades", "/ui/performance", "/ui/settings", "/test")
LIBRARIES = (
    "fastapi, uvicorn, uvloop, httptools, pydantic_settings, binance.client, sqlite3, csv, jinja2, itsdangerous, "
    "prometheus_client"
)


# --- processes --------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(*command: str, cwd: Path | None = None, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    with open(os.devnull, "wb") as null:
        started = subprocess.Popen(command, cwd=cwd, env=os.environ | env, stdout=null, stderr=null)
        try:
            yield started
        finally:
            started.terminate()
            started.wait(20)


@contextmanager
def exchange() -> Iterator[int]:
    port = free_port()
    with process(
        sys.executable, str(ROOT / "tests" / "fake_binance.py"), "--port", str(port), "--api-key", KEY,
        "--api-secret", KEY_SECRET,
    ):  # fmt: skip
        wait_for(lambda: get(port, "/api/v3/ping") == 200)
        control(port, "options", engine_seconds=0, order_limit=10**9, weight_limit=10**9)
        control(port, "price", symbol="BTCUSDT", price="43000")
        control(port, "balance", asset="USDT", free="100000000")
        yield port


def settings(port: int, exchange_port: int, folder: Path, **more: str) -> dict[str, str]:
    return {
        "PORT": str(port),
        "LOG_DIR": str(folder / "logs"),
        "WEBHOOK_SECRET_KEY": SECRET,
        "BINANCE_API_KEY": KEY,
        "BINANCE_API_SECRET": KEY_SECRET,
        "BINANCE_API_URL": f"http://127.0.0.1:{exchange_port}/api",
        "ALLOWED_SYMBOLS": "BTCUSDT",
        "COOLDOWN_SECONDS": "0",
        "MAX_OPEN_TRADES": "1000000",
        "MAX_TRADES_PER_DAY": "1000000",
    } | more


@contextmanager
def daemon(exchange_port: int, folder: Path | None = None, **more: str) -> Iterator[tuple[int, int]]:
    """Its port and its pid, once it is ready."""
    port = free_port()
    with tempfile.TemporaryDirectory(dir=ROOT) as made:
        place = folder or Path(made)
        with process(
            sys.executable, str(ROOT / "app.py"), cwd=place, **settings(port, exchange_port, place, **more)
        ) as started:
            wait_for(lambda: get(port, "/health") == 200)
            yield port, started.pid


@contextmanager
def floor(exchange_port: int) -> Iterator[int]:
    port = free_port()
    with process(sys.executable, str(ROOT / "bench" / "floor.py"), str(port), str(exchange_port)):
        wait_for(lambda: can_connect(port))
        yield port


def wait_for(happened: Callable[[], bool], seconds: float = 30) -> None:
    give_up_at = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > give_up_at:
            raise SystemExit("a process did not come up")
        time.sleep(0.005)


def can_connect(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def get(port: int, path: str) -> int:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0


def control(port: int, what: str, **body: object) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    if what == "state":
        connection.request("GET", "/control/state")
    else:
        connection.request("POST", f"/control/{what}", json.dumps(body), {"Content-Type": "application/json"})
    return json.loads(connection.getresponse().read() or b"null")


# --- sending ----------------------------------------------------------------------------------------------------------


def alert(number: int, **more: object) -> bytes:
    fields = {"secret": SECRET, "symbol": "BTCUSDT", "side": "BUY", "confidence": 75, "comment": str(number), **more}
    body = json.dumps(fields).encode()
    return b"POST /webhook HTTP/1.1\r\nHost: bench\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )


def send(port: int, message: bytes) -> tuple[int, int, bytes]:
    """When it was sent (before connecting), when the reply was there, and the reply."""
    sent = time.monotonic_ns()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(message)
        reply = b""
        while chunk := connection.recv(65536):
            reply += chunk
            if is_whole(reply):
                break
    return sent, time.monotonic_ns(), reply


def is_whole(reply: bytes) -> bool:
    head, found, body = reply.partition(b"\r\n\r\n")
    if not found:
        return False
    length = next(line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    return len(body) >= int(length)


def one_by_one(port: int, exchange_port: int, count: int, first: int = 1) -> tuple[list[float], list[float]]:
    """Milliseconds from alert sent to order at the exchange, and to the reply."""
    before = arrivals(exchange_port)
    results = []
    for number in range(first, first + count):
        results.append(send(port, alert(number)))
        time.sleep(0.002)
    arrived = arrivals(exchange_port)[len(before) :]
    if len(arrived) != count:
        raise SystemExit(f"{count} alerts made {len(arrived)} orders: {results[-1][2]!r}")
    to_exchange = [(there - sent) / 1e6 for there, (sent, _, _) in zip(sorted(arrived), results, strict=True)]
    return to_exchange, [(replied - sent) / 1e6 for sent, replied, _ in results]


def arrivals(exchange_port: int) -> list[int]:
    requests = control(exchange_port, "state")["requests"]
    return [r["arrived_ns"] for r in requests if (r["method"], r["path"]) == ("POST", "/api/v3/order")]


def at_once(port: int, count: int, first: int) -> float:
    """Milliseconds until the last of so many simultaneous senders had its answer."""
    results: list[tuple[int, int, bytes]] = []
    gate = threading.Barrier(count)

    def sender(number: int) -> None:
        gate.wait()
        results.append(send(port, alert(number)))

    threads = [threading.Thread(target=sender, args=(first + number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (max(replied for _, replied, _ in results) - min(sent for sent, _, _ in results)) / 1e6


def sustained(port: int, senders: int, first: int, **more: object) -> float:
    """Answers per second."""
    stop_at = time.monotonic() + SUSTAINED_SECONDS
    counts = [0] * senders

    def sender(lane: int) -> None:
        while time.monotonic() < stop_at:
            send(port, alert(first + lane + senders * counts[lane], **more))
            counts[lane] += 1

    threads = [threading.Thread(target=sender, args=(lane,)) for lane in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / SUSTAINED_SECONDS


# --- what is measured -------------------------------------------------------------------------------------------------


def percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {f"p{p}": ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))] for p in (50, 95, 99)}


def slow(exchange_port: int, seconds: float) -> None:
    control(exchange_port, "clear")
    if seconds:
        control(exchange_port, "fault", kind="delay", where="* /api/v3/*", times=10**9, seconds=seconds)


def latencies(delay: float) -> None:
    count = ALERTS if not delay else ALERTS // 4
    with exchange() as exchange_port:
        slow(exchange_port, delay)
        with floor(exchange_port) as port:
            floor_order, floor_reply = one_by_one(port, exchange_port, count)
        with daemon(exchange_port) as (port, _):
            first_order, first_reply = one_by_one(port, exchange_port, 1, first=0)
            order, reply = one_by_one(port, exchange_port, count)
            together = at_once(port, 20, 10**6)
        with floor(exchange_port) as port:
            floor_together = at_once(port, 20, 10**6)
    name = f"exchange {delay * 1000:.0f} ms"
    for what, ours, least in (("alert -> order", order, floor_order), ("alert -> reply", reply, floor_reply)):
        for percentile, value in percentiles(ours).items():
            line(f"{name}: {what} {percentile}", value, percentiles(least)[percentile], "ms")
    line(f"{name}: first alert after start -> order", first_order[0], floor_order[0], "ms")
    line(f"{name}: first alert after start -> reply", first_reply[0], floor_reply[0], "ms")
    line(f"{name}: 20 at once, last reply", together, floor_together, "ms")


def throughput() -> None:
    with exchange() as exchange_port:
        with floor(exchange_port) as port:
            least = sustained(port, SENDERS, 0)
        with daemon(exchange_port) as (port, _):
            accepted = sustained(port, SENDERS, 0)
            rejected = sustained(port, SENDERS, 10**6, confidence=1)
    line(f"accepted alerts per second, {SENDERS} senders", accepted, least, "/s")
    line(f"rejected alerts per second, {SENDERS} senders", rejected, least, "/s")


def memory_and_idle() -> None:
    with exchange() as exchange_port, daemon(exchange_port) as (_, pid):
        time.sleep(3)
        rss, cpu = resident_mib(pid), cpu_seconds(pid)
        started = time.monotonic()
        time.sleep(IDLE_SECONDS)
        share = (cpu_seconds(pid) - cpu) / (time.monotonic() - started) * 100
    code = f"import {LIBRARIES}; import time; time.sleep(60)"
    with process(sys.executable, "-c", code) as bare:
        time.sleep(4)
        libraries = resident_mib(bare.pid)
    line("memory at rest, beside only importing the libraries", rss, libraries, "MiB")
    line("idle CPU", share, None, "%")


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(row for row in status.splitlines() if row.startswith("VmRSS")).split()[1]) / 1024


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start_with_history() -> None:
    with exchange() as exchange_port, tempfile.TemporaryDirectory(dir=ROOT) as made:
        folder = Path(made)
        rows = write_history(folder / "logs", HISTORY_ROWS)
        times = []
        for _ in range(3):
            started = time.monotonic()
            with daemon(exchange_port, folder):
                times.append(time.monotonic() - started)
        bare = []
        for _ in range(3):
            started = time.monotonic()
            with daemon(exchange_port):
                bare.append(time.monotonic() - started)
    line(f"start to ready, {rows} rows of history, none saved (as after an update)", times[0], min(bare), "s")
    line(f"start to ready, {rows} rows of history", min(times[1:]), min(bare), "s")


def write_history(logs: Path, rows: int) -> int:
    """Half refusals, a quarter entries and exits in turn, a quarter their fills."""
    from events import Decided, Event, OrderChanged
    from journal import Journal
    from models import Action, Decision, DecisionRecord, Fee, Market, Order, OrderStatus, OrderType, Side, Signal
    from models import SymbolRules as Rules

    logs.mkdir()
    journal = Journal(logs / "journal.db")
    rules = Rules("BTCUSDT", "BTC", "USDT", Decimal("0.00001"), Decimal("0.00001"), min_notional=Decimal(5))
    at = datetime.now(UTC) - timedelta(days=300)
    quantity, quote, fees = Decimal("0.00023"), Decimal("9.89"), (Fee("USDT", Decimal("0.00989")),)

    def trade(number: int) -> list[Event]:
        side = Side.BUY if number % 2 == 0 else Side.SELL
        signal = Signal(Action(side.value), "BTCUSDT", strategy="trend", confidence=Decimal(75))
        common = ("BINANCE", Market.SPOT, "BTCUSDT", side, OrderType.MARKET, side is Side.BUY, rules, at, at)
        order = Order(f"gh{number}", f"s{number}", *common, quantity=quantity, sent_at=at)
        filled = replace(order, status=OrderStatus.FILLED, settled_at=at, exchange_order_id=str(number))
        filled = replace(filled, executed_quantity=quantity, executed_quote=quote, fees=fees)
        if side is Side.SELL:
            filled = replace(filled, realized_pnl=Decimal(number % 7 - 2) / 10)
        entry = DecisionRecord(
            f"s{number}", f"k{number}", at, at, Decision.ACCEPTED, "", "bench", signal, "BINANCE", order
        )
        refused = replace(entry, decision=Decision.REJECTED, check="confidence", order=None)
        first, second = (replace(refused, signal_id=f"r{number}{x}", key=f"r{number}{x}") for x in "ab")
        return [Decided(first), Decided(second), Decided(entry), OrderChanged(filled, at)]

    events: list[Event] = []
    for number in range(rows // 4):
        at += timedelta(minutes=17)
        events += trade(number)
        if len(events) >= 4000:
            journal.append(events)
            events = []
    journal.append(events)
    journal.close()
    return rows


def pages() -> None:
    """Each one as a browser asks for it, on a new connection; the first look, and half of the later ones."""
    with exchange() as exchange_port, tempfile.TemporaryDirectory(dir=ROOT) as made:
        folder = Path(made)
        # Three of four rows are decisions.
        write_history(folder / "logs", PAGE_SIGNALS * 4 // 3)
        with daemon(exchange_port, folder, DASHBOARD_PASSWORD=PASSWORD) as (port, _):
            cookie = log_in(port)
            for path in PAGES:
                first, *later = (look(port, path, cookie) for _ in range(LOOKS + 1))
                line(f"{PAGE_SIGNALS} signals: {path}, first", first, None, "ms")
                line(f"{PAGE_SIGNALS} signals: {path}, median", sorted(later)[LOOKS // 2], None, "ms")


def log_in(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", "/login", f"password={PASSWORD}", {"Origin": f"http://127.0.0.1:{port}"})
    cookie: str = connection.getresponse().headers["Set-Cookie"].partition(";")[0]
    connection.close()
    return cookie


def look(port: int, path: str, cookie: str) -> float:
    """Milliseconds."""
    started = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={"Cookie": cookie})
    reply = connection.getresponse()
    reply.read()
    connection.close()
    assert reply.status == 200, (path, reply.status)
    return (time.monotonic() - started) * 1000


def line(what: str, ours: float, least: float | None, unit: str) -> None:
    if least is None:
        print(f"| {what} | {ours:.2f} {unit} | | |", flush=True)
        return
    print(f"| {what} | {ours:.2f} {unit} | {least:.2f} {unit} | {ours / least:.2f} |", flush=True)


PARTS: dict[str, Callable[[], None]] = {
    "latency": lambda: latencies(0),
    "slow": lambda: latencies(0.1),
    "throughput": throughput,
    "memory": memory_and_idle,
    "start": start_with_history,
    "pages": pages,
}


def main() -> None:
    """All parts, or those named on the command line."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}")
    print("\n| what | daemon | floor | ratio |\n|---|---|---|---|")
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
