"""The queue: how a job passes from a client to a worker, and its result back.

The way of a job: `submit` stores it, `claim` leases it to a worker, `renew` keeps the lease and
shows progress, `settle` stores the outcome and claims the next job. The states of its row are
drawn in the schema, the rules of leases in `leases`, those of hosts in `hosts`.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from md5light.config import Config
from md5light.errors import (
    Failure,
    Md5lightError,
    PermanentFailure,
    QueueFull,
    TemporaryFailure,
)
from md5light.finding import MD5_ALONE, Wanted
from md5light.job import Hashed, Job
from md5light.logs import Log
from md5light.queue import outbox, totals, turns
from md5light.queue.backoff import backoff_seconds
from md5light.queue.database import Database, Row, Transaction
from md5light.queue.hosts import HostReport, Hosts
from md5light.queue.ids import ID, find
from md5light.queue.leases import Leases, settled
from md5light.queue.limits import Limits, Room
from md5light.queue.verdicts import Verdict, Verdicts

log = Log(__name__)

#: how often a claim looks for due jobs in one transaction: each time it may set many aside, and
#: other writers wait
LOOKS = 5

#: a limit above the rows of any table
NO_LIMIT = 2**62

#: why a job ends that every worker left unfinished
LOST = PermanentFailure("worker_lost", "Each worker that took this job ended before it was done.")

#: the columns that a successful download fills, and their values without one
NO_RESULT: Row = {field.name: None for field in dataclasses.fields(Hashed)}

SUBMIT = """
    insert into jobs (
        id, url, host, email, client, status, due_at, turn, max_attempts, created_at,
        digests, expected_size, expected_md5, expected_sha1, expected_sha256, expected_sha512)
    values (:id, :url, :host, :email, :client, 'queued', coalesce(:turn, :now),
        coalesce(:turn, :now), :max_attempts, :now,
        :digests, :expected_size, :expected_md5, :expected_sha1, :expected_sha256, :expected_sha512)
"""

#: parked jobs are of a batch that nobody sees yet, or wait for their turn
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

# The columns by which a claim decides; a row is read whole only once it is claimed.

DUE_COLUMNS = "id, host, status, attempts, max_attempts"

#: what a worker needs of a job
CLAIMED_COLUMNS = """
    id, url, host, email, client, status, due_at, token, worker, attempts, max_attempts,
    created_at, started_at, error_code, turn, refusals, refused_at, batch_id, digests
"""

ON_CLAIM = """, status = 'running', turn = coalesce(turn, due_at), started_at = :now,
    bytes_done = 0, bytes_total = null"""

ON_RENEW = ", bytes_done = :bytes_done, bytes_total = :bytes_total"

ON_SETTLE = (
    ", turn = :turn, refusals = :refusals, refused_at = :refused_at"
    ", bytes_done = coalesce(:size, bytes_done), bytes_total = coalesce(:size, bytes_total)"
    + "".join(f", {column} = :{column}" for column in NO_RESULT)
)

CANCEL = """
    update jobs set status = 'canceled', due_at = null, turn = null, finished_at = :now,
        token = null, worker = null
    where id = :id and finished_at is null
"""

# A retried job of a batch opens it again, and its next end owes a mail: a former one not sent yet
# would tell of a batch that runs.

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

LAST_CHANCE = """
    update jobs set max_attempts = :attempts + 1
    where id = :id and token = :token and max_attempts > :attempts + 1
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


class _Submission(NamedTuple):
    """A job to be stored; `reserved` tells that it needs no count of the room."""

    row: Row
    client: str | None
    reserved: bool


class _Stored(NamedTuple):
    """The result of a submission: a refusal if any, and the room that a count has found."""

    refusal: Md5lightError | None
    room: int | None


class _Ended(NamedTuple):
    """An attempt that ended, and whether its worker wants another job."""

    job: Job
    outcome: Hashed | Failure
    claim_next: bool = False


