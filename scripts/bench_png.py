#!/usr/bin/env python3
"""Time against size for every PNG level, ours and the other encoders that are installed, in one run.

    python scripts/bench_png.py [PICTURE ...] [--pictures 5] [--levels 1,4,9] [--seconds 0.3] [--write]

Without pictures it takes the generated ones of the package comfyui-workflow-templates-media-image, else
scikit-image's photographs. Each is cut to 1024x1024x3 and taken twice: clean, as decoded, and noisy, with
Gaussian noise of sigma 1.2, closer to what a VAE gives. Then drawings made here. Every file is decoded and
compared. Times are CPU time of the whole process, the best of as many runs as fit in --seconds, so that other
programs on the machine hardly count; sizes are relative to Pillow's level 4. --write puts table and plot into
docs/png.md and docs/png.svg.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import io
import math
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL
import plot_time_size
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from luna_farm.imaging.encoders import png, png_library

Pixels = NDArray[np.uint8]
Encoder = Callable[[Pixels], bytes]
Row = tuple[str, int, list[float]]  # family, level, and ms and size of each group

ROOT = Path(__file__).resolve().parent.parent
GENERATED = (
    "flux_schnell-1",
    "sd3.5_simple_example-1",
    "sdxl_simple_example-1",
    "sd3.5_large_depth-1",
    "flux_canny_model_example-1",
)
SIDE = 1024
BASE = ("Pillow", 4)
TABLE = ("<!-- made by scripts/bench_png.py --write -->", "<!-- until here -->")


def main() -> None:
    """Measure, print, and write if asked to."""
    arguments = _arguments()
    levels = [int(level) for level in arguments.levels.split(",")]
    clean = pictures(arguments.pictures)[: arguments.count]
    groups = {"clean": clean, "noisy": [noisy(p, seed) for seed, p in enumerate(clean)]}
    rows = measure(encoders(levels), groups, arguments.seconds)
    text = "\n".join(
        [*heading(len(clean)), "", *table(rows, list(groups)), "", *drawn_table(arguments.seconds)]
    )
    print(text)
    if arguments.write:
        _write(text, plot_time_size.plot(rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--pictures", dest="count", type=int, default=5)
    parser.add_argument("--levels", default="0,1,2,3,4,5,6,7,8,9")
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--write", action="store_true")
    return parser.parse_args()


def pictures(paths: list[Path]) -> list[Pixels]:
    """The pictures to encode: those asked for, else generated ones, else photographs."""
    images: list[Image.Image]
    if paths:
        images = [Image.open(path) for path in paths]
    elif spec := importlib.util.find_spec("comfyui_workflow_templates_media_image"):
        folder = Path(str(spec.origin)).parent / "templates"
        images = [Image.open(folder / f"{name}.webp") for name in GENERATED]
    else:
        from skimage import data

        images = [Image.fromarray(getattr(data, name)()) for name in ("astronaut", "coffee", "cat")]
    return [_cut(image.convert("RGB")) for image in images]


def _cut(image: Image.Image) -> Pixels:
    if min(image.size) < SIDE:
        scale = SIDE / min(image.size)
        image = image.resize((math.ceil(image.width * scale), math.ceil(image.height * scale)))
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    return np.ascontiguousarray(image.crop((left, top, left + SIDE, top + SIDE)))


def noisy(pixels: Pixels, seed: int) -> Pixels:
    """The picture with Gaussian noise of sigma 1.2."""
    noise = np.random.default_rng(seed).normal(0, 1.2, pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def encoders(levels: list[int]) -> Iterator[tuple[str, int, Encoder]]:
    """Family, level and function of every encoder that is installed, Pillow's level 4 first."""
    yield (*BASE, _pillow(BASE[1]))
    for level in levels:
        yield f"Luna Farm, {png.backend()}", level, _ours(level)
    for level in levels:
        if ("Pillow", level) != BASE and level:
            yield "Pillow", level, _pillow(level)
    for level in levels:
        if png.backend() == "kernel" and level in (1, 4, 6, 9):
            yield "Luna Farm, library", level, functools.partial(_library, level)
    for maker in (_opencv, _libvips, _imagecodecs, _fpng):
        yield from maker()


def _pillow(level: int) -> Encoder:
    def encode(pixels: Pixels) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png", compress_level=level)
        return file.getvalue()

    return encode


