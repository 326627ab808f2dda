"""The queue: every statement about jobs, and the rules by which they change hands.

A job is due when `due_at <= now`: newly submitted, after a back-off, or because its claim was not renewed. A
claim hands out a token, and what a worker says of the job counts only while the row still holds that token.
A host's jobs beyond `per_host` are set aside (due_at is null) when a claim meets them, so that they delay nobody,
and come back one by one as the host's running jobs end.
"""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from md5light.config import Config
from md5light.errors import Failure, Md5lightError, PermanentFailure, TemporaryFailure
from md5light.job import Hashed, Job
from md5light.logs import Log
from md5light.queue import outbox, totals
from md5light.queue.backoff import LONGEST_SECONDS, backoff_seconds
from md5light.queue.database import Database, Row, Transaction

log = Log(__name__)

SUBMIT = """
    insert into jobs (id, url, host, email, client, status, due_at, max_attempts, created_at)
    values (:id, :url, :host, :email, :client, 'queued', :now, :max_attempts, :now)
"""

# The oldest of the latest `limit` submissions within the window: when it leaves, there is room for another.

CLIENT_LIMIT = """
    select created_at from jobs where client = :client and created_at > :since
    order by created_at desc limit 1 offset :limit - 1
"""

RECIPIENT_LIMIT = """
    select created_at from jobs where lower(email) = lower(:email) and email is not null and created_at > :since
    order by created_at desc limit 1 offset :limit - 1
"""

JOBS = """
    select jobs.*, coalesce(outbox.status, case when jobs.email is null or jobs.finished_at is not null
        then 'none' else 'waiting' end) as mail
    from jobs left join outbox on outbox.job_id = jobs.id
"""

GET = f"{JOBS} where jobs.id = :id"

# The ids come first, so that nothing but dates and ids is sorted.

NEWEST = "select id from jobs order by created_at desc, id limit :limit"

NEWEST_OF_STATUS = "select id from jobs where status = :status order by created_at desc, id limit :limit"

LIST = f"{JOBS} where jobs.id in ({{ids}}) order by jobs.created_at desc, jobs.id"

COUNT_UNFINISHED = """
    select count(*) as unfinished from (select 1 from jobs where finished_at is null limit :limit) as counted
"""

IS_DUE = "select 1 from jobs where due_at <= :now limit 1"

DUE = """
    select id, host, status, attempts, max_attempts from jobs where due_at <= :now
    order by due_at limit 1 for update skip locked
"""

COUNT_RUNNING = """
    select count(*) as running from jobs where host = :host and status = 'running' and finished_at is null
"""

CLAIM = """
    update jobs set status = 'running', token = :token, worker = :worker, due_at = :lease_end,
        attempts = attempts + 1, started_at = :now, bytes_done = 0, bytes_total = null
    where id = :id returning *
"""

SET_ASIDE = """
    update jobs set due_at = null where id in (
        select id from jobs where host = :host and status = 'queued' and due_at <= :now and finished_at is null
        limit 1000 for update skip locked)
"""

ADMIT = """
    update jobs set due_at = created_at where id in (
        select id from jobs where host = :host and status = 'queued' and due_at is null and finished_at is null
        order by created_at limit (
            select case when count(*) < :slots then :slots - count(*) else 0 end
            from jobs where host = :host and status = 'running' and finished_at is null))
"""

# Every write of a worker goes through one of these two: they are the fence.

RENEW = """
    update jobs set due_at = :lease_end, bytes_done = :bytes_done, bytes_total = :bytes_total
    where id = :id and token = :token
"""

SETTLE = """
    update jobs set status = :status, due_at = :due_at, finished_at = :finished_at, attempts = attempts - :untried,
        bytes_done = coalesce(:size, bytes_done), bytes_total = coalesce(:size, bytes_total),
        md5 = :md5, size = :size, final_url = :final_url, content_type = :content_type, etag = :etag,
        last_modified = :last_modified, error_code = :error_code, error_message = :error_message,
        token = null, worker = null
    where id = :id and token = :token
"""

CANCEL = """
    update jobs set status = 'canceled', due_at = null, finished_at = :now, token = null, worker = null
    where id = :id and finished_at is null
"""

