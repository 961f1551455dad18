"""The worker threads: who rested last works next, all work is done, and a failure ends nobody."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

import pytest
from harness import eventually

from threads import Threads


def name() -> str:
    return threading.current_thread().name


def rested(threads: Threads, number: int) -> None:
    eventually(lambda: len(threads._resting) == number, 5, lambda: "somebody does not come to rest")


def held(threads: Threads) -> Callable[[], str]:
    """Gives a thread something to do until the callable returned is called, which tells its name."""
    begun, let_go = threading.Event(), threading.Event()

    def job() -> str:
        begun.set()
        let_go.wait(5)
        return name()

    future = threads.submit(job)
    assert begun.wait(5)

    def end() -> str:
        let_go.set()
        return future.result(5)

    return end


def test_who_rested_last_works_next() -> None:
    threads = Threads(4, "w")
    first, second = held(threads), held(threads)
    first_name = first()
    rested(threads, 1)
    second_name = second()
    rested(threads, 2)
    assert {first_name, second_name} == {"w_1", "w_2"}
    assert threads.submit(name).result(5) == second_name
    rested(threads, 2)
    assert threads.submit(name).result(5) == second_name


def test_no_more_threads_than_allowed_and_all_work_is_done_in_the_order_of_its_coming() -> None:
    threads, done = Threads(2, "w"), list[int]()
    first, second = held(threads), held(threads)
    for number in range(20):
        threads.do(partial(done.append, number))
    assert not done
    first()
    eventually(lambda: len(done) == 20, 5, lambda: f"done are {done}")
    assert done == list(range(20))
    second()
    rested(threads, 2)


def test_a_thousand_jobs_from_many_sides_are_each_done_once() -> None:
    threads, lock, done = Threads(8, "w"), threading.Lock(), list[int]()

    def job(number: int) -> None:
        with lock:
            done.append(number)

    def give(first: int) -> None:
        for number in range(first, first + 100):
            threads.submit(job, number)

    givers = [threading.Thread(target=give, args=(100 * giver,)) for giver in range(10)]
    for giver in givers:
        giver.start()
    for giver in givers:
        giver.join()
    eventually(lambda: len(done) == 1000, 10, lambda: f"{len(done)} are done")
    assert sorted(done) == list(range(1000))


def test_an_answer_and_an_error_come_back_to_who_asked() -> None:
    threads = Threads(1, "w")
    assert threads.submit(divmod, 7, 2).result(5) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 7, 0).result(5)
    assert threads.submit(divmod, 9, 2).result(5) == (4, 1)


def test_what_nobody_waits_for_says_in_the_log_that_it_failed(caplog: pytest.LogCaptureFixture) -> None:
    threads = Threads(1, "w")
    with caplog.at_level(logging.ERROR):
        threads.do(lambda: [][0])
        rested(threads, 1)
    assert "IndexError" in caplog.text
    assert threads.submit(name).result(5) == "w_1"


def test_what_was_cancelled_while_it_waited_is_not_done() -> None:
    threads, done = Threads(1, "w"), list[int]()
    end = held(threads)
    waits = threads.submit(done.append, 1)
    assert waits.cancel()
    end()
    rested(threads, 1)
    assert not done


def test_a_system_without_a_thread_to_spare_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads(1, "w")

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as system:
        system.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            threads.submit(name)
    assert threads.submit(name).result(5) == "w_1"
