"""scripts/run as its user meets it: the set-up, the start, the stop, and its error messages."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.environments import Prepared
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

#: seconds in which everything starts or stops, however busy the machine is
START_SECONDS = 20


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, prepared: Prepared) -> Tree:
    """A copy of the working tree with its environment, whose first set-up was killed."""
    folder = tmp_path_factory.mktemp("scripts") / "a tree"  # with a space, as a user's may have
    unwanted = shutil.ignore_patterns(
        ".git", ".venv*", ".*_cache", "*.egg-info", "md5light.sqlite3*", "docs", "tests"
    )
    shutil.copytree(ROOT, folder, ignore=unwanted)
    tree = Tree(folder, prepared)
    with subprocess.Popen(
        tree.set_up_command, env=tree.environment(), start_new_session=True
    ) as first:
        wait_until((folder / ".venv/bin/python").exists, START_SECONDS)
        os.killpg(first.pid, signal.SIGKILL)
    made = tree.set_up()
    assert made.returncode == 0, made.stderr
    assert made.stderr.startswith("md5light: setting up .venv")
    return tree


@dataclass(frozen=True)
class Tree:
    folder: Path
    prepared: Prepared

    @property
    def set_up_command(self) -> list[str]:
        return [str(self.folder / "scripts/venv"), ".venv", "scripts/requirements.txt"]

    def set_up(self, **changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.set_up_command,
            env=self.environment(**changed),
            capture_output=True,
            text=True,
            timeout=100,
        )

    def environment(self, **changed: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MD5LIGHT_", "PYTEST_"))
        }
        return {**kept, **self.prepared.variables, **changed}


class Run:
    """A running scripts/run, and what it has said so far."""

    def __init__(self, tree: Tree, folder: Path, *arguments: str) -> None:
        folder.mkdir(exist_ok=True)
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [tree.folder / "scripts/run", *arguments],
                cwd=folder,
                env=tree.environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=heed_ctrl_c,
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def url(self) -> str:
        """Where it listens, once it has said so."""
        wait_until(
            lambda: "check?id=ID" in self.out or self.process.poll() is not None, START_SECONDS
        )
        found = re.search(r"md5light listens on (http://\S+)[,.] ", self.out)
        assert found, self.err
        return found[1]

    def commands(self) -> list[int]:
        """The server and the pool; each leads a session, and so a group, of its own."""
        return [pid for pid in descendants(self.process.pid) if os.getsid(pid) == pid]

    def processes(self) -> list[int]:
        """Wait for all below it: cat for the log, the server, the pool and its one worker."""

        def look() -> list[int]:
            found = descendants(self.process.pid)
            return found if len(found) >= 4 else []

        return wait_until(look, START_SECONDS)

    def wait(self) -> int:
        return self.process.wait(timeout=START_SECONDS)


def descendants(pid: int) -> list[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found[1:]


def alive(pids: Sequence[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def heed_ctrl_c() -> None:
    """Take SIGINT as in a terminal's foreground; a shell ignores it for background processes."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def running(tree: Tree, folder: Path, *arguments: str) -> Iterator[Run]:
    run = Run(tree, folder, "--processes", "1", "--threads", "1", *arguments)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            left = [run.process.pid, *descendants(run.process.pid)]
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            run.process.wait()


@pytest.mark.parametrize(
    ("number", "to_the_group"),
    [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGHUP, True)],
    ids=["signal", "ctrl-c", "closed-terminal"],
)
def test_starts_says_how_to_try_it_and_stops(
    tree: Tree, tmp_path: Path, number: signal.Signals, to_the_group: bool
) -> None:
    with running(tree, tmp_path / "data", "--port", "0") as run:
        url = run.url()
        assert f"curl --data-urlencode \"url=https://example.com/\" '{url}/submit'" in run.out
        assert f"curl '{url}/check?id=ID'" in run.out
        assert f"{tree.folder}/.venv/bin/md5light --help" in run.out
        assert f"keeps its database and mails in {tmp_path / 'data'}." in run.out
        with urllib.request.urlopen(f"{url}/healthz") as answer:
            assert answer.status == 200
        assert (tmp_path / "data/md5light.sqlite3").exists()

        processes = run.processes()
        assert len(run.commands()) == 2
        if to_the_group:  # as a terminal does it
            os.killpg(run.process.pid, number)
        else:
            run.process.send_signal(number)

        assert run.wait() == 0, run.err
        assert not alive(processes)


