"""Whether the service can work: the database answers, and a worker runs while jobs wait."""

from __future__ import annotations

import threading

from md5light.errors import DatabaseUnavailable
from md5light.logs import Log, Outage
from md5light.queue.jobs import Queue
from md5light.queue.totals import Snapshot, Totals

log = Log(__name__)

#: seconds between two checks, and those during an outage of the database
LOOK_SECONDS = 5.0
OUTAGE_LOOK_SECONDS = 1.0

#: seconds that a job waits before the lack of a worker causes a warning
WAIT_SECONDS = 10.0

NO_WORKER = "no worker is running"


def lacks_worker(snapshot: Snapshot) -> bool:
    """Tell whether jobs wait and no worker has sent a heartbeat."""
    waits = (
        snapshot.oldest_waiting_seconds >= WAIT_SECONDS
        or "running" in snapshot.unfinished
        or snapshot.batches["running"] > 0
    )
    return waits and not snapshot.workers_alive


class Health:
    """Watches database and workers from a thread; it logs when an outage begins and ends."""

    def __init__(self, queue: Queue, totals: Totals, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._queue = queue
        self._totals = totals
        self._look_seconds = look_seconds
        self._outage = Outage(log, "database_unavailable", "database_available")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="health", daemon=True)
        #: whether jobs wait although no worker runs
        self.no_worker = False

    def start(self) -> None:
        self._thread.start()

    def close(self, seconds: float) -> bool:
        """End the thread; False if it still waits for the database after `seconds`."""
        self._ended.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def database_failed(self, reason: DatabaseUnavailable) -> None:
        """Note that the database could not be used; the first failure of an outage is logged."""
        self._outage.fail(reason=reason)

    def look(self) -> None:
        """Check once: the database if there is an outage, then the workers."""
        try:
            if self._outage.lasts:
                self._queue.probe()
                self._outage.succeed()
            self._look_at_workers()
        except DatabaseUnavailable as reason:
            self.database_failed(reason)

    def _look_at_workers(self) -> None:
        before, workers = self.no_worker, self._totals.workers_alive()
        # The snapshot counts all unfinished jobs, so it is read only if no worker is alive.
        self.no_worker = not workers and lacks_worker(self._totals.snapshot())
        if self.no_worker and not before:
            log.warning("no_worker", reason=NO_WORKER)
        if before and not self.no_worker:
            log.info("no_worker_ended", workers=workers)

    def _watch(self) -> None:
        while not self._ended.wait(self._pause()):
            try:
                self.look()
            except Exception:
                log.exception("health_failed")  # the server continues, and so do these checks

    def _pause(self) -> float:
        return OUTAGE_LOOK_SECONDS if self._outage.lasts else self._look_seconds
