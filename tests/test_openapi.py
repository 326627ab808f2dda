"""/openapi.json is valid, complete, and what the server really answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from md5light import __version__
from md5light.web.forms import SUBMISSION
from md5light.web.service import OPENAPI
from tests.origin import Origin
from tests.service import Service, running

DOCUMENT = json.loads(OPENAPI.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("service"), queue={"max_attempts": 1}) as service:
        yield service


def check(path: str, method: str, answer: requests.Response) -> None:
    """Compare an answer with what the document says of it, headers included."""
    import jsonschema  # it takes its time, in each process that collects the tests

    described = DOCUMENT["paths"][path][method]["responses"][str(answer.status_code)]
    schema = {
        **described["content"]["application/json"]["schema"],
        "components": DOCUMENT["components"],
    }
    jsonschema.Draft202012Validator(schema).validate(answer.json())
    assert set(described.get("headers", {})) <= set(answer.headers)


def test_the_document_is_valid_and_of_this_version() -> None:
    import openapi_spec_validator  # as above

    openapi_spec_validator.validate(DOCUMENT)
    assert DOCUMENT["info"]["version"] == __version__


def test_the_server_hands_the_document_out(service: Service) -> None:
    answer = requests.get(f"{service.url}/openapi.json", timeout=10)
    assert answer.json() == DOCUMENT
    assert answer.headers["Content-Type"] == "application/json"


def test_the_document_shows_how_a_url_is_sent_whole() -> None:
    assert "curl --data-urlencode" in DOCUMENT["paths"]["/submit"]["post"]["description"]


def test_the_document_names_every_parameter_of_a_submission() -> None:
    assert list(DOCUMENT["components"]["schemas"]["Submission"]["properties"]) == [*SUBMISSION]


def test_every_route_is_described(service: Service) -> None:
    for path, methods in DOCUMENT["paths"].items():
        answer = requests.request("PATCH", service.url + path.format(id="x"), timeout=10)
        assert answer.status_code == 405
        allowed = {method.lower() for method in answer.headers["Allow"].split(",")} - {
            "head",
            "options",
        }
        assert allowed == set(methods)


def test_answers_are_as_described(service: Service, tmp_path: Path) -> None:
    def get(path: str, shown: str, **query: Any) -> requests.Response:
        answer = requests.get(service.url + path, params=query, timeout=10)
        check(shown, "get", answer)
        return answer

    with Origin() as origin:
        url = origin.serve("/file", b"body")
        submitted = requests.post(
            f"{service.url}/submit", data={"url": url, "email": "ann@localhost"}, timeout=10
        )
        check("/submit", "post", submitted)
        wanted = {"url": url, "digests": "sha1", "sha512": "0" * 128, "size": "4"}
        judged = service.submit(**wanted)
        done, missing = submitted.json()["id"], service.submit(origin.url("/missing"))
        assert service.result(done)["status"] == "done"
        assert service.result(judged)["status"] == "done"
        assert service.result(missing)["status"] == "failed"
        waiting = service.submit(origin.serve("/slow", lambda peer: origin.gate().wait(30)))
        assert [
            get("/check", "/check", id=job).status_code for job in (done, judged, missing, waiting)
        ] == [200, 200, 424, 202]
        for job in (done, judged, missing, waiting, "nothing"):
            get(f"/jobs/{job}", "/jobs/{id}")
        for expected in (200, 409):
            canceled = requests.delete(f"{service.url}/jobs/{waiting}", timeout=10)
            assert canceled.status_code == expected
            check("/jobs/{id}", "delete", canceled)
        for job, expected in ((missing, 202), (done, 409)):
            retried = requests.post(f"{service.url}/jobs/{job}/retry", timeout=10)
            assert retried.status_code == expected
            check("/jobs/{id}/retry", "post", retried)
    for path in ("/healthz", "/readyz", "/check"):
        get(path, path)
    for data in (
        {},
        {"url": "http://127.1/"},
        {"url": "http://a/", "b": "2"},
        {"url": b"a" * 10**5},
    ):
        check("/submit", "post", requests.post(f"{service.url}/submit", data=data, timeout=10))
    foreign = requests.post(
        f"{service.url}/submit", headers={"Origin": "http://elsewhere.example"}, timeout=10
    )
    assert foreign.status_code == 403
    check("/submit", "post", foreign)
