"""A job: one row of the queue, as a value."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

from md5light.finding import EXPECTABLE, differences, differing
from md5light.times import rfc3339

#: the prefix of a client that is known by the name of its token; no address begins so
BEARER = "token:"

#: the statuses of a job that clients see; the last three are final
STATUSES = ("queued", "running", "done", "failed", "canceled")


#: a `due_at` from this value on is a turn and no time (see queue/turns.py)
FAR = 1e12


class Job(NamedTuple):  # made at each claim, in half the time that a frozen dataclass takes
    """A job: one URL to hash; times are in Unix seconds, sizes in bytes."""

    #: random UUID; it is also the permission to see the job
    id: str
    #: as it was submitted
    url: str
    #: host of the URL: the jobs of a host that run at once are limited
    host: str
    #: mail address that gets the result; never shown
    email: str | None
    #: the client that submitted it: BEARER and the name of its token, or its network address; never
    #: shown
    client: str | None
    #: one of STATUSES
    status: str
    #: no worker claims it before; FAR or more: its turn; None: set aside for its host, or ended
    due_at: float | None
    #: identifies the claim: a worker's write needs it (see queue/leases.py)
    token: str | None
    #: name of the worker that holds the lease
    worker: str | None
    #: claims so far, except those that were released untried
    attempts: int
    max_attempts: int
    created_at: float
    #: start of the latest attempt
    started_at: float | None = None
    #: why the latest attempt failed
    error_code: str | None = None
    #: its place among waiting jobs, a time or a turn; None: it waits for its next attempt
    turn: float | None = None
    #: how often its host refused it without counting an attempt, and when last
    refusals: int = 0
    refused_at: float | None = None
    #: the batch that it belongs to
    batch_id: str | None = None
    #: as in Wanted
    digests: str = ""
    # A claim leaves out what follows: no worker needs it.
    #: its place in its batch
    place: int | None = None
    finished_at: float | None = None
    bytes_done: int = 0
    bytes_total: int | None = None
    error_message: str | None = None
    md5: str | None = None
    size: int | None = None
    final_url: str | None = None
    content_type: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    #: the further digests that were wanted
    sha1: str | None = None
    sha256: str | None = None
    sha512: str | None = None
    #: as in Wanted
    expected_size: int | None = None
    expected_md5: str | None = None
    expected_sha1: str | None = None
    expected_sha256: str | None = None
    expected_sha512: str | None = None
    #: none, waiting, sent or failed
    mail: str = "none"
    #: until when its host rests, and why; None: it does not
    rest_until: float | None = None
    rest_code: str | None = None
    rest_message: str | None = None

    @property
    def finished(self) -> bool:
        return self.status in ("done", "failed", "canceled")

    @property
    def further(self) -> dict[str, str | None]:
        """The requested further digests by algorithm; None before the job is done."""
        return {name: getattr(self, name) for name in self.digests.split()}

    @property
    def expected(self) -> dict[str, int | str]:
        """The expected size and digests, by name."""
        values = {name: getattr(self, f"expected_{name}") for name in EXPECTABLE}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def differing(self) -> list[str]:
        """The names of the expected values that a done job's file does not have."""
        return differing(self.expected, self._found)

    @property
    def check(self) -> str | None:
        """`matched` or `mismatched` if values were expected and the job is done, else None."""
        if self.status != "done" or not self.expected:
            return None
        return "mismatched" if self.differing else "matched"

    @property
    def note(self) -> str | None:
        """A sentence about the differences from the expected values; None without a mismatch."""
        if self.check != "mismatched":
            return None
        words = differences(self.expected, self._found, self.content_type)
        return f"The file is not as expected: {'; '.join(words)}."

    @property
    def _found(self) -> dict[str, int | str | None]:
        return {"size": self.size, "md5": self.md5, **self.further}

    @property
    def next_attempt_at(self) -> float | None:
        """When its wait for its next attempt or its host's rest ends; None: it does not wait."""
        if self.status != "queued":
            return None
        due_at = self.due_at if self.due_at is not None and self.due_at < FAR else 0.0
        waits_until = max(due_at, self.rest_until or 0.0)
        return waits_until if waits_until > time.time() else None


@dataclass(frozen=True)
class Hashed:
    """The result of a successful download."""

    #: in lower-case hexadecimal
    md5: str
    #: bytes of the body
    size: int
    #: the URL after all redirects
    final_url: str
    content_type: str | None
    etag: str | None
    last_modified: str | None
    #: the further digests, as far as they were requested
    sha1: str | None = None
    sha256: str | None = None
    sha512: str | None = None


@dataclass(frozen=True)
class Mail:
    """A mail of the outbox; times are in Unix seconds."""

    #: the kind of its subject: job or batch
    kind: str
    #: the id of its job, or Batch.mail_id
    subject: str
    recipient: str
    #: identifies the claim: a worker's write needs it (see queue/leases.py)
    token: str | None
    #: claims so far, except those that were released untried
    attempts: int
    #: when it was added to the outbox, or retried by an administrator
    created_at: float
    #: its job, if it is of one and a worker has claimed the mail
    job: Job | None = None
    #: waiting, sent or failed
    status: str = "waiting"
    #: no worker claims it before; None: it has ended
    due_at: float | None = None
    #: name of the worker that holds the lease
    worker: str | None = None
    finished_at: float | None = None
    #: why the latest attempt failed
    error_code: str | None = None
    error_message: str | None = None


def describe(job: Job) -> dict[str, object]:
    """Return the job as clients see it, so without addresses and token."""
    return {
        "id": job.id,
        "url": job.url,
        "status": job.status,
        "md5": job.md5,
        "size": job.size,
        "bytes_done": job.bytes_done,
        "bytes_total": job.bytes_total,
        "attempts": job.attempts,
        "max_attempts": job.max_attempts,
        "next_attempt_at": rfc3339(job.next_attempt_at),
        "error": error_of(job),
        "created_at": rfc3339(job.created_at),
        "started_at": rfc3339(job.started_at),
        "finished_at": rfc3339(job.finished_at),
        "final_url": job.final_url,
        "content_type": job.content_type,
        "etag": job.etag,
        "last_modified": job.last_modified,
        "mail": job.mail,
        **job.further,
        **_verdict(job),
    }


def describe_mail(mail: Mail) -> dict[str, object]:
    """Return the mail as administrators see it, so without its address."""
    error = {"code": mail.error_code, "message": mail.error_message}
    return {
        "kind": mail.kind,
        "id": mail.subject.partition(".")[0],
        "status": mail.status,
        "attempts": mail.attempts,
        "next_attempt_at": rfc3339(mail.due_at),
        "error": error if mail.error_code else None,
        "created_at": rfc3339(mail.created_at),
        "finished_at": rfc3339(mail.finished_at),
    }


def error_of(job: Job) -> dict[str, str | None] | None:
    """Return why a job, or its latest attempt, has failed; None when neither has."""
    if job.status == "canceled":
        return {"code": "canceled", "message": "The job was canceled."}
    if job.status == "queued" and job.rest_until is not None:
        reason = (job.rest_message or "").removesuffix(".")
        message = f"{reason}: the host asked for rest until {rfc3339(job.rest_until)}."
        return {"code": job.rest_code, "message": message}
    return {"code": job.error_code, "message": job.error_message} if job.error_code else None


def _verdict(job: Job) -> dict[str, object]:
    """Return the expected values and the verdict; empty when none were expected."""
    if not job.expected:
        return {}
    return {"check": job.check, "expected": job.expected, "note": job.note}
