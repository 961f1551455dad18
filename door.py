"""Every request passes here: who is it, what is wanted, what is the answer. Decides nothing about orders."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NoReturn

from fastapi import Request, Response

import replies
from alert_words import squeeze
from config import Settings
from guard import Brake, SecretGuard, address_is_allowed, client_address
from history import Wanted
from journal import JournalError
from login import Login
from metrics import CONTENT_TYPE
from models import DOLLARS, ZERO, Account, Signal
from notifier import Look
from performance import Performance
from preferences import GROUPS, NAMES, TARGETS, WORDS, PreferenceError, preferences_view, read_changes
from risk import Alert
from scrape import gauges
from signals import AlertError, alert_key, claimed_secrets, json_fields, parse_alert
from trade_history import TradeHistory
from trader import Trader
from web import HEADERS, BadRequest, bearer, error_body, json_reply, read_body
from wiring import FLATTRADE, Gatehouse

log = logging.getLogger("gatehouse")
log_of_strangers = logging.getLogger("gatehouse.strangers")

# TradingView hangs up after 3 s: https://www.tradingview.com/support/solutions/43000529348/
REPLY_SECONDS = 2.1
CLOSE_ALL_SECONDS = 8.0
TEST_SECONDS = 5.0
SLOWED_SECONDS = 1.0
MAX_SLOWED = 100
MAX_ROWS = 1_000
# Behind a proxy it may be anything that the sender wrote; it is remembered and told.
LONGEST_ADDRESS = 64
LONGEST_NAME = 40
# Only these: other parameters of an alert's address are let through, senders and proxies add their own.
LIKE_DRY_RUN = frozenset(
    ("dry", "dryrun", "isdryrun", "test", "istest", "testing", "testmode", "simulate", "simulation", "preview")
)


def at_flattrade(signal: Signal) -> Signal:
    """A share has one name in the books: that of NSE without its usual series, or BSE: before it.

    Of the exchange that the chart comes from only BSE routes: an order on NSE would be another market's.
    """
    symbol = signal.symbol.removesuffix("-EQ")
    return replace(signal, symbol=f"BSE:{symbol}" if signal.exchange == "BSE" else symbol)


class Door:
    """Every request passes here: who is it, what is wanted, what is the answer."""

    def __init__(self, gate: Gatehouse, trader: Trader, show_link: Callable[[str], None]) -> None:
        """`show_link` gets the token of the next one-time login link, where there is no password."""
        self.gate = gate
        self.trader = trader
        self.trades = TradeHistory(gate.journal.history)
        self._secret = SecretGuard(gate.secret)
        self._default_broker = gate.settings.default_broker_name
        self.login = Login(gate.settings, gate.sessions, self._address, show_link, gate.metrics.refused)
        self._brake = Brake()
        self._slowed = 0

    # --- the alert --------------------------------------------------------------------------------------------------

    async def webhook(self, request: Request) -> Response:
        give_up_at, received_at = asyncio.get_running_loop().time() + REPLY_SECONDS, self.gate.clock()
        body = await read_body(request)
        fields = json_fields(body)
        if not self._may_alert(request, body, fields):
            return await self._unauthorised(request)
        is_dry_run = _is_dry_run(request)
        unclear = None if is_dry_run else _looks_like_dry_run(request, self.gate.secret)
        return await self._take(body, fields, received_at, give_up_at, is_dry_run=is_dry_run, unclear=unclear)

    async def owners_alert(self, text: bytes, *, is_dry_run: bool) -> Response:
        """An alert that the owner wrote on the page: as if TradingView had sent it."""
        give_up_at = asyncio.get_running_loop().time() + REPLY_SECONDS
        return await self._take(text, json_fields(text), self.gate.clock(), give_up_at, is_dry_run=is_dry_run)

    async def _take(
        self,
        body: bytes,
        fields: Any,
        received_at: datetime,
        give_up_at: float,
        *,
        is_dry_run: bool,
        unclear: AlertError | None = None,
    ) -> Response:
        key = alert_key(body, self.gate.secret)
        try:
            if unclear:
                raise unclear
            alert = self._alert(parse_alert(body, self.gate.secret, fields), key, received_at)
        except AlertError as exc:
            if is_dry_run:
                return json_reply(400, replies.dry_run_invalid(str(exc), exc.field))
            return await self._invalid(key, exc, received_at)
        if is_dry_run:
            preview = await self.trader.dry_run(alert)
            return json_reply(200, replies.dry_run_reply(alert.signal, alert.broker, preview))
        left = max(0.0, give_up_at - asyncio.get_running_loop().time())
        answer = await self.trader.handle(alert, left)
        return json_reply(*replies.webhook_reply(answer))

    def _alert(self, signal: Signal, key: str, received_at: datetime) -> Alert:
        broker, on = signal.broker or self._default_broker, self.gate.brokers
        signal = at_flattrade(signal) if broker == FLATTRADE.broker else signal
        account = self.gate.account_for(broker, signal.market)
        no_broker = no_market = ""
        if account not in on:
            names = dict.fromkeys(known.broker for known in on)
            if broker == FLATTRADE.broker and broker in names:
                no_market = f"{signal.symbol} means {account.market}; {broker} trades shares only"
            elif broker in names:
                no_market = f"{signal.symbol} means {account.market}, which is off at {broker}; see BINANCE_MARKET"
            else:
                no_broker = f"Broker not configured: {broker}; configured: {', '.join(names)}"
        return Alert(signal, key, account, received_at, broker_problem=no_broker, market_problem=no_market)

    async def _invalid(self, key: str, exc: AlertError, received_at: datetime) -> Response:
        try:
            record = await self.trader.refuse_invalid(key, str(exc), exc.field, received_at)
        except JournalError as error:
            self.gate.engine.journal_problem = str(error)
            return json_reply(503, error_body("the journal cannot be written; nothing was placed"))
        return json_reply(400, replies.invalid_reply(record, exc.field))

    def _may_alert(self, request: Request, body: bytes, fields: Any) -> bool:
        allowed = self.gate.settings.allowed_ips
        if allowed and not address_is_allowed(self._address(request), allowed):
            return False
        if self._secret.accepts([*bearer(request), request.path_params.get("path_secret", "")]):
            return True
        return self._secret.accepts(claimed_secrets(body, fields))

    async def _unauthorised(self, request: Request) -> Response:
        """One answer for every failure; who keeps guessing waits for it, as long as that costs us nothing."""
        self.gate.metrics.refused()
        address = self._address(request)[:LONGEST_ADDRESS]
        failures = self._brake.failed(address)
        if failures == 1 or failures % 1000 == 0:
            log_of_strangers.warning("wrong secret or address: %s, %d in this minute", address, failures)
        if self._brake.is_on(failures) and self._slowed < MAX_SLOWED:
            self._slowed += 1
            try:
                await asyncio.sleep(SLOWED_SECONDS)
            finally:
                self._slowed -= 1
        return json_reply(401, error_body("unauthorised: send the webhook secret"))

    def _address(self, request: Request) -> str:
        peer = request.client.host if request.client else ""
        # A proxy may add a line of its own below the one that the sender wrote.
        forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
        return client_address(peer, forwarded, self.gate.settings.trusted_proxy_hops)

    # --- looking ----------------------------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        """Never waits for a thread: it answers whatever the disk and the exchange do."""
        if problems := self._problems():
            return json_reply(503, {"status": "unavailable", "problems": problems})
        return json_reply(200, {"status": "ok"})

    def _problems(self) -> list[str]:
        problem = self.gate.engine.journal_problem
        recovering = [] if self.trader.ready.is_set() else ["recovery is not finished"]
        return [problem, *recovering] if problem else recovering

    async def status(self, request: Request) -> Response:
        now = self.gate.clock()
        thin = self._thin(now)
        if not self._knows_secret(request) and not self.login.may_look(request):
            return json_reply(200, thin)
        return json_reply(200, thin | self._details())

    def state(self) -> dict[str, Any]:
        """All that the owner is told of it, for the page."""
        more = {"accounts": self._accounts(), "problems": self._problems()}
        return self._thin(self.gate.clock()) | self._details() | more

    def _thin(self, now: datetime) -> dict[str, Any]:
        gate, default = self.gate, self.gate.settings.default_broker_name
        books = gate.engine.books.as_of(now)
        return {
            "status": "unavailable" if self._problems() else "ok",
            "mode": gate.settings.mode_of(default),
            "default_broker": default,
            "uptime_seconds": round((now - gate.started_at).total_seconds(), 1),
            "paused": books.paused,
        } | replies.counts(books, gate.engine.limits)

    def _details(self) -> dict[str, Any]:
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
            "journal_problem": self.gate.engine.journal_problem,
            "halted": self.gate.engine.halted or self.gate.engine.in_force.problem,
            "drift": self.trader.drift,
            "notices": [{"at": at, "text": text} for at, text in self.trader.notices],
            "latencies_ms": _latencies(self.trader.latencies_ms),
            "warnings": self.gate.engine.in_force.warnings,
            "notifications": self.notifications(),
        }

    async def metrics(self, request: Request) -> Response:
        await self._owner_only(request)
        seen = gauges(self.gate, self.trader)
        # To write it all down takes longer than an alert may wait.
        text = await asyncio.to_thread(self.gate.metrics.text, seen)
        return Response(text, headers=HEADERS | {"Content-Type": CONTENT_TYPE})

    async def executions(self, request: Request) -> Response:
        await self._owner_only(request)
        _only(request, "limit", "symbol", "strategy", "since")
        query = request.query_params
        found = await asyncio.to_thread(
            self.gate.journal.executions,
            _limit(query.get("limit", "100")),
            query.get("symbol"),
            query.get("strategy"),
            _moment("since", query.get("since")),
        )
        return json_reply(200, {"executions": [replies.execution_view(execution) for execution in found]})

    async def positions(self, request: Request) -> Response:
        await self._owner_only(request)
        _only(request, "symbol")
        return json_reply(200, {"positions": self._positions(request.query_params.get("symbol"))})

    def _positions(self, symbol: str | None) -> list[dict[str, Any]]:
        open_ones = (p for p in self.gate.engine.books.positions.values() if p.is_open and symbol in (None, p.symbol))
        return [replies.position_view(p, self.trader.market.price(p.instrument)) for p in open_ones]

    async def account_summary(self, request: Request) -> Response:
        await self._owner_only(request)
        books = self.gate.engine.books.as_of(self.gate.clock())
        dollars = (p for p in books.positions.values() if p.rules.quote_asset in DOLLARS)
        realized = sum((p.realized_pnl for p in dollars), ZERO)
        return json_reply(
            200, {"accounts": self._accounts(), "realized_pnl": realized, "realized_pnl_today": books.realized_today}
        )

    def _accounts(self) -> list[dict[str, Any]]:
        accounts = []
        for account in self.gate.brokers:
            dated = self.trader.market.balances(account)
            held = [p for p in self._positions(None) if (p["broker"], p["market"]) == account]
            mode, label = self.gate.settings.mode_of(account.broker), self.gate.label(account)
            accounts.append(replies.account_view(label, mode, dated.value if dated else None, held))
        return accounts

    def notifications(self) -> dict[str, Any] | None:
        """What became of the messages so far; None where there are none to be sent."""
        return self.gate.notifier.state if self.gate.notifier else None

    async def performance(self, request: Request) -> Response:
        await self._owner_only(request)
        query = request.query_params
        wanted = Wanted(
            symbol=query.get("symbol"),
            strategy=query.get("strategy"),
            since=_moment("since", query.get("since")),
            until=_moment("until", query.get("until")),
        )
        found, brokers = await self.results(wanted, query.get("broker"))
        return json_reply(200, {"brokers": brokers} | replies.performance_view(found))

    async def results(self, wanted: Wanted, broker: str | None = None) -> tuple[Performance, Sequence[str]]:
        """How the trading went, and of which brokers. Raises JournalError."""
        brokers = (broker,) if broker is not None else _most_real(self.gate.settings)
        return await asyncio.to_thread(self.trades.performance, wanted, brokers), brokers

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
        return json_reply(200, self._preferences(NAMES) | {"groups": GROUPS})

    async def change_preferences(self, request: Request) -> Response:
        body = await self._owners_body(request)
        target = request.path_params["name"].lower()
        if target not in TARGETS:
            names = [*TARGETS, "reset"]
            return json_reply(404, error_body(f"no such preference; there are {', '.join(names)}") | {"names": names})
        try:
            return await self._change_preferences(request, read_changes(target, body, self.gate.secret))
        except PreferenceError as exc:
            return json_reply(400, error_body(str(exc)) | {"field": exc.field})

    async def reset_preferences(self, request: Request) -> Response:
        await self._owner_only(request)
        # Also those that a later version may have left.
        return await self._change_preferences(request, dict.fromkeys([*NAMES, *self.gate.engine.books.preferences]))

    async def _change_preferences(self, request: Request, changes: Mapping[str, str | None]) -> Response:
        """Raises PreferenceError."""
        by = self._who(request)
        try:
            await asyncio.to_thread(self.gate.engine.prefer, changes, self.gate.clock(), by)
        except JournalError as exc:
            self.gate.engine.journal_problem = str(exc)
            raise BadRequest(503, "the journal cannot be written; nothing was changed") from exc
        told = ((name, "default" if text is None else text or WORDS[name]) for name, text in changes.items())
        log.info("preferences, by %s: %s", by, ", ".join(f"{name} = {text}" for name, text in told))
        return json_reply(200, self._preferences(changes))

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
            self.gate.engine.journal_problem = str(exc)
            raise BadRequest(503, "the journal cannot be written; nothing was changed") from exc
        log.info("trading is %s", "paused" if paused else "resumed")
        return json_reply(200, {"paused": paused})

    async def close_all(self, request: Request) -> Response:
        await self._owner_only(request)
        # `?symbol=BTCUSDT` would close everything else, too.
        _only(request)
        answers = await self.trader.close_all(CLOSE_ALL_SECONDS)
        results = [replies.webhook_reply(answer)[1] for answer in answers]
        return json_reply(200, {"closed": sum(result["success"] for result in results), "results": results})

    def _who(self, request: Request) -> str:
        """Of one who may: how he showed it, and from where."""
        shown = "login" if self.login.may_change(request) else "secret"
        return f"{shown} from {self._address(request)[:LONGEST_ADDRESS]}"

    async def test_notifications(self, request: Request) -> Response:
        await self._owner_only(request)
        if self.gate.notifier is None:
            raise BadRequest(400, "there is nowhere to send messages to: set NOTIFY_URLS and start again")
        problems = await self.gate.notifier.test(TEST_SECONDS)
        services = [{"service": name, "taken": not why, "problem": why or None} for name, why in problems.items()]
        return json_reply(200, {"success": not any(problems.values()), "services": services})

    def _knows_secret(self, request: Request) -> bool:
        return self._secret.accepts(bearer(request))

    async def _owner_only(self, request: Request) -> None:
        if self._knows_secret(request):
            return
        if request.method == "POST":
            await self._owners_body(request)
        elif not self.login.may_look(request):
            await self._refuse(request)

    async def _owners_body(self, request: Request) -> bytes:
        """With the owner's secret in it, or in the header, or from the page of whoever is logged in."""
        body = await read_body(request)
        with_secret = self._knows_secret(request) or self._secret.accepts(claimed_secrets(body))
        if not with_secret and not self.login.may_change(request):
            await self._refuse(request)
        return body

    async def _refuse(self, request: Request) -> NoReturn:
        await self._unauthorised(request)
        raise BadRequest(401, "unauthorised: send the webhook secret")


