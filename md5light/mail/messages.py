"""The text of mails."""

from __future__ import annotations

import re
import urllib.parse
from datetime import datetime, timezone
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from typing import NamedTuple

from md5light import mailbox
from md5light.batch import Batch, ErrorCount, Result
from md5light.config import SmtpConfig
from md5light.errors import PermanentFailure
from md5light.finding import LABELS
from md5light.job import Job, Mail
from md5light.text import visible

#: lines of quoted-printable have at most 76 characters (RFC 2045 section 6.7); Python's have 78
POLICY = policy.SMTP.clone(max_line_length=76)

#: characters of a stranger's file name that a subject does not show
UNSAFE = re.compile(r"[^A-Za-z0-9.+~-]+")

#: the longest name in a subject, in characters: the header must fit on one line
NAME_LENGTH = 48


class Report(NamedTuple):
    """The content of the mail for an ended batch."""

    batch: Batch
    result: Result
    #: the first failed or mismatched lines, each with its reason
    bad_lines: tuple[str, ...]
    #: gzip data by file name: the manifest and the bad lines, unless they are too large
    attachments: dict[str, bytes]


def compose(mail: Mail, config: SmtpConfig, public_url: str) -> EmailMessage:
    """Write the mail about an ended job; `public_url` is the service's address for people.

    Every attempt makes the same bytes, so that a duplicate is recognised: the Message-ID comes from
    the job's id, and the Date is the end of the job (when the mail was complete, RFC 5322 section
    3.6.1). Each text that strangers chose takes one line; of these texts only a file name, in safe
    characters, is used in a header.
    """
    job = mail.job
    assert job is not None  # noqa: S101 - a job whose mail is owed is not purged
    ended = _moment(job.finished_at)
    message = _message(
        f"md5light: {job.check or job.status}: {_name(job)}",
        [
            *(_done(job) if job.status == "done" else _failed(job)),
            f"When:   {ended:%Y-%m-%d %H:%M:%S} UTC",
            f"More:   {visible(public_url)}/jobs/{job.id}",
            *_why("URL", config, public_url),
        ],
        ended,
        config,
        mail.recipient,
    )
    message["Message-ID"] = f"<{job.id}@{_domain(config)}>"
    return message


def compose_report(report: Report, mail: Mail, config: SmtpConfig, public_url: str) -> EmailMessage:
    """Write the mail about an ended batch, as `compose` does for a job.

    Each end of a batch has its own Message-ID, since a retried batch ends again.
    """
    batch, counts = report.batch, report.result.counts
    ended = _moment(batch.finished_at)
    well = counts.hashed + counts.matched
    name = _safe(batch.name or "") or f"batch {batch.id[:8]}"
    message = _message(
        f"md5light: {batch.status}: {name}: {well} of {counts.total} lines are well",
        [
            *_counts(report),
            *_errors(report),
            *_bad_lines(report),
            *_links(report, f"{visible(public_url)}/batches/{batch.id}"),
            f"When:       {ended:%Y-%m-%d %H:%M:%S} UTC",
            *_why("list", config, public_url),
        ],
        ended,
        config,
        mail.recipient,
    )
    message["Message-ID"] = f"<{batch.mail_id}@{_domain(config)}>"
    for file, content in report.attachments.items():
        message.add_attachment(content, maintype="application", subtype="gzip", filename=file)
    if report.attachments:  # the default is random, so different at each attempt
        message.set_boundary(f"=_{batch.mail_id}")
    return message


def compose_test(config: SmtpConfig, recipient: str) -> EmailMessage:
    """Write the mail of `md5light mail test`."""
    lines = ["Mails from md5light arrive at this address.", "It was given to md5light mail test."]
    now = datetime.now(timezone.utc)
    return _message("md5light: test", lines, now, config, recipient)


def plain(address: str) -> str:
    """Return a recipient's `address`; PermanentFailure unless it is safe in headers and SMTP."""
    if not mailbox.PLAIN_ADDRESS.fullmatch(address):
        raise PermanentFailure("bad_address", "The recipient is not a plain mail address.")
    return address


def _done(job: Job) -> list[str]:
    return [
        "The file was downloaded and its MD5 computed.",
        "",
        f"URL:    {visible(job.url)}",
        f"MD5:    {job.md5}",
        *(f"{LABELS[name] + ':':7} {value}" for name, value in job.further.items()),
        f"Size:   {job.size} {'byte' if job.size == 1 else 'bytes'}",
        *_verdict(job),
    ]


def _verdict(job: Job) -> list[str]:
    if job.check == "matched":
        return ["Check:  matched. The file is as expected."]
    if job.check is None:
        return []
    return [
        f"Check:  mismatched. {visible(job.note or '')}",
        f"Type:   {visible(job.content_type or 'unknown')}",
        f"From:   {visible(job.final_url or '')}",
    ]


