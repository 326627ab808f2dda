"""What has happened so far, counted in the transactions in which it happens, and what goes on now.

The counts are rows of their own, so that they are right for any number of processes, survive restarts, and cost
nothing to read however many jobs there are or have been removed.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass

from md5light.queue.database import Database, Transaction

#: upper ends of the histogram of durations, in seconds
BUCKETS = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0)

#: a worker that gave no sign of life for so long is not counted
ALIVE_SECONDS = 60.0

ADD = """
    insert into totals (event, within, shard, events, bytes, seconds)
    values (:event, :within, :shard, :events, :bytes, :seconds)
    on conflict (event, within, shard) do update set events = totals.events + excluded.events,
        bytes = totals.bytes + excluded.bytes, seconds = totals.seconds + excluded.seconds
"""

READ = """
    select event, within, sum(events) as events, sum(bytes) as bytes, sum(seconds) as seconds from totals
    group by event, within
"""

UNFINISHED = """
    select status, count(*) as jobs, min(created_at) as oldest from jobs where finished_at is null group by status
"""

MAILS_WAITING = "select count(*) as mails from outbox where due_at is not null"

SIGN = """
    insert into workers (name, seen_at) values (:name, :now)
    on conflict (name) do update set seen_at = excluded.seen_at
"""

SIGN_OFF = "delete from workers where name = :name or seen_at < :forgotten"

WORKERS = "select count(case when seen_at > :since then 1 end) as alive, max(seen_at) as seen_at from workers"


def add(
    transaction: Transaction, event: str, *, within: float = 0, size: int = 0, seconds: float = 0
) -> None:
    """Count an event, one of those that took `seconds` and no more than `within`, when `transaction` is committed."""
    events, size_so_far, seconds_so_far = transaction.counts.get((event, within), (0, 0, 0.0))
    transaction.counts[event, within] = (events + 1, size_so_far + size, seconds_so_far + seconds)
    transaction.before_commit(_write)


def add_finished(
    transaction: Transaction, status: str, code: str, size: int, seconds: float
) -> None:
    """Count a job that has ended, `seconds` after it was submitted."""
    within = next((end for end in BUCKETS if seconds <= end), math.inf)
    add(transaction, f"{status} {code}".rstrip(), within=within, size=size, seconds=seconds)


def _write(transaction: Transaction) -> None:
    """Write what was counted, in one order so that nobody waits for each other crosswise."""
    shard = random.randrange(transaction.writers)  # noqa: S311 - not a secret
    rows = [
        {
            "event": event,
            "within": within,
            "shard": shard,
            "events": events,
            "bytes": size,
            "seconds": seconds,
        }
        for (event, within), (events, size, seconds) in sorted(transaction.counts.items())
    ]
    transaction.run_many(ADD, rows)


@dataclass(frozen=True)
class Snapshot:
    """The state of the service at one moment."""

    #: how many jobs have each unfinished status, where there are any
    unfinished: dict[str, int]
    #: how long the longest-waiting job has waited; 0 without any
    oldest_waiting_seconds: float
    mails_waiting: int
    workers_alive: int
    #: since the latest sign of life of any worker; None before the first
    last_sign_seconds: float | None
    #: how many jobs have ended, by status and error code
    finished: dict[tuple[str, str], int]
    #: how many of them took longer than the bucket below and no longer than this one; canceled ones don't count
    durations: dict[float, int]
    #: the sum of those durations
    duration_seconds: float
    hashed_bytes: int
    #: how many mails were sent or given up
    mails: dict[str, int]


class Totals:
    """The counts of one database, and the workers' signs of life."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sign(self, worker: str) -> None:
        """Note that `worker` is alive."""
        self._database.write(lambda transaction: transaction.run(SIGN, name=worker))

    def sign_off(self, worker: str) -> None:
        """Note that `worker` ends, and forget those that were killed a day ago or more."""

        def work(transaction: Transaction) -> None:
            transaction.run(SIGN_OFF, name=worker, forgotten=transaction.now() - 86400)

        self._database.write(work)

    def snapshot(self) -> Snapshot:
        """Read everything."""
        return self._database.read(_snapshot)


def _snapshot(transaction: Transaction) -> Snapshot:
    now = transaction.now()
    unfinished = {row["status"]: row for row in transaction.all(UNFINISHED)}
    oldest = unfinished["queued"]["oldest"] if "queued" in unfinished else now
    (workers,) = transaction.all(WORKERS, since=now - ALIVE_SECONDS)
    (waiting,) = transaction.all(MAILS_WAITING)
    finished: Counter[tuple[str, str]] = Counter()
    durations: Counter[float] = Counter()
    mails: Counter[str] = Counter()
    rows = transaction.all(READ)
    for row in rows:
        events, (what, _, which) = int(row["events"]), row["event"].partition(" ")
        if what == "mail":
            mails[which] += events
        else:
            finished[what, which] += events
            if row["within"]:
                durations[row["within"]] += events
    return Snapshot(
        unfinished={status: row["jobs"] for status, row in unfinished.items()},
        oldest_waiting_seconds=max(0.0, now - oldest),
        mails_waiting=waiting["mails"],
        workers_alive=workers["alive"],
        last_sign_seconds=None
        if workers["seen_at"] is None
        else max(0.0, now - workers["seen_at"]),
        finished=finished,
        durations=durations,
        duration_seconds=sum(row["seconds"] for row in rows),
        hashed_bytes=sum(int(row["bytes"]) for row in rows),
        mails=mails,
    )
