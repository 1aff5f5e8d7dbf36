"""Thumbnails are made when there is time, in bounded memory, and cost nothing but themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from luna_farm.imaging.thumbnail import sample
from luna_farm.storage.thumbnails import Thumbnails
from luna_farm.worker import thumbnails
from luna_farm.worker.thumbnails import AT_ONCE, ThumbnailMaker

PIXELS = np.full((64, 64, 3), 128, np.uint8)


def maker(tmp_path: Path, name: str = "t") -> ThumbnailMaker:
    return ThumbnailMaker(Thumbnails(tmp_path / name, 1 << 20))


def kept(tmp_path: Path) -> int:
    return len(list(Thumbnails(tmp_path / "t", 0).get([("job", n) for n in range(100)])))


def test_they_are_written_some_at_a_time_and_the_rest_when_nothing_waits(tmp_path: Path) -> None:
    made = maker(tmp_path)
    assert not made.waits
    for n in range(AT_ONCE + 2):
        made.add("job", n, sample(PIXELS), "", 0)
    for _ in range(AT_ONCE - 1):
        made.make_one()
    assert kept(tmp_path) == 0
    made.make_one()
    assert kept(tmp_path) == AT_ONCE
    made.make_one()
    made.make_one()
    assert (kept(tmp_path), made.waits) == (AT_ONCE + 2, False)
    made.close()


def test_samples_are_bounded_in_bytes_and_the_rest_is_made_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails, "MAX_SAMPLES_BYTES", 3 * PIXELS.nbytes)
    file = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(file)
    made = maker(tmp_path)
    for n in range(5):
        made.add("job", n, sample(PIXELS), str(file), file.stat().st_size - (n == 4))
    while made.waits:
        made.make_one()
    assert kept(tmp_path) == 4, "the last file is not the one that was saved"
    for n in range(5, 7):
        made.add("job", n, sample(PIXELS), str(file), 1)
    made.close()
    assert kept(tmp_path) == 6, "there is room again, and a worker that ends makes what is cheap"


def test_what_goes_wrong_is_said_once_and_costs_no_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = maker(tmp_path, "no/such/folder")
    for n in range(2):
        made.add("job", n, sample(PIXELS), "", 0)
        made.make_one()
    assert not made.waits
    assert len(caplog.records) == 1
    assert "no/such/folder" in caplog.text


def test_a_folder_that_became_a_link_meanwhile_gives_no_thumbnail(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    Image.fromarray(PIXELS).save(out / "a.png")
    made = maker(tmp_path)
    made.add("job", 0, None, f"{out}/a.png", (out / "a.png").stat().st_size)
    out.rename(elsewhere)
    out.symlink_to(elsewhere)
    while made.waits:
        made.make_one()
    assert kept(tmp_path) == 0
