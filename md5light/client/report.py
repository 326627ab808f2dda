"""The report on a batch that has ended: a summary, or line by line as `md5sum -c` prints."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import IO, Any

from md5light.client.answers import Batch
from md5light.client.progress import duration
from md5light.client.service import Service
from md5light.errors import Unreachable
from md5light.lists.entry import NOT_WELL, Entry, reason
from md5light.lists.names import escape
from md5light.text import visible

#: bad lines that a summary names
FIRST = 5

#: statuses in a summary, in this order
_SUMMED = ("matched", "hashed", "mismatched", "failed", "canceled")

#: what `md5sum -c` prints after a name
_VERDICTS = {"matched": "OK", "mismatched": "FAILED", "hashed": "NO CHECKSUM"}
_UNREAD = "FAILED open or read"


def complain(text: str) -> None:
    """Print a message on standard error, each of its lines with the program's name."""
    for line in text.splitlines():
        print(f"md5light: {line}", file=sys.stderr)


def summarize(service: Service, batch: Batch, seconds: float) -> None:
    """Print counts, time, the first bad lines with their reasons, and how to get the others."""
    counts = batch.counts
    found = [f"{counts[name]:,} {name}" for name in _SUMMED if counts.get(name)]
    lines = "line" if counts["total"] == 1 else "lines"
    complain(f"{counts['total']:,} {lines} in {duration(seconds)}: {', '.join(found)}")
    if not batch.bad:
        return
    for entry in _first_bad(service, batch):
        said = [f"line {entry.position}", entry.name or entry.url, reason(entry)]
        complain(visible(": ".join(filter(None, said))))
    if batch.bad > FIRST:
        complain(f"and {batch.bad - FIRST:,} more")
    complain(f"all of them, as a list: md5light manifest {batch.id} --manifest failed")


def rows(described: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Make rows for people from the server's object of a batch."""
    for name, value in sorted(described.items()):
        if isinstance(value, dict):
            yield from ((f"{name} {part}", visible(str(count))) for part, count in value.items())
        elif name == "errors":
            yield from (("errors", visible(_error(error))) for error in value)
        else:
            yield name, "-" if value in (None, "", []) else visible(str(value))


def _error(error: dict[str, Any]) -> str:
    positions = ", ".join(map(str, error["lines"]))
    return f"{error['count']} {error['code']}: line {positions}"


def _first_bad(service: Service, batch: Batch) -> list[Entry]:
    with tempfile.TemporaryFile() as file:
        statuses = ",".join(NOT_WELL)
        service.manifest(batch.id, file, patiently=True, status=statuses, limit=FIRST)
        return list(entries(file, service.url))


def print_checked(lines: Iterable[Entry], *, quiet: bool) -> Counter[str]:
    """Print each line as `md5sum -c` does, only bad ones if `quiet`; returns the statuses."""
    statuses: Counter[str] = Counter()
    for entry in lines:
        statuses[entry.status] += 1
        mark, name = _escaped(_label(entry))
        if entry.status not in _VERDICTS or entry.status == "mismatched":
            sys.stdout.flush()
            complain(visible(f"{name}: {reason(entry)}"))
        if not (quiet and entry.status == "matched"):
            print(f"{mark}{name}: {_VERDICTS.get(entry.status, _UNREAD)}")
    return statuses


def _escaped(name: str) -> tuple[str, str]:
    """Escape as `md5sum -c` does: only a name that would take two lines."""
    return escape(name) if re.search("[\\r\\n]", name) else ("", name)


def warn_as_md5sum(statuses: Counter[str]) -> None:
    """Print the warnings at the end of `md5sum -c` (GNU coreutils)."""
    if unread := statuses.total() - sum(statuses[status] for status in _VERDICTS):
        files = "file" if unread == 1 else "files"
        complain(f"WARNING: {unread} listed {files} could not be read")
    if wrong := statuses["mismatched"]:
        checksums = "checksum" if wrong == 1 else "checksums"
        complain(f"WARNING: {wrong} computed {checksums} did NOT match")
    if unchecked := statuses["hashed"]:
        lines = "line has" if unchecked == 1 else "lines have"
        complain(f"WARNING: {unchecked} {lines} no checksum to compare with")


def entries(file: IO[bytes], server: str) -> Iterator[Entry]:
    """Read a manifest in the format `ndjson`."""
    file.seek(0)
    for line in file:
        try:
            yield _entry(json.loads(line))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise Unreachable(f"{server}: its manifest can't be understood") from None


def _entry(record: dict[str, Any]) -> Entry:
    expected = dict(record["expected"])
    error = record["error"] or {}
    return Entry(
        position=int(record["position"]),
        sent="",
        url=record["url"] or "",
        status=str(record["status"]),
        name=record["name"],
        id=record["id"],
        expected_size=expected.pop("size", None),
        expected=expected,
        size=record["size"],
        digests={name: record[name] for name in expected if record.get(name)},
        error_code=error.get("code"),
        error_message=error.get("message"),
        content_type=record["content_type"],
    )


def _label(entry: Entry) -> str:
    return entry.name or entry.url or f"line {entry.position}"
