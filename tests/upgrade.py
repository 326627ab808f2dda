"""A database that the first version of the schema left behind, and what must be in it after."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from md5light.queue import open_database
from md5light.queue.database import SCHEMA
from md5light.queue.jobs import Queue
from md5light.queue.outbox import Outbox
from md5light.queue.totals import Totals

#: statements that make it, a job in each state, their mails and counts, in words of both engines
FIRST_SCHEMA = Path(__file__).with_name("first_schema.sql")

#: of the schema that this program has
VERSION = len(list(SCHEMA.glob("*.sql")))

IDS = {
    state: f"0e4fac17-f367-4807-8c28-{number:012}"
    for number, state in enumerate(
        ("new", "retrying", "aside first", "aside second", "running", "done", "failed", "canceled")
    )
}


def check_upgraded(location: str) -> None:
    """Open the database, which migrates it, and let the jobs in it go on."""
    clock = [1000.0]
    with closing(open_database(location, durable=True, clock=lambda: clock[0])) as database:
        queue = Queue(database, lease_seconds=60, max_attempts=5, retry_seconds=10, per_host=1)
        outbox = Outbox(database, lease_seconds=60, retry_seconds=30, give_up_seconds=86400)
        found = {state: queue.get(job_id) for state, job_id in IDS.items()}
        assert all(found.values())
        states = {state: (job.status, job.due_at, job.turn) for state, job in found.items() if job}
        assert states == {
            "new": ("queued", 900, None),
            "retrying": ("queued", 2000, None),
            "aside first": ("queued", None, 500),
            "aside second": ("queued", None, 600),
            "running": ("running", 1050, None),
            "done": ("done", None, None),
            "failed": ("failed", None, None),
            "canceled": ("canceled", None, None),
        }
        assert not any(job.digests or job.expected or job.check for job in found.values() if job)
        assert [job.mail for job in found.values() if job] == [
            *["none"] * 5,
            "sent",
            "waiting",
            "none",
        ]
        mail = outbox.claim("w1")
        assert mail
        assert mail.job
        assert (mail.subject, mail.job.id, mail.recipient, mail.attempts) == (
            IDS["failed"],
            IDS["failed"],
            "ann@example.com",
            3,
        )
        snapshot = Totals(database).snapshot()
        assert (snapshot.finished["done", ""], snapshot.hashed_bytes) == (7, 70)
        claimed = queue.claim("w1")
        assert claimed
        assert claimed.id == IDS["new"]
        clock[0] = 1060  # the lease of the running job is over; it holds its host's only place
        again = queue.claim("w1")
        assert again
        assert again.id == IDS["running"]
        queue.release(again)
        following = queue.claim("w1")
        assert following
        assert (following.id, following.turn) == (IDS["aside first"], 500)
    open_database(location, durable=True).close()
