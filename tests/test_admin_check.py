"""`md5light config check`: what it refuses, what it warns of, and that it changes nothing."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from md5light import config
from md5light.admin.check import warnings as warnings_of
from md5light.queue import open_database
from tests.child import ROOT
from tests.command import configure, free_port, in_json, refused, run, said
from tests.postbox import Postbox, ScriptedPostbox
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

SENDER = "md5light@example.org"


def check(tmp_path: Path) -> CompletedProcess[str]:
    return run("md5light", "--config", "config.ini", "config", "check", cwd=tmp_path)


def warning(done: CompletedProcess[str]) -> str:
    """Return the one warning of a configuration that is right."""
    assert (done.returncode, done.stdout) == (0, "config.ini: ok\n")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("md5light: warning: ").rstrip("\n")


def test_check_leaves_everything_as_it_is(tmp_path: Path) -> None:
    configure(tmp_path)
    assert said(check(tmp_path)) == "config.ini: ok\n"
    assert [path.name for path in tmp_path.iterdir()] == ["config.ini"]


def test_check_takes_a_database_in_use(tmp_path: Path) -> None:
    configure(tmp_path, database="md5light.sqlite3")
    with closing(open_database(str(tmp_path / "md5light.sqlite3"), durable=False)):
        assert said(check(tmp_path)) == "config.ini: ok\n"


@pytest.mark.parametrize(
    ("database", "problem"),
    [
        ("none/jobs.sqlite3", "its folder can't be written: No such file or directory"),
        ("/proc/jobs.sqlite3", "its folder can't be written: "),  # by nobody, not even by root
        ("config.ini/jobs.sqlite3", "its folder can't be written: Not a directory"),
        (".", "can't be written: Is a directory"),
        ("config.ini", "is not an SQLite database"),
    ],
)
def test_check_finds_a_database_that_could_not_be_used(
    database: str, problem: str, tmp_path: Path
) -> None:
    configure(tmp_path, database=database)
    told = refused(check(tmp_path), code=78)
    assert told.startswith(f"config.ini: [queue] database = {tmp_path / database}: {problem}")


def test_check_never_shows_the_password_of_a_database(tmp_path: Path) -> None:
    configure(tmp_path, database="postgresql://md5:hunter2@127.0.0.1:1/md5")
    assert "hunter2" not in refused(check(tmp_path), code=78)


@pytest.mark.parametrize("key", ["password", "password_file"])
def test_check_warns_of_a_password_that_others_can_read(key: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("hunter2\n")
    smtp: dict[str, Any] = {key: "hunter2" if key == "password" else "secret"}
    configure(tmp_path, **smtp)
    holder = tmp_path / "config.ini" if key == "password" else secret
    other = secret if key == "password" else tmp_path / "config.ini"
    other.chmod(0o644)
    assert said(check(tmp_path)) == "config.ini: ok\n"
    holder.chmod(0o640)  # a group may be meant to
    assert said(check(tmp_path)) == "config.ini: ok\n"
    holder.chmod(0o604)
    told = warning(check(tmp_path))
    assert told.startswith(f"{holder if key == 'password_file' else holder.name}: holds a password")
    assert stat.S_IMODE(holder.stat().st_mode) == 0o604


def test_check_warns_of_a_stop_longer_than_a_lease(tmp_path: Path) -> None:
    configure(tmp_path, shutdown_seconds=60)
    assert said(check(tmp_path)) == "config.ini: ok\n"
    configure(tmp_path, shutdown_seconds=90)
    assert warning(check(tmp_path)).startswith(
        "[worker] shutdown_seconds = 90 is more than [queue] lease_seconds = 60"
    )


def test_check_warns_of_a_mail_server_out_of_reach(tmp_path: Path) -> None:
    port = free_port()
    configure(tmp_path, host="127.0.0.1", port=port, sender=SENDER)
    told = warning(check(tmp_path))
    assert (
        told == f"[smtp] host = 127.0.0.1, port = {port}: can't be reached now: Connection refused"
    )


def test_check_waits_for_a_mail_server_only_so_long(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [
            socket.socket() for _ in range(8)
        ]  # who fill what the listener lets wait; others are not answered
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        configure(
            tmp_path, host="127.0.0.1", port=full.getsockname()[1], timeout=0.5, sender=SENDER
        )
        assert "can't be reached now: " in warning(check(tmp_path))
        for client in waiting:
            client.close()


def test_check_says_nothing_to_a_mail_server(tmp_path: Path) -> None:
    with ScriptedPostbox() as postbox:
        configure(tmp_path, host="127.0.0.1", port=postbox.port, sender=SENDER)
        assert said(check(tmp_path)) == "config.ini: ok\n"
        wait_until(lambda: postbox.connections)
        assert set(postbox.heard) <= {"CONNECT"}


def warnings(tmp_path: Path, text: str, **environ: str) -> list[str]:
    """Return the warnings of a configuration."""
    file = tmp_path / "config.ini"
    file.write_text(text)
    file.chmod(0o600)
    return list(warnings_of(config.load(str(file), environ)))


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("host = 0.0.0.0", "host = 0.0.0.0"),
        ("host = ::", "host = ::"),
        ("host = md5.example.org", "host = md5.example.org"),
        ("host = unix:/run/md5light.sock", "host = unix:/run/md5light.sock"),
        ("trusted_proxy = 127.0.0.1", "trusted_proxy is set"),
    ],
)
def test_check_warns_of_an_empty_base_url(server: str, reason: str, tmp_path: Path) -> None:
    (told,) = warnings(tmp_path, f"[server]\npublic = no\n{server}\n")
    assert told.startswith(f"[server] base_url is empty, but {reason}: links in mails go to http:")
    answered = f"[server]\npublic = no\n{server}\nbase_url = https://md5.example.org\n"
    assert warnings(tmp_path, answered) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_check_takes_an_empty_base_url_on_loopback(host: str, tmp_path: Path) -> None:
    assert warnings(tmp_path, f"[server]\nhost = {host}\n") == []


@pytest.mark.parametrize(
    "sender", ["md5@localhost", "md5@box", "md5@box.local", "Sums <md5@a.localhost>", "md5@a.test"]
)
def test_check_warns_of_a_local_sender_where_there_is_a_mail_server(
    sender: str, tmp_path: Path
) -> None:
    with Postbox() as postbox:
        smtp = f"[smtp]\nhost = 127.0.0.1\nport = {postbox.port}\nsecurity = none\n"
        (told,) = warnings(tmp_path, f"{smtp}sender = {sender}\n")
        assert told.startswith(f"[smtp] sender = {sender} is an address of this machine alone")
        assert warnings(tmp_path, f"{smtp}sender = Sums <md5@example.org>\n") == []
    assert warnings(tmp_path, f"[smtp]\nsender = {sender}\n") == []


@pytest.mark.parametrize(
    ("port", "security", "usual"),
    [
        (465, "starttls", "tls"),
        (465, "none", "tls"),
        (465, "tls", None),
        (587, "tls", "starttls"),
        (587, "starttls", None),
        (25, "tls", "starttls"),
        (25, "none", None),
        (2525, "tls", None),
    ],
)
def test_check_warns_of_a_port_that_wants_another_security(
    port: int, security: str, usual: str | None, tmp_path: Path
) -> None:
    smtp = f"host = mail..example\nport = {port}\nsecurity = {security}\nsender = {SENDER}\n"
    told = warnings(tmp_path, f"[smtp]\n{smtp}")
    expected = [f"[smtp] port = {port} usually wants security = {usual}"] if usual else []
    assert [line for line in told if "can't be reached" not in line] == expected


def test_check_refuses_a_user_name_without_a_password(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\nhunter2\n")
    for more, problem in {
        "": "there is no password; set password or password_file, or",
        "password_file = empty": f"there is no password in the first line of {tmp_path}/empty",
    }.items():
        (tmp_path / "config.ini").write_text(f"[smtp]\nusername = md5\n{more}\n")
        told = refused(check(tmp_path), code=78)
        assert told.startswith(f"config.ini: [smtp] username = md5: {problem}")
    (tmp_path / "smtp-password").write_text("hunter2\n")
    (tmp_path / "smtp-password").chmod(0o600)
    text = "[smtp]\nusername = md5\n"
    assert warnings(tmp_path, text, CREDENTIALS_DIRECTORY=str(tmp_path)) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("hunter2 ", "[smtp] password begins or ends with a blank"),
        ("\thunter2", "[smtp] password begins or ends with a blank"),
        ('"hunter2"', "[smtp] password is in quotes"),
        ("'hunter2'", "[smtp] password is in quotes"),
        ("", "[smtp] password_file = "),
    ],
)
def test_check_warns_of_a_password_that_is_perhaps_not_meant(
    content: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(f"{content}\n")
    (tmp_path / "secret").chmod(0o600)
    (told,) = warnings(tmp_path, "[smtp]\npassword_file = secret\n")
    assert told.startswith(problem)
    assert "hunter2" not in told
    (tmp_path / "secret").write_text('pä"ss w"ö\n')
    assert warnings(tmp_path, "[smtp]\npassword_file = secret\n") == []


def test_check_warns_of_a_login_without_tls(tmp_path: Path) -> None:
    smtp = f"port = 25\nsecurity = none\nsender = {SENDER}\nusername = md5\npassword = x\n"
    told = warnings(tmp_path, f"[smtp]\nhost = mail..example\n{smtp}")
    assert any("the password is not sent without TLS" in line for line in told)


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        (
            "ulimit -n 100",
            "[worker] threads = 60 may need 1024 file descriptors in each process, "
            "but the limit here is 100; see ulimit -Hn or LimitNOFILE=",
        ),
        ("ulimit -f 1", "{folder}: the database has no room to grow: File too large"),
    ],
)
def test_check_warns_of_what_there_is_too_little_of(
    limit: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "config.ini").write_text("[worker]\nthreads = 60\n")
    program = [sys.executable, "-m", "md5light", "config", "check", "--config", "config.ini"]
    done = subprocess.run(
        ["bash", "-c", f'{limit}; exec "$@"', "bash", *program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert warning(done) == problem.format(folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.ini"]


def test_check_warns_of_a_folder_that_takes_no_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: socket.socket, address: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    (told,) = warnings(tmp_path, "")
    assert told.startswith(f"{tmp_path}: takes no Unix sockets (Operation not supported)")
    assert [path.name for path in tmp_path.iterdir()] == ["config.ini"]


def test_check_warns_of_a_database_url_with_a_password_that_others_can_read(
    tmp_path: Path,
) -> None:
    file = tmp_path / "config.ini"

    def told(url: str) -> list[str]:
        file.write_text(f"[queue]\ndatabase = {url}\n")
        file.chmod(0o644)
        return list(warnings_of(config.load(str(file), {})))

    (problem,) = told("postgresql://u:hunter2@h/d")
    assert problem.startswith(f"{file}: holds a password and can be read by everybody")
    assert told("postgresql://u@h/d") == []


def test_check_and_show_as_json(tmp_path: Path) -> None:
    (tmp_path / "config.ini").write_text("[server]\nhost = 0.0.0.0\npublic = no\n")
    command = ["--config", "config.ini", "--json"]
    done = run("md5light", "config", "check", *command, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (done.returncode, told["configuration"], len(told["warnings"])) == (0, "config.ini", 1)
    shown = in_json(
        run("md5light", "config", "show", *command, cwd=tmp_path, MD5LIGHT_SERVER_PORT="81")
    )
    by_key = {(value["section"], value["key"]): value for value in shown}
    assert by_key["server", "host"]["source"] == "config.ini"
    assert (by_key["server", "port"]["value"], by_key["server", "port"]["source"]) == (
        "81",
        "MD5LIGHT_SERVER_PORT",
    )
    assert by_key["server", "threads"]["source"] == ""
