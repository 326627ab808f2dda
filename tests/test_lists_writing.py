"""What manifests look like, and which can't be written."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from md5light.errors import Refused
from md5light.finding import ALGORITHMS
from md5light.lists.entry import Entry, reason
from md5light.lists.formats import FORMS, NAMES
from md5light.lists.reading import read
from md5light.lists.writing import write

MD5 = "d41d8cd98f00b204e9800998ecf8427e"
SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def entry(url: str, status: str = "hashed", position: int = 1, **more: Any) -> Entry:
    if status in ("hashed", "matched", "mismatched"):
        more = {"size": 0, "digests": {"md5": MD5}, **more}
    return Entry(position, more.pop("sent", url), url, status, **more)


def text(*entries: Entry, format: str = "md5sum", **options: Any) -> str:
    return b"".join(write(entries, format, **options)).decode()


def refusal(*entries: Entry, **options: Any) -> str:
    """Return the code; nothing may have to be read for it."""
    with pytest.raises(Refused) as caught:
        write(entries, **options)
    assert caught.value.message.endswith(".")
    return caught.value.code


@pytest.mark.parametrize(
    ("url", "path", "basename"),
    [
        ("http://h/d/a.txt", "h/d/a.txt", "a.txt"),
        ("https://H:8443/d/a%20b.txt?c=/d#e", "h:8443/d/a b.txt?c=%2Fd", "a b.txt"),
        ("http://h", "h/index.html", "index.html"),
        ("http://h/d/?q", "h/d/index.html?q", "index.html"),
        ("http://h/a/../../../etc/passwd", "h/etc/passwd", "passwd"),
        ("http://h/%2e%2E/%2e/%2Fetc%2Fpasswd", "h/%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd"),
        ("http://h/a/b/..", "h/a/index.html", "index.html"),
        ("http://h//a//b", "h/a/b", "b"),
        ("http://h/%0a%00%1b%7f", "h/%0A%00%1B%7F", "%0A%00%1B%7F"),
        ("http://h/%ff", "h/%ff", "%ff"),
        ("http://h/%E6%97%A5", "h/日", "日"),
        ("http://[::1]:80/a", "[::1]:80/a", "a"),
    ],
)
def test_names_made_from_urls(url: str, path: str, basename: str) -> None:
    assert text(entry(url), names="url") == f"{MD5}  {url}\n"
    assert text(entry(url), names="path") == f"{MD5}  {path}\n"
    assert text(entry(url), names="basename") == f"{MD5}  {basename}\n"
    assert text(entry(url, name="n"), names="name") == f"{MD5}  n\n"
    assert text(entry(url), names="name") == f"{MD5}  {url}\n"


@pytest.mark.parametrize("format", ["md5sum", "sha512sum", "bsd", "pooch"])
def test_ambiguous_names(format: str) -> None:
    entries = [entry("http://h/a/x", name="n"), entry("http://h/b/x", position=2, name="n")]
    for names in ("basename", "name"):
        assert refusal(*entries, format=format, names=names) == "ambiguous_names"
    for names in ("url", "path"):
        text(*entries, format=format, names=names)


@pytest.mark.parametrize("names", NAMES)
def test_a_url_that_stands_twice_is_not_ambiguous(names: str) -> None:
    twice = [entry("http://h/a", name="n"), entry("http://h/a", position=2, name="n")]
    assert len(text(*twice, names=names).splitlines()) == 2


@pytest.mark.parametrize("format", ["ndjson", "csv", "gcs", "failed"])
def test_forms_without_names_take_ambiguous_ones(format: str) -> None:
    entries = [entry("http://h/a/x"), entry("http://h/b/x", position=2)]
    assert text(*entries, format=format, names="basename") == text(*entries, format=format)


def test_unknown_forms_and_names() -> None:
    assert refusal(format="md6sum") == "unknown_format"
    assert refusal(format="md5sum", names="inode") == "unknown_names"


@pytest.mark.parametrize("format", ["md5sum", "bsd", "pooch"])
def test_lines_without_a_result_stand_at_the_top(format: str) -> None:
    entries = [
        entry("http://h/a"),
        entry("http://h/b", "waiting", 2),
        entry("http://h/c", "failed", 3, error_code="timed_out", error_message="Too\r\nslow."),
        entry("http://h/d", "mismatched", 4, expected_size=5),
        entry("http://h/e", "canceled", 5),
    ]
    found = text(*entries, format=format).splitlines()
    assert found[:3] == [
        "# waiting: http://h/b",
        "# failed: Too slow. (timed_out): http://h/c",
        "# canceled: http://h/e",
    ]
    assert [MD5 in line for line in found[3:]] == [True, True]


def test_a_digest_that_was_not_computed() -> None:
    assert text(entry("http://h/a"), format="sha256sum") == "# hashed: http://h/a\n"


def test_bsd_has_a_line_for_each_algorithm() -> None:
    both = entry("http://h/a", digests={"sha256": SHA256, "md5": MD5})
    assert text(both, format="bsd") == f"MD5 (http://h/a) = {MD5}\nSHA256 (http://h/a) = {SHA256}\n"


def test_pooch_takes_the_digest_that_it_likes_best() -> None:
    both = entry("http://h/a?b='c'", digests={"md5": MD5, "sha256": SHA256}, name="a b")
    found = text(both, format="pooch", names="name")
    assert found == f"""'a b' sha256:{SHA256} 'http://h/a?b='"'"'c'"'"''\n"""
    plain = entry("http://h/a?b=c&d", name="a\nb")
    assert text(plain, format="pooch") == f"http://h/a?b=c&d md5:{MD5} http://h/a?b=c&d\n"
    assert text(plain, format="pooch", names="name") == "# hashed: a\\nb\n"


def test_transfer_lists_have_each_url_once_sorted_by_bytes() -> None:
    urls = ["http://h/b", "http://h/\U0001f600", "http://h/\uff5e", "http://h/B", "http://h/b"]
    found = text(*(entry(url) for url in urls), format="gcs").splitlines()[1:]
    assert [line.split("\t")[0] for line in found] == sorted(set(urls), key=str.encode)
    assert found[1] == "http://h/b\t0\t1B2M2Y8AsgTpgAmY7PhCfg=="


@pytest.mark.parametrize("status", ["waiting", "running", "failed", "canceled"])
def test_transfer_lists_are_whole_or_partial(status: str) -> None:
    entries = [entry("http://h/a"), entry("http://h/b", status, 2)]
    assert refusal(*entries, format="gcs") == "not_all_done"
    assert text(*entries, format="gcs", partial=True).count("http://") == 1
    done = [entry("http://h/a"), entry("http://h/b", "matched"), entry("http://h/c", "mismatched")]
    assert text(*done, format="gcs").count("http://") == 3


def test_failed_lines_are_as_they_were_sent() -> None:
    entries = [
        entry("http://h/a", sent=" http://h/a\t5"),
        entry("http://h/b", "failed", 2, sent="http://h/b  5 ", error_code="c", error_message="m."),
        entry("http://h/c", "mismatched", 3, sent="http://h/c 5", expected_size=5),
        entry("http://h/d", "canceled", 4),
        entry("http://h/e", "waiting", 5),
    ]
    assert text(*entries, format="failed") == (
        "# failed: m. (c)\nhttp://h/b  5 \n"
        "# mismatched: size is 0, not 5\nhttp://h/c 5\n"
        "# canceled\nhttp://h/d\n"
    )
    header = text(*entries, format="failed", header="url,size").partition("\n")[0]
    assert header == "url,size"


def test_reasons_in_words() -> None:
    page = entry(
        "http://h/a",
        "mismatched",
        expected={"md5": "0" * 32, "sha256": SHA256},
        expected_size=0,
        digests={"md5": MD5, "sha256": SHA256},
        content_type="text/html; charset=utf-8",
    )
    assert reason(page) == (
        f"mismatched: md5 is {MD5}, not {'0' * 32}; "
        "it looks like a page: its type is text/html; charset=utf-8"
    )


def test_ndjson_tells_everything() -> None:
    failed = entry(
        "http://h/é",
        "failed",
        7,
        name="é",
        id="i",
        expected={"md5": MD5},
        expected_size=5,
        error_code="http_status",
        error_message="It was 404.",
        attempts=2,
        finished_at="2026-01-01T00:00:00.000Z",
    )
    found = text(failed, format="ndjson")
    assert "é" in found
    assert " " not in found.replace("It was 404.", "")
    assert json.loads(found) == {
        "position": 7,
        "url": "http://h/é",
        "name": "é",
        "id": "i",
        "status": "failed",
        "size": None,
        **dict.fromkeys(ALGORITHMS),
        "expected": {"md5": MD5, "size": 5},
        "error": {"code": "http_status", "message": "It was 404."},
        "final_url": None,
        "content_type": None,
        "attempts": 2,
        "finished_at": "2026-01-01T00:00:00.000Z",
    }


@functools.cache  # for every format
def many() -> list[Entry]:
    digests = (hashlib.md5(str(number).encode()).hexdigest() for number in range(10_000))
    return [
        entry(
            f"http://h/{number}",
            "mismatched",
            digests=dict.fromkeys(ALGORITHMS, digest),
            expected_size=5,
        )
        for number, digest in enumerate(digests)
    ]


@pytest.mark.parametrize("format", FORMS)
def test_manifests_come_in_pieces(format: str) -> None:
    class Entries:
        """A manifest without a length; it counts how often it was begun."""

        begun = 0

        def __iter__(self) -> Iterator[Entry]:
            self.begun += 1
            return iter(many())

    entries = Entries()
    pieces = list(write(entries, format, names="path"))
    assert len(pieces) > 30
    assert max(map(len, pieces)) < 256 * 1024
    assert entries.begun <= 3
    if format == "csv":
        assert len(list(read(pieces))) == 10_000