def _failed(job: Job) -> list[str]:
    return [
        "The MD5 of the file could not be computed.",
        "",
        f"URL:    {visible(job.url)}",
        f"Reason: {visible(job.error_message or 'unknown')}",
    ]


def _counts(report: Report) -> list[str]:
    """List how many lines have each status; a count of 0 is omitted, except `hashed`."""
    counts, batch = report.result.counts, report.batch
    end = "was canceled" if batch.status == "canceled" else "has been worked through"
    shown = {"Lines": counts.total, "Hashed": counts.hashed}
    for status in ("matched", "mismatched", "failed", "canceled"):
        if count := getattr(counts, status):
            shown[status.capitalize()] = count
    return [
        f"The list {end}.",
        "",
        *([f"Name:       {visible(batch.name)}"] if batch.name else []),
        *(f"{label + ':':<11} {count}" for label, count in shown.items()),
        f"Size:       {report.result.bytes} {'byte' if report.result.bytes == 1 else 'bytes'}",
        "",
    ]


def _errors(report: Report) -> list[str]:
    if not report.result.errors:
        return []
    return ["Errors:", *map(_error, report.result.errors), ""]


def _error(error: ErrorCount) -> str:
    lines = ", ".join(map(str, error.lines))
    more = ", …" if error.count > len(error.lines) else ""
    return (
        f"  {error.code}: {error.count} ({'line' if error.count == 1 else 'lines'} {lines}{more})"
    )


def _bad_lines(report: Report) -> list[str]:
    if not report.bad_lines:
        return []
    bad = report.result.counts.failed + report.result.counts.mismatched
    count = bad + report.result.counts.canceled
    shown = len(report.bad_lines)
    head = f"The first {shown} of {count} bad lines:" if shown < count else "Bad lines:"
    return [head, *(f"  {visible(line)}" for line in report.bad_lines), ""]


def _links(report: Report, url: str) -> list[str]:
    attached = ", ".join(report.attachments)
    return [
        *([f"Attached:   {attached}"] if attached else []),
        f"Manifest:   {url}/manifest?format=md5sum",
        *([f"Bad lines:  {url}/manifest?format=failed"] if report.bad_lines else []),
        f"More:       {url}",
    ]


def _why(what: str, config: SmtpConfig, public_url: str) -> list[str]:
    return [
        "",
        f"You get this mail because this address was given when the {what} was submitted to",
        f"md5light at {visible(public_url)}.",
        f"If you did not ask for it or want no more mails, write to {_contact(config)}.",
    ]


def _moment(seconds: float | None) -> datetime:
    return datetime.fromtimestamp(int(seconds or 0), timezone.utc)


def _message(
    subject: str, lines: list[str], date: datetime, config: SmtpConfig, recipient: str
) -> EmailMessage:
    message = EmailMessage(policy=POLICY)
    message["From"] = _address(config.sender)
    message["To"] = Address(addr_spec=plain(recipient))
    if config.reply_to:
        message["Reply-To"] = _address(config.reply_to)
    message["Subject"] = subject
    message["Date"] = date
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: programs must not reply
    # Quoted-printable can carry a URL of any length; a line in SMTP has at most 998 octets (RFC
    # 5321 section 4.5.3.1.6).
    message.set_content("\n".join(lines) + "\n", cte="quoted-printable")
    return message


def _address(text: str) -> Address:
    name, address = mailbox.parse(text)
    return Address(display_name=name, addr_spec=address)


def _domain(config: SmtpConfig) -> str:
    return config.sender_address.rpartition("@")[2]


def _contact(config: SmtpConfig) -> str:
    """Return the address of somebody who can stop mails (postmaster: RFC 5321 section 4.5.1)."""
    if config.reply_to:
        return mailbox.parse(config.reply_to).address
    return f"postmaster@{_domain(config)}"


def _name(job: Job) -> str:
    """Return a name for the file: the last part of its URL's path, or the host."""
    _, *parts = re.split(r"[?#]", job.url)[0].partition("://")[2].rstrip("/").split("/")
    return (_safe(urllib.parse.unquote(parts[-1])) if parts else "") or _safe(job.host)


def _safe(text: str) -> str:
    """Replace unsafe characters and shorten; empty when nothing readable is left."""
    name = UNSAFE.sub("_", text)
    if not re.search("[A-Za-z0-9]", name):
        return ""
    if len(name) > NAME_LENGTH:
        half = NAME_LENGTH // 2 - 2
        name = f"{name[:half]}...{name[-half:]}"  # both ends: long names often differ at one only
    return name
