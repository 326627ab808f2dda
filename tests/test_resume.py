"""Broken downloads go on where the rest proves to be of the same file, or begin again."""

from __future__ import annotations

import contextlib
import gzip
import hashlib

import pytest

from md5light.download.downloader import Downloader, Transfer
from md5light.errors import TemporaryFailure
from tests.downloads import (
    BIG,
    DATE,
    ETAG,
    LATER,
    SECRET,
    Fetch,
    config,
    downloading,
    failure_of,
    head,
    md5,
    part,
)
from tests.origin import Origin, Peer, Script, chunked, reply


def ranges(origin: Origin) -> list[str | None]:
    """Tell which range each request asked for."""
    lines = [dict(line.split(": ", 1) for line in head.split("\r\n")[1:]) for head in origin.heads]
    return [headers.get("Range") for headers in lines]


# --- the rest of the same file --------------------------------------------------------------------


@pytest.mark.parametrize("validators", [(ETAG,), (ETAG, DATE), (DATE, LATER)])
def test_a_broken_transfer_goes_on_where_it_stopped(
    origin: Origin, fetch: Fetch, validators: tuple[str, ...]
) -> None:
    hashed = fetch(origin.serve("/file", lambda peer: part(peer, BIG, 300_000, *validators)))
    assert (hashed.md5, hashed.size) == (md5(BIG), len(BIG))
    # from 16 KiB before each break
    starts = [300_000 * number - 16_384 * number for number in range(1, 11)]
    assert ranges(origin) == [None, *(f"bytes={start}-" for start in starts)]
    assert origin.heads[3].endswith(f"If-Range: {validators[0].partition(': ')[2]}")


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 1000, 16_384, 16_385, 100_000])
@pytest.mark.parametrize("kept", [0.0, 0.35, 0.99, 1.0])
def test_files_of_any_size_go_on(origin: Origin, fetch: Fetch, size: int, kept: float) -> None:
    body, piece = BIG[:size], BIG[: int(size * kept)]

    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.send(head("Transfer-Encoding: chunked", ETAG))
            peer.send(chunked(piece, end=b"") if piece else b"")
        else:
            part(peer, body, size, ETAG)

    assert fetch(origin.serve("/file", script)).md5 == md5(body)
    # of so few bytes as 64 there is no proof
    begin = len(piece) - max(64, min(16_384, len(piece) // 2))
    assert ranges(origin) == [None, f"bytes={begin}-" if begin > 0 else None]


@pytest.mark.parametrize("piece", [100, 1000, 10_000])
def test_a_line_that_breaks_often_makes_progress(origin: Origin, fetch: Fetch, piece: int) -> None:
    body = BIG[: 20 * piece]
    assert fetch(origin.serve("/file", lambda peer: part(peer, body, piece, ETAG))).md5 == md5(body)
    assert origin.requests() <= 60


def test_a_line_that_becomes_bad_makes_progress(origin: Origin, fetch: Fetch) -> None:
    """The first break came late, so that much is asked for once more; the next ones come early."""

    def script(peer: Peer) -> None:
        part(peer, BIG, 2_990_000 if peer.number == 1 else 2000, ETAG)

    assert fetch(origin.serve("/file", script)).md5 == md5(BIG)


def test_a_stalled_transfer_goes_on(origin: Origin) -> None:
    def script(peer: Peer) -> None:
        part(peer, BIG, 2_000_000, ETAG)
        peer.wait_closed()

    with downloading(read_timeout=0.3) as fetch:
        assert fetch(origin.serve("/file", script)).md5 == md5(BIG)
    assert origin.requests() == 2


def test_a_server_that_is_away_for_a_moment_is_waited_for(origin: Origin, fetch: Fetch) -> None:
    def script(peer: Peer) -> None:
        if peer.number in (2, 3):
            peer.reply(b"", "503 Restarting")
        elif peer.number != 4:
            part(peer, BIG, 2_000_000, ETAG)

    assert fetch(origin.serve("/file", script)).md5 == md5(BIG)
    assert ranges(origin) == [None] + 4 * ["bytes=1983616-"]


def test_parts_may_be_smaller_than_asked_for(origin: Origin, fetch: Fetch) -> None:
    def script(peer: Peer) -> bool:
        start = peer.range_start()
        if start is None:
            part(peer, BIG, 100_000, ETAG)
            return False
        last = min(start + 999_999, len(BIG) - 1)
        span = f"Content-Range: bytes {start}-{last}/{len(BIG)}"
        return peer.reply(BIG[start : last + 1], "206 Part", span, ETAG)

    assert fetch(origin.serve("/file", script)).md5 == md5(BIG)
    assert origin.requests() == 4


def test_a_part_until_close_may_break_too(origin: Origin, fetch: Fetch) -> None:
    def script(peer: Peer) -> None:
        start = peer.range_start()
        if start is None:
            part(peer, BIG, 100_000, ETAG)
        else:
            span = f"Content-Range: Bytes {start}-{len(BIG) - 1}/{len(BIG)}"
            peer.send(head(span, ETAG, status="206 Part") + BIG[start:][:1_000_000])

    assert fetch(origin.serve("/file", script)).md5 == md5(BIG)
    assert origin.requests() == 4


def test_a_coded_file_goes_on_in_its_coding(origin: Origin, fetch: Fetch) -> None:
    coded = gzip.compress(BIG)

    def script(peer: Peer) -> None:
        part(peer, coded, 1_000_000, ETAG, "Content-Encoding: gzip")

    assert fetch(origin.serve("/file", script)).md5 == md5(coded)
    assert None not in ranges(origin)[1:]


# --- no proof: the attempt ends -------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ('ETag: W/"v1"',),
        ('ETag: w/"v1"',),
        ("ETag: v1",),
        ('ETag: "v1", "v2"',),
        ("ETag:",),
        (DATE,),
        (DATE, "Date: Wed, 21 Oct 2015 07:28:00 GMT"),
        (DATE, "Date: Wed, 21 Oct 2015 07:27:59 GMT"),
        (DATE, "Date: soon"),
        (DATE, LATER, LATER),
        (DATE, LATER, 'ETag: W/"v1"'),
        (DATE, LATER, "ETag: v1"),
        (DATE, LATER, "ETag:"),
        ("Last-Modified: yesterday", LATER),
        ("Last-Modified: Wednesday, 21-Oct-15 07:28:00 GMT", LATER),
        ("Last-Modified: Wed, 99 Oct 2015 07:28:00 GMT", LATER),
        (ETAG, "Accept-Ranges: none"),
    ],
)
def test_without_validator_or_ranges_there_is_no_going_on(
    origin: Origin, fetch: Fetch, headers: tuple[str, ...]
) -> None:
    failure = failure_of(fetch, origin.serve("/file", lambda peer: part(peer, BIG, 1000, *headers)))
    assert (failure.code, type(failure), origin.requests()) == ("incomplete", TemporaryFailure, 1)


