"""Metadata that is larger than a request may be: what of it is sent, and what is written beside the image.

The image is never refused for it. What does not fit stays on this side and goes, without its secrets, to
`<image>.more.json`, once for a request, in a thread: a document of this size takes seconds. This module must
never hold a hand-over up.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from luna_farm.core.fields import DOCUMENTS_LIMIT
from luna_farm.core.scrubber import Scrubber
from luna_farm.core.secret_shapes import mask
from luna_farm.errors import FarmError
from luna_farm.locations import is_url
from luna_farm.storage import writer

_log = logging.getLogger("luna_farm.client")


SMALL = ("metadata", "custom_metadata", "texts", "exif", "xmp")
"""Documents that are sent first."""


def size(text: str) -> int:
    """Return the bytes of a text in a message."""
    return len(text) if text.isascii() else len(text.encode())


def cut(
    documents: Mapping[str, str], of_images: Sequence[str] = ()
) -> tuple[dict[str, str], list[str], dict[str, str]]:
    """Split the JSON texts of a request into what is sent (its documents, and the metadata of its images) and
    what is not: parameters first, then workflow and prompt, then the other keys of extra_pnginfo."""
    left: dict[str, str] = {}
    room = DOCUMENTS_LIMIT

    def fits(name: str, text: str) -> bool:
        nonlocal room
        needed = size(text) + len(json.dumps(name)) + 4  # as a key of extra_pnginfo
        if needed > room:
            left[name] = text
            return False
        room -= needed
        return True

    given = {name: documents.get(name, "") for name in (*SMALL, "prompt")}
    extra = _keys(documents.get("extra_pnginfo", ""))
    sent = {name for name in SMALL if fits(name, given[name])}
    images = [
        text if not text or fits(f"metadata of image {number}", text) else ""
        for number, text in enumerate(of_images, 1)
    ]
    kept = {name: extra.pop(name) for name in ("workflow",) if name in extra and fits(name, extra[name])}
    sent |= {name for name in ("prompt",) if fits(name, given["prompt"])}
    kept |= {name: text for name, text in extra.items() if name not in left and fits(name, text)}
    keys = ", ".join(f"{json.dumps(name)}: {text}" for name, text in kept.items())
    cut_documents = {name: given[name] if name in sent else "" for name in documents if name in given}
    if "extra_pnginfo" in documents:
        cut_documents["extra_pnginfo"] = f"{{{keys}}}" if kept else ""
    return cut_documents, images, left


def _keys(document: str) -> dict[str, str]:
    """Return the keys of a JSON map with their values as JSON texts; what is no map stays whole."""
    try:
        found = json.loads(document or "{}")
    except (ValueError, RecursionError):
        return {"extra_pnginfo": document}
    if not isinstance(found, dict):
        return {"extra_pnginfo": document}
    return {name: json.dumps(value) for name, value in found.items()}


def sentence(left: Mapping[str, str], here: bool) -> str:
    """Say in the report what is not in the images. `here`: this side can write beside them."""
    names = ", ".join(f"{name} ({len(text):,} characters)" for name, text in left.items())
    where = "it is in a .more.json file beside the first image" if here else "it was left out"
    return f"metadata: {names} is more than a request holds ({DOCUMENTS_LIMIT:,} bytes); {where}."


def write_beside(path: str, left: Mapping[str, str]) -> None:
    """Write what was not sent beside the image at `path`; a failure, or that it is a URL, is logged."""
    if is_url(path):
        _log.warning("The metadata that did not fit (%s) was left out of %s.", ", ".join(left), path)
        return
    cleaned = Scrubber().all({name: _parsed(text) for name, text in left.items()})
    body = json.dumps(cleaned, allow_nan=True).encode("ascii")
    folder, name = os.path.split(path)
    target = os.path.join(folder, os.path.splitext(name)[0] + ".more.json")
    try:
        writer.publish(
            target,
            [body],
            output_dir=folder,
            temp_name=writer.temp_name(os.urandom(4).hex(), 0, "more"),
            fsync=False,
        )
    except FarmError as error:
        _log.warning("The metadata that did not fit could not be written to %s: %s", target, error)


def write_aside(path: str, left: Mapping[str, str]) -> None:
    """Do the same in a thread that the end of the program waits for."""
    threading.Thread(target=write_beside, args=(path, left), name="metadata").start()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return mask(text)[0]
