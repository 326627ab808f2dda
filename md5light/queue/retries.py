"""Retries: failed and canceled jobs that are made new."""

from __future__ import annotations

from collections.abc import Iterable

from md5light.queue import outbox, turns
from md5light.queue.database import Transaction

# A retried job opens its batch again, whose next end owes another mail: a mail about the former end
# that is still unsent would be about a running batch.

REMOVE_UNSENT = """
    delete from outbox where kind = 'batch' and status <> 'sent' and subject in (
        select batches.id || '.' || batches.ends from batches
        join jobs on jobs.batch_id = batches.id
        where jobs.id = :id and jobs.status in ('failed', 'canceled'))
"""

REOPEN = """
    update batches set status = 'running', opened_at = :now, touched_at = :now, finished_at = null,
        canceled = case when finished_at is null then canceled else 0 end
    where status in ('running', 'done', 'canceled') and id in (
        select batch_id from jobs where id = :id and status in ('failed', 'canceled'))
"""

#: assignments that make a failed or canceled job new
AS_NEW = """
    attempts = 0, max_attempts = :max_attempts, refusals = 0, refused_at = null,
    started_at = null, finished_at = null, bytes_done = 0, bytes_total = null,
    error_code = null, error_message = null
"""

RETRY = f"""
    update jobs set status = 'queued', due_at = coalesce(:turn, :now),
        turn = coalesce(:turn, :now), {AS_NEW}
    where id = :id and status in ('failed', 'canceled')
"""


def retry(transaction: Transaction, job_ids: Iterable[str], max_attempts: int) -> int:
    """Make the failed and canceled ones of these jobs new; return how many.

    Their next ends owe mails again, whether or not the former mails were sent.
    """
    ids = sorted(job_ids)
    keys = [{"id": job_id} for job_id in ids]
    transaction.run_many(REMOVE_UNSENT, keys)
    transaction.run_many(REOPEN, keys)
    retried = [job_id for job_id in ids if _retry_one(transaction, job_id, max_attempts)]
    outbox.remove(transaction, "job", retried)
    for _ in retried:
        transaction.ring()
    return len(retried)


def _retry_one(transaction: Transaction, job_id: str, max_attempts: int) -> bool:
    """Make a failed or canceled job wait, with the turn that a new job of its client would get."""
    row = transaction.one("select client from jobs where id = :id", id=job_id)
    turn = turns.following(transaction, row["client"]) if row else None
    return transaction.run(RETRY, id=job_id, turn=turn, max_attempts=max_attempts) == 1
