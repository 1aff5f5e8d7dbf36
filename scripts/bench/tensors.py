"""The hand-over of CUDA and CPU tensors beside the way of ComfyUI's Save Image.

    python3 scripts/bench [--here] tensors [--repeat 40] [--device cuda] [--json]

Needs torch: `--here` takes the Python that runs it, which may have torch with CUDA. "hand-over" is the time
from `FarmClient.submit` to its receipt while the GPU is idle; the farm finishes each job before the next one.
Every file's pixels are compared with those of ComfyUI's way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luna_farm_client import FarmClient

SHAPES = ((1, 1024, 1024, 3), (8, 1024, 1024, 3), (1, 4096, 4096, 3))
WARM_UP = 5


def timed(
    work: Callable[[], Any], repeat: int, before: Callable[[], Any], after: Callable[[Any], Any]
) -> list[float]:
    """Return the milliseconds of each run of `work`, the first few left out."""
    times = []
    for _ in range(WARM_UP + repeat):
        before()
        started = time.perf_counter()
        result = work()
        times.append((time.perf_counter() - started) * 1000)
        after(result)
    return times[WARM_UP:]


def comfyui_way(images: Any) -> list[Any]:
    """Bring a batch to bytes as ComfyUI's SaveImage does before it compresses."""
    import numpy as np

    return [np.clip(255.0 * image.cpu().numpy(), 0, 255).astype(np.uint8) for image in images]


def row(name: str, times: list[float]) -> dict[str, Any]:
    """Return one line of the table."""
    ordered = sorted(times)
    return {
        "what": name,
        "p50": statistics.median(ordered),
        "p99": ordered[int(len(ordered) * 0.99)],
        "min": ordered[0],
    }


def measure(
    shape: tuple[int, ...], device: str, repeat: int, folder: Path, farm: FarmClient
) -> list[dict[str, Any]]:
    """Return the rows for one size."""
    import numpy as np
    import torch
    from PIL import Image

    from luna_farm_client import SaveImage, SaveRequest
    from luna_farm_client.pixels import copy_into

    chance = torch.Generator().manual_seed(1)
    images = torch.rand(shape, generator=chance).to(device)
    sync = torch.cuda.synchronize if device == "cuda" else lambda: None
    plain = memoryview(bytearray(images.numel()))
    rows = [
        row("ComfyUI's way, to bytes only", timed(lambda: comfyui_way(images), max(5, repeat // 4), sync, id))
    ]
    rows.append(row("to bytes in plain memory", timed(lambda: copy_into(images, plain), repeat, sync, id)))
    request = SaveRequest([SaveImage(images)], output_dir=folder / "out", filename="bench", png_compression=1)
    reports = []

    def finish(receipt: Any) -> None:
        report = farm.wait(receipt.job_id, 120)
        assert report.state == "done", report
        reports.append(report)
        for path in report.paths[: -shape[0]] if len(reports) > 1 else ():
            Path(path).unlink()

    rows.append(
        row("hand-over, submit to receipt", timed(lambda: farm.submit(request), repeat, sync, finish))
    )
    for path, wanted in zip(reports[-1].paths, comfyui_way(images), strict=True):
        with Image.open(path) as saved:
            assert np.array_equal(np.asarray(saved), wanted), path
    for left in (folder / "out").glob("*"):
        left.unlink()
    return rows


def main() -> int:
    """Measure every size and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=40, help="runs of each (default 40)")
    parser.add_argument(
        "--device", default="cuda", choices=["cuda", "cpu"], help="where the tensors are (default cuda)"
    )
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    args = parser.parse_args()
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit(
            "This machine has no CUDA device that torch can use. --device cpu shows the figures of the CPU."
        )
    card = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    found = {}
    from luna_farm.cli.trial_farm import own_farm

    with tempfile.TemporaryDirectory() as name, own_farm(Path(name), 2) as (_, farm):
        for shape in SHAPES:
            found["x".join(map(str, shape))] = measure(shape, args.device, args.repeat, Path(name), farm)
    if args.json:
        print(json.dumps({"device": card, "torch": torch.__version__, "ms": found}, indent=2))
        return 0
    print(f"{card}, torch {torch.__version__}, float32, milliseconds over {args.repeat} runs")
    for shown, rows in found.items():
        for one in rows:
            figures = "   ".join(f"{name} {one[name]:8.3f}" for name in ("p50", "p99", "min"))
            print(f"  {shown:<16} {one['what']:<30} {figures}")
    return 0
