"""The one place where the nodes touch ComfyUI: folders, flags, messages to the browser, progress,
interruption.

Everything is looked up when it is used: folders and flags may change between two prompts, and the package
can be imported where there is no ComfyUI. This module must never hold policy.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

MODEL_KINDS = ("checkpoints", "diffusion_models", "loras", "embeddings")

log = logging.getLogger("luna_farm.nodes")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a later message is for: the node as it was executed, the node that shows it, the prompt, the
    browser, and the id of the workflow that the node is part of ("" where the prompt says none)."""

    node: str
    display_node: str
    prompt_id: str
    client_id: str | None
    workflow: str = ""


def output_directory() -> str:
    """Return ComfyUI's output folder, absolute, as it is now."""
    import folder_paths

    return _absolute(str(folder_paths.get_output_directory()))


@lru_cache(maxsize=16)
def _absolute(folder: str) -> str:
    """Remembered: ComfyUI stays in the folder that it runs in, and is blocked while this is asked for."""
    return os.path.abspath(folder)


def model_folders() -> tuple[str, ...]:
    """Return the folders in which ComfyUI looks for models, LoRAs and embeddings, each once."""
    import folder_paths

    known = folder_paths.folder_names_and_paths
    found: list[Any] = []
    for kind in MODEL_KINDS:
        if kind in known:
            found += known[kind][0]
    return tuple(dict.fromkeys(map(str, found)))


def metadata_disabled() -> bool:
    """Return whether ComfyUI was started with --disable-metadata."""
    from comfy.cli_args import args

    return bool(args.disable_metadata)


def server() -> Any | None:
    """Return ComfyUI's PromptServer, or None where there is none (a script that imports the nodes)."""
    module = sys.modules.get("server")
    return getattr(getattr(module, "PromptServer", None), "instance", None)


def caller(unique_id: str | None, extra_pnginfo: Any = None) -> Caller:
    """Return who is executing now. To be called on ComfyUI's own thread, inside a node."""
    node, here = str(unique_id or ""), server()
    # Set right before a node runs: inside a subgraph it is the node that the user sees.
    shown = getattr(here, "last_node_id", None) or node
    workflow = extra_pnginfo.get("workflow") if isinstance(extra_pnginfo, dict) else None
    known = str(workflow.get("id") or "") if isinstance(workflow, dict) else ""
    if not known.strip("0-"):
        known = ""  # the frontend gives a workflow with an id of zeros another one when it loads it
    return Caller(node, str(shown), _prompt_id(), getattr(here, "client_id", None), known)


def _prompt_id() -> str:
    module = sys.modules.get("comfy_execution.utils")  # ComfyUI >= 0.3.48
    context = module.get_executing_context() if module is not None else None
    return str(context.prompt_id) if context is not None else ""


def send(event: str, data: dict[str, Any], client_id: str | None) -> None:
    """Send a message to one browser, from any thread. Without a browser (a program's prompt) nothing is
    sent."""
    here = server()
    if here is not None and client_id is not None:
        here.send_sync(event, data, client_id)


def register_outputs(shown: list[dict[str, str]], prompt_id: str) -> None:
    """Make files known to ComfyUI's assets, as it does itself with what is there when a node returns.

    `shown`: the files, as in a node's `ui`; each gets the `id` of its asset. From any thread. Where ComfyUI
    has no assets (before 0.3.7x, or without --enable-assets) nothing happens, and nothing may fail for it.
    """
    services = sys.modules.get("app.assets.services")
    enrichment = sys.modules.get("comfy_execution.asset_enrichment")
    if not shown or services is None:
        return
    try:
        if enrichment is not None:
            enriched = enrichment.enrich_output_with_assets({"images": [dict(one) for one in shown]})
            for one, known in zip(shown, enriched["images"], strict=True):
                one.update({key: known[key] for key in known.keys() - one.keys()})
        seeder = getattr(sys.modules.get("app.assets.seeder"), "asset_seeder", None)
        if seeder is not None and not seeder.is_disabled():
            paths = [os.path.join(output_directory(), one["subfolder"], one["filename"]) for one in shown]
            services.register_output_files(paths, job_id=prompt_id or None)
            here = server()
            if here is not None:
                here.queue_updated()  # the page then asks for new assets
    except Exception:  # of another program's inside: an image that is saved is saved
        log.exception("The saved files could not be registered with ComfyUI's assets")


def raise_if_interrupted() -> None:
    """Raise ComfyUI's own exception when the user pressed cancel."""
    import comfy.model_management

    comfy.model_management.throw_exception_if_processing_interrupted()


def progress(total: int) -> Any:
    """Return ComfyUI's progress bar of the node that runs now; call `update_absolute(done)`."""
    import comfy.utils

    return comfy.utils.ProgressBar(total)


def nothing() -> Any:
    """Return what stops the nodes behind an output quietly: there is nothing for them to work on."""
    from comfy_execution.graph import ExecutionBlocker

    return ExecutionBlocker(None)
