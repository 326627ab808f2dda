"""Many machines: a PostgreSQL server, reached through psycopg.

A pooler that gives each transaction another session (PgBouncer's transaction mode) may stand between: settings are
local to their transaction, and locks end at the commit. Only where no pooler is found are statements prepared, the
server told how soon to miss us, and workers woken by LISTEN; elsewhere they poll.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from md5light.deadlines import Deadlines
from md5light.errors import DatabaseError, DatabaseUnavailable
from md5light.queue.commits import Collision, SharedCommits
from md5light.queue.database import Listener, Row, Transaction

T = TypeVar("T")
Connection = psycopg.Connection[Row]

#: connections that one process holds at most, one of which writes; its threads take turns
CONNECTIONS = 4

#: how soon a server or network that is gone is noticed (libpq, "Parameter Key Words"): seconds, the last milliseconds
PATIENCE = "connect_timeout=5 keepalives_idle=5 keepalives_interval=2 keepalives_count=3 tcp_user_timeout=10000"

#: how soon the server notices that a client is gone, in the units above: where one has just sent half of something,
#: none of the limits below counts, and what it has locked would stay locked for hours
SERVER_PATIENCE = """
    set tcp_keepalives_idle = 5; set tcp_keepalives_interval = 2; set tcp_keepalives_count = 3;
    set tcp_user_timeout = 10000
"""

#: a transaction that is not done by then is cut off: nothing else tells of packets that are lost behind a proxy
ANSWER_SECONDS = 10.0

#: seconds in which nobody tries to connect after nobody answered: what comes meanwhile fails at once, or it'd pile up
UNREACHABLE_SECONDS = 1.0

#: a connection is replaced after so many seconds: statements were planned for the table as it was, and names may have
#: come to mean another server
CONNECTION_SECONDS = 60.0

#: how long a transaction waits for another one's lock and for any statement, and how long the server keeps the locks
#: of one whose client is not heard of again
LIMITS = {
    "lock_timeout": "5s",
    "statement_timeout": "8s",
    "idle_in_transaction_session_timeout": "10s",
}

#: runs after which a statement is prepared
PREPARE_THRESHOLD = 5

#: errors after which PostgreSQL has given up the transaction for the sake of another one
COLLISIONS = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)

CHANNEL = "md5light_jobs"

#: seconds that workers only poll after the listening connection broke
RELISTEN_SECONDS = 5.0

#: transactions that migrate lock this
MIGRATION = "schema"

#: room for new versions of a row in its page, and dead ones removed soon: each job's row is written several times
TUNE = """
    alter table jobs set (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0)
