"""Worker threads and background tasks: what blocks runs on the ones, what goes on alone in the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from broker import BrokerError

log = logging.getLogger("gatehouse.workers")

T = TypeVar("T")

THREADS = 64


class Workers:
    """Used on one event loop. `lives` are those that somebody waits for when it stops, `tasks` all others."""

    def __init__(self, ask_seconds: float) -> None:
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gatehouse")
        self.lives: set[asyncio.Task[None]] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._ask_seconds = ask_seconds

    async def ask(self, question: Callable[..., T], *args: object) -> T:
        """A question to a broker with a total deadline. Raises BrokerError."""
        try:
            return await asyncio.wait_for(self.on_thread(question, *args), self._ask_seconds)
        except TimeoutError as exc:
            raise BrokerError("no answer in time") from exc

    def on_thread(self, call: Callable[..., T], *args: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self.threads, partial(call, *args))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._begin(work, self.tasks)

    def spawn_life(self, work: Coroutine[Any, Any, None]) -> None:
        self._begin(work, self.lives)

    def _begin(self, work: Coroutine[Any, Any, None], group: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        group.add(task)
        task.add_done_callback(partial(_ended, group))

    async def stop(self) -> None:
        left = {*self.lives, *self.tasks}
        while left:
            # asyncio.wait_for in Python 3.11 loses a cancellation that meets its result: cancel until it is heard.
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=0.1)


async def is_done(future: asyncio.Future[Any], seconds: float) -> bool:
    """Whether it is done within so many seconds. As asyncio.wait, for one future, without its detours."""
    if future.done():
        return True
    loop = asyncio.get_running_loop()
    either: asyncio.Future[None] = loop.create_future()
    timer = loop.call_later(seconds, _set, either)
    future.add_done_callback(partial(_set, either))
    try:
        await either
    finally:
        timer.cancel()
    return future.done()


async def within(seconds: float, event: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        pass


def _set(future: asyncio.Future[None], *_: object) -> None:
    if not future.done():
        future.set_result(None)


def _ended(group: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
    group.discard(task)
    if not task.cancelled() and task.exception() is not None:
        log.error("unforeseen", exc_info=task.exception())
