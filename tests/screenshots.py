"""Makes the pictures of the page that README shows: a month on paper, played in seconds. `make screenshots`"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from browser import PASSWORD
from chromium import CHROMIUM, NO_CHROMIUM, chromium_running
from harness import ROOT, Daemon, Nursery
from playwright.sync_api import Browser, expect

FOLDER = ROOT / "docs" / "screenshots"
WEBHOOK = "7c1d0e94b35a4f628e0b"
DAYS = 30
DAY_SECONDS = 86_400
MARKETS = {"BTCUSDT": 43_000.0, "ETHUSDT": 2_500.0, "SOLUSDT": 150.0}
PAGES = {
    "overview": "/ui",
    "signals": "/ui/signals",
    "trades": "/ui/trades",
    "performance": "/ui/performance",
    "test": "/test",
    "settings": "/ui/settings",
}


def say(daemon: Daemon, **alert: Any) -> None:
    daemon.post_raw(json.dumps({"secret": WEBHOOK, **alert}).encode())


def a_month(daemon: Daemon, chance: random.Random) -> None:
    """Every day a few trades on each market; some win, some lose, some alerts are refused."""
    prices = dict(MARKETS)
    for day in range(DAYS, 0, -1):
        for hour, (symbol, price) in enumerate(prices.items(), 6):
            daemon.move_clock(-day * DAY_SECONDS + hour * 900)
            strategy = chance.choice(("trend", "breakout"))
            alert: dict[str, Any] = {
                "symbol": symbol,
                "strategy": strategy,
                "timeframe": "1h",
                "confidence": chance.randint(40, 95),
            }
            say(daemon, **alert | {"side": "buy", "price": round(price, 2)})
            prices[symbol] = price = price * chance.uniform(0.985, 1.018)
            daemon.move_clock(-day * DAY_SECONDS + hour * 900 + 600)
            say(daemon, **alert | {"side": "sell", "price": round(price, 2), "confidence": 90})
        # Long enough for a look at what the account is worth.
        time.sleep(1)
    daemon.move_clock(0)
    say(daemon, symbol="BTCUSDT", side="perhaps")
    for symbol, price in prices.items():
        say(daemon, symbol=symbol, side="buy", price=round(price, 2), strategy="trend", sl="2%", tp="5%", confidence=80)
    say(daemon, symbol="BTCUSDT", side="buy", price=round(prices["BTCUSDT"], 2), strategy="trend", confidence=75)


def look(chromium: Browser, daemon: Daemon) -> None:
    address = f"http://127.0.0.1:{daemon.port}"
    for name, width, height in (("desk", 1280, 900), ("phone", 390, 844)):
        page = chromium.new_page(base_url=address, viewport={"width": width, "height": height})
        page.goto("/login")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        for picture, path in PAGES.items():
            page.goto(path)
            expect(page.locator("#connection")).to_have_text("live")
            if path == "/test":
                page.get_by_role("button", name="Dry run").click()
                expect(page.locator(".checks")).to_be_visible()
            if picture in ("overview", "performance"):
                expect(page.locator("[data-chart=equity] canvas")).to_be_visible()
            if name == "desk":
                page.screenshot(path=FOLDER / f"{picture}.png")
            elif picture == "overview":
                page.screenshot(path=FOLDER / "phone.png")
        page.close()


def main() -> int:
    if CHROMIUM is None:
        print(NO_CHROMIUM, file=sys.stderr)
        return 1
    FOLDER.mkdir(exist_ok=True)
    nursery = Nursery()
    with tempfile.TemporaryDirectory() as made:
        daemon = Daemon(
            nursery, Path(made), dashboard_password=PASSWORD, webhook_secret_key=WEBHOOK, max_risk_per_trade=200,
            max_trades_per_day=20,
            trade_amount_usdt=200, cooldown_seconds=1, max_open_trades=5, max_daily_loss_usdt=50,
            test_patience={"worth_first": 0, "worth_gap": 0.1, "worth_sure": 0},
        )  # fmt: skip
        daemon.move_clock(-DAYS * DAY_SECONDS)
        daemon.start()
        a_month(daemon, random.Random(7))
        try:
            with chromium_running() as chromium:
                look(chromium, daemon)
        finally:
            daemon.kill()
            nursery.close()
    print("\n".join(str(picture.relative_to(ROOT)) for picture in sorted(FOLDER.glob("*.png"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
