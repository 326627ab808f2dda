"""The contract of the outbox: one worker at a time holds a mail, until it is sent or given up."""

from __future__ import annotations

import pytest

from md5light.errors import PermanentFailure, TemporaryFailure
from md5light.job import Hashed, Mail
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.queue.outbox import Outbox
from md5light.queue.totals import Totals
from tests.conftest import Clock

DOWN = TemporaryFailure("connection_failed", "The mail server can't be reached.")
REFUSED = PermanentFailure("refused", "The mail server refused the recipient.")


@pytest.fixture
def job_id(queue: Queue) -> str:
    return finished_job(queue)


def finished_job(queue: Queue) -> str:
    """Make a job that has ended and owes a mail."""
    job_id = queue.submit("http://files.example.com/a", "files.example.com", "ann@example.com")
    job = queue.claim("w1")
    assert job is not None
    queue.settle(job, Hashed("f4afe93ad799484b1d512cc20e93efd1", 7, job.url, None, None, None))
    return job_id


def claim(outbox: Outbox, worker: str = "w1") -> Mail:
    mail = outbox.claim(worker)
    assert mail is not None
    return mail


def mail_of(queue: Queue, job_id: str) -> str:
    job = queue.get(job_id)
    assert job is not None
    return job.mail


def test_a_mail_is_one_workers_at_a_time(outbox: Outbox, job_id: str) -> None:
    assert claim(outbox).attempts == 1
    assert outbox.claim("w2") is None


def test_a_sent_mail_is_not_sent_again(
    outbox: Outbox, queue: Queue, job_id: str, clock: Clock
) -> None:
    assert outbox.sent(claim(outbox))
    clock.pass_(1_000_000)
    assert outbox.claim("w2") is None
    assert mail_of(queue, job_id) == "sent"


def test_an_undelivered_mail_comes_again_after_a_doubling_pause(
    outbox: Outbox, queue: Queue, job_id: str, clock: Clock
) -> None:
    for expected in (30, 60, 120):
        outbox.failed(claim(outbox), DOWN)
        assert mail_of(queue, job_id) == "waiting"
        clock.pass_(0.7 * expected)
        assert outbox.claim("w1") is None
        clock.pass_(0.6 * expected)
    assert claim(outbox).attempts == 4


def test_a_mail_is_tried_for_days_and_then_given_up(
    outbox: Outbox, queue: Queue, job_id: str, clock: Clock
) -> None:
    owed_at, attempts = clock(), 0
    while mail := outbox.claim("w1"):
        attempts += 1
        failed_at = clock()
        outbox.failed(mail, DOWN)
        clock.pass_(4500)  # more than an hour and its jitter
    assert mail_of(queue, job_id) == "failed"
    assert 4 * 86400 <= failed_at - owed_at < 4 * 86400 + 4500
    assert attempts > 70


def test_a_failed_mail_can_be_retried_and_is_as_new(
    outbox: Outbox, queue: Queue, job_id: str, clock: Clock
) -> None:
    assert not outbox.retry(job_id)
    outbox.failed(claim(outbox), REFUSED)
    clock.pass_(5 * 86400)
    assert not outbox.retry("nothing")
    assert outbox.retry(job_id)
    assert not outbox.retry(job_id)
    mail = claim(outbox)
    assert (mail.attempts, mail.created_at) == (1, clock())
    outbox.failed(mail, DOWN)
    assert mail_of(queue, job_id) == "waiting"
    clock.pass_(3600)
    assert outbox.sent(claim(outbox))
    assert not outbox.retry(job_id)


def test_all_failed_mails_can_be_retried(outbox: Outbox, queue: Queue, job_id: str) -> None:
    outbox.failed(claim(outbox), REFUSED)
    assert outbox.retry_failed() == 1
    assert outbox.retry_failed() == 0
    assert outbox.sent(claim(outbox))


def test_the_newest_mails_come_first(outbox: Outbox, queue: Queue, clock: Clock) -> None:
    ids: list[str] = []
    for outcome in (outbox.sent, lambda mail: outbox.failed(mail, REFUSED), outbox.release):
        clock.pass_(1)
        ids.insert(0, finished_job(queue))
        outcome(claim(outbox))
    mails = outbox.newest(10)
    assert [mail.subject for mail in mails] == ids
    assert [mail.status for mail in mails] == ["waiting", "failed", "sent"]
    assert [mail.error_code for mail in mails] == [None, "refused", None]
    assert [mail.subject for mail in outbox.newest(10, "failed")] == [ids[1]]
    assert [mail.subject for mail in outbox.newest(2)] == ids[:2]
    assert outbox.newest(10, "nothing") == []


def test_the_snapshot_tells_how_long_mails_have_been_failing(
    outbox: Outbox, database: Database, job_id: str, clock: Clock
) -> None:
    totals = Totals(database)
    clock.pass_(86400 + 1)
    before = totals.snapshot()
    assert (before.mails_waiting, before.oldest_mail_seconds) == (1, 86401)
    assert before.mails_failing == 0  # nobody has tried it
    outbox.failed(claim(outbox), DOWN)
    assert totals.snapshot().mails_failing == 1
    clock.pass_(3600)
    outbox.sent(claim(outbox))
    after = totals.snapshot()
    assert (after.mails_waiting, after.oldest_mail_seconds, after.mails_failing) == (0, 0, 0)


def test_a_refused_mail_is_given_up_at_once(outbox: Outbox, queue: Queue, job_id: str) -> None:
    outbox.failed(claim(outbox), REFUSED)
    assert mail_of(queue, job_id) == "failed"


def test_a_lost_mail_is_claimed_again_and_the_loser_cannot_write(
    outbox: Outbox, queue: Queue, job_id: str, clock: Clock
) -> None:
    stale = claim(outbox, "stale")
    clock.pass_(59)
    assert outbox.renew(stale)
    clock.pass_(59)
    assert outbox.claim("w2") is None
    clock.pass_(1)
    current = claim(outbox, "w2")
    assert not outbox.renew(stale)
    assert not outbox.sent(stale)
    assert not outbox.failed(stale, REFUSED)
    assert not outbox.release(stale)
    assert mail_of(queue, job_id) == "waiting"
    assert outbox.sent(current)


def test_a_dead_workers_mail_is_freed_at_once(outbox: Outbox, job_id: str) -> None:
    claim(outbox, "dead")
    assert outbox.free("dead") == 1
    assert claim(outbox, "w2").attempts == 2


def test_a_mail_that_kills_its_workers_waits_between_them_and_is_given_up(
    outbox: Outbox, queue: Queue, job_id: str, clock: Clock
) -> None:
    for attempt in (1, 2, 3):
        assert claim(outbox).attempts == attempt
        outbox.free("w1")
    assert outbox.claim("w2") is None
    (mail,) = outbox.newest(1)
    assert (mail.status, mail.error_code) == ("waiting", "worker_lost")
    assert mail.due_at
    assert mail.due_at > clock() + 60
    clock.pass_(4 * 86400)
    claim(outbox)
    outbox.free("w1")
    assert outbox.claim("w2") is None
    assert mail_of(queue, job_id) == "failed"


def test_a_mail_given_back_was_not_tried(outbox: Outbox, job_id: str) -> None:
    assert outbox.release(claim(outbox))
    assert claim(outbox).attempts == 1
