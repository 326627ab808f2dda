"""`md5light jobs …`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from md5light.admin.access import found, opened, queue_of
from md5light.admin.output import (
    SHORT,
    age,
    flattened,
    print_json,
    print_table,
    size,
    terminal_width,
)
from md5light.config import Config
from md5light.errors import NotDone, Refused
from md5light.job import Job, describe
from md5light.queue.batches import Batches
from md5light.queue.jobs import Queue

#: jobs that are retried in one transaction
PORTION = 500


def jobs_list(config: Config, arguments: argparse.Namespace) -> None:
    """Print the newest jobs: on a terminal for people, in a pipe for programs."""
    with queue_of(config) as queue:
        jobs = queue.newest(arguments.limit, *_filters(arguments))
    if arguments.json:
        print_json([describe(job) for job in jobs])
    elif width := terminal_width():
        rows = [_row_for_people(job, time.time()) for job in jobs]
        print_table([("ID", "STATUS", "TRIES", "AGE", "SIZE", "RESULT", "URL"), *rows], width)
    else:
        print_table([("ID", "STATUS", "ATTEMPTS", "SUBMITTED", "RESULT", "URL"), *map(_row, jobs)])


def jobs_show(config: Config, arguments: argparse.Namespace) -> None:
    """Print the whole descriptions of jobs."""

    def show(queue: Queue, job: Job) -> None:  # noqa: ARG001 - nothing is changed
        if arguments.json:
            print_json(describe(job))
        else:
            print_table(flattened(describe(job)))

    _each(config, arguments.ids, show)


def jobs_retry(config: Config, arguments: argparse.Namespace) -> None:
    """Make failed or canceled jobs new: those that are named, or all of a status."""

    def retry(queue: Queue, job: Job) -> None:
        if not queue.retry(job.id):
            raise NotDone(
                f"job {job.id} is {job.status}: only a failed or canceled job can be tried again"
            )
        _print_changed(queue, job, arguments)

    filters = _filters(arguments)
    if arguments.ids and any(filters):
        raise Refused("wrong_usage", "jobs retry: give IDs or --status, not both")
    if arguments.ids:
        _each(config, arguments.ids, retry)
    elif arguments.status:
        _retry_all(config, arguments)
    else:
        raise Refused("wrong_usage", "jobs retry: give IDs, or --status failed or canceled")


def jobs_cancel(config: Config, arguments: argparse.Namespace) -> None:
    """End unfinished jobs."""

    def cancel(queue: Queue, job: Job) -> None:
        if not queue.cancel(job.id):
            raise NotDone(f"job {job.id} has ended: it is {_again(queue, job).status}")
        _print_changed(queue, job, arguments)

    _each(config, arguments.ids, cancel)


def jobs_purge(config: Config, arguments: argparse.Namespace) -> None:
    """Remove jobs and batches that ended long ago, in short transactions: the service goes on."""
    with opened(config) as database:
        queue, batches = Queue.configured(database, config), Batches.configured(database, config)
        removed = batches.purge(arguments.older_than)
        while rows := queue.purge(arguments.older_than):
            removed += rows
        while batches.sweep():
            pass
    _print_count("removed", removed, arguments)


def _each(config: Config, ids: list[str], do: Callable[[Queue, Job], None]) -> None:
    """Do it with each job; those where it can't be done are named at the end."""
    problems = []
    with queue_of(config) as queue:
        for job_id in ids:
            try:
                do(queue, found(queue, job_id))
            except NotDone as problem:
                problems.append(str(problem))
    if problems:
        raise NotDone("\n".join(problems))


def _retry_all(config: Config, arguments: argparse.Namespace) -> None:
    retried = 0
    with queue_of(config) as queue:
        ids = queue.ids(*_filters(arguments))
        for first in range(0, len(ids), PORTION):
            retried += queue.retry_all(ids[first : first + PORTION])
    _print_count("retried", retried, arguments)


def _filters(arguments: argparse.Namespace) -> tuple[str | None, str | None, str | None]:
    host = arguments.host.lower() if arguments.host else None
    return arguments.status, arguments.code, host


def _again(queue: Queue, job: Job) -> Job:
    """Return the job as it stands now."""
    return queue.get(job.id) or job


def _row(job: Job) -> tuple[object, ...]:
    submitted = str(describe(job)["created_at"])[:19] + "Z"
    result = (
        job.md5
        or job.error_code
        or (f"{job.bytes_done} bytes" if job.status == "running" else None)
    )
    return job.id, job.status, f"{job.attempts}/{job.max_attempts}", submitted, result, job.url


def _row_for_people(job: Job, now: float) -> tuple[object, ...]:
    bytes_so_far = job.bytes_done if job.status == "running" else job.size
    return (
        job.id[:SHORT],
        job.status,
        f"{job.attempts}/{job.max_attempts}",
        age(now - job.created_at),
        None if bytes_so_far is None else size(bytes_so_far),
        job.md5 or job.error_code,
        job.url,
    )


def _print_changed(queue: Queue, job: Job, arguments: argparse.Namespace) -> None:
    job = _again(queue, job)
    if arguments.json:
        print_json(describe(job))
    else:
        print(f"{job.id} {job.status}")


def _print_count(word: str, count: int, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print_json({word: count})
    else:
        print(f"{count} {'job' if count == 1 else 'jobs'} {word}")
