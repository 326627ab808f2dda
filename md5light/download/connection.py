"""Guarded connections: only to addresses that the guard allows; requests' adapter keeps them open.

requests and urllib3 never connect by themselves: their pools hold connections that this module has
made, so no release of urllib3 can connect around the guard.
"""

from __future__ import annotations

import contextlib
import io
import select
import socket
import ssl
from collections.abc import Mapping
from typing import Any

from requests.adapters import HTTPAdapter

from md5light import dial, tls
from md5light.config import DownloadConfig
from md5light.download.guard import Guard, literal
from md5light.download.response import NoAnswer, Response
from md5light.download.transfer import Transfer
from md5light.download.urls import URL
from md5light.download.wire import Limits, Wire
from md5light.errors import NoPlace, PermanentFailure, TemporaryFailure
from md5light.lookups import Lookups

#: bytes read ahead for status lines, headers and chunk sizes; larger reads go straight to their
#: destination
READ_AHEAD = 32 * 1024

#: look-ups at once for each slot: more than one only while name servers do not answer
LOOKUPS_PER_SLOT = 4


class Connection:
    """An open connection to `address`, with its read buffer."""

    def __init__(self, sock: socket.socket, address: str = "") -> None:
        self.sock = sock
        self.address = address
        self._arrivals = select.poll()
        self._arrivals.register(sock, select.POLLIN)
        self._wire = Wire(sock)
        self._reader: io.BufferedReader = io.BufferedReader(self._wire, READ_AHEAD)

    @property
    def is_connected(self) -> bool:
        """Tell whether it can carry another request: nothing has arrived since the last answer."""
        return not self._arrivals.poll(0)

    @property
    def is_closed(self) -> bool:
        return self.sock.fileno() < 0

    def ask(self, request: bytes, limits: Limits) -> Response:
        """Send a request and read the head of its answer."""
        self._wire.begin(limits)
        try:
            self.sock.sendall(request)
        except (ConnectionError, ssl.SSLEOFError):
            raise NoAnswer from None
        return Response(self._reader, self._wire)

    def close(self) -> None:
        self._reader.close()
        self.sock.close()


class Kept:
    """The idle connections to one host and port, in a pool of requests' adapter.

    Of a connection urllib3's pool uses only `is_connected` and `close`.
    """

    def __init__(self, adapter: HTTPAdapter, url: URL) -> None:
        self._pool: Any = adapter.poolmanager.connection_from_host(url.host, url.port, url.scheme)

    def take(self) -> Connection | None:
        """Return one that is still usable, or None."""
        found = self._pool._get_conn()  # an empty pool returns urllib3's own, unconnected
        return found if isinstance(found, Connection) and not found.is_closed else None

    def give_back(self, connection: Connection) -> None:
        self._pool._put_conn(connection)


class Exchange:
    """A request and its answer, for a `with` block.

    The end of the block closes the connection unless `finish` was called.
    """

    def __init__(
        self,
        kept: Kept,
        connection: Connection,
        response: Response,
        transfer: Transfer,
        *,
        reused: bool,
    ) -> None:
        self._kept = kept
        self._connection = connection
        self._transfer = transfer
        self._reused = reused
        self._reusable = False
        self.response = response

    def __enter__(self) -> Response:
        return self.response

    def __exit__(self, *_: object) -> None:
        self._transfer.hold()
        if self._reusable:
            self._kept.give_back(self._connection)
        else:
            self._connection.close()

    def finish(self) -> None:
        """Check after the body that nothing follows it; keep the connection if it is reusable."""
        self._reusable = self.response.finish(self._connection.sock, reused=self._reused)


