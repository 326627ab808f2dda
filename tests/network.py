"""Hosts of a test's own, each a network namespace, on one network that reaches nothing else.

    with Network() as network:
        one, other = network.host(), network.host()
        subprocess.run([*one.enter, "curl", f"http://{other.address}/"])
        with one.inside():
            requests.get(f"http://{other.address}/")
        other.cut()

Root alone can make them (ip-netns(8)).
"""

from __future__ import annotations

import contextlib
import ctypes
import subprocess
import uuid
from collections.abc import Iterable, Iterator

_libc = ctypes.CDLL(None, use_errno=True)


class Host:
    """A namespace with one address, at the end of a cable."""

    def __init__(self, name: str, address: str, socket: list[str]) -> None:
        self.address = address
        #: what a command line begins with to run there
        self.enter = ["ip", "netns", "exec", name]
        self._namespace = f"/run/netns/{name}"
        self._socket = socket

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Let the sockets that this thread makes in the block be the host's."""
        with open("/proc/thread-self/ns/net") as before, open(self._namespace) as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def cut(self) -> None:
        """Pull the cable: packets are lost without a word."""
        _ip(*self._socket, "down")

    def mend(self) -> None:
        _ip(*self._socket, "up")


class Network:
    """A switch, and the hosts that are plugged into it; all of them are gone at the end."""

    def __init__(self) -> None:
        self._name = f"md5light-{uuid.uuid4().hex[:6]}"
        self._namespaces: list[str] = []

    def __enter__(self) -> Network:
        self._switch = self._namespace("switch")
        _ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "switch", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in self._namespaces:
            _ip("netns", "delete", namespace)

    def host(self) -> Host:
        number = len(self._namespaces)
        name, address, port = self._namespace(f"host{number}"), f"10.77.0.{number}", f"port{number}"
        _ip("-n", self._switch, "link", "add", port, "type", "veth", "peer", "eth0", "netns", name)
        _ip("-n", self._switch, "link", "set", port, "master", "switch", "up")
        _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")
        return Host(name, address, ["-n", self._switch, "link", "set", port])

    def _namespace(self, name: str) -> str:
        full = f"{self._name}-{name}"
        _ip("netns", "add", full)
        self._namespaces.append(full)
        return full


def _enter(namespace: int) -> None:
    """Move this thread into a namespace (setns(2); os.setns came with Python 3.12)."""
    if _libc.setns(namespace, 0):
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*arguments: Iterable[str]) -> None:
    subprocess.run(["ip", *map(str, arguments)], check=True)
