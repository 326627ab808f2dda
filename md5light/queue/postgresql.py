"""Many machines: a PostgreSQL server, reached through psycopg.

A pooler that gives each transaction another session (PgBouncer in transaction mode) may stand
between: settings are local to their transaction, and locks end at the commit. Only without a pooler
are statements prepared, the server's timeouts set, and workers woken by LISTEN; else they poll.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psycopg
from psycopg import errors

from md5light.config import database_url
from md5light.errors import DatabaseError, DatabaseUnavailable, NotDone, OldSchema
from md5light.queue.commits import Collision, SharedCommits
from md5light.queue.connections import Connection, Connections, Turns, connect
from md5light.queue.database import Row, Transaction
from md5light.queue.listener import CHANNEL

T = TypeVar("T")

#: the most connections of one process; one of them writes, and threads take turns
CONNECTIONS = 4

#: how long a transaction waits for a lock and for any statement, and how long the server keeps the
#: locks of a silent client
LIMITS = {
    "lock_timeout": "5s",
    "statement_timeout": "8s",
    "idle_in_transaction_session_timeout": "10s",
}

#: errors after which PostgreSQL has given up the transaction for the sake of another one
COLLISIONS = (errors.DeadlockDetected, errors.SerializationFailure)

#: what the server says of rights and missing objects: the operator's, or of a restore under way
UNUSABLE = (
    errors.InsufficientPrivilege,
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.InvalidSchemaName,
)

#: name of the lock of transactions that migrate
MIGRATION = "schema"

#: room for new versions of a row in its page, and dead ones removed soon: each job's row is written
#: several times
TUNE = """
    alter table jobs set (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02,
        autovacuum_vacuum_cost_delay = 0)
"""

#: a lock has a number: the hash of its name
LOCK = """
    select pg_advisory_xact_lock_shared(hashtextextended(:name, 5)) where :shared
    union all select pg_advisory_xact_lock(hashtextextended(:name, 5)) where not :shared
"""
TRY_LOCK = """
    select name
    from unnest(cast(:names as text[]), cast(:shared as boolean[])) as wanted (name, shared)
    where case when shared then pg_try_advisory_xact_lock_shared(hashtextextended(name, 5))
        else pg_try_advisory_xact_lock(hashtextextended(name, 5)) end
"""

NOW = "extract(epoch from now())::double precision"

#: what a connection is to, for messages
ABOUT = """
    select current_schema() as schema, quote_ident(current_database()) as database,
        quote_ident(current_user) as role, current_setting('server_encoding') as encoding,
        has_schema_privilege(current_schema(), 'create') as may_create
