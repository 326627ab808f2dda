"""What has happened so far, counted in the transactions in which it happens, and what goes on now.

The counts are rows of their own, so that they are right for any number of processes, survive restarts, and cost
nothing to read however many jobs there are or have been removed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from md5light.queue.database import Database, Transaction

#: upper ends of the histogram of durations, in seconds
BUCKETS = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0)

#: a worker that gave no sign of life for so long is not counted
ALIVE_SECONDS = 60.0

ADD = """
    insert into totals (metric, label, shard, value) values {rows}
    on conflict (metric, label, shard) do update set value = totals.value + excluded.value
"""

READ = "select metric, label, sum(value) as value from totals group by metric, label"

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


def add(transaction: Transaction, *counts: tuple[str, str, float]) -> None:
    """Add to the counts, each a metric, a label and an amount, when `transaction` is committed."""
    for metric, label, amount in counts:
        transaction.counts[metric, label] = transaction.counts.get((metric, label), 0) + amount
    transaction.before_commit(_write)


def add_finished(transaction: Transaction, status: str, code: str, size: int, seconds: float) -> None:
    """Count a job that has ended, `seconds` after it was submitted."""
    bucket = next((end for end in BUCKETS if seconds <= end), float("inf"))
    add(
        transaction,
        ("finished", f"{status} {code}".rstrip(), 1),
        ("hashed_bytes", "", size),
        ("duration_bucket", repr(bucket), 1),
        ("duration_sum", "", seconds),
    )


def _write(transaction: Transaction) -> None:
    """Write what was counted, in one statement, and in one order so that nobody waits for each other crosswise."""
    counts = sorted(transaction.counts.items())
    rows = ", ".join(f"(:metric{n}, :label{n}, :shard, :value{n})" for n in range(len(counts)))
    parameters: dict[str, object] = {"shard": random.randrange(transaction.writers)}  # noqa: S311 - not a secret
    for n, ((metric, label), value) in enumerate(counts):
        parameters |= {f"metric{n}": metric, f"label{n}": label, f"value{n}": value}
    transaction.run(ADD.format(rows=rows), **parameters)


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
    #: what was counted, by metric and label
    totals: dict[tuple[str, str], float]


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
    return Snapshot(
        unfinished={status: row["jobs"] for status, row in unfinished.items()},
        oldest_waiting_seconds=max(0.0, now - oldest),
        mails_waiting=waiting["mails"],
        workers_alive=workers["alive"],
        last_sign_seconds=None if workers["seen_at"] is None else max(0.0, now - workers["seen_at"]),
        totals={(row["metric"], row["label"]): row["value"] for row in transaction.all(READ)},
    )
