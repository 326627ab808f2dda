"""Waiting for the end of a batch."""

from __future__ import annotations

import time

from md5light.client.answers import Batch
from md5light.client.progress import Progress
from md5light.client.service import Service

#: the next question comes after this share of the time that has passed
SHARE = 0.05

#: seconds between two questions, at least and at most
SHORTEST_PAUSE, LONGEST_PAUSE = 0.03, 5.0

#: the server may ask for longer pauses, up to this
LONGEST_ASKED = 60.0


def wait_for_end(service: Service, batch_id: str, progress: Progress) -> Batch:
    """Ask until the batch has ended: soon at first, so that the end of a small one is seen at once.

    A server that is away is waited for. Raises what `service` raises.
    """
    began = time.monotonic()
    with progress:
        while True:
            batch = service.batch(batch_id, patiently=True)
            if batch.ended:
                return batch
            progress.show(batch.counts)
            service.pause(_pause(time.monotonic() - began, batch.retry_after))


def _pause(waited: float, asked: float | None) -> float:
    pause = min(LONGEST_PAUSE, max(SHORTEST_PAUSE, waited * SHARE))
    # One second is the least that Retry-After can say: it means no more than "soon".
    return max(pause, min(asked, LONGEST_ASKED)) if asked and asked > 1 else pause
