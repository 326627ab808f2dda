"""Splits the bytes of a list into lines, in memory that does not depend on the list."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator

from md5light.errors import Refused

#: bytes of the longest line, as UTF-8; also of a CSV record and of an element of a JSON array
MAX_LINE_BYTES = 65_536

#: bytes shown of a line that can't be read
SHOWN_BYTES = 1_000


def utf8(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the list as UTF-8 in small pieces, without its byte order mark; UTF-16 needs one."""
    pieces = _pieces(chunks)
    head = b""
    while len(head) < len(codecs.BOM_UTF8) and (piece := next(pieces, b"")):
        head += piece
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _from_utf16(itertools.chain([head], pieces))
    return itertools.chain([head.removeprefix(codecs.BOM_UTF8)], pieces)


def split(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield each line without its line feed; at most one byte more than MAX_LINE_BYTES."""
    line = b""
    for piece in pieces:
        first, *others = piece.split(b"\n")
        line += first[: MAX_LINE_BYTES + 1 - len(line)]
        if others:
            yield line
            yield from others[:-1]
            line = others[-1]
    if line:
        yield line


def decode(line: bytes) -> str:
    """Return the text of a line; raises Refused("line_too_long" or "invalid_text")."""
    if len(line) > MAX_LINE_BYTES:
        raise Refused("line_too_long", f"The line is longer than {MAX_LINE_BYTES:,} bytes.")
    if b"\0" in line:
        raise Refused("invalid_text", "The line contains a NUL byte.")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(
            "invalid_text", f"The line is not UTF-8: its byte {error.start + 1} is wrong."
        ) from None


def show(line: bytes) -> str:
    """Return the beginning of a line that can't be decoded, with `\\xNN` for invalid bytes."""
    return line[:SHOWN_BYTES].decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def storable(text: str) -> str:
    """Return `text`; raises Refused("invalid_text") for characters that databases can't store."""
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise Refused("invalid_text", "The line contains half of a surrogate pair.")
    if "\0" in text:
        raise Refused("invalid_text", "The line contains a NUL character.")
    return text


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), MAX_LINE_BYTES):
            yield chunk[start : start + MAX_LINE_BYTES]


def _from_utf16(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield UTF-8; half of a surrogate pair or of a code unit stays invalid."""
    decoder = codecs.getincrementaldecoder("utf-16")("surrogatepass")
    for piece in pieces:
        yield decoder.decode(piece).encode("utf-8", "surrogatepass")
    rest, _ = decoder.getstate()
    if rest:
        yield b"\xff"
