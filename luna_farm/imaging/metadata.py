"""What a file says about its picture: collected once per image, neutral to the format.

`embed` turns the JSON texts of a job into an `Embedded`: checked, free of NaN, in ASCII, and without secrets
(`core/scrubber`). The formats then write it their way (`metadata_png`, `metadata_exif`). This module must
never raise for what a text holds: what cannot be used is left out with a warning, because a picture is worth
more than what is written on it.

What is written for `options.embed`:
  full        everything
  parameters  everything but the graph: no `prompt`, no `workflow`, no other key of extra_pnginfo
  none        nothing
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from luna_farm.core import generation
from luna_farm.core.generation_models import Generation
from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.core.prompt import MODELS, Documents, is_unknown, without_unknown
from luna_farm.core.scrubber import Scrubber
from luna_farm.core.secret_shapes import mask
from luna_farm.core.secrets import MASK
from luna_farm.core.template import masked, split_model
from luna_farm.imaging import hashes, metadata_a1111

_MOST_KEYS = 200  # of extra_pnginfo: each takes a tag of EXIF, and there are 271 below ComfyUI's first
_MOST_LASTING = 64  # images of other sizes and affixes: their metadata is made anew
_DEEPEST = 150  # levels of brackets: what walks the values stays far from Python's recursion limit


class Item(NamedTuple):
    """One thing to write: its name, its text, and whether the text is JSON (then it is pure ASCII)."""

    key: str
    text: str
    is_json: bool


@dataclass(slots=True)  # not frozen, as in core/messages.py: made for every image
class Embedded:
    """All that is to be written into one file.

    `graph`: `prompt`, `workflow` and the other keys of extra_pnginfo, in this order. `parameters`: the text
    that A1111 and most galleries read, "" where no generation parameters are known. `fields`:
    `generation_metadata`, `custom_metadata`, `image_type`, `model_name`, `model_path`, `save_timestamp`,
    `batch_index`. `generation`: one `gen_<field>` for each generation parameter. No key occurs twice in the
    four.
    """

    graph: tuple[Item, ...] = ()
    parameters: str = ""
    fields: tuple[Item, ...] = ()
    generation: tuple[Item, ...] = ()
    warnings: tuple[str, ...] = ()
    beside: tuple[Item, ...] = ()
    """What no file can hold, for the .json beside it: texts that are nested too deep, and keys beyond the
    bound."""
    width: int = 0
    height: int = 0
    """Of the image in pixels, 0 for not known."""
    srgb: bool = True
    exif: bytes = b""
    """EXIF block of another file, of which is kept what stays true (`exif_kept`)."""
    dpi: float = 0.0
    """Dots per inch, 0 for not known."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.graph or self.parameters or self.fields or self.generation or self.beside)


NOTHING = Embedded()
"""Nothing to write and nothing to say."""


def embed(options: SaveOptions, task: ImageTask) -> Embedded:
    """Collect what the file of `task` is to carry. Never raises for the contents of the options."""
    if options.embed == "none":
        return replace(NOTHING, dpi=options.dpi) if options.dpi else NOTHING
    # The texts of a job are the same for each of its images, and a workflow can have a megabyte.
    full = options.embed == "full"
    shared = _shared(
        options.prompt,
        options.extra_pnginfo if full else "",
        options.metadata,
        task.metadata,
        options.custom_metadata,
        options.texts,
    )
    lasting = _lasting(shared, options, task, full)
    # Of another file that is kept, when and in what order it was made is still true.
    changing = (
        Item("save_timestamp", options.timestamp, False),
        Item("batch_index", str(task.batch_index), False),
    )
    own = tuple(item for item in changing if item.text and item.key not in shared.texts)
    return Embedded(
        lasting.graph,
        lasting.parameters,
        (*lasting.fields, *own, *lasting.kept),
        lasting.gen_fields,
        lasting.warnings,
        beside=shared.beside if full else (),
        width=task.width,
        height=task.height,
        srgb=options.colorspace == "srgb" and not options.icc_profile,
        exif=base64.b64decode(options.exif) if options.exif else b"",
        dpi=options.dpi,
    )


class _Lasting(NamedTuple):
    """What is written into each image of one size and affix, in the order of the file. Between `fields` and
    `kept` stands what changes with each image."""

    graph: tuple[Item, ...]
    parameters: str
    fields: tuple[Item, ...]
    kept: tuple[Item, ...]
    gen_fields: tuple[Item, ...]
    warnings: tuple[str, ...]


