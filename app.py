"""The daemon: routes and status codes, start and stop. Decides nothing. `python app.py`"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NoReturn

import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

import replies
from banner import startup_text
from config import Settings, SettingsError, load_settings
from data_folder import FolderError
from guard import Brake, SecretGuard, address_is_allowed, client_address
from journal import SIGNALS, TRADES, JournalError
from log_setup import set_up_logging
from models import ZERO, Account, Signal
from preferences import GROUPS, NAMES, TARGETS, WORDS, PreferenceError, preferences_view, read_changes
from risk import Alert
from signals import AlertError, alert_key, claimed_secrets, json_fields, parse_alert
from trader import Trader
from wiring import Gatehouse, open_gatehouse

log = logging.getLogger("gatehouse")

MAX_BODY_BYTES = 16_384
BODY_SECONDS = 2.0
# TradingView hangs up after 3 s: https://www.tradingview.com/support/solutions/43000529348/
REPLY_SECONDS = 2.1
CLOSE_ALL_SECONDS = 8.0
STOP_SECONDS = 4
SLOWED_SECONDS = 1.0
MAX_SLOWED = 100
MAX_ROWS = 1_000
COLLECT_AFTER = (20_000, 10, 10)

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


class BadRequest(Exception):
    """HTTP status and a text for the sender."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


# --- HTTP -------------------------------------------------------------------------------------------------------------


def create_app(gate: Gatehouse) -> FastAPI:
    """The routes over one wired Gatehouse; recovery begins when the server starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        trader = Trader(gate.engine, gate.brokers, gate.csvs[SIGNALS], gate.csvs[TRADES], gate.clock, gate.patience)
        app.state.door = Door(gate, trader)
        await trader.start()
        yield
        await trader.stop(STOP_SECONDS)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(BadRequest, _bad_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unforeseen)

    def door(request: Request) -> Door:
        opened: Door = request.app.state.door
        return opened

    def route(path: str, method: str, handle: Callable[[Door, Request], Awaitable[Response]]) -> None:
        async def endpoint(request: Request) -> Response:
            return await handle(door(request), request)

        # Starlette's own route: nothing here is for FastAPI to parse, and an alert is in a hurry.
        app.router.add_route(path, endpoint, methods=[method])

    route("/webhook", "POST", Door.webhook)
    route("/webhook/{path_secret}", "POST", Door.webhook)
    route("/health", "GET", Door.health)
    route("/status", "GET", Door.status)
    route("/executions", "GET", Door.executions)
    route("/positions", "GET", Door.positions)
    route("/account/summary", "GET", Door.account_summary)
    route("/preferences/current", "GET", Door.preferences)
    route("/preferences/reset", "POST", Door.reset_preferences)
    route("/preferences/{name}", "POST", Door.change_preferences)
    route("/pause", "POST", Door.pause)
    route("/resume", "POST", Door.resume)
    route("/close-all", "POST", Door.close_all)
    route("/logs/signals.csv", "GET", Door.download)
    route("/logs/trades.csv", "GET", Door.download)
    return app


class ShortCut:
    """ASGI: an alert goes straight to the door, everything else through FastAPI, whose layers an alert makes no use of.

    What they cost, and what that is of an alert's way: docs/performance.md.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" and scope["method"] == "POST" else ""
        if path != "/webhook" and not _PATH_WITH_SECRET.fullmatch(path):
            await self._app(scope, receive, send)
            return
        scope["path_params"] = {"path_secret": path.removeprefix("/webhook").removeprefix("/")}
        request = Request(scope, receive)
        try:
            response = await self._app.state.door.webhook(request)
        except ClientDisconnect:
            return
        except BadRequest as exc:
            response = await _bad_request(request, exc)
        except Exception as exc:
            log.exception("unforeseen")
            response = await _unforeseen(request, exc)
        await response(scope, receive, send)


_PATH_WITH_SECRET = re.compile("/webhook/[^/]+")


