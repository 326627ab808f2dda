"""Periodic work beside jobs and mails, such as the renewal of leases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from md5light.worker.leases import now


@dataclass
class Chore:
    """Work that is due at a beat and again `seconds` later; at the next beat if it returns True."""

    work: Callable[[], object]
    seconds: float = 0.0
    due_at: float = 0.0

    def do_if_due(self) -> None:
        if now() >= self.due_at:
            pause = 0.0 if self.work() is True else self.seconds
            self.due_at = now() + pause
