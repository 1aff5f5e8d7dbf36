"""A damaged journal: records that can be read count, and no pixels go because a record cannot be read."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from images import Album
from measured import Figures
from running_farm import Start

DAMAGES = ["first record", "missing", "empty", "another magic"]


def damage(journal: Path, kind: str) -> None:
    """Break the journal of a farm that was killed."""
    data = bytearray(journal.read_bytes())
    if kind == "first record":
        data[random.Random(1).randrange(40, 200)] ^= 4
    elif kind == "another magic":
        data[:] = data.replace(b"LFJ1", b"LFJX")
    else:
        data.clear()
    if kind == "missing":
        journal.unlink()
    else:
        journal.write_bytes(data)


@pytest.mark.parametrize("kind", DAMAGES)
def test_no_spooled_pixels_go_with_a_damaged_journal(farm: Start, figures: Figures, kind: str) -> None:
    """Six durable jobs, none of them begun; the journal is damaged; the farm starts twice."""
    one = farm(LUNA_FARM_CRASH="worker.received:*:stop", worker_deadline_s=600.0)
    album = Album(one.out)
    with one.client() as client:
        for _ in range(6):
            album.add(client, durable=True)
    one.kill()
    damage(one.state / "journal", kind)
    one.restart()
    one.kill()
    one.restart()
    with one.client() as client:
        reports = album.wait(client)
        notes = one.log_text()
    saved = sum(report is not None and report.state == "done" for report in reports)
    kept = list((one.state / "unclaimed").glob("*.pixels")) if (one.state / "unclaimed").exists() else []
    named = sum(path.name in notes for path in kept)
    one.stop()
    figures.none("state folder", f"journal damaged: {kind}", saved=saved, named=named, gone=6 - saved - named)
    assert saved >= (5 if kind == "first record" else 0)
    assert np.all([path.stat().st_size > 4096 for path in kept])