def _ours(level: int) -> Encoder:
    return lambda pixels: b"".join(png.encode(pixels, level=level))


def _library(level: int, pixels: Pixels) -> bytes:
    """What an install without a compiler writes."""
    head, *_, end = png.encode(np.zeros((1, 1, 3), np.uint8), level=0)
    header = bytearray(head)
    header[16:33] = png.chunk(b"IHDR", np.array([SIDE, SIDE], ">u4").tobytes() + bytes(head)[24:29])[8:]
    return b"".join([header, png.chunk(b"IDAT", png_library.zlib_stream(pixels, level)), end])


def _opencv() -> Iterator[tuple[str, int, Encoder]]:
    try:
        import cv2
    except ImportError:
        return
    rle = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    yield "OpenCV (RLE)", 1, lambda p: bytes(cv2.imencode(".png", p[..., ::-1], rle)[1])


def _libvips() -> Iterator[tuple[str, int, Encoder]]:
    try:
        import pyvips
    except ImportError:
        return

    def encode(pixels: Pixels, level: int, kind: int) -> bytes:
        image = pyvips.Image.new_from_memory(pixels.data, SIDE, SIDE, 3, "uchar")
        return bytes(image.pngsave_buffer(compression=level, filter=kind))

    yield "libvips (Up)", 1, lambda p: encode(p, 1, 0x20)
    yield "libvips (Paeth)", 4, lambda p: encode(p, 4, 0x80)


def _imagecodecs() -> Iterator[tuple[str, int, Encoder]]:
    try:
        import imagecodecs
    except ImportError:
        return
    yield "imagecodecs png", 1, lambda p: bytes(imagecodecs.png_encode(p, level=1))
    yield "imagecodecs spng", 4, lambda p: bytes(imagecodecs.spng_encode(p, level=4))


def _fpng() -> Iterator[tuple[str, int, Encoder]]:
    try:
        import fpng_py
    except ImportError:
        return
    yield "fpng", 1, lambda p: bytes(fpng_py.fpng_encode_image_to_memory(p.tobytes(), SIDE, SIDE, 3))


def measure(
    what: Iterator[tuple[str, int, Encoder]], groups: dict[str, list[Pixels]], seconds: float
) -> list[Row]:
    """Mean ms and mean size of each encoder for each group; sizes relative to the first encoder's."""
    rows: list[Row] = []
    base: dict[tuple[str, int], int] = {}
    for family, level, encode in what:
        figures: list[float] = []
        for name, members in groups.items():
            times, sizes = [], []
            for i, pixels in enumerate(members):
                best, data = timed(encode, pixels, seconds)
                size = base.setdefault((name, i), len(data))
                times.append(best * 1e3)
                sizes.append(len(data) / size)
            figures += [float(np.mean(times)), float(np.mean(sizes))]
        rows.append((family, level, figures))
    return rows


def timed(encode: Encoder, pixels: Pixels, seconds: float) -> tuple[float, bytes]:
    """The least CPU seconds of as many runs as fit, one at least, and the file, which is checked."""
    data = encode(pixels)
    if not np.array_equal(np.asarray(Image.open(io.BytesIO(data))).reshape(pixels.shape), pixels):
        raise AssertionError("an encoder wrote other pixels than it was given")
    best, until = math.inf, time.perf_counter() + seconds
    while best == math.inf or time.perf_counter() < until:
        started = time.process_time()
        encode(pixels)
        best = min(best, time.process_time() - started)
    return best, data


def heading(count: int) -> list[str]:
    """What was measured on what."""
    zlib_ng = features.version_feature("zlib_ng")
    baseline = f"zlib-ng {zlib_ng}" if zlib_ng else f"zlib {features.version('zlib')}"
    system = f"{_processor()}, Python {platform.python_version()}"
    pillow = f"Pillow {PIL.__version__} says {baseline}, and the libz that is loaded is {_loaded_zlib()}"
    what = f"{count} pictures of {SIDE}x{SIDE}x3, one thread, CPU ms, sizes relative to Pillow's level 4"
    return [f"{what}. {system}. {pillow}."]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    best = (
        " with AVX-512 VBMI" if any("avx512_vbmi2" in line or "avx512vbmi" in line for line in lines) else ""
    )
    return name + best


