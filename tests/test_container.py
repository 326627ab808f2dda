"""The container: built by the steps of its file, and run as its compose file says.

The base is made of Debian's packages. buildah builds where it can; elsewhere the same steps run in
a chroot. There is no container runtime in every place where the tests run, so the commands start in
namespaces of their own: a read-only root, an arbitrary user, no capabilities, and tini as PID 1.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.child import ROOT, children
from tests.origin import Origin
from tests.postgresql import PostgreSQLServer
from tests.waiting import wait_until

FOLDER = ROOT / "scripts/container"
PACKAGES = "ca-certificates,python3,python3-venv,tini"
SUITE = "bookworm"
WITHOUT = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")]

#: what the base has, so that the build asks no index of packages
PIP = "[global]\nno-index = true\nfind-links = /wheels\n"

#: any user, as some platforms choose one
USER = 123456

START = """
root=$1 data=$2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --bind "$data" "$root/var/lib/md5light"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
shift 2
exec "$@"
"""

pytestmark = [pytest.mark.slow, pytest.mark.container, pytest.mark.timeout(500)]


def run(*command: object, **options: object) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=400,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    output: str = done.stdout
    return output


class Steps:
    """The instructions of the Containerfile, in their order."""

    def __init__(self) -> None:
        text = (FOLDER / "Containerfile").read_text().replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        self.all = [line.split(None, 1) for line in lines]

    def __getitem__(self, name: str) -> list[str]:
        return [arguments for instruction, arguments in self.all if instruction == name]

    @property
    def environment(self) -> list[str]:
        return [word for line in self["ENV"] for word in shlex.split(line)]

    @property
    def entry(self) -> list[str]:
        (entry,) = self["ENTRYPOINT"]
        words: list[str] = json.loads(entry)
        return words

    def run_in(self, root: Path) -> None:
        """Take the steps in a chroot."""
        folder = Path("/")
        for instruction, arguments in self.all:
            if instruction == "WORKDIR":
                folder = Path(arguments)
                (root / arguments.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif instruction == "COPY":
                *sources, target = arguments.split()
                for source in sources:
                    into = (root / str(folder).lstrip("/") / target).resolve()
                    copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                    copy(ROOT / source, into)
            elif instruction == "RUN" and "apt-get" not in arguments:  # the base has the packages
                clean = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
                run("chroot", root, *clean, "sh", "-ec", f"cd {folder}; {arguments}")


class Image:
    """The root of the image; `built_by` tells what has made it."""

    def __init__(self, folder: Path) -> None:
        self.steps = Steps()
        self._folder = folder
        self._make_base()
        self._gather_wheels()
        try:
            self.root = self._build()
            self.built_by = "buildah"
        except (AssertionError, FileNotFoundError):
            self.root = self._build_in_chroot()
            self.built_by = "chroot"

    def _make_base(self) -> None:
        base = self._folder / "base.tar"
        run(
            "mmdebstrap", "--quiet", "--variant=apt", *WITHOUT, f"--include={PACKAGES}", SUITE, base
        )

    def _gather_wheels(self) -> None:
        lock = ROOT / "scripts/requirements-postgres.txt"
        options = ["--no-deps", "--only-binary=:all:", "--python-version", "3.11"]
        pip = ["python", "-m", "pip", "download", "-q", "--disable-pip-version-check"]
        wheels = self._folder / "wheels"
        run(*pip, *options, "--require-hashes", "-r", lock, "-d", wheels)
        (self._folder / "pip.conf").write_text(PIP)

    def _build(self) -> Path:
        store = ["--root", self._folder / "store", "--runroot", self._folder / "run"]
        self._buildah = ["buildah", *store, "--storage-driver", "vfs"]
        container = run(*self._buildah, "from", "scratch").strip()
        run(*self._buildah, "add", "-q", container, self._folder / "base.tar", "/")
        run(*self._buildah, "commit", "-q", "--rm", container, "localhost/base")
        volumes = [
            f"--volume={self._folder}/wheels:/wheels:ro",
            f"--volume={self._folder}/pip.conf:/etc/pip.conf:ro",
        ]
        options = ["--isolation=chroot", "--build-arg", "BASE=localhost/base", *volumes]
        file = FOLDER / "Containerfile"
        run(*self._buildah, "bud", "-q", *options, "-t", "md5light", "-f", file, ROOT)
        container = run(*self._buildah, "from", "localhost/md5light").strip()
        return Path(run(*self._buildah, "mount", container).strip())

    def _build_in_chroot(self) -> Path:
        root = self._folder / "root"
        root.mkdir()
        run("tar", "-xf", self._folder / "base.tar", "-C", root, "--exclude=./dev/*")
        shutil.copytree(self._folder / "wheels", root / "wheels")
        (root / "etc/pip.conf").write_text(PIP)
        self.steps.run_in(root)
        return root


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    image = Image(tmp_path_factory.mktemp("image"))
    print(f"the container was built by {image.built_by}")
    return image


class Containers:
    """Commands in containers over one volume."""

    def __init__(self, image: Image, folder: Path, **environment: object) -> None:
        self._image = image
        self._folder = folder
        self.data = folder / "data"
        self.data.mkdir()
        self.data.chmod(0o1777)
        self._environment = [f"{key}={value}" for key, value in environment.items()]
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Containers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.kill()
            process.wait(20)

    def command(self, *words: str) -> list[str]:
        """Return the command line that runs `words` in a container."""
        root, steps = str(self._image.root), self._image.steps
        user = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        rights = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        inside = ["chroot", root, "setpriv", *user, *rights, "env", "-i", "-C", "/var/lib/md5light"]
        environment = [*steps.environment, *self._environment]
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", START, "sh"]
        return [*apart, root, str(self.data), *inside, *environment, *steps.entry, *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=60)

    def start(self, command: str) -> tuple[subprocess.Popen[bytes], Path]:
        log = self._folder / f"{command}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(self.command(command), stderr=file)
        self._running.append(process)
        return process, log

    def start_server(self) -> tuple[subprocess.Popen[bytes], str]:
        server, log = self.start("md5light-server")
        pattern = r"listening url=(http://\S+)"
        found = wait_until(lambda: re.search(pattern, log.read_text()), message=f"{log}")
        assert found
        return server, found[1]


@pytest.fixture(params=["sqlite", "postgresql"])
def containers(
    request: pytest.FixtureRequest, image: Image, tmp_path: Path
) -> Iterator[Containers]:
    environment = {
        "MD5LIGHT_SERVER_HOST": "127.0.0.1",
        "MD5LIGHT_SERVER_PORT": 0,
        "MD5LIGHT_DOWNLOAD_ALLOW_NETWORKS": "127.0.0.0/8",
    }
    with contextlib.ExitStack() as stack:
        if request.param == "postgresql":
            server: PostgreSQLServer = request.getfixturevalue("postgresql")
            location = stack.enter_context(server.database())
            environment["MD5LIGHT_QUEUE_DATABASE"] = location
        yield stack.enter_context(Containers(image, tmp_path, **environment))


def stop(process: subprocess.Popen[bytes]) -> int:
    """Send SIGTERM to the container's PID 1, and return the exit code."""
    (first,) = children(process.pid)
    os.kill(first, signal.SIGTERM)
    return process.wait(60)


