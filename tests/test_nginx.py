"""scripts/nginx.conf: a real nginx on loopback in front of a real server."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
import requests

from tests.origin import Origin
from tests.service import Service

pytestmark = pytest.mark.slow

SITE = Path(__file__).parents[1] / "scripts/nginx.conf"


class Nginx:
    """nginx with the site as it is installed, but for its addresses and the path it is below."""

    def __init__(self, folder: Path, server: str, path: str = "") -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        address = "{}:{}".format(*self._socket.getsockname())
        self.url = f"http://{address}{path}"
        (folder / "nginx.conf").write_text(configuration(folder, site(address, server, path)))
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        assert program, "nginx is missing: sudo apt-get install nginx-light"
        options = f"-c {folder}/nginx.conf -p {folder} -e {folder}/error.log"
        self._command = [program, *options.split()]

    def check(self) -> str:
        done = subprocess.run(
            [*self._command, "-t"], capture_output=True, text=True, timeout=20, check=True
        )
        return done.stderr

    def start(self) -> None:
        """Start it with our socket, as one nginx hands its own to the next: the port is free."""
        number = self._socket.fileno()
        environment = {**os.environ, "NGINX": f"{number};"}
        self._process = subprocess.Popen(
            [*self._command, "-g", "daemon off;"],
            env=environment,
            pass_fds=[number],
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._socket.close()


def site(address: str, server: str, path: str) -> str:
    """Return the site that is installed, at `address` and below `path`, in front of `server`."""
    text = SITE.read_text().replace("listen [::]:80;", "")
    for written, here in (
        ("listen 80;", f"listen {address};"),
        ("proxy_pass http://127.0.0.1:8080;", f"proxy_pass {server}{'/' if path else ''};"),
        ("location / {", f"location {path}/ {{"),
        ("location = /metrics {", f"location = {path}/metrics {{"),
        ("location = /readyz {", f"location = {path}/readyz {{"),
    ):
        assert text.count(f"    {written}") == 1
        text = text.replace(f"    {written}", here)
    return text


def configuration(folder: Path, site: str) -> str:
    """Return a configuration of one site, whose files are all in `folder`."""
    user = "user root;" if os.getuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
    places = [f"{kind}_temp_path {folder}/{kind};" for kind in kinds]
    http = ["access_log off;", *places, site]
    return "\n".join([user, f"pid {folder}/pid;", "events {}", "http {", *http, "}"])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server that lets nginx say who the client is, and each client submit twice a minute."""
    settings = {"port": 0, "trusted_proxy": "127.0.0.1", "submits_per_minute": 2}
    with Service(tmp_path_factory.mktemp("service"), server=settings) as service:
        service.start_server()
        service.start_pool()
        yield service


@pytest.fixture(scope="module")
def nginx(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    nginx = Nginx(tmp_path_factory.mktemp("nginx"), service.url)
    nginx.start()
    yield nginx
    nginx.stop()


def test_nginx_finds_nothing_wrong_with_it(nginx: Nginx) -> None:
    lines = nginx.check().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith(" syntax is ok")
    assert lines[1].endswith(" test is successful")


def test_a_job_is_done_through_nginx_for_the_client_that_nginx_names(
    nginx: Nginx, service: Service
) -> None:
    with Origin() as origin:
        url = origin.serve("/file", b"body")
        forged = {"X-Forwarded-For": "192.0.2.1"}
        answers = [
            requests.post(f"{nginx.url}/submit", data={"url": url}, headers=forged, timeout=10)
            for _ in range(3)
        ]
        assert [answer.status_code for answer in answers] == [202, 202, 429]
        job_id = answers[0].json()["id"]
        result = service.result(job_id)
        assert requests.get(f"{nginx.url}/check?id={job_id}", timeout=10).json() == result
        # Nobody else pays for that client: a proxy that names another one is believed.
        other = requests.post(
            f"{service.url}/submit", data={"url": url}, headers=forged, timeout=10
        )
        assert other.status_code == 202


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/check?id=none", b"", 404),
        ("GET", "/check", b"", 400),
        ("GET", "/nowhere", b"", 404),
        ("PUT", "/submit", b"url=x", 405),
        ("POST", "/submit", b"url=" + b"x" * 100_000, 413),
        ("POST", "/submit", b"\xff", 415),
    ],
)
def test_errors_are_told_as_without_nginx(
    nginx: Nginx, service: Service, method: str, path: str, body: bytes, status: int
) -> None:
    through, directly = (
        requests.request(method, f"{at.url}{path}", data=body, timeout=10)
        for at in (nginx, service)
    )
    assert (through.status_code, through.text) == (status, directly.text)
    assert through.headers["Content-Type"] == directly.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "//metrics", "/%72eadyz", "/x/../readyz"])
