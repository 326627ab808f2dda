"""The pool: what it survives, what it says, and that it always ends."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from tests.child import AS_PID_1, children
from tests.fire import is_alive
from tests.origin import Origin
from tests.postbox import HANG_UP, ScriptedPostbox
from tests.service import Command, Service, running
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

#: a user with no other processes, for whom a limit on their number counts
NOBODY = 65533


def as_nobody(service: Service) -> None:
    """Let the commands of `service` run without root's privileges, which no limit holds for."""
    if os.getuid() == 0:
        os.chown(service.folder, NOBODY, NOBODY)
        service.enter = [
            "setpriv",
            f"--reuid={NOBODY}",
            f"--regid={NOBODY}",
            "--clear-groups",
            "--inh-caps=-all,+dac_override",
            "--ambient-caps=-all,+dac_override",
        ]


def limit_processes(service: Service, command: Command, most: int) -> None:
    """Let the command's process fork only while its user has fewer than `most` processes."""
    soft = f"--nproc={'unlimited' if most < 0 else most}:"
    subprocess.run([*service.enter, "prlimit", f"--pid={command.process.pid}", soft], check=True)


def open_descriptors(command: Command) -> int:
    return len(os.listdir(f"/proc/{command.process.pid}/fd"))


def kill_one(pool: Command) -> int:
    victim = wait_until(pool.children)[0]
    os.kill(victim, signal.SIGKILL)
    return victim


def test_a_fork_that_fails_is_tried_again(tmp_path: Path) -> None:
    with Origin() as origin, Service(tmp_path) as service:
        as_nobody(service)
        service.start_server()
        pool = service.start_pool("--processes", "1")
        wait_until(pool.children)
        opened = open_descriptors(pool)
        limit_processes(service, pool, 0)
        kill_one(pool)
        pool.wait_for_line(r"event=worker_not_started .*reason=.*unavailable")
        wait_until(lambda: pool.lines.count("event=worker_not_started") == 2)
        wait_until(lambda: open_descriptors(pool) < opened)  # those of the dead worker are closed
        limit_processes(service, pool, resource.getrlimit(resource.RLIMIT_NPROC)[0])
        wait_until(pool.children)
        assert service.result(service.submit(origin.serve("/file", b"body")))["status"] == "done"
        assert pool.stop() == 0
        assert "Traceback" not in pool.lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_pool_that_cannot_fork_ends_at_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with Service(tmp_path) as service:
        as_nobody(service)
        pool = service.start_pool("--processes", "3")
        wait_until(lambda: len(pool.children()) == 3)
        limit_processes(service, pool, 0)
        kill_one(pool)
        pool.wait_for_line("event=worker_not_started")
        living = pool.children()
        assert pool.stop(number) == 0
        assert not any(map(is_alive, living))


