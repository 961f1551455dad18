"""What the daemon prints at start: where it listens, what to paste into TradingView, and a line to try it with."""

from __future__ import annotations

import json

from config import Settings

ALERT = {
    "symbol": "{{ticker}}",
    "side": "{{strategy.order.action}}",
    "price": "{{close}}",
    "strategy": "my strategy",
    "timeframe": "{{interval}}",
    "market_position": "{{strategy.market_position}}",
    "prev_market_position": "{{strategy.prev_market_position}}",
    "timenow": "{{timenow}}",
}
EXAMPLE = {
    "symbol": "BTCUSDT",
    "side": "BUY",
    "confidence": 75,
    "price": 43000,
    "strategy": "trend",
    "timeframe": "1h",
}
PLACEHOLDER = "YOUR_WEBHOOK_SECRET_KEY"


def startup_text(settings: Settings, secret: str) -> str:
    """The secret is shown only when it is the generated one: one that was given is known, and logs are kept."""
    shown = PLACEHOLDER if settings.webhook_secret_key else secret
    url = f"http://{_reachable(settings.host)}:{settings.port}"
    lines = [
        *_warnings(settings),
        f"Gatehouse listens on {url}",
        *(f"  {name}: {settings.mode_of(name)}{_markets(settings)}" for name in settings.brokers),
        f"  alerts without a broker go to {settings.default_broker_name}",
        f"  records: {settings.log_dir}/signals.csv and {settings.log_dir}/trades.csv",
        "",
        "TradingView alert message (webhook URL: your https address + /webhook):",
        f"  {_message(ALERT, shown)}",
        "",
        "Try it:",
        f"  curl -s -X POST {url}/webhook -H 'Content-Type: application/json' -d '{_message(EXAMPLE, shown)}'",
        "",
    ]
    return "\n".join(lines)


def _markets(settings: Settings) -> str:
    """Spot is what people expect; anything else is said."""
    return "" if settings.binance_market == "spot" else f", {' and '.join(settings.markets)}"


def _message(fields: dict[str, object] | dict[str, str], secret: str) -> str:
    return json.dumps({"secret": secret, **fields})


def _reachable(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _warnings(settings: Settings) -> list[str]:
    loud = [f"!!! {settings.loses_records} !!!", ""] if settings.loses_records else []
    return loud + [f"warning: {text}" for text in settings.warnings]
