"""The progress of a batch, on standard error while the client waits."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping

#: seconds between two lines where no terminal shows them
LINE_SECONDS = 60

_UNFINISHED = ("waiting", "running")


class Progress:
    """One line that is redrawn on a terminal, else a line a minute; shown in a `with` block."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._began = self._printed = clock()
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._done_before: int | None = None
        self._parts: list[str] = []

    def __enter__(self) -> Progress:
        if self._terminal:
            signal.signal(signal.SIGWINCH, self._redraw)
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        self._parts = []
        self._erase()

    def show(self, counts: Mapping[str, int]) -> None:
        """Show how many lines are done, and an estimate for the others."""
        if self._done_before is None:
            self._began, self._done_before = self._clock(), _done(counts)
        rate = (_done(counts) - self._done_before) / max(self._clock() - self._began, 0.001)
        self._parts = list(_parts(counts, rate))
        if self._quiet:
            return
        if self._terminal:
            self._redraw()
        elif self._clock() - self._printed >= LINE_SECONDS:
            self._printed = self._clock()
            print(f"md5light: {', '.join(self._parts)}", file=sys.stderr)

    def say(self, sentence: str) -> None:
        """Print a sentence above the line."""
        if self._quiet:
            return
        self._erase()
        print(f"md5light: {sentence}", file=sys.stderr)
        self._redraw()

    def _redraw(self, *_: object) -> None:  # also a signal handler, which gets two arguments
        if self._terminal and self._parts and not self._quiet:
            # The last column stays free: a character there moves some terminals to the next line.
            sys.stderr.write(f"\r\x1b[K{_fit(self._parts, _columns() - 1)}")

    def _erase(self) -> None:
        if self._terminal and not self._quiet:
            sys.stderr.write("\r\x1b[K")


def duration(seconds: float) -> str:
    """Write a time with its two largest units: 8 s, 2 min 5 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    large, small, length = ("h", "min", 3600) if whole >= 3600 else ("min", "s", 60)
    return f"{whole // length} {large} {whole % length * 60 // length} {small}"


def _done(counts: Mapping[str, int]) -> int:
    return counts["total"] - sum(counts.get(status, 0) for status in _UNFINISHED)


def _parts(counts: Mapping[str, int], rate: float) -> Iterator[str]:
    """Yield what the line says, the most important first."""
    done, total = _done(counts), counts["total"]
    yield f"{done:,} of {total:,} lines"
    for status in ("failed", "mismatched", "canceled"):
        if counts[status]:
            yield f"{counts[status]:,} {status}"
    if rate > 0:
        yield f"{rate:,.0f}/s" if rate >= 1 else f"{rate * 60:,.0f}/min"
        yield f"{duration((total - done) / rate)} left"


def _fit(parts: list[str], width: int) -> str:
    """Leave out what does not fit, from the end on."""
    shown = ", ".join(parts)
    while len(shown) > width and len(parts) > 1:
        parts = parts[:-1]
        shown = ", ".join(parts)
    return shown[: max(0, width)]


def _columns() -> int:
    """Ask the terminal itself: $COLUMNS would not follow its size."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return shutil.get_terminal_size().columns
