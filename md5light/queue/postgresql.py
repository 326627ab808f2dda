"""Many machines: a PostgreSQL server, reached through psycopg.

Nothing relies on the state of a session, so that a pooler that gives each transaction another one
(PgBouncer's transaction mode) may stand between: settings are local to their transaction, statements are not
prepared, locks end at the commit. Only LISTEN needs a session; without it workers poll.
"""

from __future__ import annotations

import contextlib
import functools
import re
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from md5light.errors import DatabaseError, DatabaseUnavailable
from md5light.queue.database import Database, Listener, Row, Transaction

T = TypeVar("T")
Connection = psycopg.Connection[Row]

#: connections that one process holds at most; its threads take turns
CONNECTIONS = 4

#: how soon a server or network that is gone is noticed (libpq, "Parameter Key Words"): seconds, the last milliseconds
PATIENCE = "connect_timeout=5 keepalives_idle=5 keepalives_interval=2 keepalives_count=3 tcp_user_timeout=10000"

#: a transaction waits no longer for another one's lock
LOCK_TIMEOUT = "5s"

#: deadlocks are rare and end by PostgreSQL's giving up one of the transactions, which is then run again
TRIES = 5

CHANNEL = "md5light_jobs"

#: seconds that workers only poll after the listening connection broke
RELISTEN_SECONDS = 5.0

#: transactions that migrate lock this
MIGRATION = "schema"

#: room for new versions of a row in its page, and dead ones removed soon: each job's row is written several times
TUNE = """
    alter table jobs set (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0)
"""

NOW = "extract(epoch from now())::double precision"


class PostgreSQLTransaction(Transaction):
    """A transaction beside those of other connections."""

    writers = 16

    def __init__(self, connection: Connection, now: float | None = None) -> None:
        self._connection = connection
        self._now = now

    def all(self, sql: str, **parameters: object) -> list[Row]:
        return self._execute(sql, parameters).fetchall()

    def run(self, sql: str, **parameters: object) -> int:
        return self._execute(sql, parameters).rowcount

    def lock(self, name: str, *, wait: bool = True) -> bool:
        key = "hashtextextended(:name, 5)"
        if wait:
            self.all(f"select pg_advisory_xact_lock({key})", name=name)
            return True
        return bool(self.all(f"select pg_try_advisory_xact_lock({key}) as locked", name=name)[0]["locked"])

    def ring(self) -> None:
        self.all("select pg_notify(:channel, '')", channel=CHANNEL)

    def now(self) -> float:
        if self._now is None:
            self._now = float(self.all(f"select {NOW} as now")[0]["now"])
        return self._now

    def _execute(self, sql: str, parameters: dict[str, object]) -> psycopg.Cursor[Row]:
        if self._now is not None and ":now" in sql:
            parameters["now"] = self._now
        return self._connection.execute(_translated(sql, self._now is not None), parameters)


