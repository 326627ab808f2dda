"""A worker process as a whole: what ends it, what its leases stand, what costs a job nothing."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.child import Child
from tests.origin import Origin, Peer, reply
from tests.service import Service, running
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

SETTINGS = {
    "worker": {"processes": 1, "threads": 2, "shutdown_seconds": 5},
    "download": {"read_timeout": 20},
}


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as database:
        yield database


def run_sql(service: Service, statement: str) -> None:
    with opened(service.database) as database:
        database.execute(statement)


# --- nothing dies alone ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thread", "event"),
    [
        (
            "chores",
            "update of bytes_done on jobs when new.token = old.token and new.status = 'running'",
        ),
        ("slot", "update of status on jobs when new.status = 'done'"),
        ("mail_until_stopped", "update of status on outbox"),
    ],
)
def test_a_thread_that_breaks_ends_its_process_and_costs_its_neighbour_nothing(
    tmp_path: Path, thread: str, event: str
) -> None:
    """A constraint that no program knows of is an error that no thread expects."""
    when, _, condition = event.partition(" when ")
    trigger = (
        f"create trigger fault before {when} {'when ' + condition if condition else ''}"
        " begin select raise(abort, 'unforeseen'); end"
    )
    with Origin() as origin, running(tmp_path, **SETTINGS) as service:
        pool = service.commands[-1]
        (before,) = wait_until(pool.children)
        gate = origin.gate()

        def hold(peer: Peer) -> object:
            gate.wait(30)
            return peer.reply(b"held")

        neighbour = service.submit(origin.serve("/held", hold))
        wait_until(lambda: origin.requests("/held") == 1)
        run_sql(service, trigger)
        service.submit(origin.serve("/file", b"body"), email="ann@localhost")
        pool.wait_for_line(f"event=thread_broke worker=\\S+ thread={thread} traceback=")
        pool.wait_for_line("event=worker_died .*exit=1 ")
        run_sql(service, "drop trigger fault")
        gate.set()
        assert service.result(neighbour)["status"] == "done"
        assert service.job(neighbour)["attempts"] == 1
        assert before not in pool.children()
        assert "Traceback" not in re.sub("traceback=.*", "", pool.lines)


BROKEN = """
import os, sys, threading
from md5light import logs
from md5light.config import load
from md5light.queue import listen
from md5light.signals import StopSignals
from md5light.worker import Worker

config = load(sys.argv[1])
logs.setup(config.log)
worker = Worker(config, "w", listen(config.queue.database))
read, write = os.pipe()
threading.Timer(0.2, lambda: 1 / 0).start()
print(worker.run(StopSignals(), read))
"""


def test_a_thread_that_no_module_of_ours_started_ends_the_process_too(tmp_path: Path) -> None:
    with Service(tmp_path) as service, Child(BROKEN, service.config) as child:
        lines = [child.line() for _ in range(3)]
        assert "event=thread_broke worker=w thread=Thread-" in lines[0]
        assert "ZeroDivisionError" in lines[0]
        assert "event=stopping" in lines[1]
        assert lines[2] == "False"
        assert child.end() == 0


PURGING = """
import os, sqlite3, sys, threading
from md5light.config import load
from md5light.queue import listen, open_database
from md5light.signals import StopSignals
from md5light.worker import PURGE_AFTER_SECONDS, Worker

config = load(sys.argv[1])
after = float(sys.argv[2]) if sys.argv[2:] else PURGE_AFTER_SECONDS
worker = Worker(config, "w", listen(config.queue.database), purge_after=after)
signals = StopSignals()
read, write = os.pipe()
threading.Timer(1, os.close, [write]).start()
worker.run(signals, read)
with sqlite3.connect(config.queue.database) as database:
    print(database.execute("select count(*) from jobs").fetchone()[0])
