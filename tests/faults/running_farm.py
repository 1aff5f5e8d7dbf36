"""A real farm in processes of its own, which a test may kill, stop, starve and start again.

And `until`, the one way in which these tests wait: for a condition, never for a time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
from free_ports import free_port

import luna_farm
from luna_farm.errors import FarmError
from luna_farm.storage import arena, arena_size
from luna_farm_client import FarmClient

T = TypeVar("T")
LISTENS_S = 120.0
"""How long a start may take on a machine that is busy with other things."""
LEAVES_S = 60.0
MOST_DEATHS = 1000
MUTATED = Path(__file__).parent / "mutated"
IMPORTED_FROM = Path(luna_farm.__file__).parents[1]


class Impatient(AssertionError):
    """What was waited for did not come."""


def until(condition: Callable[[], T], what: str, deadline_s: float = 120.0) -> T:
    """Return what `condition` returns once that is true; fail with `what` if it is not in time."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Impatient(f"waited {deadline_s:.0f} s for: {what}")
        time.sleep(0.005)


class RunningFarm:
    """`luna-farm start` with state and output below `home`. Settings by their names, environment in capitals.

    `before`: a command that starts it in another world (`unshare`, `prlimit`). `user`: as whom it runs.
    Without coverage, which would take a third of each start, and be measured with it.
    """

    def __init__(
        self,
        home: Path,
        *,
        before: Sequence[str] = (),
        out: Path | None = None,
        user: int = 0,
        **given: Any,
    ) -> None:
        self.home, self.state, self.out = home, home / "state", out or home / "out"
        self.port = free_port()
        self.log_path = home / "log"
        self._before, self._user = tuple(before), user
        self.environ = {name: value for name, value in given.items() if name.isupper()}
        usual = {"arena_bytes": "64MiB", "max_workers": 2, "kept_reports": 100_000, "feed_port": "off"}
        self.settings = usual | {name: value for name, value in given.items() if not name.isupper()}
        self.process: subprocess.Popen[bytes] | None = None
        self.listening_s = 0.0
        self._clients: list[FarmClient] = []
        self._known: dict[int, psutil.Process] = {}

    # --- life

    def launch(self) -> subprocess.Popen[bytes]:
        """Start a supervisor and do not wait for it."""
        options = [
            part
            for name, value in self.settings.items()
            for part in (f"--{name.removesuffix('_s').replace('_', '-')}", str(value))
        ]
        command = [*self._before, sys.executable, "-m", "luna_farm", "start", "--log-format", "json"]
        command += ["--port", str(self.port), "--output-dir", str(self.out), *options]
        left_out = ("LUNA_FARM_", "COVERAGE_", "COV_CORE_")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        environ.update(
            PYTHONPATH=str(IMPORTED_FROM), LUNA_FARM_STATE_DIR=str(self.state), HOME=str(self.home)
        )
        environ.update(self.environ)
        if "LUNA_FARM_TEST_MUTATION" in environ:
            environ["PYTHONPATH"] = f"{MUTATED}{os.pathsep}{environ['PYTHONPATH']}"
        as_user: dict[str, Any] = {"user": self._user, "group": self._user} if self._user else {}
        with self.log_path.open("ab") as log:
            return subprocess.Popen(command, stderr=log, env=environ, cwd=self.home, **as_user)

    def start(self, **environ: str) -> RunningFarm:
        """Start it and return once it listens. Raises Impatient with the log if it ends instead."""
        self.environ.update(environ)
        started = time.monotonic()
        self.process = self.launch()
        until(lambda: self.listens or self.process.poll() is not None, "the farm listens", LISTENS_S)
        if self.process.poll() is not None:
            raise Impatient(f"the farm ended with {self.process.returncode}:\n{self.log_text()[-3000:]}")
        self.listening_s = time.monotonic() - started
        return self

    @property
    def listens(self) -> bool:
        """The present supervisor has said where it listens: it does so once it does."""
        try:
            endpoint: dict[str, Any] = json.loads((self.state / "endpoint.json").read_text())
        except (OSError, ValueError):
            return False
        return self.process is not None and endpoint["pid"] == self.process.pid

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        assert self.process is not None
        return self.process.pid

    def kill(self, *, children: bool = False) -> None:
        """kill -9 of the supervisor, and of its `children` when nothing may write any more; wait for their
        end."""
        self.note_processes()
        self.process.kill()
        self.process.wait()
        for process in self._known.values() if children else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                process.wait(60)

    def restart(self, **environ: str) -> RunningFarm:
        """Start it again, where it was."""
        for name in [n for n in self.environ if n.startswith("LUNA_FARM_CRASH") and n not in environ]:
            del self.environ[name]
        return self.start(**environ)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; returns the exit code."""
        self.note_processes()
        for client in self._clients:
            client.close()
        self.process.send_signal(number)
        return self.process.wait(timeout=180)

    def destroy(self) -> None:
        """Leave no process and no memory, whatever state the test left it in."""
        for client in self._clients:
            client.close()
        self.note_processes()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self._known.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for name in self.segments():
            arena.remove(name)

    # --- looking at it

    def client(self, timeout: float = 60.0) -> FarmClient:
        """A client that finds the farm again after each restart, also on a busy machine."""
        client = FarmClient("127.0.0.1", self.port, timeout=timeout, restart_s=LISTENS_S)
        client.endpoint = dataclasses.replace(client.endpoint, state_dir=self.state)
        self._clients.append(client)
        return client

    def status(self) -> dict[str, Any]:
        """The status, by a connection of its own."""
        with self.client() as client:
            return client.status()

    def worker_pids(self) -> list[int]:
        """Workers that are ready."""
        return [worker["pid"] for worker in self.status()["workers"]]

    def workers_ready(self, count: int = 2) -> list[int]:
        """Wait until so many workers are there."""

        def ready() -> list[int]:
            pids = self.worker_pids()
            return pids if len(pids) >= count else []

        return until(ready, f"{count} workers")

    def note_processes(self) -> list[psutil.Process]:
        """All processes that belong to it now; remembered for `left_processes`."""
        with contextlib.suppress(psutil.NoSuchProcess, AssertionError):
            supervisor = psutil.Process(self.pid)
            for process in [supervisor, *supervisor.children(recursive=True)]:
                self._known[process.pid] = process
        return list(self._known.values())

    def left_processes(self) -> list[int]:
        """Those of its processes that still live; each may take a while to see that the others are gone."""
        _, left = psutil.wait_procs(list(self._known.values()), timeout=LEAVES_S)
        return [process.pid for process in left if process.status() != psutil.STATUS_ZOMBIE]

    def segments(self) -> list[str]:
        """Memory and files for pixels that this farm noted and that are there."""
        return [name for name in arena_size.noted(self.state) if _exists(name)]

    def temps(self, out: Path | None = None) -> list[Path]:
        """Temporary files in the output folder."""
        return list((out or self.out).rglob(".luna-*"))

    def log_text(self) -> str:
        """Everything it logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


