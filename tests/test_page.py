"""The page for people, in a real Chromium, over a real server and pool."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, Route, expect

from md5light.web.browser import preferred_language, prefers_html
from tests.browser import BROWSER_ACCEPT, Open, listing, opening, words
from tests.origin import Gate, Origin, Peer, reply
from tests.service import Service, running
from tests.states import (
    AGAIN,
    DIGESTS,
    DONE,
    ENDLESS,
    FAILED,
    HOST,
    MD5,
    RUNNING,
    URL,
    States,
)

pytestmark = pytest.mark.slow

SITE = f"https://{HOST}"
LARGE = b"0123456789" * 100_000
HOSTILE = "/<img/src=x/onerror=alert(1)>\"'</title></script><script>alert(1)</script>{{7*7}}%0A%25"


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that downloads."""
    with running(tmp_path_factory.mktemp("working"), download={"read_timeout": 60}) as service:
        yield service


def serve_in_two(origin: Origin, path: str) -> Gate:
    """Serve LARGE up to its half until the gate is opened."""
    gate = origin.gate()

    def script(peer: Peer) -> None:
        peer.send(reply(length=len(LARGE)) + LARGE[: len(LARGE) // 2])
        gate.wait(60)
        peer.send(LARGE[len(LARGE) // 2 :])

    origin.serve(path, script)
    return gate


def submit(page: Page, url: str = URL, email: str = "") -> Locator:
    """Submit the form and return the new job's card."""
    before = page.locator(".card").count()
    page.locator("#url").fill(url)
    page.locator("#email").fill(email)
    page.locator("#submit button").click()
    expect(page.locator(".card")).to_have_count(before + 1)
    return page.locator("[data-item]").first


def change(states: States, job: Locator, columns: Mapping[str, Any]) -> None:
    """Give a submitted job another state; the page sees it at its next look."""
    states.change(str(job.get_attribute("data-item")), **columns)


def set_hidden(page: Page, hidden: bool) -> None:
    page.evaluate(
        "hidden => {"
        " Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')) }",
        hidden,
    )


# --- with a script --------------------------------------------------------------------------------


def test_a_file_is_submitted_watched_and_done(
    browser: Browser, working: Service, origin: Origin
) -> None:
    gate = serve_in_two(origin, "/watched.iso")
    with opening(browser, working.url) as open_page:
        page = open_page()
        job = submit(page, origin.url("/watched.iso"))
        expect(job.locator(".status")).to_have_text("Running")
        bar = job.get_by_role("progressbar")
        expect(bar).to_have_js_property("value", len(LARGE) / 2)
        expect(bar).to_have_js_property("max", len(LARGE))
        expect(job.locator(".figures")).to_have_text(
            words(r"^500 kB of 1\.0 MB · [\d.]+ kB/s · \d+ s left$")
        )
        gate.set()
        expect(job.locator(".status")).to_have_text("Done")
        expect(job.locator(".md5")).to_have_text(hashlib.md5(LARGE).hexdigest())
        expect(job.locator(".figures")).to_have_text(words(r"^1\.0 MB · in [\d.]+ s$"))
        expect(bar).to_have_count(0)
        expect(page.get_by_role("status")).to_have_text("watched.iso, Done")


def test_a_file_of_unknown_size_has_a_bar_without_end(open_page: Open, states: States) -> None:
    job = submit(open_page(), f"{SITE}/endless.csv?all")
    change(states, job, ENDLESS)
    expect(job.locator(".name")).to_have_text("endless.csv")
    expect(job.locator(".figures")).to_have_text(words(r"^500 kB · [\d.]+ kB/s$"))
    expect(job.get_by_role("progressbar")).not_to_have_attribute("value", re.compile(""))
    change(states, job, DONE)
    expect(job.locator(".status")).to_have_text("Done")


@pytest.mark.parametrize("encrypted", [True, False], ids=["with clipboard", "without"])
def test_digests_are_copied(open_page: Open, states: States, encrypted: bool) -> None:
    path = states.job(digests=["sha256"], **DONE)
    page = open_page(path, permissions=["clipboard-read", "clipboard-write"])
    if (
        not encrypted
    ):  # browsers hide it from pages that came unencrypted from elsewhere than loopback
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    for name, digest in (("Copy", MD5), ("Copy SHA-256", DIGESTS["sha256"])):
        button = page.get_by_role("button", name=name, exact=True)
        button.click()
        expect(page.get_by_text("Copied", exact=True).first).to_be_visible()
        expect(page.get_by_role("status").last).to_have_text("Copied")
        page.locator("#digest").fill("")
        page.locator("#digest").press("Control+V")
        expect(page.locator("#digest")).to_have_value(digest)


def test_the_md5_is_copied_from_the_list(open_page: Open, service: Service, states: States) -> None:
    page = open_page(
        permissions=["clipboard-read", "clipboard-write"],
        storage_state=listing(service.url, states.job(**DONE)),
    )
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name="Copied", exact=True)).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == MD5


def test_what_was_not_copied_is_not_said_to_be(open_page: Open, states: States) -> None:
    page = open_page(states.job(**DONE))
    page.evaluate(
        "navigator.clipboard.writeText = () => Promise.reject(); document.execCommand = () => false"
    )
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("status").last).to_have_text("Selected")
    assert page.evaluate("getSelection().toString()") == MD5


def test_a_failure_is_told_in_plain_words(open_page: Open, states: States) -> None:
    page = open_page()
    job = submit(page)
    change(states, job, FAILED)
    expect(job.locator(".status")).to_have_text("Failed")
    expect(job.locator(".reason")).to_have_text(
        "Instead of the file the server sent the error 404."
    )
    expect(page.get_by_role("status")).to_have_text(
        re.compile(r"^hello.txt, Failed, Instead of the file")
    )


def test_another_attempt_is_announced(open_page: Open, states: States) -> None:
    job = submit(open_page())
    change(states, job, AGAIN)
    expect(job.locator(".reason")).to_have_text(
        "Instead of the file the server sent the error 500."
    )
    expect(job.locator(".figures")).to_have_text(words(r"^Attempt 2 of 5 in \d+ min$"))
    expect(job.locator(".status")).to_have_text("Waiting again")


def test_a_reload_keeps_the_list_until_it_is_cleared(open_page: Open, states: States) -> None:
    page = open_page()
    change(states, submit(page), DONE)
    change(states, submit(page, f"{SITE}/missing.zip"), FAILED)
    second = page.context.new_page()
    for shown in (page, second):
        shown.goto(page.url)
        expect(shown.locator(".name")).to_have_text(["missing.zip", "hello.txt"])
        expect(shown.locator(".status")).to_have_text(["Failed", "Done"])
    page.get_by_role("button", name="Clear the list").click()
    for shown in (page, second):
        expect(shown.locator("#jobs")).to_be_hidden()
    page.reload()
    expect(page.locator("#jobs")).to_be_hidden()


def test_a_removed_job_leaves_the_list(open_page: Open, service: Service, states: States) -> None:
    gone = "0e4fac17-f367-4807-8c28-8a059a2f82ac"
    kept = states.job(**DONE)
    state = listing(service.url, f"/jobs/{gone}", kept, f"/batches/{gone}")
    page = open_page(storage_state=state)
    expect(page.locator("#jobs li")).to_have_count(1)
    expect(page.locator(".name")).to_have_text(["hello.txt"])


def test_rubbish_in_the_storage_does_no_harm(open_page: Open) -> None:
    page = open_page()
    rubbish = ("{", "7", '{"a":1}', '[1, null, "../../submit", "x y", "batches/../submit"]')
    for each in rubbish:
        page.evaluate("each => localStorage.setItem('md5light.jobs', each)", each)
        page.reload()
        expect(page.locator("#jobs")).to_be_hidden()
    expect(submit(page).locator(".status")).to_have_text("Waiting")


def test_a_wrong_field_is_named_and_focused(open_page: Open) -> None:
    page = open_page()
    for url, email, field, problem in (
        ("", "", "url", "Enter the URL of a file."),
        ("ftp://example.com/a", "", "url", "must be absolute and begin with http://"),
        ("http://example.com/a b", "", "url", "The URL contains a space."),
        ("http://ann:b@example.com/", "", "url", "The URL contains credentials."),
        ("http://10.0.0.1/", "", "url", "This URL leads into a private network"),
        (URL, "nobody", "email", "This is not a mail address"),
    ):
        page.locator("#url").fill(url)
        page.locator("#email").fill(email)
        page.locator("#submit button").click()
        expect(page.get_by_role("alert")).to_contain_text(problem)
        expect(page.locator("[aria-invalid=true]")).to_have_id(field)
        expect(page.locator(f"#{field}")).to_be_focused()
        expect(page.locator(f"#{field}")).to_have_value(url if field == "url" else email)
    submit(page)
    expect(page.get_by_role("alert")).to_be_empty()
    expect(page.locator("[aria-invalid=true]")).to_have_count(0)


def test_the_keyboard_is_enough(open_page: Open) -> None:
    page = open_page()
    page.locator("#url").focus()
    page.keyboard.type(URL)
    page.keyboard.press("Tab")
    page.keyboard.type("ann@localhost")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".status")).to_have_text("Waiting")
    expect(page.locator("#url")).to_be_focused()
    for _ in range(7):  # address, submit, options, list, notify, clear, the job's link
        page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="hello.txt")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/*")
    expect(page.locator("dl")).to_contain_text("will be sent with the result")


def test_further_digests_can_be_asked_for(open_page: Open, service: Service) -> None:
    page = open_page()
    page.locator("#submit summary").click()
    page.locator("#job-digests").select_option("sha256")
    item = submit(page).get_attribute("data-item")
    assert "sha256" in service.job(str(item))


def test_focus_and_selection_stay_while_a_card_changes(open_page: Open, states: States) -> None:
    page = open_page()
    job = submit(page)
    change(states, job, RUNNING)
    expect(job.locator(".figures")).to_contain_text(words("500 kB"))
    job.get_by_role("link").focus()
    page.evaluate("getSelection().selectAllChildren(document.querySelector('.card .name'))")
    change(states, job, DONE)
    expect(job.locator(".status")).to_have_text("Done")
    expect(job.get_by_role("link")).to_be_focused()
    assert page.evaluate("getSelection().toString()").strip() == "hello.txt"


def test_a_server_out_of_reach_is_told(open_page: Open) -> None:
    page = open_page()
    page.context.set_offline(True)
    page.locator("#url").fill(URL)
    page.locator("#submit button").click()
    expect(page.get_by_role("alert")).to_contain_text("The service can't be reached.")
    page.context.set_offline(False)
    page.locator("#submit button").click()
    expect(page.locator(".card")).to_have_count(1)


def test_a_form_is_sent_once_and_the_focus_stays(open_page: Open) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page = open_page()
    page.route("**/submit", hold)
    page.locator("#url").fill(URL)
    button = page.locator("#submit button")
    button.press("Enter")
    expect(button).to_be_disabled()
    page.keyboard.press("Enter")
    page.screenshot()  # until it is drawn a browser may leave the focus where it was
    expect(button).to_be_focused()
    for route in held:
        route.continue_()
    expect(page.locator(".card")).to_have_count(1)
    expect(button).to_be_enabled()


