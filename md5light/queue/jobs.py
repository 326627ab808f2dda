"""The queue: how a job passes from a client to a worker, and its result back.

The way of a job: `submit` stores it, `claim` leases it to a worker, `renew` keeps the lease and
shows progress, `settle` stores the outcome and claims the next job. The states of its row are
drawn in the schema, the rules of leases in `leases`, those of hosts in `hosts`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from md5light.config import Config
from md5light.errors import Failure
from md5light.finding import MD5_ALONE, Wanted
from md5light.job import Hashed, Job
from md5light.logs import Log
from md5light.queue import outbox, retries, totals
from md5light.queue.claims import Claims, leases_of_jobs
from md5light.queue.database import Database, Row, Transaction
from md5light.queue.hosts import HostReport, Hosts
from md5light.queue.ids import ID, find
from md5light.queue.limits import NO_LIMITS, Limits, Room
from md5light.queue.outcomes import Ended, Outcomes, end_event
from md5light.queue.submissions import Submission, Submissions

log = Log(__name__)

#: a limit above the rows of any table
NO_LIMIT = 2**62

#: parked jobs belong to a batch that is still invisible, or that is being swept
VISIBLE = "jobs.status <> 'parked'"

JOBS = """
    select jobs.*, coalesce(outbox.status, case when jobs.email is null
        or jobs.finished_at is not null then 'none' else 'waiting' end) as mail,
        hosts.rest_until, hosts.error_code as rest_code, hosts.error_message as rest_message
    from jobs left join outbox on outbox.kind = 'job' and outbox.subject = jobs.id
        left join hosts on hosts.host = jobs.host and hosts.rest_until > :now and hosts.rests > 0
"""

GET = f"{JOBS} where jobs.id = :id and {VISIBLE}"

# The ids come first, so that only dates and ids are sorted.

NEWEST = f"select id from jobs where {VISIBLE} {{wanted}} order by created_at desc, id limit :limit"

LIST = f"{JOBS} where jobs.id in ({{ids}}) order by jobs.created_at desc, jobs.id"

CANCEL = """
    update jobs set status = 'canceled', due_at = null, turn = null, finished_at = :now,
        token = null, worker = null
    where id = :id and finished_at is null
"""

PURGE = """
    delete from jobs where id in (
        select id from jobs where finished_at < :before and batch_id is null and not exists (
            select 1 from outbox
            where kind = 'job' and subject = jobs.id and outbox.due_at is not null)
        order by finished_at limit :rows)
    returning id
"""

PROBE = """
    insert into probe (id, probed_at) values (1, :now)
    on conflict (id) do update set probed_at = excluded.probed_at
