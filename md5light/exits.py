"""How a command ends: one line on what went wrong, and the exit code that stands for it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from md5light.errors import ConfigError, Md5lightError, Refused

#: argparse's, too
EXIT_USAGE = 2

#: EX_CONFIG of sysexits.h
EXIT_CONFIG = 78

#: a shell's code for a command that SIGINT has ended
EXIT_INTERRUPTED = 130


@contextlib.contextmanager
def reported(command: str) -> Iterator[None]:
    """Say in one line what went wrong within, and exit with the code that stands for it."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here an error of writing is seen
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except (Md5lightError, OSError) as error:
        if isinstance(error, OSError):  # perhaps of standard output: it must not fail at the exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):  # nobody reads on, as with `| head`
            for line in str(error).splitlines():
                print(f"{command}: {line}", file=sys.stderr)
        sys.exit(_code(error))


def _code(error: Exception) -> int:
    if isinstance(error, ConfigError):
        return EXIT_CONFIG
    return EXIT_USAGE if isinstance(error, Refused) else 1
