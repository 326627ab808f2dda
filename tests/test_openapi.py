"""/openapi.json is valid, complete, and what the server really answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
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


def get(service: Service, path: str, shown: str, **query: Any) -> int:
    """Hold an answer against the document's path `shown`; return the status."""
    answer = requests.get(service.url + path, params=query, timeout=10)
    check(shown, "get", answer)
    return answer.status_code


def post(service: Service, path: str, shown: str, **options: Any) -> requests.Response:
    """Hold an answer against the document's path `shown`, and return it."""
    answer = requests.post(service.url + path, timeout=10, **options)
    check(shown, "post", answer)
    return answer


def test_answers_about_jobs_are_as_described(service: Service) -> None:
    with Origin() as origin:
        url = origin.serve("/file", b"body")
        submission = {"url": url, "email": "ann@localhost"}
        done = post(service, "/submit", "/submit", data=submission).json()["id"]
        judged = service.submit(url=url, digests="sha1", sha512="0" * 128, size="4")
        missing = service.submit(origin.url("/missing"))
        jobs = {done: "done", judged: "done", missing: "failed"}
        assert {job: service.result(job)["status"] for job in jobs} == jobs
        waiting = service.submit(origin.serve("/slow", lambda peer: origin.gate().wait(30)))
        for job, status in ((done, 200), (judged, 200), (missing, 424), (waiting, 202)):
            assert get(service, "/check", "/check", id=job) == status
        for job in (*jobs, waiting, "nothing"):
            get(service, f"/jobs/{job}", "/jobs/{id}")
        for status in (200, 409):
            canceled = requests.delete(f"{service.url}/jobs/{waiting}", timeout=10)
            assert canceled.status_code == status
            check("/jobs/{id}", "delete", canceled)
        for job, status in ((missing, 202), (done, 409)):
            assert post(service, f"/jobs/{job}/retry", "/jobs/{id}/retry").status_code == status


def test_other_answers_are_as_described(service: Service) -> None:
    for path in ("/healthz", "/readyz", "/check"):
        get(service, path, path)
    for data in (
        {},
        {"url": "http://127.1/"},
        {"url": "http://a/", "b": "2"},
        {"url": b"a" * 10**5},
    ):
        post(service, "/submit", "/submit", data=data)
    elsewhere = {"Origin": "http://elsewhere.example"}
    assert post(service, "/submit", "/submit", headers=elsewhere).status_code == 403
