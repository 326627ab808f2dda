"""Opens the database for the commands, and finds jobs and batches by the beginnings of ids."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from md5light.batch import Batch
from md5light.config import Config
from md5light.errors import NotDone
from md5light.job import Job
from md5light.queue import open_database
from md5light.queue.batches import Batches
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
def batches_of(config: Config) -> Iterator[Batches]:
    with opened(config) as database:
        yield Batches.configured(database, config)


@contextlib.contextmanager
def queue_of(config: Config) -> Iterator[Queue]:
    with opened(config) as database:
        yield Queue.configured(database, config)


def found(queue: Queue, beginning: str) -> Job:
    """Return the job whose id begins so; NotDone when there is none, or more than one."""
    job = queue.get(_only(queue.find(beginning.lower()), "job", beginning))
    if job is None:
        raise _there_is_no("job", beginning)
    return job


def found_batch(batches: Batches, beginning: str) -> Batch:
    """Return the batch whose id begins so; NotDone when there is none, or more than one."""
    batch = batches.get(_only(batches.find(beginning.lower()), "batch", beginning))
    if batch is None:
        raise _there_is_no("batch", beginning)
    return batch


def _only(ids: list[str], kind: str, beginning: str) -> str:
    if len(ids) > 1:
        raise NotDone(f"{visible(beginning)} is the beginning of more than one {kind}'s id")
    if not ids:
        raise _there_is_no(kind, beginning)
    return ids[0]


def _there_is_no(kind: str, beginning: str) -> NotDone:
    return NotDone(f"there is no {kind} {visible(beginning)}")
