#!/usr/bin/env python3
"""Measure whether the queue gets slower as it grows from a thousand jobs to millions.

It fills a table with a million waiting and ten million finished jobs (gigabytes, and minutes), in
SQLite and, with --postgresql, in a server of its own. The waiting jobs are due by time or, with
--turns, have turns as the lines of batches do. The exit status is 1 when a requirement is not met.
"""

from __future__ import annotations

import argparse
import contextlib
import operator
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from loopback import ROOT, figure

sys.path.insert(0, str(ROOT))

from md5light.job import FAR, Hashed
from md5light.queue import open_database
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from tests.postgresql import PostgreSQLServer

SMALL = {"waiting": 1_000, "finished": 1_000}

#: how long jobs have been due that wait by time
DAY_SECONDS = 86400.0

#: rows a transaction
PORTION = 100_000

HOST = "'host' || (n % 1000) || '.example.com'"

FILL = f"""
    insert into jobs (id, url, host, status, due_at, turn, attempts, max_attempts, created_at,
        started_at, finished_at, bytes_done, bytes_total, md5, size, final_url, content_type,
        last_modified)
    {{numbers}} select {{uuid}}, 'https://' || {HOST} || '/pub/file-' || n || '.tar.gz', {HOST},
        :status, case when :status = 'queued' then :due_at + n * 0.001 end,
        case when :status = 'queued' then :due_at + n * 0.001 end,
        case when :status = 'queued' then 0 else 1 end, 5,
        :now + n * 0.000001, case when :status = 'done' then :now end,
        case when :status = 'done' then :now + n * 0.000001 end,
        1024, 1024, case when :status = 'done' then 'f4afe93ad799484b1d512cc20e93efd1' end, 1024,
        'https://' || {HOST} || '/pub/file-' || n || '.tar.gz', 'application/gzip',
        'Tue, 24 Nov 2026 08:00:00 GMT'
    from numbers
"""

#: what engines call a row of numbers and a random UUID
WORDS = {
    "SQLite": {
        "numbers": """with recursive numbers (n) as (select cast(:first as integer) union all
            select n + 1 from numbers where n + 1 < :first + :rows)""",
        "uuid": """lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' ||
            substr(hex(randomblob(2)), 2) || '-a' || substr(hex(randomblob(2)), 2) || '-' ||
            hex(randomblob(6)))""",
    },
    "PostgreSQL": {
        "numbers": """with numbers as (select generate_series(cast(:first as bigint),
            cast(:first as bigint) + cast(:rows as bigint) - 1) as n)""",
        "uuid": "gen_random_uuid()::text",
    },
}

HASHED = Hashed(
    "f4afe93ad799484b1d512cc20e93efd1",
    1024,
    "https://a.example.com/f",
    "application/gzip",
    None,
    None,
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--waiting", type=int, default=1_000_000, help="waiting jobs (default: %(default)s)"
    )
    parser.add_argument(
        "--finished", type=int, default=10_000_000, help="finished jobs (default: %(default)s)"
    )
    parser.add_argument("--turns", action="store_true", help="waiting jobs have turns")
    parser.add_argument("--postgresql", action="store_true", help="measure PostgreSQL, too")
    parser.add_argument(
        "--operations", type=int, default=1000, help="of each kind (default: %(default)s)"
    )
    arguments = parser.parse_args()
    large = {"waiting": arguments.waiting, "finished": arguments.finished}
    engines = ["SQLite"] + ["PostgreSQL"] * arguments.postgresql
    due_at = FAR if arguments.turns else time.time() - DAY_SECONDS
    met = [grown(engine, large, arguments.operations, due_at) for engine in engines]
    return 0 if all(met) else 1


def grown(engine: str, large: dict[str, int], operations: int, due_at: float) -> bool:
    """Fill one small and one large table, and take turns at both."""
    with database(engine) as one, database(engine) as other:
        fill(one, engine, SMALL, due_at)
        fill(other, engine, large, due_at)
        small_queue, large_queue = (
            Queue(each, lease_seconds=60, max_attempts=5, retry_seconds=10) for each in (one, other)
        )
        small, big = measure(small_queue, operations // 5), measure(large_queue, operations // 5)
        for _ in range(4):
            for times, queue in ((small, small_queue), (big, large_queue)):
                for name, more in measure(queue, operations // 5).items():
                    times[name] += more
    met = []
    for name in small:
        before, after = statistics.median(small[name]) * 1e6, statistics.median(big[name]) * 1e6
        print(
            f"{engine}, {name}: {before:.0f} µs, among {sum(large.values()):,} jobs {after:.0f} µs"
        )
        met.append(figure(f"{engine}, {name}: grown", after / before, 1.5))
    return all(met)


def measure(queue: Queue, operations: int) -> dict[str, list[float]]:
    """Return the seconds that each operation took."""
    times: dict[str, list[float]] = {"submit": [], "check": [], "claim": [], "settle and claim": []}
    for _ in range(operations):
        job_id = timed(
            times["submit"],
            lambda: queue.submit("https://a.example.com/file", "a.example.com", client="ann"),
        )
        timed(times["check"], lambda: queue.get(job_id))  # noqa: B023 - called at once
        job = timed(times["claim"], lambda: queue.claim("bench"))
        assert job
        _, following = timed(
            times["settle and claim"],
            lambda: queue.settle(job, HASHED, claim_next=True),  # noqa: B023 - called at once
        )
        assert following
        queue.settle(following, HASHED)
    return times


def timed(times: list[float], work: Callable[[], object]):  # type: ignore[no-untyped-def]
    begin = time.perf_counter()
    result = work()
    times.append(time.perf_counter() - begin)
    return result


@contextlib.contextmanager
def database(engine: str) -> Iterator[Database]:
    """Open a new and empty database."""
    with contextlib.ExitStack() as stack:
        if engine == "SQLite":
            location = str(
                Path(
                    stack.enter_context(tempfile.TemporaryDirectory(prefix="md5light-bench-")),
                    "jobs",
                )
            )
        else:
            server = PostgreSQLServer(fsync=True)
            stack.callback(server.close)
            location = server.location()
        yield stack.enter_context(contextlib.closing(open_database(location, durable=True)))


def fill(database: Database, engine: str, jobs: dict[str, int], due_at: float) -> None:
    begin = time.perf_counter()
    sql = FILL.format(**WORDS[engine])
    for status, count in (("done", jobs["finished"]), ("queued", jobs["waiting"])):
        for first in range(0, count, PORTION):
            rows = min(PORTION, count - first)
            parameters = {"status": status, "first": first, "rows": rows, "due_at": due_at}
            database.write(operator.methodcaller("run", sql, **parameters))
    if engine == "PostgreSQL":
        database.write(lambda transaction: transaction.run("analyze jobs"))
    print(
        f"{engine}: {sum(jobs.values()):,} jobs in {time.perf_counter() - begin:.0f} s", flush=True
    )


if __name__ == "__main__":
    sys.exit(main())
