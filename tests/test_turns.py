"""Who is next: flows of many jobs advance together, and keep nobody else waiting."""

from __future__ import annotations

from collections import Counter

from md5light.errors import TemporaryFailure
from md5light.job import FAR, Hashed, Job
from md5light.queue import turns
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.queue.leases import TURNS_FIRST
from tests.conftest import Clock, MakeQueue

HASHED = Hashed("f4afe93ad799484b1d512cc20e93efd1", 7, "http://a.example.com/", None, None, None)
BROKEN = TemporaryFailure("incomplete", "The connection ended before the answer did.")


def submit(queue: Queue, client: str, count: int, host: str | None = None) -> list[str]:
    """Submit jobs of a client, each of a host of its own where none is given."""
    return [
        queue.submit("http://x.example.com/", host or f"{client}{n}.example.com", client=client)
        for n in range(count)
    ]


def claim(queue: Queue) -> Job:
    job = queue.claim("w1")
    assert job is not None
    return job


def work_off(queue: Queue, clock: Clock, slots: int) -> list[Job]:
    """Work with so many slots until nothing is due, a second a job; return them as they ended."""
    running = [job for job in (queue.claim("w1") for _ in range(slots)) if job]
    ended = []
    while running:
        clock.pass_(1)
        ended += running
        following = [queue.settle(job, HASHED, claim_next=True)[1] for job in running]
        running = [job for job in following if job]
    return ended


def test_one_clients_slow_jobs_do_not_keep_anothers_job_waiting(
    make_queue: MakeQueue, clock: Clock
) -> None:
    queue = make_queue(per_host=8)
    submit(queue, "ann", 40)
    slots = [claim(queue) for _ in range(4)]
    clock.pass_(5)
    (small,) = submit(queue, "bob", 1)
    _, following = queue.settle(slots[0], HASHED, claim_next=True)
    assert following is not None
    assert following.id == small


def test_a_clients_jobs_come_in_its_own_order(make_queue: MakeQueue, clock: Clock) -> None:
    queue = make_queue()
    submitted = submit(queue, "ann", 10)
    claimed = [claim(queue) for _ in range(5)]
    submitted += submit(queue, "ann", 10)
    assert [job.id for job in claimed + [claim(queue) for _ in range(15)]] == submitted


def test_two_flows_advance_together_and_the_smaller_ends_first(
    make_queue: MakeQueue, clock: Clock
) -> None:
    queue = make_queue()
    submit(queue, "large", 60)
    half = [claim(queue).client for _ in range(10)]
    submit(queue, "small", 20)
    order = [job.client for job in work_off(queue, clock, 4)]
    assert set(half) == {"large"}
    together = Counter(order[:40])
    assert abs(together["large"] - together["small"]) <= 2
    assert order.index("small") < 4
    assert set(order[41:]) == {"large"}


def test_a_stream_of_new_jobs_starves_no_flow(make_queue: MakeQueue, clock: Clock) -> None:
    queue = make_queue()
    flow = submit(queue, "ann", 20)
    assert claim(queue).id == flow[0]
    taken = []
    for number in range(10 * TURNS_FIRST):
        submit(queue, f"new{number}", 1)
        clock.pass_(0.1)
        taken.append(claim(queue).id)
    assert len(set(taken) & set(flow)) == 10


def test_a_pool_slower_than_all_flows_keeps_no_new_job_waiting(
    make_queue: MakeQueue, clock: Clock
) -> None:
    """Where each flow had a job due every second, a new one would wait behind all of them."""
    queue = make_queue()
    for flow in range(10):
        submit(queue, f"flow{flow}", 12)
    for _ in range(12):  # the first jobs of all flows, which are due by time
        claim(queue)
    for number in range(20):  # a job a second, of ten flows
        claim(queue)
        clock.pass_(1)
        if number % 5 == 4:
            (new,) = submit(queue, f"new{number}", 1)
            assert new in {claim(queue).id, claim(queue).id}


def test_a_flow_starves_no_stream_of_new_jobs(make_queue: MakeQueue, clock: Clock) -> None:
    """Of a claim that looks at turns first a new job waits one claim, and no more."""
    queue = make_queue()
    submit(queue, "ann", 100)
    claim(queue)
    for number in range(2 * TURNS_FIRST):
        (new,) = submit(queue, f"new{number}", 1)
        assert new in {claim(queue).id, claim(queue).id}


def test_a_job_set_aside_for_its_host_keeps_its_turn(make_queue: MakeQueue, clock: Clock) -> None:
    queue = make_queue(per_host=1)
    first, second, third = submit(queue, "ann", 3, "busy.example.com")
    later = submit(queue, "ann", 2)
    assert [claim(queue).id for _ in range(3)] == [first, *later]
    aside = queue.get(second)
    assert aside is not None
    assert (aside.due_at, aside.next_attempt_at) == (None, None)
    fourth = submit(queue, "ann", 1, "busy.example.com")
    held = queue.get(first)
    assert held is not None
    for expected in (second, third, *fourth):
        held = queue.settle(held, HASHED, claim_next=True)[1]
        assert held is not None
        assert held.id == expected


def test_a_retry_is_due_by_time_and_holds_no_place_in_the_flow(
    make_queue: MakeQueue, clock: Clock
) -> None:
    queue = make_queue()
    (failed,) = submit(queue, "ann", 1)
    queue.settle(claim(queue), BROKEN)
    (new,) = submit(queue, "ann", 1)
    assert claim(queue).id == new
    flow = submit(queue, "ann", 3)
    clock.pass_(15)
    assert [claim(queue).id for _ in range(4)] == [flow[0], failed, *flow[1:]]


def test_retried_jobs_of_one_client_wait_in_turns(make_queue: MakeQueue, clock: Clock) -> None:
    queue = make_queue()
    ids = submit(queue, "ann", 3)
    for job_id in ids:
        queue.cancel(job_id)
    assert queue.retry_all(ids) == 3
    (new,) = submit(queue, "bob", 1)
    assert {claim(queue).id, claim(queue).id} == {new, sorted(ids)[0]}


def test_a_turn_is_no_time(make_queue: MakeQueue, clock: Clock, database: Database) -> None:
    queue = make_queue()
    ids = submit(queue, "ann", 3)
    waiting = [queue.get(job_id) for job_id in ids]
    assert [job.next_attempt_at for job in waiting[1:] if job] == [None, None]
    assert [job.due_at for job in waiting if job] == [clock(), FAR + 1, FAR + 2]
    clock.pass_(-86400)
    assert queue.clamp_due_at() == 1
    assert [claim(queue).id for _ in range(3)] == ids


def test_a_new_flow_begins_at_the_smallest_turn_that_waits(
    make_queue: MakeQueue, database: Database
) -> None:
    queue = make_queue()
    assert database.read(turns.first) == FAR
    submit(queue, "ann", 10)
    for _ in range(5):
        claim(queue)
    assert database.read(turns.first) == FAR + 5
    assert database.read(lambda transaction: turns.following(transaction, "bob")) is None
    assert database.read(lambda transaction: turns.following(transaction, "ann")) == FAR + 10