"""


class PostgreSQLTransaction(Transaction):
    """A transaction beside those of other connections."""

    writers = 16
    placeholder = "%s"

    def __init__(self, connection: Connection, now: float | None = None) -> None:
        super().__init__()
        self._cursor = connection.cursor()
        self._now = now
        #: the names that it has locked, and whether it shares them
        self._locked: dict[str, bool] = {}

    def all(self, sql: str, **parameters: object) -> list[Row]:
        return self._execute(sql, parameters).fetchall()

    def run(self, sql: str, **parameters: object) -> int:
        return self._execute(sql, parameters).rowcount

    def run_many(self, sql: str, rows: list[Row]) -> list[int]:
        """Run a statement for each row in one round trip (libpq's pipeline mode)."""
        if len(rows) <= 1:  # a pipeline costs more than it saves
            return [self.run(sql, **row) for row in rows]
        named = [{**row, "now": self._now} for row in rows]
        self._cursor.executemany(_translated(sql, self._now is not None), named, returning=True)
        counts = [self._cursor.rowcount]
        while self._cursor.nextset():
            counts.append(self._cursor.rowcount)
        return counts

    def lock(self, names: Iterable[str], shared: Collection[str] = ()) -> None:
        wanted = {name: name in shared for name in sorted(set(names))}
        self.run_many(LOCK, [{"name": name, "shared": wanted[name]} for name in wanted])
        self._note_locks(wanted)

    def try_lock(self, names: Iterable[str], shared: Collection[str] = ()) -> set[str]:
        wanted = {name: name in shared for name in names}
        missing = [name for name in wanted if not self._holds(name, shared=wanted[name])]
        if missing:
            how = [wanted[name] for name in missing]
            rows = self.all(TRY_LOCK, names=missing, shared=how)
            self._note_locks({row["name"]: wanted[row["name"]] for row in rows})
        return {name for name in wanted if self._holds(name, shared=wanted[name])}

    def shares(self, name: str) -> bool:
        return self._locked.get(name, False)

    def now(self) -> float:
        if self._now is None:
            self._now = float(self.all(f"select {NOW} as now")[0]["now"])
        return self._now

    def _holds(self, name: str, *, shared: bool) -> bool:
        """Tell whether it has locked this name, and has it for itself unless `shared` will do."""
        return name in self._locked and (shared or not self._locked[name])

    def _note_locks(self, shared: dict[str, bool]) -> None:
        for name, is_shared in shared.items():
            self._locked[name] = is_shared and self._locked.get(name, True)

    def _run_all(self, sql: str, values: list[tuple[object, ...]]) -> int:
        self._cursor.executemany(sql, values)
        return self._cursor.rowcount

    def _execute(self, sql: str, parameters: dict[str, object]) -> psycopg.Cursor[Row]:
        if self._now is not None and ":now" in sql:
            parameters["now"] = self._now
        return self._cursor.execute(_translated(sql, self._now is not None), parameters)


class PostgreSQL(SharedCommits):
    """Access to a PostgreSQL database: reads side by side, one commit for all waiting writes.

    `durable` means synchronous_commit.
    """

    foreign = (
        "belongs to another program; give md5light a schema of its own: CREATE SCHEMA md5light, "
        "and ?options=-csearch_path%3Dmd5light at the end of the URL"
    )

    def __init__(
        self,
        location: str,
        *,
        durable: bool,
        migrate: bool = True,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__()
        self._location = _checked(location)
        self.name = _without_password(location)
        self._clock = clock
        limits = {"synchronous_commit": "on" if durable else "off", **LIMITS}
        settings = "; ".join(f"set local {name} = '{value}'" for name, value in limits.items())
        self._begin = f"begin; {settings}; select {NOW}"
        self._connections = Connections(self._location)
        self._readers = Turns(CONNECTIONS - 1)
        self._open(migrate)

    def close(self) -> None:
        self._connections.close()

    def read(self, work: Callable[[Transaction], T]) -> T:
        with self._reporting(), self._readers:
            for last in (False, True):
                with self._connections.lend(fresh=last) as connection:
                    now = self._clock and self._clock()
                    try:
                        return work(PostgreSQLTransaction(connection, now))
                    except psycopg.OperationalError:
                        if last or not connection.closed:  # an idle one may have been cut
                            raise
        raise AssertionError("the last try returns or raises")

    def compact(self) -> int:
        raise NotDone(f"database {self.name}: PostgreSQL reuses its space by itself (autovacuum)")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[PostgreSQLTransaction]:
        with self._reporting(), contextlib.ExitStack() as stack:
            connection = stack.enter_context(self._connections.lend())
            try:
                now = self._start(connection)
            except psycopg.OperationalError:
                if not connection.closed:
                    raise
                connection = stack.enter_context(self._connections.lend(fresh=True))
                now = self._start(connection)
            try:
                yield PostgreSQLTransaction(connection, now)
                connection.execute("commit")
            except BaseException:
                with contextlib.suppress(psycopg.Error):  # then the connection is not kept
                    connection.execute("rollback")
                raise

    def _start(self, connection: Connection) -> float:
        """Begin, and return the transaction's time, in one round trip."""
        cursor = connection.execute(self._begin, prepare=False)
        while cursor.nextset():
            pass
        (row,) = cursor.fetchall()
        return self._clock() if self._clock else float(next(iter(row.values())))

    def _committed(self, transaction: Transaction, writes: int) -> None:  # noqa: ARG002 - SQLite's
        """Wake all listeners, after the transaction: commits with a NOTIFY wait for each other."""
        sql = "select pg_notify(:channel, '')"
        if transaction.rings:
            with contextlib.suppress(DatabaseUnavailable):
                self.read(lambda notifying: notifying.all(sql, channel=CHANNEL))

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Raise DatabaseUnavailable for an unusable database; mistakes of ours stay as they are."""
        try:
            yield
        except psycopg.Error as error:
            ours = (psycopg.IntegrityError, psycopg.ProgrammingError, psycopg.DataError)
            if isinstance(error, ours) and not isinstance(error, UNUSABLE):
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            kind = Collision if isinstance(error, COLLISIONS) else DatabaseUnavailable
            raise kind(f"database {self.name}: {reason}") from error

    def _open(self, migrate: bool) -> None:
        """Prepare the schema, on a connection without limits: that may take its time."""
        try:
            with (
                self._reporting(),
                connect(self._location) as connection,
                connection.transaction(),
            ):
                self._prepare(PostgreSQLTransaction(connection), migrate)
        except DatabaseUnavailable as error:
            raise DatabaseError(error.message) from None

    def _prepare(self, transaction: Transaction, migrate: bool) -> None:
        about = transaction.one(ABOUT) or {}
        if problem := _unfit(about):
            raise DatabaseError(f"database {self.name}: {problem}")
        try:
            if migrate:
                self._migrate_locked(transaction)
            else:
                self._require_schema(transaction)
        except OldSchema as error:
            if about["may_create"]:
                raise
            raise DatabaseError(f"database {self.name}: {_no_right(about)}") from error
        except (*UNUSABLE, errors.ReadOnlySqlTransaction) as error:
            raise DatabaseError(f"database {self.name}: {_remedy(error, about)}") from None

    def _migrate_locked(self, transaction: Transaction) -> None:
        transaction.lock([MIGRATION])
        new = not self._tables(transaction)
        self._migrate(transaction)
        if new:
            transaction.run(TUNE)

    def _tables(self, transaction: Transaction) -> set[str]:
        sql = "select tablename from pg_tables where schemaname = current_schema()"
        return {row["tablename"] for row in transaction.all(sql)}


def _unfit(about: Row) -> str:
    """Return why a database can't hold the queue, and the remedy; empty: it can."""
    if about["encoding"] != "UTF8":
        return (
            f"its encoding is {about['encoding']}, not UTF8; make another one: "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )
    if about["schema"] is None:
        return (
            "no schema of its search_path exists, or may be used; "
            f"CREATE SCHEMA … AUTHORIZATION {about['role']}"
        )
    return ""


def _no_right(about: Row) -> str:
    return (
        f"{about['role']} may not create tables in schema {about['schema']}; "
        f"ALTER DATABASE {about['database']} OWNER TO {about['role']}"
    )


def _remedy(error: psycopg.Error, about: Row) -> str:
    """Return what the server refused while the schema was prepared, and the remedy."""
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return "is read-only; name the primary server, or add ?target_session_attrs=read-write"
    refused = error.diag.message_primary or type(error).__name__
    if refused.startswith("permission denied for schema"):
        return _no_right(about)
    return f"{refused}; REASSIGN OWNED BY … TO {about['role']}"


@functools.lru_cache(maxsize=256)
def _translated(sql: str, now_is_known: bool) -> Any:
    """Write a statement as psycopg takes it: %(name)s for :name."""
    if not now_is_known:
        sql = re.sub(r":now\b", NOW, sql)
    return re.sub(r"(?<!:):([a-z_]\w*)", r"%(\1)s", sql.replace("%", "%%"))


def _checked(location: str) -> str:
    """Return the URL if libpq can read it; its own messages would quote the password."""
    try:
        return database_url.checked(location)
    except ValueError as error:
        raise DatabaseError(f"database postgresql://…: {error}") from None


def _without_password(location: str) -> str:
    parts = urlsplit(location)
    return f"postgresql://{parts.hostname or ''}{parts.path}"
