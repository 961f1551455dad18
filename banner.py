"""What the daemon prints at start: where it listens, what to paste into TradingView, and a line to try it with."""

from __future__ import annotations

import json
from collections.abc import Mapping

from config import Settings
from models import Market

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


def startup_text(settings: Settings, secret: str, link_token: str) -> str:
    """`link_token`: of the page's one-time link, where no password is set.

    The secret is shown only when it is the generated one: one that was given is known, and logs are kept.
    """
    shown = PLACEHOLDER if settings.webhook_secret_key else secret
    url = _url(settings)
    lines = [
        *_warnings(settings),
        f"Gatehouse listens on {url}",
        *(f"  {name}: {settings.mode_of(name)}{_markets(settings, name)}" for name in settings.brokers),
        f"  alerts without a broker go to {settings.default_broker_name}",
        *([login_line(settings, link_token)] if link_token else [f"  page: {url}/"]),
        f"  records: {settings.log_dir}/signals.csv and {settings.log_dir}/trades.csv",
        "",
        "TradingView alert message (webhook URL: your https address + /webhook):",
        f"  {alert_message(ALERT, shown)}",
        "",
        "Try it:",
        f"  curl -s -X POST {url}/webhook -H 'Content-Type: application/json' -d '{alert_message(EXAMPLE, shown)}'",
        "",
    ]
    return "\n".join(lines)


def login_line(settings: Settings, link_token: str) -> str:
    """The link that opens the page once."""
    # Railway's own address is not known to what runs there.
    url = "https://<your address>" if settings.surroundings.on_railway else _url(settings)
    return f"  page, with a link that works once: {url}/login?token={link_token}"


def _url(settings: Settings) -> str:
    return f"http://{_reachable(settings.host)}:{settings.port}"


def _markets(settings: Settings, broker: str) -> str:
    """Spot is what people expect; anything else is said."""
    if broker == "FLATTRADE":
        return ", shares in INR; log in every day: /flattrade/login"
    markets = settings.markets_of(broker)
    return "" if markets == (Market.SPOT,) else f", {' and '.join(markets)}"


def alert_message(fields: Mapping[str, object], secret: str) -> str:
    """What TradingView sends."""
    return json.dumps({"secret": secret, **fields})


def _reachable(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _warnings(settings: Settings) -> list[str]:
    loud = [f"!!! {settings.loses_records} !!!", ""] if settings.loses_records else []
    return loud + [f"warning: {text}" for text in settings.warnings]
