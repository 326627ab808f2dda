"""Where the server listens: names, every address, Unix sockets, and what it says about each."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from md5light.errors import ListenError
from md5light.web.sockets import listening_sockets, url_of
from tests.service import Command, Service

AddressInfo = tuple[socket.AddressFamily, int, int, str, tuple[object, ...]]

#: an address of the network for documentation, which no machine has
NOBODYS = "198.51.100.1"


def port_of(listening: socket.socket) -> int:
    port: int = listening.getsockname()[1]
    return port


@contextlib.contextmanager
def listening(host: str, port: int = 0) -> Iterator[list[socket.socket]]:
    opened = listening_sockets(host, port)
    try:
        yield opened
    finally:
        for each in opened:
            each.close()


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names and their addresses, as /etc/hosts would have them."""
    names: dict[str, list[str]] = {}
    look_up = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, **options: int) -> list[AddressInfo]:
        addresses = names.get(host, [host])
        return [info for each in addresses for info in look_up(each, port, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


@pytest.mark.parametrize("host", ["::", "0::0", "0:0:0:0:0:0:0:0"])
def test_every_address_is_one_of_ipv4_too(host: str) -> None:
    with listening(host) as opened:
        port = port_of(opened[0])
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family) as client:
                client.connect((address, port))


@pytest.mark.slow
def test_ipv4_clients_of_every_address_keep_their_address(tmp_path: Path) -> None:
    with Service(tmp_path, server={"port": 0, "host": "::"}) as service:
        command = service.start_server()
        port = service.url.rpartition(":")[2]
        assert requests.get(f"http://127.0.0.1:{port}/nothing", timeout=10).status_code == 404
        assert requests.get(f"http://[::1]:{port}/nothing", timeout=10).status_code == 404
        command.wait_for_line("path=/nothing status=404 client=127.0.0.1 ")
        command.wait_for_line("path=/nothing status=404 client=::1 ")
        urls = re.findall(r"event=listening url=(\S+)", command.lines)
        assert urls == [f"http://[::]:{port}", f"http://0.0.0.0:{port}"]


def test_a_name_listens_where_it_can(
    hosts: dict[str, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    hosts["both"] = [NOBODYS, "127.0.0.1"]
    with listening("both") as opened:
        assert [each.getsockname()[0] for each in opened] == ["127.0.0.1"]
    [record] = caplog.records
    assert (record.levelname, record.getMessage()) == ("WARNING", "not_listening")
    assert record.__dict__["fields"] == {
        "url": f"http://{NOBODYS}:0",
        "reason": "Cannot assign requested address",
    }


def test_an_address_that_stands_twice_is_listened_on_once(hosts: dict[str, list[str]]) -> None:
    hosts["twice"] = ["127.0.0.1", "127.0.0.1", "127.0.0.2"]
    with listening("twice") as opened:
        assert [each.getsockname()[0] for each in opened] == ["127.0.0.1", "127.0.0.2"]
        assert len({port_of(each) for each in opened}) == 1


def test_a_port_in_use_at_one_address_is_not_used_at_the_other(
    hosts: dict[str, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    hosts["both"] = ["127.0.0.1", "127.0.0.2"]
    with socket.create_server(("127.0.0.2", 0)) as taken:
        with listening("both", port_of(taken)) as opened:
            assert [each.getsockname()[0] for each in opened] == ["127.0.0.1"]
        assert caplog.records[0].__dict__["fields"]["reason"] == "Address already in use"


def test_a_free_port_is_free_at_every_address(
    hosts: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts["both"] = ["127.0.0.1", "127.0.0.2"]
    with socket.create_server(("127.0.0.2", 0)) as taken:
        create, first = socket.create_server, iter([port_of(taken)])

        def create_server(address: tuple[str, int], **options: int) -> socket.socket:
            port = next(first, address[1]) if address[1] == 0 else address[1]
            return create((address[0], port), **options)  # type: ignore[arg-type]

        monkeypatch.setattr(socket, "create_server", create_server)
        with listening("both") as opened:
            assert len(opened) == 2
            assert port_of(opened[0]) == port_of(opened[1]) != port_of(taken)


def test_nothing_left_to_listen_on_is_one_line(hosts: dict[str, list[str]]) -> None:
    hosts["nobodys"] = [NOBODYS, "198.51.100.2"]
    message = "can't listen on http://nobodys:0: Cannot assign requested address"
    with pytest.raises(ListenError, match=re.escape(message)):
        listening_sockets("nobodys", 0)


# --- Unix sockets ---------------------------------------------------------------------------------


def ask(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        return client.recv(4096)


def start(service: Service) -> Command:
    command = service.start("server")
    command.wait_for_line("event=listening")
    return command


@pytest.mark.slow
def test_a_unix_socket_is_served_and_replaced_when_its_server_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    with Service(tmp_path, server={"host": f"unix:{path}"}) as service:
        for end in ("kill", "stop", "kill"):
            command = start(service)
            assert f"event=listening url=unix:{path}\n" in command.lines
            assert ask(path).startswith(b"HTTP/1.0 200 ")
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            getattr(command, end)()
            assert path.exists()


def test_the_group_of_a_unix_socket_is_that_of_a_setgid_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    group = next(iter(os.getgroups()), os.getgid())
    os.chown(folder, -1, group)
    folder.chmod(0o2750)
    with listening(f"unix:{folder}/http.sock") as [opened]:
        assert (folder / "http.sock").stat().st_gid == group
        assert url_of(opened) == f"unix:{folder}/http.sock"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("used", "Address already in use"),
        ("file", "Address already in use"),
        ("folder", "Address already in use"),
        ("nowhere", "No such file or directory"),
    ],
)
def test_a_path_that_is_taken_is_left_alone(tmp_path: Path, kind: str, reason: str) -> None:
    path = tmp_path / kind
    with socket.socket(socket.AF_UNIX) as other:
        if kind == "used":
            other.bind(str(path))
            other.listen()
        elif kind == "file":
            path.write_text("kept")
        elif kind == "folder":
            path.mkdir()
        else:
            path = path / "http.sock"
        before = path.lstat() if path.exists() else None
        message = f"can't listen on unix:{path}: {reason}"
        with pytest.raises(ListenError, match=re.escape(message)):
            listening_sockets(f"unix:{path}", 8080)
        assert (path.lstat() if path.exists() else None) == before
