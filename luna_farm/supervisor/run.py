"""From a configuration to a running supervisor, and from signals to its end. What `luna-farm start` calls."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import sys
from typing import Any

from luna_farm import system
from luna_farm.config import Config
from luna_farm.supervisor.supervisor import Supervisor

log = logging.getLogger("luna_farm.supervisor")

SIGNALS = ("SIGINT", "SIGTERM", "SIGBREAK")
"""SIGBREAK is Ctrl-Break and the end of a console on Windows."""


def run(config: Config) -> int:
    """Run a farm in this process until a signal or a client ends it; returns the exit code.

    The first signal drains, the second leaves the rest to the journal. Raises AlreadyRunning, DiskError,
    ArenaError, and OSError when the port is taken.
    """
    system.raise_open_file_limit()
    with Supervisor.open(config) as supervisor:
        asyncio.run(_run(supervisor))
    return 0


async def _run(supervisor: Supervisor) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_unhandled)

    def signalled() -> None:
        supervisor.stop(now=supervisor.farm.draining)

    for number in [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]:
        if sys.platform == "win32":
            # The loop of Windows has no signal handlers; this one only hands over to the loop.
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(signalled))
        else:
            loop.add_signal_handler(number, signalled)
    await supervisor.run()


def _log_unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nothing in the farm handles; asyncio's own handler would write a traceback to standard error
    each time, thousands of them when open files run out."""
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        log.error("%s: too many open files; raise `ulimit -n`", context["message"])
        return
    if isinstance(error, ValueError) and "_start_serving" in context["message"]:
        return  # asyncio goes on accepting, a second after that, on a port that is closed by now
    log.error("%s", context["message"], exc_info=error if isinstance(error, Exception) else None)
