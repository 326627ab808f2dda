"""One worker process: claim, do, say how it went. The only room where queue, download and mail meet."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from typing import TypeVar

from md5light.config import Config
from md5light.download.downloader import Downloader, Transfer
from md5light.errors import DatabaseUnavailable, Failure, Stopped, TemporaryFailure
from md5light.job import Hashed, Job, Mail
from md5light.logs import Log
from md5light.mail.mailer import Mailer, Report, compose
from md5light.queue import open_database
from md5light.queue.database import Listener
from md5light.queue.jobs import Progress, Queue
from md5light.queue.outbox import Outbox
from md5light.queue.totals import Totals
from md5light.signals import StopSignals

log = Log(__name__)

T = TypeVar("T")

#: seconds between two looks at the database while no bell rings: a ring may be lost, and retries don't ring
POLL_SECONDS = 1.0

#: seconds between two renewals of the leases, at most; a cancel is noticed no later
BEAT_SECONDS = 1.0

#: renewals in the time of a lease, at least
BEATS_PER_LEASE = 3

#: seconds between two looks for jobs to be removed; while there are any, some go at each beat
PURGE_SECONDS = 60.0

#: seconds between two signs of life
SIGN_SECONDS = 10.0

#: seconds that a stopping worker waits for threads whose work it has just cut short
CUT_SHORT_SECONDS = 10.0


class _Running:
    """A job in one of the slots."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.transfer = Transfer()
        self.since = time.monotonic()


