"""The administration, with a database file and mail servers on loopback."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from md5light import config
from md5light.admin import output
from md5light.admin.check import warnings as warnings_of
from md5light.batch import LINE_RESULTS
from md5light.config import SmtpConfig
from md5light.errors import PermanentFailure
from md5light.job import STATUSES, Hashed, describe
from md5light.mail.messages import compose
from md5light.queue import open_database
from md5light.queue.database import SCHEMA, Database
from md5light.queue.jobs import Queue
from md5light.queue.outbox import Outbox
from md5light.queue.totals import Totals
from tests.child import ROOT
from tests.command import Run, run, run_apart, start
from tests.conftest import Clock
from tests.postbox import SILENCE, Postbox, ScriptedPostbox, certificates, repeat
from tests.upgrade import VERSION
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

HASHED = Hashed(
    "f4afe93ad799484b1d512cc20e93efd1", 7, "http://files.example.com/a", "text/plain", '"1"', None
)
NOT_FOUND = PermanentFailure("http_status", "The server answered 404.")
UNKNOWN_ID = "0e4fac17-f367-4807-8c28-8a059a2f82ac"
RECIPIENT = "ann@example.org"
SENDER = "md5light@example.org"

#: the steps to a session with STARTTLS and a login
OPENING = ("name", "connection", "greeting", "TLS", "login")


@pytest.fixture
def clock() -> Clock:
    """Give the database a clock that is right until a test changes it."""
    clock = Clock()
    clock.time = time.time()
    return clock


@pytest.fixture
def database(tmp_path: Path, clock: Clock) -> Iterator[Database]:
    """Make the database that the defaults name in the folder of the test."""
    with closing(
        open_database(str(tmp_path / "md5light.sqlite3"), durable=False, clock=clock)
    ) as database:
        yield database


class Jobs:
    """A queue with jobs in each state."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.queue = Queue(database, lease_seconds=60, max_attempts=5, retry_seconds=10)
        self._clock = clock

    def queued(self, email: str | None = None) -> str:
        self._clock.pass_(0.001)
        return self.queue.submit("http://files.example.com/a", "files.example.com", email)

    def running(self, email: str | None = None) -> str:
        job_id = self.queued(email)
        claimed = self.queue.claim("w1")
        assert claimed is not None
        assert claimed.id == job_id
        return job_id

    def ended(self, outcome: Hashed | PermanentFailure, email: str | None = None) -> str:
        self._clock.pass_(0.001)
        job_id = self.queue.submit("http://files.example.com/a", "files.example.com", email)
        claimed = self.queue.claim("w1")
        assert claimed is not None
        assert claimed.id == job_id
        self.queue.settle(claimed, outcome)
        return job_id

    def done(self) -> str:
        return self.ended(HASHED)

    def failed(self, email: str | None = None) -> str:
        return self.ended(NOT_FOUND, email)

    def canceled(self) -> str:
        job_id = self.queued()
        self.queue.cancel(job_id)
        return job_id

    def one_of_each(self) -> list[str]:
        """Make a job of each status, the newest first."""
        return [self.done(), self.failed(), self.canceled(), self.running(), self.queued()][::-1]


@pytest.fixture
def jobs(database: Database, clock: Clock) -> Jobs:
    return Jobs(database, clock)


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


# --- help and usage -------------------------------------------------------------------------------

COMMANDS = [
    "config check",
    "config show",
    "jobs list",
    "jobs show",
    "jobs retry",
    "jobs cancel",
    "jobs purge",
    "queue copy",
    "queue compact",
    "stats",
    "mail list",
    "mail retry",
    "mail test",
]


@pytest.mark.parametrize("command", ["config", "jobs", "mail", *COMMANDS])
def test_each_command_has_help_with_an_example_that_it_understands(
    command: str, tmp_path: Path
) -> None:
    printed = said(run("md5light", *command.split(), "--help", cwd=tmp_path, COLUMNS="200"))
    example = re.search(rf"^example: md5light ({command}.*)$", printed, re.MULTILINE)
    assert example
    assert run("md5light", *example[1].split(), cwd=tmp_path).returncode != 2


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["jobs"], "required: list|show|retry|cancel|purge"),
        (["jobs", "list", "--status", "lost"], "invalid choice: 'lost'"),
        (["jobs", "list", "--limit", "0"], "--limit: must be a whole number from 1"),
        (["jobs", "list", "--limit", "-1"], "--limit"),
        (["jobs", "show"], "required: ID"),
        (["jobs", "purge"], "required: --older-than"),
        (["jobs", "purge", "--older-than", "30"], "--older-than: must be a number and a unit"),
        (["jobs", "purge", "--older-than", "1.5d"], "--older-than: must be a number and a unit"),
        (["jobs", "purge", "--older-than", "-1d"], "--older-than"),
        (["jobs", "purge", "--older", "1d"], "required: --older-than"),  # no abbreviations
        (["mail", "test"], "required: ADDRESS"),
        (["stats", "now"], "unrecognized arguments: now"),
    ],
)
def test_wrong_usage(arguments: list[str], problem: str, tmp_path: Path) -> None:
    done = run("md5light", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("config check", 0),
        ("config show", 0),
        ("jobs list", 0),
        ("jobs show unknown", 1),
        ("jobs purge --older-than 1d", 0),
        ("batches list --json", 0),
        ("hosts list", 0),
        ("mail list", 0),
        ("mail test nowhere", 2),
        ("token list", 78),  # no file is named
        ("queue compact", 0),
        ("stats", 0),
    ],
)
def test_a_process_says_and_exits_as_a_call(
    command: str, code: int, jobs: Jobs, tmp_path: Path
) -> None:
    jobs.one_of_each()
    apart, here = (each("md5light", *command.split(), cwd=tmp_path) for each in (run_apart, run))
    said = [re.sub(r"\d+", "0", done.stdout + done.stderr) for done in (apart, here)]
    assert said[0] == said[1]
    assert (apart.returncode, here.returncode) == (code, code)


