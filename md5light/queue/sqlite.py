"""The engine for one machine: an SQLite file; the threads of a process share commits."""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import random
import re
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from md5light.errors import DatabaseError, DatabaseReplaced, DatabaseUnavailable
from md5light.owner import give_to_owner
from md5light.queue import bell
from md5light.queue.baton import Baton
from md5light.queue.commits import SharedCommits
from md5light.queue.database import Row, Transaction

T = TypeVar("T")

#: seconds that a transaction waits for the write lock before it fails
LOCK_SECONDS = 5.0

#: seconds between two tries for the lock: the first pause, less than a commit, and the longest
FIRST_PAUSE_SECONDS = 0.00005
LONGEST_PAUSE_SECONDS = 0.002

#: bytes of a page in a new file: a job changes little in some eight pages, and each page that
#: changes goes into the log whole
PAGE_SIZE = 2048

#: writes of a process after which it writes the log back into the file, at four fsyncs each time
CHECKPOINT_WRITES = 400

#: pages of the log after which SQLite writes it back by itself: after large writes, such as a purge
CHECKPOINT_PAGES = 8000

#: seconds for which a process tries to write the whole log back; a long read (a backup) prevents it
RESTART_SECONDS = 0.02

#: bytes to which the log is truncated after that
JOURNAL_SIZE_LIMIT = 16 * 1024 * 1024

#: free pages given back to the file system by one purge
TRIMMED_PAGES = 1000

#: the first value that a checkpoint returns when a lock prevented it
BUSY = 1

#: the name of a value in a statement
NAME = re.compile(r":([a-z_]\w*)")

#: part of statements that only engines with several writers understand
ROW_LOCK = " for update skip locked"


class SQLiteTransaction(Transaction):
    """A transaction that holds the file's write lock, or only reads."""

    writers = 1
    placeholder = "?"

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        super().__init__()
        self._connection = connection
        self._now = now

    def all(self, sql: str, **parameters: object) -> list[Row]:
        cursor = self._execute(sql, parameters)
        found = cursor.fetchall()
        if not found:  # then the names of columns need not be read
            return []
        columns = [column[0] for column in cursor.description]
        return [dict(zip(columns, values, strict=True)) for values in found]

    def run(self, sql: str, **parameters: object) -> int:
        return self._execute(sql, parameters).rowcount

    def run_many(self, sql: str, rows: list[Row]) -> list[int]:
        if not rows:  # often there is nothing of a kind to write
            return []
        by_position, values = _by_position(sql)
        execute, now = self._connection.execute, {"now": self._now}
        return [execute(by_position, values(row | now)).rowcount for row in rows]

    def lock(self, names: Iterable[str], shared: Collection[str] = ()) -> None:
        """Do nothing: the file's write lock excludes all other writers."""

    def try_lock(
        self,
        names: Iterable[str],
        shared: Collection[str] = (),  # noqa: ARG002 - nothing is locked
    ) -> set[str]:
        return set(names)

    def shares(self, name: str) -> bool:  # noqa: ARG002 - it shares nothing
        return False

    def now(self) -> float:
        return self._now

    def _run_all(self, sql: str, values: list[tuple[object, ...]]) -> int:
        return self._connection.executemany(sql, values).rowcount

    def _execute(self, sql: str, parameters: dict[str, object]) -> sqlite3.Cursor:
        parameters["now"] = self._now
        by_position, values = _by_position(sql)
        return self._connection.execute(by_position, values(parameters))


