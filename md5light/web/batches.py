"""Batches over HTTP: submitting a list, and showing, canceling and retrying it as a whole."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import bottle

from md5light.batch import Batch, NewBatch, NewLine, describe
from md5light.config import Config
from md5light.download import urls
from md5light.download.guard import Guard
from md5light.errors import DatabaseUnavailable, Refused
from md5light.lists import reading, writing
from md5light.lists.lines import BadLine, Line
from md5light.lists.reading import Reading
from md5light.logs import Log
from md5light.mail.addresses import check_address
from md5light.queue.batches import Batches
from md5light.queue.sweeps import PORTION
from md5light.web import manifests, uploads
from md5light.web.answers import NOT_FOUND, Answer, Problem
from md5light.web.pacing import Pacing
from md5light.web.tokens import client_of
from md5light.web.uploads import Upload

log = Log(__name__)

#: bad lines listed in an answer
SHOWN_LINES = 100

#: characters of an Idempotency-Key
MAX_KEY_CHARACTERS = 255


class BatchAPI:
    """One method for each route; it returns an answer, or raises an error that becomes one."""

    def __init__(
        self,
        batches: Batches,
        guard: Guard,
        config: Config,
        root: str,
    ) -> None:
        self._batches = batches
        self._guard = guard
        self._max_bytes = config.server.max_batch_bytes
        self._max_lines = config.server.max_batch_lines
        self._local_domains = config.smtp.local_domains or not config.smtp.host
        self._root = root
        self._pacing = Pacing()

    def submit(self) -> Answer:
        environ = bottle.request.environ
        upload = uploads.receive(environ, self._max_bytes)
        client = client_of(environ)
        key = _idempotency_key(environ)
        fingerprint = upload.fingerprint() if key else None
        batch = None
        if key and fingerprint:
            batch = self._batches.repeat_of(client, key, fingerprint)
        if batch is None:
            batch = self._take(upload, client, key, fingerprint)
            log.info("submitted", batch=batch.id, lines=batch.lines, urls=batch.urls)
        about = {
            "format": batch.format,
            "id": batch.id,
            "lines": batch.lines,
            "urls": batch.urls,
        }
        return Answer(202, about, self._where(batch))

    def show(self, batch_id: str) -> Answer:
        batch = self._batches.get(batch_id)
        return Answer(200, self._describe(batch)) if batch else NOT_FOUND

    def manifest(self, batch_id: str) -> Answer:
        asked = manifests.options(bottle.request.query_string)
        batch = self._batches.get(batch_id)
        if batch is None:
            return NOT_FOUND
        known = bottle.request.get_header("If-None-Match", "")
        if batch.ended and manifests.is_known(manifests.etag(batch, asked), known):
            return Answer(304, b"", manifests.headers(batch, asked))
        entries = self._batches.entries(
            batch.id, after=asked.after, limit=asked.limit, statuses=asked.statuses
        )
        pieces = writing.write(
            entries, asked.format, names=asked.names, partial=asked.partial, header=batch.header
        )
        awaited = manifests.while_awaited(self._pacing.each(pieces), bottle.request.environ)
        return manifests.answer(awaited, batch, asked)

    def cancel(self, batch_id: str) -> Answer:
        canceled = self._batches.cancel(batch_id)
        batch = self._batches.get(batch_id)
        if batch is None:
            return NOT_FOUND
        if not canceled:
            raise Problem(409, "batch_finished", f"The batch has ended: it is {batch.status}.")
        log.info("canceled", batch=batch_id)
        return Answer(200, self._describe(batch))

    def retry(self, batch_id: str) -> Answer:
        retried = self._batches.retry(batch_id)
        batch = self._batches.get(batch_id)
        if batch is None:
            return NOT_FOUND
        if retried:
            log.info("retried", batch=batch_id)
            return Answer(202, self._describe(batch), self._where(batch))
        if not batch.ended:
            raise Problem(409, "batch_running", "The batch still runs.")
        raise Problem(409, "nothing_to_retry", "No line of the batch has failed or was canceled.")

    # --- parts ------------------------------------------------------------------------------------

    def _where(self, batch: Batch) -> dict[str, str]:
        return {"Location": f"{self._root}/batches/{batch.id}", "Retry-After": "1"}

    def _describe(self, batch: Batch) -> dict[str, object]:
        return describe(batch, self._batches.result(batch))

    def _take(self, upload: Upload, client: str, key: str | None, fingerprint: str | None) -> Batch:
        """Store a list; return its batch when every line is on the disk."""
        email = upload.email
        if email:
            email = check_address(email, local_domains=self._local_domains)
        check = _url_check(self._guard)
        listed = reading.read(
            upload.list.chunks(),
            upload.format,
            base=upload.base,
            check_url=check,
            max_lines=self._max_lines,
        )
        new = NewBatch(
            format=listed.format,
            client=client,
            name=upload.name,
            digests=upload.digests,
            email=email,
            header=listed.header,
            idempotency_key=key,
            fingerprint=fingerprint,
        )
        lines = _Lines(listed, check, keep_bad=upload.skip_invalid)
        return self._store(new, lines)

    def _store(self, new: NewBatch, lines: _Lines) -> Batch:
        batch_id = ""
        try:
            for portion in self._pacing.each(lines.portions()):
                if not lines.refused:
                    batch_id = batch_id or self._batches.begin(new)
                    self._batches.add(batch_id, portion)
            if lines.refused:
                raise lines.problem()
            return self._batches.publish(batch_id)
        except Exception:
            if batch_id:
                self._discard(batch_id)
            raise

    def _discard(self, batch_id: str) -> None:
        # Without a database it is discarded later, as are those of a server that died.
        with contextlib.suppress(DatabaseUnavailable):
            self._batches.discard(batch_id)


class _Lines:
    """The lines of a list for the database; bad ones are kept, or counted and refused."""

    def __init__(
        self, listed: Reading, check: Callable[[str], urls.URL], *, keep_bad: bool
    ) -> None:
        self._listed = listed
        self._check = check
        self._keep_bad = keep_bad
        self._count = 0
        #: the number of bad lines that are not kept
        self.refused = 0
        self._shown: list[dict[str, object]] = []

    def portions(self) -> Iterator[list[NewLine]]:
        lines = self._lines()
        while portion := list(islice(lines, PORTION)):
            yield [line for line in portion if line]

    def _lines(self) -> Iterator[NewLine | None]:
        for position, line in enumerate(self._listed, 1):
            self._count = position
            if isinstance(line, Line):
                yield self._good(position, line)
            elif self._keep_bad:
                yield NewLine(position, line.sent, error_code=line.code, error_message=line.message)
            else:
                self._refuse(line)
                yield None

    def _good(self, position: int, line: Line) -> NewLine:
        host = self._check(line.url).host
        return NewLine(
            position, line.sent, line.url, host, line.name, line.id, line.size, line.expected
        )

    def _refuse(self, line: BadLine) -> None:
        self.refused += 1
        if len(self._shown) < SHOWN_LINES:
            self._shown.append({"code": line.code, "line": line.number, "message": line.message})

    def problem(self) -> Problem:
        message = (
            f"{self.refused:,} of {self._count:,} lines can't be taken, and nothing was stored; "
            "skip_invalid=yes keeps them as failed lines."
        )
        details = {"count": self.refused, "lines": self._shown}
        return Problem(400, "invalid_lines", message, details=details)


def _url_check(guard: Guard) -> Callable[[str], urls.URL]:
    """Return /submit's check of a URL, with a cache.

    The URLs of a list have few hosts, and each URL is checked twice: while reading, and for its
    host.
    """

    @functools.lru_cache(PORTION)
    def judge(host: str, port: int) -> None:
        guard.check(urls.URL("http", host, port, "/"))

    @functools.lru_cache(PORTION)
    def check(text: str) -> urls.URL:
        url = urls.parse(text)
        judge(url.host, url.port)
        return url

    return check


def _idempotency_key(environ: Mapping[str, Any]) -> str | None:
    key: str = environ.get("HTTP_IDEMPOTENCY_KEY", "").strip()
    if len(key) > MAX_KEY_CHARACTERS or not key.isprintable():
        message = f"The Idempotency-Key has up to {MAX_KEY_CHARACTERS} printable characters."
        raise Refused("invalid_idempotency_key", message)
    return key or None
