"""The server that the client speaks to: requests, repeated where that helps, and answers."""

from __future__ import annotations

import json
import math
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, NamedTuple
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from requests.utils import get_netrc_auth

from md5light import __version__, tls
from md5light.errors import NotDone, OutOfTime, Refused, Unreachable
from md5light.logs import Log
from md5light.text import visible

log = Log(__name__)

#: seconds: to connect, and of silence within an answer
TIMEOUTS = (10, 120)

#: statuses of answers that may be another one later
TEMPORARY = {429, 500, 502, 503, 504}

#: statuses that say that the request is wrong, not its object
REFUSALS = {400, 413, 415, 422}

#: seconds until a server that does not answer is given up, unless the client waits for a batch
AWAY_SECONDS = 3
#: the same where the server says with Retry-After when it takes the request
BUSY_SECONDS = 120

#: seconds between two requests that fail: the first pause, which doubles, and the longest
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0

_CHUNK_BYTES = 65_536


class Batch(NamedTuple):
    """A batch as the server describes it."""

    id: str
    status: str
    counts: dict[str, int]
    #: all that the server said
    described: dict[str, Any]
    #: seconds after which the server wants to be asked again, None if it does not say
    retry_after: float | None

    @property
    def ended(self) -> bool:
        return self.status != "running"

    @property
    def bad(self) -> int:
        """Count the lines that failed, do not match or were canceled."""
        return sum(self.counts[status] for status in ("failed", "mismatched", "canceled"))


class _Trouble(NamedTuple):
    """Why a request has to be repeated, and after how many seconds if the server says so."""

    reason: str
    retry_after: float | None = None


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
        self.url, credentials = _parse(location)
        self._deadline = deadline
        self._notice = notice
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"md5light/{__version__}"
        self._session.auth = HTTPBasicAuth(*credentials) if credentials else None
        if self.url.startswith("https:"):
            self._session.mount("https://", _Adapter(_context(ca_file)))

    # --- batches ------------------------------------------------------------------------------

    def submit(self, body: Any, content_type: str, key: str) -> str:
        """Post a list and return the batch's id; repeats with one `key` make one batch."""
        headers = {"Content-Type": content_type, "Idempotency-Key": key}
        answer = self._ask("POST", "/batches", data=body, headers=headers)
        return str(self._object(answer, 202, "id")["id"])

    def batch(self, batch_id: str, *, patiently: bool = False) -> Batch:
        """Return a batch as it stands; `patiently`: wait for a server that is away."""
        answer = self._ask("GET", f"/batches/{_quoted(batch_id)}", patiently=patiently)
        return self._batch(answer, batch_id, 200)

    def cancel(self, batch_id: str) -> Batch:
        answer = self._ask("DELETE", f"/batches/{_quoted(batch_id)}")
        return self._batch(answer, batch_id, 200)

    def retry(self, batch_id: str) -> None:
        answer = self._ask("POST", f"/batches/{_quoted(batch_id)}/retry")
        self._object(answer, 202, missing=batch_id)

    def manifest(
        self, batch_id: str, into: IO[bytes], *, patiently: bool = False, **options: str | int
    ) -> None:
        """Write the manifest into the file `into`, from its beginning, also after a break."""
        path = f"/batches/{_quoted(batch_id)}/manifest"
        answer = self._ask("GET", path, patiently=patiently, into=into, params=options)
        if answer.status_code != 200:
            self._object(answer, 200, missing=batch_id)
        if "html" in answer.headers.get("Content-Type", ""):
            raise self._stranger(answer)

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
    ) -> requests.Response:
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
        return answer

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
            said = _said(answer) or f"HTTP {answer.status_code}"
            return _Trouble(f"{self.url}: {said}", _retry_after(answer))
        return answer

    def _explain(self, error: Exception) -> str:
        """Say why there was no answer, in the words of what failed innermost."""
        inner: BaseException = error
        while cause := inner.__cause__ or inner.__context__:
            inner = cause
        if isinstance(inner, ssl.SSLCertVerificationError):
            raise Unreachable(f"{self.url}: {tls.explain(inner)} See --cafile") from None
        if isinstance(inner, ssl.SSLError):
            return f"{self.url}: {tls.explain(inner)}"
        through = " through the proxy" if isinstance(error, requests.exceptions.ProxyError) else ""
        why = (isinstance(inner, OSError) and inner.strerror) or _words(inner)
        return f"{self.url} can't be reached{through}: {visible(why)}"

    # --- answers ------------------------------------------------------------------------------

    def _batch(self, answer: requests.Response, batch_id: str, status: int) -> Batch:
        value = self._object(answer, status, "id", "status", "counts", missing=batch_id)
        try:
            counts = {str(name): int(count) for name, count in value["counts"].items()}
            batch = Batch(
                str(value["id"]), str(value["status"]), counts, value, _retry_after(answer)
            )
            _ = batch.bad, counts["total"]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise self._stranger(answer) from None
        return batch

    def _object(
        self, answer: requests.Response, status: int, *keys: str, missing: str = ""
    ) -> dict[str, Any]:
        """Return the JSON object of an answer of `status`; raise what stands for another answer.

        `missing` is the batch that does not exist if the answer says so.
        """
        value = _json(answer)
        if answer.status_code == status and all(key in value for key in keys):
            return value
        if answer.status_code == 404 and missing and value == {"status": "not found"}:
            raise NotDone(f"there is no batch {visible(missing)}")
        if not (said := _said(answer)):
            raise self._stranger(answer)
        if answer.status_code in REFUSALS:
            raise Refused(value["error"]["code"], said)
        raise NotDone(f"{self.url}: {said}")

    def _stranger(self, answer: requests.Response) -> Unreachable:
        kind = visible(answer.headers.get("Content-Type", "nothing").partition(";")[0])
        return Unreachable(
            f"{self.url} is not md5light, or not of this version: it answered "
            f"{answer.status_code} with {kind}"
        )


