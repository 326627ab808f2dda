"""Copying a queue into another database: each job once, together with its mail, however often it is begun anew."""

from __future__ import annotations

from collections.abc import Iterator

from md5light.queue import totals
from md5light.queue.database import Database, Row, Transaction

#: jobs read and stored in one transaction
PORTION = 500

#: copied counts have this shard to themselves, so that another copy replaces them
COPIED = -1

JOBS = "select * from jobs where id > :after order by id limit :rows"

MAILS = "select * from outbox where job_id > :after and job_id <= :last"

INSERT = "insert into {table} ({columns}) values ({values}) on conflict do nothing"

STORE_COUNT = """
    insert into totals (event, within, shard, events, bytes, seconds)
    values (:event, :within, :shard, :events, :bytes, :seconds)
    on conflict (event, within, shard) do update set events = excluded.events, bytes = excluded.bytes,
        seconds = excluded.seconds
"""


def copy(source: Database, target: Database) -> Iterator[tuple[int, int]]:
    """Copy every job of `source` that `target` does not have, its mail and what was counted.

    Yields after each portion how many jobs it had and how many of them were new. Nobody may be working on `source`:
    what runs there is copied as due, and would be done twice. `source` is only read.
    """
    after = ""
    while jobs := source.read(lambda reading: reading.all(JOBS, after=after, rows=PORTION)):  # noqa: B023 - called at once
        last = jobs[-1]["id"]
        mails = source.read(lambda reading: reading.all(MAILS, after=after, last=last))  # noqa: B023
        owed = {mail["job_id"]: mail for mail in mails}
        yield len(jobs), target.write(lambda writing: _store(writing, jobs, owed))  # noqa: B023
        after = last
    counts = source.read(lambda reading: reading.all(totals.READ))
    target.write(
        lambda writing: [writing.run(STORE_COUNT, **count, shard=COPIED) for count in counts]
    )


def _store(transaction: Transaction, jobs: list[Row], mails: dict[str, Row]) -> int:
    """Store the jobs that are not there yet; returns how many they were."""
    new = 0
    for job in jobs:
        if _insert(transaction, "jobs", _free(job)):
            new += 1
            if job["id"] in mails:
                _insert(transaction, "outbox", _free(mails[job["id"]]))
    return new


def _insert(transaction: Transaction, table: str, row: Row) -> bool:
    columns, values = ", ".join(row), ", ".join(f":{column}" for column in row)
    return transaction.run(INSERT.format(table=table, columns=columns, values=values), **row) == 1


def _free(row: Row) -> Row:
    """Give a row as it is when nobody holds it: a claim is given back untried, who waits for a busy host is due."""
    claimed = row["token"] is not None or row["status"] == "running"
    aside = row["status"] == "queued" and row["due_at"] is None
    return {
        **row,
        "status": "queued" if row["status"] == "running" else row["status"],
        "due_at": row["created_at"] if claimed or aside else row["due_at"],
        "attempts": max(0, row["attempts"] - claimed),
        "token": None,
        "worker": None,
    }
