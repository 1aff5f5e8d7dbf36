"""Writes the files of an encoded image: into their folders, into the spool if they go further, or both.

The first file is the image; it is written last, so that all are there once it is. What an attempt has
published before an error is in its result, and the next attempt leaves it as it is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePath, PurePosixPath
from typing import Any

from luna_farm.catalogue import images
from luna_farm.core.messages import ImageResult, Note, output_part
from luna_farm.errors import DiskError, FarmError, InvalidRequest
from luna_farm.imaging import checksum
from luna_farm.locations import is_url
from luna_farm.storage import mounts, writer
from luna_farm.storage.allowed import ANYWHERE, Allowed
from luna_farm.storage.saved_files import real_folder
from luna_farm.storage.upload_spool import Target, UploadSpool
from luna_farm.storage.writer import Published
from luna_farm.worker.made import File, Made

Publish = Callable[..., Published]
_LARGEST_SIDECAR = 2**25
"""Bytes of a .json that is looked at."""


def written(
    made: Made,
    uploads: UploadSpool | None,
    *,
    fsync: bool = True,
    note: Callable[[Note], None] | None = None,
    allowed: Allowed = ANYWHERE,
    catalogue: Sequence[str] | None = None,
) -> ImageResult:
    """Write an encoded image: into its folder, into the spool `uploads` if it goes further, or both.

    `note` is called before a file gets its name, `allowed` says which links may be followed. `catalogue`:
    what its row of the catalogue keeps, of the setting `catalogue_fields`; None without a catalogue. Raises
    DiskError and InvalidRequest; after that nothing is published, or the result names what is.
    """
    started = time.perf_counter()
    result = _stored(made, uploads, fsync, note, allowed)
    if result.state == "dropped":
        return result
    ms = {**made.ms, "write": _lap(started)}
    if catalogue is None or result.state == "failed":
        return result.with_fields(ms=ms)
    crc32 = checksum.crc32(made.encoded.buffers)
    return result.with_fields(ms=ms, row=_row(made, result, crc32, ms, catalogue))


def sent(made: Made, catalogue: Sequence[str] | None) -> ImageResult:
    """Return the result of an image whose files its worker has sent to their destination."""
    first = made.stored[0]
    result = _result(made, path=made.path, bytes=first["bytes"], uploads=made.stored, ms=made.ms)
    if catalogue is None:
        return result
    return replace(result, row=_row(made, result, first["crc32"], made.ms, catalogue))


def _stored(
    made: Made,
    uploads: UploadSpool | None,
    fsync: bool,
    note: Callable[[Note], None] | None,
    allowed: Allowed,
) -> ImageResult:
    """Put the files where they go, or into the spool."""
    root = made.task.root or made.options.output_dir
    if made.task.archive:
        return _for_archive(made, root, uploads)
    if made.options.if_exists == "skip" and not made.task.recovered and os.path.lexists(made.path):
        told = f"{PurePath(made.path).name} exists already and was left as it is (if_exists = skip)."
        return ImageResult("dropped", path=made.path, warnings=(*made.warnings, told), ms=made.ms)
    if is_url(root):
        result = _result(made, path=made.path, bytes=made.files[0].bytes)
    else:
        publish = partial(
            writer.publish,
            output_dir=root,
            fsync=fsync,
            note=note,
            allowed=allowed,
            replace=made.options.if_exists == "overwrite",
            time_ns=made.task.file_time_ns,
            recovered=made.task.recovered,
        )
        result = _published(made, publish)
    if result.state != "failed" and (is_url(root) or made.options.mirrors):
        if uploads is None:
            needed = "a folder: only a running farm sends files to destinations and mirrors"
            raise InvalidRequest.of("output_dir", root, needed)
        result = _spooled(made, root, result, uploads)
    return result


def _row(
    made: Made, result: ImageResult, crc32: int | None, ms: Mapping[str, float], names: Sequence[str]
) -> bytes:
    """Return the packed row of the catalogue of an image that was written: of its first file."""
    first = made.files[0]
    row = images.saved(
        made.task,
        made.options,
        made.embedded,
        result,
        size=first.size,
        crc32=crc32,
        saved_at=time.time(),
        ms=ms,
        real_folder="" if made.task.archive or is_url(result.path) else real_folder(result.path),
        names=names,
    )
    return images.pack(row)


def _for_archive(made: Made, root: str, uploads: UploadSpool | None) -> ImageResult:
    """Put the files into the spool, from where they are added to their archive. They are not synced: until
    then the image is accepted, not saved."""
    if uploads is None:
        allowed = "none: only a running farm writes archives"
        raise InvalidRequest.of("archive", made.options.archive, allowed)
    task = made.task
    spooled = uploads.write(
        task.job_id,
        task.index,
        [buffer for file in made.files for buffer in file.encoded.buffers],
        [Target(root, task.member)],
        content_type="application/octet-stream",
        files_in_it=[(file.ending, file.bytes) for file in made.files],
        metadata=made.metadata,
        state=made.state,
        sync=made.options.durable,
    )
    target = {"spool": spooled.path, "root": root, "name": task.member}
    size = spooled.upload.bytes
    return _result(made, path=task.path, bytes=made.files[0].bytes, uploads=(target,), spool_bytes=size)


def _result(made: Made, **given: Any) -> ImageResult:
    return ImageResult(
        made.state,
        score=made.verdict.score,
        threshold=made.verdict.threshold,
        scores=made.scores,
        thumbnail=made.thumbnail,
        **{"warnings": tuple(made.warnings), **given},
    )


def _published(made: Made, publish: Publish) -> ImageResult:
    """Publish the files in their folders, the image itself last."""
    done: dict[int, Mapping[str, Any]] = {file["number"]: file for file in made.task.published}
    warnings = list(made.warnings)
    for file in (*made.files[1:], made.files[0]):
        if file.number in done:
            continue
        try:
            at = _publish_one(made, file, publish, warnings)
        except FarmError as error:
            if not done:
                raise
            failed = ImageResult("failed", path=file.path, error=str(error), code=error.code)
            noted = error.noted if isinstance(error, DiskError) else None
            return failed.with_fields(files=tuple(done.values()), noted=noted)
        done[file.number] = {"number": file.number, "path": at.path, "bytes": at.bytes}
    first = done[0]
    files = tuple(done[file.number] for file in made.files) if len(made.files) > 1 else ()
    return _result(made, path=first["path"], bytes=first["bytes"], warnings=tuple(warnings), files=files)


def _publish_one(made: Made, file: File, publish: Publish, warnings: list[str]) -> Published:
    task, part = made.task, output_part(file.number)
    mounts.require(task.outputs[file.number].get("mount", "") if file.number else task.mount, file.path)
    temp = writer.temp_name(task.job_id, task.index, part)
    published = publish(file.path, file.encoded.buffers, temp_name=temp, noted=Note.of(task, part))
    if not file.number and made.options.if_exists == "overwrite" and file.encoded.sidecar is None:
        file.encoded.sidecar = _anew(published.path, made)
    if file.encoded.sidecar is not None and not file.number:
        warnings += _beside(published.path, made, publish)
    if published.path != file.path:
        warnings.append(
            f"{PurePath(file.path).name} was made by another program in the meantime; this is the next free"
            " name."
        )
    return published


def parts(
    made: Made, root: str, path: str, published: Mapping[int, str]
) -> list[tuple[str, str, list[bytes | memoryview], str]]:
    """Return what is sent of an image: the part of each file, its name below `root`, its bytes and its type.
    The image itself, at `path`, is the first; metadata beside it is the last. `published`: paths of files
    that are published already, by their numbers."""

    def name_of(path: str) -> str:
        return path[len(root) :].lstrip("/\\").replace(os.sep, "/")

    found = [
        (
            output_part(file.number),
            name_of(published.get(file.number, file.path if file.number else path)),
            file.encoded.buffers,
            f"image/{file.format}",
        )
        for file in made.files
    ]
    if made.encoded.sidecar is not None:
        beside = str(PurePosixPath(name_of(path)).with_suffix(".json"))
        found.append(("json", beside, [made.encoded.sidecar], "application/json"))
    return found


def _spooled(made: Made, root: str, result: ImageResult, uploads: UploadSpool) -> ImageResult:
    """Put the files into the spool with every place that they go to, and so the metadata beside the image."""
    task = made.task
    published = {file["number"]: file["path"] for file in result.files}
    roots = (*((root,) if is_url(root) else ()), *made.options.mirrors)
    files = parts(made, root, result.path, published)
    targets: dict[str, list[dict[str, str]]] = {}
    size = 0
    for part, file_name, buffers, content_type in reversed(files):
        spooled = uploads.write(
            task.job_id,
            task.index,
            buffers,
            [Target(place, file_name) for place in roots],
            content_type=content_type,
            part=part,
            state=made.state,
        )
        targets[part] = [{"spool": spooled.path, "root": at.root, "name": at.name} for at in spooled.targets]
        size += spooled.upload.bytes
    in_order = tuple(target for part, *_ in files for target in targets[part])
    return replace(result, uploads=in_order, spool_bytes=size)


def _beside(path: str, made: Made, publish: Publish) -> list[str]:
    """Write the metadata that does not fit into the file beside it; its failure costs a warning, not the
    image."""
    task, sidecar = made.task, made.encoded.sidecar
    assert sidecar is not None, "called for an image that has one"
    beside = str(PurePath(path).with_suffix(".json"))
    temp = writer.temp_name(task.job_id, task.index, "json")
    try:
        publish(beside, [sidecar], temp_name=temp, noted=Note.of(task, "json"))
    except FarmError as error:
        return [f"The metadata beside it could not be written: {error}"]
    return []


def _anew(path: str, made: Made) -> bytes | None:
    """Return what the .json of an earlier image must say once that is replaced; None if there is none."""
    try:
        with open(PurePath(path).with_suffix(".json"), "rb") as file:
            old = json.loads(file.read(_LARGEST_SIDECAR))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(old, dict) or not {"save_timestamp", "batch_index"} <= {*old}:  # one of another program
        return None
    from luna_farm.imaging import metadata_exif

    return metadata_exif.sidecar(made.embedded)


def _lap(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
