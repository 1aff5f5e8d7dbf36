"""The savers as ComfyUI calls them: every input by name, a dict with `ui` and `result` back."""

from __future__ import annotations

import json
import os
import sys
from collections import namedtuple
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from luna_farm_client import FarmBusy, TooLarge
from luna_farm_nodes import NODE_CLASS_MAPPINGS, handover, host, installed, previews, widgets
from luna_farm_nodes.nodes import LunaDaemonImageSaver, LunaMetadata, LunaMultiSaver, LunaSaveBarrier

TITLE = "[Luna Daemon Image Saver]"
KNOWN = ["/models/checkpoints", "/more", "/models/loras"]


def defaults(inputs: widgets.Inputs) -> dict[str, Any]:
    """What ComfyUI passes when the user changed nothing and connected nothing."""
    given = {}
    for group in ("required", "optional"):
        for name, (kind, *options) in inputs[group].items():
            if options and "default" in options[0]:
                given[name] = options[0]["default"]
            elif isinstance(kind, list):
                given[name] = kind[0]
    return given | {
        "prompt": {"9": {"inputs": {}}},
        "extra_pnginfo": {"workflow": {"nodes": []}},
        "unique_id": "9",
    }


def run(node: Any, **inputs: Any) -> tuple[dict[str, Any], tuple[Any, ...]]:
    answer = node.save(**{**defaults(node.INPUT_TYPES()), **inputs})
    return answer["ui"], answer["result"]


def test_the_status_is_the_one_of_the_contract(comfy, farm, tensor):
    ui, result = run(LunaDaemonImageSaver(), image_1=tensor, image_3=tensor[:1])
    assert result[0] == f"{TITLE} Submitted 3 images to daemon. Job ID: a1b2c301"
    assert ui["text"] == [result[0]]


def test_the_tensor_itself_goes_to_the_client_unconverted(comfy, farm, tensor):
    run(LunaDaemonImageSaver(), image_2=tensor, affix_2="BIG", format_2="webp", subdir_2=False)
    (image,) = farm.requests[0].images
    assert image.pixels is tensor
    assert (image.affix, image.format, image.subdir) == ("BIG", "webp", False)


def test_every_widget_reaches_the_request(comfy, farm, tensor):
    given = {"save_path": "a/b", "filename": "f", "model_name": "m.safetensors", "quality_gate": "both",
             "min_quality_threshold": 0.5, "png_compression": 7, "lossy_quality": 80, "lossless_webp": True,
             "filename_index": 5, "custom_metadata": '{"a": 1}', "preset": "small",
             "outputs": "png, thumbnail", "bit_depth": "16", "provenance": "xmp", "sidecar": "always",
             "if_exists": "overwrite"}  # fmt: skip
    run(LunaDaemonImageSaver(), image_1=tensor, metadata={"seed": 1}, **given)
    request = farm.requests[0]
    assert {name: getattr(request, name) for name in given} == given
    assert request.metadata == {"seed": 1}
    assert request.extra_pnginfo == {"workflow": {"nodes": []}}
    assert request.embed == "full"


def test_a_batch_becomes_one_moving_image_where_a_speed_is_given(comfy, farm, tensor):
    moving = {"animation_fps": 12.5, "format_1": "webp"}
    run(LunaDaemonImageSaver(), image_1=tensor, **moving)
    run(LunaDaemonImageSaver(), image_1=tensor, filename_prefix="a/b", **moving)
    for request in farm.requests:
        assert request.animation_fps == 12.5
        assert [image.pixels.shape for image in request.images] == [tensor.shape]
        assert request.provenance is None, "what the farm is configured with"


def test_the_output_folder_is_read_at_every_call(comfy, farm, tensor, tmp_path):
    node = LunaDaemonImageSaver()
    run(node, image_1=tensor)
    comfy.output = tmp_path / "elsewhere"
    run(node, image_1=tensor)
    assert [request.output_dir for request in farm.requests] == [
        str(tmp_path / "output"),
        str(tmp_path / "elsewhere"),
    ]


