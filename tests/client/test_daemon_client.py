"""The call of the Luna documents, word by word."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from farm_process import FarmProcess, until
from PIL import Image

from luna_farm_client import DaemonClient, DaemonConnectionError, FarmUnavailable

PIXELS = np.full((8, 8, 3), 200, np.uint8)


@pytest.fixture
def daemon(shared_farm: FarmProcess) -> Iterator[DaemonClient]:
    os.environ["LUNA_FARM_STATE_DIR"] = str(shared_farm.state)
    client = DaemonClient("127.0.0.1", shared_farm.port)
    del os.environ["LUNA_FARM_STATE_DIR"]
    yield client
    client.close()


def data(out: Path, **fields: Any) -> dict[str, Any]:
    images = [
        {"image": PIXELS, "affix": "RAW", "format": "png", "subdir": True},
        {"image": PIXELS.astype(np.float32) / 255, "affix": "UPSCALED", "format": "webp", "subdir": False},
        {"image": PIXELS},
    ]
    return {
        "save_path": "%model_name%",
        "filename": "a",
        "model_name": "checkpoints/dream.safetensors",
        "quality_gate": "disabled",
        "min_quality_threshold": 0.3,
        "png_compression": 4,
        "lossy_quality": 90,
        "lossless_webp": False,
        "embed_workflow": True,
        "filename_index": 0,
        "custom_metadata": {"by": "me"},
        "metadata": {"seed": 5},
        "prompt": {},
        "extra_pnginfo": {"workflow": {}},
        "output_dir": str(out),
        "timestamp": "2026-01-02T03:04:05",
        "images": images,
        **fields,
    }


def test_the_documented_call_gets_the_documented_answer(daemon: DaemonClient, tmp_path: Path) -> None:
    answer = daemon.submit_async("save_images_async", data(tmp_path))
    assert answer["success"] is True
    assert answer["message"] == f"Image save job submitted (ID: {answer['job_id']})"
    assert answer["num_images"] == 3
    folder = tmp_path / "dream"
    assert answer["paths"] == [
        str(folder / "RAW" / "a_RAW.png"),
        str(folder / "a_UPSCALED.webp"),
        str(folder / "a.png"),
    ]
    until(lambda: all(Path(path).exists() for path in answer["paths"]), "the files are there")


def test_no_workflow_means_none(daemon: DaemonClient, tmp_path: Path) -> None:
    answer = daemon.submit_async(
        "save_images_async", data(tmp_path, embed_workflow=False, images=[{"image": PIXELS}])
    )
    (path,) = answer["paths"]
    until(Path(path).exists, "the file is there")
    assert b"tEXt" not in Path(path).read_bytes()


@pytest.mark.parametrize(
    ("cmd", "fields", "code", "word"),
    [
        ("save_pickles", {}, "invalid", "save_images_async"),
        ("save_images_async", {"speed": 5}, "invalid", "speed"),
        ("save_images_async", {"quality_gate": "x"}, "invalid", "quality_gate"),
        ("save_images_async", {"images": 5}, "invalid", "images"),
        ("save_images_async", {"images": [{"affix": "RAW"}]}, "invalid", "images"),
        ("save_images_async", {"images": [{"image": "text"}]}, "invalid", "numpy array"),
        ("save_images_async", {"images": []}, "invalid", "images"),
    ],
)
def test_what_is_refused_is_a_dict_with_a_code(
    daemon: DaemonClient, tmp_path: Path, cmd: str, fields: dict[str, Any], code: str, word: str
) -> None:
    answer = daemon.submit_async(cmd, data(tmp_path, **fields))
    assert set(answer) == {"error", "code", "job_id"}
    assert (answer["code"], answer["job_id"]) == (code, "")
    assert word in answer["error"]


def test_a_farm_that_is_not_there_raises_what_callers_know() -> None:
    client = DaemonClient("127.0.0.1", 9, timeout=1.0)
    with pytest.raises(DaemonConnectionError) as missing:
        client.submit_async("save_images_async", {"images": [{"image": PIXELS}], "output_dir": "/x"})
    assert isinstance(missing.value, FarmUnavailable)
    assert missing.value.port == 9
    client.close()


def test_custom_metadata_may_be_any_value(daemon: DaemonClient, tmp_path: Path) -> None:
    answer = daemon.submit_async(
        "save_images_async", data(tmp_path, custom_metadata=[1, 2], images=[{"image": PIXELS}])
    )
    (path,) = answer["paths"]
    until(Path(path).exists, "the file is there")
    with Image.open(path) as saved:
        assert json.loads(saved.text["custom_metadata"]) == [1, 2]
