"""One worker process: claim, do, store the outcome. Here queue, download and mail meet."""

from md5light.worker.process import PURGE_AFTER_SECONDS, STOP_SECONDS, Worker

__all__ = ["PURGE_AFTER_SECONDS", "STOP_SECONDS", "Worker"]