def _exists(segment: str) -> bool:
    kind, _, name = segment.partition(":")
    return Path("/dev/shm" if kind == "shm" else "/", name).exists()


class Keeper:
    """Starts the supervisor again whenever it has died, as systemd would. `deaths` counts."""

    def __init__(self, farm: RunningFarm) -> None:
        self._farm = farm
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep)
        self.deaths = 0
        self.error: BaseException | None = None

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _keep(self) -> None:
        try:
            while not self._over.is_set() or self._farm.process.poll() is not None:
                try:
                    self._farm.process.wait(timeout=0.01)
                except subprocess.TimeoutExpired:
                    continue
                self.deaths += 1
                assert self.deaths < MOST_DEATHS, f"it dies at once:\n{self._farm.log_text()[-3000:]}"
                self._farm.process = self._farm.launch()
                until(lambda: self._farm.listens or self._farm.process.poll() is not None, "it listens")
        except BaseException as error:
            self.error = error


def answers(client: FarmClient, ask: Callable[[FarmClient], T], deadline_s: float = 120.0) -> T:
    """Ask until a farm answers: between two supervisors there may be none for a while."""
    found: list[T] = []

    def try_once() -> bool:
        with contextlib.suppress(FarmError):
            found.append(ask(client))
        return bool(found)

    until(try_once, "an answer of the farm", deadline_s)
    return found[0]


Start = Callable[..., RunningFarm]
"""The fixture `farm`."""
