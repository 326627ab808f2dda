"""The server process: sockets, waitress, and a stop in good order."""

from __future__ import annotations

import contextlib
import functools
import heapq
import os
import random
import socket
import time
from typing import Any

import waitress
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import BaseWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher

from md5light.config import Config, http_url
from md5light.errors import Md5lightError
from md5light.logs import Log
from md5light.notify import Watchdog, notify, passed_sockets, stopping
from md5light.queue import open_database
from md5light.queue.jobs import Queue
from md5light.queue.totals import Totals
from md5light.signals import StopSignals
from md5light.web.answers import ERRORS, MAX_BODY_BYTES, error_body
from md5light.web.api import make_app
from md5light.web.middleware import StartResponse, observed

log = Log(__name__)

#: seconds that a stopping server gives running requests to be answered
STOP_SECONDS = 20.0

#: seconds that waitress gives its threads after that
DISPATCHER_SECONDS = 5.0

#: seconds of silence after which a stopping server no longer waits for a request, or for the rest of one
SILENCE_SECONDS = 2.0

#: connections that may wait to be accepted
BACKLOG = 1024

#: reads of up to 64 KiB before a connection is closed: as much as a proxy takes in of one request
DRAINED_READS = 16

#: connections accepted in one turn of the loop, which has to look at all that are open
ACCEPTS = 16

#: connections at once; with files and listeners they stay below the 1,024 descriptors that a process may have
CONNECTIONS = 1000


