"""Nothing that a client was told is lost, whatever happens to processes, disk and clock."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from datetime import datetime
from pathlib import Path

import pytest
import requests

from md5light.errors import TemporaryFailure
from md5light.job import Hashed
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.queue.outbox import Outbox
from tests.conftest import Clock, MakeQueue
from tests.fire import Fire, full_disk, is_alive, kill_alone
from tests.origin import Origin, Peer
from tests.service import Service, running
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

URL = "http://files.example.com/a"
HASHED = Hashed("f4afe93ad799484b1d512cc20e93efd1", 7, URL, None, None, None)


def test_nothing_is_lost_under_fire(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # shown when the test fails
    with Fire(tmp_path, seed=seed) as fire:
        fire.rage(rounds=8)
        fire.check()


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        server = service.start_server()
        service.submit(URL)
        with full_disk(server):
            answer = requests.post(f"{service.url}/submit", data={"url": URL}, timeout=20)
            assert (answer.status_code, answer.json()["error"]["code"]) == (
                503,
                "database_unavailable",
            )
            assert answer.headers["Retry-After"]
        service.submit(URL)


def test_a_deleted_database_is_refused_until_new_processes_open_a_new_one(tmp_path: Path) -> None:
    with Origin() as origin, running(tmp_path) as service:
        server, pool = service.commands
        url = origin.serve("/file", b"body")
        assert service.result(service.submit(url))["status"] == "done"
        for file in tmp_path.glob("md5light.sqlite3*"):
            file.unlink()
        answer = requests.post(f"{service.url}/submit", data={"url": url}, timeout=20)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_unavailable")
        assert server.process.wait(30) == 1
        assert "event=database_replaced" in server.lines
        pool.wait_for_line("event=worker_died")
        service.start_server()
        job_id = service.submit(url)
        assert service.result(job_id, timeout=60)["status"] == "done"
        assert pool.process.poll() is None


def test_a_worker_taken_for_dead_that_comes_back_writes_nothing(tmp_path: Path) -> None:
    with Origin() as origin, Service(tmp_path, queue={"lease_seconds": 1}) as service:
        gate = origin.gate()

        def changing(peer: Peer) -> object:
            if peer.number == 1:
                gate.wait(30)
                return peer.reply(b"what the stopped worker gets")
            return peer.reply(b"body")

        service.start_server()
        stale = service.start_pool("-v", "--processes", "1")
        job_id = service.submit(origin.serve("/file", changing), email="ann@localhost")
        wait_until(lambda: origin.requests("/file") == 1)
        (worker,) = stale.children()
        os.kill(worker, signal.SIGSTOP)
        service.start_pool()
        service.result(job_id)
        wait_until(lambda: service.job(job_id)["mail"] == "sent")
        before = service.job(job_id)
        gate.set()
        os.kill(worker, signal.SIGCONT)
        stale.wait_for_line(f"event=lost job={job_id}")
        assert service.job(job_id) == before
        assert before["attempts"] == 2
        assert len(list((tmp_path / "md5light-mail" / "new").iterdir())) == 1


def test_the_workers_of_a_killed_pool_end_and_their_jobs_run_again(tmp_path: Path) -> None:
    worker = {"processes": 2, "threads": 4, "shutdown_seconds": 0.5}
    queue = {"lease_seconds": 2}
    with Origin() as origin, running(tmp_path, queue=queue, worker=worker) as service:
        gate = origin.gate()
        job_id = service.submit(
            origin.serve(
                "/file", lambda peer: peer.reply(b"body") if peer.number > 1 else gate.wait(30)
            )
        )
        wait_until(lambda: origin.requests("/file") == 1)
        orphans = kill_alone(service.commands[-1])
        service.start_pool()
        assert service.result(job_id)["status"] == "done"
        assert service.job(job_id)["attempts"] <= 2
        wait_until(lambda: not any(map(is_alive, orphans)))


def test_a_job_that_kills_its_workers_is_given_up_and_the_others_are_done(tmp_path: Path) -> None:
    with (
        Origin() as origin,
        running(
            tmp_path, "--processes", "1", "--threads", "1", queue={"max_attempts": 2}
        ) as service,
    ):
        pool = service.commands[-1]

        def deadly(peer: Peer) -> None:
            for child in pool.children():
                os.kill(child, signal.SIGKILL)

        fatal = service.submit(origin.serve("/deadly", deadly))
        harmless = service.submit(origin.serve("/file", b"body"))
        assert service.result(fatal)["error"]["code"] == "worker_lost"
        assert service.job(fatal)["attempts"] == 2
        assert origin.requests("/deadly") == 2
        assert service.result(harmless)["status"] == "done"


def test_a_pool_whose_workers_die_at_once_slows_down(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        pool = service.start_pool("--processes", "1")
        dead: list[int] = []
        for _ in range(4):
            (child,) = wait_until(lambda: [child for child in pool.children() if child not in dead])
            dead.append(child)
            os.kill(child, signal.SIGKILL)
            wait_until(lambda: pool.lines.count("event=worker_died") == len(dead))
        times = re.findall(r"time=(\S+)Z level=\w+ event=worker_died", pool.lines)
        first, *_, last = [datetime.fromisoformat(time) for time in times]
        assert (last - first).total_seconds() >= 3  # pauses of none, one and two seconds


@pytest.mark.parametrize("jump", [-86400, -60, 60, 86400])
def test_a_clock_that_jumps_keeps_no_job_from_its_end(
    make_queue: MakeQueue, clock: Clock, jump: float
) -> None:
    queue = make_queue(max_attempts=3)
    ids = [queue.submit(URL, "files.example.com") for _ in range(2)]
    running = queue.claim("alive")
    assert running is not None
    clock.pass_(jump)
    queue.clamp_due_at()
    assert queue.settle(running, HASHED)[0] == "done"
    waiting = queue.claim("w2")
    assert waiting is not None
    assert {running.id, waiting.id} == set(ids)


@pytest.mark.parametrize("jump", [-86400, -120])
def test_a_clock_set_back_makes_no_lease_longer(
    queue: Queue, outbox: Outbox, clock: Clock, jump: float
) -> None:
    for _ in range(2):
        queue.submit(URL, "files.example.com", "ann@example.com")
    finished = queue.claim("w1")
    assert finished is not None
    queue.settle(finished, HASHED)
    dead = queue.claim("dead")
    assert dead is not None
    assert outbox.claim("dead") is not None
    clock.pass_(jump)
    queue.clamp_due_at()
    outbox.clamp_due_at()
    assert queue.claim("w2") is None
    clock.pass_(60)
    job, mail = queue.claim("w2"), outbox.claim("w2")
    assert job is not None
    assert mail is not None
    assert (job.id, mail.subject) == (dead.id, finished.id)


def test_clamping_leaves_jobs_that_may_wait(queue: Queue) -> None:
    queue.submit(URL, "files.example.com")
    assert queue.claim("w1")
    for _ in range(2):
        queue.submit(URL, "files.example.com")
    job = queue.claim("w1")
    assert job is not None
    queue.settle(job, TemporaryFailure("http_status", "503", retry_after=3600))
    assert queue.clamp_due_at() == 0


def test_removing_old_jobs_never_holds_up_a_claim(
    database: Database, queue: Queue, clock: Clock
) -> None:
    ended = """
        insert into jobs (id, url, host, status, max_attempts, created_at, finished_at)
        values (:id, 'http://a/b', 'a', 'canceled', 5, :now, :now)
    """
    rows = [{"id": str(number)} for number in range(5000)]
    database.write(lambda transaction: transaction.run_many(ended, rows))
    clock.pass_(1000)
    waiting = [queue.submit(URL, "files.example.com") for _ in range(3)]
    purged: list[int] = []

    def purge() -> None:
        while removed := queue.purge(999, rows=10):
            purged.append(removed)

    purging = threading.Thread(target=purge)
    purging.start()
    wait_until(lambda: purged)
    claimed = [queue.claim("w1") for _ in waiting]
    amid = purging.is_alive()
    purging.join()
    assert amid
    assert {job.id for job in claimed if job} == set(waiting)
    assert purged == [10] * 500
