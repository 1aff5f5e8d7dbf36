"""Uses a farm as a user of another platform does: python use_farm.py WHAT FOLDER. Prints what came of it as
JSON."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path


def modules(folder: Path) -> object:
    """Import everything that is shipped."""
    import luna_farm
    import luna_farm_client

    names = []
    for package in (luna_farm, luna_farm_client):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
                names.append(found.name)
    return {"platform": sys.platform, "modules": len(names)}


def here(folder: Path) -> object:
    """Save without a farm, twice under one name that differs in case only."""
    import numpy as np

    from luna_farm_client import SaveImage, SaveRequest, save_here

    pixels = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    reports = [
        save_here(SaveRequest([SaveImage(pixels)], output_dir=folder, filename=name))
        for name in ("Name", "name", "NAME")
    ]
    return [(report.state, report.images[0].error, report.images[0].path) for report in reports]


def farm(folder: Path) -> object:
    """Start a farm, save in several formats, try a second farm on the same state folder, and stop."""
    import numpy as np
    from PIL import Image

    from luna_farm.cli.trial_farm import own_farm
    from luna_farm_client import SaveImage, SaveRequest

    ramp = np.linspace(0, 1, 256 * 256 * 3, dtype=np.float32).reshape(256, 256, 3)
    wanted = np.clip(255.0 * ramp, 0, 255).astype(np.uint8)
    with own_farm(folder, 1, "--arena-bytes", "16MiB") as (_, client):
        names = ("a", "A", "a", "b")
        jobs = [
            client.submit(SaveRequest([SaveImage(ramp)], output_dir=folder / "out", filename=name)).job_id
            for name in names
        ]
        jobs.append(
            client.submit(
                SaveRequest([SaveImage(wanted, format="webp")], output_dir=folder / "out", filename="a")
            ).job_id
        )
        reports = [client.wait(job, 60) for job in jobs]
        second = [sys.executable, "-m", "luna_farm", "start", "--port", "0", "--feed-port", "off"]
        second += ["--state-dir", str(folder / "state")]
        refused = subprocess.run(second, capture_output=True, text=True, timeout=60)
        status = client.status()
    said = (folder / "state" / "start.log").read_text("utf-8").strip()
    exact = [
        np.array_equal(np.asarray(Image.open(report.paths[0])), wanted)
        for report in reports
        if report.state == "done" and report.paths[0].endswith(".png")
    ]
    return {
        "states": [report.state for report in reports],
        "errors": [image.error for report in reports for image in report.images if image.error],
        "files": sorted(path.name for path in (folder / "out").iterdir()),
        "exact": exact,
        "second": (refused.returncode, refused.stderr.strip()[-2000:]),
        "workers": len(status["workers"]),
        "said": said,
    }


def recovery(folder: Path) -> object:
    """Kill a farm that has accepted images and start it again."""
    import os
    import signal

    import numpy as np

    from luna_farm.cli.launch import launch
    from luna_farm_client import FarmClient, SaveImage, SaveRequest

    state = folder / "state"
    arguments = ["--port", "0", "--feed-port", "off", "--state-dir", str(state), "--arena-bytes", "16MiB"]
    arguments += ["--min-workers", "1", "--max-workers", "1", "--output-dir", str(folder)]

    def client_of(launched: object) -> FarmClient:
        token = (state / "token").read_text("utf-8").strip()
        return FarmClient(launched.host, launched.port, token)

    pixels = np.random.default_rng(1).integers(0, 255, (512, 512, 3), np.uint8)
    launched = launch(arguments, state)
    with client_of(launched) as client:
        receipts = [
            client.submit(SaveRequest([SaveImage(pixels)], output_dir=folder / "out", filename=f"{n}"))
            for n in range(8)
        ]
        os.kill(launched.pid, signal.SIGKILL)
    launched.process.wait()
    launched = launch(arguments, state)
    with client_of(launched) as client:
        states = [client.wait(receipt.job_id, 60).state for receipt in receipts]
        client.shutdown()
    launched.process.wait()
    return {"states": states, "files": len(list((folder / "out").glob("*.png")))}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))