def test_a_file_rewritten_within_its_second_is_not_mixed(origin: Origin, fetch: Fetch) -> None:
    """Both versions have the same date."""
    now = DATE.replace("Last-Modified", "Date")
    bodies = {1: b"AAAAA", 2: b"BBBBB"}

    def script(peer: Peer) -> None:
        part(peer, bodies.get(peer.number, b"B") * 2, 5 if peer.number == 1 else 10, DATE, now)

    failure = failure_of(fetch, origin.serve("/file", script))
    assert (failure.code, origin.requests()) == ("incomplete", 1)


@pytest.mark.parametrize("headers", [(ETAG,), (DATE, LATER)])
def test_no_progress_ends_the_attempt(
    origin: Origin, fetch: Fetch, headers: tuple[str, ...]
) -> None:
    def script(peer: Peer) -> None:
        part(peer, BIG, 1000 if peer.number == 1 else 0, *headers)

    failure = failure_of(fetch, origin.serve("/file", script))
    assert (failure.code, type(failure)) == ("incomplete", TemporaryFailure)
    assert origin.requests() == 7


# --- another answer than the rest: once more from zero --------------------------------------------

#: it breaks after 1,000 bytes, and the server is asked for `Range: bytes=500-`
FILE = BIG[:300_000]
START, REST = 500, FILE[500:]
SPAN = "Content-Range: bytes 500-299999/300000"

