"""The commands of md5light, called in the test's own process, or in one of their own.

    done = run("md5light", "jobs", "list", cwd=tmp_path)       # quick
    done = run_apart("md5light", "jobs", "list", cwd=tmp_path)  # where the process is tested
    process = start("md5light", "jobs", "list", cwd=tmp_path)

Each sees the folder, the variables and the standard streams of a process that a shell starts.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.child import ROOT

COMMANDS = {
    "md5light": ["-m", "md5light"],
    "md5light-server": ["-c", "from md5light.cli import server; server()"],
    "md5light-worker": ["-c", "from md5light.cli import worker; worker()"],
}

FUNCTIONS = {"md5light": "main", "md5light-server": "server", "md5light-worker": "worker"}

#: variables of those who run the tests, which are no test's
_OWN = ("MD5LIGHT_CONFIG", "COLUMNS")


Run = Callable[..., CompletedProcess[str]]


def start(
    command: str,
    *arguments: str,
    cwd: Path,
    stdout: int = subprocess.PIPE,
    environ: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if name not in _OWN}
    return subprocess.Popen(
        [sys.executable, *COMMANDS[command], *arguments],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT), **(environ or {})},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_apart(command: str, *arguments: str, cwd: Path, **environ: str) -> CompletedProcess[str]:
    """Run a command in a process of its own, to its end."""
    process = start(command, *arguments, cwd=cwd, environ=environ)
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    return CompletedProcess(process.args, process.returncode, out, err)


def run(command: str, *arguments: str, cwd: Path, **environ: str) -> CompletedProcess[str]:
    """Run a command in this process, to its end."""
    with _restored(), pytest.MonkeyPatch.context() as patch:
        function = getattr(import_module("md5light.cli"), FUNCTIONS[command])
        streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(3)]
        for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        patch.setattr(sys, "argv", [command, *arguments])
        patch.setattr(gc, "freeze", lambda: None)  # this process goes on, and so must collections
        patch.chdir(cwd)
        for name in _OWN:
            patch.delenv(name, raising=False)
        for name, value in environ.items():
            patch.setenv(name, value)
        code = _exit_code(function)
    out, err = (stream.buffer.getvalue().decode() for stream in streams[1:])
    return CompletedProcess([command, *arguments], code, out, err)


def said(done: CompletedProcess[str]) -> str:
    """Return what a command printed that did what it was asked."""
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def in_json(done: CompletedProcess[str]) -> Any:
    printed = said(done)
    assert printed.count("\n") == 1
    value = json.loads(printed)
    assert json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n" == printed
    return value


def refused(done: CompletedProcess[str], code: int = 1) -> str:
    """Return the one line of a command that did not do what it was asked."""
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("md5light: ").rstrip("\n")


def configure(
    tmp_path: Path, *, shutdown_seconds: float = 25, database: str = "jobs.sqlite3", **smtp: object
) -> None:
    """Write config.ini; the owner alone can read it."""
    file = tmp_path / "config.ini"
    file.touch(mode=0o600)
    lines = [f"{key} = {value}" for key, value in smtp.items()]
    sections = [
        "[queue]",
        f"database = {database}",
        "[worker]",
        f"shutdown_seconds = {shutdown_seconds}",
        "[smtp]",
    ]
    file.write_text("\n".join([*sections, *lines, ""]))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _exit_code(function: Callable[[], None]) -> int:
    try:
        function()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Give back what a command may change for good, since its process ends with it."""
    streams = sys.stdin, sys.stdout, sys.stderr
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    root, ours = logging.getLogger(), logging.getLogger("md5light")
    handlers, levels = root.handlers, (root.level, ours.level)
    output = os.dup(1)
    try:
        yield
    finally:
        os.dup2(output, 1)
        os.close(output)
        root.handlers = handlers
        root.setLevel(levels[0])
        ours.setLevel(levels[1])
        for number, handler in signals.items():
            signal.signal(number, handler)
        sys.stdin, sys.stdout, sys.stderr = streams
