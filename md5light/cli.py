"""The console commands' arguments and exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration."""

from __future__ import annotations

import md5light.startup  # noqa: F401 - before the imports that take a while

# isort: split
import argparse
import contextlib
import dataclasses
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from md5light import __version__, config, logs
from md5light.config import Config
from md5light.errors import ConfigError, Md5lightError, Refused
from md5light.job import STATUSES

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

#: what argparse exits with, too
EXIT_USAGE = 2

#: EX_CONFIG of sysexits.h
EXIT_CONFIG = 78

#: what a shell says of a command that SIGINT has ended
EXIT_INTERRUPTED = 130

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def server() -> None:
    """Run `md5light-server`."""
    parser = _parser(
        "md5light-server",
        "Answer HTTP requests: take URLs, tell MD5s.",
        "md5light-server --config /etc/md5light/config.ini --port 8080",
    )
    parser.add_argument("--host", type=_value("server", "host"), help="address to listen on")
    parser.add_argument(
        "--port", type=_value("server", "port"), help="port to listen on; 0: any free one"
    )
    arguments = _parse(parser)

    def run(config: Config) -> bool:
        from md5light.server import serve

        return serve(config)

    _run(parser, arguments, run, server={"host": arguments.host, "port": arguments.port})


def worker() -> None:
    """Run `md5light-worker`."""
    parser = _parser(
        "md5light-worker",
        "Work the queue: a pool of processes that download, hash and send mails.",
        "md5light-worker --config /etc/md5light/config.ini --processes 4",
    )
    parser.add_argument("--processes", type=_value("worker", "processes"), help="worker processes")
    parser.add_argument(
        "--threads", type=_value("worker", "threads"), help="downloads at once in each process"
    )
    parser.add_argument("--burst", action="store_true", help="work until nothing is due, then exit")
    arguments = _parse(parser)

    def run(config: Config) -> bool:
        from md5light.pool import Pool

        return Pool(config, burst=arguments.burst).run()

    _run(
        parser,
        arguments,
        run,
        worker={"processes": arguments.processes, "threads": arguments.threads},
    )


def main() -> None:
    """Run `md5light`."""
    parser = _parser("md5light", "Administer md5light.", "md5light jobs list --status failed")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_config(commands)
    _add_jobs(commands)
    queue = _group(commands, "queue", "move to another database", "copy")
    copy = _command(
        queue,
        "queue copy",
        "copy the jobs of another database into the configured one",
        "queue copy /var/lib/md5light/md5light.sqlite3",
    )
    copy.add_argument(
        "source",
        metavar="DATABASE",
        help="an SQLite file, or postgresql://…; nobody may be using it",
    )
    _add_json(copy)
    stats = _command(
        commands, "stats", "tell what goes on and what has been counted", "stats --json"
    )
    _add_json(stats)
    mail = _group(commands, "mail", "try the delivery of mails", "test")
    test = _command(
        mail, "mail test", "send a mail and tell of each step", "mail test you@example.org"
    )
    test.add_argument("address", metavar="ADDRESS", help="to whom")
    arguments = _parse(parser)

    def run(config: Config) -> None:
        from md5light import admin

        command: Callable[[Config, argparse.Namespace], None] = getattr(admin, arguments.run)
        command(config, arguments)

    _run(parser, arguments, run)


def _add_config(commands: Commands) -> None:
    verbs = _group(commands, "config", "check or show the configuration", "check|show")
    _command(verbs, "config check", "say whether the configuration is right", "config check")
    _command(verbs, "config show", "print what applies, secrets masked", "config show")