OTHERS = {
    "another start": reply(FILE[499:], "206 Part", SPAN.replace("500-", "499-"), ETAG, DATE),
    "a later start": reply(FILE[1000:], "206 Part", SPAN.replace("500-", "1000-"), ETAG, DATE),
    "another total": reply(REST, "206 Part", SPAN.replace("/300000", "/300001"), ETAG, DATE),
    "no total": reply(REST, "206 Part", SPAN.replace("/300000", "/*"), ETAG, DATE),
    "no Content-Range": reply(REST, "206 Part", ETAG, DATE),
    "two of it": reply(REST, "206 Part", SPAN, SPAN, ETAG, DATE),
    "a broken one": reply(REST, "206 Part", "Content-Range: bytes 500-", ETAG, DATE),
    "an end before the start": reply(b"", "206 Part", SPAN.replace("299999", "499"), ETAG, DATE),
    "an end after the total": reply(REST, "206 Part", SPAN.replace("299999", "300000"), ETAG),
    "another length": reply(REST[:-1], "206 Part", SPAN, ETAG, DATE),
    "another ETag": reply(REST, "206 Part", SPAN, 'ETag: "v2"', DATE),
    "a weak ETag": reply(REST, "206 Part", SPAN, 'ETag: W/"v1"', DATE),
    "two ETags": reply(REST, "206 Part", SPAN, ETAG, ETAG, DATE),
    "no ETag": reply(REST, "206 Part", SPAN, DATE),
    "another date": reply(REST, "206 Part", SPAN, ETAG, DATE.replace("07:28", "07:29")),
    "a coding": reply(REST, "206 Part", SPAN, ETAG, DATE, "Content-Encoding: gzip"),
    "another type": reply(REST, "206 Part", SPAN, ETAG, DATE, "Content-Type: text/html"),
    "another unit": reply(REST, "206 Part", SPAN.replace("bytes", "octets"), ETAG, DATE),
    "several parts": reply(
        REST, "206 Part", "Content-Type: multipart/byteranges; boundary=x", ETAG
    ),
    "several parts and a range": reply(
        REST, "206 Part", SPAN, "Content-Type: Multipart/Byteranges; boundary=x", ETAG, DATE
    ),
    "shifted by a byte": reply(b"x" + REST[:-1], "206 Part", SPAN, ETAG, DATE),
    "shifted back by a byte": reply(REST[1:] + b"x", "206 Part", SPAN, ETAG, DATE),
    "another file": reply(REST[::-1], "206 Part", SPAN, ETAG, DATE),
    "too much, until close": head(SPAN, ETAG, status="206 Part") + REST + b"x",
    "too much in chunks": head(SPAN, ETAG, "Transfer-Encoding: chunked", status="206 Part")
    + chunked(REST, b"x"),
    "too much after the length": reply(REST, "206 Part", SPAN, ETAG) + b"x",
    "broken chunks": head(SPAN, ETAG, "Transfer-Encoding: chunked", status="206 Part")
    + chunked(REST, end=b"x\r\n"),
    "200 with the rest": reply(REST, "200 OK", SPAN, ETAG, DATE),
    "200 with the rest, unsaid": reply(REST, "200 OK", ETAG, DATE),
    "200 with the whole": reply(FILE, "200 OK", ETAG, DATE),
    "200 with another file": reply(SECRET, "200 OK", 'ETag: "v2"'),
    "201": reply(REST, "201 Created", SPAN, ETAG, DATE),
    "203": reply(REST, "203 Other", SPAN, ETAG, DATE),
    "204": reply(b"", "204 No Content"),
    "304": reply(b"", "304 Not Modified", ETAG),
    "400": reply(SECRET, "400 Bad Request"),
    "403": reply(SECRET, "403 Forbidden"),
    "404": reply(SECRET, "404 Not Found"),
    "412": reply(SECRET, "412 Precondition Failed"),
    "416": reply(b"", "416 Too Far", "Content-Range: bytes */300000"),
    "501": reply(SECRET, "501 No Ranges"),
    "a redirect": reply(b"", "302 Found", "Location: /file", ETAG),
    "a bad redirect": reply(b"", "302 Found"),
    "no HTTP": SECRET,
    "a bad head": head(SPAN, ETAG, "Content-Length: x", status="206 Part"),
}


def once(answer: bytes, *headers: str) -> Script:
    """Break the file off after 1,000 bytes, then send `answer`, then the whole file."""

    def script(peer: Peer) -> None:
        if peer.number == 1:
            part(peer, FILE, 1000, *headers)
        elif peer.number == 2:
            assert peer.range_start() == START
            peer.send(answer)
        else:
            peer.reply(FILE, "200 OK", *headers)

    return script