@pytest.mark.parametrize("how", ["widget", "flag"])
def test_nothing_is_embedded_without_leave_but_names_still_know_the_prompt(how, comfy, farm, tensor):
    comfy.args.disable_metadata = how == "flag"
    run(LunaDaemonImageSaver(), image_1=tensor, embed_workflow=how != "widget")
    assert farm.requests[0].embed == "none"
    assert farm.requests[0].prompt == {"9": {"inputs": {}}}


def test_comfyui_bookkeeping_is_not_written_into_the_files(comfy, farm, tensor):
    prompt = {"1": {"class_type": "LoadImage", "inputs": {}, "is_changed": [float("nan")]}}
    run(LunaDaemonImageSaver(), image_1=tensor, prompt=prompt)
    assert farm.requests[0].prompt == {"1": {"class_type": "LoadImage", "inputs": {}}}
    assert "is_changed" in prompt["1"], "the prompt of ComfyUI itself stays as it is"


def test_ui_carries_the_reserved_names_in_lists_with_relative_subfolders(comfy, farm, tensor):
    ui, _ = run(LunaDaemonImageSaver(), image_1=tensor, save_path="shots/x")
    assert ui["images"] == [
        {"filename": f"RAW_{n}.png", "subfolder": "shots/x", "type": "output"} for n in range(2)
    ]
    assert all(isinstance(value, list) for value in ui.values())
    assert json.dumps(ui)


def test_no_farm_is_said_with_the_command_and_the_workflow_goes_on(comfy, no_farm, tensor, caplog):
    ui, result = run(LunaDaemonImageSaver(), image_1=tensor)
    sentence = "Connection refused. Is daemon running? Start the farm: luna-farm start --detach"
    assert result[0] == f"{TITLE} ERROR: {sentence}"
    assert ui["images"] == []
    assert ui["luna_farm"][0]["state"] == "refused"
    assert ui["luna_farm"][0]["reasons"] == [sentence]
    assert caplog.messages == [result[0]]


def test_a_farm_that_is_gone_is_said_at_once(comfy, farm, tensor, monkeypatch):
    """The client would wait ten seconds for the return of a farm it knew, and the GPU with it."""
    made = {}
    monkeypatch.setattr(handover, "_farm", None)
    monkeypatch.setattr("luna_farm_client.FarmClient", lambda **given: made.update(given) or farm)
    run(LunaDaemonImageSaver(), image_1=tensor)
    assert made["restart_s"] == 0.0


def test_raise_stops_the_workflow(comfy, no_farm, tensor):
    with pytest.raises(RuntimeError, match=r"Connection refused\. Is daemon running"):
        run(LunaDaemonImageSaver(), image_1=tensor, on_error="raise")


def test_save_here_saves_without_a_farm(comfy, no_farm, tensor, saved_here):
    ui, (status, *_rest) = run(LunaDaemonImageSaver(), image_1=tensor, on_error="save_here")
    assert status.startswith(f"{TITLE} Saved 2 images in ")
    assert status.endswith("Job ID: beef0001")
    assert ui["luna_farm"][0]["pictures"] == ui["images"]
    assert len(ui["images"]) == 2


def test_no_image_connected_says_what_to_do(comfy, farm):
    _, (status, *_rest) = run(LunaDaemonImageSaver())
    assert status == f"{TITLE} ERROR: No image is connected. Connect at least image_1."


@pytest.mark.parametrize("wrong", [{"image_1": np.zeros((4, 4, 7), np.uint8)}, {"png_compression": 11}])
def test_bad_input_is_a_sentence_even_where_saving_here_was_asked(wrong, comfy, farm, tensor):
    _, (status, *_rest) = run(LunaDaemonImageSaver(), **{"image_1": tensor, "on_error": "save_here", **wrong})
    assert status.startswith(f"{TITLE} ERROR: ")
    assert "allowed" in status


def test_a_full_farm_is_waited_for(comfy, farm, tensor, monkeypatch):
    slept = []
    monkeypatch.setattr(handover, "_pause", slept.append)
    farm.fail = [FarmBusy("full", 10, 0.25)] * 3
    _, (status, *_rest) = run(LunaDaemonImageSaver(), image_1=tensor)
    assert "Submitted 2 images" in status
    assert slept == [0.25] * 3


