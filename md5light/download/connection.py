"""Guarded connections: requests' adapter keeps them, and they lead to judged addresses only.

urllib3's own way of connecting is closed, not amended: a connection is opened by `GuardedConnection.dial` or not at
all, so a release of urllib3 that connects in some new way fails and lets nothing through.
"""

from __future__ import annotations

import functools
import io
import socket
import ssl
import threading
from typing import Any

from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from md5light.config import DownloadConfig
from md5light.download.guard import AddressInfo, Guard, literal
from md5light.download.response import NoAnswer, Response
from md5light.download.transfer import Transfer
from md5light.download.urls import URL
from md5light.errors import Failure, PermanentFailure, TemporaryFailure

#: bytes read ahead for status lines, headers and chunk sizes; larger reads go straight to where they belong
READ_AHEAD = 32 * 1024

#: look-ups under way at once, for each download: so many there are only when name servers are silent
LOOKUPS_PER_SLOT = 4


class _Stream(io.RawIOBase):
    """What comes over a socket: socket.makefile with fewer calls a read, which counts at TLS's 16 KiB a read."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if isinstance(self._connection, ssl.SSLSocket):
            return self._connection.read(len(buffer), buffer)  # type: ignore[return-value]
        return self._connection.recv_into(buffer)


class GuardedConnection(HTTPConnection):
    """A connection to a judged address."""

    sock: socket.socket
    reader: io.BufferedReader | None = None

    def connect(self) -> None:
        raise NotImplementedError("a connection is opened by dial, with addresses that were judged")

    def dial(
        self, addresses: list[AddressInfo], config: DownloadConfig, transfer: Transfer
    ) -> None:
        """Connect to the first of the judged `addresses` that answers, each in its turn."""
        for left, info in zip(reversed(range(len(addresses))), addresses, strict=True):
            try:
                self._connect_to(info, config.connect_timeout, transfer)
                return
            except OSError:
                transfer.check()
                if not left:
                    raise

    def _connect_to(self, info: AddressInfo, timeout: float, transfer: Transfer) -> None:
        family, kind, protocol, _, address = info
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(timeout)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transfer.watch(connection)
            connection.connect((address[0], self.port, *address[2:]))
        except BaseException:
            transfer.watch(None)
            connection.close()
            raise
        self.sock = connection

    def start_tls(self, context: ssl.SSLContext, transfer: Transfer) -> None:
        """Shake hands; the certificate must be the host's."""
        try:
            # A TCP end without TLS's own is an error here: anybody can make one in the middle of a body.
            self.sock = context.wrap_socket(
                self.sock,
                server_hostname=self.host,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
            )
            transfer.watch(self.sock)
            self.sock.do_handshake()
        except ssl.SSLCertVerificationError:
            raise PermanentFailure(
                "tls_failed", "The server's certificate is not valid for it."
            ) from None
        except (ssl.SSLError, ValueError):
            transfer.check()
            raise TemporaryFailure(
                "tls_failed", "The server and we could not agree on TLS."
            ) from None

    def ask(self, request: bytes, read_timeout: float) -> Response:
        """Send a request and read the head of its answer."""
        self.sock.settimeout(read_timeout)
        try:
            self.sock.sendall(request)
        except (ConnectionError, ssl.SSLEOFError):
            raise NoAnswer from None
        if self.reader is None:
            self.reader = io.BufferedReader(_Stream(self.sock), READ_AHEAD)
        return Response(self.reader)

    def close(self) -> None:
        if self.reader:
            self.reader.close()
            self.reader = None
        super().close()


class GuardedPool(HTTPConnectionPool):
    """The connections to one host and port."""

    ConnectionCls = GuardedConnection

    def __init__(
        self, host: str, port: int, *, tls: ssl.SSLContext | None = None, **options: Any
    ) -> None:
        super().__init__(host, port, **options)
        self.tls = tls

    def take(self) -> GuardedConnection:
        """Return an idle connection that is still good, or a new one that is not yet connected."""
        return self._get_conn()  # type: ignore[return-value]

    def give_back(self, connection: GuardedConnection) -> None:
        self._put_conn(connection)


