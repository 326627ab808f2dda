"""Dates in headers."""

from __future__ import annotations

import datetime
import email.utils


def parse_date(value: str) -> datetime.datetime | None:
    """Read an HTTP date in any of its forms (RFC 9110, 5.6.7); None where it is malformed."""
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # The old forms name no zone or an unknown one: they mean GMT.
    return date if date.tzinfo else date.replace(tzinfo=datetime.timezone.utc)
