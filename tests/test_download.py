"""Downloads against a server of raw sockets that does everything a server can do, right and wrong."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import gzip
import hashlib
import ipaddress
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from md5light.config import DownloadConfig, Ports
from md5light.dial import AddressInfo
from md5light.download.downloader import Downloader, Hashed, Transfer
from md5light.errors import Failure, Md5lightError, PermanentFailure, Stopped, TemporaryFailure
from tests.origin import Origin, Peer, Raw, chunked, reply
from tests.waiting import wait_until

#: what no message may show: the origin puts it wherever it sends something
SECRET = b"s3cr3t"

BIG = os.urandom(3_000_000)

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


def config(**values: object) -> DownloadConfig:
    quick: dict[str, object] = {"connect_timeout": 1.0, "read_timeout": 1.0, "max_seconds": 10.0}
    return DownloadConfig(**{"allow_networks": LOOPBACK, **quick, **values})  # type: ignore[arg-type]


def info(address: str, port: int) -> AddressInfo:
    return socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)


def resolve(host: str, port: int, **_: object) -> list[AddressInfo]:
    """Know every name under .test as 127.0.0.1, and no other."""
    if not host.endswith(".test"):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")
    return [info("127.0.0.1", port)]


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@contextlib.contextmanager
def downloading(**values: object) -> Iterator[Callable[[str], Hashed]]:
    downloader = Downloader(config(**values), resolve=resolve)
    yield lambda url: downloader.download(url, Transfer())
    downloader.close()


@pytest.fixture
def fetch() -> Iterator[Callable[[str], Hashed]]:
    with downloading() as fetch:
        yield fetch


Fetch = Callable[[str], Hashed]


def failure_of(fetch: Fetch, url: str) -> Failure:
    with pytest.raises(Failure) as caught:
        fetch(url)
    assert SECRET.decode() not in caught.value.message
    assert "127.0.0.1" not in caught.value.message
    return caught.value


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def head(*headers: str, status: str = "200 OK", version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join([f"{version} {status}", *headers, "", ""]).encode()


# --- never wrong: whole bodies ---------------------------------------------------------------------------------

CHUNKED = head("Transfer-Encoding: chunked")

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
        head(status="100 Continue") * 500 + head("Content-Length: 5") + b"hello",
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


def test_what_is_told_of_the_file(origin: Origin, fetch: Fetch) -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    headers = ["Content-Type: text/plain\x01\u202e", 'ETag: "v1"', f"Last-Modified: {date}"]
    origin.serve("/file", Raw(reply(b"hello", "200 OK", *headers)))
    origin.serve("/from", reply(b"", "302 Found", "Location: /file#part"))
    hashed = fetch(origin.url("/from"))
    assert hashed.final_url == origin.url("/file")
    assert hashed.content_type is not None
    assert hashed.content_type.isprintable()
    assert hashed.content_type.startswith("text/plain")
    assert (hashed.etag, hashed.last_modified) == ('"v1"', date)
    assert fetch(origin.serve("/bare", b"hello")) == Hashed(
        md5(b"hello"), 5, origin.url("/bare"), None, None, None
    )


def test_progress_can_be_read_meanwhile(origin: Origin) -> None:
    gate = origin.gate()

    def script(peer: Peer) -> None:
        peer.send(head("Content-Length: 1000000") + BIG[:300000])
        gate.wait()
        peer.send(BIG[300000:1000000])

    downloader, transfer = Downloader(config(read_timeout=10.0)), Transfer()
    results: list[Hashed] = []
    url = origin.serve("/file", script)
    thread = threading.Thread(target=lambda: results.append(downloader.download(url, transfer)))
    thread.start()
    wait_until(lambda: transfer.bytes_done == 300000)
    assert transfer.bytes_total == 1000000
    gate.set()
    thread.join()
    assert results[0].md5 == md5(BIG[:1000000])
    assert transfer.bytes_done == 1000000


# --- never wrong: what is no whole body -------------------------------------------------------------------------

LAST = b"\r\n0\r\n\r\n"

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
        CHUNKED + b"2\r\n" + SECRET + LAST,
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
    "a hex prefix": (CHUNKED + b"0x6\r\n" + SECRET + LAST, "bad_response", TemporaryFailure),
    "an underscore in a chunk size": (
        CHUNKED + b"0_6\r\n" + SECRET + LAST,
        "bad_response",
        TemporaryFailure,
    ),
    "an empty chunk size": (CHUNKED + b"\r\n" + SECRET, "bad_response", TemporaryFailure),
    "a huge chunk size": (
        CHUNKED + b"f" * 200 + b"\r\n" + SECRET,
        "bad_response",
        TemporaryFailure,
    ),
    "something after the chunks": (
        CHUNKED + chunked(SECRET) + SECRET,
        "bad_response",
        TemporaryFailure,
    ),
    "a chunk extension without end": (
        CHUNKED + b"6;" + b"x" * 70000,
        "bad_response",
        TemporaryFailure,
    ),
    "trailers without end": (
        CHUNKED + b"0\r\n" + b"X: y\r\n" * 500,
        "bad_response",
        TemporaryFailure,
    ),
    "a trailer that is none": (
        CHUNKED + chunked(SECRET, end=b"0\r\nx\r\n\r\n"),
        "bad_response",
        TemporaryFailure,
    ),
    "a chunk size with a NUL": (
        CHUNKED + b"6\0\r\n" + SECRET + LAST,
        "bad_response",
        TemporaryFailure,
    ),
    "gzip on the way": (
        head("Transfer-Encoding: gzip, chunked") + chunked(SECRET),
        "bad_response",
        PermanentFailure,
    ),
    "chunked twice": (
        head(*["Transfer-Encoding: chunked"] * 2) + chunked(SECRET),
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
    "interim answers without end": (
        head(status="100 Continue") * 1001,
        "bad_response",
        PermanentFailure,
    ),
    "only interim answers": (
        head(status="100 Continue") * 9,
        "connection_failed",
        TemporaryFailure,
    ),
    "an endless status line": (b"HTTP/1.1 200 " + b"x" * 100000, "bad_response", PermanentFailure),
    "an endless header": (head("X: " + "x" * 100000) + SECRET, "bad_response", PermanentFailure),
    "a thousand headers": (head(*["X: y"] * 1000) + SECRET, "bad_response", PermanentFailure),
    "large headers": (head(*["X: " + "y" * 60000] * 6) + SECRET, "bad_response", PermanentFailure),
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
    "an unasked part": (
        head("Content-Range: bytes 0-5/6", "Content-Length: 6", status="206 Partial Content")
        + SECRET,
        "http_status",
        PermanentFailure,
    ),
    "no content": (head(status="204 No Content"), "http_status", PermanentFailure),
    "not modified": (head(status="304 Not Modified"), "http_status", PermanentFailure),
    "multiple choices": (
        head("Location: /", status="300 Multiple Choices"),
        "http_status",
        PermanentFailure,
    ),
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


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (status, TemporaryFailure if status in (408, 425, 429, 500, 502, 503, 504) else PermanentFailure)
        for status in (201, 203, 226, 299, 305, 400, 401, 403, 404, 407, 408, 410, 416, 418, 421, 425, 426, 429, 451,
                       500, 501, 502, 503, 504, 505, 599, 600, 999)
    ],
)  # fmt: skip
def test_only_a_200_counts(origin: Origin, fetch: Fetch, status: int, kind: type[Failure]) -> None:
    failure = failure_of(fetch, origin.serve("/file", reply(SECRET, f"{status} {SECRET.decode()}")))
    assert (failure.code, type(failure)) == ("http_status", kind)
    assert str(status) in failure.message


def http_date(seconds: float) -> str:
    return email.utils.format_datetime(
        datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(0, seconds)
    )


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


# --- redirects ---------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_and_their_bodies_not_read(
    origin: Origin, fetch: Fetch, status: int
) -> None:
    closed = threading.Event()

    def endless(peer: Peer) -> None:
        peer.send(head("Location: ../file", "Set-Cookie: a=b", status=f"{status} There"))
        with contextlib.suppress(OSError):
            while True:
                peer.send(BIG)
        closed.set()

    origin.serve("/a/from", endless)
    origin.serve("/file", b"hello")
    assert fetch(origin.url("/a/from")).md5 == md5(b"hello")
    assert closed.wait(5)
    assert "cookie" not in origin.heads[-1].lower()


@pytest.mark.parametrize(
    ("location", "code"),
    [
        (None, "bad_redirect"),
        ("", "bad_redirect"),
        ("ftp://127.0.0.1/x", "bad_redirect"),
        ("file:///etc/passwd", "bad_redirect"),
        ("gopher://127.0.0.1:25/x", "bad_redirect"),
        ("http://user:password@127.0.0.1/", "bad_redirect"),
        ("http://", "bad_redirect"),
        ("http://[::1", "bad_redirect"),
        ("http://h:99999/", "bad_redirect"),
        ("http://\u202e/", "bad_redirect"),
        ("http://10.0.0.1/", "address_not_allowed"),
        ("//169.254.169.254/latest/", "address_not_allowed"),
        ("http://2852039166/", "address_not_allowed"),
        ("http://[::ffff:10.0.0.1]/", "address_not_allowed"),
        ("http://127.0.0.1:22/", "port_not_allowed"),
        ("http://unknown.example/", "name_not_found"),
        ("/a\r\nLocation: /b", "bad_redirect"),
        ("\r\n /folded", "bad_redirect"),
    ],
)
def test_every_hop_is_judged(origin: Origin, fetch: Fetch, location: str | None, code: str) -> None:
    headers = [] if location is None else [f"Location: {location}"]
    failure = failure_of(fetch, origin.serve("/from", reply(SECRET, "302 Found", *headers)))
    assert failure.code == code
    assert origin.connections <= 2


@pytest.mark.parametrize("headers", [("Location: /file",) * 2, ("Location: /file\r\n\r\nmore",)])
def test_a_redirect_that_leaves_no_doubt_is_followed(
    origin: Origin, fetch: Fetch, headers: tuple[str, ...]
) -> None:
    origin.serve("/file", b"hello")
    assert fetch(origin.serve("/from", reply(b"", "302 Found", *headers))).md5 == md5(b"hello")


def test_too_many_redirects(origin: Origin) -> None:
    def script(peer: Peer) -> bool:
        return peer.reply(b"", "302 Found", f"Location: /?{peer.turn}")

    origin.serve("/", script)
    with downloading(max_redirects=3) as fetch:
        failure = failure_of(fetch, origin.url("/"))
    assert (failure.code, type(failure), origin.requests()) == (
        "too_many_redirects",
        PermanentFailure,
        4,
    )


def test_no_redirects_where_none_are_wanted(origin: Origin) -> None:
    with downloading(max_redirects=0) as fetch:
        assert fetch(origin.serve("/file", b"hello")).size == 5
        assert failure_of(
            fetch, origin.serve("/", reply(b"", "302 Found", "Location: /file"))
        ).code == ("too_many_redirects")


def test_the_request_holds_nothing_of_the_environment(
    origin: Origin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("default login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    with downloading(user_agent="tester/1") as fetch:
        fetch(origin.serve("/file", b"hello"))
    first, *headers = origin.heads[0].split("\r\n")
    assert first == "GET /file HTTP/1.1"
    assert sorted(headers) == [
        "Accept-Encoding: identity",
        "Accept: */*",
        f"Host: 127.0.0.1:{origin.port}",
        "User-Agent: tester/1",
    ]


# --- a broken transfer goes on -----------------------------------------------------------------------------------

ETAG = 'ETag: "v1"'
DATE = "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT"


def part(peer: Peer, body: bytes, piece: int, *headers: str) -> None:
    """Answer as a server with ranges does, but break off after `piece` bytes."""
    start = peer.range_start()
    if start is None:
        peer.send(reply(b"", "200 OK", *headers, length=len(body)))
    else:
        content_range = f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}"
        peer.send(
            reply(b"", "206 Partial Content", content_range, *headers, length=len(body) - start)
        )
    peer.send(body[start or 0 :][:piece])


@pytest.mark.parametrize("validator", [ETAG, DATE])
def test_a_broken_transfer_goes_on_where_it_stopped(
    origin: Origin, fetch: Fetch, validator: str
) -> None:
    hashed = fetch(origin.serve("/file", lambda peer: part(peer, BIG, 300_000, validator)))
    assert (hashed.md5, hashed.size, origin.requests()) == (md5(BIG), len(BIG), 10)
    assert origin.heads[3].split("\r\n")[-2:] == [
        "Range: bytes=900000-",
        f"If-Range: {validator.partition(': ')[2]}",
    ]


def test_a_broken_chunked_transfer_goes_on(origin: Origin, fetch: Fetch) -> None:
    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.send(
                head("Transfer-Encoding: chunked", ETAG)
                + chunked(BIG[:70000], end=b"ffff\r\n")
                + BIG[70000:80000]
            )
        else:
            part(peer, BIG, len(BIG), ETAG)

    assert fetch(origin.serve("/file", script)).md5 == md5(BIG)
    assert "Range: bytes=80000-" in origin.heads[1]


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
    assert origin.requests() == 5


def test_a_changed_file_is_begun_anew(origin: Origin, fetch: Fetch) -> None:
    old, new = BIG[:1_000_000], BIG[1_000_000:]

    def script(peer: Peer) -> None:
        if peer.number == 1:
            part(peer, old, 400_000, ETAG)
        elif peer.headers.get("if-range") == '"v1"':
            peer.send(reply(new[:500_000], "200 OK", 'ETag: "v2"', length=len(new)))
        else:
            assert peer.headers["if-range"] == '"v2"'
            part(peer, new, len(new), 'ETag: "v2"')

    hashed = fetch(origin.serve("/file", script))
    assert (hashed.md5, hashed.size, hashed.etag) == (md5(new), len(new), '"v2"')


def test_a_changed_file_goes_on_too(origin: Origin, fetch: Fetch) -> None:
    old, new = BIG[:1_000_000], BIG[1_000_000:]

    def script(peer: Peer) -> None:
        if peer.number == 1:
            part(peer, old, 900_000, ETAG)
        elif peer.number == 2:
            peer.send(reply(new[:100_000], "200 OK", 'ETag: "v2"', length=len(new)))
        else:
            part(peer, new, 100_000, 'ETag: "v2"')

    assert fetch(origin.serve("/file", script)).md5 == md5(new)
    assert origin.requests() == 21


@pytest.mark.parametrize("status", ["416 Too Far", "403 Too Late"])
def test_where_the_rest_is_refused_everything_is_asked_for_once_more(
    origin: Origin, fetch: Fetch, status: str
) -> None:
    """The file has shrunk (416), or the signed URL of a redirect is not good any more (403)."""
    origin.serve(
        "/file", lambda peer: peer.reply(b"", "302 Found", f"Location: /signed?{peer.number}")
    )

    def signed(peer: Peer) -> None:
        if peer.path == "/signed?1" and peer.number == 2:
            peer.reply(SECRET, status)
        else:
            part(peer, BIG, 400_000 if peer.path == "/signed?1" else len(BIG), ETAG)

    origin.serve("/signed", signed)
    assert fetch(origin.url("/file")).md5 == md5(BIG)
    assert origin.requests() == 5


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

    origin.serve("/moved", lambda peer: part(peer, new, 300_000, ETAG))
    assert fetch(origin.serve("/file", script)).md5 == md5(new)


def test_a_server_that_keeps_no_ranges_sends_everything_once_more(
    origin: Origin, fetch: Fetch
) -> None:
    def script(peer: Peer) -> None:
        peer.send(
            reply(BIG[:400_000] if peer.number == 1 else BIG, "200 OK", ETAG, length=len(BIG))
        )

    assert fetch(origin.serve("/file", script)).md5 == md5(BIG)
    assert origin.requests() == 2


def test_a_server_that_keeps_no_ranges_is_not_asked_for_ever(origin: Origin, fetch: Fetch) -> None:
    url = origin.serve(
        "/file", lambda peer: peer.send(reply(BIG[:400_000], "200 OK", ETAG, length=len(BIG)))
    )
    assert failure_of(fetch, url).code == "incomplete"
    assert origin.requests() == 2


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ('ETag: W/"v1"',),
        ("ETag: v1",),
        ("Last-Modified: yesterday",),
        (ETAG, "Accept-Ranges: none"),
    ],
)
def test_without_validator_or_ranges_there_is_no_going_on(
    origin: Origin, fetch: Fetch, headers: tuple[str, ...]
) -> None:
    failure = failure_of(fetch, origin.serve("/file", lambda peer: part(peer, BIG, 1000, *headers)))
    assert (failure.code, type(failure), origin.requests()) == ("incomplete", TemporaryFailure, 1)


def test_no_progress_ends_the_attempt(origin: Origin, fetch: Fetch) -> None:
    def script(peer: Peer) -> None:
        part(peer, BIG, 1000 if peer.number == 1 else 0, ETAG)

    failure = failure_of(fetch, origin.serve("/file", script))
    assert (failure.code, type(failure)) == ("incomplete", TemporaryFailure)
    assert origin.requests() == 7


PARTS = {
    "another start": ("bytes 999-2999999/3000000", ETAG, 2_999_001),
    "another total": ("bytes 1000-2999999/3000001", ETAG, 2_999_000),
    "no total": ("bytes 1000-2999999/*", ETAG, 2_999_000),
    "no Content-Range": ("", ETAG, 2_999_000),
    "a broken Content-Range": ("bytes 1000-", ETAG, 2_999_000),
    "an end before the start": ("bytes 1000-999/3000000", ETAG, 0),
    "an end after the total": ("bytes 1000-3000000/3000000", ETAG, 2_999_001),
    "another length": ("bytes 1000-2999999/3000000", ETAG, 2_000_000),
    "another ETag": ("bytes 1000-2999999/3000000", 'ETag: "v2"', 2_999_000),
    "another date": (
        "bytes 1000-2999999/3000000",
        f"{ETAG}\r\nLast-Modified: Wed, 21 Oct 2015 07:28:01 GMT",
        2_999_000,
    ),
    "no ETag": ("bytes 1000-2999999/3000000", DATE, 2_999_000),
    "another coding": (
        "bytes 1000-2999999/3000000",
        f"{ETAG}\r\nContent-Encoding: gzip",
        2_999_000,
    ),
    "another unit": ("octets 1000-2999999/3000000", ETAG, 2_999_000),
    "a range of several parts": (
        "bytes 1000-2999999/3000000",
        f"{ETAG}\r\nContent-Type: Multipart/Byteranges; boundary=x",
        2_999_000,
    ),
    "several parts": ("", "Content-Type: multipart/byteranges; boundary=x", 2_999_000),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_was_not_asked_for_is_not_taken(
    origin: Origin, fetch: Fetch, name: str
) -> None:
    content_range, header, length = PARTS[name]

    def script(peer: Peer) -> None:
        if peer.number == 1:
            part(peer, BIG, 1000, ETAG, DATE)
        else:
            sent = BIG[-length:] if length else b""
            headers = [header, *([f"Content-Range: {content_range}"] if content_range else [])]
            peer.reply(sent, "206 Partial Content", *headers)

    failure = failure_of(fetch, origin.serve("/file", script))
    assert (failure.code, type(failure)) == ("bad_response", TemporaryFailure)


def test_parts_may_be_smaller_than_asked_for(origin: Origin, fetch: Fetch) -> None:
    def script(peer: Peer) -> bool:
        start = peer.range_start()
        if start is None:
            part(peer, BIG, 100_000, ETAG)
            return False
        last = min(start + 999_999, len(BIG) - 1)
        return peer.reply(
            BIG[start : last + 1],
            "206 Part",
            f"Content-Range: bytes {start}-{last}/{len(BIG)}",
            ETAG,
        )

    assert fetch(origin.serve("/file", script)).md5 == md5(BIG)
    assert origin.requests() == 4


def test_a_part_until_close_may_break_too(origin: Origin, fetch: Fetch) -> None:
    def script(peer: Peer) -> None:
        start = peer.range_start()
        if start is None:
            part(peer, BIG, 100_000, ETAG)
        else:
            content_range = f"Content-Range: Bytes {start}-{len(BIG) - 1}/{len(BIG)}"
            peer.send(head(content_range, ETAG, status="206 Part") + BIG[start:][:1_000_000])

    assert fetch(origin.serve("/file", script)).md5 == md5(BIG)
    assert origin.requests() == 4


# --- never brought down ------------------------------------------------------------------------------------------

WAYS_TO_DRIP: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"", b""),
    "status line": (b"", b"HTTP/1.1 200 " + b"x" * 1000),
    "headers": (head()[:-2], b"X: y\r\n" * 50),
    "100 Continue": (b"", head(status="100 Continue") * 20),
    "body": (head("Content-Length: 1000"), b"x" * 1000),
    "body until close": (head(), b"x" * 1000),
    "chunk sizes": (CHUNKED, b"1\r\nx\r\n" * 1000),
    "chunk extension": (CHUNKED + b"1;", b"x" * 1000),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n" * 90),
}


@pytest.mark.parametrize("name", WAYS_TO_DRIP)
def test_one_deadline_covers_everything(origin: Origin, name: str) -> None:
    at_once, slowly = WAYS_TO_DRIP[name]

    def script(peer: Peer) -> None:
        peer.send(at_once)
        peer.drip(slowly)
        peer.wait_closed()

    with downloading(max_seconds=0.5, read_timeout=5.0) as fetch:
        start = time.monotonic()
        failure = failure_of(fetch, origin.serve("/file", script))
    assert (failure.code, type(failure)) == ("timed_out", TemporaryFailure)
    assert 0.4 < time.monotonic() - start < 2


def test_a_deadline_covers_redirects_and_resumption(origin: Origin) -> None:
    def script(peer: Peer) -> None:
        part(peer, BIG, 1000, ETAG)

    with downloading(max_seconds=0.8) as fetch:
        assert failure_of(fetch, origin.serve("/file", script)).code == "timed_out"


@pytest.mark.parametrize(
    "at_once", [b"", head()[:-2], head("Content-Length: 9") + b"x", head() + b"x"]
)
def test_a_silent_server_times_out(origin: Origin, at_once: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.send(at_once)
        peer.wait_closed()

    with downloading(read_timeout=0.3) as fetch:
        failure = failure_of(fetch, origin.serve("/file", script))
    assert (failure.code, type(failure)) == ("timed_out", TemporaryFailure)


@contextlib.contextmanager
def deaf_listener() -> Iterator[int]:
    """A port whose queue of connections is full: whoever connects hears nothing."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_connection_that_does_not_come_times_out() -> None:
    with deaf_listener() as port, downloading(connect_timeout=0.3) as fetch:
        assert failure_of(fetch, f"http://127.0.0.1:{port}/").code == "timed_out"


