"""The contract of the queue: who gets which job when, and whose word counts."""

from __future__ import annotations

import dataclasses
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from md5light.errors import (
    DatabaseUnavailable,
    PermanentFailure,
    QueueFull,
    TemporaryFailure,
    TooMany,
)
from md5light.finding import Wanted
from md5light.job import Hashed, Job
from md5light.queue import open_database
from md5light.queue.database import Database
from md5light.queue.jobs import Progress, Queue
from md5light.queue.limits import Limits
from md5light.queue.outbox import Outbox
from md5light.queue.totals import Totals
from tests.claiming import HASHED, URL, roomy_queue, work_side_by_side
from tests.conftest import Clock, MakeQueue
from tests.forked import forking
from tests.gathering import Gathering

BROKEN = TemporaryFailure("connection_failed", "The connection broke.")
REFUSED = PermanentFailure("http_status", "The server answered 404.")


def submit(queue: Queue, host: str = "files.example.com", email: str | None = None) -> str:
    return queue.submit(f"http://{host}/a", host, email)


def claim(queue: Queue, worker: str = "w1") -> Job:
    job = queue.claim(worker)
    assert job is not None
    return job


def stored(queue: Queue, job_id: str) -> Job:
    job = queue.get(job_id)
    assert job is not None
    return job


def test_a_submitted_job_waits(queue: Queue, clock: Clock) -> None:
    job = stored(queue, submit(queue))
    assert uuid.UUID(job.id).version == 4
    assert (job.status, job.attempts, job.created_at, job.mail) == ("queued", 0, clock(), "none")
    assert not job.finished


@pytest.mark.parametrize(
    "job_id", ["nothing", "0e4fac17-f367-4807-8c28-8a059a2f82ac", "", "\0", "\udcff", "a" * 5000]
)
def test_an_unknown_job_is_none(queue: Queue, job_id: str) -> None:
    assert queue.get(job_id) is None
    assert not queue.cancel(job_id)
    assert not queue.retry(job_id)


def test_a_claim_takes_the_job_from_all_others(queue: Queue) -> None:
    job_id = submit(queue)
    job = claim(queue)
    assert (job.id, job.status, job.attempts, job.worker) == (job_id, "running", 1, "w1")
    assert queue.claim("w2") is None


def test_claims_come_in_the_order_of_submission(queue: Queue, clock: Clock) -> None:
    submitted = []
    for _ in range(5):
        submitted.append(submit(queue))
        clock.pass_(0.001)
    assert [claim(queue).id for _ in range(5)] == submitted


def test_a_result_is_stored_and_the_next_job_claimed_at_once(queue: Queue, clock: Clock) -> None:
    first = submit(queue)
    clock.pass_(1)
    second = submit(queue)
    status, following = queue.settle(claim(queue), HASHED, claim_next=True)
    assert status == "done"
    assert following is not None
    assert following.id == second
    done = stored(queue, first)
    assert done.finished
    assert (done.status, done.md5, done.size, done.bytes_done, done.bytes_total) == (
        "done",
        HASHED.md5,
        7,
        7,
        7,
    )
    assert (done.content_type, done.etag, done.finished_at) == ("text/plain", '"1"', clock())


def test_what_is_wanted_stays_with_a_job_until_it_is_found(queue: Queue, clock: Clock) -> None:
    wanted = Wanted.of(["sha512", "md5", "sha1"], {"sha256": "2" * 64, "size": 7})
    assert wanted.digests == "sha1 sha256 sha512"
    job_id = queue.submit(URL, "files.example.com", wanted=wanted)
    queue.settle(claim(queue), BROKEN)
    clock.pass_(100)
    queue.release(claim(queue))
    job = claim(queue)
    assert job.further == dict.fromkeys(["sha1", "sha256", "sha512"])
    assert stored(queue, job_id).expected == {"size": 7, "sha256": "2" * 64}
    found: dict[str, Any] = {"sha1": "1" * 40, "sha256": "2" * 64, "sha512": "5" * 128}
    queue.settle(job, dataclasses.replace(HASHED, **found))
    done = stored(queue, job_id)
    assert (done.further, done.check, done.note) == (found, "matched", None)


