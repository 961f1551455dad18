"""The page in a browser: what an owner sees and does between two meetings. `make browser` runs it in Chromium."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from browser import PASSWORD
from browser import Browser as Person
from chromium import in_a_browser
from harness import SECRET, Daemon, Nursery, eventually
from playwright.sync_api import Browser, Page, expect
from webhook_server import WebhookServer

Make = Callable[..., Daemon]

AXE = Path(__file__).parent / "data" / "axe" / "axe.min.js"
PATHS = ("/ui", "/ui/signals", "/ui/trades", "/ui/performance", "/test", "/ui/settings")
PHONE = {"width": 390, "height": 844}
BUY: dict[str, Any] = {"symbol": "BTCUSDT", "side": "buy", "price": 43000, "strategy": "trend", "sl": "2%"}


class Open(Protocol):
    def __call__(self, daemon: Daemon, path: str, **options: Any) -> Page: ...


pytestmark = in_a_browser
expect.set_options(timeout=10_000)


@pytest.fixture
def complaints() -> list[str]:
    """What the browser's console says is wrong; there must be none at the end of a test."""
    return []


@pytest.fixture
def open_page(chromium: Browser, complaints: list[str], daemon_with: Make) -> Iterator[Open]:
    """A page of the daemon, in a browser of its own that is logged in, and is closed before the daemon ends."""
    contexts = []

    def opened(daemon: Daemon, path: str, **options: Any) -> Page:
        context = chromium.new_context(base_url=f"http://127.0.0.1:{daemon.port}", **options)
        contexts.append(context)
        context.add_cookies(_cookies(daemon))
        page = context.new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def _cookies(daemon: Daemon) -> Any:
    person = Person(daemon).log_in()
    return [{"name": name, "value": value, "url": person.origin} for name, value in person.cookies.items()]


@pytest.fixture(scope="module")
def busy(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """With a position, a closed trade, refusals and what was not understood; for whatever only looks."""
    daemon = Daemon(
        nursery,
        tmp_path_factory.mktemp("busy"),
        dashboard_password=PASSWORD,
        cooldown_seconds=0,
        max_open_trades=50,
        max_trades_per_day=100,
        test_patience={"worth_first": 0, "worth_gap": 0.2, "worth_sure": 0.1},
    ).start()
    daemon.post(**BUY)
    daemon.post(symbol="ETHUSDT", side="buy", price=2500, strategy="breakout")
    daemon.post(symbol="ETHUSDT", side="sell", price=2600, strategy="breakout")
    daemon.post(symbol="SOLUSDT", side="buy", price=150, confidence=10, strategy="<b>bold</b>")
    daemon.post(symbol="BTCUSDT", side="perhaps")
    for number in range(60):
        daemon.post(symbol="XRPUSDT", side="buy", price=1, confidence=1, note=number, strategy="many")
    yield daemon
    daemon.kill()


@pytest.fixture
def owned(daemon_with: Make) -> Daemon:
    return daemon_with(dashboard_password=PASSWORD, cooldown_seconds=0).start()


# --- looking ----------------------------------------------------------------------------------------------------------


def test_a_wrong_password_says_so_and_the_right_one_opens_the_page(chromium: Browser, busy: Daemon) -> None:
    page = chromium.new_page(base_url=f"http://127.0.0.1:{busy.port}")
    page.goto("/ui/trades")
    page.get_by_label("Password").fill("a guess")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("that is not the password")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Trades")).to_be_visible()
    page.close()


def test_the_overview_tells_mode_position_protection_limits_and_decisions(open_page: Open, busy: Daemon) -> None:
    page = open_page(busy, "/ui")
    expect(page.locator(".mode")).to_contain_text("PAPER")
    positions = page.locator("[data-live=positions]")
    expect(positions).to_contain_text("BTCUSDT")
    expect(positions).to_contain_text("stop 42140")
    expect(page.locator("[data-live=limits]")).to_contain_text("2 of 100")
    expect(page.locator("[data-live=decisions]")).to_contain_text("Confidence below minimum")
    expect(page.locator("[data-live=accounts]")).to_contain_text("USDT")


def test_a_trade_appears_without_reload(open_page: Open, owned: Daemon) -> None:
    page = open_page(owned, "/ui")
    expect(page.locator("[data-live=positions]")).to_contain_text("Nothing is held")
    page.evaluate("window.stillTheSame = true")
    assert owned.post(**BUY)["success"]
    expect(page.locator("[data-live=positions]")).to_contain_text("BTCUSDT")
    decisions = page.locator("[data-live=decisions]")
    expect(decisions).to_contain_text("FILLED")
    for stage in ("received", "decided", "sent", "answered"):
        expect(decisions.locator(".stages")).to_contain_text(stage)
    expect(page.locator("[data-live=limits]")).to_contain_text("1 of 10")
    assert page.evaluate("window.stillTheSame")


def test_equity_and_daily_results_are_drawn(open_page: Open, busy: Daemon) -> None:
    page = open_page(busy, "/ui/performance")
    for chart in ("equity", "daily"):
        expect(page.locator(f"[data-chart={chart}] canvas")).to_be_visible()


def test_a_page_that_nobody_looks_at_does_not_listen(open_page: Open, owned: Daemon) -> None:
    page = open_page(owned, "/ui")
    expect(page.locator("#connection")).to_have_text("live")
    for state, text in (("hidden", "not watching"), ("visible", "live")):
        page.evaluate(
            """(state) => {
                Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
                document.dispatchEvent(new Event("visibilitychange"));
            }""",
            state,
        )
        expect(page.locator("#connection")).to_have_text(text)
    owned.post(**BUY)
    expect(page.locator("[data-live=positions]")).to_contain_text("BTCUSDT")


def test_a_lost_connection_is_seen_and_found_again(open_page: Open, owned: Daemon, complaints: list[str]) -> None:
    owned.set(session_secret="a secret that signs logins")
    owned.restart()
    page = open_page(owned, "/ui")
    connection = page.locator("#connection")
    expect(connection).to_have_text("live")
    owned.kill()
    expect(connection).to_have_text("connection lost")
    owned.start()
    expect(connection).to_have_text("live", timeout=20_000)
    owned.post(**BUY)
    expect(page.locator("[data-live=positions]")).to_contain_text("BTCUSDT")
    complaints[:] = [text for text in complaints if "ERR_" not in text]


def test_signals_are_filtered_by_symbol_strategy_decision_and_day(open_page: Open, busy: Daemon) -> None:
    page = open_page(busy, "/ui/signals")
    rows = page.locator("table tbody tr")
    page.get_by_label("Symbol").select_option("ETHUSDT")
    page.get_by_role("button", name="Show").click()
    expect(rows).to_have_count(2)
    page.get_by_label("Symbol").select_option("")
    page.get_by_label("Decision").select_option("INVALID")
    page.get_by_role("button", name="Show").click()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("perhaps")
    page.get_by_label("Decision").select_option("")
    page.get_by_label("Strategy").select_option("<b>bold</b>")
    page.get_by_role("button", name="Show").click()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("<b>bold</b>")
    page.get_by_role("link", name="All", exact=True).click()
    page.get_by_label("To").fill("2020-01-01")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("Nothing here with this filter")).to_be_visible()


