"""The shared state of a worker's threads: its end, its outages, and its handling of failures."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from md5light.errors import (
    DatabaseReplaced,
    DatabaseUnavailable,
    Failure,
    OutOfResources,
    Stopped,
    TemporaryFailure,
)
from md5light.logs import Log, Outage
from md5light.signals import StopSignals
from md5light.worker.leases import LeaseWatch

log = Log(__name__)

T = TypeVar("T")

#: seconds between two looks at the database while no bell rings: a ring may be lost, and retries
#: don't ring
POLL_SECONDS = 1.0

#: seconds without a failure after which an outage of what many threads use is over
QUIET_SECONDS = 3.0

#: seconds that a thread pauses when this machine has no descriptor, memory or thread for its work
SHORTAGE_SECONDS = 5.0


class State:
    """Starts the threads, knows whether they must stop, and keeps the outages that they meet."""

    def __init__(self, name: str, lease_seconds: float) -> None:
        self.name = name
        self.leases = LeaseWatch(lease_seconds)
        #: no new work is begun
        self.stopping = threading.Event()
        #: no outcome is stored any more
        self.ended = threading.Event()
        #: a thread met an error that it did not expect
        self.broken = threading.Event()
        #: there may be a mail to send, or no more work that could add one
        self.mail_added = threading.Event()
        #: the last line of a batch may be done, or no outcome is stored any more
        self.batch_may_end = threading.Event()
        self.database_outage = Outage(
            log, "database_unavailable", "database_available", quiet_seconds=QUIET_SECONDS
        )
        self.shortage = Outage(
            log, "out_of_resources", "resources_available", quiet_seconds=QUIET_SECONDS
        )
        #: threads that were started and have not ended
        self.at_work = 0
        self._counting = threading.Lock()
        #: readable as soon as the process stops
        self.stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC)

    # --- threads ----------------------------------------------------------------------------------

    def start(self, work: Callable[[], None], signals: StopSignals) -> threading.Thread:
        """Start a thread whose end is noticed by the mailer and, by `signals`, the main thread."""

        def work_and_wake() -> None:
            try:
                work()
            finally:
                with self._counting:
                    self.at_work -= 1
                self.mail_added.set()
                signals.wake()

        with self._counting:
            self.at_work += 1
        thread = threading.Thread(target=work_and_wake, name=work.__name__, daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        log.info("stopping", worker=self.name)
        self.stopping.set()
        self.mail_added.set()
        os.write(self._stop_write, b"\0")

    def end(self) -> None:
        self.ended.set()
        self.batch_may_end.set()

    def break_off(self, signals: StopSignals) -> None:
        """End the process after an exception that a thread did not expect.

        Without that thread the process would go on in part, such as without renewing its leases.
        """
        try:
            if not self.broken.is_set():
                log.exception(
                    "thread_broke", worker=self.name, thread=threading.current_thread().name
                )
        finally:
            self.broken.set()
            signals.wake()

    # --- the database -----------------------------------------------------------------------------

    def persist(self, write: Callable[[], T]) -> T | None:
        """Write until it succeeds: an outage of the database must not discard completed work.

        Returns None when the worker has to end before; the lease then runs out, and the work is
        done again.
        """
        while True:
            with self.watched():
                return write()
            if self.ended.wait(POLL_SECONDS):
                return None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Leave the block when the database is out of reach, which is logged once."""
        try:
            yield
        except DatabaseUnavailable as error:
            if isinstance(error, DatabaseReplaced) and not self.broken.is_set():
                raise  # ends the process: another one opens the new file
            self.database_outage.fail(reason=error)

    # --- work that fails --------------------------------------------------------------------------

    def attempt(self, work: Callable[[], T], code: str) -> T | Failure | None:
        """Return what `work` returns or how it failed, None when it was stopped.

        An exception that nobody expected costs the one job or mail that met it, which fails with
        `code`. The log shows its traceback's places, without its words: they may hold an address.
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

    def pause_in_shortage(self, failure: OutOfResources | None) -> None:
        if failure:
            self.shortage.fail(reason=failure.message)
            self.stopping.wait(SHORTAGE_SECONDS)


def _places(error: BaseException) -> Iterator[str]:
    """Name the places of a traceback, the innermost last."""
    trace = error.__traceback__
    while trace:
        yield f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
