"""The JSON routes as an OpenAPI document, and schemathesis trying everything that it allows, and what it does not.

The daemon itself serves no such document, on purpose: this one is a client's view. What may come back is all of it:
another status, another content type, another shape is a failure. `GATEHOUSE_EXAMPLES=500` tries many more.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import PASSWORD, Browser
from fake_binance import FakeBinance
from harness import SECRET, Daemon, binance
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import create_app
from config import Settings
from preferences import TARGETS
from wiring import open_gatehouse

EXAMPLES = int(os.environ.get("GATEHOUSE_EXAMPLES", "50"))

NUMBER, TEXT, LIST, OBJECT = {"type": "number"}, {"type": "string"}, {"type": "array"}, {"type": "object"}
SWITCH = {"type": "boolean"}
ERROR = {
    "type": "object", "required": ["success", "error"], "properties": {"success": {"const": False}, "error": TEXT}
}  # fmt: skip
# Every refusal that every route may give; what it adds, it names.
REFUSALS = {400: "said wrong", 401: "no secret", 404: "nothing there", 405: "wrong method", 503: "nothing was done"}
SYMBOLS = {"enum": ["BTCUSDT", "BINANCE:ETHUSDT", "BTCUSDT.P", "NOPEUSDT", ""]}
NUMBERS = {"anyOf": [NUMBER, {"type": "string", "pattern": r"^-?[0-9]{1,9}(\.[0-9]{1,9})?%?$"}]}
SIZES = ("quantity", "amount_usdt", "price", "stop_loss", "take_profit", "leverage", "confidence")
ALERT = {
    "type": "object",
    "required": ["symbol", "side"],
    "properties": {
        "symbol": SYMBOLS,
        "side": {"enum": ["buy", "SELL", "close", "short", "flat", "{{strategy.order.action}}"]},
        "market_position": {"enum": ["long", "short", "flat"]},
        "broker": {"enum": ["BINANCE", "PAPER", "KRAKEN"]},
        "type": {"enum": ["MARKET", "LIMIT", "STOP"]},
    } | dict.fromkeys(SIZES, NUMBERS),
}  # fmt: skip
CHANGES = {"type": "object", "properties": {"value": {"anyOf": [NUMBERS, TEXT, LIST, {"type": "null"}]}}}


def holds(**properties: object) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


ANSWERED = holds(success=SWITCH, decision=TEXT, signal_id=TEXT, reason={"type": ["string", "null"]})
DRY = holds(dry_run={"const": True}, decision=TEXT, signal=OBJECT, checks=LIST)


def operation(answer: object, *, body: object = None, query: dict[str, object] | None = None, **more: Any) -> Any:
    """`answer` is what a 200 holds; more statuses by name, as status_202=."""
    answers = {200: answer} | dict.fromkeys(REFUSALS, ERROR)
    answers |= {int(name.removeprefix("status_")): schema for name, schema in more.items()}
    found: dict[str, Any] = {
        "responses": {
            str(status): {
                "description": REFUSALS.get(status, "done"),
                "content": {"application/json": {"schema": schema}},
            }
            for status, schema in answers.items()
        },
        "parameters": [{"name": name, "in": "query", "schema": schema} for name, schema in (query or {}).items()],
    }
    if body is not None:
        found["requestBody"] = {"content": {"application/json": {"schema": body}}}
    return found


def download(kind: str = "text/csv", **query: object) -> Any:
    found = operation({}, query=query)
    found["responses"]["200"]["content"] = {kind: {}}
    return found


WORKBOOK = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
# They take seconds, and have tests of their own.
SLOW = {"/logs/signals.xlsx", "/logs/trades.xlsx"}
PAGES = {
    "/", "/ui", "/ui/signals", "/ui/trades", "/ui/performance", "/ui/settings", "/test", "/login", "/logout", "/events",
    "/static/{path:path}", "/flattrade/login", "/flattrade/callback",
}  # fmt: skip
WHOLE = {"type": "integer", "minimum": 1, "maximum": 1000}
TIME = {"type": "string", "format": "date-time"}
UNWELL = holds(status={"const": "unavailable"}, problems=LIST)
PATHS: dict[str, Any] = {
    "/webhook": {"post": operation(ANSWERED, body=ALERT, status_202=ANSWERED, status_413=ERROR)},
    "/webhook?dry_run=true": {"post": operation(DRY, body=ALERT, status_413=ERROR)},
    "/health": {"get": operation(holds(status={"const": "ok"}), status_503=UNWELL)},
    "/status": {"get": operation(holds(status=TEXT, mode=TEXT, paused=SWITCH, trades_today=NUMBER, brokers=OBJECT))},
    "/executions": {
        "get": operation(
            holds(executions=LIST), query={"limit": WHOLE, "symbol": SYMBOLS, "strategy": TEXT, "since": TIME}
        )
    },
    "/positions": {"get": operation(holds(positions=LIST), query={"symbol": SYMBOLS})},
    "/account/summary": {"get": operation(holds(accounts=LIST, realized_pnl=NUMBER))},
    "/preferences/current": {"get": operation(holds(preferences=OBJECT, warnings=LIST, groups=OBJECT))},
    "/preferences/reset": {"post": operation(holds(preferences=OBJECT, warnings=LIST))},
    "/pause": {"post": operation(holds(paused={"const": True}))},
    "/resume": {"post": operation(holds(paused={"const": False}))},
    "/close-all": {"post": operation(holds(closed={"const": 0}, results=LIST))},
    "/orders/outcome": {
        "post": operation(
            holds(status=TEXT),
            body={"type": "object", "properties": {"client_order_id": TEXT, "executed": NUMBERS, "price": NUMBERS}},
            status_202=holds(status=TEXT),
        )
    },
    "/performance": {
        "get": operation(
            holds(brokers=LIST, currency=TEXT, trades=NUMBER, realized_pnl=NUMBER, daily=LIST, equity=LIST),
            query={"symbol": SYMBOLS, "strategy": TEXT, "since": TIME, "until": TIME, "broker": TEXT},
        )
    },
    "/metrics": {"get": download("text/plain")},
    "/notifications/test": {"post": operation(holds(success=SWITCH, services=LIST))},
    "/test/run": {"post": operation(holds(dry_run=SWITCH), body=holds(alert=TEXT, send={"const": False}))},
    "/test/secret": {"post": operation(holds(message=TEXT))},
    "/logs/signals.csv": {"get": download(symbol=SYMBOLS, decision=TEXT, since=TIME, until=TIME)},
    "/logs/trades.csv": {"get": download(symbol=SYMBOLS, status=TEXT, since=TIME, until=TIME)},
    "/logs/signals.xlsx": {"get": download(WORKBOOK)},
    "/logs/trades.xlsx": {"get": download(WORKBOOK)},
} | {
    f"/preferences/{name}": {"post": operation(holds(preferences=OBJECT, warnings=LIST), body=CHANGES)}
    for name in TARGETS
}
DOCUMENT = {"openapi": "3.1.0", "info": {"title": "Gatehouse", "version": "1"}, "paths": PATHS}


@pytest.fixture
def poor(daemon_with: Callable[..., Daemon], exchange: FakeBinance) -> Daemon:
    """With nothing in the account: whatever an alert or a preference says, nothing can be bought or sold."""
    exchange.set_balance("USDT", 0)
    settings = binance(exchange, cooldown_seconds=0, dedupe_seconds=20, dashboard_password=PASSWORD)
    return daemon_with(**settings).start()


def shown_by(daemon: Daemon, who: str) -> dict[str, str]:
    """How the owner shows that he may: the secret, or the login of the page."""
    if who == "secret":
        return {"Authorization": f"Bearer {SECRET}"}
    browser = Browser(daemon).log_in()
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    return {"Cookie": cookie, "Origin": browser.origin, "X-CSRF-Token": browser.token}


def test_every_route_is_documented_here(tmp_path: Path) -> None:
    routes = create_app(open_gatehouse(Settings(log_dir=tmp_path))).app.routes
    there = {getattr(route, "path", "") for route in routes} - PAGES
    documented = {path.partition("?")[0] for path in PATHS if not path.startswith("/preferences/")}
    assert {path for path in there if "{" not in path and not path.startswith("/preferences/")} == documented
    assert {path for path in there if "{" in path} == {"/webhook/{path_secret}", "/preferences/{name}"}


@pytest.mark.parametrize("who", ["secret", "login"])
def test_whatever_is_asked_the_answer_is_one_that_is_documented_and_no_order_is_placed(
    poor: Daemon, exchange: FakeBinance, who: str
) -> None:
    # Every lane of a run reads every test file: what takes so long to import is left to the one that uses it.
    import schemathesis.openapi
    from schemathesis import Case, GenerationMode
    from schemathesis.core.result import Ok
    from schemathesis.specs.openapi import checks

    conforms = [
        checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance
    ]  # fmt: skip
    document = schemathesis.openapi.from_dict(DOCUMENT)
    found_there: list[Any] = [found.ok() for found in document.get_all_operations() if isinstance(found, Ok)]
    assert len(found_there) == len(PATHS)
    operations = [each for each in found_there if each.path not in SLOW]
    headers = shown_by(poor, who)
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    asked = st.one_of([each.as_strategy(generation_mode=mode) for mode in modes for each in operations])
    seen: set[int] = set()

    @given(asked)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES < 100,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    def ask(case: Case[Any]) -> None:
        reply = case.call(f"http://127.0.0.1:{poor.port}", headers=headers)
        seen.add(reply.status_code)
        case.validate_response(reply, checks=conforms)
        assert reply.status_code != 503, reply.text
        assert SECRET not in reply.text or case.path == "/test/secret"

    ask()
    assert {200, 400} <= seen
    assert exchange.orders == []
    assert "Traceback" not in poor.log()
    assert poor.is_healthy()
