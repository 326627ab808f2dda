"""The HTTP API: what is asked, checked, stored and answered."""

from __future__ import annotations

import ipaddress
import json
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import bottle

from md5light.config import Config
from md5light.download import urls
from md5light.download.guard import Guard
from md5light.errors import DatabaseUnavailable, Refused
from md5light.job import Job, describe, error_of
from md5light.logs import Log
from md5light.mail.addresses import check_address
from md5light.queue.jobs import Queue, QueueFull, TooMany
from md5light.queue.totals import Totals
from md5light.web import metrics
from md5light.web.answers import ERRORS, answer, error, error_body, not_found, try_later, unreadable
from md5light.web.middleware import WSGI, StartResponse, behind, observed
from md5light.web.page import Page
from md5light.web.page.browser import is_from_another_site, prefers_html

log = Log(__name__)

#: the description of this API, written by hand
OPENAPI = Path(__file__).with_name("openapi.json")

#: seconds between two looks at a job that a client is asked to keep to, at most
LONGEST_POLL_SECONDS = 60


def make_app(queue: Queue, totals: Totals, config: Config) -> WSGI:
    """Make the WSGI application that answers from `queue` and `totals`."""
    app = _JSONErrors()
    app.catchall = False  # what goes wrong is logged and answered by the layer around
    page = Page(config.server.public_url)
    api = _API(queue, totals, config, page)
    app.route("/", "GET", page.home)
    app.route("/page/<version>/<name>", "GET", page.file)
    app.route("/submit", "POST", api.submit)
    app.route("/check", "GET", api.check)
    app.route("/jobs/<job_id>", "GET", api.show)
    app.route("/jobs/<job_id>", "DELETE", api.cancel)
    app.route("/healthz", "GET", api.health)
    app.route("/readyz", "GET", api.readiness)
    app.route("/metrics", "GET", api.metrics)
    app.route("/openapi.json", "GET", api.openapi)
    return behind(config.server.trusted_proxy, observed(app))


class _JSONErrors(bottle.Bottle):  # type: ignore[misc]
    """A Bottle whose own errors (404, 405, malformed multipart) have the documented form."""

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer, having put in words what is not UTF-8 in the path: Bottle would drop it and find another path."""
        text = environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
        environ["PATH_INFO"] = text.encode().decode("latin-1")
        answered: Iterable[bytes] = super().__call__(environ, start_response)
        return answered

    def default_error_handler(self, error: bottle.HTTPError) -> bytes:
        bottle.response.content_type = "application/json"
        if error.status_code == 405:  # HEAD is answered wherever GET is, but Bottle does not tell
            bottle.response.set_header(
                "Allow", bottle.response.get_header("Allow").replace("GET", "GET,HEAD")
            )
        code, message = ERRORS.get(error.status_code, ERRORS[500])
        return error_body(code, message)


class _API:
    """One method a route."""

    def __init__(self, queue: Queue, totals: Totals, config: Config, page: Page) -> None:
        self._queue = queue
        self._totals = totals
        self._guard = Guard(config.download)
        self._local_domains = config.smtp.local_domains or not config.smtp.host
        self._public_url = config.server.public_url
        self._page = page

    def submit(self) -> bottle.HTTPResponse:
        headers = bottle.request.headers
        if is_from_another_site(headers, self._public_url):
            answered = error(403, "cross_site", "The request was made by a page of another site.")
        else:
            answered = self._submit()
        return self._page.submitted(answered) if prefers_html(headers) else answered

    def _submit(self) -> bottle.HTTPResponse:
        try:
            fields = _fields(bottle.request)
            text = _single(fields, "url", required=True)
            url = urls.parse(text)
            self._guard.check(url)
            email = _single(fields, "email")
            recipient = check_address(email, local_domains=self._local_domains) if email else None
            job_id = self._queue.submit(
                text, url.host, recipient, _client(bottle.request.environ["REMOTE_ADDR"])
            )
        except Refused as refused:
            return error(400, refused.code, refused.message)
        except TooMany as refused:
            seconds = str(math.ceil(refused.retry_after))
            return error(429, refused.code, refused.message, Retry_After=seconds)
        except QueueFull:
            return try_later("queue_full", "Too many jobs are waiting.")
        except DatabaseUnavailable as reason:
            return unreadable(reason)
        log.info("submitted", job=job_id)
        return answer(202, {"id": job_id}, Location=f"/check?id={job_id}", Retry_After="1")

    def check(self) -> bottle.HTTPResponse:
        try:
            fields = _decoded(bottle.request.query_string.encode("latin-1"), errors="replace")
            job_id = _single(fields, "id", required=True)
            job = self._queue.get(job_id)
        except Refused as refused:
            return error(400, refused.code, refused.message)
        except DatabaseUnavailable as reason:
            return unreadable(reason)
        if job is None:
            return not_found()
        if job.status == "done":
            return answer(200, {"md5": job.md5, "status": "done", "url": job.url})
        if job.finished:
            return answer(424, {"error": error_of(job), "status": "failed", "url": job.url})
        return answer(202, {"status": "running"}, Retry_After=str(_seconds_to_wait(job)))

    def show(self, job_id: str) -> bottle.HTTPResponse:
        html = prefers_html(bottle.request.headers)
        try:
            job = self._queue.get(job_id)
        except DatabaseUnavailable as reason:
            return self._page.problem(unreadable(reason)) if html else unreadable(reason)
        if html:
            return self._page.job(job)
        answered = answer(200, describe(job)) if job else not_found()
        answered.set_header("Vary", "Accept")
        return answered

    def cancel(self, job_id: str) -> bottle.HTTPResponse:
        try:
            canceled = self._queue.cancel(job_id)
            job = self._queue.get(job_id)
        except DatabaseUnavailable as reason:
            return unreadable(reason)
        if job is None:
            return not_found()
        if not canceled:
            return error(409, "job_finished", f"The job has ended: it is {job.status}.")
        log.info("canceled", job=job_id)
        return answer(200, describe(job))

    def health(self) -> bottle.HTTPResponse:
        return answer(200, {"status": "ok"})

    def openapi(self) -> bottle.HTTPResponse:
        return bottle.HTTPResponse(OPENAPI.read_bytes(), 200, {"Content-Type": "application/json"})

    def readiness(self) -> bottle.HTTPResponse:
        try:
            self._queue.probe()
            last_sign = self._totals.snapshot().last_sign_seconds
        except DatabaseUnavailable as reason:
            return unreadable(reason)
        return answer(200, {"last_worker_sign_seconds": last_sign, "status": "ready"})

    def metrics(self) -> bottle.HTTPResponse:
        try:
            text = metrics.render(self._totals.snapshot())
        except DatabaseUnavailable as reason:
            return unreadable(reason)
        return bottle.HTTPResponse(text, 200, {"Content-Type": metrics.CONTENT_TYPE})


# --- reading a request -----------------------------------------------------------------------------------------


def _fields(request: bottle.BaseRequest) -> list[tuple[str, str]]:
    """Return the body's fields in their order, whatever of the three forms it has; raises Refused or an HTTPError."""
    media_type, semicolon, parameters = request.environ.get("CONTENT_TYPE", "").partition(";")
    media_type = media_type.strip().lower()
    if media_type == "application/json":
        return _json_fields(request.body.read())
    if media_type == "multipart/form-data":
        request.environ["CONTENT_TYPE"] = (
            media_type + semicolon + parameters
        )  # Bottle knows it in lower case only
        return _multipart_fields(request)
    body = request.body.read()
    if media_type == "application/x-www-form-urlencoded" or not body:
        return _decoded(body)
    raise bottle.HTTPError(415)


