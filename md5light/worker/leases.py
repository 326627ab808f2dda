"""Whether the leases of this process and of its siblings are kept."""

from __future__ import annotations

import time

#: seconds between two beats, at most: leases are renewed and cancels noticed at each
BEAT_SECONDS = 1.0

#: beats in the time of a lease, at least
BEATS_PER_LEASE = 3

#: the part of a lease after which, without a beat, leases may be about to end
LATE_SHARE = 1 / 2

#: seconds after a gap in the beats in which the siblings of a process renew their leases, too
SIBLINGS_SECONDS = 1.0


class LeaseWatch:
    """Tells whether leases were renewed in time, so that a claim takes no work from a sibling.

    After a time without a beat (the machine slept, the processes were stopped, the database was
    away) leases have run out that their holders are about to renew. A claim would take the jobs
    away from them, at the price of an attempt. So nothing is claimed before this process has
    renewed its leases, and its siblings have had the time to do the same.
    """

    def __init__(self, lease_seconds: float) -> None:
        self.beat_seconds = min(BEAT_SECONDS, lease_seconds / BEATS_PER_LEASE)
        self._late_seconds = lease_seconds * LATE_SHARE
        self._renewed_at = now()
        self._kept_from = 0.0

    def note_renewal(self) -> None:
        if self._is_late():
            self._kept_from = now() + SIBLINGS_SECONDS
        self._renewed_at = now()

    def are_kept(self) -> bool:
        return not self._is_late() and now() >= self._kept_from

    def _is_late(self) -> bool:
        return now() - self._renewed_at > self._late_seconds


def now() -> float:
    """Return the seconds since the machine's start, with its sleep, unlike time.monotonic()."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
