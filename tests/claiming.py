"""Workers that claim side by side, as threads of a process that imports little."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

from md5light.job import Hashed
from md5light.queue import open_database
from md5light.queue.database import Database
from md5light.queue.jobs import Queue

URL = "http://files.example.com/a"
HASHED = Hashed("f4afe93ad799484b1d512cc20e93efd1", 7, URL, "text/plain", '"1"', None)


def roomy_queue(database: Database, per_host: int = 0) -> Queue:
    return Queue(
        database,
        lease_seconds=60,
        max_attempts=3,
        retry_seconds=10,
        max_unfinished=10**6,
        per_host=per_host,
    )


def work_side_by_side(location: str, wins: Path) -> None:
    """Claim and settle with several threads until nothing is left; writes the ids won."""
    database = open_database(location, durable=False)
    queue = roomy_queue(database)
    won: list[str] = []

    def work() -> None:
        name = str(uuid.uuid4())
        job = queue.claim(name)
        while job:
            won.append(job.id)
            _, job = queue.settle(job, HASHED, claim_next=True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database.close()
    wins.write_text("\n".join(won))
