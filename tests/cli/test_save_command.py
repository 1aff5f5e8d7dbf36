"""`save`: files in, requests out; a bad file fails alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from luna_farm.cli.save import read_pixels
from luna_farm.errors import FarmBusy, FarmUnavailable, InvalidRequest


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "a b.png"
    Image.new("RGB", (3, 2), (1, 2, 3)).save(path)
    return path


@pytest.mark.parametrize(
    ("mode", "shape"),
    [
        ("L", (2, 4)),
        ("RGB", (2, 4, 3)),
        ("RGBA", (2, 4, 4)),
        ("1", (2, 4)),
        ("P", (2, 4, 3)),
        ("LA", (2, 4, 4)),
        ("CMYK", (2, 4, 3)),
        ("I;16", (2, 4)),
    ],
)
def test_every_mode_becomes_8_bit_pixels(mode, shape, tmp_path):
    path = tmp_path / "x.tif"
    image = (
        Image.new("RGB", (4, 2), (200, 10, 10)).convert(mode) if mode != "I;16" else Image.new(mode, (4, 2))
    )
    image.save(path)
    pixels = read_pixels(path)
    assert (pixels.shape, pixels.dtype) == (shape, np.uint8)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)).save(path)
    assert read_pixels(path).tolist() == [[0, 1, 128, 255]]


def test_transparency_of_a_palette_is_kept(tmp_path):
    path = tmp_path / "p.png"
    Image.new("P", (3, 2)).save(path, transparency=0)
    assert read_pixels(path).shape == (2, 3, 4)


def test_a_image_is_read_upright(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    assert read_pixels(path).shape == (30, 20, 3)


def test_arrays_are_taken_as_they_are(tmp_path):
    array = np.linspace(0, 1, 2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3)
    np.save(tmp_path / "f.npy", array)
    assert np.array_equal(read_pixels(tmp_path / "f.npy"), array)


@pytest.mark.parametrize("name", ["bad.png", "bad.npy", "cut.png", "gone.png", "folder"])
def test_what_is_no_image_is_named(name, tmp_path, sample):
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.png").write_bytes(b"no sample")
    (tmp_path / "cut.png").write_bytes(sample.read_bytes()[:40])
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "objects.npy").rename(tmp_path / "bad.npy")
    with pytest.raises(InvalidRequest, match=name):
        read_pixels(tmp_path / name)


def test_files_are_saved_and_named_after_themselves(farm, cli, sample):
    code, out, err = cli("save", sample)
    assert (code, err) == (0, "")
    assert out == "/out/a b.png  1.5 kB  4 ms\n"
    (request,) = farm.requests
    assert (request.filename, request.images[0].affix, request.images[0].format) == ("a b", "", "png")
    assert request.output_dir is None


def test_every_option_arrives(farm, cli, sample):
    where = ["--output-dir", "out", "--save-path", "p", "--filename", "%counter%", "--affix", "RAW"]
    how = ["--format", "webp", "--png-compression", "9", "--lossy-quality", "80", "--lossless-webp"]
    gate = ["--quality-gate", "both", "--min-quality-threshold", "0.5"]
    assert cli("save", sample, *where, *how, *gate)[0] == 0
    (request,) = farm.requests
    assert (request.output_dir, request.save_path, request.filename) == ("out", "p", "%counter%")
    assert (request.images[0].affix, request.images[0].format) == ("RAW", "webp")
    assert (request.png_compression, request.lossy_quality, request.lossless_webp) == (9, 80, True)
    assert (request.quality_gate, request.min_quality_threshold) == ("both", 0.5)


def test_percent_signs_of_a_file_name_are_no_template(farm, cli, sample):
    odd = sample.with_name("100%index%.png")
    odd.write_bytes(sample.read_bytes())
    cli("save", odd)
    assert farm.requests[0].filename == "100_index_"


def test_a_bad_file_fails_alone(farm, cli, sample, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no sample")
    farm.refuse = {"full": FarmBusy("The farm is full.", 9, 1.0)}
    full = sample.with_name("full.png")
    full.write_bytes(sample.read_bytes())
    code, out, err = cli("save", tmp_path / "bad.png", full, sample)
    assert code == 1
    assert out.count("/out/") == 1
    assert "bad.png" in err
    assert "full.png: The farm is full." in err


def test_what_was_accepted_and_not_saved_is_code_1(farm, cli, sample):
    farm.after_wait = "failed"
    code, out, err = cli("save", sample)
    assert (code, out) == (1, "")
    assert err == "/out/a b.png: no space left\n"


def test_a_farm_that_goes_away_is_code_3(farm, cli, sample):
    farm.refuse = {"a b": FarmUnavailable("gone")}
    assert cli("save", sample)[0] == 3


def test_without_waiting_the_ids_are_printed(farm, cli, sample):
    code, out, _ = cli("save", sample, "--no-wait")
    assert (code, out) == (0, f"{sample}: job 00000001\n")
    assert farm.waited == []


def test_as_json(farm, cli, sample):
    (row,) = json.loads(cli("save", sample, "--json")[1])
    assert (row["file"], row["state"], row["images"][0]["path"]) == (str(sample), "done", "/out/a b.png")
    (row,) = json.loads(cli("save", sample, "--json", "--no-wait")[1])
    assert set(row) == {"file", "job_id"}
