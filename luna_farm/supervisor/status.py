"""The status of the farm as a dict: what the core knows, and what the system knows of its processes and
disks."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from luna_farm import __version__
from luna_farm.config import Config, default_state_dir
from luna_farm.config_settings import BY_NAME
from luna_farm.core import status
from luna_farm.core.pools import NEAR
from luna_farm.core.state import Farm, folder_of
from luna_farm.core.workers import Worker
from luna_farm.locations import is_url
from luna_farm.supervisor.folders import SPACE_FRESH_S, Folders
from luna_farm.supervisor.formats import missing_formats

FRESH_S = 0.5
"""Looking at the processes costs about 0.3 ms each: done at most this often."""


LISTED_FOLDERS = 100

NOTHING = dict.fromkeys(("rss_bytes", "own_bytes", "cpu_percent", "threads", "open_files", "uptime_s"), 0)


class Status:
    """Makes the status. `facts` are set once: ports, folders, limits. `notes` are sentences for a person."""

    def __init__(
        self,
        farm: Farm,
        folders: Folders,
        output_dir: Path,
        now: Callable[[], float],
        notes: Sequence[str],
    ) -> None:
        self._farm = farm
        self._disks = folders
        self.facts: Mapping[str, Any] = {}
        self._output_dir = output_dir
        self._now = now
        self._started = now()
        self._processes: dict[int, psutil.Process] = {}
        self._cached: tuple[float, dict[str, Any]] | None = None
        self._notes = notes

    def get(self, *problems: str) -> dict[str, Any]:
        """Return the status; what concerns processes and disks is at most FRESH_S old. `problems` that are
        not "" join the notes."""
        now = self._now()
        if self._cached is None or now - self._cached[0] > FRESH_S:
            self._cached = (now, self._of_system(now))
        return {
            **self.facts,
            **self._cached[1],
            **status.status(self._farm),
            "notes": [*self._notes, *(problem for problem in problems if problem)],
        }

    def _of_system(self, now: float) -> dict[str, Any]:
        ready = [worker for worker in self._farm.workers.values() if worker.pid]
        rows = [self._worker(worker, now) for worker in ready]
        bridges = {worker.pid for worker in ready if worker.node}
        alive = {worker.pid for worker in ready} | {os.getpid()}
        self._processes = {pid: process for pid, process in self._processes.items() if pid in alive}
        return {
            "running": True,
            "pid": os.getpid(),
            "version": __version__,
            "uptime_s": now - self._started,
            # One uptime: its process has also loaded modules and taken up what a predecessor left.
            "supervisor": {**self._process(os.getpid()), "uptime_s": now - self._started},
            "workers": rows,
            "bridges": [{"pid": pid, **self._process(pid)} for pid in bridges],
            "folders": self._folders(now),
            # Workers of other machines may have what is missing here.
            "missing_formats": missing_formats() if list(self._farm.pools) == [NEAR] else {},
        }

    def _worker(self, worker: Worker, now: float) -> dict[str, Any]:
        uptime_s = max(0.001, now - worker.ready_at)
        # What a process of another machine takes is not known here.
        process = {**NOTHING, "uptime_s": uptime_s} if worker.node else self._process(worker.pid)
        image = worker.images[0] if worker.images else None
        return {
            "pid": worker.node_pid or worker.pid,
            "node": worker.node,
            "state": worker.state.value,
            "images_saved": worker.images_saved,
            "mb_per_s": worker.bytes_written / 1e6 / uptime_s,
            "current": {"job_id": image.task.job_id, "path": image.task.path} if image else None,
            **process,
        }

    def _process(self, pid: int) -> dict[str, Any]:
        """CPU percent since the last look, memory, threads, open files; zeros for one that is just gone."""
        try:
            process = self._processes.get(pid) or psutil.Process(pid)
            self._processes[pid] = process
            with process.oneshot():
                memory = process.memory_info()
                return {
                    "rss_bytes": memory.rss,
                    # Every process maps the arena, which counts in each RSS; this is what the process has
                    # for itself.
                    "own_bytes": memory.rss - getattr(memory, "shared", 0),
                    "cpu_percent": process.cpu_percent(),
                    "threads": process.num_threads(),
                    "open_files": _open_files(process),
                    "uptime_s": time.time() - process.create_time(),
                }
        except psutil.Error:
            return dict(NOTHING)

    def _folders(self, now: float) -> list[dict[str, Any]]:
        known = {folder_of(image) for image in self._farm.unfinished() if not is_url(image.task.root)}
        failing_first = sorted(self._farm.folders)
        usual = [] if is_url(str(self._output_dir)) else [str(self._output_dir)]
        rows = []
        for path in list(dict.fromkeys([*failing_first, *usual, *sorted(known)]))[:LISTED_FOLDERS]:
            failing = self._farm.folders.get(path)
            fresh_s = FRESH_S if failing else SPACE_FRESH_S
            free_bytes, total_bytes = self._disks.space(path, now, fresh_s)
            rows.append(
                {
                    "path": path,
                    "state": "failing" if failing else "ok",
                    "error": failing.error if failing else "",
                    "since_s": now - failing.since if failing else 0.0,
                    "free_bytes": free_bytes,
                    "total_bytes": total_bytes,
                }
            )
        return rows


def _open_files(process: psutil.Process) -> int:
    """File descriptors; on Windows handles."""
    count: Callable[[], int] = getattr(process, "num_handles" if sys.platform == "win32" else "num_fds")
    return count()


def start_command(config: Config) -> str:
    """Return what to type to start this farm again: the page of a farm that is gone shows it."""
    words = ["luna-farm", "start", "--detach"]
    if config.state_dir != default_state_dir():
        words += ["--state-dir", str(config.state_dir)]
    for name in ("port", "feed_port"):
        if getattr(config, name) != BY_NAME[name].default:
            words += [BY_NAME[name].option, str(getattr(config, name))]
    return shlex.join(words)
