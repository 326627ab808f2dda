"""Writing a manifest: the lines of a batch and their results, in formats of other programs."""

from __future__ import annotations

import base64
import csv
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple

from md5light.errors import Refused
from md5light.finding import ALGORITHMS
from md5light.lists.entry import DONE, NOT_WELL, Entry, reason
from md5light.lists.formats import FORMS, NAMES
from md5light.lists.names import basename_of, escape, path_of
from md5light.lists.plain import GCS_HEADER

#: the names that a text format can give to the file of a line
_NAMES: dict[str, Callable[[Entry], str]] = {
    "url": lambda entry: entry.url,
    "path": lambda entry: path_of(entry.url),
    "basename": lambda entry: basename_of(entry.url),
    "name": lambda entry: entry.name or entry.url,
}

COLUMNS = (
    *("position", "url", "name", "id", "status", "size", *ALGORITHMS),
    *("expected_size", *(f"expected_{algorithm}" for algorithm in ALGORITHMS)),
    *("error_code", "error_message", "final_url", "content_type", "attempts", "finished_at"),
)

#: lines that are encoded at once
_PORTION = 256


class Manifest(NamedTuple):
    """The content of a manifest."""

    #: can be iterated over several times
    entries: Iterable[Entry]
    #: one of NAMES
    names: str
    #: the header line of the list, which is needed to parse its lines again
    header: str | None


def _ndjson(manifest: Manifest) -> Iterator[str]:
    encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode
    for entry in manifest.entries:
        size = {} if entry.expected_size is None else {"size": entry.expected_size}
        error = {"code": entry.error_code, "message": entry.error_message}
        yield (
            encode(
                {
                    "position": entry.position,
                    "url": entry.url,
                    "name": entry.name,
                    "id": entry.id,
                    "status": entry.status,
                    "size": entry.size,
                    **_digests(entry),
                    "expected": {**size, **entry.expected},
                    "error": error if entry.error_code else None,
                    "final_url": entry.final_url,
                    "content_type": entry.content_type,
                    "attempts": entry.attempts,
                    "finished_at": entry.finished_at,
                }
            )
            + "\n"
        )


def _digests(entry: Entry) -> dict[str, str | None]:
    return {algorithm: entry.digests.get(algorithm) for algorithm in ALGORITHMS}


def _csv(manifest: Manifest) -> Iterator[str]:
    # With this line end the writer quotes cells that have either of its characters.
    write_row = csv.writer(_Row(), lineterminator="\r\n").writerow
    yield write_row(COLUMNS)
    for entry in manifest.entries:
        expected = (entry.expected.get(algorithm) for algorithm in ALGORITHMS)
        yield write_row(
            (
                *(entry.position, entry.url, entry.name, entry.id, entry.status, entry.size),
                *_digests(entry).values(),
                *(entry.expected_size, *expected),
                *(entry.error_code, entry.error_message, entry.final_url, entry.content_type),
                *(entry.attempts, entry.finished_at),
            )
        )


class _Row:
    """The file for csv.writer: its writerow then returns the row, ended by a line feed."""

    def write(self, row: str) -> str:
        return row.removesuffix("\r\n") + "\n"


def _sum(algorithm: str, entry: Entry, name: str) -> str:
    """Format a line as md5sum, sha1sum, … do (GNU coreutils)."""
    if algorithm not in entry.digests:
        return ""
    mark, escaped = escape(name)
    return f"{mark}{entry.digests[algorithm]}  {escaped}\n"


def _bsd(entry: Entry, name: str) -> str:
    mark, escaped = escape(name)
    return "".join(
        f"{mark}{algorithm.upper()} ({escaped}) = {entry.digests[algorithm]}\n"
        for algorithm in ALGORITHMS
        if algorithm in entry.digests
    )


def _pooch(entry: Entry, name: str) -> str:
    """Use the first algorithm that the entry has; a name with a line break can't be written."""
    found = [each for each in ("sha256", "sha512", "sha1", "md5") if each in entry.digests]
    if not found or "\n" in name or "\r" in name:
        return ""
    digest = f"{found[0]}:{entry.digests[found[0]]}"
    return f"{_shell_word(name)} {digest} {_shell_word(entry.url)}\n"


