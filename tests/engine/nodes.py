"""A Ray cluster on this machine: each node has an address of its own (127.x.y.z), a small object store, and
ports that the system chose. Its processes can be killed one by one.

Also used by scripts/bench. Nothing here imports ray.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from free_ports import free_port

STORE_BYTES = 100_000_000
START_S = 90.0
WHY_NOT = (
    "NOT TESTED: Ray is not installed"
    if importlib.util.find_spec("ray") is None
    else "NOT TESTED: nodes with addresses of their own on one machine need Linux"
    if sys.platform != "linux"
    else ""
)


class RayNodes:
    """A head and further nodes; `cpus` of each, the head's first. The driver of the farm uses the head's."""

    def __init__(
        self,
        cpus: Sequence[float],
        store_bytes: int = STORE_BYTES,
        environ: Mapping[str, str] | None = None,
        *,
        ips: Sequence[str] = (),
        before: Sequence[Sequence[str]] = (),
    ) -> None:
        """`environ`: what the processes of the nodes have in their environment. `ips` and `before`: for each
        node its address, and a command that starts it in another network."""
        self._ips, self._before = ips, before
        self.cpus, self._store_bytes = list(cpus), store_bytes
        # Short: the path of a socket has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="lray-"))
        self._net = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 1}"
        self.port = free_port("" if ips else self._ip(0))
        self.address = f"{self._ip(0)}:{self.port}"
        self.secrets = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "COVERAGE_", "COV_CORE_"))},
            "RAY_DISABLE_USAGE_STATS": "1",
            # Where `ray start` notes the address of the latest cluster for all users of this machine.
            "RAY_TMPDIR": str(self.folder),
            **self.secrets,
            **(environ or {}),
        }

    def _ip(self, node: int) -> str:
        if self._ips:
            return self._ips[node]
        return f"{self._net}.{node + 1}"

    def start(self) -> RayNodes:
        """Start the head, then the others at the same time."""
        self.start_head()
        started = [self._launch(node) for node in range(1, len(self.cpus))]
        try:
            for process in started:
                self._wait(process)
        finally:
            for process in started:
                process.kill()
                process.wait()
        return self

    def start_head(self) -> None:
        """Start the head, at the address that it had."""
        self._wait(self._launch(0))

    def start_node(self, node: int) -> None:
        """Start a node again."""
        self._wait(self._launch(node))

    def _launch(self, node: int) -> subprocess.Popen[bytes]:
        role = (
            ["--head", "--port", str(self.port), "--include-dashboard=false"]
            if node == 0
            else ["--address", self.address]
        )
        before = self._before[node] if self._before else ()
        command = [*before, sys.executable, "-m", "ray.scripts.scripts", "start", *role]
        command += ["--node-ip-address", self._ip(node), "--num-cpus", f"{self.cpus[node]:g}"]
        command += ["--object-store-memory", str(self._store_bytes), "--include-log-monitor=false"]
        command += ["--temp-dir", str(self.folder / str(node))]
        log = (self.folder / f"start-{node}").open("ab")
        with log:
            return subprocess.Popen(command, env=self.environ, stdout=log, stderr=log, cwd=self.folder)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        try:
            code = process.wait(START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = -1
        if code:
            logs = "\n".join(path.read_text()[-1500:] for path in sorted(self.folder.glob("start-*")))
            raise AssertionError(f"ray start ended with {code}:\n{logs}")

    def repair(self) -> RayNodes:
        """Start again what does not live."""
        if not self._lives("gcs_server"):
            self.kill_all()  # raylets of a head that is gone only wait for their end
            return self.start()
        for node in range(1, len(self.cpus)):
            if not any(self._is_of(_line(process), node) for process in self._raylets()):
                self.start_node(node)
        return self

    def restart_head(self) -> None:
        """Start the head again, alone: the raylets of one that is gone only wait for their end."""
        self.kill_all()
        self.start_head()

    def _lives(self, program: str) -> bool:
        return any(program in (_line(process) or [""])[0] for process in self.processes())

    def processes(self) -> list[psutil.Process]:
        """All processes of the cluster."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(self.folder) in part for part in process.cmdline()):
                    found += [process, *process.children(recursive=True)]
        return list({process.pid: process for process in found}.values())

    def raylet(self, node: int) -> psutil.Process:
        """The raylet of a node."""
        return self._one(lambda line: "raylet/raylet" in line[0] and self._is_of(line, node))

    def head(self) -> psutil.Process:
        """The head's process."""
        return self._one(lambda line: "gcs_server" in line[0])

    def _is_of(self, line: list[str], node: int) -> bool:
        return any(part.endswith(f"={self._ip(node)}") for part in line)

    def _one(self, is_it: Callable[[list[str]], bool]) -> psutil.Process:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if line and any(str(self.folder) in part for part in line) and is_it(line):
                    return process
        raise AssertionError("there is no such process")

    def actors(self, node: int | None = None) -> list[psutil.Process]:
        """The workers of the farm, of one node or of all."""
        raylets = [self.raylet(node)] if node is not None else self._raylets()
        found = []
        for raylet in raylets:
            with contextlib.suppress(psutil.Error):
                found += [c for c in raylet.children() if "ray::Actor" in " ".join(c.cmdline())]
        return found

    def _raylets(self) -> list[psutil.Process]:
        return [p for p in self.processes() if "raylet/raylet" in (_line(p) or [""])[0]]

    def kill_head(self) -> None:
        """kill -9 of the head's process; its nodes go on for a while."""
        _kill(self.head())

    def kill_node(self, node: int) -> None:
        """kill -9 of the raylet of a node; its workers see that and end."""
        _kill(self.raylet(node))

    def kill_all(self) -> None:
        """End every process of the cluster."""
        for _ in range(5):
            processes = self.processes()
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(processes, timeout=5)
            if not processes:
                break

    def stop(self) -> None:
        """End every process, and remove what they wrote."""
        self.kill_all()
        shutil.rmtree(self.folder, ignore_errors=True)


def _line(process: psutil.Process) -> list[str]:
    try:
        line: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return line


def _kill(process: psutil.Process) -> None:
    process.send_signal(signal.SIGKILL)
    with contextlib.suppress(psutil.TimeoutExpired):
        process.wait(10)


def main() -> None:
    """Start a cluster by hand: PYTHONPATH=tests python tests/engine/nodes.py 1 2 2"""
    nodes = RayNodes([float(cpus) for cpus in sys.argv[1:]])
    started = time.monotonic()
    try:
        nodes.start()
        print(f"{nodes.address} in {nodes.folder} after {time.monotonic() - started:.1f} s; Ctrl-C ends it")
        signal.pause()
    finally:
        nodes.stop()


def ray_settings(nodes: RayNodes, **changes: Any) -> dict[str, Any]:
    """Settings of a farm that uses the cluster."""
    return {"engine": "ray", "ray_address": nodes.address, **changes}


if __name__ == "__main__":
    main()
