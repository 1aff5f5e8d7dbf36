"""Disks that are unmounted while a folder on them is in use."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from luna_farm.errors import DiskError
from luna_farm.storage import mounts

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: Windows has drives instead")


def test_the_mount_point_is_found_also_for_folders_that_are_not_there_yet(mounted: set[str]) -> None:
    assert mounts.mount_of("/mnt/disk/out/of/many") == "/mnt/disk"
    assert mounts.mount_of("/mnt/disk") == "/mnt/disk"
    assert mounts.mount_of("/mnt/disk2") == "", "the disk of the system is always there"
    mounted.add("/mnt/disk/out")
    assert mounts.mount_of("/mnt/disk/out/of/many") == "/mnt/disk/out", "the nearest one counts"


def test_a_folder_that_is_not_there_lies_where_the_one_above_it_does(tmp_path: Path) -> None:
    assert mounts.mount_of(str(tmp_path / "not" / "there")) == mounts.mount_of(str(tmp_path))
    assert not mounts.is_there(str(tmp_path / "not" / "there"))


def test_a_disk_that_is_gone_is_a_disk_error(mounted: set[str]) -> None:
    mounts.require("/mnt/disk", "/mnt/disk/a.png")
    mounts.require("", "/out/a.png")
    mounted.remove("/mnt/disk")
    with pytest.raises(
        DiskError, match=r"Cannot write /mnt/disk/a\.png: no disk is mounted at /mnt/disk"
    ) as caught:
        mounts.require("/mnt/disk", "/mnt/disk/a.png")
    assert caught.value.errno == errno.ENODEV
