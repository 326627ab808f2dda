"""The mail of an ended batch: what it tells, and what is attached."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest

from md5light.batch import Batch, NewBatch, NewLine
from md5light.errors import Failure, PermanentFailure
from md5light.job import Hashed, Job, Mail
from md5light.mail.messages import compose_report
from md5light.queue.batches import Batches
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.reports import gather
from tests.conftest import Clock
from tests.mails import CONFIG, PUBLIC_URL, RECIPIENT

MISSING = PermanentFailure("http_status", "The server answered 404.")
MANY = 10**6


@pytest.fixture
def batches(database: Database) -> Batches:
    return Batches(database, max_attempts=3)


def line(number: int, **known: Any) -> NewLine:
    url = f"http://files.example.com/{number}"
    return NewLine(number, url, url, "files.example.com", **known)


def work(job: Job) -> Hashed | Failure:
    """Hash files with an even number, in their own MD5 and of their own size."""
    number = int(job.url.rpartition("/")[2])
    if number % 2:
        return MISSING
    return Hashed(f"{number:032x}", number, job.url, "text/html", None, None)


def end(
    batches: Batches,
    queue: Queue,
    lines: list[NewLine],
    outcome: Callable[[Job], Hashed | Failure] = work,
    **known: Any,
) -> Batch:
    """Take a list, work through it, and end its batch."""
    batch_id = batches.begin(NewBatch("urls", "192.0.2.1", email=RECIPIENT, **known))
    batches.add(batch_id, lines)
    batches.publish(batch_id)
    job = queue.claim("w1")
    while job:
        job = queue.settle(job, outcome(job), claim_next=True)[1]
    (batch,) = batches.end_due()
    return batch


def mail(batches: Batches, batch: Batch, attach_bytes: int = MANY) -> EmailMessage:
    """Compose the mail of a batch's end, and read it as a mail reader does."""
    owed = Mail("batch", batch.mail_id, RECIPIENT, "a token", 1, 0)
    report = gather(batches, batch, attach_bytes)
    composed = compose_report(report, owed, CONFIG, PUBLIC_URL).as_bytes()
    # the same to the byte at the next attempt
    report = gather(batches, batch, attach_bytes)
    assert compose_report(report, owed, CONFIG, PUBLIC_URL).as_bytes() == composed
    read = message_from_bytes(composed, policy=policy.SMTP)
    assert isinstance(read, EmailMessage)
    return read


def text(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    assert body is not None
    content: str = body.get_content()
    return content.replace("\r\n", "\n")


def attached(message: EmailMessage) -> dict[str | None, str]:
    found = {}
    for part in message.iter_attachments():
        assert part.get_content_type() == "application/gzip"
        found[part.get_filename()] = gzip.decompress(part.get_content()).decode()
    return found


#: up to the time, which each place tells in its own zone
REPORT = f"""\
The list has been worked through.

Name:       My list
Lines:      5
Hashed:     1
Matched:    1
Mismatched: 1
Failed:     2
Size:       12 bytes

Errors:
  http_status: 1 (line 3)
  invalid_url: 1 (line 7)

Bad lines:
  3: http://files.example.com/3: failed: The server answered 404. (http_status)
  6: http://files.example.com/6: mismatched: md5 is {6:032x}, not {0:032x}; \
it looks like a page: its type is text/html
  7: no\\u202ep e: failed: Not absolute. (invalid_url)

Attached:   md5sum-{{short}}.md5.gz, failed-{{short}}.txt.gz
Manifest:   {{link}}/manifest?format=md5sum
Bad lines:  {{link}}/manifest?format=failed
More:       {{link}}"""


def test_a_report_tells_all_of_it(batches: Batches, queue: Queue) -> None:
    lines = [
        line(2),
        line(3),
        line(4, size=4),
        line(6, expected={"md5": "0" * 32}),
        NewLine(7, "no\u202ep e", error_code="invalid_url", error_message="Not absolute."),
    ]
    batch = end(batches, queue, lines, name="My list")
    message = mail(batches, batch)
    assert message["To"] == RECIPIENT
    assert message["Subject"] == "md5light: done: My_list: 2 of 5 lines are well"
    assert message["Message-ID"] == f"<{batch.id}.1@sender.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"].datetime.timestamp() == int(batch.finished_at or 0)
    shown = text(message).split("\nWhen:")[0]
    assert shown == REPORT.format(link=f"{PUBLIC_URL}/batches/{batch.id}", short=batch.id[:8])
    manifest, bad = attached(message).values()
    assert manifest.endswith(
        f"{2:032x}  http://files.example.com/2\n"
        f"{4:032x}  http://files.example.com/4\n"
        f"{6:032x}  http://files.example.com/6\n"
    )
    assert bad.splitlines()[1::2] == [
        "http://files.example.com/3",
        "http://files.example.com/6",
        "no\u202ep e",
    ]


