"""A ComfyUI with --enable-assets: files that are saved after their node returned are assets all the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

DIRECTORY = Path(os.environ.get("COMFYUI_DIR", "."))
pytestmark = pytest.mark.skipif(
    not (DIRECTORY / "comfy_execution" / "asset_enrichment.py").is_file(),
    reason="this ComfyUI registers no output files as assets",
)


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory, farm: Any, comfyui: Any) -> Iterator[Any]:
    base = comfyui.base_directory(tmp_path_factory.mktemp("assets"))
    (base / "custom_nodes" / "luna-farm").symlink_to(Path(__file__).resolve().parents[2] / "comfy_nodes")
    database = f"sqlite:///{base / 'user' / 'assets.db'}"
    made, process = comfyui.start(base, farm.environ, "--enable-assets", "--database-url", database)
    yield made
    comfyui.stop(process)


def known(comfy: Any, name: str) -> list[dict[str, Any]]:
    return [one for one in comfy.get("/api/assets?limit=500")["assets"] if one["name"] == name]


@pytest.mark.parametrize("late", [True, False], ids=["saved-later", "saved-at-once"])
def test_a_saved_file_is_an_asset_of_its_prompt(late, assets, running, prompt):
    with running.paused() if late else nullcontext():
        entry = assets.run(prompt(filename=f"asset_{late}"))
        name = entry["outputs"]["9"]["images"][0]["filename"]
        assert known(assets, name) == [] or not late, "the file is not there yet"
    output = assets.settled(entry["prompt_id"])
    (asset,) = assets.until(lambda: known(assets, name), "the file is an asset")
    assert "output" in asset["tags"]
    assert output["images"][0]["id"] == asset["id"], "the history names the asset, as for Save Image"


def test_a_rejected_image_is_an_asset_under_its_real_name(assets, running, prompt):
    entry = assets.run(prompt(source="flat.png", quality_gate="variance", filename="asset_flat"))
    (image,) = assets.settled(entry["prompt_id"])["images"]
    assert "_discarded" in image["subfolder"]
    assets.until(lambda: known(assets, image["filename"]), "the file is an asset")
