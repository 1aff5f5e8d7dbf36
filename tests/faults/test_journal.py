"""Journals that were cut, flipped and filled with zeros: the right prefix, never a phantom, never a crash."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from measured import Figures

from luna_farm import system
from luna_farm.storage.journal import Journal

ROW = "journal"


def records(count: int) -> list[dict[str, Any]]:
    """Like those of the farm, each another."""
    return [
        {"r": "image", "job_id": f"job{n:05}", "index": n, "state": "saved", "n": n * n} for n in range(count)
    ]


def written(path: Path, count: int) -> bytes:
    """A whole journal."""
    path.unlink(missing_ok=True)
    journal, _ = Journal.open(path)
    for record in records(count):
        journal.append(record)
    journal.close()
    return path.read_bytes()


def found_in(path: Path, content: bytes) -> list[dict[str, Any]]:
    """What a start finds in a journal with this content; it can be appended to afterwards."""
    path.write_bytes(content)
    for kept in path.parent.glob(f"{path.name}.cut-*"):
        kept.unlink()
    journal, replay = Journal.open(path)
    journal.append({"r": "after"})
    journal.close()
    again, whole = Journal.open(path)
    again.close()
    assert whole.records == [*replay.records, {"r": "after"}]
    return replay.records


def flip_bits(folder: str, flips: int) -> dict[str, int]:
    """Flip single bits; count records that were never written."""
    path = Path(folder) / "journal"
    content = written(path, 60)
    chance = random.Random(3)
    phantoms = 0
    for _ in range(flips):
        damaged = bytearray(content)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        found = found_in(path, bytes(damaged))
        phantoms += any(record not in records(60) for record in found) or len(found) < 59
    return {"phantoms": phantoms}


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of journals, without a power cut."""
    monkeypatch.setattr(system, "sync_data", lambda fd: None)


def test_cut_at_every_byte(tmp_path: Path, figures: Figures) -> None:
    path = tmp_path / "journal"
    content = written(path, 60)
    whole = records(60)
    ends = [len(written(tmp_path / "prefix", n)) for n in range(61)]
    wrong = 0
    for cut in range(len(content) + 1):
        found = found_in(path, content[:cut])
        wrong += found != whole[: sum(end <= cut for end in ends[1:])]
    figures(ROW, f"cut at each of {len(content) + 1:,} bytes", ok=not wrong, wrong_prefixes=wrong)
    assert wrong == 0


def test_1000_bit_flips(tmp_path: Path, figures: Figures) -> None:
    figures.none(ROW, "1,000 bit flips", **flip_bits(str(tmp_path), 1000))


def test_tails_of_zeros_and_of_noise(tmp_path: Path, figures: Figures) -> None:
    path = tmp_path / "journal"
    content = written(path, 20)
    phantoms = 0
    for size in (1, 3, 4, 8, 12, 100, 4096, 1 << 20):
        for tail in (bytes(size), os.urandom(size), content[:size]):
            found = found_in(path, content + tail)
            # A tail that repeats whole records is one that a farm may have written.
            phantoms += found[:20] != records(20) or (tail != content[:size] and len(found) > 20)
    figures.none(ROW, "tails of zeros and noise", phantoms=phantoms)
