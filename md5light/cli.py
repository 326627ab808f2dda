"""The commands' arguments."""

from __future__ import annotations

import md5light.startup  # noqa: F401 - before the imports that take a while

# isort: split
import argparse
import dataclasses
import io
import re
import signal
import sys
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from md5light import __version__, config, exits, logs
from md5light.config import Config
from md5light.finding import ALGORITHMS
from md5light.job import STATUSES
from md5light.lists.reading import FORMATS
from md5light.lists.writing import FORMS, NAMES

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

AN_ID = "0e4fac17-f367-4807-8c28-8a059a2f82ac"

SUBMISSION = 'curl --data-urlencode "url=https://example.org/file" http://127.0.0.1:8080/submit'


# --- the three commands ---------------------------------------------------------------------------


def server() -> None:
    """Run `md5light-server`."""
    parser = parsers()["md5light-server"]
    arguments = _parse(parser)

    def run(config: Config) -> bool:
        from md5light.server import serve

        return serve(config)

    _run(parser, arguments, run, server={"host": arguments.host, "port": arguments.port})


def worker() -> None:
    """Run `md5light-worker`."""
    parser = parsers()["md5light-worker"]
    arguments = _parse(parser)

    def run(config: Config) -> bool:
        from md5light.pool import Pool

        return Pool(config, burst=arguments.burst).run()

    flags = {"processes": arguments.processes, "threads": arguments.threads}
    _run(parser, arguments, run, worker=flags)


def main() -> None:
    """Run `md5light`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a KeyboardInterrupt, from here on
    parser = parsers()["md5light"]
    arguments = _parse(parser)
    arguments.execute(parser, arguments)


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the three commands by name."""
    return {parser.prog: parser for parser in (_md5light(), _server(), _worker())}