def test_a_full_farm_can_be_reported(comfy, farm, tensor):
    farm.fail = [FarmBusy("The farm has 10 images to do.", 10)]
    _, (status, *_rest) = run(LunaDaemonImageSaver(), image_1=tensor, when_busy="report")
    assert status == f"{TITLE} ERROR: The farm has 10 images to do."


def test_a_full_farm_can_be_relieved(comfy, farm, tensor, saved_here):
    farm.fail = [FarmBusy("full")]
    _, (status, *_rest) = run(LunaDaemonImageSaver(), image_1=tensor, when_busy="save_here")
    assert "Saved 2 images" in status


@pytest.mark.parametrize("how", [{}, {"on_error": "save_here"}, {"when_busy": "save_here"}])
def test_a_bound_of_the_farm_is_none_of_this_process(how, comfy, farm, tensor, saved_here):
    farm.fail = [TooLarge.of("images", 900, "at most 100 images a job (setting max_images)")] * 2
    _, (status, *_rest) = run(LunaDaemonImageSaver(), image_1=tensor, **how)
    assert "Saved 2 images" in status
    _, (status, *_rest) = run(LunaDaemonImageSaver(), image_1=tensor, when_busy="report")
    assert status.startswith(f"{TITLE} ERROR: ")
    assert "max_images" in status


def test_warnings_are_in_the_status_and_on_the_node(comfy, no_farm, tensor):
    odd = {"filename": "%nothing%", "format_1": "jpeg", "custom_metadata": "{no json"}
    ui, (status, *_rest) = run(LunaMultiSaver(), image_1=tensor, **odd)
    warnings = ui["luna_farm"][0]["warnings"]
    assert warnings[0].startswith("%nothing% is not a known token")
    assert "custom_metadata is not readable as JSON" in warnings[1]
    assert len(warnings) == 2, "each sentence once, however many images have it"
    assert all(f"Warning: {text}" in status for text in warnings)


def test_waiting_for_room_ends_with_cancel(comfy, farm, tensor):
    farm.fail = [FarmBusy("full", retry_after_s=1.0)] * 99
    comfy.interrupted = True
    with pytest.raises(BaseException) as caught:
        run(LunaDaemonImageSaver(), image_1=tensor)
    assert type(caught.value).__name__ == "Interrupted"


def test_waiting_for_room_has_an_end(comfy, farm, tensor, monkeypatch):
    monkeypatch.setattr(handover, "BUSY_LIMIT_S", -1.0)
    farm.fail = [FarmBusy("still full")]
    _, (status, *_rest) = run(LunaDaemonImageSaver(), image_1=tensor)
    assert status == f"{TITLE} ERROR: still full"


def test_same_inputs_are_cached_unless_they_were_not_saved(comfy, farm, tensor):
    node = LunaDaemonImageSaver()
    before = node.IS_CHANGED(unique_id="9", image_1=None)
    run(node, image_1=tensor)
    assert node.IS_CHANGED(unique_id="9", image_1=None) == before
    farm.fail = [FarmBusy("full")]
    run(node, image_1=tensor, when_busy="report")
    assert node.IS_CHANGED(unique_id="9", image_1=None) != before
    assert node.IS_CHANGED(unique_id="10") == 0


def test_a_missing_dependency_is_a_sentence_with_the_command_to_type(comfy, tensor, monkeypatch):
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise ImportError("no", name="msgpack")

    monkeypatch.setitem(sys.modules, "luna_farm_client", Broken("luna_farm_client"))
    _, (status, *_rest) = run(LunaDaemonImageSaver(), image_1=tensor)
    assert status.startswith(f"{TITLE} ERROR: The Python package msgpack is missing. Run: ")
    assert "-m pip install -r" in status


def test_multi_saver_returns_status_and_paths(comfy, tensor, saved_here):
    ui, (status, paths, *_rest) = run(LunaMultiSaver(), image_1=tensor)
    assert status.startswith("[Luna Multi Saver] Saved 2 images in ")
    assert [Path(path).name for path in paths] == ["RAW_0.png", "RAW_1.png"]
    assert comfy.progress[-1] == (2, 2)
    assert ui["images"] == ui["luna_farm"][0]["pictures"]


