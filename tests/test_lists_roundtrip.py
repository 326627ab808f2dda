"""What is written is read again, whatever the names are."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from md5light.errors import Refused
from md5light.finding import ALGORITHMS
from md5light.lists.digests import DIGITS
from md5light.lists.entry import Entry
from md5light.lists.formats import FORMATS
from md5light.lists.lines import Line
from md5light.lists.reading import read
from md5light.lists.writing import write

# The same examples each time, and no time limit for one on a busy machine.
settings.register_profile("lists", max_examples=50, derandomize=True, database=None, deadline=None)
settings.load_profile("lists")

#: what a list and a database can hold: everything but NUL and half surrogates
LETTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
NAMES = st.one_of(
    st.text(LETTERS, min_size=1, max_size=40),
    st.text(st.sampled_from(" \\\n\r\t*)('\"`$,;=#%./?&\u2028\x85é日𝄞"), min_size=1, max_size=40),
    st.text(LETTERS, min_size=1, max_size=10).map(lambda text: (text * 2000)[:2000]),
).filter(lambda name: "://" not in name and name.removeprefix("./").strip("/"))
URLS = st.text(st.sampled_from("abcXYZ019-._~%/?#[]@!$&'()*+,;="), max_size=60).map(
    lambda rest: f"http://h/{rest}"
)


#: beginnings of lists, after which anything may come
OPENINGS = [
    '{"url":"http://h/',
    '[{"url":',
    'url,name,md5\n"',
    "TsvHttpData-1.0\n",
    "MD5 (",
    "\ufeff",
]


def digests_of(algorithm: str) -> st.SearchStrategy[str]:
    size = DIGITS[algorithm] // 2
    return st.binary(min_size=size, max_size=size).map(bytes.hex)  # drawn quicker than text


DIGESTS = st.fixed_dictionaries({algorithm: digests_of(algorithm) for algorithm in ALGORITHMS})


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    """Lines that are done, each with a URL and a name of its own."""
    urls = draw(st.lists(URLS, min_size=1, max_size=5, unique=True))
    names = draw(st.lists(NAMES, min_size=len(urls), max_size=len(urls), unique=True))
    return [
        Entry(
            position,
            sent=url,
            url=url,
            status="hashed",
            name=name,
            id=draw(st.none() | NAMES),
            size=draw(st.integers(0, 2**63 - 1)),
            digests=draw(DIGESTS),
        )
        for position, (url, name) in enumerate(zip(urls, names, strict=True), 1)
    ]


def written_and_read(found: list[Entry], format: str, **options: Any) -> list[Line]:
    base = options.pop("base", None)
    reading = read(write(found, format, **options), base=base)
    lines = [line for line in reading if isinstance(line, Line)]
    assert len(lines) == len(found)
    return lines


@given(
    st.lists(st.binary(max_size=60), max_size=4),
    st.sampled_from(["", *OPENINGS]),
    st.sampled_from(["auto", *FORMATS]),
)
def test_whatever_is_read_ends_well(chunks: list[bytes], opening: str, format: str) -> None:
    try:
        found = list(read([opening.encode(), *chunks], format, base="http://h/"))
    except Refused:
        return
    assert found
    for line in found:
        line.sent.encode("utf-8")


@given(entries())
def test_records(found: list[Entry]) -> None:
    for format in ("ndjson", "csv"):
        for line, entry in zip(written_and_read(found, format), found, strict=True):
            assert (line.url, line.name, line.id) == (entry.url, entry.name, entry.id)
            assert (line.size, line.expected) == (entry.size, entry.digests)


@given(entries())
@example(
    [
        Entry(
            1,
            "",
            "http://h/) = d41d8cd98f00b204e9800998ecf8427e",
            "hashed",
            digests={a: "0" * DIGITS[a] for a in ALGORITHMS},
        )
    ]
)
def test_sums_of_urls(found: list[Entry]) -> None:
    for algorithm in ALGORITHMS:
        for line, entry in zip(written_and_read(found, f"{algorithm}sum"), found, strict=True):
            assert line.url == entry.url
            assert line.expected == {algorithm: entry.digests[algorithm]}


@given(entries())
def test_names(found: list[Entry]) -> None:
    for format in ("md5sum", "sha512sum", "bsd"):
        lines = written_and_read(found, format, names="name", base="http://h/d")
        for line, entry in zip(lines, found, strict=True):
            assert line.name == entry.name
            assert dict(line.expected).items() <= entry.digests.items()
            if format == "bsd":
                assert line.expected == entry.digests


@given(entries())
def test_names_and_urls_of_a_registry(found: list[Entry]) -> None:
    # A line of it is a line of text.
    found = [entry for entry in found if not {"\n", "\r"} & set(entry.name or "")]
    assume(found)
    lines = written_and_read(found, "pooch", names="name", base="http://h/d")
    for line, entry in zip(lines, found, strict=True):
        assert (line.url, line.name) == (entry.url, entry.name)
        assert dict(line.expected).items() <= entry.digests.items()


@given(entries())
def test_transfer_lists_are_sorted(found: list[Entry]) -> None:
    lines = written_and_read(found, "gcs")
    assert [line.url.encode() for line in lines] == sorted(entry.url.encode() for entry in found)
    by_url = {entry.url: entry for entry in found}
    for line in lines:
        assert line.size == by_url[line.url].size
        assert line.expected == {"md5": by_url[line.url].digests["md5"]}


@given(entries())
def test_lines_that_failed_are_read_as_they_were_sent(found: list[Entry]) -> None:
    """Also those of a list of several lines of text each."""
    for format in ("csv", "ndjson", "md5sum"):
        reading = read(write(found, format))
        lines = [line for line in reading if isinstance(line, Line)]
        failed = [
            Entry(
                entry.position,
                line.sent,
                line.url,
                "failed",
                error_code="http_status",
                error_message="The\nserver, “no”.",
            )
            for entry, line in zip(found, lines, strict=True)
        ]
        again = read(write(failed, "failed", header=reading.header))
        assert again.format == reading.format
        assert [line._replace(number=0) for line in again if isinstance(line, Line)] == [
            line._replace(number=0) for line in lines
        ]