class _Claimed(NamedTuple):
    """Jobs that a claim took, those that it ended as lost, and the events that this counts as."""

    jobs: list[Job]
    lost: list[Job]
    events: list[totals.Event]
    #: it set many jobs aside without finding enough: another one may
    more: bool = False


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
        submits_per_minute: int = 0,
        mails_per_hour: int = 0,
        unfinished_per_client: int = 0,
    ) -> None:
        self._database = database
        self._max_attempts = max_attempts
        self._retry_seconds = retry_seconds
        self._limits = Limits(submits_per_minute, mails_per_hour, unfinished_per_client)
        self._room = Room(max_unfinished)
        self._hosts = Hosts(per_host)
        self._verdicts = Verdicts(self._hosts.per_host, retry_seconds)
        self._leases = Leases(
            "jobs",
            ["id"],
            seconds=lease_seconds,
            on_claim=ON_CLAIM,
            on_renew=ON_RENEW,
            on_settle=ON_SETTLE,
            is_new="due_at = turn",
            due_columns=DUE_COLUMNS,
            claimed_columns=CLAIMED_COLUMNS,
        )

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
            submits_per_minute=config.server.submits_per_minute,
            mails_per_hour=config.smtp.per_recipient_per_hour,
            unfinished_per_client=config.server.max_unfinished_per_client,
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
        submission = _Submission(row, client, self._room.reserve())
        stored = self._database.write_together(self._store_submissions, submission)
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
        ids = sorted(job_ids)

        def work(transaction: Transaction) -> int:
            transaction.run_many(REMOVE_UNSENT, [{"id": job_id} for job_id in ids])
            transaction.run_many(REOPEN, [{"id": job_id} for job_id in ids])
            retried = [job_id for job_id in ids if self._retry(transaction, job_id)]
            outbox.remove(transaction, "job", retried)
            for _ in retried:
                transaction.ring()
            return len(retried)

        return self._database.write(work)

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

        def work(transaction: Transaction) -> _Claimed:
            claimed = self._claim(transaction, worker, 1, wait=True)
            totals.add(transaction, claimed.events)
            return claimed

        while True:
            claimed = self._database.write(work)
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
        ended = _Ended(job, outcome, claim_next)
        status, next_job, lost = self._database.write_together(self._settle_and_claim, ended)
        _log_failed(lost)
        return status, next_job

    def seconds_to_next(self) -> float:
        """Return how soon another job may fall due, for workers that found none."""
        return self._database.read(self._leases.seconds_to_next)

    def release(self, job: Job, *, pause: float = 0.0) -> bool:
        """Give a job back untried, to be taken in `pause` seconds at the earliest.

        False when this worker no longer held it.
        """

        def work(transaction: Transaction) -> bool:
            now = transaction.now()
            row = {
                **_held(job),
                **NO_RESULT,
                **settled("queued", now, due_at=now + pause, untried=1),
                **_place(job, job.turn),
            }
            self._hosts.lock(transaction, [job.host])
            (held,) = self._leases.settle(transaction, [row])
            self._hosts.admit(transaction, [job.host])
            return held

        return self._database.write(work)

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
        totals.add(transaction, [_event(job, job._asdict()) for job in failed])
        return failed

    def _store_submissions(
        self, transaction: Transaction, submissions: list[_Submission]
    ) -> list[_Stored]:
        """Store new jobs, in their order, as far as the limits allow."""
        transaction.lock(self._locks(submissions))
        room = None if all(each.reserved for each in submissions) else self._room.count(transaction)
        results = []
        for each in submissions:
            refusal: Md5lightError | None = self._limits.refusal(
                transaction, each.client, each.row["email"]
            )
            if room is not None and not each.reserved and not refusal:
                refusal = None if room > 0 else QueueFull("Too many jobs are waiting.")
                room = max(0, room - 1)
            if not refusal:
                turn = turns.following(transaction, each.client)
                transaction.run(SUBMIT, **each.row, turn=turn)
                transaction.ring()
            results.append(_Stored(refusal, room))
        stored = zip(submissions, results, strict=True)
        clients = (each.client for each, result in stored if not result.refusal)
        totals.add(transaction, totals.submitted(clients))
        return results

    def _retry(self, transaction: Transaction, job_id: str) -> bool:
        """Make a failed or canceled job wait, in the turn of a new one of its client."""
        row = transaction.one("select client from jobs where id = :id", id=job_id)
        turn = turns.following(transaction, row["client"]) if row else None
        changed = transaction.run(RETRY, id=job_id, turn=turn, max_attempts=self._max_attempts)
        return changed == 1

    def _locks(self, submissions: list[_Submission]) -> set[str]:
        locks = {
            lock
            for each in submissions
            for lock in self._limits.locks(each.client, each.row["email"])
        }
        return locks if all(each.reserved for each in submissions) else {*locks, Room.LOCK}

    def _settle_and_claim(
        self, transaction: Transaction, ended: list[_Ended]
    ) -> list[tuple[str, Job | None, list[Job]]]:
        """Settle the jobs of several threads, and claim as many for those that want another."""
        self._hosts.lock(transaction, {each.job.host for each in ended})
        statuses, events = self._store_outcomes(transaction, ended)
        wanted = sum(each.claim_next for each in ended)
        # Locks are held: to wait for those of other hosts might mean to wait for each other.
        claimed = self._claim(transaction, ended[0].job.worker or "", wanted, wait=False)
        totals.add(transaction, events + claimed.events)
        next_jobs = iter(claimed.jobs)
        results = []
        for number, (each, status) in enumerate(zip(ended, statuses, strict=True)):
            next_job = next(next_jobs, None) if each.claim_next else None
            results.append((status, next_job, [] if number else claimed.lost))
        return results

    def _claim(self, transaction: Transaction, worker: str, count: int, *, wait: bool) -> _Claimed:
        """Take the first `count` due jobs that may run, and end those on the way that are lost.

        Without `wait` it leaves out the jobs of hosts that other transactions have locked.
        """
        claimed = _Claimed([], [], [])
        for _ in range(LOOKS):
            if len(claimed.jobs) == count:
                break
            due = self._leases.due(transaction, count - len(claimed.jobs))
            locked = self._hosts.lock(transaction, {row["host"] for row in due}, wait=wait)
            due = [row for row in due if row["host"] in locked]
            lost = [row for row in due if _is_lost(row)]
            may_run, full = self._hosts.choose(transaction, [row for row in due if row not in lost])
            claimed.jobs.extend(self._take(transaction, may_run, worker))
            if lost:
                jobs, events = self._end_lost(transaction, lost)
                claimed.lost.extend(jobs)
                claimed.events.extend(events)
            self._hosts.set_aside(transaction, full)
            if not lost and not full:  # no more are due, or others hold the locks of their hosts
                break
        else:
            return claimed._replace(more=True)
        return claimed

    def _take(self, transaction: Transaction, due: list[Row], worker: str) -> list[Job]:
        return [Job(**row) for row in self._leases.claim(transaction, due, worker)]

    def _end_lost(
        self, transaction: Transaction, lost: list[Row]
    ) -> tuple[list[Job], list[totals.Event]]:
        """End jobs that every worker lost; the claim that finds that does not count."""
        jobs = self._take(transaction, lost, "")
        _, events = self._store_outcomes(
            transaction, [_Ended(job, LOST) for job in jobs], untried=1
        )
        ended = [job._replace(error_code=LOST.code, error_message=LOST.message) for job in jobs]
        return ended, events

    def _store_outcomes(
        self, transaction: Transaction, ended: list[_Ended], *, untried: int = 0
    ) -> tuple[list[str], list[totals.Event]]:
        """Settle jobs whose hosts are locked, and add the mails that this makes owed."""
        now = transaction.now()
        last = [each.job for each in ended if _is_last_chance(each.outcome)]
        transaction.run_many(
            LAST_CHANCE, [{**_held(job), "attempts": job.attempts} for job in last]
        )
        standings = self._hosts.look(transaction, {each.job.host for each in ended})
        outcomes = [(each.job, each.outcome) for each in ended]
        verdicts = self._verdicts.hear(transaction, outcomes, standings)
        rows = [
            self._outcome(each, verdict, now, untried)
            for each, verdict in zip(ended, verdicts, strict=True)
        ]
        held = self._leases.settle(transaction, rows)
        stored = [
            (each.job, row) for each, row, is_held in zip(ended, rows, held, strict=True) if is_held
        ]
        self._hosts.admit_by(transaction, standings)
        finished = [(job, row) for job, row in stored if row["finished_at"] is not None]
        recipients = {job.id: job.email for job, _ in finished if job.email}
        outbox.add(transaction, "job", recipients)
        statuses = [
            row["status"] if is_held else "lost" for row, is_held in zip(rows, held, strict=True)
        ]
        return statuses, [_event(job, row) for job, row in finished]

    def _outcome(self, ended: _Ended, verdict: Verdict, now: float, untried: int) -> Row:
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


