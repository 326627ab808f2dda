"""waitress, bounded: what one connection or many may take, and what of it we rely on."""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import requests
from waitress import buffers, channel, parser, server, task, utilities, wasyncore

from md5light.web.http import channel as http_channel
from md5light.web.http import parser as http_parser
from md5light.web.http import places, threads
from md5light.web.http import server as http_server
from md5light.web.http.places import MAX_LISTS
from tests.service import Service
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent

LIST_HEAD = b"POST /batches HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n"

#: by class: all that md5light uses or overrides beyond waitress' documented interface
RELIED_ON: dict[type, str] = {
    channel.HTTPChannel: """error_task_class parser_class readable received handle_close request
        requests outbufs addr creation_time total_outbufs_len last_activity
        check_client_disconnected""",
    parser.HTTPRequestParser: """received parse_header completed expect_continue headers_finished
        chunked content_length body_bytes_received error version headers path command adj""",
    server.BaseWSGIServer: "channel_class handle_accept set_socket_options fix_addr adj",
    task.ErrorTask: """execute set_close_on_finish write content_length status request channel
        response_headers""",
    task.ThreadedTaskDispatcher: "add_task set_thread_count shutdown queue_logger",
    wasyncore.dispatcher: "accept close accepting readable writable handle_read_event socket",
    utilities.Error: "code reason",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service")) as service:
        service.start_server()
        yield service


def connect(service: Service) -> socket.socket:
    host, _, port = service.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def exchange(service: Service, sent: bytes) -> bytes:
    """Send bytes and return what comes until the server closes."""
    with connect(service) as client:
        client.sendall(sent)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_the_answer_reaches_a_client_that_still_sends_a_refused_body(service: Service) -> None:
    with connect(service) as client:
        client.sendall(b"POST /submit HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n")
        ending = select.poll()
        ending.register(client, select.POLLRDHUP)
        assert ending.poll(30_000)  # the server has sent all, and closed its side
        for _ in range(2):
            client.sendall(b"x" * 10_000)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"body_too_large" in answer
        wait_until(lambda: not is_open(client))


def is_open(client: socket.socket) -> bool:
    """Tell whether the other end still takes what is sent."""
    try:
        client.send(b"x")
    except OSError:
        return False
    return True


def memory_kib(pid: int) -> int:
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1])


def test_what_we_rely_on_is_there() -> None:
    for kind, names in RELIED_ON.items():
        assert set(names.split()) - _attributes(kind) == set(), kind
    source = inspect.getsource(wasyncore.poll2)
    assert "handle_read_event" in inspect.getsource(wasyncore.readwrite)
    assert "readable()" in source
    parameters = list(inspect.signature(wasyncore.loop).parameters)
    assert parameters[:4] == ["timeout", "use_poll", "map", "count"]
    assert parser.HTTPRequestParser(None).headers == {}
    assert issubclass(parser.ParsingError, Exception)
    assert isinstance(buffers.ReadOnlyFileBasedBuffer, type)


def test_nothing_else_is_relied_on() -> None:
    """Each attribute of waitress' that our modules name stands in the table above."""
    named = set(" ".join(RELIED_ON.values()).split()) | {"recv"}  # that of a socket
    theirs = {name for kind in RELIED_ON for name in _attributes(kind)}
    used = {
        node.attr
        for module in (http_server, http_channel, http_parser, places, threads)
        for node in ast.walk(_parsed(module))
        if isinstance(node, ast.Attribute) and not node.attr.startswith("__")
    }
    assert (used & theirs) - named == set()


def _attributes(kind: type) -> set[str]:
    """Name the attributes of a class and those that its methods, or its bases', set."""
    nodes = [node for each in kind.__mro__[:-1] for node in ast.walk(_parsed(each))]
    stored = [node for node in nodes if isinstance(node, ast.Attribute)]
    return {*dir(kind), *(node.attr for node in stored if isinstance(node.ctx, ast.Store))}


def _parsed(source: type | ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(source))


# --- several requests at once ---------------------------------------------------------------------

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST /submit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"url":"http://a.example/"}'
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n1b\r\n" + BODY + b"\r\n0\r\n\r\n"
SIZED = POST + b"Content-Length: 27\r\n\r\n" + BODY


