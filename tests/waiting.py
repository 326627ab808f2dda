"""Waiting for what happens in other threads and processes, without guessing how long that takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: seconds between two looks
PAUSE = 0.005


def wait_until(condition: Callable[[], T], timeout: float = 30.0, message: str = "") -> T:
    """Return the first true value of `condition`; an AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= deadline
        value = condition()
        if value:
            return value
        if late:
            awaited = message or getattr(condition, "__qualname__", repr(condition))
            raise AssertionError(f"waited {timeout:g} s in vain for: {awaited} (last: {value!r})")
        time.sleep(PAUSE)
