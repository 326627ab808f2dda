"""One worker process: claim, do, say how it went. Here queue, download and mail meet."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from md5light.config import Config
from md5light.download.downloader import Downloader, Transfer
from md5light.errors import (
    DatabaseReplaced,
    DatabaseUnavailable,
    Failure,
    OperatorFailure,
    OutOfResources,
    Stopped,
    TemporaryFailure,
)
from md5light.job import Hashed, Job, Mail
from md5light.logs import Log, Outage
from md5light.mail.mailer import Mailer
from md5light.mail.messages import compose
from md5light.queue import open_database
from md5light.queue.database import Listener
from md5light.queue.jobs import Progress, Queue
from md5light.queue.outbox import Outbox
from md5light.queue.totals import Totals
from md5light.signals import StopSignals

log = Log(__name__)

T = TypeVar("T")
_Claim = tuple[str, "str | None"]

#: seconds between two looks at the database while no bell rings: a ring may be lost, and retries
#: don't ring
POLL_SECONDS = 1.0

#: seconds between two beats, at most: leases are renewed and cancels noticed at each
BEAT_SECONDS = 1.0

#: beats in the time of a lease, at least
BEATS_PER_LEASE = 3

#: the part of a lease after which, without a beat, leases may be about to end
LATE_SHARE = 1 / 2

#: seconds after a gap in the beats in which the siblings of a process renew their leases, too
SIBLINGS_SECONDS = 1.0

#: seconds between two heartbeats, by which others know that this worker lives
HEARTBEAT_SECONDS = 10.0

#: seconds between two removals of old jobs; while there are any, some are removed at each beat
PURGE_SECONDS = 60.0

#: seconds from the start to the first removal: a machine without a battery for its clock has the
#: wrong time until it has asked another, and all jobs would seem old
PURGE_AFTER_SECONDS = 600.0

#: seconds without a failure after which an outage of what many threads use is over
QUIET_SECONDS = 3.0

#: seconds that a thread pauses when this machine has no descriptor, memory or thread for its work
SHORTAGE_SECONDS = 5.0

#: seconds that a stopping worker waits for threads whose work it has just cut short
CUT_SHORT_SECONDS = 10.0

#: seconds that it then waits for the last beat
LAST_BEAT_SECONDS = 2.0

#: attempts after a time-out that wait twice as long as the one before
PATIENT_ATTEMPTS = 2

#: seconds past `shutdown_seconds` that a stop may take
STOP_SECONDS = CUT_SHORT_SECONDS + LAST_BEAT_SECONDS

#: what to do about a mail that can't be sent although nothing is wrong with it
REMEDY = "The operator has to mend this: see [smtp] and the mail server. Until then mails wait."

#: codes of failures that say nothing about the mail: the next one would meet the same
MAIL_SERVER_CODES = frozenset(
    {"name_not_found", "connection_failed", "timed_out", "tls_failed", "login_failed", "not_kept"}
)


class _Running:
    """A job in one of the slots."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.transfer = Transfer()
        self.since = _now()


@dataclass
class _Chore:
    """Something to be done at a beat and again `seconds` later; at the next beat if it is True."""

    work: Callable[[], object]
    seconds: float = 0.0
    due_at: float = 0.0

    def do_if_due(self) -> None:
        if _now() >= self.due_at:
            pause = 0.0 if self.work() is True else self.seconds
            self.due_at = _now() + pause


