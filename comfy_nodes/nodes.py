"""The nodes: widgets to a SaveRequest, and what came of it to a status and to ComfyUI's `ui`. Nothing else.

The work is elsewhere: handing over in `handover`, previews in `previews`, the pictures themselves in the
farm. A node must never stop a workflow for a failed hand-over unless the user asked for that (`on_error:
raise`).
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from . import barrier, handover, host, metadata, pixels, previews, rows, widgets
from .handover import Handed, NotHandedOver

log = logging.getLogger("luna_farm.nodes")

ALIASES = (
    "save image",
    "save",
    "export",
    "png",
    "webp",
    "jpeg",
    "avif",
    "async save",
    "fast save",
    "luna",
    "farm",
)
BATCH_NUM = "%batch_num%"
"""Tells the images of a batch apart, which must then be handed over together."""
SHARED = (
    "save_path", "filename", "model_name", "quality_gate", "min_quality_threshold", "png_compression",
    "lossy_quality", "lossless_webp", "filename_index", "custom_metadata", "preset", "outputs",
    "bit_depth", "animation_fps", "provenance", "sidecar", "if_exists",
)  # fmt: skip


def save_request(inputs: Mapping[str, Any], output_dir: str, metadata: Any) -> Any:
    """Return the SaveRequest of a saver's inputs. Raises NotHandedOver when no image is connected or one is
    unusable."""
    package = handover.client()
    try:
        given = rows.of_saver(inputs)
    except Exception as error:  # also of torch, such as no memory for the alpha
        raise NotHandedOver(str(error)) from error
    if not given:
        raise NotHandedOver("No image is connected. Connect at least image_1.")
    prefix = str(inputs.get("filename_prefix") or "").strip()
    if prefix:
        named = _as_save_image(prefix)
        whole = inputs.get("animation_fps") or BATCH_NUM in named["filename"]
        images = [
            package.SaveImage(image, format=row.format)
            for row in given
            for image in ([row.image] if whole else pixels.one_by_one(row.image))
        ]
    else:
        named = {}
        images = [
            package.SaveImage(row.image, affix=row.affix, format=row.format, subdir=row.subdir)
            for row in given
        ]
    shared, embed = {name: inputs[name] for name in SHARED if name in inputs}, _embed(inputs)
    for name, choices in (("preset", widgets.PRESETS), ("provenance", widgets.PROVENANCES)):
        if shared.get(name) == choices[0]:
            del shared[name]  # what the farm is configured with
    return package.SaveRequest(
        images=images,
        output_dir=output_dir,
        embed=embed,
        metadata=metadata,
        model_dirs=host.model_folders() if embed != "none" else (),  # for the hashes of the files used
        # Names are made of the prompt even where nothing is embedded.
        prompt=_without_bookkeeping(inputs.get("prompt")),
        extra_pnginfo=inputs.get("extra_pnginfo"),
        **{**shared, **named},
    )


def _as_save_image(prefix: str) -> dict[str, str]:
    """Return save_path and filename that give the names of ComfyUI's SaveImage: PREFIX_00001_.png, with
    folders in the prefix. Images that are handed over one by one count on."""
    folder, _, name = prefix.replace("\\", "/").rpartition("/")
    return {"save_path": folder, "filename": f"{name}_%counter%_"}


def _embed(inputs: Mapping[str, Any]) -> str:
    """Return what is embedded: `embed`, but nothing without embed_workflow or with --disable-metadata."""
    wanted = bool(inputs.get("embed_workflow", True)) and not host.metadata_disabled()
    return str(inputs.get("embed", "full")) if wanted else "none"


def _without_bookkeeping(prompt: Any) -> Any:
    """Return the prompt without the `is_changed` that ComfyUI notes in nodes while it executes."""
    if not isinstance(prompt, dict):
        return None
    clean = dict(prompt)
    for node, fields in prompt.items():
        if isinstance(fields, dict) and "is_changed" in fields:
            clean[node] = {key: value for key, value in fields.items() if key != "is_changed"}
    return clean


class _Saver(ABC):
    """What the two savers share."""

    TITLE = ""
    CATEGORY = widgets.CATEGORY
    FUNCTION = "save"
    OUTPUT_NODE = True
    SEARCH_ALIASES = ALIASES
    RETURN_TYPES = ("STRING", "STRING", *["IMAGE"] * len(widgets.SLOTS))
    RETURN_NAMES = ("status", "paths", *(f"image_{n}" for n in widgets.SLOTS))
    OUTPUT_IS_LIST = (False, True, *[False] * len(widgets.SLOTS))

    @classmethod
    def IS_CHANGED(cls, unique_id: str | None = None, **_inputs: Any) -> int:  # noqa: N802 - ComfyUI's name
        """As with SaveImage, the same inputs are not saved again, unless that failed the last time."""
        return handover.unsaved[str(unique_id)]

    def save(self, **inputs: Any) -> dict[str, Any]:
        """Run the node; ComfyUI passes every input by name."""
        node = inputs.get("unique_id")
        caller = host.caller(node, inputs.get("extra_pnginfo"))
        facts, warning = metadata.as_map(inputs.get("metadata"))
        custom = str(inputs.get("custom_metadata") or "").strip()
        warnings = [warning, metadata.not_json(custom, "custom_metadata") if custom else ""]
        reason = ""
        try:
            output_dir = host.output_directory()
            handed = self._hand(save_request(inputs, output_dir, facts), inputs)
            job = previews.announce(handed, caller, output_dir, bool(inputs.get("preview", True)))
            text = self._status(handed, job.state)
            failed = job.state.get("failed", 0)
        except NotHandedOver as error:
            handed, job, failed, reason = Handed("", ()), None, 1, str(error)
            text = f"ERROR: {error}"
        text = f"[{self.TITLE}] {text}"
        for warning in filter(None, warnings):
            log.warning("[%s] %s", self.TITLE, warning)
            text = f"{text} WARNING: {warning}"
        if failed:
            handover.unsaved[str(node)] += 1
            log.error(text)
            if inputs.get("on_error") == "raise":
                raise RuntimeError(text)
        ui = job.ui(text) if job is not None else previews.refused(text, reason, caller)
        nothing = host.nothing()
        through = [nothing if inputs.get(name) is None else inputs[name] for name in rows.IMAGES]
        return {"ui": ui, "result": (text, self._paths(handed) or [nothing], *through)}

    @abstractmethod
    def _hand(self, request: Any, inputs: Mapping[str, Any]) -> Handed:
        """Give the request away, or save it. Raises NotHandedOver."""

    def _status(self, handed: Handed, state: Mapping[str, Any]) -> str:
        """Return the status without its title: what was saved here, how long it took, and what was not saved
        and why."""
        parts = [f"Saved {state['saved']} images in {handed.seconds * 1000:.0f} ms."]
        if state["discarded"]:
            parts.append(f"{state['discarded']} rejected by the quality gate.")
        if state["failed"]:
            parts.append(f"ERROR: {state['failed']} not saved.")
        parts += [*state["reasons"], *(f"Warning: {text}" for text in state["warnings"])]
        return " ".join([*parts, f"Job ID: {handed.job_id}"])

    def _paths(self, handed: Handed) -> list[str]:
        """Return the paths of the files that are saved, or of those that will be."""
        if handed.report is None:
            return list(handed.paths)
        return [image.path for image in handed.report.images if image.state == "saved"]


class LunaDaemonImageSaver(_Saver):
    """Hands the images to the farm and returns at once."""

    TITLE = "Luna Daemon Image Saver"
    DESCRIPTION = (
        "Hands up to five images or batches to the Luna Farm, which saves them in the background: your "
        "workflow goes on at once. The preview appears when the files are there."
    )
    OUTPUT_TOOLTIPS = (
        "What became of the hand-over, with the job id. Connect it to a Luna Save Barrier to wait.",
        "The paths that the files will have, a list. A Luna Save Barrier waits until the files are there.",
        *widgets.THROUGH,
    )

    @classmethod
    def INPUT_TYPES(cls) -> widgets.Inputs:  # noqa: N802 - ComfyUI's name
        """Return the inputs of the node."""
        return widgets.daemon_saver()

    def _hand(self, request: Any, inputs: Mapping[str, Any]) -> Handed:
        return handover.hand_over(request, inputs.get("on_error", "report"), inputs.get("when_busy", "wait"))

    def _status(self, handed: Handed, state: Mapping[str, Any]) -> str:
        if handed.report is not None:
            return super()._status(handed, state)
        return f"Submitted {len(handed.paths)} images to daemon. Job ID: {handed.job_id}"


class LunaMultiSaver(_Saver):
    """Saves the images in ComfyUI's own process."""

    TITLE = "Luna Multi Saver"
    DESCRIPTION = (
        "Saves up to five images or batches before the workflow goes on, with the names, formats, metadata "
        "and quality gate of the Luna Farm. Needs no farm."
    )
    OUTPUT_TOOLTIPS = ("What was saved.", "The paths of the saved files, a list.", *widgets.THROUGH)

    @classmethod
    def INPUT_TYPES(cls) -> widgets.Inputs:  # noqa: N802 - ComfyUI's name
        """Return the inputs of the node."""
        return widgets.multi_saver()

    def _hand(self, request: Any, inputs: Mapping[str, Any]) -> Handed:
        return handover.save_here(request)