def test_a_claim_not_renewed_is_free_again(queue: Queue, clock: Clock) -> None:
    submit(queue)
    claim(queue, "dead")
    clock.pass_(59)
    assert queue.claim("w2") is None
    clock.pass_(1)
    assert claim(queue, "w2").attempts == 2


def test_renewing_keeps_a_claim_and_shows_progress(queue: Queue, clock: Clock) -> None:
    job_id = submit(queue)
    job = claim(queue)
    for _ in range(5):
        clock.pass_(50)
        assert queue.renew([Progress(job, 10, 20)]) == []
    assert queue.claim("w2") is None
    assert (stored(queue, job_id).bytes_done, stored(queue, job_id).bytes_total) == (10, 20)


def test_a_lease_that_has_just_begun_is_not_extended(queue: Queue, clock: Clock) -> None:
    submit(queue)
    job = queue.claim("w1")
    assert job is not None
    assert job.due_at is not None
    clock.pass_(9)
    queue.renew([Progress(job, 10, 20)])
    assert stored(queue, job.id) == job._replace(bytes_done=10, bytes_total=20)
    clock.pass_(2)
    queue.renew([Progress(job, 15, 20)])
    assert stored(queue, job.id).due_at == job.due_at + 11


@pytest.mark.parametrize(
    "outcome", [HASHED, BROKEN, REFUSED], ids=["done", "temporary", "permanent"]
)
def test_a_worker_taken_for_dead_cannot_write(queue: Queue, clock: Clock, outcome: Hashed) -> None:
    job_id = submit(queue)
    stale = claim(queue, "stale")
    clock.pass_(60)
    current = claim(queue, "current")
    before = stored(queue, job_id)
    assert queue.settle(stale, outcome)[0] == "lost"
    assert queue.release(stale) is False
    assert queue.renew([Progress(stale, 1, 1)]) == [stale]
    assert stored(queue, job_id) == before
    assert queue.settle(current, HASHED)[0] == "done"


def test_a_temporary_failure_comes_again_after_a_doubling_pause(queue: Queue, clock: Clock) -> None:
    job_id = submit(queue)
    for expected in (10, 20):
        assert queue.settle(claim(queue), BROKEN)[0] == "queued"
        job = stored(queue, job_id)
        assert job.due_at is not None
        assert 0.75 * expected <= job.due_at - clock() <= 1.25 * expected
        assert (job.error_code, job.finished_at) == ("connection_failed", None)
        clock.pass_(0.7 * expected)
        assert queue.claim("w1") is None
        clock.pass_(0.6 * expected)
    assert queue.settle(claim(queue), BROKEN)[0] == "failed"
    job = stored(queue, job_id)
    assert (job.status, job.attempts, job.error_code) == ("failed", 3, "connection_failed")


def test_a_server_that_asks_for_patience_gets_it(queue: Queue, clock: Clock) -> None:
    job_id = submit(queue)
    queue.settle(claim(queue), TemporaryFailure("http_status", "503", retry_after=1000))
    assert stored(queue, job_id).due_at == clock() + 1000


def test_a_permanent_failure_is_final(queue: Queue) -> None:
    job_id = submit(queue)
    assert queue.settle(claim(queue), REFUSED)[0] == "failed"
    job = stored(queue, job_id)
    assert (job.status, job.attempts, job.error_message, job.due_at) == (
        "failed",
        1,
        REFUSED.message,
        None,
    )
    assert queue.claim("w1") is None


def test_a_job_given_back_was_not_tried(queue: Queue) -> None:
    job_id = submit(queue)
    assert queue.release(claim(queue))
    assert (stored(queue, job_id).status, stored(queue, job_id).attempts) == ("queued", 0)
    assert claim(queue).attempts == 1


