"""Under systemd: its checks of the units, notifications, sockets, the installation, the sandbox."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from md5light import config, pool, server
from md5light.notify import QUIET_SECONDS, Watchdog
from md5light.web.http import threads
from tests.environments import Prepared
from tests.origin import Origin
from tests.service import Command, Service
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
UNITS = ROOT / "scripts/systemd"
SERVICES = ["md5light-server.service", "md5light-worker.service"]

#: seconds of a watchdog that is quick enough for a test, and slow enough for a busy machine
WATCHDOG_SECONDS = 0.4

#: uid and gid of nobody
NOBODY = 65534


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    arguments = [str(argument) for argument in command]
    assert shutil.which(arguments[0]), f"{arguments[0]} is missing: sudo apt-get install systemd"
    return subprocess.run(
        arguments,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def service_section(name: str) -> dict[str, str]:
    """Return what a unit has in [Service]; of a key given twice the last."""
    parser = configparser.RawConfigParser(strict=False, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name)
    return dict(parser["Service"])


# --- the units ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_is_exposed_to_little(name: str) -> None:
    done = run("systemd-analyze", "security", "--offline=true", "--threshold=15", UNITS / name)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_the_units_are_valid(tmp_path: Path) -> None:
    for unit in UNITS.glob("md5light-*"):  # as they will be once the commands are where they say
        (tmp_path / unit.name).write_text(
            unit.read_text().replace("/opt/md5light/bin", str(tmp_path))
        )
    for name in ("md5light-server", "md5light-worker"):
        (tmp_path / name).touch(0o755)
    done = run("systemd-analyze", "verify", *tmp_path.glob("*.*"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_both_services_have_the_same_sandbox() -> None:
    own = {
        "Environment",
        "ExecStart",
        "TimeoutStopSec",
        "LoadCredential",
        "SetCredential",
        "OOMPolicy",
        "MemoryMax",
        "SystemCallFilter",
    }
    one, other = (
        {key: value for key, value in service_section(name).items() if key not in own}
        for name in SERVICES
    )
    assert one == other
    server, worker = (
        re.findall("^SystemCallFilter=(.*)", (UNITS / name).read_text(), re.MULTILINE)
        for name in SERVICES
    )
    assert server == [*worker, "sched_setaffinity"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_ends_is_started_again_unless_its_configuration_is_wrong(name: str) -> None:
    section = service_section(name)
    assert section["Restart"] == "always"
    assert section["RestartPreventExitStatus"].split() == ["2", "78"]
    assert {"130", "143"} <= set(section["SuccessExitStatus"].split())
    assert "ExecReload" not in section
    assert section["MemoryMax"]


def test_systemd_waits_as_long_as_a_stop_may_take() -> None:
    seconds = {name: float(service_section(name)["TimeoutStopSec"]) for name in SERVICES}
    assert seconds["md5light-server.service"] >= server.STOP_SECONDS + threads.DISPATCHER_SECONDS
    by_default = config.Config().worker.shutdown_seconds
    assert (
        seconds["md5light-worker.service"]
        >= by_default + pool.PATIENCE_SECONDS + pool.KILLING_SECONDS
    )


def test_the_password_is_a_credential_that_may_be_missing(tmp_path: Path) -> None:
    unit = service_section("md5light-worker.service")
    name, source = unit["LoadCredential"].split(":")
    assert Path(source).parent == config.DEFAULT_FILE.parent
    default = unit["SetCredential"].removeprefix(f"{name}:").replace("\\n", "\n")
    (tmp_path / name).write_text(default)  # what systemd hands over when there is no such file
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert config.load(environ=environment, default_file=tmp_path / "none").smtp.password == ""
    (tmp_path / name).write_text("secret\n")
    assert (
        config.load(environ=environment, default_file=tmp_path / "none").smtp.password == "secret"
    )


# --- notifications --------------------------------------------------------------------------------


class ServiceManager:
    """The end of sd_notify(3) where systemd listens."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0"))
        self.messages: list[str] = []

    def listen(self, seconds: float = 0) -> bool:
        """Take the next message that comes within `seconds`; False when none does."""
        self.socket.settimeout(seconds)
        try:
            self.messages.append(self.socket.recv(4096).decode())
        except (BlockingIOError, TimeoutError):
            return False
        return True

    def wait_for(self, assignment: str) -> str:
        """Return the next message that holds `assignment`, forgetting what came before it."""
        self.messages.clear()
        wait_until(
            lambda: self.listen() and assignment in self.messages[-1].split("\n"),
            message=f"{assignment} to systemd",
        )
        return self.messages[-1]

    def wait_for_silence(self) -> None:
        """Return once no message has come for longer than the watchdog waits."""
        wait_until(lambda: not self.listen(2 * WATCHDOG_SECONDS))


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServiceManager]:
    address = (
        str(tmp_path / "notify") if request.param == "path" else f"@md5light-test-{os.getpid()}"
    )
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", f"{WATCHDOG_SECONDS * 1e6:.0f}")
    manager = ServiceManager(address)
    yield manager
    manager.socket.close()


