"""What the tests of imaging share: options, tasks, pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from luna_farm.core.messages import ImageTask, SaveOptions

sys.path.insert(0, str(Path(__file__).parent))

PROMPT = {"3": {"class_type": "KSampler", "inputs": {"seed": 7, "text": "Füße 中 \U0001f600"}}}
WORKFLOW = {"nodes": [{"id": 3, "type": "KSampler", "title": "Größe", "widgets_values": [7, "fixed"]}]}
PARAMETERS = {
    "positive": "a café at night",
    "negative": "blurry",
    "steps": 20,
    "cfg": 7.5,
    "sampler": "euler_ancestral",
    "scheduler": "karras",
    "seed": 12345678901234567890,
}


@pytest.fixture
def options() -> Callable[..., SaveOptions]:
    """Make the options of a job that has everything, with changes."""

    def make(**changes: Any) -> SaveOptions:
        fields: dict[str, Any] = {
            "output_dir": "/out",
            "model_name": "SDXL/base.safetensors",
            "custom_metadata": '{"artist": "Zoë"}',
            "metadata": json.dumps(PARAMETERS),
            "prompt": json.dumps(PROMPT),
            "extra_pnginfo": json.dumps({"other": [1, 2], "workflow": WORKFLOW}),
            "timestamp": "2025-11-22T10:11:12+00:00",
        }
        return SaveOptions(**(fields | changes))

    return make


@pytest.fixture
def task() -> Callable[..., ImageTask]:
    """Make a task, with changes."""

    def make(**changes: Any) -> ImageTask:
        fields: dict[str, Any] = {
            "job_id": "a1b2c3d4",
            "index": 0,
            "affix": "RAW",
            "format": "png",
            "batch_index": 2,
            "batch_size": 3,
            "path": "/out/a.png",
            "segment": "shm:x",
            "offset": 0,
            "height": 768,
            "width": 512,
            "channels": 3,
        }
        return ImageTask(**(fields | changes))

    return make


@pytest.fixture
def picture() -> Callable[..., NDArray[np.uint8]]:
    """Make a picture that is neither flat nor noise: a gradient with grain, the same for equal arguments."""

    def make(height: int, width: int, channels: int, seed: int = 0) -> NDArray[np.uint8]:
        rng = np.random.default_rng((seed, height, width, channels))
        rows = np.linspace(0, 200, height)[:, None, None]
        columns = np.linspace(0, 40, width)[None, :, None]
        grain = rng.integers(0, 16, (height, width, channels))
        return (rows + columns + grain).astype(np.uint8)

    return make
