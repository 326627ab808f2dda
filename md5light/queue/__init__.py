"""The queue: jobs and owed mails in the database that the configuration names; all SQL is here."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from md5light.config.database_url import PREFIX
from md5light.errors import DatabaseError
from md5light.queue import bell
from md5light.queue.baton import Baton, Semaphore
from md5light.queue.database import Database, Listener
from md5light.queue.sqlite import SQLite

#: the prefix of a location that is not a file
POSTGRESQL = PREFIX


def open_database(
    location: str,
    *,
    durable: bool,
    create: bool = True,
    migrate: bool = True,
    clock: Callable[[], float] | None = None,
    listener: Listener | None = None,
) -> Database:
    """Open the database that the configuration names.

    `durable` makes each commit survive a power failure; without it the latest commits may be lost
    then, but never by the death of a process. Without `create` a file must exist. With `migrate`
    the schema is made or brought up to date; without, nothing is changed, and another version is an
    error. `clock` returns Unix seconds; the default is the database's own time. `listener` is that
    of the pool that the process is of.
    Raises DatabaseError: one line that says what to do, without any password.
    """
    if location.startswith(POSTGRESQL):
        _require_psycopg()
        from md5light.queue.postgresql import PostgreSQL

        return PostgreSQL(location, durable=durable, migrate=migrate, clock=clock)
    return SQLite(
        location,
        durable=durable,
        create=create and migrate,
        migrate=migrate,
        clock=clock or time.time,
        baton=listener.baton if listener else None,
    )


def listen(location: str, semaphore: Semaphore | None = None) -> Listener:
    """Return the listener by which idle workers wait for new jobs.

    `semaphore` lets its processes write one after the other, where an engine needs that.
    """
    if location.startswith(POSTGRESQL):
        from md5light.queue.listener import NotifyListener

        return NotifyListener(location)
    return bell.BellListener(Path(location), Baton(semaphore) if semaphore else None)


def _require_psycopg() -> None:
    try:
        import psycopg  # noqa: F401 - only whether it is there
    except ImportError:
        raise DatabaseError(
            "database postgresql://…: needs psycopg: pip install 'md5light[postgres]'"
        ) from None
