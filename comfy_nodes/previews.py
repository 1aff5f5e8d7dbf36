"""What the browser and /history get to know about files that are still being written.

A job is announced with the names reserved for it (`Announced.ui`). ComfyUI keeps the very dicts made
here, in its cache and its history, so when the job ends they are corrected in place: an image that the
gate set aside gets its real name. The browser then gets a second "executed" message, which names the job
and replaces the output of the first. ComfyUI may serialise the first message late, when the job has ended
and its dicts are corrected: both messages then say the same, and a message that replaces does no harm.
A request to /view for a file that is on its way waits for it instead of getting a 404.
This module must never wait on ComfyUI's own threads.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import handover, host
from .watcher import Watcher

if TYPE_CHECKING:
    from luna_farm_client import JobReport

EVENT_JOB, EVENT_QUEUE = "luna_farm.job", "luna_farm.queue"
HELD_REQUESTS, HOLD_S, LOOK_S = 32, 30.0, 0.05
"""Requests for coming files that wait at once, how long, and how often they look."""
ENDED = ("saved", "discarded", "dropped", "failed", "cancelled", "lost", "missing")
"""States of an image that nothing more happens to."""

Picture = dict[str, str]

MOST_WARNINGS = 8
"""Sentences that the node shows of one job."""
_numbers = itertools.count(time.time_ns() // 1_000_000)
"""Jobs in the order in which nodes ran. Starts at the time of day (ms), so that a page which outlives a
restart of ComfyUI takes new jobs for newer than those it knows."""

_coming: dict[str, Future[None]] = {}
"""Path of a reserved file, absolute and plain, as the farm names it -> done when its job ended. Few: only of
open jobs."""
_held = threading.BoundedSemaphore(HELD_REQUESTS)


def picture(path: str, output_dir: str) -> Picture:
    """Return how ComfyUI names a file of its output folder: name, relative subfolder with slashes, type."""
    folder, _, name = _relative(path, output_dir).rpartition(os.sep)
    return {"filename": name, "subfolder": folder.replace(os.sep, "/"), "type": "output"}


def _viewable(path: str, output_dir: str) -> bool:
    """Return whether ComfyUI serves this file: one that went to the farm's fallback folder it does not."""
    return not _relative(path, output_dir).startswith(os.pardir)


def _relative(path: str, folder: str) -> str:
    """Return `path` as seen from `folder`, mostly by cutting that off: relpath takes ten times as long, while
    ComfyUI is blocked."""
    inside = folder + os.sep
    if path.startswith(inside) and os.pardir not in path:
        return path[len(inside) :]
    return os.path.relpath(path, folder)


@dataclass(slots=True)
class Announced:
    """One job on its way, as the browser and the history know it."""

    job_id: str
    caller: host.Caller
    output_dir: str
    pictures: list[Picture]
    paths: tuple[str, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)
    over: Future[None] = field(default_factory=Future)
    text: str = ""

    def ui(self, text: str) -> dict[str, list[Any]]:
        """Return the node's `ui`: lists only, and the dicts themselves, for they are corrected in place
        later."""
        self.text = text
        return {"images": list(self.pictures), "text": [text], "luna_farm": [self.state]}

    def waiting(self, report: JobReport, queue: dict[str, Any]) -> None:
        """Show on the node how many images are left, and the depth of the queue."""
        known = {name: self.state[name] for name in ("job_id", "number", "workflow", "images")}
        left = sum(image.state not in ENDED for image in report.images)
        self._send(EVENT_QUEUE, {**known, "left": left, "queue": queue})

    def finished(self, report: JobReport | None, reason: str, queue: dict[str, Any] | None) -> None:
        """Correct the names, answer the held requests, and show the images or why there are none."""
        shown = [] if report is None else self._correct(report)
        host.register_outputs(shown, self.caller.prompt_id)
        known = {"pictures": shown, "gallery": handover.gallery(self.job_id)}
        self.state.update({**outcome(report, reason), **known})
        if self.state["failed"]:
            handover.unsaved[self.caller.node] += 1
        _forget(self)
        self._send(EVENT_JOB, {**self.state, "queue": queue})
        output = {"images": shown, "text": [self.text], "luna_farm": [self.state]}
        self._send("executed", {"output": output, "job_id": self.job_id})

    def _correct(self, report: JobReport) -> list[Picture]:
        """Give every dict the final name of its file; return those of files that ComfyUI can show."""
        shown = []
        for known, image in zip(self.pictures, report.images, strict=True):
            known.update(picture(image.path, self.output_dir))
            if image.state in ("saved", "discarded") and _viewable(image.path, self.output_dir):
                shown.append(known)
        return shown

    def _send(self, event: str, data: dict[str, Any]) -> None:
        who = {
            "node": self.caller.node,
            "display_node": self.caller.display_node,
            "prompt_id": self.caller.prompt_id,
        }
        host.send(event, who | data, self.caller.client_id)


