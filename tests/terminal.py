"""A pseudo-terminal with a command in it, and what a person would see there.

with Terminal(["md5light", "wait", batch_id], columns=40, env=environment) as terminal:
    terminal.wait_for("12 of 20 lines")
    terminal.type("\\x03")
    assert terminal.end() == 130
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.waiting import wait_until


class Terminal:
    """One command that has the terminal as its three streams, unless `stdout` is another."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        columns: int = 80,
        stdout: Any = None,
    ) -> None:
        self._master, slave = pty.openpty()
        self._size(columns)
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            cwd=cwd,
            env=env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self._output = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        os.close(self._master)

    @property
    def output(self) -> str:
        """All that was written so far."""
        return self._output.decode()

    def drawn(self) -> list[str]:
        """Return each state that the line in progress had."""
        return [line for line in re.split(r"\r\x1b\[K|\r\n", self.output) if line]

    def screen(self) -> list[str]:
        """Return the lines that stand there: what was erased is gone."""
        lines = self.output.split("\r\n")
        return [re.split(r"\r\x1b\[K", line)[-1] for line in lines]

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.output, message=f"{text} in {self.output!r}")

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, columns: int) -> None:
        self._size(columns)
        os.kill(self.process.pid, signal.SIGWINCH)

    def end(self) -> int:
        """Wait for the end of the command and return its exit code."""
        code = self.process.wait(60)
        self._reader.join(10)
        return code

    def _size(self, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: nobody holds the other end
            while data := os.read(self._master, 65536):
                self._output += data
