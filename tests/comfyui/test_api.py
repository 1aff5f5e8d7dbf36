"""What a program sees that posts prompts to a real ComfyUI: files, names, metadata, history, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TITLE = "[Luna Daemon Image Saver]"


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def status(entry: dict[str, Any]) -> str:
    return str(entry["outputs"]["9"]["text"][0])


def test_a_png_is_saved_with_the_pixels_and_the_graph(comfy, running, prompt):
    asked = prompt()
    entry = comfy.run(asked, {"nodes": [], "title": "Bäume 月 🌙"})
    assert status(entry).startswith(f"{TITLE} Submitted 1 images to daemon. Job ID: ")
    output = comfy.settled(entry["prompt_id"])
    (path,) = comfy.files(*output["images"])
    assert path.name == f"{asked['9']['inputs']['filename']}_RAW.png"
    assert np.array_equal(pixels(path), pixels(comfy.base / "input" / "picture.png"))
    with Image.open(path) as image:
        assert json.loads(image.text["prompt"]) == asked
        assert json.loads(image.text["workflow"])["title"] == "Bäume 月 🌙"
        assert image.text["prompt"].isascii()


def test_five_images_in_five_formats(comfy, running, prompt):
    formats = ("png", "webp", "jpeg", "avif", "tiff")
    inputs = {f"image_{n}": ["1", 0] for n in range(1, 6)} | {
        f"format_{n}": f for n, f in enumerate(formats, 1)
    }
    entry = comfy.run(prompt(**inputs))
    output = comfy.settled(entry["prompt_id"])
    assert output["luna_farm"][0]["saved"] == 5, output
    for path in comfy.files(*output["images"]):
        with Image.open(path) as image:
            assert image.size == (256, 192), path


def test_stacks_bring_more_than_five_images(comfy, running, prompt):
    asked = prompt(**{f"image_{n}": ["1", 0] for n in range(1, 6)}, stack=["3", 0])
    images = {f"image_{n}": ["1", 0] for n in range(1, 6)}
    asked["2"] = {"class_type": "LunaImageStack", "inputs": {**images, "format_1": "webp"}}
    asked["3"] = {"class_type": "LunaImageStack", "inputs": {"image_1": ["1", 0], "stack": ["2", 0]}}
    output = comfy.settled(comfy.run(asked)["prompt_id"])
    assert output["luna_farm"][0]["saved"] == 11
    assert [path.suffix for path in comfy.files(*output["images"])] == [".png"] * 5 + [".webp"] + [".png"] * 5


def test_history_holds_relative_subfolders_and_view_serves_the_file_at_once(comfy, running, prompt):
    """A program fetches its pictures right after the prompt ended, when the farm may still be at them."""
    entry = comfy.run(prompt(save_path="deep/er", png_compression=9))
    (picture,) = entry["outputs"]["9"]["images"]
    assert picture["subfolder"] == "deep/er/RAW"
    assert picture["type"] == "output"
    assert comfy.view(picture).startswith(b"\x89PNG")


def test_same_inputs_are_not_saved_again(comfy, running, prompt):
    first = comfy.run(prompt())
    comfy.settled(first["prompt_id"])
    again = comfy.run(prompt())
    assert status(again) == status(first)
    assert len(list((comfy.base / "output" / "tests" / "RAW").glob("test_same_inputs*"))) == 1


def test_changed_inputs_never_overwrite(comfy, running, prompt):
    names = []
    for level in (1, 2, 3):
        entry = comfy.run(prompt(png_compression=level))
        names.append(comfy.settled(entry["prompt_id"])["images"][0]["filename"])
    assert len(set(names)) == 3


def test_tokens_resolve_from_the_prompt_of_an_api_user(comfy, running, prompt):
    entry = comfy.run(
        prompt(filename="t_%width%x%height%_%Quelle ü.image%_%model_name%", model_name="a/b.safetensors")
    )
    (picture,) = comfy.settled(entry["prompt_id"])["images"]
    assert picture["filename"] == "t_256x192_picture.png_b_RAW.png"


def test_a_rejected_picture_has_its_real_name_in_the_history(comfy, running, prompt):
    entry = comfy.run(prompt(source="flat.png", quality_gate="variance"))
    output = comfy.settled(entry["prompt_id"])
    (picture,) = output["images"]
    assert "_discarded" in picture["subfolder"]
    assert comfy.files(picture)[0].is_file()
    assert output["luna_farm"][0]["discarded"] == 1
    assert "is below 0.300" in output["luna_farm"][0]["reasons"][0]


def test_without_a_farm_it_says_so_and_saves_at_the_next_try(comfy, farm, prompt):
    farm.stop()
    entry = comfy.run(prompt())
    sentence = "Connection refused. Is daemon running? Start the farm: luna-farm start --detach"
    assert status(entry).startswith(f"{TITLE} ERROR: {sentence}")
    assert sentence in (comfy.base / "comfyui.log").read_text()
    assert entry["status"]["status_str"] == "success"
    farm.start()
    again = comfy.run(prompt())
    assert "Submitted 1 images" in status(again), "the node runs again though its inputs are the same"
    assert comfy.settled(again["prompt_id"])["luna_farm"][0]["saved"] == 1


def test_without_a_farm_it_can_stop_the_workflow_or_save_here(comfy, farm, prompt):
    farm.stop()
    entry = comfy.run(prompt(on_error="raise"))
    assert entry["status"]["status_str"] == "error"
    assert "Connection refused. Is daemon running?" in json.dumps(entry["status"]["messages"])
    entry = comfy.run(prompt(on_error="save_here"))
    assert status(entry).startswith(f"{TITLE} Saved 1 images in ")
    assert comfy.files(*entry["outputs"]["9"]["images"])[0].is_file()
    farm.start()


def test_a_restart_between_two_prompts_goes_unnoticed(comfy, running, prompt):
    comfy.settled(comfy.run(prompt(png_compression=1))["prompt_id"])
    running.stop()
    running.start()
    entry = comfy.run(prompt(png_compression=2))
    assert "Submitted 1 images" in status(entry)
    assert comfy.settled(entry["prompt_id"])["luna_farm"][0]["saved"] == 1


def test_custom_metadata_that_is_no_json_is_kept_as_a_text_with_a_warning(comfy, running, prompt):
    entry = comfy.run(prompt(custom_metadata="{nope"))
    assert "WARNING: custom_metadata: not readable as JSON" in status(entry)
    output = comfy.settled(entry["prompt_id"])
    with Image.open(*comfy.files(*output["images"])) as image:
        assert "{nope" in image.text["custom_metadata"]


def test_multi_saver_needs_no_farm(comfy, farm, prompt):
    farm.stop()
    asked = prompt("LunaMultiSaver", format_1="webp", lossless_webp=True)
    asked["10"] = {"class_type": "PreviewAny", "inputs": {"source": ["9", 1]}}
    entry = comfy.run(asked)
    assert status(entry).startswith("[Luna Multi Saver] Saved 1 images in ")
    (path,) = comfy.files(*entry["outputs"]["9"]["images"])
    assert np.array_equal(pixels(path), pixels(comfy.base / "input" / "picture.png"))
    assert entry["outputs"]["10"]["text"] == [str(path)]
    farm.start()


def test_barrier_gives_paths_of_files_that_exist(comfy, running, prompt):
    asked = prompt(image_2=["1", 0], png_compression=9)
    asked["10"] = {"class_type": "LunaSaveBarrier", "inputs": {"jobs": ["9", 0], "timeout": 60}}
    asked["11"] = {"class_type": "PreviewAny", "inputs": {"source": ["10", 0]}}
    entry = comfy.run(asked)
    lines = entry["outputs"]["10"]["text"][0].splitlines()
    assert [line.split(": ")[0] for line in lines] == ["saved", "saved"]
    for path in entry["outputs"]["11"]["text"]:
        assert Path(path).is_file()


def test_barrier_stops_with_the_reason_when_nothing_was_handed_over(comfy, farm, prompt):
    farm.stop()
    asked = prompt()
    asked["10"] = {"class_type": "LunaSaveBarrier", "inputs": {"jobs": ["9", 0], "timeout": 60}}
    entry = comfy.run(asked)
    assert entry["status"]["status_str"] == "error"
    assert "There is no job to wait for in: " in json.dumps(entry["status"]["messages"])
    farm.start()


def test_barrier_can_be_cancelled(comfy, running, prompt):
    with running.paused(), running.client() as client:
        before = {job.job_id for job in client.jobs()}
        asked = prompt()
        asked["10"] = {"class_type": "LunaSaveBarrier", "inputs": {"jobs": ["9", 0], "timeout": 600}}
        prompt_id = comfy.queue(asked)
        # The job is there, so the saver is done and the barrier is next.
        comfy.until(lambda: {job.job_id for job in client.jobs()} - before, "the job is accepted")
        comfy.post("/interrupt", {})
        entry = comfy.until(lambda: comfy.history(prompt_id), "the prompt ends")
        assert "execution_interrupted" in json.dumps(entry["status"]["messages"])
    assert comfy.settled(prompt_id)["luna_farm"][0]["saved"] == 1, "the job itself goes on"


def test_the_nodes_are_described(comfy, running):
    for name in ("LunaDaemonImageSaver", "LunaMultiSaver", "LunaSaveBarrier"):
        info = comfy.get(f"/object_info/{name}")[name]
        assert info["output_node"] is True
        assert info["category"] == "image/Luna Farm"
    assert "luna_save_in_background" in comfy.get("/workflow_templates")["luna-farm"]
    assert comfy.get("/object_info/LunaImageStack")["LunaImageStack"]["output"] == ["LUNA_IMAGES"]
    info = comfy.get("/object_info/LunaMetadata")["LunaMetadata"]
    assert info["output"] == ["METADATA"]
    words = comfy.get("/i18n")
    assert words["zh"]["nodeDefs"]["LunaSaveBarrier"]["display_name"] == "Luna 保存等待"
    assert words["fr"]["lunaFarm"]["idle"]


def test_loading_the_nodes_prints_no_traceback(comfy, running):
    log = (comfy.base / "comfyui.log").read_text()
    assert "IMPORT FAILED" not in log
    assert "Cannot import" not in log
    assert "custom_nodes/luna-farm" in log, "ComfyUI names it among its import times"