@pytest.mark.parametrize("function", ["server", "worker"])
def test_systemd_is_told_of_start_life_and_stop(
    manager: ServiceManager, tmp_path: Path, function: str
) -> None:
    with Service(tmp_path) as service:
        command = service.start(function)
        assert "STATUS=" in manager.wait_for("READY=1")
        manager.wait_for("WATCHDOG=1")
        manager.wait_for("WATCHDOG=1")

        command.process.send_signal(signal.SIGSTOP)  # what hangs does not say that it lives
        manager.wait_for_silence()
        command.process.send_signal(signal.SIGCONT)
        manager.wait_for("WATCHDOG=1")

        command.process.send_signal(signal.SIGTERM)
        manager.wait_for("STOPPING=1")
        assert command.process.wait(20) == 0


def test_a_pool_that_takes_longer_to_stop_asks_for_the_time(
    manager: ServiceManager, tmp_path: Path
) -> None:
    with Service(tmp_path, worker={"shutdown_seconds": 600}) as service:
        command = service.start("worker")
        manager.wait_for("READY=1")
        command.process.send_signal(signal.SIGTERM)
        manager.wait_for("STOPPING=1")
        wait_until(lambda: manager.listen() and "EXTEND_TIMEOUT_USEC=" in manager.messages[-1])
        extended = float(manager.messages[-1].partition("=")[2]) / 1e6
        assert extended == 600 + pool.PATIENCE_SECONDS + pool.KILLING_SECONDS
        assert command.process.wait(20) == 0


