"""`md5light batches …`."""

from __future__ import annotations

import argparse
import time

from md5light.admin.access import batches_of, found_batch
from md5light.admin.output import SHORT, age, flattened, print_json, print_table, terminal_width
from md5light.batch import Batch, ErrorCount, Result, describe
from md5light.config import Config
from md5light.times import rfc3339

HEADS = ("STATUS", "LINES", "HASHED", "MATCHED", "MISMATCHED", "FAILED", "CANCELED")


def batches_list(config: Config, arguments: argparse.Namespace) -> None:
    """Print the newest batches: on a terminal for people, in a pipe for programs."""
    with batches_of(config) as batches:
        found = [(batch, batches.result(batch)) for batch in batches.newest(arguments.limit)]
    if arguments.json:
        print_json([describe(batch, result) for batch, result in found])
    elif width := terminal_width():
        rows = [
            (
                batch.id[:SHORT],
                *_cells(batch, result),
                age(time.time() - batch.created_at),
                batch.name,
            )
            for batch, result in found
        ]
        print_table([("ID", *HEADS, "AGE", "NAME"), *rows], width)
    else:
        rows = [
            (
                batch.id,
                *_cells(batch, result),
                f"{rfc3339(batch.created_at)}"[:19] + "Z",
                batch.name,
            )
            for batch, result in found
        ]
        print_table([("ID", *HEADS, "SUBMITTED", "NAME"), *rows])


def batches_show(config: Config, arguments: argparse.Namespace) -> None:
    """Print the whole description of a batch."""
    with batches_of(config) as batches:
        batch = found_batch(batches, arguments.id)
        result = batches.result(batch)
    described = describe(batch, result)
    if arguments.json:
        print_json(described)
    else:
        described["errors"] = {each.code: _error(each) for each in result.errors}
        print_table(flattened(described))


def _error(error: ErrorCount) -> str:
    more = ", …" if error.count > len(error.lines) else ""
    return f"{error.count}: lines {', '.join(map(str, error.lines))}{more}"


def _cells(batch: Batch, result: Result) -> tuple[object, ...]:
    counts = result.counts
    bad = (counts.mismatched, counts.failed, counts.canceled)
    return batch.status, counts.total, counts.hashed, counts.matched, *bad
