#!/usr/bin/env python3
"""Measure how politely a pool works through the files of one host that limits its clients.

Servers of its own on loopback, nginx (Debian's package) for limit_conn and limit_req; a pool with
the default numbers of processes and threads, and [queue] retry_seconds = 1. Each scenario takes up
to some minutes; name those to run, or none for all. The exit status is 1 when something needed is
not met.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopback import ROOT, free_port, wait_for

sys.path.insert(0, str(ROOT))

from md5light.queue import open_database
from md5light.queue.database import Row
from md5light.queue.jobs import Queue
from tests import limited
from tests.limited import Answer, Ban, BlackHole, HangingUp, Limited, Window
from tests.service import EXECUTED, Service

#: seconds between two looks at how far a scenario has come
LOOK_SECONDS = 0.2

NGINX = """
daemon off; master_process off; pid nginx.pid; error_log error.log;
events {{ worker_connections 512; }}
http {{
    log_format answers '$status'; access_log answers.log answers;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    limit_conn_zone $binary_remote_addr zone=conn:1m;
    limit_req_zone $binary_remote_addr zone=req:1m rate={rate};
    {status}
    server {{
        listen 127.0.0.1:{port};
        root .;
        location /conn/ {{ limit_conn conn {connections}; limit_rate 1m; }}
        location /req/ {{ limit_req zone=req; }}
    }}
}}
"""

COUNT = """
    select host, status, count(*) as jobs, max(attempts) as attempts, max(finished_at) as ended,
        min(created_at) as begun
    from jobs group by host, status
