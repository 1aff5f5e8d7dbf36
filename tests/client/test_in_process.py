"""`save_here`: the same pipeline without a farm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from luna_farm.errors import EncodeError, InvalidRequest
from luna_farm.worker import pipeline
from luna_farm_client import SaveImage, SaveRequest, save_here
from luna_farm_client.requests import JobReport

PIXELS = np.random.default_rng(3).integers(0, 256, (2, 12, 16, 3), np.uint8)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_files_are_there_when_it_returns(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    images = [
        SaveImage(PIXELS, "RAW", subdir=True),
        SaveImage(PIXELS[0].astype(np.float32) / 255, "B", "webp"),
    ]
    request = SaveRequest(images, output_dir=tmp_path, filename="a", lossless_webp=True)
    report = save_here(request, progress=lambda done, total: told.append((done, total)))
    assert report.state == "done"
    assert names(tmp_path) == ["RAW/a_RAW_0.png", "RAW/a_RAW_1.png", "a_B.webp"]
    assert [str(tmp_path / name) for name in names(tmp_path)] == list(report.paths)
    assert told == [(1, 3), (2, 3), (3, 3)]
    for index in range(2):
        with Image.open(report.paths[index]) as saved:
            assert np.array_equal(np.asarray(saved), PIXELS[index])


def test_names_that_exist_are_kept(tmp_path: Path) -> None:
    request = SaveRequest([SaveImage(PIXELS[0])] * 2, output_dir=tmp_path, filename="a")
    save_here(request)
    save_here(request)
    assert names(tmp_path) == ["a.png", "a_00001.png", "a_00002.png", "a_00003.png"]


def test_one_image_that_fails_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = pipeline.encode
    errors = iter([None, EncodeError("not this one"), ZeroDivisionError("a bug")])

    def sometimes(*args: object) -> object:
        error = next(errors, None)
        if error:
            raise error
        return encode(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "encode", sometimes)
    report = save_here(SaveRequest([SaveImage(PIXELS[0])] * 4, output_dir=tmp_path, filename="a"))
    assert [image.state for image in report.images] == ["saved", "failed", "failed", "saved"]
    assert [image.error for image in report.images][1:3] == ["not this one", "ZeroDivisionError: a bug"]
    assert report.state == "failed"
    assert names(tmp_path) == ["a.png", "a_00003.png"]


def test_nothing_is_written_of_a_request_that_is_refused(tmp_path: Path) -> None:
    far = np.full((4, 4, 3), 200.0, np.float32)
    with pytest.raises(InvalidRequest, match="floats up to 200"):
        save_here(SaveRequest([SaveImage(PIXELS), SaveImage(far)], output_dir=tmp_path))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidRequest, match="not a folder"):
        save_here(
            SaveRequest([SaveImage(PIXELS), SaveImage(PIXELS, "file", subdir=True)], output_dir=tmp_path)
        )
    assert names(tmp_path) == ["file"]


def test_without_a_folder_it_is_output_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = save_here(SaveRequest([SaveImage(PIXELS[0])], filename="a"))
    assert report.paths == (str(tmp_path / "output" / "a.png"),)


def test_names_as_people_write_them(tmp_path: Path) -> None:
    images = [
        SaveImage(PIXELS[0], format="PNG"),
        SaveImage(PIXELS[0], format="jpg"),
        SaveImage(PIXELS[0], "A" * 250, "Jpeg"),
    ]
    saved = save_here(SaveRequest(images, tmp_path, save_path=f"{tmp_path}/shots", filename="x.png"))
    assert names(tmp_path)[:2] == ["shots/x.png", "shots/x.png.jpg"]
    assert names(tmp_path)[2].startswith("shots/x.png_AAA")
    assert any("was too long and was cut" in warning for warning in saved.warnings)
    long = save_here(SaveRequest([SaveImage(PIXELS[0])], tmp_path, filename="f" * 6000))
    assert long.images[0].state == "saved"
    assert any("was too long and was cut" in warning for warning in long.warnings)


def _as_wished(folder: Path, if_exists: str, images: int = 1) -> JobReport:
    given = [SaveImage(PIXELS[1], format="jpeg") for _ in range(images)]
    request = SaveRequest(
        given, folder, filename="a", if_exists=if_exists, sidecar="always", metadata={"steps": 5}
    )
    return save_here(request)


def test_a_file_is_replaced_where_that_is_wished(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"old")
    (tmp_path / "a.json").write_bytes(b"old")
    report = _as_wished(tmp_path, "overwrite", images=2)
    assert [Path(path).name for path in report.paths] == ["a.jpg", "a_00001.jpg"]
    assert (tmp_path / "a.jpg").stat().st_size > 100
    assert '"steps": 5' in (tmp_path / "a.json").read_text().replace(":5", ": 5")
    assert names(tmp_path) == ["a.jpg", "a.json", "a_00001.jpg", "a_00001.json"]


def test_a_file_that_exists_is_left_as_it_is_where_that_is_wished(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"old")
    report = _as_wished(tmp_path, "skip")
    assert (report.images[0].state, report.paths) == ("dropped", ())
    assert "a.jpg exists already and was left as it is" in report.images[0].warnings[-1]
    assert (tmp_path / "a.jpg").read_bytes() == b"old"
    assert names(tmp_path) == ["a.jpg"]


def test_a_request_is_refused_where_that_is_wished(tmp_path: Path) -> None:
    assert _as_wished(tmp_path, "fail").state == "done"
    with pytest.raises(InvalidRequest, match="allowed: a name that is free"):
        _as_wished(tmp_path, "fail")
    assert names(tmp_path) == ["a.jpg", "a.json"]
