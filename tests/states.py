"""The states that pages can show, written into a service's database: no download has to run.

with Service(tmp_path) as service:
    service.start_server()
    with States(service) as states:
        path = states.job(**FAILED)
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from md5light.batch import NewBatch, NewLine
from md5light.finding import Wanted
from md5light.queue import open_database
from md5light.queue.batches import Batches
from md5light.queue.jobs import Queue
from md5light.queue.totals import Totals

HOST = "files.example.org"
URL = f"https://{HOST}/hello.txt"
BODY = b"hello\n"
DIGESTS = {
    name: hashlib.new(name, BODY).hexdigest() for name in ("md5", "sha1", "sha256", "sha512")
}
MD5 = DIGESTS["md5"]


class In(float):
    """A time so many seconds from the moment at which it is written."""


#: columns of a job by its state
QUEUED: dict[str, Any] = {}
RUNNING: dict[str, Any] = {
    "status": "running",
    "due_at": In(3600),
    "token": "t",
    "worker": "w",
    "attempts": 1,
    "started_at": In(-5),
    "bytes_done": 500_000,
    "bytes_total": 1_000_000,
}
ENDLESS = {**RUNNING, "bytes_total": None}
AGAIN: dict[str, Any] = {
    "attempts": 1,
    "due_at": In(600),
    "turn": None,
    "error_code": "http_status",
    "error_message": "The server answered with status 500.",
}
ENDED: dict[str, Any] = {
    "due_at": None,
    "turn": None,
    "attempts": 1,
    "started_at": In(-0.3),
    "finished_at": In(0),
}
DONE = {
    **ENDED,
    "status": "done",
    "size": len(BODY),
    "md5": MD5,
    "content_type": "text/plain",
    "last_modified": "Sun, 06 Nov 1994 08:49:37 GMT",
    "final_url": URL,
}
FAILED = {
    **ENDED,
    "status": "failed",
    "error_code": "http_status",
    "error_message": "The server answered with status 404.",
}
#: the longest of the sentences
LOST = {**FAILED, "error_code": "tls_failed", "error_message": "The certificate has expired."}
CANCELED = {**ENDED, "status": "canceled"}


class States:
    """Writes jobs and batches in any state, and says that a worker is alive for the next hour."""

    def __init__(self, path: Path, *, has_worker: bool = True) -> None:
        self._database = open_database(str(path), durable=False)
        self._queue = Queue(self._database, lease_seconds=60, max_attempts=5, retry_seconds=10)
        self._batches = Batches(self._database, max_attempts=5)
        if has_worker:
            Totals(self._database).heartbeat("w")
            self._run("update workers set seen_at = seen_at + 3600")

    def __enter__(self) -> States:
        return self

    def __exit__(self, *exc: object) -> None:
        self._database.close()

    def job(
        self,
        url: str = URL,
        *,
        email: str | None = None,
        digests: Sequence[str] = (),
        expected: Mapping[str, int | str] = {},
        **columns: Any,
    ) -> str:
        """Make a job with these columns, and return the path of its page."""
        wanted = Wanted.of(digests, expected)
        job_id = self._queue.submit(url, HOST, email, None, wanted)
        further = {name: DIGESTS[name] for name in wanted.digests.split() if "md5" in columns}
        self._set("id = :id", {"id": job_id}, {**further, **columns})
        return f"/jobs/{job_id}"

    def rest(self, host: str, seconds: float = 600) -> None:
        """Let a host rest, as it has asked for."""
        columns = {
            **dict.fromkeys(("rests", "pause", "most", "room", "gap", "good_answers"), 1),
            "host": host,
            "rest_until": time.time() + seconds,
            "word_at": time.time(),
            "error_code": "http_status",
            "error_message": "The server answered with status 429.",
        }
        names = ", ".join(columns)
        values = ", ".join(f":{name}" for name in columns)
        self._run(f"insert into hosts ({names}) values ({values})", **columns)

    def batch(
        self, lines: Sequence[tuple[NewLine, Mapping[str, Any]]], *, age: float = 0, **known: Any
    ) -> str:
        """Make a batch of lines, each with the columns of its job; return the path of its page.

        It was submitted `age` seconds ago, and has ended if none of its jobs is unfinished.
        """
        batch_id = self._batches.begin(NewBatch(**{"format": "urls", "client": "c", **known}))
        self._batches.add(batch_id, [line for line, _ in lines])
        self._batches.publish(batch_id)
        path = f"/batches/{batch_id}"
        created_at = time.time() - age
        self._run("update batches set created_at = :at where id = :id", id=batch_id, at=created_at)
        self.settle(path, {line.position: columns for line, columns in lines})
        return path

    def settle(self, path: str, jobs: Mapping[int, Mapping[str, Any]]) -> None:
        """Change the columns of a batch's jobs, by their places."""
        batch_id = path.rpartition("/")[2]
        for place, columns in jobs.items():
            where = {"batch": batch_id, "place": place}
            self._set("batch_id = :batch and place = :place", where, columns)
        self._batches.end_due()

    def mail(self, path: str, status: str) -> None:
        """Say what has become of the mail of an ended job."""
        self._run(
            "insert into outbox (kind, subject, recipient, status, created_at)"
            " values ('job', :id, 'ann@example.org', :status, :now)"
            " on conflict (kind, subject) do update set status = excluded.status",
            id=path.rpartition("/")[2],
            status=status,
        )

    def cancel_batch(self, path: str) -> None:
        assert self._batches.cancel(path.rpartition("/")[2])

    def change(self, path: str, **columns: Any) -> None:
        """Change the columns of a job."""
        self._set("id = :id", {"id": path.rpartition("/")[2]}, columns)

    def _set(self, which: str, where: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
        now = time.time()
        values = {
            name: value + now if isinstance(value, In) else value for name, value in columns.items()
        }
        if columns:
            changes = ", ".join(f"{name} = :{name}" for name in columns)
            self._run(f"update jobs set {changes} where {which}", **where, **values)

    def _run(self, statement: str, **parameters: Any) -> None:
        self._database.write(lambda transaction: transaction.run(statement, **parameters))


def line(position: int, url: str | None = None, **known: Any) -> NewLine:
    """Make a line of a list; without a URL it has one of its own."""
    address = url or f"{URL}?{position}"
    return NewLine(position, **{"sent": address, "url": address, "host": HOST, **known})


def bad_line(position: int, sent: str, code: str, message: str) -> NewLine:
    """Make a line that could not be read."""
    return NewLine(position, sent, error_code=code, error_message=message)


def mixed() -> list[tuple[NewLine, Mapping[str, Any]]]:
    """Return lines with each kind of end."""
    return [
        (line(1, expected={"md5": MD5}), DONE),
        (line(2, expected={"md5": "0" * 32}), DONE),
        (line(3), FAILED),
        (line(4), DONE),
        (bad_line(5, "ftp://<b>", "invalid_size", "“77zz” is not a size in bytes."), {}),
    ]
