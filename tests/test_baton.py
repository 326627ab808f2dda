"""The baton is with one process at a time, and never keeps one from writing."""

from __future__ import annotations

from tests.child import Child

#: `other(work)` runs `work` in a process of its own; `begins(other)` tells whether it has the baton
PROCESSES = """
import os, resource, select, signal, sys
from md5light.queue.baton import Baton

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
baton = Baton(60)
with baton:
    process = other()
    print(begins(process, 0.2))
print(begins(process, 30))
"""

HOLDER_KILLED = """
baton = Baton(0.5)
killed = other(lambda: os.kill(os.getpid(), signal.SIGKILL))
os.wait()
for _ in range(2):
    with baton:
        process = other(lambda: os._exit(0))
        print(begins(process, 0.2))
"""

HOLDER_STOPPED = """
baton = Baton(0.1)
stopped = other(signal.pause)
begins(stopped, 30)
for _ in range(3):
    process = other()
    print(begins(process, 30))
os.kill(started[0], signal.SIGKILL)
"""

NO_SEMAPHORES = """
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
baton = Baton(60)
for _ in range(2):
    with baton:
        print("writes")
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


def test_it_is_without_effect_where_there_are_no_semaphores() -> None:
    assert lines(NO_SEMAPHORES) == ["writes", "writes"]
