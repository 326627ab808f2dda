"""The console commands' arguments and exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable
from typing import Any

from md5light import __version__, config, logs
from md5light.config import Config
from md5light.errors import ConfigError, Md5lightError

#: EX_CONFIG of sysexits.h
EXIT_CONFIG = 78

#: what a shell says of a command that SIGINT has ended
EXIT_INTERRUPTED = 130


def server() -> None:
    """Run `md5light-server`."""
    parser = _parser(
        "md5light-server",
        "Answer HTTP requests: take URLs, tell MD5s.",
        "md5light-server --config /etc/md5light/config.ini --port 8080",
    )
    parser.add_argument("--host", type=_value("server", "host"), help="address to listen on")
    parser.add_argument("--port", type=_value("server", "port"), help="port to listen on; 0: any free one")
    arguments = parser.parse_args()

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
    parser.add_argument("--threads", type=_value("worker", "threads"), help="downloads at once in each process")
    parser.add_argument("--burst", action="store_true", help="work until nothing is due, then exit")
    arguments = parser.parse_args()

    def run(config: Config) -> bool:
        from md5light.pool import Pool

        return Pool(config, burst=arguments.burst).run()

    _run(parser, arguments, run, worker={"processes": arguments.processes, "threads": arguments.threads})


def main() -> None:
    """Run `md5light`."""
    parser = _parser("md5light", "Administer md5light.", "md5light config check")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    settings = commands.add_parser("config", help="check or show the configuration")
    verbs = settings.add_subparsers(required=True, metavar="check|show")
    verbs.add_parser("check", help="say whether the configuration is right").set_defaults(run="config_check")
    verbs.add_parser("show", help="print the configuration, secrets masked").set_defaults(run="config_show")
    arguments = parser.parse_args()

    def run(config: Config) -> bool:
        from md5light import admin

        command: Callable[[Config, argparse.Namespace], bool] = getattr(admin, arguments.run)
        return command(config, arguments)

    _run(parser, arguments, run)


def _parser(name: str, purpose: str, example: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(name, description=purpose, epilog=f"example: {example}", allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="INI file (else $MD5LIGHT_CONFIG, /etc/md5light/config.ini)")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log everything")
    return parser


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
    run: Callable[[Config], bool],
    **overrides: dict[str, object],
) -> None:
    """Load the configuration, lay the arguments over it, run, and exit with the code that says how it went."""
    try:
        loaded = config.load(arguments.config)
        for section, values in overrides.items():
            given = {key: value for key, value in values.items() if value is not None}
            changed = dataclasses.replace(getattr(loaded, section), **given)
            loaded = dataclasses.replace(loaded, **{section: changed})
        logs.setup(loaded.log, verbose=arguments.verbose)
        succeeded = run(loaded)
        print(end="", flush=True)  # what can't be written is told here
        sys.exit(0 if succeeded else 1)
    except ConfigError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        sys.exit(EXIT_CONFIG)
    except (Md5lightError, OSError) as error:
        if isinstance(error, OSError):
            # Standard output that takes no more: what is left of it shall not fail once more at the exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):  # as `| head` makes it: nobody reads on
            print(f"{parser.prog}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
