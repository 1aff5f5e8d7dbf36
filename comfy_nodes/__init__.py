"""What ComfyUI loads: the nodes, their names, and the folder of their scripts and help pages.

ComfyUI imports this folder under its path as module name, so imports inside are relative and everything
else is the installed package `luna_farm_client`, imported when a node runs. Importing must never be slow,
start anything or fail.
"""

from __future__ import annotations

import logging
from typing import Any

from . import installed, previews
from .nodes import LunaDaemonImageSaver, LunaImageStack, LunaMetadata, LunaMultiSaver, LunaSaveBarrier

NODE_CLASS_MAPPINGS: dict[str, Any] = {
    "LunaDaemonImageSaver": LunaDaemonImageSaver,
    "LunaMultiSaver": LunaMultiSaver,
    "LunaImageStack": LunaImageStack,
    "LunaSaveBarrier": LunaSaveBarrier,
    "LunaMetadata": LunaMetadata,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "LunaDaemonImageSaver": "Luna Daemon Image Saver",
    "LunaMultiSaver": "Luna Multi Saver",
    "LunaImageStack": "Luna Image Stack",
    "LunaSaveBarrier": "Luna Save Barrier",
    "LunaMetadata": "Luna Metadata",
}
WEB_DIRECTORY = "./web"

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]

previews.hold_requests()

_advice = installed.kernel_advice()
if _advice:
    logging.getLogger("luna_farm.nodes").warning("[Luna Farm] %s", _advice)
