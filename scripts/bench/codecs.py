"""EXR, AVIF and JPEG XL beside their library called alone, marks in milliseconds and bytes, and the presets.

    python3 scripts/bench codecs [IMAGE ...] [--noise 1.2] [--runs 5]

Images: as in `formats`. Each pair is measured in turns in one run, in processor time, the least of the
runs; worst image first. Marks: XMP and C2PA on each format at 1024x1024.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "imaging"))
from bench.formats import _images, _prepared

from luna_farm.config_provenance import Signing
from luna_farm.core.messages import SaveOptions
from luna_farm.core.presets import PRESETS
from luna_farm.imaging import c2pa, xmp
from luna_farm.imaging.depth import to_bits
from luna_farm.imaging.encoders import encode
from luna_farm.imaging.encoders.jxl import distance
from luna_farm.imaging.metadata import NOTHING

NEEDS = ("imagecodecs", "openexr", "pillow-heif", "c2pa-python", "trustme")
PLAIN = SaveOptions(output_dir="/")
AIGC = {"ContentProducer": "001191110102MACQD9K64010000", "ProduceID": "0123456789"}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Codecs beside their library, marks, presets.")
    parser.add_argument("images", nargs="*", type=Path)
    parser.add_argument("--noise", type=float, default=1.2)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    images = [_prepared(image, given.noise) for image in _images(given.images)]
    pairs(images, given.runs)
    marks(images[0], given.runs)
    presets(images, given.runs)
    return 0


def pairs(images: list[Any], runs: int) -> None:
    """Print ours against the library alone: time and size, per image, worst first."""
    print("| | times the library's time, worst image | mean | size |\n| --- | --- | --- | --- |")
    for title, ours, alone in _pairs():
        ratios, sizes = [], []
        for image in images:
            prepared = _at(title, image)
            works = [partial(ours, prepared), partial(alone, prepared)]
            (mine, theirs), (file, other) = _turns(works, runs)
            ratios.append(mine / theirs)
            sizes.append(len(file) / len(other))
        print(f"| {title} | {max(ratios):.2f} | {np.mean(ratios):.2f} | {np.mean(sizes):.3f} |")
    print()


def _at(title: str, image: Any) -> Any:
    if "half" in title:
        return (image / 255).astype(np.float16)
    if "float" in title:
        return (image / 255).astype(np.float32)
    return image.astype(np.uint16) * 257 if "1" in title.split(",")[0].split()[-1] else image


def _ours(name: str, **options: Any) -> Callable[[Any], bytes]:
    job = replace(PLAIN, **options)
    return lambda pixels: b"".join(encode(pixels, name, job, NOTHING).buffers)


def _pairs() -> list[tuple[str, Callable[[Any], bytes], Callable[[Any], bytes]]]:
    import imagecodecs

    def avif(level: int, bits: int) -> Callable[[Any], bytes]:
        how: dict[str, Any] = {"speed": 8, "bitspersample": bits, "numthreads": 1, "pixelformat": "444"}
        return lambda p: bytes(imagecodecs.avif_encode(to_bits(p, 10) if bits == 10 else p, level, **how))

    def jxl(quality: int) -> Callable[[Any], bytes]:
        how = (
            {"lossless": True, "effort": 1}
            if quality == 100
            else {"distance": distance(quality), "effort": 3}
        )
        return lambda p: bytes(imagecodecs.jpegxl_encode(p, usecontainer=False, numthreads=1, **how))

    return [
        ("EXR half", _ours("exr", bit_depth="half"), _exr("ZIP_COMPRESSION")),
        ("EXR float", _ours("exr", bit_depth="float"), _exr("ZIP_COMPRESSION")),
        ("EXR half, DWAA", _ours("exr", bit_depth="half", exr_compression="dwaa"), _exr("DWAA_COMPRESSION")),
        ("AVIF 8, quality 90", _ours("avif"), avif(90, 8)),
        ("AVIF 10, quality 90", _ours("avif"), avif(90, 10)),
        ("AVIF 10, quality 100", _ours("avif", lossy_quality=100), avif(100, 10)),
        ("JXL 8, quality 90", _ours("jxl"), jxl(90)),
        ("JXL 16, quality 90", _ours("jxl"), jxl(90)),
        ("JXL 16, quality 100", _ours("jxl", lossy_quality=100), jxl(100)),
    ]


def _exr(kind: str) -> Callable[[Any], bytes]:
    import OpenEXR

    def run(pixels: Any) -> bytes:
        out = io.BytesIO()
        header = {"compression": getattr(OpenEXR, kind), "type": OpenEXR.scanlineimage}
        with OpenEXR.File(header, {"RGB": pixels}, num_threads=0) as file:
            file.write(out)
        return out.getvalue()

    return run


def marks(image: Any, runs: int) -> None:
    """Print what XMP and C2PA cost on each format."""
    from certificates import make

    timestamp = "2026-01-02T03:04:05+00:00"
    (ms,), (packet,) = _turns([lambda: xmp.packet("composite", timestamp, AIGC)], 200)
    print(f"XMP: {ms:.3f} ms, {len(packet)} bytes\n")
    print("| C2PA | ms | bytes |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        signing = Signing(*make(Path(folder)))
        for name in c2pa.MIME_TYPES:
            file = _ours(name)(image)
            work = [partial(c2pa.sign, file, name, signing, source_type="generated", title="a")]
            (ms,), (signed,) = _turns(work, runs * 3)
            print(f"| {name} | {ms:.1f} | {len(signed) - len(file):,} |")
    print()


def presets(images: list[Any], runs: int) -> None:
    """Print time and size of each preset, as ratios to balanced, means over the images."""
    formats = ("png", "webp", "jpeg", "avif", "jxl")
    print("| preset | " + " | ".join(f"{name}: time, size" for name in formats) + " |")
    print("| --- " * (len(formats) + 1) + "|")
    rows: dict[str, list[str]] = {name: [] for name in PRESETS}
    for form in formats:
        encoders = [_ours(form, **settings) for settings in PRESETS.values()]
        figures = []
        for image in images:
            times, files = _turns([partial(e, image) for e in encoders], max(1, runs // 3))
            figures.append([(t, len(file)) for t, file in zip(times, files, strict=True)])
        means = np.mean(figures, axis=0)
        base = means[list(PRESETS).index("balanced")]
        for name, (ms, size) in zip(PRESETS, means, strict=True):
            rows[name].append(f"{ms / base[0]:.2f}, {size / base[1]:.2f} ({ms:.0f} ms)")
    for name, cells in rows.items():
        print(f"| `{name}` | " + " | ".join(cells) + " |")


def _turns(works: Sequence[Callable[[], Any]], runs: int) -> tuple[list[float], list[Any]]:
    """Return the least milliseconds of processor time of each work, in turns, and what they returned."""
    best: list[float] = [float("inf")] * len(works)
    results: list[Any] = [None] * len(works)
    for _ in range(runs):
        for index, work in enumerate(works):
            started = time.process_time()
            results[index] = work()
            best[index] = min(best[index], (time.process_time() - started) * 1e3)
    return best, results


if __name__ == "__main__":
    sys.exit(main())
