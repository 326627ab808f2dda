"""What the tests of downloads share: a quick configuration, answers, a server with ranges."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import hashlib
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator

import pytest

from md5light.config import DownloadConfig
from md5light.dial import AddressInfo
from md5light.download.downloader import Downloader, Hashed, Transfer
from md5light.errors import Failure
from tests.origin import Peer, reply

#: what no message may show: the origin puts it wherever it sends something
SECRET = b"s3cr3t"

BIG = os.urandom(3_000_000)

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


def config(**values: object) -> DownloadConfig:
    quick: dict[str, object] = {
        "connect_timeout": 1.0,
        "read_timeout": 1.0,
        "first_byte_timeout": 1.0,
        "max_seconds": 10.0,
    }
    every = {"allow_networks": LOOPBACK, **quick, **values}
    return DownloadConfig(**every)  # type: ignore[arg-type]


def info(address: str, port: int) -> AddressInfo:
    return socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)


def resolve(host: str, port: int, **_: object) -> list[AddressInfo]:
    """Know every name under .test as 127.0.0.1, and no other."""
    if not host.endswith(".test"):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")
    return [info("127.0.0.1", port)]


@contextlib.contextmanager
def downloading(**values: object) -> Iterator[Callable[[str], Hashed]]:
    downloader = Downloader(config(**values), resolve=resolve, resume_pause=0.001)
    yield lambda url: downloader.download(url, Transfer())
    downloader.close()


Fetch = Callable[[str], Hashed]


def failure_of(fetch: Fetch, url: str) -> Failure:
    with pytest.raises(Failure) as caught:
        fetch(url)
    assert SECRET.decode() not in caught.value.message
    assert "127.0.0.1" not in caught.value.message
    return caught.value


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def head(*headers: str, status: str = "200 OK", version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join([f"{version} {status}", *headers, "", ""]).encode()


CHUNKED = head("Transfer-Encoding: chunked")

ETAG = 'ETag: "v1"'


def http_date(seconds: float) -> str:
    return email.utils.format_datetime(
        datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(0, seconds)
    )


DATE = "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT"
#: a second later: only then is that date a validator
LATER = "Date: Wed, 21 Oct 2015 07:28:01 GMT"


def part(peer: Peer, body: bytes, piece: int, *headers: str) -> None:
    """Answer as a server with ranges does, but break off after `piece` bytes."""
    start = peer.range_start()
    if start is None:
        peer.send(reply(b"", "200 OK", *headers, length=len(body)))
    else:
        span = f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}"
        peer.send(reply(b"", "206 Partial Content", span, *headers, length=len(body) - start))
    peer.send(body[start or 0 :][:piece])