"""


@dataclass(frozen=True)
class Progress:
    """How far a running job has come."""

    job: Job
    bytes_done: int
    bytes_total: int | None


class Queue:
    """The jobs of one database.

    For clients: submit, get, cancel; for administrators: newest, retry, purge; for workers: claim,
    renew, settle, release. Every method is one transaction, and raises DatabaseUnavailable when the
    database could not do it.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease_seconds: float,
        max_attempts: int,
        retry_seconds: float,
        per_host: int = 0,
        max_unfinished: int = 10**12,
        limits: Limits = NO_LIMITS,
    ) -> None:
        self._database = database
        self._max_attempts = max_attempts
        self._room = Room(max_unfinished)
        self._submissions = Submissions(limits, self._room)
        self._hosts = Hosts(per_host)
        self._leases = leases_of_jobs(lease_seconds)
        self._outcomes = Outcomes(self._leases, self._hosts, retry_seconds)
        self._claims = Claims(self._leases, self._hosts, self._outcomes)

    @classmethod
    def configured(cls, database: Database, config: Config) -> Queue:
        """Make the queue that `config` describes."""
        return cls(
            database,
            lease_seconds=config.queue.lease_seconds,
            max_attempts=config.queue.max_attempts,
            retry_seconds=config.queue.retry_seconds,
            per_host=config.worker.per_host,
            max_unfinished=config.server.max_unfinished,
            limits=Limits.configured(config),
        )

    # --- for clients ------------------------------------------------------------------------------

    def submit(
        self,
        url: str,
        host: str,
        email: str | None = None,
        client: str | None = None,
        wanted: Wanted = MD5_ALONE,
    ) -> str:
        """Store a new job and return its id; `client` is its token or its address.

        Of a client's waiting jobs the first is due at once, the others have turns (`turns`). Raises
        QueueFull or TooMany, and then nothing is stored.
        """
        row: Row = {
            "id": str(uuid.uuid4()),
            "url": url,
            "host": host,
            "email": email,
            "client": client,
            "max_attempts": self._max_attempts,
            **wanted._asdict(),
        }
        submission = Submission(row, self._room.reserve())
        stored = self._database.write_together(self._submissions.store, submission)
        if stored.room is not None:
            self._room.found(stored.room)
        if stored.refusal:
            raise stored.refusal
        return str(row["id"])

    def get(self, job_id: str) -> Job | None:
        """Return the job as it stands, None when there is none of this id."""
        if not ID.fullmatch(job_id):  # not every engine takes every text
            return None
        row = self._database.read(lambda transaction: transaction.one(GET, id=job_id))
        return Job(**row) if row else None

    def newest(
        self,
        limit: int,
        status: str | None = None,
        code: str | None = None,
        host: str | None = None,
    ) -> list[Job]:
        """Return the jobs submitted last, with this status, error code and host; newest first."""
        newest, parameters = _newest(status, code, host)
        sql = LIST.format(ids=newest)
        rows = self._database.read(
            lambda transaction: transaction.all(sql, limit=limit, **parameters)
        )
        return [Job(**row) for row in rows]

    def ids(
        self, status: str | None = None, code: str | None = None, host: str | None = None
    ) -> list[str]:
        """Return the ids of all jobs with this status, error code and host; newest first."""
        sql, parameters = _newest(status, code, host)
        rows = self._database.read(
            lambda transaction: transaction.all(sql, limit=NO_LIMIT, **parameters)
        )
        return [row["id"] for row in rows]

    def hosts(self, limit: int) -> list[HostReport]:
        """Return the hosts that were in trouble last."""
        return self._database.read(partial(self._hosts.newest, limit=limit))

    def find(self, beginning: str) -> list[str]:
        """Return the ids that begin so, two at most; none for fewer than eight characters."""
        return self._database.read(
            lambda transaction: find(transaction, "jobs", VISIBLE, beginning)
        )

    def retry(self, job_id: str) -> bool:
        """Make a failed or canceled job new; False when there is none of this id.

        Its mail will be owed again when it ends, whether or not the former one was sent.
        """
        return bool(ID.fullmatch(job_id)) and self.retry_all([job_id]) == 1

    def retry_all(self, job_ids: Iterable[str]) -> int:
        """Make those of these jobs new that failed or were canceled; return how many."""
        ids, max_attempts = list(job_ids), self._max_attempts
        return self._database.write(
            lambda transaction: retries.retry(transaction, ids, max_attempts)
        )

    def cancel(self, job_id: str) -> bool:
        """End an unfinished job; False when there is none of this id.

        Its worker learns of that at its next renewal.
        """
        if not ID.fullmatch(job_id):
            return False

        def work(transaction: Transaction) -> bool:
            row = transaction.one("select host from jobs where id = :id", id=job_id)
            if row is None:
                return False
            self._hosts.lock(transaction, [row["host"]])
            if not transaction.run(CANCEL, id=job_id):
                return False
            self._hosts.admit(transaction, [row["host"]])
            totals.add(transaction, [totals.Event("canceled")])
            return True

        return self._database.write(work)

    def purge(self, older_than_seconds: float, *, rows: int = 500) -> int:
        """Remove up to `rows` jobs that ended so long ago; return how many.

        Few at a time, so that no claim waits for long; a job whose mail is owed is kept.
        """

        def work(transaction: Transaction) -> int:
            before = transaction.now() - older_than_seconds
            removed = transaction.all(PURGE, before=before, rows=rows)
            outbox.remove(transaction, "job", [row["id"] for row in removed])
            transaction.trim()
            return len(removed)

        return self._database.write(work)

    def purge_expired(self, retention_seconds: float, *, rows: int = 500) -> int:
        """Purge jobs whose retention is over, but none while the clock is implausible.

        A clock that is days ahead (before NTP has set it) would make every job look old.
        """
        if self._database.read(totals.is_clock_implausible):
            return 0
        return self.purge(retention_seconds, rows=rows)

    def probe(self) -> None:
        """Prove by writing that the database can be written and has this program's schema."""

        def work(transaction: Transaction) -> None:
            self._database.check_schema(transaction)
            transaction.run(PROBE)

        self._database.write(work)

    # --- for workers ------------------------------------------------------------------------------

    def claim(self, worker: str) -> Job | None:
        """Take the job that has been due longest, None when none is due; counts as an attempt."""
        # A cheap read first: an idle poll must not take the write lock.
        if not self._database.read(self._leases.any_due):
            return None

        claim_one = partial(self._claims.claim_one, worker=worker)
        while True:
            claimed = self._database.write(claim_one)
            _log_failed(claimed.lost)
            if claimed.jobs or not claimed.more:
                return claimed.jobs[0] if claimed.jobs else None

    def renew(self, running: Iterable[Progress]) -> list[Job]:
        """Store progress and extend leases; return the jobs that this worker no longer holds."""
        progress = list(running)
        rows = [
            {
                "id": each.job.id,
                "token": each.job.token,
                "bytes_done": each.bytes_done,
                "bytes_total": each.bytes_total,
            }
            for each in progress
        ]
        held = self._database.write(lambda transaction: self._leases.renew(transaction, rows))
        return [each.job for each, is_held in zip(progress, held, strict=True) if not is_held]

    def settle(
        self, job: Job, outcome: Hashed | Failure, *, claim_next: bool = False
    ) -> tuple[str, Job | None]:
        """Store how an attempt ended and, if asked to, claim the next job for the same worker.

        Both happen in one transaction, in which a mail for a job that ended becomes owed, too. All
        jobs settled through one Queue are one worker's. Returns the job's new status, or `lost`
        when its worker no longer held it and nothing was stored; and the job claimed.
        """
        ended = Ended(job, outcome, claim_next)
        status, next_job, lost = self._database.write_together(self._claims.settle_and_claim, ended)
        _log_failed(lost)
        return status, next_job

    def seconds_to_next(self) -> float:
        """Return how soon another job may fall due, for workers that found none."""
        return self._database.read(self._leases.seconds_to_next)

    def release(self, job: Job, *, pause: float = 0.0) -> bool:
        """Give a job back untried, to be taken in `pause` seconds at the earliest.

        False when this worker no longer held it.
        """
        release = partial(self._outcomes.release, job=job, pause=pause)
        return self._database.write(release)

    def free(self, worker: str) -> int:
        """Make the jobs of a worker that died due at once; return how many they were."""

        def work(transaction: Transaction) -> int:
            transaction.ring()
            return self._leases.free(transaction, worker)

        return self._database.write(work)

    def clamp_due_at(self) -> int:
        """Let no job wait too long after the clock was set back; return how many did."""

        def work(transaction: Transaction) -> int:
            self._hosts.tidy(transaction)
            return self._leases.clamp_due_at(transaction)

        return self._database.write(work)

    def fail_given_up(self) -> bool:
        """Let jobs fail that wait for hosts which stay away; True when there may be more."""
        more = False
        for host in self._database.read(self._hosts.given_up):
            failed = self._database.write(partial(self._fail_waiting, host=host.host))
            log.warning("host_given_up", host=host.host, jobs=len(failed), code=host.error_code)
            _log_failed(failed)
            more = more or bool(failed)
        return more

    # --- within a transaction ---------------------------------------------------------------------

    def _fail_waiting(self, transaction: Transaction, host: str) -> list[Job]:
        failed = self._hosts.fail_waiting(transaction, host)
        outbox.add(transaction, "job", {job.id: job.email for job in failed if job.email})
        totals.add(transaction, [end_event(job, job._asdict()) for job in failed])
        return failed


def _newest(status: str | None, code: str | None, host: str | None) -> tuple[str, Row]:
    """Return the statement that selects ids of jobs, and its parameters."""
    wanted: Row = {"status": status, "error_code": code, "host": host}
    wanted = {column: value for column, value in wanted.items() if value is not None}
    return NEWEST.format(wanted="".join(f" and {name} = :{name}" for name in wanted)), wanted


def _log_failed(jobs: Iterable[Job]) -> None:
    """Log the end of jobs that no worker can log."""
    for job in jobs:
        log.info("failed", job=job.id, code=job.error_code, reason=job.error_message)
