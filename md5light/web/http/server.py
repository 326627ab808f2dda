"""The server: accepts connections, up to a limit, and runs waitress' loop."""

from __future__ import annotations

import errno
import functools
import heapq
import math
import resource
import socket
import time
from collections.abc import Iterable
from typing import Any

import waitress
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer

from md5light.logs import Log
from md5light.signals import StopSignals
from md5light.web.answers import MAX_BODY_BYTES
from md5light.web.http.channel import Channel
from md5light.web.http.lingering import MAX_LINGERING, Lingering
from md5light.web.http.parser import MAX_HEADER_BYTES, MEMORY_BYTES, Bounds, list_adjustments
from md5light.web.http.places import MAX_LISTS, MAX_MANIFESTS, Places
from md5light.web.http.threads import Threads
from md5light.web.middleware import WSGI

log = Log(__name__)

#: connections accepted in one turn of the loop, which has to look at all that are open
ACCEPTS = 16

#: connections at once, where the process may have that many descriptors
MAX_CONNECTIONS = 1000

#: descriptors for other things than connections: for each thread, and for the log, pipes and more
THREAD_DESCRIPTORS = 8
OTHER_DESCRIPTORS = 24 + MAX_LISTS + MAX_MANIFESTS + MAX_LINGERING

#: errors of accept(2) that are a shortage of this machine
SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

#: seconds until the next try after one, and without any until the next is worth a line in the log
SHORTAGE_SECONDS = 0.5
SHORTAGE_LOG_SECONDS = 60.0

#: seconds of silence after which a client's place for a list or a manifest is given to another
LIST_SILENCE_SECONDS = 10.0


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
        list_silence_seconds: float = LIST_SILENCE_SECONDS,
    ) -> None:
        self._loop: dict[int, Any] = {}
        self._signals = signals
        self._connections = _connections(threads)
        self._threads = Threads(threads)
        self._lingering = Lingering()
        for listening in sockets:  # waitress takes either Unix sockets or those of TCP in one go
            self._serve(app, listening)
        entries = list(self._loop.values())
        self._listeners = [entry for entry in entries if isinstance(entry, BaseWSGIServer)]
        places = Places(self._loop, list_silence_seconds)
        for listener in self._listeners:
            adjustments = list_adjustments(listener.adj, max_list_bytes)
            bounds = Bounds(max_list_bytes, adjustments, places.have)
            listener.channel_class = functools.partial(Channel, bounds, self._lingering)
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
        seconds = min(seconds, self._lingering.close_old())
        pause = self._shortage_at + SHORTAGE_SECONDS - time.monotonic()
        if pause <= 0:
            self._accept_again()
        else:
            seconds = min(seconds, pause)
        wasyncore.loop(timeout=seconds, use_poll=True, map=self._loop, count=1)

    def finish(self, seconds: float) -> bool:
        """Stop accepting, and answer the open requests; False when that takes too long.

        A second signal ends it, too.
        """
        self.turn(0)  # accept the clients that have connected
        while self._listeners:
            # Its own close() would end the threads' way back to the loop.
            wasyncore.dispatcher.close(self._listeners.pop())
        self.turn(0)  # reads what they have sent
        deadline = time.monotonic() + seconds
        while any(isinstance(each, Channel) and each.is_busy for each in self._loop.values()):
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
        """Stop accepting for a while: readable listeners would keep the loop from sleeping."""
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

        Above its limit waitress accepts nobody until a client leaves or times out, so idle or slow
        clients would keep all others out.
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


class _Waker(wasyncore.dispatcher):  # type: ignore[misc]
    """Makes a signal end the wait of waitress' loop."""

    def __init__(self, signals: StopSignals, loop: dict[int, Any]) -> None:
        self._signals = signals
        loop[signals.fileno()] = self

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        self._signals.wait(0)

    def close(self) -> None:
        """Nothing: the descriptor is the signals' own."""
