#!/usr/bin/env python3
"""Fuzzes the PNG kernel under AddressSanitizer and UBSan, decoding what it writes with two other programs.

    python scripts/fuzz_png.py                 ten minutes
    python scripts/fuzz_png.py --short         a few seconds, for scripts/test.py
    python scripts/fuzz_png.py --seed 123      once more what failed

Builds the kernel once for each kind of processor it has code for (portable, SSE2, AVX2, AVX-512), each with
both sanitizers, and feeds all of them pictures of every size, channel count, depth, content and level, strips
included. A picture passes if Pillow and a second decoder give back the same pixels, and the file is no larger
than stored.
Without gcc or clang, or off Linux, it says that it did not run, and exits with 0.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import itertools
import os
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[Any]
Command = list["str | Path"]
ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "luna_farm" / "imaging" / "_png.c"
VARIANTS = {
    "portable": ["-DLUNA_PORTABLE"],
    "SSE2": ["-DLUNA_MOST_ISA=ISA_BASE"],
    "AVX2": ["-DLUNA_MOST_ISA=ISA_AVX2"],
    "best": [],
}
SANITIZE = [
    "-g",
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
]
SHORT_S, LONG_S = 3.0, 600.0  # all variants run at once
LEAST = 20  # pictures, however slow the machine


def main() -> int:
    """Build, then fuzz each variant in a process that has the sanitizer loaded."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--module", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.module:
        seconds = SHORT_S if arguments.short else LONG_S
        return fuzz(arguments.variant, load(arguments.module), seconds, arguments.seed)
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        print("NOT RUN: the sanitizers need gcc or clang on Linux")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        modules = build(compiler, Path(folder))
        children = [start(compiler, name, module, arguments) for name, module in modules.items()]
        return max(child.wait() for child in children)


def build(compiler: str, folder: Path) -> dict[str, Path]:
    """Build all variants at once. Returns their modules by name."""
    include = f"-I{sysconfig.get_path('include')}"
    modules, builds = {}, []
    for name, flags in VARIANTS.items():
        module = folder / name / f"_png{sysconfig.get_config_var('EXT_SUFFIX')}"
        module.parent.mkdir()
        command: Command = [
            compiler,
            "-std=c99",
            "-fPIC",
            "-shared",
            *SANITIZE,
            *flags,
            include,
            SOURCE,
            "-o",
            module,
        ]
        builds.append(subprocess.Popen(command))
        modules[name] = module
    if any(process.wait() for process in builds):
        sys.exit("the kernel does not compile")
    return modules


