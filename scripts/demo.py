#!/usr/bin/env python3
"""See it work, with nothing installed: python3 scripts/demo.py

Sets up `.venv`, starts a farm on free ports, saves real photographs as PNG, WebP and JPEG through the client,
shows the status and the times beside Pillow doing the same in the caller, says where the files are, and stops
the farm. It must never touch a farm that runs already, nor write outside the checkout and the temporary
folder.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bootstrap

if TYPE_CHECKING:
    from rich.console import Console

    from luna_farm.cli.pictures import Pictures
    from luna_farm_client import FarmClient

OUTPUT = bootstrap.ROOT / "demo-output"
FORMATS = ("png", "webp", "jpeg")
WORKERS = 2


def main() -> int:
    """Prepare the environment, and run the demo in it."""
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
    """Show everything once. Returns the exit code: 1 if any picture was not saved exactly."""
    from luna_farm.cli import pictures, terminal
    from luna_farm.cli.bench import own_farm
    from luna_farm.cli.view import status_view

    console = terminal.console()
    photographs = pictures.load([], None)
    with tempfile.TemporaryDirectory(prefix="luna-demo-") as folder:
        console.print("Starting a farm on free ports ...")
        with own_farm(Path(folder), WORKERS) as (launched, farm):
            console.print(f"  process {launched.pid}, its port answers after {launched.open_after_s:.2f} s")
            console.print(f"  watch it at http://{launched.host}:{launched.feed_port}/\n")
            console.print(
                f"Saving {len(photographs.names)} pictures ({photographs.source}) as {', '.join(FORMATS)}."
            )
            by_farm = save_by_farm(farm, photographs)
            by_pillow = save_by_pillow(photographs, Path(folder))
            console.print()
            console.print(status_view(farm.status()))
        console.print("\nThe farm has stopped.\n")
    show_times(console, by_farm, by_pillow)
    wrong = differing(photographs, by_farm["paths"])
    console.print(f"\n{len(by_farm['paths'])} files are in {OUTPUT}")
    if wrong:
        console.print(f"These do not hold the pixels that were handed over: {', '.join(wrong)}", style="red")
        return 1
    console.print("Every PNG among them holds exactly the pixels that were handed over.")
    return 0


def save_by_farm(farm: FarmClient, photographs: Pictures) -> dict[str, Any]:
    """Hand every picture over in all formats. Returns seconds blocked, seconds until all is saved, and paths."""
    from luna_farm.cli import terminal
    from luna_farm_client import SaveImage, SaveRequest

    jobs, blocked, started = [], 0.0, time.perf_counter()
    shown, task = terminal.progress("Saving", len(photographs.names))
    with shown:
        for name, pixels in zip(photographs.names, photographs.pixels, strict=True):
            images = [SaveImage(pixels, affix=kind.upper(), format=kind, subdir=True) for kind in FORMATS]
            request = SaveRequest(images, output_dir=OUTPUT, filename=name)
            before = time.perf_counter()
            jobs.append(farm.submit(request).job_id)
            blocked += time.perf_counter() - before
        paths = []
        for job in jobs:
            report = farm.wait(job)
            paths += [image.path for image in report.images if image.state == "saved"]
            shown.advance(task)
    return {"blocked": blocked, "saved": time.perf_counter() - started, "paths": paths}


def save_by_pillow(photographs: Pictures, folder: Path) -> dict[str, Any]:
    """Save the same in this process, as a program without a farm does."""
    from PIL import Image

    started = time.perf_counter()
    paths = []
    for name, pixels in zip(photographs.names, photographs.pixels, strict=True):
        image = Image.fromarray(pixels)
        for kind, how in (
            ("png", {"compress_level": 4}),
            ("webp", {"quality": 90}),
            ("jpeg", {"quality": 90}),
        ):
            paths.append(folder / f"{name}.{kind}")
            image.save(paths[-1], **how)
    taken = time.perf_counter() - started
    return {"blocked": taken, "saved": taken, "paths": paths}


def show_times(console: Console, by_farm: dict[str, Any], by_pillow: dict[str, Any]) -> None:
    """Print both side by side."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "Luna Farm", "Pillow in the caller", "ratio"):
        table.add_column(name, justify="left" if not name else "right")
    for title, key in (("the program waits", "blocked"), ("all files are there after", "saved")):
        ours, theirs = by_farm[key], by_pillow[key]
        table.add_row(title, f"{ours * 1000:.1f} ms", f"{theirs * 1000:.0f} ms", f"{theirs / ours:.0f} to 1")
    console.print(table)


def differing(photographs: Pictures, paths: list[str]) -> list[str]:
    """Return the PNG files that do not decode to the pixels that were handed over."""
    import numpy as np
    from PIL import Image

    wrong = []
    pngs = [path for path in paths if path.endswith(".png")]
    for pixels, path in zip(photographs.pixels, pngs, strict=True):
        with Image.open(path) as image:
            if not np.array_equal(np.asarray(image), pixels):
                wrong.append(path)
    return wrong


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
