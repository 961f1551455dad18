"""Keeps every position protected that asked for it: places what is missing, takes away what is left over.

It looks at what is, not at what happened: after a fill, a restart or a lost reply the same look finds what is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from broker import Outcome
from journal import JournalError
from models import RESTING, Instrument, Order, OrderStatus
from protection import Guard

log = logging.getLogger("gatehouse.guardian")


class Hands(Protocol):
    """What the guardian needs done; each ends with the books knowing what became of it."""

    async def look(self, instrument: Instrument) -> Guard:
        """Raises JournalError."""

    async def hand_over(self, orders: Sequence[Order]) -> Sequence[Outcome]: ...
    async def settle(self, order: Order, outcome: Outcome) -> Order: ...
    async def resolve(self, order: Order) -> Order: ...
    async def cancel(self, order: Order) -> None: ...
    def follow(self, order: Order) -> None: ...
    async def close(self, instrument: Instrument, why: str) -> None: ...
    def holds(self, instrument: Instrument) -> bool: ...
    def tell_owner(self, text: str) -> None: ...

    async def is_gone(self, instrument: Instrument) -> bool:
        """Whether somebody has closed it at the exchange: asked there, and known to the books from then on."""

    async def clear(self, instrument: Instrument) -> bool:
        """Whether orders of ours that the books know as ended were waiting there all the same; cancelled now."""


@dataclass(frozen=True, slots=True)
class Waits:
    """In seconds."""

    look: float = 0.05  # between two looks while something is under way, and growing from there
    longest: float = 2.0
    resend: float = 0.5  # before protection that certainly never left is sent again
    give_up: float = 10.0  # so long a position may be without the protection it asked for, then it is closed
    again: float = 30.0  # after that failed, too, before the next try, and twice as long each time
    longest_again: float = 300.0


class Guardian:
    """One look at a time per instrument. All on one event loop."""

    def __init__(self, hands: Hands, spawn: Callable[..., None], waits: Waits) -> None:
        self._hands = hands
        self._spawn = spawn
        self._waits = waits
        self._looking: dict[Instrument, bool] = {}  # True: something changed meanwhile, look again
        self._too_little: set[Instrument] = set()  # of which the owner was told that it cannot be protected

    def look_soon(self, instrument: Instrument) -> None:
        if instrument in self._looking:
            self._looking[instrument] = True
            return
        self._looking[instrument] = False
        self._spawn(self._watch(instrument))

    async def _watch(self, instrument: Instrument) -> None:
        try:
            again = True
            while again:
                self._looking[instrument] = False
                await self._until_all_is_well(instrument)
                again = self._looking[instrument]
        finally:
            del self._looking[instrument]

    async def _until_all_is_well(self, instrument: Instrument) -> None:
        loop = asyncio.get_running_loop()
        pause, again, unprotected_since, tries = self._waits.look, self._waits.again, loop.time(), 0
        in_doubt = False  # whether any of them was given up without proof that it never left
        while True:
            try:
                guard = await self._hands.look(instrument)
            except JournalError as exc:
                log.error("protection of %s waits for the journal: %s", instrument, exc)
                guard = Guard(waits=True)
            if guard.place:
                sent = await self._place(guard.place)
                in_doubt |= any(order.status is OrderStatus.UNKNOWN for order in sent)
                settled = await self._resolve(sent)
                why = _failure(settled)
                if not why:
                    continue
                tries += 1
                refused = any(order.status is OrderStatus.REJECTED for order in settled)
                # That a lost request never arrived takes long to prove: that alone is no reason to close.
                if refused or (tries > 1 and loop.time() - unprotected_since >= self._waits.give_up):
                    if await self._is_worth_a_try(instrument, in_doubt and refused):
                        in_doubt = False
                        continue
                    await self._hands.close(instrument, why)
                    await self._while_held(instrument, again)
                    again, unprotected_since = min(again * 2, self._waits.longest_again), loop.time()
                    tries = 0
                else:
                    await asyncio.sleep(self._waits.resend)
            elif guard.cancel:
                for order in guard.cancel:
                    await self._hands.cancel(order)
            elif not guard.waits:
                self._say_once(instrument, too_little=guard.too_little)
                return
            if guard.waits or guard.cancel:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, self._waits.longest)

    def _say_once(self, instrument: Instrument, *, too_little: bool) -> None:
        if not too_little:
            self._too_little.discard(instrument)
        elif instrument not in self._too_little:
            self._too_little.add(instrument)
            left = "what is left is too little for the exchange: it can be neither protected nor sold"
            self._hands.tell_owner(f"{instrument} at {instrument.broker}: {left}")

    async def _is_worth_a_try(self, instrument: Instrument, in_doubt: bool) -> bool:
        """Before it is closed: one that was given up may have arrived after all, and keep the next one out."""
        return await self._hands.is_gone(instrument) or (in_doubt and await self._hands.clear(instrument))

    async def _while_held(self, instrument: Instrument, seconds: float) -> None:
        """A close that failed would fail again at once; what is bought after one that did not needs its protection."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._hands.holds(instrument):
            left = until - loop.time()
            if left <= 0:
                return
            await asyncio.sleep(min(self._waits.resend, left))

    async def _place(self, orders: Sequence[Order]) -> list[Order]:
        outcomes = await self._hands.hand_over(orders)
        return [await self._hands.settle(order, outcome) for order, outcome in zip(orders, outcomes, strict=True)]

    async def _resolve(self, orders: Sequence[Order]) -> list[Order]:
        # At once, and not one after the other: that one is not there takes as long to prove as that none of them is.
        in_doubt = {o.client_order_id: self._hands.resolve(o) for o in orders if o.status is OrderStatus.UNKNOWN}
        resolved = dict(zip(in_doubt, await asyncio.gather(*in_doubt.values()), strict=True))
        settled = [resolved.get(order.client_order_id, order) for order in orders]
        for order in settled:
            if order.status in RESTING:
                self._hands.follow(order)
        return settled


def _failure(orders: Sequence[Order]) -> str:
    """Why the position is not protected by these orders; empty when it is."""
    failed = [order for order in orders if order.has_ended and not order.executed_quantity]
    return "; ".join(f"{order.leg}: {order.note or order.status}" for order in failed)