"""

#: names of locks as PostgreSQL has them
KEY = "hashtextextended(:name, 5)"

NOW = "extract(epoch from now())::double precision"


class PostgreSQLTransaction(Transaction):
    """A transaction beside those of other connections."""

    writers = 16

    def __init__(self, connection: Connection, now: float | None = None) -> None:
        super().__init__()
        self._cursor = connection.cursor()
        self._now = now

    def all(self, sql: str, **parameters: object) -> list[Row]:
        return self._execute(sql, parameters).fetchall()

    def run(self, sql: str, **parameters: object) -> int:
        return self._execute(sql, parameters).rowcount

    def run_many(self, sql: str, rows: list[Row]) -> list[int]:
        """Run a statement for each row in one round trip (libpq's pipeline mode)."""
        if not rows:
            return []
        named = [{**row, "now": self._now} for row in rows]
        self._cursor.executemany(_translated(sql, self._now is not None), named, returning=True)
        counts = [self._cursor.rowcount]
        while self._cursor.nextset():
            counts.append(self._cursor.rowcount)
        return counts

    def lock(self, names: Iterable[str]) -> None:
        self.run_many(f"select pg_advisory_xact_lock({KEY})", [{"name": n} for n in sorted(names)])

    def try_lock(self, name: str) -> bool:
        row = self.one(f"select pg_try_advisory_xact_lock({KEY}) as locked", name=name)
        return bool(row and row["locked"])

    def now(self) -> float:
        if self._now is None:
            self._now = float(self.all(f"select {NOW} as now")[0]["now"])
        return self._now

    def _execute(self, sql: str, parameters: dict[str, object]) -> psycopg.Cursor[Row]:
        if self._now is not None and ":now" in sql:
            parameters["now"] = self._now
        return self._cursor.execute(_translated(sql, self._now is not None), parameters)


class PostgreSQL(SharedCommits):
    """Access to a PostgreSQL database: reads side by side, one commit for all waiting writes.

    `durable` is synchronous_commit.
    """

    def __init__(self, location: str, *, durable: bool, clock: Callable[[], float] | None) -> None:
        super().__init__()
        self.name = _without_password(location)
        self._location = location
        self._clock = clock
        limits = {"synchronous_commit": "on" if durable else "off", **LIMITS}
        settings = "; ".join(f"set local {name} = '{value}'" for name, value in limits.items())
        self._begin = f"begin; {settings}; select {NOW}"
        self._deadlines = Deadlines(ANSWER_SECONDS)
        #: connections that nobody uses, with the time of their end
        self._idle: deque[tuple[Connection, float]] = deque()
        self._readers = _Turns(CONNECTIONS - 1)
        self._unreachable_until = 0.0
        self._open()

    def close(self) -> None:
        self._close_idle()
        self._deadlines.close()

    def read(self, work: Callable[[Transaction], T]) -> T:
        with self._reporting(), self._readers:
            for last in (False, True):
                with self._connection(fresh=last) as connection:
                    try:
                        return work(
                            PostgreSQLTransaction(connection, self._clock and self._clock())
                        )
                    except psycopg.OperationalError:
                        if (
                            last or not connection.closed
                        ):  # one that lay idle may have been cut meanwhile
                            raise
        raise AssertionError("the last try returns or raises")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[PostgreSQLTransaction]:
        with self._reporting(), contextlib.ExitStack() as stack:
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
        cursor = connection.execute(self._begin, prepare=False)
        while cursor.nextset():
            pass
        (row,) = cursor.fetchall()
        return self._clock() if self._clock else float(next(iter(row.values())))

    def _committed(self, transaction: Transaction, writes: int) -> None:  # noqa: ARG002 - however many
        """Wake all who listen, outside the transaction: commits with a NOTIFY wait for each other."""
        if transaction.rings:
            with contextlib.suppress(DatabaseUnavailable):
                self.read(
                    lambda notifying: notifying.all(
                        "select pg_notify(:channel, '')", channel=CHANNEL
                    )
                )

    @contextlib.contextmanager
    def _connection(self, *, fresh: bool = False) -> Iterator[Connection]:
        """Lend a connection until its deadline, after a failure a fresh one; those that broke are not kept."""
        if fresh:
            self._close_idle()
        try:
            connection, until = self._idle.pop()
        except IndexError:
            connection, until = self._connect(), time.monotonic() + CONNECTION_SECONDS
        with _cut(connection, self._deadlines):
            try:
                yield connection
            finally:
                if connection.closed or time.monotonic() > until:
                    connection.close()
                else:
                    self._idle.append((connection, until))

    def _connect(self) -> Connection:
        if time.monotonic() < self._unreachable_until:
            raise psycopg.OperationalError("nobody answered a moment ago")
        try:
            connection = _connect(self._location)
        except psycopg.errors.ConnectionTimeout:
            self._unreachable_until = time.monotonic() + UNREACHABLE_SECONDS
            raise
        try:
            with _cut(connection, self._deadlines):
                if not _is_pooled(connection):
                    connection.prepare_threshold = PREPARE_THRESHOLD
                    connection.execute(SERVER_PATIENCE)
        except BaseException:
            connection.close()
            raise
        return connection

    def _close_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop()[0].close()

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn what an unusable database raises into DatabaseUnavailable; our own mistakes stay what they are."""
        try:
            yield
        except (psycopg.IntegrityError, psycopg.ProgrammingError, psycopg.DataError):
            raise
        except psycopg.Error as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            kind = Collision if isinstance(error, COLLISIONS) else DatabaseUnavailable
            raise kind(f"database {self.name}: {reason}") from error

    def _open(self) -> None:
        """Bring the schema up to date, on a connection without limits: that may take its time."""
        try:
            with (
                self._reporting(),
                _connect(self._location) as connection,
                connection.transaction(),
            ):
                self._migrate_locked(PostgreSQLTransaction(connection))
        except DatabaseUnavailable as error:
            raise DatabaseError(str(error)) from None

    def _migrate_locked(self, transaction: Transaction) -> None:
        transaction.lock([MIGRATION])
        new = not self._tables(transaction)
        self._migrate(transaction)
        if new:
            transaction.run(TUNE)

    def _tables(self, transaction: Transaction) -> set[str]:
        sql = "select tablename from pg_tables where schemaname = current_schema()"
        return {row["tablename"] for row in transaction.all(sql)}


class _Turns:
    """Lets `count` threads at a time into its block, in the order they came.

    A semaphore lets whoever has just left in again before those that wait: threads that read all the time would keep
    the others out.
    """

    def __init__(self, count: int) -> None:
        self._changing = threading.Lock()
        self._free = count
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        turn = threading.Lock()
        with self._changing:
            if self._free:
                self._free -= 1
                return
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def __exit__(self, *_: object) -> None:
        with self._changing:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1


class NotifyListener(Listener):
    """Waits for NOTIFY, each process on a connection of its own, made when it first waits."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._deadlines = Deadlines(ANSWER_SECONDS)
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
        """Return the connection that hears, None where none can be had now, or behind a pooler never."""
        if self._connection is None and time.monotonic() >= self._listen_at:
            self._connection = _connect(self._location)
            with _cut(self._connection, self._deadlines):
                if _is_pooled(self._connection):
                    self._listen_at = math.inf
                    self.close()
                else:
                    self._connection.execute(f"listen {CHANNEL}")
        return self._connection


def _connect(location: str) -> Connection:
    """Connect with the patience above, unless the location says otherwise."""
    parameters = {
        **conninfo_to_dict(PATIENCE),
        "application_name": "md5light",
        **conninfo_to_dict(location),
    }
    return psycopg.connect(
        make_conninfo("", **parameters),
        autocommit=True,
        prepare_threshold=None,
        row_factory=dict_row,
    )


def _is_pooled(connection: Connection) -> bool:
    """Tell whether a pooler stands between: it answers for itself at first, and knows no process of the server's."""
    (row,) = connection.execute("select pg_backend_pid() as process").fetchall()
    return bool(row["process"] != connection.info.backend_pid)


@contextlib.contextmanager
def _cut(connection: Connection, deadlines: Deadlines) -> Iterator[None]:
    """Shut the connection's socket down when the block takes too long; who waits for an answer finds it closed."""
    # A descriptor of its own: that of the connection may be closed meanwhile, and be another one's then.
    with (
        socket.socket(fileno=os.dup(connection.fileno())) as twin,
        deadlines.watch(lambda: _shut(twin)),
    ):
        yield


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@functools.lru_cache(maxsize=256)
def _translated(sql: str, now_is_known: bool) -> Any:
    """Put a statement into psycopg's words: %(name)s for :name."""
    if not now_is_known:
        sql = re.sub(r":now\b", NOW, sql)
    return re.sub(r"(?<!:):([a-z_]\w*)", r"%(\1)s", sql.replace("%", "%%"))


def _without_password(location: str) -> str:
    parts = urlsplit(location)
    return f"postgresql://{parts.hostname or ''}{parts.path}"
