"""What is live on the page: drawn at most once a second whoever looks on, and each viewer gets what changed for him."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

EVERY_SECONDS = 1.0
# A viewer who hears nothing for 12 s says that the connection is lost (static/page.js).
SIGN_OF_LIFE_SECONDS = 4.0
MAX_VIEWERS = 50

Fragments = Mapping[str, str]


class Live:
    """Fragments by name, as HTML. Nobody looks on: nothing is drawn."""

    def __init__(self, draw: Callable[[], Awaitable[Fragments]]) -> None:
        self._draw = draw
        self._drawn: tuple[float, Fragments] = (-EVERY_SECONDS, {})
        self._drawing = asyncio.Lock()
        self._over = asyncio.Event()
        self.viewers = 0

    @property
    def is_full(self) -> bool:
        return self.viewers >= MAX_VIEWERS

    async def watch(self, may_look: Callable[[], bool]) -> AsyncIterator[Fragments]:
        """What changed, again and again; now and then nothing, as a sign of life. Ends with the login or the daemon."""
        shown: dict[str, str] = {}
        loop = asyncio.get_running_loop()
        said_at = loop.time()
        self.viewers += 1
        try:
            while may_look() and not self._over.is_set():
                news = {name: html for name, html in (await self._latest()).items() if shown.get(name) != html}
                if news or loop.time() - said_at >= SIGN_OF_LIFE_SECONDS:
                    shown |= news
                    said_at = loop.time()
                    yield news
                await self._pause()
        finally:
            self.viewers -= 1

    def end(self) -> None:
        """Viewers are let go at once, so that the daemon need not wait for them when it stops."""
        self._over.set()

    async def _latest(self) -> Fragments:
        async with self._drawing:
            drawn_at, fragments = self._drawn
            now = asyncio.get_running_loop().time()
            if now - drawn_at >= EVERY_SECONDS:
                fragments = await self._draw()
                self._drawn = (now, fragments)
        return fragments

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._over.wait(), EVERY_SECONDS)
        except TimeoutError:
            pass
