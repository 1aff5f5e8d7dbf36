"""The actions that readers of the feed ask for: who may, what comes of them, and how long that may take."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from luna_farm.errors import FarmError, NotPossible, Unauthorized
from luna_farm.feed import requests, web
from luna_farm.feed.gallery import Gallery

log = logging.getLogger("luna_farm.feed")

ACTION_TIMEOUT_S = 30.0

Action = Callable[[requests.Act], Awaitable[dict[str, Any]]]


class Actions:
    """Carries out actions: `action` those on jobs and the pool, `gallery` those on files. `knows` judges the
    token that each brings."""

    def __init__(self, action: Action, gallery: Gallery | None, knows: Callable[[str], bool]) -> None:
        self._action = action
        self._gallery = gallery
        self._knows = knows

    async def answer(self, request: requests.Act) -> dict[str, Any]:
        """Carry out an action and return the message that says what came of it; never raises."""
        answer: dict[str, Any] = {
            "type": "answer",
            "name": request.name,
            "job_id": request.job_id or None,
            "id": request.tag,
        }
        try:
            if not self._knows(request.token):
                raise Unauthorized(web.WRONG_TOKEN)
            done = self._open_folder(request) if request.name == "open_folder" else self._action(request)
            result = await asyncio.wait_for(done, ACTION_TIMEOUT_S)
        except FarmError as error:
            return {**answer, "ok": False, "code": error.code, "error": str(error)}
        except asyncio.TimeoutError:
            return {
                **answer,
                "ok": False,
                "code": "timeout",
                "error": f"No answer within {ACTION_TIMEOUT_S:g} s.",
            }
        except Exception:
            log.exception("The action %s failed.", request.name, extra={"job_id": request.job_id})
            return {**answer, "ok": False, "code": "error", "error": "It failed; the farm's log says why."}
        if "error" in result:  # the farm's own refusal, in its own words
            return {**answer, "ok": False, "code": result.get("code", "error"), "error": result["error"]}
        return {**answer, "ok": True, "result": result}

    async def _open_folder(self, request: requests.Act) -> dict[str, Any]:
        if self._gallery is None or request.row is None:
            raise NotPossible("This farm has no gallery.")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._gallery.threads, self._gallery.open_folder, request.row)
