"""Totals: counters of events, and a snapshot of the service.

An event is counted in its own transaction, in a table of counters. So the counts are right for any
number of processes, survive restarts and purges, and are cheap to read.
"""

from __future__ import annotations

import bisect
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from md5light.job import BEARER
from md5light.queue.database import Database, Row, Transaction

K = TypeVar("K")

#: upper ends of the histogram of durations, in seconds
BUCKETS = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, math.inf)

#: a worker whose latest heartbeat is older than this is not counted as alive
ALIVE_SECONDS = 60.0

#: a mail that has been tried for longer than this counts as failing
FAILING_SECONDS = 86400.0

#: a clock so far ahead of every earlier time is implausible
JUMP_SECONDS = 86400.0

#: after such a jump the clock is plausible again once it has run for so long
SETTLING_SECONDS = 600.0

#: the row of a worker that was killed is removed after so long
FORGOTTEN_SECONDS = 86400.0

#: prefixes of events that are not the end of a job
OF_NO_JOB = ("mail ", "batch ", "line ", BEARER)

ADD = """
    insert into totals (event, within, shard, events, bytes, seconds)
    values (:event, :within, :shard, :events, :bytes, :seconds)
    on conflict (event, within, shard) do update set events = totals.events + excluded.events,
        bytes = totals.bytes + excluded.bytes, seconds = totals.seconds + excluded.seconds
"""

READ = """
    select event, within, sum(events) as events, sum(bytes) as bytes, sum(seconds) as seconds
    from totals group by event, within
"""

UNFINISHED = "select status, count(*) as jobs from jobs where finished_at is null group by status"

# Lines of a batch wait for as long as it takes.
OLDEST = """
    select created_at from jobs
    where finished_at is null and batch_id is null and status = 'queued'
    order by created_at limit 1
"""

RUNNING_BATCHES = """
    select count(*) as running from batches where finished_at is null and status = 'running'
"""

MAILS = """
    select count(*) as waiting, min(created_at) as oldest,
        count(case when attempts > 0 and created_at < :failing_since then 1 end) as failing
    from outbox where due_at is not null
"""

HEARTBEAT = """
    insert into workers (name, seen_at) values (:name, :now)
    on conflict (name) do update set seen_at = excluded.seen_at, jumped_at = case
        when excluded.seen_at - workers.seen_at > :jump then excluded.seen_at
        else workers.jumped_at end
"""

IMPLAUSIBLE = """
    select 1 as implausible where
        exists (select 1 from workers where jumped_at > :now - :settling and jumped_at <= :now)
        or not exists (select 1 from workers where seen_at > :now - :jump and seen_at <= :now)
        and not exists (
            select 1 from jobs
            where finished_at > :now - :jump and finished_at <= :now and batch_id is null)
"""

RESTING = "select count(*) as hosts from hosts where rest_until > :now and rests > 0"

DEREGISTER = "delete from workers where name = :name or seen_at < :forgotten"

WORKERS = """
    select count(case when seen_at > :since then 1 end) as alive, max(seen_at) as seen_at
    from workers
"""


def is_clock_implausible(transaction: Transaction) -> bool:
    """Tell whether the clock is days ahead of the newest heartbeat and job, or has just jumped."""
    return transaction.one(IMPLAUSIBLE, jump=JUMP_SECONDS, settling=SETTLING_SECONDS) is not None


class Event(NamedTuple):
    """An event; the end of a job has the bucket of its duration in `within`, in seconds."""

    name: str
    within: float = 0
    size: int = 0
    seconds: float = 0
    #: how often it happened
    times: int = 1


def ended(status: str, code: str, size: int, seconds: float) -> Event:
    """Return the event of a job that ended `seconds` after it was submitted."""
    within = BUCKETS[bisect.bisect_left(BUCKETS, seconds)]
    return Event(f"{status} {code}" if code else status, within, size, seconds)


def submitted(clients: Iterable[str | None]) -> Iterator[Event]:
    """Yield the events of submissions: only those with a token are counted, by its name."""
    for client in clients:
        if client and client.startswith(BEARER):
            yield Event(client)


def add(transaction: Transaction, events: Iterable[Event]) -> None:
    """Count events within `transaction`.

    Call it last: others wait for these rows until the commit. They are written in sorted order, and
    spread over shards, so that few do.
    """
    shard = int(random.random() * transaction.writers)  # noqa: S311 - not a secret
    counted: dict[tuple[str, float], Row] = {}
    for event in events:
        row = counted.setdefault(
            (event.name, event.within),
            {
                "event": event.name,
                "within": event.within,
                "shard": shard,
                "events": 0,
                "bytes": 0,
                "seconds": 0.0,
            },
        )
        row["events"] += event.times
        row["bytes"] += event.size
        row["seconds"] += event.seconds
    transaction.run_many(ADD, [row for _, row in sorted(counted.items())])


