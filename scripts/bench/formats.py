"""Time, size and quality of each format beside Pillow, and of the quality gate.

    python3 scripts/bench formats [IMAGE ...] [--only jpeg,webp] [--noise 1.2] [--seconds 1.0]

Without images it takes scikit-image's photographs. Each is cut or scaled to 1024x1024x3. `--noise` adds
Gaussian noise of that sigma: images straight from a decoder have it, saved ones have lost it. Prints the
table that stands in docs/formats.md. Times are the best of as many runs as fit into `--seconds`, ours and
Pillow's in turn.
"""

from __future__ import annotations

import argparse
import io
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from luna_farm.core.formats import FULL_COLOUR_FROM
from luna_farm.core.messages import SaveOptions
from luna_farm.imaging import quality, thumbnail
from luna_farm.imaging.encoders import encode
from luna_farm.imaging.metadata import NOTHING
from luna_farm_client.pixels import copy_into

NEEDS = ("imagecodecs", "simplejpeg")

Pixels = NDArray[np.uint8]
Encode = Callable[[Pixels], bytes]
SIDE = 1024


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    images = [_prepared(image, arguments.noise) for image in _images(arguments.images)]
    print(f"{len(images)} images of {SIDE}x{SIDE}x3, noise {arguments.noise:g}, means\n")
    print("| | ours ms | MB | dB | Pillow ms | MB | dB | times as fast | size |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for title, ours, pillow in _rows():
        if not arguments.only or title.split()[0].lower() in arguments.only.lower().split(","):
            print(_row(title, ours, pillow, images, arguments.seconds))
    if not arguments.only or "jpeg" in arguments.only.lower():
        _colour([*images, _drawing()])
    print("\n| one image | ms |\n| --- | --- |")
    for title, work in _other_work(images[0]):
        print(f"| {title} | {_best([work], arguments.seconds)[0] * 1e3:.2f} |")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", type=Path, help="image files")
    parser.add_argument("--only", default="", help="formats, divided by commas")
    parser.add_argument("--noise", type=float, default=0.0, help="sigma of Gaussian noise to add, 0..255")
    parser.add_argument("--seconds", type=float, default=1.0, help="time to spend on each measurement")
    return parser.parse_args()


def _images(paths: list[Path]) -> list[Image.Image]:
    if paths:
        return [Image.open(path) for path in paths]
    from skimage import data

    return [Image.fromarray(getattr(data, name)()) for name in ("astronaut", "coffee", "chelsea")]


def _prepared(image: Image.Image, noise: float) -> Pixels:
    image = image.convert("RGB")
    if min(image.size) < SIDE:
        image = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    pixels = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))
    if noise:
        grain = np.random.default_rng(0).normal(0, noise, pixels.shape)
        pixels = np.clip(np.round(pixels + grain), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def _ours(form: str, **options: int) -> Encode:
    job = SaveOptions(output_dir="/", **options)  # type: ignore[arg-type]
    return lambda pixels: b"".join(encode(pixels, form, job, NOTHING).buffers)


def _pillow(form: str, **options: object) -> Encode:
    def run(pixels: Pixels) -> bytes:
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, form, **options)
        return out.getvalue()

    return run


def _rows() -> list[tuple[str, Encode, Encode | None]]:
    lossy = [(q, {"lossy_quality": q}) for q in (85, 90, 95, 98)]
    return [
        *(
            (
                f"JPEG {q}",
                _ours("jpeg", **o),
                _pillow("JPEG", quality=q, subsampling=0 if q >= FULL_COLOUR_FROM else 2),
            )
            for q, o in lossy
        ),
        ("WebP 90", _ours("webp"), _pillow("WEBP", quality=90)),
        ("WebP lossless", _ours("webp", lossless_webp=True), _pillow("WEBP", lossless=True)),
        ("AVIF 90", _ours("avif"), _pillow("AVIF", quality=90, max_threads=1)),
        ("TIFF", _ours("tiff"), _pillow("TIFF", compression="tiff_adobe_deflate", tiffinfo={317: 2})),
        ("JXL 90", _ours("jxl"), None),
        ("JXL 100", _ours("jxl", lossy_quality=100), None),
        ("PNG 4", _ours("png"), _pillow("PNG", compress_level=4)),
    ]


