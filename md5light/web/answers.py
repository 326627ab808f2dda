"""Answers: the one form that all of them have."""

from __future__ import annotations

import json

import bottle

from md5light.errors import DatabaseUnavailable
from md5light.logs import Log

log = Log(__name__)

#: bytes of a request's body; a URL of 8,192 characters with every one escaped fits twice
MAX_BODY_BYTES = 64 * 1024

#: seconds after which a client may try again when the queue is full or the database out of reach
RETRY_AFTER_SECONDS = 5

#: code and sentence for what the HTTP layer itself refuses
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


def to_json(value: object) -> bytes:
    """Write `value` as the API does: keys sorted, no spaces, one line, UTF-8."""
    return (
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        + b"\n"
    )


def error_body(code: str, message: str) -> bytes:
    """Write the body of every error."""
    return to_json({"error": {"code": code, "message": message}})


def answer(status: int, value: object, **headers: str) -> bottle.HTTPResponse:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return bottle.HTTPResponse(
        to_json(value),
        status,
        {"Content-Type": "application/json", "Cache-Control": "no-store", **named},
    )


def error(status: int, code: str, message: str, **headers: str) -> bottle.HTTPResponse:
    return answer(status, {"error": {"code": code, "message": message}}, **headers)


def try_later(code: str, message: str) -> bottle.HTTPResponse:
    return error(503, code, message, Retry_After=str(RETRY_AFTER_SECONDS))


def unreadable(reason: DatabaseUnavailable) -> bottle.HTTPResponse:
    log.error("database_unavailable", reason=reason)
    return try_later(
        "database_unavailable", "The database does not answer or can't be written now."
    )


def not_found() -> bottle.HTTPResponse:
    return answer(404, {"status": "not found"})
