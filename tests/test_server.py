"""The HTTP API of a real server: bodies, codes and headers to the letter."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from md5light.web.answers import MAX_BODY_BYTES
from tests.service import Service
from tests.waiting import wait_until

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
FILE = "http://files.example.com/a"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"
JSON = "application/json"
JOB_FIELDS = (
    "id url status md5 size bytes_done bytes_total attempts max_attempts next_attempt_at error "
    "created_at started_at finished_at final_url content_type etag last_modified mail"
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server without any pool: what is submitted stays as it is."""
    with Service(tmp_path_factory.mktemp("service"), download={"allow_networks": ""}) as service:
        service.start_server()
        yield service


def multipart(**values: str) -> bytes:
    """Write a form with the boundary b, in Latin-1; a value named x_file is a file named x."""
    parts = [
        f"--b\r\nContent-Disposition: form-data; name={name.replace('_file', '; filename=f')}"
        f"\r\n\r\n{value}\r\n"
        for name, value in values.items()
    ]
    return "".join([*parts, "--b--\r\n"]).encode("latin-1")


def post(service: Service, data: object, content_type: str | None = None) -> requests.Response:
    headers = {"Content-Type": content_type} if content_type else {}
    return requests.post(f"{service.url}/submit", data=data, headers=headers, timeout=10)  # type: ignore[arg-type]


def error_code(answer: requests.Response) -> str:
    """Return the code of an error whose body has exactly the documented form."""
    body = answer.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["code", "message"]
    assert re.fullmatch(r"[A-Z`].*\.", body["error"]["message"])  # a sentence
    assert (
        answer.text
        == json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    )
    assert answer.headers["Content-Type"] == JSON
    code: str = body["error"]["code"]
    return code


def stored_jobs(service: Service) -> int:
    with contextlib.closing(sqlite3.connect(service.database)) as database:
        count: int = database.execute("select count(*) from jobs").fetchone()[0]
    return count


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        ({"url": FILE}, None),
        ({"url": FILE, "email": "ann@example.com"}, None),
        ({"url": FILE, "email": ""}, None),
        (json.dumps({"url": FILE}), JSON),
        (json.dumps({"url": FILE, "email": None}), "application/json; charset=utf-8"),
        (multipart(url=FILE), MULTIPART),
        (multipart(email="ann@example.com", url=FILE), "Multipart/Form-Data; Boundary=b"),
    ],
    ids=[
        "form",
        "with address",
        "blank address",
        "json",
        "json with a charset",
        "multipart",
        "multipart with address",
    ],
)
def test_a_job_is_accepted(service: Service, data: object, content_type: str | None) -> None:
    answer = post(service, data, content_type)
    assert answer.status_code == 202
    assert re.fullmatch(r'\{"id":"' + UUID + r'"\}\n', answer.text)
    assert answer.headers["Location"] == f"/check?id={answer.json()['id']}"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Content-Type"] == JSON


