#!/usr/bin/env python3
"""Measure the queue: how fast jobs are stored and drained, and what an idle service costs.

nginx (Debian's package) is the origin, on loopback. Each figure is printed with its requirement;
the exit status is 1 when one is not met.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
from loopback import ROOT, figure, python, serving

sys.path.insert(0, str(ROOT))

from md5light.finding import MD5_ALONE
from md5light.queue import open_database
from md5light.queue.submissions import SUBMIT
from tests.postgresql import PostgreSQLServer
from tests.service import EXECUTED, Command, Service

FILES = 3000

#: many jobs: pools, jobs stored at once, such portions in a round, jobs of which one is slow
POOLS = 4
PORTION = 5000
PORTIONS_A_ROUND = 7
SLOW_EVERY = 500

BULK_COLUMNS = "   s    done  updates  in place  dead rows  vacuums  table MiB  indexes MiB"
BULK_LINE = "{:4.0f} {:7} {:8} {:9} {:10} {:8} {:10.1f} {:12.1f}"
BULK_STATE = """
    select (select count(*) from jobs where finished_at is null),
        (select count(*) from jobs where finished_at is not null),
        n_tup_upd, n_tup_hot_upd, n_dead_tup, autovacuum_count,
        pg_relation_size(relid) / 1048576.0, pg_indexes_size(relid) / 1048576.0
    from pg_stat_user_tables where relname = 'jobs'
"""

#: downloads the URLs of its standard input in as many threads as told; prints begin and end
BARE = """
import hashlib, sys, threading, time, requests
urls = sys.stdin.read().split()
def run(mine):
    session = requests.Session()
    session.trust_env = False
    for url in mine:
        hashlib.md5(session.get(url).content).hexdigest()
count = int(sys.argv[1])
threads = [threading.Thread(target=run, args=[urls[n::count]]) for n in range(count)]
begin = time.time()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(begin, time.time())
"""

#: the server with a queue that stores nothing
FORGETFUL = """
import uuid
from md5light.queue.jobs import Queue
Queue.submit = lambda *_, **__: str(uuid.uuid4())
from md5light.cli import server
server()
"""

#: posts URL to PORT over CONNECTIONS kept connections for SECONDS; prints the answers a second
SUBMITTING = """
import socket, sys, threading, time
port, connections, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
body = b"url=" + sys.argv[4].encode()
request = b"POST /submit HTTP/1.1\\r\\nHost: localhost\\r\\n"
request += b"Content-Type: application/x-www-form-urlencoded\\r\\n"
request += b"Content-Length: %d\\r\\n\\r\\n%s" % (len(body), body)
counts = []
def run():
    count, end = 0, time.time() + seconds
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while time.time() < end:
            connection.sendall(request)
            answer = connection.recv(4096)
            while not answer.endswith(b"}\\n"):
                answer += connection.recv(4096)
            assert b" 202 " in answer[:16], answer
            count += 1
    counts.append(count)
threads = [threading.Thread(target=run) for _ in range(connections)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(counts) == connections
print(sum(counts) / seconds)
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names",
        nargs="*",
        choices=[[], *MEASURES],
        help=f"what to measure (default: all): {' '.join(MEASURES)}",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="measurements of each (default: %(default)s)"
    )
    arguments = parser.parse_args()
    met = [MEASURES[name](arguments.rounds) for name in arguments.names or MEASURES]
    return 0 if all(met) else 1


# --- drain ----------------------------------------------------------------------------------------


def drain(rounds: int) -> bool:
    """Drain waiting jobs, and do the same downloads without a queue, in turns."""
    files = {f"files/{number}": os.urandom(1024) for number in range(FILES)}
    met = []
    with serving(files) as root:
        urls = [f"{root}/{path}" for path in files]
        for threads in (1, 8):
            bare, ours = [], []
            for _ in range(rounds):
                bare.append(bare_rate(urls, threads))
                ours.append(drain_rate(urls, threads))
            rates = statistics.median(bare), statistics.median(ours)
            print(f"2 x {threads}: bare {rates[0]:.0f} files/s, drained {rates[1]:.0f} jobs/s")
            ratio = statistics.median(our / their for our, their in zip(ours, bare, strict=True))
            met.append(figure(f"2 x {threads}: drained by bare requests", ratio, 0.8, least=True))
    return all(met)


def bare_rate(urls: list[str], threads: int) -> float:
    processes = [python(BARE, threads, stdin=subprocess.PIPE) for _ in range(2)]
    lists = ["\n".join(urls[number::2]) for number in range(2)]
    with ThreadPoolExecutor() as feeding:
        printed = list(feeding.map(lambda each, fed: each.communicate(fed)[0], processes, lists))
    times = [[float(word) for word in line.split()] for line in printed]
    return len(urls) / (max(end for _, end in times) - min(begin for begin, _ in times))


