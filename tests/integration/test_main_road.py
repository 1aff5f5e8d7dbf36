"""From pixels in a program to files on a disk, through a real farm."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from farm_process import FarmProcess, until
from numpy.typing import NDArray
from PIL import Image

from luna_farm.errors import ArenaError
from luna_farm.storage.thumbnails import Thumbnails
from luna_farm_client import AsyncFarmClient, FarmClient, JobReport, SaveImage, SaveRequest


def floats(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Values on both sides of 0..1, as a decoder makes them."""
    return np.random.default_rng(seed).normal(0.5, 0.4, shape).astype(np.float32)


def as_comfyui(x: NDArray[np.float32]) -> NDArray[np.uint8]:
    """What ComfyUI's own node makes of it."""
    return np.clip(255.0 * x, 0, 255).astype(np.uint8)


def smooth(height: int = 64, width: int = 96) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 2, columns * 2, rows + columns], -1).astype(np.uint8)


def save(shared_farm: FarmProcess, out: Path, *images: SaveImage, **fields: Any) -> JobReport:
    """Save, wait, and check what holds for every job: the names of the receipt are those of the files."""
    with shared_farm.client() as farm:
        receipt = farm.submit(SaveRequest(images, output_dir=out, **{"filename": "a", **fields}))
        report = farm.wait(receipt.job_id, timeout=120)
    saved = [image for image in report.images if image.state == "saved"]
    assert [image.path for image in saved] == [receipt.paths[image.index] for image in saved]
    return report


def files(folder: Path) -> list[str]:
    """The files below a folder, once the temporary links of the last ones are gone."""

    def below() -> list[str]:
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    until(lambda: not [name for name in below() if ".luna-" in name], "no temporary link is left")
    return below()


def opened(path: str) -> NDArray[np.uint8]:
    with Image.open(path) as sample:
        return np.asarray(sample)


@pytest.mark.parametrize(
    "shape", [(33, 47), (33, 47, 1), (33, 47, 3), (33, 47, 4), (1, 1, 3), (2, 16, 16, 3)]
)
@pytest.mark.parametrize("level", [0, 1, 4, 9])
def test_every_png_holds_the_pixels_that_comfyui_would_have_written(
    shared_farm: FarmProcess, tmp_path: Path, shape: tuple[int, ...], level: int
) -> None:
    x = floats(*shape)
    report = save(shared_farm, tmp_path, SaveImage(x), png_compression=level)
    expected = as_comfyui(x).reshape(-1, *shape[-3:]) if len(shape) == 4 else as_comfyui(x)[np.newaxis]
    assert report.state == "done"
    for image, pixels in zip(report.images, expected, strict=True):
        assert np.array_equal(opened(image.path), pixels.squeeze(-1) if pixels.shape[-1:] == (1,) else pixels)


@pytest.mark.parametrize("channels", [3, 4])
def test_a_lossless_webp_holds_them_too(shared_farm: FarmProcess, tmp_path: Path, channels: int) -> None:
    x = np.random.default_rng(1).random((31, 45, channels)).astype(np.float32)
    x[..., 3:] = np.maximum(x[..., 3:], 0.5)  # what is wholly transparent has no colour
    report = save(shared_farm, tmp_path, SaveImage(x, "RAW", "webp"), lossless_webp=True)
    assert report.images[0].path.endswith("a_RAW.webp")
    assert np.array_equal(opened(report.images[0].path), as_comfyui(x))


@pytest.mark.parametrize(("format_name", "extension"), [("jpeg", "jpg"), ("webp", "webp")])
def test_a_lossy_image_is_close(
    shared_farm: FarmProcess, tmp_path: Path, format_name: str, extension: str
) -> None:
    report = save(shared_farm, tmp_path, SaveImage(smooth(), "RAW", format_name), lossy_quality=95)
    (path,) = report.paths
    assert path == str(tmp_path / f"a_RAW.{extension}")
    assert np.abs(opened(path).astype(int) - smooth()).mean() < 3


def test_any_strides_and_types(shared_farm: FarmProcess, tmp_path: Path) -> None:
    x = floats(3, 20, 30)
    given = [
        np.moveaxis(x, 0, -1),
        floats(20, 30, 3)[::-1, ::2],
        floats(20, 30, 3).astype(np.float64),
        smooth()[::2],
    ]
    report = save(shared_farm, tmp_path, *map(SaveImage, given))
    for image, pixels in zip(report.images, given, strict=True):
        expected = pixels if pixels.dtype == np.uint8 else np.clip(255.0 * pixels, 0, 255).astype(np.uint8)
        assert np.array_equal(opened(image.path), expected)


def test_tensors_are_taken_as_they_are(shared_farm: FarmProcess, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="NOT TESTED: tensors need torch")
    x = floats(1, 16, 24, 3)
    report = save(
        shared_farm, tmp_path, SaveImage(torch.from_numpy(x)), SaveImage(torch.from_numpy(x).bfloat16())
    )
    assert np.array_equal(opened(report.images[0].path), as_comfyui(x)[0])
    assert np.abs(opened(report.images[1].path).astype(int) - as_comfyui(x)[0]).max() <= 2