def test_a_handshake_that_drips_times_out() -> None:
    def script(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for byte in b"\x16\x03\x03\x10\x00" + bytes(100):
                connection.sendall(bytes([byte]))
                time.sleep(0.05)

    with raw_server(script) as port:
        with downloading(connect_timeout=0.5) as fetch:
            assert failure_of(fetch, f"https://127.0.0.1:{port}/").code == "timed_out"
        with downloading(max_seconds=0.5, connect_timeout=5.0) as fetch:
            assert failure_of(fetch, f"https://127.0.0.1:{port}/").code == "timed_out"


@contextlib.contextmanager
def raw_server(script: Callable[[socket.socket], None]) -> Iterator[int]:
    """Call `script` with each connection as it comes, before anything is read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        script(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_silent_name_servers_hold_no_slot() -> None:
    answered = threading.Event()

    def silent(host: str, port: int, **_: object) -> list[AddressInfo]:
        answered.wait(20)
        return []

    downloader = Downloader(config(connect_timeout=0.2), connections=1, resolve=silent)
    codes = []
    for number in range(6):
        with pytest.raises(TemporaryFailure) as caught:
            downloader.download(f"http://name{number}.example/", Transfer())
        codes.append(caught.value.code)
    assert codes == ["timed_out"] * 4 + ["name_not_found"] * 2
    assert sum(thread.name == "look-up" for thread in threading.enumerate()) == 4
    answered.set()
    wait_until(lambda: not any(thread.name == "look-up" for thread in threading.enumerate()))


@pytest.mark.parametrize(
    ("sent", "max_bytes", "code"),
    [
        (head("Content-Length: 1000000000000") + b"x", 1000, "too_large"),
        (head("Content-Length: 1001") + b"x", 1000, "too_large"),
        (head() + b"x" * 1001, 1000, "too_large"),
        (CHUNKED + chunked(*[b"x"] * 1001), 1000, "too_large"),
    ],
)
def test_max_bytes_is_kept(origin: Origin, sent: bytes, max_bytes: int, code: str) -> None:
    with downloading(max_bytes=max_bytes) as fetch:
        failure = failure_of(fetch, origin.serve("/file", Raw(sent)))
        assert (failure.code, type(failure)) == (code, PermanentFailure)
        assert fetch(origin.serve("/fits", b"x" * max_bytes)).size == max_bytes


def test_an_endless_body_ends_at_max_bytes(origin: Origin) -> None:
    def endless(peer: Peer) -> None:
        peer.send(head())
        while True:
            peer.send(BIG)

    with downloading(max_bytes=20_000_000) as fetch:
        assert failure_of(fetch, origin.serve("/file", endless)).code == "too_large"


def test_a_refused_connection_is_a_temporary_failure(fetch: Fetch) -> None:
    with Origin() as origin:
        origin.hang_up()
        failure = failure_of(fetch, origin.url("/"))
    assert (failure.code, type(failure)) == ("connection_failed", TemporaryFailure)


@pytest.mark.parametrize(
    "url", ["", "ftp://h/", "http://u:p@h/", "http://h/ \x00", "http://\ud800/"]
)
def test_what_is_no_url_fails_for_good(fetch: Fetch, url: str) -> None:
    assert isinstance(failure_of(fetch, url), PermanentFailure)


#: measures a worker's share of memory: eight large downloads at once, then a hundred slow ones
MEMORY = """
import ipaddress, pathlib, sys, threading
from md5light.config import DownloadConfig
from md5light.download.downloader import Downloader, Transfer
url, count = sys.argv[1], int(sys.argv[2])
downloader = Downloader(DownloadConfig(allow_networks=(ipaddress.ip_network("127.0.0.0/8"),)), connections=count)
threads = [threading.Thread(target=downloader.download, args=(url, Transfer())) for _ in range(count)]
for thread in threads: thread.start()
for thread in threads: thread.join()
status = pathlib.Path("/proc/self/status").read_text()
print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""


@pytest.mark.parametrize(
    ("count", "most", "framing"),
    [(8, 56, "length"), (8, 56, "chunked"), (8, 56, "gzip"), (100, 80, "slow")],
)
def test_memory_is_bounded(origin: Origin, count: int, most: int, framing: str) -> None:
    megabyte = bytes(1_000_000)

    def script(peer: Peer) -> None:
        if framing == "slow":
            peer.send(head("Content-Length: 200000"))
            peer.throttle(bytes(200_000), 200_000)
        elif framing == "chunked":
            peer.send(CHUNKED + chunked(*[megabyte] * 50))
        elif framing == "gzip":
            bomb = gzip.compress(megabyte * 50)
            peer.send(head(f"Content-Length: {len(bomb)}", "Content-Encoding: gzip") + bomb)
        else:
            peer.send(head("Content-Length: 50000000"))
            for _ in range(50):
                peer.send(megabyte)

    command = [sys.executable, "-c", MEMORY, origin.serve("/file", script), str(count)]
    megabytes = int(subprocess.check_output(command, text=True, cwd=Path(__file__).parent.parent))
    assert megabytes < most


# --- stop --------------------------------------------------------------------------------------------------------


def stopped_within(
    seconds: float, downloader: Downloader, url: str, ready: Callable[[Transfer], object]
) -> None:
    transfer = Transfer()
    outcome: list[Hashed | Md5lightError] = []

    def run() -> None:
        try:
            outcome.append(downloader.download(url, transfer))
        except Md5lightError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: ready(transfer))
    start = time.monotonic()
    transfer.stop()
    thread.join(10)
    assert isinstance(outcome[0], Stopped)
    assert time.monotonic() - start < seconds


