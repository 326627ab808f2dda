"""The formats in which a line is a URL or a name with its sums: urls, sums, bsd, gcs, pooch."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from functools import partial

from md5light.errors import Refused
from md5light.lists import digests
from md5light.lists.lines import BadLine, Line, LineMaker, Source, parse_size
from md5light.lists.names import is_absolute, unescape

GCS_HEADER = "TsvHttpData-1.0"

_SUMS = re.compile(r"[ \t]*(\\?)(\S+)(?: [ *]|[ \t])(.+)", re.DOTALL)
# Two patterns, for the text before and after the last `)`: a single one would try every `)`.
_BSD_NAME = re.compile(r"\s*(\\?)([A-Za-z0-9-]+) ?\((.+)", re.DOTALL | re.ASCII)
_BSD_DIGEST = re.compile(r" ?= ?(\S+)\s*", re.ASCII)


def is_gcs(line: str) -> bool:
    return line.rstrip() == GCS_HEADER


def is_sums(line: str) -> bool:
    match = _SUMS.fullmatch(line)
    return match is not None and digests.is_digest(match[2])


def is_bsd(line: str) -> bool:
    return _bsd_parts(line) is not None


def is_pooch(line: str) -> bool:
    fields = line.split()
    return len(fields) >= 3 and is_absolute(fields[-1].strip("'")) and digests.is_digest(fields[-2])


def urls(maker: LineMaker, number: int, sent: str) -> Line | None:
    """`URL [SIZE] [DIGEST]`, or conda's `URL#DIGEST` and `@EXPLICIT`."""
    url, *fields = re.split(r"[ \t]+", sent.strip(" \t"))
    if url == "@EXPLICIT":
        return None
    if len(fields) > 2:
        raise Refused("invalid_line", "A line has a URL, a size and a digest, and no more.")
    expected = []
    address, _, fragment = url.rpartition("#")
    if address and digests.is_digest(fragment):
        url = address
        expected.append(digests.parse(fragment))
    size = parse_size(fields.pop(0)) if fields and _is_size(fields) else None
    expected += map(digests.parse, fields)
    return maker.make(number, sent, url, size=size, expected=expected)


def _is_size(fields: list[str]) -> bool:
    """Tell whether the first of the one or two fields after the URL is the size."""
    return len(fields) == 2 or (fields[0].isdecimal() and not digests.is_digest(fields[0]))


def sums(maker: LineMaker, number: int, sent: str) -> Line:
    r"""`HEX  NAME`, `HEX *NAME`, `\HEX  NAME` with escapes (GNU coreutils)."""
    match = _SUMS.fullmatch(sent)
    if not match:
        raise Refused("invalid_line", "The line has no digest and name.")
    escaped, digest, name = match.groups()
    expected = digests.parse(digest)
    name = unescape(name) if escaped else name
    return maker.make(number, sent, None, name=name, expected=[expected])


def gcs(maker: LineMaker, number: int, sent: str) -> Line | None:
    """`URL⇥SIZE⇥BASE64 MD5` (Google's Storage Transfer Service)."""
    if is_gcs(sent):
        return None
    url, size, md5, *more = [*sent.split("\t"), "", ""]
    if any(more):
        raise Refused("invalid_line", "The line has more than three columns.")
    return maker.make(
        number, sent, url.strip(), size=parse_size(size), expected=[digests.parse(md5, "md5")]
    )


def pooch(maker: LineMaker, number: int, sent: str) -> Line:
    """`NAME ALG:HEX [URL]`, quoted as a shell does."""
    try:
        # shlex is slow
        fields = shlex.split(sent) if re.search(r"['\"\\]", sent) else sent.split()
    except ValueError:
        raise Refused("invalid_line", "The line has a quote without its end.") from None
    if len(fields) not in (2, 3):
        raise Refused("invalid_line", "The line must have a name, a digest and a URL.")
    name, digest, *url = fields
    return maker.make(
        number, sent, url[0] if url else None, name=name, expected=[digests.parse(digest)]
    )


def bsd(source: Source) -> Iterator[Line | BadLine]:
    """`MD5 (NAME) = HEX`: the digests of one name, wherever they are in the list, become one line.

    So all lines are kept until the end of the list, in this format alone.
    """
    found: dict[tuple[str, int], Line | BadLine] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for line in source.each(partial(_bsd, source.maker)):
        if isinstance(line, BadLine):
            found["", line.number] = line
        else:
            # A name's second digest of the same algorithm begins its second line.
            name = line.name or line.url
            [algorithm] = line.expected or [""]
            seen[name, algorithm] += 1
            place = name, seen[name, algorithm]
            first = found.get(place)
            found[place] = _merge(first, line) if isinstance(first, Line) else line
        if len(found) > source.max_lines:
            break
    yield from found.values()


def _bsd(maker: LineMaker, number: int, sent: str) -> Line:
    parts = _bsd_parts(sent)
    if not parts:
        raise Refused("invalid_line", "The line is not of the form ALGORITHM (NAME) = DIGEST.")
    escaped, spelling, name, digest = parts
    algorithm = digests.algorithm_of(spelling)
    if algorithm is None:
        raise Refused("unsupported_digest", f"“{spelling[:40]}” is not supported.")
    name = unescape(name) if escaped else name
    return maker.make(number, sent, None, name=name, expected=[digests.parse(digest, algorithm)])


def _bsd_parts(line: str) -> tuple[str, str, str, str] | None:
    """Return the escape mark, the algorithm, the name and the digest."""
    before, _, after = line.rpartition(")")
    name, digest = _BSD_NAME.fullmatch(before), _BSD_DIGEST.fullmatch(after)
    return (name[1], name[2], name[3], digest[1]) if name and digest else None


def _merge(first: Line, other: Line) -> Line:
    return first._replace(
        sent=f"{first.sent}\n{other.sent}", expected={**first.expected, **other.expected}
    )