# --- the database ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "jobs list",
        "jobs show x",
        "jobs retry x",
        "jobs cancel x",
        "jobs purge --older-than 1d",
        "stats",
    ],
)
def test_a_database_that_is_not_there_is_not_made(command: str, tmp_path: Path) -> None:
    problem = refused(run("md5light", *command.split(), cwd=tmp_path))
    assert problem == f"database {tmp_path}/md5light.sqlite3: No such file or directory"
    assert list(tmp_path.iterdir()) == []


def make_old(path: Path) -> bytes:
    """Give an SQLite file the schema of the first version; return its bytes."""
    path.unlink(missing_ok=True)
    first = sorted(SCHEMA.glob("*.sql"))[0].read_text(encoding="utf-8")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.executescript(f"{first}; create table schema_version (version bigint not null);")
        connection.execute("insert into schema_version values (1)")
        connection.commit()
    return path.read_bytes()


@pytest.mark.parametrize(
    "command",
    [
        ["config", "check"],
        ["jobs", "list"],
        ["jobs", "show", UNKNOWN_ID],
        ["jobs", "retry", UNKNOWN_ID],
        ["jobs", "retry", "--status", "failed"],
        ["jobs", "cancel", UNKNOWN_ID],
        ["jobs", "purge", "--older-than", "1d"],
        ["mail", "list"],
        ["mail", "retry", "--failed"],
        ["stats"],
    ],
)
def test_looking_never_migrates(command: list[str], tmp_path: Path) -> None:
    before = make_old(tmp_path / "md5light.sqlite3")
    done = run("md5light", *command, cwd=tmp_path)
    told = f"database {tmp_path}/md5light.sqlite3: has schema 1, not {VERSION} as this program: "
    assert done.stderr.count("\n") == 1
    assert told in done.stderr
    assert done.returncode == (0 if command[0] == "config" else 1)
    assert (tmp_path / "md5light.sqlite3").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["md5light.sqlite3"]


@pytest.mark.parametrize("command", ["config check", "jobs list"])
def test_a_database_of_a_newer_md5light(command: str, database: Database, tmp_path: Path) -> None:
    database.write(lambda transaction: transaction.run("update schema_version set version = 99"))
    problem = refused(
        run("md5light", *command.split(), cwd=tmp_path), code=78 if "check" in command else 1
    )
    assert problem.endswith(
        f"has schema 99, not {VERSION} as this program: it is of a newer md5light"
    )


def test_compact_gives_back_what_removed_jobs_took(jobs: Jobs, tmp_path: Path) -> None:
    for _ in range(500):
        jobs.canceled()
    assert jobs.queue.purge(-1, rows=1000) == 500
    before = (tmp_path / "md5light.sqlite3").stat().st_size
    freed = in_json(run("md5light", "queue", "compact", "--json", cwd=tmp_path))["freed_bytes"]
    assert freed >= 0
    assert (tmp_path / "md5light.sqlite3").stat().st_size < before
    assert re.fullmatch(
        "-?[0-9]+ bytes given back\n", said(run("md5light", "queue", "compact", cwd=tmp_path))
    )


def test_a_database_that_is_none_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "md5light.sqlite3").write_text("shopping list\n" * 100)
    problem = refused(run("md5light", "jobs", "list", cwd=tmp_path))
    assert problem == f"database {tmp_path}/md5light.sqlite3: file is not a database"


def test_a_reader_that_goes_away_is_not_complained_about(jobs: Jobs, tmp_path: Path) -> None:
    for _ in range(2000):  # more than a pipe holds
        jobs.queued()
    process = start("md5light", "jobs", "list", "--limit", "2000", cwd=tmp_path)
    assert process.stdout
    assert process.stderr
    with process.stdout as read:
        assert read.readline().startswith("ID ")
    with process.stderr as errors:
        assert errors.read() == ""
    assert process.wait(30) == 1


@pytest.mark.parametrize("arguments", [["jobs", "list"], ["--help"]])
def test_nobody_reading_at_all_is_not_complained_about(
    arguments: list[str], jobs: Jobs, tmp_path: Path
) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start(
        "md5light", *arguments, cwd=tmp_path, stdout=write, environ={"PYTHONUNBUFFERED": ""}
    )
    os.close(write)
    assert process.communicate(timeout=30)[1] == ""
    assert process.returncode == 1


# --- jobs list and show ---------------------------------------------------------------------------


def test_list_shows_the_newest_first_in_columns(jobs: Jobs, tmp_path: Path) -> None:
    ids = jobs.one_of_each()
    head, *lines = said(run("md5light", "jobs", "list", cwd=tmp_path)).splitlines()
    assert head.split() == ["ID", "STATUS", "ATTEMPTS", "SUBMITTED", "RESULT", "URL"]
    assert [line.split()[0] for line in lines] == ids
    assert [line.split()[1] for line in lines] == [
        "queued",
        "running",
        "canceled",
        "failed",
        "done",
    ]
    assert [line.split()[-2] for line in lines] == ["-", "bytes", "-", "http_status", HASHED.md5]
    assert {line.index("http://files.example.com/a") for line in lines} == {head.index("URL")}


