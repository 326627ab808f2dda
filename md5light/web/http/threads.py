"""The threads that answer requests."""

from __future__ import annotations

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.task import ThreadedTaskDispatcher

#: threads that read lists and write manifests
LIST_THREADS = 4

#: seconds that waitress gives its threads to end
DISPATCHER_SECONDS = 5.0


class Threads(ThreadedTaskDispatcher):  # type: ignore[misc]
    """`count` threads for requests that only read, as many for those that write, some for lists.

    With one queue for all, /check would wait behind a flood of submissions or a locked database,
    and both behind lists, which take seconds.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        # waitress warns of each request that waits, which would only add to a flood.
        self.queue_logger.setLevel("ERROR")
        self.set_thread_count(count)
        self._writing, self._lists = ThreadedTaskDispatcher(), ThreadedTaskDispatcher()
        self._writing.set_thread_count(count)
        self._lists.set_thread_count(LIST_THREADS)

    def add_task(self, channel: HTTPChannel) -> None:
        request = channel.requests[0]
        if request.error is None and (request.has_list or request.wants_manifest):
            self._lists.add_task(channel)
        elif _writes(request):
            self._writing.add_task(channel)
        else:
            super().add_task(channel)

    def shutdown(self) -> None:
        for threads in (self._lists, self._writing):
            threads.shutdown(timeout=DISPATCHER_SECONDS)
        super().shutdown(timeout=DISPATCHER_SECONDS)


def _writes(request: HTTPRequestParser) -> bool:
    return request.error is None and (
        request.command not in ("GET", "HEAD") or request.path == "/readyz"
    )
