"""What the nodes show: their inputs, tooltips and help, as ComfyUI's V1 schema wants them.

Pure tables. The English of `locales/en/nodeDefs.json` repeats these texts (a test compares them), the
other languages translate them. This module must never import anything heavy: ComfyUI asks for it while it
starts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from . import installed

CATEGORY = "image/Luna Farm"
SLOTS = (1, 2, 3, 4, 5)
AFFIXES = ("RAW", "UPSCALED", "DETAILED", "IMAGE4", "IMAGE5")
STACK_AFFIXES = tuple(f"IMAGE{len(AFFIXES) + number}" for number in SLOTS)
STACK = "LUNA_IMAGES"
"""The type of what a Luna Image Stack hands on: rows of an image, its affix, format and subfolder."""
GATES = ("disabled", "variance", "edge_density", "both")
FILENAME = "%time:YYYY_mm_dd.HH.MM.SS%_%model_name%"
ON_ERROR = ("report", "raise", "save_here")
WHEN_BUSY = ("wait", "save_here", "report")
EMBED = ("full", "parameters", "none")
BIT_DEPTHS = ("auto", "8", "16", "half", "float")
PROVENANCES = ("default", "off", "xmp", "c2pa")
SIDECARS = ("auto", "always", "never")
IF_EXISTS = ("number", "overwrite", "skip", "fail")
PRESETS = ("default", "fast", "balanced", "small", "archive", "web")
"""The first one: what the farm is configured with."""
THROUGH = tuple(f"image_{number} as it came in." for number in SLOTS)
BARRIER_TIMEOUT_S = 300
TOKENS = (
    "%model_name%, %model_path%, %seed%, %width%, %height%, %date:yyyy-MM-dd%, %time:YYYY_mm_dd%, "
    "%NodeTitle.widget%"
)

Inputs = dict[str, dict[str, Any]]


def _made_once(make: Callable[[], Inputs]) -> Callable[[], Inputs]:
    """Build the table at the first call: ComfyUI asks for it several times in every prompt.

    Each caller gets groups of its own, for other packages add inputs to what they are given.
    """
    made = cache(make)

    @wraps(make)
    def table() -> Inputs:
        return {group: dict(inputs) for group, inputs in made().items()}

    return table


def _option(name: str) -> dict[str, Any]:
    """Return default and range of a save option, from the table that all parts of Luna Farm share."""
    from luna_farm.core.fields import Number, Whole
    from luna_farm.core.options import OPTIONS

    option = OPTIONS[name]
    bounds = (
        {"min": option.kind.low, "max": option.kind.high} if isinstance(option.kind, Number | Whole) else {}
    )
    return {"default": option.default, **bounds}


def saver() -> Inputs:
    """Return the inputs that both savers share, in the order in which a workflow file lists their values."""
    optional: dict[str, Any] = {
        # Two sockets before image_1, as two outputs stand before it: a bypassed node passes each output the
        # input at the same place.
        "metadata": ("METADATA", {
            "tooltip": "Generation parameters (steps, cfg, seed, sampler, ...) from a node that collects "
            "them.",
        }),
        "mask": ("MASK", {
            "tooltip": "Becomes the transparency of all images: white is transparent, as in Join Image with "
            "Alpha.",
        }),
        "model_name": ("STRING", {
            "default": "",
            "tooltip": "Name of the model, for %model_name%, %model_path% and the metadata. Empty: "
            "UnknownModel.",
        }),
    }  # fmt: skip
    for number in SLOTS:
        optional |= _image(number, AFFIXES[number - 1])
    optional |= {
        "png_compression": ("INT", {
            "advanced": True,
            **_option("png_compression"),
            "tooltip": "PNG: 0 writes fastest, 9 smallest. 4 is smaller than what Save Image writes, and "
            "much faster.",
        }),
        "lossy_quality": ("INT", {
            "advanced": True,
            **_option("lossy_quality"), "min": 70,
            "tooltip": "Quality of JPEG, AVIF, JPEG XL and lossy WebP.",
        }),
        "lossless_webp": ("BOOLEAN", {
            "advanced": True,
            **_option("lossless_webp"),
            "tooltip": "WebP, AVIF and JPEG XL: keep every pixel as it is.",
        }),
        "embed_workflow": ("BOOLEAN", {
            "advanced": True,
            "default": True,
            "tooltip": "Write workflow and prompt into the files, so that dropping a file on ComfyUI opens "
            "its workflow.",
        }),
        "filename_index": ("INT", {
            "advanced": True,
            **_option("filename_index"),
            "tooltip": "The number that %index% stands for.",
        }),
        "custom_metadata": ("STRING", {
            "advanced": True,
            "default": "",
            "tooltip": 'Anything else to write into the files, as JSON, for example {"artist": "me"}. Empty: '
            'nothing.',
        }),
    }  # fmt: skip
    required = {
        "save_path": ("STRING", {
            "default": "",
            "tooltip": f"Folder below ComfyUI's output folder; empty: that folder itself. Tokens: {TOKENS}",
        }),
        "filename": ("STRING", {
            "default": FILENAME,
            "tooltip": f"Name of the files; affix, batch number and extension are added. Tokens: {TOKENS}",
        }),
        "quality_gate": (list(GATES), {
            **_option("quality_gate"),
            "tooltip": "Set flat or blurred images aside (into _discarded): by variance of brightness, by "
            "density of edges, or by both.",
        }),
        "min_quality_threshold": ("FLOAT", {
            **_option("min_quality_threshold"), "step": 0.01,
            "tooltip": "Images that score below this are set aside.",
        }),
    }  # fmt: skip
    hidden = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO", "unique_id": "UNIQUE_ID"}
    return {"required": required, "optional": optional, "hidden": hidden}


def _image(number: int, affix: str) -> dict[str, Any]:
    return {
        f"image_{number}": ("IMAGE", {"tooltip": "An image or a batch. Not connected: not saved."}),
        f"affix_{number}": ("STRING", {
            "default": affix,
            "tooltip": f"Added to the file names of image_{number}, and the name of its subfolder.",
        }),
        f"format_{number}": (list(installed.writable_formats()), {
            "default": "png",
            "tooltip": f"File format of image_{number}. Offered is what this installation can write.",
        }),
        f"subdir_{number}": ("BOOLEAN", {
            "default": True,
            "tooltip": f"Put image_{number} into a subfolder named after its affix.",
        }),
    }  # fmt: skip


@_made_once
def daemon_saver() -> Inputs:
    """Return the inputs of the node that hands over and goes on."""
    inputs = saver()
    inputs["optional"] |= {
        "on_error": (list(ON_ERROR), {
            "advanced": True,
            "default": "report",
            "tooltip": "When the farm cannot take the images: report it and go on, raise an error and stop, "
            "or save them here and wait.",
        }),
        "when_busy": (list(WHEN_BUSY), {
            "advanced": True,
            "default": "wait",
            "tooltip": "When the farm has as much to do as it may take: wait for room, save here, or report "
            "it and go on.",
        }),
    } | _later()  # fmt: skip
    return inputs


def _later() -> dict[str, Any]:
    """Return the inputs that came after the first version: workflow files list values by position, so these
    stand behind all others."""
    return {
        "embed": (list(EMBED), {
            "advanced": True,
            **_option("embed"),
            "tooltip": "What is written into the files: workflow, prompt and parameters; only the parameters "
            "that galleries read; or nothing.",
        }),
        "preview": ("BOOLEAN", {
            "advanced": True,
            "default": True,
            "tooltip": "Show the saved images in the node.",
        }),
        "filename_prefix": ("STRING", {
            "default": "",
            "tooltip": "Names as Save Image makes them: folders and name in one text, numbered, for example "
            "renders/%date:yyyy-MM-dd%/ComfyUI. Used instead of save_path, filename, affix and subdir unless "
            "it is empty.",
        }),
        "preset": (list(PRESETS), {
            "advanced": True,
            "default": PRESETS[0],
            "tooltip": "Settings of all formats by intent. Settings that are changed in this node come "
            "before it.",
        }),
        "outputs": ("STRING", {
            "advanced": True,
            **_option("outputs"),
            "tooltip": "Several files of each image, separated by commas, for example master, web, thumbnail "
            "or png, webp 1600 web q85. A number is the longest side. Empty: one file, in the format above.",
        }),
        "bit_depth": (list(BIT_DEPTHS), {
            "advanced": True,
            **_option("bit_depth"),
            "tooltip": "Bits of a channel: 16 for PNG, TIFF and JPEG XL, half and float for OpenEXR and "
            "TIFF. A format without them stores the nearest that it has. auto: 8, in OpenEXR as it comes.",
        }),
        "animation_fps": ("FLOAT", {
            "advanced": True,
            **_option("animation_fps"), "step": 0.5,
            "tooltip": "Above 0 a batch becomes one moving image of so many frames a second (png, webp, "
            "avif).",
        }),
        "provenance": (list(PROVENANCES), {
            "advanced": True,
            "default": PROVENANCES[0],
            "tooltip": "Marks that say that a model made the images: XMP, or XMP and a signed C2PA manifest. "
            "default: what the farm is configured with.",
        }),
        "sidecar": (list(SIDECARS), {
            "advanced": True,
            **_option("sidecar"),
            "tooltip": "A .json with workflow and parameters beside each image: only for what does not fit "
            "into the image, always, or never.",
        }),
        "if_exists": (list(IF_EXISTS), {
            "advanced": True,
            **_option("if_exists"),
            "tooltip": "Where a name exists: save under the next number, replace the file, do not save, or "
            "refuse all images of this node.",
        }),
        "stack": (STACK, {
            "tooltip": "More images, from a Luna Image Stack. They are saved with the settings of this node.",
        }),
    }  # fmt: skip


@_made_once
def multi_saver() -> Inputs:
    """Return the inputs of the node that saves in ComfyUI's own process."""
    inputs = saver()
    inputs["optional"] |= {
        "on_error": (list(ON_ERROR[:2]), {
            "advanced": True,
            "default": "report",
            "tooltip": "When an image cannot be saved: report it and go on, or raise an error and stop.",
        }),
    } | _later()  # fmt: skip
    return inputs


