"""What all processes of a test run share (pytest-xdist starts several): the first makes it.

port = once("server", start)   # calls start() in one process, and returns its value in each
"""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class Once:
    def __init__(self, folder: Path) -> None:
        """Keep what is made in `folder`, which is the run's own."""
        self.folder = folder
        #: id of the process that ends with the run
        self.run = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()

    def __call__(self, name: str, make: Callable[[], T]) -> T:
        """Return what `make` returned to the first process; the others wait for it."""
        made = self.folder / f"once-{name}"
        with made.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                made.write_bytes(pickle.dumps(make()))
            value: T = pickle.loads(made.read_bytes())
        return value