def test_what_is_for_the_monitoring_is_not_for_everybody(
    nginx: Nginx, service: Service, path: str
) -> None:
    assert status_of(nginx.url, path) == 404
    assert status_of(service.url, path.replace("//", "/").removeprefix("/x/..")) == 200


@pytest.mark.slow
def test_a_client_with_very_many_requests_is_told_to_wait(tmp_path: Path) -> None:
    with behind_nginx(tmp_path) as (_, nginx), requests.Session() as session:
        answers = [session.get(f"{nginx.url}/check?id=none", timeout=10) for _ in range(300)]
        statuses = {answer.status_code for answer in answers}
        assert statuses == {404, 429}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["error"]["code"] == "too_many_requests"
        assert refused.headers["Content-Type"] == "application/json"
        assert refused.headers["Retry-After"] == "1"


def status_of(url: str, path: str) -> int:
    """Ask for `path` as it is written; requests would normalise it."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", urlsplit(url).path + path)
        return connection.getresponse().status


@contextlib.contextmanager
def behind_nginx(
    folder: Path, host: str = "127.0.0.1", path: str = "", **settings: object
) -> Iterator[tuple[Service, Nginx]]:
    server = {"port": 0, "host": host, "trusted_proxy": "127.0.0.1", **settings}
    with Service(folder, server=server) as service:
        command = service.start("server")
        url = command.wait_for_line(r"listening url=(\S+)")[1]
        nginx = Nginx(folder, f"http://{url}:" if url.startswith("unix:") else url, path)
        nginx.start()
        try:
            yield service, nginx
        finally:
            nginx.stop()


def submit_form(nginx: Nginx) -> requests.Response:
    """Send the form as a browser sends it over plain HTTP."""
    origin = "http://" + urlsplit(nginx.url).netloc
    headers = {"Origin": origin, "Accept": "text/html"}
    data = {"url": "http://files.example.com/a"}
    return requests.post(
        f"{nginx.url}/submit", data=data, headers=headers, timeout=10, allow_redirects=False
    )


@pytest.mark.parametrize("path", ["", "/md5", "/tools/md5"])
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_a_form_is_taken_on_any_port_and_below_any_path(
    tmp_path: Path, path: str, unix: bool
) -> None:
    settings = {"base_url": f"http://md5.example.org{path}"} if path else {}
    host = f"unix:{tmp_path}/http.sock" if unix else "127.0.0.1"
    with behind_nginx(tmp_path, host, path, **settings) as (_, nginx):
        answer = submit_form(nginx)
        assert (answer.status_code, answer.headers["Location"][: len(path) + 6]) == (
            303,
            f"{path}/jobs/",
        )
        told = requests.post(f"{nginx.url}/submit", data={"url": "http://a.example/"}, timeout=10)
        assert told.headers["Location"] == f"{path}/check?id={told.json()['id']}"
        assert (
            requests.get(urljoin(nginx.url, told.headers["Location"]), timeout=10).status_code
            == 202
        )
        assert (
            requests.get(urljoin(nginx.url, answer.headers["Location"]), timeout=10).status_code
            == 200
        )
