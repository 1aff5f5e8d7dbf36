"""`save_here`: the same pipeline without a farm, in this process, blocking until the files are there.

For nodes that must have the file before the next one runs, and for the day when no farm is there.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from luna_farm import config, config_settings
from luna_farm.core import filenames, replaced, schema
from luna_farm.core.job import Image, ImageState, Job
from luna_farm.core.messages import ImageResult, ImageTask, SaveOptions
from luna_farm.errors import ConfigError, FarmError, InvalidRequest
from luna_farm.locations import is_url
from luna_farm.storage import names
from luna_farm.storage.allowed import ANYWHERE, Allowed
from luna_farm.worker import pipeline
from luna_farm_client import oversize
from luna_farm_client.outgoing import Outgoing
from luna_farm_client.pixels import copy_into
from luna_farm_client.requests import JobReport, SaveRequest


def _check_places(fields: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for places that files are sent to."""
    reason = "only a running farm sends files to destinations and mirrors (luna-farm start)"
    if is_url(fields.get("output_dir", "")):
        raise InvalidRequest.of("output_dir", fields["output_dir"], f"a folder: {reason}")
    if fields.get("mirrors"):
        raise InvalidRequest.of("mirrors", fields["mirrors"], f"none: {reason}")


def save_here(request: SaveRequest, *, progress: Callable[[int, int], None] | None = None) -> JobReport:
    """Gate, encode and write every image of `request` now; returns the same report as the farm would.

    One image that fails does not keep the others from being saved. `progress` is called with (done, all).
    `output_dir` None is `./output`. Raises InvalidRequest and DiskError before anything is written.
    """
    out = Outgoing(request)
    if request.archive != "none":
        raise InvalidRequest.of("archive", request.archive, "none: only a running farm makes archives")
    defaults = {"output_dir": str(Path("output").absolute())}
    fields = out.message(here=True)
    _check_places(fields)
    limits = {"max_images": 2**31, "max_pixels": 2**40, "arena_bytes": 2**62}
    submit = schema.submit(fields, defaults, limits)
    job_id = secrets.token_hex(4)
    relatives = filenames.image_names(submit, names.PATH_BYTES)
    told = (*replaced.warnings(submit), *relatives.warnings)
    job = Job(job_id, submit.request_id, submit.options, [], 0.0, told)
    options, allowed = submit.options, _allowed()
    paths = names.reserve_all(
        options.output_dir,
        relatives.relatives,
        (),
        numbers=options.numbers,
        sidecars=options.sidecar != "never",
        each_beside=options.sidecar == "always",
        if_exists=options.if_exists,
        allowed=allowed,
    )
    images: list[Any] = []
    names_left = iter(paths)
    for given, batch in zip(out.pixels, submit.batches, strict=True):
        shape = (batch.batch, *((batch.frames,) if batch.frames > 1 else ()))
        pixels = np.empty((*shape, batch.height, batch.width, batch.channels), batch.dtype)
        flaws = copy_into(given, pixels.reshape(-1).view(np.uint8).data, batch.dtype)
        images += list(pixels)
        for batch_index in range(batch.batch):
            bad = flaws.get(batch_index, 0) if batch.frames == 1 else sum(flaws.values())
            files = [next(names_left) for _ in range(batch.files)]
            task = batch.task(job_id, len(job.images), batch_index, files, root=options.output_dir)
            job.images.append(Image(replace(task, flaws=bad)))
    for done, (image_of_job, array) in enumerate(zip(job.images, images, strict=True), 1):
        image_of_job.result = _saved(array, image_of_job.task, options, allowed)
        image_of_job.state = ImageState(image_of_job.result.state)
        if progress:
            progress(done, submit.num_images)
    if out.left:
        first = job.images[0]
        oversize.write_beside((first.result and first.result.path) or first.task.path, out.left)
    return JobReport.from_answer(job.report())


def _allowed() -> Allowed:
    """Return whether links below the output folder are followed: a setting of this machine, not of a
    caller."""
    name = config_settings.BY_NAME["follow_links"].env
    environ = {name: os.environ[name]} if name in os.environ else {}
    try:
        settings = config.load({}, environ, config.find_file(os.environ, Path.cwd()), serving=False)
    except ConfigError:
        return ANYWHERE
    return Allowed(follow_links=settings.follow_links)


def _saved(pixels: Any, task: ImageTask, options: SaveOptions, allowed: Allowed) -> ImageResult:
    try:
        return pipeline.make(pixels, task, options, allowed=allowed)
    except FarmError as error:
        return ImageResult("failed", path=task.path, error=str(error), code=error.code)
    except Exception as error:  # an encoder's bug must cost its image, not the workflow
        return ImageResult("failed", path=task.path, error=f"{type(error).__name__}: {error}", code="encode")
