"""Submissions: stores new jobs in their order, as far as the limits allow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from md5light.errors import Md5lightError, QueueFull
from md5light.queue import totals, turns
from md5light.queue.database import Row, Transaction
from md5light.queue.limits import Limits, Room

SUBMIT = """
    insert into jobs (
        id, url, host, email, client, status, due_at, turn, max_attempts, created_at,
        digests, expected_size, expected_md5, expected_sha1, expected_sha256, expected_sha512)
    values (:id, :url, :host, :email, :client, 'queued', coalesce(:turn, :now),
        coalesce(:turn, :now), :max_attempts, :now,
        :digests, :expected_size, :expected_md5, :expected_sha1, :expected_sha256, :expected_sha512)
"""


class Submission(NamedTuple):
    """A job to be stored; with `reserved` it needs no count of the room."""

    row: Row
    reserved: bool


class Stored(NamedTuple):
    """The result of a submission: a refusal if any, and the room that a count has found."""

    refusal: Md5lightError | None
    room: int | None


class Submissions:
    """Stores new jobs; its methods run in the caller's transaction."""

    def __init__(self, limits: Limits, room: Room) -> None:
        self._limits = limits
        self._room = room

    def store(self, transaction: Transaction, submissions: list[Submission]) -> list[Stored]:
        """Store jobs of several threads, or refuse them."""
        transaction.lock(self._locks(submissions))
        room = None if all(each.reserved for each in submissions) else self._room.count(transaction)
        results = []
        for row, reserved in submissions:
            refusal = self._refusal(transaction, row, None if reserved else room)
            if refusal is None:
                turn = turns.following(transaction, row["client"])
                transaction.run(SUBMIT, **row, turn=turn)
                transaction.ring()
                if room is not None and not reserved:
                    room -= 1
            results.append(Stored(refusal, room))
        stored = zip(submissions, results, strict=True)
        clients = (each.row["client"] for each, result in stored if not result.refusal)
        totals.add(transaction, totals.submitted(clients))
        return results

    def _refusal(
        self, transaction: Transaction, row: Row, room: int | None
    ) -> Md5lightError | None:
        if refusal := self._limits.refusal(transaction, row["client"], row["email"]):
            return refusal
        return QueueFull("Too many jobs are waiting.") if room is not None and room <= 0 else None

    def _locks(self, submissions: list[Submission]) -> Iterator[str]:
        for row, reserved in submissions:
            yield from self._limits.locks(row["client"], row["email"])
            if not reserved:
                yield Room.LOCK
