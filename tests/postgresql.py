"""A real PostgreSQL server on loopback."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg

#: durable as in production: only what tests don't need is smaller
SETTINGS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200"}


def binaries() -> Path:
    """Return the folder of the server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4]))
    initdb = found[-1] if found else shutil.which("initdb")
    assert initdb, "PostgreSQL is missing. On Debian or Ubuntu: sudo apt-get install postgresql"
    return Path(initdb).parent


class PostgreSQLServer:
    """A server with a folder of its own, run by an unprivileged user as PostgreSQL demands."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="md5light-postgresql-"))
        self._data = self._folder / "data"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        self._user = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid} if os.geteuid() == 0 else {}
        if self._user:
            shutil.chown(self._folder, "nobody")
        self._run("initdb", "-D", self._data, "-U", "md5light", "-A", "trust", "--no-locale", "-E", "UTF8")
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{key} = '{value}'\n" for key, value in {**SETTINGS, "port": self.port}.items())
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
        return f"postgresql://md5light@127.0.0.1:{self.port}/{database}"

    @contextlib.contextmanager
    def database(self, name: str) -> Iterator[str]:
        """Make a database for the block; yields its location."""
        with psycopg.connect(self.location(), autocommit=True) as connection:
            connection.execute(f'create database "{name}"')
            yield self.location(name)
            connection.execute(f'drop database "{name}" with (force)')

    def _run(self, program: str, *arguments: object) -> None:
        command = [binaries() / program, *map(str, arguments)]
        output = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd="/", **self._user)  # type: ignore[call-overload]
        output.check_returncode()