def test_list_as_json_has_what_the_api_tells_of_a_job(jobs: Jobs, tmp_path: Path) -> None:
    ids = jobs.one_of_each()
    listed = in_json(run("md5light", "jobs", "list", "--json", cwd=tmp_path))
    stored = [job for job_id in ids if (job := jobs.queue.get(job_id))]
    assert listed == [describe(job) for job in stored]


@pytest.mark.parametrize("status", STATUSES)
def test_list_of_one_status(status: str, jobs: Jobs, tmp_path: Path) -> None:
    jobs.one_of_each()
    listed = in_json(run("md5light", "jobs", "list", "--status", status, "--json", cwd=tmp_path))
    assert [job["status"] for job in listed] == [status]


def test_list_is_limited(jobs: Jobs, tmp_path: Path) -> None:
    ids = [jobs.queued() for _ in range(25)][::-1]
    usual = in_json(run("md5light", "jobs", "list", "--json", cwd=tmp_path))
    fewer = in_json(run("md5light", "jobs", "list", "--json", "--limit", "3", cwd=tmp_path))
    assert [job["id"] for job in usual] == ids[:20]
    assert [job["id"] for job in fewer] == ids[:3]


def test_a_list_of_nothing(jobs: Jobs, tmp_path: Path) -> None:
    assert said(run("md5light", "jobs", "list", cwd=tmp_path)).splitlines() == [
        "ID  STATUS  ATTEMPTS  SUBMITTED  RESULT  URL"
    ]
    assert in_json(run("md5light", "jobs", "list", "--json", cwd=tmp_path)) == []


def test_show_tells_all_but_the_address(jobs: Jobs, tmp_path: Path) -> None:
    job_id = jobs.failed(RECIPIENT)
    printed = said(run("md5light", "jobs", "show", job_id, cwd=tmp_path))
    assert re.search(r"^error message +The server answered 404\.$", printed, re.MULTILINE)
    assert re.search(r"^mail +waiting$", printed, re.MULTILINE)
    shown = in_json(run("md5light", "jobs", "show", job_id, "--json", cwd=tmp_path))
    stored = jobs.queue.get(job_id)
    assert stored
    assert shown == describe(stored)
    assert RECIPIENT not in printed + json.dumps(shown)


def test_what_a_server_sent_moves_nothing_on_the_terminal(jobs: Jobs, tmp_path: Path) -> None:
    job_id = jobs.ended(
        Hashed("0" * 32, 1, "http://evil.example.com/\x1b[2J", "text/plain\r", "é\u202e", None)
    )
    printed = said(
        run_apart("md5light", "jobs", "show", job_id, cwd=tmp_path, PYTHONIOENCODING="ascii")
    )
    assert "http://evil.example.com/\\x1b[2J\n" in printed
    assert printed.isascii()
    assert not set(printed) & {"\x1b", "\r"}


@pytest.mark.parametrize("verb", ["show", "retry", "cancel"])
@pytest.mark.parametrize("job_id", [UNKNOWN_ID, "nothing", "☃", "%"])
def test_a_job_that_does_not_exist(verb: str, job_id: str, jobs: Jobs, tmp_path: Path) -> None:
    assert (
        refused(run("md5light", "jobs", verb, job_id, cwd=tmp_path)) == f"there is no job {job_id}"
    )


def test_an_id_that_is_no_text(jobs: Jobs, tmp_path: Path) -> None:
    assert (
        refused(run("md5light", "jobs", "show", os.fsdecode(b"\xff"), cwd=tmp_path))
        == r"there is no job \udcff"
    )


# --- jobs retry, cancel and purge -----------------------------------------------------------------


@pytest.mark.parametrize("state", ["failed", "canceled"])
def test_retry_makes_a_job_due_as_if_it_were_new(state: str, jobs: Jobs, tmp_path: Path) -> None:
    job_id = getattr(jobs, state)()
    assert said(run("md5light", "jobs", "retry", job_id, cwd=tmp_path)) == f"{job_id} queued\n"
    job = jobs.queue.get(job_id)
    assert job
    assert (job.status, job.attempts, job.error_code, job.error_message) == (
        "queued",
        0,
        None,
        None,
    )
    assert (job.started_at, job.finished_at) == (None, None)


def test_a_retried_job_owes_its_mail_anew(
    jobs: Jobs, database: Database, clock: Clock, tmp_path: Path
) -> None:
    outbox = Outbox(database, lease_seconds=60, retry_seconds=30, give_up_seconds=4 * 86400)
    job_id = jobs.failed(RECIPIENT)
    message_ids = []
    for status in ("failed", "done"):
        mail = outbox.claim("w1")
        assert mail
        assert mail.job
        assert (mail.job.id, mail.job.status, mail.attempts) == (job_id, status, 1)
        message_ids.append(compose(mail, SmtpConfig(), "http://localhost")["Message-ID"])
        assert outbox.sent(mail)
        if status == "failed":
            retried = in_json(run("md5light", "jobs", "retry", job_id, "--json", cwd=tmp_path))
            assert (retried["status"], retried["mail"], retried["error"]) == (
                "queued",
                "waiting",
                None,
            )
            clock.time = time.time() + 1  # it became due by the clock of the command
            claimed = jobs.queue.claim("w1")
            assert claimed
            jobs.queue.settle(claimed, HASHED)
    assert message_ids[0] == message_ids[1]


@pytest.mark.parametrize("state", ["queued", "running", "done"])
def test_a_job_that_has_not_failed_is_not_retried(state: str, jobs: Jobs, tmp_path: Path) -> None:
    job_id = getattr(jobs, state)()
    before = jobs.queue.get(job_id)
    problem = refused(run("md5light", "jobs", "retry", job_id, cwd=tmp_path))
    assert problem == f"job {job_id} is {state}: only a failed or canceled job can be tried again"
    assert jobs.queue.get(job_id) == before


