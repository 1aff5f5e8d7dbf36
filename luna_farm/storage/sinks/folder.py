"""A local or network folder as a mirror: the same bytes once more, published as every file is."""

from __future__ import annotations

import os

from luna_farm.errors import DiskError, FarmError
from luna_farm.storage import writer
from luna_farm.storage.sinks.refusals import of_exception, refusal
from luna_farm.storage.sinks.sink import Decision, SinkError, Stored, Upload


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
            published = writer.publish(
                path, (body,), output_dir=self._folder, temp_name=temp, fsync=self._fsync, recovered=again
            )
            writer.settle(published.temp, self._folder)
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

    def close(self) -> None:
        """There is nothing to close."""

    def _path(self, key: str) -> str:
        return os.path.join(self._folder, *key.split("/"))
