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
    from rich.table import Table

    from luna_farm.cli.images import Images
    from luna_farm_client import FarmClient, SaveRequest

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
            console.print(
                f"  process {launched.pid}: port open after {launched.open_after_s:.2f} s, ", end=""
            )
            console.print(f"{WORKERS} workers ready after {ready_s:.2f} s")
            console.print(f"  dashboard while it runs: http://{launched.host}:{launched.feed_port}/\n")
            names = ", ".join(photographs.names)
            console.print(f"Saving {len(photographs.names)} images, {photographs.source}: {names}.\n")
            # The first hand-over of a program maps the farm's memory; a program does that once.
            farm.wait(farm.submit(request(photographs.pixels[0], "first", "png", folder)).job_id)
            shown, task = terminal.progress("Saving", 2 * len(FORMATS))
            with shown:
                for kind in FORMATS:
                    by_farm = save_by_farm(farm, photographs, kind)
                    shown.advance(task)
                    rows.append((kind, by_farm, save_by_pillow(photographs, kind, Path(folder))))
                    shown.advance(task)
            console.print(status_view(farm.status()))
    console.print("\nThe farm has stopped.\n")
    console.print(times(rows))
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


def save_by_farm(farm: FarmClient, photographs: Images, kind: str) -> dict[str, Any]:
    """Hand every image over. Returns the seconds that took, those until all are saved, bytes and paths."""
    started = time.perf_counter()
    jobs = [
        farm.submit(request(pixels, name, kind, OUTPUT)).job_id
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
            Image.fromarray(pixels).save(paths[-1], quality=90)
    taken = time.perf_counter() - started
    return {"waited": taken, "saved": taken, "bytes": sum(path.stat().st_size for path in paths)}


def times(rows: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> Table:
    """Return both ways side by side."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    columns = (
        "",
        "the program waits",
        "Pillow in it",
        "less",
        "all saved after",
        "Pillow",
        "size to Pillow's",
    )
    for name in columns:
        table.add_column(name, justify="right" if name else "left")
    for kind, ours, theirs in rows:
        table.add_row(
            kind,
            f"{ours['waited'] * 1000:.1f} ms",
            f"{theirs['waited'] * 1000:.0f} ms",
            f"{theirs['waited'] / ours['waited']:.0f}x",
            f"{ours['saved'] * 1000:.0f} ms",
            f"{theirs['saved'] * 1000:.0f} ms",
            f"{ours['bytes'] / theirs['bytes']:.2f}",
        )
    return table


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
