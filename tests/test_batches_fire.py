"""Batches under fire: many small lists while workers, pool and server are killed at random."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import threading
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from md5light.queue import POSTGRESQL
from tests.fire import SETTINGS, is_alive, kill_alone
from tests.origin import Origin
from tests.postbox import Postbox
from tests.service import Service
from tests.waiting import wait_until

#: how many files there are; the last ones are missing
FILES, MISSING = 100, 10

MOST_LINES = 12

#: seconds until all has recovered from the last kill
RECOVERY_SECONDS = 60.0


@dataclass
class Submitted:
    """A list: its id once it was answered with 202, and the files of its lines."""

    files: list[int]
    key: str
    id: str = ""


class Lists:
    """A client that submits list after list, and repeats each until it is answered."""

    def __init__(self, service: Service, origin: Origin, count: int, seed: int) -> None:
        self._service = service
        self._origin = origin
        self._random = random.Random(seed)
        self._session = requests.Session()
        self.submitted: list[Submitted] = []
        self.thread = threading.Thread(target=self._submit, args=(count,), name="client")

    def _submit(self, count: int) -> None:
        with self._session:
            for number in range(count):
                lines = self._random.randint(1, MOST_LINES)
                files = [self._random.randrange(FILES) for _ in range(lines)]
                each = Submitted(files, f"key-{number}")
                each.id = wait_until(partial(self._post, each), RECOVERY_SECONDS)
                self.submitted.append(each)

    def _post(self, each: Submitted) -> str:
        """Post a list and return its id; empty: the server was killed or could not store it."""
        lines = [
            {"url": self._origin.url(f"/{file}"), "md5": md5(file) if place % 2 else None}
            for place, file in enumerate(each.files)
        ]
        body = json.dumps({"email": f"{each.key}@example.org", "lines": lines})
        headers = {"Content-Type": "application/json", "Idempotency-Key": each.key}
        with contextlib.suppress(requests.RequestException):
            answer = self._session.post(
                f"{self._service.url}/batches", data=body, headers=headers, timeout=20
            )
            assert answer.status_code in (202, 503), answer.text
            if answer.status_code == 202:
                return str(answer.json()["id"])
        return ""


def body_of(file: int) -> bytes:
    return b"file %d" % file


def md5(file: int) -> str:
    return hashlib.md5(body_of(file)).hexdigest()


def expected_line(file: int, place: int) -> tuple[str, str | None]:
    if file >= FILES - MISSING:
        return "failed", None
    return ("matched" if place % 2 else "hashed"), md5(file)


def kill_something(service: Service, chance: random.Random) -> None:
    """Kill a worker, the pool's process alone, or the server; what is gone is started again."""
    server, pool = (
        next(each for each in reversed(service.commands) if each.log.name.startswith(name))
        for name in ("server", "worker")
    )
    target = chance.choice(["worker", "worker", "pool", "server"])
    if target == "worker":
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(wait_until(pool.children)), signal.SIGKILL)
    elif target == "pool":
        orphans = kill_alone(pool)
        service.start_pool()
        wait_until(lambda: not any(map(is_alive, orphans)))
    else:
        server.kill()
        service.start_server()


def check(service: Service, session: requests.Session, each: Submitted) -> None:
    """Hold a batch against its list, once it has ended and its mail was sent."""
    url = f"{service.url}/batches/{each.id}"

    def ended() -> dict[str, Any]:
        batch: dict[str, Any] = session.get(url, timeout=20).json()
        return batch if (batch["status"], batch["mail"]) == ("done", "sent") else {}

    batch = wait_until(ended, RECOVERY_SECONDS, f"the end and the mail of batch {each.id}")
    manifest = session.get(f"{url}/manifest", timeout=20).text
    lines = [json.loads(line) for line in manifest.splitlines()]
    assert [(line["status"], line["md5"]) for line in lines] == [
        expected_line(file, place) for place, file in enumerate(each.files)
    ]
    counted = Counter(line["status"] for line in lines)
    counts = {name: count for name, count in batch["counts"].items() if count}
    assert counts == {"total": len(lines), **counted}


def kill_while_submitting(service: Service, client: Lists, batches: int, kills: int) -> None:
    """Kill something each time that the client has come as far again, until it is at its end."""
    chance = random.Random(batches)
    client.thread.start()
    for kill in range(1, kills + 1):
        enough = batches * kill // (kills + 1)
        wait_until(lambda enough=enough: len(client.submitted) >= enough, 60)  # type: ignore[misc]
        kill_something(service, chance)
    client.thread.join(RECOVERY_SECONDS)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_batch_ends_once_with_every_line_right_and_its_mail(
    tmp_path: Path, location: str
) -> None:
    batches, kills = (100, 15) if location.startswith(POSTGRESQL) else (300, 50)
    settings = {**SETTINGS, "queue": {**SETTINGS["queue"], "database": location}}
    with Origin() as origin, Postbox() as postbox, requests.Session() as session:
        for file in range(FILES - MISSING):
            origin.serve(f"/{file}", body_of(file))
        smtp = {"host": postbox.host, "port": postbox.port, "sender": "md5@example.org"}
        with Service(tmp_path, smtp=smtp, **settings) as service:
            service.start_server()
            service.start_pool()
            client = Lists(service, origin, batches, seed=batches)
            kill_while_submitting(service, client, batches, kills)
            assert len({each.id for each in client.submitted}) == batches
            for each in client.submitted:
                check(service, session, each)
            mails = Counter(mail.message["Message-ID"] for mail in postbox.mails)
            assert set(mails) == {f"<{each.id}.1@example.org>" for each in client.submitted}
            # Each kill that fell between a delivery and the note of it repeats that mail once; two
            # such kills may meet the same mail.
            assert sum(mails.values()) <= batches + kills