def drain_rate(urls: list[str], threads: int) -> float:
    """Return jobs a second between the first claim and the last result."""
    with service(worker={"processes": 2, "threads": threads}) as drained:
        fill(str(drained.database), urls)
        assert drained.start("worker", "--burst").process.wait() == 0
        with contextlib.closing(sqlite3.connect(drained.database)) as database:
            count, seconds = database.execute(
                "select count(*), max(finished_at) - min(started_at) from jobs"
                " where status = 'done'"
            ).fetchone()
        assert count == len(urls)
        return len(urls) / float(seconds)


def fill(location: str, urls: list[str]) -> None:
    """Store a job for each of `urls` at once."""
    row = {"host": "127.0.0.1", "email": None, "client": None, "max_attempts": 5}
    row |= {"turn": None, **MD5_ALONE._asdict()}
    with contextlib.closing(open_database(location, durable=False)) as database:
        rows = [{**row, "id": str(uuid.uuid4()), "url": url} for url in urls]
        database.write(lambda opened: opened.run_many(SUBMIT, rows))


# --- submit ---------------------------------------------------------------------------------------


def submit(rounds: int) -> bool:
    """Submit over HTTP to the server, and to one that stores nothing, in turns."""
    stored, forgotten = [], []
    for _ in range(rounds):
        with service(server={"max_unfinished": 10**9}) as ours:
            stored.append(submit_rate(ours.start_server()))
            theirs = ForgetfulServer(
                ours.folder / "forgetful.log",
                "server",
                "--config",
                str(ours.config),
                cwd=ours.folder,
                enter=EXECUTED,
            )
            ours.commands.append(theirs)
            forgotten.append(submit_rate(theirs))
    rates = statistics.median(stored), statistics.median(forgotten)
    print(f"submissions/s: {rates[0]:.0f}, without storing {rates[1]:.0f}")
    ratio = statistics.median(our / their for our, their in zip(stored, forgotten, strict=True))
    return figure("durable submissions by those not stored", ratio, 0.7, least=True)


def submit_rate(server: Command) -> float:
    port = server.wait_for_line(r"listening url=http://\S+:(\d+)")[1]
    url = "http://files.example.com/pub/some/file-1.2.3.tar.gz"
    rate = float(python(SUBMITTING, port, 8, 4, url).communicate()[0])
    server.stop()
    return rate


class ForgetfulServer(Command):
    """A server that stores nothing."""

    program = FORGETFUL


# --- latency --------------------------------------------------------------------------------------


def latency(rounds: int) -> bool:
    """Time an idle service from POST to done."""
    with serving({"file": os.urandom(1024)}) as root, service(worker={"processes": 4}) as idle:
        idle.start_server()
        idle.start_pool()
        time.sleep(1)
        client = http.client.HTTPConnection(idle.url.removeprefix("http://"))
        times = sorted(time_to_done(client, f"{root}/file") for _ in range(100 * rounds))
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    return figure("POST to done, p50", p50, 10, " ms") & figure("POST to done, p99", p99, 40, " ms")


def time_to_done(client: http.client.HTTPConnection, url: str) -> float:
    time.sleep(0.03)
    begin = time.perf_counter()
    client.request(
        "POST", "/submit", f"url={url}", {"Content-Type": "application/x-www-form-urlencoded"}
    )
    answer = client.getresponse()
    answer.read()
    status = 202
    while status == 202:
        client.request("GET", answer.headers["Location"])
        check = client.getresponse()
        check.read()
        status = check.status
        if status == 202:
            time.sleep(0.0005)
    assert status == 200
    return (time.perf_counter() - begin) * 1000


# --- slow servers ---------------------------------------------------------------------------------


def slow(rounds: int) -> bool:  # noqa: ARG001 - ten seconds tell enough
    """Download 200 files of 1 MiB at once, each at the 100 kB/s that its server allows."""
    files = {f"slow/{number}": os.urandom(2**20) for number in range(200)}
    with serving(files) as root, service(worker={"processes": 2, "threads": 100}) as crowded:
        fill(str(crowded.database), [f"{root}/{path}" for path in files])
        begin = time.monotonic()
        pool = crowded.start_pool("--burst")
        memory = 0.0
        while pool.process.poll() is None:
            memory = max(memory, sum(map(pss, pool.children())))
            time.sleep(0.2)
        seconds = time.monotonic() - begin
    ideal = 2**20 / 100_000
    return figure("200 slow downloads, by the ideal time", seconds / ideal, 1.3) & figure(
        "200 slow downloads, both workers", memory, 220, " MiB"
    )


# --- the log under load ---------------------------------------------------------------------------


