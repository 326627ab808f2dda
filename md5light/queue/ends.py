"""Ends of batches: a batch ends once none of its jobs is unfinished, and owes a mail then.

Each function runs in the caller's transaction.
"""

from __future__ import annotations

from md5light.batch import LINE_RESULTS, Batch, Counts, Result, mail_id
from md5light.queue import lines, outbox, totals, visible
from md5light.queue.database import Row, Transaction

UNFINISHED = "batch_id = batches.id and status in ('queued', 'running', 'parked')"

ENDED = f"""
    select * from batches where finished_at is null and status = 'running' and sweep is null
        and not exists (select 1 from jobs where {UNFINISHED})
"""

# `touched_at` proves that no job was retried since the result was read.
END = f"""
    update batches set status = case when canceled = 1 then 'canceled' else 'done' end,
        finished_at = :now, ends = ends + 1, result = :result
    where id = :id and status = 'running' and sweep is null and touched_at = :touched_at
        and not exists (select 1 from jobs where {UNFINISHED})
    returning status, email, ends
"""


def due(transaction: Transaction) -> list[Row]:
    """Return the batches without an unfinished job; a cheap read."""
    return transaction.all(ENDED)


def end(transaction: Transaction, ended: Row, result: Result) -> Batch | None:
    """End a batch; None when another worker did, or when it was opened in the meantime.

    `result` was read before, outside of the transaction: that may take a while.
    """
    before = lines.from_json(ended["result"]).counts if ended["result"] else Counts()
    parameters: Row = {"result": lines.to_json(result), "touched_at": ended["touched_at"]}
    row = transaction.one(END, id=ended["id"], **parameters)
    if row is None:
        return None
    if row["email"]:
        outbox.add(transaction, "batch", {mail_id(ended["id"], row["ends"]): row["email"]})
    totals.add(transaction, _events(row["status"], result.counts, before))
    return visible.get(transaction, ended["id"])


def _events(status: str, counts: Counts, before: Counts) -> list[totals.Event]:
    """Return the events of an end: its lines by result, but those that counted `before`."""
    events = [totals.Event(f"batch {status}")]
    for result in LINE_RESULTS:
        new = getattr(counts, result) - getattr(before, result)
        if new > 0:
            events.append(totals.Event(f"line {result}", times=new))
    return events