def _administer(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    def run(config: Config) -> None:
        from md5light import admin

        command: Callable[[Config, argparse.Namespace], None] = getattr(admin, arguments.run)
        command(config, arguments)

    _run(parser, arguments, run)


def _speak_http(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Run a verb: it needs neither a configuration nor a database."""
    _check_lists(arguments)
    with exits.reported(parser.prog):
        logs.setup(Config().log, verbose=arguments.verbose)
        from md5light import client

        verb: Callable[[argparse.Namespace], int] = getattr(client, arguments.run)
        sys.exit(verb(arguments))


def _run(
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    run: Callable[[Config], bool | None],
    **flags: dict[str, object],
) -> None:
    """Load the configuration, lay the flags over it, run, and exit with the right code."""
    with exits.reported(parser.prog):
        loaded = config.load(arguments.config)
        for section, values in flags.items():
            given = {key: value for key, value in values.items() if value is not None}
            changed = dataclasses.replace(getattr(loaded, section), **given)
            loaded = dataclasses.replace(loaded, **{section: changed})
        logs.setup(loaded.log, verbose=arguments.verbose)
        sys.exit(1 if run(loaded) is False else 0)


def _check_lists(arguments: argparse.Namespace) -> None:
    """Exit with the usage unless a verb that takes lists has one: a terminal is none."""
    lists, bag = getattr(arguments, "lists", ["-"]), getattr(arguments, "bag", None)
    if lists and bag:
        arguments.error("--bag takes no other lists")
    if not lists and not bag and sys.stdin.isatty():
        arguments.error("name a list, a URL, or - for standard input")


# --- their arguments ------------------------------------------------------------------------------


def _server() -> argparse.ArgumentParser:
    parser = _parser(
        "md5light-server",
        "Answer HTTP requests: take URLs, tell MD5s.",
        f"md5light-server --config /etc/md5light/config.ini --port 8080\nthen: {SUBMISSION}",
    )
    _add_key(parser, "server", "host")
    _add_key(parser, "server", "port")
    return parser


def _worker() -> argparse.ArgumentParser:
    parser = _parser(
        "md5light-worker",
        "Work the queue: a pool of processes that download, hash and send mails.",
        "md5light-worker --config /etc/md5light/config.ini --processes 4",
    )
    _add_key(parser, "worker", "processes")
    _add_key(parser, "worker", "threads")
    parser.add_argument("--burst", action="store_true", help="work until nothing is due, then exit")
    return parser


def _md5light() -> argparse.ArgumentParser:
    purpose = "Have files on the Internet hashed and verified; administer md5light."
    parser = _parser("md5light", purpose, "md5light verify MD5SUMS --base https://example.org/iso/")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    _add_verbs(commands)
    verbs = set(commands.choices)
    _add_config(commands)
    _add_jobs(commands)
    _add_batches(commands)
    _add_hosts(commands)
    _add_mail(commands)
    _add_queue(commands)
    _add_token(commands)
    _command(commands, "stats", "tell what goes on and what has been counted", "stats --json")
    nouns = set(commands.choices) - verbs
    parser.usage = "%(prog)s [-h] [--version] [--config FILE] [-v] COMMAND ..."
    _list(parser, commands, "verbs, which speak HTTP to a server (--server)", verbs)
    _list(parser, commands, "nouns, which open the database (--config)", nouns)
    return parser


def _list(
    parser: argparse.ArgumentParser, commands: Commands, title: str, names: Collection[str]
) -> None:
    """Describe some of the commands in a group of the help, which argparse has no way to group."""
    lines = [
        f"  {name:10}{each.description}" for name, each in commands.choices.items() if name in names
    ]
    parser.add_argument_group(title, "\n".join(lines))


# --- verbs ----------------------------------------------------------------------------------------


def _add_verbs(commands: Commands) -> None:
    purpose = "submit lists of URLs as one batch, and print its id"
    submit = _verb(commands, "submit", purpose, "submit list.txt --wait -o MD5SUMS")
    _add_list(submit)
    submit.add_argument("--wait", action="store_true", help="wait, then print the manifest")
    _add_manifest(submit)
    _add_waiting(submit)
    purpose = "submit lists with sums, wait, and print as md5sum -c does"
    example = "verify MD5SUMS --base https://mirror.example.org/iso/"
    verify = _verb(commands, "verify", purpose, example)
    _add_list(verify)
    _add_waiting(verify)
    purpose = "wait for the end of a batch; the exit code is the verdict"
    wait = _verb(commands, "wait", purpose, f"wait {AN_ID} -o MD5SUMS --manifest md5sum")
    _add_batch(wait)
    _add_manifest(wait)
    _add_waiting(wait)
    _add_short_verbs(commands)


def _add_short_verbs(commands: Commands) -> None:
    purpose = "print a batch's manifest as it stands"
    manifest = _verb(commands, "manifest", purpose, f"manifest {AN_ID} --manifest failed")
    _add_batch(manifest)
    _add_manifest(manifest)
    for name, purpose in {
        "status": "print what is known of a batch",
        "retry": "have the failed and canceled lines of a batch tried again",
        "cancel": "end what is unfinished of a batch",
    }.items():
        verb = _verb(commands, name, purpose, f"{name} {AN_ID}")
        _add_batch(verb)
        verb.add_argument("--json", action="store_true", help="print JSON, for scripts")


def _verb(commands: Commands, name: str, purpose: str, example: str) -> argparse.ArgumentParser:
    """Add a command that the function of its name in `client` runs."""
    verb = commands.add_parser(
        name,
        description=_sentence(purpose),
        epilog=f"example: md5light {example}",
        allow_abbrev=False,
    )
    verb.set_defaults(execute=_speak_http, run=name, error=verb.error)
    verb.add_argument(
        "--server",
        metavar="URL",
        help="the server (else $MD5LIGHT_SERVER, http://127.0.0.1:8080); a user name and password "
        "in it, or those in ~/.netrc, are sent to it alone",
    )
    verb.add_argument(
        "--cafile", metavar="FILE", help="certificates to trust in addition to the system's"
    )
    _add_verbose(verb)
    return verb


def _add_list(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "lists",
        metavar="URL|FILE|-",
        nargs="*",
        help="a URL, which is a line; a file with a list; - for standard input (default)",
    )
    verb.add_argument("--bag", metavar="DIR", help="instead of lists: fetch.txt of a BagIt bag")
    verb.add_argument(
        "--format", choices=("auto", *FORMATS), default="auto", help="format of the lists (auto)"
    )
    verb.add_argument("--base", metavar="URL", help="what relative names are joined to")
    verb.add_argument(
        "--digest",
        action="append",
        choices=ALGORITHMS,
        default=[],
        help="to be computed in addition to MD5; may be given again",
    )
    verb.add_argument("--mail", metavar="ADDRESS", help="who gets a mail at the end")
    verb.add_argument("--name", help="a label for the batch")
    verb.add_argument(
        "--skip-invalid", action="store_true", help="keep bad lines as failed, take the others"
    )


def _add_manifest(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "-o", "--output", metavar="FILE", help="where the manifest goes, once it is complete"
    )
    verb.add_argument(
        "--manifest",
        choices=FORMS,
        help="format of the manifest (as FILE's name says, else ndjson)",
    )
    verb.add_argument("--names", choices=NAMES, help="how the manifest calls the files (url)")


def _add_waiting(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--timeout", type=_age, metavar="TIME", help="wait no longer than this, such as 2h or 90s"
    )
    verb.add_argument(
        "-q", "--quiet", action="store_true", help="no progress; of what is well say nothing"
    )


def _add_batch(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("id", metavar="ID", help="id of a batch, as submit printed it")


# --- nouns ----------------------------------------------------------------------------------------


def _add_config(commands: Commands) -> None:
    verbs = _group(commands, "config", "check or show the configuration", "check|show")
    _command(verbs, "config check", "say whether the configuration is right", "config check")
    _command(
        verbs, "config show", "print what applies and its source, secrets masked", "config show"
    )


def _add_jobs(commands: Commands) -> None:
    purpose = "look at jobs, try them again, cancel or remove them"
    verbs = _group(commands, "jobs", purpose, "list|show|retry|cancel|purge")
    example = "jobs list --status failed --limit 100"
    listed = _command(verbs, "jobs list", "print jobs, the newest first", example)
    _add_limit(listed)
    _add_filters(listed, STATUSES)
    purpose = "print all that is known of jobs"
    shown = _command(verbs, "jobs show", purpose, f"jobs show {AN_ID}")
    _add_ids(shown)
    purpose = "make failed or canceled jobs new"
    retried = _command(verbs, "jobs retry", purpose, "jobs retry --status failed --code timed_out")
    _add_filters(retried, ("failed", "canceled"))
    _add_ids(retried, nargs="*")
    canceled = _command(verbs, "jobs cancel", "end unfinished jobs", f"jobs cancel {AN_ID[:8]}")
    _add_ids(canceled)
    purpose = "remove jobs and batches that ended long ago"
    purged = _command(verbs, "jobs purge", purpose, "jobs purge --older-than 30d")
    purged.add_argument(
        "--older-than",
        type=_age,
        required=True,
        metavar="AGE",
        help="time since their end, such as 30d, 12h, 15m or 45s",
    )


def _add_batches(commands: Commands) -> None:
    verbs = _group(commands, "batches", "look at batches", "list|show")
    listed = _command(verbs, "batches list", "print batches, the newest first", "batches list")
    _add_limit(listed)
    purpose = "print all that is known of a batch"
    shown = _command(verbs, "batches show", purpose, f"batches show {AN_ID[:8]}")
    shown.add_argument(
        "id",
        metavar="ID",
        help="id of a batch, or an unambiguous beginning of at least 8 characters",
    )


def _add_hosts(commands: Commands) -> None:
    purpose = "look at hosts that asked for rest or could not be reached"
    verbs = _group(commands, "hosts", purpose, "list")
    listed = _command(verbs, "hosts list", "print these hosts, the latest first", "hosts list")
    _add_limit(listed)


def _add_mail(commands: Commands) -> None:
    purpose = "look at mails, send them again, try their delivery, remove addresses"
    verbs = _group(commands, "mail", purpose, "list|retry|test|export|forget")
    purpose = "print owed mails, the newest first"
    listed = _command(verbs, "mail list", purpose, "mail list --status failed")
    _add_limit(listed)
    listed.add_argument(
        "--status", choices=("waiting", "sent", "failed"), help="only mails of this status"
    )
    retried = _command(verbs, "mail retry", "make failed mails new", "mail retry --failed")
    which = retried.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "id", metavar="ID", nargs="?", help="the job or batch that the mail tells of"
    )
    which.add_argument("--failed", action="store_true", help="all failed mails")
    purpose = "send a mail and tell of each step"
    test = _command(verbs, "mail test", purpose, "mail test you@example.org")
    test.add_argument("address", metavar="ADDRESS", help="to whom")
    purpose = "print what was submitted with an address"
    exported = _command(verbs, "mail export", purpose, "mail export you@example.org --json")
    exported.add_argument("address", metavar="ADDRESS", help="whose")
    purpose = "remove an address from all jobs, batches and mails"
    forgotten = _command(verbs, "mail forget", purpose, "mail forget you@example.org")
    forgotten.add_argument("address", metavar="ADDRESS", help="whose")


def _add_queue(commands: Commands) -> None:
    verbs = _group(commands, "queue", "copy or compact the database", "copy|compact")
    copy = _command(
        verbs,
        "queue copy",
        "copy the jobs of another database into the configured one",
        "queue copy /var/lib/md5light/md5light.sqlite3",
    )
    copy.add_argument(
        "source",
        metavar="DATABASE",
        type=_value("queue", "database"),
        help="an SQLite file, or postgresql://…; nobody may be using it",
    )
    purpose = "give the disk back what removed jobs took; it needs the database for itself"
    _command(verbs, "queue compact", purpose, "queue compact")


def _add_token(commands: Commands) -> None:
    purpose = "make, list or remove tokens, which let their owners submit"
    verbs = _group(commands, "token", purpose, "add|list|remove")
    added = _command(verbs, "token add", "make a token and print it once", "token add ann")
    added.add_argument("name", metavar="NAME", help="whose it is: one word")
    _command(verbs, "token list", "print the names of the tokens", "token list")
    purpose = "remove a token; the server refuses it at once"
    removed = _command(verbs, "token remove", purpose, "token remove ann")
    removed.add_argument("name", metavar="NAME", help="whose it is")


def _add_ids(command: argparse.ArgumentParser, nargs: str = "+") -> None:
    command.add_argument(
        "ids",
        metavar="ID",
        nargs=nargs,
        help="id of a job, or an unambiguous beginning of at least 8 characters",
    )


def _add_filters(command: argparse.ArgumentParser, statuses: tuple[str, ...]) -> None:
    command.add_argument("--status", choices=statuses, help="only jobs of this status")
    command.add_argument("--code", help="only jobs with this error code, such as timed_out")
    command.add_argument("--host", help="only jobs of this host, such as files.example.org")


def _add_limit(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--limit", type=_positive, default=20, metavar="N", help="how many at most (20)"
    )


# --- parsers --------------------------------------------------------------------------------------


def _parser(name: str, purpose: str, example: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        name,
        description=purpose,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    _add_common(parser)
    return parser


def _parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    if isinstance(sys.stdout, io.TextIOWrapper):  # not every locale has every character
        sys.stdout.reconfigure(errors="backslashreplace")
    with exits.reported(parser.prog):
        return parser.parse_args(namespace=argparse.Namespace(config=None, verbose=False))


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Add flags that are taken anywhere among the words: no default of one parser may beat them."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="INI file (else $MD5LIGHT_CONFIG, /etc/md5light/config.ini)",
    )
    _add_verbose(parser)


def _add_verbose(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="log everything"
    )


def _group(commands: Commands, name: str, purpose: str, verbs: str) -> Commands:
    """Add a command that is followed by one of `verbs`."""
    example = f"example: md5light {name} {verbs.partition('|')[0]} --help"
    group = commands.add_parser(
        name, help=purpose, description=_sentence(purpose), epilog=example, allow_abbrev=False
    )
    _add_common(group)
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
    _add_common(command)
    command.add_argument("--json", action="store_true", help="print JSON, for scripts")
    command.set_defaults(execute=_administer, run=name.replace(" ", "_"))
    return command


def _sentence(purpose: str) -> str:
    return f"{purpose[0].upper()}{purpose[1:]}."


# --- values ---------------------------------------------------------------------------------------


def _add_key(parser: argparse.ArgumentParser, section: str, key: str) -> None:
    """Add the flag of a key of the configuration."""
    meaning = config.description(section, key)["meaning"]
    parser.add_argument(f"--{key}", type=_value(section, key), help=meaning)


def _value(section: str, key: str) -> Callable[[str], Any]:
    """Read an argument as the key of the configuration that it stands for."""
    read = config.description(section, key)["read"]

    def read_argument(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read_argument


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
