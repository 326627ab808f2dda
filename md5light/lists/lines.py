"""A line of a list: a URL with labels and expected values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from md5light.errors import Refused
from md5light.lists import digests
from md5light.lists.names import Base, is_absolute
from md5light.lists.text import decode, show, split, storable

#: the largest size that SQLite and PostgreSQL can store
MAX_SIZE = 2**63 - 1


class Line(NamedTuple):
    """One file to download."""

    #: the number of its first line in the list, counted from 1
    number: int
    #: its text, which may have several lines, without the last line end
    sent: str
    url: str
    #: a label: the name of the file in the list
    name: str | None
    #: a label: the client's own key
    id: str | None
    #: expected bytes
    size: int | None
    #: expected digests in lower-case hex, by algorithm
    expected: Mapping[str, str]


class BadLine(NamedTuple):
    """A line that can't be parsed or is not accepted."""

    number: int
    #: as Line.sent; the beginning only, if the line is not text
    sent: str
    #: one of the codes in docs/lists.md
    code: str
    #: a sentence for people
    message: str


class LineMaker:
    """Makes lines from parsed fields: joins URLs to the base and checks them."""

    def __init__(self, base: str | None, check_url: Callable[[str], object]) -> None:
        """`check_url` raises Refused for a URL that is not accepted. Raises Refused."""
        self._base = Base(base) if base else None
        self._check_url = check_url

    def make(
        self,
        number: int,
        sent: str,
        url: str | None,
        *,
        name: str | None = None,
        id: str | None = None,
        size: int | None = None,
        expected: Iterable[tuple[str, str] | None] = (),
    ) -> Line:
        """Make a line; without `url` the URL is made from `name`. Raises Refused."""
        if url is None:
            url, name = self._url_of_name(name)
        elif not is_absolute(url):
            url = self._require_base().join(storable(url))
        self._check_url(storable(url))
        return Line(
            number,
            sent,
            url,
            storable(name) if name else None,
            storable(id) if id else None,
            size,
            agreed_digests(expected),
        )

    def _url_of_name(self, name: str | None) -> tuple[str, str | None]:
        if not name:
            raise Refused("missing_url", "The line has no URL.")
        if is_absolute(name):
            return name, None
        return self._require_base().join_name(storable(name)), name

    def _require_base(self) -> Base:
        if not self._base:
            raise Refused(
                "invalid_url",
                "The URL must be absolute and begin with http:// or https://, or a base is needed.",
            )
        return self._base


class Source:
    """A list, from its first line that is neither blank nor a comment."""

    def __init__(
        self, pieces: Iterator[bytes], number: int, maker: LineMaker, max_lines: int
    ) -> None:
        #: its text from that line on, as UTF-8
        self.pieces = pieces
        #: the number of that line
        self.number = number
        self.maker = maker
        #: a list with more lines is refused
        self.max_lines = max_lines

    def numbered(self) -> Iterator[tuple[int, bytes]]:
        return enumerate(split(self.pieces), self.number)

    def each(self, parse: Callable[[int, str], Line | None]) -> Iterator[Line | BadLine]:
        """Parse each line that is neither blank nor a comment, in formats of one line per file.

        `parse` returns None for a line without a file, and raises Refused.
        """
        for number, raw in self.numbered():
            sent = ""
            try:
                sent = decode(raw).removesuffix("\r")
                if sent.lstrip()[:1] not in ("", "#") and (line := parse(number, sent)):
                    yield line
            except Refused as error:
                yield BadLine(number, sent or show(raw), error.code, error.message)


def parse_size(text: str) -> int | None:
    """Return the size in bytes, None if no size is expected; raises Refused("invalid_size")."""
    text = text.strip()
    if text.lower() in digests.NOTHING:
        return None
    if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII) or int(text) > MAX_SIZE:
        raise Refused("invalid_size", f"“{text[:40]}” is not a size in bytes.")
    return int(text)


def agreed_size(sizes: Iterable[int | None]) -> int | None:
    """Return the size that all columns agree on; raises Refused("contradiction")."""
    different = {size for size in sizes if size is not None}
    if len(different) > 1:
        raise Refused("contradiction", "The line names two sizes.")
    return different.pop() if different else None


def agreed_digests(found: Iterable[tuple[str, str] | None]) -> dict[str, str]:
    """Return the digests by algorithm; raises Refused("contradiction") if two differ."""
    expected: dict[str, str] = {}
    for pair in found:
        if pair and expected.setdefault(*pair) != pair[1]:
            raise Refused("contradiction", f"The line names two digests by {pair[0]}.")
    return expected
