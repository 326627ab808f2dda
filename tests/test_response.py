"""Answers, right and wrong: which of them have an MD5."""

from __future__ import annotations

import gzip
import subprocess
import time

import pytest

from md5light.errors import Failure, PermanentFailure, TemporaryFailure
from tests.downloads import (
    BIG,
    CHUNKED,
    SECRET,
    Fetch,
    failure_of,
    head,
    http_date,
    md5,
)
from tests.origin import Origin, Peer, Raw, chunked, reply

# --- never wrong: whole bodies --------------------------------------------------------------------

LAST = b"0\r\n\r\n"

WHOLE = {
    "length": (head("Content-Length: 5") + b"hello", b"hello"),
    "empty": (head("Content-Length: 0"), b""),
    "the same length twice": (head("Content-Length: 5", "Content-Length: 5") + b"hello", b"hello"),
    "the same length written twice": (head("Content-Length: 5, 05") + b"hello", b"hello"),
    "a length with many zeros": (head("Content-Length: " + "0" * 5000 + "5") + b"hello", b"hello"),
    "until close": (head("Connection: close") + b"hello", b"hello"),
    "until close, and nothing": (head("Connection: close"), b""),
    "keep-alive, until close": (head("Connection: keep-alive") + b"hello", b"hello"),
    "HTTP/1.0": (head(version="HTTP/1.0") + b"hello", b"hello"),
    "HTTP/1.0 with a length": (head("Content-Length: 5", version="HTTP/1.0") + b"hello", b"hello"),
    "chunks": (CHUNKED + chunked(b"hel", b"lo"), b"hello"),
    "no chunks": (CHUNKED + chunked(), b""),
    "many small chunks": (CHUNKED + chunked(*[b"ab"] * 5000), b"ab" * 5000),
    "a large chunk": (CHUNKED + chunked(BIG), BIG),
    "upper case, zeros": (
        head("Transfer-Encoding: Chunked") + b"000A\r\n0123456789\r\n000\r\n\r\n",
        b"0123456789",
    ),
    "sixteen digits": (CHUNKED + b"%016x\r\nhello\r\n%016x\r\n\r\n" % (5, 0), b"hello"),
    "extensions": (CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0;x\r\n\r\n', b"hello"),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\nDigest: x\r\nMore: y\r\n\r\n", b"hello"),
    "chunks and a length": (
        head("Transfer-Encoding: chunked", "Content-Length: 3") + chunked(b"hello"),
        b"hello",
    ),
    "chunks in HTTP/1.0": (
        head("Transfer-Encoding: chunked", version="HTTP/1.0") + chunked(b"hello"),
        b"hello",
    ),
    "identity": (head("Transfer-Encoding: identity", "Content-Length: 5") + b"hello", b"hello"),
    "bare line feeds": (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", b"hello"),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "a folded header": (head("X: a\r\n  b", "Content-Length: 5") + b"hello", b"hello"),
    "names that are none": (
        head("X : a", "X Y: b", "(null): c", "\xfc: d", "Content-Length: 5") + b"hello",
        b"hello",
    ),
    "bytes in headers": (
        b"HTTP/1.1 200 \xff\r\nX: \xfc\x01\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
    ),
    "100 Continue": (head(status="100 Continue") + head("Content-Length: 5") + b"hello", b"hello"),
    "103 Early Hints": (
        head("Link: x", status="103 Early Hints") + head("Content-Length: 5") + b"hello",
        b"hello",
    ),
    "many interim answers": (
        head(status="100 Continue") * 5000 + head("Content-Length: 5") + b"hello",
        b"hello",
    ),
    "one long header": (head("X: " + "x" * 60000, "Content-Length: 5") + b"hello", b"hello"),
    "a large body": (head(f"Content-Length: {len(BIG)}") + BIG, BIG),
    "a large body until close": (head() + BIG, BIG),
    "gzip": (head("Content-Encoding: gzip") + gzip.compress(b"hello"), None),
    "gzip, that is none": (
        head("Content-Encoding: gzip", "Content-Length: 5") + b"hello",
        b"hello",
    ),
    "chunked twice": (head(*["Transfer-Encoding: chunked"] * 2) + chunked(b"hello"), b"hello"),
    "chunked thrice in one": (
        head("Transfer-Encoding: chunked, Chunked,chunked") + chunked(b"hello"),
        b"hello",
    ),
    "chunks, then the last one again": (CHUNKED + chunked(b"hello") + LAST, b"hello"),
    "chunks, then a line end": (CHUNKED + chunked(b"hello") + b"\r\n", b"hello"),
    "chunks, then anything": (CHUNKED + chunked(b"hello") + SECRET, b"hello"),
    "no chunks, then anything": (CHUNKED + chunked() + head() + SECRET, b""),
    "101 lines": (head(*["X-A: b"] * 100, "Content-Length: 5") + b"hello", b"hello"),
    "7,000 lines": (head(*["X-A: b"] * 7000, "Content-Length: 5") + b"hello", b"hello"),
    "a line of 70 KiB": (head("X: " + "x" * 71680, "Content-Length: 5") + b"hello", b"hello"),
    "lower case": (head("Content-Length: 5", version="http/1.1") + b"hello", b"hello"),
    "mixed case": (head("Content-Length: 5", version="Http/1.0") + b"hello", b"hello"),
    "a length with its unit": (head("Content-Length: 5 bytes") + b"hello", b"hello"),
    "a length with its unit, in capitals": (head("Content-Length: 5\tBytes") + b"hello", b"hello"),
    "a trailer of 500 lines": (
        CHUNKED + chunked(b"hello", end=b"0\r\n" + b"X: y\r\n" * 500 + b"\r\n"),
        b"hello",
    ),
    "an unknown coding": (
        head("Content-Encoding: br, x", "Content-Length: 5") + b"hello",
        b"hello",
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_md5_is_that_of_the_bytes_sent(origin: Origin, fetch: Fetch, name: str) -> None:
    sent, body = WHOLE[name]
    if body is None:
        body = sent.partition(b"\r\n\r\n")[2]
    url = origin.serve("/file", Raw(sent))
    hashed = fetch(url)
    assert (hashed.md5, hashed.size) == (md5(body), len(body))
    assert (
        md5(subprocess.run(["curl", "-sL", url], check=True, capture_output=True).stdout)
        == hashed.md5
    )


# --- never wrong: what is no whole body -----------------------------------------------------------

NOT_WHOLE: dict[str, tuple[bytes, str, type[Failure]]] = {
    "shorter than announced": (head("Content-Length: 50") + SECRET, "incomplete", TemporaryFailure),
    "nothing of what was announced": (head("Content-Length: 50"), "incomplete", TemporaryFailure),
    "longer than announced": (head("Content-Length: 2") + SECRET, "bad_response", TemporaryFailure),
    "much longer than announced": (
        head("Content-Length: 2") + BIG,
        "bad_response",
        TemporaryFailure,
    ),
    "empty, then something": (head("Content-Length: 0") + SECRET, "bad_response", TemporaryFailure),
    "two lengths": (
        head("Content-Length: 6", "Content-Length: 5") + SECRET,
        "bad_response",
        PermanentFailure,
    ),
    "two lengths in one": (head("Content-Length: 6, 5") + SECRET, "bad_response", PermanentFailure),
    "a negative length": (head("Content-Length: -6") + SECRET, "bad_response", PermanentFailure),
    "a signed length": (head("Content-Length: +6") + SECRET, "bad_response", PermanentFailure),
    "a length with a line": (
        head("Content-Length: 1_0") + SECRET + b"0123",
        "bad_response",
        PermanentFailure,
    ),
    "a hex length": (head("Content-Length: 0x6") + SECRET, "bad_response", PermanentFailure),
    "a broken length": (head("Content-Length: 6.0") + SECRET, "bad_response", PermanentFailure),
    "an empty length": (head("Content-Length:") + SECRET, "bad_response", PermanentFailure),
    "an impossible length": (
        head("Content-Length: " + "9" * 5000) + SECRET,
        "bad_response",
        PermanentFailure,
    ),
    "a length in other digits": (
        head("Content-Length: ６") + SECRET,
        "bad_response",
        PermanentFailure,
    ),
    "a length behind another space": (
        head("Content-Length: \x0b6") + SECRET,
        "bad_response",
        PermanentFailure,
    ),
    "a folded length": (head("Content-Length:\r\n 6") + SECRET, "bad_response", PermanentFailure),
    "a length in a name with a space": (
        head("Content-Length : 6") + SECRET,
        "bad_response",
        PermanentFailure,
    ),
    "chunks without end": (CHUNKED + chunked(SECRET, end=b""), "incomplete", TemporaryFailure),
    "chunks without the last line": (
        CHUNKED + chunked(SECRET, end=b"0\r\n"),
        "incomplete",
        TemporaryFailure,
    ),
    "a cut trailer": (
        CHUNKED + chunked(SECRET, end=b"0\r\nX: y\r\n"),
        "incomplete",
        TemporaryFailure,
    ),
    "a cut chunk": (CHUNKED + b"ff\r\n" + SECRET, "incomplete", TemporaryFailure),
    "a cut chunk size": (CHUNKED + b"6\r\n" + SECRET + b"\r\n6", "incomplete", TemporaryFailure),
    "a chunk longer than its size": (
        CHUNKED + b"2\r\n" + SECRET + b"\r\n" + LAST,
        "bad_response",
        TemporaryFailure,
    ),
    "a chunk without line end": (
        CHUNKED + b"6\r\n" + SECRET + b"0\r\n\r\n",
        "bad_response",
        TemporaryFailure,
    ),
    "a chunk size that is none": (CHUNKED + b"xyz\r\n" + SECRET, "bad_response", TemporaryFailure),
    "a negative chunk size": (CHUNKED + b"-6\r\n" + SECRET, "bad_response", TemporaryFailure),
    "a hex prefix": (
        CHUNKED + b"0x6\r\n" + SECRET + b"\r\n" + LAST,
        "bad_response",
        TemporaryFailure,
    ),
    "an underscore in a chunk size": (
        CHUNKED + b"0_6\r\n" + SECRET + b"\r\n" + LAST,
        "bad_response",
        TemporaryFailure,
    ),
    "an empty chunk size": (CHUNKED + b"\r\n" + SECRET, "bad_response", TemporaryFailure),
    "a huge chunk size": (
        CHUNKED + b"f" * 200 + b"\r\n" + SECRET,
        "bad_response",
        TemporaryFailure,
    ),
    "a chunk extension without end": (
        CHUNKED + b"6;" + b"x" * 70000,
        "bad_response",
        TemporaryFailure,
    ),
    "a trailer that is none": (
        CHUNKED + chunked(SECRET, end=b"0\r\nx\r\n\r\n"),
        "bad_response",
        TemporaryFailure,
    ),
    "a chunk size with a NUL": (
        CHUNKED + b"6\0\r\n" + SECRET + b"\r\n" + LAST,
        "bad_response",
        TemporaryFailure,
    ),
    "gzip on the way": (
        head("Transfer-Encoding: gzip, chunked") + chunked(SECRET),
        "bad_response",
        PermanentFailure,
    ),
    "a folded transfer coding": (
        head("Transfer-Encoding:\r\n chunked") + chunked(SECRET),
        "bad_response",
        PermanentFailure,
    ),
    "a transfer coding behind another space": (
        head("Transfer-Encoding: \x0bchunked") + chunked(SECRET),
        "bad_response",
        PermanentFailure,
    ),
    "an unknown transfer coding": (
        head("Transfer-Encoding: xchunked") + SECRET,
        "bad_response",
        PermanentFailure,
    ),
    "HTTP/0.9": (SECRET, "bad_response", PermanentFailure),
    "a page without head": (b"<html>" + SECRET * 20000, "bad_response", PermanentFailure),
    "another protocol": (b"SSH-2.0-OpenSSH\r\n", "bad_response", PermanentFailure),
    "TLS": (b"\x15\x03\x01\x00\x02\x02\x50", "bad_response", PermanentFailure),
    "HTTP/2": (head(version="HTTP/2") + SECRET, "bad_response", PermanentFailure),
    "HTTP/3.0": (head(version="HTTP/3.0") + SECRET, "bad_response", PermanentFailure),
    "no version": (b"HTTP 200 OK\r\n\r\n" + SECRET, "bad_response", PermanentFailure),
    "no status": (b"HTTP/1.1 \r\n\r\n" + SECRET, "bad_response", PermanentFailure),
    "a status of letters": (head(status="abc") + SECRET, "bad_response", PermanentFailure),
    "a status of two digits": (head(status="20 OK") + SECRET, "bad_response", PermanentFailure),
    "a status of four digits": (head(status="2000 OK") + SECRET, "bad_response", PermanentFailure),
    "a signed status": (head(status="+200 OK") + SECRET, "bad_response", PermanentFailure),
    "a negative status": (head(status="-200 OK") + SECRET, "bad_response", PermanentFailure),
    "switching protocols": (
        head(status="101 Switching Protocols") + SECRET,
        "bad_response",
        PermanentFailure,
    ),
    "only interim answers": (
        head(status="100 Continue") * 9,
        "connection_failed",
        TemporaryFailure,
    ),
    "a length in another unit": (
        head("Content-Length: 6 KB") + SECRET,
        "bad_response",
        PermanentFailure,
    ),
    "a length and more": (head("Content-Length: 6; x") + SECRET, "bad_response", PermanentFailure),
    "a status line of 300 KiB": (
        b"HTTP/1.1 200 " + b"x" * 307200 + b"\r\n\r\n" + SECRET,
        "bad_response",
        PermanentFailure,
    ),
    "a header of 300 KiB": (head("X: " + "x" * 307200) + SECRET, "bad_response", PermanentFailure),
    "headers of 300 KiB": (
        head(*["X: " + "y" * 6000] * 52) + SECRET,
        "bad_response",
        PermanentFailure,
    ),
    "100,000 headers": (head(*["X: y"] * 100_000) + SECRET, "bad_response", PermanentFailure),
    "100,000 folded lines": (
        head("X: y" + "\r\n z" * 100_000) + SECRET,
        "bad_response",
        PermanentFailure,
    ),
    "interim answers of 300 KiB": (
        head(status="100 Continue") * 13_000 + head() + SECRET,
        "bad_response",
        PermanentFailure,
    ),
    "a trailer of 300 KiB": (
        CHUNKED + chunked(SECRET, end=b"0\r\n" + b"X: y\r\n" * 60_000 + b"\r\n"),
        "bad_response",
        TemporaryFailure,
    ),
    "another coding behind chunked": (
        head("Transfer-Encoding: chunked, gzip") + chunked(SECRET),
        "bad_response",
        PermanentFailure,
    ),
    "chunked twice and another coding": (
        head(*["Transfer-Encoding: chunked"] * 2, "Transfer-Encoding: br") + chunked(SECRET),
        "bad_response",
        PermanentFailure,
    ),
    "a header without colon": (
        head("x", "Content-Length: 5") + SECRET,
        "bad_response",
        PermanentFailure,
    ),
    "a header without name": (head(": x") + SECRET, "bad_response", PermanentFailure),
    "a header that begins folded": (head(" x: y") + SECRET, "bad_response", PermanentFailure),
    "a NUL": (head("X: \x00") + SECRET, "bad_response", PermanentFailure),
    "a bare carriage return": (
        head("X: \rContent-Length: 5") + SECRET,
        "bad_response",
        PermanentFailure,
    ),
    "a cut head": (b"HTTP/1.1 200 OK\r\nContent-Le", "incomplete", TemporaryFailure),
    "a cut status line": (b"HTTP/1.1 20", "incomplete", TemporaryFailure),
    "nothing": (b"", "connection_failed", TemporaryFailure),
    "no content": (head(status="204 No Content"), "http_status", PermanentFailure),
    "not modified": (head(status="304 Not Modified"), "http_status", PermanentFailure),
}


@pytest.mark.parametrize("name", NOT_WHOLE)
def test_what_is_no_whole_body_has_no_md5(origin: Origin, fetch: Fetch, name: str) -> None:
    sent, code, kind = NOT_WHOLE[name]
    failure = failure_of(fetch, origin.serve("/file", Raw(sent)))
    assert (failure.code, type(failure)) == (code, kind)


@pytest.mark.parametrize(
    "framing", ["Content-Length: 600000", "Transfer-Encoding: chunked", "Connection: close"]
)
def test_a_reset_connection_is_no_end(origin: Origin, fetch: Fetch, framing: str) -> None:
    gate = origin.gate()

    def script(peer: Peer) -> None:
        peer.send(head(framing) + (b"ffffff\r\n" if "chunked" in framing else b"") + BIG[:500000])
        gate.wait(0.2)
        peer.reset()

    assert failure_of(fetch, origin.serve("/file", script)).code == "incomplete"


PASSING = (408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 527, 529, 530, 598)
LASTING = (
    201, 202, 203, 204, 205, 226, 299, 300, 304, 305, 306, 399, 400, 401, 403, 404, 406, 407, 410,
    416, 418, 421, 426, 451, 501, 505, 506, 508, 510, 511, 519, 525, 526, 528, 531, 599, 600, 999,
)  # fmt: skip


@pytest.mark.parametrize(
    ("status", "kind"),
    [(status, TemporaryFailure) for status in PASSING]
    + [(status, PermanentFailure) for status in LASTING],
)
def test_only_a_200_counts(origin: Origin, fetch: Fetch, status: int, kind: type[Failure]) -> None:
    failure = failure_of(fetch, origin.serve("/file", reply(SECRET, f"{status} {SECRET.decode()}")))
    assert (failure.code, type(failure)) == ("http_status", kind)
    assert str(status) in failure.message


PARTS = {
    "a part": (("Content-Range: bytes 4-9/10",), 6),
    "the first part": (("Content-Range: bytes 0-5/10",), 6),
    "a part without a total": (("Content-Range: bytes 0-5/*",), 6),
    "no part": (("Content-Range: bytes */10",), 6),
    "another unit": (("Content-Range: octets 0-5/6",), 6),
    "another length": (("Content-Range: bytes 0-5/6",), 5),
    "two ranges": (("Content-Range: bytes 0-5/6",) * 2, 6),
    "multipart": (
        ("Content-Range: bytes 0-5/6", "Content-Type: multipart/byteranges; boundary=x"),
        6,
    ),
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        ("200 OK", "incomplete", TemporaryFailure),
        ("206 Partial Content", "http_status", PermanentFailure),
    ],
)
def test_an_unasked_part_has_no_md5(
    origin: Origin, fetch: Fetch, name: str, status: str, code: str, kind: type[Failure]
) -> None:
    headers, length = PARTS[name]
    url = origin.serve("/file", Raw(reply(SECRET[:length], status, *headers)))
    failure = failure_of(fetch, url)
    assert (failure.code, type(failure), origin.requests()) == (code, kind, 1)


@pytest.mark.parametrize("status", ["200 OK", "206 Partial Content"])
@pytest.mark.parametrize("framing", ["Content-Length: 5", "Connection: close"])
def test_an_unasked_part_that_is_the_whole_has_an_md5(
    origin: Origin, fetch: Fetch, status: str, framing: str
) -> None:
    sent = head(framing, "Content-Range: bytes 0-4/5", status=status) + b"hello"
    assert fetch(origin.serve("/file", Raw(sent))).md5 == md5(b"hello")


@pytest.mark.parametrize(("body", "code"), [(b"hell", "incomplete"), (b"hello!", "bad_response")])
def test_a_whole_part_must_have_the_length_that_it_says(
    origin: Origin, fetch: Fetch, body: bytes, code: str
) -> None:
    sent = head("Content-Range: bytes 0-4/5", status="206 Part") + body
    assert failure_of(fetch, origin.serve("/file", Raw(sent))).code == code


def test_a_206_without_a_range_is_no_file(origin: Origin, fetch: Fetch) -> None:
    failure = failure_of(fetch, origin.serve("/file", reply(SECRET, "206 Partial Content")))
    assert (failure.code, type(failure)) == ("http_status", PermanentFailure)


def test_a_server_that_refuses_identity_is_asked_without(origin: Origin, fetch: Fetch) -> None:
    def script(peer: Peer) -> bool:
        if "accept-encoding" in peer.headers:
            return peer.reply(SECRET, "406 Not Acceptable")
        return peer.reply(b"hello", "200 OK", "Content-Encoding: gzip")

    assert fetch(origin.serve("/file", script)).md5 == md5(b"hello")
    assert origin.requests() == 2


def test_a_server_that_accepts_nothing_is_asked_twice(origin: Origin, fetch: Fetch) -> None:
    failure = failure_of(fetch, origin.serve("/file", reply(SECRET, "406 Not Acceptable")))
    assert (failure.code, origin.requests()) == ("http_status", 2)


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("120", 120, 120),
        ("0", 0, 0),
        ("86400", 3600, 3600),
        ("9" * 5000, 3600, 3600),
        (600, 300, 600),
        (86400, 3600, 3600),
        (-600, 0, 0),
        ("Sun Nov  6 08:49:37 1994", 0, 0),
        ("Wed, 21 Oct 9999999 07:28:00 GMT", None, None),
        ("-5", None, None),
        ("1.5", None, None),
        ("soon", None, None),
        ("", None, None),
    ],
)
def test_retry_after_is_passed_on(
    origin: Origin, fetch: Fetch, value: str | int, low: float | None, high: float | None
) -> None:
    asked = value if isinstance(value, str) else http_date(value)
    failure = failure_of(
        fetch, origin.serve("/file", reply(b"", "503 Busy", f"Retry-After: {asked}"))
    )
    assert isinstance(failure, TemporaryFailure)
    if low is None or high is None:
        assert failure.retry_after is None
    else:
        assert failure.retry_after is not None
        assert low <= failure.retry_after <= high


@pytest.mark.parametrize("value", ["%a %b %d %H:%M:%S %Y", "%a, %d %b %Y %H:%M:%S -0000"])
def test_retry_after_is_in_gmt_wherever_we_are(
    origin: Origin, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TZ", "XXX-9")
    time.tzset()
    date = time.strftime(value, time.gmtime(time.time() + 600))
    failure = failure_of(
        fetch, origin.serve("/file", reply(b"", "503 Busy", f"Retry-After: {date}"))
    )
    monkeypatch.undo()
    time.tzset()
    assert isinstance(failure, TemporaryFailure)
    assert 300 <= (failure.retry_after or 0) <= 600
