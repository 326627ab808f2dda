"""What the commands print: tables for people, JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from md5light.text import visible


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


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else f"{line[: width - 1]}…"
