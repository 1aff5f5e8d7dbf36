"""Images for bench and demo: where they come from is said, and what is done to them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from luna_farm.cli import images
from luna_farm.errors import InvalidRequest


def test_given_files_are_taken_as_they_are(tmp_path):
    Image.new("L", (5, 4), 7).save(tmp_path / "gray.png")
    Image.new("RGBA", (3, 2), (1, 2, 3, 4)).save(tmp_path / "alpha.png")
    got = images.load([str(tmp_path / "gray.png"), str(tmp_path / "alpha.png")], None)
    assert (got.source, got.names) == ("the given files", ("gray", "alpha"))
    assert [image.shape for image in got.pixels] == [(4, 5, 3), (2, 3, 3)]
    assert got.pixels[1][0, 0].tolist() == [1, 2, 3]


def test_a_file_that_is_no_image_is_refused(tmp_path):
    with pytest.raises(InvalidRequest):
        images.load([str(tmp_path / "none.png")], 8)


def test_without_scikit_image_images_are_made_and_called_so(monkeypatch):
    monkeypatch.setattr(images.util, "find_spec", lambda name: None)
    got = images.load([], 32)
    assert "made by numpy" in got.source
    assert len(got.pixels) == images.MADE
    assert got.pixels[0].shape == (32, 32, 3)
    assert not np.array_equal(got.pixels[0], got.pixels[1])


def test_photographs_are_those_that_need_no_download():
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    got = images.load([], 64)
    assert got.source == "photographs of scikit-image, cut or mirrored to 64x64"
    assert "astronaut" in got.names
    assert {image.shape for image in got.pixels} == {(64, 64, 3)}


def test_squares_are_cut_from_the_middle_or_mirrored():
    wide = np.arange(2 * 6 * 3, dtype=np.uint8).reshape(2, 6, 3)
    square = images.squared(wide, 4)
    assert np.array_equal(square[:2], wide[:, 1:5])
    assert np.array_equal(square[2:], wide[::-1, 1:5])
    assert square.flags.c_contiguous


def test_noise_is_small_and_the_same_each_time():
    flat = np.full((64, 64, 3), 128, np.uint8)
    noisy = images.noisy(flat)
    assert np.array_equal(noisy, images.noisy(flat))
    assert 1.0 < np.std(noisy.astype(float)) < 1.5
