"""The pool: starts worker processes, replaces those that died, and stops them."""

from __future__ import annotations

import contextlib
import gc
import math
import multiprocessing
import os
import resource
import signal
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from multiprocessing.synchronize import BoundedSemaphore
from typing import NoReturn

from md5light.config import Config
from md5light.download.guard import OwnAddresses
from md5light.errors import DatabaseError, OwnAddressesUnknown
from md5light.logs import Log, Outage
from md5light.notify import Watchdog, notify, stopping
from md5light.queue import listen, open_database
from md5light.queue.jobs import Queue
from md5light.queue.outbox import Outbox
from md5light.queue.totals import Totals
from md5light.signals import StopSignals
from md5light.worker import STOP_SECONDS, Worker

log = Log(__name__)

#: a worker that dies earlier is taken to have failed at its start
HEALTHY_SECONDS = 2.0

#: the longest pause before a worker that keeps dying is replaced
LONGEST_PAUSE_SECONDS = 30.0

#: seconds beyond `shutdown_seconds` after which a stopping worker is killed
PATIENCE_SECONDS = STOP_SECONDS + 3

#: seconds that killed workers may take to end
KILLING_SECONDS = 5.0

STOP = {signal.SIGTERM, signal.SIGINT}


@dataclass
class _Child:
    """A place in the pool and the process that fills it."""

    number: int
    name: str = ""
    #: None: not started, or ended
    process: ForkProcess | None = None
    exit_code: int = 0
    started_at: float = 0.0
    deaths_in_a_row: int = 0
    #: when to start the next process; None: never, or one is running
    start_at: float | None = 0.0

    def has_ended(self) -> bool:
        """Tell whether its process has ended since the last call, and note its exit code."""
        if self.process is None or self.process.exitcode is None:
            return False
        self.exit_code = self.process.exitcode
        self.process.close()
        self.process = None
        return True

    def send(self, number: signal.Signals) -> None:
        if self.process and self.process.pid:  # not reaped yet, so the id is still its own
            os.kill(self.process.pid, number)

    def plan_start(self) -> None:
        """Start the next process at once, or after a pause if several died at their start."""
        died_early = time.monotonic() - self.started_at < HEALTHY_SECONDS
        self.deaths_in_a_row = self.deaths_in_a_row + 1 if died_early else 0
        pause = 2.0 ** (self.deaths_in_a_row - 2) if self.deaths_in_a_row > 1 else 0.0
        self.start_at = time.monotonic() + min(pause, LONGEST_PAUSE_SECONDS)