def test_the_claims_of_a_dead_worker_are_freed_at_once(queue: Queue) -> None:
    submit(queue)
    submit(queue)
    stale = claim(queue, "dead")
    claim(queue, "alive")
    assert queue.free("dead") == 1
    assert claim(queue, "w2").id == stale.id
    assert queue.claim("w2") is None
    assert queue.settle(stale, HASHED)[0] == "lost"


def test_a_job_that_kills_its_workers_ends_as_failed(queue: Queue, outbox: Outbox) -> None:
    job_id = submit(queue, email="ann@example.com")
    for attempt in (1, 2, 3):
        assert claim(queue, "victim").attempts == attempt
        queue.free("victim")
    assert queue.claim("next") is None
    job = stored(queue, job_id)
    assert (job.status, job.error_code, job.attempts) == ("failed", "worker_lost", 3)
    assert outbox.claim("w1") is not None


def test_a_canceled_job_is_nobodys(queue: Queue) -> None:
    waiting, running = submit(queue), submit(queue)
    job = claim(queue)
    for job_id in (waiting, running):
        assert queue.cancel(job_id)
        assert stored(queue, job_id).status == "canceled"
        assert not queue.cancel(job_id)
    assert queue.claim("w1") is None
    assert queue.renew([Progress(job, 1, 2)]) == [job]
    assert queue.settle(job, HASHED)[0] == "lost"
    assert not queue.cancel("nothing")


def test_no_more_is_accepted_than_may_wait(make_queue: MakeQueue) -> None:
    queue = make_queue(max_unfinished=3)
    ids = [submit(queue) for _ in range(3)]
    with pytest.raises(QueueFull):
        submit(queue)
    queue.cancel(ids[0])
    submit(queue)
    with pytest.raises(QueueFull):
        submit(queue)


def test_the_room_in_the_queue_holds_for_several_servers(make_queue: MakeQueue) -> None:
    servers = [make_queue(max_unfinished=100) for _ in range(4)]
    accepted = 0
    for turn in range(200):
        try:
            submit(servers[turn % 4])
            accepted += 1
        except QueueFull:
            pass
    assert accepted == 100


def test_a_clients_share_holds_over_servers_and_comes_back(
    make_queue: MakeQueue, clock: Clock
) -> None:
    one, other = (
        make_queue(limits=Limits(submits_per_minute=3)),
        make_queue(limits=Limits(submits_per_minute=3)),
    )
    for server in (one, other, one):
        server.submit(URL, "files.example.com", client="198.51.100.7")
        clock.pass_(10)
    with pytest.raises(TooMany) as refused:
        other.submit(URL, "files.example.com", client="198.51.100.7")
    assert refused.value.code == "too_many_submits"
    assert refused.value.retry_after == pytest.approx(30)
    other.submit(URL, "files.example.com", client="198.51.100.8")
    clock.pass_(30)
    other.submit(URL, "files.example.com", client="198.51.100.7")


def test_a_recipients_share_holds_however_it_is_spelt(make_queue: MakeQueue, clock: Clock) -> None:
    queue = make_queue(limits=Limits(mails_per_hour=2))
    for email in ("ann@example.com", "Ann@example.com"):
        submit(queue, email=email)
    with pytest.raises(TooMany) as refused:
        submit(queue, email="ANN@example.com")
    assert (refused.value.code, refused.value.retry_after) == ("too_many_mails", 3600)
    submit(queue, email="bob@example.com")
    submit(queue)
    clock.pass_(3600)
    submit(queue, email="ann@example.com")