class Connections:
    """All connections of a process, kept for further requests; threads share it."""

    def __init__(self, config: DownloadConfig, guard: Guard, slots: int) -> None:
        self._config = config
        self._guard = guard
        self._lookups = Lookups(LOOKUPS_PER_SLOT * slots)
        self._tls = tls.Client(config.ca_file)
        self._adapter = HTTPAdapter(pool_connections=slots, pool_maxsize=slots)
        # urllib3's own keys hold dozens of settings, which are the same for all our requests.
        self._adapter.poolmanager.key_fn_by_scheme = dict.fromkeys(("http", "https"), _origin)

    def close(self) -> None:
        self._adapter.close()

    def get(self, url: URL, headers: str, transfer: Transfer, limits: Limits) -> Exchange:
        """Send a GET with further `headers` (whole lines) and read the head of its answer."""
        kept = Kept(self._adapter, url)
        request = self._request(url, headers)
        while connection := kept.take():
            if not transfer.admit([connection.address]):
                kept.give_back(connection)
                raise _no_place()
            # The server may have closed an idle connection: that is no failure of the server.
            with contextlib.suppress(NoAnswer):
                return self._ask(kept, connection, request, transfer, limits, reused=True)
        try:
            connection = self._open(url, transfer)
        except TemporaryFailure as failure:
            # name_not_found is no failure of the host: its rest would show which names exist.
            failure.of_host = failure.code in ("timed_out", "tls_failed")
            raise
        return self._ask(kept, connection, request, transfer, limits, reused=False)

    def _ask(
        self,
        kept: Kept,
        connection: Connection,
        request: bytes,
        transfer: Transfer,
        limits: Limits,
        *,
        reused: bool,
    ) -> Exchange:
        try:
            transfer.hold(connection.sock)
            response = connection.ask(request, limits)
        except BaseException:
            transfer.hold()
            connection.close()
            transfer.check()
            raise
        return Exchange(kept, connection, response, transfer, reused=reused)

    def _request(self, url: URL, headers: str) -> bytes:
        return (
            f"GET {url.target} HTTP/1.1\r\n"
            f"Host: {url.netloc}\r\n"
            f"User-Agent: {self._config.user_agent}\r\n"
            "Accept: */*\r\n"
            f"{headers}\r\n"
        ).encode("latin-1")

    def _open(self, url: URL, transfer: Transfer) -> Connection:
        """Connect to an address that the guard allows and start TLS.

        The look-up, the connect and the handshake may each take `connect_timeout`.
        """
        addresses = _admitted(self._resolve(url, transfer), transfer)
        connection = dial.connect(addresses, self._config.connect_timeout, transfer)
        try:
            address = str(connection.getpeername()[0])
            self._guard.check_connected(connection)
            connection.settimeout(self._config.connect_timeout)
            transfer.hold(connection)
            if url.scheme == "https":
                connection = self._start_tls(connection, url.host, transfer)
        except BaseException:
            transfer.hold()
            connection.close()
            raise
        return Connection(connection, address)

    def _start_tls(self, connection: socket.socket, host: str, transfer: Transfer) -> socket.socket:
        try:
            return self._tls.start(connection, host, transfer)
        except ssl.SSLCertVerificationError as error:
            raise PermanentFailure("tls_failed", tls.explain(error)) from None
        except ssl.SSLError as error:
            transfer.check()
            raise TemporaryFailure("tls_failed", tls.explain(error)) from None

    def _resolve(self, url: URL, transfer: Transfer) -> list[dial.AddressInfo]:
        if literal(url.host) is not None:
            return self._guard.resolve(url)
        return self._lookups.run(
            lambda: self._guard.resolve(url), self._config.connect_timeout, transfer
        )


def _origin(context: Mapping[str, Any]) -> tuple[str, str, int]:
    return context["scheme"], context["host"], context["port"]


def _admitted(addresses: list[dial.AddressInfo], transfer: Transfer) -> list[dial.AddressInfo]:
    """Return the addresses to try that have a free place; raises NoPlace when none has."""
    tried = dial.in_turn(addresses)[: dial.MAX_ADDRESSES]
    admitted = transfer.admit([str(each[4][0]) for each in tried])
    if not admitted:
        raise _no_place()
    return [each for each in tried if each[4][0] in admitted]


def _no_place() -> NoPlace:
    return NoPlace("connection_failed", "Enough downloads are connected to the server's address.")
