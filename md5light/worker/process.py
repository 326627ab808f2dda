"""The process as a whole: its threads, its chores and its end."""

from __future__ import annotations

import threading
import time

from md5light.config import Config
from md5light.queue import open_database
from md5light.queue.batches import Batches
from md5light.queue.database import Listener
from md5light.queue.jobs import Queue
from md5light.queue.outbox import Outbox
from md5light.queue.peers import Peers
from md5light.queue.recipients import Recipients
from md5light.queue.totals import Totals
from md5light.signals import StopSignals
from md5light.worker.chores import Chore
from md5light.worker.downloads import Downloads
from md5light.worker.leases import now
from md5light.worker.mails import Mails
from md5light.worker.state import State

#: seconds between two heartbeats, by which others know that this worker lives
HEARTBEAT_SECONDS = 10.0

#: seconds between two removals of old jobs; while there are any, some are removed at each beat
PURGE_SECONDS = 60.0

#: seconds from the start to the first removal: a machine without a battery for its clock has the
#: wrong time until it has asked another, and all jobs would seem old
PURGE_AFTER_SECONDS = 600.0

#: seconds that a stopping worker waits for threads whose work it has just cut short
CUT_SHORT_SECONDS = 10.0

#: seconds that it then waits for the last beat
LAST_BEAT_SECONDS = 2.0

#: seconds past `shutdown_seconds` that a stop may take
STOP_SECONDS = CUT_SHORT_SECONDS + LAST_BEAT_SECONDS


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
        self._config = config
        self._database = open_database(config.queue.database, durable=False, listener=listener)
        self._queue = Queue.configured(self._database, config)
        self._outbox = Outbox.configured(self._database, config)
        self._batches = Batches.configured(self._database, config)
        self._totals = Totals(self._database)
        self._state = State(name, config.queue.lease_seconds)
        self._peers = Peers.configured(self._database, config)
        self._downloads = Downloads(
            self._state, self._queue, self._batches, self._peers, config, listener, burst=burst
        )
        self._mails = Mails(self._state, self._outbox, self._batches, config, burst=burst)
        self._chores = self._list_chores(purge_after)

    def run(self, signals: StopSignals, pool_alive: int) -> bool:
        """Work until a stop signal or the end of the pool; with `burst`, until nothing is due.

        `pool_alive` is a file descriptor that becomes readable when the pool's process ends. On a
        stop, running work may end for `shutdown_seconds`; the rest is then cut short and given
        back. An exception in any thread of the process stops it, too, without that time: False.
        """
        state = self._state
        threading.excepthook = lambda _: state.break_off(signals)
        chores = threading.Thread(target=self._do_chores, name="chores", daemon=True)
        chores.start()
        work = [self._downloads.slot] * self._config.worker.threads
        threads = [state.start(each, signals) for each in (*work, self._mails.mail_until_stopped)]
        asked = False
        while not asked and state.at_work and not state.broken.is_set():
            asked = signals.wait(None, pool_alive) or signals.count > 0
        self._stop(threads)
        state.end()
        chores.join(LAST_BEAT_SECONDS)
        if not any(thread.is_alive() for thread in (chores, *threads)):
            self._close()
        return not state.broken.is_set()

    def _stop(self, threads: list[threading.Thread]) -> None:
        """End all work, for which a process that is not broken has `shutdown_seconds`."""
        self._state.stop()
        if not self._state.broken.is_set():
            _join(threads, self._config.worker.shutdown_seconds)
        self._downloads.cut_short()
        self._mails.cut_short()
        _join(threads, CUT_SHORT_SECONDS)

    def _close(self) -> None:
        """Deregister, and close connections and database; no thread is working any more."""
        with self._state.watched():
            self._totals.deregister(self._state.name)
        self._downloads.close()
        self._mails.close()
        self._database.close()

    def _list_chores(self, purge_after: float) -> list[Chore]:
        """List the chores of a beat, the most urgent first."""
        chores = [
            Chore(self._renew),
            Chore(self._look_for_the_end_of_an_outage),
            Chore(self._mails.end_batches),
            Chore(self._batches.sweep),
            Chore(self._send_heartbeat, HEARTBEAT_SECONDS),
            Chore(self._queue.clamp_due_at, HEARTBEAT_SECONDS),
            Chore(self._outbox.clamp_due_at, HEARTBEAT_SECONDS),
            Chore(self._queue.fail_given_up),
        ]
        if self._peers:
            chores.append(Chore(self._peers.sweep, PURGE_SECONDS))
        if self._config.smtp.address_retention_days:
            chores.append(Chore(self._forget, PURGE_SECONDS, due_at=now() + purge_after))
        if self._config.queue.retention_days:
            chores.append(Chore(self._purge, PURGE_SECONDS, due_at=now() + purge_after))
        return chores

    def _do_chores(self) -> None:
        while not self._state.ended.is_set():
            with self._state.watched():
                for chore in self._chores:
                    chore.do_if_due()
            self._end_batches_until(now() + self._state.leases.beat_seconds)

    def _end_batches_until(self, beat_at: float) -> None:
        """End batches as soon as a slot tells that one may end: a client waits for that."""
        state = self._state
        while (seconds := beat_at - now()) > 0 and state.batch_may_end.wait(seconds):
            if state.ended.is_set():
                return
            state.batch_may_end.clear()
            with state.watched():
                self._mails.end_batches()

    def _renew(self) -> None:
        self._downloads.renew()
        self._mails.renew()
        self._state.leases.note_renewal()

    def _look_for_the_end_of_an_outage(self) -> None:
        if self._state.database_outage.lasts:
            self._send_heartbeat()
            self._state.database_outage.succeed()

    def _send_heartbeat(self) -> None:
        self._totals.heartbeat(self._state.name)

    def _forget(self) -> bool:
        """Remove some old addresses; True when there may be more."""
        days = self._config.smtp.address_retention_days
        return Recipients(self._database).expire(days * 86400) > 0

    def _purge(self) -> bool:
        """Remove some old jobs and batches; True when there may be more."""
        seconds = self._config.queue.retention_days * 86400
        return self._queue.purge_expired(seconds) + self._batches.purge_expired(seconds) > 0


def _join(threads: list[threading.Thread], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
