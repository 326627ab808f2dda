"""The guard: which addresses, names and ports it lets through. Nothing here connects anywhere."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from md5light.config import DownloadConfig, Ports
from md5light.dial import AddressInfo
from md5light.download.guard import Address, Guard, OwnAddresses
from md5light.download.urls import parse
from md5light.errors import (
    Failure,
    OwnAddressesUnknown,
    PermanentFailure,
    Refused,
    TemporaryFailure,
)
from tests.origin import Origin

HERE = Path(__file__).parent


def names(**addresses: str) -> Callable[..., list[AddressInfo]]:
    """Make a resolver that knows these names, with `_` for a dot, and their addresses."""

    def resolve(host: str, port: int, **_: object) -> list[AddressInfo]:
        known = addresses.get(host.replace(".", "_"))
        if known is None:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, port),
            )
            for address in known.split()
        ]

    return resolve


def guard(networks: str = "", **addresses: str) -> Guard:
    config = DownloadConfig(
        allow_networks=tuple(ipaddress.ip_network(item) for item in networks.split())
    )
    return Guard(
        config, resolve=names(**addresses), own_addresses=lambda: {ipaddress.ip_address("8.8.4.4")}
    )


PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "192.0.1.1",
    "2606:4700::1111",
    "2a00:1450::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "64:ff9b::5db8:d822",
]

NOT_PUBLIC = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1", "127.1.2.3", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16",
    "8.8.4.4",
    "::", "::1", "::2", "::7f00:1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:8.8.4.4", "::ffff:0:8.8.8.8", "64:ff9b::8.8.4.4", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::c0a8:1", "64:ff9b::a83f:8110", "64:ff9b:1::a00:1", "64:ff9b:1::808:808",
    "64:ff9b:0:1::808:808", "100::1",
    "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1", "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::", "2002:808:808::1", "3fff::1", "2a00::5efe:a00:1", "2606:4700::5efe:7f00:1",
    "2606:4700::200:5efe:a00:1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1",
    "fe80::a9fe:a9fe",
    "febf::1", "fec0::1", "ff02::1", "ff0e::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert guard().allows(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_other_addresses_are_not(address: str) -> None:
    assert not guard().allows(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("networks", "address", "allowed"),
    [
        ("10.1.0.0/16", "10.1.2.3", True),
        ("10.1.0.0/16", "::ffff:10.1.2.3", True),
        ("10.1.0.0/16", "10.2.0.1", False),
        ("10.0.0.0/8", "64:ff9b::10.1.2.3", True),
        ("64:ff9b::/96", "64:ff9b::10.1.2.3", True),
        ("fd00::/8", "fd12::1", True),
        ("8.8.4.4/32", "8.8.4.4", True),
        ("127.0.0.0/8 ::1/128", "::1", True),
        ("127.0.0.0/8", "0.0.0.0", False),
    ],
)
def test_allow_networks_opens_networks(networks: str, address: str, allowed: bool) -> None:
    assert guard(networks).allows(ipaddress.ip_address(address)) is allowed


LITERALS = [
    "http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f000001/",
    "http://017700000001/",
    "http://0177.0.0.01/", "http://0x7f.1/",
    "http://１２７.０.０.１/", "http://0/", "http://10.0.0.1/",
    "http://169.254.169.254/latest/meta-data/", "http://2852039166/", "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/", "http://[64:ff9b::a9fe:a9fe]/", "http://[2002:7f00:1::]/",
    "http://[fd00:ec2::254]/",
    "http://localhost/", "http://LOCALHOST./", "http://a.localhost/",
    "http://localhost.localdomain/",
    "http://localhost6/", "http://ip6-localhost/", "http://ｌｏｃａｌｈｏｓｔ/",
]  # fmt: skip


@pytest.mark.parametrize("url", LITERALS)
def test_never_allowed_hosts_are_refused_without_a_look_up(url: str) -> None:
    with pytest.raises(Refused) as refused:
        guard().check(parse(url))
    assert refused.value.code == "address_not_allowed"
    with pytest.raises(PermanentFailure) as failure:
        guard(localhost="1.1.1.1").resolve(parse(url))
    assert failure.value.code == "address_not_allowed"


@pytest.mark.parametrize(
    "url", ["http://example.org/", "http://1.1.1.1/", "http://localhost.example/", "http://x:8080/"]
)
def test_other_hosts_pass_at_submit(url: str) -> None:
    guard().check(parse(url))


@pytest.mark.parametrize(
    "url", ["http://example.org:22/", "https://1.1.1.1:1023/", "http://localhost:1/"]
)
def test_closed_ports_are_refused_at_submit(url: str) -> None:
    with pytest.raises(Refused) as refused:
        guard("127.0.0.0/8").check(parse(url))
    assert refused.value.code == "port_not_allowed"
    assert "[download] allow_ports" in refused.value.message


@pytest.mark.parametrize("networks", ["127.0.0.1/32", "::1/128", "0.0.0.0/0"])
def test_localhost_is_open_where_loopback_is(networks: str) -> None:
    guard(networks).check(parse("http://localhost/"))


def test_a_name_is_looked_up_once_and_its_addresses_are_returned_in_order() -> None:
    found = guard(a_example="1.1.1.1 2606:4700::1111").resolve(parse("http://a.example:8080/"))
    assert [info[4] for info in found] == [("1.1.1.1", 8080), ("2606:4700::1111", 8080)]


def test_a_literal_needs_no_resolver() -> None:
    found = guard("127.0.0.0/8").resolve(parse("http://127.1:8000/"))
    assert [info[4] for info in found] == [("127.0.0.1", 8000)]


def failing(error: Exception) -> Callable[..., list[AddressInfo]]:
    def resolve(*_: object, **__: object) -> list[AddressInfo]:
        raise error

    return resolve


@pytest.mark.parametrize(
    ("resolve", "url", "kind", "code"),
    [
        (names(a="10.0.0.1"), "http://a/", PermanentFailure, "address_not_allowed"),
        (names(a="1.1.1.1 127.0.0.1"), "http://a/", PermanentFailure, "address_not_allowed"),
        (names(a="fe80::1%2"), "http://a/", PermanentFailure, "address_not_allowed"),
        (names(a="1.1.1.1"), "http://a:22/", PermanentFailure, "port_not_allowed"),
        (names(a=""), "http://a/", TemporaryFailure, "name_not_found"),
        (names(), "http://a/", TemporaryFailure, "name_not_found"),
        (
            failing(socket.gaierror(socket.EAI_AGAIN, "")),
            "http://a/",
            TemporaryFailure,
            "name_not_found",
        ),
        (
            failing(socket.gaierror(socket.EAI_FAIL, "")),
            "http://a/",
            TemporaryFailure,
            "name_not_found",
        ),
        (failing(UnicodeError("label too long")), "http://a/", TemporaryFailure, "name_not_found"),
        (failing(OSError("too many open files")), "http://a/", TemporaryFailure, "name_not_found"),
    ],
)
def test_what_is_not_to_be_connected_to(
    resolve: Callable[..., list[AddressInfo]], url: str, kind: type[Failure], code: str
) -> None:
    with pytest.raises(kind) as failure:
        Guard(DownloadConfig(), resolve=resolve).resolve(parse(url))
    assert failure.value.code == code
    setting = {
        "address_not_allowed": "[download] allow_networks",
        "port_not_allowed": "[download] allow_ports",
    }
    assert setting.get(code, "") in failure.value.message
    assert not re.search(r"\d+\.\d+\.\d+\.\d+|::", failure.value.message)


@pytest.mark.parametrize(
    ("networks", "addresses", "kind"),
    [
        ("127.0.0.0/8", "127.0.0.1 ::1", "IPv6 address is"),
        ("::1/128", "127.0.0.1 ::1", "IPv4 address is"),
        ("127.0.0.0/8", "10.0.0.1 ::1", "addresses are"),
        ("", "10.0.0.1 10.0.0.2 1.1.1.1", "IPv4 address is"),
    ],
)
@pytest.mark.parametrize("host", ["localhost", "files.example"])
def test_a_refused_name_says_of_which_kind_its_address_is(
    networks: str, addresses: str, kind: str, host: str
) -> None:
    if not networks and host == "localhost":
        kind = "addresses are"  # it is refused before it is looked up
    judge = guard(networks, localhost=addresses, files_example=addresses)
    with pytest.raises(PermanentFailure) as failure:
        judge.resolve(parse(f"http://{host}/"))
    assert failure.value.message == (
        f"The host's {kind} not open to downloads; see [download] allow_networks."
    )


def test_allow_ports_opens_ports() -> None:
    config = DownloadConfig(allow_ports=Ports(((22, 22),)))
    assert Guard(config, resolve=names(a="1.1.1.1")).resolve(parse("http://a:22/"))


# --- the machine's own addresses ------------------------------------------------------------------


def test_the_machine_knows_its_own_addresses() -> None:
    own: frozenset[Address] = OwnAddresses()()
    assert ipaddress.ip_address("127.0.0.1") in own
    for address in subprocess.check_output(["hostname", "-I"], text=True).split():
        assert ipaddress.ip_address(address) in own


#: a machine with public addresses, in a network namespace and with /proc as the units have it
MACHINE = """
mount -t proc -o subset=pid proc /proc
ip link set lo up
ip link add one type veth peer name two
ip link set one up
ip link set two up
ip address add 93.184.216.1/24 dev one
ip address add 93.184.216.2/24 dev one
ip address add 1.1.1.1/32 dev two
ip address add 2606:4700::1/64 dev one nodad
ip address add 2606:4700::2/128 dev two nodad
exec "$0" -c "$1"
"""

#: judges them, and two that are added while it runs
JUDGES = """
import ipaddress, subprocess, time
from md5light.config import DownloadConfig
from md5light.download.guard import Guard
guard = Guard(DownloadConfig())
def allows(address):
    return guard.allows(ipaddress.ip_address(address))
