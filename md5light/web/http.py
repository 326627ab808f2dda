"""All that md5light knows of waitress: requests in, answers out, and bounds for both.

waitress reads and parses requests in one loop, and has threads answer them. Everything here that is
no part of its documented interface is named in tests/test_http.py.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import functools
import heapq
import math
import re
import resource
import socket
import time
from collections.abc import Iterable
from typing import Any

import waitress
from waitress import wasyncore
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import BaseWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher
from waitress.utilities import Error

from md5light.logs import Log
from md5light.signals import StopSignals
from md5light.web.answers import (
    ERRORS,
    MAX_BODY_BYTES,
    Problem,
    as_json_body,
    list_too_large,
    too_many_lists,
)
from md5light.web.middleware import WSGI, StartResponse, observed

log = Log(__name__)

#: seconds that waitress gives its threads to end
DISPATCHER_SECONDS = 5.0

#: seconds of silence after which a stopping server waits no longer for a request or its rest
SILENCE_SECONDS = 2.0

#: bytes of a request's first line and headers; above it 431
MAX_HEADER_BYTES = 32 * 1024

#: bytes of a body that are kept in memory; a larger one lies in a temporary file without a name
MEMORY_BYTES = 64 * 1024

#: bytes of a body beyond its list: the other fields and the marks between them
LIST_ENVELOPE_BYTES = 64 * 1024

#: lists larger than MEMORY_BYTES that are sent to us or read at once, and manifests that are
#: written or sent at once: each takes a descriptor and room on the disk
MAX_LISTS, MAX_MANIFESTS = 16, 48

#: seconds of silence after which a client gives its place among them to another
LIST_SILENCE_SECONDS = 10.0

#: threads that read lists and write manifests
LIST_THREADS = 4

#: reads of up to 64 KiB before a connection is closed: as much as a proxy takes in of one request
DRAINED_READS = 16

#: connections accepted in one turn of the loop, which has to look at all that are open
ACCEPTS = 16

#: connections at once, where the process may have that many descriptors
MAX_CONNECTIONS = 1000

#: descriptors that are not for connections: for each thread, and for the log, pipes and the like
THREAD_DESCRIPTORS, OTHER_DESCRIPTORS = 8, 24 + MAX_LISTS + MAX_MANIFESTS

#: shortages of our own when a connection is accepted (accept(2))
SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

#: seconds until the next try after one, and without any until the next is worth a line in the log
SHORTAGE_SECONDS = 0.5
SHORTAGE_LOG_SECONDS = 60.0

#: a Host header (RFC 9112, 3.2); two of them come joined by a comma
HOST = re.compile(r"([A-Za-z0-9._~%!$&'()*+;=-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")

#: path of a manifest
MANIFEST = re.compile(r"/batches/[^/]*/manifest")

HEADER_END = b"\r\n\r\n"


class HTTPServer:
    """Answers from `app` the requests that come in at `sockets`; the caller turns its loop.

    It has `threads` threads for requests that only read, as many for those that write, and some for
    lists and manifests. `max_list_bytes` bounds a list, 0: there are none.
    """

    def __init__(
        self,
        app: WSGI,
        sockets: Iterable[socket.socket],
        threads: int,
        signals: StopSignals,
        *,
        max_list_bytes: int = 0,
    ) -> None:
        self._loop: dict[int, Any] = {}
        self._signals = signals
        self._connections = _connections(threads)
        self._threads = _Threads(threads)
        for listening in sockets:  # waitress takes either Unix sockets or those of TCP in one go
            self._serve(app, listening)
        entries = list(self._loop.values())
        self._listeners = [entry for entry in entries if isinstance(entry, BaseWSGIServer)]
        for listener in self._listeners:
            bounds = _Bounds(listener.adj, max_list_bytes, self._loop)
            listener.channel_class = functools.partial(_Channel, bounds)
            listener.handle_accept = functools.partial(self._accept, listener)
        self._shortage_at = -math.inf
        _Waker(signals, self._loop)

    def _serve(self, app: WSGI, listening: socket.socket) -> None:
        waitress.create_server(
            app,
            map=self._loop,
            sockets=[listening],
            _dispatcher=self._threads,
            connection_limit=2 * MAX_CONNECTIONS,  # _make_room keeps the real one
            max_request_body_size=MAX_BODY_BYTES + 1,  # the first size that is refused
            max_request_header_size=MAX_HEADER_BYTES,
            inbuf_overflow=MEMORY_BYTES,
            asyncore_use_poll=True,
            ident=None,
            clear_untrusted_proxy_headers=False,  # trusted_proxy decides about them
        )

    def turn(self, seconds: float) -> None:
        """Do what the sockets are ready for, waiting up to `seconds` for one."""
        self._make_room(len(self._loop) + ACCEPTS - self._connections)
        pause = self._shortage_at + SHORTAGE_SECONDS - time.monotonic()
        if pause <= 0:
            self._accept_again()
        else:
            seconds = min(seconds, pause)
        wasyncore.loop(timeout=seconds, use_poll=True, map=self._loop, count=1)

    def finish(self, seconds: float) -> bool:
        """Accept nobody any more and answer what was asked; False when that takes too long.

        A second signal ends it, too.
        """
        self.turn(0)  # accept the clients that have connected
        while self._listeners:
            # Its own close() would end the threads' way back to the loop.
            wasyncore.dispatcher.close(self._listeners.pop())
        self.turn(0)  # reads what they have sent
        deadline = time.monotonic() + seconds
        while any(_is_busy(entry) for entry in self._loop.values()):
            if self._signals.count > 1 or time.monotonic() > deadline:
                return False
            self.turn(0.1)
        return True

    def close(self) -> None:
        """End the threads, which are idle by now."""
        self._threads.shutdown()

    # --- connections ------------------------------------------------------------------------------

    def _accept(self, listener: BaseWSGIServer) -> None:
        for _ in range(ACCEPTS):
            try:
                accepted = listener.accept()
                if accepted is None:
                    return
                connection, address = accepted
                listener.set_socket_options(connection)
            except OSError as error:
                if error.errno in SHORTAGES:
                    self._pause(error)
                    return
                continue  # the client has gone already
            address = listener.fix_addr(address)
            listener.channel_class(listener, connection, address, listener.adj, map=self._loop)

    def _pause(self, shortage: OSError) -> None:
        """Accept nobody for a while: the listeners stay readable, and the loop would never rest."""
        now = time.monotonic()
        if now - self._shortage_at > SHORTAGE_LOG_SECONDS:
            log.warning("connections_wait", reason=shortage.strerror)
        self._shortage_at = now
        for listener in self._listeners:
            listener.accepting = False

    def _accept_again(self) -> None:
        """Go on after a pause, with room for some."""
        waiting = [listener for listener in self._listeners if not listener.accepting]
        self._make_room(ACCEPTS if waiting else 0)
        for listener in waiting:
            listener.accepting = True

    def _make_room(self, count: int) -> None:
        """Close the `count` connections that have been silent longest.

        Above its limit waitress would accept nobody until some client leaves or times out, and idle
        or slow clients would keep all others out.
        """
        if count > 0:
            channels = [entry for entry in self._loop.values() if isinstance(entry, HTTPChannel)]
            idle = [channel for channel in channels if not channel.requests]
            for channel in heapq.nsmallest(count, idle, key=lambda each: each.last_activity):
                channel.handle_close()


def _connections(threads: int) -> int:
    """Raise the limit of descriptors as far as needed; returns how many are for connections."""
    others = THREAD_DESCRIPTORS * threads + OTHER_DESCRIPTORS
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(limit, MAX_CONNECTIONS + others)
    limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    return max(2 * ACCEPTS, min(MAX_CONNECTIONS, limit - others))


class _Bounds:
    """What lists and manifests may take: bytes of a list, and how many of each at once."""

    def __init__(self, adjustments: Any, max_list_bytes: int, loop: dict[int, Any]) -> None:
        self.max_list_bytes = max_list_bytes
        #: waitress' settings, for a request with a list
        self.adjustments = copy.copy(adjustments)
        self.adjustments.max_request_body_size = max_list_bytes + LIST_ENVELOPE_BYTES + 1
        self._loop = loop

    def have_place(self, request: _Parser) -> bool:
        """Tell whether `request`, which counts itself, may go on.

        The one that has been silent for longest gives its place to it.
        """
        channels = [entry for entry in list(self._loop.values()) if isinstance(entry, _Channel)]
        if request.has_large_list:
            same = [channel for channel in channels if channel.takes_list]
            return len(same) <= MAX_LISTS or _close_silent(same)
        if request.wants_manifest:
            same = [channel for channel in channels if channel.sends_manifest]
            return len(same) <= MAX_MANIFESTS or _close_silent(same)
        return True


def _close_silent(channels: list[_Channel]) -> bool:
    """Close the channel that waits for its client for longest; False where none does for long."""
    waiting = [channel for channel in channels if not channel.requests]
    silent = min(waiting, key=lambda channel: channel.last_activity, default=None)
    if silent is None or time.time() - silent.last_activity < LIST_SILENCE_SECONDS:
        return False
    silent.handle_close()
    return True


class _TooManyLists(Error):  # type: ignore[misc]
    """One list or manifest more than there may be at once."""

    code, reason = 503, "Service Unavailable"


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    """waitress' parser; it refuses what RFC 9112 refuses, and answers what it refuses."""

    def __init__(self, bounds: _Bounds, adjustments: Any) -> None:
        super().__init__(adjustments)
        self.bounds = bounds
        self.has_list = self.wants_manifest = False

    @property
    def has_large_list(self) -> bool:
        return self.has_list and (self.chunked or self.content_length > MEMORY_BYTES)

    def received(self, data: bytes) -> int:
        begins = not self.headers_finished
        consumed: int = super().received(data)
        if begins and self.headers_finished and not self.bounds.have_place(self):
            self.error = _TooManyLists("")
            self.completed = True
        if self.completed:  # refused, or without a body: 100 Continue would make us wait for one
            self.expect_continue = False
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError:  # such as http://[ for a URI
            raise ParsingError("Bad URI or number") from None
        host = self.headers.get("HOST", "" if self.version != "1.1" else None)
        if host is None or not HOST.fullmatch(host):
            raise ParsingError("There must be one Host")
        coded = self.chunked or "TRANSFER_ENCODING" in self.headers
        if coded and (self.version != "1.1" or "CONTENT_LENGTH" in self.headers):
            # Another server on the way may read its end elsewhere (RFC 9112, 6.1).
            self.headers["CONNECTION"] = "close"
        self._look_for_lists()

    def _look_for_lists(self) -> None:
        self.wants_manifest = MANIFEST.fullmatch(self.path) is not None
        self.has_list = self.path == "/batches" and self.bounds.max_list_bytes > 0
        if self.has_list:
            self.adj = self.bounds.adjustments