def test_looks_slow_down_and_stop_while_the_tab_is_hidden(open_page: Open) -> None:
    page = open_page(alone=True)  # its clock is never given back
    page.clock.install()
    page.reload()
    submit(page)
    looks: list[str] = []
    page.on("request", lambda request: looks.append(request.url))
    for _ in range(15):
        with page.expect_response("**/jobs/*"):
            page.clock.run_for(10_000)
    before = len(looks)
    page.clock.run_for(5_000)
    assert len(looks) == before
    set_hidden(page, True)
    page.clock.run_for(100_000)
    assert len(looks) == before
    with page.expect_response("**/jobs/*"):
        set_hidden(page, False)
    with page.expect_response("**/jobs/*"):
        page.clock.run_for(1_000)


def test_a_link_in_a_mail_or_chat_shows_the_job(open_page: Open, states: States) -> None:
    path = states.job(**RUNNING)
    page = open_page(path)
    expect(page).to_have_title(words("^50 %: hello.txt · md5light$"))
    states.change(path, **DONE)
    expect(page).to_have_title("Done: hello.txt · md5light")
    expect(page.locator(".md5")).to_have_text(MD5)
    expect(page.locator("dl")).to_contain_text("6 bytes")
    page.get_by_role("link", name="Another file").click()
    expect(page.locator("#url")).to_be_visible()