@pytest.mark.parametrize("state", ["queued", "running"])
def test_cancel_ends_a_job(state: str, jobs: Jobs, database: Database, tmp_path: Path) -> None:
    job_id = getattr(jobs, state)()
    assert said(run("md5light", "jobs", "cancel", job_id, cwd=tmp_path)) == f"{job_id} canceled\n"
    job = jobs.queue.get(job_id)
    assert job
    assert (job.status, job.token) == ("canceled", None)
    assert Totals(database).snapshot().finished["canceled", ""] == 1


@pytest.mark.parametrize("state", ["done", "failed", "canceled"])
def test_a_job_that_has_ended_is_not_canceled(state: str, jobs: Jobs, tmp_path: Path) -> None:
    job_id = getattr(jobs, state)()
    assert (
        refused(run("md5light", "jobs", "cancel", job_id, cwd=tmp_path))
        == f"job {job_id} has ended: it is {state}"
    )


def test_cancel_as_json_tells_the_job(jobs: Jobs, tmp_path: Path) -> None:
    job_id = jobs.queued()
    canceled = in_json(run("md5light", "jobs", "cancel", job_id, "--json", cwd=tmp_path))
    assert (canceled["id"], canceled["status"]) == (job_id, "canceled")


@pytest.mark.parametrize(
    ("age", "older", "younger"),
    [("30d", 31 * 86400, 29 * 86400), ("12h", 44000, 43000), ("15m", 960, 840)],
)
def test_purge_removes_what_ended_longer_ago(
    age: str, older: float, younger: float, jobs: Jobs, clock: Clock, tmp_path: Path
) -> None:
    now = clock.time
    clock.time = now - younger
    kept = jobs.done()
    clock.time = now - older
    jobs.one_of_each()
    assert (
        said(run("md5light", "jobs", "purge", "--older-than", age, cwd=tmp_path))
        == "3 jobs removed\n"
    )
    assert [job.id for job in jobs.queue.newest(10) if job.finished] == [kept]
    assert len(jobs.queue.newest(10)) == 3


def test_purge_goes_on_until_nothing_is_left(jobs: Jobs, clock: Clock, tmp_path: Path) -> None:
    clock.time -= 3600
    for _ in range(1001):  # two transactions and one more job
        jobs.canceled()
    purged = in_json(
        run("md5light", "jobs", "purge", "--older-than", "45s", "--json", cwd=tmp_path)
    )
    assert purged == {"removed": 1001}
    assert jobs.queue.newest(1) == []


# --- several jobs, shortened ids, filters ---------------------------------------------------------


def test_several_jobs_at_once_and_what_could_not_be_done(jobs: Jobs, tmp_path: Path) -> None:
    done, queued, other = jobs.done(), jobs.queued(), jobs.queued()
    ids = [queued, done, UNKNOWN_ID, other[:8].upper()]
    did = run("md5light", "jobs", "cancel", *ids, cwd=tmp_path)
    assert did.returncode == 1
    assert did.stdout.splitlines() == [f"{queued} canceled", f"{other} canceled"]
    assert did.stderr.splitlines() == [
        f"md5light: job {done} has ended: it is done",
        f"md5light: there is no job {UNKNOWN_ID}",
    ]
    retried = said(run("md5light", "jobs", "retry", queued, other, cwd=tmp_path))
    assert retried == f"{queued} queued\n{other} queued\n"
    shown = said(run("md5light", "jobs", "show", "--json", queued[:20], other, cwd=tmp_path))
    assert [json.loads(line)["id"] for line in shown.splitlines()] == [queued, other]


def test_a_shortened_id_must_name_one_job(jobs: Jobs, database: Database, tmp_path: Path) -> None:
    def rename(new: str) -> None:
        sql = "update jobs set id = :new where id = :id"
        job_id = jobs.queued()
        database.write(lambda transaction: transaction.run(sql, id=job_id, new=new))

    for new in ("0123456789-a", "0123456789-b", "01234567-c"):
        rename(new)
    for beginning, expected in {
        "0123456": [],
        "01234567": ["01234567-c", "0123456789-a"],
        "0123456789": ["0123456789-a", "0123456789-b"],
        "0123456789-a": ["0123456789-a"],
        "0123456%": [],
        "________": [],
        "f" * 37: [],
    }.items():
        assert jobs.queue.find(beginning) == expected
    problem = refused(run("md5light", "jobs", "show", "01234567", cwd=tmp_path))
    assert problem == "01234567 is the beginning of more than one job's id"


def test_jobs_are_filtered_by_status_code_and_host(jobs: Jobs, tmp_path: Path) -> None:
    queue = jobs.queue
    slow = jobs.ended(PermanentFailure("timed_out", "Too slow."))
    failed = jobs.failed()
    jobs.done()
    other = queue.submit("http://other.example.com/", "other.example.com")
    assert queue.ids(code="timed_out") == [slow]
    assert queue.ids("failed", host="files.example.com") == [failed, slow]
    assert queue.ids("done", "timed_out") == []
    assert [job.id for job in queue.newest(10, host="other.example.com")] == [other]
    arguments = ["--status", "failed", "--code", "timed_out", "--host", "FILES.example.com"]
    listed = in_json(run("md5light", "jobs", "list", *arguments, "--json", cwd=tmp_path))
    assert [job["id"] for job in listed] == [slow]
    retried = in_json(run("md5light", "jobs", "retry", *arguments, "--json", cwd=tmp_path))
    assert retried == {"retried": 1}
    assert queue.ids("failed") == [failed]
    again = run("md5light", "jobs", "retry", "--status", "failed", cwd=tmp_path)
    assert said(again) == "1 job retried\n"
    assert queue.ids("failed") == []


