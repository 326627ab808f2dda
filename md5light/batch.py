"""A batch: a list of many lines, as values; times are Unix seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

from md5light.times import rfc3339

#: the statuses that a line may have at the end of its batch
LINE_RESULTS = ("hashed", "matched", "mismatched", "failed", "canceled")


class NewBatch(NamedTuple):
    """A list before its first line is stored."""

    #: the format of the list
    format: str
    #: the client that submitted it: the name of its token, or its network address; never shown
    client: str
    #: a label
    name: str | None = None
    #: algorithms to compute beside MD5
    digests: tuple[str, ...] = ()
    #: address that gets a mail at its end; never shown
    email: str | None = None
    #: the header line of the list, which is needed to read its lines again
    header: str | None = None
    #: makes a repeated request safe; the same key must come with the same fingerprint
    idempotency_key: str | None = None
    #: digest of the body and the options
    fingerprint: str | None = None


class NewLine(NamedTuple):
    """A line to be stored: with a URL and its host, or with the error that it has instead."""

    #: in the list, counted from 1
    position: int
    #: its text as it was sent
    sent: str
    url: str | None = None
    host: str | None = None
    #: a label: the name of the file
    name: str | None = None
    #: a label: the client's own key
    id: str | None = None
    #: expected bytes
    size: int | None = None
    #: expected digests in lower-case hex, by algorithm
    expected: Mapping[str, str] = {}
    error_code: str | None = None
    error_message: str | None = None


class Batch(NamedTuple):
    """A batch as clients see it."""

    id: str
    #: running, done or canceled
    status: str
    name: str | None
    format: str
    header: str | None
    digests: tuple[str, ...]
    #: never shown
    email: str | None
    lines: int
    #: distinct URLs: each is downloaded once
    urls: int
    created_at: float
    finished_at: float | None
    #: how often it has ended: once, and once more after each retry
    ends: int
    #: none, waiting, sent or failed
    mail: str

    @property
    def ended(self) -> bool:
        return self.finished_at is not None

    @property
    def mail_id(self) -> str:
        """The subject of the mail that its latest end made owed."""
        return mail_id(self.id, self.ends)


class Counts(NamedTuple):
    """How many lines of a batch have each status; all but `total` add up to `total`."""

    total: int = 0
    waiting: int = 0
    running: int = 0
    #: done, with nothing expected
    hashed: int = 0
    matched: int = 0
    mismatched: int = 0
    failed: int = 0
    canceled: int = 0


@dataclass(frozen=True)
class ErrorCount:
    """How many lines of a batch failed with one code."""

    code: str
    count: int
    #: positions of the first three
    lines: tuple[int, ...]


class Result(NamedTuple):
    """The state of a batch's lines at one moment."""

    counts: Counts = Counts()
    #: of all hashed files, each URL counted once
    bytes: int = 0
    #: the most frequent first
    errors: tuple[ErrorCount, ...] = ()


def mail_id(batch_id: str, ends: int) -> str:
    """Return the subject of the mail that end number `ends` of a batch makes owed."""
    return f"{batch_id}.{ends}"


def describe(batch: Batch, result: Result) -> dict[str, object]:
    """Return the batch as clients see it, so without its address and its client."""
    return {
        "id": batch.id,
        "name": batch.name,
        "status": batch.status,
        "counts": result.counts._asdict(),
        "bytes": result.bytes,
        "errors": [{**asdict(error), "lines": list(error.lines)} for error in result.errors],
        "created_at": rfc3339(batch.created_at),
        "finished_at": rfc3339(batch.finished_at),
        "mail": batch.mail,
        "format": batch.format,
        "digests": list(batch.digests),
    }
