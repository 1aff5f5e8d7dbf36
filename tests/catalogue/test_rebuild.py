"""Files of this farm and of others become rows again."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from luna_farm.catalogue import files, images, rebuild
from luna_farm.catalogue.rows import FIELDS, CatalogueRow
from luna_farm.catalogue.search import Catalogue, Query
from luna_farm.catalogue.store import Store
from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.errors import EncodeError
from luna_farm.worker import pipeline, writing
from luna_farm.worker.made import Made

MakeRow = Callable[..., CatalogueRow]
PIXELS = np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8)
GENERATION = {
    "positive": "Ein Café am Hafen, 猫",
    "negative": "blurry",
    "seed": 2**64 - 1,
    "steps": 30,
    "cfg": 6.5,
    "sampler_name": "dpmpp_2m",
    "scheduler": "karras",
}


def save(folder: Path, kind: str, **options: Any) -> CatalogueRow:
    """Save an image as a worker does; returns the row that the worker makes of it."""
    path = folder / f"a_{kind}.{'jpg' if kind == 'jpeg' else 'tif' if kind == 'tiff' else kind}"
    task = ImageTask(
        job_id="a1b2c3d4",
        index=2,
        affix="RAW",
        format=kind,
        batch_index=0,
        batch_size=1,
        path=str(path),
        segment="",
        offset=0,
        height=40,
        width=60,
        channels=3,
    )
    known = {
        "output_dir": str(folder),
        "timestamp": "2026-01-02T03:04:05+00:00",
        "metadata": json.dumps(GENERATION),
        "custom_metadata": '{"client": "Müller"}',
        "model_name": "xl/dream.safetensors",
    }
    made = pipeline.encoded(PIXELS, task, SaveOptions(**{**known, **options}))
    assert isinstance(made, Made)
    result = writing.written(made, None, fsync=False, catalogue=tuple(FIELDS))
    return images.unpack(result.row)


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg", "avif", "tiff", "jxl", "exr"])
def test_the_row_of_a_file_is_that_of_its_worker(tmp_path: Path, kind: str) -> None:
    try:
        saved = save(tmp_path, kind, sidecar="always" if kind == "exr" else "auto")
    except EncodeError as error:
        pytest.skip(f"NOT TESTED: {error}")
    assert (saved.prompt, saved.seed, saved.model) == ("Ein Café am Hafen, 猫", 2**64 - 1, "dream")
    assert (saved.custom, saved.affix, saved.sampler) == ('{"client":"Müller"}', "RAW", "DPM++ 2M")
    assert saved.crc32 == zlib.crc32(Path(saved.path).read_bytes())
    found = files.row_of(saved.path)
    assert found is not None
    assert abs(found.saved_at - saved.saved_at) < 60
    if kind == "exr":
        saved = replace(saved, width=0, height=0)  # its header is not read
    assert files.merged(found, saved) == replace(saved, saved_at=found.saved_at)


def test_a_row_knows_the_folder_behind_a_link(tmp_path: Path, store: Store, catalogue: Catalogue) -> None:
    disk, link = tmp_path / "disk", tmp_path / "link"
    disk.mkdir()
    link.symlink_to(disk)
    assert save(disk, "png").real_folder == ""
    saved = save(link, "webp")
    store.put([saved])
    (found,) = catalogue.search()
    again = files.row_of(saved.path)
    assert again is not None
    assert found.real_folder == again.real_folder == saved.real_folder == str(disk)


@pytest.mark.parametrize("embed", ["none", "parameters"])
def test_what_is_not_in_the_file_is_not_in_its_row(tmp_path: Path, embed: str) -> None:
    saved = save(tmp_path, "png", embed=embed)
    assert bool(saved.prompt) == bool(saved.model) == bool(saved.custom) == (embed == "parameters")


def test_a_secret_is_masked_in_the_row(tmp_path: Path) -> None:
    secret = "sk-proj-" + "a8Fq3Zt9" * 5
    text = f"a cat {secret}"
    saved = save(
        tmp_path, "png", metadata=json.dumps({"positive": text}), custom_metadata=json.dumps({"k": secret})
    )
    assert "a cat" in saved.prompt
    assert secret not in json.dumps(saved.to_map())
    assert secret.encode() not in Path(saved.path).read_bytes()


def text_png(path: Path, **texts: str) -> None:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text, zip=key == "workflow")
    Image.fromarray(PIXELS).save(path, pnginfo=info)


def test_png_files_of_others(tmp_path: Path) -> None:
    text_png(tmp_path / "a1111.png", parameters="a cat\nNegative prompt: dog\nSteps: 5, Seed: 7, Model: m")
    row = files.row_of(str(tmp_path / "a1111.png"))
    assert row is not None
    assert (row.prompt, row.negative, row.seed, row.model, row.width, row.height) == (
        "a cat",
        "dog",
        7,
        "m",
        60,
        40,
    )
    graph = {
        "1": {
            "class_type": "KSampler",
            "inputs": {"seed": 9, "steps": 3, "model": ["2", 0], "positive": ["3", 0]},
        },
        "2": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "b.safetensors"}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "ein Boot", "clip": ["2", 1]}},
    }
    text_png(tmp_path / "comfy.png", prompt=json.dumps(graph), workflow="{}")
    row = files.row_of(str(tmp_path / "comfy.png"))
    assert row is not None
    assert (row.prompt, row.seed, row.model) == ("ein Boot", 9, "b")


def test_texts_behind_the_pixels_compressed_and_international_ones(tmp_path: Path) -> None:
    path = tmp_path / "late.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    text = "ein Café\nSteps: 5, Seed: 8".encode()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    international = b"parameters\0\1\0de\0\0" + zlib.compress(text)
    path.write_bytes(data[:-12] + chunk(b"iTXt", international) + data[-12:])
    row = files.row_of(str(path))
    assert row is not None
    assert (row.prompt, row.seed) == ("ein Café", 8)
    compressed = b"parameters\0\0" + zlib.compress(text.decode().encode("latin-1"))
    path.write_bytes(data[:-12] + chunk(b"zTXt", compressed) + data[-12:])
    row = files.row_of(str(path))
    assert row is not None
    assert (row.prompt, row.seed) == ("ein Café", 8)


def test_jpeg_and_webp_files_of_others(tmp_path: Path) -> None:
    for name, order in (("be.jpg", "utf-16-be"), ("le.webp", "utf-16-le")):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "a cat\nSteps: 5, Seed: 7".encode(order)
        Image.fromarray(PIXELS).save(tmp_path / name, exif=exif)
        row = files.row_of(str(tmp_path / name))
        assert row is not None
        assert (row.prompt, row.seed) == ("a cat", 7), name


def test_a_folder_is_read_and_what_is_gone_leaves(
    tmp_path: Path, store: Store, catalogue: Catalogue, make_row: MakeRow
) -> None:
    out = tmp_path / "out"
    (out / "b" / "_discarded").mkdir(parents=True)
    text_png(out / "one.png", parameters="one\nSeed: 1")
    text_png(out / "b" / "two.PNG", parameters="two\nSeed: 2")
    text_png(out / "b" / "_discarded" / "three.png", parameters="three\nSeed: 3")
    (out / "no.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    (out / "empty.jpg").touch()
    (out / "notes.txt").write_text("no image")
    gone = make_row(path=str(out / "gone.png"))
    elsewhere = make_row(path=str(tmp_path / "out2" / "x.png"))
    store.put([gone, elsewhere])
    done = rebuild.rebuild(store, [str(out)], FIELDS)
    assert (done.images, done.unreadable, done.removed) == (3, 2, 1)
    assert {row.prompt: row.state for row in catalogue.search() if row.prompt} == {
        "one": "saved",
        "two": "saved",
        "three": "discarded",
    }
    assert catalogue.search("two")[0].path == str(out / "b" / "two.PNG")
    assert any(row.path == elsewhere.path for row in catalogue.search())
    again = rebuild.rebuild(store, [str(out)], ["seed"])
    assert (again.images, again.removed) == (3, 0)
    assert catalogue.count(Query()) == 4
    assert not any(row.prompt for row in catalogue.search()), "it is not kept any more"


def test_rows_of_images_that_the_walk_does_not_meet_stay(
    tmp_path: Path, store: Store, catalogue: Catalogue, make_row: MakeRow
) -> None:
    out = tmp_path / "out"
    (out / "real").mkdir(parents=True)
    text_png(out / "real" / "linked.png", parameters="linked\nSeed: 1")
    (out / "link").symlink_to(out / "real")
    for name in ("a_00001.zip", "a_00001.tar", "not.txt"):
        (out / name).touch()
    kept = ("a_00001.zip/x.png", "a_00001.tar/RAW/y.png", "link/linked.png")
    gone = ("b_00001.zip/x.png", "not.txt/x.png", "real/x.png")
    store.put([make_row(path=str(out / path)) for path in (*kept, *gone)])
    done = rebuild.rebuild(store, [str(out)], FIELDS)
    assert (done.images, done.removed) == (1, 3)
    left = {row.path for row in catalogue.search()}
    assert left == {str(out / path) for path in (*kept, "real/linked.png")}


def test_an_image_that_is_saved_during_a_rebuild_keeps_its_row(
    tmp_path: Path, store: Store, catalogue: Catalogue, make_row: MakeRow
) -> None:
    text_png(tmp_path / "b.png", parameters="b\nSeed: 1")

    def saved_meanwhile(done: rebuild.Rebuilt) -> None:
        text_png(tmp_path / "a.png", parameters="a\nSeed: 2")
        store.put([make_row(path=str(tmp_path / "a.png"))])

    assert rebuild.rebuild(store, [str(tmp_path)], FIELDS, progress=saved_meanwhile).removed == 0
    assert {Path(row.path).name for row in catalogue.search()} == {"a.png", "b.png"}


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, store: Store, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    text_png(closed / "a.png", parameters="a\nSeed: 1")
    store.put([make_row(path=str(closed / "a.png"))])
    scandir = os.scandir

    def refused(path: str) -> Any:
        if path == str(closed):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    done = rebuild.rebuild(store, [str(tmp_path)], FIELDS)
    assert (done.unlisted, done.removed) == ([str(closed)], 0)


def test_a_file_that_cannot_be_looked_for_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    assert files.is_gone(str(tmp_path / "x.png"))
    assert not files.is_gone("s3://bucket/x.png")
    monkeypatch.setattr("os.lstat", refused)
    assert not files.is_gone(str(tmp_path / "x.png"))


def test_what_only_the_farm_knows_stays(tmp_path: Path, store: Store, catalogue: Catalogue) -> None:
    saved = save(tmp_path, "png")
    store.put([saved])
    (before,) = catalogue.search()
    rebuild.rebuild(store, [str(tmp_path)], FIELDS)
    assert catalogue.search() == [before]
    (tmp_path / "a_png.png").unlink()
    text_png(tmp_path / "a_png.png", parameters="another\nSeed: 1")
    rebuild.rebuild(store, [str(tmp_path)], FIELDS)
    (row,) = catalogue.search()
    assert (row.prompt, row.job_id, row.phash) == ("another", "", "")


def test_pixels_are_read_when_that_is_asked_for(tmp_path: Path, store: Store, catalogue: Catalogue) -> None:
    saved = save(tmp_path, "png")
    (tmp_path / "broken.png").write_bytes(Path(saved.path).read_bytes()[:3000])
    rebuild.rebuild(store, [str(tmp_path)], FIELDS, pixels=True)
    row, broken = sorted(catalogue.search(), key=lambda row: row.path)
    assert (row.phash, row.crc32, row.variance) == (saved.phash, saved.crc32, saved.variance)
    assert (broken.phash, broken.seed) == ("", 2**64 - 1)


def test_a_folder_that_is_not_there_removes_no_rows(tmp_path: Path, store: Store, make_row: MakeRow) -> None:
    store.put([make_row(path=str(tmp_path / "away" / "x.png"))])
    with pytest.raises(FileNotFoundError):
        rebuild.rebuild(store, [str(tmp_path / "away")], FIELDS)
    assert list(store.below(str(tmp_path / "away") + "/"))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400), st.sampled_from(sorted(files.ENDINGS)), st.integers(0, 60), st.booleans())
def test_no_file_is_too_odd(tmp_path: Path, data: bytes, ending: str, keep: int, png: bool) -> None:
    path = tmp_path / f"x{ending}"
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" if png else b""
    path.write_bytes(head[:keep] + data)
    files.row_of(str(path))
    path.unlink()


def test_files_that_are_no_images(tmp_path: Path) -> None:
    assert files.row_of(str(tmp_path / "none.png")) is None
    (tmp_path / "a.txt").write_text("x")
    assert files.row_of(str(tmp_path / "a.txt")) is None