def test_a_report_without_bad_lines_has_none(batches: Batches, queue: Queue) -> None:
    batch = end(batches, queue, [line(2), line(4)])
    message = mail(batches, batch)
    assert message["Subject"] == f"md5light: done: batch {batch.id[:8]}: 2 of 2 lines are well"
    assert list(attached(message)) == [f"md5sum-{batch.id[:8]}.md5.gz"]
    for word in ("Name:", "Errors", "Bad lines", "Failed", "Mismatched", "Canceled"):
        assert word not in text(message)


def test_the_first_twenty_bad_lines_are_shown(batches: Batches, queue: Queue) -> None:
    batch = end(batches, queue, [line(2 * number + 1) for number in range(21)])
    shown = text(mail(batches, batch))
    assert "The first 20 of 21 bad lines:\n" in shown
    assert shown.count(": failed: The server answered 404.") == 20
    assert "  http_status: 21 (lines 1, 3, 5, …)\n" in shown


def test_what_is_too_large_is_linked(batches: Batches, queue: Queue) -> None:
    batch = end(batches, queue, list(map(line, range(200))))
    for attach_bytes in (0, 20, 300):
        message = mail(batches, batch, attach_bytes)
        assert attached(message) == {}
        assert not message.is_multipart()
        assert "Attached" not in text(message)
        assert "/manifest?format=md5sum\n" in text(message)


def test_the_smaller_one_is_attached_alone(batches: Batches, queue: Queue) -> None:
    batch = end(batches, queue, list(map(line, [1, *range(2, 400, 2)])))
    assert list(attached(mail(batches, batch, 300))) == [f"failed-{batch.id[:8]}.txt.gz"]


def test_the_end_of_a_retry_has_a_mail_of_its_own(
    batches: Batches, queue: Queue, clock: Clock
) -> None:
    batch = end(batches, queue, [line(1), line(2)])
    first = mail(batches, batch)
    assert batches.retry(batch.id)
    clock.pass_(5)
    job = queue.claim("w1")
    assert job is not None
    queue.settle(job, Hashed("1" * 32, 1, job.url, None, None, None))
    (again,) = batches.end_due()
    second = mail(batches, again)
    assert second["Message-ID"] == f"<{batch.id}.2@sender.example>" != first["Message-ID"]
    assert "2 of 2 lines are well" in second["Subject"]


def test_a_canceled_batch_says_so(batches: Batches) -> None:
    batch_id = batches.begin(NewBatch("urls", "192.0.2.1", email=RECIPIENT))
    batches.add(batch_id, [line(1)])
    batches.publish(batch_id)
    assert batches.cancel(batch_id)
    batch = batches.get(batch_id)
    assert batch is not None
    message = mail(batches, batch)
    assert message["Subject"].startswith("md5light: canceled: ")
    assert text(message).startswith("The list was canceled.\n")
    assert "Canceled:   1\n" in text(message)


@pytest.mark.parametrize("name", ["\u2603", "a\tb" * 60, "../..", "x" * 200])
def test_a_name_changes_no_header(batches: Batches, queue: Queue, name: str) -> None:
    message = mail(batches, end(batches, queue, [line(2)], name=name))
    assert len(message["Subject"]) < 120
    assert message["Subject"].isascii()
