"""The page for people: one to submit URLs, one for each job, and the files they are made of.

It shows what the API tells and does no more: a form's post goes through the API, and its answer is then shown as a
page. The script does the same as a browser without one, only without leaving the page: it fetches the very pages of
the jobs and takes over what has changed. So all words are written here, once, and escaped by the templates.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path

import bottle

from md5light.job import Job
from md5light.web.page.browser import preferred_language
from md5light.web.page.card import make_card
from md5light.web.page.language import LANGUAGES, Language

FOLDER = Path(__file__).parent

#: files that the pages load, and their types
FILES = {"style.css": "text/css", "script.js": "text/javascript", "icon.svg": "image/svg+xml"}

#: A form's post must carry its origin, which `no-referrer` would hide.
PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept, Accept-Language",
}

#: The version in a file's path is that of its contents, so it never has to be asked for again.
FILE_HEADERS = {"Cache-Control": "public, max-age=31536000, immutable"}

#: seconds after which a job's page is loaded anew where there is no script, at most; at first it is 2
LONGEST_REFRESH_SECONDS = 30


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
    """Answers browsers; every method returns a whole answer to the request at hand."""

    def __init__(self, public_url: str) -> None:
        self._root = re.sub(r"^https?://[^/]*", "", public_url)
        self._files = {name: (FOLDER / name).read_bytes() for name in FILES}
        self._version = hashlib.sha256(b"".join(self._files.values())).hexdigest()[:12]
        self._templates = {
            name: bottle.SimpleTemplate(name=f"{name}.html", lookup=[str(FOLDER)])
            for name in ("home", "job", "problem")
        }

    def home(self) -> bottle.HTTPResponse:
        """Show the form."""
        return self._render("home", problem="", wrong="", fields={"url": "", "email": ""})

    def file(self, version: str, name: str) -> bottle.HTTPResponse:
        """Hand out one of FILES."""
        if name not in self._files or version != self._version:
            raise bottle.HTTPError(404)
        return bottle.HTTPResponse(
            self._files[name], 200, {"Content-Type": FILES[name], **FILE_HEADERS}
        )

    def job(self, job: Job | None) -> bottle.HTTPResponse:
        """Show one job, or that there is none."""
        if job is None:
            return self._render("problem", 404, problem=_language().text["no_such_job"])
        now = time.time()
        refresh = min(LONGEST_REFRESH_SECONDS, round(2 + (now - job.created_at) / 10))
        settled = job.finished and job.mail != "waiting"
        return self._render(
            "job", card=make_card(job, _language(), now), refresh=0 if settled else refresh
        )

    def problem(self, refusal: bottle.HTTPResponse) -> bottle.HTTPResponse:
        """Show a refusal of the API."""
        return self._render("problem", refusal.status_code, problem=_said(refusal)[1])

    def submitted(self, answer: bottle.HTTPResponse) -> bottle.HTTPResponse:
        """Show what became of a form: its job, or the form again with what is wrong about it."""
        if answer.status_code == 202:
            location = f"{self._root}/jobs/{json.loads(answer.body)['id']}"
            return bottle.HTTPResponse("", 303, {**PAGE_HEADERS, "Location": location})
        code, problem = _said(answer)
        fields = {name: bottle.request.forms.getunicode(name, "") for name in ("url", "email")}
        return self._render(
            "home", answer.status_code, problem=problem, wrong=WRONG_FIELDS.get(code), fields=fields
        )

    def _render(self, template: str, status: int = 200, **values: object) -> bottle.HTTPResponse:
        language = _language()
        body = self._templates[template].render(
            language=language.name,
            text=language.text,
            root=self._root,
            files=f"{self._root}/page/{self._version}",
            **values,
        )
        return bottle.HTTPResponse(body, status, PAGE_HEADERS)


def _language() -> Language:
    return LANGUAGES[preferred_language(bottle.request.headers)]


def _said(refusal: bottle.HTTPResponse) -> tuple[str, str]:
    """Return the code of a refusal, and in plain words what it means."""
    error = json.loads(refusal.body)["error"]
    return error["code"], _language().reason(error["code"], error["message"])
