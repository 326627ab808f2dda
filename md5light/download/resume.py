"""Resuming a body that broke off: proof that a part is of the same file (RFC 9110, 13.1.5, 14).

A part is accepted only if it repeats the validator, contradicts no header of the first answer, and
begins with the same bytes as the end of the data received so far: the request overlaps them.
"""

from __future__ import annotations

import datetime
import functools
import re
from dataclasses import dataclass
from typing import NamedTuple

from md5light.download.dates import parse_date
from md5light.download.hasher import TAIL
from md5light.download.response import Response
from md5light.errors import TemporaryFailure

STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')
FIXED_DATE = re.compile(r"[A-Za-z]{3}, [0-9]{2} [A-Za-z]{3} [0-9]{4} [0-9:]{8} GMT")
CONTENT_RANGE = re.compile(r"(?i:bytes) ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")

#: a file's date proves that it is the same only if it is this much older than the answer: a file
#: that is rewritten within the second keeps its date (RFC 9110, 8.8.2.2)
SECOND = datetime.timedelta(seconds=1)

#: bytes before a break that are requested again: at most and, unless fewer were received, at least
MOST_OVERLAP = TAIL
LEAST_OVERLAP = 64


class Part(NamedTuple):
    """A Content-Range: the first byte, the last byte, and the size of the file."""

    start: int
    last: int
    total: int

    @classmethod
    def of(cls, response: Response) -> Part | None:
        """Return the one part that an answer carries; None when it is not unambiguous."""
        match = CONTENT_RANGE.fullmatch(response.header("content-range") or "")
        content_type = response.header("content-type") or ""
        if not match or "multipart/byteranges" in content_type.lower():
            return None
        part = cls(*map(int, match.groups()))
        fits = response.length in (None, part.last + 1 - part.start)
        return part if fits and part.start <= part.last < part.total else None


#: the headers of a Representation
HEADERS = ("etag", "last-modified", "content-type", "content-encoding", "accept-ranges", "date")


@dataclass
class Representation:
    """The headers of the first answer that describe the file."""

    etag: str | None = None
    last_modified: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    accept_ranges: str | None = None
    date: str | None = None

    @classmethod
    def of(cls, response: Response) -> Representation:
        return cls(*map(response.header, HEADERS))

    @functools.cached_property  # only after a break, which is rare, dates are read
    def validator(self) -> str | None:
        """The value for If-Range; None: nothing could prove that a part is of the same file.

        It is a strong ETag or, if there is no ETag at all, a date that is as good a proof.
        """
        if "none" in (self.accept_ranges or "").lower():
            return None
        if self.etag is not None:
            return self.etag if STRONG_ETAG.fullmatch(self.etag) else None
        modified, answered = _fixed_date(self.last_modified), _fixed_date(self.date)
        is_proof = modified and answered and answered - modified >= SECOND
        return self.last_modified if is_proof else None

    @property
    def has_strong_etag(self) -> bool:
        return self.validator is not None and self.validator == self.etag

    def agrees(self, response: Response) -> bool:
        """Tell whether a 206 is of the same file.

        It must repeat the validator and the coding; other headers of the file, if sent, must be
        the same.
        """
        validator = response.header("etag" if self.has_strong_etag else "last-modified")
        return (
            validator == self.validator
            and response.header("content-encoding") == self.content_encoding
            and response.header("etag") in (None, self.etag)
            and response.header("last-modified") in (None, self.last_modified)
            and response.header("content-type") in (None, self.content_type)
        )


def overlap(brought: int) -> int:
    """Return how many bytes to request again: half of those that the last answer brought."""
    return max(LEAST_OVERLAP, min(MOST_OVERLAP, brought // 2))


def read_overlap(response: Response, kept: bytes) -> None:
    """Read the bytes of a part that are `kept`; raises TemporaryFailure unless they are equal."""
    seen = memoryview(bytearray(len(kept)))
    position = 0
    while position < len(kept):
        count = response.readinto(seen[position:])
        if not count:
            raise TemporaryFailure("incomplete", "The server sent less of the file than asked for.")
        if seen[position : position + count] != kept[position : position + count]:
            raise not_the_rest()
        position += count


def not_the_rest() -> TemporaryFailure:
    problem = "Asked for the rest of the file, the server sent something else."
    return TemporaryFailure("bad_response", problem)


def _fixed_date(value: str | None) -> datetime.datetime | None:
    return parse_date(value) if value and FIXED_DATE.fullmatch(value) else None
