"""Group commit: if several threads of a process write at the same time, one commits for all.

A commit costs the same for one write and for many. A transaction has writes of one kind only, so
that it can take their locks in sorted order before it changes anything.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from md5light.errors import DatabaseUnavailable
from md5light.queue.database import Database, Transaction

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - the type of an item that is written

#: runs of a transaction that collides with others each time, before its writes fail
TRIES = 5


class Collision(DatabaseUnavailable):
    """The engine aborted this transaction in favour of another one; it can run again at once."""


class _Write(Generic[I, T]):
    """A write that waits for its commit."""

    def __init__(self, work: Callable[[Transaction, list[I]], list[T]], item: I) -> None:
        self.work = work
        self.item = item
        self.done = False
        self.result: T
        self.error: Exception | None = None
        #: held until the write is done, or its thread's turn to commit has come
        self.pending = threading.Lock()
        self.pending.acquire()

    def end(self, result: Any = None, error: Exception | None = None) -> None:
        self.done, self.result, self.error = True, result, error
        self.pending.release()


class SharedCommits(Database):
    """A database that gathers writes while a transaction is under way."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._waiting: list[_Write[Any, Any]] = []
        #: a thread commits, or has been told to
        self._committing = False

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[Transaction]:
        """Begin, and commit at the end of the block or roll back.

        Raises Collision, or DatabaseUnavailable.
        """

    @abstractmethod
    def _committed(self, transaction: Transaction, writes: int) -> None:
        """Do the work after a commit of `writes` writes, before the next begins; never fails."""

    def write(self, work: Callable[[Transaction], T]) -> T:
        return self.write_together(lambda transaction, _: [work(transaction)], None)

    def write_together(self, work: Callable[[Transaction, list[I]], list[T]], item: I) -> T:
        write = _Write(work, item)
        with self._changing:
            self._waiting.append(write)
            waits, self._committing = self._committing, True
        if waits:
            write.pending.acquire()
        if not write.done:
            self._commit_next()
            self._pass_on()
        if write.error is not None:
            raise write.error
        return write.result

    def _pass_on(self) -> None:
        """Let the thread of the oldest waiting write commit next."""
        with self._changing:
            self._committing = bool(self._waiting)
            if self._waiting:
                self._waiting[0].pending.release()

    def _commit_next(self) -> None:
        """Commit the oldest waiting write and all others of its kind."""
        writes: list[_Write[Any, Any]] = []
        try:
            self._commit(writes)
        except Exception as error:  # noqa: BLE001 - raised in the threads that wait for it
            if len(writes) > 1 and not isinstance(error, DatabaseUnavailable):
                self._commit_each(writes)
            else:
                # If no transaction could begin, all writes fail: other kinds would wait again.
                for write in writes or self._take():
                    write.end(error=error)

    def _commit_each(self, writes: list[_Write[Any, Any]]) -> None:
        """Commit each write alone, so that one that raises does not fail its neighbours."""
        for write in writes:
            try:
                self._commit([write])
            except Exception as error:  # noqa: BLE001 - raised in the thread it is of
                write.end(error=error)

    def _commit(self, writes: list[_Write[Any, Any]]) -> None:
        """Run `writes` in one transaction; an empty list is filled once that has begun."""
        for tries_left in reversed(range(TRIES)):
            try:
                with self._transaction() as transaction:
                    if not writes:
                        writes += self._take(self._waiting[0].work)
                    results = writes[0].work(transaction, [write.item for write in writes])
                break
            except Collision:
                if not tries_left:
                    raise
        for write, result in zip(writes, results, strict=True):
            write.end(result)
        self._committed(transaction, len(writes))

    def _take(self, work: object = None) -> list[_Write[Any, Any]]:
        """Take the waiting writes of one kind, or all, in their order."""
        with self._changing:
            taken = [write for write in self._waiting if work in (None, write.work)]
            self._waiting = [write for write in self._waiting if work not in (None, write.work)]
        return taken
