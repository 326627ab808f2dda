"""`md5light jobs …`."""

from __future__ import annotations

import argparse

from md5light.admin.access import queue_of
from md5light.admin.output import flattened, print_json, print_table
from md5light.config import Config
from md5light.errors import NotDone
from md5light.job import Job, describe
from md5light.queue.jobs import Queue
from md5light.text import visible


def jobs_list(config: Config, arguments: argparse.Namespace) -> None:
    """Print the newest jobs."""
    with queue_of(config) as queue:
        jobs = queue.newest(arguments.limit, arguments.status)
    if arguments.json:
        print_json([describe(job) for job in jobs])
    else:
        print_table([("ID", "STATUS", "ATTEMPTS", "SUBMITTED", "RESULT", "URL"), *map(_row, jobs)])


def jobs_show(config: Config, arguments: argparse.Namespace) -> None:
    """Print all that may be known of a job."""
    with queue_of(config) as queue:
        job = _existing(queue, arguments.id)
    if arguments.json:
        print_json(describe(job))
    else:
        print_table(flattened(describe(job)))


def jobs_retry(config: Config, arguments: argparse.Namespace) -> None:
    """Make a failed or canceled job new."""
    with queue_of(config) as queue:
        job = _existing(queue, arguments.id)
        if not queue.retry(job.id):
            raise NotDone(
                f"job {job.id} is {job.status}: only a failed or canceled job can be tried again"
            )
        _print_changed(_existing(queue, job.id), arguments)


def jobs_cancel(config: Config, arguments: argparse.Namespace) -> None:
    """End an unfinished job."""
    with queue_of(config) as queue:
        job = _existing(queue, arguments.id)
        if not queue.cancel(job.id):
            raise NotDone(f"job {job.id} has ended: it is {_existing(queue, job.id).status}")
        _print_changed(_existing(queue, job.id), arguments)


def jobs_purge(config: Config, arguments: argparse.Namespace) -> None:
    """Remove jobs that ended long ago, a few in each transaction: the service goes on."""
    removed = 0
    with queue_of(config) as queue:
        while rows := queue.purge(arguments.older_than):
            removed += rows
    if arguments.json:
        print_json({"removed": removed})
    else:
        print(f"{removed} {'job' if removed == 1 else 'jobs'} removed")


def _existing(queue: Queue, job_id: str) -> Job:
    job = queue.get(job_id)
    if job is None:
        raise NotDone(f"there is no job {visible(job_id)}")
    return job


def _row(job: Job) -> tuple[object, ...]:
    submitted = str(describe(job)["created_at"])[:19] + "Z"
    result = (
        job.md5
        or job.error_code
        or (f"{job.bytes_done} bytes" if job.status == "running" else None)
    )
    return job.id, job.status, f"{job.attempts}/{job.max_attempts}", submitted, result, job.url


def _print_changed(job: Job, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print_json(describe(job))
    else:
        print(f"{job.id} {job.status}")