@pytest.mark.parametrize("name", OTHERS)
def test_another_answer_than_the_rest_is_not_taken(origin: Origin, fetch: Fetch, name: str) -> None:
    hashed = fetch(origin.serve("/file", once(OTHERS[name], ETAG, DATE)))
    assert (hashed.md5, hashed.size) == (md5(FILE), len(FILE))
    assert ranges(origin) == [None, "bytes=500-", None]


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (DATE.replace("07:28", "07:29"),),
        (LATER,),
        (ETAG,),
        (ETAG, DATE),
        ('ETag: W/"v1"', DATE),
    ],
)
def test_a_part_must_repeat_the_date_that_was_asked_for(
    origin: Origin, fetch: Fetch, headers: tuple[str, ...]
) -> None:
    script = once(reply(REST, "206 Part", SPAN, *headers), DATE, LATER)
    assert fetch(origin.serve("/file", script)).md5 == md5(FILE)
    assert ranges(origin) == [None, "bytes=500-", None]


@pytest.mark.parametrize("coding", [(), ("Content-Encoding: br",), ("Content-Encoding: gzip, x",)])
def test_a_part_must_have_the_coding_of_the_first_answer(
    origin: Origin, fetch: Fetch, coding: tuple[str, ...]
) -> None:
    script = once(reply(REST, "206 Part", SPAN, ETAG, *coding), ETAG, "Content-Encoding: gzip")
    assert fetch(origin.serve("/file", script)).md5 == md5(FILE)
    assert ranges(origin) == [None, "bytes=500-", None]


def test_after_a_wrong_part_no_other_is_asked_for(origin: Origin, fetch: Fetch) -> None:
    def script(peer: Peer) -> None:
        if peer.number == 2:
            peer.send(OTHERS["another ETag"])
        else:
            part(peer, FILE, 1000, ETAG, DATE)

    failure = failure_of(fetch, origin.serve("/file", script))
    assert (failure.code, type(failure)) == ("incomplete", TemporaryFailure)
    assert ranges(origin) == [None, "bytes=500-", None]


def test_a_server_that_always_sends_the_rest_as_a_200_has_no_md5(
    origin: Origin, fetch: Fetch
) -> None:
    def script(peer: Peer) -> None:
        if peer.number == 1:
            part(peer, FILE, 1000, ETAG)
        else:
            peer.send(OTHERS["200 with the rest"])

    assert failure_of(fetch, origin.serve("/file", script)).code == "incomplete"
    assert origin.requests() == 3


def test_a_changed_file_is_begun_again(origin: Origin, fetch: Fetch) -> None:
    old, new = BIG[:1_000_000], BIG[1_000_000:]

    def script(peer: Peer) -> None:
        if peer.number == 1:
            part(peer, old, 400_000, ETAG)
        else:
            peer.send(reply(new, "200 OK", 'ETag: "v2"'))

    hashed = fetch(origin.serve("/file", script))
    assert (hashed.md5, hashed.size, hashed.etag) == (md5(new), len(new), '"v2"')
    assert origin.requests() == 3


@pytest.mark.parametrize("changed", [False, True])
def test_all_digests_go_on_or_begin_again_together(origin: Origin, changed: bool) -> None:
    """The file is so large that each digest has a thread when the transfer breaks."""
    old = BIG * 4
    new = old[::-1] if changed else old

    def script(peer: Peer) -> None:
        if peer.number == 1:
            part(peer, old, 9_000_000, ETAG)
        elif changed:
            peer.send(reply(new, "200 OK", 'ETag: "v2"'))
        else:
            part(peer, old, len(old), ETAG)

    downloader = Downloader(config())
    with contextlib.closing(downloader):
        url = origin.serve("/file", script)
        hashed = downloader.download(url, Transfer(), digests=["sha1", "sha256", "sha512"])
    found = (hashed.md5, hashed.sha1, hashed.sha256, hashed.sha512)
    names = ("md5", "sha1", "sha256", "sha512")
    assert found == tuple(hashlib.new(name, new).hexdigest() for name in names)
    assert origin.requests() == (3 if changed else 2)


def test_a_server_that_keeps_no_ranges_is_not_asked_for_ever(origin: Origin, fetch: Fetch) -> None:
    answer = reply(BIG[:400_000], "200 OK", ETAG, length=len(BIG))
    url = origin.serve("/file", lambda peer: peer.send(answer))
    assert failure_of(fetch, url).code == "incomplete"
    assert origin.requests() == 3


