"""Mails: to whom they may go, what they say, and their delivery.

A delivery that does not succeed is a TemporaryFailure or a PermanentFailure with one of these codes:

name_not_found     the name of the mail server is unknown
connection_failed  no connection to the mail server, or it ended in the middle
timed_out          the mail server was silent for too long, or the whole exchange took too long
tls_failed         no TLS although it is configured, or a certificate that is not trusted
login_failed       the mail server did not accept the login, or a login would not be safe
refused            the mail server answered with an error
bad_address        the recipient is not a plain address
not_kept           the mail could not be written to the Maildir
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage

from md5light.config import SmtpConfig
from md5light.errors import Failure, PermanentFailure, Refused
from md5light.mail.maildir import Maildir
from md5light.mail.smtp import Smtp
from md5light.mailbox import PLAIN_ADDRESS

# --- addresses -------------------------------------------------------------------------------------------------

#: the domains of [smtp] local_domains: names without a dot (RFC 3490 section 3.1 has four of them), and the local
#: ones of RFC 6761 and RFC 6762
LOCAL_DOMAIN = re.compile(r"@([^.。．｡@]+|[^@]+[.。．｡](local|localhost|test))$", re.IGNORECASE)

#: a path in SMTP has at most 256 octets with its angle brackets (RFC 5321 section 4.5.3.1.3)
MAX_ADDRESS_LENGTH = 254


def check_address(text: str, *, local_domains: bool) -> str:
    """Return the address in `text` as mails go to it: its domain in lower-case ASCII (IDNA).

    Raises Refused, with a sentence that doesn't repeat the address. Nothing is looked up: whether the domain takes
    mail shows at the delivery.
    """
    if len(text) > MAX_ADDRESS_LENGTH:
        raise Refused(
            "invalid_email", f"The address must have at most {MAX_ADDRESS_LENGTH} characters."
        )
    if not LOCAL_DOMAIN.search(text):
        return _checked(text)
    if not local_domains:
        raise Refused(
            "invalid_email",
            "The address must not be in a local domain; [smtp] local_domains rules that.",
        )
    # The library refuses local domains whatever it is told, so it is shown the name within a public one.
    return _checked(f"{text}.example").removesuffix(".example")


def _checked(text: str) -> str:
    # Imported here: it takes 1 MiB and 60 ms, and neither a worker nor a server nobody gives an address to needs it.
    import email_validator

    try:
        # A local part outside ASCII is refused: it needs SMTPUTF8 (RFC 6531) at every server on its way, and where
        # one of them lacks that, the mail can't be sent in any other form.
        valid = email_validator.validate_email(
            text, check_deliverability=False, allow_smtputf8=False
        )
    except email_validator.EmailNotValidError:
        valid = None
    address = valid and valid.ascii_email
    if not address or not PLAIN_ADDRESS.fullmatch(address):
        raise Refused(
            "invalid_email",
            "The address must be one such as name@example.org, in ASCII before the @.",
        )
    return address


# --- what a mail says ------------------------------------------------------------------------------------------

#: quoted-printable's lines have at most 76 characters (RFC 2045 section 6.7); Python alone would make them 78
POLICY = policy.SMTP.clone(max_line_length=76)


@dataclass(frozen=True)
class Report:
    """What a mail tells: how a job ended."""

    job_id: str
    url: str
    #: done or failed
    status: str
    md5: str | None
    #: bytes
    size: int | None
    #: seconds since 1970
    finished_at: float
    #: why the job failed, a sentence
    error_message: str | None
    #: the address of /jobs/ID
    link: str


def compose(report: Report, *, sender: str, recipient: str) -> EmailMessage:
    """Write the mail that tells `recipient` of `report`.

    It is the same to the byte at each attempt, so that a doubled one is recognised: its Message-ID is made from the
    job's id, its Date is when the job ended (the moment the mail was complete, RFC 5322 section 3.6.1). Headers hold
    nothing of the URL or the error; in the text each of them is one line.
    """
    ended = datetime.fromtimestamp(int(report.finished_at), timezone.utc)
    lines = _done(report) if report.status == "done" else _failed(report)
    lines += [f"When:   {ended:%Y-%m-%d %H:%M:%S} UTC", f"More:   {_one_line(report.link)}"]
    message = _message(f"md5light: {report.status}", lines, ended, sender, recipient)
    message["Message-ID"] = f"<{report.job_id}@{sender.rpartition('@')[2]}>"
    return message


def compose_trial(*, sender: str, recipient: str) -> EmailMessage:
    """Write a mail that tells `recipient` only that mails arrive."""
    lines = ["Mails from md5light arrive at this address."]
    return _message("md5light: test", lines, datetime.now(timezone.utc), sender, recipient)


def _done(report: Report) -> list[str]:
    return [
        "The file was downloaded and its MD5 computed.",
        "",
        f"URL:    {_one_line(report.url)}",
        f"MD5:    {report.md5}",
        f"Size:   {report.size} {'byte' if report.size == 1 else 'bytes'}",
    ]


def _failed(report: Report) -> list[str]:
    return [
        "The MD5 of the file could not be computed.",
        "",
        f"URL:    {_one_line(report.url)}",
        f"Reason: {_one_line(report.error_message or 'unknown')}",
    ]


def _message(
    subject: str, lines: list[str], date: datetime, sender: str, recipient: str
) -> EmailMessage:
    message = EmailMessage(policy=POLICY)
    message["From"] = Address(addr_spec=sender)
    message["To"] = Address(addr_spec=_plain(recipient))
    message["Subject"] = subject
    message["Date"] = date
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: answers by machines are not wanted
    # Quoted-printable carries a URL of any length; a line of SMTP ends at 998 octets (RFC 5321 section 4.5.3.1.6).
    message.set_content("\n".join(lines) + "\n", cte="quoted-printable")
    return message


def _one_line(text: str) -> str:
    """Percent-encode what would not be seen as it is: controls, line separators, marks that turn the direction."""
    return "".join(
        c if c.isprintable() else urllib.parse.quote(c, errors="surrogatepass") for c in text
    )


def _plain(address: str) -> str:
    if not PLAIN_ADDRESS.fullmatch(address):
        raise PermanentFailure("bad_address", "The recipient is not a plain mail address.")
    return address


# --- delivery --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A step of a trial delivery: what it was, whether it was done, and if not, a sentence on what went wrong."""

    name: str
    done: bool
    text: str = ""