def _row(title: str, ours: Encode, pillow: Encode | None, images: list[Pixels], seconds: float) -> str:
    encoders = [ours] if pillow is None else [ours, pillow]
    results = []  # per image, per encoder: ms, MB, dB
    for pixels in images:
        times = _best([partial(encoder, pixels) for encoder in encoders], seconds / len(images))
        files = [encoder(pixels) for encoder in encoders]
        results.append(
            [
                (t * 1e3, len(file) / 1e6, _decibels(pixels, file))
                for t, file in zip(times, files, strict=True)
            ]
        )
    means = np.mean(results, axis=0)
    cells = [f"{ms:.1f} | {mb:.3f} | {'exact' if math.isinf(db) else f'{db:.2f}'}" for ms, mb, db in means]
    if pillow is None:
        return f"| {title} | {cells[0]} | | | | | |"
    faster, size = means[1][0] / means[0][0], means[0][1] / means[1][1]
    return f"| {title} | {cells[0]} | {cells[1]} | {faster:.2f} | {size:.3f} |"


def _colour(images: list[Pixels]) -> None:
    """Print JPEG 4:4:4 beside 4:2:0 of the first quality as large; the last image is a drawing."""
    print("\n| JPEG | larger than 4:2:0 of that quality | dB | 4:2:0 as large, dB |")
    for level in (85, FULL_COLOUR_FROM, 95):
        for number, pixels in enumerate(images):
            full, half = (_pillow("JPEG", quality=level, subsampling=s)(pixels) for s in (0, 2))
            larger = (_pillow("JPEG", quality=q, subsampling=2)(pixels) for q in range(level, 101))
            same = next((file for file in larger if len(file) >= len(full)), half)
            what = "drawing" if number == len(images) - 1 else f"image {number + 1}"
            decibels = f"{_decibels(pixels, full):.2f} | {_decibels(pixels, same):.2f}"
            print(f"| {what}, quality {level} | {len(full) / len(half):.2f} | {decibels} |")


def _drawing() -> Pixels:
    """Return thin coloured lines and red text on blue: what half the resolution of colour blurs."""
    random = np.random.default_rng(0)
    image = Image.new("RGB", (SIDE, SIDE), (20, 20, 120))
    pen = ImageDraw.Draw(image)
    for *ends, width, red, green, blue in random.integers(0, SIDE, (400, 8)).tolist():
        pen.line(ends[:4], fill=(red % 256, green % 256, blue % 256), width=1 + width % 3)
    for left, top in random.integers(0, SIDE, (60, 2)).tolist():
        pen.text((left, top), "red text on blue", fill=(255, 30, 30))
    return np.asarray(image)


def _best(works: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """Return the shortest time of each work in seconds: in turn, three times or for as long as given."""
    best = [math.inf] * len(works)
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < 3 or time.perf_counter() < end:
        for index, work in enumerate(works):
            start = time.perf_counter()
            work()
            best[index] = min(best[index], time.perf_counter() - start)
        rounds += 1
    return best


def _decibels(pixels: Pixels, file: bytes) -> float:
    """Return the peak signal-to-noise ratio of a file, infinity for an exact one."""
    if file[:2] == b"\xff\x0a":  # a bare JPEG XL stream, which Pillow cannot read
        import imagecodecs

        decoded = imagecodecs.jpegxl_decode(file)
    else:
        decoded = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    error = float(np.mean((decoded.astype(np.float64) - pixels) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _other_work(pixels: Pixels) -> list[tuple[str, Callable[[], object]]]:
    floats = pixels.astype(np.float32) / np.float32(255)
    planes = np.ascontiguousarray(floats.transpose(2, 0, 1)).transpose(1, 2, 0)
    halves = floats.astype(np.float16)
    slot = memoryview(bytearray(pixels.size))
    return [
        ("quality gate, both", lambda: quality.judge(pixels, "both", 0.3)),
        ("the same formulas in plain numpy", lambda: _plain_gate(pixels)),
        ("sample for a thumbnail", lambda: thumbnail.sample(pixels)),
        ("thumbnail, 256 px", lambda: thumbnail.encode(thumbnail.sample(pixels), thumbnail.KEPT_SIDE)),
        ("uint8 into a slot", lambda: copy_into(pixels, slot)),
        ("float32 into a slot", lambda: copy_into(floats, slot)),
        ("float32, channels first in memory", lambda: copy_into(planes, slot)),
        ("float16 into a slot", lambda: copy_into(halves, slot)),
        ("ComfyUI's way, to bytes", lambda: np.clip(255.0 * floats, 0, 255).astype(np.uint8).tobytes()),
        ("the same, channels first", lambda: np.clip(255.0 * planes, 0, 255).astype(np.uint8).tobytes()),
    ]


def _plain_gate(pixels: Pixels) -> tuple[float, float]:
    luma = (0.299 * pixels[..., 0] + 0.587 * pixels[..., 1] + 0.114 * pixels[..., 2]) / 255
    down, across = np.abs(np.diff(luma, axis=0)), np.abs(np.diff(luma, axis=1))
    return float(luma.var()), float(down.mean() + across.mean()) / 2
