"""The jobs of one worker process, as many at once as it has slots."""

from __future__ import annotations

import functools
import threading
import time

from md5light.config import Config
from md5light.download.downloader import Downloader, Transfer
from md5light.errors import Failure, NoPlace, OutOfResources
from md5light.job import Hashed, Job
from md5light.logs import Log
from md5light.queue.batches import Batches
from md5light.queue.database import Listener
from md5light.queue.jobs import Progress, Queue
from md5light.queue.peers import Peers
from md5light.subscriber import subscriber
from md5light.worker.leases import now
from md5light.worker.state import POLL_SECONDS, State
from md5light.worker.strangers import told

log = Log(__name__)

#: attempts after a time-out that wait twice as long as the one before
PATIENT_ATTEMPTS = 2

#: seconds after which a job that found no place at its server's address looks for one again
FIRST_PLACE_SECONDS, LONGEST_PLACE_SECONDS = 1.0, 60.0

_Claim = tuple[str, "str | None"]


class _Running:
    """A job in one of the slots."""

    def __init__(self, job: Job, transfer: Transfer) -> None:
        self.job = job
        self.transfer = transfer
        self.since = now()

    @property
    def progress(self) -> Progress:
        return Progress(self.job, self.transfer.bytes_done, self.transfer.bytes_total)


class Downloads:
    """Claims jobs, downloads, and stores each outcome together with the next claim."""

    def __init__(
        self,
        state: State,
        queue: Queue,
        batches: Batches,
        peers: Peers | None,
        config: Config,
        listener: Listener,
        *,
        burst: bool,
    ) -> None:
        self._state = state
        self._queue = queue
        self._batches = batches
        self._peers = peers
        self._is_public = config.server.public
        self._downloader = Downloader(config.download, connections=config.worker.threads)
        self._listener = listener
        self._burst = burst
        self._cutting_short = False
        self._polling = threading.Lock()
        #: by claim, not by job: this process may take a job again that it has lost
        self._running: dict[_Claim, _Running] = {}

    def slot(self) -> None:
        """Work in one slot until the process stops; with `burst`, until nothing is due."""
        job = None
        while job := job or self._await_job():
            job = self._work(job)

    def renew(self) -> None:
        """Renew the leases of longer downloads; stop downloads that were taken away."""
        long_ago = now() - self._state.leases.beat_seconds / 2
        running = [entry for entry in list(self._running.values()) if entry.since < long_ago]
        if running:
            for job in self._queue.renew([entry.progress for entry in running]):
                if entry := self._running.get(_claim(job)):
                    entry.transfer.stop()

    def cut_short(self) -> None:
        """Stop every download, also one that is only about to begin."""
        self._cutting_short = True
        for running in list(self._running.values()):
            running.transfer.stop()

    def close(self) -> None:
        self._downloader.close()

    def _await_job(self) -> Job | None:
        """Return the next job, None when it is time to end.

        One idle slot polls, the others wait behind it.
        """
        state = self._state
        with self._polling:
            while not state.stopping.is_set():
                with state.watched():
                    if state.leases.are_kept():
                        job = self._queue.claim(state.name)
                        if job or (self._burst and not self._batches.sweep()):
                            return job
                self._listener.wait(self._seconds_to_poll(), state.stop_read)
        return None

    def _seconds_to_poll(self) -> float:
        """Tell how long to wait for a ring: a retry, or a host whose rest ends, does not ring."""
        with self._state.watched():
            return min(POLL_SECONDS, self._queue.seconds_to_next())
        return POLL_SECONDS

    def _work(self, job: Job) -> Job | None:
        """Download, store the outcome and return the next job, claimed in the same transaction."""
        state = self._state
        log.info("started", **_names(job), attempt=job.attempts, worker=state.name)
        running = self._register(job)
        try:
            outcome = state.attempt(lambda: self._download(running), "bad_response")
            if isinstance(outcome, NoPlace):
                self._give_back(job, _pause_for_place(job))
                return None
            if outcome is None or isinstance(outcome, OutOfResources):
                self._give_back(job)
                state.pause_in_shortage(outcome)
                return None
            claim_next = not state.stopping.is_set() and state.leases.are_kept()
            stored = self._stored(outcome)
            settled = state.persist(lambda: self._queue.settle(job, stored, claim_next=claim_next))
        finally:
            del self._running[_claim(job)]
        if settled is None:
            return None
        status, following = settled
        state.shortage.succeed()
        self._report(job, status, outcome, now() - running.since)
        if job.batch_id and status != "queued" and not following:
            state.batch_may_end.set()
        return following

    def _register(self, job: Job) -> _Running:
        """Note that a job runs; an older claim of it, lost without our knowing, ends."""
        for older in list(self._running.values()):
            if older.job.id == job.id:
                older.transfer.stop()
        running = self._running[_claim(job)] = _Running(job, self._transfer(job))
        if self._cutting_short:
            running.transfer.stop()
        return running

    def _transfer(self, job: Job) -> Transfer:
        if self._peers is None:
            return Transfer()
        return Transfer(functools.partial(self._admit, self._peers, job))

    def _admit(self, peers: Peers, job: Job, addresses: list[str]) -> set[str]:
        """Take the job's place at those addresses that have room; return these."""
        machines = {address: subscriber(address) for address in addresses}
        free = self._state.persist(lambda: peers.take(job, machines.values()))
        return {address for address in addresses if machines[address] in (free or ())}

    def _stored(self, outcome: Hashed | Failure) -> Hashed | Failure:
        """Return the outcome for the queue: strangers learn less than the log."""
        return told(outcome) if self._is_public and isinstance(outcome, Failure) else outcome

    def _download(self, running: _Running) -> Hashed:
        job = running.job
        return self._downloader.download(
            job.url,
            running.transfer,
            digests=job.digests.split(),
            patience=_patience(job),
        )

    def _give_back(self, job: Job, pause: float = 0.0) -> None:
        if self._state.persist(lambda: self._queue.release(job, pause=pause)):
            log.info("released", **_names(job))
        else:
            _log_lost(job)

    def _report(self, job: Job, status: str, outcome: Hashed | Failure, seconds: float) -> None:
        if status == "lost":
            _log_lost(job)
        elif isinstance(outcome, Hashed):
            found = {"md5": outcome.md5, "size": outcome.size}
            log.info(status, **_names(job), **found, seconds=seconds)
        else:
            event = "retrying" if status == "queued" else status
            reason = {"code": outcome.code, "reason": outcome.message}
            log.info(event, **_names(job), attempt=job.attempts, **reason)
        if job.email and status in ("done", "failed"):
            self._state.mail_added.set()


def _claim(job: Job) -> _Claim:
    return job.id, job.token


def _patience(job: Job) -> float:
    """Return the factor on the time that a server may be silent: 2 after a time-out, then 4."""
    return 2.0 ** min(job.attempts - 1, PATIENT_ATTEMPTS) if job.error_code == "timed_out" else 1.0


def _pause_for_place(job: Job) -> float:
    """Return after how long a job looks for a place again: the longer it waits, the later."""
    waited = max(0.0, time.time() - job.created_at)
    return min(FIRST_PLACE_SECONDS + waited / 4, LONGEST_PLACE_SECONDS)


def _log_lost(job: Job) -> None:
    """Log that a claim has ended: the job was canceled, or another worker has it."""
    log.debug("lost", **_names(job))


def _names(job: Job) -> dict[str, str]:
    """Return the fields by which a log line names a job, and the batch that it is of."""
    return {"job": job.id, **({"batch": job.batch_id} if job.batch_id else {})}
