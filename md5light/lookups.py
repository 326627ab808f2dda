"""Name look-ups with bounds on their time and number, since nothing can stop getaddrinfo."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from md5light.errors import OutOfResources, TemporaryFailure
from md5light.interrupt import Interrupt

T = TypeVar("T")


class Lookups:
    """Runs look-ups, each in a thread of its own, `most` at once."""

    def __init__(self, most: int) -> None:
        self._places = threading.BoundedSemaphore(most)

    def run(self, look_up: Callable[[], T], seconds: float, interrupt: Interrupt) -> T:
        """Return what `look_up` returns, or raise its error; `timed_out` after `seconds`."""
        outcome: list[T | Exception] = []

        def run() -> None:
            try:
                outcome.append(look_up())
            except Exception as error:  # noqa: BLE001 - the thread that waits raises it
                outcome.append(error)
            finally:
                self._places.release()
                interrupt.notify()

        self._start(run)
        if not interrupt.wait(lambda: outcome, seconds):
            raise TemporaryFailure("timed_out", "The name servers did not answer in time.")
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    def _start(self, run: Callable[[], None]) -> None:
        if not self._places.acquire(blocking=False):
            raise TemporaryFailure("name_not_found", "Too many names wait for silent name servers.")
        try:
            threading.Thread(target=run, name="look-up", daemon=True).start()
        except RuntimeError:
            self._places.release()
            raise OutOfResources(
                "connection_failed", "This machine has no thread left to look up the host's name."
            ) from None
