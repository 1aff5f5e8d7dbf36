"""A local or network folder as a mirror: the same bytes once more, published as every file is."""

from __future__ import annotations

import os
import stat

from luna_farm.core.filenames import with_number
from luna_farm.errors import DiskError, FarmError
from luna_farm.storage import writer
from luna_farm.storage.sinks.refusals import of_exception, refusal
from luna_farm.storage.sinks.sink import Decision, SinkError, Stored, Upload

BLOCK_BYTES = 1 << 20
COMPARED_NAMES = 1000
"""How many numbered names an upload that may have succeeded looks through for its bytes."""


class FolderSink:
    """A folder; keys are paths below it with "/" between the parts."""

    thread_safe = True

    def __init__(self, folder: str, fsync: bool = True) -> None:
        self._folder = folder
        self._fsync = fsync

    def exists(self, key: str) -> bool:
        """Whether there is a file under `key`."""
        return os.path.lexists(self._path(key))

    def put(self, key: str, upload: Upload, body: memoryview, *, again: bool) -> Stored:
        """Publish the file under `key` or the next free number."""
        path = self._path(key)
        temp = f".luna-{upload.token}.tmp"
        try:
            found = self._same(key, body) if again else None
            if found is not None:
                return found
            published = writer.publish(
                path, (body,), output_dir=self._folder, temp_name=temp, fsync=self._fsync
            )
        except DiskError as error:
            raise SinkError(str(error), Decision.HOLD, "disk") from error
        except FarmError as error:
            raise SinkError(str(error), Decision.FAIL, "name") from error
        except OSError as error:
            raise refusal(self._folder, of_exception(error)) from error
        stored = os.path.relpath(published.path, self._folder).replace(os.sep, "/")
        return Stored(stored, published.bytes)

    def own(self, key: str, upload: Upload) -> Stored | None:
        """None: `put` itself compares a file that is there."""
        return None

    def _same(self, key: str, body: memoryview) -> Stored | None:
        """Return the file with these bytes that has the name or a number behind it."""
        for number in range(COMPARED_NAMES):
            candidate = with_number(key, number) if number else key
            try:
                status = os.lstat(self._path(candidate))
            except FileNotFoundError:
                return None
            if stat.S_ISREG(status.st_mode) and status.st_size == len(body):
                with open(self._path(candidate), "rb") as file:
                    same = all(
                        file.read(BLOCK_BYTES) == body[at : at + BLOCK_BYTES]
                        for at in range(0, len(body), BLOCK_BYTES)
                    )
                if same:
                    return Stored(candidate, len(body))
        return None

    def close(self) -> None:
        """There is nothing to close."""

    def _path(self, key: str) -> str:
        return os.path.join(self._folder, *key.split("/"))