def test_multi_saver_with_nothing_saved_blocks_what_comes_behind(comfy, tensor, saved_here):
    saved_here[:] = ["failed", "discarded"]
    ui, (status, paths, *_rest) = run(LunaMultiSaver(), image_1=tensor)
    assert paths == [("blocked", None)]
    assert "1 rejected by the quality gate." in status
    assert "ERROR: 1 not saved." in status
    assert [image["filename"] for image in ui["images"]] == ["RAW_1.png"], (
        "the rejected one exists and is shown"
    )


def test_multi_saver_raises_when_asked_to(comfy, tensor, saved_here):
    saved_here[:] = ["failed"]
    with pytest.raises(RuntimeError, match="2 not saved"):
        run(LunaMultiSaver(), image_1=tensor, on_error="raise")


def test_workflow_files_fit_both_savers():
    """Values are stored by position: a saver exchanged for the other must find its own."""
    daemon, multi = (list(node.INPUT_TYPES()["optional"]) for node in (LunaDaemonImageSaver, LunaMultiSaver))
    shared = multi.index("on_error") + 1
    assert daemon[:shared] == multi[:shared]
    assert [name for name in daemon if name != "when_busy"] == multi


def test_inputs_of_the_first_version_keep_their_places():
    """A workflow file of then lists 29 values: new inputs stand behind them."""
    names = [
        name
        for group in ("required", "optional")
        for name, (kind, _) in LunaDaemonImageSaver.INPUT_TYPES()[group].items()
        if kind not in ("IMAGE", "METADATA", "MASK")
    ]
    assert names[:5] == ["save_path", "filename", "quality_gate", "min_quality_threshold", "model_name"]
    assert names[5:8] == ["affix_1", "format_1", "subdir_1"]
    assert names[20:28] == [
        "png_compression",
        "lossy_quality",
        "lossless_webp",
        "embed_workflow",
        "filename_index",
        "custom_metadata",
        "on_error",
        "when_busy",
    ]


@pytest.mark.parametrize("name", NODE_CLASS_MAPPINGS)
def test_every_input_has_a_tooltip_and_every_node_its_words(name):
    node = NODE_CLASS_MAPPINGS[name]
    for group in ("required", "optional"):
        for kind, options in node.INPUT_TYPES()[group].values():
            assert options["tooltip"], kind
    assert node.DESCRIPTION
    assert node.SEARCH_ALIASES
    assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES) == len(node.OUTPUT_TOOLTIPS)


@pytest.mark.parametrize("name", NODE_CLASS_MAPPINGS)
def test_inputs_that_another_package_adds_are_not_ours(name):
    node = NODE_CLASS_MAPPINGS[name]
    node.INPUT_TYPES()["required"]["theirs"] = ("INT", {})
    assert "theirs" not in node.INPUT_TYPES()["required"]


def test_the_lists_are_those_of_the_farm():
    from luna_farm.core import messages, options

    assert tuple(messages.FORMATS) == installed.FORMATS
    assert widgets.GATES == options.GATES


def test_barrier_outputs_paths(comfy, farm, tensor):
    _, (status, *_rest) = run(LunaDaemonImageSaver(), image_1=tensor)
    farm.end("a1b2c301", "saved", "discarded", score=0.1, threshold=0.3)
    answer = LunaSaveBarrier().wait(status, unique_id="4")
    paths, report = answer["result"]
    assert [Path(path).name for path in paths] == ["RAW_0.png"]
    assert report.splitlines()[1].startswith("discarded: ")
    assert answer["ui"]["text"] == [report]


def test_a_node_without_a_server_still_runs(comfy, farm, tensor, monkeypatch):
    monkeypatch.delitem(sys.modules, "server")
    assert host.caller("3").client_id is None
    ui, _ = run(LunaDaemonImageSaver(), image_1=tensor)
    assert len(ui["images"]) == 2
    previews.hold_requests()


def test_images_pass_through_and_what_is_not_connected_blocks(comfy, farm, tensor):
    _, (_, paths, *images) = run(LunaDaemonImageSaver(), image_2=tensor)
    assert [Path(path).name for path in paths] == ["UPSCALED_0.png", "UPSCALED_1.png"]
    assert images[1] is tensor
    assert [images[0], *images[2:]] == [("blocked", None)] * 4


