"""Manual pages and completions, made from the parsers and used by the programs that read them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.child import ROOT

pytestmark = pytest.mark.slow

PROGRAMS = ("md5light", "md5light-server", "md5light-worker")


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("prefix")
    command = [sys.executable, str(ROOT / "scripts/manual"), str(prefix)]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(ROOT)})
    return prefix / "share"


def test_each_program_has_a_page_and_completions(share: Path) -> None:
    found = {str(path.relative_to(share)) for path in share.rglob("*") if path.is_file()}
    assert found == {
        name
        for program in PROGRAMS
        for name in (
            f"man/man1/{program}.1",
            f"bash-completion/completions/{program}",
            f"fish/vendor_completions.d/{program}.fish",
            f"zsh/site-functions/_{program}",
        )
    }


@pytest.mark.parametrize("program", PROGRAMS)
def test_man_shows_the_page(program: str, share: Path) -> None:
    done = subprocess.run(
        ["man", "--warnings", "-P", "cat", "-l", str(share / f"man/man1/{program}.1")],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "100"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{program} [-h] [--version]" in done.stdout
    assert "--config FILE" in done.stdout
    if program == "md5light":
        assert "--digest DIGEST" in done.stdout
        assert "EXIT STATUS" in done.stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("md5light ver", ["verify"]),
        ("md5light jobs re", ["retry"]),
        ("md5light --config a.ini -v jobs re", ["retry"]),
        ("md5light submit list.txt --ma", ["--mail", "--manifest"]),
        ("md5light submit --manifest sha", ["sha1sum", "sha256sum", "sha512sum"]),
        ("md5light jobs retry --status f", ["failed"]),
        ("md5light submit li", []),
        ("md5light-server --p", ["--port"]),
        ("md5light-worker --b", ["--burst"]),
    ],
)
def test_bash_completes(line: str, offered: list[str], share: Path) -> None:
    program, *_ = words = line.split()
    function = "_" + program.replace("-", "_")
    script = (
        f". {shlex.quote(str(share / 'bash-completion/completions' / program))}\n"
        f"COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}\n"
        f'{function}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-uc", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == offered


def test_wrong_usage_exits_with_2() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/manual")],
        capture_output=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2
