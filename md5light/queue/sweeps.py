"""Sweeps: changes of many rows of a batch, done in portions, so that no transaction is long.

A batch records the sweep that it needs, in the transaction that decides it. That process does the
first portions and workers do the rest, so a process may die in between. The states of a batch are
drawn in the schema.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

from md5light.batch import mail_id
from md5light.queue import lines, outbox, totals
from md5light.queue.database import Database, Row, Transaction
from md5light.queue.hosts import Hosts
from md5light.queue.jobs import CANCEL
from md5light.queue.retries import AS_NEW

#: rows that are changed in one transaction
PORTION = 1000

#: seconds for sweeps in one beat of a worker, which must also renew leases
SECONDS = 0.2

#: seconds without a new line after which a list counts as one whose server died
SILENT_SECONDS = 30.0

NOTED = """
    select id from batches where finished_at is null and (sweep is not null
        or status = 'removed' or status = 'taking' and touched_at < :before)
    order by id
"""

TAKE = "select * from batches where id = :id for update skip locked"

DISCARD_SILENT = """
    update batches set status = 'removed'
    where id = :id and status = 'taking' and touched_at < :before
"""

NOTE = "update batches set sweep = :sweep where id = :id"

ADMIT = """
    update jobs set status = 'queued', turn = :turn + chosen.number, due_at = :turn + chosen.number
    from (
        select id, row_number() over (order by place) - 1 as number from jobs
        where batch_id = :id and status = 'parked' order by place limit :rows) as chosen
    where jobs.id = chosen.id
"""

ADVANCE = "update batches set turn = turn + :admitted where id = :id"

UNFINISHED = """
    select id, host from jobs where batch_id = :id and status = :status order by place limit :rows
"""

PARK = f"""
    update jobs set status = 'parked', {AS_NEW}
    where id in (
        select id from jobs where batch_id = :id and status in ('failed', 'canceled') limit :rows)
"""

REMOVE = "delete from batches where id = :id"


class Sweeps:
    """The sweeps of one database's batches."""

    def __init__(self, database: Database, per_host: int, max_attempts: int) -> None:
        self._database = database
        self._max_attempts = max_attempts
        self._hosts = Hosts(per_host)

    def go_on(self, batch_ids: Iterable[str], seconds: float | None = None) -> None:
        """Do portions of these sweeps in turn, by default for SECONDS."""
        deadline = time.monotonic() + (SECONDS if seconds is None else seconds)
        left = list(batch_ids)
        while left:
            left = [
                each for each in left if self._database.write(partial(self.portion, batch_id=each))
            ]
            if time.monotonic() >= deadline:
                return

    def noted(self) -> list[str]:
        """Return the ids of batches that need a sweep, and of lists whose server died."""

        def work(transaction: Transaction) -> list[str]:
            before = transaction.now() - SILENT_SECONDS
            return [row["id"] for row in transaction.all(NOTED, before=before)]

        return self._database.read(work)

    def portion(self, transaction: Transaction, batch_id: str) -> bool:
        """Do one portion of a batch's sweep; True when there is more to do."""
        batch = transaction.one(TAKE, id=batch_id)
        if batch is None:  # another process is at it, or it is gone
            return False
        before = transaction.now() - SILENT_SECONDS
        if batch["status"] == "removed" or transaction.run(
            DISCARD_SILENT, id=batch_id, before=before
        ):
            return _remove(transaction, batch)
        steps = {"admit": _admit, "cancel": self._cancel, "retry": self._park}
        if batch["sweep"] not in steps:
            return False
        if steps[batch["sweep"]](transaction, batch) == PORTION:
            return True
        following = "admit" if batch["sweep"] == "retry" else None
        transaction.run(NOTE, id=batch_id, sweep=following)
        return following is not None

    def _park(self, transaction: Transaction, batch: Row) -> int:
        """Make the next failed and canceled jobs new, but not due."""
        parameters: Row = {"rows": PORTION, "max_attempts": self._max_attempts}
        return transaction.run(PARK, id=batch["id"], **parameters)

    def _cancel(self, transaction: Transaction, batch: Row) -> int:
        """Cancel the next unfinished jobs; their hosts may let others run."""
        jobs = _unfinished(transaction, batch)
        hosts = {job["host"] for job in jobs}
        self._hosts.lock(transaction, hosts)
        canceled = sum(transaction.run_many(CANCEL, [{"id": job["id"]} for job in jobs]))
        self._hosts.admit(transaction, hosts)
        totals.add(transaction, [totals.Event("canceled", times=canceled)])
        return len(jobs)


def _unfinished(transaction: Transaction, batch: Row) -> list[Row]:
    """Return the next unfinished jobs, first those that run: they are what costs."""
    jobs: list[Row] = []
    for status in ("running", "queued", "parked"):
        parameters: Row = {"status": status, "rows": PORTION - len(jobs)}
        jobs += transaction.all(UNFINISHED, id=batch["id"], **parameters)
    return jobs


def _admit(transaction: Transaction, batch: Row) -> int:
    """Give the next parked jobs their turn."""
    admitted = transaction.run(ADMIT, id=batch["id"], turn=batch["turn"], rows=PORTION)
    transaction.run(ADVANCE, id=batch["id"], admitted=admitted)
    for _ in range(admitted):
        transaction.ring()
    return admitted


def _remove(transaction: Transaction, batch: Row) -> bool:
    """Remove the next rows of a batch that nobody sees; False when it is gone."""
    transaction.trim()
    if lines.remove(transaction, batch["id"], PORTION):
        return True
    mails = [mail_id(batch["id"], end) for end in range(1, batch["ends"] + 1)]
    outbox.remove(transaction, "batch", mails)
    transaction.run(REMOVE, id=batch["id"])
    return False
