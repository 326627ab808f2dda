#!/usr/bin/env python3
"""Drain the same waiting jobs with md5light and other job queues for Python, and compare the rates.

A job fetches 1 KiB and hashes it. It needs `pip install -e '.[bench,test]'`, and Debian's
nginx-light, redis-server and postgresql. nginx, the origin, notes when the first and the last file
were asked for: the time between them counts for every queue. Each round begins with the same
downloads by requests without a queue; the ratio to them is printed. The exit status is 1 when a
requirement is not met.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs import bare_rate, fill, service
from loopback import ROOT, figure, free_port, python, serving, wait_for

sys.path.insert(0, str(ROOT))

from tests.postgresql import PostgreSQLServer

#: seconds that a queue gets to drain all jobs
PATIENCE = 120

FETCH = """
import hashlib, os, sys, threading, requests
kept = threading.local()
def fetch(url):
    if not hasattr(kept, "session"):
        kept.session = requests.Session()
        kept.session.trust_env = False
    return hashlib.md5(kept.session.get(url).content).hexdigest()
"""

HUEY = """
from huey import SqliteHuey
huey = SqliteHuey(filename="huey.db", fsync={fsync}, results=True)
task = huey.task()(fetch)
def submit(urls):
    for url in urls:
        task(url)
"""

RQ = """
from redis import Redis
from rq import Queue
def submit(urls):
    queue = Queue(connection=Redis(port={redis}))
    for url in urls:
        queue.enqueue("work.fetch", url)
"""

CELERY = """
from celery import Celery
app = Celery("work", broker="redis://127.0.0.1:{redis}/0", backend="redis://127.0.0.1:{redis}/0")
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1)
task = app.task(name="work.fetch")(fetch)
def submit(urls):
    for url in urls:
        task.delay(url)
"""

DRAMATIQ = """
import dramatiq
from dramatiq.brokers.redis import RedisBroker
dramatiq.set_broker(RedisBroker(port={redis}))
task = dramatiq.actor(fetch)
def submit(urls):
    for url in urls:
        task.send(url)
"""

PROCRASTINATE = """
import procrastinate
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo="{postgresql}"))
task = app.task(name="work.fetch")(fetch)
def submit(urls):
    connector = procrastinate.SyncPsycopgConnector(conninfo="{postgresql}")
    with app.replace_connector(connector) as submitting, submitting.open():
        submitting.schema_manager.apply_schema()
        for url in urls:
            submitting.configure_task("work.fetch").defer(url=url)
"""


@dataclass(frozen=True)
class Engine:
    """A job queue: its module, and the command of a worker process with so many threads."""

    name: str
    module: str
    command: str
    #: how many such commands are started for two processes
    commands: int = 2
    #: what it was told is on the disk when it has answered
    durable: bool = False
    #: it can run several jobs at once in a process
    threaded: bool = True


ENGINES = (
    Engine(
        "huey",
        HUEY.format(fsync=False),
        "-m huey.bin.huey_consumer work.huey -w {threads} -k thread",
    ),
    Engine(
        "huey, fsync",
        HUEY.format(fsync=True),
        "-m huey.bin.huey_consumer work.huey -w {threads} -k thread",
        durable=True,
    ),
    Engine(
        "RQ",
        RQ,
        "-m rq.cli worker --url redis://127.0.0.1:{redis} -w rq.worker.SimpleWorker",
        threaded=False,
    ),
    Engine("Celery", CELERY, "-m celery -A work worker -P threads -c {threads} -n {number}@bench"),
    Engine("dramatiq", DRAMATIQ, "-m dramatiq work --processes 2 --threads {threads}", commands=1),
    Engine(
        "procrastinate",
        PROCRASTINATE,
        "-m procrastinate --app work.app worker --concurrency {threads}",
        durable=True,
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--files", type=int, default=3000, help="jobs to drain (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="each is measured so often (default: %(default)s)"
    )
    arguments = parser.parse_args()
    files = {f"files/{number}": os.urandom(1024) for number in range(arguments.files)}
    met = [compare(files, threads, arguments.rounds) for threads in (1, 8)]
    return 0 if all(met) else 1


def compare(files: dict[str, bytes], threads: int, rounds: int) -> bool:
    """Let all drain the same jobs in turns, and compare md5light's ratio with the others'."""
    drains: dict[str, Callable[[Origin], None]] = {
        "md5light": lambda origin: drain_ours(origin, threads),
        "md5light, PostgreSQL": lambda origin: drain_ours(origin, threads, postgresql=True),
    }
    drains |= {
        engine.name: functools.partial(drain, engine=engine, threads=threads)
        for engine in ENGINES
        if engine.threaded or threads == 1
    }
    ratios: dict[str, list[float]] = {name: [] for name in drains}
    for _ in range(rounds):
        bare = rate(files, lambda origin: bare_rate(origin.urls, threads))
        for name, work in drains.items():
            ratios[name].append(rate(files, work) / bare)
    medians = {name: statistics.median(values) for name, values in ratios.items()}
    for name, ratio in medians.items():
        print(f"2 x {threads}, {name}: {ratio:.2f} of the rate without a queue", flush=True)
    return meets(medians, f"2 x {threads}: md5light by")


def meets(ratios: dict[str, float], what: str) -> bool:
    """Print md5light's ratios by those of the others; tell whether they are as required."""
    engines = [engine for engine in ENGINES if engine.name in ratios]
    ours, on_postgresql = ratios["md5light"], ratios["md5light, PostgreSQL"]
    best = max(ratios[engine.name] for engine in engines)
    durable = max(ratios[engine.name] for engine in engines if engine.durable)
    procrastinate = on_postgresql / ratios["procrastinate"]
    met = [
        figure(f"{what} the best of the others", ours / best, 1, least=True),
        figure(f"{what} the best that keeps its jobs", ours / durable, 1.7, least=True),
        figure(f"{what} procrastinate, both on PostgreSQL", procrastinate, 3, least=True),
    ]
    return all(met)


