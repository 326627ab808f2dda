"""The server from the client's view: requests, with repeats after temporary errors, and answers."""

from __future__ import annotations

import math
import re
import ssl
import time
from collections.abc import Callable
from http.client import BadStatusLine
from typing import IO, Any, NamedTuple

import requests
import urllib3

from md5light import tls
from md5light.client import answers
from md5light.client.answers import Batch
from md5light.client.session import open_session
from md5light.errors import OutOfTime, Unreachable
from md5light.lists.formats import FORMS
from md5light.logs import Log
from md5light.text import visible

log = Log(__name__)

#: seconds: to connect, and of silence within an answer
TIMEOUTS = (10, 120)

#: statuses of answers that may be another one later
TEMPORARY = {429, 500, 502, 503, 504}

#: the status of a request that the state of the batch does not allow
CONFLICT = 409

#: seconds until a server that does not answer is given up, unless the client waits for a batch
AWAY_SECONDS = 3
#: the same where the server says with Retry-After when it takes the request
BUSY_SECONDS = 120

#: seconds between two requests that fail: the first pause, which doubles, and the longest
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0

_CHUNK_BYTES = 65_536


class _Trouble(NamedTuple):
    """Why a request has to be repeated, and after how many seconds if the server says so."""

    reason: str
    retry_after: float | None = None


class _Asked(NamedTuple):
    """An answer, and whether requests before it had none, or a temporary one."""

    answer: requests.Response
    is_repeat: bool


