"""The pages for people: one to submit, one for each job and each batch, and the API's description.

They render the API's values and do nothing else. The script does the same as a browser without one,
but without leaving the page: it fetches the pages of the jobs and replaces the parts that have
changed. So all texts are written once, here, and escaped by the templates.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import bottle

from md5light.config import Config
from md5light.job import Job
from md5light.queue.batches import Batches
from md5light.web.answers import Answer, Problem
from md5light.web.browser import preferred_language
from md5light.web.health import Health
from md5light.web.page.card import compare, make_card
from md5light.web.page.language import LANGUAGES, Language
from md5light.web.page.listed import NOTHING_LISTED, listed
from md5light.web.page.reference import calls
from md5light.web.page.report import (
    DOWNLOADS,
    LABELS_OF_STATUSES,
    PAGE_LINES,
    Part,
    make_report,
)

FOLDER = Path(__file__).parent

#: files that the pages load, and their types
FILES = {"style.css": "text/css", "script.js": "text/javascript", "icon.svg": "image/svg+xml"}

#: A form's post must carry its origin, which `no-referrer` would hide.
PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept, Accept-Language",
}

#: The version in a file's path is that of its contents, so it is never asked for again.
FILE_HEADERS = {"Cache-Control": "public, max-age=31536000, immutable"}

#: the most seconds after which a page without a script is loaded again; at first 2
LONGEST_REFRESH_SECONDS = 30

#: the fields of the form
FIELDS = ("url", "email", "digests")

NOTHING_FILLED = dict.fromkeys(FIELDS, "")

#: the templates of whole pages
TEMPLATES = ("home", "job", "batch", "api", "problem")

#: what the forms offer: the value of `digests`, and its label or the label's name
DIGESTS = (
    ("", "MD5"),
    ("sha256", "MD5, SHA-256"),
    ("sha1", "MD5, SHA-1"),
    ("sha512", "MD5, SHA-512"),
    ("sha1 sha256 sha512", "all_digests"),
)

#: the field of the form that a refusal is about, by its code; others are about neither
WRONG_FIELDS = {
    "missing_parameter": "url",
    "invalid_url": "url",
    "address_not_allowed": "url",
    "port_not_allowed": "url",
    "invalid_email": "email",
    "too_many_mails": "email",
}


class Page:
    """Renders pages, each as the complete answer to the current request."""

    def __init__(self, config: Config, health: Health, batches: Batches) -> None:
        self._base_url = config.server.base_url
        self._root = urlsplit(self._base_url).path
        self._takes_lists = config.server.max_batch_lines > 0
        self._health = health
        self._batches = batches
        self._files = {name: (FOLDER / name).read_bytes() for name in FILES}
        self._version = hashlib.sha256(b"".join(self._files.values())).hexdigest()[:12]
        self._templates = {
            name: bottle.SimpleTemplate(name=f"{name}.html", lookup=[str(FOLDER)])
            for name in TEMPLATES
        }

    def home(self) -> bottle.HTTPResponse:
        """Show the forms; `url` of the query fills the field."""
        url = bottle.request.query.getunicode("url", "")
        return self._home(fields={**NOTHING_FILLED, "url": url})

    def file(self, version: str, name: str) -> bottle.HTTPResponse:
        """Send one of FILES."""
        if name not in self._files or version != self._version:
            raise bottle.HTTPError(404)
        return bottle.HTTPResponse(
            self._files[name], 200, {"Content-Type": FILES[name], **FILE_HEADERS}
        )

    def job(self, outcome: Answer | Problem) -> bottle.HTTPResponse:
        """Show one job, that there is none, or why it can't be shown."""
        if isinstance(outcome, Problem):
            return self._problem(outcome)
        if not isinstance(outcome.value, Job):
            return self._render("problem", outcome.status, problem=_language().text["no_such_job"])
        job, now, language = outcome.value, time.time(), _language()
        settled = job.finished and job.mail != "waiting"
        pasted = bottle.request.query.getunicode("digest", "") if job.status == "done" else ""
        return self._render(
            "job",
            card=make_card(job, language, now, no_worker=self._health.no_worker),
            refresh=0 if settled else _refresh(now - job.created_at),
            compared=pasted,
            comparison=compare(job, pasted, language.text) if pasted.strip() else None,
        )

    def batch(self, outcome: Answer | Problem) -> bottle.HTTPResponse:
        """Show one batch and a page of its lines, that there is none, or why it can't be shown."""
        if isinstance(outcome, Problem):
            return self._problem(outcome)
        batch = self._batches.get(outcome.value.get("id", ""))
        if batch is None:
            problem = _language().text["no_such_batch"]
            return self._render("problem", outcome.status, problem=problem)
        part, now = _part(), time.time()
        result = self._batches.result(batch)
        count = getattr(result.counts, part.status or "total")
        entries = self._batches.entries(
            batch.id,
            after=part.after,
            limit=min(PAGE_LINES + 1, count),  # with fewer of this status the search ends early
            statuses=[part.status] if part.status else (),
        )
        settled = batch.ended and batch.mail != "waiting"
        return self._render(
            "batch",
            report=make_report(batch, result, part, list(entries), _language(), now),
            refresh=0 if settled else _refresh(now - batch.created_at),
            downloads=DOWNLOADS,
            address=self._address(),
        )

    def submitted(self, outcome: Answer | Problem) -> bottle.HTTPResponse:
        """Show the result of a form: its job, or the form again with the error."""
        if isinstance(outcome, Answer):
            return self._see(f"/jobs/{outcome.value['id']}")
        return self._home(
            outcome.status,
            outcome.headers,
            problem=_reason(outcome),
            wrong=WRONG_FIELDS.get(outcome.code),
            fields={name: bottle.request.forms.getunicode(name, "") for name in FIELDS},
        )

    def taken(self, outcome: Answer | Problem) -> bottle.HTTPResponse:
        """Show the result of a list: its batch, or the form again with the errors."""
        if isinstance(outcome, Answer):
            return self._see(f"/batches/{outcome.value['id']}")
        refused = listed(bottle.request, outcome, _reason(outcome), _language())
        return self._home(outcome.status, outcome.headers, listed=refused)

    def changed(self, outcome: Answer | Problem) -> bottle.HTTPResponse:
        """Show the job or the batch of a button, also if it had ended before."""
        if isinstance(outcome, Problem) and outcome.status != 409:
            return self._problem(outcome)
        return self._see(bottle.request.path.rpartition("/")[0])

    def api(self, outcome: Answer | Problem) -> bottle.HTTPResponse:
        """Show the description of the API with commands to copy."""
        if isinstance(outcome, Problem):
            return self._problem(outcome)
        shown = calls(json.loads(outcome.value), self._address(), _language())
        return self._render("api", calls=shown)

    def nothing(self) -> bottle.HTTPResponse:
        """Say that there is nothing at this path."""
        return self._render("problem", 404, problem=_language().text["no_such_page"])

    def _problem(self, problem: Problem) -> bottle.HTTPResponse:
        return self._render("problem", problem.status, problem.headers, problem=_reason(problem))

    def _see(self, path: str) -> bottle.HTTPResponse:
        return bottle.HTTPResponse("", 303, {**PAGE_HEADERS, "Location": f"{self._root}{path}"})

    def _address(self) -> str:
        """Return the address of the service for readers."""
        request = bottle.request
        scheme, host = request.environ["wsgi.url_scheme"], request.get_header("Host", "")
        return self._base_url or f"{scheme}://{host}"

    def _home(
        self, status: int = 200, headers: Mapping[str, str] = {}, **values: object
    ) -> bottle.HTTPResponse:
        text = _language().text
        shown = {
            "address": self._address(),
            "no_worker": self._health.no_worker,
            "takes_lists": self._takes_lists,
            "digests": [(value, text.get(label, label)) for value, label in DIGESTS],
            "problem": "",
            "wrong": "",
            "fields": NOTHING_FILLED,
            "listed": NOTHING_LISTED,
        }
        return self._render("home", status, headers, **{**shown, **values})

    def _render(
        self, template: str, status: int = 200, headers: Mapping[str, str] = {}, **values: object
    ) -> bottle.HTTPResponse:
        language = _language()
        body = self._templates[template].render(
            language=language.name,
            text=language.text,
            root=self._root,
            files=f"{self._root}/page/{self._version}",
            **values,
        )
        return bottle.HTTPResponse(body, status, {**PAGE_HEADERS, **headers})


def _language() -> Language:
    return LANGUAGES[preferred_language(bottle.request.headers)]


def _reason(problem: Problem) -> str:
    sent = bottle.request.get_header("Authorization")
    code = "wrong_token" if problem.code == "unauthorized" and sent else problem.code
    return _language().reason(code, problem.message)


def _refresh(age: float) -> int:
    """Return the seconds after which the page of a job or batch so old is loaded again."""
    return min(LONGEST_REFRESH_SECONDS, round(2 + age / 10))


def _part() -> Part:
    """Return the selected lines; an invalid selection means the first lines of any status."""
    query = bottle.request.query
    status, after = query.get("status", ""), query.get("after", "")
    is_number = after.isascii() and after.isdigit() and len(after) < 10
    return Part(status if status in LABELS_OF_STATUSES else "", int(after) if is_number else 0)
