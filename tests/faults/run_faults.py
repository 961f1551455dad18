"""All rows of the fault matrix in their long form, then kill -9 in rounds with random faults: `make faults`.

The seed decides steps, sides and faults; in which microsecond a process dies is up to the machine. Ends with a table,
and with an error when an order was doubled or lost, a row was lost, or anything else was not as it must be.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import test_kills as rounds
from fake_binance import FakeBinance
from fault_stage import Stage
from global_counts import Sent, doubled, orders_lost, rows_lost
from harness import Daemon, Nursery
from matrix import ROWS, Row
from run_daemon import STEPS

LANES = 2
ROUNDS_PER_LANE = 20
KILLS_PER_ROUND = 3  # idle, at the step, in recovery


@dataclass
class Tally:
    """What was done and what went wrong, from all lanes."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, **counts: int) -> None:
        with self.lock:
            self.counts.update({name.replace("_", " "): count for name, count in counts.items()})

    def fail(self, what: str, daemon: Daemon, fake: FakeBinance, sent: Sent) -> None:
        """Told at once, as it happens; whatever can still be counted is."""
        text = f"{what}\n{traceback.format_exc()}{daemon.log()[-1500:]}"
        with self.lock:
            self.failures.append(what)
        print(f"\nFAILED {text}", flush=True)
        self.add(orders_doubled=len(doubled(daemon, fake, sent)))
        try:
            daemon.wait_until_settled(10)  # while orders are under way nobody can tell what is lost
        except (AssertionError, OSError, KeyError):
            return
        self.add(orders_lost=len(orders_lost(daemon, fake)), rows_lost=len(rows_lost(daemon, sent)))

    def is_clean(self) -> bool:
        return not self.failures and not any(self.counts[name] for name in MUST_BE_NONE)

    def table(self) -> str:
        names = ("rows played", "faults injected", "kills", "alerts sent", "orders", *MUST_BE_NONE)
        lines = [f"{name:<18}{self.counts[name]:>8,}" for name in names]
        return "\n".join([*lines, f"{'failures':<18}{len(self.failures):>8,}", *self.failures])


MUST_BE_NONE = ("orders doubled", "orders lost", "rows lost")


def play(row: Row, nursery: Nursery, folder: Path, tally: Tally) -> None:
    stage = Stage(nursery, folder, full=True)
    began = time.monotonic()
    try:
        assert row.play
        row.play(stage)
        stage.assert_global_counts()
    except Exception:
        tally.fail(f"row {row.number}: {row.fault}", stage.daemon, stage.fake, stage.sent)
    finally:
        stage.close()
    tally.add(rows_played=1, faults_injected=stage.faults, kills=stage.kills)
    tally.add(alerts_sent=alerts(stage.sent), orders=len(stage.fake.orders))
    print(f"row {row.number:>2}  {time.monotonic() - began:5.1f} s  {row.fault}", flush=True)


def alerts(sent: Sent) -> int:
    return len(sent.answered) + len(sent.unanswered)


def kill_rounds(number: int, seed: int, kills: int, nursery: Nursery, folder: Path, tally: Tally) -> None:
    """One lane after the other, each with an exchange and a data folder of its own."""
    chance, left = random.Random(f"{seed}/{number}"), kills
    while left > 0:
        count = min(ROUNDS_PER_LANE, -(-left // KILLS_PER_ROUND))
        lane = rounds.new_lane(nursery, folder, f"K{number}N{left}X")
        try:
            lane.start_and_stay()
            for _ in range(count):
                step, fault = chance.choice(list(STEPS)), chance.choice(["", *rounds.LOST_REPLIES])
                side, type_ = chance.choice(("BUY", "SELL")), chance.choice(("MARKET", "LIMIT"))
                what = f"kill {step}, {side} {type_}, {fault or 'no other fault'}"
                tally.add(faults_injected=int(bool(fault)))
                rounds.kill_and_check(lane, step, side, type_, fault)
        except Exception:
            tally.fail(what, lane.daemon, lane.exchange, lane.sent)
        finally:
            lane.close()
        tally.add(alerts_sent=alerts(lane.sent), orders=len(lane.exchange.orders))
        left -= count * KILLS_PER_ROUND
        print(f"kills  {sum(rounds.kills.values()):>5}", flush=True)


def in_parallel(jobs: list[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(LANES) as pool:
        for running in [pool.submit(job) for job in jobs]:
            running.result()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.kills} kills", flush=True)
    tally, nursery, began = Tally(), Nursery(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gatehouse-faults-") as made:
        folder = Path(made)
        played = [(number, row) for number, row in enumerate(ROWS) if row.play]

        def row_job(number: int, row: Row) -> Callable[[], None]:
            return lambda: play(row, nursery, folder / f"row{number}", tally)

        def kill_job(number: int) -> Callable[[], None]:
            each = -(-arguments.kills // LANES)
            return lambda: kill_rounds(number, arguments.seed, each, nursery, folder, tally)

        in_parallel([row_job(number, row) for number, row in played])
        in_parallel([kill_job(number) for number in range(LANES)])
        nursery.close()
    tally.add(kills=sum(rounds.kills.values()))
    for row in ROWS:
        if row.not_here:
            print(f"row {row.number:>2}  not played here, see {row.proven_in}: {row.not_here}")
    print(f"\nseed {arguments.seed}, {time.monotonic() - began:.0f} s\n{tally.table()}")
    return 0 if tally.is_clean() else 1


if __name__ == "__main__":
    sys.exit(main())
