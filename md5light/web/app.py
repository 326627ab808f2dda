"""The application: its routes, their permissions, and the form of answers and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import bottle

from md5light.config import Config
from md5light.download.guard import Guard
from md5light.errors import DatabaseUnavailable, QueueFull, Refused, TooMany
from md5light.queue.batches import Batches
from md5light.queue.jobs import Queue
from md5light.queue.totals import Totals
from md5light.web.answers import (
    ERRORS,
    RETRY_AFTER_SECONDS,
    Answer,
    Problem,
    as_json,
    error_body,
)
from md5light.web.batches import BatchAPI
from md5light.web.browser import prefers_html
from md5light.web.health import Health
from md5light.web.jobs import JobAPI
from md5light.web.middleware import WSGI, StartResponse, behind, observed, refuse_other_sites
from md5light.web.page import Page
from md5light.web.service import ServiceAPI
from md5light.web.tokens import TokenFile, Tokens

#: statuses of refusals for other reasons than a malformed request
STATUSES = {
    "ambiguous_names": 409,
    "not_all_done": 409,
    "too_many_lines": 413,
    "idempotency_key_reused": 422,
}

Render = Callable[["Answer | Problem"], bottle.HTTPResponse]

#: checks a request's environment; raises Problem to refuse the request
Check = Callable[[dict[str, Any]], None]


class Route(NamedTuple):
    """What answers a request; `page` renders the answer for people."""

    method: str
    path: str
    handle: Callable[..., Answer]
    page: Render | None = None


def make_app(
    queue: Queue, batches: Batches, totals: Totals, health: Health, config: Config
) -> WSGI:
    """Make the WSGI application that answers from `queue`, `batches` and `totals`."""
    page = Page(config, health, batches)
    guard, root = Guard(config.download), urlsplit(config.server.base_url).path
    jobs, lists = JobAPI(queue, guard, config, root), BatchAPI(batches, guard, config, root)
    app = _Errors(page)
    app.catchall = False  # exceptions are logged and answered by the layer around
    app.route("/", "GET", page.home)
    app.route("/page/<version>/<name>", "GET", page.file)
    tokens = Tokens(TokenFile(config)) if config.server.tokens_file else None
    takes_lists = config.server.max_batch_lines > 0
    for route in _routes(page, jobs, lists, ServiceAPI(queue, totals), takes_lists=takes_lists):
        checks = _checks(route, tokens, config.server.base_url)
        app.route(route.path, route.method, _rendered(route, checks, health))
    return behind(config.server.trusted_proxy, observed(app))


def _routes(
    page: Page, jobs: JobAPI, batches: BatchAPI, service: ServiceAPI, *, takes_lists: bool
) -> list[Route]:
    # A form can't send DELETE: it posts to /cancel.
    return [
        Route("POST", "/submit", jobs.submit, page.submitted),
        Route("GET", "/check", jobs.check),
        Route("GET", "/jobs/<job_id>", jobs.show, page.job),
        Route("DELETE", "/jobs/<job_id>", jobs.cancel),
        Route("POST", "/jobs/<job_id>/cancel", jobs.cancel, page.changed),
        Route("POST", "/jobs/<job_id>/retry", jobs.retry, page.changed),
        *([Route("POST", "/batches", batches.submit, page.taken)] if takes_lists else []),
        Route("GET", "/batches/<batch_id>", batches.show, page.batch),
        Route("DELETE", "/batches/<batch_id>", batches.cancel),
        Route("POST", "/batches/<batch_id>/cancel", batches.cancel, page.changed),
        Route("POST", "/batches/<batch_id>/retry", batches.retry, page.changed),
        Route("GET", "/batches/<batch_id>/manifest", batches.manifest),
        Route("GET", "/healthz", service.health),
        Route("GET", "/readyz", service.readiness),
        Route("GET", "/metrics", service.metrics),
        Route("GET", "/openapi.json", service.openapi, page.api),
    ]


def _checks(route: Route, tokens: Tokens | None, base_url: str) -> list[Check]:
    """Return the checks of a request: changes need the service's own pages, and a token if any.

    Metrics are for tokens too.
    """
    changes = route.method != "GET"
    checks: list[Check] = [partial(refuse_other_sites, base_url=base_url)] if changes else []
    if tokens and (changes or route.path == "/metrics"):
        checks.append(tokens.check)
    return checks


def _rendered(
    route: Route, checks: Iterable[Check], health: Health
) -> Callable[..., bottle.HTTPResponse]:
    """Wrap a route's handler: render what it returns or raises as its page or as JSON."""

    def render(outcome: Answer | Problem) -> bottle.HTTPResponse:
        if route.page and prefers_html(bottle.request.headers):
            return route.page(outcome)
        response = as_json(outcome)
        if route.page:
            response.set_header("Vary", "Accept")
        return response

    def respond(**arguments: str) -> bottle.HTTPResponse:
        try:
            for check in checks:
                check(bottle.request.environ)
            return render(route.handle(**arguments))
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
