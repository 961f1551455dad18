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
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from threading import Event, Thread
from typing import NamedTuple

import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from access import Access
from accountant import Accountant
from banner import login_line, startup_text
from config import Settings, SettingsError
from connections import Answer, connection_with
from dashboard import Dashboard, add_pages
from data_folder import FolderError
from door import Door
from journal import SIGNALS, TRADES, JournalError
from live import Live
from log_setup import end_logging, set_up_logging
from looking import Looking
from owner import Owner
from setting_sources import load_settings
from standing import Standing
from trader import Trader
from web import BadRequest, error_body, json_reply
from wiring import Gatehouse, open_gatehouse

log = logging.getLogger("gatehouse")

STOP_SECONDS = 4
TELL_SECONDS = 1
COLLECT_AFTER = (20_000, 10, 10)

# --- HTTP -------------------------------------------------------------------------------------------------------------


class Routes(NamedTuple):
    """The app, and what of it the server needs by name."""

    app: FastAPI
    door: Door
    looking: Looking
    dashboard: Dashboard


def create_app(gate: Gatehouse) -> Routes:
    """The routes over one wired Gatehouse; recovery begins when the server starts."""
    signals, trades, answered = gate.csvs[SIGNALS], gate.csvs[TRADES], gate.metrics.answered
    trader = Trader(gate.engine, gate.brokers, signals, trades, gate.clock, gate.patience, gate.tell, answered)
    accountant = Accountant(gate.engine, trader.market, tuple(gate.brokers), gate.clock, gate.patience)
    access, standing = Access(gate, _show_link(gate.settings)), Standing(gate, trader)
    door, owner = Door(gate, trader, access), Owner(gate, trader, access)
    looking = Looking(gate, trader, access, standing)
    dashboard = Dashboard(gate, access, standing, looking, door, trader.market.refresh_soon)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(Lookers(thread_name_prefix="looker"))
        if gate.flattrade:
            gate.flattrade.on_change = trader.tell_owner
        await trader.start()
        if gate.notice:
            trader.tell_owner(gate.notice)
        trader.beside(looking.trades.follow)
        trader.beside(partial(accountant.keep, trader.ready))
        if gate.notifier:
            gate.notifier.start(standing.look)
        yield
        looking.trades.stop()
        await trader.stop(STOP_SECONDS)
        if gate.notifier:
            gate.notifier.stop(TELL_SECONDS)

    # A redirect to the path without its last slash would go wherever the sender's Host header says.
    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_exception_handler(BadRequest, _bad_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unforeseen)

    def route(path: str, method: str, handle: Callable[[Request], Awaitable[Response]]) -> None:
        # Starlette's own route: nothing here is for FastAPI to parse, and an alert is in a hurry.
        app.router.add_route(path, handle, methods=[method])

    route("/webhook", "POST", door.webhook)
    route("/webhook/{path_secret}", "POST", door.webhook)
    route("/health", "GET", looking.health)
    route("/status", "GET", looking.status)
    route("/metrics", "GET", looking.metrics)
    route("/executions", "GET", looking.executions)
    route("/positions", "GET", looking.positions)
    route("/account/summary", "GET", looking.account_summary)
    route("/performance", "GET", looking.performance)
    for file in ("signals.csv", "trades.csv", "signals.xlsx", "trades.xlsx"):
        route(f"/logs/{file}", "GET", looking.download)
    route("/preferences/current", "GET", owner.preferences)
    route("/preferences/reset", "POST", owner.reset_preferences)
    route("/preferences/{name}", "POST", owner.change_preferences)
    route("/pause", "POST", owner.pause)
    route("/resume", "POST", owner.resume)
    route("/close-all", "POST", owner.close_all)
    route("/orders/outcome", "POST", owner.order_outcome)
    route("/notifications/test", "POST", owner.test_notifications)
    add_pages(app, dashboard)
    return Routes(app, door, looking, dashboard)


