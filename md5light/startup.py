"""What a command does before anything else. md5light.cli imports this first, for its effects.

* SIGTERM and SIGINT end a command that has not got far enough to do more, at once and without a
  traceback, also as PID 1, for which the kernel drops signals without a handler
  (pid_namespaces(7)).
* Closed standard streams become /dev/null. Otherwise the next file that is opened would get the
  number of one, and log lines would be written into that file.
* What can't be written to standard error is dropped: a full disk or a log reader that died must
  stop nothing.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType
from typing import Any

#: what a shell adds to a signal's number in the exit code
SIGNALED = 128


class _StandardError(io.FileIO):
    """Standard error, without errors of its own."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def _exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal() passes both
    # Not by an exception: where a module is being imported, that may become an ImportError.
    os._exit(SIGNALED + number)


def _open_closed_streams() -> None:
    # The lowest free number is given out first (open(2)), so three descriptors fill all gaps.
    for _ in range(3):
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            break
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")


def _lossy_stderr() -> io.TextIOWrapper:
    # As Python's own with -u: what a buffer can't get rid of would fail again at the exit.
    raw: Any = _StandardError(2, "w", closefd=False)
    encoding = sys.stderr.encoding if sys.stderr else None
    return io.TextIOWrapper(raw, encoding, errors="backslashreplace", write_through=True)


for stop in (signal.SIGTERM, signal.SIGINT):
    signal.signal(stop, _exit)
_open_closed_streams()
sys.stderr = _lossy_stderr()
