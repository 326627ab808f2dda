"""Many machines: servers, pools, the database and the origin on hosts of their own; a cut cable."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from md5light.errors import DatabaseUnavailable
from md5light.queue import open_database
from md5light.queue.jobs import Queue
from tests.child import ROOT
from tests.network import Host, Network
from tests.postgresql import PostgreSQLServer, waits_for_a_lock
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

SETTINGS: dict[str, dict[str, object]] = {
    "download": {"allow_networks": "10.77.0.0/24", "connect_timeout": 2, "read_timeout": 2},
    "worker": {"processes": 1, "threads": 4, "shutdown_seconds": 1, "per_host": 0},
}

#: a lost network is noticed in two seconds in place of ten, at both ends
NOTICED_SOON = (
    "?connect_timeout=2&keepalives_idle=1&keepalives_interval=1&keepalives_count=2"
    "&tcp_user_timeout=1000"
)


def python(host: Host, script: str, argument: str) -> subprocess.Popen[str]:
    """Start a script on a host; what it prints can be read."""
    command = [*host.enter, sys.executable, "-c", script, argument]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if os.geteuid() != 0 and not os.environ.get("CI"):
        pytest.skip("root alone can make network namespaces")
    with Network() as network:
        yield network


@pytest.fixture(scope="module")
def database(network: Network) -> Iterator[PostgreSQLServer]:
    with closing(PostgreSQLServer(network.host())) as server:
        yield server


@pytest.fixture(scope="module")
def blocked(network: Network, database: PostgreSQLServer) -> Iterator[Future[bool]]:
    """A machine has locked a row and vanished in the middle of a message; another needs that row.

    The server takes some seconds to notice, which pass while another test works.
    """
    vanishing, other = network.host(), network.host()
    location = database.location() + NOTICED_SOON
    with (
        python(vanishing, HALF_SENT, location) as half_sent,
        ThreadPoolExecutor() as threads,
    ):
        assert half_sent.stdout is not None
        assert half_sent.stdout.readline() == "sent\n"
        vanishing.cut()
        needing = threads.submit(probe, other, location)
        with other.inside():
            wait_until(lambda: waits_for_a_lock(location))
        yield needing
        half_sent.kill()


def probe(host: Host, location: str) -> bool:
    """Write the row that was locked, on `host`, as soon as the database lets it."""

    def written(queue: Queue) -> bool:
        with suppress(DatabaseUnavailable):
            queue.probe()
            return True
        return False

    with host.inside(), closing(open_database(location, durable=False)) as database:
        queue = Queue(database, lease_seconds=60, max_attempts=3, retry_seconds=1)
        return wait_until(lambda: written(queue), 60)


class Machines:
    """One origin, two servers and three pools over a database."""

    def __init__(
        self, network: Network, database: PostgreSQLServer, folder: Path, stack: ExitStack
    ) -> None:
        self._origin = network.host()
        origin = stack.enter_context(python(self._origin, ORIGIN, self._origin.address))
        stack.callback(origin.kill)
        self.hosts = [network.host() for _ in range(5)]
        queue = {"database": database.location() + NOTICED_SOON, "lease_seconds": 2}
        self._services = [
            stack.enter_context(service_on(host, folder / host.address, queue))
            for host in self.hosts
        ]
        with ThreadPoolExecutor() as threads:
            servers = threads.map(Service.start_server, self._services[:2])
            self.pools = list(threads.map(Service.start_pool, self._services[2:]))
            list(servers)

    def submit(self, count: int) -> dict[str, str]:
        """Submit to both servers in turns; returns the MD5s by the jobs' ids."""
        jobs = {}
        for number in range(count):
            path = f"/{count}/{number}"
            url = f"http://{self._origin.address}:8000{path}"
            with self.hosts[number % 2].inside():
                job_id = self._services[number % 2].submit(url)
            jobs[job_id] = hashlib.md5(path.encode()).hexdigest()
        return jobs

    def check(self, jobs: dict[str, str]) -> None:
        """Wait for the end of all jobs, and ask the server that has not taken them."""
        for number, (job_id, md5) in enumerate(jobs.items(), 1):
            with self.hosts[number % 2].inside():
                assert self._services[number % 2].result(job_id, timeout=60)["md5"] == md5

    def ends(self) -> Counter[str]:
        """Count the ends of each job that any pool has told of."""
        return Counter(
            job for pool in self.pools for job in re.findall(r"event=done job=(\S+)", pool.lines)
        )


def service_on(host: Host, folder: Path, queue: dict[str, object]) -> Service:
    """Make a service whose commands run on a host."""
    folder.mkdir()
    service = Service(folder, queue=queue, server={"host": host.address, "port": 8080}, **SETTINGS)
    service.enter = host.enter
    return service


def test_every_job_ends_once_although_a_pool_is_cut_off(
    network: Network, database: PostgreSQLServer, blocked: Future[bool], tmp_path: Path
) -> None:
    with ExitStack() as stack:
        machines = Machines(network, database, tmp_path, stack)
        cut_off, cable = machines.pools[0], machines.hosts[2]
        jobs = machines.submit(40)
        wait_until(lambda: "event=started" in cut_off.lines)
        cable.cut()
        jobs |= machines.submit(41)
        machines.check(jobs)
        cut_off.wait_for_line("event=database_unavailable")
        cable.mend()
        known = len(cut_off.lines)

        def works_again() -> bool:
            machines.check(machines.submit(12))
            return "event=done" in cut_off.lines[known:]

        wait_until(works_again, 60)
        ends = machines.ends()
        assert set(jobs) <= set(ends)
        assert set(ends.values()) == {1}


def test_a_machine_that_vanishes_in_the_middle_of_a_message_locks_nothing_for_long(
    blocked: Future[bool],
) -> None:
    assert blocked.result(90)
