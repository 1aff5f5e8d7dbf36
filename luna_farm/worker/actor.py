"""What runs on a node of a Ray cluster: gate and encode one image, and return its file as bytes.

It has no pipe, no state and no folder: it writes nothing, so a lost one needs no fence. What reads this
machine's disk (metadata of models, keys) was done before or is done after, where the disk is. This module
must never import ray.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luna_farm import __version__
from luna_farm.config_provenance import Signing
from luna_farm.core.messages import ImageResult, ImageTask, SaveOptions
from luna_farm.imaging.depth import Pixels
from luna_farm.imaging.metadata import Embedded
from luna_farm.worker import pipeline
from luna_farm.worker.attempt import attempt
from luna_farm.worker.made import Made

Body = NDArray[np.uint8]


class Encoder:
    """One worker of a cluster; `signing` names the watermark, if there is one."""

    def __init__(self, signing: Signing) -> None:
        self._signing = signing

    def hello(self) -> dict[str, Any]:
        """Return what this is: versions, process, encoders."""
        return {
            "version": __version__,
            "python": sys.version.split()[0],
            "pid": os.getpid(),
            "encoders": pipeline.encoders(),
        }

    def encode(
        self, pixels: Pixels, task: ImageTask, options: SaveOptions, embedded: Embedded, sampled: bool
    ) -> tuple[Made | ImageResult, list[Body]]:
        """Return what came of an image without the bytes of its files, and those. `pixels` may be
        read-only."""

        def work() -> Made | ImageResult:
            return pipeline.encoded(
                pixels, task, options, self._signing, embedded, sampled=sampled, sign_here=False
            )

        made = attempt(task, work)
        if isinstance(made, ImageResult):
            return made, []
        bodies = [np.frombuffer(b"".join(file.encoded.buffers), np.uint8) for file in made.files]
        for file in made.files:
            file.encoded.buffers = []
        return made, bodies