"""


@dataclass
class Outcome:
    """How a scenario ended; requests and refusals as its server counted them."""

    done: int
    failed: int
    seconds: float
    attempts: int
    #: seconds from the start of the pool to the last end
    worked: float
    requests: int = 0
    refusals: int = 0
    connections: int = 0


def run(urls: list[str], limit: float, **settings: Any) -> dict[str, Outcome]:
    """Let a pool download `urls` within `limit` seconds; return the outcome of each host."""
    with tempfile.TemporaryDirectory(prefix="md5light-hosts-") as folder:
        queue_settings = {"retry_seconds": 1, **settings.get("queue", {})}
        download = {"connect_timeout": 10, "read_timeout": 30, **settings.get("download", {})}
        download["allow_networks"] = "127.0.0.0/8"
        worker = {"processes": 4, "threads": 8, **settings.get("worker", {})}
        with Service(
            Path(folder), queue=queue_settings, worker=worker, download=download
        ) as service:
            service.enter = EXECUTED
            location = str(service.database)
            with contextlib.closing(open_database(location, durable=False)) as database:
                queue = Queue(database, lease_seconds=60, max_attempts=5, retry_seconds=1)
                for url in urls:
                    queue.submit(url, url.split("/")[2].split(":")[0], client="bench")
                started = time.time()
                service.start_pool()
                begin = time.monotonic()
                while time.monotonic() < begin + limit:
                    rows = database.read(lambda transaction: transaction.all(COUNT))
                    if {row["status"] for row in rows} <= {"done", "failed"}:
                        break
                    time.sleep(LOOK_SECONDS)
    hosts = {row["host"] for row in rows}
    return {host: outcome([row for row in rows if row["host"] == host], started) for host in hosts}


def outcome(rows: list[Row], started: float) -> Outcome:
    """Sum the rows of one host up, a row for each status of its jobs."""
    counts = {row["status"]: row["jobs"] for row in rows}
    ended = max(row["ended"] or 0 for row in rows)
    return Outcome(
        counts.get("done", 0),
        counts.get("failed", 0),
        ended - min(row["begun"] for row in rows),
        max(row["attempts"] for row in rows),
        ended - started,
    )


@contextlib.contextmanager
def nginx(
    rate: str = "5r/s", connections: int = 2, status: str = "", size: int = 300_000
) -> Iterator[tuple[str, Path]]:
    """Run nginx with its limits; yields the URL of its root and the log of its statuses."""
    with tempfile.TemporaryDirectory(prefix="md5light-nginx-") as folder:
        for name in ("conn", "req"):
            Path(folder, name).mkdir()
        Path(folder, "conn", "file").write_bytes(os.urandom(size))
        Path(folder, "req", "file").write_bytes(b"the body\n")
        port = free_port()
        Path(folder, "nginx.conf").write_text(
            NGINX.format(rate=rate, connections=connections, status=status, port=port)
        )
        process = subprocess.Popen(
            ["nginx", "-p", folder, "-c", "nginx.conf"],
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/sbin:/usr/bin"},
        )
        try:
            wait_for(port)
            yield f"http://127.0.0.1:{port}", Path(folder, "answers.log")
        finally:
            process.terminate()
            process.wait()


def own(rule: Callable[[str, float], Answer], jobs: int = 200, limit: float = 300) -> Outcome:
    """Download the files of a server with this rule."""
    with Limited(rule) as server:
        urls = [server.url(f"/{number}") for number in range(jobs)]
        (outcome,) = run(urls, limit).values()
        outcome.requests, outcome.refusals = server.seen.requests, server.seen.refusals
        outcome.connections = server.seen.connections
    return outcome


def of_nginx(location: str, jobs: int, limit: float = 300, **settings: Any) -> Outcome:
    """Download the file of a location of nginx so many times."""
    with nginx(**settings) as (root, log):
        urls = [f"{root}/{location}/file?{number}" for number in range(jobs)]
        (outcome,) = run(urls, limit).values()
        statuses = log.read_text().split()
        outcome.requests = len(statuses)
        outcome.refusals = outcome.requests - statuses.count("200")
    return outcome


def hanging_up(jobs: int) -> Outcome:
    """Download from a server at which nothing listens for 5 s after each 15 requests."""
    with HangingUp(15, 5) as server:
        urls = [server.url(f"/{number}") for number in range(jobs)]
        (outcome,) = run(urls, 400).values()
        outcome.requests = server.seen.requests
    return outcome


def black_hole(dead: int, good: int) -> Outcome:
    """Download from a good host, alone and beside a black hole, with time scaled by about 20.

    The outcome is the black hole's; `refusals` is how many good files were not done, or how many
    seconds later than alone the last one was.
    """
    scaled = {"queue": {"retry_seconds": 0.05}, "download": {"connect_timeout": 0.5}}
    with (
        Limited(lambda *_: limited.answer("200 OK"), "127.0.0.2") as server,
        BlackHole("127.0.0.3") as hole,
    ):
        files = [server.url(f"/{number}") for number in range(good)]
        alone = run(files, 300, **scaled)["127.0.0.2"]
        started = [hole.url(f"/{number}") for number in range(dead)]
        beside = run([*started, *files], 600, **scaled)
    outcome, others = beside["127.0.0.3"], beside["127.0.0.2"]
    late = max(0, round(others.worked - alone.worked))
    outcome.refusals = good - others.done or late
    return outcome


#: name, what is run, what is needed of the outcome
SCENARIOS: dict[str, tuple[Callable[[], Outcome], Callable[[Outcome], bool]]] = {
    "a: 20 per 5 s, 200 jobs": (
        lambda: own(Window(20, 5)),
        lambda o: o.done == 200 and o.requests <= 260,
    ),
    "b: limit_conn 2, 60 jobs of 0.3 s": (
        lambda: of_nginx("conn", 60),
        lambda o: o.done == 60 and o.refusals <= 10,
    ),
    "c: limit_req 5r/s, 100 jobs": (
        lambda: of_nginx("req", 100, status="limit_req_status 429;"),
        lambda o: o.done == 100 and o.seconds <= 30,
    ),
    "d: banned until quiet for 5 s after 15 in 5 s, 100 jobs": (
        lambda: own(Ban(15, 5), 100),
        lambda o: o.done == 100,
    ),
    "e: 20 per 5 s, X-RateLimit-Reset in seconds, 200 jobs": (
        lambda: own(Window(20, 5, tell=limited.as_reset)),
        lambda o: o.done == 200,
    ),
    "e: 20 per 5 s, X-RateLimit-Reset as Unix time, 200 jobs": (
        lambda: own(Window(20, 5, tell=limited.as_epoch)),
        lambda o: o.done == 200,
    ),
    "f: black hole with 10,000 jobs beside 1,000 good ones": (
        lambda: black_hole(10_000, 1_000),
        lambda o: o.failed == 10_000 and o.worked <= 120 and o.refusals <= 5,
    ),
    "RateLimit of the draft, 20 per 5 s, 200 jobs": (
        lambda: own(Window(20, 5, tell=limited.as_draft)),
        lambda o: o.done == 200,
    ),
    "60 per 10 s, 300 jobs": (lambda: own(Window(60, 10), 300), lambda o: o.done == 300),
    "20 per 5 s, nothing told, 200 jobs": (
        lambda: own(Window(20, 5, tell=limited.untold)),
        lambda o: o.done == 200,
    ),
    "20 per 5 s, Retry-After a date, 200 jobs": (
        lambda: own(Window(20, 5, tell=limited.as_date)),
        lambda o: o.done == 200,
    ),
    "20 per 5 s, Retry-After: 0, 200 jobs": (
        lambda: own(Window(20, 5, tell=limited.as_zero)),
        lambda o: o.done == 200,
    ),
    "20 per 5 s, 503, 200 jobs": (
        lambda: own(Window(20, 5, "503 Service Unavailable")),
        lambda o: o.done == 200,
    ),
    "limit_conn 1, 60 jobs of 0.3 s": (
        lambda: of_nginx("conn", 60, connections=1),
        lambda o: o.done == 60,
    ),
    "limit_conn 4, 60 jobs of 0.3 s": (
        lambda: of_nginx("conn", 60, connections=4),
        lambda o: o.done == 60,
    ),
    "limit_req 2r/s, 503, 100 jobs": (
        lambda: of_nginx("req", 100, rate="2r/s"),
        lambda o: o.done == 100,
    ),
    "limit_req 20r/s, 503, 100 jobs": (
        lambda: of_nginx("req", 100, rate="20r/s"),
        lambda o: o.done == 100,
    ),
    "connections refused for 5 s after 15, 100 jobs": (
        lambda: hanging_up(100),
        lambda o: o.done == 100,
    ),
    "back after 3 rests, 300 jobs": (lambda: own(limited.Outage(4), 300), lambda o: o.done == 300),
    "429 for ever, 300 jobs": (
        lambda: own(limited.Outage(10**6), 300, 1300),
        lambda o: o.failed == 300 and o.requests <= 200,
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", nargs="*", help="beginnings of the names of scenarios")
    wanted = parser.parse_args().scenarios
    met = []
    for name, (scenario, needed) in SCENARIOS.items():
        if not wanted or name.startswith(tuple(wanted)):
            outcome = scenario()
            met.append(needed(outcome))
            print(f"{name}: {outcome}: {'met' if met[-1] else 'NOT MET'}", flush=True)
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