@pytest.mark.parametrize(
    ("data", "content_type", "status", "code"),
    [
        ({}, None, 400, "missing_parameter"),
        ({"email": "ann@example.com"}, None, 400, "missing_parameter"),
        ({"url": ""}, None, 400, "missing_parameter"),
        ([("url", FILE), ("url", FILE)], None, 400, "repeated_parameter"),
        ([("url", FILE), ("email", "a@e.io"), ("email", "b@e.i")], None, 400, "repeated_parameter"),
        (f'{{"url":"{FILE}","url":"{FILE}"}}', JSON, 400, "repeated_parameter"),
        ({"url": "example.com/a"}, None, 400, "invalid_url"),
        ({"url": "ftp://example.com/a"}, None, 400, "invalid_url"),
        ({"url": "http://ann:secret@example.com/"}, None, 400, "invalid_url"),
        ({"url": "http://example.com:99999/"}, None, 400, "invalid_url"),
        ({"url": "http://example.com/" + "a" * 8192}, None, 400, "invalid_url"),
        ({"url": "http://example.com/\u202egpj"}, None, 400, "invalid_url"),
        ({"url": "http://example.com:22/"}, None, 400, "port_not_allowed"),
        ({"url": "http://127.0.0.1/"}, None, 400, "address_not_allowed"),
        ({"url": "http://2130706433/"}, None, 400, "address_not_allowed"),
        ({"url": "http://[::ffff:10.0.0.1]/"}, None, 400, "address_not_allowed"),
        ({"url": "http://localhost:8080/"}, None, 400, "address_not_allowed"),
        ({"url": "http://files.example.com:22/a"}, None, 400, "port_not_allowed"),
        ({"url": "https://files.example.com:1023/a"}, None, 400, "port_not_allowed"),
        ("url=http://files.example.com/get?a=1&b=2", FORM, 400, "unknown_parameter"),
        ("b=2", FORM, 400, "unknown_parameter"),
        (json.dumps({"url": FILE, "sha257": "x"}), JSON, 400, "unknown_parameter"),
        (json.dumps({"url": FILE, "more": [1]}), JSON, 400, "unknown_parameter"),
        (multipart(url=FILE, more="x"), MULTIPART, 400, "unknown_parameter"),
        (multipart(url=FILE, x_file="\xff"), MULTIPART, 400, "unknown_parameter"),
        ("url=http://files.example.com/a+b", FORM, 400, "invalid_url"),
        ("url=http://files.example.com/a&email=ann+md5@example.com", FORM, 400, "invalid_email"),
        ({"url": FILE, "email": "nobody"}, None, 400, "invalid_email"),
        ({"url": FILE, "email": "a@example.com, b@example.com"}, None, 400, "invalid_email"),
        ('{"url":7}', JSON, 400, "invalid_url"),
        ('{"url":"' + FILE + '","email":["a@example.com"]}', JSON, 400, "invalid_email"),
        ('["url"]', JSON, 400, "bad_request"),
        ('"url"', JSON, 400, "bad_request"),
        ("{", JSON, 400, "bad_request"),
        ("[" * 50_000, JSON, 400, "bad_request"),
        (b"\xff\xfe{}", JSON, 400, "bad_request"),
        (b"url=http://example.com/%ff", FORM, 400, "bad_request"),
        (b"url=http://example.com/\xff", FORM, 400, "bad_request"),
        ("--b\r\nrubbish", MULTIPART, 400, "bad_request"),
        ("rubbish", "multipart/form-data", 400, "bad_request"),
        (multipart(url="http://example.com/\xff"), MULTIPART, 400, "bad_request"),
        (multipart(url=FILE), "multipart/form-data; charset=none; boundary=b", 400, "bad_request"),
        (multipart(url_file=FILE), MULTIPART, 400, "invalid_url"),
        (multipart(url=FILE, email_file="a@example.com"), MULTIPART, 400, "invalid_email"),
        (f"url={FILE}", "text/plain", 415, "unsupported_media_type"),
        (b"<url/>", "application/xml", 415, "unsupported_media_type"),
        (b"url=" + b"a" * 100_000, FORM, 413, "body_too_large"),
    ],
)  # fmt: skip
def test_what_can_not_be_accepted_is_refused(
    service: Service, data: object, content_type: str | None, status: int, code: str
) -> None:
    before = stored_jobs(service)
    answer = post(service, data, content_type)
    assert (answer.status_code, error_code(answer)) == (status, code)
    assert stored_jobs(service) == before


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/check/", 404, "not_found"),
        ("GET", "/jobs/", 404, "not_found"),
        ("GET", "/x%ff%fe", 404, "not_found"),
        ("GET", "/submit", 405, "method_not_allowed"),
        ("PUT", "/submit", 405, "method_not_allowed"),
        ("OPTIONS", "/check", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("GET", "/check", 400, "missing_parameter"),
        ("GET", "/check?id=", 400, "missing_parameter"),
        ("GET", "/check?id=a&id=b", 400, "repeated_parameter"),
        ("GET", "/%ff", 404, "not_found"),
        ("GET", "/chec%ffk?id=a", 404, "not_found"),
    ],
)
def test_every_error_has_the_same_form(
    service: Service, method: str, path: str, status: int, code: str
) -> None:
    answer = requests.request(method, service.url + path, timeout=10)
    assert (answer.status_code, error_code(answer)) == (status, code)
    assert (status == 405) == ("Allow" in answer.headers)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/submit", "POST"),
        ("POST", "/check", "GET,HEAD"),
        ("PUT", "/jobs/x", "DELETE,GET,HEAD"),
    ],
)
def test_the_methods_of_a_path_are_told(
    service: Service, method: str, path: str, allowed: str
) -> None:
    assert requests.request(method, service.url + path, timeout=10).headers["Allow"] == allowed
    for each in allowed.split(","):
        assert requests.request(each, service.url + path, timeout=10).status_code != 405


