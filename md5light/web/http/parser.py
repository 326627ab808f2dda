"""The parser of requests: it is as strict as RFC 9112, and lists have bounds of their own."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from waitress.parser import HTTPRequestParser, ParsingError
from waitress.utilities import Error

#: bytes of a request's first line and headers; above it 431
MAX_HEADER_BYTES = 32 * 1024

#: bytes of a body that are kept in memory; a larger one is kept in an unnamed temporary file
MEMORY_BYTES = 64 * 1024

#: bytes of a body beyond its list: the other fields and the marks between them
LIST_ENVELOPE_BYTES = 64 * 1024

#: a Host header (RFC 9112, 3.2); two of them come joined by a comma
HOST = re.compile(r"([A-Za-z0-9._~%!$&'()*+;=-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")

#: path of a manifest
MANIFEST = re.compile(r"/batches/[^/]*/manifest")


@dataclass(frozen=True)
class Bounds:
    """The bounds of requests with a list and of requests for a manifest."""

    #: bytes of a list; 0: there are none
    max_list_bytes: int
    #: waitress' settings for a request with a list
    adjustments: Any
    #: tells whether one more such request, which counts itself, may go on
    have_place: Callable[[Parser], bool]


def list_adjustments(adjustments: Any, max_list_bytes: int) -> Any:
    """Return waitress' settings for a request with a list, made of those for the others."""
    changed = copy.copy(adjustments)
    changed.max_request_body_size = max_list_bytes + LIST_ENVELOPE_BYTES + 1
    return changed


class TooManyLists(Error):  # type: ignore[misc]
    """There are as many lists and manifests at once as are allowed."""

    code, reason = 503, "Service Unavailable"


class Parser(HTTPRequestParser):  # type: ignore[misc]
    """waitress' parser, made stricter by RFC 9112; it also answers refused requests."""

    def __init__(self, bounds: Bounds, adjustments: Any) -> None:
        super().__init__(adjustments)
        self.bounds = bounds
        self.has_list = self.wants_manifest = False

    @property
    def has_large_list(self) -> bool:
        return self.has_list and (self.chunked or self.content_length > MEMORY_BYTES)

    def received(self, data: bytes) -> int:
        begins = not self.headers_finished
        consumed: int = super().received(data)
        if begins and self.headers_finished and not self.bounds.have_place(self):
            self.error = TooManyLists("")
            self.completed = True
        if self.completed:  # refused, or without a body: 100 Continue would make us wait for one
            self.expect_continue = False
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError:  # such as http://[ for a URI
            raise ParsingError("Bad URI or number") from None
        host = self.headers.get("HOST", "" if self.version != "1.1" else None)
        if host is None or not HOST.fullmatch(host):
            raise ParsingError("There must be one Host")
        coded = self.chunked or "TRANSFER_ENCODING" in self.headers
        if coded and (self.version != "1.1" or "CONTENT_LENGTH" in self.headers):
            # Another server on the way may read its end elsewhere (RFC 9112, 6.1).
            self.headers["CONNECTION"] = "close"
        self._look_for_lists()

    def _look_for_lists(self) -> None:
        self.wants_manifest = MANIFEST.fullmatch(self.path) is not None
        self.has_list = self.path == "/batches" and self.bounds.max_list_bytes > 0
        if self.has_list:
            self.adj = self.bounds.adjustments
