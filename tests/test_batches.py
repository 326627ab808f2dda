"""The contract of batches: taken whole or not at all, worked off as jobs, ended exactly once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from md5light.batch import Batch, Counts, ErrorCount, NewBatch, NewLine
from md5light.errors import (
    DatabaseUnavailable,
    Failure,
    PermanentFailure,
    QueueFull,
    Refused,
    TemporaryFailure,
    TooMany,
)
from md5light.job import Hashed, Job
from md5light.queue import batches as module
from md5light.queue import results, sweeps
from md5light.queue.batches import Batches
from md5light.queue.database import Database
from md5light.queue.jobs import Progress, Queue
from md5light.queue.limits import Limits
from md5light.queue.outbox import Outbox
from md5light.queue.totals import Totals
from tests.conftest import Clock, MakeQueue

HOST = "files.example.com"
EMAIL = "ann@example.com"
ZERO = "0" * 32
ONES = "1" * 32
REFUSED = PermanentFailure("http_status", "The server answered 404.")
BROKEN = TemporaryFailure("connection_failed", "The connection broke.")

MakeBatches = Callable[..., Batches]


@pytest.fixture
def make_batches(database: Database) -> MakeBatches:
    def make(**changed: Any) -> Batches:
        return Batches(database, **{"max_attempts": 3, **changed})

    return make


@pytest.fixture
def batches(make_batches: MakeBatches) -> Batches:
    return make_batches()


def url(number: int) -> str:
    return f"http://{HOST}/{number}"


def line(position: int, file: int | None = None, **known: Any) -> NewLine:
    address = url(position if file is None else file)
    return NewLine(position, **{"sent": address, "url": address, "host": HOST, **known})


def submit(batches: Batches, lines: Iterable[NewLine], **known: Any) -> Batch:
    batch_id = batches.begin(NewBatch(**{"format": "urls", "client": "192.0.2.1", **known}))
    batches.add(batch_id, list(lines))
    return batches.publish(batch_id)


def submit_urls(batches: Batches, count: int, **known: Any) -> Batch:
    return submit(batches, map(line, range(1, count + 1)), **known)


def stored(batches: Batches, batch: Batch) -> Batch:
    found = batches.get(batch.id)
    assert found is not None
    return found


def counts(batches: Batches, batch: Batch) -> Counts:
    """Count afresh, without the second for which a process believes what it has read."""
    batches._results._kept.clear()
    found = batches.result(stored(batches, batch)).counts
    assert sum(found[1:]) == found.total
    return found


def hashed(job: Job, md5: str = ZERO, size: int = 7) -> Hashed:
    return Hashed(md5, size, job.url, "text/plain", None, None)


def claim(queue: Queue) -> Job:
    job = queue.claim("w1")
    assert job is not None
    return job


def work(queue: Queue, outcome: Callable[[Job], Hashed | Failure] = hashed) -> list[Job]:
    """Do all that is due; returns the jobs in their order."""
    done = []
    while job := queue.claim("w1"):
        queue.settle(job, outcome(job))
        done.append(job)
    return done


# --- taking a list --------------------------------------------------------------------------------


def test_a_list_is_invisible_and_not_due_until_it_is_published(
    batches: Batches, queue: Queue
) -> None:
    batch_id = batches.begin(NewBatch("urls", "192.0.2.1"))
    batches.add(batch_id, [line(1), line(2)])
    batches.add(batch_id, [line(3)])
    assert batches.get(batch_id) is None
    assert (batches.newest(9), batches.find(batch_id[:8]), queue.newest(9)) == ([], [], [])
    assert queue.claim("w1") is None
    batch = batches.publish(batch_id)
    assert batch == batches.get(batch_id) == batches.newest(9)[0]
    assert (batch.status, batch.lines, batch.urls, batch.mail) == ("running", 3, 3, "none")
    assert [job.url for job in work(queue)] == [url(1), url(2), url(3)]


def test_what_is_known_of_a_batch_comes_back(batches: Batches, clock: Clock) -> None:
    batch = submit_urls(
        batches, 1, name="a ☃", format="csv", header="url", digests=("sha1", "sha256"), email=EMAIL
    )
    assert batch == Batch(
        batch.id, "running", "a ☃", "csv", "url", ("sha1", "sha256"), EMAIL, 1, 1, clock(), None, 0,
        "waiting",
    )  # fmt: skip


@pytest.mark.parametrize(
    "batch_id", ["nothing", "0e4fac17-f367-4807-8c28-8a059a2f82ac", "", "\0", "\udcff", "a" * 5000]
)
def test_an_unknown_batch_is_none(batches: Batches, batch_id: str) -> None:
    assert batches.get(batch_id) is None
    assert not batches.cancel(batch_id)
    assert not batches.retry(batch_id)


def test_a_url_that_stands_twice_is_one_job_and_answers_both_lines(
    batches: Batches, queue: Queue
) -> None:
    batch_id = batches.begin(NewBatch("urls", "192.0.2.1"))
    batches.add(batch_id, [line(1, 5), line(2, 6), line(3, 5)])
    batches.add(batch_id, [line(4, 5, name="again"), line(5, 7)])
    batch = batches.publish(batch_id)
    assert (batch.lines, batch.urls) == (5, 3)
    assert [job.url for job in work(queue)] == [url(5), url(6), url(7)]
    assert counts(batches, batch) == Counts(total=5, hashed=5)
    assert batches.result(batch).bytes == 3 * 7
    assert [entry.url for entry in batches.entries(batch.id)] == [
        url(5),
        url(6),
        url(5),
        url(5),
        url(7),
    ]


def test_ids_of_a_batchs_jobs_are_uuids_with_beginnings_of_their_own(
    batches: Batches, queue: Queue
) -> None:
    one, other = submit_urls(batches, 20), submit_urls(batches, 20)
    ids = [job.id for job in queue.newest(99)]
    assert {uuid.UUID(job_id).version for job_id in ids} == {4}
    assert len({job_id[:8] for job_id in ids}) == len({job_id[8:] for job_id in ids}) == 40
    for batch in (one, other):
        assert not any(part in "".join(ids) for part in batch.id.split("-", 1)[1:])
        assert not queue.find(batch.id)


def test_the_same_url_in_two_batches_is_two_jobs(batches: Batches, queue: Queue) -> None:
    submit_urls(batches, 2), submit_urls(batches, 2)
    assert len(work(queue)) == 4


def test_a_list_that_is_discarded_leaves_nothing(
    batches: Batches, queue: Queue, database: Database
) -> None:
    batch_id = batches.begin(NewBatch("urls", "192.0.2.1"))
    batches.add(batch_id, [line(1), line(2)])
    batches.discard(batch_id)
    assert rows(database) == {"batches": 0, "lines": 0, "jobs": 0, "outbox": 0}
    with pytest.raises(DatabaseUnavailable):
        batches.add(batch_id, [line(3)])
    with pytest.raises(DatabaseUnavailable):
        batches.publish(batch_id)


def test_what_a_dead_server_left_is_removed_and_what_goes_on_is_not(
    batches: Batches, database: Database, clock: Clock
) -> None:
    dead, alive = (batches.begin(NewBatch("urls", "192.0.2.1")) for _ in range(2))
    batches.add(dead, [line(1)])
    for position in (1, 2):
        clock.pass_(29)
        batches.add(alive, [line(position)])
        batches.sweep()
    with pytest.raises(DatabaseUnavailable):
        batches.publish(dead)
    batch = batches.publish(alive)
    assert rows(database) == {"batches": 1, "lines": 2, "jobs": 2, "outbox": 0}
    clock.pass_(1000)
    batches.sweep()
    assert stored(batches, batch) == batch


def rows(database: Database) -> dict[str, int]:
    def count(table: str) -> int:
        (row,) = database.read(lambda reading: reading.all(f"select count(*) as n from {table}"))
        return int(row["n"])

    return {table: count(table) for table in ("batches", "lines", "jobs", "outbox")}


# --- Idempotency-Key ------------------------------------------------------------------------------


def test_a_repeat_with_the_same_key_gives_the_first_answer(batches: Batches) -> None:
    known = {"client": "c", "idempotency_key": "k", "fingerprint": "f"}
    assert batches.repeat_of("c", "k", "f") is None
    batch = submit_urls(batches, 1, **known)
    assert batches.repeat_of("c", "k", "f") == batch
    with pytest.raises(Refused) as refused:
        batches.repeat_of("c", "k", "other")
    assert refused.value.code == "idempotency_key_reused"
    assert batches.repeat_of("other", "k", "f") is None
    assert batches.repeat_of("c", "other", "f") is None


@pytest.mark.parametrize("fingerprint", ["f", "other"])
def test_of_two_lists_with_one_key_that_are_taken_at_once_the_first_counts(
    batches: Batches, queue: Queue, database: Database, fingerprint: str
) -> None:
    new = NewBatch("urls", "c", idempotency_key="k", fingerprint="f")
    first, second = batches.begin(new), batches.begin(new._replace(fingerprint=fingerprint))
    batches.add(first, [line(1)])
    batches.add(second, [line(1), line(2)])
    batch = batches.publish(first)
    if fingerprint == "f":
        assert batches.publish(second) == batch
    else:
        with pytest.raises(Refused):
            batches.publish(second)
        batches.discard(second)
    assert batches.newest(9) == [batch]
    assert len(work(queue)) == 1
    batches.sweep()
    assert rows(database) == {"batches": 1, "lines": 1, "jobs": 1, "outbox": 0}


# --- limits ---------------------------------------------------------------------------------------


def test_only_so_many_batches_are_unfinished(make_batches: MakeBatches, queue: Queue) -> None:
    batches = make_batches(max_unfinished_batches=2)
    first = submit_urls(batches, 1)
    taking = batches.begin(NewBatch("urls", "192.0.2.1"))
    for _ in range(2):
        with pytest.raises(QueueFull):
            batches.begin(NewBatch("urls", "192.0.2.1"))
    batches.discard(taking)
    submit_urls(batches, 1)
    work(queue)
    assert {ended.id for ended in batches.end_due()} >= {first.id}
    submit_urls(batches, 1)


def test_lines_do_not_count_for_the_room_of_single_jobs(
    batches: Batches, make_queue: MakeQueue
) -> None:
    submit_urls(batches, 50)
    queue = make_queue(max_unfinished=1)
    queue.submit(url(1), HOST)
    with pytest.raises(QueueFull):
        queue.submit(url(1), HOST)


def test_a_batch_counts_once_for_each_of_its_lines(
    make_batches: MakeBatches, make_queue: MakeQueue, clock: Clock
) -> None:
    batches, queue = (
        make_batches(limits=Limits(submits_per_minute=5)),
        make_queue(limits=Limits(submits_per_minute=5)),
    )
    queue.submit(url(1), HOST, client="c")
    clock.pass_(10)
    submit_urls(batches, 3, client="c")
    clock.pass_(10)
    queue.submit(url(1), HOST, client="c")
    refusals: list[Callable[[], object]] = [
        lambda: queue.submit(url(1), HOST, client="c"),
        lambda: batches.begin(NewBatch("urls", "c")),
    ]
    for refuses in refusals:
        with pytest.raises(TooMany) as refused:
            refuses()
        assert (refused.value.code, refused.value.retry_after) == ("too_many_submits", 40)
    queue.submit(url(1), HOST, client="other")
    clock.pass_(40)  # the first one leaves the minute: one more fits, not two
    batch_id = batches.begin(NewBatch("urls", "c"))
    batches.add(batch_id, [line(1)])
    with pytest.raises(TooMany):
        batches.add(batch_id, [line(2)])
    batches.discard(batch_id)
    submit_urls(batches, 1, client="c")


def test_the_first_list_in_a_minute_may_go_above_the_limit(
    make_batches: MakeBatches, make_queue: MakeQueue, clock: Clock
) -> None:
    batches, queue = (
        make_batches(limits=Limits(submits_per_minute=5)),
        make_queue(limits=Limits(submits_per_minute=5)),
    )
    submit_urls(batches, 50, client="c")
    with pytest.raises(TooMany):
        queue.submit(url(1), HOST, client="c")
    with pytest.raises(TooMany):
        batches.begin(NewBatch("urls", "c"))
    clock.pass_(60)
    first, second = batches.begin(NewBatch("urls", "c")), batches.begin(NewBatch("urls", "c"))
    batches.add(second, [line(1)])
    batches.add(first, [line(position) for position in range(1, 50)])
    with pytest.raises(TooMany):
        batches.add(second, [line(2)])
    batches.publish(first)


def test_a_recipients_share_counts_batches_and_their_retries(
    make_batches: MakeBatches, make_queue: MakeQueue, clock: Clock
) -> None:
    batches, queue = (
        make_batches(limits=Limits(mails_per_hour=2)),
        make_queue(limits=Limits(mails_per_hour=2)),
    )
    batch = submit_urls(batches, 1, email=EMAIL)
    work(queue, lambda job: REFUSED)
    batches.end_due()
    clock.pass_(3000)
    queue.submit(url(1), HOST, email=EMAIL.upper())
    refusals: list[Callable[[], object]] = [
        lambda: submit_urls(batches, 1, email=EMAIL.upper()),
        lambda: batches.retry(batch.id),
        lambda: queue.submit(url(1), HOST, email=EMAIL),
    ]
    for refuses in refusals:
        with pytest.raises(TooMany) as refused:
            refuses()
        assert (refused.value.code, refused.value.retry_after) == ("too_many_mails", 600)
    assert stored(batches, batch).ended
    clock.pass_(600)
    assert batches.retry(batch.id)
    with pytest.raises(TooMany):
        submit_urls(batches, 1, email=EMAIL)


# --- counts and entries ---------------------------------------------------------------------------


def test_counts_add_up_at_every_moment(batches: Batches, queue: Queue, clock: Clock) -> None:
    invalid = NewLine(9, "nonsense", error_code="invalid_url", error_message="It is no URL.")
    batch = submit(batches, [*map(line, range(1, 9)), invalid])
    assert counts(batches, batch) == Counts(total=9, waiting=8, failed=1)
    jobs = [claim(queue) for _ in range(4)]
    assert counts(batches, batch) == Counts(total=9, waiting=4, running=4, failed=1)
    outcomes = [None, BROKEN, REFUSED, None]
    for job, outcome in zip(jobs, outcomes, strict=True):
        queue.settle(job, outcome or hashed(job))
    assert counts(batches, batch) == Counts(total=9, waiting=5, hashed=2, failed=2)
    waiting = claim(queue)
    queue.cancel(waiting.id)
    assert counts(batches, batch) == Counts(total=9, waiting=4, hashed=2, failed=2, canceled=1)
    assert batches.result(batch).errors == (
        ErrorCount("http_status", 1, (3,)),
        ErrorCount("invalid_url", 1, (9,)),
    )


@pytest.mark.parametrize(
    ("known", "status"),
    [
        ({}, "hashed"),
        ({"size": 7}, "matched"),
        ({"size": 8}, "mismatched"),
        ({"size": 0}, "mismatched"),
        ({"expected": {"md5": ZERO}}, "matched"),
        ({"expected": {"md5": ONES}}, "mismatched"),
        ({"expected": {"md5": ZERO}, "size": 7}, "matched"),
        ({"expected": {"md5": ZERO}, "size": 8}, "mismatched"),
        ({"expected": {"md5": ONES}, "size": 7}, "mismatched"),
    ],
)
def test_each_line_is_compared_with_what_it_expects(
    batches: Batches, queue: Queue, known: dict[str, Any], status: str
) -> None:
    batch = submit(batches, [line(1), line(2, 1, **known)])
    work(queue)
    entries = list(batches.entries(batch.id))
    assert [entry.status for entry in entries] == ["hashed", status]
    assert (entries[1].expected_size, entries[1].expected) == (
        known.get("size"),
        known.get("expected", {}),
    )
    found = counts(batches, batch)
    assert getattr(found, status) == (2 if status == "hashed" else 1)


def test_lines_are_found_by_their_status(batches: Batches, queue: Queue) -> None:
    kinds: tuple[dict[str, Any], ...] = (
        {},
        {"size": 7},
        {"size": 8},
        {"url": None, "error_code": "x", "error_message": "X"},
    )
    batch = submit(batches, [line(number, **kinds[number % 4]) for number in range(1, 42)])
    work(queue)
    for status, remainder in (("hashed", 0), ("matched", 1), ("mismatched", 2), ("failed", 3)):
        expected = [number for number in range(1, 42) if number % 4 == remainder]
        found = list(batches.entries(batch.id, statuses=[status]))
        assert [entry.position for entry in found] == expected
        assert {entry.status for entry in found} == {status}
        part = batches.entries(batch.id, statuses=[status], after=expected[1], limit=2)
        assert [entry.position for entry in part] == expected[2:4]
    both = batches.entries(batch.id, statuses=["failed", "matched"], limit=3)
    assert [entry.position for entry in both] == [1, 3, 5]
    assert not list(batches.entries(batch.id, statuses=["waiting", "canceled"]))
    first, *_ = batches.entries(batch.id, limit=3)
    job = queue.get(first.job_id or "")
    assert job is not None
    assert job.url == url(1)
    assert [entry.job_id for entry in batches.entries(batch.id, after=2, limit=1)] == [None]


def test_a_file_is_compared_by_every_digest_that_its_lines_expect(
    batches: Batches, queue: Queue
) -> None:
    """Three lines of one URL in two portions: its job computes what any of them needs."""
    batch_id = batches.begin(NewBatch("urls", "192.0.2.1", digests=("sha512",)))
    batches.add(batch_id, [line(1, 1), line(2, 1, expected={"sha1": "a" * 40})])
    batches.add(
        batch_id,
        [
            line(3, 1, expected={"sha256": "b" * 64, "md5": ZERO}),
            line(4, 1, expected={"sha256": "c" * 64}),
            line(5, 2),
        ],
    )
    batch = batches.publish(batch_id)
    first, second = claim(queue), claim(queue)
    assert (first.digests, second.digests) == ("sha1 sha256 sha512", "sha512")
    sums: dict[str, Any] = {"sha1": "a" * 40, "sha256": "b" * 64, "sha512": "d" * 128}
    queue.settle(first, replace(hashed(first), **sums))
    queue.settle(second, replace(hashed(second), sha512="e" * 128))
    entries = list(batches.entries(batch.id))
    assert [entry.status for entry in entries] == [
        "hashed", "matched", "matched", "mismatched", "hashed"
    ]  # fmt: skip
    assert entries[0].digests == entries[3].digests == {"md5": ZERO, **sums}
    assert entries[2].expected == {"md5": ZERO, "sha256": "b" * 64}
    assert counts(batches, batch) == Counts(total=5, hashed=2, matched=2, mismatched=1)


FIVE_LINES = [
    line(1, sent="http://x y", name="n\n", id="i", size=7, expected={"md5": ZERO}),
    NewLine(2, "nonsense", error_code="invalid_url", error_message="It is no URL."),
    *(line(3), line(4), line(5)),
]


def test_entries_have_all_that_is_known_of_a_line(
    batches: Batches, queue: Queue, clock: Clock
) -> None:
    batch = submit(batches, FIVE_LINES)
    done, failed, canceled = (claim(queue) for _ in range(3))
    queue.settle(done, hashed(done))
    queue.settle(failed, REFUSED)
    queue.cancel(canceled.id)
    entries = list(batches.entries(batch.id))
    assert [entry.position for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.status for entry in entries] == [
        "matched", "failed", "failed", "canceled", "waiting"
    ]  # fmt: skip
    first, invalid, second, third, waiting = entries
    assert (first.sent, first.name, first.id) == ("http://x y", "n\n", "i")
    assert (first.size, first.digests, first.expected) == (7, {"md5": ZERO}, {"md5": ZERO})
    assert (first.final_url, first.content_type, first.attempts) == (url(1), "text/plain", 1)
    assert first.finished_at == "2027-01-15T08:00:00.000Z"
    assert (invalid.sent, invalid.url, invalid.error_code) == ("nonsense", "", "invalid_url")
    assert (second.sent, second.error_code) == (url(3), "http_status")
    assert (second.size, second.digests) == (None, {})
    assert (third.error_code, third.error_message) == (None, None)
    assert (waiting.url, waiting.attempts, waiting.finished_at) == (url(5), 0, None)


def test_entries_come_in_portions_and_by_status(batches: Batches, queue: Queue) -> None:
    batch = submit_urls(batches, 7)
    for outcome in (REFUSED, None, REFUSED, None):
        job = claim(queue)
        queue.settle(job, outcome or hashed(job))

    def positions(**wanted: Any) -> list[int]:
        return [entry.position for entry in batches.entries(batch.id, **wanted)]

    assert positions() == [1, 2, 3, 4, 5, 6, 7]
    assert positions(after=2, limit=3) == [3, 4, 5]
    assert positions(after=7) == positions(limit=0) == []
    assert positions(statuses=["failed"]) == [1, 3]
    assert positions(statuses=["failed", "hashed"], after=1, limit=2) == [2, 3]
    assert positions(statuses=["mismatched"]) == []


def test_a_manifest_is_read_in_portions_as_often_as_needed(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "PORTION", 3)
    batch_id = batches.begin(NewBatch("urls", "192.0.2.1"))
    for first in (1, 4, 7):
        batches.add(batch_id, [line(first), line(first + 1), line(first + 2)])
    batches.publish(batch_id)
    lines = batches.entries(batch_id)
    for _ in range(2):
        assert [entry.position for entry in lines] == list(range(1, 10))
    assert [entry.position for entry in batches.entries(batch_id, limit=4)] == [1, 2, 3, 4]
    assert [entry.position for entry in batches.entries(batch_id, after=2, limit=4)] == [
        3,
        4,
        5,
        6,
    ]


def test_errors_are_counted_by_code_with_their_first_lines(batches: Batches, queue: Queue) -> None:
    batch = submit_urls(batches, 6)
    gone = PermanentFailure("name_not_found", "There is no such host.")
    work(queue, lambda job: gone if job.url == url(1) else REFUSED)
    assert batches.result(batch).errors == (
        ErrorCount("http_status", 5, (2, 3, 4)),
        ErrorCount("name_not_found", 1, (1,)),
    )


# --- the end --------------------------------------------------------------------------------------


def test_a_batch_ends_once_with_its_mail(
    batches: Batches, queue: Queue, outbox: Outbox, clock: Clock
) -> None:
    batch = submit_urls(batches, 3, email=EMAIL)
    assert batches.end_due() == []
    first = claim(queue)
    work(queue)
    assert batches.end_due() == []
    queue.settle(first, REFUSED)
    clock.pass_(1)
    (ended,) = batches.end_due()
    assert ended == stored(batches, batch)
    assert (ended.status, ended.finished_at, ended.ends) == ("done", clock(), 1)
    assert batches.end_due() == []
    mail = outbox.claim("w1")
    assert mail is not None
    assert (mail.kind, mail.subject, mail.recipient) == ("batch", f"{batch.id}.1", EMAIL)
    assert (mail.job, batches.told_by(mail)) == (None, ended)
    outbox.sent(mail)
    assert outbox.claim("w1") is None
    assert stored(batches, batch).mail == "sent"
    assert batches.result(ended).counts == Counts(total=3, hashed=2, failed=1)


def test_a_batch_of_invalid_lines_alone_ends(batches: Batches) -> None:
    batch = submit(batches, [NewLine(1, "x", error_code="invalid_url", error_message="No URL.")])
    assert [ended.id for ended in batches.end_due()] == [batch.id]
    assert batches.result(stored(batches, batch)).counts == Counts(total=1, failed=1)


def test_of_many_who_ask_one_ends_it(make_batches: MakeBatches, queue: Queue) -> None:
    askers = [make_batches() for _ in range(8)]
    ids = {submit_urls(askers[0], 1, email=EMAIL).id for _ in range(5)}
    work(queue)
    with ThreadPoolExecutor(8) as threads:
        ended = [batch.id for found in threads.map(Batches.end_due, askers) for batch in found]
    assert sorted(ended) == sorted(ids)


def test_an_end_is_not_found_after_a_job_was_retried(
    batches: Batches, queue: Queue, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Between the reading of the result and the end a job is retried, and is done again."""
    batch = submit_urls(batches, 1)
    work(queue, lambda job: REFUSED)
    read_result = batches._results.read

    def interrupted(batch_id: str) -> Any:
        result = read_result(batch_id)
        clock.pass_(0.001)
        assert queue.retry_all(job.id for job in queue.newest(9)) == 1
        work(queue)
        return result

    monkeypatch.setattr(batches._results, "read", interrupted)
    assert batches.end_due() == []
    monkeypatch.undo()
    (ended,) = batches.end_due()
    assert batches.result(ended).counts == Counts(total=1, hashed=1)
    assert ended.id == batch.id


