"""FlatTrade's login of the day in a browser: the page says that it is missing, and afterwards until when it lasts."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from browser import PASSWORD
from fake_flattrade import FakeFlatTrade
from harness import Daemon, flattrade
from playwright.sync_api import expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (Debian, Ubuntu: apt-get install chromium)")
def test_the_owner_logs_in_at_flattrade_and_the_page_says_until_when(daemon_with: Callable[..., Daemon]) -> None:
    with FakeFlatTrade() as fake, sync_playwright() as playwright:
        # Another site than the page's, as FlatTrade is: its way back does not carry the page's cookie.
        settings = flattrade(fake) | {"flattrade_auth_url": fake.auth_url.replace("127.0.0.1", "localhost")}
        daemon = daemon_with(**settings, dashboard_password=PASSWORD).start()
        fake.redirect_url = f"http://127.0.0.1:{daemon.port}/flattrade/callback"
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = chromium.new_page(base_url=f"http://127.0.0.1:{daemon.port}")
        complaints: list[str] = []
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)

        page.goto("/ui")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_text("Nobody is logged in.")).to_be_visible()
        expect(page.get_by_text("FLATTRADE cannot be reached")).to_contain_text("GET /flattrade/login")

        page.get_by_role("link", name="Log in at FlatTrade").click()
        expect(page).to_have_url(f"{settings['flattrade_auth_url']}/?app_key={settings['flattrade_api_key']}")
        page.get_by_role("link", name="Sign in as").click()
        expect(page.get_by_role("heading", name="Back from FlatTrade")).to_be_visible()
        assert fake.asked("apitoken") == [], "nothing happens before the owner says so here"
        page.get_by_role("button", name="Yes, use this login").click()

        expect(page.locator(".account p", has_text="Logged in until")).to_contain_text("23:30:00 UTC")
        expect(page.get_by_text("Nobody is logged in.")).to_have_count(0)
        expect(page.get_by_text("FLATTRADE cannot be reached")).to_have_count(0)
        assert "code=" not in page.url
        chromium.close()
        assert complaints == []
