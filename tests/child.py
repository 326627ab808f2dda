"""Another process for a test: a Python script that talks in lines.

    with Child("print('ready'); input(); print('bye')") as child:
        assert child.line() == "ready"
        child.tell()
        assert child.line() == "bye"
        assert child.end() == 0

The script finds the arguments after it in `sys.argv`. What still runs when the test leaves is
killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


#: what a command line begins with to be process 1 of a PID namespace (unshare(1))
AS_PID_1 = ["unshare", *["--user"] * (os.getuid() != 0), "--pid", "--fork", "--kill-child"]


def children(pid: int) -> list[int]:
    """Return the ids of a process's living children (proc(5))."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


class Child:
    def __init__(self, script: str, *arguments: object, enter: Sequence[str] = ()) -> None:
        """Start `script`; `enter` is a program that runs another, with its arguments."""
        self.process = subprocess.Popen(
            [*enter, sys.executable, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        """Wait for the next line of its output, errors included."""
        assert self.process.stdout
        return self.process.stdout.readline().rstrip("\n")

    def tell(self, line: str = "") -> None:
        """Give it a line to read."""
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for its end and tell its exit code."""
        return self.process.wait(30)
