"""What of the names that a request asks for is not taken as it was typed, and why.

Said once for each request, of its text alone: what a token stands for (a prompt, a model) is replaced without
a word, since it was not typed as a name. Pure; the replacing is in `filenames.py`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from luna_farm.core.filenames import clean_part
from luna_farm.core.schema import Submit

_TOKEN = re.compile("%[A-Za-z][^%]*%")
_SEPARATORS = re.compile(r"[/\\]")
_START = re.compile(r"\A\s*(?:[A-Za-z]:)?[/\\]+")
"""Of an absolute path, about which `filenames.py` has a sentence of its own."""
_FOLDERS = "folders go into save_path"
_REFUSED = "Windows, macOS or Linux takes no such character in a name"


def warnings(submit: Submit) -> tuple[str, ...]:
    """Return a sentence on each thing that was replaced."""
    options = submit.options
    told = [*_of_folders("save_path", options.save_path), *_of_name("filename", options.filename)]
    for batch in submit.batches:
        told += _of_name("affix", batch.affix)
        for output in batch.outputs:
            told += _of_folders("save_path", output.save_path or "")
            told += _of_name("suffix", output.suffix)
    return tuple(dict.fromkeys(told))


@lru_cache(maxsize=256)
def _of_folders(field: str, text: str) -> tuple[str, ...]:
    if not text:
        return ()
    told: list[str] = []
    parts = [part.strip() for part in _SEPARATORS.split(_START.sub("", _plain(text), count=1))]
    if parts[0] == "~":
        told.append(f"{field}: ~ is a folder of that name below the output folder, not your home folder.")
    for part in parts:
        if not part.strip("."):
            if len(part) > 1:
                told.append(f"{field}: {part} became _, because no name may leave the output folder.")
        else:
            told += _of_part(field, part)
    return tuple(dict.fromkeys(told))


@lru_cache(maxsize=256)
def _of_name(field: str, text: str) -> tuple[str, ...]:
    plain = _plain(text).strip()
    if not plain:
        return ()
    if not plain.strip(" ."):
        instead = "time and model are used" if field == "filename" else "it was left out"
        return (f"{field}: {plain} holds no name, so {instead}.",)
    return _of_part(field, plain)


def _of_part(field: str, part: str) -> tuple[str, ...]:
    made = clean_part(part)
    if made == unicodedata.normalize("NFC", part):
        return ()
    told: list[str] = []
    gone = dict.fromkeys(char for char in part if clean_part(f"a{char}a") == "a_a" and char != "_")
    for why in (_FOLDERS, _REFUSED):
        these = [char for char in gone if (why == _FOLDERS) == bool(_SEPARATORS.match(char))]
        if these:
            shown = ", ".join(char if char.isprintable() else ascii(char).strip("'") for char in these)
            told.append(f"{field}: {shown} became _, because {why}.")
    if made.startswith("_") and made[1:] == part.rstrip(". ") and not part.startswith("_"):
        told.append(f"{field}: {part} became {made}, because Windows keeps that name for a device.")
    elif part.endswith("."):
        told.append(f"{field}: the dots at the end of {part} were left out, because Windows drops them.")
    return tuple(told)


def _plain(text: str) -> str:
    """Return the text with a letter for each token."""
    return _TOKEN.sub("x", text) if "%" in text else text
