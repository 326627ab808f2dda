"""Jobs over HTTP: submitting a URL, and showing, canceling and retrying its job."""

from __future__ import annotations

import math
import time

import bottle

from md5light.config import Config
from md5light.download import urls
from md5light.download.guard import Guard
from md5light.job import Job, error_of
from md5light.logs import Log
from md5light.mail.addresses import check_address
from md5light.queue.jobs import Queue
from md5light.web import forms
from md5light.web.answers import NOT_FOUND, Answer, Problem
from md5light.web.browser import prefers_html
from md5light.web.tokens import client_of

log = Log(__name__)

#: the longest Retry-After of an unfinished job, in seconds
LONGEST_POLL_SECONDS = 60


class JobAPI:
    """One method for each route; it returns an answer, or raises an error that becomes a Problem.

    `root` is the prefix of all paths.
    """

    def __init__(self, queue: Queue, guard: Guard, config: Config, root: str) -> None:
        self._queue = queue
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


def _result(job: Job) -> dict[str, object]:
    """Return the result of a done job; the verdict only where something was expected."""
    result = {"md5": job.md5, "status": "done", "url": job.url, **job.further}
    verdict = {"check": job.check, "expected": job.expected} if job.check else {}
    return {**result, **verdict}


def _seconds_to_wait(job: Job) -> int:
    due_in = job.next_attempt_at - time.time() if job.next_attempt_at else 0
    return max(1, min(LONGEST_POLL_SECONDS, math.ceil(due_in)))
