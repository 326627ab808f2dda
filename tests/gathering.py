"""Writes that meet, so that they share a transaction."""

from __future__ import annotations

import threading

from md5light.queue.database import Database, Transaction
from tests.waiting import wait_until


class Gathering:
    """A write that holds the turn until it is let go, so that other writes gather behind it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._begun, self._let_go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: database.write(self._wait))
        self._thread.start()
        assert self._begun.wait(10)

    def _wait(self, transaction: Transaction) -> None:
        self._begun.set()
        self._let_go.wait(10)

    def wait_for(self, count: int) -> None:
        """Return once `count` writes wait."""
        waiting = self._database._waiting  # type: ignore[attr-defined]
        wait_until(lambda: len(waiting) == count, message=f"{count} writes that wait")

    def let_go_of(self, count: int) -> None:
        """Let go once `count` writes wait."""
        self.wait_for(count)
        self._let_go.set()
        self._thread.join()
