"""What the rows need of whatever database they lie in.

SQL is written once, with `:name` parameters, in words that mean the same to every engine; `:now` is the database's
clock. What differs between engines is in the class of the engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from md5light.errors import DatabaseError, DatabaseUnavailable

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - what is written
Row = dict[str, Any]

SCHEMA = Path(__file__).with_name("schema")


class Transaction(ABC):
    """What may be done between begin and commit, or in a read."""

    #: how many may write at a time; what all of them change is spread over so many rows
    writers: int

    def __init__(self) -> None:
        #: events that are counted until the commit, by kind and time: how many, with how many bytes and seconds
        self.counts: dict[tuple[str, float], tuple[int, int, float]] = {}
        #: done once, however often it was asked for, before the commit
        self._closing: dict[Callable[[Transaction], object], None] = {}
        #: new jobs of which idle workers are told after the commit
        self.rings = 0
        #: whether the write that is under way may begin anew in a later transaction: others came before it in this
        #: one, and it has changed nothing yet
        self.may_be_put_off = False

    def finish(self) -> None:
        """Do what was put off until now, before the commit."""
        for work in self._closing:
            work(self)

    def before_commit(self, work: Callable[[Transaction], object]) -> None:
        """Do `work` once more than all else is done, once for all writes that ask for it."""
        self._closing[work] = None

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
    def run_many(self, sql: str, rows: list[Row]) -> int:
        """Run one statement with each of `rows` as its parameters and return how many rows were changed in all."""

    @abstractmethod
    def lock(self, name: str, *, wait: bool = True) -> bool:
        """Keep other transactions from locking `name` until the commit; False when one has, unless we `wait`."""

    def ring(self) -> None:
        """Wake an idle worker once this transaction is committed."""
        self.rings += 1

    @abstractmethod
    def now(self) -> float:
        """Tell the time by which the rows of this database are due, in Unix seconds."""


class Listener(ABC):
    """Lets idle workers sleep until there is work.

    A pool makes one before it forks, and its processes share it.
    """

    @abstractmethod
    def wait(self, timeout: float, stop: int) -> None:
        """Return at the next ring, when the file descriptor `stop` is readable, or after `timeout` seconds."""

    @abstractmethod
    def close(self) -> None: ...


class Database(ABC):
    """One process's access to the rows. Open it after a fork, never before.

    Opening brings the schema up to date, and raises DatabaseError when the database can't be opened, isn't
    md5light's, or is of a newer version.
    """

    #: names the database in messages, without any password
    name: str

    @abstractmethod
    def close(self) -> None:
        """Close every connection; no thread may be using one."""

    @abstractmethod
    def read(self, work: Callable[[Transaction], T]) -> T:
        """Return what `work` finds; never waits for a writer. Raises DatabaseUnavailable."""

    @abstractmethod
    def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a transaction and return its result once that is committed.

        `work` may be run twice, so it must do nothing but read and write through its Transaction.
        Raises DatabaseUnavailable when nothing was stored.
        """

    @abstractmethod
    def write_together(self, work: Callable[[Transaction, list[I]], list[T]], item: I) -> T:
        """Write as `write` does, with whatever items other threads bring for the same `work` at the same moment.

        `work` returns a result for each item. Where it raises, it is run again for each item alone.
        """

    @abstractmethod
    def _tables(self, transaction: Transaction) -> set[str]:
        """Return the names of the tables there are."""

    def check_schema(self, transaction: Transaction) -> None:
        """Raise DatabaseUnavailable when the schema has meanwhile become another than this program's."""
        current = self._version(transaction)
        if current != len(_versions()):
            raise DatabaseUnavailable(
                f"database {self.name}: has schema {current}, not this program's"
            )

    def _migrate(self, transaction: Transaction) -> None:
        """Bring the schema to this program's version; of several programs that start together one does it."""
        versions = _versions()
        current = self._version(transaction)
        if current > len(versions):
            raise DatabaseError(
                f"database {self.name}: schema {current} of a newer md5light (this one knows {len(versions)})"
            )
        for number, file in enumerate(versions[current:], start=current + 1):
            for statement in _statements(file.read_text(encoding="utf-8")):
                transaction.run(statement)
            transaction.run("update schema_version set version = :number", number=number)

    def _version(self, transaction: Transaction) -> int:
        tables = self._tables(transaction)
        if not tables >= {"schema_version", "jobs"}:
            if tables:
                raise DatabaseError(f"database {self.name}: belongs to another program")
            transaction.run("create table schema_version (version bigint not null)")
            transaction.run("insert into schema_version values (0)")
        row = transaction.one("select version from schema_version")
        return int(row["version"]) if row else 0


def _versions() -> list[Path]:
    """Return what leads to each version of the schema from the one before."""
    return sorted(SCHEMA.glob("*.sql"))


def _statements(script: str) -> list[str]:
    """Split a schema file, whose statements each end with a semicolon at the end of a line."""
    return [statement for statement in script.split(";\n") if statement.strip()]
