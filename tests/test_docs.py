"""README and the documents are run, and compared with the code."""

from __future__ import annotations

import inspect
import re
import subprocess
from pathlib import Path

import pytest

import md5light
from md5light import errors
from md5light.web import answers
from tests.origin import Origin
from tests.service import Service, running

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGE = Path(inspect.getfile(md5light)).parent
#: where README's links lead, since the package index shows it, too
HOME = "https://github.com/md5light/md5light/blob/main/"
INTERFACE_CODES = (
    "address_not_allowed port_not_allowed name_not_found connection_failed tls_failed timed_out "
    "http_status too_many_redirects bad_redirect too_large incomplete bad_response worker_lost"
)


def document(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """Return the text under a heading, up to the next heading."""
    return re.split(r"\n#+ ", text.partition(f"# {title}\n")[2])[0]


def steps(session: str) -> list[tuple[str, str]]:
    """Return the commands of a console session, each with the output that is shown."""
    found = re.findall(r"^\$ (.*)\n((?:[^$\n].*\n)*)", session, re.MULTILINE)
    assert found
    return found


def replay(session: str, origin: Origin, service: Service) -> None:
    """Run a session and compare what it prints, with the addresses and the id of this run."""
    actual = {"http://127.0.0.1:8000": origin.url(""), "http://127.0.0.1:8080": service.url}
    for shown_command, shown_output in steps(session):
        command, output = shown_command, shown_output
        for address, own in actual.items():
            command, output = command.replace(address, own), output.replace(address, own)
        printed = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, check=True
        ).stdout
        if shown_id := re.search(r'"id":"(.*?)"', output):
            own_id = printed.split('"')[3]
            service.result(own_id)
            actual[shown_id[1]] = own_id
            output = output.replace(shown_id[1], own_id)
        assert printed == output


@pytest.mark.slow
@pytest.mark.parametrize("text", [README, document("api")], ids=["README", "api"])
def test_each_session_prints_what_is_shown(text: str, tmp_path: Path) -> None:
    sessions = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    assert sessions
    with (
        Origin() as origin,
        running(tmp_path, download={"allow_networks": "127.0.0.0/8"}) as service,
    ):
        origin.serve("/hello.txt", b"hello\n")
        for session in sessions:
            replay(session, origin, service)


def test_readme_is_short() -> None:
    assert len(README.encode()) <= 8192


def test_links_of_readme_are_absolute_and_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert [link for link in links if not link.startswith("https://")] == []
    paths = [link.removeprefix(HOME) for link in links if link.startswith(HOME)]
    assert [path for path in paths if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.stem)
def test_links_of_the_documents_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith("https://")]
    assert [link for link in local if not (DOCS / link).exists()] == []


def test_the_codes_of_errors_are_documented() -> None:
    table = section(document("api"), "Codes of errors")
    named = set(re.findall(r"^\| `(\w+)` \| \d{3} \|", table, re.MULTILINE))
    assert {code for code, _ in answers.ERRORS.values()} <= named
    modules = (answers, errors)
    source = "".join(map(inspect.getsource, modules))
    folders = (PACKAGE / "queue", PACKAGE / "web")
    source += "".join(path.read_text() for folder in folders for path in folder.glob("*.py"))
    elsewhere = {"address_not_allowed", "port_not_allowed", "invalid_email", "invalid_url"}
    assert [code for code in sorted(named - elsewhere) if f'"{code}"' not in source] == []


def test_the_codes_of_failed_jobs_are_documented() -> None:
    table = section(document("api"), "Codes of failed jobs")
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == INTERFACE_CODES.split()


@pytest.mark.parametrize(
    "name",
    sorted({path.stem for folder in ("", "*/") for path in PACKAGE.glob(f"{folder}[a-z]*.py")}),
)
def test_the_design_names_each_module(name: str) -> None:
    assert f"`{name}`" in section(document("design"), "Modules")
