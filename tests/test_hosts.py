"""Politeness: what a host says of itself is heeded by all of its jobs, and costs none of them."""

from __future__ import annotations

import heapq
import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from md5light.errors import Failure, PermanentFailure, TemporaryFailure
from md5light.job import Hashed, Job, describe
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.queue.outbox import Outbox
from md5light.queue.politeness import GIVE_UP_SECONDS, GOOD_ANSWERS
from md5light.queue.totals import Totals
from tests.conftest import Clock, MakeQueue
from tests.limited import Ban, Limited, Window
from tests.service import Service
from tests.waiting import wait_until

HOST = "files.example.com"
OTHER = "other.example.com"
HASHED = Hashed("f4afe93ad799484b1d512cc20e93efd1", 7, "http://a.example.com/", None, None, None)
MISSING = PermanentFailure("http_status", "The server answered with status 404.")
BROKEN = TemporaryFailure("incomplete", "The connection ended before the answer did.")

#: an answer of a simulated host to a request: given the host, the time and the jobs running there
Rule = Callable[[str, float, int], "tuple[float, Hashed | Failure]"]


def word(
    code: str = "http_status", message: str = "Status 503.", asked: float | None = None
) -> TemporaryFailure:
    """Return a host's word."""
    failure = TemporaryFailure(code, message, retry_after=asked)
    failure.of_host = True
    return failure


BUSY = word()
GONE = word("connection_failed", "The connection to the server failed.")


@pytest.fixture(params=[0, 8], ids=["unlimited", "per_host"])
def polite(request: pytest.FixtureRequest, make_queue: MakeQueue) -> Queue:
    """A queue of each kind: politeness needs no limit."""
    return make_queue(per_host=request.param)


def submit(queue: Queue, count: int, host: str = HOST) -> list[str]:
    return [queue.submit(f"http://{host}/{n}", host, client="ann") for n in range(count)]


def claim(queue: Queue, worker: str = "w1") -> Job:
    job = queue.claim(worker)
    assert job is not None
    return job


def claim_all(queue: Queue) -> list[Job]:
    return list(iter(lambda: queue.claim("w1"), None))


def stored(queue: Queue, job_id: str) -> Job:
    job = queue.get(job_id)
    assert job is not None
    return job


def rest(queue: Queue) -> float:
    """Return when the rest of the only host in trouble ends."""
    (report,) = queue.hosts(10)
    assert report.rest_until is not None
    return report.rest_until


class Simulation:
    """Slots that work through a queue in the clock's time; hosts answer by a rule."""

    def __init__(self, queue: Queue, clock: Clock, rule: Rule, slots: int = 32) -> None:
        self._queue, self._clock, self._rule, self._slots = queue, clock, rule, slots
        self._number = itertools.count()
        self._running: list[tuple[float, int, Job, Hashed | Failure]] = []
        self.connections = Counter[str]()
        self.ended_at: dict[str, float] = {}

    def run(self, seconds: float) -> None:
        """Work until nothing is left that could fall due, or for so many seconds."""
        end = self._clock() + seconds
        while self._clock() < end:
            self._fill_slots()
            while self._queue.fail_given_up():
                pass
            due_in = self._queue.seconds_to_next()
            if self._running:
                due_in = min(due_in, self._running[0][0] - self._clock())
            elif due_in > seconds:
                return
            self._clock.pass_(max(0.0, due_in) + 0.001)
            self._settle()

    def _fill_slots(self) -> None:
        while len(self._running) < self._slots and (job := self._queue.claim("w1")):
            self.connections[job.host] += 1
            at_once = sum(each.host == job.host for _, _, each, _ in self._running) + 1
            seconds, outcome = self._rule(job.host, self._clock(), at_once)
            entry = (self._clock() + seconds, next(self._number), job, outcome)
            heapq.heappush(self._running, entry)

    def _settle(self) -> None:
        while self._running and self._running[0][0] <= self._clock():
            _, _, job, outcome = heapq.heappop(self._running)
            self._queue.renew([])
            if self._queue.settle(job, outcome)[0] in ("done", "failed"):
                self.ended_at[job.id] = self._clock()