class _Refusal(ErrorTask):  # type: ignore[misc]
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
        self.content_length = len(body)
        self.write(body)

    def _refuse(self, environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:  # noqa: ARG002 - WSGI
        problem = self._problem()
        headers = [("Content-Type", "application/json"), *problem.headers.items()]
        start_response(f"{problem.status} {self.request.error.reason}", headers)
        return [as_json_body(problem)]

    def _problem(self) -> Problem:
        code = self.request.error.code
        if code == _TooManyLists.code:
            return too_many_lists()
        if code == 413 and self.request.has_list:
            return list_too_large(self.request.bounds.max_list_bytes)
        return Problem(code, *ERRORS.get(code, ERRORS[500]))

    def _start(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.status = status
        self.response_headers.extend(headers)


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A connection; of several requests sent at once, the next is parsed when the answer has gone.

    Else clients that never read could fill the memory with answers.
    """

    error_task_class = _Refusal

    #: what was read and not parsed yet
    ahead = b""

    def __init__(self, bounds: _Bounds, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.parser_class = functools.partial(_Parser, bounds)

    @property
    def takes_list(self) -> bool:
        return any(request.has_large_list for request in self._under_way())

    @property
    def sends_manifest(self) -> bool:
        return any(request.wants_manifest for request in self._under_way()) or any(
            isinstance(buffer, ReadOnlyFileBasedBuffer) for buffer in list(self.outbufs)
        )

    def _under_way(self) -> list[_Parser]:
        return [*self.requests, *([self.request] if self.request else [])]

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
        with contextlib.suppress(OSError):
            for _ in range(DRAINED_READS):
                if not self.socket.recv(65536):
                    break
        super().handle_close()


def _is_busy(entry: object) -> bool:
    if not isinstance(entry, _Channel):
        return False
    is_new = entry.last_activity == entry.creation_time  # its client is about to ask
    expected = entry.request or entry.ahead or is_new
    coming_in = expected and time.time() - entry.last_activity < SILENCE_SECONDS
    return bool(entry.requests or entry.total_outbufs_len or coming_in)


class _Threads(ThreadedTaskDispatcher):  # type: ignore[misc]
    """`count` threads for requests that only read, as many for those that write, some for lists.

    With one queue for all, /check would wait behind a flood of submissions or a locked database,
    and both behind lists, which take seconds.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        # A warning for each request that waits would only add to a flood.
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


class _Waker(wasyncore.dispatcher):  # type: ignore[misc]
    """Lets a signal end the wait of waitress' loop."""

    def __init__(self, signals: StopSignals, loop: dict[int, Any]) -> None:
        self._fileno = signals.fileno()
        self._signals = signals
        loop[self._fileno] = self

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        self._signals.wait(0)

    def close(self) -> None:
        """Nothing: the descriptor is the signals' own."""
