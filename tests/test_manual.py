"""Manual pages and completions, made from the parsers and used by the programs that read them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.child import ROOT
from tests.terminal import Terminal
from tests.waiting import wait_until

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


# --- completions ----------------------------------------------------------------------------------

LINES: list[tuple[str, list[str]]] = [
    ("md5light ver", ["verify"]),
    ("md5light jobs re", ["retry"]),
    ("md5light --config a.ini -v jobs re", ["retry"]),
    ("md5light --config=a.ini jobs re", ["retry"]),
    ("md5light submit list.txt --ma", ["--mail", "--manifest"]),
    ("md5light submit --manifest sha", ["sha1sum", "sha256sum", "sha512sum"]),
    ("md5light submit --manifest=sha5", ["sha512sum"]),
    ("md5light submit --digest md5 --digest sha2", ["sha256"]),
    ("md5light jobs retry --status f", ["failed"]),
    ("md5light jobs retry ab --s", ["--status"]),  # the verb `retry` has --server
    ("md5light submit jobs --se", ["--server"]),  # a file of this name
    ("md5light config check --j", ["--json"]),
    ("md5light status a-fi", []),
    ("md5light-server --p", ["--port"]),
    ("md5light-worker --b", ["--burst"]),
]

#: files, with which bash goes on by itself
FILES = [
    ("md5light queue copy a-fi", ["a-file"]),
    ("md5light submit a.txt a-fi", ["a-file"]),
    ("md5light-server --config a-fi", ["a-file"]),
]


@pytest.mark.parametrize(("line", "offered"), LINES)
def test_bash_completes(line: str, offered: list[str], share: Path) -> None:
    program, *_ = words = line.replace("=", " = ").split()  # as $COMP_WORDBREAKS says
    function = "_" + program.replace("-", "_")
    script = (
        f". {shlex.quote(str(share / 'bash-completion/completions' / program))}\n"
        f"COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}\n"
        f'{function}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-uc", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == offered


@pytest.mark.parametrize(("line", "offered"), [*LINES, *FILES])
def test_fish_completes(line: str, offered: list[str], share: Path, tmp_path: Path) -> None:
    file = share / f"fish/vendor_completions.d/{line.split()[0]}.fish"
    (tmp_path / "a-file").touch()
    script = f"source {shlex.quote(str(file))}; complete -C {shlex.quote(line)}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = [each.partition("\t")[0].rpartition("=")[2] for each in done.stdout.splitlines()]
    assert found == offered


#: has Tab insert all that zsh offers, and Ctrl-X print the line
ZSH_SETUP = """
fpath=({folder} $fpath); autoload -U compinit; compinit -u -D
zle -C all-matches complete-word _generic; bindkey "^I" all-matches
zstyle ":completion:all-matches::::" completer _all_matches _complete
zstyle ":completion:*:all-matches:*" insert yes
show() {{ zle -I; print -r -- "<$BUFFER>"; BUFFER= }}; zle -N show; bindkey "^X" show
print rea""dy
"""


@pytest.fixture(scope="module")
def zsh(share: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """Start a zsh that knows the completions, in a folder with one file."""
    home = tmp_path_factory.mktemp("home")
    (home / "a-file").touch()
    environ = {"HOME": str(home), "TERM": "dumb", "PATH": "/usr/bin:/bin"}
    with Terminal(["zsh", "-f", "-i"], env=environ, cwd=home, columns=200) as terminal:
        terminal.type(ZSH_SETUP.format(folder=shlex.quote(str(share / "zsh/site-functions"))))
        terminal.wait_for("ready\r\n")
        yield terminal


@pytest.mark.parametrize(("line", "offered"), [*LINES, *FILES])
def test_zsh_completes(line: str, offered: list[str], zsh: Terminal) -> None:
    length = len(zsh.output)
    zsh.type(f"{line}\t\x18")
    wait_until(lambda: ">\r\n" in zsh.output[length:])
    shown = re.findall(r"<(.*)>\r\n", zsh.output[length:])[0]
    before, _, typed = line.rpartition(" ")
    words = [typed, *shown.removeprefix(before).split()]
    # Zsh leaves what was typed in the line, and puts an equals sign after an option with a value.
    found = {word.removesuffix("=").rpartition("=")[2] for word in words}
    assert found - {typed.rpartition("=")[2]} == {*offered}


def test_wrong_usage_exits_with_2() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/manual")],
        capture_output=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2