# --- one job --------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [BUSY, GONE], ids=["503", "refused"])
def test_a_job_alone_at_its_host_has_its_attempts_with_doubling_pauses(
    polite: Queue, clock: Clock, failure: Failure
) -> None:
    (job_id,) = submit(polite, 1)
    for expected in (10, 20):
        assert polite.settle(claim(polite), failure)[0] == "queued"
        job = stored(polite, job_id)
        assert job.due_at is not None
        assert 0.75 * expected <= job.due_at - clock() <= 1.25 * expected
        assert job.error_code == failure.code
        clock.time = job.due_at - 0.01
        assert polite.claim("w1") is None
        clock.pass_(0.01)
    assert polite.settle(claim(polite), failure)[0] == "failed"
    assert stored(polite, job_id).attempts == 3


def test_a_job_alone_has_all_its_attempts_however_long_its_host_stays_away(
    make_queue: MakeQueue, clock: Clock
) -> None:
    queue = make_queue(max_attempts=20)
    (job_id,) = submit(queue, 1)
    simulation = Simulation(queue, clock, lambda *_: (0.1, GONE))
    simulation.run(86400)
    assert simulation.connections[HOST] == 20
    assert stored(queue, job_id).status == "failed"


# --- a rest ---------------------------------------------------------------------------------------


def test_a_word_beside_other_jobs_of_the_host_costs_no_attempt(polite: Queue, clock: Clock) -> None:
    ids = submit(polite, 12)
    running = [claim(polite) for _ in range(8)]
    for job in running:
        assert polite.settle(job, BUSY)[0] == "queued"
    assert [stored(polite, job_id).attempts for job_id in ids] == [0] * 12


def test_a_host_that_rests_gets_no_connection_and_others_do(polite: Queue, clock: Clock) -> None:
    submit(polite, 20)
    running = [claim(polite) for _ in range(8)]
    polite.settle(running[0], word(asked=30))
    (other,) = submit(polite, 1, OTHER)
    (late,) = submit(polite, 1)
    assert rest(polite) == clock() + 30
    assert [job.id for job in claim_all(polite)] == [other]
    clock.pass_(29.9)
    assert polite.claim("w1") is None
    for job in running[1:]:
        polite.settle(job, HASHED)
    assert polite.claim("w1") is None
    clock.pass_(0.1)
    assert len(claim_all(polite)) == 1
    assert stored(polite, late).status == "queued"


def test_after_a_rest_one_knocks_and_each_good_answer_lets_one_more_in(
    polite: Queue, clock: Clock
) -> None:
    submit(polite, 40)
    polite.settle(claim(polite), word(asked=5))
    clock.pass_(5)
    running = claim_all(polite)
    for expected in (1, 2, 3, 4, 5, 6, 7, 8):
        assert len(running) == expected
        following = polite.settle(running.pop(0), HASHED, claim_next=True)[1]
        assert following is not None
        running += [following, *claim_all(polite)]


@pytest.mark.parametrize("answer", [HASHED, MISSING, BROKEN], ids=["body", "404", "broken"])
def test_any_answer_of_the_file_ends_a_rest(polite: Queue, clock: Clock, answer: Failure) -> None:
    submit(polite, 5)
    polite.settle(claim(polite), word(asked=5))
    clock.pass_(5)
    polite.settle(claim(polite), answer)
    assert len(claim_all(polite)) == 2


def test_a_refused_knock_doubles_the_pause_and_another_job_knocks_next(
    polite: Queue, clock: Clock
) -> None:
    submit(polite, 5)
    knocks, pauses = [], []
    for _ in range(4):
        job = claim(polite)
        knocks.append(job.id)
        polite.settle(job, GONE)
        pauses.append(rest(polite) - clock())
        clock.time = rest(polite)
    assert len(set(knocks)) == 4
    assert [after / before for before, after in itertools.pairwise(pauses)] == pytest.approx(
        [2] * 3
    )


def test_the_refusals_of_one_burst_make_one_rest_and_tell_how_many_may_run(
    make_queue: MakeQueue, clock: Clock
) -> None:
    queue = make_queue(per_host=8)
    submit(queue, 40)
    running = [claim(queue) for _ in range(8)]
    for job in running[2:]:
        clock.pass_(0.01)
        queue.settle(job, BUSY)
    assert 7 <= rest(queue) - clock() <= 12.5
    for job in running[:2]:
        queue.settle(job, HASHED)
    clock.time = rest(queue)
    (knock,) = claim_all(queue)
    for _ in range(10):
        queue.settle(knock, HASHED)
        running = claim_all(queue)
        assert len(running) <= 2
        knock = running[0]
        for job in running[1:]:
            queue.settle(job, HASHED)


