"""A real PostgreSQL server on loopback, and a pooler in front of it."""

from __future__ import annotations

import contextlib
import os
import pickle
import pwd
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from tests.child import ROOT
from tests.network import Host
from tests.upgrade import VERSION
from tests.waiting import wait_until

SETTINGS = {"unix_socket_directories": "", "max_connections": "500"}

WAITING = """
    select 1 from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock'
"""

TABLES = """
    select tablename from pg_tables
    where schemaname = 'public' and tablename <> 'schema_version'
"""

END_OTHERS = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()
"""

#: a server for other processes; setsid(1) lets it outlive the one that starts it
SERVING = [
    *("setsid", "--fork", sys.executable, "-c"),
    "import sys; from tests.postgresql import serve; serve(int(sys.argv[1]))",
]

#: neither server runs as root
UNPRIVILEGED: dict[str, Any] = (
    {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid} if os.geteuid() == 0 else {}
)

#: a pooler that gives each transaction another session, of very few
PGBOUNCER = """
[databases]
* = host=127.0.0.1 port={target}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 2
"""


def binaries() -> Path:
    """Return the folder of the server's programs."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4])
    )
    initdb = found[-1] if found else shutil.which("initdb")
    assert initdb, "PostgreSQL is missing. On Debian or Ubuntu: sudo apt-get install postgresql"
    return Path(initdb).parent


class PostgreSQLServer:
    """A server with its own folder, run by an unprivileged user as PostgreSQL demands.

    It does not wait for the disk unless told to: no test cuts the power.
    """

    def __init__(self, host: Host | None = None, *, fsync: bool = False) -> None:
        self._host = host
        self._address = host.address if host else "127.0.0.1"
        self._folder = Path(tempfile.mkdtemp(prefix="md5light-postgresql-"))
        self._data = self._folder / "data"
        self.port = _free_port()
        if UNPRIVILEGED:
            shutil.chown(self._folder, "nobody")
        self._run(
            "initdb", "-D", self._data, "-U", "md5light", "-A", "trust", "--no-locale", "-E", "UTF8"
        )
        settings = {
            **SETTINGS,
            "port": self.port,
            "listen_addresses": self._address,
            "fsync": "on" if fsync else "off",
        }
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{key} = '{value}'\n" for key, value in settings.items())
        with (self._data / "pg_hba.conf").open("a") as file:
            file.write("host all all samenet trust\n")
        self.start()

    def start(self) -> None:
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", self._folder / "log")

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", self._data)

    def close(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop("immediate")
        shutil.rmtree(self._folder)

    def location(self, database: str = "postgres") -> str:
        return f"postgresql://md5light@{self._address}:{self.port}/{database}"

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Make a database for the block; yields its location."""
        name = f"test{uuid.uuid4().hex}"
        self._execute(f"create database {name}")
        yield self.location(name)
        self._execute(f"drop database {name} with (force)")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.location(), autocommit=True) as connection:
            connection.execute(statement)

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(binaries() / program), *map(str, arguments)]
        options = UNPRIVILEGED
        if self._host:  # root enters it, nobody goes on
            user = [
                "setpriv",
                "--reuid=nobody",
                f"--regid={UNPRIVILEGED['group']}",
                "--clear-groups",
            ]
            command, options = [*self._host.enter, *user, *command], {}
        output = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd="/", **options
        )
        output.check_returncode()


class Emptied:
    """A database for one test after the other: emptying it is ten times as quick as a new one."""

    def __init__(self, location: str) -> None:
        self._location = location
        with psycopg.connect(location) as connection:
            tables = connection.execute(TABLES).fetchall()
        deletes = (f"delete from {name}" for (name,) in tables)
        version = f"update schema_version set version = {VERSION}"
        self._empty = "; ".join([END_OTHERS, *deletes, version])

    def lend(self) -> str:
        """End what an earlier test left over, delete all rows, and return the location."""
        with psycopg.connect(self._location) as connection:
            connection.execute(self._empty)
        return self._location


def start_server(pid: int) -> PostgreSQLServer:
    """Start a server that ends with process `pid`, in whatever way that ends."""
    started = subprocess.run(
        [*SERVING, str(pid)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    server: PostgreSQLServer = pickle.loads(started.stdout)
    return server


def serve(pid: int) -> None:
    """Run a server until process `pid` has ended; standard output says how to reach it."""
    with contextlib.closing(PostgreSQLServer()) as server:
        with open(1, "wb") as output:  # its end tells start_server() that the server is there
            pickle.dump(server, output)
        select.select([os.pidfd_open(pid)], [], [])


@contextlib.contextmanager
def pgbouncer(server: PostgreSQLServer) -> Iterator[int]:
    """Run PgBouncer in transaction mode in front of `server` for the block; yields its port."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "PgBouncer is missing. On Debian or Ubuntu: sudo apt-get install pgbouncer"
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="md5light-pgbouncer-") as folder:
        Path(folder).chmod(0o755)
        Path(folder, "users").write_text('"md5light" ""\n')
        Path(folder, "pgbouncer.ini").write_text(
            PGBOUNCER.format(target=server.port, port=port, folder=folder)
        )
        with Path(folder, "log").open("w") as log:
            process = subprocess.Popen(
                [program, f"{folder}/pgbouncer.ini"], stderr=log, **UNPRIVILEGED
            )
        try:
            wait_until(lambda: _listens(port), message="PgBouncer to listen")
            yield port
        finally:
            process.kill()
            process.wait()


def waits_for_a_lock(location: str) -> bool:
    """Tell whether a session of the database waits for a lock."""
    with psycopg.connect(location) as watching:
        return watching.execute(WAITING).fetchone() is not None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
