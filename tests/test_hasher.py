"""The digests of a stream, in pieces of any size, with and without threads of its own."""

from __future__ import annotations

import functools
import hashlib
import threading

import pytest

from md5light.download.hasher import LARGE_PIECE, RING, SMALL_PIECE, TAIL, Hasher
from tests.downloads import BIG

FURTHER = ("sha1", "sha256", "sha512")


@functools.cache  # for the few streams that several tests hash
def every(data: bytes, further: tuple[str, ...] = FURTHER) -> dict[str, str]:
    return {name: hashlib.new(name, data).hexdigest() for name in ("md5", *further)}


def threads() -> int:
    return sum(thread.name == "hasher" for thread in threading.enumerate())


def feed(hasher: Hasher, data: bytes, piece: int, expected: int | None = None) -> None:
    position = 0
    while position < len(data):
        room = hasher.room(expected)
        count = min(len(room), piece, len(data) - position)
        room[:count] = data[position : position + count]
        hasher.filled(count)
        position += count


@pytest.mark.parametrize("further", [(), ("sha256",), FURTHER])
@pytest.mark.parametrize("expected", [None, 1000, len(BIG)])
@pytest.mark.parametrize("piece", [997, 16_384, LARGE_PIECE])
def test_the_tail_and_the_digests_are_those_of_the_stream(
    piece: int, expected: int | None, further: tuple[str, ...]
) -> None:
    with Hasher(threading.Semaphore(1), further) as hasher:
        assert hasher.tail() == b""
        done = 0
        for size in (1, 5000, TAIL, 100_000, 2 * LARGE_PIECE):
            data = (BIG + BIG)[done : done + size]
            feed(hasher, data, piece, expected)
            done += len(data)
            assert hasher.tail() == (BIG + BIG)[:done][-TAIL:]
        assert hasher.hexdigests() == every((BIG + BIG)[:done], further)


@pytest.mark.parametrize(
    "size", [0, 1, SMALL_PIECE, len(BIG), pytest.param(30_000_000, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("rings", [0, 1])
def test_a_new_stream_forgets_the_one_before(size: int, rings: int) -> None:
    data = BIG * -(-size // len(BIG))
    with Hasher(threading.Semaphore(rings), FURTHER) as hasher:
        feed(hasher, data[:size][::-1], LARGE_PIECE)
        hasher.restart()
        assert hasher.tail() == b""
        feed(hasher, data[:size], LARGE_PIECE)
        assert hasher.hexdigests() == every(data[:size])


def test_each_digest_of_a_large_stream_has_a_thread_and_all_share_one_ring() -> None:
    with Hasher(threading.Semaphore(1), FURTHER) as hasher:
        rooms = set()
        for _ in range(50):
            room = hasher.room(None)
            rooms.add(id(room.obj))
            hasher.filled(len(room))
        assert threads() == 4
        # the ring, and the pieces that came before it
        assert len(rooms) <= RING + 6
    assert not threads()


@pytest.mark.parametrize("started", range(4))
def test_where_not_every_thread_can_be_had_it_hashes_by_itself(
    monkeypatch: pytest.MonkeyPatch, started: int
) -> None:
    start = threading.Thread.start
    left = [started]

    def start_some(thread: threading.Thread) -> None:
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    rings = threading.Semaphore(1)
    with monkeypatch.context() as limited, Hasher(rings, FURTHER) as hasher:
        limited.setattr(threading.Thread, "start", start_some)
        feed(hasher, BIG * 3, LARGE_PIECE)
        assert not threads()
        assert hasher.hexdigests() == every(BIG * 3)
    # the ring was not lost
    assert rings.acquire(blocking=False)