def test_a_long_download_keeps_no_other_waiting_after_a_rest(polite: Queue, clock: Clock) -> None:
    submit(polite, 8)
    long, refused = claim(polite), claim(polite)
    clock.pass_(1)
    polite.settle(refused, word(asked=5))
    clock.pass_(5)
    (knock,) = claim_all(polite)
    polite.settle(knock, HASHED)
    assert len(claim_all(polite)) == 1
    assert polite.settle(long, HASHED)[0] == "done"


def test_a_rest_that_was_asked_for_and_did_not_suffice_grows(polite: Queue, clock: Clock) -> None:
    submit(polite, 5)
    for expected in (1, 15):
        polite.settle(claim(polite), word(asked=1))
        assert rest(polite) - clock() >= expected
        clock.time = rest(polite)


def test_a_pause_that_was_needed_is_the_first_of_the_next_trouble(
    polite: Queue, clock: Clock
) -> None:
    submit(polite, 30)
    for _ in range(3):
        polite.settle(claim(polite), GONE)
        needed = rest(polite) - clock()
        clock.time = rest(polite)
    polite.settle(claim(polite), HASHED)
    clock.pass_(60)
    for job in claim_all(polite):
        polite.settle(job, GONE)
    assert rest(polite) - clock() == pytest.approx(needed)


def test_a_pace_is_found_and_kept(make_queue: MakeQueue, clock: Clock) -> None:
    """At most five starts a second, or 429 without a time."""
    queue = make_queue(per_host=8)
    ids = submit(queue, 100)
    last, refused = 0.0, 0

    def rule(host: str, now: float, at_once: int) -> tuple[float, Hashed | Failure]:
        nonlocal last, refused
        if now - last < 0.2:
            refused += 1
            return 0.005, BUSY
        last = now
        return 0.005, HASHED

    begin = clock()
    simulation = Simulation(queue, clock, rule)
    simulation.run(3600)
    assert {stored(queue, job_id).status for job_id in ids} == {"done"}
    assert clock() - begin < 10 + 1.5 * 20  # the first pause, and the pace
    assert refused < 30


# --- trouble of the job, of the worker, of the clock ----------------------------------------------


def test_a_file_that_is_refused_while_others_are_not_has_its_own_attempts(
    make_queue: MakeQueue, clock: Clock
) -> None:
    queue = make_queue(per_host=8)
    ids = submit(queue, 100)
    bad = ids[3]

    def answer(job: Job) -> Hashed | Failure:
        return BUSY if job.id == bad else HASHED

    begin = clock()
    while any(not stored(queue, job_id).finished for job_id in (bad, ids[-1])):
        for job in claim_all(queue):
            queue.settle(job, answer(job))
        clock.pass_(1)
    assert stored(queue, bad).status == "failed"
    assert {stored(queue, job_id).status for job_id in ids if job_id != bad} == {"done"}
    assert clock() - begin < 120


@pytest.mark.parametrize("leave", ["cancel", "release", "free"])
def test_another_job_knocks_where_the_one_that_was_to_goes(
    polite: Queue, clock: Clock, leave: str
) -> None:
    submit(polite, 5)
    polite.settle(claim(polite), word(asked=5))
    knock = next(job for job in polite.newest(5) if job.due_at == clock() + 5)
    if leave == "cancel":
        polite.cancel(knock.id)
    clock.pass_(5)
    if leave != "cancel":
        job = claim(polite)
        assert polite.release(job) if leave == "release" else polite.free("w1") == 1
    (job,) = claim_all(polite)
    assert leave != "cancel" or job.id != knock.id


def test_jobs_of_a_dead_worker_wait_for_the_rest_as_well(polite: Queue, clock: Clock) -> None:
    submit(polite, 4)
    lost = claim(polite, "dead")
    polite.settle(claim(polite), word(asked=30))
    polite.free("dead")
    assert polite.claim("w1") is None
    assert polite.settle(lost, HASHED)[0] == "lost"
    clock.pass_(30)
    assert len(claim_all(polite)) == 1


def test_a_rest_outlives_restarts_and_holds_on_every_machine(
    make_queue: MakeQueue, clock: Clock
) -> None:
    one = make_queue(per_host=8)
    submit(one, 10)
    one.settle(claim(one), word(asked=30))
    other = make_queue(per_host=4)
    assert other.claim("w2") is None
    clock.pass_(30)
    assert [queue.claim("w") is not None for queue in (one, other, one)] == [True, False, False]


def test_a_clock_set_back_makes_no_rest_longer(polite: Queue, clock: Clock) -> None:
    submit(polite, 3)
    polite.settle(claim(polite), word(asked=3600))
    clock.pass_(-86400)
    polite.clamp_due_at()
    clock.pass_(3600)
    assert len(claim_all(polite)) >= 1