def log(rounds: int) -> bool:
    """Submit and work without a pause, and watch SQLite's write-ahead log."""
    largest, seconds = 0, 20 * rounds
    with (
        serving({"file": os.urandom(1024)}) as root,
        service(server={"max_unfinished": 10**9}) as busy,
    ):
        server, pool = busy.start_server(), busy.start_pool("--processes", "4")
        port = server.wait_for_line(r"listening url=http://\S+:(\d+)")[1]
        submitting = python(SUBMITTING, port, 8, seconds, f"{root}/file")
        wal = busy.database.with_name(f"{busy.database.name}-wal")
        while submitting.poll() is None:
            largest = max(largest, wal.stat().st_size)
            time.sleep(0.2)
        print(f"{float(submitting.communicate()[0]):.0f} submissions/s for {seconds} s", flush=True)
        pool.stop()
    return figure("the write-ahead log, at its largest", largest / 2**20, 64, " MiB")


# --- at rest --------------------------------------------------------------------------------------


def idle(rounds: int) -> bool:
    """Measure the memory of a service at rest and its share of a core."""
    with service(worker={"processes": 4}) as resting:
        server, pool = resting.start_server(), resting.start_pool()
        time.sleep(3)
        pids = [pool.process.pid, *pool.children()]
        before = sum(map(cpu_seconds, pids))
        time.sleep(10 * rounds)
        share = (sum(map(cpu_seconds, pids)) - before) / (10 * rounds)
        memory = pss(server.process.pid), sum(map(pss, pids))
        print(f"memory at rest: server {memory[0]:.0f} MiB, pool {memory[1]:.0f} MiB (PSS)")
    return figure("an idle pool of 4, of one core", share * 100, 1, " %")


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss(pid: int) -> float:
    """Return a process's share of memory in MiB."""
    return (
        int(Path(f"/proc/{pid}/smaps_rollup").read_text().partition("\nPss:")[2].split()[0]) / 1024
    )


# --- many jobs ------------------------------------------------------------------------------------


def bulk(rounds: int) -> bool:
    """Take many jobs through one PostgreSQL server with several pools, and watch its tables.

    One job of 500 is sent slowly, so that it shows progress while others end. Jobs are stored as
    fast as they are done, in portions.
    """
    files = {f"files/{number}": os.urandom(1024) for number in range(PORTION)}
    files |= {f"slow/{number}": os.urandom(2**20) for number in range(PORTION // SLOW_EVERY)}
    order = [*files][:PORTION]
    order[::SLOW_EVERY] = [*files][PORTION:]
    settings = {"processes": 2, "threads": 8}
    with contextlib.closing(PostgreSQLServer(fsync=True)) as server, serving(files) as root:
        location = server.location()
        with service(queue={"database": location}, worker=settings) as pools:
            fill(location, [])
            for _ in range(POOLS):
                pools.start_pool()
            portions = [[f"{root}/{path}" for path in order]] * (PORTIONS_A_ROUND * rounds)
            with psycopg.connect(location, autocommit=True) as database:
                feed(database, location, portions)
                right = done_right(database, root, files)
    return figure("jobs done at once and right", right, PORTION * len(portions), least=True)


def feed(database: psycopg.Connection[Any], location: str, portions: list[list[str]]) -> None:
    """Store a portion whenever less than one is unfinished; print a line for each, and the rate."""
    begin, stored = time.monotonic(), 0
    print(BULK_COLUMNS)
    while True:
        row = database.execute(BULK_STATE).fetchone()
        assert row
        unfinished, *state = row
        if stored < len(portions) and unfinished < PORTION:
            print(BULK_LINE.format(time.monotonic() - begin, *state), flush=True)
            fill(location, portions[stored])
            stored += 1
        elif unfinished == 0:
            break
        time.sleep(0.2)
    seconds = time.monotonic() - begin
    print(BULK_LINE.format(seconds, *state))
    print(f"{sum(map(len, portions)) / seconds:.0f} jobs/s")


def done_right(database: psycopg.Connection[Any], root: str, files: dict[str, bytes]) -> int:
    """Return how many jobs were done at their first attempt, with the right MD5."""
    right = {
        f"{root}/{path}": hashlib.md5(body, usedforsecurity=False).hexdigest()
        for path, body in files.items()
    }
    rows = database.execute("select url, md5 from jobs where status = 'done' and attempts = 1")
    return sum(md5 == right[url] for url, md5 in rows)


MEASURES: dict[str, Callable[[int], bool]] = {
    "drain": drain,
    "submit": submit,
    "latency": latency,
    "slow": slow,
    "log": log,
    "idle": idle,
    "bulk": bulk,
}


@contextlib.contextmanager
def service(
    worker: Mapping[str, object] | None = None, **settings: Mapping[str, object]
) -> Iterator[Service]:
    """Give a service with a folder of its own, no limit per host, and the defaults elsewhere."""
    worker = {"per_host": 0, "shutdown_seconds": 5, **(worker or {})}
    with (
        tempfile.TemporaryDirectory(prefix="md5light-bench-") as folder,
        Service(Path(folder), worker=worker, **settings) as made,
    ):
        made.enter = EXECUTED
        yield made


if __name__ == "__main__":
    sys.exit(main())
