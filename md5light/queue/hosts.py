"""Hosts: how many downloads of one host may run at once, over all processes and machines.

A claim that meets more due jobs of a host than may run sets them aside (`due_at` is null), so that
they delay no other host's. They come back one by one, in their turn, as running jobs of the host
end.
"""

from __future__ import annotations

from collections.abc import Iterable

from md5light.queue.database import Row, Transaction

COUNT_RUNNING = """
    select count(*) as running from jobs
    where host = :host and status = 'running' and finished_at is null
"""

# 1e12 is job.FAR: a job with a turn may be claimed at any time.

SET_ASIDE = """
    update jobs set turn = coalesce(turn, due_at), due_at = null where id in (
        select id from jobs
        where host = :host and status = 'queued' and finished_at is null
            and (due_at <= :now or due_at >= 1e12)
        order by due_at limit 1000 for update skip locked)
"""

ADMIT = """
    update jobs set due_at = turn where id in (
        select id from jobs
        where host = :host and status = 'queued' and due_at is null and finished_at is null
        order by turn limit (
            select case when count(*) < :places then :places - count(*) else 0 end from jobs
            where host = :host and status = 'running' and finished_at is null))
"""

#: jobs that come back at once where the limit was lifted while they were set aside
UNLIMITED_PLACES = 1000


class Hosts:
    """The limit of `per_host` running jobs, 0 for none; methods run in the caller's transaction."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host

    def lock(
        self, transaction: Transaction, hosts: Iterable[str], *, wait: bool = True
    ) -> set[str]:
        """Keep others from counting and changing how many jobs of `hosts` run.

        Returns the hosts that are locked: all of them, unless it must not `wait`.
        """
        names = {f"host {host}": host for host in sorted(hosts)}
        if not self._per_host:
            return set(names.values())
        if wait:
            transaction.lock(names)
            return set(names.values())
        return {host for name, host in names.items() if transaction.try_lock(name)}

    def choose(self, transaction: Transaction, due: list[Row]) -> tuple[list[Row], list[str]]:
        """Return the due jobs that may run, and the hosts of which no more may.

        A job that its worker lost still has its place. The hosts must be locked.
        """
        if not self._per_host:
            return due, []
        may_run = [job for job in due if job["status"] == "running"]
        full = []
        for host in sorted({job["host"] for job in due}):
            queued = [job for job in due if job["host"] == host and job["status"] == "queued"]
            places = self._places(transaction, host) if queued else 0
            may_run += queued[:places]
            full += [host] * (len(queued) > places)
        return may_run, full

    def set_aside(self, transaction: Transaction, hosts: Iterable[str]) -> None:
        """Set the due jobs of `hosts` aside."""
        for host in hosts:
            transaction.run(SET_ASIDE, host=host)

    def admit(self, transaction: Transaction, hosts: Iterable[str]) -> None:
        """Bring back as many jobs of `hosts` as may run now."""
        places = self._per_host or UNLIMITED_PLACES
        transaction.run_many(ADMIT, [{"host": host, "places": places} for host in sorted(hosts)])

    def _places(self, transaction: Transaction, host: str) -> int:
        row = transaction.one(COUNT_RUNNING, host=host)
        return max(0, self._per_host - int(row["running"] if row else 0))
