"""An entry of a manifest: a line of a list together with its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from md5light.finding import differences

#: statuses of lines whose file was downloaded
DONE = ("hashed", "matched", "mismatched")
#: statuses of ended lines that need attention
NOT_WELL = ("failed", "mismatched", "canceled")


class Entry(NamedTuple):
    """A line and its result; digests are in lower-case hex, by algorithm."""

    #: in the list, counted from 1
    position: int
    #: as Line.sent
    sent: str
    #: empty if the line could not be parsed
    url: str
    #: waiting, running, hashed, matched, mismatched, failed or canceled
    status: str
    name: str | None = None
    id: str | None = None
    expected_size: int | None = None
    expected: Mapping[str, str] = {}
    #: bytes of the body
    size: int | None = None
    digests: Mapping[str, str] = {}
    error_code: str | None = None
    error_message: str | None = None
    final_url: str | None = None
    content_type: str | None = None
    attempts: int = 0
    #: RFC 3339
    finished_at: str | None = None
    #: the job that downloads it; in no manifest
    job_id: str | None = None


def reason(entry: Entry) -> str:
    """Return why a line needs attention, as one line of text."""
    if entry.status == "mismatched":
        expected = {"size": entry.expected_size, **entry.expected}
        found = {"size": entry.size, **entry.digests}
        text = "; ".join(differences(expected, found, entry.content_type))
    elif entry.error_message:
        text = f"{entry.error_message} ({entry.error_code})"
    else:
        return entry.status
    return f"{entry.status}: {' '.join(text.split())}"
