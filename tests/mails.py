"""Mails to compose and deliver in tests."""

from __future__ import annotations

import dataclasses

from md5light.config import SmtpConfig
from md5light.job import Mail
from md5light.mail.messages import compose

SENDER = "md5light@sender.example"
RECIPIENT = "curator@example.org"
PUBLIC_URL = "https://md5.example.org"

CONFIG = SmtpConfig(sender=SENDER)

DONE = Mail(
    job_id="0e4fac17-f367-4807-8c28-8a059a2f82ac",
    recipient=RECIPIENT,
    token="a token",
    attempts=1,
    max_attempts=10,
    url="http://site.com/file.txt",
    status="done",
    md5="f4afe93ad799484b1d512cc20e93efd1",
    size=1234,
    finished_at=1_700_000_000.9,
    error_message=None,
)
FAILED = dataclasses.replace(
    DONE, status="failed", md5=None, size=None, error_message="The server answered 404."
)

MESSAGE = compose(DONE, CONFIG, PUBLIC_URL)
