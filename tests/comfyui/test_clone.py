"""This repository cloned into custom_nodes/, nothing of it installed, in a ComfyUI started with
--disable-metadata."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, farm: Any, comfyui: Any) -> Iterator[Any]:
    base = comfyui.base_directory(tmp_path_factory.mktemp("clone"))
    (base / "custom_nodes" / "luna-farm").symlink_to(ROOT)
    made, process = comfyui.start(base, farm.environ | {"PYTHONPATH": ""}, "--disable-metadata")
    yield made
    comfyui.stop(process)


@pytest.mark.parametrize("format_1", ["png", "webp", "jpeg"])
def test_nothing_is_embedded(format_1, clone, running, prompt):
    entry = clone.run(prompt(format_1=format_1))
    assert "Submitted 1 images" in entry["outputs"]["9"]["text"][0]
    (path,) = clone.files(*clone.settled(entry["prompt_id"])["images"])
    with Image.open(path) as image:
        assert not getattr(image, "text", {})
        assert not image.getexif()


def test_a_clone_saves_without_a_farm_too(clone, running, prompt):
    entry = clone.run(prompt("LunaMultiSaver"))
    assert "Saved 1 images" in entry["outputs"]["9"]["text"][0]


def test_a_clone_has_its_languages_and_examples(clone):
    assert clone.get("/i18n")["zh"]["lunaFarm"]["idle"]
    assert "luna_wait_for_files" in clone.get("/workflow_templates")["luna-farm"]
    assert any(path.endswith("/luna-farm/luna_farm.js") for path in clone.get("/extensions"))
