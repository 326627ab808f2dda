"""Times as text."""

from __future__ import annotations

import functools
import time
from typing import overload


@overload
def rfc3339(seconds: float) -> str: ...
@overload
def rfc3339(seconds: None) -> None: ...
@overload
def rfc3339(seconds: float | None) -> str | None: ...
def rfc3339(seconds: float | None) -> str | None:
    """Format a Unix time by RFC 3339, in UTC, with milliseconds; None stays None."""
    if seconds is None:
        return None
    second, microseconds = divmod(round(seconds * 1e6), 1_000_000)
    return f"{_second(second)}.{microseconds // 1000:03}Z"


@functools.lru_cache(maxsize=16)  # many log lines are of one second
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
