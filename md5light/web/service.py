"""The service over HTTP: its health, its metrics, and the description of the API."""

from __future__ import annotations

from pathlib import Path

from md5light.queue.jobs import Queue
from md5light.queue.totals import Totals
from md5light.web import metrics
from md5light.web.answers import Answer
from md5light.web.health import NO_WORKER, lacks_worker

#: the description of this API, written by hand
OPENAPI = Path(__file__).with_name("openapi.json")


class ServiceAPI:
    """One method for each route, as in JobAPI."""

    def __init__(self, queue: Queue, totals: Totals) -> None:
        self._queue = queue
        self._totals = totals

    def health(self) -> Answer:
        return Answer(200, {"status": "ok"})

    def readiness(self) -> Answer:
        self._queue.probe()
        snapshot = self._totals.snapshot()
        state = {"last_worker_sign_seconds": snapshot.last_sign_seconds, "status": "ready"}
        return Answer(200, {**state, "warning": NO_WORKER} if lacks_worker(snapshot) else state)

    def metrics(self) -> Answer:
        text = metrics.render(self._totals.snapshot())
        return Answer(200, text.encode(), {"Content-Type": metrics.CONTENT_TYPE})

    def openapi(self) -> Answer:
        return Answer(200, OPENAPI.read_bytes())
