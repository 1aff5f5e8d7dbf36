"""A Ray cluster beside workers of this machine: what an image costs there, and what the cluster brings.

    python3 scripts/bench cluster [--cpus 7,7] [--images 140] [--side 1024]

Simulates nodes on this machine, each with an address and an object store of its own, so nothing crosses a
network. Each engine gets as many workers; runs of the engines take turns.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("engine", "faults", "")]

KINDS: dict[str, dict[str, Any]] = {
    "PNG level 1": {"format": "png", "png_compression": 1},
    "PNG level 4": {"format": "png", "png_compression": 4},
    "PNG level 9": {"format": "png", "png_compression": 9},
    "AVIF": {"format": "avif"},
}
MIX = ("PNG level 1", "AVIF")
STEPS = ("gate", "encode", "write", "put", "call", "result")
PARTS = ("client", "supervisor", "bridge", "ray", "workers")
"""Whose processor time is measured: "ray" is all of the cluster but the workers."""
ROUNDS = 2
MIX_ROUNDS = 3
MANY = (
    "Many images, ms of one:    images/s  of local  encode   write    call  supervisor (of local)"
    "   client   bridge      ray  workers"
)
STORE_BYTES = 500_000_000


class Run(NamedTuple):
    """One run of one engine."""

    seconds: float
    cpu_ms: dict[str, float]
    """Processor time for one image by the processes of PARTS."""
    steps: dict[str, float]
    """Medians of STEPS, in ms."""


def image(side: int, number: int) -> Any:
    """An image like a photograph: smooth, with noise; no two are alike."""
    import numpy as np

    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[0:side, 0:side] / side
    base = np.stack([rows, columns, (rows + columns) / 2], axis=-1) * 200 + 20
    made: Any = (base + rng.normal(0, 6, base.shape)).clip(0, 255).astype(np.uint8)
    return made


class Farm:
    """A farm with one engine, used for all runs."""

    def __init__(self, home: Path, engine: str, local: int, nodes: Any, far: int) -> None:
        home.mkdir()
        given: dict[str, Any] = {"engine": engine, "min_workers": local, "max_workers": local}
        if engine != "local":
            given |= {"ray_address": nodes.address, "ray_max_workers": far, **nodes.secrets}
            given["ray_num_cpus"] = 0.5  # two farms hold their workers at the same time
        self.engine, self._far = engine, far if engine != "local" else 0
        self._nodes = nodes
        self._local = local if engine != "ray" else 0
        self.farm = (
            importlib.import_module("running_farm")
            .RunningFarm(home, bare=True, arena_bytes="1GiB", idle_timeout="3600", **given)
            .start()
        )
        self.out = self.farm.out
        self.out.mkdir()
        self._runs = 0

    def warm(self, images: list[Any]) -> None:
        """Have all workers started, and each kind measured."""
        end = time.monotonic() + 120
        while True:
            self.run(images[: 2 * (self._far + self._local) + 2], ["PNG level 9"])
            workers = self.farm.status()["workers"]
            if len(workers) >= self._far + self._local:
                self.run(images[: self._far + self._local], list(KINDS))
                return
            if time.monotonic() > end:
                raise SystemExit(f"{self.engine}: only {len(workers)} workers came")

    def run(self, images: list[Any], kinds: list[str] | tuple[str, ...]) -> Run:
        """Save images, kind by kind in turns; as fast as they are taken."""
        from luna_farm_client import SaveImage, SaveRequest

        self._runs += 1
        before = self._cpu()
        started = time.perf_counter()
        with self.farm.client() as client:
            receipts = []
            for number, pixels in enumerate(images):
                given = dict(KINDS[kinds[number % len(kinds)]])
                one = SaveImage(pixels, affix="A", format=given.pop("format"))
                name = f"{self._runs}-{number}"
                receipts.append(
                    client.submit(SaveRequest(images=[one], output_dir=self.out, filename=name, **given))
                )
            reports = [client.wait(receipt.job_id, timeout=600) for receipt in receipts]
        seconds = time.perf_counter() - started
        each = 1e3 / len(images)
        cpu = {part: (after - before[part]) * each for part, after in self._cpu().items()}
        assert all(report.state == "done" for report in reports)
        for file in self.out.iterdir():
            file.unlink()
        took = [report.images[0].ms for report in reports]
        steps = {step: statistics.median(ms.get(step, 0.0) for ms in took) for step in STEPS}
        return Run(seconds, cpu, steps)

    def _cpu(self) -> dict[str, float]:
        """Seconds of processor time by part."""
        status = self.farm.status()
        far = self._nodes.actors() if self._far else []
        near = [psutil.Process(row["pid"]) for row in status["workers"] if not row.get("node")]
        cluster = [p for p in self._nodes.processes() if p not in far] if self._far else []
        bridges = [psutil.Process(row["pid"]) for row in status["bridges"]]
        here = [psutil.Process()], [psutil.Process(self.farm.pid)], bridges, cluster, [*near, *far]
        return {part: sum(map(_seconds, processes)) for part, processes in zip(PARTS, here, strict=True)}


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def farms(cpus: list[float], local: int, engines: list[str]) -> Iterator[dict[str, Farm]]:
    """A farm for each engine, and the cluster that they share one after the other."""
    module = importlib.import_module("nodes")  # of tests/engine
    if module.WHY_NOT:
        raise SystemExit(module.WHY_NOT)
    nodes = module.RayNodes([0, *cpus], store_bytes=STORE_BYTES)
    made: dict[str, Farm] = {}
    with tempfile.TemporaryDirectory() as home:
        try:
            nodes.start()
            for engine in engines:
                near = int(sum(cpus)) if engine == "local" and local == 0 else local or 1
                made[engine] = Farm(Path(home, engine), engine, near, nodes, int(sum(cpus)))
            yield made
        finally:
            for farm in made.values():
                farm.farm.destroy()
            nodes.stop()


def overhead(farm: Farm, images: list[Any]) -> None:
    """What one image takes, handed over alone: each step of it."""
    for name in KINDS:
        runs = [farm.run([pixels], [name]).steps for pixels in images[:9]]
        row = "  ".join(f"{statistics.median(ms[step] for ms in runs):8.2f}" for step in STEPS)
        print(f"  {farm.engine:<6} {name:<13} {row}", flush=True)


def many(by_engine: dict[str, Farm], images: list[Any], name: str) -> None:
    """What many images take: images a second, an image's steps, and where the processor time goes."""
    runs: dict[str, list[Run]] = {engine: [] for engine in by_engine}
    for _ in range(ROUNDS):
        for engine, farm in by_engine.items():
            runs[engine].append(farm.run(images, [name]))
    base = min(run.seconds for run in runs["local"])
    for engine, of in runs.items():
        best = min(of, key=lambda run: run.seconds)
        least = {part: min(run.cpu_ms[part] for run in of) for part in PARTS}
        steps = "".join(f"{best.steps[step]:8.1f}" for step in ("encode", "write", "call"))
        cpu = "".join(f"{least[part]:9.1f}" for part in PARTS if part != "supervisor")
        local = min(run.cpu_ms["supervisor"] for run in runs["local"])
        print(
            f"  {engine:<6} {name:<12}{len(images) / best.seconds:8.1f} {base / best.seconds:7.2f}x{steps}"
            f"{least['supervisor']:9.2f} ({least['supervisor'] / local:.2f}x){cpu}",
            flush=True,
        )