PATIENT = {"connect_timeout": 30.0, "read_timeout": 30.0, "max_seconds": 60.0}


@pytest.mark.parametrize(
    "at_once", [b"", head()[:-2], head("Content-Length: 9") + b"x", head() + b"x", CHUNKED + b"1"]
)
def test_stop_ends_a_download_at_once(origin: Origin, at_once: bytes) -> None:
    reached = threading.Event()

    def script(peer: Peer) -> None:
        peer.send(at_once)
        reached.set()
        peer.wait_closed()

    stopped_within(
        1, Downloader(config(**PATIENT)), origin.serve("/file", script), lambda _: reached.is_set()
    )


def test_stop_ends_a_connect(origin: Origin) -> None:
    with deaf_listener() as port:
        downloader = Downloader(config(**PATIENT))
        begun = time.monotonic()
        stopped_within(
            1, downloader, f"http://127.0.0.1:{port}/", lambda _: time.monotonic() - begun > 0.2
        )


def test_stop_ends_a_handshake() -> None:
    reached = threading.Event()

    def script(connection: socket.socket) -> None:
        connection.recv(1000)
        reached.set()
        connection.recv(1000)

    with raw_server(script) as port:
        downloader = Downloader(config(**PATIENT))
        stopped_within(1, downloader, f"https://127.0.0.1:{port}/", lambda _: reached.is_set())


