"""The sessions of docs/lists.md are run, and print what is shown."""

from __future__ import annotations

import inspect
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from md5light.lists import (
    formats,
    lines,
    names,
    objects,
    plain,
    reading,
    records,
    tables,
    text,
    writing,
)
from md5light.queue import intake
from md5light.web import answers, batches, forms, manifests, uploads
from tests.origin import Origin
from tests.service import Service, running

DOCUMENT = (Path(__file__).parent.parent / "docs" / "lists.md").read_text(encoding="utf-8")

#: the first one makes ready for each of the others
SETUP, *SESSIONS = re.findall(r"```console\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        origin.serve("/pub/a.txt", b"alpha\n")
        origin.serve("/pub/b.txt", b"beta\n")
        yield origin


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("service")) as service:
        yield service


def steps(session: str) -> list[tuple[str, str]]:
    """Return the commands of a session, each with the output that is shown."""
    found = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", session, re.MULTILINE)
    assert found
    return found


@pytest.mark.slow
@pytest.mark.parametrize("session", SESSIONS, ids=range(len(SESSIONS)))
def test_a_session_prints_what_is_shown(
    session: str, origin: Origin, service: Service, tmp_path: Path
) -> None:
    """A file that is shown with `cat` is there; all commands run in one shell."""
    own = {"127.0.0.1:8000": f"127.0.0.1:{origin.port}", "http://127.0.0.1:8080": service.url}
    for address, actual in own.items():
        session = session.replace(address, actual)
    setup = SETUP.replace("http://127.0.0.1:8080", service.url)
    commands = [command for command, _ in steps(setup)]
    shown = ""
    for command, output in steps(session):
        if file := re.fullmatch(r"cat (\S+)", command):
            (tmp_path / file[1]).write_text(output, encoding="utf-8")
        commands.append(command)
        shown += output
    done = subprocess.run(
        ["bash", "-ec", "\n".join(commands)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (shown, "", 0)


def test_the_formats_and_forms_are_documented() -> None:
    for name in (*formats.FORMATS, *formats.FORMS, *formats.NAMES, *uploads.OPTIONS):
        assert f"`{name}`" in DOCUMENT, name
    for media_type in {form.media_type.partition(";")[0] for form in formats.FORMS.values()}:
        assert media_type in DOCUMENT


def test_the_codes_of_errors_are_documented() -> None:
    modules = [lines, names, objects, plain, reading, records, tables, text, writing]
    modules += [answers, batches, forms, manifests, uploads, intake]
    sources = "".join(map(inspect.getsource, modules))
    raised = set(re.findall(r'(?:Refused|refused|Problem)\(\s*(?:\d+, )?"(\w+)"', sources))
    tables_ = DOCUMENT.partition("## Errors")[2].partition("## Forms")[0]
    named = set(re.findall(r"`(\w+)`", tables_))
    assert sorted(raised - named) == []
