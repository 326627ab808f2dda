"""Many machines: servers, pools, the database and the origin on hosts of their own; a cut cable."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.child import ROOT
from tests.network import Host, Network
from tests.postgresql import PostgreSQLServer
from tests.service import Service
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

#: answers each path with the path itself, after a third of a second
ORIGIN = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.3)
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer((sys.argv[1], 8000), Handler).serve_forever()
"""

#: locks a row, sends a message whose end never comes, and is silent
HALF_SENT = """
import sys, time
from md5light.queue import open_database
def work(transaction):
    transaction.run("insert into probe (id, probed_at) values (1, 0)")
    connection = transaction._cursor.connection.pgconn
    connection.enter_pipeline_mode()
    connection.send_query_params(b"select 1", [])
    connection.send_flush_request()
    connection.flush()
    print("sent", flush=True)
    time.sleep(600)
open_database(sys.argv[1], durable=False).write(work)
"""

#: needs the same row
PROBING = """
import sys
from md5light.queue import open_database
from md5light.queue.jobs import Queue
database = open_database(sys.argv[1], durable=False)
Queue(database, lease_seconds=60, max_attempts=3, retry_seconds=1).probe()
"""

SETTINGS: dict[str, dict[str, object]] = {
    "download": {"allow_networks": "10.77.0.0/24", "connect_timeout": 2, "read_timeout": 2},
    "worker": {"processes": 1, "threads": 4, "shutdown_seconds": 1, "per_host": 0},
}

LEASE_SECONDS = 3


def python(host: Host, script: str, argument: str) -> subprocess.Popen[str]:
    """Start a script on a host; what it prints can be read."""
    command = [*host.enter, sys.executable, "-c", script, argument]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


@pytest.fixture
def network() -> Iterator[Network]:
    if os.geteuid() != 0 and not os.environ.get("CI"):
        pytest.skip("root alone can make network namespaces")
    with Network() as network:
        yield network


class Machines:
    """One database, one origin, two servers and three pools."""

    def __init__(self, network: Network, folder: Path, stack: ExitStack) -> None:
        database = stack.enter_context(closing(PostgreSQLServer(network.host())))
        queue = {"database": database.location(), "lease_seconds": LEASE_SECONDS}
        self._origin = network.host()
        origin = python(self._origin, ORIGIN, self._origin.address)
        stack.callback(origin.wait)
        stack.callback(origin.kill)
        self.hosts = [network.host() for _ in range(5)]
        self._services = []
        for host in self.hosts:
            (folder / host.address).mkdir()
            server = {"host": host.address, "port": 8080}
            service = stack.enter_context(
                Service(folder / host.address, queue=queue, server=server, **SETTINGS)
            )
            service.enter = host.enter
            self._services.append(service)
        for service in self._services[:2]:
            service.start_server()
        self.pools = [service.start_pool() for service in self._services[2:]]

    def ask(self, host: Host, path: str, *options: str) -> dict[str, str]:
        command = [
            *host.enter,
            "curl",
            "-s",
            "-m",
            "20",
            f"http://{host.address}:8080{path}",
            *options,
        ]
        answer: dict[str, str] = json.loads(subprocess.check_output(command))
        return answer

    def submit(self, count: int) -> dict[str, str]:
        """Submit to both servers in turns; returns the MD5s by the jobs' ids."""
        jobs = {}
        for number in range(count):
            path = f"/{count}/{number}"
            url = f"url=http://{self._origin.address}:8000{path}"
            jobs[self.ask(self.hosts[number % 2], "/submit", "-d", url)["id"]] = hashlib.md5(
                path.encode()
            ).hexdigest()
        return jobs

    def check(self, jobs: dict[str, str]) -> None:
        """Wait for the end of all jobs, and ask the server that has not taken them."""
        for number, (job_id, md5) in enumerate(jobs.items()):
            host = self.hosts[(number + 1) % 2]
            path = f"/check?id={job_id}"
            wait_until(lambda host=host, path=path: self.ask(host, path)["status"] != "running", 60)  # type: ignore[misc]
            assert self.ask(host, path)["md5"] == md5

    def ends(self) -> Counter[str]:
        """Count the ends of each job that any pool has told of."""
        return Counter(
            job for pool in self.pools for job in re.findall(r"event=done job=(\S+)", pool.lines)
        )


def test_every_job_ends_once_although_a_pool_is_cut_off(network: Network, tmp_path: Path) -> None:
    with ExitStack() as stack:
        machines = Machines(network, tmp_path, stack)
        cut_off, cable = machines.pools[0], machines.hosts[2]
        jobs = machines.submit(40)
        wait_until(lambda: "event=started" in cut_off.lines)
        cable.cut()
        jobs |= machines.submit(41)
        machines.check(jobs)
        cut_off.wait_for_line("event=database_unavailable")
        cable.mend()
        known = len(cut_off.lines)
        wait_until(lambda: machines.submit(20) and "event=done" in cut_off.lines[known:], 60)
        ends = machines.ends()
        assert set(jobs) <= set(ends)
        assert set(ends.values()) == {1}


def test_a_machine_that_vanishes_in_the_middle_of_a_message_locks_nothing_for_long(
    network: Network,
) -> None:
    with closing(PostgreSQLServer(network.host())) as database:
        vanishing, other = network.host(), network.host()
        with python(vanishing, HALF_SENT, database.location()) as half_sent:
            assert half_sent.stdout is not None
            assert half_sent.stdout.readline() == "sent\n"
            vanishing.cut()
            assert python(other, PROBING, database.location()).wait(30) != 0
            wait_until(lambda: python(other, PROBING, database.location()).wait(30) == 0, 60)
            half_sent.kill()