def test_stop_ends_a_look_up() -> None:
    reached, answered = threading.Event(), threading.Event()

    def silent(host: str, port: int, **_: object) -> list[AddressInfo]:
        reached.set()
        answered.wait(20)
        return []

    downloader = Downloader(config(**PATIENT), resolve=silent)
    stopped_within(1, downloader, "http://name.example/", lambda _: reached.is_set())
    answered.set()


def test_stop_ends_the_pauses_between_tries(origin: Origin, fetch: Fetch) -> None:
    def script(peer: Peer) -> None:
        part(peer, BIG, 1000 if peer.number == 1 else 0, ETAG)

    url = origin.serve("/file", script)
    stopped_within(0.5, Downloader(config(**PATIENT)), url, lambda _: origin.requests() == 4)


def test_a_stopped_download_does_not_begin(origin: Origin) -> None:
    transfer = Transfer()
    transfer.stop()
    with pytest.raises(Stopped):
        Downloader(config()).download(origin.serve("/file", b"hello"), transfer)
    assert origin.connections == 0


# --- connections are kept ------------------------------------------------------------------------------------------


def test_connections_are_used_again(origin: Origin, fetch: Fetch) -> None:
    origin.serve("/", reply(b"", "302 Found", "Location: /file"))
    origin.serve("/", lambda peer: peer.reply(b"", "302 Found", "Location: /file"))
    origin.serve("/file", b"hello")
    for _ in range(5):
        fetch(origin.url("/"))
    assert (origin.requests(), origin.connections) == (10, 1)