def _lasting(shared: _Shared, options: SaveOptions, task: ImageTask, full: bool) -> _Lasting:
    """Return what an image has in common with others of its job, made once unless it depends on files."""
    key = (full, task.affix, options.model_name, task.width, task.height)
    known = shared.lasting.get(key)
    if known is not None and not options.model_dirs:
        return known
    if len(shared.lasting) >= _MOST_LASTING:
        shared.lasting.clear()
    made = shared.lasting[key] = _made_lasting(shared, options, task, full)
    return made


def _made_lasting(shared: _Shared, options: SaveOptions, task: ImageTask, full: bool) -> _Lasting:
    read = shared.generation_of(masked(task.affix))
    hashed, late = _hashes(read, options)
    model = shared.model(read) if is_unknown(options.model_name) else masked(options.model_name)
    folders, name = split_model(model) if model else ((), "")
    given = [
        *shared.fields,
        Item("image_type", masked(task.affix), False),
        Item("model_name", name, False),
        Item("model_path", "/".join((*folders, name)), False),
        Item("model_hashes", to_json(hashed) if hashed else "", True),
    ]
    fields = tuple(item for item in given if item.text)
    mine = {item.key for item in fields} | {"parameters"}
    kept = tuple(item for key, item in shared.texts.items() if key not in mine)
    taken = {item.key for item in (*given, *kept)} | {"parameters", "save_timestamp", "batch_index"}
    gen_fields = tuple(item for item in shared.gen_fields if item.key not in taken)
    taken |= {item.key for item in gen_fields}
    graph, warnings = [], [*shared.warnings, *late]
    for item in shared.graph if full else ():
        if item.key in taken:
            warnings.append(
                f"metadata: extra_pnginfo has a key {item.key!r}, which is the farm's own; left out"
            )
        else:
            graph.append(item)
    text = shared.texts.get("parameters")
    parameters = metadata_a1111.text(
        shared.known if shared.known or not text else {"parameters": text.text},
        model=name,
        width=task.width,
        height=task.height,
        generation=read,
        hashes=hashed,
    )
    return _Lasting(tuple(graph), parameters, fields, kept, gen_fields, tuple(warnings))


def _hashes(read: Generation, options: SaveOptions) -> tuple[dict[str, str], list[str]]:
    """Return the SHA-256 of the files that the graph names, by Civitai's names; a warning for late ones."""
    if not options.model_dirs:
        return {}, []
    dirs = options.model_dirs.split("\n")
    named = [("model", "model", read.model)] if read.model else []
    named += [(f"lora:{metadata_a1111.bare(lora.name)}", "lora", lora.name) for lora in read.loras]
    named += [(f"embed:{metadata_a1111.bare(name)}", "embed", name) for name in read.embeddings]
    files = {key: path for key, kind, name in named if (path := hashes.find(kind, name, dirs))}
    found, late = _hash_store().of(files)
    told = f"metadata: the hashes of {', '.join(late)} are still being computed; later images have them."
    return found, [told] if late else []