def test_a_jobs_page_tells_when_its_mail_has_gone(open_page: Open, states: States) -> None:
    path = states.job(email="ann@localhost", **DONE)
    states.mail(path, "waiting")
    page = open_page(path)
    expect(page.locator("dl")).to_contain_text(re.compile(r"Mail\s*not sent yet"))
    assert refreshes(page.url)
    states.mail(path, "sent")
    expect(page.locator("dl")).to_contain_text(re.compile(r"Mail\s*sent"))
    assert not refreshes(page.url)


def refreshes(url: str) -> bool:
    """Tell whether the page would be loaded again without a script."""
    return "http-equiv" in requests.get(url, headers={"Accept": BROWSER_ACCEPT}, timeout=10).text


def test_a_job_that_is_not_there_is_told(open_page: Open) -> None:
    page = open_page("/jobs/0e4fac17-f367-4807-8c28-8a059a2f82ac")
    expect(page.get_by_role("heading")).to_contain_text("There is no job at this address.")


# --- without a script -----------------------------------------------------------------------------


def test_it_works_without_a_script(browser: Browser, working: Service, origin: Origin) -> None:
    gate = serve_in_two(origin, "/plain.iso")
    with opening(browser, working.url) as open_page:
        page = open_page(java_script_enabled=False)
        page.locator("#url").fill(origin.url("/plain.iso"))
        page.locator("#submit button").click()
        page.wait_for_url("**/jobs/*")
        expect(page.locator(".figures")).to_contain_text("500 kB of 1.0 MB")
        gate.set()
        expect(page.locator(".md5")).to_have_text(hashlib.md5(LARGE).hexdigest())
        expect(page.get_by_role("button").filter(visible=True)).to_have_text(["Compare"])


