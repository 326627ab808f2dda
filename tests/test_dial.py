"""Connecting to a name with several addresses: order, pauses, bounds, and the losers' end."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from md5light import dial
from md5light.dial import AddressInfo, connect, in_turn
from md5light.errors import Stopped
from md5light.interrupt import Interrupt

pytestmark = pytest.mark.python


def address(host: str, port: int) -> AddressInfo:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)


@contextlib.contextmanager
def listening(host: str) -> Iterator[AddressInfo]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        yield address(host, listener.getsockname()[1])


@contextlib.contextmanager
def deaf(host: str) -> Iterator[AddressInfo]:
    """An address whose queue of connections is full: a connection is neither taken nor refused."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener, contextlib.ExitStack() as stack:
        listener.bind((host, 0))
        listener.listen(0)
        for _ in range(2):
            filler = stack.enter_context(socket.socket(family))
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield address(host, listener.getsockname()[1])


@contextlib.contextmanager
def refusing(host: str) -> Iterator[AddressInfo]:
    """An address that is bound, so that nobody else takes it, and does not listen."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as bound:
        bound.bind((host, 0))
        yield address(host, bound.getsockname()[1])


def timed(addresses: list[AddressInfo], seconds: float = 10.0) -> tuple[object, float]:
    """Connect, and return the address that answered and the time that it took."""
    begun = time.monotonic()
    with connect(addresses, seconds, Interrupt()) as connection:
        return connection.getpeername()[:2], time.monotonic() - begun


def open_sockets() -> int:
    return sum("socket:" in str(entry.readlink()) for entry in _descriptors())


def _descriptors() -> Iterator[Path]:
    for entry in Path("/proc/self/fd").iterdir():
        if entry.is_symlink():  # the one that lists them is closed by now
            yield entry


@pytest.mark.parametrize("silent", ["::1", "127.0.0.1"])
def test_a_silent_family_costs_a_quarter_of_a_second(silent: str) -> None:
    good = "127.0.0.1" if silent == "::1" else "::1"
    with deaf(silent) as nobody, listening(good) as answering:
        peer, seconds = timed([nobody, answering])
    assert peer == answering[4]
    assert dial.NEXT_SECONDS <= seconds < 3 * dial.NEXT_SECONDS


def test_an_address_that_refuses_costs_no_pause() -> None:
    with contextlib.ExitStack() as stack:
        closed = [stack.enter_context(refusing(host)) for host in ("::1", "127.0.0.2", "127.0.0.3")]
        answering = stack.enter_context(listening("127.0.0.1"))
        peer, seconds = timed([*closed, answering])
    assert peer == answering[4]
    assert seconds < dial.NEXT_SECONDS


def test_the_first_address_that_answers_wins() -> None:
    with listening("::1") as first, listening("127.0.0.1") as second:
        assert timed([first, second])[0] == first[4]
        assert timed([second, first])[0] == second[4]


@pytest.mark.slow
def test_an_address_that_answers_late_still_wins() -> None:
    with socket.socket() as listener, socket.socket() as filler, deaf("127.0.0.2") as nobody:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filler.connect(listener.getsockname())
        late = address(*listener.getsockname())
        # Its queue has room from then on, and the system asks once more a second after the first
        # time.
        threading.Timer(0.4, lambda: listener.accept()[0].close()).start()
        assert timed([late, nobody])[0] == late[4]


def test_one_deadline_covers_all_addresses() -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(deaf(f"127.0.0.{number}")) for number in range(1, 9)]
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            connect(silent, 0.6, Interrupt())
    assert 0.6 <= time.monotonic() - begun < 1.2


def test_no_more_than_six_addresses_are_tried() -> None:
    with contextlib.ExitStack() as stack:
        closed = [stack.enter_context(refusing(f"127.0.0.{number}")) for number in range(1, 7)]
        answering = stack.enter_context(listening("127.0.0.1"))
        with pytest.raises(ConnectionRefusedError):
            connect([*closed, answering], 10, Interrupt())
        assert timed([*closed[1:], answering])[0] == answering[4]


def test_the_families_take_turns() -> None:
    def order(*hosts: str) -> list[str]:
        return [info[4][0] for info in in_turn([address(host, 80) for host in hosts])]

    assert order("::1", "::2", "::3", "1.1.1.1", "1.1.1.2") == [
        "::1", "1.1.1.1", "::2", "1.1.1.2", "::3",
    ]  # fmt: skip
    assert order("1.1.1.1", "1.1.1.2", "::1") == ["1.1.1.1", "::1", "1.1.1.2"]
    assert order("1.1.1.1", "1.1.1.2") == ["1.1.1.1", "1.1.1.2"]
    assert order() == []


def test_a_name_with_many_silent_addresses_of_one_family_has_the_other_tried() -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(deaf(f"127.0.0.{number}")) for number in range(1, 9)]
        answering = stack.enter_context(listening("::1"))
        peer, seconds = timed([*silent, answering])
    assert peer == answering[4]
    assert seconds < 3 * dial.NEXT_SECONDS


def test_a_family_that_the_machine_does_not_have_is_passed_over() -> None:
    unknown: AddressInfo = (99, socket.SOCK_STREAM, 0, "", ("::1", 1))
    with listening("127.0.0.1") as answering:
        assert timed([unknown, answering])[0] == answering[4]
    with pytest.raises(OSError, match="not supported"):
        connect([unknown], 10, Interrupt())


def test_the_losers_are_closed() -> None:
    with deaf("::1") as nobody, deaf("127.0.0.2") as neither, listening("127.0.0.1") as answering:
        before = open_sockets()
        with connect([nobody, neither, answering], 10, Interrupt()):
            assert open_sockets() == before + 1
        with pytest.raises(TimeoutError):
            connect([nobody, neither], 0.1, Interrupt())
        assert open_sockets() == before


def test_another_thread_ends_it_at_once() -> None:
    with deaf("::1") as nobody, deaf("127.0.0.1") as neither:
        interrupt = Interrupt()
        before = open_sockets()
        threading.Timer(0.4, interrupt.end, [Stopped("enough")]).start()
        begun = time.monotonic()
        with pytest.raises(Stopped):
            connect([nobody, neither], 30, interrupt)
        assert time.monotonic() - begun < 2
        assert open_sockets() == before
        with pytest.raises(Stopped):
            connect([nobody], 30, interrupt)


def test_ended_at_any_moment_it_ends() -> None:
    with deaf("127.0.0.1") as nobody:
        for step in range(40):
            interrupt = Interrupt()
            ending = threading.Timer(step * 0.0002, interrupt.end, [Stopped("enough")])
            ending.start()
            with pytest.raises(Stopped):
                connect([nobody], 30, interrupt)
            ending.join()
