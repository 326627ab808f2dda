"""How long a server asks its clients to wait: Retry-After and the headers of rate limits."""

from __future__ import annotations

import datetime
import re
import time

from md5light.download.dates import parse_date
from md5light.download.response import Response

#: the longest wait that is respected, in seconds
MAX_SECONDS = 3600.0

#: from these numbers on a reset is a Unix time, in seconds or in milliseconds, and not a delay
EPOCH = 10**9
EPOCH_MILLISECONDS = 10**12

#: headers with the time of a limit's reset, and those with the requests left. RateLimit-Reset is
#: from early versions of draft-ietf-httpapi-ratelimit-headers, the others are older conventions
RESETS = {
    "ratelimit-reset": "ratelimit-remaining",
    "x-ratelimit-reset": "x-ratelimit-remaining",
    "x-rate-limit-reset": "x-rate-limit-remaining",
}


def asked_rest(response: Response) -> float | None:
    """Return the seconds until the server wants the next request, after it has refused one.

    Retry-After comes first, then the reset of a limit with no requests left.
    """
    waits = [retry_after(response)]
    for reset, remaining in RESETS.items():
        if _number(response.header(remaining)) in (None, 0):
            waits.append(_until(_number(response.header(reset))))
    waits.append(_rate_limit(response.header("ratelimit")))
    return next((wait for wait in waits if wait is not None), None)


def retry_after(response: Response) -> float | None:
    """Read Retry-After, seconds or a date (RFC 9110, 10.2.3)."""
    value = response.header("retry-after")
    if value is None:
        return None
    if re.fullmatch("[0-9]+", value):
        return _bounded(float(value[:20]))
    date = parse_date(value)
    if date is None:
        return None
    return _bounded((date - datetime.datetime.now(datetime.timezone.utc)).total_seconds())


def _rate_limit(value: str | None) -> float | None:
    """Read RateLimit of that draft: `"name";r=0;t=30`, earlier `limit=10, remaining=0, reset=30`.

    Of several limits the one with the latest reset counts.
    """
    if value is None:
        return None
    resets = re.findall(r"\b(?:r|remaining)=0\b[^,]*?[;,]\s*(?:t|reset)=([0-9]{1,15})", value)
    return max((_bounded(float(seconds)) for seconds in resets), default=None)


def _until(number: float | None) -> float | None:
    """Return the seconds until a reset that is a number of seconds or a Unix time."""
    if number is None:
        return None
    if number >= EPOCH_MILLISECONDS:
        number /= 1000
    return _bounded(number - time.time() if number >= EPOCH else number)


def _number(value: str | None) -> float | None:
    return float(value) if value and re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,9})?", value) else None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), MAX_SECONDS)