class Pool:
    """`processes` workers over one database; holds no connection to it while it forks."""

    def __init__(self, config: Config, *, burst: bool = False) -> None:
        """Open what the workers need; raises DatabaseError or OwnAddressesUnknown."""
        OwnAddresses()
        self._config = config
        self._burst = burst
        self._signals = StopSignals(*STOP, on_hangup=_log_hangup)
        self._signals.wake_at(signal.SIGCHLD)
        self._name = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self._children = [_Child(number) for number in range(1, config.worker.processes + 1)]
        database = open_database(config.queue.database, durable=False)
        database.close()
        log.info("database_opened", database=database.name)
        _raise_descriptor_limit(config.worker.descriptors)
        self._database_outage = Outage(log, "database_unavailable", "database_available")
        self._listener = listen(config.queue.database, _semaphore())
        self._alive_read, self._alive_write = os.pipe2(os.O_CLOEXEC)
        #: a worker writes a byte here when it begins to work
        self._begun_read, self._begun_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._begun = 0

    def run(self) -> bool:
        """Work until told to stop, with `burst` until nothing is due; True if it ends in order.

        The first SIGTERM or SIGINT lets running downloads finish, a second one kills the workers at
        once, which loses nothing.
        """
        log.info("pool_started", processes=len(self._children), threads=self._config.worker.threads)
        gc.collect()
        gc.freeze()  # the children share these pages for as long as no collection touches them
        watchdog = Watchdog()
        try:
            while not self._signals.count and self._supervise():
                self._tell_when_ready()
                timeout = min(self._seconds_to_next_start(), watchdog.beat())
                self._signals.wait(timeout, self._begun_read)
        finally:
            in_order = self._stop(watchdog)
        self._listener.close()
        log.info("pool_stopped")
        return in_order

    def _supervise(self) -> bool:
        """Handle ended workers and start those that are due; False if none runs or will start."""
        for child in self._children:
            if child.has_ended():
                self._bury(child)
            if child.start_at is not None and child.start_at <= time.monotonic():
                self._start(child)
        return any(child.process or child.start_at is not None for child in self._children)

    def _tell_when_ready(self) -> None:
        """Notify the service manager once every worker has opened its database."""
        with contextlib.suppress(BlockingIOError):
            self._begun += len(os.read(self._begun_read, 64))
            if self._begun >= len(self._children):
                notify("READY=1", f"STATUS=working in {len(self._children)} processes")

    def _start(self, child: _Child) -> None:
        child.name = f"{self._name}-{child.number}-{uuid.uuid4().hex[:4]}"
        child.started_at, child.start_at = time.monotonic(), None
        # A signal must not reach the child before it has installed its own handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
        try:
            child.process = _fork(self._live, child.name)
        except OSError as error:  # too many processes, or too little memory
            log.error("worker_not_started", worker=child.name, reason=error.strerror)
            child.plan_start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)

    def _live(self, name: str) -> NoReturn:
        """Run a worker: the whole code of a child process."""
        exit_code = 1
        try:
            exit_code = self._work(name)
        except Exception:
            log.exception("worker_broke", worker=name)
        finally:
            os._exit(exit_code)

    def _work(self, name: str) -> int:
        """Run a worker until it ends; return the exit code."""
        os.close(self._alive_write)
        # A terminal's Ctrl-C and hang-up reach the children, too; the pool decides about them.
        signals = StopSignals(signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
        try:
            worker = Worker(self._config, name, self._listener, burst=self._burst)
        except (DatabaseError, OwnAddressesUnknown) as error:
            log.error("worker_not_started", worker=name, reason=error)
            return 1
        os.write(self._begun_write, b"\0")
        log.debug("worker_started", worker=name, pid=os.getpid())
        return 0 if worker.run(signals, self._alive_read) else 1

    def _bury(self, child: _Child) -> None:
        """Free the claims of a worker that died, and plan its replacement."""
        if self._burst and child.exit_code == 0:
            return
        freed = self._free(child.name)
        log.warning("worker_died", worker=child.name, exit=child.exit_code, freed=freed)
        child.plan_start()

    def _free(self, name: str) -> int:
        """Free the claims of a worker that died; return how many jobs and mails that were."""
        try:
            database = open_database(self._config.queue.database, durable=False)
        except DatabaseError as error:
            self._database_outage.fail(reason=error)
            return 0  # its claims end with their leases
        try:
            Totals(database).deregister(name)
            mails = Outbox.configured(database, self._config).free(name)
            freed = mails + Queue.configured(database, self._config).free(name)
        except DatabaseError as error:
            self._database_outage.fail(reason=error)
            return 0
        finally:
            database.close()
        self._database_outage.succeed()
        return freed

    def _stop(self, watchdog: Watchdog) -> bool:
        """End the workers; True when none had to be killed."""
        for child in self._children:
            child.send(signal.SIGTERM)
        patience = self._config.worker.shutdown_seconds + PATIENCE_SECONDS
        stopping(patience + KILLING_SECONDS)
        in_order = self._wait_for_ends(patience, watchdog, hurried=True)
        for child in self._children:
            child.send(signal.SIGKILL)
        if not self._wait_for_ends(KILLING_SECONDS, watchdog, hurried=False):
            os._exit(1)  # multiprocessing's exit would wait for a worker that SIGKILL does not end
        return in_order

    def _wait_for_ends(self, seconds: float, watchdog: Watchdog, *, hurried: bool) -> bool:
        """Wait for all workers, and free the claims of those that died.

        False if some still run after `seconds` or, if `hurried`, after a second stop signal.
        """
        deadline = time.monotonic() + seconds
        while True:
            for child in self._children:
                if child.has_ended() and child.exit_code:
                    self._free(child.name)
            left = deadline - time.monotonic()
            if not any(child.process for child in self._children):
                return True
            if left <= 0 or (hurried and self._signals.count > 1):
                return False
            self._signals.wait(max(0.0, min(left, watchdog.beat())))

    def _seconds_to_next_start(self) -> float:
        starts = [child.start_at for child in self._children if child.start_at is not None]
        return max(0.0, min(starts, default=math.inf) - time.monotonic())


def _semaphore() -> BoundedSemaphore | None:
    """Make a semaphore for all workers; None where the system has none (without /dev/shm)."""
    try:
        return multiprocessing.get_context("fork").BoundedSemaphore(1)
    except OSError:
        return None


def _fork(work: Callable[[str], NoReturn], name: str) -> ForkProcess:
    """Start a process; if it can't, it raises OSError and leaves no descriptor open."""
    process = multiprocessing.get_context("fork").Process(target=work, args=[name], name=name)
    before = _open_descriptors()
    try:
        process.start()
    except OSError:
        # multiprocessing does not close its pipes if the fork fails.
        for descriptor in _open_descriptors() - before:
            os.close(descriptor)
        raise
    return process


def _open_descriptors() -> set[int]:
    descriptors = map(int, os.listdir("/proc/self/fd"))
    return {number for number in descriptors if _is_open(number)}  # without listdir's own


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _log_hangup() -> None:
    log.warning("hangup_ignored", reason="restart to read the configuration")


def _raise_descriptor_limit(needed: int) -> None:
    """Raise this process's limit of descriptors to `needed`, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        log.warning("few_descriptors", limit=hard, needed=needed)