class SQLite(SharedCommits):
    """Access to an SQLite file: reads side by side, one commit for all waiting writes.

    `durable` means synchronous=FULL. Processes with the same `baton` write one after the other.
    """

    def __init__(
        self,
        path: str,
        *,
        durable: bool,
        create: bool = True,
        migrate: bool = True,
        clock: Callable[[], float] = time.time,
        baton: Baton | None = None,
    ) -> None:
        super().__init__()
        self.path = Path(path)
        self.name = path
        self._reporting = _Reporting(path)
        self._durable = durable
        self._clock = clock
        self._baton = baton or contextlib.nullcontext()
        self._readers: deque[sqlite3.Connection] = deque()
        self._writes_to_checkpoint = CHECKPOINT_WRITES
        #: the file and its log; SQLite keeps that beside the target of a link
        self._file, self._log = os.fspath(self.path), f"{os.path.realpath(self.path)}-wal"
        #: device and inode of both, as they were opened
        self._identity: tuple[int, ...] = ()
        try:
            self._open(create, migrate)
        except (sqlite3.Error, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise DatabaseError(f"database {self.path}: {reason}") from None
        except DatabaseUnavailable as error:
            raise DatabaseError(error.message) from None

    def close(self) -> None:
        while self._readers:
            self._readers.pop().close()
        self._writer.close()

    def read(self, work: Callable[[Transaction], T]) -> T:
        self._check_identity()
        with self._reader() as connection:
            return work(SQLiteTransaction(connection, self._clock()))

    def compact(self) -> int:
        with self._reporting:
            before = self._size_without_log()
            # From now on pages are given back after each purge, as in new files.
            self._writer.execute("pragma auto_vacuum = incremental")
            _retry(self._writer, "vacuum", LOCK_SECONDS)
            return before - self._size_without_log()

    def _size_without_log(self) -> int:
        _retry(self._writer, "pragma wal_checkpoint(truncate)", LOCK_SECONDS)
        return self.path.stat().st_size

    def _open(self, create: bool, migrate: bool) -> None:
        if create:
            self._create_private()
        else:
            self.path.stat()
        self._writer = self._connect()
        with _closed_on_error(self._writer):
            if migrate:
                self._set_up_file()
            self._writer.execute("pragma busy_timeout = 0")  # _retry waits in its place
            if migrate:
                with self._transaction() as transaction:
                    self._migrate(transaction)
            else:
                self._require_schema(SQLiteTransaction(self._writer, self._clock()))
            self._identity = self._find_identity()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[SQLiteTransaction]:
        self._check_identity()  # before others begin to wait for this transaction
        with self._reporting, self._baton:
            _retry(self._writer, "begin immediate", LOCK_SECONDS)
            try:
                yield SQLiteTransaction(self._writer, self._clock())
                self._writer.execute("commit")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("rollback")
                raise

    def _committed(self, transaction: Transaction, writes: int) -> None:
        if transaction.rings:
            bell.ring(self.path, transaction.rings)
        if transaction.trims:
            self._trim()
        self._writes_to_checkpoint -= writes
        if self._writes_to_checkpoint <= 0:
            self._checkpoint()

    def _trim(self) -> None:
        """Give some free pages back; a file made without auto_vacuum has none to give."""
        with contextlib.suppress(sqlite3.Error):  # another process writes: the next purge tries
            # execute() would stop after the first page.
            self._writer.executescript(f"pragma incremental_vacuum({TRIMMED_PAGES})")

    def _checkpoint(self) -> None:
        """Write the log back, so that it starts again at its beginning.

        SQLite's own checkpoints let others write at the same time, so that under load they never
        write the whole log back: it would grow without end, and each commit would repeat the work.
        So most is written back beside the others (passive), the rest while nobody writes (restart).
        """
        self._writes_to_checkpoint = CHECKPOINT_WRITES
        with contextlib.suppress(sqlite3.Error):  # all is committed; the next time may be better
            self._writer.execute("pragma wal_checkpoint(passive)")
            _retry(self._writer, "pragma wal_checkpoint(restart)", RESTART_SECONDS)

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        with self._reporting:
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = self._connect()
            try:
                yield connection
            finally:
                self._readers.append(connection)

    def _check_identity(self) -> None:
        """Raise DatabaseReplaced when the file or its log is no longer the one that was opened.

        A commit to a deleted file would be lost with the process.
        """
        if self._identity and self._find_identity() != self._identity:
            self.replaced = True
            raise DatabaseReplaced(
                f"database {self.path}: its file was deleted or replaced while it was in use"
            )

    def _find_identity(self) -> tuple[int, ...]:
        """Return device and inode of the file and of its log, nothing where one can't be found."""
        try:
            file, log = os.stat(self._file), os.stat(self._log)
        except OSError:
            return ()
        return file.st_dev, file.st_ino, log.st_dev, log.st_ino

    def _create_private(self) -> None:
        """Make a new file readable by its owner alone: it holds mail addresses.

        SQLite gives its log the owner and the mode of the file.
        """
        with contextlib.suppress(FileExistsError):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(self.path, flags, 0o600)
            try:
                give_to_owner(descriptor, self.path.parent)
            finally:
                os.close(descriptor)

    def _set_up_file(self) -> None:
        """Set the permanent properties of a new file; a file that has pages keeps its own."""
        self._writer.execute(f"pragma page_size = {PAGE_SIZE}")
        self._writer.execute("pragma auto_vacuum = incremental")
        _retry(self._writer, "pragma journal_mode = wal", LOCK_SECONDS)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
        )
        with _closed_on_error(connection):
            connection.execute(f"pragma synchronous = {'full' if self._durable else 'normal'}")
            connection.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
            connection.execute(f"pragma journal_size_limit = {JOURNAL_SIZE_LIMIT}")
            connection.execute("pragma foreign_keys = on")
        return connection

    def _tables(self, transaction: Transaction) -> set[str]:
        rows = transaction.all("select name from sqlite_master where type = 'table'")
        return {row["name"] for row in rows}


class _Reporting:
    """Raises DatabaseUnavailable for an unusable file; programming errors stay as they are."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        mistakes = (sqlite3.IntegrityError, sqlite3.ProgrammingError)
        if isinstance(error, sqlite3.Error) and not isinstance(error, mistakes):
            raise DatabaseUnavailable(f"database {self._path}: {error}") from error


@contextlib.contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _retry(connection: sqlite3.Connection, statement: str, seconds: float) -> None:
    """Run a statement that needs a lock, trying often: SQLite's own waits grow to 100 ms."""
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE_SECONDS
    while not _try(connection, statement, last=time.monotonic() > deadline):
        time.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - not a secret
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _try(connection: sqlite3.Connection, statement: str, *, last: bool) -> bool:
    """Run a statement; False where a lock prevented it, which at the `last` try is an error.

    For a checkpoint it is none.
    """
    try:
        row = connection.execute(statement).fetchone()
    except sqlite3.OperationalError as error:
        if last or "locked" not in str(error):
            raise
        return False
    return last or row is None or row[0] != BUSY


@functools.lru_cache(maxsize=256)
def _by_position(sql: str) -> tuple[str, Callable[[Row], Sequence[object]]]:
    """Return the statement with values by position, and the function that lists these values.

    They are bound in half the time of values by name.
    """
    names = list(dict.fromkeys(NAME.findall(sql)))
    by_position = NAME.sub(lambda name: f"?{names.index(name[1]) + 1}", sql.replace(ROW_LOCK, ""))
    if len(names) > 1:
        return by_position, operator.itemgetter(*names)
    return by_position, lambda parameters: [parameters[name] for name in names]
