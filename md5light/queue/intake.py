"""Intake: how a list becomes a batch, from its first line to the moment when clients see it.

Each function runs in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from md5light.batch import Batch, NewLine
from md5light.errors import DatabaseUnavailable, Md5lightError, QueueFull, Refused
from md5light.queue import lines, totals, turns
from md5light.queue.database import Row, Transaction
from md5light.queue.limits import Limits
from md5light.queue.sweeps import Sweeps
from md5light.queue.visible import BATCHES, GET, batch_of

#: name of the lock under which unfinished batches are counted
LOCK = "batches"

# The first one that was published with this key.
WITH_KEY = f"""
    {BATCHES} and client = :client and idempotency_key = :idempotency_key
    order by created_at, id limit 1
"""

COUNT_UNFINISHED = """
    select count(*) as batches from batches
    where finished_at is null and status in ('taking', 'running')
"""

BEGIN = """
    insert into batches (id, name, status, format, header, digests, email, client, unlimited,
        idempotency_key, fingerprint, created_at, opened_at, touched_at)
    values (:id, :name, 'taking', :format, :header, :digests, :email, :client, :unlimited,
        :idempotency_key, :fingerprint, :now, :now, :now)
"""

TAKING = "select * from batches where id = :id and status = 'taking'"

ADDED = """
    update batches set lines = lines + :lines, urls = urls + :urls, touched_at = :now
    where id = :id and status = 'taking'
"""

PUBLISH = """
    update batches set status = 'running', sweep = 'admit', turn = :turn, touched_at = :now
    where id = :id and status = 'taking'
"""

DISCARD = "update batches set status = 'removed' where id = :id and status = 'taking'"


def begin(transaction: Transaction, row: Row, limits: Limits, max_unfinished: int) -> None:
    """Store a batch that nobody sees; raises QueueFull or TooMany."""
    client, email = row["client"], row["email"]
    transaction.lock({LOCK, *limits.locks(client, email)})
    counted = transaction.one(COUNT_UNFINISHED)
    refusal: Md5lightError | None = limits.refusal(transaction, client, email)
    if counted and counted["batches"] >= max_unfinished:
        refusal = QueueFull("Too many batches are unfinished.")
    if refusal:
        raise refusal
    unlimited = int(limits.is_untouched(transaction, client))
    transaction.run(BEGIN, **row, unlimited=unlimited)


def add(
    transaction: Transaction,
    batch_id: str,
    added: Sequence[NewLine],
    places: Mapping[bytes, int],
    limits: Limits,
    max_attempts: int,
) -> dict[bytes, int]:
    """Store lines of a batch that was begun; return the places of its new jobs, as `lines.store`.

    Raises TooMany, or DatabaseUnavailable when the list has been removed.
    """
    batch = _taking(transaction, batch_id)
    transaction.lock(limits.locks(batch["client"], None))
    new = lines.store(transaction, batch, added, places, max_attempts)
    transaction.run(ADDED, id=batch_id, lines=len(added), urls=len(new))
    over = limits.above(transaction, batch["client"], unlimited=bool(batch["unlimited"]))
    if over:
        raise over
    return new


def publish(transaction: Transaction, batch_id: str, sweeps: Sweeps) -> Batch:
    """Make the batch visible and its first jobs due.

    Where another list with the same Idempotency-Key came first, this one is discarded and the first
    one is returned; raises Refused when that was another list.
    """
    batch = _taking(transaction, batch_id)
    transaction.lock(_key_locks(batch))
    if first := with_key(transaction, batch):
        discard(transaction, batch_id)
        return first
    transaction.run(PUBLISH, id=batch_id, turn=turns.first(transaction))
    sweeps.portion(transaction, batch_id)
    totals.add(transaction, totals.submitted([batch["client"]]))
    (row,) = transaction.all(GET, id=batch_id)
    return batch_of(row)


def discard(transaction: Transaction, batch_id: str) -> None:
    """Remove a batch that will not be published."""
    transaction.run(DISCARD, id=batch_id)


def with_key(transaction: Transaction, asked: Row) -> Batch | None:
    """Return the visible batch with the same key; Refused when it was made of another list."""
    if asked["idempotency_key"] is None:
        return None
    key = {name: asked[name] for name in ("client", "idempotency_key")}
    row = transaction.one(WITH_KEY, **key)
    if row and row["fingerprint"] != asked["fingerprint"]:
        message = "This Idempotency-Key came with another list or other options before."
        raise Refused("idempotency_key_reused", message)
    return batch_of(row) if row else None


def _taking(transaction: Transaction, batch_id: str) -> Row:
    """Return the row of a batch whose list is being taken."""
    row = transaction.one(TAKING, id=batch_id)
    if row is None:
        raise DatabaseUnavailable("The list took too long to be stored, and was removed.")
    return row


def _key_locks(batch: Row) -> set[str]:
    key = batch["idempotency_key"]
    return set() if key is None else {f"batch {batch['client']} {key}"}
