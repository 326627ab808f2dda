"""The contract of the outbox: each owed mail is one worker's at a time, and is tried until it is sent or given up."""

from __future__ import annotations

import pytest

from md5light.errors import PermanentFailure, TemporaryFailure
from md5light.job import Hashed, Mail
from md5light.queue.jobs import Queue
from md5light.queue.outbox import Outbox
from tests.conftest import Clock

DOWN = TemporaryFailure("connection_failed", "The mail server can't be reached.")
REFUSED = PermanentFailure("refused", "The mail server refused the recipient.")


@pytest.fixture
def job_id(queue: Queue) -> str:
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


def test_an_undelivered_mail_comes_again_until_it_is_given_up(
    outbox: Outbox, queue: Queue, job_id: str, clock: Clock
) -> None:
    for attempt in (1, 2):
        outbox.failed(claim(outbox), DOWN)
        assert mail_of(queue, job_id) == "waiting"
        clock.pass_(0.7 * 30 * 2 ** (attempt - 1))
        assert outbox.claim("w1") is None
        clock.pass_(0.6 * 30 * 2 ** (attempt - 1))
    outbox.failed(claim(outbox), DOWN)
    clock.pass_(1_000_000)
    assert outbox.claim("w1") is None
    assert mail_of(queue, job_id) == "failed"


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


def test_a_mail_that_kills_its_workers_is_given_up(
    outbox: Outbox, queue: Queue, job_id: str
) -> None:
    for attempt in (1, 2, 3):
        assert claim(outbox).attempts == attempt
        outbox.free("w1")
    assert outbox.claim("w2") is None
    assert mail_of(queue, job_id) == "failed"


def test_a_mail_given_back_was_not_tried(outbox: Outbox, job_id: str) -> None:
    assert outbox.release(claim(outbox))
    assert claim(outbox).attempts == 1