@pytest.mark.parametrize(
    "sent",
    [
        head("Content-Length: 5", "Connection: close") + b"hello",
        head("Content-Length: 5", "Connection: Keep-Alive, Close") + b"hello",
        head("Content-Length: 5", version="HTTP/1.0") + b"hello",
        head("Content-Length: 5", "Transfer-Encoding: chunked") + chunked(b"hello"),
    ],
)
def test_a_connection_that_should_not_be_is_not_used_again(
    origin: Origin, fetch: Fetch, sent: bytes
) -> None:
    def script(peer: Peer) -> bool:
        peer.send(sent)
        return True

    url = origin.serve("/file", script)
    assert fetch(url).md5 == fetch(url).md5 == md5(b"hello")
    assert origin.connections == 2


def test_bytes_that_come_late_are_not_taken_for_the_next_answer(
    origin: Origin, fetch: Fetch
) -> None:
    sent = threading.Event()

    def script(peer: Peer) -> bool:
        peer.send(head("Content-Length: 5") + b"hello")
        if peer.number == 1:
            time.sleep(0.05)
            peer.send(head("Content-Length: 4") + b"evil")
            sent.set()
        return True

    url = origin.serve("/file", script)
    assert fetch(url).md5 == md5(b"hello")
    sent.wait(5)
    assert fetch(url).md5 == md5(b"hello")
    assert origin.connections == 2


