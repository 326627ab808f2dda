"""How pages say what they say: words, numbers, sizes and times, in each language."""

from __future__ import annotations

import ast
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from md5light import lists
from md5light.download import urls
from md5light.errors import Refused
from md5light.job import Job
from md5light.lists import reading
from md5light.lists.lines import BadLine
from md5light.web.answers import list_too_large
from md5light.web.page.card import Card, Comparison, compare, make_card
from md5light.web.page.language import LANGUAGES, NO_BREAK
from md5light.web.page.reasons import KINDS, REASONS
from md5light.web.page.reference import RUSSIAN as SUMMARIES
from md5light.web.page.reference import calls
from md5light.web.page.rules import RULES
from md5light.web.service import OPENAPI

ENGLISH, RUSSIAN = LANGUAGES["en"], LANGUAGES["ru"]

NOW = 1_800_000_000.0


def job_of(url: str = "https://example.com/hello.txt", **known: Any) -> Job:
    """Make a job as the queue keeps it; it waits where nothing else is known of it."""
    values: dict[str, Any] = dict.fromkeys(Job._fields[: Job._fields.index("turn")])
    values |= {"id": "1", "url": url, "host": "example.com", "status": "queued", "due_at": 0.0}
    values |= {"attempts": 0, "max_attempts": 5, "created_at": NOW, "bytes_done": 0}
    return Job(**{**values, **known})


def card_of(language: str = "en", **known: Any) -> Card:
    return make_card(job_of(**known), LANGUAGES[language], NOW)


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
def test_a_redirect_is_one_to_another_url(url: str, final_url: str, shown: bool) -> None:
    facts = card_of(url=url, final_url=final_url).facts
    redirects = [fact.value for fact in facts if fact.label == "Redirected to"]
    assert redirects == ([final_url] if shown else [])


def test_a_canceled_job_is_told_as_the_api_tells_it() -> None:
    assert card_of(status="canceled").reason == "The job was canceled."


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.com/a/b.iso?x=/y#/z", "b.iso"),
        ("https://example.com/a/", "a"),
        ("https://example.com", "example.com"),
        ("https://example.com/?q", "example.com"),
    ],
)
def test_a_job_is_named_after_its_file(url: str, name: str) -> None:
    assert card_of(url=url).name == name


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
def test_names_are_decoded_where_that_can_be_shown(name: str, shown: str) -> None:
    assert card_of(url=f"https://example.com/{name}").name == shown


def said(code: str, message: str) -> str:
    """Return the Russian sentence, once the English one has proved to be the API's own."""
    assert ENGLISH.reason(code, message) == message
    russian = RUSSIAN.reason(code, message)
    assert re.search("[а-я]", russian), f"not translated: {message}"
    return russian


def test_every_rule_of_a_url_has_its_sentence_in_each_language() -> None:
    broken = (
        *("http:\\\\a", "http://a/ b", "http://a/\u200b", "http://a/\u2028", "ftp://a/", "a"),
        *("http://u:p@a/", "http://a:b/", "http://a:0/", "http://", "http://[fe80::1%25e]/"),
        *("http://a..b/", "http://1.2.3.999/", "http://[::g]/", "http://a/" + "b" * 9000),
    )
    sentences = set()
    for url in broken:
        with pytest.raises(Refused) as refused:
            urls.parse(url)
        sentences.add(said("invalid_url", refused.value.message))
    assert "URL длиннее 8\u00a0192 символов." in sentences


def test_every_sentence_of_the_readers_is_one_that_is_translated() -> None:
    """The sentences are taken from the source of the readers, so that no new one is forgotten."""
    sentences = {
        _anonymous(node.args[1])
        for path in Path(lists.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("Refused", "self._bad")
        and _anonymous(node.args[0]) not in UNSEEN
    }
    known = {re.sub(r"\{\w+\}", "{}", sentence) for sentence in RULES}
    assert len(sentences) > 30
    assert sentences - known == set()


#: refusals that no form and no line leads to, and one whose code is enough
UNSEEN = ("unknown_format", "unknown_names", "not_all_done", "ambiguous_names", "empty_list", "{}")


def _anonymous(sentence: ast.expr) -> str:
    """Return a text of the source with `{}` for whatever is put into it."""
    parts = sentence.values if isinstance(sentence, ast.JoinedStr) else [sentence]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)


@pytest.mark.parametrize(
    ("list", "format", "russian"),
    [
        (
            f"http://a.example/ {'7' * 31}z",
            "auto",
            f"«{'7' * 31}z» — не контрольная сумма (MD5, SHA-1, SHA-256 или SHA-512).",
        ),
        ("url,sha1\nhttp://a.example/,77", "auto", "«77» — не контрольная сумма (sha1)."),
        ("url,size\nhttp://a.example/,1e3", "auto", "«1e3» — не размер в байтах."),
        ("SHA3 (a) = 00", "bsd", "«SHA3» не поддерживается."),
        ('{"url":[1]}', "auto", "Значение «url» должно быть строкой или целым числом."),
        ("a.txt", "auto", "URL должен начинаться с http:// или https://, или нужен URL"),
        ("http://a.example/" + "b" * 70_000, "auto", "Строка длиннее 65\u00a0536 байт."),
        ("http://a.example/\x00", "auto", "В строке есть нулевой байт."),
    ],
)
def test_what_is_wrong_with_a_line_is_told_with_its_details(
    list: str, format: str, russian: str
) -> None:
    (line,) = reading.read([list.encode()], format)
    assert isinstance(line, BadLine)
    assert said(line.code, line.message).startswith(russian)


