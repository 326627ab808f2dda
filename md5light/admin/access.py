"""The database as the commands open it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from md5light.config import Config
from md5light.errors import NotDone
from md5light.job import Job
from md5light.queue import open_database
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.text import visible


@contextlib.contextmanager
def opened(config: Config) -> Iterator[Database]:
    """Open the database of a service that has run: no command makes or migrates one."""
    database = open_database(config.queue.database, durable=True, migrate=False)
    with contextlib.closing(database):
        yield database


@contextlib.contextmanager
def queue_of(config: Config) -> Iterator[Queue]:
    with opened(config) as database:
        yield Queue.configured(database, config)


def found(queue: Queue, beginning: str) -> Job:
    """Return the job whose id begins so; NotDone when there is none, or more than one."""
    ids = queue.find(beginning.lower())
    job = queue.get(ids[0]) if len(ids) == 1 else None
    if len(ids) > 1:
        raise NotDone(f"{visible(beginning)} is the beginning of more than one job's id")
    if job is None:
        raise NotDone(f"there is no job {visible(beginning)}")
    return job