def test_bytes_that_come_a_little_late_are_noticed_on_a_new_connection(
    origin: Origin, fetch: Fetch
) -> None:
    def script(peer: Peer) -> bool:
        peer.send(head("Content-Length: 5") + b"hello")
        time.sleep(0.002)
        peer.send(b"more")
        return True

    assert failure_of(fetch, origin.serve("/file", script)).code == "bad_response"


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced(
    origin: Origin, fetch: Fetch
) -> None:
    def script(peer: Peer) -> bool:
        # The second request on a connection is read and then left without an answer.
        return peer.turn == 1 and peer.reply(b"hello")

    url = origin.serve("/file", script)
    assert [fetch(url).md5 for _ in range(3)] == [md5(b"hello")] * 3


# --- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.mark.parametrize("host", ["files.test", "127.0.0.1"])
def test_https_with_a_certificate_of_ca_file(
    authority: trustme.CA, ca_file: str, host: str
) -> None:
    context = server_context(authority, host)
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    with Origin(tls=context) as origin, downloading(ca_file=ca_file) as fetch:
        origin.serve("/file", BIG)
        for _ in range(3):
            assert fetch(origin.url("/file", host)).md5 == md5(BIG)
        assert origin.connections == 1
    assert asked == [host if host == "files.test" else None]


