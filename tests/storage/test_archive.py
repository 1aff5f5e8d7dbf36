"""Shards: what common programs read from them, and that a crash at any moment loses and doubles nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luna_farm import system
from luna_farm.errors import DiskError, InvalidRequest
from luna_farm.storage import archive, files
from luna_farm.storage.archive import KINDS, Shard

TEMP = ".luna-a1b2c3d4-shard.tmp"


def metadata(number: int) -> bytes:
    return json.dumps({"seed": number, "prompt": "ü" * number}).encode()


def body(number: int) -> bytes:
    return bytes([number % 251]) * (number * 700 % 3001)


def fill(shard: Shard, count: int, start: int = 0) -> list[str]:
    return [
        shard.add(f"day/a.{n}", [("png", [body(n)[:9], body(n)[9:]])], metadata(n))
        for n in range(start, start + count)
    ]


def contents(path: Path, kind: str) -> dict[str, bytes]:
    """Everything in an archive, by the standard library; a name that is there twice fails."""
    if kind == "zip":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            names = archive.namelist()
            assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
            found = {name: archive.read(name) for name in names}
    else:
        with tarfile.open(path) as archive_tar:
            names = archive_tar.getnames()
            found = {}
            for info in archive_tar:
                file = archive_tar.extractfile(info)
                assert file is not None
                found[info.name] = file.read()
    assert len(names) == len(found)
    return found


def expected(count: int) -> dict[str, bytes]:
    pairs = {f"day/a_{n}.png": body(n) for n in range(count)}
    return pairs | {f"day/a_{n}.json": metadata(n) for n in range(count)}


@pytest.mark.parametrize("kind", KINDS)
def test_common_programs_read_a_shard(tmp_path: Path, kind: str) -> None:
    shard = Shard(str(tmp_path), TEMP, kind)
    names = fill(shard, 12)
    assert names[3] == "day/a_3.png"
    final = Path(shard.publish(str(tmp_path / f"set.{kind}"), str(tmp_path)))
    assert contents(final, kind) == expected(12)
    assert os.listdir(tmp_path) == [f"set.{kind}"]
    program = ["unzip", "-tqq"] if kind == "zip" else ["tar", "-tf"]
    if shutil.which(program[0]) is None:
        pytest.skip(f"NOT TESTED: needs the program {program[0]}")
    subprocess.run([*program, str(final)], check=True, capture_output=True)


def test_webdataset_reads_pairs(tmp_path: Path) -> None:
    pytest.importorskip("webdataset", reason="NOT TESTED: needs the package webdataset")
    shard = Shard(str(tmp_path), TEMP, "tar")
    fill(shard, 5)
    final = shard.publish(str(tmp_path / "set.tar"), str(tmp_path))
    code = f"""
import json, warnings
warnings.simplefilter("ignore")
import webdataset
found = list(webdataset.WebDataset({final!r}, shardshuffle=False, empty_check=False))
print(json.dumps([[s["__key__"], len(s["png"]), json.loads(s["json"])["seed"]] for s in found]))
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(ran.stdout) == [[f"day/a_{n}", len(body(n)), n] for n in range(5)]


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_every_kind(tmp_path: Path, kind: str) -> None:
    shard = Shard(str(tmp_path), TEMP, kind)
    long = "x" * 180 + "/" + "ü" * 100
    assert shard.add("same", [("png", [b"1"])], b"{}") == "same.png"
    assert shard.add("same", [("png", [b"2"])], b"{}") == "same_00001.png"
    assert shard.add("same", [("webp", [b"3"])], b"{}") == "same_00002.webp"
    assert shard.add(long, [("png", [b"4"])], b"{}") == f"{long}.png"
    shard.sync()
    shard.close()
    again = Shard(str(tmp_path), TEMP, kind)
    assert again.members == 4
    assert again.holds("same_00002")
    final = Path(again.publish(str(tmp_path / f"set.{kind}"), str(tmp_path)))
    assert contents(final, kind)[f"{long}.png"] == b"4"


