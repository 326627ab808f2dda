"""Backup and upgrade, by the very commands that the documents show."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.origin import Origin
from tests.service import Service, running
from tests.test_docs import document, section
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


def test_a_copy_made_under_load_is_whole_and_serves(tmp_path: Path) -> None:
    shown = re.search(r"```sh\n(.*?)```", section(document("operating"), "Backup"), re.DOTALL)
    assert shown is not None
    running_folder, restored = tmp_path / "running", tmp_path / "restored"
    running_folder.mkdir()
    restored.mkdir()
    with Origin() as origin, running(running_folder) as service:
        url = origin.serve("/file", b"body")
        first = service.submit(url)
        done = service.result(first)
        queued = [service.submit(url) for _ in range(100)]
        wait_until(lambda: service.check(queued[0]).status_code == 200)
        command = shown[1].replace("/var/lib/md5light/md5light.sqlite3", str(service.database))
        command = command.replace("/var/backups", str(restored))
        subprocess.run(["bash", "-ceu", command], check=True, timeout=30)
        later = service.submit(url)
    (copy,) = restored.iterdir()
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    copy.rename(restored / "md5light.sqlite3")
    with Origin() as origin, Service(restored) as service:
        service.start_server()
        assert service.result(first) == done
        assert service.check(queued[-1]).status_code in (200, 202)
        assert service.check(later).status_code == 404


def test_an_older_program_says_in_one_line_that_it_is_older(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        service.start_server().stop()
        with closing(sqlite3.connect(service.database)) as connection, connection:
            connection.execute("update schema_version set version = 99")
        for function in ("server", "worker"):
            command = service.start(function)
            assert command.process.wait(20) == 1
            (line,) = command.lines.splitlines()
            assert re.fullmatch(
                r"md5light-\w+: database .*: schema 99 of a newer md5light \(.*\)", line
            )
