"""Copies a queue into another database; it can be run again and copies each row once.

Jobs are copied first, each with its mail, then lines, then batches, each with its mails: so a batch
becomes visible only when it is complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from md5light.queue import totals
from md5light.queue.database import Database, Row, Transaction

#: jobs read and stored in one transaction
PORTION = 500

#: the shard of copied counts, so that another copy replaces them
COPIED = -1

#: batches that are visible to clients
KEPT = "select id from batches where status not in ('taking', 'removed')"

JOBS = f"""
    select * from jobs where id > :after and (batch_id is null or batch_id in ({KEPT}))
    order by id limit :rows
"""

LINES = f"""
    select * from lines
    where (batch_id > :batch_id or batch_id = :batch_id and position > :position)
        and batch_id in ({KEPT})
    order by batch_id, position limit :rows
"""

BATCHES = "select * from batches where status not in ('taking', 'removed') order by id"

BATCH_MAILS = "select * from outbox where kind = 'batch'"

MAILS = """
    select * from outbox where kind = 'job' and subject > :after and subject <= :last
"""

STORE_COUNT = """
    insert into totals (event, within, shard, events, bytes, seconds)
    values (:event, :within, :shard, :events, :bytes, :seconds)
    on conflict (event, within, shard) do update set events = excluded.events,
        bytes = excluded.bytes, seconds = excluded.seconds
"""


def copy(source: Database, target: Database) -> Iterator[tuple[int, int]]:
    """Copy the jobs and batches of `source` that `target` lacks, their mails, and the totals.

    Yields for each portion how many jobs it had and how many of them were new. No worker may run on
    `source`: a running job is copied as due, and would be done twice. `source` is only read.
    """
    after = ""
    while jobs := source.read(partial(_all, JOBS, after=after, rows=PORTION)):
        last = jobs[-1]["id"]
        mails = source.read(partial(_all, MAILS, after=after, last=last))
        owed = {mail["subject"]: mail for mail in mails}
        yield len(jobs), target.write(partial(_store, jobs=jobs, mails=owed))
        after = last
    _copy_batches(source, target)
    counts = source.read(lambda reading: reading.all(totals.READ))
    target.write(
        lambda writing: [writing.run(STORE_COUNT, **count, shard=COPIED) for count in counts]
    )


def _copy_batches(source: Database, target: Database) -> None:
    after: Row = {"batch_id": "", "position": 0}
    while lines := source.read(partial(_all, LINES, **after, rows=PORTION)):
        target.write(partial(_store_lines, lines=lines))
        after = {name: lines[-1][name] for name in after}
    mails: dict[str, list[Row]] = {}
    for mail in source.read(partial(_all, BATCH_MAILS)):
        mails.setdefault(mail["subject"].partition(".")[0], []).append(mail)
    for batch in source.read(partial(_all, BATCHES)):
        target.write(partial(_store_batch, batch=batch, mails=mails.get(batch["id"], [])))


def _store_lines(transaction: Transaction, lines: list[Row]) -> None:
    transaction.insert("lines", lines)


def _store_batch(transaction: Transaction, batch: Row, mails: list[Row]) -> None:
    if transaction.insert("batches", [batch]):
        transaction.insert("outbox", [_released(mail) for mail in mails])


def _all(sql: str, transaction: Transaction, **parameters: object) -> list[Row]:
    return transaction.all(sql, **parameters)


def _store(transaction: Transaction, jobs: list[Row], mails: dict[str, Row]) -> int:
    """Store the jobs that are not there yet; return how many they were."""
    new = 0
    for job in jobs:
        if transaction.insert("jobs", [_released(job)]):
            new += 1
            if job["id"] in mails:
                transaction.insert("outbox", [_released(mails[job["id"]])])
    return new


def _released(row: Row) -> Row:
    """Return a job or mail as it is when no worker holds it and no host sets it aside.

    A claim is released untried; a job that was set aside is due at its turn.
    """
    claimed = row["token"] is not None or row["status"] == "running"
    aside = row["status"] == "queued" and row["due_at"] is None
    due_at = row.get("turn") or row["created_at"] if claimed or aside else row["due_at"]
    return {
        **row,
        "status": "queued" if row["status"] == "running" else row["status"],
        "due_at": due_at,
        "attempts": max(0, row["attempts"] - claimed),
        "token": None,
        "worker": None,
    }