def test_a_refused_form_comes_back_without_a_script(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    page.locator("#url").fill("ftp://example.com/é\"'<b>")
    page.locator("#email").fill("ann@example.com")
    page.locator("#submit summary").click()
    page.locator("#job-digests").select_option("sha1")
    page.locator("#submit button").click()
    expect(page.get_by_role("alert").first).to_contain_text("The URL must be absolute")
    expect(page.locator("#job-digests")).to_have_value("sha1")
    expect(page.locator("#url")).to_have_value("ftp://example.com/é\"'<b>")
    expect(page.locator("#email")).to_have_value("ann@example.com")


# --- safety ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scripted", [True, False], ids=["script", "no script"])
def test_a_hostile_url_and_answer_are_shown_as_text(
    open_page: Open, states: States, scripted: bool
) -> None:
    page = open_page(java_script_enabled=scripted)
    page.on("dialog", lambda dialog: pytest.fail(f"the page said {dialog.message}"))
    page.locator("#url").fill(SITE + HOSTILE)
    page.locator("#submit button").click()
    expect(page.locator(".url")).to_have_text(SITE + HOSTILE)
    path = str(page.locator(".name a").get_attribute("href"))
    hostile = "<b onclick=alert(1)>bold</b>"
    states.change(path, **{**DONE, "content_type": hostile, "final_url": hostile})
    page.goto(page.url)
    expect(page.locator(".status")).to_have_text("Done")
    expect(page.locator(".card img, .card script")).to_have_count(0)
    page.locator(".name a").click()
    expect(page.locator("dl")).to_contain_text(hostile)
    expect(page.locator("main img, main script, dl b")).to_have_count(0)
    assert "49" not in page.title()


def test_pages_carry_their_policy(service: Service, states: States) -> None:
    for path in ("/", states.job(), "/jobs/nothing"):
        answer = requests.get(service.url + path, headers={"Accept": BROWSER_ACCEPT}, timeout=10)
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Content-Security-Policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
            "connect-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["Vary"] == "Accept, Accept-Language"
        assert not re.search(
            r"<script(?! src=)|<style| on\w+=| style=|//(?!127\.0\.0\.1|files\.example\.org)\w",
            answer.text,
        )


def test_a_form_of_another_site_makes_no_job(
    open_page: Open, browser: Browser, service: Service
) -> None:
    form = f'<form method=post action="{service.url}/submit"><input name=url value=http://e.com/><button>go</button>'
    with Origin() as attacker:
        attacker.serve("/", reply(form.encode(), "200 OK", "Content-Type: text/html"))
        page = browser.new_page()
        page.goto(attacker.url("/", host="localhost"))
        with page.expect_response("**/submit") as answer:
            page.get_by_role("button").click()
        assert answer.value.status == 403
        expect(page.get_by_role("alert")).to_contain_text("This form was sent by another web site")
        expect(page.locator("[aria-invalid=true]")).to_have_count(0)
        page.close()


def test_a_script_is_told_of_another_site_in_json(service: Service) -> None:
    answer = requests.post(
        f"{service.url}/submit", headers={"Origin": "http://elsewhere.example"}, timeout=10
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross_site")


# --- who gets what --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/json, text/plain, */*", False),
        ("application/json, text/html", False),
        ("text/html;q=0.5, application/json", False),
        ("text/html;q=0, */*", False),
        ("text/html;q=rubbish, application/json;q=nan", False),
        (BROWSER_ACCEPT, True),
        ("text/html", True),
        ("TEXT/HTML", True),
        ("text/*", True),
        ("application/json;q=0.9, text/html", True),
        ("application/json;q=0, */*", True),
    ],
)
def test_only_who_prefers_a_page_gets_one(accept: str, html: bool) -> None:
    assert prefers_html({"Accept": accept}) == html


