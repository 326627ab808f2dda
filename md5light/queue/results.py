"""The results of the lines of batches, counted and line by line."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import chain, islice

from md5light.batch import Batch, Result
from md5light.lists.entry import Entry
from md5light.queue import lines
from md5light.queue.database import Database, Transaction
from md5light.queue.sweeps import PORTION

#: the least seconds for which a process keeps the result of a running batch
FRESH_SECONDS = 1.0

#: the part of a process's time that may go into reading one batch's results
READING_SHARE = 1 / 10

#: lines that a search for those of some statuses looks at in one transaction, at most
MAX_WINDOW = 50_000


class Results:
    """The results of one database's batches, with a cache for running ones."""

    def __init__(self, database: Database) -> None:
        self._database = database
        #: results of running batches, each with the time until which it is used
        self._kept: dict[str, tuple[float, Result]] = {}

    def of(self, batch: Batch) -> Result:
        """Return the result of a batch: exact once it has ended, else seconds old.

        The counts are those of one moment, so they always add up.
        """
        if batch.ended:
            return self._database.read(partial(_of_ended, batch_id=batch.id))
        began_at = time.monotonic()
        until, result = self._kept.get(batch.id, (0.0, Result()))
        if began_at >= until:
            result = self.read(batch.id)
            took = time.monotonic() - began_at
            self._kept = {
                batch_id: kept for batch_id, kept in self._kept.items() if kept[0] > began_at
            }
            until = began_at + took + max(FRESH_SECONDS, took / READING_SHARE)
            self._kept[batch.id] = until, result
        return result

    def read(self, batch_id: str) -> Result:
        """Read the result of a batch that runs."""
        return self._database.read(partial(lines.read_result, batch_id=batch_id))

    def forget(self, batch_id: str) -> None:
        """Read the result of this batch again when it is asked for."""
        self._kept.pop(batch_id, None)


class Entries:
    """Lines of a batch, to be iterated over as often as needed; each portion is a transaction."""

    def __init__(
        self,
        database: Database,
        batch_id: str,
        after: int,
        limit: int | None,
        statuses: Collection[str],
    ) -> None:
        self._database = database
        self._batch_id = batch_id
        self._after = after
        self._limit = limit
        self._statuses = statuses

    def __iter__(self) -> Iterator[Entry]:
        return islice(chain.from_iterable(self._portions()), self._limit)

    def _portions(self) -> Iterator[list[Entry]]:
        limit = PORTION if self._limit is None else min(PORTION, self._limit)
        after: int | None = self._after
        window = PORTION
        while after is not None:
            read = partial(self._reading(window), batch_id=self._batch_id, after=after, limit=limit)
            entries, after = self._database.read(read)
            yield entries
            window = min(4 * window, MAX_WINDOW)

    def _reading(self, window: int) -> Callable[..., tuple[list[Entry], int | None]]:
        """Return what reads a portion: where statuses are asked for, a search in a `window`."""
        if not self._statuses:
            return lines.read_portion
        return partial(lines.search, window=window, statuses=self._statuses)


def _of_ended(transaction: Transaction, batch_id: str) -> Result:
    (row,) = transaction.all("select result from batches where id = :id", id=batch_id)
    return lines.from_json(row["result"])