def look(gate: Gatehouse, trader: Trader) -> Look:
    """What the owner is told of as long as it lasts, and what he holds."""
    engine = gate.engine
    problems = {"Halted": engine.halted or engine.in_force.problem, "Journal": engine.journal_problem}
    drift = [", ".join(f"{name} {value}" for name, value in row.items() if value) for row in trader.drift]
    return Look(problems, drift, [position for position in engine.books.positions.values() if position.is_open])


def _balances(trader: Trader, account: Account) -> dict[str, Any] | None:
    dated = trader.market.balances(account)
    return replies.balances_view(dated.value if dated else None)


def _latencies(last: Iterable[float]) -> dict[str, Any]:
    """Of the last hundred orders: from the alert's receipt to the outcome."""
    waits = sorted(last)
    if not waits:
        return {"orders": 0}
    return {"orders": len(waits), "median": round(waits[len(waits) // 2], 1), "max": round(waits[-1], 1)}


def _is_dry_run(request: Request) -> bool:
    """Whoever writes dry_run means it: only a clear no places an order."""
    if not request.scope["query_string"]:
        return False
    return request.query_params.get("dry_run", "no").lower() not in ("0", "false", "no")


def _looks_like_dry_run(request: Request, secret: str) -> AlertError | None:
    """Who writes one of these wants to see what would be, and must not buy."""
    if not request.scope["query_string"]:
        return None
    for name in request.query_params:
        if squeeze(name) in LIKE_DRY_RUN and name != "dry_run":
            return AlertError(name, "dry_run, the one name that keeps an alert from trading", name).hiding((secret,))
    return None


def _only(request: Request, *names: str) -> None:
    """What is not read would choose nothing, in silence. Raises BadRequest."""
    for name in request.query_params:
        if name not in names:
            there_are = f"there are {', '.join(names)}" if names else "none is taken here"
            raise BadRequest(400, f"{ascii(name)[:LONGEST_NAME]}: no such parameter; {there_are}")


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= MAX_ROWS:
        raise BadRequest(400, f"limit must be a whole number from 1 to {MAX_ROWS}")
    return int(text)


def _moment(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        # A plus sign in a query string arrives as a space.
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise BadRequest(400, f"{name} must be an ISO time, e.g. 2026-01-31T12:00:00Z") from exc


def _most_real(settings: Settings) -> tuple[str, ...]:
    """The brokers with real money, or where none has any, those on the testnet, or paper: never added to each other."""
    modes = {broker: settings.mode_of(broker) for broker in settings.brokers}
    most = next(mode for mode in ("LIVE", "TESTNET", "PAPER") if mode in modes.values())
    return tuple(broker for broker, mode in modes.items() if mode == most)