def test_older_signals_are_a_click_away_and_none_is_left_out(open_page: Open, busy: Daemon) -> None:
    page = open_page(busy, "/ui/signals")
    rows = page.locator("table tbody tr")
    expect(rows).to_have_count(50)
    page.get_by_role("link", name="Older").click()
    expect(rows).to_have_count(15)
    page.get_by_role("link", name="Newest").click()
    expect(rows).to_have_count(50)


def test_what_is_shown_can_be_downloaded(open_page: Open, busy: Daemon) -> None:
    page = open_page(busy, "/ui/trades")
    page.get_by_label("Symbol").select_option("ETHUSDT")
    page.get_by_role("button", name="Show").click()
    for link, start in (("CSV", b"\xef\xbb\xbfDateTime,"), ("Excel", b"PK")):
        with page.expect_download() as download:
            page.get_by_role("link", name=link).click()
        content = Path(download.value.path()).read_bytes()
        assert content.startswith(start)
        if link == "CSV":
            assert content.count(b"ETHUSDT") == 2
            assert b"BTCUSDT" not in content


# --- doing ------------------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_each_check_and_the_order_and_places_nothing(
    open_page: Open, owned: Daemon, complaints: list[str]
) -> None:
    page = open_page(owned, "/test")
    page.get_by_label("Price").fill("43000")
    page.get_by_label("Confidence").fill("75")
    page.get_by_role("button", name="Dry run").click()
    result = page.locator("#result")
    expect(result).to_contain_text("ACCEPTED")
    expect(result.locator(".checks .refused")).to_have_count(0)
    expect(result.locator(".pairs").first).to_contain_text("BTCUSDT")
    page.get_by_label("Confidence").fill("7")
    page.get_by_role("button", name="Dry run").click()
    expect(result.locator(".checks .refused")).to_have_count(1)
    expect(result.locator(".checks .refused")).to_contain_text("Confidence below minimum")
    page.get_by_label("The alert as it is sent").fill('{"symbol": "BTCUSDT", "side": "perhaps"}')
    page.get_by_role("button", name="Dry run").click()
    expect(result).to_contain_text("INVALID")
    assert owned.signals() == []
    complaints[:] = [text for text in complaints if "400" not in text]


def test_send_really_sends(open_page: Open, owned: Daemon) -> None:
    page = open_page(owned, "/test")
    page.get_by_label("Price").fill("43000")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#result")).to_contain_text("FILLED")
    (row,) = owned.signals()
    assert row["Decision"] == "ACCEPTED"
    assert row["Strategy"] == "test"


