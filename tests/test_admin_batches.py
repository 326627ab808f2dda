"""What `md5light` tells of batches, and how it removes, copies and mails them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from md5light.batch import Batch, NewBatch, NewLine, describe
from md5light.errors import PermanentFailure
from md5light.job import Hashed, Mail
from md5light.queue import open_database
from md5light.queue.batches import Batches
from md5light.queue.copy import copy
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.queue.outbox import Outbox
from tests.command import run
from tests.conftest import Clock

HOST = "files.example.com"
EMAIL = "ann@example.com"
REFUSED = PermanentFailure("http_status", "The server answered 404.")


@pytest.fixture
def source(tmp_path: Path, clock: Clock) -> Iterator[Database]:
    with closing(
        open_database(str(tmp_path / "md5light.sqlite3"), durable=True, clock=clock)
    ) as database:
        yield database


def make_queue(database: Database) -> Queue:
    return Queue(database, lease_seconds=60, max_attempts=3, retry_seconds=10)


def submit(database: Database, lines: int, name: str | None = None) -> Batch:
    batches = Batches(database, max_attempts=3)
    batch_id = batches.begin(NewBatch("urls", "c", name=name, email=EMAIL, digests=("sha1",)))
    urls = [f"http://{HOST}/{number}" for number in range(1, lines + 1)]
    batches.add(
        batch_id, [NewLine(n, url, url, HOST, name="é", size=7) for n, url in enumerate(urls, 1)]
    )
    return batches.publish(batch_id)


def work(database: Database) -> None:
    """Do all that is due: the second file of each list is missing."""
    queue = make_queue(database)
    while job := queue.claim("w1"):
        is_missing = job.url.endswith("/2")
        queue.settle(job, REFUSED if is_missing else Hashed("0" * 32, 7, job.url, None, None, None))
    Batches(database, max_attempts=3).end_due()


def sent(database: Database) -> Iterator[Mail]:
    """Send all mails that are due."""
    outbox = Outbox(database, lease_seconds=60, retry_seconds=30, give_up_seconds=86400)
    while mail := outbox.claim("w1"):
        outbox.sent(mail)
        yield mail


def fill(database: Database, clock: Clock) -> tuple[Batch, Batch, Batch]:
    """Make a batch that has ended, one that runs, and one that was canceled."""
    batches = Batches(database, max_attempts=3)
    ended = submit(database, 5, "ended")
    work(database)
    clock.pass_(1)
    canceled = submit(database, 2, "canceled")
    batches.cancel(canceled.id)
    clock.pass_(1)
    running = submit(database, 4, "running")
    make_queue(database).claim("w1")
    batches.begin(NewBatch("urls", "c"))
    return ended, canceled, running


def run_json(*words: str, folder: Path) -> Any:
    done = run("md5light", *words, "--json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_batches_are_listed_the_newest_first(
    source: Database, clock: Clock, tmp_path: Path
) -> None:
    ended, canceled, running = fill(source, clock)
    done = run("md5light", "batches", "list", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == [
        "ID", "STATUS", "LINES", "HASHED", "MATCHED", "MISMATCHED", "FAILED", "CANCELED",
        "SUBMITTED", "NAME",
    ]  # fmt: skip
    assert rows[1][:-2] == [running.id, "running", "4", "0", "0", "0", "0", "0"]
    assert rows[2][:-2] == [canceled.id, "canceled", "2", "0", "0", "0", "0", "2"]
    assert rows[3] == [
        ended.id, "done", "5", "0", "4", "0", "1", "0", "2027-01-15T08:00:00Z", "ended"
    ]  # fmt: skip
    assert [each["id"] for each in run_json("batches", "list", folder=tmp_path)] == [
        running.id, canceled.id, ended.id
    ]  # fmt: skip
    limited = run_json("batches", "list", "--limit", "1", folder=tmp_path)
    assert [each["id"] for each in limited] == [running.id]


def test_a_batch_is_shown_by_a_short_id_without_its_address(
    source: Database, clock: Clock, tmp_path: Path
) -> None:
    ended, _, _ = fill(source, clock)
    batches = Batches(source, max_attempts=3)
    stored = batches.get(ended.id)
    assert stored
    shown = run_json("batches", "show", ended.id[:8].upper(), folder=tmp_path)
    assert shown == json.loads(json.dumps(describe(stored, batches.result(stored))))
    assert shown["counts"]["matched"] == 4
    assert shown["errors"] == [{"code": "http_status", "count": 1, "lines": [2]}]
    done = run("md5light", "batches", "show", ended.id, cwd=tmp_path)
    assert dict(line.split(None, 1) for line in done.stdout.splitlines())["mail"] == "waiting"
    assert "errors http_status" in done.stdout
    assert EMAIL not in done.stdout


@pytest.mark.parametrize(
    "batch_id", ["nothing", "0e4fac17", "0e4fac17-f367-4807-8c28-8a059a2f82ac"]
)
def test_a_batch_that_does_not_exist(batch_id: str, source: Database, tmp_path: Path) -> None:
    done = run("md5light", "batches", "show", batch_id, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"md5light: there is no batch {batch_id}\n"


def test_purge_removes_batches_as_a_whole(source: Database, clock: Clock, tmp_path: Path) -> None:
    clock.time = 1_600_000_000.0
    ended, _, running = fill(source, clock)
    outbox = Outbox(source, lease_seconds=60, retry_seconds=30, give_up_seconds=86400)
    while mail := outbox.claim("w1"):
        outbox.sent(mail)
    done = run("md5light", "jobs", "purge", "--older-than", "1d", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "7 jobs removed\n", "")
    batches = Batches(source, max_attempts=3)
    assert [batch.id for batch in batches.newest(9)] == [running.id]
    (count,) = source.read(lambda reading: reading.all("select count(*) as lines from lines"))
    assert count["lines"] == 4
    assert not list(batches.entries(ended.id))


def test_a_failed_mail_of_a_batch_is_listed_and_made_new(
    source: Database, clock: Clock, tmp_path: Path
) -> None:
    batch = submit(source, 1)
    work(source)
    outbox = Outbox(source, lease_seconds=60, retry_seconds=30, give_up_seconds=86400)
    mail = outbox.claim("w1")
    assert mail
    refused = run("md5light", "mail", "retry", batch.id, cwd=tmp_path)
    assert refused.stderr == (
        f"md5light: batch {batch.id} has no failed mail: its mail is waiting\n"
    )
    outbox.failed(mail, PermanentFailure("refused", "The mail server refused the recipient."))
    (listed,) = run_json("mail", "list", folder=tmp_path)
    assert (listed["kind"], listed["id"], listed["status"]) == ("batch", batch.id, "failed")
    assert run_json("mail", "retry", listed["id"][:8], folder=tmp_path) == {"retried": 1}
    mail = outbox.claim("w1")
    assert mail
    assert mail.subject == f"{batch.id}.1"


def test_batches_move_to_another_database_as_they_are(
    source: Database, database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source, clock)
    monkeypatch.setattr("md5light.queue.copy.PORTION", 3)
    next(copy(source, database))  # is interrupted, and begun again
    for _ in range(2):
        list(copy(source, database))
    old, new = Batches(source, max_attempts=3), Batches(database, max_attempts=3)
    assert new.newest(9) == old.newest(9)
    ended, running = old.newest(9)[2], old.newest(9)[0]
    for batch in (ended, running):
        here, there = ([*each.entries(batch.id)] for each in (old, new))
        waiting = [entry._replace(status="waiting", attempts=0) for entry in here]
        assert there == [
            other if entry.status == "running" else entry
            for entry, other in zip(here, waiting, strict=True)
        ]
    work(database)
    done = new.get(running.id)
    assert done
    assert (done.status, new.result(done).counts.matched) == ("done", 3)
    assert new.retry(ended.id)
    jobs = database.read(lambda reading: reading.all("select * from jobs"))
    assert len(jobs) == 11
    subjects = sorted(mail.subject for mail in sent(database))
    assert subjects == sorted(f"{batch.id}.1" for batch in old.newest(9)[:2])
