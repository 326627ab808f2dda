"""Reports: collects from the queue the content of the mail about an ended batch."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable

from md5light.batch import Batch
from md5light.lists.entry import NOT_WELL, Entry, reason
from md5light.lists.formats import FORMS
from md5light.lists.writing import write
from md5light.mail.messages import Report
from md5light.queue.batches import Batches

#: bad lines in the text of a mail
SHOWN_LINES = 20

#: characters of a URL in it
SHOWN_CHARACTERS = 300


def gather(batches: Batches, batch: Batch, attach_bytes: int) -> Report:
    """Make the report of an ended batch; each attachment has at most `attach_bytes`.

    Every call makes the same bytes. Raises DatabaseUnavailable.
    """
    bad = list(batches.entries(batch.id, limit=SHOWN_LINES, statuses=NOT_WELL))
    attachments = {}
    for form in ("md5sum", "failed") if bad else ("md5sum",):
        pieces = write(batches.entries(batch.id), form, header=batch.header)
        content = _gzip(pieces, attach_bytes, int(batch.finished_at or 0))
        if content is not None:
            attachments[f"{form}-{batch.id[:8]}{FORMS[form].extension}.gz"] = content
    return Report(batch, batches.result(batch), tuple(map(_shown, bad)), attachments)


def _shown(entry: Entry) -> str:
    what = (entry.url or entry.sent)[:SHOWN_CHARACTERS]
    return f"{entry.position}: {what}: {reason(entry)}"


def _gzip(pieces: Iterable[bytes], most: int, time: int) -> bytes | None:
    """Compress `pieces`; None if the result has more than `most` bytes."""
    compressed = io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=compressed, mtime=time) as file:
        for piece in pieces:
            file.write(piece)
            if compressed.tell() > most:
                return None
    return compressed.getvalue() if compressed.tell() <= most else None