@pytest.mark.parametrize(
    ("accept", "language"),
    [
        ("", "en"),
        ("*", "en"),
        ("de", "en"),
        ("ru", "ru"),
        ("ru-RU,ru;q=0.9,en-US;q=0.8", "ru"),
        ("en-GB,en;q=0.9,ru;q=0.8", "en"),
        ("de,ru;q=0.5,en;q=0.4", "ru"),
        ("run", "en"),
    ],
)
def test_the_language_is_the_readers(accept: str, language: str) -> None:
    assert preferred_language({"Accept-Language": accept}) == language


def test_scripts_still_get_json(service: Service) -> None:
    job_id = service.submit(URL)
    for path, status in ((job_id, 200), ("nothing", 404)):
        answer = requests.get(f"{service.url}/jobs/{path}", timeout=10)
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/json")
        assert answer.headers["Vary"] == "Accept"


def test_a_browser_is_sent_to_the_job(service: Service) -> None:
    answer = requests.post(
        f"{service.url}/submit",
        data={"url": URL},
        headers={"Accept": BROWSER_ACCEPT},
        allow_redirects=False,
        timeout=10,
    )
    assert answer.status_code == 303
    assert re.fullmatch(r"/jobs/[0-9a-f-]{36}", answer.headers["Location"])


