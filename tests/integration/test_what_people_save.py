"""What people hand over, through a real farm: odd metadata, metadata of single images, file times, links."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from farm_process import FarmProcess, until
from PIL import Image

from luna_farm.errors import InvalidRequest
from luna_farm_client import JobReport, SaveImage, SaveRequest, save_here

PIXELS = np.zeros((8, 12, 3), np.uint8)


def graph(seed: int, model: str) -> dict[str, Any]:
    """The prompt of a plain KSampler."""
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {"seed": seed, "steps": 20, "model": ["4", 0], "latent_image": ["5", 0]},
            "_meta": {"title": "KSampler"},
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": model}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64}},
    }


WORKFLOW = {"nodes": [{"id": 3, "properties": {"Node name for S&R": "KSampler"}}]}


def save(farm: FarmProcess, out: Path, *images: SaveImage, **fields: Any) -> JobReport:
    with farm.client() as client:
        request = SaveRequest(images, output_dir=out, **{"filename": "a", **fields})
        return client.wait(client.submit(request), timeout=60)


def texts(path: str) -> dict[str, str]:
    with Image.open(path) as image:
        return dict(image.text)  # type: ignore[attr-defined]


NAME = "%model_name%_%seed%_%KSampler.seed%_%KSampler.steps%"


@pytest.mark.parametrize(
    "given",
    [
        {"prompt": graph(5, "SDXL/base.safetensors"), "workflow": WORKFLOW},
        {"prompt": json.dumps(graph(5, "SDXL/base.safetensors")), "workflow": json.dumps(WORKFLOW)},
    ],
    ids=["maps", "as the texts of a PNG"],
)
@pytest.mark.parametrize("of_image", [True, False])
def test_names_and_files_take_their_facts_from_a_prompt_among_the_metadata(
    shared_farm: FarmProcess, tmp_path: Path, given: dict[str, Any], of_image: bool
) -> None:
    image = SaveImage(PIXELS, metadata=given if of_image else None)
    fields = {} if of_image else {"metadata": given}
    (saved,) = save(shared_farm, tmp_path, image, filename=NAME, **fields).images
    assert os.path.basename(saved.path) == "base_5_5_20.png"
    found = texts(saved.path)
    assert json.loads(found["prompt"]) == graph(5, "SDXL/base.safetensors")
    assert json.loads(found["workflow"]) == WORKFLOW
    assert "Seed: 5, " in found["parameters"]
    assert (found["model_name"], found["model_path"]) == ("base", "SDXL/base")
    assert "generation_metadata" not in found  # it is in the graph


def test_each_image_has_the_facts_of_its_own_prompt(shared_farm: FarmProcess, tmp_path: Path) -> None:
    images = [
        SaveImage(PIXELS, "A", metadata={"prompt": graph(1, "one.ckpt")}),
        SaveImage(PIXELS, "B", metadata={"seed": 2, "model_name": "two.gguf"}),
        SaveImage(PIXELS, "C"),
        SaveImage(PIXELS, "D", metadata={"parameters": "a cat\nSteps: 3, Seed: 4, Model: four"}),
    ]
    shared = {"prompt": graph(9, "nine.ckpt"), "extra_pnginfo": {"workflow": WORKFLOW}}
    report = save(shared_farm, tmp_path, *images, filename="%model_name%_%seed%", **shared)
    names = [os.path.basename(image.path) for image in report.images]
    assert names == ["one_1_A.png", "two_2_B.png", "nine_9_C.png", "four_4_D.png"]
    found = [texts(image.path) for image in report.images]
    assert json.loads(found[0]["prompt"]) == graph(1, "one.ckpt")
    assert json.loads(found[2]["prompt"]) == graph(9, "nine.ckpt")
    assert found[3]["parameters"] == "a cat\nSteps: 3, Seed: 4, Model: four"


def test_what_is_not_known_is_in_no_file(shared_farm: FarmProcess, tmp_path: Path) -> None:
    unknown = {
        "model_name": "UnknownModel",
        "sampler_name": None,
        "scheduler": "unknown",
        "seed": "",
        "steps": 4,
    }
    for name in ("png", "jpeg", "tiff"):
        image = SaveImage(PIXELS, format=name, metadata=unknown)
        options = {"model_name": "UnknownModel", "metadata": unknown, "sidecar": "always"}
        (saved,) = save(shared_farm, tmp_path / name, image, **options).images
        for path in (Path(saved.path), Path(saved.path).with_suffix(".json")):
            text = path.read_bytes().lower()
            assert b"steps" in text
            for word in (b"unknown", b"sampler", b"scheduler", b"seed", b"model_name"):
                assert word not in text, (name, word)


@pytest.mark.parametrize("name", ["png", "webp", "tiff"])
def test_a_model_that_is_called_unknown_is_known(shared_farm: FarmProcess, tmp_path: Path, name: str) -> None:
    of_graph = {"prompt": graph(5, "SDXL/unknown.safetensors")}
    for given in (of_graph, {"model_name": "SDXL\\unknown.safetensors", "metadata": {"steps": 4}}):
        image = SaveImage(PIXELS, format=name)
        report = save(shared_farm, tmp_path, image, filename="%model_name%", sidecar="always", **given)
        (saved,) = report.images
        assert Path(saved.path).name.startswith("unknown")
        beside = json.loads(Path(saved.path).with_suffix(".json").read_text("ascii"))
        assert (beside["model_name"], beside["model_path"]) == ("unknown", "SDXL/unknown")
        assert "Model: unknown" in beside["parameters"]


def nested(levels: int) -> Any:
    deep: Any = "bottom"
    for _ in range(levels):
        deep = [deep]
    return deep


@pytest.mark.parametrize("levels", [900, 50_000])
def test_metadata_of_any_depth_is_beside_the_image(
    shared_farm: FarmProcess, tmp_path: Path, levels: int
) -> None:
    extra = {"workflow": {"nodes": nested(levels)}}
    report = save(shared_farm, tmp_path, SaveImage(PIXELS), extra_pnginfo=extra, prompt=graph(1, "a.ckpt"))
    (image,) = report.images
    assert image.state == "saved"
    assert "nested" in " ".join(image.warnings)
    assert "Seed: 1" in texts(image.path)["parameters"]
    beside = json.loads((tmp_path / "a.json").read_text("ascii"))
    assert beside["extra_pnginfo"].count("[") == levels


def test_metadata_that_is_not_json_costs_no_image(shared_farm: FarmProcess, tmp_path: Path) -> None:
    own = {(1, 2): 3}
    image = SaveImage(PIXELS, metadata=own)  # type: ignore[arg-type]
    report = save(shared_farm, tmp_path, image, custom_metadata='{"artist": "me"')
    assert report.images[0].state == "saved"
    assert "metadata of an image" in report.warnings[0]
    assert "custom_metadata is not readable as JSON" in report.images[0].warnings[0]
    assert json.loads(texts(report.images[0].path)["custom_metadata"]) == '{"artist": "me"'


def test_files_sort_by_time_as_the_images_came(shared_farm: FarmProcess, tmp_path: Path) -> None:
    """The first image takes longest by far, and two workers save."""
    slow = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    images = [SaveImage(slow, "slow"), *(SaveImage(np.stack([PIXELS] * 8), str(n), "webp") for n in range(3))]
    with shared_farm.client() as client:
        jobs = [
            client.submit(SaveRequest(images, tmp_path, filename=name, png_compression=9, sidecar="always"))
            for name in ("b", "a")
        ]
        reports = [client.wait(job, timeout=60) for job in jobs]
    paths = [image.path for report in reports for image in report.images]
    times = [os.stat(path).st_mtime_ns for path in paths]
    assert len(paths) == 50
    assert times == sorted(set(times))
    assert os.stat(Path(paths[3]).with_suffix(".json")).st_mtime_ns == times[3]
    assert not list(tmp_path.rglob(".luna-*"))


@pytest.fixture(scope="module")
def linking_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarmProcess]:
    """A farm that follows links, as far as they end below its own folder `in`."""
    home = tmp_path_factory.mktemp("links")
    (home / "in").mkdir()
    farm = FarmProcess(home, follow_links="true", allowed_dirs=home / "in").start()
    yield farm
    farm.stop()


def test_a_linked_folder_is_followed_where_the_farm_is_set_up_for_it(linking_farm: FarmProcess) -> None:
    out, disk, elsewhere = (linking_farm.home / name for name in ("in/out", "in/disk", "elsewhere"))
    for folder in (out, disk, elsewhere):
        folder.mkdir()
    (out / "shots").symlink_to(disk)
    (out / "away").symlink_to(elsewhere)
    (out / "gone").symlink_to(linking_farm.home / "nowhere")
    (out / "loop").symlink_to("loop")
    flat = {"quality_gate": "variance", "min_quality_threshold": 0.5}
    batch = np.stack([PIXELS] * 3)
    report = save(linking_farm, out, SaveImage(batch, "RAW", subdir=True), save_path="shots/new")
    assert [image.path for image in report.images] == [f"{out}/shots/new/RAW/a_RAW_{n}.png" for n in range(3)]
    assert sorted(path.name for path in (disk / "new" / "RAW").iterdir()) == [
        f"a_RAW_{n}.png" for n in range(3)
    ]
    again = save(linking_farm, out, SaveImage(PIXELS), save_path="shots/new/RAW", filename="a_RAW_0")
    assert again.paths == (f"{out}/shots/new/RAW/a_RAW_0_00001.png",)
    rejected = save(linking_farm, out, SaveImage(PIXELS), save_path="shots", **flat)
    assert rejected.paths == (f"{out}/shots/_discarded/a.png",)
    assert (disk / "_discarded" / "a.png").is_file()
    wrong = {"away": "allowed_dirs", "gone": "a link to no folder", "loop": "a link to no folder"}
    for name, reason in wrong.items():
        with pytest.raises(InvalidRequest, match=reason):
            save(linking_farm, out, SaveImage(PIXELS), save_path=name)
    assert not list(elsewhere.iterdir())


def test_a_link_that_is_swapped_after_the_check_leads_nowhere_else(linking_farm: FarmProcess) -> None:
    """Images wait in the farm while the link they go through is turned around."""
    out, disk, elsewhere = (linking_farm.home / name for name in ("in/turn", "in/turned", "other"))
    for folder in (out, disk, elsewhere):
        folder.mkdir()
    (out / "shots").symlink_to(disk)
    slow = np.random.default_rng(0).integers(0, 256, (6, 900, 900, 3), np.uint8)
    with linking_farm.client() as client:
        job = client.submit(
            SaveRequest([SaveImage(slow)], out, save_path="shots", filename="a", png_compression=9)
        )
        (out / "new").symlink_to(elsewhere)
        os.replace(out / "new", out / "shots")
        until(
            lambda: client.job(job.job_id).images[-1].state in ("held", "saved"),
            "the last image is dealt with",
        )
        assert not list(elsewhere.iterdir())
        (out / "back").symlink_to(disk)
        os.replace(out / "back", out / "shots")
        report = client.wait(job, timeout=60)
    assert [image.state for image in report.images] == ["saved"] * 6
    assert len(list(disk.iterdir())) == 6


def test_without_the_setting_a_link_is_refused_and_the_sentence_names_the_setting(
    shared_farm: FarmProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "shots").symlink_to(tmp_path / "disk")
    request = SaveRequest([SaveImage(PIXELS)], tmp_path / "out", save_path="shots", filename="a")
    with shared_farm.client() as client, pytest.raises(InvalidRequest, match="follow_links"):
        client.submit(request)
    monkeypatch.delenv("LUNA_FARM_FOLLOW_LINKS", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidRequest, match="follow_links"):
        save_here(request)
    monkeypatch.setenv("LUNA_FARM_FOLLOW_LINKS", "true")
    assert save_here(request).paths == (f"{tmp_path}/out/shots/a.png",)
    assert (tmp_path / "disk" / "a.png").is_file()


def test_gray_with_alpha_is_saved_as_comfyui_saves_it(shared_farm: FarmProcess, tmp_path: Path) -> None:
    pair = np.random.default_rng(0).random((2, 8, 12, 2)).astype(np.float32)
    report = save(shared_farm, tmp_path, SaveImage(pair))
    for image, given in zip(report.images, pair, strict=True):
        expected = np.clip(255.0 * given, 0, 255).astype(np.uint8)[..., [0, 0, 0, 1]]
        with Image.open(image.path) as saved:
            assert np.array_equal(np.asarray(saved), expected)


def test_each_image_and_its_json_share_a_stem(shared_farm: FarmProcess, tmp_path: Path) -> None:
    images = [SaveImage(PIXELS, "A", name) for name in ("jpeg", "png", "webp")]
    report = save(shared_farm, tmp_path, *images, sidecar="always", metadata={"steps": 1})
    stems = {Path(image.path).stem for image in report.images}
    assert stems == {"a_A", "a_A_00001", "a_A_00002"}
    assert {path.stem for path in tmp_path.glob("*.json")} == stems


@pytest.mark.parametrize("form", ["png", "webp", "avif"])
def test_a_moving_image_has_its_json_too(shared_farm: FarmProcess, tmp_path: Path, form: str) -> None:
    frames = SaveImage(np.stack([PIXELS] * 2), format=form)
    moving = {"animation": {"fps": 5}, "metadata": {"steps": 1}}
    save(shared_farm, tmp_path / "always", frames, sidecar="always", **moving)
    assert "steps" in (tmp_path / "always" / "a.json").read_text()
    save(shared_farm, tmp_path / "auto", frames, **moving)
    assert not (tmp_path / "auto" / "a.json").exists()
    deep = {"workflow": {"nodes": nested(900)}}
    save(shared_farm, tmp_path / "deep", frames, extra_pnginfo=deep, **moving)
    assert "extra_pnginfo" in (tmp_path / "deep" / "a.json").read_text()


def test_the_json_of_a_replaced_image_is_renewed(shared_farm: FarmProcess, tmp_path: Path) -> None:
    for steps, sidecar in ((1, "always"), (2, "auto"), (3, "never")):
        how = {"if_exists": "overwrite", "sidecar": sidecar, "metadata": {"steps": steps}}
        save(shared_farm, tmp_path, SaveImage(PIXELS), **how)
        assert json.loads((tmp_path / "a.json").read_text())["generation_metadata"] == {"steps": steps}
    (tmp_path / "a.json").write_text('{"mine": 1}')
    save(shared_farm, tmp_path, SaveImage(PIXELS), if_exists="overwrite", metadata={"steps": 4})
    assert (tmp_path / "a.json").read_text() == '{"mine": 1}'
