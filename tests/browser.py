"""A real Chromium, for tests and for the documents' pictures."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT as AXE
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
    """Open pages of the service, each in a context with a storage of its own.

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
    check_rules(page)
    check_width(page)


def check_rules(page: Page, **options: object) -> None:
    """Let axe look for whatever shuts somebody out."""
    if page.evaluate("typeof axe") == "undefined":
        page.evaluate(AXE)
    found = page.evaluate("options => axe.run(options)", {"resultTypes": ["violations"], **options})
    assert [(each["id"], each["nodes"]) for each in found["violations"]] == []


def check_width(page: Page) -> None:
    width = page.evaluate("document.documentElement.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def check_screens(page: Page) -> None:
    """Check the looks of a page on each kind of screen, in light and in dark.

    In the dark only colours differ, so only they are looked at.
    """
    for width in (1000, 320):
        page.set_viewport_size({"width": width, "height": 720})
        page.emulate_media(color_scheme="light")
        check_looks(page)
        page.emulate_media(color_scheme="dark")
        check_rules(page, runOnly=["color-contrast"])


def listing(address: str, *paths: str) -> Any:
    """Make the storage of a browser whose list at `address` has these jobs and batches."""
    items = [path.removeprefix("/jobs/").removeprefix("/") for path in paths]
    stored = {"name": "md5light.jobs", "value": json.dumps(items)}
    return {"origins": [{"origin": address, "localStorage": [stored]}]}


def words(pattern: str) -> re.Pattern[str]:
    """Match with spaces of any kind: no line ends between a number and its unit."""
    return re.compile(pattern.replace(" ", r"\s"))