def _loaded_zlib() -> str:
    """What libz this process runs on: a wheel built for zlib-ng may find the host's plain zlib."""
    import zlib

    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    Image.new("RGB", (1, 1)).save(io.BytesIO(), "png")
    files = {Path(line.split()[-1]).name for line in maps.splitlines() if "libz" in line}
    names = sorted(name for name in files if not name.startswith("libzstd"))
    return f"{', '.join(names) or 'built in'} (the interpreter's is {zlib.ZLIB_RUNTIME_VERSION})"


def table(rows: list[Row], groups: list[str]) -> list[str]:
    """The figures as Markdown, each with how many times as fast as Pillow at level 4 and at its own level."""
    pillow = {level: figures for family, level, figures in rows if family == "Pillow"}
    titles = "".join(f" {name} ms | x Pillow 4 | x Pillow same | size |" for name in groups)
    lines = [f"| encoder | level |{titles}", "| --- | --- |" + " --- | --- | --- | --- |" * len(groups)]
    for family, level, figures in rows:
        cells = []
        for i in range(0, len(figures), 2):
            same = f"{pillow[level][i] / figures[i]:.1f}" if level in pillow else ""
            cells += [f"{figures[i]:.2f}", f"{pillow[4][i] / figures[i]:.1f}", same, f"{figures[i + 1]:.3f}"]
        lines.append(f"| {family} | {level} | " + " | ".join(cells) + " |")
    return lines


def drawn() -> dict[str, Pixels]:
    """Pictures that are no photographs, the same ones each time."""
    rng = np.random.default_rng(5)
    sheet = Image.new("RGB", (2 * SIDE, 2 * SIDE), "white")
    for _ in range(120):
        ImageDraw.Draw(sheet).line(
            rng.integers(0, 2 * SIDE, 4).tolist(), fill=(0, 0, 0), width=int(rng.integers(2, 8))
        )
    screen = Image.new("RGB", (SIDE, SIDE), (245, 245, 248))
    words = [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "lazy",
        "dogs",
        "and",
        "saves",
        "every",
        "picture",
    ]
    for y in range(10, SIDE - 18, 18):
        ImageDraw.Draw(screen).text(
            (12, y), " ".join(rng.choice(words, 20)), fill=(30, 30, 40), font=ImageFont.load_default(14)
        )
    y, x = np.mgrid[:SIDE, :SIDE]
    colours = np.array([[0, 0, 0], [255, 0, 0], [90, 160, 20], [20, 30, 200]], np.uint8)
    gray = (120 + 60 * np.sin(x / 90) + 50 * np.cos(y / 70) + rng.normal(0, 3, x.shape)).astype(np.uint8)
    return {
        "one colour": np.full((SIDE, SIDE, 3), (200, 30, 90), np.uint8),
        "line art": np.asarray(sheet.resize((SIDE, SIDE), Image.Resampling.LANCZOS)),
        "screen with text": np.asarray(screen),
        "pixel art": np.repeat(np.repeat(colours[rng.integers(0, 4, (128, 128))], 8, 0), 8, 1),
        "tiles": np.tile(rng.integers(0, 256, (64, 64, 3), np.uint8), (16, 16, 1)),
        "noise": rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8),
        "gray, smooth": gray[..., None],
    }


def drawn_table(seconds: float) -> list[str]:
    """Level 4 and 9 against Pillow's level 4 on drawings."""
    lines = ["| drawn | Pillow 4 ms | KB | ours 4 ms | size | ours 9 ms | size |", "| --- |" + " --- |" * 6]
    for name, pixels in drawn().items():
        pillow, base = timed(lambda p: _pillow(4)(p.squeeze()), np.ascontiguousarray(pixels), seconds)
        cells = [f"{pillow * 1e3:.1f}", f"{len(base) / 1e3:.0f}"]
        for level in (4, 9):
            best, data = timed(_ours(level), pixels, seconds)
            cells += [f"{best * 1e3:.1f}", f"{len(data) / len(base):.3f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _write(text: str, svg: str) -> None:
    page = ROOT / "docs" / "png.md"
    before, rest = page.read_text(encoding="utf-8").split(TABLE[0])
    after = rest.split(TABLE[1])[1]
    page.write_text(f"{before}{TABLE[0]}\n\n{text}\n\n{TABLE[1]}{after}", encoding="utf-8")
    (ROOT / "docs" / "png.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
