#!/usr/bin/env python3
"""See it work, with nothing installed: python3 scripts/demo.py

Sets up `.venv`, starts a farm on free ports, saves real photographs as PNG, WebP and JPEG through the client,
shows the status and the times beside Pillow doing the same in the caller, says where the files are, and stops
the farm. It must never touch a farm that runs already, nor write outside the checkout and the temporary
folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import bootstrap

if TYPE_CHECKING:
    from rich.table import Table

    from luna_farm.cli.images import Images
    from luna_farm_client import FarmClient, SaveRequest

OUTPUT = bootstrap.ROOT / "demo-output"
FORMATS = ("png", "webp", "jpeg")
WORKERS = 2
RUNS = 3
"""Each way saves everything so often; the table shows the medians. The files of the first run stay."""


def main() -> int:
    """Prepare the environment, and run the demo in it."""
    argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0]).parse_args()
    bootstrap.check_python()
    if Path(sys.prefix).resolve() == bootstrap.VENV.resolve():
        return demo()
    try:
        bootstrap.prepare("demo", [])
    except bootstrap.StepFailed as error:
        print(f"{error.output}\n{error}", file=sys.stderr)
        return 1
    return subprocess.run([bootstrap.PYTHON, __file__]).returncode


def demo() -> int:
    """Show everything once. Returns the exit code: 1 if any image was not saved exactly."""
    from luna_farm.cli import images, terminal
    from luna_farm.cli.trial_farm import own_farm, wait_ready
    from luna_farm.cli.view import status_view

    console = terminal.console()
    photographs = images.load([], None)
    rows = []
    with tempfile.TemporaryDirectory(prefix="luna-demo-") as folder:
        console.print("Starting a farm on free ports ...")
        with own_farm(Path(folder), WORKERS) as (launched, farm):
            ready_s = wait_ready(farm, WORKERS, launched.open_after_s)
            console.print(f"  process {launched.pid}: port open after {launched.open_after_s:.2f} s,", end="")
            console.print(f" {WORKERS} workers ready after {ready_s:.2f} s")
            console.print(f"  dashboard while it runs: http://{launched.host}:{launched.feed_port}/\n")
            names = ", ".join(photographs.names)
            console.print(f"Saving {len(photographs.names)} images, {photographs.source}: {names}.\n")
            # The first hand-over of a program maps the farm's memory; a program does that once.
            farm.wait(farm.submit(request(photographs.pixels[0], "first", "png", folder)).job_id)
            shown, task = terminal.progress("Saving", RUNS * len(FORMATS))
            with shown:
                for kind in FORMATS:
                    ours, theirs = [], []
                    for run in range(RUNS):
                        ours.append(save_by_farm(farm, photographs, kind, Path(folder) if run else OUTPUT))
                        theirs.append(save_by_pillow(photographs, kind, Path(folder)))
                        shown.advance(task)
                    rows.append((kind, middle(ours), middle(theirs)))
            console.print(status_view(farm.status()))
    console.print("\nThe farm has stopped.\n")
    count = len(photographs.names)
    console.print(
        f"Medians of {RUNS} runs, {count} images each. Pillow: the same images saved in the program.\n"
    )
    console.print(times(rows, count))
    for sentence in verdicts(rows, count):
        console.print(sentence)
    files = [path for _, by_farm, _ in rows for path in by_farm["paths"]]
    console.print(f"\n{len(files)} files are in {OUTPUT}")
    wrong = differing(photographs, rows[0][1]["paths"])
    if wrong or len(files) != len(FORMATS) * len(photographs.names):
        console.print(f"Not saved as they were handed over: {', '.join(wrong) or 'some'}", style="red")
        return 1
    console.print("Every PNG among them holds exactly the pixels that were handed over.")
    return 0


def request(pixels: Any, name: str, kind: str, folder: str | Path) -> SaveRequest:
    """Return what to ask for: one image in one format."""
    from luna_farm_client import SaveImage, SaveRequest

    images = [SaveImage(pixels, affix=kind.upper(), format=kind, subdir=True)]
    return SaveRequest(images, output_dir=folder, filename=name)


def save_by_farm(farm: FarmClient, photographs: Images, kind: str, folder: Path) -> dict[str, Any]:
    """Hand every image over. Returns the seconds that took, those until all are saved, bytes and paths."""
    started = time.perf_counter()
    jobs = [
        farm.submit(request(pixels, name, kind, folder)).job_id
        for name, pixels in zip(photographs.names, photographs.pixels, strict=True)
    ]
    waited = time.perf_counter() - started
    images = [image for job in jobs for image in farm.wait(job).images if image.state == "saved"]
    saved = time.perf_counter() - started
    paths, size = [image.path for image in images], sum(image.bytes for image in images)
    return {"waited": waited, "saved": saved, "bytes": size, "paths": paths}


def save_by_pillow(photographs: Images, kind: str, folder: Path) -> dict[str, Any]:
    """Save the same in this process, as a program without a farm does."""
    from PIL import Image

    started = time.perf_counter()
    paths = []
    for name, pixels in zip(photographs.names, photographs.pixels, strict=True):
        paths.append(folder / f"{name}.{kind}")
        if kind == "png":
            Image.fromarray(pixels).save(paths[-1], compress_level=4)
        else:
            # JPEG in full colour, as the farm stores it from quality 90 on; WebP has no such setting.
            Image.fromarray(pixels).save(paths[-1], quality=90, subsampling=0)
    taken = time.perf_counter() - started
    return {"waited": taken, "saved": taken, "bytes": sum(path.stat().st_size for path in paths)}


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the first run with the median times of all."""
    return runs[0] | {name: median(run[name] for run in runs) for name in ("waited", "saved")}


