"""Requests for manifests: their options, and the file that answers them."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO, NamedTuple

from md5light import __version__
from md5light.batch import Batch
from md5light.errors import Refused
from md5light.lists.formats import FORMS
from md5light.web import forms
from md5light.web.answers import RETRY_AFTER_SECONDS, Answer, Problem
from md5light.web.middleware import Environ, has_client_gone

#: statuses of lines that a request may select
STATUSES = ("waiting", "running", "hashed", "matched", "mismatched", "failed", "canceled")

OPTIONS = ("format", "names", "status", "after", "limit", "partial")

#: characters of a batch's name in the name of the file
MAX_NAME_CHARACTERS = 60


class Options(NamedTuple):
    """The options of a request."""

    format: str = "ndjson"
    names: str = "url"
    statuses: tuple[str, ...] = ()
    after: int = 0
    limit: int | None = None
    partial: bool = False


def options(query: str) -> Options:
    """Read the options of a query. Raises Refused."""
    fields = forms.each_once(forms.decoded(query.encode("latin-1")))
    for name in fields:
        if name not in OPTIONS:
            raise forms.unknown(name)
    statuses = tuple(fields.get("status", "").replace(",", " ").split())
    if any(status not in STATUSES for status in statuses):
        raise Refused("invalid_status", f"`status` is one or more of {', '.join(STATUSES)}.")
    return Options(
        fields.get("format") or "ndjson",
        fields.get("names") or "url",
        statuses,
        _number(fields, "after", 0) or 0,
        _number(fields, "limit", 1),
        forms.yes_or_no(fields, "partial"),
    )


def etag(batch: Batch, asked: Options) -> str:
    """Return the entity tag of an ended batch's manifest (RFC 9110, 8.8.3)."""
    source = repr((__version__, batch.id, batch.ends, batch.finished_at, asked))
    return f'"{hashlib.sha256(source.encode()).hexdigest()[:32]}"'


def is_known(etag: str, if_none_match: str) -> bool:
    """Tell whether the client already has the manifest (RFC 9110, 13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags


def headers(batch: Batch, asked: Options) -> dict[str, str]:
    """Return the headers of both the manifest and a 304; a retry changes an ended batch."""
    if not batch.ended:
        return {"Cache-Control": "no-store"}
    return {"Cache-Control": "private, no-cache", "ETag": etag(batch, asked)}


def while_awaited(pieces: Iterable[bytes], environ: Environ) -> Iterator[bytes]:
    """Yield `pieces` until the client has gone; then raise the Problem 499, which the log shows."""
    for piece in pieces:
        if has_client_gone(environ):
            raise Problem(499, "client_gone", "The client closed its connection.")
        yield piece


def answer(pieces: Iterable[bytes], batch: Batch, asked: Options) -> Answer:
    """Write the manifest to an unnamed file, which the server sends without holding a thread."""
    form = FORMS[asked.format]
    file = _written(pieces)
    size = file.tell()
    file.seek(0)
    sent: Mapping[str, str] = {
        "Content-Type": form.media_type,
        "Content-Length": str(size),
        "Content-Disposition": f'attachment; filename="{file_name(batch)}{form.extension}"',
        **headers(batch, asked),
    }
    return Answer(200, file if size else b"", sent)


def file_name(batch: Batch) -> str:
    """Return a file name made from the batch's name, in characters that are safe everywhere."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", batch.name or "").strip("-")[:MAX_NAME_CHARACTERS]
    return name or batch.id


def _written(pieces: Iterable[bytes]) -> BinaryIO:
    try:
        with contextlib.ExitStack() as on_error:
            file: BinaryIO = on_error.enter_context(tempfile.TemporaryFile())
            for piece in pieces:
                file.write(piece)
            file.flush()
            on_error.pop_all()
            return file
    except OSError as error:
        raise _no_space(error) from None


def _no_space(error: OSError) -> Problem:
    message = f"The server could not write the manifest: {error.strerror}."
    return Problem(503, "no_space", message, retry_after=RETRY_AFTER_SECONDS)


def _number(fields: Mapping[str, str], name: str, least: int) -> int | None:
    text = fields.get(name)
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,15}", text, re.ASCII) or int(text) < least:
        raise Refused(f"invalid_{name}", f"`{name}` is a whole number from {least}.")
    return int(text)
