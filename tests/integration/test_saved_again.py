"""`luna-farm save` through a real farm: what a file says is in the new one, as other programs read it."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from farm_process import FarmProcess
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin

from luna_farm.cli import entry

PROMPT = {
    "3": {
        "class_type": "KSampler",
        "inputs": {"seed": 5, "steps": 20, "model": ["4", 0], "latent_image": ["5", 0]},
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "SDXL/base.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {}},
}
WORKFLOW = {"nodes": [{"id": 3, "properties": {"Node name for S&R": "KSampler"}}]}
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:creator><rdf:Seq>'
    "<rdf:li>Ann</rdf:li></rdf:Seq></dc:creator></rdf:Description></rdf:RDF></x:xmpmeta>"
)
LIBRARIES = {"jxl": "imagecodecs", "heic": "pillow_heif", "exr": "OpenEXR", "avif": "PIL"}
FORMATS = ("png", "jpeg", "webp", "avif", "tiff", "jxl", "heic", "exr")


def noise(*shape: int, most: int = 255) -> NDArray[Any]:
    values = np.random.default_rng(0).integers(0, most + 1, shape)
    return values.astype(np.uint8 if most == 255 else np.uint16)


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG that says everything a file can say."""
    path = tmp_path_factory.mktemp("rich") / "rich.png"
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", json.dumps(PROMPT))
    info.add_text("workflow", json.dumps(WORKFLOW))
    info.add_text("parameters", "a cat\nSteps: 20, Seed: 5, Model: base")
    info.add_text("Software", "GIMP")
    info.add_text("model_name", "UnknownModel")
    info.add_itxt("Comment", "猫 nice")
    info.add_itxt("XML:com.adobe.xmp", XMP)
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x013B], exif[0x8298] = "HP", "EOS", "Ann", "(c) Ann"
    exif[0x0112] = 1
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    exif.get_ifd(0x8769)[0xA434] = "Lens 50mm"
    exif.get_ifd(0x8769)[0x927C] = b"maker"
    exif.get_ifd(0x8825).update({1: "N", 2: (50.0, 5.0, 7.5), 3: "E", 4: (8.0, 1.0, 2.0)})
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray(noise(24, 36, 3))
    image.save(path, pnginfo=info, icc_profile=icc, dpi=(300, 300), exif=exif)
    return path


