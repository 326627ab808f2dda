"""Signals, sent to real processes."""

from __future__ import annotations

import os
import signal

import pytest

from tests.child import AS_PID_1, Child, children

pytestmark = [pytest.mark.slow, pytest.mark.python]

COUNTING = """
from md5light.signals import StopSignals
signals = StopSignals(*StopSignals.BOTH)
print("ready")
told = 0
while told < 2:
    signals.wait(None)
    while told < signals.count:
        told += 1
        print(told)
"""

HEEDING_SIGTERM_ALONE = """
import signal
from md5light.signals import StopSignals
signals = StopSignals(signal.SIGTERM)
print("ready")
while not signals.count:
    signals.wait(None)
print(signals.count)
"""

IN_THE_MIDDLE_OF_WORK = """
import os
from md5light.signals import StopSignals
signals = StopSignals(*StopSignals.BOTH)
read, write = os.pipe()
print("ready")
while not signals.count:
    data = sum(range(10000))
os.write(write, b"whole")
print(os.read(read, 5).decode(), signals.wait(60))
"""

HANGING_UP = """
from md5light.signals import StopSignals
signals = StopSignals(*StopSignals.BOTH, on_hangup=lambda: print("hangup", flush=True))
print("ready")
while not signals.count:
    signals.wait(None)
"""

IGNORING_HANGUPS = """
from md5light.signals import StopSignals
signals = StopSignals(*StopSignals.BOTH)
print("ready")
while not signals.count:
    signals.wait(None)
"""

WAKING_AT_THE_END_OF_A_CHILD = """
import os, signal
from md5light.signals import StopSignals
signals = StopSignals()
signals.wake_at(signal.SIGCHLD)
if os.fork() == 0:
    os._exit(0)
print(signals.wait(60), os.wait()[1])
"""

#: runs Python code all the time, as a command does that is starting: in a call that waits, a signal
#: that came just before it would be taken only after it
STARTING = """
import select
import md5light.startup
print("ready")
while not select.select([0], [], [], 0.01)[0]:
    pass
"""

TAKEN_BY_ANOTHER_THREAD = """
import signal, threading
from md5light.signals import StopSignals
signals = StopSignals(*StopSignals.BOTH)
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, StopSignals.BOTH)
print("ready")
print(signals.wait(60), signals.count)
"""

WAITING = """
import os, threading, time
from md5light.signals import StopSignals
signals = StopSignals()
read, write = os.pipe()
started = time.monotonic()
print("silence", signals.wait(0.05), time.monotonic() - started >= 0.05)
threading.Thread(target=signals.wake).start()
print("wake", signals.wait(60))
os.write(write, b"!")
print("other", signals.wait(60, read))
signals.wake()
print("both", signals.wait(60, read))
print("count", signals.count)
"""

FLOODED = """
import os, signal
from md5light.signals import StopSignals
signals = StopSignals(*StopSignals.BOTH)
for _ in range(70_000):
    signals.wake()
os.kill(os.getpid(), signal.SIGTERM)
print(signals.count, signals.wait(60))
"""


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_each_signal_is_counted_and_ends_the_wait(
    first: signal.Signals, second: signal.Signals
) -> None:
    with Child(COUNTING) as child:
        assert child.line() == "ready"
        child.signal(first)
        assert child.line() == "1"
        child.signal(second)
        assert child.line() == "2"
        assert child.end() == 0


def test_a_signal_that_is_not_heeded_does_nothing() -> None:
    with Child(HEEDING_SIGTERM_ALONE) as child:
        assert child.line() == "ready"
        child.signal(signal.SIGINT)
        child.signal(signal.SIGTERM)
        assert child.line() == "1"
        assert child.end() == 0


def test_a_signal_interrupts_nothing_and_the_next_wait_knows_of_it() -> None:
    with Child(IN_THE_MIDDLE_OF_WORK) as child:
        assert child.line() == "ready"
        child.signal(signal.SIGTERM)
        assert child.line() == "whole False"
        assert child.end() == 0


def test_a_signal_that_does_not_reach_the_waiting_thread_ends_its_wait() -> None:
    with Child(TAKEN_BY_ANOTHER_THREAD) as child:
        assert child.line() == "ready"
        child.signal(signal.SIGTERM)
        assert child.line() == "False 1"
        assert child.end() == 0


def test_a_wait_ends_after_its_time_or_by_a_wake_or_another_descriptor() -> None:
    with Child(WAITING) as child:
        assert child.line() == "silence False True"
        assert child.line() == "wake False"
        assert child.line() == "other True"
        assert child.line() == "both True"
        assert child.line() == "count 0"


def test_more_wakes_than_a_pipe_holds_do_no_harm() -> None:
    with Child(FLOODED) as child:
        assert child.line() == "1 False"
        assert child.end() == 0


def test_each_hangup_is_a_call_and_ends_nothing() -> None:
    with Child(HANGING_UP) as child:
        assert child.line() == "ready"
        for _ in range(2):
            child.signal(signal.SIGHUP)
            assert child.line() == "hangup"
        child.signal(signal.SIGTERM)
        assert child.end() == 0


def test_a_hangup_that_nobody_asks_for_does_nothing() -> None:
    with Child(IGNORING_HANGUPS) as child:
        assert child.line() == "ready"
        child.signal(signal.SIGHUP)
        child.signal(signal.SIGTERM)
        assert child.end() == 0


def test_the_end_of_a_child_ends_a_wait() -> None:
    with Child(WAKING_AT_THE_END_OF_A_CHILD) as child:
        assert child.line() == "False 0"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_starting_ends_at_a_signal_without_a_word(
    number: signal.Signals,
) -> None:
    with Child(STARTING) as child:
        assert child.line() == "ready"
        child.signal(number)
        assert child.end() in (128 + number, -number)
        assert child.line() == ""


def test_a_starting_command_that_is_pid_1_ends_at_a_signal() -> None:
    with Child(STARTING, enter=AS_PID_1) as child:
        assert child.line() == "ready"
        (first,) = children(child.process.pid)
        os.kill(first, signal.SIGTERM)
        assert child.end() == 128 + signal.SIGTERM
