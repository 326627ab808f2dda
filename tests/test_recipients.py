"""Addresses of people: how long they are kept, and what the operator does when asked about one."""

from __future__ import annotations

import argparse
import json
import operator
from pathlib import Path

import pytest

from md5light import admin, config
from md5light.batch import NewBatch, NewLine
from md5light.errors import NotDone, PermanentFailure
from md5light.job import Hashed
from md5light.queue import open_database
from md5light.queue.batches import Batches
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.queue.outbox import Outbox
from md5light.queue.recipients import Recipients
from md5light.queue.totals import Totals
from tests.conftest import Clock

HASHED = Hashed("f4afe93ad799484b1d512cc20e93efd1", 7, "http://a.example.com/", None, None, None)
ANN = "Ann@Example.org"
WEEK = 7 * 86400


@pytest.fixture
def recipients(database: Database) -> Recipients:
    return Recipients(database)


def addresses(database: Database) -> list[str]:
    """Return every address in the database, wherever it is."""
    columns = [("jobs", "email"), ("batches", "email"), ("outbox", "recipient")]
    return [
        row[column]
        for table, column in columns
        for row in database.read(operator.methodcaller("all", f"select * from {table}"))
        if row[column]
    ]


def do(queue: Queue, url: str, email: str | None = ANN) -> str:
    """Submit a job and do it."""
    job_id = queue.submit(url, "a.example.com", email)
    job = queue.claim("w1")
    assert job is not None
    assert queue.settle(job, HASHED)[0] == "done"
    return job_id


def send(outbox: Outbox) -> None:
    mail = outbox.claim("w1")
    assert mail is not None
    assert outbox.sent(mail)


def live(database: Database, clock: Clock, seconds: float) -> None:
    """Let time pass, with a worker whose heartbeats show that the clock is right."""
    for _ in range(int(seconds // 43200) + 1):
        clock.pass_(seconds / (int(seconds // 43200) + 1))
        Totals(database).heartbeat("w1")


def test_an_address_is_removed_so_long_after_its_mail(
    queue: Queue, outbox: Outbox, recipients: Recipients, database: Database, clock: Clock
) -> None:
    job_id = do(queue, "http://a.example.com/1")
    live(database, clock, WEEK)
    assert recipients.expire(WEEK) == 0  # its mail is still owed
    send(outbox)
    live(database, clock, WEEK - 1)
    assert recipients.expire(WEEK) == 0
    live(database, clock, 2)
    assert recipients.expire(WEEK) == 2
    assert addresses(database) == []
    job = queue.get(job_id)
    assert job is not None
    assert (job.status, job.md5, job.mail) == ("done", HASHED.md5, "sent")
    assert recipients.expire(WEEK) == 0


def test_jobs_without_a_mail_lose_their_address_as_well(
    queue: Queue, recipients: Recipients, database: Database, clock: Clock
) -> None:
    canceled = queue.submit("http://a.example.com/2", "a.example.com", ANN)
    waiting = queue.submit("http://a.example.com/3", "a.example.com", ANN)
    assert queue.cancel(canceled)
    live(database, clock, WEEK + 1)
    assert recipients.expire(WEEK) == 1
    assert [(job.id, job.email) for job in queue.newest(9) if job.email] == [(waiting, ANN)]


def test_a_failed_mail_without_an_address_is_not_tried_again(
    queue: Queue, outbox: Outbox, recipients: Recipients, database: Database, clock: Clock
) -> None:
    job_id = do(queue, "http://a.example.com/1")
    mail = outbox.claim("w1")
    assert mail is not None
    assert outbox.failed(mail, PermanentFailure("refused", "There is no such mailbox."))
    live(database, clock, WEEK + 1)
    recipients.expire(WEEK)
    assert not outbox.retry(job_id)
    assert outbox.retry_failed() == 0


def test_a_clock_that_jumps_ahead_removes_nothing(
    queue: Queue, outbox: Outbox, recipients: Recipients, database: Database, clock: Clock
) -> None:
    do(queue, "http://a.example.com/1")
    send(outbox)
    Totals(database).heartbeat("w1")
    clock.pass_(10 * WEEK)
    assert recipients.expire(WEEK) == 0
    assert len(addresses(database)) == 2


def test_an_operator_finds_and_removes_an_address(
    queue: Queue, outbox: Outbox, recipients: Recipients, database: Database
) -> None:
    done, sent = do(queue, "http://a.example.com/1"), do(queue, "http://a.example.com/2")
    send(outbox)
    other = do(queue, "http://a.example.com/3", "bob@example.org")
    batches = Batches(database, max_attempts=3)
    batch_id = batches.begin(NewBatch("urls", "192.0.2.1", email=ANN.lower()))
    batches.add(batch_id, [NewLine(1, "", "http://b.example.com/", "b.example.com")])
    batches.publish(batch_id)
    found = recipients.find("ann@example.ORG")
    assert {(row["kind"], row["id"]) for row in found} == {
        ("job", done),
        ("job", sent),
        ("batch", batch_id),
    }
    assert recipients.forget("ann@example.ORG") == 5
    assert recipients.find(ANN) == []
    assert addresses(database) == ["bob@example.org"] * 2
    # What was owed to it is not sent; what others are owed is.
    mail = outbox.claim("w1")
    assert mail is not None
    assert mail.subject == other
    assert outbox.claim("w1") is None
    assert recipients.forget(ANN) == 0


def test_the_commands_tell_what_there_is_and_remove_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.ini"
    file.write_text("")
    loaded = config.load(str(file), {})
    database = open_database(loaded.queue.database, durable=True)
    queue = Queue.configured(database, loaded)
    job_id = queue.submit("http://a.example.com/", "a.example.com", ANN)
    database.close()
    in_json = argparse.Namespace(address=ANN, json=True)
    for_people = argparse.Namespace(address=ANN, json=False)
    admin.mail_export(loaded, in_json)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["kind"], row["id"], row["status"], row["finished_at"]) == (
        "job",
        job_id,
        "queued",
        None,
    )
    admin.mail_export(loaded, for_people)
    assert job_id in capsys.readouterr().out
    admin.mail_forget(loaded, for_people)
    assert capsys.readouterr().out == "the address was removed from 1 row\n"
    for command in (admin.mail_export, admin.mail_forget):
        with pytest.raises(NotDone):
            command(loaded, for_people)
