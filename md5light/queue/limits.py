"""Limits: how much may still be submitted, by a client, for a recipient, and in all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import NamedTuple

from md5light.errors import TooMany
from md5light.queue.database import Transaction

# Both find the oldest of the latest `limit` submissions within the window: when it leaves the
# window, there is room for another. A row from the future, stored while the clock was wrong, does
# not count.

CLIENT_LIMIT = """
    select created_at from jobs
    where client = :client and created_at > :since and created_at <= :now
    order by created_at desc limit 1 offset :limit - 1
"""

RECIPIENT_LIMIT = """
    select created_at from jobs
    where lower(email) = lower(:email) and email is not null
        and created_at > :since and created_at <= :now
    order by created_at desc limit 1 offset :limit - 1
"""

COUNT_UNFINISHED = """
    select count(*) as unfinished from (
        select 1 from jobs where finished_at is null limit :limit) as counted
"""

#: the part of the room found by a count that may be filled before the next count: far from the
#: limit counts are rare, near it each submission counts, and 16 servers can't exceed it together
UNCOUNTED_SHARE = 1 / 16


class Limits(NamedTuple):
    """How much a client may submit, and how many mails a recipient gets; 0: no limit."""

    submits_per_minute: int
    mails_per_hour: int

    def locks(self, client: str | None, email: str | None) -> Iterator[str]:
        """Name the locks under which `refusal` must run."""
        if client and self.submits_per_minute:
            yield f"client {client}"
        if email and self.mails_per_hour:
            yield f"recipient {email.lower()}"

    def refusal(
        self, transaction: Transaction, client: str | None, email: str | None
    ) -> TooMany | None:
        """Return the reason why this client or this recipient must wait, if any."""
        if client and self.submits_per_minute:
            wait = _seconds_to_room(
                transaction, CLIENT_LIMIT, 60, self.submits_per_minute, client=client
            )
            if wait:
                message = "There were too many submissions from this client."
                return TooMany("too_many_submits", message, wait)
        if email and self.mails_per_hour:
            wait = _seconds_to_room(
                transaction, RECIPIENT_LIMIT, 3600, self.mails_per_hour, email=email
            )
            if wait:
                message = "There were too many mails to this recipient."
                return TooMany("too_many_mails", message, wait)
        return None


class Room:
    """The room for further unfinished jobs, counted only as often as necessary.

    `reserve` and `found` are called outside of transactions, `count` within.
    """

    LOCK = "unfinished"

    def __init__(self, max_unfinished: int) -> None:
        self._max_unfinished = max_unfinished
        self._changing = threading.Lock()
        self._uncounted = 0

    def reserve(self) -> bool:
        """Take one of the places that may be filled without a count; False: count first."""
        with self._changing:
            if self._uncounted <= 0:
                return False
            self._uncounted -= 1
            return True

    def count(self, transaction: Transaction) -> int:
        """Count how many more jobs may be stored; the caller holds LOCK."""
        row = transaction.one(COUNT_UNFINISHED, limit=self._max_unfinished)
        return self._max_unfinished - int(row["unfinished"] if row else 0)

    def found(self, room: int) -> None:
        """Let a share of the room that was found be filled without a count."""
        with self._changing:
            self._uncounted = int(room * UNCOUNTED_SHARE)


def _seconds_to_room(
    transaction: Transaction, limited: str, window: float, limit: int, **key: str
) -> float:
    """Return in how many seconds one more fits into the sliding window; 0: now."""
    now = transaction.now()
    row = transaction.one(limited, since=now - window, limit=limit, **key)
    return float(row["created_at"]) + window - now if row else 0.0
