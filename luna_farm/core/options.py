"""The one table of save options: name, values, default, and a sentence of help.

`SaveRequest` (what a caller passes), `SaveOptions` (what a worker gets), the validation of messages, the
widgets of the nodes, `luna-farm save --help` and the documents are made from it. A new option is a line here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from luna_farm.config_provenance import PROVENANCES, SOURCE_TYPES
from luna_farm.core import formats, presets
from luna_farm.core.fields import (
    DOCUMENTS_LIMIT,
    NAME_LIMIT,
    Base64,
    Choice,
    Colour,
    Durations,
    Flag,
    JsonText,
    Kind,
    Number,
    Text,
    Whole,
)
from luna_farm.core.outputs import Outputs

T = TypeVar("T")
GATES = ("disabled", "variance", "edge_density", "both")
ON_REJECT = ("discard", "keep", "drop")
ARCHIVES = ("none", "zip", "tar")
EMBED = ("full", "parameters", "none")
NUMBERS = ("after_last", "first_gap")
IF_EXISTS = ("number", "overwrite", "skip", "fail")
MOST_FPS, MOST_LOOPS = 240, 65_535
SIDECARS = ("auto", "always", "never")
COLORSPACES = ("srgb", "linear", "hlg", "pq")
EXR_COMPRESSIONS = ("zip", "dwaa", "none")


@dataclass(frozen=True, slots=True)
class Option:
    """One save option. `of_farm`: a request that leaves it out gets what the farm is configured with."""

    name: str
    kind: Kind
    default: Any
    help: str
    of_farm: bool = False
    is_document: bool = False
    """Metadata as a text of JSON or base64: long, and different for most requests."""


def _row(kind: Kind, default: T, help_text: str, *, document: bool = False) -> T:
    made: T = field(default=default, metadata=_about(kind, help_text, False, document))
    return made


def _of_farm(kind: Kind, help_text: str) -> Any:
    return field(default=None, metadata=_about(kind, help_text, True, False))


def _about(kind: Kind, help_text: str, of_farm: bool, document: bool) -> dict[str, Any]:
    return {"kind": kind, "help": help_text, "of_farm": of_farm, "is_document": document}


@dataclass(slots=True, kw_only=True)
class SaveSettings:
    """The options of a save, each with its default. None: what the farm is configured with."""

    # --- names
    save_path: str = _row(
        Text(NAME_LIMIT, mended=True), "", "folders below the output folder; may hold tokens"
    )
    filename: str = _row(
        Text(NAME_LIMIT, mended=True), "", "name without ending; may hold tokens; empty: time and model"
    )
    model_name: str = _row(
        Text(NAME_LIMIT, mended=True), "", "name or path of the model, for tokens and metadata"
    )
    filename_index: int = _row(Whole(0, 2**31 - 1), 0, "the token %index%")
    batch_digits: int = _row(Whole(0, 9), 0, "digits of the number of a batch; 0: as many as it needs")
    if_exists: str = _row(
        Choice(IF_EXISTS), "number", "where a name exists: a number, replace, do not save, refuse the request"
    )
    numbers: str = _row(Choice(NUMBERS), "after_last", "which number a name gets that exists")
    # --- archives
    archive: str = _row(
        Choice(ARCHIVES), "none", "one file for all images of a request, stored, with a .json for each"
    )
    shard_images: int = _row(
        Whole(0, 10_000_000), 0, "archive shared by requests of the same name, until it holds so many images"
    )
    shard_bytes: int = _row(Whole(0, 2**50), 0, "the same, until it holds so many bytes")
    shard_idle_s: float = _row(
        Number(0.0, 86_400.0), 0.0, "the same, until nothing was added for so long (60 with the other two)"
    )
    # --- several files of each image
    outputs: Any = _row(
        Outputs(), "", "several files of each image: 'png, webp 1600 web q85, thumbnail 256', or a list"
    )
    thumbnail: bool = _row(Flag(), False, "a JPEG of 256 pixels beside each image, with the suffix thumb")
    # --- quality gate
    quality_gate: str = _row(Choice(GATES), "disabled", "how images are judged before they are saved")
    min_quality_threshold: float = _row(Number(0.0, 1.0), 0.3, "score that an image must reach")
    on_reject: str = _of_farm(
        Choice(ON_REJECT), "what becomes of rejected images: set aside, kept or dropped"
    )
    # --- encoding
    preset: str = _of_farm(
        Choice(presets.NAMES), "fills in what is left at its default, by intent; see the formats"
    )
    png_compression: int = _row(Whole(0, 9), 4, "PNG effort: 0 fast to 9 small")
    lossy_quality: int = _row(Whole(1, 100), 90, "quality of JPEG, WebP, AVIF, JPEG XL and HEIC")
    lossless_webp: bool = _row(Flag(), False, "WebP, AVIF and JPEG XL without loss")
    webp_method: int = _row(Whole(0, 6), 2, "WebP effort: 0 fast to 6 small")
    bit_depth: str = _row(Choice(formats.BIT_DEPTHS), "auto", "bits of a channel that are stored")
    background: str = _row(
        Colour(), "#ffffff", "colour under transparent pixels where a format holds no alpha"
    )
    colorspace: str = _row(Choice(COLORSPACES), "srgb", "what the values mean")
    icc_profile: Any = _row(
        Base64(), "", "ICC profile that says what the values mean instead; bytes in Python"
    )
    exr_compression: str = _row(Choice(EXR_COMPRESSIONS), "zip", "zip and none are exact, dwaa is small")
    avif_speed: int = _row(Whole(0, 10), 8, "AVIF effort: 0 small to 10 fast")
    jxl_effort: int = _row(Whole(1, 9), 3, "effort of lossy JPEG XL: 1 fast to 9 small")
    animation_fps: float = _row(
        Number(0, MOST_FPS), 0.0, "above 0 a batch becomes one moving image (png, webp, avif)"
    )
    animation_ms: Any = _row(
        Durations(), "", "milliseconds of each of its frames, '100 100 400', where they are not all alike"
    )
    animation_loop: int = _row(Whole(0, MOST_LOOPS), 0, "how often it is shown; 0: for ever")
    exr_linear: bool = _row(Flag(), False, "EXR holds linear light with premultiplied alpha")
    # --- metadata
    embed: str = _row(Choice(EMBED), "full", "metadata in the file: all, generation parameters only, or none")
    sidecar: str = _row(
        Choice(SIDECARS), "auto", "a .json beside the image: for what does not fit, always, never"
    )
    custom_metadata: Any = _row(
        Text(DOCUMENTS_LIMIT), "", "JSON that goes into the file, without secrets", document=True
    )
    metadata: Any = _row(Text(DOCUMENTS_LIMIT), "", "generation parameters, a map or its JSON", document=True)
    prompt: Any = _row(Text(DOCUMENTS_LIMIT), "", "ComfyUI's prompt, a map or its JSON", document=True)
    extra_pnginfo: Any = _row(Text(DOCUMENTS_LIMIT), "", "ComfyUI's workflow and more", document=True)
    model_dirs: Any = _of_farm(Text(NAME_LIMIT), "folders of models whose files are hashed for the metadata")
    texts: Any = _row(
        Text(DOCUMENTS_LIMIT), "", "plain texts to keep from another file: a map or its JSON", document=True
    )
    exif: Any = _row(
        Base64(), "", "EXIF of another file, of which is kept what stays true; bytes in Python", document=True
    )
    xmp: Any = _row(Base64(), "", "XMP packet of another file; bytes in Python", document=True)
    dpi: float = _row(Number(0, 100_000), 0.0, "dots per inch that the file states; 0: nothing is known")
    # --- provenance
    provenance: str = _of_farm(Choice(PROVENANCES), "marks of generated images")
    source_type: str = _of_farm(
        Choice(tuple(SOURCE_TYPES)), "made by a model alone, or from other images too"
    )
    aigc: Any = _of_farm(JsonText(of_map=True), "fields of China's labelling standard")
    ingredient: Any = _row(Text(), "", "path of the image that went in, for the C2PA manifest")
    # --- safety
    durable: bool = _of_farm(Flag(), "pixels go to disk before the job is accepted")

    @property
    def quality(self) -> int:
        """The quality of formats that are exact at 100: `lossless_webp` holds for them, too."""
        return 100 if self.lossless_webp else self.lossy_quality


OPTIONS: dict[str, Option] = {
    row.name: Option(row.name, default=row.default, **row.metadata) for row in fields(SaveSettings)
}
FARM_DEFAULTS = {
    "on_reject": "discard",
    "preset": "balanced",
    "model_dirs": "",
    "provenance": "off",
    "source_type": "generated",
    "aigc": "",
    "durable": False,
}
"""What stands for options of the farm where there is none."""
