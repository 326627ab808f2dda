"""The HTTP API: the routes, what is asked, checked and stored, and what is answered."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bottle

from md5light.config import Config
from md5light.download import urls
from md5light.download.guard import Guard
from md5light.errors import DatabaseUnavailable, QueueFull, Refused, TooMany
from md5light.job import Job, error_of
from md5light.logs import Log
from md5light.mail.addresses import check_address
from md5light.queue.batches import Batches
from md5light.queue.jobs import Queue
from md5light.queue.totals import Totals
from md5light.web import forms, metrics
from md5light.web.answers import (
    ERRORS,
    NOT_FOUND,
    RETRY_AFTER_SECONDS,
    Answer,
    Problem,
    as_json,
    error_body,
)
from md5light.web.batches import BatchAPI
from md5light.web.health import NO_WORKER, Health, lacks_worker
from md5light.web.middleware import WSGI, StartResponse, behind, observed, refuse_other_sites
from md5light.web.page import Page
from md5light.web.page.browser import prefers_html
from md5light.web.tokens import TokenFile, Tokens, client_of

log = Log(__name__)

#: the description of this API, written by hand
OPENAPI = Path(__file__).with_name("openapi.json")

#: seconds until a client is asked to look at a job again, at most
LONGEST_POLL_SECONDS = 60

#: status of what is refused for another reason than a malformed request
STATUSES = {
    "ambiguous_names": 409,
    "not_all_done": 409,
    "too_many_lines": 413,
    "idempotency_key_reused": 422,
}

Render = Callable[["Answer | Problem"], bottle.HTTPResponse]

#: looks at a request's environment
Check = Callable[[dict[str, Any]], None]


def make_app(
    queue: Queue, batches: Batches, totals: Totals, health: Health, config: Config
) -> WSGI:
    """Make the WSGI application that answers from `queue`, `batches` and `totals`."""
    root = urlsplit(config.server.base_url).path
    page = Page(config, health, batches)
    app = _Errors(page)
    app.catchall = False  # exceptions are logged and answered by the layer around
    guard = Guard(config.download)
    api = _API(queue, totals, config, guard, root)
    batch_api = BatchAPI(batches, guard, config, root)

    tokens = Tokens(TokenFile(config)) if config.server.tokens_file else None

    def route(path: str, method: str, handle: Callable[..., Answer], *page: Render) -> None:
        checks: list[Check] = []
        if method != "GET":
            checks.append(partial(refuse_other_sites, base_url=config.server.base_url))
        if tokens and (method != "GET" or path == "/metrics"):
            checks.append(tokens.check)
        app.route(path, method, _rendered(handle, checks, health, *page))

    app.route("/", "GET", page.home)
    app.route("/page/<version>/<name>", "GET", page.file)
    route("/submit", "POST", api.submit, page.submitted)
    route("/check", "GET", api.check)
    route("/jobs/<job_id>", "GET", api.show, page.job)
    route("/jobs/<job_id>", "DELETE", api.cancel)
    route("/jobs/<job_id>/retry", "POST", api.retry, page.changed)
    if config.server.max_batch_lines:
        route("/batches", "POST", batch_api.submit, page.taken)
    route("/batches/<batch_id>", "GET", batch_api.show, page.batch)
    route("/batches/<batch_id>", "DELETE", batch_api.cancel)
    route("/batches/<batch_id>/manifest", "GET", batch_api.manifest)
    route("/batches/<batch_id>/retry", "POST", batch_api.retry, page.changed)
    # A form can't send DELETE.
    route("/jobs/<job_id>/cancel", "POST", api.cancel, page.changed)
    route("/batches/<batch_id>/cancel", "POST", batch_api.cancel, page.changed)
    route("/healthz", "GET", api.health)
    route("/readyz", "GET", api.readiness)
    route("/metrics", "GET", api.metrics)
    route("/openapi.json", "GET", api.openapi, page.api)
    return behind(config.server.trusted_proxy, observed(app))


def _rendered(
    handle: Callable[..., Answer],
    checks: Iterable[Check],
    health: Health,
    page: Render | None = None,
) -> Callable[..., bottle.HTTPResponse]:
    """Wrap a handler: render what it returns or raises, as `page` does or, for programs, as JSON.

    `checks` come first; each raises a Problem where the request is to be refused.
    """

    def render(outcome: Answer | Problem) -> bottle.HTTPResponse:
        if page and prefers_html(bottle.request.headers):
            return page(outcome)
        response = as_json(outcome)
        if page:
            response.set_header("Vary", "Accept")
        return response

    def respond(**arguments: str) -> bottle.HTTPResponse:
        try:
            for check in checks:
                check(bottle.request.environ)
            return render(handle(**arguments))
        except DatabaseUnavailable as reason:
            health.database_failed(reason)
            message = "The database does not answer or can't be written now."
            return render(_try_later("database_unavailable", message))
        except (Problem, Refused, TooMany, QueueFull) as error:
            return render(_problem(error))

    return respond


def _problem(error: Problem | Refused | TooMany | QueueFull) -> Problem:
    if isinstance(error, Refused):
        return Problem(STATUSES.get(error.code, 400), error.code, error.message)
    if isinstance(error, TooMany):
        return Problem(429, error.code, error.message, retry_after=error.retry_after)
    if isinstance(error, QueueFull):
        return _try_later(error.code, error.message)
    return error


def _try_later(code: str, message: str) -> Problem:
    return Problem(503, code, message, retry_after=RETRY_AFTER_SECONDS)


class _Errors(bottle.Bottle):  # type: ignore[misc]
    """A Bottle whose own errors (404, 405, malformed multipart) have the documented form.

    A browser gets a page where there is nothing.
    """

    def __init__(self, page: Page) -> None:
        super().__init__()
        self._page = page

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer; what is not UTF-8 in the path is replaced first.

        Bottle would drop it, and so find another path.
        """
        text = environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
        environ["PATH_INFO"] = text.encode().decode("latin-1")
        answered: Iterable[bytes] = super().__call__(environ, start_response)
        return answered

    def default_error_handler(self, error: bottle.HTTPError) -> bytes | bottle.HTTPResponse:
        if error.status_code == 404 and prefers_html(bottle.request.headers):
            return self._page.nothing()
        bottle.response.content_type = "application/json"
        if error.status_code == 405:  # Bottle answers HEAD wherever GET is, but does not tell
            allowed = bottle.response.get_header("Allow").replace("GET", "GET,HEAD")
            bottle.response.set_header("Allow", allowed)
        return error_body(*ERRORS.get(error.status_code, ERRORS[500]))


