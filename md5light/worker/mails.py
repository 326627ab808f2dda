"""The mails of one worker process, one after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable
from email.message import EmailMessage

from md5light.config import Config
from md5light.errors import (
    DatabaseUnavailable,
    Failure,
    OperatorFailure,
    OutOfResources,
    Stopped,
)
from md5light.job import Mail
from md5light.logs import Log, Outage
from md5light.mail.mailer import Mailer
from md5light.mail.messages import compose, compose_report
from md5light.queue.batches import Batches
from md5light.queue.outbox import Outbox
from md5light.reports import gather
from md5light.worker.state import POLL_SECONDS, State

log = Log(__name__)

#: the advice for a mail that can't be sent although nothing is wrong with it
REMEDY = "The operator has to mend this: see [smtp] and the mail server. Until then mails wait."

#: codes of failures that say nothing about the mail: the next one would meet the same
MAIL_SERVER_CODES = frozenset(
    {"name_not_found", "connection_failed", "timed_out", "tls_failed", "login_failed", "not_kept"}
)


class Mails:
    """Claims mails from the outbox, sends them, and stores the outcomes."""

    def __init__(
        self, state: State, outbox: Outbox, batches: Batches, config: Config, *, burst: bool
    ) -> None:
        self._state = state
        self._outbox = outbox
        self._batches = batches
        self._config = config
        self._burst = burst
        self._mailer = Mailer(config.smtp)
        self._outage = Outage(log, "mail_failed", "mail_server_available")
        self._refusal = Outage(log, "mail_failed", "mails_accepted")
        self._current: Mail | None = None

    def mail_until_stopped(self) -> None:
        """Send due mails; with `burst`, until no slot is left that could add one."""
        state = self._state
        while not state.stopping.is_set():
            state.mail_added.clear()
            is_last = state.at_work == 1
            worked = False
            with state.watched():
                # Where another thread or process ends a batch first, it adds the mail.
                worked = self.mail_once() or (is_last and (self.end_batches() or self.mail_once()))
            if not worked:
                self._mailer.close()
                if self._burst and is_last:
                    return
                state.mail_added.wait(POLL_SECONDS)

    def mail_once(self) -> bool:
        """Send one mail if any is due; returns whether there was one."""
        mail = self._outbox.claim(self._state.name)
        if mail:
            self._current = mail
            self._deliver(mail)
            self._current = None
        return mail is not None

    def end_batches(self) -> bool:
        """End the batches whose jobs have all ended; return whether there were any."""
        ended = self._batches.end_due()
        for batch in ended:
            log.info("batch_ended", batch=batch.id, status=batch.status, lines=batch.lines)
        if ended:
            self._state.mail_added.set()
        return bool(ended)

    def renew(self) -> None:
        if mail := self._current:
            self._outbox.renew(mail)

    def cut_short(self) -> None:
        self._mailer.stop()

    def close(self) -> None:
        self._mailer.close()

    def _deliver(self, mail: Mail) -> None:
        state = self._state
        failure = state.attempt(lambda: self._send(mail), "internal_error")
        if failure is None or isinstance(failure, OutOfResources):
            state.persist(lambda: self._outbox.release(mail))
            state.pause_in_shortage(failure)
        elif isinstance(failure, Failure):
            state.persist(lambda: self._outbox.failed(mail, failure))
            self._report_failure(mail, failure)
        else:
            state.persist(lambda: self._outbox.sent(mail))
            self._outage.succeed()
            self._refusal.succeed()
            log.info("mailed", **_told(mail))

    def _send(self, mail: Mail) -> bool:
        try:
            message = self._compose(mail)
        except DatabaseUnavailable:  # that is no failure of the mail
            raise Stopped("The database is away.") from None
        self._mailer.send(message, mail.recipient)
        return True

    def _compose(self, mail: Mail) -> EmailMessage:
        """Write a mail; raises Stopped where its batch was opened again, and it is not owed."""
        smtp, url = self._config.smtp, self._config.server.public_url
        if mail.kind == "job":
            return compose(mail, smtp, url)
        batch = self._batches.told_by(mail)
        if batch is None:
            raise Stopped("The batch was opened again.")
        return compose_report(gather(self._batches, batch, smtp.attach_bytes), mail, smtp, url)

    def _report_failure(self, mail: Mail, failure: Failure) -> None:
        """Log a failure; of those that are not the mail's, the first of an outage."""
        report: Callable[..., None] = functools.partial(log.warning, "mail_failed")
        if isinstance(failure, OperatorFailure):
            report = functools.partial(self._refusal.fail, remedy=REMEDY)
        elif failure.code in MAIL_SERVER_CODES:
            report = self._outage.fail
        report(**_told(mail), attempt=mail.attempts, code=failure.code, reason=failure.message)


def _told(mail: Mail) -> dict[str, str]:
    """Return the log's fields for the subject of a mail; a batch has a mail for each end."""
    return {mail.kind: mail.subject.partition(".")[0]}