@pytest.fixture
def save(shared_farm: FarmProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Any:
    """Run the command against the farm; returns the new files and what it printed to stderr."""
    monkeypatch.setenv("LUNA_FARM_STATE_DIR", str(shared_farm.state))
    monkeypatch.setenv("LUNA_FARM_PORT", str(shared_farm.port))

    def run(*arguments: Any) -> tuple[list[Path], str]:
        capsys.readouterr()
        entry.main(["save", *map(str, arguments), "--output-dir", str(tmp_path / "out"), "--json"])
        out, err = capsys.readouterr()
        return [Path(image["path"]) for job in json.loads(out) for image in job["images"]], err

    return run


def exiftool(path: Path, *options: str) -> dict[str, Any]:
    if shutil.which("exiftool") is None:
        pytest.skip("needs exiftool (Debian: libimage-exiftool-perl)")
    command = ["exiftool", "-json", "-charset", "utf8", *options, str(path)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found


def needs(name: str) -> None:
    if name in LIBRARIES:
        pytest.importorskip(LIBRARIES[name], reason=f"no encoder for {name} here")


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_keeps_what_it_has_a_place_for(save: Any, rich: Path, name: str) -> None:
    needs(name)
    tokens = "%model_name%_%seed%_%KSampler.steps%"
    (path,), _ = save(rich, "--format", name, "--filename", tokens)
    assert path.stem == "base_5_20"
    data = path.read_bytes()
    assert b"UnknownModel" not in data
    found = exiftool(path)
    for text in ("a cat\nSteps: 20, Seed: 5", "CheckpointLoaderSimple", "Node name for S&R"):
        assert text in " ".join(map(str, found.values())).replace("\\n", "\n").replace("\\u0026", "&"), text
    if name == "exr":
        assert found["Software"] == "GIMP"
        assert 299.9 < float(found["XResolution"]) < 300.1
        return
    kept = {"Artist": "Ann", "Copyright": "(c) Ann", "Make": "HP", "Model": "EOS", "LensModel": "Lens 50mm"}
    assert {key: found.get(key) for key in kept} == kept
    assert found["DateTimeOriginal"] == "2020:01:02 03:04:05"
    assert found["GPSPosition"].startswith("50 deg 5' 7.50\" N")
    assert found["Creator"] == "Ann"
    assert "Orientation" not in found
    assert "MakerNotes" not in found
    assert ("ProfileDescription" in found) == (name != "jxl")
    if name == "png":
        assert (found["PixelsPerUnitX"], found["Comment"], found["Software"]) == (11811, "猫 nice", "GIMP")
        assert exiftool(path, "-validate")["Validate"] == "OK"
    else:
        assert 299.9 < float(found["XResolution"]) < 300.1


@pytest.mark.parametrize(
    "names", [("webp", "png"), ("jpeg", "tiff", "png"), ("avif", "jpeg"), ("jxl", "png")]
)
def test_texts_survive_from_format_to_format(save: Any, rich: Path, names: tuple[str, ...]) -> None:
    path = rich
    for name in names:
        needs(name)
        (path,), _ = save(path, "--format", name)
    found = exiftool(path, "-a")
    assert (found["Make"], found["Artist"], found["Creator"]) == ("HP", "Ann", "Ann")
    if path.suffix == ".png":
        with Image.open(path) as image:
            texts = image.text  # type: ignore[attr-defined]
        assert json.loads(texts["prompt"]) == PROMPT
        assert json.loads(texts["workflow"]) == WORKFLOW
        assert texts["parameters"] == "a cat\nSteps: 20, Seed: 5, Model: base"
        assert texts["Comment"] == "猫 nice"
    else:
        assert found["UserComment"].startswith("a cat\nSteps: 20")


def test_marks_join_the_xmp_of_the_source(save: Any, rich: Path) -> None:
    (path,), _ = save(rich, "--provenance", "xmp")
    found = exiftool(path)
    assert found["Creator"] == "Ann"
    assert found["DigitalSourceType"].endswith("trainedAlgorithmicMedia")


def test_embed_none_writes_none_of_it_but_colour_and_size(save: Any, rich: Path) -> None:
    (path,), _ = save(rich, "--embed", "none")
    found = exiftool(path)
    assert not {"Artist", "GPSPosition", "Creator", "Prompt", "Comment", "Parameters"} & found.keys()
    assert found["PixelsPerUnitX"] == 11811
    assert "ProfileDescription" in found


def test_frames_become_a_batch_and_a_moving_image_where_it_is_asked_for(save: Any, tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(20, 30, 3) + np.uint8(9 * n)) for n in range(11)]
    moving = {"save_all": True, "append_images": frames[1:]}
    frames[0].save(tmp_path / "m.webp", duration=50, loop=3, lossless=True, **moving)
    frames[0].save(tmp_path / "m.png", duration=40, loop=2, **moving)
    frames[0].save(tmp_path / "m.gif", duration=100, loop=0, **moving)
    frames[0].save(tmp_path / "m.tif", **moving)
    for name, ms, loop in (("m.webp", 50, 3), ("m.png", 40, 2), ("m.gif", 100, 0), ("m.tif", 0, 0)):
        paths, _ = save(tmp_path / name, "--affix", name[2:])
        assert [path.name for path in paths] == [f"m_{name[2:]}_{n:02d}.png" for n in range(11)]
        for path, frame in zip(paths, frames, strict=True):
            with Image.open(path) as image:
                assert name == "m.gif" or np.array_equal(np.asarray(image), np.asarray(frame))
        (path, *others), _ = save(tmp_path / name, "--animation", "--format", "png", "--affix", "moving")
        with Image.open(path) as image:
            shown = (getattr(image, "n_frames", 1), image.info.get("duration", 0), image.info.get("loop", 0))
        assert shown == ((11, ms, loop) if ms else (1, 0, 0))
        assert len(others) == (0 if ms else 10)


@pytest.mark.parametrize("target", ["webp", "png", "avif"])
@pytest.mark.parametrize("source", ["gif", "png", "webp"])
def test_each_frame_lasts_as_long_as_before(save: Any, tmp_path: Path, source: str, target: str) -> None:
    frames = [Image.fromarray(noise(20, 30, 3) + np.uint8(9 * n)) for n in range(4)]
    lasts = [40, 500, 100, 60]
    path = tmp_path / f"m.{source}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=lasts, loop=0)
    (made,), _ = save(path, "--animation", "--format", target)
    with Image.open(made) as image:
        found = []
        for index in range(4):
            image.seek(index)
            image.load()
            found.append(image.info["duration"])
    assert found == lasts


def test_pages_that_differ_are_numbered_as_a_batch_is(save: Any, tmp_path: Path) -> None:
    first, second = Image.fromarray(noise(20, 30, 3)), Image.fromarray(noise(8, 10, 3)).convert("L")
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    paths, _ = save(tmp_path / "pages.tif")
    assert [path.name for path in paths] == ["pages_0.png", "pages_1.png"]
    sizes = []
    for path in paths:
        with Image.open(path) as image:
            sizes.append((image.mode, image.size))
    assert sizes == [("RGB", (30, 20)), ("L", (10, 8))]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_stay_16_bits(save: Any, tmp_path: Path, channels: int) -> None:
    imagecodecs = pytest.importorskip("imagecodecs", reason="needs imagecodecs")
    pixels = noise(20, 30, channels, most=65_535)
    pixels = pixels[:, :, 0] if channels == 1 else pixels
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(pixels))
    (png,), _ = save(tmp_path / "deep.png")
    assert np.array_equal(imagecodecs.png_decode(png.read_bytes()), pixels)
    (tiff,), _ = save(png, "--format", "tiff")
    (back,), _ = save(tiff, "--affix", "back")
    assert np.array_equal(imagecodecs.png_decode(back.read_bytes()), pixels)


