#!/usr/bin/env python3
"""PNG by kinds of images: each image by itself against Pillow, filters and libraries.

    python3 scripts/bench corpus FOLDER
    python3 scripts/bench png FOLDER [--half report] [--levels 1,4] [--rivals] [--kinds depth,mask] [--jobs 8]
    python3 scripts/bench png FOLDER --side 400      the same images, made smaller
    python3 scripts/bench png FOLDER --cut 511       a square out of each of them
    python3 scripts/bench png FOLDER --write         puts the table into docs/png.md, the plot beside it

Sizes are relative to Pillow's level 4 on the same image; speed is how many times less CPU time than Pillow's
level 4 it takes (the least of several runs, one thread). 16-bit images of more than one channel are compared
with OpenCV, which Pillow cannot write. --rivals compresses the image after each of four filters by
libdeflate, ISA-L and zlib-ng and counts the cells where one of them is 5 % faster and 0.2 % smaller; their
filter is charged 0.5 ms a megapixel. Level 6 is then compared with Pillow's level 9 as well, and level 9 with
libdeflate's 12 after the filter that makes it smallest; `--rivals "libdeflate 12"` measures no other rival.
Every file is decoded and compared.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import io
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

from luna_farm import png
from luna_farm.imaging.encoders import png_library

corpus: Any = importlib.import_module("corpus")
plot_kinds: Any = importlib.import_module("plot_kinds")
NEEDS = ("opencv-python-headless", "imagecodecs", "deflate", "isal", "zlib-ng")
ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
MARKS = ("<!-- made by scripts/bench/png.py --write -->", "<!-- until here -->")
FILTER_MS_PER_MEGAPIXEL = 0.5
FASTER, SMALLER = 0.95, 0.998
LIMITS = {1: (1.10, 15)}  # by level: no image larger and none slower than so many times Pillow's level 4
USUAL_LIMITS = (1.005, 10)
RIVALS = (
    ("libdeflate", "deflate", "zlib_compress", (1, 2, 3, 4, 6, 9, 12)),
    ("isal", "isal.isal_zlib", "compress", (0, 1)),
    ("zlib-ng", "zlib_ng.zlib_ng", "compress", (1, 2, 3, 4, 6)),
)
# Half, kind, version, level, speed, size, what dominates, and size and time of ours relative to its GOAL.
Cell = tuple[str, str, str, int, float, float, str, tuple[float, float] | None]
GOALS = {
    6: ("Pillow 9", 1.0, 0.1),
    9: ("the best filter and libdeflate 12", 1.01, 1.05),
}  # at most, size and time
CUT_AT = 200, 300
"""The top left corner of what is cut out: odd enough that layouts of pages are cut through."""


def main() -> None:
    """Measure and print, and write if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--half", choices=["tune", "report"])
    parser.add_argument("--levels", default="1,4")
    parser.add_argument("--kinds", default="")
    parser.add_argument("--rivals", nargs="?", const="all", default="", metavar="LIBRARY_AND_LEVEL")
    parser.add_argument("--jobs", type=int, default=1, help="images at a time")
    parser.add_argument("--side", type=int, default=0, help="make each image so many pixels high and wide")
    parser.add_argument("--cut", type=int, default=0, help="cut a square of so many pixels out of each image")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    levels = [int(level) for level in arguments.levels.split(",")]
    paths = [path for path in sorted(arguments.folder.glob("*.npy")) if wanted(path.stem, arguments)]
    tasks = [
        (path, version, levels, arguments.rivals, arguments.side, arguments.cut)
        for path in paths
        for version in ("clean", "noisy")
    ]
    cells: list[Cell] = []
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        for (path, version, *_), found in zip(tasks, pool.map(measure_file, tasks), strict=True):
            cells += found
            print(f"{path.stem:18} {version}", *(_text(cell) for cell in found), flush=True)
    text = "\n".join(
        [heading(), "", *table(cells, levels), "", *summary(cells, levels, bool(arguments.rivals))]
    )
    print(text)
    if arguments.write:
        write(text)
        (DOCS / "png.svg").write_text(plot_kinds.plot(largest(cells)), "utf-8")


