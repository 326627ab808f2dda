#!/usr/bin/env python3
"""Measure `md5light submit --wait` over many small files, beside a loop of curl and md5sum.

nginx (Debian's package) is the origin, on loopback. Each figure is printed with what is needed; the
exit status is 1 when something needed is not met.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

from jobs import service
from loopback import ROOT, figure, serving

sys.path.insert(0, str(ROOT))

from tests.client import environment
from tests.service import Service

CURL = ["xargs", "-P8", "-n1", "sh", "-c", 'curl -sL "$0" | md5sum']

#: seconds between the first claim and the last result of the newest batch
POOL_SECONDS = """
    select max(finished_at) - min(started_at) from jobs
    where batch_id = (select id from batches order by created_at desc limit 1)
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--files", type=int, default=1000, help="of 1 KiB each (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="each is measured so often (default: %(default)s)"
    )
    arguments = parser.parse_args()
    files = {f"files/{number}": os.urandom(1024) for number in range(arguments.files)}
    with serving(files) as root, service(worker={"processes": 2, "threads": 8}) as ours:
        ours.start_server()
        ours.start_pool()
        listed = ours.folder / "list"
        listed.write_text("".join(f"{root}/{path}\n" for path in files))
        submitted, worked, looped, started = [], [], [], []
        for _ in range(arguments.rounds):
            submitted.append(submit_seconds(ours, listed))
            worked.append(pool_seconds(ours))
            looped.append(loop_seconds(listed))
            started.append(start_seconds())
    return 0 if report(submitted, worked, looped, started) else 1


def submit_seconds(ours: Service, listed: Path) -> float:
    command = [sys.executable, "-m", "md5light", "submit", str(listed), "--wait", "-o", "MD5SUMS"]
    environ = environment(ours.url, ours.folder)
    del environ["PYTHONDONTWRITEBYTECODE"]  # an installed package is compiled
    begin = time.monotonic()
    subprocess.run(command, cwd=ours.folder, env=environ, stderr=subprocess.DEVNULL, check=True)
    seconds = time.monotonic() - begin
    lines = (ours.folder / "MD5SUMS").read_text().splitlines()
    assert len(lines) == len(listed.read_text().splitlines())
    return seconds


def pool_seconds(ours: Service) -> float:
    with contextlib.closing(sqlite3.connect(ours.database)) as database:
        return float(database.execute(POOL_SECONDS).fetchone()[0])


def loop_seconds(listed: Path) -> float:
    begin = time.monotonic()
    with listed.open() as urls:
        subprocess.run(CURL, stdin=urls, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - begin


def start_seconds() -> float:
    """Measure a Python that only imports requests: the least that a client with it takes."""
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", "import requests"], check=True)
    return time.monotonic() - begin


def report(
    submitted: list[float], worked: list[float], looped: list[float], started: list[float]
) -> bool:
    times = map(statistics.median, (submitted, worked, looped, started))
    print(
        "submit --wait {:.2f} s, the pool {:.2f} s, curl and md5sum {:.2f} s, "
        "Python with requests alone {:.2f} s".format(*times)
    )
    by_pool = [ours / pool for ours, pool in zip(submitted, worked, strict=True)]
    by_curl = [ours / curl for ours, curl in zip(submitted, looped, strict=True)]
    met = figure("submit --wait by the pool's own time", statistics.median(by_pool), 1.2)
    return figure("submit --wait by curl and md5sum", statistics.median(by_curl), 1) and met


if __name__ == "__main__":
    sys.exit(main())
