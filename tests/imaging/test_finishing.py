"""The way through the pipeline: depths in the gate and the thumbnail, watermarks, signatures."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from luna_farm.config_provenance import UNSIGNED, Signing
from luna_farm.errors import DiskError, EncodeError
from luna_farm.imaging import quality, watermark
from luna_farm.imaging.thumbnail import encode, sample
from luna_farm.worker import pipeline


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", ["uint16", "float16", "float32"])
def test_the_gate_judges_other_depths_alike(picture, dtype, channels):
    eight = picture(300, 400, channels)
    deep = eight.astype(np.uint16) * 257 if dtype == "uint16" else (eight / 255).astype(dtype)
    for gate in ("variance", "edge_density", "both"):
        expected = quality.judge(eight, gate, 0.3)
        assert quality.judge(deep, gate, 0.3).score == pytest.approx(expected.score, rel=2e-3)


def test_the_gate_takes_no_highlight_and_no_nan_for_detail():
    flat = np.full((20, 20, 3), 5.0, np.float32)
    flat[3, 4] = np.inf
    flat[5:] = 1.0
    assert quality.judge(flat, "both", 0.0).score == 0
    flat[:] = np.nan
    assert quality.judge(flat, "both", 0.0).score == 0


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_the_thumbnail_of_other_depths(picture, dtype):
    eight = picture(300, 400, 3)
    deep = eight.astype(np.uint16) * 257 if dtype == "uint16" else ((eight + 0.5) / 255).astype(dtype)
    assert encode(sample(deep), 160) == encode(sample(eight), 160)


@pytest.fixture
def saved(options, task, picture, tmp_path):
    """Save an image through the pipeline; returns the result and the bytes of the file."""

    def save(signing=UNSIGNED, name="png", **changes):
        job = options(output_dir=str(tmp_path), **changes)
        one = replace(task(), path=str(tmp_path / f"a.{name}"), format=name, root=str(tmp_path))
        result = pipeline.make(picture(40, 30, 3), one, job, signing=signing)
        return result, Path(result.path).read_bytes()

    return save


def test_a_file_is_signed_before_it_is_published(saved, tmp_path):
    c2pa = pytest.importorskip("c2pa", reason="C2PA needs c2pa-python")
    from certificates import make

    signing = Signing(*make(tmp_path / "keys"), input_dirs=(str(tmp_path),))
    result, file = saved(signing, provenance="c2pa", ingredient="/etc/passwd")
    with c2pa.Reader("image/png", io.BytesIO(file)) as reader:
        assert reader.get_validation_state() == "Valid"
        assert reader.get_active_manifest()["title"] == "a.png"
    assert ["passwd" in warning and "outside" in warning for warning in result.warnings] == [True]


def test_nothing_is_published_while_the_key_is_missing(saved, tmp_path):
    pytest.importorskip("c2pa", reason="C2PA needs c2pa-python")
    with pytest.raises(DiskError, match="c2pa_certificate and one of c2pa_key and c2pa_command must be set"):
        saved(Signing(), provenance="c2pa")
    assert not list(tmp_path.iterdir())


def test_a_format_without_a_place_is_saved_and_reported(saved):
    pytest.importorskip("imagecodecs", reason="JPEG XL needs imagecodecs")
    result, file = saved(Signing(), name="jxl", provenance="c2pa")
    assert b"DigitalSourceType" in file
    assert "jxl holds no C2PA manifest" in result.warnings[-1]


def _inverted(pixels):
    np.subtract(255, pixels, out=pixels)  # its own copy
    return pixels


@pytest.fixture
def installed(monkeypatch):
    """Install watermarks as if packages had brought them."""

    def install(**functions):
        points = [metadata.EntryPoint(name, "somewhere:else", watermark.GROUP) for name in functions]
        monkeypatch.setattr(metadata.EntryPoint, "load", lambda self: functions[self.name])
        monkeypatch.setattr(
            metadata, "entry_points", lambda group: points if group == watermark.GROUP else []
        )
        watermark._load.cache_clear()

    yield install
    watermark._load.cache_clear()


def test_a_watermark_changes_what_is_saved_and_nothing_else(saved, installed, picture):
    installed(inverted=_inverted)
    before = picture(40, 30, 3)
    _, file = saved(Signing(watermark="inverted"))
    with Image.open(io.BytesIO(file)) as image:
        assert np.array_equal(np.asarray(image), 255 - before)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda pixels: pixels[:, ::2], r"returned uint8 \[40, 15, 3\]; allowed: uint8 \[40, 30, 3\]"),
        (lambda pixels: pixels.astype(np.float32), "returned float32"),
        (lambda pixels: None, "returned NoneType"),
        (lambda pixels: pixels.tolist(), "returned list"),
        (lambda pixels: 1 / 0, "failed: ZeroDivisionError"),
        (lambda pixels: sys.exit("no licence"), "failed: SystemExit: no licence"),
    ],
)
def test_a_watermark_that_fails_saves_no_unmarked_image(saved, installed, tmp_path, function, said):
    installed(broken=function)
    with pytest.raises(EncodeError, match=said):
        saved(Signing(watermark="broken"))
    assert not list(tmp_path.iterdir())


def test_the_watermark_of_the_documents_works(saved, installed, picture):
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(# my_marks/__init__.py.*?)```", page, re.DOTALL)
    module: dict[str, Any] = {}
    exec(code, module)
    installed(stripes=module["stripes"])
    _, file = saved(Signing(watermark="stripes"))
    with Image.open(io.BytesIO(file)) as image:
        seen = np.asarray(image)
    assert np.array_equal(seen[..., :2], picture(40, 30, 3)[..., :2])
    assert (seen[..., 2] % 2 == (np.arange(30) % 2 == 0)).all()


def test_an_unknown_watermark_is_named(saved, installed):
    installed(inverted=_inverted)
    with pytest.raises(EncodeError, match=r"no package here offers 'other' .* installed: inverted"):
        saved(Signing(watermark="other"))
