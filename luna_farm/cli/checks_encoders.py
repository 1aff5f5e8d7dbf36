"""Check of the encoders for `luna-farm doctor`: which formats this installation writes, and by what.

It judges facts that are handed to it; `look` gathers them. It must never fail because a library is
missing: that is what it is there to say.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from luna_farm.cli.findings import EXTRA, FINE, NOTE, PROBLEM, Finding

FAST_DEFLATE = ("zlib-ng", "isal", "deflate")
"""What the PNG encoder without compiled kernel compresses by; each missing one costs speed or size."""
_FORMATS = '`pip install "luna-farm[formats]"`.'


@dataclass(frozen=True, slots=True)
class Encoders:
    """What is installed. `png`: "kernel" or "library"; `versions`: distribution -> version, "" if it is
    missing or cannot be loaded; `zlib`: which one Pillow runs on; `webp`, `avif`, `jxl`: whether they can
    be written; `source`: what pip installs this luna-farm from."""

    png: str
    versions: dict[str, str]
    zlib: str
    webp: bool
    avif: bool
    jxl: bool
    source: str = "luna-farm"


def encoders(found: Encoders) -> list[Finding]:
    """Judge what is installed, one finding a format."""
    return [_png(found), _jpeg(found), *_others(found)]


def _png(found: Encoders) -> Finding:
    if found.png == "kernel":
        return Finding("PNG", FINE, "The compiled kernel writes it.")
    missing = [name for name in FAST_DEFLATE if not found.versions.get(name)]
    present = ", ".join(f"{name} {found.versions[name]}" for name in FAST_DEFLATE if found.versions.get(name))
    # Without --no-cache-dir pip takes the wheel without kernel that it built and kept the first time.
    advice = f"{_COMPILER} Then: `{_pip(f'--force-reinstall --no-cache-dir --no-deps {found.source}')}`."
    if missing:
        advice += f" Or, faster than nothing: `{_pip(' '.join(missing))}`."
    by = f"numpy and {present}" if present else "numpy and the zlib of Python"
    return Finding("PNG", NOTE, f"There is no compiled kernel: {by} write it, several times slower.", advice)


_COMPILER = {
    "win32": "Where there is no wheel, install the C++ build tools of Visual Studio first.",
    "darwin": "Where there is no wheel, install a C compiler first (`xcode-select --install`).",
}.get(
    sys.platform, "Where there is no wheel, install a C compiler first (`sudo apt install gcc python3-dev`)."
)


def _pip(arguments: str) -> str:
    """Return the command for the pip of this Python, to be typed as it is."""
    python = f'"{sys.executable}"' if " " in sys.executable else sys.executable
    return f"{python} -m pip install {arguments}"


def _jpeg(found: Encoders) -> Finding:
    if found.versions.get("simplejpeg"):
        return Finding("JPEG", FINE, f"simplejpeg {found.versions['simplejpeg']} writes it.")
    text = f"Pillow {found.versions.get('pillow')} writes it, one image at a time in each worker."
    return Finding("JPEG", FINE, text, f"A little faster: {_FORMATS}")


def _others(found: Encoders) -> list[Finding]:
    pillow = f"Pillow {found.versions.get('pillow', '')}"
    imagecodecs = f"imagecodecs {found.versions.get('imagecodecs', '')}"
    newer = "`pip install --upgrade pillow` (11.3 and later bring it)."
    return [
        _format("WebP", found.webp, pillow, Finding("WebP", PROBLEM, f"{pillow} cannot write it.", newer)),
        _format("AVIF", found.avif, pillow, Finding("AVIF", NOTE, f"{pillow} cannot write it.", newer)),
        _format(
            "JPEG XL",
            found.jxl,
            imagecodecs,
            Finding("JPEG XL", EXTRA, "Not installed; needed for JPEG XL only.", _FORMATS),
        ),
        *(_optional(found, *row) for row in _OPTIONAL),
        Finding("Pillow", FINE, f"{pillow} runs on zlib {found.zlib}."),
    ]


_OPTIONAL = (
    ("OpenEXR", "openexr", "exr"),
    ("HEIC", "pillow-heif", "heic"),
    ("C2PA", "c2pa-python", "c2pa"),
)
"""What few need: its name, the distribution, and the extra that brings it."""


def _optional(found: Encoders, name: str, distribution: str, extra: str) -> Finding:
    version = found.versions.get(distribution)
    if version:
        return Finding(name, FINE, f"{distribution} {version} writes it.")
    return Finding(
        name, EXTRA, f"Not installed; needed for {name} only.", f'`pip install "luna-farm[{extra}]"`.'
    )


def _format(name: str, present: bool, writer: str, otherwise: Finding) -> Finding:
    return Finding(name, FINE, f"{writer} writes it.") if present else otherwise


def look() -> Encoders:
    """Gather what is installed by loading it."""
    from PIL import features

    from luna_farm.imaging.encoders import png

    modules = {"zlib-ng": "zlib_ng", "isal": "isal", "deflate": "deflate", "simplejpeg": "simplejpeg"}
    versions = {name: _version(name, module) for name, module in modules.items()}
    optional = {"openexr": "OpenEXR", "pillow-heif": "pillow_heif", "c2pa-python": "c2pa"}
    versions |= {name: _version(name, module) for name, module in optional.items()}
    versions |= {"pillow": _version("pillow", "PIL"), "imagecodecs": _version("imagecodecs", "imagecodecs")}
    return Encoders(
        png=png.backend(),
        versions=versions,
        zlib=str(features.version("zlib") or "unknown"),
        webp=bool(features.check("webp")),
        avif="avif" in features.get_supported_modules(),
        jxl=bool(versions["imagecodecs"]) and _imagecodecs_has_jxl(),
        source=_source(),
    )


def _source() -> str:
    """Return what pip has to be given to install this luna-farm again: its name, or where it came from."""
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "setup.py").is_file():  # a clone, or an editable install
        return f'"{checkout}"'
    try:
        note = importlib.metadata.distribution("luna-farm").read_text("direct_url.json")
        origin = json.loads(note or "{}")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return "luna-farm"
    url = origin.get("url", "")
    if "vcs_info" in origin:
        return f'"luna-farm @ {origin["vcs_info"]["vcs"]}+{url}"'
    if url.startswith("file:") and "dir_info" in origin:
        return f'"{url2pathname(urlsplit(url).path)}"'
    return "luna-farm"


def _version(distribution: str, module: str) -> str:
    try:
        importlib.import_module(module)
        return importlib.metadata.version(distribution)
    except ImportError:  # PackageNotFoundError is one too
        return ""


def _imagecodecs_has_jxl() -> bool:
    return bool(importlib.import_module("imagecodecs").JPEGXL.available)
