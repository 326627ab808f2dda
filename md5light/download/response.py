"""One HTTP/1.x answer, read strictly (RFC 9112): its head, and a body that ends only as announced.

http.client is lenient where a checksum must not be: it accepts a chunked body that breaks off in
its trailer, a chunk without its line end and the first of two different lengths, and it ignores all
headers after a malformed one. This reader accepts a deviation only if curl accepts it, too, and if
it can't change the bytes of the body.
"""

from __future__ import annotations

import io
import re
import socket
import ssl

from urllib3.util.wait import wait_for_read

from md5light.download.wire import Wire
from md5light.errors import PermanentFailure, TemporaryFailure

#: bytes of all heads of an answer, the interim ones included, or of a trailer: curl's bound
MAX_HEAD = 300 * 1024
#: bytes of the line before a chunk
MAX_CHUNK_LINE = 64 * 1024

#: seconds to wait for bytes after the announced ones: when the server said that it closes, and
#: after the first answer on a connection; there is no wait after later answers
CLOSE_SECONDS = 0.05
FIRST_SECONDS = 0.01

EMPTY_LINES = (b"\r\n", b"\n")
STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) +([1-9][0-9]{2})(?: [^\x00\r\n]*)?\r?\n", re.IGNORECASE)
#: a line of a head: its name, if that is a token, and its value
HEADER = re.compile(r"(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*)?(.*)\n")
#: a line whose name is not a token, such as one with a space
ODD_NAME = re.compile(r"([^: \t][^:]*):")
#: some servers name the unit
LENGTH = re.compile(r"0*([0-9]{1,18})(?:[ \t]+bytes)?", re.IGNORECASE)
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\x00\r\n]*)?\r?\n")
#: characters that no line may contain: NUL, and CR except at its end
FORBIDDEN = re.compile(rb"\x00|\r(?!\n)")
#: the headers that decide where the body ends: a line that some readers take for one of them, and
#: others not, fails the download
FRAMING = re.compile(r"content-length|transfer-encoding", re.IGNORECASE)


class NoAnswer(ConnectionError):
    """The connection ended before the first byte of an answer."""


class Response:
    """The answer to a GET whose head has been read; `readinto` then yields the body.

    Raises PermanentFailure if it is not an HTTP answer, TemporaryFailure if it broke off or took
    too long, and the errors of the socket as they are.
    """

    def __init__(self, reader: io.BufferedReader, wire: Wire) -> None:
        self._reader = reader
        self._ended = self._in_chunks = False
        lines = _Lines(reader)
        while True:
            minor, self.status = _status(reader, lines)
            self.headers = _headers(lines.block())
            if self.status >= 200:
                break
            wire.await_head()  # this was an interim answer, such as 103 Early Hints
        wire.enter_body()
        self._frame()
        connection = _items(self.header("connection") or "")
        self._keep_alive = "close" not in connection and (minor > 0 or "keep-alive" in connection)

    def header(self, name: str) -> str | None:
        """Return a header's value, decoded as Latin-1; several values are joined by commas."""
        values = self.headers.get(name)
        return None if values is None else ", ".join(values)

    def readinto(self, view: memoryview) -> int:
        """Read some of the body and return how many bytes; 0 when the body is complete."""
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
        """Look for bytes after the body; tell whether the connection can carry another request.

        Raises TemporaryFailure when there are more than Content-Length announced: either of the two
        may be wrong. After a last chunk the body is certain.
        """
        if self._left is None:
            return False
        if not (reused and self._keep_alive):
            wait_for_read(connection, FIRST_SECONDS if self._keep_alive else CLOSE_SECONDS)
        connection.settimeout(0)
        surplus = self._peek()
        if surplus and not self._chunked:
            raise TemporaryFailure("bad_response", "The server sent more than it had announced.")
        return self._keep_alive and not self._ambiguous and not surplus

    def _frame(self) -> None:
        """Determine where the body ends (RFC 9112, 6.3)."""
        #: bytes of the body, if the head announces them
        self.length: int | None = _length(self.header("content-length"))
        codings = _items(self.header("transfer-encoding") or "")
        chunked = [coding for coding in codings if coding != "identity"]
        if set(chunked) - {"chunked"}:
            raise _invalid("The server used a transfer coding that it was not asked for.")
        self._chunked = bool(chunked)
        # A length beside chunks may be request smuggling, and servers that name chunked twice have
        # applied it once: the body is certain, but the connection is not reused.
        self._ambiguous = len(chunked) > 1 or (self._chunked and self.length is not None)
        if self._chunked:
            self.length = None
        #: bytes left of the body or of the current chunk; None: until the connection ends
        self._left: int | None = 0 if self._chunked else self.length

    def _peek(self) -> bytes:
        try:
            return self._reader.peek(1)
        except OSError:  # nothing there yet, or the connection has ended: nothing follows
            return b""

    def _next_chunk(self) -> None:
        try:
            self._left = self._chunk_size()
            if self._left == 0:
                _headers(_Lines(self._reader).block())
                self._ended = True
        except PermanentFailure:  # a line that is malformed in a head is here only a broken body
            raise _broken() from None

    def _chunk_size(self) -> int:
        if self._in_chunks and _line(self._reader, MAX_CHUNK_LINE) not in EMPTY_LINES:
            raise _broken()
        self._in_chunks = True
        match = CHUNK_SIZE.fullmatch(_line(self._reader, MAX_CHUNK_LINE))
        if not match:
            raise _broken()
        return int(match[1], 16)


