"""Digests of a stream: in the same thread while it is short or slow, else in further threads."""

from __future__ import annotations

import hashlib
import mmap
import queue
import threading
import time
from collections.abc import Callable, Collection

#: pieces grow from the first size to the second as long as each is filled within FAST_SECONDS
SMALL_PIECE = 64 * 1024
LARGE_PIECE = 1024 * 1024
FAST_SECONDS = 0.2

#: large pieces of one stream: one is being filled while the others are hashed
RING = 4

#: bytes of the stream that `tail` can return
TAIL = 16 * 1024


class Hasher:
    """Takes a stream piece by piece: read into `room()`, then call `filled(count)`.

    It computes MD5 and the `further` digests, named as in hashlib. Use it in a `with` block, which
    ends its threads. `rings` bounds how many streams have hashing threads, and so the memory of all
    hashers that share it.
    """

    def __init__(self, rings: threading.Semaphore, further: Collection[str] = ()) -> None:
        self._rings = rings
        self._algorithms = ("md5", *further)
        self._threads: list[_Thread] = []
        self.restart()

    def __enter__(self) -> Hasher:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_threads()

    def restart(self) -> None:
        """Forget everything: a new stream begins."""
        self._stop_threads()
        # These are checksums, not security: so a system in FIPS mode allows them.
        self._digests = {
            name: getattr(hashlib, name)(usedforsecurity=False) for name in self._algorithms
        }
        self._tail = b""
        self._start_piece(memoryview(b""))

    def room(self, expected: int | None) -> memoryview:
        """Return memory to read into; `expected` is how many bytes remain, if that is known."""
        if not self._piece:
            size = SMALL_PIECE if expected is None else max(1, min(expected, SMALL_PIECE))
            self._start_piece(memoryview(bytearray(size)))
        return self._piece[self._used :]

    def filled(self, count: int) -> None:
        """Hash the first `count` bytes of `room()`, now or with later ones."""
        self._used += count
        if self._used == len(self._piece):
            self._pass_on()

    def tail(self) -> bytes:
        """Return the last bytes of the stream, at most TAIL of them."""
        return (self._tail + bytes(self._piece[max(0, self._used - TAIL) : self._used]))[-TAIL:]

    def hexdigests(self) -> dict[str, str]:
        """Return the digests of the whole stream by algorithm, in lower-case hexadecimal."""
        self._hash(self._piece[: self._used])
        self._stop_threads()
        return {name: digest.hexdigest() for name, digest in self._digests.items()}

    def _hash(self, piece: memoryview) -> None:
        """Hash `piece` here, or hand it to the threads."""
        if self._threads:
            for thread in self._threads:
                thread.pieces.put(piece)
        else:
            for digest in self._digests.values():
                digest.update(piece)

    def _start_piece(self, piece: memoryview) -> None:
        self._piece = piece
        self._used = 0
        self._since = time.monotonic()

    def _pass_on(self) -> None:
        piece = self._piece
        self._tail = self.tail()
        self._hash(piece)
        if self._threads:
            # All threads get the same pieces in the same order, so each returns the same one.
            (piece, *_) = [thread.hashed.get() for thread in self._threads]
        elif len(piece) >= SMALL_PIECE and time.monotonic() - self._since < FAST_SECONDS:
            if len(piece) < LARGE_PIECE:
                piece = _memory(2 * len(piece))
            elif self._rings.acquire(blocking=False):
                self._start_threads()
        self._start_piece(piece)

    def _start_threads(self) -> None:
        """Start a thread for each digest; if not all can start, hash in this thread."""
        self._threads = [_Thread(digest.update) for digest in self._digests.values()]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:
            self._stop_threads()
            return
        for _ in range(RING - 1):
            piece = _memory(LARGE_PIECE)
            for thread in self._threads:
                thread.hashed.put(piece)

    def _stop_threads(self) -> None:
        if self._threads:
            for thread in self._threads:
                thread.stop()
            self._threads = []
            self._rings.release()


class _Thread(threading.Thread):
    """Updates one digest with the pieces it is given, in their order."""

    def __init__(self, update: Callable[[memoryview], None]) -> None:
        super().__init__(name="hasher", daemon=True)
        self.pieces: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        self.hashed: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._update = update

    def run(self) -> None:
        while (piece := self.pieces.get()) is not None:
            self._update(piece)
            self.hashed.put(piece)

    def stop(self) -> None:
        """Wait until all given pieces are hashed, and end the thread if it was started."""
        if self.ident is not None:
            self.pieces.put(None)
            self.join()


def _memory(size: int) -> memoryview:
    """Allocate memory that goes back to the system when it is freed; heaps of threads keep it."""
    return memoryview(mmap.mmap(-1, size))