class _API:
    """One method a route; each returns an answer, or raises a Problem or what becomes one."""

    def __init__(
        self, queue: Queue, totals: Totals, config: Config, guard: Guard, root: str
    ) -> None:
        self._queue = queue
        self._totals = totals
        self._guard = guard
        self._local_domains = config.smtp.local_domains or not config.smtp.host
        self._root = root

    def submit(self) -> Answer:
        fields = forms.submission(bottle.request)
        text = forms.required(fields, "url")
        if prefers_html(bottle.request.headers):
            text = forms.completed(text)
        url = urls.parse(text)
        self._guard.check(url)
        email = fields.get("email")
        recipient = check_address(email, local_domains=self._local_domains) if email else None
        wanted = forms.wanted(fields)
        client = client_of(bottle.request.environ)
        job_id = self._queue.submit(text, url.host, recipient, client, wanted)
        log.info("submitted", job=job_id)
        location = f"{self._root}/check?id={job_id}"
        return Answer(202, {"id": job_id}, {"Location": location, "Retry-After": "1"})

    def check(self) -> Answer:
        job = self._queue.get(forms.query(bottle.request, "id"))
        if job is None:
            return NOT_FOUND
        if job.status == "done":
            return Answer(200, _result(job))
        if job.finished:
            return Answer(424, {"error": error_of(job), "status": "failed", "url": job.url})
        return Answer(202, {"status": "running"}, {"Retry-After": str(_seconds_to_wait(job))})

    def show(self, job_id: str) -> Answer:
        job = self._queue.get(job_id)
        return Answer(200, job) if job else NOT_FOUND

    def cancel(self, job_id: str) -> Answer:
        canceled = self._queue.cancel(job_id)
        job = self._queue.get(job_id)
        if job is None:
            return NOT_FOUND
        if not canceled:
            raise Problem(409, "job_finished", f"The job has ended: it is {job.status}.")
        log.info("canceled", job=job_id)
        return Answer(200, job)

    def retry(self, job_id: str) -> Answer:
        retried = self._queue.retry(job_id)
        job = self._queue.get(job_id)
        if job is None:
            return NOT_FOUND
        if not retried:
            message = f"Only a failed or canceled job can be retried: it is {job.status}."
            raise Problem(409, "nothing_to_retry", message)
        log.info("retried", job=job_id)
        return Answer(202, job, {"Location": f"{self._root}/jobs/{job_id}", "Retry-After": "1"})

    def health(self) -> Answer:
        return Answer(200, {"status": "ok"})

    def openapi(self) -> Answer:
        return Answer(200, OPENAPI.read_bytes())

    def readiness(self) -> Answer:
        self._queue.probe()
        snapshot = self._totals.snapshot()
        state = {"last_worker_sign_seconds": snapshot.last_sign_seconds, "status": "ready"}
        return Answer(200, {**state, "warning": NO_WORKER} if lacks_worker(snapshot) else state)

    def metrics(self) -> Answer:
        text = metrics.render(self._totals.snapshot())
        return Answer(200, text.encode(), {"Content-Type": metrics.CONTENT_TYPE})


def _result(job: Job) -> dict[str, object]:
    """Return the result of a done job; the verdict only where something was expected."""
    result = {"md5": job.md5, "status": "done", "url": job.url, **job.further}
    verdict = {"check": job.check, "expected": job.expected} if job.check else {}
    return {**result, **verdict}


def _seconds_to_wait(job: Job) -> int:
    due_in = job.next_attempt_at - time.time() if job.next_attempt_at else 0
    return max(1, min(LONGEST_POLL_SECONDS, math.ceil(due_in)))
