"""The doctor's judgement of the encoders that are installed."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from luna_farm.cli import checks_encoders as checks
from luna_farm.cli.checks_encoders import Encoders
from luna_farm.cli.findings import EXTRA, FINE, NOTE, PROBLEM

VERSIONS = {
    "zlib-ng": "1",
    "isal": "2",
    "deflate": "3",
    "pillow": "13.0.0",
    "simplejpeg": "1.9",
    "imagecodecs": "2026",
    "openexr": "3.5",
    "pillow-heif": "1.8",
    "c2pa-python": "0.38",
}
ALL = Encoders(png="kernel", versions=VERSIONS, zlib="1.2.13", webp=True, avif=True, jxl=True)


def test_everything_there_is_fine_and_says_by_what() -> None:
    findings = checks.encoders(ALL)
    assert {finding.level for finding in findings} == {FINE}
    assert [finding.check for finding in findings] == [
        *("PNG", "JPEG", "WebP", "AVIF", "JPEG XL", "OpenEXR", "HEIC", "C2PA", "Pillow"),
    ]
    assert findings[-1].text == "Pillow 13.0.0 runs on zlib 1.2.13."


@pytest.mark.parametrize(
    ("changes", "check", "level", "words"),
    [
        ({"png": "library"}, "PNG", NOTE, "numpy and zlib-ng 1, isal 2, deflate 3 write it"),
        ({"png": "library", "versions": {"isal": "2"}}, "PNG", NOTE, "-m pip install zlib-ng deflate`"),
        ({"png": "library"}, "PNG", NOTE, "--force-reinstall --no-cache-dir --no-deps luna-farm`"),
        ({"png": "library", "versions": {}}, "PNG", NOTE, "the zlib of Python"),
        ({"versions": {**VERSIONS, "simplejpeg": ""}}, "JPEG", FINE, "Pillow 13.0.0 writes it"),
        ({"webp": False}, "WebP", PROBLEM, "cannot write it"),
        ({"avif": False}, "AVIF", NOTE, "11.3"),
        ({"jxl": False}, "JPEG XL", EXTRA, "luna-farm[formats]"),
        ({"versions": {**VERSIONS, "openexr": ""}}, "OpenEXR", EXTRA, "luna-farm[exr]"),
        ({"versions": {**VERSIONS, "pillow-heif": ""}}, "HEIC", EXTRA, "luna-farm[heic]"),
        ({"versions": {**VERSIONS, "c2pa-python": ""}}, "C2PA", EXTRA, "luna-farm[c2pa]"),
    ],
)
def test_what_is_missing_is_said_with_the_command_that_brings_it(
    changes: dict[str, object], check: str, level: str, words: str
) -> None:
    findings = {finding.check: finding for finding in checks.encoders(replace(ALL, **changes))}  # type: ignore[arg-type]
    assert findings[check].level == level
    assert words in f"{findings[check].text} {findings[check].advice}"
    assert findings[check].advice


def test_this_installation_can_be_looked_at() -> None:
    found = checks.look()
    assert found.versions["pillow"]
    assert found.png in ("kernel", "library")
    assert checks.encoders(found)


def test_a_library_that_cannot_be_loaded_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    load = importlib.import_module

    def refuse(name: str) -> object:
        if name == "isal":
            raise ImportError("libisal.so.2: cannot open shared object file")
        return load(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    assert checks.look().versions["isal"] == ""


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, "luna-farm"),
        ({"url": "file:///tmp/a%20b", "dir_info": {}}, '"/tmp/a b"'),
        ({"url": "file:///tmp/luna_farm.whl", "archive_info": {}}, "luna-farm"),
        (
            {"url": "https://example.org/luna-farm", "vcs_info": {"vcs": "git"}},
            '"luna-farm @ git+https://example.org/luna-farm"',
        ),
    ],
)
def test_the_advice_installs_from_where_it_came(
    origin: object, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    note = None if origin is None else json.dumps(origin)
    installed = SimpleNamespace(read_text=lambda name: note)
    monkeypatch.setattr(checks, "__file__", str(tmp_path / "luna_farm" / "cli" / "checks_encoders.py"))
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: installed)
    assert checks._source() == expected


def test_a_checkout_is_installed_from_itself() -> None:
    root = Path(checks.__file__).parents[2]
    assert checks._source() == (f'"{root}"' if (root / "setup.py").is_file() else "luna-farm")


def test_without_metadata_the_index_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(checks, "__file__", str(tmp_path / "luna_farm" / "cli" / "checks_encoders.py"))
    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert checks._source() == "luna-farm"