def test_a_certificate_that_is_not_trusted_or_not_the_hosts(
    authority: trustme.CA, ca_file: str
) -> None:
    with Origin(tls=server_context(authority, "files.test")) as origin:
        origin.serve("/file", b"hello")
        for file, host in (("", "files.test"), (ca_file, "other.test"), (ca_file, "127.0.0.1")):
            with downloading(ca_file=file) as fetch:
                failure = failure_of(fetch, origin.url("/file", host))
                assert (failure.code, type(failure)) == ("tls_failed", PermanentFailure)
        assert origin.requests() == 0


def test_https_redirects_to_http(authority: trustme.CA, ca_file: str, origin: Origin) -> None:
    origin.serve("/file", b"hello")
    with (
        Origin(tls=server_context(authority, "files.test")) as secure,
        downloading(ca_file=ca_file) as fetch,
    ):
        secure.serve("/", reply(b"", "302 Found", f"Location: {origin.url('/file')}"))
        assert fetch(secure.url("/", "files.test")).final_url == origin.url("/file")


@pytest.mark.parametrize("clean", [True, False])
def test_over_tls_a_body_until_close_needs_its_proper_end(
    authority: trustme.CA, ca_file: str, clean: bool
) -> None:
    def script(peer: Peer) -> None:
        peer.send(head() + BIG)
        if not clean:
            socket.socket.shutdown(peer.socket, socket.SHUT_WR)
            peer.wait_closed()

    with (
        Origin(tls=server_context(authority, "files.test")) as origin,
        downloading(ca_file=ca_file) as fetch,
    ):
        origin.serve("/file", script)
        if clean:
            assert fetch(origin.url("/file", "files.test")).md5 == md5(BIG)
        else:
            assert failure_of(fetch, origin.url("/file", "files.test")).code == "incomplete"


