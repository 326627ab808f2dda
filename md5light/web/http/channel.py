"""Channels: a connection with its requests, one after the other."""

from __future__ import annotations

import contextlib
import functools
import socket
import time
from typing import Any

from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask

from md5light.web.answers import ERRORS, Problem, as_json_body, list_too_large, too_many_lists
from md5light.web.http.lingering import Lingering
from md5light.web.http.parser import Bounds, Parser, TooManyLists
from md5light.web.middleware import StartResponse, observed

#: seconds of silence after which a stopping server waits no longer for a request or its rest
SILENCE_SECONDS = 2.0

#: reads of up to 64 KiB before a connection is closed: as much as a proxy takes in of one request
DRAINED_READS = 16

HEADER_END = b"\r\n\r\n"


class Refusal(ErrorTask):  # type: ignore[misc]
    """waitress' own refusals (malformed or oversized requests), answered as all requests are."""

    def execute(self) -> None:
        request = self.request
        environ = {
            "REQUEST_METHOD": getattr(request, "command", ""),  # as far as it could be read
            "PATH_INFO": getattr(request, "path", ""),
            "REMOTE_ADDR": self.channel.addr[0],
            "HTTP_X_REQUEST_ID": request.headers.get("X_REQUEST_ID", ""),
        }
        (body,) = observed(self._refuse)(environ, self._start)
        self.set_close_on_finish()
        self.channel.has_refused = True
        self.content_length = len(body)
        self.write(body)

    def _refuse(self, _: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        problem = self._problem()
        headers = [("Content-Type", "application/json"), *problem.headers.items()]
        start_response(f"{problem.status} {self.request.error.reason}", headers)
        return [as_json_body(problem)]

    def _problem(self) -> Problem:
        code = self.request.error.code
        if code == TooManyLists.code:
            return too_many_lists()
        if code == 413 and self.request.has_list:
            return list_too_large(self.request.bounds.max_list_bytes)
        return Problem(code, *ERRORS.get(code, ERRORS[500]))

    def _start(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.status = status
        self.response_headers.extend(headers)


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection; of several requests sent at once, the next is parsed when the answer has gone.

    Otherwise clients that never read could fill the memory with answers.
    """

    error_task_class = Refusal

    #: what was read and not parsed yet
    ahead = b""

    #: it is closed after a refusal, whose request may still be coming in
    has_refused = False

    def __init__(self, bounds: Bounds, lingering: Lingering, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._lingering = lingering
        self.parser_class = functools.partial(Parser, bounds)

    @property
    def takes_list(self) -> bool:
        return any(request.has_large_list for request in self._under_way())

    @property
    def sends_manifest(self) -> bool:
        return any(request.wants_manifest for request in self._under_way()) or any(
            isinstance(buffer, ReadOnlyFileBasedBuffer) for buffer in list(self.outbufs)
        )

    @property
    def is_busy(self) -> bool:
        """Whether a request is coming in or being answered, or its answer is being sent."""
        is_new = self.last_activity == self.creation_time  # its client is about to ask
        expected = self.request or self.ahead or is_new
        coming_in = expected and time.time() - self.last_activity < SILENCE_SECONDS
        return bool(self.requests or self.total_outbufs_len or coming_in)

    def _under_way(self) -> list[Parser]:
        return [*self.requests, *([self.request] if self.request else [])]

    def check_client_disconnected(self) -> bool:
        """Tell the application, which is given this in its environ, whether its client has gone.

        waitress would not know: it reads nothing while it answers.
        """
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def readable(self) -> bool:
        self._parse()
        return not self.ahead and bool(super().readable())

    def received(self, data: bytes) -> None:
        self.ahead += data
        self._parse()

    def _parse(self) -> None:
        while self.ahead and super().readable():
            size = self._next_size()
            piece, self.ahead = self.ahead[:size], self.ahead[size:]
            super().received(piece)

    def _next_size(self) -> int:
        """Return how much may be parsed without going on to the request after this one."""
        request = self.request
        if request and request.headers_finished and not request.chunked:
            return int(request.content_length) - int(request.body_bytes_received)
        head, end, _ = self.ahead.partition(HEADER_END)
        return len(head) + len(end)

    def handle_close(self) -> None:
        """Close, having read what has come of a refused body.

        What lies unread makes the system reset the connection, and a proxy before us lose our
        answer (RFC 9112, 9.6).
        """
        if self.socket is None:  # the loop tells of a client's reset twice, as end and as error
            return
        if self.has_refused:
            self._lingering.keep(self.socket)
        with contextlib.suppress(OSError):
            for _ in range(DRAINED_READS):
                if not self.socket.recv(65536):
                    break
        super().handle_close()