def test_one_bad_image_of_five_fails_alone(shared_farm: FarmProcess, tmp_path: Path) -> None:
    images = [SaveImage(smooth(), str(n), "jpeg") for n in range(5)]
    images[2].pixels = np.zeros((1, 65536, 3), np.uint8)  # one more than a JPEG can be wide
    report = save(shared_farm, tmp_path, *images)
    assert [image.state for image in report.images] == ["saved", "saved", "failed", "saved", "saved"]
    failed = report.images[2]
    assert failed.code == "encode"
    assert "65" in failed.error
    assert report.state == "failed"
    assert len(files(tmp_path)) == 4
    with shared_farm.client() as farm:
        assert {"job_id": report.job_id, "index": 2} in [
            {key: letter[key] for key in ("job_id", "index")} for letter in farm.status()["dead_letters"]
        ]
        farm.retry(report.job_id)
        assert farm.wait(report.job_id, timeout=60).images[2].state == "failed"


def test_a_batch_is_numbered_and_names_that_exist_are_kept(shared_farm: FarmProcess, tmp_path: Path) -> None:
    batch = np.stack([np.full((8, 8, 3), n, np.uint8) for n in range(3)])
    for _ in range(2):
        save(
            shared_farm,
            tmp_path,
            SaveImage(batch, "RAW", subdir=True),
            SaveImage(smooth(), "B"),
            save_path="s",
        )
    assert files(tmp_path) == [
        "s/RAW/a_RAW_0.png",
        "s/RAW/a_RAW_0_00001.png",
        "s/RAW/a_RAW_1.png",
        "s/RAW/a_RAW_1_00001.png",
        "s/RAW/a_RAW_2.png",
        "s/RAW/a_RAW_2_00001.png",
        "s/a_B.png",
        "s/a_B_00001.png",
    ]
    assert opened(str(tmp_path / "s/RAW/a_RAW_2_00001.png"))[0, 0, 0] == 2


@pytest.mark.parametrize(
    ("on_reject", "state", "name"),
    [
        ("discard", "discarded", "s/_discarded/a_RAW.png"),
        ("keep", "saved", "s/RAW/a_RAW.png"),
        ("drop", "dropped", ""),
    ],
)
def test_what_the_gate_rejects(
    shared_farm: FarmProcess, tmp_path: Path, on_reject: str, state: str, name: str
) -> None:
    report = save(
        shared_farm,
        tmp_path,
        SaveImage(np.full((16, 16, 3), 90, np.uint8), "RAW", subdir=True),
        SaveImage(np.asarray(floats(16, 16, 3)), "GOOD"),
        save_path="s",
        quality_gate="both",
        on_reject=on_reject,
    )
    flat, good = report.images
    assert (flat.state, flat.score, flat.threshold) == (state, 0.0, 0.3)
    assert good.state == "saved"
    assert good.score is not None
    assert good.score > 0.3
    assert report.state == "done"
    assert set(files(tmp_path)) == {"s/a_GOOD.png"} | ({name} if name else set())


class NoSegments:
    """A place where the farm's memory cannot be had: another host, another container."""

    def arena(self, segment: str) -> object:
        raise ArenaError(f"{segment} is not here")

    def close(self) -> None:
        pass


def test_without_shared_memory_the_bytes_come_over_the_wire(shared_farm: FarmProcess, tmp_path: Path) -> None:
    images = [SaveImage(floats(200, 300, 3, seed=n), str(n)) for n in range(3)]
    with shared_farm.client() as farm:
        farm._segments = NoSegments()  # type: ignore[assignment]
        for _ in range(2):
            receipt = farm.submit(SaveRequest(images, output_dir=tmp_path, filename="a"))
            report = farm.wait(receipt.job_id, timeout=60)
            for image, given in zip(report.images, images, strict=True):
                assert np.array_equal(opened(image.path), as_comfyui(given.pixels))


async def test_nor_for_the_asynchronous_client(shared_farm: FarmProcess, tmp_path: Path) -> None:
    x = floats(200, 300, 3)
    async with AsyncFarmClient("127.0.0.1", shared_farm.port, shared_farm.token) as farm:
        farm._segments = NoSegments()  # type: ignore[assignment]
        receipt = await farm.submit(SaveRequest([SaveImage(x)], output_dir=tmp_path, filename="a"))
        report = await farm.wait(receipt.job_id, timeout=60)
    assert np.array_equal(opened(report.paths[0]), as_comfyui(x))