class Lookers(ThreadPoolExecutor):
    """Threads for who looks at something. A workbook may take minutes: the loop, which would wait, must not."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


class Alerts:
    """An alert goes straight to the door, everything else through FastAPI, whose layers an alert makes no use of.

    What they cost, and what that is of an alert's way: docs/performance.md.
    """

    def __init__(self, door: Door) -> None:
        self._door = door

    def __call__(self, scope: Scope) -> Answer | None:
        path = scope["path"] if scope["method"] == "POST" else ""
        if path != "/webhook" and not _PATH_WITH_SECRET.fullmatch(path):
            return None
        scope["path_params"] = {"path_secret": path.removeprefix("/webhook").removeprefix("/")}
        return self._answer

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._door.webhook(request)
        except ClientDisconnect:
            raise
        except BadRequest as exc:
            return await _bad_request(request, exc)
        except Exception as exc:
            log.exception("unforeseen")
            return await _unforeseen(request, exc)


# A secret may have slashes in it, and what stands in an address as %2F is one by now.
_PATH_WITH_SECRET = re.compile("/webhook/.+", re.DOTALL)


async def _bad_request(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, BadRequest)
    return json_reply(exc.status, error_body(str(exc)))


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return json_reply(exc.status_code, error_body(str(exc.detail)))


async def _unforeseen(request: Request, exc: Exception) -> Response:
    """Nothing is echoed. A webhook may be sent again: what was decided is on the record and answers as a duplicate."""
    return json_reply(503, error_body("unforeseen error; it is in the log"))


# --- the process ------------------------------------------------------------------------------------------------------


def listen(settings: Settings) -> socket.socket:
    """Raises OSError. Before anything is printed, so that nobody reads of a daemon that is not there."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    if hasattr(socket, "TCP_DEFER_ACCEPT"):
        # A connection is news when its request is there: one wake-up per alert instead of two.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    return listener


class Server(uvicorn.Server):
    """Lets the viewers of the page go first: their streams do not end by themselves, and the stop would wait."""

    def __init__(self, config: uvicorn.Config, live: Live, told_to_stop: Event) -> None:
        super().__init__(config)
        self._live = live
        self._told_to_stop = told_to_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.should_exit = self.should_exit or self._told_to_stop.is_set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._live.end()
        await super().shutdown(sockets)


def serve(gate: Gatehouse, listener: socket.socket, told_to_stop: Event) -> None:
    """Runs until SIGTERM or Ctrl-C, then gives orders under way a few seconds to end."""
    # The access log would hold the secret of /webhook/{secret}; the proxy headers are read by ourselves, with care.
    routes = create_app(gate)
    config = uvicorn.Config(
        routes.app,
        loop="uvloop",
        http=connection_with(Alerts(routes.door)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    try:
        Server(config, routes.dashboard.live, told_to_stop).run(sockets=[listener])
    except KeyboardInterrupt:
        pass


def main() -> int:
    os.umask(0o077)
    try:
        settings = load_settings()
        gate = open_gatehouse(settings)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    except (FolderError, JournalError, OSError) as exc:
        print(f"cannot start:\n  - {exc}", file=sys.stderr)
        return 2
    try:
        listener = listen(settings)
    except OSError as exc:
        print(f"cannot start:\n  - {_not_free(settings, exc)}", file=sys.stderr)
        return 2
    set_up_logging((*settings.secrets, gate.secret))
    if problem := gate.engine.in_force.problem:
        log.error("no entries: %s", problem)
    _spare_the_collector()
    # The server stops by itself on SIGTERM and then raises it once more; the exit code should say that all went well.
    # One that comes before the server listens for it is kept for it.
    told_to_stop = Event()
    signal.signal(signal.SIGTERM, lambda number, frame: told_to_stop.set())
    # A terminal that is closed breaks off no order, either; under `nohup` it is nothing to us.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))
    _say(startup_text(settings, gate.secret, gate.sessions.link_token))
    serve(gate, listener, told_to_stop)
    return 0


def _show_link(settings: Settings) -> Callable[[str], None]:
    """Where it was shown at the start, and nowhere else: it is as good as a password."""
    return lambda token: _say(login_line(settings, token))


def _say(text: str) -> None:
    """On a thread, as a pipe or a terminal that takes nothing more would keep everybody waiting."""
    Thread(target=_print, args=(text,), daemon=True).start()


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:
        pass  # a full disk, or nobody is there any more: no reason not to trade


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
    end_logging()
    # A worker thread may still wait for an exchange that does not answer; the interpreter would wait for it too.
    os._exit(code)