class Exchange:
    """A request and its answer, for a `with` block: it closes the connection unless `finish` was called."""

    def __init__(
        self,
        pool: GuardedPool,
        connection: GuardedConnection,
        response: Response,
        transfer: Transfer,
        *,
        reused: bool,
    ) -> None:
        self._reused = reused
        self._pool = pool
        self._connection = connection
        self._transfer = transfer
        self._reusable = False
        self.response = response

    def __enter__(self) -> Response:
        return self.response

    def __exit__(self, *_: object) -> None:
        self._transfer.watch(None)
        if self._reusable:
            self._pool.give_back(self._connection)
        else:
            self._connection.close()

    def finish(self) -> None:
        """The body has come to its end: make sure that nothing follows, and keep the connection if it is good."""
        self._reusable = self.response.finish(self._connection.sock, reused=self._reused)


class Connections(HTTPAdapter):
    """All connections of a process, kept for further requests; threads share it."""

    def __init__(self, config: DownloadConfig, guard: Guard, slots: int) -> None:
        self._config = config
        self._guard = guard
        self._lookups = threading.BoundedSemaphore(LOOKUPS_PER_SLOT * slots)
        # Made once: loading the certificates costs more than a small download.
        self._tls = ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH)
        if config.ca_file:
            self._tls.load_verify_locations(config.ca_file)
        super().__init__(pool_connections=slots, pool_maxsize=slots)

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **options: Any
    ) -> None:
        super().init_poolmanager(connections, maxsize, block, **options)
        self.poolmanager.pool_classes_by_scheme = {
            "http": GuardedPool,
            "https": functools.partial(GuardedPool, tls=self._tls),
        }

    def get(self, url: URL, headers: str, transfer: Transfer) -> Exchange:
        """Send a GET with further `headers` (whole lines) and read the head of its answer."""
        pool = self.poolmanager.connection_from_host(url.host, url.port, url.scheme)
        while True:
            connection = pool.take()
            reused = connection.sock is not None
            try:
                if reused:
                    transfer.watch(connection.sock)
                else:
                    self._open(connection, pool, url, transfer)
                response = connection.ask(self._request(url, headers), self._config.read_timeout)
                return Exchange(pool, connection, response, transfer, reused=reused)
            except BaseException as error:
                transfer.watch(None)
                connection.close()
                transfer.check()
                # A kept connection that the server had closed meanwhile says nothing of the server: take another.
                if not (reused and isinstance(error, NoAnswer)):
                    raise

    def _open(
        self, connection: GuardedConnection, pool: GuardedPool, url: URL, transfer: Transfer
    ) -> None:
        connection.dial(self._resolve(url, transfer), self._config, transfer)
        if pool.tls:
            connection.start_tls(pool.tls, transfer)

    def _request(self, url: URL, headers: str) -> bytes:
        return (
            f"GET {url.target} HTTP/1.1\r\nHost: {url.netloc}\r\nUser-Agent: {self._config.user_agent}\r\n"
            f"Accept: */*\r\nAccept-Encoding: identity\r\n{headers}\r\n"
        ).encode("latin-1")

    def _resolve(self, url: URL, transfer: Transfer) -> list[AddressInfo]:
        """Let the guard look up the host, without waiting for silent name servers longer than is right."""
        if literal(url.host) is not None:
            return self._guard.resolve(url)
        outcome: list[list[AddressInfo] | Failure] = []

        def look_up() -> None:
            try:
                outcome.append(self._guard.resolve(url))
            except Failure as failure:
                outcome.append(failure)
            finally:
                self._lookups.release()
                transfer.notify()

        if not self._lookups.acquire(blocking=False):
            raise TemporaryFailure("name_not_found", "Too many names wait for silent name servers.")
        threading.Thread(target=look_up, name="look-up", daemon=True).start()
        if not transfer.wait(lambda: outcome, self._config.connect_timeout):
            raise TemporaryFailure("timed_out", "The name servers did not answer in time.")
        if isinstance(outcome[0], Failure):
            raise outcome[0]
        return outcome[0]
