"""Batches and the workers' processes: bursts, cancels, and how soon an end is found."""

from __future__ import annotations

import json
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from md5light.queue.sweeps import PORTION
from tests.child import Child
from tests.origin import Origin, Peer
from tests.service import Service, running
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


def submit(service: Service, urls: list[str], **fields: str) -> str:
    body = json.dumps({"lines": urls, **fields})
    headers = {"Content-Type": "application/json"}
    answer = requests.post(f"{service.url}/batches", data=body, headers=headers, timeout=20)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def batch(service: Service, batch_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = requests.get(f"{service.url}/batches/{batch_id}", timeout=20).json()
    return answer


def entries(service: Service, batch_id: str) -> list[dict[str, Any]]:
    answer = requests.get(f"{service.url}/batches/{batch_id}/manifest", timeout=20)
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_burst_ends_a_batch_of_more_than_a_portion(tmp_path: Path, origin: Origin) -> None:
    with Service(tmp_path) as service:
        service.start_server()
        origin.serve("/file", b"alpha")
        urls = [origin.url(f"/file?{number}") for number in range(PORTION + 100)]
        batch_id = submit(service, urls, email="ann@localhost")
        assert service.start("worker", "--burst").process.wait(100) == 0
        ended = batch(service, batch_id)
        assert (ended["status"], ended["mail"]) == ("done", "sent")
        assert ended["counts"]["hashed"] == len(urls)


def test_a_cancel_stops_running_downloads_within_seconds(tmp_path: Path, origin: Origin) -> None:
    begun, cut = threading.Semaphore(0), threading.Semaphore(0)

    def endless(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        begun.release()
        try:
            peer.drip(bytes(10_000), seconds=0.01)
        except OSError:
            cut.release()

    origin.serve("/endless", endless)
    with running(tmp_path) as service:
        batch_id = submit(
            service,
            [origin.serve("/file", b"alpha"), *(origin.url(f"/endless?{n}") for n in range(5))],
        )
        for _ in range(5):
            assert begun.acquire(timeout=30)
        wait_until(lambda: batch(service, batch_id)["counts"]["hashed"] == 1)
        canceled = requests.delete(f"{service.url}/batches/{batch_id}", timeout=20).json()
        assert (canceled["status"], canceled["counts"]["canceled"]) == ("canceled", 5)
        for _ in range(5):
            assert cut.acquire(timeout=5)
        assert [line["status"] for line in entries(service, batch_id)] == [
            "hashed", *["canceled"] * 5
        ]  # fmt: skip


def test_the_end_is_found_within_two_seconds_of_the_last_line(
    tmp_path: Path, origin: Origin
) -> None:
    url = origin.serve("/file", b"alpha")
    with running(tmp_path) as service:
        for _ in range(3):
            batch_id = submit(service, [url, origin.url("/missing")])
            wait_until(lambda of=batch_id: batch(service, of)["finished_at"])  # type: ignore[misc]
            found_at = datetime.fromisoformat(batch(service, batch_id)["finished_at"][:-1])
            last_line = max(line["finished_at"] for line in entries(service, batch_id))
            waited = found_at - datetime.fromisoformat(last_line[:-1])
            assert 0 <= waited.total_seconds() <= 2


#: a worker between two beats, which answers each line with how often it has asked for ends
BETWEEN_BEATS = """
import os, sys, threading
from md5light.config import load
from md5light.queue import listen
from md5light.queue.batches import Batches
from md5light.signals import StopSignals
from md5light.worker import Worker, leases

asked, end_due = [], Batches.end_due
Batches.end_due = lambda batches: asked.append(1) or end_due(batches)

def answer():
    for _ in sys.stdin:
        print(len(asked))

threading.Thread(target=answer, daemon=True).start()
leases.BEAT_SECONDS = 3600.0
config = load(sys.argv[1])
Worker(config, "w", listen(config.queue.database)).run(StopSignals(), os.pipe()[0])
"""


def test_the_worker_of_the_last_line_finds_the_end_at_once(
    tmp_path: Path, location: str, origin: Origin
) -> None:
    """It asks where no line follows, so neither for each line nor while the last one takes long.

    The lines are just a portion: nothing of the batch waits for a beat.
    """
    gate = origin.gate()
    held = origin.serve("/held", lambda peer: gate.wait(30) and peer.reply(b"held"))
    origin.serve("/file", b"alpha")
    queue = {"database": location, "lease_seconds": 7200}
    with Service(tmp_path, queue=queue, worker={"threads": 2}) as service:
        service.start_server()
        with Child(BETWEEN_BEATS, service.config) as worker:

            def asked() -> int:
                worker.tell()
                return int(worker.line())

            others = [origin.url(f"/file?{number}") for number in range(PORTION - 1)]
            batch_id = submit(service, [held, *others])
            at_first_beat_and_after_the_others = 2
            wait_until(lambda: asked() == at_first_beat_and_after_the_others)
            assert batch(service, batch_id)["status"] == "running"
            gate.set()
            wait_until(lambda: batch(service, batch_id)["status"] == "done")
            assert asked() == 3


#: a burst in which the chores end the batch while the mailer asks
CHORES_END = """
import os, sys, threading
from md5light.config import load
from md5light.queue import listen
from md5light.queue.batches import Batches
from md5light.signals import StopSignals
from md5light.worker import Worker

end_due, asked, found = Batches.end_due, threading.Event(), threading.Event()

def by_chores(batches):
    if threading.current_thread().name != "chores":
        asked.set()
        found.wait(30)
        return end_due(batches)
    ended = end_due(batches) if asked.is_set() else []
    if ended:
        found.set()
    return ended

Batches.end_due = by_chores
config = load(sys.argv[1])
Worker(config, "w", listen(config.queue.database), burst=True).run(StopSignals(), os.pipe()[0])
"""


def test_a_burst_mails_of_a_batch_whose_end_another_thread_has_found(
    tmp_path: Path, origin: Origin
) -> None:
    with Service(tmp_path) as service:
        service.start_server()
        batch_id = submit(service, [origin.serve("/file", b"alpha")], email="ann@localhost")
        with Child(CHORES_END, service.config) as worker:
            assert worker.end() == 0
        assert batch(service, batch_id)["mail"] == "sent"
