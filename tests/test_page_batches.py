"""The pages of lists: how they are submitted, watched, read, canceled and retried in a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from md5light.lists.formats import FORMS
from tests.browser import BROWSER_ACCEPT, Open, listing, opening, words
from tests.origin import Origin
from tests.service import Service, running
from tests.states import (
    DIGESTS,
    DONE,
    FAILED,
    HOST,
    MD5,
    QUEUED,
    RUNNING,
    URL,
    States,
    line,
    mixed,
)

pytestmark = pytest.mark.slow

WRONG = "0" * 32


def waiting(states: States, count: int) -> str:
    return states.batch([(line(number), QUEUED) for number in range(1, count + 1)])


def fill_list(page: Page, lines: str) -> None:
    page.get_by_text("Many files at once").click()
    page.get_by_label("One URL a line").fill(lines)


def check_mixed(page: Page) -> None:
    """Check the page of a list with a line of each kind of end."""
    expect(page.locator(".card > .status")).to_have_text("Done")
    expect(page.locator(".filters a")).to_have_text(
        ["All 4", "Matched 1", "Done 1", "Mismatched 1", "Failed 1"]
    )
    expect(page.locator(".card > .figures")).to_have_text(words(r"^4 of 4 files · \d+ bytes · in "))
    expect(page.locator(".errors tbody tr")).to_have_text(
        re.compile(r"Instead of the file the server sent an error\.\s*1\s*3")
    )
    expect(page.locator("dl")).to_contain_text(re.compile(r"Digests\s*MD5, SHA-256"))
    rows = page.locator(".lines tbody tr")
    expect(rows.locator(".status")).to_have_text(["Matched", "Mismatched", "Failed", "Done"])
    expect(rows.nth(0).locator(".md5")).to_have_text(MD5)
    expect(rows.nth(1).locator(".reason")).to_contain_text("Different: MD5.")
    expect(rows.nth(2).locator(".reason")).to_contain_text("the server sent the error 404.")


def send_list(page: Page, lines: str) -> None:
    fill_list(page, lines)
    page.locator("#list .folded summary").click()
    page.get_by_label("Name of the list").fill("Mirror <b>")
    page.locator("#digests").select_option("sha256")
    page.get_by_role("button", name="Get the sums").click()
    page.wait_for_url("**/batches/*")
    expect(page.get_by_role("heading", level=1)).to_have_text("Mirror <b>")


def test_a_pasted_list_is_taken_and_worked_through(
    browser: Browser, origin: Origin, tmp_path: Path
) -> None:
    url = origin.serve("/hello.txt", b"hello\n")
    missing = origin.url("/missing")
    with running(tmp_path) as service, opening(browser, service.url) as open_page:
        page = open_page()
        send_list(page, f"{url} {MD5}\n{url}#x {WRONG}\n{missing}\n{url}?y\n")
        check_mixed(page)


def test_a_list_is_taken_and_watched_without_a_script(open_page: Open, states: States) -> None:
    page = open_page(java_script_enabled=False)
    send_list(page, f"{URL} {MD5}\n{URL}#x {WRONG}\n{URL}?x\n{URL}?y\n")
    expect(page.locator(".filters a")).to_have_text(
        ["All 4", "Mismatched 0", "Failed 0", "Waiting 4"]
    )
    digests = {"sha256": DIGESTS["sha256"]}
    done = {**DONE, **digests}
    states.settle(page.url, {1: done, 2: done, 3: FAILED, 4: done})
    check_mixed(page)  # it loads itself again


@pytest.mark.parametrize("scripted", [True, False], ids=["script", "no script"])
def test_a_list_may_be_a_file(open_page: Open, tmp_path: Path, scripted: bool) -> None:
    (tmp_path / "MD5SUMS").write_text(f"{MD5}  hello.txt\n{MD5}  a name.txt\n")
    page = open_page(java_script_enabled=scripted)
    page.get_by_text("Many files at once").click()
    page.get_by_label("or a file with the lines").set_input_files(tmp_path / "MD5SUMS")
    page.locator("#list .folded summary").click()
    page.get_by_label("URL that names").fill(f"https://{HOST}/")
    page.get_by_role("button", name="Get the sums").click()
    page.wait_for_url("**/batches/*")
    expect(page.get_by_role("heading", level=1)).to_have_text("List of 2 files")
    expect(page.locator(".lines .file")).to_have_text(["hello.txt", "a name.txt"])
    urls = [f"https://{HOST}/hello.txt", f"https://{HOST}/a%20name.txt"]
    expect(page.locator(".lines .url")).to_have_text(urls)


def test_a_file_can_be_dropped_on_the_page(open_page: Open) -> None:
    page = open_page()
    page.evaluate(
        "text => {"
        " const dataTransfer = new DataTransfer();"
        " dataTransfer.items.add(new File([text], 'list.txt'));"
        " document.body.dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true })) }",
        URL,
    )
    page.get_by_role("button", name="Get the sums").click()
    page.wait_for_url("**/batches/*")
    expect(page.locator(".filters a").first).to_have_text("All 1")


@pytest.mark.parametrize("locale", ["en-GB", "ru-RU"])
@pytest.mark.parametrize("scripted", [True, False], ids=["script", "no script"])
def test_wrong_lines_are_shown_and_nothing_is_lost(
    open_page: Open, locale: str, scripted: bool
) -> None:
    page = open_page(java_script_enabled=scripted, locale=locale)
    lines = f"{URL}\nftp://<b>\n{URL} 77zz\n"
    page.locator("#list > summary").click()
    page.locator("#lines").fill(lines)
    page.locator("#list .folded summary").click()
    page.locator("#base").fill("http://example.com/é")
    page.locator("#batch .main").click()
    problem = page.locator("#list-problem")
    expect(problem.locator(".number a")).to_have_text(["2", "3"])
    expect(problem.locator(".sent")).to_have_text(["ftp://<b>", lines.splitlines()[2]])
    expect(problem.locator("td").last).to_contain_text("77zz")
    expect(page.locator("#lines")).to_have_value(lines)
    expect(page.locator("#base")).to_have_value("http://example.com/é")
    if scripted:
        problem.get_by_role("link").nth(1).click()
        expect(page.locator("#lines")).to_be_focused()
        assert page.evaluate("getSelection().toString()") == lines.splitlines()[2]
    page.locator("#lines").fill(URL)
    page.locator("#batch .main").click()
    page.wait_for_url("**/batches/*")


def test_what_is_wrong_with_a_whole_list_is_told(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    page.get_by_text("Many files at once").click()
    page.get_by_role("button", name="Get the sums").click()
    expect(page.locator("#list-problem")).to_have_text("The list has no lines.")
    (tmp_path / "list.txt").write_text(URL)
    page.get_by_label("or a file with the lines").set_input_files(tmp_path / "list.txt")
    page.get_by_label("One URL a line").fill(URL)
    page.get_by_role("button", name="Get the sums").click()
    expect(page.locator("#list-problem")).to_have_text(
        "Either paste lines or choose a file, not both."
    )
    page.context.set_offline(True)
    page.get_by_role("button", name="Get the sums").click()
    expect(page.locator("#list-problem")).to_have_text(re.compile("can't be reached"))
    page.context.set_offline(False)


@pytest.mark.parametrize("scripted", [True, False], ids=["script", "no script"])
def test_a_batch_is_watched_canceled_and_retried(
    open_page: Open, states: States, scripted: bool
) -> None:
    path = states.batch([(line(1, expected={"md5": MD5}), DONE), (line(2), RUNNING)], age=10)
    page = open_page(path, java_script_enabled=scripted)
    expect(page.locator(".filters a")).to_have_text(
        ["All 2", "Matched 1", "Mismatched 0", "Failed 0", "Running 1"]
    )
    expect(page).to_have_title(re.compile(r"^50\s%: List of 2 files · md5light$"))
    expect(page.locator(".card > .figures")).to_have_text(
        words(r"^1 of 2 files · 6 bytes · 0\.1 files/s · 1\d s left$")
    )
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".card > .status")).to_have_text("Canceled")
    expect(page.locator(".filters a").last).to_have_text("Canceled 1")
    page.get_by_role("button", name="Retry the failed").click()
    expect(page.locator(".card > .status")).to_have_text("Running")
    states.settle(path, {2: DONE})
    if not scripted:
        page.reload()
    expect(page.locator(".card > .status")).to_have_text("Done")
    expect(page.locator(".filters a").nth(2)).to_have_text("Done 1")
    expect(page.locator(".actions button").filter(visible=True)).to_have_count(0)
    assert not re.search(r"/(cancel|retry)$", page.url)


def test_a_batch_is_kept_in_the_list_beside_jobs(
    open_page: Open, service: Service, states: States
) -> None:
    job = states.job(f"https://{HOST}/single.txt", **DONE)
    page = open_page(storage_state=listing(service.url, job))
    fill_list(page, f"{URL}\n{URL}?2\n")
    page.get_by_role("button", name="Get the sums").click()
    page.wait_for_url("**/batches/*")
    path = page.url.removeprefix(service.url)
    page.goto(service.url)
    expect(page.locator("#jobs .name")).to_have_text(["List of 2 files", "single.txt"])
    batch = page.locator("#jobs li").first
    expect(batch.locator(".figures")).to_have_text(words("0 of 2 files · 0 bytes"))
    states.settle(path, {1: DONE})
    expect(page).to_have_title(re.compile(r"^50\s% · The MD5 of a file"))
    states.settle(path, {2: FAILED})
    expect(batch.locator(".status")).to_have_text("Done")
    expect(batch.locator(".summary")).to_have_text("Done 1, Mismatched 0, Failed 1")
    expect(page.get_by_role("status")).to_have_text(
        "List of 2 files, Done, Done 1, Mismatched 0, Failed 1"
    )
    batch.get_by_role("button", name="Retry the failed").click()
    expect(batch.locator(".status")).to_have_text("Running")
    batch.get_by_role("button", name="Cancel").click()
    expect(batch.locator(".status")).to_have_text("Canceled")
    page.get_by_role("button", name="Remove List of 2 files from the list").click()
    expect(page.locator("#jobs .name")).to_have_text(["single.txt"])
    page.reload()
    expect(page.locator("#jobs .name")).to_have_text(["single.txt"])


def test_lines_come_in_pages_and_by_status(open_page: Open, states: States) -> None:
    page = open_page(waiting(states, 450))
    numbers = page.locator(".lines tbody .number")
    expect(numbers).to_have_count(200)
    page.get_by_role("link", name="Next lines").click()
    expect(page.get_by_role("heading", name="Lines 201 to 400")).to_be_visible()
    page.get_by_role("link", name="Next lines").click()
    expect(numbers).to_have_count(50)
    expect(numbers.first).to_have_text("401")
    expect(page.get_by_role("link", name="Next lines")).to_have_count(0)
    page.get_by_role("link", name="First lines").click()
    expect(numbers.first).to_have_text("1")
    page.get_by_role("link", name=re.compile("^Mismatched")).click()
    expect(page.locator(".none")).to_have_text("There are no such lines.")
    expect(page.locator("[aria-current=true]")).to_have_text("Mismatched 0")


def test_lines_of_a_status_come_in_pages(service: Service, states: States) -> None:
    lines = [(line(number), DONE if number % 2 else FAILED) for number in range(1, 411)]
    url = service.url + states.batch(lines)
    for after, count, follows in ((0, 200, True), (400, 5, False)):
        page = requests.get(
            f"{url}?status=failed&after={after}", headers={"Accept": BROWSER_ACCEPT}, timeout=10
        ).text
        assert page.count('<span class="status">Failed') == page.count("<td data-status") == count
        assert ('rel="next"' in page) == follows


def test_a_line_leads_to_its_jobs_page(open_page: Open, states: States) -> None:
    page = open_page(states.batch(mixed()))
    rows = page.locator(".lines tbody tr")
    expect(rows.last.get_by_role("link")).to_have_count(0)  # it could not be read
    rows.nth(2).get_by_role("link").click()
    page.wait_for_url("**/jobs/*")
    expect(page.locator(".url")).to_have_text(f"{URL}?3")
    expect(page.locator(".status")).to_have_text("Failed")


@pytest.mark.parametrize(
    "query", ["status=rubbish", "after=-1", "after=x", "after=99999999999999999999", "after=²"]
)
def test_a_query_that_makes_no_sense_shows_the_first_lines(
    service: Service, states: States, query: str
) -> None:
    url = service.url + waiting(states, 1)
    answer = requests.get(f"{url}?{query}", headers={"Accept": BROWSER_ACCEPT}, timeout=10)
    assert answer.status_code == 200
    assert 'aria-current="true">All' in answer.text
    assert "hello.txt" in answer.text


def test_every_manifest_can_be_downloaded(
    open_page: Open, service: Service, states: States
) -> None:
    page = open_page(states.batch(mixed()))
    links = page.locator(".downloads a")
    expect(links).to_have_text(list(FORMS))
    for link in links.all():
        answer = requests.get(service.url + str(link.get_attribute("href")), timeout=10)
        assert answer.status_code == 200
        assert answer.headers["Content-Disposition"].startswith("attachment")


def test_the_link_to_share_leads_to_the_batch(
    open_page: Open, service: Service, states: States
) -> None:
    path = waiting(states, 1)
    page = open_page(path, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    assert page.evaluate("navigator.clipboard.readText()") == service.url + path


def test_a_batch_that_is_not_there_is_told(open_page: Open, service: Service) -> None:
    page = open_page()
    for path in ("/batches/0e4fac17-f367-4807-8c28-8a059a2f82ac", "/batches/nothing"):
        page.goto(service.url + path)
        expect(page.get_by_role("heading")).to_contain_text("There is no list at this address.")
        answer = requests.get(service.url + path, timeout=10)
        assert (answer.status_code, answer.json()) == (404, {"status": "not found"})


def test_a_button_pressed_too_late_shows_the_batch(service: Service, states: States) -> None:
    path = waiting(states, 1)
    headers = {"Accept": BROWSER_ACCEPT}
    for action in ("cancel", "cancel", "retry", "retry"):
        answer = requests.post(
            f"{service.url}{path}/{action}", headers=headers, allow_redirects=False, timeout=10
        )
        assert (answer.status_code, answer.headers["Location"]) == (303, path)


def test_a_page_of_another_site_cancels_nothing(service: Service, states: States) -> None:
    path = waiting(states, 1)
    for action in ("cancel", "retry"):
        answer = requests.post(
            f"{service.url}{path}/{action}",
            headers={"Accept": BROWSER_ACCEPT, "Origin": "https://elsewhere.example"},
            timeout=10,
        )
        assert answer.status_code == 403


def test_a_service_without_batches_has_no_form(tmp_path: Path) -> None:
    with Service(tmp_path, server={"max_batch_lines": 0, "port": 0}) as service:
        service.start_server()
        page = requests.get(service.url, headers={"Accept": BROWSER_ACCEPT}, timeout=10).text
    assert 'id="submit"' in page
    assert 'id="batch"' not in page