@lru_cache(maxsize=1)
def _hash_store() -> hashes.Hashes:
    import platformdirs  # only here: an idle worker does without its half megabyte

    return hashes.Hashes(platformdirs.user_cache_path("luna-farm") / "model-hashes.jsonl")


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the images of a job have in common. `prompt`: the nodes of the graph, without secrets."""

    graph: tuple[Item, ...]
    prompt: dict[str, Any]
    known: dict[str, Any]
    fields: tuple[Item, ...]
    gen_fields: tuple[Item, ...]
    warnings: tuple[str, ...]
    beside: tuple[Item, ...]
    read: dict[str, Generation]
    texts: dict[str, Item]
    """Kept of another file, by key."""
    lasting: dict[tuple[bool, str, str, int, int], _Lasting]
    """By whether the graph is written, affix, model_name, width and height of an image."""

    def generation_of(self, affix: str) -> Generation:
        """Return what the graph says of the image with this affix."""
        if affix not in self.read:
            self.read[affix] = generation.read(self.prompt, affix)
        return self.read[affix]

    def model(self, read: Generation) -> str:
        """Return the model that came with the job, else that of the graph."""
        given = (self.known.get(name) for name in MODELS)
        return next((name for name in given if isinstance(name, str) and name.strip()), read.model)


@lru_cache(maxsize=4)
def _shared(
    prompt: str, extra_pnginfo: str, metadata: str, of_image: str, custom_metadata: str, texts: str
) -> _Shared:
    """Do the part that is the same for all images of a job. `of_image`: metadata of the one image."""
    warnings: list[str] = []
    beside: list[Item] = []
    graph_prompt = _parse(prompt, "prompt", warnings, beside)
    extra = _parse(extra_pnginfo, "extra_pnginfo", warnings, beside, kind=dict)
    shared = Documents.of(_parse(metadata, "metadata", warnings, beside, kind=dict) or {})
    own = Documents.of(_parse(of_image, "metadata of the image", warnings, beside, kind=dict) or {})
    # A person typed it: a slip of the pen must cost neither the image nor the text.
    custom = _parse(custom_metadata, "custom_metadata", warnings, beside, as_text=True)
    facts = without_unknown(shared.parameters) | without_unknown(own.parameters)
    # Prompt and workflow of the image, else of the job, else what came with the parameters of the job.
    kept = Documents.of(_parse(texts, "texts", warnings, beside, kind=dict) or {})
    graph_prompt = own.prompt or graph_prompt or shared.prompt or kept.prompt or None
    workflow = own.workflow or (extra or {}).get("workflow") or shared.workflow or kept.workflow

    if workflow:
        extra = {**(extra or {}), "workflow": workflow}

    scrub = Scrubber()
    documents = {"prompt": graph_prompt, "extra_pnginfo": extra, "metadata": facts, "custom_metadata": custom}
    documents["texts"] = without_unknown(kept.parameters)
    clean = scrub.all(documents, "".join((prompt, extra_pnginfo, metadata, of_image, custom_metadata, texts)))
    graph_prompt, extra, facts, custom, kept_texts = clean.values()
    if scrub.count:
        more = (
            f" and {scrub.count - len(scrub.places)} more places" if scrub.count > len(scrub.places) else ""
        )
        warnings.append(
            f"metadata: what is a password, key or token was replaced by {MASK!r} in {scrub.count} "
            f"place{'s' if scrub.count > 1 else ''}: {', '.join(scrub.places)}{more}."
        )

    graph: list[Item] = []
    if graph_prompt is not None:
        graph.append(Item("prompt", to_json(graph_prompt), True))
    extra = extra or {}
    keys = sorted(extra, key=lambda key: key != "workflow")  # stable: the others keep their order
    if len(keys) > _MOST_KEYS:
        warnings.append(
            f"metadata: extra_pnginfo has {len(keys)} keys; the first {_MOST_KEYS} are in the image, "
            "the others in the .json beside it"
        )
        beside += [Item(key, to_json(extra[key]), True) for key in keys[_MOST_KEYS:]]
    for key in keys[:_MOST_KEYS]:
        if key == "prompt" and graph:
            warnings.append("metadata: extra_pnginfo has a key 'prompt' beside the prompt itself; left out")
        else:
            graph.append(Item(key, to_json(extra[key]), True))
    fields: list[Item] = []
    if facts:
        fields.append(Item("generation_metadata", to_json(facts), True))
    if custom_metadata and custom is not None:
        fields.append(Item("custom_metadata", to_json(custom), True))
    gen_fields = tuple(
        Item(f"gen_{key}", value if isinstance(value, str) else to_json(value), not isinstance(value, str))
        for key, value in facts.items()
    )
    nodes = graph_prompt if isinstance(graph_prompt, dict) else {}
    return _Shared(
        tuple(graph),
        nodes,
        facts,
        tuple(fields),
        gen_fields,
        tuple(warnings),
        tuple(beside),
        {},
        {key: _kept(key, text) for key, text in kept_texts.items()},
        {},
    )


def _kept(key: str, value: Any) -> Item:
    """Return a text that is kept of another file; one that is a map or a list in JSON stays that."""
    if not isinstance(value, str):
        return Item(key, to_json(value), True)
    if value.startswith(("{", "[")):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            return Item(key, value, False)
        return Item(key, value if value.isascii() else to_json(parsed), True)
    return Item(key, value, False)


def _parse(
    text: str,
    field: str,
    warnings: list[str],
    beside: list[Item],
    kind: type | None = None,
    as_text: bool = False,
) -> Any:
    """Parse JSON; NaN and the infinities, which are no JSON, become null. Else None, or the text itself with
    `as_text`, and a warning."""
    if not text.strip():
        return None
    try:
        value = json.loads(text, parse_constant=lambda _: None)
    except ValueError as error:
        kept = "it is kept as a text" if as_text else "left out"
        warnings.append(f"metadata: {field} is not readable as JSON ({error}); {kept}")
        return text if as_text else None
    except RecursionError:  # some thousand brackets deep
        shallow = False
    else:
        shallow = _shallow(value)
    if not shallow:
        warnings.append(
            f"metadata: {field} is nested deeper than {_DEEPEST} levels; it is in the .json beside the image"
        )
        beside.append(Item(field, mask(text)[0], False))  # too deep to be walked: a text
        return None
    if kind is not None and not isinstance(value, kind):
        warnings.append(
            f"metadata: {field} is a JSON {type(value).__name__}, a JSON object is needed; left out"
        )
        return None
    return value


def _shallow(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return True
    return False


def to_json(value: Any) -> str:
    """Return compact JSON in pure ASCII; NaN and the infinities (1e999 parses to one) become null."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
