"""The lines of batches: storing them with their jobs, and what has become of them.

A distinct URL of a batch is one job, whose id is made of the batch's id and the URL: so a URL that
stands twice is found without an index over URLs. Each method runs in the caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple
from hashlib import blake2b

from md5light.batch import Counts, ErrorCount, NewLine, Result
from md5light.finding import ALGORITHMS, EXPECTABLE, Wanted
from md5light.job import rfc3339
from md5light.lists.entry import DONE, Entry
from md5light.queue.database import Row, Transaction

STORE_JOB = """
    insert into jobs (id, batch_id, place, url, host, status, max_attempts, created_at, digests)
    values (:id, :batch_id, :place, :url, :host, 'parked', :max_attempts, :now, :digests)
    on conflict (id) do nothing
"""

DIGESTS = "select digests from jobs where id = :id"

STORE_DIGESTS = "update jobs set digests = :digests where id = :id"

STORE_LINE = f"""
    insert into lines (batch_id, position, job_id, sent, name, label, size,
        {", ".join(ALGORITHMS)}, error_code, error_message)
    values (:batch_id, :position, :job_id, :sent, :name, :label, :size,
        {", ".join(f":{algorithm}" for algorithm in ALGORITHMS)}, :error_code, :error_message)
"""

#: a line whose file is as expected: each column that is not null equals that of its job
MATCHES = " and ".join(
    f"(lines.{column} is null or lines.{column} = jobs.{column})" for column in EXPECTABLE
)

EXPECTS_NOTHING = " and ".join(f"lines.{column} is null" for column in EXPECTABLE)

STATUS = f"""
    case when lines.job_id is null then 'failed'
        when jobs.status in ('queued', 'parked') then 'waiting'
        when jobs.status <> 'done' then jobs.status
        when {EXPECTS_NOTHING} then 'hashed'
        when {MATCHES} then 'matched'
        else 'mismatched' end
"""

OF_BATCH = """
    lines left join jobs on jobs.id = lines.job_id where lines.batch_id = :batch_id
"""

COUNTS = f"select {STATUS} as status, count(*) as lines from {OF_BATCH} group by 1"

BYTES = "select sum(size) as bytes from jobs where batch_id = :batch_id and status = 'done'"

ERRORS = f"""
    select code, position, lines from (
        select code, position, count(*) over (partition by code) as lines,
            row_number() over (partition by code order by position) as place
        from (
            select coalesce(lines.error_code, jobs.error_code) as code, lines.position
            from {OF_BATCH} and (lines.job_id is null or jobs.status = 'failed')) as failed
        ) as numbered
    where place <= 3 order by lines desc, code, position
"""

# Lines are limited before their jobs are looked up: without statistics of a new table PostgreSQL
# would look up those of all lines that follow.
ENTRIES = f"""
    select lines.position, lines.sent, lines.name, lines.label, lines.size as expected_size,
        {", ".join(f"lines.{name} as expected_{name}" for name in ALGORITHMS)},
        {STATUS} as status, jobs.url, jobs.size, {", ".join(f"jobs.{a}" for a in ALGORITHMS)},
        coalesce(lines.error_code, jobs.error_code) as error_code,
        coalesce(lines.error_message, jobs.error_message) as error_message,
        jobs.final_url, jobs.content_type, jobs.attempts, jobs.finished_at
    from (
        select * from lines where batch_id = :batch_id and position > :after
        order by position limit :limit) as lines
    left join jobs on jobs.id = lines.job_id order by lines.position
"""

REMOVE_JOBS = """
    delete from jobs where id in (select id from jobs where batch_id = :batch_id limit :rows)
"""

REMOVE_LINES = """
    delete from lines where batch_id = :batch_id and position in (
        select position from lines where batch_id = :batch_id order by position limit :rows)
"""


def store(transaction: Transaction, batch: Row, lines: Sequence[NewLine], max_attempts: int) -> int:
    """Store lines of `batch`, and a job for each URL that it has not yet; return how many jobs."""
    jobs: dict[str, Row] = {}
    for line in lines:
        if line.url is not None and line.url not in jobs:
            jobs[line.url] = _job(batch, line, max_attempts)
        if line.url is not None and line.expected:
            job = jobs[line.url]
            job["digests"] = _united(job["digests"], line.expected)
    counts = transaction.run_many(STORE_JOB, list(jobs.values()))
    for job, count in zip(jobs.values(), counts, strict=True):
        if not count and job["digests"] != batch["digests"]:
            _add_digests(transaction, job)
    ids = {url: job["id"] for url, job in jobs.items()}
    rows = [_row(batch["id"], line, ids[line.url] if line.url else None) for line in lines]
    transaction.run_many(STORE_LINE, rows)
    return sum(counts)


def job_id(batch_id: str, url: str) -> str:
    """Return the id of the job of a URL: as random as the batch's, for those who know neither."""
    digest = blake2b(url.encode(), key=batch_id.encode(), digest_size=16).hexdigest()
    # As str(uuid.UUID(digest, version=4)), in a fifth of the time.
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-a{digest[17:20]}-{digest[20:]}"


