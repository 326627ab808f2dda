"""The database as the commands open it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from md5light.config import Config
from md5light.queue import open_database
from md5light.queue.database import Database
from md5light.queue.jobs import Queue


@contextlib.contextmanager
def opened(config: Config) -> Iterator[Database]:
    """Open the database of a service that has run: no command makes one."""
    database = open_database(config.queue.database, durable=True, create=False)
    with contextlib.closing(database):
        yield database


@contextlib.contextmanager
def queue_of(config: Config) -> Iterator[Queue]:
    with opened(config) as database:
        yield Queue.configured(database, config)