def _add_jobs(commands: Commands) -> None:
    verbs = _group(
        commands,
        "jobs",
        "look at jobs, try them again, cancel or remove them",
        "list|show|retry|cancel|purge",
    )
    a_job = "0e4fac17-f367-4807-8c28-8a059a2f82ac"
    listed = _command(
        verbs, "jobs list", "print jobs, the newest first", "jobs list --status failed --limit 100"
    )
    listed.add_argument("--status", choices=STATUSES, help="only those of one status")
    listed.add_argument(
        "--limit", type=_positive, default=20, metavar="N", help="how many at most (20)"
    )
    shown = _command(verbs, "jobs show", "print all that is known of a job", f"jobs show {a_job}")
    retried = _command(
        verbs, "jobs retry", "let a failed or canceled job begin anew", f"jobs retry {a_job}"
    )
    canceled = _command(verbs, "jobs cancel", "end an unfinished job", f"jobs cancel {a_job}")
    for job in (shown, retried, canceled):
        job.add_argument("id", metavar="ID", help="the job's id, as POST /submit told it")
    purged = _command(
        verbs, "jobs purge", "remove jobs that ended long ago", "jobs purge --older-than 30d"
    )
    purged.add_argument(
        "--older-than",
        type=_age,
        required=True,
        metavar="AGE",
        help="such as 30d, 12h, 15m or 45s; since they ended",
    )
    for verb in (listed, shown, retried, canceled, purged):
        _add_json(verb)


def _parser(name: str, purpose: str, example: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        name, description=purpose, epilog=f"example: {example}", allow_abbrev=False
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="INI file (else $MD5LIGHT_CONFIG, /etc/md5light/config.ini)",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log everything")
    return parser


def _parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # rather than fail where the locale lacks a character
    with _exit_code(parser):
        return parser.parse_args()


def _group(commands: Commands, name: str, purpose: str, verbs: str) -> Commands:
    """Add a command that is followed by one of `verbs`."""
    example = f"example: md5light {name} {verbs.partition('|')[0]} --help"
    group = commands.add_parser(
        name, help=purpose, description=_sentence(purpose), epilog=example, allow_abbrev=False
    )
    return group.add_subparsers(title="commands", required=True, metavar=verbs)


def _command(commands: Commands, name: str, purpose: str, example: str) -> argparse.ArgumentParser:
    """Add a command, which the function of its name in `admin` runs."""
    command = commands.add_parser(
        name.split()[-1],
        help=purpose,
        description=_sentence(purpose),
        epilog=f"example: md5light {example}",
        allow_abbrev=False,
    )
    command.set_defaults(run=name.replace(" ", "_"))
    return command


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print one line of JSON, for scripts")


def _sentence(purpose: str) -> str:
    return f"{purpose[0].upper()}{purpose[1:]}."


def _positive(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number from 1 to 999999999")
    return int(text)


def _age(text: str) -> float:
    """Read a time such as 30d as seconds."""
    match = re.fullmatch("([0-9]{1,9})([smhd])", text)
    if not match:
        raise argparse.ArgumentTypeError(
            "must be a number and a unit, such as 30d, 12h, 15m or 45s"
        )
    return int(match[1]) * UNIT_SECONDS[match[2]]


def _value(section: str, key: str) -> Callable[[str], Any]:
    """Read an argument as the key of the configuration that it stands for."""
    read = config.reader(section, key)

    def read_argument(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read_argument


def _run(
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    run: Callable[[Config], bool | None],
    **overrides: dict[str, object],
) -> None:
    """Load the configuration, lay the arguments over it, run, and exit with the code that says how it went."""
    with _exit_code(parser):
        loaded = config.load(arguments.config)
        for section, values in overrides.items():
            given = {key: value for key, value in values.items() if value is not None}
            changed = dataclasses.replace(getattr(loaded, section), **given)
            loaded = dataclasses.replace(loaded, **{section: changed})
        logs.setup(loaded.log, verbose=arguments.verbose)
        sys.exit(1 if run(loaded) is False else 0)


@contextlib.contextmanager
def _exit_code(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Tell in one line what went wrong within, and exit with the code that stands for it."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # what can't be written is told here
    except ConfigError as error:
        _complain(parser, error)
        sys.exit(EXIT_CONFIG)
    except Refused as error:
        _complain(parser, error)
        sys.exit(EXIT_USAGE)
    except (Md5lightError, OSError) as error:
        if isinstance(error, OSError):
            # Standard output that takes no more: what is left of it shall not fail once more at the exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):  # as `| head` makes it: nobody reads on
            _complain(parser, error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _complain(parser: argparse.ArgumentParser, error: Exception) -> None:
    print(f"{parser.prog}: {error}", file=sys.stderr)
