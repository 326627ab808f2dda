"""What the server notices by itself: outages of the database, jobs that no worker takes."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from md5light.queue import open_database
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.queue.totals import ALIVE_SECONDS, Totals
from md5light.web.health import WAIT_SECONDS, Health
from tests.application import application
from tests.conftest import Clock
from tests.service import Service
from tests.waiting import wait_until

URL = "http://files.example.com/a"


@pytest.fixture
def health(database: Database, queue: Queue) -> Health:
    return Health(queue, Totals(database))


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "health" in record.name]


def test_a_missing_worker_is_told_once_and_its_return_once(
    health: Health,
    database: Database,
    queue: Queue,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    health.look()
    queue.submit(URL, "files.example.com")
    clock.pass_(WAIT_SECONDS - 0.1)
    health.look()
    assert (health.no_worker, events(caplog)) == (False, [])
    clock.pass_(0.1)
    for _ in range(3):
        health.look()
    assert (health.no_worker, events(caplog)) == (True, ["no_worker"])
    Totals(database).heartbeat("w1")
    for _ in range(3):
        health.look()
    assert (health.no_worker, events(caplog)) == (False, ["no_worker", "no_worker_ended"])


def test_a_worker_that_vanished_with_its_job_is_missed(
    health: Health, database: Database, queue: Queue, clock: Clock
) -> None:
    Totals(database).heartbeat("w1")
    queue.submit(URL, "files.example.com")
    assert queue.claim("w1")
    clock.pass_(ALIVE_SECONDS - 1)
    health.look()
    assert not health.no_worker
    clock.pass_(1)
    health.look()
    assert health.no_worker


@pytest.mark.parametrize("end", [Queue.cancel, lambda queue, job_id: None])
def test_without_a_job_nobody_misses_a_worker(
    health: Health, queue: Queue, clock: Clock, end: Callable[[Queue, str], object]
) -> None:
    job_id = queue.submit(URL, "files.example.com")
    end(queue, job_id)
    clock.pass_(WAIT_SECONDS)
    health.look()
    assert health.no_worker == (end is not Queue.cancel)


def test_a_missing_worker_is_told_by_readiness_page_and_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with (
        contextlib.closing(open_database(str(tmp_path / "db"), durable=True)) as database,
        application(database, look_seconds=0.02) as app,
    ):
        job = requests.post(f"{app.url}/submit", data={"url": URL}, timeout=10).json()["id"]
        assert "warning" not in requests.get(f"{app.url}/readyz", timeout=10).json()
        database.write(
            lambda transaction: transaction.run("update jobs set created_at = created_at - 60")
        )
        ready = requests.get(f"{app.url}/readyz", timeout=10)
        assert (ready.status_code, ready.json()["warning"]) == (200, "no worker is running")
        app.health.start()
        wait_until(lambda: "no_worker" in events(caplog))
        for path in ("/", f"/jobs/{job}"):
            page = requests.get(app.url + path, headers={"Accept": "text/html"}, timeout=10)
            assert "No worker is running" in page.text
        Totals(database).heartbeat("w1")
        wait_until(lambda: "no_worker_ended" in events(caplog))
        assert "warning" not in requests.get(f"{app.url}/readyz", timeout=10).json()
        assert app.health.close(10)
    told = [record for record in caplog.records if record.getMessage() == "no_worker"]
    assert [record.levelname for record in told] == ["WARNING"]


@pytest.mark.slow
def test_an_outage_of_the_database_stores_nothing_and_is_two_lines(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        server = service.start_server()
        with contextlib.closing(sqlite3.connect(service.database, isolation_level=None)) as other:
            other.execute("begin exclusive")
            with ThreadPoolExecutor(8) as pool:
                urls = [f"{service.url}/readyz"] * 3
                asked = [pool.submit(requests.get, url, timeout=40) for url in urls]
                data = {"url": URL}
                sent = pool.submit(requests.post, f"{service.url}/submit", data=data, timeout=40)
                answers = [each.result() for each in (*asked, sent)]
        for answer in answers:
            assert (answer.status_code, answer.json()["error"]["code"]) == (
                503,
                "database_unavailable",
            )
        assert int(answers[-1].headers["Retry-After"]) > 0
        server.wait_for_line("level=info event=database_available seconds=")
        with contextlib.closing(sqlite3.connect(service.database)) as database:
            assert database.execute("select count(*) from jobs").fetchone() == (0,)
        service.submit(URL)
        wait_until(lambda: requests.get(f"{service.url}/readyz", timeout=10).status_code == 200)
        assert server.lines.count("event=database_unavailable") == 1
        assert server.lines.count("event=database_available") == 1