def _newest(status: str | None, code: str | None, host: str | None) -> tuple[str, Row]:
    """Return the statement that selects ids of jobs, and its parameters."""
    wanted: Row = {"status": status, "error_code": code, "host": host}
    wanted = {column: value for column, value in wanted.items() if value is not None}
    return NEWEST.format(wanted="".join(f" and {name} = :{name}" for name in wanted)), wanted


def _held(job: Job) -> Row:
    """Return the key and the token of a job's row: what the fence compares."""
    return {"id": job.id, "token": job.token}


def _is_last_chance(outcome: Hashed | Failure) -> bool:
    return isinstance(outcome, Failure) and outcome.last_chance


def _place(job: Job, turn: float | None) -> Row:
    """Return the parameters of a job's place among those that wait."""
    return {"turn": turn, "refusals": job.refusals, "refused_at": job.refused_at}


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


def _is_lost(row: Row) -> bool:
    """Tell whether a due job was lost by a worker at its last attempt."""
    return bool(row["status"] == "running" and row["attempts"] >= row["max_attempts"])


def _event(job: Job, row: Row) -> totals.Event:
    seconds = max(0.0, row["finished_at"] - job.created_at)
    return totals.ended(row["status"], row["error_code"] or "", row["size"] or 0, seconds)


def _log_failed(jobs: Iterable[Job]) -> None:
    """Log the end of jobs that no worker can log."""
    for job in jobs:
        log.info("failed", job=job.id, code=job.error_code, reason=job.error_message)
