"""Shared commits: of the threads of a process that write at the same moment, one commits for all.

A commit costs the same for one and for many, and nobody starves as where each would wait for a lock of its own.
"""

from __future__ import annotations

import itertools
import threading
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from md5light.errors import DatabaseUnavailable
from md5light.queue.database import Database, Transaction

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - what is written


class Outage(DatabaseUnavailable):
    """Nothing at all can be written now: whatever waits fails together, or each would wait anew."""


class Later(Exception):
    """A write must not wait beside those that share its transaction; it has changed nothing and begins anew."""


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
    """A database that gathers writes while one is under way."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._waiting: list[_Write[Any, Any]] = []
        #: a thread commits, or has been told to
        self._committing = False

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[Transaction]:
        """Begin, and commit at the end of the block or roll back; raises DatabaseUnavailable, Outage among it."""

    @abstractmethod
    def _committed(self, transaction: Transaction, writes: int) -> None:
        """Do what follows a commit of so many writes, while no other begins; never fails."""

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
            self._commit(self._take_waiting)
            self._pass_on()
        if write.error is not None:
            raise write.error
        return write.result

    def _take_waiting(self) -> list[_Write[Any, Any]]:
        with self._changing:
            writes, self._waiting = self._waiting, []
        return writes

    def _pass_on(self) -> None:
        """Let the first of those that came meanwhile commit for all of them."""
        with self._changing:
            self._committing = bool(self._waiting)
            if self._waiting:
                self._waiting[0].pending.release()

    def _commit(self, take: Callable[[], list[_Write[Any, Any]]]) -> None:
        """Run in one transaction what `take` gives once that has begun, and tell each write how it ended."""
        writes: list[_Write[Any, Any]] = []
        try:
            with self._transaction() as transaction:
                writes = take()
                results = _results(transaction, writes)
                transaction.finish()
        except Exception as error:  # noqa: BLE001 - each write keeps its error, and its thread raises it
            if len(writes) > 1 and not isinstance(error, Outage):
                for write in writes:  # one of them is at fault; the others shall not pay for it
                    self._commit(lambda write=write: [write])  # type: ignore[misc]
            else:  # without a transaction all fail together: to try each alone would only make each wait anew
                for write in writes or take():
                    write.end(error=error)
            return
        with self._changing:
            self._waiting[:0] = writes[len(results) :]
        for write, result in zip(writes, results, strict=False):  # what is put off has none
            write.end(result)
        self._committed(transaction, len(results))


def _results(transaction: Transaction, writes: list[_Write[Any, Any]]) -> list[Any]:
    """Run writes in their order, those of one kind together, up to one that has to be put off."""
    results: list[Any] = []
    for work, group in itertools.groupby(writes, key=lambda write: write.work):
        transaction.may_be_put_off = bool(results)
        try:
            results += work(transaction, [write.item for write in group])
        except Later:
            break
    return results
