"""`make guess-times`: does the time of a 401 tell how near a guess came? It prints what it measured, no more.

Three guesses, one as long as the secret and wrong from its first character, one wrong in its last character only, and
the first one once more: how far the first and the last differ is what this machine calls nothing. They take turns in
random order on one connection, as the best informed attacker would ask, each with an address of its own, for whom the
brake is off.
"""

from __future__ import annotations

import http.client
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from run import ROOT, SECRET, free_port, get, process, wait_for

GUESSES = 4_000  # of each kind, in each place
FAR, NEAR = "x" * len(SECRET), SECRET[:-1] + "x"
KINDS = {"wrong from the first character": FAR, "wrong in the last character": NEAR, "the first once more": FAR}
PLACES = ("header", "body", "path")


def ask(connection: http.client.HTTPConnection, place: str, guess: str, number: int) -> float:
    """Seconds until the answer was there."""
    alert = {"symbol": "BTCUSDT", "side": "buy"} | ({"secret": guess} if place == "body" else {})
    path = f"/webhook/{guess}" if place == "path" else "/webhook"
    headers = {"X-Forwarded-For": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}
    if place == "header":
        headers["Authorization"] = f"Bearer {guess}"
    started = time.perf_counter()
    connection.request("POST", path, json.dumps(alert).encode(), headers)
    answer = connection.getresponse()
    answer.read()
    seconds = time.perf_counter() - started
    if answer.status != 401:
        raise SystemExit(f"{place}: {answer.status}")
    return seconds


def measure(port: int, place: str) -> dict[str, list[float]]:
    turns = [kind for kind in KINDS for _ in range(GUESSES)]
    random.shuffle(turns)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    first = PLACES.index(place) * len(turns)
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number, kind in enumerate(turns, first):
        found[kind].append(ask(connection, place, KINDS[kind], number))
    connection.close()
    return found


def main() -> None:
    print("| place | guess | p50 µs | p95 µs |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        port = free_port()
        env = {"PORT": str(port), "LOG_DIR": f"{folder}/logs", "WEBHOOK_SECRET_KEY": SECRET, "TRUSTED_PROXY_HOPS": "1"}
        with process(sys.executable, str(ROOT / "app.py"), cwd=Path(folder), **env):
            wait_for(lambda: get(port, "/health") == 200)
            for place in PLACES:
                for kind, seconds in measure(port, place).items():
                    p95 = statistics.quantiles(seconds, n=20)[-1]
                    print(
                        f"| {place} | {kind} | {statistics.median(seconds) * 1e6:.0f} | {p95 * 1e6:.0f} |", flush=True
                    )


if __name__ == "__main__":
    main()
