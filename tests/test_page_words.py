"""How pages say what they say: words, numbers, sizes and times, in each language."""

from __future__ import annotations

import pytest

from md5light.download import urls
from md5light.errors import Refused
from md5light.job import Job
from md5light.queue.jobs import Queue
from md5light.web.page.card import Comparison, compare, make_card
from md5light.web.page.language import LANGUAGES
from md5light.web.page.reasons import KINDS, REASONS, RULES


def test_numbers_are_written_as_people_read_them() -> None:
    english, russian = LANGUAGES["en"], LANGUAGES["ru"]
    sizes = (0, 999, 1000, 99_950, 999_499, 999_500, 1_234_567, 5 * 10**15)
    assert [english.size(size).replace("\u00a0", " ") for size in sizes] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "100 kB",
        "999 kB",
        "1.0 MB",
        "1.2 MB",
        "5,000 TB",
    ]
    counts = (1, 2, 4, 5, 11, 12, 21, 22, 111, 1_234_563)
    assert [english.bytes(count).split("\u00a0")[1] for count in counts] == ["byte"] + ["bytes"] * 9
    assert [count for count in counts if russian.bytes(count).endswith("байта")] == [
        2,
        4,
        22,
        1_234_563,
    ]
    spans = (0, 0.44, 0.96, 59.4, 59.6, 3599, 3600, 3900, 86_400, 93_600)
    assert [english.duration(span).replace("\u00a0", " ") for span in spans] == [
        "0.1 s",
        "0.4 s",
        "1 s",
        "59 s",
        "1 min",
        "59 min",
        "1 h",
        "1 h 5 min",
        "1 d",
        "1 d 2 h",
    ]
    assert russian.size(1_234_567) == "1,2\u00a0МБ"
    assert russian.number(1_234_567) == "1\u00a0234\u00a0567"


def test_every_code_has_its_words_and_an_unknown_one_its_message() -> None:
    for language in LANGUAGES.values():
        for code in REASONS:
            assert "{" not in language.reason(code, "The server answered with status 404.")
        assert language.reason("new_code", "It {broke}.") == "It {broke}."


@pytest.mark.parametrize(
    ("url", "final_url", "shown"),
    [
        ("HTTP://Example.com:80/a#b", "http://example.com/a", False),
        ("http://example.com", "http://example.com/", False),
        ("http://example.com/a/../é", "http://example.com/%C3%A9", False),
        ("http://example.com/a", "https://example.com/a", True),
        ("http://example.com/a", "http://example.com/b", True),
    ],
)
def test_a_redirect_is_one_to_another_url(
    queue: Queue, url: str, final_url: str, shown: bool
) -> None:
    job = queue.get(queue.submit(url, "example.com"))
    assert job is not None
    facts = make_card(job._replace(final_url=final_url), LANGUAGES["en"], job.created_at).facts
    redirects = [fact.value for fact in facts if fact.label == "Redirected to"]
    assert redirects == ([final_url] if shown else [])


def test_a_canceled_job_is_told_as_the_api_tells_it(queue: Queue) -> None:
    job_id = queue.submit("http://example.com/a", "example.com")
    queue.cancel(job_id)
    job = queue.get(job_id)
    assert job is not None
    assert make_card(job, LANGUAGES["en"], job.created_at).reason == "The job was canceled."


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.com/a/b.iso?x=/y#/z", "b.iso"),
        ("https://example.com/a/", "a"),
        ("https://example.com", "example.com"),
        ("https://example.com/?q", "example.com"),
    ],
)
def test_a_job_is_named_after_its_file(queue: Queue, url: str, name: str) -> None:
    job = queue.get(queue.submit(url, "example.com"))
    assert job is not None
    assert make_card(job, LANGUAGES["en"], job.created_at).name == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("b%20c%C3%A9.iso", "b cé.iso"),
        ("a%2Fb", "a%2Fb"),
        ("%0A%1B%7F", "%0A%1B%7F"),
        ("%FF", "%FF"),
        ("100%", "100%"),
    ],
)
def test_names_are_decoded_where_that_can_be_shown(queue: Queue, name: str, shown: str) -> None:
    job = queue.get(queue.submit(f"https://example.com/{name}", "example.com"))
    assert job is not None
    assert make_card(job, LANGUAGES["en"], job.created_at).name == shown


