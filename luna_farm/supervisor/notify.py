"""Report the state of the farm to systemd: ready, alive, stopping (sd_notify(3), datagrams, no library).

Without NOTIFY_SOCKET, or where there are no unix sockets, every call does nothing. This module must never
raise: a farm does not fail because its service manager does not listen.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger("luna_farm.notify")

READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"


def managed(environ: Mapping[str, str] | None = None) -> bool:
    """Whether a service manager started this process and will start it again: systemd, launchd, or a
    container, whose first process this is."""
    given = os.environ if environ is None else environ
    return "NOTIFY_SOCKET" in given or given.get("XPC_SERVICE_NAME") == "luna-farm" or os.getpid() == 1


class Notifier:
    """One connection to the service manager, named by NOTIFY_SOCKET of `environ`.

    `watchdog_s` is how often ALIVE is due: half of WATCHDOG_USEC, as sd_watchdog_enabled(3) advises; None:
    not wanted.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        given = os.environ if environ is None else environ
        self._socket = _connect(given.get("NOTIFY_SOCKET", ""))
        self.watchdog_s = _watchdog_s(given) if self._socket is not None else None

    def send(self, *lines: str) -> None:
        """Send assignments such as `READY` or "STATUS=3 jobs" in one datagram."""
        if self._socket is None:
            return
        try:
            self._socket.send("\n".join(lines).encode())
        except OSError as error:
            log.warning("%s could not be sent to the service manager: %s.", lines[0], error.strerror)

    def close(self) -> None:
        """Close the socket; later calls of `send` do nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _connect(address: str) -> socket.socket | None:
    if not address or not hasattr(socket, "AF_UNIX"):
        return None
    # A leading @ is how an abstract address, which starts with NUL, is written in the environment.
    name = "\0" + address[1:] if address.startswith("@") else address
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        # Non-blocking: a service manager that is stuck must not stop the loop.
        connection.setblocking(False)
        connection.connect(name)
    except (OSError, ValueError) as error:
        connection.close()
        log.warning("NOTIFY_SOCKET is %r, which cannot be reached: %s.", address, error)
        return None
    return connection


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    usec = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # meant for another process of the service
    return int(usec) / 2e6 if usec.isascii() and usec.isdigit() and int(usec) > 0 else None