class Worker:
    """Downloads in `threads` slots, mails beside them, and keeps the leases of both.

    Made in the process that uses it: it opens its own database connections. `name` marks its claims; whoever knows
    that this process has ended may free them by it.
    """

    def __init__(
        self, config: Config, name: str, listener: Listener, *, burst: bool = False
    ) -> None:
        self.name = name
        self._config = config
        self._burst = burst
        self._beat_seconds = min(BEAT_SECONDS, config.queue.lease_seconds / BEATS_PER_LEASE)
        self._listener = listener
        self._database = open_database(config.queue.database, durable=False)
        self._queue = Queue.configured(self._database, config)
        self._outbox = Outbox.configured(self._database, config)
        self._totals = Totals(self._database)
        self._downloader = Downloader(config.download, connections=config.worker.threads)
        self._mailer = Mailer(config.smtp)
        self._stopping = False
        self._cutting_short = False
        self._ended = threading.Event()
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC)
        #: slots and the mailer, as far as they have not ended
        self._at_work = 0
        self._counting = threading.Lock()
        self._watch = threading.Lock()
        self._running: dict[str, _Running] = {}
        self._mailing: Mail | None = None
        self._mail_owed = threading.Event()

    def run(self, signals: StopSignals, pool_alive: int) -> None:
        """Work until a signal, or the end of the pool's process, asks to stop; with `burst`, until nothing is due.

        `pool_alive` is a file descriptor that becomes readable when the pool's process ends. On a stop, running
        work may end for `shutdown_seconds`; what is left then is cut short and given back.
        """
        beating = threading.Thread(target=self._beat_until_ended, daemon=True)
        beating.start()
        working = [self._start(self._slot, signals) for _ in range(self._config.worker.threads)]
        working.append(self._start(self._mail_until_ended, signals))
        asked = False
        while not asked and self._at_work:
            asked = signals.wait(None, pool_alive) or signals.count > 0
        self._stopping = True
        log.info("stopping", worker=self.name)
        self._mail_owed.set()
        os.write(self._stop_write, b"\0")
        _join(working, self._config.worker.shutdown_seconds)
        self._cut_short()
        _join(working, CUT_SHORT_SECONDS)
        self._ended.set()
        beating.join()
        with self._outage_logged():
            self._totals.sign_off(self.name)

    def close(self) -> None:
        """Let go of connections and database; no thread may be working."""
        self._downloader.close()
        self._mailer.close()
        self._database.close()
        os.close(self._stop_read)
        os.close(self._stop_write)

    # --- jobs ----------------------------------------------------------------------------------------------

    def _slot(self) -> None:
        job = None
        while job := job or self._await_job():
            job = self._work(job)

    def _await_job(self) -> Job | None:
        """Return the next job, None when it is time to end. One idle slot keeps watch, the others wait behind it."""
        with self._watch:
            while not self._stopping:
                with self._outage_logged():
                    job = self._queue.claim(self.name)
                    if job or self._burst:
                        return job
                self._listener.wait(POLL_SECONDS, self._stop_read)
        return None

    def _work(self, job: Job) -> Job | None:
        """Download, store the outcome and return the next job, which is claimed in the same transaction."""
        log.info("started", job=job.id, attempt=job.attempts, worker=self.name)
        running = self._running[job.id] = _Running(job)
        if self._cutting_short:
            running.transfer.stop()
        outcome = self._download(running)
        if outcome is None:
            released = self._persist(lambda: self._queue.release(job))
            del self._running[job.id]
            if released:
                log.info("released", job=job.id)
            else:
                _log_lost(job)
            return None
        next_for = None if self._stopping else self.name
        settled = self._persist(lambda: self._queue.settle(job, outcome, next_for=next_for))
        del self._running[job.id]
        if settled is None:
            return None
        status, following = settled
        self._report(job, status, outcome, time.monotonic() - running.since)
        return following

    def _download(self, running: _Running) -> Hashed | Failure | None:
        """Return how the download ended, None when it was stopped."""
        try:
            return self._downloader.download(running.job.url, running.transfer)
        except Stopped:
            return None
        except Failure as failure:
            return failure
        except Exception:
            log.exception("download_broke", job=running.job.id)
            return TemporaryFailure("bad_response", "md5light could not make sense of the answer.")

    def _report(self, job: Job, status: str, outcome: Hashed | Failure, seconds: float) -> None:
        if status == "lost":
            _log_lost(job)
        elif isinstance(outcome, Hashed):
            log.info(status, job=job.id, md5=outcome.md5, size=outcome.size, seconds=seconds)
        else:
            event = "retrying" if status == "queued" else status
            log.info(
                event, job=job.id, attempt=job.attempts, code=outcome.code, reason=outcome.message
            )
        if job.email and status in ("done", "failed"):
            self._mail_owed.set()

    # --- mails ---------------------------------------------------------------------------------------------

    def mail_once(self) -> bool:
        """Deliver one mail if any is due; tells whether there was one."""
        mail = self._outbox.claim(self.name)
        if mail:
            self._mailing = mail
            self._deliver(mail)
            self._mailing = None
        return mail is not None

    def _mail_until_ended(self) -> None:
        while not self._stopping:
            self._mail_owed.clear()
            worked = False
            with self._outage_logged():
                worked = self.mail_once()
            if not worked:
                self._mailer.close()
                if (
                    self._burst and self._at_work == 1
                ):  # the slots have ended: nobody owes another mail
                    return
                self._mail_owed.wait(POLL_SECONDS)

    def _deliver(self, mail: Mail) -> None:
        try:
            self._mailer.send(self._compose(mail), mail.recipient)
        except Stopped:
            self._persist(lambda: self._outbox.release(mail))
        except Failure as failure:
            self._undelivered(mail, failure)
        except Exception as error:  # noqa: BLE001 - a mistake of ours; in its own words there may be the address
            problem = f"md5light could not send the mail: {type(error).__name__}."
            self._undelivered(mail, TemporaryFailure("internal_error", problem))
        else:
            self._persist(lambda: self._outbox.sent(mail))
            log.info("mailed", job=mail.job_id)

    def _undelivered(self, mail: Mail, failure: Failure) -> None:
        self._persist(lambda: self._outbox.failed(mail, failure))
        log.warning(
            "mail_failed",
            job=mail.job_id,
            attempt=mail.attempts,
            code=failure.code,
            reason=failure.message,
        )

    def _compose(self, mail: Mail) -> EmailMessage:
        report = Report(
            job_id=mail.job_id,
            url=mail.url,
            status=mail.status,
            md5=mail.md5,
            size=mail.size,
            finished_at=mail.finished_at,
            error_message=mail.error_message,
            link=f"{self._config.server.public_url}/jobs/{mail.job_id}",
        )
        return compose(report, sender=self._config.smtp.sender_address, recipient=mail.recipient)

    # --- leases and the end --------------------------------------------------------------------------------

    def beat(self) -> None:
        """Renew the leases of what has been running for a while, and stop the downloads that were taken away."""
        long_ago = time.monotonic() - self._beat_seconds / 2
        running = [entry for entry in list(self._running.values()) if entry.since < long_ago]
        if running:
            for job in self._queue.renew([_progress(entry) for entry in running]):
                entry = self._running.get(job.id)
                if entry and entry.job.token == job.token:
                    entry.transfer.stop()
        if mail := self._mailing:
            self._outbox.renew(mail)

    def _beat_until_ended(self) -> None:
        purge_at = sign_at = 0.0
        while not self._ended.wait(self._beat_seconds):
            with self._outage_logged():
                self.beat()
                if time.monotonic() >= sign_at:
                    self._totals.sign(self.name)
                    self._queue.pull_in()
                    sign_at = time.monotonic() + SIGN_SECONDS
                if self._config.queue.retention_days and time.monotonic() >= purge_at:
                    purged = self._queue.purge(self._config.queue.retention_days * 86400)
                    purge_at = time.monotonic() + (0 if purged else PURGE_SECONDS)

    def _cut_short(self) -> None:
        """End what is still running; a download that begins after this ends at once."""
        self._cutting_short = True
        for running in list(self._running.values()):
            running.transfer.stop()
        self._mailer.stop()

    def _start(self, work: Callable[[], None], signals: StopSignals) -> threading.Thread:
        """Start a thread whose end is noticed by the mailer and by whoever waits for signals."""

        def work_and_wake() -> None:
            try:
                work()
            finally:
                with self._counting:
                    self._at_work -= 1
                self._mail_owed.set()
                signals.wake()

        with self._counting:
            self._at_work += 1
        thread = threading.Thread(target=work_and_wake, name=work.__name__, daemon=True)
        thread.start()
        return thread

    def _persist(self, write: Callable[[], T]) -> T | None:
        """Write until it succeeds: work that was done is not thrown away because the database is out of reach.

        Returns None when the worker has to end before that; the lease then runs out, and the work is done again.
        """
        while True:
            with self._outage_logged():
                return write()
            if self._ended.wait(POLL_SECONDS):
                return None

    @contextlib.contextmanager
    def _outage_logged(self) -> Iterator[None]:
        try:
            yield
        except DatabaseUnavailable as error:
            log.error("database_unavailable", reason=error)


def _log_lost(job: Job) -> None:
    """Tell that a claim ended meanwhile: the job was canceled, or another worker has it. That is no change of it."""
    log.debug("lost", job=job.id)


def _progress(entry: _Running) -> Progress:
    return Progress(entry.job, entry.transfer.bytes_done, entry.transfer.bytes_total)


def _join(threads: list[threading.Thread], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
