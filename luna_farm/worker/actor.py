"""What runs on a node of a Ray cluster: gate and encode one image, and return its file as bytes.

It has no pipe, no state and no folder: it writes nothing here, so a lost one needs no fence. Files for an
object store it may send by itself (`sending.py`). What reads this
machine's disk (metadata of models, keys) was done before or is done after, where the disk is. This module
must never import ray.
"""

from __future__ import annotations

import os
import sys
import threading
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
from luna_farm.worker.sending import Offer, Refused, Sender

Body = NDArray[np.uint8]


class Encoder:
    """One worker of a cluster; `signing` names the watermark, if there is one."""

    def __init__(self, signing: Signing) -> None:
        self._signing = signing
        self._encoding = threading.Lock()
        """One image is encoded at a time; the one before may be on its way."""
        self._sender = Sender()

    def hello(self) -> dict[str, Any]:
        """Return what this is: versions, process, encoders."""
        return {
            "version": __version__,
            "python": sys.version.split()[0],
            "pid": os.getpid(),
            "encoders": pipeline.encoders(),
        }

    def encode(
        self,
        pixels: Pixels,
        task: ImageTask,
        options: SaveOptions,
        embedded: Embedded,
        sampled: bool,
        offer: Offer | None,
    ) -> tuple[Made | ImageResult, list[Body], Refused | None]:
        """Return what came of an image without the bytes of its files, those unless they are sent, and why
        they could not be sent. `pixels` may be read-only."""

        def work() -> Made | ImageResult:
            return pipeline.encoded(
                pixels, task, options, self._signing, embedded, sampled=sampled, sign_here=False
            )

        with self._encoding:
            made = attempt(task, work)
        if isinstance(made, ImageResult):
            return made, [], None
        refused = None
        if offer is not None:
            sent = self._sender.send(made, offer)
            if isinstance(sent, Made):
                return sent, [], None
            refused = sent
        bodies = [np.frombuffer(b"".join(file.encoded.buffers), np.uint8) for file in made.files]
        for file in made.files:
            file.encoded.buffers = []
        return made, bodies, refused