@_made_once
def stack() -> Inputs:
    """Return the inputs of the node for more images."""
    before = ("stack", (STACK, {"tooltip": "A further Luna Image Stack. Its images come first."}))
    images = (_image(number, affix) for number, affix in zip(SLOTS, STACK_AFFIXES, strict=True))
    optional = dict([before, *(one for image in images for one in image.items())])
    return {"required": {}, "optional": optional, "hidden": {}}


@_made_once
def barrier() -> Inputs:
    """Return the inputs of the node that waits."""
    more = {
        f"jobs_{number}": ("STRING", {
            "forceInput": True,
            "tooltip": "The status of a further Luna Daemon Image Saver.",
        })
        for number in SLOTS[1:]
    }  # fmt: skip
    return {
        "required": {
            "jobs": ("STRING", {
                "forceInput": True,
                "tooltip": "The status of a Luna Daemon Image Saver, or job ids.",
            }),
            "timeout": ("INT", {
                "default": BARRIER_TIMEOUT_S, "min": 1, "max": 86400,
                "tooltip": "Seconds to wait at most, for all jobs together.",
            }),
        },
        "optional": more,
        "hidden": {"unique_id": "UNIQUE_ID"},
    }  # fmt: skip


EMPTY = {
    "model_name": "",
    "positive": "",
    "negative": "",
    "seed": -1,
    "steps": 0,
    "cfg": 0.0,
    "sampler_name": "",
    "scheduler": "",
}
"""The generation parameters with a widget, and the value that leaves each to the prompt."""


