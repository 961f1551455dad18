"""The JSON routes as an OpenAPI document, and schemathesis trying everything that it allows, and what it does not.

The daemon itself serves no such document, on purpose: this one is a client's view. What may come back is all of it:
another status, another content type, another shape is a failure. `GATEHOUSE_EXAMPLES=500` tries many more.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from fake_binance import FakeBinance
from harness import SECRET, Daemon, binance
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preferences import TARGETS

EXAMPLES = int(os.environ.get("GATEHOUSE_EXAMPLES", "80"))

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


def download() -> Any:
    found = operation({})
    found["responses"]["200"]["content"] = {"text/csv": {}}
    return found


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
    "/logs/signals.csv": {"get": download()},
    "/logs/trades.csv": {"get": download()},
} | {
    f"/preferences/{name}": {"post": operation(holds(preferences=OBJECT, warnings=LIST), body=CHANGES)}
    for name in TARGETS
}
DOCUMENT = {"openapi": "3.1.0", "info": {"title": "Gatehouse", "version": "1"}, "paths": PATHS}


@pytest.fixture
def poor(daemon_with: Callable[..., Daemon], exchange: FakeBinance) -> Daemon:
    """With nothing in the account: whatever an alert or a preference says, nothing can be bought or sold."""
    exchange.set_balance("USDT", 0)
    return daemon_with(**binance(exchange, cooldown_seconds=0, dedupe_seconds=20)).start()


def test_whatever_is_asked_the_answer_is_one_that_is_documented_and_no_order_is_placed(
    poor: Daemon, exchange: FakeBinance
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
    operations: list[Any] = [found.ok() for found in document.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) == len(PATHS)
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    asked = st.one_of([each.as_strategy(generation_mode=mode) for mode in modes for each in operations])
    seen: set[int] = set()

    @given(asked)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES < 100,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    def ask(case: Case[Any]) -> None:
        reply = case.call(f"http://127.0.0.1:{poor.port}", headers={"Authorization": f"Bearer {SECRET}"})
        seen.add(reply.status_code)
        case.validate_response(reply, checks=conforms)
        assert reply.status_code != 503, reply.text
        assert SECRET not in reply.text

    ask()
    assert {200, 400} <= seen
    assert exchange.orders == []
    assert "Traceback" not in poor.log()
    assert poor.is_healthy()
