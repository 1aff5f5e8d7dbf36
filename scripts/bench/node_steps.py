"""What the daemon saver does while ComfyUI's thread waits for it, step by step, in microseconds.

    python3 scripts/bench [--here] node_steps [--images 1] [--repeat 60]

Runs the node with a farm of its own and, in the place of ComfyUI, the few things that a node asks it for.
Images are float32 tensors of 1024x1024, another one each time, and each is saved before the next one: caches
are about as cold as between two prompts. Counted is the processor time of the thread, of each step without
the steps inside it; to measure takes about a microsecond a step. Needs torch.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[2]
WARM_UP = 6
PAUSE_S = 0.15
STEPS = (
    ("nodes", "LunaDaemonImageSaver.save", "the node: who asks, the status, the outputs"),
    ("nodes", "save_request", "its inputs become a request"),
    ("luna_farm_client.outgoing", "Outgoing.__post_init__", "the request is judged"),
    ("luna_farm_client.outgoing", "json_text", "the prompt becomes JSON"),
    ("luna_farm_client.farm_client", "FarmClient.submit", "leases, the message, the receipt"),
    ("luna_farm_client.connection", "Connection._send", "the message is packed and sent"),
    ("luna_farm_client.session", "Session._copy", "where the pixels are and where they go"),
    ("luna_farm_client.pixels", "from_array", "floats become bytes in shared memory"),
    ("luna_farm_client.connection", "Connection._receive", "the answer is read"),
    ("previews", "announce", "the job is announced and watched"),
)
"""Module (without a dot: of the nodes), function, and what it is."""


class Steps:
    """Processor time of each step of the thread `of`, without that of the steps inside it."""

    def __init__(self) -> None:
        self.ns: dict[str, int] = {}
        self.of: int | None = None
        self._inside: list[int] = []

    def timed(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that adds its time to the step `what`."""

        def run(*args: Any, **named: Any) -> Any:
            if threading.get_ident() != self.of:
                return call(*args, **named)
            self._inside.append(0)
            started = time.thread_time_ns()
            try:
                return call(*args, **named)
            finally:
                took = time.thread_time_ns() - started
                self.ns[what] = self.ns.get(what, 0) + took - self._inside.pop()
                if self._inside:
                    self._inside[-1] += took

        return run


def stand_in(output: Path) -> None:
    """Put what a node asks ComfyUI for where it looks for it."""
    context = SimpleNamespace(prompt_id="prompt", node_id="9", list_index=0)
    kinds = ("checkpoints", "diffusion_models", "loras", "embeddings")
    contents: dict[str, dict[str, Any]] = {
        "folder_paths": {
            "get_output_directory": lambda: str(output),
            "folder_names_and_paths": {kind: ([str(output.parent / kind)], {".pt"}) for kind in kinds},
        },
        "comfy": {},
        "comfy.cli_args": {"args": SimpleNamespace(disable_metadata=False)},
        "comfy_execution": {},
        "comfy_execution.utils": {"get_executing_context": lambda: context},
        "comfy_execution.graph": {"ExecutionBlocker": lambda message: message},
    }
    for name, content in contents.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(content)


def nodes() -> ModuleType:
    """Load the nodes as ComfyUI does, from their folder."""
    spec = importlib.util.spec_from_file_location("luna_nodes", ROOT / "comfy_nodes" / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def watch(steps: Steps) -> None:
    """Have every step of STEPS timed."""
    for module, path, what in STEPS:
        owner: Any = importlib.import_module(module if "." in module else f"luna_nodes.{module}")
        *outer, name = path.split(".")
        for part in outer:
            owner = getattr(owner, part)
        setattr(owner, name, steps.timed(what, getattr(owner, name)))


def measure(images: int, repeat: int) -> list[dict[str, int]]:
    """Return the nanoseconds of each step of each hand-over."""
    import torch

    from luna_farm.cli.trial_farm import own_farm

    chance = torch.Generator().manual_seed(1)
    batches = [torch.rand((images, 1024, 1024, 3), generator=chance) for _ in range(4)]
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
        "9": {"class_type": "LunaDaemonImageSaver", "inputs": {"image_1": ["1", 0], "save_path": "bench"}},
    }
    found = []
    with tempfile.TemporaryDirectory() as name, own_farm(Path(name), 2) as (_, farm):
        stand_in(Path(name) / "output")
        package = nodes()
        handover, previews = (sys.modules[f"luna_nodes.{part}"] for part in ("handover", "previews"))
        vars(handover)["_farm"] = farm
        vars(previews)["_connect"] = lambda: farm
        vars(previews)["watcher"] = vars(previews)["Watcher"](lambda: farm)
        steps = Steps()
        watch(steps)
        saver = package.NODE_CLASS_MAPPINGS["LunaDaemonImageSaver"]()
        for at in range(WARM_UP + repeat):
            steps.ns = {}
            inputs = {"image_1": batches[at % len(batches)], "filename": f"{at}", "prompt": graph}
            steps.of = threading.get_ident()
            done = saver.save(
                save_path="bench", quality_gate="disabled", min_quality_threshold=0.3, unique_id="9", **inputs
            )
            steps.of = None
            (job,) = done["ui"]["luna_farm"]
            assert job["job_id"], done["ui"]["text"]
            found.append(steps.ns)
            report = farm.wait(job["job_id"], 60)
            assert report.state == "done", report
            for path in report.paths:
                Path(path).unlink()
            time.sleep(PAUSE_S)
    return found[WARM_UP:]


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=1, help="images of a prompt (default 1)")
    parser.add_argument("--repeat", type=int, default=60, help="hand-overs that count (default 60)")
    args = parser.parse_args()
    found = measure(args.images, args.repeat)
    print(f"| microseconds of processor time, {args.images} x 1024x1024 | least | lowest quarter | median |")
    print("| --- | --- | --- | --- |")
    rows = {what: sorted(one[what] for one in found) for _, _, what in STEPS}
    rows["all of it"] = sorted(sum(one.values()) for one in found)
    for what, times in rows.items():
        figures = (times[0], times[len(times) // 4], statistics.median(times))
        print(f"| {what} | {' | '.join(f'{figure / 1000:.0f}' for figure in figures)} |")
    return 0