@pytest.mark.parametrize(
    "arguments", [[], [UNKNOWN_ID, "--status", "failed"], ["--code", "timed_out"]]
)
def test_retry_takes_ids_or_a_status(arguments: list[str], tmp_path: Path) -> None:
    problem = refused(run("md5light", "jobs", "retry", *arguments, cwd=tmp_path), code=2)
    assert problem.startswith("jobs retry: give IDs")


def test_a_list_on_a_terminal_is_for_people(jobs: Jobs, clock: Clock, tmp_path: Path) -> None:
    clock.time = time.time() - 7200 - 60
    job_id = jobs.done()
    ours, theirs = pty.openpty()
    process = start(
        "md5light", "jobs", "list", cwd=tmp_path, stdout=theirs, environ={"COLUMNS": "80"}
    )
    os.close(theirs)
    assert process.communicate(timeout=30)[1] == ""
    head, line = os.read(ours, 10000).decode().splitlines()
    os.close(ours)
    assert head.split() == ["ID", "STATUS", "TRIES", "AGE", "SIZE", "RESULT", "URL"]
    assert line.startswith(f"{job_id[:8]}  done    1/5    2 h  7 B   {HASHED.md5}")
    assert len(line) == 80
    assert line.endswith("…")


def test_ages_and_sizes_for_people() -> None:
    seconds = (-1, 0, 119, 120, 7199, 7200, 172799, 172800)
    assert [output.age(each) for each in seconds] == [
        *("0 s", "0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"),
    ]
    sizes = (0, 999, 1000, 999_949, 999_950, 1_500_000_000, 10**16)
    assert [output.size(each) for each in sizes] == [
        *("0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "1.5 GB", "10000.0 TB"),
    ]


# --- mail list and retry --------------------------------------------------------------------------


def test_failed_mails_are_listed_and_made_new(
    jobs: Jobs, database: Database, tmp_path: Path
) -> None:
    outbox = Outbox.configured(database, config.Config())
    ids = [jobs.failed(RECIPIENT) for _ in range(3)]
    for _ in ids[:2]:
        mail = outbox.claim("w1")
        assert mail
        outbox.failed(mail, PermanentFailure("refused", "The mail server answered 550."))
    listed = in_json(run("md5light", "mail", "list", "--status", "failed", "--json", cwd=tmp_path))
    assert {mail["id"] for mail in listed} == set(ids[:2])
    assert listed[0]["error"] == {"code": "refused", "message": "The mail server answered 550."}
    printed = said(run("md5light", "mail", "list", cwd=tmp_path))
    assert printed.splitlines()[0].split() == ["ID", "STATUS", "ATTEMPTS", "OWED", "ERROR"]
    assert printed.count("refused: The mail server answered 550.") == 2
    assert RECIPIENT not in printed + json.dumps(listed)
    retried = said(run("md5light", "mail", "retry", ids[0][:8], cwd=tmp_path))
    assert retried == "1 mail retried\n"
    problem = refused(run("md5light", "mail", "retry", ids[0], cwd=tmp_path))
    assert problem == f"job {ids[0]} has no failed mail: its mail is waiting"
    assert in_json(run("md5light", "mail", "retry", "--failed", "--json", cwd=tmp_path)) == {
        "retried": 1
    }
    assert [mail.status for mail in outbox.newest(10)] == ["waiting"] * 3


# --- stats ----------------------------------------------------------------------------------------


def test_stats_count_what_goes_on_and_what_was(
    jobs: Jobs, database: Database, tmp_path: Path
) -> None:
    jobs.one_of_each()
    jobs.queue.cancel(jobs.queued())
    Totals(database).heartbeat("w1")
    counted = in_json(run("md5light", "stats", "--json", cwd=tmp_path))
    assert counted.pop("oldest_waiting_seconds") >= 0
    assert counted.pop("last_worker_sign_seconds") >= 0
    assert counted.pop("mean_seconds") >= 0
    assert counted == {
        "unfinished": {"queued": 1, "running": 1},
        "finished": {"done": 1, "failed": 1, "canceled": 2},
        "failures": {"http_status": 1},
        "hashed_bytes": 7,
        "batches": {"running": 0, "done": 0, "canceled": 0},
        "lines": dict.fromkeys(LINE_RESULTS, 0),
        "mails": {"waiting": 0, "sent": 0, "failed": 0},
        "workers": 1,
    }
    printed = said(run("md5light", "stats", cwd=tmp_path))
    assert re.search(r"^finished canceled +2$", printed, re.MULTILINE)
    assert re.search(r"^failures http_status +1$", printed, re.MULTILINE)


def test_stats_of_a_new_database(database: Database, tmp_path: Path) -> None:
    counted = in_json(run("md5light", "stats", "--json", cwd=tmp_path))
    assert (counted["workers"], counted["mean_seconds"], counted["last_worker_sign_seconds"]) == (
        0,
        None,
        None,
    )


# --- mail test ------------------------------------------------------------------------------------


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


def mail_test(tmp_path: Path, address: str = RECIPIENT, *, run: Run = run) -> CompletedProcess[str]:
    return run("md5light", "-v", "--config", "config.ini", "mail", "test", address, cwd=tmp_path)


def steps(done: CompletedProcess[str]) -> list[str]:
    """Return the steps that were told, the last with what went wrong."""
    lines = re.findall(r"^(\S+) +(ok|failed: .*)$", done.stdout, re.MULTILINE)
    return [step if result == "ok" else f"{step} {result}" for step, result in lines]


def test_a_mail_is_sent_step_by_step(tmp_path: Path) -> None:
    context, ca_file = certificates(tmp_path)
    with Postbox(starttls=context, login=("md5", "hunter2")) as postbox:
        configure(
            tmp_path,
            host="localhost",
            port=postbox.port,
            ca_file=ca_file,
            username="md5",
            password="hunter2",
        )
        done = mail_test(tmp_path, run=run_apart)
        assert said(done).endswith("\nlocalhost has taken the mail over.\n")
        assert steps(done) == ["address", *OPENING, "sender", "recipient", "message"]
        (mail,) = postbox.mails
        assert (mail.recipients, mail.message["Subject"]) == ([RECIPIENT], "md5light: test")


def test_without_a_server_the_mail_is_kept_in_the_maildir(tmp_path: Path) -> None:
    configure(tmp_path, maildir="mails")
    done = mail_test(tmp_path, "ann@localhost")
    assert done.returncode == 0
    assert done.stdout.endswith(
        f"The mail is kept in {tmp_path}/mails, since [smtp] host is empty.\n"
    )
    assert len(list((tmp_path / "mails/new").iterdir())) == 1
    assert "ann" not in done.stderr


def test_a_mail_is_tried_with_one_line_of_json(tmp_path: Path) -> None:
    configure(tmp_path, maildir="mails")
    command = ["mail", "test", "--json", "--config", "config.ini", RECIPIENT]
    told = json.loads(run("md5light", *command, cwd=tmp_path).stdout)
    assert told["delivered"] is True
    assert {step["result"] for step in told["steps"]} == {"ok"}
    configure(tmp_path, maildir="/proc/mails")
    done = run("md5light", *command, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (done.returncode, told["delivered"]) == (1, False)
    assert told["steps"][-1]["result"].startswith("failed: The mail could not be written")


def test_a_maildir_that_can_not_be_written(tmp_path: Path) -> None:
    configure(tmp_path, maildir="/proc/mails")
    done = mail_test(tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "md5light: the mail was not delivered: maildir failed\n",
    )
    assert steps(done)[-1].startswith("maildir failed: The mail could not be written")


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (
            {"CONNECT": repeat("554 go away")},
            "greeting failed: The mail server answered 554 to the connection.",
        ),
        (
            {"STARTTLS": repeat("454 no")},
            "TLS failed: The mail server answered 454 to the STARTTLS.",
        ),
        (
            {"AUTH": repeat("535 who?")},
            "login failed: The mail server answered 535 to the login. 535 who?",
        ),
        (
            {"MAIL": repeat("550 not you")},
            "sender failed: The mail server answered 550 to the sender. 550 not you",
        ),
        (
            {"RCPT": repeat(f"550 <{RECIPIENT}> unknown")},
            "recipient failed: The mail server answered 550 to the recipient."
            f" 550 <{RECIPIENT}> unknown",
        ),
        (
            {"END": repeat("452 full")},
            "message failed: The mail server answered 452 to the message. 452 full",
        ),
        ({"EHLO": [SILENCE]}, "greeting failed: The mail server was silent for too long."),
    ],
)
def test_what_a_server_refuses_is_told_plainly(
    script: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    context, ca_file = certificates(tmp_path)
    with ScriptedPostbox(starttls=context, **script) as postbox:
        smtp = {"host": "localhost", "port": postbox.port, "ca_file": ca_file, "timeout": 2}
        configure(tmp_path, **smtp, username="md5", password="hunter2")
        done = mail_test(tmp_path)
        assert postbox.mails == []
    assert steps(done)[-1].startswith(problem)
    step = problem.partition(" ")[0]
    assert (done.returncode, done.stderr) == (
        1,
        f"md5light: the mail was not delivered: {step} failed\n",
    )
    assert "hunter2" not in done.stdout + done.stderr


def test_a_server_that_is_not_there_is_told_plainly(tmp_path: Path) -> None:
    configure(tmp_path, host="127.0.0.1", port=free_port())
    done = mail_test(tmp_path)
    assert done.returncode == 1
    assert steps(done)[:2] == ["address", "name"]
    assert steps(done)[2].endswith("Connection refused")


def test_a_server_whose_name_does_not_exist_is_told_plainly(tmp_path: Path) -> None:
    configure(tmp_path, host="mail..example")  # not a name at all, so nobody is asked
    done = mail_test(tmp_path)
    assert done.returncode == 1
    assert steps(done)[1].startswith("name failed: The name of the mail server can't be looked up")


def test_a_certificate_that_is_not_trusted_is_told_plainly(tmp_path: Path) -> None:
    context, _ = certificates(tmp_path)
    with Postbox(tls=context) as postbox:
        configure(tmp_path, host="localhost", port=postbox.port, security="tls")
        done = mail_test(tmp_path)
    assert done.returncode == 1
    assert steps(done)[-1].startswith(
        "TLS failed: The certificate of the mail server is not trusted"
    )


@pytest.mark.parametrize(
    "address", ["ann", "ann@localhost", "ann@example.org\nBcc: bob@example.org", ""]
)
def test_an_address_that_is_none_is_wrong_usage(address: str, tmp_path: Path) -> None:
    with Postbox() as postbox:
        configure(tmp_path, host=postbox.host, port=postbox.port, security="none")
        assert refused(mail_test(tmp_path, address), code=2).startswith("The address must ")
        assert postbox.connections == 0


# --- config check ---------------------------------------------------------------------------------


def check(tmp_path: Path) -> CompletedProcess[str]:
    return run("md5light", "--config", "config.ini", "config", "check", cwd=tmp_path)


def warning(done: CompletedProcess[str]) -> str:
    """Return the one warning of a configuration that is right."""
    assert (done.returncode, done.stdout) == (0, "config.ini: ok\n")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("md5light: warning: ").rstrip("\n")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def test_check_leaves_everything_as_it_is(tmp_path: Path) -> None:
    configure(tmp_path)
    assert said(check(tmp_path)) == "config.ini: ok\n"
    assert [path.name for path in tmp_path.iterdir()] == ["config.ini"]


def test_check_takes_a_database_in_use(jobs: Jobs, tmp_path: Path) -> None:
    configure(tmp_path, database="md5light.sqlite3")
    assert said(check(tmp_path)) == "config.ini: ok\n"


@pytest.mark.parametrize(
    ("database", "problem"),
    [
        ("none/jobs.sqlite3", "its folder can't be written: No such file or directory"),
        ("/proc/jobs.sqlite3", "its folder can't be written: "),  # by nobody, not even by root
        ("config.ini/jobs.sqlite3", "its folder can't be written: Not a directory"),
        (".", "can't be written: Is a directory"),
        ("config.ini", "is not an SQLite database"),
    ],
)
def test_check_finds_a_database_that_could_not_be_used(
    database: str, problem: str, tmp_path: Path
) -> None:
    configure(tmp_path, database=database)
    told = refused(check(tmp_path), code=78)
    assert told.startswith(f"config.ini: [queue] database = {tmp_path / database}: {problem}")


def test_check_never_shows_the_password_of_a_database(tmp_path: Path) -> None:
    configure(tmp_path, database="postgresql://md5:hunter2@127.0.0.1:1/md5")
    assert "hunter2" not in refused(check(tmp_path), code=78)


@pytest.mark.parametrize("key", ["password", "password_file"])
def test_check_warns_of_a_password_that_others_can_read(key: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("hunter2\n")
    smtp: dict[str, Any] = {key: "hunter2" if key == "password" else "secret"}
    configure(tmp_path, **smtp)
    holder = tmp_path / "config.ini" if key == "password" else secret
    other = secret if key == "password" else tmp_path / "config.ini"
    other.chmod(0o644)
    assert said(check(tmp_path)) == "config.ini: ok\n"
    holder.chmod(0o640)  # a group may be meant to
    assert said(check(tmp_path)) == "config.ini: ok\n"
    holder.chmod(0o604)
    told = warning(check(tmp_path))
    assert told.startswith(f"{holder if key == 'password_file' else holder.name}: holds a password")
    assert stat.S_IMODE(holder.stat().st_mode) == 0o604


def test_check_warns_of_a_stop_longer_than_a_lease(tmp_path: Path) -> None:
    configure(tmp_path, shutdown_seconds=60)
    assert said(check(tmp_path)) == "config.ini: ok\n"
    configure(tmp_path, shutdown_seconds=90)
    assert warning(check(tmp_path)).startswith(
        "[worker] shutdown_seconds = 90 is more than [queue] lease_seconds = 60"
    )


def test_check_warns_of_a_mail_server_out_of_reach(tmp_path: Path) -> None:
    port = free_port()
    configure(tmp_path, host="127.0.0.1", port=port, sender=SENDER)
    told = warning(check(tmp_path))
    assert (
        told == f"[smtp] host = 127.0.0.1, port = {port}: can't be reached now: Connection refused"
    )


def test_check_waits_for_a_mail_server_only_so_long(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [
            socket.socket() for _ in range(8)
        ]  # who fill what the listener lets wait; others are not answered
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        configure(
            tmp_path, host="127.0.0.1", port=full.getsockname()[1], timeout=0.5, sender=SENDER
        )
        assert "can't be reached now: " in warning(check(tmp_path))
        for client in waiting:
            client.close()


def test_check_says_nothing_to_a_mail_server(tmp_path: Path) -> None:
    with ScriptedPostbox() as postbox:
        configure(tmp_path, host="127.0.0.1", port=postbox.port, sender=SENDER)
        assert said(check(tmp_path)) == "config.ini: ok\n"
        wait_until(lambda: postbox.connections)
        assert set(postbox.heard) <= {"CONNECT"}


def warnings(tmp_path: Path, text: str, **environ: str) -> list[str]:
    """Return the warnings of a configuration."""
    file = tmp_path / "config.ini"
    file.write_text(text)
    file.chmod(0o600)
    return list(warnings_of(config.load(str(file), environ)))


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("host = 0.0.0.0", "host = 0.0.0.0"),
        ("host = ::", "host = ::"),
        ("host = md5.example.org", "host = md5.example.org"),
        ("host = unix:/run/md5light.sock", "host = unix:/run/md5light.sock"),
        ("trusted_proxy = 127.0.0.1", "trusted_proxy is set"),
    ],
)
def test_check_warns_of_an_empty_base_url(server: str, reason: str, tmp_path: Path) -> None:
    (told,) = warnings(tmp_path, f"[server]\npublic = no\n{server}\n")
    assert told.startswith(f"[server] base_url is empty, but {reason}: links in mails go to http:")
    answered = f"[server]\npublic = no\n{server}\nbase_url = https://md5.example.org\n"
    assert warnings(tmp_path, answered) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_check_takes_an_empty_base_url_on_loopback(host: str, tmp_path: Path) -> None:
    assert warnings(tmp_path, f"[server]\nhost = {host}\n") == []


@pytest.mark.parametrize(
    "sender", ["md5@localhost", "md5@box", "md5@box.local", "Sums <md5@a.localhost>", "md5@a.test"]
)
def test_check_warns_of_a_local_sender_where_there_is_a_mail_server(
    sender: str, tmp_path: Path
) -> None:
    with Postbox() as postbox:
        smtp = f"[smtp]\nhost = 127.0.0.1\nport = {postbox.port}\nsecurity = none\n"
        (told,) = warnings(tmp_path, f"{smtp}sender = {sender}\n")
        assert told.startswith(f"[smtp] sender = {sender} is an address of this machine alone")
        assert warnings(tmp_path, f"{smtp}sender = Sums <md5@example.org>\n") == []
    assert warnings(tmp_path, f"[smtp]\nsender = {sender}\n") == []


@pytest.mark.parametrize(
    ("port", "security", "usual"),
    [
        (465, "starttls", "tls"),
        (465, "none", "tls"),
        (465, "tls", None),
        (587, "tls", "starttls"),
        (587, "starttls", None),
        (25, "tls", "starttls"),
        (25, "none", None),
        (2525, "tls", None),
    ],
)
def test_check_warns_of_a_port_that_wants_another_security(
    port: int, security: str, usual: str | None, tmp_path: Path
) -> None:
    smtp = f"host = mail..example\nport = {port}\nsecurity = {security}\nsender = {SENDER}\n"
    told = warnings(tmp_path, f"[smtp]\n{smtp}")
    expected = [f"[smtp] port = {port} usually wants security = {usual}"] if usual else []
    assert [line for line in told if "can't be reached" not in line] == expected


def test_check_refuses_a_user_name_without_a_password(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\nhunter2\n")
    for more, problem in {
        "": "there is no password; set password or password_file, or",
        "password_file = empty": f"there is no password in the first line of {tmp_path}/empty",
    }.items():
        (tmp_path / "config.ini").write_text(f"[smtp]\nusername = md5\n{more}\n")
        told = refused(check(tmp_path), code=78)
        assert told.startswith(f"config.ini: [smtp] username = md5: {problem}")
    (tmp_path / "smtp-password").write_text("hunter2\n")
    (tmp_path / "smtp-password").chmod(0o600)
    text = "[smtp]\nusername = md5\n"
    assert warnings(tmp_path, text, CREDENTIALS_DIRECTORY=str(tmp_path)) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("hunter2 ", "[smtp] password begins or ends with a blank"),
        ("\thunter2", "[smtp] password begins or ends with a blank"),
        ('"hunter2"', "[smtp] password is in quotes"),
        ("'hunter2'", "[smtp] password is in quotes"),
        ("", "[smtp] password_file = "),
    ],
)
def test_check_warns_of_a_password_that_is_perhaps_not_meant(
    content: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(f"{content}\n")
    (tmp_path / "secret").chmod(0o600)
    (told,) = warnings(tmp_path, "[smtp]\npassword_file = secret\n")
    assert told.startswith(problem)
    assert "hunter2" not in told
    (tmp_path / "secret").write_text('pä"ss w"ö\n')
    assert warnings(tmp_path, "[smtp]\npassword_file = secret\n") == []


def test_check_warns_of_a_login_without_tls(tmp_path: Path) -> None:
    smtp = f"port = 25\nsecurity = none\nsender = {SENDER}\nusername = md5\npassword = x\n"
    told = warnings(tmp_path, f"[smtp]\nhost = mail..example\n{smtp}")
    assert any("the password is not sent without TLS" in line for line in told)


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        (
            "ulimit -n 100",
            "[worker] threads = 60 may need 1024 file descriptors in each process, "
            "but the limit here is 100; see ulimit -Hn or LimitNOFILE=",
        ),
        ("ulimit -f 1", "{folder}: the database has no room to grow: File too large"),
    ],
)
def test_check_warns_of_what_there_is_too_little_of(
    limit: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "config.ini").write_text("[worker]\nthreads = 60\n")
    program = [sys.executable, "-m", "md5light", "config", "check", "--config", "config.ini"]
    done = subprocess.run(
        ["bash", "-c", f'{limit}; exec "$@"', "bash", *program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert warning(done) == problem.format(folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.ini"]


def test_check_warns_of_a_folder_that_takes_no_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: socket.socket, address: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    (told,) = warnings(tmp_path, "")
    assert told.startswith(f"{tmp_path}: takes no Unix sockets (Operation not supported)")
    assert [path.name for path in tmp_path.iterdir()] == ["config.ini"]


def test_check_warns_of_a_database_url_with_a_password_that_others_can_read(
    tmp_path: Path,
) -> None:
    file = tmp_path / "config.ini"

    def told(url: str) -> list[str]:
        file.write_text(f"[queue]\ndatabase = {url}\n")
        file.chmod(0o644)
        return list(warnings_of(config.load(str(file), {})))

    (problem,) = told("postgresql://u:hunter2@h/d")
    assert problem.startswith(f"{file}: holds a password and can be read by everybody")
    assert told("postgresql://u@h/d") == []


def test_check_and_show_as_json(tmp_path: Path) -> None:
    (tmp_path / "config.ini").write_text("[server]\nhost = 0.0.0.0\npublic = no\n")
    command = ["--config", "config.ini", "--json"]
    done = run("md5light", "config", "check", *command, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (done.returncode, told["configuration"], len(told["warnings"])) == (0, "config.ini", 1)
    shown = in_json(
        run("md5light", "config", "show", *command, cwd=tmp_path, MD5LIGHT_SERVER_PORT="81")
    )
    by_key = {(value["section"], value["key"]): value for value in shown}
    assert by_key["server", "host"]["source"] == "config.ini"
    assert (by_key["server", "port"]["value"], by_key["server", "port"]["source"]) == (
        "81",
        "MD5LIGHT_SERVER_PORT",
    )
    assert by_key["server", "threads"]["source"] == ""
