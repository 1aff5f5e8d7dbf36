"""Notices when the state folder of a running farm is taken away, and makes it again.

A journal whose file was removed takes records that no successor will read: accepting jobs into it would be a
false promise. The token and the address are files that a person may remove by mistake; without them no
program could stop the farm. This module must never write into a folder that another farm has taken meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from luna_farm import logs
from luna_farm.core.completion import finished_records
from luna_farm.errors import FarmError
from luna_farm.storage import arena_size
from luna_farm.storage.reports import Reports
from luna_farm.storage.state_lock import StateLock
from luna_farm.supervisor import state_dir
from luna_farm.supervisor.services import Services

log = logging.getLogger("luna_farm.state")


class StateGuard:
    """The state folder of one farm, held by `lock`. `tick` is called a few times a second; `tell` takes what
    a person should read."""

    def __init__(
        self, folder: Path, lock: StateLock, services: Services, token: str, tell: Callable[[str], None]
    ) -> None:
        self.lock = lock
        self._folder = folder
        self._services = services
        self._token = token
        self._tell = tell
        self.endpoint: dict[str, Any] = {}
        """Where the farm listens, once it does."""

    def tick(self) -> None:
        """Look whether everything is in its place. While that cannot be mended no job is accepted."""
        journal = self._services.journal_writer
        try:
            self._look()
        except (FarmError, OSError) as error:
            problem = f"The state folder {self._folder} was taken away and cannot be made again: {error}"
            if not journal.blocked:
                log.error("%s No new jobs are accepted.", problem)
            journal.blocked = problem
        else:
            journal.blocked = ""

    def stopped(self) -> None:
        """Leave word that the farm has stopped, so that no client waits for it to come back."""
        if self.endpoint and self.lock.in_place():
            with contextlib.suppress(FarmError):
                state_dir.write_endpoint(self._folder, {**self.endpoint, "stopped": True})

    def _look(self) -> None:
        if not self._services.journal_writer.in_place():
            self._make_again()
        if state_dir.read_token(self._folder) != self._token:
            state_dir.write_token(self._folder, self._token)
            self._tell(f"The token in {self._folder} was removed or changed; it was written again.")
        if self.endpoint and state_dir.read_endpoint(self._folder) != self.endpoint:
            state_dir.write_endpoint(self._folder, self.endpoint)

    def _make_again(self) -> None:
        """Make the folder with all that is known of open and finished jobs. Raises FarmError."""
        services, farm = self._services, self._services.farm
        if self.lock.in_place():
            state_dir.secure(self._folder)
        else:
            before, self.lock = self.lock, state_dir.prepare(self._folder)
            before.release()
        letters, uploads = services.letters.folder, services.upload_spool.folder
        for folder in (services.spool.folder, services.large.folder, letters, uploads):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        arena_size.note(self._folder, farm.segment, *farm.inherited)
        services.journal_writer.begin(services.snapshot())
        if not services.reports.in_place():
            services.reports.close()
            services.reports = Reports(self._folder / state_dir.REPORTS)
            services.reports.extend(finished_records(farm, farm.finished_order))
        logs.reopen()
        self._tell(
            f"The journal in {self._folder} was removed while the farm runs. It was made again with all open"
            " jobs; copies of pixels, dead letters and spooled files that were removed with it are gone."
        )
