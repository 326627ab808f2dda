"""How long a server may take: for its first byte, between bytes, and by the rate of them."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator

import pytest

from md5light.config import DownloadConfig
from md5light.download import wire as wire_module
from md5light.download.response import Response
from md5light.download.wire import Limits, Wire
from md5light.errors import TemporaryFailure
from tests.conftest import Clock
from tests.downloads import BIG, CHUNKED, Fetch, config, downloading, failure_of, head, md5
from tests.origin import Origin, Peer, chunked

DEFAULT = Limits.of(DownloadConfig())


#: bytes to send, and seconds to let pass
Pieces = list[bytes | float]


class Server:
    """The other end of a wire, which sends pieces and lets time pass between them."""

    def __init__(self, clock: Clock, limits: Limits) -> None:
        self._clock = clock
        self._server, self._client = socket.socketpair()
        self._wire = Wire(self._client, clock)
        self._reader: io.BufferedReader = io.BufferedReader(self._wire, 1024)
        self._wire.begin(limits)

    def read(self, *pieces: bytes | float) -> bytes:
        """Send the pieces, of which numbers are seconds, and read the answer that they make."""
        stream = _Paced(self._wire, self._server, self._clock, list(pieces))
        response = Response(io.BufferedReader(stream, 1024), self._wire)
        body, buffer = b"", memoryview(bytearray(100_000))
        while count := response.readinto(buffer):
            body += buffer[:count]
        return body

    def close(self) -> None:
        self._server.close()
        self._client.close()


class _Paced(io.RawIOBase):
    """Sends the next piece when more is read."""

    def __init__(self, wire: Wire, server: socket.socket, clock: Clock, pieces: Pieces) -> None:
        self._wire, self._server, self._clock, self._pieces = wire, server, clock, pieces

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while self._pieces:
            piece = self._pieces.pop(0)
            if isinstance(piece, bytes):
                self._server.sendall(piece)
                break
            self._clock.pass_(piece)
        else:
            self._server.shutdown(socket.SHUT_WR)
        return self._wire.readinto(buffer)


@pytest.fixture
def server(clock: Clock) -> Iterator[Server]:
    server = Server(clock, DEFAULT)
    yield server
    server.close()


def dripping(data: bytes, size: int, seconds: float) -> Pieces:
    """Send so many bytes at a time."""
    pieces: Pieces = []
    for start in range(0, len(data), size):
        pieces += [data[start : start + size], seconds]
    return pieces


SLOW: dict[str, Pieces] = {
    "a body": [head("Content-Length: 5000"), *dripping(bytes(5000), 50, 1)],
    "a body until close": [head(), *dripping(bytes(5000), 50, 1)],
    "a body that becomes slow": [
        head("Content-Length: 200000"),
        bytes(100_000),
        30,
        bytes(100),
        *dripping(bytes(90_000), 1500, 25),
    ],
    "one byte now and then": [head("Content-Length: 50"), *dripping(bytes(50), 1, 25)],
    "chunk sizes": [CHUNKED, *dripping(b"1\r\nx\r\n" * 1000, 1, 0.5)],
    "a trailer": [CHUNKED + b"0\r\n", *dripping(b"X: y\r\n" * 100, 6, 1)],
    "headers": [b"HTTP/1.1 200 OK\r\n", *dripping(b"X: y\r\n" * 100, 6, 1)],
    "a status line": [b"HTTP/1.1 200 ", *dripping(b"x" * 100, 1, 1)],
    "an interim answer": [b"HTTP/1.1 100 Continue\r\n", *dripping(b"X: y\r\n" * 100, 6, 1)],
    "interim answers": [*dripping(head(status="100 Continue") * 100, 25, 2)],
}


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_answer_ends(server: Server, clock: Clock, name: str) -> None:
    begun = clock()
    with pytest.raises(TemporaryFailure) as caught:
        server.read(*SLOW[name])
    assert caught.value.code == "timed_out"
    assert clock() - begun <= 160
    key = "first_byte_timeout" if name == "interim answers" else "min_bytes_per_second"
    assert f"see [download] {key}" in caught.value.message


FAST_ENOUGH: dict[str, Pieces] = {
    "the least rate": [head("Content-Length: 20000"), *dripping(bytes(20_000), 100, 1)],
    "a short body": [head("Content-Length: 20"), *dripping(bytes(20), 1, 2.9)],
    "a burst after a silence": [head("Content-Length: 6001"), b"x", 59, bytes(6000), 59],
    "a late answer": [119, head("Content-Length: 5"), b"hello"],
    "late interim answers": [
        *dripping(head(status="103 Early Hints") * 4, 28, 28),
        head("Content-Length: 5") + b"hello",
    ],
}


@pytest.mark.parametrize("name", FAST_ENOUGH)
def test_an_answer_that_is_fast_enough_is_read(server: Server, name: str) -> None:
    assert server.read(*FAST_ENOUGH[name])


def test_without_a_least_rate_all_is_read(clock: Clock) -> None:
    server = Server(clock, Limits.of(config(min_bytes_per_second=0)))
    assert len(server.read(head("Content-Length: 50"), *dripping(bytes(50), 1, 25))) == 50
    server.close()


def test_patience_stretches_each_time() -> None:
    patient = Limits.of(DownloadConfig(), 4)
    assert patient == (480, 120, 100, 240)
    assert DEFAULT == (120, 30, 100, 60)


@pytest.mark.parametrize(
    ("at_once", "key", "part"),
    [
        (b"", "first_byte_timeout", "begin its answer within 0.3 seconds"),
        (head(status="103 Early Hints"), "first_byte_timeout", "begin its answer"),
        (b"HTTP/1.1 ", "read_timeout", "silent for 0.3 seconds within its headers"),
        (head()[:-2], "read_timeout", "within its headers"),
        (head("Content-Length: 9"), "read_timeout", "within its body"),
        (head("Content-Length: 9") + b"x", "read_timeout", "within its body"),
        (head() + b"x", "read_timeout", "within its body"),
        (CHUNKED + b"5", "read_timeout", "within its body"),
        (CHUNKED + b"0\r\n", "read_timeout", "within its body"),
    ],
)
def test_a_silent_server_times_out(origin: Origin, at_once: bytes, key: str, part: str) -> None:
    def script(peer: Peer) -> None:
        peer.send(at_once)
        peer.wait_closed()

    with downloading(read_timeout=0.3, first_byte_timeout=0.3) as fetch:
        failure = failure_of(fetch, origin.serve("/file", script))
    assert (failure.code, type(failure)) == ("timed_out", TemporaryFailure)
    assert part in failure.message
    assert f"see [download] {key}" in failure.message


@pytest.mark.slow
def test_the_first_byte_has_a_time_of_its_own(origin: Origin) -> None:
    """On a new connection, after an interim answer, at each hop, and on a kept connection."""

    def late(peer: Peer, answer: bytes) -> bool:
        threading.Event().wait(0.15)
        peer.send(head(status="103 Early Hints"))
        threading.Event().wait(0.15)
        peer.send(answer)
        return True

    redirect = head("Location: /file", "Content-Length: 0", status="302 Found")
    url = origin.serve("/", lambda peer: late(peer, redirect))
    origin.serve("/file", lambda peer: late(peer, head("Content-Length: 5") + b"hello"))
    with downloading(read_timeout=0.05, first_byte_timeout=5.0) as fetch:
        assert fetch(url).md5 == md5(b"hello")
    assert origin.connections == 1


@pytest.mark.slow
def test_a_slow_download_ends(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_module, "WINDOW_SECONDS", 0.3)
    with downloading(min_bytes_per_second=10_000) as fetch:
        slow = origin.serve("/slow", lambda peer: peer.throttle(head() + BIG[:20_000], 2000))
        failure = failure_of(fetch, slow)
        fast = origin.serve("/fast", lambda peer: peer.throttle(head() + BIG[:40_000], 60_000))
        assert fetch(fast).md5 == md5(BIG[:40_000])
    assert (failure.code, type(failure)) == ("timed_out", TemporaryFailure)
    assert "less than 10,000 bytes per second" in failure.message


def test_a_body_may_be_silent_for_read_timeout(origin: Origin, fetch: Fetch) -> None:
    def script(peer: Peer) -> None:
        peer.send(CHUNKED + chunked(b"hel", end=b""))
        threading.Event().wait(0.5)
        peer.send(chunked(b"lo"))

    assert fetch(origin.serve("/file", script)).md5 == md5(b"hello")
