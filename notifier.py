"""Messages to the owner, never in the way of an order.

Who has news drops it here and goes on. One thread turns news into words; each service has a thread and a short queue
of its own, so that a dead one costs nothing but its own messages. What was told is remembered over a restart.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import news
from events import Event, OrderChanged
from journal import Day, JournalError
from models import Order, OrderStatus
from news import News
from portfolio import Position
from services import Service

log = logging.getLogger("gatehouse.notifier")

TITLE = "Gatehouse"
FILE_NAME = "told.json"
MAX_ARRIVED = 1_000  # a moment's worth: they are turned into words at once
MAX_QUEUED = 100  # per service: more than anybody reads
MAX_REMEMBERED = 1_000  # keys of what was told
LOOK_SECONDS = 1.0  # between two looks at what is wrong, and whether the day is over
JOIN_SECONDS = 0.3  # what comes within this of the first goes into the same message
TEST_TEXT = "This is a test message: it came from you."
# In seconds, between two tries of a message; then it is dropped. Apprise itself gives up after 4 s of silence.
PAUSES = (1.0, 5.0, 30.0, 120.0)


@dataclass(frozen=True, slots=True)
class Look:
    """What is wrong for the moment, by kind; how the accounts differ from the books; what is held."""

    problems: Mapping[str, str] = field(default_factory=dict)
    drift: Sequence[str] = ()
    positions: Sequence[Position] = ()


class Post:
    """The way to one service: a bounded queue and a thread that sends what is in it, a burst as one message."""

    def __init__(self, service: Service, pauses: Sequence[float] = PAUSES) -> None:
        self.service = service
        self.sent = self.failed = self.dropped = 0
        self.last_error = ""
        self._pauses = pauses
        self._texts: deque[str] = deque()
        self._under_way = 0
        self._lost = 0  # since the last message that was taken
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._testing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"post to {service.name}", daemon=True)

    @property
    def queued(self) -> int:
        return len(self._texts) + self._under_way

    def start(self) -> None:
        self._thread.start()

    def put(self, texts: Sequence[str], dropped_before: int = 0) -> None:
        """Returns at once. When the queue is full, the oldest goes."""
        with self._changed:
            self._drop(dropped_before)
            for text in texts:
                if len(self._texts) >= MAX_QUEUED:
                    self._texts.popleft()
                    self._drop(1)
                self._texts.append(text)
            self._changed.notify()

    def stop(self) -> None:
        """What is queued has one try; nobody waits for it longer than `join` says."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()

    def join(self, seconds: float) -> None:
        self._thread.join(max(0.0, seconds))

    def test(self) -> str | None:
        """Blocks as `send` does. Why a test message was not taken, empty when it was; None while one is under way."""
        if not self._testing.acquire(blocking=False):
            return None
        try:
            return self.service.send(TITLE, TEST_TEXT)
        finally:
            self._testing.release()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._texts and not self._stopping.is_set():
                    self._changed.wait()
                if not self._texts:
                    return
                texts, lost = self._taken()
            taken = self._deliver(news.joined(texts, lost))
            with self._changed:
                self._under_way = 0
                if taken:
                    self._lost -= lost
                else:
                    self._drop(len(texts))

    def _taken(self) -> tuple[list[str], int]:
        """As many as fit into one message, at least one."""
        texts, left = [self._texts.popleft()], self.service.longest - 2 * len(TITLE) - 60
        left -= len(texts[0])
        while self._texts and len(self._texts[0]) < left:
            left -= len(self._texts[0]) + 1
            texts.append(self._texts.popleft())
        self._under_way = len(texts)
        return texts, self._lost

    def _deliver(self, message: str) -> bool:
        for pause in (*self._pauses, None):
            if self._send_once(message):
                return True
            if pause is None or self._stopping.wait(pause):
                break
        return False

    def _send_once(self, message: str) -> bool:
        problem = self.service.send(TITLE, message)
        if problem:
            self.failed += 1
            problem = f"{self.service.name}: {problem}"
            if problem != self.last_error:
                log.warning("a message was not taken by %s", problem)
        else:
            self.sent += 1
        # Of a service that works again, the trouble is over.
        self.last_error = problem
        return not problem

    def _drop(self, number: int) -> None:
        self.dropped += number
        self._lost += number


