"""Formats whose library is missing."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from luna_farm.core.formats import FORMATS
from luna_farm.core.instructions import ReserveNames
from luna_farm.core.needs import Need
from luna_farm.errors import InvalidRequest
from luna_farm.supervisor import formats
from luna_farm.supervisor.folders import Folders
from luna_farm.supervisor.formats import missing_formats


def test_a_missing_library_is_found_without_loading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> object:
        if name == "OpenEXR":
            raise ValueError("OpenEXR.__spec__ is None")
        return None if name == "imagecodecs" else object()

    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert missing_formats() == {name: FORMATS[name].install for name in ("jxl", "exr")}


def need(*any_of: str) -> Need:
    return Need(any_of, "format", "avif", "AVIF", 'pip install "luna-farm[formats]"')


def test_one_of_several_packages_is_enough_and_a_version_may_be_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(formats, "_found", set())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"pillow": "11.3.0"}[name])
    formats.check([need("imagecodecs", "pillow>=11.3")])
    monkeypatch.setattr(importlib.metadata, "version", lambda name: pytest.fail("looked for again"))
    formats.check([need("imagecodecs", "pillow>=11.3")])


@pytest.mark.parametrize("version", ["10.4.0", "11.2", "odd", None])
def test_what_is_missing_is_named_with_what_to_install_until_it_is_there(
    version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def installed(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(formats, "_found", set())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(importlib.metadata, "version", installed)
    with pytest.raises(InvalidRequest) as refused:
        formats.check([need("imagecodecs", "pillow>=11.3")])
    assert refused.value.field == "format"
    assert str(refused.value).startswith("format: AVIF needs the Python package imagecodecs or pillow>=11.3")
    assert 'install it there with: pip install "luna-farm[formats]"' in str(refused.value)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    formats.check([need("imagecodecs", "pillow>=11.3")])


@pytest.mark.parametrize(
    "fields", [{}, {"archive": "a"}, {"output_dir": "s3://bucket/a"}, {"mirrors": ("/nowhere",)}]
)
async def test_no_name_is_reserved_for_what_cannot_be_written(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(formats, "_found", set())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    answers: list[Any] = []
    taken: set[str] = set()
    wanted = ReserveNames("job-0001", **{"output_dir": str(tmp_path), "relatives": ("a.avif",), **fields})
    Folders(taken, answers.append).reserve(replace(wanted, needs=(need("imagecodecs"),)))
    while not answers:
        await asyncio.sleep(0)
    assert isinstance(answers[0].error, InvalidRequest)
    assert (answers[0].error.field, taken) == ("format", set())