class PostgreSQL(Database):
    """Access to a PostgreSQL database; `durable` is synchronous_commit."""

    def __init__(self, location: str, *, durable: bool, clock: Callable[[], float] | None) -> None:
        self.name = _without_password(location)
        self._location = location
        self._clock = clock
        commit = "on" if durable else "off"
        self._begin = (
            f"begin; set local synchronous_commit = {commit}; set local lock_timeout = '{LOCK_TIMEOUT}'; select {NOW}"
        )
        self._idle: deque[Connection] = deque()
        self._free = threading.Semaphore(CONNECTIONS)
        try:
            self.write(self._migrate_locked)
        except DatabaseUnavailable as error:
            raise DatabaseError(str(error)) from None

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def read(self, work: Callable[[Transaction], T]) -> T:
        with self._reporting():
            for last in (False, True):
                with self._connection(fresh=last) as connection:
                    try:
                        return work(PostgreSQLTransaction(connection, self._clock and self._clock()))
                    except psycopg.OperationalError:
                        if last or not connection.closed:  # one that lay idle may have been cut meanwhile
                            raise
        raise AssertionError("the last try returns or raises")

    def write(self, work: Callable[[Transaction], T]) -> T:
        with self._reporting():
            for tries_left in reversed(range(TRIES)):
                try:
                    with self._begun() as transaction:
                        return work(transaction)
                except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                    if not tries_left:
                        raise
        raise AssertionError("the last try returns or raises")

    @contextlib.contextmanager
    def _begun(self) -> Iterator[PostgreSQLTransaction]:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(self._connection())
            try:
                now = self._start(connection)
            except psycopg.OperationalError:
                if not connection.closed:
                    raise
                connection = stack.enter_context(self._connection(fresh=True))
                now = self._start(connection)
            try:
                yield PostgreSQLTransaction(connection, now)
                connection.execute("commit")
            except BaseException:
                if not connection.closed:
                    connection.execute("rollback")
                raise

    def _start(self, connection: Connection) -> float:
        """Begin and tell the transaction's time, in one round trip."""
        cursor = connection.execute(self._begin)
        while cursor.nextset():
            pass
        (row,) = cursor.fetchall()
        return self._clock() if self._clock else float(next(iter(row.values())))

    @contextlib.contextmanager
    def _connection(self, *, fresh: bool = False) -> Iterator[Connection]:
        """Lend a connection, after a failure a fresh one; those that broke are not kept."""
        with self._free:
            if fresh:
                self.close()
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = _connect(self._location)
            try:
                yield connection
            finally:
                if not connection.closed:
                    self._idle.append(connection)

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn what an unusable database raises into DatabaseUnavailable; our own mistakes stay what they are."""
        try:
            yield
        except (psycopg.IntegrityError, psycopg.ProgrammingError, psycopg.DataError):
            raise
        except psycopg.Error as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DatabaseUnavailable(f"database {self.name}: {reason}") from error

    def _migrate_locked(self, transaction: Transaction) -> None:
        transaction.lock(MIGRATION)
        new = not self._tables(transaction)
        self._migrate(transaction)
        if new:
            transaction.run(TUNE)

    def _tables(self, transaction: Transaction) -> set[str]:
        sql = "select tablename from pg_tables where schemaname = current_schema()"
        return {row["tablename"] for row in transaction.all(sql)}


class NotifyListener(Listener):
    """Waits for NOTIFY, each process on a connection of its own, made when it first waits."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._connection: Connection | None = None
        self._listen_at = 0.0

    def wait(self, timeout: float, stop: int) -> None:
        poll = select.poll()
        poll.register(stop, select.POLLIN)
        try:
            connection = self._listening()
            if connection:
                poll.register(connection.fileno(), select.POLLIN)
            poll.poll(timeout * 1000)
            if connection:
                for _ in connection.notifies(timeout=0):
                    pass
        except psycopg.Error:
            self._listen_at = time.monotonic() + RELISTEN_SECONDS
            self.close()

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def _listening(self) -> Connection | None:
        """Return the connection that hears, None shortly after it could not be had."""
        if self._connection is None and time.monotonic() >= self._listen_at:
            self._connection = _connect(self._location)
            self._connection.execute(f"listen {CHANNEL}")
        return self._connection


def _connect(location: str) -> Connection:
    """Connect with the patience above, unless the location says otherwise."""
    parameters = {**conninfo_to_dict(PATIENCE), "application_name": "md5light", **conninfo_to_dict(location)}
    return psycopg.connect(
        make_conninfo("", **parameters), autocommit=True, prepare_threshold=None, row_factory=dict_row
    )


@functools.lru_cache(maxsize=256)
def _translated(sql: str, now_is_known: bool) -> Any:
    """Put a statement into psycopg's words: %(name)s for :name."""
    if not now_is_known:
        sql = re.sub(r":now\b", NOW, sql)
    return re.sub(r"(?<!:):([a-z_]\w*)", r"%(\1)s", sql.replace("%", "%%"))


def _without_password(location: str) -> str:
    parts = urlsplit(location)
    return f"postgresql://{parts.hostname or ''}{parts.path}"
