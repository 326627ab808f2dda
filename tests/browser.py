"""A real Chromium, for tests and for the documents' pictures."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT as AXE
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Request,
    ViewportSize,
    expect,
    sync_playwright,
)

#: its names in Debian and elsewhere; the headless shell comes first: it takes half the CPU time
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")

#: Keep the browser from looking for anything on the Internet, and from optimising scripts of pages
#: that are gone in a second.
ARGUMENTS = [
    "--disable-gpu",
    "--js-flags=--no-opt,--no-maglev",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

#: how long an expectation may take on a busy machine, which is as long as a click may take
TIMEOUT_MS = 30_000

#: what browsers send, and programs don't
BROWSER_ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

#: what a browser says of an answer that the test wants to be one of refusal
EXPECTED_COMPLAINTS = re.compile(
    r"Failed to load resource: (the server responded with a status of 4|net::ERR_INTERNET_DISC)"
)

#: pixels
WIDE, NARROW = 1000, 320

VIEWPORT: ViewportSize = {"width": WIDE, "height": 720}

#: Endless animations would keep a core busy, and axe would see the colours of a transition.
SCREEN: dict[str, Any] = {
    "media": "screen",
    "color_scheme": "light",
    "reduced_motion": "reduce",
    "forced_colors": "none",
}

#: what a page can be given without a context of its own
SHARED_SETTINGS = {
    *("viewport", "locale", "permissions", "storage_state", "java_script_enabled"),
    *SCREEN,
}

RESTORE = """localStorage.clear();
for (const { name, value } of %s) localStorage.setItem(name, value);"""

#: The headless shell shows no notifications: it calls them denied, even if granted.
NOTICES = """if (Notification.permission === "denied") {
    Object.defineProperty(Notification, "permission", { value: "%s" });
}"""

#: Style sheets need not be loaded a second time for any of its rules.
AXE_OPTIONS = {"reporter": "no-passes", "preload": False}

Open = Callable[..., Page]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium without a window, with one page that tests may share."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program, "Chromium is missing. On Debian: sudo apt-get install chromium-headless-shell"
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        browser.new_context().new_page()
        try:
            yield browser
        finally:
            browser.close()


class _Watch:
    """What pages load, and what their consoles say."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.complaints: list[str] = []

    def begin(self, page: Page) -> None:
        page.on("request", self._note_request)
        page.on("pageerror", self._note_error)
        page.on("console", self._note_message)

    def end(self, page: Page) -> None:
        page.remove_listener("request", self._note_request)
        page.remove_listener("pageerror", self._note_error)
        page.remove_listener("console", self._note_message)

    def _note_request(self, request: Request) -> None:
        self.loaded.append(request.url)

    def _note_error(self, error: Error) -> None:
        self.complaints.append(str(error))

    def _note_message(self, message: ConsoleMessage) -> None:
        self.complaints.append(message.text)


@contextlib.contextmanager
def opening(browser: Browser, address: str) -> Iterator[Open]:
    """Open pages of the service, each with a storage that has nothing of other tests.

    What they load must be ours, and their consoles stay clean. The first one is the browser's
    shared page, if it can have the settings: a new context takes more CPU time, half a second in
    full Chromium.
    """
    watch = _Watch()
    with contextlib.ExitStack() as opened:
        shared = [browser.contexts[0]]

        def open_page(path: str = "/", *, alone: bool = False, **settings: Any) -> Page:
            if shared and not alone and SHARED_SETTINGS.issuperset(settings):
                borrowed = _borrowed(shared.pop(), watch, address, path, **settings)
                return opened.enter_context(borrowed)
            wanted = {"viewport": VIEWPORT, "reduced_motion": "reduce", **settings}
            context = opened.enter_context(browser.new_context(**wanted))
            opened.enter_context(_notices(context, **settings))
            context.on("page", watch.begin)
            page = context.new_page()
            page.goto(address + path)
            return page

        yield open_page
    assert [url for url in watch.loaded if not url.startswith(address)] == []
    assert [text for text in watch.complaints if not EXPECTED_COMPLAINTS.match(text)] == []


@contextlib.contextmanager
def _borrowed(
    context: BrowserContext,
    watch: _Watch,
    address: str,
    path: str,
    *,
    permissions: Sequence[str] = (),
    java_script_enabled: bool = True,
    storage_state: Any = None,
    **settings: Any,
) -> Iterator[Page]:
    """Open a page in a context's first one as a new context with these settings would."""
    page = context.pages[0]
    _prepare(page, **settings)
    if permissions:  # else all would be denied, where a new context asks
        context.grant_permissions(list(permissions), origin=address)
    session = context.new_cdp_session(page)
    session.send("Emulation.setScriptExecutionDisabled", {"value": not java_script_enabled})
    stored = storage_state["origins"][0]["localStorage"] if storage_state else []
    watch.begin(page)
    context.on("page", watch.begin)
    try:
        with _notices(context, permissions):
            with page.add_init_script(RESTORE % json.dumps(stored)):
                page.goto(address + path)
            yield page
    finally:
        context.remove_listener("page", watch.begin)
        watch.end(page)
        for other in context.pages[1:]:
            other.close()
        session.detach()
        context.set_offline(False)
        context.clear_permissions()
        page.unroute_all()
        page.goto("about:blank")  # else it would go on polling


def _notices(
    context: BrowserContext, permissions: Sequence[str] = (), **_: Any
) -> AbstractContextManager[object]:
    """Tell the pages of a context whether they may show notifications."""
    allowed = "granted" if "notifications" in permissions else "default"
    return context.add_init_script(NOTICES % allowed)


def _prepare(
    page: Page, *, viewport: ViewportSize = VIEWPORT, locale: str = "en-US", **media: Any
) -> None:
    page.set_viewport_size(viewport)
    page.emulate_media(**{**SCREEN, **media})
    page.set_extra_http_headers({"Accept-Language": locale})


def check_looks(page: Page) -> None:
    """Leave nobody out: axe finds nothing, and nothing sticks out of the window."""
    check_rules(page)
    check_width(page)


def check_rules(page: Page, **options: object) -> None:
    """Let axe look for whatever shuts somebody out."""
    if page.evaluate("typeof axe") == "undefined":
        page.evaluate(AXE)
    found = page.evaluate("options => axe.run(options)", {**AXE_OPTIONS, **options})
    assert [(each["id"], each["nodes"]) for each in found["violations"]] == []


def check_width(page: Page) -> None:
    content, window = page.evaluate(
        "(({ scrollWidth, clientWidth }) => [scrollWidth, clientWidth])(document.documentElement)"
    )
    assert content <= window


def check_screens(page: Page) -> None:
    """Check the looks of a page on a wide and a narrow screen."""
    for width in (WIDE, NARROW):
        check_screen(page, width)


def check_screen(page: Page, width: int) -> None:
    """Check the looks in light and in dark, where only colours differ."""
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
