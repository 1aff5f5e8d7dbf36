"""What a power cut leaves beside images goes; what another program writes stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from luna_farm import system
from luna_farm.storage import strays

LONG_AGO = 10**9


def old(path: Path) -> Path:
    path.write_bytes(b"half")
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def test_second_names_and_old_halves_go(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"whole")
    second = tmp_path / ".luna-a1b2-0.tmp"
    second.hardlink_to(image)
    half, beside = old(tmp_path / ".luna-c3d4-11.tmp"), old(tmp_path / ".luna-c3d4-11-json.tmp")
    assert sorted(strays.sweep(str(tmp_path), set())) == sorted(map(str, (second, half, beside)))
    assert image.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["a.png"]


def test_what_is_being_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".luna-new-0.tmp").write_bytes(b"being written by another farm")
    old(tmp_path / ".luna-open-0.tmp")
    old(tmp_path / "other.tmp")
    (tmp_path / ".luna-link-0.tmp").symlink_to(tmp_path / "nowhere")
    assert strays.sweep(str(tmp_path), {"open"}) == []
    monkeypatch.setattr(system, "on_local_disk", lambda path: False)
    old(tmp_path / ".luna-far-0.tmp")
    assert strays.sweep(str(tmp_path), {"open"}) == [], "on a network folder it may be of another machine"


def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert strays.sweep(str(tmp_path / "gone"), set()) == []