class LunaImageStack:
    """More images for a saver than it has inputs."""

    DESCRIPTION = (
        "Up to five more images for a saver, each with its affix, format and subfolder. Stacks connect to "
        "one another, so a saver takes any number of images."
    )
    CATEGORY = widgets.CATEGORY
    FUNCTION = "stack"
    RETURN_TYPES = (widgets.STACK,)
    RETURN_NAMES = ("stack",)
    OUTPUT_TOOLTIPS = ("For the stack input of a saver, or of a further Luna Image Stack.",)
    SEARCH_ALIASES = ("more images", "image list", "image stack", "save many", "luna", "farm")

    @classmethod
    def INPUT_TYPES(cls) -> widgets.Inputs:  # noqa: N802 - ComfyUI's name
        """Return the inputs of the node."""
        return widgets.stack()

    def stack(self, **inputs: Any) -> tuple[tuple[rows.Row, ...]]:
        """Run the node: what came in, then what is connected here."""
        return (rows.of_stack(inputs),)


class LunaSaveBarrier:
    """Waits until jobs are saved."""

    DESCRIPTION = (
        "Waits until the jobs of Luna Daemon Image Savers are saved and outputs the paths of the files, so "
        "that later nodes can read them."
    )
    CATEGORY = widgets.CATEGORY
    FUNCTION = "wait"
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING", "STRING")
    RETURN_NAMES = ("paths", "report")
    OUTPUT_IS_LIST = (True, False)
    OUTPUT_TOOLTIPS = ("The paths of the saved files, a list.", "One line per image.")
    SEARCH_ALIASES = ("wait for save", "wait", "barrier", "saved paths", "luna", "farm")

    @classmethod
    def INPUT_TYPES(cls) -> widgets.Inputs:  # noqa: N802 - ComfyUI's name
        """Return the inputs of the node."""
        return widgets.barrier()

    def wait(self, jobs: str, timeout: int = widgets.BARRIER_TIMEOUT_S, **inputs: Any) -> dict[str, Any]:
        """Run the node. Raises RuntimeError when a job failed, is unknown, or takes longer than `timeout`
        seconds."""
        texts = [jobs, *(inputs.get(f"jobs_{n}") or "" for n in widgets.SLOTS[1:])]
        images = barrier.wait(barrier.job_ids(texts), timeout)
        lines = [barrier.line(image) for image in images]
        paths = [image.path for image in images if image.state == "saved"] or [host.nothing()]
        return {"ui": {"text": ["\n".join(lines)]}, "result": (paths, "\n".join(lines))}


