"""The body that `submit` and `verify` post: the named lists as one, and the options."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, NamedTuple

from md5light.client import bag
from md5light.errors import NotDone, Refused
from md5light.lists.names import is_absolute
from md5light.lists.text import split, utf8

_CHUNK_BYTES = 65_536

#: formats whose first line must stand in front of the others, once
_WITH_HEADER = ("csv", "tsv")


class Body:
    """A form (RFC 7578) with a list as its last part, read from a file at each iteration.

    So it can be sent again after a lost answer, and is never in memory.
    """

    def __init__(self, options: Mapping[str, str], listed: IO[bytes]) -> None:
        boundary = os.urandom(16).hex()
        self.content_type = f"multipart/form-data; boundary={boundary}"
        fields = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in options.items()
        ]
        head = (
            f'{"".join(fields)}--{boundary}\r\nContent-Disposition: form-data; name="list"; '
            'filename="list"\r\nContent-Type: application/octet-stream\r\n\r\n'
        )
        self._head = head.encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._list = listed
        self._size = listed.seek(0, os.SEEK_END)

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        yield from _chunks(self._list, self._size)
        yield self._tail


class _Source(NamedTuple):
    """One of the lists that are named, as a file that can be read again."""

    name: str
    file: IO[bytes]


def open_list(
    arguments: list[str], format: str, folder: str | None, stack: contextlib.ExitStack
) -> IO[bytes]:
    """Open the one list to be sent; `stack` closes it. Raises NotDone and Refused."""
    if folder is not None:
        return _spooled(bag.lines(folder), stack)
    sources = [_open(part, stack) for part in _parts(arguments or ["-"])]
    if len(sources) == 1:
        return sources[0].file
    return _spooled(_joined(sources, format), stack)


def _parts(arguments: list[str]) -> Iterator[str | list[str]]:
    """Yield each name of a file, and as a list the URLs between two of these."""
    urls: list[str] = []
    for argument in arguments:
        if is_absolute(argument):
            urls.append(argument)
        else:
            if urls:
                yield urls
            urls = []
            yield argument
    if urls:
        yield urls


def _open(part: str | list[str], stack: contextlib.ExitStack) -> _Source:
    if isinstance(part, list):
        lines = (f"{url}\n".encode("utf-8", "surrogateescape") for url in part)
        return _Source("the URLs", _spooled(lines, stack))
    if part == "-":
        return _Source("standard input", _spooled(_stream(sys.stdin.buffer), stack))
    try:
        file = stack.enter_context(open(part, "rb"))  # noqa: SIM115 - the stack closes it
    except OSError as error:
        if "://" in part:
            why = "a URL begins with http:// or https:// and the name of a host"
            raise Refused("invalid_url", f"{part}: {why}") from None
        raise NotDone(f"{part}: {error.strerror}") from None
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return _Source(part, file)
    return _Source(part, _spooled(_stream(file), stack))


def _spooled(pieces: Iterable[bytes], stack: contextlib.ExitStack) -> IO[bytes]:
    """Copy a stream that can't be read twice to an unnamed file."""
    spool = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - as above
    spool.writelines(pieces)
    return spool


def _stream(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_CHUNK_BYTES):
        yield piece


def _chunks(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Read the file from its beginning: `size` bytes, as was promised, although it may grow."""
    file.seek(0)
    while size and (piece := file.read(min(size, _CHUNK_BYTES))):
        size -= len(piece)
        yield piece


def _joined(sources: list[_Source], format: str) -> Iterator[bytes]:
    """Yield the lists as one, in UTF-8. They must have one format, and tables one header."""
    from md5light.lists.reading import read  # one list is sent as it is

    first: tuple[str, str | None] | None = None
    for source in sources:
        source.file.seek(0)
        try:
            reading = read(_stream(source.file), format)
        except Refused as error:
            if error.code == "empty_list":
                continue
            raise Refused(error.code, f"{source.name}: {error}") from None
        first, follows = first or (reading.format, reading.header), first is not None
        _check_alike(source.name, first, (reading.format, reading.header))
        header = reading.header if follows and reading.format in _WITH_HEADER else None
        yield from _lines(source.file, header)


def _check_alike(name: str, first: tuple[str, str | None], this: tuple[str, str | None]) -> None:
    if this[0] == "json":
        why = "a JSON array can't be joined with another list: send it alone, or as ndjson"
    elif this[0] != first[0]:
        why = f"its format is {this[0]}, that of the list before is {first[0]}"
    elif this[0] in _WITH_HEADER and this[1] != first[1]:
        why = "its header differs from that of the list before"
    else:
        return
    raise Refused("wrong_usage", f"{name}: {why}")


def _lines(file: IO[bytes], header: str | None) -> Iterator[bytes]:
    """Yield each line of a list with a line feed, without the header."""
    file.seek(0)
    lines = split(utf8(_stream(file)))
    if header is not None:
        first, *others = header.encode().split(b"\n")
        while next(lines).removesuffix(b"\r") != first.removesuffix(b"\r"):
            pass  # a blank line or a comment
        for _ in others:
            next(lines)
    for line in lines:
        yield line + b"\n"