# --- retry ----------------------------------------------------------------------------------------


def test_a_retry_opens_the_batch_again_and_owes_one_more_mail(
    batches: Batches, queue: Queue, outbox: Outbox, clock: Clock
) -> None:
    batch = submit_urls(batches, 4, email=EMAIL)
    assert not batches.retry(batch.id)
    work(queue, lambda job: hashed(job) if job.url == url(2) else REFUSED)
    assert not batches.retry(batch.id)
    batches.end_due()
    mail = outbox.claim("w1")
    assert mail
    outbox.sent(mail)
    assert batches.retry(batch.id)
    assert not batches.retry(batch.id)
    assert (stored(batches, batch).status, stored(batches, batch).mail) == ("running", "waiting")
    assert counts(batches, batch) == Counts(total=4, waiting=3, hashed=1)
    assert batches.end_due() == []
    assert [(job.url, job.attempts) for job in work(queue)] == [(url(n), 1) for n in (1, 3, 4)]
    (ended,) = batches.end_due()
    assert (ended.ends, ended.status) == (2, "done")
    second = outbox.claim("w1")
    assert second
    assert (second.subject, batches.told_by(second)) == (f"{batch.id}.2", ended)
    assert batches.told_by(mail) is None
    assert batches.result(ended).counts == Counts(total=4, hashed=4)
    assert not batches.retry(batch.id)