class Notifier:
    """`written` and `tell` may be called from anywhere and return at once; everything else is done by its threads."""

    def __init__(
        self,
        services: Sequence[Service],
        folder: Path,
        secrets: Sequence[str],
        read_day: Callable[[date], Day],
        clock: Callable[[], datetime],
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        """`read_day` tells what is on the record of a UTC day, or raises JournalError."""
        self.posts = [Post(service, pauses) for service in services]
        self._told = _Told(folder / FILE_NAME)
        self._secrets = [secret for secret in secrets if secret]
        self._read_day = read_day
        self._clock = clock
        self._arrived: deque[Order | News] = deque(maxlen=MAX_ARRIVED)  # when it is full, the oldest goes
        self._overflowed = 0
        self._look: Callable[[], Look] = Look
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)

    # --- news -----------------------------------------------------------------------------------------------------

    def written(self, events: Sequence[Event]) -> None:
        """What has just gone on the record. An order waits meanwhile."""
        for event in events:
            if type(event) is OrderChanged and news.may_be_news(event.order):
                self._take(event.order)

    def tell(self, text: str, key: str = "") -> None:
        self._take(News(text, key))

    def _take(self, one: Order | News) -> None:
        if len(self._arrived) == MAX_ARRIVED:
            self._overflowed += 1
        self._arrived.append(one)
        self._wake.set()

    # --- its life -------------------------------------------------------------------------------------------------

    def start(self, look: Callable[[], Look]) -> None:
        self._look = look
        for post in self.posts:
            post.start()
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """What was just told has one try, and all of them together have so many seconds."""
        give_up_at = time.monotonic() + seconds
        self._stopping.set()
        self._wake.set()
        self._thread.join(seconds)
        for post in self.posts:
            post.stop()
        for post in self.posts:
            post.join(give_up_at - time.monotonic())

    @property
    def state(self) -> dict[str, Any]:
        """Messages that were taken, tries that failed, news that were dropped, all since the start."""
        errors = [post.last_error for post in self.posts if post.last_error]
        return {
            "sent": sum(post.sent for post in self.posts),
            "failed": sum(post.failed for post in self.posts),
            "dropped": sum(post.dropped for post in self.posts),
            "last_error": "; ".join(errors) or None,
            "queued": len(self._arrived) + sum(post.queued for post in self.posts),
        }

    async def test(self, seconds: float) -> dict[str, str]:
        """A test message, past the queues. By service: why it was not taken within so long; empty when it was."""
        answers = await asyncio.gather(*(_tested(post, seconds) for post in self.posts))
        return {post.service.name: answer for post, answer in zip(self.posts, answers, strict=True)}

    # --- on its thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        going_on = True
        while going_on:
            # A burst becomes one message; and an order that has just been decided leaves before anything is made of it.
            if self._wake.wait(LOOK_SECONDS):
                self._stopping.wait(JOIN_SECONDS)
            # Looked at before: what came until then is told on the way out.
            going_on = not self._stopping.is_set()
            self._wake.clear()
            self._tell_all()

    def _tell_all(self) -> None:
        texts: list[str] = []
        for _ in range(len(self._arrived)):
            texts += _found(self._of_next)
        texts += [*_found(self._of_what_is_wrong), *_found(self._of_the_day)]
        # Before it is sent: whatever happens now, nothing is told twice.
        self._told.save()
        overflowed, self._overflowed = self._overflowed, 0
        for post in self.posts:
            post.put(texts, overflowed)

    def _of_next(self) -> list[str]:
        one = self._arrived.popleft()
        found = self._of_order(one) if isinstance(one, Order) else one
        if found is None or not self._told.is_first(found.key):
            return []
        return [news.told(self._hidden(found.text))]

    def _of_order(self, order: Order) -> News | None:
        doubt = self._told.doubts
        found = news.of_order(order, order.client_order_id in doubt)
        if order.status is OrderStatus.UNKNOWN:
            doubt[order.client_order_id] = None
        elif order.client_order_id in doubt:
            del doubt[order.client_order_id]
        return found

    def _of_what_is_wrong(self) -> list[str]:
        look = self._look()
        now = {kind: text for kind, text in look.problems.items() if text} | {f"Drift: {row}": "" for row in look.drift}
        before, self._told.standing = self._told.standing, now
        begun = [f"{kind}: {text}" if text else kind for kind, text in now.items() if kind not in before]
        over = [f"Over: {kind}: {text}" for kind, text in before.items() if text and kind not in now]
        return [news.told(self._hidden(text)) for text in (*begun, *over)]

    def _of_the_day(self) -> list[str]:
        """Once, when it is over; after days without the daemon only of the last one. Nothing of the day it came."""
        yesterday = self._clock().astimezone(UTC).date() - timedelta(days=1)
        if self._told.day is None or self._told.day >= yesterday:
            self._told.day = self._told.day or yesterday
            return []
        try:
            day = self._read_day(yesterday)
        except JournalError as exc:
            log.warning("no summary of %s yet: %s", yesterday, exc)
            return []
        self._told.day = yesterday
        return [self._hidden(news.of_day(day, self._look().positions))]

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "(secret)")
        return text