@_made_once
def generation() -> Inputs:
    """Return the inputs of the node for generation parameters."""
    return {
        "required": {},
        "optional": {
            "metadata": ("METADATA", {
                "tooltip": "Parameters to begin with: of another Luna Metadata, of Image Saver, of a node "
                "that loads them.",
            }),
            "model_name": ("STRING", {"default": "", "tooltip": "Empty: from the prompt."}),
            "positive": ("STRING", {
                "default": "", "multiline": True,
                "tooltip": "The prompt as text. Empty: from the prompt graph.",
            }),
            "negative": ("STRING", {
                "default": "", "multiline": True,
                "tooltip": "The negative prompt as text. Empty: from the prompt graph.",
            }),
            "seed": ("INT", {
                "default": -1, "min": -1, "max": 2**64 - 1, "control_after_generate": False,
                "tooltip": "-1: from the prompt.",
            }),
            "steps": ("INT", {"default": 0, "min": 0, "max": 10000, "tooltip": "0: from the prompt."}),
            "cfg": ("FLOAT", {
                "default": 0.0, "min": 0.0, "max": 100.0, "step": 0.1,
                "tooltip": "0: from the prompt.",
            }),
            "sampler_name": ("STRING", {"default": "", "tooltip": "Empty: from the prompt."}),
            "scheduler": ("STRING", {"default": "", "tooltip": "Empty: from the prompt."}),
            "extra": ("STRING", {
                "default": "", "multiline": True, "advanced": True,
                "tooltip": 'Anything else, as JSON, for example {"vae": "x.safetensors"}.',
            }),
        },
        "hidden": {},
    }  # fmt: skip