def _decoded(form: bytes, errors: str = "strict") -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            form.decode(errors=errors), keep_blank_values=True, errors=errors, max_num_fields=100
        )
    except ValueError:  # UnicodeDecodeError among them
        raise Refused(
            "bad_request", "The form is not UTF-8 text, or has too many fields."
        ) from None


def _multipart_fields(request: bottle.BaseRequest) -> list[tuple[str, str]]:
    try:
        fields = list(request.POST.decode().allitems())
    except (ValueError, LookupError):  # a part is no text in its charset, or the charset is none
        raise bottle.HTTPError(400) from None
    return _texts(fields)


def _json_fields(body: bytes) -> list[tuple[str, str]]:
    try:
        fields = json.loads(body, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, tuple):
        raise Refused("bad_request", "The body is not a JSON object.")
    return _texts(fields)


def _texts(fields: Sequence[tuple[str, object]]) -> list[tuple[str, str]]:
    """Leave out what is no text, such as a file; nothing that we would read may be."""
    for key, value in fields:
        if (
            key in ("url", "email")
            and not isinstance(value, str)
            and (key, value) != ("email", None)
        ):
            raise Refused(f"invalid_{key}", f"`{key}` must be a string.")
    return [(key, value) for key, value in fields if isinstance(value, str)]


def _client(address: str) -> str:
    """Tell whom a submission counts for: an IPv4 address, or the /64 of an IPv6 one, which is one customer's."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))


def _single(fields: list[tuple[str, str]], name: str, *, required: bool = False) -> str:
    values = [value for key, value in fields if key == name]
    if len(values) > 1:
        raise Refused("repeated_parameter", f"`{name}` is given more than once.")
    if required and not any(values):
        raise Refused("missing_parameter", f"`{name}` is missing.")
    return values[0] if values else ""


# --- what an answer tells ---------------------------------------------------------------------------------------


def _seconds_to_wait(job: Job) -> int:
    due_in = job.due_at - time.time() if job.status == "queued" and job.due_at else 0
    return max(1, min(LONGEST_POLL_SECONDS, math.ceil(due_in)))