def test_old_jobs_are_removed_few_at_a_time(queue: Queue, outbox: Outbox, clock: Clock) -> None:
    for email in [None, None, None, "ann@example.com"]:
        submit(queue, email=email)
        queue.settle(claim(queue), HASHED)
    clock.pass_(1000)
    recent, waiting = submit(queue), submit(queue)
    queue.settle(claim(queue), HASHED)
    assert queue.purge(1001) == 0
    assert [queue.purge(999, rows=2) for _ in range(3)] == [2, 1, 0]
    mail = outbox.claim("w1")
    assert mail is not None
    outbox.sent(mail)
    assert queue.purge(999) == 1
    assert outbox.claim("w1") is None
    assert {stored(queue, job_id).status for job_id in (recent, waiting)} == {"done", "queued"}


def test_no_job_expires_while_the_clock_is_days_ahead(
    queue: Queue, database: Database, clock: Clock
) -> None:
    submit(queue)
    queue.settle(claim(queue), HASHED)
    clock.pass_(40 * 86400)
    assert queue.purge_expired(30 * 86400) == 0
    clock.pass_(-40 * 86400 + 1000)
    assert queue.purge_expired(30 * 86400) == 0
    assert queue.purge_expired(999) == 1


def test_a_heartbeat_or_a_result_of_a_clock_that_jumped_is_not_believed(
    queue: Queue, database: Database, clock: Clock
) -> None:
    submit(queue)
    queue.settle(claim(queue), HASHED)
    totals = Totals(database)
    totals.heartbeat("w1")
    clock.pass_(40 * 86400)
    totals.heartbeat("w1")
    submit(queue)
    queue.settle(claim(queue), HASHED)
    totals.heartbeat("w2")
    assert queue.purge_expired(30 * 86400) == 0
    for _ in range(61):  # after ten minutes the clock is believed: it may have been behind before
        clock.pass_(10)
        totals.heartbeat("w1")
    assert queue.purge_expired(30 * 86400) == 1


def test_a_service_that_was_off_for_days_purges_again(
    queue: Queue, database: Database, clock: Clock
) -> None:
    submit(queue)
    queue.settle(claim(queue), HASHED)
    clock.pass_(40 * 86400)
    Totals(database).heartbeat("w1")
    assert queue.purge_expired(30 * 86400) == 1


def test_submissions_from_a_clock_ahead_count_for_no_limit(
    make_queue: MakeQueue, clock: Clock
) -> None:
    queue = make_queue(limits=Limits(submits_per_minute=1, mails_per_hour=1))
    clock.pass_(40 * 86400)
    queue.submit(URL, "files.example.com", "ann@example.com", client="198.51.100.7")
    clock.pass_(-40 * 86400)
    queue.submit(URL, "files.example.com", "ann@example.com", client="198.51.100.7")
    with pytest.raises(TooMany) as refused:
        queue.submit(URL, "files.example.com", client="198.51.100.7")
    assert refused.value.retry_after <= 60


def test_durations_never_go_below_zero(queue: Queue, database: Database, clock: Clock) -> None:
    submit(queue)
    job = claim(queue)
    clock.pass_(-86400)
    queue.settle(job, HASHED)
    snapshot = Totals(database).snapshot()
    assert (snapshot.duration_seconds, sum(snapshot.durations.values())) == (0, 1)


def test_a_job_set_aside_comes_back_in_its_turn(make_queue: MakeQueue, clock: Clock) -> None:
    """A retry that was due first goes before a job that was submitted earlier but due later."""
    queue = make_queue(per_host=1)
    first = submit(queue, "busy.example.com")
    queue.settle(claim(queue), BROKEN)  # due again in some 10 s
    clock.pass_(5)
    running = submit(queue, "busy.example.com")
    held = claim(queue)
    assert held.id == running
    clock.pass_(15)
    later = submit(queue, "busy.example.com")
    assert queue.claim("w1") is None
    aside = [stored(queue, job_id) for job_id in (first, later)]
    assert [job.due_at for job in aside] == [None, None]
    assert all(job.turn for job in aside)
    queue.settle(held, HASHED)
    assert claim(queue).id == first


