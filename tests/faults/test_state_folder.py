"""The state folder, or a file in it, is removed while the farm runs."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from images import Album
from measured import Figures
from running_farm import RunningFarm, Start, until

from luna_farm.errors import FarmError
from luna_farm.storage.notes import NOTES
from luna_farm_client import Receipt, SaveRequest

ROW = "state folder"


def taken_away(folder: Path) -> None:
    """Remove a folder in one step: the farm makes its files again while others are still being removed."""
    shutil.rmtree(folder.rename(folder.with_name("trash")))


def blocked(folder: Path) -> None:
    """Put a file where a folder is; the farm may make the folder again between two steps of this."""
    block = folder.with_name("block")
    block.write_text("in the way")
    while True:
        taken_away(folder)
        try:
            block.rename(folder)
        except OSError:  # the folder is there again: a file replaces none
            continue
        return


def told(farm: RunningFarm, what: str) -> bool:
    """Whether the status or the log says so by now."""
    return what in farm.log_text()


@pytest.mark.parametrize("what", ["folder", "journal"])
def test_what_is_removed_under_a_running_farm_is_made_again(farm: Start, figures: Figures, what: str) -> None:
    one = farm(LUNA_FARM_CRASH="worker.received:*:stop", worker_deadline_s=600.0)
    album = Album(one.out)
    with one.client() as client:
        for _ in range(3):
            album.add(client)
        if what == "folder":
            taken_away(one.state)
        else:
            (one.state / "journal").unlink()
        until(lambda: told(one, "was removed while the farm runs"), "the removal is noticed")
        until(lambda: (one.state / "token").exists(), "there is a token again")
        album.add(client)
    one.kill()
    one.restart()
    with one.client() as client:
        count = album.settled(client)
    assert one.stop() == 0
    figures.none(ROW, f"{what} removed under a running farm, then kill -9", **count)


def test_the_owner_can_stop_a_farm_whose_token_was_deleted(farm: Start, figures: Figures) -> None:
    one = farm()
    (one.state / "token").unlink()
    (one.state / "endpoint.json").unlink()
    until(lambda: one.listens and (one.state / "token").exists(), "token and address are there again")
    assert one.status()["running"]
    with one.client() as client:
        client.shutdown()
    assert one.process is not None
    assert one.process.wait(timeout=60) == 0
    figures(ROW, "token and address deleted: written again", written_again=2)


def test_a_folder_that_cannot_be_made_again_stops_acceptance(farm: Start, tmp_path: Path) -> None:
    one = farm()
    album = Album(one.out)
    with one.client() as client:
        album.add(client)
        album.wait(client)
        blocked(one.state)
        until(lambda: told(one, "cannot be made again"), "the removal is noticed")
        with pytest.raises(FarmError, match="was taken away"):
            client.submit(album.next_images(), when_busy="report")
        made = one.log_text().count("was removed while the farm runs")
        one.state.unlink()
        until(lambda: one.log_text().count("was removed while the farm runs") > made, "it is made again")
        album.add(client)
        assert album.settled(client)["lost"] == 0


def test_copies_that_went_with_the_folder_are_named_and_hold_up_no_other(farm: Start, tmp_path: Path) -> None:
    one, mirror = farm(), tmp_path / "mirror"
    mirror.write_text("in the way")
    album = Album(one.out)
    with one.client() as client:

        def submit() -> Receipt:
            request = SaveRequest(album.next_images(), output_dir=one.out, mirrors=[mirror])
            return client.submit(request)

        gone = submit()
        until(lambda: any(row["error"] for row in client.status()["destinations"]), "the copy waits")
        taken_away(one.state)
        until(lambda: told(one, "was removed while the farm runs"), "the removal is noticed")
        mirror.unlink()
        kept = submit()
        report = client.wait(gone, 300)
        assert report.state == "failed"
        assert "was removed, and with it what was to be sent" in report.images[0].error
        assert Path(gone.paths[0]).exists(), "the image itself was saved before"
        assert client.wait(kept, 300).state == "done"
    assert one.stop() == 0


def test_notes_and_reports_go_on_in_the_new_folder(farm: Start) -> None:
    """A worker notes what it publishes also then, and finished jobs are known after a restart."""
    one = farm()
    album = Album(one.out)
    with one.client() as client:
        album.add(client)
        album.wait(client)
        taken_away(one.state)
        until(lambda: told(one, "was removed while the farm runs"), "the removal is noticed")
        for _ in range(4):
            album.add(client)
        album.wait(client)
        assert list((one.state / "notes").iterdir())
    one.kill()
    one.restart()
    with one.client() as client:
        assert album.settled(client)["lost"] == 0
        assert client.job(album.promised[0].receipt).state == "done"


def test_a_full_state_folder_while_results_come_then_all_is_killed(
    farm: Start, figures: Figures, tmpfs: Callable[[str], Path]
) -> None:
    """More images are saved than workers keep notes of, and no result is journaled: none is saved twice."""
    one = farm(started=False)
    one.state = tmpfs("size=4m")
    one.start()
    album = Album(one.out)
    with one.client() as client:
        client.pause()
        for _ in range(2 * NOTES + 40):
            album.add(client)
        fill = one.state / "fill"
        for piece in (4096, 1):
            with contextlib.suppress(OSError), fill.open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(piece))
        client.resume()
        until(lambda: not client.status()["queue"]["images"], "all are saved")
        assert any("journal" in note for note in client.status()["notes"])
        one.kill(children=True)
        fill.unlink()
        one.restart()
        figures.none(ROW, "full while results come, then kill -9 of all", **album.settled(client))
    assert one.stop() == 0