def _shell_word(text: str) -> str:
    return shlex.quote(text) if re.search(r"[\s'\"\\]|^#", text) else text


def _text(line: Callable[[Entry, str], str], manifest: Manifest) -> Iterator[str]:
    """Write the lines that `line` can't write first, as comments, and then the others."""
    name = _NAMES[manifest.names]
    for entry in manifest.entries:
        if not entry.url:
            yield f"# {reason(entry)}: {escape(entry.sent)[1]}\n"
        elif not line(entry, name(entry)):
            yield f"# {reason(entry)}: {escape(name(entry))[1]}\n"
    for entry in manifest.entries:
        if entry.url:
            yield line(entry, name(entry))


def _gcs(manifest: Manifest) -> Iterator[str]:
    """Write for Google's Storage Transfer Service: sorted, so all rows are kept in memory."""
    rows: dict[str, str] = {}
    for entry in manifest.entries:
        if entry.status in DONE:
            md5 = base64.b64encode(bytes.fromhex(entry.digests["md5"])).decode("ascii")
            rows[entry.url] = f"{entry.url}\t{entry.size}\t{md5}\n"
    yield GCS_HEADER + "\n"
    # The order of code points is that of UTF-8's bytes.
    for url in sorted(rows):
        yield rows[url]


def _failed(manifest: Manifest) -> Iterator[str]:
    if manifest.header is not None:
        yield manifest.header + "\n"
    for entry in manifest.entries:
        if entry.status in NOT_WELL:
            yield f"# {reason(entry)}\n{entry.sent}\n"


_LINES: dict[str, Callable[[Manifest], Iterator[str]]] = {
    "ndjson": _ndjson,
    "csv": _csv,
    "md5sum": partial(_text, partial(_sum, "md5")),
    "sha1sum": partial(_text, partial(_sum, "sha1")),
    "sha256sum": partial(_text, partial(_sum, "sha256")),
    "sha512sum": partial(_text, partial(_sum, "sha512")),
    "bsd": partial(_text, _bsd),
    "gcs": _gcs,
    "pooch": partial(_text, _pooch),
    "failed": _failed,
}


def write(
    entries: Iterable[Entry],
    format: str = "ndjson",
    *,
    names: str = "url",
    partial: bool = False,
    header: str | None = None,
) -> Iterator[bytes]:
    """Return the manifest in pieces of some KiB.

    `entries` is iterated over up to three times; `header` is the Reading's. Raises Refused at once:
    "unknown_format"; "unknown_names"; "ambiguous_names" if one name stands for two URLs;
    "not_all_done" if `gcs` would lack a line, unless `partial` allows that.
    """
    if format not in FORMS:
        raise Refused("unknown_format", f"A manifest's format is {', '.join(FORMS)}.")
    if names not in NAMES:
        raise Refused("unknown_names", f"A manifest's names are {', '.join(NAMES)}.")
    if FORMS[format].named and names != "url":
        _check_names(entries, _NAMES[names])
    if format == "gcs" and not partial and any(entry.status not in DONE for entry in entries):
        raise Refused("not_all_done", "Not every line is done; partial=yes leaves the others out.")
    return _pieces(_LINES[format](Manifest(entries, names, header)))


def _check_names(entries: Iterable[Entry], name: Callable[[Entry], str]) -> None:
    """Raise Refused if two URLs have one name; it keeps 64-bit hashes, not the texts."""
    urls: dict[int, int] = {}
    for entry in entries:
        url = hash(entry.url)
        if entry.url and urls.setdefault(hash(name(entry)), url) != url:
            raise Refused(
                "ambiguous_names",
                f"Line {entry.position} has the same name as a line with another URL.",
            )


def _pieces(lines: Iterator[str]) -> Iterator[bytes]:
    while portion := list(islice(lines, _PORTION)):
        if piece := "".join(portion):
            yield piece.encode("utf-8")