def times(rows: list[tuple[str, dict[str, Any], dict[str, Any]]], count: int) -> Table:
    """Return both ways side by side: how long the program waits, and when the files are there."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2))
    table.add_column("")
    for name in ("the program waits", "per image", f"all {count} saved after", "bytes"):
        table.add_column(name, justify="right")
    for kind, ours, theirs in rows:
        for who, run in (("farm", ours), ("Pillow", theirs)):
            table.add_row(
                f"{kind} by {'the farm' if who == 'farm' else who}",
                f"{run['waited'] * 1000:.1f} ms",
                f"{run['waited'] * 1000 / count:.1f} ms",
                f"{run['saved'] * 1000:.0f} ms",
                f"{run['bytes']:,}",
            )
    return table


def verdicts(rows: list[tuple[str, dict[str, Any], dict[str, Any]]], count: int) -> list[str]:
    """Say in words what the table shows, also where the farm is behind."""
    said = [""]
    for kind, ours, theirs in rows:
        less = theirs["waited"] / ours["waited"]
        sooner = f"goes on {less:.0f} times sooner" if less >= 1.5 else "waits about as long as with Pillow"
        text = f"{kind}: the program {sooner}"
        if ours["saved"] <= theirs["saved"]:
            text += f", and all {count} files are there {theirs['saved'] / ours['saved']:.1f} times sooner"
        else:
            later = ours["saved"] / theirs["saved"]
            text += f", but the files are there {later:.1f} times later than Pillow alone has them"
        text += f"; the files have {ours['bytes'] / theirs['bytes']:.2f} times the bytes of Pillow's."
        said.append(text)
    return said


def differing(photographs: Images, paths: list[str]) -> list[str]:
    """Return the PNG files that do not decode to the pixels that were handed over."""
    import numpy as np
    from PIL import Image

    wrong = []
    for pixels, path in zip(photographs.pixels, paths, strict=False):
        with Image.open(path) as image:
            if not np.array_equal(np.asarray(image), pixels):
                wrong.append(path)
    return wrong


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
