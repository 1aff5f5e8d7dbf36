"""WebP: the frontend finds the workflow in every file, and the pixels are the same as without."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from luna_farm.imaging.encoders import encode, webp
from luna_farm.imaging.marks import PLAIN
from luna_farm.imaging.metadata import NOTHING, embed
from luna_farm.testing import readers

KINDS = {
    "lossy": {"channels": 3, "lossless": False},
    "lossy alpha": {"channels": 4, "lossless": False},
    "lossless": {"channels": 3, "lossless": True},
    "lossless alpha": {"channels": 4, "lossless": True},
}


def _pixels(file):
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGBA"))


@pytest.mark.parametrize("kind", KINDS)
def test_20_of_20_files_load_their_workflow_in_the_frontend(options, task, picture, kind):
    channels, lossless = KINDS[kind]["channels"], KINDS[kind]["lossless"]
    padded = 0
    for seed in range(20):
        job = options(lossless_webp=lossless, custom_metadata=json.dumps("x" * seed))
        pixels = picture(37 + seed, 41, channels, seed)
        bare = b"".join(encode(pixels, "webp", job, NOTHING).buffers)
        file = b"".join(encode(pixels, "webp", job, embed(job, task())).buffers)
        texts = readers.webp_texts(file)
        assert json.loads(texts["workflow"]) == json.loads(job.extra_pnginfo)["workflow"]
        assert json.loads(texts["prompt"]) == json.loads(job.prompt)
        assert np.array_equal(_pixels(file), _pixels(bare))
        padded += any(len(data) % 2 for chunk, data in webp.chunks(bare) if chunk != b"VP8X")
    # libwebp pads lossy streams itself; elsewhere the trap must have been there to be passed.
    assert padded or kind == "lossy"


def test_without_the_cure_the_trap_snaps(options, task, picture):
    lost = 0
    for seed in range(20):
        pixels = picture(30 + seed, 40, 3, seed)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "WEBP", lossless=True, exif=b"MM\0*\0\0\0\x08\0\0\0\0\0\0")
        lost += b"EXIF" not in _chunks_the_frontend_sees(out.getvalue())
    assert lost > 0


def _chunks_the_frontend_sees(file):
    kinds, at = [], 12
    while at < len(file):
        kinds.append(file[at : at + 4])
        at += 8 + int.from_bytes(file[at + 4 : at + 8], "little")
    return kinds


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_lossless_is_exact_also_under_transparency(options, task, picture, channels):
    pixels = picture(50, 31, channels)
    if channels == 4:
        pixels[:20, :, 3] = 0
    job = options(lossless_webp=True)
    with Image.open(io.BytesIO(b"".join(encode(pixels, "webp", job, embed(job, task())).buffers))) as image:
        decoded = np.asarray(image)
    expected = np.repeat(pixels, 3, axis=2) if channels == 1 else pixels
    assert np.array_equal(decoded, expected)


def test_quality_counts(options, picture):
    pixels = picture(64, 64, 3)
    sizes = [
        sum(map(len, encode(pixels, "webp", options(lossy_quality=q), NOTHING).buffers))
        for q in (70, 85, 100)
    ]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3


def test_the_file_is_what_its_header_says(options, task, picture):
    job = options()
    file = b"".join(encode(picture(33, 21, 4), "webp", job, embed(job, task())).buffers)
    assert int.from_bytes(file[4:8], "little") == len(file) - 8
    found = webp.chunks(file)
    assert [kind for kind, _ in found] == [b"VP8X", b"ALPH", b"VP8 ", b"EXIF"]
    flags, width, height = found[0][1][0], found[0][1][4:7], found[0][1][7:10]
    assert flags == 0x18
    assert (int.from_bytes(width, "little"), int.from_bytes(height, "little")) == (20, 32)
    with Image.open(io.BytesIO(file)) as image:
        assert image.getexif()[0x0110].startswith("prompt:")


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize(("channels", "flags"), [(1, 0x08), (3, 0x08), (4, 0x18), (4, 0x08)])
def test_alpha_is_announced_only_where_it_is(options, task, picture, channels, flags, lossless):
    pixels = picture(9, 9, channels)
    if flags == 0x08:
        pixels[:, :, 3:] = 255  # opaque: libwebp writes no alpha
    job = options(lossless_webp=lossless)
    file = b"".join(encode(pixels, "webp", job, embed(job, task())).buffers)
    assert webp.chunks(file)[0][1][0] == flags


def test_what_is_no_webp_is_refused(options, picture):
    whole = b"".join(encode(picture(9, 9, 3), "webp", options(), NOTHING).buffers)
    for broken in (b"", whole[:30], b"RIFF" + whole[4:8] + b"WAVE" + whole[12:]):
        with pytest.raises(ValueError, match="WebP"):
            webp.chunks(broken)
    with pytest.raises(ValueError, match="no compressed image"):
        webp.extended(whole[:12], b"MM", PLAIN, width=9, height=9)
