"""The way into the page: who gets in, what is shown to whom, and that no other site acts in the owner's name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import pytest
from browser import PASSWORD, Browser
from harness import SECRET, Daemon, Nursery, eventually

Make = Callable[..., Daemon]
PAGES = ("/", "/ui", "/ui/signals", "/ui/trades", "/ui/performance", "/ui/settings", "/test")
OWNERS = (
    "/executions", "/positions", "/performance", "/account/summary", "/preferences/current", "/logs/signals.csv",
    "/logs/trades.csv", "/metrics", "/events",
)  # fmt: skip
CHANGES = (
    "/pause", "/resume", "/close-all", "/preferences/reset", "/preferences/leverage", "/test/run", "/test/secret",
    "/notifications/test", "/orders/outcome",
)  # fmt: skip


@pytest.fixture(scope="module")
def one(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """For whatever leaves no trace."""
    daemon = Daemon(nursery, tmp_path_factory.mktemp("one"), dashboard_password=PASSWORD, trusted_proxy_hops=1).start()
    yield daemon
    daemon.kill()


@pytest.fixture(scope="module")
def owner(one: Daemon) -> Browser:
    return Browser(one).log_in()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_leads_a_stranger_to_the_login_and_tells_nothing(one: Daemon, path: str) -> None:
    reply = Browser(one).get(path)
    assert reply.status == 303
    assert reply.headers["location"].startswith("/login?next=/")
    assert reply["raw"] == b""


@pytest.mark.parametrize("path", OWNERS)
def test_a_stranger_gets_401_for_what_is_the_owners(one: Daemon, path: str) -> None:
    assert Browser(one).get(path).status == 401


@pytest.mark.parametrize("path", CHANGES)
def test_a_stranger_changes_nothing(one: Daemon, path: str) -> None:
    assert Browser(one).post(path).status == 401


@pytest.mark.parametrize("path", PAGES)
def test_whoever_is_logged_in_sees_every_page(owner: Browser, path: str) -> None:
    html = owner.open(path)
    assert "Log out" in html
    assert SECRET not in html
    assert PASSWORD not in html


@pytest.mark.parametrize("path", [path for path in OWNERS if path != "/events"])
def test_whoever_is_logged_in_sees_what_is_the_owners(owner: Browser, path: str) -> None:
    assert owner.get(path).status == 200


def test_status_shows_its_details_with_a_login(one: Daemon, owner: Browser) -> None:
    assert "balances" not in Browser(one).get("/status").body
    assert "balances" in owner.get("/status").body


def test_a_wrong_password_stays_outside(one: Daemon) -> None:
    browser = Browser(one)
    reply = browser.submit("/login", password="a guess")
    assert reply.status == 401
    assert b"that is not the password" in reply["raw"]
    assert not browser.cookies


def test_the_cookie_is_for_this_site_and_for_no_script(one: Daemon) -> None:
    line = Browser(one).submit("/login", password=PASSWORD).headers["set-cookie"].lower()
    assert "httponly" in line
    assert "samesite=strict" in line
    assert "path=/" in line
    assert "secure" not in line


def test_behind_tls_the_cookie_never_goes_in_the_clear(one: Daemon) -> None:
    body = f"password={PASSWORD}".encode()
    origin = f"http://127.0.0.1:{one.port}"
    reply = one.request("POST", "/login", body, Origin=origin, X_Forwarded_Proto="https")
    assert "secure" in reply.headers["set-cookie"].lower()


def test_a_login_leads_to_a_page_of_ours_and_nowhere_else(one: Daemon) -> None:
    browser = Browser(one)
    assert browser.submit("/login", password=PASSWORD, next="/ui/trades").headers["location"] == "/ui/trades"
    for elsewhere in ("https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/logs/x"):
        assert browser.submit("/login", password=PASSWORD, next=elsewhere).headers["location"] == "/ui"
        assert browser.get(f"/login?next={elsewhere}").headers["location"] == "/ui"


def test_logging_out_ends_the_session(one: Daemon) -> None:
    browser = Browser(one).log_in()
    kept = dict(browser.cookies)
    assert browser.submit("/logout", token=browser.token).status == 303
    assert not browser.cookies
    browser.cookies = kept
    assert browser.get("/ui").status == 303
    assert browser.get("/positions").status == 401


def test_another_site_cannot_log_the_owner_out(one: Daemon) -> None:
    browser = Browser(one).log_in()
    assert browser.submit("/logout", token="a guess").status == 403
    assert browser.get("/ui").status == 200


@pytest.mark.parametrize(
    "lacks",
    [
        {"X_CSRF_Token": ""},
        {"X_CSRF_Token": "0" * 64},
        {"Origin": ""},
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://[broken"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", CHANGES)
def test_a_login_changes_nothing_without_its_token_and_its_own_origin(
    owner: Browser, path: str, lacks: dict[str, str]
) -> None:
    assert owner.post(path, {"value": 7}, **lacks).status == 401
    assert owner.get("/status")["paused"] is False


def test_the_token_of_another_session_is_not_good_enough(one: Daemon, owner: Browser) -> None:
    other = Browser(one).log_in()
    assert owner.post("/pause", X_CSRF_Token=other.token).status == 401
    assert owner.get("/status")["paused"] is False


def test_a_token_without_a_login_is_worth_nothing(one: Daemon, owner: Browser) -> None:
    stranger = Browser(one)
    stranger.token = owner.token
    assert stranger.post("/pause").status == 401


@pytest.mark.parametrize("path", CHANGES)
def test_nothing_is_changed_by_looking(owner: Browser, path: str) -> None:
    assert owner.get(path).status in (404, 405)


def test_the_login_form_is_taken_from_its_own_page_only(one: Daemon) -> None:
    reply = one.request("POST", "/login", f"password={PASSWORD}".encode(), Origin="https://evil.example")
    assert reply.status == 403
    assert reply.headers["set-cookie"] is None


def test_pages_may_run_only_what_this_daemon_serves(owner: Browser) -> None:
    for path in (*PAGES, "/login"):
        headers = (Browser(owner.daemon) if path == "/login" else owner).get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "style-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


def test_no_page_has_anything_from_elsewhere_or_inline(owner: Browser) -> None:
    for path in PAGES:
        html = owner.open(path)
        assert not re.search(r'(?:src|href|action)="(?:https?:)?//', html), path
        assert not re.search(r"<script(?![^>]*\bsrc=)", html), path
        assert not re.search(r"\s(?:style|on\w+)=", html), path
        assert "<style" not in html, path


def test_what_is_kept_by_browsers_changes_its_address_with_its_content(owner: Browser) -> None:
    html = owner.open("/ui")
    address = re.search(r'href="(/static/page\.css\?v=\w{10})"', html)
    assert address
    reply = owner.daemon.get(address.group(1))
    assert reply.status == 200
    assert "immutable" in reply.headers["cache-control"]
    assert reply.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path", ["/static/../config.py", "/static/%2e%2e/config.py", "/static//etc/passwd", "/static/"]
)
def test_no_other_file_is_served(one: Daemon, path: str) -> None:
    assert one.get(path).status in (404, 405)


def test_after_ten_wrong_tries_even_the_right_password_waits(daemon_with: Make) -> None:
    daemon = daemon_with(dashboard_password=PASSWORD).start()
    browser = Browser(daemon)
    assert [browser.submit("/login", password=f"guess {n}").status for n in range(10)] == [401] * 10
    reply = browser.submit("/login", password=PASSWORD)
    assert reply.status == 429
    assert b"wait a minute" in reply["raw"]
    # Whoever has the secret, or is in already, is not kept waiting.
    assert daemon.get("/positions", secret=SECRET).status == 200
    assert "guess 3" not in daemon.log()
    assert PASSWORD not in daemon.log()


@pytest.mark.parametrize(("guesser", "owner"), [("1.1.1.1", "2.2.2.2"), ("::ffff:1.1.1.1", "::ffff:2.2.2.2")])
def test_who_guesses_keeps_nobody_else_behind_the_proxy_waiting(daemon_with: Make, guesser: str, owner: str) -> None:
    daemon = daemon_with(dashboard_password=PASSWORD, trusted_proxy_hops=1).start()

    def tried(password: str, address: str) -> int:
        headers = {"Origin": f"http://127.0.0.1:{daemon.port}", "X_Forwarded_For": address}
        return daemon.request("POST", "/login", urlencode({"password": password}).encode(), 10, **headers).status

    assert [tried(f"guess {n}", guesser) for n in range(11)] == [401] * 10 + [429]
    assert tried(PASSWORD, owner) == 303


def test_without_a_password_a_printed_link_lets_in_once(daemon_with: Make) -> None:
    daemon = daemon_with().start()
    (link,) = re.findall(r"/login\?token=([\w-]+)", daemon.log())
    browser = Browser(daemon)
    # Looking at it does not use it up: messengers and mail programs look at links.
    for _ in range(2):
        assert f'value="{link}"' in browser.open(f"/login?token={link}")
    assert browser.submit("/login", token=link).status == 303
    browser.open("/ui")
    stranger = Browser(daemon)
    assert stranger.submit("/login", token=link).status == 401
    assert stranger.submit("/login", password="").status == 401
    eventually(lambda: len(re.findall(r"/login\?token=([\w-]+)", daemon.log())) == 2, 5, lambda: "no further link")
    following = re.findall(r"/login\?token=([\w-]+)", daemon.log())[1]
    assert stranger.submit("/login", token=following).status == 303


def test_with_a_password_no_link_is_printed(one: Daemon) -> None:
    assert "token=" not in one.log()


def test_a_session_ends_by_itself_after_a_week(daemon_with: Make) -> None:
    daemon = daemon_with(dashboard_password=PASSWORD).start()
    browser = Browser(daemon).log_in()
    daemon.move_clock(7 * 86_400 - 60)
    assert browser.get("/ui").status == 200
    daemon.move_clock(7 * 86_400 + 60)
    assert browser.get("/ui").status == 303


def test_with_a_session_secret_the_owner_stays_logged_in_over_a_restart(daemon_with: Make) -> None:
    daemon = daemon_with(dashboard_password=PASSWORD, session_secret="a secret that signs").start()
    browser = Browser(daemon).log_in()
    daemon.restart()
    assert browser.get("/ui").status == 200
    daemon.set(session_secret=None)
    daemon.restart()
    assert browser.get("/ui").status == 303