def test_a_second_start_takes_under_two_seconds(tree: Tree, tmp_path: Path) -> None:
    def start() -> float:
        began = time.monotonic()
        with running(tree, tmp_path / "data", "--port", "0") as run:
            run.url()
            return time.monotonic() - began

    # One of three, since other tests run beside this one.
    assert any(start() < 2 for _ in range(3))


def test_a_configuration_file_goes_to_both(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "my.ini").write_text(
        "[server]\nport = 0\n[queue]\ndatabase = jobs.sqlite3\n[log]\nformat = json\n"
    )
    with running(tree, tmp_path, "--config", "my.ini") as run:
        assert run.url()
        assert (tmp_path / "jobs.sqlite3").exists()
        run.process.terminate()
        assert run.wait() == 0, run.err


def test_says_why_when_the_server_does_not_start(tree: Tree, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running(tree, tmp_path / "data", "--port", str(port)) as run:
            assert run.wait() == 1
            assert str(port) in run.err.splitlines()[0]
            assert run.err.splitlines()[-1].startswith(
                "scripts/run: md5light-server ended by itself"
            )
            assert run.out == ""


@pytest.mark.parametrize("command", ["md5light-server", "md5light-worker"])
def test_stops_all_when_one_is_killed(tree: Tree, tmp_path: Path, command: str) -> None:
    with running(tree, tmp_path / "data", "--port", "0") as run:
        run.url()
        processes = run.processes()
        killed = next(
            pid for pid in run.commands() if command in Path(f"/proc/{pid}/cmdline").read_text()
        )
        os.kill(killed, signal.SIGKILL)
        assert run.wait() == 128 + signal.SIGKILL
        assert f"scripts/run: {command} ended by itself" in run.err
        wait_until(lambda: not alive(processes))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--prot", "1"], "scripts/run: unknown argument: --prot"),
        (["--config"], "scripts/run: --config needs a value"),
    ],
)
def test_wrong_usage(tree: Tree, arguments: list[str], told: str) -> None:
    done = subprocess.run(
        [tree.folder / "scripts/run", *arguments], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == told


def set_up_with(python: str, tree: Tree, folder: Path) -> subprocess.CompletedProcess[str]:
    """Start scripts/run of a tree without environment, with our own python3 first in PATH."""
    folder.mkdir()
    (folder / "python3").write_text(python)
    (folder / "python3").chmod(0o755)
    fresh = folder / "tree"
    shutil.copytree(tree.folder / "scripts", fresh / "scripts")
    shutil.copy(tree.folder / "setup.py", fresh)
    env = tree.environment(PATH=f"{folder}:{os.environ['PATH']}")
    del env["PYTHON"]
    done = subprocess.run(
        [fresh / "scripts/run"], env=env, cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert not (fresh / ".venv").exists()
    return done


def test_says_what_to_install_when_venv_is_missing(tree: Tree, tmp_path: Path) -> None:
    fake = f'#!/bin/sh\ncase "$*" in *venv*) exit 1;; esac\nexec {sys.executable} "$@"\n'
    done = set_up_with(fake, tree, tmp_path / "fake")
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == [
        "md5light: python3 can't make a virtual environment: its module venv is missing or broken.",
        "md5light: On Debian or Ubuntu: sudo apt-get install python3-venv",
    ]


def test_says_which_python_is_needed(tree: Tree) -> None:
    done = subprocess.run(
        [tree.folder / "scripts/run"],
        env=tree.environment(PYTHON="/bin/false"),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "md5light: PYTHON=/bin/false is not a Python 3.10 or newer.\n",
    )


def test_an_environment_that_is_whole_is_not_made_again(tree: Tree) -> None:
    done = tree.set_up(PYTHON=sys.executable)  # another name of the same Python
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("lock", "extras"), [("requirements.txt", [""]), ("requirements-test.txt", ["test", "lint"])]
)
def test_the_lock_is_up_to_date(lock: str, extras: list[str]) -> None:
    """Run scripts/lock when this fails."""
    pins = dict(
        re.findall(
            r"^([a-z0-9-]+)(?:\[.+\])?==([^ ]+) ",
            (ROOT / "scripts" / lock).read_text(),
            re.MULTILINE,
        )
    )
    for line in requires("md5light") or []:
        wanted = Requirement(line)
        if wanted.marker is None or any(
            wanted.marker.evaluate({"extra": extra}) for extra in extras
        ):
            name = canonicalize_name(wanted.name)
            assert name in pins, line
            assert wanted.specifier.contains(pins[name]), line


def test_locks_name_no_index() -> None:
    for lock in (ROOT / "scripts").glob("requirements*.txt"):
        assert "://" not in lock.read_text()
