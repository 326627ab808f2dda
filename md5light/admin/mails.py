"""`md5light mail …`: owed mails and their delivery."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from md5light.admin.access import found, found_batch, opened
from md5light.admin.output import print_json, print_table
from md5light.config import Config
from md5light.errors import Failure, NotDone
from md5light.job import describe_mail
from md5light.mail.addresses import check_address
from md5light.mail.mailer import Mailer
from md5light.mail.messages import compose_test
from md5light.queue.batches import Batches
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.queue.outbox import Outbox
from md5light.queue.recipients import Recipients
from md5light.text import visible
from md5light.times import rfc3339

#: the columns that are times
TIMES = ("created_at", "finished_at")


class _Steps:
    """The steps of a delivery, each printed when the next one begins."""

    def __init__(self, *, in_json: bool) -> None:
        self._in_json = in_json
        self._results: list[dict[str, str]] = []
        #: the current step
        self.name = ""

    def begin(self, name: str) -> None:
        if self.name:
            self.end("ok")
        self.name = name

    def end(self, result: str) -> None:
        self._results.append({"step": self.name, "result": result})
        if not self._in_json:
            print(f"{self.name:<10}  {visible(result)}", flush=True)

    def close(self, *, delivered: bool) -> None:
        if self._in_json:
            print_json({"delivered": delivered, "steps": self._results})


def mail_list(config: Config, arguments: argparse.Namespace) -> None:
    """Print the mails owed last, without their addresses."""
    with opened(config) as database:
        outbox = Outbox.configured(database, config)
        mails = [describe_mail(mail) for mail in outbox.newest(arguments.limit, arguments.status)]
    if arguments.json:
        print_json(mails)
    else:
        print_table([("ID", "STATUS", "ATTEMPTS", "OWED", "ERROR"), *map(_row, mails)])


def mail_retry(config: Config, arguments: argparse.Namespace) -> None:
    """Make failed mails new: that of one job or batch, or all."""
    with opened(config) as database:
        outbox = Outbox.configured(database, config)
        if arguments.failed:
            retried = outbox.retry_failed()
        else:
            subject, kind, status = _subject(database, config, arguments.id)
            if not outbox.retry(subject):
                raise NotDone(f"{kind} {subject[:36]} has no failed mail: its mail is {status}")
            retried = 1
    if arguments.json:
        print_json({"retried": retried})
    else:
        print(f"{retried} {'mail' if retried == 1 else 'mails'} retried")


def mail_export(config: Config, arguments: argparse.Namespace) -> None:
    """Print the jobs and batches that were submitted with an address."""
    with opened(config) as database:
        found = Recipients(database).find(arguments.address)
    if not found:
        raise NotDone(f"nothing was submitted with the address {visible(arguments.address)}")
    rows = [{**row, **{name: rfc3339(row[name]) for name in TIMES}} for row in found]
    if arguments.json:
        print_json(rows)
    else:
        head = ("KIND", "ID", "STATUS", "CREATED", "FINISHED")
        print_table([head, *(tuple(row.values()) for row in rows)])


def mail_forget(config: Config, arguments: argparse.Namespace) -> None:
    """Remove an address from all jobs, batches and mails; mails owed to it are not sent."""
    with opened(config) as database:
        removed = Recipients(database).forget(arguments.address)
    if not removed:
        raise NotDone(f"nothing was submitted with the address {visible(arguments.address)}")
    if arguments.json:
        print_json({"removed": removed})
    else:
        print(f"the address was removed from {removed} {'row' if removed == 1 else 'rows'}")


def _subject(database: Database, config: Config, beginning: str) -> tuple[str, str, str]:
    """Return the subject of the mail of a job or batch, its kind, and the mail's status."""
    batches = Batches.configured(database, config)
    if batches.find(beginning.lower()):
        batch = found_batch(batches, beginning)
        return batch.mail_id, "batch", batch.mail
    job = found(Queue.configured(database, config), beginning)
    return job.id, "job", job.mail


def _row(mail: dict[str, Any]) -> tuple[object, ...]:
    owed = f"{mail['created_at'][:19]}Z"
    error = mail["error"] and f"{mail['error']['code']}: {mail['error']['message']}"
    return mail["id"], mail["status"], mail["attempts"], owed, error


def mail_test(config: Config, arguments: argparse.Namespace) -> None:
    """Send a mail and print each step.

    The server's replies may contain the address, so they are printed and not logged.
    """
    to_maildir = not config.smtp.host
    local_domains = config.smtp.local_domains or to_maildir
    recipient = check_address(arguments.address, local_domains=local_domains)
    steps = _Steps(in_json=arguments.json)
    with contextlib.closing(Mailer(config.smtp)) as mailer:
        try:
            mailer.send(compose_test(config.smtp, recipient), recipient, steps.begin)
        except Failure as failure:
            steps.end(f"failed: {failure.message} {failure.detail}".rstrip())
            steps.close(delivered=False)
            raise NotDone(f"the mail was not delivered: {steps.name} failed") from None
    steps.end("ok")
    steps.close(delivered=True)
    if arguments.json:
        return
    if to_maildir:
        print(f"The mail is kept in {config.smtp.maildir}, since [smtp] host is empty.")
    else:
        print(f"{config.smtp.host} has taken the mail over.")
