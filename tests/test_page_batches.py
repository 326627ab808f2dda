"""The pages of lists: how they are submitted, watched, read, canceled and retried in a browser."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Page, expect

from md5light.lists.formats import FORMS
from tests.browser import BROWSER_ACCEPT, SCREENS, Open, check_looks, words
from tests.origin import Gate, Origin
from tests.service import Service, running

pytestmark = pytest.mark.slow

MD5 = hashlib.md5(b"hello\n").hexdigest()
WRONG = "0" * 32


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        origin.serve("/hello.txt", b"hello\n")
        origin.serve("/a%20name.txt", b"hello\n")
        yield origin


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    download = {"allow_networks": "127.0.0.0/8", "read_timeout": 60}
    with running(tmp_path_factory.mktemp("service"), download=download) as service:
        yield service


def send(service: Service, lines: str, **options: str) -> str:
    """Submit a list as a program does, and return the path of its batch."""
    answer = requests.post(
        f"{service.url}/batches", params=options, data=lines.encode(), timeout=60
    )
    assert answer.status_code == 202, answer.text
    return f"/batches/{answer.json()['id']}"


def mixed(origin: Origin) -> str:
    """Return a list with a line of each kind of end."""
    url = origin.url("/hello.txt")
    return f"{url} {MD5}\n{url}#x {WRONG}\n{origin.url('/missing')}\n{url}?y\n"


def held(origin: Origin, path: str) -> Gate:
    """Serve a file that comes when the gate is opened."""
    gate = origin.gate()

    def script(peer: object) -> None:
        gate.wait(60)
        peer.reply(b"held")  # type: ignore[attr-defined]

    origin.serve(path, script)
    return gate


def fill_list(page: Page, lines: str) -> None:
    page.get_by_text("Many files at once").click()
    page.get_by_label("One URL a line").fill(lines)


@pytest.mark.parametrize("scripted", [True, False], ids=["script", "no script"])
def test_a_pasted_list_is_taken_and_worked_through(
    open_page: Open, origin: Origin, scripted: bool
) -> None:
    page = open_page(java_script_enabled=scripted)
    fill_list(page, mixed(origin))
    page.get_by_text("Options").click()
    page.get_by_label("Name of the list").fill("Mirror <b>")
    page.get_by_label("Digests").select_option("sha256")
    page.get_by_role("button", name="Get the sums").click()
    page.wait_for_url("**/batches/*")
    expect(page.get_by_role("heading", level=1)).to_have_text("Mirror <b>")
    expect(page.locator(".head .status")).to_have_text("Done", timeout=15_000)
    expect(page.locator(".filters a")).to_have_text(
        ["All 4", "Matched 1", "Done 1", "Mismatched 1", "Failed 1"]
    )
    expect(page.locator(".head .figures")).to_have_text(words(r"^4 of 4 files · \d+ bytes · in "))
    expect(page.locator(".errors tbody tr")).to_have_text(
        re.compile(r"Instead of the file the server sent an error\.\s*1\s*3")
    )
    expect(page.locator("dl")).to_contain_text(re.compile(r"Digests\s*MD5, SHA-256"))
    rows = page.locator(".lines tbody tr")
    expect(rows.locator(".status")).to_have_text(["Matched", "Mismatched", "Failed", "Done"])
    expect(rows.nth(0).locator(".md5")).to_have_text(MD5)
    expect(rows.nth(1).locator(".reason")).to_contain_text("Different: MD5.")
    expect(rows.nth(2).locator(".reason")).to_contain_text("the server sent the error 404.")


@pytest.mark.parametrize("scripted", [True, False], ids=["script", "no script"])
def test_a_list_may_be_a_file(
    open_page: Open, origin: Origin, tmp_path: Path, scripted: bool
) -> None:
    (tmp_path / "MD5SUMS").write_text(f"{MD5}  hello.txt\n{MD5}  a name.txt\n")
    page = open_page(java_script_enabled=scripted)
    page.get_by_text("Many files at once").click()
    page.get_by_label("or a file with the lines").set_input_files(tmp_path / "MD5SUMS")
    page.get_by_text("Options").click()
    page.get_by_label("URL that names").fill(origin.url("/"))
    page.get_by_role("button", name="Get the sums").click()
    page.wait_for_url("**/batches/*")
    expect(page.locator(".filters a").nth(1)).to_have_text("Matched 2", timeout=15_000)
    expect(page.locator(".lines .file")).to_have_text(["hello.txt", "a name.txt"])
    expect(page.get_by_role("heading", level=1)).to_have_text("List of 2 files")


def test_a_file_can_be_dropped_on_the_page(open_page: Open, origin: Origin) -> None:
    page = open_page()
    page.evaluate(
        "text => {"
        " const dataTransfer = new DataTransfer();"
        " dataTransfer.items.add(new File([text], 'list.txt'));"
        " document.body.dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true })) }",
        origin.url("/hello.txt"),
    )
    page.get_by_role("button", name="Get the sums").click()
    page.wait_for_url("**/batches/*")
    expect(page.locator(".filters a").first).to_have_text("All 1")


@pytest.mark.parametrize("scripted", [True, False], ids=["script", "no script"])
@pytest.mark.parametrize("screen", SCREENS)
def test_wrong_lines_are_shown_and_nothing_is_lost(
    open_page: Open, origin: Origin, screen: str, scripted: bool
) -> None:
    page = open_page(java_script_enabled=scripted, **SCREENS[screen])
    lines = f"{origin.url('/hello.txt')}\nftp://<b>\n{origin.url('/hello.txt')} 77zz\n"
    page.locator("#list > summary").click()
    page.locator("#lines").fill(lines)
    page.locator("#list .folded summary").click()
    page.locator("#base").fill("http://example.com/é")
    page.locator("#batch .main").click()
    problem = page.locator("#list-problem")
    expect(problem.locator(".number a")).to_have_text(["2", "3"])
    expect(problem.locator(".sent")).to_have_text(["ftp://<b>", lines.splitlines()[2]])
    expect(page.locator("#lines")).to_have_value(lines)
    expect(page.locator("#base")).to_have_value("http://example.com/é")
    if scripted:
        problem.get_by_role("link").nth(1).click()
        expect(page.locator("#lines")).to_be_focused()
        assert page.evaluate("getSelection().toString()") == lines.splitlines()[2]
        check_looks(page)
    page.locator("#lines").fill(origin.url("/hello.txt"))
    page.locator("#batch .main").click()
    page.wait_for_url("**/batches/*")


def test_what_is_wrong_with_a_whole_list_is_told(
    open_page: Open, origin: Origin, tmp_path: Path
) -> None:
    page = open_page()
    page.get_by_text("Many files at once").click()
    page.get_by_role("button", name="Get the sums").click()
    expect(page.locator("#list-problem")).to_have_text("The list has no lines.")
    (tmp_path / "list.txt").write_text(origin.url("/hello.txt"))
    page.get_by_label("or a file with the lines").set_input_files(tmp_path / "list.txt")
    page.get_by_label("One URL a line").fill(origin.url("/hello.txt"))
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
    open_page: Open, service: Service, origin: Origin, scripted: bool
) -> None:
    gate = held(origin, f"/held-{scripted}")
    lines = f"{origin.url('/hello.txt')} {MD5}\n{origin.url(f'/held-{scripted}')}\n"
    page = open_page(send(service, lines), java_script_enabled=scripted)
    expect(page.locator(".filters a")).to_have_text(
        ["All 2", "Matched 1", "Mismatched 0", "Failed 0", "Running 1"], timeout=15_000
    )
    expect(page).to_have_title(re.compile(r"^50\s%: List of 2 files · md5light$"))
    expect(page.locator(".head .figures")).to_have_text(
        words(r"^1 of 2 files · 6 bytes · [\d.]+ files/s · .+ left$")
    )
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .status")).to_have_text("Canceled", timeout=15_000)
    expect(page.locator(".filters a").last).to_have_text("Canceled 1")
    gate.set()
    page.get_by_role("button", name="Retry the failed").click()
    expect(page.locator(".head .status")).to_have_text("Done", timeout=15_000)
    expect(page.locator(".filters a").nth(2)).to_have_text("Done 1")
    expect(page.locator(".actions button")).to_have_count(0)
    assert not re.search(r"/(cancel|retry)$", page.url)


@pytest.mark.parametrize("screen", SCREENS)
def test_nobody_is_left_out_of_a_batch(
    open_page: Open, service: Service, origin: Origin, screen: str
) -> None:
    gate = held(origin, f"/held-{screen}")
    long_name = origin.url(f"/{'long' * 100}")
    lines = f"{mixed(origin)}{origin.url(f'/held-{screen}')}\n{long_name}\n"
    path = send(service, lines, name="x" * 200)
    page = open_page(path, **SCREENS[screen])
    expect(page.locator(".filters a")).to_have_count(6, timeout=15_000)
    check_looks(page)
    page.locator(".filters a").nth(3).click()
    expect(page.locator(".lines tbody tr")).to_have_count(1)
    check_looks(page)
    page.locator(".actions button").click()
    expect(page.locator(".head")).to_have_attribute("data-status", "canceled")
    check_looks(page)
    gate.set()
    check_looks(open_page("/batches/nothing", **SCREENS[screen]))


def test_lines_come_in_pages_and_by_status(
    open_page: Open, service: Service, origin: Origin
) -> None:
    held(origin, "/held")
    lines = "".join(f"{origin.url('/held')}?{number}\n" for number in range(450))
    page = open_page(send(service, lines))
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
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .status")).to_have_text("Canceled")


@pytest.mark.parametrize(
    "query", ["status=rubbish", "after=-1", "after=x", "after=99999999999999999999", "after=²"]
)
def test_a_query_that_makes_no_sense_shows_the_first_lines(
    service: Service, origin: Origin, query: str
) -> None:
    url = service.url + send(service, origin.url("/hello.txt"))
    answer = requests.get(f"{url}?{query}", headers={"Accept": BROWSER_ACCEPT}, timeout=10)
    assert answer.status_code == 200
    assert 'aria-current="true">All' in answer.text
    assert "hello.txt" in answer.text


def test_every_manifest_can_be_downloaded(
    open_page: Open, service: Service, origin: Origin
) -> None:
    page = open_page(send(service, mixed(origin)))
    expect(page.locator(".head .status")).to_have_text("Done")
    links = page.locator(".downloads a")
    expect(links).to_have_text(list(FORMS))
    for link in links.all():
        answer = requests.get(service.url + str(link.get_attribute("href")), timeout=10)
        assert answer.status_code == 200
        assert answer.headers["Content-Disposition"].startswith("attachment")


def test_the_link_to_share_leads_to_the_batch(
    open_page: Open, service: Service, origin: Origin
) -> None:
    path = send(service, origin.url("/hello.txt"))
    page = open_page(path, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    assert page.evaluate("navigator.clipboard.readText()") == service.url + path


def test_a_batch_that_is_not_there_is_told(open_page: Open, service: Service) -> None:
    for path in ("/batches/0e4fac17-f367-4807-8c28-8a059a2f82ac", "/batches/nothing"):
        page = open_page(path)
        expect(page.get_by_role("heading")).to_contain_text("There is no list at this address.")
        answer = requests.get(service.url + path, timeout=10)
        assert (answer.status_code, answer.json()) == (404, {"status": "not found"})


def test_a_button_pressed_too_late_shows_the_batch(service: Service, origin: Origin) -> None:
    path = send(service, origin.url("/hello.txt"))
    headers = {"Accept": BROWSER_ACCEPT}
    for action in ("cancel", "cancel", "retry", "retry"):
        answer = requests.post(
            f"{service.url}{path}/{action}", headers=headers, allow_redirects=False, timeout=10
        )
        assert (answer.status_code, answer.headers["Location"]) == (303, path)


def test_a_page_of_another_site_cancels_nothing(service: Service, origin: Origin) -> None:
    path = send(service, origin.url("/hello.txt"))
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
