"""Servers that limit their clients, on loopback, each with a rule; they count what they see.

with Limited(Window(20, 5.0)) as server:
    server.url("/file")        # a small body, or what the rule answers
server.seen.requests, server.seen.refusals
"""

from __future__ import annotations

import contextlib
import email.utils
import math
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

BODY = b"the body\n"

#: the answer to a request: a whole one, or None to reset the connection
Answer = bytes | None


def answer(status: str, *headers: str, body: bytes = BODY) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass
class Seen:
    """What a server has seen; times are those of time.monotonic()."""

    requests: int = 0
    refusals: int = 0
    connections: int = 0
    most_at_once: int = 0
    #: when each request came
    times: list[float] = field(default_factory=list)
    #: when each refusal was sent
    refused_at: list[float] = field(default_factory=list)


class Window:
    """So many requests in each period of some seconds, then a refusal that may tell its end.

    `tell` is given the seconds left and returns header lines.
    """

    def __init__(
        self,
        limit: int,
        seconds: float,
        status: str = "429 Too Many Requests",
        tell: Callable[[float], list[str]] = lambda left: [f"Retry-After: {math.ceil(left)}"],
    ) -> None:
        self._limit, self._seconds, self._status, self._tell = limit, seconds, status, tell
        self._count, self._until = 0, 0.0

    def __call__(self, path: str, now: float) -> Answer:
        if now >= self._until:
            self._count, self._until = 0, now + self._seconds
        self._count += 1
        if self._count > self._limit:
            return answer(self._status, *self._tell(self._until - now))
        return answer("200 OK")


class Ban:
    """More than `limit` connections in `seconds`, and each is reset until none came for as long."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit, self._seconds = limit, seconds
        self._times: deque[float] = deque()
        self._banned, self._last = False, 0.0

    def __call__(self, path: str, now: float) -> Answer:
        if self._banned and now - self._last >= self._seconds:
            self._banned = False
            self._times.clear()
        self._last = now
        self._times.append(now)
        while self._times[0] < now - self._seconds:
            self._times.popleft()
        self._banned = self._banned or len(self._times) > self._limit
        return None if self._banned else answer("200 OK", "Connection: close")


class Outage:
    """An answer 503 to so many bursts of requests, each ended by half a second without any."""

    def __init__(self, bursts: int) -> None:
        self._left = bursts
        self._last = 0.0

    def __call__(self, path: str, now: float) -> Answer:
        self._left -= now - self._last > 0.5
        self._last = now
        return answer("503 Service Unavailable" if self._left >= 0 else "200 OK")


class Limited:
    """A server with one rule, which is called with the path and the time of each request."""

    def __init__(self, rule: Callable[[str, float], Answer], address: str = "127.0.0.1") -> None:
        self.seen = Seen()
        self._rule = rule
        self._lock = threading.Lock()
        self._at_once = 0
        self._listener = socket.create_server((address, 0), backlog=256)
        self._address = self._listener.getsockname()
        self._connections: set[socket.socket] = set()

    def __enter__(self) -> Limited:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.hang_up()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def url(self, path: str = "/file") -> str:
        return f"http://{self._address[0]}:{self._address[1]}{path}"

    def hang_up(self) -> None:
        """Listen no more: connections are refused."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def listen(self) -> None:
        """Listen again."""
        self._listener = socket.create_server(self._address, backlog=256)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with self._lock:
                    self.seen.connections += 1
                    self._connections.add(connection)
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            reader = connection.makefile("rb")
            while line := reader.readline():
                while reader.readline().strip():
                    pass
                reply = self._decide(line.split()[1].decode())
                if reply is None:
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    reader.close()
                    break
                connection.sendall(reply)
                with self._lock:
                    self._at_once -= 1
                if b"Connection: close" in reply:
                    break
        with self._lock:
            self._connections.discard(connection)

    def _decide(self, path: str) -> Answer:
        with self._lock:
            now = time.monotonic()
            reply = self._rule(path, now)
            self.seen.requests += 1
            self.seen.times.append(now)
            self._at_once += reply is not None
            self.seen.most_at_once = max(self.seen.most_at_once, self._at_once)
            if reply is None or not reply.startswith(b"HTTP/1.1 200"):
                self.seen.refusals += 1
                self.seen.refused_at.append(now)
            return reply


class HangingUp(Limited):
    """A server at which nothing listens for some seconds after so many requests."""

    def __init__(self, limit: int, seconds: float) -> None:
        super().__init__(lambda path, now: answer("200 OK", "Connection: close"))
        self._limit, self._seconds = limit, seconds
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self) -> HangingUp:
        super().__enter__()
        self._watcher.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._watcher.join()
        super().__exit__(*exc)

    def _watch(self) -> None:
        before = 0
        while not self._ended.wait(0.01):
            if self.seen.requests - before >= self._limit:
                self.hang_up()
                self._ended.wait(self._seconds)
                before = self.seen.requests
                self.listen()


class BlackHole:
    """An address at which no connection is ever made: its listener's queue is full."""

    def __init__(self, address: str) -> None:
        self._listener = socket.socket()
        self._listener.bind((address, 0))
        self._listener.listen(0)
        self._address = self._listener.getsockname()
        self._waiting = [socket.socket() for _ in range(4)]

    def __enter__(self) -> BlackHole:
        for client in self._waiting:
            client.setblocking(False)
            client.connect_ex(self._address)
        return self

    def __exit__(self, *exc: object) -> None:
        for each in (*self._waiting, self._listener):
            each.close()

    def url(self, path: str = "/file") -> str:
        return f"http://{self._address[0]}:{self._address[1]}{path}"


def as_zero(left: float) -> list[str]:
    """Ask for no rest at all."""
    return ["Retry-After: 0"]


def as_date(left: float) -> list[str]:
    """Tell the end of a window by a date, whole seconds later."""
    return [f"Retry-After: {email.utils.formatdate(math.ceil(time.time() + left), usegmt=True)}"]


def as_reset(left: float) -> list[str]:
    """Tell the end of a window by X-RateLimit-Reset alone, in seconds."""
    return ["X-RateLimit-Remaining: 0", f"X-RateLimit-Reset: {math.ceil(left)}"]


def as_epoch(left: float) -> list[str]:
    """Tell the end of a window by X-RateLimit-Reset alone, as a Unix time."""
    return ["X-RateLimit-Remaining: 0", f"X-RateLimit-Reset: {math.ceil(time.time() + left)}"]


def as_draft(left: float) -> list[str]:
    """Tell the end of a window by the RateLimit header."""
    return [f'RateLimit: "default";r=0;t={math.ceil(left)}']


def untold(left: float) -> list[str]:
    """Tell nothing of the end of a window."""
    return []