def test_a_busy_host_delays_no_other(make_queue: MakeQueue, clock: Clock) -> None:
    queue = make_queue(per_host=2)
    busy = [submit(queue, "busy.example.com") for _ in range(50)]
    clock.pass_(1)
    other = submit(queue, "other.example.com")
    claimed = [claim(queue) for _ in range(3)]
    assert [job.host for job in claimed] == [
        "busy.example.com",
        "busy.example.com",
        "other.example.com",
    ]
    assert claimed[2].id == other
    assert queue.claim("w1") is None
    queue.settle(claimed[0], HASHED)
    assert claim(queue).id in busy
    assert queue.claim("w1") is None


@pytest.mark.parametrize("leave", ["settle", "retry", "release", "cancel", "free"])
def test_each_job_that_leaves_its_host_lets_the_next_come_up(
    make_queue: MakeQueue, clock: Clock, leave: str
) -> None:
    queue = make_queue(per_host=1, max_attempts=1 if leave == "free" else 3)
    for _ in range(3):
        submit(queue)
        clock.pass_(1)
    seen = set()
    for _ in range(3):
        job = claim(queue)
        seen.add(job.id)
        assert queue.claim("other") is None
        if leave == "settle":
            queue.settle(job, HASHED)
        elif leave == "retry":
            queue.settle(job, BROKEN)
        elif leave == "cancel":
            queue.cancel(job.id)
        elif leave == "free":
            queue.free("w1")
        else:
            queue.release(job)
            queue.cancel(job.id)
    assert len(seen) == 3


def test_a_limit_lifted_lets_all_come_up(make_queue: MakeQueue) -> None:
    narrow, wide = make_queue(per_host=1), make_queue(per_host=0)
    for _ in range(10):
        submit(narrow)
    first = claim(narrow)
    assert narrow.claim("w1") is None
    wide.settle(first, HASHED)
    assert len({claim(wide).id for _ in range(9)}) == 9


@pytest.mark.parametrize("canceled", [False, True])
def test_results_that_come_at_the_same_moment_are_each_stored(
    queue: Queue, database: Database, canceled: bool
) -> None:
    for _ in range(6):
        submit(queue)
    jobs = [claim(queue) for _ in range(3)]
    if canceled:
        queue.cancel(jobs[2].id)
    gathering = Gathering(database)
    with ThreadPoolExecutor() as threads:
        results = [
            threads.submit(queue.settle, jobs[0], HASHED, claim_next=True),
            threads.submit(queue.settle, jobs[1], REFUSED, claim_next=True),
            threads.submit(queue.settle, jobs[2], HASHED, claim_next=True),
        ]
        gathering.let_go_of(3)
        statuses, following = zip(*(result.result(10) for result in results), strict=True)
    assert statuses == ("done", "failed", "lost" if canceled else "done")
    assert [stored(queue, job.id).status for job in jobs] == [
        "done",
        "failed",
        "canceled" if canceled else "done",
    ]
    assert {job.worker for job in following} == {"w1"}
    assert len({job.id for job in (*jobs, *following)}) == 6
    finished = Totals(database).snapshot().finished
    assert finished["done", ""] + finished.get(("canceled", ""), 0) == 2


def test_a_mail_is_owed_from_the_transaction_of_the_result(queue: Queue, outbox: Outbox) -> None:
    job_id = submit(queue, email="ann@example.com")
    assert stored(queue, job_id).mail == "waiting"
    assert outbox.claim("w1") is None
    queue.settle(claim(queue), HASHED)
    mail = outbox.claim("w1")
    assert mail is not None
    assert (mail.kind, mail.subject, mail.recipient) == ("job", job_id, "ann@example.com")
    assert mail.job
    assert (mail.job.status, mail.job.md5) == ("done", HASHED.md5)
    assert outbox.sent(mail)
    assert stored(queue, job_id).mail == "sent"