class _Lines:
    """The lines of heads, or of a trailer, which share one bound on their bytes."""

    def __init__(self, reader: io.BufferedReader) -> None:
        self._reader = reader
        self._left = MAX_HEAD

    def next(self) -> bytes:
        """Read a line with its line end."""
        line = _line(self._reader, self._left)
        self._left -= len(line)
        return line

    def block(self) -> str:
        """Read lines up to and with an empty one; return the others, decoded as Latin-1."""
        lines = []
        while (line := self.next()) not in EMPTY_LINES:
            lines.append(line)
        block = b"".join(lines)
        if FORBIDDEN.search(block):
            raise _invalid("The server sent a line with a forbidden character.")
        return block.decode("latin-1")


def _line(reader: io.BufferedReader, most: int) -> bytes:
    """Read a line of at most `most` bytes with its line end."""
    line = reader.readline(most + 1)
    if len(line) > most:
        raise _invalid("The server sent too many or too long headers.")
    if line[-1:] != b"\n":
        raise _incomplete()
    return line


def _status(reader: io.BufferedReader, lines: _Lines) -> tuple[int, int]:
    """Read a status line: the minor version and the code."""
    try:
        start = reader.peek(1)[:5]
    except (ConnectionError, ssl.SSLEOFError):
        start = b""
    if not start:
        raise NoAnswer
    match = STATUS_LINE.fullmatch(lines.next()) if b"HTTP/".startswith(start.upper()) else None
    if not match:
        raise _invalid("The server did not answer in HTTP/1.1.")
    if match[2] == b"101":
        raise _invalid("The server switched to another protocol.")
    return int(match[1]), int(match[2])


def _headers(lines: str) -> dict[str, list[str]]:
    """Return the values in the lines of a head, or of a trailer, by their names in lower case."""
    headers: dict[str, list[str]] = {}
    values: list[str] = []
    for name, value in HEADER.findall(lines):
        if name:
            values = headers.setdefault(name.lower(), [])
            values.append(value.rstrip(" \t\r"))
        elif value[0] in " \t" and values:
            # Readers differ about folded lines (RFC 9112, 5.2): replace the value by one that is
            # valid in no header.
            values[-1] = "\n"
        else:
            _check_odd(value)
            values = [""]
    return headers


def _check_odd(line: str) -> None:
    """Check a line whose name is no token: nothing looks it up, so most of them are harmless."""
    match = ODD_NAME.match(line)
    if not match or FRAMING.search(match[1]):
        raise _invalid("The server sent a malformed header.")


def _length(text: str | None) -> int | None:
    """Read Content-Length; a repeated equal value counts once (RFC 9110, 8.6)."""
    if text is None:
        return None
    matches = [LENGTH.fullmatch(item.strip(" \t")) for item in text.split(",")]
    lengths = {int(match[1]) if match else None for match in matches}
    length = lengths.pop()
    if lengths or length is None:
        raise _invalid("The server announced an impossible length.")
    return length


def _items(value: str) -> list[str]:
    return [item.lower() for part in value.split(",") if (item := part.strip(" \t"))]


def _invalid(sentence: str) -> PermanentFailure:
    return PermanentFailure("bad_response", sentence)


def _incomplete() -> TemporaryFailure:
    return TemporaryFailure("incomplete", "The connection ended before the answer did.")


def _broken() -> TemporaryFailure:
    return TemporaryFailure("bad_response", "The server sent a broken chunk.")
