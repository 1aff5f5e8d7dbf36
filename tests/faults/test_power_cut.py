"""Power cuts at 500 moments, simulated over a record of what the farm's own code did to a disk."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from measured import Figures
from recorded_disk import Disk, Op, recording

from luna_farm.storage import arena, writer
from luna_farm.storage.arena import HEADER_BYTES
from luna_farm.storage.journal import Journal
from luna_farm.storage.journal_records import records
from luna_farm.storage.spool import Spool
from luna_farm.supervisor import state_dir

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: looks at /proc of Linux")
IMAGES = 60
CUTS = 500
KEPT = (0.0, 0.5, 1.0)


def content(number: int) -> list[bytes]:
    return [b"\x89PNG", bytes([number]) * (3000 + number), b"IEND"]


def save_all(root: Path, mark: Callable[[str], None]) -> None:
    """What supervisor and worker do to the disk for jobs that ask to be durable, in their order."""
    out, state = root / "out", root / "state"
    lock = state_dir.prepare(state)
    spool = Spool(state / "spool")
    journal, _ = Journal.open(state / "journal")
    journal.rewrite([])
    for number in range(IMAGES):
        job, path = f"job{number}", f"{out}/{number % 7}/a{number}.png"
        pixels = bytes([number]) * 5000
        segment = spool.write(job, 0, memoryview(pixels), {"job_id": job})
        journal.append({"r": "job", "job_id": job})
        journal.sync()
        mark(f"accepted {number}")
        writer.publish(
            path,
            content(number),
            output_dir=str(out),
            temp_name=writer.temp_name(job, 0),
            fsync=True,
        )
        mark(f"saved {number}")
        journal.append({"r": "image", "job_id": job, "state": "saved"})
        arena.remove(segment)
    lock.release()


def check(disk: Disk, past: list[Op], tmp: Path) -> dict[str, int]:
    """What a start after the power cut would find."""
    bad = {"lost": 0, "half_files": 0, "phantoms": 0}
    promised = {op.name for op in past if op.kind == "mark"}
    found = disk.files()
    for number in range(IMAGES):
        whole = b"".join(content(number))
        name = f"out/{number % 7}/a{number}.png"
        there = found.get(name)
        bad["half_files"] += there is not None and there != whole
        if f"saved {number}" in promised:
            bad["lost"] += there != whole
        elif f"accepted {number}" in promised:
            spooled = found.get(f"state/spool/job{number}-0.pixels", b"")
            kept = spooled[HEADER_BYTES : HEADER_BYTES + 5000]
            bad["lost"] += kept != bytes([number]) * 5000
    journal = tmp / "journal"
    journal.write_bytes(found.get("state/journal", b""))
    with journal.open("rb") as file:
        found_records = [record for record, _, _ in records(file, journal.stat().st_size)]
    known = {record["job_id"] for record in found_records if record["r"] == "job"}
    accepted = {f"job{name.split()[1]}" for name in promised if name.startswith("accepted")}
    bad["lost"] += len(accepted - known)
    bad["phantoms"] += sum(int(job[3:]) >= IMAGES for job in known)
    return bad


def cut_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuts: int) -> dict[str, int]:
    """Cut the power at `cuts` moments, three ways each; what was wrong in all."""
    root = tmp_path / "disk"
    root.mkdir()
    with recording(root, monkeypatch) as notes:
        save_all(root, notes.mark)
    assert len(notes.ops) >= cuts, f"only {len(notes.ops)} moments were recorded"
    chance = random.Random(5)
    moments = sorted(chance.sample(range(1, len(notes.ops) + 1), cuts))
    total: dict[str, int] = {}
    for cut in moments:
        for kept in KEPT:
            for kind, count in check(Disk(notes.ops, cut, chance, kept), notes.ops[:cut], tmp_path).items():
                total[kind] = total.get(kind, 0) + count
    return total


def test_every_saved_file_is_whole_wherever_the_power_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    total = cut_everywhere(tmp_path, monkeypatch, CUTS)
    figures.none("power cut", f"{CUTS} moments, nothing, half or all of what was not synced", **total)


@pytest.mark.parametrize("forgotten", ["sync_data", "folder"])
def test_without_a_sync_it_would_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures, forgotten: str
) -> None:
    """The proof itself: the same cuts, and one of the two syncs left out."""
    if forgotten == "sync_data":
        monkeypatch.setattr(writer, "sync_data", lambda fd: None)
    else:
        monkeypatch.setattr("luna_farm.storage.folder.sync_open_folder", lambda fd: None)
    total = cut_everywhere(tmp_path, monkeypatch, 100)
    assert total["lost"] > 0
    figures("mutations", f"no sync of {'the file' if forgotten == 'sync_data' else 'its folder'}", caught=1)