def test_a_pool_is_ready_when_its_workers_work(manager: ServiceManager, tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        command = service.start("worker", "--processes", "3")
        assert "3 processes" in manager.wait_for("READY=1")
        assert len(command.children()) == 3


def test_no_watchdog_is_served_that_watches_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    assert 0 < Watchdog().beat() <= 0.5
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert Watchdog().beat() == QUIET_SECONDS


# --- sockets that systemd listens on --------------------------------------------------------------


class Started(Command):
    """Any command line, with the log and the signals of a Command."""

    def __init__(self, log: Path, *command: str, pass_fds: tuple[int, ...] = ()) -> None:
        self.log = log
        with log.open("w") as stderr:
            self.process = subprocess.Popen(command, stderr=stderr, cwd="/", pass_fds=pass_fds)


def start_with_socket(service: Service, passed: socket.socket) -> Started:
    """Start the server as systemd does that has listened in its place (sd_listen_fds(3))."""
    activate = f'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&{passed.fileno()}'
    python = [
        sys.executable,
        "-c",
        "from md5light.cli import server; server()",
        "--config",
        str(service.config),
    ]
    command = ["env", f"PYTHONPATH={ROOT}", "bash", "-c", activate, "bash", *python]
    started = Started(service.folder / "activated.log", *command, pass_fds=(passed.fileno(),))
    service.commands.append(started)
    return started


def test_a_passed_socket_is_served_and_its_clients_have_waited(tmp_path: Path) -> None:
    with Service(tmp_path) as service, socket.create_server(("127.0.0.1", 0)) as passed:
        client = socket.create_connection(passed.getsockname())
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        command = start_with_socket(service, passed)
        client.settimeout(20)
        assert client.recv(4096).startswith(b"HTTP/1.0 200 ")
        client.close()
        url = command.wait_for_line(r"listening url=(\S+)")[1]
        assert url == f"http://127.0.0.1:{passed.getsockname()[1]}"
        assert command.stop() == 0


def test_a_passed_unix_socket_is_served(tmp_path: Path) -> None:
    path = tmp_path / "http"
    with Service(tmp_path) as service, socket.socket(socket.AF_UNIX) as passed:
        passed.bind(str(path))
        passed.listen()
        command = start_with_socket(service, passed)
        assert command.wait_for_line(r"listening url=(\S+)")[1] == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.0 200 ")
        assert command.stop() == 0


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_a_passed_socket_of_another_kind_is_refused(
    tmp_path: Path, family: socket.AddressFamily
) -> None:
    with Service(tmp_path) as service, socket.socket(family, socket.SOCK_DGRAM) as passed:
        command = start_with_socket(service, passed)
        assert command.process.wait(20) == 1
        assert command.lines.endswith(
            "can't listen on the socket that was passed: it is no stream socket\n"
        )


# --- installation and sandbox ---------------------------------------------------------------------


def install(prepared: Prepared, *arguments: object) -> None:
    done = run(ROOT / "scripts/install", *arguments, **prepared.variables)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    destdir = tmp_path_factory.mktemp("installed")
    install(prepared, "--destdir", destdir)
    return destdir


def files(folder: Path) -> dict[str, float]:
    """Return the files below `folder`, each with the time of its last change."""
    return {
        str(path.relative_to(folder)): path.lstat().st_mtime
        for path in folder.rglob("*")
        if not path.is_dir()
    }


def test_what_is_installed_works(installed: Path, prepared: Prepared) -> None:
    ini = installed / "etc/md5light/config.ini"
    assert ini.stat().st_mode & 0o777 == 0o640
    settings = config.load(str(ini))
    assert settings.queue.database == "/var/lib/md5light/md5light.sqlite3"
    assert settings.smtp.maildir == "/var/lib/md5light/mail"
    for command in ("md5light", "md5light-server", "md5light-worker"):
        program = installed / "opt/md5light/bin" / command
        assert program.read_text().startswith("#!/opt/md5light/bin/python")
        done = run(
            installed / "opt/md5light/bin/python",
            program,
            "--version",
            PYTHONPATH=str(prepared.packages),
        )
        assert done.stdout.startswith(f"{command} "), done.stderr
    assert os.readlink(installed / "usr/local/bin/md5light") == "/opt/md5light/bin/md5light"


def test_the_user_and_its_maildir_can_be_made(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(installed / "etc", tmp_path / "etc")
    made = run("systemd-sysusers", f"--root={tmp_path}", "md5light.conf")
    assert made.returncode == 0, made.stderr
    name, _, uid, *_, home, shell = (tmp_path / "etc/passwd").read_text().strip().split(":")
    assert (name, home, Path(shell).name) == ("md5light", "/var/lib/md5light", "nologin")
    made = run("systemd-tmpfiles", f"--root={tmp_path}", "--create", "md5light.conf")
    assert made.returncode == 0, made.stderr
    maildir = (tmp_path / "var/lib/md5light/mail").stat()
    assert maildir.st_mode & 0o777 == 0o700
    if os.getuid() == 0:
        assert str(maildir.st_uid) == uid


def test_installing_again_and_uninstalling_keep_what_is_the_users(
    installed: Path, prepared: Prepared, tmp_path: Path
) -> None:
    destdir = tmp_path / "copy"
    shutil.copytree(installed, destdir, symlinks=True)
    ini = destdir / "etc/md5light/config.ini"
    ini.write_text("[server]\nport = 8081\n")
    jobs = destdir / "var/lib/md5light/md5light.sqlite3"
    jobs.parent.mkdir(parents=True)
    jobs.touch()
    before = set(files(destdir))
    install(prepared, "--destdir", destdir)
    assert set(files(destdir)) == before
    for _ in range(2):
        install(prepared, "--uninstall", f"--destdir={destdir}")
        assert set(files(destdir)) == {str(kept.relative_to(destdir)) for kept in (ini, jobs)}
    assert ini.read_text() == "[server]\nport = 8081\n"


def test_wrong_usage_installs_nothing() -> None:
    done = run(ROOT / "scripts/install", "--destdri=/nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("scripts/install: unknown argument: --destdri=/nowhere\n")


def sandboxed(state: Path, *command: object) -> list[str]:
    """Write a command line with those effects of the units' sandbox that need no systemd.

    Root's processes see a tree in which only `state` can be written, and a /proc of processes
    alone. They are nobody, with no capability but to read: the interpreter may lie in root's home.
    Other users are unprivileged already.
    """
    arguments = [str(argument) for argument in command]
    if os.getuid() != 0:
        return arguments
    os.chown(state, NOBODY, NOBODY)
    script = """
        mount --bind "$1" "$1"
        mount -o remount,bind,ro /
        mount -t proc -o subset=pid proc /proc
        shift
        exec "$@"
    """
    reading = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    nobody = [
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        "--no-new-privs",
        *reading,
    ]
    return ["unshare", "--mount", "sh", "-ec", script, "sh", str(state), *nobody, *arguments]


def test_an_unprivileged_user_writes_nothing_but_the_state(
    installed: Path, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, bin_ = tmp_path / "state", installed / "opt/md5light/bin"
    state.mkdir(0o700)
    before = files(installed)
    monkeypatch.setenv("PYTHONPATH", str(prepared.packages))
    monkeypatch.setenv("HOME", "/nonexistent")
    settings = {
        "queue": {"database": state / "md5light.sqlite3"},
        "smtp": {"maildir": state / "mail"},
    }
    with Origin() as origin, Service(tmp_path, **settings) as service:
        for name, line in (("server", r"listening url=(\S+)"), ("worker", "(pool_started)")):
            command = sandboxed(
                state, bin_ / "python", bin_ / f"md5light-{name}", "--config", service.config
            )
            service.commands.append(Started(tmp_path / f"{name}.log", *command))
            service.url = service.url or service.commands[-1].wait_for_line(line)[1]
        assert Path(f"/proc/{service.commands[0].process.pid}").stat().st_uid != 0
        job_id = service.submit(origin.serve("/file", b"body"), email="ann@localhost")
        assert service.result(job_id)["status"] == "done"
        wait_until(lambda: list(state.glob("mail/new/*")))
        assert requests.get(f"{service.url}/readyz", timeout=10).status_code == 200
        assert [command.stop() for command in reversed(service.commands)] == [0, 0]
    assert files(installed) == before
    if os.getuid() == 0:
        refused = run(*sandboxed(state, "touch", installed / "new", ROOT / "new"))
        assert refused.stderr.count("Read-only file system") == 2
        assert not run(*sandboxed(state, "ls", "/proc")).stdout.count("meminfo")
