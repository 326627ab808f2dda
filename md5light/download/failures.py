"""What went wrong with a download, in our own words."""

from __future__ import annotations

import datetime
import errno
import re
import ssl

from md5light.download.dates import parse_date
from md5light.download.response import NoAnswer, Response
from md5light.errors import Failure, OutOfResources, PermanentFailure, TemporaryFailure

#: statuses that may be another one later, those of Cloudflare (52x, 530) and other proxies
#: included; its 525 and 526 tell of the origin's certificate
PASSING = {408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 527, 529, 530, 598}
#: the longest that a server's Retry-After is heeded, in seconds
MAX_RETRY_AFTER = 3600.0

#: errors of the system that tell of this machine and not of the server
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


def status_failure(response: Response) -> Failure:
    """Return the failure that the status of an answer without a file means."""
    message = f"The server answered with status {response.status}."
    if response.status in PASSING:
        retry_after = _retry_after(response.header("retry-after"))
        return TemporaryFailure("http_status", message, retry_after=retry_after)
    return PermanentFailure("http_status", message)


def explained(error: Exception) -> Failure:
    """Return a failure as it is, any other error as a temporary failure."""
    if isinstance(error, Failure):
        return error
    if _is_shortage(error):
        problem = "This machine had no file descriptor, memory or thread to spare."
        return OutOfResources("connection_failed", problem)
    if isinstance(error, TimeoutError):
        return TemporaryFailure("timed_out", "The connection to the server took too long.")
    if isinstance(error, NoAnswer):
        problem = "The server closed the connection without an answer."
        return TemporaryFailure("connection_failed", problem)
    if isinstance(error, ssl.SSLError):
        return TemporaryFailure("tls_failed", "The TLS connection broke.")
    if isinstance(error, OSError):
        return TemporaryFailure("connection_failed", "The connection to the server failed.")
    return TemporaryFailure("bad_response", "The server's answer could not be read.")


def _is_shortage(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in SHORTAGES
    # threading raises RuntimeError where the system refuses another thread
    return isinstance(error, MemoryError) or "start new thread" in str(error)


def _retry_after(value: str | None) -> float | None:
    """Read Retry-After, seconds or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]+", value):
        return min(float(value[:20]), MAX_RETRY_AFTER)
    date = parse_date(value)
    if date is None:
        return None
    seconds = (date - datetime.datetime.now(datetime.timezone.utc)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)
