"""The common parts of all parsers: lazy arguments, shared flags, and types of values."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any, TypeAlias

from md5light import __version__

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"

AN_ID = "0e4fac17-f367-4807-8c28-8a059a2f82ac"

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Parser(argparse.ArgumentParser):
    """A parser that calls `fill` to add its arguments when it is used.

    So a start spends no time on the arguments of other commands.
    """

    def __init__(self, *, fill: Callable[[Parser], object] | None = None, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self._fill = fill

    def fill(self) -> None:
        """Add the arguments, unless they are there."""
        fill, self._fill = self._fill, None
        if fill:
            fill(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.fill()
        return super().parse_known_args(args, namespace)


def program(name: str, purpose: str, example: str) -> Parser:
    """Make the parser of a command by itself."""
    parser = Parser(
        prog=name,
        description=purpose,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    add_common(parser)
    return parser


def sentence(purpose: str) -> str:
    return f"{purpose[0].upper()}{purpose[1:]}."


# --- flags ----------------------------------------------------------------------------------------


def add_common(parser: Parser) -> None:
    """Add flags that may stand anywhere: their defaults must not override a value given before."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="INI file (else $MD5LIGHT_CONFIG, /etc/md5light/config.ini)",
    )
    add_verbose(parser)


def add_verbose(parser: Parser) -> None:
    parser.add_argument(
        "-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="log everything"
    )


def add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")


# --- values ---------------------------------------------------------------------------------------


def key_of(section: str, key: str) -> Callable[[str], Any]:
    """Parse an argument as the key of the configuration that it sets."""

    def read(text: str) -> Any:
        from md5light import config

        try:
            return config.description(section, key)["read"](text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def positive(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number from 1 to 999999999")
    return int(text)


def seconds(text: str) -> float:
    """Read a time such as 30d as seconds."""
    match = re.fullmatch("([0-9]{1,9})([smhd])", text)
    if not match:
        raise argparse.ArgumentTypeError(
            "must be a number and a unit, such as 30d, 12h, 15m or 45s"
        )
    return int(match[1]) * _UNIT_SECONDS[match[2]]
