"""The doctor's judgement of disks and folders."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

import luna_farm
from luna_farm import system
from luna_farm.cli import checks_storage as checks
from luna_farm.cli.checks_storage import Place
from luna_farm.cli.findings import FINE, NOTE, PROBLEM
from luna_farm.errors import DiskError
from luna_farm.storage import writer
from luna_farm.storage.folder import Folder
from luna_farm.storage.ways import Way

GIB = 1 << 30
GOOD = Place(Path("/out"), True, "", 50 * GIB, 100 * GIB, 1_000_000, Way.UNNAMED, "ext4")


@pytest.mark.parametrize(
    ("changes", "levels", "words"),
    [
        ({}, [FINE], "/out (ext4): writable, 53.7 GB of 107 GB are free."),
        ({"exists": False, "kind": ""}, [FINE], "; it is made when it is needed."),
        ({"error": "Cannot write in /out: denied."}, [PROBLEM], "denied"),
        ({"free": 50 << 20}, [PROBLEM], "only 52.4 MB of 107 GB"),
        ({"free": 500 << 20}, [NOTE], "only 524 MB"),
        ({"inodes": 3}, [PROBLEM], "only 3 more files fit"),
        ({"inodes": None}, [FINE], "writable"),
        ({"way": Way.LINK}, [FINE], "free; files get their names by hard links."),
        ({"way": Way.RENAME, "exists": False}, [FINE], "by a rename that replaces nothing; it is made"),
        ({"way": Way.CLAIM, "kind": "fuseblk"}, [NOTE], "/out: fuseblk has no hard links and no rename"),
        ({"way": None}, [FINE], "writable"),
        ({"free": 0, "inodes": 0}, [PROBLEM, PROBLEM], "only 0 B"),
    ],
)
def test_folder(changes: dict[str, object], levels: list[str], words: str) -> None:
    findings = checks.folder("output dir", replace(GOOD, **changes))  # type: ignore[arg-type]
    assert [finding.level for finding in findings] == levels
    assert words in findings[0].text
    assert all(bool(finding.advice) is (finding.level != FINE) for finding in findings)


def test_a_folder_without_rights_names_the_option_to_change_it() -> None:
    (finding,) = checks.folder("state dir", replace(GOOD, error="no"))
    assert "--state-dir PATH" in finding.advice


@pytest.mark.parametrize(
    ("kind", "words"),
    [("ext4", ""), ("nfs4", "not dependable across a network"), ("tmpfs", "gone after a boot")],
)
def test_the_state_folder_wants_a_local_disk(kind: str, words: str) -> None:
    findings = checks.state_kind(replace(GOOD, kind=kind))
    assert [finding.level for finding in findings] == ([NOTE] if words else [])
    assert all(words in finding.text for finding in findings)


@pytest.mark.parametrize(
    ("owner", "mode", "token", "level"),
    [
        (7, 0o700, 0o600, FINE),
        (7, 0o700, None, FINE),
        (7, 0o755, 0o600, PROBLEM),
        (7, 0o700, 0o644, PROBLEM),
        (8, 0o700, 0o600, PROBLEM),
    ],
)
def test_permissions(owner: int, mode: int, token: int | None, level: str) -> None:
    assert checks.permissions(owner, mode, token, 7).level == level


def test_what_lies_there_is_reported_with_the_command_for_it(tmp_path: Path) -> None:
    assert checks.look_aside(tmp_path) == []
    (tmp_path / "dead").mkdir()
    for name in ("dead/a-0.json", "dead/a-0.npy", "dead/b-0.json", "journal.cut-1", "journal"):
        (tmp_path / name).touch()
    letters, tails = checks.look_aside(tmp_path)
    assert letters.text.startswith("Images that could not be saved: 2")
    assert "luna-farm retry ID" in letters.advice
    assert "damaged 1 times" in tails.text


def test_a_real_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    place = checks.look(tmp_path)
    assert (place.exists, place.error) == (True, "")
    assert 0 < place.free <= place.total
    assert place.kind
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_is_judged_by_its_parent_and_not_made(tmp_path: Path) -> None:
    place = checks.look(tmp_path / "a" / "b")
    assert (place.exists, place.error) == (False, "")
    assert os.listdir(tmp_path) == []


def test_a_folder_in_place_of_which_there_is_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "ENOTDIR" in checks.look(tmp_path / "file").error


@pytest.mark.parametrize("way", Way)
def test_how_files_get_their_names_is_found_out_by_trying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(writer, "_ways", {})
    for method in ("create_unnamed", "link", "rename")[:way]:
        monkeypatch.setattr(Folder, method, refuse)
    assert checks.look(tmp_path).way >= way
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_named_with_the_folder_and_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, *_: object, **__: object) -> None:
        raise system.disk_error("write", path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    monkeypatch.setattr(writer, "publish", full)
    (finding,) = checks.folder("output dir", checks.look(tmp_path))
    assert finding.text.startswith(f"Cannot write {tmp_path}: No space left on device")
    assert "Free some space" in finding.text
    assert finding.advice == "To use another folder: --output-dir PATH."


def test_a_file_system_that_does_not_answer_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> tuple[int, int]:
        raise DiskError("Stale file handle.")

    monkeypatch.setattr(system, "disk_bytes", fail)
    assert checks.look(tmp_path).error == "Stale file handle."


OTHER = """
import os, sys
from luna_farm.cli import checks_storage
import psutil, encodings.idna
from pathlib import Path
os.setuid(65534)
print(checks_storage.look(Path(sys.argv[1])).error)
"""


def test_another_user_is_told_that_it_may_not_write() -> None:
    if os.getuid() != 0:
        pytest.skip("NOT TESTED: becoming another user needs root")
    root = str(Path(luna_farm.__file__).parents[1])
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path: another user cannot even see that
        os.chmod(folder, 0o755)
        ended = subprocess.run(
            [sys.executable, "-c", OTHER, folder],
            env={**os.environ, "PYTHONPATH": root},
            capture_output=True,
            text=True,
            check=True,
        )
    assert "Permission denied (EACCES)" in ended.stdout


def test_permissions_of_a_real_folder(tmp_path: Path) -> None:
    assert checks.look_at_permissions(tmp_path / "none") is None
    tmp_path.chmod(0o700)
    found = checks.look_at_permissions(tmp_path)
    assert found is not None
    assert found.level == FINE
    (tmp_path / "token").touch(0o644)
    (tmp_path / "token").chmod(0o644)
    found = checks.look_at_permissions(tmp_path)
    assert found is not None
    assert (found.level, "token 644" in found.text) == (PROBLEM, True)
