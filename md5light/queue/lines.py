"""The lines of batches: storing them with their jobs, and reading their results.

Each distinct URL of a batch is one job, at the place of its first line; its id is made from the
batch's id and that place. Each function runs in the caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple
from hashlib import blake2b

from md5light.batch import Counts, ErrorCount, NewLine, Result
from md5light.finding import ALGORITHMS, EXPECTABLE, Wanted
from md5light.lists.entry import DONE, Entry
from md5light.queue.database import Row, Transaction
from md5light.times import rfc3339

DIGESTS = "select digests from jobs where id = :id"

STORE_DIGESTS = "update jobs set digests = :digests where id = :id"

#: true of a line whose file is as expected: each column that is not null equals its job's
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

COLUMNS = f"""
    lines.position, lines.sent, lines.name, lines.label, lines.size as expected_size,
    {", ".join(f"lines.{name} as expected_{name}" for name in ALGORITHMS)},
    {STATUS} as status, jobs.id, jobs.url, jobs.size,
    {", ".join(f"jobs.{name}" for name in ALGORITHMS)},
    coalesce(lines.error_code, jobs.error_code) as error_code,
    coalesce(lines.error_message, jobs.error_message) as error_message,
    jobs.final_url, jobs.content_type, jobs.attempts, jobs.finished_at
"""

# Lines are limited before their jobs are looked up: without statistics of a new table PostgreSQL
# would look up those of all lines that follow.
ENTRIES = f"""
    select {COLUMNS} from (
        select * from lines where batch_id = :batch_id and position > :after
        order by position limit :limit) as lines
    left join jobs on jobs.id = lines.job_id order by lines.position
"""

OF_STATUSES = f"""
    select {COLUMNS} from {OF_BATCH}
        and lines.position > :after and lines.position <= :until and {STATUS} in ({{statuses}})
    order by lines.position limit :limit
"""

MORE = "select 1 as more from lines where batch_id = :batch_id and position > :until limit 1"

REMOVE_JOBS = """
    delete from jobs where id in (select id from jobs where batch_id = :batch_id limit :rows)
"""

REMOVE_LINES = """
    delete from lines where batch_id = :batch_id and position in (
        select position from lines where batch_id = :batch_id order by position limit :rows)
"""


def store(
    transaction: Transaction,
    batch: Row,
    lines: Sequence[NewLine],
    places: Mapping[bytes, int],
    max_attempts: int,
) -> dict[bytes, int]:
    """Store lines of `batch`, and a job for each URL that it has not yet.

    `places` are those of the jobs so far, by digest of the URL; returns those of new jobs.
    """
    new: dict[bytes, int] = {}
    jobs: dict[str, Row] = {}
    expected: dict[str, set[str]] = {}
    rows = []
    for line in lines:
        job = None
        if place := _place(line, places, new):
            job = job_id(batch["id"], place)
            if place == line.position:
                jobs[job] = _job(batch, line, job, max_attempts)
            if line.expected:
                expected.setdefault(job, set()).update(line.expected)
        rows.append(_row(batch["id"], line, job))
    _store_jobs(transaction, batch, jobs, expected)
    transaction.insert("lines", rows)
    return new


def job_id(batch_id: str, place: int) -> str:
    """Return the id of a batch's job: a UUID that can't be guessed without the batch's id.

    It begins with a counter, so that jobs of neighbouring lines are neighbours in the index of ids;
    each random id would change another page.
    """
    number = (int(batch_id[:8], 16) + place) % 2**32
    digits = blake2b(b"%d" % place, key=batch_id.encode(), digest_size=12).hexdigest()
    return f"{number:08x}-{digits[:4]}-4{digits[4:7]}-a{digits[7:10]}-{digits[10:22]}"


def read_result(transaction: Transaction, batch_id: str) -> Result:
    """Read the result of a batch's lines; the counts are those of one moment."""
    counted = {row["status"]: row["lines"] for row in transaction.all(COUNTS, batch_id=batch_id)}
    (sizes,) = transaction.all(BYTES, batch_id=batch_id)
    errors = transaction.all(ERRORS, batch_id=batch_id) if "failed" in counted else []
    return Result(
        Counts(total=sum(counted.values()), **counted),
        int(sizes["bytes"] or 0),
        _error_counts(errors),
    )


