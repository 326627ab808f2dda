"""The batches that are visible to clients: those with a complete list, until they are removed."""

from __future__ import annotations

from md5light.batch import Batch
from md5light.queue.database import Row, Transaction

VISIBLE = "batches.status in ('running', 'done', 'canceled')"

BATCHES = f"""
    select batches.*, case when email is null then 'none'
        when batches.finished_at is null then 'waiting'
        else coalesce((select outbox.status from outbox where kind = 'batch'
            and subject = batches.id || '.' || batches.ends), 'none') end as mail
    from batches where {VISIBLE}
"""

GET = f"{BATCHES} and id = :id"


def get(transaction: Transaction, batch_id: str) -> Batch | None:
    """Return the batch as it stands, None when there is none of this id."""
    row = transaction.one(GET, id=batch_id)
    return batch_of(row) if row else None


def batch_of(row: Row) -> Batch:
    """Make a batch from a row of BATCHES."""
    values = {field: row[field] for field in Batch._fields}
    return Batch(**{**values, "digests": tuple(row["digests"].split())})
