"""/metrics of a real service, read by Prometheus' own client."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from md5light.errors import PermanentFailure, TemporaryFailure
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.queue.outbox import Outbox
from md5light.queue.totals import ALIVE_SECONDS, Totals
from md5light.web.metrics import render
from tests.conftest import Clock
from tests.origin import Origin
from tests.service import Service, running
from tests.waiting import wait_until

MONITORING = Path(__file__).parent.parent / "scripts" / "monitoring"


def samples(service: Service) -> dict[str, float]:
    """Read the samples, by their name and labels as they are written."""
    answer = requests.get(f"{service.url}/metrics", timeout=10)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return parsed(answer.text)


def parsed(text: str) -> dict[str, float]:
    read = {}
    for family in text_string_to_metric_families(text):
        assert family.name.startswith("md5light_")
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sample.labels.items())
            read[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return read


@pytest.mark.slow
def test_the_metrics_tell_what_happened_and_survive_restarts(tmp_path: Path) -> None:
    with Origin() as origin, running(tmp_path, queue={"max_attempts": 1}) as service:
        done = [
            service.submit(origin.serve(f"/{n}", b"body"), email="ann@localhost") for n in range(3)
        ]
        ended = [*done, service.submit(origin.url("/missing"))]
        for job_id in ended:
            service.result(job_id)
        service.wait_for_mails(done)
        for command in service.commands:
            command.kill()
        service.start_server()
        canceled = service.submit(origin.url("/later"))
        requests.delete(f"{service.url}/jobs/{canceled}", timeout=10)
        service.submit(origin.url("/waiting"))
        read = samples(service)
    assert read["md5light_jobs_finished_total{status=done,code=}"] == 3
    assert read["md5light_jobs_finished_total{status=failed,code=http_status}"] == 1
    assert read["md5light_jobs_finished_total{status=canceled,code=}"] == 1
    assert read["md5light_hashed_bytes_total"] == 12
    assert read["md5light_mails_total{result=sent}"] == 3
    assert read["md5light_mails_waiting"] == 0
    assert read["md5light_jobs{status=queued}"] == 1
    assert read["md5light_jobs{status=running}"] == 0
    assert read["md5light_job_duration_seconds_count"] == 4
    assert read["md5light_job_duration_seconds_bucket{le=+Inf}"] == 4


@pytest.mark.slow
def test_living_workers_are_counted(tmp_path: Path) -> None:
    with running(tmp_path, "--processes", "2") as service:
        wait_until(lambda: samples(service)["md5light_workers"] == 2)
        ready = requests.get(f"{service.url}/readyz", timeout=10).json()
        assert 0 <= ready["last_worker_sign_seconds"] < 60
        assert service.commands[-1].stop() == 0
        assert samples(service)["md5light_workers"] == 0


def test_a_worker_that_was_killed_is_not_alive_for_long(database: Database, clock: Clock) -> None:
    totals = Totals(database)
    assert totals.snapshot().last_sign_seconds is None
    totals.heartbeat("w1")
    clock.pass_(ALIVE_SECONDS - 1)
    assert (totals.snapshot().workers_alive, totals.snapshot().last_sign_seconds) == (
        1,
        ALIVE_SECONDS - 1,
    )
    clock.pass_(1)
    assert totals.snapshot().workers_alive == 0


@pytest.mark.parametrize("seconds", [0, 30, 100])
def test_the_oldest_waiting_job_has_its_age(
    database: Database, queue: Queue, clock: Clock, seconds: int
) -> None:
    queue.submit("http://files.example.com/a", "files.example.com")
    clock.pass_(seconds)
    queue.submit("http://files.example.com/b", "files.example.com")
    read = parsed(render(Totals(database).snapshot()))
    assert read["md5light_oldest_waiting_seconds"] == seconds
    assert read["md5light_jobs{status=queued}"] == 2


def test_a_clock_that_was_set_back_makes_no_sum_negative(
    database: Database, queue: Queue, clock: Clock
) -> None:
    queue.submit("http://files.example.com/a", "files.example.com")
    job = queue.claim("w1")
    assert job is not None
    clock.pass_(-1000)
    queue.settle(job, PermanentFailure("http_status", "The server answered with status 404."))
    read = parsed(render(Totals(database).snapshot()))
    assert read["md5light_jobs_finished_total{status=failed,code=http_status}"] == 1
    assert read["md5light_job_duration_seconds_sum"] == 0


def test_a_mail_that_fails_for_a_day_is_counted(
    database: Database, queue: Queue, outbox: Outbox, clock: Clock
) -> None:
    queue.submit("http://files.example.com/a", "files.example.com", "ann@example.com")
    job = queue.claim("w1")
    assert job is not None
    queue.settle(job, PermanentFailure("http_status", "The server answered with status 404."))
    mail = outbox.claim("w1")
    assert mail is not None
    outbox.failed(mail, TemporaryFailure("connection_failed", "The mail server did not answer."))
    for seconds, failing in ((86_000, 0), (401, 1)):
        clock.pass_(seconds)
        read = parsed(render(Totals(database).snapshot()))
        assert read["md5light_mails_failing"] == failing
    assert read["md5light_oldest_mail_seconds"] == 86_401


@pytest.mark.parametrize("file", ["alerts.yml", "dashboard.json"])
def test_dashboard_and_alerts_ask_for_metrics_that_exist(database: Database, file: str) -> None:
    asked = set(re.findall(r"md5light_\w+", (MONITORING / file).read_text(encoding="utf-8")))
    read = render(Totals(database).snapshot())
    assert asked
    assert [name for name in asked if f"\n{name}{{" not in read and f"\n{name} " not in read] == []


def test_the_dashboard_is_json() -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
