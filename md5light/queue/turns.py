"""Turns: the order of many waiting jobs.

Each batch and each client is a flow. A flow's jobs have rising turns: the first begins at the
smallest turn that waits now, each later one follows its predecessor. Claims take jobs in the order
of turns, so that flows advance together, a small one ends first, and one alone uses every idle
worker (start-time fair queueing: Goyal, Vin and Cheng, 1996).

The order shares the index of `due_at`: a value below `job.FAR` is the time from which a job may be
claimed; from FAR on it is a turn, and the job may be claimed at any time. Jobs that are due by time
go first: the first waiting job of a client, and retries. One claim in a few begins with turns
(`leases`), so that no stream of new jobs starves a flow.
"""

from __future__ import annotations

from md5light.job import FAR
from md5light.queue.database import Transaction

SMALLEST = "select min(due_at) as turn from jobs where due_at >= 1e12"

LAST = """
    select max(turn) as turn from jobs
    where client = :client and status = 'queued' and turn is not null
"""


def first(transaction: Transaction) -> float:
    """Return the turn of the first job of a new flow; add 1 for each job that follows.

    A job is given its turn in both columns, `turn` and `due_at`.
    """
    row = transaction.one(SMALLEST)
    return float(row["turn"]) if row and row["turn"] is not None else FAR


def following(transaction: Transaction, client: str | None) -> float | None:
    """Return the turn of a client's next job; None: no other waits, so this one is due now.

    Jobs without a client, such as those of a batch, belong to no client's flow.
    """
    row = transaction.one(LAST, client=client) if client else None
    if row is None or row["turn"] is None:
        return None
    return max(first(transaction), float(row["turn"])) + 1