class _Adapter(HTTPAdapter):
    """Connects with a TLS context of ours, also through a proxy."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, ssl_context=self._context, **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=self._context, **options)


def _context(ca_file: str) -> ssl.SSLContext:
    try:
        return tls.make_context(ca_file)
    except OSError as error:  # ssl.SSLError is one
        why = "holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise Refused("wrong_usage", f"--cafile {ca_file}: {why}") from None


def _parse(location: str) -> tuple[str, tuple[bytes, bytes] | None]:
    """Return the URL of the server, and the user's name and password for it."""
    try:
        parts = urlsplit(location)
        labels = (parts.hostname or "").removesuffix(".").split(".")
        right = parts.scheme in ("http", "https") and all(0 < len(each) < 64 for each in labels)
        _ = parts.port
    except ValueError:
        right = False
    if not right or parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", location):
        raise Refused("wrong_usage", "the server must be an http or https URL, see --server")
    userinfo, _, host = parts.netloc.rpartition("@")
    url = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
    name, _, password = userinfo.partition(":")
    pair = (unquote(name), unquote(password)) if userinfo else get_netrc_auth(url)
    # As bytes: requests would encode text as Latin-1 (RFC 7617, 2.1).
    return url, (pair[0].encode(), pair[1].encode()) if pair else None


def _quoted(batch_id: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z-]{1,64}", batch_id):
        raise NotDone(f"there is no batch {visible(batch_id)}")
    return batch_id


def _read(answer: requests.Response, into: IO[bytes] | None) -> None:
    """Read the whole body: into the file where it is what was asked for, else into memory."""
    if into is None or answer.status_code != 200:
        _ = answer.content
        return
    into.seek(0)
    into.truncate()
    for piece in answer.iter_content(_CHUNK_BYTES):
        into.write(piece)


def _retry_after(answer: requests.Response) -> float | None:
    value = answer.headers.get("Retry-After", "")
    return float(value) if re.fullmatch("[0-9]{1,6}", value) else None


def _json(answer: requests.Response) -> dict[str, Any]:
    """Return the JSON object of an answer, an empty one if it holds none."""
    try:
        value = json.loads(answer.content)
    except (ValueError, RecursionError, RuntimeError):
        return {}
    return value if isinstance(value, dict) else {}


def _said(answer: requests.Response) -> str:
    """Return the message of an error as md5light writes it, and its bad lines, else nothing."""
    match _json(answer):
        case {"error": {"code": str(), "message": str(message), **more}}:
            return "\n".join([visible(message), *_bad_lines(more.get("lines"))])
    return ""


def _bad_lines(lines: object) -> Iterator[str]:
    for line in lines if isinstance(lines, list) else []:
        if isinstance(line, Mapping):
            yield visible(f"line {line.get('line')}: {line.get('message')} ({line.get('code')})")


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError) or "timed out" in str(error):
        return "it does not answer in time"
    return str(error) or type(error).__name__
