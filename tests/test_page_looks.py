"""How the pages look: every state, in both languages, light and dark, narrow and wide, on paper."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from md5light.queue import open_database
from md5light.web.tokens import digest
from tests.application import application
from tests.browser import (
    NARROW,
    WIDE,
    Open,
    check_looks,
    check_screen,
    check_screens,
    check_width,
    listing,
    opening,
)
from tests.screenshot import take_screenshots
from tests.service import Service
from tests.states import (
    AGAIN,
    CANCELED,
    DONE,
    ENDLESS,
    FAILED,
    LOST,
    MD5,
    QUEUED,
    RUNNING,
    URL,
    States,
    line,
    mixed,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent

LONG = f"https://files.example.org/{'long' * 200}"
RESTING = "resting.example.org"


@pytest.fixture(scope="module")
def states(states: States) -> States:
    states.rest(RESTING)
    return states


# --- every state ----------------------------------------------------------------------------------


def job_of_each_state(states: States) -> dict[str, str]:
    """Make jobs; return the paths of their pages."""
    return {
        "queued": states.job(**QUEUED),
        "resting": states.job(f"https://{RESTING}/a", host=RESTING),
        "again": states.job(**AGAIN),
        "running": states.job(LONG, email="ann@localhost", **RUNNING),
        "endless": states.job(**ENDLESS),
        "done": states.job(LONG, email="ann@localhost", digests=["sha1", "sha512"], **DONE),
        "matched": states.job(expected={"md5": MD5, "size": 6}, **DONE),
        "mismatched": states.job(
            expected={"sha256": "0" * 64}, **{**DONE, "content_type": "text/html"}
        ),
        "failed": states.job(LONG, **LOST),
        "canceled": states.job(**CANCELED),
    }


def batch_of_each_state(states: States) -> dict[str, str]:
    several = [line(number) for number in range(1, 4)]
    canceled = states.batch([(each, QUEUED) for each in several], email="ann@localhost")
    states.cancel_batch(canceled)
    running = [*mixed(), (line(6), RUNNING), (line(7, LONG, name="n" * 200), QUEUED)]
    return {
        "waiting": states.batch([(each, QUEUED) for each in several]),
        "running": states.batch(running, name="x" * 200),
        "done": states.batch(mixed(), digests=("sha256",)),
        "canceled": canceled,
        "whole": states.batch([(each, DONE) for each in several]),
    }


JOBS = (
    *("queued", "resting", "again", "running", "endless", "done"),
    *("matched", "mismatched", "failed", "canceled"),
)
BATCHES = ("waiting", "running", "done", "canceled", "whole")


@pytest.fixture(scope="module")
def jobs(states: States) -> dict[str, str]:
    return job_of_each_state(states)


@pytest.fixture(scope="module")
def batches(states: States) -> dict[str, str]:
    return batch_of_each_state(states)


def check_languages(page: Page) -> None:
    """Check a page in English on a wide screen, and in Russian, with its long words, on a phone."""
    check_screen(page, WIDE)
    page.set_extra_http_headers({"Accept-Language": "ru"})
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "ru")
    check_screen(page, NARROW)


@pytest.mark.parametrize("state", JOBS)
def test_a_job_leaves_nobody_out(open_page: Open, jobs: dict[str, str], state: str) -> None:
    page = open_page(jobs[state])
    expect(page.locator("dl")).to_be_visible()
    check_languages(page)


@pytest.mark.parametrize("state", BATCHES)
def test_a_batch_leaves_nobody_out(open_page: Open, batches: dict[str, str], state: str) -> None:
    page = open_page(batches[state])
    expect(page.locator(".lines")).to_be_visible()
    check_languages(page)


@pytest.mark.parametrize(
    "path",
    ["/", "/?url=https://example.org/a%20b", "/nothing", "/jobs/x", "/batches/x", "/openapi.json"],
)
def test_other_pages_leave_nobody_out(open_page: Open, path: str) -> None:
    check_languages(open_page(path))


def test_a_page_of_lines_leaves_nobody_out(
    open_page: Open, states: States, batches: dict[str, str]
) -> None:
    page = open_page(f"{batches['done']}?status=failed")
    check_screens(page)
    page.goto(page.url.replace("failed", "canceled"))  # there is none
    expect(page.locator(".none")).to_be_visible()
    check_screens(page)
    long = states.batch([(line(number), QUEUED) for number in range(1, 202)])
    page.goto(f"{page.url.partition('/batches')[0]}{long}?after=200")
    expect(page.locator(".pages a")).to_have_text(["First lines"])
    check_width(page)


def test_the_list_of_a_browser_leaves_nobody_out(
    open_page: Open, service: Service, jobs: dict[str, str], batches: dict[str, str]
) -> None:
    paths = [*jobs.values(), *batches.values()]
    page = open_page(storage_state=listing(service.url, *paths), permissions=["notifications"])
    expect(page.locator(".card")).to_have_count(len(paths))
    expect(page.locator("#jobs li:empty")).to_have_count(0)
    page.get_by_label("Notify me when it is done").check()
    check_screens(page)
    page.set_extra_http_headers({"Accept-Language": "ru"})
    page.reload()
    expect(page.locator("#jobs li:empty")).to_have_count(0)
    check_looks(page)


def test_refusals_and_open_options_leave_nobody_out(open_page: Open) -> None:
    page = open_page()
    page.locator("#submit button").click()
    expect(page.get_by_role("alert").first).not_to_be_empty()
    page.locator("#submit summary").click()
    check_screens(page)
    page.locator("#list > summary").click()
    page.locator("#lines").fill("https://example.org/\nftp://<b>\nhttps://example.org/ 77zz\n")
    page.locator("#list .folded summary").click()
    page.locator("#batch .main").click()
    expect(page.locator("#list-problem tbody tr")).to_have_count(2)
    check_screens(page)


def test_a_busy_button_and_a_comparison_leave_nobody_out(
    open_page: Open, jobs: dict[str, str]
) -> None:
    page = open_page(jobs["done"])
    for pasted in (MD5, "0" * 32, "x"):
        page.locator("#digest").fill(pasted)
        page.locator(".compare button").click()
        expect(page.locator("#comparison .verdict")).to_be_visible()
        check_screens(page)
    page.goto(page.url.partition("/jobs")[0])
    page.route("**/submit", lambda route: None)
    page.locator("#url").fill("https://example.org/")
    page.locator("#submit button").click()
    expect(page.locator("#submit button")).to_have_attribute("aria-disabled", "true")
    check_screens(page)


def test_a_service_without_a_worker_leaves_nobody_out(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    with (
        contextlib.closing(open_database(str(path), durable=True)) as database,
        States(path, has_worker=False) as states,
        application(database) as app,
        opening(browser, app.url) as open_page,
    ):
        job = states.job(**RUNNING)
        app.health.look()
        page = open_page()
        for shown in ("/", job):
            page.set_extra_http_headers({"Accept-Language": "en"})
            page.goto(app.url + shown)
            expect(page.locator("main")).to_contain_text("No worker is running")
            check_languages(page)


def test_a_service_that_asks_for_a_token_leaves_nobody_out(
    browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_text(f"ann:{digest(b'secret').hex()}\n")
    settings = {"port": 0, "tokens_file": tmp_path / "tokens"}
    with Service(tmp_path, server=settings) as service, States(service.database) as states:
        job = states.job(**RUNNING)
        service.start_server()
        with opening(browser, service.url) as open_page:
            credentials = {"username": "ann", "password": "wrong"}
            page = open_page(http_credentials=credentials)
            page.locator("#url").fill("https://example.org/")
            page.locator("#submit button").click()
            expect(page.get_by_role("alert").first).to_contain_text("its name, is wrong.")
            check_screens(page)
            page.goto(service.url + job)
            page.get_by_role("button", name="Cancel").click()
            expect(page.locator("h1")).to_contain_text("its name, is wrong.")
            check_screens(page)


# --- single looks ---------------------------------------------------------------------------------


def test_letters_twice_as_large_fit(
    open_page: Open, service: Service, jobs: dict[str, str], batches: dict[str, str]
) -> None:
    paths = [*jobs.values(), *batches.values()]
    page = open_page(
        viewport={"width": 640, "height": 480}, storage_state=listing(service.url, *paths)
    )
    expect(page.locator("#jobs li:empty")).to_have_count(0)
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    check_looks(page)


def test_colours_follow_the_system(open_page: Open) -> None:
    page = open_page()
    sums = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        sums[scheme] = sum(map(int, re.findall(r"\d+", colour)))
    assert sums["light"] > 700
    assert sums["dark"] < 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_failed_has_a_colour_and_a_sign_of_its_own(
    open_page: Open, service: Service, jobs: dict[str, str], scheme: str
) -> None:
    """One colour for all that is wrong, and no state is told by its colour alone."""
    page = open_page(
        color_scheme=scheme, storage_state=listing(service.url, *(jobs[state] for state in JOBS))
    )
    expect(page.locator("#jobs li:empty")).to_have_count(0)
    shown = {
        state: page.locator("#jobs .status")
        .nth(place)
        .evaluate(
            "status => [getComputedStyle(status).color,"
            " getComputedStyle(status, '::before').content, status.textContent]"
        )
        for place, state in enumerate(JOBS)
    }
    bad, sign, word = shown["failed"]
    assert (sign[1], word) == ("✕", "Failed")
    reason = page.locator("[data-status=failed] .reason")
    expect(reason).to_have_css("color", bad)
    others = [shown[state] for state in JOBS if state != "failed"]
    assert bad not in [colour for colour, _, _ in others]
    assert sign not in [each for _, each, _ in others]
    assert {shown[state][1][1] for state in ("done", "canceled")} == {"✓", "–"}
    verdicts = page.locator("#jobs .verdict").evaluate_all(
        "all => all.map(e => [getComputedStyle(e).color,"
        " getComputedStyle(e, '::before').content[1]])"
    )
    assert verdicts == [[shown["done"][0], "✓"], [bad, "≠"]]


@pytest.mark.parametrize("locale", ["en-GB", "ru-RU"])
@pytest.mark.parametrize("width", [1000, 320])
def test_what_has_ended_takes_one_line(
    open_page: Open,
    service: Service,
    jobs: dict[str, str],
    batches: dict[str, str],
    width: int,
    locale: str,
) -> None:
    ended = [jobs[state] for state in ("done", "matched", "mismatched", "failed", "canceled")]
    ended += [batches["done"], batches["canceled"]]
    page = open_page(
        viewport={"width": width, "height": 720},
        locale=locale,
        storage_state=listing(service.url, *ended),
    )
    expect(page.locator("#jobs li:empty")).to_have_count(0)
    for card in page.locator(".card").all():
        box, line = card.bounding_box(), card.locator(".name").bounding_box()
        assert box is not None
        assert line is not None
        assert box["height"] < 2 * line["height"]
    check_width(page)
    cut = page.locator(".card .reason").first
    assert cut.evaluate("cut => cut.scrollWidth > cut.clientWidth")
    assert cut.get_attribute("title") == cut.text_content()  # and so for screen readers
    page.get_by_role("link", name="long").nth(1).click()  # by keyboard and touch
    whole = page.locator(".page .reason")
    assert whole.evaluate("whole => whole.scrollWidth == whole.clientWidth")


def test_whatever_has_the_focus_shows_it(open_page: Open, service: Service, states: States) -> None:
    paths = [states.job(**DONE), states.job(f"{URL}x", **FAILED)]
    page = open_page(storage_state=listing(service.url, *paths))
    expect(page.locator("#jobs li:empty")).to_have_count(0)
    page.locator("h1").click()  # out of the field
    shown = [page.screenshot()]
    for name in (
        *("", "", "Get the MD5", "Options", "Many files at once: a list", "", "Clear the list"),
        *("hello.txt", "Copy", "×", "hello.txtx", "Try again", "×", "For scripts: the API"),
    ):
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text(name)
        shown.append(page.screenshot())
    assert len(set(shown)) == len(shown)


def test_a_bar_can_be_seen_in_the_readers_own_colours(open_page: Open, states: States) -> None:
    page = open_page(states.job(**RUNNING), forced_colors="active", reduced_motion="reduce")
    bar = page.get_by_role("progressbar")
    expect(bar).to_have_js_property("value", RUNNING["bytes_done"])
    box = bar.bounding_box()
    assert box is not None
    full, empty = (
        page.screenshot(clip={**box, "x": box["x"] + box["width"] * part, "width": 20})
        for part in (0.25, 0.75)
    )
    assert full != empty


def test_who_wants_little_motion_gets_none(open_page: Open, jobs: dict[str, str]) -> None:
    page = open_page(jobs["endless"], reduced_motion="reduce")
    expect(page.get_by_role("progressbar")).to_have_css("animation-name", "none")


# --- on paper -------------------------------------------------------------------------------------


def test_on_paper_are_whole_urls_and_no_controls(
    open_page: Open, service: Service, jobs: dict[str, str], batches: dict[str, str]
) -> None:
    page = open_page(storage_state=listing(service.url, *jobs.values(), *batches.values()))
    expect(page.locator("#jobs li:empty")).to_have_count(0)
    for shown in ("/", jobs["running"], jobs["done"], batches["running"], "/openapi.json"):
        if shown != "/":
            page.goto(service.url + shown)
        page.emulate_media(media="print")
        controls = page.locator("button, input, textarea, select, summary")
        assert controls.filter(visible=True).count() == 0
        check_width(page)
        for url in page.locator(".url bdi").all():
            expect(url).to_be_visible()
            expect(url).to_have_css("display", "inline")  # a box of two lines would cut it
        for text in page.locator(".reason, .verdict, .md5").filter(visible=True).all():
            expect(text).not_to_have_css("white-space", "nowrap")


def test_the_documents_pictures_can_be_taken_again(browser: Browser, tmp_path: Path) -> None:
    take_screenshots(browser, tmp_path)
    for name, document, place in (
        ("page.png", "README.md", "/scripts/page.png"),
        ("batch.png", "docs/lists.md", "../scripts/batch.png"),
    ):
        assert f"{place})" in (ROOT / document).read_text(encoding="utf-8")
        for picture in (tmp_path / name, ROOT / "scripts" / name):
            content = picture.read_bytes()
            assert content.startswith(b"\x89PNG")
            assert len(content) < 200_000
