"""A queue moves to another database: every job once, with its mail, however often one begins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import md5light.queue.copy as copying
from md5light.errors import TemporaryFailure
from md5light.finding import Wanted
from md5light.job import Hashed, Job
from md5light.queue import open_database
from md5light.queue.copy import copy
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.queue.outbox import Outbox
from md5light.queue.totals import Totals
from tests.command import run
from tests.conftest import Clock

pytestmark = pytest.mark.slow

HASHED = Hashed(
    "f4afe93ad799484b1d512cc20e93efd1",
    7,
    "http://files.example.com/a",
    "text/plain",
    '"1"',
    None,
    sha1="1" * 40,
    sha512="2" * 128,
)
WANTED = Wanted.of(["sha1"], {"size": 7, "sha512": "0" * 128})
EMAIL = "ann@example.com"


@pytest.fixture
def source(tmp_path: Path, clock: Clock) -> Iterator[Database]:
    with closing(open_database(str(tmp_path / "old.sqlite3"), durable=True, clock=clock)) as source:
        yield source


def make_queue(database: Database) -> Queue:
    return Queue(database, lease_seconds=60, max_attempts=3, retry_seconds=10, per_host=2)


def fill(source: Database, clock: Clock) -> dict[str, str]:
    """Make a job in each state; returns their ids by its name."""
    queue, outbox = (
        make_queue(source),
        Outbox(source, lease_seconds=60, retry_seconds=30, give_up_seconds=4 * 86400),
    )

    def submit(host: str, email: str | None = None) -> str:
        clock.pass_(0.001)
        return queue.submit(f"http://{host}/a", host, email, wanted=WANTED)

    def claimed() -> Job:
        job = queue.claim("w1")
        assert job is not None
        return job

    ids = {"sent": submit("a.example.com", EMAIL)}
    queue.settle(claimed(), HASHED)
    mail = outbox.claim("w1")
    assert mail is not None
    outbox.sent(mail)
    ids["owed"] = submit("a.example.com", EMAIL)
    queue.settle(claimed(), HASHED)
    assert outbox.claim("w1") is not None
    ids["retrying"] = submit("b.example.com")
    queue.settle(claimed(), TemporaryFailure("incomplete", "It broke."))
    for name in ("running", "running too", "set aside"):
        ids[name] = submit("c.example.com")
    claimed(), claimed()
    assert queue.claim("w1") is None
    ids["waiting"] = submit("d.example.com")
    ids["canceled"] = submit("e.example.com")
    queue.cancel(ids["canceled"])
    return ids


def test_all_is_there_and_goes_on(source: Database, database: Database, clock: Clock) -> None:
    ids = fill(source, clock)
    list(copy(source, database))
    old, new = make_queue(source), make_queue(database)
    for name in ("sent", "owed", "retrying", "waiting", "canceled"):
        assert new.get(ids[name]) == old.get(ids[name])
    copied = new.get(ids["sent"])
    assert copied
    assert copied.further == {"sha1": HASHED.sha1, "sha512": HASHED.sha512}
    assert (copied.expected, copied.check) == ({"size": 7, "sha512": "0" * 128}, "mismatched")
    ready = {ids[name] for name in ("running", "running too", "set aside", "waiting")}
    claimed: list[Job] = []
    while job := new.claim("w2"):
        claimed.append(job)
        assert new.settle(job, HASHED) == ("done", None)
    assert {job.id for job in claimed} == ready
    assert {job.attempts for job in claimed} == {1}
    outbox = Outbox(database, lease_seconds=60, retry_seconds=30, give_up_seconds=4 * 86400)
    mail = outbox.claim("w2")
    assert mail is not None
    assert (mail.subject, mail.recipient, mail.attempts) == (ids["owed"], EMAIL, 1)
    assert outbox.claim("w2") is None


def test_what_was_counted_is_copied_once(
    source: Database, database: Database, clock: Clock
) -> None:
    fill(source, clock)
    for _ in range(2):
        list(copy(source, database))
    copied, counted = (Totals(each).snapshot() for each in (database, source))
    assert copied.finished == counted.finished != {}
    assert (copied.durations, copied.duration_seconds) == (
        counted.durations,
        counted.duration_seconds,
    )
    assert (copied.hashed_bytes, copied.mails) == (counted.hashed_bytes, counted.mails)


def test_a_copy_that_was_interrupted_is_begun_anew(
    source: Database, database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "PORTION", 3)
    ids = fill(source, clock)
    assert next(copy(source, database)) == (3, 3)
    assert list(copy(source, database)) == [(3, 0), (3, 3), (2, 2)]
    assert all(make_queue(database).get(job_id) for job_id in ids.values())


def test_what_has_gone_on_since_is_left_as_it_is(
    source: Database, database: Database, clock: Clock
) -> None:
    waiting = make_queue(source).submit("http://a.example.com/a", "a.example.com", EMAIL)
    list(copy(source, database))
    queue = make_queue(database)
    job = queue.claim("w2")
    assert job is not None
    queue.settle(job, HASHED)
    assert list(copy(source, database)) == [(1, 0)]
    done = queue.get(waiting)
    assert done is not None
    assert (done.status, done.mail) == ("done", "waiting")


def test_the_command_copies_into_the_configured_database(
    source: Database, location: str, clock: Clock, tmp_path: Path
) -> None:
    ids = fill(source, clock)
    (tmp_path / "config.ini").write_text(f"[queue]\ndatabase = {location}\n")
    arguments = ["md5light", "--config", "config.ini", "queue", "copy", "old.sqlite3"]
    done = run(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{len(ids)} of {len(ids)} jobs copied, 0 were there already\n"
    again = run(*arguments, "--json", cwd=tmp_path)
    assert json.loads(again.stdout) == {"copied": 0, "present": len(ids)}
    shown = run(
        "md5light", "--config", "config.ini", "jobs", "show", ids["sent"], "--json", cwd=tmp_path
    )
    assert json.loads(shown.stdout)["mail"] == "sent"


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ("none.sqlite3", "database none.sqlite3: No such file or directory"),
        ("config.ini", "database config.ini: file is not a database"),
        ("old.sqlite3", "old.sqlite3 is the database that the jobs go to"),
    ],
)
def test_what_can_not_be_copied(source: Database, tmp_path: Path, named: str, problem: str) -> None:
    (tmp_path / "config.ini").write_text(f"[queue]\ndatabase = old.sqlite3\n# {'-' * 1000}\n")
    done = run("md5light", "--config", "config.ini", "queue", "copy", named, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"md5light: {problem}\n")
