"""The page: what it does, what it earned, and a hand on the switch. Shows and asks; access.py says who may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import cache
from mimetypes import guess_type
from typing import Any
from urllib.parse import parse_qs, quote

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException

from access import Access
from banner import ALERT, PLACEHOLDER, alert_message
from broker import BrokerError
from door import Door
from history import Wanted
from journal import JournalError
from live import Fragments, Live
from looking import Looking
from models import Account, DecisionRecord
from overview import decision_view, mode_of, overview, trade_view
from page_forms import (
    PAGE_ROWS,
    SIGNALS_TABLE,
    TEST_FIELDS,
    TRADES_TABLE,
    Filter,
    Records,
    Table,
    read_filter,
    rows_view,
    settings_view,
)
from results import results_view
from standing import Standing
from templating import STATIC, render
from web import HEADERS, BadRequest, json_reply, read_body
from wiring import FLATTRADE, Gatehouse

PAGE_HEADERS = HEADERS | {
    # Only what this daemon itself serves; the small pictures of Bootstrap stand in its style sheet as data. Scripts
    # set styles on elements, which this allows.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    # With no-referrer, browsers send a form with the origin "null":
    # https://fetch.spec.whatwg.org/#append-a-request-origin-header
    "Referrer-Policy": "same-origin",
}
TABS = (
    ("/ui", "speedometer2", "Overview"),
    ("/ui/signals", "broadcast", "Signals"),
    ("/ui/trades", "arrow-left-right", "Trades"),
    ("/ui/performance", "graph-up", "Results"),
    ("/test", "clipboard-check", "Test"),
    ("/ui/settings", "sliders", "Settings"),
)
Page = Callable[[Request], Awaitable[Response]]
LONGEST_CODE = 512
FRAGMENTS = ("switch", "alarms", "positions", "decisions", "limits", "accounts", "orders", "records")
LATEST = 12


class Dashboard:
    """The pages of one daemon."""

    def __init__(
        self,
        gate: Gatehouse,
        access: Access,
        standing: Standing,
        looking: Looking,
        door: Door,
        look_again: Callable[[Account], None],
    ) -> None:
        """`look_again` has an account asked anew."""
        self.login = access.login
        self._gate = gate
        self._standing = standing
        self._looking = looking
        self._door = door
        self._look_again = look_again
        self._latest: tuple[int, list[dict[str, Any]]] = (-1, [])
        self.live = Live(self._fragments)

    # --- in and out -------------------------------------------------------------------------------------------------

    async def login_page(self, request: Request) -> Response:
        if self.login.may_look(request):
            return _to(_safe(request.query_params.get("next")))
        return await self._login_page(request, 200, "", request.query_params.get("token", ""))

    async def enter(self, request: Request) -> Response:
        form = _form(await read_body(request))
        try:
            cookie = await self.login.enter(request, form.get("password", ""), form.get("token", ""))
        except BadRequest as exc:
            return await self._login_page(request, exc.status, str(exc), "", form.get("next"))
        response = _to(_safe(form.get("next")))
        self.login.keep(request, response, cookie)
        return response

    async def leave(self, request: Request) -> Response:
        form = _form(await read_body(request))
        if not self.login.is_own_form(request, form.get("token", "")):
            raise BadRequest(403, "this did not come from the page")
        response = _to("/login")
        self.login.leave(request, response)
        return response

    # --- FlatTrade's login of the day -------------------------------------------------------------------------------

    async def flattrade_login(self, request: Request) -> Response:
        """Off to FlatTrade, whose page asks for the password and the second factor.

        By a link: after a form, browsers hold the form's policy against where it is sent on to.
        """
        login = self._gate.flattrade
        if login is None:
            return await _problem(404, "FlatTrade is not configured", "Set FLATTRADE_API_KEY and what belongs to it.")
        return _to(login.begin())

    async def flattrade_back(self, request: Request) -> Response:
        """Where FlatTrade sends the browser. It comes from another site, so the login's cookie is not shown here.

        Therefore nothing happens yet: this page, which tells nothing, asks for one more click, and that one is ours.
        """
        code = request.query_params.get("code") or request.query_params.get("request_code") or ""
        return await _html("flattrade.html", 200, code=code[:LONGEST_CODE], token="")

    async def flattrade_finish(self, request: Request) -> Response:
        """Only of who is logged in, from our own page, after a login that was begun here."""
        form, login = _form(await read_body(request)), self._gate.flattrade
        if not self.login.may_look(request) or not self.login.comes_from_here(request):
            return await _problem(401, "Log in here first", "Then begin again at /flattrade/login.")
        if login is None:
            return await _problem(404, "FlatTrade is not configured", "Set FLATTRADE_API_KEY and what belongs to it.")
        try:
            await asyncio.to_thread(login.finish, form.get("code", ""))
        except BrokerError as exc:
            return await _problem(502, "FlatTrade did not log in", str(exc))
        self._look_again(FLATTRADE)
        return _to("/ui")

    async def _login_page(
        self, request: Request, status: int, problem: str, link: str, next_page: str | None = None
    ) -> Response:
        return await _html(
            "login.html",
            status,
            problem=problem,
            link=link,
            next=_safe(next_page or request.query_params.get("next")),
            has_password=self._gate.sessions.has_password,
            token="",
        )

    # --- pages ------------------------------------------------------------------------------------------------------

    async def overview(self, request: Request) -> Response:
        return await self._page(request, "overview.html", "/ui", s=await self._state())

    async def signals(self, request: Request) -> Response:
        return await self._rows(request, SIGNALS_TABLE)

    async def trades(self, request: Request) -> Response:
        return await self._rows(request, TRADES_TABLE)

    async def performance(self, request: Request) -> Response:
        found, brokers = await self._looking.results(Wanted())
        return await self._page(request, "performance.html", "/ui/performance", **results_view(found, brokers))

    async def test(self, request: Request) -> Response:
        message = alert_message(ALERT, PLACEHOLDER)
        return await self._page(request, "test.html", "/test", message=message, fields=TEST_FIELDS)

    async def settings(self, request: Request) -> Response:
        values = settings_view(self._gate.engine.in_force, self._standing.notifications())
        return await self._page(request, "settings.html", "/ui/settings", **values)

    async def _page(
        self, request: Request, template: str, here: str, s: Mapping[str, Any] | None = None, **values: object
    ) -> Response:
        """`s`: what is live on the page."""
        session = self.login.session(request) or ""
        common = {
            "here": here,
            "tabs": TABS,
            "token": self._gate.sessions.token(session),
            "mode": mode_of({name: self._gate.settings.mode_of(name) for name in self._gate.settings.brokers}),
            "started_at": self._gate.started_at,
            "s": {"paused": self._gate.engine.books.paused} | dict(s or {}),
        }
        return await _html(template, 200, **(common | values))

    async def _rows(self, request: Request, table: Table) -> Response:
        # Whoever pasted the secret into a wrong place need not see it again in a link.
        query = {name: text for name, text in request.query_params.items() if self._gate.secret not in text}
        asked = read_filter(query)
        history = self._gate.journal.history
        names = await asyncio.to_thread(lambda: (history.symbols(), history.strategies()))
        found = await asyncio.to_thread(self._records, table, asked) if not asked.problem else Records([], None)
        values = rows_view(table, asked, found, *names)
        return await self._page(request, "rows.html", table.path, **values)

    def _records(self, table: Table, asked: Filter) -> Records:
        """One page of them, and where the next one begins; on a worker thread. Raises JournalError."""
        history = self._gate.journal.history
        if table is TRADES_TABLE:
            orders = history.orders(asked.wanted, PAGE_ROWS + 1, asked.before)
            rows = [trade_view(found.value.order, found.value.at) for found in orders[:PAGE_ROWS]]
            return Records(rows, orders[PAGE_ROWS - 1].number if len(orders) > PAGE_ROWS else None)
        decisions = history.decisions(asked.wanted, PAGE_ROWS + 1, asked.before)
        rows = [self._decision(found.value) for found in decisions[:PAGE_ROWS]]
        return Records(rows, decisions[PAGE_ROWS - 1].number if len(decisions) > PAGE_ROWS else None)

    def _decision(self, record: DecisionRecord) -> dict[str, Any]:
        return decision_view(record, self._gate.journal.last_order(record.signal_id) if record.order else None)

    # --- live -------------------------------------------------------------------------------------------------------

    async def _state(self) -> dict[str, Any]:
        return overview(self._standing.state(), await asyncio.to_thread(self._latest_decisions))

    def _latest_decisions(self) -> list[dict[str, Any]]:
        """Read again only when the journal has grown."""
        number = self._gate.journal.last_event
        known, found = self._latest
        if known != number:
            found = [self._decision(each.value) for each in self._gate.journal.history.decisions(Wanted(), LATEST)]
            self._latest = (number, found)
        return found

    async def _fragments(self) -> Fragments:
        state = await self._state()
        return await asyncio.to_thread(lambda: {name: render(f"_{name}.html", s=state) for name in FRAGMENTS})

    # --- what is asked from the page ----------------------------------------------------------------------------------

    async def run_test(self, request: Request) -> Response:
        asked = _json(await self._changing(request))
        text = asked.get("alert")
        if not isinstance(text, str):
            raise BadRequest(400, "alert must be the text of an alert")
        return await self._door.owners_alert(text.encode("utf-8", "replace"), is_dry_run=asked.get("send") is not True)

    async def show_message(self, request: Request) -> Response:
        """With the secret: asked for by a click, and never part of a page."""
        await self._changing(request)
        return json_reply(200, {"message": alert_message(ALERT, self._gate.secret)})

    async def _changing(self, request: Request) -> bytes:
        body = await read_body(request)
        if not self.login.may_change(request):
            raise BadRequest(401, "log in first")
        return body


# --- routes -----------------------------------------------------------------------------------------------------------


def add_pages(app: FastAPI, dashboard: Dashboard) -> None:
    def page(path: str, show: Page) -> None:
        async def endpoint(request: Request) -> Response:
            if not dashboard.login.may_look(request):
                return _to(f"/login?next={quote(request.url.path)}")
            return await _or_problem(lambda: show(request))

        app.router.add_route(path, endpoint, methods=["GET"])

    page("/", dashboard.overview)
    page("/ui", dashboard.overview)
    page("/ui/signals", dashboard.signals)
    page("/ui/trades", dashboard.trades)
    page("/ui/performance", dashboard.performance)
    page("/ui/settings", dashboard.settings)
    page("/test", dashboard.test)
    page("/flattrade/login", dashboard.flattrade_login)
    app.router.add_route("/flattrade/callback", dashboard.flattrade_back, methods=["GET"])
    app.router.add_route("/flattrade/callback", dashboard.flattrade_finish, methods=["POST"])
    app.router.add_route("/login", dashboard.login_page, methods=["GET"])
    app.router.add_route("/login", dashboard.enter, methods=["POST"])
    app.router.add_route("/logout", dashboard.leave, methods=["POST"])
    app.router.add_route("/test/run", dashboard.run_test, methods=["POST"])
    app.router.add_route("/test/secret", dashboard.show_message, methods=["POST"])
    _add_events(app, dashboard)
    app.router.add_route("/static/{path:path}", _static, methods=["GET"])


def _add_events(app: FastAPI, dashboard: Dashboard) -> None:
    # Before the stream begins: once it has, its status is sent.
    async def viewer(request: Request) -> Callable[[], bool]:
        if not dashboard.login.may_look(request):
            raise BadRequest(401, "log in first")
        if dashboard.live.is_full:
            raise BadRequest(503, "too many pages are open")
        return lambda: dashboard.login.may_look(request)

    if_allowed = Depends(viewer)

    @app.get("/events", response_class=EventSourceResponse)
    async def events(may_look: Callable[[], bool] = if_allowed) -> AsyncIterator[ServerSentEvent]:
        async for news in dashboard.live.watch(may_look):
            yield ServerSentEvent(event="fragments" if news else "alive", data=news)
        if not may_look():
            yield ServerSentEvent(event="over", data={})


async def _static(request: Request) -> Response:
    """Public libraries and ours, which hold nothing of the owner. An address with its digest never changes.

    From memory: an open file and a thread for each who asks would be more than there are, for anybody who asks often.
    """
    found = _static_files().get(request.path_params["path"])
    if found is None:
        raise HTTPException(404)
    content, media_type = found
    headers = PAGE_HEADERS | {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(content, media_type=media_type, headers=headers)


@cache
def _static_files() -> Mapping[str, tuple[bytes, str]]:
    """What there is, by its path, with its media type."""
    files = [path for path in STATIC.rglob("*") if path.is_file()]
    return {
        path.relative_to(STATIC).as_posix(): (path.read_bytes(), guess_type(path.name)[0] or "text/plain")
        for path in files
    }


async def _or_problem(show: Callable[[], Awaitable[Response]]) -> Response:
    try:
        return await show()
    except JournalError as exc:
        return await _problem(503, "The records cannot be read", str(exc))


async def _problem(status: int, heading: str, text: str) -> Response:
    return await _html("problem.html", status, heading=heading, text=text, token="")


async def _html(template: str, status: int, **values: object) -> Response:
    """Rendered on a thread: an alert that comes meanwhile does not wait for it."""
    text = await asyncio.to_thread(render, template, **values)
    return HTMLResponse(text, status, headers=PAGE_HEADERS)


def _to(path: str) -> Response:
    return RedirectResponse(path, 303, headers=PAGE_HEADERS)


def _safe(path: str | None) -> str:
    """Only a page of ours: an address of somebody else's is not where a login leads to."""
    return path if path in {tab for tab, *_ in TABS} else "/ui"


def _form(body: bytes) -> dict[str, str]:
    """The first value of each field. Raises BadRequest."""
    try:
        fields = parse_qs(body.decode(), max_num_fields=10)
    except ValueError as exc:
        raise BadRequest(400, "not a form") from exc
    return {name: values[0] for name, values in fields.items()}


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise BadRequest(400, "not JSON") from exc
    if not isinstance(found, dict):
        raise BadRequest(400, "not a JSON object")
    return found
