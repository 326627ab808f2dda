"""A real Chromium, for tests and for README's screenshot."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

#: what Debian, and others, call it
NAMES = ("chromium", "chromium-browser", "google-chrome")

#: keep the browser from looking for anything on the Internet
ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

#: what browsers send, and programs don't
BROWSER_ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

#: kinds of screens and readers
SCREENS: dict[str, dict[str, Any]] = {
    "desktop": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 320, "height": 640}, "locale": "ru-RU"},
}

#: what a browser says of an answer that the test wants to be one of refusal
EXPECTED_COMPLAINTS = re.compile(
    r"Failed to load resource: (the server responded with a status of 4|net::ERR_INTERNET_DISC)"
)

Open = Callable[..., Page]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium without a window; each context of it has a storage of its own."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program, "Chromium is missing. On Debian or Ubuntu: sudo apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opening(browser: Browser, address: str) -> Iterator[Open]:
    """Open pages of the service, each in a new browser.

    What they load must be ours, and their consoles stay clean.
    """
    contexts: list[BrowserContext] = []
    loaded: list[str] = []
    complaints: list[str] = []

    def watch(page: Page) -> None:
        page.on("request", lambda request: loaded.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))

    def open_page(path: str = "/", **settings: Any) -> Page:
        contexts.append(
            browser.new_context(**{"viewport": {"width": 1000, "height": 720}, **settings})
        )
        contexts[-1].on("page", watch)
        page = contexts[-1].new_page()
        page.goto(address + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in loaded if not url.startswith(address)] == []
    assert [text for text in complaints if not EXPECTED_COMPLAINTS.match(text)] == []


def check_looks(page: Page) -> None:
    """Leave nobody out: axe finds nothing, and nothing sticks out of the window."""
    page.evaluate(
        "document.getAnimations()"
        ".forEach(animation => animation.effect.updateTiming({ duration: 0 }))"
    )
    assert Axe().run(page).generate_snapshot() == ""
    width = page.evaluate("document.documentElement.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def words(pattern: str) -> re.Pattern[str]:
    """Match with spaces of any kind: no line ends between a number and its unit."""
    return re.compile(pattern.replace(" ", r"\s"))