class Service:
    """One md5light, over one session; the user's password goes to it alone.

    Redirects are not followed: they would take the list and the password elsewhere. Every method
    raises Unreachable if no md5light answers, OutOfTime at `deadline` (of time.monotonic), NotDone
    and Refused if the server says no.
    """

    def __init__(
        self,
        location: str,
        ca_file: str = "",
        *,
        deadline: float = math.inf,
        notice: Callable[[str], object] = str,
    ) -> None:
        """`notice` is told in a sentence that requests fail and are repeated, and of the end."""
        self.url, self._session = open_session(location, ca_file)
        self._deadline = deadline
        self._notice = notice

    # --- batches ------------------------------------------------------------------------------

    def submit(self, body: Any, content_type: str, key: str) -> str:
        """Post a list and return the batch's id; repeats with one `key` make one batch."""
        headers = {"Content-Type": content_type, "Idempotency-Key": key}
        answer = self._ask("POST", "/batches", data=body, headers=headers).answer
        return str(answers.read_object(answer, self.url, 202, "id")["id"])

    def batch(self, batch_id: str, *, patiently: bool = False) -> Batch:
        """Return a batch as it stands; `patiently`: wait for a server that is away."""
        answer = self._ask("GET", f"/batches/{_quoted(batch_id)}", patiently=patiently).answer
        return answers.read_batch(answer, self.url, batch_id)

    def cancel(self, batch_id: str) -> Batch:
        """Cancel the unfinished lines, unless a request whose answer was lost did so."""
        answer, is_repeat = self._ask("DELETE", f"/batches/{_quoted(batch_id)}")
        if is_repeat and answer.status_code == CONFLICT:
            batch = self.batch(batch_id)
            if batch.status == "canceled":
                return batch
        return answers.read_batch(answer, self.url, batch_id)

    def retry(self, batch_id: str) -> None:
        """Try the failed lines again, unless a request whose answer was lost did so."""
        answer, is_repeat = self._ask("POST", f"/batches/{_quoted(batch_id)}/retry")
        if not (is_repeat and answer.status_code == CONFLICT):
            answers.read_object(answer, self.url, 202, missing=batch_id)

    def manifest(
        self, batch_id: str, into: IO[bytes], *, patiently: bool = False, **options: str | int
    ) -> None:
        """Write the manifest into the file `into`, from its beginning, also after a break."""
        path = f"/batches/{_quoted(batch_id)}/manifest"
        answer = self._ask("GET", path, patiently=patiently, into=into, params=options).answer
        if answer.status_code != 200:
            answers.read_object(answer, self.url, 200, missing=batch_id)
        kind, form = answers.media_type(answer), FORMS[str(options.get("format", "ndjson"))]
        # A proxy may have dropped the type, but an empty answer without one may be anybody's.
        if kind != form.media_type.partition(";")[0] and (kind or not into.tell()):
            raise answers.stranger(answer, self.url)

    def pause(self, seconds: float) -> None:
        """Sleep, but not beyond the deadline: then raise OutOfTime."""
        left = self._deadline - time.monotonic()
        time.sleep(max(0, min(seconds, left)))
        if seconds >= left:
            raise OutOfTime("the time that --timeout allows has passed")

    # --- requests -----------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        path: str,
        *,
        patiently: bool = False,
        into: IO[bytes] | None = None,
        **options: Any,
    ) -> _Asked:
        """Ask until there is an answer that is not temporary."""
        began, backoff = time.monotonic(), FIRST_PAUSE
        while isinstance(answer := self._try(method, path, into, **options), _Trouble):
            patience = AWAY_SECONDS if answer.retry_after is None else BUSY_SECONDS
            pause = max(backoff, answer.retry_after or 0)
            if not patiently and time.monotonic() + pause > began + patience:
                raise Unreachable(answer.reason)
            if backoff == FIRST_PAUSE:
                self._notice(f"{answer.reason}; waiting for it")
            self.pause(pause)
            backoff = min(LONGEST_PAUSE, 2 * backoff)
        if backoff > FIRST_PAUSE:
            self._notice(f"{self.url} answers again")
        return _Asked(answer, is_repeat=backoff > FIRST_PAUSE)

    def _try(
        self, method: str, path: str, into: IO[bytes] | None, **options: Any
    ) -> requests.Response | _Trouble:
        """Return the answer, its body read, unless it may be another one later."""
        silence = min(TIMEOUTS[1], max(0.1, self._deadline - time.monotonic()))
        timeouts = (min(TIMEOUTS[0], silence), silence)
        try:
            with self._session.request(
                method,
                self.url + path,
                allow_redirects=False,
                stream=True,
                timeout=timeouts,
                **options,
            ) as answer:
                _read(answer, into)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            return _Trouble(self._explain(error))
        log.debug("answered", method=method, path=path, status=answer.status_code)
        if answer.is_redirect:
            to = visible(answer.headers["Location"])
            raise Unreachable(f"{self.url} redirects to {to}: name that server with --server")
        if answer.status_code in TEMPORARY:
            said = answers.error_in(answer) or f"HTTP {answer.status_code}"
            return _Trouble(f"{self.url}: {said}", answers.retry_after(answer))
        return answer

    def _explain(self, error: Exception) -> str:
        """Say why there was no answer, in the words of what failed innermost."""
        inner: BaseException = error
        while cause := inner.__cause__ or inner.__context__:
            inner = cause
        if isinstance(inner, BadStatusLine) and not isinstance(inner, ConnectionError):
            raise Unreachable(f"{self.url} does not speak HTTP") from None
        if isinstance(inner, ssl.SSLCertVerificationError):
            raise Unreachable(f"{self.url}: {tls.explain(inner)} See --cafile") from None
        if isinstance(inner, ssl.SSLError):
            return f"{self.url}: {tls.explain(inner)}"
        through = " through the proxy" if isinstance(error, requests.exceptions.ProxyError) else ""
        why = (isinstance(inner, OSError) and inner.strerror) or _words(inner)
        return f"{self.url} can't be reached{through}: {visible(why)}"


def _quoted(batch_id: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z-]{1,64}", batch_id):
        raise answers.no_batch(batch_id)
    return batch_id


def _read(answer: requests.Response, into: IO[bytes] | None) -> None:
    """Read the whole body: into the file if it is the manifest, else into memory."""
    if into is None or answer.status_code != 200:
        _ = answer.content
        return
    into.seek(0)
    into.truncate()
    for piece in answer.iter_content(_CHUNK_BYTES):
        into.write(piece)


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError) or "timed out" in str(error):
        return "it does not answer in time"
    return str(error) or type(error).__name__
