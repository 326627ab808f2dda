"""The view that other threads have of a download attempt: its progress, and how to stop it."""

from __future__ import annotations

from collections.abc import Callable

from md5light.errors import Stopped
from md5light.interrupt import Interrupt

Admit = Callable[[list[str]], set[str]]


class Transfer(Interrupt):
    """`bytes_done` and `bytes_total` (None: not known) may be read at any time, from any thread."""

    def __init__(self, admit: Admit = set) -> None:
        """`admit` is given a hop's addresses before it connects, and returns those it may use."""
        super().__init__()
        self.admit = admit
        self.bytes_done = 0
        self.bytes_total: int | None = None

    def stop(self) -> None:
        """Make the download raise Stopped at once, even while it waits."""
        self.end(Stopped("the download was stopped"))
