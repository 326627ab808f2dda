"""Waiting for what happens in other threads and processes, without guessing how long that takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: seconds between two looks, the first ones and the later ones; they grow with the time waited, for
#: a look may cost more than a pause, such as a request to a server
FIRST_PAUSE, LAST_PAUSE = 0.005, 0.1

#: how long such a pause is, as a part of the time waited
SHARE = 1 / 8


def wait_until(condition: Callable[[], T], timeout: float = 30.0, message: str = "") -> T:
    """Return the first true value of `condition`; an AssertionError after `timeout` seconds."""
    begun = time.monotonic()
    while True:
        waited = time.monotonic() - begun
        value = condition()
        if value:
            return value
        if waited >= timeout:
            awaited = message or getattr(condition, "__qualname__", repr(condition))
            raise AssertionError(f"waited {timeout:g} s in vain for: {awaited} (last: {value!r})")
        time.sleep(min(max(FIRST_PAUSE, waited * SHARE), LAST_PAUSE))
