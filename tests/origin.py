"""A scriptable HTTP origin on loopback, made of raw sockets: it can misbehave in every way.

    with Origin() as origin:
        origin.serve("/file", b"the body")                      # a plain 200 with Content-Length
        origin.serve("/raw", reply(b"body", status="200 OK"))   # a `reply` is sent as it is
        origin.serve("/odd", lambda peer: peer.send(b"HTTP/1.1 200 OK\\r\\n\\r\\nuntil close"))
        fetch(origin.url("/file"))
        assert origin.requests("/file") == 1

A script is called with a `Peer` for each request of its path. It sends what it likes:
`peer.send(bytes)`, `peer.drip(bytes)` a byte at a time, `peer.reply(body, ...)` a whole answer,
`peer.reset()`. The connection is closed when the script returns, unless it returns True: then the
next request on it is awaited. A `Gate` holds a body until the test opens it: `origin.gate()` makes
one that the origin opens at its end, so that nothing hangs. `Origin(tls=context)` speaks TLS.
`origin.hang_up()` makes nothing listen any more.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


class Raw(bytes):
    """Bytes that are sent as they are, head and all."""


def reply(
    body: bytes = b"",
    status: str = "200 OK",
    *headers: str,
    length: int | None = None,
    version: str = "HTTP/1.1",
) -> Raw:
    """Write an answer with a Content-Length of `length`, by default the body's own."""
    lines = [
        f"{version} {status}",
        f"Content-Length: {len(body) if length is None else length}",
        *headers,
    ]
    return Raw("\r\n".join([*lines, "", ""]).encode("utf-8") + body)


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """Write `pieces` as the chunks of a body that ends with `end`."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


@dataclass
class Peer:
    """One request and the connection it came on."""

    socket: socket.socket
    path: str
    head: str
    #: how many requests for this path there have been, this one included
    number: int
    #: how many requests this connection has carried, this one included
    turn: int
    headers: dict[str, str] = field(default_factory=dict)
    #: of a request that says its length
    body: bytes = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def drip(self, data: bytes, seconds: float = 0.05) -> None:
        """Send `data` a byte at a time."""
        for byte in data:
            self.send(bytes([byte]))
            time.sleep(seconds)

    def throttle(self, data: bytes, bytes_per_second: int) -> None:
        """Send `data` at about this rate, in twenty pieces a second."""
        step = max(1, bytes_per_second // 20)
        for start in range(0, len(data), step):
            self.send(data[start : start + step])
            time.sleep(0.05)

    def reply(
        self, body: bytes = b"", status: str = "200 OK", *headers: str, length: int | None = None
    ) -> bool:
        self.send(reply(body, status, *headers, length=length))
        return True

    def reset(self) -> None:
        """Cut the connection off (RST)."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def wait_closed(self, timeout: float = 30) -> None:
        """Wait until the other side has closed its end."""
        self.socket.settimeout(timeout)
        with contextlib.suppress(OSError):
            while self.socket.recv(65536):
                pass

    def range_start(self) -> int | None:
        """Tell where the range that is asked for begins."""
        value = self.headers.get("range")
        return int(value.removeprefix("bytes=").rstrip("-")) if value else None


Script = Callable[[Peer], object]
Gate = threading.Event


class Origin:
    """A server on 127.0.0.1 and a port of its own, for a `with` block."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._tls = tls
        self._scripts: dict[str, Script] = {}
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._gates: list[Gate] = []
        self._closed = False
        #: every request's head as it came, in order
        self.heads: list[str] = []
        #: how many connections have been accepted
        self.connections = 0
        self._listener = socket.create_server((host, 0), backlog=128)
        self.host, self.port = host, int(self._listener.getsockname()[1])

    def __enter__(self) -> Origin:
        threading.Thread(target=self._accept, name="origin", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        for gate in self._gates:
            gate.set()
        with self._lock:
            for connection in self._open:
                _shut(connection)

    def hang_up(self) -> None:
        """Stop listening: connections from now on are refused."""
        self._closed = True
        _shut(self._listener)
        self._listener.close()

    def serve(self, path: str, answer: bytes | Script) -> str:
        """Answer requests of `path` with a body, `Raw` bytes or a script; returns the URL."""
        self._scripts[path] = _script(answer)
        return self.url(path)

    def url(self, path: str = "/", host: str | None = None) -> str:
        return f"{'https' if self._tls else 'http'}://{host or self.host}:{self.port}{path}"

    def requests(self, path: str | None = None) -> int:
        """Tell how many requests there have been, of `path` or in all."""
        with self._lock:
            return sum(self._counts.values()) if path is None else self._counts[path]

    def gate(self) -> Gate:
        """Make a gate that a script waits at until the test, or the end of the origin, opens it."""
        gate = Gate()
        self._gates.append(gate)
        return gate

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        connection = raw
        with contextlib.suppress(OSError, ValueError):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connection = self._tls.wrap_socket(raw, server_side=True)
                with self._lock:
                    self._open.add(connection)
            for turn, (head, body) in enumerate(_requests(connection), 1):
                if not self._answer(connection, head, body, turn):
                    break
            if isinstance(connection, ssl.SSLSocket):
                connection.unwrap()
        with self._lock:
            self._open -= {raw, connection}
        connection.close()

    def _answer(self, connection: socket.socket, head: str, body: bytes, turn: int) -> object:
        first, *lines = head.split("\r\n")
        path = first.split(" ")[1]
        with self._lock:
            self.heads.append(head)
            self._counts[path] += 1
            number = self._counts[path]
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        script = self._scripts.get(path) or self._scripts.get(path.partition("?")[0]) or _missing
        return script(Peer(connection, path, head, number, turn, headers, body))


def _script(answer: bytes | Script) -> Script:
    if not isinstance(answer, bytes):
        return answer
    data = answer if isinstance(answer, Raw) else reply(answer)

    def script(peer: Peer) -> bool:
        peer.send(data)
        return not isinstance(answer, Raw)

    return script


def _missing(peer: Peer) -> object:
    return peer.reply(b"not here", "404 Not Found")


def _requests(connection: socket.socket) -> Iterator[tuple[str, bytes]]:
    """Yield the head and the body of each request."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return
            data += piece
        head, _, data = data.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: *([0-9]+)", head, re.IGNORECASE)
        size = int(length[1]) if length else 0
        while len(data) < size:
            if not (piece := connection.recv(65536)):
                return
            data += piece
        yield head.decode("latin-1"), data[:size]
        data = data[size:]


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
