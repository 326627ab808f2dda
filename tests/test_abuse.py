"""The server goes on answering, whatever its clients do."""

from __future__ import annotations

import contextlib
import resource
import socket
import sqlite3
import struct
from collections.abc import Iterator

import pytest
import requests

from md5light.web.http.server import MAX_CONNECTIONS
from tests.service import Service

pytestmark = pytest.mark.slow

#: more than the server holds open at once
MANY = MAX_CONNECTIONS + 500

BEGINNINGS = {
    "silent": b"",
    "in the middle of a header": b"GET /check?id=1 HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    "in the middle of a body": (
        b"POST /submit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nurl="
    ),
    "idle after an answer": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.fixture(scope="module", autouse=True)
def _many_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2 * MANY), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One server for all: what one test does to it must not harm the next."""
    with Service(tmp_path_factory.mktemp("abused")) as service:
        service.start_server()
        yield service


def connect(service: Service) -> socket.socket:
    host, _, port = service.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS.keys())
def test_connections_that_are_held_open_keep_nobody_out(service: Service, beginning: bytes) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(MANY):
            client = opened.enter_context(connect(service))
            with contextlib.suppress(ConnectionError):  # it had to make room already
                client.sendall(beginning)
        for _ in range(20):
            assert requests.get(f"{service.url}/check?id=none", timeout=5).status_code == 404


def test_a_request_that_is_being_answered_is_not_closed_to_make_room(service: Service) -> None:
    with contextlib.ExitStack() as opened, requests.Session() as session:
        for number in range(MANY):
            opened.enter_context(connect(service))
            if number >= MAX_CONNECTIONS - 10:  # about to make room, and later at each connection
                assert session.get(f"{service.url}/healthz", timeout=5).status_code == 200


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS.keys())
def test_clients_that_reset_their_connections_harm_nobody(
    service: Service, beginning: bytes
) -> None:
    for _ in range(50):
        with connect(service) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(beginning)
    assert requests.get(f"{service.url}/check?id=none", timeout=5).status_code == 404
    assert "level=error" not in service.commands[0].lines


def test_a_flood_of_oversized_bodies_is_refused(service: Service) -> None:
    for _ in range(100):
        answer = requests.post(f"{service.url}/submit", data=b"x" * 100_000, timeout=5)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert requests.get(f"{service.url}/check?id=none", timeout=5).status_code == 404


def test_submissions_that_wait_for_the_database_let_others_pass(service: Service) -> None:
    request = (
        b"POST /submit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 26\r\n\r\n"
    )
    with contextlib.ExitStack() as opened:
        other = opened.enter_context(
            contextlib.closing(sqlite3.connect(service.database, isolation_level=None))
        )
        other.execute("begin immediate")
        for _ in range(50):
            opened.enter_context(connect(service)).sendall(request + b'{"url":"http://a.example"}')
        for _ in range(10):
            answer = requests.get(f"{service.url}/check?id=none", timeout=5)
            assert answer.status_code == 404
            assert answer.elapsed.total_seconds() < 1
    assert "level=warning" not in service.commands[0].lines
