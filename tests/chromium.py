"""The machine's own Chromium, for the tests that look at the page in it: `make browser`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NO_CHROMIUM = "no Chromium (Debian, Ubuntu: apt-get install chromium)"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]

in_a_browser = [
    pytest.mark.skipif("BROWSER" not in os.environ, reason="takes a minute: make browser"),
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
]


@contextmanager
def chromium_running() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()
