"""The server process: its start, its loop and its orderly stop."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Sequence

from md5light.config import Config, undecided
from md5light.logs import Log
from md5light.notify import Watchdog, notify, stopping
from md5light.queue import open_database
from md5light.queue.batches import Batches
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.queue.totals import Totals
from md5light.signals import StopSignals
from md5light.web.app import make_app
from md5light.web.health import Health
from md5light.web.http.server import HTTPServer
from md5light.web.http.threads import DISPATCHER_SECONDS
from md5light.web.sockets import listening_sockets, url_of

log = Log(__name__)

#: seconds for which a stopping server waits for open requests
STOP_SECONDS = 20.0


def serve(config: Config) -> bool:
    """Answer requests until SIGTERM or SIGINT; True when each was answered before the end.

    It also ends, with False, when the database's file was deleted or replaced.

    Raises DatabaseError and ListenError when it can't start.
    """
    signals = StopSignals(*StopSignals.BOTH, on_hangup=_log_hangup)
    _stay_on_one_core()
    database = open_database(config.queue.database, durable=True)
    sockets = listening_sockets(config.server.host, config.server.port)
    queue, totals = Queue.configured(database, config), Totals(database)
    health = Health(queue, totals)
    server = HTTPServer(
        make_app(queue, Batches.configured(database, config), totals, health, config),
        sockets,
        config.server.threads,
        signals,
        max_list_bytes=config.server.max_batch_bytes if config.server.max_batch_lines else 0,
    )
    health.start()
    _log_start(config, database, sockets)
    watchdog = Watchdog()
    while not signals.count and not database.replaced:
        server.turn(watchdog.beat())
    return _stop(server, health, database) and not database.replaced


def _log_start(config: Config, database: Database, sockets: Sequence[socket.socket]) -> None:
    log.info("database_opened", database=database.name)
    if reason := undecided(config):
        log.warning("public_unset", reason=reason)
    for each in sockets:
        log.info("listening", url=url_of(each))
    notify("READY=1", f"STATUS=listening on {url_of(sockets[0])}")


def _stop(server: HTTPServer, health: Health, database: Database) -> bool:
    """End in good order; False when requests or the database take too long."""
    if database.replaced:
        log.error("database_replaced", reason="a new process must open the new file")
    stopping(STOP_SECONDS + DISPATCHER_SECONDS)
    in_order = server.finish(STOP_SECONDS) and health.close(DISPATCHER_SECONDS)
    if in_order:  # else threads still use the database, and would be waited for
        server.close()
        database.close()
    log.info("stopped")
    return in_order


def _log_hangup() -> None:
    log.warning("hangup_ignored", reason="restart to read the configuration")


def _stay_on_one_core() -> None:
    """Run all threads that are started later on one core.

    Only one runs at a time anyway (Python's global interpreter lock), and passing the lock to
    another core costs more than the work under it: 50 clients at once got 930 answers a second from
    one core, and 83 from two.
    """
    with contextlib.suppress(OSError):  # where a sandbox forbids it, it only takes longer
        core = random.choice(list(os.sched_getaffinity(0)))  # noqa: S311 - not a secret
        os.sched_setaffinity(0, {core})
