"""Images that cannot be written now: what is held up by what, whose turn it is to try, where pixels wait.

Exactly what fails is held. An image that fails alone waits alone; a folder waits once two of its images have
failed and none was written in between. Decides, as `farm.handle` documents; acts on nothing.
"""

from __future__ import annotations

from dataclasses import replace

from luna_farm.core import events
from luna_farm.core.completion import image_record, request_of
from luna_farm.core.feed_events import FolderFailing, FolderRecovered
from luna_farm.core.instructions import Append, Forget, Instruction, MovePixels, Publish
from luna_farm.core.job import Image, ImageState
from luna_farm.core.messages import ImageResult
from luna_farm.core.retry import FALLBACK_AFTER, FailingFolder, pause_s
from luna_farm.core.state import Farm, folder_of

S = ImageState
HELD_SHARE = 0.25
"""Share of the arena that pixels of held images may take; more of them are moved to the disk."""
MOST_MOVING = 2
"""Images that are being moved at a time."""
MOVE_AGAIN_S = 5.0
"""Pause after the disk of the state folder refused one."""


def disk_failed(farm: Farm, image: Image, result: ImageResult, now: float) -> list[Instruction]:
    """An image cannot be written now: hold it. The folder is suspected unless it has written others since
    this image failed before."""
    hold(farm, image)
    image.result = replace(result, state="", noted=None)
    image.task = replace(image.task, recovered=True, noted=result.noted)
    image.failures += 1
    image.retry_at = now + pause_s(image.failures)
    path = folder_of(image)
    folder = farm.folders.get(path)
    # A successor must know as well what is published, and what may be.
    known = result.files or result.noted
    done: list[Instruction] = [Append((image_record(image),))] if known else []
    if folder is None and image.failures == 1:
        folder = farm.folders[path] = FailingFolder(path, result.error, now)
        done.append(Publish(FolderFailing(image.task.job_id, path, result.error)))
    if folder is not None:
        folder.failed(result.error, now)
    fallback = farm.limits.fallback_dir
    if fallback and not _below(image.task.path, fallback):
        if folder is not None and folder.failures >= FALLBACK_AFTER:
            done += [record for held in _held_in(farm, path) for record in _fall_back(farm, held)]
            del farm.folders[path]
        elif image.failures >= FALLBACK_AFTER:
            done += _fall_back(farm, image)
    return done + relieve(farm, now)


def hold(farm: Farm, image: Image) -> None:
    """Let an image wait until it or its folder may be tried again."""
    image.move(S.HELD)
    farm.holding = True


def held_up(farm: Farm, image: Image, now: float) -> bool:
    """Whether the folder of an image is not to be tried now."""
    folder = farm.failing_folder(image) if farm.folders else None
    return folder is not None and not folder.may_probe(now, untried=not image.failures)


def folder_works(farm: Farm, image: Image) -> list[Instruction]:
    """An image was written: so will be those that wait for its folder. Those that failed themselves wait for
    their own turn, unless more than one of them did, or this one had: then it was the folder."""
    folder = farm.folders.pop(folder_of(image), None) if farm.folders else None
    if folder is None and not image.failures:
        return []
    was_the_folder = bool(image.failures) or (folder is not None and folder.failures > 1)
    image.failures = 0
    for held in _held_in(farm, folder_of(image)):
        if was_the_folder or not held.failures:
            held.move(S.QUEUED)
            farm.waiting.append(held)
    return [Publish(FolderRecovered(folder.path))] if folder else []


def probe(farm: Farm, now: float) -> None:
    """Let one held image of each folder try: the one whose last try is longest ago, so that they take turns
    and one that cannot be written holds up no other."""
    if farm.paused or not (farm.holding or farm.folders):
        return
    used: set[str] = set()
    chosen: dict[str, Image] = {}
    farm.holding = False
    for image in farm.unfinished():
        path = folder_of(image)
        used.add(path)
        if image.state is S.HELD:
            farm.holding = True
            ready = image.retry_at <= now and not held_up(farm, image, now)
            if ready and (path not in chosen or image.started_at < chosen[path].started_at):
                chosen[path] = image
    for image in chosen.values():
        image.move(S.QUEUED)
        farm.waiting.appendleft(image)
    for path in farm.folders.keys() - used:
        del farm.folders[path]