for own in ("93.184.216.1", "93.184.216.2", "1.1.1.1", "2606:4700::1", "2606:4700::2"):
    assert not allows(own), own
for own in ("::ffff:93.184.216.1", "64:ff9b::1.1.1.1"):
    assert not allows(own), own
added = {"93.184.217.1": "one", "2606:4700:1::1": "two"}
assert all(map(allows, added))
for later, device in added.items():
    subprocess.run(["ip", "address", "add", later, "dev", device], check=True)
begun = time.monotonic()
while any(map(allows, added)):
    assert time.monotonic() - begun < 5
    time.sleep(0.05)
for other in ("93.184.216.3", "2606:4700::3"):
    assert allows(other), other
"""

#: connects to one of them although its list of own addresses is empty: what is left is to look at
#: the connection
CONNECTS = """
import ipaddress, sys
from md5light.config import DownloadConfig
from md5light.download.connection import Connections
from md5light.download.guard import Guard
from md5light.download.transfer import Transfer
from md5light.download.urls import parse
from md5light.download.wire import Limits
from md5light.errors import PermanentFailure
from tests.origin import Origin
def status(url, *networks):
    config = DownloadConfig(allow_networks=tuple(map(ipaddress.ip_network, networks)))
    connections = Connections(config, Guard(config, own_addresses=lambda: ()), 1)
    with connections.get(parse(url), "", Transfer(), Limits.of(config)) as response:
        return response.status