def test_where_the_rest_is_elsewhere_everything_is_asked_for_there(
    origin: Origin, fetch: Fetch
) -> None:
    """The same ETag at another URL does not make it the same file."""
    old, new = BIG[:1_000_000], BIG[1_000_000:2_000_000]

    def script(peer: Peer) -> None:
        if peer.number == 1:
            part(peer, old, 400_000, ETAG)
        else:
            peer.reply(b"", "302 Found", "Location: /moved")

    origin.serve("/moved", lambda peer: part(peer, new, len(new), ETAG))
    assert fetch(origin.serve("/file", script)).md5 == md5(new)


# --- signed URLs ----------------------------------------------------------------------------------


def signed(origin: Origin, answer: Script) -> str:
    """Redirect each request of /file to a URL of its own, which `answer` serves."""

    def first(peer: Peer) -> bool:
        return peer.reply(b"", "302 Found", f"Location: /signed?{peer.number}")

    origin.serve("/signed", answer)
    return origin.serve("/file", first)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_where_a_signed_url_has_expired_another_is_asked_for(
    origin: Origin, fetch: Fetch, status: int
) -> None:
    """Each URL is good for one request, which breaks off at 35 %."""

    def script(peer: Peer) -> None:
        if peer.number > 1:
            peer.reply(SECRET, f"{status} Expired")
        else:
            part(peer, BIG, 1_050_000, ETAG)

    hashed = fetch(signed(origin, script))
    assert (hashed.md5, hashed.final_url) == (md5(BIG), origin.url("/signed?3"))
    # the URL, the signed URL, twice: the rest at the old one, at the first one, at the new one
    assert ranges(origin) == [None] * 2 + ["bytes=1033616-"] * 3 + ["bytes=2067232-"] * 3


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ((ETAG,), ('ETag: "v2"',)),
        ((ETAG,), ()),
        ((DATE, LATER), (DATE, LATER)),
    ],
)
def test_only_a_strong_etag_proves_the_file_of_another_signed_url(
    origin: Origin, fetch: Fetch, first: tuple[str, ...], then: tuple[str, ...]
) -> None:
    def script(peer: Peer) -> None:
        if peer.path == "/signed?1":
            part(peer, BIG, 400_000, *first) if peer.number == 1 else peer.reply(SECRET, "403 Late")
        else:
            part(peer, BIG[::-1], len(BIG), *then)

    assert fetch(signed(origin, script)).md5 == md5(BIG[::-1])


def test_the_new_signed_url_must_have_the_total(origin: Origin, fetch: Fetch) -> None:
    def script(peer: Peer) -> None:
        if peer.path == "/signed?1":
            part(peer, BIG, 400_000, ETAG) if peer.number == 1 else peer.reply(SECRET, "403 Late")
        else:
            part(peer, BIG + b"x", len(BIG) + 1, ETAG)

    assert fetch(signed(origin, script)).md5 == md5(BIG + b"x")


def test_signed_urls_that_never_serve_the_rest_are_not_asked_for_ever(
    origin: Origin, fetch: Fetch
) -> None:
    def script(peer: Peer) -> None:
        if peer.range_start() is None:
            part(peer, BIG, 400_000, ETAG)
        else:
            peer.reply(SECRET, "403 No Ranges")

    assert failure_of(fetch, signed(origin, script)).code == "incomplete"
    assert origin.requests() == 7


def test_signed_urls_that_break_without_progress_are_not_asked_for_ever(
    origin: Origin, fetch: Fetch
) -> None:
    def script(peer: Peer) -> None:
        if peer.path == "/signed?1" and peer.number > 1:
            peer.reply(SECRET, "403 Late")
        else:
            part(peer, BIG, 400_000 if peer.path == "/signed?1" else 0, ETAG)

    assert failure_of(fetch, signed(origin, script)).code == "incomplete"
    assert origin.requests() <= 12


@pytest.mark.parametrize("location", ["ftp://h/", "/file", "http://10.0.0.1/"])
def test_where_the_first_url_leads_nowhere_all_is_asked_for_once_more(
    origin: Origin, location: str
) -> None:
    def first(peer: Peer) -> bool:
        target = location if peer.range_start() else f"/signed?{peer.number}"
        return peer.reply(b"", "302 Found", f"Location: {target}")

    def script(peer: Peer) -> None:
        if peer.range_start() is None:
            part(peer, BIG, 400_000 if peer.path == "/signed?1" else len(BIG), ETAG)
        else:
            peer.reply(SECRET, "403 Late")

    origin.serve("/signed", script)
    with downloading(max_redirects=2) as fetch:
        assert fetch(origin.serve("/file", first)).md5 == md5(BIG)
