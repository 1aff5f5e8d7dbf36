"""ComfyUI in small: the modules that the nodes touch, and a farm that answers by script."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import luna_farm_client
from luna_farm_client import FarmUnavailable, ImageReport, JobReport, Receipt, UnknownJob
from luna_farm_client.outgoing import Outgoing
from luna_farm_client.requests import SaveRequest
from luna_farm_nodes import handover, previews


class Interrupted(BaseException):
    """Stands for comfy.model_management.InterruptProcessingException."""


@dataclass
class Comfy:
    """What a test sets, and what the nodes did."""

    output: Path
    client_id: str | None = "browser"
    interrupted: bool = False
    args: Any = field(default_factory=lambda: SimpleNamespace(disable_metadata=False))
    sent: list[tuple[str, dict[str, Any], str | None]] = field(default_factory=list)
    progress: list[tuple[int, int]] = field(default_factory=list)
    middlewares: list[Any] = field(default_factory=list)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [data for event, data, _ in self.sent if event == name]


@pytest.fixture
def comfy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Comfy:
    state = Comfy(tmp_path / "output")

    class ProgressBar:
        def __init__(self, total: int) -> None:
            self.total = total

        def update_absolute(self, value: int, total: int | None = None) -> None:
            self.total = total or self.total
            state.progress.append((value, self.total))

    def check() -> None:
        if state.interrupted:
            raise Interrupted

    instance = SimpleNamespace(
        client_id=state.client_id,
        last_node_id="12:9",
        send_sync=lambda event, data, sid=None: state.sent.append((event, data, sid)),
        app=SimpleNamespace(middlewares=state.middlewares),
    )
    context = SimpleNamespace(prompt_id="prompt-1", node_id="9", list_index=0)
    modules = {
        "folder_paths": {
            "get_output_directory": lambda: str(state.output),
            "folder_names_and_paths": {
                "checkpoints": (["/models/checkpoints", "/more"], {".safetensors"}),
                "loras": (["/models/loras", "/more"], {".safetensors"}),
                "vae": (["/models/vae"], {".safetensors"}),
            },
        },
        "server": {"PromptServer": SimpleNamespace(instance=instance)},
        "comfy": {},
        "comfy.cli_args": {"args": state.args},
        "comfy.model_management": {"throw_exception_if_processing_interrupted": check},
        "comfy.utils": {"ProgressBar": ProgressBar},
        "comfy_execution": {},
        "comfy_execution.utils": {"get_executing_context": lambda: context},
        "comfy_execution.graph": {"ExecutionBlocker": lambda message: ("blocked", message)},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    return state


def image_report(path: str, state: str = "saved", **more: Any) -> ImageReport:
    fields = {"index": 0, "affix": "RAW", "format": "png", "bytes": 10, "score": None, "threshold": None,
              "error": "", "code": "", "warnings": (), "ms": {}}  # fmt: skip
    return ImageReport(**{**fields, **more, "path": path, "state": state})


@dataclass
class FakeFarm:
    """Takes requests as FarmClient does. `fail`: raised by the next submits; `reports`: what `job` and
    `wait` answer."""

    fail: list[Exception] = field(default_factory=list)
    requests: list[SaveRequest] = field(default_factory=list)
    reports: dict[str, Any] = field(default_factory=dict)
    closed: bool = False
    queue: dict[str, int] = field(default_factory=lambda: {"jobs": 1, "images": 2, "bytes": 3})

    def submit(self, request: SaveRequest, *, when_busy: str = "wait") -> Receipt:
        assert when_busy == "report", "waiting is up to the node: it can be interrupted"
        outgoing = Outgoing(request)
        if self.fail:
            raise self.fail.pop(0)
        self.requests.append(request)
        names = [
            f"{request.save_path}/{image.affix}_{batch}.{image.format}"
            for image, info in zip(request.images, outgoing.infos, strict=True)
            for batch in range(info.batch)
        ]
        paths = tuple(str(Path(str(request.output_dir), name.lstrip("/"))) for name in names)
        job_id = f"a1b2c3{len(self.requests):02x}"
        self.reports[job_id] = JobReport(
            job_id, "queued", tuple(image_report(path, "waiting") for path in paths)
        )
        return Receipt(job_id, paths, len(paths), "")

    def job(self, job_id: str) -> JobReport:
        if job_id not in self.reports:
            raise UnknownJob(f"no job {job_id}", job_id)
        report = self.reports[job_id]
        if isinstance(report, list):
            report = report.pop(0) if len(report) > 1 else report[0]
        if isinstance(report, Exception):
            raise report
        return report

    def wait(self, job_id: str, timeout: float | None = None) -> JobReport:
        return self.job(job_id)

    def close(self) -> None:
        self.closed = True

    def status(self) -> dict[str, Any]:
        return {"queue": self.queue}

    def end(self, job_id: str, *states: str, state: str = "done", **more: Any) -> None:
        """Let a job end: one state per image, repeated."""
        images = self.reports[job_id].images
        done = tuple(
            image_report(image.path, states[i % len(states)], **more) for i, image in enumerate(images)
        )
        self.reports[job_id] = JobReport(job_id, state, done, output_dir=str(self.requests[-1].output_dir))


@pytest.fixture
def farm(monkeypatch: pytest.MonkeyPatch) -> FakeFarm:
    fake = FakeFarm()
    monkeypatch.setattr(handover, "_farm", fake)
    return fake


@pytest.fixture
def no_farm(monkeypatch: pytest.MonkeyPatch) -> FakeFarm:
    fake = FakeFarm(fail=[FarmUnavailable("refused")] * 9)
    monkeypatch.setattr(handover, "_farm", fake)
    return fake


@pytest.fixture
def saved_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """`save_here` of the client without encoders; the list says how its images end, repeated."""
    states, scribe = ["saved"], FakeFarm()

    def save_here(request: SaveRequest, *, progress: Any) -> JobReport:
        receipt = scribe.submit(request, when_busy="report")
        progress(receipt.num_images, receipt.num_images)
        scribe.end(receipt.job_id, *states, score=0.1, threshold=0.3)
        return replace(scribe.reports[receipt.job_id], job_id=f"beef{len(scribe.requests):04x}")

    monkeypatch.setattr(luna_farm_client, "save_here", save_here, raising=False)
    yield states
    handover._saved_here.clear()


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[previews.Announced]]:
    """Nothing is watched in the background: the jobs announced are collected, and the counters start anew."""
    jobs: list[previews.Announced] = []
    monkeypatch.setattr(previews.watcher, "add", jobs.append)
    handover.unsaved.clear()
    yield jobs
    previews._coming.clear()


@pytest.fixture
def tensor() -> Any:
    torch = pytest.importorskip("torch", reason="tensors come from torch (install the extra [torch])")
    return torch.from_numpy(np.random.default_rng(1).random((2, 8, 12, 3), dtype=np.float32))
