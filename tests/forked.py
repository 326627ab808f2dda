"""A command in a process that is forked from one in which all modules are imported already.

Imports are most of what a start costs. The command differs from one that a shell starts in nothing
else that a test sees: it has an id, children, a folder, variables and standard streams of its own,
takes signals and ends with an exit code. The process that it is forked from is its parent.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from md5light import cli, startup

#: makes processes that are forked from one in which all modules are imported already
forking = multiprocessing.get_context("forkserver")
forking.set_forkserver_preload([__name__, "tests.preloaded"])


class Forked:
    """A function of md5light.cli as a process, with what tests use of a subprocess.Popen."""

    def __init__(
        self,
        function: str,
        *arguments: str,
        cwd: Path,
        env: Mapping[str, str],
        streams: Mapping[int, Path],
    ) -> None:
        """Start it; `streams` are files, which exist, for its standard streams by number."""
        given = function, arguments, cwd, dict(env), streams
        self._process = forking.Process(target=_run, args=given)
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    returncode = property(poll)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(
    function: str,
    arguments: Sequence[str],
    cwd: Path,
    env: dict[str, str],
    streams: Mapping[int, Path],
) -> None:
    """Do what a shell does before it executes a command, then run the command from its start."""
    for number, file in streams.items():
        opened = os.open(file, os.O_RDWR | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0)  # multiprocessing has put another in its place
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [function, *arguments]
    importlib.reload(startup)
    getattr(cli, function)()