class Worker:
    """Downloads in `threads` slots, mails beside them, and keeps the leases of both.

    Make it in the process that uses it: it opens its own database connections. `name` marks its
    claims; when its process has ended they may be freed by it.
    """

    def __init__(
        self,
        config: Config,
        name: str,
        listener: Listener,
        *,
        burst: bool = False,
        purge_after: float = PURGE_AFTER_SECONDS,
    ) -> None:
        self.name = name
        self._config = config
        self._burst = burst
        self._listener = listener
        self._database = open_database(config.queue.database, durable=False)
        self._queue = Queue.configured(self._database, config)
        self._outbox = Outbox.configured(self._database, config)
        self._totals = Totals(self._database)
        self._downloader = Downloader(config.download, connections=config.worker.threads)
        self._mailer = Mailer(config.smtp)
        self._chores = self._list_chores(purge_after)
        self._leases = _Leases(config.queue.lease_seconds)
        self._database_outage = Outage(
            log, "database_unavailable", "database_available", quiet_seconds=QUIET_SECONDS
        )
        self._shortage = Outage(
            log, "out_of_resources", "resources_available", quiet_seconds=QUIET_SECONDS
        )
        self._mail_outage = Outage(log, "mail_failed", "mail_server_available")
        self._mail_refusal = Outage(log, "mail_failed", "mails_accepted")
        self._stopping = threading.Event()
        self._cutting_short = False
        self._ended = threading.Event()
        self._broken = threading.Event()
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC)
        #: slots and the mailer, as far as they have not ended
        self._at_work = 0
        self._counting = threading.Lock()
        self._polling = threading.Lock()
        #: by claim, not by job: this process may take a job again that it has lost
        self._running: dict[_Claim, _Running] = {}
        self._mailing: Mail | None = None
        self._mail_owed = threading.Event()

    def run(self, signals: StopSignals, pool_alive: int) -> bool:
        """Work until a stop signal or the end of the pool; with `burst`, until nothing is due.

        `pool_alive` is a file descriptor that becomes readable when the pool's process ends. On a
        stop, running work may end for `shutdown_seconds`; what is left then is cut short and given
        back. An exception in any thread of the process stops it, too, without that time: False.
        """
        threading.excepthook = lambda _: self._break(signals)
        chores = threading.Thread(target=self._do_chores, name="chores", daemon=True)
        chores.start()
        working = [self._start(self._slot, signals) for _ in range(self._config.worker.threads)]
        working.append(self._start(self._mail_until_stopped, signals))
        asked = False
        while not asked and self._at_work and not self._broken.is_set():
            asked = signals.wait(None, pool_alive) or signals.count > 0
        self._stop(working)
        self._ended.set()
        chores.join(LAST_BEAT_SECONDS)
        if not any(thread.is_alive() for thread in (chores, *working)):
            self._close()
        return not self._broken.is_set()

    # --- threads -----------------------------------------------------------------------------------

    def _start(self, work: Callable[[], None], signals: StopSignals) -> threading.Thread:
        """Start a thread whose end is noticed by the mailer and by the main thread."""

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
        thread = threading.Thread(target=work_and_wake, name=work.__name__.lstrip("_"), daemon=True)
        thread.start()
        return thread

    def _break(self, signals: StopSignals) -> None:
        """End the process after an exception that a thread did not expect.

        Without that thread the process would go on in part, such as without renewing its leases.
        """
        try:
            if not self._broken.is_set():
                name = threading.current_thread().name
                log.exception("thread_broke", worker=self.name, thread=name)
        finally:
            self._broken.set()
            signals.wake()

    def _stop(self, working: list[threading.Thread]) -> None:
        """End all work, for which a process that is not broken has `shutdown_seconds`."""
        log.info("stopping", worker=self.name)
        self._stopping.set()
        self._mail_owed.set()
        os.write(self._stop_write, b"\0")
        if not self._broken.is_set():
            _join(working, self._config.worker.shutdown_seconds)
        self._cutting_short = True  # a download that begins after this ends at once
        for running in list(self._running.values()):
            running.transfer.stop()
        self._mailer.stop()
        _join(working, CUT_SHORT_SECONDS)

    def _close(self) -> None:
        """Say good-bye and let go of connections and database; no thread is working any more."""
        with self._watched():
            self._totals.deregister(self.name)
        self._downloader.close()
        self._mailer.close()
        self._database.close()

    # --- jobs --------------------------------------------------------------------------------------

    def _slot(self) -> None:
        job = None
        while job := job or self._await_job():
            job = self._work(job)

    def _await_job(self) -> Job | None:
        """Return the next job, None when it is time to end.

        One idle slot polls, the others wait behind it.
        """
        with self._polling:
            while not self._stopping.is_set():
                with self._watched():
                    if self._leases.are_kept():
                        job = self._queue.claim(self.name)
                        if job or self._burst:
                            return job
                self._listener.wait(POLL_SECONDS, self._stop_read)
        return None

    def _work(self, job: Job) -> Job | None:
        """Download, store the outcome and return the next job, claimed in the same transaction."""
        log.info("started", job=job.id, attempt=job.attempts, worker=self.name)
        running = self._register(job)
        try:
            outcome = self._attempt(
                lambda: self._downloader.download(
                    job.url,
                    running.transfer,
                    digests=job.digests.split(),
                    patience=_patience(job),
                ),
                "bad_response",
            )
            if outcome is None or isinstance(outcome, OutOfResources):
                self._give_back(job)
                self._pause_in_shortage(outcome)
                return None
            claim_next = not self._stopping.is_set() and self._leases.are_kept()
            settled = self._persist(lambda: self._queue.settle(job, outcome, claim_next=claim_next))
        finally:
            del self._running[_claim(job)]
        if settled is None:
            return None
        status, following = settled
        self._shortage.succeed()
        self._report(job, status, outcome, _now() - running.since)
        return following

    def _register(self, job: Job) -> _Running:
        """Note that a job runs; an older claim of it, lost without our knowing, ends."""
        for older in list(self._running.values()):
            if older.job.id == job.id:
                older.transfer.stop()
        running = self._running[_claim(job)] = _Running(job)
        if self._cutting_short:
            running.transfer.stop()
        return running

    def _attempt(self, work: Callable[[], T], code: str) -> T | Failure | None:
        """Return what `work` returns or how it failed, None when it was stopped.

        An exception that nobody expected costs the one job or mail that met it. The log shows its
        traceback's places, without its words: they may hold an address.
        """
        try:
            return work()
        except Stopped:
            return None
        except Failure as failure:
            return failure
        except Exception as error:  # noqa: BLE001 - the one catch-all
            places = " ".join(_places(error))
            log.error("attempt_broke", worker=self.name, error=type(error).__name__, at=places)
            return TemporaryFailure(
                code, f"md5light met an error of its own: {type(error).__name__}."
            )

    def _give_back(self, job: Job) -> None:
        if self._persist(lambda: self._queue.release(job)):
            log.info("released", job=job.id)
        else:
            _log_lost(job)

    def _pause_in_shortage(self, failure: OutOfResources | None) -> None:
        if failure:
            self._shortage.fail(reason=failure.message)
            self._stopping.wait(SHORTAGE_SECONDS)

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

    # --- mails -------------------------------------------------------------------------------------

    def _mail_until_stopped(self) -> None:
        while not self._stopping.is_set():
            self._mail_owed.clear()
            worked = False
            with self._watched():
                worked = self.mail_once()
            if not worked:
                self._mailer.close()
                if self._burst and self._at_work == 1:  # no slot is left that could add a mail
                    return
                self._mail_owed.wait(POLL_SECONDS)

    def mail_once(self) -> bool:
        """Deliver one mail if any is due; tells whether there was one."""
        mail = self._outbox.claim(self.name)
        if mail:
            self._mailing = mail
            self._deliver(mail)
            self._mailing = None
        return mail is not None

    def _deliver(self, mail: Mail) -> None:
        failure = self._attempt(lambda: self._send(mail), "internal_error")
        if failure is None or isinstance(failure, OutOfResources):
            self._persist(lambda: self._outbox.release(mail))
            self._pause_in_shortage(failure)
        elif isinstance(failure, Failure):
            self._persist(lambda: self._outbox.failed(mail, failure))
            self._report_undelivered(mail, failure)
        else:
            self._persist(lambda: self._outbox.sent(mail))
            self._mail_outage.succeed()
            self._mail_refusal.succeed()
            log.info("mailed", job=mail.subject)

    def _send(self, mail: Mail) -> bool:
        message = compose(mail, self._config.smtp, self._config.server.public_url)
        self._mailer.send(message, mail.recipient)
        return True

    def _report_undelivered(self, mail: Mail, failure: Failure) -> None:
        """Log a failure; of those that are not the mail's, the first of an outage."""
        report: Callable[..., None] = _log_mail_failed
        if isinstance(failure, OperatorFailure):
            report = functools.partial(self._mail_refusal.fail, remedy=REMEDY)
        elif failure.code in MAIL_SERVER_CODES:
            report = self._mail_outage.fail
        report(job=mail.subject, attempt=mail.attempts, code=failure.code, reason=failure.message)

    # --- chores ------------------------------------------------------------------------------------

    def _list_chores(self, purge_after: float) -> list[_Chore]:
        """List what is done at each beat, the most urgent first."""
        chores = [
            _Chore(self._renew),
            _Chore(self._look_for_the_end_of_an_outage),
            _Chore(lambda: self._totals.heartbeat(self.name), HEARTBEAT_SECONDS),
            _Chore(self._queue.clamp_due_at, HEARTBEAT_SECONDS),
            _Chore(self._outbox.clamp_due_at, HEARTBEAT_SECONDS),
        ]
        if self._config.queue.retention_days:
            chores.append(_Chore(self._purge, PURGE_SECONDS, due_at=_now() + purge_after))
        return chores

    def _do_chores(self) -> None:
        while True:
            with self._watched():
                for chore in self._chores:
                    chore.do_if_due()
            if self._ended.wait(self._leases.beat_seconds):
                return

    def _renew(self) -> None:
        """Renew the leases of what has run for a while; stop the downloads that were taken away."""
        long_ago = _now() - self._leases.beat_seconds / 2
        running = [entry for entry in list(self._running.values()) if entry.since < long_ago]
        if running:
            for job in self._queue.renew([_progress(entry) for entry in running]):
                if entry := self._running.get(_claim(job)):
                    entry.transfer.stop()
        if mail := self._mailing:
            self._outbox.renew(mail)
        self._leases.note_renewal()

    def _look_for_the_end_of_an_outage(self) -> None:
        if self._database_outage.lasts:
            self._totals.heartbeat(self.name)
            self._database_outage.succeed()

    def _purge(self) -> bool:
        """Remove some old jobs; True when there may be more."""
        return self._queue.purge_expired(self._config.queue.retention_days * 86400) > 0

    # --- the database ------------------------------------------------------------------------------

    def _persist(self, write: Callable[[], T]) -> T | None:
        """Write until it succeeds: an outage of the database must not throw away what was done.

        Returns None when the worker has to end before; the lease then runs out, and the work is
        done again.
        """
        while True:
            with self._watched():
                return write()
            if self._ended.wait(POLL_SECONDS):
                return None

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Leave the block when the database is out of reach, which is logged once."""
        try:
            yield
        except DatabaseUnavailable as error:
            if isinstance(error, DatabaseReplaced) and not self._broken.is_set():
                raise  # ends the process: another one opens the new file
            self._database_outage.fail(reason=error)


class _Leases:
    """Tells whether the leases of this process and of its siblings are kept.

    After a time without a beat (the machine slept, the processes were stopped, the database was
    away) leases have run out that their holders are about to renew. A claim would take the jobs
    away from them, at the price of an attempt. So nothing is claimed before this process has
    renewed its leases, and had its siblings the time to do the same.
    """

    def __init__(self, lease_seconds: float) -> None:
        self.beat_seconds = min(BEAT_SECONDS, lease_seconds / BEATS_PER_LEASE)
        self._late_seconds = lease_seconds * LATE_SHARE
        self._renewed_at = _now()
        self._kept_from = 0.0

    def note_renewal(self) -> None:
        if self._is_late():
            self._kept_from = _now() + SIBLINGS_SECONDS
        self._renewed_at = _now()

    def are_kept(self) -> bool:
        return not self._is_late() and _now() >= self._kept_from

    def _is_late(self) -> bool:
        return _now() - self._renewed_at > self._late_seconds


def _now() -> float:
    """Tell the time since the machine's start; unlike time.monotonic() that counts its sleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _places(error: BaseException) -> Iterator[str]:
    """Name the places of a traceback, the innermost last."""
    trace = error.__traceback__
    while trace:
        yield f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next


def _claim(job: Job) -> _Claim:
    return job.id, job.token


def _patience(job: Job) -> float:
    """Tell how many times as long a server may be silent as configured: after a time-out, twice."""
    return 2.0 ** min(job.attempts - 1, PATIENT_ATTEMPTS) if job.error_code == "timed_out" else 1.0


def _log_lost(job: Job) -> None:
    """Log that a claim has ended: the job was canceled, or another worker has it."""
    log.debug("lost", job=job.id)


def _log_mail_failed(**fields: object) -> None:
    log.warning("mail_failed", **fields)


def _progress(entry: _Running) -> Progress:
    return Progress(entry.job, entry.transfer.bytes_done, entry.transfer.bytes_total)


def _join(threads: list[threading.Thread], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
