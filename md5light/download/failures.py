"""Failures of a download: from a status or an error to a code and a sentence."""

from __future__ import annotations

import errno
import ssl

from md5light.download.patience import asked_rest, retry_after
from md5light.download.response import NoAnswer, Response
from md5light.errors import Failure, OutOfResources, PermanentFailure, TemporaryFailure

#: statuses of a temporary failure, also those of Cloudflare (52x, 530) and other proxies; its 525
#: and 526 are permanent: they are about the origin's certificate
PASSING = {408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 527, 529, 530, 598}
#: statuses by which a host asks its clients to pause, whatever the file
RESTING = {429, 503}

#: system errors that are a shortage of this machine and no failure of the server
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


def status_failure(response: Response) -> Failure:
    """Return the failure for an answer whose status means that it has no file."""
    message = f"The server answered with status {response.status}."
    if response.status in RESTING:
        return of_host(TemporaryFailure("http_status", message, retry_after=asked_rest(response)))
    if response.status in PASSING:
        return TemporaryFailure("http_status", message, retry_after=retry_after(response))
    return PermanentFailure("http_status", message)


def of_host(failure: Failure) -> Failure:
    """Mark a failure as one of the host, not of the file."""
    failure.of_host = True
    return failure


def explained(error: Exception) -> Failure:
    """Return a failure as it is, any other error as a temporary failure.

    Other errors are those of a connection without an answer, so the host's; later breaks and
    time-outs are raised as failures where they are found.
    """
    if isinstance(error, Failure):
        return error
    if _is_shortage(error):
        problem = "This machine had no file descriptor, memory or thread to spare."
        return OutOfResources("connection_failed", problem)
    failure = _explained(error)
    return failure if failure.code == "bad_response" else of_host(failure)


def _explained(error: Exception) -> Failure:
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
