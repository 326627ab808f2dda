"""Outcomes: stores the result of an attempt and its effect on the job.

A job is done, fails, or waits: for its back-off, or set aside until its host may be asked again.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from md5light.errors import Failure, PermanentFailure, TemporaryFailure
from md5light.job import Hashed, Job
from md5light.queue import outbox, totals
from md5light.queue.backoff import backoff_seconds
from md5light.queue.commits import Collision
from md5light.queue.database import Row, Transaction
from md5light.queue.hosts import Hosts, Standings
from md5light.queue.leases import Leases, settled
from md5light.queue.verdicts import Verdict, Verdicts

#: the columns that a successful download fills, and their values without one
NO_RESULT: Row = {field.name: None for field in dataclasses.fields(Hashed)}

ON_SETTLE = (
    ", turn = :turn, refusals = :refusals, refused_at = :refused_at"
    ", bytes_done = coalesce(:size, bytes_done), bytes_total = coalesce(:size, bytes_total)"
    + "".join(f", {column} = :{column}" for column in NO_RESULT)
)

LAST_CHANCE = """
    update jobs set max_attempts = :attempts + 1
    where id = :id and token = :token and max_attempts > :attempts + 1
"""


class Ended(NamedTuple):
    """An attempt that ended, and whether its worker wants another job."""

    job: Job
    outcome: Hashed | Failure
    claim_next: bool = False


class Settlement(NamedTuple):
    """What has become of attempts that ended."""

    #: the new statuses of their jobs, `lost` for one that its worker no longer held
    statuses: list[str]
    #: what is to be counted
    events: list[totals.Event]
    #: how those of their hosts stand now that are in no trouble
    standings: Standings


class Outcomes:
    """Stores how attempts ended; its methods run in the caller's transaction."""

    def __init__(self, leases: Leases, hosts: Hosts, retry_seconds: float) -> None:
        self._leases = leases
        self._hosts = hosts
        self._retry_seconds = retry_seconds
        self._verdicts = Verdicts(hosts.per_host, retry_seconds)

    def store(
        self, transaction: Transaction, ended: list[Ended], *, untried: int = 0
    ) -> Settlement:
        """Settle jobs whose hosts are locked, and add the mails that this makes owed.

        `untried` is 1 where the attempts do not count.
        """
        _store_last_chances(transaction, ended)
        standings = self._hosts.look(transaction, {each.job.host for each in ended})
        if any(standing.lock_is_shared for standing in standings.values()):
            raise Collision("a host that this process took to be in no trouble is in trouble")
        verdicts = self._verdicts.hear(transaction, [each[:2] for each in ended], standings)
        rows = [
            self._row(each, verdict, transaction.now(), untried)
            for each, verdict in zip(ended, verdicts, strict=True)
        ]
        held = self._leases.settle(transaction, rows)
        self._hosts.admit_by(transaction, standings)
        statuses, finished = [], []
        for each, row, is_held in zip(ended, rows, held, strict=True):
            statuses.append(row["status"] if is_held else "lost")
            standings[each.job.host].running -= is_held
            if is_held and row["finished_at"] is not None:
                finished.append((each.job, row))
        outbox.add(transaction, "job", {job.id: job.email for job, _ in finished if job.email})
        return Settlement(
            statuses,
            [end_event(job, row) for job, row in finished],
            {host: standing for host, standing in standings.items() if not standing.trouble},
        )

    def release(self, transaction: Transaction, job: Job, pause: float) -> bool:
        """Give a job back untried; False when its worker no longer held it."""
        now = transaction.now()
        waits = settled("queued", now, due_at=now + pause, untried=1)
        self._hosts.lock(transaction, [job.host])
        (held,) = self._leases.settle(
            transaction, [{**_held(job), **NO_RESULT, **waits, **_place(job, job.turn)}]
        )
        self._hosts.admit(transaction, [job.host])
        return held

    def _row(self, ended: Ended, verdict: Verdict, now: float, untried: int) -> Row:
        """Return the parameters that settle an attempt."""
        job, outcome = ended.job, ended.outcome
        if isinstance(outcome, Hashed):
            return {**_held(job), **vars(outcome), **settled("done", now), **_place(job, None)}
        if verdict is Verdict.UNTRIED or (
            verdict is Verdict.REFUSED and job.attempts < job.max_attempts
        ):
            return _refused(job, outcome, verdict, now)
        due_at = None
        if not isinstance(outcome, PermanentFailure) and job.attempts < job.max_attempts:
            asked = outcome.retry_after if isinstance(outcome, TemporaryFailure) else None
            due_at = now + backoff_seconds(job.attempts, self._retry_seconds, asked or 0)
        status = "failed" if due_at is None else "queued"
        return {
            **_held(job),
            **NO_RESULT,
            **settled(status, now, due_at=due_at, untried=untried, failure=outcome),
            **_place(job, None),
        }


def end_event(job: Job, row: Row) -> totals.Event:
    """Return the event of a job's end, which `row` holds."""
    seconds = max(0.0, row["finished_at"] - job.created_at)
    return totals.ended(row["status"], row["error_code"] or "", row["size"] or 0, seconds)


def _store_last_chances(transaction: Transaction, ended: list[Ended]) -> None:
    last = [
        each.job for each in ended if isinstance(each.outcome, Failure) and each.outcome.last_chance
    ]
    transaction.run_many(LAST_CHANCE, [{**_held(job), "attempts": job.attempts} for job in last])


def _refused(job: Job, failure: Failure, verdict: Verdict, now: float) -> Row:
    """Return the parameters that set a job aside which its host refused."""
    untried = int(verdict is Verdict.UNTRIED)
    return {
        **_held(job),
        **NO_RESULT,
        **settled("queued", now, untried=untried, failure=failure),
        "turn": job.turn if job.turn is not None else now,
        "refusals": job.refusals + untried,
        "refused_at": now,
    }


def _held(job: Job) -> Row:
    """Return the key and the token of a job's row: what the fence compares."""
    return {"id": job.id, "token": job.token}


def _place(job: Job, turn: float | None) -> Row:
    """Return the parameters of a job's place among those that wait."""
    return {"turn": turn, "refusals": job.refusals, "refused_at": job.refused_at}