@pytest.mark.slow
def test_threads_and_processes_claim_side_by_side(location: str, tmp_path: Path) -> None:
    database = open_database(location, durable=False)
    queue = roomy_queue(database)
    submitted = {submit(queue) for _ in range(400)}
    workers = [
        forking.Process(target=work_side_by_side, args=[location, tmp_path / f"wins{n}"])
        for n in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    won = Counter("\n".join(file.read_text() for file in tmp_path.glob("wins*")).split())
    assert set(won) == submitted
    assert set(won.values()) == {1}
    assert all(stored(queue, job_id).attempts == 1 for job_id in submitted)
    database.close()


def test_a_host_never_has_more_than_its_share_whoever_claims_at_once(database: Database) -> None:
    queue = roomy_queue(database, per_host=2)
    ids = [submit(queue, host) for host in ("a.example.com", "b.example.com") for _ in range(20)]
    running, counting, most = Counter[str](), threading.Lock(), Counter[str]()

    def work(name: str) -> None:
        job = queue.claim(name)
        while job or any(not stored(queue, job_id).finished for job_id in ids):
            if job:
                with counting:
                    running[job.host] += 1
                    most[job.host] = max(most[job.host], running[job.host])
                stored(queue, job.id)  # takes a moment, as a download would
                with counting:
                    running[job.host] -= 1
                _, job = queue.settle(job, HASHED, claim_next=True)
            else:
                job = queue.claim(name)

    threads = [threading.Thread(target=work, args=[f"w{n}"]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {stored(queue, job_id).status for job_id in ids} == {"done"}
    assert max(most.values()) <= 2


def test_the_probe_writes(queue: Queue, database: Database, clock: Clock) -> None:
    queue.probe()
    clock.pass_(5)
    queue.probe()
    row = database.read(lambda transaction: transaction.one("select probed_at from probe"))
    assert row == {"probed_at": clock()}


def test_a_retried_job_is_as_new_and_its_stale_worker_is_not_heard(
    queue: Queue, clock: Clock
) -> None:
    job_id = submit(queue)
    stale = claim(queue, "stale")
    assert queue.cancel(job_id)
    assert queue.retry(job_id)
    assert not queue.retry(job_id)
    assert queue.settle(stale, HASHED)[0] == "lost"
    current = claim(queue, "w2")
    assert (current.id, current.attempts) == (job_id, 1)
    assert queue.settle(stale, HASHED)[0] == "lost"
    assert queue.settle(current, HASHED)[0] == "done"
    assert not queue.retry(job_id)
    assert not queue.retry("nothing")


def test_a_retried_jobs_mail_is_owed_once_and_anew(
    queue: Queue, outbox: Outbox, clock: Clock
) -> None:
    job_id = submit(queue, email="ann@example.com")
    queue.settle(claim(queue), REFUSED)
    on_its_way = outbox.claim("w1")
    assert on_its_way is not None
    assert queue.retry(job_id)
    assert stored(queue, job_id).mail == "waiting"
    assert not outbox.sent(on_its_way)
    assert outbox.claim("w1") is None
    queue.settle(claim(queue), HASHED)
    mail = outbox.claim("w1")
    assert mail is not None
    assert mail.job
    assert (mail.job.id, mail.job.status, mail.attempts) == (job_id, "done", 1)


def test_the_newest_jobs_come_first(queue: Queue, clock: Clock) -> None:
    ids: list[str] = []
    for _ in range(4):
        clock.pass_(1)
        ids.insert(0, submit(queue))
    queue.cancel(ids[1])
    queue.cancel(ids[3])
    assert [job.id for job in queue.newest(3)] == ids[:3]
    assert [job.id for job in queue.newest(3, "canceled")] == [ids[1], ids[3]]
    assert queue.newest(3, "done") == []


def test_a_probe_finds_a_schema_of_another_program(database: Database, queue: Queue) -> None:
    queue.probe()
    database.write(lambda transaction: transaction.run("update schema_version set version = 99"))
    with pytest.raises(DatabaseUnavailable, match="schema 99, not"):
        queue.probe()
