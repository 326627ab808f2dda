"""The three commands: their arguments, exit codes, messages of errors and signals."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from md5light import __version__, config
from tests.child import ROOT
from tests.command import COMMANDS, run, run_apart, start
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

#: arguments with which each command would go to work
WORKING = {
    "md5light": ["config", "show"],
    "md5light-server": ["--port", "0"],
    "md5light-worker": ["--burst"],
}

every_command = pytest.mark.parametrize("command", COMMANDS)


Start = Callable[..., "Service"]


class Service:
    """A command that works until it is told to stop; its log is in a file."""

    def __init__(
        self, command: str, arguments: Sequence[str], cwd: Path, environ: Mapping[str, str]
    ) -> None:
        self._log = cwd / f"{command}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *COMMANDS[command], *arguments],
                cwd=cwd,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )

    def log(self) -> str:
        return self._log.read_text()

    def logged(self, pattern: str) -> re.Match[str]:
        """Wait for a line of the log and return what in it matches `pattern`."""

        def look() -> re.Match[str] | None:
            assert self.process.poll() is None, self.log()
            return re.search(pattern, self.log())

        found = wait_until(look, message=f"{pattern} in the log")
        assert found
        return found

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[Start]:
    services: list[Service] = []

    def start_service(
        command: str, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> Service:
        services.append(Service(command, arguments, tmp_path, environ or {}))
        return services[-1]

    yield start_service
    for service in services:
        service.process.kill()
        service.process.wait()


# --- help, version, usage -------------------------------------------------------------------------


@every_command
def test_help_has_an_example_that_the_command_understands(command: str, tmp_path: Path) -> None:
    done = run(command, "--help", cwd=tmp_path, COLUMNS="200")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {command} ")
    example = re.search(rf"^example: {command} (.*)$", done.stdout, re.MULTILINE)
    assert example
    understood = run(command, *example[1].split(), "--help", cwd=tmp_path)
    assert understood.returncode == 0, understood.stderr


@every_command
def test_version(command: str, tmp_path: Path) -> None:
    done = run(command, "--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{command} {__version__}\n", "")


@pytest.mark.parametrize(
    ("command", "arguments", "problem"),
    [
        ("md5light", [], "required: COMMAND"),
        ("md5light", ["fly"], "invalid choice: 'fly'"),
        ("md5light", ["config"], "required: check|show"),
        ("md5light", ["--config"], "expected one argument"),
        (
            "md5light",
            ["--conf", "x", "config", "show"],
            "",
        ),  # no abbreviations: they would become fixed
        ("md5light-server", ["--port", "http"], "--port: must be a whole number from 0 to 65535"),
        ("md5light-server", ["--port", "65536"], "--port: must be a whole number from 0 to 65535"),
        ("md5light-server", ["--host", ""], "--host: must be a host name or an IP address"),
        ("md5light-server", ["now"], "unrecognized arguments: now"),
        (
            "md5light-worker",
            ["--processes", "0"],
            "--processes: must be a whole number from 1 to 1000",
        ),
        (
            "md5light-worker",
            ["--threads", "many"],
            "--threads: must be a whole number from 1 to 1000",
        ),
        ("md5light-worker", ["--port", "1"], "unrecognized arguments: --port 1"),
    ],
)
def test_wrong_usage_exits_with_2(
    command: str, arguments: list[str], problem: str, tmp_path: Path
) -> None:
    done = run(command, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"usage: {command} ")
    assert problem in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "a.ini", "config", "show"],
        ["config", "--config", "a.ini", "show"],
        ["config", "show", "--config", "a.ini"],
        ["--config", "none.ini", "config", "show", "-v", "--config", "a.ini"],
    ],
)
def test_the_file_is_named_before_or_after_the_words(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.ini").write_text("[server]\nport = 1001\n")
    done = run("md5light", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\n# from a.ini\nport = 1001\n" in done.stdout


@pytest.mark.parametrize(
    ("command", "section", "key"),
    [
        ("md5light-server", "server", "host"),
        ("md5light-server", "server", "port"),
        ("md5light-worker", "worker", "processes"),
        ("md5light-worker", "worker", "threads"),
    ],
)
def test_a_flag_has_the_meaning_of_its_key(
    command: str, section: str, key: str, tmp_path: Path
) -> None:
    printed = run(command, "--help", cwd=tmp_path, COLUMNS="200").stdout
    meaning = config.description(section, key)["meaning"]
    assert re.search(rf"^ +--{key} [A-Z]+\s+{re.escape(meaning)}$", printed, re.MULTILINE)


def test_the_help_of_the_server_submits_a_whole_url(tmp_path: Path) -> None:
    assert '--data-urlencode "url=' in run("md5light-server", "--help", cwd=tmp_path).stdout


#: runs md5light and prints which modules that imported
START = """
import sys
from md5light.cli import main
try:
    main()
