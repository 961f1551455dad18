"""What can be looked at, over HTTP: how things stand, the records, the figures. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fastapi import Request, Response

import queries
import replies
from access import Access
from config import Settings
from exports import exported
from history import Wanted
from metrics import CONTENT_TYPE
from models import DOLLARS, ZERO
from performance import Performance
from scrape import gauges
from standing import Standing
from trade_history import TradeHistory
from trader import Trader
from web import HEADERS, BadRequest, json_reply
from wiring import Gatehouse

MEDIA_TYPES = {".csv": "text/csv", "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"}


class Looking:
    """Each route asks who looks before it shows anything; /health and the thin /status are for anyone."""

    def __init__(self, gate: Gatehouse, trader: Trader, access: Access, standing: Standing) -> None:
        self.trades = TradeHistory(gate.journal.history)
        self._gate = gate
        self._trader = trader
        self._access = access
        self._standing = standing
        self._exporting = asyncio.Lock()

    async def health(self, request: Request) -> Response:
        """Never waits for a thread: it answers whatever the disk and the exchange do."""
        if problems := self._standing.problems():
            return json_reply(503, {"status": "unavailable", "problems": problems})
        return json_reply(200, {"status": "ok"})

    async def status(self, request: Request) -> Response:
        thin = self._standing.thin()
        return json_reply(200, thin | self._standing.details() if self._access.may_look(request) else thin)

    async def metrics(self, request: Request) -> Response:
        await self._access.owner_only(request)
        seen = gauges(self._gate, self._trader)
        # To write it all down takes longer than an alert may wait.
        text = await asyncio.to_thread(self._gate.metrics.text, seen)
        return Response(text, headers=HEADERS | {"Content-Type": CONTENT_TYPE})

    async def executions(self, request: Request) -> Response:
        await self._access.owner_only(request)
        queries.only(request, "limit", "symbol", "strategy", "since")
        query = request.query_params
        found = await asyncio.to_thread(
            self._gate.journal.executions,
            queries.limit(query.get("limit", "100")),
            queries.in_capitals(query.get("symbol")),
            query.get("strategy"),
            queries.moment("since", query.get("since")),
        )
        return json_reply(200, {"executions": [replies.execution_view(execution) for execution in found]})

    async def positions(self, request: Request) -> Response:
        await self._access.owner_only(request)
        queries.only(request, "symbol")
        symbol = queries.in_capitals(request.query_params.get("symbol"))
        return json_reply(200, {"positions": self._standing.positions(symbol)})

    async def account_summary(self, request: Request) -> Response:
        await self._access.owner_only(request)
        books = self._gate.engine.books.as_of(self._gate.clock())
        earned = {
            "realized_pnl": sum(
                (p.realized_pnl for p in books.positions.values() if p.rules.quote_asset in DOLLARS), ZERO
            ),
            "realized_pnl_today": books.realized_today,
        }
        return json_reply(200, {"accounts": self._standing.accounts()} | earned)

    async def performance(self, request: Request) -> Response:
        await self._access.owner_only(request)
        queries.only(request, "symbol", "strategy", "since", "until", "broker")
        query = request.query_params
        wanted = Wanted(
            symbol=queries.in_capitals(query.get("symbol")),
            strategy=query.get("strategy"),
            since=queries.moment("since", query.get("since")),
            until=queries.moment("until", query.get("until")),
        )
        found, brokers = await self.results(wanted, queries.in_capitals(query.get("broker")))
        return json_reply(200, {"brokers": brokers} | replies.performance_view(found))

    async def results(self, wanted: Wanted, broker: str | None = None) -> tuple[Performance, Sequence[str]]:
        """How the trading went, and of which brokers. Raises JournalError."""
        brokers = (broker,) if broker is not None else _most_real(self._gate.settings)
        return await asyncio.to_thread(self.trades.performance, wanted, brokers), brokers

    async def download(self, request: Request) -> Response:
        """The CSV file itself; of chosen records, and for a workbook, what the journal has."""
        await self._access.owner_only(request)
        name, wanted = request.url.path.rsplit("/", 1)[-1], queries.wanted(request.query_params)
        if name.endswith(".csv") and wanted == Wanted():
            content = await self._whole_file(name)
        else:
            # One at a time: each is seconds of work, and of memory, beside the alerts.
            async with self._exporting:
                content = await asyncio.to_thread(exported, self._gate.journal.history, name, wanted)
        disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(content, media_type=MEDIA_TYPES[name[-4:]], headers=HEADERS | disposition)

    async def _whole_file(self, name: str) -> bytes:
        try:
            return await asyncio.to_thread((self._gate.settings.log_dir / name).read_bytes)
        except OSError as exc:
            raise BadRequest(503, f"{name} cannot be read: {exc.strerror}") from exc


def _most_real(settings: Settings) -> tuple[str, ...]:
    """The brokers with real money, or where none has any, those on the testnet, or paper: never added to each other."""
    modes = {broker: settings.mode_of(broker) for broker in settings.brokers}
    most = next(mode for mode in ("LIVE", "TESTNET", "PAPER") if mode in modes.values())
    return tuple(broker for broker, mode in modes.items() if mode == most)