class Mailer:
    """Delivers mails through the configured server, or into the Maildir where none is configured.

    One thread delivers, one mail after the other; the connection is kept for the next mail. `stop` may be called
    from any thread.
    """

    def __init__(self, config: SmtpConfig) -> None:
        self._delivery = Smtp(config) if config.host else Maildir(config.maildir)

    def send(self, message: EmailMessage, recipient: str) -> None:
        """Deliver `message` to `recipient` alone; return the moment the server has taken it over.

        Raises TemporaryFailure, PermanentFailure, or Stopped after a `stop`.
        """
        for _ in self._steps(message, recipient):
            pass

    def probe(self, message: EmailMessage, recipient: str) -> Iterator[Step]:
        """Deliver as `send` does and tell of each step when it has been taken; the first not done is the last.

        The text of that step has the server's own words and may hold the address: it is for the eyes of the one who
        asked, not for the log.
        """
        name = ""
        try:
            for following in self._steps(message, recipient):
                if name:
                    yield Step(name, True)
                name = following
        except Failure as failure:
            yield Step(name, False, f"{failure.message} {self._delivery.answer}".strip())
        else:
            yield Step(name, True)

    def close(self) -> None:
        """End the connection in good order; the next mail opens another."""
        self._delivery.close()

    def stop(self) -> None:
        """End a delivery that is going on, at once, and refuse those that follow with Stopped."""
        self._delivery.stop()

    def _steps(self, message: EmailMessage, recipient: str) -> Iterator[str]:
        """Deliver; name each step before it is taken."""
        yield "address"
        _plain(recipient)
        yield from self._delivery.steps(message, recipient)