def test_a_retry_takes_back_the_mail_that_was_not_sent(
    batches: Batches, queue: Queue, outbox: Outbox
) -> None:
    batch = submit_urls(batches, 1, email=EMAIL)
    work(queue, lambda job: REFUSED)
    batches.end_due()
    assert batches.retry(batch.id)
    assert outbox.claim("w1") is None
    work(queue)
    batches.end_due()
    mail = outbox.claim("w1")
    assert mail
    assert mail.subject == f"{batch.id}.2"


def test_a_job_that_is_retried_alone_opens_its_batch_again(
    batches: Batches, queue: Queue, outbox: Outbox
) -> None:
    batch = submit_urls(batches, 2, email=EMAIL)
    work(queue, lambda job: REFUSED)
    batches.end_due()
    (job, _) = queue.newest(9)
    assert queue.retry(job.id)
    assert stored(batches, batch).status == "running"
    assert outbox.claim("w1") is None
    work(queue)
    assert [ended.ends for ended in batches.end_due()] == [2]
    assert counts(batches, batch) == Counts(total=2, hashed=1, failed=1)


# --- cancel ---------------------------------------------------------------------------------------


def test_a_cancel_ends_what_is_unfinished_and_keeps_what_was_hashed(
    batches: Batches, queue: Queue, outbox: Outbox, clock: Clock
) -> None:
    batch = submit_urls(batches, 5, email=EMAIL)
    done, failed, running = (claim(queue) for _ in range(3))
    queue.settle(done, hashed(done))
    queue.settle(failed, REFUSED)
    assert batches.cancel(batch.id)
    canceled = stored(batches, batch)
    assert (canceled.status, canceled.finished_at, canceled.mail) == (
        "canceled",
        clock(),
        "waiting",
    )
    assert counts(batches, batch) == Counts(total=5, hashed=1, failed=1, canceled=3)
    assert queue.renew([Progress(running, 1, 2)]) == [running]
    assert queue.settle(running, hashed(running))[0] == "lost"
    assert queue.claim("w1") is None
    assert not batches.cancel(batch.id)
    assert batches.end_due() == []
    mail = outbox.claim("w1")
    assert mail
    assert batches.told_by(mail) == canceled
    assert batches.retry(batch.id)
    assert batches.told_by(mail) is None
    assert len(work(queue)) == 4
    assert [(ended.status, ended.ends) for ended in batches.end_due()] == [("done", 2)]


