"""The token language of names: `%model_name%`, `%time:YYYY_mm_dd%`, `%KSampler.seed%` and the rest.

Pure: a template and what is known of an image go in, text and warnings come out. What comes out may still
hold anything a file system dislikes; `filenames.py` makes names of it. This module must never put a value of
one token through the language again: a prompt that says "%seed%" is text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache

from luna_farm.core.messages import SaveOptions
from luna_farm.core.prompt import UNKNOWN_MODEL, Prompt, is_unknown
from luna_farm.core.scrubber import Scrubber
from luna_farm.core.secret_shapes import mask
from luna_farm.core.secrets import MASK, is_secret
from luna_farm.errors import InvalidRequest

DEFAULT_FILENAME = "%time:YYYY_mm_dd_HHMMSS%_%model_name%"
"""What an empty filename means."""

MODEL_EXTENSIONS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")

COUNTER = "%counter%"
"""Stays in the text: only who looks at the disk (`storage/names.py`) knows the number."""

BATCH_NUM = "%batch_num%"
"""The place in the batch as ComfyUI's SaveImage calls it; with it in the filename there is no other."""

VALUE_CHARS = 255
"""A value is cut to this: no part of a path holds more, and a prompt of a megabyte must not become a name."""

LOOKED_AT_CHARS = 4096
"""How much of a value is searched for secrets: more than is ever used of it."""

_LEFT_OUT = "a password, key or token was left out of the name"
MAX_WARNINGS = 8
"""Warnings of one template."""

_TIME = re.compile("YYYY|mm|dd|HH|MM|SS")
_TIME_FIELDS = {"YYYY": "year", "mm": "month", "dd": "day", "HH": "hour", "MM": "minute", "SS": "second"}
# ComfyUI's own: frontend `formatDate` in src/utils/formatUtil.ts. H is not in it.
_DATE = re.compile("dd?|MM?|hh?|mm?|ss?|yyy?y?")
_DATE_FIELDS = {"d": "day", "M": "month", "h": "hour", "m": "minute", "s": "second"}
_SEPARATORS = re.compile(r"[/\\]")


@dataclass(slots=True, unsafe_hash=True)
class Resolved:
    """Text with its tokens replaced, and one sentence for each that is not known."""

    text: str
    warnings: tuple[str, ...] = ()


class JobFacts:
    """What images of a job share that have the same metadata, read once, when a token asks for it.

    `of_image`: the metadata of these images, JSON text.
    """

    def __init__(self, options: SaveOptions, of_image: str = "") -> None:
        self.options = options
        self._of_image = of_image

    @cached_property
    def prompt(self) -> Prompt:
        """The graph that made the images."""
        options = self.options
        return Prompt(options.prompt, options.extra_pnginfo, options.metadata, self._of_image, options.texts)

    @cached_property
    def secrets(self) -> Scrubber:
        """Knows the secrets of the graph, to keep their copies out of names."""
        scrubber = Scrubber()
        scrubber.learn(self.prompt.nodes)
        return scrubber

    @cached_property
    def model(self) -> tuple[tuple[str, ...], str]:
        """The folders and the name of the model."""
        given = self.options.model_name
        return split_model(self.prompt.model if is_unknown(given) else given)

    @cached_property
    def moment(self) -> datetime:
        """The timestamp of the request, as the clock on the user's wall showed it. Raises InvalidRequest."""
        text = self.options.timestamp
        try:  # Python 3.10 does not read the Z that JavaScript writes
            return datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
        except ValueError:
            raise InvalidRequest.of("timestamp", text, "an ISO 8601 date and time") from None


@dataclass(slots=True, unsafe_hash=True)
class Values:
    """What tokens stand for, for one image. `batch_index` counts from 0, `width` and `height` are pixels."""

    job: JobFacts
    affix: str = ""
    batch_index: int = 0
    width: int = 0
    height: int = 0

    def get(self, name: str, warnings: list[str]) -> str | None:
        """Return the text for the token `name` (without its percent signs), or None if it is not known.

        Only `model_path`, `model_dir` and the format of a date may bring "/" with them.
        """
        read = _TOKENS.get(name)
        if read is not None:
            text = read(self)
        elif name.startswith("time:"):
            return luna_time(name[5:], self.job.moment)
        elif name.startswith("date:"):
            return comfyui_date(name[5:], self.job.moment)
        elif name.count(".") == 1:
            text, problem = self._widget(*name.split("."))
            if problem:
                warnings.append(f"%{name[:120]}%: {problem}.")
        else:
            return None
        if text is None:
            return None
        if name != "counter":
            text = plain(text)
        safe = masked(text[:LOOKED_AT_CHARS])
        if safe != text[:LOOKED_AT_CHARS]:
            warnings.append(f"%{name[:120]}%: {_LEFT_OUT}.")
            text = safe
        if name in _WITH_FOLDERS:
            return text
        return _SEPARATORS.sub("_", text[:VALUE_CHARS])

    def _widget(self, node: str, widget: str) -> tuple[str | None, str]:
        text, problem = self.job.prompt.widget(node, widget)
        if text is None:
            return None, problem
        text = text[:LOOKED_AT_CHARS]
        safe = MASK if is_secret(widget, text) else self.job.secrets.text(text)
        return (text, problem) if safe == text else (safe, _LEFT_OUT)


