"""From resolved text to paths that every file system takes and that stay below the output folder.

Windows' rules hold everywhere, because images travel. Lengths are bytes of UTF-8. This module must never
look at a disk: whether a name is free is for `storage/names.py`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from luna_farm.core.messages import FORMATS
from luna_farm.core.schema import Submit
from luna_farm.core.template import DEFAULT_FILENAME, JobFacts, Resolved, Values, resolve, without_secrets
from luna_farm.errors import InvalidRequest

PART_BYTES = 255
"""The longest name of a file or folder on every common file system."""

NAME_BYTES = PART_BYTES - 24
"""The longest file name made here: room for two suffixes (nine characters at most) and a ".json"."""

PATH_BYTES = 1000
"""The longest whole path made here: macOS takes 1,023 bytes, Linux 4,095."""

AFFIX_BYTES = 96
STEM_BYTES = 24
"""What shortening leaves of a filename at least."""

FOLDER_BYTES = 16
"""What shortening leaves of a folder at least."""

# Control characters, what Windows refuses, bidirectional and other invisible controls, line separators, the
# byte order mark, noncharacters, lone surrogates.
_REFUSED = re.compile(
    r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff'
    "\ud800-\udfff]"
)
_DEVICES = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"]
    + [f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789¹²³"]
)
_SEPARATORS = re.compile(r"[/\\]")


@dataclass(frozen=True, slots=True)
class Names:
    """Paths below the output folder, one for each image of a submit, and what was odd in the templates."""

    relatives: tuple[str, ...]
    warnings: tuple[str, ...]


def image_names(submit: Submit, path_bytes: int = PATH_BYTES) -> Names:
    """Name every image of a submit, batches counted out, in order. Raises InvalidRequest."""
    facts = JobFacts(submit.options)
    named = [
        image_name(
            facts,
            affix=entry.affix,
            format=entry.format,
            subdir=entry.subdir,
            batch_index=index,
            batch_size=entry.batch,
            width=entry.width,
            height=entry.height,
            path_bytes=path_bytes,
        )
        for entry in submit.entries
        for index in range(entry.batch)
    ]
    warnings = dict.fromkeys(warning for name in named for warning in name.warnings)
    return Names(tuple(name.text for name in named), tuple(warnings))


def image_name(
    facts: JobFacts,
    *,
    affix: str,
    format: str,  # noqa: A002  the word of the contract
    subdir: bool,
    batch_index: int,
    batch_size: int,
    width: int,
    height: int,
    path_bytes: int = PATH_BYTES,
) -> Resolved:
    """Return `<save_path>[/<affix>]/<filename>[_<affix>][_<batch>].<ext>`, with "/" between the parts.

    `format` is a key of FORMATS, `batch_index` counts from 0, `path_bytes` bounds the path with its
    output_dir. The text may hold `%counter%`, which `storage/names.py` replaces. Raises InvalidRequest if no
    sensible path is that short, or for an unreadable timestamp.
    """
    options = facts.options
    values = Values(facts, affix, batch_index, width, height)
    folder = without_secrets(resolve(options.save_path, values))
    stem = without_secrets(resolve(options.filename, values))
    if not stem.text.strip(" ."):
        stem = without_secrets(resolve(DEFAULT_FILENAME, values))
    safe = without_secrets(Resolved(affix))
    tail = fit(clean_part(safe.text), AFFIX_BYTES) if affix.strip(" .") else ""
    folders = clean_folders(folder.text) + ([tail] if subdir and tail else [])
    batch = f"_{batch_index}" if batch_size > 1 else ""
    ending = (f"_{tail}" if tail else "") + f"{batch}.{FORMATS[format]}"
    root_bytes = len(options.output_dir.encode("utf-8", "surrogatepass")) + 1
    text = assemble(folders, clean_part(stem.text), ending, path_bytes - root_bytes)
    return Resolved(text, tuple(dict.fromkeys(folder.warnings + stem.warnings + safe.warnings)))


def clean_part(text: str) -> str:
    """Return `text` as a name that Windows, macOS and Linux take: never empty, "." or "..", of any length.

    NFC; refused characters become "_"; spaces around it and trailing dots go; a device name gets a "_" first.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = _REFUSED.sub("_", text).strip(" ").rstrip(" .") or "_"
    if text.split(".", 1)[0].rstrip(" ").upper() in _DEVICES:
        text = "_" + text
    return text


def clean_folders(text: str) -> list[str]:
    """Split at "/" and "\\\\" and clean each part; empty parts and "." go, ".." becomes "_"."""
    return [clean_part(part) for part in _SEPARATORS.split(text) if part.strip(" ") not in ("", ".")]


def fit(text: str, limit: int) -> str:
    """Cut a clean part to at most `limit` (>= 8) bytes of UTF-8, at a character, and keep it clean."""
    if len(text) * 4 <= limit:
        return text
    data = text.encode("utf-8")
    if len(data) <= limit:
        return text
    # Cleaned again: "CON", spaces and more, cut in the spaces, is a device. The spaces make room for the "_".
    return clean_part(data[:limit].decode("utf-8", "ignore"))


def assemble(folders: Sequence[str], stem: str, ending: str, room: int) -> str:
    """Join clean parts to a path of at most `room` bytes; `ending` (affix, batch, extension) stays whole.

    The stem gives way first, down to STEM_BYTES, then all folders alike. Raises InvalidRequest if that is not
    enough.
    """
    folders = [fit(part, PART_BYTES) for part in folders]
    stem = fit(stem, NAME_BYTES - _size(ending))
    room -= PART_BYTES - NAME_BYTES  # the suffix comes later
    if _size("/".join((*folders, stem))) + _size(ending) > room:
        for_folders = room - _size(ending) - min(_size(stem), STEM_BYTES) - len(folders)
        if folders and for_folders < sum(map(_size, folders)):
            share = for_folders // len(folders)
            if share < FOLDER_BYTES:
                allowed = f"fewer folders or a shorter output_dir, {room} bytes are left"
                raise InvalidRequest.of("save_path", "/".join(folders), allowed)
            folders = [fit(part, share) for part in folders]
        left = room - _size("/".join(folders)) - 1 - _size(ending)
        if left < min(_size(stem), STEM_BYTES):
            raise InvalidRequest.of("output_dir", f"{room} bytes left", "a shorter folder path")
        stem = fit(stem, max(left, 8))
    return "/".join((*folders, stem + ending))


def shorten(relative: str, limit: int) -> str:
    """Return a path made here with each part cut to `limit` bytes, for a file system that takes less than
    255.

    Folders lose their end, the file name its middle: affix, batch and extension are behind that.
    """
    *folders, name = relative.split("/")
    data = name.encode("utf-8")
    if len(data) > limit:
        behind = limit // 2
        head = data[: limit - behind].decode("utf-8", "ignore")
        name = clean_part(head + data[-behind:].decode("utf-8", "ignore"))
    return "/".join((*(fit(part, limit) for part in folders), name))


def with_number(name: str, number: int) -> str:
    """Return the path or name with `_00001` before its extension, for `number` 1."""
    stem, dot, extension = name.rpartition(".")
    return f"{stem}_{number:05d}{dot}{extension}"


def collision_key(path: str) -> str:
    """Return what paths share that differ only in case or Unicode normalisation: one file on many systems."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def _size(text: str) -> int:
    return len(text.encode("utf-8"))
