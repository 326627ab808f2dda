"""One HTTP/1.x answer, read strictly (RFC 9112): its head, and a body that ends only where it said it would.

http.client is lenient where a checksum can't be: it takes a chunked body that breaks off in its trailer for whole,
a chunk without its line end for a good one, the first of two lengths for the length, and skips the headers after a
bad one.
"""

from __future__ import annotations

import io
import re
import socket
import ssl

from urllib3.util.wait import wait_for_read

from md5light.errors import PermanentFailure, TemporaryFailure

#: the bounds of http.client, which urllib3 and requests share: bytes of a line, lines of a head or a trailer
MAX_LINE = 65536
MAX_LINES = 100
#: and curl's for the whole of it, which keeps eight hostile servers from filling the memory
MAX_HEAD = 300 * 1024
#: how many answers such as 100 Continue and 103 Early Hints may come before the real one
MAX_INTERIM = 1000

#: how long is waited, in seconds, to see whether a server sends more than it announced: one that said it would close,
#: and one whose first answer on a connection this is; later ones are not waited for
CLOSE_SECONDS = 0.05
FIRST_SECONDS = 0.01

STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) +([1-9][0-9]{2})(?: .*)?")
HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*)", re.DOTALL)
#: a line whose name is no token, such as one with a space
ODD_HEADER = re.compile(rb"([^: \t][^:]*):[ \t]*(.*)", re.DOTALL)
LENGTH = re.compile(r"0*([0-9]{1,18})")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?", re.DOTALL)
NEVER = re.compile(rb"[\x00\r]")
#: what the end of the body depends on: where readers may take a line for such a header or not, there is no checksum
FRAMING = re.compile(rb"content-length|transfer-encoding", re.IGNORECASE)


class NoAnswer(ConnectionError):
    """The connection ended before the first byte of an answer."""


class Response:
    """The answer to a GET whose head has been read; `readinto` then yields the body.

    Raises PermanentFailure for an answer that is none, TemporaryFailure for one that broke, and lets the errors of
    the socket through.
    """

    def __init__(self, reader: io.BufferedReader) -> None:
        self._reader = reader
        for _ in range(MAX_INTERIM):
            minor, self.status = _status(reader)
            self.headers = _headers(reader)
            if self.status >= 200:
                break
        else:
            raise _invalid("The server sent too many interim answers.")
        self._frame()
        connection = _items(self.header("connection") or "")
        self._keep_alive = "close" not in connection and (minor > 0 or "keep-alive" in connection)

    def header(self, name: str) -> str | None:
        """Return a header's value, as text of one character a byte; several of one name are joined by commas."""
        values = self.headers.get(name)
        return None if values is None else b", ".join(values).decode("latin-1")

    def _frame(self) -> None:
        """Find out where the body ends (RFC 9112, 6.3)."""
        #: bytes of the body, where the head tells
        self.length: int | None = _length(self.header("content-length"))
        codings = [
            coding
            for coding in _items(self.header("transfer-encoding") or "")
            if coding != "identity"
        ]
        if codings not in ([], ["chunked"]):
            raise _invalid("The server used a transfer coding that it was not asked for.")
        self._chunked = bool(codings)
        # Both at once may be an attempt at smuggling: the coding counts, the connection is given up.
        self._ambiguous = self._chunked and self.length is not None
        if self._chunked:
            self.length = None
        #: bytes left of the body or of the present chunk; None: until the end of the connection
        self._left: int | None = 0 if self._chunked else self.length
        self._ended = False
        self._in_chunks = False

    def readinto(self, view: memoryview) -> int:
        """Read some of the body and return how many bytes; 0 when it has come to its proper end."""
        if self._chunked and not self._left and not self._ended:
            self._next_chunk()
        if self._ended or self._left == 0:
            self._ended = True
            return 0
        count = self._reader.readinto1(view if self._left is None else view[: self._left])
        if self._left is None:
            self._ended = count == 0
        elif count == 0:
            raise _incomplete()
        else:
            self._left -= count
        return count

    def finish(self, connection: socket.socket, *, reused: bool) -> bool:
        """Make sure that nothing follows the body; tell whether the connection can carry another request."""
        if self._left is None:
            return False
        if not (reused and self._keep_alive):
            wait_for_read(connection, FIRST_SECONDS if self._keep_alive else CLOSE_SECONDS)
        connection.settimeout(0)
        if self._peek():
            raise TemporaryFailure("bad_response", "The server sent more than it had announced.")
        return self._keep_alive and not self._ambiguous

    def _peek(self) -> bytes:
        try:
            return self._reader.peek(1)
        except (
            OSError
        ):  # nothing there yet, or a connection that has ended: either way nothing follows
            return b""

    def _next_chunk(self) -> None:
        try:
            self._left = self._chunk_size()
            if self._left == 0:
                _headers(self._reader)
                self._ended = True
        except PermanentFailure:  # what a head can't be made of is only a broken body here
            raise _broken() from None

    def _chunk_size(self) -> int:
        if self._in_chunks and _line(self._reader):
            raise _broken()
        self._in_chunks = True
        match = CHUNK_SIZE.fullmatch(_line(self._reader))
        if not match:
            raise _broken()
        return int(match[1], 16)


