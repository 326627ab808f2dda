"""The nouns of `md5light`, which open the database: administration."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from md5light.cli.parsers import (
    AN_ID,
    Commands,
    Parser,
    add_common,
    add_json,
    key_of,
    positive,
    seconds,
    sentence,
)
from md5light.cli.running import importing, run

if TYPE_CHECKING:
    from md5light.config import Config


def add(commands: Commands) -> None:
    _group(commands, "config", "check or show the configuration", "check|show", _fill_config)
    purpose = "look at jobs, try them again, cancel or remove them"
    _group(commands, "jobs", purpose, "list|show|retry|cancel|purge", _fill_jobs)
    _group(commands, "batches", "look at batches", "list|show", _fill_batches)
    purpose = "look at hosts that asked for rest or could not be reached"
    _group(commands, "hosts", purpose, "list", _fill_hosts)
    purpose = "look at mails, send them again, try their delivery, remove addresses"
    _group(commands, "mail", purpose, "list|retry|test|export|forget", _fill_mail)
    _group(commands, "queue", "copy or compact the database", "copy|compact", _fill_queue)
    purpose = "make, list or remove tokens, which let their owners submit"
    _group(commands, "token", purpose, "add|list|remove", _fill_token)
    _command(commands, "stats", "tell what goes on and what has been counted", "stats --json")


def _group(
    commands: Commands, name: str, purpose: str, below: str, fill: Callable[[Commands], object]
) -> None:
    """Add a command that is followed by one of those `below`, which `fill` adds."""

    def fill_group(group: Parser) -> None:
        add_common(group)
        fill(group.add_subparsers(title="commands", required=True, metavar=below))

    commands.add_parser(
        name,
        help=purpose,
        description=sentence(purpose),
        epilog=f"example: md5light {name} {below.partition('|')[0]} --help",
        fill=fill_group,
    )


def _command(commands: Commands, name: str, purpose: str, example: str) -> Parser:
    """Add a command, which the function of its name in `admin` runs."""
    command = commands.add_parser(
        name.split()[-1],
        help=purpose,
        description=sentence(purpose),
        epilog=f"example: md5light {example}",
    )
    add_common(command)
    add_json(command)
    command.set_defaults(execute=_execute, run=name.replace(" ", "_"))
    return command


def _execute(program: str, arguments: argparse.Namespace) -> None:
    def work(config: Config) -> None:
        command: Callable[[Config, argparse.Namespace], None]
        with importing():
            from md5light import admin

            command = getattr(admin, arguments.run)
        command(config, arguments)

    run(program, arguments, work)


# --- what follows a noun --------------------------------------------------------------------------


def _fill_config(commands: Commands) -> None:
    _command(commands, "config check", "say whether the configuration is right", "config check")
    _command(
        commands, "config show", "print what applies and its source, secrets masked", "config show"
    )


def _fill_jobs(commands: Commands) -> None:
    from md5light.job import STATUSES

    example = "jobs list --status failed --limit 100"
    listed = _command(commands, "jobs list", "print jobs, the newest first", example)
    _add_limit(listed)
    _add_filters(listed, STATUSES)
    purpose = "print all that is known of jobs"
    shown = _command(commands, "jobs show", purpose, f"jobs show {AN_ID}")
    _add_ids(shown)
    purpose = "make failed or canceled jobs new"
    retried = _command(
        commands, "jobs retry", purpose, "jobs retry --status failed --code timed_out"
    )
    _add_filters(retried, ("failed", "canceled"))
    _add_ids(retried, nargs="*")
    canceled = _command(commands, "jobs cancel", "end unfinished jobs", f"jobs cancel {AN_ID[:8]}")
    _add_ids(canceled)
    purpose = "remove jobs and batches that ended long ago"
    purged = _command(commands, "jobs purge", purpose, "jobs purge --older-than 30d")
    purged.add_argument(
        "--older-than",
        type=seconds,
        required=True,
        metavar="AGE",
        help="time since their end, such as 30d, 12h, 15m or 45s",
    )


def _fill_batches(commands: Commands) -> None:
    listed = _command(commands, "batches list", "print batches, the newest first", "batches list")
    _add_limit(listed)
    purpose = "print all that is known of a batch"
    shown = _command(commands, "batches show", purpose, f"batches show {AN_ID[:8]}")
    shown.add_argument(
        "id",
        metavar="ID",
        help="id of a batch, or an unambiguous beginning of at least 8 characters",
    )


def _fill_hosts(commands: Commands) -> None:
    listed = _command(commands, "hosts list", "print these hosts, the latest first", "hosts list")
    _add_limit(listed)


def _fill_mail(commands: Commands) -> None:
    purpose = "print owed mails, the newest first"
    listed = _command(commands, "mail list", purpose, "mail list --status failed")
    _add_limit(listed)
    listed.add_argument(
        "--status", choices=("waiting", "sent", "failed"), help="only mails of this status"
    )
    retried = _command(commands, "mail retry", "make failed mails new", "mail retry --failed")
    which = retried.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "id", metavar="ID", nargs="?", help="the job or batch that the mail tells of"
    )
    which.add_argument("--failed", action="store_true", help="all failed mails")
    purpose = "send a mail and tell of each step"
    test = _command(commands, "mail test", purpose, "mail test you@example.org")
    test.add_argument("address", metavar="ADDRESS", help="to whom")
    purpose = "print what was submitted with an address"
    exported = _command(commands, "mail export", purpose, "mail export you@example.org --json")
    exported.add_argument("address", metavar="ADDRESS", help="whose")
    purpose = "remove an address from all jobs, batches and mails"
    forgotten = _command(commands, "mail forget", purpose, "mail forget you@example.org")
    forgotten.add_argument("address", metavar="ADDRESS", help="whose")


def _fill_queue(commands: Commands) -> None:
    copy = _command(
        commands,
        "queue copy",
        "copy the jobs of another database into the configured one",
        "queue copy /var/lib/md5light/md5light.sqlite3",
    )
    copy.add_argument(
        "source",
        metavar="DATABASE",
        type=key_of("queue", "database"),
        help="an SQLite file, or postgresql://…; nobody may be using it",
    )
    purpose = "give the disk back what removed jobs took; it needs the database for itself"
    _command(commands, "queue compact", purpose, "queue compact")


def _fill_token(commands: Commands) -> None:
    added = _command(commands, "token add", "make a token and print it once", "token add ann")
    added.add_argument("name", metavar="NAME", help="whose it is: one word")
    _command(commands, "token list", "print the names of the tokens", "token list")
    purpose = "remove a token; the server refuses it at once"
    removed = _command(commands, "token remove", purpose, "token remove ann")
    removed.add_argument("name", metavar="NAME", help="whose it is")


def _add_ids(command: Parser, nargs: str = "+") -> None:
    command.add_argument(
        "ids",
        metavar="ID",
        nargs=nargs,
        help="id of a job, or an unambiguous beginning of at least 8 characters",
    )


def _add_filters(command: Parser, statuses: tuple[str, ...]) -> None:
    command.add_argument("--status", choices=statuses, help="only jobs of this status")
    command.add_argument("--code", help="only jobs with this error code, such as timed_out")
    command.add_argument("--host", help="only jobs of this host, such as files.example.org")


def _add_limit(command: Parser) -> None:
    command.add_argument(
        "--limit", type=positive, default=20, metavar="N", help="how many at most (20)"
    )
