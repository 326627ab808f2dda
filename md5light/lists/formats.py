"""The formats by name, without what reads and writes them: a command line offers the names."""

from __future__ import annotations

from typing import NamedTuple

#: formats of lists
FORMATS = ("urls", "sums", "bsd", "csv", "tsv", "ndjson", "json", "gcs", "pooch")


class Form(NamedTuple):
    """A format of a manifest."""

    media_type: str
    #: of the file name
    extension: str
    #: whether `names` chooses the names in its lines
    named: bool = False


_TEXT = "text/plain; charset=utf-8"

FORMS = {
    "ndjson": Form("application/x-ndjson", ".ndjson"),
    "csv": Form("text/csv; charset=utf-8; header=present", ".csv"),
    "md5sum": Form(_TEXT, ".md5", named=True),
    "sha1sum": Form(_TEXT, ".sha1", named=True),
    "sha256sum": Form(_TEXT, ".sha256", named=True),
    "sha512sum": Form(_TEXT, ".sha512", named=True),
    "bsd": Form(_TEXT, ".txt", named=True),
    "gcs": Form("text/tab-separated-values; charset=utf-8", ".tsv"),
    "pooch": Form(_TEXT, ".txt", named=True),
    "failed": Form(_TEXT, ".txt"),
}

#: what the lines of a manifest call a file
NAMES = ("url", "path", "basename", "name")
