"""The administration, with a database file."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from md5light import config
from md5light.admin import output
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
from tests.command import in_json, refused, run, run_apart, said, start
from tests.conftest import Clock
from tests.upgrade import VERSION

pytestmark = pytest.mark.slow

HASHED = Hashed(
    "f4afe93ad799484b1d512cc20e93efd1", 7, "http://files.example.com/a", "text/plain", '"1"', None
)
NOT_FOUND = PermanentFailure("http_status", "The server answered 404.")
UNKNOWN_ID = "0e4fac17-f367-4807-8c28-8a059a2f82ac"
RECIPIENT = "ann@example.org"


@pytest.fixture
def clock() -> Clock:
    """Give the database a clock that is right until a test changes it."""
    clock = Clock()
    clock.time = time.time()
    return clock


@pytest.fixture
def database(sqlite_file: Path, tmp_path: Path, clock: Clock) -> Iterator[Database]:
    """Make the database that the defaults name in the folder of the test."""
    location = shutil.copy(sqlite_file, tmp_path / "md5light.sqlite3")
    with closing(open_database(str(location), durable=False, clock=clock)) as database:
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
