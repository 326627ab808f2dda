"""The whole service as its users meet it: real commands, real servers, real signals."""

from __future__ import annotations

import contextlib
import hashlib
import mailbox
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.origin import Origin, Peer, reply
from tests.postbox import Postbox
from tests.service import Command, Service, running
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that no test stops; it notices cancels three times in a lease."""
    queue = {"max_attempts": 3, "lease_seconds": 1}
    with running(tmp_path_factory.mktemp("service"), queue=queue) as service:
        yield service


def test_a_url_becomes_an_md5(origin: Origin, service: Service) -> None:
    body = os.urandom(300_000)
    url = origin.serve("/file", body)
    job_id = service.submit(url)
    service.result(job_id)
    answer = service.check(job_id)
    assert answer.status_code == 200
    assert answer.text == f'{{"md5":"{md5(body)}","status":"done","url":"{url}"}}\n'
    job = service.job(job_id)
    assert (job["size"], job["bytes_done"], job["attempts"]) == (300_000, 300_000, 1)
    command = f"curl -sL {url} | md5sum"
    printed = subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout
    assert printed.split()[0].decode() == md5(body)


def test_a_failure_is_told(origin: Origin, service: Service) -> None:
    url = origin.url("/missing")
    job_id = service.submit(url)
    service.result(job_id)
    answer = service.check(job_id)
    assert answer.status_code == 424
    assert answer.json()["status"] == "failed"
    assert answer.json()["url"] == url
    assert answer.json()["error"]["code"] == "http_status"
    assert "404" in answer.json()["error"]["message"]


def test_a_temporary_failure_is_tried_again(origin: Origin, service: Service) -> None:
    def twice_busy(peer: Peer) -> object:
        return peer.reply(b"later", "503 Busy") if peer.number < 3 else peer.reply(b"at last")

    job_id = service.submit(origin.serve("/busy", twice_busy))
    assert service.result(job_id)["md5"] == md5(b"at last")
    assert service.job(job_id)["attempts"] == 3


def test_a_slow_server_is_given_twice_the_time_after_a_time_out(tmp_path: Path) -> None:
    """A body is silent for longer than read_timeout, a first byte comes later than its time."""

    def silent(peer: Peer) -> object:
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n")
        time.sleep(0.6)
        peer.send(b"hello\r\n0\r\n\r\n")
        return True

    def late(peer: Peer) -> object:
        time.sleep(0.6)
        return peer.reply(b"hello")

    limits = {"read_timeout": 0.2, "first_byte_timeout": 0.2}
    with (
        Origin() as one,
        Origin(host="127.0.0.2") as other,
        running(tmp_path, download=limits) as service,
    ):
        ids = [service.submit(one.serve("/", silent)), service.submit(other.serve("/", late))]
        assert [service.result(job_id)["md5"] for job_id in ids] == [md5(b"hello")] * 2
        assert [service.job(job_id)["attempts"] for job_id in ids] == [3] * 2


def test_a_truncated_file_never_gets_a_checksum(origin: Origin, service: Service) -> None:
    job_id = service.submit(origin.serve("/cut", reply(b"half", length=8)))
    assert service.result(job_id)["error"]["code"] == "incomplete"


def test_mails_are_kept_where_there_is_no_mail_server(origin: Origin, service: Service) -> None:
    job_id = service.submit(origin.serve("/file", b"body"), email="ann@localhost")
    wait_until(lambda: service.job(job_id)["mail"] == "sent")
    (mail,) = mailbox.Maildir(service.folder / "md5light-mail", create=False)
    assert mail["To"] == "ann@localhost"
    assert md5(b"body") in str(mail)


def test_a_mail_server_that_is_down_loses_nothing(tmp_path: Path) -> None:
    with Origin() as origin, Postbox() as postbox:
        smtp = {"host": postbox.host, "port": postbox.port}
        with running(tmp_path, smtp={**smtp, "sender": "md5@example.org"}) as service:
            done = service.submit(origin.serve("/file", b"body"), email="ann@example.com")
            failed = service.submit(origin.url("/missing"), email="bob@example.com")
            wait_until(lambda: len(postbox.mails) == 2)
            mails = {mail.recipients[0]: mail for mail in postbox.mails}
            assert md5(b"body") in mails["ann@example.com"].text
            assert "404" in mails["bob@example.com"].text
            assert f"/jobs/{done}" in mails["ann@example.com"].text
            wait_until(lambda: service.job(failed)["mail"] == "sent")


def test_a_job_that_was_running_when_everything_was_killed_is_done_after_a_restart(
    tmp_path: Path,
) -> None:
    body = os.urandom(100_000)
    with Origin() as origin, Service(tmp_path, queue={"lease_seconds": 1}) as service:
        gate = origin.gate()

        def hold(peer: Peer) -> object:
            if peer.number == 1:
                peer.send(reply(body[:5000], length=len(body)))
                gate.wait(30)
                return None
            return peer.reply(body)

        server, pool = service.start_server(), service.start_pool()
        job_id = service.submit(origin.serve("/file", hold))
        waiting = [service.submit(origin.serve(f"/{n}", b"%d" % n)) for n in range(5)]
        wait_until(lambda: service.job(job_id)["status"] == "running" and origin.requests("/file"))
        for command in (pool, server):
            command.kill()
        service.start_server()
        service.start_pool()
        assert service.result(job_id)["md5"] == md5(body)
        assert service.job(job_id)["attempts"] == 2
        assert [service.result(one)["md5"] for one in waiting] == [md5(b"%d" % n) for n in range(5)]


def test_a_killed_worker_is_replaced_and_its_job_runs_again(tmp_path: Path) -> None:
    with (
        Origin() as origin,
        running(tmp_path, "--processes", "1", queue={"lease_seconds": 60}) as service,
    ):
        gate = origin.gate()

        def hold(peer: Peer) -> object:
            if peer.number == 1:
                gate.wait(30)
                return None
            return peer.reply(b"body")

        job_id = service.submit(origin.serve("/file", hold))
        wait_until(lambda: origin.requests("/file") == 1)
        pool = service.commands[-1]
        (child,) = pool.children()
        os.kill(child, signal.SIGKILL)
        assert service.result(job_id, timeout=5)["md5"] == md5(b"body")
        assert pool.children() not in ([child], [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopping_pool_lets_downloads_finish(tmp_path: Path, number: signal.Signals) -> None:
    with Origin() as origin, running(tmp_path) as service:
        gate = origin.gate()

        def slow(peer: Peer) -> object:
            gate.wait(30)
            return peer.reply(b"body")

        job_id = service.submit(origin.serve("/slow", slow))
        wait_until(lambda: origin.requests("/slow"))
        pool = service.commands[-1]
        pool.process.send_signal(number)
        wait_until(lambda: pool.lines.count("event=stopping") == 2)
        late = service.submit(origin.serve("/late", b"late"))
        gate.set()
        assert pool.process.wait(10) == 0
        assert service.check(job_id).json()["md5"] == md5(b"body")
        assert service.job(late)["status"] == "queued"


def test_the_shortest_lease_is_renewed_in_time(tmp_path: Path) -> None:
    def take_two_seconds(peer: Peer) -> None:
        peer.send(reply(length=40))
        peer.drip(b"x" * 40)

    queue = {"lease_seconds": 1}
    with Origin() as origin, running(tmp_path, "--processes", "3", queue=queue) as service:
        started = time.monotonic()

        def submit(number: int) -> str:
            """Submit at a moment between two renewals that is another one for each job."""
            wait_until(lambda: time.monotonic() >= started + number / 8)
            return service.submit(origin.serve(f"/{number}", take_two_seconds))

        ids = [submit(number) for number in range(8)]
        assert {service.result(job_id)["status"] for job_id in ids} == {"done"}
        assert origin.requests() == len(ids)


def test_a_stopping_pool_gives_back_what_does_not_finish(tmp_path: Path) -> None:
    with (
        Origin() as origin,
        running(tmp_path, worker={"processes": 1, "shutdown_seconds": 0}) as service,
    ):
        gate = origin.gate()
        job_id = service.submit(origin.serve("/slow", lambda peer: gate.wait(30)))
        wait_until(lambda: origin.requests("/slow"))
        assert service.commands[-1].stop() == 0
        job = service.job(job_id)
        assert (job["status"], job["attempts"]) == ("queued", 0)


def test_a_second_signal_stops_at_once_and_loses_nothing(tmp_path: Path) -> None:
    with Origin() as origin, running(tmp_path, worker={"shutdown_seconds": 60}) as service:
        gate = origin.gate()
        job_id = service.submit(
            origin.serve(
                "/slow", lambda peer: peer.reply(b"body") if peer.number > 1 else gate.wait(30)
            )
        )
        wait_until(lambda: origin.requests("/slow"))
        pool = service.commands[-1]
        children = pool.children()
        pool.process.send_signal(signal.SIGTERM)
        pool.process.send_signal(signal.SIGINT)
        assert pool.process.wait(5) == 1
        assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
        service.start_pool()
        assert service.result(job_id)["md5"] == md5(b"body")


def test_a_canceled_download_stops_within_seconds(origin: Origin, service: Service) -> None:
    closed = origin.gate()

    def endless(peer: Peer) -> object:
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                peer.throttle(b"x" * 1000, 20_000)
        closed.set()
        return None

    job_id = service.submit(origin.serve("/endless", endless))
    wait_until(lambda: service.job(job_id)["bytes_done"] > 0)
    assert requests.delete(f"{service.url}/jobs/{job_id}", timeout=10).status_code == 200
    assert closed.wait(5)
    assert service.job(job_id)["status"] == "canceled"


def test_each_change_of_a_jobs_state_is_one_line(tmp_path: Path) -> None:
    with (
        Origin() as origin,
        Origin(host="127.0.0.2") as other,  # what one host says holds up no job of the other
        running(tmp_path, "--processes", "1", queue={"max_attempts": 2}) as service,
    ):
        hold = other.serve("/", lambda peer: peer.wait_closed())
        busy = origin.serve(
            "/", lambda peer: peer.reply(b"body", "503 Busy" if peer.number == 1 else "200 OK")
        )
        jobs = {"retried": service.submit(busy), "lost": service.submit(hold)}
        service.result(jobs["retried"])
        for attempt in (1, 2):
            wait_until(lambda attempt=attempt: other.requests() == attempt)  # type: ignore[misc]
            os.kill(service.commands[-1].children()[0], signal.SIGKILL)
        service.result(jobs["lost"])
        jobs["canceled"] = service.submit(hold)
        wait_until(lambda: other.requests() == 3)
        requests.delete(f"{service.url}/jobs/{jobs['canceled']}", timeout=10)
        assert service.commands[-1].stop() == 0
        lines = "".join(command.lines for command in service.commands)
    assert {
        name: re.findall(rf"event=(\w+) job={job_id}", lines) for name, job_id in jobs.items()
    } == {
        "retried": ["submitted", "started", "retrying", "started", "done"],
        "lost": ["submitted", "started", "started", "failed"],
        "canceled": ["submitted", "canceled", "started"],  # the server's lines stand first here
    }


def test_burst_works_until_nothing_is_due(tmp_path: Path) -> None:
    with Origin() as origin, Service(tmp_path) as service:
        service.start_server()
        ids = [
            service.submit(origin.serve(f"/{n}", b"%d" % n), email="ann@localhost")
            for n in range(20)
        ]
        later = service.submit(origin.serve("/busy", reply(b"", "503 Busy", "Retry-After: 600")))
        assert service.start("worker", "--burst").process.wait(20) == 0
        assert [service.check(job_id).json().get("md5") for job_id in ids] == [
            md5(b"%d" % n) for n in range(20)
        ]
        assert all(service.job(job_id)["mail"] == "sent" for job_id in ids)
        assert service.job(later)["status"] == "queued"
        assert int(service.check(later).headers["Retry-After"]) == 60


def test_nothing_is_lost_while_workers_are_killed(tmp_path: Path) -> None:
    """Every job is done once with the right MD5, whatever happens to the processes that do them."""
    files = {f"/{n}": os.urandom(1024) for n in range(100)}
    with (
        Origin() as origin,
        running(tmp_path, queue={"max_attempts": 50, "retry_seconds": 0.1}) as service,
    ):
        ids = {}
        for number, (path, body) in enumerate(files.items()):
            ids[service.submit(origin.serve(path, body), email="ann@localhost")] = body
            if number % 20 == 10:
                kill_worker(service.commands[-1])
        for job_id, body in ids.items():
            assert service.result(job_id, timeout=60)["md5"] == md5(body)
        service.wait_for_mails(ids)
        with contextlib.closing(sqlite3.connect(service.database)) as database:
            assert database.execute("pragma integrity_check").fetchall() == [("ok",)]


def kill_worker(pool: Command) -> None:
    """Kill one of the pool's workers, in the middle of its work, and return when it is gone."""
    victim = wait_until(pool.children)[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in pool.children())
