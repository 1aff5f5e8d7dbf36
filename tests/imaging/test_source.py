"""Image files that are read to be saved again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from luna_farm.errors import InvalidRequest
from luna_farm.imaging import source, source_formats


def test_a_still_in_front_of_an_animation_is_none_of_its_frames(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), (n, 0, 0)) for n in range(4)]
    frames[0].save(
        tmp_path / "a.png", save_all=True, default_image=True, append_images=frames[1:], duration=40
    )
    found = source.read(tmp_path / "a.png")
    assert found.pages[0][:, 0, 0, 0].tolist() == [1, 2, 3]
    assert found.fps == 25


def test_smaller_copies_of_a_page_and_previews_of_a_photograph_are_no_pages(tmp_path: Path) -> None:
    from PIL import TiffImagePlugin

    small = Image.new("RGB", (2, 2))
    small.encoderinfo = {"tiffinfo": TiffImagePlugin.ImageFileDirectory_v2()}  # type: ignore[attr-defined]
    small.encoderinfo["tiffinfo"][254] = 1  # type: ignore[attr-defined]
    Image.new("RGB", (8, 8)).save(tmp_path / "p.tif", save_all=True, append_images=[small])
    assert [page.shape for page in source.read(tmp_path / "p.tif").pages] == [(8, 8, 3)]
    Image.new("RGB", (8, 8)).save(tmp_path / "p.jpg", "MPO", save_all=True, append_images=[small])
    assert [page.shape for page in source.read(tmp_path / "p.jpg").pages] == [(8, 8, 3)]


def test_many_frames_lie_in_a_file_instead_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Image.new("L", (16, 16), n) for n in range(5)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    monkeypatch.setattr(source, "IN_MEMORY_BYTES", 100)
    (page,) = source.read(tmp_path / "a.tif").pages
    assert isinstance(page, np.memmap)
    assert page.shape == (5, 16, 16, 1)
    assert page[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_frames_of_one_colour_more_are_all_alike(tmp_path: Path) -> None:
    frames = [Image.new("RGBA", (4, 4), (9, 9, 9, 255)), Image.new("RGBA", (4, 4), (9, 9, 9, 0))]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert source.read(tmp_path / "a.webp").pages[0].shape == (2, 4, 4, 4)


@pytest.mark.parametrize("values", [[[0, 70_000]], [[-1, 5]]])
def test_integers_beyond_16_bits_are_refused(tmp_path: Path, values: list[list[int]]) -> None:
    Image.fromarray(np.array(values, np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(
        InvalidRequest, match=r"integers from 0 to 65535 .*i\.tif|i\.tif.*integers from 0 to 65535"
    ):
        source.read(tmp_path / "i.tif")


def test_without_the_library_16_bits_become_8_and_the_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imagecodecs = pytest.importorskip("imagecodecs", reason="needs imagecodecs")
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.full((4, 4, 3), 257 * 9, np.uint16)))
    (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(np.zeros((4, 4, 3), np.uint8)))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    found = source.read(tmp_path / "a.png")
    assert (found.pages[0].dtype, found.pages[0][0, 0, 0]) == (np.uint8, 9)
    assert "16 bits" in found.warnings[0]
    with pytest.raises(InvalidRequest, match="cannot be read"):
        source.read(tmp_path / "a.jxl")


@pytest.mark.parametrize("data", [b"II*\0rubbish", b"\xff\x0arubbish", b"\x76\x2f\x31\x01rubbish"])
def test_a_broken_file_of_another_library_is_a_sentence(tmp_path: Path, data: bytes) -> None:
    pytest.importorskip("imagecodecs", reason="needs imagecodecs")
    (tmp_path / "a.bin").write_bytes(data)
    with pytest.raises(InvalidRequest, match="is damaged or cut short"):
        source.read(tmp_path / "a.bin")


def test_too_much_metadata_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", icc_profile=bytes(16) + b"RGB " + bytes(200))
    monkeypatch.setattr(source, "LARGEST_TEXT", 100)
    found = source.read(tmp_path / "a.png")
    assert found.icc == b""
    assert "ICC profile has 220 bytes" in found.warnings[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_pixels_are_upright_too(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    pixels = np.arange(4 * 6 * 3, dtype=np.uint16).reshape(4, 6, 3)
    image = Image.fromarray(pixels.astype(np.uint8))
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(source_formats.upright(pixels, orientation), expected)


def test_a_profile_of_other_colours_than_the_file_stores_is_left_out(options, task, picture) -> None:  # type: ignore[no-untyped-def]
    from base64 import b64encode

    from luna_farm.imaging.encoders import encode
    from luna_farm.imaging.metadata import NOTHING

    head = (128).to_bytes(4, "big") + bytes(12) + b"GRAY" + bytes(16) + b"acsp"
    profile = b64encode(head + bytes(88)).decode()
    for channels, name, fits in ((1, "png", True), (3, "png", False), (1, "webp", False), (1, "jpeg", True)):
        encoded = encode(picture(4, 4, channels), name, options(icc_profile=profile), NOTHING)
        assert (head in b"".join(encoded.buffers)) == (fits and name == "jpeg")
        assert any("GRAY" in warning for warning in encoded.warnings) != fits


def test_xmp_that_a_jpeg_does_not_hold_costs_no_image(options, picture) -> None:  # type: ignore[no-untyped-def]
    from base64 import b64encode

    from luna_farm.imaging.encoders import encode
    from luna_farm.imaging.metadata import NOTHING

    encoded = encode(picture(4, 4, 3), "jpeg", options(xmp=b64encode(bytes(70_000)).decode()), NOTHING)
    assert "XMP has 70,000 bytes" in encoded.warnings[0]


@pytest.mark.parametrize(
    ("stated", "dpi", "said"),
    [
        ({}, 0, ""),
        ({"dpi": (300, 300)}, 300, ""),
        ({"resolution_unit": "cm", "x_resolution": 100.0, "y_resolution": 100.0}, 254, ""),
        ({"dpi": (204, 98)}, 204, "Its 204 x 98 dots per inch were kept as 204"),
    ],
)
def test_a_resolution_that_a_tiff_does_not_state_is_not_known(
    tmp_path: Path, stated: dict[str, Any], dpi: float, said: str
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tif", **stated)
    found = source.read(tmp_path / "a.tif")
    assert found.dpi == pytest.approx(dpi)
    assert said in " ".join(found.warnings)
    assert bool(found.warnings) == bool(said)


@pytest.mark.parametrize(
    ("mode", "profile", "said"),
    [
        (
            "RGB",
            b"garbage" * 9,
            "Its ICC profile is none that can be read, its pixels are RGB; it was left out.",
        ),
        ("L", None, "Its ICC profile is one of RGB colours, its pixels are GRAY; it was left out."),
        ("RGB", None, ""),
    ],
)
def test_a_profile_that_is_left_out_is_named(
    tmp_path: Path, mode: str, profile: bytes | None, said: str
) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new(mode, (8, 8)).save(tmp_path / "a.png", icc_profile=profile or srgb)
    assert source.read(tmp_path / "a.png").warnings == ([said] if said else [])


def _tiff(path: Path, pixels: np.ndarray[Any, Any], **how: Any) -> source.Source:
    tifffile = pytest.importorskip("tifffile", reason="TIFF of other kinds is written by tifffile")
    pytest.importorskip("imagecodecs", reason="deep TIFF is read by imagecodecs")
    tifffile.imwrite(path, pixels, **how)
    return source.read(path)


def test_tiff_of_16_bits_in_all_its_kinds(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 65_536, (20, 30, 3), np.uint16)
    alpha = np.full((20, 30, 1), 32_768, np.uint16)
    halved = np.floor(rgb * (32_768 / 65_535) + 0.5).astype(np.uint16)
    kinds: dict[str, tuple[Any, dict[str, Any], Any]] = {
        "planes": (np.moveaxis(rgb, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}, rgb),
        "white is zero": (65_535 - rgb[..., 0], {"photometric": "miniswhite"}, rgb[..., 0]),
        "big-endian": (rgb, {"photometric": "rgb", "byteorder": ">", "bigtiff": True}, rgb),
        "pages": (np.stack([rgb, rgb[::-1]]), {"photometric": "rgb"}, np.stack([rgb, rgb[::-1]])),
        "associated": (
            np.dstack([halved, alpha]),
            {"photometric": "rgb", "extrasamples": ["assocalpha"]},
            np.dstack([rgb, alpha]),
        ),
    }
    for name, (given, how, expected) in kinds.items():
        found = _tiff(tmp_path / "a.tif", given, **how)
        assert found.warnings == [], name
        (page,) = found.pages
        assert page.shape == expected.shape, name
        assert np.abs(page.astype(int) - expected).max() <= (name == "associated"), name


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_what_a_tiff_says_of_its_pixels_holds_for_every_depth(tmp_path: Path, kind: Any) -> None:
    full = 65_535 if kind is np.uint16 else 1
    rgba = (np.random.default_rng(0).random((20, 30, 4)) * full).astype(kind)
    gray, alpha = rgba[..., :1], rgba[..., 3:]
    tight = 1 / full if kind is np.uint16 else 1e-6
    premultiplied = (rgba[..., :3] * (alpha / full)).astype(kind)
    turned = _tiff(tmp_path / "a.tif", rgba[..., :3], photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    assert np.array_equal(turned.pages[0], np.rot90(rgba[..., :3], -1))
    (plain,) = _tiff(
        tmp_path / "b.tif", np.dstack([premultiplied, alpha]), photometric="rgb", extrasamples=["assocalpha"]
    ).pages
    shown = plain[..., :3] * (alpha / full)
    assert np.abs(shown - premultiplied.astype(float)).max() / full <= tight
    how: dict[str, Any] = {"photometric": "minisblack", "extrasamples": ["unassalpha"]}
    (pair,) = _tiff(tmp_path / "c.tif", np.dstack([gray, alpha]), **how).pages
    assert np.array_equal(pair, np.dstack([gray, gray, gray, alpha]))


def test_a_smaller_copy_in_a_tiff_of_floats_is_no_page(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="TIFF of floats is written by tifffile")
    pytest.importorskip("imagecodecs", reason="TIFF of floats is read by imagecodecs")
    pixels = np.random.default_rng(0).random((20, 30, 3)).astype(np.float32)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(pixels, photometric="rgb")
        file.write(pixels[::2, ::2], photometric="rgb", subfiletype=1)
        file.write(pixels[:9], photometric="rgb")
    assert [page.shape for page in source.read(tmp_path / "a.tif").pages] == [(20, 30, 3), (9, 30, 3)]


def test_one_transparent_gray_of_16_bits_stays_transparent(tmp_path: Path) -> None:
    Image.fromarray(np.array([[1000, 40_000]], np.uint16)).save(tmp_path / "a.png", transparency=1000)
    (page,) = source.read(tmp_path / "a.png").pages
    assert page.tolist() == [[[1000, 1000, 1000, 0], [40_000, 40_000, 40_000, 65_535]]]


def test_depth_that_is_lost_is_said(tmp_path: Path) -> None:
    cmyk = np.zeros((20, 30, 4), np.uint16)
    found = _tiff(tmp_path / "a.tif", cmyk, photometric="separated")
    assert found.warnings == ["Its 16 bits a channel were read as 8."]


def test_pages_of_floats_keep_what_the_file_says(tmp_path: Path) -> None:
    pages = np.random.default_rng(0).random((2, 20, 30, 3))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = _tiff(
        tmp_path / "a.tif", pages, photometric="rgb", resolution=(300, 300), resolutionunit=2,
        extratags=[(34675, 7, len(srgb), srgb, True), (0x8298, 2, 3, "me", True)],
    )  # fmt: skip
    assert np.array_equal(found.pages[0], pages.astype(np.float32))
    assert (found.dpi, found.icc) == (300, srgb)
    assert b"me" in found.exif


def test_jpeg_xl_keeps_its_resolution(tmp_path: Path, options: Any, picture: Any) -> None:
    pytest.importorskip("imagecodecs", reason="JPEG XL is read by imagecodecs")
    from luna_farm.imaging.encoders import encode
    from luna_farm.imaging.metadata import Embedded

    for dpi in (0.0, 300.0):
        made = encode(picture(8, 8, 3), "jxl", options(), Embedded(parameters="Steps: 1", dpi=dpi))
        (tmp_path / "a.jxl").write_bytes(b"".join(made.buffers))
        assert source.read(tmp_path / "a.jxl").dpi == dpi


def test_channels_of_openexr_that_are_left_out_are_named(tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR", reason="OpenEXR is read by its own package")
    plane = np.random.default_rng(0).random((8, 9)).astype(np.float32)
    kinds: dict[str, tuple[dict[str, Any], tuple[int, ...], list[str]]] = {
        "gray with alpha": ({"Y": plane, "A": plane}, (8, 9, 4), []),
        "depth beside": (
            {"RGB": np.dstack([plane] * 3), "Z": plane},
            (8, 9, 3),
            ["Of its channels RGB are kept; left out: Z."],
        ),
    }
    for name, (channels, shape, warnings) in kinds.items():
        with exr.File({"type": exr.scanlineimage}, channels) as file:
            file.write(str(tmp_path / "a.exr"))
        found = source.read(tmp_path / "a.exr")
        assert (found.pages[0].shape, found.warnings) == (shape, warnings), name