RETRY = """
    update jobs set status = 'queued', due_at = :now, attempts = 0, started_at = null, finished_at = null,
        bytes_done = 0, bytes_total = null, error_code = null, error_message = null
    where id = :id and status in ('failed', 'canceled')
"""

# A lease that runs lies within its length from now: so much of the index by due_at is looked through.

FREE = """
    update jobs set due_at = :now, token = null, worker = null
    where due_at > :now and due_at <= :now + :lease and worker = :worker
"""

# No end of a back-off or of a lease lies further ahead than this, unless the clock was set back.

PULL_IN = """
    update {table} set due_at = :now + case when token is not null then :lease when attempts = 0 then 0 else :wait end
    where due_at > :now + case when token is not null then :lease when attempts = 0 then 0 else :wait end
        and due_at > :now
"""

PURGE = """
    delete from jobs where id in (
        select id from jobs where finished_at < :before
            and not exists (select 1 from outbox where job_id = jobs.id and due_at is not null)
        order by finished_at limit :rows)
"""

PROBE = """
    insert into probe (id, probed_at) values (1, :now) on conflict (id) do update set probed_at = excluded.probed_at
"""

#: the form of an id, as uuid4() is written
JOB_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: why a job ends that every worker left unfinished
LOST = PermanentFailure("worker_lost", "Each worker that took this job ended before it was done.")