def test_clamping_leaves_a_knock_alone(polite: Queue, clock: Clock) -> None:
    submit(polite, 3)
    polite.settle(claim(polite), word(asked=3600))
    assert polite.clamp_due_at() == 0
    assert polite.claim("w1") is None


def test_what_was_learned_is_forgotten_an_hour_after_the_trouble(
    polite: Queue, clock: Clock
) -> None:
    submit(polite, 40)
    for job in [claim(polite) for _ in range(8)]:
        polite.settle(job, word(asked=30))
    clock.pass_(30)
    polite.settle(claim(polite), HASHED)
    assert len(claim_all(polite)) == 1
    clock.pass_(3599)
    polite.clamp_due_at()
    assert polite.hosts(10)
    clock.pass_(2)
    polite.clamp_due_at()
    assert not polite.hosts(10)
    polite.settle(claim(polite), HASHED)
    assert len(claim_all(polite)) >= 8


def test_many_good_answers_let_one_more_in(make_queue: MakeQueue, clock: Clock) -> None:
    queue = make_queue(per_host=8)
    submit(queue, 2 * GOOD_ANSWERS)
    for job in [claim(queue) for _ in range(8)]:
        queue.settle(job, word(asked=1))
    clock.pass_(1)
    job = claim(queue)
    for _ in range(GOOD_ANSWERS):
        assert queue.claim("w1") is None
        following = queue.settle(job, HASHED, claim_next=True)[1]
        assert following is not None
        job = following
    assert queue.claim("w1") is not None
    assert queue.claim("w1") is None


# --- a host that stays away -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_dead_host_fails_in_minutes_with_few_connections_and_delays_nobody(
    make_queue: MakeQueue, clock: Clock, outbox: Outbox, database: Database
) -> None:
    """With the default settings: a connection times out after 10 s."""
    queue = make_queue(per_host=8, max_attempts=5, retry_seconds=10)

    def rule(host: str, now: float, at_once: int) -> tuple[float, Hashed | Failure]:
        return (10.0, word("timed_out", "It took too long.")) if host == HOST else (1.0, HASHED)

    simulation = Simulation(queue, clock, rule)

    def seconds_of_others() -> float:
        """Work through all, and tell when the last job of a hundred other hosts was done."""
        others = [submit(queue, 1, f"host{n}.example.com")[0] for n in range(100)]
        begin = clock()
        simulation.run(3600)
        assert {stored(queue, job_id).status for job_id in others} == {"done"}
        return max(simulation.ended_at[job_id] for job_id in others) - begin

    alone = seconds_of_others()
    dead = submit(queue, 300)
    dead.append(queue.submit(f"http://{HOST}/x", HOST, "ann@example.com", client="bob"))
    begin = clock()
    assert seconds_of_others() <= alone + 1.5
    jobs = [stored(queue, job_id) for job_id in dead]
    assert {(job.status, job.error_code) for job in jobs} == {("failed", "timed_out")}
    assert max(job.finished_at or 0 for job in jobs) - begin <= 15 * 60
    assert simulation.connections[HOST] <= 200
    assert outbox.claim("w1") is not None
    assert Totals(database).snapshot().finished["failed", "timed_out"] == 301


def test_what_is_submitted_after_a_host_was_given_up_knocks_for_itself(
    make_queue: MakeQueue, clock: Clock
) -> None:
    queue = make_queue(max_attempts=3, per_host=8)
    submit(queue, 50)
    simulation = Simulation(queue, clock, lambda *_: (0.1, GONE))
    simulation.run(3600)
    before = simulation.connections[HOST]
    clock.pass_(60)
    (late,) = submit(queue, 1)
    begin = clock()
    simulation.run(3600)
    assert simulation.connections[HOST] - before == 3
    assert stored(queue, late).status == "failed"
    assert clock() - begin < GIVE_UP_SECONDS


def test_a_host_that_is_back_is_back_for_all(polite: Queue, clock: Clock) -> None:
    ids = submit(polite, 60)
    back = clock() + 200
    simulation = Simulation(
        polite, clock, lambda host, now, at_once: (0.1, HASHED if now > back else GONE)
    )
    simulation.run(3600)
    assert {stored(polite, job_id).status for job_id in ids} == {"done"}
    assert clock() < back + 200


