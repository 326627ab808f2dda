"""CSV and TSV with a header (RFC 4180)."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from md5light.errors import Refused
from md5light.lists import records
from md5light.lists.lines import BadLine, Line, Source
from md5light.lists.names import is_absolute
from md5light.lists.text import MAX_LINE_BYTES, decode, show


def is_header(line: str, delimiter: str) -> bool:
    """Tell whether a list that begins with this line is a table."""
    try:
        [cells] = csv.reader([line], delimiter=delimiter, strict=True)
    except (csv.Error, ValueError):
        return False
    if any(map(is_absolute, cells)):
        return False
    names = set(map(records.known, cells))
    return "url" in names or (len(cells) > 1 and not names.isdisjoint(records.NAMES))


class Table:
    """The rows of a table; its header is read at once. Raises Refused("invalid_header")."""

    def __init__(self, source: Source, delimiter: str) -> None:
        self._maker = source.maker
        self._lines = _Lines(source.numbered())
        self._reader = csv.reader(self._lines, delimiter=delimiter, strict=True)
        self._columns = [records.known(cell) for cell in self._read_header()]
        #: the header as it was sent
        self.header = self._lines.sent
        #: columns with unknown names
        self.ignored = tuple(column for column in self._columns if column not in records.KNOWN)

    def __iter__(self) -> Iterator[Line | BadLine]:
        while True:
            self._lines.begin_record()
            try:
                if line := self._make_line(next(self._reader)):
                    yield line
            except StopIteration:
                return
            except csv.Error as error:
                yield self._bad("invalid_csv", f"The row is not valid CSV: {error}.")
            except Refused as error:
                yield self._bad(error.code, error.message)

    def _read_header(self) -> list[str]:
        self._lines.begin_record()
        try:
            cells = next(self._reader)
        except csv.Error as error:
            raise Refused("invalid_header", f"The header is not valid CSV: {error}.") from None
        columns = [column for cell in cells if (column := records.known(cell)) in records.KNOWN]
        if len(set(columns)) < len(columns):
            raise Refused("invalid_header", "The header names a column twice.")
        if set(columns).isdisjoint(["url", *records.NAMES]):
            raise Refused("invalid_header", "The header has no column “url” and no column “name”.")
        return cells

    def _make_line(self, cells: list[str]) -> Line | None:
        if not any(map(str.strip, cells)):
            return None
        if any(cells[len(self._columns) :]):
            raise Refused("invalid_csv", "The row has more cells than the header.")
        record = dict(zip(self._columns, cells, strict=False))
        return records.make_line(self._maker, self._lines.number, self._lines.sent, record)

    def _bad(self, code: str, message: str) -> BadLine:
        return BadLine(self._lines.number, self._lines.sent, code, message)


class _Lines:
    """The iterator of lines for csv.reader, which may need several for one record.

    After an error in a line it can go on, unlike a generator.
    """

    def __init__(self, numbered: Iterator[tuple[int, bytes]]) -> None:
        self._numbered = numbered
        self.begin_record()

    def begin_record(self) -> None:
        self.number = 0
        self._texts: list[str] = []
        self._size = 0

    @property
    def sent(self) -> str:
        """The record so far, without its last line end."""
        return "\n".join(self._texts).removesuffix("\r")

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, raw = next(self._numbered)
        while not self._texts and (raw in (b"", b"\r") or raw.startswith(b"# ")):
            number, raw = next(self._numbered)
        self.number = self.number or number
        try:
            text = decode(raw)
        except Refused:
            self._texts.append(show(raw))
            raise
        self._texts.append(text)
        self._size += len(raw)
        if self._size > MAX_LINE_BYTES:
            raise Refused("line_too_long", f"The row is longer than {MAX_LINE_BYTES:,} bytes.")
        return text + "\n"
