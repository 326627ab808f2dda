"""What every answer goes through, seen from outside: ids of requests, the access log, headers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from md5light.config import Network
from md5light.web.answers import Problem
from md5light.web.middleware import behind, refuse_other_sites
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

    def lines() -> list[str]:
        logged = service.commands[0].lines.splitlines()
        return [line for line in logged if request_id(answer) in line]

    wait_until(lambda: len(lines()) > 1)
    assert re.findall(r"event=(\w+)", "".join(lines())) == ["submitted", "request"]
    assert "key=x" not in service.commands[0].lines


@pytest.mark.parametrize("path", ["/healthz", "/nothing", "/check?id=x", "/openapi.json"])
def test_every_answer_has_the_headers_of_safety(service: Service, path: str) -> None:
    headers = requests.get(service.url + path, timeout=10).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Referrer-Policy"] == "no-referrer"


# --- the access log -------------------------------------------------------------------------------


def test_reading_that_succeeds_is_not_logged(service: Service) -> None:
    job_id = service.submit("http://files.example.com/a")
    for path in ("/", f"/jobs/{job_id}", f"/check?id={job_id}", "/healthz", "/nothing"):
        requests.get(service.url + path, timeout=10)
    service.commands[0].wait_for_line(r"event=request method=GET path=/nothing status=404")
    assert not re.search("event=request method=GET .* status=2", service.commands[0].lines)


def test_debug_has_every_request(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        service.start_server("-v")
        requests.get(f"{service.url}/healthz", timeout=10)
        service.commands[0].wait_for_line("level=debug event=request method=GET path=/healthz")


@pytest.mark.parametrize(
    "path", ["/" + "a" * 30_000, "/" + "%ff" * 10_000, "/" + "%f0%9f%98%80" * 2500]
)
def test_a_long_path_makes_no_long_line(service: Service, path: str) -> None:
    answer = requests.get(service.url + path, timeout=10)
    line = service.commands[0].wait_for_line(f"event=request .*request={request_id(answer)}")[0]
    assert len(line) < 13_000
    assert answer.status_code == 404


def test_a_long_method_makes_no_long_line(service: Service) -> None:
    answer = requests.request("A" * 30_000, f"{service.url}/healthz", timeout=10)
    line = service.commands[0].wait_for_line(f"event=request .*request={request_id(answer)}")[0]
    assert (answer.status_code, len(line) < 3_000) == (405, True)


# --- behind a proxy -------------------------------------------------------------------------------


def seen(peer: str, proxies: str, **headers: str) -> dict[str, Any]:
    """Return what an application sees of a request that `peer` has sent."""
    environ: dict[str, Any] = {
        "REMOTE_ADDR": peer,
        "HTTP_HOST": "inside",
        "wsgi.url_scheme": "http",
    }
    environ |= {f"HTTP_{name}": value for name, value in headers.items()}
    networks: list[Network] = [ipaddress.ip_network(network) for network in proxies.split()]
    behind(networks, lambda *_: [])(environ, lambda *_: None)
    return environ


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("172.18.0.5", "192.0.2.1", "192.0.2.1"),
        ("::ffff:172.18.0.5", "192.0.2.1", "192.0.2.1"),
        ("fd00::5", "2001:db8::1", "2001:db8::1"),
        ("172.18.0.5", "192.0.2.1, 198.51.100.2", "198.51.100.2"),
        ("172.18.0.5", "192.0.2.1, 198.51.100.2, 172.18.0.9", "198.51.100.2"),
        ("172.18.0.5", "192.0.2.1,172.18.0.9,172.18.0.8", "192.0.2.1"),
        ("172.18.0.5", "172.18.0.9, 172.18.0.8", "172.18.0.9"),
        ("172.18.0.5", "192.0.2.1:4711", "192.0.2.1"),
        ("172.18.0.5", "[2001:db8::1]:4711", "2001:db8::1"),
        ("172.18.0.5", "::ffff:192.0.2.1", "192.0.2.1"),
        ("172.18.0.5", "192.0.2.1, unknown", "unknown"),
        ("172.18.0.5", "192.0.2.1, ", "192.0.2.1"),
        ("172.18.0.5", "", "172.18.0.5"),
        ("localhost", "192.0.2.1", "192.0.2.1"),  # a Unix socket's peer
        ("172.19.0.5", "192.0.2.1", "172.19.0.5"),
        ("::ffff:203.0.113.1", "192.0.2.1", "203.0.113.1"),
    ],
)
def test_the_client_is_the_last_that_is_no_proxy(
    peer: str, forwarded_for: str, client: str
) -> None:
    environ = seen(peer, "172.18.0.0/16 fd00::/8", X_FORWARDED_FOR=forwarded_for)
    assert environ["REMOTE_ADDR"] == client


@pytest.mark.parametrize("peer", ["127.0.0.1", "localhost"])
def test_without_a_proxy_nobody_speaks_for_others(peer: str) -> None:
    headers = {"X_FORWARDED_FOR": "192.0.2.1", "X_FORWARDED_HOST": "other"}
    environ = seen(peer, "", **headers)
    assert (environ["REMOTE_ADDR"], environ["HTTP_HOST"]) == (peer, "inside")


@pytest.mark.parametrize(
    ("peer", "host", "scheme"),
    [("10.1.1.1", "md5.example.org", "https"), ("10.2.1.1", "inside", "http")],
)
def test_host_and_scheme_are_the_proxys(peer: str, host: str, scheme: str) -> None:
    headers = {"X_FORWARDED_HOST": "x.example, md5.example.org", "X_FORWARDED_PROTO": "https"}
    environ = seen(peer, "10.1.0.0/16", **headers)
    assert (environ["HTTP_HOST"], environ["wsgi.url_scheme"]) == (host, scheme)


# --- other sites ----------------------------------------------------------------------------------

OUR_URL = "https://md5.example.org/sub"


@pytest.mark.parametrize(
    ("base_url", "headers", "foreign"),
    [
        (OUR_URL, {}, False),
        (OUR_URL, {"Host": "evil.example"}, False),  # no browser
        (OUR_URL, {"Sec-Fetch-Site": "same-site"}, True),
        (OUR_URL, {"Sec-Fetch-Site": "cross-site"}, True),
        (OUR_URL, {"Sec-Fetch-Site": "cross-site", "Origin": "http://inside:8080"}, True),
        (OUR_URL, {"Sec-Fetch-Site": "same-origin", "Origin": "https://md5.example.org"}, False),
        (OUR_URL, {"Sec-Fetch-Site": "same-origin", "Host": "md5.example.org"}, False),
        (OUR_URL, {"Sec-Fetch-Site": "none", "Host": "MD5.example.org:443"}, False),
        (
            OUR_URL,
            {"Sec-Fetch-Site": "same-origin", "Origin": "null", "Host": "md5.example.org"},
            False,
        ),
        (OUR_URL, {"Origin": "https://md5.example.org"}, False),
        (OUR_URL, {"Origin": "http://inside"}, True),
        (OUR_URL, {"Origin": "http://elsewhere.example.org"}, True),
        (OUR_URL, {"Origin": "null"}, True),
        (OUR_URL, {"Origin": ""}, True),
        (OUR_URL, {"Origin": "http://[half"}, True),
        # names that lead here without being ours
        (OUR_URL, {"Sec-Fetch-Site": "same-origin", "Host": "evil.example"}, True),
        (OUR_URL, {"Origin": "http://evil.example", "Host": "evil.example"}, True),
        # nobody else's names
        (OUR_URL, {"Origin": "http://127.0.0.1:8080", "Host": "127.0.0.1:8080"}, False),
        (OUR_URL, {"Origin": "http://[::1]:8080", "Host": "[::1]:8080"}, False),
        (OUR_URL, {"Sec-Fetch-Site": "same-origin", "Host": "localhost:8080"}, False),
        ("", {"Sec-Fetch-Site": "same-origin"}, False),
        ("", {"Sec-Fetch-Site": "none"}, False),
        ("", {"Sec-Fetch-Site": "cross-site"}, True),
        ("", {"Origin": "http://inside:8080"}, False),
        ("", {"Origin": "http://INSIDE:80", "Host": "inside"}, False),
        ("", {"Origin": "http://inside"}, True),
        ("", {"Origin": "null"}, True),
        ("", {"Origin": ""}, True),
    ],
)
def test_browsers_tell_where_a_request_comes_from(
    base_url: str, headers: dict[str, str], foreign: bool
) -> None:
    sent = {"Host": "inside:8080", **headers}
    environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in sent.items()}
    try:
        refuse_other_sites(environ, base_url)
        refused = False
    except Problem as problem:
        refused = (problem.status, problem.code) == (403, "cross_site")
    assert refused == foreign


def test_a_refused_site_is_told_what_differs(service: Service) -> None:
    answer = requests.post(
        f"{service.url}/submit",
        data={"url": "http://files.example.com/a"},
        headers={"Origin": "https://md5.example.org", "Host": "backend:8080"},
        timeout=10,
    )
    assert answer.status_code == 403
    message = answer.json()["error"]["message"]
    for word in ("https://md5.example.org", "backend:8080", "[server] base_url"):
        assert word in message
    service.commands[0].wait_for_line(
        "event=cross_site .*origin=https://md5.example.org host=backend:8080"
    )


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_nothing_is_changed_for_another_site(service: Service, method: str) -> None:
    job_id = service.submit("http://files.example.com/a")
    path = {"POST": "/submit", "DELETE": f"/jobs/{job_id}"}[method]
    answer = requests.request(
        method, service.url + path, headers={"Sec-Fetch-Site": "cross-site"}, timeout=10
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross_site")
    assert service.job(job_id)["status"] == "queued"
