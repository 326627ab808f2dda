"""Peers: the limit of downloads that are connected to one address at once.

Many names, and redirects, may lead to one machine. So before a download connects, it takes a place
at each address that it may connect to, over all processes and machines. A place lasts as long as
the claim: it stops counting when the job's row has another token, or none.
"""

from __future__ import annotations

from collections.abc import Iterable

from md5light.config import Config
from md5light.job import Job
from md5light.queue.database import Database, Transaction

LEAVE = "delete from peers where job_id = :id"

TAKEN = """
    select count(*) as taken from peers
    join jobs on jobs.id = peers.job_id and jobs.token = peers.token
    where peers.address = :address
"""

TAKE = """
    insert into peers (address, job_id, token)
    select :address, id, token from jobs where id = :id and token = :token
"""

SWEEP = """
    delete from peers where not exists (
        select 1 from jobs where jobs.id = peers.job_id and jobs.token = peers.token)
"""


class Peers:
    """The places at addresses, `per_address` at each."""

    def __init__(self, database: Database, per_address: int) -> None:
        self._database = database
        self._per_address = per_address

    @classmethod
    def configured(cls, database: Database, config: Config) -> Peers | None:
        """Make the places that `config` describes; None where it counts by name alone."""
        per_address = config.worker.per_host if config.server.public else 0
        return cls(database, per_address) if per_address else None

    def take(self, job: Job, addresses: Iterable[str]) -> set[str]:
        """Move a job's places to those of `addresses` that have room; return these.

        It returns none if the worker no longer holds the job.
        """
        asked = sorted(set(addresses))

        def work(transaction: Transaction) -> set[str]:
            transaction.lock(f"address {address}" for address in asked)
            transaction.run(LEAVE, id=job.id)
            free = [address for address in asked if self._has_room(transaction, address)]
            rows = [{"address": each, "id": job.id, "token": job.token} for each in free]
            taken = transaction.run_many(TAKE, rows)
            return {address for address, count in zip(free, taken, strict=True) if count}

        return self._database.write(work)

    def sweep(self) -> int:
        """Remove the places of claims that have ended; return how many they were."""
        return self._database.write(lambda transaction: transaction.run(SWEEP))

    def _has_room(self, transaction: Transaction, address: str) -> bool:
        row = transaction.one(TAKEN, address=address)
        return row is None or int(row["taken"]) < self._per_address