def read_result(transaction: Transaction, batch_id: str) -> Result:
    """Read what has become of a batch's lines; the counts are those of one moment."""
    counted = {row["status"]: row["lines"] for row in transaction.all(COUNTS, batch_id=batch_id)}
    (sizes,) = transaction.all(BYTES, batch_id=batch_id)
    errors = transaction.all(ERRORS, batch_id=batch_id) if "failed" in counted else []
    return Result(
        Counts(total=sum(counted.values()), **counted),
        int(sizes["bytes"] or 0),
        _error_counts(errors),
    )


def read_portion(
    transaction: Transaction, batch_id: str, after: int, limit: int, statuses: Collection[str]
) -> tuple[list[Entry], int | None]:
    """Read the next lines behind position `after`, in input order.

    Returns those of `statuses`, all without any, and the position behind which there may be more.
    """
    rows = transaction.all(ENTRIES, batch_id=batch_id, after=after, limit=limit)
    entries = [_entry(row) for row in rows if not statuses or row["status"] in statuses]
    return entries, rows[-1]["position"] if len(rows) == limit else None


def remove(transaction: Transaction, batch_id: str, rows: int) -> int:
    """Remove up to `rows` lines and as many jobs; return how many rows that were."""
    portion: Row = {"batch_id": batch_id, "rows": rows}
    return transaction.run(REMOVE_JOBS, **portion) + transaction.run(REMOVE_LINES, **portion)


def to_json(result: Result) -> str:
    """Write a result as it is kept with a batch that has ended."""
    errors = [astuple(error) for error in result.errors]
    return json.dumps([result.counts, result.bytes, errors], separators=(",", ":"))


def from_json(text: str) -> Result:
    """Read what `to_json` wrote."""
    counts, bytes_, errors = json.loads(text)
    return Result(
        Counts(*counts),
        bytes_,
        tuple(ErrorCount(code, count, tuple(lines)) for code, count, lines in errors),
    )


def _job(batch: Row, line: NewLine, max_attempts: int) -> Row:
    return {
        "id": job_id(batch["id"], line.url or ""),
        "batch_id": batch["id"],
        "place": line.position,
        "url": line.url,
        "host": line.host,
        "max_attempts": max_attempts,
        "digests": batch["digests"],
    }


def _add_digests(transaction: Transaction, job: Row) -> None:
    """Let a job that is there compute what a further line of its URL needs."""
    (stored,) = transaction.all(DIGESTS, id=job["id"])
    digests = _united(stored["digests"], job["digests"].split())
    if digests != stored["digests"]:
        transaction.run(STORE_DIGESTS, id=job["id"], digests=digests)


def _united(digests: str, further: Iterable[str]) -> str:
    return Wanted.of([*digests.split(), *further], {}).digests


def _row(batch_id: str, line: NewLine, job_id: str | None) -> Row:
    return {
        "batch_id": batch_id,
        "position": line.position,
        "job_id": job_id,
        "sent": None if line.sent == line.url else line.sent,
        "name": line.name,
        "label": line.id,
        "size": line.size,
        **{algorithm: line.expected.get(algorithm) for algorithm in ALGORITHMS},
        "error_code": line.error_code,
        "error_message": line.error_message,
    }


def _error_counts(rows: Iterable[Row]) -> tuple[ErrorCount, ...]:
    counted: dict[str, tuple[int, list[int]]] = {}
    for row in rows:
        counted.setdefault(row["code"], (row["lines"], []))[1].append(row["position"])
    return tuple(ErrorCount(code, lines, tuple(at)) for code, (lines, at) in counted.items())


def _entry(row: Row) -> Entry:
    is_done = row["status"] in DONE
    has_error = row["status"] != "canceled"  # that of an attempt before is no reason of its end
    return Entry(
        position=row["position"],
        sent=row["url"] if row["sent"] is None else row["sent"],
        url=row["url"] or "",
        status=row["status"],
        name=row["name"],
        id=row["label"],
        expected_size=row["expected_size"],
        expected=_digests(row, "expected_"),
        size=row["size"] if is_done else None,
        digests=_digests(row) if is_done else {},
        error_code=row["error_code"] if has_error else None,
        error_message=row["error_message"] if has_error else None,
        final_url=row["final_url"],
        content_type=row["content_type"],
        attempts=row["attempts"] or 0,
        finished_at=rfc3339(row["finished_at"]),
    )


def _digests(row: Row, prefix: str = "") -> dict[str, str]:
    found = {algorithm: row.get(f"{prefix}{algorithm}") for algorithm in ALGORITHMS}
    return {algorithm: digest for algorithm, digest in found.items() if digest is not None}
