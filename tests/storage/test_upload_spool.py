"""Encoded files that wait for their destination: whole or not there, and each says where it goes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luna_farm.errors import DiskError
from luna_farm.storage.upload_spool import Spooled, Target, UploadSpool, body_of, read

TARGETS = (Target("s3://bucket/prefix", "day/a.png"), Target("/mnt/nas", "day/a.png"))
BUFFERS = (b"head", bytearray(b"middle"), memoryview(b"end" * 5000))
BODY = b"".join(map(bytes, BUFFERS))


def write(spool: UploadSpool) -> Spooled:
    return spool.write("a1b2c3d4", 7, BUFFERS, TARGETS, content_type="image/png")


def test_a_file_carries_all_that_its_upload_needs(tmp_path: Path) -> None:
    spool = UploadSpool(tmp_path / "uploads")
    written = write(spool)
    again = UploadSpool(tmp_path / "uploads")
    assert again.paths() == [written.path]
    found = read(written.path)
    assert found == written
    assert found.targets == TARGETS
    assert (found.job_id, found.index, found.upload.content_type) == ("a1b2c3d4", 7, "image/png")
    with body_of(found) as body:
        assert bytes(body) == BODY
    assert os.stat(written.path).st_mode & 0o077 == 0
    assert again.remove(written.path)
    assert again.paths() == []


def test_other_files_are_never_removed(tmp_path: Path) -> None:
    other = tmp_path / "other.upload"
    other.write_bytes(b"x")
    assert not UploadSpool(tmp_path / "uploads").remove(str(other))
    assert other.exists()


@given(st.data())
def test_a_damaged_file_is_never_taken_for_a_whole_one(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    spool = UploadSpool(tmp_path_factory.mktemp("spool"))
    written = write(spool)
    whole = Path(written.path).read_bytes()
    start = len(BODY)  # the body is judged by its checksum, when the destination confirms it
    if data.draw(st.booleans()):
        Path(written.path).write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    else:
        at = data.draw(st.integers(start, len(whole) - 1))
        Path(written.path).write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
    with pytest.raises(DiskError):
        read(written.path)


@pytest.mark.parametrize("point", ["upload.half_spooled", "upload.spooled"])
def test_a_writer_that_dies_leaves_nothing_that_counts(tmp_path: Path, point: str) -> None:
    code = f"""
from luna_farm.storage.upload_spool import Target, UploadSpool
spool = UploadSpool({str(tmp_path)!r})
spool.write("a1b2c3d4", 7, [b"x" * 100000], [Target("s3://b", "k")], content_type="image/png")
"""
    environ = {**os.environ, "LUNA_FARM_CRASH": point}
    ended = subprocess.run([sys.executable, "-c", code], env=environ, check=False)
    assert ended.returncode != 0
    spool = UploadSpool(tmp_path)
    assert spool.paths() == []
    assert os.listdir(tmp_path) != []
    spool.sweep()
    assert os.listdir(tmp_path) == []