def _status(reader: io.BufferedReader) -> tuple[int, int]:
    """Read a status line: the minor version and the code."""
    try:
        start = reader.peek(1)[:5]
    except (ConnectionError, ssl.SSLEOFError):
        start = b""
    if not start:
        raise NoAnswer
    match = STATUS_LINE.fullmatch(_line(reader)) if b"HTTP/".startswith(start) else None
    if not match:
        raise _invalid("The server did not answer in HTTP/1.1.")
    if match[2] == b"101":
        raise _invalid("The server switched to another protocol.")
    return int(match[1]), int(match[2])


def _headers(reader: io.BufferedReader) -> dict[str, list[bytes]]:
    """Read header lines, or those of a trailer, up to and with the empty one."""
    headers: dict[str, list[bytes]] = {}
    values: list[bytes] = []
    size = 0
    for _ in range(MAX_LINES):
        line = _line(reader)
        if not line:
            return headers
        size += len(line)
        if size > MAX_HEAD:
            break
        if line[0] in b" \t" and values:
            # A folded line (RFC 9112, 5.2) stays one of its own: readers differ in what they make of it, so no header
            # that matters is understood when it is folded.
            values[-1] += b"\n" + line.strip(b" \t")
        else:
            values = _values(headers, line)
    raise _invalid("The server sent too many or too long headers.")


def _values(headers: dict[str, list[bytes]], line: bytes) -> list[bytes]:
    """Add the value in a line to the others of its name, and return them all."""
    match = HEADER.fullmatch(line)
    if not match:
        # One whose name is none is kept, but nobody asks for it.
        match = ODD_HEADER.fullmatch(line)
        if not match or FRAMING.search(match[1]):
            raise _invalid("The server sent a header that is none.")
    values = headers.setdefault(match[1].decode("latin-1").lower(), [])
    values.append(match[2].rstrip(b" \t"))
    return values


def _line(reader: io.BufferedReader) -> bytes:
    line = reader.readline(MAX_LINE + 1)
    if not line.endswith(b"\n"):
        raise (
            _incomplete()
            if len(line) <= MAX_LINE
            else _invalid("The server sent a line that is too long.")
        )
    line = line[:-2] if line.endswith(b"\r\n") else line[:-1]
    if NEVER.search(line):
        raise _invalid("The server sent a line with a forbidden character.")
    return line


def _length(text: str | None) -> int | None:
    """Read Content-Length; the same one given twice is one (RFC 9110, 8.6)."""
    if text is None:
        return None
    matches = [LENGTH.fullmatch(item.strip(" \t")) for item in text.split(",")]
    lengths = {int(match[1]) if match else None for match in matches}
    length = lengths.pop()
    if lengths or length is None:
        raise _invalid("The server announced no possible length.")
    return length


def _items(value: str) -> list[str]:
    return [item.lower() for part in value.split(",") if (item := part.strip(" \t"))]


def _invalid(sentence: str) -> PermanentFailure:
    return PermanentFailure("bad_response", sentence)


def _incomplete() -> TemporaryFailure:
    return TemporaryFailure("incomplete", "The connection ended before the answer did.")


def _broken() -> TemporaryFailure:
    return TemporaryFailure("bad_response", "The server sent a broken chunk.")
