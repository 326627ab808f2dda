"""The MD5 of a stream, in pieces of any size, with and without a second thread."""

from __future__ import annotations

import threading

import pytest

from md5light.download.hasher import LARGE_PIECE, TAIL, Hasher
from tests.downloads import BIG, md5


def feed(hasher: Hasher, data: bytes, piece: int, expected: int | None = None) -> None:
    position = 0
    while position < len(data):
        room = hasher.room(expected)
        count = min(len(room), piece, len(data) - position)
        room[:count] = data[position : position + count]
        hasher.filled(count)
        position += count


@pytest.mark.parametrize("expected", [None, 1000, len(BIG)])
@pytest.mark.parametrize("piece", [997, 16_384, LARGE_PIECE])
def test_the_tail_is_the_end_of_the_stream(piece: int, expected: int | None) -> None:
    with Hasher(threading.Semaphore(1)) as hasher:
        assert hasher.tail() == b""
        done = 0
        for size in (1, 5000, TAIL, 100_000, 2 * LARGE_PIECE):
            data = (BIG + BIG)[done : done + size]
            feed(hasher, data, piece, expected)
            done += len(data)
            assert hasher.tail() == (BIG + BIG)[:done][-TAIL:]
        assert hasher.hexdigest() == md5((BIG + BIG)[:done])


def test_a_new_stream_has_no_tail() -> None:
    with Hasher(threading.Semaphore(1)) as hasher:
        feed(hasher, BIG, LARGE_PIECE)
        hasher.restart()
        assert hasher.tail() == b""
        feed(hasher, b"hello", 5)
        assert hasher.hexdigest() == md5(b"hello")


def test_without_a_thread_it_hashes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    rings = threading.Semaphore(1)
    with monkeypatch.context() as limited, Hasher(rings) as hasher:
        limited.setattr(threading.Thread, "start", refuse)
        feed(hasher, BIG * 3, LARGE_PIECE)
        assert hasher.hexdigest() == md5(BIG * 3)
    # the ring was not lost
    assert rings.acquire(blocking=False)