def read_portion(
    transaction: Transaction, batch_id: str, after: int, limit: int
) -> tuple[list[Entry], int | None]:
    """Read the next lines after position `after`, in input order.

    Also returns the position after which there may be more.
    """
    rows = transaction.all(ENTRIES, batch_id=batch_id, after=after, limit=limit)
    return [_entry(row) for row in rows], rows[-1]["position"] if len(rows) == limit else None


def search(
    transaction: Transaction,
    batch_id: str,
    after: int,
    *,
    window: int,
    limit: int,
    statuses: Collection[str],
) -> tuple[list[Entry], int | None]:
    """Read the first `limit` lines of `statuses` among the next `window` after position `after`.

    Also returns the position after which there may be more.
    """
    asked: Row = {f"status{number}": status for number, status in enumerate(statuses)}
    statement = OF_STATUSES.format(statuses=", ".join(f":{name}" for name in asked))
    until = after + window
    part: Row = {"batch_id": batch_id, "until": until}
    rows = transaction.all(statement, **part, after=after, limit=limit, **asked)
    if len(rows) == limit:
        return [_entry(row) for row in rows], rows[-1]["position"]
    return [_entry(row) for row in rows], until if transaction.one(MORE, **part) else None


def remove(transaction: Transaction, batch_id: str, rows: int) -> int:
    """Remove up to `rows` lines and as many jobs; return how many rows that were."""
    portion: Row = {"batch_id": batch_id, "rows": rows}
    return transaction.run(REMOVE_JOBS, **portion) + transaction.run(REMOVE_LINES, **portion)


def to_json(result: Result) -> str:
    """Encode a result for the row of an ended batch."""
    errors = [astuple(error) for error in result.errors]
    return json.dumps([result.counts, result.bytes, errors], separators=(",", ":"))


def from_json(text: str) -> Result:
    """Decode a result that `to_json` has encoded."""
    counts, bytes_, errors = json.loads(text)
    return Result(
        Counts(*counts),
        bytes_,
        tuple(ErrorCount(code, count, tuple(lines)) for code, count, lines in errors),
    )


def _place(line: NewLine, places: Mapping[bytes, int], new: dict[bytes, int]) -> int | None:
    """Return the place of a line's job, that of the first line with its URL; None without a URL."""
    if line.url is None:
        return None
    key = blake2b(line.url.encode(), digest_size=16).digest()
    return places.get(key) or new.setdefault(key, line.position)


def _store_jobs(
    transaction: Transaction, batch: Row, jobs: dict[str, Row], expected: dict[str, set[str]]
) -> None:
    """Store new jobs, and add to them and to earlier ones the digests that their lines expect."""
    for job in expected.keys() & jobs.keys():
        jobs[job]["digests"] = _united(batch["digests"], expected.pop(job))
    transaction.insert("jobs", list(jobs.values()))
    for job, algorithms in expected.items():
        _add_digests(transaction, job, algorithms)


def _job(batch: Row, line: NewLine, id: str, max_attempts: int) -> Row:
    return {
        "id": id,
        "batch_id": batch["id"],
        "place": line.position,
        "url": line.url,
        "host": line.host,
        "status": "parked",
        "max_attempts": max_attempts,
        "created_at": batch["created_at"],
        "digests": batch["digests"],
    }


def _add_digests(transaction: Transaction, id: str, algorithms: Iterable[str]) -> None:
    """Add to a job of an earlier portion the digests that a further line of its URL needs."""
    (stored,) = transaction.all(DIGESTS, id=id)
    transaction.run(STORE_DIGESTS, id=id, digests=_united(stored["digests"], algorithms))


def _united(digests: str, further: Iterable[str]) -> str:
    return Wanted.of([*digests.split(), *further], {}).digests


def _row(batch_id: str, line: NewLine, job: str | None) -> Row:
    return {
        "batch_id": batch_id,
        "position": line.position,
        "job_id": job,
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
        job_id=row["id"],
    )


def _digests(row: Row, prefix: str = "") -> dict[str, str]:
    found = {algorithm: row.get(f"{prefix}{algorithm}") for algorithm in ALGORITHMS}
    return {algorithm: digest for algorithm, digest in found.items() if digest is not None}
