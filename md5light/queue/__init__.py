"""Jobs and what is owed for them: all SQL, on whatever database the configuration names."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from md5light.errors import DatabaseError
from md5light.queue import bell
from md5light.queue.database import Database, Listener
from md5light.queue.sqlite import SQLite

#: a location that begins so is not a file
POSTGRESQL = "postgresql://"


def open_database(
    location: str, *, durable: bool, create: bool = True, clock: Callable[[], float] | None = None
) -> Database:
    """Open the database that the configuration names, bringing its schema up to date.

    `durable` makes each commit survive the loss of power; without it that may undo the latest commits, while a
    killed process never does. Without `create` a file must be there. `clock` tells Unix seconds; without it the
    time is the database's own.
    Raises DatabaseError when that can't be done.
    """
    if location.startswith(POSTGRESQL):
        _require_psycopg()
        from md5light.queue.postgresql import PostgreSQL

        return PostgreSQL(location, durable=durable, clock=clock)
    return SQLite(location, durable=durable, create=create, clock=clock or time.time)


def listen(location: str) -> Listener:
    """Make what idle workers of the database wait on."""
    if location.startswith(POSTGRESQL):
        from md5light.queue.postgresql import NotifyListener

        return NotifyListener(location)
    return bell.BellListener(Path(location))


def _require_psycopg() -> None:
    try:
        import psycopg  # noqa: F401 - only whether it is there
    except ImportError:
        raise DatabaseError(
            "database postgresql://…: needs psycopg: pip install 'md5light[postgres]'"
        ) from None
