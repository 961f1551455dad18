"""The owner's hand: settings, pause and resume, close all, a test message. Who may is for access.py to say."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import Request, Response

import queries
import replies
from access import Access
from journal import JournalError
from models import OrderStatus
from outcomes import NoWord, execution_by, read_word
from preferences import GROUPS, NAMES, TARGETS, WORDS, PreferenceError, preferences_view, read_changes
from trader import Trader
from web import BadRequest, error_body, json_reply
from wiring import Gatehouse

log = logging.getLogger("gatehouse")

CLOSE_ALL_SECONDS = 8.0
TEST_SECONDS = 5.0
OUTCOME_SECONDS = 5.0


class Owner:
    """What the owner does while it runs; each change is on the record before it counts."""

    def __init__(self, gate: Gatehouse, trader: Trader, access: Access) -> None:
        self._gate = gate
        self._trader = trader
        self._access = access

    async def preferences(self, request: Request) -> Response:
        await self._access.owner_only(request)
        return json_reply(200, self._preferences(NAMES) | {"groups": GROUPS})

    async def change_preferences(self, request: Request) -> Response:
        body = await self._access.owners_body(request)
        target = request.path_params["name"].lower()
        if target not in TARGETS:
            names = [*TARGETS, "reset"]
            return json_reply(404, error_body(f"no such preference; there are {', '.join(names)}") | {"names": names})
        try:
            return await self._change_preferences(request, read_changes(target, body, self._gate.secret))
        except PreferenceError as exc:
            return json_reply(400, error_body(str(exc)) | {"field": exc.field})

    async def reset_preferences(self, request: Request) -> Response:
        await self._access.owner_only(request)
        # Also those that a later version may have left.
        return await self._change_preferences(request, dict.fromkeys([*NAMES, *self._gate.engine.books.preferences]))

    async def _change_preferences(self, request: Request, changes: Mapping[str, str | None]) -> Response:
        """Raises PreferenceError."""
        by = self._access.who(request)
        try:
            await asyncio.to_thread(self._gate.engine.prefer, changes, self._gate.clock(), by)
        except JournalError as exc:
            self._gate.engine.journal_problem = str(exc)
            raise BadRequest(503, "the journal cannot be written; nothing was changed") from exc
        told = ((name, "default" if text is None else text or WORDS[name]) for name, text in changes.items())
        log.info("preferences, by %s: %s", by, ", ".join(f"{name} = {text}" for name, text in told))
        return json_reply(200, self._preferences(changes))

    def _preferences(self, names: Iterable[str]) -> dict[str, Any]:
        in_force = self._gate.engine.in_force
        return {"preferences": preferences_view(names, in_force), "warnings": in_force.warnings}

    # --- the hand on the switch -------------------------------------------------------------------------------------

    async def pause(self, request: Request) -> Response:
        return await self._switch(request, True)

    async def resume(self, request: Request) -> Response:
        return await self._switch(request, False)

    async def _switch(self, request: Request, paused: bool) -> Response:
        await self._access.owner_only(request)
        try:
            await self._trader.switch(paused)
        except JournalError as exc:
            self._gate.engine.journal_problem = str(exc)
            raise BadRequest(503, "the journal cannot be written; nothing was changed") from exc
        log.info("trading is %s", "paused" if paused else "resumed")
        return json_reply(200, {"paused": paused})

    async def close_all(self, request: Request) -> Response:
        await self._access.owner_only(request)
        # `?symbol=BTCUSDT` would close everything else, too.
        queries.only(request)
        answers = await self._trader.close_all(CLOSE_ALL_SECONDS)
        results = [replies.webhook_reply(answer)[1] for answer in answers]
        closed = sum(result["status"] == OrderStatus.FILLED for result in results)
        return json_reply(200, {"closed": closed, "results": results})

    async def order_outcome(self, request: Request) -> Response:
        """What became of an order that its broker tells nothing of any more."""
        body = await self._access.owners_body(request)
        queries.only(request)
        try:
            word = read_word(body)
            order = self._trader.asked_of_owner(word.client_order_id)
            if order is None:
                raise BadRequest(404, "no such order, or its broker still tells what became of it: see /status")
            execution = execution_by(word, order)
        except NoWord as exc:
            raise BadRequest(400, str(exc)) from exc
        log.warning("%s is %s, by %s", word.client_order_id, execution.status, self._access.who(request))
        settled = await self._trader.take_word(order, execution, OUTCOME_SECONDS)
        told = {"client_order_id": order.client_order_id, "status": (settled or order).status}
        return json_reply(202 if settled is None else 200, told)

    async def test_notifications(self, request: Request) -> Response:
        await self._access.owner_only(request)
        if self._gate.notifier is None:
            raise BadRequest(400, "there is nowhere to send messages to: set NOTIFY_URLS and start again")
        problems = await self._gate.notifier.test(TEST_SECONDS)
        services = [{"service": name, "taken": not why, "problem": why or None} for name, why in problems.items()]
        return json_reply(200, {"success": not any(problems.values()), "services": services})
