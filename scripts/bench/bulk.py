#!/usr/bin/env python3
"""Take many jobs through one PostgreSQL server with several pools, and watch how its tables keep.

Most files have 1 KiB; some are larger and sent slowly, so that their jobs show progress meanwhile. Jobs come in as
fast as they are worked off, in portions. nginx (Debian's package) is the origin, on loopback. The exit status is 1
when a job was not done once and right.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import os
import sys
import time
from typing import Any

import psycopg
from jobs import fill, service
from loopback import ROOT, serving

sys.path.insert(0, str(ROOT))

from tests.postgresql import PostgreSQLServer

#: one job of so many is a slow one
SLOW_EVERY = 500

#: jobs stored at once, and the number of waiting ones below which more are stored
PORTION = 5000

#: seconds between two lines
LINE_SECONDS = 10.0

COLUMNS = "   s    done   /s  updates in place  dead rows  vacuums  table MiB  indexes MiB"

STATE = """
    select n_tup_upd as updates, n_tup_hot_upd as in_place, n_dead_tup as dead, autovacuum_count as vacuums,
        pg_relation_size(relid) / 1048576.0 as table_size, pg_indexes_size(relid) / 1048576.0 as indexes_size,
        (select count(*) from jobs where finished_at is null) as unfinished, (select count(*) from jobs) as jobs
    from pg_stat_user_tables where relname = 'jobs'
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=100_000, help="how many (default: %(default)s)")
    parser.add_argument(
        "--pools", type=int, default=4, help="of two processes each (default: %(default)s)"
    )
    arguments = parser.parse_args()
    small = {f"files/{number}": os.urandom(1024) for number in range(PORTION)}
    slow = {f"slow/{number}": os.urandom(2**20) for number in range(10)}
    server = PostgreSQLServer()
    try:
        with (
            serving(small | slow) as root,
            service(
                queue={"database": server.location()}, worker={"processes": 2, "threads": 8}
            ) as bulk,
        ):
            fill(server.location(), [])
            for _ in range(arguments.pools):
                bulk.start_pool()
            with psycopg.connect(
                server.location(), autocommit=True, row_factory=psycopg.rows.dict_row
            ) as database:
                urls = [
                    f"{root}/{choice(number, [*small], [*slow])}"
                    for number in range(arguments.jobs)
                ]
                work_off(database, server.location(), urls)
                return 0 if all_right(database, root, small | slow) else 1
    finally:
        server.close()


def choice(number: int, small: list[str], slow: list[str]) -> str:
    return (
        slow[number // SLOW_EVERY % len(slow)]
        if number % SLOW_EVERY == 0
        else small[number % len(small)]
    )


def work_off(database: psycopg.Connection[dict[str, Any]], location: str, urls: list[str]) -> None:
    """Store jobs as fast as they are done, and print a line now and then."""
    begin, line_at, last_done = time.monotonic(), 0.0, 0
    print(COLUMNS)
    while True:
        state = database.execute(STATE).fetchone()
        assert state
        seconds = time.monotonic() - begin
        done = state["jobs"] - state["unfinished"]
        if seconds >= line_at or done == len(urls):
            print(
                line(seconds, done, (done - last_done) / (seconds - line_at + LINE_SECONDS), state),
                flush=True,
            )
            line_at, last_done = seconds + LINE_SECONDS, done
        if done == len(urls):
            break
        if state["unfinished"] < PORTION:
            fill(location, urls[state["jobs"] : state["jobs"] + PORTION])
        time.sleep(0.5)
    print(f"{len(urls) / seconds:.0f} jobs/s in all")


def line(seconds: float, done: int, rate: float, state: dict[str, Any]) -> str:
    in_place = f"{state['in_place']} ({state['in_place'] / max(1, state['updates']):.0%})"
    return (
        f"{seconds:4.0f} {done:7} {rate:4.0f} {state['updates']:8} {in_place:>12} {state['dead']:7}"
        f" {state['vacuums']:8} {state['table_size']:10.1f} {state['indexes_size']:12.1f}"
    )


def all_right(
    database: psycopg.Connection[dict[str, Any]], root: str, files: dict[str, bytes]
) -> bool:
    """Tell whether every job was done at its first attempt, with the right MD5."""
    right = {
        f"{root}/{path}": hashlib.md5(body, usedforsecurity=False).hexdigest()
        for path, body in files.items()
    }
    wrong: collections.Counter[str] = collections.Counter()
    with contextlib.closing(
        database.execute("select url, status, attempts, md5 from jobs")
    ) as rows:
        for row in rows:
            if (row["status"], row["md5"]) != ("done", right[row["url"]]):
                wrong["not right"] += 1
            elif row["attempts"] != 1:
                wrong["more than one attempt"] += 1
    print(f"wrong: {dict(wrong) or 'none'}")
    return not wrong


if __name__ == "__main__":
    sys.exit(main())