# --- the origin's view ----------------------------------------------------------------------------


class Origin:
    """nginx, which notes when it was asked for a file."""

    def __init__(self, urls: list[str], times: Path) -> None:
        self.urls = urls
        self._times = times

    def times(self) -> list[float]:
        return sorted(float(line) for line in self._times.read_text().split())

    def wait(self) -> None:
        """Wait until every file was asked for."""
        deadline = time.monotonic() + PATIENCE
        while len(self.times()) < len(self.urls):
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"only {len(self.times())} of {len(self.urls)} files were asked for"
                )
            time.sleep(0.2)


def rate(files: dict[str, bytes], work: Callable[[Origin], object]) -> float:
    """Return how many files a second were asked for while `work` drained its jobs."""
    with (
        tempfile.TemporaryDirectory(prefix="md5light-bench-") as folder,
        serving(files, Path(folder, "times")) as root,
    ):
        origin = Origin([f"{root}/{path}" for path in files], Path(folder, "times"))
        work(origin)
        origin.wait()
        times = origin.times()
        return (len(times) - 1) / (times[-1] - times[0])


# --- who drains -----------------------------------------------------------------------------------


def drain_ours(origin: Origin, threads: int, *, postgresql: bool = False) -> None:
    with contextlib.ExitStack() as stack:
        queue = {"database": stack.enter_context(postgresql_server())} if postgresql else {}
        ours = stack.enter_context(
            service(queue=queue, worker={"processes": 2, "threads": threads})
        )
        fill(queue.get("database", str(ours.database)), origin.urls)
        assert ours.start("worker", "--burst").process.wait() == 0


def drain(origin: Origin, engine: Engine, threads: int) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="md5light-bench-") as folder,
        contextlib.ExitStack() as stack,
    ):
        words: dict[str, object] = {"threads": threads, "redis": 0, "postgresql": ""}
        if "{redis}" in engine.module:
            words["redis"] = stack.enter_context(redis(folder))
        if "{postgresql}" in engine.module:
            words["postgresql"] = stack.enter_context(postgresql_server())
        Path(folder, "work.py").write_text(FETCH + engine.module.format(**words))
        submitting = python(
            "import sys, work; work.submit(sys.stdin.read().split())",
            stdin=subprocess.PIPE,
            cwd=folder,
        )
        submitting.communicate("\n".join(origin.urls))
        assert submitting.returncode == 0
        for number in range(engine.commands):
            command = [sys.executable, *engine.command.format(number=number, **words).split()]
            environment = {**os.environ, "PYTHONPATH": folder}
            output = stack.enter_context(Path(folder, f"worker{number}.log").open("w"))
            worker = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=output, stderr=output
            )
            stack.callback(end, worker)
        origin.wait()


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def redis(folder: str) -> Iterator[int]:
    """Run a Redis server on loopback, with a log that is synced every second; yields its port."""
    port = free_port()
    settings = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        folder,
        "--appendonly",
        "yes",
        "--save",
        "",
    ]
    process = subprocess.Popen(["redis-server", *settings], stdout=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield port
    finally:
        end(process)


@contextlib.contextmanager
def postgresql_server() -> Iterator[str]:
    server = PostgreSQLServer(fsync=True)
    try:
        yield server.location()
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())
