"""README is run and compared with the code."""

from __future__ import annotations

import inspect
import re
import subprocess
from pathlib import Path

import pytest

import md5light
from md5light.queue import jobs
from md5light.web import answers, api, forms, middleware
from tests.origin import Origin
from tests.service import running

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
PACKAGE = Path(inspect.getfile(md5light)).parent
INTERFACE_CODES = (
    "address_not_allowed port_not_allowed name_not_found connection_failed tls_failed timed_out http_status "
    "too_many_redirects bad_redirect too_large incomplete bad_response worker_lost"
)


def section(title: str) -> str:
    """Return the text of README under a heading, up to the next one."""
    return re.split(r"\n#+ ", README.partition(f"# {title}\n")[2])[0]


def test_the_demo_prints_what_readme_shows(tmp_path: Path) -> None:
    demo = re.search(r"```console\n(.*?)```", README, re.DOTALL)
    assert demo is not None
    with (
        Origin() as origin,
        running(tmp_path, download={"allow_networks": "127.0.0.0/8"}) as service,
    ):
        origin.serve("/hello.txt", b"hello\n")
        addresses = {"http://127.0.0.1:8000": origin.url(""), "http://127.0.0.1:8080": service.url}
        shown_id = re.search(r'"id":"(.*?)"', demo[1])
        assert shown_id is not None
        for step in re.findall(r"\$ (.*\n(?:[^$].*\n)*)", demo[1]):
            command, shown = step.split("\n", 1)
            for address, actual in addresses.items():
                command, shown = command.replace(address, actual), shown.replace(address, actual)
            printed = subprocess.run(
                ["bash", "-c", command], capture_output=True, text=True, check=True
            ).stdout
            if '"id"' in shown:
                addresses[shown_id[1]] = printed.split('"')[3]
                service.result(addresses[shown_id[1]])
                shown = shown.replace(shown_id[1], addresses[shown_id[1]])
            assert printed == shown


def test_readme_names_the_codes_of_errors() -> None:
    named = set(re.findall(r"^\| `(\w+)` \| \d{3} \|", section("Codes of errors"), re.MULTILINE))
    source = "".join(map(inspect.getsource, (answers, api, forms, middleware, jobs)))
    assert {code for code, _ in answers.ERRORS.values()} <= named
    # of guard, mail and urls
    elsewhere = {"address_not_allowed", "port_not_allowed", "invalid_email", "invalid_url"}
    assert [code for code in named - elsewhere if f'"{code}"' not in source] == []


def test_readme_names_the_codes_of_failed_jobs() -> None:
    named = re.findall(r"^\| `(\w+)` \|", section("Codes of failed jobs"), re.MULTILINE)
    assert named == INTERFACE_CODES.split()


@pytest.mark.parametrize(
    "name",
    sorted(path.stem for folder in ("", "*/") for path in PACKAGE.glob(f"{folder}[a-z]*.py")),
)
def test_readme_gives_each_module_its_room(name: str) -> None:
    assert f"`{name}`" in section("How it works")
