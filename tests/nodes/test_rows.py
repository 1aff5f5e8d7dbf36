"""Rows of images: those of a saver, and those that stacks bring it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from luna_farm_nodes import widgets
from luna_farm_nodes.nodes import LunaDaemonImageSaver, LunaImageStack, LunaMultiSaver

BATCH = np.zeros((2, 8, 8, 3), np.float32)


def stack(before: Any = None, **inputs: Any) -> Any:
    """What a stack hands on; every widget has its default, as ComfyUI passes it."""
    given = {
        name: options["default"]
        for name, (_, options) in widgets.stack()["optional"].items()
        if "default" in options
    }
    (rows,) = LunaImageStack().stack(**{**given, "stack": before, **inputs})
    return rows


def save(farm: Any, **inputs: Any) -> Any:
    LunaDaemonImageSaver().save(save_path="", filename="a", quality_gate="disabled", **inputs)
    return farm.requests[-1].images


def test_the_images_of_a_saver_come_first_then_each_stack_from_the_first_on(comfy, farm):
    first = stack(image_1=BATCH, image_5=BATCH, affix_5="LAST", format_5="webp", subdir_5=False)
    second = stack(first, image_2=BATCH)
    images = save(farm, image_1=BATCH, stack=second)
    assert [(one.affix, one.format, one.subdir) for one in images] == [
        ("RAW", "png", True),
        ("IMAGE6", "png", True),
        ("LAST", "webp", False),
        ("IMAGE7", "png", True),
    ]


def test_a_stack_alone_is_enough_and_an_empty_one_is_no_image(comfy, farm):
    assert len(save(farm, stack=stack(image_1=BATCH))) == 1
    answer = LunaDaemonImageSaver().save(save_path="", filename="a", stack=stack())
    assert "No image is connected" in answer["result"][0]


def test_a_hundred_images_are_one_job(comfy, farm):
    rows = None
    for _ in range(20):
        rows = stack(rows, **{f"image_{n}": BATCH[:1] for n in widgets.SLOTS})
    images = save(farm, stack=rows)
    assert len(images) == 100
    assert len(farm.requests) == 1


def test_names_like_those_of_save_image_count_through_stacks_too(comfy, farm):
    images = save(farm, image_1=BATCH, stack=stack(image_1=BATCH, format_1="webp"), filename_prefix="x/y")
    assert [(one.affix, one.format) for one in images] == [("", "png")] * 2 + [("", "webp")] * 2


def test_the_mask_of_a_saver_is_for_the_images_of_its_stack_too(comfy, farm):
    torch = pytest.importorskip("torch")
    image = torch.zeros(1, 8, 8, 3)
    images = save(farm, image_1=image, stack=stack(image_1=image), mask=torch.ones(1, 8, 8))
    assert [tuple(one.pixels.shape) for one in images] == [(1, 8, 8, 4)] * 2


@pytest.mark.parametrize("node", [LunaDaemonImageSaver, LunaMultiSaver])
def test_both_savers_take_what_a_stack_gives(node):
    assert node.INPUT_TYPES()["optional"]["stack"][0] == LunaImageStack.RETURN_TYPES[0]
