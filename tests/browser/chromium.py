"""A real browser for a test: this machine's Chromium, without a window."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright
from playwright.sync_api import Error as BrowserError

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
PATIENCE_MS = 30_000

expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Skips the test, with the reason, where there is none or it cannot be started."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(PROGRAMS)} is installed (make test does it on Debian)")
    with sync_playwright() as driver:
        try:
            # Chromium's own sandbox needs what neither root nor a container has.
            browser = driver.chromium.launch(
                executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
        except BrowserError as error:
            pytest.skip(f"{program} cannot be started: {error}")
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """One look at the page. `complaints`: what the browser minded, such as violations of the
    content security policy, exceptions, and answers that were not given."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.url = url
        self.page: Page = browser.new_page(**{"viewport": DESKTOP, "locale": "en-GB", **options})
        self.page.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} ({message.location})")

    def go(self, view: str) -> Page:
        """To a view, such as `tags?state=stale`; returns when it has its figures."""
        self.page.goto(f"{self.url}#{view}")
        name = view.split("?")[0]
        shown = "#cards li" if name == "overview" else f"#view-{name} .shown:not(:empty)"
        self.page.locator(shown).first.wait_for()
        return self.page

    def hurry(self) -> None:
        """From now on (before the first `go`) `renew` makes the time pass."""
        self.page.clock.install()

    def renew(self) -> None:
        """As if a minute had passed: what the page waits for happens now."""
        self.page.clock.fast_forward(61_000)

    @property
    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        return int(
            self.page.evaluate("document.documentElement.scrollWidth - document.body.clientWidth")
        )
