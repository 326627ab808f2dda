"""The baton is with one process at a time, and never keeps one from writing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.child import Child
from tests.origin import Origin
from tests.service import Service

#: begins a command line that runs where nothing can be made in /dev/shm
WITHOUT_SEMAPHORES = [
    *("unshare", "--mount", "sh", "-ec"),
    'mount -t tmpfs -o ro none /dev/shm && exec "$@"',
    "sh",
]

#: `other(work)` runs `work` in a process of its own; `begins(other)` tells whether it has the baton
PROCESSES = """
import multiprocessing, os, select, signal
from md5light.queue.baton import Baton

def new(wait_seconds):
    return Baton(multiprocessing.get_context("fork").BoundedSemaphore(1), wait_seconds)

started = []

def other(work=lambda: None):
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        with baton:
            os.write(write, b"!")
            work()
        os._exit(0)
    os.close(write)
    started.append(pid)
    return read

def begins(process, seconds):
    return bool(select.select([process], [], [], seconds)[0])
"""

ONE_AFTER_THE_OTHER = """
baton = new(60)
with baton:
    process = other()
    print(begins(process, 0.2))
print(begins(process, 30))
"""

HOLDER_KILLED = """
baton = new(0.5)
killed = other(lambda: os.kill(os.getpid(), signal.SIGKILL))
os.wait()
for _ in range(2):
    with baton:
        process = other(lambda: os._exit(0))
        print(begins(process, 0.2))
"""

HOLDER_STOPPED = """
baton = new(0.1)
stopped = other(signal.pause)
begins(stopped, 30)
for _ in range(3):
    process = other()
    print(begins(process, 30))
os.kill(started[0], signal.SIGKILL)
"""


def lines(script: str) -> list[str]:
    """Return what `script` prints."""
    with Child(PROCESSES + script) as child:
        assert child.process.stdout
        printed = child.process.stdout.read().splitlines()
        assert child.end() == 0
    return printed


def test_the_next_process_has_it_as_soon_as_it_is_passed_on() -> None:
    assert lines(ONE_AFTER_THE_OTHER) == ["False", "True"]


def test_after_a_holder_was_killed_it_is_with_one_process_again() -> None:
    assert lines(HOLDER_KILLED) == ["False", "False"]


def test_a_holder_that_is_stopped_keeps_no_other_from_writing() -> None:
    assert lines(HOLDER_STOPPED) == ["True", "True", "True"]


@pytest.mark.slow
def test_a_pool_works_where_the_system_has_no_semaphores(tmp_path: Path, origin: Origin) -> None:
    with Service(tmp_path) as service:
        service.start_server()
        service.enter = WITHOUT_SEMAPHORES
        service.start_pool("--processes", "2")
        jobs = [service.submit(origin.serve(f"/{number}", b"hello")) for number in range(4)]
        assert {service.result(job)["status"] for job in jobs} == {"done"}
