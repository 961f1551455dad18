"""What the figures are made of, kept in memory and read from the journal bit by bit, never in an alert's way."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Collection

from events import Valued
from history import History, Wanted
from performance import Facts, Performance, equity_of, facts_of, performance
from seals import JournalError

log = logging.getLogger("gatehouse.trade_history")

# Twenty records keep the interpreter for about a millisecond; then the alerts have it to themselves for five.
RECORDS_AT_ONCE = 20
REST_SECONDS = 0.005
FOLLOW_SECONDS = 15.0


class TradeHistory:
    """Facts about every order that executed something, or was answered. Usable from any thread; blocks on the disk."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._facts: dict[str, Facts] = {}
        self._worths: list[Valued] = []
        self._until = 0  # the number of the last record that was read
        self._last: tuple[object, Performance | None] = (None, None)
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def performance(self, wanted: Wanted, brokers: Collection[str]) -> Performance:
        """Of all that is on the record now. Raises JournalError."""
        self.catch_up()
        with self._lock:
            asked, facts = (self._until, wanted, tuple(brokers)), list(self._facts.values())
            equity = equity_of(self._worths, brokers)
        # A page asks again and again, and mostly nothing has happened.
        last_asked, answer = self._last
        if answer is None or asked != last_asked:
            answer = performance(facts, equity, wanted, brokers)
            self._last = (asked, answer)
        return answer

    def catch_up(self, rest_seconds: float = 0.0) -> None:
        """Reads what came since the last time, with a rest now and then for others. Raises JournalError."""
        while not self._stopped.is_set():
            with self._lock:
                if not self._read_some():
                    return
            if rest_seconds:
                time.sleep(rest_seconds)

    async def follow(self, on_thread: Callable[..., Awaitable[None]]) -> None:
        """In the background, without an end: whoever asks need not wait for the whole history."""
        while True:
            try:
                await on_thread(self.catch_up, REST_SECONDS)
            except JournalError as exc:
                log.warning("the figures wait: %s", exc)
            await asyncio.sleep(FOLLOW_SECONDS)

    def stop(self) -> None:
        self._stopped.set()

    def _read_some(self) -> bool:
        until = min(self._until + RECORDS_AT_ONCE, self._history.last_number())
        if until == self._until:
            return False
        for change, alert_price in self._history.order_changes(self._until, until):
            identity = change.order.client_order_id
            facts = facts_of(change.order, change.at, alert_price, self._facts.get(identity))
            if facts is not None:
                self._facts[identity] = facts
        self._worths += self._history.valuations(self._until, until)
        self._until = until
        return True
