"""The queue: the rules by which jobs change hands.

A job is due when `due_at <= now`: newly submitted, after a back-off, or because its claim was not renewed. A
claim hands out a token, and what a worker says of the job counts only while the row still holds that token.
A host's jobs beyond `per_host` are set aside (due_at is null) when a claim meets them, so that they delay nobody,
and come back one by one as the host's running jobs end.
"""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from md5light.config import Config
from md5light.errors import Failure, Md5lightError, PermanentFailure, TemporaryFailure
from md5light.job import Hashed, Job
from md5light.logs import Log
from md5light.queue import outbox, totals
from md5light.queue import statements as sql
from md5light.queue.backoff import LONGEST_SECONDS, backoff_seconds
from md5light.queue.database import Database, Row, Transaction

log = Log(__name__)

#: the form of an id, as uuid4() is written
JOB_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: the part of a lease that has to be over before it is put off anew
RENEWED_SHARE = 1 / 6

#: why a job ends that every worker left unfinished
LOST = PermanentFailure("worker_lost", "Each worker that took this job ended before it was done.")

#: what sql.SETTLE writes unless told otherwise
UNKNOWN: Row = {
    **{field.name: None for field in dataclasses.fields(Hashed)},
    "error_code": None,
    "error_message": None,
    "untried": 0,
}


class Apart(Exception):
    """Of claims that were to be settled together some are not valid any more."""


class QueueFull(Md5lightError):
    """There are as many unfinished jobs as the configuration admits."""


