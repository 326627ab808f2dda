"""Limits of submissions: per client, per recipient, and in all."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import NamedTuple

from md5light.config import Config
from md5light.errors import TooMany
from md5light.queue.database import Transaction

#: the windows of the two limits
MINUTE_SECONDS = 60.0
HOUR_SECONDS = 3600.0

# These find the oldest of the latest `limit` submissions within the window: when it leaves the
# window, there is room for another. Rows from the future, stored while the clock was wrong, are
# ignored. Jobs of batches have neither client nor email: their batch has them.

CLIENT_LIMIT = """
    select created_at from jobs
    where client = :client and created_at > :since and created_at <= :now
    order by created_at desc limit 1 offset :limit - 1
"""

CLIENT_BATCHES = """
    select created_at, lines from batches
    where client = :client and created_at > :since and created_at <= :now
    order by created_at desc
"""

RECIPIENT_LIMIT = """
    select created_at from (
        select created_at from jobs
        where lower(email) = lower(:email) and email is not null
            and created_at > :since and created_at <= :now
        union all
        select opened_at from batches
        where lower(email) = lower(:email) and email is not null
            and opened_at > :since and opened_at <= :now) as mails
    order by created_at desc limit 1 offset :limit - 1
"""

UNFINISHED_OF_CLIENT = """
    select 10 * (
        select count(*) from jobs where client = :client and finished_at is null
    ) + (
        select count(*) from jobs join batches on batches.id = jobs.batch_id
        where batches.client = :client and batches.status in ('taking', 'running')
            and jobs.status in ('parked', 'queued', 'running')
    ) as tenths
"""

#: the weight of a single job among a client's unfinished ones; a job of a batch weighs 1
TENTHS = 10

COUNT_UNFINISHED = """
    select count(*) as unfinished from (
        select 1 from jobs where finished_at is null and batch_id is null limit :limit) as counted
"""

#: seconds after which a client with too many unfinished jobs may try again
UNFINISHED_RETRY_SECONDS = 60.0

#: the part of the counted room that may be filled before the next count: far from the limit counts
#: are rare, near it each submission counts, and 16 servers together can't exceed it
UNCOUNTED_SHARE = 1 / 16


class Limits(NamedTuple):
    """How much a client may submit, and how many mails a recipient gets; 0: no limit."""

    submits_per_minute: int = 0
    mails_per_hour: int = 0
    unfinished_per_client: int = 0

    @classmethod
    def configured(cls, config: Config) -> Limits:
        """Return the limits that `config` sets."""
        return cls(
            submits_per_minute=config.server.submits_per_minute,
            mails_per_hour=config.smtp.per_recipient_per_hour,
            unfinished_per_client=config.server.max_unfinished_per_client,
        )

    def locks(self, client: str | None, email: str | None) -> Iterator[str]:
        """Return the names of the locks that `refusal` needs."""
        if client and (self.submits_per_minute or self.unfinished_per_client):
            yield f"client {client}"
        if email and self.mails_per_hour:
            yield f"recipient {email.lower()}"

    def refusal(
        self, transaction: Transaction, client: str | None, email: str | None
    ) -> TooMany | None:
        """Return the reason why this client or this recipient must wait, if any."""
        if client and self.submits_per_minute:
            wait = _seconds_to_submit(transaction, client, self.submits_per_minute)
            if wait:
                return _too_many_submits(wait)
        if client and self._tenths_left(transaction, client) < TENTHS:
            return _too_many_unfinished()
        if email and self.mails_per_hour:
            wait = _seconds_to_room(
                transaction, RECIPIENT_LIMIT, HOUR_SECONDS, self.mails_per_hour, email=email
            )
            if wait:
                message = "There were too many mails to this recipient."
                return TooMany("too_many_mails", message, wait)
        return None

    def is_untouched(self, transaction: Transaction, client: str) -> bool:
        """Tell whether the client has submitted nothing in the last minute."""
        return not _seconds_to_submit(transaction, client, 1)

    def above(
        self, transaction: Transaction, client: str, *, unlimited: bool = False
    ) -> TooMany | None:
        """Return the reason why the client's last lines are too many, if they are.

        `unlimited`: they may be more than submits_per_minute.
        """
        if self._tenths_left(transaction, client) < 0:
            return _too_many_unfinished()
        if (
            self.submits_per_minute
            and not unlimited
            and _seconds_to_submit(transaction, client, self.submits_per_minute + 1)
        ):
            return _too_many_submits(MINUTE_SECONDS)
        return None

    def _tenths_left(self, transaction: Transaction, client: str) -> float:
        """Return the client's room, in tenths of a job."""
        if not self.unfinished_per_client:
            return math.inf
        row = transaction.one(UNFINISHED_OF_CLIENT, client=client)
        return TENTHS * self.unfinished_per_client - int(row["tenths"] if row else 0)


NO_LIMITS = Limits()


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


def _too_many_unfinished() -> TooMany:
    message = "Too many jobs of this client are waiting or running."
    return TooMany("too_many_unfinished", message, UNFINISHED_RETRY_SECONDS)


def _too_many_submits(wait: float) -> TooMany:
    message = "There were too many submissions from this client."
    return TooMany("too_many_submits", message, wait)


def _seconds_to_submit(transaction: Transaction, client: str, limit: int) -> float:
    """Return in how many seconds the client may submit one more; 0: now.

    A batch counts once for each of its lines.
    """
    since, left = transaction.now() - MINUTE_SECONDS, limit
    for batch in transaction.all(CLIENT_BATCHES, client=client, since=since):
        wait = _seconds_to_room(transaction, CLIENT_LIMIT, MINUTE_SECONDS, left, client=client)
        until_it_leaves = float(batch["created_at"]) - since
        left -= max(1, batch["lines"])
        if wait >= until_it_leaves or left <= 0:
            return max(wait, until_it_leaves)
    return _seconds_to_room(transaction, CLIENT_LIMIT, MINUTE_SECONDS, left, client=client)


def _seconds_to_room(
    transaction: Transaction, limited: str, window: float, limit: int, **key: str
) -> float:
    """Return in how many seconds one more fits into the sliding window; 0: now."""
    now = transaction.now()
    row = transaction.one(limited, since=now - window, limit=limit, **key)
    return float(row["created_at"]) + window - now if row else 0.0
