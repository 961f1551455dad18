"""What is live on the page: drawn once for all who look on, sent when it changed, and over when it should be."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from browser import PASSWORD, Browser
from harness import SECRET, Daemon, Nursery

import live
from live import Fragments, Live

Make = Callable[..., Daemon]


class Drawing:
    """Counts how often it was asked to draw, and draws what the test says."""

    def __init__(self, **fragments: str) -> None:
        self.fragments: dict[str, str] = fragments
        self.times = 0

    async def __call__(self) -> Fragments:
        self.times += 1
        await asyncio.sleep(0)
        return dict(self.fragments)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY_SECONDS", 0.02)
    monkeypatch.setattr(live, "SIGN_OF_LIFE_SECONDS", 0.1)


async def following(stream: AsyncIterator[Fragments]) -> Fragments:
    return await asyncio.wait_for(anext(stream), 5)


def test_everything_comes_first_and_then_what_changed() -> None:
    async def scene() -> None:
        drawing = Drawing(a="1", b="1")
        stream = Live(drawing).watch(lambda: True)
        assert await following(stream) == {"a": "1", "b": "1"}
        drawing.fragments["b"] = "2"
        assert await following(stream) == {"b": "2"}

    asyncio.run(scene())


def test_a_quiet_page_gets_a_sign_of_life() -> None:
    async def scene() -> None:
        stream = Live(Drawing(a="1")).watch(lambda: True)
        await following(stream)
        started = asyncio.get_running_loop().time()
        assert await following(stream) == {}
        assert asyncio.get_running_loop().time() - started >= 0.1

    asyncio.run(scene())


def test_many_viewers_cost_one_drawing_and_each_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY_SECONDS", 60)

    async def scene() -> None:
        drawing = Drawing(a="1")
        page = Live(drawing)
        streams = [page.watch(lambda: True) for _ in range(20)]
        assert await asyncio.gather(*(following(stream) for stream in streams)) == [{"a": "1"}] * 20
        assert drawing.times == 1
        assert page.viewers == 20

    asyncio.run(scene())


def test_nobody_looks_on_and_nothing_is_drawn() -> None:
    async def scene() -> None:
        drawing = Drawing(a="1")
        page = Live(drawing)
        stream = page.watch(lambda: True)
        await following(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        drawn = drawing.times
        await asyncio.sleep(0.1)
        assert drawing.times == drawn
        assert page.viewers == 0

    asyncio.run(scene())


def test_a_viewer_who_may_not_look_any_more_is_let_go() -> None:
    async def scene() -> None:
        allowed = [True]
        stream = Live(Drawing(a="1")).watch(lambda: allowed[0])
        await following(stream)
        allowed[0] = False
        with pytest.raises(StopAsyncIteration):
            await following(stream)

    asyncio.run(scene())


def test_all_viewers_are_let_go_when_the_daemon_stops() -> None:
    async def scene() -> None:
        page = Live(Drawing(a="1"))
        streams = [page.watch(lambda: True) for _ in range(3)]
        await asyncio.gather(*(following(stream) for stream in streams))
        page.end()
        found = await asyncio.gather(*(following(stream) for stream in streams), return_exceptions=True)
        assert all(isinstance(error, StopAsyncIteration) for error in found)

    asyncio.run(scene())


# --- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def daemon(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(nursery, tmp_path_factory.mktemp("live"), dashboard_password=PASSWORD, cooldown_seconds=0).start()
    yield daemon
    daemon.kill()


class Stream:
    """An open page's stream of events."""

    def __init__(self, browser: Browser) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", browser.daemon.port, timeout=10)
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        self._connection.request("GET", "/events", headers={"Cookie": cookie})
        self.reply = self._connection.getresponse()

    def event(self) -> tuple[str, Any]:
        """Its name and what it carries; ("", None) when the stream has ended."""
        name = ""
        while line := self.reply.readline().decode().rstrip("\n"):
            if line.startswith("event:"):
                name = line.removeprefix("event:").strip()
            if line.startswith("data:"):
                return name, json.loads(line.removeprefix("data:"))
        return (name, None) if not self.reply.isclosed() and name else self._after_a_blank()

    def _after_a_blank(self) -> tuple[str, Any]:
        return ("", None) if self.reply.isclosed() or not self.reply.peek(1) else self.event()

    def close(self) -> None:
        self._connection.close()


def test_a_trade_reaches_the_open_page_by_itself(daemon: Daemon) -> None:
    stream = Stream(Browser(daemon).log_in())
    assert stream.reply.headers["content-type"].startswith("text/event-stream")
    name, fragments = stream.event()
    assert name == "fragments"
    assert set(fragments) == {
        "switch", "alarms", "positions", "decisions", "limits", "accounts", "orders", "records"
    }  # fmt: skip
    daemon.post(symbol="BTCUSDT", side="buy", price=43000, strategy="<script>alert(1)</script>")
    while "positions" not in fragments or "BTCUSDT" not in fragments["positions"]:
        name, fragments = stream.event()
        assert name in ("fragments", "alive")
    stream.close()


def test_no_fragment_carries_a_secret_or_a_script_of_somebody_else(daemon: Daemon) -> None:
    daemon.post(symbol="ETHUSDT", side="buy", price=2500, strategy='"><img src=x onerror=alert(1)>')
    stream = Stream(Browser(daemon).log_in())
    html = "".join(stream.event()[1].values())
    stream.close()
    assert SECRET not in html
    assert PASSWORD not in html
    assert "<img" not in html
    assert "<script" not in html


def test_a_logout_ends_the_stream(daemon: Daemon) -> None:
    browser = Browser(daemon).log_in()
    stream = Stream(browser)
    assert stream.event()[0] == "fragments"
    browser.submit("/logout", token=browser.token)
    names = [stream.event()[0] for _ in range(3)]
    assert "over" in names
    stream.close()


def test_so_many_pages_and_no_more(daemon: Daemon) -> None:
    browser = Browser(daemon).log_in()
    streams = [Stream(browser) for _ in range(live.MAX_VIEWERS)]
    for stream in streams:
        assert stream.event()[0] == "fragments"
    assert Stream(browser).reply.status == 503
    assert daemon.post(symbol="SOLUSDT", side="buy", price=150)["success"]
    for stream in streams:
        stream.close()
