#!/usr/bin/env python3
"""Try an installed luna-farm: a farm starts, saves, and stops, and the compiled kernel is there.

    python scripts/smoke.py

Runs in any Python in which luna-farm is installed, from any folder; each wheel goes through it before it is
published. It must never import from the checkout.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Save one image in each way it can be handed over. Returns the exit code."""
    sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != Path.cwd().resolve()]
    import numpy as np
    from PIL import Image

    import luna_farm
    from luna_farm.cli.trial_farm import own_farm
    from luna_farm.imaging.encoders import png
    from luna_farm_client import SaveImage, SaveRequest

    where = Path(luna_farm.__file__).parent
    print(f"luna-farm {luna_farm.__version__} from {where}, PNG by the {png.backend()}")
    if png.backend() != "kernel":
        print("The compiled kernel is missing.", file=sys.stderr)
        return 1
    ramp = np.linspace(0, 1, 64 * 96 * 3, dtype=np.float32).reshape(64, 96, 3)
    wanted = np.clip(255.0 * ramp, 0, 255).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder, own_farm(Path(folder), 2) as (_, farm):
        for pixels in (ramp, wanted):
            receipt = farm.submit(SaveRequest([SaveImage(pixels)], output_dir=folder, filename="smoke"))
            (path,) = farm.wait(receipt.job_id, 60).paths
            with Image.open(path) as saved:
                if not np.array_equal(np.asarray(saved), wanted):
                    print(f"{path} does not hold the pixels that were handed over.", file=sys.stderr)
                    return 1
    print("A farm started, saved two images exactly, and stopped.")
    return 0


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    sys.exit(main())
