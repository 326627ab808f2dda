#!/usr/bin/env python3
"""Measure how fast each format of a list is read and each form of a manifest is written.

Each runs in a process of its own. Rates are per second of CPU time; memory is the process' peak,
less what it had before. A list is read from a file, and a manifest is thrown away. Writing includes
making the entries, once for every time that the form asks for them: the first line says how fast
that is.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from md5light.lists.entry import Entry
from md5light.lists.formats import FORMATS, FORMS, NAMES
from md5light.lists.plain import GCS_HEADER
from md5light.lists.reading import read
from md5light.lists.writing import write

PIECE = 64 * 1024


class Entries:
    """So many lines that are done, made as they are asked for."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __iter__(self) -> Iterator[Entry]:
        for position in range(1, self._count + 1):
            url = f"https://mirror.example.org/pub/releases/{position % 97}/file-{position}.tar.gz"
            md5 = hashlib.md5(url.encode()).hexdigest()
            yield Entry(
                position,
                sent=f"{md5}  {url}",
                url=url,
                status="matched",
                expected={"md5": md5},
                size=position,
                digests={
                    "md5": md5,
                    "sha1": f"{md5}{md5[:8]}",
                    "sha256": 2 * md5,
                    "sha512": 4 * md5,
                },
                final_url=url,
                content_type="application/gzip",
                attempts=1,
                finished_at="2026-01-01T00:00:00.000Z",
            )


def rows(format: str, entries: Entries) -> Iterator[str]:
    """Write a list with a size where the format has one, and an MD5."""
    yield {
        "csv": "url,size,md5\n",
        "tsv": "url\tsize\tmd5\n",
        "json": "[",
        "gcs": f"{GCS_HEADER}\n",
    }.get(format, "")
    for entry in entries:
        url, size, md5 = entry.url, entry.size, entry.digests["md5"]
        record = f'{{"url":"{url}","size":{size},"md5":"{md5}"}}'
        comma = "," if entry.position > 1 else ""
        yield {
            "urls": f"{url} {size} {md5}\n",
            "sums": f"{md5}  {url}\n",
            "bsd": f"MD5 ({url}) = {md5}\n",
            "csv": f"{url},{size},{md5}\n",
            "tsv": f"{url}\t{size}\t{md5}\n",
            "ndjson": f"{record}\n",
            "json": f"{comma}{record}",
            "gcs": f"{url}\t{size}\t{md5}\n",
            "pooch": f"{url} md5:{md5} {url}\n",
        }[format]
    yield "]" if format == "json" else ""


def measure(
    work: Callable[[], object], results: multiprocessing.SimpleQueue[tuple[float, int]]
) -> None:
    before = peak_kib()
    begin = time.process_time()
    work()
    results.put((time.process_time() - begin, peak_kib() - before))


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def apart(prepare: Callable[[], Callable[[], object]]) -> tuple[float, int]:
    """Return seconds, and KiB, of the work that `prepare` returns, done in a process of its own."""
    results: multiprocessing.SimpleQueue[tuple[float, int]] = multiprocessing.SimpleQueue()
    process = multiprocessing.get_context("fork").Process(
        target=lambda: measure(prepare(), results)
    )
    process.start()
    process.join()
    return results.get()


def reading(format: str, entries: Entries) -> Callable[[], object]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed as the process ends
    file.writelines(row.encode() for row in rows(format, entries))
    file.seek(0)
    return lambda: sum(1 for _ in read(iter(lambda: file.read(PIECE), b""), format))


def writing(format: str, entries: Entries, names: str) -> Callable[[], object]:
    return lambda: sum(map(len, write(entries, format, names=names)))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=100_000, help="(default: %(default)s)")
    parser.add_argument("--names", choices=NAMES, default="url", help="(default: %(default)s)")
    arguments = parser.parse_args()
    entries = Entries(arguments.lines)
    works: dict[str, Callable[[], Callable[[], object]]] = {
        "entries": lambda: lambda: sum(1 for _ in entries)
    }
    works |= {f"read {format}": partial(reading, format, entries) for format in FORMATS}
    works |= {f"write {form}": partial(writing, form, entries, arguments.names) for form in FORMS}
    print("                  lines/s   MiB")
    for what, prepare in works.items():
        seconds, kib = apart(prepare)
        print(f"{what:15} {arguments.lines / seconds:9,.0f} {kib / 1024:5.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