with Origin(host="93.184.216.1") as origin:
    try:
        status(origin.url("/"))
    except PermanentFailure as failure:
        assert failure.code == "address_not_allowed", failure.code
        assert "IPv4" in failure.message and "93." not in failure.message, failure.message
    assert origin.requests() == 0
    assert status(origin.url("/"), "93.184.216.0/24") == 404
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [JUDGES, CONNECTS])
def test_own_public_addresses_are_refused_under_the_units(script: str) -> None:
    command = ["unshare", "--net", "--mount", "sh", "-ec", MACHINE, sys.executable, script]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(HERE.parent)}, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["server", "worker"])
def test_nothing_starts_where_own_addresses_can_not_be_read(command: str, tmp_path: Path) -> None:
    started = subprocess.run(
        ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh",
         sys.executable, "-c", f"from md5light.cli import {command}; {command}()"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert started.returncode == 1
    (line,) = started.stderr.splitlines()
    assert line.startswith(f"md5light-{command}: can't read the machine's own addresses in /proc")


@pytest.fixture
def proc_net(tmp_path: Path) -> Path:
    """A folder with what Linux says of addresses now."""
    for name in ("fib_trie", "if_inet6"):
        (tmp_path / name).write_text((Path("/proc/self/net") / name).read_text())
    return tmp_path


@pytest.mark.parametrize("name", ["fib_trie", "if_inet6"])
@pytest.mark.parametrize("content", [None, "rubbish\n   /32 host LOCAL\n"])
def test_what_can_not_be_read_is_no_empty_list(
    proc_net: Path, name: str, content: str | None
) -> None:
    if content is None:
        (proc_net / name).unlink()
    else:
        (proc_net / name).write_text(content)
    with pytest.raises(OwnAddressesUnknown, match="can't read the machine's own addresses"):
        OwnAddresses(proc_net)


def test_what_can_not_be_read_later_refuses_for_a_time(
    proc_net: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("md5light.download.guard.OWN_ADDRESSES_SECONDS", 0.0)
    judge = Guard(
        DownloadConfig(), resolve=names(a="1.1.1.1"), own_addresses=OwnAddresses(proc_net)
    )
    url = parse("http://a/")
    assert judge.resolve(url)
    text = (proc_net / "fib_trie").read_text()
    (proc_net / "fib_trie").unlink()
    for _ in range(3):
        with pytest.raises(TemporaryFailure) as failure:
            judge.resolve(url)
        assert failure.value.code == "connection_failed"
        assert "addresses of its own machine" in failure.value.message
    judge.check(parse("http://1.1.1.1/"))  # a submission is taken: a worker judges it again
    assert [record.getMessage() for record in caplog.records] == ["own_addresses_unknown"]
    (proc_net / "fib_trie").write_text(text)
    assert judge.resolve(url)


#: refused with the default configuration and, to show that the versions work at all, hashed with
#: loopback opened
FAILS_CLOSED = """
import ipaddress, socket, sys, urllib3
from md5light.config import DownloadConfig
from md5light.download.downloader import Downloader, Transfer
from md5light.errors import PermanentFailure
port = int(sys.argv[1])
loopback = (ipaddress.ip_network("127.0.0.1"),)
def resolve(host, port, **_):
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
for host in ("127.0.0.1", "rebound.example"):
    for scheme in ("http", "https"):
        try:
            downloader = Downloader(DownloadConfig(), resolve=resolve)
            downloader.download(f"{scheme}://{host}:{port}/refused", Transfer())
        except PermanentFailure as failure:
            assert failure.code == "address_not_allowed", failure.code
opened = Downloader(DownloadConfig(allow_networks=loopback), resolve=resolve)
sums = {opened.download(f"http://opened.example:{port}/open", Transfer()).md5 for _ in range(3)}
print(urllib3.__version__, *sums)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["oldest", "newest"])
def test_loopback_is_refused_on_both_ends_of_the_range_of_urllib3(end: str, tmp_path: Path) -> None:
    setup = (HERE.parent / "setup.py").read_text(encoding="utf-8")
    admitted = dict(re.findall(r'"(urllib3|requests)>=([0-9.]+),<3"', setup))
    wanted = [f"{name}{'==' + low if end == 'oldest' else '<3'}" for name, low in admitted.items()]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    pip += ["--no-deps", "--no-compile"]
    subprocess.run([*pip, "--target", str(tmp_path), *wanted], check=True)
    with Origin() as origin:
        origin.serve("/open", b"hello")
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{HERE.parent}"}
        command = [sys.executable, "-c", FAILS_CLOSED, str(origin.port)]
        printed = subprocess.check_output(command, env=environment, text=True)
        assert (origin.requests(), origin.connections) == (3, 1)  # and it keeps connections
    version, md5 = printed.split()
    assert md5 == "5d41402abc4b2a76b9719d911017c592"
    assert end == "newest" or version.startswith(admitted["urllib3"])
