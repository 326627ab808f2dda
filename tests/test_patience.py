"""Which failures are a host's word, and how long a host asks its clients to wait."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from md5light.errors import TemporaryFailure
from tests.downloads import Fetch, failure_of
from tests.origin import Origin, Peer, reply


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("429 Too Many Requests", True),
        ("503 Service Unavailable", True),
        ("500 Internal Server Error", False),
        ("502 Bad Gateway", False),
        ("504 Gateway Timeout", False),
        ("403 Forbidden", False),
        ("404 Not Found", False),
    ],
)
def test_a_host_that_asks_for_rest_speaks_for_itself(
    origin: Origin, fetch: Fetch, status: str, expected: bool
) -> None:
    assert failure_of(fetch, origin.serve("/file", reply(b"", status))).of_host is expected


def test_a_connection_that_brings_no_answer_is_the_hosts_word(origin: Origin, fetch: Fetch) -> None:
    assert failure_of(fetch, origin.serve("/reset", Peer.reset)).of_host
    assert failure_of(fetch, origin.serve("/closed", lambda peer: None)).of_host
    origin.hang_up()
    assert failure_of(fetch, origin.url("/refused")).of_host


@pytest.mark.slow
def test_a_host_that_does_not_let_connect_is_not_reached(fetch: Fetch) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        failure = failure_of(fetch, f"http://127.0.0.1:{full.getsockname()[1]}/")
        for client in waiting:
            client.close()
    assert (failure.code, failure.of_host) == ("timed_out", True)


def test_a_cut_handshake_is_the_hosts_word(fetch: Fetch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        failure = failure_of(fetch, f"https://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join(10)
    assert failure.of_host


@pytest.mark.parametrize(
    "script",
    [
        lambda peer: peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
        lambda peer: peer.send(b"what?\r\n\r\n"),
        lambda peer: time.sleep(1.5),
    ],
    ids=["broken", "no-http", "slow"],
)
@pytest.mark.slow
def test_what_becomes_of_one_answer_is_not_the_hosts_word(
    origin: Origin, fetch: Fetch, script: object
) -> None:
    assert not failure_of(fetch, origin.serve("/file", script)).of_host  # type: ignore[arg-type]


def test_what_a_redirect_led_to_says_nothing_of_the_jobs_host(origin: Origin, fetch: Fetch) -> None:
    with Origin(host="127.0.0.2") as other:
        busy = other.serve("/busy", reply(b"", "503 Busy"))
        redirect = reply(b"", "302 Found", f"Location: {busy}")
        assert failure_of(fetch, origin.serve("/away", redirect)).redirected
    here = origin.serve("/here", reply(b"", "503 Busy"))
    failure = failure_of(fetch, origin.serve("/back", reply(b"", "302 Found", f"Location: {here}")))
    assert (failure.of_host, failure.redirected) == (True, False)


def soon() -> int:
    return int(time.time()) + 100


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["Retry-After: 7", "X-RateLimit-Reset: 100"], 7),
        (["Retry-After: soon", "X-RateLimit-Reset: 100"], 100),
        (["RateLimit-Reset: 30"], 30),
        (["RateLimit-Remaining: 0", "RateLimit-Reset: 30"], 30),
        (["RateLimit-Remaining: 5", "RateLimit-Reset: 30"], None),
        (["X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 30"], 30),
        (["X-RateLimit-Remaining: 4999", "X-RateLimit-Reset: {soon}"], None),
        (["X-RateLimit-Reset: {soon}"], 100),
        (["X-RateLimit-Reset: {soon}000"], 100),
        (["X-RateLimit-Reset: {soon}.5"], 100),
        (["X-Rate-Limit-Reset: {soon}"], 100),
        (["X-RateLimit-Reset: 1000000000"], 0),
        (["X-RateLimit-Reset: 999999"], 3600),
        (["X-RateLimit-Reset: tomorrow"], None),
        (["X-RateLimit-Reset: -5"], None),
        (['RateLimit: "default";r=0;t=40'], 40),
        (['RateLimit: "a";r=5;t=900, "b";r=0;t=40'], 40),
        (['RateLimit: "a";r=0;t=90, "b";r=0;t=40'], 90),
        (["RateLimit: limit=10, remaining=0, reset=50"], 50),
        (["RateLimit: limit=10, remaining=10, reset=50"], None),
        (['RateLimit: "default";r=10;t=40'], None),
        ([], None),
    ],
)
def test_the_rest_that_is_asked_for_is_found(
    origin: Origin, fetch: Fetch, headers: list[str], seconds: float | None
) -> None:
    lines = [line.replace("{soon}", str(soon())) for line in headers]
    failure = failure_of(fetch, origin.serve("/file", reply(b"", "429 Too Many", *lines)))
    assert isinstance(failure, TemporaryFailure)
    if seconds is None:
        assert failure.retry_after is None
    else:
        assert failure.retry_after == pytest.approx(seconds, abs=3)
