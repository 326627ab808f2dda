"""The real commands in processes of their own, with a configuration and a folder of the test's.

    with Service(tmp_path, download={"allow_networks": "127.0.0.0/8"}) as service:
        service.start_server()
        service.start_pool("--processes", "2")
        job_id = service.submit(origin.url("/file"))
        assert service.result(job_id)["md5"] == "…"

What still runs at the end is killed, by its process id.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import requests

from tests.child import ROOT, children
from tests.forked import Forked
from tests.waiting import wait_until

ENDED = ("done", "failed")

#: what a test's service differs in from the defaults
TEST_SETTINGS: dict[str, dict[str, object]] = {
    "server": {"port": 0},
    "queue": {"retry_seconds": 0.1},
    "worker": {"processes": 2, "threads": 4, "shutdown_seconds": 5},
    "download": {"allow_networks": "127.0.0.0/8 ::1/128", "connect_timeout": 2, "read_timeout": 2},
    "smtp": {"timeout": 2, "security": "none"},
}


#: for `enter`, where the start itself is tested or measured: executes a command as a shell does
EXECUTED = ["env"]


class Command:
    """One of the commands, running; its log can be read while it runs."""

    #: what Python is told to execute
    program = "from md5light.cli import {function}; {function}()"

    def __init__(
        self, log: Path, function: str, *arguments: str, cwd: Path, enter: Sequence[str] = ()
    ) -> None:
        self.log = log
        log.write_bytes(b"")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process: subprocess.Popen[bytes] | Forked
        if not enter:
            self.process = Forked(function, *arguments, cwd=cwd, env=environment, streams={2: log})
            return
        program = self.program.format(function=function)
        with log.open("a") as stderr:
            self.process = subprocess.Popen(
                [*enter, sys.executable, "-c", program, *arguments],
                stderr=stderr,
                cwd=cwd,
                env=environment,
            )

    @property
    def lines(self) -> str:
        return self.log.read_text()

    def wait_for_line(self, pattern: str) -> re.Match[str]:
        """Return the match of `pattern` in the log once it is there."""

        def look() -> re.Match[str] | None:
            match = re.search(pattern, self.lines)
            assert match or self.process.poll() is None, (
                f"ended with {self.process.returncode}: {self.lines}"
            )
            return match

        match = wait_until(look, message=f"{pattern} in {self.log}")
        assert match is not None
        return match

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 30) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def children(self) -> list[int]:
        return children(self.process.pid)

    def kill(self) -> None:
        """End the command and its children, if any are left, without any order."""
        running = self.process.poll() is None  # else its id may be another's by now
        for pid in [self.process.pid, *self.children()] if running else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


class Service:
    """A server and pools over one database in `folder`."""

    #: what its command lines begin with: a program that runs another in some place, or as somebody;
    #: without any, its commands are forked, which is quicker
    enter: Sequence[str] = ()

    def __init__(self, folder: Path, **settings: Mapping[str, object]) -> None:
        self.folder = folder
        self.config = folder / "config.ini"
        self.database = folder / "md5light.sqlite3"
        self.commands: list[Command] = []
        self.url = ""
        sections = {
            name: {**TEST_SETTINGS.get(name, {}), **settings.get(name, {})}
            for name in TEST_SETTINGS
        }
        self.config.write_text(
            "".join(
                f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in section.items())
                for name, section in sections.items()
            )
        )

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exc: object) -> None:
        for command in self.commands:
            command.kill()

    def start(self, function: str, *arguments: str) -> Command:
        log = self.folder / f"{function}-{len(self.commands)}.log"
        command = Command(
            log,
            function,
            "--config",
            str(self.config),
            *arguments,
            cwd=self.folder,
            enter=self.enter,
        )
        self.commands.append(command)
        return command

    def start_server(self, *arguments: str) -> Command:
        command = self.start("server", *arguments)
        self.url = command.wait_for_line(r"listening url=(http://\S+)")[1]
        return command

    def start_pool(self, *arguments: str) -> Command:
        command = self.start("worker", *arguments)
        command.wait_for_line("event=pool_started")
        return command

    def submit(self, url: str, **fields: str) -> str:
        answer = requests.post(f"{self.url}/submit", data={"url": url, **fields}, timeout=10)
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["id"]
        return job_id

    def check(self, job_id: str) -> requests.Response:
        return requests.get(f"{self.url}/check", params={"id": job_id}, timeout=10)

    def job(self, job_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = requests.get(f"{self.url}/jobs/{job_id}", timeout=10).json()
        return answer

    def result(self, job_id: str, timeout: float = 20) -> dict[str, Any]:
        """Return the body of /check once the job has ended."""

        def ended() -> dict[str, Any] | None:
            answer: dict[str, Any] = json.loads(self.check(job_id).text)
            return answer if answer["status"] in ENDED else None

        answer = wait_until(ended, timeout=timeout, message=f"the end of job {job_id}")
        assert answer is not None
        return answer

    def is_mailed(self, job_id: str) -> bool:
        return bool(self.job(job_id)["mail"] == "sent")

    def wait_for_mails(self, job_ids: Iterable[str]) -> None:
        """Return once the mail of each job was sent."""
        for job_id in job_ids:
            wait_until(partial(self.is_mailed, job_id), 60, f"the mail of job {job_id}")


@contextlib.contextmanager
def running(
    folder: Path, *pool_arguments: str, **settings: Mapping[str, object]
) -> Iterator[Service]:
    """Start a server and a pool."""
    with Service(folder, **settings) as service:
        service.start_server()
        service.start_pool(*pool_arguments)
        yield service