def test_without_a_farm_there_are_no_paths_but_the_images_go_on(comfy, no_farm, tensor):
    _, (_, paths, first, *_rest) = run(LunaDaemonImageSaver(), image_1=tensor)
    assert paths == [("blocked", None)]
    assert first is tensor


@pytest.mark.parametrize(
    ("widgets", "flag", "embedded"),
    [
        ({}, False, "full"),
        ({"embed": "parameters"}, False, "parameters"),
        ({"embed": "none"}, False, "none"),
        ({"embed": "parameters", "embed_workflow": False}, False, "none"),
        ({"embed": "parameters"}, True, "none"),
    ],
)
def test_what_is_embedded_can_be_chosen(widgets, flag, embedded, comfy, farm, tensor):
    comfy.args.disable_metadata = flag
    run(LunaDaemonImageSaver(), image_1=tensor, **widgets)
    assert farm.requests[0].embed == embedded


def test_no_preview_is_shown_when_none_is_wanted(comfy, farm, tensor):
    ui, _ = run(LunaDaemonImageSaver(), image_1=tensor, preview=False)
    assert ui["luna_farm"][0]["preview"] is False
    assert len(ui["images"]) == 2, "programs get the names all the same"


def test_the_page_learns_where_a_job_is_in_the_gallery_when_it_ends(comfy, farm, tensor, watched):
    """Not before: looking that up reads a file, and the node returns first."""
    farm.endpoint = SimpleNamespace(gallery=lambda job_id: f"http://127.0.0.1:4711/gallery?job={job_id}")
    ui, _ = run(LunaDaemonImageSaver(), image_1=tensor)
    state = ui["luna_farm"][0]
    assert state["gallery"] == ""
    (job,) = watched
    farm.end(job.job_id, "saved")
    job.finished(farm.reports[job.job_id], "", farm.queue)
    assert state["gallery"] == f"http://127.0.0.1:4711/gallery?job={job.job_id}"


def test_a_prefix_makes_the_names_of_save_image(comfy, tensor, tmp_path):
    """As in ComfyUI 0.33: folders of the prefix, then PREFIX_00001_.png, counted on for every image."""
    comfy.output = tmp_path / "out"
    for first in (1, 3):
        _, (_, paths, *_rest) = run(
            LunaMultiSaver(), image_1=tensor, filename_prefix="shots/%width%/ComfyUI", save_path="not this"
        )
        assert [os.path.relpath(path, comfy.output) for path in paths] == [
            os.path.join("shots", "12", f"ComfyUI_{number:05}_.png") for number in (first, first + 1)
        ]


def test_a_prefix_may_number_the_images_of_a_batch(comfy, tensor, tmp_path):
    """As SaveImage does it, and in the next prompt nothing is replaced."""
    comfy.output = tmp_path / "out"
    for number in (1, 2):
        _, (_, paths, *_rest) = run(LunaMultiSaver(), image_1=tensor, filename_prefix="a/b_%batch_num%")
        names = [os.path.join("a", f"b_{place}_{number:05}_.png") for place in (0, 1)]
        assert [os.path.relpath(path, comfy.output) for path in paths] == names


def test_a_mask_becomes_alpha_as_comfyui_joins_it(comfy, farm, tensor):
    import torch

    mask = torch.zeros((1, 4, 6))
    mask[:, :2] = 1.0
    run(LunaDaemonImageSaver(), image_1=tensor, mask=mask)
    pixels = farm.requests[0].images[0].pixels
    assert pixels.shape == (2, 8, 12, 4)
    assert torch.equal(pixels[..., :3], tensor)
    assert pixels[:, 0, :, 3].max() == 0.0, "white in the mask is transparent"
    assert pixels[:, -1, :, 3].min() == 1.0
    assert tensor.shape[-1] == 3, "the image that passes through stays as it was"