def test_a_whole_list_is_refused_in_each_language() -> None:
    for code, message, russian in (
        (
            "too_many_lines",
            "The list has more than 10,000 lines.",
            "больше строк, чем 10\u00a0000.",
        ),
        ("list_too_large", list_too_large(1_000_000).message, "больше 1\u00a0000\u00a0000 байт"),
    ):
        assert russian in said(code, message)
    number = "1,234 of 5,000 lines can't be taken, and nothing was stored."
    assert "строк: 1\u00a0234." in RUSSIAN.reason("invalid_lines", number)
    assert "с порта 6379." in RUSSIAN.reason("port_not_allowed", "Port 6379 is not open.")


def test_the_api_is_described_in_each_language() -> None:
    document = json.loads(OPENAPI.read_text(encoding="utf-8"))
    english, russian = (calls(document, "http://a", language) for language in (ENGLISH, RUSSIAN))
    assert {call.summary for call in english} == set(SUMMARIES)
    for there, here in zip(english, russian, strict=True):
        assert here == there._replace(summary=SUMMARIES[there.summary])


def test_what_failures_have_in_common_has_words_without_gaps() -> None:
    for language in LANGUAGES.values():
        for code in {*REASONS, *KINDS} - {"cross_site"}:
            assert language.kind(code) != code
    assert LANGUAGES["en"].kind("http_status") == "Instead of the file the server sent an error."
    assert LANGUAGES["en"].kind("new_code") == "new_code"


MD5 = "b1946ac92492d2347c6235b4d2611184"
SHA1 = "f572d396fae9206628714fb2ce00f72e94f2258f"
DONE: dict[str, Any] = {"status": "done", "md5": MD5, "size": 6, "sha1": SHA1, "digests": "sha1"}


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
def test_a_pasted_digest_is_compared(pasted: str, check: str, said: str) -> None:
    job = job_of(**DONE)
    assert compare(job, pasted, LANGUAGES["en"].text) == Comparison(check, said)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("https://example.com/a/b%20c.iso?x#y", f"{MD5}  b c.iso"),
        ("https://example.com/a%5Cb", rf"\{MD5}  a\\b"),
        ("https://example.com/", f"{MD5}  index.html"),
    ],
)
def test_the_line_of_md5sum_is_as_md5sum_writes_it(url: str, line: str) -> None:
    assert card_of(url=url, **DONE).sum_line == line


# --- states of a job ------------------------------------------------------------------------------

LATER = time.time() + 86400
RESTS: dict[str, Any] = {
    "rest_until": LATER,
    "rest_code": "http_status",
    "rest_message": "The server answered with status 429.",
}

STATES: list[tuple[dict[str, Any], str, str, str, str]] = [
    ({}, "Waiting", "Waiting for its turn", "В очереди", "Ждёт своей очереди"),
    (
        {"attempts": 2, "due_at": LATER, "error_code": "timed_out"},
        *("Waiting again", r"Attempt 3 of 5 in 10 min"),
        *("Ждёт новой попытки", r"Попытка 3 из 5 через 10 мин"),
    ),
    (
        RESTS,
        *("Waiting", r"The site asked for a pause: on in 10 min"),
        *("В очереди", r"Сайт попросил о паузе: продолжим через 10 мин"),
    ),
    (
        {**RESTS, "attempts": 1},
        *("Waiting again", r"The site asked for a pause: on in 10 min"),
        *("Ждёт новой попытки", r"Сайт попросил о паузе: продолжим через 10 мин"),
    ),
    ({"status": "running"}, "Running", "Connecting", "Загружается", "Соединяемся с сервером"),
]


@pytest.mark.parametrize(("known", "status", "figures", "russian", "russian_figures"), STATES)
def test_a_state_has_its_words(
    known: dict[str, Any], status: str, figures: str, russian: str, russian_figures: str
) -> None:
    english_card = make_card(job_of(**known), ENGLISH, LATER - 600)
    russian_card = make_card(job_of(**known), RUSSIAN, LATER - 600)
    said = [card.figures.replace(NO_BREAK, " ") for card in (english_card, russian_card)]
    assert (english_card.status, russian_card.status) == (status, russian)
    assert said == [figures, russian_figures]


def test_a_resting_host_is_the_reason_of_a_pause() -> None:
    assert card_of(**RESTS).reason == "Instead of the file the server sent the error 429."
    assert card_of("ru", **RESTS).reason == "Вместо файла сервер прислал ошибку 429."


def test_without_a_worker_a_waiting_job_says_so_and_an_ended_one_does_not() -> None:
    for language, words in (("en", "No worker is running"), ("ru", "Ни один обработчик")):
        for known, told in (
            ({}, True),
            (RESTS, True),
            ({"status": "running"}, True),
            (DONE, False),
        ):
            card = make_card(job_of(**known), LANGUAGES[language], NOW, no_worker=True)
            assert card.figures.startswith(words) == told
