"""The first steps of every command; md5light.cli imports this module first, for its effects.

* SIGTERM and SIGINT end a command that is still starting, at once and without a traceback. This
  works for PID 1, too: the kernel discards its signals without a handler (pid_namespaces(7)).
* Closed standard streams become /dev/null. Otherwise the next file that is opened would get the
  number of such a stream, and log lines would be written into that file.
* Errors in writing to standard error are ignored: neither a full disk nor a dead log reader may
  stop the service.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType
from typing import Any

#: added to a signal's number in the exit code, as shells do
SIGNALED = 128


class _StandardError(io.FileIO):
    """Standard error that never raises."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def _exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal() passes both
    # No exception: during an import it may become an ImportError.
    os._exit(SIGNALED + number)


def _open_closed_streams() -> None:
    # open(2) takes the lowest free number, so three descriptors fill all gaps.
    for _ in range(3):
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            break
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")


def _lossy_stderr() -> io.TextIOWrapper:
    # Unbuffered, as with python -u: text left in a buffer would fail again at the exit.
    raw: Any = _StandardError(2, "w", closefd=False)
    encoding = sys.stderr.encoding if sys.stderr else None
    return io.TextIOWrapper(raw, encoding, errors="backslashreplace", write_through=True)


for stop in (signal.SIGTERM, signal.SIGINT):
    signal.signal(stop, _exit)
_open_closed_streams()
sys.stderr = _lossy_stderr()