@dataclass(frozen=True)
class Snapshot:
    """The state of the service at one moment."""

    #: how many jobs have each unfinished status, where there are any
    unfinished: dict[str, int]
    #: how long the longest-waiting job has waited, except jobs of batches; 0 without any
    oldest_waiting_seconds: float
    mails_waiting: int
    #: the age of the oldest waiting mail; 0 without any
    oldest_mail_seconds: float
    #: how many waiting mails have been failing for more than a day
    mails_failing: int
    workers_alive: int
    #: since the latest heartbeat of any worker; None before the first
    last_sign_seconds: float | None
    #: hosts that rest, because they asked for it or could not be reached
    hosts_resting: int
    #: how many jobs have ended, by status and error code
    finished: dict[tuple[str, str], int]
    #: how many of them took no longer than each of BUCKETS, but longer than the one before;
    #: canceled jobs don't count
    durations: dict[float, int]
    #: the sum of those durations
    duration_seconds: float
    hashed_bytes: int
    #: how many submissions came with each token, by its name
    submitted: dict[str, int]
    #: how many mails were sent or given up
    mails: dict[str, int]
    #: how many batches run, and how many have ended, by status
    batches: dict[str, int]
    #: how many lines of batches have ended, by result
    lines: dict[str, int]


class Totals:
    """The counts of one database, and the heartbeats of its workers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def heartbeat(self, worker: str) -> None:
        """Store that `worker` is alive."""
        self._database.write(
            lambda transaction: transaction.run(HEARTBEAT, name=worker, jump=JUMP_SECONDS)
        )

    def deregister(self, worker: str) -> None:
        """Remove `worker`, which is ending, and those that were killed long ago."""

        def work(transaction: Transaction) -> None:
            forgotten = transaction.now() - FORGOTTEN_SECONDS
            transaction.run(DEREGISTER, name=worker, forgotten=forgotten)

        self._database.write(work)

    def workers_alive(self) -> int:
        """Count the workers with a recent heartbeat; unlike `snapshot` it reads no job."""
        return self._database.read(lambda transaction: int(_workers(transaction)["alive"]))

    def snapshot(self) -> Snapshot:
        """Read everything."""
        return self._database.read(_snapshot)


def _workers(transaction: Transaction) -> Row:
    (workers,) = transaction.all(WORKERS, since=transaction.now() - ALIVE_SECONDS)
    return workers


def _snapshot(transaction: Transaction) -> Snapshot:
    now = transaction.now()
    unfinished = {row["status"]: row["jobs"] for row in transaction.all(UNFINISHED)}
    oldest = transaction.one(OLDEST)
    (batches,) = transaction.all(RUNNING_BATCHES)
    workers = _workers(transaction)
    (mails,) = transaction.all(MAILS, failing_since=now - FAILING_SECONDS)
    (resting,) = transaction.all(RESTING)
    rows = transaction.all(READ)
    jobs = [row for row in rows if not row["event"].startswith(OF_NO_JOB)]
    return Snapshot(
        unfinished=_with_parked(unfinished),
        oldest_waiting_seconds=_age(oldest["created_at"] if oldest else None, now) or 0.0,
        mails_waiting=mails["waiting"],
        oldest_mail_seconds=_age(mails["oldest"], now) or 0.0,
        mails_failing=mails["failing"],
        workers_alive=workers["alive"],
        last_sign_seconds=_age(workers["seen_at"], now),
        hosts_resting=resting["hosts"],
        finished=_counts(jobs, lambda row: _status_and_code(row["event"])),
        durations=_counts((row for row in jobs if row["within"]), lambda row: row["within"]),
        duration_seconds=sum(row["seconds"] for row in rows),
        hashed_bytes=sum(int(row["bytes"]) for row in rows),
        submitted=_counts_of(BEARER, rows),
        mails=_counts_of("mail ", rows),
        batches={**_counts_of("batch ", rows), **batches},
        lines=_counts_of("line ", rows),
    )


def _with_parked(unfinished: dict[str, int]) -> dict[str, int]:
    """Count parked jobs as queued, which they will be soon."""
    waiting = unfinished.pop("parked", 0) + unfinished.get("queued", 0)
    return {**unfinished, "queued": waiting} if waiting else unfinished


def _counts_of(prefix: str, rows: Iterable[Row]) -> dict[str, int]:
    """Count the events with a prefix by the rest of their names."""
    return _counts(
        (row for row in rows if row["event"].startswith(prefix)),
        lambda row: str(row["event"].removeprefix(prefix)),
    )


def _counts(rows: Iterable[Row], key: Callable[[Row], K]) -> dict[K, int]:
    counts = Counter[K]()
    for row in rows:
        counts[key(row)] += int(row["events"])
    return counts


def _status_and_code(event: str) -> tuple[str, str]:
    status, _, code = event.partition(" ")
    return status, code


def _age(since: float | None, now: float) -> float | None:
    """Return the seconds since then, not below 0 where the clock was set back; None: never."""
    return None if since is None else max(0.0, now - since)