def test_the_secret_is_not_on_the_page_until_it_is_asked_for(open_page: Open, owned: Daemon) -> None:
    page = open_page(owned, "/test")
    assert SECRET not in page.content()
    page.get_by_role("button", name="Show the secret").click()
    message = page.locator("#message")
    expect(message).to_contain_text(SECRET)
    assert json.loads(message.inner_text())["symbol"] == "{{ticker}}"
    page.get_by_role("button", name="Hide the secret").click()
    expect(message).not_to_contain_text(SECRET)


def test_a_setting_is_changed_refused_and_taken_back(open_page: Open, owned: Daemon, complaints: list[str]) -> None:
    page = open_page(owned, "/ui/settings")
    form = page.locator("[data-preference=max_open_trades]")
    expect(form).to_contain_text("Most entries held at once")
    form.get_by_role("textbox").fill("none at all")
    form.get_by_role("button", name="Save").click()
    expect(form.get_by_role("alert")).to_contain_text("MAX_OPEN_TRADES")
    assert owned.get("/status")["max_open_trades"] == 3
    form.get_by_role("textbox").fill("7")
    form.get_by_role("button", name="Save").click()
    expect(form).to_contain_text("by login from 127.0.0.1")
    assert owned.get("/status")["max_open_trades"] == 7
    form.get_by_role("button", name="Default").click()
    expect(form).not_to_contain_text("changed")
    assert owned.get("/status")["max_open_trades"] == 3
    complaints[:] = [text for text in complaints if "400" not in text]


def test_a_test_message_reaches_its_service_and_says_when_it_does_not(open_page: Open, daemon_with: Make) -> None:
    with WebhookServer() as service:
        daemon = daemon_with(dashboard_password=PASSWORD, notify_urls=service.url).start()
        page = open_page(daemon, "/ui/settings")
        page.get_by_role("button", name="Send a test message").click()
        expect(page.locator("#told")).to_contain_text("took the test message")
        assert service.messages
    page.get_by_role("button", name="Send a test message").click()
    expect(page.locator("#told .bad")).to_be_visible()


def test_pause_and_resume(open_page: Open, owned: Daemon) -> None:
    page = open_page(owned, "/ui/trades")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("PAUSED", exact=True)).to_be_visible()
    assert owned.post(**BUY)["check"] == "paused"
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("PAUSED", exact=True)).to_be_hidden()
    assert owned.post(**BUY, note=2)["success"]


def test_close_all_asks_once_more(open_page: Open, owned: Daemon) -> None:
    owned.post(**BUY)
    page = open_page(owned, "/ui")
    page.get_by_role("button", name="Close all").click()
    page.get_by_role("button", name="Leave it").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert owned.owner_get("/positions")["positions"]
    page.get_by_role("button", name="Close all").click()
    page.get_by_role("button", name="Close all now").click()
    expect(page.locator("#told")).to_contain_text("1 closed")
    expect(page.locator("[data-live=positions]")).to_contain_text("Nothing is held")
    assert not owned.owner_get("/positions")["positions"]


def test_logging_out_closes_the_page_everywhere(open_page: Open, owned: Daemon, complaints: list[str]) -> None:
    page = open_page(owned, "/ui")
    other = page.context.new_page()
    other.goto("/ui/trades")
    expect(other.locator("#connection")).to_have_text("live")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    expect(other.get_by_label("Password")).to_be_visible()
    complaints[:] = [text for text in complaints if "401" not in text]


def test_the_daemon_stops_at_once_though_a_page_looks_on(open_page: Open, owned: Daemon, complaints: list[str]) -> None:
    page = open_page(owned, "/ui")
    expect(page.locator("#connection")).to_have_text("live")
    owned.terminate()
    eventually(lambda: not owned.is_alive(), 3, owned.log)
    complaints[:] = [text for text in complaints if "ERR_" not in text]


# --- for everybody ----------------------------------------------------------------------------------------------------


def test_a_phone_shows_every_page_without_sideways_scrolling(open_page: Open, busy: Daemon) -> None:
    page = open_page(busy, "/ui", viewport=PHONE)
    for path in PATHS:
        page.goto(path)
        expect(page.locator("#connection")).to_have_text("live")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path


def test_nobody_is_kept_out_by_how_the_pages_are_made(open_page: Open, busy: Daemon) -> None:
    """axe-core's rules (WCAG 2.1 A and AA, good practice), without serious findings."""
    page = open_page(busy, "/ui", bypass_csp=True)
    for path in (*PATHS, "/login"):
        if path == "/login":
            page.context.clear_cookies()
        page.goto(path)
        if path == "/test":
            page.get_by_role("button", name="Dry run").click()
            expect(page.locator(".checks")).to_be_visible()
        assert serious_findings(page) == [], path


def serious_findings(page: Page) -> list[tuple[str, list[str]]]:
    """Rule, and the beginnings of the elements that break it."""
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run().then((result) => result.violations)")
    return [
        (violation["id"], [node["html"][:120] for node in violation["nodes"]])
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]
