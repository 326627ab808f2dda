"""Connections of downloads: which are kept, the time of each step, and a lack of threads."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from md5light.config import DownloadConfig
from md5light.deadlines import Deadlines
from md5light.dial import AddressInfo
from md5light.download.connection import Connections
from md5light.download.guard import Guard
from md5light.download.transfer import Transfer
from md5light.download.urls import parse
from md5light.download.wire import Limits
from md5light.errors import OutOfResources, Stopped, TemporaryFailure
from md5light.interrupt import Interrupt
from md5light.lookups import Lookups
from tests.origin import Origin, Peer
from tests.waiting import wait_until

pytestmark = pytest.mark.python

Resolve = Callable[..., list[AddressInfo]]


def resolve_to(*hosts: str) -> Resolve:
    """Make a resolver that knows every name as these addresses."""

    def resolve(_: str, port: int, **__: object) -> list[AddressInfo]:
        return [
            (
                socket.AF_INET6 if ":" in host else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (host, port),
            )
            for host in hosts
        ]

    return resolve


LOOPBACK = resolve_to("127.0.0.1")


def make(resolve: Resolve = LOOPBACK, **values: float) -> Connections:
    config = DownloadConfig(
        allow_networks=(ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")),
        **values,  # type: ignore[arg-type]
    )
    return Connections(config, Guard(config, resolve=resolve), 8)


def get(connections: Connections, url: str) -> bytes:
    exchange = connections.get(parse(url), "", Transfer(), Limits.of(DownloadConfig()))
    with exchange as response:
        body = bytearray(100)
        count = response.readinto(memoryview(body))
        response.readinto(memoryview(body)[count:])
        exchange.finish()
    return bytes(body[:count])


# --- kept connections -----------------------------------------------------------------------------


def test_one_connection_for_each_host_and_port_is_kept() -> None:
    connections = make()
    with Origin() as one, Origin() as other:
        for origin in (one, other):
            origin.serve("/file", b"hello")
        for _ in range(3):
            for host in ("a.test", "b.test", "127.0.0.1"):
                for origin in (one, other):
                    assert get(connections, origin.url("/file", host)) == b"hello"
        assert (one.connections, other.connections) == (3, 3)
        connections.close()


def test_closing_closes_what_is_kept() -> None:
    connections = make()
    closed = threading.Event()

    def script(peer: Peer) -> None:
        peer.reply(b"hello")
        peer.wait_closed()
        closed.set()

    with Origin() as origin:
        get(connections, origin.serve("/file", script))
        assert not closed.wait(0.05)
        connections.close()
        assert closed.wait(5)


def test_an_exchange_that_is_not_finished_keeps_nothing() -> None:
    connections = make()
    with Origin() as origin:
        origin.serve("/file", b"hello")
        with connections.get(
            parse(origin.url("/file")), "", Transfer(), Limits.of(DownloadConfig())
        ):
            pass
        assert get(connections, origin.url("/file")) == b"hello"
        assert origin.connections == 2


def test_a_kept_connection_to_an_address_is_no_reason_to_ask_name_servers() -> None:
    asked = []

    def resolve(host: str, port: int, **_: object) -> list[AddressInfo]:
        asked.append(host)
        return resolve_to("127.0.0.1")(host, port)

    connections = make(resolve)
    with Origin() as origin:
        origin.serve("/file", b"hello")
        for _ in range(3):
            get(connections, origin.url("/file", "files.test"))
    assert asked == ["files.test"]


# --- how long a step may take ---------------------------------------------------------------------


@contextlib.contextmanager
def dripping(seconds: float) -> Iterator[int]:
    """A server that sends a handshake byte by byte, for a while."""
    ended = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"\x16\x03\x03\x10\x00\x02\x00\x0f\xfc")
                begun = time.monotonic()
                while time.monotonic() - begun < seconds and not ended.wait(0.02):
                    connection.sendall(b"\0")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        ended.set()


@pytest.mark.parametrize("host", ["files.test", "my_files.test"])
def test_a_handshake_that_drips_ends_at_connect_timeout(host: str) -> None:
    with dripping(20) as port:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            make(connect_timeout=0.5).get(
                parse(f"https://{host}:{port}/"), "", Transfer(), Limits.of(DownloadConfig())
            )
    assert 0.5 <= time.monotonic() - begun < 2


def test_a_name_with_a_silent_family_is_reached() -> None:
    """As a host whose IPv6 packets are lost."""
    with (
        socket.socket(socket.AF_INET6) as deaf,
        contextlib.ExitStack() as stack,
        Origin() as origin,
    ):
        deaf.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        deaf.bind(("::1", origin.port))
        deaf.listen(0)
        for _ in range(2):
            filler = stack.enter_context(socket.socket(socket.AF_INET6))
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        origin.serve("/file", b"hello")
        begun = time.monotonic()
        url = origin.url("/file", "dual.test")
        assert get(make(resolve_to("::1", "127.0.0.1")), url) == b"hello"
        assert time.monotonic() - begun < 1.5


# --- threads --------------------------------------------------------------------------------------


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Let no thread start, as a limit on processes does, until the test lifts it."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    yield monkeypatch.undo
    monkeypatch.undo()


def test_a_look_up_without_a_thread_costs_no_place(no_threads: Callable[[], None]) -> None:
    lookups = Lookups(2)
    for _ in range(5):
        with pytest.raises(OutOfResources) as failure:
            lookups.run(lambda: "found", 5, Interrupt())
        assert "no thread left" in failure.value.message
    no_threads()
    assert [lookups.run(lambda: "found", 5, Interrupt()) for _ in range(5)] == ["found"] * 5


def test_a_place_is_given_back_after_any_look_up() -> None:
    def fail() -> None:
        raise TemporaryFailure("name_not_found", "no such name")

    lookups = Lookups(1)
    for _ in range(3):
        with pytest.raises(TemporaryFailure, match="no such name"):
            lookups.run(fail, 5, Interrupt())
    with pytest.raises(ZeroDivisionError):  # also one that nobody expects
        lookups.run(lambda: 1 / 0, 5, Interrupt())
    stopped = Interrupt()
    stopped.end(Stopped("enough"))
    for _ in range(3):
        with pytest.raises(Stopped):
            lookups.run(lambda: None, 5, stopped)
        wait_until(lambda: not any(t.name == "look-up" for t in threading.enumerate()))


def test_deadlines_come_back_with_the_threads(no_threads: Callable[[], None]) -> None:
    deadlines = Deadlines(0.05)
    with pytest.raises(RuntimeError), deadlines.watch(lambda: None):
        pass
    no_threads()
    ended = threading.Event()
    with deadlines.watch(ended.set):
        assert ended.wait(5)
    deadlines.close()