def test_a_durable_job_is_saved_like_any_other_and_its_spool_goes(
    shared_farm: FarmProcess, tmp_path: Path
) -> None:
    report = save(shared_farm, tmp_path, SaveImage(floats(2, 32, 32, 3)), durable=True)
    assert report.state == "done"
    assert len(files(tmp_path)) == 2
    until(lambda: not list((shared_farm.state / "spool").iterdir()), "the copies on disk are removed")


def test_what_has_not_begun_can_be_cancelled(shared_farm: FarmProcess, tmp_path: Path) -> None:
    with shared_farm.client() as farm:
        noisy = [
            SaveImage(np.random.default_rng(n).integers(0, 256, (700, 700, 3), np.uint8)) for n in range(40)
        ]
        receipt = farm.submit(SaveRequest(noisy, output_dir=tmp_path, filename="a", png_compression=9))
        cancelled = farm.cancel(receipt.job_id)
        assert "cancelled" in {image.state for image in cancelled.images}
        report = farm.wait(receipt.job_id, timeout=120)
    assert report.state == "cancelled"
    assert [str(tmp_path / name) for name in files(tmp_path)] == sorted(report.paths)


@pytest.mark.parametrize(
    ("fields", "word"),
    [({"images": 5}, "images"), ({"images": ["x"]}, "a list of maps"), ({"images": {"a": 1}}, "images")],
)
def test_odd_images_on_the_wire_are_told_in_a_sentence(
    shared_farm: FarmProcess, fields: dict[str, Any], word: str
) -> None:
    with shared_farm.wire() as wire:
        wire.hello(shared_farm.token)
        submit = {"cmd": "save_images_async", "request_id": "12345678", "timestamp": "2026-01-02", **fields}
        answer = wire.ask({**submit, "id": 3})
        assert (answer["code"], answer["id"]) == ("invalid", 3)
        assert word in answer["error"]
        assert wire.ask({"cmd": "ping", "id": 4})["pong"]


def test_a_client_that_leaves_while_it_fills_leaves_nothing(shared_farm: FarmProcess, tmp_path: Path) -> None:
    image = {"shape": [1, 4, 4, 3], "subdir": False}
    submit = {"cmd": "save_images_async", "id": 3, "timestamp": "2026-01-02", "output_dir": str(tmp_path)}
    with shared_farm.wire() as wire:
        wire.hello(shared_farm.token)
        lease = wire.ask({"cmd": "lease", "sizes": [48], "id": 2})["leases"][0]["lease"]
        assert lease
        wire.send({**submit, "request_id": "left-alone", "filename": "a", "images": [image]})
        assert wire.ask({"cmd": "ping", "id": 4})["id"] == 4, "it was looked at, and has no answer yet"
    with shared_farm.client() as farm:
        before = farm.status()
        assert before["queue"]["images"] == 0
    report = save(shared_farm, tmp_path, SaveImage(np.zeros((4, 4, 3), np.uint8)))
    assert [Path(path).name for path in report.paths] == ["a.png"], "the name is free again"
    assert [path.name for path in tmp_path.glob("*.png")] == ["a.png"]
    with shared_farm.client() as farm:
        assert farm.status()["totals"]["jobs"] == before["totals"]["jobs"] + 1


def test_the_client_of_this_page_is_the_one_that_is_shipped(shared_farm: FarmProcess) -> None:
    with shared_farm.client() as farm:
        assert isinstance(farm, FarmClient)
        assert farm.status()["encoders"]["png"] in ("kernel", "library")


def test_every_image_gets_a_thumbnail_once_the_farm_is_idle(shared_farm: FarmProcess, tmp_path: Path) -> None:
    kinds = [SaveImage(floats(1, 300, 200, 3), affix=form, format=form) for form in ("png", "jpeg", "webp")]
    report = save(shared_farm, tmp_path, *kinds)
    store = Thumbnails(shared_farm.state / "thumbnails.sqlite", 0)
    keys = [(report.job_id, image.index) for image in report.images]
    until(lambda: len(list(store.get(keys))) == len(kinds), "the thumbnails are made")
    for _, _, jpeg in store.get(keys):
        with Image.open(io.BytesIO(jpeg)) as small:
            assert (small.format, small.size) == ("JPEG", (171, 256))


def test_files_that_exist_are_skipped_and_cost_no_worker(
    start_farm: Callable[..., FarmProcess], tmp_path: Path
) -> None:
    farm = start_farm(min_workers=1, max_workers=1)
    pixels, worker = np.zeros((8, 8, 3), np.uint8), 0
    with farm.client() as client:
        for states in (["saved", "saved"], ["dropped", "dropped"]):
            images = [SaveImage(pixels, affix="A"), SaveImage(pixels, affix="B")]
            request = SaveRequest(images, output_dir=tmp_path, filename="x", if_exists="skip")
            report = client.wait(client.submit(request), timeout=60)
            assert [image.state for image in report.images] == states
            worker = worker or client.status()["workers"][0]["pid"]
        assert "exists already" in report.images[0].warnings[0]
        assert client.status()["workers"][0]["pid"] == worker