#: what another attempt starts without
UNKNOWN = {field.name: None for field in dataclasses.fields(Hashed)}


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

    def submit(self, url: str, host: str, email: str | None = None, client: str | None = None) -> str:
        """Store a new job and return its id.

        Raises QueueFull or TooMany, and then nothing is stored. `client` is the network address it came from.
        """
        job_id = str(uuid.uuid4())
        noted = client if self._submits_per_minute else None

        def work(transaction: Transaction) -> Md5lightError | None:
            refusal = self._refusal(transaction, email, client)
            if refusal is None:
                transaction.run(
                    SUBMIT,
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
        row = self._database.read(lambda transaction: transaction.one(GET, id=job_id))
        return Job(**row) if row else None

    def newest(self, limit: int, status: str | None = None) -> list[Job]:
        """Return the jobs submitted last, of one status or of all, the newest first."""
        statement = LIST.format(ids=NEWEST_OF_STATUS if status else NEWEST)
        parameters = {"status": status} if status else {}
        rows = self._database.read(lambda transaction: transaction.all(statement, limit=limit, **parameters))
        return [Job(**row) for row in rows]

    def retry(self, job_id: str) -> bool:
        """Make a failed or canceled job due as if it were new; False when there is none of this id.

        Its mail is owed anew too, whatever became of the one that told of the failure.
        """
        if not JOB_ID.fullmatch(job_id):
            return False

        def work(transaction: Transaction) -> bool:
            retried = transaction.run(RETRY, id=job_id) == 1
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
            row = transaction.one(GET, id=job_id)
            if row:
                self._lock_host(transaction, row["host"])
            canceled = row is not None and transaction.run(CANCEL, id=job_id) == 1
            if row and canceled:
                totals.add(transaction, ("finished", "canceled", 1))
                self._admit(transaction, row["host"])
            return canceled

        return self._database.write(work)

    def purge(self, older_than_seconds: float, *, rows: int = 500) -> int:
        """Remove up to `rows` jobs that ended so long ago; returns how many.

        Few at a time, so that no claim waits for long; a job whose mail is still owed is kept.
        """

        def work(transaction: Transaction) -> int:
            return transaction.run(PURGE, before=transaction.now() - older_than_seconds, rows=rows)

        return self._database.write(work)

    def probe(self) -> None:
        """Prove that the database can be written, by writing, and that its schema is still ours."""

        def work(transaction: Transaction) -> None:
            self._database.check_schema(transaction)
            transaction.run(PROBE)

        self._database.write(work)

    # --- for workers ---------------------------------------------------------------------------------------

    def claim(self, worker: str) -> Job | None:
        """Take the job that has been due longest, None when none is due; counts as an attempt."""
        if not self._database.read(lambda transaction: transaction.one(IS_DUE)):
            return None  # found without the write lock, for the sake of idle workers
        job, given_up = self._database.write(lambda transaction: self._claim(transaction, worker))
        _tell(given_up)
        return job

    def renew(self, running: Iterable[Progress]) -> list[Job]:
        """Put off the end of the leases and note the progress; returns the jobs that are this worker's no more."""

        def work(transaction: Transaction) -> list[Job]:
            lease_end = transaction.now() + self._lease_seconds
            return [
                progress.job
                for progress in running
                if not transaction.run(
                    RENEW,
                    id=progress.job.id,
                    token=progress.job.token,
                    lease_end=lease_end,
                    bytes_done=progress.bytes_done,
                    bytes_total=progress.bytes_total,
                )
            ]

        return self._database.write(work)

    def settle(self, job: Job, outcome: Hashed | Failure, *, next_for: str | None = None) -> tuple[str, Job | None]:
        """Store how an attempt ended and, for the worker `next_for`, claim the next job, all in one transaction.

        Returns the job's new status, or `lost` when the claim was no longer valid and nothing was stored; and the
        job claimed. A finished job's mail is owed from the same transaction on.
        """

        def work(transaction: Transaction) -> tuple[str, tuple[Job | None, list[str]]]:
            status = self._settle(transaction, job, outcome)
            return status, self._claim(transaction, next_for, wait=False) if next_for else (None, [])

        status, (following, given_up) = self._database.write(work)
        _tell(given_up)
        return status, following

    def release(self, job: Job) -> bool:
        """Give a job back untried; False when it was this worker's no more."""

        def work(transaction: Transaction) -> bool:
            now = transaction.now()
            return self._write_settled(transaction, job, "queued", due_at=now, untried=1)

        return self._database.write(work)

    def free(self, worker: str) -> int:
        """Make the claims of a worker that died due at once; returns how many there were."""

        def work(transaction: Transaction) -> int:
            transaction.ring()
            return transaction.run(FREE, worker=worker, lease=self._lease_seconds)

        return self._database.write(work)

    def pull_in(self) -> int:
        """Let no job or mail wait for longer than it may, the clock having been set back; returns how many did."""

        def work(transaction: Transaction) -> int:
            bounds = {"lease": self._lease_seconds, "wait": LONGEST_SECONDS}
            return sum(transaction.run(PULL_IN.format(table=table), **bounds) for table in ("jobs", "outbox"))

        return self._database.write(work)

    # --- within a transaction ------------------------------------------------------------------------------

    def _refusal(self, transaction: Transaction, email: str | None, client: str | None) -> Md5lightError | None:
        """Tell what speaks against storing one more job."""
        if client and self._submits_per_minute:
            transaction.lock(f"client {client}")
            wait = _seconds_to_room(transaction, CLIENT_LIMIT, 60, self._submits_per_minute, client=client)
            if wait:
                return TooMany("too_many_submits", "There were too many submissions from this address.", wait)
        if email and self._mails_per_hour:
            transaction.lock(f"recipient {email.lower()}")
            wait = _seconds_to_room(transaction, RECIPIENT_LIMIT, 3600, self._mails_per_hour, email=email)
            if wait:
                return TooMany("too_many_mails", "There were too many mails to this recipient.", wait)
        return None if self._has_room(transaction) else QueueFull("too many jobs are waiting")

    def _has_room(self, transaction: Transaction) -> bool:
        """Tell whether one more job may be stored, counting the rows only as often as needed.

        After a count, a sixteenth of the room found may be filled before the next: exact near the limit,
        cheap far from it, and up to sixteen servers can't exceed it together.
        """
        if self._submits_before_count <= 0:
            transaction.lock("unfinished")
            row = transaction.one(COUNT_UNFINISHED, limit=self._max_unfinished)
            room = self._max_unfinished - (row["unfinished"] if row else 0)
            if room <= 0:
                return False
            self._submits_before_count = max(1, room // 16)
        self._submits_before_count -= 1
        return True

    def _claim(self, transaction: Transaction, worker: str, *, wait: bool = True) -> tuple[Job | None, list[str]]:
        """Take the first job that may run; returns it and the ids of those that were given up on the way.

        One who holds a host's lock must not `wait` for another one's.
        """
        given_up: list[str] = []
        while row := transaction.one(DUE):
            if row["status"] == "running":  # its worker died or lost it; it still counts among its host's
                if row["attempts"] < row["max_attempts"]:
                    return self._take(transaction, row["id"], worker), given_up
                self._give_up_lost(transaction, row["id"])
                given_up.append(row["id"])
            elif not self._lock_host(transaction, row["host"], wait=wait):
                return None, given_up
            elif self._per_host and self._running(transaction, row["host"]) >= self._per_host:
                transaction.run(SET_ASIDE, host=row["host"])
            else:
                return self._take(transaction, row["id"], worker), given_up
        return None, given_up

    def _take(self, transaction: Transaction, job_id: str, worker: str) -> Job:
        row = transaction.one(
            CLAIM,
            id=job_id,
            token=str(uuid.uuid4()),
            worker=worker,
            lease_end=transaction.now() + self._lease_seconds,
        )
        assert row is not None  # noqa: S101 - it was selected in this very transaction
        return Job(**row)

    def _running(self, transaction: Transaction, host: str) -> int:
        row = transaction.one(COUNT_RUNNING, host=host)
        return int(row["running"]) if row else 0

    def _give_up_lost(self, transaction: Transaction, job_id: str) -> None:
        job = self._take(transaction, job_id, "nobody")
        self._settle(transaction, job, LOST, untried=1)

    def _settle(self, transaction: Transaction, job: Job, outcome: Hashed | Failure, *, untried: int = 0) -> str:
        now = transaction.now()
        status, due_at = "queued", None
        values: Row = dict(UNKNOWN)
        if isinstance(outcome, Hashed):
            status, values = "done", vars(outcome)
        elif isinstance(outcome, PermanentFailure) or job.attempts >= job.max_attempts:
            status = "failed"
        else:
            at_least = outcome.retry_after if isinstance(outcome, TemporaryFailure) else None
            due_at = now + backoff_seconds(job.attempts, self._retry_seconds, at_least or 0)
        failure = None if isinstance(outcome, Hashed) else outcome
        stored = self._write_settled(
            transaction, job, status, due_at=due_at, untried=untried, failure=failure, **values
        )
        if not stored:
            return "lost"
        if status != "queued":
            code = failure.code if failure else ""
            seconds = now - job.created_at
            totals.add_finished(transaction, status, code, values["size"] or 0, seconds)
            if job.email:
                outbox.owe(transaction, job.id, job.email)
        return status

    def _write_settled(
        self,
        transaction: Transaction,
        job: Job,
        status: str,
        *,
        due_at: float | None,
        untried: int = 0,
        failure: Failure | None = None,
        **values: object,
    ) -> bool:
        """Write under the fence that a claim has ended, and let the next job of its host come up."""
        self._lock_host(transaction, job.host)
        changed = transaction.run(
            SETTLE,
            **{**UNKNOWN, **values},
            id=job.id,
            token=job.token,
            status=status,
            due_at=due_at,
            finished_at=transaction.now() if due_at is None else None,
            untried=untried,
            error_code=failure and failure.code,
            error_message=failure and failure.message,
        )
        if changed:
            self._admit(transaction, job.host)
        return changed == 1

    def _lock_host(self, transaction: Transaction, host: str, *, wait: bool = True) -> bool:
        """Let nobody else count or change how many of the host's jobs run, until the commit."""
        return not self._per_host or transaction.lock(f"host {host}", wait=wait)

    def _admit(self, transaction: Transaction, host: str) -> None:
        transaction.run(ADMIT, host=host, slots=self._per_host or 1000)


def _tell(given_up: list[str]) -> None:
    """Write the lines of jobs that ended without a worker to do so."""
    for job_id in given_up:
        log.info("failed", job=job_id, code=LOST.code, reason=LOST.message)


def _seconds_to_room(transaction: Transaction, sql: str, window: float, limit: int, **key: str) -> float:
    """Tell in how many seconds one more fits into the sliding window; 0: now."""
    now = transaction.now()
    row = transaction.one(sql, since=now - window, limit=limit, **key)
    return float(row["created_at"]) + window - now if row else 0.0
