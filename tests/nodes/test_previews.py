"""From the reserved names to pictures that exist: what browser and history are told, and who waits for a
file."""

from __future__ import annotations

import asyncio
import copy
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from luna_farm_nodes import handover, host, previews


@pytest.fixture
def job(comfy, farm, tensor, watched) -> previews.Announced:
    from luna_farm_nodes.nodes import LunaDaemonImageSaver

    LunaDaemonImageSaver().save(image_1=tensor, save_path="shots", unique_id="9")
    (announced,) = watched
    return announced


def end(farm: Any, job: previews.Announced, *states: str, **more: Any) -> None:
    farm.end(job.job_id, *states, **more)
    job.finished(farm.reports[job.job_id], "", farm.queue)


def test_the_preview_comes_by_a_second_message_that_names_the_job_and_replaces_the_first(job, comfy, farm):
    assert comfy.events("executed") == []
    text = job.ui("status")["text"]
    end(farm, job, "saved")
    (message,) = comfy.events("executed")
    assert message["job_id"] == job.job_id
    assert "merge" not in message, "ComfyUI would append to what the first message may have shown already"
    assert message["output"] == {
        "images": [{"filename": f"RAW_{n}.png", "subfolder": "shots", "type": "output"} for n in range(2)],
        "text": text,
        "luna_farm": [job.state],
    }
    assert (message["node"], message["display_node"], message["prompt_id"]) == ("9", "12:9", "prompt-1")
    assert {client for _, _, client in comfy.sent} == {"browser"}


def test_a_first_message_that_is_serialised_late_says_the_same_as_the_second(job, comfy, farm):
    first = job.ui("status")
    end(farm, job, "saved")
    assert comfy.events("executed")[0]["output"] == first


def test_the_end_is_told_before_the_images(job, comfy, farm):
    end(farm, job, "saved")
    assert [event for event, _, _ in comfy.sent] == ["luna_farm.job", "executed"]
    (told,) = comfy.events("luna_farm.job")
    assert (told["state"], told["saved"], told["failed"], told["queue"]) == ("done", 2, 0, farm.queue)


def test_jobs_are_numbered_in_the_order_of_their_nodes_and_know_their_workflow(comfy, farm, tensor, watched):
    from luna_farm_nodes.nodes import LunaDaemonImageSaver

    extra = {"workflow": {"id": "graph-1", "nodes": []}}
    for _ in range(3):
        LunaDaemonImageSaver().save(image_1=tensor, save_path="shots", unique_id="9", extra_pnginfo=extra)
    numbers = [one.state["number"] for one in watched]
    assert numbers == sorted(set(numbers))
    assert {one.state["workflow"] for one in watched} == {"graph-1"}


def test_history_gets_the_final_names_in_the_very_dicts_it_holds(job, farm, comfy):
    ui = job.ui("text")
    kept = {key: list(values) for key, values in ui.items()}  # what ComfyUI keeps: new lists, the same dicts
    keys = set(kept["luna_farm"][0])
    path = str(comfy.output / "shots" / "_discarded" / "RAW_0.png")
    farm.reports[job.job_id] = copy.copy(farm.reports[job.job_id])
    farm.end(job.job_id, "discarded", score=0.1, threshold=0.3)
    report = farm.reports[job.job_id]
    moved = tuple(_with(image, path=path.replace("0", str(n))) for n, image in enumerate(report.images))
    job.finished(_with(report, images=moved), "", None)
    assert kept["images"][0] == {"filename": "RAW_0.png", "subfolder": "shots/_discarded", "type": "output"}
    assert kept["luna_farm"][0]["state"] == "done"
    assert set(kept["luna_farm"][0]) == keys, (
        "no key may come late: ComfyUI copies the dict on another thread"
    )


def _with(value: Any, **changed: Any) -> Any:
    from dataclasses import replace

    return replace(value, **changed)


@pytest.mark.parametrize(
    "path", ["a.png", "shots/RAW/a.png", "../fallback/a.png", "../output2/a.png", "b/../a.png"]
)
def test_a_picture_is_named_from_the_output_folder_on(path, tmp_path):
    folder, name = os.path.split(os.path.normpath(path))
    named = previews.picture(os.path.join(tmp_path, "output", path), str(tmp_path / "output"))
    assert named == {"filename": name, "subfolder": folder.replace(os.sep, "/"), "type": "output"}


def test_failures_are_told_with_reasons_and_show_no_picture(job, comfy, farm):
    end(farm, job, "failed", error="No space left on device", state="failed")
    (told,) = comfy.events("luna_farm.job")
    assert (told["failed"], told["saved"]) == (2, 0)
    assert told["reasons"][0] == "RAW_0.png: No space left on device"
    assert comfy.events("executed")[0]["output"]["images"] == []
    assert handover.unsaved["9"] == 1, "the next prompt tries again"


def test_rejections_are_told_with_their_score(job, comfy, farm):
    end(farm, job, "saved", "discarded", score=0.1234, threshold=0.3)
    (told,) = comfy.events("luna_farm.job")
    assert (told["discarded"], told["failed"]) == (1, 0)
    assert told["reasons"] == ["RAW_1.png: quality 0.123 is below 0.300, kept in shots"]
    assert len(comfy.events("executed")[0]["output"]["images"]) == 2, "a rejected picture exists"


