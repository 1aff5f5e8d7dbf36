"""What the files of a submit cannot be written without."""

from __future__ import annotations

from typing import Any

import pytest
from stage import Stage, batch

from luna_farm.core import instructions
from luna_farm.core.needs import AVIF_PILLOW
from luna_farm.core.outputs import Output
from luna_farm.core.pools import NEAR, PoolLimits

CODECS, PILLOW = ("imagecodecs",), (AVIF_PILLOW,)
EITHER = (*CODECS, *PILLOW)


def needed(*batches: Any, stage: Stage | None = None, **options: Any) -> list[tuple[str, ...]]:
    stage = stage or Stage()
    stage.hold = {instructions.ReserveNames}
    stage.open("job-0001", *batches, **options)
    return [need.any_of for need in stage.held[-1].needs]


@pytest.mark.parametrize(
    ("fields", "options", "needs"),
    [
        ({}, {}, []),
        ({"format": "tiff"}, {"lossless_webp": True}, []),
        ({"format": "jxl"}, {}, [CODECS]),
        ({"format": "exr"}, {}, [("OpenEXR",)]),
        ({"format": "heic"}, {}, [("pillow_heif",)]),
        ({"format": "avif"}, {}, [EITHER]),
        ({"format": "avif", "channels": 1}, {}, [PILLOW]),
        ({"format": "avif", "frames": 3}, {"lossless_webp": True}, [PILLOW]),
        ({"format": "avif"}, {"lossless_webp": True}, [CODECS]),
        ({"format": "avif"}, {"lossy_quality": 100}, [CODECS]),
        ({"format": "avif"}, {"colorspace": "pq"}, [CODECS]),
        ({"format": "avif", "dtype": "uint16"}, {}, [CODECS]),
        ({"format": "avif", "dtype": "uint16"}, {"bit_depth": "8"}, [EITHER]),
        ({}, {"provenance": "c2pa"}, [("c2pa",)]),
        ({"format": "jxl"}, {"provenance": "c2pa"}, [CODECS, ("c2pa",)]),
        ({"format": "jxl"}, {"archive": "tar"}, [CODECS]),
        ({"outputs": (Output("png"), Output("jxl"), Output("avif", quality=100))}, {}, [CODECS, CODECS]),
        ({"outputs": (Output("avif", quality=80),)}, {"lossless_webp": True}, [EITHER]),
    ],
)
def test_a_form_names_what_it_needs(
    fields: dict[str, Any], options: dict[str, Any], needs: list[tuple[str, ...]]
) -> None:
    assert needed(batch(**fields), batch(**fields), **options) == needs


def test_workers_elsewhere_may_have_what_is_missing_here() -> None:
    stage = Stage(pools=(PoolLimits(NEAR, 1, 1), PoolLimits("ray", 1, 1, far=True)))
    assert needed(batch(format="jxl"), stage=stage) == []


def test_a_farm_says_what_asks_for_it_in_words() -> None:
    stage = Stage()
    stage.hold = {instructions.ReserveNames}
    stage.open("job-0001", batch(format="avif"), lossless_webp=True)
    (need,) = stage.held[-1].needs
    assert (need.field, need.given) == ("format", "avif")
    assert "quality 100" in need.what
    assert need.install == 'pip install "luna-farm[formats]"'
