"""A service under fire: jobs flow in while its processes are killed, stopped or lose the database.

    with Fire(tmp_path, seed=7) as fire:
        fire.rage(rounds=10)
        fire.check()

`rage` does one harm after the other, drawn by `seed`; `check` lets the service recover and compares
it with all that clients were told: an id that was answered with 202 is done with the right MD5, and
its mail was sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import resource
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import requests

from tests.origin import Origin
from tests.postbox import Postbox
from tests.service import Command, Service
from tests.waiting import wait_until

LEASE_SECONDS = 1

#: the service as fire needs it: everything comes again soon, and nothing is given up
SETTINGS: dict[str, dict[str, object]] = {
    "queue": {"lease_seconds": LEASE_SECONDS, "retry_seconds": 0.1, "max_attempts": 1000},
    "worker": {"processes": 2, "threads": 4},
}


class Fire:
    """An origin, a postbox, a service between them, and a client that submits without a pause."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        self._random = random.Random(seed)
        self._origin = Origin()
        self._postbox = Postbox()
        self._exits = contextlib.ExitStack()
        self._folder = folder
        self._quiet = threading.Event()
        #: body of the file of each job that was answered with 202, by the job's id
        self.accepted: dict[str, bytes] = {}
        #: how often the server gave another answer, or none
        self.refused: Counter[int] = Counter()
        #: how many of the harms may have fallen between a mail server's answer and our note of it
        self.kills = 0

    def __enter__(self) -> Fire:
        self._exits.enter_context(self._origin)
        self._exits.enter_context(self._postbox)
        smtp = {
            "host": self._postbox.host,
            "port": self._postbox.port,
            "sender": "md5@example.org",
        }
        self.service = self._exits.enter_context(Service(self._folder, smtp=smtp, **SETTINGS))
        self._server, self._pool = self.service.start_server(), self.service.start_pool()
        self._client = threading.Thread(target=self._submit_until_quiet, name="client")
        self._exits.callback(self._calm)
        self._client.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._exits.close()

    def rage(self, rounds: int) -> None:
        """Do `rounds` harms, each once jobs have been accepted since the one before."""
        harms = [
            self._kill_worker,
            self._kill_pool,
            self._kill_server,
            self._lock,
            self._fill_disk,
            self._stop_worker,
        ]
        for turn in range(rounds):
            known = len(self.accepted)
            wait_until(lambda known=known: len(self.accepted) > known + 5, timeout=30)  # type: ignore[misc]
            harm = harms[turn] if turn < len(harms) else self._random.choice(harms)
            harm()

    def check(self) -> None:
        """Hold what the service did against what it promised."""
        self._calm()
        for job_id, body in self.accepted.items():
            assert (
                self.service.result(job_id, timeout=60).get("md5") == hashlib.md5(body).hexdigest()
            )
        self.service.wait_for_mails(self.accepted)
        self._check_mails()
        with contextlib.closing(sqlite3.connect(self.service.database)) as database:
            assert database.execute("pragma integrity_check").fetchall() == [("ok",)]

    def _check_mails(self) -> None:
        sent = Counter(
            (mail.recipients[0], mail.message["Message-ID"]) for mail in self._postbox.mails
        )
        assert len(sent) >= len(
            self.accepted
        )  # a job whose 202 was lost with its server may be done as well
        assert set(sent.values()) <= {1, 2}
        assert len({recipient for recipient, _ in sent}) == len(sent), (
            "a second mail must be recognised by its id"
        )
        assert sum(count - 1 for count in sent.values()) <= self.kills * 2

    # --- the client -------------------------------------------------------------------------------

    def _submit_until_quiet(self) -> None:
        number = 0
        while not self._quiet.is_set():
            number += 1
            body = b"file %d" % number
            url = self._origin.serve(f"/{number}", body)
            try:
                answer = requests.post(
                    f"{self.service.url}/submit",
                    data={"url": url, "email": f"n{number}@example.com"},
                    timeout=20,
                )
            except requests.RequestException:
                self.refused[0] += 1
                self._quiet.wait(0.05)
                continue
            if answer.status_code == 202:
                self.accepted[answer.json()["id"]] = body
            else:
                self.refused[answer.status_code] += 1
            self._quiet.wait(0.01)

    def _calm(self) -> None:
        self._quiet.set()
        self._client.join()

    # --- the harms --------------------------------------------------------------------------------

    def _worker(self) -> int:
        return self._random.choice(wait_until(self._pool.children))

    def _kill_worker(self) -> None:
        self.kills += 1
        os.kill(self._worker(), signal.SIGKILL)

    def _kill_pool(self) -> None:
        """Kill the pool's process alone: its children have to notice."""
        self.kills += 1
        orphans = kill_alone(self._pool)
        self._pool = self.service.start_pool()
        wait_until(lambda: not any(map(is_alive, orphans)))

    def _kill_server(self) -> None:
        self._server.kill()
        self._server = self.service.start_server()

    def _lock(self) -> None:
        """Hold the database's lock while jobs are refused or wait."""
        with contextlib.closing(
            sqlite3.connect(self.service.database, timeout=10, isolation_level=None)
        ) as database:
            database.execute("begin immediate")
            self._quiet.wait(self._random.uniform(0.3, 1))
            database.execute("rollback")

    def _fill_disk(self) -> None:
        """Let the server's files grow no more until it has refused a job for that."""
        refused = self.refused[503]
        with full_disk(self._server):
            wait_until(lambda: self.refused[503] > refused, timeout=30)

    def _stop_worker(self) -> None:
        """Freeze a worker for longer than its lease."""
        self.kills += 1
        worker = self._worker()
        os.kill(worker, signal.SIGSTOP)
        self._quiet.wait(LEASE_SECONDS + 0.2)
        os.kill(worker, signal.SIGCONT)


def kill_alone(pool: Command) -> list[int]:
    """Kill a pool's process and leave its children, whose ids are returned, to themselves."""
    children = pool.children()
    pool.process.kill()
    pool.process.wait(10)
    return children


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has buried yet does not (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def full_disk(command: Command) -> Iterator[None]:
    """Let no write of the command's process succeed for the block, as on a full disk."""
    limits = resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, limits)
