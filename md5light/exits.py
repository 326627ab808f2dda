"""The end of a command: one line about an error, and its exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from md5light.errors import ConfigError, Md5lightError, OutOfTime, Refused, Unreachable

#: the same as argparse's
EXIT_USAGE = 2

#: exit codes other than 1, by the error; those above 2 come from sysexits.h
CODES = {ConfigError: 78, Refused: EXIT_USAGE, Unreachable: 69, OutOfTime: 75}

#: the exit code of a command that SIGINT ended, as in shells
EXIT_INTERRUPTED = 130


@contextlib.contextmanager
def reported(command: str) -> Iterator[None]:
    """Print an error of the block as one line, and exit with its code."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # raises errors of writing here
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except (Md5lightError, OSError) as error:
        if isinstance(error, OSError):  # perhaps of standard output: the exit must not flush it
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):  # the reader ended, e.g. `| head`
            for line in str(error).splitlines():
                print(f"{command}: {line}", file=sys.stderr)
        sys.exit(code_of(error))


def code_of(error: Exception) -> int:
    """Return the exit code for an error."""
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), 1)
