#!/usr/bin/env python3
"""Measure batches: how fast a list is taken and a manifest sent, and what others feel of it.

nginx (Debian's package) is the origin, on loopback. Each figure is printed with its requirement;
the exit status is 1 when one is not met.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from loopback import ROOT, figure, serving

sys.path.insert(0, str(ROOT))

from md5light.batch import NewBatch, NewLine
from md5light.queue import open_database
from md5light.queue.batches import Batches
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.queue.sweeps import PORTION
from tests.service import EXECUTED, Service

LINES = 100_000
FILES = 3000
SLOW_READERS = 10

#: seconds between two requests of a client that measures
PAUSE_SECONDS = 0.02


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="of each kind; medians count (default: %(default)s)"
    )
    arguments = parser.parse_args()
    met = [
        *measure_storage(arguments.rounds),
        *measure_lists(arguments.rounds),
        measure_drain(arguments.rounds),
    ]
    return 0 if all(met) else 1


def measure_storage(rounds: int) -> list[bool]:
    """Store 100,000 lines without HTTP, beside single submissions; read and remove them."""
    names = ("storing", "submitting", "counting", "canceling", "removing")
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            location = str(Path(folder, "jobs.sqlite3"))
            with contextlib.closing(open_database(location, durable=True)) as database:
                store_and_remove(database, times)
    return [
        figure("seconds of storing 100,000 lines", statistics.median(times["storing"]), 3),
        figure("ms of submissions beside it, p99", 1000 * p99(times["submitting"]), 150),
        figure("seconds of counting them", statistics.median(times["counting"]), 1),
        figure("seconds of canceling them", statistics.median(times["canceling"]), 10),
        figure("seconds of removing them", statistics.median(times["removing"]), 10),
    ]


def store_and_remove(database: Database, times: dict[str, list[float]]) -> None:
    batches = Batches(database, max_attempts=5)
    queue = Queue(database, lease_seconds=60, max_attempts=5, retry_seconds=10)
    batch_id = batches.begin(NewBatch("urls", "192.0.2.1"))
    begun = time.monotonic()
    with timed(lambda: queue.submit("http://127.0.0.1:2000/", "127.0.0.1"), times["submitting"]):
        for first in range(0, LINES, PORTION):
            batches.add(batch_id, [line(number) for number in range(first, first + PORTION)])
        batch = batches.publish(batch_id)
    times["storing"].append(time.monotonic() - begun)
    times["counting"].append(seconds(lambda: batches.result(batch)))
    times["canceling"].append(seconds(lambda: batches.cancel(batch_id)))
    batches.purge(-1)
    times["removing"].append(seconds(lambda: exhaust(batches.sweep)))


def line(number: int) -> NewLine:
    host = f"files{number % 100}.example.org"
    url = f"https://{host}/pub/file-{number}.tar.gz"
    return NewLine(number, url, url, host)


def exhaust(work: Callable[[], bool]) -> None:
    while work():
        pass


def measure_lists(rounds: int) -> list[bool]:
    """Take lists of 100,000 lines and send their manifests, beside other requests."""
    urls = (f"https://files{n % 100}.example.org/pub/file-{n}.tar.gz\n" for n in range(LINES))
    body = "".join(urls).encode()
    seconds: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, Service(Path(folder)) as service:
        service.enter = EXECUTED
        server = service.start_server()
        for _ in range(rounds):
            with timed(lambda: submit(service), seconds["submitting"]):
                taken = requests.post(f"{service.url}/batches", data=body, timeout=60)
            seconds["taking"].append(taken.elapsed.total_seconds())
            batch_id = taken.json()["id"]
            with timed(lambda: check(service), seconds["checking"]):
                begun = time.monotonic()
                requests.get(f"{service.url}/batches/{batch_id}/manifest", timeout=60)
                seconds["sending"].append(time.monotonic() - begun)
            with readers(service, batch_id), timed(lambda: check(service), seconds["slow"]):
                time.sleep(5)
        peak = peak_mib(server.process.pid)
    return [
        figure("seconds until 100,000 lines are taken", statistics.median(seconds["taking"]), 4),
        figure("ms of other submissions beside it, p99", 1000 * p99(seconds["submitting"]), 150),
        figure("seconds of a manifest of 100,000 lines", statistics.median(seconds["sending"]), 5),
        figure("ms of /check beside it, p99", 1000 * p99(seconds["checking"]), 100),
        figure("ms of /check beside ten slow readers, p99", 1000 * p99(seconds["slow"]), 100),
        figure("MiB of the server, at most", peak, 200),
    ]


def submit(service: Service) -> None:
    requests.post(f"{service.url}/submit", data={"url": "http://127.0.0.1:2000/"}, timeout=60)


def check(service: Service) -> None:
    requests.get(f"{service.url}/check?id=none", timeout=60)


@contextlib.contextmanager
def timed(request: Callable[[], object], times: list[float]) -> Iterator[None]:
    """Send requests one after the other, and add the seconds of each to `times`."""
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(PAUSE_SECONDS):
            times.append(seconds(request))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def readers(service: Service, batch_id: str) -> Iterator[None]:
    """Let ten clients ask for the manifest and read some KiB a second of it."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    with contextlib.ExitStack() as opened:
        for _ in range(SLOW_READERS):
            client = opened.enter_context(socket.create_connection((host, int(port))))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            request = f"GET /batches/{batch_id}/manifest HTTP/1.1\r\nHost: x\r\n\r\n"
            client.sendall(request.encode())
        yield


def measure_drain(rounds: int) -> bool:
    """Drain the same small files as a batch and as single jobs."""
    files = {f"f/{n}": hashlib.md5(b"%d" % n).digest() * 64 for n in range(FILES)}
    rates: dict[str, list[float]] = {"batch": [], "single": []}
    with serving(files) as root:
        urls = [f"{root}/{path}" for path in files]
        for _ in range(rounds):
            for kind, submit_all in (("batch", submit_batch), ("single", submit_each)):
                with tempfile.TemporaryDirectory() as folder:
                    rates[kind].append(drain(Path(folder), urls, submit_all))
    batch, single = (statistics.median(each) for each in rates.values())
    print(f"files a second: {batch:.0f} of a batch, {single:.0f} as single jobs")
    return figure("draining a batch, by single jobs", batch / single, 0.9, least=True)


def drain(folder: Path, urls: list[str], submit_all: Callable[[Service, list[str]], None]) -> float:
    """Return the files a second of a pool that ends when nothing is due."""
    with Service(folder, worker={"per_host": 0, "threads": 8}) as service:
        service.enter = EXECUTED
        service.start_server()
        submit_all(service, urls)
        return len(urls) / seconds(lambda: service.start("worker", "--burst").process.wait(300))


def submit_batch(service: Service, urls: list[str]) -> None:
    answer = requests.post(f"{service.url}/batches", data="\n".join(urls), timeout=60)
    answer.raise_for_status()


def submit_each(service: Service, urls: list[str]) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(service.submit, urls))


def seconds(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def peak_mib(pid: int) -> float:
    """Return the most memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(main())
