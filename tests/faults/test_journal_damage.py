"""A damaged journal: records that can be read count, and no pixels go because a record cannot be read."""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from images import Album
from measured import LONG, Figures
from running_farm import Start

from luna_farm.config import load
from luna_farm.core.job import ImageState
from luna_farm.storage.arena import Segments
from luna_farm.supervisor.supervisor import Supervisor

JOBS = (1, 1, 1, 1, 3, 2)
"""Images of each durable job."""
IMAGES = sum(JOBS)
DAMAGES = 2_000 if LONG else 100
STOPPED = "worker.received:*:stop"


def records(data: bytes) -> list[tuple[int, int]]:
    """Where each record of a journal begins and ends."""
    found, start = [], 0
    while start < len(data):
        _, length, _ = struct.unpack_from(">4sII", data, start)
        found.append((start, start + 12 + length))
        start = found[-1][1]
    return found


def bit(data: bytearray, chance: random.Random) -> bytes:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def cut(data: bytearray, chance: random.Random) -> bytes:
    """At any byte, now and then at the end of a record, where it does not show."""
    ends = [end for _, end in records(data)]
    return data[: chance.choice(ends) if chance.random() < 0.3 else chance.randrange(len(data))]


def zero(data: bytearray, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    length = min(chance.randrange(1, 5000), len(data) - start)
    data[start : start + length] = bytes(length)
    return data


def swap(data: bytearray, chance: random.Random) -> bytes:
    parts = [data[start:end] for start, end in records(data)]
    one, other = chance.randrange(len(parts)), chance.randrange(len(parts))
    parts[one], parts[other] = parts[other], parts[one]
    return b"".join(parts)


def duplicate(data: bytearray, chance: random.Random) -> bytes:
    parts = [data[start:end] for start, end in records(data)]
    parts.insert(chance.randrange(len(parts) + 1), chance.choice(parts))
    return b"".join(parts)


Damage = Callable[[bytearray, random.Random], bytes]
KINDS: tuple[Damage, ...] = (bit, cut, zero, swap, duplicate)


def killed_with_open_jobs(farm: Start) -> tuple[Path, Album]:
    """The state folder of a farm that was killed with durable jobs none of which was begun, and some plain
    ones that were saved before."""
    one = farm(kept_reports=1000)
    album = Album(one.out)
    with one.client() as client:
        for _ in range(3):
            album.add(client, filename="before", durable=True)
        album.wait(client)
    one.kill()
    one.restart(LUNA_FARM_CRASH=STOPPED)
    album = Album(one.out, _next=100)
    with one.client() as client:
        for count in JOBS:
            album.add(client, count, durable=True, custom_metadata={"note": "x" * 2000})
    one.kill(children=True)
    return one.state, album


def found_by_two_starts(state: Path, out: Path, album: Album) -> dict[str, int]:
    """Start twice on a state folder (without workers); what became of the images of the album."""
    for _ in range(2):
        config = load({"state_dir": str(state), "output_dir": str(out), "arena_bytes": 1 << 20}, {}, None)
        with Supervisor.open(config) as supervisor:
            images = [i for job in supervisor.farm.open_jobs.values() for i in job.images]
            notes = " ".join(supervisor.notes)
            there: dict[str, int] = {}
            with_pixels = Segments()
            for image in images:
                pixels = with_pixels.view(image.task.segment, image.task.offset, image.task.nbytes)
                assert image.state is ImageState.QUEUED
                there[image.task.path] = hash(bytes(pixels))
            with_pixels.close()
            supervisor.services.segments.close()
            supervisor.arena.unlink()
            supervisor.services.journal_writer.close()
            supervisor.services.reports.close()
    unclaimed = state / "unclaimed"
    kept = [path.name for path in unclaimed.iterdir()] if unclaimed.exists() else []
    count = {"saved": 0, "named": sum(name in notes for name in kept), "gone": 0}
    for promised in album.promised:
        for number, path in zip(promised.numbers, promised.receipt.paths, strict=True):
            count["saved"] += there.pop(path, 0) == hash(album.sample(number).tobytes())
    count["gone"] = IMAGES - count["saved"] - count["named"]
    count["twice"] = len(there)
    return count


def test_random_damage_costs_no_pixels(farm: Start, figures: Figures, tmp_path: Path) -> None:
    state, album = killed_with_open_jobs(farm)
    pristine = tmp_path / "pristine"
    shutil.copytree(state, pristine)
    chance = random.Random(14)
    total = {"saved": 0, "named": 0, "gone": 0, "twice": 0}
    for number in range(DAMAGES):
        kind = KINDS[number % len(KINDS)]
        shutil.rmtree(state)
        shutil.copytree(pristine, state)
        journal = state / "journal"
        before = journal.read_bytes()
        journal.write_bytes(kind(bytearray(before), chance))
        count = found_by_two_starts(state, album.out, album)
        assert (count["gone"], count["twice"]) == (0, 0), (number, kind.__name__, count)
        total = {name: total[name] + count[name] for name in total}
    figures.none("journal damage", f"{DAMAGES:,} damages, {IMAGES} durable images open", **total)
    assert total["saved"] + total["named"] == DAMAGES * IMAGES


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


@pytest.mark.parametrize("kind", ["first record", "missing", "empty", "another magic"])
def test_durable_jobs_are_saved_without_their_records(farm: Start, figures: Figures, kind: str) -> None:
    """Six durable jobs, none of them begun; the journal is damaged; the farm starts twice."""
    one = farm(LUNA_FARM_CRASH=STOPPED, worker_deadline_s=600.0)
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
        count = album.settled(client)
    one.stop()
    figures.none("journal damage", f"{kind}, then two starts", **count)
    assert np.all([name in one.log_text() for name in (p.receipt.job_id for p in album.promised)])


def test_what_may_have_been_saved_is_offered_by_retry(farm: Start, figures: Figures) -> None:
    """Its record is gone and a file of its name is there: a person decides."""
    one = farm(LUNA_FARM_CRASH=STOPPED, worker_deadline_s=600.0)
    album = Album(one.out)
    with one.client() as client:
        job = album.add(client, durable=True)
    one.kill()
    (one.state / "journal").unlink()
    path = Path(job.receipt.paths[0])
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"perhaps ours, perhaps not")
    one.restart()
    with one.client() as client:
        report = client.wait(job.receipt.job_id, 60.0)
        assert (report.state, report.images[0].code) == ("failed", "unsure")
        assert path.read_bytes() == b"perhaps ours, perhaps not"
        client.retry(job.receipt.job_id)
        again = client.wait(job.receipt.job_id, 60.0)
    assert again.state == "done"
    assert again.images[0].path != str(path)
    figures("journal damage", "a file of its name is there: set aside, saved by retry", set_aside=1)
    one.stop()
