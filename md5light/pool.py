"""The pool: starts the worker processes, replaces the dead, and passes a stop on to the living."""

from __future__ import annotations

import contextlib
import gc
import math
import multiprocessing
import os
import signal
import socket
import time
import uuid
from dataclasses import dataclass
from multiprocessing.context import ForkProcess

from md5light.config import Config
from md5light.download.guard import OwnAddresses
from md5light.errors import DatabaseError
from md5light.logs import Log
from md5light.notify import Watchdog, notify, stopping
from md5light.queue import listen, open_database
from md5light.queue.jobs import Queue
from md5light.queue.outbox import Outbox
from md5light.signals import StopSignals
from md5light.worker import CUT_SHORT_SECONDS, Worker

log = Log(__name__)

#: a worker that lived for so long did not die of its start
HEALTHY_SECONDS = 2.0

#: the longest pause before a worker that keeps dying is replaced
LONGEST_PAUSE_SECONDS = 30.0

#: how long past its time a stopping worker is waited for before it is killed
PATIENCE_SECONDS = CUT_SHORT_SECONDS + 5

#: how long it may take to kill the workers that are left then, and to give their claims back
KILLING_SECONDS = 5.0

STOP = {signal.SIGTERM, signal.SIGINT}


@dataclass
class _Child:
    """A place in the pool and the process that fills it."""

    number: int
    name: str = ""
    process: ForkProcess | None = None
    started_at: float = 0.0
    deaths_in_a_row: int = 0
    start_at: float | None = 0.0


class Pool:
    """`processes` workers over one database; holds no connection to it while it forks."""

    def __init__(self, config: Config, *, burst: bool = False) -> None:
        self._config = config
        self._burst = burst
        self._name = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self._children = [_Child(number) for number in range(1, config.worker.processes + 1)]
        open_database(
            config.queue.database, durable=False
        ).close()  # says now what is wrong with it
        OwnAddresses()  # says now whether downloads could be judged
        self._listener = listen(config.queue.database)
        self._alive_read, self._alive_write = os.pipe2(os.O_CLOEXEC)
        #: a worker writes a byte here when it begins to work
        self._begun_read, self._begun_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._begun = 0

    def run(self) -> bool:
        """Work until told to stop, with `burst` until nothing is due; True when it ended in good order.

        The first SIGTERM or SIGINT lets running downloads finish, a second one kills the workers at once, which
        loses nothing.
        """
        signals = StopSignals(*STOP)
        log.info("pool_started", processes=len(self._children), threads=self._config.worker.threads)
        gc.collect()
        gc.freeze()  # the children share these pages for as long as no collection touches them
        watchdog = Watchdog()
        while not signals.count and self._supervise():
            self._tell_when_ready()
            timeout = min(self._seconds_to_next_start(), watchdog.beat())
            signals.wait(timeout, self._begun_read, *_sentinels(self._children))
        in_order = self._stop(signals, watchdog)
        self._listener.close()
        log.info("pool_stopped")
        return in_order

    def _supervise(self) -> bool:
        """Bury the dead and start whoever is to be started; False when nobody is left to work."""
        for child in self._children:
            if child.process and not child.process.is_alive():
                self._bury(child)
            if child.start_at is not None and child.start_at <= time.monotonic():
                self._start(child)
        return any(child.process or child.start_at is not None for child in self._children)

    def _tell_when_ready(self) -> None:
        """Tell the service manager that every place is filled by a worker that has opened its database."""
        with contextlib.suppress(BlockingIOError):
            self._begun += len(os.read(self._begun_read, 64))
            if self._begun >= len(self._children):
                notify("READY=1", f"STATUS=working in {len(self._children)} processes")

    def _start(self, child: _Child) -> None:
        child.name = f"{self._name}-{child.number}-{uuid.uuid4().hex[:4]}"
        child.started_at, child.start_at = time.monotonic(), None
        child.process = multiprocessing.get_context("fork").Process(
            target=self._work, args=[child.name]
        )
        # A signal that comes before the child has handlers of its own must wait for them.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
        child.process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)

    def _work(self, name: str) -> None:
        """Be a worker: the whole life of a child."""
        os.close(self._alive_write)
        signals = StopSignals(
            signal.SIGTERM
        )  # a terminal's Ctrl-C reaches the children too; the pool passes it on
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
        try:
            worker = Worker(self._config, name, self._listener, burst=self._burst)
        except DatabaseError as error:
            log.error("worker_not_started", worker=name, reason=error)
            raise SystemExit(1) from None
        os.write(self._begun_write, b"\0")
        log.debug("worker_started", worker=name, pid=os.getpid())
        worker.run(signals, self._alive_read)
        worker.close()

    def _bury(self, child: _Child) -> None:
        """Give a dead child's claims back at once, and decide when it is replaced."""
        assert child.process is not None  # noqa: S101 - only who was started can be buried
        code = child.process.exitcode
        child.process.close()
        child.process = None
        if self._burst and code == 0:
            return
        freed = self._free(child.name)
        log.warning("worker_died", worker=child.name, exit=code, freed=freed)
        lived = time.monotonic() - child.started_at
        child.deaths_in_a_row = child.deaths_in_a_row + 1 if lived < HEALTHY_SECONDS else 0
        pause = (
            min(2.0 ** (child.deaths_in_a_row - 2), LONGEST_PAUSE_SECONDS)
            if child.deaths_in_a_row > 1
            else 0
        )
        child.start_at = time.monotonic() + pause

    def _free(self, name: str) -> int:
        try:
            database = open_database(self._config.queue.database, durable=False)
        except DatabaseError as error:  # its claims run out with their lease
            log.error("database_unavailable", reason=error)
            return 0
        try:
            mails = Outbox.configured(database, self._config).free(name)
            return mails + Queue.configured(database, self._config).free(name)
        except DatabaseError as error:
            log.error("database_unavailable", reason=error)
            return 0
        finally:
            database.close()

    def _stop(self, signals: StopSignals, watchdog: Watchdog) -> bool:
        living = [child for child in self._children if child.process]
        for child in living:
            self._signal(child, signal.SIGTERM)
        patience = self._config.worker.shutdown_seconds + PATIENCE_SECONDS
        stopping(patience + KILLING_SECONDS)
        deadline = time.monotonic() + patience
        while living and signals.count < 2 and time.monotonic() < deadline:
            timeout = max(0.0, min(deadline - time.monotonic(), watchdog.beat()))
            signals.wait(timeout, *_sentinels(living))
            living = [child for child in living if _is_alive(child)]
        return self._end(living)

    def _end(self, living: list[_Child]) -> bool:
        """Kill whoever is still alive and give back what the dead had claimed; True when nobody had to be killed."""
        for child in living:
            self._signal(child, signal.SIGKILL)
        for child in self._children:
            if child.process:
                child.process.join()
                if child.process.exitcode:
                    self._free(child.name)
        return not living

    def _signal(self, child: _Child, number: signal.Signals) -> None:
        if child.process and child.process.pid and child.process.is_alive():
            os.kill(child.process.pid, number)

    def _seconds_to_next_start(self) -> float:
        starts = [child.start_at for child in self._children if child.start_at is not None]
        return max(0.0, min(starts, default=math.inf) - time.monotonic())


def _is_alive(child: _Child) -> bool:
    return child.process is not None and child.process.is_alive()


def _sentinels(children: list[_Child]) -> list[int]:
    """Return what becomes readable when one of them ends; it stays so, so that no end is missed."""
    return [child.process.sentinel for child in children if child.process]
