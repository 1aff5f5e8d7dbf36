"""`luna-farm bench`: what the farm costs and gains on this machine, always beside Pillow, in one run.

It measures a farm of its own on free ports in a temporary folder, and must never disturb one that runs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from luna_farm import system
from luna_farm.cli import options, terminal
from luna_farm.cli.trial_farm import own_farm, wait_ready
from luna_farm.config import Config

if TYPE_CHECKING:
    from luna_farm.cli.images import Images
    from luna_farm_client import FarmClient

_EXAMPLES = """
luna-farm bench                          some five minutes, with images that it makes
luna-farm bench shots/*.png --workers 4
luna-farm bench --output-dir /mnt/nas    on the disk that matters
luna-farm bench --json > bench.json
luna-farm bench --scale                  with 1, 2, 4, ... workers, up to the processors
"""
FARM_LEVELS = (4, 1)
STRETCHES = 3
"""Of the loop beside a busy farm in each round: many short ones, since the speed of processors drifts."""


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command."""
    parser = options.command(subparsers, "bench", "measure the farm beside Pillow, as ratios", _EXAMPLES)
    parser.add_argument("files", nargs="*", metavar="FILE", help="images to measure with")
    parser.add_argument(
        "--workers", type=_count, default=2, metavar="N", help="workers, and threads of Pillow"
    )
    parser.add_argument(
        "--images", type=_count, default=24, metavar="N", help="images per round of throughput"
    )
    parser.add_argument("--rounds", type=_count, default=3, metavar="N", help="rounds of throughput")
    parser.add_argument("--size", type=_count, default=1024, metavar="PIXELS", help="sides of the images")
    parser.add_argument(
        "--small",
        type=_count,
        default=1000,
        metavar="N",
        help="images of 64x64, for what a job costs",
    )
    parser.add_argument("--repeats", type=_count, default=60, metavar="N", help="hand-overs of each kind")
    parser.add_argument(
        "--output-dir", dest="folder", metavar="DIR", help="where files are written meanwhile"
    )
    parser.add_argument("--cuda", action="store_true", help="hand over torch tensors on the GPU as well")
    parser.add_argument("--scale", action="store_true", help="how it scales over workers, instead")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")


def run(args: argparse.Namespace, config: Config) -> int:
    """Measure and print. Returns the exit code."""
    from luna_farm.cli import images, measure

    chosen = images.load(args.files, args.size)
    if args.scale:
        from luna_farm.cli import scale

        return scale.run(args, chosen)
    cases = _cases(chosen, args)
    steps = len(cases) + 2 * args.rounds + 1 + 2 * len(measure.LEVELS)
    shown, task = terminal.progress("Measuring", steps)
    result: dict[str, Any] = {"environment": measure.environment()}
    result["images"] = {"source": chosen.source, "names": list(chosen.names), "size": args.size}
    result["workers"] = args.workers
    with shown, tempfile.TemporaryDirectory(prefix="luna-bench-", dir=args.folder) as folder:
        # Every job is asked for after all were submitted.
        kept = ("--kept-reports", str(max(args.images, args.small) + args.workers))
        with own_farm(Path(folder), args.workers, *kept) as (launched, farm):
            result["port_open_s"] = launched.open_after_s
            result["workers_ready_s"] = wait_ready(farm, args.workers, launched.open_after_s)
            result["handover"] = _handovers(
                farm, cases, Path(folder), args.repeats, lambda: shown.advance(task)
            )
            result["throughput"] = _throughput(farm, chosen, Path(folder), args, lambda: shown.advance(task))
            result["small"] = measure.small_images(farm, Path(folder), args.small)
            result["memory"] = measure.memory(farm)
        beside = Path(folder) / "beside"
        beside.mkdir()
        result["undisturbed"] = _undisturbed(chosen, beside, args, lambda: shown.advance(task))
        groups = {"clean": chosen.pixels, "noisy": tuple(map(images.noisy, chosen.pixels))}
        result["encoders"] = {
            name: measure.encoders(group[:3], 5, lambda: shown.advance(task))
            for name, group in groups.items()
        }
    if args.json:
        terminal.print_json(result)
    else:
        from luna_farm.cli.bench_view import bench_view

        terminal.console().print(bench_view(result))
    return 0


def _cases(chosen: Images, args: argparse.Namespace) -> list[tuple[str, str, Any]]:
    """Return label, dtype and pixels of each kind of hand-over."""
    import numpy as np

    from luna_farm.cli.images import squared

    size = args.size
    one, large = chosen.pixels[0], squared(chosen.pixels[0], 2 * size)
    five = np.stack([chosen.pixels[index % len(chosen.pixels)] for index in range(5)])
    cases: list[tuple[str, str, Any]] = []
    for label, pixels in ((f"1 x {size}", one), (f"5 x {size}", five), (f"1 x {2 * size}", large)):
        cases += [(label, "uint8", pixels), (label, "float32", pixels.astype(np.float32) / 255)]
    if args.cuda:
        import torch

        for label, batch in (
            (f"1 x {size}", one[None]),
            (f"8 x {size}", np.stack([one] * 8)),
            ("1 x 4096", None),
        ):
            pixels = squared(one, 4096)[None] if batch is None else batch
            cases.append((label, "float32 CUDA", torch.from_numpy(pixels).cuda().float() / 255))
    return cases


def _handovers(
    farm: FarmClient, cases: list[tuple[str, str, Any]], folder: Path, repeats: int, tick: Callable[[], None]
) -> list[dict[str, Any]]:
    from luna_farm.cli import measure
    from luna_farm.cli.floor import Floor

    rows = []
    with Floor([pixels for _, _, pixels in cases]) as floor:
        for label, dtype, pixels in cases:
            on_host = pixels.cpu().numpy() if dtype.endswith("CUDA") else pixels
            seconds, least = measure.handovers(farm, pixels, folder, repeats, floor)
            caller = median(measure.in_the_caller(on_host, folder) for _ in range(3))
            p50, p99 = measure.percentile(seconds, 0.5), measure.percentile(seconds, 0.99)
            floor_p50 = measure.percentile(least, 0.5)
            row = {"images": label, "dtype": dtype, "p50_ms": p50 * 1e3, "p99_ms": p99 * 1e3}
            row |= {"n": len(seconds), "floor_p50_ms": floor_p50 * 1e3, "times_floor": p50 / floor_p50}
            rows.append({**row, "in_the_caller_ms": caller * 1e3, "times_less": caller / p50})
            tick()
    return rows


def _undisturbed(
    chosen: Images, folder: Path, args: argparse.Namespace, tick: Callable[[], None]
) -> dict[str, Any]:
    """Measure with a farm of its own that has one worker less than there are processors."""
    from luna_farm.cli import undisturbed

    cpus = system.usable_processors()
    workers = undisturbed.workers_beside(cpus)
    count = (1 + workers) * args.images
    with own_farm(folder, workers, "--kept-reports", str(count + 4 * workers)) as (_, farm):
        wait_ready(farm, workers, 0.0)
        images = undisturbed.filling(farm, chosen.pixels, workers, count)
        figures = undisturbed.undisturbed(farm, images, folder, workers, STRETCHES * args.rounds)
    tick()
    return {**figures, "workers": workers, "cpus": cpus}


def _throughput(
    farm: FarmClient, chosen: Images, folder: Path, args: argparse.Namespace, tick: Callable[[], None]
) -> list[dict[str, Any]]:
    from luna_farm.cli import images, measure

    rows = []
    for group, change in (("clean", lambda image: image), ("noisy", images.noisy)):
        pool = [change(image) for image in chosen.pixels]
        many = [pool[index % len(pool)] for index in range(args.images)]
        pillow: list[float] = []
        ours: dict[int, list[float]] = {level: [] for level in FARM_LEVELS}
        sizes: dict[int, int] = {}
        submits: list[float] = []
        for _ in range(args.rounds):  # taking turns, so that a machine that drifts drifts for both
            for level in FARM_LEVELS:
                taken, sizes[level], latencies = measure.farm_throughput(farm, many, folder, level)
                ours[level].append(taken)
                submits += latencies
            taken, pillow_bytes = measure.pillow_throughput(many, folder, args.workers)
            pillow.append(taken)
            tick()
        for level in FARM_LEVELS:
            row = {"images": group, "level": level, "images_per_s": len(many) / median(ours[level])}
            row |= {
                "pillow_images_per_s": len(many) / median(pillow),
                "times_pillow": median(pillow) / median(ours[level]),
            }
            row |= {
                "size_to_pillow": sizes[level] / pillow_bytes,
                "submit_p50_ms": measure.percentile(submits, 0.5) * 1e3,
            }
            rows.append({**row, "submit_p99_ms": measure.percentile(submits, 0.99) * 1e3})
    return rows


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 100_000:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; allowed: 1 to 100000")
    return value
