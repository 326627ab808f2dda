"""scripts/install --user: for somebody without root, into their own folders."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.child import ROOT
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


def install(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(home)}
    return subprocess.run(
        [ROOT / "scripts/install", "--user", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=110,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    done = install(home)
    assert done.returncode == 0, done.stderr
    assert "systemctl --user enable --now md5light-server" in done.stdout
    yield home
    shutil.rmtree(home, ignore_errors=True)


def unit(home: Path, name: str) -> str:
    return (home / ".config/systemd/user" / name).read_text()


def settings(text: str, key: str) -> list[str]:
    return re.findall(rf"(?m)^{key}=(.*)$", text)


def test_everything_is_below_the_home_folder(home: Path) -> None:
    assert (home / ".config/md5light/config.ini").exists()
    assert (home / ".local/bin/md5light").readlink() == home / ".local/lib/md5light/bin/md5light"
    assert stat.S_IMODE((home / ".local/state/md5light").stat().st_mode) == 0o700
    for name in ("md5light-server.service", "md5light-worker.service"):
        text = unit(home, name)
        for place in ("/opt", "/etc/md5light", "/var/lib"):
            assert place not in text
        assert settings(text, "WantedBy") == ["default.target"]
        # What a user's service manager has no right to, or does not know.
        for key in ("User", "StateDirectory", "CapabilityBoundingSet", "ProtectSystem", "Wants"):
            assert settings(text, key) == []
        for key in ("Restart", "WatchdogSec", "MemoryMax", "UMask"):
            assert len(settings(text, key)) == 1


def test_systemd_finds_nothing_wrong_with_the_units(home: Path) -> None:
    units = sorted((home / ".config/systemd/user").iterdir())
    assert len(units) == 3
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", *units],
        env={**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["md5light-server", "md5light-worker"])
def test_the_commands_of_the_units_work_on_the_users_files(home: Path, command: str) -> None:
    text = unit(home, f"{command}.service")
    (folder,) = settings(text, "WorkingDirectory")
    (line,) = settings(text, "ExecStart")
    config = home / ".config/md5light/config.ini"
    config.write_text(re.sub(r"(?m)^port = 8080$", "port = 0", config.read_text()))
    process = subprocess.Popen(shlex.split(line), cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        wait_until((home / ".local/state/md5light/md5light.sqlite3").exists)
    finally:
        process.terminate()
        process.communicate(timeout=40)


def test_uninstalling_leaves_what_is_the_users(home: Path) -> None:
    done = install(home, "--uninstall")
    assert done.returncode == 0, done.stderr
    assert not (home / ".local/lib/md5light").exists()
    assert not (home / ".local/bin/md5light").is_symlink()
    assert list((home / ".config/systemd/user").iterdir()) == []
    assert (home / ".config/md5light/config.ini").exists()
    assert (home / ".local/state/md5light/md5light.sqlite3").exists()