@pytest.mark.parametrize(
    "job_id",
    ["nothing", "0e4fac17-f367-4807-8c28-8a059a2f82ac", "'", "a" * 5000, "é", "%00", "%ff"],
)
def test_an_unknown_job_is_not_found(service: Service, job_id: str) -> None:
    for method, path in (
        ("GET", f"/check?id={job_id}"),
        ("GET", f"/jobs/{job_id}"),
        ("DELETE", f"/jobs/{job_id}"),
    ):
        answer = requests.request(method, service.url + path, timeout=10)
        assert (answer.status_code, answer.text) == (404, '{"status":"not found"}\n')


def test_the_id_of_a_job_with_more_in_it_is_unknown(service: Service) -> None:
    job_id = service.submit(FILE)
    for other in (f"{job_id}%ff", f"{job_id}%20", f"%7B{job_id}%7D", job_id.upper()):
        for path in (f"/check?id={other}", f"/jobs/{other}"):
            answer = requests.get(service.url + path, timeout=10)
            assert (answer.status_code, answer.text) == (404, '{"status":"not found"}\n')
    assert requests.get(f"{service.url}/check?id={job_id}&more=%ff", timeout=10).status_code == 202


def test_a_waiting_job_is_running(service: Service) -> None:
    answer = service.check(service.submit(FILE))
    assert (answer.status_code, answer.text) == (202, '{"status":"running"}\n')
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Cache-Control"] == "no-store"


def test_everything_of_a_job_is_told_but_the_address(service: Service) -> None:
    job_id = service.submit("HTTP://Files.Example.com/%7Ea?b#c", email="ann@example.com")
    answer = requests.get(f"{service.url}/jobs/{job_id}", timeout=10)
    assert answer.status_code == 200
    assert "ann@" not in answer.text
    job = answer.json()
    assert set(job) == set(JOB_FIELDS.split())
    assert list(job) == sorted(job)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", job["created_at"])
    assert (job["id"], job["url"], job["status"]) == (
        job_id,
        "HTTP://Files.Example.com/%7Ea?b#c",
        "queued",
    )
    assert (job["mail"], job["attempts"], job["max_attempts"]) == ("waiting", 0, 5)


def test_a_job_is_canceled_once(service: Service) -> None:
    job_id = service.submit(FILE)
    answer = requests.delete(f"{service.url}/jobs/{job_id}", timeout=10)
    assert (answer.status_code, answer.json()["status"], answer.json()["id"]) == (
        200,
        "canceled",
        job_id,
    )
    again = requests.delete(f"{service.url}/jobs/{job_id}", timeout=10)
    assert (again.status_code, error_code(again)) == (409, "job_finished")
    error = {"code": "canceled", "message": "The job was canceled."}
    assert answer.json()["error"] == service.job(job_id)["error"] == error
    check = service.check(job_id)
    assert (check.status_code, check.json()["status"], check.json()["error"]["code"]) == (
        424,
        "failed",
        "canceled",
    )
    assert check.json()["error"] == error


