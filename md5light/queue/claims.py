"""Claims: which of the due jobs a worker gets.

Due jobs are taken in their order (`leases`) if their hosts have room (`hosts`). On the way, jobs of
full hosts are set aside, and jobs that were lost at their last attempt are ended.
"""

from __future__ import annotations

from typing import NamedTuple

from md5light.errors import PermanentFailure
from md5light.job import Job
from md5light.queue import totals
from md5light.queue.database import Row, Transaction
from md5light.queue.hosts import Hosts, Standings
from md5light.queue.leases import Leases
from md5light.queue.outcomes import ON_SETTLE, Ended, Outcomes
from md5light.queue.verdicts import is_word

#: how often a claim looks for due jobs in one transaction: each look may set many jobs aside while
#: other writers wait
LOOKS = 5

#: the failure of a job whose worker died at its last attempt
LOST = PermanentFailure("worker_lost", "Each worker that took this job ended before it was done.")

#: the columns by which a claim decides
DUE_COLUMNS = "id, host, status, attempts, max_attempts"

#: the columns that a worker needs
CLAIMED_COLUMNS = """
    id, url, host, email, client, status, due_at, token, worker, attempts, max_attempts,
    created_at, started_at, error_code, turn, refusals, refused_at, batch_id, digests
"""

ON_CLAIM = """, status = 'running', turn = coalesce(turn, due_at), started_at = :now,
    bytes_done = 0, bytes_total = null"""

ON_RENEW = ", bytes_done = :bytes_done, bytes_total = :bytes_total"


def leases_of_jobs(seconds: float) -> Leases:
    """Make the leases of the table of jobs."""
    return Leases(
        "jobs",
        ["id"],
        seconds=seconds,
        on_claim=ON_CLAIM,
        on_renew=ON_RENEW,
        on_settle=ON_SETTLE,
        is_new="due_at = turn",
        due_columns=DUE_COLUMNS,
        claimed_columns=CLAIMED_COLUMNS,
    )


class Settled(NamedTuple):
    """The result of a settlement: the job's status, the next job, and jobs that ended as lost."""

    status: str
    next_job: Job | None
    lost: list[Job]


class Claimed(NamedTuple):
    """Jobs that a claim took, those that it ended as lost, and the events that this counts as."""

    jobs: list[Job]
    lost: list[Job]
    events: list[totals.Event]
    #: it set many jobs aside without finding enough: another claim may find more
    more: bool = False


class Claims:
    """Claims jobs for workers; its methods run in the caller's transaction."""

    def __init__(self, leases: Leases, hosts: Hosts, outcomes: Outcomes) -> None:
        self._leases = leases
        self._hosts = hosts
        self._outcomes = outcomes

    def claim_one(self, transaction: Transaction, worker: str) -> Claimed:
        """Take the first due job that may run, if there is one."""
        claimed = self._claim(transaction, worker, 1, {}, wait=True)
        totals.add(transaction, claimed.events)
        return claimed

    def settle_and_claim(self, transaction: Transaction, ended: list[Ended]) -> list[Settled]:
        """Settle the jobs of several threads, and claim as many for those that want another."""
        hosts = {each.job.host for each in ended}
        words = {each.job.host for each in ended if is_word(each.outcome)}
        self._hosts.lock(transaction, hosts, shareable=hosts - words)
        statuses, events, known = self._outcomes.store(transaction, ended)
        wanted, worker = sum(each.claim_next for each in ended), ended[0].job.worker or ""
        # Locks are held: waiting for further ones could deadlock.
        claimed = self._claim(transaction, worker, wanted, known, wait=False)
        totals.add(transaction, events + claimed.events)
        next_jobs = iter(claimed.jobs)
        results = [
            Settled(status, next(next_jobs, None) if each.claim_next else None, [])
            for each, status in zip(ended, statuses, strict=True)
        ]
        results[0].lost.extend(claimed.lost)  # one thread logs them
        return results

    def _claim(
        self, transaction: Transaction, worker: str, count: int, known: Standings, *, wait: bool
    ) -> Claimed:
        """Take the first `count` due jobs that may run, and end those on the way that are lost.

        `known` is how some hosts stand. Without `wait` it leaves out the jobs of hosts that other
        transactions have locked.
        """
        claimed = Claimed([], [], [])
        for _ in range(LOOKS):
            due = self._lock_due(transaction, count - len(claimed.jobs), wait=wait)
            if not due or not self._take_some(transaction, due, worker, known, claimed):
                return claimed
            known = {}
        return claimed._replace(more=True)

    def _lock_due(self, transaction: Transaction, limit: int, *, wait: bool) -> list[Row]:
        """Return up to `limit` due jobs whose hosts are locked now."""
        due = self._leases.due(transaction, limit) if limit else []
        if not due:
            return []
        hosts = {row["host"] for row in due}
        if wait:
            self._hosts.lock(transaction, hosts)
            return due
        locked = self._hosts.try_lock(transaction, hosts)
        return [row for row in due if row["host"] in locked]

    def _take_some(
        self,
        transaction: Transaction,
        due: list[Row],
        worker: str,
        known: Standings,
        claimed: Claimed,
    ) -> bool:
        """Add to `claimed` those of the due jobs that may run, and end those that are lost.

        True when others may have come due in place of those that do not run.
        """
        lost = [row for row in due if _is_lost(row)]
        tryable = [row for row in due if not _is_lost(row)]
        may_run, full = self._hosts.choose(transaction, tryable, known)
        claimed.jobs.extend(self._take(transaction, may_run, worker))
        if lost:
            jobs, events = self._end_lost(transaction, lost)
            claimed.lost.extend(jobs)
            claimed.events.extend(events)
        self._hosts.set_aside(transaction, full)
        return bool(lost) or len(may_run) < len(tryable)

    def _take(self, transaction: Transaction, due: list[Row], worker: str) -> list[Job]:
        return [Job(**row) for row in self._leases.claim(transaction, due, worker)]

    def _end_lost(
        self, transaction: Transaction, lost: list[Row]
    ) -> tuple[list[Job], list[totals.Event]]:
        """End jobs that were lost at their last attempt; this claim does not count as one."""
        jobs = self._take(transaction, lost, "")
        ended = [Ended(job, LOST) for job in jobs]
        events = self._outcomes.store(transaction, ended, untried=1).events
        code, message = LOST.told
        return [job._replace(error_code=code, error_message=message) for job in jobs], events


def _is_lost(row: Row) -> bool:
    """Tell whether the worker of a due job died at its last attempt."""
    return bool(row["status"] == "running" and row["attempts"] >= row["max_attempts"])