def wanted(name: str, arguments: argparse.Namespace) -> bool:
    """Whether the image is of the half and the kinds that are asked for."""
    kinds = arguments.kinds.split(",") if arguments.kinds else [_kind(name)]
    return arguments.half in (None, _half(name)) and _kind(name) in kinds


def _half(name: str) -> str:
    return "tune" if corpus.is_tune(name) else "report"


def _kind(name: str) -> str:
    return name.rsplit("-", 1)[0]


def measure_file(task: tuple[Path, str, list[int], str, int, int]) -> list[Cell]:
    """The cells of one version of an image, in a process of its own."""
    path, version, levels, wanted_rivals, side, cut = task
    pixels = corpus.smaller(np.load(path), side) if side else np.load(path)
    if cut:
        top, left = min(CUT_AT[0], len(pixels) - cut), min(CUT_AT[1], pixels.shape[1] - cut)
        pixels = np.ascontiguousarray(pixels[top : top + cut, left : left + cut])
    pixels = pixels if version == "clean" else corpus.noisy(pixels)
    name = path.stem
    return list(measure(_half(name), _kind(name), version, pixels, levels, wanted_rivals))


def measure(
    half: str, kind: str, version: str, pixels: Any, levels: list[int], wanted_rivals: str
) -> Iterator[Cell]:
    """The cells of one image."""
    base_ms, base = least(functools.partial(reference, pixels, 4), 2)
    rivals = list(measure_rivals(pixels, wanted_rivals)) if wanted_rivals else []
    for level in levels:
        ms, data = least(functools.partial(png.encode, pixels, level=level), 5 if level < 5 else 2)
        check(data, pixels)
        better = [
            name for name, rival_ms, size in rivals if rival_ms < ms * FASTER and size < len(data) * SMALLER
        ]
        goal = goal_of(level, pixels, rivals) if rivals else None
        beside = (len(data) / goal[1], ms / goal[0]) if goal else None
        yield half, kind, version, level, base_ms / ms, len(data) / base, better[0] if better else "", beside


def goal_of(level: int, pixels: Any, rivals: list[tuple[str, float, int]]) -> tuple[float, int] | None:
    """Milliseconds and bytes of what a level is compared with; see GOALS."""
    if level == 6:
        return least(functools.partial(reference, pixels, 9), 1)
    found = [(size, ms) for name, ms, size in rivals if name.endswith("libdeflate 12")]
    return (min(found)[1], min(found)[0]) if level == 9 and found else None


def least(call: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """The least CPU milliseconds of several runs, and the result."""
    best, result = float("inf"), None
    for _ in range(runs):
        start = time.process_time()
        result = call()
        best = min(best, time.process_time() - start)
    return best * 1e3, result


def reference(pixels: Any, level: int) -> int:
    """Bytes of the file that Pillow, or for 16-bit colour OpenCV with zlib's default strategy, writes."""
    if pixels.dtype == np.uint16 and pixels.ndim == 3:
        cv2: Any = importlib.import_module("cv2")
        flags = [cv2.IMWRITE_PNG_COMPRESSION, level, cv2.IMWRITE_PNG_STRATEGY, 0]
        return len(cv2.imencode(".png", pixels, flags)[1])
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=level)
    return file.tell()


def check(data: bytes, pixels: Any) -> None:
    """Decode and compare."""
    if pixels.dtype == np.uint16:
        imagecodecs: Any = importlib.import_module("imagecodecs")
        back = imagecodecs.png_decode(data)
    else:
        back = np.asarray(Image.open(io.BytesIO(data)))
    if not np.array_equal(back, pixels):
        raise SystemExit("the decoded pixels differ")


def measure_rivals(pixels: Any, wanted_rivals: str) -> Iterator[tuple[str, float, int]]:
    """Name, milliseconds and bytes of each filter and library."""
    rows = pixels if pixels.ndim == 3 else pixels[..., None]
    filter_ms = FILTER_MS_PER_MEGAPIXEL * rows.shape[0] * rows.shape[1] / 1e6
    for number, name in ((0, "none"), (1, "sub"), (2, "up"), (4, "paeth")):
        data = png_library._filtered(rows, (number,)).tobytes()
        for library, module, function, levels in RIVALS:
            compress = getattr(importlib.import_module(module), function)
            for level in levels:
                if wanted_rivals not in ("all", f"{library} {level}"):
                    continue
                ms, packed = least(functools.partial(compress, data, level), 1)
                yield f"{name} + {library} {level}", ms + filter_ms, len(packed) + 60


