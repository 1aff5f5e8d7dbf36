"""The folder that an image was saved to, without links."""

from __future__ import annotations

from pathlib import Path

from luna_farm.storage.saved_files import real_folder


def test_a_folder_that_becomes_a_link_is_looked_up_again(tmp_path: Path) -> None:
    folder, disk = tmp_path / "shots", tmp_path / "disk"
    folder.mkdir()
    disk.mkdir()
    assert real_folder(f"{folder}/a.png") == ""
    assert real_folder(f"{folder}/b.png") == ""
    folder.rmdir()
    folder.symlink_to(disk)
    assert real_folder(f"{folder}/c.png") == str(disk)
    folder.unlink()
    assert real_folder(f"{folder}/d.png") == "", "nothing is there"
