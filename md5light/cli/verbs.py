"""The verbs of `md5light`, which speak HTTP."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

from md5light import exits, logs
from md5light.cli.parsers import AN_ID, Commands, Parser, add_json, add_verbose, seconds, sentence
from md5light.cli.running import importing
from md5light.finding import ALGORITHMS
from md5light.lists.formats import FORMATS, FORMS, NAMES


def add(commands: Commands) -> None:
    purpose = "submit lists of URLs as one batch, and print its id"
    _verb(commands, "submit", purpose, "submit list.txt --wait -o MD5SUMS", _fill_submit)
    purpose = "submit lists with sums, wait, and print as md5sum -c does"
    example = "verify MD5SUMS --base https://mirror.example.org/iso/"
    _verb(commands, "verify", purpose, example, _fill_verify)
    purpose = "wait for the end of a batch; the exit code is the verdict"
    example = f"wait {AN_ID} -o MD5SUMS --manifest md5sum"
    _verb(commands, "wait", purpose, example, _fill_wait)
    purpose = "print a batch's manifest as it stands"
    _verb(commands, "manifest", purpose, f"manifest {AN_ID} --manifest failed", _fill_manifest)
    for name, purpose in {
        "status": "print what is known of a batch",
        "retry": "have the failed and canceled lines of a batch tried again",
        "cancel": "end what is unfinished of a batch",
    }.items():
        _verb(commands, name, purpose, f"{name} {AN_ID}", _fill_short)


def _verb(
    commands: Commands, name: str, purpose: str, example: str, fill: Callable[[Parser], object]
) -> None:
    """Add a command that the function of its name in `client` runs."""
    commands.add_parser(
        name,
        description=sentence(purpose),
        epilog=f"example: md5light {example}",
        fill=partial(_fill, name, fill),
    )


def _fill(name: str, fill: Callable[[Parser], object], verb: Parser) -> None:
    verb.set_defaults(execute=_execute, run=name, error=verb.error)
    verb.add_argument(
        "--server",
        metavar="URL",
        help="the server (else $MD5LIGHT_SERVER, http://127.0.0.1:8080); a user name and password "
        "in it, or those in ~/.netrc, are sent to it alone",
    )
    verb.add_argument(
        "--cafile", metavar="FILE", help="certificates to trust in addition to the system's"
    )
    add_verbose(verb)
    fill(verb)


def _execute(program: str, arguments: argparse.Namespace) -> None:
    """Run a verb: it needs neither a configuration nor a database."""
    _check_lists(arguments)
    with exits.reported(program):
        logs.setup(verbose=arguments.verbose)
        with importing():
            from md5light import client
        verb: Callable[[argparse.Namespace], int] = getattr(client, arguments.run)
        sys.exit(verb(arguments))


def _check_lists(arguments: argparse.Namespace) -> None:
    """Exit with the usage unless a verb that takes lists has one; a terminal does not count."""
    lists, bag = getattr(arguments, "lists", ["-"]), getattr(arguments, "bag", None)
    if lists and bag:
        arguments.error("--bag takes no other lists")
    if not lists and not bag and sys.stdin.isatty():
        arguments.error("name a list, a URL, or - for standard input")


# --- arguments of each ----------------------------------------------------------------------------


def _fill_submit(submit: Parser) -> None:
    _add_list(submit)
    submit.add_argument("--wait", action="store_true", help="wait, then print the manifest")
    _add_manifest(submit)
    _add_waiting(submit)


def _fill_verify(verify: Parser) -> None:
    _add_list(verify)
    _add_waiting(verify)


def _fill_wait(wait: Parser) -> None:
    _add_batch(wait)
    _add_manifest(wait)
    _add_waiting(wait)


def _fill_manifest(manifest: Parser) -> None:
    _add_batch(manifest)
    _add_manifest(manifest)


def _fill_short(verb: Parser) -> None:
    _add_batch(verb)
    add_json(verb)


# --- arguments of several -------------------------------------------------------------------------


def _add_list(verb: Parser) -> None:
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


def _add_manifest(verb: Parser) -> None:
    verb.add_argument(
        "-o", "--output", metavar="FILE", help="where the manifest goes, once it is complete"
    )
    verb.add_argument(
        "--manifest",
        choices=FORMS,
        help="format of the manifest (as FILE's name says, else ndjson)",
    )
    verb.add_argument("--names", choices=NAMES, help="how the manifest calls the files (url)")
    verb.add_argument(
        "--partial", action="store_true", help="leave lines that are not done out of gcs"
    )


def _add_waiting(verb: Parser) -> None:
    verb.add_argument(
        "--timeout",
        type=seconds,
        metavar="TIME",
        help="wait no longer than this, such as 2h or 90s",
    )
    verb.add_argument(
        "-q", "--quiet", action="store_true", help="no progress; of what is well say nothing"
    )


def _add_batch(verb: Parser) -> None:
    verb.add_argument("id", metavar="ID", help="id of a batch, as submit printed it")
