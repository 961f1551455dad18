"""The log: one line per event on stderr, in UTC, with every secret's value taken out; its readers delay nobody."""

from __future__ import annotations

import logging
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TextIO

STRANGERS_LINES_PER_MINUTE = 20
MOST_LINES = 1_000  # that wait for somebody to take them
FLUSH_SECONDS = 0.5


class Redacted(logging.Formatter):
    """Takes out the values of all secrets, also from tracebacks, and keeps one event on one line per line of text."""

    converter = staticmethod(time.gmtime)

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self._secrets = tuple(secret for secret in secrets if secret)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return text.replace("\r", "\\r")


class Sparing(logging.Filter):
    """Lets only so many warnings of a minute through: strangers cause them, as many as they like, and disks are finite.

    The first one of a later minute says how many were left out. Errors always pass.
    """

    def __init__(self, most: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most = most
        self._monotonic = monotonic
        self._since, self._shown, self._left_out = monotonic(), 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        if self._monotonic() - self._since > 60:
            self._since, self._shown = self._monotonic(), 0
        if self._shown >= self._most:
            self._left_out += 1
            return False
        if self._left_out:
            record.msg = f"{record.msg} ({self._left_out} like this were left out)"
        self._shown, self._left_out = self._shown + 1, 0
        return True


class Aside(logging.Handler):
    """Has a thread that writes the lines, one by one. A full pipe (`| less`), a terminal stopped with Ctrl-S or with
    a connection that hangs makes that one wait, not the alerts. What is too much meanwhile is left out and counted.

    A pipe with room for the line gets it at once: to wake a thread for each costs a busy minute 7 % of its alerts.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._room = _asked_for_room(stream)
        self._lines: deque[str] = deque()
        self._left_out = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        with self._changed:
            if not self._lines and self._takes_at_once(line):
                self._write(line)
            elif len(self._lines) >= MOST_LINES:
                self._left_out += 1
            else:
                self._lines.append(line)
                self._changed.notify_all()

    def _takes_at_once(self, line: str) -> bool:
        """Where anything can be written, PIPE_BUF bytes can; a character has four at most."""
        if self._room is None or len(line) >= select.PIPE_BUF // 4:
            return False
        return any(event == select.POLLOUT for _, event in self._room.poll(0))

    def flush(self) -> None:
        """At the end, for the last lines; nobody waits longer for somebody who does not read."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines, FLUSH_SECONDS)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                text, left_out = self._lines[0], self._left_out
            self._write(text)
            with self._changed:
                self._lines.popleft()
                self._changed.notify_all()
                if left_out and not self._lines:
                    self._left_out -= left_out
                    self._lines.append(f"({left_out} lines of the log were left out: nobody took them)")

    def _write(self, line: str) -> None:
        with suppress(OSError, ValueError):  # nobody is there any more
            self._stream.write(f"{line}\n")
            self._stream.flush()


def _asked_for_room(stream: TextIO) -> select.poll | None:
    """None where the answer would say too little: a terminal that has room may have it for a part of the line."""
    if stream.isatty():
        return None
    room = select.poll()
    room.register(stream, select.POLLOUT)
    return room


def _may_block() -> bool:
    """Whether a line may have to wait for somebody who takes it. A file takes it at once."""
    try:
        mode = os.fstat(sys.stderr.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return False  # there is none
    return not stat.S_ISREG(mode) and (not stat.S_ISCHR(mode) or sys.stderr.isatty())


def set_up_logging(secrets: Iterable[str], level: int = logging.INFO) -> None:
    handler = Aside(sys.stderr) if _may_block() else logging.StreamHandler()
    handler.setFormatter(Redacted(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Nothing of this is shown, and to find it out costs half of a line's time:
    # https://docs.python.org/3/howto/logging.html#optimization
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    # These write whole URLs, signed queries included, at DEBUG.
    for noisy in ("urllib3", "binance", "asyncio", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # What strangers can write to: wrong secrets, and requests that are none.
    for name in ("gatehouse.strangers", "uvicorn.error"):
        logging.getLogger(name).filters[:] = [Sparing(STRANGERS_LINES_PER_MINUTE)]


def end_logging() -> None:
    """`logging.shutdown` would flush stderr itself, which may never take anything more."""
    for handler in logging.getLogger().handlers:
        with suppress(OSError, ValueError):
            handler.flush()