@pytest.mark.parametrize("shape", [(8, 12), (8, 12, 1), (8, 12, 2), (8, 12, 3), (8, 12, 4), (2, 8, 12, 2)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
@pytest.mark.parametrize("mask_shape", [(8, 12), (1, 8, 12), (1, 1, 4, 6)])
def test_a_mask_is_joined_with_whatever_is_an_image(shape, dtype, mask_shape, comfy, farm):
    torch = pytest.importorskip("torch", reason="tensors come from torch (install the extra [torch])")
    full = 255 if dtype == "uint8" else 1
    image = torch.full(shape, full, dtype=getattr(torch, dtype))
    run(LunaDaemonImageSaver(), image_1=image, mask=torch.full(mask_shape, 0.5))
    (pixels,) = (given.pixels for given in farm.requests[0].images)
    assert pixels.shape == (2 if len(shape) == 4 else 1, 8, 12, 4)
    assert pixels.dtype == image.dtype
    assert (pixels[..., :3] == full).all()
    assert (pixels[..., 3] == (128 if full == 255 else 0.5)).all()


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        ({"mask": (0, 8, 12)}, "mask: one of shape [0, 8, 12] is not allowed"),
        ({"mask": (1, 8, 12, 3)}, "mask: one of shape [1, 8, 12, 3]"),
        ({"mask": (8,)}, "mask: one of shape [8]"),
        ({"mask": "white"}, "mask: a value of type str"),
        ({"mask": (8, 12), "image_1": (1, 8, 12, 5)}, "pixels.shape: [1, 8, 12, 5]"),
        ({"mask": (8, 12), "image_1": (1, 3, 8, 12)}, "channels come last"),
        ({"mask": (8, 12), "image_1": "none"}, "pixels: 'none'"),
        ({"stack": "none"}, "connect a Luna Image Stack"),
        ({"stack": (4, 8, 12, 3)}, "connect a Luna Image Stack"),
    ],
)
@pytest.mark.parametrize("saver", [LunaDaemonImageSaver, LunaMultiSaver])
def test_odd_inputs_stop_no_workflow(odd, says, saver, comfy, farm, tensor):
    import torch

    made = {name: torch.zeros(value) if isinstance(value, tuple) else value for name, value in odd.items()}
    inputs = {"image_1": tensor, **made}
    _, (status, _paths, *through) = run(saver(), **inputs)
    assert says in status
    assert "ERROR" in status
    assert farm.requests == []
    assert through[0] is inputs["image_1"], "the image goes on"


class Tuple:
    def _asdict(self) -> None:
        raise RuntimeError("broken")


class Anything:
    def __getattr__(self, name: str) -> None:
        raise ValueError("broken")


@pytest.mark.parametrize("kind", [Tuple, Anything])
def test_metadata_that_breaks_when_it_is_read_costs_no_image(kind, comfy, farm, tensor):
    _, (status, *_rest) = run(LunaDaemonImageSaver(), image_1=tensor, metadata=kind())
    assert len(farm.requests) == 1
    assert "could not be read (broken)" in status


@dataclass
class Foreign:
    """As ComfyUI-Image-Saver hands it over."""

    modelname: str = "dream.safetensors"
    seed: int = 7
    final_hashes: dict[str, str] = field(default_factory=lambda: {"a": "b"})


class Plain:
    def __init__(self) -> None:
        self.seed = 7
        self._inner = 8


@pytest.mark.parametrize(
    ("given", "known"),
    [
        (Foreign(), {"modelname": "dream.safetensors", "seed": 7, "final_hashes": {"a": "b"}}),
        (namedtuple("Tuple", "seed steps")(7, 20), {"seed": 7, "steps": 20}),
        (Plain(), {"seed": 7}),
        ({"seed": 7, "inner": Plain(), "path": Path("a")}, {"seed": 7, "inner": {"seed": 7}, "path": "a"}),
        ('{"seed": 7}', '{"seed": 7}'),
    ],
)
def test_metadata_objects_of_other_packages_are_read(given, known, comfy, farm, tensor):
    _, (status, *_rest) = run(LunaDaemonImageSaver(), image_1=tensor, metadata=given)
    assert farm.requests[0].metadata == known
    assert "WARNING" not in status


