"""What ComfyUI loads: the nodes, their names, and the folder of their scripts and help pages.

ComfyUI imports this folder under its path as module name, so imports inside are relative and everything
else is the installed package `luna_farm_client`, imported when a node runs. Importing must never be slow,
start anything or fail.
"""

from __future__ import annotations

from . import previews
from .nodes import LunaDaemonImageSaver, LunaMultiSaver, LunaSaveBarrier

NODE_CLASS_MAPPINGS = {
    "LunaDaemonImageSaver": LunaDaemonImageSaver,
    "LunaMultiSaver": LunaMultiSaver,
    "LunaSaveBarrier": LunaSaveBarrier,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "LunaDaemonImageSaver": "Luna Daemon Image Saver",
    "LunaMultiSaver": "Luna Multi Saver",
    "LunaSaveBarrier": "Luna Save Barrier",
}
WEB_DIRECTORY = "./web"

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]

previews.hold_requests()
