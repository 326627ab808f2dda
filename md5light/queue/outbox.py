"""The outbox: owed mails, each added in the transaction that makes it owed.

The way of a mail: `add` stores it, `claim` leases it to a worker, `renew` extends the lease, and
`sent`, `failed` or `release` settles it. The states of its row are drawn in the schema. A mail is
tried until it is too old, with pauses that double up to an hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from md5light.config import Config
from md5light.errors import Failure, PermanentFailure, TemporaryFailure
from md5light.job import Job, Mail
from md5light.queue import totals
from md5light.queue.backoff import backoff_seconds
from md5light.queue.database import Database, Row, Transaction
from md5light.queue.leases import Leases, settled

#: a mail's first back-off, in those of a job: outages of mail servers last longer than those of
#: files
RETRY_FACTOR = 3

#: lost attempts after which a mail waits for its back-off; earlier ones are tried again at once,
#: since their workers may have died for another reason
LOST_ATTEMPTS = 3

DAY_SECONDS = 86400.0

LOST = TemporaryFailure("worker_lost", "The worker that took this mail ended before it was sent.")

ADD = """
    insert into outbox (kind, subject, recipient, due_at, created_at)
    values (:kind, :subject, :recipient, :now, :now) on conflict (kind, subject) do nothing
"""

REMOVE = "delete from outbox where kind = :kind and subject = :subject"

NEWEST = "select * from outbox {where} order by created_at desc, kind, subject limit :limit"

RETRY = """
    update outbox set status = 'waiting', due_at = :now, attempts = 0, created_at = :now,
        finished_at = null
    where status = 'failed' and recipient <> ''
"""

JOB = "select * from jobs where id = :id"


def add(transaction: Transaction, kind: str, recipients: Mapping[str, str]) -> None:
    """Store within `transaction` the mails owed for subjects of `kind`, each to its recipient."""
    rows = [
        {"kind": kind, "subject": subject, "recipient": recipient}
        for subject, recipient in recipients.items()
    ]
    transaction.run_many(ADD, rows)


def remove(transaction: Transaction, kind: str, subjects: Iterable[str]) -> None:
    """Remove within `transaction` the mails of subjects of `kind`, sent or not."""
    transaction.run_many(REMOVE, [{"kind": kind, "subject": subject} for subject in subjects])


class Outbox:
    """The owed mails of one database, leased to workers as jobs are."""

    def __init__(
        self,
        database: Database,
        *,
        lease_seconds: float,
        retry_seconds: float,
        give_up_seconds: float,
    ) -> None:
        self._database = database
        self._retry_seconds = retry_seconds
        self._give_up_seconds = give_up_seconds
        self._leases = Leases("outbox", ["kind", "subject"], seconds=lease_seconds)

    @classmethod
    def configured(cls, database: Database, config: Config) -> Outbox:
        """Make the outbox that `config` describes."""
        return cls(
            database,
            lease_seconds=config.queue.lease_seconds,
            retry_seconds=RETRY_FACTOR * config.queue.retry_seconds,
            give_up_seconds=config.smtp.give_up_days * DAY_SECONDS,
        )

    # --- for administrators -----------------------------------------------------------------------

    def newest(self, limit: int, status: str | None = None) -> list[Mail]:
        """Return the mails owed last, of one status or of all, the newest first, without jobs."""
        sql = NEWEST.format(where="where status = :status" if status else "")
        parameters = {"status": status} if status else {}
        rows = self._database.read(
            lambda transaction: transaction.all(sql, limit=limit, **parameters)
        )
        return [_mail(row) for row in rows]

    def retry(self, subject: str) -> bool:
        """Make a failed mail new, with a new age; False when there is none of this subject."""
        sql = f"{RETRY} and subject = :subject"
        return self._database.write(lambda transaction: transaction.run(sql, subject=subject)) > 0

    def retry_failed(self) -> int:
        """Make every failed mail new; return how many they were."""
        return self._database.write(lambda transaction: transaction.run(RETRY))

    # --- for workers ------------------------------------------------------------------------------

    def claim(self, worker: str) -> Mail | None:
        """Take the mail that has been due longest, None when none is due; counts as an attempt."""
        # A cheap read first: an idle poll must not take the write lock.
        if not self._database.read(self._leases.any_due):
            return None
        return self._database.write(lambda transaction: self._claim(transaction, worker))

    def renew(self, mail: Mail) -> bool:
        """Extend the lease; False when this worker no longer holds the mail."""
        (held,) = self._database.write(
            lambda transaction: self._leases.renew(transaction, [_held(mail)])
        )
        return held

    def sent(self, mail: Mail) -> bool:
        """Store that the mail was handed over; False when this worker no longer held it."""
        return self._database.write(
            lambda transaction: self._settle(transaction, mail, settled("sent", transaction.now()))
        )

    def failed(self, mail: Mail, failure: Failure) -> bool:
        """Store a failed attempt: the mail is due again after a back-off, or given up.

        False when this worker no longer held it.
        """
        return self._database.write(
            lambda transaction: self._store_failure(transaction, mail, failure)
        )

    def release(self, mail: Mail) -> bool:
        """Give the mail back untried; False when this worker no longer held it."""

        def work(transaction: Transaction) -> bool:
            now = transaction.now()
            row = settled("waiting", now, due_at=now, untried=1)
            return self._settle(transaction, mail, row)

        return self._database.write(work)

    def free(self, worker: str) -> int:
        """Make the mails of a worker that died due at once; return how many they were."""
        return self._database.write(lambda transaction: self._leases.free(transaction, worker))

    def clamp_due_at(self) -> int:
        """Shorten waits that are too long since the clock was set back; return how many."""
        return self._database.write(self._leases.clamp_due_at)

    # --- within a transaction ---------------------------------------------------------------------

    def _claim(self, transaction: Transaction, worker: str) -> Mail | None:
        while due := self._leases.due(transaction, 1):
            (row,) = self._leases.claim(transaction, due, worker)
            (before,) = due
            is_of_job = row["kind"] == "job"
            mail = _mail(row, transaction.one(JOB, id=row["subject"]) if is_of_job else None)
            if before["token"] is None or before["attempts"] < LOST_ATTEMPTS:
                return mail
            self._store_failure(transaction, mail, LOST)
        return None

    def _store_failure(self, transaction: Transaction, mail: Mail, failure: Failure) -> bool:
        now = transaction.now()
        age = now - mail.created_at
        if isinstance(failure, PermanentFailure) or age >= self._give_up_seconds:
            return self._settle(transaction, mail, settled("failed", now, failure=failure))
        due_at = now + backoff_seconds(mail.attempts, self._retry_seconds)
        row = settled("waiting", now, due_at=due_at, failure=failure)
        return self._settle(transaction, mail, row)

    def _settle(self, transaction: Transaction, mail: Mail, row: Row) -> bool:
        """End the lease, and count a mail that has reached its end."""
        (held,) = self._leases.settle(transaction, [{**_held(mail), **row}])
        if held and row["finished_at"] is not None:
            totals.add(transaction, [totals.Event(f"mail {row['status']}")])
        return held


def _mail(row: Row, job: Row | None = None) -> Mail:
    return Mail(**row, job=Job(**job) if job else None)


def _held(mail: Mail) -> Row:
    """Return the key and the token of a mail's row: what the fence compares."""
    return {"kind": mail.kind, "subject": mail.subject, "token": mail.token}