def test_what_this_farm_writes_can_be_saved_again(save: Any, tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs", reason="needs imagecodecs")
    pytest.importorskip("OpenEXR", reason="needs OpenEXR")
    floats = np.random.default_rng(0).normal(0.5, 1, (12, 16, 3)).astype(np.float32)
    np.save(tmp_path / "f.npy", floats)
    (exr,), _ = save(tmp_path / "f.npy", "--format", "exr", "--bit-depth", "float")
    (tiff,), _ = save(exr, "--format", "tiff", "--bit-depth", "float")
    assert np.array_equal(imagecodecs.tiff_decode(tiff.read_bytes()), floats)
    (exr,), _ = save(tiff, "--format", "exr", "--bit-depth", "float", "--affix", "again")
    (jxl,), _ = save(exr, "--format", "jxl", "--bit-depth", "16", "--lossy-quality", "100")
    (png,), _ = save(jxl, "--affix", "last")
    assert np.array_equal(
        imagecodecs.png_decode(png.read_bytes()), imagecodecs.jpegxl_decode(jxl.read_bytes())
    )


def test_other_colours_are_converted_by_their_profile(save: Any, tmp_path: Path) -> None:
    """Where the target has no place for a profile, the pixels are converted."""
    needs("jxl")
    import imagecodecs

    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    Image.new("LAB", (8, 8), (128, 200, 128)).save(tmp_path / "lab.tif")
    (path,), _ = save(tmp_path / "lab.tif")
    with Image.open(path) as image:
        red, green, _ = image.getpixel((0, 0))  # type: ignore[misc]
    assert red > green + 60
    Image.new("RGB", (8, 8), (200, 30, 60)).save(tmp_path / "p.png", icc_profile=swapped.tobytes())
    (path,), err = save(tmp_path / "p.png", "--format", "jxl", "--lossy-quality", "100")
    assert err == ""
    assert np.abs(imagecodecs.jpegxl_decode(path.read_bytes())[0, 0] - np.array([200, 30, 60])).max() <= 2


def test_warnings_are_shown_by_the_command(shared_farm: FarmProcess, tmp_path: Path) -> None:
    Image.fromarray(noise(8, 8, 4)).save(tmp_path / "a.png")
    command = [sys.executable, "-m", "luna_farm", "save", str(tmp_path / "a.png"), "--format", "jpeg"]
    where = ["--output-dir", str(tmp_path / "out"), "--filename", "%nothing%"]
    environ = {"LUNA_FARM_STATE_DIR": str(shared_farm.state), "LUNA_FARM_PORT": str(shared_farm.port)}
    import os

    done = subprocess.run(
        [*command, *where], capture_output=True, text=True, check=True, env=os.environ | environ, timeout=60
    )
    assert "Warning: %nothing% is not a known token" in done.stderr
    assert "JPEG holds no transparency" in done.stderr


def test_a_profile_that_does_not_fit_the_pixels_is_left_out(save: Any, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 7).save(buffer, "PNG", icc_profile=profile)
    (tmp_path / "gray.png").write_bytes(buffer.getvalue())
    (path,), _ = save(tmp_path / "gray.png")
    with Image.open(path) as image:
        assert (image.mode, image.info.get("icc_profile")) == ("L", None)


def test_linear_light_of_another_program_is_shown_as_it_looks(save: Any, tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR", reason="OpenEXR is read by its own package")
    light = np.full((8, 8, 4), 0.2140411, np.float32)  # sRGB's 0.5
    light[..., 3] = 1
    light[:4] *= 0.5  # half transparent, multiplied in
    with exr.File({"type": exr.scanlineimage}, {"RGBA": light}) as file:
        file.write(str(tmp_path / "l.exr"))
    (path,), _ = save(tmp_path / "l.exr")
    with Image.open(path) as image:
        seen = np.asarray(image)
    assert np.abs(seen[..., :3].astype(int) - 127).max() <= 1
    assert np.abs(seen[:4, :, 3].astype(int) - 127).max() <= 1
    (path,), _ = save(tmp_path / "l.exr", "--format", "exr", "--affix", "again")
    with exr.File(str(path)) as again:
        assert np.array_equal(again.channels()["RGBA"].pixels, light)
        assert again.header()["colorInteropID"] == "lin_rec709_scene"
    (path,), _ = save(path, "--affix", "back")
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), seen)


@pytest.mark.parametrize("colorspace", ["srgb", "linear", "pq", "hlg"])
@pytest.mark.parametrize("form", ["png", "avif"])
def test_what_the_values_mean_is_kept(save: Any, tmp_path: Path, form: str, colorspace: str) -> None:
    Image.fromarray(noise(20, 30, 3)).save(tmp_path / "a.png")
    first, _ = save(tmp_path / "a.png", "--colorspace", colorspace, "--format", form, "--affix", "1")
    (path,), _ = save(first[0], "--format", "png", "--affix", "2")
    codes = {"linear": bytes([1, 8, 0, 1]), "pq": bytes([9, 16, 0, 1]), "hlg": bytes([9, 18, 0, 1])}
    file = path.read_bytes()
    assert (b"cICP" + codes.get(colorspace, b"") in file) == (colorspace != "srgb")