finally:
    print(*sys.modules)
"""

#: modules that take long to import
SLOW = {"dataclasses", "email_validator", "requests", "sqlite3", "ssl"}


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        ("--version", set()),
        ("submit --help", set()),
        ("status no/id", {"requests", "ssl"}),
        ("jobs list", {"dataclasses", "sqlite3"}),
    ],
)
def test_a_start_imports_only_what_its_command_needs(
    arguments: str, needed: set[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", START, *arguments.split()],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "MD5LIGHT_QUEUE_DATABASE": str(tmp_path / "jobs")},
        capture_output=True,
        text=True,
    )
    imported = {*done.stdout.splitlines()[-1].split()}
    assert imported & SLOW == needed


# --- configuration --------------------------------------------------------------------------------


@every_command
def test_wrong_configuration_exits_with_78_and_one_line(command: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.ini").write_text("[server]\nport = http\n")
    done = run(command, "--config", "wrong.ini", *WORKING[command], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    assert (
        done.stderr
        == f"{command}: wrong.ini: [server] port = http: must be a whole number from 0 to 65535\n"
    )


@every_command
def test_a_configuration_that_is_not_there_exits_with_78(command: str, tmp_path: Path) -> None:
    done = run(command, *WORKING[command], cwd=tmp_path, MD5LIGHT_CONFIG="none.ini")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == f"{command}: none.ini: can't be read: No such file or directory\n"


@every_command
def test_a_wrong_variable_exits_with_78_and_one_line(command: str, tmp_path: Path) -> None:
    variables = {
        "MD5LIGHT_SERVER_PORT": "MD5LIGHT_SERVER_PORT: [server] port = x: must be a whole number ",
        "MD5LIGHT_SERVER_PROT": "MD5LIGHT_SERVER_PROT: unknown variable; perhaps MD5LIGHT_SERVER_",
    }
    for name, problem in variables.items():
        done = run(command, *WORKING[command], cwd=tmp_path, **{name: "x"})
        assert (done.returncode, done.stdout) == (78, "")
        assert done.stderr.startswith(f"{command}: {problem}")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["md5light-server", "md5light-worker"])
def test_a_flag_beats_the_environment(command: str, tmp_path: Path, start_service: Start) -> None:
    flag = {"md5light-server": ["--port", "0"], "md5light-worker": ["--processes", "1"]}[command]
    environ = {"MD5LIGHT_SERVER_PORT": "1", "MD5LIGHT_WORKER_PROCESSES": "7"}
    service = start_service(command, *flag, environ=environ)
    if command == "md5light-server":
        assert service.logged(r"event=listening url=\"?http://127\.0\.0\.1:(\d+)\b")[1] != "1"
    else:
        assert service.logged(r"event=pool_started processes=(\d)")[1] == "1"
    assert service.stop(signal.SIGTERM) == 0


@every_command
@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_closed_or_full_stream_changes_no_exit_code(
    command: str, closing: str, tmp_path: Path
) -> None:
    program = [sys.executable, *COMMANDS[command]]
    wrong = ["--config", "none.ini", *WORKING[command]]
    for arguments, code in (["--version"], 0), (["--fly"], 2), (wrong, 78):
        done = subprocess.run(
            ["bash", "-c", f'exec "$@" {closing}', "bash", *program, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert (done.returncode, "Traceback" in done.stderr) == (code, False)


def test_config_check_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "right.ini").write_text("[server]\nport = 1\n")
    done = run("md5light", "--config", "right.ini", "config", "check", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "right.ini: ok\n", "")


def test_config_show_tells_what_applies_and_no_password(tmp_path: Path) -> None:
    (tmp_path / "named.ini").write_text("[server]\nport = 1001\n[smtp]\npassword = hunter2\n")
    (tmp_path / "environ.ini").write_text("[server]\nport = 1002\n")
    named = run(
        "md5light",
        "--config",
        "named.ini",
        "config",
        "show",
        cwd=tmp_path,
        MD5LIGHT_CONFIG="environ.ini",
    )
    environ = run("md5light", "config", "show", cwd=tmp_path, MD5LIGHT_CONFIG="environ.ini")
    assert (named.returncode, environ.returncode) == (0, 0)
    assert "\nport = 1001\n" in named.stdout
    assert "\npassword = ********\n" in named.stdout
    assert "hunter2" not in named.stdout
    assert "\nport = 1002\n" in environ.stdout


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["md5light-server", "md5light-worker"])
def test_a_database_that_can_not_be_used_exits_with_1_and_one_line(
    command: str, tmp_path: Path
) -> None:
    (tmp_path / "config.ini").write_text("[queue]\ndatabase = none/jobs.sqlite3\n")
    done = run_apart(command, "--config", "config.ini", *WORKING[command], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == f"{command}: database {tmp_path}/none/jobs.sqlite3: No such file or directory\n"
    )


def test_a_port_that_is_taken_exits_with_1_and_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_apart("md5light-server", "--port", str(port), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == f"md5light-server: can't listen on http://127.0.0.1:{port}: Address already in use\n"
    )


def test_a_reader_that_goes_away_is_not_complained_about(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start("md5light", "config", "show", cwd=tmp_path, stdout=write)
    os.close(write)
    assert process.communicate(timeout=30)[1] == ""
    assert process.returncode == 1


def test_output_that_can_not_be_written_exits_with_1_and_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        process = start("md5light", "config", "show", cwd=tmp_path, stdout=full.fileno())
    assert process.communicate(timeout=30)[1] == "md5light: [Errno 28] No space left on device\n"
    assert process.returncode == 1


# --- server and worker at work --------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_tells_its_url_answers_and_stops_in_good_order(
    number: signal.Signals, tmp_path: Path, start_service: Start
) -> None:
    (tmp_path / "config.ini").write_text(
        "[server]\nhost = 192.0.2.1\nport = 1\n"
    )  # which the flags beat
    server = start_service(
        "md5light-server", "--config", "config.ini", "--host", "127.0.0.1", "--port", "0"
    )
    url = server.logged(r"event=listening url=\"?(http://127\.0\.0\.1:\d+)\b")[1]
    with urllib.request.urlopen(f"{url}/healthz", timeout=10) as answer:
        assert answer.status == 200
    assert server.stop(number) == 0
    assert "event=stopped" in server.log()
    assert "Traceback" not in server.log()


def test_a_burst_with_nothing_to_do_ends_by_itself(tmp_path: Path) -> None:
    done = run_apart(
        "md5light-worker", "--burst", "--processes", "2", "--threads", "1", cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert re.search(r"event=pool_started processes=2 threads=1$", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_pool_stops_in_good_order(number: signal.Signals, start_service: Start) -> None:
    pool = start_service("md5light-worker", "--processes", "1", "--threads", "1")
    pool.logged("event=pool_started")
    assert pool.stop(number) == 0
    assert "event=pool_stopped" in pool.log()
    assert "Traceback" not in pool.log()


def test_verbose_goes_before_the_level_of_the_file(tmp_path: Path, start_service: Start) -> None:
    (tmp_path / "config.ini").write_text("[log]\nlevel = error\nformat = json\n")
    pool = start_service("md5light-worker", "-v", "--config", "config.ini", "--processes", "1")
    pool.logged('"event":"pool_started"')
    pool.logged('"event":"worker_started"')
    assert pool.stop(signal.SIGTERM) == 0
