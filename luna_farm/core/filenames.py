"""From resolved text to paths that every file system takes and that stay below the output folder.

Windows' rules hold everywhere, because images travel. Lengths are bytes of UTF-8. This module must never
look at a disk: whether a name is free is for `storage/names.py`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from luna_farm.core.messages import FORMAT_NAMES, FORMATS
from luna_farm.core.outputs import Output
from luna_farm.core.schema import Submit
from luna_farm.core.template import (
    BATCH_NUM,
    COUNTER,
    DEFAULT_FILENAME,
    JobFacts,
    Resolved,
    Values,
    plain,
    resolve,
    without_secrets,
)
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

# Control characters, what Windows refuses, line separators, noncharacters, lone surrogates, and all that is
# not seen: Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties.txt, which has the bidirectional
# controls, the byte order mark and the tag characters in it.
NUMBER = "\x01"
"""Where the number of the files of one image goes; no clean name holds it."""

_REFUSED = re.compile(
    r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f'
    "\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufdd0-\ufdef\ufff0-\ufffb\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
    + "]"
)
# Of these, what changes how others look: joiners between letters of scripts that join them (Arabic, Indic and
# their kin) and between symbols (emoji), and variation selectors behind a symbol or an ideograph.
_JOINERS = "\u200c\u200d"
_JOINING = re.compile(
    "[\u0600-\u109f\u1780-\u18af\u1900-\u1cff\ua800-\uabff\ufb50-\ufdff\ufe70-\ufefc"
    "\U00010a00-\U00011fff\U0001e900-\U0001e95f]"
)
_IDEOGRAPH = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003fffd]")
# Signs that look like a space. Inside a name they are as good as one; a name of nothing else is not seen.
_BLANKS = "".join(map(chr, (32, 160, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x2800, 0x3000))) + (
    "\U00016fe4\U0001d159"
)
_VARIATIONS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_DEVICES = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"]
    + [f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789¹²³"]
)
_SEPARATORS = re.compile(r"[/\\]")


@dataclass(slots=True, unsafe_hash=True)
class Names:
    """Paths below the output folder, one for each file of each image of a submit, in order, and what was odd
    in the templates. Where an image has several files, `NUMBER` in their paths is where their number goes."""

    relatives: tuple[str, ...]
    warnings: tuple[str, ...]
    archive: str = ""
    """Path of the archive below the output folder, without number and ending."""
    members: tuple[str, ...] = ()
    """Names in that archive."""


def image_names(submit: Submit, path_bytes: int = PATH_BYTES) -> Names:
    """Name every image of a submit, batches counted out, in order. Raises InvalidRequest."""
    facts = {batch.metadata: JobFacts(submit.options, batch.metadata) for batch in submit.batches}
    named = [
        image_name(
            facts[batch.metadata],
            affix=batch.affix,
            format=batch.format,
            subdir=batch.subdir,
            batch_index=index,
            batch_size=batch.batch,
            width=batch.width,
            height=batch.height,
            path_bytes=path_bytes,
            output=output,
        )
        for batch in submit.batches
        for index in range(batch.batch)
        for output in batch.outputs or (None,)
    ]
    warnings = dict.fromkeys((*submit.told, *[warning for name in named for warning in name.warnings]))
    relatives = tuple([name.text for name in named])
    if submit.options.archive == "none":
        return Names(relatives, tuple(warnings))
    first = submit.batches[0]
    archive = archive_name(facts[first.metadata], first.width, first.height, path_bytes)
    firsts = list(accumulate((b.files for b in submit.batches for _ in range(b.batch)), initial=0))[:-1]
    members = tuple(_member(relatives[at], archive) for at in firsts)
    return Names(relatives, tuple(warnings), archive, members)


def archive_name(facts: JobFacts, width: int, height: int, path_bytes: int = PATH_BYTES) -> str:
    """Return `<save_path>/<filename>` for the archive of a request: without what tells its images apart."""
    name = image_name(
        facts,
        affix="",
        format="png",
        subdir=False,
        batch_index=0,
        batch_size=1,
        width=width,
        height=height,
        path_bytes=path_bytes,
    ).text
    folder, slash, stem = name.removesuffix(".png").replace(COUNTER, "").rpartition("/")
    return folder + slash + (stem.strip(" _-.") or "images")


def _member(relative: str, archive: str) -> str:
    """Return the name in an archive: the path from the folder that the archive is in. The files of an image
    have one stem there."""
    folder = archive.rpartition("/")[0]
    relative = relative.removeprefix(f"{folder}/") if folder else relative
    stem, marked, ending = relative.partition(NUMBER)
    return f"{stem}.{ending.rpartition('.')[2]}" if marked else relative


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
    output: Output | None = None,
) -> Resolved:
    """Return `<save_path>[/<affix>]/<filename>[_<affix>][_<batch>].<ext>`, with "/" between the parts. A
    filename with `%batch_num%` has the place in the batch there and not at its end, as ComfyUI's SaveImage,
    unless it is cut or hidden there: the images of a batch never have one name.

    `format` is a key of FORMATS, `batch_index` counts from 0, `path_bytes` bounds the path with its
    output_dir. The text may hold `%counter%`, which `storage/names.py` replaces. Raises InvalidRequest if no
    sensible path is that short, or for an unreadable timestamp.
    """
    options = facts.options
    values = Values(facts, affix, batch_index, width, height)
    save_path = options.save_path if output is None or output.save_path is None else output.save_path
    folder = without_secrets(_below(resolve(save_path, values), options.output_dir))
    written = resolve(options.filename, values)
    stem = without_secrets(written)
    told = BATCH_NUM in options.filename and stem.text == written.text
    if not stem.text.strip(" ."):
        stem = without_secrets(resolve(DEFAULT_FILENAME, values))
    safe = without_secrets(Resolved(plain(affix))) if affix else Resolved("")
    tail = fit(clean_part(safe.text), AFFIX_BYTES) if affix.strip(" .") else ""
    folders = clean_folders(folder.text) + ([tail] if subdir and tail else [])
    before = f"_{tail}" if tail else ""
    place = f"_{batch_index:0{options.batch_digits or len(str(batch_size - 1))}d}" if batch_size > 1 else ""
    if output is None:
        behind = f".{FORMATS[format]}"
    else:
        suffix = f"_{fit(clean_part(plain(output.suffix)), AFFIX_BYTES)}" if output.suffix.strip(" .") else ""
        behind = f"{NUMBER}{suffix}.{FORMATS[output.format]}"
    root_bytes = len(options.output_dir.encode("utf-8", "surrogatepass")) + 1
    name = clean_part(_without_extension(stem.text, format))
    ending = before + ("" if told else place) + behind
    text = assemble(folders, name, ending, path_bytes - root_bytes)
    if told and text != "/".join((*folders, name + ending)):  # the place may be what was cut
        ending = before + place + behind
        text = assemble(folders, name, ending, path_bytes - root_bytes)
    warnings = [*folder.warnings, *stem.warnings, *safe.warnings]
    if text != "/".join((*folders, name + ending)) or tail != clean_part(safe.text) != "_":
        warnings.append(_CUT)
    return Resolved(text, tuple(dict.fromkeys(warnings)))


_CUT = (
    f"The name was too long and was cut: a file name has at most {NAME_BYTES} bytes, an affix {AFFIX_BYTES}."
)


def _below(folder: Resolved, output_dir: str) -> Resolved:
    """Make an absolute save_path inside `output_dir` relative to it; say where one that is outside goes."""
    start = folder.text.strip()[:2]
    if start[:1] not in ("/", "\\") and start[1:] != ":":  # relative, as nearly always
        return folder
    path, root = (_SEPARATORS.sub("/", text).rstrip("/") for text in (folder.text.strip(), output_dir))
    if not path.startswith("/") and not re.match("[A-Za-z]:/", path + "/"):
        return folder
    windows = root[1:2] == ":" or root.startswith("//")
    inside, outside = (path.lower(), root.lower()) if windows else (path, root)
    if inside == outside or inside.startswith(outside + "/"):
        return Resolved(path[len(root) + 1 :], folder.warnings)
    told = (
        f"save_path {folder.text[:200]!r} is not inside output_dir {output_dir!r}; a folder below it is used."
    )
    return Resolved(folder.text, (*folder.warnings, told))


def _without_extension(stem: str, format: str) -> str:  # noqa: A002
    """Drop the extension of the format that was typed with the name: "x.png" as PNG is not "x.png.png"."""
    head, _, extension = stem.rstrip(" .").rpartition(".")
    return head if head.strip(" .") and FORMAT_NAMES.get(extension.lower()) == format else stem


@lru_cache(maxsize=256)
def clean_part(text: str) -> str:
    """Return `text` as a name that Windows, macOS and Linux take: never empty, "." or "..", of any length.

    NFC; refused characters become "_"; what looks like a space around it and trailing dots go; a device name
    gets a "_" first.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = _REFUSED.sub(_seen, text).strip(_BLANKS).rstrip(_BLANKS + ".") or "_"
    if text.split(".", 1)[0].rstrip(" ").upper() in _DEVICES:
        text = "_" + text
    return text


