"""The three commands; a start imports only what its command needs, for imports take long."""

from __future__ import annotations

import md5light.startup  # noqa: F401 - before slower imports

# isort: split
import argparse
import signal
from collections.abc import Callable

from md5light.cli import nouns, verbs
from md5light.cli.parsers import Commands, Parser, program
from md5light.cli.running import parse
from md5light.cli.services import server, server_parser, worker, worker_parser

__all__ = ["main", "parsers", "server", "worker"]


def main() -> None:
    """Run `md5light`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a KeyboardInterrupt, from here on
    parser = _parser()
    arguments = parse(parser)
    arguments.execute(parser.prog, arguments)


def parsers() -> dict[str, Parser]:
    """Return the parsers of the three commands by name."""
    return {parser.prog: parser for parser in (_parser(), server_parser(), worker_parser())}


def _parser() -> Parser:
    purpose = "Have files on the Internet hashed and verified; administer md5light."
    parser = program("md5light", purpose, "md5light verify MD5SUMS --base https://example.org/iso/")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    _add(parser, commands, "verbs, which speak HTTP to a server (--server)", verbs.add)
    _add(parser, commands, "nouns, which open the database (--config)", nouns.add)
    parser.usage = "%(prog)s [-h] [--version] [--config FILE] [-v] COMMAND ..."
    return parser


def _add(parser: Parser, commands: Commands, title: str, add: Callable[[Commands], object]) -> None:
    """Add some of the commands, and their group to the help, for which argparse has no way."""
    before = set(commands.choices)
    add(commands)
    lines = [
        f"  {name:10}{each.description}"
        for name, each in commands.choices.items()
        if name not in before
    ]
    parser.add_argument_group(title, "\n".join(lines))