class TooMany(Md5lightError):
    """A client or a recipient has had its share; there is room again in `retry_after` seconds."""

    def __init__(self, code: str, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after


@dataclass(frozen=True)
class Progress:
    """How far a running job has come."""

    job: Job
    bytes_done: int
    bytes_total: int | None


@dataclass(frozen=True)
class _Ended:
    """How an attempt at a job ended, and the worker that wants the next one."""

    job: Job
    outcome: Hashed | Failure
    next_for: str | None = None


class Queue:
    """The jobs of one database: for clients (submit, get, cancel), for administrators (newest, retry, purge) and for
    workers (claim, renew, settle).

    Every method is one transaction, and raises DatabaseUnavailable when that could not be had.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease_seconds: float,
        max_attempts: int,
        retry_seconds: float,
        max_unfinished: int = 10**12,
        per_host: int = 0,
        submits_per_minute: int = 0,
        mails_per_hour: int = 0,
    ) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._max_attempts = max_attempts
        self._retry_seconds = retry_seconds
        self._max_unfinished = max_unfinished
        self._per_host = per_host
        self._submits_per_minute = submits_per_minute
        self._mails_per_hour = mails_per_hour
        self._submits_before_count = 0

    @classmethod
    def configured(cls, database: Database, config: Config) -> Queue:
        """Make the queue that `config` describes."""
        return cls(
            database,
            lease_seconds=config.queue.lease_seconds,
            max_attempts=config.queue.max_attempts,
            retry_seconds=config.queue.retry_seconds,
            max_unfinished=config.server.max_unfinished,
            per_host=config.worker.per_host,
            submits_per_minute=config.server.submits_per_minute,
            mails_per_hour=config.smtp.per_recipient_per_hour,
        )

    # --- for clients ---------------------------------------------------------------------------------------

    def submit(
        self, url: str, host: str, email: str | None = None, client: str | None = None
    ) -> str:
        """Store a new job and return its id.

        Raises QueueFull or TooMany, and then nothing is stored. `client` is the network address it came from.
        """
        job_id = str(uuid.uuid4())
        noted = client if self._submits_per_minute else None

        def work(transaction: Transaction) -> Md5lightError | None:
            refusal = self._refusal(transaction, email, client)
            if refusal is None:
                transaction.run(
                    sql.SUBMIT,
                    id=job_id,
                    url=url,
                    host=host,
                    email=email,
                    client=noted,
                    max_attempts=self._max_attempts,
                )
                transaction.ring()
            return refusal

        refusal = self._database.write(work)
        if refusal:
            raise refusal
        return job_id

    def get(self, job_id: str) -> Job | None:
        """Return the job as it stands, None when there is none of this id."""
        if not JOB_ID.fullmatch(job_id):  # not every engine takes every text
            return None
        row = self._database.read(lambda transaction: transaction.one(sql.GET, id=job_id))
        return Job(**row) if row else None

    def newest(self, limit: int, status: str | None = None) -> list[Job]:
        """Return the jobs submitted last, of one status or of all, the newest first."""
        statement = sql.LIST.format(ids=sql.NEWEST_OF_STATUS if status else sql.NEWEST)
        parameters = {"status": status} if status else {}
        rows = self._database.read(
            lambda transaction: transaction.all(statement, limit=limit, **parameters)
        )
        return [Job(**row) for row in rows]

    def retry(self, job_id: str) -> bool:
        """Make a failed or canceled job due as if it were new; False when there is none of this id.

        Its mail is owed anew too, whatever became of the one that told of the failure.
        """
        if not JOB_ID.fullmatch(job_id):
            return False

        def work(transaction: Transaction) -> bool:
            retried = transaction.run(sql.RETRY, id=job_id) == 1
            if retried:
                outbox.disown(transaction, job_id)
                transaction.ring()
            return retried

        return self._database.write(work)

    def cancel(self, job_id: str) -> bool:
        """End an unfinished job; False when there is none of this id. Its worker finds out at its next renewal."""
        if not JOB_ID.fullmatch(job_id):
            return False

        def work(transaction: Transaction) -> bool:
            row = transaction.one(sql.GET, id=job_id)
            if row:
                self._lock_host(transaction, row["host"])
            canceled = row is not None and transaction.run(sql.CANCEL, id=job_id) == 1
            if row and canceled:
                totals.add(transaction, "canceled")
                self._admit(transaction, row["host"])
            return canceled

        return self._database.write(work)

    def purge(self, older_than_seconds: float, *, rows: int = 500) -> int:
        """Remove up to `rows` jobs that ended so long ago; returns how many.

        Few at a time, so that no claim waits for long; a job whose mail is still owed is kept.
        """

        def work(transaction: Transaction) -> int:
            return transaction.run(
                sql.PURGE, before=transaction.now() - older_than_seconds, rows=rows
            )

        return self._database.write(work)

    def probe(self) -> None:
        """Prove that the database can be written, by writing, and that its schema is still ours."""

        def work(transaction: Transaction) -> None:
            self._database.check_schema(transaction)
            transaction.run(sql.PROBE)

        self._database.write(work)

    # --- for workers ---------------------------------------------------------------------------------------

    def claim(self, worker: str) -> Job | None:
        """Take the job that has been due longest, None when none is due; counts as an attempt."""
        if not self._database.read(lambda transaction: transaction.one(sql.IS_DUE)):
            return None  # found without the write lock, for the sake of idle workers
        jobs, given_up = self._database.write(lambda transaction: self._claim(transaction, worker))
        _tell(given_up)
        return jobs[0] if jobs else None

    def renew(self, running: Iterable[Progress]) -> list[Job]:
        """Note the progress and put off the end of leases that have run for a while.

        Returns the jobs that are this worker's no more.
        """

        def work(transaction: Transaction) -> list[Job]:
            lease_end = transaction.now() + self._lease_seconds
            return [
                progress.job
                for progress in running
                if not transaction.run(
                    sql.RENEW,
                    id=progress.job.id,
                    token=progress.job.token,
                    lease_end=lease_end,
                    renewed_long_ago=lease_end - RENEWED_SHARE * self._lease_seconds,
                    bytes_done=progress.bytes_done,
                    bytes_total=progress.bytes_total,
                )
            ]

        return self._database.write(work)

    def settle(
        self, job: Job, outcome: Hashed | Failure, *, next_for: str | None = None
    ) -> tuple[str, Job | None]:
        """Store how an attempt ended and, for the worker `next_for`, claim the next job, all in one transaction.

        Returns the job's new status, or `lost` when the claim was no longer valid and nothing was stored; and the
        job claimed. A finished job's mail is owed from the same transaction on.
        """

        ended = _Ended(job, outcome, next_for)
        status, following, given_up = self._database.write_together(self._settle_together, ended)
        _tell(given_up)
        return status, following

    def release(self, job: Job) -> bool:
        """Give a job back untried; False when it was this worker's no more."""

        def work(transaction: Transaction) -> bool:
            row = _settled(job, "queued", transaction.now(), due_at=transaction.now(), untried=1)
            return self._write_settled(transaction, [job], [row])

        return self._database.write(work)

    def free(self, worker: str) -> int:
        """Make the claims of a worker that died due at once; returns how many there were."""

        def work(transaction: Transaction) -> int:
            transaction.ring()
            return transaction.run(sql.FREE, worker=worker, lease=self._lease_seconds)

        return self._database.write(work)

    def pull_in(self) -> int:
        """Let no job or mail wait for longer than it may, the clock having been set back; returns how many did."""

        def work(transaction: Transaction) -> int:
            bounds = {"lease": self._lease_seconds, "wait": LONGEST_SECONDS}
            return sum(
                transaction.run(sql.PULL_IN.format(table=table), **bounds)
                for table in ("jobs", "outbox")
            )

        return self._database.write(work)

    # --- within a transaction ------------------------------------------------------------------------------

    def _refusal(
        self, transaction: Transaction, email: str | None, client: str | None
    ) -> Md5lightError | None:
        """Tell what speaks against storing one more job."""
        if client and self._submits_per_minute:
            transaction.lock(f"client {client}")
            wait = _seconds_to_room(
                transaction, sql.CLIENT_LIMIT, 60, self._submits_per_minute, client=client
            )
            if wait:
                return TooMany(
                    "too_many_submits", "There were too many submissions from this address.", wait
                )
        if email and self._mails_per_hour:
            transaction.lock(f"recipient {email.lower()}")
            wait = _seconds_to_room(
                transaction, sql.RECIPIENT_LIMIT, 3600, self._mails_per_hour, email=email
            )
            if wait:
                return TooMany(
                    "too_many_mails", "There were too many mails to this recipient.", wait
                )
        return None if self._has_room(transaction) else QueueFull("too many jobs are waiting")

    def _has_room(self, transaction: Transaction) -> bool:
        """Tell whether one more job may be stored, counting the rows only as often as needed.

        After a count, a sixteenth of the room found may be filled before the next: exact near the limit,
        cheap far from it, and up to sixteen servers can't exceed it together.
        """
        if self._submits_before_count <= 0:
            transaction.lock("unfinished")
            row = transaction.one(sql.COUNT_UNFINISHED, limit=self._max_unfinished)
            room = self._max_unfinished - (row["unfinished"] if row else 0)
            if room <= 0:
                return False
            self._submits_before_count = max(1, room // 16)
        self._submits_before_count -= 1
        return True

    def _claim(
        self, transaction: Transaction, worker: str, count: int = 1, *, wait: bool = True
    ) -> tuple[list[Job], list[str]]:
        """Take the first `count` jobs that may run; returns them and the ids of those given up on the way.

        One who holds a host's lock must not `wait` for another one's.
        """
        jobs: list[Job] = []
        given_up: list[str] = []
        while len(jobs) < count:
            rows = transaction.all(sql.DUE, limit=count - len(jobs))
            lost = [
                row["id"] for row in rows if self._is_lost_for_good(transaction, row, wait=wait)
            ]
            fit, full = self._fitting(
                transaction, [row for row in rows if row["id"] not in lost], wait=wait
            )
            given_up += self._give_up_lost(transaction, lost)
            jobs += self._take(transaction, fit, worker)
            for host in full:
                transaction.run(sql.SET_ASIDE, host=host)
            if not lost and not full:  # there are no more, or others hold the locks of their hosts
                break
        return jobs, given_up

    def _is_lost_for_good(self, transaction: Transaction, row: Row, *, wait: bool) -> bool:
        """Tell whether a due job's workers all died or lost it, as often as it may be tried."""
        exhausted = row["status"] == "running" and row["attempts"] >= row["max_attempts"]
        return exhausted and self._lock_host(transaction, row["host"], wait=wait)

    def _fitting(
        self, transaction: Transaction, rows: list[Row], *, wait: bool
    ) -> tuple[list[str], list[str]]:
        """Tell the ids of due jobs that may run, and the hosts of which no more may."""
        ids = [
            row["id"]
            for row in rows
            if row["attempts"] < row["max_attempts"] and self._counts_already(row)
        ]
        full = []
        new = [row for row in rows if not self._counts_already(row)]
        for host in dict.fromkeys(row["host"] for row in new):
            if self._lock_host(transaction, host, wait=wait):
                waiting = [row["id"] for row in new if row["host"] == host]
                room = max(0, self._per_host - self._running(transaction, host))
                ids += waiting[:room]
                full += [host] * (len(waiting) > room)
        return ids, full

    def _counts_already(self, row: Row) -> bool:
        """Tell whether a due job takes none of its host's room: its worker died or lost it, or there is no limit."""
        return not self._per_host or row["status"] == "running"

    def _take(self, transaction: Transaction, ids: list[str], worker: str) -> list[Job]:
        if not ids:
            return []
        named = {f"id{number}": job_id for number, job_id in enumerate(ids)}
        rows = transaction.all(
            sql.CLAIM.format(ids=", ".join(f":{name}" for name in named)),
            token=str(uuid.uuid4()),
            worker=worker,
            lease_end=transaction.now() + self._lease_seconds,
            **named,
        )
        return [Job(**row) for row in rows]

    def _running(self, transaction: Transaction, host: str) -> int:
        row = transaction.one(sql.COUNT_RUNNING, host=host)
        return int(row["running"]) if row else 0

    def _give_up_lost(self, transaction: Transaction, ids: list[str]) -> list[str]:
        jobs = self._take(transaction, ids, "nobody")
        if jobs:
            self._settle(transaction, [_Ended(job, LOST) for job in jobs], untried=1)
        return ids

    def _settle_together(
        self, transaction: Transaction, ended: list[_Ended]
    ) -> list[tuple[str, Job | None, list[str]]]:
        """Settle what several threads bring at the same moment, and claim as many jobs for them."""
        statuses = self._settle(transaction, ended)
        following: dict[str | None, list[Job]] = {}
        lost: list[str] = []
        for worker, count in Counter(each.next_for for each in ended).items():
            if worker:
                following[worker], given_up = self._claim(transaction, worker, count, wait=False)
                lost += given_up
        results: list[tuple[str, Job | None, list[str]]] = []
        for each, status in zip(ended, statuses, strict=True):
            jobs = following.get(each.next_for)
            results.append((status, jobs.pop(0) if jobs else None, lost))
            lost = []  # it is enough that one tells of them
        return results

    def _settle(
        self, transaction: Transaction, ended: list[_Ended], *, untried: int = 0
    ) -> list[str]:
        now = transaction.now()
        rows = [self._settled(each.job, each.outcome, now, untried) for each in ended]
        if not self._write_settled(transaction, [each.job for each in ended], rows):
            return ["lost"] * len(ended)
        for each, row in zip(ended, rows, strict=True):
            if row["finished_at"] is not None:
                seconds = now - each.job.created_at
                totals.add_finished(
                    transaction, row["status"], row["error_code"] or "", row["size"] or 0, seconds
                )
                if each.job.email:
                    outbox.owe(transaction, each.job.id, each.job.email)
        return [row["status"] for row in rows]

    def _settled(self, job: Job, outcome: Hashed | Failure, now: float, untried: int) -> Row:
        """Tell what is written of an attempt that ended so."""
        if isinstance(outcome, Hashed):
            return _settled(job, "done", now, **vars(outcome))
        error: Row = {
            "error_code": outcome.code,
            "error_message": outcome.message,
            "untried": untried,
        }
        if isinstance(outcome, PermanentFailure) or job.attempts >= job.max_attempts:
            return _settled(job, "failed", now, **error)
        at_least = outcome.retry_after if isinstance(outcome, TemporaryFailure) else None
        wait = backoff_seconds(job.attempts, self._retry_seconds, at_least or 0)
        return _settled(job, "queued", now, due_at=now + wait, **error)

    def _write_settled(self, transaction: Transaction, jobs: list[Job], rows: list[Row]) -> bool:
        """Write under the fence that claims have ended, and let the next jobs of their hosts come up.

        False when none was valid any more; raises Apart when some were, who are then settled one by one.
        """
        hosts = sorted(
            {job.host for job in jobs}
        )  # in one order, so that nobody waits for each other
        for host in hosts:
            self._lock_host(transaction, host)
        changed = transaction.run_many(sql.SETTLE, rows)
        if 0 < changed < len(rows):
            raise Apart
        if changed:
            self._admit(transaction, *hosts)
        return changed > 0

    def _lock_host(self, transaction: Transaction, host: str, *, wait: bool = True) -> bool:
        """Let nobody else count or change how many of the host's jobs run, until the commit."""
        return not self._per_host or transaction.lock(f"host {host}", wait=wait)

    def _admit(self, transaction: Transaction, *hosts: str) -> None:
        transaction.run_many(
            sql.ADMIT, [{"host": host, "slots": self._per_host or 1000} for host in hosts]
        )


def _settled(
    job: Job, status: str, now: float, *, due_at: float | None = None, **values: object
) -> Row:
    """Give the parameters of sql.SETTLE; without `due_at` the job has ended."""
    finished_at = now if due_at is None else None
    fence = {"id": job.id, "token": job.token}
    return {
        **UNKNOWN,
        **values,
        **fence,
        "status": status,
        "due_at": due_at,
        "finished_at": finished_at,
    }


def _tell(given_up: list[str]) -> None:
    """Write the lines of jobs that ended without a worker to do so."""
    for job_id in given_up:
        log.info("failed", job=job_id, code=LOST.code, reason=LOST.message)


def _seconds_to_room(
    transaction: Transaction, limited: str, window: float, limit: int, **key: str
) -> float:
    """Tell in how many seconds one more fits into the sliding window; 0: now."""
    now = transaction.now()
    row = transaction.one(limited, since=now - window, limit=limit, **key)
    return float(row["created_at"]) + window - now if row else 0.0
