"""The measurements of `luna-farm bench`: the farm and Pillow beside each other, in one run, as ratios.

Pillow is measured as what people would do instead: level 4, in as many threads as the farm has workers, into
the same folder. It must never compare figures of two runs: machines drift by a factor of two.
"""

from __future__ import annotations

import io
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

if TYPE_CHECKING:
    from luna_farm.cli.floor import Floor
    from luna_farm_client import FarmClient, Receipt

Pixels = NDArray[np.uint8]
PILLOW_LEVEL = 4
LEVELS = (1, 4, 6, 9)
WARM_UPS = 3


def environment() -> dict[str, Any]:
    """Return what figures hang on: machine, interpreter, and which zlib Pillow really runs on."""
    from luna_farm import __version__
    from luna_farm.imaging.encoders import png

    running = str(features.version("zlib"))
    kind = "zlib-ng" if "ng" in running else "zlib"
    built = "zlib-ng" if features.check("zlib_ng") else "zlib"
    return {
        "luna_farm": __version__,
        "png": png.backend(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "pillow": str(features.version("pil")),
        # The wheel may be built for zlib-ng and still load the host's zlib: the running version tells.
        "pillow_zlib": f"{kind} {running} (built for {built})",
    }


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` (0..1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def handovers(
    farm: FarmClient, pixels: Any, folder: Path, repeats: int, floor: Floor
) -> tuple[list[float], list[float]]:
    """Return the seconds from submit to receipt, each time with an idle farm, and the floor's in between.

    Each of either kind comes right after the farm saved the images once: both find the same cold caches.
    """
    ours, least = [], []
    for number in range(repeats + WARM_UPS):
        seconds = _handover(farm, pixels, folder), floor.round(pixels)
        _handover(farm, pixels, folder)
        if number >= WARM_UPS:
            ours.append(seconds[0])
            least.append(seconds[1])
    return ours, least


def _handover(farm: FarmClient, pixels: Any, folder: Path) -> float:
    """Return the seconds from submit to receipt; wait until all is saved."""
    request = _request(pixels, folder, "handover", PILLOW_LEVEL)
    started = time.perf_counter()
    receipt = farm.submit(request)
    taken = time.perf_counter() - started
    farm.wait(receipt.job_id)
    remove(receipt.paths)
    return taken


def in_the_caller(pixels: NDArray[Any], folder: Path) -> float:
    """Return the seconds that saving takes in the caller: to uint8 as ComfyUI does it, Pillow, file."""
    batch = pixels if pixels.ndim == 4 else pixels[None]
    started = time.perf_counter()
    for index, image in enumerate(batch):
        if image.dtype != np.uint8:
            image = np.clip(255.0 * image, 0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / f"caller_{index}.png", compress_level=PILLOW_LEVEL)
    taken = time.perf_counter() - started
    remove([str(path) for path in folder.glob("caller_*.png")])
    return taken


def farm_throughput(
    farm: FarmClient, images: Sequence[Pixels], folder: Path, level: int
) -> tuple[float, int, list[float]]:
    """Save the images, a job each. Returns seconds in all, bytes, and the seconds of each submit."""
    jobs, submits, written = [], [], 0
    started = time.perf_counter()
    for image in images:
        before = time.perf_counter()
        jobs.append(handed_over(farm, image, folder, "farm", level).job_id)
        submits.append(time.perf_counter() - before)
    reports = [farm.wait(job) for job in jobs]
    taken = time.perf_counter() - started
    for report in reports:
        if report.state != "done":
            raise RuntimeError(f"job {report.job_id} is {report.state}: {report.images[0].error}")
        written += report.images[0].bytes
        remove(report.paths)
    return taken, written, submits


def pillow_throughput(images: Sequence[Pixels], folder: Path, threads: int) -> tuple[float, int]:
    """Save the images by Pillow in threads. Returns seconds and bytes."""

    def save(item: tuple[int, Pixels]) -> Path:
        path = folder / f"pillow_{item[0]}.png"
        Image.fromarray(item[1]).save(path, compress_level=PILLOW_LEVEL)
        return path

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as executor:
        paths = list(executor.map(save, enumerate(images)))
    taken = time.perf_counter() - started
    written = sum(path.stat().st_size for path in paths)
    remove([str(path) for path in paths])
    return taken, written


def small_images(farm: FarmClient, folder: Path, count: int) -> dict[str, float]:
    """Save images of 64x64, a job each: what a job costs apart from its pixels."""
    import psutil

    images = [np.full((64, 64, 3), number % 256, np.uint8) for number in range(count)]
    supervisor = psutil.Process(farm.status()["pid"])
    before = supervisor.cpu_times()
    taken, _, _ = farm_throughput(farm, images, folder, PILLOW_LEVEL)
    after = supervisor.cpu_times()
    cpu_s = after.user + after.system - before.user - before.system
    return {
        "images": count,
        "images_per_s": count / taken,
        "supervisor_cpu_ms_per_image": 1000 * cpu_s / count,
    }


def encoders(images: Sequence[Pixels], repeats: int, tick: Callable[[], None]) -> list[dict[str, Any]]:
    """Compare the PNG encoder with Pillow at the same levels and at level 4, one thread, in memory."""
    base_s, base_bytes = _encode_all(images, _by_pillow, PILLOW_LEVEL, 1)
    rows = []
    for level in LEVELS:
        ours_s, ours_bytes = _encode_all(images, _by_us, level, repeats)
        same_s, same_bytes = base_s, base_bytes
        if level != PILLOW_LEVEL:
            same_s, same_bytes = _encode_all(images, _by_pillow, level, 1)
        rows.append(
            {
                "level": level,
                "ms": ours_s * 1000,
                "pillow_ms": same_s * 1000,
                "times_pillow_same_level": same_s / ours_s,
                "size_to_pillow_same_level": ours_bytes / same_bytes,
                "times_pillow_4": base_s / ours_s,
                "size_to_pillow_4": ours_bytes / base_bytes,
            }
        )
        tick()
    return rows


def memory(farm: FarmClient) -> dict[str, Any]:
    """Return RSS of the processes, and what each has for itself (without the arena that all of them map)."""
    status = farm.status()
    keys = ("rss_bytes", "own_bytes")
    return {
        "supervisor": {key: status["supervisor"][key] for key in keys},
        "workers": [{key: worker[key] for key in keys} for worker in status["workers"]],
    }


def _encode_all(
    images: Sequence[Pixels], encode: Callable[[Pixels, int], int], level: int, repeats: int
) -> tuple[float, int]:
    """Return the mean over the images of each one's median seconds, and the sum of the sizes."""
    seconds, total = [], 0
    for image in images:
        taken = []
        for _ in range(repeats):
            started = time.perf_counter()
            size = encode(image, level)
            taken.append(time.perf_counter() - started)
        seconds.append(median(taken))
        total += size
    return sum(seconds) / len(seconds), total


def _by_us(image: Pixels, level: int) -> int:
    from luna_farm.imaging.encoders import png

    return sum(len(buffer) for buffer in png.encode(image, level=level, chunks=()))


def _by_pillow(image: Pixels, level: int) -> int:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=level)
    return buffer.tell()


def handed_over(farm: FarmClient, pixels: Any, folder: Path, name: str, level: int) -> Receipt:
    """Submit one job of the pixels, to be saved in `folder` under `name`."""
    return farm.submit(_request(pixels, folder, name, level))


def _request(pixels: Any, folder: Path, name: str, level: int) -> Any:
    from luna_farm_client import SaveImage, SaveRequest

    return SaveRequest([SaveImage(pixels)], output_dir=folder, filename=name, png_compression=level)


def remove(paths: Sequence[str]) -> None:
    """Remove files; those that are gone are fine."""
    for path in paths:
        Path(path).unlink(missing_ok=True)
