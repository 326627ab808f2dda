"""Messages to the service manager, and the sockets that it passes; without one, no effect."""

from __future__ import annotations

import contextlib
import os
import socket
import time

#: seconds between two beats of a main loop without a watchdog
QUIET_SECONDS = 30.0

#: the first descriptor that is passed (SD_LISTEN_FDS_START)
FIRST_PASSED = 3


def notify(*assignments: str) -> None:
    """Send `assignments` such as READY=1 to the service manager (sd_notify(3)); never fails."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address.startswith("@"):  # a name in the abstract namespace (unix(7))
        address = "\0" + address[1:]
    if address:
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        ):
            manager.sendto("\n".join(assignments).encode(), address)


def stopping(seconds: float) -> None:
    """Announce a stop that may take `seconds`, even beyond the unit's TimeoutStopSec=."""
    notify("STOPPING=1")
    # The manager accepts this only after it knows of the stop.
    notify(f"EXTEND_TIMEOUT_USEC={seconds * 1e6:.0f}")


def passed_sockets() -> list[socket.socket]:
    """Return the sockets that the service manager has opened for us (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    end = FIRST_PASSED + int(os.environ.get("LISTEN_FDS", "0"))
    return [socket.socket(fileno=descriptor) for descriptor in range(FIRST_PASSED, end)]


class Watchdog:
    """Proves to the service manager that a main loop is running (sd_watchdog_enabled(3)).

    The loop calls `beat` in every iteration and sleeps no longer than the seconds that it returns.
    If the loop hangs, the beats stop, and the manager restarts the service.
    """

    def __init__(self) -> None:
        meant = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        allowed = os.environ.get("WATCHDOG_USEC") if meant else None
        self._pause = int(allowed) / 2e6 if allowed else QUIET_SECONDS
        self._due_at = 0.0

    def beat(self) -> float:
        """Send a beat if one is due; return the seconds to the next one."""
        now = time.monotonic()
        if now >= self._due_at:
            notify("WATCHDOG=1")
            self._due_at = now + self._pause
        return self._due_at - now