class LunaMetadata:
    """Generation parameters by hand."""

    DESCRIPTION = (
        "Generation parameters for the files of the savers. Fill in only what shall differ: everything else "
        "is read from the prompt when an image is saved (model, LoRAs, sampler, seed, prompts)."
    )
    CATEGORY = widgets.CATEGORY
    FUNCTION = "collect"
    RETURN_TYPES = ("METADATA",)
    RETURN_NAMES = ("metadata",)
    OUTPUT_TOOLTIPS = ("For the metadata input of a saver.",)
    SEARCH_ALIASES = ("metadata", "parameters", "a1111", "civitai", "luna", "farm")

    @classmethod
    def INPUT_TYPES(cls) -> widgets.Inputs:  # noqa: N802 - ComfyUI's name
        """Return the inputs of the node."""
        return widgets.generation()

    def collect(self, extra: str = "", **inputs: Any) -> dict[str, Any]:
        """Run the node. What is filled in wins over `extra`, and `extra` over what came in.

        Raises ValueError when `extra` is no JSON object.
        """
        given, warning = metadata.as_map(inputs.get("metadata"))
        if warning:
            log.warning("[Luna Metadata] %s", warning)
        named = {
            name: inputs[name]
            for name in widgets.EMPTY
            if inputs.get(name, widgets.EMPTY[name]) != widgets.EMPTY[name]
        }
        facts = metadata.Facts(
            {**metadata.json_map(given, "metadata"), **metadata.json_map(extra, "extra"), **named}
        )
        return {"result": (facts,)}
