"""Mails to compose and deliver in tests."""

from __future__ import annotations

from typing import Any

from md5light.config import SmtpConfig
from md5light.job import Job, Mail
from md5light.mail.messages import compose

SENDER = "md5light@sender.example"
RECIPIENT = "curator@example.org"
PUBLIC_URL = "https://md5.example.org"

CONFIG = SmtpConfig(sender=SENDER)

JOB = Job(
    id="0e4fac17-f367-4807-8c28-8a059a2f82ac",
    url="http://site.com/file.txt",
    host="site.com",
    email=RECIPIENT,
    client=None,
    status="done",
    due_at=None,
    token=None,
    worker=None,
    attempts=1,
    max_attempts=5,
    created_at=1_700_000_000.1,
    started_at=1_700_000_000.2,
    finished_at=1_700_000_000.9,
    bytes_done=1234,
    bytes_total=1234,
    md5="f4afe93ad799484b1d512cc20e93efd1",
    size=1234,
    final_url="http://site.com/file.txt",
    content_type=None,
    etag=None,
    last_modified=None,
    error_code=None,
    error_message=None,
)


def mail_of(job: Job, **changes: Any) -> Mail:
    """Return the mail that tells how `job`, with `changes`, ended."""
    changed = job._replace(**changes)
    return Mail("job", changed.id, RECIPIENT, "a token", 1, 1_700_000_000.9, changed)


DONE = mail_of(JOB)
FAILED_JOB = JOB._replace(
    status="failed", md5=None, size=None, error_message="The server answered 404."
)
FAILED = mail_of(FAILED_JOB)

MESSAGE = compose(DONE, CONFIG, PUBLIC_URL)