@pytest.mark.parametrize("size", [1, 3, 100, 8191, 100_000])
def test_pipelined_requests_are_answered_one_after_the_other(service: Service, size: int) -> None:
    sent = (GET + SIZED + b"\r\n" + CHUNKED + GET) * (1 if size < 100 else 40) + LAST
    with connect(service) as client:
        for start in range(0, len(sent), size):
            client.sendall(sent[start : start + size])
        answers = b"".join(iter(lambda: client.recv(65536), b""))
    statuses = re.findall(rb"HTTP/1.1 (\d+) ", answers)
    assert statuses == [b"200", b"202", b"202", b"200"] * (len(statuses) // 4) + [b"200"]
    assert len(statuses) == sent.count(b"HTTP/1.1")


@pytest.mark.slow
def test_pipelined_requests_do_not_fill_the_memory(tmp_path: Path) -> None:
    request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    with Service(tmp_path) as service:
        command = service.start_server()
        before = memory_kib(command.process.pid)
        clients = [connect(service) for _ in range(200)]
        try:
            for client in clients:
                client.setblocking(False)
                client.send(request * (8000 // len(request)))
            for _ in range(5):
                answer = requests.get(f"{service.url}/check?id=none", timeout=5)
                assert answer.elapsed.total_seconds() < 1
            # Copies under way come and go; only memory that stays in use counts.
            wait_until(lambda: memory_kib(command.process.pid) - before < 30_000)
        finally:
            for client in clients:
                client.close()


# --- what may be read in two ways -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Transfer-Encoding: chunked\r\nContent-Length: 4", b"1b\r\n" + BODY + b"\r\n0\r\n\r\n"),
        (b"Content-Length: 27\r\ntransfer-encoding: Chunked", b"1b\r\n" + BODY + b"\r\n0\r\n\r\n"),
    ],
)
def test_a_length_beside_chunks_ends_the_connection(
    service: Service, head: bytes, body: bytes
) -> None:
    answers = exchange(service, POST + head + b"\r\n\r\n" + body + GET)
    assert answers.startswith(b"HTTP/1.1 202 ")
    assert answers.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in answers


def test_chunks_of_http_1_0_end_the_connection(service: Service) -> None:
    head = b"POST /healthz HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
    answers = exchange(service, head + b"0\r\n\r\n" + GET)
    assert answers.count(b"HTTP/1.") == 1


def test_a_client_of_http_1_0_needs_no_host(service: Service) -> None:
    assert exchange(service, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200 ")


@pytest.mark.parametrize("name", ["Accept", "Accept-Language", "X-Forwarded-For", "Cookie"])
def test_a_long_header_is_cheap(service: Service, name: str) -> None:
    value = "ru;q=0.1," * (31_000 // 9)
    begun = time.monotonic()
    answer = requests.get(service.url, headers={"Accept": "text/html", name: value}, timeout=10)
    assert answer.status_code == 200
    assert time.monotonic() - begun < 0.5


# --- lists and manifests --------------------------------------------------------------------------

#: a server whose clients give their places to others after a moment of silence
IMPATIENT = """
import signal, socket
from md5light.signals import StopSignals
from md5light.web.http.server import HTTPServer

def app(environ, start_response):
    start_response("202 Accepted", [("Content-Length", "0")])
    return [b""]

signals = StopSignals(signal.SIGTERM)
listening = socket.create_server(("127.0.0.1", 0))
server = HTTPServer(
    app, [listening], 2, signals, max_list_bytes=1_000_000, list_silence_seconds=0.3
)
print(listening.getsockname()[1], flush=True)
while not signals.count:
    server.turn(10)
"""


@pytest.mark.slow
def test_silent_clients_give_their_places_to_others() -> None:
    command = [sys.executable, "-c", IMPATIENT]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server,
        contextlib.ExitStack() as opened,
    ):
        opened.callback(server.terminate)
        assert server.stdout is not None
        port = int(server.stdout.readline())
        url = f"http://127.0.0.1:{port}/batches"
        for _ in range(MAX_LISTS):
            client = socket.create_connection(("127.0.0.1", port), timeout=10)
            opened.enter_context(client).sendall(LIST_HEAD)
        body = b"\n" * 200_000
        full = requests.post(url, data=body, timeout=10)
        assert (full.status_code, full.json()["error"]["code"]) == (503, "too_many_lists")
        wait_until(lambda: requests.post(url, data=body, timeout=10).status_code == 202)


# --- descriptors ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("most", [120, 256, 512])
def test_few_descriptors_keep_nobody_out(tmp_path: Path, most: int) -> None:
    with Service(tmp_path) as service:
        service.enter = ("prlimit", f"--nofile={most}")
        command = service.start_server()
        clients = [connect(service) for _ in range(most + 50)]
        try:
            for _ in range(10):
                answer = requests.get(f"{service.url}/check?id=none", timeout=10)
                assert answer.status_code == 404
            posted = requests.post(
                f"{service.url}/submit", data={"url": "http://a.example"}, timeout=10
            )
            assert posted.status_code == 202
        finally:
            for client in clients:
                client.close()
        assert command.lines.count("level=warning") <= 1
        assert "level=error" not in command.lines


@pytest.mark.slow
def test_a_shortage_of_descriptors_is_one_line_and_no_busy_loop(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        command = service.start_server()
        pid = command.process.pid
        used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 4, hard))
        clients = [connect(service) for _ in range(60)]
        try:
            command.wait_for_line('event=connections_wait reason="Too many open files"')
            begun, seconds = time.monotonic(), cpu_seconds(pid)
            wait_until(lambda: time.monotonic() - begun > 2)
            assert cpu_seconds(pid) - seconds < 0.5
            assert command.lines.count("level=warning") == 1
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
            assert requests.get(f"{service.url}/healthz", timeout=10).status_code == 200
        finally:
            for client in clients:
                client.close()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.parametrize(
    ("soft", "hard", "limit", "connections"),
    [(256, 256, 256, 72), (256, 4096, 1184, 1000), (4096, 4096, 4096, 1000), (40, 40, 40, 32)],
)
def test_connections_fit_the_descriptors(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, limit: int, connections: int
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert http_server._connections(8) == connections
    assert asked == [(limit, hard)]
