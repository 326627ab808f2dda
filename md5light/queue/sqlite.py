"""One machine: an SQLite file, whose connections share commits."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from md5light.errors import DatabaseError, DatabaseUnavailable
from md5light.queue import bell
from md5light.queue.commits import SharedCommits
from md5light.queue.database import Row, Transaction

T = TypeVar("T")

#: seconds that a transaction waits for the write lock before it is given up
LOCK_SECONDS = 5.0

#: seconds between two tries for the lock: the first pause, which is less than a commit takes, and the longest
FIRST_PAUSE_SECONDS = 0.00005
LONGEST_PAUSE_SECONDS = 0.002

#: bytes of a page in a new file: a job changes little in some eight pages, each of which goes into the log whole
PAGE_SIZE = 2048

#: writes of a process after which the write-ahead log is written back into the file: each time costs four fsyncs
CHECKPOINT_WRITES = 400

#: pages of the log after which SQLite writes it back by itself: after large writes, such as a removal of old jobs
CHECKPOINT_PAGES = 8000

#: seconds that a process tries to write the log back whole; a long read (a backup) keeps it from that
RESTART_SECONDS = 0.02

#: bytes to which the write-ahead log is cut back after that
JOURNAL_SIZE_LIMIT = 16 * 1024 * 1024


#: what statements say for engines with more than one writer at a time
ROW_LOCK = " for update skip locked"


class SQLiteTransaction(Transaction):
    """A transaction that has the file's one write lock, or only reads."""

    writers = 1

    def __init__(self, connection: sqlite3.Connection, clock: Callable[[], float]) -> None:
        super().__init__()
        self._connection = connection
        self._clock = clock

    def all(self, sql: str, **parameters: object) -> list[Row]:
        return self._execute(sql, parameters).fetchall()

    def run(self, sql: str, **parameters: object) -> int:
        return self._execute(sql, parameters).rowcount

    def run_many(self, sql: str, rows: list[Row]) -> list[int]:
        return [self.run(sql, **row) for row in rows]

    def lock(self, names: Iterable[str]) -> None:
        """Do nothing: the file's write lock keeps all others out."""

    def try_lock(self, name: str) -> bool:  # noqa: ARG002 - see lock
        return True

    def now(self) -> float:
        return self._clock()

    def _execute(self, sql: str, parameters: dict[str, object]) -> sqlite3.Cursor:
        if ":now" in sql:
            parameters["now"] = self._clock()
        return self._connection.execute(sql.replace(ROW_LOCK, ""), parameters)


class SQLite(SharedCommits):
    """Access to an SQLite file: reads side by side, one commit for all waiting writes.

    `durable` is synchronous=FULL.
    """

    def __init__(
        self,
        path: str,
        *,
        durable: bool,
        create: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.path = Path(path)
        self.name = path
        self._durable = durable
        self._clock = clock
        self._readers: deque[sqlite3.Connection] = deque()
        self._writes_to_checkpoint = CHECKPOINT_WRITES
        try:
            if create:
                self._create_private()
            else:
                self.path.stat()
            self._writer = self._connect()
            with _closed_on_error(self._writer):
                self._writer.execute("pragma busy_timeout = 0")  # _patiently waits in its place
                with self._transaction() as transaction:
                    self._migrate(transaction)
        except (sqlite3.Error, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise DatabaseError(f"database {self.path}: {reason}") from None
        except DatabaseUnavailable as error:
            raise DatabaseError(str(error)) from None

    def close(self) -> None:
        while self._readers:
            self._readers.pop().close()
        self._writer.close()

    def read(self, work: Callable[[Transaction], T]) -> T:
        with self._reader() as connection:
            return work(SQLiteTransaction(connection, self._clock))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[SQLiteTransaction]:
        with self._reporting():
            _patiently(self._writer, "begin immediate", LOCK_SECONDS)
            try:
                yield SQLiteTransaction(self._writer, self._clock)
                self._writer.execute("commit")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("rollback")
                raise

    def _committed(self, transaction: Transaction, writes: int) -> None:
        if transaction.rings:
            bell.ring(self.path, transaction.rings)
        self._writes_to_checkpoint -= writes
        if self._writes_to_checkpoint <= 0:
            self._checkpoint()

    def _checkpoint(self) -> None:
        """Write the log back now and then, and let it begin anew.

        Left to itself, SQLite lets others write meanwhile, so that under load the log is never written back whole:
        it grows for ever, and each commit does the work again. So most is written back beside the others (passive),
        and the rest while nobody writes (restart).
        """
        self._writes_to_checkpoint = CHECKPOINT_WRITES
        with contextlib.suppress(
            sqlite3.Error
        ):  # what matters is committed; the next time may be a better one
            self._writer.execute("pragma wal_checkpoint(passive)")
            _patiently(self._writer, "pragma wal_checkpoint(restart)", RESTART_SECONDS)

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        with self._reporting():
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = self._connect()
            try:
                yield connection
            finally:
                self._readers.append(connection)

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn what an unusable file raises into DatabaseUnavailable; our own mistakes stay what they are."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise
        except sqlite3.Error as error:
            raise DatabaseUnavailable(f"database {self.path}: {error}") from error

    def _create_private(self) -> None:
        """Make a new file readable by its owner alone: it holds mail addresses."""
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = _row
        with _closed_on_error(connection):
            connection.execute(
                f"pragma page_size = {PAGE_SIZE}"
            )  # of a file that has pages it stays what it is
            _patiently(connection, "pragma journal_mode = wal", LOCK_SECONDS)
            connection.execute(f"pragma synchronous = {'full' if self._durable else 'normal'}")
            connection.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
            connection.execute(f"pragma journal_size_limit = {JOURNAL_SIZE_LIMIT}")
            connection.execute("pragma foreign_keys = on")
        return connection

    def _tables(self, transaction: Transaction) -> set[str]:
        return {
            row["name"]
            for row in transaction.all("select name from sqlite_master where type = 'table'")
        }


@contextlib.contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _patiently(connection: sqlite3.Connection, statement: str, seconds: float) -> None:
    """Run a statement that needs a lock, trying often: SQLite's own waiting grows to 100 ms a try."""
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE_SECONDS
    while not _done(connection, statement, last=time.monotonic() > deadline):
        time.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - not a secret
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _done(connection: sqlite3.Connection, statement: str, *, last: bool) -> bool:
    """Try a statement; False when a lock kept it from its end, which at the `last` try is an error."""
    try:
        row = connection.execute(statement).fetchone()
    except sqlite3.OperationalError as error:
        if last or "locked" not in str(error):
            raise
        return False
    return (
        last or row is None or not row.get("busy")
    )  # a checkpoint is not an error where others are in its way


def _row(cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> Row:
    return {column[0]: value for column, value in zip(cursor.description, values, strict=True)}
