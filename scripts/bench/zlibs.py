"""The PNG encoder beside Pillow on the zlib of the machine, and on zlib-ng.

    python3 scripts/bench zlibs FOLDER [--page docs/baselines.md] IMAGE ...

FOLDER holds a libz.so.1 of zlib-ng, built with `cmake -DZLIB_COMPAT=ON`: Pillow's wheels for Linux bring no
zlib, they load the machine's, so LD_LIBRARY_PATH decides. Linux only. Both sides of a ratio
come from one process, the two zlibs take turns, and the table shows medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

GROUPS = ("clean", "noisy")
ROUNDS, REPEATS = 3, 5
HEAD = """# Pillow on another zlib

Pillow's wheels for Linux load the zlib of the machine, and some machines have zlib-ng in its place, which is
faster. So a claim against Pillow names its zlib, as `luna-farm bench` does. This page is one table with both,
taken in one sitting: `luna_farm.imaging.encoders.png` in one thread, in memory, against `PIL.Image.save` at
the same level and at level 4. Nothing of Luna Farm uses that library: it is there to be compared with.

```
git clone https://github.com/zlib-ng/zlib-ng && cd zlib-ng
git checkout 94aacd8b   # 2.2.2 and 20 commits: what these figures were taken with
cmake -B build -DZLIB_COMPAT=ON -DCMAKE_BUILD_TYPE=Release && cmake --build build
LD_LIBRARY_PATH=$PWD/build python -c "from PIL import features; print(features.version('zlib'))"
```

The last line must say zlib-ng. Then, with FOLDER that `build`:

```
python3 scripts/bench zlibs FOLDER --page docs/baselines.md IMAGES
LD_LIBRARY_PATH=FOLDER luna-farm bench IMAGES
```

The first makes this page, the second is the whole benchmark on zlib-ng.

"""


def measure(group: str, files: list[str]) -> dict[str, Any]:
    """Return the rows of one group, and what Pillow runs on, in this process."""
    from luna_farm.cli import images, measure

    chosen = images.load(files, 1024)
    pixels = chosen.pixels if group == "clean" else tuple(map(images.noisy, chosen.pixels))
    rows = measure.encoders(pixels, REPEATS, lambda: None)
    return {"environment": measure.environment(), "names": chosen.names, "rows": rows}


def measured_on(folder: Path | None, group: str, files: list[str]) -> dict[str, Any]:
    """Return `measure` of a new process, in which Pillow loads the zlib of `folder` (None: the machine's)."""
    environ = dict(os.environ)
    if folder is not None:
        environ["LD_LIBRARY_PATH"] = f"{folder}{os.pathsep}{environ.get('LD_LIBRARY_PATH', '')}"
    command = [sys.executable, str(Path(__file__).parent), "--here", "zlibs", "--group", group, *files]
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def typical(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one result with the median of each figure."""
    rows = [
        {key: median(row[key] for row in of_level) for key in of_level[0]}
        for of_level in zip(*(result["rows"] for result in results), strict=True)
    ]
    return {**results[0], "rows": rows}


def table(group: str, machine: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the lines of a table in Markdown: a row for each level, both zlibs beside each other."""
    lines = [f"## {group.capitalize()}", ""]
    kinds = [result["environment"]["pillow_zlib"].split(" (")[0] for result in (machine, other)]
    columns = ["level", "ours ms"]
    for kind in kinds:
        columns += [f"Pillow ms, {kind}", "times", "size", "times Pillow 4", "size"]
    lines += [f"| {' | '.join(columns)} |", "| --- |" + " --- |" * (len(columns) - 1)]
    for plain, fast in zip(machine["rows"], other["rows"], strict=True):
        cells = [str(plain["level"]), f"{plain['ms']:.1f} / {fast['ms']:.1f}"]
        for row in (plain, fast):
            cells += [
                f"{row['pillow_ms']:.0f}",
                f"{row['times_pillow_same_level']:.1f}x",
                f"{row['size_to_pillow_same_level']:.3f}",
                f"{row['times_pillow_4']:.1f}x",
                f"{row['size_to_pillow_4']:.3f}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def processor() -> str:
    """Return what the kernel calls the processor."""
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> int:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--group", choices=GROUPS, help="measure in this process alone, print JSON")
    parser.add_argument("--page", type=Path, help="write the tables to this page as well")
    parser.add_argument("files", nargs="+", metavar="FOLDER IMAGE ...")
    args = parser.parse_intermixed_args()
    if args.group:
        print(json.dumps(measure(args.group, args.files)))
        return 0
    folder, files = Path(args.files[0]).resolve(), args.files[1:]
    lines = []
    for group in GROUPS:
        turns = [[measured_on(at, group, files) for at in (None, folder)] for _ in range(ROUNDS)]
        machine, other = (typical(list(results)) for results in zip(*turns, strict=True))
        if not other["environment"]["pillow_zlib"].startswith("zlib-ng"):
            runs_on = other["environment"]["pillow_zlib"]
            print(f"Pillow runs on {runs_on}, so {folder} holds no libz.so.1 of zlib-ng.", file=sys.stderr)
            return 1
        lines += table(group, machine, other)
    used = other["environment"]
    names = ", ".join(other["names"]) or "none"
    about = f"{processor()}, Python {used['python']}, Pillow {used['pillow']}, PNG by the {used['png']}. "
    about += f"Images of 1024x1024x3: {names}; noisy: with Gaussian noise of sigma 1.2."
    text = (
        "\n".join(
            [about, "", f'"Ours" is measured beside each of the two; medians of {ROUNDS} turns.', "", *lines]
        ).rstrip()
        + "\n"
    )
    print(text)
    if args.page:
        args.page.write_text(HEAD + text, encoding="utf-8")
    return 0