def test_every_rule_of_a_url_has_its_sentence_in_each_language() -> None:
    broken = (
        *("http:\\\\a", "http://a/ b", "http://a/\u200b", "http://a/\u2028", "ftp://a/", "a"),
        *("http://u:p@a/", "http://a:b/", "http://a:0/", "http://", "http://[fe80::1%25e]/"),
        *("http://a..b/", "http://1.2.3.999/", "http://[::g]/", "http://a/" + "b" * 9000),
    )
    for url in broken:
        with pytest.raises(Refused) as refused:
            urls.parse(url)
        message = refused.value.message
        assert LANGUAGES["en"].reason("invalid_url", message) == message
        assert RULES[message] in LANGUAGES["ru"].reason("invalid_url", message)


def test_what_failures_have_in_common_has_words_without_gaps() -> None:
    for language in LANGUAGES.values():
        for code in {*REASONS, *KINDS} - {"cross_site", "too_many_lines", "list_too_large"}:
            assert language.kind(code) != code
    assert LANGUAGES["en"].kind("http_status") == "Instead of the file the server sent an error."
    assert LANGUAGES["en"].kind("new_code") == "new_code"


MD5 = "b1946ac92492d2347c6235b4d2611184"
SHA1 = "f572d396fae9206628714fb2ce00f72e94f2258f"


@pytest.mark.parametrize(
    ("pasted", "check", "said"),
    [
        (MD5, "matched", "Equal: the MD5 is the same."),
        (f"  {MD5.upper()}\n", "matched", "Equal: the MD5 is the same."),
        (f"md5:{MD5}", "matched", "Equal: the MD5 is the same."),
        (f"{MD5}  hello.txt", "matched", "Equal: the MD5 is the same."),
        ("sZRqySSS0jR8YjW00mERhA==", "matched", "Equal: the MD5 is the same."),
        ("0" * 32, "mismatched", "Different: the MD5 of the file is not this one."),
        (SHA1, "matched", "Equal: the SHA-1 is the same."),
        ("0" * 40, "mismatched", "Different: the SHA-1 of the file is not this one."),
        ("0" * 64, "", "This is a SHA-256, and it was not computed for this file."),
        ("hello", "", "This is no MD5, SHA-1, SHA-256 or SHA-512."),
        ("0" * 33, "", "This is no MD5, SHA-1, SHA-256 or SHA-512."),
        ("-", "", "This is no MD5, SHA-1, SHA-256 or SHA-512."),
        (" ", "", "This is no MD5, SHA-1, SHA-256 or SHA-512."),
    ],
)
def test_a_pasted_digest_is_compared(queue: Queue, pasted: str, check: str, said: str) -> None:
    assert compare(done_job(queue), pasted, LANGUAGES["en"].text) == Comparison(check, said)


def done_job(queue: Queue, url: str = "https://example.com/hello.txt") -> Job:
    job = queue.get(queue.submit(url, "example.com"))
    assert job is not None
    return job._replace(status="done", md5=MD5, size=6, sha1=SHA1, digests="sha1")


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("https://example.com/a/b%20c.iso?x#y", f"{MD5}  b c.iso"),
        ("https://example.com/a%5Cb", rf"\{MD5}  a\\b"),
        ("https://example.com/", f"{MD5}  index.html"),
    ],
)
def test_the_line_of_md5sum_is_as_md5sum_writes_it(queue: Queue, url: str, line: str) -> None:
    job = done_job(queue, url)
    assert make_card(job, LANGUAGES["en"], job.created_at).sum_line == line
