"""What a file says about its image: collected once per image, neutral to the format.

`embed` turns the JSON texts of a job into an `Embedded`: checked, free of NaN, in ASCII, and without secrets
(`core/scrubber`). The formats then write it their way (`metadata_png`, `metadata_exif`). This module must
never raise for what a text holds: what cannot be used is left out with a warning, because an image is worth
more than what is written on it.

What is written for `options.embed`:
  full        everything
  parameters  everything but the graph: no `prompt`, no `workflow`, no other key of extra_pnginfo
  none        nothing
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from functools import lru_cache

from luna_farm.core.generation_models import Generation
from luna_farm.core.messages import ImageTask, SaveOptions
from luna_farm.core.prompt import is_unknown
from luna_farm.core.template import masked, split_model
from luna_farm.imaging import documents, hashes, metadata_a1111
from luna_farm.imaging.documents import Item, Lasting, Shared, to_json

_MOST_LASTING = 64  # images of other sizes and affixes: their metadata is made anew


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
    srgb = options.colorspace == "srgb" and not options.icc_profile
    if options.embed == "none":  # EXIF that is there for the resolution says size and colours, too
        known = replace(NOTHING, dpi=options.dpi, width=task.width, height=task.height, srgb=srgb)
        return known if options.dpi else NOTHING
    # The texts of a job are the same for each of its images, and a workflow can have a megabyte.
    full = options.embed == "full"
    shared = documents.read(
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
        srgb=srgb,
        exif=base64.b64decode(options.exif) if options.exif else b"",
        dpi=options.dpi,
    )


def _lasting(shared: Shared, options: SaveOptions, task: ImageTask, full: bool) -> Lasting:
    """Return what an image has in common with others of its job, made once unless it depends on files."""
    key = (full, task.affix, options.model_name, task.width, task.height)
    known = shared.lasting.get(key)
    if known is not None and not options.model_dirs:
        return known
    if len(shared.lasting) >= _MOST_LASTING:
        shared.lasting.clear()
    made = shared.lasting[key] = _made_lasting(shared, options, task, full)
    return made


def _made_lasting(shared: Shared, options: SaveOptions, task: ImageTask, full: bool) -> Lasting:
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
    return Lasting(tuple(graph), parameters, fields, kept, gen_fields, tuple(warnings))


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
