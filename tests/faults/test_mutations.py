"""The tests themselves: each guard of the code, taken away, is missed by the test that stands for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from images import Album
from measured import Figures
from running_farm import IMPORTED_FROM, MUTATED, Start, until
from test_names import race
from test_restart import fence_off

from luna_farm.storage import arena

ROW = "mutations"


def published_and_not_reported(farm: Start, tmp_path: Path, memory: bool, **environ: str) -> dict[str, int]:
    """Worker and supervisor die when a file has just got its name. With `memory` the pixels survive, and the
    user renames the file before the farm starts again; without, only the note tells of the file."""
    fired = tmp_path / "fired"
    fired.mkdir()
    one = farm(LUNA_FARM_CRASH="writer.named:1:stop", LUNA_FARM_CRASH_ONCE=str(fired))
    album = Album(one.out)
    with one.client() as client:
        receipt = album.add(client).receipt
    until(lambda: list(fired.iterdir()), "the file has its name")
    one.kill(children=True)
    if memory:
        Path(receipt.paths[0]).rename(one.out / "a_renamed.png")
    else:
        arena.remove(one.segments()[0])
    one.restart(**environ)
    with one.client() as client:
        state = client.wait(receipt.job_id, 300).state
    one.stop()
    files = len(list(one.out.glob("a_*.png")))
    return {"lost": int(state != "done"), "duplicate": files - 1, "stray": len(one.temps())}


@pytest.mark.parametrize("memory", [True, False], ids=["renamed", "memory gone"])
@pytest.mark.parametrize("mutation", ["", "no notes"])
def test_a_file_that_was_published_before_a_crash_is_known_by_the_note_of_its_worker(
    farm: Start, figures: Figures, tmp_path: Path, memory: bool, mutation: str
) -> None:
    environ = {"LUNA_FARM_TEST_MUTATION": mutation} if mutation else {}
    count = published_and_not_reported(farm, tmp_path, memory, **environ)
    judge(figures, mutation, count)


def judge(figures: Figures, mutation: str, count: dict[str, int]) -> None:
    """Whole code shows nothing; broken code shows something."""
    if mutation:
        figures(ROW, mutation, ok=any(count.values()), caught=1 if any(count.values()) else 0)
        assert any(count.values()), f"{mutation} was not noticed"
    else:
        assert not any(count.values()), count


@pytest.mark.parametrize("mutation", ["", "acknowledge before journal"])
def test_what_was_acknowledged_is_known_after_a_kill(
    farm: Start, figures: Figures, tmp_path: Path, mutation: str
) -> None:
    environ = {"LUNA_FARM_TEST_MUTATION": mutation} if mutation else {}
    one = farm(LUNA_FARM_CRASH="supervisor.acknowledged:2", **environ)
    album = Album(one.out)
    with one.client() as client:
        album.add(client)  # the second answer of all, that to the lease before
        one.process.wait(timeout=60)
    one.restart()
    with one.client() as client:
        reports = album.wait(client)
    one.stop()
    count = album.count(reports)
    judge(figures, mutation, {"lost": count["lost"] + sum(report is None for report in reports)})


@pytest.mark.parametrize("mutation", ["", "no fence"])
def test_an_old_worker_cannot_write_later(
    farm: Start, figures: Figures, tmp_path: Path, mutation: str
) -> None:
    environ = {"LUNA_FARM_TEST_MUTATION": mutation} if mutation else {}
    count = fence_off(farm, tmp_path, "worker.encoded", **environ)
    judge(figures, mutation, {name: count[name] for name in ("lost", "corrupt", "duplicate", "stray")})


@pytest.mark.parametrize("mutation", ["", "exists then rename"])
def test_nothing_is_overwritten(tmp_path: Path, figures: Figures, mutation: str) -> None:
    environ = {"LUNA_FARM_TEST_MUTATION": mutation} if mutation else {}
    count = race(tmp_path / "out", 4, 300, **environ)
    judge(figures, mutation, {"overwritten": count["overwritten"]})


FLIPS = """
import sys
sys.path.insert(0, sys.argv[2])
from test_journal import flip_bits
print(sum(flip_bits(sys.argv[1], 300).values()))
"""


@pytest.mark.parametrize("mutation", ["", "no checksum"])
def test_flipped_bits_are_noticed(tmp_path: Path, figures: Figures, mutation: str) -> None:
    environ = {"LUNA_FARM_TEST_MUTATION": mutation} if mutation else {}
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", FLIPS, str(tmp_path), str(here)],
        env={**os.environ, "PYTHONPATH": f"{MUTATED}{os.pathsep}{IMPORTED_FROM}", **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    judge(figures, mutation, {"phantoms": int(done.stdout)})


@pytest.mark.parametrize("mutation", ["", "note after naming"])
def test_a_file_whose_result_was_not_reported_was_noted_before(
    farm: Start, figures: Figures, tmp_path: Path, mutation: str
) -> None:
    """The worker dies between the name and the report: another worker gets the image."""
    fired = tmp_path / "fired"
    fired.mkdir()
    environ = {"LUNA_FARM_TEST_MUTATION": mutation} if mutation else {}
    one = farm(LUNA_FARM_CRASH="writer.named", LUNA_FARM_CRASH_ONCE=str(fired), **environ)
    album = Album(one.out)
    with one.client() as client:
        album.add(client)
        reports = album.wait(client)
    one.stop()
    assert list(fired.iterdir())
    judge(figures, mutation, {name: album.count(reports)[name] for name in ("lost", "duplicate")})