def test_a_cancel_gives_the_places_of_its_hosts_back(
    make_batches: MakeBatches, make_queue: MakeQueue
) -> None:
    batches, queue = make_batches(per_host=1), make_queue(per_host=1)
    batch = submit_urls(batches, 3)
    assert queue.claim("w1")
    single = queue.submit(url(9), HOST)
    assert queue.claim("w1") is None
    assert batches.cancel(batch.id)
    job = claim(queue)
    assert job.id == single


def test_one_job_of_a_batch_can_be_canceled(batches: Batches, queue: Queue) -> None:
    batch = submit_urls(batches, 2)
    job = queue.newest(1)[0]
    assert queue.cancel(job.id)
    work(queue)
    (ended,) = batches.end_due()
    assert ended.status == "done"
    assert counts(batches, batch) == Counts(total=2, hashed=1, canceled=1)


@pytest.fixture
def of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweep in portions of two lines, and none within a request."""
    monkeypatch.setattr(sweeps, "PORTION", 2)
    monkeypatch.setattr(sweeps, "SECONDS", 0)
    monkeypatch.setattr(module, "CANCEL_SECONDS", 0)


def submit_seven(batches: Batches) -> Batch:
    batch_id = batches.begin(NewBatch("urls", "192.0.2.1"))
    for first in (1, 3, 5, 7):
        batches.add(batch_id, [line(first), *([line(first + 1)] if first < 7 else [])])
    return batches.publish(batch_id)


@pytest.mark.usefixtures("of_two")
@pytest.mark.parametrize("portions_before_the_crash", [0, 1, 2, 3])
def test_sweeps_go_on_after_a_crash(
    batches: Batches, queue: Queue, portions_before_the_crash: int, clock: Clock
) -> None:
    """Publish, retry and cancel of seven lines in portions of two, each ended by another one."""

    def go_on() -> None:
        for _ in range(portions_before_the_crash):
            batches.sweep()
        while batches.sweep():
            pass

    batch = submit_seven(batches)
    assert counts(batches, batch) == Counts(total=7, waiting=7)
    assert len(work(queue, lambda job: REFUSED)) == 4
    assert batches.end_due() == []
    go_on()
    assert len(work(queue, lambda job: REFUSED)) == 3
    assert len(batches.end_due()) == 1
    clock.pass_(1)
    assert batches.retry(batch.id)
    assert batches.end_due() == []
    go_on()
    running = claim(queue)
    assert counts(batches, batch) == Counts(total=7, waiting=6, running=1)
    assert batches.cancel(batch.id)
    assert queue.renew([Progress(running, 1, 2)]) == [running]
    assert stored(batches, batch).status == "running"
    go_on()
    assert [ended.status for ended in batches.end_due()] == ["canceled"]
    assert counts(batches, batch) == Counts(total=7, canceled=7)


# --- removal --------------------------------------------------------------------------------------


def test_a_batch_is_removed_as_a_whole_and_its_jobs_never_apart_from_it(
    batches: Batches, queue: Queue, outbox: Outbox, database: Database, clock: Clock
) -> None:
    batch = submit_urls(batches, 3, email=EMAIL)
    (first, *_) = (claim(queue) for _ in range(3))
    queue.settle(first, hashed(first))
    clock.pass_(1000)
    assert (queue.purge(999), batches.purge(999)) == (0, 0)
    queue.free("w1")
    work(queue)
    batches.end_due()
    running = submit_urls(batches, 1)
    clock.pass_(1000)
    assert (queue.purge(999), batches.purge(999)) == (0, 0), "its mail is owed"
    mail = outbox.claim("w1")
    assert mail
    outbox.sent(mail)
    assert (queue.purge(999), batches.purge(1001)) == (0, 0)
    assert batches.purge(999) == 3
    assert batches.get(batch.id) is None
    assert [found.id for found in batches.newest(9)] == [running.id]
    assert batches.sweep()
    assert not batches.sweep()
    assert rows(database) == {"batches": 1, "lines": 1, "jobs": 1, "outbox": 0}
    assert counts(batches, running) == Counts(total=1, waiting=1)


def test_no_batch_expires_while_the_clock_is_days_ahead(
    batches: Batches, queue: Queue, database: Database, clock: Clock
) -> None:
    submit_urls(batches, 2)
    work(queue)
    batches.end_due()
    Totals(database).heartbeat("w1")
    clock.pass_(40 * 86400)
    assert batches.purge_expired(30 * 86400) == 0
    clock.pass_(-40 * 86400 + 1000)
    assert batches.purge_expired(999) == 2


# --- totals ---------------------------------------------------------------------------------------


def test_ends_of_batches_and_results_of_lines_are_counted(
    batches: Batches, queue: Queue, database: Database
) -> None:
    totals = Totals(database)
    batch = submit(batches, [line(1), line(2, size=7), line(3, size=8), line(4)])
    canceled = submit_urls(batches, 2)
    batches.cancel(canceled.id)
    assert totals.snapshot().batches == {"canceled": 1, "running": 1}
    work(queue, lambda job: REFUSED if job.url == url(4) else hashed(job))
    batches.end_due()
    batches.retry(batch.id)
    work(queue)
    batches.end_due()
    snapshot = totals.snapshot()
    assert snapshot.batches == {"canceled": 1, "done": 2, "running": 0}
    assert snapshot.lines == {
        "canceled": 2, "hashed": 2, "matched": 1, "mismatched": 1, "failed": 1
    }  # fmt: skip
    assert set(snapshot.finished) == {("done", ""), ("failed", "http_status"), ("canceled", "")}


def test_jobs_of_batches_do_not_count_as_jobs_that_wait_long(
    batches: Batches,
    queue: Queue,
    database: Database,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweeps, "PORTION", 1)
    monkeypatch.setattr(sweeps, "SECONDS", 0)
    monkeypatch.setattr(module, "CANCEL_SECONDS", 0)
    submit_urls(batches, 3)
    clock.pass_(100)
    snapshot = Totals(database).snapshot()
    assert (snapshot.unfinished, snapshot.oldest_waiting_seconds) == ({"queued": 3}, 0)
    queue.submit(url(1), HOST)
    clock.pass_(5)
    assert Totals(database).snapshot().oldest_waiting_seconds == 5
