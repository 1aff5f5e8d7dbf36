"""What Ray costs a farm that does not use it: Ray installed or not, and another checkout, in turns.

    python3 scripts/bench without_ray [--against CHECKOUT] [--rounds 6]

Each side has the packages of this Python in a folder of its own, without Ray or with it. Processor time of
importing client and command line, memory of an idle farm with two workers (what processes share counts in
parts), and processor time of one image of 64x64 and of 1024x1024. CHECKOUT is another working tree of this
project, such as one before there was Ray, whose kernel is built. Least of the rounds; ratios are those to
the farm without Ray. Linux only: the scheduler counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import psutil
from bench.processor import picture, running, used_by_images

ROOT = Path(__file__).resolve().parents[2]
WITHOUT, WITH, OTHER = "without Ray", "with Ray", "other checkout"
IMPORTED = ("luna_farm_client", "luna_farm.cli.entry")
IMPORTS = 5
IMAGES = {64: 600, 1024: 120}
"""Side of the images -> how many are saved."""
SETTLED_S = 3.0


def packages(folder: Path, checkout: Path, with_ray: bool) -> None:
    """Fill a folder with the installed packages and those of a checkout."""
    folder.mkdir()
    left_out = ("luna", "__editable__", *(() if with_ray else ("ray-",)))
    for path in map(Path, {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}):
        for entry in path.iterdir():
            if not entry.name.startswith(left_out) and (with_ray or entry.name != "ray"):
                (folder / entry.name).symlink_to(entry)
    (folder / "luna_farm").symlink_to(checkout / "luna_farm")
    (folder / "luna_farm_client").symlink_to(checkout / "client")


def python(folder: Path, *arguments: str) -> str:
    """Run Python with the packages of a folder only; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-S", *arguments],
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'scripts'}"},
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def measured(folder: Path) -> dict[str, float]:
    """Measure the farm of a folder, in processes that import it."""
    found = {}
    for name in IMPORTED:
        code = f"import time; t = time.process_time(); import {name}; print(time.process_time() - t)"
        found[f"import {name}, ms"] = min(float(python(folder, "-c", code)) for _ in range(IMPORTS)) * 1e3
    farm: dict[str, float] = json.loads(python(folder, __file__, "--one"))
    return {**found, **farm}


def of_farm() -> dict[str, float]:
    """Start a farm of the code that is imported here, and measure it."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, running(Path(folder)) as (client, pid):
        while len(client.status()["workers"]) < 2:
            time.sleep(0.05)
        time.sleep(SETTLED_S)
        farm = psutil.Process(pid)
        memory = sum(process.memory_full_info().pss for process in (farm, *farm.children(recursive=True)))
        found = {"memory of the idle farm, MB": memory / 1e6}
        for side, images in IMAGES.items():
            took = used_by_images(client, pid, picture(side), images, {})
            found[f"image of {side}x{side}, us"] = took["all"]
    return found


def main() -> None:
    """Measure all sides in turns and print what each takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--against", type=Path, help="another working tree, built")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(of_farm()))
        return
    sides = {WITHOUT: (ROOT, False), WITH: (ROOT, True)}
    if given.against:
        sides[OTHER] = (given.against.resolve(), False)
    rows: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as home:
        for number, (checkout, with_ray) in enumerate(sides.values()):
            packages(Path(home, str(number)), checkout, with_ray)
        for _ in range(given.rounds):
            for number, side in enumerate(sides):
                rows[side].append(measured(Path(home, str(number))))
    print(f"{'least of the rounds':<30}" + "".join(f"{side:>24}" for side in sides))
    for what in rows[WITHOUT][0]:
        least = [min(row[what] for row in of) for of in rows.values()]
        print(f"{what:<30}" + "".join(f"{value:>15.1f} ({value / least[0]:.3f}x)" for value in least))


if __name__ == "__main__":
    main()
