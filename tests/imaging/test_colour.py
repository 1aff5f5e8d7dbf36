"""What files say about their colours, read by other programs, and the curves against their definitions."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image, ImageCms

from luna_farm.errors import EncodeError, InvalidRequest
from luna_farm.imaging import colour
from luna_farm.imaging.encoders import encode, isobmff
from luna_farm.imaging.metadata import NOTHING, embed

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
MODULES = {"jxl": "imagecodecs", "exr": "OpenEXR", "heic": "pillow_heif"}
EXIFTOOL = shutil.which("exiftool")


def _b64(profile):
    return base64.b64encode(profile).decode()


def _longer(size):
    """The profile with unused bytes in it, so that it has this size."""
    return size.to_bytes(4, "big") + PROFILE[4:] + bytes(size - len(PROFILE))


def _file(pixels, name, job, embedded=NOTHING):
    if name in MODULES:
        pytest.importorskip(MODULES[name], reason=f"{name} needs this optional package")
    return b"".join(encode(pixels, name, job, embedded).buffers)


def _exiftool(tmp_path, file, suffix, *more):
    if EXIFTOOL is None:
        pytest.skip("exiftool is not installed here")
    place = tmp_path / f"a.{suffix}"
    place.write_bytes(file)
    done = subprocess.run(
        [EXIFTOOL, "-j", "-G1", "-n", *more, str(place)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)[0]


@pytest.mark.parametrize("texts", [False, True], ids=["bare", "with texts"])
@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "avif", "tiff", "heic"])
def test_a_given_profile_stands_in_the_file(options, task, picture, name, texts):
    job = options(icc_profile=_b64(PROFILE))
    file = _file(picture(20, 30, 3), name, job, embed(job, task()) if texts else NOTHING)
    if name == "heic":
        import pillow_heif

        read = pillow_heif.open_heif(file).info["icc_profile"]
    else:
        with Image.open(io.BytesIO(file)) as image:
            image.load()
            read = image.info["icc_profile"].rstrip(b"\0")  # WebP's pad byte
    assert read == PROFILE.rstrip(b"\0")


@pytest.mark.parametrize(
    "damaged",
    [PROFILE[:-1], PROFILE[:100], b"x" * 600, bytes(4) + PROFILE[4:], PROFILE[:36] + b"????" + PROFILE[40:]],
    ids=["cut short", "cut in its header", "none", "of no length", "of another kind"],
)
@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "avif", "tiff"])
def test_a_damaged_profile_is_left_out_and_reported(options, task, picture, name, damaged):
    job = options(icc_profile=_b64(damaged))
    encoded = encode(picture(20, 30, 3), name, job, embed(job, task()))
    assert encoded.warnings == ["The ICC profile is damaged or cut short; it was left out."]
    with Image.open(io.BytesIO(b"".join(encoded.buffers))) as image:
        image.load()
        assert not image.info.get("icc_profile")
        srgb = image.getexif().get_ifd(0x8769).get(0xA001) == 1
    assert srgb or name in ("png", "tiff"), "EXIF says that the colours are sRGB"


@pytest.mark.parametrize("name", ["png", "jpeg", "avif", "tiff"])
def test_what_stands_behind_a_profile_is_left_out(options, picture, name):
    file = _file(picture(20, 30, 3), name, options(icc_profile=_b64(PROFILE + b"behind")))
    with Image.open(io.BytesIO(file)) as image:
        image.load()
        assert image.info["icc_profile"] == PROFILE


@pytest.mark.parametrize("size", [65_519, 65_520, 200_001])
def test_a_large_profile_in_a_jpeg(options, picture, size):
    profile = _longer(size)
    file = _file(picture(20, 30, 3), "jpeg", options(icc_profile=_b64(profile)))
    with Image.open(io.BytesIO(file)) as image:
        assert image.info["icc_profile"] == profile
    with pytest.raises(EncodeError, match="at most 16 MB"):
        _file(picture(2, 3, 3), "jpeg", options(icc_profile=_b64(_longer(17_000_000))))


@pytest.mark.parametrize("quality", [90, 100])
def test_avif_of_10_bits_keeps_texts_profile_and_alpha(options, task, quality):
    pytest.importorskip("imagecodecs", reason="AVIF of 10 bits needs imagecodecs")
    from luna_farm.testing import readers

    pixels = np.random.default_rng(0).integers(0, 65536, (40, 50, 4)).astype(np.uint16)
    job = options(icc_profile=_b64(PROFILE), lossy_quality=quality)
    file = _file(pixels, "avif", job, embed(job, task()))
    with Image.open(io.BytesIO(file)) as image:
        assert image.mode == "RGBA"
        assert image.info["icc_profile"] == PROFILE
        assert b"prompt:" in image.info["exif"]
    assert readers.avif_texts(file)["workflow"] == json.loads(job.extra_pnginfo)["workflow"]


@pytest.mark.parametrize(
    ("given", "primaries", "transfer"), [("srgb", 1, 13), ("linear", 1, 8), ("hlg", 9, 18), ("pq", 9, 16)]
)
@pytest.mark.parametrize("name", ["png", "avif", "heic"])
def test_code_points(options, picture, name, given, primaries, transfer):
    if name == "avif" and given != "srgb":
        pytest.importorskip("imagecodecs", reason="HLG and PQ in AVIF need imagecodecs")
    file = _file(picture(20, 30, 3), name, options(colorspace=given))
    if name != "png":
        at = file.index(b"colrnclx") + 8
        assert list(file[at : at + 4]) == [0, primaries, 0, transfer]
    elif given == "srgb":
        assert b"sRGB\0" in file
        assert b"cICP" not in file
    else:
        at = file.index(b"cICP") + 4
        assert list(file[at : at + 4]) == [primaries, transfer, 0, 1]
        assert b"sRGB" not in file


def test_another_reader_sees_the_code_points(options, picture, tmp_path):
    said = _exiftool(tmp_path, _file(picture(8, 9, 3), "png", options(colorspace="pq")), "png")
    assert (said["PNG-cICP:ColorPrimaries"], said["PNG-cICP:TransferCharacteristics"]) == (9, 16)
    said = _exiftool(tmp_path, _file(picture(8, 9, 3), "png", options()), "png")
    assert said["PNG:SRGBRendering"] == 0


@pytest.mark.parametrize("name", ["jpeg", "webp", "tiff", "jxl"])
def test_a_format_that_cannot_say_it_is_reported(options, picture, name):
    if name in MODULES:
        pytest.importorskip(MODULES[name], reason=f"{name} needs this optional package")
    encoded = encode(picture(8, 9, 3), name, options(colorspace="hlg"), NOTHING)
    assert "cannot say that its values are hlg" in encoded.warnings[-1]
    assert encode(picture(8, 9, 3), name, options(), NOTHING).warnings == []


@pytest.mark.parametrize("name", ["jxl", "exr"])
def test_a_profile_without_a_place_is_reported(options, picture, name):
    pytest.importorskip(MODULES[name], reason=f"{name} needs this optional package")
    encoded = encode(picture(8, 9, 3), name, options(icc_profile=_b64(PROFILE), colorspace="pq"), NOTHING)
    assert "no place here for an ICC profile" in encoded.warnings[0]
    assert ["cannot say that its values are pq" in told for told in encoded.warnings[1:]] == [True] * (
        name == "jxl"
    )


def test_exr_says_what_its_values_are(options, task, picture):
    exr = pytest.importorskip("OpenEXR", reason="EXR needs OpenEXR")
    job = options(bit_depth="float")
    pixels = np.array([[[-0.5, 0.5, 7.0, 0.25]]], np.float32)
    header = exr.File(io.BytesIO(_file(pixels, "exr", job, embed(job, task())))).header()
    assert header["chromaticities"] == pytest.approx((0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329))
    assert header["colorInteropID"] == "srgb_rec709_scene"
    assert json.loads(header["workflow"]) == json.loads(job.extra_pnginfo)["workflow"]
    assert header["parameters"].startswith("a café at night")
    linear = options(bit_depth="float", exr_linear=True)
    file = exr.File(io.BytesIO(_file(pixels, "exr", linear)))
    assert file.header()["colorInteropID"] == "lin_rec709_scene"
    light = [-(((0.5 + 0.055) / 1.055) ** 2.4), ((0.5 + 0.055) / 1.055) ** 2.4, ((7 + 0.055) / 1.055) ** 2.4]
    expected = [*(value * 0.25 for value in light), 0.25]
    assert file.channels()["RGBA"].pixels[0, 0].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("compression", ["zip", "dwaa", "none"])
def test_exr_compressions(options, picture, compression):
    exr = pytest.importorskip("OpenEXR", reason="EXR needs OpenEXR")
    pixels = (picture(64, 64, 3) / 255).astype(np.float16)
    file = _file(pixels, "exr", options(bit_depth="half", exr_compression=compression))
    read = exr.File(io.BytesIO(file)).channels()["RGB"].pixels
    off = np.abs(read.astype(float) - pixels.astype(float)).max()
    assert off == 0 if compression != "dwaa" else 0 < off < 0.1


def test_names_that_exr_itself_uses_are_set_apart(options, task):
    exr = pytest.importorskip("OpenEXR", reason="EXR needs OpenEXR")
    job = options(extra_pnginfo=json.dumps({"type": "mine", "channels": [1]}), bit_depth="half")
    header = exr.File(
        io.BytesIO(_file(np.zeros((2, 2, 3), np.uint8), "exr", job, embed(job, task())))
    ).header()
    assert (header["_type"], header["_channels"]) == ('"mine"', "[1]")


def test_the_curves():
    assert colour.to_linear(np.float32([0, 0.02, 0.5, 1, -0.5]), "srgb") == pytest.approx(
        [0, 0.02 / 12.92, 0.214041, 1, -0.214041], rel=1e-4
    )
    assert colour.to_linear(np.float32([0, 0.5, 1, 2]), "hlg") == pytest.approx([0, 1 / 12, 1, 1], abs=1e-6)
    # ITU-R BT.2100: PQ 0.508 is 100 cd/m2, 0.58 is 203 cd/m2 (BT.2408), 1.0 is 10,000.
    assert colour.to_linear(np.float32([0, 0.5081, 0.5807, 1]), "pq") == pytest.approx(
        [0, 1, 2.03, 100], rel=5e-3, abs=1e-6
    )
    values = np.linspace(-2, 5, 1001, dtype=np.float32)
    assert colour.from_linear(colour.to_linear(values, "srgb")) == pytest.approx(values, abs=2e-6)


@pytest.mark.parametrize("text", ["white", "#fff", "#12345g", "123456", ""])
def test_other_backgrounds_are_refused(text):
    with pytest.raises(InvalidRequest, match=r"background: .*#rrggbb"):
        colour.background(text)


@pytest.mark.parametrize("cut", [0, 5, 30, 60, 100, 150])
def test_a_broken_avif_is_refused_not_misread(options, picture, cut):
    pytest.importorskip("imagecodecs", reason="exact AVIF needs imagecodecs")
    file = _file(picture(8, 9, 3), "avif", options(lossy_quality=100))
    with pytest.raises(EncodeError):
        isobmff.with_items(file[:cut] + b"\xff" * 40 + file[cut + 40 :], exif=b"MM")
