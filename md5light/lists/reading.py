"""Reading a list: recognises its format and yields its lines."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from md5light.errors import Refused
from md5light.lists import objects, plain, tables
from md5light.lists.formats import FORMATS
from md5light.lists.lines import BadLine, Line, LineMaker, Source
from md5light.lists.text import MAX_LINE_BYTES, utf8

#: formats in which each line of text is parsed on its own
_BY_LINE = {
    "urls": plain.urls,
    "sums": plain.sums,
    "gcs": plain.gcs,
    "pooch": plain.pooch,
    "ndjson": objects.ndjson,
}
_AS_WHOLE = {"bsd": plain.bsd, "json": objects.array}
_DELIMITERS = {"csv": ",", "tsv": "\t"}

#: tests of the first line that recognise the format, in this order; if none is true, it is `urls`
_SIGNS: dict[str, Callable[[str], bool]] = {
    "gcs": plain.is_gcs,
    "ndjson": lambda first: first.startswith("{"),
    "json": lambda first: first.startswith("["),
    "bsd": plain.is_bsd,
    "pooch": plain.is_pooch,
    "sums": plain.is_sums,
    "csv": lambda first: tables.is_header(first, ","),
    "tsv": lambda first: tables.is_header(first, "\t"),
}

#: blank lines and comments at the beginning
_NOTHING_YET = re.compile(rb"(?:[ \t\r]*(?:#[^\n]*)?\n)*")


class Reading:
    """The lines of one list, in its order; it can be iterated over once.

    The iteration raises Refused: "too_many_lines"; "empty_list" at the end of a list without lines;
    "invalid_json" or "invalid_text" when the rest of a JSON array can't be parsed.
    """

    def __init__(
        self,
        format: str,
        lines: Iterable[Line | BadLine],
        max_lines: int,
        *,
        header: str | None = None,
        ignored: tuple[str, ...] = (),
    ) -> None:
        #: the format of the list, as given or as recognised
        self.format = format
        #: the header line, which is needed to parse lines of this list again
        self.header = header
        #: columns with unknown names
        self.ignored = ignored
        self._lines = lines
        self._max_lines = max_lines

    def __iter__(self) -> Iterator[Line | BadLine]:
        count = 0
        for count, line in enumerate(self._lines, 1):
            if count > self._max_lines:
                raise Refused(
                    "too_many_lines", f"The list has more than {self._max_lines:,} lines."
                )
            yield line
        if not count:
            raise _empty()


def read(
    chunks: Iterable[bytes],
    format: str = "auto",
    *,
    base: str | None = None,
    check_url: Callable[[str], object] = str,
    max_lines: int = sys.maxsize,
) -> Reading:
    """Read the beginning of a list; the lines are read during the iteration.

    Relative names are joined to `base`. `check_url` raises Refused for a URL that is not accepted,
    which makes its line a BadLine. Raises Refused: "unknown_format", "invalid_base",
    "invalid_header", "empty_list".
    """
    if format not in ("auto", *FORMATS):
        raise Refused("unknown_format", f"A list's format is auto, {', '.join(FORMATS)}.")
    maker = LineMaker(base, check_url)
    first, number, pieces = _begin(utf8(chunks))
    if not first:
        raise _empty()
    if format == "auto":
        format = next((name for name, fits in _SIGNS.items() if fits(first)), "urls")
    return _open(format, first, Source(pieces, number, maker, max_lines))


def _begin(pieces: Iterator[bytes]) -> tuple[str, int, Iterator[bytes]]:
    """Return the first line that is neither blank nor a comment, its number, and the rest."""
    number, held = 1, b""
    for piece in pieces:
        held += piece
        end = _NOTHING_YET.match(held).end()  # type: ignore[union-attr]  # it always matches
        number += held.count(b"\n", 0, end)
        held = held[end:]
        if b"\n" in held or len(held) > MAX_LINE_BYTES:
            break
    first = held.partition(b"\n")[0].decode("utf-8", "replace").lstrip(" \t")
    first = first.removesuffix("\r")
    return "" if first.startswith("#") else first, number, itertools.chain([held], pieces)


def _open(format: str, first: str, source: Source) -> Reading:
    lines: Iterable[Line | BadLine]
    if format in _DELIMITERS:
        table = tables.Table(source, _DELIMITERS[format])
        return Reading(format, table, source.max_lines, header=table.header, ignored=table.ignored)
    if format in _AS_WHOLE:
        lines = _AS_WHOLE[format](source)
    else:
        lines = source.each(partial(_BY_LINE[format], source.maker))
    header = plain.GCS_HEADER if format == "gcs" else None
    if header and not plain.is_gcs(first):
        raise Refused("invalid_header", f"The first line must be {header}.")
    return Reading(format, lines, source.max_lines, header=header)


def _empty() -> Refused:
    return Refused("empty_list", "The list has no lines.")