"""


@pytest.mark.parametrize(("after", "left"), [([], "1"), ([0.1], "0")])
def test_old_jobs_are_removed_some_time_after_the_start(
    tmp_path: Path, after: list[float], left: str
) -> None:
    with Service(tmp_path, queue={"retention_days": 1, "lease_seconds": 1}) as service:
        service.start_server()
        job_id = service.submit("http://files.example.com/a")
        requests.delete(f"{service.url}/jobs/{job_id}", timeout=10)
        run_sql(service, f"update jobs set finished_at = {time.time() - 2 * 86400}")
        with Child(PURGING, service.config, *after) as child:
            lines = child.process.communicate(timeout=30)[0].splitlines()
        assert lines[-1] == left


# --- leases ---------------------------------------------------------------------------------------


#: makes each renewal of a first lease come too late
LATE = """
    create trigger late after update of due_at on jobs
    when new.token = old.token and new.attempts = 1 and new.due_at > 0
    begin update jobs set due_at = 0 where id = new.id; end
"""


def test_a_job_that_its_own_process_takes_again_runs_once_and_no_slot_dies(
    tmp_path: Path,
) -> None:
    with Origin() as origin, running(tmp_path, **SETTINGS) as service:
        stopped, gate = origin.gate(), origin.gate()

        def first_held(peer: Peer) -> object:
            if peer.number == 1:
                peer.send(reply(b"half", length=8))
                peer.wait_closed()
                stopped.set()
                return None
            gate.wait(30)
            return peer.reply(b"body")

        job_id = service.submit(origin.serve("/file", first_held))
        wait_until(lambda: origin.requests("/file") == 1)
        (worker,) = service.commands[-1].children()

        run_sql(service, LATE)
        wait_until(lambda: origin.requests("/file") == 2)
        assert stopped.wait(10)
        gate.set()
        assert service.result(job_id)["status"] == "done"
        work_side_by_side(service, origin)
        assert service.commands[-1].children() == [worker]


def work_side_by_side(service: Service, origin: Origin) -> None:
    """Let two downloads wait for each other: both slots are alive."""
    both = threading.Barrier(2, timeout=10)

    def meet(peer: Peer) -> object:
        both.wait()
        return peer.reply(b"met")

    for job_id in [service.submit(origin.serve(f"/{number}", meet)) for number in range(2)]:
        assert service.result(job_id)["status"] == "done"


def test_a_pool_that_was_stopped_for_longer_than_a_lease_loses_no_attempt(
    tmp_path: Path,
) -> None:
    settings = {
        "queue": {"lease_seconds": 1},
        "worker": {"processes": 3, "threads": 2},
        "download": {"read_timeout": 20},
    }
    with Origin() as origin, running(tmp_path, **settings) as service:
        gate = origin.gate()

        def hold(peer: Peer) -> object:
            gate.wait(30)
            return peer.reply(b"body")

        ids = [service.submit(origin.serve(f"/{number}", hold)) for number in range(3)]
        wait_until(lambda: origin.requests() == 3 and _count_workers(service) == 3)
        pool = service.commands[-1]
        processes = [pool.process.pid, *pool.children()]
        for _ in range(2):
            with stopped(processes):
                wait_until(lambda: _have_run_out(service, ids))
            wait_until(lambda: not _have_run_out(service, ids))
        gate.set()
        assert [service.result(job_id)["status"] for job_id in ids] == ["done"] * 3
        assert [service.job(job_id)["attempts"] for job_id in ids] == [1] * 3


@contextlib.contextmanager
def stopped(processes: list[int]) -> Iterator[None]:
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


def _count_workers(service: Service) -> int:
    """Count the workers that have had their first beat."""
    with opened(service.database) as database:
        return len(database.execute("select 1 from workers").fetchall())


def _have_run_out(service: Service, ids: list[str]) -> bool:
    """Tell whether all leases have run out."""
    with opened(service.database) as database:
        left = database.execute("select 1 from jobs where due_at > ?", [time.time()]).fetchall()
    return not left