def test_plain_http_where_tls_is_expected(origin: Origin, fetch: Fetch) -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(head("Content-Length: 5") + b"hello")

    with raw_server(script) as port:
        failure = failure_of(fetch, f"https://127.0.0.1:{port}/")
    assert (failure.code, type(failure)) == ("tls_failed", TemporaryFailure)


# --- names and addresses --------------------------------------------------------------------------------------------


def test_a_name_is_looked_up_once_for_a_connection(origin: Origin) -> None:
    """A name that is public when it is judged and private when it is connected to has no second chance."""
    asked: list[str] = []

    def rebinding(host: str, port: int, **_: object) -> list[AddressInfo]:
        asked.append(host)
        return [info("127.0.0.1" if len(asked) == 1 else "10.0.0.1", port)]

    origin.serve("/file", b"hello")
    downloader = Downloader(config(), resolve=rebinding)
    for _ in range(2):
        assert downloader.download(origin.url("/file", "files.example"), Transfer()).md5 == md5(
            b"hello"
        )
    assert asked == ["files.example"]
    assert f"Host: files.example:{origin.port}" in origin.heads[0]


def test_the_addresses_of_a_name_are_tried_in_turn(origin: Origin) -> None:
    def two(host: str, port: int, **_: object) -> list[AddressInfo]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ("127.0.0.9", "127.0.0.1")
        ]

    origin.serve("/file", b"hello")
    downloader = Downloader(config(), resolve=two)
    assert downloader.download(origin.url("/file", "files.example"), Transfer()).size == 5


def test_nothing_is_connected_to_where_the_guard_says_no(origin: Origin) -> None:
    for values, code in (
        ({"allow_networks": ()}, "address_not_allowed"),
        ({"allow_ports": Ports(((80, 80),))}, "port_not_allowed"),
    ):
        with downloading(**values) as fetch:
            failure = failure_of(fetch, origin.url("/", "files.test"))
            assert (failure.code, type(failure)) == (code, PermanentFailure)
    assert origin.connections == 0


def test_many_downloads_at_once(origin: Origin) -> None:
    bodies = {f"/{number}": os.urandom(50_000 * number) for number in range(24)}
    for path, body in bodies.items():
        origin.serve(path, body)
    downloader = Downloader(config(), connections=8)
    outcome: dict[str, str] = {}

    def run(path: str) -> None:
        outcome[path] = downloader.download(origin.url(path), Transfer()).md5

    threads = [threading.Thread(target=run, args=(path,)) for path in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcome == {path: md5(body) for path, body in bodies.items()}