def test_a_dropped_picture_is_not_shown(job, comfy, farm):
    end(farm, job, "saved", "dropped", score=0.1, threshold=0.3)
    assert comfy.events("luna_farm.job")[0]["reasons"] == [
        "RAW_1.png: quality 0.100 is below 0.300, not kept"
    ]
    assert len(comfy.events("executed")[0]["output"]["images"]) == 1


def test_a_picture_in_the_fallback_folder_is_not_shown(job, comfy, farm, tmp_path):
    farm.end(job.job_id, "saved")
    report = farm.reports[job.job_id]
    elsewhere = tuple(_with(image, path=str(tmp_path / "fallback" / "x.png")) for image in report.images)
    job.finished(_with(report, images=elsewhere), "", None)
    assert comfy.events("executed")[0]["output"]["images"] == []


def test_a_lost_job_is_a_failure_with_its_reason(job, comfy):
    job.finished(None, "The farm does not know it.", None)
    (told,) = comfy.events("luna_farm.job")
    assert (told["state"], told["failed"], told["reasons"]) == ("lost", 1, ["The farm does not know it."])


def test_the_queue_is_shown_while_it_waits(job, comfy):
    states = ("saved", "running", "queued", "held", "uploading", "discarded", "failed")
    report = SimpleNamespace(images=[SimpleNamespace(state=state) for state in states])
    job.waiting(report, {"jobs": 3, "images": 7})
    (told,) = comfy.events("luna_farm.queue")
    assert (told["images"], told["queue"]["images"], told["display_node"]) == (2, 7, "12:9")
    assert told["left"] == 4
    assert told["number"] == job.state["number"]
    assert told["job_id"] == job.job_id


def test_a_program_without_a_browser_gets_no_messages(job, comfy, farm):
    job.caller = host.Caller("9", "9", "p", None)
    end(farm, job, "saved")
    assert comfy.sent == []


class Handler:
    """Stands for ComfyUI's /view: notes whether the file was there when it was asked."""

    def __init__(self, path: Path) -> None:
        self.path, self.seen = path, None

    async def __call__(self, request: Any) -> str:
        self.seen = self.path.exists()
        return "answer"


def request(path: str = "/view", **query: str) -> Any:
    return SimpleNamespace(path=path, query=query)


def ask(query: dict[str, str], handler: Handler, then: Any, path: str = "/view") -> None:
    async def both() -> None:
        asked = asyncio.create_task(previews.hold(request(path, **query), handler))
        for _ in range(3):
            await asyncio.sleep(0)
        then()
        assert await asyncio.wait_for(asked, 60) == "answer"

    asyncio.run(both())


@pytest.fixture
def first(comfy) -> Path:
    return comfy.output / "shots" / "RAW_0.png"


QUERY = {"filename": "RAW_0.png", "subfolder": "shots", "type": "output"}


@pytest.mark.parametrize("path", ["/view", "/api/view"])
def test_view_waits_for_a_coming_file(path, job, first):
    handler = Handler(first)
    first.parent.mkdir(parents=True)

    def write() -> None:
        assert handler.seen is None, "held"
        first.write_bytes(b"png")

    ask(QUERY, handler, write, path)
    assert handler.seen is True


def test_view_lets_go_when_the_job_ends_without_a_file(job, first, farm):
    handler = Handler(first)
    ask(QUERY, handler, lambda: end(farm, job, "failed", error="full"))
    assert handler.seen is False
    assert previews._coming == {}


@pytest.mark.parametrize("query", [{**QUERY, "filename": "b.png"}, {**QUERY, "type": "temp"}, {}])
def test_other_requests_pass_at_once(query, job, first):
    handler = Handler(first)
    asyncio.run(previews.hold(request(**query), handler))
    assert handler.seen is False


def test_requests_held_are_bounded(job, first, monkeypatch):
    monkeypatch.setattr(previews, "_held", previews.threading.BoundedSemaphore(1))
    previews._held.acquire()
    handler = Handler(first)
    asyncio.run(previews.hold(request(**QUERY), handler))
    assert handler.seen is False


def test_holding_ends_by_itself(job, first, monkeypatch):
    monkeypatch.setattr(previews, "HOLD_S", 0.1)
    handler = Handler(first)
    asyncio.run(previews.hold(request(**QUERY), handler))
    assert handler.seen is False


def test_the_hold_is_put_into_comfyuis_server(comfy, monkeypatch):
    web = SimpleNamespace(middleware=lambda function: ("middleware", function))
    monkeypatch.setitem(sys.modules, "aiohttp", SimpleNamespace(web=web))
    previews.hold_requests()
    assert comfy.middlewares == [("middleware", previews.hold)]


@pytest.mark.parametrize(
    ("extra", "workflow"),
    [
        ({"workflow": {"id": "graph-1"}}, "graph-1"),
        ({"workflow": {"id": "00000000-0000-0000-0000-000000000000"}}, ""),
        ({"workflow": {"nodes": []}}, ""),
        ({"workflow": None}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_the_workflow_of_a_prompt_is_known_by_its_id(extra, workflow, comfy):
    assert host.caller("9", extra).workflow == workflow
