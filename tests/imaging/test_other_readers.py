"""What other programs read in the files: exiftool, sd-parsers, Civitai's ExifReader, ComfyUI's frontends.

ExifReader (npm) is found by NODE_PATH. COMFYUI_FRONTENDS lists the folders `static` of unpacked wheels of
comfyui-frontend-package; the functions of their bundles run in node.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import frontend
import pytest

from luna_farm.core.formats import FORMATS
from luna_farm.imaging.encoders import encode
from luna_farm.imaging.metadata import embed

PARAMETERS = {
    "positive": "ein Kätzchen 猫 \U0001f600, 夜", "negative": "unscharf ✗", "steps": 20, "seed": 5,
    "sampler": "euler", "cfg": 7,
}  # fmt: skip
EXIF_FORMATS = ("jpeg", "webp", "avif", "jxl")


def _missing_encoder(name: str) -> bool:
    try:
        __import__({"jxl": "imagecodecs", "heic": "pillow_heif"}.get(name, "PIL"))
    except ImportError:
        return True
    if name == "avif":
        from PIL import features

        return not features.check("avif")
    return False


@pytest.fixture
def saved(options: Any, task: Any, picture: Any, tmp_path: Path) -> Any:
    """Save an image with everything that can be written and return its path."""

    def save(name: str, *, tall: int = 9, **changes: Any) -> Path:
        if _missing_encoder(name):
            pytest.skip(f"no encoder for {name} here")
        job = options(**{"metadata": json.dumps(PARAMETERS), **changes})
        path = tmp_path / f"a.{FORMATS[name].extension}"
        embedded = embed(job, task(format=name, width=16, height=tall))
        path.write_bytes(b"".join(encode(picture(tall, 16, 3), name, job, embedded).buffers))
        return path

    return save


def _exiftool(path: Path, *options: str) -> Any:
    if shutil.which("exiftool") is None:
        pytest.skip("needs exiftool (Debian: libimage-exiftool-perl)")
    command = ["exiftool", "-json", "-G1", "-charset", "utf8", *options, str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=False, timeout=60).stdout)[0]


MARKS = (
    {},
    {"provenance": "xmp", "aigc": '{"ProduceID": "1"}', "dpi": 300.0},
    {"embed": "none", "dpi": 72.0},
)


@pytest.mark.parametrize("marks", MARKS)
@pytest.mark.parametrize("name", [*EXIF_FORMATS, "heic", "png", "tiff"])
def test_exiftool_finds_no_fault(saved: Any, name: str, marks: dict[str, Any]) -> None:
    found = _exiftool(saved(name, **marks), "-validate", "-warning", "-a")
    if name == "tiff":  # exiftool knows the compressions of TIFF 6.0 only
        assert found["ExifTool:Warning"] == "Invalid value for IFD0 tag 0x0103 Compression"
        assert found["ExifTool:Validate"] == "1 Warning"
    else:
        assert found["ExifTool:Validate"] == "OK", found


@pytest.mark.parametrize("extras", [0, 1, 5, 40])
def test_exiftool_finds_no_fault_however_many_keys_there_are(saved: Any, extras: int) -> None:
    extra = {"workflow": {"nodes": []}, **{f"key{n}": n for n in range(extras)}}
    path = saved("jpeg", extra_pnginfo=json.dumps(extra))
    assert _exiftool(path, "-validate")["ExifTool:Validate"] == "OK"
    texts = " ".join(map(str, _exiftool(path, "-ifd0:all").values()))
    assert all(f"key{n}" in texts for n in range(extras))


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_exiftool_reads_the_parameters_in_the_comment(saved: Any, name: str) -> None:
    comment = _exiftool(saved(name), "-UserComment")["ExifIFD:UserComment"]
    assert comment.startswith(
        f"{PARAMETERS['positive']}\nNegative prompt: {PARAMETERS['negative']}\nSteps: 20"
    )


def test_exiftool_reads_the_parameters_of_a_png(saved: Any) -> None:
    assert _exiftool(saved("png"), "-Parameters")["PNG:Parameters"].startswith(f"{PARAMETERS['positive']}\n")


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_sd_parsers_reads_prompts_in_any_script(saved: Any, name: str) -> None:
    parsers = pytest.importorskip("sd_parsers", reason="needs sd-parsers")
    found = parsers.ParserManager().parse(saved(name, embed="parameters"))
    assert [prompt.value for prompt in found.prompts] == [PARAMETERS["positive"]]
    assert [prompt.value for prompt in found.negative_prompts] == [PARAMETERS["negative"]]
    assert found.samplers[0].parameters["steps"] == "20"


def _node(script: str, *arguments: str) -> Any:
    if shutil.which("node") is None:
        pytest.skip("needs node")
    done = subprocess.run(
        ["node", "-e", script, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    if "Cannot find module" in done.stderr:
        pytest.skip("needs exifreader (npm) on NODE_PATH")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


_EXIF_READER = """
const tags = require('exifreader').load(require('fs').readFileSync(process.argv[1]));
const raw = tags.UserComment ? Buffer.from(tags.UserComment.value.slice(8)) : Buffer.alloc(0);
const comment = raw.swap16().toString('utf16le');
console.log(JSON.stringify({png: tags.parameters ? tags.parameters.description : '', comment}));
"""


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_the_reader_of_civitai_finds_the_parameters(saved: Any, name: str) -> None:
    found = _node(_EXIF_READER, str(saved(name)))
    assert found["png" if name == "png" else "comment"].startswith(
        f"{PARAMETERS['positive']}\nNegative prompt: "
    )


FRONTENDS = [folder for folder in os.environ.get("COMFYUI_FRONTENDS", "").split(os.pathsep) if folder]


_READ = """
const bytes = require('fs').readFileSync(process.argv[1]);
const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
const read = {png: getFromPngBuffer, webp: getWebpMetadata, avif: getFromAvifFile}[process.argv[2]];
Promise.resolve(read(buffer)).then(found => console.log(JSON.stringify(found)));
"""


@pytest.mark.skipif(not FRONTENDS, reason="needs COMFYUI_FRONTENDS")
@pytest.mark.parametrize("static", FRONTENDS)
@pytest.mark.parametrize(("name", "tall"), [("png", 9), ("webp", 9), ("webp", 10), ("webp", 11), ("avif", 9)])
def test_the_frontends_find_prompt_and_workflow(
    saved: Any, options: Any, static: str, name: str, tall: int
) -> None:
    source = frontend.source(Path(static))
    found = _node(source + _READ, str(saved(name, tall=tall)), name)
    job = options()
    assert json.loads(found["prompt"]) == json.loads(job.prompt)
    assert json.loads(found["workflow"]) == json.loads(job.extra_pnginfo)["workflow"]
