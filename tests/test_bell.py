"""Rings wake who listens beside the database, and nothing goes wrong where nobody does."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from md5light.queue.bell import BellListener, ring
from tests.child import Child

#: a wait that takes so many seconds was ended by its time, not by a ring
LONG = 30.0

LISTENING = """
import os, sys
from pathlib import Path
from md5light.queue.bell import BellListener
listener = BellListener(Path(sys.argv[1]))
print("listening")
listener.wait(60, os.pipe()[0])
print("woken")
"""

FORKING = """
import os, sys
from pathlib import Path
from md5light.queue.bell import BellListener
listener = BellListener(Path(sys.argv[1]))
child = os.fork()
if not child:
    listener.close()
    os._exit(0)
os.waitpid(child, 0)
print("listening")
listener.wait(60, os.pipe()[0])
print("woken")
"""


@pytest.fixture
def stop() -> Iterator[tuple[int, int]]:
    """A pipe; who reads from it waits until something is written."""
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def seconds_of_wait(listener: BellListener, timeout: float, stop: int) -> float:
    started = time.monotonic()
    listener.wait(timeout, stop)
    return time.monotonic() - started


def rings_heard(listener: BellListener, stop: int) -> int:
    """Tell how many rings there were, by waiting until one is missing."""
    heard = 0
    while seconds_of_wait(listener, 0.1, stop) < 0.1:
        heard += 1
    return heard


def bells(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*-bell-*"))


def test_a_ring_ends_the_wait_of_another_process(tmp_path: Path) -> None:
    database = tmp_path / "jobs.sqlite3"
    with Child(LISTENING, database) as child:
        assert child.line() == "listening"
        ring(database, 1)
        assert child.line() == "woken"
        assert child.end() == 0


def test_a_ring_before_the_wait_is_not_lost(tmp_path: Path, stop: tuple[int, int]) -> None:
    listener = BellListener(tmp_path / "jobs.sqlite3")
    ring(tmp_path / "jobs.sqlite3", 1)
    assert seconds_of_wait(listener, LONG, stop[0]) < LONG / 2
    listener.close()


def test_each_job_rings_once(tmp_path: Path, stop: tuple[int, int]) -> None:
    listener = BellListener(tmp_path / "jobs.sqlite3")
    assert rings_heard(listener, stop[0]) == 0
    ring(tmp_path / "jobs.sqlite3", 3)
    assert rings_heard(listener, stop[0]) == 3
    listener.close()


def test_a_stop_ends_the_wait(tmp_path: Path, stop: tuple[int, int]) -> None:
    listener = BellListener(tmp_path / "jobs.sqlite3")
    os.write(stop[1], b"!")
    assert seconds_of_wait(listener, LONG, stop[0]) < LONG / 2
    listener.close()


def test_every_pool_is_told(tmp_path: Path) -> None:
    database = tmp_path / "jobs.sqlite3"
    with Child(LISTENING, database) as one, Child(LISTENING, database) as other:
        assert [one.line(), other.line()] == ["listening", "listening"]
        ring(database, 1)
        assert [one.line(), other.line()] == ["woken", "woken"]


def test_nobody_listens(tmp_path: Path) -> None:
    ring(tmp_path / "jobs.sqlite3", 3)
    ring(tmp_path / "none" / "jobs.sqlite3", 3)
    assert list(tmp_path.iterdir()) == []


def test_closing_leaves_nothing_behind(tmp_path: Path) -> None:
    listener = BellListener(tmp_path / "jobs.sqlite3")
    assert len(bells(tmp_path)) == 1
    listener.close()
    assert bells(tmp_path) == []


def test_a_child_that_closes_does_not_silence_its_pool(tmp_path: Path) -> None:
    database = tmp_path / "jobs.sqlite3"
    with Child(FORKING, database) as child:
        assert child.line() == "listening"
        ring(database, 1)
        assert child.line() == "woken"


def test_what_a_killed_pool_left_behind_is_cleared_away(
    tmp_path: Path, stop: tuple[int, int]
) -> None:
    database = tmp_path / "jobs.sqlite3"
    with Child(LISTENING, database) as child:
        assert child.line() == "listening"
        child.signal(signal.SIGKILL)
        child.end()
    listener = BellListener(database)
    assert len(bells(tmp_path)) == 2
    ring(database, 1)
    assert bells(tmp_path) == [f"jobs.sqlite3-bell-{os.getpid()}"]
    assert rings_heard(listener, stop[0]) == 1
    listener.close()


def test_a_number_that_a_killed_pool_had_can_be_used_again(
    tmp_path: Path, stop: tuple[int, int]
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(tmp_path / f"jobs.sqlite3-bell-{os.getpid()}"))
    listener = BellListener(tmp_path / "jobs.sqlite3")
    ring(tmp_path / "jobs.sqlite3", 1)
    assert rings_heard(listener, stop[0]) == 1
    listener.close()


def test_a_file_that_only_has_such_a_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite3-bell-notes.txt").write_text("mine")
    ring(tmp_path / "jobs.sqlite3", 1)
    assert bells(tmp_path) == ["jobs.sqlite3-bell-notes.txt"]


@pytest.mark.parametrize("name", ["[j]obs.sqlite3", "*.sqlite3", "job?.sqlite3"])
def test_signs_of_patterns_in_a_name_are_themselves(
    tmp_path: Path, stop: tuple[int, int], name: str
) -> None:
    listener = BellListener(tmp_path / "jobs.sqlite3")
    ring(tmp_path / name, 1)
    assert rings_heard(listener, stop[0]) == 0
    listener.close()
    listener = BellListener(tmp_path / name)
    ring(tmp_path / name, 1)
    assert rings_heard(listener, stop[0]) == 1
    listener.close()


def test_a_path_may_be_longer_than_a_socket_address(tmp_path: Path, stop: tuple[int, int]) -> None:
    folder = tmp_path / ("a" * 150) / ("b" * 150)
    folder.mkdir(parents=True)
    listener = BellListener(folder / "jobs.sqlite3")
    ring(folder / "jobs.sqlite3", 1)
    assert rings_heard(listener, stop[0]) == 1
    listener.close()
    assert bells(folder) == []


def test_more_rings_than_a_socket_holds_wait_for_nobody(
    tmp_path: Path, stop: tuple[int, int]
) -> None:
    listener = BellListener(tmp_path / "jobs.sqlite3")
    ring(tmp_path / "jobs.sqlite3", 100_000)
    assert 1 <= rings_heard(listener, stop[0]) < 100_000
    listener.close()


def test_a_folder_that_takes_no_sockets_only_makes_workers_poll(
    tmp_path: Path, stop: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    """As shared folders do, it refuses the socket: here its name is too long for the system."""
    database = tmp_path / ("x" * 250)
    listener = BellListener(database)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("WARNING", "bell_unavailable")
    ring(database, 1)
    assert seconds_of_wait(listener, 0.1, stop[0]) >= 0.1
    os.write(stop[1], b"!")
    assert seconds_of_wait(listener, LONG, stop[0]) < LONG / 2
    listener.close()


def test_a_listener_holds_no_descriptor_more_after_its_end(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    listener = BellListener(tmp_path / "jobs.sqlite3")
    ring(tmp_path / "jobs.sqlite3", 5)
    listener.close()
    assert descriptors() == before
