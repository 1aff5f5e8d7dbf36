"""OpenEXR: half and single floats, by the package of the OpenEXR project, an optional one.

Why that package and not OpenImageIO: it writes to memory (OpenImageIO's Python writes to files only), its
wheel has 1.8 MB instead of 8.4, and the project that owns the format keeps it.

Values are stored as they are, and the file says what they mean: `chromaticities`, and `colorInteropID` for
the curve. With `exr_linear` they become linear light first and alpha is multiplied in, which is what
compositing programs take an EXR for. The texts are attributes of their own name, as ComfyUI's own node
writes `prompt` and `workflow`. This module must never use more than one core.

Format: OpenEXR file layout and standard attributes (openexr.com, "Technical Introduction").
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from luna_farm.core.messages import SaveOptions
from luna_farm.imaging.colour import LINEAR_IDS, PQ_WHITE_NITS, to_linear
from luna_farm.imaging.depth import Pixels, to_floats
from luna_farm.imaging.encoders import Encoded, colour_warning, needed
from luna_farm.imaging.marks import Marks
from luna_farm.imaging.metadata import Embedded

_CHANNELS = {1: "Y", 3: "RGB", 4: "RGBA"}


def encode(pixels: Pixels, options: SaveOptions, embedded: Embedded, marked: Marks) -> Encoded:
    """Encode [H, W, C] float16 or float32 as EXR; exact with `exr_compression` "zip" or "none"."""
    try:
        import OpenEXR
    except ImportError as error:
        raise needed("exr", "OpenEXR 3.5 or later") from error
    kinds = {
        "zip": OpenEXR.ZIP_COMPRESSION,
        "dwaa": OpenEXR.DWAA_COMPRESSION,
        "none": OpenEXR.NO_COMPRESSION,
    }
    colour = marked.colour
    header: dict[str, Any] = {
        **_texts(embedded),
        "compression": kinds[options.exr_compression],
        "type": OpenEXR.scanlineimage,
        "chromaticities": colour.chromaticities,
        "colorInteropID": LINEAR_IDS[colour.chromaticities] if options.exr_linear else colour.interop_id,
    }
    if embedded.dpi:
        header["xDensity"] = float(embedded.dpi)
    if options.exr_linear:
        pixels = _linear(pixels, marked.colorspace)
        if marked.colorspace == "pq":
            header["whiteLuminance"] = PQ_WHITE_NITS
    channels = {_CHANNELS[pixels.shape[2]]: pixels[:, :, 0] if pixels.shape[2] == 1 else pixels}
    out = io.BytesIO()
    with OpenEXR.File(header, channels, num_threads=0) as file:
        file.write(out)
    warnings = colour_warning("OpenEXR", marked, icc=False, cicp=True)
    if marked.xmp:
        warnings.append("OpenEXR holds no XMP: this file does not say how the image was made.")
    return Encoded([out.getbuffer()], warnings=warnings)


def _linear(pixels: Pixels, colorspace: str) -> Pixels:
    light = to_floats(pixels).copy()
    light[..., :3] = to_linear(light[..., :3], colorspace)
    if light.shape[2] == 4:
        light[..., :3] *= np.clip(light[..., 3:], 0, 1)
    return to_floats(light, pixels.dtype)


def _texts(embedded: Embedded) -> dict[str, str]:
    """Return the attributes. A name that EXR itself gives a meaning is written with `_` before it."""
    pairs = [(item.key, item.text) for item in (*embedded.graph, *embedded.fields, *embedded.generation)]
    if embedded.parameters:
        pairs.append(("parameters", embedded.parameters))
    return {f"_{key}" if key in _STANDARD else key: text for key, text in pairs if key and text}


_STANDARD = frozenset(
    (
        *("channels", "compression", "dataWindow", "displayWindow", "lineOrder", "pixelAspectRatio"),
        *(
            "screenWindowCenter",
            "screenWindowWidth",
            "tiles",
            "view",
            "name",
            "type",
            "version",
            "chunkCount",
        ),
        *("chromaticities", "colorInteropID", "whiteLuminance", "adoptedNeutral", "preview", "envmap"),
    )
)