class ListenError(Md5lightError):
    """The address can't be listened on; the message is one line that names it."""


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    """waitress' parser, without what ends a connection with no answer at all."""

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        if self.completed:  # refused, or without a body: 100 Continue would make us wait for one
            self.expect_continue = False
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError:  # such as http://[ for a URI
            raise ParsingError("Bad URI or number") from None


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
        error = self.request.error
        start_response(f"{error.code} {error.reason}", [("Content-Type", "application/json")])
        return [error_body(*ERRORS.get(error.code, ERRORS[500]))]

    def _start(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.status = status
        self.response_headers.extend(headers)


class _Channel(HTTPChannel):  # type: ignore[misc]
    error_task_class = _Refusal
    parser_class = _Parser

    def handle_close(self) -> None:
        """Close, having read what has come of a refused body.

        What lies unread makes the system reset the connection, and a proxy before us lose our answer (RFC 9112, 9.6).
        """
        if (
            self.socket is None
        ):  # a client's reset is an end and an error at once: the loop calls this for both
            return
        with contextlib.suppress(OSError):
            for _ in range(DRAINED_READS):
                if not self.socket.recv(65536):
                    break
        super().handle_close()


class _Threads(ThreadedTaskDispatcher):  # type: ignore[misc]
    """`count` threads for requests that only read, and as many for those that wait for the disk or its lock.

    With one queue for all, /check would wait behind a flood of submissions or a locked database.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.queue_logger.setLevel(
            "ERROR"
        )  # a warning for each request that waits would only add to a flood
        self.set_thread_count(count)
        self._writing = ThreadedTaskDispatcher()
        self._writing.set_thread_count(count)

    def add_task(self, channel: HTTPChannel) -> None:
        if _writes(channel.requests[0]):
            self._writing.add_task(channel)
        else:
            super().add_task(channel)

    def shutdown(self) -> None:
        self._writing.shutdown()
        super().shutdown()


def _writes(request: HTTPRequestParser) -> bool:
    return request.error is None and (
        request.command not in ("GET", "HEAD") or request.path == "/readyz"
    )


class _Waker(wasyncore.dispatcher):  # type: ignore[misc]
    """Lets a signal end the wait of waitress' loop."""

    def __init__(self, signals: StopSignals, sockets: dict[int, Any]) -> None:
        self._fileno = signals.fileno()
        self._signals = signals
        sockets[self._fileno] = self

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        self._signals.wait(0)

    def close(self) -> None:
        """Nothing: the descriptor is the signals' own."""


def serve(config: Config) -> bool:
    """Answer requests until SIGTERM or SIGINT; True when every running request was answered before the end.

    Raises DatabaseError and ListenError when it can't start.
    """
    signals = StopSignals(*StopSignals.BOTH, on_hangup=_log_hangup)
    _stay_on_one_core()
    database = open_database(config.queue.database, durable=True)
    sockets = _passed() or _listen(config.server.host, config.server.port)
    loop: dict[int, Any] = {}
    server = waitress.create_server(
        make_app(Queue.configured(database, config), Totals(database), config),
        map=loop,
        sockets=sockets,
        _dispatcher=_Threads(config.server.threads),
        connection_limit=CONNECTIONS,
        max_request_body_size=MAX_BODY_BYTES + 1,  # the first size that is refused
        asyncore_use_poll=True,
        ident=None,
        clear_untrusted_proxy_headers=False,  # trusted_proxy decides about them
    )
    listeners = [entry for entry in list(loop.values()) if isinstance(entry, BaseWSGIServer)]
    for listener in listeners:
        listener.channel_class = _Channel
        listener.handle_accept = functools.partial(_accept_some, listener)
    _Waker(signals, loop)
    url = http_url(*sockets[0].getsockname()[:2])
    log.info("listening", url=url)
    notify("READY=1", f"STATUS=listening on {url}")
    watchdog = Watchdog()
    while not signals.count:
        _make_room(loop)
        _turn(loop, watchdog.beat())
    stopping(STOP_SECONDS + DISPATCHER_SECONDS)
    in_order = _finish(signals, loop, listeners)
    if in_order:  # else threads still use the database, and would be waited for
        server.task_dispatcher.shutdown()
        database.close()
    log.info("stopped")
    return in_order


def _log_hangup() -> None:
    log.warning("hangup_ignored", reason="restart to read the configuration")


def _stay_on_one_core() -> None:
    """Keep all threads to be started on one core.

    Only one can run at a time anyway (Python's global interpreter lock), and to hand that to another core costs more
    than what is done with it: 50 clients at once had 930 answers a second from one core, and 83 from two.
    """
    with contextlib.suppress(OSError):  # where a sandbox forbids it, it only takes longer
        os.sched_setaffinity(0, {random.choice(list(os.sched_getaffinity(0)))})  # noqa: S311 - not a secret


def _accept_some(listener: BaseWSGIServer) -> None:
    for _ in range(ACCEPTS):
        type(listener).handle_accept(listener)


def _make_room(loop: dict[int, Any]) -> None:
    """Close the connections that have been silent longest, so that idle and slow clients keep nobody out.

    Above its limit waitress would accept nobody until some client leaves or times out.
    """
    too_many = len(loop) + ACCEPTS - CONNECTIONS
    if too_many > 0:
        idle = [
            entry
            for entry in loop.values()
            if isinstance(entry, HTTPChannel) and not entry.requests
        ]
        for channel in heapq.nsmallest(too_many, idle, key=lambda channel: channel.last_activity):
            channel.handle_close()


def _finish(signals: StopSignals, loop: dict[int, Any], listeners: list[BaseWSGIServer]) -> bool:
    """Accept nobody any more and answer what was asked; False when there was no time for that."""
    _turn(loop, 0)  # accepts who has connected
    for listener in listeners:
        wasyncore.dispatcher.close(
            listener
        )  # its own close() would end the answering threads' way back to the loop
    _turn(loop, 0)  # reads what they have sent
    deadline = time.monotonic() + STOP_SECONDS
    while any(_is_busy(entry) for entry in loop.values()):
        if signals.count > 1 or time.monotonic() > deadline:
            return False
        _turn(loop, 0.1)
    return True


def _turn(loop: dict[int, Any], seconds: float) -> None:
    """Do what the sockets are ready for, waiting up to `seconds` for one."""
    wasyncore.loop(timeout=seconds, use_poll=True, map=loop, count=1)


def _is_busy(entry: object) -> bool:
    if not isinstance(entry, HTTPChannel):
        return False
    is_new = entry.last_activity == entry.creation_time  # whoever connects is about to ask
    coming_in = (entry.request or is_new) and time.time() - entry.last_activity < SILENCE_SECONDS
    return bool(entry.requests or entry.total_outbufs_len or coming_in)


def _passed() -> list[socket.socket]:
    """Return the sockets that a service manager listens on for us, if one does."""
    sockets = passed_sockets()
    if any(passed.family not in (socket.AF_INET, socket.AF_INET6) for passed in sockets):
        raise ListenError("can't listen on the socket that was passed: it is not one of TCP")
    return sockets


def _listen(host: str, port: int) -> list[socket.socket]:
    """Open a listening socket for each address of `host`, all on one port."""
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            chosen = sockets[0].getsockname()[1] if sockets else port
            sockets.append(
                socket.create_server((address[0], chosen), family=family, backlog=BACKLOG)
            )
    except OSError as error:
        for listening in sockets:
            listening.close()
        # create_server() tells the address again in its text; a name that isn't found has no number of the system's.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ListenError(f"can't listen on {http_url(host, port)}: {reason}") from None
    return sockets