def start(compiler: str, name: str, module: Path, arguments: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Fuzz one variant in a process of its own."""
    runtime = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    ).stdout.strip()
    # Python itself leaks by design at exit, and its allocator would hide overruns.
    environment = os.environ | {
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
        "OPENBLAS_NUM_THREADS": "1",
    }
    flags = ["--short"] * arguments.short + [f"--seed={arguments.seed}"] * (arguments.seed is not None)
    command: Command = [sys.executable, __file__, "--module", module, "--variant", name, *flags]
    return subprocess.Popen(command, env=environment)


def fuzz(variant: str, kernel: ModuleType, seconds: float, seed: int | None) -> int:
    """Encode and decode pictures for some time, or the one of a given seed."""
    decoder = second_decoder()  # imported before the clock runs
    first = time.time_ns() % 10**9 if seed is None else seed
    deadline = time.monotonic() + seconds
    done = 0
    while done == 0 or (seed is None and (done < LEAST or time.monotonic() < deadline)):
        try:
            problem = attempt(kernel, first + done)
        except Exception as error:  # a decoder's own kind: the file is broken
            problem = f"{type(error).__name__}: {error}"
        if problem:
            print(f"{variant}: FAILED with --seed {first + done}: {problem}")
            return 1
        done += 1
    print(f"{variant}: {done} pictures from seed {first}, no difference (by Pillow and {decoder.__name__})")
    return 0


def load(path: Path) -> ModuleType:
    """Import the kernel from a file."""
    spec = importlib.util.spec_from_file_location("_png", path)
    if spec is None or spec.loader is None:
        raise AssertionError(f"{path} is the extension just built, so Python knows how to load it")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def attempt(kernel: ModuleType, seed: int) -> str:
    """Encode the picture of a seed and compare. Returns what is wrong, or ""."""
    rng = np.random.default_rng(seed)
    pixels = picture(rng)
    level = int(rng.integers(0, 10))
    height = pixels.shape[0]
    cuts = [0, height]
    if rng.random() < 0.3:
        cuts = sorted({*cuts, *rng.integers(0, height + 1, 3).tolist()})
    data = file_of(kernel, pixels, level, cuts)
    told = f"{pixels.shape} {pixels.dtype} level {level} cut at {cuts}"
    stored = height * (pixels[0].nbytes + 1)
    if len(data) > stored + stored // 1000 + 40 * len(cuts) + 200:
        return f"{told}: {len(data)} bytes, more than the {stored} of its rows"
    back = second_decoder()(data)
    if not np.array_equal(np.asarray(back).reshape(pixels.shape), pixels):
        return f"{told}: the second decoder sees other pixels"
    if pixels.dtype == np.uint8 or pixels.shape[2] == 1:  # Pillow reads other 16-bit files as 8-bit ones
        image = np.asarray(Image.open(io.BytesIO(data)))
        if not np.array_equal(image.reshape(pixels.shape), pixels):
            return f"{told}: Pillow sees other pixels"
    return ""


def picture(rng: np.random.Generator) -> Pixels:
    """Return a picture of any size, kind and content; small ones are the most, where the edges are."""
    top = int(rng.choice([4, 40, 200, 700]))
    shape = (*rng.integers(1, top + 1, 2).tolist(), int(rng.integers(1, 5)))
    kind = rng.integers(0, 7)
    if kind == 0:
        pixels = rng.integers(0, 256, shape)
    elif kind == 1:
        pixels = np.full(shape, rng.integers(0, 256))
    elif kind == 2:
        pixels = np.cumsum(np.cumsum(rng.integers(-1, 2, shape), 0), 1) // 8
    elif kind == 3:
        pixels = rng.choice(rng.integers(0, 256, int(rng.integers(2, 9))), shape)
    elif kind == 4:
        tile = rng.integers(0, 256, (int(rng.integers(1, 40)), int(rng.integers(1, 40)), shape[2]))
        pixels = np.tile(tile, (shape[0] // tile.shape[0] + 1, shape[1] // tile.shape[1] + 1, 1))
    elif kind == 5:
        pixels = np.where(rng.random(shape) < 0.02, rng.integers(0, 256, shape), 7)
    else:
        pixels = np.rint(rng.laplace(0, rng.uniform(0.1, 40), shape))
    pixels = np.ascontiguousarray(pixels[: shape[0], : shape[1]].astype(np.int64) & 0xFFFF)
    return pixels.astype(np.uint16) if rng.random() < 0.25 else pixels.astype(np.uint8)


def file_of(kernel: ModuleType, pixels: Pixels, level: int, cuts: list[int]) -> bytes:
    """Return the file, in strips that end at `cuts`, each in a buffer just as large as it asks for."""
    height, width, channels = pixels.shape
    step = channels * pixels.itemsize
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, colour, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header)]
    adler = 1
    for top, bottom in itertools.pairwise(cuts):
        out = bytearray(kernel.bound(bottom - top, width * step))
        written, sums = kernel.idat(
            pixels, height, width * step, step, pixels.itemsize, top, bottom, level, out
        )
        adler = kernel.adler_join(adler, sums, (bottom - top) * (width * step + 1))
        parts.append(bytes(out[:written]))
    if len(cuts) > 2:
        parts.append(chunk(b"IDAT", struct.pack(">I", adler)))
    return b"".join([*parts, chunk(b"IEND", b"")])


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


def second_decoder() -> Callable[[bytes], Pixels]:
    """Return imagecodecs' decoder (libpng) where it is installed, else one made of the standard library."""
    try:
        from imagecodecs import png_decode
    except ImportError:
        return plain_decode
    decoder: Callable[[bytes], Pixels] = png_decode
    return decoder


def plain_decode(data: bytes) -> Pixels:
    """Decode by the words of the PNG specification, slowly."""
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    step = {0: 1, 4: 2, 2: 3, 6: 4}[colour] * depth // 8
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        packed += data[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    raw, size = zlib.decompress(packed), width * step
    above, rows = bytearray(size), []
    for y in range(height):
        kind, row = raw[y * (size + 1)], bytearray(raw[y * (size + 1) + 1 : (y + 1) * (size + 1)])
        for x in range(size):
            a, c = (row[x - step], above[x - step]) if x >= step else (0, 0)
            b = above[x]
            nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            row[x] = row[x] + (0, a, b, (a + b) // 2, nearest)[kind] & 255
        above = row
        rows.append(bytes(row))
    return np.frombuffer(b"".join(rows), np.uint8 if depth == 8 else ">u2").reshape(height, width, -1)


if __name__ == "__main__":
    sys.exit(main())