@pytest.mark.parametrize("kind", KINDS)
def test_a_published_file_is_never_replaced(tmp_path: Path, kind: str) -> None:
    other = tmp_path / f"set.{kind}"
    other.write_bytes(b"other")
    shard = Shard(str(tmp_path), TEMP, kind)
    fill(shard, 2)
    assert shard.publish(str(other), str(tmp_path)) == str(tmp_path / f"set_00001.{kind}")
    assert other.read_bytes() == b"other"


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(data=st.data())
def test_cut_anywhere_the_whole_pairs_stay(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    shard = Shard(str(folder), TEMP, kind)
    ends = []
    for n in range(6):
        fill(shard, 1, n)
        ends.append(shard.bytes)
    shard.sync()
    shard.close()
    cut = data.draw(st.integers(0, ends[-1]))
    zeros = data.draw(st.sampled_from([0, 1, 700, 5000]))
    with open(folder / TEMP, "r+b") as file:
        file.truncate(cut)
        file.truncate(cut + zeros)
    whole = sum(end <= cut for end in ends)
    again = Shard(str(folder), TEMP, kind)
    assert again.members in (whole, min(6, whole + 1)), "zeros may complete the padding of a tar member"
    there = again.members
    fill(again, 6 - there, there)
    final = Path(again.publish(str(folder / f"set.{kind}"), str(folder)))
    assert contents(final, kind) == expected(6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", ["archive.image_written:3", "archive.ended", "archive.linked"])
def test_killed_at_any_point_nothing_is_lost_or_doubled(tmp_path: Path, kind: str, point: str) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_archive import TEMP, fill
from luna_farm.storage.archive import Shard
shard = Shard({str(tmp_path)!r}, TEMP, {kind!r})
for n in range(4):
    fill(shard, 1, n)
    shard.sync()
    print(n, flush=True)
shard.publish({str(tmp_path / ("set." + kind))!r}, {str(tmp_path)!r})
"""
    environ = {**os.environ, "LUNA_FARM_CRASH": point}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
    )
    assert ran.returncode < 0
    saved = len(ran.stdout.split())
    final = tmp_path / f"set.{kind}"
    before = final.read_bytes() if final.exists() else b""
    again = Shard(str(tmp_path), TEMP, kind)
    if point == "archive.linked":
        assert again.members == 0, "it was published: the new shard is another"
        assert final.read_bytes() == before
        again.close()
    else:
        assert again.members == saved
        fill(again, 4 - saved, saved)
        again.publish(str(final), str(tmp_path))
    assert contents(final, kind) == expected(4)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_members(tmp_path: Path, kind: str) -> None:
    shard = Shard(str(tmp_path), TEMP, kind)
    fill(shard, 100)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for n in range(3000):
            shard.add(f"n{n}", [("png", [b"x" * 100])], b"{}")
        shard.publish(str(tmp_path / f"set.{kind}"), str(tmp_path))
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < 1_500_000, f"{peak / 3000:.0f} bytes a member"


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_refuses_leaves_the_shard_as_it_was(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = Shard(str(tmp_path), TEMP, kind)
    fill(shard, 1)

    write_all = files.write_all
    calls = iter([True, False])

    def full(fd: int, part: memoryview) -> None:
        if not next(calls, True):
            write_all(fd, part[: len(part) // 2])
            raise OSError(28, "No space left on device")
        write_all(fd, part)

    monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(DiskError, match="No space left"):
        fill(shard, 1, 1)
    monkeypatch.undo()
    fill(shard, 1, 1)
    final = Path(shard.publish(str(tmp_path / f"set.{kind}"), str(tmp_path)))
    assert contents(final, kind) == expected(2)


@pytest.mark.parametrize("kind", KINDS)
def test_members_that_a_disk_did_not_sync_are_written_anew(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = Shard(str(tmp_path), TEMP, kind)
    fill(shard, 1)
    shard.sync()
    fill(shard, 2, 1)

    def failing(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(system, "sync_data", failing)
    with pytest.raises(DiskError, match="Input/output"):
        shard.sync()
    monkeypatch.undo()
    assert shard.members == 1
    assert fill(shard, 2, 1) == ["day/a_1.png", "day/a_2.png"], "the names are free again"
    assert contents(Path(shard.publish(str(tmp_path / f"set.{kind}"), str(tmp_path))), kind) == expected(3)


@pytest.mark.parametrize("kind", KINDS)
def test_several_files_of_one_image_and_who_sent_them_are_found_after_a_crash(
    tmp_path: Path, kind: str
) -> None:
    shard = Shard(str(tmp_path), TEMP, kind)
    for n in range(3):
        origin = json.dumps({"luna_farm": {"shard": "s1", "job_id": "job", "index": n}}).encode()
        shard.add("a", [("png", [b"x" * n]), ("web.webp", [b"y"])], origin)
    shard.sync()
    again = Shard(str(tmp_path), TEMP, kind)
    assert again.recovered == {"job-0": "a.png", "job-1": "a_00001.png", "job-2": "a_00002.png"}
    assert archive.published_before(str(tmp_path / "set_00001.tar"), str(tmp_path), kind, "s1", TEMP) is None
    final = again.publish(str(tmp_path / f"set_00001.{kind}"), str(tmp_path))
    assert "a_00002.web.webp" in contents(Path(final), kind)
    for shard_id, found in (("s1", final), ("s2", None)):
        assert (
            archive.published_before(str(tmp_path / f"set_00001.{kind}"), str(tmp_path), kind, shard_id, TEMP)
            == found
        )


def test_a_series_goes_on_with_the_next_number(tmp_path: Path) -> None:
    for name in ("set_00009.tar", "set_00010.tar"):
        (tmp_path / name).write_bytes(b"other")
    shard = Shard(str(tmp_path), TEMP, "tar")
    shard.add("%counter%", [("png", [b"1"])], b"{}")
    assert shard.add("%counter%", [("png", [b"1"])], b"{}") == "00002.png"
    assert shard.publish(str(tmp_path / "set_00009.tar"), str(tmp_path)) == str(tmp_path / "set_00011.tar")


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"zip \| tar"):
        Shard(str(tmp_path), TEMP, "rar")
