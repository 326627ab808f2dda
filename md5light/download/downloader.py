"""One download attempt: from a URL to the digests of the body, or to a failure.

It follows redirects itself, so that the guard checks every hop. It resumes a body that broke off
only if the next part proves to be of the same file. So the outcome is the digests of one complete
body, or a failure.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Collection

from md5light.config import DownloadConfig
from md5light.deadlines import Deadlines
from md5light.download import redirects, resume, urls
from md5light.download.connection import Connections, Exchange
from md5light.download.cookies import Cookies
from md5light.download.failures import PASSING, explained, status_failure
from md5light.download.guard import Guard, Resolve
from md5light.download.hasher import Hasher
from md5light.download.response import Response
from md5light.download.resume import Part, Representation, not_the_rest
from md5light.download.transfer import Transfer
from md5light.download.wire import Limits
from md5light.errors import Failure, OutOfResources, PermanentFailure, Refused, TemporaryFailure
from md5light.job import Hashed

__all__ = ["Downloader", "Hashed", "Transfer"]

#: attempts to resume without a byte of progress, and the pause before the first one, in seconds; it
#: doubles (and starts short, since a connection may break thousands of times)
RESUME_TRIES = 6
RESUME_PAUSE = 0.025

#: statuses of a signed URL that has expired
EXPIRED = {400, 401, 403, 404, 410}

#: streams that may have hashing threads at once: more would only wait for a core and use memory
RINGS = 2

#: the longest value of a header that is kept, in characters
MAX_VALUE = 255


class Downloader:
    """Downloads for a process: kept connections, one TLS context, one thread for deadlines.

    Threads share it. `connections` is how many downloads run at once; `resolve` looks names up and
    is called as socket.getaddrinfo is; `resume_pause` is in seconds.
    """

    def __init__(
        self,
        config: DownloadConfig,
        *,
        connections: int = 8,
        resolve: Resolve = socket.getaddrinfo,
        resume_pause: float = RESUME_PAUSE,
    ) -> None:
        self._config = config
        self._resume_pause = resume_pause
        self._connections = Connections(config, Guard(config, resolve=resolve), connections)
        self._deadlines = Deadlines(config.max_seconds)
        self._rings = threading.Semaphore(RINGS)

    def download(
        self,
        url: str,
        transfer: Transfer,
        *,
        digests: Collection[str] = (),
        patience: float = 1.0,
    ) -> Hashed:
        """Download `url` and compute its MD5 and further `digests`, which are fields of Hashed.

        `patience` multiplies the time that a server may be silent. Raises PermanentFailure,
        TemporaryFailure or Stopped, and nothing else.
        """
        limits = Limits.of(self._config, patience)
        try:
            with (
                self._deadlines.watch(lambda: self._expire(transfer)),
                Hasher(self._rings, digests) as hasher,
            ):
                transfer.check()
                return self._attempt(transfer, hasher, limits).run(url)
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            # Only a shortage of threads or memory is known to raise here. Whatever else a server
            # may cause must not end a worker either.
            transfer.check()
            raise explained(error) from error

    def close(self) -> None:
        """Close the idle connections; downloads that are running continue."""
        self._deadlines.close()
        self._connections.close()

    def _attempt(self, transfer: Transfer, hasher: Hasher, limits: Limits) -> _Attempt:
        return _Attempt(
            self._config, self._connections, transfer, hasher, limits, self._resume_pause
        )

    def _expire(self, transfer: Transfer) -> None:
        problem = (
            f"The download took longer than {self._config.max_seconds:g} seconds; "
            "see [download] max_seconds."
        )
        transfer.end(TemporaryFailure("timed_out", problem))


class _Attempt:
    """The state of one attempt: the position in the body, and what resuming from there needs."""

    def __init__(
        self,
        config: DownloadConfig,
        connections: Connections,
        transfer: Transfer,
        hasher: Hasher,
        limits: Limits,
        resume_pause: float,
    ) -> None:
        self._config = config
        self._connections = connections
        self._transfer = transfer
        self._hasher = hasher
        self._limits = limits
        self._resume_pause = resume_pause
        self._cookies = Cookies()
        #: the file's headers in the first answer
        self._file = Representation()
        #: asks for the body without a content coding; empty once a server has refused that (406)
        self._coding = "Accept-Encoding: identity\r\n"
        #: headers that request the rest of a body that broke off
        self._range = ""
        #: first byte of that request: it overlaps the bytes that have been received
        self._start = 0
        #: False once a part has proved wrong: this attempt requests no other part
        self._trusts_parts = True
        #: True once the rest was requested at the first URL, because the redirect's had expired
        self._rerouted = False
        self._tries = self._furthest = self._overlap = 0

    def run(self, text: str) -> Hashed:
        self._first = self._url = _parse(text)
        while True:
            try:
                if hashed := self._fetch():
                    return hashed
            except (Failure, OSError) as error:
                self._transfer.check()
                self._recover(explained(error))

    def _fetch(self) -> Hashed | None:
        """Request the file or the rest of it and receive the body; None: send another request."""
        exchange = self._ask()
        with exchange as response:
            if self._asks_otherwise_next(response):
                return None
            if self._range:
                self._continue(response)
            else:
                self._begin(response)
            self._receive(response)
            exchange.finish()
        return Hashed(
            **self._hasher.hexdigests(),
            size=self._transfer.bytes_done,
            final_url=self._url.text,
            content_type=_one_line(self._file.content_type),
            etag=_one_line(self._file.etag),
            last_modified=_one_line(self._file.last_modified),
        )

    def _ask(self) -> Exchange:
        """Follow redirects to the final answer; later requests go to its URL."""
        for _ in range(self._config.max_redirects + 1):
            headers = f"{self._coding}{self._cookies.header(self._url)}{self._range}"
            exchange = self._request(headers)
            self._cookies.keep(self._url, exchange.response)
            if not redirects.is_redirect(exchange.response):
                return exchange
            with exchange:
                self._follow(exchange)
        raise self._too_many_redirects()

    def _request(self, headers: str) -> Exchange:
        try:
            return self._connections.get(self._url, headers, self._transfer, self._limits)
        except (Failure, OSError) as error:
            failure = explained(error)
            failure.unanswered = True
            raise failure from error

    def _follow(self, exchange: Exchange) -> None:
        """Make the target of a redirect the next URL; the body of the redirect is not read."""
        if self._range and not self._rerouted:
            raise not_the_rest()
        self._url = redirects.target(self._url, exchange.response)
        if exchange.response.length == 0:
            with contextlib.suppress(TemporaryFailure):  # more bytes than announced: not kept
                exchange.finish()

    def _asks_otherwise_next(self, response: Response) -> bool:
        """Tell whether a changed request may succeed where this one failed, and prepare it."""
        if response.status == 406 and self._coding:
            self._coding = ""
            return True
        if self._range and response.status in EXPIRED and self._may_reroute():
            self._url, self._rerouted = self._first, True
            return True
        return False

    def _may_reroute(self) -> bool:
        """Tell whether a strong ETag and the size can prove that the first URL has this file."""
        return (
            self._url != self._first
            and not self._rerouted
            and self._file.has_strong_etag
            and self._transfer.bytes_total is not None
        )

    def _begin(self, response: Response) -> None:
        """Accept the head of a complete file: a 200, or a 206 whose range is the whole file."""
        part = Part.of(response)
        is_whole = part is not None and part.start == 0 and part.last == part.total - 1
        if response.status == 200 and "content-range" in response.headers and not is_whole:
            problem = "The server sent a part of the file, although it was asked for all of it."
            raise TemporaryFailure("incomplete", problem)
        if response.status != 200 and not (response.status == 206 and is_whole):
            raise status_failure(response)
        self._file = Representation.of(response)
        length = part.total if part else response.length
        self._expect(length, length)

    def _continue(self, response: Response) -> None:
        """Accept the head of a part if it is exactly the part that was requested."""
        if response.status in PASSING:
            raise status_failure(response)
        part = Part.of(response)
        if (
            response.status != 206
            or part is None
            or part.start != self._start
            or self._transfer.bytes_total not in (None, part.total)
            or not self._file.agrees(response)
        ):
            raise not_the_rest()
        self._expect(part.total, part.last + 1)

    def _expect(self, total: int | None, until: int | None) -> None:
        if total is not None and 0 < self._config.max_bytes < total:
            raise self._too_large()
        self._transfer.bytes_total = total
        self._until = until

    def _receive(self, response: Response) -> None:
        transfer, hasher = self._transfer, self._hasher
        most = self._config.max_bytes or float("inf")
        try:
            if self._range:
                kept = hasher.tail()[self._start - transfer.bytes_done :]
                resume.read_overlap(response, kept)
            while count := response.readinto(hasher.room(response.length)):
                hasher.filled(count)
                transfer.bytes_done += count
                if transfer.bytes_done > most:
                    raise self._too_large()
        except (ConnectionError, ssl.SSLError):
            problem = "The connection broke before the body had ended."
            raise TemporaryFailure("incomplete", problem) from None
        # A body that ends with the connection may have been ended by us.
        transfer.check()
        self._check_size()

    def _check_size(self) -> None:
        done = self._transfer.bytes_done
        if self._until is not None and self._until < done:
            raise TemporaryFailure("bad_response", "The server sent more than it had announced.")
        if self._transfer.bytes_total not in (None, done):
            raise TemporaryFailure("incomplete", "The server sent less of the file than asked for.")

    def _recover(self, failure: Failure) -> None:
        """Prepare the next request of this attempt, or raise the failure."""
        if self._range and (
            isinstance(failure, PermanentFailure) or failure.code == "bad_response"
        ):
            self._start_over()
        elif self._can_resume(failure):
            self._transfer.wait(lambda: False, self._resume_pause * 2**self._tries)
            self._tries += 1
            self._ask_for_rest()
        else:
            failure.redirected = self._url.host != self._first.host
            raise failure

    def _start_over(self) -> None:
        """Request the whole file at the first URL, and no part again in this attempt."""
        self._url, self._trusts_parts = self._first, False
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        self._range = ""
        self._hasher.restart()
        self._transfer.bytes_done = 0
        self._transfer.bytes_total = None

    def _can_resume(self, failure: Failure) -> bool:
        self._note_progress(failure)
        return (
            isinstance(failure, TemporaryFailure)
            and not isinstance(failure, OutOfResources)
            and failure.code != "bad_response"
            and not failure.retry_after
            and self._trusts_parts
            and self._file.validator is not None
            and self._tries < RESUME_TRIES
        )

    def _note_progress(self, failure: Failure) -> None:
        progress = max(0, self._transfer.bytes_done - self._furthest)
        if progress:
            self._furthest, self._tries, self._rerouted = self._transfer.bytes_done, 0, False
        # The overlap shrinks with progress: a connection that breaks often, or within the overlap,
        # must still get further.
        if progress or failure.code == "incomplete":
            self._overlap = resume.overlap(progress or self._overlap)

    def _ask_for_rest(self) -> None:
        self._start = self._transfer.bytes_done - self._overlap
        if self._start <= 0:  # fewer bytes than the overlap: nothing worth resuming
            self._begin_at_zero()
        else:
            validator = self._file.validator
            self._range = f"Range: bytes={self._start}-\r\nIf-Range: {validator}\r\n"

    def _too_large(self) -> PermanentFailure:
        problem = f"The file is larger than {self._config.max_bytes:,} bytes"
        return PermanentFailure("too_large", f"{problem}; see [download] max_bytes.")

    def _too_many_redirects(self) -> PermanentFailure:
        problem = f"There are more than {self._config.max_redirects} redirects"
        if self._cookies:
            problem += ", and the server sets cookies: it may want some that md5light does not keep"
        return PermanentFailure("too_many_redirects", f"{problem}; see [download] max_redirects.")


def _parse(text: str) -> urls.URL:
    try:
        return urls.parse(text)
    except Refused as refused:
        raise PermanentFailure("connection_failed", refused.message) from None


def _one_line(value: str | None) -> str | None:
    """Make a header's value safe to store and show: printable characters, at most MAX_VALUE."""
    if value is None or value.isprintable():
        return value and value[:MAX_VALUE]
    return "".join(letter for letter in value if letter.isprintable())[:MAX_VALUE]
