"""How a command ends: one line on what went wrong, and the exit code that stands for it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from md5light.errors import ConfigError, Md5lightError, OutOfTime, Refused, Unreachable

#: argparse's, too
EXIT_USAGE = 2

#: other codes than 1, by the error; those above 2 are of sysexits.h
CODES = {ConfigError: 78, Refused: EXIT_USAGE, Unreachable: 69, OutOfTime: 75}

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
        sys.exit(code_of(error))


def code_of(error: Exception) -> int:
    """Return the exit code that stands for an error."""
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), 1)
