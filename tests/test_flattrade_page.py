"""FlatTrade in a browser: a login that is missing and then lasts; the owner says what became of a lost order."""

from __future__ import annotations

from collections.abc import Callable

from browser import PASSWORD
from chromium import in_a_browser
from fake_flattrade import FakeFlatTrade
from harness import Daemon, flattrade
from playwright.sync_api import Browser, expect
from test_flattrade import logged_in, not_heard_of_for_a_day
from test_page import serious_findings

pytestmark = in_a_browser


def test_the_owner_logs_in_at_flattrade_and_the_page_says_until_when(
    daemon_with: Callable[..., Daemon], chromium: Browser
) -> None:
    with FakeFlatTrade() as fake:
        # Another site than the page's, as FlatTrade is: its way back does not carry the page's cookie.
        settings = flattrade(fake) | {"flattrade_auth_url": fake.auth_url.replace("127.0.0.1", "localhost")}
        daemon = daemon_with(**settings, dashboard_password=PASSWORD).start()
        fake.redirect_url = f"http://127.0.0.1:{daemon.port}/flattrade/callback"
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
        page.close()
        assert complaints == []


def test_the_owner_says_what_became_of_an_order_and_what_is_wrong_with_it_stands_in_the_form(
    daemon_with: Callable[..., Daemon], chromium: Browser
) -> None:
    with FakeFlatTrade() as fake:
        lost = logged_in(daemon_with(**flattrade(fake), dashboard_password=PASSWORD), fake)
        daemon = not_heard_of_for_a_day(lost, fake)
        fake.holdings["CIPLA-EQ"] = 4
        page = chromium.new_page(base_url=f"http://127.0.0.1:{daemon.port}", bypass_csp=True)
        page.goto("/ui")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()

        form = page.get_by_role("dialog", name="What became of this order?")
        expect(page.get_by_role("button", name="Say what became of it")).to_be_visible()
        assert serious_findings(page) == []
        page.get_by_role("button", name="Say what became of it").click()
        expect(form).to_contain_text("BUY 10 CIPLA")
        assert serious_findings(page) == []
        form.get_by_role("button", name="Leave it").click()
        expect(form).to_be_hidden()
        page.get_by_role("button", name="Say what became of it").click()
        form.get_by_label("Executed").fill("11")
        form.get_by_role("button", name="Put it on the record").click()
        expect(form.get_by_role("alert")).to_contain_text("executed must be 0 to 10")
        assert [order["status"] for order in daemon.owner_get("/status")["unresolved_orders"]] == ["UNKNOWN"]

        form.get_by_label("Executed").fill("4")
        form.get_by_label("Average price").fill("1500")
        form.get_by_role("button", name="Put it on the record").click()
        expect(page.locator("#told")).to_contain_text("The order is CANCELED")
        expect(form).to_be_hidden()
        expect(page.locator("[data-live=orders]")).to_contain_text("None: every order has its ending.")
        page.close()
    row = daemon.trades()[-1]
    assert (row["Status"], row["Note"]) == ("CANCELED", "by its owner's word")
