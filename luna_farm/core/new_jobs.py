"""A job is made of a submit and the names that are reserved for it; and the receipt of a job."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

from luna_farm.core import archive_names, events, filenames
from luna_farm.core.job import Image, ImageState, Job
from luna_farm.core.leases import prefetched
from luna_farm.core.open_submits import OpenSubmit, Step
from luna_farm.core.state import Farm


def make_job(farm: Farm, opened: OpenSubmit, event: events.NamesReserved) -> None:
    """Make the job of a submit whose names are reserved."""
    if opened.archive:
        path = archive_names.path_for(farm, opened.submit.options, opened.archive, event)
        num = opened.submit.num_images
        event = replace(event, paths=(path,) * num, mounts=event.mounts[:1] * num)
    else:
        farm.taken.update(map(filenames.collision_key, event.paths))
    opened.job = _job(farm, opened, event)
    opened.step = Step.CLIENT


def _job(farm: Farm, opened: OpenSubmit, names: events.NamesReserved) -> Job:
    options, job_id = opened.submit.options, opened.job_id
    images = _images(job_id, opened, names)
    job = Job(job_id, opened.submit.request_id, options, images, 0.0, names.warnings)
    if farm.folders:
        failing = {at.path: at.error for image in images if (at := farm.failing_folder(image))}
        for folder, error in failing.items():
            job.warnings += (
                f"{folder} cannot be written now ({error}); the images are kept and saved once it can.",
            )
    return job


def _images(job_id: str, opened: OpenSubmit, names: events.NamesReserved) -> list[Image]:
    images: list[Image] = []
    names_left, mounts_left = iter(names.paths), iter(names.mounts)
    for batch in opened.submit.batches:
        for batch_index in range(batch.batch):
            index = len(images)
            files = 1 if opened.archive else batch.files
            paths, mounts = list(islice(names_left, files)), list(islice(mounts_left, files))
            # In an archive all files of an image are beside one another, under the name of the first.
            at = paths * batch.files if opened.archive else paths
            task = batch.task(
                job_id,
                index,
                batch_index,
                at,
                root=names.root or opened.submit.options.output_dir,
                mounts=mounts,
                mirror_mounts=names.mirror_mounts,
                archive=opened.archive,
                member=opened.members[index] if opened.archive else "",
            )
            images.append(Image(task, ImageState.FILLING))
    return images


def _all_paths(job: Job) -> dict[str, Any]:
    """The names of all files, where images have several."""
    if not any(image.task.outputs for image in job.images):
        return {}
    return {"outputs": [list(image.task.paths) for image in job.images]}


def receipt(farm: Farm, job: Job, client: int, want: tuple[int, ...]) -> dict[str, Any]:
    """The acknowledgement of a job, with leases for the next submit while the arena has room for such."""
    return {
        "success": True,
        "job_id": job.job_id,
        "message": f"Image save job submitted (ID: {job.job_id})",
        "num_images": len(job.images),
        "paths": [image.task.path for image in job.images],
        **_all_paths(job),
        "warnings": list(job.warnings),
        "leases": prefetched(farm, client, want),
    }