def test_files_are_kept_by_the_browser_as_long_as_they_are_the_same(service: Service) -> None:
    style = re.search(r'href="(/page/\w+/)style.css"', requests.get(service.url, timeout=10).text)
    assert style is not None
    for name, kind in (
        ("style.css", "text/css"),
        ("script.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    ):
        answer = requests.get(f"{service.url}{style[1]}{name}", timeout=10)
        assert (answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (
            kind,
            "public, max-age=31536000, immutable",
        )
    for path in (f"{style[1]}words.py", f"{style[1]}..%2fweb.py", "/page/old/style.css"):
        assert requests.get(service.url + path, timeout=10).status_code == 404


# --- words ----------------------------------------------------------------------------------------


def test_russians_are_spoken_to_in_russian(open_page: Open, states: States) -> None:
    page = open_page(locale="ru-RU")
    expect(page.locator("html")).to_have_attribute("lang", "ru")
    expect(page.get_by_role("heading").first).to_have_text("MD5 файла из интернета")
    job = submit(page, f"{SITE}/missing.zip")
    change(states, job, FAILED)
    expect(job.locator(".status")).to_have_text("Не удалось")
    expect(job.locator(".reason")).to_have_text("Вместо файла сервер прислал ошибку 404.")
    job = submit(page)
    change(states, job, DONE)
    expect(job.locator(".figures")).to_have_text(words(r"^6 байт · за [\d,]+ с$"))


MISMATCHED = {
    "en-GB": (
        "The file is not as expected. Different: size, SHA-512."
        " It looks like a web page: its type is text/html.",
        {"Expected size": "7 bytes", "Expected SHA-512": "0" * 128, "Size": "6 bytes"},
    ),
    "ru-RU": (
        "Файл не такой, как ожидалось. Отличаются: размер, SHA-512."
        " Похоже на веб-страницу: её тип text/html.",
        {"Ожидаемый размер": "7 байт", "Ожидаемый SHA-512": "0" * 128, "Размер": "6 байт"},
    ),
}


@pytest.mark.parametrize("locale", MISMATCHED)
def test_further_digests_and_the_verdict_are_shown(
    open_page: Open, states: States, locale: str
) -> None:
    wanted = {"digests": ["sha1"], "expected": {"sha512": "0" * 128, "size": 7}}
    path = states.job(**{**DONE, **wanted, "content_type": "text/html"})
    verdict, facts = MISMATCHED[locale]
    page = open_page(path, locale=locale)
    expect(page.locator(".verdict")).to_have_text(verdict)
    digests = page.locator(".digest :is(span, code)")
    expect(digests).to_have_text(["SHA-1", DIGESTS["sha1"], "SHA-512", DIGESTS["sha512"]])
    for label, value in facts.items():
        fact = page.locator("dl > div").filter(has=page.get_by_text(label, exact=True))
        expect(fact.locator("dd")).to_have_text(value)


def test_a_file_as_expected_is_told_to_be_so(open_page: Open, states: States) -> None:
    page = open_page(states.job(expected={"size": 6}, **DONE))
    expect(page.locator(".verdict")).to_have_text("The file is as expected.")
    expect(page.locator(".digest")).to_have_count(0)


def test_the_command_line_is_shown_with_the_services_address(service: Service) -> None:
    page = requests.get(service.url, headers={"Accept": BROWSER_ACCEPT}, timeout=10).text
    text = html.unescape(page)
    assert f'curl --data-urlencode "url=https://…" {service.url}/submit' in text


def test_a_refused_site_is_told_what_to_set(service: Service) -> None:
    headers = {"Accept": BROWSER_ACCEPT, "Origin": "https://md5.example.org"}
    answer = requests.post(f"{service.url}/submit", headers=headers, timeout=10)
    assert answer.status_code == 403
    for word in ("https://md5.example.org", service.url.removeprefix("http://"), "base_url"):
        assert word in answer.text
