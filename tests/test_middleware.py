"""What every answer goes through, seen from outside: ids of requests, the access log, headers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import requests

from tests.service import Service
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service")) as service:
        service.start_server()
        yield service


def request_id(answer: requests.Response) -> str:
    identity: str = answer.headers["X-Request-Id"]
    return identity


def test_a_request_id_is_taken_over_into_answer_and_log(service: Service) -> None:
    answer = requests.get(
        f"{service.url}/check?id=secret", headers={"X-Request-Id": "abc.1-2_3"}, timeout=10
    )
    assert request_id(answer) == "abc.1-2_3"
    line = service.commands[0].wait_for_line(r"event=request .*request=abc\.1-2_3")[0]
    assert "method=GET path=/check status=404 client=127.0.0.1" in line
    assert "secret" not in service.commands[0].lines


@pytest.mark.parametrize("given", ["", "a b", "a" * 65, "a=1\tevent=x", "é"])
def test_what_could_spoil_the_log_gets_an_id_of_its_own(service: Service, given: str) -> None:
    answer = requests.get(
        f"{service.url}/healthz", headers={"X-Request-Id": given.encode()}, timeout=10
    )
    assert re.fullmatch(r"[0-9a-f]{32}", request_id(answer))


def test_every_line_of_a_request_has_its_id(service: Service) -> None:
    answer = requests.post(
        f"{service.url}/submit", data={"url": "http://files.example.com/a?key=x"}, timeout=10
    )
    lines = wait_until(
        lambda: (
            (
                found := [
                    one
                    for one in service.commands[0].lines.splitlines()
                    if request_id(answer) in one
                ]
            )[1:]
            and found
        )
    )
    assert [re.search(r"event=(\w+)", line)[1] for line in lines] == ["submitted", "request"]  # type: ignore[index]
    assert "key=x" not in service.commands[0].lines


@pytest.mark.parametrize("path", ["/healthz", "/nothing", "/check?id=x", "/openapi.json"])
def test_every_answer_has_the_headers_of_safety(service: Service, path: str) -> None:
    headers = requests.get(service.url + path, timeout=10).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Referrer-Policy"] == "no-referrer"
