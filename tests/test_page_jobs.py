"""What can be done with a job on its pages, and the habits of browsers that they meet."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Route, expect

from md5light.web.forms import completed
from md5light.web.tokens import digest
from tests.browser import BROWSER_ACCEPT, Open, listing
from tests.service import Service
from tests.states import DONE, FAILED, HOST, MD5, RUNNING, States
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

SITE = f"https://{HOST}"


@pytest.mark.parametrize("scripted", [True, False], ids=["script", "no script"])
def test_a_job_is_canceled_and_tried_again(
    open_page: Open, service: Service, states: States, scripted: bool
) -> None:
    path = states.job(**RUNNING)
    page = open_page(path, java_script_enabled=scripted)
    expect(page).to_have_title(re.compile(r"^50\s%: hello.txt · md5light$"))
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".status")).to_have_text("Canceled")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".status")).to_have_text("Waiting")
    states.change(path, **DONE)
    if not scripted:
        page.reload()
    expect(page.locator(".status")).to_have_text("Done")
    expect(page.locator(".actions button").filter(visible=True)).to_have_count(0)
    assert page.url == service.url + path


def test_a_card_is_canceled_tried_again_and_removed(
    open_page: Open, service: Service, states: States
) -> None:
    path, other = states.job(**RUNNING), states.job(f"{SITE}/other.txt", **DONE)
    page = open_page(storage_state=listing(service.url, path, other))
    job = page.locator("#jobs li").first
    expect(page).to_have_title(re.compile(r"^50\s% · The MD5 of a file"))
    job.get_by_role("button", name="Cancel").press("Enter")
    expect(job.locator(".status")).to_have_text("Canceled")
    expect(job.get_by_role("button", name="Try again")).to_be_focused()
    expect(page).to_have_title(re.compile("^The MD5 of a file"))
    page.keyboard.press("Enter")
    expect(job.locator(".status")).to_have_text("Waiting")
    page.get_by_role("button", name="Remove hello.txt from the list").click()
    expect(page.locator(".name")).to_have_text(["other.txt"])
    expect(page.get_by_role("link", name="other.txt")).to_be_focused()
    page.reload()
    expect(page.locator(".name")).to_have_text(["other.txt"])
    page.get_by_role("button", name="Remove other.txt from the list").click()
    expect(page.locator("#jobs")).to_be_hidden()
    expect(page.locator("#url")).to_be_focused()


def test_an_action_that_is_refused_after_the_page_was_refreshed_is_not_lost(
    open_page: Open, states: States
) -> None:
    path = states.job(**RUNNING)
    page = open_page(path)
    held: list[Route] = []
    page.route("**/cancel", lambda route: held.append(route))
    page.get_by_role("button", name="Cancel").click()
    for _ in range(2):
        with page.expect_response(f"**{path}"):
            pass
    page.route("**/cancel", refuse)
    refuse(held.pop())
    expect(page.locator("h1")).to_have_text("Refused")


def refuse(route: Route) -> None:
    route.fulfill(status=401, content_type="text/html", body="<h1>Refused</h1>")


@pytest.mark.parametrize("scripted", [True, False], ids=["script", "no script"])
def test_a_pasted_digest_is_compared(open_page: Open, states: States, scripted: bool) -> None:
    page = open_page(states.job(**DONE), java_script_enabled=scripted)
    verdict = page.locator("#comparison .verdict")
    colours = set()
    for pasted, check in ((f" {MD5.upper()} ", "matched"), ("0" * 32, "mismatched"), ("x", "")):
        page.locator("#digest").fill(pasted)
        page.locator(".compare button").click()
        expect(verdict).to_have_attribute("data-check", check)
        expect(page.locator("#digest")).to_have_value(pasted)
        colours.add(verdict.evaluate("verdict => getComputedStyle(verdict).color"))
    assert len(colours) == 3


def test_the_line_of_md5sum_is_copied(open_page: Open, states: States) -> None:
    page = open_page(
        states.job(f"{SITE}/b%20c.txt?x", **DONE),
        permissions=["clipboard-read", "clipboard-write"],
    )
    expect(page.locator(".name")).to_have_text("b c.txt")
    page.get_by_role("button", name="Copy md5sum line").click()
    assert page.evaluate("navigator.clipboard.readText()") == f"{MD5}  b c.txt"


def test_times_are_the_readers_and_utc_is_in_the_tooltip(
    open_page: Open, service: Service, states: States
) -> None:
    path = states.job(**DONE)
    created_at = service.job(path.removeprefix("/jobs/"))["created_at"]
    shown = {}
    for zone in ("Asia/Tokyo", "America/New_York"):
        page = open_page(path, timezone_id=zone)
        time = page.locator("time").first
        expect(time).to_have_attribute("datetime", created_at)
        expect(time).to_have_attribute("title", re.compile(r"^[\d-]+ [\d:]+ UTC$"))
        shown[zone] = time.text_content()
    assert len(set(shown.values())) == 2
    plain = open_page(path, java_script_enabled=False)
    expect(plain.locator("time").first).to_have_text(re.compile(r"^[\d-]+ [\d:]+ UTC$"))


def test_a_job_is_retried_once(service: Service, states: States) -> None:
    failed, done = states.job(**FAILED), states.job(**DONE)
    answer = requests.post(f"{service.url}{failed}/retry", timeout=10)
    assert answer.status_code == 202
    assert answer.headers["Location"] == failed
    assert (answer.json()["status"], answer.json()["attempts"]) == ("queued", 0)
    for path in (failed, done):
        again = requests.post(f"{service.url}{path}/retry", timeout=10)
        assert (again.status_code, again.json()["error"]["code"]) == (409, "nothing_to_retry")
    for path in ("/jobs/nothing", "/jobs/0e4fac17-f367-4807-8c28-8a059a2f82ac"):
        missing = requests.post(f"{service.url}{path}/retry", timeout=10)
        assert (missing.status_code, missing.json()) == (404, {"status": "not found"})


# --- habits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("  https://example.com/a \n", "https://example.com/a"),
        ("example.com", "https://example.com"),
        ("www.example.com/a?b#c", "https://www.example.com/a?b#c"),
        ("example.com:8080/a", "https://example.com:8080/a"),
        ("localhost:8080", "https://localhost:8080"),
        ("пример.рф/файл", "https://пример.рф/файл"),
        ("ftp://example.com/a", "ftp://example.com/a"),
        ("mailto:ann@example.com", "mailto:ann@example.com"),
        ("hello", "hello"),
        ("hello world.txt", "hello world.txt"),
        ("", ""),
    ],
)
def test_a_typed_url_is_completed(typed: str, url: str) -> None:
    assert completed(typed) == url


@pytest.mark.parametrize("scripted", [True, False], ids=["script", "no script"])
def test_a_url_without_its_scheme_is_taken(open_page: Open, scripted: bool) -> None:
    page = open_page(java_script_enabled=scripted)
    page.locator("#url").fill(f"  {HOST}/hello.txt ")
    page.locator("#submit button").click()
    expect(page.locator(".card .url")).to_have_text(f"https://{HOST}/hello.txt")


def test_programs_get_no_such_help(service: Service) -> None:
    for url in ("example.com/a", " https://example.com/a"):
        answer = requests.post(f"{service.url}/submit", json={"url": url}, timeout=10)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_url")


def test_a_link_can_fill_the_field_and_submits_nothing(open_page: Open) -> None:
    page = open_page("/?url=https%3A%2F%2Fexample.com%2F%22%3E%3Cb%3E%C3%A9")
    expect(page.locator("#url")).to_have_value('https://example.com/"><b>é')
    expect(page.locator("#url")).to_be_focused()
    expect(page.locator(".card")).to_have_count(0)


def test_the_reader_is_notified_if_asked(open_page: Open, service: Service, states: States) -> None:
    path = states.job(**RUNNING)
    page = open_page(storage_state=listing(service.url, path), permissions=["notifications"])
    page.evaluate("""() => {
        window.shown = [];
        window.Notification = class extends Notification {
            constructor(title, options) { super(title, options); shown.push(options.body); }
        };
    }""")
    page.get_by_label("Notify me when it is done").check()
    expect(page.locator(".figures")).to_contain_text("500")
    states.change(path, **DONE)
    wait_until(lambda: page.evaluate("shown.length"), message="a notification")
    assert page.evaluate("shown") == ["hello.txt, Done"]
    page.reload()
    expect(page.get_by_label("Notify me when it is done")).to_be_checked()
    page.get_by_label("Notify me when it is done").uncheck()
    page.reload()
    expect(page.get_by_label("Notify me when it is done")).not_to_be_checked()


def test_who_asked_for_nothing_is_not_notified(
    open_page: Open, service: Service, states: States
) -> None:
    path = states.job(**RUNNING)
    page = open_page(storage_state=listing(service.url, path), permissions=["notifications"])
    page.evaluate("""() => {
        window.Notification = class extends Notification {
            constructor(...details) { super(...details); window.wasShown = true; }
        };
    }""")
    expect(page.locator(".status")).to_have_text("Running")
    states.change(path, **DONE)
    expect(page.locator(".status")).to_have_text("Done")
    assert page.evaluate("window.wasShown") is None


@pytest.mark.parametrize("path", ["/nothing", "/jobs", "/page/old/style.css"])
def test_a_path_that_is_not_there_is_a_page_in_a_browser(
    open_page: Open, service: Service, path: str
) -> None:
    page = open_page(path)
    expect(page.get_by_role("heading")).to_have_text("There is nothing at this address.")
    answer = requests.get(service.url + path, headers={"Accept": BROWSER_ACCEPT}, timeout=10)
    assert answer.status_code == 404
    assert "default-src 'none'; script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert requests.get(service.url + path, timeout=10).json()["error"]["code"] == "not_found"


def test_the_api_can_be_read_and_its_commands_copied(open_page: Open, service: Service) -> None:
    page = open_page("/openapi.json", permissions=["clipboard-read", "clipboard-write"])
    page.locator(".call .copy").first.click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f'curl --data-urlencode "url=https://…" {service.url}/submit'
    document = requests.get(f"{service.url}/openapi.json", timeout=10).json()
    calls = sum(len(methods) for methods in document["paths"].values())
    expect(page.locator(".call")).to_have_count(calls)


def test_a_wrong_token_is_told(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"ann:{digest(b'secret').hex()}\n")
    server = {"port": 0, "tokens_file": tmp_path / "tokens"}
    with Service(tmp_path, server=server) as service:
        service.start_server()
        said = {}
        for password in (None, "wrong", "secret"):
            answer = requests.post(
                f"{service.url}/submit",
                data={"url": "https://example.com/"},
                auth=("ann", password) if password else None,
                headers={"Accept": BROWSER_ACCEPT, "Accept-Language": "en"},
                allow_redirects=False,
                timeout=10,
            )
            said[password] = (answer.status_code, answer.text)
            assert ("WWW-Authenticate" in answer.headers) == (answer.status_code == 401)
    assert "This service is for those who have a token." in said[None][1]
    assert "The token, or its name, is wrong." in said["wrong"][1]
    assert [status for status, _ in said.values()] == [401, 401, 303]
