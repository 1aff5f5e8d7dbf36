"""luna_farm.png: what a program that knows no farm gets."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from luna_farm import png
from luna_farm.imaging import pillow_png


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_view_of_any_array_comes_back(data: st.DataObject) -> None:
    draw = data.draw
    channels = draw(st.sampled_from([None, 1, 2, 3, 4]))
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 40)), *([channels] if channels else []))
    pixels = np.random.default_rng(shape[0]).integers(0, draw(st.sampled_from([2, 256])), shape, np.uint8)
    step = st.sampled_from([-2, -1, 1, 2, 3])
    view = pixels[:: draw(step), :: draw(step)]
    view = view.swapaxes(0, 1) if draw(st.booleans()) else view
    image = opened(png.encode(view, level=draw(st.integers(0, 9))))
    assert np.array_equal(np.asarray(image).reshape(view.shape), view)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("level", [1, 4, 9])
def test_sixteen_bit_comes_back_in_either_byte_order(order: str, channels: int | None, level: int) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    shape = (23, 31, *([channels] if channels else []))
    pixels = np.random.default_rng(1).integers(0, 2**16, shape).astype(order + "u2")
    back = imagecodecs.png_decode(png.encode(pixels, level=level))
    assert back.dtype == np.uint16
    assert np.array_equal(back.reshape(shape), pixels)


def test_texts_are_read_by_pillow_whatever_their_letters() -> None:
    text = {"prompt": "{}", "Title": "Caf\xe9", "Comment": "日本語"}
    assert opened(png.encode(np.zeros((2, 2), np.uint8), text=text)).info == text


def test_chunks_are_written_before_the_pixels() -> None:
    data = png.encode(np.zeros((2, 2), np.uint8), chunks=[(b"pHYs", b"\0\0\x0b\x13\0\0\x0b\x13\x01")])
    assert opened(data).info["dpi"] == pytest.approx((72, 72), abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"text": {"": "x"}}, "1 to 79"),
        ({"text": {"日本": "x"}}, "Latin-1"),
        ({"text": {"k" * 80: "x"}}, "1 to 79"),
        ({"text": {"k": "a\0b"}}, "NUL"),
        ({"text": {"k": 1}}, "'k': 1"),
        ({"text": {1: "v"}}, "1: 'v'"),
        ({"text": {"k": "\ud800"}}, "'k' is not Unicode"),
        ({"text": [("k", "v")]}, "a map"),
        ({"chunks": [(b"abc", b"")]}, "four ASCII letters"),
        ({"chunks": [("pHYs", b"")]}, "bytes, not str"),
        ({"chunks": [(b"prVt", "x")]}, "and str"),
        ({"chunks": {b"prVt": b"x"}}, "pairs"),
        ({"chunks": [(b"IDAT", b"x")]}, "capital"),
        ({"chunks": [(b"IEND", b"")]}, "capital"),
        ({"level": 10}, "0 to 9"),
        ({"level": True}, "0 to 9"),
        ({"level": 4.0}, "0 to 9"),
        ({"array": np.zeros((2, 2), np.float32)}, "float32"),
        ({"array": np.zeros((2, 2), np.int16)}, "int16"),
        ({"array": np.zeros(4, np.uint8)}, r"\[4\]"),
        ({"array": np.zeros((2, 2, 5), np.uint8)}, r"\[2, 2, 5\]"),
    ],
)
def test_what_png_does_not_allow_is_refused_by_name(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        png.encode(**({"array": np.zeros((2, 2), np.uint8)} | arguments))


def test_levels_may_be_numbers_of_numpy() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert png.encode(pixels, level=np.int64(9)) == png.encode(pixels, level=9)


@pytest.fixture
def registered() -> Iterator[None]:
    png.register_pillow()
    yield
    Image.register_save("PNG", PngImagePlugin._save)


def saved(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16", "1", "P"])
@pytest.mark.usefixtures("registered")
def test_pillow_saves_every_mode_that_it_saved_before(mode: str) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (31, 17, 3), np.uint8)
    image = Image.fromarray(pixels)
    image = image.convert("L").convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
    back = opened(saved(image))
    assert np.array_equal(np.asarray(back.convert("RGBA")), np.asarray(image.convert("RGBA"))) or mode in (
        "I",
        "I;16",
    )
    assert np.array_equal(np.asarray(back), np.asarray(image)) or mode in ("1", "P")


@pytest.mark.usefixtures("registered")
def test_pillow_writes_the_same_metadata_as_before() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", "{}")
    info.add_itxt("title", "日本語")
    info.add(b"prVt", b"before")
    info.add(b"prVt", b"behind", after_idat=True)
    exif = Image.Exif()
    exif[0x010E] = "described"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("RGB", (50, 40), (1, 2, 3))
    options = {
        "pnginfo": info,
        "dpi": (300, 300),
        "icc_profile": icc,
        "exif": exif,
        "transparency": (1, 2, 3),
    }
    ours = saved(image, **options)
    Image.register_save("PNG", PngImagePlugin._save)
    theirs = saved(image, **options)

    def kinds(data: bytes) -> list[tuple[bytes, bytes]]:
        return [(kind, whole) for kind, whole in pillow_png._chunks_of(data) if kind != b"IDAT"]

    assert kinds(ours) == kinds(theirs)
    assert opened(ours).info == opened(theirs).info


@pytest.mark.usefixtures("registered")
def test_pillow_s_levels_are_heeded() -> None:
    y, x = np.mgrid[:200, :200]
    image = Image.fromarray(((x * y) // 50 % 256).astype(np.uint8))
    sizes = [len(saved(image, compress_level=level)) for level in (0, 4, 9)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert len(saved(image)) == sizes[1]
    assert len(saved(image, optimize=True)) == sizes[2]


@pytest.mark.parametrize("level", [np.uint8(1), True])
@pytest.mark.usefixtures("registered")
def test_what_pillow_takes_for_a_level_is_one(level: Any) -> None:
    image = Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64))
    assert saved(image, compress_level=level) == saved(image, compress_level=1)


@pytest.mark.usefixtures("registered")
def test_an_animation_is_still_pillow_s() -> None:
    frames = [Image.new("RGB", (8, 8), (n, 0, 0)) for n in range(3)]
    back = Image.open(io.BytesIO(saved(frames[0], save_all=True, append_images=frames[1:])))
    assert getattr(back, "n_frames", 1) == 3


def test_the_module_needs_nothing_of_the_farm() -> None:
    names = ("msgpack", "websockets", "PIL", "torch")
    code = f"import sys, luna_farm.png; print(any(n in sys.modules for n in {names}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
