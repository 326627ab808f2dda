"""MD5 of a stream: small pieces while it is slow or short; a second thread hashes large ones."""

from __future__ import annotations

import hashlib
import mmap
import queue
import threading
import time

#: pieces grow from the first size to the second as long as each is filled within FAST_SECONDS
SMALL_PIECE = 64 * 1024
LARGE_PIECE = 1024 * 1024
FAST_SECONDS = 0.2

#: large pieces of one stream: one is being read into while the others are hashed
RING = 4

#: bytes of the stream that `tail` can return
TAIL = 16 * 1024


class Hasher:
    """Takes a stream piece by piece: read into `room()`, then call `filled(count)`.

    For a `with` block, which ends its thread. `rings` bounds how many streams have a second thread,
    and so the memory, over all hashers that share it.
    """

    def __init__(self, rings: threading.Semaphore) -> None:
        self._rings = rings
        self._thread: threading.Thread | None = None
        self._full: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        self._empty: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self.restart()

    def __enter__(self) -> Hasher:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_thread()

    def restart(self) -> None:
        """Forget everything: a new stream begins."""
        self._stop_thread()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._tail = b""
        self._start_piece(memoryview(b""))

    def room(self, expected: int | None) -> memoryview:
        """Return where to read into; `expected` is how many bytes are still to come, if known."""
        if not self._piece:
            size = SMALL_PIECE if expected is None else max(1, min(expected, SMALL_PIECE))
            self._start_piece(memoryview(bytearray(size)))
        return self._piece[self._used :]

    def filled(self, count: int) -> None:
        """Take in the first `count` bytes of `room()`."""
        self._used += count
        if self._used == len(self._piece):
            self._pass_on()

    def tail(self) -> bytes:
        """Return the last bytes of the stream, at most TAIL of them."""
        return (self._tail + bytes(self._piece[max(0, self._used - TAIL) : self._used]))[-TAIL:]

    def hexdigest(self) -> str:
        rest = self._piece[: self._used]
        if self._thread:
            self._full.put(rest)
            self._stop_thread()
        else:
            self._hash(rest)
        return self._md5.hexdigest()

    def _hash(self, piece: memoryview) -> None:
        self._md5.update(piece)

    def _start_piece(self, piece: memoryview) -> None:
        self._piece = piece
        self._used = 0
        self._since = time.monotonic()

    def _pass_on(self) -> None:
        piece = self._piece
        self._tail = self.tail()
        if self._thread:
            self._full.put(piece)
            self._start_piece(self._empty.get())
            return
        self._hash(piece)
        if len(piece) >= SMALL_PIECE and time.monotonic() - self._since < FAST_SECONDS:
            if len(piece) < LARGE_PIECE:
                piece = _memory(2 * len(piece))
            elif self._rings.acquire(blocking=False):
                self._start_thread()
        self._start_piece(piece)

    def _start_thread(self) -> None:
        """Hash in a second thread from now on; in this one where none can be had."""
        thread = threading.Thread(target=self._run, name="hasher", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._rings.release()
            return
        self._thread = thread
        for _ in range(RING - 1):
            self._empty.put(_memory(LARGE_PIECE))

    def _stop_thread(self) -> None:
        if self._thread:
            self._full.put(None)
            self._thread.join()
            self._thread = None
            self._empty = queue.SimpleQueue()
            self._rings.release()

    def _run(self) -> None:
        while (piece := self._full.get()) is not None:
            self._hash(piece)
            self._empty.put(piece)


def _memory(size: int) -> memoryview:
    """Take memory that goes back to the system once it is free: many threads' heaps keep a lot."""
    return memoryview(mmap.mmap(-1, size))
