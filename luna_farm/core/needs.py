"""Which optional packages the files of a submit need, so that one that cannot be written is refused at once.

Pure: whether a package is there is for `supervisor/formats.py`. What is not known before an image is encoded
(a library that was built without a codec) still shows in the worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from luna_farm.core.batches import Batch
from luna_farm.core.formats import FORMATS, stored_depth
from luna_farm.core.messages import SaveOptions
from luna_farm.core.outputs import Output
from luna_farm.core.pools import NEAR
from luna_farm.core.schema import Submit

EXACT = 100
AVIF_PILLOW = "pillow>=11.3"
"""The first Pillow whose wheels write AVIF."""
_OPTIONAL = frozenset(name for name, row in FORMATS.items() if row.install)


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that files of a submit cannot be written without.

    `any_of`: modules, or packages with their least version; one of them is enough. `field`, `given`: what
    asks for it. `what`: the same in words. `install`: the command that brings it.
    """

    any_of: tuple[str, ...]
    field: str
    given: str
    what: str
    install: str


_C2PA = Need(("c2pa",), "provenance", "c2pa", "C2PA", 'pip install "luna-farm[c2pa]"')


def needs(submit: Submit, pools: Iterable[str]) -> tuple[Need, ...]:
    """Return what the files of a submit need, () for nearly all, and where other machines have a pool: their
    workers may have what is missing here."""
    if list(pools) != [NEAR]:
        return ()
    options = submit.options
    found: dict[Need, None] = {}
    for batch in submit.batches:
        if not batch.outputs and batch.format in _OPTIONAL:
            found[_need(batch, batch.format, options)] = None
        for output in batch.outputs:
            if output.format in _OPTIONAL:
                found[_need(batch, output.format, options, output)] = None
    if options.provenance == "c2pa":
        found[_C2PA] = None
    return tuple(found)


def _need(batch: Batch, name: str, options: SaveOptions, output: Output | None = None) -> Need:
    row, field = FORMATS[name], "outputs" if output else "format"
    if row.module:
        return Need((row.module,), field, name, row.title, row.install)
    options = options.of_output(output) if output else options
    deep = stored_depth(batch.dtype, options.bit_depth, name) != "8"
    hdr = options.colorspace != "srgb" and not options.icc_profile
    if batch.frames == 1 and (deep or hdr or options.quality >= EXACT):
        what = f"{row.title} of 10 bits, quality 100, linear light, HLG or PQ"
        return Need(("imagecodecs",), field, name, what, row.install)
    # A moving image and gray are Pillow's, whatever else is there.
    others = () if batch.frames > 1 or batch.channels == 1 else ("imagecodecs",)
    return Need((*others, AVIF_PILLOW), field, name, row.title, f'pip install "{AVIF_PILLOW}"')
