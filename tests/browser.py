"""A real Chromium, for tests and for README's screenshot."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from playwright.sync_api import Browser, sync_playwright

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
