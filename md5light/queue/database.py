"""The interface between the queue and its database.

SQL is written once, with `:name` parameters, in the dialect that all engines share; `:now` is the
database's clock. The differences between engines are in their classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from md5light.errors import DatabaseError, DatabaseUnavailable, OldSchema
from md5light.queue.baton import Baton

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - the type of an item that is written
Row = dict[str, Any]

INSERT = "insert into {table} ({columns}) values ({values}) on conflict do nothing"

#: the migrations, in the order of their names: file number N leads from version N - 1 to N
SCHEMA = Path(__file__).with_name("schema")


class Transaction(ABC):
    """The statements between begin and commit, or those of a read."""

    #: how many transactions may write at a time; a counter that all of them change has so many rows
    writers: int

    #: the placeholder of a value by position
    placeholder: str

    def __init__(self) -> None:
        #: how many idle workers to wake after the commit
        self.rings = 0
        #: whether the engine should give space back to the file system after the commit
        self.trims = False

    @abstractmethod
    def all(self, sql: str, **parameters: object) -> list[Row]:
        """Run one statement and return its rows."""

    def one(self, sql: str, **parameters: object) -> Row | None:
        """Run one statement and return its first row, None without any."""
        rows = self.all(sql, **parameters)
        return rows[0] if rows else None

    @abstractmethod
    def run(self, sql: str, **parameters: object) -> int:
        """Run one statement and return how many rows it changed."""

    @abstractmethod
    def run_many(self, sql: str, rows: list[Row]) -> list[int]:
        """Run one statement for each of `rows`; return how many rows each run changed."""

    def insert(self, table: str, rows: Sequence[Row]) -> int:
        """Insert the rows, all of the same columns, whose keys are not there yet; return how many.

        Values by position take two thirds of the time of values by name.
        """
        if not rows:
            return 0
        columns, values = ", ".join(rows[0]), ", ".join([self.placeholder] * len(rows[0]))
        return self._run_all(
            INSERT.format(table=table, columns=columns, values=values),
            [tuple(row.values()) for row in rows],
        )

    @abstractmethod
    def _run_all(self, sql: str, values: list[tuple[object, ...]]) -> int:
        """Run one statement for each of `values`; return how many rows that changed in all."""

    @abstractmethod
    def lock(self, names: Iterable[str], shared: Collection[str] = ()) -> None:
        """Lock each name until the commit, in sorted order; wait for transactions that hold it.

        Transactions may hold those in `shared` at the same time, if all of them share them.
        """

    @abstractmethod
    def try_lock(self, names: Iterable[str], shared: Collection[str] = ()) -> set[str]:
        """Lock those names as `lock` does for which it need not wait; return them."""

    @abstractmethod
    def shares(self, name: str) -> bool:
        """Tell whether others may hold this lock, too."""

    def trim(self) -> None:
        """Give some space of removed rows back once this is committed, if the engine doesn't."""
        self.trims = True

    def ring(self) -> None:
        """Wake an idle worker once this transaction is committed."""
        self.rings += 1

    @abstractmethod
    def now(self) -> float:
        """Return the time by which rows of this database are due, in Unix seconds."""


class Listener(ABC):
    """Lets idle workers sleep until there is work.

    A pool makes one before it forks, and its processes share it.
    """

    #: by which they write one after the other, where an engine needs that
    baton: Baton | None = None

    @abstractmethod
    def wait(self, timeout: float, stop: int) -> None:
        """Return at the next ring, when the descriptor `stop` is readable, or after `timeout` s."""

    @abstractmethod
    def close(self) -> None: ...


class Database(ABC):
    """One process's access to the rows. Open it after a fork, never before."""

    #: names the database in messages, without any password
    name: str

    #: its file was deleted or replaced: reads and writes fail until a new process opens it
    replaced = False

    @abstractmethod
    def close(self) -> None:
        """Close every connection; no thread may be using one."""

    @abstractmethod
    def read(self, work: Callable[[Transaction], T]) -> T:
        """Return the result of `work`; never waits for a writer. Raises DatabaseUnavailable."""

    @abstractmethod
    def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a transaction of its own and return its result after the commit.

        `work` may be run again after a collision, so it must do nothing but read and write through
        its Transaction. Raises DatabaseUnavailable when nothing was stored.
        """

    @abstractmethod
    def write_together(self, work: Callable[[Transaction, list[I]], list[T]], item: I) -> T:
        """Write as `write` does, in one transaction with the items of other threads.

        It gathers the items that threads bring for the same `work` while another transaction is
        under way. `work` returns a result for each item.
        """

    #: the reason why tables of another program are refused
    foreign = "belongs to another program"

    @abstractmethod
    def _tables(self, transaction: Transaction) -> set[str]:
        """Return the names of the tables there are."""

    @abstractmethod
    def compact(self) -> int:
        """Give unused space back to the file system; return how many bytes that were.

        It needs the database for itself for some seconds a gigabyte. Raises NotDone where the
        engine does it by itself.
        """

    def check_schema(self, transaction: Transaction) -> None:
        """Raise DatabaseUnavailable when another program has changed the schema."""
        try:
            self._require_schema(transaction)
        except DatabaseError as error:
            raise DatabaseUnavailable(error.message) from None

    def _require_schema(self, transaction: Transaction) -> None:
        """Raise DatabaseError unless the schema is of this program's version."""
        found, needed = self._version(transaction), len(_versions())
        if found != needed:
            remedy = (
                "start md5light-server or md5light-worker, which bring it up to date"
                if found < needed
                else "it is of a newer md5light"
            )
            kind = OldSchema if found < needed else DatabaseError
            raise kind(
                f"database {self.name}: has schema {found}, not {needed} as this program: {remedy}"
            )

    def _migrate(self, transaction: Transaction) -> None:
        """Bring the schema to this program's version; of several programs that start one does."""
        versions = _versions()
        current = self._version(transaction)
        if current == 0:
            transaction.run("create table schema_version (version bigint not null)")
            transaction.run("insert into schema_version values (0)")
        if current > len(versions):
            raise DatabaseError(
                f"database {self.name}: schema {current} of a newer md5light"
                f" (this one knows {len(versions)})"
            )
        for number, file in enumerate(versions[current:], start=current + 1):
            for statement in _statements(file.read_text(encoding="utf-8")):
                transaction.run(statement)
            transaction.run("update schema_version set version = :number", number=number)

    def _version(self, transaction: Transaction) -> int:
        """Return the version of the schema, 0 where there is no table yet."""
        tables = self._tables(transaction)
        if not tables:
            return 0
        if not tables >= {"schema_version", "jobs"}:
            raise DatabaseError(f"database {self.name}: {self.foreign}")
        row = transaction.one("select version from schema_version")
        return int(row["version"]) if row else 0


def _versions() -> list[Path]:
    """Return the migrations in their order."""
    return sorted(SCHEMA.glob("*.sql"))


def _statements(script: str) -> list[str]:
    """Split a migration, whose statements each end with a semicolon at the end of a line."""
    return [statement for statement in script.split(";\n") if statement.strip()]
