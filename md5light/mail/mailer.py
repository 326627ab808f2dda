"""Delivery of mails, through a mail server or into a Maildir.

A delivery that does not succeed raises a Failure (see errors.py) with one of these codes:

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

from collections.abc import Callable
from email.message import EmailMessage

from md5light.config import SmtpConfig
from md5light.mail.maildir import Maildir
from md5light.mail.messages import plain
from md5light.mail.smtp import Smtp


def _ignore(step: str) -> None:
    """Do nothing."""


class Mailer:
    """Delivers through the configured server, or into the Maildir if none is configured.

    Use it from one thread, except `stop`. The connection stays open for the next mail.
    """

    def __init__(self, config: SmtpConfig) -> None:
        self._delivery = Smtp(config) if config.host else Maildir(config.maildir)

    def send(
        self, message: EmailMessage, recipient: str, on_step: Callable[[str], object] = _ignore
    ) -> None:
        """Deliver `message` to `recipient` alone; return when the server has accepted it.

        `on_step` is called with the name of each step before it begins. Raises TemporaryFailure,
        PermanentFailure, or Stopped after a `stop`.
        """
        on_step("address")
        plain(recipient)
        self._delivery.deliver(message, recipient, on_step)

    def close(self) -> None:
        """End the connection with a QUIT; the next mail opens another."""
        self._delivery.close()

    def stop(self) -> None:
        """Make a running delivery, and each later one, raise Stopped at once."""
        self._delivery.stop()