def _found(find: Callable[[], list[str]]) -> list[str]:
    """One piece of news that goes wrong takes none of the others with it."""
    try:
        return find()
    except Exception:
        log.exception("some news were not told")
        return []


async def _tested(post: Post, seconds: float) -> str:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def test() -> None:
        found = post.test()
        try:
            loop.call_soon_threadsafe(_answer, answer, "a test is under way already" if found is None else found)
        except RuntimeError:
            pass  # the daemon has stopped meanwhile

    # A thread that nobody waits for: the pool of asyncio would be waited for when the daemon stops.
    threading.Thread(target=test, daemon=True).start()
    try:
        return await asyncio.wait_for(answer, seconds)
    except TimeoutError:
        return f"no answer within {seconds:g} s"


def _answer(future: asyncio.Future[str], text: str) -> None:
    if not future.done():
        future.set_result(text)


class _Told:
    """What was told, in a file of its own: it is no record of what was traded. Used on the notifier's thread only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.day: date | None = None  # of the last summary
        self.standing: dict[str, str] = {}  # what was wrong when it was last looked
        self.doubts: dict[str, None] = {}  # orders of which was told that nobody knows their outcome
        self._keys: dict[str, None] = {}
        self._saved = ""
        self._problem: str | None = None
        self._read()

    def is_first(self, key: str) -> bool:
        if key in self._keys:
            return False
        if key:
            self._keys[key] = None
            while len(self._keys) > MAX_REMEMBERED:
                del self._keys[next(iter(self._keys))]
        return True

    def save(self) -> None:
        text = json.dumps(
            {
                "day": self.day.isoformat() if self.day else None,
                "standing": self.standing,
                "doubts": list(self.doubts),
                "keys": list(self._keys),
            }
        )
        if text == self._saved:
            return
        try:
            new = self._path.with_suffix(".new")
            new.write_text(text, "ascii")
            os.replace(new, self._path)
            self._saved, self._problem = text, None
        except OSError as exc:
            # Tried again every second: said once.
            if self._problem != exc.strerror:
                log.warning("after a restart some news may be told again: %s", exc.strerror)
            self._problem = exc.strerror

    def _read(self) -> None:
        """A file that says nothing sensible is as good as none: then some things are told once more."""
        try:
            found = json.loads(self._path.read_bytes())
            day = date.fromisoformat(found["day"]) if found["day"] else None
            standing = {str(kind): str(text) for kind, text in found["standing"].items()}
            doubts, keys = dict.fromkeys(map(str, found["doubts"])), dict.fromkeys(map(str, found["keys"]))
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            return
        self.day, self.standing, self.doubts, self._keys = day, standing, doubts, keys
