"""The page for people: one to submit URLs, one for each job, and the files they are made of.

It renders what the API returns and does no more. The script does the same as a browser without one,
only without leaving the page: it fetches the very pages of the jobs and takes over what has
changed. So all words are written here, once, and escaped by the templates.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

import bottle

from md5light.job import Job
from md5light.web.answers import Answer, Problem
from md5light.web.health import Health
from md5light.web.page.browser import preferred_language
from md5light.web.page.card import make_card
from md5light.web.page.language import LANGUAGES, Language

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

#: seconds after which a job's page is loaded again where there is no script, at most; at first 2
LONGEST_REFRESH_SECONDS = 30

#: the fields of the form
FIELDS = ("url", "email")

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
    """Renders pages, each as a whole answer to the request at hand; `root` is its path prefix."""

    def __init__(self, root: str, base_url: str, health: Health) -> None:
        self._root = root
        self._base_url = base_url
        self._health = health
        self._files = {name: (FOLDER / name).read_bytes() for name in FILES}
        self._version = hashlib.sha256(b"".join(self._files.values())).hexdigest()[:12]
        self._templates = {
            name: bottle.SimpleTemplate(name=f"{name}.html", lookup=[str(FOLDER)])
            for name in ("home", "job", "problem")
        }

    def home(self) -> bottle.HTTPResponse:
        """Show the form."""
        return self._home(200, {}, problem="", wrong="", fields=dict.fromkeys(FIELDS, ""))

    def file(self, version: str, name: str) -> bottle.HTTPResponse:
        """Hand out one of FILES."""
        if name not in self._files or version != self._version:
            raise bottle.HTTPError(404)
        return bottle.HTTPResponse(
            self._files[name], 200, {"Content-Type": FILES[name], **FILE_HEADERS}
        )

    def job(self, outcome: Answer | Problem) -> bottle.HTTPResponse:
        """Show one job, that there is none, or why it can't be shown."""
        if isinstance(outcome, Problem):
            problem = _language().reason(outcome.code, outcome.message)
            return self._render("problem", outcome.status, outcome.headers, problem=problem)
        if not isinstance(outcome.value, Job):
            return self._render("problem", outcome.status, problem=_language().text["no_such_job"])
        job, now = outcome.value, time.time()
        refresh = min(LONGEST_REFRESH_SECONDS, round(2 + (now - job.created_at) / 10))
        settled = job.finished and job.mail != "waiting"
        card = make_card(job, _language(), now, no_worker=self._health.no_worker)
        return self._render("job", card=card, refresh=0 if settled else refresh)

    def submitted(self, outcome: Answer | Problem) -> bottle.HTTPResponse:
        """Show what became of a form: its job, or the form again with what is wrong about it."""
        if isinstance(outcome, Answer):
            location = f"{self._root}/jobs/{outcome.value['id']}"
            return bottle.HTTPResponse("", 303, {**PAGE_HEADERS, "Location": location})
        problem = _language().reason(outcome.code, outcome.message)
        fields = {name: bottle.request.forms.getunicode(name, "") for name in FIELDS}
        return self._home(
            outcome.status,
            outcome.headers,
            problem=problem,
            wrong=WRONG_FIELDS.get(outcome.code),
            fields=fields,
        )

    def _home(
        self, status: int, headers: Mapping[str, str], **values: object
    ) -> bottle.HTTPResponse:
        request = bottle.request
        scheme, host = request.environ["wsgi.url_scheme"], request.get_header("Host", "")
        address = self._base_url or f"{scheme}://{host}"
        no_worker = self._health.no_worker
        return self._render("home", status, headers, address=address, no_worker=no_worker, **values)

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