def test_metadata_that_cannot_be_read_is_said_and_the_image_is_saved(comfy, farm, tensor, caplog):
    _, (status, *_rest) = run(LunaDaemonImageSaver(), image_1=tensor, metadata=object())
    assert farm.requests[0].metadata is None
    assert status.startswith(f"{TITLE} Submitted 2 images")
    assert "WARNING: metadata: a value of type object holds nothing that can be read." in status
    assert "type object" in caplog.text


def test_only_formats_that_can_be_written_are_offered(monkeypatch, tmp_path):
    missing = {"PIL", "imagecodecs", "OpenEXR", "pillow_heif"}
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(installed, "_spec", lambda name: None if name in missing else found)
    assert installed.writable_formats.__wrapped__() == ("png", "jpeg", "tiff")
    missing -= {"PIL", "OpenEXR"}
    (tmp_path / "_avif.cpython-311-x86_64-linux-gnu.so").touch()
    assert installed.writable_formats.__wrapped__() == ("png", "jpeg", "avif", "tiff", "exr")


def test_offered_formats_are_written(comfy, tensor, tmp_path):
    comfy.output = tmp_path / "out"
    for name in installed.writable_formats():
        _, (status, *_rest) = run(LunaMultiSaver(), image_1=tensor[:1], format_1=name, filename=name)
        assert "Saved 1 images" in status


def test_a_missing_kernel_is_said_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(installed, "_folders", lambda name: [tmp_path])
    (tmp_path / "imaging").mkdir()
    assert "the compiled kernel is missing. Run: " in installed.kernel_advice()
    assert f'"{sys.executable}" -m pip install ' in installed.kernel_advice()
    (tmp_path / "imaging" / "_png.cpython-311-x86_64-linux-gnu.so").touch()
    assert installed.kernel_advice() == ""


def test_metadata_node_gives_what_was_filled_in_and_leaves_the_rest_to_the_prompt(comfy):
    inputs = LunaMetadata.INPUT_TYPES()
    (nothing,) = LunaMetadata().collect(**defaults(inputs))["result"]
    assert nothing == {}
    given = {"model_name": "dream", "steps": 12, "extra": '{"vae": "x.safetensors", "steps": 99}'}
    (facts,) = LunaMetadata().collect(**{**defaults(inputs), "metadata": Foreign(), **given})["result"]
    assert facts == {
        "modelname": "dream.safetensors",
        "seed": 7,
        "final_hashes": {"a": "b"},
        "vae": "x.safetensors",
        "model_name": "dream",
        "steps": 12,
    }
    assert facts.modelname == "dream", "nodes of Image Saver read attributes"
    assert facts.steps == 12
    with pytest.raises(AttributeError):
        _ = facts.scheduler_name


def test_metadata_node_says_what_is_wrong_with_its_json(comfy):
    with pytest.raises(ValueError, match=r"extra: .*is no JSON object"):
        LunaMetadata().collect(extra="[1]")


def test_metadata_node_feeds_a_saver(comfy, farm, tensor):
    (facts,) = LunaMetadata().collect(seed=5, sampler_name="euler")["result"]
    run(LunaDaemonImageSaver(), image_1=tensor, metadata=facts)
    assert farm.requests[0].metadata == {"seed": 5, "sampler_name": "euler"}


@pytest.mark.parametrize(
    ("embed", "folders"),
    [("full", KNOWN), ("parameters", KNOWN), ("none", [])],
)
def test_the_farm_knows_where_models_are_to_hash_them(embed, folders, comfy, farm, tensor):
    run(LunaDaemonImageSaver(), image_1=tensor, embed=embed)
    assert list(farm.requests[0].model_dirs) == folders


@pytest.mark.parametrize(
    ("text", "warned"), [('{"a": 1}', False), ("  ", False), ("{nope", True), ("[" * 10**5, True)]
)
def test_custom_metadata_that_is_no_json_is_handed_over_with_a_warning(text, warned, comfy, farm, tensor):
    ui, _ = run(LunaDaemonImageSaver(), image_1=tensor, custom_metadata=text)
    assert ("WARNING: custom_metadata: not readable as JSON" in ui["text"][0]) is warned
    assert farm.requests[0].custom_metadata == text
