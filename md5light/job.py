"""A job: one row of the queue, as a value."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import NamedTuple

from md5light.finding import EXPECTABLE, differences, differing

#: the beginning of a client that is the bearer of a token, before its name; no address has it
BEARER = "token:"

#: the states of a job that clients see; the last three are ends
STATUSES = ("queued", "running", "done", "failed", "canceled")


#: a due_at from here on is no time but a turn, beyond any clock (`queue.turns`)
FAR = 1e12


class Job(NamedTuple):  # made at each claim, in half the time that a frozen dataclass takes
    """One file whose MD5 was asked for; times are Unix seconds, sizes bytes."""

    #: random UUID, the only key to the job that a client has
    id: str
    #: as it was submitted
    url: str
    #: host of the URL, whose downloads at once are limited
    host: str
    #: address that gets the result by mail; never shown
    email: str | None
    #: who submitted it: BEARER and the name of a token, or the network address that it came from;
    #: never shown
    client: str | None
    #: one of STATUSES
    status: str
    #: no worker takes it before; FAR or more: its turn; None: set aside for its host, or ended
    due_at: float | None
    #: proof of the claim, shown at every write of the worker that holds it
    token: str | None
    #: name of the worker that holds it
    worker: str | None
    #: claims so far, but for those given back untried
    attempts: int
    max_attempts: int
    created_at: float
    #: beginning of the latest attempt
    started_at: float | None
    finished_at: float | None
    bytes_done: int
    bytes_total: int | None
    md5: str | None
    size: int | None
    final_url: str | None
    content_type: str | None
    etag: str | None
    last_modified: str | None
    #: why the latest attempt failed
    error_code: str | None
    error_message: str | None
    #: its place among those that wait, a time or a turn; None: it waits for its next attempt
    turn: float | None = None
    #: how often its host asked for rest without counting an attempt, and when last
    refusals: int = 0
    refused_at: float | None = None
    #: the batch that it is of, and its place there
    batch_id: str | None = None
    place: int | None = None
    #: none, waiting, sent or failed
    mail: str = "none"
    #: as Wanted
    digests: str = ""
    expected_size: int | None = None
    expected_md5: str | None = None
    expected_sha1: str | None = None
    expected_sha256: str | None = None
    expected_sha512: str | None = None
    #: the further digests that were wanted
    sha1: str | None = None
    sha256: str | None = None
    sha512: str | None = None
    #: until when its host rests, and why; None: it does not
    rest_until: float | None = None
    rest_code: str | None = None
    rest_message: str | None = None

    @property
    def finished(self) -> bool:
        return self.status in ("done", "failed", "canceled")

    @property
    def further(self) -> dict[str, str | None]:
        """The further digests that were wanted, by algorithm; None before the job is done."""
        return {name: getattr(self, name) for name in self.digests.split()}

    @property
    def expected(self) -> dict[str, int | str]:
        """What was expected of the file: its size and digests, by name."""
        values = {name: getattr(self, f"expected_{name}") for name in EXPECTABLE}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def differing(self) -> list[str]:
        """Names of what a done job's file was expected to have and has not."""
        return differing(self.expected, self._found)

    @property
    def check(self) -> str | None:
        """`matched` or `mismatched` where something was expected and the job is done."""
        if self.status != "done" or not self.expected:
            return None
        return "mismatched" if self.differing else "matched"

    @property
    def note(self) -> str | None:
        """A sentence that tells where the file is not as expected; None without a mismatch."""
        if self.check != "mismatched":
            return None
        words = differences(self.expected, self._found, self.content_type)
        return f"The file is not as expected: {'; '.join(words)}."

    @property
    def _found(self) -> dict[str, int | str | None]:
        return {"size": self.size, "md5": self.md5, **self.further}

    @property
    def next_attempt_at(self) -> float | None:
        """The time until which it waits, for its own next attempt or for its host's rest."""
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
    #: where the redirects ended
    final_url: str
    content_type: str | None
    etag: str | None
    last_modified: str | None
    #: the further digests that were asked for
    sha1: str | None = None
    sha256: str | None = None
    sha512: str | None = None


@dataclass(frozen=True)
class Mail:
    """One owed mail: a row of the outbox as a value; times are Unix seconds."""

    #: the kind of its subject: job or batch
    kind: str
    #: id of the job that it tells of, or Batch.mail_id
    subject: str
    recipient: str
    #: proof of the claim, shown at every write of the worker that holds it
    token: str | None
    #: claims so far, but for those given back untried
    attempts: int
    #: when it became owed, or was retried by an administrator
    created_at: float
    #: the job that it tells of, if it does, where a worker claimed the mail
    job: Job | None = None
    #: waiting, sent or failed
    status: str = "waiting"
    #: no worker takes it before; None: it has ended
    due_at: float | None = None
    #: name of the worker that holds it
    worker: str | None = None
    finished_at: float | None = None
    #: why the latest attempt failed
    error_code: str | None = None
    error_message: str | None = None


def describe(job: Job) -> dict[str, object]:
    """Return everything that clients may know of a job, so neither addresses nor its token."""
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
    """Return what an administrator may know of a mail, so not its address."""
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
    """Return why a job, or its latest attempt, has not succeeded; None where nothing is wrong."""
    if job.status == "canceled":
        return {"code": "canceled", "message": "The job was canceled."}
    if job.status == "queued" and job.rest_until is not None:
        reason = (job.rest_message or "").removesuffix(".")
        message = f"{reason}: the host asked for rest until {rfc3339(job.rest_until)}."
        return {"code": job.rest_code, "message": message}
    return {"code": job.error_code, "message": job.error_message} if job.error_code else None


def _verdict(job: Job) -> dict[str, object]:
    """Return what was expected and whether it was found; empty where nothing was expected."""
    if not job.expected:
        return {}
    return {"check": job.check, "expected": job.expected, "note": job.note}


def rfc3339(seconds: float | None) -> str | None:
    """Write a time as RFC 3339 does, in UTC, to the millisecond."""
    if seconds is None:
        return None
    return (
        datetime.fromtimestamp(seconds, timezone.utc)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