def test_health_and_readiness(service: Service) -> None:
    assert requests.get(f"{service.url}/healthz", timeout=10).status_code == 200
    assert requests.get(f"{service.url}/readyz", timeout=10).status_code == 200


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\nbad header", 400, "bad_request"),
        (b"GET http://[ HTTP/1.1\r\nHost: x", 400, "bad_request"),
        (b"POST /submit HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000, 400, "bad_request"),
        (b"POST /submit HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip", 501, "not_implemented"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 33_000, 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 300_000, 431, "headers_too_large"),
        (b"GET /healthz HTTP/1.1", 400, "bad_request"),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: a", 400, "bad_request"),
        (b"GET /healthz HTTP/1.0\r\nHost: a\r\nHost: b", 400, "bad_request"),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost:", 400, "bad_request"),
        (b"GET /healthz HTTP/1.1\r\nHost: a/b", 400, "bad_request"),
        (b"GET /healthz HTTP/1.1\r\nHost: a@b", 400, "bad_request"),
        (
            b"POST /submit HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d"
            % (MAX_BODY_BYTES + 1),
            413,
            "body_too_large",
        ),
    ],
    ids=[
        "header",
        "URI",
        "number",
        "coding",
        "large header",
        "very large header",
        "no Host",
        "two Hosts",
        "two Hosts of HTTP/1.0",
        "a second Host without a value",
        "a path in Host",
        "a name in Host",
        "large body announced",
    ],
)
def test_what_the_http_layer_refuses_is_answered_as_all_is(
    service: Service, request_: bytes, status: int, code: str
) -> None:
    with connect(service) as client:
        client.sendall(request_ + b"\r\n\r\n")
        client.settimeout(5)
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    head, _, body = answer.decode().partition("\r\n\r\n")
    assert re.match(rf"HTTP/1.[01] {status} ", head)
    assert (json.loads(body)["error"]["code"], body[-1]) == (code, "\n")
    headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    assert headers["Content-Type"] == JSON
    assert headers["X-Content-Type-Options"] == "nosniff"
    service.commands[0].wait_for_line(
        f"event=request .* status={status} .*request={headers['X-Request-Id']}"
    )


@pytest.mark.parametrize("letter", ["a", "é", "語", "😀"])
def test_the_longest_url_is_taken_however_it_is_escaped(service: Service, letter: str) -> None:
    start = "http://files.example.com/"
    url = start + letter * (8192 - len(start))
    everything = "url=" + "".join(f"%{byte:02X}" for byte in url.encode())
    email = "a" * 64 + "@" + ".".join(["example"] * 23)
    assert post(service, f"{everything}&email={email}", FORM).status_code == 202
    for data, kind in (
        ({"url": url}, None),
        (json.dumps({"url": url}), JSON),
        (
            f"--b\r\nContent-Disposition: form-data; name=url\r\n\r\n{url}\r\n--b--\r\n".encode(),
            MULTIPART,
        ),
    ):
        assert post(service, data, kind).status_code == 202
    refused = post(service, {"url": url + letter})
    assert (refused.status_code, error_code(refused)) == (400, "invalid_url")


def test_the_largest_body_is_read(service: Service) -> None:
    form = "url=".ljust(MAX_BODY_BYTES, "x")
    assert post(service, form, FORM).status_code == 400
    assert post(service, form + "x", FORM).status_code == 413


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("url=http://h.example/f?a=1&b=2", ["`b`", 'curl --data-urlencode "url=…"']),
        ("url=http://h.example/f?a=1&b%00%1b=2", ["`b??`", 'curl --data-urlencode "url=…"']),
        (f"url={FILE}&{'b' * 5000}=1", ["`" + "b" * 100 + "`"]),
        (
            f"url={FILE}&email=ann+md5@h.example",
            ["`email`", "+", 'curl --data-urlencode "email=…"'],
        ),
        ("url=http://h.example/a+b", ["`url`", "+", 'curl --data-urlencode "url=…"']),
    ],
)
def test_a_value_that_was_not_encoded_is_explained(
    service: Service, form: str, words: list[str]
) -> None:
    message = post(service, form, FORM).json()["error"]["message"]
    assert [word for word in words if word not in message] == []