def heading() -> str:
    """On what it was measured."""
    libraries = f"Pillow {PIL.__version__}, zlib-ng {features.version('zlib_ng')}"
    return f"{platform.machine()}, Python {platform.python_version()}, {libraries}, kernel: {png.backend()}."


def table(cells: list[Cell], levels: list[int]) -> list[str]:
    """A row for each kind and version, the worst of its images, worst first by size."""
    groups: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell[1], cell[2]].append(cell)
    head = ["kind", *(f"level {n}: largest | slowest" for n in levels), "dominated"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * (2 * len(levels) + 2)]
    judged = 4 if 4 in levels else levels[-1]
    rows = []
    for (kind, version), found in groups.items():
        texts, worst = [], 0.0
        for level in levels:
            mine = [cell for cell in found if cell[3] == level]
            most = max(cell[5] for cell in mine)
            worst = most if level == judged else worst
            texts.append(f"{most:.3f} | {min(cell[4] for cell in mine):.1f}x")
        dominated = sum(bool(cell[6]) for cell in found)
        rows.append((worst, f"| {kind}, {version} | " + " | ".join(texts) + f" | {dominated} |"))
    return lines + [line for _, line in sorted(rows, reverse=True)]


def largest(cells: list[Cell]) -> dict[str, dict[int, float]]:
    """Of each kind and level the largest size, the largest kinds at level 4 first."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for _, kind, version, level, _, size, *_ in cells:
        mine = found[f"{kind}, {version}"]
        mine[level] = max(size, mine.get(level, 0.0))
    return dict(sorted(found.items(), key=lambda one: -one[1].get(4, 0.0)))


def summary(cells: list[Cell], levels: list[int], with_rivals: bool) -> list[str]:
    """A line for each half and level."""
    lines = []
    for half in ("tune", "report"):
        for level in levels:
            mine = [cell for cell in cells if cell[0] == half and cell[3] == level]
            if mine:
                speeds = sorted(cell[4] for cell in mine)
                sizes = [cell[5] for cell in mine]
                largest_wanted, slowest_wanted = LIMITS.get(level, USUAL_LIMITS)
                dominated = f", {sum(bool(cell[6]) for cell in mine)} dominated" if with_rivals else ""
                lines.append(
                    f"- {half} half, level {level}: {len(mine)} images; largest {max(sizes):.3f}, "
                    f"{sum(size > largest_wanted for size in sizes)} above {largest_wanted}; "
                    f"slowest {speeds[0]:.1f}x, "
                    f"{sum(speed < slowest_wanted for speed in speeds)} below {slowest_wanted}x, "
                    f"median {speeds[len(speeds) // 2]:.1f}x{dominated}"
                )
                lines += beside_goal(level, [cell for cell in mine if cell[7]])
    return lines


def beside_goal(level: int, cells: list[Cell]) -> list[str]:
    """A line on the sizes and one on the times beside the goal of a level, the worst first."""
    lines = []
    for what, index in (("larger", 0), ("slower", 1)):
        worst = sorted(((cell[7][index], f"{cell[1]}, {cell[2]}") for cell in cells if cell[7]), reverse=True)
        if worst:
            name, *limits = GOALS[level]
            beyond = sum(ratio > limits[index] for ratio, _ in worst)
            names = "; ".join(f"{who} {ratio:.3f}" for ratio, who in worst[:5])
            lines.append(
                f"  - {what} than {limits[index]} of {name}: {beyond} of {len(worst)}; worst {names}"
            )
    return lines


def _text(cell: Cell) -> str:
    return f"| L{cell[3]} {cell[4]:5.1f}x {cell[5]:.3f}{f' < {cell[6]}' if cell[6] else ''}"


def write(text: str) -> None:
    """Put the table into docs/png.md."""
    page = DOCS / "png.md"
    before, rest = page.read_text("utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    page.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}", "utf-8")


if __name__ == "__main__":
    main()
