"""Answers to requests, before they are rendered as JSON or as a page."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import bottle

from md5light.download.urls import MAX_CHARACTERS
from md5light.errors import Md5lightError
from md5light.job import Job, describe

#: bytes of a request's body: the longest URL with every character percent-encoded (four bytes of
#: UTF-8 become twelve), and space for the other fields
MAX_BODY_BYTES = 12 * MAX_CHARACTERS + 1536

#: Retry-After, in seconds, when the queue is full or the database is unavailable
RETRY_AFTER_SECONDS = 5

#: codes and sentences of requests that the HTTP layer refuses
ERRORS = {
    400: ("bad_request", "The request is malformed."),
    404: ("not_found", "There is nothing at this path."),
    405: ("method_not_allowed", "This path does not answer this method."),
    413: ("body_too_large", f"The body is larger than {MAX_BODY_BYTES} bytes."),
    415: (
        "unsupported_media_type",
        "Send application/x-www-form-urlencoded, multipart/form-data or application/json.",
    ),
    431: ("headers_too_large", "The request's headers are too large."),
    500: ("internal_error", "The server met an error of its own."),
    501: ("not_implemented", "The server does not do this."),
}


@dataclass(frozen=True)
class Answer:
    """A successful answer; `value` is a job, bytes, a file, or a value for JSON."""

    status: int
    value: Any
    headers: Mapping[str, str] = field(default_factory=dict)


#: the answer for an id without a job, also a malformed one
NOT_FOUND = Answer(404, {"status": "not found"})


class Problem(Md5lightError):
    """A request is answered with an error; `code` is one of the documented codes of HTTP errors.

    `retry_after` is in seconds; `details` are added to the code and the message.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after: float | None = None,
        details: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.details = details
        self.headers = {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}


def standard_problem(status: int) -> Problem:
    """Return the problem that `ERRORS` has for `status`."""
    return Problem(status, *ERRORS[status])


def list_too_large(max_bytes: int) -> Problem:
    message = f"The list is larger than {max_bytes:,} bytes; see [server] max_batch_bytes."
    return Problem(413, "list_too_large", message)


def too_many_lists() -> Problem:
    message = "Too many lists and manifests are being sent at once."
    return Problem(503, "too_many_lists", message, retry_after=RETRY_AFTER_SECONDS)


def to_json(value: object) -> bytes:
    """Encode `value` as the API does: sorted keys, no spaces, one line, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode() + b"\n"


def error_body(code: str, message: str) -> bytes:
    """Encode the body of an error."""
    return to_json({"error": {"code": code, "message": message}})


def as_json(outcome: Answer | Problem) -> bottle.HTTPResponse:
    """Render an answer or a problem for programs."""
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store", **outcome.headers}
    return bottle.HTTPResponse(as_json_body(outcome), outcome.status, headers)


def as_json_body(outcome: Answer | Problem) -> Any:
    """Return the body: bytes, or the answer's file."""
    if isinstance(outcome, Problem):
        error = {"code": outcome.code, "message": outcome.message, **outcome.details}
        return to_json({"error": error})
    if isinstance(outcome.value, (bytes, io.IOBase)):
        return outcome.value
    return to_json(describe(outcome.value) if isinstance(outcome.value, Job) else outcome.value)
