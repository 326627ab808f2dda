"""The pool of connections to a PostgreSQL server, each use with a deadline."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from md5light.deadlines import Deadlines
from md5light.queue.database import Row

Connection = psycopg.Connection[Row]

#: how soon we notice that a server or network is gone (libpq, "Parameter Key Words"): seconds, the
#: last in milliseconds
CLIENT_TIMEOUTS = (
    "connect_timeout=5 keepalives_idle=5 keepalives_interval=2 keepalives_count=3 "
    "tcp_user_timeout=10000"
)

#: those by which the server notices that we are gone, too, by its name for each: after half a
#: message none of LIMITS counts, and our locks would last for hours
SERVER_TIMEOUTS = {
    "tcp_keepalives_idle": "keepalives_idle",
    "tcp_keepalives_interval": "keepalives_interval",
    "tcp_keepalives_count": "keepalives_count",
    "tcp_user_timeout": "tcp_user_timeout",
}

#: a transaction that takes longer is cut off: nothing else detects packets lost behind a proxy
ANSWER_SECONDS = 10.0

#: after a connection attempt without any answer, others fail at once for so long, or they'd pile up
UNREACHABLE_SECONDS = 1.0

#: age at which a connection is replaced: its plans may be outdated, and the server's name may
#: resolve to another address by then
CONNECTION_SECONDS = 60.0

#: runs after which a statement is prepared
PREPARE_THRESHOLD = 5


class Connections:
    """The connections of one process to one server; threads share it."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._deadlines = Deadlines(ANSWER_SECONDS)
        #: idle connections, with the time of their end
        self._idle: deque[tuple[Connection, float]] = deque()
        self._unreachable_until = 0.0

    def close(self) -> None:
        """Close the idle connections; no thread may be using another one."""
        self._close_idle()
        self._deadlines.close()

    @contextlib.contextmanager
    def lend(self, *, fresh: bool = False) -> Iterator[Connection]:
        """Lend a connection until its deadline; after a failure a new one.

        It is kept only if it is still open and outside of any transaction.
        """
        if fresh:
            self._close_idle()
        try:
            connection, until = self._idle.pop()
        except IndexError:
            connection, until = self._connect(), time.monotonic() + CONNECTION_SECONDS
        with cut(connection, self._deadlines):
            try:
                yield connection
            finally:
                idle = connection.info.transaction_status == TransactionStatus.IDLE
                if idle and time.monotonic() < until:
                    self._idle.append((connection, until))
                else:
                    connection.close()

    def _connect(self) -> Connection:
        if time.monotonic() < self._unreachable_until:
            raise psycopg.OperationalError("nobody answered a moment ago")
        try:
            connection = connect(self._location)
        except errors.ConnectionTimeout:
            self._unreachable_until = time.monotonic() + UNREACHABLE_SECONDS
            raise
        try:
            with cut(connection, self._deadlines):
                if not is_pooled(connection):
                    connection.prepare_threshold = PREPARE_THRESHOLD
                    _set_server_timeouts(connection, self._location)
        except BaseException:
            connection.close()
            raise
        return connection

    def _close_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop()[0].close()


class Turns:
    """A fair semaphore: `count` threads at a time enter its block, in the order of arrival.

    With threading.Semaphore a thread may enter again before those that wait: threads that read all
    the time would keep the others out.
    """

    def __init__(self, count: int) -> None:
        self._changing = threading.Lock()
        self._free = count
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        turn = threading.Lock()
        with self._changing:
            if self._free:
                self._free -= 1
                return
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def __exit__(self, *_: object) -> None:
        with self._changing:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1


def connect(location: str) -> Connection:
    """Connect with the timeouts above, unless the location says otherwise."""
    return psycopg.connect(
        make_conninfo("", **_parameters(location)),
        autocommit=True,
        prepare_threshold=None,
        row_factory=dict_row,
    )


def is_pooled(connection: Connection) -> bool:
    """Tell whether there is a pooler in between: it names another process than the session's."""
    (row,) = connection.execute("select pg_backend_pid() as process").fetchall()
    return bool(row["process"] != connection.info.backend_pid)


def _parameters(location: str) -> dict[str, Any]:
    return {
        **conninfo_to_dict(CLIENT_TIMEOUTS),
        "application_name": "md5light",
        **conninfo_to_dict(location),
        "client_encoding": "UTF8",
    }


def _set_server_timeouts(connection: Connection, location: str) -> None:
    """Set the server's timeouts for this session to those of the client."""
    # psycopg's ConnectionInfo.get_parameters() fails for a user without a home directory.
    ours = _parameters(location)
    settings = (f"set {name} = {int(ours[our])}" for name, our in SERVER_TIMEOUTS.items())
    connection.execute("; ".join(settings))


@contextlib.contextmanager
def cut(connection: Connection, deadlines: Deadlines) -> Iterator[None]:
    """Shut the connection's socket down if the block takes too long, which ends its waits."""
    # A duplicate: the connection's own descriptor may be closed, and its number used again.
    with (
        socket.socket(fileno=os.dup(connection.fileno())) as twin,
        deadlines.watch(lambda: _shut(twin)),
    ):
        yield


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