def mix(by_engine: dict[str, Farm], images: list[Any]) -> None:
    """How long a mix of a fast and a slow format takes with each engine."""
    took: dict[str, list[float]] = {engine: [] for engine in by_engine}
    for _ in range(MIX_ROUNDS):
        for engine, farm in by_engine.items():
            took[engine].append(farm.run(images, MIX).seconds)
    least = {engine: min(seconds) for engine, seconds in took.items()}
    for engine, seconds in least.items():
        print(f"  {engine:<6} {seconds:8.2f}")
    ratio = least["auto"] / min(least["local"], least["ray"])
    print(f"  auto takes {ratio:.2f} of the time of the better one (at most 1.05)")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpus", default="1,1", help="CPUs of each simulated node")
    parser.add_argument("--images", type=int, default=60, help="images of one run")
    parser.add_argument("--side", type=int, default=1024, help="pixels of a side")
    given = parser.parse_args()
    cpus = [float(part) for part in given.cpus.split(",")]
    workers = int(sum(cpus))
    images = [image(given.side, number) for number in range(given.images)]
    print(f"{workers} workers; {given.images} images of {given.side}x{given.side}x3 a run")
    with farms(cpus, 0, ["local", "ray"]) as by_engine:
        for farm in by_engine.values():
            farm.warm(images)
        print("One image, ms:              gate    encode     write       put      call    result")
        for farm in by_engine.values():
            overhead(farm, images)
        print(MANY)
        for name in KINDS:
            many(by_engine, images, name)
    with farms(cpus, 2, ["local", "ray", "auto"]) as by_engine:
        for farm in by_engine.values():
            farm.warm(images)
        print(f"A mix of {' and '.join(MIX)}, 2 workers here and {workers} there: seconds")
        mix(by_engine, images)
    return 0


if __name__ == "__main__":
    sys.exit(main())
