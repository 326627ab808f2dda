"""The listener for new jobs in a PostgreSQL database: it sleeps until the server notifies it."""

from __future__ import annotations

import math
import select
import time

import psycopg

from md5light.deadlines import Deadlines
from md5light.queue.connections import ANSWER_SECONDS, Connection, connect, cut, is_pooled
from md5light.queue.database import Listener

CHANNEL = "md5light_jobs"

#: seconds that workers only poll after the listening connection broke
RELISTEN_SECONDS = 5.0


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
        """Return the connection that listens; None while there is none, behind a pooler always."""
        if self._connection is None and time.monotonic() >= self._listen_at:
            self._connection = connect(self._location)
            with cut(self._connection, self._deadlines):
                if is_pooled(self._connection):
                    self._listen_at = math.inf
                    self.close()
                else:
                    self._connection.execute(f"listen {CHANNEL}")
        return self._connection
