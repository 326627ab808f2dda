"""Records with named fields, as in CSV and JSON: the names of the fields and their meaning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from md5light.errors import Refused
from md5light.finding import ALGORITHMS
from md5light.lists import digests
from md5light.lists.lines import Line, LineMaker, agreed_size, parse_size

SIZES = ("size", "bytes", "length")
#: the first of these that is not empty is the name
NAMES = ("name", "filename", "path")
#: columns of digests, with their algorithms; None: any
DIGESTS = {algorithm: algorithm for algorithm in ALGORITHMS} | dict.fromkeys(
    ("checksum", "digest", "hash")
)
KNOWN = frozenset(["url", "id", *SIZES, *NAMES, *DIGESTS])
#: only in JSON: a list of objects with `type` and `checksum` (GA4GH DRS)
CHECKSUMS = "checksums"


def known(field: str) -> str:
    """Return a field's name as in the table above: in lower case, without spaces around it."""
    return field.strip().lower()


def make_line(maker: LineMaker, number: int, sent: str, record: Mapping[str, object]) -> Line:
    """Make a line from a record whose field names `known` has normalised; raises Refused."""
    fields = {
        field: _text(field, value)
        for field, value in record.items()
        if field in KNOWN and value is not None
    }
    expected = [
        digests.parse(fields[field], algorithm)
        for field, algorithm in DIGESTS.items()
        if field in fields
    ]
    if record.get(CHECKSUMS) is not None:
        expected += _checksums(record[CHECKSUMS])
    return maker.make(
        number,
        sent,
        fields.get("url", "").strip() or None,
        name=next((fields[field] for field in NAMES if fields.get(field)), None),
        id=fields.get("id"),
        size=agreed_size(parse_size(fields[field]) for field in SIZES if field in fields),
        expected=expected,
    )


def _text(field: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Refused("invalid_value", f"The value of “{field}” must be a string or a whole number.")


def _checksums(value: object) -> Iterable[tuple[str, str] | None]:
    """Parse `checksums`; unsupported algorithms are ignored if at least one is supported."""
    found = list(_typed(value))
    if found and not any(algorithm for algorithm, _ in found):
        raise Refused("unsupported_digest", "None of the line's “checksums” is supported.")
    return [digests.parse(checksum, algorithm) for algorithm, checksum in found if algorithm]


def _typed(value: object) -> Iterator[tuple[str | None, str]]:
    if not isinstance(value, list):
        raise Refused("invalid_value", "The value of “checksums” must be a list.")
    for entry in value:
        if not isinstance(entry, dict):
            raise Refused("invalid_value", "An entry of “checksums” must be an object.")
        yield (
            digests.algorithm_of(_text("type", entry.get("type") or "")),
            _text("checksum", entry.get("checksum") or ""),
        )