def _held_in(farm: Farm, folder: str) -> list[Image]:
    return [i for i in farm.unfinished() if i.state is S.HELD and folder_of(i) == folder]


def _fall_back(farm: Farm, image: Image) -> list[Instruction]:
    """Send an image below the fallback folder, under the same relative name.

    Journaled, so that a successor looks for the file where it is and writes it only once.
    """
    fallback = farm.limits.fallback_dir.rstrip("/\\")
    below = len(image.task.root.rstrip("/\\"))
    farm.free_name(image)
    root = farm.limits.fallback_root or farm.limits.fallback_dir
    mount = farm.limits.fallback_mount
    disk = {"mount": mount} if mount else {}
    moved = tuple(
        {**{name: at[name] for name in at if name != "mount"}, "path": fallback + at["path"][below:], **disk}
        for at in image.task.outputs
    )
    path = fallback + image.task.path[below:]
    # A note is about the folder that failed: in this one the file of its name and size is another one.
    image.task = replace(image.task, path=path, outputs=moved, root=root, mount=mount, noted=None)
    image.failures = 0
    farm.take_name(image)
    image.move(S.QUEUED)
    farm.waiting.append(image)
    return [Append((image_record(image),))]


def _below(path: str, folder: str) -> bool:
    return path.startswith(folder) and path[len(folder.rstrip("/\\")) :][:1] in ("/", "\\")


# --- where their pixels wait


def relieve(farm: Farm, now: float) -> list[Instruction]:
    """Move pixels of images that have to wait to the disk: out of an arena of a predecessor, so that it can
    go; out of our own, where they would keep others out."""
    if not (farm.holding or farm.spool_queue or farm.paused) or now < farm.move_at:
        return []
    waiting = [*farm.spool_queue, *(farm.waiting if farm.paused else ())]
    held = (image for image in farm.unfinished() if image.state is S.HELD)
    stuck = [image for image in (*held, *waiting) if image.key not in farm.moving]
    mine = [image for image in stuck if image.slot is not None]
    left = sum(image.task.nbytes for image in mine) - farm.slots.size * HELD_SHARE
    chosen = [image for image in stuck if image.slot is None and image.task.segment in farm.inherited]
    for image in mine:
        if farm.pressed or left > 0:
            chosen.append(image)
            left -= image.task.nbytes
    farm.pressed = farm.pressed and bool(mine)
    done: list[Instruction] = []
    for image in chosen:
        if image.spool:  # of a durable job: it is on the disk already
            done += _at(farm, image, image.spool, image.spool_offset)
        elif len(farm.moving) < MOST_MOVING:
            farm.moving.add(image.key)
            done.append(MovePixels(image.task, request_of(farm.jobs[image.task.job_id], image)))
    return done


def pixels_moved(farm: Farm, event: events.PixelsMoved, now: float) -> list[Instruction]:
    """A copy is on the disk: the image goes on from there, unless it is being read or finished by now."""
    farm.moving.discard((event.job_id, event.index))
    if event.error is not None:
        farm.move_at = now + MOVE_AGAIN_S
        return []
    image = farm.image(event.job_id, event.index)
    if image is None or image.state not in (S.HELD, S.QUEUED):
        return [*_forgotten(image, event.segment), *relieve(farm, now)]
    return [*_at(farm, image, event.segment, 0), *relieve(farm, now)]


def _forgotten(image: Image | None, segment: str) -> list[Instruction]:
    # One that ran meanwhile and failed may be on its way to the disk a second time, under the same name.
    return [] if image is not None and segment in (image.task.segment, image.spool) else [Forget(segment)]


def _at(farm: Farm, image: Image, segment: str, offset: int) -> list[Instruction]:
    """Have an image use its copy on the disk, and free the other."""
    farm.segment_users[segment] += 1
    freed = farm.release_pixels(image)
    image.task = replace(image.task, segment=segment, offset=offset)
    return [Append((image_record(image),)), *freed]
