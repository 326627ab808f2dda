"""Reads from a connection with limits on silence and on slow transfers."""

from __future__ import annotations

import io
import socket
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple

from md5light import tls
from md5light.config import DownloadConfig
from md5light.errors import TemporaryFailure

#: seconds over which the least rate is measured
WINDOW_SECONDS = 60.0


class Limits(NamedTuple):
    """How long a server may be silent, in seconds, and its least rate, in bytes a second."""

    first_byte: float
    silence: float
    least_rate: int
    window: float

    @classmethod
    def of(cls, config: DownloadConfig, patience: float = 1.0) -> Limits:
        """Return the limits that `config` sets; each time is multiplied by `patience`."""
        return cls(
            config.first_byte_timeout * patience,
            config.read_timeout * patience,
            config.min_bytes_per_second,
            WINDOW_SECONDS * patience,
        )


class Wire(io.RawIOBase):
    """A raw stream for io.BufferedReader, with limits on the time that an answer takes.

    It needs fewer calls a read than socket.makefile, which matters with TLS's 16 KiB a read.
    Raises TemporaryFailure("timed_out", …), which names the part of the answer that took too long,
    and the other errors of the socket as they are.
    """

    def __init__(
        self, connection: socket.socket, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connection = connection
        self._clock = clock

    def begin(self, limits: Limits) -> None:
        """Start the time of an answer; to be called before its request is sent."""
        self._limits = limits
        self._answer_by = self._clock() + limits.first_byte
        self.await_head()

    def await_head(self) -> None:
        """Wait for the first byte of a head, which may be an interim one: all share one limit."""
        self._awaiting = True
        left = self._answer_by - self._clock()
        if left <= 0:
            raise self._silent()
        self._connection.settimeout(left)

    def enter_body(self) -> None:
        """Name the body in failures from now on."""
        self._part = "body"

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            if isinstance(self._connection, ssl.SSLSocket):
                # typeshed knows `read` only without a buffer
                count: int = self._connection.read(len(buffer), buffer)  # type: ignore[assignment]
            else:
                count = self._connection.recv_into(buffer)
        except TimeoutError:
            raise self._silent() from None
        except ssl.SSLError as error:
            if tls.is_cut(error):
                raise ConnectionResetError from None
            raise
        if self._awaiting:
            self._start_reading()
        self._received += count
        if self._clock() >= self._window_end:
            self._check_rate()
        return count

    def _start_reading(self) -> None:
        self._awaiting = False
        self._part = "headers"
        self._connection.settimeout(self._limits.silence)
        self._start_window()

    def _start_window(self) -> None:
        self._received = 0
        self._window_end = self._clock() + self._limits.window

    def _check_rate(self) -> None:
        limits = self._limits
        if self._received < limits.least_rate * limits.window:
            raise _timed_out(
                f"The server sent its {self._part} at less than {limits.least_rate:,} bytes per "
                f"second for {limits.window:g} seconds; see [download] min_bytes_per_second."
            )
        self._start_window()

    def _silent(self) -> TemporaryFailure:
        if self._awaiting:
            return _timed_out(
                f"The server did not begin its answer within {self._limits.first_byte:g} seconds; "
                "see [download] first_byte_timeout."
            )
        return _timed_out(
            f"The server was silent for {self._limits.silence:g} seconds within its {self._part}; "
            "see [download] read_timeout."
        )


def _timed_out(sentence: str) -> TemporaryFailure:
    return TemporaryFailure("timed_out", sentence)
