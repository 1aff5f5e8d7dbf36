"""Starting a farm as a process of its own and waiting until it answers: for `start --detach`, bench and demo.

It must never leave a process behind that did not get ready.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luna_farm.errors import FarmError
from luna_farm.system import disk_error

READY_WITHIN_S = 30.0
_POLL_S = 0.01
OUTPUT_FILE = "start.log"


@dataclass(frozen=True, slots=True)
class Launched:
    """A farm that answers: its process, where it listens, and how long that took."""

    process: subprocess.Popen[bytes]
    host: str
    port: int
    feed_port: int | None
    pid: int
    open_after_s: float


class LaunchFailed(FarmError):
    """A farm that was started in the background ended or did not answer in time."""

    code = "launch"
    remedy = "Read what it said; `luna-farm start` without --detach shows everything."

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def launch(arguments: Sequence[str], state_dir: Path, environ: dict[str, str] | None = None) -> Launched:
    """Run `luna-farm start` with `arguments`, cut off from this terminal, and return when its port answers.

    Raises LaunchFailed with the sentence that the new process gave, and DiskError for a state folder that is
    not safe.
    """
    from luna_farm.supervisor.state_dir import read_endpoint, secure

    secure(state_dir)
    before = read_endpoint(state_dir)
    started = time.monotonic()
    with _interrupts_held() as interrupted:
        process = _spawn(arguments, state_dir / OUTPUT_FILE, environ)
    try:
        if interrupted:
            raise KeyboardInterrupt
        return _ready(process, state_dir, before, started)
    except BaseException:  # Ctrl-C as well: what did not get ready does not stay behind
        process.kill()
        process.wait()
        raise


@contextlib.contextmanager
def _interrupts_held() -> Iterator[list[int]]:
    """Only note Ctrl-C for now: between the start of a process and our knowing it, it could not be ended."""
    held: list[int] = []
    try:
        before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    except ValueError:  # not the main thread, where Ctrl-C does not arrive
        yield held
        return
    try:
        yield held
    finally:
        signal.signal(signal.SIGINT, before)


def _ready(
    process: subprocess.Popen[bytes], state_dir: Path, before: dict[str, Any], started: float
) -> Launched:
    """Return once the farm answers. Raises LaunchFailed."""
    from luna_farm.supervisor.state_dir import read_endpoint

    while time.monotonic() - started < READY_WITHIN_S:
        endpoint = read_endpoint(state_dir)
        # The pid is not compared: on Windows our child is a launcher, and the farm a child of that.
        if endpoint and endpoint != before and _answers(endpoint):
            place = {name: endpoint[name] for name in ("host", "port", "feed_port", "pid")}
            return Launched(process, **place, open_after_s=time.monotonic() - started)
        if process.poll() is not None:
            why = _said(state_dir) or _silent_end(process.returncode, state_dir / OUTPUT_FILE)
            raise LaunchFailed(why, max(1, process.returncode))
        time.sleep(_POLL_S)
    said = _said(state_dir)
    told = f"it said: {said}" if said else "`luna-farm start` without --detach shows what it waits for."
    raise LaunchFailed(f"The farm did not answer within {READY_WITHIN_S:.0f} s; {told}")


def _spawn(arguments: Sequence[str], output: Path, environ: dict[str, str] | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "luna_farm", "start", *arguments, "--background"]
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        apart = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(output, flags, 0o600), "wb") as file:
        return subprocess.Popen(  # noqa: S603  ourselves, with the arguments that we were given
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, **(environ or {})},
            **apart,
        )


def _answers(endpoint: dict[str, Any]) -> bool:
    try:
        with socket.create_connection((endpoint["host"], endpoint["port"]), timeout=1.0):
            return True
    except OSError:
        return False


def _said(state_dir: Path) -> str:
    """Return the last line that the new process wrote, "" for none."""
    lines = (state_dir / OUTPUT_FILE).read_text("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""


def _silent_end(code: int, output: Path) -> str:
    """Say why a process ended that wrote nothing: what it had to say may have found no room on the disk."""
    if code < 0:
        return f"The farm was ended by {signal.Signals(-code).name} while it started; see the system log."
    try:
        with output.open("wb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return str(disk_error("write", output, error))
    return f"The farm ended with code {code}; `luna-farm start` without --detach shows everything."
