"""From a configuration to a running supervisor, and from signals to its end. What `luna-farm start` calls."""

from __future__ import annotations

import asyncio
import signal
import sys

from luna_farm import system
from luna_farm.config import Config
from luna_farm.supervisor.supervisor import Supervisor

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
    for number in [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]:
        if sys.platform == "win32":
            # The loop of Windows has no signal handlers; this one only hands over to the loop.
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(supervisor.stop))
        else:
            loop.add_signal_handler(number, supervisor.stop)
    await supervisor.run()
