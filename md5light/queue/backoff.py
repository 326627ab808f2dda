"""The back-off between two attempts."""

from __future__ import annotations

import random

#: the longest back-off
LONGEST_SECONDS = 3600.0


def backoff_seconds(attempts: int, first_seconds: float, at_least: float = 0.0) -> float:
    """Return the seconds between attempt number `attempts` and the next one.

    They double from `first_seconds` up to an hour. Jitter of a quarter either way spreads attempts
    that failed together. `at_least` is the time that the other side asked for.
    """
    doubled = first_seconds * 2.0 ** min(attempts - 1, 30)
    jitter = random.uniform(0.75, 1.25)  # noqa: S311 - not a secret
    return min(LONGEST_SECONDS, max(at_least, doubled * jitter))
