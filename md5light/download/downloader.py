"""One download: from a URL to the MD5 of what the server sends, or to the reason why there is none.

It follows redirects itself, so that the guard sees every hop, and goes on after a break where the server lets it.
What comes out is a checksum of the whole body or a failure, never anything between.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import re
import socket
import ssl
import threading

from md5light.config import DownloadConfig
from md5light.deadlines import Deadlines
from md5light.download import urls
from md5light.download.connection import Connections, Exchange
from md5light.download.guard import Guard, Resolve
from md5light.download.hasher import Hasher
from md5light.download.response import NoAnswer, Response
from md5light.download.transfer import Transfer
from md5light.errors import Failure, PermanentFailure, Refused, TemporaryFailure
from md5light.job import Hashed

__all__ = ["Downloader", "Hashed", "Transfer"]

REDIRECTS = {301, 302, 303, 307, 308}
#: statuses that may be another one later
PASSING = {408, 425, 429, 500, 502, 503, 504}
#: the longest that a server's Retry-After is heeded, in seconds
MAX_RETRY_AFTER = 3600.0

#: what tells whether the file is still the same
IDENTITY = ("etag", "last-modified", "content-encoding")

#: tries to go on without a byte of progress, and the first pause before one, in seconds; it doubles (and is short,
#: since a line may break thousands of times)
RESUME_TRIES = 6
RESUME_PAUSE = 0.025
#: how often one attempt begins anew because the file changed under it
MAX_RESTARTS = 3

#: streams hashed by a second thread at once: more would find no processor, and take memory
RINGS = 2

#: the longest value of a header that is kept, in characters
MAX_VALUE = 255


class Downloader:
    """Downloads for a process: kept connections, one TLS context, one thread for deadlines; threads share it.

    `connections` is how many downloads run at once; `resolve` is asked for addresses as socket.getaddrinfo is.
    """

    def __init__(
        self, config: DownloadConfig, *, connections: int = 8, resolve: Resolve = socket.getaddrinfo
    ) -> None:
        self._config = config
        self._connections = Connections(config, Guard(config, resolve=resolve), connections)
        self._deadlines = Deadlines(config.max_seconds)
        self._rings = threading.Semaphore(RINGS)

    def download(self, url: str, transfer: Transfer) -> Hashed:
        """Download `url` and hash it; raises PermanentFailure, TemporaryFailure or Stopped, and nothing else."""
        try:
            with (
                self._deadlines.watch(lambda: self._expire(transfer)),
                Hasher(self._rings) as hasher,
            ):
                transfer.check()
                return _Attempt(self._config, self._connections, transfer, hasher).run(url)
        except (OSError, ValueError, RuntimeError) as error:
            # Nothing of the kind is known to come this far; a server that finds a way must not end a worker.
            raise _explained(error, transfer) from error

    def close(self) -> None:
        """Close the kept connections; downloads that still run go on to their end."""
        self._deadlines.close()
        self._connections.close()

    def _expire(self, transfer: Transfer) -> None:
        seconds = self._config.max_seconds
        transfer.end(
            TemporaryFailure("timed_out", f"The download took longer than {seconds:g} seconds.")
        )


class _RestRefused(TemporaryFailure):
    """Asked for the rest of a file, the server answered that there is none."""


class _Attempt:
    """One attempt: where in the body it is, and what is needed to go on there after a break."""

    def __init__(
        self, config: DownloadConfig, connections: Connections, transfer: Transfer, hasher: Hasher
    ) -> None:
        self._config = config
        self._connections = connections
        self._transfer = transfer
        self._hasher = hasher
        self._identity: dict[str, str | None] = {}
        #: what If-Range may say; None: there is no going on
        self._if_range: str | None = None
        #: headers that ask for the rest of a body that broke off
        self._range = ""
        self._restarts = self._tries = self._furthest = 0

    def run(self, text: str) -> Hashed:
        self._first = self._url = _parse(text)
        while True:
            try:
                return self._fetch()
            except _RestRefused:
                # The file has shrunk or moved, or a signed URL has expired: ask for all of it, from the first URL.
                self._move(self._first)
            except (TemporaryFailure, OSError) as error:
                self._go_on(_explained(error, self._transfer))

    def _fetch(self) -> Hashed:
        """Ask for the file or the rest of it, judge the answer and take its body in."""
        exchange = self._ask()
        with exchange as response:
            if response.status == 206 and self._range:
                self._continue(response)
            elif response.status == 200:
                self._begin(response)
            elif self._range and response.status not in PASSING:
                raise _RestRefused(
                    "http_status", f"The server answered with status {response.status}."
                )
            else:
                raise _status(response)
            self._receive(response)
            exchange.finish()
        self._check_size()
        return Hashed(
            self._hasher.hexdigest(),
            self._transfer.bytes_done,
            self._url.text,
            self._content_type,
            *(_one_line(self._identity[name]) for name in ("etag", "last-modified")),
        )

    def _ask(self) -> Exchange:
        """Follow redirects, whose bodies are not read, to the answer that counts; its URL is asked from then on."""
        for _ in range(self._config.max_redirects + 1):
            exchange = self._connections.get(self._url, self._range, self._transfer)
            if exchange.response.status not in REDIRECTS:
                return exchange
            with exchange as response:
                self._move(_redirected(self._url, response))
                if response.length == 0:
                    with contextlib.suppress(
                        TemporaryFailure
                    ):  # more than announced: no matter in a redirect
                        exchange.finish()
        raise PermanentFailure(
            "too_many_redirects",
            f"There are more than {self._config.max_redirects} redirects; [download] max_redirects rules that.",
        )

    def _move(self, url: urls.URL) -> None:
        """Ask for all of `url` next: validators are those of one URL and prove nothing for another."""
        self._url, self._range, self._if_range = url, "", None

    def _begin(self, response: Response) -> None:
        identity = {name: response.header(name) for name in IDENTITY}
        if self._transfer.bytes_done:
            # Asked for the rest, the server sends everything: the file has changed, or ranges are not kept.
            self._restarts += 1
            self._hasher.restart()
            self._transfer.bytes_done = self._furthest = 0
        ranges_kept = "none" not in (response.header("accept-ranges") or "").lower() and (
            not self._range or identity != self._identity
        )
        self._if_range = (
            _if_range(identity) if ranges_kept and self._restarts <= MAX_RESTARTS else None
        )
        self._identity = identity
        self._content_type = _one_line(response.header("content-type"))
        self._expect(response.length, response.length)

    def _continue(self, response: Response) -> None:
        """Check that a 206 is what was asked for (RFC 9110, 14.4 and 15.3.7): the rest of the very same file."""
        match = re.fullmatch(
            r"(?i:bytes) ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})",
            response.header("content-range") or "",
        )
        if not match:
            raise _bad_range()
        start, last, total = (int(number) for number in match.groups())
        if (
            start != self._transfer.bytes_done
            or not start <= last < total
            or self._transfer.bytes_total not in (None, total)
            or response.length not in (None, last + 1 - start)
            or not self._is_unchanged(response)
        ):
            raise _bad_range()
        self._expect(total, last + 1)

    def _is_unchanged(self, response: Response) -> bool:
        """Tell whether a part is of the same file: it must repeat the ETag but not the date (RFC 9110, 15.3.7)."""
        if "multipart/byteranges" in (response.header("content-type") or "").lower():
            return False
        etag_or_date = (response.header("etag"), self._identity["last-modified"])
        return self._if_range in etag_or_date and all(
            response.header(name) in (None, value) for name, value in self._identity.items()
        )

    def _expect(self, total: int | None, until: int | None) -> None:
        if total is not None and 0 < self._config.max_bytes < total:
            raise self._too_large()
        self._transfer.bytes_total = total
        self._until = until

    def _receive(self, response: Response) -> None:
        transfer, hasher, most = (
            self._transfer,
            self._hasher,
            self._config.max_bytes or float("inf"),
        )
        try:
            while count := response.readinto(hasher.room(response.length)):
                hasher.filled(count)
                transfer.bytes_done += count
                if transfer.bytes_done > most:
                    raise self._too_large()
        except (ConnectionError, ssl.SSLError):
            raise TemporaryFailure(
                "incomplete", "The connection broke before the body had ended."
            ) from None
        # A body that ends with the connection may have been ended by us.
        transfer.check()

    def _check_size(self) -> None:
        if self._until is not None and self._until < self._transfer.bytes_done:
            raise _bad_range()
        if self._transfer.bytes_total not in (None, self._transfer.bytes_done):
            raise TemporaryFailure(
                "incomplete", "The server sent less of the file than was asked for."
            )

    def _go_on(self, failure: TemporaryFailure) -> None:
        """Pause and ask for the rest next, or raise `failure` where there is no going on."""
        done = self._transfer.bytes_done
        if done > self._furthest:
            self._furthest, self._tries = done, 0
        if (
            self._if_range is None
            or failure.code == "bad_response"
            or failure.retry_after
            or self._tries == RESUME_TRIES
        ):
            raise failure
        self._transfer.wait(lambda: False, RESUME_PAUSE * 2**self._tries)
        self._tries += 1
        self._range = f"Range: bytes={done}-\r\nIf-Range: {self._if_range}\r\n" if done else ""

    def _too_large(self) -> PermanentFailure:
        return PermanentFailure(
            "too_large",
            f"The file is larger than {self._config.max_bytes:,} bytes; [download] max_bytes rules that.",
        )


def _parse(text: str) -> urls.URL:
    try:
        return urls.parse(text)
    except Refused as refused:
        raise PermanentFailure("connection_failed", refused.message) from None


def _redirected(url: urls.URL, response: Response) -> urls.URL:
    try:
        [location] = set(response.headers["location"])
        return urls.join(url, location)
    except (KeyError, ValueError, Refused):  # none, several, a bad one
        raise PermanentFailure(
            "bad_redirect", "The server redirected to what is no http or https URL."
        ) from None


def _status(response: Response) -> Failure:
    message = f"The server answered with status {response.status}."
    if response.status in PASSING:
        return TemporaryFailure(
            "http_status", message, retry_after=_retry_after(response.header("retry-after"))
        )
    return PermanentFailure("http_status", message)


def _retry_after(value: str | None) -> float | None:
    """Read Retry-After, seconds or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]+", value):
        return min(float(value[:20]), MAX_RETRY_AFTER)
    try:
        date = email.utils.parsedate_to_datetime(value)
        if date.tzinfo is None:  # the old forms name no zone or an unknown one: it is always GMT
            date = date.replace(tzinfo=datetime.timezone.utc)
        seconds = (date - datetime.datetime.now(datetime.timezone.utc)).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _if_range(identity: dict[str, str | None]) -> str | None:
    """Choose what proves that the file is still the same: a strong ETag, else a date (RFC 9110, 13.1.5)."""
    etag, date = identity["etag"] or "", identity["last-modified"] or ""
    if re.fullmatch(r'"[\x21\x23-\x7e\x80-\xff]*"', etag):
        return etag
    return (
        date
        if re.fullmatch(r"[A-Za-z]{3}, [0-9]{2} [A-Za-z]{3} [0-9]{4} [0-9:]{8} GMT", date)
        else None
    )


def _bad_range() -> TemporaryFailure:
    return TemporaryFailure(
        "bad_response", "Asked for the rest of the file, the server sent something else."
    )


def _one_line(value: str | None) -> str | None:
    """Make a header's value safe to be kept and shown."""
    if value is None or value.isprintable():
        return value and value[:MAX_VALUE]
    return "".join(letter for letter in value if letter.isprintable())[:MAX_VALUE]


def _explained(error: Exception, transfer: Transfer) -> TemporaryFailure:
    """Say in our own words what went wrong; raises what the transfer was ended with, if that is the reason."""
    transfer.check()
    if isinstance(error, TemporaryFailure):
        return error
    if isinstance(error, TimeoutError):
        return TemporaryFailure("timed_out", "The server was silent for too long.")
    if isinstance(error, NoAnswer):
        return TemporaryFailure(
            "connection_failed", "The server closed the connection without an answer."
        )
    if isinstance(error, ssl.SSLError):
        return TemporaryFailure("tls_failed", "The TLS connection broke.")
    if isinstance(error, OSError):
        return TemporaryFailure("connection_failed", "The connection to the server failed.")
    return TemporaryFailure("bad_response", "The server's answer could not be read.")