def test_jobs_that_wait_when_a_host_is_given_up_fail_in_portions(
    make_queue: MakeQueue, clock: Clock, database: Database
) -> None:
    queue = make_queue(per_host=8, max_unfinished=10**6)
    submit(queue, 5)
    clone = """
        insert into jobs (id, url, host, status, due_at, turn, attempts, max_attempts, created_at)
        select id || '-' || :n, url, host, status, 1e12 + :n, 1e12 + :n, 0, 3, created_at from jobs
        where status = 'queued' and length(id) = 36
    """
    rows = [{"n": n} for n in range(500)]
    database.write(lambda transaction: transaction.run_many(clone, rows))
    simulation = Simulation(queue, clock, lambda *_: (0.1, GONE), slots=8)
    simulation.run(3600)
    left = database.read(
        lambda transaction: transaction.one(
            "select count(*) as jobs from jobs where status <> 'failed'"
        )
    )
    assert left == {"jobs": 0}
    assert simulation.connections[HOST] <= 30


# --- what is shown --------------------------------------------------------------------------------


def test_a_job_says_until_when_its_host_rests(polite: Queue, clock: Clock) -> None:
    clock.time = time.time()
    ids = submit(polite, 3)
    polite.settle(claim(polite), word(message="The server answered with status 503.", asked=600))
    shown = [describe(stored(polite, job_id)) for job_id in ids]
    ends = {str(each["next_attempt_at"]) for each in shown}
    assert len(ends) == 1
    assert [each["error"] for each in shown] == [
        {
            "code": "http_status",
            "message": "The server answered with status 503: the host asked for rest until "
            f"{ends.pop()}.",
        }
    ] * 3
    clock.pass_(600)
    polite.settle(claim(polite), HASHED)
    assert describe(stored(polite, ids[2]))["error"] is None


def test_hosts_in_trouble_are_listed_and_counted(
    make_queue: MakeQueue, clock: Clock, database: Database
) -> None:
    queue = make_queue(per_host=8)
    submit(queue, 5)
    submit(queue, 5, OTHER)
    claim_all(queue)
    queue.settle(next(job for job in queue.newest(10, "running", host=HOST)), word(asked=60))
    (report,) = queue.hosts(10)
    assert (report.host, report.running, report.waiting) == (HOST, 4, 1)
    assert (report.room, report.rest_until) == (0, clock() + 60)
    assert (report.error_code, report.error_message) == ("http_status", "Status 503.")
    assert Totals(database).snapshot().hosts_resting == 1
    clock.pass_(60)
    assert Totals(database).snapshot().hosts_resting == 0
    (report,) = queue.hosts(10)
    assert (report.room, report.rest_until) == (1, None)


# --- the whole service ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_window_of_requests_is_kept_by_pools_that_are_killed(tmp_path: Path) -> None:
    """Two pools, one of which is killed and replaced, at 20 requests a second: all is done."""
    with (
        Limited(Window(20, 1.0)) as server,
        Service(tmp_path, worker={"processes": 2, "threads": 4}) as service,
    ):
        service.start_server()
        ids = [service.submit(server.url(f"/{number}")) for number in range(80)]
        service.start_pool()
        killed = service.start_pool()
        resting = wait_until(
            lambda: next((job for job in map(service.job, ids[-3:]) if job["error"]), None)
        )
        killed.kill()
        service.start_pool()
        assert resting is not None
        assert "the host asked for rest until" in resting["error"]["message"]
        assert resting["next_attempt_at"]
        for job_id in ids:
            assert service.result(job_id, timeout=60)["status"] == "done"
        listed = md5light(tmp_path, "hosts", "list", "--json")
        metrics = requests.get(f"{service.url}/metrics", timeout=10).text
    assert server.seen.requests <= 1.3 * 80
    assert "md5light_hosts_resting" in metrics
    (host,) = json.loads(listed)
    assert (host["host"], host["running"], host["waiting"]) == ("127.0.0.1", 0, 0)
    assert host["last_word"]["code"] == "http_status"


@pytest.mark.slow
def test_a_ban_that_ends_only_in_peace_is_survived(tmp_path: Path) -> None:
    settings = {"queue": {"retry_seconds": 0.3}}
    with Limited(Ban(15, 0.5)) as server, Service(tmp_path, **settings) as service:
        service.start_server()
        ids = [service.submit(server.url(f"/{number}")) for number in range(40)]
        service.start_pool()
        for job_id in ids:
            assert service.result(job_id, timeout=60)["status"] == "done"
        assert server.seen.refusals <= 20


def md5light(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "md5light", "--config", str(folder / "config.ini")]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=30, cwd=folder, check=True
    )
    return done.stdout
