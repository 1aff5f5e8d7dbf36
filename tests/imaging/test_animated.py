"""A batch as one moving image: frames, times and metadata as other programs read them; bounded memory."""

from __future__ import annotations

import base64
import io
import json
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from luna_farm.errors import EncodeError, InvalidRequest
from luna_farm.imaging.encoders import encode
from luna_farm.imaging.encoders.animated import encode_animation
from luna_farm.imaging.metadata import NOTHING, embed
from luna_farm.testing import readers

FORMATS = ["png", "webp", "avif"]


def _needs(name):
    if name == "avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")


def _file(frames, name, job, embedded=NOTHING, **how):
    _needs(name)
    return b"".join(encode_animation(frames, name, job, embedded, **{"fps": 12.5, **how}).buffers)


def _frames(picture, channels, count=5):
    return np.stack([picture(37, 52, channels, seed) for seed in range(count)])


def _read(file):
    with Image.open(io.BytesIO(file)) as image:
        frames, times = [], []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            image.load()
            frames.append(np.asarray(image.convert("RGBA")))
            times.append(image.info["duration"])
        return frames, times, image.info


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", FORMATS)
def test_every_frame_is_there_in_order(options, picture, name, channels):
    frames = _frames(picture, channels)
    read, times, info = _read(_file(frames, name, options(lossless_webp=True, lossy_quality=99), loop=3))
    assert times == [80] * 5
    assert info.get("loop", 3) == 3  # AVIF has none
    for frame, given in zip(read, frames, strict=True):
        wanted = np.asarray(Image.fromarray(given[..., 0] if channels == 1 else given).convert("RGBA"))
        off = np.abs(frame.astype(int) - wanted)
        if name == "avif":
            assert off.mean() < 4
        else:
            assert off.max() == 0


def test_another_decoder_reads_16_bits_and_animation(options):
    av = pytest.importorskip("av", reason="FFmpeg is the other decoder")
    frames = np.random.default_rng(0).integers(0, 65536, (4, 20, 31, 3)).astype(np.uint16)
    file = _file(frames, "png", options())
    with av.open(io.BytesIO(file), format="apng") as container:
        read = [frame.to_ndarray(format="rgb48le") for frame in container.decode(video=0)]
    assert np.array_equal(np.stack(read), frames)


@pytest.mark.parametrize("name", FORMATS)
def test_metadata_and_marks_stand_in_it_once(options, task, picture, name):
    job = options(provenance="xmp")
    file = _file(_frames(picture, 3), name, job, embed(job, task()))
    workflow = json.loads(job.extra_pnginfo)["workflow"]
    if name == "avif":
        assert b"workflow:" in file
    else:
        found = getattr(readers, f"{name}_texts")(file)["workflow"]
        assert json.loads(found) == workflow
    assert file.count(b"trainedAlgorithmicMedia") == 1


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("fps", [1, 23.976, 30, 240])
def test_times_add_up(options, picture, name, fps):
    _, times, _ = _read(_file(_frames(picture, 1, 13), name, options(), fps=fps))
    assert sum(times) == pytest.approx(13_000 / fps, abs=13 * 1000 / fps / 1000 + 1)


class _Lazy:
    """A sequence that makes each frame when it is asked for."""

    def __init__(self, count):
        self.count, self.asked = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError
        self.asked.append(index)
        return np.full((256, 256, 3), index, np.uint8)


@pytest.mark.parametrize("name", FORMATS)
def test_frames_are_taken_one_by_one_and_not_kept(options, name):
    _file(_Lazy(2), name, options(lossless_webp=True))  # what is imported and kept is not counted
    frames = _Lazy(40)
    tracemalloc.start()
    _file(frames, name, options(lossless_webp=True))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [index for index in frames.asked if index] == list(range(1, 40))
    assert peak < 8 * 256 * 256 * 3


def test_other_speeds_loops_and_formats_are_refused(options, picture):
    frames = _frames(picture, 3)
    for how in ({"fps": 0}, {"fps": float("nan")}, {"fps": 241}, {"loop": -1}, {"loop": 65_536}):
        with pytest.raises(InvalidRequest, match="fps above 0"):
            _file(frames, "png", options(), **how)
    with pytest.raises(InvalidRequest, match="a format of png, webp, avif"):
        _file(frames, "jpeg", options())


def test_frames_of_two_sizes_are_refused(options, picture):
    with pytest.raises(EncodeError, match="do not make one animation"):
        _file([picture(9, 9, 3), picture(9, 8, 3)], "webp", options())


def test_what_avif_cannot_do_is_reported(options, picture):
    _needs("avif")
    frames = _frames(picture, 3).astype(np.uint16) * 257
    said = encode_animation(frames, "avif", options(), NOTHING, fps=10, loop=2).warnings
    assert [text for text in said if "for ever" in text]
    assert [text for text in said if "8 bits" in text]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32])
@pytest.mark.parametrize("depth", ["auto", "8", "16", "half", "float"])
def test_frames_are_stored_as_deep_as_a_still_image(options, dtype, depth):
    imagecodecs = pytest.importorskip("imagecodecs")
    pixels = np.linspace(0, 1, 3 * 4 * 5 * 3).reshape(3, 4, 5, 3)
    full = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    frames = (pixels * full).astype(dtype)
    job = options(bit_depth=depth)
    for name in ("png", "webp"):
        still, moving = (
            encode(frames[0], name, job, NOTHING),
            encode_animation(frames, name, job, NOTHING, fps=5),
        )
        assert moving.warnings == still.warnings
        if name == "png":
            first = imagecodecs.png_decode(b"".join(moving.buffers))
            assert first.dtype == imagecodecs.png_decode(b"".join(still.buffers)).dtype


@pytest.mark.parametrize("name", FORMATS)
def test_a_profile_that_does_not_fit_is_left_out_and_reported(options, task, picture, name):
    _needs(name)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for given, says in (
        (profile[:-9], "cut short"),
        (profile[:16] + b"GRAY" + profile[20:], "of GRAY colours"),
    ):
        job = options(icc_profile=base64.b64encode(given).decode())
        moving = encode_animation(_frames(picture, 3), name, job, embed(job, task()), fps=5)
        assert says in moving.warnings[0]
        with Image.open(io.BytesIO(b"".join(moving.buffers))) as image:
            image.load()
            assert not image.info.get("icc_profile")
