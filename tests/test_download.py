"""Downloads: time, memory, ends, kept connections, TLS and names."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
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

from md5light.config import Ports
from md5light.dial import AddressInfo
from md5light.download import response
from md5light.download.downloader import Downloader, Hashed, Transfer
from md5light.download.failures import explained
from md5light.errors import (
    Md5lightError,
    OutOfResources,
    PermanentFailure,
    Stopped,
    TemporaryFailure,
)
from tests.downloads import (
    BIG,
    CHUNKED,
    ETAG,
    Fetch,
    config,
    downloading,
    failure_of,
    head,
    info,
    md5,
    part,
)
from tests.origin import Origin, Peer, Raw, chunked, reply
from tests.waiting import wait_until


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


def test_further_digests_are_of_the_same_bytes(origin: Origin) -> None:
    body = gzip.compress(BIG)
    answer = reply(body, "200 OK", "Content-Encoding: gzip")
    downloader = Downloader(config())
    with contextlib.closing(downloader):
        hashed = downloader.download(
            origin.serve("/file", Raw(answer)), Transfer(), digests=["sha512", "sha1"]
        )
    assert hashed.md5 == md5(body)
    assert hashed.sha1 == hashlib.sha1(body).hexdigest()
    assert hashed.sha256 is None
    assert hashed.sha512 == hashlib.sha512(body).hexdigest()


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


# --- never brought down ---------------------------------------------------------------------------

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


@contextlib.contextmanager
def deaf_listener() -> Iterator[int]:
    """A port whose queue of connections is full: a client that connects hears nothing."""
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


@pytest.mark.slow
def test_a_handshake_that_drips_times_out() -> None:
    def script(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for byte in b"\x16\x03\x03\x10\x00" + bytes(100):
                connection.sendall(bytes([byte]))
                time.sleep(0.05)

    with raw_server(script) as port:
        with downloading(connect_timeout=0.3) as fetch:
            assert failure_of(fetch, f"https://127.0.0.1:{port}/").code == "timed_out"
        with downloading(max_seconds=0.3, connect_timeout=5.0) as fetch:
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
config = DownloadConfig(allow_networks=(ipaddress.ip_network("127.0.0.0/8"),))
downloader = Downloader(config, connections=count)
def download():
    downloader.download(url, Transfer(), digests=["sha1", "sha256", "sha512"])
threads = [threading.Thread(target=download) for _ in range(count)]
for thread in threads: thread.start()
for thread in threads: thread.join()
status = pathlib.Path("/proc/self/status").read_text()
print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""


#: one of eight files in memory would be noticed
FILE_MEGABYTES = 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "most", "framing"),
    [(8, 56, "length"), (8, 56, "chunked"), (8, 56, "gzip"), (100, 80, "slow")],
)
def test_memory_is_bounded(origin: Origin, count: int, most: int, framing: str) -> None:
    megabyte = bytes(1_000_000)
    bomb = gzip.compress(megabyte * FILE_MEGABYTES) if framing == "gzip" else b""

    def script(peer: Peer) -> None:
        if framing == "slow":
            peer.send(head("Content-Length: 100000"))
            peer.throttle(bytes(100_000), 200_000)
        elif framing == "chunked":
            peer.send(CHUNKED + chunked(*[megabyte] * FILE_MEGABYTES))
        elif framing == "gzip":
            peer.send(head(f"Content-Length: {len(bomb)}", "Content-Encoding: gzip") + bomb)
        else:
            peer.send(head(f"Content-Length: {FILE_MEGABYTES}000000"))
            for _ in range(FILE_MEGABYTES):
                peer.send(megabyte)

    command = [sys.executable, "-c", MEMORY, origin.serve("/file", script), str(count)]
    megabytes = int(subprocess.check_output(command, text=True, cwd=Path(__file__).parent.parent))
    assert megabytes < most


# --- stop -----------------------------------------------------------------------------------------


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


# --- connections are kept -------------------------------------------------------------------------


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
        # odd ends of chunks
        head(*["Transfer-Encoding: chunked"] * 2) + chunked(b"hello"),
        CHUNKED + chunked(b"hello") + b"0\r\n\r\n",
        CHUNKED + chunked(b"hello") + head("Content-Length: 4") + b"evil",
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
    kept, sent = origin.gate(), threading.Event()

    def script(peer: Peer) -> bool:
        peer.send(head("Content-Length: 5") + b"hello")
        if peer.number == 1:
            kept.wait()
            peer.send(head("Content-Length: 4") + b"evil")
            sent.set()
        return True

    url = origin.serve("/file", script)
    assert fetch(url).md5 == md5(b"hello")
    kept.set()
    assert sent.wait(5)
    assert fetch(url).md5 == md5(b"hello")
    assert origin.connections == 2


def test_bytes_that_come_a_little_late_are_noticed_on_a_new_connection(
    origin: Origin, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A loaded machine is late, too; but less than `max_seconds` of these tests.
    monkeypatch.setattr(response, "FIRST_SECONDS", 2)

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


# --- TLS ------------------------------------------------------------------------------------------


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


# --- names and addresses --------------------------------------------------------------------------


def test_a_name_is_looked_up_once_for_a_connection(origin: Origin) -> None:
    """A name that is public when judged and private when connected to has no second chance."""
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


# --- shortages of this machine --------------------------------------------------------------------


def test_a_shortage_of_threads_is_told_as_such(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    url = origin.serve("/file", b"hello")
    with monkeypatch.context() as limited, downloading() as fetch:
        limited.setattr(threading.Thread, "start", refuse)
        assert isinstance(failure_of(fetch, url), OutOfResources)


#: downloads with as many file descriptors as are open, then with enough, and prints the outcomes
SHORTAGE = """
import ipaddress, os, resource, sys
from md5light.config import DownloadConfig
from md5light.download.downloader import Downloader, Transfer
from md5light.errors import Failure
downloader = Downloader(DownloadConfig(allow_networks=(ipaddress.ip_network("127.0.0.0/8"),)))
def outcome():
    try:
        return downloader.download(sys.argv[1], Transfer()).md5
    except Failure as failure:
        return type(failure).__name__
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
lowest = os.open("/dev/null", os.O_RDONLY)
os.close(lowest)
resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
print(outcome())
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(outcome())
"""


@pytest.mark.slow
def test_a_shortage_of_descriptors_is_told_as_such(origin: Origin) -> None:
    url = origin.serve("/file", b"hello")
    command = [sys.executable, "-c", SHORTAGE, url]
    printed = subprocess.check_output(command, text=True, cwd=Path(__file__).parent.parent)
    assert printed.split() == ["OutOfResources", md5(b"hello")]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_a_system_without_resources_is_told_from_a_server_that_fails(number: int) -> None:
    assert isinstance(explained(OSError(number, "x")), OutOfResources)
    assert not isinstance(explained(OSError(errno.ECONNREFUSED, "x")), OutOfResources)
    assert isinstance(explained(MemoryError()), OutOfResources)
