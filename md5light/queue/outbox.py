"""The outbox: mails that are owed, written in the transaction that finishes their job."""

from __future__ import annotations

import uuid
from typing import Any

from md5light.config import Config
from md5light.errors import Failure, PermanentFailure
from md5light.job import Mail
from md5light.queue import totals
from md5light.queue.backoff import backoff_seconds
from md5light.queue.database import Database, Transaction

#: a mail waits so many times longer than a job: with the defaults, ten attempts outlast three hours without a server
PATIENCE = 3

OWE = """
    insert into outbox (job_id, recipient, due_at, created_at) values (:job_id, :recipient, :now, :now)
    on conflict (job_id) do nothing
"""

DISOWN = "delete from outbox where job_id = :job_id"

IS_DUE = "select 1 from outbox where due_at <= :now limit 1"

CLAIM = """
    update outbox set token = :token, worker = :worker, due_at = :lease_end, attempts = attempts + 1
    where job_id = (select job_id from outbox where due_at <= :now order by due_at limit 1 for update skip locked)
    returning job_id, recipient, attempts
"""

JOB = "select url, status, md5, size, finished_at, error_message from jobs where id = :job_id"

RENEW = "update outbox set due_at = :lease_end where job_id = :job_id and token = :token"

SETTLE = """
    update outbox set status = :status, due_at = :due_at, finished_at = :finished_at,
        attempts = attempts - :untried, error_code = :error_code, error_message = :error_message,
        token = null, worker = null
    where job_id = :job_id and token = :token
"""

FREE = """
    update outbox set due_at = :now, token = null, worker = null
    where due_at > :now and due_at <= :now + :lease and worker = :worker
"""

LOST = PermanentFailure("worker_lost", "Each worker that took this mail ended before it was sent.")


def owe(transaction: Transaction, job_id: str, recipient: str) -> None:
    """Note within `transaction` that `recipient` is to be told how the job ended."""
    transaction.run(OWE, job_id=job_id, recipient=recipient)


def disown(transaction: Transaction, job_id: str) -> None:
    """Forget within `transaction` what was owed for the job, sent or not: it will end anew."""
    transaction.run(DISOWN, job_id=job_id)


class Outbox:
    """Owed mails, claimed with lease and token as jobs are, and settled under the same fence."""

    def __init__(
        self, database: Database, *, lease_seconds: float, max_attempts: int, retry_seconds: float
    ) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._max_attempts = max_attempts
        self._retry_seconds = retry_seconds

    @classmethod
    def configured(cls, database: Database, config: Config) -> Outbox:
        """Make the outbox that `config` describes."""
        return cls(
            database,
            lease_seconds=config.queue.lease_seconds,
            max_attempts=max(1, round(24 * config.smtp.give_up_days)),  # about one an hour
            retry_seconds=PATIENCE * config.queue.retry_seconds,
        )

    def claim(self, worker: str) -> Mail | None:
        """Take the mail that has been due longest, None when none is due; counts as an attempt."""
        if not self._database.read(lambda transaction: transaction.one(IS_DUE)):
            return None  # found without the write lock: this is asked far more often than there are mails

        return self._database.write(lambda transaction: self._claim(transaction, worker))

    def renew(self, mail: Mail) -> bool:
        """Put off the end of the lease; False when the mail is no longer this worker's."""

        def work(transaction: Transaction) -> bool:
            lease_end = transaction.now() + self._lease_seconds
            return (
                transaction.run(RENEW, job_id=mail.job_id, token=mail.token, lease_end=lease_end)
                == 1
            )

        return self._database.write(work)

    def sent(self, mail: Mail) -> bool:
        """Note that the mail was handed over; False when it is no longer this worker's."""
        return self._settle(mail, "sent")

    def failed(self, mail: Mail, failure: Failure) -> bool:
        """Note a failed attempt: the mail is due again after a back-off, or given up."""
        if isinstance(failure, PermanentFailure) or mail.attempts >= self._max_attempts:
            return self._settle(mail, "failed", failure=failure)
        wait_seconds = backoff_seconds(mail.attempts, self._retry_seconds)
        return self._settle(mail, "waiting", wait_seconds=wait_seconds, failure=failure)

    def release(self, mail: Mail) -> bool:
        """Give the mail back untried."""
        return self._settle(mail, "waiting", wait_seconds=0, untried=1)

    def free(self, worker: str) -> int:
        """Make the mails of a worker that died due at once."""
        return self._database.write(
            lambda transaction: transaction.run(FREE, worker=worker, lease=self._lease_seconds)
        )

    def _settle(self, mail: Mail, status: str, **how: Any) -> bool:
        return self._database.write(
            lambda transaction: self._write_settled(transaction, mail, status, **how)
        )

    # --- within a transaction ------------------------------------------------------------------------------

    def _claim(self, transaction: Transaction, worker: str) -> Mail | None:
        token = str(uuid.uuid4())
        lease_end = transaction.now() + self._lease_seconds
        while row := transaction.one(CLAIM, token=token, worker=worker, lease_end=lease_end):
            (job,) = transaction.all(JOB, job_id=row["job_id"])
            mail = Mail(**row, **job, token=token, max_attempts=self._max_attempts)
            if mail.attempts <= mail.max_attempts:
                return mail
            self._write_settled(transaction, mail, "failed", untried=1, failure=LOST)
        return None

    def _write_settled(
        self,
        transaction: Transaction,
        mail: Mail,
        status: str,
        *,
        wait_seconds: float | None = None,
        untried: int = 0,
        failure: Failure | None = None,
    ) -> bool:
        """Write under the fence that a claim has ended."""
        now = transaction.now()
        changed = transaction.run(
            SETTLE,
            job_id=mail.job_id,
            token=mail.token,
            status=status,
            due_at=None if wait_seconds is None else now + wait_seconds,
            finished_at=now if wait_seconds is None else None,
            untried=untried,
            error_code=failure and failure.code,
            error_message=failure and failure.message,
        )
        if changed and status != "waiting":
            totals.add(transaction, f"mail {status}")
        return changed == 1
