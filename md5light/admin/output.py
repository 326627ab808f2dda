"""Output of the commands: tables for people, JSON for scripts."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence

from md5light.text import visible

#: characters of an id in a list for people
SHORT = 8


def print_json(value: object) -> None:
    """Print one line of JSON, keys sorted; in ASCII, which is right in every locale."""
    print(json.dumps(value, sort_keys=True, separators=(",", ":")))


def print_table(rows: Iterable[Sequence[object]], width: int | None = None) -> None:
    """Print columns that are as wide as their widest cell, each line cut to `width`."""
    lines = [["-" if cell is None else visible(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print(_cut("  ".join(cells).rstrip(), width))


def flattened(values: dict[str, object], within: str = "") -> Iterator[tuple[str, object]]:
    """Make rows of two columns from a JSON object and the objects in it."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{within}{key} ")
        else:
            yield f"{within}{key}", value


def terminal_width() -> int | None:
    """Return the columns of the terminal that reads standard output, None when a program does."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def age(seconds: float) -> str:
    """Write a time for people: 45 s, 12 min, 5 h, 3 d."""
    for unit, length, end in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if seconds < end:
            return f"{max(0, int(seconds // length))} {unit}"
    return f"{int(seconds // 86400)} d"


def size(count: float) -> str:
    """Write a number of bytes for people, in powers of 1,000: 999 B, 1.5 MB."""
    if count < 1000:
        return f"{count} B"
    for unit in ("kB", "MB", "GB", "TB"):
        count /= 1000
        if count < 999.95 or unit == "TB":
            break
    return f"{count:.1f} {unit}"


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else f"{line[: width - 1]}…"
