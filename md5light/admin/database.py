"""`md5light queue …` and `md5light stats`: the database as a whole."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from md5light.admin.access import opened
from md5light.admin.output import flattened, print_json, print_table
from md5light.batch import LINE_RESULTS
from md5light.config import Config, masked
from md5light.errors import NotDone
from md5light.queue import open_database
from md5light.queue.copy import copy
from md5light.queue.totals import Snapshot, Totals


def queue_copy(config: Config, arguments: argparse.Namespace) -> None:
    """Copy the jobs of another database into the configured one."""
    if _is_same(arguments.source, config.queue.database):
        raise NotDone(f"{masked(arguments.source)} is the database that the jobs go to")
    jobs = copied = 0
    with (
        contextlib.closing(open_database(arguments.source, durable=False, create=False)) as source,
        contextlib.closing(open_database(config.queue.database, durable=True)) as target,
    ):
        for found, new in copy(source, target):
            jobs, copied = jobs + found, copied + new
    if arguments.json:
        print_json({"copied": copied, "present": jobs - copied})
    else:
        print(f"{copied} of {jobs} jobs copied, {jobs - copied} were there already")


def queue_compact(config: Config, arguments: argparse.Namespace) -> None:
    """Give the space of removed jobs back to the file system."""
    location = config.queue.database
    with contextlib.closing(open_database(location, durable=True, create=False)) as database:
        freed = database.compact()
    if arguments.json:
        print_json({"freed_bytes": freed})
    else:
        print(f"{freed} bytes given back")


def stats(config: Config, arguments: argparse.Namespace) -> None:
    """Print the current state, and the counts since the database was created."""
    with opened(config) as database:
        counted = _counted(Totals(database).snapshot())
    if arguments.json:
        print_json(counted)
    else:
        print_table(flattened(counted))


def _is_same(one: str, other: str) -> bool:
    files = Path(one), Path(other)
    return one == other or (all(file.exists() for file in files) and files[0].samefile(files[1]))


def _counted(snapshot: Snapshot) -> dict[str, object]:
    """Return a snapshot in the form that is printed."""
    jobs, last = sum(snapshot.durations.values()), snapshot.last_sign_seconds
    return {
        "unfinished": _each(("queued", "running"), snapshot.unfinished),
        "oldest_waiting_seconds": round(snapshot.oldest_waiting_seconds, 3),
        **_ended(snapshot.finished),
        "mean_seconds": round(snapshot.duration_seconds / jobs, 3) if jobs else None,
        "hashed_bytes": snapshot.hashed_bytes,
        "batches": _each(("running", "done", "canceled"), snapshot.batches),
        "lines": _each(LINE_RESULTS, snapshot.lines),
        "mails": {
            "waiting": snapshot.mails_waiting,
            **_each(("sent", "failed"), snapshot.mails),
        },
        "workers": snapshot.workers_alive,
        "last_worker_sign_seconds": last and round(last, 3),
    }


def _each(names: Iterable[str], counts: Mapping[str, int]) -> dict[str, int]:
    return {name: counts.get(name, 0) for name in names}


def _ended(counts: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """Return the jobs that have ended, by their status, and of the failed ones by their code."""
    failures = {code: jobs for (status, code), jobs in sorted(counts.items()) if status == "failed"}
    return {
        "finished": {
            "done": counts.get(("done", ""), 0),
            "failed": sum(failures.values()),
            "canceled": counts.get(("canceled", ""), 0),
        },
        "failures": failures,
    }
