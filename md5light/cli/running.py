"""Runs a command: parses its arguments, reads its configuration, sets its exit code."""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from md5light import exits, logs

if TYPE_CHECKING:
    from md5light.config import Config


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; exits with the usage if it is wrong."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # not every locale has every character
        sys.stdout.reconfigure(errors="backslashreplace")
    with exits.reported(parser.prog):
        return parser.parse_args(namespace=argparse.Namespace(config=None, verbose=False))


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Hide imported modules from the garbage collector: they stay until the end.

    Collecting them, also at the exit, would take a seventh of the time of a short command.
    """
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def run(
    program: str,
    arguments: argparse.Namespace,
    work: Callable[[Config], bool | None],
    **flags: dict[str, object],
) -> None:
    """Load the configuration, override it by the flags, work, and exit with the right code."""
    with exits.reported(program):
        import dataclasses

        from md5light import config

        loaded = config.load(arguments.config)
        for section, values in flags.items():
            given = {key: value for key, value in values.items() if value is not None}
            changed = dataclasses.replace(getattr(loaded, section), **given)
            loaded = dataclasses.replace(loaded, **{section: changed})
        logs.setup(loaded.log, verbose=arguments.verbose)
        sys.exit(1 if work(loaded) is False else 0)
