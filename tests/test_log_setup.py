"""The log keeps nobody waiting for its readers."""

from __future__ import annotations

import fcntl
import logging
import os

import pytest
from harness import eventually

import log_setup
from log_setup import Aside

SMALL_PIPE = 4096


def a_line(text: str) -> logging.LogRecord:
    return logging.LogRecord("gatehouse", logging.INFO, "", 0, text, None, None)


def test_a_pipe_with_room_gets_a_short_line_at_once_and_a_long_one_from_the_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Aside, "_run", lambda handler: None)  # the thread writes nothing
    reader, writer = os.pipe()
    handler = Aside(os.fdopen(writer, "w"))
    handler.emit(a_line("short"))
    assert os.read(reader, SMALL_PIPE) == b"short\n"
    os.set_blocking(reader, False)
    for text in ("x" * 1024, "after it"):
        handler.emit(a_line(text))
        with pytest.raises(BlockingIOError):
            os.read(reader, SMALL_PIPE)


def test_lines_that_nobody_takes_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_setup, "MOST_LINES", 50)
    unread, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, SMALL_PIPE)
    os.write(writer, b"." * (SMALL_PIPE - 1) + b"\n")  # nobody has taken what came before
    handler = Aside(os.fdopen(writer, "w"))
    for number in range(200):
        handler.emit(a_line(f"{number} {'x' * 100}"))
    handler.flush()
    text = ""

    def is_all_there() -> bool:
        nonlocal text
        text += os.read(unread, SMALL_PIPE).decode()
        return text.endswith("took them)\n")

    eventually(is_all_there, 5, lambda: text[-300:])
    _, *lines, last = text.splitlines()
    assert [line.split()[0] for line in lines] == [str(number) for number in range(50)]
    assert last == "(150 lines of the log were left out: nobody took them)"