def outcome(report: JobReport | None, reason: str = "") -> dict[str, Any]:
    """Return what the node shows of a job that ended: counts, the time it took, and a sentence per picture
    not kept."""
    if report is None:
        lost = {"state": "lost", "saved": 0, "discarded": 0, "failed": 1}
        return {**lost, "reasons": [reason], "warnings": []}
    states = [image.state for image in report.images]
    rejected = states.count("discarded") + states.count("dropped")
    saved = states.count("saved")
    return {
        "state": report.state,
        "saved": saved,
        "discarded": rejected,
        "failed": len(states) - rejected - saved,
        "reasons": [text for image in report.images if (text := _reason(image, report.output_dir))],
        "warnings": _warnings(report),
    }


def _warnings(report: JobReport) -> list[str]:
    """Return what the farm has to say about images that it saved, each sentence once: those of a batch mostly
    have the same ones."""
    first: dict[str, str] = dict.fromkeys(report.warnings, "")
    for image in report.images:
        for text in image.warnings:
            first.setdefault(text, f"{os.path.basename(image.path)}: ")
    return [f"{name}{text}" for text, name in first.items()][:MOST_WARNINGS]


def _reason(image: Any, output_dir: str) -> str:
    name = os.path.basename(image.path)
    if image.state == "dropped" and image.score is None:
        return f"{name}: it exists already, and was left as it is"
    if image.state in ("discarded", "dropped"):
        folder = os.path.relpath(os.path.dirname(image.path), output_dir) if output_dir else "_discarded"
        where = f", kept in {folder}" if image.state == "discarded" else ", not kept"
        score = "unknown" if image.score is None else f"{image.score:.3f}"
        return f"{name}: quality {score} is below {image.threshold:.3f}{where}"
    return "" if image.state == "saved" else f"{name}: {image.error or image.state}"


def announce(
    handed: handover.Handed, caller: host.Caller, output_dir: str, preview: bool = True
) -> Announced:
    """Announce a job: what was saved here is over already, what the farm has is watched from now on.

    `preview` False: the page shows no images in the node.
    """
    pictures = [picture(path, output_dir) for path in handed.paths]
    job = Announced(handed.job_id, caller, output_dir, pictures, handed.paths)
    # Every key from the start: ComfyUI may copy this dict on its thread while the watcher corrects it.
    job.state.update({**_state(handed.job_id, caller), "images": len(pictures), "preview": preview})
    if handed.report is not None:
        job.pictures = job._correct(handed.report)
        job.state.update({**outcome(handed.report), "pictures": job.pictures})
        return job
    for path in handed.paths:
        _coming[path] = job.over
    watcher.add(job)
    return job


def refused(text: str, reason: str, caller: host.Caller) -> dict[str, list[Any]]:
    """Return the `ui` of a node whose images were not taken over for `reason`."""
    state = {**_state("", caller), "state": "refused", "failed": 1, "reasons": [reason]}
    return {"images": [], "text": [text], "luna_farm": [state]}


def _state(job_id: str, caller: host.Caller) -> dict[str, Any]:
    """Return what is known of a job before its end. `number` grows with every job of this process."""
    return {
        "job_id": job_id,
        "number": next(_numbers),
        "workflow": caller.workflow,
        "images": 0,
        "state": "queued",
        "saved": 0,
        "discarded": 0,
        "failed": 0,
        "reasons": [],
        "warnings": [],
        "pictures": [],
        "preview": True,
        "gallery": "",
    }


def _forget(job: Announced) -> None:
    for path in job.paths:
        _coming.pop(path, None)
    job.over.set_result(None)


def hold_requests() -> None:
    """Let /view wait for files that are on their way: programs fetch their pictures right after the
    prompt ended.

    Called once, while ComfyUI loads the nodes; without a server nothing happens.
    """
    here = host.server()
    if here is not None:
        from aiohttp import web

        here.app.middlewares.append(web.middleware(hold))


async def hold(request: Any, handler: Any) -> Any:
    """Answer a request for a coming file when it is there, or when its job ended, or after HOLD_S."""
    if _coming and request.path in ("/view", "/api/view"):
        path = _requested(request.query)
        over = _coming.get(path)
        if over is not None and _held.acquire(blocking=False):
            try:
                await _there(path, over)
            finally:
                _held.release()
    return await handler(request)


def _requested(query: Any) -> str:
    if query.get("type", "output") != "output":
        return ""
    return os.path.abspath(
        os.path.join(host.output_directory(), query.get("subfolder", ""), query.get("filename", ""))
    )


async def _there(path: str, over: Future[None]) -> None:
    import asyncio  # ComfyUI's server has it; importing the nodes shall not bring it

    ended = asyncio.wrap_future(over)
    for _ in range(round(HOLD_S / LOOK_S)):
        if os.path.isfile(path):
            return
        done, _pending = await asyncio.wait([ended], timeout=LOOK_S)
        if done:
            return


def _connect() -> Any:
    return handover.client().FarmClient(timeout=handover.ANSWER_TIMEOUT_S)


watcher = Watcher(_connect)