def test_a_worker_that_does_not_end_is_killed_in_time(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        pool = service.start_pool("--processes", "2")
        beating = "select count(*) from workers"
        wait_until(lambda: run_sql(service, beating) == [(2,)])  # a write would lock the database
        stuck = pool.children()[0]
        os.kill(stuck, signal.SIGSTOP)
        pool.process.send_signal(signal.SIGTERM)
        wait_until(lambda: pool.children() == [stuck])
        assert pool.stop() == 1  # the second signal
        assert not is_alive(stuck)


@pytest.mark.parametrize("function", ["server", "worker"])
def test_a_hangup_is_one_line_and_ends_nothing(tmp_path: Path, function: str) -> None:
    with Origin() as origin, running(tmp_path, "--processes", "1") as service:
        command = service.commands[function == "worker"]
        service.result(service.submit(origin.serve("/first", b"body")))  # all are there
        before = command.children()
        for pid in [command.process.pid, *before]:  # as a terminal does it
            os.kill(pid, signal.SIGHUP)
        command.wait_for_line('event=hangup_ignored reason="restart to read the configuration"')
        assert service.result(service.submit(origin.serve("/file", b"body")))["status"] == "done"
        assert command.children() == before
        assert command.stop() == 0
        assert command.lines.count("event=hangup") == 1


@pytest.mark.parametrize(
    ("function", "line"), [("server", "event=listening"), ("worker", "event=pool_started")]
)
def test_pid_1_ends_in_order(tmp_path: Path, function: str, line: str) -> None:
    with Service(tmp_path) as service:
        service.enter = AS_PID_1
        command = service.start(function)
        command.wait_for_line(line)
        (first,) = children(command.process.pid)
        os.kill(first, signal.SIGTERM)
        assert command.process.wait(20) == 0


@pytest.mark.parametrize("function", ["server", "worker"])
def test_a_stop_while_starting_is_not_lost(tmp_path: Path, function: str) -> None:
    """Stop it ever later in its start, told by the files that it has mapped (proc(5))."""
    with Service(tmp_path) as service:
        service.enter = AS_PID_1
        reached: int | None = 0
        while reached is not None:
            reached = stop_beyond(service.start(function), reached + 20)


def stop_beyond(command: Command, least: int) -> int | None:
    """Stop a starting command that has `least` mappings or more.

    Returns how many it had, None when it had started before.
    """
    (first,) = wait_until(lambda: children(command.process.pid))
    wait_until(lambda: handles_sigterm(first))
    wait_until(lambda: "event=" in command.lines or mappings(first) >= least)
    reached = None if "event=" in command.lines else mappings(first)
    os.kill(first, signal.SIGTERM)
    assert command.process.wait(20) in (0, 128 + signal.SIGTERM)
    assert "Traceback" not in command.lines
    return reached


def handles_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)
    return bool(caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def mappings(pid: int) -> int:
    return len(Path(f"/proc/{pid}/maps").read_text().splitlines())


# --- outages and shortages ------------------------------------------------------------------------


def test_an_outage_of_the_database_is_two_lines(tmp_path: Path) -> None:
    queue = {"lease_seconds": 1}  # three beats a second
    with Origin() as origin, running(tmp_path, "--processes", "1", queue=queue) as service:
        pool = service.commands[-1]
        service.result(service.submit(origin.serve("/first", b"body")))  # the worker is there
        run_sql(service, "alter table jobs rename to elsewhere")
        pool.wait_for_line("event=database_unavailable")
        over = time.monotonic() + 1.2  # some polls and beats
        wait_until(lambda: time.monotonic() > over)
        assert pool.lines.count("event=database_unavailable") == 1
        assert "event=database_available" not in pool.lines
        run_sql(service, "alter table elsewhere rename to jobs")
        pool.wait_for_line(r"event=database_available seconds=\d")
        assert service.result(service.submit(origin.serve("/file", b"body")))["status"] == "done"
        assert pool.lines.count("event=database_") == 3  # the first says that it was opened


def test_an_outage_of_the_mail_server_is_two_lines(tmp_path: Path) -> None:
    with Origin() as origin, ScriptedPostbox(CONNECT=[HANG_UP] * 3) as postbox:
        smtp = {"host": postbox.host, "port": postbox.port, "sender": "md5@example.org"}
        with running(tmp_path, "--processes", "1", smtp=smtp) as service:
            pool = service.commands[-1]
            url = origin.serve("/file", b"body")
            for _ in range(3):
                service.submit(url, email="ann@example.com")
            failed = "select count(*) from outbox where error_code = 'connection_failed'"
            wait_until(lambda: run_sql(service, failed) == [(3,)])
            assert pool.lines.count("event=mail_failed") == 1
            run_sql(service, "update outbox set due_at = 0")
            wait_until(lambda: len(postbox.mails) == 3)
            pool.wait_for_line("event=mail_server_available")
            assert pool.lines.count("event=mail_server_available") == 1
            assert pool.lines.count("event=mail_failed") == 1


def test_a_shortage_of_our_own_costs_no_attempt(tmp_path: Path) -> None:
    """A slot pauses for seconds in a shortage, so that there are more than will meet it."""
    slots = ("--processes", "1", "--threads", "32")
    with Origin() as origin, running(tmp_path, *slots) as service:
        pool = service.commands[-1]
        (worker,) = wait_until(pool.children)
        warm = [service.submit(origin.serve(f"/{n}", b"body")) for n in range(4)]
        assert {service.result(job_id)["status"] for job_id in warm} == {"done"}
        limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (opened_files(worker), limits[1]))
        with Origin(host="127.0.0.2") as other:  # no kept connection leads there
            job_id = service.submit(other.serve("/file", b"body"))
            pool.wait_for_line("event=out_of_resources")
            wait_until(lambda: pool.lines.count(f"event=released job={job_id}") >= 3)
            resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
            assert service.result(job_id)["status"] == "done"
            assert service.job(job_id)["attempts"] == 1
        assert pool.lines.count("event=out_of_resources") == 1


def opened_files(pid: int) -> int:
    """Tell the first number that a new descriptor of a process would get."""
    used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    return next(number for number in range(1024) if number not in used)


def run_sql(service: Service, statement: str) -> list[tuple[object, ...]]:
    with contextlib.closing(
        sqlite3.connect(service.database, timeout=10, isolation_level=None)
    ) as database:
        return database.execute(statement).fetchall()


@pytest.mark.parametrize(("hard", "warned"), [(4096, False), (100, True)])
def test_each_worker_may_open_what_its_threads_need(
    tmp_path: Path, hard: int, warned: bool
) -> None:
    with Service(tmp_path) as service:
        service.enter = ["prlimit", f"--nofile=90:{hard}"]
        pool = service.start_pool("--processes", "1", "--threads", "8")
        (worker,) = wait_until(pool.children)
        soft, _ = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        assert soft == min(hard, 192)
        assert pool.lines.count("event=few_descriptors limit=100 needed=192") == warned


# --- the log --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2> >(read)", "2>&-", ">&- 2>&- <&-"])
def test_a_service_whose_log_cannot_be_written_works(tmp_path: Path, stderr: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with Origin() as origin, Service(tmp_path) as service:
        service.enter = ["bash", "-c", f'exec "$@" {stderr}', "bash"]
        service.url = f"http://127.0.0.1:{port}"
        server = service.start("server", "-v", "--port", str(port))
        wait_until(lambda: listens(port))
        pool = service.start("worker", "-v")
        for number in range(3):
            job_id = service.submit(origin.serve(f"/{number}", b"body"), email="ann@localhost")
            assert service.result(job_id)["status"] == "done"
        wait_until(lambda: service.job(job_id)["mail"] == "sent")
        kill_one(pool)
        assert [pool.stop(), server.stop()] == [0, 0]


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
