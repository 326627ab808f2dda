"""Random servers that break, lie, shift and change: digests of one whole version, or a failure.

Bodies are random bytes: that a part of a file of zeros is shifted, nobody can tell. A version may
keep its date within a second and its weak ETag, but not its strong ETag.
"""

from __future__ import annotations

import gzip
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256

import pytest

from md5light.download import response as response_module
from md5light.download.downloader import Downloader, Transfer
from md5light.errors import Failure
from tests.downloads import config, head, md5
from tests.origin import Origin, Peer, chunked

SERVERS = 3000
THREADS = 8

PART = "206 Part"

#: what the servers do with a Range, apart from what they should
LIES = (
    "shift", "later", "total", "length", "multipart", "gzip", "bare", "weak", "rest",
    "rest, unsaid", "whole", "status", "ignore", "elsewhere", "junk", "more",
)  # fmt: skip


@dataclass
class Server:
    """One random server: its behaviour follows from its number alone."""

    number: int
    honest: bool = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.number)
        roll = self.random
        self.honest = self.number % 4 == 0
        size = roll.choice([0, 50, 100, 1000, 20_000, 70_000, roll.randrange(200_000)])
        self.versions = [roll.randbytes(size)]
        for _ in range(roll.choice([0, 1, 1, 2])):
            self.versions.append(self._changed(self.versions[-1]))
        self.validators = roll.choice(["etag", "both", "weak", "dates", "second"])
        self.version = 0
        self.breaks = roll.choice([0.6, 0.8, 0.95])
        self.lies = [] if self.honest else roll.sample(LIES, 3)

    def answer(self, peer: Peer) -> None:
        roll = self.random
        if roll.random() < 0.4:
            self.version = min(self.version + 1, len(self.versions) - 1)
        if roll.random() < 0.05:
            return  # no answer
        start = peer.range_start()
        body = self.versions[self.version]
        if start is None or not self._unchanged(peer):
            self._send(peer, "200 OK", body, [])
        elif start >= len(body):
            self._send(peer, "416 Too Far", b"", [f"Content-Range: bytes */{len(body)}"])
        elif self.lies and roll.random() < 0.6:
            self._lie(peer, body, start, roll.choice(self.lies))
        else:
            self._send(peer, PART, body[start:], [span(start, body)])

    def _changed(self, body: bytes) -> bytes:
        """Change the size and everything, or the two ends alone: the middle is equal then."""
        roll = self.random
        if len(body) < 2 or roll.random() < 0.2:
            return roll.randbytes(len(body) + roll.randrange(3))
        return bytes([body[0] ^ 1]) + body[1:-1] + bytes([body[-1] ^ 1])

    def _headers(self, kind: str, version: int) -> list[str]:
        second = 0 if kind == "second" else 2 * version
        etag = {"weak": f'ETag: W/"{self.number}"', "etag": f'ETag: "{version}"'}.get(
            kind.replace("both", "etag"), ""
        )
        dates = [f"Last-Modified: {date(second)}", f"Date: {date(second + (kind != 'second'))}"]
        return [*([etag] if etag else []), *(dates if kind in ("both", "dates", "second") else [])]

    def _unchanged(self, peer: Peer) -> bool:
        """Judge If-Range as a server should; one in three liars does not know it."""
        value = peer.headers.get("if-range", "")
        mine = self._headers(self.validators, self.version)
        return any(value == line.partition(": ")[2] for line in mine) or (
            not self.honest and self.number % 3 == 0
        )

    def _lie(self, peer: Peer, body: bytes, start: int, lie: str) -> None:
        says, other = span(start, body), self.versions[-1][start:]
        if lie == "gzip":
            zipped = gzip.compress(body)[start:]
            self._send(peer, PART, zipped, [says, "Content-Encoding: gzip"])
        elif lie == "bare":
            self._send(peer, PART, other, [says], headers=[])
        elif lie == "weak":
            headers = self._headers(self.validators, self.version)
            weak = [line.replace("ETag: ", "ETag: W/") for line in headers if "ETag" in line]
            self._send(peer, PART, other, [says], headers=weak)
        elif lie == "junk":
            peer.send(other)
        else:
            self._send(peer, *self._false_answer(peer, body, start, lie))

    def _false_answer(
        self, peer: Peer, body: bytes, start: int, lie: str
    ) -> tuple[str, bytes, list[str]]:
        """Return status, body and headers of a lie that keeps the validators."""
        rest, says = body[start:], span(start, body)
        by = self.random.choice([-1, 1])
        status = self.random.choice(["403 No", "404 No", "412 No", "500 No", "503 No", "203 x"])
        multipart = "Content-Type: multipart/byteranges; boundary=x"
        return {
            "shift": (PART, (b"x" + body + b"x")[start + 1 + by :][: len(rest)], [says]),
            "later": (PART, body[start + 1 :], [span(start + 1, body)]),
            "total": (PART, rest, [f"{says}0"]),
            "length": (PART, rest[:-1], [says]),
            "multipart": (PART, rest, [says, multipart]),
            "rest": ("200 OK", rest, [says]),
            "rest, unsaid": ("200 OK", rest, []),
            "whole": (PART, body, [span(0, body)]),
            "status": (status, self.versions[-1][start:], [says]),
            "ignore": ("200 OK", body, []),
            "elsewhere": ("302 Found", b"", [f"Location: {peer.path}?again"]),
            "more": (PART, rest + b"x", [says]),
        }[lie]

    def _send(
        self,
        peer: Peer,
        status: str,
        body: bytes,
        more: list[str],
        headers: list[str] | None = None,
    ) -> None:
        """Send an answer in a random framing, which may break off."""
        roll = self.random
        lines = self._headers(self.validators, self.version) if headers is None else headers
        # Where the end of the connection is the end of a 200, a break can't be told from it.
        framing = roll.choice(["length", "chunked"] + ["close"] * status.startswith("206"))
        if framing == "length":
            sent = head(*lines, *more, f"Content-Length: {len(body)}", status=status) + body
        elif framing == "chunked":
            pieces = [piece for piece in (body[: len(body) // 3], body[len(body) // 3 :]) if piece]
            sent = head(*lines, *more, "Transfer-Encoding: chunked", status=status)
            sent += chunked(*pieces)
        else:
            sent = head(*lines, *more, status=status) + body
        if roll.random() < self.breaks:
            sent = sent[: roll.randrange(len(sent) + 1)]
        peer.send(sent)


def span(start: int, body: bytes) -> str:
    return f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}"


def date(seconds: int) -> str:
    return f"Wed, 21 Oct 2015 07:28:{seconds:02} GMT"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the waits for real networks away."""
    monkeypatch.setattr(response_module, "CLOSE_SECONDS", 0.002)
    monkeypatch.setattr(response_module, "FIRST_SECONDS", 0.002)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_random_servers_never_make_a_wrong_checksum(hasty: None) -> None:
    downloader = Downloader(config(max_redirects=3), connections=THREADS, resume_pause=0)
    with Origin() as origin:

        def run(number: int) -> tuple[bool, str | None]:
            server = Server(number)
            url = origin.serve(f"/{number}", server.answer)
            try:
                hashed = downloader.download(url, Transfer(), digests=["sha256"])
            except Failure as failure:
                return server.honest, failure.code
            found = hashed.md5, hashed.sha256
            versions = [(md5(body), sha256(body).hexdigest()) for body in server.versions]
            assert found in versions, f"server {number}: {server}"
            return server.honest, None

        with ThreadPoolExecutor(THREADS) as pool:
            outcomes = list(pool.map(run, range(SERVERS)))
        resumed = sum("\r\nRange: " in head for head in origin.heads)
    downloader.close()
    done = [honest for honest, code in outcomes if code is None]
    # so that the property is one of servers that were asked for the rest, and of bodies that came
    assert resumed > SERVERS / 2
    assert len(done) > SERVERS / 5
    assert sum(done) > SERVERS / 20
