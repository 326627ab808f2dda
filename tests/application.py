"""The application in the test's own process, over a database of the test's.

with application(database) as app:
    app.health.look()
    requests.get(app.url)
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from socketserver import ThreadingMixIn
from typing import NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from md5light.config import Config
from md5light.queue.batches import Batches
from md5light.queue.database import Database
from md5light.queue.jobs import Queue
from md5light.queue.totals import Totals
from md5light.web.app import make_app
from md5light.web.health import Health


class Application(NamedTuple):
    """It answers at `url`; its health looks only when the test, or its own thread, says so."""

    url: str
    health: Health


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the application has a log of its own."""


@contextlib.contextmanager
def application(database: Database, *, look_seconds: float = 60) -> Iterator[Application]:
    config = Config()
    queue, totals = Queue.configured(database, config), Totals(database)
    health = Health(queue, totals, look_seconds=look_seconds)
    app = make_app(queue, Batches.configured(database, config), totals, health, config)
    with _Server(("127.0.0.1", 0), _QuietHandler) as server:
        server.set_app(app)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Application(f"http://127.0.0.1:{server.server_port}", health)
        finally:
            server.shutdown()
            thread.join()