class Door:
    """Every request passes here: who is it, what is wanted, what is the answer."""

    def __init__(self, gate: Gatehouse, trader: Trader) -> None:
        self.gate = gate
        self.trader = trader
        self._secret = SecretGuard(gate.secret)
        self._default_broker = gate.settings.default_broker_name
        self._brake = Brake()
        self._slowed = 0

    # --- the alert --------------------------------------------------------------------------------------------------

    async def webhook(self, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        give_up_at, received_at = loop.time() + REPLY_SECONDS, self.gate.clock()
        body = await _read_body(request)
        fields = json_fields(body)
        if not self._may_alert(request, body, fields):
            return await self._unauthorised(request)
        key = alert_key(body, self.gate.secret)
        try:
            alert = self._alert(parse_alert(body, self.gate.secret, fields), key, received_at)
        except AlertError as exc:
            return await self._invalid(key, exc, received_at)
        if _is_dry_run(request):
            preview = await self.trader.dry_run(alert)
            return _json(200, replies.dry_run_reply(alert.signal, alert.broker, preview))
        answer = await self.trader.handle(alert, max(0.0, give_up_at - loop.time()))
        return _json(*replies.webhook_reply(answer))

    def _alert(self, signal: Signal, key: str, received_at: datetime) -> Alert:
        broker, on = signal.broker or self._default_broker, self.gate.brokers
        account = self.gate.account_for(broker, signal.market)
        no_broker = no_market = ""
        if account not in on:
            names = dict.fromkeys(known.broker for known in on)
            if broker in names:
                no_market = f"{signal.symbol} means {account.market}, which is off at {broker}; see BINANCE_MARKET"
            else:
                no_broker = f"Broker not configured: {broker}; configured: {', '.join(names)}"
        return Alert(signal, key, account, received_at, broker_problem=no_broker, market_problem=no_market)

    async def _invalid(self, key: str, exc: AlertError, received_at: datetime) -> Response:
        try:
            record = await self.trader.refuse_invalid(key, str(exc), exc.field, received_at)
        except JournalError as error:
            self.trader.journal_problem = str(error)
            return _json(503, _error("the journal cannot be written; nothing was placed"))
        return _json(400, replies.invalid_reply(record, exc.field))

    def _may_alert(self, request: Request, body: bytes, fields: Any) -> bool:
        allowed = self.gate.settings.allowed_ips
        if allowed and not address_is_allowed(self._address(request), allowed):
            return False
        if self._secret.accepts([*_bearer(request), request.path_params.get("path_secret", "")]):
            return True
        return self._secret.accepts(claimed_secrets(body, fields))

    async def _unauthorised(self, request: Request) -> Response:
        """One answer for every failure; who keeps guessing waits for it, as long as that costs us nothing."""
        address = self._address(request)
        failures = self._brake.failed(address)
        if failures == 1 or failures % 1000 == 0:
            log.warning("wrong secret or address: %s, %d in this minute", address, failures)
        if self._brake.is_on(failures) and self._slowed < MAX_SLOWED:
            self._slowed += 1
            try:
                await asyncio.sleep(SLOWED_SECONDS)
            finally:
                self._slowed -= 1
        return _json(401, _error("unauthorised: send the webhook secret"))

    def _address(self, request: Request) -> str:
        peer = request.client.host if request.client else ""
        # A proxy may add a line of its own below the one that the sender wrote.
        forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
        return client_address(peer, forwarded, self.gate.settings.trusted_proxy_hops)

    # --- looking ----------------------------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        """Never waits for a thread: it answers whatever the disk and the exchange do."""
        problems = []
        if self.trader.journal_problem:
            problems.append(self.trader.journal_problem)
        if not self.trader.ready.is_set():
            problems.append("recovery is not finished")
        if problems:
            return _json(503, {"status": "unavailable", "problems": problems})
        return _json(200, {"status": "ok"})

    async def status(self, request: Request) -> Response:
        gate, now = self.gate, self.gate.clock()
        books = gate.engine.books.as_of(now)
        default = gate.settings.default_broker_name
        thin = {
            "status": "ok" if self.trader.ready.is_set() and not self.trader.journal_problem else "unavailable",
            "mode": gate.settings.mode_of(default),
            "default_broker": default,
            "uptime_seconds": round((now - gate.started_at).total_seconds(), 1),
            "paused": books.paused,
        } | replies.counts(books, gate.engine.limits)
        if not self._knows_secret(request):
            return _json(200, thin)
        return _json(200, thin | await self._details(now))

    async def _details(self, now: datetime) -> dict[str, Any]:
        books = self.gate.engine.books
        unresolved = [order for order in books.orders.values() if order.status.value in ("UNKNOWN", "SENT", "INTENT")]
        return {
            "limits": self.gate.engine.limits,
            "preferences_differing": len(self.gate.engine.in_force.differing),
            "brokers": {
                self.gate.label(account): {"mode": self.gate.settings.mode_of(account.broker)} | state
                for account, state in self.trader.market.state().items()
            },
            "balances": {self.gate.label(account): _balances(self.trader, account) for account in self.gate.brokers},
            "positions": self._positions(None),
            "unresolved_orders": [replies.order_view(order) for order in unresolved],
            "resting_orders": [replies.order_view(order) for order in books.orders.values() if order not in unresolved],
            "csv_lag": {name: csv.lag for name, csv in self.gate.csvs.items()},
            "csv_problems": {name: csv.problem for name, csv in self.gate.csvs.items() if csv.problem},
            "journal_problem": self.trader.journal_problem,
            "halted": self.gate.engine.halted or self.gate.engine.in_force.problem,
            "drift": self.trader.drift,
            "notices": [{"at": at, "text": text} for at, text in self.trader.notices],
            "latencies_ms": _latencies(self.trader.latencies_ms),
            "warnings": self.gate.engine.in_force.warnings,
        }

    async def executions(self, request: Request) -> Response:
        await self._owner_only(request)
        query = request.query_params
        found = await asyncio.to_thread(
            self.gate.journal.executions,
            _limit(query.get("limit", "100")),
            query.get("symbol"),
            query.get("strategy"),
            _since(query.get("since")),
        )
        return _json(200, {"executions": [replies.execution_view(execution) for execution in found]})

    async def positions(self, request: Request) -> Response:
        await self._owner_only(request)
        return _json(200, {"positions": self._positions(request.query_params.get("symbol"))})

    def _positions(self, symbol: str | None) -> list[dict[str, Any]]:
        open_ones = (p for p in self.gate.engine.books.positions.values() if p.is_open and symbol in (None, p.symbol))
        return [replies.position_view(p, self.trader.market.price(p.instrument)) for p in open_ones]

    async def account_summary(self, request: Request) -> Response:
        await self._owner_only(request)
        books = self.gate.engine.books.as_of(self.gate.clock())
        accounts = []
        for account in self.gate.brokers:
            dated = self.trader.market.balances(account)
            held = [p for p in self._positions(None) if (p["broker"], p["market"]) == account]
            mode, label = self.gate.settings.mode_of(account.broker), self.gate.label(account)
            accounts.append(replies.account_view(label, mode, dated.value if dated else None, held))
        realized = sum((p.realized_pnl for p in books.positions.values()), ZERO)
        return _json(200, {"accounts": accounts, "realized_pnl": realized, "realized_pnl_today": books.realized_today})

    async def download(self, request: Request) -> Response:
        await self._owner_only(request)
        name = request.url.path.rsplit("/", 1)[-1]
        try:
            content = await asyncio.to_thread((self.gate.settings.log_dir / name).read_bytes)
        except OSError as exc:
            raise BadRequest(503, f"{name} cannot be read: {exc.strerror}") from exc
        disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(content, media_type="text/csv", headers=HEADERS | disposition)

    # --- preferences ------------------------------------------------------------------------------------------------

    async def preferences(self, request: Request) -> Response:
        await self._owner_only(request)
        return _json(200, self._preferences(NAMES) | {"groups": GROUPS})

    async def change_preferences(self, request: Request) -> Response:
        body = await self._owners_body(request)
        target = request.path_params["name"].lower()
        if target not in TARGETS:
            names = [*TARGETS, "reset"]
            return _json(404, _error(f"no such preference; there are {', '.join(names)}") | {"names": names})
        try:
            return await self._change_preferences(read_changes(target, body, self.gate.secret))
        except PreferenceError as exc:
            return _json(400, _error(str(exc)) | {"field": exc.field})

    async def reset_preferences(self, request: Request) -> Response:
        await self._owner_only(request)
        # Also those that a later version may have left.
        return await self._change_preferences(dict.fromkeys([*NAMES, *self.gate.engine.books.preferences]))

    async def _change_preferences(self, changes: Mapping[str, str | None]) -> Response:
        """Raises PreferenceError."""
        try:
            await asyncio.to_thread(self.gate.engine.prefer, changes, self.gate.clock())
        except JournalError as exc:
            self.trader.journal_problem = str(exc)
            raise BadRequest(503, "the journal cannot be written; nothing was changed") from exc
        told = ((name, "default" if text is None else text or WORDS[name]) for name, text in changes.items())
        log.info("preferences: %s", ", ".join(f"{name} = {text}" for name, text in told))
        return _json(200, self._preferences(changes))

    def _preferences(self, names: Iterable[str]) -> dict[str, Any]:
        in_force = self.gate.engine.in_force
        return {"preferences": preferences_view(names, in_force), "warnings": in_force.warnings}

    # --- the hand on the switch -------------------------------------------------------------------------------------

    async def pause(self, request: Request) -> Response:
        return await self._switch(request, True)

    async def resume(self, request: Request) -> Response:
        return await self._switch(request, False)

    async def _switch(self, request: Request, paused: bool) -> Response:
        await self._owner_only(request)
        try:
            await self.trader.switch(paused)
        except JournalError as exc:
            self.trader.journal_problem = str(exc)
            raise BadRequest(503, "the journal cannot be written; nothing was changed") from exc
        log.info("trading is %s", "paused" if paused else "resumed")
        return _json(200, {"paused": paused})

    async def close_all(self, request: Request) -> Response:
        await self._owner_only(request)
        answers = await self.trader.close_all(CLOSE_ALL_SECONDS)
        results = [replies.webhook_reply(answer)[1] for answer in answers]
        return _json(200, {"closed": sum(result["success"] for result in results), "results": results})

    def _knows_secret(self, request: Request) -> bool:
        return self._secret.accepts(_bearer(request))

    async def _owner_only(self, request: Request) -> None:
        if self._knows_secret(request):
            return
        if request.method == "POST":
            await self._owners_body(request)
            return
        await self._refuse(request)

    async def _owners_body(self, request: Request) -> bytes:
        """With the owner's secret in it, or in the header."""
        body = await _read_body(request)
        if not self._knows_secret(request) and not self._secret.accepts(claimed_secrets(body)):
            await self._refuse(request)
        return body

    async def _refuse(self, request: Request) -> NoReturn:
        await self._unauthorised(request)
        raise BadRequest(401, "unauthorised: send the webhook secret")


def _balances(trader: Trader, account: Account) -> dict[str, Any] | None:
    dated = trader.market.balances(account)
    return replies.balances_view(dated.value if dated else None)


def _latencies(last: Iterable[float]) -> dict[str, Any]:
    """Of the last hundred orders: from the alert's receipt to the outcome."""
    waits = sorted(last)
    if not waits:
        return {"orders": 0}
    return {"orders": len(waits), "median": round(waits[len(waits) // 2], 1), "max": round(waits[-1], 1)}


async def _read_body(request: Request) -> bytes:
    """Raises BadRequest 413 or 408, and ClientDisconnect; never holds more than the limit in memory."""
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > MAX_BODY_BYTES:
                    raise BadRequest(413, f"too large: at most {MAX_BODY_BYTES} bytes")
    except TimeoutError as exc:
        raise BadRequest(408, f"the body did not arrive within {BODY_SECONDS:g} s") from exc
    return body


def _bearer(request: Request) -> list[str]:
    for name, value in request.scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            return [token.strip()] if scheme.lower() == "bearer" else []
    return []


def _is_dry_run(request: Request) -> bool:
    """Whoever writes dry_run means it: only a clear no places an order."""
    if not request.scope["query_string"]:
        return False
    return request.query_params.get("dry_run", "no").lower() not in ("0", "false", "no")


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= MAX_ROWS:
        raise BadRequest(400, f"limit must be a whole number from 1 to {MAX_ROWS}")
    return int(text)


def _since(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        # A plus sign in a query string arrives as a space.
        since = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        return since.replace(tzinfo=UTC) if since.tzinfo is None else since.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise BadRequest(400, "since must be an ISO time, e.g. 2026-01-31T12:00:00Z") from exc


class _Json(Response):
    """Its headers are always the same: encoded once."""

    ALWAYS = tuple((name.lower().encode(), value.encode()) for name, value in HEADERS.items())

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        length = (b"content-length", str(len(self.body)).encode())
        self.raw_headers = [length, (b"content-type", b"application/json"), *self.ALWAYS]


def _json(status: int, content: Mapping[str, Any]) -> Response:
    return _Json(replies.to_json(content), status)


def _error(text: str) -> dict[str, Any]:
    return {"success": False, "error": text}


async def _bad_request(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, BadRequest)
    return _json(exc.status, _error(str(exc)))


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return _json(exc.status_code, _error(str(exc.detail)))


async def _unforeseen(request: Request, exc: Exception) -> Response:
    """Nothing is echoed. A webhook may be sent again: what was decided is on the record and answers as a duplicate."""
    return _json(503, _error("unforeseen error; it is in the log"))


# --- the process ------------------------------------------------------------------------------------------------------


def listen(settings: Settings) -> socket.socket:
    """Raises OSError. Before anything is printed, so that nobody reads of a daemon that is not there."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    if hasattr(socket, "TCP_DEFER_ACCEPT"):
        # A connection is news when its request is there: one wake-up per alert instead of two.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    return listener


def serve(gate: Gatehouse, listener: socket.socket) -> None:
    """Runs until SIGTERM or Ctrl-C, then gives orders under way a few seconds to end."""
    # The server stops by itself on SIGTERM and then raises it once more; the exit code should say that all went well.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    # The access log would hold the secret of /webhook/{secret}; the proxy headers are read by ourselves, with care.
    config = uvicorn.Config(
        ShortCut(create_app(gate)),
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass


def main() -> int:
    os.umask(0o077)
    try:
        settings = load_settings()
        gate = open_gatehouse(settings)
        listener = listen(settings)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    except (FolderError, JournalError) as exc:
        print(f"cannot start:\n  - {exc}", file=sys.stderr)
        return 2
    except OSError as exc:
        print(f"cannot start:\n  - {_not_free(settings, exc)}", file=sys.stderr)
        return 2
    set_up_logging((*settings.secrets, gate.secret))
    if problem := gate.engine.in_force.problem:
        log.error("no entries: %s", problem)
    _spare_the_collector()
    print(startup_text(settings, gate.secret), flush=True)
    serve(gate, listener)
    return 0


def _spare_the_collector() -> None:
    """What was loaded at start stays for good, and an alert leaves hardly any cycles: looking so often costs more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def _not_free(settings: Settings, exc: OSError) -> str:
    where = f"HOST {settings.host} and PORT {settings.port}"
    return f"{where} cannot be listened on: {os.strerror(exc.errno or 0)}; choose another PORT, or stop what uses it"


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    # A worker thread may still wait for an exchange that does not answer; the interpreter would wait for it too.
    os._exit(code)