_TOKENS: dict[str, Callable[[Values], str | None]] = {
    "model_path": lambda v: "/".join((*v.job.model[0], v.job.model[1])),
    "model_dir": lambda v: "/".join(v.job.model[0]),
    "model_name": lambda v: v.job.model[1],
    "index": lambda v: str(v.job.options.filename_index),
    "affix": lambda v: v.affix,
    "batch": lambda v: str(v.batch_index),
    BATCH_NUM[1:-1]: lambda v: str(v.batch_index),
    "width": lambda v: str(v.width),
    "height": lambda v: str(v.height),
    "seed": lambda v: v.job.prompt.seed(),
    "year": lambda v: str(v.job.moment.year),
    "month": lambda v: f"{v.job.moment.month:02d}",
    "day": lambda v: f"{v.job.moment.day:02d}",
    "hour": lambda v: f"{v.job.moment.hour:02d}",
    "minute": lambda v: f"{v.job.moment.minute:02d}",
    "second": lambda v: f"{v.job.moment.second:02d}",
    "counter": lambda v: COUNTER,
}
_WHY = {"seed": "no node of the prompt has a seed that can be read"}
"""Tokens that may stand for nothing, and why."""
_WITH_FOLDERS = ("model_path", "model_dir")


def resolve(template: str, values: Values) -> Resolved:
    """Replace every known token; an unknown one stays as it is, with a warning.

    A percent sign that opens no known token is text, and the next one may open a token: in "100% of %seed%"
    the seed is found.
    """
    if "%" not in template:
        return Resolved(template)
    out: list[str] = []
    warnings: list[str] = []
    position = 0
    while True:
        start = template.find("%", position)
        end = template.find("%", start + 1) if start >= 0 else -1
        if end < 0:
            out.append(template[position:])
            return Resolved("".join(out), tuple(warnings[:MAX_WARNINGS]))
        out.append(template[position:start])
        name = template[start + 1 : end]
        said = len(warnings)
        text = values.get(name, warnings)
        if text is None:
            out.append(template[start:end])
            position = end
            if len(warnings) == said and name in _TOKENS:
                warnings.append(f"%{name}% is not known here: {_WHY[name]}; it stays in the name as it is.")
            elif len(warnings) == said and _looks_meant(name):
                warnings.append(f"%{name[:120]}% is not a known token; it stays in the name as it is.")
        else:
            out.append(text)
            position = end + 1


def plain(text: str) -> str:
    """Return what a name takes over as it is, without what would be counted later."""
    return text.replace(COUNTER, f"_{COUNTER[1:-1]}_")


def without_secrets(resolved: Resolved) -> Resolved:
    """Mask what has the shape of a secret in a name, wherever it came from, and say so."""
    text = masked(resolved.text)
    if text == resolved.text:
        return resolved
    return Resolved(text, (*resolved.warnings, f"save_path, filename or affix: {_LEFT_OUT}."))


@lru_cache(maxsize=256)
def masked(text: str) -> str:
    """Return a text without what has the shape of a secret. Kept, because the images of a batch share it."""
    return mask(text)[0]


def luna_time(form: str, moment: datetime) -> str:
    """Format as `%time:FMT%`: YYYY, mm (month), dd, HH, MM (minute), SS. All else is text."""
    return _TIME.sub(lambda m: f"{getattr(moment, _TIME_FIELDS[m[0]]):0{len(m[0])}d}", form)


def comfyui_date(form: str, moment: datetime) -> str:
    """Format as ComfyUI's `%date:FMT%`: d, M, h (0 .. 23), m, s, doubled to pad; yy, yyyy. Else text."""

    def field(match: re.Match[str]) -> str:
        letters = match[0]
        if letters[0] == "y":
            return {"yy": str(moment.year)[2:], "yyyy": str(moment.year)}.get(letters, letters)
        return str(getattr(moment, _DATE_FIELDS[letters[0]])).zfill(len(letters))

    return _DATE.sub(field, form)


def split_model(model: str) -> tuple[tuple[str, ...], str]:
    """Split "SDXL\\\\base.safetensors" into (("SDXL",), "base"); no model is `UnknownModel`."""
    *folders, name = _SEPARATORS.split(model.strip())
    for extension in MODEL_EXTENSIONS:
        if name.lower().endswith(extension):
            name = name[: -len(extension)]
            break
    return tuple(part[:VALUE_CHARS] for part in folders if part), name[:VALUE_CHARS] or UNKNOWN_MODEL


def _looks_meant(name: str) -> bool:
    """Whether text between two percent signs was meant as a token: "50% or 60%" was not."""
    return name[:1].isalpha() and not name[-1].isspace()