def test_a_request_without_a_body_is_not_waited_for(service: Service) -> None:
    with connect(service) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_a_full_queue_accepts_nothing(tmp_path: Path) -> None:
    with Service(tmp_path, server={"max_unfinished": 2}) as service:
        service.start_server()
        first = service.submit(FILE)
        service.submit(FILE)
        answer = post(service, {"url": FILE})
        assert (answer.status_code, error_code(answer)) == (503, "queue_full")
        assert int(answer.headers["Retry-After"]) > 0
        requests.delete(f"{service.url}/jobs/{first}", timeout=10)
        service.submit(FILE)


def test_all_threads_stay_on_one_core(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        server = service.start_server()
        threads = [int(task.name) for task in Path(f"/proc/{server.process.pid}/task").iterdir()]
        cores = [os.sched_getaffinity(thread) for thread in threads]
    assert len(threads) > 1
    assert [len(each) for each in cores] == [1] * len(threads)
    assert len(set.union(*cores)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_after_the_running_requests(
    tmp_path: Path, number: signal.Signals
) -> None:
    with Service(tmp_path) as service:
        server = service.start_server()
        answers: list[int] = []
        with contextlib.closing(sqlite3.connect(service.database, isolation_level=None)) as other:
            other.execute("begin immediate")
            request = threading.Thread(
                target=lambda: answers.append(post(service, {"url": FILE}).status_code)
            )
            request.start()
            wait_until(lambda: connections_to(service), message="the request to reach the server")
            server.process.send_signal(number)
            wait_until(lambda: not is_listening(service), message="the server to accept nobody")
            other.execute("commit")
        request.join()
        assert server.process.wait(10) == 0
        assert answers == [202]


@pytest.mark.parametrize(
    "beginning", [b"", b"POST /submit HTTP/1.1\r\nHost: x\r\n"], ids=["nothing yet", "a line"]
)
def test_a_request_that_is_coming_in_is_answered_before_the_server_ends(
    tmp_path: Path, beginning: bytes
) -> None:
    header = (
        b"POST /submit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 26\r\n\r\n"
    )
    request = header + b'{"url":"http://a.example"}'
    with Service(tmp_path) as service:
        server = service.start_server()
        with connect(service) as client:
            client.sendall(beginning)
            wait_until(lambda: connections_to(service), message="the connection")
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not is_listening(service), message="the server to accept nobody")
            client.sendall(request[len(beginning) :])
            assert client.recv(4096).startswith(b"HTTP/1.1 202 ")
        assert server.process.wait(10) == 0
        assert stored_jobs(service) == 1


def test_a_second_signal_ends_the_server_at_once(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        server = service.start_server()
        with contextlib.closing(sqlite3.connect(service.database, isolation_level=None)) as other:
            other.execute("begin immediate")
            with connect(service) as client:
                client.sendall(
                    b"DELETE /jobs/0e4fac17-f367-4807-8c28-8a059a2f82ac HTTP/1.1\r\nHost: x\r\n\r\n"
                )
                wait_until(
                    lambda: connections_to(service), message="the request to reach the server"
                )
                server.process.send_signal(signal.SIGTERM)
                wait_until(lambda: not is_listening(service), message="the server to accept nobody")
                assert server.stop(signal.SIGINT, timeout=2) == 1


def test_the_port_in_use_is_one_line(tmp_path: Path) -> None:
    with Service(tmp_path) as service, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = service.start("server", "--port", str(port))
        assert command.process.wait(10) == 1
        assert (
            command.lines
            == f"md5light-server: can't listen on http://127.0.0.1:{port}: Address already in use\n"
        )


def connect(service: Service) -> socket.socket:
    host, port = service.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def connections_to(service: Service) -> int:
    """Count the established connections to the server's port, from the kernel's table (proc(5))."""
    port = int(service.url.rpartition(":")[2])
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(
        line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines
    )


def is_listening(service: Service) -> bool:
    port = int(service.url.rpartition(":")[2])
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(
        line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines
    )