def _seen(match: re.Match[str]) -> str:
    """Return what stands in the place of a refused character: itself, where it changes how others look."""
    char, text, at = match[0], match.string, match.start()
    if char in _JOINERS:
        before = text[at - 1 : at] if not _VARIATIONS.match(text[at - 1 : at]) else text[at - 2 : at - 1]
        kind = _joined(before)
        return char if kind and kind == _joined(text[at + 1 : at + 2]) else "_"
    before = text[at - 1 : at]
    behind = _IDEOGRAPH.match(before) or _is_symbol(before) or text[at + 1 : at + 2] == "\u20e3"  # 1️⃣
    return char if _VARIATIONS.match(char) and behind else "_"


def _joined(char: str) -> str:
    """Return what a joiner beside this character joins, "" for nothing."""
    if _JOINING.match(char) and unicodedata.category(char)[0] in "LM" and not _REFUSED.match(char):
        return "letters"
    return "symbols" if _is_symbol(char) else ""


def _is_symbol(char: str) -> bool:
    """Whether a character is a symbol that may have several looks, such as ☎ and ©; those of ASCII have
    one."""
    return char > "\x7f" and unicodedata.category(char)[0] == "S"


def clean_folders(text: str) -> list[str]:
    """Split at "/" and "\\\\" and clean each part; empty parts and "." go, ".." becomes "_"."""
    if not text:
        return []
    return [clean_part(part) for part in _SEPARATORS.split(text) if part.strip(_BLANKS) not in ("", ".")]


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
        short = min(_size(stem), STEM_BYTES) - left
        if short > 0:
            allowed = f"a folder path that is {short} bytes shorter"
            text = f"output_dir: it leaves {max(0, left)} bytes for the file name; allowed: {allowed}."
            raise InvalidRequest(text, "output_dir", allowed=allowed)
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
        name = name.replace(NUMBER, "")
        data = name.encode("utf-8")
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