def test_a_job_is_done_and_both_commands_stop_in_order(containers: Containers) -> None:
    server, url = containers.start_server()
    worker, _ = containers.start("md5light-worker")
    with Origin() as origin:
        data = {"url": origin.serve("/file", b"body"), "email": "ann@example.org"}
        submitted = requests.post(f"{url}/submit", data=data, timeout=10)
        assert submitted.status_code == 202, submitted.text
        job_id = submitted.json()["id"]

        def result() -> dict[str, str] | None:
            answer = requests.get(f"{url}/check?id={job_id}", timeout=10)
            done: dict[str, str] = answer.json()
            return done if answer.status_code == 200 else None

        done = wait_until(result, message="the end of the job")
        assert done
        assert done["md5"] == hashlib.md5(b"body").hexdigest()
    wait_until(lambda: list(containers.data.glob("mail/new/*")), message="the mail")
    assert {path.stat().st_uid for path in containers.data.rglob("*")} == {USER}
    assert json.loads(containers.run("md5light", "stats", "--json").stdout)
    health = re.search(r"- (import urllib.*)", (FOLDER / "compose.yaml").read_text())
    assert health
    check = health[1].replace("http://127.0.0.1:8080", url)
    assert containers.run("python", "-c", check).returncode == 0
    assert (stop(worker), stop(server)) == (0, 0)


def test_nothing_but_the_volume_is_written_and_no_right_is_left(
    image: Image, tmp_path: Path
) -> None:
    with Containers(image, tmp_path) as containers:
        assert containers.run("touch", "/var/lib/md5light/a", "/tmp/b").returncode == 0
        for place in ("/opt/md5light/a", "/etc/a", "/a"):
            assert containers.run("touch", place).returncode != 0
        status = containers.run("grep", "^Cap", "/proc/self/status").stdout
        assert set(status.split()[1::2]) == {"0" * 16}
        assert containers.run("sh", "-c", "echo $PPID").stdout == "1\n"
        shown = containers.run("md5light", "config", "show").stdout
        assert "database = /var/lib/md5light/md5light.sqlite3" in shown
