"""Worker threads, of which the one that rested last works next: it is the one whose memory is still warm.

The standard library's pool takes the one that has rested longest, and wakes a second one to wait in its place, in the
middle of an order's way: docs/performance.md.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

log = logging.getLogger("gatehouse.threads")

T = TypeVar("T")
P = ParamSpec("P")
Job = Callable[[], object]


class Threads(Executor):
    """At most so many, made when they are first needed; who comes when all work waits for his turn.

    They do not keep the process alive: one may wait for an exchange that never answers.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._lock = threading.Lock()
        self._made = 0
        self._resting: list[_Worker] = []
        self._waiting: deque[Job] = deque()

    def do(self, job: Job) -> None:
        """For what has no answer; what it raises goes to the log."""
        with self._lock:
            if self._resting:
                worker = self._resting.pop()
            elif self._made < self._most:
                self._made += 1
                worker = None
            else:
                self._waiting.append(job)
                return
        if worker is not None:
            worker.wake(job)
            return
        try:
            _Worker(self._next, f"{self._name}_{self._made}").begin(job)
        except RuntimeError:  # the system has no thread to spare just now
            with self._lock:
                self._made -= 1
            raise

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As every executor."""
        future: Future[T] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as exc:
                    future.set_exception(exc)

        self.do(job)
        return future

    def _next(self, worker: _Worker) -> Job | None:
        """What is to be done by who has just done something; None: he rests."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._resting.append(worker)
            return None


class _Worker:
    def __init__(self, next_job: Callable[[_Worker], Job | None], name: str) -> None:
        self._next_job = next_job
        self._name = name
        self._job: Job | None = None
        self._rest = threading.Lock()
        self._rest.acquire()

    def begin(self, job: Job) -> None:
        threading.Thread(target=self._work, args=(job,), name=self._name, daemon=True).start()

    def wake(self, job: Job) -> None:
        self._job = job
        self._rest.release()

    def _work(self, first: Job) -> None:
        job: Job | None = first
        while True:
            try:
                if job is not None:
                    job()
            except BaseException:
                log.exception("unforeseen")
            job = self._next_job(self) or self._after_a_rest()

    def _after_a_rest(self) -> Job | None:
        self._rest.acquire()
        job, self._job = self._job, None
        return job
