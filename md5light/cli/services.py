"""`md5light-server` and `md5light-worker`: the commands that run until they are stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from md5light.cli.parsers import Parser, key_of, program
from md5light.cli.running import parse, run

if TYPE_CHECKING:
    from md5light.config import Config

SUBMISSION = 'curl --data-urlencode "url=https://example.org/file" http://127.0.0.1:8080/submit'


def server() -> None:
    """Run `md5light-server`."""
    parser = server_parser()
    arguments = parse(parser)

    def work(config: Config) -> bool:
        from md5light.server import serve

        return serve(config)

    run(parser.prog, arguments, work, server={"host": arguments.host, "port": arguments.port})


def worker() -> None:
    """Run `md5light-worker`."""
    parser = worker_parser()
    arguments = parse(parser)

    def work(config: Config) -> bool:
        from md5light.pool import Pool

        return Pool(config, burst=arguments.burst).run()

    flags = {"processes": arguments.processes, "threads": arguments.threads}
    run(parser.prog, arguments, work, worker=flags)


def server_parser() -> Parser:
    parser = program(
        "md5light-server",
        "Answer HTTP requests: take URLs, tell MD5s.",
        f"md5light-server --config /etc/md5light/config.ini --port 8080\nthen: {SUBMISSION}",
    )
    _add_key(parser, "server", "host")
    _add_key(parser, "server", "port")
    return parser


def worker_parser() -> Parser:
    parser = program(
        "md5light-worker",
        "Work the queue: a pool of processes that download, hash and send mails.",
        "md5light-worker --config /etc/md5light/config.ini --processes 4",
    )
    _add_key(parser, "worker", "processes")
    _add_key(parser, "worker", "threads")
    parser.add_argument("--burst", action="store_true", help="work until nothing is due, then exit")
    return parser


def _add_key(parser: Parser, section: str, key: str) -> None:
    """Add the flag of a key of the configuration."""
    from md5light import config

    meaning = config.description(section, key)["meaning"]
    parser.add_argument(f"--{key}", type=key_of(section, key), help=meaning)
