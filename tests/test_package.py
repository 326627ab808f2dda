"""The source distribution and the wheel, built by `python -m build`, in a fresh environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import md5light
from tests.environments import Prepared

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def run(*command: object, **environment: str) -> str:
    """Return what a command prints; its complaints are the failure's message."""
    arguments = [str(argument) for argument in command]
    done = subprocess.run(
        arguments,
        env={**os.environ, **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(*folders: str) -> set[str]:
    """Return the files of the working tree in `folders` without those that tools leave there."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(ROOT)) for path in paths if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both; the wheel is built from what the source distribution holds."""
    source, dist = (tmp_path_factory.mktemp(name) for name in ("source", "dist"))
    unwanted = shutil.ignore_patterns(
        ".git", ".venv*", ".*_cache", "__pycache__", "*.egg-info", "build", "dist"
    )
    shutil.copytree(ROOT, source, ignore=unwanted, dirs_exist_ok=True)
    build = ["build", "--no-isolation", "--skip-dependency-check"]
    run(sys.executable, "-m", *build, "--outdir", dist, source)
    return dist


def test_the_wheel_holds_the_whole_package_and_nothing_else(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == files("md5light")
    assert "md5light/py.typed" in names


def test_the_source_distribution_holds_what_is_needed_to_work_on_it(dist: Path) -> None:
    (source,) = dist.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {
            member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()
        }
    wanted = {
        "LICENSE",
        "CHANGELOG.md",
        "README.md",
        "config.example.ini",
        "pyproject.toml",
        "setup.py",
        ".ci/run",
    }
    assert names >= wanted | files("md5light", "docs", "scripts", "tests")


def test_the_wheel_works_in_a_fresh_environment(
    dist: Path, prepared: Prepared, tmp_path: Path
) -> None:
    (wheel,) = dist.glob("*.whl")
    packages = str(prepared.packages)  # what it depends on, and pip
    run(prepared.python, "-m", "venv", tmp_path)
    python = tmp_path / "bin/python"
    run(python, "-m", "pip", "install", "--no-index", "--no-deps", wheel, PYTHONPATH=packages)
    where = run(python, "-c", "import md5light; print(md5light.__file__)", PYTHONPATH=packages)
    assert Path(where).is_relative_to(tmp_path)
    for command in ("md5light", "md5light-server", "md5light-worker"):
        printed = run(tmp_path / "bin" / command, "--version", PYTHONPATH=packages)
        assert printed == f"{command} {md5light.__version__}\n"
    assert "[server]" in run(tmp_path / "bin/md5light", "config", "show", PYTHONPATH=packages)
